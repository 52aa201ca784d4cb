//! How like the simulator is to real processes.
//!
//! The same topology runs on this machine and in the simulator; the same faults happen in
//! both, and the same plans are ordered. Some faults are for fitting the simulator's few free
//! parameters; on the others the two are compared: in which direction twelve figures
//! change, by how much relative to each other, how soon a fault shows and heals, and
//! which plans work. What happened is told by users, who know nothing of either.

mod compare;
mod faults;
mod fit;
mod injections;
mod kept;
mod real;
mod simulated;
mod trace;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};

use self::compare::Pair;
use self::faults::{Fault, of_folder, shipped};
use self::fit::{Met, Parameters};
use self::trace::Trace;
use super::progress;
use crate::result::{Report, Row};
use crate::stage::{bed, interrupt};
use crate::stats::Estimate;

const TOPOLOGY: &str = include_str!("../../../../../models/sim/topologies/testbed.toml");
/// The name of that topology.
const NAME: &str = "testbed";
/// Runs of the simulator beside each run of the bed; their median counts.
const SEEDS: u64 = 5;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Only these faults; all, if none is given.
    #[arg(long = "fault", value_name = "NAME")]
    pub only: Vec<String>,
    /// Instead of the bed's own faults those of a folder (or `train`, `development`, `shipped`, a
    /// file) that real processes can have; nothing is fitted on them.
    #[arg(long, value_name = "DIR")]
    pub faults: Option<String>,
    /// Where topologies are looked for first.
    #[arg(long, value_name = "DIR", requires = "faults")]
    pub topologies: Option<PathBuf>,
    /// Runs of each fault; its plans take turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub n: u32,
    /// Try only the first so many plans of each fault.
    #[arg(long, default_value_t = 8)]
    pub plans: usize,
    /// Add each run of the bed to this file, as a line of JSON; runs that are there already are
    /// not run again.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Run nothing: take the runs of such a file.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    pub from: Option<PathBuf>,
    /// Do not fit: take the file's parameters as they are.
    #[arg(long)]
    pub unfitted: bool,
}

/// A run of the bed.
struct Run {
    fault: Arc<Fault>,
    plan: usize,
    trace: Trace,
}

/// Runs it.
///
/// # Errors
/// When the bed does not run, or somebody stops it.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let all = match &args.faults {
        Some(from) => of_folder(from, args.topologies.clone())?,
        None => shipped()?,
    };
    let chosen = chosen(&all, &args.only)?;
    let topology = fit::with(TOPOLOGY, &Parameters::NONE)?;
    let settings = format!(
        "{args:?} seed {seed}\n{TOPOLOGY}\n{}\n{}",
        bed::settings(),
        real::settings()
    );
    let mut report = Report::new("testbed", &settings);
    let mut runs = match (&args.from, &args.out) {
        (Some(file), _) => kept::read(file, &chosen, None)?,
        (None, Some(file)) if file.exists() => kept::read(file, &chosen, Some(&topology))?,
        (None, _) => Vec::new(),
    };
    let rounds = if args.from.is_some() { 0 } else { args.n };
    for round in 0..rounds {
        for fault in &chosen {
            interrupt::check()?;
            let plans = fault.plans.len().min(args.plans).max(1);
            let (turn, plan) = (round as usize / plans, round as usize % plans);
            let same = |run: &&Run| run.fault.name == fault.name && run.plan == plan;
            if runs.iter().filter(same).count() > turn {
                continue;
            }
            let place = all.iter().position(|it| it.name == fault.name);
            let own = seed ^ (u64::from(round) << 32) ^ ((place.unwrap_or(0) as u64) << 8);
            let own_topology = fault.topology.as_ref().unwrap_or(&topology);
            let trace = real::run(own_topology, fault, &fault.plans[plan], own)
                .with_context(|| format!("{}, run {}", fault.name, round + 1))?;
            progress(&told(fault, plan, "real", &trace));
            let run = Run {
                fault: Arc::clone(fault),
                plan,
                trace,
            };
            if let Some(file) = &args.out {
                kept::add(file, &run, &topology)?;
            }
            runs.push(run);
        }
    }
    let to_fit: Vec<Met<'_>> = runs
        .iter()
        .filter(|run| run.fault.fit)
        .map(|run| Met {
            fault: &run.fault,
            plan: run.plan,
            trace: &run.trace,
        })
        .collect();
    let parameters = if args.unfitted || to_fit.is_empty() {
        Parameters::NONE
    } else {
        fit::fit(TOPOLOGY, &to_fit)?
    };
    progress(&format!("fitted on {} runs: {parameters}", to_fit.len()));
    let fitted = fit::with(TOPOLOGY, &parameters)?;
    let mut pairs = Vec::new();
    for run in &runs {
        let plan = &run.fault.plans[run.plan];
        let own = run.fault.topology.as_ref().unwrap_or(&fitted);
        let twins: Result<Vec<Trace>> = (1..=SEEDS)
            .map(|seed| simulated::run(own, &run.fault, plan, seed))
            .collect();
        let pair = Pair::new(&run.fault, run.plan, &run.trace, &twins?);
        progress(&pair.told());
        pairs.push(pair);
    }
    for (id, what, value) in [
        (
            "testbed.fit.rate",
            "fitted: factor on rates of work",
            parameters.rate,
        ),
        (
            "testbed.fit.lan",
            "fitted: ms of a call on the way",
            parameters.lan_ms,
        ),
        (
            "testbed.fit.start",
            "fitted: factor on times of starts",
            parameters.start,
        ),
        (
            "testbed.fit.call_s",
            "fitted: core seconds of a call besides the work",
            parameters.call_s,
        ),
        (
            "testbed.fit.deeds",
            "fitted: factor on times of deeds",
            parameters.deeds,
        ),
    ] {
        let row = Row::new(id, what, "", Estimate::exact(value, to_fit.len()));
        report.rows.push(row);
    }
    progress(&compare::differs(&pairs));
    report.rows.extend(compare::rows(&pairs, seed));
    report.finish(begun.elapsed());
    Ok(report)
}

fn chosen(all: &[Arc<Fault>], names: &[String]) -> Result<Vec<Arc<Fault>>> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let find = |name: &String| {
        let found = all.iter().find(|fault| fault.name == *name);
        found.cloned().with_context(|| {
            let known: Vec<&str> = all.iter().map(|fault| fault.name.as_str()).collect();
            format!("there is no fault {name:?}; there are {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// A run in a line.
fn told(fault: &Fault, plan: usize, side: &str, trace: &Trace) -> String {
    let plan = &fault.plans[plan].name;
    let time = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.1} s"));
    format!(
        "  {side:4} {} / {plan}: {} shows {} heals {}{}\n       {}\n       {}",
        fault.name,
        if trace.works { "works," } else { "does not," },
        time(trace.shows_s()),
        time(trace.heals_s()),
        if trace.carried_out { "" } else { " (refused)" },
        trace.before,
        trace.during,
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_fits_the_topology_and_every_plan_reads() {
        let topology = fit::with(TOPOLOGY, &Parameters::NONE).unwrap();
        let all = shipped().unwrap();
        for fault in &all {
            fault.incident.check(&topology).unwrap();
            for plan in &fault.plans {
                let trace = simulated::run(&topology, fault, plan, 1).unwrap();
                assert!(!trace.fares.is_empty(), "{}", fault.name);
            }
        }
        assert!(all.len() >= 16);
        let judged = all.iter().filter(|fault| !fault.fit);
        assert!(judged.count() >= 12);
        let names: BTreeSet<&str> = all.iter().map(|fault| &*fault.name).collect();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn parameters_change_what_they_name() {
        let plain = fit::with(TOPOLOGY, &Parameters::NONE).unwrap();
        let other = Parameters {
            rate: 0.5,
            lan_ms: 4.0,
            start: 2.0,
            ..Parameters::NONE
        };
        let other = fit::with(TOPOLOGY, &other).unwrap();
        for (one, two) in plain.routes().iter().zip(other.routes()) {
            if one.outside_ms.is_none() {
                assert!((two.rate - one.rate / 2.0).abs() < 1e-9, "{}", one.name);
                assert!(
                    (two.start_s - one.start_s * 2.0).abs() < 1e-9,
                    "{}",
                    one.name
                );
            }
        }
    }
}
