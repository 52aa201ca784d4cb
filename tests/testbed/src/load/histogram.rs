//! Durations in buckets of at most 1.6 % width, as HdrHistogram keeps them.
//!
//! 64 linear buckets for each doubling of microseconds, up to 2^36 us (19 h). Adding costs a
//! few instructions, memory is 16 KiB, and a percentile is the upper edge of its bucket.

use std::time::Duration;

/// Linear buckets per doubling, as a power of two.
const FINE_BITS: u32 = 6;
const FINE: usize = 1 << FINE_BITS;
/// Doublings above the first [`FINE`] microseconds.
const DOUBLINGS: usize = 30;
const BUCKETS: usize = FINE * (DOUBLINGS + 1);

/// Counts of durations.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
        }
    }
}

impl Histogram {
    pub fn add(&mut self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket(micros).min(BUCKETS - 1);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
            self.total += 1;
        }
    }

    /// What came after `earlier`, which is a former state of this one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.counts.iter().zip(&earlier.counts);
        let counts: Vec<u64> = pairs.map(|(now, then)| now.saturating_sub(*then)).collect();
        Self {
            total: counts.iter().sum(),
            counts,
        }
    }

    /// How many durations it holds.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.total
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The duration that `percent` of all do not exceed, at most 1.6 % too high; `None` when
    /// there are none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let wanted = (percent / 100.0 * self.total as f64).ceil().max(1.0);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return Some(Duration::from_micros(upper(bucket)));
            }
        }
        None
    }
}

fn bucket(micros: u64) -> usize {
    // Below FINE each microsecond has its own; above, the leading bits choose.
    let doublings = (64 - micros.leading_zeros()).saturating_sub(FINE_BITS + 1);
    let fine = usize::try_from(micros >> doublings).unwrap_or(FINE);
    // From the second doubling on `fine` runs from FINE to 2 * FINE - 1.
    fine + doublings as usize * FINE
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let doublings = (bucket / FINE).saturating_sub(1);
    let fine = (bucket - doublings * FINE) as u64;
    ((fine + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_values_and_is_narrow() {
        let mut last = 0;
        for micros in (0..5_000).chain((13..30).map(|n| (1 << n) + 17)) {
            let found = bucket(micros);
            let edge = upper(found);
            assert!(edge >= micros, "{micros}: {edge}");
            assert!(
                (edge - micros) as f64 <= micros as f64 / 60.0,
                "{micros}: {edge}"
            );
            assert_eq!(bucket(edge), found, "{micros}");
            if micros < 5_000 {
                assert!(found == last || found == last + 1, "{micros}");
                last = found;
            }
        }
    }

    #[test]
    fn percentiles_are_those_of_what_was_added() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50.0), None);
        (1..=100).for_each(|ms| histogram.add(Duration::from_millis(ms)));
        histogram.add(Duration::from_secs(1 << 40));
        for (percent, ms) in [(50.0, 51.0), (95.0, 96.0), (1.0, 2.0)] {
            let found = histogram.percentile(percent).unwrap().as_secs_f64() * 1e3;
            assert!((ms..ms * 1.02).contains(&found), "{percent}: {found}");
        }
        assert_eq!(histogram.len(), 101);
        let earlier = histogram.clone();
        (0..10).for_each(|_| histogram.add(Duration::from_millis(7)));
        let since = histogram.since(&earlier);
        assert_eq!(since.len(), 10);
        assert!(since.percentile(100.0).unwrap() < Duration::from_micros(7200));
    }
}
