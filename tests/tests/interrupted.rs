//! A fault, and a spawner, an agent, a disk or a machine that fails in the middle of it.

use expect_test::expect;
use homeostat_common::units::Millis;
use homeostat_tests::sim::{Fault, Sim, secs};

#[test]
fn a_plan_goes_on_when_the_spawner_comes_back() {
    let trace = Sim::seeded(7)
        .at(secs(5), Fault::Stubborn("camera", true))
        .at(secs(10), Fault::Leak("camera", 20e6))
        // Between TERM and KILL.
        .at(Millis(15_200), Fault::SpawnerLost(secs(1)))
        .run_until(secs(30));
    expect![[r#"
        5.000s fault    Stubborn("camera", true)
        10.000s fault    Leak("camera", 20000000.0)
        15.000s detect   camera leaking (memory-leak), 0ms after the first sign
        15.000s decide   restart(camera, grace=500ms) (playbook)
        15.000s execute  restart(camera, grace=500ms)
        15.200s fault    SpawnerLost(Millis(1000))
        16.288s done     restart(camera, grace=500ms)
        16.288s close    healed: camera answers again after 1288ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn a_death_while_the_spawner_is_away_is_told_as_one_and_healed_when_it_is_back() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::SpawnerLost(secs(3)))
        .crash("camera", secs(11))
        .run_until(secs(30));
    expect![[r#"
        10.000s fault    SpawnerLost(Millis(3000))
        11.000s fault    Crash("camera")
        11.000s detect   camera dead (crash), 0ms after the first sign
        11.000s alarm    camera-dead (critical): camera is dead, and not healed: the spawner cannot be reached
        11.000s refuse   restart(camera, grace=0ms): spawner-lost
        13.001s decide   restart(camera, grace=0ms) (reflex)
        13.001s execute  restart(camera, grace=0ms)
        13.034s done     restart(camera, grace=0ms)
        13.034s clear    camera-dead
        13.034s close    healed: camera answers again after 2034ms
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
        10.189s detect   infer wrong-answers (model-corrupt), 9ms after the first sign
        10.189s suspect  the model of infer behind infer (0.99)
        10.189s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.190s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.202s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.202s execute  restart(infer, grace=500ms)
        10.277s agent    killed
        11.277s detect   infer wrong-answers (model-corrupt), 1098ms after the first sign
        11.286s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (resumed)
        11.286s close    healed: infer answers again after 1106ms
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
        15.040s done     restart(camera, grace=0ms)
        15.040s close    healed: camera answers again after 39ms
    "#]]
    .assert_eq(&trace.to_string());
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
        10.033s done     restart(camera, grace=0ms)
        10.033s close    healed: camera answers again after 32ms
        20.000s fault    Corrupt("infer")
        20.189s detect   infer wrong-answers (model-corrupt), 9ms after the first sign
        20.189s suspect  the model of infer behind infer (0.99)
        20.189s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        20.189s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        20.201s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        20.201s execute  restart(infer, grace=500ms)
        20.278s done     restart(infer, grace=500ms)
        20.278s close    healed: infer answers again after 98ms
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
        20.188s detect   infer wrong-answers (model-corrupt), 9ms after the first sign
        20.188s suspect  the model of infer behind infer (0.99)
        20.188s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        25.188s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        25.199s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        30.199s execute  restart(infer, grace=500ms)
        30.278s done     restart(infer, grace=500ms)
        30.278s close    healed: infer answers again after 10099ms
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
        10.189s detect   infer wrong-answers (model-corrupt), 9ms after the first sign
        10.189s suspect  the model of infer behind infer (0.99)
        10.189s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.190s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.200s fault    Reboot(Millis(8000))
        18.200s detect   infer wrong-answers (model-corrupt), 0ms after the first sign
        18.209s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (resumed)
        18.227s undone   rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        20.201s alarm    infer-not-starting (critical): infer is not-starting, and not healed: infer was healed a short while ago; held for 58026ms more
        20.201s refuse   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms): hold
        20.201s refuse   restart(infer, grace=500ms): hold
    "#]].assert_eq(&trace.to_string());
}
