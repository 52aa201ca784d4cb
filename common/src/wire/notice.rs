//! What people are told of an alarm, and how often.
//!
//! The JSON of a notice is for receivers that others write: a field may come, none goes
//! or changes. When an alarm stands is for whoever raises it.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::body::Severity;
use crate::ids::ServiceId;
use crate::units::Millis;

/// What became of what a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum News {
    /// It began.
    Raised,
    /// It stands, and nobody has acknowledged it.
    Repeated,
    /// Somebody deals with it.
    Acknowledged,
    /// It is over.
    Cleared,
}

/// An alarm for people who do not look: it leaves by every way that reaches
/// them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Notice {
    /// What became of it.
    pub news: News,
    /// The alarm's name.
    pub alarm: String,
    /// Counts how often alarms were raised by whoever tells: the same number is the
    /// same occurrence.
    pub number: u64,
    /// Counts its repetitions.
    pub repeat: u32,
    /// The service it concerns.
    pub service: Option<ServiceId>,
    /// How urgent.
    pub severity: Severity,
    /// What to know, and what to do.
    pub text: String,
    /// Who acknowledged it.
    pub by: Option<String>,
}

/// How long an alarm that was repeated so often waits for its next repetition: twice
/// as long as before, from `least` up to `most`.
///
/// ```
/// # use homeostat_common::wire::notice::pause;
/// # use homeostat_common::units::Millis;
/// let pauses = [0, 1, 2, u32::MAX].map(|repeats| pause(Millis(60), Millis(600), repeats).0);
/// assert_eq!(pauses, [60, 120, 240, 600]);
/// ```
#[must_use]
pub fn pause(least: Millis, most: Millis, repeats: u32) -> Millis {
    let factor = 1u64.checked_shl(repeats.min(40)).unwrap_or(u64::MAX);
    Millis(least.0.saturating_mul(factor).min(most.0))
}
