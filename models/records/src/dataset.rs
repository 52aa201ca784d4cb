//! A recording: a folder with three tables and a manifest.
//!
//! The manifest is written last and holds length and checksum of each table, so a
//! recording that was cut short, or changed since, is noticed before anything is learned
//! from it.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::cell::Row;
use crate::error::RecordError;
use crate::rows::{Episode, Seen, Truth};
use crate::table::{Format, TableReader, TableWriter, Written};

/// The file that says what a recording is.
pub const MANIFEST: &str = "recording.json";
/// Longest one: the list of tables is short.
const MANIFEST_MAX: u64 = 1 << 16;

/// What a recording is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// How its tables are written.
    pub format: Format,
    /// The set of its incidents.
    pub split: String,
    /// Its tables.
    pub tables: Vec<Written>,
}

/// Where rows go.
pub trait Sink {
    /// What can go wrong.
    type Error;

    /// Takes a look.
    ///
    /// # Errors
    /// As the sink says.
    fn seen(&mut self, row: &Seen) -> Result<(), Self::Error>;

    /// Takes what was hidden then.
    ///
    /// # Errors
    /// As the sink says.
    fn truth(&mut self, row: &Truth) -> Result<(), Self::Error>;

    /// Takes what an episode came to.
    ///
    /// # Errors
    /// As the sink says.
    fn episode(&mut self, row: &Episode) -> Result<(), Self::Error>;
}

/// Writes a recording.
#[derive(Debug)]
pub struct Recording {
    dir: PathBuf,
    format: Format,
    split: String,
    seen: TableWriter<Seen>,
    truth: TableWriter<Truth>,
    episodes: TableWriter<Episode>,
}

impl Recording {
    /// A new one, in a folder that is empty or not there yet.
    ///
    /// # Errors
    /// [`RecordError`] when it cannot be written there.
    pub fn create(dir: &Path, format: Format, split: &str) -> Result<Self, RecordError> {
        fs::create_dir_all(dir).map_err(RecordError::io("create", dir))?;
        let mut entries = fs::read_dir(dir).map_err(RecordError::io("read", dir))?;
        if entries.next().is_some() {
            return Err(RecordError::NotEmpty(dir.to_owned()));
        }
        Ok(Self {
            dir: dir.to_owned(),
            format,
            split: split.to_owned(),
            seen: TableWriter::create(dir, format, split)?,
            truth: TableWriter::create(dir, format, split)?,
            episodes: TableWriter::create(dir, format, split)?,
        })
    }

    /// Ends it; only now it can be read.
    ///
    /// # Errors
    /// [`RecordError`] when it cannot be written.
    pub fn finish(self) -> Result<Manifest, RecordError> {
        let manifest = Manifest {
            format: self.format,
            split: self.split,
            tables: vec![
                self.seen.finish()?,
                self.truth.finish()?,
                self.episodes.finish()?,
            ],
        };
        let path = self.dir.join(MANIFEST);
        let text = serde_json::to_string_pretty(&manifest)
            .map_err(|why| RecordError::wrong(&path, "manifest", why))?;
        // First under another name, so that it is whole or not there.
        let new = self.dir.join(format!("{MANIFEST}.new"));
        fs::write(&new, text + "\n").map_err(RecordError::io("write", &new))?;
        fs::rename(&new, &path).map_err(RecordError::io("write", &path))?;
        Ok(manifest)
    }
}

impl Sink for Recording {
    type Error = RecordError;

    fn seen(&mut self, row: &Seen) -> Result<(), RecordError> {
        self.seen.add(row)
    }

    fn truth(&mut self, row: &Truth) -> Result<(), RecordError> {
        self.truth.add(row)
    }

    fn episode(&mut self, row: &Episode) -> Result<(), RecordError> {
        self.episodes.add(row)
    }
}

/// A recording that was finished.
#[derive(Debug, Clone)]
pub struct Recorded {
    dir: PathBuf,
    manifest: Manifest,
}

impl Recorded {
    /// By its folder, or by one of its files.
    ///
    /// # Errors
    /// [`RecordError`] when there is none, or its end was never written.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let meta = fs::metadata(path).map_err(RecordError::io("open", path))?;
        let dir = if meta.is_dir() {
            path.to_owned()
        } else {
            match path.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
                _ => PathBuf::from("."),
            }
        };
        let path = dir.join(MANIFEST);
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
                return Err(RecordError::Unfinished(dir));
            }
            Err(why) => return Err(RecordError::io("open", &path)(why)),
        };
        let mut text = String::new();
        file.take(MANIFEST_MAX)
            .read_to_string(&mut text)
            .map_err(RecordError::io("read", &path))?;
        let manifest = serde_json::from_str(&text)
            .map_err(|why| RecordError::wrong(&path, format!("line {}", why.line()), why))?;
        Ok(Self { dir, manifest })
    }

    /// What it is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What healers saw and did: all that a policy may learn from.
    ///
    /// # Errors
    /// [`RecordError`] when the table is not what was written.
    pub fn seen(&self) -> Result<TableReader<Seen>, RecordError> {
        self.table()
    }

    /// What was hidden from them.
    ///
    /// # Errors
    /// [`RecordError`] when the table is not what was written.
    pub fn truth(&self) -> Result<TableReader<Truth>, RecordError> {
        self.table()
    }

    /// What was run, and what it came to.
    ///
    /// # Errors
    /// [`RecordError`] when the table is not what was written.
    pub fn episodes(&self) -> Result<TableReader<Episode>, RecordError> {
        self.table()
    }

    fn table<R: Row>(&self) -> Result<TableReader<R>, RecordError> {
        let format = self.manifest.format;
        let name = format!("{}.{}", R::TABLE, format.extension());
        let written = self.manifest.tables.iter().find(|table| table.file == name);
        let written = written.ok_or_else(|| {
            RecordError::wrong(&self.dir.join(MANIFEST), "tables", format!("no {name}"))
        })?;
        TableReader::open(&self.dir, format, written)
    }
}
