//! What people order on the node, and what they are told of.

use homeostat_common::gate::Window;
use homeostat_common::ids::{IncidentId, ServiceId};
use homeostat_common::plan::Plan;
use homeostat_common::units::Millis;
use serde::{Deserialize, Serialize};

/// What a window or a silence is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Everything here.
    Node,
    /// One service.
    Service(ServiceId),
    /// One alarm, by its name; of a silence only.
    Alarm(String),
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node => f.write_str("the node"),
            Self::Service(id) => write!(f, "{id}"),
            Self::Alarm(name) => write!(f, "alarm {name}"),
        }
    }
}

/// Which of the two switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// No healing; people are told.
    Maintenance,
    /// Nobody is told; healing goes on.
    Silence,
}

/// An order that a person gives on the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Let the held plan of an incident run.
    Approve {
        /// The incident.
        incident: IncidentId,
        /// Only if it is this plan that is held.
        plan: Option<Plan>,
    },
    /// Do not try this kind of plan in this incident.
    Refuse {
        /// The incident.
        incident: IncidentId,
        /// Why not.
        why: String,
    },
    /// Switch one of the two on.
    Begin {
        /// Which.
        switch: Switch,
        /// For what; a name that is no service is that of an alarm.
        scope: Scope,
        /// How long.
        span: Millis,
        /// Why.
        why: String,
    },
    /// Switch it off before its time.
    End {
        /// Which.
        switch: Switch,
        /// For what.
        scope: Scope,
    },
    /// Somebody deals with an alarm: it is not repeated any more.
    Ack {
        /// Its name.
        alarm: String,
    },
    /// Stop all healing.
    Stop {
        /// Why.
        why: String,
    },
    /// Heal again.
    Resume,
    /// What is switched, stands and waits now, in words.
    Status,
    /// Why a service is as it is: from what is seen of it down to what is behind it.
    Why {
        /// Which.
        service: ServiceId,
    },
}

/// Windows by what they are about.
pub(super) type Windows = std::collections::BTreeMap<Scope, Window>;
