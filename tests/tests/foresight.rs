//! What is done, and told, before something is wrong.

use expect_test::expect;
use homeostat_agent::control::{Command, Scope, Switch};
use homeostat_common::units::Millis;
use homeostat_tests::sim::{Fault, Sim, secs};

/// Two replicas behind a route, a store, and a service that stands alone.
const SITE: &str = r#"
[node]
id = "n3"

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
    expect![[r#""#]].assert_eq(&trace.to_string());
    assert_eq!(trace.of("kernel").len(), 0);
}

#[test]
fn what_stands_alone_is_not_taken_away_and_people_are_told_when_it_will_be() {
    let trace = site()
        .at(secs(60), Fault::Leak("camera", SLOWLY))
        .run_until(secs(700));
    expect![[r#""#]].assert_eq(&trace.to_string());
    assert_eq!(trace.of("kernel").len(), 1);
}

#[test]
fn two_replicas_that_leak_alike_are_never_away_at_once() {
    let trace = site()
        .at(secs(60), Fault::LeakyProgram("infer-1", SLOWLY))
        .at(secs(60), Fault::LeakyProgram("infer-2", SLOWLY))
        .run_until(secs(700));
    assert_eq!(trace.of("kernel").len(), 0, "{trace}");
    expect![[r#""#]].assert_eq(&trace.to_string());
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
    expect![[r#""#]].assert_eq(&ask.to_string());
    let stop = Command::Stop {
        why: "we look for it".into(),
    };
    let stopped = site()
        .at(secs(10), Fault::Order(stop))
        .at(secs(60), leak())
        .run_until(secs(580));
    assert_eq!(stopped.of("execute").len(), 0, "{stopped}");
    assert!(stopped.when("alarm", "infer-1-foreseen").is_some(), "{stopped}");
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
    let filling = |sim: Sim| sim.at(secs(60), Fault::Grow("store", 2e6)).run_until(secs(700));
    let late = filling(site());
    expect![[r#""#]].assert_eq(&late.to_string());
    let early = filling(changed("prune = [\"*.old\"]", "prune = [\"*.old\"]\nearly = true"));
    expect![[r#""#]].assert_eq(&early.to_string());
}

#[test]
fn a_node_that_gets_too_hot_has_who_matters_least_do_less_for_a_while() {
    let trace = site()
        .at(secs(30), Fault::Hog("infer-1", 2.0))
        .at(secs(30), Fault::Hog("infer-2", 1.0))
        .at(secs(60), Fault::Warm(60.0, 2.0))
        .run_until(secs(900));
    expect![[r#""#]].assert_eq(&trace.to_string());
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
    expect![[r#""#]].assert_eq(&trace.to_string());
    let unreadable = Sim::with(7, &node)
        .at(Millis(0), Fault::Wall(now))
        .run_until(secs(60));
    expect![[r#""#]].assert_eq(&unreadable.to_string());
}
