//! What a new spawner takes for its own of what it finds, and what not: processes that
//! hide, that belong to others, and that were left behind.

// The lint sees no test in here; a failure of a helper is one of its test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use homeostat_agent::io::spawner::protocol::{Exit, StopSignal};
use homeostat_common::ids::Instance;

use crate::node::{Node, alive, died, exited, id, kill, next, run, start, until};

const NOBODY: u32 = 65534;

/// Makes the record say that nothing after `last` was started, and nothing runs.
fn unrecord(node: &Node, last: Instance) {
    let slots = node.run_dir().join("spawner/slots");
    let text = fs::read_to_string(&slots).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("slot "));
    let lines = lines.map(|line| match line.strip_prefix("last ") {
        Some(_) => format!("last {}\n", last.0),
        None => format!("{line}\n"),
    });
    fs::write(&slots, lines.collect::<String>()).unwrap();
}

/// What `file` says, once it says something.
async fn pid_in(node: &Node, file: &str) -> u32 {
    let path = node.folder.path().join(file);
    let read = || fs::read_to_string(&path).ok()?.trim().parse().ok();
    until("a pid", || read().is_some()).await;
    read().unwrap()
}

/// A process of somebody else that is ended with the test.
struct Stranger(Child);

impl Stranger {
    fn with(mark: &str, user: Option<u32>) -> Self {
        let mut command = Command::new("/bin/sleep");
        command
            .arg("1000")
            .env("HOMEOSTAT_SLOT", mark)
            .process_group(0);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        Self(command.spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A main process without a mark, with a worker that carries it in a group of its own. What is
/// not found ends by itself.
const HIDDEN_MAIN: &str = "setsid sleep 1000 & exec env -i sleep 60";

#[test]
fn a_main_process_that_lost_its_mark_is_found_above_its_worker() {
    let mut node = Node::new(&[("a", HIDDEN_MAIN)]);
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let a = id("a");
        let (one, pid) = start(&mut client, &a).await;
        until("the worker alone is marked", || {
            node.marked(&a).iter().all(|(marked, _)| *marked != pid) && node.marked(&a).len() == 1
        })
        .await;
        let (worker, _) = node.marked(&a)[0];
        node.kill_spawner();
        unrecord(&node, Instance(one.0 - 1));
        node.spawner(&[]);
        let (mut client, found) = node.connect().await;
        assert_eq!(found[0].live, Some((one, pid)), "the worker is {worker}");
        // And all of it goes.
        client.signal(&a, one, StopSignal::Kill).await.unwrap();
        while next(&mut client).await != exited(&a, one, Exit::Unknown) {}
        assert!(!alive(pid) && !alive(worker));
    });
}

#[test]
fn where_the_main_process_is_not_certain_all_of_the_service_is_ended() {
    // The second worker has lost its parent, and leads up to nobody.
    let script = format!("(setsid sleep 1000 &); {HIDDEN_MAIN}");
    let mut node = Node::new(&[("a", &script)]);
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let a = id("a");
        let (one, pid) = start(&mut client, &a).await;
        until("the workers alone are marked", || {
            node.marked(&a).iter().all(|(marked, _)| *marked != pid) && node.marked(&a).len() == 2
        })
        .await;
        node.kill_spawner();
        unrecord(&node, Instance(one.0 - 1));
        node.spawner(&[]);
        let (_, found) = node.connect().await;
        assert_eq!(found[0].live, None);
        until("all ended", || node.marked(&a).is_empty() && !alive(pid)).await;
    });
}

#[test]
fn workers_that_lost_their_mark_go_with_a_main_process_that_was_adopted() {
    let worker = r#"env -i sh -c "echo \$\$ > worker; exec sleep 60" &"#;
    let mut node = Node::new(&[("a", &format!("{worker} exec sleep 1000"))]);
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let a = id("a");
        for before in [false, true] {
            let (one, pid) = start(&mut client, &a).await;
            let worker = pid_in(&node, "worker").await;
            node.kill_spawner();
            if before {
                // It dies while nobody is its parent.
                kill(pid);
                until("it died", || !alive(pid)).await;
            }
            assert!(alive(worker));
            node.spawner(&[]);
            let found;
            (client, found) = node.connect().await;
            assert_eq!(found[0].live, (!before).then_some((one, pid)));
            if !before {
                kill(pid);
                assert_eq!(next(&mut client).await, died(&a, one));
                assert_eq!(next(&mut client).await, exited(&a, one, Exit::Unknown));
            }
            assert!(!alive(worker), "it could hold the port of the next life");
            fs::remove_file(node.folder.path().join("worker")).unwrap();
        }
    });
}

#[test]
fn marks_of_other_users_and_of_lives_that_never_were_count_for_nothing() {
    let mut node = Node::new(&[("a", "exec sleep 1000")]);
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let a = id("a");
        let (one, pid) = start(&mut client, &a).await;
        node.kill_spawner();
        kill(pid);
        until("it died", || !alive(pid)).await;
        let run_dir = node.run_dir().display().to_string();
        let mark = |instance: u64| format!("{run_dir}:a:{instance}");
        let mut strangers = vec![
            Stranger::with(&mark(u64::MAX), None),
            Stranger::with(&mark(one.0 + 1000), None),
        ];
        if rustix::process::geteuid().is_root() {
            strangers.push(Stranger::with(&mark(one.0 + 1), Some(NOBODY)));
        } else {
            println!("skip: a process of another user: only root can start one");
        }
        node.spawner(&[]);
        let (mut client, found) = node.connect().await;
        assert_eq!(found[0].live, None);
        let (two, pid) = start(&mut client, &a).await;
        assert!(two > one && two < Instance(one.0 + 1000), "{two}");
        client.signal(&a, two, StopSignal::Kill).await.unwrap();
        until("it died", || !alive(pid)).await;
        for stranger in &strangers {
            assert!(alive(stranger.0.id()));
        }
    });
}

#[test]
fn the_lock_is_for_the_spawner_alone_and_whoever_has_it_is_named() {
    let mut node = Node::new(&[]);
    let folder = node.run_dir().join("spawner");
    fs::create_dir_all(&folder).unwrap();
    let lock = folder.join("lock");
    fs::write(&lock, "").unwrap();
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).unwrap();
    let held = fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    let refused = node.command(&[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8(refused.stderr).unwrap();
    let own = format!("process {} (", std::process::id());
    assert!(text.contains(&own), "{text}");
    assert!(!text.contains("another spawner"), "{text}");
    drop(held);
    node.spawner(&[]);
    run(async { drop(node.connect().await) });
    let mode = fs::metadata(&lock).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn services_run_where_logs_cannot_be_written() {
    let mut node = Node::new(&[("a", "exec sleep 1000")]);
    let data = node.folder.path().join("data");
    // No folder can be made there: to the spawner the same as a disk that is read-only, which
    // a test has no right to make.
    fs::write(&data, "").unwrap();
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let a = id("a");
        let (one, pid) = start(&mut client, &a).await;
        // Its log comes with its next life, once there is a place.
        fs::remove_file(&data).unwrap();
        fs::create_dir(&data).unwrap();
        kill(pid);
        assert_eq!(next(&mut client).await, died(&a, one));
        assert_eq!(next(&mut client).await, exited(&a, one, Exit::Signal(9)));
        start(&mut client, &a).await;
        assert!(data.join("logs/a.log").exists());
    });
}

/// A container: neither the session nor the group of whoever came into it has a number there.
#[test]
fn all_this_holds_in_a_namespace_of_processes_that_one_came_into() {
    if !rustix::process::geteuid().is_root() {
        println!("skip: needs root");
        return;
    }
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"])
        // Whoever is first in it adopts orphans, and a test does not reap.
        .args(["sh", "-c", r#""$0" "$@"; exit $?"#])
        .arg(std::env::current_exe().unwrap())
        .args(["adopting::", "--skip=all_this_holds", "--test-threads=1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(" 0 passed"), "{said}");
}
