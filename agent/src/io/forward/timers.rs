//! What is due when. A heap from which nothing is ever taken out early: what is void by the
//! time it comes is ignored by whoever set it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use homeostat_common::units::Micros;
use rustix::event::Timespec;

use super::pairs::PairKey;
use super::table::Key;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A connection's deadline.
    Pair(PairKey),
    /// Connections of this route wait for a backend.
    Retry(u32),
    /// A check is to begin, or has taken too long.
    Check(Key),
    /// A drain has taken too long.
    Drain(Key),
    /// The machine was out of something when a connection was to be accepted.
    Accept,
}

#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Micros, Due)>>);

impl Timers {
    pub(super) fn set(&mut self, at: Micros, due: Due) {
        self.0.push(Reverse((at, due)));
    }

    /// The next that is due by `now`.
    pub(super) fn next(&mut self, now: Micros) -> Option<Due> {
        let Reverse((at, _)) = self.0.peek()?;
        (*at <= now).then_some(())?;
        self.0.pop().map(|Reverse((_, due))| due)
    }

    /// How long nothing is due; `None` for ever.
    pub(super) fn pause(&self, now: Micros) -> Option<Timespec> {
        let Reverse((at, _)) = self.0.peek()?;
        // Whole milliseconds, rounded up, are what every kernel's epoll takes.
        let pause = Duration::from_millis((*at - now).div_ceil(1000));
        Timespec::try_from(pause).ok()
    }
}
