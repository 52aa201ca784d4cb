//! What a slot holds: which files make a version, how large they may be, and
//! whether a folder is exactly one version.

use std::io;
use std::path::Path;

use homeostat_common::ids::ModelVersion;
use homeostat_models::manifest::{MANIFEST_BYTES_MAX, MANIFEST_FILE};
use homeostat_models::{Manifest, ManifestError};

use super::files;
use crate::config;

/// Largest model: four copies of it are hashed when a slot is looked at.
pub const MODEL_MAX: u64 = 4 << 30;

/// Largest configuration file of a service.
pub const CONFIG_MAX: u64 = 1 << 20;

/// The model's name within a version.
pub const MODEL_FILE: &str = "model.onnx";

/// The start of the SHA-256 of a version's payload.
pub type Version = ModelVersion;

/// Which of a service's slots.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// `[service.model]`.
    Model,
    /// `[service.config]`.
    Config,
}

impl Name {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Model, Self::Config];
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|name| name.to_string() == text)
            .ok_or_else(|| "expected model or config".into())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Config => "config",
        })
    }
}

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
