//! What there is to know when a plan is judged, as plain data: names are texts,
//! times are seconds, shares and costs are numbers.

use std::collections::{BTreeMap, BTreeSet};

/// The classes of services, the least critical first: name and weight.
pub const CLASSES: [(&str, f64); 3] = [("best-effort", 1.0), ("business", 2.0), ("mission", 3.0)];

/// How far the agent goes by itself, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Autonomy {
    Observe,
    Recommend,
    Ask,
    Act,
}

/// What somebody else may change as well.
pub const CONTESTABLE: [&str; 4] = ["process", "model", "config", "weights"];

/// A service of the node.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub autonomy: Autonomy,
    /// By the name of a primitive, where it is another one.
    pub own_autonomy: BTreeMap<&'static str, Autonomy>,
    /// A person works on it for so many seconds from now.
    pub maintenance: Option<i64>,
    /// Left to somebody else for so many seconds: some of [`CONTESTABLE`].
    pub contested: BTreeMap<&'static str, i64>,
    pub protected: bool,
    /// Place in [`CLASSES`].
    pub class: usize,
    /// The kernel says that it has no process.
    pub dead: bool,
    /// It answers somebody.
    pub answering: bool,
    /// A standby that nobody needs now.
    pub at_rest: bool,
    /// What is known of it is of now.
    pub fresh: bool,
    /// Its metrics have stopped to move.
    pub frozen: bool,
    /// Another plan works on it.
    pub under_repair: bool,
    /// Seconds from now until which each holds; past ones are negative.
    pub held: Option<i64>,
    pub quarantined: Option<i64>,
    pub backing_off: Option<i64>,
    /// How long it may take to come up, in milliseconds.
    pub start_ms: u64,
    /// Versions of which a whole copy is here.
    pub models: BTreeSet<String>,
    pub configs: BTreeSet<String>,
    /// Ranges of addresses that may be kept from its ports.
    pub blockable: Vec<&'static str>,
    /// What its configuration offers: some of [`OFFERS`].
    pub offers: BTreeSet<&'static str>,
    /// Share of such healings that failed, in quarters.
    pub failed_quarters: u8,
}

/// A backend of a route.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backend {
    pub weight: u16,
    pub healthy: bool,
}

/// What a service's configuration can offer.
pub const OFFERS: [&str; 10] = [
    "prune",
    "early",
    "standby",
    "locks",
    "snapshot",
    "flush-cache",
    "reset-pool",
    "degrade",
    "clock",
    "remount",
];

/// A route of the node's forwarder.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Route {
    /// Some are on other nodes.
    pub backends: BTreeMap<String, Backend>,
    /// It may be limited to so many new connections a second, and no fewer.
    pub rate_min: Option<u32>,
    /// Ranges of addresses that it may refuse.
    pub blockable: Vec<&'static str>,
}

/// What a class may spend, in capacity-seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Purse {
    pub beta: f64,
    pub balance: f64,
}

/// What the plan is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Asked {
    /// To start a dead process again.
    Revive,
    /// To heal, with this confidence in hundredths.
    Heal(u8),
    /// To keep what is foreseen from coming, with this confidence in hundredths.
    Foresee(u8),
    /// By a person.
    ByHand,
}

/// A node at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// Of what belongs to no service of the node.
    pub autonomy: Autonomy,
    /// A person has stopped all healing.
    pub stopped: bool,
    /// A person works on the whole node for so many seconds from now.
    pub maintenance: Option<i64>,
    /// The plan that a person has approved, as it is printed.
    pub approved: Option<String>,
    pub services: BTreeMap<String, Service>,
    pub routes: BTreeMap<String, Route>,
    /// Interfaces and webhooks that a plan may name.
    pub uplinks: Vec<&'static str>,
    pub webhooks: Vec<&'static str>,
    pub spawner: bool,
    /// Something recent is known of the routes.
    pub forwarder: bool,
    /// By class.
    pub purses: [Purse; CLASSES.len()],
}

impl World {
    /// A service's share of the node, by criticality.
    #[must_use]
    pub fn share(&self, service: &Service) -> f64 {
        let weight = |service: &Service| CLASSES[service.class].1;
        weight(service) / self.services.values().map(weight).sum::<f64>()
    }
}
