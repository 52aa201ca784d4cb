//! What the agent costs while nothing is wrong: memory, processor time and disk writes of its
//! two processes, with three healthy services and a coordinator.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{life, progress};
use crate::result::{Report, Row};
use crate::stage::{BrokerKind, Cloud, Node, Settings, interrupt};
use crate::stats::Estimate;

/// Before the first reading: connected, learned, and told.
const SETTLE: Duration = Duration::from_secs(5);
/// What `/proc/PID/stat` counts in, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const MIB: f64 = 1024.0 * 1024.0;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How long to watch.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// The agent's binary; if not given, the agent built into this program, whose memory holds
    /// far more code.
    #[arg(long, value_name = "PATH")]
    pub agent: Option<PathBuf>,
    /// Probe every 100 ms as in the other experiments, not every second as by default.
    #[arg(long)]
    pub fast: bool,
}

fn settings(fast: bool) -> Settings {
    let eager = super::eager(&["web", "worker", "infer"]);
    if fast {
        return eager;
    }
    Settings {
        sections: "\n[limits]\nmode = \"act\"".to_owned(),
        service: String::new(),
        probe: String::new(),
        ..eager
    }
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args) -> Result<Report> {
    let begun = Instant::now();
    let settings = settings(args.fast);
    let text = format!(
        "{}\n# {} s, fast {}",
        settings.text(),
        args.seconds,
        args.fast
    );
    let mut report = Report::new("footprint", &text);
    progress(&format!("settings {}:\n{text}\n", report.settings_sha256));
    let dir = tempfile::Builder::new().prefix("hs-foot").tempdir()?;
    let cloud = Cloud::start(dir.path(), BrokerKind::Embedded)?;
    let program = match &args.agent {
        Some(path) => Some(
            path.canonicalize()
                .with_context(|| format!("cannot find {}", path.display()))?,
        ),
        None => None,
    };
    let mut node = Node::start(dir.path(), &settings, Some(&cloud.broker_url()), program)?;
    for name in node.names() {
        life(&node, name)?;
    }
    interrupt::pause(SETTLE)?;
    let pids = node.pids();
    let before = pids.map(|pid| pid.map(Usage::of));
    let span = Duration::from_secs(args.seconds.into());
    let start = Instant::now();
    interrupt::pause(span)?;
    let took = start.elapsed().as_secs_f64();
    node.check()?;
    let names = [("agent", "loop"), ("spawner", "spawner")];
    for (((id, name), pid), before) in names.into_iter().zip(pids).zip(before) {
        let (Some(pid), Some(before)) = (pid, before) else {
            continue;
        };
        let (before, after) = (before?, Usage::of(pid)?);
        let mut add = |key: &str, what: &str, unit, value, reference: Option<(f64, &str)>| {
            let id = format!("footprint.{id}.{key}");
            let mut row = Row::new(
                &id,
                &format!("{name}: {what}"),
                unit,
                Estimate::exact(value, 1),
            );
            if let Some((value, name)) = reference {
                row = row.against(Some(value), name);
            }
            report.rows.push(row);
        };
        let monit = "monit 5.33, 1 s cycle";
        let ours = id == "agent";
        let beside = |value| ours.then_some((value, monit));
        add(
            "rss_mib",
            "resident",
            "MiB",
            after.rss / MIB,
            beside(8.0 * 1e6 / MIB),
        );
        add(
            "pss_mib",
            "proportional",
            "MiB",
            after.pss / MIB,
            beside(2.9 * 1e6 / MIB),
        );
        add("anon_mib", "anonymous", "MiB", after.anonymous / MIB, None);
        let cpu = (after.ticks - before.ticks) / TICKS_PER_SECOND / took * 100.0;
        add("cpu_percent", "processor", "% of a core", cpu, beside(1.24));
        let per_day = (after.written - before.written) / took * 86_400.0 / MIB;
        add(
            "disk_mib_day",
            "disk writes",
            "MiB/day",
            per_day,
            beside(0.0),
        );
    }
    report.finish(begun.elapsed());
    Ok(report)
}

/// What a process has used, in bytes and ticks.
#[derive(Clone, Copy, Debug)]
struct Usage {
    rss: f64,
    pss: f64,
    anonymous: f64,
    ticks: f64,
    written: f64,
}

impl Usage {
    fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let number = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse::<f64>().ok())
                .with_context(|| format!("no {key} of process {pid}"))
        };
        let (memory, io, stat) = (read("smaps_rollup")?, read("io")?, read("stat")?);
        // After the name in parentheses, user and system time are fields 12 and 13.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        Ok(Self {
            rss: number(&memory, "Rss:")? * 1024.0,
            pss: number(&memory, "Pss:")? * 1024.0,
            anonymous: number(&memory, "Anonymous:")? * 1024.0,
            ticks: ticks.filter_map(|field| field.parse::<f64>().ok()).sum(),
            written: number(&io, "write_bytes:")?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_own_use_can_be_read_and_grows() {
        let before = Usage::of(std::process::id()).unwrap();
        let end = Instant::now() + Duration::from_millis(50);
        let ballast = vec![1_u8; 4 << 20];
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        let after = Usage::of(std::process::id()).unwrap();
        assert!(after.ticks > before.ticks, "{before:?} {after:?}");
        assert!(
            after.anonymous >= before.anonymous + 3e6,
            "{before:?} {after:?}"
        );
        assert!(after.pss <= after.rss && after.anonymous <= after.rss);
        drop(ballast);
    }
}
