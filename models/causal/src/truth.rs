//! Small models whose effects are known exactly, to check everything else against.
//!
//! Each vertex takes a value by chance that depends on its causes and on hidden ones; an
//! action replaces that chance. Distributions come from going through all combinations, so
//! they are exact and the models must be small.

use fastrand::Rng;

use crate::estimate::{EstimateError, Table};
use crate::graph::{Admg, Set};

/// The least probability of a value is about this share of an even one, so that no condition
/// is impossible.
const LEAST: f64 = 0.1;

/// Most combinations of values, hidden ones included.
const WORLDS_MAX: usize = 1 << 24;

/// A model of discrete values with hidden common causes.
#[derive(Debug, Clone)]
pub struct Model {
    order: Vec<usize>,
    /// Number of values of each vertex.
    values: Vec<usize>,
    causes: Vec<Vec<usize>>,
    /// Which hidden causes each vertex has.
    hidden_of: Vec<Vec<usize>>,
    /// How likely each value of a hidden cause is.
    hidden: Vec<Vec<f64>>,
    /// How likely each value of a vertex is, by its causes and then its hidden ones.
    chance: Vec<Vec<f64>>,
}

impl Model {
    /// A random one on a graph: each vertex has so many values, and each `<->` is a hidden
    /// cause of two or three.
    ///
    /// # Errors
    /// [`EstimateError`] if it would be too large or `values` does not fit the graph.
    pub fn random(graph: &Admg, values: &[usize], rng: &mut Rng) -> Result<Self, EstimateError> {
        let (vertices, found) = (graph.len(), values.len());
        if vertices != found || values.contains(&0) {
            return Err(EstimateError::Values { vertices, found });
        }
        let mut hidden_of = vec![Vec::new(); vertices];
        let mut hidden: Vec<Vec<f64>> = Vec::new();
        for one in 0..vertices {
            for other in graph.siblings(one).iter().filter(|other| *other > one) {
                hidden_of[one].push(hidden.len());
                hidden_of[other].push(hidden.len());
                let count = rng.usize(2..=3);
                hidden.push(shares(count, rng));
            }
        }
        let counts = values.iter().copied().chain(hidden.iter().map(Vec::len));
        let worlds = counts.fold(1_usize, usize::saturating_mul);
        if worlds > WORLDS_MAX {
            return Err(EstimateError::TooLarge);
        }
        let causes: Vec<Vec<usize>> = (0..vertices)
            .map(|vertex| graph.parents(vertex).iter().collect())
            .collect();
        let chance = (0..vertices).map(|vertex| {
            let seen = causes[vertex].iter().map(|cause| values[*cause]);
            let unseen = hidden_of[vertex].iter().map(|cause| hidden[*cause].len());
            let conditions: usize = seen.chain(unseen).product();
            let drawn = (0..conditions).flat_map(|_| shares(values[vertex], rng));
            drawn.collect()
        });
        let chance = chance.collect();
        Ok(Self {
            order: graph.order().to_vec(),
            values: values.to_vec(),
            causes,
            hidden_of,
            hidden,
            chance,
        })
    }

    /// How likely each combination is when somebody sets some vertices; with none, what is
    /// observed.
    ///
    /// # Errors
    /// [`EstimateError::Setting`] if a vertex cannot have the value.
    pub fn acted(&self, on: &[(usize, usize)]) -> Result<Table, EstimateError> {
        let mut set = vec![None; self.values.len()];
        for (vertex, value) in on {
            match self.values.get(*vertex) {
                Some(count) if value < count => set[*vertex] = Some(*value),
                _ => {
                    let text = format!("vertex {vertex} cannot be {value}");
                    return Err(EstimateError::Setting(text));
                }
            }
        }
        let mut cells = vec![0.0; self.values.iter().product()];
        let counts: Vec<usize> = self.hidden.iter().map(Vec::len).collect();
        let mut hidden = vec![0; counts.len()];
        for _ in 0..counts.iter().product() {
            let drawn = hidden.iter().zip(&self.hidden);
            let likely: f64 = drawn.map(|(value, chance)| chance[*value]).product();
            let mut seen = vec![0; self.values.len()];
            self.spread(0, likely, &set, &hidden, &mut seen, &mut cells);
            step(&mut hidden, &counts);
        }
        Table::new(&self.values, cells)
    }

    /// Adds the combinations that go on from the vertices before `place` of the order.
    fn spread(
        &self,
        place: usize,
        likely: f64,
        set: &[Option<usize>],
        hidden: &[usize],
        seen: &mut Vec<usize>,
        cells: &mut [f64],
    ) {
        let Some(vertex) = self.order.get(place).copied() else {
            let at = seen
                .iter()
                .zip(&self.values)
                .fold(0, |at, (a, b)| at * b + a);
            cells[at] += likely;
            return;
        };
        if let Some(value) = set[vertex] {
            seen[vertex] = value;
            self.spread(place + 1, likely, set, hidden, seen, cells);
            return;
        }
        let causes = self.causes[vertex].iter();
        let at = causes.fold(0, |at, cause| at * self.values[*cause] + seen[*cause]);
        let causes = self.hidden_of[vertex].iter();
        let at = causes.fold(at, |at, cause| {
            at * self.hidden[*cause].len() + hidden[*cause]
        });
        for value in 0..self.values[vertex] {
            seen[vertex] = value;
            let likely = likely * self.chance[vertex][at * self.values[vertex] + value];
            self.spread(place + 1, likely, set, hidden, seen, cells);
        }
    }
}

/// A random graph: of each pair in a random order a cause with one and a hidden common cause
/// with another probability.
#[must_use]
pub fn random_graph(count: usize, causes: f64, hidden: f64, rng: &mut Rng) -> Admg {
    let mut order: Vec<usize> = (0..count).collect();
    rng.shuffle(&mut order);
    let (mut directed, mut bidirected) = (Vec::new(), Vec::new());
    for (place, one) in order.iter().enumerate() {
        for other in order.iter().skip(place + 1) {
            if rng.f64() < causes {
                directed.push((*one, *other));
            }
            if rng.f64() < hidden {
                bidirected.push((*one, *other));
            }
        }
    }
    // Edges follow an order of vertices that exist, so this fails only for too many.
    Admg::indexed(count, &directed, &bidirected).unwrap_or_else(|_| random_graph(0, 0.0, 0.0, rng))
}

/// Some vertices to act on and others to ask for; `None` if there are too few.
#[must_use]
pub fn random_question(graph: &Admg, most: usize, rng: &mut Rng) -> Option<(Set, Set)> {
    let mut all: Vec<usize> = graph.vertices().iter().collect();
    rng.shuffle(&mut all);
    let most = most.min(all.len() / 2);
    let (ask, act) = (rng.usize(1..=most.max(1)), rng.usize(1..=most.max(1)));
    let y: Set = all.iter().copied().take(ask).collect();
    let x: Set = all.iter().copied().skip(ask).take(act).collect();
    (!x.is_empty()).then_some((y, x))
}

fn shares(count: usize, rng: &mut Rng) -> Vec<f64> {
    let drawn: Vec<f64> = (0..count).map(|_| LEAST + rng.f64()).collect();
    let sum: f64 = drawn.iter().sum();
    drawn.into_iter().map(|one| one / sum).collect()
}

fn step(at: &mut [usize], counts: &[usize]) {
    for (value, count) in at.iter_mut().zip(counts).rev() {
        *value += 1;
        if *value < *count {
            return;
        }
        *value = 0;
    }
}
