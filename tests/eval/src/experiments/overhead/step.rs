//! Instructions of a process at rest, one by one: each of its threads is stopped after each.
//!
//! For processes that valgrind cannot run; it has no `pidfd_open` up to 3.20. A step takes the
//! tracer some microseconds, a thousand times as long as the instruction does, so this is for
//! processes that sleep nearly all the time: one that no longer comes to sleep does less than it
//! would, and is refused. A call of the kernel counts as one instruction, and so does each round
//! of a repeated one (`rep movs`).

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::stage::interrupt;

/// Looks in vain after which the kernel is asked whether all threads sleep, and how long the next
/// look waits then.
const IDLE_LOOKS: u32 = 64;
const IDLE: Duration = Duration::from_micros(100);

/// How much of the time it has to have slept: who comes to sleep at all is not behind.
const ASLEEP_MIN: f64 = 0.1;

/// What stops each thread after each instruction; lets go of them at its end.
struct Stepper {
    threads: BTreeSet<Pid>,
    steps: u64,
}

impl Stepper {
    fn seize(pid: u32) -> Result<Self> {
        let mut this = Self {
            threads: BTreeSet::new(),
            steps: 0,
        };
        for entry in fs::read_dir(format!("/proc/{pid}/task")).context("cannot list threads")? {
            let name = entry.context("cannot list threads")?.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            let thread = Pid::from_raw(number.context("no number of a thread")?);
            ptrace::seize(thread, Options::empty())
                .and_then(|()| ptrace::interrupt(thread))
                .with_context(|| format!("cannot trace {thread}"))?;
            this.threads.insert(thread);
        }
        Ok(this)
    }

    /// Lets every thread that has stopped go one step further. Whether there was any.
    fn advance(&mut self) -> Result<bool> {
        let mut moved = false;
        for thread in &self.threads {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
            let pass_on = match waitpid(*thread, Some(flags)).context("cannot wait for a thread")? {
                WaitStatus::StillAlive => continue,
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                    self.steps += 1;
                    None
                }
                WaitStatus::Stopped(_, signal) => Some(signal),
                WaitStatus::PtraceEvent(..) => None,
                other => bail!("a thread ended while it was counted: {other:?}"),
            };
            ptrace::step(*thread, pass_on).context("cannot let a thread go on")?;
            moved = true;
        }
        Ok(moved)
    }

    /// Whether all of them wait for something, rather than for a core or for this.
    fn sleeps(&self, pid: u32) -> bool {
        self.threads.iter().all(|thread| {
            let stat = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat"));
            let stat = stat.unwrap_or_default();
            let (_, rest) = stat.rsplit_once(')').unwrap_or_default();
            matches!(rest.trim_start().as_bytes().first(), Some(b'S' | b'D'))
        })
    }
}

impl Drop for Stepper {
    fn drop(&mut self) {
        for thread in &self.threads {
            // One that sleeps has to be woken up to be let go. What fails here has ended.
            let _ = ptrace::interrupt(*thread);
            let _ = let_go(*thread);
        }
    }
}

/// Lets go of a thread that stops. The interruption is told before the trap of a step that was
/// done by then, and that trap would end a thread that nobody traces.
fn let_go(thread: Pid) -> Result<(), Errno> {
    loop {
        let pass_on = match waitpid(thread, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) | WaitStatus::PtraceEvent(..) => None,
            WaitStatus::Stopped(_, signal) => Some(signal),
            _ => return Ok(()),
        };
        if !trap_pending(thread) {
            return ptrace::detach(thread, pass_on);
        }
        ptrace::cont(thread, pass_on)?;
    }
}

fn trap_pending(thread: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let pending = status
        .lines()
        .find_map(|line| line.strip_prefix("SigPnd:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    pending.is_some_and(|mask| mask & (1 << (Signal::SIGTRAP as u64 - 1)) != 0)
}

/// Instructions a second of all threads that `pid` has now.
///
/// # Errors
/// When it cannot be traced, ends, or is too busy.
pub(super) fn instructions_per_second(pid: u32, span: Duration) -> Result<f64> {
    let mut stepper = Stepper::seize(pid)?;
    let begun = Instant::now();
    let mut asleep = Duration::ZERO;
    let mut vain = 0;
    while begun.elapsed() < span {
        if stepper.advance()? {
            vain = 0;
            continue;
        }
        vain += 1;
        if vain >= IDLE_LOOKS {
            let from = Instant::now();
            let sleeps = stepper.sleeps(pid);
            interrupt::pause(IDLE)?;
            if sleeps {
                asleep += from.elapsed();
            }
        }
    }
    let span = begun.elapsed().as_secs_f64();
    let share = asleep.as_secs_f64() / span;
    ensure!(
        share >= ASLEEP_MIN,
        "too busy to be counted step by step: it slept {:.0} % of the time",
        share * 100.0
    );
    Ok(stepper.steps as f64 / span)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_sleeps_is_counted_and_goes_on_and_what_spins_is_refused() {
        let mut sleeper = Command::new("/bin/sh")
            .args(["-c", "while sleep 0.4; do :; done"])
            .spawn()
            .unwrap();
        // What a start takes is not to be gone through step by step.
        std::thread::sleep(Duration::from_millis(300));
        let counted = instructions_per_second(sleeper.id(), Duration::from_millis(1500));
        let goes_on = sleeper.try_wait().unwrap().is_none();
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        // A shell takes some thousands for a round, and there are a few.
        let counted = counted.unwrap();
        assert!((1e3..1e7).contains(&counted), "{counted}");
        assert!(goes_on);

        let mut spinner = Command::new("/bin/sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        // One that is in the midst of a step each time has to go on as well.
        let refused =
            (0..20).map(|_| instructions_per_second(spinner.id(), Duration::from_millis(15)));
        let refused: Vec<_> = refused.collect();
        std::thread::sleep(Duration::from_millis(20));
        let goes_on = spinner.try_wait().unwrap().is_none();
        spinner.kill().unwrap();
        spinner.wait().unwrap();
        assert!(goes_on);
        for each in refused {
            assert!(each.unwrap_err().to_string().contains("too busy"));
        }
    }
}
