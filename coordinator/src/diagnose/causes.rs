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
//! with the border. So confidence is never made up, and stays at most 1 in all. Where that node
//! tells of no incident, what it measured may speak ([`super::ranking`]).

use std::collections::{BTreeMap, BTreeSet};

use homeostat_common::suspect::{REASONS_MAX, SUSPECTS_MAX};
use homeostat_common::wire::body::Diagnosed;

use super::graph::Graph;
use super::picture::{LINKS_MAX, chain, confounded, links};
use super::ranking::Ranked;
use crate::fleet::diagnosis::{Causes, Kind, Level, Place, Probe, Suspected};

/// What measurements say of who is behind a component, by component.
pub type Heard = BTreeMap<Place, Ranked>;

/// How many borders are crossed: a request that passes more nodes is not answered in time.
const BORDERS_MAX: usize = 8;

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
    /// What its node takes it for.
    pub fault: Option<String>,
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
        // Of one that does not say, what is left is what it believes of the service itself. One
        // that looked and suspects nobody is believed: how sure it is of the fault says nothing
        // about where that comes from.
        let Some((told, at_ms)) = &self.diagnosed else {
            return vec![Suspected {
                place: self.alarmed(graph),
                confidence: self.confidence.clamp(0.0, 1.0),
                share: 0.0,
                began_ms: Some(self.from_ms),
                evidence: self.evidence.clone(),
                explained_by: None,
                incident: Some(self.incident),
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
            incident: Some(self.incident),
        });
        suspects.collect()
    }
}

/// Components behind which no node looked, and measurements may: what a diagnosis of `case`
/// ends at beyond the border of who told it.
#[must_use]
pub fn borders(case: &Case, others: &[&Case], graph: &Graph) -> Vec<Place> {
    let found = causes(case, others, graph, &Heard::new());
    let node = |incident: Option<u64>| {
        let told = others.iter().find(|one| Some(one.incident) == incident);
        told.map_or(case, |told| *told)
    };
    let open = found.suspects.into_iter().filter(|one| {
        let told = node(one.incident);
        one.explained_by.is_none()
            && one.place.level == Level::Application
            && (one.place.at != told.node || told.diagnosed.is_none())
    });
    open.map(|one| one.place).collect()
}

/// Ranks who is behind `case`; of `others`, those count that [`Case::meets`] it.
#[must_use]
pub fn causes(case: &Case, others: &[&Case], graph: &Graph, heard: &Heard) -> Causes {
    let others: Vec<&Case> = others
        .iter()
        .copied()
        .filter(|one| one.meets(case))
        .collect();
    let mut seen = BTreeSet::from([case.incident]);
    let mut found = across(case, &others, (graph, heard), &mut seen, 0);
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
    let measured = suspects
        .iter()
        .find_map(|one| heard.get(&one.place)?.probe.clone());
    Causes {
        tell_apart: probe
            .map(|probe| {
                let place = |component| graph.place(&case.node, component);
                Probe {
                    between: vec![place(&probe.between.0), place(&probe.between.1)],
                    look_at: place(&probe.look_at),
                    text: probe.text.clone(),
                }
            })
            .or(measured),
        grade: own.map(|told| told.grade),
        // Of one that is over nothing waits any more.
        spared: own
            .filter(|_| case.to_ms == u64::MAX)
            .and_then(|told| told.spared.clone()),
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
    (graph, heard): (&Graph, &Heard),
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
        let inner: Vec<Suspected> = if let Some(behind) = behind {
            seen.insert(behind.incident);
            let inner = across(behind, others, (graph, heard), seen, borders + 1);
            inner.into_values().collect()
        } else if let Some(ranked) = heard.get(&one.place).filter(|_| border) {
            ranked.suspects.clone()
        } else {
            Vec::new()
        };
        let whole = one.confidence;
        one.explained_by = one.explained_by.or_else(|| explains(&one.place, &inner));
        for inner in inner {
            // What is left with the border itself stays there, and why.
            if inner.place == one.place {
                let room = REASONS_MAX.saturating_sub(one.evidence.len());
                one.evidence.extend(inner.evidence.into_iter().take(room));
                continue;
            }
            one.confidence -= whole * inner.confidence;
            let inner = Suspected {
                confidence: whole * inner.confidence,
                share: one.share * inner.share,
                ..inner
            };
            merge(&mut found, inner);
        }
        one.confidence = one.confidence.max(0.0);
        merge(&mut found, one);
    }
    found
}

/// Who explains a border away: the likeliest behind it, where they are together no less likely
/// than what they leave with the border.
fn explains(border: &Place, inner: &[Suspected]) -> Option<Place> {
    let beyond = inner
        .iter()
        .filter(|one| one.place != *border && one.explained_by.is_none());
    let all: f64 = beyond.clone().map(|one| one.confidence).sum();
    let likeliest = beyond.max_by(|a, b| a.confidence.total_cmp(&b.confidence));
    likeliest
        .filter(|_| all >= 0.5)
        .map(|one| one.place.clone())
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
            fault: None,
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
        let found = causes(&west, &[&east], &graph, &Heard::new());
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
            lines(&causes(&west, &[&old], &graph, &Heard::new())),
            ["route infer on east 0.80", "gateway on west 0.10"]
        );
    }

    #[test]
    fn a_node_that_told_its_alarm_alone_is_looked_behind_by_who_needs_whom() {
        let graph = two();
        let west = case(1, "west", "gateway", 5_000);
        let east = told(case(2, "east", "infer-1", 4_000), &[(disk(), 0.5)]);
        let found = causes(&west, &[&east], &graph, &Heard::new());
        assert_eq!(lines(&found), ["sda of east 0.40", "gateway on west 0.40"]);
        // The other way round nothing follows: infer-1 does not need the gateway.
        let found = causes(&east, &[&west], &graph, &Heard::new());
        assert_eq!(lines(&found), ["sda of east 0.50"]);
        assert_eq!(found.affected.len(), 5, "{:?}", found.affected);
    }

    #[test]
    fn where_nobody_looked_behind_a_border_measurements_speak() {
        let graph = two();
        let far = Component::Backend(ServiceId::new("east").unwrap());
        let west = told(case(1, "west", "gateway", 5_000), &[(far, 0.8)]);
        let border = Place::of(Kind::Route, "east", "infer");
        assert_eq!(borders(&west, &[], &graph), std::slice::from_ref(&border));
        let suspect = |place: &Place, confidence| Suspected {
            place: place.clone(),
            confidence,
            share: confidence,
            began_ms: None,
            evidence: vec!["it is busy".into()],
            explained_by: None,
            incident: None,
        };
        let disk = Place::of(Kind::Part, "east", "sda");
        let heard = Heard::from([(
            border.clone(),
            Ranked {
                suspects: vec![suspect(&disk, 0.5), suspect(&border, 0.25)],
                probe: None,
            },
        )]);
        let found = causes(&west, &[], &graph, &heard);
        assert_eq!(
            lines(&found),
            ["sda of east 0.40", "route infer on east 0.40"]
        );
        assert_eq!(found.root, Some(disk));
    }

    #[test]
    fn a_border_is_not_explained_away_by_somebody_who_is_hardly_likely() {
        let graph = two();
        let west = case(1, "west", "gateway", 5_000);
        let east = told(
            case(2, "east", "infer-1", 4_000),
            &[(service("infer-1"), 0.8), (disk(), 0.1)],
        );
        let far = Component::Backend(ServiceId::new("east").unwrap());
        let west = told(west, &[(far, 0.8)]);
        let found = causes(&west, &[&east], &graph, &Heard::new());
        assert_eq!(
            found.root.as_ref().map(ToString::to_string).as_deref(),
            Some("infer-1 on east"),
            "{found:?}"
        );
        let infer = Place::of(Kind::Service, "east", "infer-1");
        let of = |place: &Place, confidence| Suspected {
            place: place.clone(),
            confidence,
            share: confidence,
            began_ms: None,
            evidence: Vec::new(),
            explained_by: None,
            incident: None,
        };
        let disk = Place::of(Kind::Part, "east", "sda");
        let inner = [of(&infer, 0.8), of(&disk, 0.1)];
        assert_eq!(explains(&infer, &inner), None, "most of it is its own");
        let inner = [of(&infer, 0.2), of(&disk, 0.7)];
        assert_eq!(explains(&infer, &inner), Some(disk));
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
        let sum: f64 = causes(&greedy, &[], &graph, &Heard::new())
            .suspects
            .iter()
            .map(|one| one.confidence)
            .sum();
        assert!((sum - 1.0).abs() < 1e-9);
    }
}
