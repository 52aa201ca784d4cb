//! `[service.data]`: where a service keeps data, how much that may be, and what
//! of it may be deleted.

use std::path::PathBuf;

use homeostat_common::units::{Bytes, Percent};
use toml::de::DeValue;

use super::fields::{Fields, Wanted, flag, list, parsed, size, text};
use super::sections::absolute;

/// Most patterns of one service.
pub const PATTERNS_MAX: usize = 16;

/// The data of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// `path`, required: the folder.
    pub path: PathBuf,
    /// `quota`, required: what it may hold.
    pub quota: Bytes,
    /// `full`, default 95%: from this share of the quota on it counts as full.
    pub full: Percent,
    /// `keep`, default 70%: pruning ends at this share.
    pub keep: Percent,
    /// `prune`, default none: names of files directly in `path`, or in one folder
    /// of it, that may be deleted; `*` stands for any characters.
    pub prune: Vec<Pattern>,
    /// `early`, default false: what may be deleted may be so before the data are full,
    /// when they are about to be.
    pub early: bool,
    /// `locks`, default none: lock files that may be deleted when nobody holds
    /// them; written like `prune`.
    pub locks: Vec<Pattern>,
    /// `snapshot`, default none: files that make up its state; written like
    /// `prune`.
    pub snapshot: Vec<Pattern>,
    /// `remount`, default false: whether its file system may be mounted for
    /// writing again after the kernel made it read-only.
    pub remount: bool,
}

/// A file name, or a folder and a file name, in which `*` stands for any
/// characters but `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The folder below the data folder; `None` for the data folder itself.
    pub folder: Option<String>,
    /// The name.
    pub name: String,
}

impl Pattern {
    fn new(text: &str) -> Result<Self, &'static str> {
        let (folder, name) = match text.split_once('/') {
            Some((folder, name)) => (Some(folder), name),
            None => (None, text),
        };
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('\0');
        if folder.is_some_and(|folder| !plain(folder) || folder.contains(['*', '+'])) {
            return Err(
                "expected NAME or FOLDER/NAME; a folder has no '*' or '+', and no dot in front",
            );
        }
        if !plain(name) || name.contains('/') {
            return Err("expected NAME or FOLDER/NAME, without a dot in front");
        }
        // A pattern that takes everything is how the wrong files are deleted.
        if name.chars().all(|c| c == '*') {
            return Err("expected a name that is not '*' alone");
        }
        Ok(Self {
            folder: folder.map(str::to_owned),
            name: name.to_owned(),
        })
    }

    /// Whether a file name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.name.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
            return false;
        };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.find(part) {
                Some(at) => rest = rest.get(at + part.len()..).unwrap_or(""),
                None => return false,
            }
        }
        true
    }
}

pub(super) fn data(mut at: Fields<'_, '_>) -> Option<Data> {
    if !at.present() {
        return None;
    }
    let path = at.required("path", absolute);
    let quota = at.required("quota", size(Bytes(64 * 1024)..=Bytes(1 << 44)));
    let full = at.or("full", percent(95), share);
    let keep = at.or("keep", percent(70), share);
    let patterns = || list(PATTERNS_MAX, |value| parsed(Pattern::new)(value));
    let prune = at.or("prune", Vec::new(), patterns());
    let early = at.or("early", false, flag);
    let locks = at.or("locks", Vec::new(), patterns());
    let snapshot = at.or("snapshot", Vec::new(), patterns());
    let remount = at.or("remount", false, flag);
    if keep >= full {
        let key = if at.has("keep") { "keep" } else { "full" };
        at.wrong(key, format!("keep ({keep}) must be below full ({full})"));
    }
    at.finish();
    Some(Data {
        path: path?,
        quota: quota?,
        full,
        keep,
        prune,
        early,
        locks,
        snapshot,
        remount,
    })
}

fn percent(number: u8) -> Percent {
    Percent::new(number).unwrap_or_default()
}

fn share(value: &DeValue<'_>) -> Result<Percent, Wanted> {
    text(value)?
        .parse()
        .map_err(|_| "expected a share from \"0%\" to \"100%\"".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_what_it_says_and_never_everything() {
        let matches = |pattern: &str, name: &str| Pattern::new(pattern).unwrap().matches(name);
        assert!(matches("*.old", "a.old"));
        assert!(matches("*.old", ".old"));
        assert!(!matches("*.old", "a.old.gz"));
        assert!(matches("log-*-*.txt", "log-1-2.txt"));
        assert!(!matches("log-*-*.txt", "log-1.txt"));
        assert!(matches("exact", "exact"));
        assert!(!matches("exact", "exactly"));
        assert!(matches("a*", "a"));
        assert!(!matches("ab*b", "ab"));
        assert!(matches("tmp/*.part", "x.part"));
        for wrong in [
            "", "*", "**", "a/b/c", "../x", ".hidden", "/x", "*/x", "a/", "./x",
        ] {
            assert!(Pattern::new(wrong).is_err(), "{wrong}");
        }
    }
}
