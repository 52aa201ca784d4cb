//! Partial correlations of variables and their past, and how surprising they are.
//!
//! Without missing values all products are summed once: those of a lag later differ by one
//! row at each end, so a matrix over all lags costs about as much as its first row of blocks.
//! Each test is then a small Cholesky factorisation. With missing values a test goes through
//! the rows that it can use.

use super::{DiscoverError, Settings};
use crate::series::Series;
use crate::student::two_sided;

/// A variable so many steps ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    pub(super) variable: usize,
    pub(super) lag: usize,
}

impl Node {
    pub(super) fn new(variable: usize, lag: usize) -> Self {
        Self { variable, lag }
    }

    pub(super) fn earlier(self, lag: usize) -> Self {
        Self::new(self.variable, self.lag + lag)
    }
}

/// What is left of a variance when what is known explains all of it, but for rounding.
const EXPLAINED: f64 = 1e-9;

/// What a test says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tested {
    /// Partial correlation.
    pub(super) value: f64,
    pub(super) p: f64,
}

/// All tests on one series.
pub(super) struct Tests {
    /// Standardised; NaN where missing.
    columns: Vec<Vec<f64>>,
    /// The first step of a test: all its lags lie within the series.
    first: usize,
    rows: usize,
    /// Correlations of all nodes, if nothing is missing.
    matrix: Option<Vec<f64>>,
    alpha: f64,
    left: usize,
    max: usize,
    /// Kept between tests: allocated once.
    factor: Vec<f64>,
}

impl Tests {
    pub(super) fn new(series: &Series, settings: &Settings) -> Self {
        let first = 2 * settings.lags;
        let columns: Vec<Vec<f64>> = series.columns().iter().map(|one| standard(one)).collect();
        let rows = series.steps().saturating_sub(first);
        let complete = columns.iter().flatten().all(|value| !value.is_nan());
        Self {
            matrix: complete.then(|| correlations(&columns, first, rows)),
            columns,
            first,
            rows,
            alpha: settings.alpha,
            left: settings.tests_max,
            max: settings.tests_max,
            factor: Vec::new(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.max - self.left
    }

    pub(super) fn dependent(&self, tested: Tested) -> bool {
        tested.p <= self.alpha
    }

    /// Whether two depend on each other when some are known.
    pub(super) fn test(
        &mut self,
        x: Node,
        y: Node,
        known: &[Node],
    ) -> Result<Tested, DiscoverError> {
        let over = DiscoverError::TooManyTests(self.max);
        self.left = self.left.checked_sub(1).ok_or(over)?;
        let nodes: Vec<Node> = known.iter().copied().chain([x, y]).collect();
        let mut factor = std::mem::take(&mut self.factor);
        let rows = match &self.matrix {
            Some(matrix) => {
                self.pick(matrix, &nodes, &mut factor);
                self.rows
            }
            None => self.sum(&nodes, &mut factor),
        };
        let value = partial(&mut factor, nodes.len());
        self.factor = factor;
        // Too few rows tell nothing.
        let freedom = rows as f64 - nodes.len() as f64;
        if freedom < 1.0 {
            return Ok(Tested { value: 0.0, p: 1.0 });
        }
        let p = two_sided(value, freedom);
        Ok(Tested { value, p })
    }

    /// Correlations of some nodes out of those of all.
    fn pick(&self, matrix: &[f64], nodes: &[Node], into: &mut Vec<f64>) {
        let lags = self.first + 1;
        let all = self.columns.len() * lags;
        into.clear();
        for one in nodes {
            let row = (one.variable * lags + one.lag) * all;
            let places = nodes.iter().map(|other| other.variable * lags + other.lag);
            into.extend(places.map(|place| matrix[row + place]));
        }
    }

    /// Covariances of some nodes over the rows where all were measured, and the number of
    /// those.
    fn sum(&self, nodes: &[Node], into: &mut Vec<f64>) -> usize {
        let count = nodes.len();
        let row_of = |step: usize| {
            nodes
                .iter()
                .map(move |node| self.columns[node.variable][step - node.lag])
        };
        let steps = self.first..self.first + self.rows;
        let whole: Vec<usize> = steps
            .filter(|step| row_of(*step).all(|value| !value.is_nan()))
            .collect();
        let rows = whole.len();
        let mut means = vec![0.0; count];
        for step in &whole {
            means
                .iter_mut()
                .zip(row_of(*step))
                .for_each(|(mean, value)| *mean += value);
        }
        means
            .iter_mut()
            .for_each(|mean| *mean /= rows.max(1) as f64);
        into.clear();
        into.resize(count * count, 0.0);
        let mut row = vec![0.0; count];
        for step in &whole {
            let values = row_of(*step).zip(&means);
            row.iter_mut()
                .zip(values)
                .for_each(|(to, (value, mean))| *to = value - mean);
            for (place, one) in row.iter().enumerate() {
                let products = into[place * count..].iter_mut().zip(&row);
                products
                    .take(place + 1)
                    .for_each(|(to, other)| *to += one * other);
            }
        }
        // As correlations, so that one bound says what is explained.
        let deviation: Vec<f64> = (0..count).map(|at| into[at * count + at].sqrt()).collect();
        for one in 0..count {
            for other in 0..=one {
                let scale = deviation[one] * deviation[other];
                let place = one * count + other;
                into[place] = if scale > 0.0 {
                    into[place] / scale
                } else {
                    0.0
                };
            }
        }
        rows
    }
}

/// Mean 0 and deviation 1 of what was measured.
fn standard(column: &[f64]) -> Vec<f64> {
    let seen = || column.iter().filter(|value| !value.is_nan());
    let count = seen().count().max(1) as f64;
    // By the largest first, so that no square is infinite.
    let largest = seen().fold(0.0, |all: f64, value| all.max(value.abs()));
    let by = if largest > 0.0 { largest } else { 1.0 };
    let mean = seen().map(|value| value / by).sum::<f64>() / count;
    let spread = seen().map(|value| (value / by - mean).powi(2)).sum::<f64>() / count;
    let deviation = if spread > 0.0 { spread.sqrt() } else { 1.0 };
    column
        .iter()
        .map(|value| (value / by - mean) / deviation)
        .collect()
}

/// Of all variables at all lags up to `first`, each with its own mean over the rows.
fn correlations(columns: &[Vec<f64>], first: usize, rows: usize) -> Vec<f64> {
    let lags = first + 1;
    let size = columns.len() * lags;
    let mut matrix = vec![0.0; size * size];
    let at = |variable: usize, lag: usize| variable * lags + lag;
    let means: Vec<Vec<f64>> = columns
        .iter()
        .map(|column| {
            let window = |lag: usize| column[first - lag..].iter().take(rows);
            (0..lags)
                .map(|lag| window(lag).sum::<f64>() / rows as f64)
                .collect()
        })
        .collect();
    for (one, a) in columns.iter().enumerate() {
        for (other, b) in columns.iter().enumerate() {
            for lag in 0..lags {
                let now = a[first..].iter().take(rows);
                let then = b[first - lag..].iter().take(rows);
                let mut sum: f64 = now.zip(then).map(|(a, b)| a * b).sum();
                // Both a step earlier: one row more in front, one less at the end.
                for back in 0..lags - lag {
                    let (early, late) = (back, lag + back);
                    if back > 0 {
                        let (front, end) = (first, first + rows);
                        sum += a[front - early] * b[front - late] - a[end - early] * b[end - late];
                    }
                    let product = means[one][early] * means[other][late] * rows as f64;
                    let (row, column) = (at(one, early), at(other, late));
                    matrix[row * size + column] = sum - product;
                    matrix[column * size + row] = sum - product;
                }
            }
        }
    }
    let deviation: Vec<f64> = (0..size)
        .map(|place| matrix[place * size + place].max(0.0).sqrt())
        .collect();
    for one in 0..size {
        for other in 0..size {
            let scale = deviation[one] * deviation[other];
            let cell = &mut matrix[one * size + other];
            *cell = if scale > 0.0 { *cell / scale } else { 0.0 };
        }
    }
    matrix
}

/// The partial correlation of the last two given all before them, from the lower half of
/// their correlations. 0 if one of the two is explained by what is known.
fn partial(matrix: &mut [f64], count: usize) -> f64 {
    for column in 0..count {
        let (before, _) = matrix.split_at(column * count + column);
        let own = &before[column * count..];
        let left = matrix[column * count + column] - own.iter().map(|one| one * one).sum::<f64>();
        // What earlier ones explain adds nothing.
        let root = if left > EXPLAINED { left.sqrt() } else { 0.0 };
        matrix[column * count + column] = root;
        for row in column + 1..count {
            let (above, below) = matrix.split_at(row * count);
            let own = &above[column * count..column * count + column];
            let done: f64 = own.iter().zip(below).map(|(one, other)| one * other).sum();
            let cell = below[column] - done;
            matrix[row * count + column] = if root > 0.0 { cell / root } else { 0.0 };
        }
    }
    let last = (count - 1) * count + count - 1;
    let (shared, own) = (matrix[last - 1], matrix[last]);
    let x = matrix[(count - 2) * count + count - 2];
    let spread = (shared * shared + own * own).sqrt();
    if x > 0.0 && spread * spread > EXPLAINED {
        (shared / spread).clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, count: usize) -> Vec<f64> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..count).map(|_| rng.f64() - 0.5).collect()
    }

    #[test]
    fn one_pass_and_row_by_row_agree() {
        let mut columns = vec![noise(1, 300), noise(2, 300), noise(3, 300)];
        for step in 1..300 {
            columns[1][step] += 0.8 * columns[0][step - 1] + 10.0;
            columns[2][step] += 0.5 * columns[1][step];
        }
        let series = Series::new(&["a", "b", "c"], columns).unwrap();
        let settings = Settings {
            lags: 3,
            ..Settings::default()
        };
        let mut fast = Tests::new(&series, &settings);
        let mut slow = Tests::new(&series, &settings);
        assert!(slow.matrix.take().is_some());
        let node = Node::new;
        for known in [
            vec![],
            vec![node(1, 0)],
            vec![node(1, 2), node(0, 6), node(2, 1)],
        ] {
            let one = fast.test(node(0, 1), node(2, 0), &known).unwrap();
            let other = slow.test(node(0, 1), node(2, 0), &known).unwrap();
            assert!((one.value - other.value).abs() < 1e-12, "{one:?} {other:?}");
            assert!((one.p - other.p).abs() < 1e-12);
        }
    }

    #[test]
    fn what_is_explained_depends_on_nothing() {
        let one = noise(4, 200);
        let twice: Vec<f64> = one.iter().map(|value| 2.0 * value).collect();
        let series = Series::new(&["a", "b", "c"], vec![one, twice, noise(5, 200)]).unwrap();
        let mut tests = Tests::new(
            &series,
            &Settings {
                lags: 1,
                ..Settings::default()
            },
        );
        let node = |variable| Node::new(variable, 0);
        let same = tests.test(node(0), node(1), &[]).unwrap();
        assert!(same.value > 0.999_999 && same.p < 1e-100);
        let known = tests.test(node(0), node(2), &[node(1)]).unwrap();
        assert_eq!((known.value, known.p), (0.0, 1.0));
        // A condition twice counts like once, but for the rows it takes.
        let twice = tests
            .test(node(2), Node::new(2, 1), &[node(0), node(1)])
            .unwrap();
        let once = tests.test(node(2), Node::new(2, 1), &[node(0)]).unwrap();
        assert!((twice.value - once.value).abs() < 1e-9);
    }

    #[test]
    fn missing_rows_are_left_out() {
        let mut one = noise(6, 200);
        let mut other = one.clone();
        for step in (0..200).step_by(5) {
            one[step] = f64::NAN;
            other[(step + 1) % 200] = f64::NAN;
        }
        let series = Series::new(&["a", "b"], vec![one, other]).unwrap();
        let mut tests = Tests::new(
            &series,
            &Settings {
                lags: 1,
                ..Settings::default()
            },
        );
        let found = tests.test(Node::new(0, 0), Node::new(1, 0), &[]).unwrap();
        assert!(found.value > 0.999_999, "{found:?}");
    }
}
