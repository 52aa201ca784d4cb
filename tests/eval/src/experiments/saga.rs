//! A plan across three nodes, with one of those who carry it out killed at each of its
//! writes and messages in turn: it must end all done, all taken back, or with a person
//! called, within a minute.
//!
//! What the writes and messages are is learnt by watching one plan for each process, so
//! that a new kind of write needs no change here. strace sends the SIGKILL, without any
//! hook in the product.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::progress;
use crate::result::{Report, Row};
use crate::stage::strace::{Strace, Thread, available, is_dead, threads};
use crate::stage::trio::{NODES, PLAN, Stand, Trio, sections};
use crate::stage::{BrokerKind, interrupt};
use crate::stats::{Estimate, share};

/// By then a plan has ended or a person is called.
const SPAN: Duration = Duration::from_secs(60);
/// For the look at it.
const SLACK: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Calls that change a disk or send something.
const CALLS: &str = "write,pwrite64,writev,pwritev,pwritev2,ftruncate,fsync,fdatasync,rename,\
renameat,renameat2,unlink,unlinkat,openat,sendto,sendmsg";
/// The node that starts a replica, whose starts are counted.
const STARTER: usize = 1;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Kill at so many points, spread evenly; at all of them if absent.
    #[arg(long)]
    pub points: Option<usize>,
    /// How long what was killed is away, in milliseconds.
    #[arg(long, default_value_t = 300)]
    pub away_ms: u64,
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Coordinator,
    Agent(usize),
    Spawner(usize),
}

const VICTIMS: [Victim; 7] = [
    Victim::Coordinator,
    Victim::Agent(0),
    Victim::Agent(1),
    Victim::Agent(2),
    Victim::Spawner(0),
    Victim::Spawner(1),
    Victim::Spawner(2),
];

impl Victim {
    fn name(self) -> String {
        let of = |what: &str, place: usize| {
            format!("{what} of {}", NODES.get(place).copied().unwrap_or("?"))
        };
        match self {
            Self::Coordinator => "coordinator".into(),
            Self::Agent(place) => of("agent", place),
            Self::Spawner(place) => of("spawner", place),
        }
    }

    fn pid(self, trio: &Trio) -> Result<u32> {
        let pids = |place: usize| trio.nodes().get(place).map(crate::stage::Node::pids);
        let pid = match self {
            Self::Coordinator => trio.cloud().pids()[1],
            Self::Agent(place) => pids(place).and_then(|pids| pids[0]),
            Self::Spawner(place) => pids(place).and_then(|pids| pids[1]),
        };
        pid.with_context(|| format!("the {} does not run", self.name()))
    }

    /// As an init system does.
    fn start_again(self, trio: &mut Trio, away: Duration) -> Result<()> {
        match self {
            Self::Coordinator => {
                trio.cloud_mut().kill_coordinator()?;
                interrupt::pause(away)?;
                trio.cloud_mut().start_coordinator()
            }
            Self::Agent(place) => {
                let node = trio.node_mut(place)?;
                node.kill_agent()?;
                interrupt::pause(away)?;
                node.start_agent()
            }
            Self::Spawner(place) => trio.node_mut(place)?.bounce_spawner(away).map(|_| ()),
        }
    }

    /// Whether a call is one to be killed at.
    fn counts(self, thread: &str, line: &str, broker: &str) -> bool {
        let sends = line.contains(&format!("->{broker}]"));
        let beside = [
            "agent.log",
            "spawner.log",
            "coordinator.log",
            ".out>",
            "eventfd",
        ];
        if beside.iter().any(|word| line.contains(word)) {
            return false;
        }
        if line.contains("openat(") && !line.contains("O_CREAT") {
            return false;
        }
        match self {
            Self::Coordinator => sends || line.contains("coordinator.db"),
            Self::Agent(_) => sends || thread == "store",
            // To the agent, and what it writes down.
            Self::Spawner(_) => !line.contains("TCP:["),
        }
    }
}

/// A call of one thread to be killed at.
#[derive(Clone, Debug)]
struct Point {
    victim: Victim,
    thread: Thread,
    call: String,
    number: u32,
}

impl Point {
    fn text(&self) -> String {
        let (name, place) = &self.thread;
        format!(
            "{}: {name}.{place}, {} {}",
            self.victim.name(),
            self.call,
            self.number
        )
    }
}

/// How a plan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// On all nodes.
    Done,
    /// On all nodes.
    Undone,
    /// It was never taken on.
    Never,
    /// A person was called.
    Flagged,
    /// None of these within [`SPAN`].
    Halfway,
}

#[derive(Clone, Debug)]
struct Verdict {
    end: End,
    killed: bool,
    took: Duration,
    lives: usize,
    starts: usize,
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    ensure!(available(), "strace is not installed, or may not trace");
    let begun = Instant::now();
    let text = format!("{}\n# {PLAN}\n# {args:?}", sections());
    let mut report = Report::new("saga", &text);
    progress(&format!("settings {}:\n{text}\n", report.settings_sha256));
    let dir = tempfile::Builder::new().prefix("hs-saga").tempdir()?;
    let mut trio = Trio::start(dir.path(), BrokerKind::Embedded)?;
    let mut points = Vec::new();
    for victim in VICTIMS {
        let found = learn(&trio, dir.path(), victim)?;
        progress(&format!("  {}: {} calls", victim.name(), found.len()));
        points.extend(found);
    }
    let known = points.len();
    let points = spread(&points, args.points.unwrap_or(known));
    let mut verdicts = Vec::new();
    for (place, point) in points.iter().enumerate() {
        let verdict = round(
            &mut trio,
            dir.path(),
            point,
            Duration::from_millis(args.away_ms),
        )
        .with_context(|| point.text())?;
        progress(&format!(
            "  {}/{} {}: {:?}{} after {:.1} s, {} started",
            place + 1,
            points.len(),
            point.text(),
            verdict.end,
            if verdict.killed { "" } else { " (not killed)" },
            verdict.took.as_secs_f64(),
            verdict.starts
        ));
        verdicts.push(verdict);
        restore(&trio)?;
    }
    report.rows = rows(&verdicts, known, seed);
    report.finish(begun.elapsed());
    Ok(report)
}

fn spread(points: &[Point], wanted: usize) -> Vec<Point> {
    let (all, wanted) = (points.len(), wanted.min(points.len()).max(1));
    (0..wanted)
        .filter_map(|place| points.get((2 * place + 1) * all / (2 * wanted)).cloned())
        .collect()
}

fn rows(verdicts: &[Verdict], known: usize, seed: u64) -> Vec<Row> {
    let n = verdicts.len();
    let row = |key: &str, what: &str, unit, estimate| {
        Row::new(&format!("saga.{key}"), what, unit, estimate)
    };
    let count = |value: usize| Estimate::exact(value as f64, n);
    let ends = |end: End| verdicts.iter().filter(|one| one.end == end).count();
    let killed = verdicts.iter().filter(|one| one.killed).count();
    let whole = n - ends(End::Halfway);
    let mut rows = vec![
        row(
            "points",
            "writes and messages of one plan",
            "count",
            Estimate::exact(known as f64, n),
        ),
        row(
            "killed",
            "plans in which somebody was killed",
            "count",
            count(killed),
        ),
        row(
            "whole",
            "all done, all taken back, or a person called within 60 s",
            "share",
            share(whole, n),
        )
        .higher()
        .goal(1.0),
        row("done", "all done", "count", count(ends(End::Done))),
        row(
            "undone",
            "all taken back",
            "count",
            count(ends(End::Undone)),
        ),
        row(
            "never",
            "died before it was taken on",
            "count",
            count(ends(End::Never)),
        ),
        row(
            "flagged",
            "a person called",
            "count",
            count(ends(End::Flagged)),
        ),
        row(
            "halfway",
            "none of these",
            "count",
            count(ends(End::Halfway)),
        )
        .goal(0.0),
        row(
            "lives",
            "plans with two processes of one service at once",
            "count",
            count(verdicts.iter().filter(|one| one.lives > 1).count()),
        )
        .goal(0.0),
        row(
            "doubled",
            "plans that started the replica twice",
            "count",
            count(verdicts.iter().filter(|one| one.starts > 1).count()),
        )
        .goal(0.0),
    ];
    let times: Vec<f64> = verdicts.iter().map(|one| one.took.as_secs_f64()).collect();
    for (label, q) in [("median", 0.5), ("worst", 1.0)] {
        if let Some(estimate) = Estimate::quantile(&times, q, seed) {
            let what = format!("begin to end, whoever died: {label}");
            rows.push(row(&format!("{label}_s"), &what, "s", estimate));
        }
    }
    rows
}

/// The calls of one process during one plan.
fn learn(trio: &Trio, dir: &Path, victim: Victim) -> Result<Vec<Point>> {
    let broker = trio.cloud().broker_address().to_string();
    let all = threads(victim.pid(trio)?)?;
    let ids: Vec<u32> = all.iter().map(|(id, _)| *id).collect();
    let arguments = [format!("--trace={CALLS}")];
    let trace = Strace::attach(&ids, &arguments, &dir.join("strace"))?;
    let plan = trio.run(PLAN, SPAN)?;
    // What its end leaves to do comes a moment later.
    interrupt::pause(Duration::from_millis(300))?;
    let lines = trace.lines()?;
    ensure!(plan.phase == "done", "the watched plan: {plan:?}");
    restore(trio)?;
    let mut counts: BTreeMap<(Thread, String), u32> = BTreeMap::new();
    let mut points = Vec::new();
    for line in &lines {
        // With one thread there is no number in front.
        let (id, rest) = match line.split_once(' ') {
            Some((id, rest)) if id.bytes().all(|byte| byte.is_ascii_digit()) => {
                (id.parse().ok(), rest.trim_start())
            }
            _ => (ids.first().copied(), line.as_str()),
        };
        let thread = all.iter().find(|(each, _)| Some(*each) == id);
        let (Some((_, thread)), Some((call, _))) = (thread, rest.split_once('(')) else {
            continue;
        };
        if call.contains(' ') {
            continue;
        }
        let number = counts.entry((thread.clone(), call.to_owned())).or_default();
        *number += 1;
        if victim.counts(&thread.0, line, &broker) {
            points.push(Point {
                victim,
                thread: thread.clone(),
                call: call.to_owned(),
                number: *number,
            });
        }
    }
    Ok(points)
}

/// Has a plan run with somebody killed at the point, and waits for what becomes of it.
fn round(trio: &mut Trio, dir: &Path, point: &Point, away: Duration) -> Result<Verdict> {
    let pid = point.victim.pid(trio)?;
    let before = newest(trio)?;
    let known = lives_told(trio);
    let all = threads(pid)?;
    let thread = all.iter().find(|(_, thread)| *thread == point.thread);
    let trace = match thread {
        Some((id, _)) => {
            let arguments = [
                format!("--trace={}", point.call),
                format!("--inject={}:signal=KILL:when={}", point.call, point.number),
            ];
            match Strace::attach(&[*id], &arguments, &dir.join("inject")) {
                Ok(trace) => Some(trace),
                Err(error) if error.is::<interrupt::Interrupted>() => return Err(error),
                // The thread has ended since: this plan runs undisturbed.
                Err(_) => None,
            }
        }
        None => None,
    };
    let begun = Instant::now();
    let end = begun + SPAN + SLACK;
    // The coordinator may die over it.
    let asked = trio.begin(PLAN);
    let mut lives = 0;
    while !is_dead(pid) && Instant::now() < end {
        lives = lives.max(trio.most_lives()?);
        if ended(trio, before).is_some() {
            interrupt::pause(Duration::from_millis(300))?;
            break;
        }
        interrupt::pause(LOOK)?;
    }
    drop(trace);
    let killed = is_dead(pid);
    if killed {
        point.victim.start_again(trio, away)?;
    } else {
        asked?;
    }
    let mut verdict = Verdict {
        end: End::Halfway,
        killed,
        took: SPAN + SLACK,
        lives,
        starts: 0,
    };
    while Instant::now() < end {
        verdict.lives = verdict.lives.max(trio.most_lives()?);
        if let Some(end) = judge(trio, before) {
            verdict.end = end;
            verdict.took = begun.elapsed();
            break;
        }
        interrupt::pause(LOOK)?;
    }
    if verdict.end == End::Halfway {
        let plan = trio.cloud().api().plans().ok().and_then(|mut all| {
            all.truncate(1);
            all.pop()
        });
        progress(&format!("  {:?}; {plan:?}", trio.stands()));
    }
    verdict.starts = lives_told(trio).difference(&known).count();
    Ok(verdict)
}

/// Number of the newest plan.
fn newest(trio: &Trio) -> Result<u64> {
    let api = trio.cloud().api();
    interrupt::until("the plans", SPAN, || {
        Some(api.plans().ok()?.first().map_or(0, |plan| plan.id))
    })
}

/// The phase of a plan newer than that, once it has ended.
fn ended(trio: &Trio, before: u64) -> Option<String> {
    let plans = trio.cloud().api().plans().ok()?;
    let plan = plans.into_iter().find(|plan| plan.id > before)?;
    plan.ended_ms.map(|_| plan.phase)
}

fn judge(trio: &Trio, before: u64) -> Option<End> {
    let api = trio.cloud().api();
    let plans = api.plans().ok()?;
    let plan = plans.into_iter().find(|plan| plan.id > before);
    let stands = trio.stands().ok()?;
    let all = |stand: Stand| stands.iter().all(|each| *each == stand);
    let Some(plan) = plan else {
        return all(Stand::Before).then_some(End::Never);
    };
    match plan.phase.as_str() {
        "done" if all(Stand::After) => return Some(End::Done),
        "undone" if all(Stand::Before) => return Some(End::Undone),
        _ => {}
    }
    let raised = api.text("/api/v1/alarms?raised=true").ok()?;
    let called = plan.flag.is_some() || raised.contains("\"alarm\":\"saga\"");
    called.then_some(End::Flagged)
}

/// All lives on the node that starts the replica, by the words of its agent and its spawner. A
/// new spawner leaves numbers out.
fn lives_told(trio: &Trio) -> BTreeSet<u64> {
    let Some(node) = trio.nodes().get(STARTER) else {
        return BTreeSet::new();
    };
    let mut lives = BTreeSet::new();
    for log in ["agent.log", "spawner.log"] {
        let log = fs::read(node.dir().join(log)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let words = log.split(|letter: char| !letter.is_ascii_alphanumeric());
        lives.extend(words.filter_map(|word| word.strip_prefix('i')?.parse::<u64>().ok()));
    }
    lives
}

/// All as before the plan, for the next one.
fn restore(trio: &Trio) -> Result<()> {
    trio.met()?;
    let end = Instant::now() + 2 * SPAN;
    loop {
        let stands = trio.stands()?;
        if stands.iter().all(|stand| *stand == Stand::Before) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "cannot be restored: {stands:?}");
        if let Err(error) = trio.reset() {
            if error.is::<interrupt::Interrupted>() {
                return Err(error);
            }
            progress(&format!("  {error:#}"));
            interrupt::pause(Duration::from_secs(1))?;
        }
    }
}
