//! Why a component is in trouble: one chain, from the component down to what is behind it.
//!
//! In: the incidents that are open or were lately, and who needs whom. Out: the chain of the
//! incident that is about the component, or about what it needs; where there is none, that of
//! the incident in which it is suspected, as a dependency is that has none of its own; and
//! else what it stands on, and that nothing is known to be wrong.

use std::collections::BTreeMap;

use super::causes::{Case, Heard, causes};
use super::graph::Graph;
use super::picture;
use crate::fleet::diagnosis::{Causes, ChainLink, Kind, Level, Place, Role, Why};
use crate::fleet::purpose::OnPurpose;

/// Most components that are named where none is the one that was asked about: a line or two.
const NAMED_MAX: usize = 8;

/// What ended before that is no longer lately: who comes in the morning asks about the night.
const LATELY_MS: u64 = 24 * 3_600_000;

/// Most answers; of more, those in trouble come first.
pub const ANSWERS_MAX: usize = 32;

/// An incident with who may be behind it.
type Judged<'a> = (&'a Case, Causes);

/// Those that are open, or were less than a day ago.
#[must_use]
pub fn lately(mut cases: Vec<Case>, now_ms: u64) -> Vec<Case> {
    cases.retain(|case| case.to_ms.saturating_add(LATELY_MS) >= now_ms);
    cases
}

/// The incidents that speak for these places, each once.
#[must_use]
pub fn speaking<'a>(places: &[Place], cases: &'a [Case], graph: &Graph) -> Vec<&'a Case> {
    let alarmed = alarmed(cases, graph);
    let mut found: Vec<&Case> = Vec::new();
    for place in places {
        let Some(at) = speaks(place, cases, &alarmed, graph) else {
            continue;
        };
        if !found.iter().any(|one| one.incident == cases[at].incident) {
            found.push(&cases[at]);
        }
    }
    found
}

/// The answers for these places: what is in trouble comes first, one with an incident of its
/// own before those that need something with one. At most [`ANSWERS_MAX`], the last of which
/// tells how many more there are. `heard`: what measurements say, by incident.
#[must_use]
pub fn answers(
    places: &[Place],
    cases: &[Case],
    graph: &Graph,
    heard: &BTreeMap<u64, Heard>,
) -> Vec<Why> {
    let all: Vec<&Case> = cases.iter().collect();
    let nothing = Heard::new();
    let alarmed = alarmed(cases, graph);
    // Who is behind an incident is the same whoever asks.
    let judged: Vec<Judged<'_>> = cases
        .iter()
        .map(|case| {
            let heard = heard.get(&case.incident).unwrap_or(&nothing);
            (case, causes(case, &all, graph, heard))
        })
        .collect();
    let mut found: Vec<Why> = places
        .iter()
        .map(|place| match speaks(place, cases, &alarmed, graph) {
            Some(at) => why(place, judged[at].0, &judged[at].1, graph),
            None => {
                let suspected = suspected(place, &judged, graph);
                suspected.unwrap_or_else(|| untroubled(place, graph))
            }
        })
        .collect();
    found.sort_by_key(|one| {
        let own = one.incident.and(one.chain.first());
        let own = own.is_some_and(|of| of.role != Role::Between);
        (!one.open, !own, std::cmp::Reverse(one.incident))
    });
    let left_out = found.len().saturating_sub(ANSWERS_MAX) as u64;
    found.truncate(ANSWERS_MAX);
    if let Some(last) = found.last_mut() {
        last.left_out = left_out;
    }
    found
}

fn alarmed(cases: &[Case], graph: &Graph) -> Vec<Place> {
    cases.iter().map(|case| case.alarmed(graph)).collect()
}

/// The incident that speaks for a place: what is open before what is over, what it is about
/// before what it needs, the newest.
fn speaks(place: &Place, cases: &[Case], alarmed: &[Place], graph: &Graph) -> Option<usize> {
    let reach = graph.reach(place);
    let found = cases.iter().zip(alarmed).enumerate();
    let found = found.filter_map(|(at, (case, of))| Some((*reach.get(of)?, case, at)));
    let found = found.max_by_key(|(away, case, _)| {
        (
            case.to_ms == u64::MAX,
            usize::MAX - away,
            case.from_ms,
            case.incident,
        )
    });
    found.map(|(.., at)| at)
}

fn why(place: &Place, case: &Case, causes: &Causes, graph: &Graph) -> Why {
    let mut chain: Vec<ChainLink> = graph
        .path(place, &causes.alarmed)
        .into_iter()
        .filter(|one| *one != causes.alarmed)
        .map(|place| ChainLink {
            place,
            role: Role::Between,
            evidence: Vec::new(),
        })
        .collect();
    chain.extend(causes.chain.iter().cloned());
    let confidence = causes
        .suspects
        .iter()
        .find(|one| Some(&one.place) == causes.root.as_ref())
        .map(|one| one.confidence);
    let open = case.to_ms == u64::MAX;
    Why {
        place: place.clone(),
        incident: Some(case.incident),
        open,
        confidence,
        levels: levels(&chain),
        text: sentence(place, &chain, causes, confidence, open),
        chain,
        on_purpose: Vec::new(),
        left_out: 0,
    }
}

/// The answer for one that no incident is about, nor about what it needs, but that is
/// suspected in one: what is open before what is over, where it is the likeliest, the surest,
/// the newest.
fn suspected(place: &Place, judged: &[Judged<'_>], graph: &Graph) -> Option<Why> {
    let found = judged.iter().filter_map(|(case, causes)| {
        let suspect = causes.suspects.iter().find(|one| one.place == *place)?;
        Some((*case, causes, suspect))
    });
    let (case, causes, suspect) = found.max_by(|a, b| {
        let order = |(case, causes, _): &(&Case, &Causes, _)| {
            let root = causes.root.as_ref() == Some(place);
            (case.to_ms == u64::MAX, root)
        };
        let newest = (a.0.from_ms, a.0.incident).cmp(&(b.0.from_ms, b.0.incident));
        let surest = a.2.confidence.total_cmp(&b.2.confidence);
        order(a).cmp(&order(b)).then(surest).then(newest)
    })?;
    let open = case.to_ms == u64::MAX;
    let verb = if open { "is" } else { "was" };
    let alarmed = &causes.alarmed;
    let sure = format!("({:.0} % sure)", suspect.confidence * 100.0);
    let because = suspect.evidence.first();
    let because = because.map_or(String::new(), |line| format!(": {line}"));
    let root = causes.root.as_ref();
    let text = match (&suspect.explained_by, root) {
        (Some(by), _) => format!(
            "{place} {verb} in trouble with {alarmed}, and its trouble comes from {by}{because}."
        ),
        (None, Some(root)) if root != place => format!(
            "{place} {verb} suspected {sure} of the trouble of {alarmed}, after {root}{because}."
        ),
        (None, _) => {
            format!(
                "{place} {verb} the likeliest cause {sure} of the trouble of {alarmed}{because}."
            )
        }
    };
    let chain = if root == Some(place) {
        causes.chain.clone()
    } else {
        let mut chain = picture::chain(alarmed, Some(place), &causes.suspects, graph);
        for one in &mut chain {
            if one.role == Role::Root {
                one.role = Role::Between;
            }
        }
        chain
    };
    Some(Why {
        place: place.clone(),
        incident: Some(case.incident),
        open,
        confidence: Some(suspect.confidence),
        levels: levels(&chain),
        text,
        chain,
        on_purpose: Vec::new(),
        left_out: 0,
    })
}

fn untroubled(place: &Place, graph: &Graph) -> Why {
    let link = |place: &Place, role| ChainLink {
        place: place.clone(),
        role,
        evidence: Vec::new(),
    };
    let mut chain = vec![link(place, Role::Alarmed)];
    let below = graph.reach(place);
    let below = below.iter().filter(|(one, _)| one.level < place.level);
    chain.extend(
        below
            .min_by_key(|(_, away)| **away)
            .map(|(one, _)| link(one, Role::Below)),
    );
    Why {
        place: place.clone(),
        incident: None,
        open: false,
        confidence: None,
        levels: levels(&chain),
        text: format!(
            "No incident of the last day is known of {place}, nor of anything that it needs, among \
             those that are open and the newest 64; and it is suspected in none."
        ),
        chain,
        on_purpose: Vec::new(),
        left_out: 0,
    }
}

/// Each level once, in the order of the chain.
fn levels(chain: &[ChainLink]) -> Vec<Level> {
    let mut levels = Vec::new();
    for one in chain {
        if !levels.contains(&one.place.level) {
            levels.push(one.place.level);
        }
    }
    levels
}

fn sentence(
    place: &Place,
    chain: &[ChainLink],
    causes: &Causes,
    confidence: Option<f64>,
    open: bool,
) -> String {
    let verb = if open { "is" } else { "was" };
    let sure = confidence.map_or(String::new(), |sure| {
        format!(" ({:.0} % sure)", sure * 100.0)
    });
    let Some(root) = causes.root.as_ref() else {
        let of = match causes.alarmed == *place {
            true => String::new(),
            false => format!(" needs {}, which", causes.alarmed),
        };
        let nobody = causes.nobody();
        return format!("{place}{of} {verb} in trouble, and nobody is suspected: {nobody}.");
    };
    let because = chain.iter().rfind(|one| one.place == *root);
    let because = because.and_then(|one| one.evidence.first());
    let because = because.map_or(String::new(), |line| format!(": {line}"));
    if root == place {
        return format!("{place} {verb} itself the likeliest cause{sure}{because}.");
    }
    let way = chain
        .iter()
        .filter(|one| one.place != *place && one.place != *root);
    let way: Vec<String> = way
        .filter(|one| one.role != Role::Below)
        .map(|one| one.place.to_string())
        .collect();
    let way = match way.is_empty() {
        true => String::new(),
        false => format!(" through {}", way.join(", ")),
    };
    format!("{place} needs {root}{way}, which {verb} the likeliest cause{sure}{because}.")
}

/// Adds the faults that people put in on purpose, on nodes of the chain.
pub fn add_on_purpose(why: &mut Why, faults: &[OnPurpose], cases: &[Case], now_ms: u64) {
    let case = cases
        .iter()
        .find(|case| Some(case.incident) == why.incident);
    let (from_ms, to_ms) = case.map_or((now_ms, now_ms), |case| (case.from_ms, case.to_ms));
    let there = |fault: &&OnPurpose| {
        let place = why.chain.iter().map(|one| &one.place);
        let mut nodes = place.filter(|place| place.kind != Kind::Dependency);
        nodes.any(|place| place.at == fault.node)
    };
    let now = |fault: &&OnPurpose| fault.to_ms.is_none() || fault.may_show(from_ms, to_ms);
    let found = faults.iter().filter(now).filter(there).map(|fault| {
        let state = match fault.to_ms {
            None => "in force",
            Some(_) => "over",
        };
        format!("on {}, {state}: {}", fault.node, fault.text)
    });
    why.on_purpose = found.take(NAMED_MAX).collect();
}

/// What goes by that name, services first; on one node, or on all.
///
/// # Errors
/// Where it is instead, in words, if it is nowhere there. `nodes`: all that are known.
pub fn named(
    graph: &Graph,
    name: &str,
    node: Option<&str>,
    nodes: &[String],
) -> Result<Vec<Place>, String> {
    if let Some(node) = node.filter(|node| !nodes.iter().any(|one| one == node)) {
        return Err(format!("there is no node {node}; {}", known(nodes)));
    }
    let all = graph.places().filter(|place| match place.kind {
        Kind::Node => place.at == name,
        // It has the name of its service, which is asked about.
        Kind::Model => false,
        Kind::Service | Kind::Route | Kind::Backend | Kind::Dependency | Kind::Part => {
            place.name == name
        }
    });
    let of_node = |place: &&Place| {
        node.is_none_or(|node| match place.kind {
            // Of a site: of a node where something there needs it.
            Kind::Dependency => graph.reached_by(place).iter().any(|one| one.at == node),
            _ => place.at == node,
        })
    };
    let (mut found, elsewhere): (Vec<&Place>, Vec<&Place>) = all.partition(of_node);
    if !found.is_empty() {
        found.sort_by_key(|place| (place.kind != Kind::Service, *place));
        return Ok(found.into_iter().cloned().collect());
    }
    match node.filter(|_| !elsewhere.is_empty()) {
        Some(node) => {
            let there: Vec<String> = elsewhere.iter().map(ToString::to_string).collect();
            Err(format!("{node} has no {name}; there is {}", listed(&there)))
        }
        None => Err(format!(
            "no node has told of a service, route, backend, dependency, disk or link {name}"
        )),
    }
}

/// Which nodes there are, in words.
#[must_use]
pub fn known(nodes: &[String]) -> String {
    match nodes.is_empty() {
        true => "no node has reported yet".into(),
        false => format!("known are {}", listed(nodes)),
    }
}

fn listed(all: &[String]) -> String {
    let shown: Vec<&str> = all.iter().take(NAMED_MAX).map(String::as_str).collect();
    let more = match all.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    shown.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use homeostat_common::ids::ServiceId;
    use homeostat_common::observation::Part;
    use homeostat_common::suspect::Component;

    use super::super::causes::tests::{case, disk, told};
    use super::super::graph::tests::{service, two};
    use super::super::ranking::Ranked;
    use super::*;
    use crate::fleet::diagnosis::Suspected;

    fn why(place: &Place, cases: &[Case], graph: &Graph, heard: &BTreeMap<u64, Heard>) -> Why {
        let mut all = answers(std::slice::from_ref(place), cases, graph, heard);
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn a_slow_service_is_explained_by_a_disk_of_another_node() {
        let graph = two();
        let far = Component::Backend(ServiceId::new("east").unwrap());
        let cases = [
            told(case(1, "west", "gateway", 5_000), &[(far, 0.8)]),
            told(case(2, "east", "infer-1", 4_000), &[(disk(), 0.75)]),
        ];
        let place = graph.place("west", &service("gateway"));
        let found = why(&place, &cases, &graph, &BTreeMap::new());
        assert_eq!(found.incident, Some(1));
        assert_eq!(found.levels, [Level::Application, Level::Infrastructure]);
        assert_eq!(
            found.text,
            "gateway on west needs sda of east through route infer on west, route infer on east, \
             infer-1 on east, which was the likeliest cause (60 % sure): sda of the node is in \
             trouble."
        );
        // No incident of its own: the one of what it needs.
        let found = why(
            &graph.place("east", &service("gateway")),
            &cases[1..],
            &graph,
            &BTreeMap::new(),
        );
        assert_eq!((found.incident, found.chain.len()), (Some(2), 4));
        assert_eq!(found.levels.len(), 2);
    }

    #[test]
    fn one_that_is_not_in_trouble_is_said_to_be_so() {
        let graph = two();
        let place = graph.place("west", &service("gateway"));
        let found = why(&place, &[], &graph, &BTreeMap::new());
        assert!(found.incident.is_none() && found.text.starts_with("No incident of the last day"));
        assert_eq!(found.levels, [Level::Application, Level::Infrastructure]);
        let own = [case(1, "west", "gateway", 0)];
        assert!(
            why(&place, &own, &graph, &BTreeMap::new())
                .text
                .contains("itself the likeliest cause")
        );
    }

    #[test]
    fn what_is_suspected_and_has_no_incident_of_its_own_says_in_which() {
        let graph = two();
        let broker = || Component::Dependency(Part::new("broker").unwrap());
        let place = graph.place("west", &broker());
        let cases = [told(
            case(1, "west", "gateway", 5_000),
            &[(broker(), 0.8), (service("gateway"), 0.1)],
        )];
        let found = why(&place, &cases, &graph, &BTreeMap::new());
        assert_eq!(found.incident, Some(1));
        assert_eq!(
            found.text,
            "dependency broker of plant was the likeliest cause (80 % sure) of the trouble of \
             gateway on west: dependency broker is in trouble."
        );
        assert_eq!(found.chain.first().unwrap().role, Role::Alarmed);
        let end = found.chain.last().unwrap();
        assert_eq!((&end.place, end.role), (&place, Role::Root));
        // Suspected less than another one: no root.
        let cases = [told(
            case(1, "west", "gateway", 5_000),
            &[(service("gateway"), 0.6), (broker(), 0.3)],
        )];
        let found = why(&place, &cases, &graph, &BTreeMap::new());
        assert!(
            found
                .text
                .contains("suspected (30 % sure) of the trouble of gateway on west, after"),
            "{}",
            found.text
        );
        assert!(found.chain.iter().all(|one| one.role != Role::Root));
    }

    #[test]
    fn a_fault_on_purpose_is_told_where_it_may_be_behind_it() {
        let graph = two();
        let fault = |node: &str, from_ms, to_ms| OnPurpose {
            node: node.into(),
            text: "hog of infer-1, asked for by anna".into(),
            from_ms,
            to_ms,
        };
        let cases = [told(
            case(2, "east", "infer-1", 400_000),
            &[(service("infer-1"), 0.8)],
        )];
        let place = graph.place("east", &service("infer-1"));
        let mut found = why(&place, &cases, &graph, &BTreeMap::new());
        let faults = [
            fault("east", 390_000, None),
            fault("east", 0, Some(10_000)),
            fault("west", 390_000, None),
        ];
        add_on_purpose(&mut found, &faults, &cases, 500_000);
        assert_eq!(
            found.on_purpose,
            ["on east, in force: hog of infer-1, asked for by anna"]
        );
    }

    #[test]
    fn a_name_may_be_anybodys_and_who_has_it_elsewhere_is_said() {
        let graph = two();
        let nodes = ["east".to_owned(), "west".to_owned()];
        let found = |name: &str, node: Option<&str>| {
            let found = named(&graph, name, node, &nodes);
            found.map(|all| all.iter().map(Place::to_string).collect::<Vec<_>>())
        };
        assert_eq!(
            found("infer", Some("west")).unwrap(),
            ["route infer on west"]
        );
        assert_eq!(
            found("broker", Some("west")).unwrap(),
            ["dependency broker of plant"]
        );
        assert_eq!(found("gateway", None).unwrap().len(), 2);
        assert_eq!(found("sda", None).unwrap(), ["sda of east"]);
        assert_eq!(found("east", None).unwrap(), ["node east"]);
        for (name, node, wrong) in [
            (
                "infer-1",
                Some("west"),
                "west has no infer-1; there is infer-1 on east",
            ),
            (
                "gateway",
                Some("north"),
                "there is no node north; known are east, west",
            ),
            (
                "nobody",
                None,
                "no node has told of a service, route, backend, dependency, disk or link nobody",
            ),
        ] {
            assert_eq!(found(name, node).unwrap_err(), wrong);
        }
    }

    #[test]
    fn one_of_whom_its_node_suspects_nobody_is_no_cause_by_that() {
        let graph = two();
        let place = graph.place("west", &service("gateway"));
        let found = why(
            &place,
            &[told(case(1, "west", "gateway", 0), &[])],
            &graph,
            &BTreeMap::new(),
        );
        assert_eq!((found.incident, found.confidence), (Some(1), None));
        assert_eq!(
            found.text,
            "gateway on west was in trouble, and nobody is suspected: nothing of it, or of what \
             it needs, is beyond what is usual."
        );
        assert!(found.chain.iter().all(|one| one.role != Role::Root));
    }

    #[test]
    fn what_is_open_speaks_before_what_is_over() {
        let graph = two();
        let place = graph.place("east", &service("gateway"));
        let over = case(1, "east", "gateway", 9_000);
        let open = Case {
            to_ms: u64::MAX,
            ..told(case(2, "east", "infer-1", 4_000), &[(disk(), 0.75)])
        };
        let found = why(&place, &[over, open], &graph, &BTreeMap::new());
        assert_eq!((found.incident, found.open), (Some(2), true));
    }

    #[test]
    fn what_was_weeks_ago_does_not_speak_before_what_is_fresh() {
        const NOW: u64 = 30 * LATELY_MS;
        let graph = two();
        let place = graph.place("east", &service("gateway"));
        // Its own, three weeks ago; what it needs, an hour ago.
        let at = |one: Case, ago: u64| Case {
            from_ms: NOW - ago - 60_000,
            to_ms: NOW - ago,
            ..one
        };
        let old = at(case(1, "east", "gateway", 0), 21 * LATELY_MS);
        let fresh = told(case(2, "east", "infer-1", 0), &[(disk(), 0.75)]);
        let fresh = at(fresh, 3_600_000);
        let cases = lately(vec![old, fresh], NOW);
        let found = why(&place, &cases, &graph, &BTreeMap::new());
        assert_eq!(found.incident, Some(2));
        let open = Case {
            to_ms: u64::MAX,
            ..case(3, "east", "gateway", 1)
        };
        assert_eq!(lately(vec![open], NOW).len(), 1);
    }

    #[test]
    fn what_was_measured_of_one_incident_does_not_speak_for_the_next() {
        let graph = two();
        let place = graph.place("west", &service("gateway"));
        let far = Component::Backend(ServiceId::new("east").unwrap());
        let border = graph.place("west", &far);
        let incident = |id, at| told(case(id, "west", "gateway", at), &[(far.clone(), 0.9)]);
        let heard = |part: &str| {
            let suspect = Suspected {
                place: Place::of(Kind::Part, "east", part),
                confidence: 0.9,
                share: 0.9,
                began_ms: None,
                evidence: Vec::new(),
                explained_by: None,
                incident: None,
            };
            let ranked = Ranked {
                suspects: vec![suspect],
                probe: None,
            };
            Heard::from([(border.clone(), ranked)])
        };
        let cases = [incident(1, 5_000), incident(2, 500_000)];
        let spoke = speaking(std::slice::from_ref(&place), &cases, &graph);
        let spoke: Vec<u64> = spoke.iter().map(|one| one.incident).collect();
        assert_eq!(spoke, [2], "the newest");
        let all = BTreeMap::from([(1, heard("eth0")), (2, heard("sda"))]);
        let found = why(&place, &cases, &graph, &all);
        assert!(found.text.contains("sda of east"), "{}", found.text);
    }

    #[test]
    fn a_name_that_is_on_many_nodes_is_answered_within_bounds() {
        let graph = two();
        let mut places: Vec<Place> = (0..500)
            .map(|nth| Place::of(Kind::Service, &format!("n{nth}"), "gateway"))
            .collect();
        places.push(graph.place("east", &service("gateway")));
        // As many as are looked at.
        let mut cases: Vec<Case> = (0..255)
            .map(|nth| case(nth, "west", "gateway", nth))
            .collect();
        cases.push(Case {
            to_ms: u64::MAX,
            ..told(case(300, "east", "infer-1", 4_000), &[(disk(), 0.75)])
        });
        let begun = std::time::Instant::now();
        let found = answers(&places, &cases, &graph, &BTreeMap::new());
        // Each place by itself would rank 128,000 times.
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
        assert_eq!(found.len(), ANSWERS_MAX);
        assert_eq!(
            found[0].incident,
            Some(300),
            "what is in trouble comes first"
        );
        let left_out: Vec<u64> = found.iter().map(|one| one.left_out).collect();
        assert_eq!(left_out.last(), Some(&(501 - 32)));
        assert!(left_out[..31].iter().all(|more| *more == 0));
        assert!(answers(&[], &cases, &graph, &BTreeMap::new()).is_empty());
    }
}
