//! A node with the cloud, without it, and with it again: everything arrives once, in an order
//! that can have been.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use homeostat_coordinator::fleet::view::IncidentState;
use homeostat_eval::audit::{Audit, disorder};
use homeostat_eval::stage::{BrokerKind, Cloud, Node, interrupt};
use homeostat_testbed::inject::{self, Corruption};

use crate::rig::{closed, eager, life, log, next_life, rest, scene, until};

/// The node's clock is an hour behind the coordinator's.
const SLOW: &str = "[clock]\noffset = \"-1h\"";

/// Longest wait for a backlog of a few hundred events.
const ARRIVED_MAX: Duration = Duration::from_secs(12);

/// Waits until the coordinator has `count` incidents with their end, and all of the events in
/// between.
fn arrived(cloud: &Cloud, count: usize) -> Result<()> {
    let api = cloud.api();
    let mut last = String::new();
    let all = interrupt::until("all events", ARRIVED_MAX, || {
        let fleet = api.fleet().ok()?;
        let node = fleet.nodes.first()?;
        let incidents = api.incidents().ok()?;
        let over = incidents
            .iter()
            .filter(|incident| incident.state == IncidentState::Closed)
            .count();
        last = format!("{over} of {} incidents, {node:?}", incidents.len());
        (over >= count && node.missing == 0).then_some(())
    });
    all.with_context(|| last)
}

/// All that can be said against what the coordinator holds.
fn audit(cloud: &Cloud, count: usize) -> Result<()> {
    let api = cloud.api();
    let events = api.events()?;
    let audit = Audit::of(&events);
    println!("{audit:?}");
    ensure!(audit.whole(), "{audit:?}");
    let incidents = api.incidents()?;
    ensure!(incidents.len() == count, "{} incidents", incidents.len());
    for incident in &incidents {
        let detail = api.incident(incident.id)?;
        ensure!(disorder(&detail).is_none(), "{:?}", disorder(&detail));
        ensure!(incident.plan.is_some(), "no plan: {incident:?}");
        ensure!(
            incident.outcome.as_deref() == Some("healed"),
            "{incident:?}"
        );
        // By cause, whatever the clocks say.
        for (place, event) in detail.timeline.iter().enumerate() {
            for cause in &event.causes {
                let at = detail
                    .timeline
                    .iter()
                    .position(|other| other.stream == cause.stream && other.seq == cause.seq);
                ensure!(
                    at.is_none_or(|at| at < place),
                    "incident {}: {} stands before its cause",
                    incident.id,
                    event.seq
                );
            }
        }
    }
    // The clock really was slow.
    let event = events.last().context("there are events")?;
    let behind = event.received_ms.saturating_sub(event.hlc_ms) / 60_000;
    ensure!(
        (55..=65).contains(&behind),
        "the node's clock is {behind} min behind"
    );
    Ok(())
}

fn broker_lost_and_back(dir: &Path, kind: BrokerKind) -> Result<()> {
    let mut cloud = Cloud::start(dir, kind)?;
    let settings = eager(&["web", "infer"], SLOW);
    let mut node = Node::start(dir, &settings, Some(&cloud.broker_url()), None)?;
    until("the broker", || {
        log(&node).contains("broker: connected").then_some(())
    })?;
    let web = life(&node, "web")?;
    inject::kill9(web.pid)?;
    let web = next_life(&node, "web", &web)?;
    arrived(&cloud, 1)?;
    let first = cloud.api().incidents()?;
    let first = first.first().context("the incident")?;
    ensure!(first.service.as_deref() == Some("web"), "{first:?}");
    ensure!(
        first
            .plan
            .as_deref()
            .is_some_and(|plan| plan.contains("restart(web")),
        "{first:?}"
    );
    ensure!(first.connected == Some(true), "{first:?}");
    ensure!(first.outcome.as_deref() == Some("healed"), "{first:?}");

    cloud.kill_broker()?;
    inject::kill9(web.pid)?;
    next_life(&node, "web", &web)?;
    closed(&node, 2)?;
    // A cold start without the cloud, and a fault after it.
    node.kill_agent()?;
    node.start_agent()?;
    let infer = life(&node, "infer")?;
    until("being taken over", || {
        log(&node).contains("are taken over").then_some(())
    })?;
    rest(Duration::from_millis(500));
    inject::corrupt_model(&node.model(), Corruption::Weights)?;
    next_life(&node, "infer", &infer)?;
    closed(&node, 3)?;

    cloud.start_broker()?;
    arrived(&cloud, 3)?;
    audit(&cloud, 3)?;
    node.check()
}

#[test]
fn what_was_healed_offline_arrives_once_and_in_order_when_the_broker_is_back() {
    scene(|dir| broker_lost_and_back(dir, BrokerKind::Embedded));
}

#[test]
fn so_it_does_with_a_mosquitto_that_forgets_everything() {
    if !BrokerKind::Mosquitto.available() {
        println!("skip: mosquitto is not installed");
        return;
    }
    scene(|dir| broker_lost_and_back(dir, BrokerKind::Mosquitto));
}
