//! Links that time series propose, beside those that made them, and beside tigramite.
//!
//! A link counts as found if something joins the two variables at that lag, as directed if
//! the direction within a step is right as well; a variable's own past counts for nothing.
//! Precision is the share of what was found that is true, recall the share of what is true
//! that was found. Intervals resample recordings first. Times are of the processor, one thread
//! each.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use homeostat_causal::discover::{Direction, Discovered, Settings, pcmci_plus};
use rustix::time::{ClockId, clock_gettime};

use super::reference::{self, Searched};
use super::systems::{Recording, System};
use crate::result::{Report, Row};
use crate::stats::{Estimate, clustered};

pub(super) const SETTINGS: &str = "links: alpha 0.01, majority, lags 5, 5, 3, steps 500, 500, 1000";

const ALPHA: f64 = 0.01;

/// How far precision and recall may lie below those of the reference.
const WITHIN: f64 = 0.03;

/// How many times as fast as the reference.
const FASTER: f64 = 10.0;

/// From, to, lag; within a step the smaller first unless the direction counts.
type Key = (usize, usize, usize);

/// What a search found, in a form that both sides have.
#[derive(Default, PartialEq)]
struct Graph {
    joined: BTreeSet<Key>,
    /// Within a step, with a direction.
    directed: BTreeSet<Key>,
}

impl Graph {
    fn join(&mut self, from: usize, to: usize, lag: usize, directed: bool) {
        if from == to {
            return;
        }
        let turned = lag == 0 && from > to;
        self.joined.insert(if turned {
            (to, from, 0)
        } else {
            (from, to, lag)
        });
        if lag == 0 && directed {
            self.directed.insert((from, to, 0));
        }
    }

    fn true_one(recording: &Recording) -> Self {
        let mut graph = Self::default();
        for link in &recording.links {
            graph.join(link.from, link.to, link.lag, true);
        }
        graph
    }

    fn ours(found: &Discovered) -> Self {
        let mut graph = Self::default();
        for link in &found.links {
            graph.join(
                link.from,
                link.to,
                link.lag,
                link.direction == Direction::Known,
            );
        }
        graph
    }

    fn theirs(found: &Searched) -> Self {
        let mut graph = Self::default();
        for (from, to, lag, mark) in &found.links {
            // Each link within a step is told from both ends.
            match mark.as_str() {
                "<--" => {}
                mark => graph.join(*from, *to, *lag, mark == "-->"),
            }
        }
        graph
    }
}

/// Hits by recording: of what was found, and of what is true.
#[derive(Default)]
struct Hits {
    precision: Vec<Vec<bool>>,
    recall: Vec<Vec<bool>>,
}

impl Hits {
    fn count(&mut self, found: &BTreeSet<Key>, truth: &BTreeSet<Key>) {
        self.precision
            .push(found.iter().map(|key| truth.contains(key)).collect());
        self.recall
            .push(truth.iter().map(|key| found.contains(key)).collect());
    }

    fn estimates(&self, seed: u64) -> [Option<Estimate>; 2] {
        let mean =
            |hits: &[&bool]| hits.iter().filter(|hit| ***hit).count() as f64 / hits.len() as f64;
        [&self.precision, &self.recall].map(|groups| clustered(groups, mean, seed))
    }
}

pub(super) fn run(
    recordings: usize,
    python: Option<&Path>,
    seed: u64,
    report: &mut Report,
) -> Result<()> {
    if python.is_none() {
        eprintln!("no --python with tigramite: discovery has no reference beside it");
    }
    for system in System::ALL {
        one(system, recordings, python, seed, report).with_context(|| system.name().to_owned())?;
    }
    Ok(())
}

fn one(
    system: System,
    recordings: usize,
    python: Option<&Path>,
    seed: u64,
    report: &mut Report,
) -> Result<()> {
    let settings = Settings {
        lags: system.lags(),
        alpha: ALPHA,
        ..Settings::default()
    };
    let seeds = (0..recordings as u64).map(|number| seed.wrapping_mul(1000).wrapping_add(number));
    let recorded: Vec<Recording> = seeds
        .map(|seed| system.record(seed).context("no stable system was drawn"))
        .collect::<Result<_>>()?;
    let mut ours = Side::default();
    let mut graphs = Vec::with_capacity(recordings);
    if let Some(first) = recorded.first() {
        pcmci_plus(&first.series, &settings)?; // warms up, as the reference does
    }
    for recording in &recorded {
        let begun = clock_gettime(ClockId::ThreadCPUTime);
        let found = pcmci_plus(&recording.series, &settings)?;
        let ended = clock_gettime(ClockId::ThreadCPUTime);
        ours.seconds += (ended.tv_sec - begun.tv_sec) as f64;
        ours.seconds += (ended.tv_nsec - begun.tv_nsec) as f64 / 1e9;
        let graph = Graph::ours(&found);
        ours.count(&graph, &Graph::true_one(recording));
        graphs.push(graph);
    }
    let mut theirs = None;
    if let Some(python) = python {
        let sets: Vec<_> = recorded
            .iter()
            .map(|one| (&one.series, system.lags()))
            .collect();
        let answer = reference::search(python, &sets, ALPHA)?;
        let mut side = Side::default();
        let mut same = 0;
        for ((recording, found), ours) in recorded.iter().zip(&answer.sets).zip(&graphs) {
            let graph = Graph::theirs(found);
            side.seconds += found.seconds;
            side.count(&graph, &Graph::true_one(recording));
            same += usize::from(graph == *ours);
        }
        theirs = Some((side, same, format!("tigramite {}", answer.version)));
    }
    rows(system, recordings, seed, &ours, theirs.as_ref(), report);
    Ok(())
}

#[derive(Default)]
struct Side {
    joined: Hits,
    directed: Hits,
    seconds: f64,
}

impl Side {
    fn count(&mut self, graph: &Graph, truth: &Graph) {
        self.joined.count(&graph.joined, &truth.joined);
        self.directed.count(&graph.directed, &truth.directed);
    }
}

fn rows(
    system: System,
    recordings: usize,
    seed: u64,
    ours: &Side,
    theirs: Option<&(Side, usize, String)>,
    report: &mut Report,
) {
    let (id, absent) = (system.name(), "tigramite, not run".to_owned());
    let name = theirs.map_or(&absent, |(_, _, name)| name);
    let hits = |side: &Side| [side.joined.estimates(seed), side.directed.estimates(seed)];
    let reference = theirs.map(|(side, _, _)| hits(side));
    let kinds = [
        ["precision", "recall"],
        ["directed_precision", "directed_recall"],
    ];
    let words = [
        ["links found that are true", "true links found"],
        [
            "directions within a step that are true",
            "true ones within a step found with direction",
        ],
    ];
    for (kind, estimates) in hits(ours).into_iter().enumerate() {
        for (at, estimate) in estimates.into_iter().enumerate() {
            let Some(estimate) = estimate else { continue };
            let what = format!("{id}: {}", words[kind][at]);
            let row = Row::new(
                &format!("causal.links.{id}.{}", kinds[kind][at]),
                &what,
                "ratio",
                estimate,
            );
            let other = reference
                .and_then(|hits| hits[kind][at])
                .map(|one| one.value);
            let row = row.higher().against(other, name);
            report.rows.push(match other {
                Some(other) => row.goal(other - WITHIN),
                None => row,
            });
        }
    }
    let each = Estimate::exact(ours.seconds * 1e3 / recordings as f64, recordings);
    let row = Row::new(
        &format!("causal.links.{id}.ms"),
        &format!("{id}: processor time of a search"),
        "ms",
        each,
    );
    let other = theirs.map(|(side, _, _)| side.seconds * 1e3 / recordings as f64);
    report.rows.push(row.against(other, name));
    if let Some((side, same, name)) = theirs {
        let times = Estimate::exact(side.seconds / ours.seconds, recordings);
        let what = format!("{id}: times as fast as the reference");
        let row = Row::new(&format!("causal.links.{id}.times"), &what, "times", times);
        report
            .rows
            .push(row.higher().against(Some(1.0), name).goal(FASTER));
        let same = crate::stats::share(*same, recordings);
        let what = format!("{id}: recordings with the very same graph as the reference");
        let row = Row::new(&format!("causal.links.{id}.same"), &what, "ratio", same);
        report.rows.push(row.higher().against(Some(1.0), name));
    }
}
