//! One fault, or a few, and what the node makes of it.

use expect_test::expect;
use homeostat_common::units::Millis;
use homeostat_tests::sim::{Fault, NODE, Sim, secs};

#[test]
fn a_killed_process_is_started_again_at_once() {
    let trace = Sim::seeded(7).crash("camera", secs(10)).run_until(secs(60));
    expect![[r#"
        10.000s fault    Crash("camera")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s decide   restart(camera, grace=0ms) (reflex)
        10.000s execute  restart(camera, grace=0ms)
        10.033s done     restart(camera, grace=0ms)
        10.033s close    healed: camera answers again after 32ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn who_was_killed_for_memory_is_told_beside_the_reflex() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::OutOfMemory("camera"))
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    OutOfMemory("camera")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s decide   restart(camera, grace=0ms) (reflex)
        10.000s execute  restart(camera, grace=0ms)
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s because  process i3 was killed by the kernel for memory, its limit is 512.0 MiB
        10.033s done     restart(camera, grace=0ms)
        10.033s close    healed: camera answers again after 32ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn a_blocked_loop_is_killed_and_started_again() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Block("camera"))
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    Block("camera")
        10.196s detect   camera hung (hang), 150ms after the first sign
        10.196s decide   restart(camera, grace=0ms) (reflex)
        10.196s execute  restart(camera, grace=0ms)
        10.264s done     restart(camera, grace=0ms)
        10.264s close    healed: camera answers again after 217ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn a_leak_is_stopped_before_the_limit() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Leak("camera", 20e6))
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    Leak("camera", 20000000.0)
        15.000s detect   camera leaking (memory-leak), 0ms after the first sign
        15.000s decide   restart(camera, grace=500ms) (playbook)
        15.000s execute  restart(camera, grace=500ms)
        15.084s done     restart(camera, grace=500ms)
        15.084s close    healed: camera answers again after 84ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn descriptors_are_given_back_before_they_run_out() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Open("camera", 15.0))
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    Open("camera", 15.0)
        18.000s detect   camera leaking-descriptors (descriptor-leak), 0ms after the first sign
        18.000s decide   restart(camera, grace=500ms) (playbook)
        18.000s execute  restart(camera, grace=500ms)
        18.083s done     restart(camera, grace=500ms)
        18.083s close    healed: camera answers again after 83ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn a_stopped_process_is_none_that_waits_for_a_core() {
    let trace = Sim::seeded(7)
        .at(secs(9), Fault::Pressure(0.6))
        .at(secs(10), Fault::Stop("camera"))
        .run_until(secs(60));
    expect![[r#"
        9.000s fault    Pressure(0.6)
        10.000s fault    Stop("camera")
        10.096s detect   camera hung (hang), 93ms after the first sign
        10.096s decide   restart(camera, grace=0ms) (reflex)
        10.096s execute  restart(camera, grace=0ms)
        10.279s done     restart(camera, grace=0ms)
        10.279s close    healed: camera answers again after 276ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn a_corrupt_model_is_put_back_before_the_restart() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Corrupt("infer"))
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    Corrupt("infer")
        10.189s detect   infer wrong-answers (model-corrupt), 9ms after the first sign
        10.189s suspect  the model of infer behind infer (0.99)
        10.189s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.190s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.202s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.202s execute  restart(infer, grace=500ms)
        10.277s done     restart(infer, grace=500ms)
        10.277s close    healed: infer answers again after 98ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_hold_refuses_a_second_healing() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Block("camera"))
        .at(Millis(12_000), Fault::Block("camera"))
        .run_until(secs(90));
    expect![[r#"
        10.000s fault    Block("camera")
        10.196s detect   camera hung (hang), 150ms after the first sign
        10.196s decide   restart(camera, grace=0ms) (reflex)
        10.196s execute  restart(camera, grace=0ms)
        10.264s done     restart(camera, grace=0ms)
        10.264s close    healed: camera answers again after 217ms
        12.000s fault    Block("camera")
        12.218s detect   camera hung (hang), 149ms after the first sign
        12.218s alarm    camera-hung (critical): camera is hung, and not healed: camera was healed a short while ago; held for 58045ms more
        12.218s refuse   restart(camera, grace=0ms): hold
        70.264s decide   restart(camera, grace=0ms) (reflex)
        70.264s execute  restart(camera, grace=0ms)
        70.375s done     restart(camera, grace=0ms)
        70.375s clear    camera-hung
        70.375s close    healed: camera answers again after 58307ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_crashing_service_is_retried_for_ever_and_ever_slower() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::ShortLives("camera", 12))
        .crash("camera", secs(10))
        .run_until(secs(400));
    expect![[r#"
        10.000s fault    ShortLives("camera", 12)
        10.000s fault    Crash("camera")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s decide   restart(camera, grace=0ms) (reflex)
        10.000s execute  restart(camera, grace=0ms)
        10.005s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        10.005s decide   restart(camera, grace=0ms) (reflex)
        10.005s execute  restart(camera, grace=0ms)
        10.008s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        10.008s decide   restart(camera, grace=0ms) (reflex)
        10.008s execute  restart(camera, grace=0ms)
        10.017s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        10.017s decide   restart(camera, grace=0ms) (reflex)
        10.017s execute  restart(camera, grace=0ms)
        10.025s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        10.025s decide   restart(camera, grace=0ms) (reflex)
        10.025s execute  restart(camera, grace=0ms)
        10.040s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        10.040s alarm    camera-dead (warning): camera is dead, and not healed: camera keeps dying; next start in 985ms
        10.040s refuse   restart(camera, grace=0ms): back-off
        11.025s decide   restart(camera, grace=0ms) (reflex)
        11.025s execute  restart(camera, grace=0ms)
        11.033s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        11.033s refuse   restart(camera, grace=0ms): back-off
        13.026s decide   restart(camera, grace=0ms) (reflex)
        13.026s execute  restart(camera, grace=0ms)
        13.036s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        13.036s refuse   restart(camera, grace=0ms): back-off
        17.026s decide   restart(camera, grace=0ms) (reflex)
        17.026s execute  restart(camera, grace=0ms)
        17.034s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        17.034s refuse   restart(camera, grace=0ms): back-off
        25.026s decide   restart(camera, grace=0ms) (reflex)
        25.026s execute  restart(camera, grace=0ms)
        25.035s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        25.035s refuse   restart(camera, grace=0ms): back-off
        41.026s decide   restart(camera, grace=0ms) (reflex)
        41.026s execute  restart(camera, grace=0ms)
        41.032s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        41.032s refuse   restart(camera, grace=0ms): back-off
        73.026s decide   restart(camera, grace=0ms) (reflex)
        73.026s execute  restart(camera, grace=0ms)
        73.040s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        73.040s refuse   restart(camera, grace=0ms): back-off
        137.026s decide   restart(camera, grace=0ms) (reflex)
        137.026s execute  restart(camera, grace=0ms)
        137.031s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        137.031s refuse   restart(camera, grace=0ms): back-off
        265.026s decide   restart(camera, grace=0ms) (reflex)
        265.026s execute  restart(camera, grace=0ms)
        265.135s done     restart(camera, grace=0ms)
        265.135s clear    camera-dead
        265.135s close    healed: camera answers again after 255134ms
    "#]].assert_eq(&trace.to_string());
    assert_eq!(trace.of("execute").len(), 13);
    assert_eq!(trace.of("close").len(), 1);
}

#[test]
fn what_no_restart_helps_for_long_is_quarantined_and_a_person_is_called() {
    let trace = (1..=4)
        .fold(Sim::seeded(7), |sim, n| {
            sim.at(secs(100 * n), Fault::Block("camera"))
        })
        .run_until(secs(700));
    expect![[r#"
        100.000s fault    Block("camera")
        100.196s detect   camera hung (hang), 150ms after the first sign
        100.196s decide   restart(camera, grace=0ms) (reflex)
        100.196s execute  restart(camera, grace=0ms)
        100.265s done     restart(camera, grace=0ms)
        100.265s close    healed: camera answers again after 219ms
        200.000s fault    Block("camera")
        200.218s detect   camera hung (hang), 149ms after the first sign
        200.218s decide   restart(camera, grace=0ms) (reflex)
        200.218s execute  restart(camera, grace=0ms)
        200.330s done     restart(camera, grace=0ms)
        200.330s close    healed: camera answers again after 261ms
        300.000s fault    Block("camera")
        300.181s detect   camera hung (hang), 149ms after the first sign
        300.181s decide   restart(camera, grace=0ms) (reflex)
        300.181s execute  restart(camera, grace=0ms)
        300.250s done     restart(camera, grace=0ms)
        300.250s alarm    camera-quarantine (critical): camera was healed 3 times within 30m by restart-at-once; left alone for 5m
        300.250s close    healed: camera answers again after 219ms
        400.000s fault    Block("camera")
        400.205s detect   camera hung (hang), 149ms after the first sign
        400.205s alarm    camera-hung (critical): camera is hung, and not healed: camera was healed too often; quarantined for 200045ms more
        400.205s refuse   restart(camera, grace=0ms): quarantine
        600.250s decide   restart(camera, grace=0ms) (reflex)
        600.250s execute  restart(camera, grace=0ms)
        600.250s clear    camera-quarantine
        600.361s done     restart(camera, grace=0ms)
        600.361s alarm    camera-quarantine (critical): camera was healed 3 times within 30m by restart-at-once; left alone for 10m
        600.361s clear    camera-hung
        600.361s close    healed: camera answers again after 200306ms
    "#]].assert_eq(&trace.to_string());
    assert_eq!(trace.of("execute").len(), 4);
}

#[test]
fn an_observed_service_is_left_alone_and_told_why() {
    let node = NODE.replace("mode = \"act\"", "mode = \"observe\"");
    let trace = Sim::with(7, &node)
        .at(secs(10), Fault::Block("camera"))
        .crash("store", secs(12))
        .run_until(secs(30));
    expect![[r#"
        10.000s fault    Block("camera")
        10.196s detect   camera hung (hang), 150ms after the first sign
        10.196s alarm    camera-hung (critical): camera is hung, and not healed: camera is only observed; set mode = "act" to heal it
        10.196s refuse   restart(camera, grace=0ms): observe-only
        12.000s fault    Crash("store")
        12.000s detect   store dead (crash), 0ms after the first sign
        12.000s alarm    store-dead (critical): store is dead, and not healed: store is only observed; set mode = "act" to heal it
        12.000s refuse   restart(store, grace=0ms): observe-only
    "#]].assert_eq(&trace.to_string());
    assert!(trace.of("execute").is_empty());
}

#[test]
fn a_protected_service_is_left_alone() {
    let node = NODE.replace("criticality = \"business\"", "protected = true");
    let trace = Sim::with(7, &node)
        .crash("camera", secs(10))
        .run_until(secs(30));
    expect![[r#"
        10.000s fault    Crash("camera")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s alarm    camera-dead (critical): camera is dead, and not healed: camera is protected
        10.000s refuse   restart(camera, grace=0ms): protected
    "#]]
    .assert_eq(&trace.to_string());
    assert!(trace.of("execute").is_empty());
}

#[test]
fn a_service_whose_dependency_is_being_mended_is_not_touched() {
    let node = NODE.replace(
        "criticality = \"mission\"",
        "criticality = \"mission\"\ndepends_on = [\"camera\"]",
    );
    let trace = Sim::with(7, &node)
        .at(secs(10), Fault::SlowStart("camera", Some(Millis(900))))
        .crash("camera", secs(10))
        .run_until(secs(30));
    expect![[r#"
        10.000s fault    SlowStart("camera", Some(Millis(900)))
        10.000s fault    Crash("camera")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s decide   restart(camera, grace=0ms) (reflex)
        10.000s execute  restart(camera, grace=0ms)
        10.225s join     infer is hung: camera, which it needs, is being mended
        10.902s done     restart(camera, grace=0ms)
        10.902s close    healed: camera answers again after 902ms
    "#]]
    .assert_eq(&trace.to_string());
    assert!(
        trace
            .of("execute")
            .iter()
            .all(|text| text.contains("camera"))
    );
}

#[test]
fn pressure_alone_restarts_nobody() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Pressure(0.8))
        .at(secs(70), Fault::Pressure(0.0))
        .run_until(secs(90));
    expect![[r#"
        10.000s fault    Pressure(0.8)
        70.000s fault    Pressure(0.0)
        75.032s alarm    node-unusual (notice): cpu_busy is 3.8 %, on average of the 1m before it was 70.5 %: not what its past led to expect, for 5s (score 0.11, uncertainty 0.56); cpu_pressure is 0.0 %, on average of the 1m before it was 70.0 %: not what its past led to expect, for 5s (score 0.11, uncertainty 0.56)
        75.032s alarm    camera-unusual (notice): run_delay of camera is 0.0 %, on average of the 1m before it was 35.0 %: not what its past led to expect, for 5s (score 0.11, uncertainty 0.56)
        75.032s alarm    infer-unusual (notice): run_delay of infer is 0.0 %, on average of the 1m before it was 35.0 %: not what its past led to expect, for 5s (score 0.11, uncertainty 0.56)
        75.032s alarm    store-unusual (notice): run_delay of store is 0.0 %, on average of the 1m before it was 35.0 %: not what its past led to expect, for 5s (score 0.11, uncertainty 0.56)
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn a_real_hang_under_pressure_is_healed_within_two_seconds() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Pressure(0.8))
        .at(secs(20), Fault::Block("camera"))
        .run_until(secs(30));
    expect![[r#"
        10.000s fault    Pressure(0.8)
        20.000s fault    Block("camera")
        21.569s detect   camera hung (hang), 1516ms after the first sign
        21.569s decide   restart(camera, grace=0ms) (reflex)
        21.569s execute  restart(camera, grace=0ms)
        21.705s done     restart(camera, grace=0ms)
        21.705s close    healed: camera answers again after 1653ms
    "#]]
    .assert_eq(&trace.to_string());
    let closed = trace.when("close", "camera").expect("it is healed");
    assert!(closed.since(homeostat_common::units::Micros(20_000_000)) <= secs(2));
}

#[test]
fn a_stall_that_ends_by_itself_is_forgiven_or_healed_once() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Stall("store", Millis(250)))
        .at(secs(20), Fault::Stall("store", secs(5)))
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    Stall("store", Millis(250))
        20.000s fault    Stall("store", Millis(5000))
        20.341s detect   store hung (hang), 300ms after the first sign
        20.341s decide   restart(store, grace=0ms) (reflex)
        20.341s execute  restart(store, grace=0ms)
        20.411s done     restart(store, grace=0ms)
        20.411s close    healed: store answers again after 369ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn a_model_check_that_is_never_answered_counts_as_a_bad_model() {
    let trace = Sim::seeded(7)
        .at(secs(9), Fault::NoModelCheck(true))
        .at(secs(10), Fault::Corrupt("infer"))
        .run_until(secs(60));
    expect![[r#"
        9.000s fault    NoModelCheck(true)
        10.000s fault    Corrupt("infer")
        20.241s detect   infer wrong-answers (model-corrupt), 10062ms after the first sign
        20.241s suspect  the model of infer behind infer (0.95)
        20.241s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        20.243s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        20.254s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        20.255s execute  restart(infer, grace=500ms)
        20.330s done     restart(infer, grace=500ms)
        20.330s close    healed: infer answers again after 10150ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_rollback_that_fails_is_taken_back_and_the_next_recipe_is_tried() {
    let trace = Sim::seeded(7)
        .at(secs(9), Fault::NoRollback(true))
        .at(secs(10), Fault::Corrupt("infer"))
        .at(secs(90), Fault::NoRollback(false))
        .run_until(secs(300));
    expect![[r#"
        9.000s fault    NoRollback(true)
        10.000s fault    Corrupt("infer")
        10.189s detect   infer wrong-answers (model-corrupt), 9ms after the first sign
        10.189s suspect  the model of infer behind infer (0.99)
        10.189s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.190s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.202s failed   rollback-model(infer, to=aaaaaaaaaaaaaaaa): no space left
        10.213s undone   rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.213s alarm    infer-wrong-answers (critical): infer is wrong-answers, and not healed: infer was healed a short while ago; held for 1m more
        10.213s refuse   restart(infer, grace=500ms): hold
        70.213s decide   restart(infer, grace=500ms) (playbook)
        70.213s execute  restart(infer, grace=500ms)
        74.713s failed   restart(infer, grace=500ms): not done within 4500ms
        74.713s alarm    infer-not-starting (critical): infer is not-starting and a person is needed: nothing in the playbook helped
        90.000s fault    NoRollback(false)
        134.715s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        134.717s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        134.720s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        134.721s execute  restart(infer, grace=500ms)
        134.843s done     restart(infer, grace=500ms)
        134.843s clear    infer-wrong-answers
        134.843s clear    infer-not-starting
        134.843s close    healed: infer answers again after 124664ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_command_that_cannot_be_run_is_tried_again_and_told() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::BadCommand("camera", true))
        .crash("camera", secs(10))
        .at(secs(30), Fault::BadCommand("camera", false))
        .run_until(secs(120));
    expect![[r#"
        10.000s fault    BadCommand("camera", true)
        10.000s fault    Crash("camera")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s decide   restart(camera, grace=0ms) (reflex)
        10.000s execute  restart(camera, grace=0ms)
        10.001s failed   restart(camera, grace=0ms): not started: no such file
        10.001s decide   restart(camera, grace=0ms) (reflex)
        10.001s execute  restart(camera, grace=0ms)
        10.001s failed   restart(camera, grace=0ms): not started: no such file
        10.001s decide   restart(camera, grace=0ms) (reflex)
        10.001s execute  restart(camera, grace=0ms)
        10.002s failed   restart(camera, grace=0ms): not started: no such file
        10.002s decide   restart(camera, grace=0ms) (reflex)
        10.002s execute  restart(camera, grace=0ms)
        10.002s failed   restart(camera, grace=0ms): not started: no such file
        10.002s decide   restart(camera, grace=0ms) (reflex)
        10.002s execute  restart(camera, grace=0ms)
        10.003s failed   restart(camera, grace=0ms): not started: no such file
        10.003s alarm    camera-dead (warning): camera is dead, and not healed: camera keeps dying; next start in 999ms
        10.003s refuse   restart(camera, grace=0ms): back-off
        11.003s decide   restart(camera, grace=0ms) (reflex)
        11.003s execute  restart(camera, grace=0ms)
        11.003s failed   restart(camera, grace=0ms): not started: no such file
        11.003s refuse   restart(camera, grace=0ms): back-off
        13.003s decide   restart(camera, grace=0ms) (reflex)
        13.003s execute  restart(camera, grace=0ms)
        13.004s failed   restart(camera, grace=0ms): not started: no such file
        13.004s refuse   restart(camera, grace=0ms): back-off
        17.003s decide   restart(camera, grace=0ms) (reflex)
        17.003s execute  restart(camera, grace=0ms)
        17.004s failed   restart(camera, grace=0ms): not started: no such file
        17.004s refuse   restart(camera, grace=0ms): back-off
        25.003s decide   restart(camera, grace=0ms) (reflex)
        25.003s execute  restart(camera, grace=0ms)
        25.004s failed   restart(camera, grace=0ms): not started: no such file
        25.004s refuse   restart(camera, grace=0ms): back-off
        30.000s fault    BadCommand("camera", false)
        41.003s decide   restart(camera, grace=0ms) (reflex)
        41.003s execute  restart(camera, grace=0ms)
        41.108s done     restart(camera, grace=0ms)
        41.108s clear    camera-dead
        41.108s close    healed: camera answers again after 31108ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_service_that_ignores_term_is_killed() {
    let trace = Sim::seeded(7)
        .at(secs(5), Fault::Stubborn("infer", true))
        .at(secs(10), Fault::Corrupt("infer"))
        .run_until(secs(30));
    expect![[r#"
        5.000s fault    Stubborn("infer", true)
        10.000s fault    Corrupt("infer")
        10.189s detect   infer wrong-answers (model-corrupt), 9ms after the first sign
        10.189s suspect  the model of infer behind infer (0.99)
        10.189s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.190s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.202s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.202s execute  restart(infer, grace=500ms)
        10.830s done     restart(infer, grace=500ms)
        10.830s close    healed: infer answers again after 651ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn two_faults_at_once_are_healed_independently() {
    let trace = Sim::seeded(7)
        .crash("camera", secs(10))
        .at(secs(10), Fault::Corrupt("infer"))
        .run_until(secs(30));
    expect![[r#"
        10.000s fault    Crash("camera")
        10.000s fault    Corrupt("infer")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s decide   restart(camera, grace=0ms) (reflex)
        10.000s execute  restart(camera, grace=0ms)
        10.033s done     restart(camera, grace=0ms)
        10.033s close    healed: camera answers again after 32ms
        10.189s detect   infer wrong-answers (model-corrupt), 9ms after the first sign
        10.189s suspect  the model of infer behind infer (0.99)
        10.189s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.189s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.201s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.202s execute  restart(infer, grace=500ms)
        10.321s done     restart(infer, grace=500ms)
        10.321s close    healed: infer answers again after 141ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn one_service_at_a_time_is_taken_from_its_users() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Leak("camera", 20e6))
        .at(secs(10), Fault::Leak("store", 20e6))
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    Leak("camera", 20000000.0)
        10.000s fault    Leak("store", 20000000.0)
        15.000s detect   camera leaking (memory-leak), 0ms after the first sign
        15.000s decide   restart(camera, grace=500ms) (playbook)
        15.000s detect   store leaking (memory-leak), 0ms after the first sign
        15.000s refuse   restart(store, grace=2s): blast-radius
        15.000s refuse   restart(store, grace=0ms): blast-radius
        15.000s execute  restart(camera, grace=500ms)
        15.084s done     restart(camera, grace=500ms)
        15.084s close    healed: camera answers again after 84ms
        15.250s decide   restart(store, grace=2s) (playbook)
        15.250s execute  restart(store, grace=2s)
        15.367s done     restart(store, grace=2s)
        15.367s close    healed: store answers again after 367ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn without_fresh_samples_only_the_dead_are_healed() {
    let trace = Sim::seeded(7)
        .at(secs(5), Fault::Frozen(true))
        .crash("camera", secs(12))
        .at(secs(14), Fault::Block("store"))
        .at(secs(24), Fault::Frozen(false))
        .run_until(secs(40));
    expect![[r#"
        5.000s fault    Frozen(true)
        12.000s fault    Crash("camera")
        12.000s detect   camera dead (crash), 0ms after the first sign
        12.000s decide   restart(camera, grace=0ms) (reflex)
        12.000s execute  restart(camera, grace=0ms)
        12.035s done     restart(camera, grace=0ms)
        12.035s close    healed: camera answers again after 35ms
        14.000s fault    Block("store")
        15.641s detect   store hung (hang), 1600ms after the first sign
        15.641s refuse   restart(store, grace=0ms): stale-telemetry
        19.142s alarm    store-hung (critical): store is hung, and not healed: nothing recent is known about store
        24.000s fault    Frozen(false)
        24.144s decide   restart(store, grace=0ms) (reflex)
        24.144s execute  restart(store, grace=0ms)
        24.173s done     restart(store, grace=0ms)
        24.173s clear    store-hung
        24.173s close    healed: store answers again after 10132ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn without_a_coordinator_everything_is_healed_the_same() {
    let trace = Sim::seeded(7)
        .at(secs(5), Fault::Link(false))
        .at(secs(10), Fault::Block("camera"))
        .run_until(secs(30));
    expect![[r#"
        5.000s fault    Link(false)
        10.000s fault    Block("camera")
        10.196s detect   camera hung (hang), 150ms after the first sign
        10.196s decide   restart(camera, grace=0ms) (reflex)
        10.196s execute  restart(camera, grace=0ms)
        10.264s done     restart(camera, grace=0ms)
        10.264s close    healed: camera answers again after 217ms
    "#]]
    .assert_eq(&trace.to_string());
}
