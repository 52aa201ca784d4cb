//! Why a service is in trouble: one chain, from the service down to what is behind it.
//!
//! In: the incidents that are open or were lately, and who needs whom. Out: the chain of the
//! incident that is about the service, or about what it needs; where there is none, what the
//! service stands on, and that nothing is known to be wrong.

use super::causes::{Case, Heard, causes};
use super::graph::Graph;
use crate::fleet::diagnosis::{Causes, ChainLink, Kind, Level, Place, Role, Why};

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

/// The answers for these places: what is in trouble comes first, one with an incident of its
/// own before those that need something with one. At most [`ANSWERS_MAX`], the last of which
/// tells how many more there are.
#[must_use]
pub fn answers(places: &[Place], cases: &[Case], graph: &Graph, heard: &Heard) -> Vec<Why> {
    let all: Vec<&Case> = cases.iter().collect();
    // Who is behind an incident is the same whoever asks.
    let judged: Vec<Judged<'_>> = cases
        .iter()
        .map(|case| (case, causes(case, &all, graph, heard)))
        .collect();
    let mut found: Vec<(&Place, Option<(usize, &Judged<'_>)>)> = places
        .iter()
        .map(|place| (place, speaks(place, &judged, graph)))
        .collect();
    found.sort_by_key(|(_, found)| {
        let (open, own, incident) = match found {
            Some((away, (case, _))) => (case.to_ms == u64::MAX, *away == 0, Some(case.incident)),
            None => (false, false, None),
        };
        (!open, !own, std::cmp::Reverse(incident))
    });
    let left_out = found.len().saturating_sub(ANSWERS_MAX) as u64;
    let found = found.into_iter().take(ANSWERS_MAX);
    let mut told: Vec<Why> = found
        .map(|(place, found)| match found {
            Some((_, (case, causes))) => why(place, case, causes, graph),
            None => untroubled(place, graph),
        })
        .collect();
    if let Some(last) = told.last_mut() {
        last.left_out = left_out;
    }
    told
}

/// The incident that speaks for a place, and how far away: what is open before what is over,
/// what it is about before what it needs, the newest.
fn speaks<'a>(
    place: &Place,
    judged: &'a [Judged<'a>],
    graph: &Graph,
) -> Option<(usize, &'a Judged<'a>)> {
    let reach = graph.reach(place);
    judged
        .iter()
        .filter_map(|one| Some((*reach.get(&one.1.alarmed)?, one)))
        .max_by_key(|(away, (case, _))| {
            (
                case.to_ms == u64::MAX,
                usize::MAX - away,
                case.from_ms,
                case.incident,
            )
        })
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
        left_out: 0,
    }
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
            "No incident of the last day is known of {place}, nor of anything that it needs."
        ),
        chain,
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
    let root = causes.root.as_ref().unwrap_or(&causes.alarmed);
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

/// The services of that name, on one node or on all.
#[must_use]
pub fn named(services: &[(String, String)], name: &str, node: Option<&str>) -> Vec<Place> {
    let own = services
        .iter()
        .filter(|(at, service)| service == name && node.is_none_or(|node| node == at));
    own.map(|(at, service)| Place::of(Kind::Service, at, service))
        .collect()
}

#[cfg(test)]
mod tests {
    use homeostat_common::ids::ServiceId;
    use homeostat_common::suspect::Component;

    use super::super::causes::tests::{case, disk, told};
    use super::super::graph::tests::{service, two};
    use super::*;

    fn why(place: &Place, cases: &[Case], graph: &Graph, heard: &Heard) -> Why {
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
        let found = why(&place, &cases, &graph, &Heard::new());
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
            &Heard::new(),
        );
        assert_eq!((found.incident, found.chain.len()), (Some(2), 4));
        assert_eq!(found.levels.len(), 2);
    }

    #[test]
    fn one_that_is_not_in_trouble_is_said_to_be_so() {
        let graph = two();
        let place = graph.place("west", &service("gateway"));
        let found = why(&place, &[], &graph, &Heard::new());
        assert!(found.incident.is_none() && found.text.starts_with("No incident of the last day"));
        assert_eq!(found.levels, [Level::Application, Level::Infrastructure]);
        let own = [case(1, "west", "gateway", 0)];
        assert!(
            why(&place, &own, &graph, &Heard::new())
                .text
                .contains("itself the likeliest cause")
        );
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
        let found = why(&place, &[over, open], &graph, &Heard::new());
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
        let found = why(&place, &cases, &graph, &Heard::new());
        assert_eq!(found.incident, Some(2));
        let open = Case {
            to_ms: u64::MAX,
            ..case(3, "east", "gateway", 1)
        };
        assert_eq!(lately(vec![open], NOW).len(), 1);
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
        let found = answers(&places, &cases, &graph, &Heard::new());
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
        assert!(answers(&[], &cases, &graph, &Heard::new()).is_empty());
    }
}
