//! What the outbox remembers of itself: its counters, as a record, and its index while it
//! is being loaded.

use std::collections::{BTreeMap, BTreeSet};

use super::super::frame::frame_len;
use super::{Class, Config, Dropped, EVENTS_MAX, JournalSeq};

const STATE_VERSION: u8 = 1;
pub(super) const STATE_BYTES: usize = 1 + 8 * (2 + 3 * 6);

#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) at: Stored,
    pub(super) class: Class,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) seq: u64,
    pub(super) bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    pub(super) acked: u64,
    pub(super) next: u64,
    pub(super) classes: [ClassState; 6],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ClassState {
    /// Events of the class up to here were dropped, oldest first.
    pub(super) evicted_to: u64,
    pub(super) dropped: Dropped,
}

impl Stored {
    pub(super) fn new(seq: JournalSeq, payload: usize) -> Stored {
        Stored {
            seq: seq.0,
            bytes: frame_len(payload),
        }
    }
}

impl State {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![STATE_VERSION];
        let classes = self.classes.iter();
        let of = |c: &ClassState| [c.evicted_to, c.dropped.events, c.dropped.bytes];
        for word in [self.acked, self.next]
            .into_iter()
            .chain(classes.flat_map(of))
        {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<State> {
        let (&STATE_VERSION, rest) = bytes.split_first()? else {
            return None;
        };
        let mut words = rest
            .chunks_exact(8)
            .map(|w| w.first_chunk().copied().map(u64::from_le_bytes));
        let mut word = || words.next().flatten();
        let mut state = State {
            acked: word()?,
            next: word()?,
            ..State::default()
        };
        for class in &mut state.classes {
            class.evicted_to = word()?;
            class.dropped = Dropped {
                events: word()?,
                bytes: word()?,
            };
        }
        (state.acked < state.next).then_some(state)
    }
}

/// Events while loading, within the quota.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) events: BTreeMap<u64, Event>,
    pub(super) order: BTreeSet<(Class, u64)>,
    pub(super) bytes: u64,
    pub(super) over: [ClassState; 6],
}

impl Index {
    pub(super) fn push(&mut self, (seq, event): (u64, Event), config: &Config) {
        if self.events.contains_key(&seq) {
            return;
        }
        self.events.insert(seq, event);
        self.order.insert((event.class, seq));
        self.bytes += u64::from(event.at.bytes);
        while self.bytes > config.events_bytes || self.events.len() > EVENTS_MAX {
            let Some((class, seq)) = self.order.pop_first() else {
                break;
            };
            let Some(gone) = self.events.remove(&seq) else {
                break;
            };
            let bytes = u64::from(gone.at.bytes);
            self.bytes -= bytes;
            let over = &mut self.over[class as usize];
            over.evicted_to = over.evicted_to.max(seq);
            over.dropped.events += 1;
            over.dropped.bytes += bytes;
        }
    }
}
