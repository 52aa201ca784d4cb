//! How right a ranking is, and how far its confidence can be believed.

use super::truth::Root;

/// Bins of the calibration error.
const BINS: usize = 10;

/// A ranking of one episode, scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The incident, for intervals that resample incidents first.
    pub incident: String,
    /// Place of each root, from 0.
    pub places: Vec<usize>,
    /// How sure the method was of its first.
    pub confidence: Option<f64>,
}

impl Scored {
    /// `order`: parts, the most suspect first.
    #[must_use]
    pub fn new(incident: &str, order: &[usize], roots: &[Root], confidence: Option<f64>) -> Self {
        let place = |root: &Root| {
            let found = order.iter().position(|part| root.is(*part));
            found.unwrap_or(usize::MAX)
        };
        Self {
            incident: incident.to_owned(),
            places: roots.iter().map(place).collect(),
            confidence,
        }
    }

    /// A root is among the first `k`.
    #[must_use]
    pub fn top(&self, k: usize) -> bool {
        self.places.iter().any(|place| *place < k)
    }

    /// All of them are.
    #[must_use]
    pub fn all_in(&self, k: usize) -> bool {
        self.places.iter().all(|place| *place < k)
    }
}

/// Parts by score, the highest first. Ties in an order that a seed decides, so that no
/// method gains by the order of parts.
#[must_use]
pub fn order(scores: &[f64], seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    // What is no number is not suspect.
    let key = |at: usize| {
        if scores[at].is_nan() {
            f64::NEG_INFINITY
        } else {
            scores[at]
        }
    };
    order.sort_by(|a, b| key(*b).total_cmp(&key(*a)));
    order
}

/// The expected calibration error of ten bins of equal width: by how much confidence is off
/// from how often it was right, on average.
#[must_use]
pub fn calibration(of: &[(f64, bool)]) -> f64 {
    let mut bins = [(0.0, 0.0, 0.0); BINS];
    for (confidence, right) in of {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bin = ((confidence.clamp(0.0, 1.0) * BINS as f64) as usize).min(BINS - 1);
        let (n, sum, hits) = &mut bins[bin];
        *n += 1.0;
        *sum += confidence;
        *hits += f64::from(u8::from(*right));
    }
    let off: f64 = bins.iter().map(|(_, sum, hits)| (sum - hits).abs()).sum();
    off / (of.len().max(1)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_is_the_mean_gap_by_bin() {
        let right: Vec<(f64, bool)> = (0..100).map(|at| (0.75, at % 4 != 0)).collect();
        assert!(calibration(&right) < 1e-9);
        let boastful: Vec<(f64, bool)> = (0..100).map(|at| (0.95, at % 2 == 0)).collect();
        assert!((calibration(&boastful) - 0.45).abs() < 1e-9);
        assert!(calibration(&[]).abs() < 1e-12);
    }

    #[test]
    fn ties_favour_nobody_and_what_is_no_number_comes_last() {
        let first = |seed| order(&[1.0, 1.0, 1.0, f64::NAN], seed)[0];
        let firsts: std::collections::BTreeSet<usize> = (0..50).map(first).collect();
        assert_eq!(firsts.len(), 3);
        assert_eq!(order(&[f64::NAN, 0.0, 2.0], 1), [2, 1, 0]);
    }
}
