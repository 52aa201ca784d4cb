//! Slots: versioned places from which a service reads its model or its
//! configuration.
//!
//! ```text
//! SLOT/current -> versions/V         the service reads SLOT/current/...
//! SLOT/versions/V/model.onnx, manifest.toml      of a model
//! SLOT/versions/V/FILE                           of a configuration
//! data_dir/slots/SERVICE/KIND/       pristine copies of good versions, marks, lock
//! ```
//!
//! In goes a candidate, a version or a wish to go back; out comes what is in
//! place and where one could go. `V` starts the SHA-256 of the payload, so what
//! stands in the slot can always be compared with its name: services can write
//! there, and faults happen there. What is trusted lies in `data_dir`.
//!
//! Every call blocks on the disk, so the shell makes them on a thread of its own
//! ([`thread`]). Loads no model: what a version computes is the golden inputs'
//! business. Decides nothing: which version when is the loop's.

mod candidate;
mod checker;
mod error;
mod files;
mod kind;
mod pristine;
#[cfg(test)]
mod tests;
pub mod thread;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use homeostat_common::ids::ServiceId;
use homeostat_models::{Manifest, ManifestError};

pub use self::candidate::Candidate;
pub use self::checker::CHECK_TIMEOUT;
pub use self::error::SlotError;
use self::error::failed;
pub use self::kind::{CONFIG_MAX, MODEL_FILE, MODEL_MAX};
use self::kind::{Kind, hex, manifest_at, parsed, version_of};
pub use self::pristine::GOOD_MAX;
use self::pristine::Pristine;
use crate::config;
pub use crate::service::{SlotFound as Found, SlotName as Name, Version};

/// Entries of `versions/` that are looked at; more than this program leaves.
const ENTRIES_MAX: usize = 256;

/// How long one user of a slot waits for another. A large model takes seconds to
/// be copied; whoever waits longer is told so.
const LOCK_MAX: Duration = Duration::from_secs(10);

/// A slot of one service.
#[derive(Debug, Clone)]
pub struct Slot {
    service: ServiceId,
    root: PathBuf,
    own: PathBuf,
    kind: Kind,
}

impl Slot {
    /// The slot of a service, if it has one of that name.
    #[must_use]
    pub fn of(service: &config::Service, name: Name, data_dir: &Path) -> Option<Self> {
        let (root, kind) = match name {
            Name::Model => (service.model.as_ref()?.slot.clone(), Kind::Model),
            Name::Config => {
                let config = service.config.as_ref()?;
                let kind = Kind::Config {
                    file: config.file.clone(),
                    format: config.format,
                    check: config.check.clone(),
                };
                (config.slot.clone(), kind)
            }
        };
        let own = data_dir
            .join("slots")
            .join(service.id.as_str())
            .join(name.to_string());
        Some(Self {
            service: service.id.clone(),
            root,
            own,
            kind,
        })
    }

    /// Which of its service's slots it is.
    #[must_use]
    pub fn name(&self) -> Name {
        match self.kind {
            Kind::Model => Name::Model,
            Kind::Config { .. } => Name::Config,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// What is in place, and what could be. Writes nothing.
    ///
    /// # Errors
    /// [`SlotError::Empty`] when nothing was ever installed; a payload that cannot
    /// be read is an answer, not an error.
    pub fn check(&self) -> Result<Found, SlotError> {
        // Copies that may not be read are not copies that are not there.
        if let Err(error) = fs::read_dir(&self.own)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed("list", &self.own)(error));
        }
        let found = Found {
            present: self.present(),
            named: self.named(),
            good: self.pristine().intact(),
            staged: self
                .mark("staged")
                .filter(|staged| self.real_folder(&self.versions().join(staged.to_string()))),
        };
        if found.good.is_empty() && fs::symlink_metadata(self.current()).is_err() {
            return Err(self.empty());
        }
        Ok(found)
    }

    /// Whether anything is in place.
    #[must_use]
    pub fn installed(&self) -> bool {
        fs::symlink_metadata(self.current()).is_ok()
    }

    /// Verifies a candidate and copies it into the slot, without putting it in
    /// place. What is verified is the copy, so it does not matter what happens
    /// to the candidate's files meanwhile.
    ///
    /// # Errors
    /// Why it is refused; `versions/` is then as it was.
    pub fn stage(&self, candidate: &Candidate) -> Result<Version, SlotError> {
        let _lock = self.lock()?;
        self.stage_locked(candidate)
    }

    fn stage_locked(&self, candidate: &Candidate) -> Result<Version, SlotError> {
        let versions = self.versions();
        files::folder(&versions).map_err(failed("create", &versions))?;
        let fresh = files::beside(&versions.join("candidate"));
        let staged = candidate::copy(&self.kind, candidate, &fresh, self.manifest().ok().as_ref())
            .and_then(|version| {
                self.place(&fresh, version)?;
                self.set_mark("staged", version)?;
                Ok(version)
            });
        if staged.is_err() {
            let _ = files::remove(&fresh);
        }
        let version = staged?;
        self.collect()?;
        Ok(version)
    }

    /// Stages and puts in place, for a service that does not run yet.
    ///
    /// # Errors
    /// As [`Self::stage`] and [`Self::switch`].
    pub fn install(&self, candidate: &Candidate) -> Result<Version, SlotError> {
        let _lock = self.lock()?;
        let version = self.stage_locked(candidate)?;
        self.switch_locked(version)?;
        self.settle_locked()?;
        Ok(version)
    }

    /// Puts a version in place, by one rename; what was there is kept until
    /// [`Self::settle`]. The version is verified again, and mended from its
    /// pristine copy if need be. Doing it again does no harm.
    ///
    /// # Errors
    /// [`SlotError`]; what was in place then still is.
    pub fn switch(&self, to: Version) -> Result<(), SlotError> {
        let _lock = self.lock()?;
        self.switch_locked(to)
    }

    fn switch_locked(&self, to: Version) -> Result<(), SlotError> {
        let folder = self.versions().join(to.to_string());
        let intact = self.real_folder(&folder) && self.kind.intact(&folder, to);
        if intact && self.named() == Some(to) {
            return Ok(());
        }
        let copy = self.pristine().find(to);
        if !intact && copy.is_none() {
            return Err(SlotError::NoCopy {
                version: to,
                path: folder,
            });
        }
        // A mark that is already there was set by an earlier try and is the
        // older state.
        if self.mark("before").is_none()
            && let Some(present) = self.present()
        {
            self.adopt(present)?;
            self.set_mark("before", present)?;
        }
        if let Some(copy) = copy.filter(|_| !intact) {
            self.mend(to, &copy)?;
        }
        self.point(to)?;
        if self.mark("staged") == Some(to) {
            self.clear_mark("staged")?;
        }
        Ok(())
    }

    /// Puts back what [`Self::switch`] replaced, if it replaced anything that
    /// could be read; damaged content too, under its own hash.
    ///
    /// # Errors
    /// [`SlotError`]; then nothing has changed.
    pub fn restore(&self) -> Result<(), SlotError> {
        let _lock = self.lock()?;
        let Some(before) = self.mark("before") else {
            return Ok(());
        };
        let folder = self.versions().join(before.to_string());
        if !self.real_folder(&folder) {
            let copy = self.pristine().find(before).ok_or(SlotError::NoCopy {
                version: before,
                path: folder,
            })?;
            self.mend(before, &copy)?;
        }
        self.point(before)?;
        self.clear_mark("before")
    }

    /// Forgets what was there before, and removes versions that are neither in
    /// place, nor good, nor staged.
    ///
    /// # Errors
    /// [`SlotError`] when something cannot be removed.
    pub fn settle(&self) -> Result<(), SlotError> {
        let _lock = self.lock()?;
        self.settle_locked()
    }

    fn settle_locked(&self) -> Result<(), SlotError> {
        self.clear_mark("before")?;
        self.collect()
    }

    /// What is in place now is good: the service has proven itself with it. A
    /// file that was edited in place gets the name of its own hash. With `only`,
    /// another version than that one is left as it is: it came too late to have
    /// proven anything.
    ///
    /// # Errors
    /// [`SlotError::Manifest`] for a model that is not what its manifest says.
    pub fn keep(&self, only: Option<Version>) -> Result<Version, SlotError> {
        let _lock = self.lock()?;
        let present = self.present().ok_or_else(|| self.empty())?;
        if only.is_some_and(|only| only != present) {
            return Ok(present);
        }
        if self.kind == Kind::Model {
            self.agrees(present)?;
        }
        if self.named() != Some(present) {
            self.adopt(present)?;
            self.point(present)?;
        }
        let from = self.versions().join(present.to_string());
        self.pristine()
            .add(present, &from)
            .map_err(failed("keep", &from))?;
        Ok(present)
    }

    /// The manifest of the model in place: from its pristine copy if there is
    /// one, as a fault cannot have reached that.
    ///
    /// # Errors
    /// [`SlotError::Manifest`].
    pub fn manifest(&self) -> Result<Manifest, SlotError> {
        let named = self.named().and_then(|named| self.pristine().find(named));
        Ok(manifest_at(&named.unwrap_or_else(|| self.current()))?)
    }

    /// The manifest of a version that is in the slot, in place or not: what its
    /// golden vectors are can be asked before it is switched to.
    ///
    /// # Errors
    /// [`SlotError::NoCopy`] unless exactly that version is there.
    pub fn manifest_of(&self, version: Version) -> Result<Manifest, SlotError> {
        let folder = self.versions().join(version.to_string());
        if self.kind.intact(&folder, version) {
            return Ok(manifest_at(&folder)?);
        }
        Err(SlotError::NoCopy {
            version,
            path: folder,
        })
    }

    fn agrees(&self, present: Version) -> Result<(), SlotError> {
        let manifest = manifest_at(&self.current())?;
        if manifest.sha256.starts_with(&present.to_string()) {
            return Ok(());
        }
        Err(ManifestError::Hash {
            path: self.current().join(MODEL_FILE),
            expected: manifest.sha256,
            found: format!("{present}..."),
        }
        .into())
    }

    /// Gives what is in place a folder under its own name, if it has none.
    fn adopt(&self, present: Version) -> Result<(), SlotError> {
        let versions = self.versions();
        let folder = versions.join(present.to_string());
        let payload = self.kind.payload();
        let max = self.kind.max(payload);
        if files::hash(&folder.join(payload), max).is_ok_and(|hash| version_of(&hash) == present) {
            return Ok(());
        }
        let current = self.current();
        let fresh = files::beside(&folder);
        let adopted = || {
            files::folder(&versions)?;
            files::fresh_folder(&fresh)?;
            for name in self.kind.files() {
                let (from, to) = (current.join(name), fresh.join(name));
                // A link, so that keeping what was there takes no room on a full
                // disk; the kernel may refuse one to a file of another user.
                let plain = fs::symlink_metadata(&from).is_ok_and(|found| found.is_file());
                if name == payload && plain && files::link(&from, &to).is_ok() {
                    continue;
                }
                let copied = files::open(&from)
                    .and_then(|mut file| files::copy(&mut file, &to, self.kind.max(name)));
                // A manifest that is gone is part of what was there.
                if name == payload {
                    copied?;
                }
            }
            Ok(())
        };
        adopted().map_err(failed("keep", &current))?;
        self.place(&fresh, present)
    }

    /// Moves a finished folder to its place among the versions. One that is in
    /// use stays and is mended, so that no moment is without a model.
    fn place(&self, fresh: &Path, version: Version) -> Result<(), SlotError> {
        let folder = self.versions().join(version.to_string());
        if !self.real_folder(&folder) {
            files::remove(&folder).map_err(failed("replace", &folder))?;
            return files::rename(fresh, &folder).map_err(failed("write", &folder));
        }
        if !self.kind.intact(&folder, version) {
            self.overwrite(fresh, &folder)?;
        }
        files::remove(fresh).map_err(failed("remove", fresh))
    }

    /// Makes `versions/V` what its pristine copy is.
    fn mend(&self, version: Version, copy: &Path) -> Result<(), SlotError> {
        let folder = self.versions().join(version.to_string());
        let fresh = files::beside(&folder);
        let copied = || {
            files::folder(&self.versions())?;
            files::fresh_folder(&fresh)?;
            for name in self.kind.files() {
                let mut from = files::open(&copy.join(name))?;
                files::copy(&mut from, &fresh.join(name), self.kind.max(name))?;
            }
            Ok(())
        };
        let mended = copied().map_err(failed("mend", &folder)).and_then(|()| {
            if self.kind.intact(&fresh, version) {
                return self.place(&fresh, version);
            }
            Err(SlotError::NoCopy {
                version,
                path: copy.to_owned(),
            })
        });
        if mended.is_err() {
            let _ = files::remove(&fresh);
        }
        mended
    }

    fn overwrite(&self, fresh: &Path, folder: &Path) -> Result<(), SlotError> {
        // The manifest first: the payload is what makes the version.
        for name in self.kind.files().iter().rev() {
            let to = folder.join(name);
            if self.real_folder(&to) {
                files::remove(&to).map_err(failed("replace", &to))?;
            }
            files::rename(&fresh.join(name), &to).map_err(failed("write", &to))?;
        }
        Ok(())
    }

    fn point(&self, to: Version) -> Result<(), SlotError> {
        let current = self.current();
        if self.named() == Some(to) {
            return Ok(());
        }
        files::point(&current, &Path::new("versions").join(to.to_string()))
            .map_err(failed("switch", &current))
    }

    /// Removes versions that nobody needs, and what a kill left half made.
    fn collect(&self) -> Result<(), SlotError> {
        let versions = self.versions();
        let found = match fs::read_dir(&versions) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(failed("list", &versions))?,
        };
        let mut needed = self.pristine().names();
        needed.extend(self.named());
        needed.extend(self.mark("before"));
        needed.extend(self.mark("staged"));
        for entry in found.take(ENTRIES_MAX).flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let unneeded = name
                .parse()
                .is_ok_and(|version: Version| !needed.contains(&version));
            let unfinished = name.starts_with('.') && name.ends_with(".new");
            if unneeded || unfinished {
                files::remove(&entry.path()).map_err(failed("remove", &entry.path()))?;
            }
        }
        Ok(())
    }

    /// The hash of what the service would read now.
    fn present(&self) -> Option<Version> {
        let payload = self.kind.payload();
        files::hash(&self.current().join(payload), self.kind.max(payload))
            .ok()
            .map(|hash| version_of(&hash))
    }

    /// The version that `current` points to.
    fn named(&self) -> Option<Version> {
        let target = fs::read_link(self.current()).ok()?;
        let name = target.strip_prefix("versions").ok()?;
        name.to_str()?.parse().ok()
    }

    fn real_folder(&self, folder: &Path) -> bool {
        fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir())
    }

    fn current(&self) -> PathBuf {
        self.root.join("current")
    }

    fn versions(&self) -> PathBuf {
        self.root.join("versions")
    }

    fn pristine(&self) -> Pristine<'_> {
        Pristine {
            folder: &self.own,
            kind: &self.kind,
        }
    }

    /// A mark is a link to a version's name: it is there or it is not, and can
    /// never be half written.
    fn mark(&self, mark: &str) -> Option<Version> {
        fs::read_link(self.own.join(mark))
            .ok()?
            .to_str()?
            .parse()
            .ok()
    }

    fn set_mark(&self, mark: &str, version: Version) -> Result<(), SlotError> {
        let path = self.own.join(mark);
        files::point(&path, Path::new(&version.to_string())).map_err(failed("write", &path))
    }

    fn clear_mark(&self, mark: &str) -> Result<(), SlotError> {
        let path = self.own.join(mark);
        files::remove(&path).map_err(failed("remove", &path))
    }

    /// Keeps the agent and the command line from changing one slot at once. Lies
    /// where services cannot hold it.
    fn lock(&self) -> Result<File, SlotError> {
        files::folder(&self.own).map_err(failed("create", &self.own))?;
        let lock = File::open(&self.own).map_err(failed("lock", &self.own))?;
        let end = Instant::now() + LOCK_MAX;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(fs::TryLockError::WouldBlock) if Instant::now() >= end => {
                    return Err(SlotError::Busy(self.root.clone()));
                }
                Err(fs::TryLockError::WouldBlock) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(fs::TryLockError::Error(source)) => {
                    return Err(failed("lock", &self.own)(source));
                }
            }
        }
    }

    fn empty(&self) -> SlotError {
        let plain = self.root.join(self.kind.payload());
        SlotError::Empty {
            slot: self.root.clone(),
            service: self.service.clone(),
            name: self.name(),
            file: if plain.is_file() {
                plain.display().to_string()
            } else {
                "FILE".into()
            },
        }
    }
}
