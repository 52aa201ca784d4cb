//! Who is behind a component that no node looked behind: ranked by what nodes measured.
//!
//! In: readings of the fleet, means over five minutes, and who needs whom. Out: suspects by
//! `homeostat-causes`, which is told what each is to the others, with confidence, evidence in
//! words, and the look that tells the first two apart. A node's own ranking rests on seconds
//! and goes before; this one answers where there is none: behind the border of a node, and for
//! agents that tell nothing but an alarm.

use std::collections::BTreeMap;
use std::time::Duration;

use homeostat_causes::{
    Alarm, Component, Diagnosis, Doubt, Evidence, Graph as Model, Kind as Signal, Probe as Look,
    Role, Signals, diagnose,
};
use homeostat_common::suspect::{REASON_MAX, REASONS_MAX};
use homeostat_common::wire::bounded;

use super::graph::Graph;
use super::readings::{Reading, Sign};
use crate::fleet::diagnosis::{Kind, Place, Probe, Suspected};

/// Most components behind a border that are ranked, the nearest.
const COMPONENTS_MAX: usize = 64;

/// Who is behind it less than one time in twenty is not told of.
const LIKELY_MIN: f32 = 0.05;

/// What makes it less sure is told with the likeliest suspect: so much of it.
const DOUBTS_MAX: usize = 2;

/// Aggregates of each series that are kept: four hours of them.
const KEEP: usize = 48;

/// A ranking.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranked {
    /// The likeliest first, those that are explained by others last.
    pub suspects: Vec<Suspected>,
    /// What would tell the first two apart.
    pub probe: Option<Probe>,
}

/// Ranks what is behind `border`, which was alarmed at `at_ms`; `None` where nothing measured
/// is beyond the usual, or nothing was measured since.
#[must_use]
pub fn rank(border: &Place, graph: &Graph, readings: &[Reading], at_ms: u64) -> Option<Ranked> {
    // What was before would be taken for the fault.
    if !readings.iter().any(|one| one.at_ms > at_ms) {
        return None;
    }
    let mut near: Vec<(usize, Place)> = graph
        .reach(border)
        .into_iter()
        .map(|(place, away)| (away, place))
        .collect();
    near.sort();
    near.truncate(COMPONENTS_MAX);
    let mut model = Model::default();
    let mut places: BTreeMap<Place, Component> = BTreeMap::new();
    for (_, place) in near.iter().filter(|(_, place)| place.kind != Kind::Model) {
        let of = model.add(&place.to_string()).ok()?;
        model.role(of, role(place.kind)).ok()?;
        places.insert(place.clone(), of);
    }
    for (place, from) in &places {
        for to in graph.needs(place).filter_map(|need| places.get(need)) {
            model.calls(*from, *to, None).ok()?;
        }
    }
    // All times are by the coordinator's clock.
    let mut signals = Signals::keeping(KEEP).of_one_clock();
    for one in readings {
        // What a model answers with is the service that answers.
        let of = match one.place.kind {
            Kind::Model => places.get(&Place::of(Kind::Service, &one.place.at, &one.place.name)),
            _ => places.get(&one.place),
        };
        let Some(of) = of else {
            continue;
        };
        let (kind, value) = match one.sign {
            Sign::Latency => (Signal::Latency, one.value),
            Sign::Errors => (Signal::Errors, one.value),
            Sign::Resource => (Signal::Resource, one.value),
            // There, more is better.
            Sign::Quality => (Signal::Quality, -one.value),
        };
        let series = signals.series(*of, kind, one.metric.name()).ok()?;
        // Means of five minutes: what f32 loses is noise.
        #[allow(clippy::cast_possible_truncation)]
        let (value, volume) = (value as f32, one.volume as f32);
        #[allow(clippy::cast_possible_truncation)]
        signals.wanders(series, one.metric.wanders() as f32);
        signals.push(series, Duration::from_millis(one.at_ms), value, volume);
    }
    let alarm = Alarm {
        at: Duration::from_millis(at_ms),
        component: places.get(border).copied(),
        kind: None,
        well_until: None,
    };
    let mut found = diagnose(&model, &signals, &alarm);
    found.suspects.retain(|one| one.confidence >= LIKELY_MIN);
    let names: BTreeMap<Component, &Place> =
        places.iter().map(|(place, of)| (*of, place)).collect();
    (!found.suspects.is_empty()).then(|| told(&found, &model, &names))
}

/// What a place is to the others.
fn role(kind: Kind) -> Role {
    match kind {
        Kind::Service | Kind::Model => Role::Instance,
        Kind::Route => Role::Service,
        Kind::Node | Kind::Part => Role::Host,
        Kind::Dependency | Kind::Backend => Role::Outside,
    }
}

fn told(found: &Diagnosis, model: &Model, names: &BTreeMap<Component, &Place>) -> Ranked {
    let place = |of: Component| names.get(&of).map(|place| (*place).clone());
    let sum: f64 = found
        .suspects
        .iter()
        .map(|one| f64::from(one.confidence))
        .sum();
    let scale = sum.max(1.0);
    let mut suspects: Vec<Suspected> = found
        .suspects
        .iter()
        .filter_map(|one| {
            let evidence = one.evidence.iter().take(REASONS_MAX);
            let words = |one: &Evidence| bounded(&one.words(model).to_string(), REASON_MAX);
            Some(Suspected {
                place: place(one.component)?,
                confidence: f64::from(one.confidence) / scale,
                share: f64::from(one.share),
                began_ms: one.onset.and_then(|at| u64::try_from(at.as_millis()).ok()),
                evidence: evidence.map(words).collect(),
                explained_by: None,
                incident: None,
            })
        })
        .collect();
    if let Some(first) = suspects.first_mut() {
        let doubts = found.doubts.iter().filter(|doubt| doubt.of_all());
        let words = |one: &Doubt| format!("less sure, as {}", one.words(model));
        let doubts: Vec<String> = doubts.take(DOUBTS_MAX).map(words).collect();
        first.evidence.truncate(REASONS_MAX - doubts.len());
        let doubts = doubts.iter().map(|one| bounded(one, REASON_MAX));
        first.evidence.extend(doubts);
    }
    for away in &found.explained_away {
        let (Some(own), by) = (place(away.component), place(away.by)) else {
            continue;
        };
        if let Some(known) = suspects.iter_mut().find(|one| one.place == own) {
            known.explained_by = by.filter(|by| *by != own && known.share < 0.5);
            continue;
        }
        suspects.push(Suspected {
            place: own,
            confidence: 0.0,
            share: 0.0,
            began_ms: None,
            evidence: Vec::new(),
            explained_by: by,
            incident: None,
        });
    }
    let probe = found.probe.as_ref().and_then(|look| {
        let (at, other) = match *look {
            Look::Ask { ask, other } => (ask, other),
            Look::Resources { of, other }
            | Look::Log { of, other, .. }
            | Look::Look { of, other, .. } => (of, other),
        };
        Some(Probe {
            between: vec![place(at)?, place(other)?],
            look_at: place(at)?,
            text: bounded(&look.words(model).to_string(), REASON_MAX),
        })
    });
    Ranked { suspects, probe }
}

#[cfg(test)]
mod tests {
    use homeostat_common::observation::Metric;

    use super::super::graph::tests::two;
    use super::*;

    const STEP: u64 = 300_000;

    /// Thirty quiet spans and three in which the disk of the east is busy and all above it slow.
    fn measured(fault: f64) -> Vec<Reading> {
        let at = |kind, node: &str, name: &str| Place::of(kind, node, name);
        let mut all = Vec::new();
        for step in 0..33_u64 {
            let ill = if step < 30 { 0.0 } else { fault };
            let noise = (step * 7 % 5) as f64;
            for (place, sign, metric, value) in [
                (
                    at(Kind::Route, "west", "infer"),
                    Sign::Latency,
                    Metric::FirstByteP50,
                    40.0 + noise + 300.0 * ill,
                ),
                (
                    at(Kind::Route, "east", "infer"),
                    Sign::Latency,
                    Metric::FirstByteP50,
                    30.0 + noise + 300.0 * ill,
                ),
                (
                    at(Kind::Service, "east", "infer-1"),
                    Sign::Latency,
                    Metric::LatencyP50,
                    20.0 + noise + 300.0 * ill,
                ),
                (
                    at(Kind::Part, "east", "sda"),
                    Sign::Resource,
                    Metric::DiskBusy,
                    0.1 + 0.01 * noise + 0.8 * ill,
                ),
            ] {
                all.push(Reading {
                    place,
                    sign,
                    metric,
                    at_ms: step * STEP,
                    value,
                    volume: 10.0,
                });
            }
        }
        all
    }

    #[test]
    fn a_busy_disk_behind_two_routes_is_suspected_and_the_routes_are_not() {
        let graph = two();
        let border = Place::of(Kind::Route, "west", "infer");
        let found = rank(&border, &graph, &measured(1.0), 30 * STEP).unwrap();
        let suspected = found.suspects.iter().filter(|one| one.confidence > 0.0);
        let names: Vec<String> = suspected.map(|one| one.place.to_string()).collect();
        assert_eq!(names.first().map(String::as_str), Some("sda of east"));
        assert!(
            !names.contains(&"route infer on west".to_owned()),
            "{found:#?}"
        );
        let sum: f64 = found.suspects.iter().map(|one| one.confidence).sum();
        assert!(sum <= 1.0 + 1e-6, "{sum}");
        assert!(found.suspects.iter().any(|one| !one.evidence.is_empty()));
    }

    #[test]
    fn a_quiet_fleet_has_no_suspects() {
        let graph = two();
        let border = Place::of(Kind::Route, "west", "infer");
        assert_eq!(rank(&border, &graph, &measured(0.0), 30 * STEP), None);
        assert_eq!(rank(&border, &graph, &[], 0), None);
        let strange = Place::of(Kind::Route, "nowhere", "x");
        assert_eq!(rank(&strange, &graph, &measured(1.0), 30 * STEP), None);
    }
}
