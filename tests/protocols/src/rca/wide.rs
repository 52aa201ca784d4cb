//! The tables of PetShop: three header rows over columns, and a matrix of calls.
//!
//! What cannot be read is left empty and told in a note with its file, how often, and where
//! first; only a file without any use is an error.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use homeostat_causes::COMPONENTS_MAX;

use super::list;
use crate::recording;

/// Columns by service and metric.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: usize,
    /// Seconds since 1970 of each row, no number where the file has none.
    pub(super) times: Vec<f64>,
    pub(super) columns: HashMap<(String, String), Vec<f32>>,
}

impl Table {
    /// Whether there is no value at all.
    pub(super) fn is_empty(&self) -> bool {
        self.columns.values().flatten().all(|cell| cell.is_nan())
    }

    /// Leaves some of its rows.
    pub(super) fn keep(&mut self, rows: std::ops::Range<usize>) {
        let kept = |cells: usize| rows.start.min(cells)..rows.end.min(cells);
        for cells in self.columns.values_mut() {
            *cells = cells[kept(cells.len())].to_vec();
        }
        self.times = self.times[kept(self.times.len())].to_vec();
        self.rows = self.times.len();
    }
}

#[derive(Debug)]
pub(super) struct Topology {
    pub(super) names: Vec<String>,
    pub(super) calls: Vec<Vec<usize>>,
}

/// The metrics that a diagnosis uses.
const METRICS: [&str; 3] = ["latency", "availability", "requests"];

/// Something that happened many times in a file: how often, and the first line and column.
#[derive(Default)]
struct Tally {
    count: usize,
    first: (u64, usize),
}

impl Tally {
    /// `column` counts from 0.
    fn add(&mut self, record: &csv::StringRecord, column: usize) {
        if self.count == 0 {
            let line = record.position().map_or(0, csv::Position::line);
            self.first = (line, column + 1);
        }
        self.count += 1;
    }

    fn note(&self, file: &Path, what: &str, notes: &mut Vec<String>) {
        let (file, count, (line, column)) = (file.display(), self.count, self.first);
        if count > 0 {
            notes.push(format!(
                "{file}: {count} {what}, first in line {line}, column {column}"
            ));
        }
    }
}

/// Largest value of a cell, beyond all that can be counted in five minutes.
const VALUE_MAX: f32 = 1e12;

/// Most rows of a table: fifty years of the format's five minutes are five times as many.
const ROWS_MAX: usize = 1_000_000;

/// Largest availability, with room for rounding.
const PERCENT_MAX: f32 = 100.01;

/// Seconds since 1970 up to the year 9999.
const TIME_MAX: f64 = 253_402_300_800.0;

/// The first cells of the rows above the numbers.
const HEAD: [&str; 4] = ["microservice", "metric", "statistic", "unix_timestamp"];

/// A cell: nothing if it is empty; what is no finite number, or below 0, is counted.
fn cell(record: &csv::StringRecord, at: usize, unreadable: &mut Tally) -> Option<f32> {
    let text = record.get(at)?.trim();
    if text.is_empty() {
        return None;
    }
    let value = text
        .parse()
        .ok()
        .filter(|value| (0.0..=VALUE_MAX).contains(value));
    if value.is_none() {
        unreadable.add(record, at);
    }
    value
}

/// Notes a file that breaks off.
pub(super) fn whole(file: &Path, text: &str, notes: &mut Vec<String>) {
    if !text.ends_with('\n') {
        let file = file.display();
        notes.push(format!("{file}: its last line does not end, it may be cut"));
    }
}

/// Reads averages and sums.
pub(super) fn table(file: &Path, notes: &mut Vec<String>) -> Result<Table> {
    let text = recording::text(file)?;
    let records: Vec<csv::StringRecord> = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes())
        .records()
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is no CSV", file.display()))?;
    let name = file.display();
    let [services, metrics, statistics, stamp, body @ ..] = records.as_slice() else {
        bail!("{name} lacks its four header rows");
    };
    for (row, wanted) in [services, metrics, statistics, stamp].iter().zip(HEAD) {
        let line = row.position().map_or(0, csv::Position::line);
        ensure!(
            row.get(0) == Some(wanted),
            "{name}, line {line} does not begin with {wanted}"
        );
    }
    ensure!(
        body.len() <= ROWS_MAX,
        "{name} has more than {ROWS_MAX} rows"
    );
    whole(file, &text, notes);
    let (mut unreadable, mut short, mut disorder) =
        (Tally::default(), Tally::default(), Tally::default());
    for record in body.iter().filter(|record| record.len() < services.len()) {
        short.add(record, record.len());
    }
    let mut columns = HashMap::new();
    // Row by row, so that the first cell that cannot be read is the first in the file.
    let used: Vec<usize> = (1..services.len())
        .filter(|at| matches!(statistics.get(*at), Some("Average" | "Sum")))
        .collect();
    let mut cells = vec![Vec::with_capacity(body.len()); used.len()];
    for record in body {
        for (at, cells) in used.iter().zip(&mut cells) {
            let mut value = cell(record, *at, &mut unreadable).unwrap_or(f32::NAN);
            if value > PERCENT_MAX && metrics.get(*at) == Some("availability") {
                unreadable.add(record, *at);
                value = f32::NAN;
            }
            cells.push(value);
        }
    }
    for (at, cells) in used.into_iter().zip(cells) {
        let head = |row: &csv::StringRecord| row.get(at).unwrap_or_default().to_owned();
        let (of, metric) = (head(services), head(metrics));
        let column = format!("{name} has column {} ({of}, {metric})", at + 1);
        ensure!(!of.trim().is_empty(), "{column} of nobody");
        let known = columns.insert((of, metric), cells);
        ensure!(known.is_none(), "{column} a second time");
    }
    ensure!(
        !columns.is_empty(),
        "{name} has no column of averages or sums"
    );
    let mut times = Vec::with_capacity(body.len());
    for record in body {
        let time = record.get(0).and_then(|cell| cell.trim().parse().ok());
        let time = time.filter(|time| (0.0..TIME_MAX).contains(time));
        let last = times.last().copied().unwrap_or(f64::NEG_INFINITY);
        // What is no number is not later either.
        if !time.is_some_and(|time| time > last || last.is_nan()) {
            disorder.add(record, 0);
        }
        times.push(time.unwrap_or(f64::NAN));
    }
    disorder.note(
        file,
        "times are none or not after the one before; the order of rows is taken",
        notes,
    );
    unreadable.note(
        file,
        "cells that are no numbers from 0 on are taken for empty",
        notes,
    );
    short.note(file, "rows end before the header does", notes);
    for metric in METRICS {
        if !columns.keys().any(|(_, of)| of == metric) {
            notes.push(format!("{} has no column of {metric}", file.display()));
        }
    }
    let rows = body.len();
    Ok(Table {
        rows,
        times,
        columns,
    })
}

/// Reads who calls whom.
pub(super) fn topology(file: &Path, notes: &mut Vec<String>) -> Result<Topology> {
    let text = recording::text(file)?;
    let mut lines = csv::ReaderBuilder::new();
    let mut lines = lines.flexible(true).from_reader(text.as_bytes());
    let head = lines
        .headers()
        .with_context(|| format!("{} is no CSV", file.display()))?;
    let names: Vec<String> = head.iter().skip(1).map(str::to_owned).collect();
    let place: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
    let name = file.display();
    ensure!(!names.is_empty(), "{name} names no component");
    ensure!(
        names.len() <= COMPONENTS_MAX,
        "{name} names more than {COMPONENTS_MAX} components"
    );
    ensure!(
        !place.contains_key(""),
        "{name} has a column without a name"
    );
    let twice = names
        .iter()
        .zip(0..)
        .find(|(one, at)| place[one.as_str()] != *at);
    ensure!(
        twice.is_none(),
        "{name} has column {} twice",
        twice.map_or("", |(one, _)| one)
    );
    let (mut unreadable, mut unknown) = (Tally::default(), Tally::default());
    let mut calls = vec![None; names.len()];
    for record in lines.records() {
        let record = record.with_context(|| format!("{name} is no matrix"))?;
        let caller = record.get(0).unwrap_or_default();
        let Some(row) = place.get(caller) else {
            unknown.add(&record, 0);
            continue;
        };
        let (cells, wanted) = (record.len(), names.len() + 1);
        ensure!(
            cells == wanted,
            "{name}: the row of {caller} has {cells} cells, not {wanted}"
        );
        let mut callees = Vec::new();
        for callee in 0..names.len() {
            match cell(&record, callee + 1, &mut unreadable) {
                Some(1.0) => callees.push(callee),
                None | Some(0.0) => {}
                Some(_) => unreadable.add(&record, callee + 1),
            }
        }
        ensure!(
            calls[*row].replace(callees).is_none(),
            "{name} has two rows of {caller}"
        );
    }
    let missing = names
        .iter()
        .zip(&calls)
        .filter(|(_, calls)| calls.is_none());
    let missing: Vec<&str> = missing.map(|(one, _)| one.as_str()).collect();
    let (count, missing) = (missing.len(), list(&missing));
    ensure!(
        count == 0,
        "{name} has columns but no rows of {count} components: {missing}"
    );
    whole(file, &text, notes);
    unreadable.note(
        file,
        "cells that are neither 0 nor 1 are taken for no call",
        notes,
    );
    unknown.note(file, "rows of unknown callers are left out", notes);
    let calls: Vec<Vec<usize>> = calls.into_iter().flatten().collect();
    ensure!(
        calls.iter().any(|callees| !callees.is_empty()),
        "{name} has no call"
    );
    Ok(Topology { names, calls })
}

/// Notes which components only the metrics know, and which only the graph.
pub(super) fn strangers<'a>(
    scenario: &str,
    topology: &Topology,
    tables: impl Iterator<Item = &'a Table>,
    notes: &mut Vec<String>,
) {
    let measured = tables.flat_map(|table| table.columns.keys().map(|(name, _)| name.as_str()));
    let measured: BTreeSet<&str> = measured.collect();
    let known: BTreeSet<&str> = topology.names.iter().map(String::as_str).collect();
    for (these, those, what) in [
        (
            &measured,
            &known,
            "have metrics but no place in the graph, and are left out",
        ),
        (&known, &measured, "are in the graph but have no metrics"),
    ] {
        let only: Vec<&str> = these.difference(those).copied().collect();
        if !only.is_empty() {
            let (count, names) = (only.len(), list(&only));
            notes.push(format!("{scenario}: {count} components {what}: {names}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "microservice,a,a,b\nmetric,latency,requests,latency\n\
        statistic,Average,Sum,Average\nunix_timestamp,,,\n1,0.5,10,0.2\n2,,10,0.3\n";
    const GRAPH: &str = "service,a,b\na,0,1\nb,0,0\n";

    type Read<T> = (Result<T>, Vec<String>);

    /// Writes a file, reads it, and says what was noted, without the path.
    fn read<T>(text: &str, reader: impl Fn(&Path, &mut Vec<String>) -> Result<T>) -> Read<T> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file.csv");
        std::fs::write(&file, text).unwrap();
        let mut notes = Vec::new();
        let read = reader(&file, &mut notes);
        let path = file.display().to_string();
        let notes = notes.iter().map(|one| one.replace(&path, "file.csv"));
        (read, notes.collect())
    }

    fn key(name: &str, metric: &str) -> (String, String) {
        (name.to_owned(), metric.to_owned())
    }

    #[test]
    fn normal_and_empty_cells_are_read() {
        let (read, notes) = read(TABLE, table);
        let read = read.unwrap();
        assert_eq!((read.rows, read.columns.len()), (2, 3));
        let cells = &read.columns[&key("a", "latency")];
        assert!(cells[0] == 0.5 && cells[1].is_nan());
        assert_eq!(notes, ["file.csv has no column of availability"]);
    }

    #[test]
    fn garbage_is_counted_with_its_place() {
        let (table, notes) = read(&TABLE.replace("0.2", "inf").replace("0.3", "0,3x"), table);
        assert!(table.unwrap().columns[&key("b", "latency")][0].is_nan());
        let words =
            "cells that are no numbers from 0 on are taken for empty, first in line 5, column 4";
        assert_eq!(notes[0], format!("file.csv: 1 {words}"));
        let (graph, notes) = read(
            &format!("{}c,1,1\n", GRAPH.replace("a,0,1", "a,?,1")),
            topology,
        );
        assert_eq!(graph.unwrap().calls, [vec![1], vec![]]);
        assert!(
            notes[0].ends_with("no call, first in line 2, column 2"),
            "{notes:?}"
        );
        assert!(notes[1].contains("1 rows of unknown callers"), "{notes:?}");
    }

    #[test]
    fn a_missing_or_useless_file_is_an_error_with_its_name() {
        let missing = Path::new("/nowhere/metrics.csv");
        for error in [
            format!("{:#}", table(missing, &mut Vec::new()).unwrap_err()),
            format!("{:#}", topology(missing, &mut Vec::new()).unwrap_err()),
        ] {
            assert!(error.contains("/nowhere/metrics.csv"), "{error}");
        }
        for text in [
            "",
            "microservice,a\nmetric,latency\n",
            &TABLE.replace("Average", "p50").replace("Sum", "p50"),
        ] {
            let error = format!("{:#}", read(text, table).0.unwrap_err());
            assert!(error.contains("file.csv"), "{error}");
        }
        assert!(read("", topology).0.is_err());
    }

    #[test]
    fn a_file_that_breaks_off_or_has_a_huge_line_is_read_as_far_as_it_goes() {
        let (table_read, notes) = read(&TABLE[..TABLE.len() - 5], table);
        let cells = &table_read.unwrap().columns[&key("b", "latency")];
        assert!(cells[0] == 0.2 && cells[1].is_nan());
        assert_eq!(
            notes[0],
            "file.csv: its last line does not end, it may be cut"
        );
        assert_eq!(
            notes[1],
            "file.csv: 1 rows end before the header does, first in line 6, column 4"
        );
        let huge = "9".repeat(1 << 20);
        let (table_read, notes) = read(&TABLE.replace("0.3", &huge), table);
        assert_eq!(table_read.unwrap().rows, 2);
        assert!(notes[0].contains("1 cells"), "{}", notes[0].len());
    }

    #[test]
    fn components_that_one_side_does_not_know_are_named() {
        let (table, _) = read(&TABLE.replace("a,a,b", "a,a,c"), table);
        let (graph, _) = read(GRAPH, topology);
        let mut notes = Vec::new();
        strangers(
            "day",
            &graph.unwrap(),
            [&table.unwrap()].into_iter(),
            &mut notes,
        );
        assert!(notes[0].ends_with("and are left out: c"), "{notes:?}");
        assert_eq!(
            notes[1],
            "day: 1 components are in the graph but have no metrics: b"
        );
    }
}
