//! Which component is the root of an alarm, by the protocols of `homeostat-protocols`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;
use homeostat_protocols::rca::{nezha, petshop};

use crate::result::Report;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which recordings.
    #[arg(long)]
    pub set: Set,
    /// The folder that holds them, one folder for each set.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

/// The recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Set {
    /// Metrics of a microservice application on a public cloud.
    Petshop,
    /// Metrics, traces and logs of a booking system of 46 services.
    Nezha,
}

/// # Errors
/// When the recordings are missing or cannot be understood.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let mut report = match args.set {
        Set::Petshop => petshop::run(&args.data, seed),
        Set::Nezha => nezha::run(&args.data, seed),
    }?;
    report.finish(begun.elapsed());
    Ok(report)
}
