//! Which links stored measurements propose, beside those that nodes told.
//!
//! In: readings of components over weeks, and who needs whom. Out: links by PCMCI+
//! (`homeostat-causal`), each with what the topology makes of it. Advisory: it assumes linear
//! effects and nothing hidden, and neither is certain, so a link that is new is worth a look
//! or a trial and nothing else. Neither diagnosis nor healing reads what it finds.

use std::collections::{BTreeMap, BTreeSet};

use homeostat_causal::discover::{Direction, DiscoverError, Settings, pcmci_plus};
use homeostat_causal::series::{Series, SeriesError};
use homeostat_common::observation::Metric;

use super::graph::Graph;
use super::readings::Reading;
use crate::fleet::diagnosis::Place;

/// Most variables: with more of them a search on one core takes hours. Those with the most
/// readings are taken.
pub const VARIABLES_MAX: usize = 64;

/// How far apart nodes tell their aggregates.
pub const STEP_MS: u64 = 300_000;

/// The share of steps for which a variable must have a reading: half, since a test leaves out
/// each step in which one of its variables is missing.
const KNOWN_MIN: f64 = 0.5;

/// Why nothing was searched.
#[derive(Debug, thiserror::Error)]
pub enum Nothing {
    /// The readings make no series.
    #[error("the measurements make no series")]
    Series(#[from] SeriesError),
    /// The search cannot begin, or takes too long.
    #[error("nothing can be proposed from these measurements")]
    Search(#[from] DiscoverError),
}

/// What a topology makes of a proposed link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// Two measures of one component.
    Within,
    /// The effect needs the cause, as nodes told.
    Known,
    /// The cause needs the effect: trouble would travel the other way.
    Reversed,
    /// Both need this one.
    Shared(Place),
    /// Nothing that nodes told leads from one to the other.
    New,
}

/// A link that data propose.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposed {
    /// The cause, if its direction is known; with its metric.
    pub from: (Place, Metric),
    /// The other end.
    pub to: (Place, Metric),
    /// Steps of [`STEP_MS`] between; 0 within one.
    pub lag: usize,
    /// Whether its direction is known.
    pub directed: bool,
    /// Partial correlation.
    pub value: f64,
    /// Probability of that by chance.
    pub p: f64,
    /// What the topology makes of it.
    pub advice: Advice,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposals {
    /// Links between different variables; new ones first, then by strength.
    pub links: Vec<Proposed>,
    /// Variables that were searched.
    pub variables: usize,
    /// Variables that were left out: they never change, are too seldom there, or are too many.
    pub left_out: usize,
    /// Steps of time.
    pub steps: usize,
    /// Tests that it took.
    pub tests: usize,
}

/// What is measured of what.
pub type Variable = (Place, Metric);

/// Which variables there are, in some bytes each: a fleet measures more than fits in memory,
/// and of all that [`VARIABLES_MAX`] are searched.
#[derive(Debug, Default)]
pub struct Census(BTreeMap<Variable, Seen>);

#[derive(Debug)]
struct Seen {
    readings: usize,
    first: f64,
    changes: bool,
}

impl Census {
    /// One more reading.
    pub fn add(&mut self, one: &Reading) {
        let variable = (one.place.clone(), one.metric);
        let seen = self.0.entry(variable).or_insert(Seen {
            readings: 0,
            first: one.value,
            changes: false,
        });
        seen.readings += 1;
        seen.changes |= one.value != seen.first;
    }

    /// Those that are searched: of those that change the ones with the most readings.
    #[must_use]
    pub fn chosen(&self) -> BTreeSet<Variable> {
        let mut all: Vec<_> = self.0.iter().filter(|(_, seen)| seen.changes).collect();
        all.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.readings));
        all.truncate(VARIABLES_MAX);
        all.into_iter()
            .map(|(variable, _)| variable.clone())
            .collect()
    }
}

/// Searches readings of the chosen variables for links. Nodes end their spans at different
/// times, so that of two nodes what is within one step may seem to be one apart, either way:
/// such links have no direction.
///
/// # Errors
/// [`Nothing`].
pub fn discover(
    readings: &[Reading],
    census: &Census,
    graph: &Graph,
    settings: &Settings,
) -> Result<Proposals, Nothing> {
    let step = |at_ms: u64| at_ms / STEP_MS;
    let first = readings
        .iter()
        .map(|one| step(one.at_ms))
        .min()
        .unwrap_or(0);
    let last = readings
        .iter()
        .map(|one| step(one.at_ms))
        .max()
        .unwrap_or(0);
    let steps = usize::try_from(last - first)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    let steps = steps.min(homeostat_causal::series::STEPS_MAX);
    let mut columns: BTreeMap<Variable, BTreeMap<usize, (f64, f64)>> = BTreeMap::new();
    for one in readings {
        // The newest steps, if there are too many.
        let Some(row) = usize::try_from(last - step(one.at_ms))
            .ok()
            .filter(|row| *row < steps)
        else {
            continue;
        };
        let column = columns.entry((one.place.clone(), one.metric)).or_default();
        let (sum, count) = column.entry(steps - 1 - row).or_default();
        *sum += one.value;
        *count += 1.0;
    }
    let columns: Vec<_> = columns
        .into_iter()
        .filter(|(_, rows)| rows.len() as f64 >= KNOWN_MIN * steps as f64)
        .filter(|(_, rows)| changes(rows.values().map(|(sum, count)| sum / count)))
        .take(VARIABLES_MAX)
        .collect();
    let names: Vec<String> = (0..columns.len()).map(|place| place.to_string()).collect();
    let filled = columns.iter().map(|(_, rows)| {
        let value = |row| rows.get(&row).map_or(f64::NAN, |(sum, count)| sum / count);
        (0..steps).map(value).collect()
    });
    let series = Series::new(&names, filled.collect())?;
    let found = pcmci_plus(&series, settings)?;
    let variable = |place: usize| columns.get(place).map(|(name, _)| name.clone());
    let links = found.links.iter().filter(|link| link.from != link.to);
    let mut links: Vec<Proposed> = links
        .filter_map(|link| {
            let (from, to) = (variable(link.from)?, variable(link.to)?);
            let apart = from.0.at != to.0.at && link.lag <= 1;
            let directed = link.direction == Direction::Known && !apart;
            Some(Proposed {
                advice: advice(&from.0, &to.0, directed, graph),
                from,
                to,
                lag: link.lag,
                directed,
                value: link.value,
                p: link.p,
            })
        })
        .collect();
    links.sort_by(|a, b| {
        let old = |one: &Proposed| one.advice != Advice::New;
        old(a)
            .cmp(&old(b))
            .then(b.value.abs().total_cmp(&a.value.abs()))
    });
    Ok(Proposals {
        links,
        variables: columns.len(),
        left_out: census.0.len().saturating_sub(columns.len()),
        steps,
        tests: found.tests,
    })
}

fn changes(mut values: impl Iterator<Item = f64>) -> bool {
    let first = values.next();
    values.any(|value| Some(value) != first)
}

fn advice(from: &Place, to: &Place, directed: bool, graph: &Graph) -> Advice {
    if from == to {
        return Advice::Within;
    }
    let (of_from, of_to) = (graph.reach(from), graph.reach(to));
    if of_to.contains_key(from) || (!directed && of_from.contains_key(to)) {
        return Advice::Known;
    }
    if of_from.contains_key(to) {
        return Advice::Reversed;
    }
    let needs: BTreeSet<&Place> = of_from.keys().collect();
    let shared = of_to.iter().filter(|(place, _)| needs.contains(place));
    match shared.min_by_key(|(_, away)| **away) {
        Some((place, _)) => Advice::Shared(place.clone()),
        None => Advice::New,
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::two;
    use super::super::readings::Sign;
    use super::*;
    use crate::fleet::diagnosis::Kind;

    fn noise(chance: &mut fastrand::Rng) -> f64 {
        (0..6).map(|_| chance.f64() - 0.5).sum()
    }

    fn searched(all: &[Reading], graph: &Graph, settings: &Settings) -> Result<Proposals, Nothing> {
        let mut census = Census::default();
        all.iter().for_each(|one| census.add(one));
        let chosen = census.chosen();
        let all = all
            .iter()
            .filter(|one| chosen.contains(&(one.place.clone(), one.metric)));
        discover(&all.cloned().collect::<Vec<_>>(), &census, graph, settings)
    }

    #[test]
    fn a_link_that_nobody_told_is_proposed_and_known_ones_are_named_so() {
        let graph = two();
        let disk = Place::of(Kind::Part, "east", "sda");
        let infer = Place::of(Kind::Service, "east", "infer-1");
        let camera = Place::of(Kind::Service, "north", "camera");
        let mut chance = fastrand::Rng::with_seed(5);
        let (mut readings, mut former) = (Vec::new(), [0.0; 3]);
        for step in 0..600_u64 {
            let busy = 0.4 * former[0] + noise(&mut chance);
            let slow = 0.8 * former[0] + 0.2 * former[1] + noise(&mut chance);
            // Nobody told that the camera needs infer-1.
            let late = 0.8 * former[1] + noise(&mut chance);
            former = [busy, slow, late];
            for (place, metric, value) in [
                (&disk, Metric::DiskBusy, busy),
                (&infer, Metric::LatencyP50, slow),
                (&camera, Metric::LatencyP50, late),
                (&camera, Metric::CpuUsed, 1.0),
            ] {
                readings.push(Reading {
                    place: place.clone(),
                    sign: Sign::Resource,
                    metric,
                    at_ms: step * STEP_MS + 7,
                    value,
                    volume: 1.0,
                });
            }
        }
        let settings = Settings {
            lags: 2,
            ..Settings::default()
        };
        let found = searched(&readings, &graph, &settings).unwrap();
        assert_eq!((found.variables, found.left_out, found.steps), (3, 1, 600));
        let told: Vec<String> = found
            .links
            .iter()
            .filter(|link| link.lag == 1)
            .map(|link| {
                let arrow = if link.directed { "->" } else { "--" };
                format!("{} {arrow} {}: {:?}", link.from.0, link.to.0, link.advice)
            })
            .collect();
        assert!(
            told.contains(&"infer-1 on east -- camera on north: New".to_owned()),
            "{told:?}"
        );
        assert!(
            told.contains(&"sda of east -> infer-1 on east: Known".to_owned()),
            "{told:?}"
        );
        assert_eq!(advice(&infer, &disk, true, &graph), Advice::Reversed);
    }

    #[test]
    fn too_little_is_an_error_and_no_link() {
        assert!(searched(&[], &two(), &Settings::default()).is_err());
        let one = Reading {
            place: Place::of(Kind::Node, "east", ""),
            sign: Sign::Resource,
            metric: Metric::IoPressure,
            at_ms: u64::MAX,
            value: f64::NAN,
            volume: 1.0,
        };
        let early = Reading {
            at_ms: 0,
            ..one.clone()
        };
        assert!(searched(&[one, early], &two(), &Settings::default()).is_err());
    }

    #[test]
    fn of_many_variables_those_with_the_most_readings_are_searched() {
        let mut census = Census::default();
        for nth in 0..200_u64 {
            for at in 0..=nth {
                census.add(&Reading {
                    place: Place::of(Kind::Service, "east", &format!("s{nth}")),
                    sign: Sign::Latency,
                    metric: Metric::LatencyP50,
                    at_ms: at,
                    value: at as f64,
                    volume: 1.0,
                });
            }
        }
        let chosen = census.chosen();
        assert_eq!(chosen.len(), VARIABLES_MAX);
        let names: BTreeSet<_> = chosen.iter().map(|(place, _)| place.name.clone()).collect();
        assert!(names.contains("s199") && names.contains("s136") && !names.contains("s135"));
    }
}
