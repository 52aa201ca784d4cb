//! Why a service is in trouble: one chain, from the service down to what is behind it.
//!
//! In: the incidents that are open or were lately, and who needs whom. Out: the chain of the
//! incident that is about the service, or about what it needs; where there is none, what the
//! service stands on, and that nothing is known to be wrong.

use super::causes::{Case, Heard, causes};
use super::graph::Graph;
use crate::fleet::diagnosis::{Causes, ChainLink, Kind, Level, Place, Role, Why};

/// The answer for a service of a node.
#[must_use]
pub fn why(place: &Place, cases: &[Case], graph: &Graph, heard: &Heard) -> Why {
    let all: Vec<&Case> = cases.iter().collect();
    let reach = graph.reach(place);
    // What is open before what is over, what it is about before what it needs, the newest.
    let found = cases
        .iter()
        .map(|case| (case, causes(case, &all, graph, heard)))
        .filter_map(|(case, causes)| Some((case, *reach.get(&causes.alarmed)?, causes)))
        .max_by_key(|(case, away, _)| {
            (
                case.to_ms == u64::MAX,
                usize::MAX - away,
                case.from_ms,
                case.incident,
            )
        });
    let Some((case, _, causes)) = found else {
        return untroubled(place, graph);
    };
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
        text: sentence(place, &chain, &causes, confidence, open),
        chain,
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
        text: format!("No incident is known of {place}, nor of anything that it needs."),
        chain,
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
        assert!(found.incident.is_none() && found.text.starts_with("No incident is known"));
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
}
