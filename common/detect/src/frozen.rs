//! A value that stands still although it must move: frozen telemetry.
//!
//! A sensor driver that repeats its last word, or a counter behind a dead
//! exporter, looks perfectly healthy to every other detector.
//!
//! Source: the stuck-at test of sensor validation (Sharma, Golubchik, Govindan,
//! "Sensor Faults", 2010), here by time and count instead of by variance.
//! State 48 B, a few comparisons per sample. Blind to a value frozen with noise
//! on top, to one that alternates, and to values that may rightly stand still:
//! give it only counters and noisy measurements.

use core::time::Duration;

/// When standing still is a fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Standing still this long is a fault.
    pub still_max: Duration,
    /// And this many equal samples in a row, so that a pause in sampling alone
    /// is not taken for a frozen value.
    pub samples_min: u16,
    /// Differences up to this count as no change.
    pub tolerance: f32,
}

impl Default for Policy {
    /// 30 s, at least 8 samples, bit by bit.
    fn default() -> Self {
        Self {
            still_max: Duration::from_secs(30),
            samples_min: 8,
            tolerance: 0.0,
        }
    }
}

/// What the detector says of the latest sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It moves, or has not stood still long enough.
    Moving,
    /// It stands still since `since`.
    Frozen {
        /// When the value was first seen.
        since: Duration,
    },
}

/// Watches one value.
///
/// ```
/// # use homeostat_detect::frozen::{Frozen, Policy, Verdict};
/// # use core::time::Duration;
/// let mut watch = Frozen::new(Policy { still_max: Duration::from_secs(2), samples_min: 3, tolerance: 0.0 });
/// for second in 0..2 {
///     assert_eq!(watch.push(Duration::from_secs(second), 21.5), Verdict::Moving);
/// }
/// assert_eq!(watch.push(Duration::from_secs(2), 21.5), Verdict::Frozen { since: Duration::ZERO });
/// assert_eq!(watch.push(Duration::from_secs(3), 21.6), Verdict::Moving);
/// ```
#[derive(Debug, Clone)]
pub struct Frozen {
    policy: Policy,
    held: Option<Held>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    value: f32,
    since: Duration,
    samples: u16,
}

impl Frozen {
    /// A detector that has seen nothing yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, held: None }
    }

    /// Takes a sample. One that is not a number is no sample: it neither counts
    /// as movement nor as standing still.
    pub fn push(&mut self, at: Duration, value: f32) -> Verdict {
        if !value.is_finite() {
            return self.verdict(at);
        }
        match &mut self.held {
            // Compared with the first of the run, so that slow drift is movement.
            Some(held) if (value - held.value).abs() <= self.policy.tolerance => {
                held.samples = held.samples.saturating_add(1);
            }
            held => {
                *held = Some(Held {
                    value,
                    since: at,
                    samples: 1,
                });
            }
        }
        self.verdict(at)
    }

    fn verdict(&self, at: Duration) -> Verdict {
        match self.held {
            Some(held)
                if held.samples >= self.policy.samples_min
                    && at.saturating_sub(held.since) >= self.policy.still_max =>
            {
                Verdict::Frozen { since: held.since }
            }
            _ => Verdict::Moving,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch() -> Frozen {
        Frozen::new(Policy {
            still_max: 10 * SECOND,
            samples_min: 5,
            tolerance: 0.01,
        })
    }

    #[test]
    fn a_pause_in_sampling_is_not_a_frozen_value() {
        let mut watch = watch();
        watch.push(Duration::ZERO, 7.0);
        assert_eq!(watch.push(60 * SECOND, 7.0), Verdict::Moving);
    }

    #[test]
    fn slow_drift_is_movement_even_within_the_tolerance_per_step() {
        let mut watch = watch();
        let mut value = 0.0;
        for second in 0..100 {
            value += 0.004;
            assert_eq!(watch.push(second * SECOND, value), Verdict::Moving);
        }
    }

    #[test]
    fn nan_neither_moves_nor_freezes_a_value() {
        let mut watch = watch();
        for second in 0..20 {
            let value = if second % 2 == 0 { 7.0 } else { f32::NAN };
            let verdict = watch.push(second * SECOND, value);
            assert_eq!(verdict != Verdict::Moving, second >= 10, "{second}");
        }
        assert_eq!(
            Frozen::new(Policy::default()).push(SECOND, f32::NAN),
            Verdict::Moving
        );
    }
}
