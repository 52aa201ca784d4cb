//! Reads the runs of one workload: counts, labels, folds.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use homeostat_classify::{HEALTHY, Run};

use crate::recording;

/// Repeats of the division into folds that the labels hold.
pub(super) const REPEATS: usize = 5;

/// Folds of one division.
pub(super) const FOLDS: usize = 5;

/// Which counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Counts of events.
    Seq,
    /// Counts of surplus and of missing events against a model of healthy runs.
    Lcs,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Seq => "seq",
            Self::Lcs => "lcs",
        }
    }
}

/// The runs of one workload.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) runs: Vec<Run>,
    pub(super) labels: Vec<String>,
    /// Fold of each run, for each repeat.
    pub(super) folds: Vec<[usize; REPEATS]>,
    /// Runs with equal counts share a number.
    pub(super) identical: Vec<usize>,
}

impl Workload {
    /// Reads `NAME_seq.csv.gz` or `NAME_lcs_vmm.csv.gz`, and `NAME_labels.csv.gz`.
    ///
    /// # Errors
    /// When a file is missing, or the two do not fit together.
    pub(super) fn read(folder: &Path, name: &str, kind: Kind) -> Result<Self> {
        let counts = match kind {
            Kind::Seq => format!("{name}_seq.csv.gz"),
            Kind::Lcs => format!("{name}_lcs_vmm.csv.gz"),
        };
        let (events, rows) = table(&folder.join(&counts))?;
        let mut runs = Vec::with_capacity(rows.len());
        for (line, row) in rows.iter().enumerate() {
            let count = |(event, cell): (&String, &String)| {
                let at = || format!("{counts}, row {line}, {event}: {cell:?} is no count");
                Ok((event.clone(), cell.parse().with_context(at)?))
            };
            runs.push(events.iter().zip(row).map(count).collect::<Result<Run>>()?);
        }
        let file = format!("{name}_labels.csv.gz");
        let (columns, rows) = table(&folder.join(&file))?;
        let column = |name: &str| {
            let found = columns.iter().position(|column| column == name);
            found.with_context(|| format!("{file} has no column {name}"))
        };
        let group = column(&format!("identical_{}_group", kind.name()))?;
        let label = column("label_name")?;
        let mut repeats = [0; REPEATS];
        for (repeat, at) in repeats.iter_mut().enumerate() {
            *at = column(&format!("fold_rep{repeat}"))?;
        }
        ensure!(
            rows.len() == runs.len(),
            "{counts} has {} rows and {file} {}",
            runs.len(),
            rows.len()
        );
        let number = |row: &[String], at: usize| {
            let cell = row.get(at).map_or("", |cell| cell);
            cell.parse::<usize>()
                .with_context(|| format!("{file}: {cell:?} is no number"))
        };
        let mut folds = Vec::with_capacity(rows.len());
        let mut identical = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut own = [0; REPEATS];
            for (fold, at) in own.iter_mut().zip(repeats) {
                *fold = number(row, at)?;
                ensure!(*fold < FOLDS, "{file}: fold {fold} of {FOLDS}");
            }
            folds.push(own);
            identical.push(number(row, group)?);
        }
        let labels = rows
            .into_iter()
            .map(|mut row| row.swap_remove(label))
            .collect();
        Ok(Self {
            name: name.to_lowercase(),
            runs,
            labels,
            folds,
            identical,
        })
    }

    pub(super) fn failed(&self, at: usize) -> bool {
        self.labels[at] != HEALTHY
    }

    /// The places of healthy or of failed runs.
    pub(super) fn places(&self, failed: bool) -> Vec<usize> {
        (0..self.runs.len())
            .filter(|at| self.failed(*at) == failed)
            .collect()
    }

    /// The classes of failures, sorted.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .labels
            .iter()
            .filter(|label| *label != HEALTHY)
            .cloned()
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The runs and labels at some places.
    pub(super) fn some(&self, at: &[usize]) -> (Vec<Run>, Vec<String>) {
        at.iter()
            .map(|at| (self.runs[*at].clone(), self.labels[*at].clone()))
            .unzip()
    }

    /// Only the events that another workload has too.
    #[must_use]
    pub(super) fn shared_with(&self, other: &Self) -> Self {
        let mut own = self.clone();
        if let Some(there) = other.runs.first() {
            own.runs
                .iter_mut()
                .for_each(|run| run.retain(|event, _| there.contains_key(event)));
        }
        own
    }
}

/// Header and rows, all of the same length.
fn table(file: &Path) -> Result<(Vec<String>, Vec<Vec<String>>)> {
    let text = recording::text(file)?;
    let at = || format!("cannot read {}", file.display());
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().with_context(at)?;
    let columns = header.iter().map(str::to_owned).collect();
    let mut rows = Vec::new();
    for row in reader.records() {
        rows.push(row.with_context(at)?.iter().map(str::to_owned).collect());
    }
    Ok((columns, rows))
}
