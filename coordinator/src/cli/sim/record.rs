//! `sim record` and `sim replay`: episodes as files, and the proof that they are what was
//! run.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use homeostat_records::dataset::{Recorded, Recording};
use homeostat_records::record::{self, FORKS_MAX, Forks, RunError, Setup};
use homeostat_records::replay::{ReplayError, replay as run_again};
use homeostat_records::table;
use homeostat_sim::episode::Rules;
use homeostat_sim::fault::{self, Split};
use homeostat_sim::policy::Baseline;

use super::{Failure, cases_of};

/// Most seeds of one recording; they must stay within those of a set.
const SEEDS_MAX: u64 = 1_000_000;

/// The form of the files.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// Columns, compressed.
    Parquet,
    /// One JSON object per line.
    Jsonl,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Record {
    /// Incidents by name; all of them if none is named.
    #[arg(value_name = "INCIDENT")]
    names: Vec<String>,
    /// The folder for the recording; it must be empty or not there yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What it is for: train, development or sealed. Nothing of development, and no
    /// combination of faults that only development has, is recorded for training; each has
    /// seeds of its own.
    #[arg(long, default_value = "train")]
    split: Split,
    /// Where incidents are: train, development, shipped (both), a file or a folder; that of
    /// the split if not given.
    #[arg(long, value_name = "SET|FILE|DIR")]
    faults: Option<String>,
    /// The topology for all of them, a name or a file; else each says its own.
    #[arg(long, value_name = "NAME|FILE")]
    topology: Option<String>,
    /// Where topologies are looked for first.
    #[arg(long, value_name = "DIR")]
    topologies: Option<PathBuf>,
    /// Who heals, one episode each.
    #[arg(long, value_delimiter = ',', default_value = "expert,random")]
    policy: Vec<Baseline>,
    /// Seeds of each incident.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=SEEDS_MAX))]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=SEEDS_MAX))]
    seed: u64,
    /// What healing may spend, in shares of a route times seconds.
    #[arg(long)]
    budget: Option<f64>,
    /// Moments of each episode at which plans are left to chance.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(FORKS_MAX)))]
    forks: u32,
    /// Plans at each of these moments.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(FORKS_MAX)))]
    plans: u32,
    /// What a plan comes to is looked at after so many seconds.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u32).range(30..=3600))]
    horizon: u32,
    /// The form of the files.
    #[arg(long, value_enum, default_value = "parquet")]
    format: Format,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Replay {
    /// A recording: its folder, or one of its files.
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

pub(super) fn record(args: &Record) -> Result<String, Failure> {
    let split = args.split;
    if args.forks.saturating_mul(args.plans) > FORKS_MAX {
        return Err(Failure::Usage(format!(
            "--forks {} of --plans {} are more than {FORKS_MAX} of one episode",
            args.forks, args.plans
        )));
    }
    let rules = Rules {
        budget: super::budget(args.budget)?,
        ..Rules::default()
    };
    let faults = match (&args.faults, split) {
        (Some(faults), _) => faults.as_str(),
        (None, Split::Train | Split::Development) => split.name(),
        (None, Split::Sealed) => {
            return Err(Failure::Usage("--split sealed wants --faults".to_owned()));
        }
    };
    let topology = args.topology.as_deref();
    let cases = cases_of(faults, &args.names, args.topologies.as_ref(), topology)?;
    // All are asked before any is run.
    for (incident, _) in &cases {
        if split == Split::Train {
            fault::may_learn(incident).map_err(failed)?;
        }
    }
    let format = match args.format {
        Format::Parquet => table::Format::Parquet,
        Format::Jsonl => table::Format::Jsonl,
    };
    let mut out = Recording::create(&args.out, format, split.name()).map_err(failed)?;
    let mut next = 0;
    for (at, (incident, topology)) in cases.iter().enumerate() {
        eprintln!("{} of {}: {}", at + 1, cases.len(), incident.name);
        for number in args.seed..args.seed + args.seeds {
            let setup = Setup {
                topology: topology.clone(),
                incident: incident.clone(),
                split,
                seed: split.seed(number),
                rules,
                forks: Forks {
                    moments: args.forks,
                    plans: args.plans,
                    horizon_s: f64::from(args.horizon),
                },
            };
            for policy in &args.policy {
                let healer = policy.healer(setup.seed);
                next = record::record(&setup, healer, next, &mut out).map_err(
                    |error| match error {
                        RunError::Text(error) => failed(error),
                        RunError::Sink(error) => failed(error),
                    },
                )?;
            }
        }
    }
    let manifest = out.finish().map_err(failed)?;
    let mut text = format!("{next} episodes for {split} in {}\n", args.out.display());
    for table in manifest.tables {
        text += &format!(
            "{}: {} rows, {} bytes\n",
            table.file, table.rows, table.bytes
        );
    }
    Ok(text)
}

pub(super) fn replay(args: &Replay) -> Result<String, Failure> {
    let recorded = Recorded::open(&args.path).map_err(failed)?;
    let done = run_again(&recorded, |_| {}).map_err(|error| match error {
        ReplayError::Differs(differs) => Failure::Failed(format!("not the same: {differs}")),
        error => failed(error),
    })?;
    Ok(format!(
        "{} episodes, {} of them forks: {} ticks and {} looks, bit for bit the same\n",
        done.episodes, done.forks, done.ticks, done.looks
    ))
}
