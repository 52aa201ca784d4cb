//! Which links time series propose: PCMCI+ (Runge 2020), with linear partial correlation.
//!
//! In: a [`Series`]. Out: links from the past and within one step, each directed, without a
//! known direction, or with tests that contradict each other. First each variable's past is
//! searched for what may cause it, then links within a step are tested given that past, then
//! directions follow from colliders and from what would contradict them.
//!
//! Advisory and for use at leisure: it assumes that nothing hidden causes two variables and
//! that effects are linear, and neither is certain. It proposes; [`Discovered::beside`] says
//! what a known topology makes of it. Deterministic; its tests are bounded by
//! [`Settings::tests_max`].

mod orient;
mod partial;
mod skeleton;

use std::collections::BTreeMap;

use crate::graph::Admg;
use crate::series::{Series, constant};

use partial::{Node, Tests};

/// Most variables times lags, both of the test and of its conditions: the matrix of their
/// correlations then has 32 MiB.
pub const NODES_MAX: usize = 2048;

/// Fewest rows: with fewer a test sees only what is obvious.
pub const ROWS_MIN: usize = 30;

/// What is fixed before a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How many steps a cause may lie back; at least 1.
    pub lags: usize,
    /// A test with a probability up to this counts as dependence.
    pub alpha: f64,
    /// When two causes meet.
    pub colliders: Colliders,
    /// Most conditions within a step; `None`: as many as there are.
    pub conditions_max: Option<usize>,
    /// Most conditions from the past on either side; `None`: all that were found.
    pub past_max: Option<usize>,
    /// Most tests before it gives up: ten million take a few minutes on one core.
    pub tests_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lags: 5,
            alpha: 0.01,
            colliders: Colliders::Majority,
            conditions_max: None,
            past_max: None,
            tests_max: 10_000_000,
        }
    }
}

/// When the middle of three is taken for a common effect of the outer two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colliders {
    /// If it is in fewer than half of all sets that separate them.
    Majority,
    /// If it is in none of them.
    Conservative,
}

/// Why there was no search.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DiscoverError {
    /// A setting that makes no sense.
    #[error("{0}")]
    Setting(String),
    /// Nothing to compare.
    #[error("{0} variables; a search needs two")]
    TooFewVariables(usize),
    /// Too few rows.
    #[error("{rows} rows remain after the lags; a search needs {ROWS_MIN} and more")]
    TooFewRows {
        /// Without those that only serve as past, and without missing ones.
        rows: usize,
    },
    /// A column that never changes.
    #[error("{0} never changes; leave it out")]
    Constant(String),
    /// Too many variables and lags.
    #[error("{0} variables and lags; {NODES_MAX} are possible")]
    TooLarge(usize),
    /// The bound of the settings.
    #[error("gave up after {0} tests")]
    TooManyTests(usize),
}

/// What is known of the direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It leads from the one to the other.
    Known,
    /// Either way would fit.
    Open,
    /// Tests contradict each other.
    Conflict,
}

/// A proposed link.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Its place among the names; the cause if the direction is known.
    pub from: usize,
    /// The other end.
    pub to: usize,
    /// Steps from cause to effect; 0 within one.
    pub lag: usize,
    /// What is known of its direction.
    pub direction: Direction,
    /// Partial correlation in the test that came closest to refuting it.
    pub value: f64,
    /// Probability of that by chance.
    pub p: f64,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Discovered {
    /// Of the series.
    pub names: Vec<String>,
    /// By effect, cause and lag.
    pub links: Vec<Link>,
    /// Tests that it took.
    pub tests: usize,
}

/// What a known topology makes of a proposed link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// The topology has it.
    Known,
    /// The topology has it the other way round.
    Reversed,
    /// The topology has a hidden common cause there.
    Hidden,
    /// The topology has nothing there: worth a look or a trial.
    New,
    /// The topology does not have both of them.
    Unknown,
}

impl Discovered {
    /// One line a link.
    #[must_use]
    pub fn text(&self) -> String {
        let name = |at: usize| self.names.get(at).map_or("?", String::as_str);
        let line = |link: &Link| {
            let arrow = match link.direction {
                Direction::Known => "->",
                Direction::Open => "--",
                Direction::Conflict => "x-x",
            };
            let ago = match link.lag {
                0 => String::new(),
                lag => format!(" ({lag} ago)"),
            };
            let (from, to) = (name(link.from), name(link.to));
            let (value, p) = (link.value, link.p);
            format!("{from}{ago} {arrow} {to}: {value:+.2}, p = {p:.1e}\n")
        };
        self.links.iter().map(line).collect()
    }

    /// Each link between two variables with what a topology makes of it. A variable's own
    /// past is left out.
    #[must_use]
    pub fn beside(&self, topology: &Admg) -> Vec<(&Link, Advice)> {
        let places: BTreeMap<usize, usize> = self
            .names
            .iter()
            .enumerate()
            .filter_map(|(at, name)| Some((at, topology.vertex(name).ok()?)))
            .collect();
        let advice = |link: &Link| {
            let (Some(from), Some(to)) = (places.get(&link.from), places.get(&link.to)) else {
                return Advice::Unknown;
            };
            let along = topology.children(*from).contains(*to);
            let against = topology.parents(*from).contains(*to);
            if along || (against && link.direction != Direction::Known) {
                Advice::Known
            } else if against {
                Advice::Reversed
            } else if topology.siblings(*from).contains(*to) {
                Advice::Hidden
            } else {
                Advice::New
            }
        };
        let others = self.links.iter().filter(|link| link.from != link.to);
        others.map(|link| (link, advice(link))).collect()
    }
}

/// Searches a series for links.
///
/// # Errors
/// [`DiscoverError`] if the series or the settings do not allow it.
pub fn pcmci_plus(series: &Series, settings: &Settings) -> Result<Discovered, DiscoverError> {
    check(series, settings)?;
    let mut tests = Tests::new(series, settings);
    let count = series.columns().len();
    let past = skeleton::past(&mut tests, count, settings)?;
    let mut found = skeleton::within(&mut tests, &past, settings)?;
    let doubtful = orient::colliders(&mut tests, &past, &mut found.graph, settings)?;
    orient::follow(&mut found.graph, &doubtful);
    Ok(Discovered {
        names: series.names().to_vec(),
        links: found.links(),
        tests: tests.count(),
    })
}

fn check(series: &Series, settings: &Settings) -> Result<(), DiscoverError> {
    if settings.lags == 0 {
        return Err(DiscoverError::Setting("lags = 0: at least 1".to_owned()));
    }
    if !(settings.alpha > 0.0 && settings.alpha < 1.0) {
        let text = format!("alpha = {}: between 0 and 1", settings.alpha);
        return Err(DiscoverError::Setting(text));
    }
    let count = series.columns().len();
    if count < 2 {
        return Err(DiscoverError::TooFewVariables(count));
    }
    let spans = settings.lags.saturating_mul(2).saturating_add(1);
    let nodes = count.saturating_mul(spans);
    if nodes > NODES_MAX {
        return Err(DiscoverError::TooLarge(nodes));
    }
    let pairs = || series.names().iter().zip(series.columns());
    // Each variable by itself must have been measured often enough.
    let seen = pairs().map(|(_, column)| {
        let usable = column.iter().skip(spans - 1);
        usable.filter(|value| !value.is_nan()).count()
    });
    let rows = seen.min().unwrap_or(0);
    if rows < ROWS_MIN {
        return Err(DiscoverError::TooFewRows { rows });
    }
    match pairs().find(|(_, column)| constant(column)) {
        Some((name, _)) => Err(DiscoverError::Constant(name.clone())),
        None => Ok(()),
    }
}

/// What is at one end and the other of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    /// `-->`
    Along,
    /// `<--`
    Against,
    /// `o-o`
    Open,
    /// `x-x`
    Conflict,
}

/// A mark for each pair and lag; within a step both ways round.
struct Graph {
    count: usize,
    spans: usize,
    marks: Vec<Mark>,
}

impl Graph {
    fn new(count: usize, lags: usize) -> Self {
        let spans = lags + 1;
        let marks = vec![Mark::None; count * count * spans];
        Self {
            count,
            spans,
            marks,
        }
    }

    fn place(&self, from: Node, to: usize) -> usize {
        (from.variable * self.count + to) * self.spans + from.lag
    }

    fn get(&self, from: Node, to: usize) -> Mark {
        self.marks[self.place(from, to)]
    }

    fn now(&self, from: usize, to: usize) -> Mark {
        self.get(Node::new(from, 0), to)
    }

    fn set(&mut self, from: Node, to: usize, mark: Mark) {
        let place = self.place(from, to);
        self.marks[place] = mark;
        if from.lag == 0 {
            let place = self.place(Node::new(to, 0), from.variable);
            self.marks[place] = match mark {
                Mark::Along => Mark::Against,
                Mark::Against => Mark::Along,
                both => both,
            };
        }
    }

    /// All links to a variable, by variable and lag.
    fn to(&self, to: usize) -> impl Iterator<Item = (Node, Mark)> {
        (0..self.count)
            .flat_map(move |variable| (0..self.spans).map(move |lag| Node::new(variable, lag)))
            .map(move |from| (from, self.get(from, to)))
            .filter(|(_, mark)| *mark != Mark::None)
    }

    /// Those within a step.
    fn beside(&self, to: usize) -> impl Iterator<Item = (usize, Mark)> {
        let all = (0..self.count).map(move |from| (from, self.now(from, to)));
        all.filter(|(_, mark)| *mark != Mark::None)
    }
}

/// A graph with what the tests said of each link.
struct Found {
    graph: Graph,
    /// By place of the graph; of the test with the largest p.
    closest: Vec<partial::Tested>,
}

impl Found {
    fn links(&self) -> Vec<Link> {
        let graph = &self.graph;
        let mut links = Vec::new();
        for to in 0..graph.count {
            for (from, mark) in graph.to(to) {
                let direction = match mark {
                    Mark::Along => Direction::Known,
                    Mark::Open if from.variable < to => Direction::Open,
                    Mark::Conflict if from.variable < to => Direction::Conflict,
                    // Told at the other end.
                    Mark::None | Mark::Against | Mark::Open | Mark::Conflict => continue,
                };
                let one = self.closest[graph.place(from, to)];
                let other = match from.lag {
                    0 => self.closest[graph.place(Node::new(to, 0), from.variable)],
                    _ => one,
                };
                let closest = if other.p > one.p { other } else { one };
                links.push(Link {
                    from: from.variable,
                    to,
                    lag: from.lag,
                    direction,
                    value: closest.value,
                    p: closest.p,
                });
            }
        }
        links
    }
}

#[cfg(test)]
mod tests;
