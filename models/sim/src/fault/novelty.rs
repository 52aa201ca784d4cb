//! How far an incident is from others, in the grammar.
//!
//! In go incidents, out comes a distance in `0..=1`: 0 for the same productions, 1 for
//! none in common. It is the weighted Jaccard distance of what an incident is made of:
//! single productions (a mechanism at a kind of place, a coupling with its step, a kind
//! of trigger, a kind of visibility), and pairs of them that come together, because a
//! combination never seen is new even where its parts are not. Names and numbers do not
//! count: the same fault at another node is the same fault.

use std::collections::{BTreeMap, BTreeSet};

use super::grammar::{Coupling, Fault, Incident};

/// How much a production weighs that says what goes wrong, or what the trap is.
const PRODUCTION: f64 = 2.0;
/// How much one weighs that says when, or how it shows.
const MANNER: f64 = 1.0;
/// How much two weigh that come together.
const PAIR: f64 = 1.0;

/// Distance between two incidents.
#[must_use]
pub fn distance(one: &Incident, other: &Incident) -> f64 {
    apart(&features(one), &features(other))
}

/// Distance from the nearest of a set; 1 from an empty one.
#[must_use]
pub fn novelty<'i>(incident: &Incident, known: impl IntoIterator<Item = &'i Incident>) -> f64 {
    let own = features(incident);
    let others = known.into_iter().map(|other| apart(&own, &features(other)));
    others.fold(1.0, f64::min)
}

type Features = BTreeMap<String, f64>;

fn apart(one: &Features, other: &Features) -> f64 {
    let all = |key: &String| {
        one.get(key)
            .or_else(|| other.get(key))
            .copied()
            .unwrap_or(0.0)
    };
    let common: f64 = one
        .iter()
        .filter(|(key, _)| other.contains_key(*key))
        .map(|(_, w)| w)
        .sum();
    let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
    keys.sort();
    keys.dedup();
    let union: f64 = keys.into_iter().map(all).sum();
    if union > 0.0 {
        1.0 - common / union
    } else {
        0.0
    }
}

fn features(incident: &Incident) -> Features {
    let mut features = Features::new();
    for one in incident.faults.iter().flat_map(productions) {
        features.insert(one, PRODUCTION);
    }
    for pair in pairs(incident) {
        features.insert(pair, PAIR);
    }
    for fault in &incident.faults {
        features.insert(format!("trigger {}", fault.trigger.kind()), MANNER);
        features.insert(format!("visibility {}", fault.visibility.kind()), MANNER);
    }
    features
}

/// Productions that an incident has together, two by two.
pub(super) fn pairs(incident: &Incident) -> BTreeSet<String> {
    let productions: Vec<_> = incident.faults.iter().flat_map(productions).collect();
    let mut pairs = BTreeSet::new();
    for (place, one) in productions.iter().enumerate() {
        for other in &productions[place + 1..] {
            let (first, second) = if one <= other {
                (one, other)
            } else {
                (other, one)
            };
            pairs.insert(format!("{first} & {second}"));
        }
    }
    pairs
}

/// What a fault is, and what its traps are.
fn productions(fault: &Fault) -> Vec<String> {
    let mut all = vec![format!("{} @ {}", fault.mechanism, fault.locus.place)];
    for coupling in &fault.couplings {
        all.push(match coupling {
            Coupling::Holds { step, .. } => format!("holds {step}"),
            Coupling::Breaks { on, unless, .. } => match unless {
                Some(first) => format!("breaks on {on} unless {first}"),
                None => format!("breaks on {on}"),
            },
            Coupling::Heals { unless, .. } => format!("heals unless {unless}"),
            Coupling::ReInfects
            | Coupling::Returns { .. }
            | Coupling::MovesLoad { .. }
            | Coupling::Hides { .. } => coupling.kind().to_owned(),
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(faults: &[(&str, &str, &[&str])]) -> Incident {
        let mut text = "name = \"x\"\nabout = \"\"\ntopology = \"t\"\n".to_owned();
        for (place, (mechanism, locus, couplings)) in faults.iter().enumerate() {
            text += &format!(
                "[[fault]]\nid = \"f{place}\"\nmechanism = \"{mechanism}\"\nlocus = \"{locus}\"\n\
                 coupling = {couplings:?}\n"
            );
        }
        Incident::read("x", &text).unwrap()
    }

    #[test]
    fn names_do_not_count_and_combinations_do() {
        let hang = incident(&[("hang", "replica a", &[])]);
        let there = incident(&[("hang", "replica b", &[])]);
        let lock = incident(&[("lock", "replica a", &["re-infects"])]);
        let both = incident(&[
            ("hang", "replica a", &[]),
            ("lock", "replica b", &["re-infects"]),
        ]);
        assert_eq!(distance(&hang, &there), 0.0);
        assert!(distance(&hang, &lock) > 0.5);
        // Both parts are known, and yet it is new.
        let far = novelty(&both, [&hang, &lock]);
        assert!((0.2..0.8).contains(&far), "{far}");
        assert_eq!(novelty(&both, [&hang, &both]), 0.0);
        assert_eq!(novelty(&both, []), 1.0);
        assert_eq!(distance(&lock, &both), distance(&both, &lock));
    }
}
