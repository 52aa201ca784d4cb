//! How a variable follows from its causes.

use std::fmt::Debug;
use std::sync::Arc;

use crate::linear::{LinearError, ROWS_SPARE, Regression, regress};

/// What a variable is expected to be, given its causes; noise comes on top.
pub trait Mechanism: Debug + Send + Sync {
    /// `causes`: those within the step in ascending order, then the lagged ones as listed.
    fn expected(&self, causes: &[f64]) -> f64;
}

/// A weight for each cause.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// Where all causes are 0.
    pub intercept: f64,
    /// Change per unit of each cause.
    pub weights: Vec<f64>,
}

impl Mechanism for Linear {
    fn expected(&self, causes: &[f64]) -> f64 {
        let each = self.weights.iter().zip(causes);
        self.intercept + each.map(|(weight, cause)| weight * cause).sum::<f64>()
    }
}

impl From<Regression> for Linear {
    fn from(fit: Regression) -> Self {
        let Regression {
            intercept, weights, ..
        } = fit;
        Self { intercept, weights }
    }
}

/// A curve that never falls, over the weighted sum of the causes. Beyond what was seen it
/// stays level: it does not claim what nobody has seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Monotone {
    sum: Linear,
    /// Ascending in both.
    knots: Vec<(f64, f64)>,
}

impl Monotone {
    /// By pooling neighbours that are out of order (isotonic regression, Ayer et al. 1955).
    fn fit(sum: Linear, target: &[f64], inputs: &[&[f64]]) -> Self {
        let mut points: Vec<(f64, f64)> = (0..target.len())
            .map(|step| {
                let row: Vec<f64> = inputs.iter().map(|one| one[step]).collect();
                (sum.expected(&row), target[step])
            })
            .filter(|(at, value)| at.is_finite() && value.is_finite())
            .collect();
        points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        // Sums of both and how many.
        let mut pools: Vec<(f64, f64, f64)> = Vec::with_capacity(points.len());
        for (at, value) in points {
            pools.push((at, value, 1.0));
            while let [.., (a, b, n), (c, d, m)] = pools[..] {
                if b / n < d / m {
                    break;
                }
                pools.pop();
                pools.pop();
                pools.push((a + c, b + d, n + m));
            }
        }
        let knots = pools
            .into_iter()
            .map(|(at, value, n)| (at / n, value / n))
            .collect();
        Self { sum, knots }
    }
}

impl Mechanism for Monotone {
    fn expected(&self, causes: &[f64]) -> f64 {
        let at = self.sum.expected(causes);
        let after = self.knots.partition_point(|(knot, _)| *knot <= at);
        let before = after.checked_sub(1).and_then(|place| self.knots.get(place));
        match (before, self.knots.get(after)) {
            (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * (at - x0) / (x1 - x0),
            (Some((_, level)), None) | (None, Some((_, level))) => *level,
            (None, None) => at,
        }
    }
}

/// One mechanism while a cause is on (above 1/2), another while it is off.
#[derive(Debug, Clone, PartialEq)]
pub struct Switched {
    /// Which cause.
    pub by: usize,
    /// While it is off.
    pub off: Linear,
    /// While it is on.
    pub on: Linear,
}

impl Mechanism for Switched {
    fn expected(&self, causes: &[f64]) -> f64 {
        let on = causes.get(self.by).is_some_and(|cause| *cause > 0.5);
        let part = if on { &self.on } else { &self.off };
        part.expected(causes)
    }
}

/// A shape with the place of its cause among the inputs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Linear,
    Monotone,
    Switched(usize),
}

pub(super) fn fit(
    form: Form,
    target: &[f64],
    inputs: &[&[f64]],
    ridge: f64,
) -> Result<Arc<dyn Mechanism>, LinearError> {
    Ok(match form {
        Form::Linear => Arc::new(linear(target, inputs, ridge)?),
        Form::Monotone => {
            let sum = linear(target, inputs, ridge)?;
            Arc::new(Monotone::fit(sum, target, inputs))
        }
        Form::Switched(by) => {
            let part = |on: bool| -> Result<Linear, LinearError> {
                let of = |step: usize| (inputs[by][step] > 0.5) == on;
                let masked: Vec<f64> = target
                    .iter()
                    .enumerate()
                    .map(|(step, value)| if of(step) { *value } else { f64::NAN })
                    .collect();
                let seen = masked.iter().filter(|value| value.is_finite());
                // Too few for weights say at least where it goes.
                if seen.clone().count() < inputs.len() + ROWS_SPARE {
                    let count = seen.clone().count();
                    if count == 0 {
                        let inputs = inputs.len();
                        return Err(LinearError::TooFewRows { rows: 0, inputs });
                    }
                    let intercept = seen.sum::<f64>() / count as f64;
                    let weights = vec![0.0; inputs.len()];
                    return Ok(Linear { intercept, weights });
                }
                linear(&masked, inputs, ridge)
            };
            let (off, on) = (part(false)?, part(true)?);
            Arc::new(Switched { by, off, on })
        }
    })
}

fn linear(target: &[f64], inputs: &[&[f64]], ridge: f64) -> Result<Linear, LinearError> {
    Ok(regress(target, inputs, ridge)?.into())
}
