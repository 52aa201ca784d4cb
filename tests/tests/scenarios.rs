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
        10.076s done     restart(camera, grace=0ms)
        10.076s close    healed: camera answers again after 76ms
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
        10.151s detect   camera hung (hang), 149ms after the first sign
        10.151s decide   restart(camera, grace=0ms) (reflex)
        10.151s execute  restart(camera, grace=0ms)
        10.230s done     restart(camera, grace=0ms)
        10.230s close    healed: camera answers again after 229ms
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
        15.090s done     restart(camera, grace=500ms)
        15.090s close    healed: camera answers again after 90ms
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
        10.134s detect   infer wrong-answers (model-corrupt), 6ms after the first sign
        10.134s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.135s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.137s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.139s execute  restart(infer, grace=500ms)
        10.258s done     restart(infer, grace=500ms)
        10.258s close    healed: infer answers again after 130ms
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
        10.151s detect   camera hung (hang), 149ms after the first sign
        10.151s decide   restart(camera, grace=0ms) (reflex)
        10.151s execute  restart(camera, grace=0ms)
        10.230s done     restart(camera, grace=0ms)
        10.230s close    healed: camera answers again after 229ms
        12.000s fault    Block("camera")
        12.203s detect   camera hung (hang), 150ms after the first sign
        12.203s alarm    camera-hung (critical): camera is hung, and not healed: camera was healed a short while ago; held for 58026ms more
        12.203s refuse   restart(camera, grace=0ms): hold
        70.230s decide   restart(camera, grace=0ms) (reflex)
        70.230s execute  restart(camera, grace=0ms)
        70.363s done     restart(camera, grace=0ms)
        70.363s clear    camera-hung
        70.363s close    healed: camera answers again after 58309ms
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
        10.003s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        10.003s decide   restart(camera, grace=0ms) (reflex)
        10.003s execute  restart(camera, grace=0ms)
        10.011s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        10.011s decide   restart(camera, grace=0ms) (reflex)
        10.011s execute  restart(camera, grace=0ms)
        10.022s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        10.022s decide   restart(camera, grace=0ms) (reflex)
        10.022s execute  restart(camera, grace=0ms)
        10.031s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        10.031s decide   restart(camera, grace=0ms) (reflex)
        10.031s execute  restart(camera, grace=0ms)
        10.038s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        10.038s alarm    camera-dead (warning): camera is dead, and not healed: camera keeps dying; next start in 992ms
        10.038s refuse   restart(camera, grace=0ms): back-off
        11.031s decide   restart(camera, grace=0ms) (reflex)
        11.031s execute  restart(camera, grace=0ms)
        11.041s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        11.041s refuse   restart(camera, grace=0ms): back-off
        13.031s decide   restart(camera, grace=0ms) (reflex)
        13.031s execute  restart(camera, grace=0ms)
        13.044s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        13.044s refuse   restart(camera, grace=0ms): back-off
        17.031s decide   restart(camera, grace=0ms) (reflex)
        17.031s execute  restart(camera, grace=0ms)
        17.038s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        17.038s refuse   restart(camera, grace=0ms): back-off
        25.031s decide   restart(camera, grace=0ms) (reflex)
        25.031s execute  restart(camera, grace=0ms)
        25.042s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        25.042s refuse   restart(camera, grace=0ms): back-off
        41.031s decide   restart(camera, grace=0ms) (reflex)
        41.031s execute  restart(camera, grace=0ms)
        41.041s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        41.041s refuse   restart(camera, grace=0ms): back-off
        73.031s decide   restart(camera, grace=0ms) (reflex)
        73.031s execute  restart(camera, grace=0ms)
        73.036s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        73.036s refuse   restart(camera, grace=0ms): back-off
        137.031s decide   restart(camera, grace=0ms) (reflex)
        137.031s execute  restart(camera, grace=0ms)
        137.042s failed   restart(camera, grace=0ms): the fresh process ended before it answered
        137.042s refuse   restart(camera, grace=0ms): back-off
        265.031s decide   restart(camera, grace=0ms) (reflex)
        265.031s execute  restart(camera, grace=0ms)
        265.110s done     restart(camera, grace=0ms)
        265.110s clear    camera-dead
        265.110s close    healed: camera answers again after 255109ms
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
        100.151s detect   camera hung (hang), 149ms after the first sign
        100.151s decide   restart(camera, grace=0ms) (reflex)
        100.151s execute  restart(camera, grace=0ms)
        100.181s done     restart(camera, grace=0ms)
        100.181s close    healed: camera answers again after 179ms
        200.000s fault    Block("camera")
        200.154s detect   camera hung (hang), 150ms after the first sign
        200.154s decide   restart(camera, grace=0ms) (reflex)
        200.154s execute  restart(camera, grace=0ms)
        200.259s done     restart(camera, grace=0ms)
        200.259s close    healed: camera answers again after 255ms
        300.000s fault    Block("camera")
        300.232s detect   camera hung (hang), 149ms after the first sign
        300.232s decide   restart(camera, grace=0ms) (reflex)
        300.232s execute  restart(camera, grace=0ms)
        300.339s done     restart(camera, grace=0ms)
        300.339s alarm    camera-quarantine (critical): camera was healed 3 times within 30m by restart-at-once; left alone for 5m
        300.339s close    healed: camera answers again after 257ms
        400.000s fault    Block("camera")
        400.211s detect   camera hung (hang), 149ms after the first sign
        400.211s alarm    camera-hung (critical): camera is hung, and not healed: camera was healed too often; quarantined for 200128ms more
        400.211s refuse   restart(camera, grace=0ms): quarantine
        600.339s decide   restart(camera, grace=0ms) (reflex)
        600.339s execute  restart(camera, grace=0ms)
        600.339s clear    camera-quarantine
        600.419s done     restart(camera, grace=0ms)
        600.419s alarm    camera-quarantine (critical): camera was healed 3 times within 30m by restart-at-once; left alone for 10m
        600.419s clear    camera-hung
        600.419s close    healed: camera answers again after 200358ms
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
        10.151s detect   camera hung (hang), 149ms after the first sign
        10.151s alarm    camera-hung (critical): camera is hung, and not healed: camera is only observed; set mode = "act" to heal it
        10.151s refuse   restart(camera, grace=0ms): observe-only
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
        10.175s note     infer is hung while camera, which it needs, is being mended: waiting
        10.903s done     restart(camera, grace=0ms)
        10.903s close    healed: camera answers again after 902ms
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
        21.527s detect   camera hung (hang), 1516ms after the first sign
        21.527s decide   restart(camera, grace=0ms) (reflex)
        21.527s execute  restart(camera, grace=0ms)
        21.726s done     restart(camera, grace=0ms)
        21.726s close    healed: camera answers again after 1715ms
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
        20.375s detect   store hung (hang), 300ms after the first sign
        20.375s decide   restart(store, grace=0ms) (reflex)
        20.375s execute  restart(store, grace=0ms)
        20.432s done     restart(store, grace=0ms)
        20.432s close    healed: store answers again after 356ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn a_plan_goes_on_when_the_spawner_comes_back() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Block("camera"))
        .at(Millis(10_152), Fault::SpawnerLost(secs(1)))
        .run_until(secs(30));
    expect![[r#"
        10.000s fault    Block("camera")
        10.151s detect   camera hung (hang), 149ms after the first sign
        10.151s decide   restart(camera, grace=0ms) (reflex)
        10.151s execute  restart(camera, grace=0ms)
        10.152s fault    SpawnerLost(Millis(1000))
        11.229s done     restart(camera, grace=0ms)
        11.229s close    healed: camera answers again after 1228ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn a_death_that_the_spawner_could_not_tell_is_found_when_it_is_back() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::SpawnerLost(secs(3)))
        .crash("camera", secs(11))
        .run_until(secs(30));
    expect![[r#"
        10.000s fault    SpawnerLost(Millis(3000))
        11.000s fault    Crash("camera")
        11.101s detect   camera wrong-answers (wrong-answers), 0ms after the first sign
        11.101s alarm    camera-wrong-answers (critical): camera is wrong-answers, and not healed: the spawner cannot be reached
        11.101s refuse   restart(camera, grace=500ms): spawner-lost
        11.101s refuse   restart(camera, grace=0ms): spawner-lost
        13.000s decide   restart(camera, grace=0ms) (reflex)
        13.000s execute  restart(camera, grace=0ms)
        13.055s done     restart(camera, grace=0ms)
        13.055s clear    camera-wrong-answers
        13.055s close    healed: camera answers again after 1953ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_plan_is_resumed_when_the_agent_was_killed() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Corrupt("infer"))
        .at(secs(10), Fault::AgentKilledAtWrite(6, secs(1)))
        .run_until(secs(30));
    expect![[r#"
        10.000s fault    Corrupt("infer")
        10.134s detect   infer wrong-answers (model-corrupt), 6ms after the first sign
        10.134s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.135s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.137s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.139s execute  restart(infer, grace=500ms)
        10.258s agent    killed
        11.258s detect   infer wrong-answers (model-corrupt), 1130ms after the first sign
        11.267s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (resumed)
        11.267s close    healed: infer answers again after 1139ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_service_that_died_with_the_agent_is_found_dead() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::AgentKilled(secs(5)))
        .crash("camera", secs(12))
        .run_until(secs(30));
    expect![[r#"
        10.000s agent    killed
        12.000s fault    Crash("camera")
        15.000s detect   camera dead (crash), 0ms after the first sign
        15.000s decide   restart(camera, grace=0ms) (reflex)
        15.000s execute  restart(camera, grace=0ms)
        15.079s done     restart(camera, grace=0ms)
        15.079s close    healed: camera answers again after 79ms
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
        12.201s detect   infer wrong-answers (model-corrupt), 2073ms after the first sign
        12.201s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        12.202s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        12.204s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        12.205s execute  restart(infer, grace=500ms)
        12.334s done     restart(infer, grace=500ms)
        12.334s close    healed: infer answers again after 2207ms
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
        10.134s detect   infer wrong-answers (model-corrupt), 6ms after the first sign
        10.134s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.135s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.137s failed   rollback-model(infer, to=aaaaaaaaaaaaaaaa): no space left
        10.144s undone   rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.144s alarm    infer-wrong-answers (critical): infer is wrong-answers, and not healed: infer was healed a short while ago; held for 1m more
        10.144s refuse   restart(infer, grace=500ms): hold
        70.144s decide   restart(infer, grace=500ms) (playbook)
        70.144s execute  restart(infer, grace=500ms)
        74.644s failed   restart(infer, grace=500ms): not done within 4500ms
        74.644s alarm    infer-not-starting (critical): infer is not-starting and a person is needed: nothing in the playbook helped
        90.000s fault    NoRollback(false)
        134.652s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        134.652s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        134.671s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        134.671s execute  restart(infer, grace=500ms)
        134.746s done     restart(infer, grace=500ms)
        134.746s clear    infer-wrong-answers
        134.746s clear    infer-not-starting
        134.746s close    healed: infer answers again after 124618ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_full_disk_does_not_keep_a_service_down() {
    let trace = Sim::seeded(7)
        .at(secs(5), Fault::DiskFull(true))
        .crash("camera", secs(10))
        .at(secs(20), Fault::Corrupt("infer"))
        .at(secs(40), Fault::DiskFull(false))
        .run_until(secs(60));
    expect![[r#"
        5.000s alarm    store (warning): healing goes on, but its record is not kept: no space left
        5.000s fault    DiskFull(true)
        10.000s fault    Crash("camera")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s decide   restart(camera, grace=0ms) (reflex)
        10.000s execute  restart(camera, grace=0ms)
        10.076s done     restart(camera, grace=0ms)
        10.076s close    healed: camera answers again after 76ms
        20.000s fault    Corrupt("infer")
        20.142s detect   infer wrong-answers (model-corrupt), 13ms after the first sign
        20.142s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        20.142s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        20.151s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        20.151s execute  restart(infer, grace=500ms)
        20.271s done     restart(infer, grace=500ms)
        20.271s close    healed: infer answers again after 142ms
        40.000s clear    store
        40.000s fault    DiskFull(false)
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_disk_that_stands_still_delays_each_step_by_five_seconds_at_most() {
    let trace = Sim::seeded(7)
        .at(secs(5), Fault::SlowSync(secs(3600)))
        .at(secs(20), Fault::Corrupt("infer"))
        .run_until(secs(60));
    expect![[r#"
        5.000s fault    SlowSync(Millis(3600000))
        20.000s fault    Corrupt("infer")
        20.143s detect   infer wrong-answers (model-corrupt), 13ms after the first sign
        20.143s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        25.143s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        25.148s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        30.148s execute  restart(infer, grace=500ms)
        30.198s done     restart(infer, grace=500ms)
        30.198s close    healed: infer answers again after 10068ms
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
        11.002s decide   restart(camera, grace=0ms) (reflex)
        11.002s execute  restart(camera, grace=0ms)
        11.003s failed   restart(camera, grace=0ms): not started: no such file
        11.003s refuse   restart(camera, grace=0ms): back-off
        13.002s decide   restart(camera, grace=0ms) (reflex)
        13.002s execute  restart(camera, grace=0ms)
        13.003s failed   restart(camera, grace=0ms): not started: no such file
        13.003s refuse   restart(camera, grace=0ms): back-off
        17.002s decide   restart(camera, grace=0ms) (reflex)
        17.002s execute  restart(camera, grace=0ms)
        17.003s failed   restart(camera, grace=0ms): not started: no such file
        17.003s refuse   restart(camera, grace=0ms): back-off
        25.003s decide   restart(camera, grace=0ms) (reflex)
        25.003s execute  restart(camera, grace=0ms)
        25.003s failed   restart(camera, grace=0ms): not started: no such file
        25.003s refuse   restart(camera, grace=0ms): back-off
        30.000s fault    BadCommand("camera", false)
        41.003s decide   restart(camera, grace=0ms) (reflex)
        41.003s execute  restart(camera, grace=0ms)
        41.054s done     restart(camera, grace=0ms)
        41.054s clear    camera-dead
        41.054s close    healed: camera answers again after 31054ms
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
        10.134s detect   infer wrong-answers (model-corrupt), 6ms after the first sign
        10.134s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.135s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.137s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.139s execute  restart(infer, grace=500ms)
        10.718s done     restart(infer, grace=500ms)
        10.718s close    healed: infer answers again after 590ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_reboot_in_the_middle_of_a_plan_leaves_nothing_halfway() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Corrupt("infer"))
        .at(Millis(10_200), Fault::Reboot(secs(8)))
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    Corrupt("infer")
        10.134s detect   infer wrong-answers (model-corrupt), 6ms after the first sign
        10.134s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.135s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.137s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.139s execute  restart(infer, grace=500ms)
        10.200s fault    Reboot(Millis(8000))
        18.200s detect   infer wrong-answers (model-corrupt), 0ms after the first sign
        18.209s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (resumed)
        18.211s execute  restart(infer, grace=500ms)
        18.345s done     restart(infer, grace=500ms)
        18.345s close    healed: infer answers again after 145ms
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
        10.076s done     restart(camera, grace=0ms)
        10.076s close    healed: camera answers again after 76ms
        10.140s detect   infer wrong-answers (model-corrupt), 12ms after the first sign
        10.140s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.141s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.156s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.157s execute  restart(infer, grace=500ms)
        10.323s done     restart(infer, grace=500ms)
        10.323s close    healed: infer answers again after 195ms
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
        15.090s done     restart(camera, grace=500ms)
        15.090s close    healed: camera answers again after 90ms
        15.250s decide   restart(store, grace=2s) (playbook)
        15.250s execute  restart(store, grace=2s)
        15.385s done     restart(store, grace=2s)
        15.385s close    healed: store answers again after 385ms
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
        12.052s done     restart(camera, grace=0ms)
        12.052s close    healed: camera answers again after 52ms
        14.000s fault    Block("store")
        14.375s detect   store hung (hang), 300ms after the first sign
        14.375s refuse   restart(store, grace=0ms): stale-telemetry
        19.127s alarm    store-hung (critical): store is hung, and not healed: nothing recent is known about store
        24.000s fault    Frozen(false)
        24.129s decide   restart(store, grace=0ms) (reflex)
        24.129s execute  restart(store, grace=0ms)
        24.183s done     restart(store, grace=0ms)
        24.183s clear    store-hung
        24.183s close    healed: store answers again after 10107ms
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
        10.151s detect   camera hung (hang), 149ms after the first sign
        10.151s decide   restart(camera, grace=0ms) (reflex)
        10.151s execute  restart(camera, grace=0ms)
        10.230s done     restart(camera, grace=0ms)
        10.230s close    healed: camera answers again after 229ms
    "#]]
    .assert_eq(&trace.to_string());
}
