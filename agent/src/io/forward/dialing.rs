//! From an accepted client to a backend that has accepted as well: tries, waits, tries again.
//!
//! A connection tries each backend of its route once, the open ones first. When none accepts it
//! waits in the route's queue. One connection of a queue tries again every few milliseconds;
//! as soon as a backend accepts any connection, all that wait try at once. So a thousand that
//! wait cost a backend that is starting no more than one.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};

use homeostat_common::units::{Micros, Millis};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt;

use super::backend::Failure;
use super::listen::{keep_alive, socket};
use super::pairs::{PairKey, Stage};
use super::relay;
use super::server::{BOTH_WAYS, Server, kind, pair_word};
use super::table::{Key, Tried};
use super::timers::Due;
use crate::io::clock;

/// First and longest pause between two tries of a queue.
const RETRY_MIN: Millis = Millis(2);
const RETRY_MAX: Millis = Millis(16);

/// How a backend was reached.
#[derive(Debug)]
pub(super) enum Dialled {
    Accepted(OwnedFd),
    Pending(OwnedFd),
}

/// Why it was not.
#[derive(Debug, Clone, Copy)]
pub(super) enum NotDialled {
    /// It is the backend's fault.
    Backend(Failure),
    /// This machine is out of ports, descriptors or memory.
    Local(Errno),
}

/// Begins a connection; on loopback it is accepted or refused at once.
pub(super) fn connect(address: SocketAddr) -> Result<Dialled, NotDialled> {
    let socket = socket(address).map_err(NotDialled::Local)?;
    sockopt::set_tcp_nodelay(&socket, true).map_err(NotDialled::Local)?;
    if !address.ip().is_loopback() {
        keep_alive(&socket).map_err(NotDialled::Local)?;
    }
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Dialled::Accepted(socket)),
        Err(Errno::INPROGRESS | Errno::INTR) => Ok(Dialled::Pending(socket)),
        Err(error) => Err(judge(error)),
    }
}

pub(super) fn judge(error: Errno) -> NotDialled {
    match error {
        Errno::CONNREFUSED => NotDialled::Backend(Failure::Refused),
        Errno::ADDRNOTAVAIL
        | Errno::ADDRINUSE
        | Errno::AGAIN
        | Errno::MFILE
        | Errno::NFILE
        | Errno::NOBUFS
        | Errno::NOMEM => NotDialled::Local(error),
        _ => NotDialled::Backend(Failure::Unreachable),
    }
}

/// A client that tries a dead port of its own machine can get that very port for itself and
/// then talks to itself.
pub(super) fn is_itself(socket: &OwnedFd, address: SocketAddr) -> bool {
    let own = rustix::net::getsockname(socket).ok();
    let own = own.and_then(|own| SocketAddr::try_from(own).ok());
    address.ip().is_loopback() && own == Some(address)
}

impl Server {
    /// Tries backends until one is asked, or none is left.
    pub(super) fn dial(&mut self, key: PairKey, now: Micros) {
        loop {
            let Some(pair) = self.pairs.get_mut(key) else {
                return;
            };
            let Some(route) = self.table.route(pair.route) else {
                return self.close(key, true);
            };
            let Some(uid) = route.pick(now, &mut pair.tried) else {
                return self.wait(key, now);
            };
            let timeout = route.policy.connect_timeout;
            let backend = Key {
                route: pair.route,
                backend: uid,
            };
            let Some(it) = route.backend(uid) else {
                return;
            };
            let address = it.policy.address;
            match connect(address) {
                Ok(Dialled::Accepted(socket)) if is_itself(&socket, address) => {
                    relay::break_off(socket.as_fd());
                    it.failed(now, Failure::Refused);
                }
                Ok(Dialled::Accepted(socket)) => {
                    let word = pair_word(kind::BACKEND, key);
                    if self.watch(&socket, word, BOTH_WAYS).is_err() {
                        return self.close(key, true);
                    }
                    return self.open_pair(key, backend, socket, now);
                }
                Ok(Dialled::Pending(socket)) => {
                    let word = pair_word(kind::BACKEND, key);
                    if self.watch(&socket, word, BOTH_WAYS).is_err() {
                        return self.close(key, true);
                    }
                    if let Some(pair) = self.pairs.get_mut(key) {
                        pair.stage = Stage::Connecting {
                            backend,
                            socket,
                            until: now + timeout,
                        };
                    }
                    return self.arm(key);
                }
                Err(NotDialled::Backend(failure)) => it.failed(now, failure),
                Err(NotDialled::Local(error)) => {
                    tracing::warn!(%error, "cannot connect to anything");
                    return self.wait(key, now);
                }
            }
        }
    }

    fn open_pair(&mut self, key: PairKey, backend: Key, socket: OwnedFd, now: Micros) {
        if let Some(it) = self.table.backend_of(backend) {
            it.connected(now);
        }
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.stage = Stage::Open { backend, socket };
            pair.relay.begin();
            let route = pair.route;
            if self.queues.get(&route).is_some_and(|it| !it.is_empty())
                && !self.released.contains(&route)
            {
                self.released.push(route);
            }
        }
        self.turn(key);
    }

    /// Puts a connection into its route's queue, or gives it up.
    fn wait(&mut self, key: PairKey, now: Micros) {
        let Some(pair) = self.pairs.get_mut(key) else {
            return;
        };
        pair.stage = Stage::Waiting;
        let route = pair.route;
        if now >= pair.until {
            return self.give_up(key);
        }
        if !pair.queued {
            pair.queued = true;
            self.queues.entry(route).or_default().push_back(key);
        }
        self.arm(key);
        if let std::collections::btree_map::Entry::Vacant(retry) = self.retries.entry(route) {
            retry.insert(RETRY_MIN);
            self.timers.set(now + RETRY_MIN, Due::Retry(route));
        }
    }

    /// No backend accepted in time: the client sees a reset, as it would see a refusal.
    fn give_up(&mut self, key: PairKey) {
        let route = self.pairs.get(key).map(|pair| pair.route);
        if let Some(route) = route.and_then(|route| self.table.route(route)) {
            route.refused += 1;
        }
        self.close(key, true);
    }

    /// The first that waits tries again.
    pub(super) fn retry(&mut self, route: u32, now: Micros) {
        self.retry_first(route, now);
        // Those that were given up or went away leave their place at the next round.
        let pairs = &self.pairs;
        let waiting = self.queues.get_mut(&route).is_some_and(|queue| {
            queue.retain(|key| pairs.get(*key).is_some());
            !queue.is_empty()
        });
        if !waiting {
            self.retries.remove(&route);
            self.queues.remove(&route);
        } else if let Some(pause) = self.retries.get_mut(&route) {
            *pause = Millis((pause.0 * 2).min(RETRY_MAX.0));
            let at = now + *pause;
            self.timers.set(at, Due::Retry(route));
        }
    }

    fn retry_first(&mut self, route: u32, now: Micros) {
        while let Some(key) = self.queues.get_mut(&route).and_then(|it| it.pop_front()) {
            let Some(pair) = self.pairs.get_mut(key) else {
                continue;
            };
            pair.queued = false;
            pair.tried = Tried::default();
            return self.dial(key, now);
        }
    }

    /// Lets all try whose route has a backend that accepts. One that fails goes back into the
    /// queue.
    pub(super) fn release(&mut self) {
        for route in std::mem::take(&mut self.released) {
            let now = clock::now();
            let waiting = self.queues.get(&route).map_or(0, |it| it.len());
            for _ in 0..waiting {
                self.retry_first(route, now);
            }
        }
    }

    pub(super) fn client_ready(&mut self, key: PairKey, flags: EventFlags) {
        let Some(pair) = self.pairs.get(key) else {
            return;
        };
        match pair.stage {
            Stage::Open { .. } => self.turn(key),
            Stage::Waiting | Stage::Connecting { .. } => {
                // It has gone away; one that only ended its own half still wants an answer.
                if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                    self.close(key, true);
                }
            }
        }
    }

    pub(super) fn backend_ready(&mut self, key: PairKey, flags: EventFlags) {
        let Some(pair) = self.pairs.get_mut(key) else {
            return;
        };
        let Stage::Connecting {
            backend, socket, ..
        } = &pair.stage
        else {
            return self.turn(key);
        };
        let (backend, now) = (*backend, clock::now());
        let outcome = sockopt::socket_error(socket).unwrap_or_else(Err);
        if let Err(error) = outcome {
            return self.not_accepted(key, backend, judge(error), now);
        }
        if !flags.contains(EventFlags::OUT) {
            return;
        }
        let address = self.table.backend_of(backend).map(|it| it.policy.address);
        if address.is_some_and(|address| is_itself(socket, address)) {
            relay::break_off(socket.as_fd());
            let refused = NotDialled::Backend(Failure::Refused);
            return self.not_accepted(key, backend, refused, now);
        }
        if let Stage::Connecting { socket, .. } = std::mem::replace(&mut pair.stage, Stage::Waiting)
        {
            self.open_pair(key, backend, socket, now);
        }
    }

    fn not_accepted(&mut self, key: PairKey, backend: Key, why: NotDialled, now: Micros) {
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.stage = Stage::Waiting;
        }
        match why {
            NotDialled::Backend(failure) => {
                if let Some(it) = self.table.backend_of(backend) {
                    it.failed(now, failure);
                }
                self.dial(key, now);
            }
            NotDialled::Local(error) => {
                tracing::warn!(%error, "cannot connect to anything");
                self.wait(key, now);
            }
        }
    }

    /// Sets the timer of a connection, unless one is set that comes early enough.
    pub(super) fn arm(&mut self, key: PairKey) {
        let at = self.deadline(key);
        if let Some(at) = at
            && let Some(pair) = self.pairs.get_mut(key)
            && pair.due.is_none_or(|due| at < due)
        {
            pair.due = Some(at);
            self.timers.set(at, Due::Pair(key));
        }
    }

    fn deadline(&mut self, key: PairKey) -> Option<Micros> {
        let pair = self.pairs.get(key)?;
        match &pair.stage {
            Stage::Waiting => Some(pair.until),
            Stage::Connecting { until, .. } => Some(*until),
            Stage::Open { .. } => {
                let asked = pair.relay.asked().filter(|_| !pair.relay.silence_told)?;
                let route = self.table.route(pair.route)?;
                Some(asked + route.policy.first_byte?)
            }
        }
    }

    pub(super) fn pair_due(&mut self, key: PairKey, now: Micros) {
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.due = None;
        }
        let Some(at) = self.deadline(key) else {
            return;
        };
        if at > now {
            return self.arm(key);
        }
        let Some(pair) = self.pairs.get_mut(key) else {
            return;
        };
        match &pair.stage {
            Stage::Waiting => self.give_up(key),
            Stage::Connecting { backend, .. } => {
                let late = NotDialled::Backend(Failure::Unreachable);
                let backend = *backend;
                self.not_accepted(key, backend, late, now);
            }
            Stage::Open { backend, .. } => {
                pair.relay.silence_told = true;
                if let Some(it) = self.table.backend_of(*backend) {
                    it.failed(now, Failure::Silent);
                }
            }
        }
    }
}
