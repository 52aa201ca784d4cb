//! Random plans against random nodes: what the gate lets through, judged by a checker that
//! shares no code with it.
//!
//! The checker sees the printed plan and plain data (`homeostat-proof`). A count of plans that
//! pass and break nothing proves little where all are refused for one reason; so how many pass
//! and how often each rule decides, and decides alone, stands beside it. What was let through
//! and breaks a rule is printed.

use std::time::Instant;

use anyhow::Result;
use homeostat_proof::gate;

use super::progress;
use crate::result::{Report, Row};
use crate::stage::interrupt;
use crate::stats::{self, Estimate};

/// Plans between two looks at whether somebody wants it to stop.
const CHUNK: u64 = 20_000;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many plans are judged.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    pub n: u64,
}

/// Runs it.
///
/// # Errors
/// When somebody stops it.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let mut report = Report::new("gate", &format!("{args:?} seed {seed}"));
    let mut tally = gate::Tally::default();
    while tally.judged < args.n {
        interrupt::pause(std::time::Duration::ZERO)?;
        let n = CHUNK.min(args.n - tally.judged);
        tally.join(gate::run(seed.wrapping_add(tally.judged), n));
    }
    for example in &tally.examples {
        progress(example);
    }
    let n = count(tally.judged);
    let share = |part: u64, of: u64| stats::share(count(part), count(of));
    report.rows.push(
        Row::new(
            "gate.violations",
            "plans that passed and break a rule",
            "plans",
            Estimate::exact(tally.violations as f64, n),
        )
        .goal(0.0),
    );
    report.rows.push(
        Row::new(
            "gate.passed",
            "plans that passed, of all that were judged",
            "ratio",
            share(tally.passed, tally.judged),
        )
        .higher()
        .goal(0.1),
    );
    report.rows.push(Row::new(
        "gate.false_refusals",
        "refusals in which the checker finds nothing, of all refusals",
        "ratio",
        share(tally.false_refusals, tally.judged - tally.passed),
    ));
    report.rows.push(
        Row::new(
            "gate.other_rule",
            "refusals by another rule than the first that is broken",
            "plans",
            Estimate::exact(tally.other_rule as f64, n),
        )
        .goal(0.0),
    );
    report.rows.push(
        Row::new(
            "gate.other_cost",
            "plans that passed at another cost than the checker comes to",
            "plans",
            Estimate::exact(tally.other_cost as f64, n),
        )
        .goal(0.0),
    );
    for rule in gate::rules() {
        let of = |counts: &std::collections::BTreeMap<String, u64>| {
            counts.get(&rule).copied().unwrap_or(0) as f64
        };
        let id = rule.replace('-', "_");
        let (decided, alone) = (of(&tally.decided), of(&tally.alone));
        let what = format!("{rule}: plans it refused, {alone:.0} of them for nothing else");
        report.rows.push(
            Row::new(
                &format!("gate.rule.{id}.decided"),
                &what,
                "plans",
                Estimate::exact(decided, n),
            )
            .higher()
            .goal(1.0),
        );
        report.rows.push(
            Row::new(
                &format!("gate.rule.{id}.caught_if_removed"),
                &format!("{rule}: plans that break it alone, and would pass without it"),
                "plans",
                Estimate::exact(alone, n),
            )
            .higher()
            .goal(1.0),
        );
        if let Some(wrong) = tally.refused_for.get(&rule) {
            report.rows.push(Row::new(
                &format!("gate.rule.{id}.false"),
                &format!("{rule}: refusals in which the checker finds nothing"),
                "plans",
                Estimate::exact(*wrong as f64, n),
            ));
        }
    }
    report.finish(begun.elapsed());
    Ok(report)
}

fn count(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
