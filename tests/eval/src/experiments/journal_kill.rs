//! The agent killed in the middle of healing, again and again: the next one must take over
//! the services, finish or undo what was begun, and tell every event exactly once.
//!
//! The fault is a model file gone bad, because its plan has two steps, each journalled. The
//! moment of the kill is drawn evenly over the time that such a healing takes here, measured
//! on the first rounds; the journal's own tests cut it at every single write.

use std::time::{Duration, Instant};

use anyhow::Result;
use homeostat_coordinator::fleet::view::IncidentState;
use homeostat_testbed::inject::{self, Corruption};

use super::{eager, life, ms, progress};
use crate::audit::{Audit, disorder};
use crate::result::{Report, Row};
use crate::stage::{BrokerKind, Cloud, Node, Settings, interrupt};
use crate::stats::{Estimate, share};

/// Rounds without a kill, to learn how long a healing takes.
const CALIBRATION: u32 = 3;
/// Longest wait for one healing, restart of the agent included.
const CAP: Duration = Duration::from_secs(30);
/// Between two rounds: the agent has seen that all is well.
const REST: Duration = Duration::from_millis(700);
const DRAIN_MAX: Duration = Duration::from_secs(60);

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How often the agent is killed.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub kills: u32,
}

fn settings() -> Settings {
    eager(&["web", "infer"])
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let settings = settings();
    let text = format!("{}\n# {args:?}", settings.text());
    let mut report = Report::new("journal-kill", &text);
    progress(&format!("settings {}:\n{text}\n", report.settings_sha256));
    let dir = tempfile::Builder::new().prefix("hs-journal").tempdir()?;
    let cloud = Cloud::start(dir.path(), BrokerKind::Embedded)?;
    let mut node = Node::start(dir.path(), &settings, Some(&cloud.broker_url()), None)?;
    let bystander = life(&node, "web")?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut window = Duration::ZERO;
    for _ in 0..CALIBRATION {
        if let Some(time) = round(&mut node, None)? {
            window = window.max(time);
        }
    }
    progress(&format!(
        "  a healing takes up to {:.0} ms; kills fall within that",
        ms(window)
    ));
    let (mut times, mut unhealed) = (Vec::new(), 0_usize);
    for kill in 1..=args.kills {
        match round(&mut node, Some(window.mul_f64(rng.f64())))? {
            Some(time) => times.push(ms(time)),
            None => {
                times.push(ms(CAP));
                unhealed += 1;
            }
        }
        if kill % 25 == 0 {
            progress(&format!("  {kill} of {}", args.kills));
        }
    }
    let untouched = node.life("web").is_some_and(|life| life == bystander);

    let api = cloud.api();
    let faults = (args.kills + CALIBRATION) as usize;
    // An incident that was not yet written down when the agent died is opened anew by the
    // next one, so there can be fewer than kills only where the healing was not told.
    let drained = interrupt::until("the last record", DRAIN_MAX, || {
        let fleet = api.fleet().ok()?;
        let missing: u64 = fleet.nodes.iter().map(|node| node.missing).sum();
        let closed = api.incidents().ok()?;
        let over = closed
            .iter()
            .all(|incident| incident.state != IncidentState::Open);
        (over && missing == 0 && closed.len() >= faults).then_some(())
    });
    match drained {
        Err(error) if error.is::<interrupt::Interrupted>() => return Err(error),
        Err(_) | Ok(()) => {}
    }
    let incidents = api.incidents()?;
    let audit = Audit::of(&api.events()?);
    let open = incidents
        .iter()
        .filter(|incident| incident.state != IncidentState::Closed)
        .count();
    let mut wrong = 0;
    for incident in &incidents {
        if let Some(what) = disorder(&api.incident(incident.id)?) {
            wrong += 1;
            progress(&format!("  {what}"));
        }
    }
    let resumed = incidents
        .iter()
        .filter(|incident| incident.source.as_deref() == Some("resumed"))
        .count();
    let n = args.kills as usize;
    let row = |key: &str, what: &str, unit, estimate| {
        Row::new(&format!("journal_kill.{key}"), what, unit, estimate)
    };
    let count = |value: usize, n: usize| Estimate::exact(value as f64, n);
    report.rows = vec![
        row(
            "recovered",
            "healed although the agent was killed",
            "share",
            share(n - unhealed, n),
        )
        .higher()
        .goal(1.0),
        row(
            "bystander",
            "the other service untouched",
            "share",
            count(usize::from(untouched), 1),
        )
        .higher()
        .goal(1.0),
        row(
            "lost",
            "records lost",
            "count",
            Estimate::exact((audit.holes + audit.dropped) as f64, audit.stored),
        )
        .goal(0.0),
        row(
            "doubled",
            "records stored twice",
            "count",
            Estimate::exact(audit.doubled as f64, audit.stored),
        )
        .goal(0.0),
        row(
            "streams",
            "stores that had to be begun anew",
            "count",
            count(audit.streams.saturating_sub(1), n),
        )
        .goal(0.0),
        row(
            "open",
            "incidents without an end",
            "count",
            count(open, incidents.len()),
        )
        .goal(0.0),
        row(
            "disorder",
            "incidents told in an impossible order",
            "count",
            count(wrong, incidents.len()),
        )
        .goal(0.0),
        row(
            "untold",
            "faults without an incident",
            "count",
            count(faults.saturating_sub(incidents.len()), faults),
        )
        .goal(0.0),
        row(
            "extra",
            "incidents beyond the faults",
            "count",
            count(incidents.len().saturating_sub(faults), faults),
        ),
        row(
            "resumed",
            "plans that the next agent finished or undid",
            "count",
            count(resumed, incidents.len()),
        )
        .higher(),
    ];
    for (label, q) in [("median", 0.5), ("p95", 0.95), ("worst", 1.0)] {
        if let Some(estimate) = Estimate::quantile(&times, q, seed) {
            let what = format!("fault to healed, the agent's restart included: {label}");
            report
                .rows
                .push(row(&format!("{label}_ms"), &what, "ms", estimate));
        }
    }
    report.finish(begun.elapsed());
    Ok(report)
}

/// Breaks the model, kills the agent after `kill`, starts the next one, and waits until model
/// and service are right again. `None` when they are not within the cap.
fn round(node: &mut Node, kill: Option<Duration>) -> Result<Option<Duration>> {
    let old = life(node, "infer")?;
    interrupt::pause(REST)?;
    let begun = Instant::now();
    inject::corrupt_model(&node.model(), Corruption::Weights)?;
    if let Some(after) = kill {
        interrupt::pause(after)?;
        node.kill_agent()?;
        node.start_agent()?;
    }
    let end = begun + CAP;
    let limit = end.saturating_duration_since(Instant::now());
    let healed = interrupt::until("the healing", limit, || {
        let other = node
            .life("infer")
            .filter(|life| life.instance != old.instance);
        (other.is_some() && node.model_intact()).then(|| begun.elapsed())
    });
    node.check()?;
    match healed {
        Ok(time) => Ok(Some(time)),
        Err(error) if error.is::<interrupt::Interrupted>() => Err(error),
        Err(error) => {
            progress(&format!("  {error:#}"));
            // So that the next round begins in good order.
            if !node.model_intact() {
                inject::corrupt_model(&node.model(), Corruption::Weights)?;
            }
            Ok(None)
        }
    }
}
