//! Event counts, labels and models of failure classes as files.
//!
//! In: CSV with a header, plain or packed with gzip: a column for each event and a row for
//! each run, and beside it the labels of the same rows in `label_name`. Out: runs and labels,
//! or the first thing that is wrong. All reading is bounded.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use homeostat_classify::file::{self, FileError};
use homeostat_classify::{Classifier, EVENTS_MAX, HEALTHY, RUNS_MAX, Run};

/// Longest table, unpacked: as many runs of as many events as a model takes, with some room.
const TABLE_MAX: u64 = 256 << 20;

/// The column of the labels that is read; others are for people.
const LABEL: &str = "label_name";

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CountsError {
    /// It cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// It cannot be written.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    /// Beyond the bound.
    #[error("{} is longer than {TABLE_MAX} bytes unpacked", .0.display())]
    TooLong(PathBuf),
    /// It is no CSV with rows of equal length.
    #[error("{} is no table", .0.display())]
    Table(PathBuf, #[source] csv::Error),
    /// More than a model takes.
    #[error("{} has more than {max} {what}", file.display())]
    TooMany {
        /// Which.
        file: PathBuf,
        /// Of what.
        what: &'static str,
        /// The most.
        max: usize,
    },
    /// Two columns of one name.
    #[error("{} has two columns {column:?}", file.display())]
    Twice {
        /// Which.
        file: PathBuf,
        /// The name.
        column: String,
    },
    /// A cell that is no count.
    #[error("{}: row {row} of {column:?} is {cell:?}, not a count", file.display())]
    Cell {
        /// Which.
        file: PathBuf,
        /// From 1, without the header.
        row: usize,
        /// The event.
        column: String,
        /// What stands there.
        cell: String,
    },
    /// No labels in it.
    #[error("{} has no column {LABEL}", .0.display())]
    Unlabelled(PathBuf),
    /// It is no model.
    #[error("{} is no model that can be used", .0.display())]
    Model(PathBuf, #[source] FileError),
}

/// The runs of a table of counts.
///
/// # Errors
/// [`CountsError`].
pub fn runs(path: &Path) -> Result<Vec<Run>, CountsError> {
    let (events, rows) = table(path)?;
    let mut different = BTreeSet::new();
    if let Some(column) = events
        .iter()
        .find(|event| !different.insert(event.as_str()))
    {
        return Err(CountsError::Twice {
            file: path.to_owned(),
            column: column.clone(),
        });
    }
    rows.iter()
        .enumerate()
        .map(|(row, cells)| {
            let counts = events.iter().zip(cells.iter()).map(|(event, cell)| {
                let count = cell.trim().parse().map_err(|_| CountsError::Cell {
                    file: path.to_owned(),
                    row: row + 1,
                    column: event.clone(),
                    cell: cell.chars().take(40).collect(),
                })?;
                Ok((event.clone(), count))
            });
            counts.collect()
        })
        .collect()
}

/// The labels of the same rows.
///
/// # Errors
/// [`CountsError`].
pub fn labels(path: &Path) -> Result<Vec<String>, CountsError> {
    let (columns, rows) = table(path)?;
    let at = columns.iter().position(|column| column == LABEL);
    let at = at.ok_or_else(|| CountsError::Unlabelled(path.to_owned()))?;
    let label = |row: csv::StringRecord| row.get(at).unwrap_or_default().to_owned();
    Ok(rows.into_iter().map(label).collect())
}

/// Writes runs with a label and the name of each in the layout that is read, as
/// `fleet_seq.csv` and `fleet_labels.csv`; answers both paths.
///
/// # Errors
/// [`CountsError::Write`].
pub fn write(folder: &Path, all: &[(Run, String, String)]) -> Result<[PathBuf; 2], CountsError> {
    let (counts, labels) = (
        folder.join("fleet_seq.csv"),
        folder.join("fleet_labels.csv"),
    );
    fs::create_dir_all(folder).map_err(|source| CountsError::Write(folder.to_owned(), source))?;
    let events: BTreeSet<&str> = all
        .iter()
        .flat_map(|(run, _, _)| run.keys().map(String::as_str))
        .collect();
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: csv::Error| CountsError::Write(path, std::io::Error::other(error))
    };
    let save = |path: &Path, rows: Vec<Vec<String>>| {
        let mut writer = csv::Writer::from_path(path).map_err(failed(path))?;
        for row in rows {
            writer.write_record(row).map_err(failed(path))?;
        }
        writer
            .flush()
            .map_err(|source| CountsError::Write(path.to_owned(), source))
    };
    let mut rows = vec![events.iter().map(ToString::to_string).collect()];
    rows.extend(all.iter().map(|(run, _, _)| {
        let count = |event: &&str| run.get(*event).copied().unwrap_or(0).to_string();
        events.iter().map(count).collect::<Vec<String>>()
    }));
    save(&counts, rows)?;
    let head = ["row", LABEL, "is_failure", "incident"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(all.iter().enumerate().map(|(row, (_, label, name))| {
        let failed = u8::from(label != HEALTHY).to_string();
        vec![row.to_string(), label.clone(), failed, name.clone()]
    }));
    save(&labels, rows)?;
    Ok([counts, labels])
}

/// A model from a file.
///
/// # Errors
/// [`CountsError`].
pub fn model(path: &Path) -> Result<Classifier, CountsError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(file::FILE_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|source| CountsError::Read(path.to_owned(), source))?;
    let model = Classifier::from_bytes(&bytes);
    model.map_err(|source| CountsError::Model(path.to_owned(), source))
}

/// Writes a model beside its place and moves it there, so that a coordinator that starts
/// meanwhile reads the old one or the new one.
///
/// # Errors
/// [`CountsError`].
pub fn save(model: &Classifier, path: &Path) -> Result<(), CountsError> {
    let bytes = model.to_bytes();
    let bytes = bytes.map_err(|source| CountsError::Model(path.to_owned(), source))?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    fs::write(&name, bytes)
        .and_then(|()| fs::rename(&name, path))
        .map_err(|source| CountsError::Write(path.to_owned(), source))
}

/// Header and rows.
fn table(path: &Path) -> Result<(Vec<String>, Vec<csv::StringRecord>), CountsError> {
    let unread = |source| CountsError::Read(path.to_owned(), source);
    let raw = BufReader::new(File::open(path).map_err(unread)?);
    let text: Box<dyn Read> = if path.extension().is_some_and(|end| end == "gz") {
        Box::new(MultiGzDecoder::new(raw))
    } else {
        Box::new(raw)
    };
    let mut bytes = Vec::new();
    text.take(TABLE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unread)?;
    if bytes.len() as u64 > TABLE_MAX {
        return Err(CountsError::TooLong(path.to_owned()));
    }
    let wrong = |error| CountsError::Table(path.to_owned(), error);
    let many = |what, max| CountsError::TooMany {
        file: path.to_owned(),
        what,
        max,
    };
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    let header = reader.headers().map_err(wrong)?;
    if header.len() > EVENTS_MAX {
        return Err(many("columns", EVENTS_MAX));
    }
    let columns = header.iter().map(str::to_owned).collect();
    let mut rows = Vec::new();
    for row in reader.records() {
        if rows.len() == RUNS_MAX {
            return Err(many("rows", RUNS_MAX));
        }
        rows.push(row.map_err(wrong)?);
    }
    Ok((columns, rows))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::control::ingest::chain;

    #[test]
    fn tables_are_read_packed_or_not_and_come_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let run = |pairs: &[(&str, u32)]| {
            pairs
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect::<Run>()
        };
        let all = [
            (
                run(&[("a_x, \"y\"", 3)]),
                "no_failure".to_owned(),
                "edge-1 1".to_owned(),
            ),
            (run(&[("b", 1)]), "crash".to_owned(), "edge-1 2".to_owned()),
        ];
        let [counts, names] = write(dir.path(), &all).unwrap();
        let read = runs(&counts).unwrap();
        assert_eq!(
            read,
            [
                run(&[("a_x, \"y\"", 3), ("b", 0)]),
                run(&[("a_x, \"y\"", 0), ("b", 1)])
            ]
        );
        assert_eq!(labels(&names).unwrap(), ["no_failure", "crash"]);
        let packed = dir.path().join("c.csv.gz");
        let file = File::create(&packed).unwrap();
        let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gz.write_all(&fs::read(&counts).unwrap()).unwrap();
        gz.finish().unwrap();
        assert_eq!(runs(&packed).unwrap(), read);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.csv");
        let wrong = |text: &[u8]| {
            fs::write(&file, text).unwrap();
            let error = runs(&file).unwrap_err();
            chain(&error).replace(dir.path().to_str().unwrap(), "DIR")
        };
        assert_eq!(
            wrong(b"a,b\n1,x\n"),
            "DIR/t.csv: row 1 of \"b\" is \"x\", not a count"
        );
        assert_eq!(wrong(b"a,a\n1,1\n"), "DIR/t.csv has two columns \"a\"");
        assert!(wrong(b"a,b\n1\n").starts_with("DIR/t.csv is no table: "));
        assert!(wrong(b"a,b\n1,\xff\n").starts_with("DIR/t.csv is no table: "));
        let wide = (0..=EVENTS_MAX)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(",");
        assert_eq!(
            wrong(wide.as_bytes()),
            "DIR/t.csv has more than 2048 columns"
        );
        fs::write(&file, "a\n1\n").unwrap();
        assert!(matches!(labels(&file), Err(CountsError::Unlabelled(_))));
        assert!(matches!(model(&file), Err(CountsError::Model(..))));
        assert!(matches!(model(dir.path()), Err(CountsError::Read(..))));
    }
}
