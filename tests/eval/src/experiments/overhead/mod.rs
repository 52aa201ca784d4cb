//! What the agent costs: processor, memory, disk and network of its three processes, and what
//! one more node costs the coordinator; at rest and at one incident an hour.
//!
//! Three healthy services, two of them behind a route, a broker and a coordinator. First the
//! coordinator alone; then with the node at rest; then a series of incidents, whose cost beyond
//! rest is taken for one and counted 24 times for a day at 1/h. [`count`] counts work that does
//! not depend on how fast or how busy this machine is, from which the share of a Raspberry Pi 4
//! is estimated. The sums stand beside the overhead that is published for self-healing systems,
//! and beside the 0.62 % from which on it no longer pays by the publication's own example.

mod count;
mod relay;
mod step;
pub(super) mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use homeostat_testbed::{Expect, Kind, Port, inject};

use self::relay::Relay;
use self::usage::Usage;
use super::{healed, life, progress};
use crate::result::{Report, Row};
use crate::stage::{
    BrokerKind, Cloud, NODE, Node, Part, Parts, Route, Settings, infer_tables, interrupt,
};
use crate::stats::Estimate;

/// Before the first reading: connected, learned, and told.
const SETTLE: Duration = Duration::from_secs(5);
/// Between two incidents: healed, closed, told, and acknowledged.
const GAP: Duration = Duration::from_secs(2);
const CAP: Duration = Duration::from_secs(10);
const MIB: f64 = 1024.0 * 1024.0;
const DAY: f64 = 86_400.0;

/// A Raspberry Pi 4: four cores of 1.5 GHz, 4 GiB, a card that writes 10 MB/s (class 10), an
/// uplink of 10 Mbit/s.
const PI_CORES: f64 = 4.0;
const PI_HERTZ: f64 = 1.5e9;
const PI_MEMORY: f64 = 4.0 * 1024.0 * MIB;
const PI_DISK: f64 = 10e6;
const PI_NET: f64 = 10e6 / 8.0;
/// Cycles for an instruction, at best, as expected and at worst. An assumption: its Cortex-A72
/// can do three at once, and code that runs for a millisecond each second finds its caches cold.
const PI_CYCLES: [f64; 3] = [1.0, 2.0, 4.0];
/// Seconds for a call of the kernel, with what it does: an assumption as well.
const PI_CALL: [f64; 3] = [1e-6, 4e-6, 10e-6];
/// Per cent, published for self-healing systems: the lower end for all of it, processor,
/// memory, disk and network.
const BAND: [(f64, &str); 5] = [
    (12.0, "published: 12-18 %"),
    (8.0, "published: 8-12 %"),
    (6.0, "published: 6-10 %"),
    (5.0, "published: 5-8 %"),
    (3.0, "published: 3-5 %"),
];
/// Per cent of a node's cost at which the published example breaks even.
const BREAK_EVEN: f64 = 0.62;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How long to watch at rest.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Incidents to take the mean of.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub incidents: u32,
    /// How long to count instructions and system calls of each process; 0 for not at all.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub count: u32,
    /// The agent's binary; if not given, the agent built into this program, whose memory holds
    /// far more code.
    #[arg(long, value_name = "PATH")]
    pub agent: Option<PathBuf>,
    /// Probe every 100 ms as in the other experiments, not every second as by default.
    #[arg(long)]
    pub fast: bool,
}

/// The processes of a node, as ids and in words.
const PROCESSES: [(&str, &str); 3] = [
    ("agent", "loop"),
    ("spawner", "spawner"),
    ("forwarder", "forwarder"),
];

fn settings(fast: bool, broker: &str) -> Settings {
    Settings {
        // The keys of [mqtt] come first.
        sections: format!(
            "{broker}\n[limits]\nmode = \"act\"\nrestart = {{ burst = 100, within = \"1s\", \
             backoff_min = \"1ms\" }}"
        ),
        service: String::new(),
        probe: if fast {
            "period = \"100ms\"\ntimeout = \"50ms\"".to_owned()
        } else {
            String::new()
        },
        services: vec!["web-1", "web-2", "infer"],
    }
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args) -> Result<Report> {
    let begun = Instant::now();
    let text = format!("{}\n# {args:?}", settings(args.fast, "").text());
    let mut report = Report::new("overhead", &text);
    progress(&format!("settings {}:\n{text}\n", report.settings_sha256));
    let dir = tempfile::Builder::new().prefix("hs-over").tempdir()?;
    let program = match &args.agent {
        Some(path) => {
            let found = path.canonicalize();
            Some(found.with_context(|| format!("cannot find {}", path.display()))?)
        }
        None => None,
    };
    let counted = match count(args, program.as_deref(), dir.path()) {
        Err(error) if !error.is::<interrupt::Interrupted>() => {
            progress(&format!("skip: instructions: {error:#}"));
            None
        }
        counted => counted?,
    };
    let measured = measure(args, program, dir.path())?;
    rows(&measured, counted.as_ref(), &mut report);
    report.finish(begun.elapsed());
    Ok(report)
}

/// What was used in some time.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    seconds: f64,
    /// Of each of [`PROCESSES`], and of the coordinator.
    cpu: [f64; 4],
    written: [f64; 4],
    network: f64,
}

struct Measured {
    /// At the end of rest; the coordinator's is what the node added.
    memory: [Usage; 4],
    alone: Spent,
    rest: Spent,
    incidents: Spent,
    healed: u32,
}

/// Reads all at once.
struct Meter<'a> {
    pids: [Option<u32>; 4],
    relay: &'a Relay,
    at: Instant,
    before: [Usage; 4],
    network: f64,
}

impl<'a> Meter<'a> {
    fn start(pids: [Option<u32>; 4], relay: &'a Relay) -> Result<Self> {
        let before = usages(pids)?;
        let network = relay.bytes();
        Ok(Self {
            pids,
            relay,
            at: Instant::now(),
            before,
            network,
        })
    }

    fn stop(&self) -> Result<(Spent, [Usage; 4])> {
        let seconds = self.at.elapsed().as_secs_f64();
        let after = usages(self.pids)?;
        let mut spent = Spent {
            seconds,
            network: self.relay.bytes() - self.network,
            ..Spent::default()
        };
        for (place, (after, before)) in after.iter().zip(&self.before).enumerate() {
            if let (Some(cpu), Some(written)) =
                (spent.cpu.get_mut(place), spent.written.get_mut(place))
            {
                *cpu = after.cpu - before.cpu;
                *written = after.written - before.written;
            }
        }
        Ok((spent, after))
    }
}

fn usages(pids: [Option<u32>; 4]) -> Result<[Usage; 4]> {
    let mut all = [Usage::default(); 4];
    for (usage, pid) in all.iter_mut().zip(pids) {
        if let Some(pid) = pid {
            *usage = Usage::of(pid)?;
        }
    }
    Ok(all)
}

fn measure(args: &Args, program: Option<PathBuf>, dir: &Path) -> Result<Measured> {
    let span = Duration::from_secs(args.seconds.into());
    let cloud = Cloud::start(dir, BrokerKind::Embedded)?;
    let relay = Relay::start(cloud.broker_address()).context("cannot relay")?;
    let coordinator = cloud.pids()[1];
    interrupt::pause(SETTLE)?;
    let meter = Meter::start([None, None, None, coordinator], &relay)?;
    interrupt::pause(span / 4)?;
    let (alone, before) = meter.stop()?;
    let broker = format!("broker = \"mqtt://{}\"", relay.address());
    let (mut node, _route) = lay_out(args, &broker, dir, program)?;
    node.launch()?;
    for name in node.names() {
        life(&node, name)?;
    }
    interrupt::pause(SETTLE)?;
    let [agent, spawner] = node.pids();
    let pids = [agent, spawner, node.forwarder(), coordinator];
    let meter = Meter::start(pids, &relay)?;
    interrupt::pause(span)?;
    let (rest, mut memory) = meter.stop()?;
    node.check()?;
    if let (Some(with), Some(without)) = (memory.last_mut(), before.last()) {
        with.rss -= without.rss;
        with.pss -= without.pss;
        with.anonymous -= without.anonymous;
    }
    let prober = node.prober("web-1", Expect::NewInstance)?;
    prober.wait_up(CAP)?;
    let (meter, mut count) = (Meter::start(pids, &relay)?, 0);
    for _ in 0..args.incidents {
        let at = inject::kill9(life(&node, "web-1")?.pid)?;
        count += u32::from(healed(&prober, at, CAP)?.is_some());
        interrupt::pause(GAP)?;
    }
    let (incidents, _) = meter.stop()?;
    node.check()?;
    Ok(Measured {
        memory,
        alone,
        rest,
        incidents,
        healed: count,
    })
}

/// The node, and the port of its route, which is kept as long as it lives.
fn lay_out(
    args: &Args,
    broker: &str,
    dir: &Path,
    program: Option<PathBuf>,
) -> Result<(Node, Port)> {
    let mut ports = homeostat_testbed::ports(4)?.into_iter();
    let mut port = || ports.next().context("four ports were asked for");
    let web = |name, port| Part {
        name,
        kind: Kind::Web,
        port,
        keys: String::new(),
        tables: String::new(),
    };
    let slot = Node::home(dir).join("slots/infer");
    let infer = Part {
        tables: infer_tables(&slot)?,
        kind: Kind::InferSlot { slot },
        ..web("infer", port()?)
    };
    let route = port()?;
    let parts = Parts {
        node: NODE,
        services: vec![web("web-1", port()?), web("web-2", port()?), infer],
        routes: vec![Route {
            id: "web",
            listen: route.address(),
            keys: String::new(),
            to: vec!["web-1", "web-2"],
        }],
        service_config: "",
    };
    let settings = settings(args.fast, broker);
    Ok((Node::lay_out_with(dir, &settings, parts, program)?, route))
}

/// Instructions and system calls a second of each of [`PROCESSES`].
type Counted = [(f64, f64); 3];

/// `None` where it is not wanted, or something that it needs is missing.
fn count(args: &Args, program: Option<&Path>, dir: &Path) -> Result<Option<Counted>> {
    if args.count == 0 {
        return Ok(None);
    }
    let missing = count::missing();
    if !missing.is_empty() {
        progress(&format!("skip: instructions: no {}", missing.join(", no ")));
        return Ok(None);
    }
    let span = Duration::from_secs(args.count.into());
    let mut counted = Counted::default();
    progress("  counting the loop");
    let mut counts = [0.0; 2];
    for (run, (span, count)) in [Duration::ZERO, span]
        .into_iter()
        .zip(&mut counts)
        .enumerate()
    {
        let home = dir.join(format!("count-{run}"));
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let (words, log) = count::valgrind(&home);
        let (mut node, _route) = lay_out(args, "", &home, program.map(Path::to_owned))?;
        node.launch_under("agent", words)?;
        count::settle(span)?;
        node.check()?;
        drop(node);
        *count = count::instructions(&log)?;
    }
    counted[0].0 = (counts[1] - counts[0]) / span.as_secs_f64();
    let (mut node, _route) = lay_out(args, "", &dir.join("calls"), program.map(Path::to_owned))?;
    node.launch()?;
    interrupt::pause(SETTLE)?;
    let [agent, spawner] = node.pids();
    let pids = [agent, spawner, node.forwarder()];
    for (((instructions, calls), pid), (id, name)) in counted.iter_mut().zip(pids).zip(PROCESSES) {
        let pid = pid.context("all processes of the node run")?;
        *calls = count::calls_per_second(pid, span, dir)?;
        if id != "agent" {
            progress(&format!("  counting the {name}"));
            let counted = step::instructions_per_second(pid, span);
            *instructions = counted.with_context(|| format!("the {name}"))?;
        }
    }
    Ok(Some(counted))
}

fn rows(measured: &Measured, counted: Option<&Counted>, report: &mut Report) {
    let Measured {
        memory,
        alone,
        rest,
        incidents,
        healed,
    } = measured;
    let mut add = |id: &str, what: &str, unit, value, reference: Option<(f64, &str)>| {
        let row = Row::new(
            &format!("overhead.{id}"),
            what,
            unit,
            Estimate::exact(value, 1),
        );
        report.rows.push(match reference {
            Some((value, name)) => row.against(Some(value), name),
            None => row,
        });
    };
    let monit = "monit 5.33, 1 s cycle";
    let names = PROCESSES
        .into_iter()
        .chain([("coordinator", "coordinator, for one node")]);
    // Seconds and bytes that one incident takes beyond rest.
    let one = |place: usize, of: fn(&Spent) -> [f64; 4]| {
        let at = |spent: &Spent| of(spent).get(place).copied().unwrap_or(0.0);
        let beyond = at(incidents) - at(rest) / rest.seconds * incidents.seconds;
        (beyond / f64::from((*healed).max(1))).max(0.0)
    };
    let mut sums = [0.0; 2];
    for (place, (id, name)) in names.enumerate() {
        let ours = place == 0;
        let beside = |value| ours.then_some((value, monit));
        let Some(used) = memory.get(place) else {
            continue;
        };
        let key = |key: &str| format!("{id}.{key}");
        let what = |what: &str| format!("{name}: {what}");
        add(
            &key("rss_mib"),
            &what("resident"),
            "MiB",
            used.rss / MIB,
            beside(8e6 / MIB),
        );
        add(
            &key("pss_mib"),
            &what("proportional"),
            "MiB",
            used.pss / MIB,
            beside(2.9e6 / MIB),
        );
        add(
            &key("anon_mib"),
            &what("anonymous"),
            "MiB",
            used.anonymous / MIB,
            None,
        );
        let rate = |of: fn(&Spent) -> [f64; 4]| {
            let at = |spent: &Spent| of(spent).get(place).copied().unwrap_or(0.0) / spent.seconds;
            // What the coordinator takes without any node is not this node's.
            at(rest) - if place == 3 { at(alone) } else { 0.0 }
        };
        let (cpu, written) = (rate(|spent| spent.cpu), rate(|spent| spent.written));
        add(
            &key("cpu_percent"),
            &what("processor"),
            "% of a core",
            cpu * 100.0,
            beside(1.24),
        );
        add(
            &key("disk_mib_day"),
            &what("disk writes"),
            "MiB/day",
            written * DAY / MIB,
            beside(0.0),
        );
        let (cpu_one, written_one) = (
            one(place, |spent| spent.cpu),
            one(place, |spent| spent.written),
        );
        if *healed > 0 {
            add(
                &key("incident_cpu_ms"),
                &what("processor for an incident"),
                "ms",
                cpu_one * 1e3,
                None,
            );
            let kib = written_one / 1024.0;
            add(
                &key("incident_disk_kib"),
                &what("disk writes for an incident"),
                "KiB",
                kib,
                None,
            );
        }
        if place < 3 {
            sums[0] += cpu + cpu_one / 3600.0;
            sums[1] += written + written_one / 3600.0;
        }
    }
    let network = rest.network / rest.seconds;
    let one_network =
        (incidents.network - network * incidents.seconds) / f64::from((*healed).max(1));
    add(
        "net_kib_day",
        "network, both ways",
        "KiB/day",
        network * DAY / 1024.0,
        None,
    );
    if *healed > 0 {
        let kib = one_network.max(0.0) / 1024.0;
        add(
            "incident_net_kib",
            "network for an incident",
            "KiB",
            kib,
            None,
        );
    }
    if let Some(counted) = counted {
        for ((id, name), (instructions, calls)) in PROCESSES.iter().zip(counted) {
            let what = format!("{name}: own instructions");
            add(
                &format!("{id}.instructions"),
                &what,
                "1000/s",
                instructions / 1e3,
                None,
            );
            add(
                &format!("{id}.calls"),
                &format!("{name}: system calls"),
                "1/s",
                *calls,
                None,
            );
        }
    }
    let resident: f64 = memory.iter().take(3).map(|used| used.pss).sum();
    let network = network + one_network.max(0.0) / 3600.0;
    shares(sums, resident, network, counted, report);
}

/// Per cent of a Raspberry Pi 4 at one incident an hour.
fn shares(
    [cpu, written]: [f64; 2],
    resident: f64,
    network: f64,
    counted: Option<&Counted>,
    report: &mut Report,
) {
    let memory = resident / PI_MEMORY * 100.0;
    let disk = written / PI_DISK * 100.0;
    let net = network / PI_NET * 100.0;
    // Incidents are measured in time only; they are a small part.
    let estimate = counted.map(|counted| {
        let sum = |of: fn(&(f64, f64)) -> f64| counted.iter().map(of).sum::<f64>();
        let (instructions, calls) = (sum(|one| one.0), sum(|one| one.1));
        let mut cores = [0.0; 3];
        for ((cores, cycles), call) in cores.iter_mut().zip(PI_CYCLES).zip(PI_CALL) {
            *cores = instructions * cycles / PI_HERTZ + calls * call;
        }
        cores
    });
    let here = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    let processor = match estimate {
        Some([low, expected, high]) => Estimate {
            value: expected / PI_CORES * 100.0,
            low: low / PI_CORES * 100.0,
            high: high / PI_CORES * 100.0,
            n: 1,
        },
        None => Estimate::exact(cpu / here * 100.0, 1),
    };
    let sum = |processor: f64| processor + memory + disk + net;
    let total = Estimate {
        value: sum(processor.value),
        low: sum(processor.low),
        high: sum(processor.high),
        n: 1,
    };
    let how = if estimate.is_some() {
        "processor of a Pi 4, by instructions and calls"
    } else {
        "processor of this machine"
    };
    let shares = [
        ("total_percent", "all four added up, of a Pi 4", total),
        ("cpu_percent", how, processor),
        (
            "memory_percent",
            "memory of a Pi 4",
            Estimate::exact(memory, 1),
        ),
        (
            "disk_percent",
            "disk writes of what a card can take",
            Estimate::exact(disk, 1),
        ),
        (
            "net_percent",
            "network of 10 Mbit/s",
            Estimate::exact(net, 1),
        ),
    ];
    for ((id, what, estimate), (band, name)) in shares.into_iter().zip(BAND) {
        let what = format!("{what}, 1 incident/h");
        let row = Row::new(&format!("overhead.{id}"), &what, "%", estimate);
        report
            .rows
            .push(row.against(Some(band), name).goal(BREAK_EVEN));
    }
}
