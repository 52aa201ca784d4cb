//! What an episode came to.

use super::Rules;
use crate::world::Level;

/// What one episode came to. Times are in seconds, from the beginning of the incident.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Outcome {
    /// The incident.
    pub incident: String,
    /// Where.
    pub topology: String,
    /// Who healed.
    pub policy: String,
    /// The seed of world and healer.
    pub seed: u64,
    /// When it began, from the start of the episode.
    pub onset: f64,
    /// Without a healer users would have noticed.
    pub was_incident: bool,
    /// They did.
    pub breached: bool,
    /// They are served again, before the cap and to the end.
    pub recovered: bool,
    /// From when on they were; 0 if they never noticed, the cap if it was too late.
    pub seconds: f64,
    /// Roots that are still there: recovered with some left is only mitigated.
    pub roots_left: u32,
    /// Requests per second that failed, times seconds.
    pub lost: f64,
    /// The same without a healer.
    pub lost_twin: f64,
    /// Health below that of the twin, times seconds.
    pub harm: f64,
    /// Health above it, times seconds.
    pub benefit: f64,
    /// What counts against a budget ([`super::Episode::spent`]).
    pub spent: f64,
    /// What healing took from users, in shares of routes times seconds.
    pub disruption: f64,
    /// The nodes' own work, in capacity-seconds.
    pub work: f64,
    /// Orders taken.
    pub orders: u32,
    /// Orders refused, by the world or for want of budget.
    pub refused: u32,
}

impl Outcome {
    /// The root is gone and users are served.
    #[must_use]
    pub fn resolved(&self) -> bool {
        self.recovered && self.roots_left == 0
    }

    /// Users are served although a root is left.
    #[must_use]
    pub fn mitigated(&self) -> bool {
        self.recovered && self.roots_left > 0
    }

    /// It would have been an incident, and nobody noticed.
    #[must_use]
    pub fn prevented(&self) -> bool {
        self.was_incident && !self.breached
    }
}

/// One of two worlds that run side by side.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Side {
    missed_since: Option<f64>,
    last_miss: Option<f64>,
    pub(super) lost: f64,
}

impl Side {
    pub(super) fn note(&mut self, level: &Level, rules: &Rules, now: f64, dt: f64) {
        self.lost += level.asked * level.err * dt;
        if level.meets(&rules.target) {
            self.missed_since = None;
            return;
        }
        let since = *self.missed_since.get_or_insert(now - dt);
        if now - since >= rules.blip_s {
            self.last_miss = Some(now);
        }
    }

    /// Whether users are not served now.
    pub(super) fn missing(&self) -> bool {
        self.missed_since.is_some()
    }

    /// When they last were not, for longer than a blip.
    pub(super) fn last_miss(&self) -> Option<f64> {
        self.last_miss
    }
}
