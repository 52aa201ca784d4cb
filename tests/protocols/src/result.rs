//! What every experiment hands out: one table for people, one JSON schema for tools.
//!
//! Ids are dotted and lower case and never change their meaning. `holds` compares `ours`
//! with `goal`, and nothing else does: an experiment that measured badly still succeeded.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use homeostat_models::sha256_hex;
use serde::Serialize;

use crate::stats::Estimate;

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Lower,
    Higher,
}

/// One number with what it is compared to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub id: String,
    pub what: String,
    pub unit: &'static str,
    pub better: Better,
    pub ours: f64,
    /// Ends of the 95 % interval; equal to `ours` for a count or a single reading.
    pub low: f64,
    pub high: f64,
    pub n: usize,
    /// The baseline, and what it is.
    pub reference: Option<f64>,
    pub reference_name: Option<String>,
    pub goal: Option<f64>,
    pub holds: Option<bool>,
}

impl Row {
    /// A row where less is better, without reference and goal.
    #[must_use]
    pub fn new(id: &str, what: &str, unit: &'static str, ours: Estimate) -> Self {
        Self {
            id: id.to_owned(),
            what: what.to_owned(),
            unit,
            better: Better::Lower,
            ours: ours.value,
            low: ours.low,
            high: ours.high,
            n: ours.n,
            reference: None,
            reference_name: None,
            goal: None,
            holds: None,
        }
    }

    #[must_use]
    pub fn higher(mut self) -> Self {
        self.better = Better::Higher;
        self
    }

    #[must_use]
    pub fn against(mut self, reference: Option<f64>, name: &str) -> Self {
        self.reference = reference;
        self.reference_name = Some(name.to_owned());
        self
    }

    #[must_use]
    pub fn goal(mut self, goal: f64) -> Self {
        self.goal = Some(goal);
        self.holds = Some(match self.better {
            Better::Lower => self.ours <= goal,
            Better::Higher => self.ours >= goal,
        });
        self
    }
}

/// The outcome of one experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub experiment: String,
    pub commit: String,
    pub date: String,
    pub machine: String,
    pub settings_sha256: String,
    pub seconds: f64,
    pub rows: Vec<Row>,
    /// What was wrong with the input, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Report {
    /// `settings`: everything that was fixed before the run, as text.
    #[must_use]
    pub fn new(experiment: &str, settings: &str) -> Self {
        Self {
            experiment: experiment.to_owned(),
            commit: commit(),
            date: date(SystemTime::now()),
            machine: machine(),
            settings_sha256: sha256_hex(settings.as_bytes()),
            seconds: 0.0,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Ends it: notes how long it took.
    pub fn finish(&mut self, took: Duration) {
        self.seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
    }

    /// Tries whether a file can be written, before what takes long; leaves no new file behind.
    ///
    /// # Errors
    /// When it cannot.
    pub fn writable(file: &Path) -> Result<()> {
        let new = !file.exists();
        let open = fs::OpenOptions::new().append(true).create(true).open(file);
        open.with_context(|| format!("cannot write {}", file.display()))?;
        if new {
            fs::remove_file(file).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    /// Writes the JSON form.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot encode the report")?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut cells = vec![
            [
                "what",
                "n",
                "ours",
                "95 %",
                "unit",
                "reference",
                "goal",
                "holds",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        cells.extend(self.rows.iter().map(|row| {
            let interval = if row.low == row.high {
                String::new()
            } else {
                format!("{}..{}", short(row.low), short(row.high))
            };
            let reference = match (row.reference, &row.reference_name) {
                (Some(value), Some(name)) => format!("{} ({name})", short(value)),
                (None, Some(name)) => format!("- ({name})"),
                (_, None) => String::new(),
            };
            let sign = match row.better {
                Better::Lower => "<=",
                Better::Higher => ">=",
            };
            vec![
                row.what.clone(),
                row.n.to_string(),
                short(row.ours),
                interval,
                row.unit.to_owned(),
                reference,
                row.goal
                    .map_or(String::new(), |goal| format!("{sign} {}", short(goal))),
                match row.holds {
                    Some(true) => "yes".to_owned(),
                    Some(false) => "NO".to_owned(),
                    None => String::new(),
                },
            ]
        }));
        format!(
            "{} at {} on {}\ncommit {}, settings {}, {:.1} s\n\n{}",
            self.experiment,
            self.date,
            self.machine,
            self.commit,
            self.settings_sha256.get(..12).unwrap_or_default(),
            self.seconds,
            columns(&cells)
        ) + &self
            .notes
            .iter()
            .fold(String::new(), |text, note| text + note + "\n")
    }
}

/// Rows of cells as aligned columns, the first row underlined.
#[must_use]
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|column| {
            let width = |row: &Vec<String>| row.get(column).map_or(0, |cell| cell.chars().count());
            rows.iter().map(width).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
        if index == 0 {
            let total = widths.iter().map(|width| width + 2).sum::<usize>();
            text.push_str(&"-".repeat(total.saturating_sub(2)));
            text.push('\n');
        }
    }
    text
}

/// Three significant digits, no exponent.
#[must_use]
pub fn short(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The commit that runs, with a mark when the tree differs from it.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        Some(commit) if changed.is_some_and(|files| !files.is_empty()) => commit + "+changes",
        Some(commit) => commit,
        None => "unknown".to_owned(),
    }
}

/// What it ran on, with the load it found there.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
    };
    let model = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib / 1024);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = read("/proc/loadavg");
    format!(
        "{}, {cores} cores, {memory} MiB, Linux {}, load {}, {} build",
        model.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        read("/proc/sys/kernel/osrelease").trim(),
        load.split_whitespace().next().unwrap_or("?"),
        if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
    )
}

/// `2026-11-21T22:40:00Z`.
fn date(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date of the proleptic Gregorian calendar, counted from 1 March of year 0,
    // so that the leap day is the last of its year.
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_is_found_before_and_none_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        fs::write(&old, "kept").unwrap();
        Report::writable(&new).unwrap();
        Report::writable(&old).unwrap();
        assert!(!new.exists() && fs::read_to_string(&old).unwrap() == "kept");
        for bad in [folder.path(), &folder.path().join("none/new")] {
            let error = format!("{:#}", Report::writable(bad).unwrap_err());
            assert!(error.contains(&bad.display().to_string()), "{error}");
        }
    }

    #[test]
    fn a_goal_is_held_in_the_direction_that_is_better() {
        let row = |ours| Row::new("a.b", "a", "ms", Estimate::exact(ours, 1));
        assert_eq!(row(5.0).goal(5.0).holds, Some(true));
        assert_eq!(row(5.1).goal(5.0).holds, Some(false));
        assert_eq!(row(5.1).higher().goal(5.0).holds, Some(true));
        assert_eq!(row(5.0).holds, None);
    }

    #[test]
    fn dates_of_the_calendar() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_798_761_599), "2026-12-31T23:59:59Z");
    }

    #[test]
    fn numbers_are_short_and_columns_line_up() {
        assert_eq!(
            [0.0, 3.0, 0.12345, 1.234, 12.34, 1234.5].map(short),
            ["0", "3", "0.1235", "1.23", "12.3", "1234"]
        );
        let rows = [
            vec!["a".to_owned(), "bb".to_owned()],
            vec!["ccc".to_owned()],
        ];
        assert_eq!(columns(&rows), "a    bb\n-------\nccc\n");
    }
}
