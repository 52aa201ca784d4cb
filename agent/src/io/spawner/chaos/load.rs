//! A process that takes memory or processors, for as long as it may.
//!
//! The spawner starts its own program once more with [`LOAD_ARG`]. The kernel ends it with the
//! spawner, and it ends by itself when its time is over, so it outlives nobody's mistake.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use homeostat_common::units::Millis;
use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};

use crate::chaos::SPAN_MAX;

/// The hidden command of `homeostat-agent`, followed by the parent's pid, what to take (bytes,
/// or `cores`) and milliseconds.
pub const LOAD_ARG: &str = "chaos-load";

/// Memory is taken in such pieces ...
const PIECE: usize = 1 << 20;
/// ... each after such a pause: 1 GB a second and process.
const PAUSE: Duration = Duration::from_millis(1);
/// More memory than this is never taken.
const BYTES_MAX: u64 = 64 << 30;
/// Memory is taken by so many processes: where the spawner may not protect itself from the
/// kernel's choice, one alone would be the largest of the group and be killed in place of
/// the service, which the kernel is told to weigh by 300 thousandths of the limit more.
const TAKERS: u64 = 16;

/// What is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    Bytes(u64),
    Cores,
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
        let takers = match load {
            Load::Bytes(bytes) => {
                let share = bytes.div_ceil(TAKERS).to_string();
                (0..TAKERS).map(|_| Taker::start(&share, span)).collect()
            }
            Load::Cores => Taker::start("cores", span).map(|taker| vec![taker]),
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

    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|taker| taker.pid)
    }
}

impl Taker {
    fn start(what: &str, span: Millis) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg(LOAD_ARG)
            .args([
                std::process::id().to_string(),
                what.to_owned(),
                span.0.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
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

/// Runs it. `arguments` are those after [`LOAD_ARG`].
#[must_use]
pub fn load_main(arguments: &[String]) -> ExitCode {
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
    let span = Duration::from_millis(span.min(SPAN_MAX.0));
    let end = Instant::now() + span;
    if what == "cores" {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let burn = move || while Instant::now() < end {};
        let others: Vec<_> = (1..cores).map(|_| thread::spawn(burn)).collect();
        burn();
        drop(others);
        return ExitCode::SUCCESS;
    }
    let Ok(bytes) = what.parse::<u64>() else {
        return ExitCode::from(2);
    };
    let pieces = bytes.min(BYTES_MAX).div_ceil(PIECE as u64);
    let mut taken: Vec<Vec<u8>> = Vec::new();
    while Instant::now() < end {
        if (taken.len() as u64) < pieces {
            // Not zero, so that each page is really there.
            taken.push(vec![0xa5; PIECE]);
        }
        thread::sleep(PAUSE);
    }
    ExitCode::SUCCESS
}
