//! Events that are not written yet: aggregates that wait for company, and what a disk refuses.

use homeostat_common::hlc::Hlc;
use homeostat_common::wire::body::Body;

use super::Thread;
use crate::control::Class;

/// Aggregates that wait for something else to be written, half an hour of them: a write each
/// five minutes would be most of what a node at rest writes. They have no number yet, so a
/// power cut takes them without a trace.
pub const HELD_MAX: usize = 6;

/// Events kept in memory while the disk refuses them.
const UNWRITTEN_MAX: usize = 512;

/// An event without a number.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) mark: u64,
    pub(super) class: Class,
    pub(super) causes: Vec<u64>,
    /// When it was told, however long it waits.
    pub(super) told: Hlc,
    pub(super) body: Body,
}

impl Thread {
    /// Takes an event: an aggregate waits, anything else takes those along that do.
    pub(super) fn accept(&mut self, mark: u64, class: Class, causes: Vec<u64>, body: Body) {
        let event = Waiting {
            mark,
            class,
            causes,
            told: self.hlc.tick(self.wall.unix_ms().0),
            body,
        };
        if class == Class::Telemetry {
            self.held.push(event);
            if self.held.len() >= HELD_MAX {
                self.release();
            }
            return;
        }
        self.release();
        self.write(event);
    }

    /// Writes the aggregates that wait, in their order before whatever comes next.
    pub(super) fn release(&mut self) {
        for event in std::mem::take(&mut self.held) {
            self.write(event);
        }
    }

    fn write(&mut self, event: Waiting) {
        if !self.unwritten.is_empty() || !self.push(&event) {
            self.keep_for_later(event);
        }
    }

    fn keep_for_later(&mut self, event: Waiting) {
        if self.unwritten.len() == UNWRITTEN_MAX {
            let oldest = self
                .unwritten
                .iter()
                .position(|event| event.class != Class::Heal)
                .unwrap_or(0);
            self.unwritten.remove(oldest);
            self.dropped += 1;
        }
        self.unwritten.push_back(event);
    }
}
