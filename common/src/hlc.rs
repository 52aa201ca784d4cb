//! Hybrid logical clock: 48 bits of milliseconds, 16 bits of counter.
//!
//! Orders nothing by itself: within a node the sequence number does, across
//! nodes explicit causes do. The stamp only breaks ties and lets people read
//! about when something happened. After Kulkarni et al., "Logical Physical
//! Clocks" (2014).

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::units::Millis;

/// A remote stamp further ahead than this is not absorbed: an HLC cannot be
/// wound back, so one broken peer would push the whole fleet into the future.
pub const AHEAD_MAX: Millis = Millis::secs(60);

/// One stamp. Later events on one node have larger stamps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Hlc(u64);

impl Hlc {
    /// Packs a stamp; the milliseconds are cut to 48 bits (year 10889).
    #[must_use]
    pub const fn new(unix_ms: u64, counter: u16) -> Self {
        Self((unix_ms << 16) | counter as u64)
    }

    /// Milliseconds since 1970 of the physical part.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.0 >> 16
    }

    /// Events that shared that millisecond before this one.
    #[must_use]
    pub const fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.unix_ms(), self.counter())
    }
}

/// The clock. Wall time comes in with each call, and may jump either way.
///
/// ```
/// # use homeostat_common::hlc::Clock;
/// let mut clock = Clock::default();
/// let first = clock.tick(1_000_000);
/// let second = clock.tick(400_000); // the wall clock was set back
/// assert!(second > first);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Clock {
    last: Hlc,
}

impl Clock {
    /// Goes on after `high_water`, the largest stamp a former run persisted.
    #[must_use]
    pub fn resume(high_water: Hlc) -> Self {
        Self { last: high_water }
    }

    /// The stamp of a new local event at wall time `unix_ms`.
    pub fn tick(&mut self, unix_ms: u64) -> Hlc {
        // Adding 1 to the packed stamp carries from counter to milliseconds.
        let next = self.last.0.saturating_add(1);
        self.last = Hlc(next.max(Hlc::new(unix_ms, 0).0));
        self.last
    }

    /// Takes a remote stamp into account. `false` when it was more than
    /// [`AHEAD_MAX`] ahead of wall time and therefore ignored.
    pub fn absorb(&mut self, remote: Hlc, unix_ms: u64) -> bool {
        let near = remote.unix_ms() <= unix_ms.saturating_add(AHEAD_MAX.0);
        if near {
            self.last = self.last.max(remote);
        }
        near
    }

    /// The largest stamp given out or absorbed so far; persist it.
    #[must_use]
    pub fn high_water(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_through_jumps_of_the_wall_clock() {
        let mut clock = Clock::default();
        let mut last = Hlc::default();
        for wall in [5_000, 5_000, 5_001, 100, 0, 5_000_000, 4_999_999] {
            let next = clock.tick(wall);
            assert!(next > last);
            last = next;
        }
    }

    #[test]
    fn a_stamp_from_the_far_future_is_not_absorbed() {
        let mut clock = Clock::default();
        assert!(!clock.absorb(Hlc::new(1_000 + AHEAD_MAX.0 + 1, 0), 1_000));
        assert_eq!(clock.tick(1_000), Hlc::new(1_000, 0));
        assert!(clock.absorb(Hlc::new(61_000, 7), 1_000));
        assert_eq!(clock.tick(1_000), Hlc::new(61_000, 8));
    }

    #[test]
    fn the_counter_carries_into_the_milliseconds() {
        let mut clock = Clock::resume(Hlc::new(9, u16::MAX));
        assert_eq!(clock.tick(9), Hlc::new(10, 0));
    }
}
