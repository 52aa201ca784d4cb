//! What devices say, and what the coordinator knows of other systems: heard from the broker,
//! also by a node that was away and whose session the broker remembers.

use homeostat_agent::io::link::{Class, LinkConfig, LinkEvent, Reason};
use homeostat_common::wire::body::Severity;
use homeostat_common::wire::projection::Outside;
use homeostat_notify::intake::{Form, Heard, Source};

use super::rig::{Node, Peer, config, topics, wait_for};
use super::{PATIENT, both};

fn hearing(port: u16) -> LinkConfig {
    let source = |topic: &str, form| Source {
        topic: topic.parse().unwrap(),
        form,
        severity: Severity::Warning,
        service: None,
    };
    LinkConfig {
        intake: vec![
            source("plant/+/alarm", Form::Alarm),
            source("devices/+/status", Form::Presence),
        ],
        ..config(port)
    }
}

/// The names of alarms that were raised, and how many alarms of others were told.
fn heard(node: &Node) -> (Vec<String>, Option<usize>) {
    let mut names = Vec::new();
    let mut told = None;
    for event in node.events() {
        match event {
            LinkEvent::Heard(_, Heard::Word(word)) if word.raised => names.push(word.alarm),
            LinkEvent::Outside(Outside { alarms, .. }) => told = Some(alarms.len()),
            _ => {}
        }
    }
    names.sort();
    names.dedup();
    (names, told)
}

#[test]
fn alarms_of_others_are_heard_at_once_and_after_a_restart() {
    let (brokers, _guard) = both(1024 * 1024);
    for (name, port) in brokers {
        let peer = Peer::watch("device", port, &["nothing"]);
        let node = Node::start(hearing(port));
        node.await_ready();
        let hot = br#"{"alarm":"hot","state":"raised"}"#;
        peer.retain("plant/press/alarm", hot);
        peer.retain("devices/cam/status", b"offline");
        peer.retain("plant/other/alarm", b"no alarm");
        let outside = br#"{"alarms":[{"alarm":"alertmanager:A","service":null,"severity":"critical","text":"x"}]}"#;
        peer.retain(&topics().outside(), outside);
        let all = (
            vec!["cam-offline".to_owned(), "press-hot".to_owned()],
            Some(1),
        );
        wait_for(name, PATIENT, || heard(&node) == all);
        let ignored = node.handle.counters().ignored;
        assert_eq!(ignored.count(Class::Device, Reason::Malformed), 1);
        drop(node);
        // The broker has the session; what is retained is heard again all the same.
        let node = Node::start(hearing(port));
        wait_for(name, PATIENT, || heard(&node) == all);
        peer.retain("plant/press/alarm", b"");
        let gone = |event: &LinkEvent| matches!(event, LinkEvent::Heard(_, Heard::Gone));
        wait_for(name, PATIENT, || node.events().iter().any(gone));
    }
}
