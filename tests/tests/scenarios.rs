//! One fault, or a few, and what the node makes of it.

use expect_test::expect;
use homeostat_common::units::Millis;
use homeostat_tests::sim::{Fault, Sim, secs};

#[test]
fn a_killed_process_is_started_again_at_once() {
    let trace = Sim::seeded(7).crash("camera", secs(10)).run_until(secs(60));
    expect![[r#"
          10.000s fault    Crash("camera")
          10.000s detect   camera dead (crash), 0ms after the first sign
          10.000s decide   restart(camera, grace=0ms) (reflex)
          10.000s execute  restart(camera, grace=0ms)
          10.052s done     restart(camera, grace=0ms)
          10.052s close    healed: camera answers again after 51ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_blocked_loop_is_killed_and_started_again() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Block("camera"))
        .run_until(secs(60));
    expect![[r#"
          10.000s fault    Block("camera")
          10.226s detect   camera hung (hang), 150ms after the first sign
          10.226s decide   restart(camera, grace=0ms) (reflex)
          10.226s execute  restart(camera, grace=0ms)
          10.307s done     restart(camera, grace=0ms)
          10.307s close    healed: camera answers again after 231ms
    "#]].assert_eq(&trace.to_string());
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
          15.220s done     restart(camera, grace=500ms)
          15.220s close    healed: camera answers again after 220ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_corrupt_model_is_put_back_before_the_restart() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Corrupt("infer"))
        .run_until(secs(60));
    expect![[r#"
          10.000s fault    Corrupt("infer")
          10.179s detect   infer wrong-answers (model-corrupt), 1ms after the first sign
          10.179s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
          10.180s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
          10.187s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
          10.188s execute  restart(infer, grace=500ms)
          10.340s done     restart(infer, grace=500ms)
          10.340s close    healed: infer answers again after 162ms
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
          10.226s detect   camera hung (hang), 150ms after the first sign
          10.226s decide   restart(camera, grace=0ms) (reflex)
          10.226s execute  restart(camera, grace=0ms)
          10.307s done     restart(camera, grace=0ms)
          10.307s close    healed: camera answers again after 231ms
          12.000s fault    Block("camera")
          12.178s detect   camera hung (hang), 149ms after the first sign
          12.178s alarm    camera-hung (critical): camera is hung, and not healed: camera was healed a short while ago; held for 58128ms more
          12.178s refuse   restart(camera, grace=0ms): hold
          70.307s decide   restart(camera, grace=0ms) (reflex)
          70.307s execute  restart(camera, grace=0ms)
          70.363s done     restart(camera, grace=0ms)
          70.363s clear    camera-hung
          70.363s close    healed: camera answers again after 58334ms
    "#]].assert_eq(&trace.to_string());
}
