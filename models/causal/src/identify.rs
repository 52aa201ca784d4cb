//! Whether the effect of an action follows from observation, and by which expression.
//!
//! The algorithm ID (Shpitser and Pearl 2006, figure 3) for `P(y | do(x))` and IDC for
//! `P(y | do(x), z)`. Both are complete: what they refuse, no method finds, and the refusal
//! carries the [`Hedge`] that proves it. Where the back-door or the front-door criterion
//! holds, it is named beside the expression, because people know those and they need less
//! data ([`crate::criterion`]).

use crate::criterion::{self, Criterion};
use crate::expression::Expression;
use crate::graph::{Admg, Set};
use crate::hedge::Hedge;

/// Why there is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing is asked.
    #[error("no vertex to ask for")]
    Nothing,
    /// A vertex is on more than one side.
    #[error("{0} cannot be asked for, acted on and observed at once")]
    Overlap(String),
    /// A set with vertices that the graph does not have.
    #[error("the graph has {0} vertices, and others are asked for")]
    Unknown(usize),
    /// It does not follow from observation, whatever the amount of data.
    #[error("not identifiable: {text}")]
    NotIdentifiable {
        /// The proof.
        hedge: Hedge,
        /// It in words.
        text: String,
    },
}

/// An effect that follows from observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Asked for.
    pub y: Set,
    /// Acted on.
    pub x: Set,
    /// Observed.
    pub z: Set,
    /// What ID or IDC found.
    pub expression: Expression,
    /// Free vertices of the expression that are none of these: it has the same value whatever
    /// theirs are.
    pub any: Set,
    /// What is known by name and gives the same.
    pub criterion: Option<Criterion>,
}

impl Effect {
    fn new(graph: &Admg, [y, x, z]: [Set; 3], expression: Expression) -> Self {
        let any = expression.free() - (y | x | z);
        let criterion = z.is_empty().then(|| criterion::find(graph, y, x)).flatten();
        Self {
            y,
            x,
            z,
            expression,
            any,
            criterion,
        }
    }

    /// The criterion that holds.
    #[must_use]
    pub fn criterion(&self) -> Option<&Criterion> {
        self.criterion.as_ref()
    }

    /// The expression to compute: that of the criterion if one holds.
    #[must_use]
    pub fn best(&self) -> Expression {
        match &self.criterion {
            Some(criterion) => criterion.expression(self.y, self.x),
            None => self.expression.clone(),
        }
    }

    /// The answer in one line.
    #[must_use]
    pub fn text(&self, graph: &Admg) -> String {
        let mut given = Vec::new();
        if !self.x.is_empty() {
            given.push(format!("do({})", graph.list(self.x)));
        }
        given.extend(self.z.iter().map(|vertex| graph.name(vertex).to_owned()));
        let bar = if given.is_empty() { "" } else { " | " };
        let best = self.best();
        let mut text = format!(
            "P({}{bar}{}) = {}",
            graph.list(self.y),
            given.join(", "),
            best.text(graph)
        );
        let any = best.free() & self.any;
        if !any.is_empty() {
            text += &format!(", whatever {}", graph.list(any));
        }
        if let Some(criterion) = &self.criterion {
            text += &format!(" ({})", criterion.text(graph));
        }
        text
    }
}

/// `P(y | do(x))` from what is observed.
///
/// # Errors
/// [`Refusal::NotIdentifiable`] with the hedge; the others if the question makes no sense.
pub fn identify(graph: &Admg, y: Set, x: Set) -> Result<Effect, Refusal> {
    identify_given(graph, y, x, Set::EMPTY)
}

/// `P(y | do(x), z)` from what is observed.
///
/// # Errors
/// As [`identify`].
pub fn identify_given(graph: &Admg, y: Set, x: Set, z: Set) -> Result<Effect, Refusal> {
    if y.is_empty() {
        return Err(Refusal::Nothing);
    }
    let twice = (y & x) | (y & z) | (x & z);
    if !twice.is_empty() {
        return Err(Refusal::Overlap(graph.list(twice)));
    }
    if !(y | x | z).is_in(graph.vertices()) {
        return Err(Refusal::Unknown(graph.len()));
    }
    let found = conditional(graph, y, x, z);
    let expression = found.map_err(|hedge| {
        let text = hedge.text(graph);
        Refusal::NotIdentifiable { hedge, text }
    })?;
    Ok(Effect::new(graph, [y, x, z], expression))
}

/// IDC: observing what could as well be set is taken for setting it.
fn conditional(graph: &Admg, y: Set, x: Set, z: Set) -> Result<Expression, Hedge> {
    let as_good = z.iter().map(Set::one).find(|one| {
        let cut = graph.view().cut_into(x).cut_out(*one);
        cut.separated(y, *one, x | (z - *one))
    });
    if let Some(one) = as_good {
        return conditional(graph, y, x | one, z - one);
    }
    let both = id(graph, y | z, x, &Observed::Joint, graph.vertices())?;
    if z.is_empty() {
        return Ok(both);
    }
    let below = Expression::sum(y, both.clone());
    Ok(Expression::ratio(both, below))
}

/// What a step of ID is given: a distribution over some of the vertices.
enum Observed {
    /// The observed one, of those.
    Joint,
    /// One that was made from it.
    Made(Expression),
}

impl Observed {
    /// P(one | before), both among `within`.
    fn conditional(&self, graph: &Admg, one: usize, before: Set, within: Set) -> Expression {
        let one = Set::one(one);
        match self {
            Self::Joint => Expression::p(one, needed(graph, one, before)),
            Self::Made(made) => {
                let after = (within - before) - one;
                let above = Expression::sum(after, made.clone());
                let below = Expression::sum(after | one, made.clone());
                Expression::ratio(above, below)
            }
        }
    }

    /// Without what is no longer among `within`.
    fn marginal(&self, out: Set) -> Self {
        match self {
            Self::Joint => Self::Joint,
            Self::Made(made) => Self::Made(Expression::sum(out, made.clone())),
        }
    }
}

/// What of `before` says something of `one`: the others are separated from it by these.
fn needed(graph: &Admg, one: Set, before: Set) -> Set {
    before.iter().fold(before, |kept, vertex| {
        let less = kept - Set::one(vertex);
        let says = !graph.view().separated(one, Set::one(vertex), less);
        if says { kept } else { less }
    })
}

/// ID; the numbers are the lines of the figure.
fn id(graph: &Admg, y: Set, x: Set, observed: &Observed, within: Set) -> Result<Expression, Hedge> {
    let view = graph.view().within(within);
    // 1: nothing is acted on.
    if x.is_empty() {
        return Ok(match observed {
            Observed::Joint => Expression::p(y, Set::EMPTY),
            Observed::Made(made) => Expression::sum(within - y, made.clone()),
        });
    }
    // 2: what is no cause of y does not matter.
    let causes = view.ancestors(y);
    if causes != within {
        let observed = observed.marginal(within - causes);
        return id(graph, y, x & causes, &observed, causes);
    }
    // 3: nor do causes that act only through x, so they may be set as well.
    let idle = (within - x) - view.cut_into(x).ancestors(y);
    if !idle.is_empty() {
        return id(graph, y, x | idle, observed, within);
    }
    // 4: each district of the rest by itself.
    let districts = view.within(within - x).districts();
    let [district] = districts[..] else {
        let each = districts
            .iter()
            .map(|part| id(graph, *part, within - *part, observed, within));
        let factors: Vec<Expression> = each.collect::<Result<_, _>>()?;
        return Ok(Expression::sum(
            (within - y) - x,
            Expression::product(factors),
        ));
    };
    // 5: hidden causes tie it to the action.
    let all = view.districts();
    if all.len() == 1 {
        return Err(Hedge::new(graph, within, district));
    }
    // The factors of a district, each given all that comes before it.
    let factors = |part: Set| {
        let mut before = Set::EMPTY;
        let mut factors = Vec::new();
        let order = graph.order().iter().copied();
        for vertex in order.filter(|vertex| within.contains(*vertex)) {
            if part.contains(vertex) {
                factors.push(observed.conditional(graph, vertex, before, within));
            }
            before = before | Set::one(vertex);
        }
        Expression::product(factors)
    };
    // 6: nothing does.
    if all.contains(&district) {
        return Ok(Expression::sum(district - y, factors(district)));
    }
    // 7: only a part of the graph can; the rest is taken as set.
    let part = all.into_iter().find(|part| district.is_in(*part));
    let part = part.unwrap_or(within);
    let made = Observed::Made(factors(part));
    id(graph, y, x & part, &made, part)
}

#[cfg(test)]
mod tests;
