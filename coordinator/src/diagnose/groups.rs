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
//! A group is what has one cause: of a chain of such pairs, those that suspect what most of it
//! speaks for, and those that pair with one of these because it needs what they are about.
//! The rest is looked at again without them. Incidents that only happen at the same time are
//! none.

use std::collections::{BTreeMap, BTreeSet};

use super::causes::{AROUND_MS, Case, Heard, causes};
use super::graph::Graph;
use crate::fleet::diagnosis::{Causes, Coincident, Group, Member, Place};

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
    /// The likeliest cause, and others that are no less likely than [`SHARED_MIN`].
    likely: BTreeSet<Place>,
}

impl<'a> Judged<'a> {
    fn of(case: &'a Case, all: &[&Case], graph: &Graph) -> Self {
        let causes = causes(case, all, graph, &Heard::new());
        let own = causes.suspects.iter().filter(|s| s.explained_by.is_none());
        let likely = own
            .filter(|s| s.confidence >= SHARED_MIN)
            .map(|s| s.place.clone());
        Self {
            case,
            reach: graph.reach(&causes.alarmed),
            likely: likely.chain(causes.root.clone()).collect(),
            causes,
        }
    }

    /// Whether it is about what needs the other's, and its cause lies there or beyond.
    fn follows(&self, other: &Self) -> bool {
        let alarmed = &self.causes.alarmed;
        let beyond = |root: &Place| root != alarmed && other.reach.contains_key(root);
        *alarmed != other.causes.alarmed
            && self.reach.contains_key(&other.causes.alarmed)
            && self.causes.root.as_ref().is_some_and(beyond)
    }

    /// Whether two belong together.
    fn pairs(&self, other: &Self) -> bool {
        if !self.case.meets(other.case) {
            return false;
        }
        if self.follows(other) || other.follows(self) {
            return true;
        }
        let (alarmed, others) = (&self.causes.alarmed, &other.causes.alarmed);
        // Of the service or its model.
        let of_itself = |root: &&Place| (&root.at, &root.name) == (&alarmed.at, &alarmed.name);
        let root = self.causes.root.as_ref();
        let same = root.is_some() && root == other.causes.root.as_ref();
        let another = alarmed == others
            && root.filter(of_itself).is_some()
            && self.case.fault != other.case.fault;
        let mut shared = self.likely.intersection(&other.likely);
        (same && !another) || shared.any(|place| place != alarmed && place != others)
    }
}

/// Groups of two or more, by number.
#[must_use]
pub fn groups(cases: &[Case], graph: &Graph) -> Vec<Group> {
    let newest = &cases[cases.len().saturating_sub(CASES_MAX)..];
    let all: Vec<&Case> = newest.iter().collect();
    let judged = newest.iter().map(|case| Judged::of(case, &all, graph));
    let judged: Vec<Judged<'_>> = judged.collect();
    let paired = |one: &Judged<'_>| judged.iter().map(|other| one.pairs(other)).collect();
    let paired: Vec<Vec<bool>> = judged.iter().map(paired).collect();
    let mut groups = Vec::new();
    let mut open = chains((0..judged.len()).collect(), &paired);
    while let Some(chain) = open.pop() {
        let of = |place: usize| judged.get(place);
        let members: Vec<&Judged<'_>> = chain.iter().copied().filter_map(of).collect();
        let Some(cause) = likeliest(&members) else {
            continue;
        };
        let core: Vec<&Judged<'_>> = members
            .into_iter()
            .filter(|one| one.likely.contains(&cause))
            .collect();
        let belongs = |one: &Judged<'_>| {
            let near = |other: &&Judged<'_>| one.follows(other) || other.follows(one);
            one.likely.contains(&cause) || core.iter().any(near)
        };
        let (own, rest): (Vec<usize>, Vec<usize>) =
            chain.iter().partition(|one| of(**one).is_some_and(belongs));
        let own: Vec<&Judged<'_>> = own.into_iter().filter_map(of).collect();
        if own.len() > 1 {
            groups.push(group(&own, &cause));
        }
        open.extend(chains(rest, &paired));
    }
    groups.sort_by_key(|group| group.id);
    groups
}

/// Most incidents that are told to be a coincidence: what a person reads.
const COINCIDENT_MAX: usize = 8;

/// What began in the same while as an incident, is not of its group and is not connected with
/// it: what a person at a screen takes for its consequence, or its cause. The nearest in time
/// first.
#[must_use]
pub fn coincident(
    of: &Case,
    causes: &Causes,
    cases: &[Case],
    (group, graph): (Option<&Group>, &Graph),
) -> Vec<Coincident> {
    let members = group.iter().flat_map(|group| &group.members);
    let members = members.map(|member| member.incident);
    let suspected = causes.suspects.iter().filter_map(|one| one.incident);
    let known: BTreeSet<u64> = members.chain(suspected).chain([of.incident]).collect();
    let away = |case: &Case| case.from_ms.abs_diff(of.from_ms);
    let reach = graph.reach(&causes.alarmed);
    let apart = |case: &Case| {
        let alarmed = case.alarmed(graph);
        !reach.contains_key(&alarmed) && !graph.reach(&alarmed).contains_key(&causes.alarmed)
    };
    let mut found: Vec<&Case> = cases
        .iter()
        .filter(|case| !known.contains(&case.incident) && away(case) <= AROUND_MS)
        .filter(|case| apart(case))
        .collect();
    found.sort_by_key(|case| (away(case), case.incident));
    found.truncate(COINCIDENT_MAX);
    let told = |case: &Case| Coincident {
        incident: case.incident,
        alarmed: case.alarmed(graph),
        away_ms: away(case),
    };
    found.into_iter().map(told).collect()
}

/// Those that hang together by pairs, of two and more.
fn chains(mut left: Vec<usize>, paired: &[Vec<bool>]) -> Vec<Vec<usize>> {
    let mut chains = Vec::new();
    let pair = |a: usize, b: usize| paired.get(a).and_then(|row| row.get(b)) == Some(&true);
    while let Some(first) = left.pop() {
        let (mut chain, mut next) = (vec![first], 0);
        while let Some(one) = chain.get(next).copied() {
            chain.extend(left.extract_if(.., |other| pair(one, *other)));
            next += 1;
        }
        if chain.len() > 1 {
            chains.push(chain);
        }
    }
    chains
}

/// What most of them speaks for.
fn likeliest(members: &[&Judged<'_>]) -> Option<Place> {
    let mut votes: BTreeMap<&Place, f64> = BTreeMap::new();
    for one in members {
        let suspects = one.causes.suspects.iter();
        for suspect in suspects.filter(|suspect| one.likely.contains(&suspect.place)) {
            *votes.entry(&suspect.place).or_default() += suspect.confidence;
        }
    }
    let votes = votes.into_iter();
    let most = votes.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(a.0)));
    most.map(|(place, _)| place.clone())
}

fn group(members: &[&Judged<'_>], cause: &Place) -> Group {
    // Nearest to the cause; of equally near ones, the first to show. What shows long after
    // another one has not led to it.
    let first = members.iter().map(|one| one.case.from_ms).min();
    let early = first.unwrap_or(0).saturating_add(AROUND_MS);
    let early = members.iter().filter(|one| one.case.from_ms <= early);
    let root = early.min_by_key(|one| {
        let away = one.reach.get(cause).copied().unwrap_or(usize::MAX);
        (away, one.case.from_ms, one.case.incident)
    });
    let root = root.map_or(0, |one| one.case.incident);
    let mut all: Vec<Member> = members
        .iter()
        .map(|one| {
            let incident = one.case.incident;
            Member {
                incident,
                alarmed: one.causes.alarmed.clone(),
                consequence: incident != root,
                because: (incident != root).then(|| because(one, members, (root, cause))),
            }
        })
        .collect();
    all.sort_by_key(|member| member.incident);
    Group {
        id: all.first().map_or(root, |first| first.incident),
        root,
        cause: Some(cause.clone()),
        members: all,
    }
}

/// Why one belongs to a group: of those that it goes with, the root first.
fn because(one: &Judged<'_>, members: &[&Judged<'_>], (root, cause): (u64, &Place)) -> String {
    let mut others: Vec<&&Judged<'_>> = members.iter().collect();
    others.sort_by_key(|other| (other.case.incident != root, other.case.incident));
    if let Some(other) = others.iter().find(|other| one.follows(other)) {
        return format!(
            "it needs {}, and {cause} is behind both",
            other.causes.alarmed
        );
    }
    if one.likely.contains(cause) {
        return format!("it comes from {cause} too, as far as is known");
    }
    let by = others.iter().find(|other| other.follows(one));
    by.map_or_else(String::new, |other| {
        format!("{} needs it, and comes from {cause}", other.causes.alarmed)
    })
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
    fn a_chain_of_pairs_is_as_many_groups_as_it_has_causes() {
        let graph = two();
        let broker = || Component::Dependency(Part::new("broker").unwrap());
        // Each suspects something that the next does, and the ends share nothing.
        let all = [
            told(case(1, "east", "infer-1", 0), &[(disk(), 0.9)]),
            told(
                case(2, "east", "camera", 1_000),
                &[(disk(), 0.5), (broker(), 0.4)],
            ),
            told(case(3, "west", "sync", 2_000), &[(broker(), 0.9)]),
            told(case(4, "west", "log", 3_000), &[(broker(), 0.9)]),
        ];
        let found = groups(&all, &graph);
        assert_eq!(
            lines(&found),
            ["2* 3 4: dependency broker of plant"],
            "{found:?}"
        );
        let why: Vec<_> = found[0].members.iter().map(|m| &m.because).collect();
        let too = "it comes from dependency broker of plant too, as far as is known";
        assert_eq!(why, [&None, &Some(too.to_owned()), &Some(too.to_owned())]);
    }

    #[test]
    fn what_shows_long_after_another_one_has_not_led_to_it() {
        let graph = two();
        let west = told(case(1, "west", "gateway", 5_000), &[(far(), 0.8)]);
        let west = Case {
            to_ms: u64::MAX,
            ..west
        };
        let east = told(case(2, "east", "infer-1", 34_000), &[(disk(), 0.75)]);
        let found = groups(&[west.clone(), east.clone()], &graph);
        assert_eq!(lines(&found), ["1 2*: sda of east"]);
        let late = Case {
            from_ms: 36_000,
            ..east
        };
        let found = groups(&[west, late], &graph);
        assert_eq!(lines(&found), ["1* 2: sda of east"]);
        assert_eq!(
            found[0].members[1].because.as_deref(),
            Some("it comes from sda of east too, as far as is known")
        );
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
    fn what_began_in_the_same_while_and_has_another_cause_is_told_as_that() {
        let graph = two();
        let all = [
            told(case(1, "west", "gateway", 5_000), &[(far(), 0.8)]),
            told(case(2, "east", "infer-1", 4_000), &[(disk(), 0.75)]),
            told(case(3, "west", "log", 9_000), &[(service("log"), 0.9)]),
            told(case(4, "west", "sync", 36_000), &[(service("sync"), 0.9)]),
            // It needs what 2 is about, whatever is behind it.
            told(case(5, "west", "gateway", 8_000), &[]),
        ];
        let found = groups(&all, &graph);
        assert_eq!(lines(&found), ["1 2*: sda of east"]);
        let beside = |of: usize| {
            let group = found.iter().find(|group| of < 2 && group.id == 1);
            let each: Vec<&Case> = all.iter().collect();
            let causes = causes(&all[of], &each, &graph, &Heard::new());
            let all = coincident(&all[of], &causes, &all, (group, &graph));
            all.iter().map(|one| one.incident).collect::<Vec<_>>()
        };
        assert_eq!(beside(0), [3], "neither its group, nor what is long after");
        assert_eq!(beside(1), [3], "nor who needs it");
        assert_eq!(beside(2), [5, 1, 2, 4], "the nearest first");
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
