//! Whether a plan leaves a route without a healthy backend on its way.
//!
//! In go a plan and the facts; out comes the objection of one rule. The plan is
//! played through on the routes. Steps of other branches that run side by side
//! may be under way at any time, so whoever those take away counts as away.

use alloc::collections::BTreeSet;

use super::rules::Objection;
use super::{BackendFacts, Facts, RouteFacts};
use crate::ids::{RouteId, ServiceId};
use crate::plan::{Branch, Plan};
use crate::primitive::{Effect, Primitive};

/// Who cannot be counted on.
#[derive(Debug, Clone, Default)]
struct Away<'p> {
    /// Backends that a route sends nothing.
    spared: BTreeSet<(&'p RouteId, &'p ServiceId)>,
    /// Services whose process does nothing.
    halted: BTreeSet<&'p ServiceId>,
}

/// The routes as a plan has changed them so far.
struct Played<'p> {
    facts: &'p Facts,
    away: Away<'p>,
    /// Backends that this plan gives traffic to.
    fed: BTreeSet<(&'p RouteId, &'p ServiceId)>,
}

/// The first step that leaves a route without a backend: because it takes the last
/// one's traffic, or because it takes a process away while the others have been
/// sent away by this plan or are under repair and will be back in a moment. A
/// route that has but one is no reason to leave that one ill.
pub(super) fn last_backend(plan: &Plan, facts: &Facts) -> Option<Objection> {
    let mut played = Played {
        facts,
        away: Away::default(),
        fed: BTreeSet::new(),
    };
    played.play(plan.root(), &Away::default())
}

impl<'p> Played<'p> {
    fn play(&mut self, branch: &'p Branch, beside: &Away<'p>) -> Option<Objection> {
        match branch {
            Branch::Step(primitive) => self.step(primitive, beside),
            Branch::Series(inner) => inner.iter().find_map(|one| self.play(one, beside)),
            Branch::Parallel(inner) => inner.iter().enumerate().find_map(|(place, one)| {
                let mut beside = beside.clone();
                for (other, branch) in inner.iter().enumerate() {
                    if other != place {
                        takes(branch, &mut beside);
                    }
                }
                self.play(one, &beside)
            }),
        }
    }

    fn step(&mut self, primitive: &'p Primitive, beside: &Away<'p>) -> Option<Objection> {
        if primitive.interrupts()
            && let Some(own) = primitive.service()
            && let Some(objection) = self.taken(own, beside)
        {
            return Some(objection);
        }
        if let Some(own) = primitive.service() {
            if primitive.unfreezes() {
                self.away.halted.remove(own);
            } else if primitive.signature().effect == Effect::Halts {
                self.away.halted.insert(own);
            }
        }
        let id = primitive.route()?;
        let spares = primitive.isolates();
        for backend in primitive.backends() {
            if spares == Some(backend) {
                self.away.spared.insert((id, backend));
                self.fed.remove(&(id, backend));
            } else {
                self.away.spared.remove(&(id, backend));
                self.fed.insert((id, backend));
            }
        }
        let (own, route) = (spares?, self.facts.routes.get(id)?);
        (!self.others(id, route, own, beside)).then(|| {
            let text = alloc::format!("without {own}, route {id} has no healthy backend");
            (text, None)
        })
    }

    /// A process is taken away: what its routes have besides.
    fn taken(&self, own: &ServiceId, beside: &Away<'p>) -> Option<Objection> {
        self.facts.routes.iter().find_map(|(id, route)| {
            let known = route.backends.get(own)?;
            if !self.gets(id, own, *known) || self.others(id, route, own, beside) {
                return None;
            }
            let before = Played {
                facts: self.facts,
                away: Away::default(),
                fed: BTreeSet::new(),
            };
            if before.others(id, route, own, &Away::default()) {
                let text = alloc::format!(
                    "while {own} is away, route {id} has no healthy backend: this plan takes the \
                     others from it"
                );
                return Some((text, None));
            }
            let repaired = route.backends.keys().find(|peer| {
                let here = self.facts.services.get(*peer);
                *peer != own && here.is_some_and(|one| one.leased.is_some())
            })?;
            let text =
                alloc::format!("{repaired}, the other backend of route {id}, is under repair");
            Some((text, None))
        })
    }

    /// Whether a route sends a backend something by now.
    fn gets(&self, id: &'p RouteId, backend: &ServiceId, known: BackendFacts) -> bool {
        let listed =
            |list: &BTreeSet<(&RouteId, &ServiceId)>| list.iter().any(|one| *one == (id, backend));
        !listed(&self.away.spared) && (known.weight > 0 || listed(&self.fed))
    }

    /// Whether another backend of the route can be counted on.
    fn others(
        &self,
        id: &'p RouteId,
        route: &'p RouteFacts,
        own: &ServiceId,
        beside: &Away<'p>,
    ) -> bool {
        let mut others = route.backends.iter().filter(|one| one.0 != own);
        others.any(|(other, known)| {
            // What the forwarder says of it may be older than what is known here.
            let stays = self.facts.services.get(other).is_none_or(|service| {
                service.answering && service.leased.is_none() && !service.at_rest
            });
            known.healthy
                && stays
                && self.gets(id, other, *known)
                && !self.away.halted.contains(other)
                && !beside.halted.contains(other)
                && !beside.spared.contains(&(id, other))
        })
    }
}

/// Whom a branch takes away at some time.
fn takes<'p>(branch: &'p Branch, away: &mut Away<'p>) {
    match branch {
        Branch::Step(primitive) => {
            if primitive.interrupts() {
                away.halted.extend(primitive.service());
            }
            away.spared
                .extend(primitive.route().into_iter().zip(primitive.isolates()));
        }
        Branch::Series(inner) | Branch::Parallel(inner) => {
            for one in inner {
                takes(one, away);
            }
        }
    }
}
