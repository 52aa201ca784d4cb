//! Faults on purpose with real processes: each is there, ends by itself, and is ended when the
//! spawner that put it there is killed, whether another one follows or not.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use homeostat_agent::chaos::Injection;
use homeostat_agent::io::spawner::client::{Client, Event};
use homeostat_common::ids::Instance;
use homeostat_common::units::Millis;

use crate::node::{Node, exited, id, next, run, start, until};

const SPAN: Millis = Millis(700);
/// What outlasts every test; what ends it is what is tested.
const LONG: Millis = Millis::secs(200);

fn node() -> Node {
    let node = Node::new(&[]);
    let at = node.folder.path().display().to_string();
    for (name, version, text) in [
        ("slot", "0102", vec![7_u8; 10_000]),
        ("config-slot", "0304", b"scale = 1.0\n".to_vec()),
    ] {
        let slot = node.folder.path().join(name);
        let file = if name == "slot" {
            "model.onnx"
        } else {
            "a.toml"
        };
        std::fs::create_dir_all(slot.join("versions").join(version)).unwrap();
        std::fs::write(slot.join("versions").join(version).join(file), text).unwrap();
        symlink(format!("versions/{version}"), slot.join("current")).unwrap();
    }
    std::fs::create_dir(node.folder.path().join("kept")).unwrap();
    node.append(&format!(
        r#"[[service]]
id = "a"
command = ["/bin/sh", "-c", "while :; do sleep 1000; done"]
chaos = true
memory_limit = "64MiB"
[service.data]
path = "{at}/kept"
quota = "1MiB"
prune = ["*.old"]
[service.model]
slot = "{at}/slot"
reload = "watch"
[service.config]
slot = "{at}/config-slot"
file = "a.toml"
[[service]]
id = "b"
command = ["/bin/sleep", "1000"]
[[service]]
id = "c"
command = ["/bin/sleep", "1000"]
chaos = true
protected = true
"#
    ));
    node
}

fn model(node: &Node) -> PathBuf {
    node.folder.path().join("slot/versions/0102/model.onnx")
}

fn state(pid: u32) -> char {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let (_, rest) = text.rsplit_once(") ").unwrap_or_default();
    rest.chars().next().unwrap_or('-')
}

fn files_max(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    line.unwrap().to_owned()
}

/// Begins a fault and returns what was said; everything else is passed over.
async fn begin(client: &mut Client, service: &str, injection: Injection, span: Millis) -> Event {
    client.inject(&id(service), injection, span).await.unwrap();
    loop {
        let event = next(client).await;
        if matches!(event, Event::Broken { .. } | Event::NotBroken { .. }) {
            return event;
        }
    }
}

async fn broken(client: &mut Client, injection: Injection, span: Millis) {
    let said = begin(client, "a", injection, span).await;
    assert!(is_broken(&said), "{said:?}");
}

async fn mended(client: &mut Client) -> String {
    loop {
        if let Event::Mended { why } = next(client).await {
            return why;
        }
    }
}

fn is_broken(event: &Event) -> bool {
    matches!(event, Event::Broken { .. })
}

#[test]
fn what_did_not_opt_in_is_left_alone() {
    let mut node = node();
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        for name in ["b", "c"] {
            start(&mut client, &id(name)).await;
        }
        for (service, span) in [("b", SPAN), ("c", SPAN), ("a", SPAN), ("x", SPAN)] {
            let said = begin(&mut client, service, Injection::Kill, span).await;
            assert!(!is_broken(&said), "{service}: {said:?}");
        }
        let (_, pid) = start(&mut client, &id("a")).await;
        let long = begin(&mut client, "a", Injection::Sigstop, Millis::secs(301)).await;
        assert!(!is_broken(&long), "{long:?}");
        assert_ne!(state(pid), 'T');
        client.mend().await.unwrap();
        let answer = loop {
            match next(&mut client).await {
                Event::NotBroken { why } => break why,
                Event::Mended { why } => panic!("{why}"),
                _ => {}
            }
        };
        assert!(answer.contains("no fault"), "{answer}");
    });
}

#[test]
fn a_stopped_process_runs_on_when_the_time_is_over() {
    let mut node = node();
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let (instance, pid) = start(&mut client, &id("a")).await;
        broken(&mut client, Injection::Sigstop, SPAN).await;
        until("it to stop", || state(pid) == 'T').await;
        // One at a time, of any kind.
        let second = begin(&mut client, "a", Injection::Hog, SPAN).await;
        assert!(!is_broken(&second), "{second:?}");
        assert!(mended(&mut client).await.contains("undone"));
        until("it to run on", || state(pid) != 'T').await;
        broken(&mut client, Injection::Kill, SPAN).await;
        loop {
            if let Event::Exited { instance: gone, .. } = next(&mut client).await {
                assert_eq!(gone, instance);
                break;
            }
        }
    });
}

#[test]
fn nobody_has_to_be_there_for_the_end() {
    let mut node = node();
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let (_, pid) = start(&mut client, &id("a")).await;
        broken(&mut client, Injection::Sigstop, SPAN).await;
        until("it to stop", || state(pid) == 'T').await;
        // The loop dies; whoever comes next is told what is in force.
        drop(client);
        let (mut next_loop, _) = node.connect().await;
        assert!(is_broken(&next(&mut next_loop).await));
        drop(next_loop);
        until("it to run on", || state(pid) != 'T').await;
    });
}

#[test]
fn descriptors_and_files_are_as_they_were_when_the_time_is_over() {
    let mut node = node();
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let (_, pid) = start(&mut client, &id("a")).await;
        let before = files_max(pid);
        broken(&mut client, Injection::Descriptors, SPAN).await;
        assert_ne!(files_max(pid), before);
        mended(&mut client).await;
        assert_eq!(files_max(pid), before);
        // The folder is on tmpfs or a disk with 64 MiB to spare.
        broken(&mut client, Injection::DataFull, SPAN).await;
        let ballast = node.folder.path().join("kept/homeostat-chaos.old");
        assert!(std::fs::metadata(&ballast).unwrap().len() >= 1 << 20);
        mended(&mut client).await;
        assert!(!ballast.exists());
        let intact = std::fs::read(model(&node)).unwrap();
        broken(&mut client, Injection::CorruptModel, SPAN).await;
        assert_ne!(std::fs::read(model(&node)).unwrap(), intact);
        mended(&mut client).await;
        assert_eq!(std::fs::read(model(&node)).unwrap(), intact);
    });
}

#[test]
fn a_bad_configuration_is_read_at_the_next_start_and_put_back() {
    let mut node = node();
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let (instance, _) = start(&mut client, &id("a")).await;
        let file = node.folder.path().join("config-slot/versions/0304/a.toml");
        broken(&mut client, Injection::BadConfig, SPAN).await;
        assert!(String::from_utf8(std::fs::read(&file).unwrap()).is_err());
        let mut killed = false;
        let why = loop {
            match next(&mut client).await {
                Event::Died { instance: gone, .. } | Event::Exited { instance: gone, .. } => {
                    killed |= gone == instance;
                }
                Event::Mended { why } => break why,
                _ => {}
            }
        };
        assert!(killed && why.contains("undone"), "{killed} {why}");
        assert_eq!(std::fs::read(&file).unwrap(), b"scale = 1.0\n");
    });
}

/// What is as it was once a fault has ended.
struct Was {
    pid: u32,
    files_max: String,
    model: Vec<u8>,
}

impl Was {
    fn of(node: &Node, pid: u32) -> Self {
        Self {
            pid,
            files_max: files_max(pid),
            model: std::fs::read(model(node)).unwrap(),
        }
    }

    fn again(&self, node: &Node, injection: Injection) -> bool {
        let ballast = node.folder.path().join("kept/homeostat-chaos.old");
        // The kernel does not leave a stopped group to an owner that is gone: it has it run on,
        // after a SIGHUP which ends it as a rule.
        let alive = matches!(state(self.pid), 'R' | 'S' | 'D');
        let as_before = || alive && files_max(self.pid) == self.files_max;
        (injection == Injection::Sigstop && !matches!(state(self.pid), 'T' | 't') || as_before())
            && !ballast.exists()
            && std::fs::read(model(node)).unwrap() == self.model
            && !node.folder.path().join("data/chaos/chaos").exists()
    }
}

const ENDED_BY_OTHERS: [Injection; 5] = [
    Injection::Block,
    Injection::Sigstop,
    Injection::Descriptors,
    Injection::DataFull,
    Injection::CorruptModel,
];

/// Begins a fault that would last for long.
fn break_for_long(node: &mut Node, injection: Injection) -> Option<Was> {
    node.spawner(&[]);
    let mut was = None;
    run(async {
        let (mut client, _) = node.connect().await;
        let (_, pid) = start(&mut client, &id("a")).await;
        was = Some(Was::of(node, pid));
        let said = begin(&mut client, "a", injection, LONG).await;
        if injection == Injection::Block && format!("{said:?}").contains("does not let it") {
            println!("skip: {said:?}");
            was = None;
            return;
        }
        assert!(is_broken(&said), "{said:?}");
    });
    was
}

#[test]
fn a_spawner_that_is_killed_is_followed_by_one_that_ends_its_faults() {
    for injection in ENDED_BY_OTHERS {
        let mut node = node();
        let Some(was) = break_for_long(&mut node, injection) else {
            continue;
        };
        // Nobody else is there to do it.
        for guard in helpers(&node) {
            crate::node::kill(guard);
        }
        node.kill_spawner();
        node.spawner(&[]);
        run(async {
            let (_client, _) = node.connect().await;
            until(&injection.to_string(), || was.again(&node, injection)).await;
        });
    }
}

#[test]
fn a_spawner_that_is_killed_needs_no_other_one_for_the_end() {
    for injection in ENDED_BY_OTHERS {
        let mut node = node();
        let Some(was) = break_for_long(&mut node, injection) else {
            continue;
        };
        node.kill_spawner();
        run(until(&injection.to_string(), || {
            was.again(&node, injection)
        }));
    }
}

#[test]
fn a_process_that_is_held_hears_no_signal_but_a_kill_and_runs_on_afterwards() {
    let mut node = node();
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let (instance, pid) = start(&mut client, &id("a")).await;
        let said = begin(&mut client, "a", Injection::Block, SPAN).await;
        if format!("{said:?}").contains("does not let it") {
            println!("skip: {said:?}");
            return;
        }
        assert!(is_broken(&said), "{said:?}");
        // The kernel is told by then; each thread stops as it is next looked at.
        until("it to be held", || state(pid) == 't').await;
        mended(&mut client).await;
        until("it to run on", || state(pid) == 'S').await;
        broken(&mut client, Injection::Block, LONG).await;
        until("it to be held", || state(pid) == 't').await;
        crate::node::kill(pid);
        let mut exited = false;
        let why = loop {
            match next(&mut client).await {
                Event::Exited { instance: gone, .. } => exited |= gone == instance,
                Event::Mended { why } => break why,
                _ => {}
            }
        };
        assert!(exited && why.contains("gone"), "{exited} {why}");
        start(&mut client, &id("a")).await;
    });
}

#[test]
fn a_leak_takes_the_memory_of_the_group_and_gives_it_back() {
    let mut node = node();
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let (_, pid) = start(&mut client, &id("a")).await;
        let said = begin(&mut client, "a", Injection::Leak, SPAN).await;
        if let Event::NotBroken { why } = &said
            && why.contains("memory_limit")
        {
            println!("skip: {why}");
            return;
        }
        assert!(is_broken(&said), "{said:?}");
        let name = "homeostat-edge-1-a".to_owned();
        let mut process = homeostat_agent::io::procfs::Process::in_group(
            std::path::Path::new("/proc"),
            pid,
            homeostat_agent::io::procfs::Membership::Named(name),
        );
        let (mut now, mut most) = (0, 0);
        let why = loop {
            now += 1;
            let reading = process.sample(homeostat_common::units::Micros(now));
            most = most.max(reading.resident.fresh().unwrap_or_default().0);
            let next = tokio::time::timeout(Duration::from_millis(20), client.next()).await;
            match next {
                Ok(Ok(Event::Mended { why })) => break why,
                _ => assert!(now < 500, "it does not end"),
            }
        };
        // 60 MiB in 25 s.
        assert!(most > 1 << 20, "{most} {why}");
        until("the memory to be given back", || helpers(&node).is_empty()).await;
    });
}

/// The spawner's own programs besides its services.
fn helpers(node: &Node) -> Vec<u32> {
    let children = node.children().into_iter();
    let words = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    children
        .filter(|pid| words(*pid).windows(12).any(|part| part == b"chaos-helper"))
        .collect()
}

#[test]
fn a_load_ends_with_its_spawner_and_with_its_time() {
    let mut node = node();
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        start(&mut client, &id("a")).await;
        broken(&mut client, Injection::Hog, SPAN).await;
        until("it to burn", || !helpers(&node).is_empty()).await;
        mended(&mut client).await;
        until("it to end", || helpers(&node).is_empty()).await;
        broken(&mut client, Injection::Hog, LONG).await;
        until("it to burn", || !helpers(&node).is_empty()).await;
    });
    let load = helpers(&node);
    node.kill_spawner();
    let end = Instant::now() + Duration::from_secs(5);
    while load.iter().any(|pid| !matches!(state(*pid), 'Z' | '-')) {
        assert!(Instant::now() < end, "{load:?} outlive their spawner");
        std::thread::sleep(Duration::from_millis(10));
    }
    node.spawner(&[]);
    run(async { drop(node.connect().await) });
}

#[test]
fn who_has_no_memory_left_is_killed_by_the_kernel_and_the_load_ends() {
    let mut node = node();
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let (instance, _) = start(&mut client, &id("a")).await;
        loop {
            if let Event::MemoryLimit { not_enforced, .. } = next(&mut client).await {
                if let Some(why) = not_enforced {
                    println!("skip: no limit of memory can be set here: {why}");
                    return;
                }
                break;
            }
        }
        if !rustix::process::geteuid().is_root() {
            println!("skip: only root can have the service killed before the load");
            return;
        }
        broken(&mut client, Injection::Oom, LONG).await;
        let mut last: Option<Instance> = None;
        let why = loop {
            match next(&mut client).await {
                event @ Event::Exited { .. } => {
                    let expected = homeostat_agent::io::spawner::protocol::Exit::OutOfMemory;
                    assert_eq!(event, exited(&id("a"), instance, expected));
                    last = Some(instance);
                }
                Event::Mended { why } => break why,
                _ => {}
            }
        };
        assert_eq!(last, Some(instance));
        assert!(why.contains("gone"), "{why}");
    });
}
