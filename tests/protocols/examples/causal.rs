//! Causes beside truth, without the rest of `homeostat-eval`:
//! `cargo run --release -p homeostat-protocols --example causal -- [--python PATH] [--json FILE]
//! [--graphs N] [--models N] [--recordings N]
//! [--plays N] [--incidents N] [--seed N]`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use homeostat_protocols::causal::{self, Options};

fn main() -> Result<()> {
    let mut options = Options::default();
    let (mut seed, mut json) = (1, None);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args
            .next()
            .with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--python" => options.python = Some(PathBuf::from(value)),
            "--json" => json = Some(PathBuf::from(value)),
            "--graphs" => options.graphs = value.parse()?,
            "--models" => options.models = value.parse()?,
            "--recordings" => options.recordings = value.parse()?,
            "--plays" => options.plays = value.parse()?,
            "--incidents" => options.incidents = value.parse()?,
            "--seed" => seed = value.parse()?,
            other => bail!("no such option: {other}"),
        }
    }
    let report = causal::run(&options, seed)?;
    print!("{}", report.table());
    if let Some(file) = json {
        report.write(&file)?;
    }
    Ok(())
}
