//! What was set at run time, so that it outlives the forwarder: weights, rates and
//! refused addresses.
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
use homeostat_common::net::SourceNet;
use homeostat_common::units::PerSecond;

use super::admission::{Admission, BLOCKED_MAX};
use crate::config::{BACKENDS_MAX, FORWARDS_MAX, WEIGHT_MAX};

const HEADER: &str = "homeostat-weights 1";
/// Most lines: one for each backend there can be, one rate for each route, and
/// all that it may refuse.
const LINES_MAX: usize = FORWARDS_MAX * (BACKENDS_MAX + 1 + BLOCKED_MAX);
/// Largest file that is read; [`LINES_MAX`] lines have less than 120 KiB.
const FILE_MAX: u64 = 128 * 1024;

/// A weight that is not the configured one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Override {
    pub(super) route: RouteId,
    pub(super) backend: ServiceId,
    pub(super) weight: u16,
    /// The one it replaced.
    pub(super) configured: u16,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Saved {
    pub(super) weights: Vec<Override>,
    pub(super) rates: Vec<(RouteId, PerSecond)>,
    pub(super) blocked: Vec<(RouteId, SourceNet)>,
}

impl Saved {
    /// What a route admitted.
    pub(super) fn admission(&self, route: &RouteId) -> Admission {
        let mut admission = Admission::default();
        let rate = self.rates.iter().find(|(id, _)| id == route);
        admission.limit(rate.map(|(_, rate)| *rate));
        for (_, net) in self.blocked.iter().filter(|(id, _)| id == route) {
            // The file holds no more than was admitted into it.
            let _ = admission.block(*net, true);
        }
        admission
    }
}

#[derive(Debug)]
pub(super) struct Weights {
    file: PathBuf,
    saved: Saved,
}

impl Weights {
    pub(super) fn open(folder: &Path) -> Self {
        let file = folder.join("weights");
        let saved = match read(&file) {
            Ok(text) => parse(&text).unwrap_or_else(|| {
                let file = file.display();
                tracing::warn!(%file, "damaged; the configured weights count");
                Saved::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Saved::default(),
            Err(error) => {
                let file = file.display();
                tracing::warn!(%file, %error, "cannot be read; the configured weights count");
                Saved::default()
            }
        };
        Self { file, saved }
    }

    pub(super) fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Records `overrides` unless they are recorded already. A failure is logged: the weights
    /// are in force all the same.
    pub(super) fn save(&mut self, overrides: Saved) {
        if overrides == self.saved {
            return;
        }
        let mut text = format!("{HEADER}\n");
        for it in &overrides.weights {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "weight {} {} {} {}",
                it.route, it.backend, it.weight, it.configured
            );
        }
        for (route, rate) in &overrides.rates {
            let _ = writeln!(text, "rate {route} {rate}");
        }
        for (route, net) in &overrides.blocked {
            let _ = writeln!(text, "block {route} {net}");
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

fn parse(text: &str) -> Option<Saved> {
    let mut lines = text.strip_suffix("end\n")?.lines();
    (lines.next()? == HEADER).then_some(())?;
    let weight = |word: &str| {
        let weight = word.parse().ok()?;
        (weight <= WEIGHT_MAX).then_some(weight)
    };
    let mut saved = Saved::default();
    for line in lines.take(LINES_MAX) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["weight", route, backend, now, configured] => saved.weights.push(Override {
                route: RouteId::new(route).ok()?,
                backend: ServiceId::new(backend).ok()?,
                weight: weight(now)?,
                configured: weight(configured)?,
            }),
            ["rate", route, rate] => {
                saved
                    .rates
                    .push((RouteId::new(route).ok()?, rate.parse().ok()?));
            }
            ["block", route, net] => {
                saved
                    .blocked
                    .push((RouteId::new(route).ok()?, net.parse().ok()?));
            }
            _ => return None,
        }
    }
    Some(saved)
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
        assert_eq!(*weights.saved(), Saved::default());
        let route = RouteId::new("infer").unwrap();
        let saved = Saved {
            weights: vec![set(0), set(7)],
            rates: vec![(route.clone(), PerSecond::new(50).unwrap())],
            blocked: vec![(route.clone(), "fd00::/8".parse().unwrap())],
        };
        weights.save(saved.clone());
        assert_eq!(*Weights::open(folder.path()).saved(), saved);
        let admission = saved.admission(&route);
        assert_eq!(admission.rate(), PerSecond::new(50).ok());
        assert_eq!(admission.blocked().len(), 1);
    }

    #[test]
    fn a_damaged_file_counts_as_absent_wherever_it_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let mut weights = Weights::open(folder.path());
        weights.save(Saved {
            weights: vec![set(0)],
            ..Saved::default()
        });
        let file = folder.path().join("weights");
        let whole = fs::read(&file).unwrap();
        for end in 0..whole.len() {
            fs::write(&file, &whole[..end]).unwrap();
            assert_eq!(
                *Weights::open(folder.path()).saved(),
                Saved::default(),
                "{end}"
            );
        }
        for wrong in [
            "homeostat-weights 2\nend\n",
            "homeostat-weights 1\nweight a b 1001 1\nend\n",
            "homeostat-weights 1\nweight ../a b 1 1\nend\n",
            "homeostat-weights 1\nrate a 0/s\nend\n",
            "homeostat-weights 1\nblock a 10.0.0.1/8\nend\n",
            "\u{0}\u{ffff}",
        ] {
            fs::write(&file, wrong).unwrap();
            assert_eq!(
                *Weights::open(folder.path()).saved(),
                Saved::default(),
                "{wrong}"
            );
        }
    }
}
