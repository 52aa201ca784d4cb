//! What a person controls, and how a person is reached, on a simulated node.

use expect_test::expect;
use homeostat_agent::control::{Command, Scope, Switch};
use homeostat_common::ids::IncidentId;
use homeostat_common::units::{Micros, Millis};
use homeostat_tests::sim::{Fault, NODE, Sim, secs};

fn mode(mode: &str) -> String {
    NODE.replace("mode = \"act\"", &format!("mode = \"{mode}\""))
}

fn order(command: Command) -> Fault {
    Fault::Order(command)
}

fn approve(incident: u64) -> Fault {
    order(Command::Approve {
        incident: IncidentId(incident),
        plan: None,
    })
}

fn refuse(incident: u64) -> Fault {
    order(Command::Refuse {
        incident: IncidentId(incident),
        why: "not now".into(),
    })
}

fn begin(switch: Switch, scope: Scope, span: Millis) -> Fault {
    order(Command::Begin {
        switch,
        scope,
        span,
        why: "new disk".into(),
    })
}

fn service(name: &str) -> Scope {
    Scope::Service(name.parse().expect("a scenario names a service"))
}

#[test]
fn a_recommended_plan_is_told_and_not_run() {
    let trace = Sim::with(7, &mode("recommend"))
        .crash("camera", secs(10))
        .run_until(secs(30));
    expect![[r#"
        10.000s fault    Crash("camera")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s alarm    camera-dead (critical): camera is dead, and not healed: restart(camera, grace=0ms) is allowed by every other rule, and only recommended: homeostat-agent do 'restart(camera, grace=0ms)' runs it
        10.000s refuse   restart(camera, grace=0ms): recommend-only
    "#]].assert_eq(&trace.to_string());
    assert!(trace.of("execute").is_empty());
}

#[test]
fn a_plan_waits_for_a_person_and_runs_once_approved() {
    let trace = Sim::with(7, &mode("ask"))
        .crash("camera", secs(10))
        .at(secs(20), approve(2))
        .at(secs(21), approve(1))
        .at(secs(25), approve(1))
        .run_until(secs(40));
    expect![[r#"
        10.000s fault    Crash("camera")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s person   restart(camera, grace=0ms) waits for a person, for 30m
        10.000s alarm    camera-dead (critical): camera is dead, and restart(camera, grace=0ms) waits for a person: homeostat-agent approve 1, or refuse 1
        10.000s refuse   restart(camera, grace=0ms): needs-approval
        20.000s answer   refused: no incident 2 is open
        20.000s fault    Order(Approve { incident: IncidentId(2), plan: None })
        21.000s person   restart(camera, grace=0ms) is approved, by anna
        21.000s decide   restart(camera, grace=0ms) (reflex)
        21.000s execute  restart(camera, grace=0ms)
        21.000s fault    Order(Approve { incident: IncidentId(1), plan: None })
        21.001s answer   incident 1: p1 runs restart(camera, grace=0ms)
        21.036s done     restart(camera, grace=0ms)
        21.036s clear    camera-dead
        21.036s close    healed: camera answers again after 11035ms
        25.000s answer   refused: no incident 1 is open
        25.000s fault    Order(Approve { incident: IncidentId(1), plan: None })
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn the_gate_has_the_last_word_on_an_approved_plan() {
    // The spawner is away when the person approves.
    let trace = Sim::with(7, &mode("ask"))
        .crash("camera", secs(10))
        .at(secs(20), Fault::SpawnerLost(secs(5)))
        .at(secs(21), approve(1))
        .at(secs(30), approve(1))
        .run_until(secs(40));
    expect![[r#"
        10.000s fault    Crash("camera")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s person   restart(camera, grace=0ms) waits for a person, for 30m
        10.000s alarm    camera-dead (critical): camera is dead, and restart(camera, grace=0ms) waits for a person: homeostat-agent approve 1, or refuse 1
        10.000s refuse   restart(camera, grace=0ms): needs-approval
        20.000s fault    SpawnerLost(Millis(5000))
        20.003s refuse   restart(camera, grace=0ms): spawner-lost
        21.000s answer   refused: it waits on, as the gate refuses it now: rule spawner-lost: the spawner cannot be reached
        21.000s fault    Order(Approve { incident: IncidentId(1), plan: None })
        25.005s refuse   restart(camera, grace=0ms): needs-approval
        30.000s person   restart(camera, grace=0ms) is approved, by anna
        30.000s decide   restart(camera, grace=0ms) (reflex)
        30.000s execute  restart(camera, grace=0ms)
        30.000s fault    Order(Approve { incident: IncidentId(1), plan: None })
        30.001s answer   incident 1: p1 runs restart(camera, grace=0ms)
        30.038s done     restart(camera, grace=0ms)
        30.038s clear    camera-dead
        30.038s close    healed: camera answers again after 20038ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_refused_plan_is_not_asked_for_again_and_another_kind_is() {
    let node = mode("ask");
    let trace = Sim::with(7, &node)
        .at(secs(10), Fault::Leak("camera", 20e6))
        .at(secs(20), refuse(1))
        .at(secs(22), approve(1))
        .run_until(secs(40));
    expect![[r#"
        10.000s fault    Leak("camera", 20000000.0)
        15.000s detect   camera leaking (memory-leak), 0ms after the first sign
        15.000s person   restart(camera, grace=500ms) waits for a person, for 30m
        15.000s alarm    camera-leaking (critical): camera is leaking, and restart(camera, grace=500ms) waits for a person: homeostat-agent approve 1, or refuse 1
        15.000s refuse   restart(camera, grace=500ms): needs-approval
        15.000s refuse   restart(camera, grace=0ms): needs-approval
        20.000s person   restart(camera, grace=500ms) is refused: not now, by anna
        20.000s person   restart(camera, grace=0ms) waits for a person, for 30m
        20.000s refuse   restart(camera, grace=500ms): refused
        20.000s refuse   restart(camera, grace=0ms): needs-approval
        20.000s fault    Order(Refuse { incident: IncidentId(1), why: "not now" })
        20.001s answer   incident 1: restart(camera, grace=500ms) is refused: not now
        22.000s person   restart(camera, grace=0ms) is approved, by anna
        22.000s decide   restart(camera, grace=0ms) (playbook)
        22.000s execute  restart(camera, grace=0ms)
        22.000s fault    Order(Approve { incident: IncidentId(1), plan: None })
        22.000s answer   incident 1: p1 runs restart(camera, grace=0ms)
        22.028s done     restart(camera, grace=0ms)
        22.028s clear    camera-leaking
        22.028s close    healed: camera answers again after 7028ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_plan_that_nobody_answers_goes_stale_and_is_asked_for_anew() {
    let node = format!("{}\n[people]\napproval = \"2m\"\n", mode("ask"));
    let trace = Sim::with(7, &node)
        .crash("camera", secs(10))
        .at(secs(150), approve(1))
        .at(secs(195), approve(1))
        .run_until(secs(220));
    expect![[r#"
        10.000s fault    Crash("camera")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s person   restart(camera, grace=0ms) waits for a person, for 2m
        10.000s alarm    camera-dead (critical): camera is dead, and restart(camera, grace=0ms) waits for a person: homeostat-agent approve 1, or refuse 1
        10.000s refuse   restart(camera, grace=0ms): needs-approval
        130.000s person   nobody has answered: restart(camera, grace=0ms) is stale
        150.000s answer   refused: no plan of incident 1 of camera waits for a person; homeostat-agent explain 1 says how it goes
        150.000s fault    Order(Approve { incident: IncidentId(1), plan: None })
        190.000s person   restart(camera, grace=0ms) waits for a person, for 2m
        195.000s person   restart(camera, grace=0ms) is approved, by anna
        195.000s decide   restart(camera, grace=0ms) (reflex)
        195.000s execute  restart(camera, grace=0ms)
        195.000s fault    Order(Approve { incident: IncidentId(1), plan: None })
        195.001s answer   incident 1: p1 runs restart(camera, grace=0ms)
        195.040s done     restart(camera, grace=0ms)
        195.040s clear    camera-dead
        195.040s close    healed: camera answers again after 185040ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn each_primitive_has_its_own_rung_and_the_lowest_decides() {
    // Restarts run; what touches the model waits.
    let node = NODE.replace(
        "[service.model]",
        "[service.autonomy]\nrollback-model = \"ask\"\n[service.model]",
    );
    let trace = Sim::with(7, &node)
        .crash("infer", secs(10))
        .at(secs(80), Fault::Corrupt("infer"))
        .at(secs(150), approve(2))
        .run_until(secs(180));
    let done = trace.of("done");
    assert!(done[0].starts_with("restart(infer"), "{trace}");
    // The gentle restart, which needs nobody, was tried first; then came its hold.
    let tried = trace.when("failed", "restart(infer, grace=500ms)");
    let asked = trace.when(
        "person",
        "rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) waits",
    );
    assert!(tried.is_some() && tried < asked, "{trace}");
    let back = trace.when("done", "rollback-model(infer");
    assert!(back > Some(Micros(150_000_000)), "{trace}");
    assert_eq!(trace.of("close").len(), 2, "{trace}");
}

#[test]
fn maintenance_heals_nothing_records_all_and_ends_by_itself() {
    let trace = Sim::seeded(7)
        .at(
            secs(5),
            begin(Switch::Maintenance, service("camera"), secs(60)),
        )
        .crash("camera", secs(10))
        .crash("store", secs(12))
        .at(secs(20), Fault::AgentKilled(secs(1)))
        .run_until(secs(90));
    expect![[r#"
        5.000s person   camera is in maintenance for 1m, and not healed: new disk, by anna
        5.000s fault    Order(Begin { switch: Maintenance, scope: Service(ServiceId(camera)), span: Millis(60000), why: "new disk" })
        5.001s answer   camera is in maintenance for 1m, and not healed: new disk
        10.000s fault    Crash("camera")
        10.000s detect   camera dead (crash), 0ms after the first sign
        10.000s alarm    camera-dead (warning): camera is dead, and not healed: camera is in maintenance: new disk
        10.000s refuse   restart(camera, grace=0ms): maintenance
        12.000s fault    Crash("store")
        12.000s detect   store dead (crash), 0ms after the first sign
        12.000s decide   restart(store, grace=0ms) (reflex)
        12.000s execute  restart(store, grace=0ms)
        12.040s done     restart(store, grace=0ms)
        12.040s close    healed: store answers again after 40ms
        20.000s agent    killed
        21.000s detect   camera dead (crash), 11s after the first sign
        21.000s refuse   restart(camera, grace=0ms): maintenance
        21.000s detect   store dead (crash), 9s after the first sign
        21.000s alarm    camera-dead (warning): camera is dead, and not healed: camera is in maintenance: new disk
        21.005s decide   restart(store, grace=0ms) (resumed)
        21.005s close    recovered: store answers again; nothing had to be done
        65.000s person   the maintenance of camera is over
        65.000s decide   restart(camera, grace=0ms) (reflex)
        65.000s execute  restart(camera, grace=0ms)
        65.121s done     restart(camera, grace=0ms)
        65.121s clear    camera-dead
        65.121s close    healed: camera answers again after 55121ms
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn maintenance_outlives_a_reboot_and_can_be_ended_early() {
    let trace = Sim::seeded(7)
        .at(secs(5), begin(Switch::Maintenance, Scope::Node, secs(3600)))
        .crash("camera", secs(10))
        .at(secs(200), Fault::Reboot(secs(30)))
        .crash("store", secs(300))
        .at(
            secs(400),
            order(Command::End {
                switch: Switch::Maintenance,
                scope: Scope::Node,
            }),
        )
        .run_until(secs(450));
    let ended = trace.when("person", "the maintenance of the node is over");
    assert_eq!(ended.map(|at| at.0), Some(400_000_000), "{trace}");
    let first = trace.when("execute", "restart(store");
    assert!(first >= ended, "{trace}");
    assert!(trace.when("detect", "store dead") < ended, "{trace}");
}

#[test]
fn a_recurring_window_opens_by_a_wall_clock_that_can_be_believed() {
    let node = format!(
        "{NODE}\n[[maintenance]]\nservice = \"camera\"\ndays = [\"sun\"]\nat = \"02:00\"\n\
         for = \"10m\"\nwhy = \"updates\"\n"
    );
    // Sunday 22 November 2026, 01:59:00 UTC.
    let sunday = 1_795_305_600_000 + 119 * 60_000;
    let known = Sim::with(7, &node)
        .at(secs(1), Fault::Wall(sunday))
        .crash("camera", secs(120))
        .run_until(secs(700));
    expect![[r#"
        1.000s fault    Wall(1795312740000)
        60.000s person   camera is in maintenance for 10m, and not healed: updates
        120.000s fault    Crash("camera")
        120.000s detect   camera dead (crash), 0ms after the first sign
        120.000s alarm    camera-dead (warning): camera is dead, and not healed: camera is in maintenance: updates
        120.000s refuse   restart(camera, grace=0ms): maintenance
        420.000s alarm    camera-dead (warning): camera is dead, and not healed: camera is in maintenance: updates
        660.000s person   the maintenance of camera is over
        660.000s decide   restart(camera, grace=0ms) (reflex)
        660.000s execute  restart(camera, grace=0ms)
        660.035s done     restart(camera, grace=0ms)
        660.035s clear    camera-dead
        660.035s close    healed: camera answers again after 540035ms
    "#]].assert_eq(&known.to_string());
    // The same night without one: nothing is held back.
    let unknown = Sim::with(7, &node)
        .crash("camera", secs(120))
        .run_until(secs(700));
    assert!(unknown.of("person").is_empty(), "{unknown}");
    assert_eq!(unknown.of("done").len(), 1, "{unknown}");
}

#[test]
fn a_stop_finishes_the_step_that_runs_and_begins_no_other() {
    // Model back, then restart: the stop comes while the model is put back.
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Corrupt("infer"))
        .at(Millis(10_195), Fault::StopFile(Some("they flap")))
        .crash("store", secs(20))
        .at(secs(25), Fault::AgentKilled(secs(1)))
        .at(secs(30), Fault::Ask("restart(store, grace=0ms)"))
        .at(secs(40), Fault::StopFile(None))
        .run_until(secs(60));
    expect![[r#"
        10.000s fault    Corrupt("infer")
        10.189s detect   infer wrong-answers (model-corrupt), 9ms after the first sign
        10.189s suspect  the model of infer behind infer (0.99)
        10.189s decide   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms) (playbook)
        10.190s execute  rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.195s person   all healing on this node is stopped: they flap, by the file STOP
        10.195s alarm    healing-stopped (critical): nothing on this node is healed, not even what is dead: they flap; homeostat-agent resume-healing ends that
        10.195s fault    StopFile(Some("they flap"))
        10.202s done     rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.213s undone   rollback-model(infer, to=aaaaaaaaaaaaaaaa)
        10.213s alarm    infer-wrong-answers (critical): infer is wrong-answers, and not healed: healing is stopped on this node: they flap; homeostat-agent resume-healing ends that
        10.213s refuse   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms): stopped
        10.213s refuse   restart(infer, grace=500ms): stopped
        10.463s detect   infer wrong-answers (bad-model), 284ms after the first sign
        10.463s suspect  the model of infer behind infer (0.99)
        20.000s fault    Crash("store")
        20.000s detect   store dead (crash), 0ms after the first sign
        20.000s alarm    store-dead (critical): store is dead, and not healed: healing is stopped on this node: they flap; homeostat-agent resume-healing ends that
        20.000s refuse   restart(store, grace=0ms): stopped
        25.000s agent    killed
        26.000s person   all healing on this node is stopped: they flap, by the file STOP
        26.000s detect   infer wrong-answers (bad-model), 15821ms after the first sign
        26.000s close    recovered: infer answers again; nothing had to be done
        26.000s detect   store dead (crash), 6s after the first sign
        26.000s refuse   restart(store, grace=0ms): stopped
        26.000s alarm    healing-stopped (critical): nothing on this node is healed, not even what is dead: they flap; homeostat-agent resume-healing ends that
        26.000s alarm    store-dead (critical): store is dead, and not healed: healing is stopped on this node: they flap; homeostat-agent resume-healing ends that
        26.105s detect   infer wrong-answers (bad-model), 0ms after the first sign
        26.105s suspect  the model of infer behind infer (0.99)
        26.105s alarm    infer-wrong-answers (critical): infer is wrong-answers, and not healed: healing is stopped on this node: they flap; homeostat-agent resume-healing ends that
        26.105s refuse   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms): stopped
        26.105s refuse   restart(infer, grace=500ms): stopped
        30.000s decide   restart(store, grace=0ms) (operator)
        30.000s answer   2 p2
        30.000s execute  restart(store, grace=0ms)
        30.000s fault    Ask("restart(store, grace=0ms)")
        30.087s done     restart(store, grace=0ms)
        30.087s clear    store-dead
        30.087s close    healed: store answers again after 10087ms
        40.000s person   healing goes on, by the file STOP
        40.000s clear    healing-stopped
        40.000s refuse   rollback-model(infer, to=aaaaaaaaaaaaaaaa) ; restart(infer, grace=500ms): hold
        40.000s refuse   restart(infer, grace=500ms): hold
        40.000s fault    StopFile(None)
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_stop_in_the_middle_of_a_restart_lets_the_process_come_back() {
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::Block("camera"))
        .at(
            Millis(10_200),
            order(Command::Stop {
                why: "look first".into(),
            }),
        )
        .run_until(secs(30));
    assert_eq!(trace.of("done"), ["restart(camera, grace=0ms)"], "{trace}");
    assert_eq!(trace.of("close").len(), 1, "{trace}");
}

#[test]
fn an_alarm_is_repeated_ever_more_slowly_until_somebody_deals_with_it() {
    let node = format!(
        "{}\n[people]\nrepeat_min = \"1m\"\nrepeat_max = \"5m\"\n",
        mode("observe")
    );
    let told = Sim::with(7, &node)
        .crash("camera", secs(10))
        .at(secs(800), Fault::AgentKilled(secs(1)))
        .at(
            secs(1500),
            order(Command::Ack {
                alarm: "camera-dead".into(),
            }),
        )
        .at(secs(3000), Fault::Ask("restart(camera, grace=0ms)"))
        .notices_until(secs(3100));
    let told: Vec<(u64, &str)> = told
        .iter()
        .map(|(at, text)| (at.0 / 1_000_000, text.as_str()))
        .collect();
    let first: [(u64, &str); 5] = [
        (10, "1 camera-dead raised (0)"),
        (70, "1 camera-dead repeated (1)"),
        (190, "1 camera-dead repeated (2)"),
        (430, "1 camera-dead repeated (3)"),
        (730, "1 camera-dead repeated (4)"),
    ];
    assert_eq!(told[..first.len()], first, "{told:?}");
    // The same occurrence again, at once after the restart; then on as before.
    let (at, again) = told[first.len()];
    assert_eq!(at, 801, "{told:?}");
    assert!(again.starts_with("1 camera-dead raised"), "{told:?}");
    let rest = &told[first.len() + 1..];
    let acked = rest
        .iter()
        .position(|(at, text)| *at == 1500 && text.contains("acknowledged"));
    let acked = acked.unwrap_or_else(|| panic!("{told:?}"));
    let repeated = |(_, text): &(u64, &str)| text.contains("repeated");
    assert!(acked >= 2 && rest[..acked].iter().all(repeated), "{told:?}");
    // Somebody deals with it: nothing more until it is over.
    let after: Vec<&str> = rest[acked + 1..].iter().map(|(_, text)| *text).collect();
    assert!(
        after.len() == 1 && after[0].starts_with("1 camera-dead cleared"),
        "{told:?}"
    );
}

#[test]
fn a_silence_holds_back_notices_and_no_healing() {
    let node = NODE.replace("hold = \"60s\"", "");
    let told = |sim: Sim| -> Vec<String> {
        let told = sim.notices_until(secs(400));
        told.into_iter()
            .map(|(at, text)| format!("{} {text}", at.0 / 1_000_000))
            .collect()
    };
    // Held after its first healing, so the second block alarms until it is over.
    let story = || {
        Sim::with(7, &node)
            .at(secs(5), begin(Switch::Silence, service("camera"), secs(40)))
            .at(secs(10), Fault::Block("camera"))
            .at(secs(20), Fault::Block("camera"))
    };
    expect![[r#"
        45 1 camera-hung raised (0)
        70 1 camera-hung cleared (0)"#]]
    .assert_eq(&told(story()).join("\n"));
    let longer = story().at(secs(6), begin(Switch::Silence, Scope::Node, secs(300)));
    assert_eq!(
        told(longer),
        Vec::<String>::new(),
        "over before the silence is"
    );
    let trace = story().run_until(secs(400));
    assert_eq!(trace.of("done").len(), 2, "{trace}");
    assert_eq!(trace.of("alarm").len(), 2, "it is recorded: {trace}");
}

#[test]
fn names_that_mean_nothing_are_refused_with_what_there_is() {
    let span = secs(60);
    let trace = Sim::seeded(7)
        .at(secs(1), begin(Switch::Maintenance, service("nobody"), span))
        .at(
            secs(2),
            begin(Switch::Maintenance, Scope::Alarm("store".into()), span),
        )
        .at(
            secs(3),
            begin(Switch::Silence, Scope::Alarm("nothing".into()), span),
        )
        .at(secs(4), begin(Switch::Silence, Scope::Node, Millis(0)))
        .at(
            secs(5),
            order(Command::Ack {
                alarm: "camera-dead".into(),
            }),
        )
        .at(secs(6), order(Command::Stop { why: "  ".into() }))
        .at(secs(7), approve(9))
        .at(secs(8), order(Command::Status))
        .run_until(secs(10));
    expect![[r#"
        1.000s answer   refused: there is no service nobody here
        1.000s fault    Order(Begin { switch: Maintenance, scope: Service(ServiceId(nobody)), span: Millis(60000), why: "new disk" })
        2.000s person   store is in maintenance for 1m, and not healed: new disk, by anna
        2.000s fault    Order(Begin { switch: Maintenance, scope: Alarm("store"), span: Millis(60000), why: "new disk" })
        2.001s answer   store is in maintenance for 1m, and not healed: new disk
        3.000s answer   refused: nothing is neither a service here nor an alarm
        3.000s fault    Order(Begin { switch: Silence, scope: Alarm("nothing"), span: Millis(60000), why: "new disk" })
        4.000s answer   refused: expected a span above 0 and up to 30d
        4.000s fault    Order(Begin { switch: Silence, scope: Node, span: Millis(0), why: "new disk" })
        5.000s answer   refused: there is no alarm camera-dead: none stands
        5.000s fault    Order(Ack { alarm: "camera-dead" })
        6.000s answer   refused: expected a reason of 1 to 200 bytes in one line
        6.000s fault    Order(Stop { why: "  " })
        7.000s answer   refused: no incident 9 is open
        7.000s fault    Order(Approve { incident: IncidentId(9), plan: None })
        8.000s answer   healing      on
        service      camera: healthy
        service      infer: healthy
        service      store: healthy
        mode         camera: act
        mode         infer: act
        mode         store: act
        budget       best-effort: 15.2 of 25.0 capacity-seconds left, 0.0 set aside
        budget       business: 30.3 of 60.0 capacity-seconds left, 0.0 set aside
        budget       mission: 45.0 of 45.0 capacity-seconds left, 0.0 set aside
        sampling     each 1s (250ms to 4s): as configured
        watched      29 metrics
        maintenance  store, 54s left: new disk

        8.000s fault    Order(Status)
    "#]].assert_eq(&trace.to_string());
}

#[test]
fn a_restart_that_works_and_a_check_that_fails_call_a_person() {
    // The process comes up each time and never answers.
    let trace = Sim::seeded(7)
        .at(secs(10), Fault::SlowStart("camera", Some(secs(3600))))
        .crash("camera", secs(10))
        .run_until(secs(40));
    let called = trace.when("alarm", "a person is needed");
    assert!(called.is_some(), "{trace}");
    let failed = trace.of("failed");
    assert!(!failed.is_empty() && trace.of("done").is_empty(), "{trace}");
}

#[test]
fn back_off_is_forgiven_by_health_and_not_by_mere_life() {
    let node = NODE.replace(
        "[limits]",
        "[limits]\nhold = \"10m\"\nrestart = { burst = 1, stable = \"60s\" }",
    );
    // Dies three times, with growing pauses; then it lives until it dies twice more.
    let story = || {
        Sim::with(7, &node)
            .at(secs(10), Fault::ShortLives("store", 2))
            .crash("store", secs(10))
            .at(secs(200), Fault::ShortLives("store", 1))
            .crash("store", secs(200))
    };
    let last_start = |sim: Sim| -> u64 {
        let trace = sim.run_until(secs(260)).to_string();
        let starts = trace.lines().filter(|line| line.contains(" execute  "));
        let times = starts.filter_map(|line| line.trim().split('.').next()?.parse().ok());
        times.max().unwrap()
    };
    assert_eq!(last_start(story()), 201, "the first pause again, of 1 s");
    // Alive all the time, and hung for a moment every half minute: healed the first
    // time, held after that.
    let mut ill = story();
    for at in [30, 60, 90, 120, 150, 180] {
        ill = ill.at(secs(at), Fault::Stall("store", Millis(900)));
    }
    assert_eq!(last_start(ill), 208, "the fourth pause, of 8 s");
}
