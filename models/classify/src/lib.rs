//! From the event counts of a run to the class of its failure.
//!
//! In: runs (how often each event happened) with the class of each, among them
//! [`HEALTHY`] ones. Out: a [`Classifier`] that says of another run which of the classes it
//! is, how unlike a healthy run it is, how unlike all runs it was trained on, and which
//! events say so. What fails in a way that nobody has seen is [`Class::Novel`], not forced
//! into a known class.
//!
//! Two parts that know different things: [`forest`] knows the classes and nothing else,
//! [`usual`] knows healthy runs and no failure. How much a distance means is told by runs
//! that were held back: each scale is ranked among those of healthy runs that the part
//! measuring them had not seen.
//!
//! Pure, seeded, and serialisable; it reads no file and knows no fleet. Names of events are
//! part of the model, so columns may come in any order, and an event that was never seen in
//! training is evidence of novelty. An event that a run does not have was counted 0 times.

pub mod eigen;
pub mod file;
pub mod forest;
pub mod usual;

mod scale;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use forest::Forest;
use scale::Scale;
use usual::{Distance, Groups, Usual};

/// How often each event happened in one run, by its name.
pub type Run = BTreeMap<String, u32>;

/// The label of runs that did not fail.
pub const HEALTHY: &str = "no_failure";

/// Most events of a model. Public recordings have some hundred; each adds three features to
/// every run.
pub const EVENTS_MAX: usize = 2048;

/// Most runs that a model is trained on.
pub const RUNS_MAX: usize = 20_000;

/// Most classes, healthy among them.
pub const CLASSES_MAX: usize = 64;

/// Longest name of an event or a class, in bytes.
pub const NAME_MAX: usize = 512;

/// Parts into which runs are dealt to hold each of them back once.
const PARTS: usize = 4;

/// A run is taken for a failure of no known class if fewer of the training runs than this
/// share were as unlike the others: one false flag in so many verdicts is what novelty costs.
pub const NOVEL: f32 = 0.97;

/// A run that resembles no known failure is still none of the healthy ones if more than this
/// share of those was less unusual.
pub const UNUSUAL: f32 = 0.95;

/// Fewer healthy runs than this cannot tell that share: whatever lies beyond all of them would
/// pass for unlike them, two in 39 by chance alone.
const RANKED_MIN: usize = 39;

/// Events that are named as evidence.
const EVIDENCE_MAX: usize = 5;

/// What the sum of three rarities adds to the largest.
const TIE: f32 = 1e-3;

/// Counts beyond this say no more; keeps every sum finite.
const COUNT_MAX: f32 = 1e6;

/// All that is fixed in how a model is made and answers, as text, to record beside a result.
#[must_use]
pub fn settings() -> String {
    use forest::{DEPTH_MAX, TREES, TRIED_OF};
    use usual::{KEPT, PER_EVENT, PER_GROUP, SPREAD_MIN, TAIL_MIN, TAILS, VARIES_MAX, WHOLE};
    format!(
        "{TREES} extremely randomised trees of depth {DEPTH_MAX} at most, 1/{TRIED_OF} of features \
         tried; {PER_EVENT} features of an event, {WHOLE:?} of all, {PER_GROUP:?} of a service; \
         spread from {SPREAD_MIN}, {KEPT} of the variance of at most {VARIES_MAX} events, {TAILS} \
         tails from {TAIL_MIN}; {PARTS} parts; novel from {NOVEL}, unusual from {UNUSUAL} of at \
         least {RANKED_MIN} runs, ties by {TIE}"
    )
}

/// Why there is no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrainError {
    /// Not one label for each run.
    #[error("{runs} runs with {labels} labels")]
    Labels {
        /// Runs.
        runs: usize,
        /// Labels.
        labels: usize,
    },
    /// Too few or too many of something.
    #[error("{found} {what}; {min} to {max} are possible")]
    Count {
        /// Of what.
        what: &'static str,
        /// So many.
        found: usize,
        /// At least.
        min: usize,
        /// At most.
        max: usize,
    },
    /// A name that is empty or too long.
    #[error("the name {0:?} is empty or longer than {NAME_MAX} bytes")]
    Name(String),
}

/// What a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// It did not fail.
    Healthy,
    /// It failed in this known way.
    Known(String),
    /// It is unlike all that the model was trained on.
    Novel,
}

/// An event that spoke for a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its name, or many events in words, such as "all errors".
    pub event: String,
    /// How often it happened; `None` for many events.
    pub count: Option<u32>,
    /// How often it does in the median healthy run; `None` for many events.
    pub usual: Option<u32>,
    /// Its share among all that spoke, in 0 to 1.
    pub weight: f32,
}

/// What the model says of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What it is.
    pub class: Class,
    /// Every known class with its probability, the most likely first. It says nothing when
    /// the run is novel.
    pub probabilities: Vec<(String, f32)>,
    /// Probability of a failure, by the known classes.
    pub failure: f32,
    /// How unlike a healthy run it is: the share of healthy runs that were less so.
    pub unusual: f32,
    /// The same with decades beyond the last healthy run, to order runs by: larger is less
    /// usual. It has no unit.
    pub rarity: f32,
    /// How unlike all training runs it is: the share of them that were less so.
    pub novelty: f32,
    /// What spoke for it, strongest first.
    pub evidence: Vec<Evidence>,
    /// Events that the model was not trained on.
    pub unknown: Vec<String>,
}

impl Verdict {
    /// The most likely of the known classes, whether or not the run is novel.
    #[must_use]
    pub fn likeliest(&self) -> &str {
        self.probabilities
            .first()
            .map_or(HEALTHY, |(class, _)| class)
    }
}

/// Ranks of what was measured on runs that were held back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Scales {
    /// Distances of healthy runs.
    neighbour: Scale,
    residual: Scale,
    tails: Scale,
    /// How rare the farthest of the three is.
    rarity: Scale,
    /// Distance to any run, of all runs.
    apart: Scale,
}

/// What is known of classes, of healthy runs, and of what is neither.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Classifier {
    /// Sorted.
    events: Vec<String>,
    /// Sorted.
    classes: Vec<String>,
    /// Runs of each class.
    counts: Vec<u32>,
    seed: u64,
    forest: Forest,
    usual: Usual,
    /// The failed training runs that differ, scaled.
    failed: Vec<Vec<f32>>,
    scales: Scales,
}

impl Classifier {
    /// Learns from `runs` with a label each. The same runs, in the same order, and seed give
    /// the same model.
    ///
    /// # Errors
    /// [`TrainError`] if there are too few or too many runs, events or classes.
    pub fn train(runs: &[Run], labels: &[String], seed: u64) -> Result<Self, TrainError> {
        if runs.len() != labels.len() {
            let (runs, labels) = (runs.len(), labels.len());
            return Err(TrainError::Labels { runs, labels });
        }
        let within = |what, found, min, max| {
            if (min..=max).contains(&found) {
                Ok(())
            } else {
                Err(TrainError::Count {
                    what,
                    found,
                    min,
                    max,
                })
            }
        };
        within("runs", runs.len(), 2 * PARTS, RUNS_MAX)?;
        let healthy = labels.iter().filter(|label| *label == HEALTHY).count();
        within("runs that are no_failure", healthy, PARTS, RUNS_MAX)?;
        let classes: Vec<String> = sorted(labels);
        within("classes", classes.len(), 1, CLASSES_MAX)?;
        let events: Vec<String> = sorted(runs.iter().flat_map(BTreeMap::keys));
        within("events", events.len(), 1, EVENTS_MAX)?;
        let names = classes.iter().chain(&events);
        if let Some(name) = names
            .into_iter()
            .find(|name| !(1..=NAME_MAX).contains(&name.len()))
        {
            return Err(TrainError::Name(name.clone()));
        }
        let of: Vec<usize> = labels
            .iter()
            .map(|label| classes.binary_search(label).unwrap_or(0))
            .collect();
        let rows: Vec<Vec<f32>> = runs.iter().map(|run| row(&events, run).0).collect();
        let training = Training {
            rows: &rows,
            of: &of,
            healthy: classes.iter().position(|class| class == HEALTHY),
            classes: classes.len(),
            groups: Groups::new(&events),
            seed,
        };
        let mut counts = vec![0; classes.len()];
        of.iter().for_each(|class| counts[*class] += 1);
        let scales = training.scales();
        let all: Vec<usize> = (0..rows.len()).collect();
        let usual = training.usual(&all);
        let forest = training.forest(&usual);
        let failed = training.failed(&all, &usual);
        Ok(Self {
            events,
            classes,
            counts,
            seed,
            forest,
            usual,
            failed,
            scales,
        })
    }

    /// The same classes beside other healthy runs, such as those of another fleet: features
    /// are relative to what is usual there, and distances are measured from there. `None` if
    /// there are too few of them.
    ///
    /// Runs that failed there are not needed. Novelty among failures keeps meaning what it
    /// meant where they were seen.
    #[must_use]
    pub fn beside(&self, healthy: &[Run]) -> Option<Self> {
        if !(PARTS..=RUNS_MAX).contains(&healthy.len()) {
            return None;
        }
        let rows: Vec<Vec<f32>> = healthy.iter().map(|run| row(&self.events, run).0).collect();
        let mut far = Vec::with_capacity(rows.len());
        for part in 0..PARTS {
            let (held, kept) = split(rows.len(), part, self.seed);
            let usual = Usual::new(&pick(&rows, &kept), self.events.len());
            far.extend(held.iter().map(|at| usual.distance(&rows[*at], &[])));
        }
        let all: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        Some(Self {
            usual: Usual::new(&all, self.events.len()),
            scales: Scales::new(&far, self.scales.apart.clone()),
            ..self.clone()
        })
    }

    /// What it says of a run.
    #[must_use]
    pub fn classify(&self, run: &Run) -> Verdict {
        let (row, unknown) = row(&self.events, run);
        let strange: Vec<f32> = unknown.values().copied().collect();
        let groups = Groups::new(&self.events);
        let features = self.usual.features(&row, &groups);
        let shares = self.forest.shares(&features);
        let failure = failure(&shares, self.healthy());
        let scaled = self.usual.scaled(&row);
        let far = self.usual.distance(&row, &strange);
        let rarity = self.scales.rarity(&far);
        let unusual = self.scales.rarity.rank(rarity);
        let more: f32 = strange.iter().map(|count| Usual::unknown(*count)).sum();
        let apart = usual::nearest(&self.failed, &scaled) + more;
        let novelty = self.scales.apart.rank(apart.min(far.neighbour));
        let mut probabilities: Vec<(usize, f32)> = shares.into_iter().enumerate().collect();
        probabilities.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let best = probabilities.first().map_or(0, |(class, _)| *class);
        let known = match self.classes.get(best) {
            Some(name) if name != HEALTHY => Class::Known(name.clone()),
            _ => Class::Healthy,
        };
        let ranked = self.scales.rarity.runs() >= RANKED_MIN;
        let novel = novelty >= NOVEL || (known == Class::Healthy && ranked && unusual >= UNUSUAL);
        let (class, evidence) = if novel {
            (Class::Novel, self.unlike(&scaled, &row, &unknown))
        } else {
            let moved = self.forest.spoke(&features, best, features.len());
            (known, self.spoke(&moved, &row, &groups))
        };
        Verdict {
            class,
            probabilities: probabilities
                .into_iter()
                .filter_map(|(class, share)| Some((self.classes.get(class)?.clone(), share)))
                .collect(),
            failure,
            unusual,
            rarity,
            novelty,
            evidence,
            unknown: unknown.into_keys().collect(),
        }
    }

    /// The events it knows.
    #[must_use]
    pub fn events(&self) -> &[String] {
        &self.events
    }

    /// The classes it knows, each with the number of runs it was trained on.
    pub fn classes(&self) -> impl Iterator<Item = (&str, u32)> {
        let counts = self.counts.iter().copied();
        self.classes.iter().map(String::as_str).zip(counts)
    }

    /// What chance was drawn from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    fn healthy(&self) -> Option<usize> {
        self.classes.iter().position(|class| class == HEALTHY)
    }

    /// The features that spoke for a class, those of one event together.
    fn spoke(&self, moved: &[f32], row: &[f32], groups: &Groups) -> Vec<Evidence> {
        let mut by: BTreeMap<(bool, usize), f32> = BTreeMap::new();
        for (feature, moved) in moved.iter().enumerate() {
            let key = match Groups::event(feature, self.events.len()) {
                Some(event) => (true, event),
                None => (false, feature),
            };
            *by.entry(key).or_default() += moved;
        }
        strongest(by.into_iter().map(|((single, at), weight)| {
            let said = if single {
                self.event(at, row)
            } else {
                Evidence {
                    event: groups.words(at),
                    count: None,
                    usual: None,
                    weight: 0.0,
                }
            };
            (said, weight)
        }))
    }

    /// What is unlike the nearest healthy run.
    fn unlike(
        &self,
        scaled: &[f32],
        row: &[f32],
        unknown: &BTreeMap<String, f32>,
    ) -> Vec<Evidence> {
        let apart = self.usual.apart(scaled);
        let known = apart
            .iter()
            .enumerate()
            .map(|(event, apart)| (self.event(event, row), apart.abs()));
        let strange = unknown.iter().map(|(event, count)| {
            let said = Evidence {
                event: event.clone(),
                count: Some(whole(*count)),
                usual: Some(0),
                weight: 0.0,
            };
            (said, Usual::unknown(*count))
        });
        strongest(known.chain(strange))
    }

    fn event(&self, event: usize, row: &[f32]) -> Evidence {
        Evidence {
            event: self.events.get(event).cloned().unwrap_or_default(),
            count: Some(whole(row.get(event).copied().unwrap_or(0.0))),
            usual: Some(whole(self.usual.median(event))),
            weight: 0.0,
        }
    }
}

/// Training runs and how they are dealt.
struct Training<'a> {
    rows: &'a [Vec<f32>],
    of: &'a [usize],
    healthy: Option<usize>,
    classes: usize,
    groups: Groups,
    seed: u64,
}

impl Training<'_> {
    fn usual(&self, kept: &[usize]) -> Usual {
        let healthy: Vec<usize> = kept
            .iter()
            .copied()
            .filter(|at| Some(self.of[*at]) == self.healthy)
            .collect();
        let events = self.rows.first().map_or(0, Vec::len);
        Usual::new(&pick(self.rows, &healthy), events)
    }

    fn forest(&self, usual: &Usual) -> Forest {
        let rows = self.rows.iter();
        let features: Vec<Vec<f32>> = rows.map(|row| usual.features(row, &self.groups)).collect();
        Forest::grow(&features, self.of, self.classes, self.seed)
    }

    /// The failed runs that differ, scaled.
    fn failed(&self, kept: &[usize], usual: &Usual) -> Vec<Vec<f32>> {
        let failed = kept.iter().filter(|at| Some(self.of[**at]) != self.healthy);
        let mut all: Vec<Vec<f32>> = failed.map(|at| usual.scaled(&self.rows[*at])).collect();
        all.sort_by(|one, other| usual::order(one, other));
        all.dedup();
        all
    }

    /// Measures each run by what was learnt from the others.
    fn scales(&self) -> Scales {
        let (mut healthy, mut apart) = (Vec::new(), Vec::new());
        for part in 0..PARTS {
            let (held, kept) = split(self.rows.len(), part, self.seed);
            let usual = self.usual(&kept);
            let failed = self.failed(&kept, &usual);
            for at in held {
                let row = &self.rows[at];
                let scaled = usual.scaled(row);
                let far = usual.distance(row, &[]);
                apart.push(usual::nearest(&failed, &scaled).min(far.neighbour));
                if Some(self.of[at]) == self.healthy {
                    healthy.push(far);
                }
            }
        }
        Scales::new(&healthy, Scale::new(apart))
    }
}

impl Scales {
    /// Of the distances of healthy runs that were held back, and of what all runs that were
    /// are apart from all others.
    fn new(healthy: &[Distance], apart: Scale) -> Self {
        let of = |part: fn(&Distance) -> f32| Scale::new(healthy.iter().map(part).collect());
        let mut scales = Self {
            neighbour: of(|far| far.neighbour),
            residual: of(|far| far.residual),
            tails: of(|far| far.tails),
            rarity: Scale::new(Vec::new()),
            apart,
        };
        scales.rarity = Scale::new(healthy.iter().map(|far| scales.rarity(far)).collect());
        scales
    }

    /// The largest, because what fails in a new way is rarely far in all three; where that is
    /// the same for two runs, the sum orders them.
    fn rarity(&self, far: &Distance) -> f32 {
        let all = [
            self.neighbour.rarity(far.neighbour),
            self.residual.rarity(far.residual),
            self.tails.rarity(far.tails),
        ];
        all.iter().copied().fold(0.0, f32::max) + TIE * all.iter().sum::<f32>()
    }

    fn sound(&self) -> bool {
        [
            &self.neighbour,
            &self.residual,
            &self.tails,
            &self.rarity,
            &self.apart,
        ]
        .iter()
        .all(|scale| scale.sound())
    }
}

fn sorted<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let all: BTreeSet<&String> = names.into_iter().collect();
    all.into_iter().cloned().collect()
}

/// The counts of the known events in their order, and of those that are not known.
fn row(events: &[String], run: &Run) -> (Vec<f32>, BTreeMap<String, f32>) {
    let mut row = vec![0.0; events.len()];
    let mut unknown = BTreeMap::new();
    for (event, count) in run.iter().filter(|(_, count)| **count > 0) {
        let count = (*count as f32).min(COUNT_MAX);
        match events.binary_search(event) {
            Ok(at) => row[at] = count,
            Err(_) => {
                unknown.insert(event.clone(), count);
            }
        }
    }
    (row, unknown)
}

/// Probability that it is no healthy run.
fn failure(shares: &[f32], healthy: Option<usize>) -> f32 {
    1.0 - healthy
        .and_then(|healthy| shares.get(healthy))
        .copied()
        .unwrap_or(0.0)
}

/// The places that are held back in a part, and the others; each is held back once.
fn split(count: usize, part: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..count).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    let (mut held, mut kept) = (Vec::new(), Vec::new());
    for (at, place) in order.into_iter().enumerate() {
        if at % PARTS == part {
            held.push(place);
        } else {
            kept.push(place);
        }
    }
    (held, kept)
}

fn pick<'a>(rows: &'a [Vec<f32>], at: &[usize]) -> Vec<&'a [f32]> {
    at.iter().map(|at| rows[*at].as_slice()).collect()
}

/// The strongest of what spoke, as shares of all that spoke for it.
fn strongest(all: impl Iterator<Item = (Evidence, f32)>) -> Vec<Evidence> {
    let mut all: Vec<(Evidence, f32)> = all.filter(|(_, weight)| *weight > 0.0).collect();
    let sum: f32 = all.iter().map(|(_, weight)| weight).sum();
    all.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let first = all.into_iter().take(EVIDENCE_MAX);
    first
        .map(|(said, weight)| Evidence {
            weight: weight / sum,
            ..said
        })
        .collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count, at most 1e6
fn whole(count: f32) -> u32 {
    count.max(0.0) as u32
}

#[cfg(test)]
mod tests;
