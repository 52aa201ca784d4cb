//! The whole program: real processes, a real broker, a real database.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

mod support;

use std::time::{Duration, Instant};

use homeostat_common::anomaly::Fault;
use support::{End, Node, Program, boot, fleet, healthy, incident, until};

#[test]
fn killed_at_any_moment_it_loses_and_doubles_nothing() {
    let broker = Program::broker();
    kill_three_times(broker.mqtt.unwrap());
}

#[test]
fn killed_behind_mosquitto_it_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    match support::mosquitto(folder.path()) {
        Some((_broker, port)) => kill_three_times(port),
        None => println!("skip: no mosquitto here"),
    }
}

fn kill_three_times(port: u16) {
    const RECORDS: u64 = 3000;
    let data = tempfile::tempdir().unwrap();
    let mut serve = Program::serve(port, data.path());
    serve.healthy();
    let node = Node::connect(port, "edge-1");
    let stored = |serve: &Program| serve.json("/api/v1/fleet")["nodes"][0]["acked"].as_u64();

    // The node sends everything once and never connects again: what the
    // coordinator had taken but not stored must come from the broker.
    let mut killed_in_the_middle = 0;
    let mut next = 1;
    while next <= RECORDS {
        for seq in next..next + 300 {
            node.send(&node.note(seq));
        }
        next += 300;
        if next % 900 == 1 {
            // Not before some of it is stored, not after all is.
            until("begun", || {
                stored(&serve).filter(|acked| *acked > next.saturating_sub(900))
            });
            killed_in_the_middle += u32::from(stored(&serve) < Some(next - 1));
            serve.kill();
            serve = Program::serve(port, data.path());
        }
    }
    until("stored", || {
        stored(&serve).filter(|acked| *acked >= RECORDS)
    });
    node.wait_for(RECORDS);
    println!("killed with records on the way: {killed_in_the_middle} of 3 times");

    let mut seen = Vec::new();
    let mut cursor = 0;
    loop {
        let page = serve.json(&format!("/api/v1/events?limit=500&after={cursor}"));
        let events = page["events"].as_array().unwrap();
        if events.is_empty() {
            break;
        }
        seen.extend(events.iter().map(|event| event["seq"].as_u64().unwrap()));
        cursor = page["cursor"].as_u64().unwrap();
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=RECORDS).collect::<Vec<_>>());
    assert_eq!(serve.terminate(), Some(0));
}

#[test]
fn a_storm_of_garbage_stops_nothing_behind_it() {
    let data = tempfile::tempdir().unwrap();
    let mut serve = Program::both(data.path());
    serve.healthy();
    let node = Node::connect(serve.mqtt.unwrap(), "edge-1");
    let up = node.topics.up(node.stream);
    let mut newer = node.note(1).encode().unwrap();
    newer[0] = 2;
    for _ in 0..200 {
        node.send_raw(&up, b"\x01garbage".to_vec());
        node.send_raw(&up, Vec::new());
        node.send_raw(&up, newer.clone());
        node.send_raw(&up, vec![1; 70_000]);
        node.send_raw(
            &up.replace("edge-1", "edge-2"),
            node.note(1).encode().unwrap(),
        );
        node.send_raw(&node.topics.status(), b"{\"online\":maybe}".to_vec());
        node.send_raw("hs/v1/Not A Site/x/status", b"{}".to_vec());
    }
    node.send(&node.note(1));
    node.wait_for(1);
    // The broker may hand on what came for another subscription later.
    for line in [
        "homeostat_messages_rejected_total{reason=\"malformed\"} 600",
        "homeostat_messages_rejected_total{reason=\"version\"} 200",
        "homeostat_messages_rejected_total{reason=\"too-large\"} 200",
        "homeostat_messages_rejected_total{reason=\"sender\"} 200",
        "homeostat_messages_rejected_total{reason=\"topic\"} 200",
        "homeostat_records_ingested_total 1",
    ] {
        until(line, || {
            let (_, _, metrics) = serve.get("/metrics");
            metrics.lines().any(|each| each == line).then_some(())
        });
    }
    assert_eq!(serve.terminate(), Some(0));
}

#[test]
fn duplicates_are_acknowledged_again_and_presence_follows_the_broker() {
    let data = tempfile::tempdir().unwrap();
    let serve = Program::both(data.path());
    serve.healthy();
    let node = Node::connect(serve.mqtt.unwrap(), "edge-1");
    node.status(true);
    node.send(&node.note(1));
    node.wait_for(1);
    node.send(&node.note(1));
    node.wait_for(1);
    let presence = || serve.json("/api/v1/fleet")["nodes"][0]["presence"].clone();
    until("online", || (presence() == "online").then_some(()));
    node.status(false);
    until("offline", || (presence() == "offline").then_some(()));
    let (_, _, metrics) = serve.get("/metrics");
    assert!(
        metrics.contains("homeostat_records_duplicate_total 1\n"),
        "{metrics}"
    );
}

#[test]
fn a_coordinator_without_its_database_goes_on_with_what_is_new() {
    let broker = Program::broker();
    let port = broker.mqtt.unwrap();
    let first = tempfile::tempdir().unwrap();
    let mut serve = Program::serve(port, first.path());
    serve.healthy();
    let node = Node::connect(port, "edge-1");
    node.status(true);
    (1..=5).for_each(|seq| node.send(&node.note(seq)));
    node.wait_for(5);
    // What is acknowledged is gone on a node. The status comes before the next
    // record in the first round, and behind it in the second.
    for (round, last) in [(1, 5), (2, 8)] {
        serve.kill();
        let fresh = tempfile::tempdir().unwrap();
        let _ = std::fs::remove_dir_all(first.path());
        serve = Program::serve(port, fresh.path());
        serve.healthy();
        node.acknowledged();
        if round == 1 {
            node.status_acked(true, last);
        }
        (last + 1..=last + 3).for_each(|seq| node.send(&node.note(seq)));
        if round == 2 {
            node.status_acked(true, last);
        }
        node.wait_for(last + 3);
        let seen = &serve.json("/api/v1/fleet")["nodes"][0];
        assert_eq!(
            (&seen["acked"], &seen["lost"], &seen["missing"]),
            (&(last + 3).into(), &last.into(), &0.into()),
            "{seen}"
        );
        serve.kill();
        serve = Program::serve(port, fresh.path());
        serve.healthy();
    }
}

#[test]
fn the_command_line_shows_what_the_api_knows() {
    let data = tempfile::tempdir().unwrap();
    let serve = Program::both(data.path());
    serve.healthy();
    let node = Node::connect(serve.mqtt.unwrap(), "edge-1");
    node.status(true);
    node.send(&boot(&node, 1));
    node.send(&healthy(&node, 2, "infer"));
    for record in incident(&node, 3, "camera", Fault::Crash, End::Healed, "\u{1b}[31m") {
        node.send(&record);
    }
    node.wait_for(9);
    let url = format!("http://127.0.0.1:{}", serve.http.unwrap());
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_homeostat"))
            .args(args)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, out, _) = run(&["fleet", "ls", "--url", &url]);
    assert_eq!(code, Some(0));
    assert!(out.contains("camera=healthy infer=healthy"), "{out}");
    let (code, out, _) = run(&["fleet", "routes", "--url", &url]);
    assert_eq!((code, out.lines().count()), (Some(0), 1), "{out}");
    let (code, out, _) = run(&["incident", "ls", "--url", &url]);
    assert_eq!(code, Some(0));
    assert!(
        out.lines()
            .nth(1)
            .unwrap()
            .contains("restart(camera, grace=0ms)"),
        "{out}"
    );
    let (code, out, _) = run(&["incident", "show", "1", "--url", &url]);
    assert_eq!(code, Some(0));
    assert!(out.contains("refused rollback_model(camera)"), "{out}");
    assert!(!out.contains('\u{1b}'), "a terminal must not obey a node");
    let (code, out, _) = run(&["incident", "ls", "--json", "--url", &url]);
    assert_eq!(code, Some(0));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&out).unwrap()["incidents"][0]["id"],
        1
    );
    let (code, _, err) = run(&["incident", "show", "99", "--url", &url]);
    assert_eq!(
        (code, err.as_str()),
        (Some(1), "homeostat: there is no incident 99\n")
    );
    let _fleet = fleet::three(serve.mqtt.unwrap(), "\u{1b}[31m");
    let (_, out, _) = run(&["fleet", "ls", "--url", &url]);
    assert!(out.contains("infer=1/3 store=1/1"), "{out}");
    let (code, out, _) = run(&["fleet", "routes", "--url", &url]);
    assert_eq!(code, Some(0));
    assert!(out.contains("route infer on east"), "{out}");
    let open = serve.json("/api/v1/incidents?state=open&node=west");
    let slow = open["incidents"][0]["id"].to_string();
    let (code, out, _) = run(&["incident", "show", &slow, "--url", &url]);
    assert_eq!(code, Some(0));
    for part in [
        "evidence     p95 812 ms",
        "option       refused restart(infer-1, grace=2s) (playbook): blast-radius: 1 of 2",
        "health       50 % then, 100 % predicted",
        "cost         1.72 predicted, - spent, of a budget of 88.4",
        "release(infer, infer-1)            waiting",
    ] {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
    println!("{out}");
    let (code, _, err) = run(&["fleet", "ls", "--url", "http://127.0.0.1:1"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("http://127.0.0.1:1"), "{err}");
}

#[test]
fn presence_is_known_again_after_a_restart() {
    let brokers = tempfile::tempdir().unwrap();
    let ours = Program::broker();
    let theirs = support::mosquitto(brokers.path());
    for port in ours
        .mqtt
        .into_iter()
        .chain(theirs.as_ref().map(|(_, port)| *port))
    {
        let data = tempfile::tempdir().unwrap();
        let mut serve = Program::serve(port, data.path());
        serve.healthy();
        let node = Node::connect(port, "edge-1");
        node.status(true);
        for end in ["kill", "terminate"] {
            until("online", || {
                (serve.json("/api/v1/fleet")["summary"]["online"] == 1).then_some(())
            });
            if end == "kill" {
                serve.kill();
            } else {
                serve.terminate();
            }
            serve = Program::serve(port, data.path());
        }
        until("online at last", || {
            (serve.json("/api/v1/fleet")["summary"]["online"] == 1).then_some(())
        });
    }
}

/// Printed, not judged: a busy machine is no defect.
#[test]
fn ingest_throughput_is_measured() {
    const RECORDS: u64 = 5000;
    let data = tempfile::tempdir().unwrap();
    let broker = Program::broker();
    let serve = Program::serve(broker.mqtt.unwrap(), data.path());
    serve.healthy();
    let node = Node::connect(broker.mqtt.unwrap(), "edge-1");
    let records: Vec<_> = (1..=RECORDS).map(|seq| node.note(seq)).collect();
    let begin = Instant::now();
    for record in &records {
        node.send(record);
    }
    node.wait_for(RECORDS);
    let took = begin.elapsed().max(Duration::from_millis(1));
    println!(
        "ingest: {RECORDS} records in {took:?}, {:.0} records/s",
        RECORDS as f64 / took.as_secs_f64()
    );
    let (_, _, metrics) = serve.get("/metrics");
    for name in [
        "homeostat_store_batches_total",
        "homeostat_records_duplicate_total",
    ] {
        println!(
            "{}",
            metrics.lines().find(|line| line.starts_with(name)).unwrap()
        );
    }
}
