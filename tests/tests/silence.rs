//! Silence that is no hang: each test is an order of events in which a service
//! that works stops answering for a while, or seems to, and must be left alone.

use homeostat_common::units::Millis;
use homeostat_tests::sim::{Fault, NODE, Sim, secs};

/// The usual node; inference waits for the camera, and each is asked in its own
/// rhythm.
fn dependent(camera: &str, infer: &str) -> String {
    let mut parts = NODE.split("id = \"infer\"");
    let head = parts.next().unwrap_or_default().replacen(
        "period = \"100ms\"\ntimeout = \"50ms\"",
        camera,
        1,
    );
    let tail = parts.next().unwrap_or_default().replacen(
        "period = \"100ms\"\ntimeout = \"50ms\"",
        infer,
        1,
    );
    let tail = tail.replace(
        "criticality = \"mission\"",
        "criticality = \"mission\"\ndepends_on = [\"camera\"]",
    );
    format!("{head}id = \"infer\"{tail}")
}

#[test]
fn a_dependent_is_left_alone_whichever_falls_silent_first() {
    let quick = "period = \"100ms\"\ntimeout = \"50ms\"";
    let slow = "period = \"400ms\"\ntimeout = \"200ms\"";
    for (camera, infer) in [(quick, quick), (slow, quick), (quick, slow)] {
        for phase in (0..400).step_by(13) {
            let sim = Sim::with(phase, &dependent(camera, infer));
            let trace = sim
                .at(Millis(10_000 + phase), Fault::Block("camera"))
                .run_until(secs(20));
            let touched = trace.of("execute");
            assert!(
                touched.iter().all(|text| text.contains("camera")),
                "{camera} {infer} phase {phase}:\n{trace}"
            );
            assert_eq!(touched.len(), 1, "phase {phase}:\n{trace}");
        }
    }
}

#[test]
fn a_stall_of_what_it_needs_is_excused_until_it_can_have_answered() {
    let slow = "period = \"400ms\"\ntimeout = \"200ms\"";
    let quick = "period = \"100ms\"\ntimeout = \"50ms\"";
    for phase in (0..400).step_by(29) {
        // Over before anybody calls the camera hung.
        let trace = Sim::with(phase, &dependent(slow, quick))
            .at(Millis(10_000 + phase), Fault::Starve("camera", Millis(350)))
            .run_until(secs(20));
        assert_eq!(trace.of("execute"), [""; 0], "phase {phase}:\n{trace}");
    }
}

#[test]
fn a_dependent_that_hangs_by_itself_is_found_as_fast_as_any() {
    let slow = "period = \"400ms\"\ntimeout = \"200ms\"";
    let quick = "period = \"100ms\"\ntimeout = \"50ms\"";
    for phase in (0..100).step_by(9) {
        let trace = Sim::with(phase, &dependent(slow, quick))
            .at(Millis(10_000 + phase), Fault::Block("infer"))
            .run_until(secs(20));
        assert_eq!(
            trace.of("execute"),
            ["restart(infer, grace=0ms)"],
            "{trace}"
        );
        // Two misses take 250 ms at most, and the camera answers within 5 ms.
        let found = trace.when("execute", "infer").map(|at| at.0 / 1000);
        let within = 10_000 + phase..10_000 + phase + 260;
        assert!(found.is_some_and(|at| within.contains(&at)), "{trace}");
    }
}

#[test]
fn pressure_that_comes_between_two_misses_counts() {
    // Probes are missed at 10.096 s and 10.196 s; in between the node gets busy.
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Stall("camera", Millis(350)))
        .at(Millis(10_150), Fault::Pressure(0.8))
        .at(Millis(10_600), Fault::Pressure(0.0))
        .run_until(secs(15));
    assert_eq!(trace.of("execute"), [""; 0], "{trace}");
}

#[test]
fn one_miss_is_judged_by_what_is_seen_after_it() {
    let node = NODE.replace("kind = \"tcp\"", "kind = \"tcp\"\nmisses = 1");
    let trace = Sim::with(7, &node)
        .at(secs(10), Fault::Pressure(0.8))
        .at(secs(30), Fault::Pressure(0.0))
        .run_until(secs(40));
    assert_eq!(trace.of("execute"), [""; 0], "{trace}");
}

#[test]
fn who_is_kept_from_running_is_not_restarted_even_after_the_cap() {
    for span in [300, 1000, 2000, 4000] {
        let trace = Sim::seeded(7)
            .at(secs(10), Fault::Starve("camera", Millis(span)))
            .run_until(secs(30));
        assert_eq!(trace.of("execute"), [""; 0], "{span} ms:\n{trace}");
    }
    // Four times the cap of 1.5 s at most: then nobody waits for it any more.
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Starve("camera", secs(60)))
        .at(secs(10), Fault::Pressure(0.8))
        .run_until(secs(20));
    assert_eq!(
        trace.of("execute"),
        ["restart(camera, grace=0ms)"],
        "{trace}"
    );
}

#[test]
fn an_agent_that_has_just_started_does_not_take_what_it_has_not_measured_for_calm() {
    let node = NODE.replace("kind = \"tcp\"", "kind = \"tcp\"\nmisses = 1");
    for back in (50..400).step_by(23) {
        let trace = Sim::with(7, &node)
            .at(secs(10), Fault::Pressure(0.8))
            .at(secs(12), Fault::AgentKilled(Millis(back)))
            .at(secs(20), Fault::Pressure(0.0))
            .run_until(secs(30));
        assert_eq!(
            trace.of("execute"),
            [""; 0],
            "back after {back} ms:\n{trace}"
        );
    }
}

#[test]
fn an_agent_that_was_held_up_does_not_take_its_own_deafness_for_silence() {
    // Longer than a forwarder may be silent.
    let node = format!(
        "{NODE}\n[[forward]]\nid = \"model\"\nlisten = 9000\n\
         [[forward.backend]]\nservice = \"infer\"\n"
    );
    for phase in (0..1000).step_by(37) {
        let trace = Sim::with(7, &node)
            .at(Millis(10_000 + phase), Fault::AgentHeld(Millis(3500)))
            .run_until(secs(20));
        assert_eq!(trace.of("execute"), [""; 0], "phase {phase}:\n{trace}");
    }
}
