//! Log lines with true templates (Zhu et al., ISSRE 2023).
//!
//! In goes a folder of `*_2k.log_structured.csv` files, whichever there are; out come grouping
//! accuracy (GA: share of lines whose group is exactly that of the truth) and FGA (F1 over
//! groups) of one pass of the template miner with its default settings, beside three parsers
//! without memory and the published values. Groups are read at the end of the pass: templates
//! that became one meanwhile count as one.
//!
//! Thresholds are chosen once more without each set, see [`choose`].

pub mod score;
pub mod speed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use homeostat_templates::{Limits, Miner, Thresholds};

use crate::recording;
use crate::result::{Report, Row};
use crate::stats::{self, Estimate};
use score::{Score, score};

/// How the file of a set ends.
const ENDS: [&str; 2] = ["log_structured.csv.gz", "log_structured.csv"];

/// One set of lines.
#[derive(Debug, Clone)]
pub struct Set {
    /// `HDFS`, say.
    pub name: String,
    pub lines: Vec<String>,
    /// The true event of each line.
    pub truth: Vec<String>,
}

/// Published values of one set.
struct Published {
    set: &'static str,
    /// Drain with settings per data set, GA and FGA (`drain3` 0.9.11).
    drain: (f64, f64),
    /// `drain3`, one mask set and one setting for all.
    drain_one: (f64, f64),
    goal: f64,
}

const PUBLISHED: [Published; 3] = [
    Published {
        set: "HDFS",
        drain: (0.9975, 0.839),
        drain_one: (0.9975, 0.839),
        goal: 0.9975,
    },
    Published {
        set: "Linux",
        drain: (0.690, 0.930),
        drain_one: (0.690, 0.930),
        goal: 0.90,
    },
    Published {
        set: "OpenStack",
        drain: (0.7325, 0.117),
        drain_one: (0.8705, 0.810),
        goal: 0.97,
    },
];

/// Runs the protocol on the recordings below `data`.
///
/// # Errors
/// When a file is missing or cannot be understood.
pub fn run(data: &Path, _seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let sets = read(&data.join("loghub"))?;
    let defaults = Limits::default();
    let mut report = Report::new("detect.loghub", &format!("{defaults:?} {CANDIDATES:?}"));
    for set in &sets {
        let published = PUBLISHED.iter().find(|row| row.set == set.name);
        let n = set.lines.len();
        let miner = Miner::new(defaults);
        let ours = score(&mine(miner, &set.lines), &set.truth);
        let drain = published.map(|row| row.drain);
        let one = published.map(|row| row.drain_one);
        let id = |end: &str| format!("loghub.{}.{end}", set.name.to_lowercase());
        let name = &set.name;
        let mut ga = Row::new(
            &id("ga"),
            &format!("{name}, grouping accuracy"),
            "share",
            stats::share(ours.right, n),
        )
        .higher()
        .against(one.map(|row| row.0), "drain3, one setting");
        if let Some(published) = published {
            ga = ga.goal(published.goal);
        }
        report.rows.push(ga);
        let exact = |value, n| Estimate::exact(value, n);
        report.rows.push(
            Row::new(
                &id("fga"),
                &format!("{name}, F1 of groups"),
                "share",
                exact(ours.fga, ours.truths),
            )
            .higher()
            .against(drain.map(|row| row.1), "Drain, set per data set"),
        );
        report.rows.push(
            Row::new(
                &id("groups"),
                &format!("{name}, templates found"),
                "count",
                exact(ours.groups as f64, n),
            )
            .against(Some(ours.truths as f64), "true ones"),
        );
        for (key, what, parser) in BASELINES {
            let groups: Vec<String> = set.lines.iter().map(|line| parser(line)).collect();
            let theirs = score(&groups, &set.truth);
            report.rows.push(
                Row::new(
                    &id(key),
                    &format!("{name}, {what}"),
                    "share",
                    stats::share(theirs.right, n),
                )
                .higher()
                .against(Some(theirs.fga), "its F1 of groups"),
            );
        }
    }
    report.rows.extend(choose(&sets));
    report.rows.extend(speed::rows(&sets));
    report.finish(begun.elapsed());
    Ok(report)
}

/// Reads all sets of a folder, by name.
///
/// # Errors
/// When there is none, or one lacks a column.
pub fn read(folder: &Path) -> Result<Vec<Set>> {
    let name = || format!("cannot read {}", folder.display());
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(name)? {
        let path = entry.with_context(name)?.path();
        let file = path.file_name().and_then(|name| name.to_str());
        let set = file.and_then(|file| ENDS.iter().find_map(|end| file.strip_suffix(end)));
        if let Some(set) = set {
            let set = set.trim_end_matches(['.', '_']).trim_end_matches("_2k");
            files.insert(set.to_owned(), path);
        }
    }
    ensure!(
        !files.is_empty(),
        "no *_structured.csv in {}",
        folder.display()
    );
    files
        .into_iter()
        .map(|(name, path)| {
            let text = recording::text(&path)?;
            parse(name, &text).with_context(|| format!("cannot understand {}", path.display()))
        })
        .collect()
}

fn parse(name: String, text: &str) -> Result<Set> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers()?.clone();
    let column = |wanted: &str| {
        let at = headers.iter().position(|header| header == wanted);
        at.with_context(|| format!("no column {wanted}"))
    };
    let (content, event) = (column("Content")?, column("EventId")?);
    let mut set = Set {
        name,
        lines: Vec::new(),
        truth: Vec::new(),
    };
    for record in reader.records() {
        let record = record?;
        set.lines.push(record.get(content).unwrap_or("").to_owned());
        set.truth.push(record.get(event).unwrap_or("").to_owned());
    }
    Ok(set)
}

/// The group of each line after one pass.
#[must_use]
pub fn mine(mut miner: Miner, lines: &[String]) -> Vec<u64> {
    let mut groups = Vec::with_capacity(lines.len());
    let mut merged = BTreeMap::new();
    for line in lines {
        groups.push(miner.line(line.as_bytes()).template);
        miner.merges(|merge| {
            merged.insert(merge.from, merge.into);
        });
    }
    for group in &mut groups {
        while let Some(into) = merged.get(group) {
            *group = *into;
        }
    }
    groups
}

/// A parser without memory.
type Parser = fn(&str) -> String;

const BASELINES: [(&str, &str, Parser); 3] = [
    ("trivial", "all lines are one", |_| String::new()),
    ("text", "each text is its own", str::to_owned),
    ("digits", "words with a digit masked", masked),
];

fn masked(line: &str) -> String {
    let mask = |word: &str| {
        let digit = word.bytes().any(|byte| byte.is_ascii_digit());
        if digit { "<*>" } else { word }.to_owned()
    };
    line.split_whitespace()
        .map(mask)
        .collect::<Vec<_>>()
        .join(" ")
}

/// What each threshold was chosen from.
const CANDIDATES: [u8; 7] = [2, 3, 4, 6, 8, 12, 16];

/// Chooses the thresholds on all sets but one and scores them on that one, for each.
///
/// Among the best by mean GA the highest thresholds are taken: what no line of the other sets
/// speaks for is not made one.
fn choose(sets: &[Set]) -> Vec<Row> {
    if sets.len() < 2 {
        return Vec::new();
    }
    let mut tried: Vec<(Thresholds, Vec<Score>)> = Vec::new();
    for name in CANDIDATES {
        for prose in CANDIDATES.into_iter().filter(|prose| *prose >= name) {
            for value in CANDIDATES {
                let thresholds = Thresholds { name, value, prose };
                let scores = sets.iter().map(|set| {
                    let miner = Miner::new(Limits {
                        thresholds,
                        ..Limits::default()
                    });
                    score(&mine(miner, &set.lines), &set.truth)
                });
                tried.push((thresholds, scores.collect()));
            }
        }
    }
    let rows = sets.iter().enumerate().filter_map(|(left, set)| {
        let mean = |scores: &[Score]| -> usize {
            let others = scores.iter().enumerate().filter(|(at, _)| *at != left);
            others.map(|(_, score)| score.right).sum()
        };
        let (chosen, scores) = tried.iter().max_by_key(|(it, scores)| {
            (
                mean(scores),
                u32::from(it.name) + u32::from(it.value) + u32::from(it.prose),
            )
        })?;
        let score = scores.get(left)?;
        let published = PUBLISHED.iter().find(|row| row.set == set.name);
        let what = format!(
            "{}, thresholds chosen without it ({} {} {})",
            set.name, chosen.name, chosen.value, chosen.prose
        );
        let id = format!("loghub.{}.left_out", set.name.to_lowercase());
        let row = Row::new(
            &id,
            &what,
            "share",
            stats::share(score.right, set.lines.len()),
        );
        let row = row.higher();
        Some(match published {
            Some(published) => row.goal(published.goal),
            None => row,
        })
    });
    rows.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, lines: &[(&str, &str)]) {
        let mut text = "LineId,Date,Content,EventId,EventTemplate\n".to_owned();
        for (at, (line, event)) in lines.iter().enumerate() {
            text += &format!(
                "{at},today,\"{}\",{event},unused\n",
                line.replace('"', "\"\"")
            );
        }
        std::fs::write(folder.join(name), text).unwrap();
    }

    #[test]
    fn a_made_up_recording_runs_through() {
        let folder = tempfile::tempdir().unwrap();
        let sets = folder.path().join("loghub");
        std::fs::create_dir(&sets).unwrap();
        let lines = [
            ("job 1 \"done\", all well", "E1"),
            ("session closed for user ann", "E2"),
            ("job 2 \"done\", all well", "E1"),
            ("session closed for user bob", "E2"),
            ("session closed for user eve", "E2"),
            ("session closed for ever", "E3"),
        ];
        write(&sets, "Made_2k.log_structured.csv", &lines);
        write(&sets, "Other_log_structured.csv", &lines[..1]);
        let read = read(&sets).unwrap();
        let names: Vec<_> = read.iter().map(|set| set.name.as_str()).collect();
        assert_eq!(names, ["Made", "Other"]);
        assert_eq!(read[0].lines[0], lines[0].0);
        let report = run(folder.path(), 1).unwrap();
        let ours = |id: &str| report.rows.iter().find(|row| row.id == id).unwrap().ours;
        assert_eq!(ours("loghub.made.ga"), 1.0);
        assert_eq!(ours("loghub.made.fga"), 1.0);
        assert_eq!(ours("loghub.made.groups"), 3.0);
        assert_eq!(ours("loghub.made.trivial"), 0.0);
        // The users are told apart: only the jobs and the last line are right.
        assert_eq!(ours("loghub.made.digits"), 0.5);
        assert!(ours("loghub.made.rate") > 0.0);
        let nothing = folder.path().join("nothing");
        assert!(run(&nothing, 1).is_err());
    }

    #[test]
    fn the_recordings_are_grouped_as_well_as_the_report_says() {
        let Some(data) = std::env::var_os("HOMEOSTAT_DATA") else {
            println!("skip: HOMEOSTAT_DATA is unset");
            return;
        };
        for set in read(&Path::new(&data).join("loghub")).unwrap() {
            let groups = mine(Miner::new(Limits::default()), &set.lines);
            let score = score(&groups, &set.truth);
            if let Some(row) = PUBLISHED.iter().find(|row| row.set == set.name) {
                let accuracy = score.right as f64 / set.lines.len() as f64;
                assert!(accuracy >= row.goal, "{}: {score:?}", set.name);
            }
        }
    }
}
