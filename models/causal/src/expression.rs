//! Expressions over an observed distribution: conditional probabilities, products, sums and
//! ratios of them.
//!
//! A vertex that a sum runs over is another variable than the vertex of that name outside; in
//! text it has a prime. What is built here is simplified on the way: a sum over what only one
//! conditional probability is about is 1, factors without the summed vertices stand before
//! the sum, and what is both above and below the line is left out.

use std::fmt::Write as _;

use crate::graph::{Admg, Set};

/// A function of the observed distribution and of values of its free vertices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// P(of | given), as observed.
    P {
        /// At least one vertex.
        of: Set,
        /// None of `of`.
        given: Set,
    },
    /// Over all values of `over`.
    Sum {
        /// At least one vertex.
        over: Set,
        /// What is summed.
        of: Box<Self>,
    },
    /// 1 if there are none.
    Product(Vec<Self>),
    /// One divided by another.
    Ratio(Box<Self>, Box<Self>),
}

impl Expression {
    /// P(of | given); 1 of nothing.
    #[must_use]
    pub fn p(of: Set, given: Set) -> Self {
        if of.is_empty() {
            Self::one()
        } else {
            let given = given - of;
            Self::P { of, given }
        }
    }

    fn one() -> Self {
        Self::Product(Vec::new())
    }

    /// The vertices whose values it needs.
    #[must_use]
    pub fn free(&self) -> Set {
        match self {
            Self::P { of, given } => *of | *given,
            Self::Sum { over, of } => of.free() - *over,
            Self::Product(factors) => all_free(factors),
            Self::Ratio(above, below) => above.free() | below.free(),
        }
    }

    /// All vertices that it asks of the observed distribution.
    #[must_use]
    pub fn observed(&self) -> Set {
        match self {
            Self::P { of, given } => *of | *given,
            Self::Sum { of, .. } => of.observed(),
            Self::Product(factors) => factors
                .iter()
                .fold(Set::EMPTY, |all, factor| all | factor.observed()),
            Self::Ratio(above, below) => above.observed() | below.observed(),
        }
    }

    /// The product, flat.
    #[must_use]
    pub fn product(factors: impl IntoIterator<Item = Self>) -> Self {
        let mut flat = Vec::new();
        for factor in factors {
            match factor {
                Self::Product(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            1 => flat.swap_remove(0),
            _ => Self::Product(flat),
        }
    }

    /// The sum over all values of `over`.
    #[must_use]
    pub fn sum(over: Set, of: Self) -> Self {
        if over.is_empty() {
            return of;
        }
        let mut factors = match of {
            Self::Product(factors) => factors,
            Self::Sum { over: inner, of } if (inner & over).is_empty() => {
                return Self::sum(over | inner, *of);
            }
            other => vec![other],
        };
        let mut over = over;
        while let Some((vertex, place)) = ended(over, &factors) {
            over = over - Set::one(vertex);
            if let Some(Self::P { of, given }) = factors.get(place) {
                let left = Self::p(*of - Set::one(vertex), *given);
                match left {
                    Self::Product(_) => drop(factors.remove(place)),
                    left => factors[place] = left,
                }
            }
        }
        let summed = |factor: &Self| !(factor.free() & over).is_empty();
        let (inner, outer): (Vec<_>, Vec<_>) = factors.into_iter().partition(summed);
        if over.is_empty() {
            return Self::product(outer);
        }
        let of = Box::new(Self::product(inner));
        Self::product(outer.into_iter().chain([Self::Sum { over, of }]))
    }

    /// One divided by another.
    #[must_use]
    pub fn ratio(above: Self, below: Self) -> Self {
        if let (
            Self::P { of, given },
            Self::P {
                of: by,
                given: when,
            },
        ) = (&above, &below)
            && given == when
            && by.is_in(*of)
        {
            return Self::p(*of - *by, *given | *by);
        }
        let (mut above, mut below) = (above.factors(), below.factors());
        below.retain(|factor| {
            let same = above.iter().position(|other| other == factor);
            same.map(|place| above.remove(place)).is_none()
        });
        let above = Self::product(above);
        if below.is_empty() {
            return above;
        }
        Self::Ratio(Box::new(above), Box::new(Self::product(below)))
    }

    fn factors(self) -> Vec<Self> {
        match self {
            Self::Product(factors) => factors,
            other => vec![other],
        }
    }

    /// As people write it, with the names of the graph.
    #[must_use]
    pub fn text(&self, graph: &Admg) -> String {
        let mut text = String::new();
        let mut primes = vec![0; graph.len()];
        self.free().iter().for_each(|vertex| primes[vertex] = 1);
        self.write(graph, &mut primes, true, &mut text);
        text
    }

    /// `primes`: under how many variables of its name each vertex stands, itself included.
    /// `last`: nothing follows that a sum could be taken to include.
    fn write(&self, graph: &Admg, primes: &mut Vec<usize>, last: bool, text: &mut String) {
        let list = |set: Set, primes: &[usize]| {
            let name = |vertex: usize| {
                let primes = primes
                    .get(vertex)
                    .map_or(0, |count| count.saturating_sub(1));
                format!("{}{}", graph.name(vertex), "'".repeat(primes))
            };
            set.iter().map(name).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::P { of, given } if given.is_empty() => {
                let _ = write!(text, "P({})", list(*of, primes));
            }
            Self::P { of, given } => {
                let _ = write!(text, "P({} | {})", list(*of, primes), list(*given, primes));
            }
            Self::Sum { over, of } => {
                over.iter().for_each(|vertex| primes[vertex] += 1);
                let _ = write!(
                    text,
                    "{}sum[{}] ",
                    if last { "" } else { "(" },
                    list(*over, primes)
                );
                of.write(graph, primes, true, text);
                if !last {
                    text.push(')');
                }
                over.iter().for_each(|vertex| primes[vertex] -= 1);
            }
            Self::Product(factors) if factors.is_empty() => text.push('1'),
            Self::Product(factors) => {
                for (place, factor) in factors.iter().enumerate() {
                    if place > 0 {
                        text.push(' ');
                    }
                    let end = last && place + 1 == factors.len();
                    factor.write(graph, primes, end, text);
                }
            }
            Self::Ratio(above, below) => {
                text.push('[');
                above.write(graph, primes, true, text);
                text.push_str("] / [");
                below.write(graph, primes, true, text);
                text.push(']');
            }
        }
    }
}

/// A summed vertex that one P alone is about: its sum is 1. What that P is given must still
/// be in another factor if the sum runs over it, because 1 summed over it would be a number
/// of values.
fn ended(over: Set, factors: &[Expression]) -> Option<(usize, usize)> {
    over.iter().find_map(|vertex| {
        let one = Set::one(vertex);
        let mut with = factors
            .iter()
            .enumerate()
            .filter(|(_, factor)| !(factor.free() & one).is_empty());
        let (place, factor) = with.next()?;
        let Expression::P { of, given } = factor else {
            return None;
        };
        if with.next().is_some() || !of.contains(vertex) {
            return None;
        }
        let others = factors
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != place);
        let elsewhere = others.fold(Set::EMPTY, |all, (_, factor)| all | factor.free());
        let alone = *of == one;
        (!alone || (*given & over).is_in(elsewhere)).then_some((vertex, place))
    })
}

fn all_free(factors: &[Expression]) -> Set {
    let each = factors.iter().map(Expression::free);
    each.fold(Set::EMPTY, |all, free| all | free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_ratios_and_products_are_simplified() {
        let graph: Admg = "a, b, c".parse().unwrap();
        let set = |text: &str| graph.set(text.split_whitespace()).unwrap();
        let p = |of, given| Expression::p(set(of), set(given));
        let chain = || Expression::product([p("a", ""), p("b", "a"), p("c", "a b")]);
        let text = |expression: Expression| expression.text(&graph);
        assert_eq!(text(Expression::sum(set("c"), chain())), "P(a) P(b | a)");
        assert_eq!(text(Expression::sum(set("b c"), chain())), "P(a)");
        assert_eq!(text(Expression::sum(set("a b c"), chain())), "1");
        assert_eq!(
            text(Expression::sum(set("a"), chain())),
            "sum[a] P(a) P(b | a) P(c | a, b)"
        );
        assert_eq!(text(Expression::sum(set("a"), p("a b", "c"))), "P(b | c)");
        // Summed over b and a it is the number of values of a, not 1.
        let count = Expression::sum(set("a b"), p("b", "a"));
        assert_eq!(text(count), "sum[a, b] P(b | a)");
        let over = Expression::ratio(chain(), Expression::product([p("b", "a"), p("a", "")]));
        assert_eq!(text(over), "P(c | a, b)");
        assert_eq!(
            text(Expression::ratio(p("a b", "c"), p("b", "c"))),
            "P(a | b, c)"
        );
        let primed = Expression::product([
            p("a", ""),
            Expression::sum(set("a"), Expression::product([p("a", ""), p("c", "a b")])),
        ]);
        assert_eq!(text(primed.clone()), "P(a) sum[a'] P(a') P(c | a', b)");
        assert_eq!(primed.free(), set("a b c"));
    }
}
