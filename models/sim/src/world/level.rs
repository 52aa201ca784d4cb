//! How well the users are served.
//!
//! In goes the state, out come errors, times, quality and what is refused, over all
//! entries, and one number for health.

use super::state::State;
use super::{Topology, World};

/// What users meet, over all entries, each by its requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Share of what they ask that fails.
    pub err: f64,
    /// 95th percentile of the time to their answer, in milliseconds, of the worst entry.
    pub p95_ms: f64,
    /// Quality of the worst answers on the way.
    pub quality: f64,
    /// Share that a limit refuses.
    pub shed: f64,
    /// Requests per second that they make, retries not counted.
    pub asked: f64,
}

/// From when on users count as served.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Most errors.
    pub err: f64,
    /// Longest 95th percentile, in milliseconds.
    pub p95_ms: f64,
    /// Least quality.
    pub quality: f64,
    /// Most that is refused.
    pub shed: f64,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            err: 0.02,
            p95_ms: 400.0,
            quality: 0.885,
            shed: 0.05,
        }
    }
}

impl Level {
    /// Whether it meets a target.
    #[must_use]
    pub fn meets(&self, target: &Target) -> bool {
        self.err < target.err
            && self.p95_ms < target.p95_ms
            && self.quality > target.quality
            && self.shed < target.shed
    }

    /// One number, at most 1: half for right answers, a quarter each for quick and good
    /// ones, less what is refused.
    #[must_use]
    pub fn health(&self) -> f64 {
        let quick = (400.0 / self.p95_ms.max(1e-9)).min(1.0);
        0.5 * (1.0 - self.err) + 0.25 * quick + 0.25 * self.quality - 0.1 * self.shed
    }
}

impl World {
    /// How well the users are served now.
    #[must_use]
    pub fn level(&self) -> Level {
        level(self.topology(), &self.state)
    }
}

fn level(topology: &Topology, state: &State) -> Level {
    let mut level = Level {
        err: 0.0,
        p95_ms: 0.0,
        quality: 1.0,
        shed: 0.0,
        asked: 0.0,
    };
    let mut came = 0.0;
    for (route, known) in state.routes.iter().zip(&topology.routes) {
        let somebody = known.outside_ms.is_none() && !route.fixed.nobody;
        if known.model || somebody {
            level.quality = level.quality.min(route.quality);
        }
        if known.demand > 0.0 {
            came += route.arrival;
            // Duplicates are asked for by nobody.
            let first = (1.0 + route.retries) * (1.0 + route.burden.extra);
            level.asked += route.arrival / first;
            level.err += route.arrival * route.err;
            level.shed += route.arrival * route.shed;
            level.p95_ms = level.p95_ms.max(route.p95_ms);
        }
    }
    if came > 0.0 {
        level.err /= came;
        level.shed /= came;
    }
    level
}
