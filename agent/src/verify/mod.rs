//! Verify: what the gate needs to know about pace: holds, quarantine, and the
//! back-off of the reflex.
//!
//! In: what was done to a service and when. Out: until when nothing more may be
//! done. The gate itself (`homeostat_common::gate`) takes these as facts. This
//! stage is pure and knows nothing of symptoms.

pub mod contest;

use std::collections::VecDeque;

use homeostat_common::units::{Micros, Millis};
use serde::{Deserialize, Serialize};

use crate::config::Limits;

/// Most actions remembered per service; at least the largest burst and
/// quarantine count that a configuration may ask for.
const REMEMBERED_MAX: usize = 100;

/// When a service may be healed again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Pace {
    /// Ends of recent healings of one kind: time and kind.
    healings: VecDeque<(Micros, u8)>,
    /// Starts of recent revivals of a dead process.
    revivals: VecDeque<Micros>,
    /// Pauses in a row, for doubling.
    pauses: u32,
    /// Quarantines in a row, for doubling.
    quarantines: u32,
    /// No healing before this.
    pub held_until: Option<Micros>,
    /// No healing before this, because it was healed too often.
    pub quarantined_until: Option<Micros>,
    /// No revival before this.
    pub backoff_until: Option<Micros>,
}

impl Pace {
    /// A dead process was started again.
    pub fn revived(&mut self, now: Micros, limits: &Limits) {
        let pace = limits.restart;
        let recent = |at: &Micros| now.since(*at) <= pace.within;
        self.revivals.retain(recent);
        if self.revivals.len() == REMEMBERED_MAX {
            self.revivals.pop_front();
        }
        self.revivals.push_back(now);
        // Once it pauses it goes on so until it has lived: a pause longer than
        // `within` must not earn it another burst.
        if self.pauses > 0 || self.revivals.len() >= usize::from(pace.burst) {
            let pause = doubled(pace.backoff_min, self.pauses, pace.backoff_max);
            self.pauses = self.pauses.saturating_add(1);
            self.backoff_until = Some(now + pause);
        }
    }

    /// The process has lived for `lived`: long enough forgives what was.
    pub fn lived(&mut self, lived: Millis, limits: &Limits) {
        if lived >= limits.restart.stable && (self.pauses > 0 || !self.revivals.is_empty()) {
            self.revivals.clear();
            self.pauses = 0;
            self.backoff_until = None;
        }
    }

    /// Whether the process was started anew more than once lately: starting
    /// alone does not help it.
    #[must_use]
    pub fn keeps_dying(&self) -> bool {
        self.revivals.len() > 1
    }

    /// A healing other than a revival ended. Returns whether the service is
    /// now in quarantine: this kind of action does not help it for long.
    pub fn healed(&mut self, now: Micros, kind: u8, limits: &Limits) -> bool {
        self.held_until = Some(now + limits.hold);
        let quarantine = limits.quarantine;
        self.healings
            .retain(|(at, _)| now.since(*at) <= quarantine.within);
        if self.healings.is_empty() {
            self.quarantines = 0;
        }
        if self.healings.len() == REMEMBERED_MAX {
            self.healings.pop_front();
        }
        self.healings.push_back((now, kind));
        let equal = self
            .healings
            .iter()
            .filter(|(_, other)| *other == kind)
            .count();
        let too_often = equal >= usize::from(quarantine.count);
        if too_often {
            let hold = doubled(quarantine.hold, self.quarantines, quarantine.hold_max);
            self.quarantines = self.quarantines.saturating_add(1);
            self.quarantined_until = Some(now + hold);
        }
        too_often
    }

    /// Moves all times to another clock, on which `then` is `now`.
    pub fn rebase(&mut self, then: Micros, now: Micros) {
        let moved = |at: Micros| {
            if at >= then {
                Micros(now.0.saturating_add(at - then))
            } else {
                Micros(now.0.saturating_sub(then - at))
            }
        };
        for (at, _) in &mut self.healings {
            *at = moved(*at);
        }
        for at in &mut self.revivals {
            *at = moved(*at);
        }
        for until in [
            &mut self.held_until,
            &mut self.quarantined_until,
            &mut self.backoff_until,
        ] {
            *until = until.map(moved);
        }
    }

    /// The latest of the times before which nothing may be done.
    #[must_use]
    pub fn until(&self) -> Option<Micros> {
        self.held_until.max(self.quarantined_until)
    }
}

fn doubled(first: Millis, times: u32, most: Millis) -> Millis {
    let factor = 1u64.checked_shl(times.min(40)).unwrap_or(u64::MAX);
    Millis(first.0.saturating_mul(factor).min(most.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Contest, Mode, Quarantine, Restart};
    use homeostat_common::budget::Policy;

    fn limits() -> Limits {
        Limits {
            mode: Mode::Act,
            hold: Millis::secs(60),
            quarantine: Quarantine {
                count: 3,
                within: Millis::secs(1800),
                hold: Millis::secs(300),
                hold_max: Millis::secs(21_600),
            },
            restart: Restart {
                burst: 5,
                within: Millis::secs(30),
                backoff_min: Millis::secs(1),
                backoff_max: Millis::secs(300),
                stable: Millis::secs(60),
            },
            contest: Contest::default(),
            budget: Policy::default(),
        }
    }

    fn at(seconds: u64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    #[test]
    fn a_crashing_service_is_retried_for_ever_and_ever_slower() {
        let mut pace = Pace::default();
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..16 {
            pace.revived(now, &limits());
            let next = pace.backoff_until.unwrap_or(now).max(now);
            pauses.push(next.since(now).0 / 1000);
            now = next + Millis(1);
        }
        assert_eq!(
            pauses,
            [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300],
            "burst of five, then doubling"
        );
        pace.lived(Millis::secs(59), &limits());
        assert!(pace.backoff_until.is_some());
        pace.lived(Millis::secs(60), &limits());
        assert_eq!(pace.backoff_until, None);
    }

    #[test]
    fn three_equal_healings_quarantine_a_service_for_longer_each_time() {
        let mut pace = Pace::default();
        assert!(!pace.healed(at(0), 1, &limits()));
        assert_eq!(pace.held_until, Some(at(60)));
        assert!(!pace.healed(at(100), 2, &limits()));
        assert!(!pace.healed(at(200), 1, &limits()));
        assert!(pace.healed(at(300), 1, &limits()));
        assert_eq!(pace.quarantined_until, Some(at(600)));
        assert!(pace.healed(at(700), 1, &limits()));
        assert_eq!(pace.quarantined_until, Some(at(1300)));
        assert!(!pace.healed(at(9000), 1, &limits()));
    }
}
