//! The tables of PetShop: three header rows over columns, and a matrix of calls.
//!
//! What cannot be read is left empty and told in a note with its file, how often, and where
//! first; only a file without any use is an error.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::recording;

/// Columns by service and metric.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: usize,
    pub(super) columns: HashMap<(String, String), Vec<f32>>,
}

#[derive(Debug)]
pub(super) struct Topology {
    pub(super) names: Vec<String>,
    pub(super) calls: Vec<Vec<usize>>,
}

/// The metrics that a diagnosis uses.
const METRICS: [&str; 3] = ["latency", "availability", "requests"];

/// Names that a note lists.
const NAMES_MAX: usize = 4;

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

/// A cell: nothing if it is empty; what is no finite number is counted.
fn cell(record: &csv::StringRecord, at: usize, unreadable: &mut Tally) -> Option<f32> {
    let text = record.get(at)?.trim();
    if text.is_empty() {
        return None;
    }
    let value = text.parse().ok().filter(|value: &f32| value.is_finite());
    if value.is_none() {
        unreadable.add(record, at);
    }
    value
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
    let [services, metrics, statistics, _, body @ ..] = records.as_slice() else {
        anyhow::bail!("{} lacks its three header rows", file.display());
    };
    let (mut unreadable, mut short) = (Tally::default(), Tally::default());
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
            cells.push(cell(record, *at, &mut unreadable).unwrap_or(f32::NAN));
        }
    }
    for (at, cells) in used.into_iter().zip(cells) {
        let head = |row: &csv::StringRecord| row.get(at).unwrap_or_default().to_owned();
        columns.insert((head(services), head(metrics)), cells);
    }
    ensure!(
        !columns.is_empty(),
        "{} has no column of averages or sums",
        file.display()
    );
    unreadable.note(file, "cells that are no numbers are taken for empty", notes);
    short.note(file, "rows end before the header does", notes);
    for metric in METRICS {
        if !columns.keys().any(|(_, of)| of == metric) {
            notes.push(format!("{} has no column of {metric}", file.display()));
        }
    }
    let rows = body.len();
    Ok(Table { rows, columns })
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
    ensure!(!names.is_empty(), "{} names no component", file.display());
    let (mut unreadable, mut unknown) = (Tally::default(), Tally::default());
    let mut calls = vec![Vec::new(); names.len()];
    for record in lines.records() {
        let record = record.with_context(|| format!("{} is no matrix", file.display()))?;
        let caller = record.get(0).unwrap_or_default();
        let Some(caller) = names.iter().position(|name| name == caller) else {
            unknown.add(&record, 0);
            continue;
        };
        let called = |callee: &usize| cell(&record, callee + 1, &mut unreadable) == Some(1.0);
        calls[caller] = (0..names.len()).filter(called).collect();
    }
    unreadable.note(
        file,
        "cells that are no numbers are taken for no call",
        notes,
    );
    unknown.note(file, "rows of unknown callers are left out", notes);
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
            let names = only[..only.len().min(NAMES_MAX)].join(", ");
            let more = if only.len() > NAMES_MAX { ", ..." } else { "" };
            let count = only.len();
            notes.push(format!(
                "{scenario}: {count} components {what}: {names}{more}"
            ));
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
        let words = "cells that are no numbers are taken for empty, first in line 5, column 4";
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
