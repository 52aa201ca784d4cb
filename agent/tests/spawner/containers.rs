//! Containers of a real Podman.

// The lint sees no test in here; a failure of a helper is one of its test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Instant;

use homeostat_agent::io::spawner::client::{Client, Event};
use homeostat_agent::io::spawner::protocol::{Exit, ProcessAct, Refusal, StopSignal};
use homeostat_common::ids::{Instance, PlanId, ServiceId, Token};
use homeostat_common::units::Percent;

use crate::node::{
    Node, alive, died, ended, ends_at_once, exited, id, kill, lives, next, not_started, refused,
    report, run, start, started, until,
};
use crate::podman::Podman;

/// Runs `test` with an engine, or says why that cannot be.
fn with_podman(test: &str, inside: impl AsyncFnOnce(&mut Podman)) {
    let made = Podman::new(test).and_then(|podman| {
        podman.create("web", &[], &["sleep", "1000"])?;
        Ok(podman)
    });
    let mut podman = match made {
        Ok(podman) => podman,
        Err(why) => return println!("skip: {test}: {why}"),
    };
    run(async {
        podman.serve().await;
        inside(&mut podman).await;
    });
}

/// A node with these containers, and a spawner that found none of them running.
async fn node(podman: &Podman, names: &[&str], more: &str) -> (Node, Client) {
    let mut node = Node::new(&[]);
    for name in names {
        let socket = podman.socket();
        node.append(&format!(
            "[[service]]\nid = \"{name}\"\ncontainer = \"{name}\"\nengine = \"unix://{socket}\"\n"
        ));
    }
    node.append(more);
    node.spawner(&[]);
    let (client, slots) = node.connect().await;
    assert!(slots.iter().all(|slot| slot.live.is_none()), "{slots:?}");
    (node, client)
}

#[test]
fn a_container_is_healed_like_any_service() {
    let test = "containers::a_container_is_healed_like_any_service";
    with_podman(test, async |podman| {
        let (mut node, mut client) = node(podman, &["web"], "").await;
        let web = id("web");
        let (mut last, mut pid) = start(&mut client, &web).await;
        // The engine says that it runs a moment before it is the program.
        until("the container's program", || {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
            words == "/busybox\0sleep\x001000\0"
        })
        .await;
        let (mut noticed, mut restarted) = (Vec::new(), Vec::new());
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
        report("container: kill -9 to noticed", noticed);
        report("container: kill -9 to the next first process", restarted);
        // The spawner may be gone: the life stays the same.
        node.kill_spawner();
        node.spawner(&[]);
        let (mut client, slots) = node.connect().await;
        assert_eq!(slots[0].live, Some((last, pid)));
        // As the first process of its namespace it gets no signal that it has no
        // handler for, so only SIGKILL ends it.
        client.signal(&web, last, StopSignal::Term).await.unwrap();
        assert!(matches!(next(&mut client).await, Event::Signalled { .. }));
        client.signal(&web, last, StopSignal::Kill).await.unwrap();
        assert_eq!(ended(&mut client, &web, last).await, Exit::Signal(9));
        // Started by somebody else before this spawner's time.
        node.kill_spawner();
        podman.command(&["start", "web"]).output().unwrap();
        node.spawner(&[]);
        let (mut client, slots) = node.connect().await;
        let (life, pid) = slots[0].live.unwrap();
        assert!(life > last && alive(pid));
        client.start(&web).await.unwrap();
        let why = Refusal::Occupied { instance: life };
        assert_eq!(next(&mut client).await, refused(&web, why));
    });
}

#[test]
fn what_cannot_be_run_or_has_another_healer_is_told_in_words() {
    let test = "containers::what_cannot_be_run_or_has_another_healer_is_told_in_words";
    with_podman(test, async |podman| {
        podman.create("ends", &[], &["sh", "-c", "exit 3"]).unwrap();
        let always = ["--restart=always"];
        podman
            .create("always", &always, &["sleep", "1000"])
            .unwrap();
        let more =
            "[[service]]\nid = \"lost\"\ncontainer = \"web\"\nengine = \"unix:///no/such\"\n";
        let names = ["web", "ends", "always", "absent"];
        let (_node, mut client) = node(podman, &names, more).await;
        for (name, words) in [
            (
                "always",
                "container always has restart policy \"always\", and two healers",
            ),
            ("absent", "has no container absent"),
            ("lost", "cannot reach the engine at /no/such: No such file"),
        ] {
            let text = not_started(&mut client, name).await;
            assert!(text.contains(words), "{text}");
        }
        let words = "container ends ended as it started: exit status 3";
        ends_at_once(&mut client, "ends", 3, words).await;
        // In no control group it cannot be paused, and the engine says so.
        let web = id("web");
        let (life, _) = start(&mut client, &web).await;
        let why = act(&mut client, &web, life, ProcessAct::Freeze).await;
        assert!(why.unwrap().contains("without using Cgroups"));
    });
}

#[test]
fn a_container_is_frozen_limited_and_killed_for_memory() {
    let test = "containers::a_container_is_frozen_limited_and_killed_for_memory";
    with_podman(test, async |podman| {
        let script = "while ! test -e /go; do sleep 0.01; done; exec tail /dev/zero";
        podman
            .create_grouped("small", &["sh", "-c", script])
            .unwrap();
        let more = "memory_limit = \"16MiB\"\n";
        let (mut node, mut client) = node(podman, &["small"], more).await;
        let small = id("small");
        client.start(&small).await.unwrap();
        let (life, pid) = match next(&mut client).await {
            // Which hierarchies an engine can use is a matter of the machine.
            Event::Refused { why, .. } => return println!("skip: {test}: {why:?}"),
            event => started(event, &small),
        };
        let Event::MemoryLimit { not_enforced, .. } = next(&mut client).await else {
            panic!("what became of the limit");
        };
        assert_eq!(not_enforced, None);
        let ticks = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
            stat.split_whitespace()
                .nth(2)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        let done = |act: Option<String>| assert_eq!(act, None);
        done(act(&mut client, &small, life, ProcessAct::Freeze).await);
        let frozen = ticks();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(ticks(), frozen);
        done(act(&mut client, &small, life, ProcessAct::Thaw).await);
        until("it goes on", || ticks() > frozen).await;
        let half = ProcessAct::LimitCpu(Percent::new(50).ok());
        let whole = ProcessAct::LimitCpu(None);
        done(act(&mut client, &small, life, half).await);
        done(act(&mut client, &small, life, whole).await);
        let all = quota(pid);
        done(act(&mut client, &small, life, half).await);
        assert_ne!(quota(pid), all);
        // Asked again after it failed, it gets back what it had.
        podman.kill();
        assert!(act(&mut client, &small, life, whole).await.is_some());
        podman.serve().await;
        done(act(&mut client, &small, life, whole).await);
        assert_eq!(quota(pid), all);
        let go = podman.root().join("go");
        fs::write(&go, "").unwrap();
        assert_eq!(ended(&mut client, &small, life).await, Exit::OutOfMemory);
        // By the count of its group alone: this engine does not know it itself.
        fs::remove_file(&go).unwrap();
        node.kill_spawner();
        node.spawner_without_log();
        let (mut client, _) = node.connect().await;
        let (life, _) = start(&mut client, &small).await;
        assert!(matches!(
            next(&mut client).await,
            Event::MemoryLimit {
                not_enforced: None,
                ..
            }
        ));
        fs::write(&go, "").unwrap();
        assert_eq!(ended(&mut client, &small, life).await, Exit::OutOfMemory);
    });
}

#[test]
fn an_engine_may_come_and_go() {
    with_podman("containers::an_engine_may_come_and_go", async |podman| {
        let (mut node, mut client) = node(podman, &["web"], "").await;
        let web = id("web");
        let (one, pid) = start(&mut client, &web).await;
        podman.kill();
        assert!(alive(pid));
        // It is seen dying without the engine, and not asked for twice.
        kill(pid);
        assert_eq!(next(&mut client).await, died(&web, one));
        let text = not_started(&mut client, "web").await;
        let words = format!(
            "cannot reach the engine at {}: Connection refused",
            podman.socket()
        );
        assert!(text.contains(&words), "{text}");
        fs::remove_file(podman.socket()).unwrap();
        let text = not_started(&mut client, "web").await;
        assert!(text.contains("No such file"), "{text}");
        // A spawner that begins without one serves all the same.
        node.kill_spawner();
        node.spawner(&[]);
        let (mut client, slots) = node.connect().await;
        assert_eq!(slots[0].live, None);
        podman.serve().await;
        let (two, pid) = start(&mut client, &web).await;
        assert!(two > one && alive(pid));
    });
}

/// What the kernel lets a process have of the processors, in either version of groups.
fn quota(pid: u32) -> String {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mut files = own.lines().filter_map(|line| {
        let (at, file) = match line.splitn(3, ':').collect::<Vec<_>>()[..] {
            ["0", "", path] => (format!("/sys/fs/cgroup{path}"), "cpu.max"),
            [_, names, path] => (format!("/sys/fs/cgroup/{names}{path}"), "cpu.cfs_quota_us"),
            _ => return None,
        };
        fs::read_to_string(format!("{at}/{file}")).ok()
    });
    files.next().unwrap()
}

/// Asks for something, and says why it was not done.
async fn act(
    client: &mut Client,
    service: &ServiceId,
    life: Instance,
    act: ProcessAct,
) -> Option<String> {
    let token = Token {
        plan: PlanId(1),
        step: 0,
        undo: false,
    };
    client.act(token, service, life, act).await.unwrap();
    match next(client).await {
        Event::Acted { token: of, failed } if of == token => failed,
        other => panic!("{other:?}"),
    }
}
