//! The gate: symbolic rules and the budget. Nothing runs that has not passed
//! [`verify`], and no other function builds a [`VerifiedPlan`].
//!
//! There is no learned model here: the last word is always code that contains
//! none. A world model may later *rank* plans before they come to this gate;
//! it can never let one through.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::budget::{Cost, Ledger, Reservation};
use crate::ids::{ConfigVersion, ModelVersion, PlanId, RouteId, ServiceId};
use crate::plan::Plan;
use crate::primitive::Primitive;
use crate::units::{Micros, Millis, Ratio};

/// Below this confidence only plans that change nothing are admitted.
pub const CONFIDENCE_MIN: f32 = 0.5;

/// Work of the node for one action: one fork, exec and start of a small
/// service, about 50 ms of one of a few cores.
const RESOURCE: f64 = 0.02;

/// How long a service that a failed action leaves broken stays so until the
/// next attempt; weighs the risk term.
const RISK_SPAN_S: f64 = 10.0;

/// What one action may cost besides the service it takes away: its own work and
/// the risk of a recipe that always failed.
pub const ACTION_COST_MAX: f64 = RESOURCE + RISK_SPAN_S;

/// What the agent may do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Look, say what it would do, touch nothing.
    #[default]
    Observe,
    /// Heal.
    Act,
}

/// How much depends on a service; weighs its share of the node's capacity.
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

/// What the rules know about a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceFacts {
    /// What may be done with it.
    pub mode: Mode,
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
    /// How long it may take to come up.
    pub start_timeout: Millis,
    /// Versions of its model that are here and whole.
    pub models: Vec<ModelVersion>,
    /// Versions of its configuration that are here and whole.
    pub configs: Vec<ConfigVersion>,
    /// Its configuration says which of its files may be deleted.
    pub prunable: bool,
    /// It is a replica that is started and stopped as it is needed.
    pub standby: bool,
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
}

/// What the rules know about the node.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The moment of the decision.
    pub now: Micros,
    /// What may be done here unless a service says otherwise.
    pub mode: Mode,
    /// Its services.
    pub services: BTreeMap<ServiceId, ServiceFacts>,
    /// Its routes.
    pub routes: BTreeMap<RouteId, RouteFacts>,
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
    /// A person on the node asked for it: what restrains the healer itself
    /// (observing only, holds, quarantine, doubt, lack of news) does not restrain
    /// a person; everything else does.
    Operate,
}

/// A rule's name; the same word in logs, on the page and in the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The plan names a service that the node does not have.
    UnknownService,
    /// The plan names a route or a backend that the node does not have.
    UnknownRoute,
    /// The service is only observed.
    ObserveOnly,
    /// The service is protected.
    Protected,
    /// The owner of the services cannot be reached.
    SpawnerLost,
    /// The forwarder cannot be reached.
    ForwarderLost,
    /// Another plan has the service.
    UnderRepair,
    /// Another healing was too short a time ago.
    Hold,
    /// Healed too often.
    Quarantine,
    /// A dead process is started again only after a while.
    BackOff,
    /// Nothing recent is known about the service.
    StaleTelemetry,
    /// The diagnosis is too uncertain to change anything.
    LowConfidence,
    /// The model or configuration to go to is not here, or not whole.
    UnverifiedVersion,
    /// The service's configuration does not allow this kind of action.
    NotAllowed,
    /// Its route would be left without a backend.
    LastBackend,
    /// Too many services would be away at once.
    BlastRadius,
    /// The budget does not admit it.
    Budget,
}

impl Rule {
    /// Every rule, in the order in which they are checked.
    pub const ALL: [Self; 17] = [
        Self::UnknownService,
        Self::UnknownRoute,
        Self::ObserveOnly,
        Self::Protected,
        Self::SpawnerLost,
        Self::ForwarderLost,
        Self::UnderRepair,
        Self::Hold,
        Self::Quarantine,
        Self::BackOff,
        Self::StaleTelemetry,
        Self::LowConfidence,
        Self::UnverifiedVersion,
        Self::NotAllowed,
        Self::LastBackend,
        Self::BlastRadius,
        Self::Budget,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownService => "unknown-service",
            Self::UnknownRoute => "unknown-route",
            Self::ObserveOnly => "observe-only",
            Self::Protected => "protected",
            Self::SpawnerLost => "spawner-lost",
            Self::ForwarderLost => "forwarder-lost",
            Self::UnderRepair => "under-repair",
            Self::Hold => "hold",
            Self::Quarantine => "quarantine",
            Self::BackOff => "back-off",
            Self::StaleTelemetry => "stale-telemetry",
            Self::LowConfidence => "low-confidence",
            Self::UnverifiedVersion => "unverified-version",
            Self::NotAllowed => "not-allowed",
            Self::LastBackend => "last-backend",
            Self::BlastRadius => "blast-radius",
            Self::Budget => "budget",
        })
    }
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
    cost: Cost,
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
        self.cost
    }

    /// Hands plan and reservation over to whoever executes them.
    pub fn into_parts(self) -> (Plan, Cost, Reservation) {
        (self.plan, self.cost, self.reservation)
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
    ledger: &mut Ledger,
) -> Result<VerifiedPlan, Rejection> {
    for rule in Rule::ALL {
        check(rule, &plan, purpose, facts)?;
    }
    let cost = cost(&plan, facts);
    let reservation = ledger
        .reserve(cost, facts.now)
        .map_err(|overdrawn| Rejection {
            rule: Rule::Budget,
            reason: alloc::format!("{overdrawn}"),
            until: None,
        })?;
    Ok(VerifiedPlan {
        plan,
        cost,
        reservation,
    })
}

/// Upper bound of what a plan costs: what it takes away from services that
/// still answer. Starting a dead process takes nothing away.
#[must_use]
pub fn cost(plan: &Plan, facts: &Facts) -> Cost {
    let mut sum = Cost::default();
    for (primitive, used) in traffic(plan, facts) {
        if !primitive.writes() {
            continue;
        }
        let Some((id, service)) = primitive
            .service()
            .and_then(|id| facts.services.get_key_value(id))
        else {
            continue;
        };
        let share = share(facts, id);
        let away = if primitive.interrupts() && service.answering && used {
            primitive.deadline(service.start_timeout).as_secs_f64()
        } else {
            0.0
        };
        sum = sum.plus(Cost {
            resource: RESOURCE,
            disruption: share * away,
            risk: share * RISK_SPAN_S * f64::from(service.failure_share.get()),
        });
    }
    sum
}

/// The steps in order, each with whether its service gets traffic when it
/// begins. One that every route of it has been told to spare gets none: to
/// restart it takes nothing away from anybody.
fn traffic<'p>(
    plan: &'p Plan,
    facts: &Facts,
) -> impl Iterator<Item = (&'p Primitive, bool)> + use<'p> {
    // Routes that send something to a backend.
    let mut fed: BTreeSet<(RouteId, ServiceId)> = BTreeSet::new();
    let mut behind: BTreeSet<ServiceId> = BTreeSet::new();
    for (route, known) in &facts.routes {
        for (backend, known) in &known.backends {
            behind.insert(backend.clone());
            if known.weight > 0 {
                fed.insert((route.clone(), backend.clone()));
            }
        }
    }
    // Branches side by side touch different services, so the printed order is
    // the order in time for each of them.
    plan.steps().map(move |primitive| {
        let used = primitive
            .service()
            .is_some_and(|id| !behind.contains(id) || fed.iter().any(|(_, backend)| backend == id));
        if let Some(route) = primitive.route() {
            for backend in primitive.backends() {
                let key = (route.clone(), backend.clone());
                if primitive.isolates() == Some(backend) {
                    fed.remove(&key);
                } else {
                    fed.insert(key);
                }
            }
        }
        (primitive, used)
    })
}

/// A service's share of the node's capacity, by criticality.
#[must_use]
pub fn share(facts: &Facts, service: &ServiceId) -> f64 {
    let weight = |facts: &ServiceFacts| facts.criticality.weight();
    let whole: f64 = facts.services.values().map(weight).sum();
    facts.services.get(service).map_or(0.0, weight) / whole.max(1.0)
}

/// The node's health: what its services serve of what they should, by their
/// share of its capacity; those that rest on purpose are left out.
#[must_use]
pub fn health(facts: &Facts) -> Ratio {
    weighted(facts, |_, service| service.health)
}

/// The health that a plan leads to when its steps up to `through` do what they
/// are for: whoever is restarted, started or waited for serves all its users.
/// This is what the effect of a step is compared with.
#[must_use]
pub fn prospect(plan: &Plan, through: usize, facts: &Facts) -> Ratio {
    let mended: BTreeSet<&ServiceId> = plan
        .steps()
        .take(through.saturating_add(1))
        .filter_map(|primitive| match primitive {
            Primitive::Restart { service, .. }
            | Primitive::Probe { service, .. }
            | Primitive::ScaleOut { service, .. } => Some(service),
            Primitive::RollbackModel { .. }
            | Primitive::Wait { .. }
            | Primitive::SwitchModel { .. }
            | Primitive::SwitchConfig { .. }
            | Primitive::RollbackConfig { .. }
            | Primitive::PruneData { .. }
            | Primitive::Isolate { .. }
            | Primitive::Release { .. }
            | Primitive::Reroute { .. }
            | Primitive::ScaleIn { .. } => None,
        })
        .collect();
    weighted(facts, |id, service| {
        if mended.contains(id) {
            Ratio::ONE
        } else {
            service.health
        }
    })
}

fn weighted(facts: &Facts, health: impl Fn(&ServiceId, &ServiceFacts) -> Ratio) -> Ratio {
    let mut sum = 0.0;
    let mut whole = 0.0;
    for (id, service) in facts.services.iter().filter(|(_, one)| !one.at_rest) {
        let weight = service.criticality.weight();
        whole += weight;
        sum += weight * f64::from(health(id, service).get());
    }
    if whole > 0.0 {
        Ratio::saturating(crate::units::narrow(sum / whole))
    } else {
        Ratio::ONE
    }
}

/// What a rule has against a plan: in words, and when it may be over.
type Objection = (String, Option<Micros>);

/// One arm for each rule, so that a new one cannot be forgotten here.
fn check(rule: Rule, plan: &Plan, purpose: Purpose, facts: &Facts) -> Result<(), Rejection> {
    let pending = |until: Option<Micros>| until.filter(|until| *until > facts.now);
    // Reviving a dead process has its own pace.
    let revive = |service: &ServiceFacts| purpose == Purpose::Revive && service.dead;
    let operate = purpose == Purpose::Operate;
    let writes = plan.steps().any(Primitive::writes);
    let objection = match rule {
        // Backends may be on other nodes; the next rule knows them.
        Rule::UnknownService => plan
            .steps()
            .filter(|primitive| primitive.route().is_none())
            .filter_map(Primitive::service)
            .find(|id| !facts.services.contains_key(*id))
            .map(|id| (alloc::format!("there is no service {id} here"), None)),
        Rule::UnknownRoute => unknown_route(plan, facts),
        Rule::ObserveOnly if operate => None,
        Rule::ObserveOnly => each_written(plan, facts, |id, service, _| {
            (service.mode == Mode::Observe).then(|| {
                let text = alloc::format!("{id} is only observed; set mode = \"act\" to heal it");
                (text, None)
            })
        })
        .or_else(|| {
            let elsewhere = |primitive: &Primitive| {
                primitive
                    .backends()
                    .any(|backend| !facts.services.contains_key(backend))
            };
            (facts.mode == Mode::Observe && plan.steps().any(elsewhere)).then(|| {
                let text = "routes are only observed; set mode = \"act\" to change them";
                (String::from(text), None)
            })
        }),
        Rule::Protected => each_written(plan, facts, |id, service, _| {
            service
                .protected
                .then(|| (alloc::format!("{id} is protected"), None))
        }),
        Rule::SpawnerLost => (writes && !facts.spawner)
            .then(|| (String::from("the spawner cannot be reached"), None)),
        Rule::ForwarderLost => (!facts.forwarder
            && plan.steps().any(|primitive| primitive.route().is_some()))
        .then(|| (String::from("the forwarder cannot be reached"), None)),
        Rule::UnderRepair => each_written(plan, facts, |id, service, _| {
            service
                .leased
                .map(|other| (alloc::format!("plan {other} works on {id}"), None))
        }),
        Rule::Hold => each_written(plan, facts, |id, service, _| {
            let until = pending(service.held_until).filter(|_| !revive(service) && !operate)?;
            let left = until.since(facts.now);
            let text = alloc::format!("{id} was healed a short while ago; held for {left} more");
            Some((text, Some(until)))
        }),
        Rule::Quarantine => each_written(plan, facts, |id, service, _| {
            let until =
                pending(service.quarantined_until).filter(|_| !revive(service) && !operate)?;
            let left = until.since(facts.now);
            let text = alloc::format!("{id} was healed too often; quarantined for {left} more");
            Some((text, Some(until)))
        }),
        Rule::BackOff => each_written(plan, facts, |id, service, _| {
            let until = pending(service.backoff_until).filter(|_| revive(service))?;
            let left = until.since(facts.now);
            let text = alloc::format!("{id} keeps dying; next start in {left}");
            Some((text, Some(until)))
        }),
        // Of a dead process the kernel's word is news enough.
        Rule::StaleTelemetry => each_written(plan, facts, |id, service, _| {
            let text = match &service.frozen {
                Some(frozen) => frozen.clone(),
                None if service.dead || service.at_rest || service.fresh => return None,
                None => alloc::format!("nothing recent is known about {id}"),
            };
            (!operate).then_some((text, None))
        }),
        Rule::LowConfidence => match purpose {
            Purpose::Heal(confidence) if writes && confidence.get() < CONFIDENCE_MIN => {
                let text = alloc::format!(
                    "confidence {confidence} is below {CONFIDENCE_MIN}: only looking is allowed"
                );
                Some((text, None))
            }
            Purpose::Heal(_) | Purpose::Revive | Purpose::Operate => None,
        },
        Rule::UnverifiedVersion => each_written(plan, facts, |_, service, primitive| {
            let (known, text) = match primitive {
                Primitive::RollbackModel { to, .. } | Primitive::SwitchModel { to, .. } => (
                    service.models.contains(to),
                    alloc::format!("no whole copy of model {to} is here"),
                ),
                Primitive::RollbackConfig { to, .. } | Primitive::SwitchConfig { to, .. } => (
                    service.configs.contains(to),
                    alloc::format!("no whole copy of configuration {to} is here"),
                ),
                _ => return None,
            };
            (!known).then_some((text, None))
        }),
        Rule::NotAllowed => each_written(plan, facts, |id, service, primitive| {
            let text = match primitive {
                Primitive::PruneData { .. } if !service.prunable => {
                    alloc::format!("{id} names no files that may be deleted")
                }
                Primitive::ScaleOut { .. } | Primitive::ScaleIn { .. } if !service.standby => {
                    alloc::format!("{id} is no standby replica")
                }
                _ => return None,
            };
            Some((text, None))
        }),
        Rule::LastBackend => last_backend(plan, facts),
        Rule::BlastRadius => blast_radius(plan, facts),
        // The ledger itself answers, once nothing else objects.
        Rule::Budget => None,
    };
    match objection {
        Some((reason, until)) => Err(Rejection {
            rule,
            reason,
            until,
        }),
        None => Ok(()),
    }
}

/// The first objection to a primitive that changes a service.
fn each_written<'p>(
    plan: &'p Plan,
    facts: &Facts,
    objects: impl Fn(&ServiceId, &ServiceFacts, &'p Primitive) -> Option<Objection>,
) -> Option<Objection> {
    plan.steps()
        .filter(|primitive| primitive.writes())
        .find_map(|primitive| {
            let id = primitive.service()?;
            objects(id, facts.services.get(id)?, primitive)
        })
}

fn unknown_route(plan: &Plan, facts: &Facts) -> Option<Objection> {
    plan.steps().find_map(|primitive| {
        let id = primitive.route()?;
        let Some(route) = facts.routes.get(id) else {
            return Some((alloc::format!("there is no route {id} here"), None));
        };
        let stranger = primitive
            .backends()
            .find(|backend| !route.backends.contains_key(*backend))?;
        let text = alloc::format!("{stranger} is no backend of route {id}");
        Some((text, None))
    })
}

/// After each step, each route that it took a backend from must still have one
/// that is healthy and gets connections.
fn last_backend(plan: &Plan, facts: &Facts) -> Option<Objection> {
    let mut spared: BTreeSet<(&RouteId, &ServiceId)> = BTreeSet::new();
    for primitive in plan.steps() {
        let Some(id) = primitive.route() else {
            continue;
        };
        let isolated = primitive.isolates();
        for backend in primitive.backends() {
            if isolated == Some(backend) {
                spared.insert((id, backend));
            } else {
                spared.remove(&(id, backend));
            }
        }
        let (Some(backend), Some(route)) = (isolated, facts.routes.get(id)) else {
            continue;
        };
        // One that this plan gives traffic to counts as well.
        let given = primitive.backends().find(|other| *other != backend);
        let left = route.backends.iter().any(|(other, known)| {
            known.healthy
                && !spared.contains(&(id, other))
                && (known.weight > 0 || given == Some(other))
        });
        if !left {
            let text = alloc::format!("without {backend}, route {id} has no healthy backend");
            return Some((text, None));
        }
    }
    None
}

/// At most `max(1, 10 %)` of the services that answer may be taken away at
/// once, those under repair counted.
fn blast_radius(plan: &Plan, facts: &Facts) -> Option<Objection> {
    let taken: BTreeSet<&ServiceId> = traffic(plan, facts)
        .filter(|(primitive, used)| primitive.interrupts() && *used)
        .filter_map(|(primitive, _)| primitive.service())
        .collect();
    let by_plan = facts
        .services
        .iter()
        .filter(|(id, service)| service.answering && taken.contains(id))
        .count();
    let under_repair = facts
        .services
        .values()
        .filter(|service| service.answering && service.leased.is_some())
        .count();
    let most = (facts.services.len() / 10).max(1);
    (by_plan > 0 && by_plan + under_repair > most).then(|| {
        let text = alloc::format!(
            "{} of {} services would be away at once, {most} may",
            by_plan + under_repair,
            facts.services.len()
        );
        (text, None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    fn healthy() -> ServiceFacts {
        ServiceFacts {
            mode: Mode::Act,
            protected: false,
            criticality: Criticality::Business,
            dead: false,
            answering: true,
            health: Ratio::ONE,
            at_rest: false,
            fresh: true,
            frozen: None,
            leased: None,
            held_until: None,
            quarantined_until: None,
            backoff_until: None,
            start_timeout: Millis::secs(10),
            models: Vec::new(),
            configs: Vec::new(),
            prunable: false,
            standby: false,
            failure_share: Ratio::ZERO,
        }
    }

    fn facts(change: impl FnOnce(&mut ServiceFacts)) -> Facts {
        let mut web = healthy();
        change(&mut web);
        let services = [("web", web), ("worker", healthy()), ("infer", healthy())];
        let backend = |id: &str, weight| {
            let known = BackendFacts {
                weight,
                healthy: true,
            };
            (ServiceId::new(id).unwrap(), known)
        };
        let route = RouteFacts {
            backends: [backend("infer", 100), backend("edge-2", 50)].into(),
        };
        Facts {
            now: Micros(1_000_000),
            mode: Mode::Act,
            routes: [(RouteId::new("model").unwrap(), route)].into(),
            forwarder: true,
            services: services
                .into_iter()
                .map(|(id, facts)| (ServiceId::new(id).unwrap(), facts))
                .collect(),
            spawner: true,
        }
    }

    fn ledger() -> Ledger {
        Ledger::new(Ratio::new(0.15).unwrap(), Micros(0))
    }

    const SURE: Purpose = Purpose::Heal(Ratio::ONE);

    fn answer(plan: &str, purpose: Purpose, facts: &Facts) -> String {
        match verify(plan.parse().unwrap(), purpose, facts, &mut ledger()) {
            Ok(verified) => verified.cost().to_string(),
            Err(rejection) => rejection.to_string(),
        }
    }

    #[test]
    fn each_rule_refuses_what_it_is_for_and_says_so() {
        let restart = "restart(web, grace=2s)";
        let later = Some(Micros(6_000_000));
        let cases: Vec<(&str, Purpose, Facts, &str)> = std::vec![
            (
                restart,
                SURE,
                facts(|_| {}),
                "4.69 capacity-seconds (resource 0.02, disruption 4.67, risk 0.00)"
            ),
            (
                restart,
                SURE,
                facts(|web| web.answering = false),
                "0.02 capacity-seconds (resource 0.02, disruption 0.00, risk 0.00)"
            ),
            (
                "restart(db, grace=2s)",
                SURE,
                facts(|_| {}),
                "rule unknown-service: there is no service db here"
            ),
            (
                restart,
                SURE,
                facts(|web| web.mode = Mode::Observe),
                "rule observe-only: web is only observed; set mode = \"act\" to heal it"
            ),
            (
                restart,
                SURE,
                facts(|web| web.protected = true),
                "rule protected: web is protected"
            ),
            (
                restart,
                SURE,
                facts(|web| web.leased = Some(PlanId(3))),
                "rule under-repair: plan p3 works on web"
            ),
            (
                restart,
                SURE,
                facts(|web| web.held_until = later),
                "rule hold: web was healed a short while ago; held for 5s more"
            ),
            (
                restart,
                SURE,
                facts(|web| web.quarantined_until = later),
                "rule quarantine: web was healed too often; quarantined for 5s more"
            ),
            (
                restart,
                SURE,
                facts(|web| web.fresh = false),
                "rule stale-telemetry: nothing recent is known about web"
            ),
            (
                restart,
                SURE,
                facts(|web| web.frozen = Some("its metrics do not move".into())),
                "rule stale-telemetry: its metrics do not move"
            ),
            (
                restart,
                Purpose::Heal(Ratio::ZERO),
                facts(|_| {}),
                "rule low-confidence: confidence 0.000 is below 0.5: only looking is allowed"
            ),
            (
                "probe(web, within=1s)",
                Purpose::Heal(Ratio::ZERO),
                facts(|_| {}),
                "0.00 capacity-seconds (resource 0.00, disruption 0.00, risk 0.00)"
            ),
            (
                "rollback-model(web, to=0000000000000000)",
                SURE,
                facts(|_| {}),
                "rule unverified-version: no whole copy of model 0000000000000000 is here"
            ),
            (
                "restart(web, grace=1s) | restart(worker, grace=1s)",
                SURE,
                facts(|_| {}),
                "rule blast-radius: 2 of 3 services would be away at once, 1 may"
            ),
            (
                "restart(worker, grace=1s)",
                SURE,
                facts(|web| web.leased = Some(PlanId(3))),
                "rule blast-radius: 2 of 3 services would be away at once, 1 may"
            ),
            (
                "restart(web, grace=10m)",
                SURE,
                facts(|_| {}),
                "rule budget: costs up to 204.02 capacity-seconds, and of beta 90.00 only 90.00 are left"
            ),
            (
                restart,
                Purpose::Revive,
                facts(|web| (web.dead, web.answering, web.backoff_until) = (true, false, later)),
                "rule back-off: web keeps dying; next start in 5s"
            ),
        ];
        for (plan, purpose, facts, says) in cases {
            assert_eq!(answer(plan, purpose, &facts), says, "{plan}");
        }
    }

    #[test]
    fn a_route_keeps_a_backend_and_a_restart_behind_it_is_free() {
        let lost = Facts {
            forwarder: false,
            ..facts(|_| {})
        };
        let observed = Facts {
            mode: Mode::Observe,
            ..facts(|_| {})
        };
        let mut alone = facts(|_| {});
        for route in alone.routes.values_mut() {
            for (id, backend) in &mut route.backends {
                backend.healthy = id.as_str() != "edge-2";
            }
        }
        let isolate = "isolate(model, infer, drain=1s)";
        for (plan, purpose, facts, says) in [
            (
                "isolate(model, infer, drain=1s) ; restart(infer, grace=2s) ; release(model, infer)",
                SURE,
                &facts(|_| {}),
                "0.06 capacity-seconds (resource 0.06, disruption 0.00, risk 0.00)",
            ),
            (
                "release(model, infer) ; restart(infer, grace=2s)",
                SURE,
                &facts(|_| {}),
                "4.71 capacity-seconds (resource 0.04, disruption 4.67, risk 0.00)",
            ),
            (
                isolate,
                SURE,
                &lost,
                "rule forwarder-lost: the forwarder cannot be reached",
            ),
            (
                "isolate(model, edge-2, drain=1s)",
                SURE,
                &observed,
                "rule observe-only: routes are only observed; set mode = \"act\" to change them",
            ),
            (
                "isolate(model, edge-2, drain=1s)",
                Purpose::Operate,
                &observed,
                "0.00 capacity-seconds (resource 0.00, disruption 0.00, risk 0.00)",
            ),
            (
                "isolate(model, web, drain=1s)",
                SURE,
                &facts(|_| {}),
                "rule unknown-route: web is no backend of route model",
            ),
            (
                "release(elsewhere, web)",
                SURE,
                &facts(|_| {}),
                "rule unknown-route: there is no route elsewhere here",
            ),
            (
                isolate,
                Purpose::Operate,
                &alone,
                "rule last-backend: without infer, route model has no healthy backend",
            ),
            (
                "isolate(model, infer, drain=1s) ; isolate(model, edge-2, drain=1s)",
                SURE,
                &facts(|_| {}),
                "rule last-backend: without edge-2, route model has no healthy backend",
            ),
            (
                "isolate(model, infer, drain=1s) ; release(model, infer) ; isolate(model, edge-2, drain=1s)",
                SURE,
                &facts(|_| {}),
                "0.04 capacity-seconds (resource 0.04, disruption 0.00, risk 0.00)",
            ),
            (
                "reroute(model, from=infer, to=edge-2, share=100%)",
                SURE,
                &alone,
                "rule last-backend: without infer, route model has no healthy backend",
            ),
            (
                "scale-out(model, infer)",
                SURE,
                &facts(|_| {}),
                "rule not-allowed: infer is no standby replica",
            ),
            (
                "prune-data(web, to=50%)",
                Purpose::Operate,
                &facts(|_| {}),
                "rule not-allowed: web names no files that may be deleted",
            ),
        ] {
            assert_eq!(answer(plan, purpose, facts), says, "{plan}");
        }
    }

    #[test]
    fn what_restrains_the_healer_does_not_restrain_a_person() {
        let later = Some(Micros(6_000_000));
        let restart = "restart(web, grace=2s)";
        let held = facts(|web| {
            (web.mode, web.held_until, web.quarantined_until, web.fresh) =
                (Mode::Observe, later, later, false);
        });
        assert!(answer(restart, Purpose::Operate, &held).starts_with("4.69 "));
        let kept = facts(|web| web.protected = true);
        assert_eq!(
            answer(restart, Purpose::Operate, &kept),
            "rule protected: web is protected"
        );
    }

    #[test]
    fn health_is_weighed_and_a_plan_promises_what_it_mends() {
        let facts = facts(|web| {
            web.health = Ratio::ZERO;
            web.criticality = Criticality::Mission;
        });
        let plan: Plan = "isolate(model, infer, drain=1s) ; restart(web, grace=2s)"
            .parse()
            .unwrap();
        let shown = |ratio: Ratio| ratio.to_string();
        assert_eq!(shown(health(&facts)), "0.571");
        assert_eq!(shown(prospect(&plan, 0, &facts)), "0.571");
        assert_eq!(shown(prospect(&plan, 1, &facts)), "1.000");
    }

    #[test]
    fn a_dead_process_is_revived_whatever_holds_the_living() {
        let facts = facts(|web| {
            web.dead = true;
            web.answering = false;
            web.fresh = false;
            web.held_until = Some(Micros(u64::MAX));
            web.quarantined_until = Some(Micros(u64::MAX));
        });
        let plan = "restart(web, grace=0ms)";
        assert!(answer(plan, Purpose::Revive, &facts).contains("capacity-seconds (resource"));
        // The same words do not help a service that lives.
        assert!(answer("restart(worker, grace=0ms)", Purpose::Revive, &facts).starts_with("4.02 "));
        let lost = Facts {
            spawner: false,
            ..facts
        };
        assert_eq!(
            answer(plan, Purpose::Revive, &lost),
            "rule spawner-lost: the spawner cannot be reached"
        );
    }

    #[test]
    fn a_refused_plan_costs_nothing() {
        let mut ledger = ledger();
        let before = ledger.clone();
        let refused = verify(
            "restart(web, grace=2s)".parse().unwrap(),
            SURE,
            &facts(|web| web.protected = true),
            &mut ledger,
        );
        assert!(refused.is_err());
        assert_eq!(ledger, before);
    }
}
