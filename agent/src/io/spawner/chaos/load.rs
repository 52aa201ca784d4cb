//! A process that takes memory or processors, or holds a service still, for as long as it may.
//!
//! The spawner starts its own program once more with [`HELPER_ARG`]. The kernel ends it with
//! the spawner, and it ends by itself when its time is over, so it outlives nobody's mistake.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use homeostat_common::units::Millis;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};

use super::{guard, hold};
use crate::chaos::SPAN_MAX;

/// The hidden command of `homeostat-agent`, followed by the parent's pid, what to take (bytes,
/// or one of the words below) and milliseconds; or by [`guard::WORD`] and what that takes.
pub const HELPER_ARG: &str = "chaos-helper";

const CORES: &str = "cores";
/// Followed by bytes: taken evenly, over so much of the time.
const LEAK: &str = "leak:";
const LEAK_TIME: Duration = Duration::from_secs(25);
/// Followed by a pid.
const HOLD: &str = "hold:";

/// Memory is taken in such pieces ...
const PIECE: usize = 1 << 20;
/// ... a leak in smaller ones.
const DROP: usize = 64 << 10;
/// After each such a pause: 1 GB a second and process.
const PAUSE: Duration = Duration::from_millis(1);
/// More memory than this is never taken.
const BYTES_MAX: u64 = 64 << 30;
/// Memory is taken by so many processes: where the spawner may not protect itself from the
/// kernel's choice, one alone would be the largest of the group and be killed in place of
/// the service, which the kernel is told to weigh by 300 thousandths of the limit more.
const TAKERS: u64 = 16;
/// What says that it has begun does so within this, on a busy node too; the spawner does
/// nothing else meanwhile.
const CONFIRM_MAX: Duration = Duration::from_millis(500);
/// Longest word about why it could not.
const WORD_MAX: usize = 256;

/// What is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// So much memory, at once.
    Bytes(u64),
    /// So much memory, little by little.
    Leak(u64),
    /// All processors.
    Cores,
    /// The threads of a process.
    Hold(u32),
}

/// A load that runs; dropping it ends it.
#[derive(Debug)]
pub(super) struct Running(Vec<Taker>);

#[derive(Debug)]
struct Taker {
    pidfd: OwnedFd,
    pid: u32,
    // Whoever reaps orphans in the spawner reaps it; it is not waited for here.
    child: Child,
}

impl Running {
    pub(super) fn start(load: Load, span: Millis) -> io::Result<Self> {
        let one = |what: String| Taker::start(&what, span).map(|taker| vec![taker]);
        let takers = match load {
            Load::Bytes(bytes) => {
                let share = bytes.div_ceil(TAKERS).to_string();
                (0..TAKERS).map(|_| Taker::start(&share, span)).collect()
            }
            Load::Leak(bytes) => one(format!("{LEAK}{bytes}")),
            Load::Cores => one(CORES.to_owned()),
            Load::Hold(pid) => one(format!("{HOLD}{pid}")),
        };
        takers.map(Self)
    }

    /// Lets it begin: what it took before it was in the group would not count there.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        for taker in &mut self.0 {
            let mut word = taker.child.stdin.take();
            word.as_mut().map_or(Ok(()), |word| word.write_all(b"!"))?;
        }
        Ok(())
    }

    /// Waits until it says that it has begun.
    pub(super) fn confirmed(&mut self) -> io::Result<()> {
        for taker in &mut self.0 {
            let Some(mut said) = taker.child.stdout.take() else {
                continue;
            };
            let patience = Timespec::try_from(CONFIRM_MAX).unwrap_or_default();
            let mut poll = [PollFd::new(&said, PollFlags::IN)];
            if rustix::event::poll(&mut poll, Some(&patience))? == 0 {
                return Err(io::Error::other("it takes too long"));
            }
            let mut word = [0; WORD_MAX];
            let length = said.read(&mut word)?;
            match String::from_utf8_lossy(word.get(..length).unwrap_or(&[])).trim() {
                "ok" => {}
                "" => return Err(io::Error::other("it ended at once")),
                why => return Err(io::Error::other(why.to_owned())),
            }
        }
        Ok(())
    }

    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|taker| taker.pid)
    }
}

impl Taker {
    fn start(what: &str, span: Millis) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg(HELPER_ARG)
            .args([
                std::process::id().to_string(),
                what.to_owned(),
                span.0.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = Pid::from_child(&child);
        // Not reaped yet, so the pid is its own.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self {
            pidfd,
            pid: child.id(),
            child,
        })
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(self.pidfd.as_fd(), Signal::KILL);
    }
}

/// Runs it. `arguments` are those after [`HELPER_ARG`].
#[must_use]
pub fn helper_main(arguments: &[String]) -> ExitCode {
    if let Some((guard::WORD, rest)) = arguments
        .split_first()
        .map(|(first, rest)| (first.as_str(), rest))
    {
        return guard::main(rest);
    }
    let [parent, what, span] = arguments else {
        return ExitCode::from(2);
    };
    let ends = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let own = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    // The parent may have gone before the kernel was told.
    if ends.is_err() || own.as_ref() != Some(parent) {
        return ExitCode::FAILURE;
    }
    let Ok(span) = span.parse::<u64>() else {
        return ExitCode::from(2);
    };
    // Whoever starts it says when, once it is where it should be; or is gone.
    if io::stdin().lock().read_exact(&mut [0]).is_err() {
        return ExitCode::FAILURE;
    }
    let begun = Instant::now();
    let end = begun + Duration::from_millis(span.min(SPAN_MAX.0));
    if what == CORES {
        burn(end);
    } else if let Some(Ok(pid)) = what.strip_prefix(HOLD).map(str::parse) {
        return keep_still(pid, end);
    } else if let Some(Ok(bytes)) = what.strip_prefix(LEAK).map(str::parse::<u64>) {
        let bytes = bytes.min(BYTES_MAX);
        take(DROP, end, || {
            let passed = begun.elapsed().min(LEAK_TIME).as_millis();
            let due = u128::from(bytes) * passed / LEAK_TIME.as_millis();
            u64::try_from(due).unwrap_or(bytes)
        });
    } else if let Ok(bytes) = what.parse::<u64>() {
        take(PIECE, end, || bytes.min(BYTES_MAX));
    } else {
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

fn burn(end: Instant) {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let burn = move || while Instant::now() < end {};
    let others: Vec<_> = (1..cores).map(|_| thread::spawn(burn)).collect();
    burn();
    drop(others);
}

/// Takes memory, until there is as much as `due` says.
fn take(piece: usize, end: Instant, due: impl Fn() -> u64) {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    while Instant::now() < end {
        if ((taken.len() * piece) as u64) < due() {
            // Not zero, so that each page is really there.
            taken.push(vec![0xa5; piece]);
        }
        thread::sleep(PAUSE);
    }
}

/// Ends with this process, however that ends.
fn keep_still(pid: u32, end: Instant) -> ExitCode {
    let word = match hold::seize(pid) {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("the kernel does not let it be held: {error}"),
    };
    let said = io::stdout().write_all(word.as_bytes());
    if word != "ok" || said.and_then(|()| io::stdout().flush()).is_err() {
        return ExitCode::FAILURE;
    }
    thread::spawn(move || {
        thread::sleep(end.saturating_duration_since(Instant::now()));
        std::process::exit(0);
    });
    hold::attend();
    ExitCode::SUCCESS
}
