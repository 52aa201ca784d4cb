//! A process that takes memory or processors, for as long as it may.
//!
//! The spawner starts its own program once more with [`LOAD_ARG`]. The kernel ends it with the
//! spawner, and it ends by itself when its time is over, so it outlives nobody's mistake.

use std::io;
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
/// ... each after such a pause: 1 GB a second.
const PAUSE: Duration = Duration::from_millis(1);
/// More memory than this is never taken.
const BYTES_MAX: u64 = 64 << 30;

/// What is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    Bytes(u64),
    Cores,
}

/// A load that runs; dropping it ends it.
#[derive(Debug)]
pub(super) struct Running {
    pidfd: OwnedFd,
    pid: u32,
    // Whoever reaps orphans in the spawner reaps it; it is not waited for here.
    _child: Child,
}

impl Running {
    pub(super) fn start(load: Load, span: Millis) -> io::Result<Self> {
        let what = match load {
            Load::Bytes(bytes) => bytes.to_string(),
            Load::Cores => "cores".to_owned(),
        };
        let child = Command::new(std::env::current_exe()?)
            .arg(LOAD_ARG)
            .args([std::process::id().to_string(), what, span.0.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = Pid::from_child(&child);
        // Not reaped yet, so the pid is its own.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self {
            pidfd,
            pid: child.id(),
            _child: child,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Running {
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
    let pieces = bytes.min(BYTES_MAX) / PIECE as u64;
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
