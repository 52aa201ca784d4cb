//! Directions within a step: from two causes that meet, and from what would contradict them.
//!
//! Where two findings contradict each other, the link is marked and taken no further, so that
//! the order of variables does not matter.

use std::collections::BTreeSet;

use super::partial::{Node, Tests};
use super::skeleton::{Past, momentary};
use super::{Colliders, DiscoverError, Graph, Mark, Settings};

/// `one` is linked with `middle`, and `middle` within a step with `other`, but not `one` with
/// `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Triple {
    one: Node,
    middle: usize,
    other: usize,
}

/// Links within a step that were given a direction, from and to.
type Given = BTreeSet<(usize, usize)>;

/// Directs links to where two causes meet; returns the triples that could be either.
pub(super) fn colliders(
    tests: &mut Tests,
    past: &Past,
    graph: &mut Graph,
    settings: &Settings,
) -> Result<BTreeSet<Triple>, DiscoverError> {
    let (mut meeting, mut doubtful) = (Vec::new(), BTreeSet::new());
    for triple in triples(graph, |mark| matches!(mark, Mark::Open | Mark::Along)) {
        let (with, without) = separating(tests, past, graph, triple, settings)?;
        let all = with + without;
        let meets = match settings.colliders {
            Colliders::Majority => with * 2 < all,
            Colliders::Conservative => with == 0,
        };
        let passes = match settings.colliders {
            Colliders::Majority => with * 2 > all,
            Colliders::Conservative => without == 0,
        };
        if all == 0 || !(meets || passes) {
            doubtful.insert(triple);
        } else if meets {
            meeting.push(triple);
        }
    }
    let mut given = Given::new();
    for triple in meeting {
        direct(graph, &mut given, triple.other, triple.middle);
        if triple.one.lag == 0 {
            direct(graph, &mut given, triple.one.variable, triple.middle);
        }
    }
    Ok(doubtful)
}

/// How many sets of neighbours separate the ends, with the middle and without it.
fn separating(
    tests: &mut Tests,
    past: &Past,
    graph: &Graph,
    triple: Triple,
    settings: &Settings,
) -> Result<(usize, usize), DiscoverError> {
    let Triple { one, middle, other } = triple;
    let neighbours = |of: usize, but: Option<usize>| -> Vec<usize> {
        let all = graph.beside(of).map(|(from, _)| from);
        all.filter(|from| Some(*from) != but).collect()
    };
    let now = one.lag == 0;
    let mut sides = vec![neighbours(other, now.then_some(one.variable))];
    if now {
        sides.push(neighbours(one.variable, Some(other)));
    }
    let mut sets: BTreeSet<u128> = BTreeSet::new();
    for side in sides.iter().filter(|side| !side.is_empty()) {
        // More neighbours have more subsets than there may be tests.
        if side.len() >= usize::BITS as usize || 1_usize << side.len() > settings.tests_max {
            return Err(DiscoverError::TooManyTests(settings.tests_max));
        }
        for choice in 0..1_usize << side.len() {
            let chosen = side
                .iter()
                .enumerate()
                .filter(|(at, _)| choice >> at & 1 == 1);
            sets.insert(chosen.fold(0, |all, (_, variable)| all | 1 << variable));
        }
    }
    let (mut with, mut without) = (0, 0);
    for set in sets {
        let known: Vec<usize> = (0..graph.count).filter(|at| set >> at & 1 == 1).collect();
        let tested = momentary(tests, past, one, other, &known, settings)?;
        if !tests.dependent(tested) {
            let count = if known.contains(&middle) {
                &mut with
            } else {
                &mut without
            };
            *count += 1;
        }
    }
    Ok((with, without))
}

/// Directs what would otherwise make a collider that is none, or a circle (Meek 1995).
pub(super) fn follow(graph: &mut Graph, doubtful: &BTreeSet<Triple>) {
    let mut given = Given::new();
    // Each round directs or marks a link, or is the last.
    for _ in 0..=graph.count * graph.count {
        let mut found = false;
        for triple in triples(graph, |mark| mark == Mark::Along) {
            if !doubtful.contains(&triple) {
                found = true;
                direct(graph, &mut given, triple.middle, triple.other);
            }
        }
        for search in [shortcuts, forks] {
            for (from, to) in search(graph, doubtful) {
                found = true;
                direct(graph, &mut given, from, to);
            }
        }
        if !found {
            return;
        }
    }
}

/// Gives a link within a step a direction, or marks it if it has the other one.
fn direct(graph: &mut Graph, given: &mut Given, from: usize, to: usize) {
    let mark = if given.contains(&(to, from)) {
        Mark::Conflict
    } else if given.insert((from, to)) {
        Mark::Along
    } else {
        return;
    };
    graph.set(Node::new(from, 0), to, mark);
}

/// Triples whose second link is open and whose first has a certain mark.
fn triples(graph: &Graph, first: impl Fn(Mark) -> bool) -> Vec<Triple> {
    let mut all = Vec::new();
    for other in 0..graph.count {
        let open = graph.beside(other).filter(|(_, mark)| *mark == Mark::Open);
        for (middle, _) in open {
            for (one, mark) in graph.to(middle) {
                let apart = one != Node::new(other, 0) && graph.get(one, other) == Mark::None;
                if apart && first(mark) {
                    all.push(Triple { one, middle, other });
                }
            }
        }
    }
    all
}

/// Open links beside two that lead the same way.
fn shortcuts(graph: &Graph, _: &BTreeSet<Triple>) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    for to in 0..graph.count {
        for (middle, _) in graph.beside(to).filter(|(_, mark)| *mark == Mark::Along) {
            for (from, _) in graph
                .beside(middle)
                .filter(|(_, mark)| *mark == Mark::Along)
            {
                if graph.now(from, to) == Mark::Open {
                    all.push((from, to));
                }
            }
        }
    }
    all
}

/// Open links from where two open ones begin that end, through others, at the same.
fn forks(graph: &Graph, doubtful: &BTreeSet<Triple>) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    for to in 0..graph.count {
        for (from, _) in graph.beside(to).filter(|(_, mark)| *mark == Mark::Open) {
            let through: Vec<usize> = graph
                .beside(to)
                .filter(|(one, mark)| *mark == Mark::Along && graph.now(*one, from) == Mark::Open)
                .map(|(one, _)| one)
                .collect();
            let sure = |middle: usize| {
                let one = Node::new(from, 0);
                !doubtful.contains(&Triple {
                    one,
                    middle,
                    other: to,
                })
            };
            let apart = |one: &usize| {
                let others = through.iter().filter(|other| *other != one);
                let mut apart = others.filter(|other| graph.now(*one, **other) == Mark::None);
                apart.any(|other| sure(*one) && sure(*other))
            };
            if through.iter().any(apart) {
                all.push((from, to));
            }
        }
    }
    all
}
