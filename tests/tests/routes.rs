//! Replicas behind a forwarder: what the node does with traffic, and when it
//! keeps its hands off.

use expect_test::expect;
use homeostat_common::units::Millis;
use homeostat_tests::sim::{Fault, Sim, secs};

/// Two replicas and a standby behind one route, and a gateway that calls it.
const SITE: &str = r#"
[node]
id = "n2"

[limits]
mode = "act"

[[service]]
id = "gateway"
command = ["/bin/gateway"]
ports = [8080]
start_timeout = "2s"
calls = ["infer"]
cpu_limit = 0.5
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[service]]
id = "infer-1"
command = ["/bin/infer"]
ports = [9001]
memory_limit = "512MiB"
start_timeout = "2s"
stop_grace = "500ms"
cpu_limit = 0.5
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[service.probe]]
kind = "metrics"
period = "200ms"
frozen = 3
[[service.probe.gauge]]
name = "queue_depth"
max = 64.0
for = "1s"

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

[[service]]
id = "infer-3"
command = ["/bin/infer"]
ports = [9003]
standby = true
start_timeout = "2s"
stop_grace = "500ms"
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[service]]
id = "store"
command = ["/bin/store"]
ports = [8083]
start_timeout = "2s"
[service.data]
path = "/data"
quota = "1MiB"
prune = ["*.old"]
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
[[forward.backend]]
service = "infer-3"
weight = 0
"#;

fn site() -> Sim {
    Sim::with(7, SITE)
}

#[test]
fn a_slow_replica_is_restarted_without_its_traffic() {
    let trace = site()
        .at(secs(10), Fault::Slow("infer-1", Millis(150)))
        .at(secs(60), Fault::ShowWeights)
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    Slow("infer-1", Millis(150))
        12.000s detect   infer-1 slow (slow-replica), 2s after the first sign
        12.000s decide   isolate(infer, infer-1, drain=500ms) ; restart(infer-1, grace=500ms) ; release(infer, infer-1) (playbook)
        12.001s execute  isolate(infer, infer-1, drain=500ms)
        12.395s done     isolate(infer, infer-1, drain=500ms)
        12.395s execute  restart(infer-1, grace=500ms)
        12.556s done     restart(infer-1, grace=500ms)
        12.558s execute  release(infer, infer-1)
        12.558s done     release(infer, infer-1)
        12.558s close    healed: infer-1 answers again after 2558ms
        60.000s weights  infer-1=100 infer-2=100 infer-3=0
        60.000s fault    ShowWeights
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn all_replicas_slow_is_no_fault_of_one() {
    let trace = site()
        .at(secs(10), Fault::Slow("infer-1", Millis(150)))
        .at(secs(10), Fault::Slow("infer-2", Millis(160)))
        .run_until(secs(60));
    assert_eq!(trace.of("decide"), Vec::<&str>::new(), "{trace}");
}

#[test]
fn the_last_replica_is_better_slow_than_away() {
    let trace = site()
        .at(secs(9), Fault::BadCommand("infer-2", true))
        .at(secs(10), Fault::Slow("infer-1", Millis(150)))
        .at(Millis(10_500), Fault::Crash("infer-2"))
        .run_until(secs(30));
    expect![[r#"
        9.000s fault    BadCommand("infer-2", true)
        10.000s fault    Slow("infer-1", Millis(150))
        10.500s fault    Crash("infer-2")
        10.500s detect   infer-2 dead (crash), 0ms after the first sign
        10.500s decide   restart(infer-2, grace=0ms) (reflex)
        10.500s execute  restart(infer-2, grace=0ms)
        10.501s failed   restart(infer-2, grace=0ms): not started: no such file
        10.501s decide   restart(infer-2, grace=0ms) (reflex)
        10.501s execute  restart(infer-2, grace=0ms)
        10.501s failed   restart(infer-2, grace=0ms): not started: no such file
        10.501s decide   restart(infer-2, grace=0ms) (reflex)
        10.501s execute  restart(infer-2, grace=0ms)
        10.502s failed   restart(infer-2, grace=0ms): not started: no such file
        10.502s decide   restart(infer-2, grace=0ms) (reflex)
        10.502s execute  restart(infer-2, grace=0ms)
        10.503s failed   restart(infer-2, grace=0ms): not started: no such file
        10.503s decide   restart(infer-2, grace=0ms) (reflex)
        10.503s execute  restart(infer-2, grace=0ms)
        10.504s failed   restart(infer-2, grace=0ms): not started: no such file
        10.504s alarm    infer-2-dead (warning): infer-2 is dead, and not healed: infer-2 keeps dying; next start in 999ms
        10.504s refuse   restart(infer-2, grace=0ms): back-off
        11.503s decide   restart(infer-2, grace=0ms) (reflex)
        11.503s execute  restart(infer-2, grace=0ms)
        11.504s failed   restart(infer-2, grace=0ms): not started: no such file
        11.504s refuse   restart(infer-2, grace=0ms): back-off
        13.503s decide   restart(infer-2, grace=0ms) (reflex)
        13.503s execute  restart(infer-2, grace=0ms)
        13.504s failed   restart(infer-2, grace=0ms): not started: no such file
        13.504s refuse   restart(infer-2, grace=0ms): back-off
        17.504s decide   restart(infer-2, grace=0ms) (reflex)
        17.504s execute  restart(infer-2, grace=0ms)
        17.504s failed   restart(infer-2, grace=0ms): not started: no such file
        17.504s refuse   restart(infer-2, grace=0ms): back-off
        25.504s decide   restart(infer-2, grace=0ms) (reflex)
        25.504s execute  restart(infer-2, grace=0ms)
        25.504s failed   restart(infer-2, grace=0ms): not started: no such file
        25.504s refuse   restart(infer-2, grace=0ms): back-off
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn frozen_reports_of_the_forwarder_move_nothing() {
    let trace = site()
        .at(secs(10), Fault::Slow("infer-1", Millis(150)))
        .at(Millis(11_500), Fault::RoutesFrozen(true))
        .run_until(secs(30));
    expect![[r#"
        10.000s fault    Slow("infer-1", Millis(150))
        11.500s fault    RoutesFrozen(true)
        14.001s alarm    forwarder-frozen (warning): the forwarder answers, but its numbers do not move: nothing is decided on them
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_leaking_replica_is_drained_first() {
    let trace = site()
        .at(secs(10), Fault::Leak("infer-1", 20e6))
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    Leak("infer-1", 20000000.0)
        15.000s detect   infer-1 leaking (memory-leak), 0ms after the first sign
        15.000s decide   isolate(infer, infer-1, drain=500ms) ; restart(infer-1, grace=500ms) ; release(infer, infer-1) (playbook)
        15.001s execute  isolate(infer, infer-1, drain=500ms)
        15.395s done     isolate(infer, infer-1, drain=500ms)
        15.395s execute  restart(infer-1, grace=500ms)
        15.557s done     restart(infer-1, grace=500ms)
        15.559s execute  release(infer, infer-1)
        15.559s done     release(infer, infer-1)
        15.559s close    healed: infer-1 answers again after 559ms
    "#]].assert_eq(&trace.to_string());
}

/// The gentle restart fails, as the process comes up too slowly; it is not given
/// its traffic back before it is killed instead.
#[test]
fn what_follows_a_failed_step_is_revised() {
    let trace = Sim::with(
        7,
        &SITE.replacen(
            "ports = [9002]",
            "ports = [9002]\nmemory_limit = \"512MiB\"",
            1,
        ),
    )
    .at(secs(10), Fault::Leak("infer-2", 20e6))
    .at(secs(10), Fault::SlowStart("infer-2", Some(Millis::secs(9))))
    .at(secs(17), Fault::SlowStart("infer-2", None))
    .run_until(secs(60));
    expect![[r#"
        10.000s fault    Leak("infer-2", 20000000.0)
        10.000s fault    SlowStart("infer-2", Some(Millis(9000)))
        15.000s detect   infer-2 leaking (memory-leak), 0ms after the first sign
        15.000s decide   isolate(infer, infer-2, drain=500ms) ; restart(infer-2, grace=500ms) ; release(infer, infer-2) (playbook)
        15.001s execute  isolate(infer, infer-2, drain=500ms)
        15.395s done     isolate(infer, infer-2, drain=500ms)
        15.395s execute  restart(infer-2, grace=500ms)
        17.000s fault    SlowStart("infer-2", None)
        19.895s failed   restart(infer-2, grace=500ms): not done within 4500ms
        19.895s decide   isolate(infer, infer-2, drain=500ms) ; restart(infer-2, grace=0ms) ; release(infer, infer-2) (playbook)
        19.897s execute  restart(infer-2, grace=0ms)
        20.019s done     restart(infer-2, grace=0ms)
        20.021s execute  release(infer, infer-2)
        20.021s done     release(infer, infer-2)
        20.021s close    healed: infer-2 answers again after 5021ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn replicas_that_fail_alike_are_never_away_together() {
    let trace = Sim::with(
        7,
        &SITE.replacen(
            "ports = [9002]",
            "ports = [9002]\nmemory_limit = \"512MiB\"",
            1,
        ),
    )
    .at(secs(10), Fault::Leak("infer-1", 20e6))
    .at(secs(10), Fault::Leak("infer-2", 20e6))
    .run_until(secs(60));
    expect![[r#"
        10.000s fault    Leak("infer-1", 20000000.0)
        10.000s fault    Leak("infer-2", 20000000.0)
        15.000s detect   infer-1 leaking (memory-leak), 0ms after the first sign
        15.000s decide   isolate(infer, infer-1, drain=500ms) ; restart(infer-1, grace=500ms) ; release(infer, infer-1) (playbook)
        15.000s detect   infer-2 leaking (memory-leak), 0ms after the first sign
        15.000s refuse   isolate(infer, infer-2, drain=500ms) ; restart(infer-2, grace=500ms) ; release(infer, infer-2): last-backend
        15.000s refuse   isolate(infer, infer-2, drain=500ms) ; restart(infer-2, grace=0ms) ; release(infer, infer-2): last-backend
        15.000s refuse   restart(infer-2, grace=500ms): last-backend
        15.000s refuse   restart(infer-2, grace=0ms): last-backend
        15.001s execute  isolate(infer, infer-1, drain=500ms)
        15.395s done     isolate(infer, infer-1, drain=500ms)
        15.395s execute  restart(infer-1, grace=500ms)
        15.557s done     restart(infer-1, grace=500ms)
        15.559s execute  release(infer, infer-1)
        15.559s done     release(infer, infer-1)
        15.559s close    healed: infer-1 answers again after 559ms
        15.750s decide   isolate(infer, infer-2, drain=500ms) ; restart(infer-2, grace=500ms) ; release(infer, infer-2) (playbook)
        15.751s execute  isolate(infer, infer-2, drain=500ms)
        16.074s done     isolate(infer, infer-2, drain=500ms)
        16.075s execute  restart(infer-2, grace=500ms)
        16.222s done     restart(infer-2, grace=500ms)
        16.223s execute  release(infer, infer-2)
        16.224s done     release(infer, infer-2)
        16.224s close    healed: infer-2 answers again after 1224ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_plan_by_hand_gives_way_when_the_process_dies() {
    let trace = site()
        .at(
            secs(10),
            Fault::Ask("isolate(infer, infer-1, drain=0ms) ; wait(10m) ; release(infer, infer-1)"),
        )
        .crash("infer-1", secs(20))
        .at(secs(30), Fault::ShowWeights)
        .at(
            secs(31),
            Fault::Ask("restart(infer-1, grace=1s) ; restart(infer-2, grace=1s)"),
        )
        .run_until(secs(60));
    expect![[r#"
        10.000s detect   infer-1 requested (request), 0ms after the first sign
        10.000s decide   isolate(infer, infer-1, drain=0ms) ; wait(10m) ; release(infer, infer-1) (operator)
        10.000s answer   1 p1
        10.000s fault    Ask("isolate(infer, infer-1, drain=0ms) ; wait(10m) ; release(infer, infer-1)")
        10.001s execute  isolate(infer, infer-1, drain=0ms)
        10.001s done     isolate(infer, infer-1, drain=0ms)
        10.002s execute  wait(10m)
        20.000s fault    Crash("infer-1")
        20.002s undone   isolate(infer, infer-1, drain=0ms)
        20.002s detect   infer-1 dead (crash), 10002ms after the first sign
        20.002s decide   restart(infer-1, grace=0ms) (reflex)
        20.002s execute  restart(infer-1, grace=0ms)
        20.078s done     restart(infer-1, grace=0ms)
        20.078s close    healed: infer-1 answers again after 10078ms
        30.000s weights  infer-1=100 infer-2=100 infer-3=0
        30.000s fault    ShowWeights
        31.000s answer   refused: a plan by hand changes one service, this one infer-1 and infer-2: ask twice
        31.000s fault    Ask("restart(infer-1, grace=1s) ; restart(infer-2, grace=1s)")
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_hog_of_ours_is_restarted_and_a_stranger_is_only_told_of() {
    let trace = site()
        .at(secs(10), Fault::Hog("gateway", 1.0))
        .at(secs(30), Fault::Stranger(1.9))
        .at(secs(40), Fault::Stranger(0.0))
        // The next step of the same build.
        .at(secs(45), Fault::Stranger(1.2))
        .at(secs(50), Fault::Stranger(0.0))
        .run_until(secs(120));
    expect![[r#"
        10.000s fault    Hog("gateway", 1.0)
        13.000s detect   gateway hogging (cpu-hog), 3s after the first sign
        13.000s decide   restart(gateway, grace=2s) (playbook)
        13.000s execute  restart(gateway, grace=2s)
        13.115s done     restart(gateway, grace=2s)
        13.115s close    healed: gateway answers again after 3115ms
        30.000s fault    Stranger(1.9)
        30.000s alarm    stranger-cpu (warning): process 4711 (stress-ng) takes 1.9 cores while others wait, and is none of the services here; it is not touched
        40.000s fault    Stranger(0.0)
        45.000s fault    Stranger(1.2)
        50.000s fault    Stranger(0.0)
        109.000s clear    stranger-cpu
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_service_that_cannot_keep_up_gets_help() {
    let trace = site()
        .at(secs(10), Fault::Gauge("infer-1", 900.0, true))
        .at(secs(12), Fault::Gauge("infer-1", 3.0, true))
        .at(secs(13), Fault::ShowWeights)
        .run_until(secs(20));
    expect![[r#"
        10.000s fault    Gauge("infer-1", 900.0, true)
        11.109s detect   infer-1 saturated (saturation), 1s after the first sign
        11.109s decide   scale-out(infer, infer-3) (playbook)
        11.110s execute  scale-out(infer, infer-3)
        11.236s done     scale-out(infer, infer-3)
        12.000s fault    Gauge("infer-1", 3.0, true)
        12.109s close    healed: infer-1 answers again after 2001ms
        13.000s weights  infer-1=100 infer-2=100 infer-3=100
        13.000s fault    ShowWeights
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn metrics_that_do_not_move_move_nothing() {
    let trace = site()
        .at(secs(10), Fault::Gauge("infer-1", 900.0, false))
        .at(secs(30), Fault::Gauge("infer-1", 3.0, true))
        .run_until(secs(40));
    expect![[r#"
        10.000s fault    Gauge("infer-1", 900.0, false)
        10.709s alarm    infer-1-frozen (warning): the metrics of infer-1 have been the same to the last byte in more than 3 answers, although it answers: nothing is decided on them
        11.109s detect   infer-1 saturated (saturation), 1s after the first sign
        11.109s refuse   scale-out(infer, infer-3): stale-telemetry
        11.109s refuse   isolate(infer, infer-1, drain=500ms) ; restart(infer-1, grace=500ms) ; release(infer, infer-1): stale-telemetry
        15.110s alarm    infer-1-saturated (critical): infer-1 is saturated, and not healed: the metrics of infer-1 have been the same to the last byte in more than 3 answers, although it answers
        30.000s fault    Gauge("infer-1", 3.0, true)
        30.106s clear    infer-1-frozen
        30.106s clear    infer-1-saturated
        30.106s close    refused: infer-1 answers again; healing it was not allowed
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_full_data_folder_is_pruned() {
    let trace = site()
        .at(secs(10), Fault::Fill("store", 1_000_000))
        .run_until(secs(30));
    expect![[r#"
        10.000s fault    Fill("store", 1000000)
        10.002s detect   store data-full (data-full), 0ms after the first sign
        10.002s decide   prune-data(store, to=70%) ; probe(store, within=2s) (playbook)
        10.003s execute  prune-data(store, to=70%)
        10.008s done     prune-data(store, to=70%)
        10.009s execute  probe(store, within=2s)
        10.111s done     probe(store, within=2s)
        10.111s close    healed: store answers again after 109ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn the_forwarder_is_revived_like_any_service_and_called_when_it_is_silent() {
    let trace = site()
        .crash("forwarder", secs(10))
        .at(secs(30), Fault::Block("forwarder"))
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    Crash("forwarder")
        10.000s detect   forwarder dead (crash), 0ms after the first sign
        10.000s decide   restart(forwarder, grace=0ms) (reflex)
        10.000s execute  restart(forwarder, grace=0ms)
        10.201s done     restart(forwarder, grace=0ms)
        10.201s close    healed: forwarder answers again after 200ms
        30.000s fault    Block("forwarder")
        32.000s detect   forwarder hung (hang), 3s after the first sign
        32.000s decide   restart(forwarder, grace=0ms) (reflex)
        32.000s execute  restart(forwarder, grace=0ms)
        32.204s done     restart(forwarder, grace=0ms)
        32.204s close    healed: forwarder answers again after 3204ms
    "#]]
    .assert_eq(&trace.to_string());
}

#[test]
fn a_person_scales_out_and_in_and_is_told_why_not() {
    let trace = site()
        .at(secs(10), Fault::Ask("scale-out(infer, infer-3)"))
        .at(secs(12), Fault::ShowWeights)
        .at(secs(13), Fault::AgentKilled(Millis(200)))
        .crash("infer-3", secs(15))
        .at(
            secs(20),
            Fault::Ask("reroute(infer, from=infer-1, to=infer-2, share=40%)"),
        )
        .at(secs(21), Fault::ShowWeights)
        .at(secs(22), Fault::Ask("scale-in(infer, infer-3, drain=1s)"))
        .at(secs(30), Fault::ShowWeights)
        .at(
            secs(31),
            Fault::Ask("isolate(infer, infer-1, drain=1s) ; isolate(infer, infer-2, drain=1s)"),
        )
        .at(secs(32), Fault::Ask("restart(nobody, grace=1s)"))
        .at(
            secs(33),
            Fault::Ask("switch-model(infer-1, to=0000000000000000)"),
        )
        .run_until(secs(60));
    expect![[r#"
        10.000s detect   infer-3 requested (request), 0ms after the first sign
        10.000s decide   scale-out(infer, infer-3) (operator)
        10.000s answer   1 p1
        10.000s fault    Ask("scale-out(infer, infer-3)")
        10.001s execute  scale-out(infer, infer-3)
        10.126s done     scale-out(infer, infer-3)
        10.126s close    healed: what was asked for was done in 126ms
        12.000s weights  infer-1=100 infer-2=100 infer-3=100
        12.000s fault    ShowWeights
        13.000s agent    killed
        13.200s detect   infer-3 requested (request), 3200ms after the first sign
        13.202s decide   scale-out(infer, infer-3) (resumed)
        13.202s close    healed: what was asked for was done in 3202ms
        15.000s fault    Crash("infer-3")
        15.000s detect   infer-3 dead (crash), 0ms after the first sign
        15.000s decide   restart(infer-3, grace=0ms) (reflex)
        15.000s execute  restart(infer-3, grace=0ms)
        15.102s done     restart(infer-3, grace=0ms)
        15.102s close    healed: infer-3 answers again after 102ms
        20.000s detect   infer-1 requested (request), 0ms after the first sign
        20.000s decide   reroute(infer, from=infer-1, to=infer-2, share=40%) (operator)
        20.000s answer   3 p3
        20.000s fault    Ask("reroute(infer, from=infer-1, to=infer-2, share=40%)")
        20.001s execute  reroute(infer, from=infer-1, to=infer-2, share=40%)
        20.001s done     reroute(infer, from=infer-1, to=infer-2, share=40%)
        20.001s close    healed: what was asked for was done in 1ms
        21.000s weights  infer-1=60 infer-2=140 infer-3=100
        21.000s fault    ShowWeights
        22.000s detect   infer-3 requested (request), 0ms after the first sign
        22.000s decide   scale-in(infer, infer-3, drain=1s) (operator)
        22.000s answer   4 p4
        22.000s fault    Ask("scale-in(infer, infer-3, drain=1s)")
        22.001s execute  scale-in(infer, infer-3, drain=1s)
        22.882s done     scale-in(infer, infer-3, drain=1s)
        22.882s close    healed: what was asked for was done in 882ms
        30.000s weights  infer-1=60 infer-2=140 infer-3=0
        30.000s fault    ShowWeights
        31.000s answer   refused: a plan by hand changes one service, this one infer-1 and infer-2: ask twice
        31.000s fault    Ask("isolate(infer, infer-1, drain=1s) ; isolate(infer, infer-2, drain=1s)")
        32.000s answer   refused: the plan touches nothing of this node
        32.000s fault    Ask("restart(nobody, grace=1s)")
        33.000s answer   refused: rule unverified-version: no whole copy of model 0000000000000000 is here
        33.000s fault    Ask("switch-model(infer-1, to=0000000000000000)")
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_plan_about_routes_survives_the_death_of_the_agent_at_each_write() {
    for seed in 0..5 {
        for write in 1..8 {
            let rest = Sim::with(seed, SITE)
                .at(Millis(9_999), Fault::AgentKilledAtWrite(write, Millis(300)))
                .at(secs(10), Fault::Slow("infer-1", Millis(150)))
                .run_to_rest(secs(200));
            assert!(rest.plans >= 1, "{}", rest.trace);
        }
    }
}
