//! The spawner process: one thread around `poll`.
//!
//! Each round first buries who died, then answers the loop, and last does what
//! nobody waits for: recording who died, memory limits, log sizes. So between
//! a request and its `exec` there is one decode and one spawn.
//!
//! One loop is served at a time. A loop that does not read its messages is
//! disconnected rather than queued for; the `Welcome` of its next connection
//! tells it everything that still matters.

mod acting;
mod breaking;
mod burying;
mod owned;
mod reloading;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use homeostat_common::ids::{BootId, ServiceId};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::acts::Acts;
use super::cgroup::{Groups, Kills};
use super::chaos::Chaos;
use super::cpu;
use super::logs::Logs;
use super::oom::KernelLog;
use super::owner::{Order, Owners};
use super::process::{self, Live};
use super::protocol::{
    DecodeError, MESSAGE_MAX, Message, Refusal, Request, VERSION, decode, encode,
};
pub use super::setup::SpawnerError;
use super::setup::{self, Peers, Signals, failed};
use super::slots::{self, Slot, adopt, entries, logged, settle_unrecorded};
use super::state::{self, State};
use super::{folder, marks, socket_path};
use crate::config::{Config, Process};
use crate::io::local::datagram::reason;
use crate::io::local::sockets::{self, Received};

/// Requests answered before deaths are looked at again.
const REQUESTS_A_ROUND: usize = 32;
/// What nobody waits for is done after such a pause: the loop's answer to a death comes before.
const LULL: Duration = Duration::from_millis(1);
/// It waits so long at most, however much there is to do.
const LEFT_MAX: Duration = Duration::from_millis(20);
/// How often logs are measured.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// How `homeostat-agent spawn` was called.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// End all services at SIGTERM or SIGINT; without it they go on.
    pub stop_services_on_exit: bool,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`SpawnerError`] when it cannot begin; later trouble is logged and survived.
pub fn run(options: &Options) -> Result<(), SpawnerError> {
    let mut server = Server::open(options)?;
    tracing::info!(
        services = server.slots.len(),
        adopted = server
            .slots
            .values()
            .filter(|slot| slot.live.is_some())
            .count(),
        "spawner serves {}",
        socket_path(&server.config.node.run_dir).display()
    );
    server.find_owned();
    server.serve();
    server.leave(options.stop_services_on_exit);
    Ok(())
}

/// The connected loop.
#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    pid: u32,
    greeted: bool,
}

struct Server {
    file: PathBuf,
    config: Config,
    /// Names this spawner in the marks of its services.
    name: String,
    boot: BootId,
    peers: Peers,
    signals: Signals,
    listener: OwnedFd,
    connection: Option<Connection>,
    slots: BTreeMap<ServiceId, Slot>,
    state: State,
    logs: Logs,
    groups: Groups,
    /// Does what takes a while; there once something was asked of it.
    acts: Option<Acts>,
    chaos: Chaos,
    kernel: KernelLog,
    /// The way to systemd and engines, if a service needs one.
    owners: Option<Owners>,
    /// Started in this round, or found to be.
    fresh: Vec<ServiceId>,
    /// Ended in this round.
    ended: Vec<ServiceId>,
    /// The recorded slots are not the present ones.
    unrecorded: bool,
    logs_measured: Instant,
    _lock: File,
}

/// What `poll` found.
#[derive(Default, PartialEq, Eq)]
struct Ready {
    stop: bool,
    deaths: bool,
    reports: bool,
    listener: bool,
    connection: bool,
    acts: bool,
}

impl Server {
    fn open(options: &Options) -> Result<Self, SpawnerError> {
        let file = std::path::absolute(&options.config).map_err(failed("find", &options.config))?;
        let config = setup::read_config(&file)?;
        let run_dir = &config.node.run_dir;
        let folder = folder(run_dir);
        setup::own_folder(&folder)?;
        let lock = setup::only_one(&folder, run_dir)?;
        let peers = Peers::of(&config).map_err(failed("look up agent_user of", &file))?;
        let logs = Logs::open(&config.node.data_dir, peers.readers);
        let signals = Signals::catch().map_err(failed("catch signals in", &folder))?;
        let boot = state::boot_id().map_err(failed("read the boot id for", &folder))?;
        setup::settle_process();
        let (mut state, entries) = State::open(&folder, boot);
        let name = run_dir.to_string_lossy().into_owned();
        let groups = Groups::wanted_by(&config);
        let (mut slots, gone) = adopt(&config, entries);
        for (service, slot) in &mut slots {
            if let Some(live) = &mut slot.live
                && live.handle().is_none()
            {
                live.kills = groups.kills(&config.node.id, service);
            }
        }
        let fresh = settle_unrecorded(&name, &mut slots, &gone, &mut state);
        let chaos = Chaos::open(&config.node.data_dir, boot, &name);
        let socket = socket_path(run_dir);
        let listener = sockets::listen(&socket).map_err(failed("listen at", &socket))?;
        // Who may speak is decided by the credentials of the peer.
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))
            .map_err(failed("open up", &socket))?;
        Ok(Self {
            groups,
            chaos,
            kernel: KernelLog::open(),
            acts: None,
            owners: None,
            file,
            name,
            boot,
            peers,
            signals,
            listener,
            connection: None,
            slots,
            state,
            logs,
            fresh,
            ended: Vec::new(),
            unrecorded: true,
            logs_measured: Instant::now(),
            config,
            _lock: lock,
        })
    }

    fn serve(&mut self) {
        // Since when something is left that nobody waits for.
        let mut left: Option<Instant> = None;
        loop {
            let timeout = match left {
                Some(since) if since.elapsed() < LEFT_MAX => Some(LULL),
                _ => {
                    left = None;
                    self.after_round();
                    self.until_next()
                }
            };
            let ready = match self.wait(timeout) {
                Ok(ready) if left.is_some() && ready == Ready::default() => {
                    left = None;
                    self.after_round();
                    continue;
                }
                Ok(ready) => ready,
                Err(error) => {
                    // Out of memory in the kernel; there is nothing to undo.
                    tracing::error!(%error, "cannot poll");
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            if ready.stop {
                return;
            }
            if ready.deaths {
                self.bury_all();
            }
            self.tend_chaos();
            if ready.reports {
                self.hear_owners();
            }
            if ready.connection {
                self.answer();
            }
            if ready.acts {
                self.tell_acts();
            }
            if ready.listener {
                self.accept();
            }
            if left.is_none() && self.has_left() {
                left = Some(Instant::now());
            }
        }
    }

    /// Whether something waits for a lull.
    fn has_left(&self) -> bool {
        self.unrecorded || !self.fresh.is_empty() || !self.ended.is_empty()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Ready> {
        let adopted = self.slots.values().filter_map(|slot| slot.live.as_ref());
        let adopted = adopted
            .filter(|live| !live.is_child())
            .map(|live| &live.pidfd);
        let mut fds: Vec<PollFd<'_>> = vec![
            PollFd::new(&self.signals.stop, PollFlags::IN),
            PollFd::new(&self.signals.child, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        let connection = self
            .connection
            .as_ref()
            .map(|connection| &connection.socket);
        fds.extend(connection.map(|socket| PollFd::new(socket, PollFlags::IN)));
        let acts = self.acts.as_ref().map(Acts::ready);
        fds.extend(acts.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let wake = self.owners.as_ref().map(|owners| &owners.wake);
        fds.extend(wake.map(|wake| PollFd::new(wake, PollFlags::IN)));
        fds.extend(adopted.map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            other => other?,
        };
        let mut fired = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || fired.next().unwrap_or(false);
        let (stop, child, listener) = (next(), next(), next());
        let connection = self.connection.is_some() && next();
        let acts = self.acts.is_some() && next();
        let reports = self.owners.is_some() && next();
        let died = fired.any(|fired| fired);
        if child {
            // Signals that came together are one; all children are looked at.
            let mut bytes = [0; 64];
            while matches!((&self.signals.child).read(&mut bytes), Ok(n) if n > 0) {}
        }
        Ok(Ready {
            stop,
            deaths: child || died,
            reports,
            listener,
            connection,
            acts,
        })
    }

    fn accept(&mut self) {
        let (socket, peer) = match sockets::accept(&self.listener)
            .and_then(|socket| Ok((rustix::net::sockopt::socket_peercred(&socket)?, socket)))
        {
            Ok((peer, socket)) => (socket, peer),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a loop");
                return;
            }
        };
        let pid = peer.pid.as_raw_nonzero().get().unsigned_abs();
        if !self.peers.admit(peer.uid.as_raw()) {
            tracing::warn!(pid, uid = peer.uid.as_raw(), "refused a stranger");
            return;
        }
        if let Some(present) = &self.connection {
            tracing::warn!(pid, present = present.pid, "refused a second loop");
            let busy = Message::Busy { pid: present.pid };
            // It sees the end of the connection in any case.
            let _ = transmit(&socket, &busy, &[]);
            return;
        }
        self.connection = Some(Connection {
            socket,
            pid,
            greeted: false,
        });
    }

    fn answer(&mut self) {
        let mut buffer = [0; MESSAGE_MAX];
        for _ in 0..REQUESTS_A_ROUND {
            let Some(connection) = &mut self.connection else {
                return;
            };
            let request = match sockets::receive(connection.socket.as_fd(), &mut buffer) {
                Ok(Received::Datagram(length, _)) => {
                    decode(buffer.get(..length).unwrap_or_default())
                }
                Ok(Received::TooLong) => Err(DecodeError::Rest(0)),
                Ok(Received::End) => {
                    tracing::info!(pid = connection.pid, "the loop is gone; services go on");
                    self.connection = None;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::warn!(pid = connection.pid, %error, "lost the loop");
                    self.connection = None;
                    return;
                }
            };
            match request {
                Ok(Request::Hello) => {
                    connection.greeted = true;
                    self.welcome();
                }
                Ok(request) if connection.greeted => self.carry_out(request),
                Err(DecodeError::Version {
                    theirs: Some(_), ..
                }) => {
                    self.tell(&Message::Unsupported { speaks: VERSION }, None);
                    self.connection = None;
                }
                Ok(_) | Err(_) => self.tell(&Message::Malformed, None),
            }
        }
    }

    fn carry_out(&mut self, request: Request) {
        let answer = match request {
            Request::Hello => return,
            Request::Start { service } => match self.start(&service) {
                Ok(()) => return,
                Err(why) => Message::Refused { service, why },
            },
            Request::Signal {
                service,
                instance,
                signal,
            } => {
                let live = self.slots.get(&service).and_then(|slot| slot.live.as_ref());
                let live = live.filter(|live| live.instance == instance);
                if live.is_some_and(|live| self.signal(&service, live, signal)) {
                    Message::Signalled { service, instance }
                } else {
                    Message::NotSignalled { service, instance }
                }
            }
            Request::Act {
                token,
                service,
                instance,
                act,
            } => match self.act(token, &service, instance, act) {
                Some(done) => Message::Acted {
                    token,
                    failed: done.err().map(reason),
                },
                // Its owner does it, and the answer comes with what became of it.
                None => return,
            },
            Request::ActOnNode { token, act } => match self.act_on_node(token, act) {
                Ok(()) => return,
                Err(why) => Message::Acted {
                    token,
                    failed: Some(reason(why)),
                },
            },
            Request::Break {
                service,
                injection,
                span,
            } => self.inject(&service, injection, span),
            Request::Mend => self.mend(),
            Request::Reload => match self.reload() {
                Ok(()) => Message::Reloaded,
                Err(why) => Message::NotReloaded { why: reason(why) },
            },
        };
        self.tell(&answer, None);
    }

    /// Starts `service`, and tells the loop if that worked.
    fn start(&mut self, service: &ServiceId) -> Result<(), Refusal> {
        self.bury(service);
        let slot = self.slots.get(service).ok_or(Refusal::Unknown)?;
        if let Some(live) = &slot.live {
            return Err(Refusal::Occupied {
                instance: live.instance,
            });
        }
        let spec = slot.spec.as_ref().ok_or(Refusal::Unknown)?;
        let Process::Command(command) = &spec.process else {
            return self.start_owned(service);
        };
        let instance = self.state.mint(entries(&self.slots));
        let mark = marks::mark(&self.name, service, instance);
        let log = spec.log.then(|| self.logs.file(service)).transpose();
        let log = log.unwrap_or_else(|error| {
            // A full or broken disk must not keep a service down.
            tracing::warn!(%service, %error, "starts without a log");
            None
        });
        let live = process::start(spec, command, instance, &mark, log).map_err(|error| {
            tracing::warn!(%service, %error, "cannot start");
            Refusal::Spawn {
                text: reason(error.to_string()),
            }
        })?;
        self.occupy(service, live);
        Ok(())
    }

    /// Puts `live` into the slot of `service`, which is free.
    fn occupy(&mut self, service: &ServiceId, live: Live) {
        let started = Message::Started {
            service: service.clone(),
            instance: live.instance,
            pid: live.pid(),
        };
        // The slot is taken before anything else can fail.
        if let Some(slot) = self.slots.get_mut(service) {
            slot.live = Some(live);
        }
        // It runs already; the loop is told only of what a successor will find.
        self.state.save(entries(&self.slots));
        self.tell(&started, Some(service));
        self.fresh.push(service.clone());
    }

    fn welcome(&mut self) {
        let welcome = Message::Welcome {
            boot: self.boot,
            slots: self.slots.iter().map(slots::view).collect(),
        };
        let live = self.slots.values().filter_map(|slot| slot.live.as_ref());
        let beside: Vec<_> = live.map(|live| live.pidfd.as_fd()).collect();
        if let Some(connection) = &self.connection
            && let Err(error) = transmit(&connection.socket, &welcome, &beside)
        {
            tracing::warn!(pid = connection.pid, %error, "cannot greet the loop");
            self.connection = None;
        }
        self.tell_chaos();
    }

    /// Sends `message`, with the pidfd of `beside`, to the loop if there is one.
    fn tell(&mut self, message: &Message, beside: Option<&ServiceId>) {
        let Some(connection) = &self.connection else {
            return;
        };
        // Before the greeting it knows no slots that news could be about.
        if !connection.greeted
            && !matches!(message, Message::Malformed | Message::Unsupported { .. })
        {
            return;
        }
        let live = beside.and_then(|service| self.slots.get(service)?.live.as_ref());
        let beside: Vec<_> = live.iter().map(|live| live.pidfd.as_fd()).collect();
        if let Err(error) = transmit(&connection.socket, message, &beside) {
            tracing::warn!(pid = connection.pid, %error, "the loop does not read; disconnected");
            self.connection = None;
        }
    }

    /// What nobody waits for.
    fn after_round(&mut self) {
        for service in std::mem::take(&mut self.fresh) {
            self.settle(&service);
        }
        for service in std::mem::take(&mut self.ended) {
            let slot = self.slots.get(&service);
            if slot.is_none_or(|slot| slot.live.is_none()) {
                self.groups.release(&self.config.node.id, &service);
                cpu::release(&self.config.node.id, &service);
            }
        }
        if self.unrecorded {
            self.unrecorded = false;
            self.state.save(entries(&self.slots));
        }
        if self.logs_measured.elapsed() >= LOG_PERIOD {
            self.logs_measured = Instant::now();
            // Whoever of a group was killed before and left its main process
            // alive says nothing about a later end of that one.
            let live = self
                .slots
                .values_mut()
                .filter_map(|slot| slot.live.as_mut());
            live.filter_map(|live| live.kills.as_mut())
                .for_each(Kills::renew);
            self.kernel.catch_up();
            for spec in self.slots.values().filter_map(logged) {
                if let Err(error) = self.logs.bound(&spec.id, spec.log_max) {
                    tracing::warn!(service = %spec.id, %error, "cannot keep the full log");
                }
            }
        }
    }

    /// The second half of a start.
    fn settle(&mut self, service: &ServiceId) {
        let Some(slot) = self.slots.get_mut(service) else {
            return;
        };
        let (Some(live), Some(spec)) = (&mut slot.live, &slot.spec) else {
            return;
        };
        live.settle();
        let Some(max) = spec.memory_limit else { return };
        if let Some(handle) = live.handle() {
            let order = Order::Limit(handle.clone(), live.instance, max);
            return self.order(service, order);
        }
        let limited = self
            .groups
            .limit(&self.config.node.id, service, live.pid, max);
        if limited.is_ok() {
            live.kills = self.groups.kills(&self.config.node.id, service);
        }
        let not_enforced = limited.err().map(reason);
        if let Some(why) = &not_enforced {
            tracing::warn!(%service, why, "memory_limit is not enforced");
        }
        let message = Message::MemoryLimit {
            service: service.clone(),
            instance: live.instance,
            not_enforced,
        };
        self.tell(&message, None);
    }

    /// How long to sleep at most: for ever, unless a service writes a log or is
    /// in a group that counts.
    fn until_logs(&self) -> Option<Duration> {
        let counts = |slot: &Slot| slot.live.as_ref().is_some_and(|live| live.kills.is_some());
        let any = self
            .slots
            .values()
            .any(|slot| logged(slot).is_some() || counts(slot));
        any.then(|| LOG_PERIOD.saturating_sub(self.logs_measured.elapsed()))
    }
}

fn transmit(socket: &OwnedFd, message: &Message, beside: &[BorrowedFd<'_>]) -> io::Result<()> {
    let datagram = encode(message).map_err(io::Error::other)?;
    sockets::send(socket.as_fd(), &datagram, beside)
}
