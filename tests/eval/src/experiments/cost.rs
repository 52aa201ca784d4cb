//! Nanoseconds and bytes of every detector, by `homeostat-protocols`.

use anyhow::Result;
use homeostat_protocols::cost;

use crate::result::Report;

/// How much to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Batches of 500 samples for each detector.
    #[arg(long, default_value_t = 2001, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batches: u32,
}

/// # Errors
/// When it could not be measured.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    cost::run(args.batches, seed)
}
