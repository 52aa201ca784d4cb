//! The gate: symbolic rules and the budget. Nothing runs that has not passed
//! [`verify`], and no other function builds a [`VerifiedPlan`].
//!
//! In go a plan, what it is for and the [`Facts`] of the moment, which the
//! caller gathers; out comes the plan with its cost set aside, or a
//! [`Rejection`] that names the rule. The rules themselves are in `rules`, what
//! a plan costs and leads to is in `outlook`.
//!
//! There is no learned model here: the last word is always code that contains
//! none. A world model may later *rank* plans before they come to this gate;
//! it can never let one through.

mod controls;
mod outlook;
mod routes;
mod rules;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

pub use self::controls::{Window, allowed};
pub use self::outlook::{Foreseen, class, foreseen, health, prospect, restart_cost_max, share};
pub use self::rules::{CONFIDENCE_MIN, Rule};

use crate::budget::{Budget, Cost, Reservation};
use crate::ids::{ConfigVersion, InterfaceId, ModelVersion, PlanId, RouteId, ServiceId, WebhookId};
use crate::net::SourceNet;
use crate::plan::Plan;
use crate::primitive::Grant;
use crate::primitive::Resource;
use crate::units::{Micros, Millis, PerSecond, Ratio};

/// How far the agent goes by itself; each rung includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Say what it sees, touch nothing.
    #[default]
    Observe,
    /// Say which plan it would run, checked against every rule, and why.
    Recommend,
    /// Hold that plan until a person approves or refuses it.
    Ask,
    /// Heal.
    Act,
}

/// How much depends on a service; weighs its share of the node's capacity, and
/// selects the rule of the budget that its healing is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criticality {
    /// Nobody waits for it.
    BestEffort,
    /// Costs money when it is away.
    Business,
    /// Costs more than money.
    Mission,
}

impl Criticality {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::BestEffort, Self::Business, Self::Mission];

    /// Its place in [`Criticality::ALL`].
    #[must_use]
    pub fn place(self) -> usize {
        self as usize
    }

    /// Its name, as in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::Business => "business",
            Self::Mission => "mission",
        }
    }

    /// Its weight in a service's share of the node.
    #[must_use]
    pub fn weight(self) -> f64 {
        match self {
            Self::BestEffort => 1.0,
            Self::Business => 2.0,
            Self::Mission => 3.0,
        }
    }
}

/// Something that somebody else changes as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contested {
    /// What.
    pub resource: Resource,
    /// Left alone until then.
    pub until: Micros,
    /// What was seen, in words.
    pub seen: String,
}

/// What the rules know about a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceFacts {
    /// What may be done with it.
    pub mode: Mode,
    /// What may be done with it by single primitives, by their names; overrides
    /// `mode` in both directions.
    pub modes: BTreeMap<&'static str, Mode>,
    /// A person works on it.
    pub maintenance: Option<Window>,
    /// A person said that nobody but a person touches it.
    pub protected: bool,
    /// How much it matters.
    pub criticality: Criticality,
    /// The kernel says that it has no process.
    pub dead: bool,
    /// It answers somebody, rightly or wrongly: an interruption takes
    /// something away.
    pub answering: bool,
    /// Share of its users that it serves: 0 when it answers nobody, else the
    /// share of probes answered rightly and in time.
    pub health: Ratio,
    /// Nothing runs, on purpose: a standby replica at rest.
    pub at_rest: bool,
    /// Its probes and samples are recent.
    pub fresh: bool,
    /// What the plan rests on has stopped to move, in words.
    pub frozen: Option<String>,
    /// The plan that has it now.
    pub leased: Option<PlanId>,
    /// No other healing before this time.
    pub held_until: Option<Micros>,
    /// Healed too often; no healing before this time.
    pub quarantined_until: Option<Micros>,
    /// No restart of a dead process before this time.
    pub backoff_until: Option<Micros>,
    /// What of it somebody else changes as well.
    pub contested: Vec<Contested>,
    /// How long it may take to come up.
    pub start_timeout: Millis,
    /// Versions of its model that are here and whole.
    pub models: Vec<ModelVersion>,
    /// Versions of its configuration that are here and whole.
    pub configs: Vec<ConfigVersion>,
    /// What its configuration allows besides the usual.
    pub grants: BTreeSet<Grant>,
    /// Addresses that may be kept from its ports.
    pub blockable: Vec<SourceNet>,
    /// Share of its healings by this kind of plan that failed.
    pub failure_share: Ratio,
}

/// What the rules know about a backend of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendFacts {
    /// Its present weight; 0 gets no new connections.
    pub weight: u16,
    /// Whether the forwarder finds it fit to get connections.
    pub healthy: bool,
}

/// What the rules know about a route.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteFacts {
    /// Its backends.
    pub backends: BTreeMap<ServiceId, BackendFacts>,
    /// The least rate of new connections that it may be limited to; `None` when
    /// it may not be limited.
    pub rate_min: Option<PerSecond>,
    /// Addresses that may be blocked.
    pub blockable: Vec<SourceNet>,
}

/// What the rules know about the node.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The moment of the decision.
    pub now: Micros,
    /// What may be done here unless a service says otherwise.
    pub mode: Mode,
    /// A person has stopped all healing, and why.
    pub stopped: Option<String>,
    /// A person works on the node as a whole.
    pub maintenance: Option<Window>,
    /// The plan that a person has approved; this one and no other.
    pub approved: Option<Plan>,
    /// Its services.
    pub services: BTreeMap<ServiceId, ServiceFacts>,
    /// Its routes.
    pub routes: BTreeMap<RouteId, RouteFacts>,
    /// Interfaces that what leaves the node may be sent through.
    pub uplinks: BTreeSet<InterfaceId>,
    /// The operator's webhooks that a plan may call.
    pub webhooks: BTreeSet<WebhookId>,
    /// Whether the process that owns the services can be reached.
    pub spawner: bool,
    /// Whether what is known of the routes is of now.
    pub forwarder: bool,
}

/// What a plan is for; some rules differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Purpose {
    /// Start a process that is dead, on the kernel's word. Has its own burst
    /// and back-off instead of holds, and is never given up.
    Revive,
    /// Heal a service that lives, with this confidence in the diagnosis.
    Heal(Ratio),
    /// Nothing is broken yet: keep what is foreseen, with this confidence, from coming.
    Foresee(Ratio),
    /// A person on the node asked for it: what restrains the healer itself
    /// (a stop, maintenance, its mode, holds, quarantine, doubt, lack of news) does
    /// not restrain a person; everything else does.
    Operate,
}

/// Why a plan may not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule}: {reason}")]
pub struct Rejection {
    /// The rule that forbids it.
    pub rule: Rule,
    /// In words, with the names and numbers that matter.
    pub reason: String,
    /// When asking again may have another answer; `None` when time alone does
    /// not change it.
    pub until: Option<Micros>,
}

/// A plan that passed the gate, with its cost set aside. Only [`verify`]
/// builds one; it is never deserialised, and a resumed plan is verified again.
#[derive(Debug)]
pub struct VerifiedPlan {
    plan: Plan,
    foreseen: Vec<Foreseen>,
    reservation: Reservation,
}

impl VerifiedPlan {
    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its predicted cost: an upper bound.
    #[must_use]
    pub fn cost(&self) -> Cost {
        total(&self.foreseen)
    }

    /// Hands plan, predicted cost of each step and reservation over to whoever
    /// executes them.
    pub fn into_parts(self) -> (Plan, Vec<Foreseen>, Reservation) {
        (self.plan, self.foreseen, self.reservation)
    }
}

/// Checks a plan against every rule and the budget, and sets its cost aside.
///
/// # Errors
/// [`Rejection`] names the first rule in [`Rule::ALL`] that forbids the plan.
pub fn verify(
    plan: Plan,
    purpose: Purpose,
    facts: &Facts,
    budget: &mut Budget,
) -> Result<VerifiedPlan, Rejection> {
    let foreseen = foreseen(&plan, facts);
    let class = class(&plan, facts);
    let reserve = |budget: &mut Budget| {
        budget
            .reserve(class, total(&foreseen), facts.now)
            .map_err(|overdrawn| Rejection {
                rule: Rule::Budget,
                reason: alloc::format!("{overdrawn}"),
                until: None,
            })
    };
    for rule in Rule::ALL {
        if rule == Rule::Budget {
            // In thought: what a rule behind it refuses sets nothing aside.
            let mut thought = budget.clone();
            let thought_of = reserve(&mut thought)?;
            thought.settle(thought_of, Cost::default(), facts.now);
        }
        rules::check(rule, &plan, purpose, facts)?;
    }
    let reservation = reserve(budget)?;
    Ok(VerifiedPlan {
        plan,
        foreseen,
        reservation,
    })
}

fn total(foreseen: &[Foreseen]) -> Cost {
    let costs = foreseen.iter().map(|one| one.cost);
    costs.fold(Cost::default(), Cost::plus)
}
