//! The gate: symbolic rules and the budget. Nothing runs that has not passed
//! [`verify`], and no other function builds a [`VerifiedPlan`].
//!
//! There is no learned model here: the last word is always code that contains
//! none. A world model may later *rank* plans before they come to this gate;
//! it can never let one through.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::budget::{Cost, Ledger, Reservation};
use crate::ids::{ModelVersion, PlanId, ServiceId};
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
    /// Its probes and samples are recent and moving.
    pub fresh: bool,
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
    /// The copy of its model that was verified.
    pub verified_model: Option<ModelVersion>,
    /// Share of its healings by this kind of plan that failed.
    pub failure_share: Ratio,
}

/// What the rules know about the node.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The moment of the decision.
    pub now: Micros,
    /// Its services.
    pub services: BTreeMap<ServiceId, ServiceFacts>,
    /// Whether the process that owns the services can be reached.
    pub spawner: bool,
}

/// What a plan is for; some rules differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Purpose {
    /// Start a process that is dead, on the kernel's word. Has its own burst
    /// and back-off instead of holds, and is never given up.
    Revive,
    /// Heal a service that lives, with this confidence in the diagnosis.
    Heal(Ratio),
}

/// A rule's name; the same word in logs, on the page and in the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The plan names a service that the node does not have.
    UnknownService,
    /// The service is only observed.
    ObserveOnly,
    /// The service is protected.
    Protected,
    /// The owner of the services cannot be reached.
    SpawnerLost,
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
    /// The model to return to was never verified.
    UnverifiedModel,
    /// Too many services would be away at once.
    BlastRadius,
    /// The budget does not admit it.
    Budget,
}

impl Rule {
    /// Every rule, in the order in which they are checked.
    pub const ALL: [Self; 13] = [
        Self::UnknownService,
        Self::ObserveOnly,
        Self::Protected,
        Self::SpawnerLost,
        Self::UnderRepair,
        Self::Hold,
        Self::Quarantine,
        Self::BackOff,
        Self::StaleTelemetry,
        Self::LowConfidence,
        Self::UnverifiedModel,
        Self::BlastRadius,
        Self::Budget,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownService => "unknown-service",
            Self::ObserveOnly => "observe-only",
            Self::Protected => "protected",
            Self::SpawnerLost => "spawner-lost",
            Self::UnderRepair => "under-repair",
            Self::Hold => "hold",
            Self::Quarantine => "quarantine",
            Self::BackOff => "back-off",
            Self::StaleTelemetry => "stale-telemetry",
            Self::LowConfidence => "low-confidence",
            Self::UnverifiedModel => "unverified-model",
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
    for primitive in plan.steps().filter(|primitive| primitive.writes()) {
        let Some((id, service)) = primitive
            .service()
            .and_then(|id| facts.services.get_key_value(id))
        else {
            continue;
        };
        let share = share(facts, id);
        let away = if primitive.interrupts() && service.answering {
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

/// A service's share of the node's capacity, by criticality.
#[must_use]
pub fn share(facts: &Facts, service: &ServiceId) -> f64 {
    let weight = |facts: &ServiceFacts| facts.criticality.weight();
    let whole: f64 = facts.services.values().map(weight).sum();
    facts.services.get(service).map_or(0.0, weight) / whole.max(1.0)
}

/// What a rule has against a plan: in words, and when it may be over.
type Objection = (String, Option<Micros>);

/// One arm for each rule, so that a new one cannot be forgotten here.
fn check(rule: Rule, plan: &Plan, purpose: Purpose, facts: &Facts) -> Result<(), Rejection> {
    let pending = |until: Option<Micros>| until.filter(|until| *until > facts.now);
    // Reviving a dead process has its own pace.
    let revive = |service: &ServiceFacts| purpose == Purpose::Revive && service.dead;
    let writes = plan.steps().any(Primitive::writes);
    let objection = match rule {
        Rule::UnknownService => plan
            .steps()
            .filter_map(Primitive::service)
            .find(|id| !facts.services.contains_key(*id))
            .map(|id| (alloc::format!("there is no service {id} here"), None)),
        Rule::ObserveOnly => each_written(plan, facts, |id, service, _| {
            (service.mode == Mode::Observe).then(|| {
                let text = alloc::format!("{id} is only observed; set mode = \"act\" to heal it");
                (text, None)
            })
        }),
        Rule::Protected => each_written(plan, facts, |id, service, _| {
            service
                .protected
                .then(|| (alloc::format!("{id} is protected"), None))
        }),
        Rule::SpawnerLost => (writes && !facts.spawner)
            .then(|| (String::from("the spawner cannot be reached"), None)),
        Rule::UnderRepair => each_written(plan, facts, |id, service, _| {
            service
                .leased
                .map(|other| (alloc::format!("plan {other} works on {id}"), None))
        }),
        Rule::Hold => each_written(plan, facts, |id, service, _| {
            let until = pending(service.held_until).filter(|_| !revive(service))?;
            let left = until.since(facts.now);
            let text = alloc::format!("{id} was healed a short while ago; held for {left} more");
            Some((text, Some(until)))
        }),
        Rule::Quarantine => each_written(plan, facts, |id, service, _| {
            let until = pending(service.quarantined_until).filter(|_| !revive(service))?;
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
            (!service.dead && !service.fresh)
                .then(|| (alloc::format!("nothing recent is known about {id}"), None))
        }),
        Rule::LowConfidence => match purpose {
            Purpose::Heal(confidence) if writes && confidence.get() < CONFIDENCE_MIN => {
                let text = alloc::format!(
                    "confidence {confidence} is below {CONFIDENCE_MIN}: only looking is allowed"
                );
                Some((text, None))
            }
            Purpose::Heal(_) | Purpose::Revive => None,
        },
        Rule::UnverifiedModel => each_written(plan, facts, |_, service, primitive| {
            let Primitive::RollbackModel { to, .. } = primitive else {
                return None;
            };
            (service.verified_model != Some(*to)).then(|| {
                let text = alloc::format!("no verified copy of model {to} is here");
                (text, None)
            })
        }),
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

/// At most `max(1, 10 %)` of the services that answer may be taken away at
/// once, those under repair counted.
fn blast_radius(plan: &Plan, facts: &Facts) -> Option<Objection> {
    let taken = |id: &ServiceId| {
        plan.steps()
            .any(|primitive| primitive.interrupts() && primitive.service() == Some(id))
    };
    let by_plan = facts
        .services
        .iter()
        .filter(|(id, service)| service.answering && taken(id))
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
            fresh: true,
            leased: None,
            held_until: None,
            quarantined_until: None,
            backoff_until: None,
            start_timeout: Millis::secs(10),
            verified_model: None,
            failure_share: Ratio::ZERO,
        }
    }

    fn facts(change: impl FnOnce(&mut ServiceFacts)) -> Facts {
        let mut web = healthy();
        change(&mut web);
        let services = [("web", web), ("worker", healthy()), ("infer", healthy())];
        Facts {
            now: Micros(1_000_000),
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
                "rule unverified-model: no verified copy of model 0000000000000000 is here"
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
