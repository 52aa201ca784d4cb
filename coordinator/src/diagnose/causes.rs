//! Who is behind an incident, across nodes.
//!
//! In: what the incident's node says of its suspects, the incidents of other nodes in the same
//! while, and who needs whom in the fleet. Out: one ranking, the causal graph between, and the
//! way from what is alarmed to what is behind it.
//!
//! A node sees no further than its own border: of a route to another node it can say that
//! "what is behind it" is the likeliest. If that node has an incident of its own on the way,
//! its suspects take the place of the border, each with its part of what the border had
//! (`P(c) = P(border) P(c | border)`); what that node leaves for none of its suspects stays
//! with the border. So confidence is never made up, and stays at most 1 in all.
//!
//! Two components in trouble of which neither needs the other, but both need a third one, may
//! move together for that one's sake. If it shows no trouble itself, it is a confounder nobody
//! has measured, and the two are joined by a link that says so (the two-headed arc of Pearl's
//! semi-Markovian graphs, 2009, 3.2).

use std::collections::{BTreeMap, BTreeSet};

use homeostat_common::suspect::{REASONS_MAX, SUSPECTS_MAX};
use homeostat_common::wire::body::Diagnosed;

use super::graph::Graph;
use crate::fleet::diagnosis::{
    Causes, ChainLink, Kind, Level, Link, Place, Probe, Role, Suspected,
};

/// How many borders are crossed: a request that passes more nodes is not answered in time.
const BORDERS_MAX: usize = 8;

/// Most lines of a graph: a picture that a person can read.
pub const LINKS_MAX: usize = 64;

/// Most components in trouble whose pairs are looked at for a common need.
const TROUBLED_MAX: usize = 24;

/// How long before another one an incident may have been over to have led to it: the time by
/// which one node notices another.
pub const AROUND_MS: u64 = 30_000;

/// An incident with what its node told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Its number in the fleet.
    pub incident: u64,
    /// Its node.
    pub node: String,
    /// Its service.
    pub service: String,
    /// First sign, by the coordinator's clock.
    pub from_ms: u64,
    /// Its end; `u64::MAX` while it is open.
    pub to_ms: u64,
    /// How sure its node is of what is behind it.
    pub confidence: f64,
    /// What that rests on.
    pub evidence: Vec<String>,
    /// Who its node suspects, and when it said so; absent from agents that do not.
    pub diagnosed: Option<(Diagnosed, u64)>,
}

impl Case {
    /// What its alarm is about.
    #[must_use]
    pub fn alarmed(&self, graph: &Graph) -> Place {
        match &self.diagnosed {
            Some((told, _)) => graph.place(&self.node, &told.alarmed),
            None => Place::of(Kind::Service, &self.node, &self.service),
        }
    }

    /// Whether this one was there while, or shortly before, the other one was.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.from_ms <= other.to_ms.saturating_add(AROUND_MS)
            && other.from_ms <= self.to_ms.saturating_add(AROUND_MS)
    }

    /// The suspects of its node, as places in the fleet.
    fn suspects(&self, graph: &Graph) -> Vec<Suspected> {
        let Some((told, at_ms)) = &self.diagnosed else {
            return vec![Suspected {
                place: self.alarmed(graph),
                confidence: self.confidence.clamp(0.0, 1.0),
                share: 0.0,
                began_ms: Some(self.from_ms),
                evidence: self.evidence.clone(),
                explained_by: None,
                incident: self.incident,
            }];
        };
        let suspects = told.suspects.iter().take(SUSPECTS_MAX);
        let suspects = suspects.map(|one| Suspected {
            place: graph.place(&self.node, &one.component),
            confidence: f64::from(one.confidence.get()),
            share: f64::from(one.share.get()),
            began_ms: one.began.map(|before| at_ms.saturating_sub(before.0)),
            evidence: one.evidence.clone(),
            explained_by: one
                .explained_by
                .as_ref()
                .map(|by| graph.place(&self.node, by)),
            incident: self.incident,
        });
        suspects.collect()
    }
}

/// Ranks who is behind `case`; of `others`, those count that [`Case::meets`] it.
#[must_use]
pub fn causes(case: &Case, others: &[&Case], graph: &Graph) -> Causes {
    let others: Vec<&Case> = others
        .iter()
        .copied()
        .filter(|one| one.meets(case))
        .collect();
    let mut seen = BTreeSet::from([case.incident]);
    let mut found = across(case, &others, graph, &mut seen, 0);
    let total: f64 = found.values().map(|one| one.confidence).sum();
    if total > 1.0 {
        // A node that gives away more than there is.
        found.values_mut().for_each(|one| one.confidence /= total);
    }
    let mut suspects: Vec<Suspected> = found.into_values().collect();
    suspects.sort_by(|a, b| {
        (a.explained_by.is_some().cmp(&b.explained_by.is_some()))
            .then(b.confidence.total_cmp(&a.confidence))
            .then_with(|| a.place.cmp(&b.place))
    });
    suspects.truncate(SUSPECTS_MAX);
    let alarmed = case.alarmed(graph);
    let root = suspects.first().filter(|one| one.explained_by.is_none());
    let root = root.map(|one| one.place.clone());
    let told = || {
        let others = others.iter().copied();
        others
            .filter(|one| seen.contains(&one.incident))
            .chain([case])
    };
    let mut links = links(&alarmed, &suspects, told(), graph);
    let ill = suspects.iter().filter(|one| one.began_ms.is_some());
    let ill = ill.map(|one| one.place.clone());
    let ill = ill.chain(told().map(|case| case.alarmed(graph)));
    links.extend(confounded(ill.collect(), graph));
    links.truncate(LINKS_MAX);
    let chain = chain(&alarmed, root.as_ref(), &suspects, graph);
    let own = case.diagnosed.as_ref().map(|(told, _)| told);
    let probe = own.and_then(|told| told.tell_apart.as_ref());
    Causes {
        tell_apart: probe.map(|probe| {
            let place = |component| graph.place(&case.node, component);
            Probe {
                between: vec![place(&probe.between.0), place(&probe.between.1)],
                look_at: place(&probe.look_at),
                text: probe.text.clone(),
            }
        }),
        grade: own.map(|told| told.grade),
        spared: own.and_then(|told| told.spared.clone()),
        affected: graph
            .reached_by(&alarmed)
            .into_iter()
            .take(LINKS_MAX)
            .collect(),
        alarmed,
        root,
        suspects,
        links,
        chain,
    }
}

/// The suspects of a case, those behind a border in place of the border.
fn across(
    case: &Case,
    others: &[&Case],
    graph: &Graph,
    seen: &mut BTreeSet<u64>,
    borders: usize,
) -> BTreeMap<Place, Suspected> {
    let mut found = BTreeMap::new();
    for mut one in case.suspects(graph) {
        // Of a node that told nothing but its alarm, that is all there is to go on from.
        let border = one.place.at != case.node || case.diagnosed.is_none();
        let border = border && one.place.level == Level::Application && one.explained_by.is_none();
        let behind = (border && borders < BORDERS_MAX)
            .then(|| behind(&one.place, others, graph, seen))
            .flatten();
        if let Some(behind) = behind {
            seen.insert(behind.incident);
            let whole = one.confidence;
            for inner in across(behind, others, graph, seen, borders + 1).into_values() {
                one.confidence -= whole * inner.confidence;
                if one.explained_by.is_none() && inner.explained_by.is_none() {
                    one.explained_by = Some(inner.place.clone()).filter(|by| *by != one.place);
                }
                let inner = Suspected {
                    confidence: whole * inner.confidence,
                    share: one.share * inner.share,
                    ..inner
                };
                merge(&mut found, inner);
            }
            one.confidence = one.confidence.max(0.0);
        }
        merge(&mut found, one);
    }
    found
}

fn merge(found: &mut BTreeMap<Place, Suspected>, one: Suspected) {
    let Some(known) = found.get_mut(&one.place) else {
        found.insert(one.place.clone(), one);
        return;
    };
    known.confidence += one.confidence;
    known.share = known.share.max(one.share);
    known.began_ms = match (known.began_ms, one.began_ms) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    for line in one.evidence {
        if known.evidence.len() < REASONS_MAX && !known.evidence.contains(&line) {
            known.evidence.push(line);
        }
    }
    // Who has trouble of its own by one account is not explained away by another.
    known.explained_by = known.explained_by.take().and(one.explained_by);
}

/// The incident of another component that is nearest on the way down from `place`, itself
/// included; the earliest of those.
fn behind<'a>(
    place: &Place,
    others: &[&'a Case],
    graph: &Graph,
    seen: &BTreeSet<u64>,
) -> Option<&'a Case> {
    let reach = graph.reach(place);
    let near = others
        .iter()
        .filter(|one| !seen.contains(&one.incident))
        .filter_map(|one| {
            Some((
                *reach.get(&one.alarmed(graph))?,
                one.from_ms,
                one.incident,
                *one,
            ))
        });
    near.min_by_key(|(away, from_ms, incident, _)| (*away, *from_ms, *incident))
        .map(|(_, _, _, case)| case)
}

/// Who needs whom between the alarmed one and the suspects.
fn links<'a>(
    alarmed: &Place,
    suspects: &[Suspected],
    told: impl Iterator<Item = &'a Case>,
    graph: &Graph,
) -> Vec<Link> {
    let mut links = BTreeSet::new();
    for suspect in suspects {
        for step in graph.path(alarmed, &suspect.place).windows(2) {
            links.insert((step[0].clone(), step[1].clone()));
        }
    }
    for case in told {
        let edges = case.diagnosed.iter().flat_map(|(told, _)| &told.edges);
        for edge in edges.take(LINKS_MAX) {
            let place = |component| graph.place(&case.node, component);
            let (from, to) = (place(&edge.from), place(&edge.needs));
            if from != to {
                links.insert((from, to));
            }
        }
    }
    let links = links.into_iter().take(LINKS_MAX);
    links
        .map(|(from, to)| Link {
            from,
            to,
            confounded_by: None,
        })
        .collect()
}

/// Pairs of components in trouble that may move together for the sake of a third one that
/// shows none.
fn confounded(ill: BTreeSet<Place>, graph: &Graph) -> Vec<Link> {
    let reach: BTreeMap<Place, BTreeMap<Place, usize>> = ill
        .into_iter()
        .take(TROUBLED_MAX)
        .map(|place| {
            let reach = graph.reach(&place);
            (place, reach)
        })
        .collect();
    let mut links = Vec::new();
    for (place, (from, own)) in reach.iter().enumerate() {
        for (to, other) in reach.iter().skip(place + 1) {
            if own.contains_key(to) || other.contains_key(from) {
                continue;
            }
            let common = || {
                own.iter()
                    .filter_map(|(need, a)| Some((a + other.get(need)?, need)))
            };
            // A common need in trouble explains both by lines of its own.
            if common().any(|(_, need)| reach.contains_key(need)) {
                continue;
            }
            if let Some((_, by)) = common().min() {
                links.push(Link {
                    from: from.clone(),
                    to: to.clone(),
                    confounded_by: Some(by.clone()),
                });
            }
        }
    }
    links
}

/// From what is alarmed down to the root, and one step below where that stays on one level:
/// what the root stands on and shows no trouble.
fn chain(
    alarmed: &Place,
    root: Option<&Place>,
    suspects: &[Suspected],
    graph: &Graph,
) -> Vec<ChainLink> {
    let root = root.unwrap_or(alarmed);
    let mut path = graph.path(alarmed, root);
    if path.is_empty() {
        // Nobody told how they hang together.
        path = vec![alarmed.clone()];
        path.extend(Some(root.clone()).filter(|root| root != alarmed));
    }
    let last = path.len() - 1;
    let mut chain: Vec<ChainLink> = path
        .into_iter()
        .enumerate()
        .map(|(step, place)| ChainLink {
            role: match step {
                step if step == last => Role::Root,
                0 => Role::Alarmed,
                _ => Role::Between,
            },
            evidence: evidence(&place, suspects),
            place,
        })
        .collect();
    if chain.iter().all(|one| one.place.level == root.level) {
        let below = graph.reach(root);
        let below = below
            .into_iter()
            .filter(|(place, _)| place.level < root.level);
        if let Some((place, _)) = below.min_by_key(|(_, away)| *away) {
            chain.push(ChainLink {
                role: Role::Below,
                evidence: evidence(&place, suspects),
                place,
            });
        }
    }
    chain
}

fn evidence(place: &Place, suspects: &[Suspected]) -> Vec<String> {
    let known = suspects.iter().find(|one| one.place == *place);
    known.map_or_else(Vec::new, |one| one.evidence.clone())
}

#[cfg(test)]
pub(super) mod tests {
    use homeostat_common::ids::{IncidentId, ServiceId};
    use homeostat_common::observation::Part;
    use homeostat_common::suspect::{Component, Grade, Suspect};
    use homeostat_common::units::{Millis, Ratio};

    use super::super::graph::tests::{service, two};
    use super::*;

    pub(crate) fn case(incident: u64, node: &str, service: &str, from_ms: u64) -> Case {
        Case {
            incident,
            node: node.into(),
            service: service.into(),
            from_ms,
            to_ms: from_ms + 10_000,
            confidence: 0.8,
            evidence: vec![format!("{service} is silent")],
            diagnosed: None,
        }
    }

    /// The same, with whom its node suspects, each with a confidence.
    pub(crate) fn told(case: Case, suspects: &[(Component, f32)]) -> Case {
        let suspects = suspects.iter().map(|(component, confidence)| Suspect {
            component: component.clone(),
            confidence: Ratio::saturating(*confidence),
            share: Ratio::saturating(0.5),
            began: Some(Millis(1_000)),
            evidence: vec![format!("{component} is in trouble")],
            explained_by: None,
        });
        let diagnosed = Diagnosed {
            incident: IncidentId(case.incident),
            alarmed: Component::Service(ServiceId::new(&case.service).unwrap()),
            suspects: suspects.collect(),
            edges: Vec::new(),
            tell_apart: None,
            grade: Grade::Full,
            affected: Vec::new(),
            spared: None,
        };
        let at_ms = case.from_ms + 2_000;
        Case {
            diagnosed: Some((diagnosed, at_ms)),
            ..case
        }
    }

    pub(crate) fn disk() -> Component {
        Component::Part(Part::new("sda").unwrap())
    }

    fn lines(causes: &Causes) -> Vec<String> {
        let line = |one: &Suspected| format!("{} {:.2}", one.place, one.confidence);
        causes.suspects.iter().map(line).collect()
    }

    #[test]
    fn what_is_behind_a_border_takes_the_place_of_the_border() {
        let graph = two();
        let far = Component::Backend(ServiceId::new("east").unwrap());
        let west = told(
            case(1, "west", "gateway", 5_000),
            &[(far, 0.8), (service("gateway"), 0.1)],
        );
        let east = told(case(2, "east", "infer-1", 4_000), &[(disk(), 0.75)]);
        let found = causes(&west, &[&east], &graph);
        assert_eq!(
            lines(&found),
            [
                "sda of east 0.60",
                "gateway on west 0.10",
                "route infer on east 0.20"
            ]
        );
        assert_eq!(found.root.as_ref().unwrap().to_string(), "sda of east");
        assert_eq!(
            found.suspects[2].explained_by.as_ref().unwrap().to_string(),
            "sda of east"
        );
        let chain: Vec<String> = found
            .chain
            .iter()
            .map(|one| format!("{} ({})", one.place, one.place.level))
            .collect();
        assert_eq!(
            chain,
            [
                "gateway on west (application)",
                "route infer on west (application)",
                "route infer on east (application)",
                "infer-1 on east (application)",
                "sda of east (infrastructure)"
            ]
        );
        assert_eq!(found.chain[4].evidence, ["sda of the node is in trouble"]);
        // Long over: no matter of this one.
        let old = Case {
            from_ms: 0,
            to_ms: 1,
            ..east
        };
        let west = Case {
            from_ms: 100_000,
            to_ms: 110_000,
            ..west
        };
        assert_eq!(
            lines(&causes(&west, &[&old], &graph)),
            ["route infer on east 0.80", "gateway on west 0.10"]
        );
    }

    #[test]
    fn a_node_that_told_its_alarm_alone_is_looked_behind_by_who_needs_whom() {
        let graph = two();
        let west = case(1, "west", "gateway", 5_000);
        let east = told(case(2, "east", "infer-1", 4_000), &[(disk(), 0.5)]);
        let found = causes(&west, &[&east], &graph);
        assert_eq!(lines(&found), ["sda of east 0.40", "gateway on west 0.40"]);
        // The other way round nothing follows: infer-1 does not need the gateway.
        let found = causes(&east, &[&west], &graph);
        assert_eq!(lines(&found), ["sda of east 0.50"]);
        assert_eq!(found.affected.len(), 5, "{:?}", found.affected);
    }

    #[test]
    fn two_in_trouble_that_share_an_innocent_need_are_joined_by_a_confounded_link() {
        let graph = two();
        // Both gateways: each needs the broker of the site, which shows nothing.
        let west = told(
            case(1, "west", "gateway", 5_000),
            &[(service("gateway"), 0.5), (Component::Node, 0.2)],
        );
        let found = causes(&west, &[], &graph);
        assert!(found.links.iter().all(|link| link.confounded_by.is_none()));
        let east = told(
            case(2, "east", "infer-1", 4_000),
            &[(service("infer-1"), 0.5), (service("gateway"), 0.2)],
        );
        let found = causes(&east, &[], &graph);
        let dashed: Vec<String> = found
            .links
            .iter()
            .filter_map(|link| {
                let by = link.confounded_by.as_ref()?;
                Some(format!("{} - {} by {by}", link.from, link.to))
            })
            .collect();
        assert!(dashed.is_empty(), "the gateway needs infer-1: {dashed:?}");
        let both = told(
            case(3, "west", "gateway", 4_000),
            &[(service("gateway"), 0.5), (service("other"), 0.2)],
        );
        let links = confounded(
            BTreeSet::from([
                both.alarmed(&graph),
                Place::of(Kind::Service, "east", "infer-1"),
                Place::of(Kind::Service, "nowhere", "x"),
            ]),
            &graph,
        );
        assert!(
            links.is_empty(),
            "one needs the other, the third shares nothing"
        );
    }

    #[test]
    fn one_that_stays_on_one_level_says_what_it_stands_on() {
        let graph = two();
        let found = causes(&case(1, "west", "gateway", 0), &[], &graph);
        let roles: Vec<_> = found.chain.iter().map(|one| one.role).collect();
        assert_eq!(roles, [Role::Root, Role::Below]);
        assert_eq!(found.chain[1].place.level, Level::Infrastructure);
    }

    #[test]
    fn a_node_that_gives_away_more_than_there_is_gets_no_more() {
        let graph = two();
        let greedy = told(
            case(1, "west", "gateway", 0),
            &[
                (service("gateway"), 1.0),
                (Component::Node, 1.0),
                (disk(), 1.0),
            ],
        );
        let sum: f64 = causes(&greedy, &[], &graph)
            .suspects
            .iter()
            .map(|one| one.confidence)
            .sum();
        assert!((sum - 1.0).abs() < 1e-9);
    }
}
