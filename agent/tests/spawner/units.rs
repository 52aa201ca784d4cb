//! Units of a real systemd, which runs them in namespaces made for the test.

// The lint sees no test in here; a failure of a helper is one of its test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use homeostat_agent::io::spawner::client::{Client, Event};
use homeostat_agent::io::spawner::protocol::{Exit, ProcessAct, Refusal, SlotView, StopSignal};
use homeostat_common::ids::{Instance, PlanId, ServiceId, Token};
use homeostat_common::units::Percent;

use crate::node::{
    Node, alive, died, ended, ends_at_once, exited, id, kill, lives, next, not_started, refused,
    report, start, started, until,
};
use crate::systemd::{show, systemctl, with_systemd};

/// A node with these units, and a spawner that found none of them running.
async fn node(units: &[&str], more: &str) -> (Node, Client) {
    let mut node = Node::new(&[]);
    for unit in units {
        node.append(&format!(
            "[[service]]\nid = \"{unit}\"\nunit = \"{unit}.service\"\nstop_grace = \"100ms\"\n"
        ));
    }
    node.append(more);
    node.spawner(&[]);
    let (client, slots) = node.connect().await;
    assert!(slots.iter().all(|slot| slot.live.is_none()), "{slots:?}");
    (node, client)
}

#[test]
fn a_unit_is_healed_like_any_service() {
    with_systemd("units::a_unit_is_healed_like_any_service", async {
        let (mut node, mut client) = node(&["web", "stubborn"], "").await;
        let web = id("web");
        let (mut last, mut pid) = start(&mut client, &web).await;
        assert_eq!(show("web", "MainPID"), pid.to_string());
        let (mut noticed, mut restarted) = (Vec::new(), Vec::new());
        // More often than the start limit of systemd (5 in 10 s) lets pass.
        for _ in 0..lives() {
            let begun = Instant::now();
            kill(pid);
            assert_eq!(next(&mut client).await, died(&web, last));
            noticed.push(begun.elapsed());
            client.start(&web).await.unwrap();
            assert_eq!(next(&mut client).await, exited(&web, last, Exit::Signal(9)));
            let (instance, now) = started(next(&mut client).await, &web);
            restarted.push(begun.elapsed());
            assert!(instance > last && now != pid && alive(now));
            (last, pid) = (instance, now);
        }
        report("unit: kill -9 to noticed", noticed);
        report("unit: kill -9 to the next main process", restarted);
        // Who is asked to start what runs gives what runs.
        client.start(&web).await.unwrap();
        let why = Refusal::Occupied { instance: last };
        assert_eq!(next(&mut client).await, refused(&web, why));

        client.signal(&web, last, StopSignal::Term).await.unwrap();
        assert_eq!(ended(&mut client, &web, last).await, Exit::Signal(15));
        let stubborn = id("stubborn");
        let (one, pid) = start(&mut client, &stubborn).await;
        until("the trap", || ignores_term(pid)).await;
        let term = StopSignal::Term;
        client.signal(&stubborn, one, term).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(alive(pid));
        let kill = StopSignal::Kill;
        client.signal(&stubborn, one, kill).await.unwrap();
        assert_eq!(ended(&mut client, &stubborn, one).await, Exit::Signal(9));
        adoption(&mut node, client).await;
    });
}

#[test]
fn what_cannot_be_run_or_has_another_healer_is_told_in_words() {
    let test = "units::what_cannot_be_run_or_has_another_healer_is_told_in_words";
    with_systemd(test, async {
        let more =
            "[[service]]\nid = \"twice\"\nunit = \"twice.service\"\nrestart_by_systemd = true\n";
        let units = [
            "web", "always", "masked", "absent", "broken", "once", "forked",
        ];
        let (node, mut client) = node(&units, more).await;
        for (name, words) in [
            (
                "always",
                "unit always.service has Restart=always, and two healers",
            ),
            ("masked", "never to start (masked) unit masked.service"),
            ("absent", "systemd has no unit absent.service"),
            (
                "forked",
                "unit forked.service has no main process to watch (Type=forking)",
            ),
            (
                "once",
                "unit once.service has no main process to watch (Type=oneshot)",
            ),
        ] {
            let text = not_started(&mut client, name).await;
            assert!(text.contains(words), "{text}");
        }
        let words = "unit broken.service ended as it started: exit-code, status 3";
        ends_at_once(&mut client, "broken", 3, words).await;

        // Systemd restarts it by itself here, and is waited for.
        let twice = id("twice");
        let (one, pid) = start(&mut client, &twice).await;
        kill(pid);
        assert_eq!(next(&mut client).await, died(&twice, one));
        client.start(&twice).await.unwrap();
        assert!(matches!(next(&mut client).await, Event::Exited { .. }));
        let (two, second) = started(next(&mut client).await, &twice);
        assert!(two > one && show("twice", "MainPID") == second.to_string());
        assert_eq!(show("twice", "NRestarts"), "1");

        // One that gets another healer while it runs.
        let web = id("web");
        let (one, pid) = start(&mut client, &web).await;
        let folder = "/run/systemd/system/web.service.d";
        fs::create_dir(folder).unwrap();
        fs::write(
            format!("{folder}/rival.conf"),
            "[Service]\nRestart=on-failure\n",
        )
        .unwrap();
        systemctl(&["daemon-reload"]);
        kill(pid);
        assert_eq!(next(&mut client).await, died(&web, one));
        client.start(&web).await.unwrap();
        let mut why = None;
        while why.is_none() {
            match next(&mut client).await {
                Event::Exited { .. } => {}
                Event::Refused { why: it, .. } => why = Some(format!("{it:?}")),
                other => panic!("{other:?}"),
            }
        }
        let why = why.unwrap();
        let words = "unit web.service has Restart=on-failure, and two healers";
        assert!(why.contains(words), "{why}");

        let checked = Command::new(env!("CARGO_BIN_EXE_homeostat-agent"))
            .arg("check")
            .arg(node.folder.path().join("agent.toml"))
            .output()
            .unwrap();
        let text = String::from_utf8(checked.stderr).unwrap();
        assert_eq!(checked.status.code(), Some(2), "{text}");
        for wrong in [
            "always: unit always",
            "masked: systemd was",
            "absent: systemd has",
            "web: unit web",
        ] {
            assert!(text.contains(wrong), "{text}");
        }
        assert!(!text.contains(": twice: "), "{text}");
    });
}

#[test]
fn a_unit_is_frozen_and_limited_for_one_life() {
    let test = "units::a_unit_is_frozen_and_limited_for_one_life";
    with_systemd(test, async {
        let more =
            "[[service]]\nid = \"small\"\nunit = \"small.service\"\nmemory_limit = \"16MiB\"\n";
        let (_node, mut client) = node(&[], more).await;
        let small = id("small");
        let (life, pid) = start(&mut client, &small).await;
        limit(&mut client, &small).await;
        assert_eq!(show("small", "MemoryMax"), (16 << 20).to_string());
        let state = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
        };
        let half = ProcessAct::LimitCpu(Percent::new(50).ok());
        let share = || show("small", "CPUQuotaPerSecUSec");
        let own = share();
        assert_eq!(own, "1.500000s");
        act(&mut client, &small, life, ProcessAct::Freeze).await;
        until("it stands still", || state() == 'T').await;
        act(&mut client, &small, life, ProcessAct::Thaw).await;
        until("it goes on", || state() == 'S').await;
        act(&mut client, &small, life, half).await;
        assert_ne!(share(), own);
        act(&mut client, &small, life, ProcessAct::LimitCpu(None)).await;
        assert_eq!(share(), own);
        act(&mut client, &small, life, half).await;
        assert_ne!(share(), own);
        // A frozen one hears of its end, and the next life has what is its own.
        act(&mut client, &small, life, ProcessAct::Freeze).await;
        client.signal(&small, life, StopSignal::Term).await.unwrap();
        assert_eq!(ended(&mut client, &small, life).await, Exit::Signal(15));
        start(&mut client, &small).await;
        limit(&mut client, &small).await;
        assert_eq!(share(), own);
    });
}

#[test]
fn systemd_and_its_bus_may_come_and_go() {
    with_systemd("units::systemd_and_its_bus_may_come_and_go", async {
        let (mut node, mut client) = node(&["web"], "").await;
        let web = id("web");
        let (one, pid) = start(&mut client, &web).await;
        // Another bus: the connection that there was is lost.
        systemctl(&["kill", "--signal=KILL", "dbus.service"]);
        until("a bus", || show("dbus", "ActiveState") != "active").await;
        kill(pid);
        assert_eq!(next(&mut client).await, died(&web, one));
        client.start(&web).await.unwrap();
        let (two, pid) = loop {
            match next(&mut client).await {
                Event::Exited { .. } => {}
                other => break started(other, &web),
            }
        };
        assert!(two > one);
        // No bus at all.
        systemctl(&["stop", "dbus.socket", "dbus.service"]);
        kill(pid);
        assert_eq!(next(&mut client).await, died(&web, two));
        let text = not_started(&mut client, "web").await;
        assert!(
            text.contains("cannot reach systemd over D-Bus")
                && text.contains("/run/dbus/system_bus_socket"),
            "{text}"
        );
        // A spawner that begins without one serves all the same.
        node.kill_spawner();
        node.spawner(&[]);
        let (mut client, slots) = node.connect().await;
        assert_eq!(slots[0].live, None);
        systemctl(&["start", "dbus.socket"]);
        let (three, pid) = start(&mut client, &web).await;
        assert!(three > two);
        // Another systemd, which knows all that the former knew.
        systemctl(&["daemon-reexec"]);
        assert!(alive(pid));
        kill(pid);
        assert_eq!(ended(&mut client, &web, three).await, Exit::Signal(9));
        start(&mut client, &web).await;
    });
}

/// The same life has the same number for whoever comes after a spawner that was
/// killed; one that somebody else began has a new one.
async fn adoption(node: &mut Node, mut client: Client) {
    let web = id("web");
    let (one, pid) = start(&mut client, &web).await;
    let before = show("web", "InvocationID");
    node.kill_spawner();
    node.spawner(&[]);
    let (mut client, slots) = node.connect().await;
    let live = |slots: &[SlotView]| {
        slots
            .iter()
            .find(|slot| slot.service == web)
            .and_then(|slot| slot.live)
    };
    assert_eq!(live(&slots), Some((one, pid)));
    assert_eq!(show("web", "InvocationID"), before);
    kill(pid);
    assert_eq!(ended(&mut client, &web, one).await, Exit::Signal(9));
    node.kill_spawner();
    systemctl(&["start", "web.service"]);
    let outside: u32 = show("web", "MainPID").parse().unwrap();
    node.spawner(&[]);
    let (mut client, slots) = node.connect().await;
    let (two, found) = live(&slots).unwrap();
    assert!(two > one && found == outside);
    // Restarted by somebody else: one death, and then what runs by now.
    systemctl(&["restart", "web.service"]);
    assert_eq!(next(&mut client).await, died(&web, two));
    client.start(&web).await.unwrap();
    assert!(matches!(next(&mut client).await, Event::Exited { .. }));
    let (_, pid) = started(next(&mut client).await, &web);
    assert_eq!(show("web", "MainPID"), pid.to_string());
    // It outlives its spawner, unless that is told to take it along.
    drop(client);
    node.stop_spawner();
    assert!(alive(pid));
    node.spawner(&["--stop-services-on-exit"]);
    drop(node.connect().await);
    node.stop_spawner();
    assert!(!alive(pid));
}

/// Asks for something that can be done, and waits until it is.
async fn act(client: &mut Client, service: &ServiceId, life: Instance, act: ProcessAct) {
    let token = Token {
        plan: PlanId(1),
        step: 0,
        undo: false,
    };
    client.act(token, service, life, act).await.unwrap();
    let failed = None;
    assert_eq!(next(client).await, Event::Acted { token, failed });
}

/// Waits to be told that the memory limit is in force.
async fn limit(client: &mut Client, service: &ServiceId) {
    let Event::MemoryLimit {
        service: of,
        not_enforced,
        ..
    } = next(client).await
    else {
        panic!("what became of the limit");
    };
    assert_eq!((&of, not_enforced), (service, None));
}

/// Whether SIGTERM, the fifteenth, is ignored by a process.
fn ignores_term(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap() & (1 << 14) != 0
}
