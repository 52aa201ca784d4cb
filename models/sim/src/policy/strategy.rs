//! An evolution strategy: numbers that make a score better, by trying.
//!
//! In go a place to begin, a step for each number, and scores of candidates; out come
//! candidates, generation by generation. It is the separable CMA-ES (Ros and Hansen 2008):
//! recombination of the better half by weight, a deviation of its own for each number, and
//! a common one that follows the path (Hansen 2016 for the constants). Nothing is run here,
//! so candidates can be tried side by side; the same seed gives the same candidates.

use crate::chance::{Chance, Stream};

/// See the module.
#[derive(Debug, Clone)]
pub struct Strategy {
    chance: Chance,
    generation: u64,
    /// The length of a step of each number, as it was given.
    scale: Vec<f64>,
    begin: Vec<f64>,
    /// In steps from the beginning.
    mean: Vec<f64>,
    deviation: f64,
    /// Of each number.
    variance: Vec<f64>,
    path: Vec<f64>,
    path_variance: Vec<f64>,
    /// Of the better half, the best first.
    shares: Vec<f64>,
    /// How many candidates the shares are worth.
    worth: f64,
    /// What was drawn for each candidate of this generation.
    drawn: Vec<Vec<f64>>,
}

impl Strategy {
    /// One that begins at a place, with a first step for each number and so many candidates
    /// in a generation; at least four.
    #[must_use]
    pub fn new(begin: &[f64], scale: &[f64], candidates: usize, seed: u64) -> Self {
        let candidates = candidates.max(4);
        let better = candidates / 2;
        let raw: Vec<f64> = (0..better)
            .map(|at| libm::log((candidates as f64 + 1.0) / 2.0) - libm::log(at as f64 + 1.0))
            .collect();
        let sum: f64 = raw.iter().sum();
        let shares: Vec<f64> = raw.iter().map(|share| share / sum).collect();
        let worth = 1.0 / shares.iter().map(|share| share * share).sum::<f64>();
        let count = begin.len();
        Self {
            chance: Chance::new(seed, Stream::Tune),
            generation: 0,
            scale: scale.to_vec(),
            begin: begin.to_vec(),
            mean: vec![0.0; count],
            deviation: 1.0,
            variance: vec![1.0; count],
            path: vec![0.0; count],
            path_variance: vec![0.0; count],
            shares,
            worth,
            drawn: vec![vec![0.0; count]; candidates],
        }
    }

    /// Candidates of the next generation.
    pub fn ask(&mut self) -> Vec<Vec<f64>> {
        self.generation += 1;
        let count = self.begin.len() as u64;
        for (place, drawn) in self.drawn.iter_mut().enumerate() {
            for (at, one) in drawn.iter_mut().enumerate() {
                let index = place as u64 * count + at as u64;
                *one = self.chance.normal(self.generation, index) * self.variance[at].sqrt();
            }
        }
        let mean = &self.mean;
        let all = self.drawn.iter().map(|drawn| {
            let steps = mean.iter().zip(drawn);
            self.numbers(steps.map(|(mean, one)| mean + self.deviation * one))
        });
        all.collect()
    }

    /// Where it stands.
    #[must_use]
    pub fn mean(&self) -> Vec<f64> {
        self.numbers(self.mean.iter().copied())
    }

    /// How far it looks, beside where it began.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        self.deviation
    }

    fn numbers(&self, steps: impl Iterator<Item = f64>) -> Vec<f64> {
        let known = self.begin.iter().zip(&self.scale);
        known
            .zip(steps)
            .map(|((begin, scale), step)| begin + scale * step)
            .collect()
    }

    /// Takes in the scores of the candidates that were asked for last, in their order; more
    /// is better, and what is not a number is worst.
    pub fn tell(&mut self, scores: &[f64]) {
        let mut order: Vec<usize> = (0..self.drawn.len().min(scores.len())).collect();
        let score = |at: &usize| match scores[*at] {
            score if score.is_nan() => f64::NEG_INFINITY,
            score => score,
        };
        order.sort_by(|a, b| score(b).total_cmp(&score(a)));
        let count = self.begin.len() as f64;
        let worth = self.worth;
        let for_path = (worth + 2.0) / (count + worth + 5.0);
        let damping = 1.0 + 2.0 * f64::max(0.0, ((worth - 1.0) / (count + 1.0)).sqrt() - 1.0);
        let damping = damping + for_path;
        let for_variance_path = (4.0 + worth / count) / (count + 4.0 + 2.0 * worth / count);
        // A variance for each number is learned faster than one for each pair of them.
        let faster = (count + 2.0) / 3.0;
        let rank_one = faster * 2.0 / ((count + 1.3) * (count + 1.3) + worth);
        let rank_one = rank_one.min(0.5);
        let rank_more =
            faster * 2.0 * (worth - 2.0 + 1.0 / worth) / ((count + 2.0) * (count + 2.0) + worth);
        let rank_more = rank_more.clamp(0.0, 1.0 - rank_one);
        // Mean length of a normal vector.
        let usual = count.sqrt() * (1.0 - 1.0 / (4.0 * count) + 1.0 / (21.0 * count * count));
        let step = |at: usize| -> f64 {
            let better = order.iter().zip(&self.shares);
            better
                .map(|(one, share)| share * self.drawn[*one][at])
                .sum()
        };
        let steps: Vec<f64> = (0..self.begin.len()).map(step).collect();
        let mut length = 0.0;
        for (at, step) in steps.iter().enumerate() {
            self.mean[at] += self.deviation * step;
            let whitened = step / self.variance[at].sqrt();
            let path = &mut self.path[at];
            *path =
                (1.0 - for_path) * *path + (for_path * (2.0 - for_path) * worth).sqrt() * whitened;
            length += *path * *path;
        }
        let length = length.sqrt();
        let begun = 1.0 - libm::pow(1.0 - for_path, 2.0 * self.generation as f64);
        let stalled = length / begun.max(1e-12).sqrt() >= (1.4 + 2.0 / (count + 1.0)) * usual;
        for (at, step) in steps.iter().enumerate() {
            let path = &mut self.path_variance[at];
            let add = if stalled {
                0.0
            } else {
                (for_variance_path * (2.0 - for_variance_path) * worth).sqrt() * step
            };
            *path = (1.0 - for_variance_path) * *path + add;
            let better = order.iter().zip(&self.shares);
            let spread: f64 = better
                .map(|(one, share)| share * self.drawn[*one][at] * self.drawn[*one][at])
                .sum();
            let variance = (1.0 - rank_one - rank_more) * self.variance[at]
                + rank_one * *path * *path
                + rank_more * spread;
            self.variance[at] = variance.clamp(VARIANCE_MIN, VARIANCE_MAX);
        }
        let grows = (for_path / damping * (length / usual - 1.0)).clamp(-1.0, 1.0);
        self.deviation = (self.deviation * libm::exp(grows)).clamp(DEVIATION_MIN, DEVIATION_MAX);
    }
}

/// Bounds of variances and deviations: scores with chance in them must not make a number
/// stand still for ever, nor run away.
const VARIANCE_MIN: f64 = 1e-3;
const VARIANCE_MAX: f64 = 1e3;
const DEVIATION_MIN: f64 = 1e-3;
const DEVIATION_MAX: f64 = 1e2;

#[cfg(test)]
mod tests {
    use super::*;

    fn best(candidates: usize, generations: usize, score: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        let mut strategy = Strategy::new(&[3.0; 8], &[1.0; 8], candidates, 5);
        for _ in 0..generations {
            let all = strategy.ask();
            let scores: Vec<f64> = all.iter().map(|one| score(one)).collect();
            strategy.tell(&scores);
        }
        strategy.mean()
    }

    #[test]
    fn it_finds_the_top_of_a_hill_whose_sides_differ() {
        // 100 times as steep in the last number as in the first.
        let hill = |x: &[f64]| {
            let numbers = x.iter().enumerate();
            -numbers
                .map(|(at, x)| libm::pow(10.0, 4.0 * at as f64 / 7.0) * (x - 1.0) * (x - 1.0))
                .sum::<f64>()
        };
        let top = best(12, 250, hill);
        assert!(top.iter().all(|x| (x - 1.0).abs() < 1e-3), "{top:?}");
        assert_eq!(best(12, 9, hill), best(12, 9, hill));
    }

    #[test]
    fn what_is_not_a_number_is_worst_and_nothing_runs_away() {
        let odd = |x: &[f64]| if x[0] > 3.0 { f64::NAN } else { x[0] };
        let top = best(8, 100, odd);
        assert!(top.iter().all(|x| x.is_finite()));
        assert!(top[0] < 4.0, "{top:?}");
    }
}
