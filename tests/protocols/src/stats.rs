//! Medians, percentiles and how far they can be trusted.
//!
//! In: samples of one kind. Out: the numbers a table shows. Intervals come from the
//! bootstrap (Efron 1979), because times to repair are far from normal; no distribution is
//! assumed and no sample is dropped.

/// Resamples of a bootstrap: enough that the ends of a 95 % interval move by a few percent
/// of its width between seeds.
const RESAMPLES: usize = 1000;

/// p99 needs ten samples beyond it to mean anything.
pub const P99_SAMPLES_MIN: usize = 1000;

/// A number with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub n: usize,
}

impl Estimate {
    /// A count or a single reading, which has no interval.
    #[must_use]
    pub fn exact(value: f64, n: usize) -> Self {
        Self {
            value,
            low: value,
            high: value,
            n,
        }
    }

    /// The quantile `q` of `samples` in `0.0..=1.0`; `None` of none.
    #[must_use]
    pub fn quantile(samples: &[f64], q: f64, seed: u64) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let value = quantile(&sorted, q)?;
        // The order statistics of a resample are those of uniform ranks, so ranks are drawn
        // and the samples are never copied.
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut ranks = vec![0; sorted.len()];
        let mut values: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| {
                ranks
                    .iter_mut()
                    .for_each(|rank| *rank = rng.usize(..sorted.len()));
                let place = place(q, ranks.len());
                let (_, rank, _) = ranks.select_nth_unstable(place);
                sorted.get(*rank).copied()
            })
            .collect();
        values.sort_unstable_by(f64::total_cmp);
        Some(Self {
            value,
            low: quantile(&values, 0.025)?,
            high: quantile(&values, 0.975)?,
            n: samples.len(),
        })
    }

    /// The same in another unit or against a constant.
    #[must_use]
    pub fn scaled(self, by: f64) -> Self {
        Self {
            value: self.value * by,
            low: self.low * by,
            high: self.high * by,
            n: self.n,
        }
    }
}

/// The share `hits / n` with its Wilson interval (Wilson 1927), which stays within `0..=1`
/// and does not vanish when nothing or everything hit.
#[must_use]
pub fn share(hits: usize, n: usize) -> Estimate {
    if n == 0 {
        return Estimate::exact(f64::NAN, 0);
    }
    let (count, share, z) = (n as f64, hits as f64 / n as f64, 1.96_f64);
    let scale = 1.0 + z * z / count;
    let middle = (share + z * z / (2.0 * count)) / scale;
    let half = z / scale * (share * (1.0 - share) / count + z * z / (4.0 * count * count)).sqrt();
    Estimate {
        value: share,
        // Rounding must not put the share itself outside.
        low: (middle - half).clamp(0.0, share),
        high: (middle + half).clamp(share, 1.0),
        n,
    }
}

/// A statistic of samples that come in groups, with an interval that resamples groups first
/// and then what is in them: many samples of few groups say little of other groups. `None`
/// of no samples.
pub fn clustered<T>(
    groups: &[Vec<T>],
    statistic: impl Fn(&[&T]) -> f64,
    seed: u64,
) -> Option<Estimate> {
    let all: Vec<&T> = groups.iter().flatten().collect();
    if all.is_empty() {
        return None;
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut drawn = Vec::with_capacity(all.len());
    let mut values: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            drawn.clear();
            for _ in groups {
                let group = &groups[rng.usize(..groups.len())];
                for _ in group {
                    drawn.push(&group[rng.usize(..group.len())]);
                }
            }
            // A resample of empty groups only says nothing.
            if drawn.is_empty() {
                f64::NAN
            } else {
                statistic(&drawn)
            }
        })
        .filter(|value| value.is_finite())
        .collect();
    values.sort_unstable_by(f64::total_cmp);
    let value = statistic(&all);
    Some(Estimate {
        value,
        low: quantile(&values, 0.025).map_or(value, |low| low.min(value)),
        high: quantile(&values, 0.975).map_or(value, |high| high.max(value)),
        n: all.len(),
    })
}

/// The nearest-rank quantile of sorted samples.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    sorted.get(place(q, sorted.len())).copied()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // q is in 0..=1
fn place(q: f64, n: usize) -> usize {
    ((q.clamp(0.0, 1.0) * n as f64).ceil() as usize)
        .saturating_sub(1)
        .min(n.saturating_sub(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_by_nearest_rank() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let at = |q| Estimate::quantile(&samples, q, 1).unwrap().value;
        assert_eq!(
            [at(0.5), at(0.95), at(1.0), at(0.0)],
            [100.0, 190.0, 200.0, 1.0]
        );
        assert_eq!(Estimate::quantile(&[], 0.5, 1), None);
        let one = Estimate::quantile(&[7.0], 0.95, 1).unwrap();
        assert_eq!((one.value, one.low, one.high, one.n), (7.0, 7.0, 7.0, 1));
    }

    #[test]
    fn the_interval_covers_the_truth_about_19_times_in_20() {
        let mut rng = fastrand::Rng::with_seed(3);
        let covered = (0..200)
            .filter(|seed| {
                let samples: Vec<f64> = (0..60).map(|_| rng.f64()).collect();
                let median = Estimate::quantile(&samples, 0.5, *seed).unwrap();
                (median.low..=median.high).contains(&0.5)
            })
            .count();
        // Binomial with p = 0.95: 180..=200 but for one time in a thousand.
        assert!((180..=200).contains(&covered), "{covered}");
    }

    #[test]
    fn samples_that_come_in_groups_say_less() {
        let mean = |all: &[&f64]| all.iter().copied().sum::<f64>() / all.len() as f64;
        // The same samples, but within a group they are all alike.
        let alone: Vec<Vec<f64>> = (0..100).map(|at| vec![f64::from(at % 4)]).collect();
        let alike: Vec<Vec<f64>> = (0..4).map(|at| vec![f64::from(at); 25]).collect();
        let alone = clustered(&alone, mean, 1).unwrap();
        let alike = clustered(&alike, mean, 1).unwrap();
        assert_eq!((alone.value, alike.value, alike.n), (1.5, 1.5, 100));
        assert!(alike.high - alike.low > 3.0 * (alone.high - alone.low));
        assert_eq!(clustered(&[Vec::<f64>::new()], mean, 1), None);
    }

    #[test]
    fn a_share_of_none_or_all_still_has_a_width() {
        let (none, all) = (share(0, 50), share(50, 50));
        assert_eq!((none.value, none.low), (0.0, 0.0));
        assert!((none.high - 0.071).abs() < 0.002, "{none:?}");
        assert!((all.low - 0.929).abs() < 0.002, "{all:?}");
    }
}
