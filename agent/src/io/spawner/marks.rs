//! Processes that belong to a service, found by the mark in their environment.
//!
//! Each service is started with [`VARIABLE`] naming spawner, service and
//! instance, and its descendants inherit it. That finds what pids and process
//! groups cannot: descendants in a group of their own, and an instance whose
//! spawner was killed before it could record it. A process that overwrites its
//! environment (some do, to show a title) is not found this way; then there is what
//! `kin` sees, the process group and who descends from whom.
//!
//! Anybody can start a process with any environment. So a mark counts only on a
//! process of a user that the service runs as: such a one could signal the service
//! anyway. What a service of root started as somebody else, and in a group of its
//! own, is therefore not found once its spawner was replaced.
//!
//! A signal goes through a pidfd that was opened before the mark was read, so
//! a pid that changes hands in between hits nobody.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use homeostat_common::ids::{Instance, ServiceId};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::kin;

/// Carries the mark.
pub(super) const VARIABLE: &str = "HOMEOSTAT_SLOT";
/// Largest environment that is searched; the kernel allows some 2 MiB, a
/// configuration 512 KiB.
const ENVIRONMENT_MAX: u64 = 1 << 20;

/// The mark of one instance of the spawner that is called `spawner`.
pub(super) fn mark(spawner: &str, service: &ServiceId, instance: Instance) -> String {
    format!("{spawner}:{service}:{}", instance.0)
}

/// A process of a service.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
}

/// A marked process.
#[derive(Debug)]
pub(super) struct Marked {
    pub(super) member: Member,
    pub(super) service: ServiceId,
    pub(super) instance: Instance,
}

impl Member {
    /// Signals it; that it is gone by now is as good.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = rustix::process::pidfd_send_signal(&self.pidfd, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = self.pid.as_raw_nonzero(), %error, "cannot signal a process");
        }
    }
}

/// All processes that carry a mark of `spawner` and whose user `may` run the service.
pub(super) fn all(spawner: &str, may: impl Fn(&ServiceId, u32) -> bool) -> io::Result<Vec<Marked>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        let marked = pid.and_then(Pid::from_raw).and_then(|pid| of(spawner, pid));
        found.extend(marked.filter(|marked| {
            kin::user(marked.member.pid).is_some_and(|user| may(&marked.service, user))
        }));
    }
    Ok(found)
}

/// Kills `members` and waits until they are gone, at most for `limit`.
pub(super) fn end(members: &[Member], limit: Duration) {
    for one in members {
        one.signal(Signal::KILL);
    }
    let begun = Instant::now();
    for one in members {
        let mut poll = [PollFd::new(&one.pidfd, PollFlags::IN)];
        let rest = limit.saturating_sub(begun.elapsed());
        let rest = Timespec::try_from(rest).unwrap_or_default();
        if !matches!(rustix::event::poll(&mut poll, Some(&rest)), Ok(ready) if ready > 0) {
            tracing::error!(pid = one.pid.as_raw_nonzero(), "killed, and still there");
        }
    }
}

/// Own children other than `known` that carry a mark; cheap, as the kernel
/// lists them. They descend from what was started here, whoever they are by now.
pub(super) fn children(spawner: &str, known: &[Pid]) -> Vec<Marked> {
    // Absent in kernels without checkpointing; then only groups are ended.
    let text = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let pids = text.split_ascii_whitespace();
    let pids = pids.filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw));
    pids.filter(|pid| !known.contains(pid))
        .filter_map(|pid| of(spawner, pid))
        .collect()
}

/// The mark of `pid`, if it carries one of `spawner` and may be looked at.
fn of(spawner: &str, pid: Pid) -> Option<Marked> {
    if pid == rustix::process::getpid() {
        return None;
    }
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let mut environment = Vec::new();
    File::open(format!("/proc/{}/environ", pid.as_raw_nonzero()))
        .ok()?
        .take(ENVIRONMENT_MAX)
        .read_to_end(&mut environment)
        .ok()?;
    let (service, instance) = read(spawner, &environment)?;
    Some(Marked {
        member: Member { pid, pidfd },
        service,
        instance,
    })
}

fn read(spawner: &str, environment: &[u8]) -> Option<(ServiceId, Instance)> {
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let mark = std::str::from_utf8(variable).ok()?;
        let mark = mark.strip_prefix(VARIABLE)?.strip_prefix('=')?;
        let (service, instance) = mark
            .strip_prefix(spawner)?
            .strip_prefix(':')?
            .split_once(':')?;
        Some((service.parse().ok()?, Instance(instance.parse().ok()?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_marks_of_this_spawner_count() {
        let db = ServiceId::new("db").unwrap();
        let environment = |value: &str| format!("PATH=/bin\0{VARIABLE}={value}\0A=b");
        let own = environment(&mark("/run/h", &db, Instance(7)));
        assert_eq!(read("/run/h", own.as_bytes()), Some((db, Instance(7))));
        for other in [
            "/run/h2:db:7",
            "/run/h",
            "/run/h:db",
            "/run/h:D:7",
            "/run/h:db:x",
            "",
        ] {
            assert_eq!(
                read("/run/h", environment(other).as_bytes()),
                None,
                "{other}"
            );
        }
        assert_eq!(read("/run/h", b"\xff\0"), None);
    }
}
