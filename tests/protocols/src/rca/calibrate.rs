//! Fits the confidence: a logistic regression with a weak prior, on suspects of training cases.

/// A suspect: its features and whether it was a root.
pub(crate) type Sample = (Vec<f64>, bool);

/// Steps of gradient ascent, and their size: the coefficients stand still long before.
const STEPS: usize = 20_000;
const STEP: f64 = 0.5;

/// Strength of the prior that all coefficients but the first are 0: that of one sample, so that
/// cases which all end well do not make it certain.
const PRIOR: f64 = 1.0;

/// Coefficients, the constant first. Each suspect weighs the same.
pub(crate) fn fit(samples: &[Sample]) -> Vec<f64> {
    let width = samples.first().map_or(0, |(features, _)| features.len()) + 1;
    let mut weights = vec![0.0; width];
    for _ in 0..STEPS {
        let mut rise = vec![0.0; width];
        for (features, was) in samples {
            let odds = weights[0] + dot(&weights[1..], features);
            let miss = f64::from(u8::from(*was)) - 1.0 / (1.0 + (-odds).exp());
            rise[0] += miss;
            for (rise, feature) in rise[1..].iter_mut().zip(features) {
                *rise += miss * feature;
            }
        }
        for (at, (weight, rise)) in weights.iter_mut().zip(&rise).enumerate() {
            let prior = if at == 0 { 0.0 } else { PRIOR * *weight };
            *weight += STEP / samples.len().max(1) as f64 * (rise - prior);
        }
    }
    weights
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_tells_gets_its_sign_and_one_that_does_not_stays_small() {
        let samples: Vec<Sample> = (0..200_u32)
            .map(|at| {
                let told = f64::from(at % 10) / 5.0 - 1.0;
                let idle = f64::from(at * 7 % 13) / 6.0 - 1.0;
                (vec![told, idle], told + f64::from(at % 3) / 3.0 > 0.3)
            })
            .collect();
        let weights = fit(&samples);
        assert!(weights[1] > 1.0 && weights[2].abs() < 0.5, "{weights:?}");
    }
}
