//! Pristine copies of the good versions, where services cannot reach them.
//!
//! ```text
//! FOLDER/00000007-7fbcf863705ca4d4/   payload and manifest of one good version
//! ```
//!
//! The number in the name is the order in which versions proved themselves. It
//! is all the state there is, so no list can disagree with the copies, and a
//! version becomes the newest by one rename.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Kind, Version, files};

/// Good versions that are kept: the present one, the one before it, and one to
/// spare should both turn out to be bad.
pub const GOOD_MAX: usize = 3;

/// Entries of the folder that are looked at; more than this program writes.
const ENTRIES_MAX: usize = 64;

pub(super) struct Pristine<'a> {
    pub(super) folder: &'a Path,
    pub(super) kind: &'a Kind,
}

struct Entry {
    number: u64,
    version: Version,
    path: PathBuf,
}

impl Pristine<'_> {
    /// The good versions whose copies are intact, newest first.
    pub(super) fn intact(&self) -> Vec<Version> {
        self.entries()
            .into_iter()
            .filter(|entry| self.kind.intact(&entry.path, entry.version))
            .map(|entry| entry.version)
            .collect()
    }

    /// All versions of which there is a copy, whatever its state.
    pub(super) fn names(&self) -> Vec<Version> {
        self.entries().iter().map(|entry| entry.version).collect()
    }

    /// The intact copy of one version.
    pub(super) fn find(&self, version: Version) -> Option<PathBuf> {
        self.entries()
            .into_iter()
            .find(|entry| entry.version == version && self.kind.intact(&entry.path, version))
            .map(|entry| entry.path)
    }

    /// Makes `version`, whose files are in `from`, the newest good one.
    pub(super) fn add(&self, version: Version, from: &Path) -> io::Result<()> {
        files::folder(self.folder)?;
        let entries = self.entries();
        // The usual case, at each look: nothing has changed.
        if let Some(first) = entries.first()
            && first.version == version
            && self.kind.intact(&first.path, version)
        {
            return Ok(());
        }
        let next = entries.first().map_or(1, |newest| newest.number + 1);
        let newest = self.folder.join(format!("{next:08}-{version}"));
        let known = entries
            .iter()
            .find(|entry| entry.version == version && self.kind.intact(&entry.path, version));
        match known {
            Some(known) => files::rename(&known.path, &newest)?,
            None => {
                let fresh = files::beside(&newest);
                files::fresh_folder(&fresh)?;
                for name in self.kind.files() {
                    let mut file = files::open(&from.join(name))?;
                    files::copy(&mut file, &fresh.join(name), self.kind.max(name))?;
                }
                if !self.kind.intact(&fresh, version) {
                    files::remove(&fresh)?;
                    return Err(io::Error::other("it changed while it was copied"));
                }
                files::rename(&fresh, &newest)?;
            }
        }
        self.prune()
    }

    /// Damaged copies go first, and former ones of a version; then the oldest.
    fn prune(&self) -> io::Result<()> {
        let mut seen: Vec<Version> = Vec::new();
        for entry in self.entries() {
            let keep = seen.len() < GOOD_MAX
                && !seen.contains(&entry.version)
                && self.kind.intact(&entry.path, entry.version);
            if keep {
                seen.push(entry.version);
            } else {
                files::remove(&entry.path)?;
            }
        }
        // What a kill left half made.
        for entry in fs::read_dir(self.folder)?.take(ENTRIES_MAX).flatten() {
            if entry.file_name().to_string_lossy().ends_with(".new") && entry.path().is_dir() {
                files::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Newest first.
    fn entries(&self) -> Vec<Entry> {
        let Ok(found) = fs::read_dir(self.folder) else {
            return Vec::new();
        };
        let mut entries: Vec<Entry> = found
            .take(ENTRIES_MAX)
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (number, version) = name.split_once('-')?;
                Some(Entry {
                    number: number.parse().ok().filter(|number| *number < u64::MAX)?,
                    version: version.parse().ok()?,
                    path: entry.path(),
                })
            })
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.number));
        entries
    }
}
