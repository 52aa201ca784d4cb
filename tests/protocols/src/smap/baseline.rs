//! Simple scores of telemetry, each of a training part and the rows to score.

/// Values of a window.
const WINDOW: usize = 32;

/// Values that the next one is told from.
const ORDER: usize = 16;

/// Rows of the mean of residuals.
const MEAN: usize = 20;

pub(super) fn from_mean(training: &[f32], rows: &[f32]) -> Vec<f32> {
    let mean = training.iter().sum::<f32>() / training.len() as f32;
    rows.iter().map(|value| (value - mean).abs()).collect()
}

/// Distance to the nearest window of the training part that does not overlap with the one
/// that is scored, which matters when the training part itself is.
pub(super) fn nearest_window(training: &[f32], rows: &[f32]) -> Vec<f32> {
    let own = std::ptr::eq(training, rows);
    let score = |end: usize| {
        let start = (end + 1).checked_sub(WINDOW)?;
        let window = &rows[start..=end];
        let known = training.windows(WINDOW).enumerate();
        let apart = known.filter(|(at, _)| !own || at.abs_diff(start) >= WINDOW);
        let mut least = f32::MAX;
        for (_, other) in apart {
            let mut sum = 0.0;
            for (ours, theirs) in window.chunks_exact(8).zip(other.chunks_exact(8)) {
                sum += ours
                    .iter()
                    .zip(theirs)
                    .map(|(a, b)| (a - b).powi(2))
                    .sum::<f32>();
                if sum >= least {
                    break;
                }
            }
            least = least.min(sum);
        }
        Some(least)
    };
    (0..rows.len())
        .map(|end| score(end).unwrap_or(0.0))
        .collect()
}

/// Residuals of an autoregression that is fitted by least squares with a small ridge.
#[allow(clippy::cast_possible_truncation)] // a score needs no more
pub(super) fn autoregression(training: &[f32], rows: &[f32]) -> Vec<f32> {
    let mean = training.iter().map(|value| f64::from(*value)).sum::<f64>() / training.len() as f64;
    let centred = |values: &[f32]| -> Vec<f64> {
        values
            .iter()
            .map(|value| f64::from(*value) - mean)
            .collect()
    };
    let known = centred(training);
    let variance = known.iter().map(|value| value * value).sum::<f64>() / known.len() as f64;
    let ridge = 0.01 * variance.max(1e-8) * known.len() as f64;
    let mut system = [[0.0; ORDER + 1]; ORDER];
    for window in known.windows(ORDER + 1) {
        for (i, row) in system.iter_mut().enumerate() {
            for (to, value) in row.iter_mut().zip(window) {
                *to += window[i] * value;
            }
        }
    }
    for (at, row) in system.iter_mut().enumerate() {
        row[at] += ridge;
    }
    let weights = solve(system);
    let rows = centred(rows);
    let mut residuals = vec![0.0; ORDER.min(rows.len())];
    residuals.extend(rows.windows(ORDER + 1).map(|window| {
        let expected: f64 = weights.iter().zip(window).map(|(a, b)| a * b).sum();
        (window[ORDER] - expected).abs() as f32
    }));
    let means = (0..residuals.len()).map(|end| {
        let last = &residuals[(end + 1).saturating_sub(MEAN)..=end];
        last.iter().sum::<f32>() / last.len() as f32
    });
    means.collect()
}

/// Solves a positive definite system, the last column being its right side.
fn solve(mut system: [[f64; ORDER + 1]; ORDER]) -> [f64; ORDER] {
    for k in 0..ORDER {
        let pivot = system[k][k];
        system[k].iter_mut().for_each(|value| *value /= pivot);
        let reduced = system[k];
        for (i, row) in system.iter_mut().enumerate() {
            if i != k {
                let factor = row[k];
                row.iter_mut()
                    .zip(&reduced)
                    .for_each(|(value, r)| *value -= factor * r);
            }
        }
    }
    system.map(|row| row[ORDER])
}
