//! What is learned of roles: who is suspected where one shows what the others do not, where all
//! of a kind do, and where they share what they stand on.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use std::time::Duration;

use homeostat_causes::weigh::{PLACES, WEIGHTS, gather};
use homeostat_causes::{
    Alarm, Component, Diagnosis, Event, Evidence, Far, Graph, Kind, Probe, Reason, Role, Sign,
    Signals, Suspect, Topic, Weighed, diagnose,
};
use proptest::prelude::*;

/// Two services of three instances each, one on each of three hosts; the first calls the second.
struct Fleet {
    graph: Graph,
    services: [Component; 2],
    instances: [[Component; 3]; 2],
    hosts: [Component; 3],
}

fn fleet() -> Fleet {
    let mut graph = Graph::default();
    let mut add = |name: &str, role| {
        let of = graph.add(name).unwrap();
        graph.role(of, role).unwrap();
        of
    };
    let services = ["front", "store"].map(|name| add(name, Role::Service));
    let hosts = ["h1", "h2", "h3"].map(|name| add(name, Role::Host));
    let mut instance =
        |service: &str| [1, 2, 3].map(|at| add(&format!("{service}-{at}"), Role::Instance));
    let instances = [instance("front"), instance("store")];
    for (service, instances) in services.iter().zip(&instances) {
        for (instance, host) in instances.iter().zip(&hosts) {
            graph.calls(*service, *instance, None).unwrap();
            graph.calls(*instance, *host, None).unwrap();
        }
    }
    for instance in instances[0] {
        graph.calls(instance, services[1], None).unwrap();
    }
    Fleet {
        graph,
        services,
        instances,
        hosts,
    }
}

/// Thirty rows of 5 s in which all is well and four with what `ill` adds.
fn signals(fleet: &Fleet, ill: impl Fn(Component, Kind) -> f32) -> Signals {
    let mut signals = Signals::keeping(64);
    let callers = fleet
        .services
        .iter()
        .chain(fleet.instances.iter().flatten());
    let callers = callers.flat_map(|of| [(*of, Kind::Latency, 20.0), (*of, Kind::Errors, 0.0)]);
    let own = fleet.hosts.iter().chain(fleet.instances.iter().flatten());
    let own = own.map(|of| (*of, Kind::Resource, 2.2));
    for (of, kind, usual) in callers.chain(own) {
        let series = signals.series(of, kind, "one").unwrap();
        for row in 0..34_u16 {
            let noise = f32::from(row * 7 % 5) / 400.0;
            let more = if row < 30 { 0.0 } else { ill(of, kind) };
            let at = Duration::from_secs(u64::from(row) * 5);
            signals.push(series, at, usual * (1.0 + noise) + more, 50.0);
        }
    }
    signals
}

fn found(fleet: &Fleet, ill: impl Fn(Component, Kind) -> f32) -> Diagnosis {
    let signals = signals(fleet, ill);
    let alarm = Alarm::of(fleet.services[0], Kind::Latency, Duration::from_secs(150));
    diagnose(&fleet.graph, &signals, &alarm)
}

fn first(fleet: &Fleet, found: &Diagnosis) -> String {
    fleet.graph.name(found.suspects[0].component).to_owned()
}

#[test]
fn the_one_that_differs_is_the_root_and_what_all_share_is() {
    let fleet = fleet();
    let [front, store] = fleet.services;
    let one = fleet.instances[1][1];
    let alone = found(&fleet, |of, kind| match (of, kind) {
        (of, Kind::Latency) if of == front || of == store => 300.0,
        (of, Kind::Latency) if of == one => 900.0,
        (of, Kind::Resource) if of == one => 0.9,
        _ => 0.0,
    });
    assert_eq!(first(&fleet, &alone), "store-2");
    let host = fleet.hosts[0];
    let on_it = fleet.instances.map(|instances| instances[0]);
    let shared = found(&fleet, |of, kind| match (of, kind) {
        (of, Kind::Latency) if of == front || of == store => 300.0,
        (of, Kind::Latency) if on_it.contains(&of) => 900.0,
        (of, Kind::Resource) if of == host => 0.9,
        _ => 0.0,
    });
    assert_eq!(first(&fleet, &shared), "h1");
    let sure = |one: &Diagnosis| one.suspects[0].confidence;
    for one in [&alone, &shared] {
        assert!(
            (0.0..=1.0).contains(&sure(one)) && one.roots >= 1,
            "{one:?}"
        );
    }
}

#[test]
fn a_quiet_fleet_has_no_suspects_and_garbage_is_finite() {
    let fleet = fleet();
    let quiet = found(&fleet, |_, _| 0.0);
    assert!(quiet.suspects.is_empty(), "{quiet:?}");
    let wild = found(&fleet, |of, _| {
        [f32::NAN, f32::INFINITY, -1e30, 1e11][usize::from(of.0) % 4]
    });
    assert!(wild.suspects.iter().all(|one| one.confidence.is_finite()));
    // A circle of roles that make no sense together.
    let mut graph = Graph::default();
    let all: Vec<Component> = (0..6)
        .map(|at| graph.add(&at.to_string()).unwrap())
        .collect();
    for (at, of) in all.iter().enumerate() {
        graph
            .role(*of, [Role::Site, Role::Link, Role::Host][at % 3])
            .unwrap();
        graph.calls(*of, all[(at + 1) % 6], None).unwrap();
    }
    let signals = signals(&fleet, |_, _| 50.0);
    let odd = diagnose(&graph, &signals, &Alarm::at(Duration::from_secs(150)));
    assert!(odd.suspects.iter().all(|one| one.confidence.is_finite()));
}

#[test]
fn new_lines_speak_by_what_they_are_about() {
    let fleet = fleet();
    let mut signals = signals(&fleet, |of, kind| match kind {
        Kind::Errors if of == fleet.services[0] || of == fleet.services[1] => 0.4,
        Kind::Errors if fleet.instances[1].contains(&of) => 0.4,
        _ => 0.0,
    });
    let (runs, served, expired) = (Event(0), Event(1), Event(2));
    signals.events.about(served, "served <n> requests");
    signals.events.about(expired, "token expired at <time>");
    for of in fleet.instances.as_flattened() {
        signals.events.count(*of, runs, served, 20);
    }
    signals.events.close(1.0);
    let alarm = Alarm::of(fleet.services[0], Kind::Errors, Duration::from_secs(150));
    let store = fleet.services[1];
    let sure = |signals: &Signals| {
        let all = gather(&fleet.graph, signals, &alarm);
        let one = all.iter().find(|one| one.component == store).unwrap();
        assert!(
            one.features
                .iter()
                .all(|(place, _)| usize::from(*place) < PLACES)
        );
        one.odds(&WEIGHTS)
    };
    let before = sure(&signals);
    for of in fleet.instances[1] {
        signals.events.count(of, runs, expired, 30);
    }
    // A credential that all instances of a service share.
    assert!(
        sure(&signals) > before + 1.0,
        "{} after {before}",
        sure(&signals)
    );
}

fn weighed(suspect: &Suspect) -> Vec<&Weighed> {
    let all = suspect.evidence.iter();
    all.filter_map(|one| match one {
        Evidence::Weighed(one) => Some(one),
        _ => None,
    })
    .collect()
}

#[test]
fn who_is_named_by_log_lines_alone_is_told_by_them_and_probed_there() {
    let fleet = fleet();
    let [front, store] = fleet.services;
    let one = fleet.instances[1][1];
    let mut signals = signals(&fleet, |of, kind| match kind {
        Kind::Errors if of == front || of == store => 0.3,
        _ => 0.0,
    });
    let (runs, served, torn) = (Event(0), Event(1), Event(2));
    signals.events.about(served, "served <n> requests");
    signals.events.about(torn, "checksum mismatch in segment");
    for of in fleet.instances.as_flattened() {
        signals.events.count(*of, runs, served, 20);
    }
    signals.events.close(1.0);
    signals.events.count(one, runs, torn, 30);
    let alarm = Alarm::of(front, Kind::Errors, Duration::from_secs(150));
    let found = diagnose(&fleet.graph, &signals, &alarm);
    let first = &found.suspects[0];
    assert_eq!(first.component, one, "{found:#?}");
    let reasons = weighed(first);
    let Reason::Shows {
        sign: Sign::Lines { topic, .. },
        far: Far::Lines(more),
        others,
        ..
    } = &reasons[0].reason
    else {
        panic!("{reasons:#?}");
    };
    // One of its kind writes next to none of them usually.
    assert!(*topic == Topic::Corrupt && (28.0..=30.0).contains(more));
    assert_eq!((others.show, others.of > 0), (0, true));
    let text = first.evidence[0].words(&fleet.graph).to_string();
    assert!(
        text.contains("log lines about damaged data here: 29 more than usual; at none of the"),
        "{text}"
    );
    let Some(Probe::Look { at, sign, .. }) = found.probe else {
        panic!("{found:#?}");
    };
    assert!(at == one && matches!(sign, Sign::Lines { .. }));
    let text = found.probe.unwrap().words(&fleet.graph).to_string();
    assert!(text.starts_with("read the log of store-2 for lines about damaged data"));
}

#[test]
fn a_reading_is_told_with_its_name_and_numbers_and_probed_at_its_host() {
    let fleet = fleet();
    let (host, on_it) = (fleet.hosts[0], fleet.instances.map(|all| all[0]));
    let found = found(&fleet, |of, kind| match (of, kind) {
        (of, Kind::Latency) if fleet.services.contains(&of) => 300.0,
        (of, Kind::Latency) if on_it.contains(&of) => 900.0,
        (of, Kind::Resource) if of == host => 5.0,
        _ => 0.0,
    });
    let first = &found.suspects[0];
    assert_eq!(first.component, host);
    let reasons = weighed(first);
    let reading = reasons.iter().find_map(|one| match &one.reason {
        Reason::Shows { series, others, .. } => Some((series.clone()?, others)),
        _ => None,
    });
    let ((name, usual, now), others) = reading.unwrap();
    assert_eq!((name.as_str(), others.show), ("one", 0));
    assert!((2.1..2.4).contains(&usual) && (7.0..7.5).contains(&now));
    // The instances on it are told by the number of them that are slow.
    let around = reasons.iter().find_map(|one| match &one.reason {
        Reason::Around { at, .. } => Some(*at),
        _ => None,
    });
    assert_eq!(around, Some((2, 2)), "{reasons:#?}");
    let look = match found.probe.unwrap() {
        Probe::Look { at, sign, .. } => (at, sign),
        other => panic!("{other:?}"),
    };
    let resource = Sign::Signal {
        kind: Kind::Resource,
        up: true,
    };
    assert_eq!(look, (host, resource));
}

#[test]
fn nobody_is_told_reasons_of_weights_where_roles_are_not_known() {
    let mut fleet = fleet();
    let slow = |of: Component, kind| match kind {
        Kind::Latency if of.0 < 2 => 300.0,
        _ => 0.0,
    };
    let told = |fleet: &Fleet| {
        let found = found(fleet, slow);
        let reasons = found.suspects.iter().map(|one| weighed(one).len());
        (found.suspects.len(), reasons.sum::<usize>())
    };
    assert!(told(&fleet).1 > 0);
    let mut plain = Graph::default();
    for of in 0..11 {
        plain.add(fleet.graph.name(Component(of))).unwrap();
    }
    plain.calls(Component(0), Component(1), None).unwrap();
    fleet.graph = plain;
    let (suspects, reasons) = told(&fleet);
    assert!(suspects > 0);
    assert_eq!(reasons, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Few reasons, the strongest first, each with numbers and words that can be read.
    #[test]
    fn reasons_are_few_and_finite(
        ill in prop::collection::vec(
            prop_oneof![
                Just(0.0_f32), Just(f32::NAN), Just(f32::INFINITY), Just(-1e30), -50.0..900.0_f32
            ],
            55,
        ),
        lines in prop::collection::vec((0..6_usize, 0..3_usize, 0..u32::MAX), 0..8),
    ) {
        let fleet = fleet();
        let mut signals = signals(&fleet, |of, kind| {
            ill[(usize::from(of.0) * 5 + kind as usize) % ill.len()]
        });
        let texts = ["disk full", "token expired", "x"];
        for (at, text) in texts.iter().enumerate() {
            signals.events.about(Event(at as u32), text);
        }
        signals.events.close(1.0);
        for (of, event, count) in lines {
            let of = fleet.instances.as_flattened()[of];
            signals.events.count(of, Event(9), Event(event as u32), count);
        }
        let alarm = Alarm::of(fleet.services[0], Kind::Latency, Duration::from_secs(150));
        let found = diagnose(&fleet.graph, &signals, &alarm);
        for suspect in &found.suspects {
            let reasons = weighed(suspect);
            prop_assert!(reasons.len() <= 3);
            let odds: Vec<f32> = reasons.iter().map(|one| one.odds).collect();
            prop_assert!(odds.iter().all(|odds| odds.is_finite() && *odds > 0.0));
            prop_assert!(odds.is_sorted_by(|a, b| a >= b));
            for one in &suspect.evidence {
                let text = one.words(&fleet.graph).to_string();
                prop_assert!(!text.contains("NaN") && !text.contains("inf "), "{text}");
                prop_assert!(text.len() < 240, "{text}");
            }
        }
        if let Some(probe) = found.probe {
            prop_assert!(probe.words(&fleet.graph).to_string().len() < 240);
        }
    }
}
