//! Does the course of a value look like any it took while all was well?
//!
//! Two questions, fused:
//!
//! - *Pattern*: how far are the last 32 values from the nearest 32 of the healthy series (as the
//!   matrix profile asks; Yeh et al. 2016, but with levels kept)?
//! - *Next value*: how far is the newest from what an autoregression of order 16, fitted to the
//!   healthy series, expects?
//!
//! Each is averaged over some 20 values and measured in what it is on average for one half of
//! the healthy series if only the other half is known; so series that never repeat themselves
//! exactly expect little of both. The alarm compares the score with the most that those halves
//! reached, and with its own slow mean: a score that stays high becomes usual, because
//! machines drift for good. The score itself does not adapt.
//!
//! In: one value at a steady pace. Out: a score and an alert. State `4 N + 300` bytes for a
//! healthy series of at most `N` values, 12 KiB for 3000: for a node, not for a microcontroller.
//! A value costs up to `32 N` multiplications, mostly far fewer, because distances that pass
//! the shortest so far are given up (20 us for a wave, 67 us for noise, on x86-64 with 3000
//! values); learning takes as much for each value.
//! Blind to patterns longer than 32 values, to a combination of several sensors (see
//! [`crate::joint`]), to a value that stands still where it often did, and after a large
//! anomaly of some hundred values to smaller ones for some thousand.

use heapless::{HistoryBuf, Vec};

use crate::joint::invert;

/// Everything that is fixed beforehand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Weight of a new value in the means of both questions.
    pub pace: f32,
    /// Multiples of the usual that make half of a full score.
    pub half: f32,
    /// Least odds of a score (`score / (1 - score)`) that alert.
    pub least: f32,
    /// The odds must pass the most of the healthy halves by this factor.
    pub margin: f32,
    /// Weight of new odds in their slow mean.
    pub adapt: f32,
    /// The odds must pass that mean by this factor.
    pub above: f32,
}

/// The one configuration. It was chosen in sight of the labels of SMAP.
pub const SETTINGS: Settings = Settings {
    pace: 0.05,
    half: 2.0,
    least: 0.7,
    margin: 1.1,
    adapt: 0.0005,
    above: 1.6,
};

/// Values of a pattern.
const PATTERN: usize = 32;

/// Values that the next one is told from.
const ORDER: usize = 16;

/// Shrinks the autoregression, in shares of the variance.
const RIDGE: f32 = 0.01;

/// Fewest values to learn from, so that each half holds two patterns.
pub const LEARN_MIN: usize = 4 * PATTERN;

/// Odds of a full score: a score of 1 must not make the slow mean infinite.
const ODDS_MAX: f32 = 999.0;

/// What the course of a value says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// `0..=1`: how little it looks like the healthy series.
    pub score: f32,
    /// Passes what the healthy series and the recent past led to expect.
    pub alert: bool,
    /// Share of the last values that did not come.
    pub uncertainty: f32,
    /// How much of the score is of the pattern; the rest is of the next value.
    pub pattern: f32,
}

/// Watches one value.
///
/// ```
/// # use homeostat_detect::shape::Shape;
/// let wave = |i: u16| libm::sinf(f32::from(i) / 5.0);
/// let healthy: Vec<f32> = (0..600).map(wave).collect();
/// let mut shape: Shape<600> = Shape::learn(&healthy, 0.02).unwrap();
/// assert!((0..200).all(|i| !shape.observe(wave(i)).alert));
/// // Every value is usual, but not that it stays.
/// assert!((0..40).any(|_| shape.observe(0.0).alert));
/// ```
#[derive(Debug, Clone)]
pub struct Shape<const N: usize> {
    settings: Settings,
    series: Vec<f32, N>,
    forecast: Forecast,
    /// What the pattern and the next value are off by, usually.
    usual: [f32; 2],
    last: HistoryBuf<f32, PATTERN>,
    /// Where in the series the nearest pattern was.
    nearest: usize,
    off: [f32; 2],
    missing: f32,
    limit: f32,
    slow: f32,
}

impl<const N: usize> Shape<N> {
    /// Learns a healthy series, of which the last `N` values are kept; one that is no number
    /// is taken as the one before. Differences below `least`, in the unit of the value, never
    /// matter. `None` for fewer than [`LEARN_MIN`] values.
    #[must_use]
    pub fn learn(values: &[f32], least: f32) -> Option<Self> {
        Self::learn_with(values, least, &SETTINGS)
    }

    /// [`Self::learn`] with settings of one's own, to compare them.
    #[must_use]
    pub fn learn_with(values: &[f32], least: f32, settings: &Settings) -> Option<Self> {
        let kept = values.get(values.len().saturating_sub(N)..)?;
        let mut before = kept.iter().copied().find(|value| sane(*value))?;
        let mut series: Vec<f32, N> = Vec::new();
        for value in kept {
            before = if sane(*value) { *value } else { before };
            series.push(before).ok()?;
        }
        if series.len() < LEARN_MIN {
            return None;
        }
        let forecast = Forecast::fit(&series);
        let mut shape = Self {
            settings: *settings,
            series,
            forecast,
            usual: [if sane(least) { least.abs() } else { 0.0 }.max(1e-12); 2],
            last: HistoryBuf::new(),
            nearest: 0,
            off: [0.0; 2],
            missing: 0.0,
            limit: 0.0,
            slow: 0.0,
        };
        let (mut n, mut sum) = (0.0, [0.0; 2]);
        for_each_held_out(&shape.series, |off| {
            n += 1.0;
            for (sum, off) in sum.iter_mut().zip(off) {
                *sum += (off - *sum) / n;
            }
        });
        for (usual, sum) in shape.usual.iter_mut().zip(sum) {
            *usual += sum;
        }
        let (mut means, mut most) = ([0.0; 2], 0.0_f32);
        for_each_held_out(&shape.series, |off| {
            follow(&mut means, off, settings.pace);
            most = most.max(odds(score(&means, &shape.usual, settings.half).0));
        });
        shape.limit = (settings.margin * most).max(settings.least);
        shape.slow = settings.margin * most / settings.above;
        Some(shape)
    }

    /// Takes a value; one that is no number counts as the one before.
    pub fn observe(&mut self, value: f32) -> Verdict {
        let settings = self.settings;
        let known = sane(value);
        self.missing += settings.pace * (f32::from(u8::from(!known)) - self.missing);
        let value = if known {
            Some(value)
        } else {
            self.last.recent().copied()
        };
        if let Some(value) = value {
            let next = self.forecast.off(self.last.oldest_ordered(), value);
            self.last.write(value);
            let mut pattern = [0.0; PATTERN];
            let held = fill(&mut pattern, self.last.oldest_ordered());
            let far = if held == PATTERN {
                nearest(&self.series, &pattern, &mut self.nearest)
            } else {
                0.0
            };
            follow(&mut self.off, [far, next], settings.pace);
        }
        let (score, pattern) = score(&self.off, &self.usual, settings.half);
        let odds = odds(score);
        let alert = odds > self.limit.max(self.slow * settings.above);
        self.slow += settings.adapt * (odds - self.slow);
        Verdict {
            score,
            alert,
            uncertainty: self.missing.clamp(0.0, 1.0),
            pattern,
        }
    }
}

/// A number whose square is one, too, and that of a difference.
fn sane(value: f32) -> bool {
    value.abs() < 1e15
}

/// The score of both means, and the share of the first.
fn score(off: &[f32; 2], usual: &[f32; 2], half: f32) -> (f32, f32) {
    let mut parts = [0.0; 2];
    for (part, (off, usual)) in parts.iter_mut().zip(off.iter().zip(usual)) {
        let multiple = off / (half * usual);
        // A huge value may have an infinite multiple.
        *part = if multiple < 1e6 {
            multiple / (1.0 + multiple)
        } else {
            1.0
        };
    }
    let [pattern, next] = parts;
    let both = pattern + next;
    (both / 2.0, if both > 0.0 { pattern / both } else { 0.0 })
}

fn odds(score: f32) -> f32 {
    (score / (1.0 - score).max(f32::MIN_POSITIVE)).min(ODDS_MAX)
}

fn follow(means: &mut [f32; 2], off: [f32; 2], pace: f32) {
    for (mean, off) in means.iter_mut().zip(off) {
        *mean += pace * (off - *mean);
    }
}

/// Copies values into a pattern; answers how many there were.
fn fill<'a>(pattern: &mut [f32], values: impl Iterator<Item = &'a f32>) -> usize {
    let mut held = 0;
    for (to, value) in pattern.iter_mut().zip(values) {
        *to = *value;
        held += 1;
    }
    held
}

/// Root mean square difference to the nearest pattern of a series. The search begins after
/// `from`, where the nearest pattern was last time: most likely the course goes on there, and
/// all others are given up soon.
fn nearest(series: &[f32], pattern: &[f32; PATTERN], from: &mut usize) -> f32 {
    let mut least = f32::MAX;
    let start = from.saturating_add(1);
    let windows = || series.windows(PATTERN).enumerate();
    for (at, window) in windows().skip(start).chain(windows().take(start)) {
        let mut sum = 0.0;
        for (ours, theirs) in pattern.chunks_exact(8).zip(window.chunks_exact(8)) {
            for (a, b) in ours.iter().zip(theirs) {
                sum += (a - b) * (a - b);
            }
            if sum >= least {
                break;
            }
        }
        if sum < least {
            least = sum;
            *from = at;
        }
        if least <= 0.0 {
            return 0.0;
        }
    }
    libm::sqrtf(least / PATTERN as f32)
}

/// Calls `with` for each value of the series, of which each half is judged by the other.
fn for_each_held_out(series: &[f32], mut with: impl FnMut([f32; 2])) {
    let (first, second) = series.split_at(series.len() / 2);
    for (known, judged) in [(second, first), (first, second)] {
        let forecast = Forecast::fit(known);
        let mut from = 0;
        let mut far = 0.0;
        for (at, value) in judged.iter().enumerate() {
            let past = judged.get(..at).unwrap_or(&[]);
            let next = forecast.off(
                past.get(at.saturating_sub(PATTERN)..).unwrap_or(&[]).iter(),
                *value,
            );
            let pattern = judged.get((at + 1).saturating_sub(PATTERN)..=at);
            if let Some(pattern) = pattern.and_then(|all| <&[f32; PATTERN]>::try_from(all).ok()) {
                far = nearest(known, pattern, &mut from);
            }
            with([far, next]);
        }
    }
}

/// An autoregression.
#[derive(Debug, Clone)]
struct Forecast {
    level: f32,
    /// Of the newest value first.
    weights: [f32; ORDER],
}

impl Forecast {
    /// Least squares with a ridge.
    fn fit(series: &[f32]) -> Self {
        let n = (series.len() as f32).max(1.0);
        let level = series.iter().map(|value| value / n).sum::<f32>();
        let off = |value: &f32| value - level;
        let variance = series.iter().map(|v| off(v) * off(v) / n).sum::<f32>();
        let mut weights = [0.0; ORDER];
        if !(variance > f32::MIN_POSITIVE && variance < f32::MAX) {
            return Self { level, weights };
        }
        let mut products = [[0.0; ORDER]; ORDER];
        let mut targets = [0.0; ORDER];
        for window in series.windows(ORDER + 1) {
            let Some((target, past)) = window.split_last() else {
                continue;
            };
            let past = || past.iter().rev().map(off);
            for ((row, sum), a) in products.iter_mut().zip(&mut targets).zip(past()) {
                *sum += a / variance * off(target) / n;
                for (product, b) in row.iter_mut().zip(past()) {
                    *product += a / variance * b / n;
                }
            }
        }
        for (at, row) in products.iter_mut().enumerate() {
            if let Some(diagonal) = row.get_mut(at) {
                *diagonal += RIDGE;
            }
        }
        for (weight, row) in weights.iter_mut().zip(invert(products)) {
            *weight = row.iter().zip(&targets).map(|(a, b)| a * b).sum();
        }
        Self { level, weights }
    }

    /// How far a value is from what the past, oldest first, leads to expect; 0 for too short a
    /// past.
    fn off<'a>(&self, past: impl DoubleEndedIterator<Item = &'a f32>, value: f32) -> f32 {
        let (mut expected, mut seen) = (self.level, 0);
        for (weight, value) in self.weights.iter().zip(past.rev()) {
            expected += weight * (value - self.level);
            seen += 1;
        }
        if seen < ORDER {
            return 0.0;
        }
        (value - expected).abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec as StdVec;

    fn noisy(n: u16, seed: u64, value: impl Fn(f32) -> f32) -> StdVec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..n)
            .map(|at| value(f32::from(at)) + 0.05 * (rng.f32() - 0.5))
            .collect()
    }

    fn wave(at: f32) -> f32 {
        libm::sinf(at / 7.0)
    }

    #[test]
    fn a_lost_period_alarms_though_each_value_is_usual() {
        let mut shape: Shape<1000> = Shape::learn(&noisy(1000, 1, wave), 0.02).unwrap();
        for value in noisy(800, 2, wave) {
            assert!(!shape.observe(value).alert);
        }
        let twice = noisy(60, 3, |at| wave(2.0 * at));
        let verdicts: StdVec<_> = twice.iter().map(|value| shape.observe(*value)).collect();
        assert!(verdicts.iter().any(|verdict| verdict.alert), "{verdicts:?}");
        assert!(verdicts.iter().all(|verdict| verdict.score <= 1.0));
    }

    #[test]
    fn any_change_of_a_constant_counts_but_not_below_the_least() {
        let learn = || Shape::<256>::learn(&[5.0; 256], 0.02).unwrap();
        let after = |value: f32| {
            let mut shape = learn();
            (0..60).any(|_| shape.observe(value).alert)
        };
        assert!(!after(5.0) && !after(5.01));
        assert!(after(5.2) && after(-1e12));
    }

    #[test]
    fn a_drift_for_good_becomes_usual_but_its_score_stays() {
        let mut shape: Shape<512> = Shape::learn(&noisy(512, 1, |_| 0.0), 0.02).unwrap();
        let later: StdVec<_> = (noisy(6000, 2, |_| 0.3).iter())
            .map(|value| shape.observe(*value))
            .collect();
        assert!(later[100].alert);
        let last = later[later.len() - 1];
        assert!(!last.alert && last.score > 0.4, "{last:?}");
    }

    #[test]
    fn missing_values_make_it_unsure() {
        let mut shape: Shape<512> = Shape::learn(&noisy(512, 1, wave), 0.02).unwrap();
        noisy(100, 2, wave).iter().for_each(|value| {
            shape.observe(*value);
        });
        let first = shape.observe(f32::NAN);
        let last = (0..60)
            .map(|_| shape.observe(f32::INFINITY))
            .last()
            .unwrap();
        assert!(first.uncertainty < 0.1 && last.uncertainty > 0.9);
        assert!(Shape::<512>::learn(&[1.0; LEARN_MIN - 1], 0.02).is_none());
        assert!(Shape::<512>::learn(&[f32::NAN; 300], 0.02).is_none());
        assert!(Shape::<100>::learn(&[1.0; 300], 0.02).is_none());
    }

    #[test]
    fn the_nearest_pattern_is_found_wherever_the_search_begins() {
        let series = noisy(300, 4, wave);
        let pattern: [f32; PATTERN] = noisy(32, 5, wave).try_into().unwrap();
        let brute = series.windows(PATTERN).map(|window| {
            let squares = window.iter().zip(&pattern).map(|(a, b)| (a - b) * (a - b));
            libm::sqrtf(squares.sum::<f32>() / PATTERN as f32)
        });
        let brute = brute.fold(f32::MAX, f32::min);
        for begin in [0, 5, 150, 268, 269, 1000, usize::MAX] {
            let mut from = begin;
            assert!((nearest(&series, &pattern, &mut from) - brute).abs() < 1e-5);
        }
    }

    #[test]
    fn state_is_as_documented() {
        assert!(size_of::<Shape<1000>>() <= 4 * 1000 + 320);
    }

    proptest! {
        #[test]
        fn any_values_give_a_score_in_range(
            usual in prop::collection::vec(any::<f32>(), 128..200),
            values in prop::collection::vec(any::<f32>(), 0..200),
            least in any::<f32>(),
        ) {
            if let Some(mut shape) = Shape::<160>::learn(&usual, least) {
                for value in values {
                    let verdict = shape.observe(value);
                    prop_assert!((0.0..=1.0).contains(&verdict.score), "{:?}", verdict);
                    prop_assert!((0.0..=1.0).contains(&verdict.uncertainty));
                    prop_assert!((0.0..=1.0).contains(&verdict.pattern));
                }
            }
        }
    }
}
