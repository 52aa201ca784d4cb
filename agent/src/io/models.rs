//! Model files: compares them with their manifest, keeps a verified copy, puts
//! it back.
//!
//! In goes a service's model path and manifest, out comes whether the file is
//! the verified one. Every call blocks on the disk, so the shell makes them on
//! a thread of its own. Loads no model: what a file computes is the golden
//! inputs' business.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use homeostat_common::ids::{ModelVersion, ServiceId};
use homeostat_models::{Manifest, ManifestError};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tracing::warn;

use super::keeper::chain;
use crate::config;
use crate::control::Event;

/// Largest model file that is copied and hashed.
pub const MODEL_MAX: u64 = 4 << 30;

/// Largest manifest that is read.
const MANIFEST_MAX: u64 = 1 << 20;

/// Why a model could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
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
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest's hash is not one.
    #[error("{}: sha256 is not 64 hexadecimal digits", .0.display())]
    Hash(PathBuf),
    /// The copy that should be put back is damaged or missing.
    #[error("the verified copy {} is not there or not intact", .0.display())]
    NoCopy(PathBuf),
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Io { what, path, source }
}

/// One service's model file and the place of its verified copy.
#[derive(Debug, Clone)]
pub struct ModelFile {
    path: PathBuf,
    manifest: PathBuf,
    copies: PathBuf,
}

/// What was found on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The version of the file in place; `None` when it cannot be read.
    pub file: Option<ModelVersion>,
    /// The verified copy that could be put back.
    pub verified: Option<ModelVersion>,
}

impl ModelFile {
    /// The model of one service; copies are kept in `data_dir/models`.
    #[must_use]
    pub fn new(model: &config::Model, data_dir: &Path) -> Self {
        Self {
            path: model.path.clone(),
            manifest: model.manifest.clone(),
            copies: data_dir.join("models"),
        }
    }

    /// The manifest, checked.
    ///
    /// # Errors
    /// [`ModelError`] when it cannot be read or is wrong.
    pub fn manifest(&self) -> Result<Manifest, ModelError> {
        let mut text = String::new();
        File::open(&self.manifest)
            .and_then(|file| file.take(MANIFEST_MAX).read_to_string(&mut text))
            .map_err(io_error("read", &self.manifest))?;
        Ok(Manifest::parse(&text, &self.manifest)?)
    }

    fn expected(&self) -> Result<(String, ModelVersion), ModelError> {
        let hash = self.manifest()?.sha256;
        let version = hash
            .get(..16)
            .and_then(|start| start.parse().ok())
            .ok_or_else(|| ModelError::Hash(self.manifest.clone()))?;
        Ok((hash, version))
    }

    /// Compares the file with its manifest, and keeps a copy of one that is
    /// right.
    ///
    /// # Errors
    /// [`ModelError`] when the manifest is unusable; a file that cannot be read
    /// is an answer, not an error.
    pub fn check(&self) -> Result<Found, ModelError> {
        let (expected, version) = self.expected()?;
        let copy = self.copies.join(format!("{expected}.onnx"));
        let file = sha256(&self.path).ok();
        if file.as_ref() == Some(&expected) && sha256(&copy).ok().as_ref() != Some(&expected) {
            fs::create_dir_all(&self.copies).map_err(io_error("create", &self.copies))?;
            place(&self.path, &copy)?;
        }
        let intact = sha256(&copy).ok().as_ref() == Some(&expected);
        Ok(Found {
            file: file.and_then(|hash| hash.get(..16).and_then(|start| start.parse().ok())),
            verified: intact.then_some(version),
        })
    }

    /// Puts the verified copy in place, atomically; what stood there is kept
    /// until [`Self::settle`]. Doing it again does no harm.
    ///
    /// # Errors
    /// [`ModelError`]; the file in place is then as it was.
    pub fn roll_back(&self, to: ModelVersion) -> Result<(), ModelError> {
        let (expected, version) = self.expected()?;
        let copy = self.copies.join(format!("{expected}.onnx"));
        if version != to || sha256(&copy).ok().as_ref() != Some(&expected) {
            return Err(ModelError::NoCopy(copy));
        }
        let before = self.before();
        // A link, so that there is no moment without a model file. One that is
        // already there was kept by an earlier try and is the older state.
        match fs::hard_link(&self.path, &before) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
                ) => {}
            Err(error) => return Err(io_error("keep", &self.path)(error)),
        }
        place(&copy, &self.path)
    }

    /// Puts back what [`Self::roll_back`] replaced, if it replaced anything.
    ///
    /// # Errors
    /// [`ModelError`] when the file cannot be moved.
    pub fn restore(&self) -> Result<(), ModelError> {
        match fs::rename(self.before(), &self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("put back", &self.path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Forgets what stood there before.
    ///
    /// # Errors
    /// [`ModelError`] when it cannot be removed.
    pub fn settle(&self) -> Result<(), ModelError> {
        let before = self.before();
        match fs::remove_file(&before) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &before)(error))
            }
            _ => Ok(()),
        }
    }

    fn before(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".before");
        name.into()
    }
}

/// Copies a file over another one such that either the old or the whole new
/// content is there, also after a power cut.
fn place(from: &Path, to: &Path) -> Result<(), ModelError> {
    let mut name = to.to_owned().into_os_string();
    name.push(".new");
    let temporary = PathBuf::from(name);
    let copied = (|| {
        let mut target = File::create(&temporary)?;
        let mut source = File::open(from)?.take(MODEL_MAX);
        io::copy(&mut source, &mut target)?;
        target.flush()?;
        target.sync_all()?;
        fs::rename(&temporary, to)?;
        let folder = match to.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()
    })();
    if copied.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    copied.map_err(io_error("write", to))
}

/// The hash of a file, read in pieces.
fn sha256(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut file = file.take(MODEL_MAX);
    let mut hash = Sha256::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => hash.update(chunk.get(..read).unwrap_or_default()),
        }
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// What the models thread is asked.
#[derive(Debug)]
pub enum Order {
    /// Compare the file with its manifest.
    Check(ServiceId, ModelFile),
    /// Put the verified copy in place.
    RollBack(ServiceId, ModelFile, ModelVersion),
    /// Put back what stood there before.
    Restore(ServiceId, ModelFile),
    /// Forget what stood there before.
    Settle(ServiceId, ModelFile),
}

/// Orders on the way; each service has at most a few.
const ORDERS_MAX: usize = 256;

/// Serves model files on a thread of their own: a hanging disk must not stop
/// the loop.
///
/// # Errors
/// When the system gives no thread.
pub fn start(events: mpsc::Sender<Event>) -> io::Result<std::sync::mpsc::SyncSender<Order>> {
    let (orders, queue) = std::sync::mpsc::sync_channel::<Order>(ORDERS_MAX);
    std::thread::Builder::new()
        .name("models".into())
        .spawn(move || {
            for order in queue {
                let event = match order {
                    Order::Check(service, file) => match file.check() {
                        Ok(found) => Event::ModelChecked {
                            service,
                            found: found.file,
                            verified: found.verified,
                        },
                        Err(error) => {
                            warn!("{service}: {}", chain(&error));
                            continue;
                        }
                    },
                    Order::RollBack(service, file, to) => Event::FileDone {
                        service,
                        result: file.roll_back(to).map_err(|error| chain(&error)),
                    },
                    Order::Restore(service, file) => Event::FileDone {
                        service,
                        result: file.restore().map_err(|error| chain(&error)),
                    },
                    Order::Settle(service, file) => {
                        if let Err(error) = file.settle() {
                            warn!("{service}: {}", chain(&error));
                        }
                        continue;
                    }
                };
                if events.blocking_send(event).is_err() {
                    break;
                }
            }
        })?;
    Ok(orders)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shipped model in a folder of its own.
    fn shipped() -> (tempfile::TempDir, ModelFile) {
        let dir = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/vibration");
        for name in ["model.onnx", "manifest.toml"] {
            fs::copy(from.join(name), dir.path().join(name)).unwrap();
        }
        let model = ModelFile::new(
            &config::Model {
                path: dir.path().join("model.onnx"),
                manifest: dir.path().join("manifest.toml"),
            },
            &dir.path().join("data"),
        );
        (dir, model)
    }

    #[test]
    fn a_corrupt_model_is_put_back_and_that_can_be_taken_back() {
        let (_dir, model) = shipped();
        let good = model.check().unwrap();
        assert!(good.verified.is_some());
        assert_eq!(good.file, good.verified);
        fs::write(&model.path, b"garbage").unwrap();
        let bad = model.check().unwrap();
        assert_eq!(bad.verified, good.verified);
        assert_ne!(bad.file, good.file);
        for _ in 0..2 {
            model.roll_back(good.verified.unwrap()).unwrap();
            assert_eq!(model.check().unwrap(), good);
        }
        model.restore().unwrap();
        assert_eq!(fs::read(&model.path).unwrap(), b"garbage");
        model.roll_back(good.verified.unwrap()).unwrap();
        model.settle().unwrap();
        model.restore().unwrap();
        assert_eq!(model.check().unwrap(), good);
    }

    #[test]
    fn a_model_that_was_never_right_has_no_copy_to_go_back_to() {
        let (_dir, model) = shipped();
        fs::remove_file(&model.path).unwrap();
        let found = model.check().unwrap();
        assert_eq!((found.file, found.verified), (None, None));
        let error = model.roll_back(ModelVersion([0; 8])).unwrap_err();
        assert!(
            error.to_string().starts_with("the verified copy"),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_copy_is_not_put_in_place() {
        let (_dir, model) = shipped();
        let good = model.check().unwrap().verified.unwrap();
        for copy in fs::read_dir(&model.copies).unwrap() {
            fs::write(copy.unwrap().path(), b"rot").unwrap();
        }
        fs::write(&model.path, b"garbage").unwrap();
        assert_eq!(model.check().unwrap().verified, None);
        assert!(model.roll_back(good).is_err());
        assert_eq!(fs::read(&model.path).unwrap(), b"garbage");
    }
}
