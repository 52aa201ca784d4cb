//! What can be wrong with a recording.

use std::path::{Path, PathBuf};

/// What can be wrong with a recording; each says which file, and where in it.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file or folder that cannot be read or written.
    #[error("cannot {doing} {path}: {why}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        why: std::io::Error,
    },
    /// A folder that holds something already.
    #[error("{0} is not empty; a recording wants a folder of its own")]
    NotEmpty(PathBuf),
    /// A recording whose end was never written.
    #[error("{0} has no {MANIFEST}: the recording was not finished", MANIFEST = crate::dataset::MANIFEST)]
    Unfinished(PathBuf),
    /// A place in a file.
    #[error("{path}, {place}: {why}")]
    Wrong {
        /// Which.
        path: PathBuf,
        /// A line, a row group, a column.
        place: String,
        /// What is wrong there.
        why: String,
    },
    /// Not the bytes that were written.
    #[error(
        "{path} was changed or cut off: {bytes} bytes with checksum {crc:08x}, {expected} were written"
    )]
    Changed {
        /// Which.
        path: PathBuf,
        /// How many there are.
        bytes: u64,
        /// Their checksum.
        crc: u32,
        /// How many there should be, and their checksum.
        expected: String,
    },
}

impl RecordError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |why| Self::Io { doing, path, why }
    }

    // Errors are handed over where they arise.
    #[allow(clippy::needless_pass_by_value)]
    pub(crate) fn wrong(path: &Path, place: impl Into<String>, why: impl ToString) -> Self {
        Self::Wrong {
            path: path.to_owned(),
            place: place.into(),
            why: why.to_string(),
        }
    }
}
