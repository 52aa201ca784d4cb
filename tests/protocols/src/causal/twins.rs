//! Proof that an effect does not follow from observation: two models that look the same and
//! differ in what the action does (the construction of Shpitser and Pearl 2006, theorem 4).
//!
//! Hidden causes are fair bits. In both models each vertex of the hedge is the parity of its
//! causes in it; in the second, the smaller forest does not listen to the rest. Observed, the
//! parity of the roots is even in both; once the action cuts hidden causes off, it stays even
//! only in the second. From the roots that bit travels on to what is asked. Nothing here is
//! taken from the code that found the hedge but its vertices and edges.

use std::collections::BTreeMap;

use homeostat_causal::graph::{Admg, Set};
use homeostat_causal::hedge::Hedge;

/// Hidden bits of a hedge; a world for each combination of them.
const BITS_MAX: usize = 20;

/// Probabilities of sums of powers of two: exact but for this.
const SAME: f64 = 1e-12;

/// Half the largest possible difference of two distributions.
const APART: f64 = 0.4;

type Distribution = BTreeMap<Vec<u8>, f64>;

/// Why a hedge is no proof; `None` if it is one.
pub(super) fn flaw(graph: &Admg, hedge: &Hedge, y: Set, x: Set) -> Option<&'static str> {
    if hedge.bidirected.len() > BITS_MAX {
        return Some("too many hidden causes to go through");
    }
    let Some(paths) = paths(graph, hedge.roots, y, x) else {
        return Some("a root does not reach what is asked");
    };
    let models = [false, true].map(|deaf| Twin {
        graph,
        hedge,
        paths: &paths,
        deaf,
    });
    let all = graph.vertices();
    let [one, other] = models.each_ref().map(|twin| twin.seen(all, None));
    if distance(&one, &other) > SAME {
        return Some("the two models look different");
    }
    let [one, other] = models.each_ref().map(|twin| twin.seen(y, Some(x)));
    (distance(&one, &other) < APART).then_some("the action does the same in both")
}

/// For each vertex on a way from a root to what is asked, where it goes on to; nothing at
/// the end. No way passes through what is acted on.
fn paths(graph: &Admg, roots: Set, y: Set, x: Set) -> Option<BTreeMap<usize, Option<usize>>> {
    let mut next: BTreeMap<usize, Option<usize>> = y.iter().map(|end| (end, None)).collect();
    let mut front: Vec<usize> = y.iter().collect();
    while !front.is_empty() {
        let mut further = Vec::new();
        for to in front {
            for from in graph.parents(to).iter() {
                // An edge into what is acted on is cut; one out of it is not on a way from a
                // root, because whoever is acted on is no root.
                if !x.contains(to) && !x.contains(from) && !next.contains_key(&from) {
                    next.insert(from, Some(to));
                    further.push(from);
                }
            }
        }
        front = further;
    }
    let mut used = BTreeMap::new();
    for root in roots.iter() {
        let mut at = Some(root);
        while let Some(vertex) = at {
            let onward = *next.get(&vertex)?;
            used.insert(vertex, onward);
            at = onward;
        }
    }
    Some(used)
}

struct Twin<'a> {
    graph: &'a Admg,
    hedge: &'a Hedge,
    paths: &'a BTreeMap<usize, Option<usize>>,
    /// The smaller forest does not listen to the rest.
    deaf: bool,
}

impl Twin<'_> {
    /// How likely values of some vertices are; `acted` ones are set to 0.
    fn seen(&self, of: Set, acted: Option<Set>) -> Distribution {
        let acted = acted.unwrap_or_default();
        let bits = self.hedge.bidirected.len();
        let mut all = Distribution::new();
        for world in 0..1_u32 << bits {
            let values = self.world(world, acted);
            let key: Vec<u8> = of.iter().map(|vertex| values[vertex]).collect();
            *all.entry(key).or_default() += 1.0 / f64::from(1_u32 << bits);
        }
        all
    }

    /// Each vertex has a bit of the hedge and, twice as much, one that is passed on.
    fn world(&self, hidden: u32, acted: Set) -> Vec<u8> {
        let Hedge {
            outer,
            inner,
            roots,
            directed,
            bidirected,
        } = self.hedge;
        let hears = |vertex: usize, from: usize| {
            !self.deaf || !inner.contains(vertex) || inner.contains(from)
        };
        let mut own = vec![0_u8; self.graph.len()];
        let mut passed = vec![0_u8; self.graph.len()];
        let tells = |own: &[u8], passed: &[u8], vertex: usize| {
            passed[vertex]
                ^ if roots.contains(vertex) {
                    own[vertex]
                } else {
                    0
                }
        };
        for vertex in self.graph.order().iter().copied() {
            if acted.contains(vertex) {
                continue;
            }
            if outer.contains(vertex) {
                let causes = directed
                    .iter()
                    .filter(|(from, to)| *to == vertex && hears(vertex, *from));
                let seen = causes.fold(0, |all, (from, _)| all ^ own[*from]);
                let unseen = bidirected.iter().enumerate().filter(|(_, (a, b))| {
                    (*a == vertex && hears(vertex, *b)) || (*b == vertex && hears(vertex, *a))
                });
                own[vertex] = unseen.fold(seen, |all, (bit, _)| all ^ (hidden >> bit & 1) as u8);
            }
            let before = self
                .paths
                .iter()
                .filter(|(_, onward)| **onward == Some(vertex));
            passed[vertex] = before.fold(0, |all, (from, _)| all ^ tells(&own, &passed, *from));
        }
        own.iter()
            .zip(&passed)
            .map(|(own, passed)| own | passed << 1)
            .collect()
    }
}

/// Total variation: 0 is the same, 1 has nothing in common.
fn distance(one: &Distribution, other: &Distribution) -> f64 {
    let keys: std::collections::BTreeSet<&Vec<u8>> = one.keys().chain(other.keys()).collect();
    let at = |all: &Distribution, key: &Vec<u8>| all.get(key).copied().unwrap_or(0.0);
    let apart = keys
        .into_iter()
        .map(|key| (at(one, key) - at(other, key)).abs());
    apart.sum::<f64>() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bow_is_proven_and_a_made_up_hedge_is_not() {
        let graph: Admg = "x -> y, x <-> y".parse().unwrap();
        let (x, y) = (Set::one(0), Set::one(1));
        let mut hedge = Hedge {
            outer: x | y,
            inner: y,
            roots: y,
            directed: vec![(0, 1)],
            bidirected: vec![(0, 1)],
        };
        assert_eq!(flaw(&graph, &hedge, y, x), None);
        // Without the hidden cause one can see what the action does.
        hedge.bidirected.clear();
        assert_eq!(
            flaw(&graph, &hedge, y, x),
            Some("the action does the same in both")
        );
        let backward: Admg = "y -> x, x <-> y".parse().unwrap();
        let (x, y) = (Set::one(1), Set::one(0));
        let hedge = Hedge {
            outer: x | y,
            inner: x,
            roots: x,
            directed: vec![],
            bidirected: vec![(0, 1)],
        };
        assert_eq!(
            flaw(&backward, &hedge, y, x),
            Some("a root does not reach what is asked")
        );
    }
}
