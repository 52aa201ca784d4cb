//! What goes in and comes out of the outbox.

use super::super::error::{Error, Result};
use super::super::journal::Limits;
use super::KINDS_MAX;

/// Number of an event; dense within a stream, spans restarts, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventSeq(pub u64);

/// What an event is worth when space runs out, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    Telemetry,
    Aggregate,
    Outcome,
    Incident,
    Audit,
    Heal,
}

impl Class {
    pub const ALL: [Class; 6] = [
        Class::Telemetry,
        Class::Aggregate,
        Class::Outcome,
        Class::Incident,
        Class::Audit,
        Class::Heal,
    ];

    pub(super) fn decode(byte: u8) -> Option<Class> {
        Class::ALL.get(usize::from(byte)).copied()
    }
}

/// Numbers in this range (both ends included) hold no event any more, or never did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub first: EventSeq,
    pub last: EventSeq,
}

/// What the receiver is to be told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Event {
        seq: EventSeq,
        class: Class,
        record: Vec<u8>,
    },
    Gap(Gap),
}

/// Events dropped since the store was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    pub events: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    pub limits: Limits,
    /// Events not yet acknowledged.
    pub events_bytes: u64,
    /// Records since the last checkpoint of their kind.
    pub records_bytes: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            limits: Limits::default(),
            events_bytes: 8 << 20,
            records_bytes: 2 << 20,
        }
    }
}

impl Config {
    /// How much may be live, events and records together, beside room for what is dead
    /// but not yet rewritten. 0 if the limits leave none.
    #[must_use]
    pub fn live_max(limits: &Limits) -> u64 {
        let segment = u64::from(limits.segment_bytes);
        let room = limits
            .total_bytes
            .saturating_sub(limits.overhead_bytes() + segment);
        (room / 9 * 8).saturating_sub(u64::from(KINDS_MAX) * segment.min(1 << 16))
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.events_bytes + self.records_bytes > Config::live_max(&self.limits) {
            return Err(Error::BadLimits(
                "events and records do not fit into total_bytes",
            ));
        }
        Ok(())
    }
}
