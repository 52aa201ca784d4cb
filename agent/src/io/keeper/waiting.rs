//! Events that are not written yet: aggregates that wait for company, and what a disk refuses.

use homeostat_common::wire::body::Body;

use super::Thread;
use crate::control::Class;

/// Aggregates that wait for something else to be written, half an hour of them: a write each
/// five minutes would be most of what a node at rest writes. They have no number yet, so a
/// power cut takes them without a trace.
const HELD_MAX: usize = 6;

/// Events kept in memory while the disk refuses them.
const UNWRITTEN_MAX: usize = 512;

impl Thread {
    /// Takes an event: an aggregate waits, anything else takes those along that do.
    pub(super) fn accept(&mut self, mark: u64, class: Class, causes: Vec<u64>, body: Body) {
        if class == Class::Telemetry {
            self.held.push((mark, causes, body));
            if self.held.len() >= HELD_MAX {
                self.release();
            }
            return;
        }
        self.release();
        self.write(mark, class, causes, body);
    }

    /// Writes the aggregates that wait, in their order before whatever comes next.
    pub(super) fn release(&mut self) {
        for (mark, causes, body) in std::mem::take(&mut self.held) {
            self.write(mark, Class::Telemetry, causes, body);
        }
    }

    fn write(&mut self, mark: u64, class: Class, causes: Vec<u64>, body: Body) {
        if !self.unwritten.is_empty() || !self.push(mark, class, &causes, &body) {
            self.keep_for_later(mark, class, causes, body);
        }
    }

    fn keep_for_later(&mut self, mark: u64, class: Class, causes: Vec<u64>, body: Body) {
        if self.unwritten.len() == UNWRITTEN_MAX {
            let oldest = self
                .unwritten
                .iter()
                .position(|(_, class, ..)| *class != Class::Heal)
                .unwrap_or(0);
            self.unwritten.remove(oldest);
            self.dropped += 1;
        }
        self.unwritten.push_back((mark, class, causes, body));
    }
}
