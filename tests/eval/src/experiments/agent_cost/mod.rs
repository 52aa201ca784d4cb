//! The loop's share of a core: at rest with the default probes and 64 metrics that are
//! watched, and with four probes at 20 a second beside a bare client in C that opens the same
//! connections to the same services in the same minute.
//!
//! [`super::overhead`] counts all that a node costs; this is the loop's process alone, under
//! the two loads that its goals name. The kernel's own account is read, in nanoseconds.

mod client;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use homeostat_testbed::Kind;

use self::client::Client;
use super::overhead::usage::Usage;
use super::{life, progress};
use crate::result::{Report, Row};
use crate::stage::{NODE, Node, Part, Parts, Settings, interrupt};
use crate::stats::Estimate;

/// Before the first reading: connected, and its banks filled.
const SETTLE: Duration = Duration::from_secs(8);
/// With so many services it has 64 metrics to watch, and more.
const SERVICES: [&str; 6] = ["web-1", "web-2", "web-3", "web-4", "web-5", "web-6"];
/// Of these the second load consists.
const PROBED: usize = 4;
const PERIOD: Duration = Duration::from_millis(50);
/// Goals: per cent of a core at rest, and times the bare client.
const GOAL_REST: f64 = 0.3;
const GOAL_TIMES: f64 = 1.5;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How long each of the two is watched.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// The agent's binary; if not given, the agent built into this program.
    #[arg(long, value_name = "PATH")]
    pub agent: Option<PathBuf>,
}

fn settings(probe: &str, services: &[&'static str]) -> Settings {
    Settings {
        sections: "\n[limits]\nmode = \"act\"".to_owned(),
        service: String::new(),
        probe: probe.to_owned(),
        services: services.to_vec(),
    }
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args) -> Result<Report> {
    let begun = Instant::now();
    let fast = "period = \"50ms\"\ntimeout = \"40ms\"";
    let [rest, probed] = [("", &SERVICES[..]), (fast, &SERVICES[..PROBED])]
        .map(|(probe, services)| settings(probe, services));
    let text = format!("{}\n{}\n# {args:?}", rest.text(), probed.text());
    let mut report = Report::new("agent-cost", &text);
    progress(&format!("settings {}:\n{text}\n", report.settings_sha256));
    let program = match &args.agent {
        Some(path) => {
            let found = path.canonicalize();
            Some(found.with_context(|| format!("cannot find {}", path.display()))?)
        }
        None => None,
    };
    let dir = tempfile::Builder::new().prefix("hs-cost").tempdir()?;
    let span = Duration::from_secs(args.seconds.into());

    let home = dir.path().join("rest");
    let node = launched(&home, &rest, program.clone())?;
    let metrics = watched(&node)?;
    let (cpu, seconds) = spent(&node, None, span)?;
    drop(node);
    let percent = Estimate::exact(cpu[0] / seconds * 100.0, 1);
    let monit = "monit 5.33; collectd 0.73, netdata 2.37";
    report.rows.push(
        Row::new(
            "agent-cost.rest_percent",
            &format!("at rest, {metrics} metrics watched, default probes"),
            "% of a core",
            percent,
        )
        .against(Some(1.24), monit)
        .goal(GOAL_REST),
    );

    let home = dir.path().join("probed");
    let node = launched(&home, &probed, program)?;
    let mut ports = Vec::new();
    for name in node.names() {
        ports.push(node.address(name)?.port());
    }
    let client = Client::start(dir.path(), PERIOD, &ports)?;
    let (cpu, seconds) = spent(&node, client.as_ref(), span)?;
    let [own, bare] = cpu.map(|cpu| cpu / seconds * 100.0);
    let rounds = ports.len() as f64 / PERIOD.as_secs_f64();
    report.rows.push(Row::new(
        "agent-cost.probed_percent",
        &format!("{rounds:.0} probes a second"),
        "% of a core",
        Estimate::exact(own, 1),
    ));
    match client {
        Some(client) => {
            client.check()?;
            report.rows.push(Row::new(
                "agent-cost.client_percent",
                "a bare client in C, the same connections",
                "% of a core",
                Estimate::exact(bare, 1),
            ));
            let times = Row::new(
                "agent-cost.times",
                "the agent, of the bare client",
                "times",
                Estimate::exact(own / bare.max(f64::MIN_POSITIVE), 1),
            );
            report.rows.push(times.goal(GOAL_TIMES));
        }
        None => progress("skip: the bare client: no C compiler (cc) is installed"),
    }
    report.finish(begun.elapsed());
    Ok(report)
}

fn launched(dir: &Path, settings: &Settings, program: Option<PathBuf>) -> Result<Node> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let ports = homeostat_testbed::ports(settings.services.len())?;
    let services = settings.services.iter().zip(ports);
    let services = services.map(|(name, port)| Part {
        name,
        kind: Kind::Web,
        port,
        keys: String::new(),
        tables: String::new(),
    });
    let parts = Parts {
        node: NODE,
        services: services.collect(),
        routes: Vec::new(),
        service_config: "",
    };
    let mut node = Node::lay_out_with(dir, settings, parts, program)?;
    node.launch()?;
    for name in node.names() {
        life(&node, name)?;
    }
    interrupt::pause(SETTLE)?;
    Ok(node)
}

/// Processor time of the loop, and of the client, over some time; and how long that was.
fn spent(node: &Node, client: Option<&Client>, span: Duration) -> Result<([f64; 2], f64)> {
    let agent = node.pids()[0].context("the agent does not run")?;
    let read = || -> Result<[f64; 2]> {
        let client = match client {
            Some(client) => Usage::of(client.pid())?.cpu,
            None => 0.0,
        };
        Ok([Usage::of(agent)?.cpu, client])
    };
    let (begun, before) = (Instant::now(), read()?);
    interrupt::pause(span)?;
    let after = read()?;
    Ok((
        [after[0] - before[0], after[1] - before[1]],
        begun.elapsed().as_secs_f64(),
    ))
}

/// How many metrics the agent watches, by its own account.
fn watched(node: &Node) -> Result<u32> {
    let socket = node.dir().join("run/agent.sock");
    let name = || format!("cannot ask {}", socket.display());
    let mut stream = UnixStream::connect(&socket).with_context(name)?;
    stream
        .write_all(br#"order {"by":null,"command":"status"}"#)
        .with_context(name)?;
    stream
        .shutdown(std::net::Shutdown::Write)
        .with_context(name)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(name)?;
    let words = answer.split("watched").nth(1).unwrap_or_default();
    let count = words.split_whitespace().next().unwrap_or_default();
    count
        .parse()
        .with_context(|| format!("the agent's status says nothing of metrics: {answer}"))
}
