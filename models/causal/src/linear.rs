//! Least squares with a small penalty, and what an action changes where effects are linear.
//!
//! In: columns of a [`Series`]. Out: weights with their errors, and the change of one vertex
//! per unit of another by the criterion that holds. A row with a missing value is left out.

use crate::criterion::Criterion;
use crate::graph::{Admg, VERTICES_MAX};
use crate::identify::Effect;
use crate::series::Series;

/// Rows beyond the number of inputs without which there is no spread to measure.
pub const ROWS_SPARE: usize = 3;

/// What is left of an input's variance when the others explain all of it, but for rounding.
const EXPLAINED: f64 = 1e-9;

/// Half the width of a 95 % interval in standard errors.
const NORMAL_95: f64 = 1.96;

/// Why there are no weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinearError {
    /// The series does not have it.
    #[error("the series has no column {0:?}")]
    Column(String),
    /// Columns of unequal length, or too many.
    #[error("{0}")]
    Shape(String),
    /// Too few complete rows.
    #[error("{rows} complete rows; {inputs} inputs need {} and more", inputs + ROWS_SPARE)]
    TooFewRows {
        /// Complete.
        rows: usize,
        /// Inputs.
        inputs: usize,
    },
    /// The others explain it, or it never changes.
    #[error("input {0} never changes, or follows from the others")]
    Explained(usize),
    /// No linear form.
    #[error("{0}")]
    Form(String),
}

/// Weights of inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Regression {
    /// Where all inputs are 0.
    pub intercept: f64,
    /// Change of the target per unit of each input.
    pub weights: Vec<f64>,
    /// Standard error of each weight.
    pub errors: Vec<f64>,
    /// Standard deviation of what is left.
    pub deviation: f64,
    /// Complete rows.
    pub rows: usize,
}

impl Regression {
    /// The expected target; inputs that are not given count as 0.
    #[must_use]
    pub fn expected(&self, inputs: &[f64]) -> f64 {
        let each = self.weights.iter().zip(inputs);
        self.intercept + each.map(|(weight, input)| weight * input).sum::<f64>()
    }
}

/// Weights of inputs by least squares. `ridge` is added to the variance of each input, as a
/// share of it (Hoerl and Kennard 1970): it draws weights to 0 where rows are few or inputs
/// alike; with 0 an input that the others explain is an error.
///
/// # Errors
/// [`LinearError`] if rows are too few or an input cannot be told from others.
pub fn regress(target: &[f64], inputs: &[&[f64]], ridge: f64) -> Result<Regression, LinearError> {
    let count = inputs.len();
    if count > VERTICES_MAX || inputs.iter().any(|one| one.len() != target.len()) {
        let text = format!("{count} inputs for a target of {} rows", target.len());
        return Err(LinearError::Shape(text));
    }
    let whole = |row: &usize| {
        let each = inputs.iter().map(|one| one[*row]).chain([target[*row]]);
        each.into_iter().all(f64::is_finite)
    };
    let used: Vec<usize> = (0..target.len()).filter(whole).collect();
    let rows = used.len();
    if rows < count + ROWS_SPARE {
        return Err(LinearError::TooFewRows {
            rows,
            inputs: count,
        });
    }
    let columns: Vec<&[f64]> = inputs.iter().copied().chain([target]).collect();
    let scale = |column: &&[f64]| {
        let mean = used.iter().map(|row| column[*row]).sum::<f64>() / rows as f64;
        let squares = used.iter().map(|row| (column[*row] - mean).powi(2));
        let spread = (squares.sum::<f64>() / rows as f64).sqrt();
        (mean, spread)
    };
    let scales: Vec<(f64, f64)> = columns.iter().map(scale).collect();
    let standard = |column: usize, row: usize| {
        let (mean, spread) = scales[column];
        let apart = columns[column][row] - mean;
        if spread > 0.0 { apart / spread } else { 0.0 }
    };
    let product = |one: usize, other: usize| {
        let each = used
            .iter()
            .map(|row| standard(one, *row) * standard(other, *row));
        each.sum::<f64>() / rows as f64
    };
    let mut matrix = vec![0.0; count * count];
    for one in 0..count {
        for other in 0..=one {
            let cell = product(one, other) + if one == other { ridge } else { 0.0 };
            matrix[one * count + other] = cell;
        }
    }
    let unique = factorise(&mut matrix, count);
    if let Some(input) = unique {
        return Err(LinearError::Explained(input));
    }
    let mut weights: Vec<f64> = (0..count).map(|one| product(one, count)).collect();
    solve(&matrix, &mut weights);
    let (middle, spread) = scales[count];
    let squares = used.iter().map(|row| {
        let each = weights.iter().enumerate();
        let said: f64 = each.map(|(one, weight)| weight * standard(one, *row)).sum();
        (standard(count, *row) - said).powi(2)
    });
    let freedom = (rows - count - 1) as f64;
    let left = (squares.sum::<f64>() / freedom).sqrt() * spread;
    let mut errors = Vec::with_capacity(count);
    for one in 0..count {
        let mut column = vec![0.0; count];
        column[one] = 1.0;
        solve(&matrix, &mut column);
        let (_, own) = scales[one];
        let own = if own > 0.0 { own } else { f64::INFINITY };
        errors.push(left * (column[one] / rows as f64).sqrt() / own);
    }
    for (weight, (_, own)) in weights.iter_mut().zip(&scales) {
        *weight = if *own > 0.0 {
            *weight * spread / own
        } else {
            0.0
        };
    }
    let at_means: f64 = weights
        .iter()
        .zip(&scales)
        .map(|(weight, (mean, _))| weight * mean)
        .sum();
    Ok(Regression {
        intercept: middle - at_means,
        weights,
        errors,
        deviation: left,
        rows,
    })
}

/// Cholesky in place, lower half; the first input that the ones before explain.
fn factorise(matrix: &mut [f64], count: usize) -> Option<usize> {
    for column in 0..count {
        for row in column..count {
            let done: f64 = (0..column)
                .map(|at| matrix[row * count + at] * matrix[column * count + at])
                .sum();
            let left = matrix[row * count + column] - done;
            if row > column {
                matrix[row * count + column] = left / matrix[column * count + column];
            } else if left > EXPLAINED {
                matrix[row * count + column] = left.sqrt();
            } else {
                return Some(column);
            }
        }
    }
    None
}

/// Solves with a factor of [`factorise`], in place.
fn solve(factor: &[f64], right: &mut [f64]) {
    let count = right.len();
    for row in 0..count {
        let done: f64 = (0..row)
            .map(|at| factor[row * count + at] * right[at])
            .sum();
        right[row] = (right[row] - done) / factor[row * count + row];
    }
    for row in (0..count).rev() {
        let done: f64 = (row + 1..count)
            .map(|at| factor[at * count + row] * right[at])
            .sum();
        right[row] = (right[row] - done) / factor[row * count + row];
    }
}

/// What one vertex changes per unit of another that is acted on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slope {
    /// Change per unit.
    pub per_unit: f64,
    /// Ends of its 95 % interval.
    pub low: f64,
    /// The upper one.
    pub high: f64,
    /// Complete rows.
    pub rows: usize,
}

/// The slope of an effect of one vertex on one other where effects are linear, by the
/// criterion that holds; columns are found by the names of the graph. Rows are taken for
/// independent: in slow series the interval is too narrow.
///
/// # Errors
/// [`LinearError::Form`] if no criterion holds or more than one vertex is on a side.
pub fn slope(graph: &Admg, effect: &Effect, series: &Series) -> Result<Slope, LinearError> {
    let (Some(x), Some(y), 1, 1) = (
        effect.x.iter().next(),
        effect.y.iter().next(),
        effect.x.len(),
        effect.y.len(),
    ) else {
        let text = "a slope is of one vertex on one other".to_owned();
        return Err(LinearError::Form(text));
    };
    let column = |vertex: usize| {
        let name = graph.name(vertex);
        let found = series.column(name);
        found.ok_or_else(|| LinearError::Column(name.to_owned()))
    };
    let columns = |vertices: Vec<usize>| -> Result<Vec<&[f64]>, LinearError> {
        vertices.into_iter().map(column).collect()
    };
    let fit = |target: usize, inputs: Vec<usize>| regress(column(target)?, &columns(inputs)?, 0.0);
    let (per_unit, variance, rows) = match effect.criterion {
        Some(Criterion::BackDoor { given }) => {
            let fit = fit(y, [x].into_iter().chain(given.iter()).collect())?;
            (fit.weights[0], fit.errors[0].powi(2), fit.rows)
        }
        Some(Criterion::FrontDoor { through, given }) => {
            let middle: Vec<usize> = through.iter().collect();
            let others = [x].into_iter().chain(given.iter());
            let last = fit(y, middle.iter().copied().chain(others.clone()).collect())?;
            let (mut sum, mut variance) = (0.0, 0.0);
            for (place, vertex) in middle.into_iter().enumerate() {
                let first = fit(vertex, others.clone().collect())?;
                let (into, out) = (first.weights[0], last.weights[place]);
                sum += into * out;
                variance += (out * first.errors[0]).powi(2) + (into * last.errors[place]).powi(2);
            }
            (sum, variance, last.rows)
        }
        None => {
            let text = "neither back-door nor front-door holds".to_owned();
            return Err(LinearError::Form(text));
        }
    };
    let half = NORMAL_95 * variance.sqrt();
    Ok(Slope {
        per_unit,
        low: per_unit - half,
        high: per_unit + half,
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identify::identify;

    fn noise(rng: &mut fastrand::Rng) -> f64 {
        (0..6).map(|_| rng.f64() - 0.5).sum()
    }

    fn asked(text: &str) -> (Admg, Effect) {
        let graph: Admg = text.parse().unwrap();
        let set = |name| graph.set([name]).unwrap();
        let effect = identify(&graph, set("y"), set("x")).unwrap();
        (graph, effect)
    }

    #[test]
    fn weights_errors_and_penalty() {
        let mut rng = fastrand::Rng::with_seed(1);
        let a: Vec<f64> = (0..400).map(|_| noise(&mut rng)).collect();
        let b: Vec<f64> = (0..400).map(|_| noise(&mut rng)).collect();
        let y: Vec<f64> = (0..400)
            .map(|at| 5.0 + 2.0 * a[at] - b[at] + 0.1 * noise(&mut rng))
            .collect();
        let fit = regress(&y, &[&a, &b], 0.0).unwrap();
        assert!(
            (fit.weights[0] - 2.0).abs() < 4.0 * fit.errors[0],
            "{fit:?}"
        );
        assert!((fit.weights[1] + 1.0).abs() < 4.0 * fit.errors[1] && fit.errors[1] < 0.02);
        assert!((fit.intercept - 5.0).abs() < 0.02 && (fit.deviation - 0.0707).abs() < 0.01);
        assert_eq!(regress(&y, &[&a, &a], 0.0), Err(LinearError::Explained(1)));
        let shared = regress(&y, &[&a, &a], 1e-3).unwrap();
        assert!((shared.weights[0] - shared.weights[1]).abs() < 1e-6);
        assert!(regress(&y[..4], &[&a[..4], &b[..4]], 0.0).is_err());
        assert!(regress(&y, &[&a[..4]], 0.0).is_err());
    }

    #[test]
    fn slopes_are_those_of_acting() {
        let mut rng = fastrand::Rng::with_seed(2);
        let mut columns = vec![Vec::new(); 4];
        for _ in 0..5000 {
            let hidden = noise(&mut rng);
            let z = noise(&mut rng);
            let x = hidden + z + noise(&mut rng);
            let m = 0.5 * x + noise(&mut rng);
            let y = 2.0 * m + 3.0 * hidden + noise(&mut rng);
            for (column, value) in columns.iter_mut().zip([z, x, m, y]) {
                column.push(value);
            }
        }
        let series = Series::new(&["z", "x", "m", "y"], columns).unwrap();
        let (graph, effect) = asked("x -> m, m -> y, x <-> y");
        let front = slope(&graph, &effect, &series).unwrap();
        assert!(
            front.low < 1.0 && 1.0 < front.high && front.high - front.low < 0.2,
            "{front:?}"
        );
        // As if nothing were hidden: it is.
        let (graph, effect) = asked("x -> y");
        let naive = slope(&graph, &effect, &series).unwrap();
        assert!(naive.low > 1.2, "{naive:?}");
        let (graph, effect) = asked("x -> y, w -> x, w -> y");
        assert_eq!(
            slope(&graph, &effect, &series),
            Err(LinearError::Column("w".into()))
        );
    }
}
