//! Which component is the root of an alarm, by the protocols of `homeostat-protocols`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use homeostat_protocols::rca::{nezha, petshop};
use homeostat_protocols::rca_sim;
use homeostat_sim::fault::Split;

use super::rca_node;
use crate::result::Report;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which recordings.
    #[arg(long)]
    pub set: Set,
    /// The folder that holds them, one folder for each set; not for `sim` and `node`.
    #[arg(long, value_name = "DIR", required_if_eq_any([("set", "petshop"), ("set", "nezha")]))]
    pub data: Option<PathBuf>,
    /// Of `sim`: the split that is reported on, train or development; what is learned is
    /// learned on the training split.
    #[arg(long, default_value = "development", value_parser = split)]
    pub split: Split,
    /// Of `sim`: learns from the training split alone, and writes what it learned to a file, in
    /// the form in which `homeostat-causes` keeps it.
    #[arg(long, value_name = "FILE")]
    pub teach: Option<PathBuf>,
    /// Of `sim` and `node`: a few rounds, which say that it works and nothing else.
    #[arg(long)]
    pub quick: bool,
}

fn split(name: &str) -> Result<Split, String> {
    match name.parse() {
        Ok(Split::Sealed) => Err("its incidents are not in the repository".to_owned()),
        Ok(split) => Ok(split),
        Err(_) => Err("expected train or development".to_owned()),
    }
}

/// The recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Set {
    /// Metrics of a microservice application on a public cloud.
    Petshop,
    /// Metrics, traces and logs of a booking system of 46 services.
    Nezha,
    /// Incidents of the simulator, with the injector's truth.
    Sim,
    /// What a diagnosis costs in the agent of a node with fifty services.
    Node,
}

/// # Errors
/// When the recordings are missing or cannot be understood.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let (quick, sim) = (
        matches!(args.set, Set::Sim | Set::Node),
        args.set == Set::Sim,
    );
    ensure!(
        sim || args.teach.is_none(),
        "--teach is for --set sim alone"
    );
    ensure!(
        quick || !args.quick,
        "--quick is for --set sim and node alone"
    );
    if let Some(file) = &args.teach {
        Report::writable(file)?;
    }
    let data = args.data.as_deref().unwrap_or_else(|| Path::new(""));
    let mut report = match args.set {
        Set::Petshop => petshop::run(data, seed),
        Set::Nezha => nezha::run(data, seed),
        Set::Node => rca_node::run(if args.quick { 20 } else { 2000 }, seed),
        Set::Sim => {
            let how = rca_sim::Args {
                split: args.split,
                ..if args.quick {
                    rca_sim::Args::quick()
                } else {
                    rca_sim::Args::default()
                }
            };
            if let Some(file) = &args.teach {
                std::fs::write(file, rca_sim::teach(&how)?)
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
            rca_sim::run(&how, |what| eprintln!("{what}"))
        }
    }?;
    report.finish(begun.elapsed());
    Ok(report)
}
