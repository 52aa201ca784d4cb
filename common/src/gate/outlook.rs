//! What a plan would cost, and the health it leads to.
//!
//! In go a plan and the facts of the moment; out come a [`Cost`] that is an upper
//! bound, and shares of the node's health. It is arithmetic over the facts:
//! nothing here forbids a plan, and nothing is learnt or rolled out.

use alloc::collections::{BTreeMap, BTreeSet};

use super::{Facts, ServiceFacts};
use crate::budget::Cost;
use crate::ids::{RouteId, ServiceId};
use crate::plan::Plan;
use crate::primitive::{Effect, Primitive};
use crate::units::Ratio;

/// How long a service that a failed action leaves broken stays so until the
/// next attempt; weighs the risk term.
const RISK_SPAN_S: f64 = 10.0;

/// What the restart of a service may cost besides taking it away: its own work
/// and the risk of a recipe that always failed.
pub const ACTION_COST_MAX: f64 = 0.02 + RISK_SPAN_S;

/// Upper bound of what a plan costs: what it takes away from services that
/// still answer. Starting a dead process takes nothing away.
#[must_use]
pub fn cost(plan: &Plan, facts: &Facts) -> Cost {
    let mut sum = Cost::default();
    for (primitive, used) in traffic(plan, facts) {
        if !primitive.writes() {
            continue;
        }
        let resource = primitive.signature().work;
        let Some((id, service)) = primitive
            .service()
            .and_then(|id| facts.services.get_key_value(id))
        else {
            sum = sum.plus(Cost {
                resource,
                ..Cost::default()
            });
            continue;
        };
        let share = share(facts, id);
        let away = if primitive.interrupts() && service.answering && used {
            primitive.deadline(service.start_timeout).as_secs_f64()
        } else {
            0.0
        };
        sum = sum.plus(Cost {
            resource,
            disruption: share * away,
            risk: share * RISK_SPAN_S * f64::from(service.failure_share.get()),
        });
    }
    sum
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
