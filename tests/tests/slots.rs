//! Models and configurations in slots: what goes back, what goes forward, and
//! what becomes of a switch that does not work.

use expect_test::expect;
use homeostat_common::units::Millis;
use homeostat_tests::sim::{Fault, Sim, secs};

const NODE: &str = r#"
[node]
id = "n2"

[limits]
mode = "act"

[[service]]
id = "preprocess"
command = ["/bin/preprocess"]
ports = [8080]
start_timeout = "2s"
stop_grace = "500ms"
[service.config]
slot = "/slots/preprocess"
file = "config.toml"
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[service]]
id = "infer"
command = ["/bin/infer"]
ports = [8081]
start_timeout = "2s"
stop_grace = "500ms"
[service.model]
slot = "/slots/infer"
reload = "watch"
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"
"#;

fn node() -> Sim {
    Sim::with(7, NODE)
}

#[test]
fn a_model_that_answers_wrongly_goes_back_without_a_restart() {
    let trace = node()
        .at(secs(10), Fault::BadModel("infer"))
        .at(secs(30), Fault::Corrupt("infer"))
        .run_until(secs(120));
    expect![[r#"
        10.000s fault    BadModel("infer")
        10.109s detect   infer wrong-answers (bad-model), 8ms after the first sign
        10.109s suspect  the model of infer behind infer (0.99)
        10.109s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; probe(infer, within=2s) (playbook)
        10.110s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.127s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.128s execute  probe(infer, within=2s)
        10.232s done     probe(infer, within=2s)
        10.232s close    healed: infer answers again after 131ms
        30.000s fault    Corrupt("infer")
        30.134s note     infer: its model is eeeeeeeeeeeeeeee again, which was replaced here
        30.134s detect   infer wrong-answers (model-corrupt), 2ms after the first sign
        30.134s suspect  the model of infer behind infer (0.99)
        30.134s alarm    infer-wrong-answers (critical): infer is wrong-answers, and not healed: infer was healed a short while ago; held for 40098ms more
        30.134s refuse   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; probe(infer, within=2s): hold
        30.134s refuse   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms): hold
        30.134s refuse   restart(infer, grace=500ms): hold
        70.233s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; probe(infer, within=2s) (playbook)
        70.234s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        70.245s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        70.246s execute  probe(infer, within=2s)
        70.351s done     probe(infer, within=2s)
        70.351s clear    infer-wrong-answers
        70.351s close    healed: infer answers again after 40219ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_crash_loop_ends_with_the_configuration_that_worked() {
    let trace = node()
        .at(secs(10), Fault::BadConfig("preprocess"))
        .crash("preprocess", secs(10))
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    BadConfig("preprocess")
        10.000s fault    Crash("preprocess")
        10.000s detect   preprocess dead (crash), 0ms after the first sign
        10.000s decide   restart(preprocess, grace=0ms) (reflex)
        10.000s execute  restart(preprocess, grace=0ms)
        10.013s failed   restart(preprocess, grace=0ms): the fresh process ended before it answered
        10.013s detect   preprocess dead (bad-config), 12ms after the first sign
        10.013s decide   rollback-config(preprocess, to=aaaaaaaaaaaaaaaa) ; restart(preprocess, grace=500ms) (playbook)
        10.013s execute  rollback-config(preprocess, to=aaaaaaaaaaaaaaaa)
        10.030s done     rollback-config(preprocess, to=aaaaaaaaaaaaaaaa)
        10.031s execute  restart(preprocess, grace=500ms)
        10.117s done     restart(preprocess, grace=500ms)
        10.117s close    healed: preprocess answers again after 117ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_new_model_is_switched_to_and_counts_as_good_once_it_has_worked() {
    let plan = "switch-model(infer, to=bbbbbbbbbbbbbbbb) ; probe(infer, within=2s)";
    let trace = node()
        .at(secs(5), Fault::Ask(plan))
        .at(secs(6), Fault::Stage("infer"))
        // Found at the next look, which a start brings.
        .crash("infer", secs(7))
        .at(secs(8), Fault::AgentKilled(Millis(100)))
        .at(secs(10), Fault::Ask(plan))
        // Only after a minute of right answers there is a second way back.
        .at(secs(80), Fault::Corrupt("infer"))
        .run_until(secs(200));
    expect![[r#"
        5.000s answer   refused: rule unverified-version: no whole copy of model bbbbbbbbbbbbbbbb is here
        5.000s fault    Ask("switch-model(infer, to=bbbbbbbbbbbbbbbb) ; probe(infer, within=2s)")
        6.000s fault    Stage("infer")
        7.000s fault    Crash("infer")
        7.000s detect   infer dead (crash), 0ms after the first sign
        7.000s decide   restart(infer, grace=0ms) (reflex)
        7.000s execute  restart(infer, grace=0ms)
        7.041s done     restart(infer, grace=0ms)
        7.041s close    healed: infer answers again after 41ms
        8.000s agent    killed
        10.000s detect   infer requested (request), 0ms after the first sign
        10.000s decide   switch-model(infer, to=bbbbbbbbbbbbbbbb) ; probe(infer, within=2s) (operator)
        10.000s answer   2 p2
        10.000s fault    Ask("switch-model(infer, to=bbbbbbbbbbbbbbbb) ; probe(infer, within=2s)")
        10.000s execute  switch-model(infer, to=bbbbbbbbbbbbbbbb)
        10.003s done     switch-model(infer, to=bbbbbbbbbbbbbbbb)
        10.004s execute  probe(infer, within=2s)
        10.105s done     probe(infer, within=2s)
        10.105s close    healed: what was asked for was done in 105ms
        80.000s fault    Corrupt("infer")
        80.109s detect   infer wrong-answers (model-corrupt), 1ms after the first sign
        80.109s suspect  the model of infer behind infer (0.99)
        80.109s decide   rollback-model(infer, to=bbbbbbbbbbbbbbbb) ; probe(infer, within=2s) (playbook)
        80.110s execute  rollback-model(infer, to=bbbbbbbbbbbbbbbb)
        80.123s done     rollback-model(infer, to=bbbbbbbbbbbbbbbb)
        80.125s execute  probe(infer, within=2s)
        80.226s done     probe(infer, within=2s)
        80.226s close    healed: infer answers again after 118ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_switch_that_does_not_work_is_taken_back() {
    let plan = "switch-model(infer, to=bbbbbbbbbbbbbbbb) ; probe(infer, within=1s)";
    let trace = node()
        .at(secs(6), Fault::Stage("infer"))
        .at(secs(8), Fault::AgentKilled(Millis(100)))
        .at(Millis(9_990), Fault::Block("infer"))
        .at(secs(10), Fault::Ask(plan))
        .run_until(secs(60));
    expect![[r#"
        6.000s fault    Stage("infer")
        8.000s agent    killed
        9.990s fault    Block("infer")
        10.000s detect   infer requested (request), 0ms after the first sign
        10.000s decide   switch-model(infer, to=bbbbbbbbbbbbbbbb) ; probe(infer, within=1s) (operator)
        10.000s answer   1 p1
        10.000s fault    Ask("switch-model(infer, to=bbbbbbbbbbbbbbbb) ; probe(infer, within=1s)")
        10.001s execute  switch-model(infer, to=bbbbbbbbbbbbbbbb)
        10.004s done     switch-model(infer, to=bbbbbbbbbbbbbbbb)
        10.005s execute  probe(infer, within=1s)
        11.005s failed   probe(infer, within=1s): not done within 1s
        11.009s undone   switch-model(infer, to=bbbbbbbbbbbbbbbb)
        11.009s detect   infer hung (hang), 1009ms after the first sign
        11.009s decide   restart(infer, grace=0ms) (reflex)
        11.009s execute  restart(infer, grace=0ms)
        11.133s done     restart(infer, grace=0ms)
        11.133s close    healed: infer answers again after 1133ms
    "#]].assert_eq(&trace.to_string());
}
