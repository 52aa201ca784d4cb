//! What ours is compared with: chance, and a Gaussian over a sliding window.

use super::series::Series;

/// Values the Gaussian looks back on, and those that wait before they are taken in, as the
/// benchmark sets them.
const WINDOW: usize = 6400;
const STEP: usize = 100;

/// Uniform scores.
pub(super) fn random(series: &Series, rng: &mut fastrand::Rng) -> Vec<f64> {
    series.rows.iter().map(|_| rng.f64()).collect()
}

/// One minus the tail of a normal distribution with mean and deviation of the window.
pub(super) fn gaussian(series: &Series) -> Vec<f64> {
    let mut window: Vec<f64> = Vec::new();
    let mut waiting: Vec<f64> = Vec::new();
    let (mut mean, mut deviation) = (0.0, 1.0);
    let mut scores = Vec::with_capacity(series.rows.len());
    for (_, value) in &series.rows {
        let Some(value) = value.map(f64::from) else {
            scores.push(0.0);
            continue;
        };
        let z = (value - mean).abs() / deviation;
        let tail = 0.5 * libm::erfc(z / std::f64::consts::SQRT_2);
        scores.push(if window.is_empty() { 0.0 } else { 1.0 - tail });
        if window.len() < WINDOW {
            window.push(value);
        } else {
            waiting.push(value);
            if waiting.len() < STEP {
                continue;
            }
            window.drain(..STEP);
            window.append(&mut waiting);
        }
        let count = window.len() as f64;
        mean = window.iter().sum::<f64>() / count;
        let variance = window.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        deviation = if variance > 0.0 {
            variance.sqrt()
        } else {
            1e-6
        };
    }
    scores
}
