//! Cases in which what correlates most with the alarm is innocent.
//!
//! One fault at something that several parts share: the processors, the memory or the power of
//! a node, an uplink, a service or an outside dependency that at least two services call. Kept
//! is a case in which at least two parts that depend on the root moved, and the part that
//! correlates most with the alarm is not the root. Drawn from the grammar on the shipped fleets
//! and on made-up ones; seeds of a split are its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use homeostat_sim::fault::{Incident, Split};
use homeostat_sim::topology::{LinkOf, Topology};

use super::baseline::{Baseline, distance};
use super::parts::{Kind, Parts};
use super::score::order;
use super::watch::{Episode, Watch, watch};

/// Beyond so many spreads a part has moved.
const MOVED: f64 = 6.0;
/// Sizes of the fleets that are made up, in nodes.
const SIZES: [usize; 4] = [5, 8, 12, 18];
/// Draws for each case that is kept, at most; about one in three is.
const DRAWS: u64 = 12;

const NODE: [&str; 6] = ["spin", "leak memory", "slow", "heat", "brown-out", "die"];
const LINK: [&str; 3] = ["disconnect", "delay", "lose"];
const SERVICE: [&str; 6] = [
    "slow",
    "hang",
    "die",
    "leak threads",
    "deny credential",
    "corrupt config",
];
const OUTSIDE: [&str; 2] = ["slow", "die"];

/// Cases of a split that are kept; `set` tells those to learn from from those to report on.
///
/// # Errors
/// When a fleet or an incident does not read.
pub fn cases(count: usize, split: Split, set: u64, how: Watch) -> Result<Vec<Episode>> {
    let mut fleets: Vec<(Arc<Topology>, Arc<Parts>)> = Vec::new();
    let mut add = |topology: Topology| {
        let parts = Arc::new(Parts::of(&topology));
        fleets.push((Arc::new(topology), parts));
    };
    for (name, _) in Topology::shipped() {
        add(Topology::named(name)?);
    }
    for (at, size) in SIZES.into_iter().enumerate() {
        add(Topology::generate(split.seed(100 * set + at as u64), size)?);
    }
    let mut kept = Vec::with_capacity(count);
    for number in 0..count as u64 * DRAWS {
        if kept.len() >= count {
            break;
        }
        let mut rng = fastrand::Rng::with_seed(split.seed(CASES + set * SET + number));
        let (topology, parts) = &fleets[rng.usize(..fleets.len())];
        let Some(incident) = draw(&mut rng, topology, number) else {
            continue;
        };
        let incident = Incident::read("confounded.toml", &incident)?;
        let seed = split.seed(CASES + set * SET + number);
        let episode = watch(topology, parts, &incident, seed, how)?;
        if misleads(&episode) {
            kept.push(episode);
        }
    }
    Ok(kept)
}

/// The first of the numbers of their seeds, away from those of other episodes.
const CASES: u64 = 1 << 29;
/// Numbers of one set.
const SET: u64 = 1 << 24;

/// The text of an incident with one fault at something that is shared.
fn draw(rng: &mut fastrand::Rng, topology: &Topology, number: u64) -> Option<String> {
    let callers = |route: usize| {
        let calls = |caller: &&homeostat_sim::topology::Route| {
            caller.calls.iter().any(|call| call.to.at() == route)
        };
        topology.routes().iter().filter(calls).count()
    };
    let shared = |outside: bool| -> Vec<String> {
        let routes = topology.routes().iter().enumerate();
        let mine =
            routes.filter(|(at, route)| route.outside_ms.is_some() == outside && callers(*at) > 1);
        mine.map(|(_, route)| route.name.to_string()).collect()
    };
    let (place, names, mechanisms): (&str, Vec<String>, &[&str]) = match rng.u8(..10) {
        0..4 => {
            let crowded = topology
                .nodes()
                .iter()
                .filter(|node| node.replicas.len() > 1);
            (
                "node",
                crowded.map(|node| node.name.to_string()).collect(),
                &NODE,
            )
        }
        4..7 => {
            let first: BTreeSet<usize> = topology
                .nodes()
                .iter()
                .filter(|node| node.replicas.len() > 1)
                .filter_map(|node| Some(node.uplinks.first()?.at()))
                .collect();
            let links = topology.links().iter().enumerate();
            let uplinks = links
                .filter(|(at, link)| matches!(link.of, LinkOf::Uplink(..)) && first.contains(at));
            (
                "link",
                uplinks.map(|(_, link)| link.name.clone()).collect(),
                &LINK,
            )
        }
        7..9 => ("service", shared(false), &SERVICE),
        _ => ("outside", shared(true), &OUTSIDE),
    };
    let name = rng.choice(&names)?;
    let mechanism = rng.choice(mechanisms)?;
    let strength = 0.3 + 0.05 * f64::from(rng.u8(..13));
    let visibility = if rng.u8(..10) < 6 { "clear" } else { "grey" };
    let fleet = topology.name();
    Some(format!(
        "name = \"confounded-{number}\"\nabout = \"What is shared fails.\"\ntopology = \"{fleet}\"\n\n\
         [[fault]]\nid = \"root\"\nmechanism = \"{mechanism}\"\nlocus = \"{place} {name}\"\n\
         strength = {strength:.2}\nvisibility = \"{visibility}\"\n"
    ))
}

/// Whether somebody innocent correlates most, and two that depend on the root have moved.
fn misleads(episode: &Episode) -> bool {
    let (Some(alarm), [root]) = (episode.alarm, episode.roots.as_slice()) else {
        return false;
    };
    let (told, parts) = (&episode.told, &*episode.parts);
    let mut moved: BTreeSet<usize> = BTreeSet::new();
    for series in &told.series {
        if distance(&series.values, told.usual) > MOVED {
            moved.insert(series.part);
        }
    }
    let mut depends = vec![false; parts.len()];
    let mut open = vec![root.part];
    while let Some(part) = open.pop() {
        if !std::mem::replace(&mut depends[part], true) {
            open.extend(parts.serves(part));
        }
    }
    let units = |part: &&usize| {
        matches!(parts.kind(**part), Kind::Replica | Kind::Service) && !root.is(**part)
    };
    let victims = moved
        .iter()
        .filter(|part| depends[**part])
        .filter(units)
        .count();
    let correlates = Baseline::Correlation.scores(told, alarm, parts, episode.seed);
    let first = order(&correlates, episode.seed)[0];
    victims >= 2 && !root.is(first)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn kept_cases_have_one_root_and_mislead() {
        let cases = cases(6, Split::Train, 0, Watch::default()).unwrap();
        assert_eq!(cases.len(), 6);
        for case in &cases {
            let scores = Baseline::Correlation.scores(
                &case.told,
                case.alarm.unwrap(),
                &case.parts,
                case.seed,
            );
            assert!(!case.roots[0].is(order(&scores, case.seed)[0]));
            assert_eq!(Split::of_seed(case.seed), Some(Split::Train));
        }
    }
}
