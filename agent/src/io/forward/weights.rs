//! Weights set at run time, so that they outlive the forwarder.
//!
//! A text file in `run_dir`, replaced by rename. Not synced: it is true within one boot, and
//! what a process wrote survives that process. Each line names the configured weight it
//! replaced; when the configuration says another one since, the line is void. A damaged file
//! counts as absent, which leaves the configured weights.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use homeostat_common::ids::{RouteId, ServiceId};

use crate::config::{BACKENDS_MAX, FORWARDS_MAX, WEIGHT_MAX};

const HEADER: &str = "homeostat-weights 1";
/// Most lines: one for each backend there can be.
const LINES_MAX: usize = FORWARDS_MAX * BACKENDS_MAX;
/// Largest file that is read; [`LINES_MAX`] lines have less than 24 KiB.
const FILE_MAX: u64 = 64 * 1024;

/// A weight that is not the configured one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Override {
    pub(super) route: RouteId,
    pub(super) backend: ServiceId,
    pub(super) weight: u16,
    /// The one it replaced.
    pub(super) configured: u16,
}

#[derive(Debug)]
pub(super) struct Weights {
    file: PathBuf,
    saved: Vec<Override>,
}

impl Weights {
    pub(super) fn open(folder: &Path) -> Self {
        let file = folder.join("weights");
        let saved = match read(&file) {
            Ok(text) => parse(&text).unwrap_or_else(|| {
                let file = file.display();
                tracing::warn!(%file, "damaged; the configured weights count");
                Vec::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let file = file.display();
                tracing::warn!(%file, %error, "cannot be read; the configured weights count");
                Vec::new()
            }
        };
        Self { file, saved }
    }

    pub(super) fn saved(&self) -> &[Override] {
        &self.saved
    }

    /// Records `overrides` unless they are recorded already. A failure is logged: the weights
    /// are in force all the same.
    pub(super) fn save(&mut self, overrides: Vec<Override>) {
        if overrides == self.saved {
            return;
        }
        let mut text = format!("{HEADER}\n");
        for it in overrides.iter().take(LINES_MAX) {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "weight {} {} {} {}",
                it.route, it.backend, it.weight, it.configured
            );
        }
        text.push_str("end\n");
        let fresh = self.file.with_extension("new");
        let saved = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &self.file));
        match saved {
            Ok(()) => self.saved = overrides,
            Err(error) => {
                let file = self.file.display();
                tracing::error!(%file, %error, "cannot record the weights");
            }
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn parse(text: &str) -> Option<Vec<Override>> {
    let mut lines = text.strip_suffix("end\n")?.lines();
    (lines.next()? == HEADER).then_some(())?;
    let weight = |word: &str| {
        let weight = word.parse().ok()?;
        (weight <= WEIGHT_MAX).then_some(weight)
    };
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let ["weight", route, backend, now, configured] = words[..] else {
            return None;
        };
        Some(Override {
            route: RouteId::new(route).ok()?,
            backend: ServiceId::new(backend).ok()?,
            weight: weight(now)?,
            configured: weight(configured)?,
        })
    };
    lines.take(LINES_MAX).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(weight: u16) -> Override {
        Override {
            route: RouteId::new("infer").unwrap(),
            backend: ServiceId::new("infer-1").unwrap(),
            weight,
            configured: 100,
        }
    }

    #[test]
    fn what_was_saved_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut weights = Weights::open(folder.path());
        assert_eq!(weights.saved(), []);
        weights.save(vec![set(0), set(7)]);
        assert_eq!(Weights::open(folder.path()).saved(), [set(0), set(7)]);
    }

    #[test]
    fn a_damaged_file_counts_as_absent_wherever_it_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let mut weights = Weights::open(folder.path());
        weights.save(vec![set(0)]);
        let file = folder.path().join("weights");
        let whole = fs::read(&file).unwrap();
        for end in 0..whole.len() {
            fs::write(&file, &whole[..end]).unwrap();
            assert_eq!(Weights::open(folder.path()).saved(), [], "{end}");
        }
        for wrong in [
            "homeostat-weights 2\nend\n",
            "homeostat-weights 1\nweight a b 1001 1\nend\n",
            "homeostat-weights 1\nweight ../a b 1 1\nend\n",
            "\u{0}\u{ffff}",
        ] {
            fs::write(&file, wrong).unwrap();
            assert_eq!(Weights::open(folder.path()).saved(), [], "{wrong}");
        }
    }
}
