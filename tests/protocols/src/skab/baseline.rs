//! What others would do: control charts, computed here.

use std::ops::Range;

use homeostat_classify::eigen;

use super::{Recording, SENSORS, TRAINING};

/// What the F distribution of `m` and `400 - m` degrees of freedom passes once in 1000.
const F_1000: [f64; SENSORS] = [
    10.9897, 7.029, 5.5276, 4.7139, 4.1952, 3.8318, 3.5611, 3.3505,
];

/// What the normal distribution passes once in 1000.
const NORMAL_1000: f64 = 3.0902;

/// Rows of the median that smooths the charts.
const MEDIAN: usize = 5;

type Matrix = [[f64; SENSORS]; SENSORS];

/// Hotelling's T2 of all sensors beyond twice its limit, as the source alarms.
pub(super) fn t2(recording: &Recording) -> Vec<bool> {
    let space = Space::of(recording);
    let limit = 2.0 * limit(SENSORS);
    let charts: Vec<f64> = recording
        .judged()
        .iter()
        .map(|row| space.along(row, 0..SENSORS, true))
        .collect();
    medians(&charts).into_iter().map(|t2| t2 > limit).collect()
}

/// Hotelling's T2 of the components that hold 85 % of the variance, or the residual Q (Jackson
/// and Mudholkar 1979), each beyond its limit: the settings and formulas of the source, but for
/// the order of the components that it takes the limit of Q from, which there is by chance.
pub(super) fn t2_or_q(recording: &Recording) -> Vec<bool> {
    let space = Space::of(recording);
    let values = &space.values;
    let all: f64 = values.iter().sum();
    let mut held = 0.0;
    let main = values.iter().position(|value| {
        held += value;
        held >= 0.85 * all
    });
    let main = main.map_or(SENSORS, |at| at + 1);
    let power = |k: i32| {
        values[main..]
            .iter()
            .map(|v| v.max(0.0))
            .sum::<f64>()
            .powi(k)
    };
    let h = 1.0 - 2.0 * power(1) * power(3) / (3.0 * power(2).powi(2));
    let limit_q = power(1)
        * (1.0
            + NORMAL_1000 * h * (2.0 * power(2)).sqrt() / power(1)
            + power(2) * h * (h - 1.0) / power(1).powi(2))
        .powf(1.0 / h);
    let limit = limit(main);
    let (charts, residuals): (Vec<f64>, Vec<f64>) = recording
        .judged()
        .iter()
        .map(|row| {
            let t2 = space.along(row, 0..main, true);
            (t2, space.along(row, main..SENSORS, false))
        })
        .unzip();
    let charts = medians(&charts).into_iter().zip(medians(&residuals));
    charts.map(|(t2, q)| t2 > limit || q > limit_q).collect()
}

/// What T2 of `main` components passes once in 1000 training rows.
fn limit(main: usize) -> f64 {
    let (n, m) = (TRAINING as f64, main as f64);
    m * (n - 1.0) * (n + 1.0) / (n * (n - m)) * F_1000[main - 1]
}

/// The components of the training rows.
struct Space {
    mean: [f64; SENSORS],
    spread: [f64; SENSORS],
    values: [f64; SENSORS],
    vectors: Matrix,
}

impl Space {
    fn of(recording: &Recording) -> Self {
        let (mean, spread) = frame(recording);
        let mut space = Self {
            mean,
            spread,
            values: [0.0; SENSORS],
            vectors: [[0.0; SENSORS]; SENSORS],
        };
        let training: Vec<[f64; SENSORS]> = recording
            .training()
            .iter()
            .map(|row| space.place(row))
            .collect();
        (space.values, space.vectors) = eigen(covariance(&training));
        space
    }

    fn place(&self, row: &[f32; SENSORS]) -> [f64; SENSORS] {
        std::array::from_fn(|at| finite((f64::from(row[at]) - self.mean[at]) / self.spread[at]))
    }

    /// Squared length along some components, each by its variance if `scaled`.
    fn along(&self, row: &[f32; SENSORS], components: Range<usize>, scaled: bool) -> f64 {
        let row = self.place(row);
        let square = |k: usize| {
            let along: f64 = (0..SENSORS).map(|i| row[i] * self.vectors[i][k]).sum();
            let by = if scaled {
                self.values[k].max(1e-12)
            } else {
                1.0
            };
            along.powi(2) / by
        };
        components.map(square).sum()
    }
}

/// Mahalanobis distance of the mean of five rows of some sensors, beyond what one in 1000 of
/// the training rows has.
pub(super) fn mean_of_five(recording: &Recording, sensors: &[usize]) -> Vec<bool> {
    let (mean, spread) = frame(recording);
    let place = |row: &[f32; SENSORS]| {
        let mut placed = [0.0; SENSORS];
        for at in sensors {
            placed[*at] = finite((f64::from(row[*at]) - mean[*at]) / spread[*at]);
        }
        placed
    };
    let rows: Vec<[f64; SENSORS]> = recording.rows.iter().map(place).collect();
    let (values, vectors) = eigen(covariance(&rows[..TRAINING]));
    let distances: Vec<f64> = rows
        .windows(5)
        .map(|five| {
            let along = |k: usize| {
                let of = |i: usize| five.iter().map(|row| row[i]).sum::<f64>() / 5.0;
                (0..SENSORS).map(|i| of(i) * vectors[i][k]).sum::<f64>()
            };
            // Sensors that are left out have no variance.
            let seen = (0..SENSORS).filter(|k| values[*k] > 1e-9);
            seen.map(|k| along(k).powi(2) / values[k]).sum()
        })
        .collect();
    let (training, judged) = distances.split_at(TRAINING - 4);
    let mut sorted = training.to_vec();
    sorted.sort_by(f64::total_cmp);
    let limit = sorted[sorted.len() - 1];
    judged.iter().map(|distance| *distance > limit).collect()
}

fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

fn frame(recording: &Recording) -> ([f64; SENSORS], [f64; SENSORS]) {
    let values = |at: usize| {
        let values = recording
            .training()
            .iter()
            .map(move |row| f64::from(row[at]));
        values.filter(|value| value.is_finite())
    };
    let mean: [f64; SENSORS] =
        std::array::from_fn(|at| values(at).sum::<f64>() / values(at).count().max(1) as f64);
    let spread = std::array::from_fn(|at| {
        let squares: f64 = values(at).map(|value| (value - mean[at]).powi(2)).sum();
        (squares / values(at).count().max(1) as f64)
            .sqrt()
            .max(1e-9)
    });
    (mean, spread)
}

fn covariance(rows: &[[f64; SENSORS]]) -> Matrix {
    let mut matrix = [[0.0; SENSORS]; SENSORS];
    for row in rows {
        for i in 0..SENSORS {
            for j in 0..SENSORS {
                matrix[i][j] += row[i] * row[j] / (rows.len() - 1) as f64;
            }
        }
    }
    matrix
}

/// Eigenvalues from the largest down, with their vectors as columns.
fn eigen(matrix: Matrix) -> ([f64; SENSORS], Matrix) {
    let found = eigen::eigen(matrix.concat(), SENSORS);
    (
        std::array::from_fn(|k| found[k].0),
        std::array::from_fn(|i| std::array::from_fn(|k| found[k].1[i])),
    )
}

/// Medians of the last values; 0 until there are enough.
fn medians(values: &[f64]) -> Vec<f64> {
    let mut medians = vec![0.0; (MEDIAN - 1).min(values.len())];
    medians.extend(values.windows(MEDIAN).map(|last| {
        let mut last = last.to_vec();
        last.sort_by(f64::total_cmp);
        last[MEDIAN / 2]
    }));
    medians
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_rebuild_the_matrix() {
        let mut rng = fastrand::Rng::with_seed(4);
        let rows: Vec<[f64; SENSORS]> = (0..50)
            .map(|_| std::array::from_fn(|_| rng.f64() - 0.5))
            .collect();
        let matrix = covariance(&rows);
        let (values, vectors) = eigen(matrix);
        assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
        for i in 0..SENSORS {
            for j in 0..SENSORS {
                let rebuilt: f64 = (0..SENSORS)
                    .map(|k| values[k] * vectors[i][k] * vectors[j][k])
                    .sum();
                assert!((rebuilt - matrix[i][j]).abs() < 1e-9);
            }
        }
    }
}
