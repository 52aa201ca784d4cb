//! The back-door and the front-door criterion (Pearl 1995): special cases of ID that people
//! know by name, and that need less data.

use crate::expression::Expression;
use crate::graph::{Admg, Set};

/// Most vertices that an action is looked for to pass through; the search tries all sets of
/// that size.
const THROUGH_MAX: usize = 2;

/// What holds, and with which vertices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criterion {
    /// No effects of the action, and they block every path that leads into it.
    BackDoor {
        /// What to adjust for; perhaps nothing.
        given: Set,
    },
    /// All of the effect passes through vertices whose hidden causes the action does not share.
    FrontDoor {
        /// What it passes through.
        through: Set,
        /// What to adjust for; perhaps nothing.
        given: Set,
    },
}

impl Criterion {
    /// P(y | do(x)) by it.
    #[must_use]
    pub fn expression(&self, y: Set, x: Set) -> Expression {
        let p = Expression::p;
        match *self {
            Self::BackDoor { given } => Expression::sum(
                given,
                Expression::product([p(y, x | given), p(given, Set::EMPTY)]),
            ),
            Self::FrontDoor { through, given } => {
                let inner = Expression::product([p(y, x | through | given), p(x, given)]);
                let parts = [
                    p(through, x | given),
                    p(given, Set::EMPTY),
                    Expression::sum(x, inner),
                ];
                Expression::sum(through | given, Expression::product(parts))
            }
        }
    }

    /// Its name.
    #[must_use]
    pub fn text(&self, graph: &Admg) -> String {
        let over = |given: Set| match given.is_empty() {
            true => String::new(),
            false => format!(" given {{{}}}", graph.list(given)),
        };
        match *self {
            Self::BackDoor { given } if given.is_empty() => {
                "nothing to adjust for: no back-door is open".to_owned()
            }
            Self::BackDoor { given } => format!("back-door{}", over(given)),
            Self::FrontDoor { through, given } => {
                format!(
                    "front-door through {{{}}}{}",
                    graph.list(through),
                    over(given)
                )
            }
        }
    }
}

/// The first that holds for `P(y | do(x))`.
pub(crate) fn find(graph: &Admg, y: Set, x: Set) -> Option<Criterion> {
    if x.is_empty() {
        return None;
    }
    back_door(graph, y, x).or_else(|| front_door(graph, y, x))
}

fn back_door(graph: &Admg, y: Set, x: Set) -> Option<Criterion> {
    let cut = graph.view().cut_out(x);
    // If any set blocks all, the causes of both that the action does not reach do (van der
    // Zander et al. 2014); then what is not needed is left out.
    let all = ((graph.view().ancestors(x | y) - graph.view().descendants(x)) - x) - y;
    let blocks = |given: Set| cut.separated(x, y, given);
    blocks(all).then(|| Criterion::BackDoor {
        given: fewest(all, blocks),
    })
}

fn front_door(graph: &Admg, y: Set, x: Set) -> Option<Criterion> {
    let effects = graph.view().descendants(x);
    let between = ((effects & graph.view().ancestors(y)) - x) - y;
    let others = ((graph.view().ancestors(x | y) - effects) - x) - y;
    let all: Vec<usize> = between.iter().collect();
    let mut tried: Vec<Set> = all.iter().map(|one| Set::one(*one)).collect();
    for _ in 1..THROUGH_MAX {
        let last = tried.clone();
        let larger = last.iter().flat_map(|set| {
            let after = all
                .iter()
                .filter(|one| Set::first(**one + 1) & *set == *set);
            after
                .map(|one| *set | Set::one(*one))
                .filter(move |new| new != set)
        });
        tried.extend(larger.collect::<Vec<_>>());
    }
    tried.push(between);
    tried.into_iter().find_map(|through| {
        let holds = |given| passes(graph, y, x, through, given);
        [Set::EMPTY, others]
            .into_iter()
            .find(|given| holds(*given))
            .map(|given| {
                let given = fewest(given, holds);
                Criterion::FrontDoor { through, given }
            })
    })
}

/// The conditions, each as the rule of do-calculus that the formula uses.
fn passes(graph: &Admg, y: Set, x: Set, through: Set, given: Set) -> bool {
    let view = graph.view();
    !through.is_empty()
        // P(m | do(x), w) = P(m | x, w)
        && view.cut_out(x).separated(through, x, given)
        // P(y | do(x), m, w) = P(y | do(x), do(m), w)
        && view.cut_into(x).cut_out(through).separated(y, through, x | given)
        // P(y | do(x), do(m), w) = P(y | do(m), w)
        && view.cut_into(x | through).separated(y, x, through | given)
        // P(y | do(m), w) by the back-door of m: x and w are no effects of it
        && view.cut_out(through).separated(through, y, x | given)
        && (view.descendants(through) & (x | given)).is_empty()
        // P(w | do(x)) = P(w)
        && (view.descendants(x) & given).is_empty()
}

/// Leaves out one vertex after the other as long as it still holds.
fn fewest(all: Set, holds: impl Fn(Set) -> bool) -> Set {
    all.iter().fold(all, |kept, vertex| {
        let less = kept - Set::one(vertex);
        if holds(less) { less } else { kept }
    })
}
