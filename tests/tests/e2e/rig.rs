//! What all of these tests share: a folder that shows its logs when a test fails and proves
//! that nothing is left, a node that heals eagerly, and the words it explains itself with.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use homeostat_eval::stage::role::{self, Role};
use homeostat_eval::stage::{Life, Node, Settings, interrupt, log_tail};

/// Longest wait for a healing on a busy machine; usual are 0.1 to 0.5 s.
pub(crate) const HEALED_MAX: Duration = Duration::from_secs(10);

/// One scene at a time: each is a whole fleet, and probes of 100 ms need a machine that answers.
static STAGE: Mutex<()> = Mutex::new(());

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_homeostat-e2e-node");

/// Runs a test in a folder of its own. On failure the logs of all parts are shown; in any
/// case no process may be left that was started for it.
pub(crate) fn scene(body: impl FnOnce(&Path) -> Result<()>) {
    let _stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    role::set_program(PROGRAM.into());
    let dir = tempfile::Builder::new().prefix("hs-e2e").tempdir().unwrap();
    let begun = Instant::now();
    let result = body(dir.path());
    println!("{:.1} s", begun.elapsed().as_secs_f64());
    if let Err(error) = result {
        for (place, name) in [
            ("node", "agent"),
            ("node", "spawner"),
            ("cloud", "coordinator"),
            ("cloud", "broker"),
        ] {
            let place = dir.path().join(place);
            if place.join(format!("{name}.log")).exists() {
                println!("--- {name}\n{}", log_tail(&place, name));
            }
        }
        panic!("{error:#}");
    }
    nothing_left(dir.path());
}

/// No process names the folder in its command line.
fn nothing_left(dir: &Path) {
    let end = Instant::now() + Duration::from_secs(5);
    let mark = dir.to_str().unwrap().as_bytes();
    let left = || -> Vec<String> {
        let folders = std::fs::read_dir("/proc").unwrap().flatten();
        folders
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .filter(|line| line.windows(mark.len()).any(|part| part == mark))
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .collect()
    };
    while !left().is_empty() {
        assert!(Instant::now() < end, "still running: {:?}", left());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Probes of 100 ms and nothing that holds the agent back: each fault is to be healed as if
/// it were the first. `more`: further sections.
pub(crate) fn eager(services: &[&'static str], more: &str) -> Settings {
    Settings {
        sections: format!(
            r#"reconnect_min = "200ms"
reconnect_max = "1s"

[limits]
mode = "act"
hold = "0s"
budget = {{ mission = 1.0, business = {{ floor = 1.0, ceiling = 1.0 }}, best_effort = {{ floor = 1.0, ceiling = 1.0 }} }}
quarantine = {{ count = 100, within = "1s", hold = "1s" }}
contest = {{ count = 100, within = "1s", hold = "1s" }}
restart = {{ burst = 100, within = "1s", backoff_min = "1ms" }}

[sample]
period = "250ms"

{more}"#
        ),
        // An adopted process that answers wrongly counts as starting for so long.
        service: "stop_grace = \"500ms\"\nstart_timeout = \"2s\"".to_owned(),
        probe: "period = \"100ms\"\ntimeout = \"80ms\"\nmisses = 2".to_owned(),
        services: services.to_vec(),
    }
}

/// Asks until there is an answer.
pub(crate) fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> Result<T> {
    interrupt::until(what, HEALED_MAX, ask)
}

pub(crate) fn rest(time: Duration) {
    std::thread::sleep(time);
}

pub(crate) fn life(node: &Node, name: &str) -> Result<Life> {
    until(name, || node.life(name))
}

/// Waits for another life than `old`.
pub(crate) fn next_life(node: &Node, name: &str, old: &Life) -> Result<Life> {
    until(&format!("a new {name}"), || {
        node.life(name)
            .filter(|life| life.instance != old.instance && life.pid != old.pid)
    })
}

/// Runs a command of the agent.
pub(crate) fn agent(args: &[&str]) -> Result<Output> {
    Command::new(PROGRAM)
        .arg(Role::Agent.arg())
        .arg(std::process::id().to_string())
        .args(args)
        .output()
        .context("cannot run the agent's command line")
}

/// What the node says about one incident, or all of them in a line or two each.
///
/// Waits until the agent answers: without one, the command would open the store by itself, and
/// an agent that starts just then would have to do without its history.
pub(crate) fn explain(node: &Node, incident: Option<u64>) -> Result<String> {
    let socket = node.dir().join("run/agent.sock");
    until("the agent's socket", || UnixStream::connect(&socket).ok())?;
    let mut args = vec!["explain".to_owned()];
    args.extend(incident.map(|incident| incident.to_string()));
    args.push("--config".to_owned());
    args.push(node.config().to_str().unwrap().to_owned());
    let output = agent(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "explain failed: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Number and words of an incident, as `explain` lists it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) number: u64,
    pub(crate) opened: String,
    /// `None` while it is open.
    pub(crate) closed: Option<String>,
}

/// All incidents in the order of their opening.
pub(crate) fn incidents(node: &Node) -> Result<Vec<Told>> {
    let mut all: Vec<Told> = Vec::new();
    for line in explain(node, None)?.lines() {
        let Some((_, rest)) = line.split_once("  incident ") else {
            continue;
        };
        let (number, words) = rest.split_once(": ").with_context(|| line.to_owned())?;
        let number = number.parse().with_context(|| line.to_owned())?;
        let words = words.to_owned();
        match all.iter_mut().find(|told| told.number == number) {
            // Told again by an agent that found it open.
            Some(told) if told.closed.is_none() && words.contains("; believed to be ") => {}
            // A crash right after the end was told has it told twice, rather than never.
            Some(told) => told.closed = Some(words),
            None if words.contains("; believed to be ") => all.push(Told {
                number,
                opened: words,
                closed: None,
            }),
            // Its beginning was in a history that had to be set aside.
            None => {}
        }
    }
    all.sort_by_key(|told| told.number);
    Ok(all)
}

/// Waits until there are at least `count` incidents and none is open.
pub(crate) fn closed(node: &Node, count: usize) -> Result<Vec<Told>> {
    let mut last = String::new();
    let all = until("the end of all incidents", || {
        let all = incidents(node).ok()?;
        last = format!("{all:?}");
        (all.len() >= count && all.iter().all(|told| told.closed.is_some())).then_some(all)
    });
    all.with_context(|| last)
}

/// All that the agent has logged.
pub(crate) fn log(node: &Node) -> String {
    std::fs::read_to_string(node.dir().join("agent.log")).unwrap_or_default()
}
