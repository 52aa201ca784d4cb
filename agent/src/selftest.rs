//! `homeostat-agent selftest`: each part of the program does its work once, on
//! the machine that it was built for.
//!
//! A cross-compiled binary can start and still be wrong: floating point,
//! alignment, system calls, a store that a 32-bit address space cannot map.
//! This finds that out before a fleet does. Touches nothing but a temporary
//! folder.

use std::path::Path;

use anyhow::{Context as _, ensure};
use homeostat_common::budget::{Budget, Policy, Shares};
use homeostat_common::gate::{self, Facts, Mode, Purpose};
use homeostat_common::hlc::Hlc;
use homeostat_common::ids::{BootId, NodeId, SiteId, StreamId};
use homeostat_common::plan::Plan;
use homeostat_common::units::{Micros, Ratio};
use homeostat_common::wire::Envelope;
use homeostat_common::wire::body::{Body, Note};
use homeostat_detect::slope::{self, Slope, Verdict};

use crate::io::store::kv::{Kv, KvLimits, Tree};
use crate::io::store::outbox::{self, Class, EventSeq, Item, Outbox};
use crate::io::{clock, procfs};

/// Runs all parts and prints a line for each.
///
/// # Errors
/// The first part that does not work, and why.
pub fn run() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("homeostat-selftest-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let result = parts(&folder);
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn parts(folder: &Path) -> anyhow::Result<()> {
    part("clock and kernel", system(folder))?;
    part("detectors", detectors())?;
    part("plans, rules and budget", rules())?;
    part("journal and outbox", journal(folder))?;
    part("history", history(folder))?;
    println!("selftest ok");
    Ok(())
}

fn part(name: &str, result: anyhow::Result<String>) -> anyhow::Result<()> {
    let found = result.with_context(|| name.to_owned())?;
    println!("{name}: {found}");
    Ok(())
}

fn system(folder: &Path) -> anyhow::Result<String> {
    let proc = Path::new("/proc");
    let first = clock::now();
    ensure!(clock::now() >= first, "the monotonic clock goes backwards");
    let boot = clock::boot_id(proc)?;
    // Pressure is the difference of two looks.
    let mut host = procfs::Host::new(&procfs::Places {
        proc,
        sys: Path::new("/sys"),
        data_dir: folder,
        file_systems: &[],
    });
    host.sample(clock::now());
    std::thread::sleep(core::time::Duration::from_millis(20));
    let host = host.sample(clock::now());
    ensure!(
        host.memory_available.fresh().is_some(),
        "/proc/meminfo cannot be read"
    );
    let pressure = match host.cpu_pressure.fresh() {
        Some(_) => "with pressure readings",
        None => "without pressure readings (the kernel has none yet)",
    };
    Ok(format!("boot {boot}, {pressure}"))
}

fn detectors() -> anyhow::Result<String> {
    let mut slope = Slope::new(slope::Policy::default());
    let mut called = None;
    for tick in 0..60u16 {
        let at = core::time::Duration::from_millis(u64::from(tick) * 250);
        let leaked = f32::from(tick.saturating_sub(20)) * 7.5e6;
        if let Verdict::Leak { rate, .. } = slope.push(at, 5e7 + leaked) {
            called = called.or(Some((tick, rate)));
        }
    }
    let (tick, rate) = called.context("a leak of 30 MB/s was not called")?;
    ensure!(tick > 20, "a leak was called before it began");
    ensure!(
        (15e6..45e6).contains(&rate),
        "a leak of 30 MB/s was measured as {rate}"
    );
    Ok(format!(
        "a leak of 30 MB/s is called after {} ms",
        (tick - 20) * 250
    ))
}

fn rules() -> anyhow::Result<String> {
    let plan: Plan = "restart(web, grace=2s)".parse()?;
    ensure!(plan.to_string() == "restart(web, grace=2s)");
    let facts = Facts {
        mode: Mode::Act,
        stopped: None,
        maintenance: None,
        approved: None,
        routes: Default::default(),
        forwarder: false,
        now: Micros(0),
        services: Default::default(),
        uplinks: Default::default(),
        webhooks: Default::default(),
        spawner: true,
    };
    let mut budget = Budget::new(Policy::default(), Shares::default(), Micros(0));
    match gate::verify(plan, Purpose::Heal(Ratio::ONE), &facts, &mut budget) {
        Ok(_) => anyhow::bail!("a plan for an unknown service passed the gate"),
        Err(rejection) => Ok(format!("refused as it should be: {}", rejection.reason)),
    }
}

fn journal(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("journal");
    let record = Envelope {
        site: SiteId::new("selftest")?,
        node: NodeId::new("selftest")?,
        stream: StreamId([1; 16]),
        seq: 1,
        boot: BootId([2; 16]),
        hlc: Hlc::new(1, 1),
        causes: Vec::new(),
        body: Body::Note(Note {
            service: None,
            text: "selftest".into(),
        }),
    };
    let bytes = record.encode()?;
    let (mut outbox, _) = Outbox::open(&path, outbox::Config::default())?;
    for _ in 0..100 {
        outbox.push(Class::Heal, &bytes)?;
    }
    outbox.sync()?;
    drop(outbox);
    let (mut outbox, _) = Outbox::open(&path, outbox::Config::default())?;
    let items = outbox.next_unacked(EventSeq(0), 1 << 20)?;
    let whole = items
        .iter()
        .filter(|item| match item {
            Item::Event { record: found, .. } => Envelope::decode(found).as_ref() == Ok(&record),
            Item::Gap(_) => false,
        })
        .count();
    ensure!(whole == 100, "of 100 events {whole} were read back");
    Ok("100 events written, synced and read back".into())
}

fn history(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("kv");
    for round in 0..2 {
        let (mut kv, findings) = Kv::open(&path, KvLimits::default(), |_| Ok(true))?;
        ensure!(findings.is_empty(), "a fresh store was found damaged");
        if round == 0 {
            kv.put(Tree::History, b"key", b"value")?;
            kv.flush()?;
        } else {
            ensure!(
                kv.get(Tree::History, b"key")?.as_deref() == Some(b"value"),
                "a value was not read back"
            );
        }
    }
    Ok("written, reopened and read back".into())
}
