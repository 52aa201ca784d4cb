//! Which incidents and seeds belong to which set, in one place.
//!
//! In goes an incident; out comes the set it belongs to, by what it says and not by its
//! name, so a copy under another name is still known. The sets are the shipped lists, by
//! file; whatever is in neither is sealed: nothing was ever trained on it or tuned to it.
//! Seeds of the sets do not overlap, so no policy meets the noise of an evaluation while
//! it learns.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use super::Incident;
use super::grammar::{Cause, Coupling};
use super::novelty::pairs;

/// A set of incidents, with seeds of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// To train on, and to tune with.
    Train,
    /// To develop against and to report; never to train on.
    Development,
    /// Of neither.
    Sealed,
}

/// Seeds of one set; more than any run of one asks for.
pub const SEEDS: u64 = 1 << 32;

impl Split {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Train, Self::Development, Self::Sealed];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Development => "development",
            Self::Sealed => "sealed",
        }
    }

    /// The set that an incident belongs to.
    #[must_use]
    pub fn of(incident: &Incident) -> Self {
        let own = substance(incident);
        let among = |set: &[Known]| set.iter().any(|known| known.substance == own);
        if among(held()) {
            Self::Development
        } else if among(trained()) {
            Self::Train
        } else {
            Self::Sealed
        }
    }

    /// Its seed of a number.
    #[must_use]
    pub fn seed(self, number: u64) -> u64 {
        number % SEEDS + SEEDS * self as u64
    }

    /// The set that a seed belongs to; `None` for one that is in none.
    #[must_use]
    pub fn of_seed(seed: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|split| *split as u64 == seed / SEEDS)
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No set of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no set {0:?}; there are train, development, sealed")]
pub struct UnknownSplit(String);

impl FromStr for Split {
    type Err = UnknownSplit;
    fn from_str(text: &str) -> Result<Self, UnknownSplit> {
        let found = Self::ALL.into_iter().find(|split| split.name() == text);
        found.ok_or_else(|| UnknownSplit(text.chars().take(64).collect()))
    }
}

/// What must not be learned from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Leak {
    /// It is one to develop against.
    #[error("{incident:?} is the same as {twin:?} of the development set")]
    Same {
        /// What was to be learned from.
        incident: String,
        /// The one to develop against.
        twin: String,
    },
    /// It has productions together that are only to be met in development.
    #[error("{incident:?} has {pair:?} together, which only {twin:?} of the development set may")]
    Pair {
        /// What was to be learned from.
        incident: String,
        /// The productions.
        pair: String,
        /// The one to develop against.
        twin: String,
    },
}

/// Whether an incident may be learned from: it is none of the development set, and has no
/// two productions together that only incidents of that set have.
///
/// # Errors
/// [`Leak`] when it may not.
pub fn may_learn(incident: &Incident) -> Result<(), Leak> {
    let own = substance(incident);
    if let Some(twin) = held().iter().find(|known| known.substance == own) {
        return Err(Leak::Same {
            incident: incident.name.clone(),
            twin: twin.name.clone(),
        });
    }
    for pair in pairs(incident) {
        let has = |known: &&Known| known.pairs.contains(&pair);
        if trained().iter().any(|known| has(&known)) {
            continue;
        }
        if let Some(twin) = held().iter().find(has) {
            return Err(Leak::Pair {
                incident: incident.name.clone(),
                pair,
                twin: twin.name.clone(),
            });
        }
    }
    Ok(())
}

/// What matters of an incident of a set.
struct Known {
    name: String,
    substance: String,
    pairs: BTreeSet<String>,
}

/// The training set; read once, because hundreds of incidents are asked about.
fn trained() -> &'static [Known] {
    static SET: OnceLock<Vec<Known>> = OnceLock::new();
    SET.get_or_init(|| known(Incident::train()))
}

/// The development set.
fn held() -> &'static [Known] {
    static SET: OnceLock<Vec<Known>> = OnceLock::new();
    SET.get_or_init(|| known(Incident::development()))
}

fn known(files: &[(&str, &str)]) -> Vec<Known> {
    let known = |incident: Incident| Known {
        substance: substance(&incident),
        pairs: pairs(&incident),
        name: incident.name,
    };
    read(files).into_iter().map(known).collect()
}

fn read(files: &[(&str, &str)]) -> Vec<Incident> {
    let read = files
        .iter()
        .map(|(name, text)| Incident::read(&format!("{name}.toml"), text));
    // A test reads every file that is shipped.
    read.filter_map(Result::ok).collect()
}

/// What an incident is, whatever it and its faults are called.
fn substance(incident: &Incident) -> String {
    let mut bare = Incident {
        file: String::new(),
        name: String::new(),
        about: String::new(),
        twin: None,
        ..incident.clone()
    };
    let ids: Vec<String> = bare.faults.iter().map(|fault| fault.id.clone()).collect();
    rename(&mut bare, |id| {
        let place = ids.iter().position(|own| own == id);
        place.map_or_else(|| id.to_owned(), |place| format!("f{place}"))
    });
    bare.to_string()
}

/// Gives faults other names, where they are named and where they are referred to.
fn rename(incident: &mut Incident, name: impl Fn(&str) -> String) {
    for fault in &mut incident.faults {
        fault.id = name(&fault.id);
        if let Cause::Cleared(other) = &mut fault.trigger.cause {
            *other = name(other);
        }
        for coupling in &mut fault.couplings {
            match coupling {
                Coupling::Returns { unless: other, .. }
                | Coupling::Breaks { then: other, .. }
                | Coupling::Hides { behind: other } => *other = name(other),
                Coupling::ReInfects
                | Coupling::MovesLoad { .. }
                | Coupling::Holds { .. }
                | Coupling::Heals { .. } => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_incident_is_in_both_sets_and_each_knows_its_own() {
        let of = |files| read(files).iter().map(substance).collect::<BTreeSet<_>>();
        let (train, held) = (of(Incident::train()), of(Incident::development()));
        assert_eq!(train.len(), Incident::train().len());
        assert_eq!(held.len(), Incident::development().len());
        assert!(train.is_disjoint(&held));
        for incident in read(Incident::train()) {
            assert_eq!(Split::of(&incident), Split::Train, "{}", incident.name);
            assert_eq!(may_learn(&incident), Ok(()));
        }
        for mut incident in read(Incident::development()) {
            // Another name is no other incident.
            incident.name = "renamed".to_owned();
            rename(&mut incident, |id| format!("other-{id}"));
            assert_eq!(Split::of(&incident), Split::Development);
            assert!(may_learn(&incident).is_err());
        }
    }

    #[test]
    fn development_has_combinations_that_are_never_trained_together() {
        let trained: BTreeSet<String> = read(Incident::train()).iter().flat_map(pairs).collect();
        let held = read(Incident::development());
        let new = |incident: &&Incident| pairs(incident).iter().any(|pair| !trained.contains(pair));
        let count = held.iter().filter(new).count();
        assert!(2 * count >= held.len(), "{count} of {}", held.len());
        // Whoever trains on such a combination, wherever it lies, is refused.
        let mut moved = held.iter().find(new).unwrap().clone();
        moved.faults[0].strength = 0.123;
        assert_eq!(Split::of(&moved), Split::Sealed);
        assert!(matches!(may_learn(&moved), Err(Leak::Pair { .. })));
    }

    #[test]
    fn no_seed_is_in_two_sets() {
        for split in Split::ALL {
            assert_eq!(split.name().parse(), Ok(split));
            for number in [0, 1, 999, SEEDS - 1] {
                assert_eq!(Split::of_seed(split.seed(number)), Some(split));
            }
        }
        assert_eq!(Split::Train.seed(7), 7);
        assert_eq!(Split::of_seed(u64::MAX), None);
        assert!("test".parse::<Split>().is_err());
    }
}
