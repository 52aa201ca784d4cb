//! What can go wrong with the disk ([`Error`]) and what was found wrong on it ([`Finding`]).
//!
//! An error is a refused operation, a finding is a fact about data that was there before.
//! Findings never stop the agent: the store has already dealt with them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

/// A refused operation. The variants differ in what the caller can do about them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Free space and try again; the store keeps working.
    #[error("no space left to {op} {}", path.display())]
    Full {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A card that went read-only, or a wrong owner: reading works on.
    #[error("not allowed to {op} {}", path.display())]
    ReadOnly {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Anything else that the system reports, such as EIO.
    #[error("cannot {op} {}", path.display())]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another process holds {}", path.display())]
    Locked { path: PathBuf },
    #[error("payload of {len} bytes, at most {max} fit")]
    TooLarge { len: usize, max: usize },
    /// The configured bound is reached: compact, checkpoint or drop something.
    #[error("the store would grow to {used} bytes, {max} are allowed")]
    Quota { used: u64, max: u64 },
    #[error("record kind {0} is reserved for the store")]
    ReservedKind(u8),
    #[error("the configured sizes do not fit together: {0}")]
    BadLimits(&'static str),
    #[error("sled cannot {op} {}", path.display())]
    Sled {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: sled::Error,
    },
}

impl Error {
    pub(super) fn new(op: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
        let source = source.into();
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::Full { op, path, source }
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Error::ReadOnly { op, path, source }
            }
            _ => Error::Io { op, path, source },
        }
    }

    /// Room on the disk would help.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full { .. })
    }
}

/// A range of sequence numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub first: u64,
    pub last: u64,
}

/// Why a file was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    Empty,
    Header,
    /// Written by a newer agent; its bytes are kept for it.
    Version(u16),
    /// Belongs to another store.
    Stream,
    /// Bytes that were once synced no longer make sense from this offset on.
    Frame {
        offset: u32,
    },
    Unreadable(io::ErrorKind),
    /// The trial open of a key-value store crashed, hung or failed.
    Trial,
}

/// Something that was wrong with the store when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The end of the last write before a crash; nothing that was ever synced.
    TornTail { file: String, bytes: u64 },
    /// The file was renamed; `kept` records before the damage were copied back.
    SetAside {
        file: String,
        to: Option<String>,
        why: Damage,
        kept: u64,
    },
    /// Records that were once written and are gone.
    Lost(Lost),
    /// The file stays as it is, because putting it right failed.
    CannotRepair { file: String, error: String },
    /// Nothing told which stream this store was, so it starts a new one.
    NewStream,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Empty => f.write_str("it is empty"),
            Damage::Header => f.write_str("its header is damaged"),
            Damage::Version(version) => write!(f, "a newer agent wrote it (format {version})"),
            Damage::Stream => f.write_str("it belongs to another store"),
            Damage::Frame { offset } => write!(f, "it is damaged from byte {offset} on"),
            Damage::Unreadable(kind) => write!(f, "it cannot be read: {kind}"),
            Damage::Trial => f.write_str("it does not open"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::TornTail { file, bytes } => {
                write!(
                    f,
                    "{file}: cut {bytes} bytes that a crash left half written"
                )
            }
            Finding::SetAside {
                file,
                to,
                why,
                kept,
            } => match to {
                Some(to) => write!(f, "{file}: {why}; set aside as {to}, {kept} records kept"),
                None => write!(f, "{file}: {why}; removed, {kept} records kept"),
            },
            Finding::Lost(lost) => {
                write!(f, "records {} to {} are gone", lost.first, lost.last)
            }
            Finding::CannotRepair { file, error } => {
                write!(f, "{file}: cannot be put right: {error}")
            }
            Finding::NewStream => f.write_str("a new stream of events begins here"),
        }
    }
}
