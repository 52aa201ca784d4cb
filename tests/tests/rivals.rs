//! Another healer on the same node that undoes what this one does: it must end within two
//! turns, say what was seen, and go on once the other is gone.

use homeostat_common::units::Millis;
use homeostat_tests::sim::{Fault, NODE, Sim, Trace, secs};

/// The usual node with a configuration slot, quick to heal again: what ends the fight must not
/// be a hold.
fn node() -> Sim {
    let text = NODE
        .replace(
            "mode = \"act\"",
            "mode = \"act\"\nhold = \"1s\"\n\
             quarantine = { count = 100, within = \"1s\", hold = \"1s\" }",
        )
        .replace(
            "[service.model]\nslot = \"/slot\"",
            "[service.model]\nslot = \"/slot\"\n\
             [service.config]\nslot = \"/config\"\nfile = \"a.toml\"",
        );
    Sim::with(11, &text)
}

/// Every so often from 60 s on, for ten minutes: longer than a young agent blames itself.
fn again_and_again(sim: Sim, every: usize, fault: &Fault) -> Sim {
    (60..660)
        .step_by(every)
        .fold(sim, |sim, second| sim.at(secs(second), fault.clone()))
}

fn count(trace: &Trace, kind: &str, part: &str) -> usize {
    let lines = trace.of(kind);
    lines.iter().filter(|text| text.contains(part)).count()
}

fn alarm(trace: &Trace, service: &str) -> String {
    let name = format!("{service}-contested");
    let alarms: Vec<&str> = trace
        .of("alarm")
        .into_iter()
        .filter(|text| text.starts_with(&name))
        .collect();
    // Once, and then as often as any alarm that stands.
    assert!(
        !alarms.is_empty() && alarms.len() <= 10,
        "{alarms:?}\n{trace}"
    );
    alarms[0].to_owned()
}

#[test]
fn a_manager_that_puts_the_bad_configuration_back_is_left_alone_after_two_turns() {
    let sim = again_and_again(node(), 20, &Fault::BadConfig("infer"))
        .at(Millis(60_100), Fault::Crash("infer"));
    let sim = (80..660).step_by(20).fold(sim, |sim, second| {
        sim.at(Millis(second * 1000 + 100), Fault::Crash("infer"))
    });
    let trace = sim.run_until(secs(900));
    let rollbacks = count(&trace, "execute", "rollback-config(infer");
    assert!(
        (1..=2).contains(&rollbacks),
        "{rollbacks} rollbacks\n{trace}"
    );
    let alarm = alarm(&trace, "infer");
    assert!(
        alarm.contains("its config is eeeeeeeeeeeeeeee again"),
        "{alarm}"
    );
    assert!(count(&trace, "refuse", "contested") > 0, "{trace}");
}

#[test]
fn what_was_quiet_for_long_is_healed_again() {
    let sim = again_and_again(node(), 20, &Fault::Term("camera"));
    let trace = sim.run_until(secs(4000));
    // Two turns, and one more when the other has been quiet for half an hour.
    let starts = count(&trace, "execute", "restart(camera");
    assert_eq!(starts, 3, "{trace}");
    let alarm = alarm(&trace, "camera");
    assert!(
        alarm.contains("got a SIGTERM that was not sent here (2 times within 30m)"),
        "{alarm}"
    );
    assert_eq!(count(&trace, "clear", "camera-contested"), 1, "{trace}");
    let last = trace.of("close").last().copied().map(str::to_owned);
    assert!(
        last.is_some_and(|text| text.starts_with("healed: camera")),
        "{trace}"
    );
}

#[test]
fn a_port_that_somebody_else_answers_is_not_fought_for() {
    let trace = node()
        .at(secs(60), Fault::Rival("store", true))
        .at(secs(60), Fault::Crash("store"))
        .at(secs(1000), Fault::Rival("store", false))
        .run_until(secs(3000));
    let starts = count(&trace, "execute", "restart(store");
    // The burst and two pauses, in each of which the port was asked.
    assert!((3..=9).contains(&starts), "{starts} starts\n{trace}");
    let alarm = alarm(&trace, "store");
    assert!(
        alarm.contains("port 8082 is answered by a process that was not started here"),
        "{alarm}"
    );
    assert!(
        trace.when("alarm", "store-contested").unwrap().0 < 66_000_000,
        "{trace}"
    );
    let last = trace.of("close").last().copied().map(str::to_owned);
    assert!(
        last.is_some_and(|text| text.starts_with("healed: store")),
        "{trace}"
    );
}

#[test]
fn a_contest_survives_a_power_cut_and_a_person_ends_it() {
    let sim = (60..100).step_by(20).fold(node(), |sim, second| {
        sim.at(secs(second), Fault::Term("camera"))
    });
    let trace = sim
        .at(secs(120), Fault::AgentKilled(secs(5)))
        .at(secs(300), Fault::Ask("restart(camera, grace=0ms)"))
        .run_until(secs(400));
    let resumed = trace.when("agent", "killed").unwrap();
    let again = trace.when("clear", "camera-contested").unwrap();
    assert!(again > resumed, "{trace}");
    let starts: Vec<_> = trace.of("execute");
    assert_eq!(
        starts.len(),
        3,
        "two turns, and one for the person\n{trace}"
    );
    assert_eq!(count(&trace, "clear", "camera-contested"), 1, "{trace}");
}

/// Two replicas behind a route.
const REPLICAS: &str = r#"
[node]
id = "n2"

[limits]
mode = "act"
hold = "1s"

[[service]]
id = "infer-1"
command = ["/bin/infer"]
ports = [9001]
start_timeout = "2s"
stop_grace = "500ms"
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

#[test]
fn a_weight_that_somebody_else_sets_again_is_left_to_them() {
    // Each healing ends with the usual weight, and each time it is moved once more.
    let sim = [60, 120, 180]
        .into_iter()
        .fold(Sim::with(3, REPLICAS), |sim, second| {
            sim.at(secs(second), Fault::Slow("infer-1", Millis(150)))
                .at(secs(second + 30), Fault::Weight("infer-1", 50))
        });
    let trace = sim.run_until(secs(240));
    assert_eq!(
        count(&trace, "execute", "isolate(infer, infer-1"),
        2,
        "{trace}"
    );
    let alarm = alarm(&trace, "infer-1");
    assert!(
        alarm.contains("its weight on infer was set to 100 here and is 50"),
        "{alarm}"
    );
    assert!(count(&trace, "refuse", "contested") > 0, "{trace}");
}

#[test]
fn crashes_and_kills_by_the_kernel_are_nobodys_doing() {
    let trace = again_and_again(node(), 20, &Fault::Crash("camera")).run_until(secs(700));
    assert_eq!(count(&trace, "alarm", "contested"), 0, "{trace}");
    assert_eq!(count(&trace, "execute", "restart(camera"), 30, "{trace}");
}

#[test]
fn somebody_who_stops_all_services_is_no_healer() {
    let sim = (60..180).step_by(20).fold(node(), |sim, second| {
        let at = |millis: u64| Millis(second * 1000 + millis);
        sim.at(at(0), Fault::Term("camera"))
            .at(at(300), Fault::Term("infer"))
            .at(at(600), Fault::Term("store"))
    });
    let trace = sim.run_until(secs(300));
    assert_eq!(count(&trace, "alarm", "contested"), 0, "{trace}");
    assert_eq!(count(&trace, "execute", "restart(camera"), 6, "{trace}");
}
