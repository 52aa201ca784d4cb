//! Protocol E: trained on one workload, tested on another of which only healthy runs are
//! known.

use anyhow::{Context as _, Result};
use homeostat_classify::{Class, Classifier, Run};

use super::data::{FOLDS, Workload};
use super::{score, share};
use crate::result::Row;
use crate::stats::Estimate;

/// F1 of a random forest when the median healthy run of each side is subtracted first.
const ALIGNED: [(&str, &str, f64); 6] = [
    ("depl", "net", 0.975),
    ("depl", "sto", 0.990),
    ("net", "depl", 0.770),
    ("net", "sto", 0.968),
    ("sto", "depl", 0.926),
    ("sto", "net", 0.956),
];

/// What came of one pair.
struct Pair {
    /// By the verdict: a known failure, or nothing that is known and no healthy run.
    ours: f64,
    /// By the trees alone.
    trees: f64,
    /// Of a model that knows the other workload's failures, on the same events: what there is
    /// to be seen.
    ceiling: f64,
    always: f64,
}

/// Every ordered pair of workloads.
pub(super) fn pairs(all: &[Workload], seed: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut scores = Vec::new();
    for from in all {
        for to in all.iter().filter(|to| to.name != from.name) {
            let (one, other) = (from.shared_with(to), to.shared_with(from));
            let pair = pair(&one, &other, seed)?;
            let id = format!("{}-{}", from.name, to.name);
            let what = |what: &str| {
                let (from, to) = (from.name.to_uppercase(), to.name.to_uppercase());
                format!("{from} to {to}: E, {what}")
            };
            let exact = |value| Estimate::exact(value, to.runs.len());
            let known = ALIGNED
                .iter()
                .find(|(a, b, _)| *a == from.name && *b == to.name);
            let reference = known.map(|(_, _, value)| *value);
            rows.push(
                share(&["transfer", &id], what("F1 of failure"), exact(pair.ours))
                    .against(reference, "random forest, aligned"),
            );
            let trees = share(
                &["transfer", &id, "trees"],
                what("F1, the trees alone"),
                exact(pair.trees),
            );
            rows.push(trees.against(reference, "random forest, aligned"));
            rows.push(share(
                &["transfer", &id, "ceiling"],
                what("F1 with the other's failures known, same events"),
                exact(pair.ceiling),
            ));
            rows.push(share(
                &["transfer", &id, "always"],
                what("baseline: always failure"),
                exact(pair.always),
            ));
            scores.push(pair.ours);
        }
    }
    let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    let worst = scores.iter().copied().fold(f64::INFINITY, f64::min);
    rows.push(
        share(
            &["transfer", "mean"],
            "E, mean F1 of the pairs",
            Estimate::exact(mean, scores.len()),
        )
        .against(Some(0.931), "random forest, aligned")
        .goal(0.955),
    );
    rows.push(
        share(
            &["transfer", "worst"],
            "E, worst F1 of the pairs",
            Estimate::exact(worst, scores.len()),
        )
        .against(Some(0.770), "random forest, aligned")
        .goal(0.88),
    );
    Ok(rows)
}

fn pair(from: &Workload, to: &Workload, seed: u64) -> Result<Pair> {
    let everything: Vec<usize> = (0..from.runs.len()).collect();
    let (runs, labels) = from.some(&everything);
    let model = Classifier::train(&runs, &labels, seed)?;
    let (mut healthy, failures) = (to.places(false), to.places(true));
    fastrand::Rng::with_seed(seed).shuffle(&mut healthy);
    // A failed run is judged beside each part of the healthy ones, a healthy one beside those
    // parts that it is not in.
    let (mut ours, mut trees) = ([0.0; 2], [0.0; 2]);
    for fold in 0..FOLDS {
        let held: Vec<usize> = healthy.iter().copied().skip(fold).step_by(FOLDS).collect();
        let kept: Vec<Run> = healthy
            .iter()
            .filter(|at| !held.contains(at))
            .map(|at| to.runs[*at].clone())
            .collect();
        let beside = model.beside(&kept).context("too few healthy runs")?;
        for at in &held {
            let verdict = beside.classify(&to.runs[*at]);
            ours[0] += f64::from(verdict.class != Class::Healthy);
            trees[0] += f64::from(verdict.failure >= 0.5);
        }
        for at in &failures {
            let verdict = beside.classify(&to.runs[*at]);
            ours[1] += f64::from(verdict.class != Class::Healthy) / FOLDS as f64;
            trees[1] += f64::from(verdict.failure >= 0.5) / FOLDS as f64;
        }
    }
    let failed = failures.len() as f64;
    let f1 = |[false_alarms, hits]: [f64; 2]| score::f1(hits, false_alarms, failed - hits);
    Ok(Pair {
        ours: f1(ours),
        trees: f1(trees),
        ceiling: ceiling(to, seed)?,
        always: f1([healthy.len() as f64, failed]),
    })
}

/// Five folds within the workload.
fn ceiling(to: &Workload, seed: u64) -> Result<f64> {
    let (mut truth, mut said) = (Vec::new(), Vec::new());
    for fold in 0..FOLDS {
        let (test, train): (Vec<usize>, Vec<usize>) =
            (0..to.runs.len()).partition(|at| to.folds[*at][0] == fold);
        let (runs, labels) = to.some(&train);
        let model = Classifier::train(&runs, &labels, seed)?;
        for at in test {
            truth.push(to.failed(at));
            said.push(model.classify(&to.runs[at]).failure >= 0.5);
        }
    }
    Ok(score::binary(&truth, &said))
}
