//! One process: start it, look whether it lives, end it.
//!
//! A start takes the `posix_spawn` way of the standard library (no copy of the
//! page tables) unless the service has a user of its own; so nothing here runs
//! code between fork and exec. What can wait is done after the loop was told.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use homeostat_common::ids::Instance;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::cgroup::Kills;
use super::kin::{self, Group, Kin, Stat};
use super::marks::{self, Member};
use super::owner::{Found, Handle};
use super::protocol::{Exit, StopSignal};
use super::users;
use crate::config::Service;

/// What a service finds in `PATH` unless it sets its own.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The kernel should take a service before it takes the spawner or the loop.
const SERVICE_OOM_SCORE: &str = "300";

/// A process that was alive when it was last looked at.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) instance: Instance,
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    /// Clock ticks since boot.
    pub(super) start: u64,
    /// The session of its process group.
    pub(super) session: i32,
    /// Who it runs as; not asked of a child, which is known by its parent.
    pub(super) user: Option<u32>,
    pub(super) kept: Kept,
    /// How often the kernel has killed for memory in its group, as far as that says
    /// nothing about this life; `None` when there is no such group.
    pub(super) kills: Option<Kills>,
}

/// Who is told when it ends, and has to be asked to signal it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kept {
    /// This spawner, its parent. As long as it does not reap it, the pid, also as
    /// the name of the process group, cannot change hands.
    Child,
    /// Nobody any more: a former spawner was its parent.
    Orphan,
    /// Systemd or an engine.
    Owned(Handle),
}

/// Starts `command` for `service` as `instance`, in a process group of its own.
pub(super) fn start(
    service: &Service,
    command: &[String],
    instance: Instance,
    mark: &str,
    log: Option<File>,
) -> io::Result<Live> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::other("no command"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .process_group(0);
    if let Some(name) = &service.user {
        become_user(&mut command, name)?;
    }
    command.envs(&service.env).env(marks::VARIABLE, mark);
    // The spawner's own is `/`, and setting it again costs a system call.
    if service.cwd != Path::new("/") {
        command.current_dir(&service.cwd);
    }
    match log {
        Some(log) => command.stdout(log.try_clone()?).stderr(log),
        None => command.stdout(Stdio::null()).stderr(Stdio::null()),
    };
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the kernel gave no pid"))?;
    at_usual_priority(pid);
    // Not reaped yet, so the pid is still its own.
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => {
            let stat = Stat::of(pid);
            Ok(Live {
                instance,
                start: stat.map_or(0, |stat| stat.start),
                session: stat.map_or(0, |stat| stat.session),
                user: None,
                pid,
                pidfd,
                kept: Kept::Child,
                kills: None,
            })
        }
        Err(error) => {
            // Without a pidfd nobody could watch it.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
            Err(error.into())
        }
    }
}

/// Takes from a fresh service the better priority that the spawner may have so that it is not
/// late under load. All threads at once: the kernel lets none begin meanwhile.
fn at_usual_priority(group: Pid) {
    let ahead = rustix::process::getpriority_process(None).is_ok_and(|nice| nice < 0);
    if ahead && let Err(error) = rustix::process::setpriority_pgrp(Some(group), 0) {
        tracing::warn!(%error, "a service keeps the priority of the spawner");
    }
}

fn become_user(command: &mut Command, name: &str) -> io::Result<()> {
    let user = users::find(name)?;
    let own = rustix::process::geteuid();
    if own.is_root() {
        // The standard library drops the supplementary groups as well.
        command.uid(user.uid).gid(user.gid);
    } else if own.as_raw() != user.uid {
        let text = format!("only a spawner that is root can start a service as {name}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    command.env("HOME", &user.home).env("USER", name);
    Ok(())
}

impl Live {
    /// Takes over a process that a former spawner started; `None` when it is
    /// gone, or when the pid is somebody else's by now.
    pub(super) fn adopt(
        instance: Instance,
        pid: u32,
        start: u64,
        handle: Option<Handle>,
    ) -> Option<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Read after the pidfd was opened: if it fits, the pidfd is of it.
        let stat = Stat::of(pid)?;
        if stat.start != start {
            return None;
        }
        let live = Self {
            instance,
            pid,
            pidfd,
            start,
            session: stat.session,
            user: kin::user(pid),
            kills: handle
                .as_ref()
                .and_then(|handle| Kills::of(pid, handle.name())),
            kept: handle.map_or(Kept::Orphan, Kept::Owned),
        };
        (!live.ended()).then_some(live)
    }

    /// Takes over a process that a former spawner started and did not record; `None` when
    /// it is gone, or of a user who does not run the service.
    pub(super) fn found(
        instance: Instance,
        pid: i32,
        start: u64,
        may: impl Fn(u32) -> bool,
    ) -> Option<Self> {
        let live = Self::adopt(instance, pid.unsigned_abs(), start, None)?;
        if !live.user.is_some_and(may) {
            return None;
        }
        at_usual_priority(live.pid);
        Some(live)
    }

    /// Takes a process of an owner as `instance`.
    pub(super) fn of(found: Found, instance: Instance) -> Self {
        Self {
            instance,
            pid: found.pid,
            pidfd: found.pidfd,
            start: found.start,
            session: 0,
            user: None,
            kills: Kills::of(found.pid, found.handle.name()),
            kept: Kept::Owned(found.handle),
        }
    }

    /// Whether this spawner is its parent.
    pub(super) fn is_child(&self) -> bool {
        self.kept == Kept::Child
    }

    /// Its owner's name for it, if it has one.
    pub(super) fn handle(&self) -> Option<&Handle> {
        match &self.kept {
            Kept::Owned(handle) => Some(handle),
            Kept::Child | Kept::Orphan => None,
        }
    }

    /// The pid as a plain number.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Offers the process to the out-of-memory killer before the spawner. An owner
    /// has settings of its own for that.
    pub(super) fn settle(&self) {
        if self.handle().is_some() {
            return;
        }
        let file = format!("/proc/{}/oom_score_adj", self.pid());
        // Fails when it has already ended, which shows elsewhere.
        let _ = std::fs::write(file, SERVICE_OOM_SCORE);
    }

    /// Whether the process has ended, reaped or not.
    pub(super) fn ended(&self) -> bool {
        has_ended(&self.pidfd)
    }

    /// If the process has ended: ends the rest of its group, reaps it and says
    /// how it ended.
    pub(super) fn bury(&self) -> Option<Exit> {
        if !self.ended() {
            return None;
        }
        if !self.is_child() {
            return Some(Exit::Unknown);
        }
        // While it is a zombie no other group can have its number.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        let reaped = rustix::process::waitid(
            WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
        match reaped {
            Ok(Some(status)) => Some(exit(&status)),
            // Only a leader of several threads that has ended before them.
            Ok(None) => None,
            Err(_) => Some(Exit::Unknown),
        }
    }

    /// Whether the kernel has killed in its group for memory since that says something
    /// about this life.
    pub(super) fn counted(&self) -> bool {
        self.kills.as_ref().is_some_and(Kills::more)
    }

    /// Signals the process and its group; `false` when it has ended. One that has
    /// an owner is signalled through that, not here.
    pub(super) fn signal(&self, signal: StopSignal, spawner: &str) -> bool {
        let sent = self.send(
            match signal {
                StopSignal::Term => Signal::TERM,
                StopSignal::Kill => Signal::KILL,
            },
            spawner,
        );
        if signal == StopSignal::Term {
            // A frozen process would not hear of it.
            self.send(Signal::CONT, spawner);
        }
        sent
    }

    /// Stops the process and its group without ending them, or lets them go on;
    /// `false` when it has ended.
    pub(super) fn halt(&self, on: bool, spawner: &str) -> bool {
        self.send(if on { Signal::STOP } else { Signal::CONT }, spawner)
    }

    /// The same with any signal.
    pub(super) fn send(&self, signal: Signal, spawner: &str) -> bool {
        if self.ended() {
            return false;
        }
        if self.is_child() {
            return rustix::process::kill_process_group(self.pid, signal).is_ok();
        }
        // Its own parent may reap it at any moment, after which the number of
        // the group could be another's: signal each member for itself.
        let sent = rustix::process::pidfd_send_signal(&self.pidfd, signal).is_ok();
        for member in self.others(spawner) {
            member.signal(signal);
        }
        sent
    }

    /// What else is of this life, of one that a former spawner started: what carries its
    /// mark, and its group.
    pub(super) fn others(&self, spawner: &str) -> Vec<Member> {
        let marked = marks::all(spawner, |_, user| self.user == Some(user)).unwrap_or_default();
        let marked = marked.into_iter();
        let mut others: Vec<_> = marked
            .filter(|marked| marked.instance == self.instance && marked.member.pid != self.pid)
            .map(|marked| marked.member)
            .collect();
        let group = Group {
            leader: self.pid.as_raw_nonzero().get(),
            start: self.start,
            session: self.session,
            user: self.user,
        };
        for member in group.members(&Kin::look().unwrap_or_default()) {
            if others.iter().all(|other| other.pid != member.pid) {
                others.push(member);
            }
        }
        others
    }
}

/// Reaps every child that ended and is none of `services`: orphans that the
/// kernel gave to the spawner.
pub(super) fn reap_orphans(services: &[Pid]) {
    // Those of the services are left to `bury`, which needs the zombie. A
    // zombie that stays for that long shows up first in every `wait`, so each
    // orphan is asked for by its own pid.
    let text = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    for pid in text.split_ascii_whitespace() {
        let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) else {
            continue;
        };
        if !services.contains(&pid) {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            let _ = rustix::process::waitid(WaitId::Pid(pid), options);
        }
    }
}

fn exit(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// Whether the process of a pidfd has ended, reaped or not.
pub(super) fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut poll = [PollFd::new(pidfd, PollFlags::IN)];
    rustix::event::poll(&mut poll, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// When `pid` was started, in clock ticks since boot.
pub(super) fn start_ticks(pid: Pid) -> Option<u64> {
    Some(Stat::of(pid)?.start)
}
