//! Records on their way while the broker dies again and again: nothing may be lost, nothing
//! may be stored twice.
//!
//! Events come from a service that is killed and healed all the time. Truth: each kill that
//! was injected is one incident, and a stream's numbers have no holes.

use std::time::{Duration, Instant};

use anyhow::Result;
use homeostat_coordinator::fleet::view::IncidentState;
use homeostat_testbed::inject;

use super::{eager, life, next_life, progress};
use crate::audit::Audit;
use crate::result::{Report, Row};
use crate::stage::{BrokerKind, Cloud, Node, interrupt};
use crate::stats::Estimate;

/// Between two faults: the agent has seen the new life answer.
const REST: Duration = Duration::from_millis(250);
/// For the last records to arrive: the coordinator itself may pause a minute before it
/// connects again.
const DRAIN_MAX: Duration = Duration::from_secs(180);

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How often each broker is killed.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub kills: u32,
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let text = format!("{}\n# {args:?}", eager(&["web"]).text());
    let mut report = Report::new("outbox", &text);
    progress(&format!("settings {}:\n{text}\n", report.settings_sha256));
    for kind in [BrokerKind::Embedded, BrokerKind::Mosquitto] {
        if kind.available() {
            report.rows.extend(broker(kind, args.kills, seed)?);
        } else {
            progress(&format!("skipped: {} is not installed", kind.name()));
        }
    }
    report.finish(begun.elapsed());
    Ok(report)
}

fn broker(kind: BrokerKind, kills: u32, seed: u64) -> Result<Vec<Row>> {
    let dir = tempfile::Builder::new().prefix("hs-outbox").tempdir()?;
    let mut cloud = Cloud::start(dir.path(), kind)?;
    let settings = eager(&["web"]);
    let mut node = Node::start(dir.path(), &settings, Some(&cloud.broker_url()), None)?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut faults = 0_u64;
    let mut kill_and_heal = |node: &mut Node| -> Result<()> {
        let old = life(node, "web")?;
        interrupt::pause(REST)?;
        inject::kill9(old.pid)?;
        faults += 1;
        next_life(node, "web", &old, Duration::from_secs(10))?;
        node.check()
    };
    kill_and_heal(&mut node)?;
    for kill in 1..=kills {
        // Up for 50 to 850 ms, down for up to 400 ms, a fault somewhere in both.
        interrupt::pause(Duration::from_millis(rng.u64(50..450)))?;
        if rng.bool() {
            kill_and_heal(&mut node)?;
        }
        cloud.kill_broker()?;
        interrupt::pause(Duration::from_millis(rng.u64(..100)))?;
        if rng.bool() {
            kill_and_heal(&mut node)?;
        }
        cloud.start_broker()?;
        if kill % 10 == 0 {
            progress(&format!("  {}: {kill} of {kills} kills", kind.name()));
        }
    }
    kill_and_heal(&mut node)?;

    let api = cloud.api();
    let drained = Instant::now();
    let mut closed = 0;
    let all = interrupt::until("the last record", DRAIN_MAX, || {
        let incidents = api.incidents().ok()?;
        closed = incidents
            .iter()
            .filter(|incident| incident.state == IncidentState::Closed)
            .count() as u64;
        let missing: u64 = api
            .fleet()
            .ok()?
            .nodes
            .iter()
            .map(|node| node.missing)
            .sum();
        (closed >= faults && missing == 0).then_some(())
    });
    match all {
        Err(error) if error.is::<interrupt::Interrupted>() => return Err(error),
        // What did not arrive is the result.
        Err(_) | Ok(()) => {}
    }
    let drained = drained.elapsed();
    let audit = Audit::of(&api.events()?);
    let name = kind.name();
    let row = |key: &str, what: &str, unit, value: f64, n: usize| {
        let id = format!("outbox.{name}.{key}");
        Row::new(
            &id,
            &format!("{name}: {what}"),
            unit,
            Estimate::exact(value, n),
        )
    };
    let lost = audit.holes + audit.dropped;
    let faults_n = usize::try_from(faults).unwrap_or(usize::MAX);
    Ok(vec![
        row("kills", "broker killed", "times", f64::from(kills), 1),
        row("lost", "records lost", "count", lost as f64, audit.stored).goal(0.0),
        row(
            "doubled",
            "records stored twice",
            "count",
            audit.doubled as f64,
            audit.stored,
        )
        .goal(0.0),
        row(
            "incidents_lost",
            "injected faults without a closed incident",
            "count",
            faults.saturating_sub(closed) as f64,
            faults_n,
        )
        .goal(0.0),
        row(
            "incidents_extra",
            "incidents without an injected fault",
            "count",
            closed.saturating_sub(faults) as f64,
            faults_n,
        )
        .goal(0.0),
        row(
            "drain_s",
            "until all had arrived",
            "s",
            drained.as_secs_f64(),
            1,
        ),
    ])
}
