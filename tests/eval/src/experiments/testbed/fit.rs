//! Parameters of the simulator that no file can know, from runs of the bed.
//!
//! Few and physical: how fast work really is, what a call costs on the way, how long a start
//! takes, and how long deeds do. In turn each is set to the value of a short list that
//! leaves the least difference, until none changes; so the same runs give the same values.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use homeostat_sim::topology::Topology;

use super::faults::Fault;
use super::simulated;
use super::trace::Trace;

/// Rounds over all parameters; they settle in two or three.
const ROUNDS: usize = 4;
/// Seeds that a value is tried with.
const SEEDS: u64 = 3;
/// What a time that is off by twice or half counts, in units of a figure's change.
const TIMES: f64 = 1.0;

/// What is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Parameters {
    /// Factor on all rates of work.
    pub(super) rate: f64,
    /// What a call costs on the way within a site, there or back, in milliseconds.
    pub(super) lan_ms: f64,
    /// Factor on the times that services take to come up.
    pub(super) start: f64,
    /// Processor time of a call besides the work, in core seconds of the topology.
    pub(super) call_s: f64,
    /// Factor on the times that deeds of plans take.
    pub(super) deeds: f64,
}

impl Parameters {
    /// As the file has it.
    pub(super) const NONE: Self = Self {
        rate: 1.0,
        lan_ms: 0.3,
        start: 1.0,
        call_s: 0.0,
        deeds: 0.2,
    };

    const RATES: [f64; 8] = [0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05];
    const LANS: [f64; 7] = [0.3, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0];
    const CALLS: [f64; 6] = [0.0, 0.005, 0.01, 0.015, 0.02, 0.03];
    const DEEDS: [f64; 7] = [0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0];
    const STARTS: [f64; 7] = [0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5];

    fn variants(self, which: usize) -> Vec<Self> {
        match which {
            0 => Self::RATES.map(|rate| Self { rate, ..self }).to_vec(),
            1 => Self::LANS.map(|lan_ms| Self { lan_ms, ..self }).to_vec(),
            2 => Self::STARTS.map(|start| Self { start, ..self }).to_vec(),
            3 => Self::CALLS.map(|call_s| Self { call_s, ..self }).to_vec(),
            _ => Self::DEEDS.map(|deeds| Self { deeds, ..self }).to_vec(),
        }
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rate,
            lan_ms,
            start,
            call_s,
            deeds,
        } = self;
        write!(
            f,
            "rates x {rate}, {lan_ms} ms a call, starts x {start}, {call_s} core s a call, deeds x {deeds}"
        )
    }
}

/// The topology of a text with other parameters.
///
/// # Errors
/// When the text is not one, or is not one any more.
pub(super) fn with(text: &str, parameters: &Parameters) -> Result<Arc<Topology>> {
    let mut table: toml::Table = text.parse().context("a topology is TOML")?;
    for (of, key) in [
        ("route", "rate"),
        ("route", "cores"),
        ("route", "start_s"),
        ("site", "lan_ms"),
    ] {
        let all = table.get_mut(of).and_then(toml::Value::as_array_mut);
        for one in all.into_iter().flatten() {
            let number = |key: &str| {
                let value = one.get(key)?;
                let whole = value.as_integer().map(|whole| whole as f64);
                value.as_float().or(whole)
            };
            let changed = match (key, number(key)) {
                (_, None) => continue,
                ("rate", Some(rate)) => rate * parameters.rate,
                // Busy with its work it handles as many calls.
                ("cores", Some(cores)) => cores + parameters.call_s * number("rate").unwrap_or(0.0),
                ("start_s", Some(start_s)) => start_s * parameters.start,
                (_, Some(_)) => parameters.lan_ms,
            };
            if let Some(one) = one.as_table_mut() {
                one.insert(key.to_owned(), toml::Value::Float(changed));
            }
        }
    }
    let habits = table.get_mut("habits").and_then(toml::Value::as_table_mut);
    let habits = habits.context("the bed's topology has habits")?;
    habits.insert("deeds".to_owned(), toml::Value::Float(parameters.deeds));
    let text = toml::to_string(&table).context("a topology can be written")?;
    Ok(Arc::new(Topology::read("testbed.toml", &text)?))
}

/// Runs of the bed to be met: a fault, its plan, and what happened.
pub(super) struct Met<'m> {
    pub(super) fault: &'m Fault,
    /// Place of the plan among the fault's.
    pub(super) plan: usize,
    pub(super) trace: &'m Trace,
}

/// The values that leave the least difference to these runs.
///
/// # Errors
/// When the simulator cannot run them.
pub(super) fn fit(text: &str, runs: &[Met<'_>]) -> Result<Parameters> {
    let mut best = Parameters::NONE;
    let mut least = off(text, &best, runs)?;
    for _ in 0..ROUNDS {
        let before = best;
        for which in 0..5 {
            for tried in best.variants(which) {
                let is_off = off(text, &tried, runs)?;
                if is_off < least {
                    (best, least) = (tried, is_off);
                }
            }
        }
        if best == before {
            break;
        }
    }
    Ok(best)
}

/// How far the simulator is off: differences of the figures in units of a change, those before
/// and during the fault, each bounded, of the times that plans take in seconds, and of
/// the times to heal in powers of two; a plan that works on one side only is as far off as a
/// time can be.
fn off(text: &str, parameters: &Parameters, runs: &[Met<'_>]) -> Result<f64> {
    /// One figure that is far off must not outweigh the rest.
    const FAR: f64 = 5.0;
    let topology = with(text, parameters)?;
    let mut sum = 0.0;
    for run in runs {
        for seed in 1..=SEEDS {
            let ours = simulated::run(&topology, run.fault, &run.fault.plans[run.plan], seed)?;
            for (ours, theirs) in [
                (&ours.before, &run.trace.before),
                (&ours.during, &run.trace.during),
            ] {
                let differ = ours.since(theirs);
                sum += differ.iter().map(|it| it.abs().min(FAR)).sum::<f64>();
            }
            let took = |trace: &Trace| trace.took_s(run.fault.after_s);
            sum += TIMES * (took(&ours) - took(run.trace)).abs().min(FAR);
            sum += TIMES
                * match (ours.heals_s(), run.trace.heals_s()) {
                    (Some(ours), Some(theirs)) => {
                        (ours.max(1.0) / theirs.max(1.0)).log2().abs().min(FAR)
                    }
                    // Never is as far as can be.
                    _ if ours.works != run.trace.works => FAR,
                    _ => 0.0,
                };
        }
    }
    Ok(sum)
}
