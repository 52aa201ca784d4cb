//! What devices say over MQTT becomes alarms of the node, and moves nothing else.

use expect_test::expect;
use homeostat_common::wire::body::Severity;
use homeostat_notify::intake::{Heard, Word};
use homeostat_tests::sim::{Fault, Sim, secs};

fn word(topic: &str, name: &str, service: Option<&str>, raised: bool) -> Fault {
    Fault::Heard(
        topic.into(),
        Heard::Word(Word {
            alarm: name.into(),
            node: None,
            service: service.map(str::to_owned),
            severity: Severity::Critical,
            text: format!("{name} (MQTT {topic})"),
            raised,
        }),
    )
}

#[test]
fn an_alarm_of_a_device_stands_until_it_says_otherwise_and_nothing_is_healed_for_it() {
    let trace = Sim::seeded(7)
        .at(
            secs(10),
            word("plant/press", "press-hot", Some("camera"), true),
        )
        .at(
            secs(11),
            word("plant/press", "press-hot", Some("camera"), true),
        )
        .at(
            secs(12),
            word("plant/press", "press-dry", Some("stranger"), true),
        )
        .at(secs(20), word("plant/press", "press-hot", None, false))
        .at(secs(21), Fault::Heard("plant/press".into(), Heard::Gone))
        .at(secs(22), Fault::Heard("plant/other".into(), Heard::Gone))
        .run_until(secs(60));
    let alarms: Vec<&str> = [trace.of("alarm"), trace.of("clear")].concat();
    expect![[r#"
        mqtt-press-hot (critical): press-hot (MQTT plant/press)
        mqtt-press-dry (critical): press-dry (MQTT plant/press)
        mqtt-press-hot
        mqtt-press-dry"#]]
    .assert_eq(&alarms.join("\n"));
    assert!(trace.of("execute").is_empty());
}

#[test]
fn a_flood_of_devices_is_bounded_and_said() {
    let mut sim = Sim::seeded(7);
    for n in 0..1000 {
        sim = sim.at(
            secs(10 + n / 100),
            word("plant/x", &format!("d-{n}"), None, true),
        );
    }
    let trace = sim
        .at(secs(30), Fault::Heard("plant/x".into(), Heard::Gone))
        .run_until(secs(60));
    let alarms = trace.of("alarm");
    assert_eq!(alarms.len(), 33, "{alarms:?}");
    let full = |line: &&str| line.contains("intake-full (warning): 1 alarms of devices");
    assert!(alarms.iter().any(full), "{alarms:?}");
    assert_eq!(trace.of("clear").len(), 33);
}

#[test]
fn after_a_restart_an_alarm_of_a_device_is_over_only_once_it_could_have_been_heard() {
    let hot = || word("plant/press", "press-hot", None, true);
    let restarted = || {
        Sim::seeded(7)
            .at(secs(10), hot())
            .at(secs(19), Fault::Link(false))
            .at(secs(20), Fault::AgentKilled(secs(1)))
            .at(secs(200), Fault::Link(true))
    };
    let away = restarted().run_until(secs(230));
    assert!(away.of("clear").is_empty(), "{away}");
    let silent = restarted().run_until(secs(300));
    let over = silent.when("clear", "mqtt-press-hot").map(|at| at.0);
    assert!(over.is_some_and(|at| at >= 260_000_000), "{silent}");
    let heard = restarted().at(secs(201), hot()).run_until(secs(300));
    assert!(heard.of("clear").is_empty(), "{heard}");
}
