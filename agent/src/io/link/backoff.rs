//! When to try again: decorrelated jitter between two bounds.
//!
//! A broker that comes back must not meet its whole fleet in the same second,
//! and a node that is kicked right after each CONNACK must not hammer. So only
//! time spent connected forgives earlier failures: in proportion, and all of
//! them after [`STABLE`]. Being accepted forgives nothing, with one exception:
//! the first loss after the program's start, because failures while a node's
//! own network is still coming up say nothing about the broker.

use std::time::Duration;

/// A connection that lived this long clears all earlier failures.
pub const STABLE: Duration = Duration::from_secs(5 * 60);

/// The first delay after a lost connection is spread over this many minimal
/// delays: with the default of 1 s, 1,000 agents that lose one broker come back
/// at 50 a second.
const SPREAD: u32 = 20;

/// The delays of one link.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    previous: Duration,
    connected_before: bool,
    rng: fastrand::Rng,
}

impl Backoff {
    /// Delays in `min..=max`; the same seed gives the same delays.
    #[must_use]
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self {
            min,
            max: max.max(min),
            previous: min,
            connected_before: false,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Before the very first attempt: a site that gets its power back starts
    /// all its nodes at once.
    pub fn first(&mut self) -> Duration {
        self.between(Duration::ZERO, self.min)
    }

    /// After an attempt that led to no usable connection.
    pub fn failed(&mut self) -> Duration {
        self.draw(self.previous.saturating_mul(3))
    }

    /// After a connection that was usable for `lived`.
    pub fn lost(&mut self, lived: Duration) -> Duration {
        if lived >= STABLE || !self.connected_before {
            self.previous = self.min;
        } else {
            let kept = 1.0 - lived.as_secs_f64() / STABLE.as_secs_f64();
            let above = self.previous.saturating_sub(self.min);
            self.previous = self.min + above.mul_f64(kept.clamp(0.0, 1.0));
        }
        self.connected_before = true;
        let spread = self.min.saturating_mul(SPREAD);
        self.draw(self.previous.saturating_mul(3).max(spread))
    }

    fn draw(&mut self, upper: Duration) -> Duration {
        self.previous = self.between(self.min, upper.min(self.max));
        self.previous
    }

    fn between(&mut self, low: Duration, high: Duration) -> Duration {
        low + high.saturating_sub(low).mul_f64(self.rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(600);

    fn production(seed: u64) -> Backoff {
        Backoff::new(SECOND, LONGEST, seed)
    }

    #[test]
    fn every_delay_is_within_its_bounds_and_repeats_with_the_seed() {
        for seed in 0..50 {
            let (mut one, mut two) = (production(seed), production(seed));
            assert!(one.first() <= SECOND);
            two.first();
            for _ in 0..100 {
                let delay = one.failed();
                assert_eq!(delay, two.failed());
                assert!((SECOND..=LONGEST).contains(&delay), "{delay:?}");
            }
        }
    }

    #[test]
    fn a_node_that_is_kicked_after_each_connack_slows_down() {
        for seed in 0..50 {
            let mut backoff = production(seed);
            let waited: Duration = (0..30).map(|_| backoff.lost(Duration::ZERO)).sum();
            assert!(waited > Duration::from_secs(600), "seed {seed}: {waited:?}");
        }
    }

    #[test]
    fn a_stable_connection_forgives_and_half_of_one_forgives_half() {
        let mut backoff = production(1);
        backoff.lost(Duration::ZERO);
        backoff.previous = LONGEST;
        let limit = SECOND.mul_f64(f64::from(SPREAD));
        assert!(backoff.lost(STABLE) <= limit);
        let mean = |lived: Duration| {
            let mut backoff = production(2);
            backoff.lost(Duration::ZERO);
            let sum: Duration = (0..1000)
                .map(|_| {
                    backoff.previous = Duration::from_secs(100);
                    backoff.lost(lived)
                })
                .sum();
            sum.as_secs_f64() / 1000.0
        };
        let (none, half) = (mean(Duration::ZERO), mean(STABLE / 2));
        assert!((1.8..2.2).contains(&(none / half)), "{none} {half}");
    }

    #[test]
    fn failures_before_the_first_connection_are_forgiven_once() {
        let mut backoff = production(3);
        for _ in 0..30 {
            backoff.failed();
        }
        backoff.previous = LONGEST;
        assert!(backoff.lost(Duration::ZERO) <= SECOND * SPREAD);
        backoff.previous = LONGEST;
        let longest = (0..20).map(|_| backoff.lost(Duration::ZERO)).max();
        assert!(longest > Some(SECOND * SPREAD));
    }

    #[test]
    fn a_thousand_agents_do_not_come_back_in_one_second() {
        let mut per_second = [0; 21];
        for seed in 0..1000 {
            let at = production(seed).lost(STABLE).as_secs();
            per_second[usize::try_from(at).unwrap()] += 1;
        }
        assert!(per_second.iter().all(|count| *count < 85), "{per_second:?}");
    }
}
