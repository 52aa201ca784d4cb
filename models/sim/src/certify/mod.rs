//! How hard an incident is: the least number of steps that end it, by exhaustive search.
//!
//! It has ended when users are served soon after the plan and stay so, root or no root: an
//! incident that one can live with at the cost of a step is not a hard one.
//!
//! In go a topology and an incident; out comes a [`Certificate`]. Every step with every
//! target is tried, then every pair, in forks of one world, with silent failures off; a
//! plan counts if it ends the incident on every stream of chance, not just on one. What is
//! left out up to two steps is what leaves the same state as nothing (bit for bit, of all
//! that can matter later), and, of second steps, what is far from the incident: at a route
//! that neither is what it is at, nor calls or is called by that, nor shares a node with
//! it. From three steps on only steps are added that change what the faults will do, or
//! who carries the load: a least length of three or more is then an upper bound.
//!
//! Nothing runs side by side here; threads are the caller's.

mod fair;
mod kept;
mod search;
mod settle;

use std::sync::Arc;

pub use self::fair::{Unfair, fair};
pub use self::kept::Kept;

use self::search::Search;
use crate::fault::Incident;
use crate::policy::{Moves, Written};
use crate::text::TextError;
use crate::topology::Topology;
use crate::world::Order;

/// How far to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Steps of the longest plan that is looked for, at most [`STEPS_MAX`].
    pub steps: u8,
    /// Streams of chance on which a plan has to work.
    pub streams: u8,
    /// The seed of the first; the others follow.
    pub seed: u64,
    /// Plans of the least length that are shown, and whose order is looked at.
    pub plans: usize,
}

/// Beyond this the search would take hours.
pub const STEPS_MAX: u8 = 4;

impl Default for Depth {
    /// Three steps, three streams.
    fn default() -> Self {
        Self {
            steps: 3,
            streams: 3,
            seed: 1,
            plans: 12,
        }
    }
}

/// How hard an incident is.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Certificate {
    /// The incident.
    pub incident: String,
    /// Where.
    pub topology: String,
    /// Without a healer users notice, on every stream.
    pub was_incident: bool,
    /// Steps of the shortest plan that ends it on every stream; 0 where it ends by itself,
    /// `None` where there is none of up to [`Certificate::searched`] steps.
    pub least: Option<u8>,
    /// The same if a storm of retries that a plan leaves behind were broken for nothing: what
    /// is less than [`Certificate::least`] is long for the sake of the storm alone.
    pub apart: Option<u8>,
    /// Whether fewer steps were looked for without leaving anything out.
    pub exact: bool,
    /// Steps up to which plans were looked for.
    pub searched: u8,
    /// A shortest plan works, and the same steps in another order do not.
    pub order_matters: bool,
    /// Shortest plans, the quickest first; where there is none of up to that many steps, one
    /// of those that the oracle finds on each stream.
    pub plans: Vec<String>,
    /// How many there are; of those that were tried on all streams.
    pub found: usize,
    /// Forks that were run.
    pub forks: u64,
}

impl Certificate {
    /// Tries an incident.
    ///
    /// # Errors
    /// [`TextError`] when it does not fit the topology.
    pub fn of(
        topology: &Arc<Topology>,
        incident: &Incident,
        depth: Depth,
    ) -> Result<Self, TextError> {
        Self::with(topology, incident, depth, None)
    }

    /// The same. Where a plan is known already, the oracle is not asked for one.
    fn with(
        topology: &Arc<Topology>,
        incident: &Incident,
        depth: Depth,
        known: Option<&[Order]>,
    ) -> Result<Self, TextError> {
        let depth = Depth {
            steps: depth.steps.min(STEPS_MAX),
            streams: depth.streams.max(1),
            ..depth
        };
        let moves = Moves::new(topology);
        let mut search = Search::new(topology, incident, &moves, depth)?;
        let mut certificate = Self {
            incident: incident.name.clone(),
            topology: topology.name().to_owned(),
            was_incident: search.was_incident(),
            least: search.ends_by_itself().then_some(0),
            apart: None,
            exact: true,
            searched: 0,
            order_matters: false,
            plans: Vec::new(),
            found: 0,
            forks: 0,
        };
        while certificate.least.is_none() && certificate.searched < depth.steps {
            certificate.searched += 1;
            let plans = search.deeper();
            if plans.is_empty() {
                continue;
            }
            certificate.least = Some(certificate.searched);
            certificate.exact = certificate.searched <= 3;
            certificate.found = plans.len();
            let shown = plans.iter().take(depth.plans);
            certificate.order_matters = shown.clone().any(|plan| search.order_matters(plan));
            certificate.plans = shown.map(|plan| search.text(plan)).collect();
        }
        if certificate.least.is_none()
            && !incident.contain
            && let Some(plan) = known.map_or_else(|| search.witness(), |plan| Some(plan.to_vec()))
        {
            certificate.order_matters = search.order_matters_once(&plan);
            certificate.plans.push(written(&plan));
        }
        certificate.apart = search.apart().or(certificate.least);
        certificate.forks = search.forks();
        Ok(certificate)
    }

    /// There is a plan.
    #[must_use]
    pub fn has_plan(&self) -> bool {
        !self.plans.is_empty()
    }

    /// A plan takes more than two steps, and it is known that none takes fewer.
    #[must_use]
    pub fn hard(&self) -> bool {
        self.was_incident
            && self.searched >= 2
            && self.least.is_none_or(|least| least > 2)
            && self.has_plan()
    }

    /// Its length comes from a storm of retries that its repair leaves behind.
    #[must_use]
    pub fn storms(&self) -> bool {
        self.apart != self.least
    }

    /// As it is kept in a file: name, topology, length, length with storms broken for
    /// nothing, whether order matters, a plan; between tabs.
    #[must_use]
    pub fn line(&self) -> String {
        let order = if self.order_matters { "order" } else { "-" };
        let plan = self.plans.first().map_or("-", String::as_str);
        let (name, topology) = (&self.incident, &self.topology);
        let (length, apart) = (self.length(), self.length_apart());
        format!("{name}\t{topology}\t{length}\t{apart}\t{order}\t{plan}")
    }

    /// As [`Certificate::length`], with storms of retries broken for nothing.
    #[must_use]
    pub fn length_apart(&self) -> String {
        match self.apart {
            Some(apart) if self.storms() => apart.to_string(),
            Some(_) | None => self.length(),
        }
    }

    /// `2`, or `3*` for an upper bound, or `>3`.
    #[must_use]
    pub fn length(&self) -> String {
        match self.least {
            Some(least) if self.exact => least.to_string(),
            Some(least) => format!("{least}*"),
            None => format!(">{}", self.searched),
        }
    }
}

/// A plan in a line.
fn written(plan: &[Order]) -> String {
    let steps: Vec<_> = plan.iter().map(|one| Written(one).to_string()).collect();
    steps.join(" ; ")
}

#[cfg(test)]
mod tests;
