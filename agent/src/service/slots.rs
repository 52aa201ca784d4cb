//! What is known about a service's slots: the places from which it reads its
//! model and its configuration.
//!
//! In goes what somebody found in a slot; out come whether that has worked before,
//! and the versions that can be put in its place. No file is read or changed here.

use core::fmt;
use core::str::FromStr;

use homeostat_common::ids::ModelVersion;
use homeostat_common::units::Micros;
use serde::{Deserialize, Serialize};

/// Which of a service's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotName {
    /// `[service.model]`.
    Model,
    /// `[service.config]`.
    Config,
}

impl SlotName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Model, Self::Config];
}

impl FromStr for SlotName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|name| name.to_string() == text)
            .ok_or_else(|| "expected model or config".into())
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Config => "config",
        })
    }
}

/// The start of the SHA-256 of what a slot holds, of either kind.
pub type Version = ModelVersion;

/// What was found in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotFound {
    /// The version that is really in place: the hash of what a service would read
    /// now. `None` when it cannot be read.
    pub present: Option<Version>,
    /// Where `current` points to; another version than `present` when the file
    /// was damaged or edited in place.
    pub named: Option<Version>,
    /// The good versions with an intact pristine copy, newest first.
    pub good: Vec<Version>,
    /// A candidate that passed and waits for its switch.
    pub staged: Option<Version>,
}

/// Whether a slot holds a version that has worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotFile {
    /// Not looked at since the last doubt.
    Unchecked,
    /// Being read; asked for at this time.
    Checking(Micros),
    /// The service has worked with it.
    Good,
    /// Another one, or none at all.
    Other,
    /// Its disk did not answer in time; nothing is known.
    Unanswered,
}

/// What is known about one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotWatch {
    /// Whether it holds a version that has worked.
    pub file: SlotFile,
    /// What was found last.
    pub found: SlotFound,
    /// When what is in place will have shown that it works.
    pub keep_at: Option<Micros>,
    /// What was in place when that began.
    pub candidate: Option<Version>,
}

impl SlotWatch {
    pub(super) fn new() -> Self {
        Self {
            file: SlotFile::Unchecked,
            found: SlotFound::default(),
            keep_at: None,
            candidate: None,
        }
    }

    /// From now on what is in place has to show that it works, until `at`.
    pub fn prove(&mut self, at: Micros) {
        self.keep_at = Some(at);
        self.candidate = None;
    }

    /// Whether what is in place was never seen to work, and is not on trial.
    #[must_use]
    pub fn untried(&self) -> bool {
        self.file == SlotFile::Other && self.found.present.is_some() && self.keep_at.is_none()
    }

    /// Nobody could look: what is there may be anything.
    pub fn unanswered(&mut self) {
        self.file = SlotFile::Unanswered;
        self.found.present = None;
    }

    /// Somebody has looked.
    pub fn checked(&mut self, found: SlotFound) {
        let works = |version: &Version| found.good.contains(version);
        self.file = if found.present.as_ref().is_some_and(works) {
            SlotFile::Good
        } else {
            SlotFile::Other
        };
        if self.keep_at.is_some() && self.candidate.is_none() {
            self.candidate = found.present;
        }
        self.found = found;
    }

    /// Something went wrong that may come from it.
    pub fn doubt(&mut self) {
        if self.file == SlotFile::Good {
            self.file = SlotFile::Unchecked;
        }
    }

    /// The newest version that has worked and is another one.
    #[must_use]
    pub fn back(&self) -> Option<Version> {
        let other = |version: &&Version| Some(**version) != self.found.present;
        self.found.good.iter().find(other).copied()
    }

    /// Every version that can be put in place.
    pub fn at_hand(&self) -> impl Iterator<Item = Version> {
        self.found.good.iter().chain(&self.found.staged).copied()
    }

    /// What is in place, in words; for evidence.
    #[must_use]
    pub fn words(&self, name: SlotName) -> String {
        let back = self.found.good.first();
        let worked = back.map_or_else(
            || "and no version is known to have worked".to_owned(),
            |back| format!("the last that worked is {back}"),
        );
        match (self.file, self.found.present) {
            (SlotFile::Good, Some(present)) => {
                format!("the {name} is {present}, with which it has worked")
            }
            (SlotFile::Unanswered, _) => {
                format!("the slot of its {name} could not be looked at in time")
            }
            (_, Some(present)) if self.found.named == Some(present) => {
                format!("the {name} in its slot is {present}, {worked}")
            }
            (_, Some(present)) => {
                format!("the {name} in its slot was changed in place and is {present}, {worked}")
            }
            (_, None) => format!("the {name} in its slot cannot be read, {worked}"),
        }
    }
}
