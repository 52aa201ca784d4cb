//! How an incident ended.

use core::fmt;

use serde::{Deserialize, Serialize};

/// How an incident ended. Refusals are outcomes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The plan ran and the service answers rightly.
    Healed,
    /// The service answered rightly again before anything was done.
    Recovered,
    /// The plan failed and was taken back.
    Undone,
    /// A person is needed.
    Escalated,
    /// The rules allowed nothing; the alarm stands until it is over.
    Refused,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Healed,
        Self::Recovered,
        Self::Undone,
        Self::Escalated,
        Self::Refused,
    ];
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healed => "healed",
            Self::Recovered => "recovered",
            Self::Undone => "undone",
            Self::Escalated => "escalated",
            Self::Refused => "refused",
        })
    }
}
