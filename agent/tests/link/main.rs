//! The MQTT link against real brokers: mosquitto, killed and started again, and
//! rumqttd. Prints `skip:` for mosquitto where it is not installed.
//!
//! The fault tests take seconds each, because brokers and reconnects do.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(unreachable_pub, reason = "a test has no outside")]
#![allow(missing_debug_implementations, reason = "helpers of tests")]

mod broker;
mod devices;
mod orders;
mod rig;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use homeostat_agent::io::link::{Class, LinkConfig, LinkEvent, PACKET_MAX, Projection, Reason};
use homeostat_common::wire::RECORD_MAX;
use homeostat_common::wire::projection::Status;
use homeostat_common::wire::topic::COORDINATOR_STATUS;
use rig::{Coordinator, Node, Peer, STREAM, config, envelope, status, topics, wait_for};
use rumqttc::v5::mqttbytes::QoS;

const PATIENT: Duration = Duration::from_secs(20);

/// The ports of both brokers; mosquitto lives as long as the guard.
pub(crate) fn both(max_payload: usize) -> (Vec<(&'static str, u16)>, Option<broker::Mosquitto>) {
    let mosquitto = broker::mosquitto();
    let mut ports = vec![("rumqttd", broker::rumqttd(max_payload))];
    ports.extend(mosquitto.iter().map(|broker| ("mosquitto", broker.port)));
    (ports, mosquitto)
}

fn ping(peer: &Peer, id: &str) -> Duration {
    let reply = topics().reply("ping", id);
    peer.publish(&format!("hs/v1/plant/edge-1/cmd/ping/{id}"), b"");
    wait_for("the answer to a ping", Duration::from_secs(5), || {
        peer.received().iter().any(|message| message.topic == reply)
    })
}

#[test]
fn a_broker_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    const EVENTS: u64 = 2000;
    const KILLS: u32 = 20;
    let Some(mut broker) = broker::mosquitto() else {
        return;
    };
    let coordinator = Coordinator::start("coordinator", broker.port, 0);
    let node = Node::start(LinkConfig {
        reconnect_max: Duration::from_millis(50),
        ..config(broker.port)
    });
    let mut rng = fastrand::Rng::with_seed(11);
    let start = Instant::now();
    let mut next = 1;
    for _ in 0..KILLS {
        let until = Instant::now() + Duration::from_millis(rng.u64(20..150));
        while Instant::now() < until && next <= EVENTS {
            node.append(next, envelope(next, rng.usize(8..2000)));
            next += 1;
            std::thread::sleep(Duration::from_micros(rng.u64(0..1500)));
        }
        broker.kill();
        for _ in 0..rng.u64(0..60).min(EVENTS + 1 - next) {
            node.append(next, envelope(next, 100));
            next += 1;
        }
        std::thread::sleep(Duration::from_millis(rng.u64(0..100)));
        broker.start();
    }
    while next <= EVENTS {
        node.append(next, envelope(next, 100));
        next += 1;
    }
    wait_for("all events", PATIENT, || node.stored() == 0);
    let counters = node.handle.counters();
    println!(
        "{EVENTS} events, {KILLS} kills: {:?}, {counters:?}",
        start.elapsed()
    );
    assert_eq!(coordinator.arrived(), (1..=EVENTS).collect::<Vec<_>>());
    assert!(counters.births > 10, "the kills did not hit: {counters:?}");
    assert!(
        counters.sent > EVENTS,
        "nothing was under way: {counters:?}"
    );
}

#[test]
fn a_backlog_drains_fast_and_a_coordinator_that_restarts_gets_the_rest() {
    const EVENTS: u64 = 5000;
    let (brokers, _guard) = both(1024 * 1024);
    for (name, port) in brokers {
        let node = Node::start(config(port));
        node.await_ready();
        let first = Coordinator::start("coordinator-1", port, 0);
        let start = Instant::now();
        for seq in 1..=EVENTS {
            node.append(seq, envelope(seq, 300));
        }
        wait_for("the backlog", PATIENT, || node.stored() == 0);
        let rate = 5000.0 / start.elapsed().as_secs_f64();
        println!("{name}: {rate:.0} events/s, {:?}", node.handle.counters());

        let stored = first.arrived().len() as u64;
        drop(first);
        for seq in EVENTS + 1..=EVENTS + 100 {
            node.append(seq, envelope(seq, 300));
        }
        std::thread::sleep(Duration::from_millis(50));
        let second = Coordinator::start("coordinator-2", port, stored);
        wait_for("the rest", PATIENT, || node.stored() == 0);
        assert_eq!(
            second.arrived(),
            (EVENTS + 1..=EVENTS + 100).collect::<Vec<_>>()
        );
    }
}

#[test]
fn an_offline_coordinator_is_left_in_peace() {
    let port = broker::rumqttd(1024 * 1024);
    let watch = Peer::watch("watch", port, &["hs/v1/+/+/up/+"]);
    watch
        .client
        .try_publish(COORDINATOR_STATUS, QoS::AtLeastOnce, true, status(false))
        .unwrap();
    wait_for("status", PATIENT, || watch.published() == 1);
    let node = Node::start(config(port));
    wait_for("offline", PATIENT, || {
        node.seen(|event| *event == LinkEvent::CoordinatorOnline(false)) > 0
    });
    let before = watch.received().len();
    for seq in 1..=500 {
        node.append(seq, envelope(seq, 300));
    }
    std::thread::sleep(Duration::from_millis(1500));
    let probes = watch.received().len() - before;
    assert!((1..=4).contains(&probes), "{probes} records");
}

#[test]
fn a_coordinator_that_comes_back_is_told_what_is_gone() {
    let (brokers, _guard) = both(1024 * 1024);
    for (name, port) in brokers {
        let coordinator = Coordinator::start("coordinator", port, 0);
        let node = Node::start(config(port));
        node.await_ready();
        for seq in 1..=3 {
            node.append(seq, envelope(seq, 100));
        }
        wait_for("acknowledged", PATIENT, || {
            node.seen(|event| *event == LinkEvent::Acked { through: 3 }) > 0
        });
        let watch = Peer::watch("watch", port, &["hs/v1/plant/edge-1/status"]);
        let said = |acked| {
            watch.received().iter().any(|message| {
                serde_json::from_slice::<Status>(&message.payload)
                    .is_ok_and(|status| status.online && status.acked == acked)
            })
        };
        wait_for("the birth", PATIENT, || said(0));
        assert!(!said(3), "{name}");
        watch.publish(COORDINATOR_STATUS, &status(true));
        wait_for("the status again", PATIENT, || said(3));
        drop((node, coordinator));
    }
}

#[test]
fn presence_retained_values_and_a_goodbye_are_seen_by_any_client() {
    let (brokers, _guard) = both(1024 * 1024);
    for (name, port) in brokers {
        let node = Node::start(config(port));
        let alarm = topics().alarm("web-dead");
        for text in ["one", "two", "newest"] {
            node.handle
                .publish(Projection::new(alarm.clone(), text.into()).unwrap());
        }
        node.await_ready();
        let event = Projection::new(topics().event("boot"), b"{}".to_vec()).unwrap();
        let watch = Peer::watch("watch", port, &["hs/v1/plant/edge-1/#"]);
        node.handle.publish(event);
        let has = |topic: &str, payload: Option<&str>| {
            watch.received().iter().any(|message| {
                message.topic == topic && payload.is_none_or(|p| message.payload == p.as_bytes())
            })
        };
        wait_for("presence", PATIENT, || {
            has(&topics().status(), None)
                && has(&topics().meta(), None)
                && has(&topics().event("boot"), Some("{}"))
                && has(&alarm, Some("newest"))
        });
        assert!(!has(&alarm, Some("one")), "{name}");
        drop(node);
        let offline = |payload: &[u8]| {
            serde_json::from_slice::<Status>(payload).is_ok_and(|status| !status.online)
        };
        wait_for("the goodbye", PATIENT, || {
            let received = watch.received();
            received.iter().any(|message| offline(&message.payload))
        });
    }
}

#[test]
fn commands_are_answered_once_and_others_refused() {
    let (brokers, _guard) = both(1024 * 1024);
    for (name, port) in brokers {
        let node = Node::start(config(port));
        node.await_ready();
        let peer = Peer::watch("operator", port, &["hs/v1/plant/edge-1/res/+/+"]);
        println!("{name}: ping answered after {:?}", ping(&peer, "a"));
        peer.publish("hs/v1/plant/edge-1/cmd/ping/a", b"");
        peer.publish("hs/v1/plant/_all/cmd/snapshot/b", b"");
        peer.publish("hs/v1/plant/edge-1/cmd/reboot/c", b"{}");
        peer.publish("hs/v1/plant/edge-1/cmd/ping/d", b"{\"deadline_ms\":5}");
        ping(&peer, "e");
        let answers = |end: &str| -> Vec<String> {
            let received = peer.received();
            let mine = received
                .iter()
                .filter(|message| message.topic.ends_with(end));
            mine.map(|message| String::from_utf8(message.payload.clone()).unwrap())
                .collect()
        };
        assert_eq!(answers("ping/a").len(), 1);
        assert_eq!(answers("snapshot/b").len(), 1);
        assert_eq!(
            answers("reboot/c"),
            [r#"{"result":"refused","reason":"unknown kind; there are ping and snapshot"}"#]
        );
        assert!(answers("ping/d")[0].contains("deadline"));
        let ignored = node.handle.counters().ignored;
        assert_eq!(ignored.count(Class::Command, Reason::Duplicate), 1);
        assert_eq!(ignored.count(Class::Command, Reason::Expired), 1);
    }
}

#[test]
fn garbage_of_any_size_stops_nothing() {
    const MESSAGES: usize = 10_000;
    let limit = PACKET_MAX as usize;
    let (brokers, _guard) = both(limit - 1024);
    for (name, port) in brokers {
        let node = Node::start(config(port));
        node.await_ready();
        let peer = Peer::watch("operator", port, &[]);
        let good = Peer::watch("good", port, &["hs/v1/plant/edge-1/res/ping/+"]);
        let mut rng = fastrand::Rng::with_seed(5);
        let noise: Vec<u8> = (0..2 * 1024 * 1024).map(|_| rng.u8(..)).collect();
        // Up to what passes: above it rumqttd ends the sender's connection, and
        // the next test is about mosquitto.
        let largest = limit - 2048;
        let down = topics().down(STREAM);
        let edges = [
            0,
            1,
            RECORD_MAX - 1,
            RECORD_MAX,
            RECORD_MAX + 1,
            4095,
            4096,
            4097,
        ];
        let start = Instant::now();
        for at in 0..MESSAGES {
            let size = match edges.get(at) {
                Some(size) => *size,
                None => log_uniform(&mut rng, largest),
            };
            let from = rng.usize(..=noise.len() - size);
            let topic = match rng.u8(0..5) {
                0 => down.clone(),
                1 => COORDINATOR_STATUS.into(),
                2 => format!("hs/v1/plant/edge-1/cmd/ping/{at}"),
                3 => format!("hs/v1/plant/_all/cmd/snapshot/{at}"),
                _ => format!("hs/v1/plant/edge-1/cmd/{}/x", rng.alphabetic()),
            };
            peer.publish(&topic, &noise[from..from + size]);
        }
        wait_for("the garbage", PATIENT, || peer.published() >= MESSAGES);
        let flood = start.elapsed();
        let answered = ping(&good, "good");
        let counters = node.handle.counters();
        println!("{name}: {MESSAGES} in {flood:?}, ping after {answered:?}, {counters:?}");
        assert_eq!(counters.births, 1, "{name}: the link broke");
        let ignored = counters.ignored;
        assert!(ignored.total() > 7000, "{name}");
        for (class, reason) in [
            (Class::Down, Reason::Malformed),
            (Class::Down, Reason::Oversize),
            (Class::CoordinatorStatus, Reason::Malformed),
            (Class::CoordinatorStatus, Reason::Oversize),
            (Class::Command, Reason::Malformed),
            (Class::Command, Reason::Oversize),
            (Class::Command, Reason::UnknownKind),
        ] {
            assert!(
                ignored.count(class, reason) > 0,
                "{name} {class:?} {reason:?}"
            );
        }
        forged_ack(&node, &good, &down);
    }
}

#[test]
fn messages_above_the_limit_do_not_silence_mosquitto_for_ever() {
    let Some(broker) = broker::mosquitto() else {
        return;
    };
    let node = Node::start(config(broker.port));
    node.await_ready();
    let coordinator = Coordinator::start("coordinator", broker.port, 0);
    let peer = Peer::watch("operator", broker.port, &["hs/v1/plant/edge-1/res/ping/+"]);
    let limit = PACKET_MAX as usize;
    let noise = vec![0xa5; 2 * 1024 * 1024];
    for at in 0..60 {
        // Around the limit, then far above.
        let size = if at < 40 {
            limit - 60 + at * 2
        } else {
            noise.len()
        };
        peer.publish("hs/v1/plant/edge-1/cmd/ping/big", &noise[..size]);
    }
    wait_for("the noise", PATIENT, || peer.published() >= 60);
    for seq in 1..=100 {
        node.append(seq, envelope(seq, 300));
    }
    wait_for("the events", PATIENT, || node.stored() == 0);
    println!("{:?}, {:?}", node.handle.counters(), node.reasons());
    assert_eq!(coordinator.arrived().len(), 100);
    ping(&peer, "good");
}

/// As many of one byte as of a hundred thousand, and none at all sometimes.
fn log_uniform(rng: &mut fastrand::Rng, largest: usize) -> usize {
    let bits = largest.ilog2();
    let scale = 1 << rng.u32(0..=bits);
    rng.usize(scale - 1..2 * scale - 1).min(largest)
}

/// Acknowledges what was never sent.
fn forged_ack(node: &Node, peer: &Peer, down: &str) {
    let ack = homeostat_common::wire::Down::Ack { through: 1 << 40 };
    let before = node
        .handle
        .counters()
        .ignored
        .count(Class::Down, Reason::Beyond);
    peer.publish(down, &ack.encode().unwrap());
    wait_for("the refusal", PATIENT, || {
        node.handle
            .counters()
            .ignored
            .count(Class::Down, Reason::Beyond)
            > before
    });
    assert_eq!(
        node.seen(|event| matches!(event, LinkEvent::Acked { .. })),
        0
    );
}

#[test]
fn a_message_above_the_packet_limit_ends_in_a_clean_start_not_in_a_loop() {
    // A broker that ignores what a subscriber takes.
    let port = broker::rumqttd(4 * 1024 * 1024);
    let node = Node::start(config(port));
    node.await_ready();
    let peer = Peer::watch("operator", port, &["hs/v1/plant/edge-1/res/ping/+"]);
    let poison = vec![0; PACKET_MAX as usize + 1];
    // Also retained, on a topic that is subscribed to again each time.
    peer.client
        .try_publish(COORDINATOR_STATUS, QoS::AtLeastOnce, true, poison.clone())
        .unwrap();
    peer.publish("hs/v1/plant/edge-1/cmd/ping/poison", &poison);
    wait_for("a clean start", PATIENT, || {
        node.handle.counters().clean_starts >= 1
    });
    // A clean start also drops what was sent to the old session just before.
    wait_for("the next birth", PATIENT, || {
        node.handle.counters().births >= 2
    });
    ping(&peer, "good");
    let counters = node.handle.counters();
    println!("{counters:?}, {:?}", node.reasons());
    assert!(counters.attempts <= 10, "{counters:?}");
}

#[test]
fn two_devices_with_one_name_do_not_kick_each_other_for_ever() {
    let (brokers, _guard) = both(1024 * 1024);
    for (name, port) in brokers {
        let one = Node::start(config(port));
        one.await_ready();
        let two = Node::start(config(port));
        std::thread::sleep(Duration::from_secs(2));
        println!("{name}: {:?}", one.reasons());
        let (one, two) = (one.handle.counters(), two.handle.counters());
        println!("{name}: {one:?} {two:?}");
        let attempts = one.attempts + two.attempts;
        // At 200 ms between attempts 2 s have room for 40.
        assert!((2..=45).contains(&attempts), "{name}: {attempts} attempts");
    }
}

#[test]
fn a_node_that_is_told_of_its_double_waits() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let node = Node::start(config(listener.local_addr().unwrap().port()));
    for _ in 0..3 {
        let (mut stream, _) = listener.accept().unwrap();
        let mut packet = [0; 2048];
        let _ = stream.read(&mut packet).unwrap();
        // CONNACK; then SUBACK of packet 1 for six filters and of 2 for one.
        stream.write_all(&[0x20, 3, 0, 0, 0]).unwrap();
        let _ = stream.read(&mut packet).unwrap();
        stream
            .write_all(&[0x90, 9, 0, 1, 0, 1, 1, 1, 1, 1, 1])
            .unwrap();
        stream.write_all(&[0x90, 4, 0, 2, 0, 1]).unwrap();
        let _ = stream.read(&mut packet).unwrap();
        // DISCONNECT: session taken over.
        stream.write_all(&[0xe0, 2, 0x8e, 0]).unwrap();
        let _ = stream.read(&mut packet);
    }
    wait_for("the third", PATIENT, || {
        node.handle.counters().taken_over == 3
    });
    std::thread::sleep(Duration::from_millis(500));
    let counters = node.handle.counters();
    assert_eq!((counters.attempts, counters.births), (3, 3));
}

#[test]
fn a_server_that_speaks_no_mqtt_does_no_harm() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let node = Node::start(config(port));
    let mut rng = fastrand::Rng::with_seed(9);
    let mut served = 0;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until && served < 60 {
        let (mut stream, _) = listener.accept().unwrap();
        served += 1;
        let mut greeting = [0; 512];
        let _ = stream.read(&mut greeting);
        let mut noise: Vec<u8> = (0..rng.usize(0..3000)).map(|_| rng.u8(..)).collect();
        if rng.bool() {
            // A good CONNACK first, and then a publish that is none.
            let head = [0x20, 3, 0, 0, 0, 0x30 | rng.u8(0..16)];
            noise.splice(0..0, head);
        }
        let _ = stream.write_all(&noise);
    }
    let counters = node.handle.counters();
    println!("{served} served: {counters:?}");
    assert!(served >= 15, "{served}");
    assert_eq!(counters.births, 0);
}
