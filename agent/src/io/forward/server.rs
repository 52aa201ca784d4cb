//! The forwarder process: one thread around `epoll`.
//!
//! Each round takes what epoll found, then what is due, then connections that had more to move
//! than their turn allowed, and last tells clients what changed. Nothing in it blocks, except
//! reading the configuration at a reload and replacing the file of weights.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use homeostat_common::units::{Micros, Millis};
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::check::Checks;
use super::control::Control;
use super::listen::{Inherited, listen};
use super::pairs::{Pair, PairKey, Pairs, Stage};
use super::relay::{self, CHUNK, Seen, Turn};
pub use super::setup::ForwardError;
use super::setup::{self, Signals, failed};
use super::table::{Key, Table};
use super::timers::{Due, Timers};
use super::weights::Weights;
use super::{backend::Failure, folder, socket_path};
use crate::config::{Config, Forward};
use crate::io::clock;
use crate::io::local::sockets;
use crate::io::spawner::setup::Peers;

/// Events taken at once.
const EVENTS_MAX: usize = 256;
/// Connections accepted for one route before the others have their turn.
const ACCEPTS_A_ROUND: usize = 64;
/// Pause when the machine is out of descriptors or memory.
const ACCEPT_PAUSE: Millis = Millis(10);

/// What an event is about; 8 bits of its word.
pub(super) mod kind {
    pub(in super::super) const STOP: u64 = 1;
    pub(in super::super) const RELOAD: u64 = 2;
    pub(in super::super) const CONTROL: u64 = 3;
    pub(in super::super) const PEER: u64 = 4;
    pub(in super::super) const LISTENER: u64 = 5;
    pub(in super::super) const CLIENT: u64 = 6;
    pub(in super::super) const BACKEND: u64 = 7;
    pub(in super::super) const CHECK: u64 = 8;
}

/// Both sides of a connection: told once for each change.
pub(super) const BOTH_WAYS: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// How `homeostat-agent forward` was called.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`ForwardError`] when it cannot begin; later trouble is logged and survived.
pub fn run(options: &Options) -> Result<(), ForwardError> {
    let mut server = Server::open(options)?;
    tracing::info!(
        routes = server.table.routes.len(),
        connections_max = server.pairs_max,
        "forwarder serves {}",
        socket_path(&server.run_dir).display()
    );
    server.serve();
    tracing::info!(connections = server.pairs.len(), "forwarder ends");
    Ok(())
}

/// The socket of a route.
#[derive(Debug)]
struct Listener {
    route: u32,
    policy: Forward,
    fd: OwnedFd,
}

pub(super) struct Server {
    pub(super) file: PathBuf,
    pub(super) run_dir: PathBuf,
    pub(super) epoll: OwnedFd,
    signals: Signals,
    listeners: Vec<Listener>,
    inherited: Inherited,
    /// Nobody is accepted: too many connections, or the machine is out of something.
    accepting: bool,
    pub(super) table: Table,
    pub(super) pairs: Pairs,
    pairs_max: usize,
    /// Connections that wait for a backend, by route.
    pub(super) queues: BTreeMap<u32, VecDeque<PairKey>>,
    /// Routes with a retry set, and its pause.
    pub(super) retries: BTreeMap<u32, Millis>,
    /// Routes of which a backend has just accepted.
    pub(super) released: Vec<u32>,
    /// Connections with more to move.
    turns: Vec<PairKey>,
    pub(super) timers: Timers,
    pub(super) checks: Checks,
    pub(super) control: Control,
    pub(super) weights: Weights,
    /// Taken by one connection at a time.
    scratch: Box<[u8]>,
    stop: bool,
    _lock: File,
}

impl Server {
    fn open(options: &Options) -> Result<Self, ForwardError> {
        let file = std::path::absolute(&options.config).map_err(failed("find", &options.config))?;
        let config = Config::load(&file)?;
        let run_dir = config.node.run_dir.clone();
        let folder = folder(&run_dir);
        let lock = setup::own_folder(&folder, &run_dir)?;
        let peers = Peers::of(&config).map_err(failed("look up agent_user of", &file))?;
        let signals = Signals::catch().map_err(failed("catch signals in", &folder))?;
        let weights = Weights::open(&folder);
        let socket = socket_path(&run_dir);
        let control = sockets::listen(&socket).map_err(failed("listen at", &socket))?;
        // Who may speak is decided by the credentials of the peer.
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))
            .map_err(failed("open up", &socket))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| failed("make an epoll for", &socket)(error.into()))?;
        let mut server = Self {
            file,
            epoll,
            signals,
            listeners: Vec::new(),
            inherited: Inherited::take(),
            accepting: true,
            table: Table::default(),
            pairs: Pairs::default(),
            pairs_max: setup::connections_max(),
            queues: BTreeMap::new(),
            retries: BTreeMap::new(),
            released: Vec::new(),
            turns: Vec::new(),
            timers: Timers::default(),
            checks: Checks::default(),
            control: Control::new(control, peers),
            weights,
            scratch: vec![0; CHUNK].into_boxed_slice(),
            stop: false,
            run_dir,
            _lock: lock,
        };
        server.watch_fixed().map_err(failed("watch", &socket))?;
        server.apply(&config)?;
        Ok(server)
    }

    fn watch_fixed(&self) -> io::Result<()> {
        self.watch(&self.signals.stop, kind::STOP << 56, EventFlags::IN)?;
        self.watch(&self.signals.reload, kind::RELOAD << 56, EventFlags::IN)?;
        self.watch(self.control.listener(), kind::CONTROL << 56, EventFlags::IN)
    }

    pub(super) fn watch(&self, fd: impl AsFd, word: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            fd,
            EventData::new_u64(word),
            flags,
        )?)
    }

    /// Brings listeners and routes to `config`. Everything that can fail comes first.
    fn apply(&mut self, config: &Config) -> Result<(), ForwardError> {
        let same = |listener: &Listener, forward: &Forward| {
            listener.policy.id == forward.id && listener.policy.listen == forward.listen
        };
        let mut fresh = Vec::new();
        for forward in &config.forwards {
            if !self.listeners.iter().any(|it| same(it, forward)) {
                // A route that only got another name keeps its port.
                let renamed = self
                    .listeners
                    .iter()
                    .find(|it| it.policy.listen == forward.listen);
                let fd = match renamed {
                    Some(former) => {
                        former
                            .fd
                            .try_clone()
                            .map_err(|source| ForwardError::Listen {
                                route: forward.id.clone(),
                                address: forward.listen,
                                source,
                            })?
                    }
                    None => listen(forward, &mut self.inherited)?,
                };
                fresh.push((forward.clone(), fd));
            }
        }
        let saved = self.weights.saved().clone();
        self.table.update(&config.forwards, &saved);
        for gone in &self.listeners {
            if !config.forwards.iter().any(|it| same(gone, it)) {
                // The descriptor may live on as a copy; then closing it is not enough.
                let _ = epoll::delete(&self.epoll, &gone.fd);
            }
        }
        self.listeners
            .retain(|it| config.forwards.iter().any(|forward| same(it, forward)));
        for (policy, fd) in fresh {
            let route = self
                .table
                .routes
                .iter()
                .find(|it| it.policy.id == policy.id)
                .map_or(0, |it| it.uid);
            if let Err(error) = self.watch(&fd, listener_word(route), EventFlags::IN) {
                tracing::error!(route = %policy.id, %error, "cannot watch its port");
            }
            self.listeners.push(Listener { route, policy, fd });
        }
        // The new listeners are watched whatever the others are.
        self.accept_again();
        self.drop_lost();
        self.begin_checks();
        self.weights.save(self.table.overrides());
        Ok(())
    }

    pub(super) fn reload(&mut self) -> Result<(), String> {
        let outcome = Config::load(&self.file)
            .map_err(ForwardError::from)
            .and_then(|config| self.apply(&config));
        match &outcome {
            Ok(()) => tracing::info!(routes = self.table.routes.len(), "configuration read again"),
            Err(error) => tracing::warn!("the new configuration is not used: {error}"),
        }
        outcome.map_err(|error| crate::io::keeper::chain(&error))
    }

    fn serve(&mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        while !self.stop {
            events.clear();
            let pause = if self.turns.is_empty() {
                self.timers.pause(clock::now())
            } else {
                rustix::event::Timespec::try_from(std::time::Duration::ZERO).ok()
            };
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, pause.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    // Out of memory in the kernel; there is nothing to undo.
                    tracing::error!(%error, "cannot wait for events");
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            }
            for event in &events {
                self.event(event.data.u64(), event.flags);
            }
            let now = clock::now();
            while let Some(due) = self.timers.next(now) {
                self.due(due, now);
            }
            for key in std::mem::take(&mut self.turns) {
                self.turn(key);
            }
            self.release();
            self.tell_news();
        }
    }

    fn event(&mut self, word: u64, flags: EventFlags) {
        match word >> 56 {
            kind::CLIENT => {
                let key = pair_key(word);
                if let Some(pair) = self.pairs.get_mut(key) {
                    pair.relay.client_event(flags);
                    self.client_ready(key, flags);
                }
            }
            kind::BACKEND => {
                let key = pair_key(word);
                if let Some(pair) = self.pairs.get_mut(key) {
                    pair.relay.backend_event(flags);
                    self.backend_ready(key, flags);
                }
            }
            kind::LISTENER => self.accept(low(word)),
            kind::CHECK => self.check_ready(check_key(word), flags),
            kind::PEER => self.peer_ready(word & !(0xff << 56)),
            kind::CONTROL => self.accept_peer(),
            kind::RELOAD => {
                drain(&self.signals.reload);
                // Whoever sent a signal reads the log.
                let _ = self.reload();
            }
            _ => self.stop = true,
        }
    }

    fn due(&mut self, due: Due, now: Micros) {
        match due {
            Due::Pair(key) => self.pair_due(key, now),
            Due::Retry(route) => self.retry(route, now),
            Due::Check(key) => self.check_due(key, now),
            Due::Drain(key) => self.drain_due(key, now),
            Due::Accept => self.accept_again(),
        }
    }

    fn accept(&mut self, route: u32) {
        let Some(policy) = self.table.route(route).map(|it| it.policy.patience) else {
            return;
        };
        for _ in 0..ACCEPTS_A_ROUND {
            if self.pairs.len() >= self.pairs_max {
                tracing::warn!(
                    max = self.pairs_max,
                    "no connection is accepted beyond that"
                );
                self.accept_no_more();
                return;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let listener = self.listeners.iter().find(|it| it.route == route);
            let Some(listener) = listener else { return };
            let (client, source) = match rustix::net::acceptfrom_with(&listener.fd, flags) {
                Ok(accepted) => accepted,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    self.accept_no_more();
                    self.timers.set(clock::now() + ACCEPT_PAUSE, Due::Accept);
                    return;
                }
            };
            let now = clock::now();
            let source = source.and_then(|it| SocketAddr::try_from(it).ok());
            let admits = self
                .table
                .route(route)
                .is_some_and(|it| it.admission.admits(source.map(|it| it.ip()), now));
            if !admits {
                relay::break_off(client.as_fd());
                continue;
            }
            let key = self.pairs.insert(Pair::new(route, client, now + policy));
            let watched = self.pairs.get(key).map(|pair| {
                let word = pair_word(kind::CLIENT, key);
                self.watch(&pair.client, word, BOTH_WAYS)
            });
            if let Some(Ok(())) = watched {
                self.dial(key, now);
            } else {
                self.pairs.remove(key);
            }
        }
    }

    /// Leaves clients in the kernel's queue.
    fn accept_no_more(&mut self) {
        self.accepting = false;
        for it in &self.listeners {
            let data = EventData::new_u64(listener_word(it.route));
            let _ = epoll::modify(&self.epoll, &it.fd, data, EventFlags::empty());
        }
    }

    fn accept_again(&mut self) {
        self.accepting = true;
        for it in &self.listeners {
            let data = EventData::new_u64(listener_word(it.route));
            let _ = epoll::modify(&self.epoll, &it.fd, data, EventFlags::IN);
        }
    }

    /// Moves bytes of an open connection.
    pub(super) fn turn(&mut self, key: PairKey) {
        let Some(pair) = self.pairs.get_mut(key) else {
            return;
        };
        let Stage::Open { backend, socket } = &pair.stage else {
            return;
        };
        let backend = *backend;
        let mut seen = Seen::default();
        let scratch = &mut self.scratch;
        let turn = pair
            .relay
            .turn(&pair.client, socket, scratch, clock::now, &mut seen);
        let cheated = pair.relay.cheated(turn == Turn::BackendBroke);
        pair.relay.silence_told |= cheated;
        if let Some(it) = self.table.backend_of(backend) {
            if let Some(took) = seen.answered_us {
                it.answered(clock::now(), took);
            }
            if cheated {
                it.failed(clock::now(), Failure::Reset);
            }
        }
        match turn {
            Turn::Wait => self.arm(key),
            Turn::More => self.turns.push(key),
            Turn::Done => self.close(key, false),
            Turn::ClientBroke | Turn::BackendBroke => self.close(key, true),
        }
    }

    /// Ends a connection; by force both sides see a reset.
    pub(super) fn close(&mut self, key: PairKey, by_force: bool) {
        let Some(pair) = self.pairs.remove(key) else {
            return;
        };
        if by_force {
            relay::break_off(pair.client.as_fd());
        }
        if let Stage::Open { backend, socket } = &pair.stage {
            if by_force {
                relay::break_off(socket.as_fd());
            }
            if let Some(it) = self.table.backend_of(*backend) {
                it.active = it.active.saturating_sub(1);
                if it.active == 0 {
                    self.drained(*backend);
                }
            }
        }
        if !self.accepting && self.pairs.len() < self.pairs_max {
            self.accept_again();
        }
    }
}

fn drain(mut socket: &std::os::unix::net::UnixStream) {
    let mut bytes = [0; 64];
    while matches!(socket.read(&mut bytes), Ok(n) if n > 0) {}
}

fn listener_word(route: u32) -> u64 {
    kind::LISTENER << 56 | u64::from(route)
}

pub(super) fn pair_word(kind: u64, key: PairKey) -> u64 {
    kind << 56 | u64::from(key.life) << 32 | u64::from(key.slot)
}

fn pair_key(word: u64) -> PairKey {
    PairKey {
        slot: low(word),
        life: u32::try_from(word >> 32 & 0x00ff_ffff).unwrap_or(0),
    }
}

pub(super) fn check_word(key: Key) -> u64 {
    kind::CHECK << 56 | u64::from(key.route & 0x00ff_ffff) << 32 | u64::from(key.backend)
}

fn check_key(word: u64) -> Key {
    Key {
        route: u32::try_from(word >> 32 & 0x00ff_ffff).unwrap_or(0),
        backend: low(word),
    }
}

fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0)
}
