//! The primitives that a plan is made of, with what each reads, writes, costs
//! and how it is taken back (PASE 3.1: the recovery primitive library).
//!
//! A primitive is here only when a node can really execute it. Our own matches
//! name every arm, so adding one makes the compiler list all that must know it.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{ModelVersion, ServiceId};
use crate::units::Millis;

/// One typed action on one target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Primitive {
    /// Leaves exactly one fresh process of the service: what still lives gets
    /// TERM, after `grace` KILL, then a new one is started and must answer.
    Restart {
        /// The service.
        service: ServiceId,
        /// Time between TERM and KILL; zero kills at once.
        grace: Millis,
    },
    /// Puts the verified copy of a model back in its place, atomically. What
    /// stood there is kept beside it until the plan has ended.
    RollbackModel {
        /// The service that reads the model.
        service: ServiceId,
        /// The verified copy.
        to: ModelVersion,
    },
    /// Waits until the service answers all its probes rightly.
    Probe {
        /// The service.
        service: ServiceId,
        /// How long at most.
        within: Millis,
    },
    /// Does nothing for a while, so that an effect can settle.
    Wait {
        /// How long.
        span: Millis,
    },
}

/// What can be done about a primitive that may or may not have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reversal {
    /// Doing it again does no harm and completes it.
    Repeatable,
    /// A compensation restores what was there before.
    Compensated,
}

impl Primitive {
    /// The service it touches; `None` when it touches none.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceId> {
        match self {
            Self::Restart { service, .. }
            | Self::RollbackModel { service, .. }
            | Self::Probe { service, .. } => Some(service),
            Self::Wait { .. } => None,
        }
    }

    /// Whether it changes anything outside the agent.
    #[must_use]
    pub fn writes(&self) -> bool {
        match self {
            Self::Restart { .. } | Self::RollbackModel { .. } => true,
            Self::Probe { .. } | Self::Wait { .. } => false,
        }
    }

    /// Whether the service answers nobody while it runs.
    #[must_use]
    pub fn interrupts(&self) -> bool {
        match self {
            Self::Restart { .. } => true,
            Self::RollbackModel { .. } | Self::Probe { .. } | Self::Wait { .. } => false,
        }
    }

    /// How it is taken back, or completed, when it was cut short.
    #[must_use]
    pub fn reversal(&self) -> Reversal {
        match self {
            Self::Restart { .. } | Self::Probe { .. } | Self::Wait { .. } => Reversal::Repeatable,
            Self::RollbackModel { .. } => Reversal::Compensated,
        }
    }

    /// Longest time it may take before it counts as failed, given the time that
    /// its service needs to come up.
    #[must_use]
    pub fn deadline(&self, start_timeout: Millis) -> Millis {
        /// For copying a file and two fsyncs on a slow SD card.
        const FILE: Millis = Millis::secs(10);
        /// For a kill to be carried out by a loaded kernel.
        const KILL: Millis = Millis::secs(2);
        match self {
            Self::Restart { grace, .. } => Millis(
                grace
                    .0
                    .saturating_add(KILL.0)
                    .saturating_add(start_timeout.0),
            ),
            Self::RollbackModel { .. } => FILE,
            Self::Probe { within, .. } => *within,
            Self::Wait { span } => Millis(span.0.saturating_add(1000)),
        }
    }

    /// One line for the person on call.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Restart { .. } => "stop what is left of the service and start it afresh",
            Self::RollbackModel { .. } => "put the verified copy of the model back",
            Self::Probe { .. } => "wait until the service answers rightly",
            Self::Wait { .. } => "wait",
        }
    }
}

impl fmt::Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restart { service, grace } => write!(f, "restart({service}, grace={grace})"),
            Self::RollbackModel { service, to } => {
                write!(f, "rollback-model({service}, to={to})")
            }
            Self::Probe { service, within } => write!(f, "probe({service}, within={within})"),
            Self::Wait { span } => write!(f, "wait({span})"),
        }
    }
}
