//! A broker on which somebody publishes garbage of every size to everything that agent and
//! coordinator listen to.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use homeostat_common::wire::RECORD_MAX;
use homeostat_eval::stage::{BrokerKind, Cloud, Node};
use homeostat_testbed::inject;

use crate::mqtt::Client;
use crate::rig::{eager, life, log, next_life, scene, until};

const MESSAGES: usize = 10_000;

/// Largest payload.
const SIZE_MAX: usize = 2_000_000;

/// Sizes at which somebody begins to refuse: JSON, record, the agent's packets, and those of
/// coordinator and embedded broker.
const EDGES: [usize; 4] = [4096, RECORD_MAX, 128 * 1024, 2 * RECORD_MAX];

/// A ping must be answered within this after the storm.
const PONG_MAX: Duration = Duration::from_secs(5);
const PONG_EACH: Duration = Duration::from_millis(500);

/// From nothing to the largest, each order of magnitude as often as the other; one in ten
/// beside an edge.
fn size(rng: &mut Rng) -> usize {
    if rng.u8(..10) == 0 {
        let edge = EDGES[rng.usize(..EDGES.len())];
        return edge - 1 + rng.usize(..3);
    }
    let largest = f64::from(u32::try_from(SIZE_MAX).unwrap()).ln_1p();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let size = (rng.f64() * largest).exp_m1() as usize;
    size
}

/// The beginning looks right half of the time.
fn fill(rng: &mut Rng, payload: &mut [u8]) {
    rng.fill(payload);
    let beginnings: [&[u8]; 4] = [
        b"",
        b"{\"deadline_ms\":",
        b"{\"online\":true,\"version\":\"",
        &[1],
    ];
    let beginning = beginnings[rng.usize(..beginnings.len())];
    if let Some(start) = payload.get_mut(..beginning.len()) {
        start.copy_from_slice(beginning);
    }
}

fn rejected(metrics: &str) -> u64 {
    metrics
        .lines()
        .filter(|line| line.starts_with("homeostat_messages_rejected_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn storm(dir: &Path, kind: BrokerKind) -> Result<()> {
    let cloud = Cloud::start(dir, kind)?;
    let mut node = Node::start(dir, &eager(&["web"], ""), Some(&cloud.broker_url()), None)?;
    until("the broker", || {
        log(&node).contains("broker: connected").then_some(())
    })?;
    let api = cloud.api();
    let stream = until("the node's stream", || {
        api.fleet().ok()?.nodes.first()?.stream.clone()
    })?;
    let base = "hs/v1/local/edge-1";
    let topics = [
        format!("{base}/dn/{stream}"),
        format!("{base}/cmd/ping/x"),
        format!("{base}/cmd/snapshot/x"),
        format!("{base}/cmd/format-disk/x"),
        "hs/v1/local/_all/cmd/ping/x".to_owned(),
        "hs/v1/_coord/status".to_owned(),
        format!("{base}/up/{stream}"),
        format!("{base}/up/none"),
        "hs/v1/elsewhere/nobody/up/00".to_owned(),
        "hs/v1/elsewhere/nobody/status".to_owned(),
    ];
    let address: SocketAddr = cloud.broker_url().trim_start_matches("mqtt://").parse()?;
    let mut rng = Rng::with_seed(8);
    let mut client = Client::connect(address, "garbage")?;
    let (mut sent, mut refused, mut upward) = (0, 0, 0);
    let mut bytes = 0;
    for number in 0..MESSAGES {
        let mut payload = vec![0; size(&mut rng)];
        fill(&mut rng, &mut payload);
        let topic = &topics[number % topics.len()];
        if client.publish(topic, &payload).is_ok() {
            sent += 1;
            bytes += payload.len();
            upward += u64::from(topic.contains("/up/"));
        } else {
            // A broker may end a connection over a message that it does not take, and may not
            // have noticed yet that the name is free again.
            refused += 1;
            client = Client::connect(address, &format!("garbage-{number}"))?;
        }
    }
    let metrics = until("the coordinator's counter", || {
        let metrics = api.text("/metrics").ok()?;
        (rejected(&metrics) > 0).then_some(metrics)
    })?;
    println!(
        "{sent} messages of {} MB, {upward} upward; {refused} refused by the broker; {} rejected",
        bytes / 1_000_000,
        rejected(&metrics)
    );

    let mut asker = Client::connect(address, "asker")?;
    asker.subscribe(&format!("{base}/res/#"))?;
    // A broker whose queue for the agent is full drops what comes then, so ask until it does
    // not, each time by another name.
    let end = Instant::now() + PONG_MAX;
    let mut asked = 0;
    let answer = loop {
        asked += 1;
        client.publish(&format!("{base}/cmd/ping/after-{asked}"), b"{}")?;
        match asker.wait_for(&format!("{base}/res/ping/after-"), PONG_EACH) {
            Ok(answer) => break answer,
            Err(error) => ensure!(Instant::now() < end, "{asked} pings: {error}"),
        }
    };
    ensure!(
        String::from_utf8_lossy(&answer).contains("\"result\":\"ok\""),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let web = life(&node, "web")?;
    inject::kill9(web.pid)?;
    next_life(&node, "web", &web)?;
    until("the incident at the coordinator", || {
        let incidents = api.incidents().ok()?;
        (incidents.first()?.outcome.as_deref() == Some("healed")).then_some(())
    })?;
    let metrics = api.text("/metrics")?;
    println!("{} rejected in the end", rejected(&metrics));
    ensure!(api.healthy(), "the coordinator is not well");
    ensure!(
        rejected(&metrics) >= upward / 4,
        "{} of {upward} counted",
        rejected(&metrics)
    );
    let nodes = api.fleet()?.nodes;
    ensure!(nodes.len() == 1, "garbage became a node: {nodes:?}");
    node.check().context("after the storm")
}

#[test]
fn ten_thousand_garbage_messages_stop_nobody() {
    scene(|dir| storm(dir, BrokerKind::Embedded));
}

#[test]
fn nor_do_they_with_a_broker_that_takes_any_size() {
    if !BrokerKind::Mosquitto.available() {
        println!("skip: mosquitto is not installed");
        return;
    }
    scene(|dir| storm(dir, BrokerKind::Mosquitto));
}
