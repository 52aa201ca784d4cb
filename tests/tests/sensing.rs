//! What is told of metrics, how often the node is looked at, and that a sensor that lies
//! harms nobody.

use homeostat_agent::control::{Command, Scope, Switch};
use homeostat_common::units::Millis;
use homeostat_tests::sim::{Fault, Lie, Sim, Trace, secs};

/// A camera that needs a store, and may not use a processor for long.
const NODE: &str = r#"
[node]
id = "n5"

[limits]
mode = "act"

[[service]]
id = "store"
command = ["/bin/store"]
ports = [8082]
start_timeout = "2s"
[[service.probe]]
kind = "tcp"

[[service]]
id = "camera"
command = ["/bin/camera"]
ports = [8080]
memory_limit = "512MiB"
cpu_limit = 0.5
start_timeout = "2s"
stop_grace = "500ms"
depends_on = ["store"]
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"
"#;

fn node() -> Sim {
    Sim::with(11, NODE)
}

fn status(sim: Sim, at: Millis) -> Sim {
    sim.at(at, Fault::Order(Command::Status))
}

/// The answers to `status`, in order.
fn answers(trace: &Trace) -> Vec<String> {
    let answers = trace.of("answer").into_iter();
    answers.map(str::to_owned).collect()
}

#[test]
fn a_process_that_really_spins_is_restarted() {
    let trace = node()
        .at(secs(60), Fault::Hog("camera", 1.0))
        .run_until(secs(90));
    assert!(!trace.of("execute").is_empty(), "{trace}");
}

#[test]
fn a_sensor_that_says_that_a_process_spins_has_nobody_restarted() {
    let sim = node().at(secs(60), Fault::Sensor("camera", Some(Lie::Cores(3.0))));
    let trace = status(sim, secs(100)).run_until(secs(300));
    assert!(trace.of("execute").is_empty(), "{trace}");
    let told = &answers(&trace)[0];
    assert!(told.contains("cpu_used of camera is trusted by"), "{told}");
    assert!(told.contains("contradicted by another"), "{told}");
}

#[test]
fn a_sensor_that_tells_nonsense_of_memory_has_nobody_restarted() {
    for lie in [Lie::WildMemory, Lie::HugeMemory] {
        let sim = node().at(secs(60), Fault::Sensor("camera", Some(lie)));
        let trace = status(sim, secs(100))
            .at(secs(200), Fault::Sensor("camera", None))
            .run_until(secs(400));
        assert!(trace.of("execute").is_empty(), "{lie:?}\n{trace}");
        let told = &answers(&trace)[0];
        assert!(
            told.contains("memory_resident of camera is trusted by"),
            "{told}"
        );
    }
}

#[test]
fn without_telemetry_a_leak_that_it_had_shown_has_nobody_restarted() {
    let leak = |frozen: bool| {
        // The leak shows while people work on it.
        let window = Command::Begin {
            switch: Switch::Maintenance,
            scope: Scope::Service("camera".parse().unwrap()),
            span: secs(15),
            why: "new lens".into(),
        };
        let sim = node()
            .at(secs(55), Fault::Order(window))
            .at(secs(60), Fault::Leak("camera", 20e6));
        let sim = match frozen {
            true => sim.at(secs(66), Fault::Frozen(true)),
            false => sim,
        };
        let trace = sim.run_until(secs(78));
        assert!(trace.when("detect", "camera leaking").is_some(), "{trace}");
        trace
    };
    let seen = leak(false);
    let begun = seen.when("execute", "restart(camera").map(|at| at.0);
    assert!(begun.is_some_and(|at| at >= 70_000_000), "{seen}");
    let blind = leak(true);
    assert!(blind.of("execute").is_empty(), "{blind}");
}

#[test]
fn a_quick_warm_up_has_nobody_restarted_and_a_quick_leak_is_ended_before_the_limit() {
    // Real memory creeps, so that a burst stands out of no flat line.
    let creeping = || node().at(secs(10), Fault::Leak("camera", 50e3));
    for over in [1, 2, 3, 4] {
        let trace = creeping()
            .at(secs(60), Fault::WarmUp("camera", 120e6, secs(over)))
            .run_until(secs(120));
        assert!(trace.of("detect").is_empty(), "{over} s\n{trace}");
    }
    let trace = creeping()
        .at(secs(60), Fault::Leak("camera", 30e6))
        .run_until(secs(120));
    assert!(trace.of("kernel").is_empty(), "{trace}");
    let begun = trace.when("execute", "restart(camera").map(|at| at.0);
    assert!(begun.is_some_and(|at| at < 67_000_000), "{trace}");
}

#[test]
fn a_battery_that_runs_low_has_the_node_looked_at_less_often() {
    let sim = status(node(), secs(50)).at(secs(60), Fault::Battery(Some(0.1)));
    let sim = status(sim, secs(90)).at(secs(100), Fault::Battery(Some(0.22)));
    let sim = status(sim, secs(120)).at(secs(130), Fault::Battery(Some(0.9)));
    let trace = status(sim, secs(160)).run_until(secs(170));
    let told = answers(&trace);
    let usual = "each 1s (250ms to 4s): as configured";
    let slow = "each 4s (250ms to 4s): the battery is nearly empty";
    // A little more charge does not make it swing.
    for (told, expected) in told.iter().zip([usual, slow, slow, usual]) {
        assert!(told.contains(expected), "{expected}\n{told}");
    }
    assert_eq!(told.len(), 4);
}

#[test]
fn rising_risk_has_the_node_looked_at_more_often_and_a_low_battery_less() {
    // Less than what a leak must have taken before it is called one.
    let sim = node().at(secs(600), Fault::WarmUp("camera", 24e6, secs(2)));
    let sim = status(sim, secs(603)).at(secs(700), Fault::Battery(Some(0.1)));
    let trace = status(sim, secs(715)).run_until(secs(720));
    let told = answers(&trace);
    assert!(
        told[0].contains("each 250ms (250ms to 4s): a metric is nearly odd"),
        "{}",
        told[0]
    );
    let both = "each 1s (250ms to 4s): a metric is nearly odd, the battery is nearly empty";
    assert!(told[1].contains(both), "{}", told[1]);
}

#[test]
fn a_metric_that_is_not_as_usual_is_told_and_is_evidence_and_does_nothing() {
    let sim = node().at(secs(600), Fault::WarmUp("camera", 24e6, secs(2)));
    let sim = status(sim, secs(650));
    let trace = sim
        .at(secs(660), Fault::Crash("camera"))
        .run_until(secs(670));
    let alarms = trace.of("alarm");
    assert_eq!(alarms.len(), 1, "{trace}");
    let alarm = alarms[0];
    assert!(alarm.contains("memory_resident of camera is"), "{alarm}");
    assert!(
        answers(&trace)[0].contains("camera-unusual (notice"),
        "{trace}"
    );
    // Nothing is done before it crashes.
    let first = trace.when("execute", "").map(|at| at.0);
    assert!(first.is_some_and(|at| at >= 660_000_000), "{trace}");
    let evidence = trace.of("because");
    let unusual = "unusual before: memory_resident of camera is";
    assert!(
        evidence.iter().any(|line| line.contains(unusual)),
        "{evidence:?}"
    );
}
