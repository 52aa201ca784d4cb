//! Reads the scenarios, and holds what it reads against what an issue can be.
//!
//! An issue that cannot be ranked is left out with a warning; one whose clocks disagree, or whose
//! alarmed values are missing, is ranked with lower confidence. A table or a graph that is not
//! whole is an error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use homeostat_causes::KEEP_MAX;
use serde::Deserialize;

use super::{BEFORE, ISSUE};
use crate::rca::Metric;
use crate::rca::wide::{Table, Topology, strangers, table, topology};
use crate::recording;

/// The scenarios' folders; the normal period is of the first.
pub(super) const SCENARIOS: [&str; 3] = ["low_traffic", "temporal_traffic1", "temporal_traffic2"];

/// Most issues of a part of a scenario.
const ISSUES_MAX: usize = 1000;

/// Fewest normal rows: of each half, one window.
const NORMAL_MIN: usize = 2 * ISSUE;

/// Most normal rows, the newest: a diagnosis keeps no more, and windows are of the second half.
const NORMAL_MAX: usize = 2 * KEEP_MAX;

/// Seconds from which on clocks disagree: twelve rows.
const CLOCKS: f64 = 3600.0;

/// What a method may know of an issue. What else the file holds is not read.
#[derive(Deserialize)]
struct File {
    target: Target,
    root_cause: Root,
}

#[derive(Deserialize)]
struct Target {
    node: String,
    metric: String,
    timestamp: f64,
}

/// For scoring alone.
#[derive(Deserialize)]
struct Root {
    node: String,
}

pub(super) struct Issue {
    /// Its folder, in that of the set.
    pub(super) name: String,
    pub(super) train: bool,
    pub(super) scenario: usize,
    pub(super) table: Table,
    pub(super) target: String,
    pub(super) metric: Metric,
    pub(super) truth: String,
    /// Whether something is wrong with what was recorded of it.
    pub(super) doubtful: bool,
}

/// Everything that was read.
pub(super) struct Set {
    pub(super) topologies: Vec<Topology>,
    pub(super) normal: Table,
    pub(super) issues: Vec<Issue>,
    /// What was wrong with the files.
    pub(super) notes: Vec<String>,
}

pub(super) fn read(data: &Path) -> Result<Set> {
    let folder = data.join("petshop");
    let mut notes = Vec::new();
    let normal = normal(&folder.join("low_traffic/noissue/metrics.csv"), &mut notes)?;
    let (mut topologies, mut all) = (Vec::new(), Vec::new());
    for (scenario, name) in SCENARIOS.iter().enumerate() {
        let topology = topology(&folder.join(name).join("graph.csv"), &mut notes)?;
        let mut issues = Vec::new();
        for (part, train) in [("train", true), ("test", false)] {
            let name = format!("{name}/{part}");
            for issue in folders(&folder, &name, &mut notes)? {
                let found = issue_of(&folder, issue, &topology, &mut notes)?;
                issues.extend(found.map(|issue| Issue {
                    train,
                    scenario,
                    ..issue
                }));
            }
        }
        let tables = issues.iter().map(|issue| &issue.table);
        let normal = (scenario == 0).then_some(&normal);
        strangers(name, &topology, tables.chain(normal), &mut notes);
        all.extend(issues);
        topologies.push(topology);
    }
    Ok(Set {
        topologies,
        normal,
        issues: all,
        notes,
    })
}

fn normal(file: &Path, notes: &mut Vec<String>) -> Result<Table> {
    let mut normal = table(file, notes)?;
    let (name, rows) = (file.display(), normal.rows);
    ensure!(
        rows >= NORMAL_MIN,
        "{name} has {rows} rows, {NORMAL_MIN} are the least"
    );
    ensure!(!normal.is_empty(), "{name} has no value in any row");
    if rows > NORMAL_MAX {
        notes.push(format!(
            "{name}: of {rows} rows the last {NORMAL_MAX} are used"
        ));
        normal.keep(rows - NORMAL_MAX..rows);
    }
    Ok(normal)
}

/// The folders of the issues of a part, by name; notes which numbers are missing.
fn folders(folder: &Path, part: &str, notes: &mut Vec<String>) -> Result<Vec<String>> {
    let path = folder.join(part);
    let cannot = || format!("cannot read {}", path.display());
    let entries = std::fs::read_dir(&path).with_context(cannot)?;
    let paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()
        .with_context(cannot)?;
    let issues = paths.iter().filter(|path| path.is_dir());
    let mut issues: Vec<String> = issues
        .filter_map(|path| Some(format!("{part}/{}", path.file_name()?.to_string_lossy())))
        .collect();
    issues.sort();
    let count = issues.len();
    ensure!(
        count <= ISSUES_MAX,
        "{} has more than {ISSUES_MAX} issues",
        path.display()
    );
    let number = |name: &String| name.rsplit_once("issue_")?.1.parse::<u64>().ok();
    let numbers: BTreeSet<u64> = issues.iter().filter_map(number).collect();
    let end = numbers.last().copied().unwrap_or(0);
    if let Some(missing) = (0..end).find(|number| !numbers.contains(number)) {
        let gone = end + 1 - numbers.len() as u64;
        notes.push(format!(
            "{part}: {gone} issues are missing, first issue_{missing}"
        ));
    }
    if issues.is_empty() {
        notes.push(format!("{part} has no issue"));
    }
    Ok(issues)
}

/// An issue; none if the graph cannot place its alarm, or nothing was measured.
fn issue_of(
    folder: &Path,
    name: String,
    topology: &Topology,
    notes: &mut Vec<String>,
) -> Result<Option<Issue>> {
    let file = folder.join(&name).join("target.json");
    let File { target, root_cause } = serde_json::from_str(&recording::text(&file)?)
        .with_context(|| format!("cannot understand {}", file.display()))?;
    let metric = match target.metric.as_str() {
        "latency" => Metric::Latency,
        "availability" => Metric::Availability,
        other => bail!("{}: no such metric: {other}", file.display()),
    };
    let (node, truth) = (target.node, root_cause.node);
    if !topology.names.contains(&node) {
        notes.push(format!(
            "{name} is left out: the graph has no {node}, which alarms"
        ));
        return Ok(None);
    }
    if !topology.names.contains(&truth) {
        notes.push(format!(
            "{name} counts as missed: the graph has no {truth}, its root cause"
        ));
    }
    let file = folder.join(&name).join("metrics.csv");
    let mut table = table(&file, notes)?;
    let rows = table.rows;
    ensure!(
        rows >= ISSUE,
        "{} has {rows} rows, fewer than {ISSUE}",
        file.display()
    );
    if rows > ISSUE {
        notes.push(format!("{name}: of {rows} rows the first {ISSUE} are used"));
        table.keep(0..ISSUE);
    }
    if table.is_empty() {
        notes.push(format!(
            "{name} is left out: metrics.csv has no value in any row"
        ));
        return Ok(None);
    }
    let key = (node, metric.name().to_owned());
    let alarmed = table.columns.get(&key);
    let silent = alarmed.is_none_or(|cells| cells[BEFORE..].iter().all(|cell| cell.is_nan()));
    let (node, _) = key;
    let mut wrong = Vec::new();
    if silent {
        let metric = metric.name();
        wrong.push(format!(
            "metrics.csv has no {metric} of {node}, which alarms, since the alarm"
        ));
    }
    wrong.extend(clocks(&table.times, target.timestamp));
    let doubtful = !wrong.is_empty();
    notes.extend(
        wrong
            .iter()
            .map(|what| format!("{name}: {what}; confidence is lower")),
    );
    Ok(Some(Issue {
        name,
        train: false,
        scenario: 0,
        table,
        target: node,
        metric,
        truth,
        doubtful,
    }))
}

/// What the times of rows and alarm cannot be.
fn clocks(times: &[f64], alarm: f64) -> Option<String> {
    let mut steps = times.iter().zip(times.iter().skip(1));
    if !steps.all(|(a, b)| (0.0..=CLOCKS).contains(&(b - a)) && a < b) {
        return Some("times of metrics.csv jump or are none, rows are taken in order".to_owned());
    }
    let (first, last) = (times.first()?, times.last()?);
    let off = if alarm < *first {
        alarm - first
    } else {
        (alarm - last).max(0.0)
    };
    (!(off.abs() <= CLOCKS)).then(|| {
        let hours = off / 3600.0;
        format!("the alarm of target.json is {hours:+.1} h off the rows, which are taken in order")
    })
}
