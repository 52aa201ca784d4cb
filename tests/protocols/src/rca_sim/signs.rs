//! What has moved: for each series and each template how far it is from its usual, as a
//! strength in `0..=1`.
//!
//! The usual is learned per series; spreads of a few looks are no good alone, so no series is
//! taken to be steadier than the middle one of its gauge. Lines count by how many more there
//! are than the fleet usually writes.

use std::collections::BTreeMap;

use super::parts::Parts;
use super::watch::{Gauge, Telemetry, median};

/// Deviations below this many spreads are no sign; at so many more the strength is a half.
const DEAD_ZONE: f64 = 3.0;
const HALF: f64 = 8.0;
/// Least spread as a share of the level: noise of measuring.
const SPREAD_OF_LEVEL: f64 = 0.03;
/// Least spread of shares and switches; 1 is then 16 of them.
const SPREAD_OF_SHARE: f64 = 0.06;
/// Least spread of what is counted: requests that wait, lines.
const SPREAD_OF_COUNT: f64 = 2.0;
/// Least spread of anything else, in its unit: seconds of a clock, milliseconds.
const SPREAD_MIN: f64 = 0.2;
/// Further than this is no further.
const FAR_MAX: f64 = 1e6;
/// Looks at the end over which the present is taken.
const PRESENT: usize = 3;
/// Looks at the end whose lines count: 40 s.
const LINES: usize = 8;
/// So many lines more than usual are half a sign.
const HALF_LINES: f64 = 2.0;
/// A series has changed for good after so many looks beyond the dead zone.
const STANDS: usize = 2;

/// A series that has moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sign {
    pub gauge: Gauge,
    pub up: bool,
    /// In `0..=1`.
    pub strength: f64,
    /// The look at which it first stood beyond the dead zone.
    pub since: usize,
}

/// Lines of a template beyond the usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Said {
    /// Place in [`Telemetry::templates`].
    pub template: usize,
    pub strength: f64,
}

/// All that has moved, by part.
#[derive(Debug, Clone, Default)]
pub struct Signs {
    pub signs: Vec<Vec<Sign>>,
    pub said: Vec<Vec<Said>>,
}

impl Signs {
    #[must_use]
    pub fn of(told: &Telemetry, parts: &Parts) -> Self {
        let mut all = Self {
            signs: vec![Vec::new(); parts.len()],
            said: vec![Vec::new(); parts.len()],
        };
        let usual: Vec<Option<(f64, f64)>> = told
            .series
            .iter()
            .map(|series| level(&series.values[..told.usual.min(series.values.len())]))
            .collect();
        let mut spreads: BTreeMap<Gauge, Vec<f64>> = BTreeMap::new();
        for (series, usual) in told.series.iter().zip(&usual) {
            if let Some((_, spread)) = usual {
                spreads.entry(series.gauge).or_default().push(*spread);
            }
        }
        let middle: BTreeMap<Gauge, f64> = spreads
            .into_iter()
            .filter_map(|(gauge, spreads)| Some((gauge, median(&spreads)?)))
            .collect();
        for (series, usual) in told.series.iter().zip(&usual) {
            let Some((level, spread)) = *usual else {
                continue;
            };
            let least = middle.get(&series.gauge).copied().unwrap_or(0.0);
            let small = match series.gauge {
                gauge if is_share(gauge) => SPREAD_OF_SHARE,
                Gauge::Queue | Gauge::Complaints => SPREAD_OF_COUNT,
                _ => SPREAD_MIN,
            };
            let spread = spread
                .max(least)
                .max(SPREAD_OF_LEVEL * level.abs())
                .max(small);
            let far = |value: f64| ((value - level) / spread).clamp(-FAR_MAX, FAR_MAX);
            if let Some(sign) = sign(series.gauge, &series.values, told.usual, far) {
                all.signs[series.part].push(sign);
            }
        }
        all.lines(told, parts);
        all
    }

    fn lines(&mut self, told: &Telemetry, parts: &Parts) {
        let looks = told.times.len();
        let from = looks.saturating_sub(LINES).max(told.usual);
        let mut before = vec![0.0; told.templates.len()];
        let mut now: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        for line in &told.lines {
            if line.look < told.usual {
                before[line.template] += f64::from(line.count);
            } else if line.look >= from {
                *now.entry((line.part, line.template)).or_default() += f64::from(line.count);
            }
        }
        let writers = (0..parts.len())
            .filter(|part| parts.kind(*part) == super::parts::Kind::Replica)
            .count();
        let span = (looks - from) as f64 / told.usual.max(1) as f64;
        for ((part, template), count) in now {
            // Half a line more than were seen: none seen is no proof of none.
            let usual = (before[template] + 0.5) * span / writers.max(1) as f64;
            let more = count - usual - 2.0 * usual.sqrt();
            if more > 0.0 {
                let strength = more / (more + HALF_LINES);
                self.said[part].push(Said { template, strength });
            }
        }
    }

    /// The strongest sign of a part.
    #[must_use]
    pub fn strongest(&self, part: usize) -> f64 {
        let signs = self.signs[part].iter().map(|sign| sign.strength);
        let said = self.said[part].iter().map(|said| said.strength);
        signs.chain(said).fold(0.0, f64::max)
    }

    /// When a part first moved, by its series.
    #[must_use]
    pub fn since(&self, part: usize) -> Option<usize> {
        self.signs[part].iter().map(|sign| sign.since).min()
    }
}

fn is_share(gauge: Gauge) -> bool {
    use homeostat_common::observation::Metric as M;
    matches!(
        gauge,
        Gauge::Metric(
            M::CpuBusy | M::CpuPressure | M::IoPressure | M::MemoryPressure | M::Availability
        ) | Gauge::Confidence
            | Gauge::Strangeness
            | Gauge::Disagreement
            | Gauge::Shed
            | Gauge::Errors
            | Gauge::Hit
            | Gauge::Loss
            | Gauge::Down
            | Gauge::Silent
            | Gauge::Frozen
            | Gauge::Gone
    )
}

/// Median and robust spread.
fn level(values: &[f64]) -> Option<(f64, f64)> {
    let middle = median(values)?;
    let off: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    Some((middle, 1.4826 * median(&off)?))
}

fn sign(gauge: Gauge, values: &[f64], usual: usize, far: impl Fn(f64) -> f64) -> Option<Sign> {
    let now = median(&values[values.len().saturating_sub(PRESENT)..]);
    let far_now = now.map(&far)?;
    if far_now.abs() <= DEAD_ZONE {
        return None;
    }
    let up = far_now > 0.0;
    let beyond = |value: &f64| {
        let far = far(*value);
        far.abs() > DEAD_ZONE && (far > 0.0) == up
    };
    let (mut since, mut stood) = (values.len() - 1, 0);
    for (at, value) in values.iter().enumerate().skip(usual) {
        if value.is_nan() {
            continue;
        }
        stood = if beyond(value) { stood + 1 } else { 0 };
        if stood == STANDS {
            since = at + 1 - STANDS;
            break;
        }
    }
    let more = far_now.abs() - DEAD_ZONE;
    Some(Sign {
        gauge,
        up,
        strength: more / (more + HALF),
        since,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn strength(values: &[f64]) -> Option<Sign> {
        let (level, spread) = level(&values[..10]).unwrap();
        let spread = spread.max(0.1);
        let far = |value: f64| ((value - level) / spread).clamp(-FAR_MAX, FAR_MAX);
        sign(Gauge::Queue, values, 10, far)
    }

    #[test]
    fn a_step_is_a_sign_from_where_it_began_and_noise_is_none() {
        let mut values: Vec<f64> = (0..30).map(|at| 5.0 + 0.1 * f64::from(at % 3)).collect();
        assert_eq!(strength(&values), None);
        values[20..].iter_mut().for_each(|value| *value -= 3.0);
        values[24] = f64::NAN;
        let found = strength(&values).unwrap();
        assert!(!found.up && found.since == 20 && found.strength > 0.5);
        values[29] = f64::INFINITY;
        let found = strength(&values).unwrap();
        assert!(found.strength.is_finite() && found.strength <= 1.0);
        assert_eq!(level(&[f64::NAN]), None);
    }
}
