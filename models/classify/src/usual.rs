//! What healthy runs look like, and how far another run is from that.
//!
//! In: the event counts of healthy runs. Out, for any run: features for the forest, all
//! relative to the median healthy run, so that a forest that was grown on one workload can be
//! read beside another one's healthy runs; and three distances. The *nearest neighbour* finds
//! what is unlike each single healthy run. The *residual* of a principal component analysis
//! (Jackson and Mudholkar, Technometrics 21, 1979) finds counts that do not go together as
//! they do in health; it is summed over its absolute values, not squares, because a failure
//! often moves many events by little. The *tails* find counts that few healthy runs had.
//!
//! It knows no failure. What it cannot see: a failure whose counts are those of a healthy
//! run, and one that moves counts no further than chance does.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::eigen::eigen;

/// Added to the spread of each event's logarithm: an event that is always the same has none,
/// and one more of it is then about two of these away (ln 2 / 0.3).
pub(crate) const SPREAD_MIN: f32 = 0.3;

/// The directions that are kept hold so much of the variance of healthy runs.
pub(crate) const KEPT: f64 = 0.95;

/// The so many events that are least usual by themselves make up the third distance: one
/// alone is chance among a hundred events, and a failure seldom moves fewer.
pub(crate) const TAILS: usize = 5;

/// Added to the share of healthy runs that had so many of an event: fewer than one in so
/// many is told apart from none by no recording.
pub(crate) const TAIL_MIN: f32 = 1e-3;

/// Directions are sought among so many events, those that vary most: the work grows with the
/// third power, and is half a second for these.
pub(crate) const VARIES_MAX: usize = 256;

/// Features of each event, before those of groups and of the whole.
pub(crate) const PER_EVENT: usize = 3;

/// Features of the whole run.
pub(crate) const WHOLE: [&str; 8] = [
    "errors",
    "kinds of errors",
    "events more or fewer than usual",
    "events fewer than usual",
    "events more than usual",
    "kinds of events that are gone",
    "kinds of events that are new",
    "events",
];

/// Features of each group of events.
pub(crate) const PER_GROUP: [&str; 3] = ["events", "errors", "events fewer than usual"];

/// Whether an event says by its name that it is an error: a name with `ERROR`, or one that
/// ends in an HTTP status from 400.
#[must_use]
pub fn is_error(event: &str) -> bool {
    let status = event
        .get(event.len().wrapping_sub(3)..)
        .filter(|end| end.bytes().all(|byte| byte.is_ascii_digit()));
    event.contains("ERROR") || status.is_some_and(|status| status >= "400")
}

/// The service of an event: its name up to the first `_`.
#[must_use]
pub fn service(event: &str) -> &str {
    event.split('_').next().unwrap_or(event)
}

/// How events belong together: which are errors, and of which service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Groups {
    error: Vec<bool>,
    group: Vec<usize>,
    names: Vec<String>,
}

impl Groups {
    /// Of events that are sorted by name.
    pub(crate) fn new(events: &[String]) -> Self {
        let mut names: Vec<String> = events.iter().map(|event| service(event).into()).collect();
        names.sort_unstable();
        names.dedup();
        let group = |event: &String| names.iter().position(|name| name == service(event));
        Self {
            error: events.iter().map(|event| is_error(event)).collect(),
            group: events
                .iter()
                .map(|event| group(event).unwrap_or(0))
                .collect(),
            names,
        }
    }

    /// Features of one run.
    pub(crate) fn features(&self) -> usize {
        self.error.len() * PER_EVENT + WHOLE.len() + self.names.len() * PER_GROUP.len()
    }

    /// The event that a feature is of; `None` for one of many events.
    pub(crate) fn event(feature: usize, events: usize) -> Option<usize> {
        Some(feature / PER_EVENT).filter(|event| *event < events)
    }

    /// A feature of many events in words.
    pub(crate) fn words(&self, feature: usize) -> String {
        let at = feature.saturating_sub(self.error.len() * PER_EVENT);
        let Some(at) = at.checked_sub(WHOLE.len()) else {
            return format!("all {}", WHOLE[at]);
        };
        let group = self.names.get(at / PER_GROUP.len()).map_or("", |name| name);
        format!("{group}: {}", PER_GROUP[at % PER_GROUP.len()])
    }

    /// Totals of a run beside the median run: of all events, then of each group.
    fn totals(&self, run: &[f32], median: &[f32], into: &mut Vec<f32>) {
        let mut whole = [0.0_f32; WHOLE.len()];
        let mut groups = vec![[0.0_f32; PER_GROUP.len()]; self.names.len()];
        for (event, (count, usual)) in run.iter().zip(median).enumerate() {
            let group = &mut groups[self.group[event]];
            let (more, fewer) = ((count - usual).max(0.0), (usual - count).max(0.0));
            if self.error[event] {
                whole[0] += count;
                whole[1] += f32::from(*count > 0.0);
                group[1] += count;
            }
            whole[2] += more + fewer;
            whole[3] += fewer;
            whole[4] += more;
            whole[5] += f32::from(*count == 0.0 && *usual > 0.0);
            whole[6] += f32::from(*count > 0.0 && *usual == 0.0);
            whole[7] += count;
            group[0] += count;
            group[2] += fewer;
        }
        into.extend(
            whole
                .iter()
                .chain(groups.iter().flatten())
                .map(|sum| sum.ln_1p()),
        );
    }
}

/// Healthy runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usual {
    /// Median count of each event.
    median: Vec<f32>,
    /// Mean and spread of the logarithm of each count.
    mean: Vec<f32>,
    spread: Vec<f32>,
    /// The kept directions, one after the other.
    directions: Vec<f32>,
    /// The healthy runs that differ, scaled.
    runs: Vec<Vec<f32>>,
    /// For each event, the counts that healthy runs had, rising, each with the number of
    /// runs that had no more.
    seen: Vec<Vec<(f32, u32)>>,
}

/// How far a run is from healthy ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Distance {
    pub(crate) neighbour: f32,
    pub(crate) residual: f32,
    pub(crate) tails: f32,
}

impl Usual {
    /// Of healthy runs over `events` events; of none, all counts are usually 0.
    pub(crate) fn new(healthy: &[&[f32]], events: usize) -> Self {
        let count = healthy.len().max(1) as f32;
        let column = |event: usize| healthy.iter().map(move |run| run[event]);
        let median = (0..events)
            .map(|event| {
                let mut all: Vec<f32> = column(event).collect();
                all.sort_unstable_by(f32::total_cmp);
                // The lower of two: a count that was seen.
                all.get(all.len().saturating_sub(1) / 2)
                    .copied()
                    .unwrap_or(0.0)
            })
            .collect();
        let mean: Vec<f32> = (0..events)
            .map(|event| column(event).map(f32::ln_1p).sum::<f32>() / count)
            .collect();
        let spread = (0..events)
            .map(|event| {
                let off = column(event).map(|count| (count.ln_1p() - mean[event]).powi(2));
                (off.sum::<f32>() / count).sqrt() + SPREAD_MIN
            })
            .collect();
        let mut usual = Self {
            median,
            mean,
            spread,
            directions: Vec::new(),
            runs: Vec::new(),
            seen: (0..events)
                .map(|event| seen(column(event).collect()))
                .collect(),
        };
        usual.runs = healthy.iter().map(|run| usual.scaled(run)).collect();
        usual.directions = directions(&usual.runs, events);
        usual.runs.sort_by(|one, other| order(one, other));
        usual.runs.dedup();
        usual
    }

    /// What the forest sees of a run.
    pub(crate) fn features(&self, run: &[f32], groups: &Groups) -> Vec<f32> {
        let mut features = Vec::with_capacity(groups.features());
        for (count, usual) in run.iter().zip(&self.median) {
            features.push(count.ln_1p() - usual.ln_1p());
            features.push(f32::from(*count > 0.0) - f32::from(*usual > 0.0));
            features.push(count - usual);
        }
        let start = features.len();
        groups.totals(run, &self.median, &mut features);
        let mut median = Vec::new();
        groups.totals(&self.median, &self.median, &mut median);
        for (feature, usual) in features[start..].iter_mut().zip(median) {
            *feature -= usual;
        }
        features
    }

    /// The logarithm of each count, in spreads from its healthy mean.
    pub(crate) fn scaled(&self, run: &[f32]) -> Vec<f32> {
        let usual = self.mean.iter().zip(&self.spread);
        run.iter()
            .zip(usual)
            .map(|(count, (mean, spread))| (count.ln_1p() - mean) / spread)
            .collect()
    }

    /// Median count of an event.
    pub(crate) fn median(&self, event: usize) -> f32 {
        self.median.get(event).copied().unwrap_or(0.0)
    }

    /// How far a run is from healthy ones; `unknown` are the counts of events that no
    /// healthy run had.
    pub(crate) fn distance(&self, run: &[f32], unknown: &[f32]) -> Distance {
        let scaled = self.scaled(run);
        let more: f32 = unknown.iter().map(|count| Self::unknown(*count)).sum();
        let mut rest = scaled.clone();
        for direction in self.directions.chunks(run.len().max(1)) {
            let along = product(&scaled, direction);
            for (rest, part) in rest.iter_mut().zip(direction) {
                *rest -= along * part;
            }
        }
        let known = self
            .seen
            .iter()
            .zip(run)
            .map(|(seen, count)| tail(seen, *count));
        let mut tails: Vec<f32> = known
            .chain(unknown.iter().map(|count| tail(&[], *count)))
            .collect();
        tails.sort_unstable_by(|one, other| other.total_cmp(one));
        Distance {
            neighbour: nearest(&self.runs, &scaled) + more,
            residual: rest.iter().map(|rest| rest.abs()).sum::<f32>() + more,
            tails: tails.iter().take(TAILS).sum(),
        }
    }

    /// How far one more of an event that no run had is.
    pub(crate) fn unknown(count: f32) -> f32 {
        count.ln_1p() / SPREAD_MIN
    }

    /// For each event, how far a scaled run is from the healthy run nearest to it.
    pub(crate) fn apart(&self, scaled: &[f32]) -> Vec<f32> {
        let near = self
            .runs
            .iter()
            .min_by(|one, other| apart(one, scaled).total_cmp(&apart(other, scaled)));
        match near {
            Some(run) => scaled.iter().zip(run).map(|(a, b)| a - b).collect(),
            None => scaled.to_vec(),
        }
    }

    /// Whether it may be used with so many events.
    pub(crate) fn sound(&self, events: usize) -> bool {
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        self.median.len() == events
            && self.mean.len() == events
            && self.spread.len() == events
            && self.seen.len() == events
            && self.seen.iter().all(|seen| {
                seen.is_sorted_by(|(one, few), (other, many)| one < other && few < many)
            })
            && self.directions.len().is_multiple_of(events.max(1))
            && self
                .runs
                .iter()
                .all(|run| run.len() == events && finite(run))
            && [&self.median, &self.mean, &self.directions]
                .iter()
                .all(|all| finite(all))
            && self
                .spread
                .iter()
                .all(|spread| *spread >= SPREAD_MIN && spread.is_finite())
    }
}

/// Different counts, rising, each with the number of runs that had no more.
#[allow(clippy::cast_possible_truncation)] // runs are bounded
fn seen(mut counts: Vec<f32>) -> Vec<(f32, u32)> {
    counts.sort_unstable_by(f32::total_cmp);
    let mut seen: Vec<(f32, u32)> = Vec::new();
    for (at, count) in counts.into_iter().enumerate() {
        let runs = at as u32 + 1;
        match seen.last_mut() {
            Some((last, no_more)) if *last == count => *no_more = runs,
            _ => seen.push((count, runs)),
        }
    }
    seen
}

/// How few healthy runs had so many of an event, or so few, as a negative logarithm. It is
/// of their share, so that it means the same of many runs as of those that are left when
/// some are held back.
fn tail(seen: &[(f32, u32)], count: f32) -> f32 {
    let all = seen.last().map_or(0, |(_, runs)| *runs) as f32;
    let up_to = |below: usize| below.checked_sub(1).map_or(0, |at| seen[at].1) as f32;
    let no_more = up_to(seen.partition_point(|(value, _)| *value <= count));
    let fewer = up_to(seen.partition_point(|(value, _)| *value < count));
    let rarer = no_more.min(all - fewer);
    -(rarer / all.max(1.0) + TAIL_MIN).ln()
}

/// An order of runs, to find equal ones.
pub(crate) fn order(one: &[f32], other: &[f32]) -> Ordering {
    let differ = one.iter().zip(other).map(|(a, b)| a.total_cmp(b));
    differ.fold(Ordering::Equal, Ordering::then)
}

/// The distance of a scaled run to the nearest of others; without any, to the origin.
pub(crate) fn nearest<'a>(runs: impl IntoIterator<Item = &'a Vec<f32>>, scaled: &[f32]) -> f32 {
    let near = runs
        .into_iter()
        .map(|run| apart(run, scaled))
        .min_by(f32::total_cmp);
    near.unwrap_or_else(|| scaled.iter().map(|value| value.abs()).sum())
}

fn apart(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).sum()
}

fn product(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

/// The directions in which scaled runs differ most, up to [`KEPT`] of their variance.
#[allow(clippy::cast_possible_truncation)] // a direction has length 1
fn directions(runs: &[Vec<f32>], events: usize) -> Vec<f32> {
    // Most events never vary in health. They are in no direction, so all of what they do
    // is residual.
    let square = |event: usize| runs.iter().map(|run| run[event] * run[event]).sum::<f32>();
    let mut varies: Vec<usize> = (0..events).filter(|event| square(*event) > 0.0).collect();
    varies.sort_by(|one, other| square(*other).total_cmp(&square(*one)));
    varies.truncate(VARIES_MAX);
    let size = varies.len();
    let mut covariance = vec![0.0_f64; size * size];
    for run in runs {
        for (i, &one) in varies.iter().enumerate() {
            for (j, &other) in varies.iter().enumerate() {
                covariance[i * size + j] += f64::from(run[one]) * f64::from(run[other]);
            }
        }
    }
    let found = eigen(covariance, size);
    let total: f64 = found.iter().map(|(value, _)| value.max(0.0)).sum();
    let mut kept = Vec::new();
    let mut sum = 0.0;
    for (value, vector) in found {
        // What is left is rounding.
        if sum >= KEPT * total || value <= 0.0 {
            break;
        }
        sum += value;
        let mut direction = vec![0.0; events];
        for (part, event) in vector.iter().zip(&varies) {
            direction[*event] = *part as f32;
        }
        kept.extend(direction);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_services_are_told_by_name() {
        assert!(is_error("cinderclient_GET_500") && is_error("compute_attach_interface_ERROR"));
        assert!(!is_error("cinderclient_GET_202") && !is_error("500_x") && !is_error("é"));
        assert_eq!(service("cinderclient_GET_500"), "cinderclient");
        assert_eq!(service("plain"), "plain");
    }

    #[test]
    fn features_are_named_and_nothing_at_the_median_run() {
        let events: Vec<String> = ["a_x", "a_x_ERROR", "b_y"].map(String::from).to_vec();
        let groups = Groups::new(&events);
        let run = [2.0, 0.0, 5.0];
        let usual = Usual::new(&[&run, &run, &[2.0, 0.0, 6.0]], 3);
        let features = usual.features(&run, &groups);
        assert_eq!(features, vec![0.0; groups.features()]);
        assert_eq!(features.len(), 3 * 3 + 8 + 2 * 3);
        let failed = usual.features(&[2.0, 3.0, 0.0], &groups);
        let moved: Vec<String> = failed
            .iter()
            .enumerate()
            .filter(|(_, value)| **value != 0.0)
            .map(|(at, _)| match Groups::event(at, 3) {
                Some(event) => events[event].clone(),
                None => groups.words(at),
            })
            .collect();
        let said = [
            "a_x_ERROR",
            "a_x_ERROR",
            "a_x_ERROR",
            "b_y",
            "b_y",
            "b_y",
            "all errors",
            "all kinds of errors",
            "all events more or fewer than usual",
            "all events fewer than usual",
            "all events more than usual",
            "all kinds of events that are gone",
            "all kinds of events that are new",
            "all events",
            "a: events",
            "a: errors",
            "b: events",
            "b: events fewer than usual",
        ];
        assert_eq!(moved, said);
    }

    #[test]
    fn counts_that_do_not_go_together_are_far_though_each_alone_is_usual() {
        // Two events rise and fall together.
        let runs: Vec<Vec<f32>> = (1_u8..60)
            .map(|n| vec![f32::from(n), f32::from(n), 1.0])
            .collect();
        let all: Vec<&[f32]> = runs.iter().map(Vec::as_slice).collect();
        let usual = Usual::new(&all, 3);
        let far = |run: &[f32]| usual.distance(run, &[]);
        let (kept, broken) = (far(&[30.0, 30.0, 1.0]), far(&[50.0, 5.0, 1.0]));
        assert!(kept.neighbour < 1e-6 && kept.residual < 0.1, "{kept:?}");
        assert!(
            broken.neighbour > 0.5 && broken.residual > 0.5,
            "{broken:?}"
        );
        let apart = usual.apart(&usual.scaled(&[30.0, 30.0, 4.0]));
        assert!(apart[2] > 2.0 && apart[0].abs() < 1e-6, "{apart:?}");
    }

    #[test]
    fn a_tail_is_the_rarer_of_so_many_and_so_few() {
        let seen = seen(vec![4.0, 2.0, 2.0, 2.0, 3.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(seen, [(2.0, 7), (3.0, 8), (4.0, 9)]);
        let tails: Vec<f32> = [2.0, 3.0, 4.0, 5.0]
            .map(|count| tail(&seen, count))
            .to_vec();
        assert!(tails.is_sorted_by(|one, other| one < other), "{tails:?}");
        assert_eq!(tail(&seen, 0.0), tail(&seen, 9.0), "none had that");
    }

    #[test]
    fn without_healthy_runs_nothing_fails() {
        let usual = Usual::new(&[], 2);
        assert!(usual.sound(2) && !usual.sound(3));
        assert!(usual.distance(&[1.0, 0.0], &[]).neighbour > 1.0);
    }
}
