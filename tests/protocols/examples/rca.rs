//! The diagnosis without the rest of `homeostat-eval`, which takes minutes to build:
//! `cargo run --release -p homeostat-protocols --example rca -- --set petshop --data DIR`.
//! With `--explain`, the training cases in words instead of the scores.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use homeostat_protocols::rca::{nezha, petshop};

fn main() -> Result<()> {
    let (mut set, mut data, mut explain) = (None, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--set" => set = args.next(),
            "--data" => data = args.next().map(PathBuf::from),
            "--explain" => explain = true,
            other => bail!("no such option: {other}"),
        }
    }
    let data = data.context("--data DIR is missing")?;
    match (set.context("--set is missing")?.as_str(), explain) {
        ("petshop", false) => print!("{}", petshop::run(&data, 1)?.table()),
        ("petshop", true) => print!("{}", petshop::explain(&data)?),
        ("nezha", false) => print!("{}", nezha::run(&data, 1)?.table()),
        ("nezha", true) => print!("{}", nezha::explain(&data)?),
        (other, _) => bail!("no such set: {other}"),
    }
    Ok(())
}
