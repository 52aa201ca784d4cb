//! The connections: a table of slots, named by keys that are never used twice.
//!
//! An event may name a connection that was closed a moment ago and whose slot has been taken
//! again, so a key carries how often its slot was.

use std::os::fd::OwnedFd;

use homeostat_common::units::Micros;

use super::relay::Relay;
use super::table::{Key, Tried};

/// Names a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PairKey {
    pub(super) slot: u32,
    /// 24 bits, as it shares a word with others in an event.
    pub(super) life: u32,
}

const LIFE_MASK: u32 = 0x00ff_ffff;

#[derive(Debug)]
pub(super) enum Stage {
    /// No backend yet.
    Waiting,
    /// A backend was asked.
    Connecting {
        backend: Key,
        socket: OwnedFd,
        until: Micros,
    },
    /// A backend has accepted.
    Open { backend: Key, socket: OwnedFd },
}

/// A client and its backend.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) route: u32,
    pub(super) client: OwnedFd,
    pub(super) stage: Stage,
    /// When the search for a backend is given up.
    pub(super) until: Micros,
    pub(super) tried: Tried,
    /// Stands in the route's queue.
    pub(super) queued: bool,
    /// Its timer, if one is set.
    pub(super) due: Option<Micros>,
    pub(super) relay: Relay,
}

impl Pair {
    pub(super) fn new(route: u32, client: OwnedFd, until: Micros) -> Self {
        Self {
            route,
            client,
            stage: Stage::Waiting,
            until,
            tried: Tried::default(),
            queued: false,
            due: None,
            relay: Relay::default(),
        }
    }

    /// The backend that has accepted.
    pub(super) fn backend(&self) -> Option<Key> {
        match self.stage {
            Stage::Open { backend, .. } => Some(backend),
            Stage::Waiting | Stage::Connecting { .. } => None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Pairs {
    slots: Vec<(u32, Option<Box<Pair>>)>,
    free: Vec<u32>,
    count: usize,
}

impl Pairs {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, pair: Pair) -> PairKey {
        self.count += 1;
        let pair = Some(Box::new(pair));
        if let Some(slot) = self.free.pop()
            && let Some((life, place)) = self.slots.get_mut(slot as usize)
        {
            *place = pair;
            return PairKey { slot, life: *life };
        }
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push((0, pair));
        PairKey { slot, life: 0 }
    }

    pub(super) fn get(&self, key: PairKey) -> Option<&Pair> {
        let (life, pair) = self.slots.get(key.slot as usize)?;
        pair.as_deref().filter(|_| *life == key.life)
    }

    pub(super) fn get_mut(&mut self, key: PairKey) -> Option<&mut Pair> {
        let (life, pair) = self.slots.get_mut(key.slot as usize)?;
        pair.as_deref_mut().filter(|_| *life == key.life)
    }

    pub(super) fn remove(&mut self, key: PairKey) -> Option<Pair> {
        let (life, place) = self.slots.get_mut(key.slot as usize)?;
        (*life == key.life).then_some(())?;
        let pair = place.take()?;
        *life = (*life + 1) & LIFE_MASK;
        self.free.push(key.slot);
        self.count -= 1;
        Some(*pair)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PairKey, &Pair)> {
        let all = self.slots.iter().enumerate();
        all.filter_map(|(slot, (life, pair))| {
            let slot = u32::try_from(slot).ok()?;
            Some((PairKey { slot, life: *life }, pair.as_deref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_former_life_finds_nothing() {
        let pair = || {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            Pair::new(1, socket.into(), Micros(0))
        };
        let mut pairs = Pairs::default();
        let first = pairs.insert(pair());
        assert!(pairs.remove(first).is_some() && pairs.remove(first).is_none());
        let second = pairs.insert(pair());
        assert_eq!(second.slot, first.slot);
        assert!(pairs.get(first).is_none() && pairs.get(second).is_some());
        assert_eq!((pairs.len(), pairs.iter().count()), (1, 1));
    }
}
