//! What a plan would cost, and the health it leads to.
//!
//! In go a plan and the facts of the moment; out come a [`Cost`] that is an upper
//! bound, and shares of the node's health. It is arithmetic over the facts:
//! nothing here forbids a plan, and nothing is learnt or rolled out.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{Criticality, Facts, ServiceFacts};
use crate::budget::Cost;
use crate::ids::{RouteId, ServiceId};
use crate::plan::Plan;
use crate::primitive::{Effect, Primitive, Reversal};
use crate::transaction::SYNC_MAX;
use crate::units::{Millis, Ratio};

/// How long a service that a failed action leaves broken stays so until the
/// next attempt; weighs the risk term.
const RISK_SPAN_S: f64 = 10.0;

/// What the restart of a service may cost at most: its work, the time that it is
/// away, and the risk of a recipe that always failed.
#[must_use]
pub fn restart_cost_max(restart: &Primitive, share: f64, start_timeout: Millis) -> f64 {
    let away = restart.deadline(start_timeout).as_secs_f64();
    restart.signature().work + share * (away + RISK_SPAN_S)
}

/// What a step is to cost at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Foreseen {
    /// An upper bound, by what it is made of.
    pub cost: Cost,
    /// How long its service is away at most; what `cost.disruption` is for.
    pub away: Millis,
    /// The place of the step that gives the service back: mostly its own.
    pub back: u8,
}

impl Foreseen {
    /// Of a step that costs nothing.
    #[must_use]
    pub fn nothing(place: u8) -> Self {
        Self {
            cost: Cost::default(),
            away: Millis(0),
            back: place,
        }
    }
}

/// Upper bound of what each step costs: its work, what it takes away from
/// services that still answer, and what a failure would leave broken of those.
/// Starting a dead process takes nothing away and risks nothing.
#[must_use]
pub fn foreseen(plan: &Plan, facts: &Facts) -> Vec<Foreseen> {
    let steps: Vec<(&Primitive, bool)> = traffic(plan, facts).collect();
    let mut all = Vec::with_capacity(steps.len());
    for ((primitive, used), place) in steps.iter().zip(0u8..) {
        let mut one = Foreseen::nothing(place);
        if primitive.writes() {
            one.cost.resource = primitive.signature().work;
            let here = primitive.service();
            let here = here.and_then(|id| facts.services.get_key_value(id));
            if let Some((id, service)) = here.filter(|(_, service)| service.answering) {
                let share = share(facts, id);
                if primitive.interrupts() && *used {
                    (one.away, one.back) = away(&steps, usize::from(place), facts);
                }
                one.cost.disruption = share * one.away.as_secs_f64();
                one.cost.risk = share * RISK_SPAN_S * f64::from(service.failure_share.get());
            }
        }
        all.push(one);
    }
    all
}

/// How long the service of a step is away at most, and which step gives it back.
fn away(steps: &[(&Primitive, bool)], place: usize, facts: &Facts) -> (Millis, u8) {
    let limit = |primitive: &Primitive| {
        let service = primitive.service().and_then(|id| facts.services.get(id));
        primitive.deadline(service.map_or(Millis(0), |service| service.start_timeout))
    };
    let Some((first, _)) = steps.get(place) else {
        return (Millis(0), u8::MAX);
    };
    let mut span = limit(first).0;
    let mut back = place;
    if first.signature().effect == Effect::Halts {
        // Until something lets it go on; and should that fail, until all that came
        // in between has been taken back. Each may wait for the disk.
        span = span.saturating_add(span).saturating_add(SYNC_MAX.0);
        for (primitive, _) in steps.iter().skip(place + 1) {
            back += 1;
            let step = limit(primitive).0.saturating_add(SYNC_MAX.0);
            let undo = if primitive.reversal() == Reversal::Compensated {
                step
            } else {
                0
            };
            span = span.saturating_add(step).saturating_add(undo);
            if primitive.service() == first.service() && primitive.unfreezes() {
                break;
            }
        }
    }
    // A plan has at most 8 steps.
    (Millis(span), u8::try_from(back).unwrap_or(u8::MAX))
}

/// Whose budget a plan is charged to: that of the most critical service of this
/// node that it changes; of one that changes only routes, that of the least
/// critical there is.
#[must_use]
pub fn class(plan: &Plan, facts: &Facts) -> Criticality {
    plan.steps()
        .filter(|primitive| primitive.writes())
        .flat_map(Primitive::touched)
        .filter_map(|id| facts.services.get(id))
        .map(|service| service.criticality)
        .max()
        .or_else(|| facts.services.values().map(|one| one.criticality).min())
        .unwrap_or(Criticality::BestEffort)
}

/// The steps in order, each with whether its service gets traffic when it
/// begins. One that every route of it has been told to spare gets none: to
/// restart it takes nothing away from anybody.
pub(super) fn traffic<'p>(
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
/// are for: whoever is restarted, started or waited for serves all its users, and
/// who is frozen serves none. This is what the effect of a step is compared with.
#[must_use]
pub fn prospect(plan: &Plan, through: usize, facts: &Facts) -> Ratio {
    let known: BTreeMap<&ServiceId, Ratio> = plan
        .steps()
        .take(through.saturating_add(1))
        .filter_map(|primitive| {
            let health = match primitive.signature().effect {
                Effect::Serves => Ratio::ONE,
                Effect::Halts => Ratio::ZERO,
                _ => return None,
            };
            Some((primitive.service()?, health))
        })
        .collect();
    weighted(facts, |id, service| {
        known.get(id).copied().unwrap_or(service.health)
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
