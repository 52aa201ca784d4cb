//! Protocols A and B: known classes.

use std::collections::BTreeMap;

use anyhow::Result;
use homeostat_classify::{Class, Classifier, HEALTHY};

use super::data::{FOLDS, Kind, REPEATS, Workload};
use super::{mean, score, share, table};
use crate::result::Row;
use crate::stats::Estimate;

/// Predictions for one fold.
struct Fold {
    truth: Vec<String>,
    /// The likeliest class that is known, for the scores of the protocol.
    likeliest: Vec<String>,
    failed: Vec<bool>,
    /// Flagged as novel, although every class is known.
    novel: usize,
    always: f64,
    rule: f64,
    random: f64,
}

impl Fold {
    fn new(workload: &Workload, kind: Kind, test: &[usize], seed: u64) -> Result<Self> {
        let train: Vec<usize> = (0..workload.runs.len())
            .filter(|at| test.binary_search(at).is_err())
            .collect();
        let (runs, labels) = workload.some(&train);
        let model = Classifier::train(&runs, &labels, seed)?;
        let is_failure = |all: &[usize]| all.iter().map(|at| workload.failed(*at)).collect();
        let (known, truth): (Vec<bool>, Vec<bool>) = (is_failure(&train), is_failure(test));
        let measure = |all: &[usize]| -> Vec<u32> {
            let runs = all.iter().map(|at| &workload.runs[*at]);
            runs.map(|run| score::errors(run, kind == Kind::Lcs))
                .collect()
        };
        let threshold = score::rule(&measure(&train), &known);
        let by_rule: Vec<bool> = measure(test).iter().map(|one| *one >= threshold).collect();
        let failures = known.iter().filter(|failed| **failed).count() as f64 / known.len() as f64;
        let mut rng = fastrand::Rng::with_seed(seed);
        let drawn: Vec<bool> = test.iter().map(|_| rng.f64() < failures).collect();
        let verdicts: Vec<_> = test
            .iter()
            .map(|at| model.classify(&workload.runs[*at]))
            .collect();
        Ok(Self {
            truth: test.iter().map(|at| workload.labels[*at].clone()).collect(),
            likeliest: verdicts
                .iter()
                .map(|one| one.likeliest().to_owned())
                .collect(),
            failed: verdicts.iter().map(|one| one.failure >= 0.5).collect(),
            novel: verdicts
                .iter()
                .filter(|one| one.class == Class::Novel)
                .count(),
            always: score::binary(&truth, &vec![true; truth.len()]),
            rule: score::binary(&truth, &by_rule),
            random: score::binary(&truth, &drawn),
        })
    }

    fn binary(&self) -> f64 {
        let truth: Vec<bool> = self.truth.iter().map(|label| label != HEALTHY).collect();
        score::binary(&truth, &self.failed)
    }

    fn classes(&self) -> f64 {
        let truth: Vec<&str> = self.truth.iter().map(String::as_str).collect();
        let said: Vec<&str> = self.likeliest.iter().map(String::as_str).collect();
        score::macro_f1(&truth, &said)
    }
}

/// Protocol A.
pub(super) fn folds(workload: &Workload, kind: Kind, seed: u64) -> Result<Vec<Row>> {
    let mut repeats: Vec<Vec<Fold>> = Vec::new();
    for repeat in 0..REPEATS {
        let mut folds = Vec::new();
        for fold in 0..FOLDS {
            let test: Vec<usize> = (0..workload.runs.len())
                .filter(|at| workload.folds[*at][repeat] == fold)
                .collect();
            folds.push(Fold::new(workload, kind, &test, seed + repeat as u64)?);
        }
        repeats.push(folds);
    }
    let of = |score: fn(&Fold) -> f64| {
        let one = |folds: &Vec<Fold>| folds.iter().map(score).collect();
        mean(&repeats.iter().map(one).collect::<Vec<_>>(), seed)
    };
    let name = workload.name.as_str();
    let id = |rest: &'static str| [name, kind.name(), rest];
    let what = |what: &str| format!("{} {}: {what}", name.to_uppercase(), kind.name());
    let forest = [[0.981, 0.971, 0.992], [0.963, 0.960, 0.992]];
    let forest_macro = [[0.935, 0.962, 0.987], [0.893, 0.908, 0.986]];
    let rule = [[0.849, 0.905, 0.982], [0.883, 0.952, 0.982]];
    let mut binary = share(
        &id("f1"),
        what("A, F1 of failure, 5x5 folds"),
        of(Fold::binary),
    )
    .against(table(name, kind, forest), "random forest");
    let mut classes = share(
        &id("macro-f1"),
        what("A, macro-F1 of all classes"),
        of(Fold::classes),
    )
    .against(table(name, kind, forest_macro), "random forest");
    if kind == Kind::Seq {
        if let Some(goal) = table(name, kind, [[0.985, 0.977, 0.993], [0.0; 3]]) {
            binary = binary.goal(goal);
        }
        if let Some(goal) = table(name, kind, [[0.95, 0.97, 0.99], [0.0; 3]]) {
            classes = classes.goal(goal);
        }
    }
    let all: Vec<&Fold> = repeats.iter().flatten().collect();
    let novel: usize = all.iter().map(|fold| fold.novel).sum();
    let judged: usize = all.iter().map(|fold| fold.truth.len()).sum();
    let mut rows = vec![binary, classes];
    rows.extend(by_class(&all).into_iter().map(|(class, found, runs)| {
        let id = [name, kind.name(), "recall", short(&class)];
        let what = what(&format!("A, recall of {class}"));
        share(&id, what, Estimate::exact(found as f64 / runs as f64, runs))
    }));
    rows.extend([
        Row::new(
            &format!("openstack.{name}.{}.novel", kind.name()),
            &what("A, runs of known classes flagged as novel"),
            "ratio",
            Estimate::exact(novel as f64 / judged as f64, judged),
        ),
        share(
            &id("f1.rule"),
            what("A, baseline: one threshold on errors"),
            of(|fold| fold.rule),
        )
        .against(table(name, kind, rule), "the same, measured elsewhere"),
        share(
            &id("f1.always"),
            what("A, baseline: always failure"),
            of(|fold| fold.always),
        ),
        share(
            &id("f1.random"),
            what("A, baseline: by chance"),
            of(|fold| fold.random),
        ),
    ]);
    Ok(rows)
}

/// Protocol B.
pub(super) fn grouped(workload: &Workload, kind: Kind, seed: u64) -> Result<Vec<Row>> {
    let mut groups: Vec<usize> = workload.identical.clone();
    groups.sort_unstable();
    groups.dedup();
    fastrand::Rng::with_seed(seed).shuffle(&mut groups);
    let fold: BTreeMap<usize, usize> = groups
        .iter()
        .enumerate()
        .map(|(at, group)| (*group, at % FOLDS))
        .collect();
    let mut pooled: Vec<Fold> = Vec::new();
    for one in 0..FOLDS {
        let test: Vec<usize> = (0..workload.runs.len())
            .filter(|at| fold.get(&workload.identical[*at]) == Some(&one))
            .collect();
        pooled.push(Fold::new(workload, kind, &test, seed)?);
    }
    let mut whole = Fold {
        truth: Vec::new(),
        likeliest: Vec::new(),
        failed: Vec::new(),
        novel: 0,
        always: 0.0,
        rule: 0.0,
        random: 0.0,
    };
    for fold in pooled {
        whole.truth.extend(fold.truth);
        whole.likeliest.extend(fold.likeliest);
        whole.failed.extend(fold.failed);
    }
    let name = workload.name.as_str();
    let n = whole.truth.len();
    let what = |what: &str| format!("{} {}: {what}", name.to_uppercase(), kind.name());
    let lcs = [f64::NAN; 3];
    let reference = |seq| table(name, kind, [seq, lcs]).filter(|value| value.is_finite());
    Ok(vec![
        share(
            &[name, kind.name(), "grouped", "f1"],
            what("B, equal runs on one side, F1, pooled"),
            Estimate::exact(whole.binary(), n),
        )
        .against(reference([0.981, 0.971, 0.993]), "random forest"),
        share(
            &[name, kind.name(), "grouped", "macro-f1"],
            what("B, equal runs on one side, macro-F1, pooled"),
            Estimate::exact(whole.classes(), n),
        )
        .against(reference([0.945, 0.960, 0.989]), "random forest"),
    ])
}

/// Class, runs found, runs.
fn by_class(folds: &[&Fold]) -> Vec<(String, usize, usize)> {
    let mut sums: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for fold in folds {
        for (truth, said) in fold.truth.iter().zip(&fold.likeliest) {
            let (found, runs) = sums.entry(truth).or_default();
            *found += usize::from(truth == said);
            *runs += 1;
        }
    }
    sums.into_iter()
        .map(|(class, (found, runs))| (class.to_owned(), found, runs))
        .collect()
}

/// `ssh_failure` as `ssh`.
pub(super) fn short(class: &str) -> &str {
    class.strip_suffix("_failure").unwrap_or(class)
}
