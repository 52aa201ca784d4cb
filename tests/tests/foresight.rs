//! What is done, and told, before something is wrong.

use expect_test::expect;
use homeostat_agent::control::{Command, Scope, Switch};
use homeostat_common::units::Millis;
use homeostat_tests::sim::{Fault, Sim, secs};

/// Two replicas behind a route, a store, and a service that stands alone. That memory which
/// fills up is unusual is another story.
const SITE: &str = r#"
[node]
id = "n3"

[detect]
on = false

[limits]
mode = "act"

[[service]]
id = "infer-1"
command = ["/bin/infer"]
ports = [9001]
memory_limit = "512MiB"
start_timeout = "2s"
stop_grace = "500ms"
criticality = "mission"
[[service.probe]]
kind = "tcp"

[[service]]
id = "infer-2"
command = ["/bin/infer"]
ports = [9002]
memory_limit = "512MiB"
start_timeout = "2s"
stop_grace = "500ms"
criticality = "business"
[[service.probe]]
kind = "tcp"

[[service]]
id = "camera"
command = ["/bin/camera"]
ports = [8080]
memory_limit = "512MiB"
start_timeout = "2s"
stop_grace = "500ms"
[[service.probe]]
kind = "tcp"

[[service]]
id = "store"
command = ["/bin/store"]
ports = [8083]
start_timeout = "2s"
[service.data]
path = "/data"
quota = "1024MiB"
prune = ["*.old"]
[[service.probe]]
kind = "tcp"

[[forward]]
id = "infer"
listen = 9000
[[forward.backend]]
service = "infer-1"
[[forward.backend]]
service = "infer-2"

[[webhook]]
name = "ca"
url = "http://127.0.0.1:9/renew"
secret_file = "/etc/secret"
"#;

/// Bytes a second: too slow for the detector of leaks.
const SLOWLY: f64 = 0.9e6;

fn site() -> Sim {
    Sim::with(7, SITE)
}

fn changed(from: &str, to: &str) -> Sim {
    assert!(SITE.contains(from), "{from}");
    Sim::with(7, &SITE.replace(from, to))
}

#[test]
fn a_slow_leak_of_a_replica_is_ended_before_the_limit_and_nobody_notices() {
    let trace = site()
        .at(secs(60), Fault::LeakyProgram("infer-1", SLOWLY))
        .run_until(secs(1100));
    expect![[r#"
        60.000s fault    LeakyProgram("infer-1", 900000.0)
        532.000s detect   infer-1 foreseen (memory-leak), 0ms after the first sign
        532.000s because  memory grows by 878.9 KiB/s and reaches its limit of 512.0 MiB in 80s (76s to 83s), as it has for 5m 0s
        532.000s decide   isolate(infer, infer-1, drain=500ms) ; restart(infer-1, grace=500ms) ; release(infer, infer-1) (playbook)
        532.001s execute  isolate(infer, infer-1, drain=500ms)
        532.395s done     isolate(infer, infer-1, drain=500ms)
        532.395s execute  restart(infer-1, grace=500ms)
        532.553s done     restart(infer-1, grace=500ms)
        532.555s execute  release(infer, infer-1)
        532.555s done     release(infer, infer-1)
        532.555s close    healed: memory-leak of infer-1 was kept from coming; it took 555ms
        1005.000s detect   infer-1 foreseen (memory-leak), 0ms after the first sign
        1005.000s because  memory grows by 878.9 KiB/s and reaches its limit of 512.0 MiB in 79s (77s to 80s), as it has for 5m 0s
        1005.000s decide   isolate(infer, infer-1, drain=500ms) ; restart(infer-1, grace=500ms) ; release(infer, infer-1) (playbook)
        1005.001s execute  isolate(infer, infer-1, drain=500ms)
        1005.324s done     isolate(infer, infer-1, drain=500ms)
        1005.325s execute  restart(infer-1, grace=500ms)
        1005.475s done     restart(infer-1, grace=500ms)
        1005.475s execute  release(infer, infer-1)
        1005.476s done     release(infer, infer-1)
        1005.476s close    healed: memory-leak of infer-1 was kept from coming; it took 476ms
    "#]].assert_eq(&trace.to_string());
    assert_eq!(trace.of("kernel").len(), 0);
}

#[test]
fn what_stands_alone_is_not_taken_away_and_people_are_told_when_it_will_be() {
    let trace = site()
        .at(secs(60), Fault::Leak("camera", SLOWLY))
        .run_until(secs(700));
    expect![[r#"
        60.000s fault    Leak("camera", 900000.0)
        371.000s alarm    camera-foreseen (warning): camera: memory grows by 878.9 KiB/s and reaches its limit of 512.0 MiB in 4m 1s (3m 44s to 4m 36s), as it has for 5m 0s; nothing is done about it: nothing is broken yet, and restart(camera, grace=500ms) would interrupt what works
        613.000s kernel   camera is killed by the kernel for memory
        613.000s detect   camera dead (crash), 0ms after the first sign
        613.000s decide   restart(camera, grace=0ms) (reflex)
        613.000s execute  restart(camera, grace=0ms)
        613.000s detect   camera dead (crash), 0ms after the first sign
        613.000s because  process i4 was killed by the kernel for memory, its limit is 512.0 MiB
        613.029s done     restart(camera, grace=0ms)
        613.029s clear    camera-foreseen
        613.029s close    healed: camera answers again after 29ms
    "#]].assert_eq(&trace.to_string());
    assert_eq!(trace.of("kernel").len(), 1);
}

#[test]
fn two_replicas_that_leak_alike_are_never_away_at_once() {
    let trace = site()
        .at(secs(60), Fault::LeakyProgram("infer-1", SLOWLY))
        .at(secs(60), Fault::LeakyProgram("infer-2", SLOWLY))
        .run_until(secs(700));
    assert_eq!(trace.of("kernel").len(), 0, "{trace}");
    // The second one goes once the first is back.
    expect![[r#"
        isolate(infer, infer-1, drain=500ms)
        restart(infer-1, grace=500ms)
        release(infer, infer-1)
        isolate(infer, infer-2, drain=500ms)
        restart(infer-2, grace=500ms)
        release(infer, infer-2)"#]]
    .assert_eq(&trace.of("execute").join("\n"));
    let back = trace.when("done", "release(infer, infer-1)");
    assert!(back.is_some() && back < trace.when("execute", "isolate(infer, infer-2"));
}

#[test]
fn what_fills_up_below_its_limit_is_left_alone_and_not_even_told_of() {
    let mut sim = site();
    for (name, at, by) in [
        ("infer-1", 60, 440e6),
        ("infer-2", 60, 300e6),
        ("camera", 60, 470e6),
    ] {
        let over = Millis(at * 1000 * if name == "infer-1" { 10 } else { 2 });
        sim = sim.at(secs(at), Fault::WarmUp(name, by, over));
    }
    let trace = sim.run_until(secs(3600));
    assert_eq!(trace.of("detect").len(), 0, "{trace}");
    assert_eq!(trace.of("alarm").len(), 0, "{trace}");
}

#[test]
fn a_mode_a_stop_and_maintenance_hold_for_what_is_foreseen_too() {
    let leak = || Fault::Leak("infer-1", SLOWLY);
    let observe = "criticality = \"mission\"";
    let trace = changed(observe, "mode = \"observe\"")
        .at(secs(60), leak())
        .run_until(secs(580));
    assert_eq!(trace.of("execute").len(), 0, "{trace}");
    let ask = changed(observe, "mode = \"ask\"")
        .at(secs(60), leak())
        .run_until(secs(580));
    expect![[r#"
        60.000s fault    Leak("infer-1", 900000.0)
        532.000s detect   infer-1 foreseen (memory-leak), 0ms after the first sign
        532.000s because  memory grows by 878.9 KiB/s and reaches its limit of 512.0 MiB in 80s (76s to 83s), as it has for 5m 0s
        532.000s person   isolate(infer, infer-1, drain=500ms) ; restart(infer-1, grace=500ms) ; release(infer, infer-1) waits for a person, for 30m
        532.000s alarm    infer-1-foreseen (warning): memory-leak of infer-1 is foreseen, and isolate(infer, infer-1, drain=500ms) ; restart(infer-1, grace=500ms) ; release(infer, infer-1) waits for a person: homeostat-agent approve 1, or refuse 1
        532.000s refuse   isolate(infer, infer-1, drain=500ms) ; restart(infer-1, grace=500ms) ; release(infer, infer-1): needs-approval
        532.000s refuse   isolate(infer, infer-1, drain=500ms) ; restart(infer-1, grace=0ms) ; release(infer, infer-1): needs-approval
        532.000s refuse   restart(infer-1, grace=500ms): no-breach
        532.000s refuse   restart(infer-1, grace=0ms): no-breach
    "#]].assert_eq(&ask.to_string());
    let stop = Command::Stop {
        why: "we look for it".into(),
    };
    let stopped = site()
        .at(secs(10), Fault::Order(stop))
        .at(secs(60), leak())
        .run_until(secs(580));
    assert_eq!(stopped.of("execute").len(), 0, "{stopped}");
    assert!(
        stopped.when("alarm", "infer-1-foreseen").is_some(),
        "{stopped}"
    );
    let told_only = format!("{SITE}\n[foresee]\nact = false\n");
    let trace = Sim::with(7, &told_only)
        .at(secs(60), leak())
        .run_until(secs(580));
    assert_eq!(trace.of("detect").len(), 0, "{trace}");
    assert!(trace.when("alarm", "infer-1-foreseen").is_some(), "{trace}");
    let window = Command::Begin {
        switch: Switch::Maintenance,
        scope: Scope::Service("infer-1".parse().unwrap()),
        span: secs(3600),
        why: "new camera".into(),
    };
    let worked_on = site()
        .at(secs(10), Fault::Order(window))
        .at(secs(60), leak())
        .run_until(secs(580));
    assert_eq!(worked_on.of("execute").len(), 0, "{worked_on}");
}

#[test]
fn old_data_go_early_only_where_the_operator_gives_them_up() {
    let filling = |sim: Sim| {
        sim.at(secs(60), Fault::Grow("store", 2e6))
            .run_until(secs(700))
    };
    let late = filling(site());
    expect![[r#"
        60.000s fault    Grow("store", 2000000.0)
        368.000s alarm    store-foreseen (warning): store: what is in /data grows by 1.9 MiB/s and reaches 95% of 1.0 GiB in 3m 24s (3m 0s to 4m 57s), as it has for 5m 0s; nothing is done about it: nothing is broken yet, and nothing brings back what prune-data(store, to=70%) takes
        571.002s detect   store data-full (data-full), 0ms after the first sign
        571.002s decide   prune-data(store, to=70%) ; probe(store, within=2s) (playbook)
        571.003s execute  prune-data(store, to=70%)
        571.008s done     prune-data(store, to=70%)
        571.009s execute  probe(store, within=2s)
        572.011s done     probe(store, within=2s)
        572.011s clear    store-foreseen
        572.011s close    healed: store answers again after 1009ms
    "#]].assert_eq(&late.to_string());
    let early = filling(changed(
        "prune = [\"*.old\"]",
        "prune = [\"*.old\"]\nearly = true",
    ));
    expect![[r#"
        60.000s fault    Grow("store", 2000000.0)
        441.000s detect   store foreseen (data-full), 0ms after the first sign
        441.000s because  what is in /data grows by 1.9 MiB/s and reaches 95% of 1.0 GiB in 2m 10s (2m 2s to 2m 18s), as it has for 5m 0s
        441.000s decide   prune-data(store, to=70%) ; probe(store, within=2s) (playbook)
        441.001s execute  prune-data(store, to=70%)
        441.006s done     prune-data(store, to=70%)
        441.007s execute  probe(store, within=2s)
        442.010s done     probe(store, within=2s)
        442.010s close    healed: data-full of store was kept from coming; it took 1010ms
    "#]].assert_eq(&early.to_string());
}

#[test]
fn a_node_that_gets_too_hot_has_who_matters_least_do_less_for_a_while() {
    let trace = site()
        .at(secs(30), Fault::Hog("infer-1", 2.0))
        .at(secs(30), Fault::Hog("infer-2", 1.0))
        .at(secs(60), Fault::Warm(60.0, 2.0))
        .run_until(secs(900));
    expect![[r#"
        30.000s fault    Hog("infer-1", 2.0)
        30.000s fault    Hog("infer-2", 1.0)
        60.000s fault    Warm(60.0, 2.0)
        595.000s detect   infer-2 foreseen (overheating), 0ms after the first sign
        595.000s because  the node gets warmer by 2.0 degrees a minute and reaches 80 in 64s (62s to 67s), as it has for 5m 0s
        595.000s decide   limit-cpu(infer-2, to=12%) ; wait(2m) ; unlimit-cpu(infer-2) (playbook)
        595.001s execute  limit-cpu(infer-2, to=12%)
        595.006s done     limit-cpu(infer-2, to=12%)
        595.007s execute  wait(2m)
        715.007s done     wait(2m)
        715.009s execute  unlimit-cpu(infer-2)
        715.014s done     unlimit-cpu(infer-2)
        715.014s close    healed: overheating of infer-2 was kept from coming; it took 120014ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_certificate_is_told_of_in_time_and_its_renewal_asked_for_once() {
    // 2026-11-22, and four days later.
    let now = 1_795_305_600_000;
    let node = format!(
        "{SITE}\n[[certificate]]\nid = \"api\"\npath = \"/c.pem\"\nservice = \"camera\"\nrenew = \
         \"ca\"\n"
    );
    let trace = Sim::with(7, &node)
        .at(Millis(0), Fault::Wall(now))
        .at(Millis(0), Fault::CertificatesEnd(now + 4 * 86_400_000))
        .run_until(secs(1000));
    expect![[r#"
        0.000s fault    Wall(1795305600000)
        0.000s fault    CertificatesEnd(1795651200000)
        1.000s alarm    certificate-api (warning): the certificate api in /c.pem is valid for 3 days and 23 hours more
        1.000s detect   camera foreseen (certificate-expiry), 0ms after the first sign
        1.000s because  the certificate api in /c.pem is valid for 3 days and 23 hours more
        1.000s decide   call-webhook(camera, to=ca) (playbook)
        1.000s execute  call-webhook(camera, to=ca)
        1.005s done     call-webhook(camera, to=ca)
        1.005s close    healed: whoever renews the certificate of camera was asked to
        301.000s alarm    certificate-api (warning): the certificate api in /c.pem is valid for 3 days and 23 hours more
        901.000s alarm    certificate-api (warning): the certificate api in /c.pem is valid for 3 days and 23 hours more
    "#]].assert_eq(&trace.to_string());
    let unreadable = Sim::with(7, &node)
        .at(Millis(0), Fault::Wall(now))
        .run_until(secs(60));
    expect![[r#"
        0.000s fault    Wall(1795305600000)
        1.000s alarm    certificate-api (warning): the certificate api in /c.pem is not known: no such file
    "#]].assert_eq(&unreadable.to_string());
}
