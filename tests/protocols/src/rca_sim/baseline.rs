//! What anybody would try first, each as a score by part: more is more suspect.

use super::parts::Parts;
use super::watch::{Alarm, Telemetry, median};

/// From this many spreads on a series counts as moved, for those who need a yes or no.
const MOVED: f64 = 6.0;
/// Looks at the end over which the present is taken.
const PRESENT: usize = 3;
/// Least spread of a series, as a share of its level and by itself: shares of probes are
/// rounded to 0.025, and counts stand still for minutes.
const SPREAD_OF_LEVEL: f64 = 0.03;
const SPREAD_MIN: f64 = 0.01;
/// Pairs that a correlation needs.
const PAIRS_MIN: usize = 8;

/// What ranks without being taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    Random,
    RobustZ,
    Traversal,
    RecentChange,
    Correlation,
}

impl Baseline {
    pub const ALL: [Self; 5] = [
        Self::Random,
        Self::RobustZ,
        Self::Traversal,
        Self::RecentChange,
        Self::Correlation,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RobustZ => "robust z",
            Self::Traversal => "traversal",
            Self::RecentChange => "most recent change",
            Self::Correlation => "correlation",
        }
    }

    /// A score for each part.
    #[must_use]
    pub fn scores(self, told: &Telemetry, alarm: Alarm, parts: &Parts, seed: u64) -> Vec<f64> {
        match self {
            Self::Random => {
                let mut rng = fastrand::Rng::with_seed(seed);
                (0..parts.len()).map(|_| rng.f64()).collect()
            }
            Self::RobustZ => distances(told, parts),
            Self::Traversal => traversal(told, alarm, parts),
            Self::RecentChange => recent(told, parts),
            Self::Correlation => correlation(told, alarm, parts),
        }
    }
}

/// How far the present of a series is from its usual, in spreads.
#[must_use]
pub fn distance(values: &[f64], usual: usize) -> f64 {
    let before = &values[..usual.min(values.len())];
    let now = &values[values.len().saturating_sub(PRESENT)..];
    let (Some(level), Some(now)) = (median(before), median(now)) else {
        return 0.0;
    };
    let off: Vec<f64> = before.iter().map(|value| (value - level).abs()).collect();
    let spread = 1.4826 * median(&off).unwrap_or(0.0);
    (now - level).abs() / spread.max(SPREAD_OF_LEVEL * level.abs()).max(SPREAD_MIN)
}

fn distances(told: &Telemetry, parts: &Parts) -> Vec<f64> {
    let mut scores = vec![0.0_f64; parts.len()];
    for series in &told.series {
        let score = &mut scores[series.part];
        *score = score.max(distance(&series.values, told.usual));
    }
    scores
}

/// From what alarmed along what it depends on, as long as that has moved too; where no
/// further one has, there it ends.
fn traversal(told: &Telemetry, alarm: Alarm, parts: &Parts) -> Vec<f64> {
    let far = distances(told, parts);
    let mut seen = vec![false; parts.len()];
    let mut stack = vec![alarm.part];
    let mut scores: Vec<f64> = far.iter().map(|far| far.min(1e6) * 1e-9).collect();
    while let Some(part) = stack.pop() {
        if std::mem::replace(&mut seen[part], true) {
            continue;
        }
        let moved = parts.needs(part).iter().filter(|need| far[**need] > MOVED);
        let before = stack.len();
        stack.extend(moved);
        let ends = stack.len() == before;
        scores[part] = far[part].min(1e6) + if ends { 1e7 } else { 0.0 };
    }
    scores
}

/// The part whose strongest change is the latest.
fn recent(told: &Telemetry, parts: &Parts) -> Vec<f64> {
    let mut best = vec![(0.0_f64, 0.0_f64); parts.len()];
    for series in &told.series {
        let (strength, at) = change(&series.values);
        if strength > best[series.part].0 {
            best[series.part] = (strength, at as f64);
        }
    }
    let score = |(strength, at): (f64, f64)| {
        let moved = if strength > MOVED { 1e6 * at } else { 0.0 };
        moved + strength.min(1e5)
    };
    best.into_iter().map(score).collect()
}

/// The split of a series whose two means are furthest apart, in spreads within, and how far.
fn change(values: &[f64]) -> (f64, usize) {
    let (mut best, mut place) = (0.0, 0);
    let sums = |part: &[f64]| {
        let finite = part.iter().filter(|value| value.is_finite());
        let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for value in finite {
            (n, sum, squares) = (n + 1.0, sum + value, squares + value * value);
        }
        (n, sum, squares)
    };
    for at in 3..values.len().saturating_sub(1) {
        let ((n, a, aa), (m, b, bb)) = (sums(&values[..at]), sums(&values[at..]));
        if n < 3.0 || m < 2.0 {
            continue;
        }
        let (left, right) = (a / n, b / m);
        let within = (aa - n * left * left + bb - m * right * right).max(0.0) / (n + m - 2.0);
        let least = (SPREAD_OF_LEVEL * left.abs()).max(SPREAD_MIN);
        let strength = (left - right).abs() / within.sqrt().max(least) * (n * m / (n + m)).sqrt();
        if strength > best {
            (best, place) = (strength, at);
        }
    }
    (best, place)
}

/// The largest correlation of any series of a part with that which alarmed.
fn correlation(told: &Telemetry, alarm: Alarm, parts: &Parts) -> Vec<f64> {
    let mut scores = vec![0.0_f64; parts.len()];
    let target = &told.series[alarm.series].values;
    for (at, series) in told.series.iter().enumerate() {
        if at != alarm.series {
            let score = &mut scores[series.part];
            *score = score.max(pearson(&series.values, target).abs());
        }
    }
    scores
}

/// The correlation of what both have; 0 of too few, or of what does not move.
#[must_use]
pub fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let pairs = || {
        let both = a.iter().zip(b);
        both.filter(|(a, b)| a.is_finite() && b.is_finite())
    };
    let n = pairs().count();
    if n < PAIRS_MIN {
        return 0.0;
    }
    let (sa, sb) = pairs().fold((0.0, 0.0), |(sa, sb), (a, b)| (sa + a, sb + b));
    let (ma, mb) = (sa / n as f64, sb / n as f64);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in pairs() {
        ab += (a - ma) * (b - mb);
        aa += (a - ma) * (a - ma);
        bb += (b - mb) * (b - mb);
    }
    if aa > 0.0 && bb > 0.0 {
        (ab / (aa * bb).sqrt()).clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_found_where_it_is_and_noise_is_none() {
        let mut values: Vec<f64> = (0..40).map(|at| 10.0 + f64::from(at % 3)).collect();
        assert!(change(&values).0 < 3.0);
        values[30..].iter_mut().for_each(|value| *value += 30.0);
        let (strength, at) = change(&values);
        assert!(strength > 20.0 && at == 30, "{strength} {at}");
        assert!(distance(&values, 20) > 20.0 && distance(&values[..25], 20) < 2.0);
        values[5] = f64::NAN;
        assert!(change(&values).0.is_finite());
        assert_eq!(change(&[]).1, 0);
        assert!(distance(&[], 0).abs() < 1e-12);
    }

    #[test]
    fn correlation_takes_pairs_only() {
        let a: Vec<f64> = (0..20).map(f64::from).collect();
        let mut b: Vec<f64> = a.iter().map(|a| -2.0 * a).collect();
        assert!((pearson(&a, &b) + 1.0).abs() < 1e-12);
        b[3] = f64::NAN;
        assert!((pearson(&a, &b) + 1.0).abs() < 1e-12);
        assert!(pearson(&a, &[1.0; 20]).abs() < 1e-12);
        assert!(pearson(&a[..4], &b[..4]).abs() < 1e-12);
    }
}
