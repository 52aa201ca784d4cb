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
    (off.abs() > CLOCKS).then(|| {
        let hours = off / 3600.0;
        format!("the alarm of target.json is {hours:+.1} h off the rows, which are taken in order")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rca::petshop::View;
    use homeostat_causes::Doubt;

    const GRAPH: &str = "service,a,b\na,0,1\nb,0,0\n";
    const NORMAL: &str = "low_traffic/noissue/metrics.csv";
    const ISSUE: &str = "low_traffic/train/issue_0/metrics.csv";
    const TARGET: &str = "low_traffic/train/issue_0/target.json";

    fn rows(from: usize, to: usize, slow: usize) -> String {
        let head = "microservice,a,b,c,a,b\nmetric,latency,latency,latency,requests,requests\n\
            statistic,Average,Average,Average,Sum,Sum\nunix_timestamp\n";
        let rows = (from..to).map(|at| {
            let extra = if at >= slow { 0.5 } else { 0.0 };
            let noise = (at % 7) as f64 / 1000.0;
            let (a, b) = (0.2 + extra + noise, 0.1 + extra + noise);
            format!("{},{a},{b},1,100,100\n", 300 * at)
        });
        head.to_owned() + &rows.collect::<String>()
    }

    fn issue() -> String {
        rows(60, 65, 62)
    }

    fn label(target: &str, root: &str, at: u32) -> String {
        format!(
            r#"{{"target":{{"node":"{target}","metric":"latency","timestamp":{at}}},"root_cause":{{"node":"{root}"}}}}"#
        )
    }

    /// All files of the set, small: `a` calls `b`, which is slow in the issues. One is replaced.
    fn folder(file: &str, text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, usual: &str| {
            let path = folder.path().join("petshop").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, if name == file { text } else { usual }).unwrap();
        };
        write(NORMAL, &rows(0, 60, 99));
        for scenario in SCENARIOS {
            write(&format!("{scenario}/graph.csv"), GRAPH);
            for part in ["train", "test"] {
                let name = format!("{scenario}/{part}/issue_0");
                write(&format!("{name}/metrics.csv"), &issue());
                write(&format!("{name}/target.json"), &label("a", "b", 18_600));
            }
        }
        folder
    }

    fn set(file: &str, text: &str) -> Result<Set> {
        read(folder(file, text).path())
    }

    /// The first issue's root, its confidence, and doubts.
    fn first(set: &Set) -> (f32, Vec<Doubt>) {
        let issue = &set.issues[0];
        let case = View::Full.case(&set.topologies[0], &set.normal, issue);
        let (graph, mut diagnosis) = case.unwrap().diagnose().unwrap();
        if issue.doubtful {
            diagnosis.doubt();
        }
        let first = &diagnosis.suspects[0];
        assert_eq!(graph.name(first.component), "b");
        (first.confidence, diagnosis.doubts)
    }

    #[test]
    fn what_is_not_a_recording_is_an_error_with_its_file() {
        let graph = "low_traffic/graph.csv";
        let cases = [
            (graph, "", "names no component"),
            (graph, "service,a,b\na,0,1\n", "no rows of 1 components: b"),
            (
                graph,
                "service,a,b\na,0,1\nb,0\n",
                "the row of b has 2 cells, not 3",
            ),
            (graph, "service,a,a\na,0,1\na,0,0\n", "column a twice"),
            (graph, "service,a,b\na,0,1\na,0,1\nb,0,0\n", "two rows of a"),
            (graph, "service,a,b\na,NaN,NaN\nb,NaN,NaN\n", "has no call"),
            (NORMAL, "", "lacks its four header rows"),
            (NORMAL, &rows(0, 0, 9), "has 0 rows, 10"),
            (NORMAL, &rows(0, 1, 9), "has 1 rows, 10"),
            (
                NORMAL,
                &rows(0, 60, 99).replace("unix_timestamp\n", ""),
                "line 4 does not begin",
            ),
            (ISSUE, &rows(60, 64, 62), "has 4 rows, fewer than 5"),
            (
                ISSUE,
                &issue().replace("microservice,a,b,c", "microservice,a,b,b"),
                "a second time",
            ),
            (TARGET, "{", "cannot understand"),
            (
                TARGET,
                &label("a", "b", 1).replace("latency", "cost"),
                "no such metric: cost",
            ),
        ];
        for (file, text, wanted) in cases {
            let error = format!("{:#}", set(file, text).err().unwrap());
            assert!(
                error.contains(file) && error.contains(wanted),
                "{wanted}: {error}"
            );
        }
        let folder = folder("", "");
        let graph = "petshop/temporal_traffic1/graph.csv";
        std::fs::remove_file(folder.path().join(graph)).unwrap();
        let error = format!("{:#}", read(folder.path()).err().unwrap());
        assert!(error.contains(graph), "{error}");
    }

    #[test]
    fn what_the_world_does_to_recordings_is_a_warning_and_a_ranking() {
        let whole = set("", "").unwrap();
        let (sure, doubts) = first(&whole);
        assert_eq!((doubts, whole.issues.len()), (vec![], 6));
        let stranger = "low_traffic: 1 components have metrics but no place in the graph";
        assert!(whole.notes.iter().any(|one| one.starts_with(stranger)));
        let garbage = rows(0, 60, 99).replacen("0.2,0.1,1,", "0.2,0.1,x,", 1);
        let shuffled = issue().replace("18600,", "5,");
        let text = issue().replace("18600,", "noon,");
        let cut = issue();
        let cut = cut.trim_end();
        // File, its text, what is noted, whether confidence is lower.
        let cases = [
            (
                NORMAL,
                garbage.as_str(),
                "1 cells that are no numbers from 0 on",
                false,
            ),
            (NORMAL, &garbage, "line 5, column 4", false),
            (ISSUE, cut, "may be cut", false),
            (ISSUE, &shuffled, "times are none or not after", true),
            (
                ISSUE,
                &text,
                "train/issue_0: times of metrics.csv jump or are none",
                true,
            ),
            (
                TARGET,
                &label("a", "b", 47_400),
                "is +7.8 h off the rows",
                true,
            ),
            (TARGET, &label("a", "b", 0), "is -5.0 h off the rows", true),
            (
                TARGET,
                &label("a", "zed", 18_600),
                "issue_0 counts as missed: the graph has no zed",
                false,
            ),
            (
                "low_traffic/graph.csv",
                "service,a,b\na,0,1\nb,?,0\n",
                "line 3, column 2",
                false,
            ),
            (
                "low_traffic/graph.csv",
                "service,a,b\na,7,1\nb,0,0\n",
                "neither 0 nor 1",
                false,
            ),
            (
                "low_traffic/graph.csv",
                "s,a,b\na,0,1\nb,0,0\nc,0,0\n",
                "rows of unknown callers",
                false,
            ),
        ];
        for (file, text, wanted, doubtful) in cases {
            let set = set(file, text).unwrap();
            assert!(
                set.notes.join("\n").contains(wanted),
                "{wanted}: {:?}",
                set.notes
            );
            let (confidence, _) = first(&set);
            let lower = confidence < sure;
            assert_eq!(
                (set.issues[0].doubtful, lower),
                (doubtful, doubtful),
                "{wanted}"
            );
        }
        let circle = set("low_traffic/graph.csv", "service,a,b\na,0,1\nb,1,0\n").unwrap();
        let (unsure, doubts) = first(&circle);
        assert!(matches!(doubts[..], [Doubt::Cycle { .. }]), "{doubts:?}");
        assert!(unsure < sure, "{unsure} {sure}");
    }

    #[test]
    fn an_issue_that_cannot_be_ranked_is_left_out_and_told() {
        let head: String = issue()
            .lines()
            .take(4)
            .map(|line| format!("{line}\n"))
            .collect();
        let empty = head + "1,,,,,\n2,,,,,\n3,,,,,\n4,,,,,\n5,,,,,\n";
        for (file, text, wanted) in [
            (ISSUE, empty.as_str(), "has no value in any row"),
            (
                TARGET,
                &label("zed", "b", 18_600),
                "the graph has no zed, which alarms",
            ),
        ] {
            let set = set(file, text).unwrap();
            assert_eq!(set.issues.len(), 5);
            let wanted = format!("low_traffic/train/issue_0 is left out: {wanted}");
            assert!(
                set.notes
                    .iter()
                    .any(|one| one.starts_with(&wanted) || one.contains("no value")),
                "{:?}",
                set.notes
            );
        }
        let folder = folder("", "");
        let part = folder.path().join("petshop/low_traffic/test");
        std::fs::rename(part.join("issue_0"), part.join("issue_2")).unwrap();
        let notes = read(folder.path()).unwrap().notes;
        let gone = "low_traffic/test: 2 issues are missing, first issue_0".to_owned();
        assert!(notes.contains(&gone), "{notes:?}");
    }
}
