//! Effects of actions, what would have been, and proposed links, by `homeostat-protocols`; and what
//! the coordinator tells of the two.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use homeostat_protocols::causal::{self, Options};

use super::what_if;
use crate::result::Report;

/// How much to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Random graphs.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub graphs: u32,
    /// Random models of each known graph.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub models: u32,
    /// Recordings of each system that is searched for links.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub recordings: u32,
    /// New plays of each incident.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub plays: u64,
    /// Most incidents; all of the training set that fit if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub incidents: Option<u32>,
    /// A Python with tigramite, the reference of discovery; without it there is none.
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
}

/// # Errors
/// When it could not be measured.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let options = Options {
        graphs: args.graphs as usize,
        models: args.models as usize,
        recordings: args.recordings as usize,
        plays: args.plays,
        incidents: args.incidents.map_or(usize::MAX, |most| most as usize),
        python: args.python.clone(),
    };
    let begun = Instant::now();
    let mut report = causal::run(&options, seed)?;
    what_if::run(options.plays, options.incidents, seed, &mut report)?;
    report.finish(begun.elapsed());
    Ok(report)
}
