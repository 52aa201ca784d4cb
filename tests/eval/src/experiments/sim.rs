//! The fleet simulator measured: how fast it is, and whether what it computes is right.
//!
//! Speed is in ticks per second of processor time of one core, so that a busy machine does
//! not count. Right means: fleets without faults keep their users served; the time in a
//! queue is that of Erlang C, computed here from its definition; no request is lost from
//! the account; a seed gives the same trace to the last bit; and the length of a step
//! changes no figure beyond its interval.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use homeostat_coordinator::io::incidents::{self, Topologies};
use homeostat_sim::fault::Incident;
use homeostat_sim::queue;
use homeostat_sim::topology::{RouteNo, Topology};
use homeostat_sim::world::{Order, Settings, Target, World};
use rustix::time::{ClockId, clock_gettime};

use super::progress;
use crate::result::{Report, Row};
use crate::stage::interrupt;
use crate::stats::Estimate;

/// Rounds of a measurement of speed; the median counts.
const ROUNDS: usize = 9;
/// Length of a run without faults, in seconds.
const QUIET_S: f64 = 1800.0;
/// Length of a run with an incident.
const EPISODE_S: f64 = 600.0;
/// Half the width of a 99 % interval, in deviations.
const Z99: f64 = 2.576;
/// Incidents that change each of the figures that are compared between steps.
const STEPPED: [&str; 3] = ["leak-memory-infer", "slow-replica", "fan"];

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Runs without faults of the reference; a tenth of that of each other topology.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=100_000))]
    pub runs: u64,
    /// Ticks of each round of the reference; a tenth of that of the others.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000))]
    pub ticks: u64,
    /// Incidents whose requests are accounted for: train, development, shipped (both), a
    /// file or a folder.
    #[arg(long, value_name = "SET|FILE|DIR", default_value = "train")]
    pub faults: String,
    /// Topologies besides those that are shipped; incidents find theirs there first.
    #[arg(long, value_name = "DIR")]
    pub topologies: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When a file does not read, or somebody stops it.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let mut report = Report::new("sim", &format!("{args:?} seed {seed}"));
    let mut topologies = Vec::new();
    for (name, _) in Topology::shipped() {
        topologies.push(Arc::new(Topology::named(name)?));
    }
    if let Some(folder) = &args.topologies {
        topologies.extend(incidents::topologies(folder)?);
    }
    let mut known = Topologies::new(args.topologies.clone(), None)?;
    let mut cases = Vec::new();
    for incident in incidents::incidents(&args.faults)? {
        let topology = known.of(&incident)?;
        cases.push((incident, topology));
    }
    speed(args, &topologies, seed, &mut report)?;
    quiet(args, &topologies, seed, &mut report)?;
    report.rows.push(sojourn());
    account(&cases, seed, &mut report)?;
    steps(args, seed, &mut report)?;
    report.finish(begun.elapsed());
    Ok(report)
}

fn world(topology: &Arc<Topology>, incident: &Incident, seed: u64) -> Result<World> {
    Ok(World::with(topology, incident, seed, Settings::default())?)
}

/// Processor time of this thread.
fn processor() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

fn speed(args: &Args, topologies: &[Arc<Topology>], seed: u64, report: &mut Report) -> Result<()> {
    for topology in topologies {
        let name = topology.name();
        progress(&format!("speed of {name}"));
        let reference = name == "reference";
        let ticks = if reference {
            args.ticks
        } else {
            args.ticks / 10
        };
        let mut world = world(topology, &Incident::none(), seed)?;
        let mut rates = Vec::with_capacity(ROUNDS);
        // The first round warms up.
        for round in 0..=ROUNDS {
            interrupt::pause(Duration::ZERO)?;
            let begun = processor();
            for _ in 0..ticks {
                world.tick();
            }
            let took = processor().saturating_sub(begun);
            if round > 0 {
                rates.push(ticks as f64 / took.as_secs_f64().max(1e-9));
            }
        }
        let rate = Estimate::quantile(&rates, 0.5, seed).context("there are rounds")?;
        let what = format!(
            "ticks per second of one core, {} nodes, {} replicas",
            topology.nodes().len(),
            topology.replicas().len()
        );
        let row = Row::new(&format!("sim.speed.{name}"), &what, "ticks/s", rate).higher();
        report.rows.push(match name {
            "reference" => row.goal(1e6),
            "city" => row.goal(5e4),
            _ => row,
        });
    }
    Ok(())
}

/// Runs without faults, and whether the users were served all the time.
fn quiet(args: &Args, topologies: &[Arc<Topology>], seed: u64, report: &mut Report) -> Result<()> {
    for topology in topologies {
        let name = topology.name();
        progress(&format!("{name} without faults"));
        let runs = if name == "reference" {
            args.runs
        } else {
            args.runs / 10
        };
        let mut broken = 0_u32;
        let mut worst_p95: f64 = 0.0;
        for run in 0..runs {
            interrupt::pause(Duration::ZERO)?;
            let mut world = world(topology, &Incident::none(), seed.wrapping_add(run))?;
            let mut kept = true;
            while world.now() < QUIET_S {
                world.tick();
                let level = world.level();
                kept &= level.meets(&Target::default());
                worst_p95 = worst_p95.max(level.p95_ms);
            }
            broken += u32::from(!kept);
        }
        let n = usize::try_from(runs).unwrap_or(usize::MAX);
        let broken = Estimate::exact(f64::from(broken), n);
        let what = format!("runs of 30 min without faults that broke a target, {name}");
        report
            .rows
            .push(Row::new(&format!("sim.quiet.{name}.broken"), &what, "runs", broken).goal(0.0));
        let p95 = Estimate::exact(worst_p95, n);
        let what = "the longest p95 in them";
        report
            .rows
            .push(Row::new(&format!("sim.quiet.{name}.p95"), what, "ms", p95).goal(400.0));
    }
    Ok(())
}

/// How far the time in a queue is from that by the definition of Erlang C.
fn sojourn() -> Row {
    let mut worst: f64 = 0.0;
    let mut n = 0;
    for servers in 1..=16_u32 {
        for busy in 1..=95 {
            let r = f64::from(busy) / 100.0;
            let load = f64::from(servers) * r;
            let (mut term, mut sum) = (1.0, 0.0);
            for k in 0..servers {
                sum += term;
                term *= load / f64::from(k + 1);
            }
            let waits = term / (1.0 - r) / (sum + term / (1.0 - r));
            let expected = 1.0 + waits / (f64::from(servers) * (1.0 - r));
            let ours = queue::sojourn(servers, 1.0, r, 0.0).mean;
            worst = worst.max((ours / expected - 1.0).abs());
            n += 1;
        }
    }
    let what = "largest error of the mean sojourn against Erlang C, 1 to 16 servers, busy to 0.95";
    Row::new(
        "sim.sojourn.error",
        what,
        "ratio",
        Estimate::exact(worst, n),
    )
    .goal(0.03)
}

/// The account of requests, and traces that differ, over incidents with a restart of
/// everything in the middle.
fn account(cases: &[(Incident, Arc<Topology>)], seed: u64, report: &mut Report) -> Result<()> {
    progress("requests that are not accounted for");
    let (mut worst, mut differ, mut ticks) = (0.0_f64, 0_u32, 0_usize);
    for (incident, topology) in cases {
        interrupt::pause(Duration::ZERO)?;
        let mut here = world(topology, incident, seed)?;
        let mut again = world(topology, incident, seed)?;
        while here.now() < EPISODE_S {
            if here.now() == EPISODE_S / 2.0 {
                for world in [&mut here, &mut again] {
                    restart_all(world)?;
                }
            }
            here.tick();
            again.tick();
            ticks += 1;
            worst = worst.max(imbalance(&here));
        }
        differ += u32::from(here.digest() != again.digest());
    }
    let what = "largest share of a route's requests that is not accounted for, at any tick";
    report.rows.push(
        Row::new(
            "sim.account.worst",
            what,
            "ratio",
            Estimate::exact(worst, ticks),
        )
        .goal(1e-9),
    );
    let differ = Estimate::exact(f64::from(differ), cases.len());
    let what = "incidents whose second run ended in another state";
    report
        .rows
        .push(Row::new("sim.trace.differ", what, "incidents", differ).goal(0.0));
    Ok(())
}

/// Restarts every replica that is no standby, each by a plan of its own node, as far as
/// plans are taken.
fn restart_all(world: &mut World) -> Result<()> {
    let topology = world.topology().clone();
    for replica in topology
        .replicas()
        .iter()
        .filter(|replica| !replica.standby)
    {
        let plan = format!("restart({}, grace=1s)", replica.name).parse()?;
        let node = topology.nodes()[replica.node.at()].name.clone();
        // More than are taken at once is no failure of the account.
        let _ = world.order(&Order::Node(node, plan));
    }
    Ok(())
}

fn imbalance(world: &World) -> f64 {
    let routes = world.topology().routes();
    let off = routes.iter().filter_map(|route| {
        let no: RouteNo = world.topology().route_no(&route.name).ok()?;
        let flow = world.flow(no);
        let gone = flow.passed + flow.failed + flow.refused + flow.lost;
        Some((flow.arrived - gone - world.waiting(no)).abs() / flow.arrived.max(1.0))
    });
    off.fold(0.0, f64::max)
}

/// The figures of one run that are compared between steps.
const FIGURES: [(&str, &str); 5] = [
    ("err", "mean share of errors"),
    ("p95", "mean p95"),
    ("health", "mean health"),
    ("bad", "seconds in which a target was broken"),
    ("disruption", "disruption by the restart"),
];

/// Whether halving the step changes a figure beyond its interval of 99 %, whose half width
/// is the smallest difference that could be seen.
fn steps(args: &Args, seed: u64, report: &mut Report) -> Result<()> {
    progress("steps of half the length");
    let topology = Arc::new(Topology::reference());
    for name in STEPPED {
        let incident = Incident::named(name)?;
        let all = |dt: f64| -> Result<Vec<[f64; 5]>> {
            let run = |run: u64| {
                interrupt::pause(Duration::ZERO)?;
                figures(&topology, &incident, seed.wrapping_add(run), dt)
            };
            (0..args.runs).map(run).collect()
        };
        let (whole, half) = (all(1.0)?, all(0.5)?);
        let n = whole.len();
        for (place, (id, what)) in FIGURES.iter().enumerate() {
            let ((a, va), (b, vb)) = (moments(&whole, place), moments(&half, place));
            let within = Z99 * (va + vb).sqrt();
            let off = if within > 0.0 {
                (a - b).abs() / within
            } else {
                (a - b).abs()
            };
            let what = format!("{name}, {what}: difference by halving the step, over {within:.2e}");
            let row = Row::new(
                &format!("sim.step.{name}.{id}"),
                &what,
                "ratio",
                Estimate::exact(off, n),
            );
            report.rows.push(row.goal(1.0));
        }
    }
    Ok(())
}

/// One run: an incident, and a restart of its service a minute after the beginning is over.
fn figures(topology: &Arc<Topology>, incident: &Incident, seed: u64, dt: f64) -> Result<[f64; 5]> {
    let settings = Settings {
        dt,
        ..Settings::default()
    };
    let mut world = World::with(topology, incident, seed, settings)?;
    let mut sums = [0.0; 5];
    let mut ticks = 0.0;
    while world.now() < EPISODE_S {
        if world.now() == 240.0 {
            let plan = "restart(infer-1, grace=2s)".parse()?;
            world.order(&Order::Node("edge-1".parse()?, plan))?;
        }
        world.tick();
        let level = world.level();
        let broken = f64::from(u8::from(!level.meets(&Target::default())));
        let figures = [level.err, level.p95_ms, level.health(), broken * EPISODE_S];
        for (sum, figure) in sums.iter_mut().zip(figures) {
            *sum += figure;
        }
        ticks += 1.0;
    }
    let mut figures = sums.map(|sum| sum / ticks);
    figures[4] = world.spent().disruption;
    Ok(figures)
}

/// Mean of a figure, and the variance of that mean.
fn moments(runs: &[[f64; 5]], place: usize) -> (f64, f64) {
    let n = runs.len() as f64;
    let mean = runs.iter().map(|run| run[place]).sum::<f64>() / n;
    let square: f64 = runs.iter().map(|run| (run[place] - mean).powi(2)).sum();
    (mean, square / (n - 1.0) / n)
}
