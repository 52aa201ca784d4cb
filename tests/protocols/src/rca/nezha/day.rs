//! Reads a day, and holds what it reads against what a recording can be.
//!
//! A row that cannot be is left out with a warning; a table without any, and faults that are not
//! what they seem, are errors. Clocks that disagree, and minutes without signals, lower the
//! confidence of the cases they are about.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{AFTER, WINDOWS};
use crate::rca::list;
use crate::recording;

/// Most rows of a table, thirty times the longest of the recorded day: what bounds memory.
const ROWS_MAX: usize = 1_000_000;

/// Most faults of a recording: each is diagnosed over all that was before it.
const FAULTS_MAX: usize = 1000;

/// Most events or calls of a kind that a service can have had in one minute: 16,000 a second.
const COUNT_MAX: u32 = 1_000_000;

/// Largest value of a metric: beyond all bytes and calls of a node.
const VALUE_MAX: f32 = 1e12;

/// The window that holds what is normal.
const NORMAL: &str = "normal";

/// A row that can be told from nonsense.
trait Plausible: DeserializeOwned {
    /// What is wrong with it.
    fn wrong(&self) -> Option<String>;
}

fn named(names: &[(&str, &String)]) -> Option<String> {
    let empty = names.iter().find(|(_, name)| name.trim().is_empty());
    empty.map(|(column, _)| format!("{column} is empty"))
}

fn counted(column: &str, count: u32) -> Option<String> {
    let wrong = !(1..=COUNT_MAX).contains(&count);
    wrong.then(|| format!("{column} is {count}, not in 1..={COUNT_MAX}"))
}

/// What a method may know of a fault, and the service, which is for scoring alone.
#[derive(Deserialize)]
pub(super) struct Fault {
    pub(super) case: String,
    pub(super) inject_unix: u64,
    inject_time_utc: Option<String>,
    pub(super) service: String,
    /// Whether something is wrong with what was recorded of it.
    #[serde(skip)]
    pub(super) doubtful: bool,
}

impl Plausible for Fault {
    fn wrong(&self) -> Option<String> {
        named(&[("case", &self.case), ("service", &self.service)])
    }
}

#[derive(Deserialize)]
struct Minute {
    window: String,
    start_utc_minute: String,
}

impl Plausible for Minute {
    fn wrong(&self) -> Option<String> {
        named(&[("window", &self.window)]).or_else(|| {
            let wrong = unix(&self.start_utc_minute).is_none();
            wrong.then(|| "start_utc_minute is no time like 2023-01-29T08:50Z".to_owned())
        })
    }
}

#[derive(Deserialize)]
pub(super) struct Bigram {
    window: String,
    pub(super) service: String,
    pub(super) event: String,
    pub(super) next_event: String,
    pub(super) count: u32,
}

impl Plausible for Bigram {
    fn wrong(&self) -> Option<String> {
        named(&[("window", &self.window), ("service", &self.service)])
            .or_else(|| counted("count", self.count))
    }
}

#[derive(Deserialize)]
pub(super) struct Edge {
    window: String,
    pub(super) caller: String,
    pub(super) callee: String,
    pub(super) calls: u32,
}

impl Plausible for Edge {
    fn wrong(&self) -> Option<String> {
        let names = [
            ("window", &self.window),
            ("caller", &self.caller),
            ("callee", &self.callee),
        ];
        named(&names).or_else(|| counted("calls", self.calls))
    }
}

#[derive(Deserialize)]
pub(super) struct Metric {
    pub(super) unix: u64,
    pub(super) service: String,
    pub(super) cpu_pct: Option<f32>,
    pub(super) mem_pct: Option<f32>,
    sys_read: Option<f32>,
    sys_write: Option<f32>,
    net_rx: Option<f32>,
    net_tx: Option<f32>,
    client_p90_s: Option<f32>,
    pub(super) server_p90_s: Option<f32>,
    pub(super) workload_ops: Option<f32>,
}

/// The columns of [`Metric::all`].
const METRICS: [&str; 9] = [
    "cpu_pct",
    "mem_pct",
    "sys_read",
    "sys_write",
    "net_rx",
    "net_tx",
    "client_p90_s",
    "server_p90_s",
    "workload_ops",
];

impl Metric {
    /// All of them, for the baseline that uses all.
    pub(super) fn all(&self) -> [Option<f32>; 9] {
        [
            self.cpu_pct,
            self.mem_pct,
            self.sys_read,
            self.sys_write,
            self.net_rx,
            self.net_tx,
            self.client_p90_s,
            self.server_p90_s,
            self.workload_ops,
        ]
    }
}

impl Plausible for Metric {
    fn wrong(&self) -> Option<String> {
        let cells = METRICS.iter().zip(self.all());
        let wrong = cells.filter_map(|(name, cell)| Some((name, cell?)));
        let mut wrong = wrong.filter(|(_, value)| !(0.0..=VALUE_MAX).contains(value));
        named(&[("service", &self.service)]).or_else(|| {
            wrong
                .next()
                .map(|(name, value)| format!("{name} is {value}"))
        })
    }
}

/// Seconds since 1970 of `2023-01-29T08:43:04Z`, the seconds of which may be absent.
fn unix(text: &str) -> Option<u64> {
    let (date, time) = text.trim().strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, by: char| -> Option<Vec<u64>> {
        let short = |part: &str| (part.len() <= 4).then(|| part.parse().ok())?;
        text.split(by).map(short).collect()
    };
    let (date, time) = (numbers(date, '-')?, numbers(time, ':')?);
    let &[year @ 1970..=9999, month @ 1..=12, day @ 1..=31] = date.as_slice() else {
        return None;
    };
    let (&[hour @ ..24, minute @ ..60] | &[hour @ ..24, minute @ ..60, _]) = time.as_slice() else {
        return None;
    };
    let second = time.get(2).copied().unwrap_or(0);
    // Years begin in March, so that the leap day is the last of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leaps = year / 4 - year / 100 + year / 400;
    let days = 365 * year + leaps + (153 * month + 2) / 5 + day - 1;
    Some(((days - 719_468) * 24 + hour) * 3600 + minute * 60 + second.min(60))
}

/// A table of the folder: the rows that can be read, and what is wrong with the others.
struct Rows<T> {
    file: PathBuf,
    rows: Vec<T>,
    bad: usize,
    /// The first bad row's place and fault.
    first: String,
}

fn table<T: Plausible>(folder: &Path, name: &str, notes: &mut Vec<String>) -> Result<Rows<T>> {
    let file = folder.join(name);
    let text = recording::text(&file)?;
    if !text.ends_with('\n') {
        notes.push(format!(
            "{}: its last line does not end, it may be cut",
            file.display()
        ));
    }
    let (mut rows, mut bad, mut first) = (Vec::new(), 0, String::new());
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let head = reader
        .headers()
        .with_context(|| format!("{} is no CSV", file.display()))?
        .clone();
    let mut record = csv::StringRecord::new();
    loop {
        let wrong = match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => match record.deserialize::<T>(Some(&head)) {
                Ok(row) => match row.wrong() {
                    None => {
                        rows.push(row);
                        continue;
                    }
                    Some(wrong) => {
                        let line = record.position().map_or(0, csv::Position::line);
                        format!("line {line}: {wrong}")
                    }
                },
                Err(cause) => column(&head, &cause),
            },
            Err(cause) => cause.to_string(),
        };
        if bad == 0 {
            first = wrong;
        }
        bad += 1;
        ensure!(
            rows.len() + bad <= ROWS_MAX,
            "{} has more than {ROWS_MAX} rows",
            file.display()
        );
    }
    let file_name = file.display();
    ensure!(
        bad == 0 || !rows.is_empty(),
        "no row of {file_name} can be read, first {first}"
    );
    ensure!(!rows.is_empty(), "{file_name} has no rows");
    Ok(Rows {
        file,
        rows,
        bad,
        first,
    })
}

/// The cause with the name of the column.
fn column(head: &csv::StringRecord, cause: &csv::Error) -> String {
    if let csv::ErrorKind::Deserialize { err, .. } = cause.kind()
        && let Some(name) = err
            .field()
            .and_then(|at| head.get(usize::try_from(at).ok()?))
    {
        return format!("{cause}, in column {name}");
    }
    cause.to_string()
}

impl<T> Rows<T> {
    /// All of them: a bad row is an error.
    fn strict(self) -> Result<Vec<T>> {
        let (file, first) = (self.file.display(), &self.first);
        ensure!(self.bad == 0, "cannot understand {file}, {first}");
        Ok(self.rows)
    }

    /// Those that can be read.
    fn lenient(self, notes: &mut Vec<String>) -> Vec<T> {
        let (file, bad, first) = (self.file.display(), self.bad, &self.first);
        if bad > 0 {
            notes.push(format!("{file}: {bad} rows are left out, first {first}"));
        }
        self.rows
    }
}

pub(super) struct Day {
    /// By time.
    pub(super) faults: Vec<Fault>,
    /// Of the normal minute, then of each fault; without a name where there is none.
    pub(super) windows: Vec<String>,
    pub(super) bigrams: HashMap<String, Vec<Bigram>>,
    pub(super) edges: HashMap<String, Vec<Edge>>,
    pub(super) metrics: Vec<Metric>,
    pub(super) services: Vec<String>,
    /// What was wrong with the files.
    pub(super) notes: Vec<String>,
}

/// The faults by time, which is that of the text where the number disagrees.
fn faults(folder: &Path, notes: &mut Vec<String>) -> Result<Vec<Fault>> {
    let rows = table::<Fault>(folder, "faults.csv", notes)?;
    let file = rows.file.display().to_string();
    let mut faults = rows.strict()?;
    let count = faults.len();
    ensure!(
        count <= FAULTS_MAX,
        "{file} has {count} faults, more than {FAULTS_MAX}"
    );
    let mut cases = HashSet::new();
    for fault in &mut faults {
        let case = fault.case.clone();
        ensure!(cases.insert(case.clone()), "{file} has case {case} twice");
        let Some(text) = &fault.inject_time_utc else {
            continue;
        };
        let Some(told) = unix(text) else {
            bail!("{file}, case {case}: inject_time_utc is no time like 2023-01-29T08:43:04Z");
        };
        let apart = told.abs_diff(fault.inject_unix);
        if apart > 1 {
            notes.push(format!(
                "{file}, case {case}: inject_unix and inject_time_utc are {:.1} h apart; the \
                latter is taken, with lower confidence",
                apart as f64 / 3600.0
            ));
            fault.doubtful = true;
        }
        fault.inject_unix = told;
    }
    faults.sort_by_key(|one| one.inject_unix);
    Ok(faults)
}

/// The window of each minute of each fault, after the normal one.
fn windows(folder: &Path, faults: &mut [Fault], notes: &mut Vec<String>) -> Result<Vec<String>> {
    let rows = table::<Minute>(folder, "minutes.csv", notes)?;
    let file = rows.file.display().to_string();
    let (mut starts, mut names) = (BTreeMap::new(), HashSet::new());
    for one in rows.strict()? {
        let name = one.window;
        ensure!(names.insert(name.clone()), "{file} has window {name} twice");
        if name != NORMAL {
            let start = unix(&one.start_utc_minute).map_or(0, |start| start / 60);
            if let Some(other) = starts.insert(start, name.clone()) {
                bail!("{file}: windows {other} and {name} start in the same minute");
            }
        }
    }
    ensure!(names.contains(NORMAL), "{file} has no window {NORMAL}");
    let mut windows = vec![NORMAL.to_owned()];
    let mut used = BTreeMap::new();
    for fault in faults {
        let minute = fault.inject_unix / 60;
        for minute in minute..minute + WINDOWS as u64 {
            let (case, window) = (&fault.case, starts.get(&minute));
            match window {
                Some(window) => {
                    if let Some(other) = used.insert(minute, case.clone()) {
                        notes.push(format!(
                            "faults.csv: cases {other} and {case} share window {window}: each \
                            is ranked with signs of the other, with lower confidence"
                        ));
                        fault.doubtful = true;
                    }
                }
                None => {
                    let (hour, minute) = (minute / 60 % 24, minute % 60);
                    notes.push(format!(
                        "{file} has no window at {hour:02}:{minute:02} UTC, case {case}: ranked \
                        without its events, with lower confidence"
                    ));
                    fault.doubtful = true;
                }
            }
            windows.push(window.cloned().unwrap_or_default());
        }
    }
    ensure!(
        !used.is_empty(),
        "{file} has no window of any fault of faults.csv"
    );
    let idle = starts
        .iter()
        .filter(|(start, _)| !used.contains_key(*start));
    let idle: Vec<&str> = idle.map(|(_, name)| name.as_str()).collect();
    if !idle.is_empty() {
        let (count, names) = (idle.len(), list(&idle));
        notes.push(format!(
            "faults.csv has no fault for {count} windows of minutes.csv, rows may be missing: {names}"
        ));
    }
    Ok(windows)
}

/// Rows by window.
fn by_window<T>(
    name: &str,
    rows: Vec<T>,
    window: impl Fn(&T) -> &String,
    windows: &[String],
    faults: &mut [Fault],
    notes: &mut Vec<String>,
) -> HashMap<String, Vec<T>> {
    let mut all: HashMap<String, Vec<T>> = HashMap::new();
    for row in rows {
        all.entry(window(&row).clone()).or_default().push(row);
    }
    let mut bare = Vec::new();
    for (at, window) in windows.iter().enumerate() {
        if !window.is_empty() && !all.contains_key(window) {
            bare.push(window.as_str());
            if let Some(fault) = at
                .checked_sub(1)
                .and_then(|at| faults.get_mut(at / WINDOWS))
            {
                fault.doubtful = true;
            }
        }
    }
    if !bare.is_empty() {
        let (count, windows) = (bare.len(), list(&bare));
        notes.push(format!(
            "{name} has no rows of {count} windows, confidence is lower there: {windows}"
        ));
    }
    all
}

/// Notes which services lack metrics, and when.
fn gaps(
    services: &BTreeSet<String>,
    metrics: &[Metric],
    faults: &mut [Fault],
    notes: &mut Vec<String>,
) {
    let mut times: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for one in metrics {
        times.entry(&one.service).or_default().insert(one.unix);
    }
    let blind = services
        .iter()
        .map(String::as_str)
        .filter(|name| !times.contains_key(name));
    let blind: Vec<&str> = blind.collect();
    if !blind.is_empty() {
        let (count, names) = (blind.len(), list(&blind));
        notes.push(format!(
            "metrics.csv has no rows of {count} services: {names}"
        ));
    }
    for fault in faults {
        let since = fault.inject_unix..=fault.inject_unix + AFTER;
        let silent = times
            .iter()
            .filter(|(_, times)| times.range(since.clone()).next().is_none());
        let silent: Vec<&str> = silent.map(|(name, _)| *name).collect();
        if !silent.is_empty() {
            let (case, count, names) = (&fault.case, silent.len(), list(&silent));
            notes.push(format!(
                "metrics.csv has no rows of {count} services in the {AFTER} s after case {case}: \
                {names}"
            ));
        }
        // One that is silent may be the fault itself, most of them are a recording with holes.
        fault.doubtful |= 2 * (blind.len() + silent.len()) > services.len();
    }
}

pub(super) fn read(folder: &Path) -> Result<Day> {
    let mut notes = Vec::new();
    let mut faults = faults(folder, &mut notes)?;
    let windows = windows(folder, &mut faults, &mut notes)?;
    let metrics = table::<Metric>(folder, "metrics.csv", &mut notes)?.lenient(&mut notes);
    let name = "event_bigrams.csv";
    let bigrams = table::<Bigram>(folder, name, &mut notes)?.lenient(&mut notes);
    let mut services: BTreeSet<String> = metrics.iter().map(|one| one.service.clone()).collect();
    services.extend(bigrams.iter().map(|one| one.service.clone()));
    let bigrams = by_window(
        name,
        bigrams,
        |one| &one.window,
        &windows,
        &mut faults,
        &mut notes,
    );
    let name = "trace_edges.csv";
    let edges = table::<Edge>(folder, name, &mut notes)?.lenient(&mut notes);
    services.extend(
        edges
            .iter()
            .flat_map(|one| [one.caller.clone(), one.callee.clone()]),
    );
    let edges = by_window(
        name,
        edges,
        |one| &one.window,
        &windows,
        &mut faults,
        &mut notes,
    );
    for (name, cells) in METRICS.iter().zip(0..) {
        if metrics.iter().all(|one| one.all()[cells].is_none()) {
            notes.push(format!(
                "metrics.csv has no values of {name}, confidence is lower"
            ));
            faults.iter_mut().for_each(|fault| fault.doubtful = true);
        }
    }
    gaps(&services, &metrics, &mut faults, &mut notes);
    for fault in faults.iter().filter(|one| !services.contains(&one.service)) {
        let (case, name) = (&fault.case, &fault.service);
        notes.push(format!(
            "faults.csv, case {case}: {name} has no signals and counts as missed"
        ));
    }
    Ok(Day {
        faults,
        windows,
        bigrams,
        edges,
        metrics,
        services: services.into_iter().collect(),
        notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rca::nezha::View;

    const METRIC: &str = "unix,service,cpu_pct,mem_pct,sys_read,sys_write,net_rx,net_tx,\
        client_p90_s,server_p90_s,workload_ops\n\
        60,a,1,2,3,4,5,6,7,8,9\n60,b,1,2,3,4,5,6,7,,9\n\
        180,a,1,2,3,4,5,6,7,8,9\n180,b,1,2,3,4,5,6,7,8,9\n";
    const FAULTS: &str = "case,inject_time_utc,inject_unix,service\n0,1970-01-01T00:02:00Z,120,a\n";
    const MINUTES: &str = "window,start_utc_minute\nnormal,1970-01-01T00:00Z\n\
        x,1970-01-01T00:02Z\ny,1970-01-01T00:03Z\nz,1970-01-01T00:04Z\n";
    const BIGRAMS: &str = "window,service,event,next_event,count\n\
        normal,a,^,$,5\nx,a,^,$,5\ny,a,^,$,5\nz,a,^,$,5\n";
    /// In a circle.
    const EDGES: &str = "window,caller,callee,calls\n\
        normal,a,b,5\nnormal,b,a,5\nx,a,b,5\ny,a,b,5\nz,a,b,5\n";
    const FILES: [(&str, &str); 5] = [
        ("faults.csv", FAULTS),
        ("minutes.csv", MINUTES),
        ("metrics.csv", METRIC),
        ("event_bigrams.csv", BIGRAMS),
        ("trace_edges.csv", EDGES),
    ];

    /// Reads the files with one of them replaced, or left out; what was noted.
    fn day(name: &str, text: Option<&str>) -> Result<(Day, String)> {
        let folder = tempfile::tempdir()?;
        for (file, usual) in FILES {
            if let Some(text) = if file == name { text } else { Some(usual) } {
                std::fs::write(folder.path().join(file), text)?;
            }
        }
        let day = read(folder.path())?;
        for fault in 0..day.faults.len() {
            let _ = day.diagnose(fault, View::All)?;
        }
        let notes = day.notes.join("\n");
        Ok((day, notes))
    }

    #[test]
    fn what_is_not_a_recording_is_an_error_with_file_and_place() {
        let rows = |head: &str| head.lines().next().unwrap().to_owned() + "\n";
        let cases = [
            ("metrics.csv", String::new(), "has no rows"),
            ("metrics.csv", rows(METRIC), "has no rows"),
            ("event_bigrams.csv", rows(BIGRAMS), "has no rows"),
            ("trace_edges.csv", rows(EDGES), "has no rows"),
            ("metrics.csv", METRIC.replace("unix", "time"), "`unix`"),
            (
                "event_bigrams.csv",
                BIGRAMS.replace("count", "n"),
                "`count`",
            ),
            ("trace_edges.csv", EDGES.replace("callee", "to"), "`callee`"),
            ("faults.csv", FAULTS.replace("case", "number"), "`case`"),
            (
                "faults.csv",
                FAULTS[..FAULTS.len() - 3].to_owned(),
                "line: 2",
            ),
            (
                "faults.csv",
                format!("{FAULTS}1,noon,400,b\n"),
                "inject_time_utc is no time",
            ),
            (
                "faults.csv",
                FAULTS.replace(",a", ","),
                "line 2: service is empty",
            ),
            (
                "faults.csv",
                format!("{FAULTS}0,1970-01-01T00:02:00Z,120,a\n"),
                "case 0 twice",
            ),
            (
                "minutes.csv",
                MINUTES.replace("00:03", "25:03"),
                "line 4: start_utc_minute",
            ),
            (
                "minutes.csv",
                format!("{MINUTES}x,1970-01-01T00:09Z\n"),
                "window x twice",
            ),
            (
                "minutes.csv",
                format!("{MINUTES}v,1970-01-01T00:02Z\n"),
                "windows x and v",
            ),
            (
                "minutes.csv",
                MINUTES.replace("normal", "usual"),
                "no window normal",
            ),
            (
                "minutes.csv",
                MINUTES.replace("-01T", "-02T"),
                "no window of any fault",
            ),
        ];
        for (file, text, wanted) in cases {
            let error = format!("{:#}", day(file, Some(&text)).err().unwrap());
            assert!(
                error.contains(file) && error.contains(wanted),
                "{wanted}: {error}"
            );
        }
        for (file, _) in FILES {
            let error = format!("{:#}", day(file, None).err().unwrap());
            assert!(error.contains(file), "{error}");
        }
    }

    #[test]
    fn what_the_world_does_to_recordings_is_a_warning_and_a_ranking() {
        let (whole, notes) = day("", None).unwrap();
        assert_eq!((notes.as_str(), whole.faults[0].doubtful), ("", false));
        // File, its text, what is noted, whether confidence is lower.
        let huge = METRIC.replace("60,b,1", &format!("60,b,{}", "x".repeat(1 << 20)));
        let cases = [
            (
                "metrics.csv",
                METRIC.replace("60,b,1", "60,b,x"),
                "1 rows are left out",
                false,
            ),
            (
                "metrics.csv",
                METRIC.replace("60,b,1", "60,b,x"),
                "in column cpu_pct",
                false,
            ),
            (
                "metrics.csv",
                METRIC.replace("60,b,1", "60,b,NaN"),
                "line 3: cpu_pct is NaN",
                false,
            ),
            (
                "metrics.csv",
                METRIC.replace("60,b,1", "60,b,-1"),
                "line 3: cpu_pct is -1",
                false,
            ),
            ("metrics.csv", huge, "1 rows are left out", false),
            (
                "metrics.csv",
                METRIC[..METRIC.len() - 9].to_owned(),
                "may be cut",
                false,
            ),
            (
                "metrics.csv",
                METRIC.replace("cpu_pct", "cpu"),
                "has no values of cpu_pct",
                true,
            ),
            (
                "metrics.csv",
                METRIC.replace(",b,", ",c,"),
                "no rows of 1 services: b",
                false,
            ),
            (
                "metrics.csv",
                METRIC.replace("180", "9999"),
                "2 services in the 180 s after case 0: a, b",
                true,
            ),
            (
                "event_bigrams.csv",
                BIGRAMS.replace("y,a,^,$,5", "y,a,^,$,-5"),
                "line: 4",
                true,
            ),
            (
                "event_bigrams.csv",
                BIGRAMS.replace("y,a,^,$,5", "y,a,^,$,4000000000"),
                "line 4: count is 4000000000",
                true,
            ),
            (
                "trace_edges.csv",
                EDGES.replace("x,a,b,5\n", ""),
                "of 1 windows",
                true,
            ),
            (
                "minutes.csv",
                MINUTES.replace("z,1970-01-01T00:04Z\n", ""),
                "at 00:04 UTC, case 0",
                true,
            ),
            (
                "faults.csv",
                FAULTS.replace(",a", ",zed"),
                "case 0: zed has no signals",
                false,
            ),
            (
                "faults.csv",
                FAULTS.replace("120", "28920"),
                "8.0 h apart",
                true,
            ),
            (
                "faults.csv",
                format!("{FAULTS}1,1970-01-01T00:03:00Z,180,b\n"),
                "cases 0 and 1 share window y",
                false,
            ),
            (
                "minutes.csv",
                format!("{MINUTES}v,1970-01-01T00:09Z\n"),
                "faults.csv has no fault for 1 windows of minutes.csv, rows may be missing: v",
                false,
            ),
        ];
        for (file, text, wanted, doubtful) in cases {
            let (day, notes) = day(file, Some(&text)).unwrap();
            let wanted = wanted.replace("120 s", "180 s");
            assert!(
                notes.contains(file) && notes.contains(&wanted),
                "{wanted}: {notes}"
            );
            assert_eq!(day.faults[0].doubtful, doubtful, "{wanted}");
        }
    }

    #[test]
    fn minutes_and_faults_in_any_order_are_read_alike() {
        let shuffled: Vec<&str> = MINUTES.lines().rev().collect();
        let shuffled = format!("window,start_utc_minute\n{}\n", shuffled[..4].join("\n"));
        let (read, notes) = day("minutes.csv", Some(&shuffled)).unwrap();
        assert_eq!(
            (read.windows, notes.as_str()),
            (day("", None).unwrap().0.windows, "")
        );
        let both = "case,inject_time_utc,inject_unix,service\n\
            9,1970-01-01T00:09:00Z,540,b\n0,1970-01-01T00:02:00Z,120,a\n";
        let (read, _) = day("faults.csv", Some(both)).unwrap();
        assert_eq!(
            (read.faults[0].case.as_str(), read.windows[1].as_str()),
            ("0", "x")
        );
    }

    #[test]
    fn times_are_read_as_calendars_have_them() {
        for (text, seconds) in [
            ("1970-01-01T00:00Z", Some(0)),
            ("2023-01-29T08:43:04Z", Some(1_674_981_784)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800)),
            ("2023-01-29", None),
            ("2023-13-29T08:43Z", None),
            ("99999999999999999999-01-29T08:43Z", None),
            ("\u{e9}T\u{e9}Z", None),
        ] {
            assert_eq!(unix(text), seconds, "{text}");
        }
    }
}
