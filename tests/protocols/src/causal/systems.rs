//! Three systems of which every link is known, and what is recorded of them.
//!
//! `tutorial`: five variables with moderate memory and weights as in the tutorial of PCMCI+.
//! `strong`: ten variables with strong memory and a new random graph for each recording (the
//! setting of Runge 2020, section 4). `varied`: eight services, of which callers wait for
//! whom they call within a step, with heavy tails (Student's t with 3 degrees of freedom).

use fastrand::Rng;
use homeostat_causal::series::Series;

/// Steps before anything is recorded: memory of 0.9 is gone after them.
const BEFORE: usize = 200;

/// A value beyond this means that the links feed each other without end.
const RUNAWAY: f64 = 1e4;

/// How often a random system is drawn before giving up on one that is stable.
const DRAWS_MAX: usize = 1000;

/// A link of a system; a lag of 0 is within the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) lag: usize,
    weight: f64,
}

const fn link(from: usize, to: usize, lag: usize, weight: f64) -> Link {
    Link {
        from,
        to,
        lag,
        weight,
    }
}

/// What is searched.
pub(super) struct Recording {
    pub(super) series: Series,
    /// Those between different variables.
    pub(super) links: Vec<Link>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    Tutorial,
    Strong,
    Varied,
}

impl System {
    pub(super) const ALL: [Self; 3] = [Self::Tutorial, Self::Strong, Self::Varied];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tutorial => "tutorial",
            Self::Strong => "strong",
            Self::Varied => "varied",
        }
    }

    pub(super) fn lags(self) -> usize {
        match self {
            Self::Tutorial | Self::Strong => 5,
            Self::Varied => 3,
        }
    }

    fn steps(self) -> usize {
        match self {
            Self::Tutorial | Self::Strong => 500,
            Self::Varied => 1000,
        }
    }

    /// A recording of a seed; `None` if no stable system was drawn.
    pub(super) fn record(self, seed: u64) -> Option<Recording> {
        let mut rng = Rng::with_seed(seed);
        for _ in 0..DRAWS_MAX {
            let (memory, links) = match self {
                Self::Tutorial => tutorial(),
                Self::Strong => strong(&mut rng),
                Self::Varied => varied(),
            };
            let heavy = self == Self::Varied;
            if let Some(series) = play(&memory, &links, self.steps(), heavy, &mut rng) {
                return Some(Recording { series, links });
            }
        }
        None
    }
}

fn tutorial() -> (Vec<f64>, Vec<Link>) {
    let links = vec![
        link(0, 1, 1, 0.6),
        link(1, 2, 0, 0.6),
        link(3, 2, 0, -0.5),
        link(2, 4, 2, 0.5),
        link(0, 3, 3, -0.5),
        link(3, 4, 0, 0.4),
    ];
    (vec![0.7, 0.6, 0.5, 0.7, 0.6], links)
}

/// As many links as variables, three in ten within a step, from a random order of variables.
fn strong(rng: &mut Rng) -> (Vec<f64>, Vec<Link>) {
    const COUNT: usize = 10;
    let mut order: Vec<usize> = (0..COUNT).collect();
    rng.shuffle(&mut order);
    let mut links: Vec<Link> = Vec::with_capacity(COUNT);
    while links.len() < COUNT {
        let (one, other) = (rng.usize(..COUNT), rng.usize(..COUNT));
        let now = rng.f64() < 0.3;
        if one == other || (now && one > other) {
            continue;
        }
        let (from, to) = (order[one], order[other]);
        if links
            .iter()
            .any(|link| (link.from, link.to) == (from, to) || (link.from, link.to) == (to, from))
        {
            continue;
        }
        let size = 0.2 + 0.3 * rng.f64();
        let weight = if rng.bool() { size } else { -size };
        let lag = if now { 0 } else { rng.usize(1..=5) };
        links.push(link(from, to, lag, weight));
    }
    let memory = (0..COUNT).map(|_| 0.8 + 0.15 * rng.f64()).collect();
    (memory, links)
}

/// Gateway, two front services, three back services, a store and its disk: who calls waits
/// within the step, and load follows a step later.
fn varied() -> (Vec<f64>, Vec<Link>) {
    let links = vec![
        link(7, 6, 0, 0.6),
        link(6, 3, 0, 0.5),
        link(6, 4, 0, 0.5),
        link(3, 1, 0, 0.5),
        link(4, 1, 0, 0.4),
        link(5, 2, 0, 0.6),
        link(1, 0, 0, 0.5),
        link(2, 0, 0, 0.5),
        link(0, 5, 1, 0.3),
        link(1, 7, 2, 0.25),
    ];
    (vec![0.2, 0.3, 0.3, 0.3, 0.3, 0.3, 0.4, 0.5], links)
}

fn play(
    memory: &[f64],
    links: &[Link],
    steps: usize,
    heavy: bool,
    rng: &mut Rng,
) -> Option<Series> {
    let count = memory.len();
    let order = order(count, links)?;
    let all = BEFORE + steps;
    let mut rows = vec![vec![0.0; count]; all];
    for step in 0..all {
        for to in order.iter().copied() {
            let noise = gauss(rng) / if heavy { spread_of_t(rng) } else { 1.0 };
            let own = if step > 0 {
                memory[to] * rows[step - 1][to]
            } else {
                0.0
            };
            let causes = links
                .iter()
                .filter(|link| link.to == to && link.lag <= step);
            let others: f64 = causes
                .map(|link| link.weight * rows[step - link.lag][link.from])
                .sum();
            rows[step][to] = own + others + noise;
            if rows[step][to].abs() > RUNAWAY {
                return None;
            }
        }
    }
    let columns = (0..count).map(|at| rows[BEFORE..].iter().map(|row| row[at]).collect());
    let names: Vec<String> = (0..count).map(|at| format!("v{at}")).collect();
    Series::new(&names, columns.collect()).ok()
}

/// Causes within a step before their effects.
fn order(count: usize, links: &[Link]) -> Option<Vec<usize>> {
    let now = links.iter().filter(|link| link.lag == 0);
    let edges: Vec<(usize, usize)> = now.map(|link| (link.from, link.to)).collect();
    let graph = homeostat_causal::graph::Admg::indexed(count, &edges, &[]).ok()?;
    Some(graph.order().to_vec())
}

/// Box and Muller.
fn gauss(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

/// What a Gaussian is divided by for Student's t with 3 degrees of freedom.
fn spread_of_t(rng: &mut Rng) -> f64 {
    let squares: f64 = (0..3).map(|_| gauss(rng).powi(2)).sum();
    (squares / 3.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_is_stable_and_repeats_itself() {
        for system in System::ALL {
            let one = system.record(5).unwrap();
            assert_eq!(one.series, system.record(5).unwrap().series);
            assert_ne!(one.series, system.record(6).unwrap().series);
            assert_eq!(one.series.steps(), system.steps());
            assert!(one.links.iter().all(|link| link.lag <= system.lags()));
            assert!(one.links.iter().any(|link| link.lag == 0));
        }
    }
}
