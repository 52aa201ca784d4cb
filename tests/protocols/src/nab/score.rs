//! The score of the benchmark: early alerts in windows earn, alerts outside cost.

use super::series::{Profile, Series};

/// The worth of an alert at the start of a window, by which all others are divided.
const FIRST: f64 = 0.98661;

/// What the alerts of one series, or of several, came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Tally {
    /// Sum of the worth of the best alert of each window.
    pub(super) worth: f64,
    pub(super) hits: usize,
    pub(super) windows: usize,
    /// Sum of what alerts outside of windows cost, before the profile's weight.
    pub(super) cost: f64,
    pub(super) false_alerts: usize,
}

impl Tally {
    /// Of one series; `alerts` are rows, in order.
    pub(super) fn of(series: &Series, alerts: &[usize]) -> Self {
        let mut tally = Self {
            windows: series.windows.len(),
            ..Self::default()
        };
        let mut found = vec![false; series.windows.len()];
        for &row in alerts.iter().filter(|row| **row >= series.probation()) {
            match worth(series, row) {
                // Worth falls along a window, so its first alert is its best.
                Worth::Inside(window, worth) => {
                    if !std::mem::replace(&mut found[window], true) {
                        tally.worth += worth;
                        tally.hits += 1;
                    }
                }
                Worth::Outside(cost) => {
                    tally.cost += cost;
                    tally.false_alerts += 1;
                }
            }
        }
        tally
    }

    pub(super) fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for one in all {
            sum.worth += one.worth;
            sum.hits += one.hits;
            sum.windows += one.windows;
            sum.cost += one.cost;
            sum.false_alerts += one.false_alerts;
        }
        sum
    }

    /// From 0, no alert at all, to 100, every window at its first row and nothing else.
    pub(super) fn normalised(&self, profile: Profile) -> f64 {
        let windows = self.windows as f64;
        let missed = windows - self.hits as f64;
        let total = profile.tp * self.worth - profile.fp * self.cost - profile.miss * missed;
        let (null, perfect) = (-profile.miss * windows, profile.tp * windows);
        // Without windows only false alerts are left to count, as if there were one.
        let span = (perfect - null).max(profile.tp + profile.miss);
        100.0 * (total - null) / span
    }
}

/// What an alert in one row is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Worth {
    /// In this window, `0.0..=1.0`.
    Inside(usize, f64),
    /// In none; what it costs.
    Outside(f64),
}

pub(super) fn worth(series: &Series, row: usize) -> Worth {
    let inside = |(first, last): &(usize, usize)| (*first..=*last).contains(&row);
    if let Some(window) = series.windows.iter().position(inside) {
        let (first, last) = series.windows[window];
        let x = -((last - row + 1) as f64) / (last - first + 1) as f64;
        return Worth::Inside(window, sigmoid(x) / FIRST);
    }
    let before = series.windows.iter().rev().find(|(_, last)| *last < row);
    Worth::Outside(match before {
        Some((first, last)) if last > first => {
            -sigmoid((row - last) as f64 / (last - first) as f64)
        }
        _ => 1.0,
    })
}

fn sigmoid(x: f64) -> f64 {
    if x > 3.0 {
        -1.0
    } else {
        2.0 / (1.0 + (5.0 * x).exp()) - 1.0
    }
}

/// The best of all thresholds on scores that are compared row by row, and its value.
pub(super) fn best(all: &[(&Series, &[f64])], profile: Profile) -> (f64, f64) {
    let mut rows: Vec<(f64, usize, Worth)> = Vec::new();
    for (at, (series, scores)) in all.iter().enumerate() {
        let scored = scores.iter().enumerate().skip(series.probation());
        rows.extend(scored.map(|(row, score)| (*score, at, worth(series, row))));
    }
    rows.sort_by(|one, other| other.0.total_cmp(&one.0));
    let mut found: Vec<Vec<f64>> = all
        .iter()
        .map(|(series, _)| vec![f64::NAN; series.windows.len()])
        .collect();
    let windows = found.iter().map(Vec::len).sum();
    let mut tally = Tally {
        windows,
        ..Tally::default()
    };
    let mut best = (f64::INFINITY, tally.normalised(profile));
    for (at, (score, file, worth)) in rows.iter().enumerate() {
        match *worth {
            Worth::Outside(cost) => {
                tally.cost += cost;
                tally.false_alerts += 1;
            }
            Worth::Inside(window, worth) => {
                let old = &mut found[*file][window];
                if old.is_nan() {
                    tally.hits += 1;
                    tally.worth += worth;
                    *old = worth;
                } else if worth > *old {
                    tally.worth += worth - *old;
                    *old = worth;
                }
            }
        }
        // Rows with the same score pass together.
        if rows.get(at + 1).is_none_or(|next| next.0 < *score) {
            let value = tally.normalised(profile);
            if value > best.1 {
                best = (*score, value);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDARD: Profile = Profile {
        tp: 1.0,
        fp: 0.11,
        miss: 1.0,
    };

    fn series() -> Series {
        Series {
            name: "a/b.csv".to_owned(),
            rows: (0..1000).map(|row| (row * 300, Some(0.0))).collect(),
            windows: vec![(400, 499), (700, 799)],
            half: 0,
        }
    }

    fn value(alerts: &[usize]) -> f64 {
        Tally::of(&series(), alerts).normalised(STANDARD)
    }

    #[test]
    fn null_is_0_and_perfect_is_100() {
        assert_eq!(value(&[]), 0.0);
        assert!((value(&[400, 700]) - 100.0).abs() < 1e-3);
        // Alerts during probation are not scored.
        assert!((value(&[0, 149, 400, 700]) - 100.0).abs() < 1e-3);
    }

    #[test]
    fn without_windows_false_alerts_still_cost() {
        let calm = Series {
            windows: Vec::new(),
            ..series()
        };
        let value = |alerts: &[usize]| Tally::of(&calm, alerts).normalised(STANDARD);
        assert_eq!(value(&[]), 0.0);
        assert!((value(&[500]) + 5.5).abs() < 1e-9, "{}", value(&[500]));
    }

    #[test]
    fn later_is_worth_less_and_only_the_first_counts() {
        assert!(value(&[410]) > value(&[450]));
        assert!(value(&[450]) > value(&[499]));
        assert_eq!(value(&[410, 450, 470]), value(&[410]));
    }

    #[test]
    fn an_alert_outside_costs_and_less_just_after_a_window() {
        let loss = |row| value(&[400]) - value(&[400, row]);
        assert!((loss(200) - 100.0 * 0.11 / 4.0).abs() < 1e-9);
        assert!(loss(501) < 0.2 && loss(501) > 0.0, "{}", loss(501));
        assert!((loss(999) - 100.0 * 0.11 / 4.0).abs() < 0.01);
    }

    #[test]
    fn the_best_threshold_is_that_of_a_plain_search() {
        let series = series();
        let mut rng = fastrand::Rng::with_seed(3);
        let scores: Vec<f64> = (0..1000)
            .map(|_| (rng.f64() * 50.0).floor() / 50.0)
            .collect();
        let (threshold, value) = best(&[(&series, &scores)], STANDARD);
        let of = |threshold: f64| {
            let alerts: Vec<usize> = (0..1000).filter(|row| scores[*row] >= threshold).collect();
            Tally::of(&series, &alerts).normalised(STANDARD)
        };
        let plain = (0..50)
            .map(|step| of(f64::from(step) / 50.0))
            .fold(0.0, f64::max);
        assert!((value - plain).abs() < 1e-9, "{value} {plain}");
        assert!((of(threshold) - value).abs() < 1e-9);
    }
}
