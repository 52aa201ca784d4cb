//! When does a value that grows reach its limit? Memory of a slow leak, data on a disk,
//! heat: hours ahead or a minute, and no answer rather than a wrong one.
//!
//! Theil and Sen's slope with Sen's interval from the ranks of all pairwise slopes (Sen
//! 1968), over the newest [`BUCKETS`] buckets of each of [`LEVELS`] levels, whose buckets
//! are twice as long from one to the next: with buckets of 5 s the first level sees 80 s,
//! the last 11 h. A bucket keeps its least value, so that what a garbage collector gives
//! back does not count, and its greatest, as that is what hits the limit.
//!
//! A level has a forecast when its growth is all of:
//!
//! - certain, by Sen's interval (errors that are independent) and by that of a random walk
//!   with drift (errors that add up; a single step is no drift there);
//! - lasting: the newer half grows at four fifths of the rate of the steepest half, or
//!   faster, and the older half at seven tenths of the newer one's;
//! - new: above every level that it came back from, by a quarter of the deepest fall;
//! - within sight: at the slow end of the interval the limit is no further away than the
//!   level looks back;
//! - not contradicted by a shorter level, whose upper end would be below half of the rate.
//!
//! The second and the fourth keep what saturates below its limit from ever being called. Let
//! a value approach a level below the limit with time constant `t`, be `b` short of it now,
//! and have begun at the share `f` of a window of length `x t`. The older half grows fast
//! enough only for `f < 0.22`. The half that begins at `f` is `exp((1/2 - f) x)` times as fast
//! as the newer one, at most 5/4 times, so `x <= ln(5/4) / (1/2 - 0.22) < 0.8`. The newer half
//! has grown by `b (exp(x/2) - 1)` in `x t / 2`; at that rate `b` takes
//! `(x t / 2) / (exp(x/2) - 1)`, which is longer than the window for `x < 0.81`: out of sight.
//!
//! State 1.9 KiB. A sample costs a few operations; one that ends a bucket costs a sort of all
//! slopes of each level that it ends one of, which are two on average.
//!
//! Blind to: growth that takes less than [`BUCKETS`] buckets to the limit ([`crate::slope`] sees
//! that); the first tooth of a collector that is slower than the window, and the first day
//! of a daily rhythm, if they pass close to the limit; growth up to a level that it came
//! back from before; growth whose rate doubles within the window.

use core::time::Duration;

/// Buckets of a level. Their 120 pairwise slopes are few enough to sort, and Kendall's sum
/// over them is nearly normal.
pub const BUCKETS: usize = 16;

/// Levels, each twice as long as the one before.
pub const LEVELS: usize = 10;

/// Pairs of buckets.
const PAIRS: usize = BUCKETS * (BUCKETS - 1) / 2;

/// The newer half grows at least at this share of the steepest half's rate; see the module.
const LASTING: f32 = 0.8;

/// The older half at this share of the newer one's: else it is a step, or has just begun.
const BEGUN: f32 = 0.7;

/// Buckets of half a window.
const HALF: usize = BUCKETS / 2;

/// What was come back from must be exceeded by this share of the deepest fall.
const NEW: f32 = 0.25;

/// A shorter level whose rate is surely below this share says that it is over.
const CONTRADICTED: f32 = 0.5;

/// The newest buckets among whose greatest values the present one is looked for.
const TOPS: usize = 4;

/// Buckets in a row without a sample after which nothing is known of the past.
const GAP: u32 = 4;

/// Standard deviation of Kendall's sum over [`BUCKETS`] values without ties.
const KENDALL_SD: f32 = 22.21;

/// What is forecast, and how sure it has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// The value that must not be reached.
    pub limit: f32,
    /// Less growth than this within a window is never worth a forecast.
    pub rise_min: f32,
    /// Length of the shortest buckets; at least a few samples long.
    pub bucket: Duration,
    /// After a start, for this long, nothing is looked at.
    pub warm_up: Duration,
    /// Half the width of the intervals in standard deviations.
    pub z: f32,
}

impl Policy {
    /// For samples each second or more often. `range`: from nothing to the limit; growth of
    /// less than a hundredth of it says nothing.
    ///
    /// `z` is the least of 2.0, 2.5, 3.0 and 3.5 with which no more than one healthy day in 80
    /// had a forecast that would be acted on: 17, 12 and 11 of 900 for the first three, days of
    /// the nine kinds of `homeostat-eval foresee`, seeds 1000 to 1099.
    #[must_use]
    pub fn new(limit: f32, range: f32) -> Self {
        Self {
            limit,
            rise_min: range / 100.0,
            bucket: Duration::from_secs(5),
            warm_up: Duration::from_secs(30),
            z: 3.0,
        }
    }
}

/// When the limit is reached if it goes on like this.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Units per second, of the newer half of the window.
    pub rate: f32,
    /// Until the limit, at the fast end of the interval.
    pub earliest: Duration,
    /// Until the limit.
    pub expected: Duration,
    /// Until the limit, at the slow end of the interval.
    pub latest: Duration,
    /// How far back it looks.
    pub over: Duration,
}

/// Values of one span.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    least: f32,
    most: f32,
}

impl Bucket {
    fn with(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        }
    }
}

/// A line through a level, in units per bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fit {
    rate: f32,
    /// Ends of the interval.
    low: f32,
    high: f32,
    /// Of the newer half.
    late: f32,
    /// Certain, lasting and new.
    growing: bool,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    buckets: [Bucket; BUCKETS],
    len: usize,
    /// The first of the two that make the next level's bucket.
    half: Option<Bucket>,
    fit: Option<Fit>,
    /// The highest level that has left the window, and the highest of all.
    left: f32,
    highest: f32,
    /// The deepest fall below what was the highest then.
    fall: f32,
}

const NOTHING: Bucket = Bucket {
    least: 0.0,
    most: 0.0,
};

const EMPTY: Level = Level {
    buckets: [NOTHING; BUCKETS],
    len: 0,
    half: None,
    fit: None,
    left: f32::NEG_INFINITY,
    highest: f32::NEG_INFINITY,
    fall: 0.0,
};

impl Level {
    fn add(&mut self, bucket: Bucket, policy: &Policy) -> Option<Bucket> {
        if self.len == BUCKETS {
            let [oldest, ..] = self.buckets;
            self.left = self.left.max(oldest.least);
            self.buckets.rotate_left(1);
            self.len -= 1;
        }
        if let Some(place) = self.buckets.get_mut(self.len) {
            *place = bucket;
            self.len += 1;
        }
        self.highest = self.highest.max(bucket.least);
        self.fall = self.fall.max(self.highest - bucket.least);
        self.fit = (self.len == BUCKETS).then(|| self.fit(policy));
        match self.half.take() {
            Some(first) => Some(first.with(bucket)),
            None => {
                self.half = Some(bucket);
                None
            }
        }
    }

    /// Forgets the window, and keeps what was come back from.
    fn clear(&mut self) {
        *self = Self {
            left: self.left,
            fall: self.fall,
            ..EMPTY
        };
    }

    fn fit(&self, policy: &Policy) -> Fit {
        let floors = self.buckets.map(|bucket| bucket.least);
        let mut slopes = slopes(&floors);
        slopes.sort_unstable_by(f32::total_cmp);
        let at = |rank: f32| {
            // Saturates at both ends; 120 ranks fit into anything.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let place = libm::roundf(rank).max(0.0) as usize;
            slopes.get(place.min(PAIRS - 1)).copied().unwrap_or(0.0)
        };
        let [pairs, steps] = [PAIRS, BUCKETS - 1].map(|n| u16::try_from(n).map_or(1.0, f32::from));
        let rate = at(pairs / 2.0);
        let width = policy.z * KENDALL_SD;
        let first = floors.first().copied().unwrap_or(0.0);
        let last = floors.last().copied().unwrap_or(0.0);
        let drift = (last - first) / steps;
        let scatter: f32 = floors
            .iter()
            .zip(floors.iter().skip(1))
            .map(|(a, b)| (b - a - drift) * (b - a - drift))
            .sum();
        let walk = policy.z * libm::sqrtf(scatter / (steps - 1.0) / steps);
        let low = at((pairs - width) / 2.0).min(drift - walk);
        let high = at((pairs + width) / 2.0).max(drift + walk);
        // The halves from the oldest to the newest.
        let mut halves = floors.windows(HALF).map(|half| {
            let mut slopes = self::slopes(half);
            crate::median(&mut slopes).unwrap_or(0.0)
        });
        let early = halves.next().unwrap_or(0.0);
        let (steepest, late) = halves.fold((early, early), |(steepest, _), half| {
            (steepest.max(half), half)
        });
        let large = rate * steps >= policy.rise_min;
        let lasting = late >= LASTING * steepest && early >= BEGUN * late;
        let new = last > self.left + NEW * self.fall;
        Fit {
            rate,
            low,
            high,
            late,
            growing: low > 0.0 && large && lasting && new,
        }
    }
}

/// All slopes between two of these, in units per place.
fn slopes(values: &[f32]) -> heapless::Vec<f32, PAIRS> {
    let mut slopes = heapless::Vec::new();
    for (i, from) in values.iter().enumerate() {
        for (gap, to) in (1_u16..).zip(values.iter().skip(i + 1)) {
            // At most `BUCKETS` values come in.
            let _ = slopes.push((to - from) / f32::from(gap));
        }
    }
    slopes
}

/// Watches one value; [`reset`](Horizon::reset) it with the process, and when something was
/// done about the value.
///
/// ```
/// # use homeostat_detect::forecast::{Horizon, Policy};
/// # use core::time::Duration;
/// let mut memory = Horizon::new(Policy::new(512e6, 512e6));
/// let mut told = None;
/// for second in 0..2000_u32 {
///     // 200 kB a second; a collector takes 20 MB back each 3 s. The limit is hit after 1910 s.
///     let value = 100e6 + 0.2e6 * second as f32 + 10e6 * (second % 3) as f32;
///     memory.push(Duration::from_secs(second.into()), value);
///     if memory.forecast().is_some_and(|found| found.earliest < Duration::from_secs(300)) {
///         told.get_or_insert(second);
///     }
/// }
/// assert!(told.is_some_and(|at| (1600..1700).contains(&at)), "{told:?}");
/// ```
#[derive(Debug, Clone)]
pub struct Horizon {
    policy: Policy,
    started: Option<Duration>,
    latest: Duration,
    /// Number of the bucket that is being filled, and what is in it.
    filling: Option<(u64, Bucket)>,
    levels: [Level; LEVELS],
}

impl Horizon {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            started: None,
            latest: Duration::ZERO,
            filling: None,
            levels: [EMPTY; LEVELS],
        }
    }

    /// Something was done about the value, or it is that of a new process: it begins anew.
    /// Levels that it came back from by itself stay known.
    pub fn reset(&mut self) {
        let mut levels = self.levels;
        levels.iter_mut().for_each(Level::clear);
        *self = Self {
            levels,
            ..Self::new(self.policy)
        };
    }

    /// Takes a sample. One that is not a number, or not later than the last, is ignored.
    pub fn push(&mut self, at: Duration, value: f32) {
        let started = *self.started.get_or_insert(at);
        if !value.is_finite() || (at <= self.latest && at != started) {
            return;
        }
        self.latest = at;
        let age = at.saturating_sub(started);
        if age < self.policy.warm_up {
            return;
        }
        let length = self.policy.bucket.as_micros().max(1);
        let number = u64::try_from(age.as_micros() / length).unwrap_or(u64::MAX);
        let sample = Bucket {
            least: value,
            most: value,
        };
        match &mut self.filling {
            Some((same, bucket)) if *same == number => *bucket = bucket.with(sample),
            filling => {
                let before = filling.replace((number, sample));
                if let Some((before, bucket)) = before {
                    self.close(number.saturating_sub(before), bucket);
                }
            }
        }
    }

    /// When the limit is reached; `None` when that is not known, or not to be expected.
    #[must_use]
    pub fn forecast(&self) -> Option<Forecast> {
        let mut longest = None;
        let mut seconds = self.policy.bucket.as_secs_f32();
        // The fastest that the shorter levels can believe in, and the span of each.
        let mut bound = f32::INFINITY;
        for level in &self.levels {
            let Some(fit) = &level.fit else {
                break;
            };
            if bound >= CONTRADICTED * fit.rate / seconds
                && let Some(found) = self.within_sight(level, fit, seconds)
            {
                longest = Some(found);
            }
            bound = bound.min(fit.high / seconds);
            seconds *= 2.0;
        }
        longest
    }

    fn within_sight(&self, level: &Level, fit: &Fit, seconds: f32) -> Option<Forecast> {
        if !fit.growing {
            return None;
        }
        let newest = level.buckets.iter().rev().take(TOPS);
        let present = self.filling.map(|(_, bucket)| bucket);
        let top = newest
            .clone()
            .chain(&present)
            .map(|bucket| bucket.most)
            .fold(f32::NEG_INFINITY, f32::max);
        // How far apart the greatest values are, but for the trend.
        let apart = (0_u8..)
            .zip(newest)
            .fold((f32::MAX, f32::MIN), |(low, high), (age, one)| {
                let level = one.most + fit.late * f32::from(age);
                (low.min(level), high.max(level))
            });
        let apart = (apart.1 - apart.0).max(0.0);
        let left = (self.policy.limit - top).max(0.0);
        let after =
            |left: f32, rate: f32| Duration::try_from_secs_f32(left.max(0.0) / rate * seconds).ok();
        // From the first to the last.
        let over = self.policy.bucket * u32::try_from(BUCKETS - 1).unwrap_or(1);
        let over = over.mul_f32(seconds / self.policy.bucket.as_secs_f32());
        let latest = after(left + apart, fit.low.min(fit.late))?;
        (latest <= over).then_some(Forecast {
            rate: fit.late / seconds,
            earliest: after(left - apart, fit.high.max(fit.late))?,
            expected: after(left, fit.late)?,
            latest,
            over,
        })
    }

    /// `steps`: to the number of the next bucket; the ones between had no samples.
    fn close(&mut self, steps: u64, bucket: Bucket) {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        if steps > GAP {
            for level in &mut self.levels {
                level.clear();
            }
            return;
        }
        for _ in 0..steps {
            let mut next = Some(bucket);
            for level in &mut self.levels {
                let Some(bucket) = next else {
                    break;
                };
                next = level.add(bucket, &self.policy);
            }
        }
    }
}

#[cfg(test)]
mod tests;
