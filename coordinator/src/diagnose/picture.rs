//! The causal graph of an incident as it is drawn, and the way down to its root.
//!
//! In: who is alarmed and suspected, and who needs whom. Out: lines between them, and the chain.
//!
//! Two components in trouble of which neither needs the other, but both need a third one, may
//! move together for that one's sake. If it shows no trouble itself, it is a confounder that
//! nobody has measured, and the two are joined by a link that says so (the two-headed arc of
//! Pearl's semi-Markovian graphs, 2009, 3.2).

use std::collections::{BTreeMap, BTreeSet};

use super::causes::Case;
use super::graph::Graph;
use crate::fleet::diagnosis::{ChainLink, Link, Place, Role, Suspected};

/// Most lines of a graph: a picture that a person can read.
pub const LINKS_MAX: usize = 64;

/// Most components in trouble whose pairs are looked at for a common need.
const TROUBLED_MAX: usize = 24;

/// Who needs whom between the alarmed one and the suspects.
pub(super) fn links<'a>(
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
/// shows none. What one needs only for the sake of another one in trouble is that one's matter.
pub(super) fn confounded(ill: BTreeSet<Place>, graph: &Graph) -> Vec<Link> {
    let ill: BTreeSet<Place> = ill.into_iter().take(TROUBLED_MAX).collect();
    type Steps = BTreeMap<Place, usize>;
    let needs: Vec<(&Place, Steps, Steps)> = ill
        .iter()
        .map(|place| (place, graph.reach(place), graph.reach_to(place, &ill)))
        .collect();
    let mut links = Vec::new();
    for (at, (from, all, own)) in needs.iter().enumerate() {
        for (to, of_other, other) in needs.iter().skip(at + 1) {
            if all.contains_key(*to) || of_other.contains_key(*from) {
                continue;
            }
            let common = || {
                own.iter()
                    .filter_map(|(need, a)| Some((a + other.get(need)?, need)))
            };
            // A common need in trouble explains both by lines of its own.
            if common().any(|(_, need)| ill.contains(need)) {
                continue;
            }
            if let Some((_, by)) = common().min() {
                links.push(Link {
                    from: (*from).clone(),
                    to: (*to).clone(),
                    confounded_by: Some(by.clone()),
                });
            }
        }
    }
    links
}

/// From what is alarmed down to the root, and one step below where that stays on one level:
/// what the root stands on and shows no trouble.
pub(super) fn chain(
    alarmed: &Place,
    root: Option<&Place>,
    suspects: &[Suspected],
    graph: &Graph,
) -> Vec<ChainLink> {
    let known = root.is_some();
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
                step if step == last && known => Role::Root,
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
mod tests {
    use super::super::causes::tests::case;
    use super::super::causes::{Heard, causes};
    use super::super::graph::Told;
    use super::super::graph::tests::{service, two};
    use super::*;
    use crate::fleet::diagnosis::{Kind, Level};
    use homeostat_common::suspect::Edge;

    #[test]
    fn two_in_trouble_that_share_an_innocent_need_are_joined_by_a_confounded_link() {
        let edge = |from: &str, needs: &str| Edge {
            from: service(from),
            needs: service(needs),
        };
        let edges = [
            edge("a", "store"),
            edge("b", "store"),
            edge("b", "cache"),
            edge("front", "a"),
        ];
        let graph = Graph::of(&Told {
            edges: edges.iter().map(|edge| ("n", edge)).collect(),
            ..Told::default()
        });
        let at = |name: &str| Place::of(Kind::Service, "n", name);
        let found = confounded(BTreeSet::from([at("a"), at("b")]), &graph);
        let [link] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(link.confounded_by, Some(at("store")));
        // It is in trouble itself: lines of its own say so.
        let all = BTreeSet::from([at("a"), at("b"), at("store")]);
        assert!(confounded(all, &graph).is_empty());
        // `front` needs the store for the sake of `a` alone, which is in trouble itself.
        let front = at("front");
        let ill = BTreeSet::from([at("a"), at("b"), front.clone()]);
        let found = confounded(ill, &graph);
        assert!(
            found
                .iter()
                .all(|link| link.from != front && link.to != front),
            "{found:?}"
        );
        assert_eq!(found.len(), 1);
        // One needs the other; and two that share nothing.
        assert!(confounded(BTreeSet::from([at("b"), at("cache")]), &graph).is_empty());
        assert!(confounded(BTreeSet::from([at("a"), at("cache")]), &graph).is_empty());
    }

    #[test]
    fn one_that_stays_on_one_level_says_what_it_stands_on() {
        let graph = two();
        let found = causes(&case(1, "west", "gateway", 0), &[], &graph, &Heard::new());
        let roles: Vec<_> = found.chain.iter().map(|one| one.role).collect();
        assert_eq!(roles, [Role::Root, Role::Below]);
        assert_eq!(found.chain[1].place.level, Level::Infrastructure);
    }
}
