//! Event counts of fault-injection runs (Cotroneo et al., J. Systems and Software 181, 2021).
//!
//! In: a folder with three workloads, `DEPL`, `NET` and `STO`. Out: one report by these
//! protocols:
//!
//! - *A*: five repeats of five folds, as the labels divide them; fit on four, predict the fifth.
//! - *B*: five folds of groups: runs with equal counts are never on both sides.
//! - *C*: one class of failures is left out of training and sought, at a threshold that 5 % of
//!   the healthy runs of the test fold exceed. *C2*: training sees two classes only (`DEPL`).
//! - *D*: training sees healthy runs only.
//! - *E*: train on one workload, test on another; shared events only; of the other one only
//!   healthy runs are known, and each of those is judged by the others.
//!
//! *A* and *C* also on the second kind of counts, surplus and missing events.
//!
//! Every model is made with the same settings and answers by the same thresholds.
//!
//! What was chosen in sight of what: features, kind of trees, distances and how they are
//! joined were chosen on the runs outside of fold 0 of the first repeat, by folds within
//! them; `DEPL` and `NET` decided. For transfer all six pairs were looked at. After the
//! first whole run one thing was changed, because a test with few healthy runs showed it:
//! tails are of shares of healthy runs now, no longer of their number.
//!
//! Where it falls short: `ssh_failure` of `DEPL` differs from health in how often ports were
//! asked for, if in anything; one row in three lies within what healthy runs do. Of `NET` a
//! class has 11 runs, so a fold has two. From `NET` to `DEPL` the shared events do not show
//! volumes and little of cleanup; the rows named ceiling say what can be seen. The bound on
//! what is unusual costs a false alarm in twenty healthy runs, most where trees alone
//! would do (`DEPL` to `STO`).

mod data;
mod score;
mod supervised;
mod transfer;
mod unseen;

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::result::{Report, Row};
use crate::stats::{self, Estimate};
use data::{Kind, Workload};

/// The workloads.
const WORKLOADS: [&str; 3] = ["DEPL", "NET", "STO"];

/// Runs the protocols on the recordings in `data/openstack_failures`.
///
/// # Errors
/// When a file is missing or cannot be understood.
pub fn run(data: &Path, seed: u64) -> Result<Report> {
    let start = Instant::now();
    let folder = data.join("openstack_failures");
    let mut report = Report::new("detect.openstack", &homeostat_classify::settings());
    let read = |kind| -> Result<Vec<Workload>> {
        let all = WORKLOADS.iter();
        all.map(|name| Workload::read(&folder, name, kind))
            .collect()
    };
    for kind in [Kind::Seq, Kind::Lcs] {
        let all = read(kind)?;
        for workload in &all {
            let rows = &mut report.rows;
            rows.extend(supervised::folds(workload, kind, seed)?);
            rows.extend(unseen::one_left_out(workload, kind, seed)?);
            if kind == Kind::Seq {
                rows.extend(supervised::grouped(workload, kind, seed)?);
                rows.extend(unseen::healthy_only(workload, kind, seed)?);
                if workload.name == "depl" {
                    rows.push(unseen::two_known(workload, kind, seed)?);
                }
            }
            // Minutes on a small machine: whoever waits sees that it goes on.
            let took = start.elapsed().as_secs();
            eprintln!("{} {}: {took} s", workload.name, kind.name());
        }
        if kind == Kind::Seq {
            report.rows.extend(transfer::pairs(&all, seed)?);
        }
    }
    report.finish(start.elapsed());
    Ok(report)
}

/// A row with a share that is better when higher.
fn share(id: &[&str], what: impl Into<String>, ours: Estimate) -> Row {
    let id = format!("openstack.{}", id.join("."));
    Row::new(&id, &what.into(), "ratio", ours).higher()
}

/// The mean over groups of samples.
fn mean(groups: &[Vec<f64>], seed: u64) -> Estimate {
    let mean = |all: &[&f64]| all.iter().copied().sum::<f64>() / all.len() as f64;
    stats::clustered(groups, mean, seed).unwrap_or(Estimate::exact(f64::NAN, 0))
}

/// What is known of a metric from elsewhere: by workload and kind of counts.
fn table(workload: &str, kind: Kind, values: [[f64; 3]; 2]) -> Option<f64> {
    let at = WORKLOADS
        .iter()
        .position(|name| name.eq_ignore_ascii_case(workload))?;
    let [seq, lcs] = values;
    Some(match kind {
        Kind::Seq => seq[at],
        Kind::Lcs => lcs[at],
    })
}

#[cfg(test)]
mod tests;
