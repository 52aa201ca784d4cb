//! Protocols C, C2 and D: failures that training did not see.

use anyhow::Result;
use homeostat_classify::{Class, Classifier};

use super::data::{FOLDS, Kind, Workload};
use super::supervised::short;
use super::{mean, score, share, table};
use crate::result::Row;
use crate::stats::Estimate;

/// What became of the runs of an unseen class, for each fold.
#[derive(Default)]
struct Seen {
    /// Share beyond the threshold.
    recall: Vec<f64>,
    /// Shares that were called novel, and taken for a known failure.
    novel: Vec<f64>,
    forced: Vec<f64>,
}

/// Healthy runs in folds, by chance.
fn folds(workload: &Workload, seed: u64) -> Vec<Vec<usize>> {
    let mut healthy = workload.places(false);
    fastrand::Rng::with_seed(seed).shuffle(&mut healthy);
    (0..FOLDS)
        .map(|fold| healthy.iter().copied().skip(fold).step_by(FOLDS).collect())
        .collect()
}

/// Trains on the healthy runs outside of each fold and on the failures of some classes, and
/// looks for those of each of the others.
fn sought(workload: &Workload, known: &[&String], seed: u64) -> Result<Vec<Seen>> {
    let mut classes = workload.failures();
    classes.retain(|class| !known.contains(&class));
    let mut all: Vec<Seen> = classes.iter().map(|_| Seen::default()).collect();
    let failures = workload.places(true);
    for test in folds(workload, seed) {
        let mut train = workload.places(false);
        train.retain(|at| !test.contains(at));
        train.extend(
            failures
                .iter()
                .filter(|at| known.contains(&&workload.labels[**at])),
        );
        let (runs, labels) = workload.some(&train);
        let model = Classifier::train(&runs, &labels, seed)?;
        let healthy: Vec<f32> = test
            .iter()
            .map(|at| model.classify(&workload.runs[*at]).rarity)
            .collect();
        let threshold = score::at_five_percent(&healthy);
        for (unseen, seen) in classes.iter().zip(&mut all) {
            let of_class = failures
                .iter()
                .filter(|at| workload.labels[**at] == *unseen);
            let verdicts: Vec<_> = of_class
                .map(|at| model.classify(&workload.runs[*at]))
                .collect();
            let part = |count: usize| count as f64 / verdicts.len().max(1) as f64;
            let count =
                |is: fn(&Class) -> bool| verdicts.iter().filter(|one| is(&one.class)).count();
            let found = verdicts.iter().filter(|one| one.rarity > threshold).count();
            seen.recall.push(part(found));
            seen.novel.push(part(count(|class| *class == Class::Novel)));
            seen.forced
                .push(part(count(|class| matches!(class, Class::Known(_)))));
        }
    }
    Ok(all)
}

/// Protocol C: each class in turn.
pub(super) fn one_left_out(workload: &Workload, kind: Kind, seed: u64) -> Result<Vec<Row>> {
    let classes = workload.failures();
    let name = workload.name.as_str();
    let what = |what: &str| format!("{} {}: {what}", name.to_uppercase(), kind.name());
    let mut rows = Vec::new();
    let mut all: Vec<Seen> = Vec::new();
    for unseen in &classes {
        let known: Vec<&String> = classes.iter().filter(|class| *class != unseen).collect();
        let seen = sought(workload, &known, seed)?.swap_remove(0);
        let class = short(unseen);
        let mut row = share(
            &[name, kind.name(), "unseen", class],
            what(&format!("C, recall of unseen {class} at 5 % false alarms")),
            mean(std::slice::from_ref(&seen.recall), seed),
        );
        if kind == Kind::Seq && name == "depl" {
            let reference = match class {
                "instance" => 0.99,
                "volume" => 0.85,
                "ssh" => 0.60,
                _ => 0.98,
            };
            row = row.against(Some(reference), "random forest");
            if class == "ssh" {
                row = row.goal(0.70);
            }
        }
        rows.push(row);
        all.push(seen);
    }
    let joined = |of: fn(&Seen) -> &Vec<f64>| -> Estimate {
        // Classes are the groups: another class is another question.
        mean(
            &all.iter().map(|seen| of(seen).clone()).collect::<Vec<_>>(),
            seed,
        )
    };
    let mut row = share(
        &[name, kind.name(), "unseen", "mean"],
        what("C, mean over the classes"),
        joined(|seen| &seen.recall),
    );
    if kind == Kind::Seq {
        row = row.against(
            table(name, kind, [[0.880, 0.963, 0.989], [0.0; 3]]),
            "random forest",
        );
        if name == "depl" {
            row = row.goal(0.94);
        }
    }
    rows.push(row);
    rows.push(share(
        &[name, kind.name(), "unseen", "novel"],
        what("C, unseen failures called novel, mean"),
        joined(|seen| &seen.novel),
    ));
    rows.push(Row::new(
        &format!("openstack.{name}.{}.unseen.forced", kind.name()),
        &what("C, unseen failures taken for a known one, mean"),
        "ratio",
        joined(|seen| &seen.forced),
    ));
    Ok(rows)
}

/// Protocol C2: training sees each pair of classes in turn.
pub(super) fn two_known(workload: &Workload, kind: Kind, seed: u64) -> Result<Row> {
    let classes = workload.failures();
    let mut groups = Vec::new();
    for (at, one) in classes.iter().enumerate() {
        for other in &classes[at + 1..] {
            let all = sought(workload, &[one, other], seed)?;
            groups.extend(all.into_iter().map(|seen| seen.recall));
        }
    }
    let reference = [[0.788, 0.0, 0.0], [0.798, 0.0, 0.0]];
    Ok(share(
        &[&workload.name, kind.name(), "unseen", "two-known"],
        format!(
            "{} {}: C2, two classes known, mean recall of the others",
            workload.name.to_uppercase(),
            kind.name()
        ),
        mean(&groups, seed),
    )
    .against(table(&workload.name, kind, reference), "random forest"))
}

/// Protocol D: no failure is known.
pub(super) fn healthy_only(workload: &Workload, kind: Kind, seed: u64) -> Result<Vec<Row>> {
    let failures = workload.places(true);
    let (mut area, mut recall, mut f1) = (Vec::new(), Vec::new(), Vec::new());
    for test in folds(workload, seed) {
        let mut train = workload.places(false);
        train.retain(|at| !test.contains(at));
        let (runs, labels) = workload.some(&train);
        let model = Classifier::train(&runs, &labels, seed)?;
        let rarity = |all: &[usize]| -> Vec<f32> {
            let runs = all.iter().map(|at| &workload.runs[*at]);
            runs.map(|run| model.classify(run).rarity).collect()
        };
        let (healthy, failed) = (rarity(&test), rarity(&failures));
        let threshold = score::at_five_percent(&healthy);
        let beyond = |all: &[f32]| all.iter().filter(|one| **one > threshold).count() as f64;
        let found = beyond(&failed);
        area.push(score::auroc(&healthy, &failed));
        recall.push(found / failed.len() as f64);
        // Each healthy run is tested once and each failed one five times.
        let false_alarms = beyond(&healthy) * FOLDS as f64;
        f1.push(score::f1(found, false_alarms, failed.len() as f64 - found));
    }
    let name = workload.name.as_str();
    let row = |id: &str, what: &str, values: Vec<f64>, seq: [f64; 3]| {
        let row = share(
            &[name, kind.name(), "healthy-only", id],
            format!(
                "{} {}: D, healthy runs only, {what}",
                name.to_uppercase(),
                kind.name()
            ),
            mean(&[values], seed),
        );
        match kind {
            Kind::Seq => row.against(
                table(name, kind, [seq, [0.0; 3]]),
                "nearest healthy neighbour",
            ),
            Kind::Lcs => row,
        }
    };
    Ok(vec![
        row("auroc", "AUROC", area, [0.991, 0.993, 0.996]),
        row(
            "recall",
            "recall at 5 % false alarms",
            recall,
            [0.966, 0.969, 0.994],
        ),
        row("f1", "F1 at that point", f1, [0.955, 0.956, 0.987]),
    ])
}
