//! Why an effect does not follow from observation: the hedge (Shpitser and Pearl 2006).
//!
//! Two forests of causes that end in the same roots, each held together by hidden common
//! causes, of which only the larger has vertices that are acted on. Two worlds that look the
//! same can then differ in what the action does, so no amount of data answers.

use crate::graph::{Admg, Set};

/// The reason; see [`Hedge::flaw`] for what it must satisfy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hedge {
    /// The larger forest F.
    pub outer: Set,
    /// The smaller one F', without the action.
    pub inner: Set,
    /// Where both end.
    pub roots: Set,
    /// The causes that are edges of F; each vertex but the roots has one.
    pub directed: Vec<(usize, usize)>,
    /// Hidden common causes of F, a tree; those within F' are a tree of it.
    pub bidirected: Vec<(usize, usize)>,
}

impl Hedge {
    /// Of a part `outer` of the graph in which all are causes of the asked, one district, and
    /// of the district `inner` that is left of it without the action.
    pub(crate) fn new(graph: &Admg, outer: Set, inner: Set) -> Self {
        let ends = |vertex: &usize| (graph.children(*vertex) & inner).is_empty();
        let roots: Set = inner.iter().filter(ends).collect();
        let (mut directed, mut bidirected) = (Vec::new(), Vec::new());
        let mut placed = roots;
        let mut joined: Set = inner.iter().take(1).collect();
        for part in [inner, outer] {
            while let Some((from, to)) = (part - placed).iter().find_map(|from| {
                let to = (graph.children(from) & placed).iter().next()?;
                Some((from, to))
            }) {
                directed.push((from, to));
                placed = placed | Set::one(from);
            }
            while let Some((new, old)) = (part - joined).iter().find_map(|new| {
                let old = (graph.siblings(new) & joined).iter().next()?;
                Some((new, old))
            }) {
                bidirected.push((new, old));
                joined = joined | Set::one(new);
            }
        }
        Self {
            outer,
            inner,
            roots,
            directed,
            bidirected,
        }
    }

    /// What is wrong with it as a hedge for P(y | do(x)); `None` if nothing is.
    #[must_use]
    pub fn flaw(&self, graph: &Admg, y: Set, x: Set) -> Option<&'static str> {
        let real = self.directed.iter();
        let hidden = self.bidirected.iter();
        let within = |part: Set, edges: &[(usize, usize)]| -> Vec<(usize, usize)> {
            let both = |(a, b): &&(usize, usize)| part.contains(*a) && part.contains(*b);
            edges.iter().filter(both).copied().collect()
        };
        let forest = |part: Set| {
            let edges = within(part, &self.directed);
            let once = part.iter().all(|vertex| {
                let causes = edges.iter().filter(|(from, _)| *from == vertex).count();
                causes == usize::from(!self.roots.contains(vertex))
            });
            once && edges.len() == (part - self.roots).len()
        };
        let whole = |part: Set| {
            let edges = within(part, &self.bidirected);
            let mut reached: Set = part.iter().take(1).collect();
            while let Some(new) = edges.iter().find_map(|(a, b)| {
                let ends = Set::one(*a) | Set::one(*b);
                let new = ends - reached;
                (new.len() == 1).then_some(new)
            }) {
                reached = reached | new;
            }
            reached == part
        };
        let asked = graph.view().cut_into(x).ancestors(y);
        [
            (
                real.clone().all(|(a, b)| graph.children(*a).contains(*b))
                    && hidden.clone().all(|(a, b)| graph.siblings(*a).contains(*b)),
                "an edge is not of the graph",
            ),
            (
                self.inner.is_in(self.outer) && self.inner != self.outer,
                "the smaller forest is not in the larger",
            ),
            (
                !self.roots.is_empty() && self.roots.is_in(self.inner),
                "the roots are not in both",
            ),
            (
                forest(self.outer) && forest(self.inner),
                "a vertex has more than one way to the roots, or none",
            ),
            (
                whole(self.outer) && whole(self.inner),
                "hidden causes do not hold it together",
            ),
            (
                !(self.outer & x).is_empty() && (self.inner & x).is_empty(),
                "the action is not in the larger alone",
            ),
            (
                self.roots.is_in(asked),
                "a root is no cause of what is asked once x is set",
            ),
        ]
        .into_iter()
        .find_map(|(holds, flaw)| (!holds).then_some(flaw))
    }

    /// In words.
    #[must_use]
    pub fn text(&self, graph: &Admg) -> String {
        let hidden: Vec<String> = self
            .bidirected
            .iter()
            .map(|(a, b)| format!("{} <-> {}", graph.name(*a), graph.name(*b)))
            .collect();
        format!(
            "hidden common causes ({}) tie {{{}}} to {{{}}}, so that acting cannot be told from coinciding",
            hidden.join(", "),
            graph.list(self.outer - self.inner),
            graph.list(self.inner),
        )
    }
}
