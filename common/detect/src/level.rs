//! Is this value unusual for this service? For latency, CPU share, run delay.
//!
//! Median and median absolute deviation (MAD) of the last `N` learnt values,
//! exactly, from a sorted window (Hampel 1974; half of the window may lie). The
//! tail is not taken from a normal distribution, which latency does not follow:
//! above the upper quartile the excesses are modelled as exponential (peaks over
//! threshold, Pickands 1975, with shape 0), scaled by their median.
//!
//! State 8 bytes per value: 0.5 KiB for 64. Learning costs two binary searches
//! and a move of the window (0.1 us), a score two merges over half of it (0.1 us).
//! Blind to a shift that the caller keeps teaching it for `N / 2` samples, to
//! several modes (a value between them looks normal), and to tails much
//! heavier than exponential, whose rarity it overstates: give those in logarithms.

use heapless::{HistoryBuf, Vec};

/// Scales a MAD to the standard deviation of a normal distribution.
const MAD_TO_SIGMA: f32 = 1.4826;

/// Fewer learnt values than this give no score: below, the quartile is a guess.
pub const LEARN_MIN: usize = 16;

/// How unusual a value is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Robust standard deviations above the median; negative below.
    pub z: f32,
    /// Estimated share of usual values at least this large, `0..=1`.
    pub tail: f32,
}

/// The usual level and spread of one value.
///
/// Scoring and learning are apart, so that the caller may keep values of an
/// incident out of the baseline.
///
/// ```
/// # use homeostat_detect::level::Level;
/// let mut latency: Level = Level::new(0.1);
/// for i in 0..64_u8 {
///     latency.learn(2.0 + f32::from(i % 8) / 10.0);
/// }
/// assert!(latency.score(2.4).unwrap().tail > 0.1);
/// assert!(latency.score(9.0).unwrap().tail < 1e-6);
/// ```
#[derive(Debug, Clone)]
pub struct Level<const N: usize = 64> {
    ring: HistoryBuf<f32, N>,
    sorted: Vec<f32, N>,
    spread_min: f32,
}

impl<const N: usize> Level<N> {
    /// `spread_min`: deviations smaller than this never matter, in the unit of
    /// the value; it keeps a constant value from making every change infinite.
    #[must_use]
    pub fn new(spread_min: f32) -> Self {
        Self {
            ring: HistoryBuf::new(),
            sorted: Vec::new(),
            spread_min: spread_min.max(f32::MIN_POSITIVE),
        }
    }

    /// Takes a usual value into the baseline; one that is not a number is ignored.
    pub fn learn(&mut self, value: f32) {
        if !value.is_finite() {
            return;
        }
        if self.sorted.is_full()
            && let Some(oldest) = self.ring.oldest()
            && let Ok(at) = self.find(*oldest)
        {
            self.sorted.remove(at);
        }
        let at = self.find(value).unwrap_or_else(|at| at);
        // Both hold the same values, so there is room.
        let _ = self.sorted.insert(at, value);
        self.ring.write(value);
    }

    fn find(&self, value: f32) -> Result<usize, usize> {
        self.sorted
            .binary_search_by(|other| other.total_cmp(&value))
    }

    /// Values in the baseline.
    #[must_use]
    pub fn learnt(&self) -> usize {
        self.sorted.len()
    }

    /// The median of the baseline.
    #[must_use]
    pub fn median(&self) -> Option<f32> {
        let n = self.sorted.len();
        let upper = *self.sorted.get(n / 2)?;
        if n % 2 == 1 {
            return Some(upper);
        }
        let lower = *self.sorted.get((n / 2).checked_sub(1)?)?;
        Some(lower + (upper - lower) / 2.0)
    }

    /// The spread as a robust standard deviation, at least `spread_min`.
    #[must_use]
    pub fn spread(&self) -> Option<f32> {
        let median = self.median()?;
        // Deviations rise outward on both sides: merge up to the middle one.
        let split = self.sorted.partition_point(|value| *value < median);
        let (below, above) = self.sorted.split_at_checked(split)?;
        let mut below = below.iter().rev().map(|v| median - v).peekable();
        let mut above = above.iter().map(|v| v - median).peekable();
        let mut mad = 0.0;
        for _ in 0..=self.sorted.len() / 2 {
            let from_below = match (below.peek(), above.peek()) {
                (Some(b), Some(a)) => b <= a,
                (Some(_), None) => true,
                (None, _) => false,
            };
            let next = if from_below {
                below.next()
            } else {
                above.next()
            };
            mad = next.unwrap_or(mad);
        }
        Some((MAD_TO_SIGMA * mad).max(self.spread_min))
    }

    /// How unusual `value` is; `None` before [`LEARN_MIN`] values or for NaN.
    #[must_use]
    pub fn score(&self, value: f32) -> Option<Score> {
        if self.sorted.len() < LEARN_MIN || value.is_nan() {
            return None;
        }
        let z = (value - self.median()?) / self.spread()?;
        Some(Score {
            z,
            tail: self.tail(value)?,
        })
    }

    fn tail(&self, value: f32) -> Option<f32> {
        let n = self.sorted.len();
        let first = n - n / 4;
        let threshold = *self.sorted.get(first.checked_sub(1)?)?;
        let share = |count: usize| {
            let of = |n: usize| u16::try_from(n).map_or(f32::MAX, f32::from);
            of(count) / of(n)
        };
        if value <= threshold {
            let below = self.sorted.partition_point(|other| *other < value);
            return Some(share(n - below));
        }
        // The median excess over ln 2 is the mean of an exponential, and a few
        // outliers among the learnt values do not move it.
        let excesses = self.sorted.get(first..)?;
        let median_excess = excesses.get(excesses.len() / 2)? - threshold;
        let mean = (median_excess / core::f32::consts::LN_2).max(self.spread_min);
        Some(share(n / 4) * libm::expf(-(value - threshold) / mean))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator of random values, and what it is called.
    type Source = (&'static str, fn(&mut fastrand::Rng) -> f32);

    const SOURCES: [Source; 4] = [
        ("uniform", fastrand::Rng::f32),
        ("exponential", |rng| -libm::logf(1.0 - rng.f32())),
        ("normal", normal),
        ("log of lognormal plus 5", |rng| 5.0 + 0.5 * normal(rng)),
    ];

    fn normal(rng: &mut fastrand::Rng) -> f32 {
        (0..12).map(|_| rng.f32()).sum::<f32>() - 6.0
    }

    #[test]
    fn the_tail_is_calibrated_whatever_the_distribution() {
        for (name, draw) in SOURCES {
            let mut rng = fastrand::Rng::with_seed(11);
            let mut level: Level = Level::new(1e-3);
            let (mut scored, mut one_in_100, mut one_in_10) = (0.0, 0.0, 0.0);
            for _ in 0..40_000 {
                let value = draw(&mut rng);
                if let Some(score) = level.score(value) {
                    scored += 1.0;
                    one_in_100 += f32::from(score.tail < 0.01);
                    one_in_10 += f32::from(score.tail < 0.1);
                }
                level.learn(value);
            }
            let (rare, seldom) = (one_in_100 / scored, one_in_10 / scored);
            std::println!("{name}: tail < 0.01 in {rare:.4}, < 0.1 in {seldom:.4}");
            assert!((0.05..0.15).contains(&seldom), "{name}: {seldom}");
            assert!(rare < 0.025, "{name}: {rare}");
        }
    }

    #[test]
    fn median_and_spread_equal_those_of_a_sort() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut level: Level<9> = Level::new(1e-6);
        let mut last: std::vec::Vec<f32> = std::vec::Vec::new();
        for _ in 0..2000 {
            let value = f32::from(rng.u8(..20));
            level.learn(value);
            last.push(value);
            let from = last.len().saturating_sub(9);
            let mut window = last[from..].to_vec();
            let median = crate::median(&mut window).unwrap();
            assert_eq!(level.median(), Some(median));
            window.iter_mut().for_each(|v| *v = (*v - median).abs());
            window.sort_by(f32::total_cmp);
            let mad = window[window.len() / 2];
            assert_eq!(level.spread(), Some((1.4826 * mad).max(1e-6)));
        }
    }

    #[test]
    fn a_third_of_outliers_leaves_level_and_spread_in_place() {
        let mut rng = fastrand::Rng::with_seed(2);
        let mut level: Level = Level::new(1e-3);
        for i in 0..64 {
            let value = 10.0 + normal(&mut rng);
            level.learn(if i % 3 == 0 { 1e6 } else { value });
        }
        let (median, spread) = (level.median().unwrap(), level.spread().unwrap());
        assert!((median - 10.0).abs() < 1.5, "{median}");
        assert!(spread < 4.0, "{spread}");
        assert!(level.score(50.0).unwrap().z > 8.0);
    }

    #[test]
    fn a_constant_value_scores_in_units_of_the_least_spread() {
        let mut level: Level = Level::new(0.5);
        assert_eq!(level.score(1.0), None);
        (0..LEARN_MIN).for_each(|_| level.learn(4.0));
        assert_eq!(level.score(5.0).unwrap().z, 2.0);
        assert_eq!(level.score(4.0).unwrap().tail, 1.0);
        assert_eq!(level.score(f32::NAN), None);
        level.learn(f32::NAN);
        level.learn(f32::INFINITY);
        assert_eq!(level.learnt(), LEARN_MIN);
    }
}
