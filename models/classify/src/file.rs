//! A model as bytes: what it is, which version, how long, a checksum, and the parts.
//!
//! In: a [`Classifier`], or bytes from anywhere. Out: bytes, or a model of which every index
//! and number was checked, so that no run can make it fail. It opens no file.

use std::collections::BTreeSet;

use crate::forest::ForestError;
use crate::usual::Groups;
use crate::{CLASSES_MAX, Classifier, EVENTS_MAX, NAME_MAX, RUNS_MAX, TrainError};

/// What a file begins with, with the version of its form: parts are read by their place, so
/// every change of them is another version.
const MAGIC: &[u8; 8] = b"hsclass1";

/// Magic, checksum (little-endian).
const HEAD: usize = MAGIC.len() + 4;

/// Longest model: ten times that of a thousand runs of a hundred events.
pub const FILE_MAX: usize = 64 << 20;

/// Why bytes are no model.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Another kind of file, or of another version.
    #[error("this is no model of failure classes, or of another version than hsclass1")]
    Magic,
    /// Beyond any model.
    #[error("it is longer than {FILE_MAX} bytes")]
    TooLong,
    /// Changed or cut since it was written.
    #[error("its checksum does not match: it was changed, or cut short")]
    Checksum,
    /// Parts that cannot be read.
    #[error("its parts cannot be read")]
    Parts(#[source] postcard::Error),
    /// A forest that cannot be.
    #[error("its forest cannot be used")]
    Forest(#[from] ForestError),
    /// Names or counts that cannot be.
    #[error("its names or counts cannot be used")]
    Names(#[from] TrainError),
    /// Parts that do not go together.
    #[error("its {0} do not fit its events")]
    Unfit(&'static str),
}

impl Classifier {
    /// The model as bytes.
    ///
    /// # Errors
    /// [`FileError::TooLong`]; [`FileError::Parts`] when there is no memory.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FileError> {
        let parts = postcard::to_allocvec(self).map_err(FileError::Parts)?;
        if parts.len() + HEAD > FILE_MAX {
            return Err(FileError::TooLong);
        }
        let mut bytes = Vec::with_capacity(HEAD + parts.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&crc32fast::hash(&parts).to_le_bytes());
        bytes.extend_from_slice(&parts);
        Ok(bytes)
    }

    /// The model that these bytes are. Takes no more memory than some times their length.
    ///
    /// # Errors
    /// [`FileError`] says what is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FileError> {
        if bytes.len() > FILE_MAX {
            return Err(FileError::TooLong);
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or(FileError::Magic)?;
        let (sum, parts) = rest.split_first_chunk::<4>().ok_or(FileError::Checksum)?;
        if crc32fast::hash(parts) != u32::from_le_bytes(*sum) {
            return Err(FileError::Checksum);
        }
        let model: Self = postcard::from_bytes(parts).map_err(FileError::Parts)?;
        model.check()?;
        Ok(model)
    }

    /// The checksum finds accidents; this finds malice.
    fn check(&self) -> Result<(), FileError> {
        let lists = [
            ("events", &self.events, EVENTS_MAX),
            ("classes", &self.classes, CLASSES_MAX),
        ];
        for (what, names, max) in lists {
            let found = names.len();
            if !(1..=max).contains(&found) {
                return Err(TrainError::Count {
                    what,
                    found,
                    min: 1,
                    max,
                }
                .into());
            }
            if let Some(name) = names
                .iter()
                .find(|name| !(1..=NAME_MAX).contains(&name.len()))
            {
                return Err(TrainError::Name(name.clone()).into());
            }
            let different: BTreeSet<&String> = names.iter().collect();
            if !names.is_sorted() || different.len() != found {
                return Err(FileError::Unfit(what));
            }
        }
        if self.counts.len() != self.classes.len() {
            return Err(FileError::Unfit("classes"));
        }
        let events = self.events.len();
        let features = Groups::new(&self.events).features();
        self.forest.check(features, self.classes.len())?;
        if !self.usual.sound(events) {
            return Err(FileError::Unfit("healthy runs"));
        }
        let failed =
            |run: &Vec<f32>| run.len() == events && run.iter().all(|value| value.is_finite());
        if self.failed.len() > RUNS_MAX || !self.failed.iter().all(failed) {
            return Err(FileError::Unfit("failed runs"));
        }
        if !self.scales.sound() {
            return Err(FileError::Unfit("scales"));
        }
        Ok(())
    }
}
