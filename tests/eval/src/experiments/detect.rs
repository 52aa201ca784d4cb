//! Detectors on public recordings, by the protocols of `homeostat-protocols`.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use homeostat_protocols::{loghub, nab, openstack, skab, smap};

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
    /// Event counts of fault-injection runs: failure or not, which class, unseen classes.
    Openstack,
    /// Univariate series with labelled windows, strictly streaming.
    Nab,
    /// A water-circulation test bed with eight sensors.
    Skab,
    /// Telemetry of a satellite.
    Smap,
    /// Log lines with their true templates.
    Loghub,
}

/// # Errors
/// When the recordings are missing or cannot be understood.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    match args.set {
        Set::Openstack => openstack::run(&args.data, seed),
        Set::Nab => nab::run(&args.data, seed),
        Set::Skab => skab::run(&args.data, seed),
        Set::Smap => smap::run(&args.data, seed),
        Set::Loghub => loghub::run(&args.data, seed),
    }
}
