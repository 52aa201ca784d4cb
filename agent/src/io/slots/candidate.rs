//! Verify before use: copies a candidate to a folder of its own and checks the
//! copy.
//!
//! In goes where the candidate's files are, out comes its version, or why it is
//! refused. Nothing here touches what is in place.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use homeostat_models::manifest::MANIFEST_FILE;
use homeostat_models::{Manifest, ManifestError, onnx};

use super::error::failed;
use super::{Kind, MODEL_FILE, SlotError, Version, checker, files, hex, parsed, version_of};
use crate::config::Format;

/// Largest model whose tensors are looked at: that takes it into memory twice,
/// and the agent's unit allows 64 MiB for everything.
const LOOK_INTO_MAX: u64 = 8 << 20;

/// Where the files of a candidate are.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Candidate {
    /// The model or the configuration file.
    pub file: PathBuf,
    /// The model's manifest; default `manifest.toml` beside it.
    pub manifest: Option<PathBuf>,
}

/// Copies the candidate to `fresh` and verifies the copy. `present` is the
/// manifest of the model in place, if there is one.
pub(super) fn copy(
    kind: &Kind,
    candidate: &Candidate,
    fresh: &Path,
    present: Option<&Manifest>,
) -> Result<Version, SlotError> {
    files::fresh_folder(fresh).map_err(failed("create", fresh))?;
    // Before the model: most of what can be wrong shows here, without a copy.
    let manifest = match kind {
        Kind::Config { .. } => None,
        Kind::Model => Some(manifest(candidate, fresh, present)?),
    };
    let payload = fresh.join(kind.payload());
    let hash = copy_whole(&candidate.file, &payload, kind.max(kind.payload()))?;
    if let Some(manifest) = manifest {
        if manifest.sha256 != hex(&hash) {
            return Err(ManifestError::Hash {
                path: candidate.file.clone(),
                expected: manifest.sha256,
                found: hex(&hash),
            }
            .into());
        }
        shaped(&payload, &manifest)?;
    }
    if let Kind::Config { format, check, .. } = kind {
        let bytes = files::read(&payload, super::CONFIG_MAX).map_err(failed("read", &payload))?;
        parses(*format, &bytes).map_err(|(format, reason)| SlotError::Format {
            path: candidate.file.clone(),
            format,
            reason,
        })?;
        checker::check(check, &payload).map_err(|outcome| SlotError::Check {
            path: candidate.file.clone(),
            program: check.first().cloned().unwrap_or_default(),
            outcome,
        })?;
    }
    // A checker runs on the copy, and could have written to it.
    let version = version_of(&hash);
    if !kind.intact(fresh, version) {
        return Err(SlotError::Changed(payload));
    }
    Ok(version)
}

fn manifest(
    candidate: &Candidate,
    fresh: &Path,
    present: Option<&Manifest>,
) -> Result<Manifest, SlotError> {
    let path = match &candidate.manifest {
        Some(path) => path.clone(),
        None => candidate.file.with_file_name(MANIFEST_FILE),
    };
    let copy = fresh.join(MANIFEST_FILE);
    copy_whole(&path, &copy, Kind::Model.max(MANIFEST_FILE))?;
    let manifest = parsed(&copy, &path)?;
    if manifest.file != MODEL_FILE {
        return Err(SlotError::FileName {
            path,
            found: manifest.file,
        });
    }
    if let Some(present) = present
        && widths(&manifest) != widths(present)
    {
        return Err(SlotError::Interface {
            candidate: widths(&manifest),
            present: widths(present),
        });
    }
    Ok(manifest)
}

/// Compares the widths that the file itself states with its manifest. What is too
/// large, or not stated, the golden vectors tell.
fn shaped(payload: &Path, manifest: &Manifest) -> Result<(), SlotError> {
    let Some((input, output)) = files::read(payload, LOOK_INTO_MAX)
        .ok()
        .and_then(|bytes| onnx::ports(&bytes))
    else {
        return Ok(());
    };
    let stated = |tensor: &onnx::Tensor| tensor.shape.last().copied().flatten();
    let promised = widths(manifest);
    let found = (
        stated(&input).unwrap_or(promised.0),
        stated(&output).unwrap_or(promised.1),
    );
    if found == promised {
        return Ok(());
    }
    Err(SlotError::Shape {
        file: found,
        manifest: promised,
    })
}

/// Numbers in a row of the inputs and of the outputs.
fn widths(manifest: &Manifest) -> (usize, usize) {
    let sum = |ports: &[homeostat_models::Port]| {
        let each = ports.iter().map(homeostat_models::Port::row_len);
        each.fold(0, usize::saturating_add)
    };
    (sum(&manifest.inputs), sum(&manifest.outputs))
}

fn copy_whole(from: &Path, to: &Path, max: u64) -> Result<files::Hash, SlotError> {
    let read = || failed("read", from);
    let mut file = files::open(from).map_err(read())?;
    let before = file.metadata().map_err(read())?;
    if before.len() > max {
        let text = format!("{} bytes, {max} are allowed", before.len());
        return Err(read()(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            text,
        )));
    }
    let hash = files::copy(&mut file, to, max).map_err(failed("copy", from))?;
    if stamp(&before) != stamp(&changed(&file, from)?) {
        return Err(SlotError::Changed(from.to_owned()));
    }
    Ok(hash)
}

fn changed(file: &File, from: &Path) -> Result<Metadata, SlotError> {
    file.metadata().map_err(failed("read", from))
}

fn stamp(found: &Metadata) -> (u64, i64, i64) {
    (found.len(), found.mtime(), found.mtime_nsec())
}

fn parses(format: Format, bytes: &[u8]) -> Result<(), (&'static str, String)> {
    match format {
        Format::Any => Ok(()),
        Format::Toml => std::str::from_utf8(bytes)
            .map_err(|error| error.to_string())
            .and_then(|text| toml::from_str::<toml::Table>(text).map_err(|error| error.to_string()))
            .map(|_| ())
            .map_err(|reason| ("TOML", reason)),
        Format::Json => serde_json::from_slice::<serde::de::IgnoredAny>(bytes)
            .map(|_| ())
            .map_err(|error| ("JSON", error.to_string())),
    }
}
