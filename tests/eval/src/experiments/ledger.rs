//! Random histories of spending: the discounted cost never passes beta.
//!
//! Plans overlap, end early, outlive a beta that falls; clocks jump, agents restart with what
//! was saved, nodes reboot, policies change (`homeostat-proof`). The bound and the sum are
//! computed beside the budget, from what was spent and which beta was in force.

use std::time::{Duration, Instant};

use anyhow::Result;
use homeostat_proof::ledger;

use super::progress;
use crate::result::{Report, Row};
use crate::stage::interrupt;
use crate::stats::Estimate;

/// Histories between two looks at whether somebody wants it to stop.
const CHUNK: u64 = 1000;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many histories are lived through.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(10..=10_000_000))]
    pub n: u64,
}

/// Runs it.
///
/// # Errors
/// When somebody stops it.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let mut report = Report::new("ledger", &format!("{args:?} seed {seed}"));
    let mut tally = ledger::Tally::default();
    while tally.histories < args.n {
        interrupt::pause(Duration::ZERO)?;
        let n = CHUNK.min(args.n - tally.histories);
        tally.join(&ledger::run(seed.wrapping_add(tally.histories), n));
    }
    for seed in &tally.seeds {
        progress(&format!("broken by the history of seed {seed}"));
    }
    let n = usize::try_from(tally.histories).unwrap_or(usize::MAX);
    let exact = |count: u64| Estimate::exact(count as f64, n);
    report.rows.push(
        Row::new(
            "ledger.broken",
            "histories in which more than beta was spent",
            "histories",
            exact(tally.broken),
        )
        .goal(0.0),
    );
    report.rows.push(
        Row::new(
            "ledger.worst",
            "largest discounted sum from any moment on, as a share of beta",
            "ratio",
            Estimate::exact(tally.worst, n),
        )
        .goal(1.0 + ledger::ROUNDING),
    );
    report.rows.push(Row::new(
        "ledger.mean",
        "the same, mean of the histories",
        "ratio",
        Estimate::exact(tally.mean, n),
    ));
    report.rows.push(
        Row::new(
            "ledger.overruns",
            "plans that the budget counts as costlier than their bound; none was",
            "plans",
            exact(tally.overruns),
        )
        .goal(0.0),
    );
    for (id, what, count) in [
        ("admitted", "plans that got budget", tally.admitted),
        (
            "refused",
            "plans that got none",
            tally.asked - tally.admitted,
        ),
        (
            "outlived",
            "plans that ran on as beta fell below their bound",
            tally.outlived,
        ),
        ("rises", "times that a beta rose", tally.rises),
        ("falls", "times that a beta fell", tally.falls),
        (
            "restarts",
            "restarts of the agent, half of them with a reboot",
            tally.restarts,
        ),
        ("jumps", "jumps of the clock, to and fro", tally.jumps),
    ] {
        let row = Row::new(&format!("ledger.{id}"), what, "times", exact(count));
        report.rows.push(row.higher().goal(1.0));
    }
    report.finish(begun.elapsed());
    Ok(report)
}
