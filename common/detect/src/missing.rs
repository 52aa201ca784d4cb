//! Samples that stop coming.
//!
//! The other detectors speak only when a sample arrives, so silence needs one
//! of its own, asked by the clock. Source: the adaptive timeout of Chen, Toueg
//! and Aguilera, "On the Quality of Service of Failure Detectors" (2002), with
//! the mean gap and deviation tracked as in TCP (Jacobson 1988).
//! State 64 B, six operations per sample. Blind to samples that come in time
//! with wrong content ([`crate::frozen`], [`crate::level`]), and to a source that
//! slows down so gradually that the expectation follows, up to `age_max`.

use core::time::Duration;

/// When silence is a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Silence shorter than this is never a fault.
    pub age_min: Duration,
    /// Silence longer than this always is one.
    pub age_max: Duration,
}

impl Default for Policy {
    /// Between 1 s and 30 s, by what the source usually does.
    fn default() -> Self {
        Self {
            age_min: Duration::from_secs(1),
            age_max: Duration::from_secs(30),
        }
    }
}

/// What the detector says of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The last sample is recent enough.
    Present,
    /// No sample for `age`, longer than this source explains.
    Missing {
        /// Time since the last sample, or since the watch began.
        age: Duration,
    },
}

/// Watches one source.
///
/// ```
/// # use homeostat_detect::missing::{Missing, Policy, Verdict};
/// # use core::time::Duration;
/// let ms = Duration::from_millis;
/// let mut watch = Missing::new(Policy::default(), ms(0));
/// (1..=20).for_each(|i| watch.arrived(ms(250 * i)));
/// assert_eq!(watch.check(ms(5_500)), Verdict::Present);
/// assert_eq!(watch.check(ms(6_200)), Verdict::Missing { age: ms(1_200) });
/// ```
#[derive(Debug, Clone)]
pub struct Missing {
    policy: Policy,
    last: Duration,
    /// Mean gap and mean deviation from it, in seconds; no mean before two samples.
    gap: Option<(f32, f32)>,
    seen: bool,
}

impl Missing {
    /// Starts to wait at `now`.
    #[must_use]
    pub fn new(policy: Policy, now: Duration) -> Self {
        Self {
            policy,
            last: now,
            gap: None,
            seen: false,
        }
    }

    /// A sample arrived.
    pub fn arrived(&mut self, at: Duration) {
        let gap = at.saturating_sub(self.last).as_secs_f32();
        if self.seen {
            let (mean, deviation) = self.gap.unwrap_or((gap, gap / 2.0));
            let error = gap - mean;
            self.gap = Some((
                mean + error / 8.0,
                deviation + (error.abs() - deviation) / 4.0,
            ));
        }
        self.seen = true;
        self.last = self.last.max(at);
    }

    /// Judges the silence up to `now`.
    #[must_use]
    pub fn check(&self, now: Duration) -> Verdict {
        let age = now.saturating_sub(self.last);
        if age > self.allowed() {
            Verdict::Missing { age }
        } else {
            Verdict::Present
        }
    }

    /// The longest silence that is not yet a fault: mean gap plus four
    /// deviations, within the policy's bounds; `age_max` while the gap is unknown.
    #[must_use]
    pub fn allowed(&self) -> Duration {
        let Some((mean, deviation)) = self.gap else {
            return self.policy.age_max;
        };
        Duration::try_from_secs_f32(mean + 4.0 * deviation)
            .unwrap_or(self.policy.age_max)
            .max(self.policy.age_min)
            .min(self.policy.age_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_source_that_never_spoke_is_missing_after_the_longest_wait() {
        let watch = Missing::new(Policy::default(), ms(1_000));
        assert_eq!(watch.check(ms(30_900)), Verdict::Present);
        assert_eq!(
            watch.check(ms(31_100)),
            Verdict::Missing { age: ms(30_100) }
        );
    }

    #[test]
    fn an_irregular_source_is_given_more_time_than_a_regular_one() {
        let (mut regular, mut irregular) = (
            Missing::new(Policy::default(), ms(0)),
            Missing::new(Policy::default(), ms(0)),
        );
        let (mut a, mut b) = (0, 0);
        for i in 0..100 {
            a += 2_000;
            b += if i % 3 == 0 { 5_000 } else { 500 };
            regular.arrived(ms(a));
            irregular.arrived(ms(b));
        }
        assert!(regular.allowed() < ms(2_200), "{:?}", regular.allowed());
        assert!(irregular.allowed() > ms(5_000), "{:?}", irregular.allowed());
    }

    #[test]
    fn a_clock_that_does_not_move_is_survived() {
        let mut watch = Missing::new(Policy::default(), ms(500));
        (0..10).for_each(|_| watch.arrived(ms(500)));
        watch.arrived(ms(100));
        assert_eq!(watch.check(ms(600)), Verdict::Present);
        assert_eq!(watch.allowed(), Policy::default().age_min);
    }
}
