//! Diagnosis on the simulator without the rest of `homeostat-eval`, which takes minutes to
//! build: `cargo run --release -p homeostat-protocols --example rca_sim -- development [FILE]`.
//! A third argument `quick` proves that it works, at counts that say nothing.

use std::path::Path;

use anyhow::{Context as _, Result};
use homeostat_protocols::rca_sim::{Args, run};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let split = args
        .next()
        .context("which split: train or development?")?
        .parse()?;
    let file = args.next();
    let mut how = Args {
        split,
        ..Args::default()
    };
    if args.next().as_deref() == Some("quick") {
        how = Args {
            split,
            ..Args::quick()
        };
    }
    let report = run(&how, |what| eprintln!("{what}"))?;
    print!("{}", report.table());
    if let Some(file) = file {
        report.write(Path::new(&file))?;
    }
    Ok(())
}
