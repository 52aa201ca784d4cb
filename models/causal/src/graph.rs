//! Acyclic directed mixed graphs: `a -> b` is a cause, `a <-> b` a hidden common cause.
//!
//! Vertices are indices in the order in which they were named. What is asked of a graph is
//! asked of a [`View`] of it: some of the vertices, with edges into or out of some cut, which
//! is what an action does to a graph (Pearl 2000, 3.4).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{BitAnd, BitOr, Sub};
use std::str::FromStr;

/// Most vertices: a set of them is one machine word of 128 bits.
pub const VERTICES_MAX: usize = 128;

/// Longest name, in bytes.
pub const NAME_MAX: usize = 256;

/// Why there is no graph, or no such set in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A name that no vertex has.
    #[error("there is no vertex {0:?}")]
    Unknown(String),
    /// A vertex that was named twice.
    #[error("the vertex {0:?} is named twice")]
    Twice(String),
    /// A name that is empty, too long, or has characters of the text form.
    #[error("{0:?} is no name: 1 to {NAME_MAX} bytes without space, comma, semicolon and arrow")]
    Name(String),
    /// More vertices than a set can hold.
    #[error("{0} vertices; {VERTICES_MAX} are possible")]
    TooMany(usize),
    /// Causes in a circle.
    #[error("causes in a circle: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    /// An edge of a vertex with itself.
    #[error("{0:?} cannot have an edge with itself")]
    Loop(String),
    /// Text that is no edge.
    #[error("{0:?} is neither a name nor A -> B, A <- B or A <-> B")]
    Edge(String),
}

/// Some of the vertices of a graph.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set(u128);

impl Set {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// The first `count`.
    #[must_use]
    pub fn first(count: usize) -> Self {
        if count >= VERTICES_MAX {
            Self(u128::MAX)
        } else {
            Self((1 << count) - 1)
        }
    }

    /// One vertex; none if there can be no such vertex.
    #[must_use]
    pub fn one(vertex: usize) -> Self {
        u32::try_from(vertex)
            .ok()
            .and_then(|vertex| 1_u128.checked_shl(vertex))
            .map_or(Self::EMPTY, Self)
    }

    #[must_use]
    pub fn contains(self, vertex: usize) -> bool {
        !(self & Self::one(vertex)).is_empty()
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether all of it is in `other`.
    #[must_use]
    pub fn is_in(self, other: Self) -> bool {
        (self - other).is_empty()
    }

    /// Its vertices in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> + Clone {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let next = (left != 0).then_some(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(next)
        })
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(vertices: I) -> Self {
        vertices
            .into_iter()
            .fold(Self::EMPTY, |all, vertex| all | Self::one(vertex))
    }
}

impl BitOr for Set {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Set {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for Set {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_set().entries(self.iter()).finish()
    }
}

/// An acyclic graph of causes, some of them hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admg {
    names: Vec<String>,
    parents: Vec<Set>,
    children: Vec<Set>,
    /// With a hidden common cause.
    siblings: Vec<Set>,
    /// Causes before effects.
    order: Vec<usize>,
}

impl Admg {
    /// Of named vertices with edges between them by name; `bidirected` ones stand for hidden
    /// common causes.
    ///
    /// # Errors
    /// [`GraphError`] if a name is unknown, doubled or no name, or causes go in a circle.
    pub fn new<N: AsRef<str>>(
        names: &[N],
        directed: &[(N, N)],
        bidirected: &[(N, N)],
    ) -> Result<Self, GraphError> {
        let mut places = BTreeMap::new();
        for (place, name) in names.iter().map(AsRef::as_ref).enumerate() {
            if !nameable(name) {
                return Err(GraphError::Name(name.to_owned()));
            }
            if places.insert(name, place).is_some() {
                return Err(GraphError::Twice(name.to_owned()));
            }
        }
        let place = |name: &N| {
            let name = name.as_ref();
            let place = places.get(name).copied();
            place.ok_or_else(|| GraphError::Unknown(name.to_owned()))
        };
        let pairs = |edges: &[(N, N)]| -> Result<Vec<_>, GraphError> {
            let both = edges.iter().map(|(a, b)| Ok((place(a)?, place(b)?)));
            both.collect()
        };
        let (directed, bidirected) = (pairs(directed)?, pairs(bidirected)?);
        let names = names.iter().map(|name| name.as_ref().to_owned()).collect();
        Self::build(names, &directed, &bidirected)
    }

    /// Of `count` vertices `v0`, `v1` and so on.
    ///
    /// # Errors
    /// [`GraphError`] if an edge names no vertex or causes go in a circle.
    pub fn indexed(
        count: usize,
        directed: &[(usize, usize)],
        bidirected: &[(usize, usize)],
    ) -> Result<Self, GraphError> {
        if count > VERTICES_MAX {
            return Err(GraphError::TooMany(count));
        }
        for vertex in directed.iter().chain(bidirected).flat_map(|(a, b)| [a, b]) {
            if *vertex >= count {
                return Err(GraphError::Unknown(format!("v{vertex}")));
            }
        }
        let names = (0..count).map(|vertex| format!("v{vertex}")).collect();
        Self::build(names, directed, bidirected)
    }

    fn build(
        names: Vec<String>,
        directed: &[(usize, usize)],
        bidirected: &[(usize, usize)],
    ) -> Result<Self, GraphError> {
        let count = names.len();
        if count > VERTICES_MAX {
            return Err(GraphError::TooMany(count));
        }
        let mut graph = Self {
            names,
            parents: vec![Set::EMPTY; count],
            children: vec![Set::EMPTY; count],
            siblings: vec![Set::EMPTY; count],
            order: Vec::with_capacity(count),
        };
        let both = directed.iter().chain(bidirected);
        if let Some((own, _)) = both.clone().find(|(a, b)| a == b) {
            return Err(GraphError::Loop(graph.names[*own].clone()));
        }
        let join = |to: &mut Set, vertex| *to = *to | Set::one(vertex);
        for (cause, effect) in directed {
            join(&mut graph.children[*cause], *effect);
            join(&mut graph.parents[*effect], *cause);
        }
        for (one, other) in bidirected {
            join(&mut graph.siblings[*one], *other);
            join(&mut graph.siblings[*other], *one);
        }
        let mut left = graph.vertices();
        while let Some(next) = left
            .iter()
            .find(|vertex| (graph.parents[*vertex] & left).is_empty())
        {
            graph.order.push(next);
            left = left - Set::one(next);
        }
        if left.is_empty() {
            Ok(graph)
        } else {
            Err(GraphError::Cycle(graph.cycle(left)))
        }
    }

    /// A circle among vertices of which each has a cause among them.
    fn cycle(&self, left: Set) -> Vec<String> {
        let mut at = left.iter().next().unwrap_or(0);
        let mut walked = Vec::new();
        while !walked.contains(&at) {
            walked.push(at);
            at = (self.parents[at] & left).iter().next().unwrap_or(at);
        }
        let mut circle: Vec<usize> = walked.into_iter().skip_while(|one| *one != at).collect();
        circle.push(at);
        let names = circle.iter().rev().map(|one| self.names[*one].clone());
        names.collect()
    }

    /// How many vertices it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All vertices.
    #[must_use]
    pub fn vertices(&self) -> Set {
        Set::first(self.len())
    }

    /// The name of a vertex; `?` if there is none.
    #[must_use]
    pub fn name(&self, vertex: usize) -> &str {
        self.names.get(vertex).map_or("?", String::as_str)
    }

    /// The vertex of a name.
    ///
    /// # Errors
    /// [`GraphError::Unknown`].
    pub fn vertex(&self, name: &str) -> Result<usize, GraphError> {
        let place = self.names.iter().position(|known| known == name);
        place.ok_or_else(|| GraphError::Unknown(name.to_owned()))
    }

    /// The vertices of these names.
    ///
    /// # Errors
    /// [`GraphError::Unknown`].
    pub fn set<N: AsRef<str>>(
        &self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Set, GraphError> {
        let vertices = names.into_iter().map(|name| self.vertex(name.as_ref()));
        vertices.collect()
    }

    /// The names of a set, as `a, b`.
    #[must_use]
    pub fn list(&self, set: Set) -> String {
        let names: Vec<&str> = set.iter().map(|vertex| self.name(vertex)).collect();
        names.join(", ")
    }

    /// All vertices, causes before effects.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Direct causes.
    #[must_use]
    pub fn parents(&self, vertex: usize) -> Set {
        self.parents.get(vertex).copied().unwrap_or_default()
    }

    /// Direct effects.
    #[must_use]
    pub fn children(&self, vertex: usize) -> Set {
        self.children.get(vertex).copied().unwrap_or_default()
    }

    /// Those with which it has a hidden common cause.
    #[must_use]
    pub fn siblings(&self, vertex: usize) -> Set {
        self.siblings.get(vertex).copied().unwrap_or_default()
    }

    /// All of it, nothing cut.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View {
            graph: self,
            within: self.vertices(),
            into: Set::EMPTY,
            out: Set::EMPTY,
        }
    }
}

/// `a -> b, b <- c; a <-> c, d`: vertices in the order in which they appear.
impl FromStr for Admg {
    type Err = GraphError;

    fn from_str(text: &str) -> Result<Self, GraphError> {
        let mut names: Vec<&str> = Vec::new();
        let (mut directed, mut bidirected) = (Vec::new(), Vec::new());
        let parts = text.split([',', ';', '\n']).map(str::trim);
        for part in parts.filter(|part| !part.is_empty()) {
            let words: Vec<&str> = part.split_whitespace().collect();
            match words[..] {
                [_] => {}
                [a, "->", b] => directed.push((a, b)),
                [a, "<-", b] => directed.push((b, a)),
                [a, "<->", b] => bidirected.push((a, b)),
                _ => return Err(GraphError::Edge(part.to_owned())),
            }
            let ends = words.iter().step_by(2);
            for name in ends {
                if !names.contains(name) {
                    names.push(name);
                }
            }
            if names.len() > VERTICES_MAX {
                return Err(GraphError::TooMany(names.len()));
            }
        }
        Self::new(&names, &directed, &bidirected)
    }
}

/// The text form, which reads back.
impl fmt::Display for Admg {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All names first, so that they keep their order.
        let mut parts = self.names.clone();
        for (vertex, name) in self.names.iter().enumerate() {
            let to = |arrow, other| format!("{name} {arrow} {}", self.name(other));
            parts.extend(self.children[vertex].iter().map(|child| to("->", child)));
            let later = self.siblings[vertex].iter().filter(|other| *other > vertex);
            parts.extend(later.map(|other| to("<->", other)));
        }
        to.write_str(&parts.join(", "))
    }
}

fn nameable(name: &str) -> bool {
    let apart = |letter: char| letter.is_whitespace() || matches!(letter, ',' | ';');
    (1..=NAME_MAX).contains(&name.len())
        && !name.contains(apart)
        && !matches!(name, "->" | "<-" | "<->")
}

/// A part of a graph with some edges cut.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    graph: &'a Admg,
    within: Set,
    into: Set,
    out: Set,
}

impl View<'_> {
    /// Only these vertices.
    #[must_use]
    pub fn within(self, vertices: Set) -> Self {
        let within = self.within & vertices;
        Self { within, ..self }
    }

    /// No edge leads into these any more: somebody acts on them.
    #[must_use]
    pub fn cut_into(self, vertices: Set) -> Self {
        let into = self.into | vertices;
        Self { into, ..self }
    }

    /// No cause leads out of these any more.
    #[must_use]
    pub fn cut_out(self, vertices: Set) -> Self {
        let out = self.out | vertices;
        Self { out, ..self }
    }

    fn parents(&self, vertex: usize) -> Set {
        if self.into.contains(vertex) {
            return Set::EMPTY;
        }
        (self.graph.parents(vertex) & self.within) - self.out
    }

    fn children(&self, vertex: usize) -> Set {
        if self.out.contains(vertex) {
            return Set::EMPTY;
        }
        (self.graph.children(vertex) & self.within) - self.into
    }

    fn siblings(&self, vertex: usize) -> Set {
        if self.into.contains(vertex) {
            return Set::EMPTY;
        }
        (self.graph.siblings(vertex) & self.within) - self.into
    }

    /// They and all their causes.
    #[must_use]
    pub fn ancestors(&self, of: Set) -> Set {
        self.reach(of, |vertex| self.parents(vertex))
    }

    /// They and all their effects.
    #[must_use]
    pub fn descendants(&self, of: Set) -> Set {
        self.reach(of, |vertex| self.children(vertex))
    }

    fn reach(&self, of: Set, next: impl Fn(usize) -> Set) -> Set {
        let (mut all, mut fresh) = (of & self.within, of & self.within);
        while let Some(vertex) = fresh.iter().next() {
            let new = next(vertex) - all;
            all = all | new;
            fresh = (fresh - Set::one(vertex)) | new;
        }
        all
    }

    /// The parts that hidden common causes hold together (c-components).
    #[must_use]
    pub fn districts(&self) -> Vec<Set> {
        let (mut left, mut all) = (self.within, Vec::new());
        while let Some(vertex) = left.iter().next() {
            let district = self.reach(Set::one(vertex), |vertex| self.siblings(vertex));
            all.push(district);
            left = left - district;
        }
        all
    }

    /// Whether `given` blocks every path between `from` and `to` (m-separation, Richardson
    /// 2003). What is in `given` counts for neither side.
    #[must_use]
    pub fn separated(&self, from: Set, to: Set, given: Set) -> bool {
        let (from, to) = ((from & self.within) - given, to - given);
        let known = self.ancestors(given);
        // Where a walk may be, having come along an arrowhead or not.
        let mut seen = [Set::EMPTY; 2];
        let mut walk: Vec<(usize, bool)> = from.iter().map(|vertex| (vertex, false)).collect();
        while let Some((vertex, head)) = walk.pop() {
            let been = &mut seen[usize::from(head)];
            if been.contains(vertex) {
                continue;
            }
            *been = *been | Set::one(vertex);
            if to.contains(vertex) {
                return false;
            }
            let open = !given.contains(vertex);
            if open {
                walk.extend(self.children(vertex).iter().map(|next| (next, true)));
            }
            // Two arrowheads that meet let pass if they or an effect of theirs is known.
            let back = if head { known.contains(vertex) } else { open };
            if back {
                walk.extend(self.parents(vertex).iter().map(|next| (next, false)));
                walk.extend(self.siblings(vertex).iter().map(|next| (next, true)));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(text: &str) -> Admg {
        text.parse().unwrap()
    }

    fn separated(graph: &Admg, from: &str, to: &str, given: &[&str]) -> bool {
        let set = |name| graph.set([name]).unwrap();
        let given = graph.set(given).unwrap();
        graph.view().separated(set(from), set(to), given)
    }

    #[test]
    fn bad_graphs_are_refused_with_what_is_wrong() {
        let said = |text: &str| text.parse::<Admg>().unwrap_err().to_string();
        assert_eq!(
            said("a -> b, b -> c, c -> a, d -> a"),
            "causes in a circle: a -> b -> c -> a"
        );
        assert_eq!(said("a -> a"), "\"a\" cannot have an edge with itself");
        assert_eq!(
            said("a => b"),
            "\"a => b\" is neither a name nor A -> B, A <- B or A <-> B"
        );
        assert_eq!(
            Admg::new(&["a", "a"], &[], &[]),
            Err(GraphError::Twice("a".into()))
        );
        assert_eq!(
            Admg::new(&["a"], &[("a", "b")], &[]),
            Err(GraphError::Unknown("b".into()))
        );
        assert_eq!(
            Admg::indexed(2, &[(0, 2)], &[]),
            Err(GraphError::Unknown("v2".into()))
        );
        assert_eq!(Admg::indexed(129, &[], &[]), Err(GraphError::TooMany(129)));
        assert!(matches!(
            Admg::new(&[""], &[], &[]),
            Err(GraphError::Name(_))
        ));
        assert!(graph("").is_empty());
    }

    #[test]
    fn the_text_reads_back() {
        let one = graph("x -> m; y <- m, x <-> y, lone");
        assert_eq!(one.to_string(), "x, m, y, lone, x -> m, x <-> y, m -> y");
        assert_eq!(one.to_string().parse::<Admg>().unwrap(), one);
        let order: Vec<&str> = one.order().iter().map(|at| one.name(*at)).collect();
        assert_eq!(order, ["x", "m", "y", "lone"]);
    }

    #[test]
    fn paths_are_blocked_as_they_should() {
        let chain = graph("a -> b, b -> c");
        assert!(!separated(&chain, "a", "c", &[]) && separated(&chain, "a", "c", &["b"]));
        let collider = graph("a -> b, c -> b, b -> d");
        assert!(separated(&collider, "a", "c", &[]));
        assert!(!separated(&collider, "a", "c", &["b"]));
        assert!(!separated(&collider, "a", "c", &["d"]));
        let hidden = graph("a <-> b, b <-> c");
        assert!(separated(&hidden, "a", "c", &[]) && !separated(&hidden, "a", "c", &["b"]));
        let m = graph("a -> x, a -> m, b -> m, b -> y");
        assert!(separated(&m, "x", "y", &[]) && !separated(&m, "x", "y", &["m"]));
        assert!(separated(&m, "x", "y", &["m", "a"]));
    }

    #[test]
    fn districts_and_relatives() {
        let all = graph("a -> b, b -> c, a <-> c, d");
        let set = |names: &[&str]| all.set(names).unwrap();
        assert_eq!(
            all.view().districts(),
            [set(&["a", "c"]), set(&["b"]), set(&["d"])]
        );
        assert_eq!(all.view().ancestors(set(&["c"])), set(&["a", "b", "c"]));
        let cut = all.view().cut_into(set(&["b"]));
        assert_eq!(cut.ancestors(set(&["c"])), set(&["b", "c"]));
        assert_eq!(cut.descendants(set(&["a"])), set(&["a"]));
        let cut = all.view().cut_out(set(&["b"]));
        assert_eq!(cut.descendants(set(&["a"])), set(&["a", "b"]));
    }

    #[test]
    fn the_largest_graph_has_a_vertex_for_each_bit() {
        let chain: Vec<(usize, usize)> = (1..VERTICES_MAX).map(|at| (at - 1, at)).collect();
        let graph = Admg::indexed(VERTICES_MAX, &chain, &chain).unwrap();
        assert_eq!(graph.vertices().len(), VERTICES_MAX);
        assert_eq!(graph.view().ancestors(Set::one(127)), graph.vertices());
        assert_eq!(graph.view().districts().len(), 1);
    }
}
