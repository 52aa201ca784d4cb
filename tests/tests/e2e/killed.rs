//! The agent killed at each write of a healing in turn, for real: strace sends SIGKILL to the
//! running agent as it enters its Nth call of a kind, without any hook in the product.
//!
//! The fault is a model file gone bad, whose plan has two steps: roll back, then restart. What
//! the calls are is learnt from one healing that is only watched, so that a new kind of write
//! needs no change here. Only the threads that change the disk are traced: the loop itself
//! keeps nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use homeostat_eval::stage::Node;
use homeostat_testbed::inject::{self, Corruption};
use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{Told, closed, eager, incidents, life, log, next_life, rest, scene, until};

/// Calls that change what is on the disk.
const CALLS: &str = "write,pwrite64,writev,pwritev,pwritev2,ftruncate,fallocate,fsync,fdatasync,\
sync_file_range,rename,renameat,renameat2,unlink,unlinkat,link,linkat,open,openat,mkdir,mkdirat";

/// A strace that follows one thread.
struct Trace {
    child: Child,
}

impl Trace {
    /// Returns once the thread is followed.
    fn attach(thread: u32, arguments: &[String], output: &Path) -> Result<Self> {
        let child = Command::new("strace")
            .args(["-qq", "-yy", "-o"])
            .arg(output)
            .args(arguments)
            .args(["-p", &thread.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start strace")?;
        let trace = Self { child };
        until("strace", || {
            let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
            let tracer = status
                .lines()
                .find_map(|line| line.strip_prefix("TracerPid:"))?;
            (tracer.trim() != "0").then_some(())
        })?;
        Ok(trace)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // SIGTERM lets go of the thread first.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn thread(agent: u32, name: &str) -> Result<u32> {
    until(&format!("the thread {name}"), || {
        let tasks = fs::read_dir(format!("/proc/{agent}/task")).ok()?.flatten();
        tasks
            .filter(|task| {
                fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
            })
            .find_map(|task| task.file_name().to_str()?.parse().ok())
    })
}

fn agent_pid(node: &Node) -> Result<u32> {
    node.pids()[0].context("the agent runs")
}

/// A write of one thread to be killed at.
#[derive(Clone, Debug)]
struct Point {
    thread: &'static str,
    call: String,
    number: u32,
}

/// The calls of one thread during one healing, in their order. What goes to the log is left
/// out.
fn points(dir: &Path, node: &Node, name: &'static str) -> Result<Vec<Point>> {
    let arguments = [format!("--trace={CALLS}")];
    let output = dir.join("strace");
    let trace = Trace::attach(thread(agent_pid(node)?, name)?, &arguments, &output)?;
    heal(node)?;
    // What the end of a healing leaves to do comes a moment later.
    rest(Duration::from_millis(200));
    drop(trace);
    let mut found = Vec::new();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for line in fs::read_to_string(output)?.lines() {
        let Some((call, _)) = line.split_once('(') else {
            continue;
        };
        let number = counts.entry(call.to_owned()).or_default();
        *number += 1;
        let beside = ["agent.log", "O_RDONLY", "[eventfd]"];
        if !beside.iter().any(|word| line.contains(word)) {
            found.push(Point {
                thread: name,
                call: call.to_owned(),
                number: *number,
            });
        }
    }
    Ok(found)
}

fn heal(node: &Node) -> Result<()> {
    let before = incidents(node)?.len();
    let old = life(node, "infer")?;
    inject::corrupt_model(&node.model(), Corruption::Weights)?;
    next_life(node, "infer", &old)?;
    closed(node, before + 1)?;
    ensure!(node.model_intact(), "the model is not the good one");
    Ok(())
}

#[test]
fn killed_at_each_write_of_the_store_the_next_agent_ends_the_healing() {
    // Opened, decided, begun, each step begun and done, ended, closed, quiet; and the events.
    killed_at_each_call_of("store", 20);
}

#[test]
fn killed_at_each_write_of_a_slot_the_next_agent_ends_the_healing() {
    // What stood there under its own name, the copy, its place, the marks and their removal.
    killed_at_each_call_of("slots", 10);
}

fn killed_at_each_call_of(name: &'static str, least: usize) {
    let strace = Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .status();
    if strace.is_err() {
        println!("skip: strace is not installed");
        return;
    }
    scene(|dir| {
        let mut settings = eager(&["web", "infer"], "");
        // One that is taken over while it answers wrongly waits for this each time.
        settings.service = settings.service.replace("2s", "500ms");
        let mut node = Node::start(dir, &settings, None, None)?;
        heal(&node)?;
        let bystander = life(&node, "web")?;
        let points = points(dir, &node, name)?;
        ensure!(points.len() >= least, "too few writes: {points:?}");
        let (mut killed, mut histories, mut ends) = (0, 0, BTreeMap::<String, u32>::new());
        for point in &points {
            let before = incidents(&node)?.len();
            let done = round(dir, &mut node, point).with_context(|| format!("{point:?}"))?;
            killed += usize::from(done);
            // sled does not survive every kill; then the history begins anew, and says so.
            let lost = log(&node)
                .matches("live: it does not open; set aside")
                .count();
            let known = if lost > histories { 0 } else { before };
            histories = lost;
            let all = closed(&node, known)?;
            for told in all.iter().skip(known) {
                let end = told.closed.as_deref().unwrap_or_default();
                let end = end.split(' ').next().unwrap_or_default();
                *ends.entry(end.to_owned()).or_default() += 1;
            }
            ensure!(
                life(&node, "web")? == bystander,
                "{point:?}: the other service was disturbed"
            );
        }
        println!(
            "killed at {killed} of {} calls: {ends:?}; {histories} histories lost",
            points.len()
        );
        // A batch can be shared otherwise than in the healing that was watched.
        ensure!(
            killed * 10 >= points.len() * 8,
            "only {killed} of {} kills came",
            points.len()
        );
        Ok(())
    });
}

/// Breaks the model, has the agent killed at the point, starts the next one, and waits until
/// all is well. Says whether the kill came.
fn round(dir: &Path, node: &mut Node, point: &Point) -> Result<bool> {
    let old = life(node, "infer")?;
    let before = incidents(node)?.len();
    let pid = agent_pid(node)?;
    let Point {
        thread: name,
        call,
        number,
    } = point;
    let arguments = [
        format!("--trace={call}"),
        format!("--inject={call}:signal=KILL:when={number}"),
    ];
    let output = dir.join("inject");
    let trace = Trace::attach(thread(pid, name)?, &arguments, &output)?;
    inject::corrupt_model(&node.model(), Corruption::Weights)?;
    let killed = until("the kill, or the end of the healing", || {
        let killed = is_dead(pid);
        let healed = || incidents(node).is_ok_and(|all| all.len() > before && over(&all));
        (killed || (node.model_intact() && healed())).then_some(killed)
    })?;
    if !killed {
        // What is left to do behind the end comes a moment later.
        rest(Duration::from_millis(200));
    }
    drop(trace);
    // On a busy machine who was hit as the trace was let go of takes a while to be gone.
    let call = format!("{call}(");
    let calls = fs::read_to_string(&output)?;
    let calls = calls.lines().filter(|line| line.starts_with(&call)).count();
    let ended = calls >= usize::try_from(*number)?;
    if ended {
        until("the killed agent to be gone", || is_dead(pid).then_some(()))?;
        node.kill_agent()?;
        node.start_agent()?;
    }
    until("the good model", || node.model_intact().then_some(()))?;
    next_life(node, "infer", &old)?;
    until("the end of the incident", || {
        incidents(node).is_ok_and(|all| over(&all)).then_some(())
    })?;
    let mut names = Vec::new();
    let gone = until("the other versions to be gone", || {
        let versions = fs::canonicalize(node.model()).ok()?;
        let versions = versions.parent()?.parent()?;
        let files = fs::read_dir(versions).ok()?.flatten();
        names = files.map(|file| file.file_name()).collect();
        (names.len() == 1).then_some(())
    });
    gone.with_context(|| format!("{names:?}"))?;
    for service in ["web", "infer"] {
        let lives = lives(&node.control(service)?);
        ensure!(lives == 1, "{lives} processes of {service}");
    }
    Ok(ended)
}

fn over(all: &[Told]) -> bool {
    all.iter().all(|told| told.closed.is_some())
}

/// Killed and not yet waited for.
fn is_dead(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|status| status.contains("State:\tZ"))
}

/// Processes that were started with this control socket.
fn lives(control: &Path) -> usize {
    let mark = control.to_str().unwrap().as_bytes();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| line.split(|byte| *byte == 0).any(|word| word == mark))
        .count()
}
