//! One protocol without the rest of `homeostat-eval`, which takes minutes to build:
//! `cargo run --release -p homeostat-protocols --example detect -- nab DIR`, or `-- cost`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use homeostat_protocols::{cost, loghub, nab, openstack, skab, smap};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let set = args.next().context("which set?")?;
    let folder = args.next().unwrap_or_default();
    let data = Path::new(&folder);
    let report = match set.as_str() {
        "cost" => cost::run(2001, 1),
        "openstack" => openstack::run(data, 1),
        "nab" => nab::run(data, 1),
        "skab" => skab::run(data, 1),
        "smap" => smap::run(data, 1),
        "loghub" => loghub::run(data, 1),
        other => bail!("no such set: {other}"),
    }?;
    print!("{}", report.table());
    Ok(())
}
