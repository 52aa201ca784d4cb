//! Verify: what somebody else changes as well, and since when it is left to them.
//!
//! In: signs that what was put right here was undone by somebody else. Out: the resources
//! that are contested, as facts for the gate. Two healers that disagree would go on for ever,
//! and each of their turns takes the service away; one of them has to stop, and this one can.
//!
//! ```text
//!   signs of one resource          `count`-th within `within`
//!  Free ----------------> Free ---------------------------------> Held --- quiet for `hold`, ---> Free
//!                                                                  ^  |    or a person acts
//!                                                                  +--+ each further sign
//! ```
//!
//! It is pure, and does not know how a sign is seen.

use std::collections::{BTreeMap, VecDeque};

use homeostat_common::gate::Contested;
use homeostat_common::primitive::Resource;
use homeostat_common::units::Micros;
use serde::{Deserialize, Serialize};

use crate::config;

/// Signs remembered per service; at least the largest count that a configuration may ask for.
const REMEMBERED_MAX: usize = 100;

/// What somebody else does to one service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Contest {
    signs: VecDeque<(Micros, Resource)>,
    /// Until when each is left alone, and what was seen last.
    held: BTreeMap<Resource, (Micros, String)>,
}

impl Contest {
    /// Somebody else has changed it: `seen` says what. Returns whether from now on it is left
    /// to them.
    pub fn sign(
        &mut self,
        now: Micros,
        resource: Resource,
        seen: &str,
        policy: &config::Contest,
    ) -> bool {
        self.signs.retain(|(at, _)| now.since(*at) <= policy.within);
        if self.signs.len() == REMEMBERED_MAX {
            self.signs.pop_front();
        }
        self.signs.push_back((now, resource));
        let equal = |sign: &&(Micros, Resource)| sign.1 == resource;
        let count = self.signs.iter().filter(equal).count();
        let standing = self.until(resource).is_some_and(|until| until > now);
        if !standing && count < usize::from(policy.count) {
            return false;
        }
        let seen = format!("{seen} ({count} times within {})", policy.within);
        self.held.insert(resource, (now + policy.hold, seen));
        !standing
    }

    /// What is left to somebody else now.
    pub fn contested(&self, now: Micros) -> impl Iterator<Item = Contested> {
        let held = self.held.iter().filter(move |(_, (until, _))| *until > now);
        held.map(|(resource, (until, seen))| Contested {
            resource: *resource,
            until: *until,
            seen: seen.clone(),
        })
    }

    /// Whether nothing of it matters any more.
    #[must_use]
    pub fn is_over(&self, now: Micros, policy: &config::Contest) -> bool {
        let old = |(at, _): &(Micros, Resource)| now.since(*at) > policy.within;
        self.contested(now).next().is_none() && self.signs.iter().all(old)
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
        for (at, _) in &mut self.signs {
            *at = moved(*at);
        }
        for (until, _) in self.held.values_mut() {
            *until = moved(*until);
        }
    }

    fn until(&self, resource: Resource) -> Option<Micros> {
        self.held.get(&resource).map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeostat_common::units::Millis;

    const POLICY: config::Contest = config::Contest {
        count: 2,
        within: Millis::secs(1800),
        hold: Millis::secs(600),
    };

    fn at(seconds: u64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    fn held(contest: &Contest, seconds: u64) -> Vec<(Resource, u64)> {
        contest
            .contested(at(seconds))
            .map(|one| (one.resource, one.until.0 / 1_000_000))
            .collect()
    }

    #[test]
    fn the_second_sign_of_one_resource_ends_it_until_it_is_quiet() {
        let mut contest = Contest::default();
        assert!(!contest.sign(at(0), Resource::Config, "a is back", &POLICY));
        assert!(!contest.sign(at(10), Resource::Process, "ended", &POLICY));
        assert_eq!(held(&contest, 10), []);
        assert!(contest.sign(at(20), Resource::Config, "a is back", &POLICY));
        assert_eq!(held(&contest, 20), [(Resource::Config, 620)]);
        // Another sign keeps it held, and is no news.
        assert!(!contest.sign(at(600), Resource::Config, "a is back", &POLICY));
        assert_eq!(held(&contest, 1199), [(Resource::Config, 1200)]);
        assert_eq!(held(&contest, 1200), []);
        let seen = contest.contested(at(700)).next().map(|one| one.seen);
        assert_eq!(seen.as_deref(), Some("a is back (3 times within 30m)"));
        assert!(!contest.is_over(at(2400), &POLICY));
        assert!(contest.is_over(at(2401), &POLICY));
    }

    #[test]
    fn signs_far_apart_are_no_contest() {
        let mut contest = Contest::default();
        for hour in 0..5 {
            assert!(!contest.sign(at(hour * 3600), Resource::Weights, "moved", &POLICY));
        }
    }

    #[test]
    fn a_hold_moves_to_the_clock_of_the_next_boot() {
        let mut contest = Contest::default();
        contest.sign(at(5000), Resource::Config, "a", &POLICY);
        contest.sign(at(5000), Resource::Config, "a", &POLICY);
        contest.rebase(at(5100), at(3));
        assert_eq!(held(&contest, 3), [(Resource::Config, 503)]);
    }
}
