//! Why a slot could not be handled, or a candidate is refused.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use homeostat_common::ids::ServiceId;
use homeostat_models::ManifestError;

use super::{Name, Version};

/// Why a slot could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The manifest cannot be read, contradicts itself, or is of another file.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest is of a file that a slot does not hold.
    #[error("{}: file must be \"model.onnx\" in a slot, not {found:?}", path.display())]
    FileName {
        /// The manifest.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The candidate's tensors are not those of the model in place.
    #[error("the candidate takes {} numbers and gives {}, the model in place takes {} and gives {}", .candidate.0, .candidate.1, .present.0, .present.1)]
    Interface {
        /// Inputs and outputs of a row.
        candidate: (usize, usize),
        /// Those of the present model.
        present: (usize, usize),
    },
    /// The model's tensors are not those of its manifest.
    #[error("the candidate's file takes {} numbers and gives {}, its manifest says {} and {}", .file.0, .file.1, .manifest.0, .manifest.1)]
    Shape {
        /// Inputs and outputs of a row, as the file states them.
        file: (usize, usize),
        /// As its manifest does.
        manifest: (usize, usize),
    },
    /// It changed while it was copied, so the copy may be torn.
    #[error("{} changed while it was copied", .0.display())]
    Changed(PathBuf),
    /// The configuration is not what its format says.
    #[error("{} is not {format}: {reason}", path.display())]
    Format {
        /// The candidate.
        path: PathBuf,
        /// The format of the slot.
        format: &'static str,
        /// Why not.
        reason: String,
    },
    /// The service's own checker refuses it.
    #[error("{} is refused by {program}: {outcome}", path.display())]
    Check {
        /// The candidate.
        path: PathBuf,
        /// Who refuses it.
        program: String,
        /// How it ended, and what it said.
        outcome: String,
    },
    /// No intact copy of that version is here.
    #[error("no intact copy of version {version} is here ({})", path.display())]
    NoCopy {
        /// The version.
        version: Version,
        /// Where it was looked for first.
        path: PathBuf,
    },
    /// Nothing was ever installed.
    #[error(
        "nothing is installed in {}: run homeostat-agent slot install {service} {name} {file}",
        slot.display()
    )]
    Empty {
        /// The slot.
        slot: PathBuf,
        /// Its service.
        service: ServiceId,
        /// Which of its slots.
        name: Name,
        /// What could be installed.
        file: String,
    },
    /// A running service is not given another version behind the loop's back.
    #[error(
        "{} holds a version, and an agent runs: use homeostat-agent slot stage {service} {name}",
        slot.display()
    )]
    Installed {
        /// The slot.
        slot: PathBuf,
        /// Its service.
        service: ServiceId,
        /// Which of its slots.
        name: Name,
    },
    /// Another process changes the slot.
    #[error("{} is being changed by someone else, for more than {:?}", .0.display(), BUSY)]
    Busy(PathBuf),
}

const BUSY: Duration = super::LOCK_MAX;

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SlotError {
    let path = path.to_owned();
    move |source| SlotError::Io { what, path, source }
}
