//! The forwarder's end of the control socket: clients, their requests, drains.
//!
//! Several clients may be connected: the loop, and people who look. One that does not read is
//! disconnected rather than queued for; a report after it has connected again says all.

use std::os::fd::{AsFd as _, OwnedFd};

use homeostat_common::ids::{RouteId, ServiceId};
use homeostat_common::units::{Micros, Millis};
use rustix::event::epoll::EventFlags;

use super::protocol::{Admit, DecodeError, Message, Request, Stamp, VERSION, decode, encode};
use super::server::{Server, kind};
use super::table::Key;
use super::timers::Due;
use crate::config::WEIGHT_MAX;
use crate::io::clock;
use crate::io::local::datagram::{MESSAGE_MAX, reason};
use crate::io::local::sockets::{self, Received};
use crate::io::spawner::setup::Peers;

/// Most clients at once: the loop twice, while it reconnects, and a few people.
const PEERS_MAX: usize = 8;
/// Requests answered for one client before others have their turn.
const REQUESTS_A_ROUND: usize = 32;
/// Longest time a drain may be given.
const DRAIN_MAX: Millis = Millis(24 * 3600 * 1000);

#[derive(Debug)]
pub(super) struct Control {
    listener: OwnedFd,
    peers: Peers,
    connected: Vec<Peer>,
    next: u64,
    reports: u64,
    drains: Vec<Drain>,
}

#[derive(Debug)]
struct Peer {
    id: u64,
    socket: OwnedFd,
    greeted: bool,
}

/// A backend that is to lose its connections.
#[derive(Debug)]
struct Drain {
    key: Key,
    route: RouteId,
    backend: ServiceId,
    until: Micros,
    peer: u64,
}

impl Control {
    pub(super) fn new(listener: OwnedFd, peers: Peers) -> Self {
        Self {
            listener,
            peers,
            connected: Vec::new(),
            next: 0,
            reports: 0,
            drains: Vec::new(),
        }
    }

    pub(super) fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    fn tell(&mut self, peer: u64, message: &Message) {
        let Some(place) = self.connected.iter().position(|it| it.id == peer) else {
            return;
        };
        if let Some(it) = self.connected.get(place)
            && let Err(error) = transmit(&it.socket, message)
        {
            tracing::warn!(%error, "lost a client");
            self.connected.swap_remove(place);
        }
    }
}

fn transmit(socket: &OwnedFd, message: &Message) -> std::io::Result<()> {
    let datagram = encode(message).map_err(std::io::Error::other)?;
    sockets::send(socket.as_fd(), &datagram, &[])
}

impl Server {
    pub(super) fn accept_peer(&mut self) {
        let accepted = sockets::accept(&self.control.listener)
            .and_then(|socket| Ok((rustix::net::sockopt::socket_peercred(&socket)?, socket)));
        let (peer, socket) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    tracing::warn!(%error, "cannot accept a client");
                }
                return;
            }
        };
        if !self.control.peers.admit(peer.uid.as_raw()) && !peer.uid.is_root() {
            tracing::warn!(uid = peer.uid.as_raw(), "refused a stranger");
            return;
        }
        if self.control.connected.len() >= PEERS_MAX {
            tracing::warn!("refused a client: {PEERS_MAX} are connected");
            return;
        }
        self.control.next += 1;
        let id = self.control.next;
        if self
            .watch(&socket, kind::PEER << 56 | id, EventFlags::IN)
            .is_ok()
        {
            self.control.connected.push(Peer {
                id,
                socket,
                greeted: false,
            });
        }
    }

    pub(super) fn peer_ready(&mut self, id: u64) {
        let mut buffer = [0; MESSAGE_MAX];
        for _ in 0..REQUESTS_A_ROUND {
            let place = self.control.connected.iter().position(|it| it.id == id);
            let Some(peer) = place.and_then(|place| self.control.connected.get_mut(place)) else {
                return;
            };
            let request = match sockets::receive(peer.socket.as_fd(), &mut buffer) {
                Ok(Received::Datagram(length, _)) => {
                    decode(buffer.get(..length).unwrap_or_default())
                }
                Ok(Received::TooLong) => Err(DecodeError::Rest(0)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Ok(Received::End) | Err(_) => {
                    self.control.connected.retain(|it| it.id != id);
                    return;
                }
            };
            match request {
                Ok(Request::Hello) => {
                    peer.greeted = true;
                    let routes = self.table.views();
                    self.control.tell(id, &Message::Welcome { routes });
                }
                Ok(request) if peer.greeted => self.carry_out(id, request),
                Err(DecodeError::Version {
                    theirs: Some(_), ..
                }) => {
                    let speaks = VERSION;
                    self.control.tell(id, &Message::Unsupported { speaks });
                    self.control.connected.retain(|it| it.id != id);
                }
                Ok(_) | Err(_) => self.control.tell(id, &Message::Malformed),
            }
        }
    }

    fn carry_out(&mut self, peer: u64, request: Request) {
        let answer = match request {
            Request::Hello => return,
            Request::SetWeight {
                route,
                backend,
                weight,
            } => match self.set_weight(&route, &backend, weight) {
                Ok(_) => Message::WeightSet {
                    route,
                    backend,
                    weight,
                },
                Err(why) => Message::Refused { why },
            },
            Request::Drain {
                route,
                backend,
                within,
            } => match self.set_weight(&route, &backend, 0) {
                Ok(key) => {
                    let until = clock::now() + within.min(DRAIN_MAX);
                    let drain = Drain {
                        key,
                        route,
                        backend,
                        until,
                        peer,
                    };
                    self.control.drains.push(drain);
                    self.timers.set(until, Due::Drain(key));
                    if self.table.backend_of(key).is_none_or(|it| it.active == 0) {
                        self.drained(key);
                    }
                    return;
                }
                Err(why) => Message::Refused { why },
            },
            Request::Admit {
                token,
                route,
                change,
            } => Message::Acted {
                token,
                failed: self.admit(&route, change).err(),
            },
            Request::Report => return self.report(peer),
            Request::Reload => match self.reload() {
                Ok(()) => Message::Reloaded,
                Err(why) => Message::NotReloaded { why: reason(why) },
            },
        };
        self.control.tell(peer, &answer);
    }

    fn admit(&mut self, route: &RouteId, change: Admit) -> Result<(), String> {
        let admission = &mut self.table.named(route)?.admission;
        match change {
            Admit::Rate(rate) => admission.limit(rate),
            Admit::Block(net) => admission.block(net, true)?,
            Admit::Unblock(net) => admission.block(net, false)?,
        }
        tracing::info!(%route, ?change, "admission");
        self.weights.save(self.table.overrides());
        Ok(())
    }

    fn set_weight(
        &mut self,
        route: &RouteId,
        backend: &ServiceId,
        weight: u16,
    ) -> Result<Key, String> {
        if weight > WEIGHT_MAX {
            return Err(format!("a weight is at most {WEIGHT_MAX}, not {weight}"));
        }
        let key = self.table.find(route, backend)?;
        if let Some(it) = self.table.backend_of(key) {
            if it.weight != weight {
                tracing::info!(%route, %backend, from = it.weight, to = weight, "weight");
            }
            it.weight = weight;
        }
        self.end_drain(key, 0, true);
        self.weights.save(self.table.overrides());
        Ok(key)
    }

    /// A backend has no connections any more.
    pub(super) fn drained(&mut self, key: Key) {
        self.end_drain(key, 0, false);
    }

    /// What is left of a drained backend is closed.
    pub(super) fn drain_due(&mut self, key: Key, now: Micros) {
        let due = |it: &Drain| it.key == key && it.until <= now;
        if !self.control.drains.iter().any(due) {
            return;
        }
        let left: Vec<_> = self
            .pairs
            .iter()
            .filter(|(_, pair)| pair.backend() == Some(key))
            .map(|(key, _)| key)
            .collect();
        let count = u32::try_from(left.len()).unwrap_or(u32::MAX);
        self.end_drain(key, count, false);
        for pair in left {
            self.close(pair, true);
        }
    }

    fn end_drain(&mut self, key: Key, closed_by_force: u32, cancelled: bool) {
        while let Some(place) = self.control.drains.iter().position(|it| it.key == key) {
            let drain = self.control.drains.swap_remove(place);
            let message = Message::Drained {
                route: drain.route,
                backend: drain.backend,
                closed_by_force,
                cancelled,
            };
            self.control.tell(drain.peer, &message);
        }
    }

    /// Ends drains of backends that a reload has dropped, and forgets connections that wait for
    /// a route that is gone.
    pub(super) fn drop_lost(&mut self) {
        let keys: Vec<Key> = self.control.drains.iter().map(|it| it.key).collect();
        for key in keys {
            if self.table.backend_of(key).is_none() {
                self.end_drain(key, 0, true);
            }
        }
        let routes: Vec<u32> = self.queues.keys().copied().collect();
        for route in routes {
            if self.table.route(route).is_none() {
                for pair in self.queues.remove(&route).unwrap_or_default() {
                    self.close(pair, true);
                }
            }
        }
    }

    fn report(&mut self, peer: u64) {
        let now = clock::now();
        let mut unanswered = std::collections::BTreeMap::<Key, (u32, u64)>::new();
        let mut waiting = std::collections::BTreeMap::<u32, u32>::new();
        for (_, pair) in self.pairs.iter() {
            if pair.queued {
                *waiting.entry(pair.route).or_default() += 1;
            }
            if let (Some(key), Some(asked)) = (pair.backend(), pair.relay.asked()) {
                let (count, oldest) = unanswered.entry(key).or_default();
                *count += 1;
                *oldest = (*oldest).max(now - asked);
            }
        }
        let waiting = |route: u32| waiting.get(&route).copied().unwrap_or(0);
        let unanswered = |key: Key| unanswered.get(&key).copied().unwrap_or_default();
        let reports = self.table.reports(now, waiting, unanswered);
        self.control.reports += 1;
        let stamp = Stamp {
            seq: self.control.reports,
            at: now,
        };
        if reports.is_empty() {
            let message = Message::Report {
                stamp,
                left: 0,
                route: None,
            };
            return self.control.tell(peer, &message);
        }
        let count = reports.len();
        for (n, route) in reports.into_iter().enumerate() {
            let message = Message::Report {
                stamp,
                left: u8::try_from(count - n - 1).unwrap_or(u8::MAX),
                route: Some(route),
            };
            self.control.tell(peer, &message);
        }
    }

    /// Tells all clients what changed about backends.
    pub(super) fn tell_news(&mut self) {
        for news in self.table.news() {
            let health = news.health.text();
            tracing::info!(route = %news.route, backend = %news.backend, health, why = news.why);
            let message = Message::Health {
                route: news.route,
                backend: news.backend,
                health: news.health,
                why: news.why,
            };
            let greeted = self.control.connected.iter().filter(|it| it.greeted);
            let peers: Vec<u64> = greeted.map(|it| it.id).collect();
            for peer in peers {
                self.control.tell(peer, &message);
            }
        }
    }
}
