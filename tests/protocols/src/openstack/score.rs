//! Scores of predictions, and the baselines that look at next to nothing.

use std::collections::BTreeSet;

use homeostat_classify::{Run, usual};

/// F1 of a class against all others, from its hits, false alarms and misses; 0 without any.
pub(super) fn f1(hits: f64, false_alarms: f64, misses: f64) -> f64 {
    let of = 2.0 * hits + false_alarms + misses;
    if of > 0.0 { 2.0 * hits / of } else { 0.0 }
}

/// F1 with failure as the class that is sought.
pub(super) fn binary(truth: &[bool], said: &[bool]) -> f64 {
    let count = |t: bool, s: bool| {
        let both = truth.iter().zip(said);
        both.filter(|pair| *pair == (&t, &s)).count() as f64
    };
    f1(count(true, true), count(false, true), count(true, false))
}

/// The mean F1 of all classes that are in the truth or were said.
pub(super) fn macro_f1(truth: &[&str], said: &[&str]) -> f64 {
    let classes: BTreeSet<&str> = truth.iter().chain(said).copied().collect();
    let one = |class: &&str| {
        let is = |all: &[&str]| all.iter().map(|one| one == class).collect::<Vec<bool>>();
        binary(&is(truth), &is(said))
    };
    classes.iter().map(one).sum::<f64>() / classes.len().max(1) as f64
}

/// The chance that a failed run scores above a healthy one; equal scores count half.
pub(super) fn auroc(healthy: &[f32], failed: &[f32]) -> f64 {
    let mut sum = 0.0;
    for one in failed {
        for other in healthy {
            sum += match one.total_cmp(other) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
    sum / (healthy.len() * failed.len()).max(1) as f64
}

/// The lowest score that at most 5 % of the healthy runs exceed.
pub(super) fn at_five_percent(healthy: &[f32]) -> f32 {
    let mut sorted = healthy.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let above = sorted.len() / 20;
    let place = sorted.len().saturating_sub(above + 1);
    sorted.get(place).copied().unwrap_or(f32::INFINITY)
}

/// What the one-threshold rule looks at: errors, or where all events are anomalies all of
/// them.
pub(super) fn errors(run: &Run, all: bool) -> u32 {
    let named = run
        .iter()
        .filter(|(event, _)| all || usual::is_error(event));
    named.map(|(_, count)| *count).fold(0, u32::saturating_add)
}

/// The threshold of the rule with the best F1 on these runs.
pub(super) fn rule(measures: &[u32], truth: &[bool]) -> u32 {
    let different: BTreeSet<u32> = measures.iter().copied().collect();
    let score = |threshold: &u32| {
        let said: Vec<bool> = measures
            .iter()
            .map(|measure| measure >= threshold)
            .collect();
        binary(truth, &said)
    };
    let best = different.into_iter().map(|one| (score(&one), one));
    best.max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map_or(0, |(_, one)| one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_small_samples() {
        assert_eq!(binary(&[true, true, false], &[true, false, true]), 0.5);
        assert_eq!(binary(&[false], &[false]), 0.0);
        let (truth, said) = (["a", "a", "b"], ["a", "b", "b"]);
        assert!((macro_f1(&truth, &said) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(auroc(&[1.0, 2.0], &[2.0, 3.0]), 0.875);
    }

    #[test]
    fn five_percent_of_the_healthy_exceed_the_threshold() {
        let healthy: Vec<f32> = (0_u8..100).map(f32::from).collect();
        let threshold = at_five_percent(&healthy);
        assert_eq!(
            healthy.iter().filter(|score| **score > threshold).count(),
            5
        );
        // With fewer than 20 none may.
        assert_eq!(at_five_percent(&healthy[..19]), 18.0);
    }

    #[test]
    fn the_rule_finds_the_threshold_that_parts_best() {
        assert_eq!(
            rule(&[0, 0, 1, 2, 9], &[false, false, false, true, true]),
            2
        );
    }
}
