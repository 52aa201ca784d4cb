//! What a slot holds: which files make a version, how large they may be, and
//! whether a folder is exactly one version.

use std::io;
use std::path::Path;

use homeostat_common::ids::ModelVersion;
use homeostat_models::manifest::{MANIFEST_BYTES_MAX, MANIFEST_FILE};
use homeostat_models::{Manifest, ManifestError};

use super::files;
use crate::config;
use crate::service::Version;

/// Largest model: four copies of it are hashed when a slot is looked at.
pub const MODEL_MAX: u64 = 4 << 30;

/// Largest configuration file of a service.
pub const CONFIG_MAX: u64 = 1 << 20;

/// The model's name within a version.
pub const MODEL_FILE: &str = "model.onnx";

/// What a slot holds, and what that must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Config {
        file: String,
        format: config::Format,
        check: Vec<String>,
    },
}

impl Kind {
    /// The file whose hash is the version.
    pub(super) fn payload(&self) -> &str {
        match self {
            Self::Model => MODEL_FILE,
            Self::Config { file, .. } => file,
        }
    }

    pub(super) fn files(&self) -> Vec<&str> {
        match self {
            Self::Model => vec![MODEL_FILE, MANIFEST_FILE],
            Self::Config { file, .. } => vec![file],
        }
    }

    pub(super) fn max(&self, file: &str) -> u64 {
        match self {
            Self::Model if file == MANIFEST_FILE => MANIFEST_BYTES_MAX,
            Self::Model => MODEL_MAX,
            Self::Config { .. } => CONFIG_MAX,
        }
    }

    /// Whether the folder holds exactly that version, with a manifest that
    /// agrees.
    pub(super) fn intact(&self, folder: &Path, version: Version) -> bool {
        let Ok(hash) = files::hash(&folder.join(self.payload()), self.max(self.payload())) else {
            return false;
        };
        version_of(&hash) == version
            && match self {
                Self::Config { .. } => true,
                Self::Model => {
                    manifest_at(folder).is_ok_and(|manifest| manifest.sha256 == hex(&hash))
                }
            }
    }
}

pub(super) fn manifest_at(folder: &Path) -> Result<Manifest, ManifestError> {
    let path = folder.join(MANIFEST_FILE);
    parsed(&path, &path)
}

/// Reads the manifest at `path`; errors speak of `shown`.
pub(super) fn parsed(path: &Path, shown: &Path) -> Result<Manifest, ManifestError> {
    let read = |source| ManifestError::Read {
        path: shown.to_owned(),
        source,
    };
    let bytes = files::read(path, MANIFEST_BYTES_MAX).map_err(read)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| read(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    Manifest::parse(&text, shown)
}

pub(super) fn version_of(hash: &files::Hash) -> Version {
    let mut start = [0; 8];
    for (to, from) in start.iter_mut().zip(hash) {
        *to = *from;
    }
    ModelVersion(start)
}

pub(super) fn hex(hash: &files::Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
