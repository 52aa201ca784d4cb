//! The rules, and what each has against a plan.
//!
//! In go a plan, what it is for and the facts; out comes the objection of one
//! rule, in words. A rule neither counts costs nor changes anything: the ledger
//! is asked by [`super::verify`], once no rule objects.

use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;

use super::outlook::traffic;
use super::{Facts, Purpose, Rejection, ServiceFacts, controls, routes};
use crate::ids::ServiceId;
use crate::net::SourceNet;
use crate::plan::Plan;
use crate::primitive::{Grant, Primitive, Reversal};
use crate::units::Micros;

/// Below this confidence only plans that change nothing are admitted.
pub const CONFIDENCE_MIN: f32 = 0.5;

/// A rule's name; the same word in logs, on the page and in the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The plan names a service that the node does not have.
    UnknownService,
    /// The plan names a route or a backend that the node does not have.
    UnknownRoute,
    /// A person has stopped all healing.
    Stopped,
    /// A person works on the service, or on the node.
    Maintenance,
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
    /// Somebody else changes it back, again and again.
    Contested,
    /// Nothing recent is known about the service.
    StaleTelemetry,
    /// The diagnosis is too uncertain to change anything.
    LowConfidence,
    /// Nothing is broken yet, and the plan would break or lose something.
    NoBreach,
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
    /// Nothing else objects, and the agent may only say so.
    RecommendOnly,
    /// Nothing else objects, and a person has yet to approve it.
    NeedsApproval,
}

impl Rule {
    /// Every rule, in the order in which they are checked.
    pub const ALL: [Self; 23] = [
        Self::UnknownService,
        Self::UnknownRoute,
        Self::Stopped,
        Self::Maintenance,
        Self::ObserveOnly,
        Self::Protected,
        Self::SpawnerLost,
        Self::ForwarderLost,
        Self::UnderRepair,
        Self::Hold,
        Self::Quarantine,
        Self::BackOff,
        Self::Contested,
        Self::StaleTelemetry,
        Self::LowConfidence,
        Self::NoBreach,
        Self::UnverifiedVersion,
        Self::NotAllowed,
        Self::LastBackend,
        Self::BlastRadius,
        Self::Budget,
        // Last, so that what is recommended or asked for is a plan that would run.
        Self::RecommendOnly,
        Self::NeedsApproval,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownService => "unknown-service",
            Self::UnknownRoute => "unknown-route",
            Self::Stopped => "stopped",
            Self::Maintenance => "maintenance",
            Self::ObserveOnly => "observe-only",
            Self::Protected => "protected",
            Self::SpawnerLost => "spawner-lost",
            Self::ForwarderLost => "forwarder-lost",
            Self::UnderRepair => "under-repair",
            Self::Hold => "hold",
            Self::Quarantine => "quarantine",
            Self::BackOff => "back-off",
            Self::Contested => "contested",
            Self::StaleTelemetry => "stale-telemetry",
            Self::LowConfidence => "low-confidence",
            Self::NoBreach => "no-breach",
            Self::UnverifiedVersion => "unverified-version",
            Self::NotAllowed => "not-allowed",
            Self::LastBackend => "last-backend",
            Self::BlastRadius => "blast-radius",
            Self::Budget => "budget",
            Self::RecommendOnly => "recommend-only",
            Self::NeedsApproval => "needs-approval",
        })
    }
}

/// What a rule has against a plan: in words, and when it may be over.
pub(super) type Objection = (String, Option<Micros>);

/// One arm for each rule, so that a new one cannot be forgotten here.
pub(super) fn check(
    rule: Rule,
    plan: &Plan,
    purpose: Purpose,
    facts: &Facts,
) -> Result<(), Rejection> {
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
        Rule::Stopped
        | Rule::Maintenance
        | Rule::ObserveOnly
        | Rule::RecommendOnly
        | Rule::NeedsApproval
            if operate =>
        {
            None
        }
        Rule::Stopped
        | Rule::Maintenance
        | Rule::ObserveOnly
        | Rule::RecommendOnly
        | Rule::NeedsApproval => controls::objection(rule, plan, facts),
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
        Rule::Contested if operate => None,
        Rule::Contested => each_written(plan, facts, |id, service, primitive| {
            let written = primitive.signature().writes;
            let found = service
                .contested
                .iter()
                .find(|one| written.contains(&one.resource) && one.until > facts.now)?;
            let left = found.until.since(facts.now);
            let text = alloc::format!(
                "somebody else changes {id}: {}; left to them for {left} more",
                found.seen
            );
            Some((text, Some(found.until)))
        }),
        // Of a dead process the kernel's word is news enough.
        Rule::StaleTelemetry => each_written(plan, facts, |id, service, _| {
            let text = match &service.frozen {
                _ if revive(service) => return None,
                Some(frozen) => frozen.clone(),
                None if service.dead || service.at_rest || service.fresh => return None,
                None => alloc::format!("nothing recent is known about {id}"),
            };
            (!operate).then_some((text, None))
        }),
        Rule::LowConfidence => match purpose {
            Purpose::Heal(confidence) | Purpose::Foresee(confidence)
                if confidence.get() < CONFIDENCE_MIN && !reversible_on_one(plan) =>
            {
                let text = alloc::format!(
                    "confidence {confidence} is below {CONFIDENCE_MIN}: only looking, and what can \
                     be taken back, on one target"
                );
                Some((text, None))
            }
            Purpose::Heal(_) | Purpose::Foresee(_) | Purpose::Revive | Purpose::Operate => None,
        },
        Rule::NoBreach => match purpose {
            Purpose::Foresee(_) => breaks(plan, facts),
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
        Rule::NotAllowed => plan
            .steps()
            .find_map(|primitive| not_allowed(primitive, facts))
            .or_else(|| left_frozen(plan).filter(|_| !operate)),
        Rule::LastBackend => routes::last_backend(plan, facts),
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

/// Whether all that a plan changes is one target, and can be taken back.
fn reversible_on_one(plan: &Plan) -> bool {
    let mut targets = BTreeSet::new();
    plan.steps().filter(|step| step.writes()).all(|step| {
        targets.insert((
            step.service(),
            step.route().filter(|_| step.service().is_none()),
        ));
        step.reversal() == Reversal::Compensated && targets.len() == 1
    })
}

/// What a plan would break or lose while nothing is broken yet: it may take nobody away who
/// gets traffic, and nothing that does not come back, unless the configuration gives it up
/// beforehand. That a replica is spared first, and another one left, is `last-backend`'s.
fn breaks(plan: &Plan, facts: &Facts) -> Option<Objection> {
    traffic(plan, facts).find_map(|(primitive, used)| {
        let service = primitive.service().and_then(|id| facts.services.get(id));
        let given = service.is_some_and(|one| one.grants.contains(&Grant::Early))
            && matches!(primitive, Primitive::PruneData { .. });
        let text = if primitive.reversal() == Reversal::Irreversible && !given {
            alloc::format!("nothing is broken yet, and nothing brings back what {primitive} takes")
        } else if primitive.interrupts() && used && service.is_some_and(|one| one.answering) {
            alloc::format!("nothing is broken yet, and {primitive} would interrupt what works")
        } else {
            return None;
        };
        Some((text, None))
    })
}

/// What the configuration has against a step.
fn not_allowed(primitive: &Primitive, facts: &Facts) -> Option<Objection> {
    if let (Some(id), Some(grant)) = (primitive.service(), primitive.signature().needs) {
        let service = facts.services.get(id);
        if !service.is_some_and(|one| one.grants.contains(&grant)) {
            return Some((alloc::format!("{id} {}", grant.missing()), None));
        }
    }
    let covered = |nets: &[SourceNet], from| nets.iter().any(|net| net.covers(from));
    let text = match primitive {
        Primitive::LimitRate { route: id, to } => match facts.routes.get(id)?.rate_min {
            Some(min) if *to >= min => return None,
            Some(min) => alloc::format!("route {id} may not be limited below {min}"),
            None => alloc::format!("route {id} may not be limited: it has no rate_min"),
        },
        Primitive::BlockSource { route: id, from } => {
            if covered(&facts.routes.get(id)?.blockable, from) {
                return None;
            }
            alloc::format!("{from} is not among the addresses that route {id} may block")
        }
        Primitive::BlockPort { service: id, from } => {
            if covered(&facts.services.get(id)?.blockable, from) {
                return None;
            }
            alloc::format!("{from} is not among the addresses that {id} may block")
        }
        Primitive::SwitchUplink { to, .. } if !facts.uplinks.contains(to) => {
            alloc::format!("{to} is no uplink of this node")
        }
        Primitive::CallWebhook { to, .. } if !facts.webhooks.contains(to) => {
            alloc::format!("there is no webhook {to}")
        }
        _ => return None,
    };
    Some((text, None))
}

/// A process that nobody lets go on is an outage without an end; only a person may
/// want that.
fn left_frozen(plan: &Plan) -> Option<Objection> {
    let mut frozen = BTreeSet::new();
    for primitive in plan.steps() {
        match primitive {
            Primitive::Freeze { service } => {
                frozen.insert(service);
            }
            _ if primitive.unfreezes() => {
                frozen.retain(|id| Some(*id) != primitive.service());
            }
            _ => {}
        }
    }
    let id = frozen.first()?;
    Some((alloc::format!("{id} would be left frozen"), None))
}

/// The first objection to a primitive that changes a service; one that moves
/// traffic from one to another changes both.
fn each_written<'p>(
    plan: &'p Plan,
    facts: &Facts,
    objects: impl Fn(&ServiceId, &ServiceFacts, &'p Primitive) -> Option<Objection>,
) -> Option<Objection> {
    plan.steps()
        .filter(|primitive| primitive.writes())
        .flat_map(|primitive| primitive.touched().map(move |id| (id, primitive)))
        .find_map(|(id, primitive)| objects(id, facts.services.get(id)?, primitive))
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
