//! A small bed: two nodes with agents, four units, users. Faults happen for real, plans are
//! carried out for real, and nothing stays behind, also when the program is killed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use homeostat_eval::stage::{Bed, Node, role};
use homeostat_sim::topology::Topology;
use homeostat_testbed::inject;
use homeostat_testbed::users::{End, Users, UsersSpec};

const PROGRAM: &str = env!("CARGO_BIN_EXE_homeostat-eval");
const LONG: Duration = Duration::from_secs(60);

const SMALL: &str = r#"
name = "small"

[[site]]
name = "plant"

[[node]]
name = "edge-1"
site = "plant"
cores = 4
memory_mb = 400
system_mb = 60
uplinks = [{ name = "eth0", delay_ms = 1 }]

[[node]]
name = "edge-2"
site = "plant"
cores = 4
memory_mb = 400
system_mb = 60
uplinks = [{ name = "eth0", delay_ms = 1 }]

[[route]]
name = "gateway"
at = "edge-1"
demand = 20
rate = 200
cores = 0.2
memory_mb = 40
start_s = 0.05
calls = [{ to = "infer" }]
replicas = [{ name = "gateway-1", node = "edge-1" }]

[[route]]
name = "infer"
at = "edge-1"
rate = 60
cores = 0.2
memory_mb = 80
start_s = 0.05
model = true
offers = ["locks"]
replicas = [{ name = "infer-1", node = "edge-1" }, { name = "infer-2", node = "edge-2" }]
"#;

/// How users fared from then on, for so long: failures and right answers.
fn fare(users: &Users, seconds: f64) -> (usize, usize) {
    let from = users.now_s();
    thread::sleep(Duration::from_secs_f64(seconds + 0.8));
    let tries = users.tries();
    let mut within = (0, 0);
    for one in tries
        .iter()
        .filter(|one| (from..from + seconds).contains(&one.at_s))
    {
        match one.end {
            End::Failed => within.0 += 1,
            End::Right => within.1 += 1,
            End::Wrong => panic!("a wrong answer of a good model"),
        }
    }
    within
}

#[test]
fn faults_hurt_users_and_plans_mend_them() {
    role::set_program(PROGRAM.into());
    let dir = tempfile::tempdir().unwrap();
    let topology = Topology::read("small.toml", SMALL).unwrap();
    let bed = Bed::start(&topology, dir.path(), 1).unwrap();
    if !bed.caged() {
        println!("skip: no control groups here; nodes have all of this machine");
    }
    let users = Users::come(UsersSpec {
        entry: bed.entry().unwrap().into(),
        rate: 20.0,
        again: 0.0,
        patience: Duration::from_millis(700),
        rest: Duration::from_millis(300),
        retries: 1,
        seed: 1,
        golden: Node::goldens().unwrap(),
    })
    .unwrap();
    let (failed, right) = fare(&users, 1.0);
    assert!(right > 0 && failed <= right, "well: {failed} {right}");

    // A replica that answers nothing is taken out, and then replaced.
    inject::block(&bed.control("infer-1").unwrap()).unwrap();
    let (failed, _) = fare(&users, 1.5);
    assert!(failed > 0, "nobody was hurt");
    let plan = "isolate(infer, infer-1, drain=0ms) ; restart(infer-1, grace=100ms) ; release(infer, infer-1)";
    let done = bed.order("edge-1", plan, LONG).unwrap();
    assert!(done.well, "{}", done.said);
    let (failed, right) = fare(&users, 1.5);
    assert!(
        right > 10 && 10 * failed < right,
        "mended: {failed} {right}"
    );

    // Nobody starts what was killed: these agents only observe.
    for replica in ["infer-1", "infer-2"] {
        inject::kill9(bed.pid(replica).unwrap()).unwrap();
    }
    let (failed, right) = fare(&users, 1.0);
    assert!(failed > 0 && right == 0, "dead: {failed} {right}");
    let done = bed.order("edge-2", "restart(infer-2, grace=100ms)", LONG);
    assert!(done.unwrap().well);
    let (_, right) = fare(&users, 1.5);
    assert!(right > 0, "mended");
    let groups = groups(std::process::id());
    assert_eq!(groups.is_empty(), !bed.caged());
    drop(users);
    drop(bed);
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

#[test]
fn nothing_stays_behind_a_program_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Command::new(PROGRAM)
        .args(["testbed", "--fault", "hang", "--n", "1"])
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mark = dir.path().to_str().unwrap().to_owned();
    until("units run", || processes(&mark) > 10);
    let groups = groups(program.id());
    program.kill().unwrap();
    program.wait().unwrap();
    until("all processes end", || processes(&mark) == 0);
    until("groups and folder go", || {
        let left = fs::read_dir(dir.path()).unwrap().count();
        left == 0 && groups.iter().all(|group| !group.exists())
    });
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < LONG, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The control groups of a program's beds.
fn groups(pid: u32) -> Vec<PathBuf> {
    let mark = format!("hs-bed-{pid}-");
    let bases = [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/cpu",
        "/sys/fs/cgroup/memory",
    ];
    let entries = bases
        .iter()
        .filter_map(|base| fs::read_dir(Path::new(base)).ok());
    entries
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains(&mark))
        .collect()
}

/// Processes whose command names a folder; the guard, which does so too, is one until its end.
fn processes(mark: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let named = all.filter(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(mark)
    });
    named.count()
}
