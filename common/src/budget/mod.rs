//! What healing may cost: the bound beta of the constrained decision process
//! (self-healing paper 3.1.2), kept by ledgers that no model can overrule.
//!
//! Unit: capacity-seconds. 1 is the whole node out of service for one second;
//! a service's share of it follows from its criticality. The paper gives beta
//! as a share of capacity although it bounds a discounted sum of costs; with
//! discount `gamma` a step of one second the capacity of that sum is
//! `1/(1-gamma)` capacity-seconds, and beta is a share of that.
//!
//! Criticality selects the rule (`policy`), and each class has a [`Ledger`] of
//! its own over the share of the node that its services make up ([`Budget`]): a
//! best-effort service that is healed again and again takes nothing from what
//! is there for a mission-critical one. A plan is charged to the ledger of the
//! most critical service that it changes.
//!
//! Who is to be healed and how is none of its business; it counts.

mod classes;
mod ledger;
mod policy;

use core::fmt;

use serde::{Deserialize, Serialize};

pub use self::classes::{Budget, Reservation, Saved, Shares, Standing};
pub use self::ledger::{Held, Ledger, Overdrawn};
pub use self::policy::{Adaptive, Dynamic, Policy, PolicyError, Signals};

/// Steps of one second over which spent cost fades: `gamma = 1 - 1/600`, so an
/// hour-old restart hardly counts (0.25 %) and one ten minutes old by 37 %.
pub const HORIZON_STEPS: f64 = 600.0;

/// Cost of an action, in capacity-seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Work of the node itself: processors, disk, network.
    pub resource: f64,
    /// Service taken away that was there before.
    pub disruption: f64,
    /// What a failure of the action would take, times its likelihood.
    pub risk: f64,
}

impl Cost {
    /// The sum of the three.
    #[must_use]
    pub fn total(self) -> f64 {
        self.resource + self.disruption + self.risk
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            resource: self.resource + other.resource,
            disruption: self.disruption + other.disruption,
            risk: self.risk + other.risk,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} capacity-seconds (resource {:.2}, disruption {:.2}, risk {:.2})",
            self.total(),
            self.resource,
            self.disruption,
            self.risk
        )
    }
}
