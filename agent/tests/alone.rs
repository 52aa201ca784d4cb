//! The agent as a process, without a spawner: what it keeps when it is killed, and what it
//! says when it cannot do what it is asked.

// The lint sees no test in here; a failure of a helper is one of its test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A start takes some ten milliseconds; this is for a machine that is busy.
const START_MAX: Duration = Duration::from_secs(20);

fn node() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let text = format!(
        "[node]\nid = \"n\"\ndata_dir = \"{at}/data\"\nrun_dir = \"{at}/run\"\n\
         [store]\nquota = \"16MiB\"\nballast = \"512KiB\"\n\
         [[service]]\nid = \"web\"\ncommand = [\"/bin/sleep\", \"60\"]\n"
    );
    fs::write(dir.path().join("agent.toml"), text).unwrap();
    dir
}

fn command(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_homeostat-agent"));
    command
        .args(words)
        .arg("--config")
        .arg(dir.join("agent.toml"));
    command
}

fn ask(dir: &Path, words: &[&str]) -> Output {
    command(dir, words).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// A loop that answers; killed when it goes out of scope.
struct Agent(Child);

impl Agent {
    fn start(dir: &Path) -> Self {
        let child = command(dir, &["run"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let agent = Self(child.unwrap());
        let begun = Instant::now();
        while !ask(dir, &["status"]).status.success() {
            assert!(begun.elapsed() < START_MAX, "it does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_agent_keeps_its_history_and_a_damaged_one_is_not_read_as_empty() {
    let dir = node();
    for _ in 0..3 {
        drop(Agent::start(dir.path()));
    }
    let kv = dir.path().join("data/kv");
    assert!(!kv.join("live.damaged-1").exists(), "it was set aside");
    let read = ask(dir.path(), &["explain"]);
    assert!(
        read.status.success() && said(&read).contains("no incident yet"),
        "{read:?}"
    );
    fs::remove_dir_all(kv.join("live")).unwrap();
    fs::write(kv.join("live"), "nonsense").unwrap();
    let read = ask(dir.path(), &["explain"]);
    assert!(!read.status.success(), "{read:?}");
    assert!(said(&read).contains("is damaged"), "{read:?}");
    assert!(kv.join("live").is_file(), "looking changes nothing");
}

#[test]
fn a_second_agent_ends_at_once_and_the_first_stays_reachable() {
    let dir = node();
    let first = Agent::start(dir.path());
    let second = ask(dir.path(), &["run"]);
    assert!(!second.status.success(), "{second:?}");
    let words = format!("another agent already runs: process {} (", first.0.id());
    assert!(said(&second).contains(&words), "{second:?}");
    assert!(ask(dir.path(), &["status"]).status.success());
}

#[test]
fn a_plan_is_not_followed_for_ever_without_a_history() {
    let dir = node();
    fs::create_dir(dir.path().join("data")).unwrap();
    // No store can be made where a file lies.
    fs::write(dir.path().join("data/kv"), "").unwrap();
    let _agent = Agent::start(dir.path());
    let done = ask(dir.path(), &["do", "escalate(web)"]);
    assert!(!done.status.success(), "{done:?}");
    assert!(said(&done).contains("cannot be followed"), "{done:?}");
}
