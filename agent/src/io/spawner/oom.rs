//! Whom the kernel killed for memory, by its own log.
//!
//! Names the process, so it is exact, and it covers services in no group of the
//! spawner: those without a limit, units and containers. Reading it takes root,
//! and the pids in it are those of the first pid namespace; where either is
//! missing there remain the counts of `cgroup` and what an engine says.
//!
//! Does not follow the log: it is read up to its end when a service was killed,
//! and now and then besides, so that there is little to read in that moment.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// What `/proc/self/ns/pid` is in the first pid namespace (`PROC_PID_INIT_INO`).
const FIRST_PIDS: &str = "pid:[4026531836]";
/// Largest record that the kernel gives out (`PRINTK_MESSAGE_MAX`).
const RECORD_MAX: usize = 2048;
/// Most records of one look: more than the usual ring of 256 KiB holds.
const RECORDS_MAX: usize = 8192;
/// Most kills that are remembered; more at once is a machine beyond help.
const KILLS_MAX: usize = 64;
/// A death is noticed within moments; later the pid may be another's.
const REMEMBERED: Duration = Duration::from_secs(5);

/// The kernel's log from here on.
#[derive(Debug)]
pub(super) struct KernelLog {
    log: Option<File>,
    killed: VecDeque<(i32, Instant)>,
}

impl KernelLog {
    /// Opens the log at its end, if it may be read and speaks of the same pids.
    pub(super) fn open() -> Self {
        let first = fs::read_link("/proc/self/ns/pid").is_ok_and(|ns| ns.as_os_str() == FIRST_PIDS);
        let log = first.then(|| {
            let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
            let mut log = File::options()
                .read(true)
                .custom_flags(flags)
                .open("/dev/kmsg")?;
            log.seek(SeekFrom::End(0))?;
            Ok(log)
        });
        let log = log.and_then(|opened: std::io::Result<File>| match opened {
            Ok(log) => Some(log),
            Err(error) => {
                tracing::debug!(%error, "cannot read the kernel's log");
                None
            }
        });
        Self {
            log,
            killed: VecDeque::with_capacity(KILLS_MAX),
        }
    }

    /// Whether the kernel killed `pid` for memory a moment ago.
    pub(super) fn killed(&mut self, pid: i32) -> bool {
        self.catch_up();
        self.killed.iter().any(|(killed, _)| *killed == pid)
    }

    /// Reads what is new.
    pub(super) fn catch_up(&mut self) {
        let now = Instant::now();
        self.killed
            .retain(|(_, at)| now.duration_since(*at) < REMEMBERED);
        let Some(log) = &mut self.log else { return };
        let mut record = [0; RECORD_MAX];
        for _ in 0..RECORDS_MAX {
            let text = match log.read(&mut record) {
                Ok(0) => return,
                Ok(length) => record.get(..length).unwrap_or_default(),
                // What was not read in time is overwritten; it goes on behind that.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => continue,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if let Some(pid) = victim(&String::from_utf8_lossy(text)) {
                if self.killed.len() == KILLS_MAX {
                    self.killed.pop_front();
                }
                self.killed.push_back((pid, now));
            }
        }
    }
}

/// The process that a record says was killed for memory. Records of the kernel
/// itself only: who may write to the log writes as another facility.
fn victim(record: &str) -> Option<i32> {
    let (prefix, text) = record.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    let text = (priority < 8).then_some(text)?;
    let (before, rest) = text.split_once("Killed process ")?;
    let known = before.starts_with("Out of memory") || before.starts_with("Memory cgroup out of");
    known.then(|| rest.split([' ', ',']).next()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_names_victims() {
        let cgroup = "3,1938,14744742490,-;Memory cgroup out of memory: Killed process 28586 (tail) total-vm:18664kB\n";
        assert_eq!(victim(cgroup), Some(28586));
        let whole = "3,1,2,-;Out of memory: Killed process 7 (x) total-vm:1kB, anon-rss:1kB\n";
        assert_eq!(victim(whole), Some(7));
        let older = "3,1,2,-;Out of memory: Killed process 8, UID 0, (x) total-vm:1kB\n";
        assert_eq!(victim(older), Some(8));
        for other in [
            // Written by a user through /dev/kmsg.
            "12,1,2,-;Out of memory: Killed process 7 (x)",
            "3,1,2,-;systemd: Killed process 7 (x)",
            "3,1,2,-;oom_reaper: reaped process 7 (x)",
            "3,1,2,-;Out of memory: Killed process (x)",
            "Out of memory: Killed process 7 (x)",
            "",
        ] {
            assert_eq!(victim(other), None, "{other}");
        }
    }

    #[test]
    fn nobody_was_killed_who_lives() {
        let mut log = KernelLog::open();
        assert!(!log.killed(i32::try_from(std::process::id()).unwrap()));
    }
}
