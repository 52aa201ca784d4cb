//! Diagnosis on the simulator without the rest of `homeostat-eval`, which takes minutes to
//! build: `cargo run --release -p homeostat-protocols --example rca_sim -- development [FILE]`.
//! A third argument `quick` proves that it works, at counts that say nothing; with `teach`
//! instead, FILE becomes the weights that `homeostat-causes` ships.

use std::path::Path;

use anyhow::{Context as _, Result};
use homeostat_protocols::rca_sim::{Args, run, teach};

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
    match args.next().as_deref() {
        Some("quick") => {
            how = Args {
                split,
                ..Args::quick()
            };
        }
        Some("teach") => {
            let file = file.context("which file?")?;
            return Ok(std::fs::write(file, teach(&how)?)?);
        }
        _ => {}
    }
    let report = run(&how, |what| eprintln!("{what}"))?;
    print!("{}", report.table());
    if let Some(file) = file {
        report.write(Path::new(&file))?;
    }
    Ok(())
}
