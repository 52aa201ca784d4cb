//! The spawner process: one thread around `poll`.
//!
//! Each round first buries who died, then answers the loop, and last does what
//! nobody waits for: recording who died, memory limits, log sizes. So between
//! a request and its `exec` there is one decode and one spawn.
//!
//! One loop is served at a time. A loop that does not read its messages is
//! disconnected rather than queued for; the `Welcome` of its next connection
//! tells it everything that still matters.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use homeostat_common::ids::{BootId, Instance, ServiceId, Token};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Pid;

use super::acts::{Acts, Deed};
use super::cgroup::Groups;
use super::cpu;
use super::logs::Logs;
use super::oom::KernelLog;
use super::process::{self, Live};
use super::protocol::{
    DecodeError, MESSAGE_MAX, Message, NodeAct, ProcessAct, Refusal, Request, SLOTS_MAX,
    StopSignal, VERSION, decode, encode,
};
pub use super::setup::SpawnerError;
use super::setup::{self, Peers, Signals, failed};
use super::slots::{self, Slot, adopt, end_unrecorded, entries, logged, slot_of};
use super::state::{self, State};
use super::{folder, marks, socket_path};
use crate::config::Config;
use crate::io::keeper::chain;
use crate::io::local::datagram::reason;
use crate::io::local::sockets::{self, Received};

/// Requests answered before deaths are looked at again.
const REQUESTS_A_ROUND: usize = 32;
/// How often logs are measured.
const LOG_PERIOD: Duration = Duration::from_secs(1);
/// How long to wait for what a dead instance left behind; it usually is gone at
/// the first look, but a killed process needs the processor to exit.
const REST_GONE_MAX: Duration = Duration::from_millis(200);
/// How long killed services may take to go when the spawner ends with them.
const KILL_WAIT_MAX: Duration = Duration::from_secs(2);

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
    kernel: KernelLog,
    /// Started in this round.
    fresh: Vec<ServiceId>,
    /// Ended in this round.
    ended: Vec<ServiceId>,
    /// The recorded slots are not the present ones.
    unrecorded: bool,
    logs_measured: Instant,
    _lock: File,
}

/// What `poll` found.
#[derive(Default)]
struct Ready {
    stop: bool,
    deaths: bool,
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
        let lock = setup::lock(&folder, run_dir)?;
        let peers = Peers::of(&config).map_err(failed("look up agent_user of", &file))?;
        let logs = Logs::open(&config.node.data_dir, peers.readers)
            .map_err(failed("open the logs in", &config.node.data_dir))?;
        let signals = Signals::catch().map_err(failed("catch signals in", &folder))?;
        let boot = state::boot_id().map_err(failed("read the boot id for", &folder))?;
        setup::settle_process();
        let (mut state, entries) = State::open(&folder, boot);
        let name = run_dir.to_string_lossy().into_owned();
        let groups = Groups::wanted_by(&config);
        let mut slots = adopt(&config, entries);
        for (service, slot) in &mut slots {
            if let Some(live) = &mut slot.live {
                live.oom_kills = groups.oom_kills(&config.node.id, service);
            }
        }
        end_unrecorded(&name, &slots, &mut state);
        let socket = socket_path(run_dir);
        let listener = sockets::listen(&socket).map_err(failed("listen at", &socket))?;
        // Who may speak is decided by the credentials of the peer.
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))
            .map_err(failed("open up", &socket))?;
        Ok(Self {
            groups,
            kernel: KernelLog::open(),
            acts: None,
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
            fresh: Vec::new(),
            ended: Vec::new(),
            unrecorded: true,
            logs_measured: Instant::now(),
            config,
            _lock: lock,
        })
    }

    fn serve(&mut self) {
        loop {
            self.after_round();
            let ready = match self.wait(self.until_logs()) {
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
            if ready.connection {
                self.answer();
            }
            if ready.acts {
                self.tell_acts();
            }
            if ready.listener {
                self.accept();
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Ready> {
        let adopted = self.slots.values().filter_map(|slot| slot.live.as_ref());
        let adopted = adopted.filter(|live| !live.child).map(|live| &live.pidfd);
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
        let died = fired.any(|fired| fired);
        if child {
            // Signals that came together are one; all children are looked at.
            let mut bytes = [0; 64];
            while matches!((&self.signals.child).read(&mut bytes), Ok(n) if n > 0) {}
        }
        Ok(Ready {
            stop,
            deaths: child || died,
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
                if live.is_some_and(|live| live.signal(signal, &self.name)) {
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
            } => Message::Acted {
                token,
                failed: self.act(&service, instance, act).err().map(reason),
            },
            Request::ActOnNode { token, act } => match self.act_on_node(token, act) {
                Ok(()) => return,
                Err(why) => Message::Acted {
                    token,
                    failed: Some(reason(why)),
                },
            },
            Request::Reload => match self.reload() {
                Ok(()) => Message::Reloaded,
                Err(why) => Message::NotReloaded { why: reason(why) },
            },
        };
        self.tell(&answer, None);
    }

    /// Does something to a life that goes on.
    fn act(&self, service: &ServiceId, instance: Instance, act: ProcessAct) -> Result<(), String> {
        let live = self.slots.get(service).and_then(|slot| slot.live.as_ref());
        let live = live
            .filter(|live| live.instance == instance)
            .ok_or("that life is over")?;
        let stopped = match act {
            ProcessAct::Freeze => live.halt(true, &self.name),
            ProcessAct::Thaw => live.halt(false, &self.name),
            ProcessAct::LimitCpu(share) => {
                return cpu::limit(&self.config.node.id, service, live.pid, share);
            }
        };
        stopped.then_some(()).ok_or_else(|| "it has ended".into())
    }

    /// Has something done to the node; the answer comes when it is done. What the
    /// loop may ask for is what the configuration file says.
    fn act_on_node(&mut self, token: Token, act: NodeAct) -> Result<(), String> {
        let service = |id| self.config.service(id).ok_or("there is no such service");
        let deed = match act {
            NodeAct::SyncClock if self.config.clock.servers.is_empty() => {
                return Err("no time servers are configured".into());
            }
            NodeAct::SyncClock => Deed::SyncClock(self.config.clock.servers.clone()),
            NodeAct::Uplink(Some(to)) if !self.config.node.uplinks.contains(&to) => {
                return Err(format!("{to} is no uplink of the configuration"));
            }
            NodeAct::Uplink(to) => Deed::Uplink(to),
            NodeAct::Ports {
                service: id,
                from,
                blocked,
            } => {
                let service = service(&id)?;
                if blocked && !service.blockable.iter().any(|net| net.covers(&from)) {
                    return Err(format!("{from} is not blockable for {id}"));
                }
                Deed::Ports(service.ports.clone(), from, blocked)
            }
            NodeAct::Remount { service: id } => {
                let data = service(&id)?.data.as_ref().filter(|data| data.remount);
                let data = data.ok_or_else(|| format!("{id} does not allow it"))?;
                Deed::Remount(data.path.clone())
            }
        };
        if self.acts.is_none() {
            self.acts = Some(Acts::start().map_err(|error| error.to_string())?);
        }
        match &self.acts {
            Some(acts) => acts.order(token, deed),
            None => Ok(()),
        }
    }

    /// Tells the loop what was done to the node.
    fn tell_acts(&mut self) {
        let answers = self.acts.as_ref().map(Acts::answers).unwrap_or_default();
        for (token, result) in answers {
            let failed = result.err().map(reason);
            self.tell(&Message::Acted { token, failed }, None);
        }
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
        let instance = self.state.mint(entries(&self.slots));
        let mark = marks::mark(&self.name, service, instance);
        let log = spec.log.then(|| self.logs.file(service)).transpose();
        let log = log.unwrap_or_else(|error| {
            // A full or broken disk must not keep a service down.
            tracing::warn!(%service, %error, "starts without a log");
            None
        });
        let live = process::start(spec, instance, &mark, log).map_err(|error| {
            tracing::warn!(%service, %error, "cannot start");
            Refusal::Spawn {
                text: reason(error.to_string()),
            }
        })?;
        let pid = live.pid();
        let started = Message::Started {
            service: service.clone(),
            instance,
            pid,
        };
        // The slot is taken before anything else can fail.
        if let Some(slot) = self.slots.get_mut(service) {
            slot.live = Some(live);
        }
        // It runs already; the loop is told only of what a successor will find.
        self.state.save(entries(&self.slots));
        self.tell(&started, Some(service));
        self.fresh.push(service.clone());
        Ok(())
    }

    fn bury_all(&mut self) {
        let services: Vec<_> = self.slots.keys().cloned().collect();
        for service in &services {
            self.bury(service);
        }
        process::reap_orphans(&self.children());
    }

    /// If the instance of `service` has ended: ends what it left behind, frees
    /// the slot and tells the loop.
    fn bury(&mut self, service: &ServiceId) {
        let Some(slot) = self.slots.get_mut(service) else {
            return;
        };
        let Some(status) = slot.live.as_ref().and_then(Live::bury) else {
            return;
        };
        let Some(live) = slot.live.take() else { return };
        let instance = live.instance;
        let kills = self.groups.oom_kills(&self.config.node.id, service);
        let status = live.attributed(status, &mut self.kernel, kills);
        slot.last_exit = Some((instance, status));
        if slot.spec.is_none() {
            self.slots.remove(service);
        }
        self.unrecorded = true;
        self.ended.push(service.clone());
        self.end_rest(service, &live);
        let service = service.clone();
        tracing::info!(%service, %instance, ?status, "ended");
        self.tell(
            &Message::Exited {
                service,
                instance,
                status,
            },
            None,
        );
    }

    /// Ends what the dead `live` left behind and waits until that is gone, as
    /// it may hold the ports that the next instance needs.
    fn end_rest(&self, service: &ServiceId, live: &Live) {
        let begun = Instant::now();
        let children = self.children();
        let mut rest = if live.child {
            marks::children(&self.name, &children)
        } else {
            // They went to the parent of the spawner that started them.
            marks::all(&self.name).unwrap_or_default()
        };
        rest.retain(|marked| marked.instance == live.instance && marked.service == *service);
        marks::end(&rest, REST_GONE_MAX);
        // The group was killed before its leader was reaped.
        while live.child
            && rustix::process::test_kill_process_group(live.pid).is_ok()
            && begun.elapsed() < REST_GONE_MAX
        {
            process::reap_orphans(&children);
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Pids of the services that are children.
    fn children(&self) -> Vec<Pid> {
        let live = self.slots.values().filter_map(|slot| slot.live.as_ref());
        live.filter(|live| live.child)
            .map(|live| live.pid)
            .collect()
    }

    /// Reads the configuration again; on any problem nothing changes.
    fn reload(&mut self) -> Result<(), String> {
        let config = setup::read_config(&self.file).map_err(|error| chain(&error))?;
        if config.node.run_dir != self.config.node.run_dir {
            return Err("run_dir cannot change while the spawner runs".into());
        }
        let peers = Peers::of(&config).map_err(|error| error.to_string())?;
        let logs = Logs::open(&config.node.data_dir, peers.readers)
            .map_err(|error| format!("{}: {error}", config.node.data_dir.display()))?;
        let dropped = self
            .slots
            .iter()
            .filter(|(service, slot)| slot.live.is_some() && config.service(service).is_none());
        if dropped.count() + config.services.len() > SLOTS_MAX {
            return Err("too many services that the file no longer names are running".into());
        }
        for slot in self.slots.values_mut() {
            slot.spec = None;
        }
        for spec in &config.services {
            slot_of(&mut self.slots, &spec.id).spec = Some(spec.clone());
        }
        self.slots
            .retain(|_, slot| slot.spec.is_some() || slot.live.is_some());
        if matches!(self.groups, Groups::None { .. }) {
            self.groups = Groups::wanted_by(&config);
        }
        (self.config, self.peers, self.logs) = (config, peers, logs);
        Ok(())
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
            self.count_oom_kills();
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
        let limited = self
            .groups
            .limit(&self.config.node.id, service, live.pid, max);
        if limited.is_ok() {
            live.oom_kills = self.groups.oom_kills(&self.config.node.id, service);
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

    fn count_oom_kills(&mut self) {
        for (service, slot) in &mut self.slots {
            if let Some(live) = &mut slot.live
                && live.oom_kills.is_some()
            {
                live.oom_kills = self.groups.oom_kills(&self.config.node.id, service);
            }
        }
    }

    /// How long to sleep at most: for ever, unless a service writes a log or is
    /// in a group that counts.
    fn until_logs(&self) -> Option<Duration> {
        let counts = |slot: &Slot| {
            slot.live
                .as_ref()
                .is_some_and(|live| live.oom_kills.is_some())
        };
        let any = self
            .slots
            .values()
            .any(|slot| logged(slot).is_some() || counts(slot));
        any.then(|| LOG_PERIOD.saturating_sub(self.logs_measured.elapsed()))
    }

    /// Ends the spawner, with the services or without.
    fn leave(&mut self, stop_services: bool) {
        if stop_services {
            // The loop would take these ends for somebody else's doing.
            self.connection = None;
            self.stop_all();
            self.after_round();
        }
        self.state.save(entries(&self.slots));
        // Left behind it would only be replaced by the next spawner.
        let _ = std::fs::remove_file(socket_path(&self.config.node.run_dir));
    }

    fn stop_all(&mut self) {
        let begun = Instant::now();
        let mut killed = false;
        for live in self.slots.values().filter_map(|slot| slot.live.as_ref()) {
            live.signal(StopSignal::Term, &self.name);
        }
        let grace = |slot: &Slot| slot.spec.as_ref().map_or(0, |spec| spec.stop_grace.0);
        let grace = Duration::from_millis(self.slots.values().map(grace).max().unwrap_or(0));
        loop {
            self.bury_all();
            let live: Vec<_> = self
                .slots
                .values()
                .filter_map(|slot| slot.live.as_ref())
                .collect();
            let over = begun.elapsed();
            if live.is_empty() || over > grace + KILL_WAIT_MAX {
                return;
            }
            if over >= grace && !killed {
                killed = true;
                for live in live {
                    live.signal(StopSignal::Kill, &self.name);
                }
            }
            // A second SIGTERM changes nothing, so only deaths cut this short.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn transmit(socket: &OwnedFd, message: &Message, beside: &[BorrowedFd<'_>]) -> io::Result<()> {
    let datagram = encode(message).map_err(io::Error::other)?;
    sockets::send(socket.as_fd(), &datagram, beside)
}
