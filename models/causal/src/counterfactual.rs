//! What would have happened: abduction, action, prediction (Pearl 2000, 7.1).
//!
//! In: a [`Scm`], in which each variable is what its causes of this step and of earlier ones
//! make of it plus noise, and the [`Series`] of one incident. The noise of each step is what
//! the causes do not explain; the same noise is then played under another action. Out: the
//! [`Course`] of every variable with an interval, and whether it would have come below a bound.
//!
//! Steps that were not observed, and steps after the last, take noise from the history. The
//! interval holds the error of fitted mechanisms and that noise; it does not hold that the
//! graph may be wrong.

mod mechanism;

use std::sync::Arc;

use fastrand::Rng;

pub use mechanism::{Linear, Mechanism, Monotone, Switched};

use crate::graph::{Admg, Set};
use crate::linear::LinearError;
use crate::series::{STEPS_MAX, Series};

/// Most steps that a cause may lie back.
pub const LAGS_MAX: usize = 64;

/// Most refitted copies of a model.
pub const COPIES_MAX: usize = 1000;

/// Most values of a course: variables, steps and copies.
const VALUES_MAX: usize = 1 << 24;

/// A share of copies from here on, or up to the rest, is an answer.
pub const SURE: f64 = 0.9;

/// Why there is no model or no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScmError {
    /// A setting that makes no sense.
    #[error("{0}")]
    Setting(String),
    /// The noise of a variable depends on one of its causes, so that its mechanism cannot be
    /// learnt by watching.
    #[error("{effect} shares a hidden cause with {cause}, which it depends on")]
    Confounded {
        /// The variable.
        effect: String,
        /// One of its causes.
        cause: String,
    },
    /// A variable that the series does not have.
    #[error("the series has no column {0:?}")]
    Column(String),
    /// No mechanism could be fitted.
    #[error("cannot fit {0}")]
    Fit(String, #[source] LinearError),
    /// Too few steps.
    #[error("{steps} steps; causes lie up to {lags} steps back")]
    TooFewSteps {
        /// Observed.
        steps: usize,
        /// The longest lag.
        lags: usize,
    },
    /// More than fits.
    #[error("more than {VALUES_MAX} values")]
    TooLarge,
}

/// A cause of an earlier step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged {
    /// Vertex of the graph.
    pub from: usize,
    /// Vertex of the graph; may be the same.
    pub to: usize,
    /// At least one step.
    pub lag: usize,
}

/// How a mechanism is shaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A weight for each cause.
    Linear,
    /// A weight for each cause, and a curve that only rises over their sum.
    Monotone,
    /// One linear mechanism while a cause is on (above 1/2) and one while it is off: what an
    /// action does to a state.
    Switched {
        /// The cause, a vertex of the graph.
        by: usize,
    },
}

/// What is fixed before fitting.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// See [`crate::linear::regress`].
    pub ridge: f64,
    /// Mechanisms that are not linear, by vertex.
    pub shapes: Vec<(usize, Shape)>,
    /// Refitted copies; the interval comes from them.
    pub copies: usize,
    /// Of all chance.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ridge: 1e-3,
            shapes: Vec::new(),
            copies: 200,
            seed: 1,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cause {
    variable: usize,
    lag: usize,
}

/// Variables, what they depend on, and how.
#[derive(Debug, Clone)]
pub struct Scm {
    names: Vec<String>,
    order: Vec<usize>,
    causes: Vec<Vec<Cause>>,
    lags: usize,
    /// The fitted mechanism of each variable, then refitted ones.
    copies: Vec<Vec<Arc<dyn Mechanism>>>,
    /// What the mechanisms left unexplained, a row for each step of the history.
    noise: Vec<Vec<f64>>,
    seed: u64,
}

/// Somebody sets a variable during some steps of a series, the last included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Action {
    /// Vertex of the graph.
    pub variable: usize,
    /// The first step.
    pub from: usize,
    /// The last step; may lie after the last observed one.
    pub until: usize,
    /// To this.
    pub value: f64,
}

impl Scm {
    /// Fits a mechanism to each variable of the graph, whose edges are causes within a step;
    /// columns are found by name. A hidden common cause of two variables is fine as long as
    /// neither depends on the other.
    ///
    /// # Errors
    /// [`ScmError`] if graph, history and settings do not allow it.
    pub fn fit(
        graph: &Admg,
        lagged: &[Lagged],
        history: &Series,
        settings: &Settings,
    ) -> Result<Self, ScmError> {
        let mut scm = Self::frame(graph, lagged, settings)?;
        let columns = scm.columns(history)?;
        let steps = history.steps();
        let lags = scm.lags;
        if steps <= lags {
            return Err(ScmError::TooFewSteps { steps, lags });
        }
        let mut rng = Rng::with_seed(settings.seed);
        let mut left = vec![vec![f64::NAN; graph.len()]; steps - lags];
        for variable in 0..graph.len() {
            let causes = &scm.causes[variable];
            let inputs: Vec<&[f64]> = causes
                .iter()
                .map(|cause| &columns[cause.variable][lags - cause.lag..steps - cause.lag])
                .collect();
            let target = &columns[variable][lags..];
            let shape = shape(variable, causes, settings);
            let fit = |target: &[f64]| {
                let fitted = mechanism::fit(shape, target, &inputs, settings.ridge);
                fitted.map_err(|error| ScmError::Fit(scm.names[variable].clone(), error))
            };
            let first = fit(target)?;
            let row = |step: usize| -> Vec<f64> { inputs.iter().map(|one| one[step]).collect() };
            let said: Vec<f64> = (0..target.len())
                .map(|step| first.expected(&row(step)))
                .collect();
            for (step, said) in said.iter().enumerate() {
                left[step][variable] = target[step] - said;
            }
            let unexplained: Vec<f64> = left
                .iter()
                .map(|row| row[variable])
                .filter(|one| one.is_finite())
                .collect();
            scm.copies[0].push(first);
            // The same causes with other noise: how else might it have been fitted?
            for copy in 1..=settings.copies {
                let drawn = said.iter().zip(target).map(|(said, seen)| {
                    let noise = unexplained[rng.usize(..unexplained.len())];
                    if seen.is_nan() {
                        f64::NAN
                    } else {
                        said + noise
                    }
                });
                let drawn: Vec<f64> = drawn.collect();
                scm.copies[copy].push(fit(&drawn)?);
            }
        }
        left.retain(|row| row.iter().all(|noise| noise.is_finite()));
        if left.is_empty() {
            let error = LinearError::TooFewRows {
                rows: 0,
                inputs: graph.len(),
            };
            return Err(ScmError::Fit("all variables at once".to_owned(), error));
        }
        scm.noise = left;
        Ok(scm)
    }

    /// Of known mechanisms, one for each vertex; their inputs are its causes within a step in
    /// ascending order, then the lagged ones as listed. `noise`: rows to draw from where
    /// nothing was observed.
    ///
    /// # Errors
    /// [`ScmError`] if they do not fit together.
    pub fn given(
        graph: &Admg,
        lagged: &[Lagged],
        mechanisms: Vec<Arc<dyn Mechanism>>,
        noise: Vec<Vec<f64>>,
        seed: u64,
    ) -> Result<Self, ScmError> {
        let settings = Settings {
            copies: 0,
            seed,
            ..Settings::default()
        };
        let mut scm = Self::frame(graph, lagged, &settings)?;
        let rows = noise.iter();
        let whole =
            |row: &Vec<f64>| row.len() == graph.len() && row.iter().all(|one| one.is_finite());
        if mechanisms.len() != graph.len() || noise.is_empty() || !rows.clone().all(whole) {
            let text = "one mechanism for each vertex, and rows of as much finite noise";
            return Err(ScmError::Setting(text.to_owned()));
        }
        // Without error of its own, but with as many draws of noise.
        scm.copies = vec![mechanisms; Settings::default().copies + 1];
        scm.noise = noise;
        Ok(scm)
    }

    fn frame(graph: &Admg, lagged: &[Lagged], settings: &Settings) -> Result<Self, ScmError> {
        if settings.copies > COPIES_MAX || !settings.ridge.is_finite() || settings.ridge < 0.0 {
            let text = format!("copies up to {COPIES_MAX}, ridge 0 or more");
            return Err(ScmError::Setting(text));
        }
        let known = |vertex: usize| vertex < graph.len();
        let fits =
            |one: &Lagged| known(one.from) && known(one.to) && (1..=LAGS_MAX).contains(&one.lag);
        let shaped = settings.shapes.iter().all(|(vertex, _)| known(*vertex));
        if !lagged.iter().all(fits) || !shaped {
            let text = format!("lags from 1 to {LAGS_MAX} between vertices of the graph");
            return Err(ScmError::Setting(text));
        }
        for vertex in 0..graph.len() {
            let before = graph.view().ancestors(Set::one(vertex));
            if let Some(other) = (graph.siblings(vertex) & before).iter().next() {
                let [effect, cause] = [vertex, other].map(|one| graph.name(one).to_owned());
                return Err(ScmError::Confounded { effect, cause });
            }
        }
        let causes = |vertex: usize| -> Vec<Cause> {
            let now = graph.parents(vertex);
            let now = now.iter().map(|variable| Cause { variable, lag: 0 });
            let past = lagged.iter().filter(|one| one.to == vertex);
            let past = past.map(|one| Cause {
                variable: one.from,
                lag: one.lag,
            });
            now.chain(past).collect()
        };
        Ok(Self {
            names: (0..graph.len())
                .map(|one| graph.name(one).to_owned())
                .collect(),
            order: graph.order().to_vec(),
            causes: (0..graph.len()).map(causes).collect(),
            lags: lagged.iter().map(|one| one.lag).max().unwrap_or(0),
            copies: vec![Vec::with_capacity(graph.len()); settings.copies + 1],
            noise: Vec::new(),
            seed: settings.seed,
        })
    }

    fn columns<'a>(&self, series: &'a Series) -> Result<Vec<&'a [f64]>, ScmError> {
        let column = |name: &String| {
            let found = series.column(name);
            found.ok_or_else(|| ScmError::Column(name.clone()))
        };
        self.names.iter().map(column).collect()
    }

    /// The course of all variables had somebody acted like this, with the noise of what was
    /// observed, and `ahead` steps more. Without an action and steps ahead it is what was
    /// observed. An observed action that is to be left out is set to what it is at rest.
    ///
    /// # Errors
    /// [`ScmError`] if a column is missing, steps are too few or too many, or an action sets
    /// what is not there.
    pub fn replay(
        &self,
        observed: &Series,
        actions: &[Action],
        ahead: usize,
    ) -> Result<Course, ScmError> {
        let columns = self.columns(observed)?;
        let seen = observed.steps();
        let count = self.names.len();
        let lags = self.lags;
        if seen < lags {
            return Err(ScmError::TooFewSteps { steps: seen, lags });
        }
        let steps = seen.saturating_add(ahead);
        let all = count
            .saturating_mul(steps)
            .saturating_mul(self.copies.len());
        if steps > STEPS_MAX || all > VALUES_MAX {
            return Err(ScmError::TooLarge);
        }
        let sound = |one: &Action| one.variable < count && one.value.is_finite();
        if !actions.iter().all(sound) {
            let text = "an action sets a variable of the graph to a finite value";
            return Err(ScmError::Setting(text.to_owned()));
        }
        let set = |variable: usize, step: usize| {
            let of =
                |one: &&Action| one.variable == variable && (one.from..=one.until).contains(&step);
            actions.iter().rev().find(of).map(|one| one.value)
        };
        let observed = |variable: usize, step: usize| {
            let value = columns[variable].get(step).copied();
            value.filter(|value| value.is_finite())
        };
        let mut rng = Rng::with_seed(self.seed);
        let mut copies = Vec::with_capacity(self.copies.len());
        for (copy, mechanisms) in self.copies.iter().enumerate() {
            let mut fact = vec![vec![0.0; count]; steps];
            let mut other = fact.clone();
            for step in 0..steps {
                let drawn = &self.noise[rng.usize(..self.noise.len())];
                for variable in self.order.iter().copied() {
                    let said = |world: &[Vec<f64>]| {
                        // Before the first step there is nothing: the value stays as it is.
                        if step < lags {
                            return 0.0;
                        }
                        let causes = self.causes[variable].iter();
                        let inputs: Vec<f64> = causes
                            .map(|cause| world[step - cause.lag][cause.variable])
                            .collect();
                        mechanisms[variable].expected(&inputs)
                    };
                    let expected = said(&fact);
                    let noise = match observed(variable, step) {
                        Some(value) => value - expected,
                        // The first copy is the middle one: it has no noise of its own.
                        None if copy == 0 => 0.0,
                        None => drawn[variable],
                    };
                    fact[step][variable] = expected + noise;
                    let would = set(variable, step).unwrap_or_else(|| said(&other) + noise);
                    other[step][variable] = would;
                }
            }
            copies.push(other);
        }
        Ok(Course {
            names: self.names.clone(),
            copies,
        })
    }
}

fn shape(variable: usize, causes: &[Cause], settings: &Settings) -> mechanism::Form {
    let found = settings
        .shapes
        .iter()
        .find(|(vertex, _)| *vertex == variable);
    match found.map(|(_, shape)| *shape) {
        None | Some(Shape::Linear) => mechanism::Form::Linear,
        Some(Shape::Monotone) => mechanism::Form::Monotone,
        Some(Shape::Switched { by }) => {
            let place = causes.iter().position(|cause| cause.variable == by);
            place.map_or(mechanism::Form::Linear, mechanism::Form::Switched)
        }
    }
}

/// What every variable would have been.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    names: Vec<String>,
    /// By copy, step and variable; the first copy is the middle.
    copies: Vec<Vec<Vec<f64>>>,
}

/// A value with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    /// By the mechanisms as fitted.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// An answer with how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Share of copies that say yes.
    pub probability: f64,
    /// What that says.
    pub verdict: Verdict,
}

/// Would it have been so?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// [`SURE`] or more of the copies say so.
    Yes,
    /// As many say not.
    No,
    /// Neither.
    Unclear,
}

impl Course {
    /// How many steps, those ahead included.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.copies.first().map_or(0, Vec::len)
    }

    /// A variable at a step; `None` if there is none.
    #[must_use]
    pub fn at(&self, variable: usize, step: usize) -> Option<Predicted> {
        let mut all = Vec::with_capacity(self.copies.len());
        for copy in &self.copies {
            all.push(*copy.get(step)?.get(variable)?);
        }
        let value = *all.first()?;
        all.sort_by(f64::total_cmp);
        let last = all.len() - 1;
        // Rounded outwards.
        let tail = all.len() / 40;
        Some(Predicted {
            value,
            low: all[tail].min(value),
            high: all[last - tail].max(value),
        })
    }

    /// Whether a variable would have been below a bound from a step on, to the end.
    #[must_use]
    pub fn below(&self, variable: usize, bound: f64, from: usize) -> Answer {
        // The first copy lacks noise; it counts only if it is alone.
        let drawn = if self.copies.len() > 1 {
            &self.copies[1..]
        } else {
            &self.copies
        };
        let within = |copy: &&Vec<Vec<f64>>| {
            let mut values = copy.iter().skip(from).map(|row| row.get(variable));
            from < copy.len() && values.all(|value| value.is_some_and(|value| *value < bound))
        };
        let probability = drawn.iter().filter(within).count() as f64 / drawn.len().max(1) as f64;
        let verdict = match probability {
            share if share >= SURE => Verdict::Yes,
            share if share <= 1.0 - SURE => Verdict::No,
            _ => Verdict::Unclear,
        };
        Answer {
            probability,
            verdict,
        }
    }

    /// In words, at the last step: what people are told beside an incident.
    #[must_use]
    pub fn text(&self, variable: usize, bound: f64) -> String {
        let last = self.steps().saturating_sub(1);
        let name = self.names.get(variable).map_or("?", String::as_str);
        let Some(Predicted { value, low, high }) = self.at(variable, last) else {
            return format!("{name}: nothing to say");
        };
        let Answer {
            probability,
            verdict,
        } = self.below(variable, bound, last);
        let said = match verdict {
            Verdict::Yes => "below",
            Verdict::No => "not below",
            Verdict::Unclear => "perhaps below",
        };
        format!(
            "{name} would be {value:.2} ({low:.2} to {high:.2}) at step {last}: {said} {bound} (p = {probability:.2})"
        )
    }
}

#[cfg(test)]
mod tests;
