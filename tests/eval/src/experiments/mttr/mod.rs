//! Time to recover, from the fault to the first right answer as an outside prober sees it;
//! Homeostat beside a plain supervisor in the same run.
//!
//! Trials of both alternate, so that a busy minute of the machine hits them alike. What did not
//! heal within the cap counts with the cap; a side that never heals is not asked more than
//! three times. Nothing that Homeostat says about itself is counted.
//!
//! Faults that heal in milliseconds are measured alone. Faults that take
//! seconds run side by side, each on a node of its own; one that burns a core comes last, alone.

mod clients;
mod frozen;
mod noticed;
mod plain;
mod rows;
mod slow;
mod stand;
mod state;

pub(super) use self::stand::Run;
pub(super) use self::state::{part, port, route_keys, settings};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use clap::ValueEnum;

use super::progress;
use crate::result::{Report, Row, short};

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    Kill,
    Block,
    Sigstop,
    Leak,
    LeakLoad,
    Oom,
    Descriptors,
    DescriptorsLoad,
    CorruptModel,
    BadModel,
    BadConfig,
    Hog,
    DataFull,
    SlowReplica,
    Frozen,
    TwoAtOnce,
    ForwarderKill,
}

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Which fault; may be given several times. All if not given.
    #[arg(long, value_enum)]
    pub fault: Vec<Fault>,
    /// Trials of each fault; if not given 200 kills, 10 leaks and slow replicas, 50 of the
    /// rest.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub n: Option<u32>,
    /// Threads that spin all the time beside it, at the priority of this command.
    #[arg(long, value_name = "THREADS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub load: u32,
}

/// Threads that keep processors busy as long as this lives.
struct Spinning(Arc<AtomicBool>);

impl Spinning {
    fn start(threads: u32) -> Self {
        let go_on = Arc::new(AtomicBool::new(true));
        for _ in 0..threads {
            let go_on = Arc::clone(&go_on);
            thread::spawn(move || {
                while go_on.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(go_on)
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// What runs one after the other: in each, lanes that run side by side, and in each of those
/// faults one after the other. Sorted by what disturbs what, and so that lanes end together.
const STAGES: &[&[&[Fault]]] = &[
    &[&[Fault::Kill, Fault::Block, Fault::Sigstop, Fault::Oom]],
    &[
        &[Fault::SlowReplica],
        &[Fault::Leak, Fault::Descriptors, Fault::Frozen],
        &[Fault::CorruptModel, Fault::BadModel, Fault::DataFull],
        &[Fault::BadConfig, Fault::TwoAtOnce, Fault::ForwarderKill],
    ],
    // The load of clients is not to be slowed down by others.
    &[&[Fault::LeakLoad, Fault::DescriptorsLoad]],
    &[&[Fault::Hog]],
];

impl Fault {
    fn trials(self, asked: Option<u32>) -> u32 {
        asked.unwrap_or(match self {
            Self::Kill => 200,
            Self::Leak
            | Self::LeakLoad
            | Self::Descriptors
            | Self::DescriptorsLoad
            | Self::SlowReplica => 10,
            _ => 50,
        })
    }

    fn measure(self, n: u32, seed: u64) -> Result<Vec<Row>> {
        use {clients::Clients, plain::Plain, state::State};
        match self {
            Self::Kill => plain::measure(Plain::Kill, n, seed),
            Self::Block => plain::measure(Plain::Block, n, seed),
            Self::Sigstop => plain::measure(Plain::Sigstop, n, seed),
            Self::Leak => plain::measure(Plain::Leak, n, seed),
            Self::Oom => plain::measure(Plain::Oom, n, seed),
            Self::Descriptors => plain::measure(Plain::Descriptors, n, seed),
            Self::LeakLoad => clients::measure(Clients::Leak, n, seed),
            Self::DescriptorsLoad => clients::measure(Clients::Descriptors, n, seed),
            Self::CorruptModel => stand::measure(State::CorruptModel, n, seed),
            Self::BadModel => stand::measure(State::BadModel, n, seed),
            Self::BadConfig => stand::measure(State::BadConfig, n, seed),
            Self::Hog => stand::measure(State::Hog, n, seed),
            Self::DataFull => stand::measure(State::DataFull, n, seed),
            Self::TwoAtOnce => stand::measure(State::TwoAtOnce, n, seed),
            Self::ForwarderKill => stand::measure(State::ForwarderKill, n, seed),
            Self::SlowReplica => slow::measure(n, seed),
            Self::Frozen => frozen::measure(n, seed),
        }
    }
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let text = format!(
        "# kill, block, stop, leak of {} bytes/s, of {} descriptors/s up to {}\n{}\n\n# the \
         others\n{}\n# {args:?}",
        plain::LEAK_RATE,
        plain::OPEN_RATE,
        plain::OPEN_MAX,
        plain::settings().text(),
        state::text()
    );
    let mut report = Report::new("mttr", &text);
    progress(&format!("settings {}:\n{text}\n", report.settings_sha256));
    let _spinning = Spinning::start(args.load);
    let asked = |fault: &Fault| args.fault.is_empty() || args.fault.contains(fault);
    for lanes in STAGES {
        let lanes: Vec<Vec<Fault>> = lanes
            .iter()
            .map(|lane| lane.iter().copied().filter(asked).collect())
            .collect();
        // A thread owns the processes that it starts: they end with it.
        let results = thread::scope(|scope| {
            let running: Vec<_> = lanes
                .iter()
                .filter(|lane| !lane.is_empty())
                .map(|lane| scope.spawn(move || run_lane(lane, args.n, seed)))
                .collect();
            let ended = running.into_iter().map(thread::ScopedJoinHandle::join);
            ended.collect::<Vec<_>>()
        });
        for rows in results {
            let rows = rows.map_err(|_| anyhow!("a measurement panicked"))?;
            report.rows.extend(rows?);
        }
    }
    report.finish(begun.elapsed());
    Ok(report)
}

fn run_lane(faults: &[Fault], n: Option<u32>, seed: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for fault in faults {
        let found = fault.measure(fault.trials(n), seed)?;
        // A long run tells what it has, before something later goes wrong.
        for row in &found {
            progress(&format!("  {}: {} {}", row.what, short(row.ours), row.unit));
        }
        rows.extend(found);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_place_once() {
        let placed: Vec<Fault> = STAGES.concat().concat();
        for fault in Fault::value_variants() {
            assert_eq!(
                placed.iter().filter(|placed| *placed == fault).count(),
                1,
                "{fault:?}"
            );
        }
    }
}
