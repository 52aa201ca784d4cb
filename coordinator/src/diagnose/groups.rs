//! Which incidents have one cause, across nodes.
//!
//! In: incidents with their suspects, and who needs whom in the fleet. Out: groups, each with
//! the incident where it began. Nothing of it is stored: a group follows from the records, so
//! one that arrives late, or a better diagnosis, moves incidents to where they belong.
//!
//! Two incidents belong together if they were there in the same while, and
//!
//! - one is about what the other needs, and the other's cause lies there or beyond; or
//! - both have the same likeliest cause, unless that is what both are about and it is another
//!   fault each time: then one was over before the other began; or
//! - both suspect one and the same component, that is no alarmed one of either, each with at
//!   least [`SHARED_MIN`]: seldom do two things break at once.
//!
//! A chain of such pairs is one group. Incidents that only happen at the same time are none.

use std::collections::{BTreeMap, BTreeSet};

use super::causes::{Case, Heard, causes};
use super::graph::Graph;
use crate::fleet::diagnosis::{Causes, Group, Member, Place};

/// Most incidents that are compared, each with each; the newest.
pub const CASES_MAX: usize = 256;

/// A suspect below this is one of many: of eight equally likely ones each has an eighth.
const SHARED_MIN: f64 = 0.2;

/// An incident with who is behind it.
struct Judged<'a> {
    case: &'a Case,
    causes: Causes,
    /// What its alarmed one needs.
    reach: BTreeMap<Place, usize>,
}

/// Groups of two or more, by number.
#[must_use]
pub fn groups(cases: &[Case], graph: &Graph) -> Vec<Group> {
    let newest = &cases[cases.len().saturating_sub(CASES_MAX)..];
    let all: Vec<&Case> = newest.iter().collect();
    let judged = newest.iter().map(|case| {
        let causes = causes(case, &all, graph, &Heard::new());
        Judged {
            case,
            reach: graph.reach(&causes.alarmed),
            causes,
        }
    });
    let judged: Vec<Judged<'_>> = judged.collect();
    // Each begins alone; a pair that belongs together takes the smaller name.
    let mut name: Vec<usize> = (0..judged.len()).collect();
    let mut because: BTreeMap<u64, (u64, String)> = BTreeMap::new();
    for a in 0..judged.len() {
        for b in a + 1..judged.len() {
            if !judged[a].case.meets(judged[b].case) {
                continue;
            }
            let Some((late, early, why)) = pair(&judged[a], &judged[b]) else {
                continue;
            };
            because.entry(late).or_insert((early, why));
            let (keep, lose) = (name[a].min(name[b]), name[a].max(name[b]));
            name.iter_mut()
                .filter(|one| **one == lose)
                .for_each(|one| *one = keep);
        }
    }
    let mut groups: BTreeMap<usize, Vec<&Judged<'_>>> = BTreeMap::new();
    for (place, one) in judged.iter().enumerate() {
        groups.entry(name[place]).or_default().push(one);
    }
    let several = groups.into_values().filter(|members| members.len() > 1);
    several.map(|members| group(&members, &because)).collect()
}

/// Whether two belong together: who follows from whom, and why.
fn pair(a: &Judged<'_>, b: &Judged<'_>) -> Option<(u64, u64, String)> {
    let ids = (a.case.incident, b.case.incident);
    if let Some(why) = follows(a, b) {
        return Some((ids.0, ids.1, why));
    }
    if let Some(why) = follows(b, a) {
        return Some((ids.1, ids.0, why));
    }
    let (late, early) = if (a.case.from_ms, ids.0) > (b.case.from_ms, ids.1) {
        (ids.0, ids.1)
    } else {
        (ids.1, ids.0)
    };
    let (own, other) = (a.causes.root.as_ref(), b.causes.root.as_ref());
    // Of the service or its model.
    let of_itself = |root: &Place| {
        let alarmed = &a.causes.alarmed;
        (&root.at, &root.name) == (&alarmed.at, &alarmed.name)
    };
    let another = a.causes.alarmed == b.causes.alarmed
        && own.is_some_and(of_itself)
        && a.case.fault != b.case.fault;
    if let Some(root) = own.filter(|root| Some(*root) == other && !another) {
        return Some((late, early, format!("both come from {root}")));
    }
    let alarmed = [&a.causes.alarmed, &b.causes.alarmed];
    let likely = |one: &Judged<'_>| -> BTreeSet<Place> {
        let suspects = one.causes.suspects.iter();
        let likely = suspects.filter(|s| s.confidence >= SHARED_MIN && s.explained_by.is_none());
        likely
            .map(|s| s.place.clone())
            .filter(|place| !alarmed.contains(&place))
            .collect()
    };
    let shared = likely(a).intersection(&likely(b)).next().cloned();
    shared.map(|place| (late, early, format!("both suspect {place}")))
}

/// Why `a` follows from `b`, if it does.
fn follows(a: &Judged<'_>, b: &Judged<'_>) -> Option<String> {
    if a.causes.alarmed == b.causes.alarmed || !a.reach.contains_key(&b.causes.alarmed) {
        return None;
    }
    let root = a.causes.root.as_ref()?;
    (b.reach.contains_key(root) && *root != a.causes.alarmed)
        .then(|| format!("it needs {}, and {root} is behind both", b.causes.alarmed))
}

fn group(members: &[&Judged<'_>], because: &BTreeMap<u64, (u64, String)>) -> Group {
    let mut votes: BTreeMap<&Place, f64> = BTreeMap::new();
    for suspect in members.iter().flat_map(|one| &one.causes.suspects) {
        if suspect.explained_by.is_none() {
            *votes.entry(&suspect.place).or_default() += suspect.confidence;
        }
    }
    let cause = votes
        .into_iter()
        .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(a.0)));
    let cause = cause.map(|(place, _)| place.clone());
    // Nearest to the cause; of equally near ones, the first to show.
    let root = members.iter().min_by_key(|one| {
        let away = cause.as_ref().and_then(|cause| one.reach.get(cause));
        (
            away.copied().unwrap_or(usize::MAX),
            one.case.from_ms,
            one.case.incident,
        )
    });
    let root = root.map_or(0, |one| one.case.incident);
    let mut all: Vec<Member> = members
        .iter()
        .map(|one| {
            let incident = one.case.incident;
            let told = because.get(&incident).or_else(|| {
                // The other one of its pair was said to follow from it, and is the root.
                because.values().find(|(early, _)| *early == incident)
            });
            Member {
                incident,
                alarmed: one.causes.alarmed.clone(),
                consequence: incident != root,
                because: told
                    .filter(|_| incident != root)
                    .map(|(_, why)| why.clone()),
            }
        })
        .collect();
    all.sort_by_key(|member| member.incident);
    Group {
        id: all.first().map_or(root, |first| first.incident),
        root,
        cause,
        members: all,
    }
}

#[cfg(test)]
mod tests {
    use homeostat_common::ids::ServiceId;
    use homeostat_common::observation::Part;
    use homeostat_common::suspect::Component;

    use super::super::causes::tests::{case, disk, told};
    use super::super::graph::tests::{service, two};
    use super::*;

    fn far() -> Component {
        Component::Backend(ServiceId::new("east").unwrap())
    }

    fn lines(groups: &[Group]) -> Vec<String> {
        let line = |group: &Group| {
            let members: Vec<String> = group
                .members
                .iter()
                .map(|m| format!("{}{}", m.incident, if m.consequence { "" } else { "*" }))
                .collect();
            let cause = group.cause.as_ref().map_or("-".into(), Place::to_string);
            format!("{}: {cause}", members.join(" "))
        };
        groups.iter().map(line).collect()
    }

    #[test]
    fn one_cause_that_two_nodes_feel_is_one_group_with_its_root() {
        let graph = two();
        // Told first by the one that only feels it.
        let west = told(case(1, "west", "gateway", 5_000), &[(far(), 0.8)]);
        let east = told(case(2, "east", "infer-1", 4_000), &[(disk(), 0.75)]);
        let found = groups(&[west.clone(), east.clone()], &graph);
        assert_eq!(lines(&found), ["1 2*: sda of east"]);
        assert_eq!(
            found[0].members[0].because.as_deref(),
            Some("it needs infer-1 on east, and sda of east is behind both")
        );
        // A third one at the same time, about nothing that these need.
        let other = told(
            case(3, "east", "camera", 4_500),
            &[(service("camera"), 0.9)],
        );
        let found = groups(&[west.clone(), east.clone(), other], &graph);
        assert_eq!(lines(&found), ["1 2*: sda of east"]);
        // Its own cause: that it needs the other is chance.
        let own = told(west, &[(service("gateway"), 0.9), (far(), 0.05)]);
        assert!(groups(&[own, east], &graph).is_empty());
    }

    #[test]
    fn what_both_suspect_joins_two_that_do_not_need_each_other() {
        let graph = two();
        let broker = Component::Dependency(Part::new("broker").unwrap());
        let (a, b) = (
            told(
                case(4, "east", "infer-1", 0),
                &[(service("infer-1"), 0.4), (broker.clone(), 0.3)],
            ),
            told(
                case(5, "west", "sync", 1_000),
                &[(service("sync"), 0.4), (broker.clone(), 0.3)],
            ),
        );
        let found = groups(&[a.clone(), b.clone()], &graph);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].cause.as_ref().unwrap().to_string(),
            "dependency broker of plant"
        );
        let weak = told(b, &[(service("sync"), 0.4), (broker, 0.1)]);
        assert!(groups(&[a.clone(), weak.clone()], &graph).is_empty());
        let late = Case {
            from_ms: 100_000,
            to_ms: 100_001,
            ..a
        };
        assert!(groups(&[weak, late], &graph).is_empty());
    }

    #[test]
    fn another_fault_of_the_same_service_is_another_cause() {
        let graph = two();
        let mut first = told(
            case(1, "east", "infer-1", 4_000),
            &[(service("infer-1"), 0.9)],
        );
        let mut second = told(
            case(2, "east", "infer-1", 9_000),
            &[(service("infer-1"), 0.9)],
        );
        (first.fault, second.fault) = (Some("hang".into()), Some("hang".into()));
        let again = groups(&[first.clone(), second.clone()], &graph);
        assert_eq!(lines(&again), ["1* 2: infer-1 on east"]);
        second.fault = Some("bad_model".into());
        assert!(groups(&[first.clone(), second.clone()], &graph).is_empty());
        // What is behind both is one, whatever it does to them.
        let disk = [(disk(), 0.75)];
        let found = groups(&[told(first, &disk), told(second, &disk)], &graph);
        assert_eq!(lines(&found), ["1* 2: sda of east"]);
    }

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let graph = two();
        let mut all = vec![
            told(case(1, "west", "gateway", 5_000), &[(far(), 0.8)]),
            told(case(2, "east", "infer-1", 4_000), &[(disk(), 0.75)]),
            told(
                case(3, "east", "gateway", 4_500),
                &[(service("infer-1"), 0.6)],
            ),
        ];
        let straight = groups(&all, &graph);
        all.reverse();
        let back = groups(&all, &graph);
        assert_eq!(straight.len(), 1);
        assert_eq!(straight[0].root, back[0].root);
        assert_eq!(straight[0].cause, back[0].cause);
        assert_eq!(straight[0].id, back[0].id);
        assert!(groups(&[], &graph).is_empty());
    }
}
