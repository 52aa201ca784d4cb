//! Who is behind it: what a recovery does to others is no fault of theirs, an innocent service
//! is not acted on, and two causes at once are both found.

use homeostat_agent::control::Command;
use homeostat_common::ids::ServiceId;
use homeostat_common::units::Millis;
use homeostat_tests::sim::{Fault, Sim, Trace, secs};

/// A gateway calls replicas, each of which needs a store of its own.
const SITE: &str = r#"
[node]
id = "n7"

[limits]
mode = "act"

[[service]]
id = "gateway"
command = ["/bin/gateway"]
ports = [8080]
start_timeout = "2s"
stop_grace = "500ms"
depends_on = ["ledger"]
calls = ["infer"]
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[service]]
id = "ledger"
command = ["/bin/ledger"]
ports = [8081]
start_timeout = "2s"
stop_grace = "500ms"
depends_on = ["store-1"]
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[service]]
id = "infer-1"
command = ["/bin/infer"]
ports = [9001]
start_timeout = "2s"
stop_grace = "500ms"
depends_on = ["store-1"]
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[service]]
id = "infer-2"
command = ["/bin/infer"]
ports = [9002]
start_timeout = "2s"
stop_grace = "500ms"
depends_on = ["store-2"]
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[service]]
id = "store-1"
command = ["/bin/store"]
ports = [8083]
start_timeout = "5s"
stop_grace = "500ms"
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[service]]
id = "store-2"
command = ["/bin/store"]
ports = [8084]
start_timeout = "5s"
stop_grace = "500ms"
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[forward]]
id = "infer"
listen = 9000
[[forward.backend]]
service = "infer-1"
[[forward.backend]]
service = "infer-2"
"#;

fn site(seed: u64) -> Sim {
    Sim::with(seed, SITE)
}

/// The services that got an incident, in order.
fn opened(trace: &Trace) -> Vec<String> {
    let lines = trace.of("detect").into_iter();
    let names = lines.filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

fn why(service: &str) -> Fault {
    let service = ServiceId::new(service).expect("a name that is valid");
    Fault::Order(Command::Why { service })
}

#[test]
fn the_restart_of_a_service_opens_no_incident_for_who_needs_it() {
    for seed in 1..=20 {
        let trace = site(seed)
            .at(secs(20), Fault::SlowStart("store-1", Some(Millis(3000))))
            .crash("store-1", secs(20))
            .run_until(secs(120));
        assert_eq!(opened(&trace), ["store-1"], "{trace}");
        assert_eq!(trace.of("close").len(), 1, "{trace}");
        // All three who need it, directly or not, have fallen silent and are told of.
        for service in ["ledger", "infer-1", "gateway"] {
            let joined = trace.of("join");
            let joined = joined.iter().filter(|line| line.starts_with(service));
            assert_eq!(joined.count(), 1, "{service}\n{trace}");
        }
        assert!(trace.of("alarm").is_empty(), "{trace}");
    }
}

#[test]
fn a_second_fault_that_a_recovery_hides_is_found_once_that_has_settled() {
    for seed in 1..=20 {
        let trace = site(seed)
            .at(secs(20), Fault::SlowStart("store-1", Some(Millis(1500))))
            .crash("store-1", secs(20))
            .at(Millis(20_500), Fault::Block("ledger"))
            .run_until(secs(120));
        assert_eq!(opened(&trace), ["store-1", "ledger"], "{trace}");
        let closed = trace.when("close", "store-1").unwrap();
        let found = trace.when("detect", "ledger").unwrap();
        assert!(found > closed && found.since(closed) < secs(4), "{trace}");
        assert_eq!(trace.of("close").len(), 2, "{trace}");
    }
}

#[test]
fn two_causes_at_once_are_both_healed_and_nobody_else_is_touched() {
    for seed in 1..=20 {
        let trace = site(seed)
            .crash("store-1", secs(20))
            .at(secs(20), Fault::Block("store-2"))
            .run_until(secs(120));
        let mut roots = opened(&trace);
        roots.sort();
        assert_eq!(roots, ["store-1", "store-2"], "{trace}");
        assert_eq!(trace.of("close").len(), 2, "{trace}");
        let executed = trace.of("execute");
        assert!(
            executed.iter().all(|step| step.contains("(store-")),
            "{trace}"
        );
    }
}

#[test]
fn one_that_answers_excuses_nobody_for_ever() {
    // Its leak is told to people and to nobody else.
    let observed = SITE.replace(
        "id = \"store-1\"\n",
        "id = \"store-1\"\nmode = \"observe\"\n",
    );
    let trace = Sim::with(1, &observed)
        .at(secs(20), Fault::Leak("store-1", 20e6))
        .at(secs(40), Fault::Block("ledger"))
        .run_until(secs(700));
    assert_eq!(opened(&trace)[..2], ["store-1", "ledger"], "{trace}");
    let found = trace.when("detect", "ledger hung").unwrap();
    assert!((640_000_000..642_000_000).contains(&found.0), "{trace}");
    assert!(trace.when("close", "ledger").is_some(), "{trace}");
}

#[test]
fn one_without_whom_nothing_works_excuses_for_as_long_as_that_lasts() {
    let trace = site(1)
        .at(secs(20), Fault::BadCommand("store-1", true))
        .crash("store-1", secs(20))
        .at(secs(900), Fault::BadCommand("store-1", false))
        .run_until(secs(1300));
    assert_eq!(opened(&trace), ["store-1"], "{trace}");
    assert_eq!(trace.of("close").len(), 1, "{trace}");
}

#[test]
fn an_innocent_replica_is_left_alone_while_what_it_needs_is_slow() {
    let sim = site(3).at(secs(300), Fault::Drag("store-1", Millis(30)));
    let trace = sim.at(secs(320), why("infer-1")).run_until(secs(330));
    assert!(trace.of("execute").is_empty(), "{trace}");
    let refused = trace.of("refuse");
    assert!(
        refused.iter().any(|line| line.contains("likelier-cause")),
        "{trace}"
    );
    let suspects = trace.of("suspect");
    assert!(suspects[0].starts_with("store-1"), "{trace}");
    let told = trace.of("answer")[0];
    assert!(
        told.contains("infer-1") && told.contains("needs store-1"),
        "{told}"
    );
}

/// A service that reads from a database elsewhere.
const READER: &str = r#"
[node]
id = "n8"

[limits]
mode = "act"

[[dependency]]
name = "db"
address = "10.0.0.7:5432"

[[service]]
id = "reader"
command = ["/bin/reader"]
ports = [8080]
start_timeout = "2s"
stop_grace = "500ms"
needs = ["db"]
[[service.probe]]
kind = "http"
path = "/work"
period = "100ms"
timeout = "50ms"
"#;

#[test]
fn who_needs_one_elsewhere_that_refuses_is_left_alone_from_the_start_to_the_end() {
    let trace = Sim::with(3, READER)
        .at(secs(300), Fault::Outage("db", true))
        .at(secs(480), why("reader"))
        .at(secs(500), Fault::Outage("db", false))
        .run_until(secs(560));
    assert_eq!(opened(&trace), ["reader"], "{trace}");
    assert!(trace.of("execute").is_empty(), "{trace}");
    assert!(
        trace.of("suspect")[0].starts_with("dependency db"),
        "{trace}"
    );
    // What lasts is not taken for usual.
    let told = trace.of("answer")[0];
    assert!(
        told.contains("dependency db: likeliest behind it"),
        "{told}"
    );
    assert!(trace.when("close", "reader").is_some(), "{trace}");
}

#[test]
fn who_needs_one_elsewhere_is_left_alone_shortly_after_the_agent_has_begun_too() {
    for begun in [60, 61, 62, 63, 85] {
        let trace = Sim::with(3, READER)
            .at(secs(begun), Fault::Outage("db", true))
            .run_until(secs(begun + 120));
        assert_eq!(opened(&trace), ["reader"], "{trace}");
        assert!(trace.of("execute").is_empty(), "{begun}: {trace}");
    }
}

/// The same behind a route, and who calls it.
const FRONT: &str = r#"
[[service]]
id = "front"
command = ["/bin/front"]
ports = [8081]
start_timeout = "2s"
stop_grace = "500ms"
calls = ["read"]
[[service.probe]]
kind = "http"
path = "/work"
period = "500ms"
timeout = "50ms"

[[forward]]
id = "read"
listen = 8090
[[forward.backend]]
service = "reader"
"#;

#[test]
fn who_calls_one_that_needs_one_elsewhere_is_left_alone_too() {
    for begun in [60, 75, 76, 77, 78, 300] {
        let trace = Sim::with(3, &format!("{READER}{FRONT}"))
            .at(secs(begun), Fault::Outage("db", true))
            .run_until(secs(begun + 120));
        assert!(trace.of("execute").is_empty(), "{begun}: {trace}");
    }
}

#[test]
fn one_that_dies_while_it_is_left_alone_is_told_anew_with_what_befell_it() {
    let trace = Sim::with(3, READER)
        .at(secs(300), Fault::Outage("db", true))
        .at(secs(360), Fault::Crash("reader"))
        .at(Millis(360_200), why("reader"))
        .run_until(secs(361));
    assert!(!trace.of("execute").is_empty(), "{trace}");
    assert!(
        trace.of("suspect")[0].starts_with("dependency db"),
        "{trace}"
    );
    let told = trace.of("answer")[0];
    let own = told
        .split("reader: likeliest behind it")
        .nth(1)
        .unwrap_or_default();
    assert!(own.contains("process i1 is gone"), "{told}");
    assert!(!told.contains("explains"), "nobody else did: {told}");
}

#[test]
fn who_answers_wrongly_while_what_it_needs_elsewhere_is_well_is_treated() {
    let reader = format!("{READER}[service.model]\nslot = \"/slot\"\n");
    let trace = Sim::with(3, &reader)
        .at(secs(300), Fault::Corrupt("reader"))
        .run_until(secs(330));
    assert!(!trace.of("execute").is_empty(), "{trace}");
}

#[test]
fn a_replica_that_is_slow_by_itself_is_not_spared() {
    let trace = site(3)
        .at(secs(300), Fault::Slow("infer-1", Millis(150)))
        .run_until(secs(330));
    assert!(!trace.of("execute").is_empty(), "{trace}");
}

#[test]
fn nobody_is_spared_for_ever() {
    let trace = site(3)
        .at(secs(300), Fault::Drag("store-1", Millis(30)))
        .run_until(secs(608));
    let acted = trace.when("execute", "infer-1").unwrap();
    assert!((330_000_000..=620_000_000).contains(&acted.0), "{trace}");
    // It is looked at each second, and told of once for each who is likelier: how likely
    // changes with each look.
    let refused = trace.of("refuse").into_iter();
    let spared: Vec<&str> = refused
        .filter(|line| line.contains("likelier-cause"))
        .collect();
    let reason = |line: &&str| {
        line.split(" (confidence")
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let once: std::collections::BTreeSet<String> = spared.iter().map(reason).collect();
    assert!(!spared.is_empty(), "{trace}");
    assert_eq!(spared.len(), once.len(), "{trace}");
}
