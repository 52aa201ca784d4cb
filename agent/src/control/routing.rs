//! Routes: what the forwarder says about them, and what is told of them.

use homeostat_common::ids::{RouteId, ServiceId};
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::body::{Body, Severity};

use super::message::{Class, Effect, RouteSample};
use super::{Incident, Loop};
use crate::config::Config;
use crate::execute::{Order, View};
use crate::route::Routed;

/// The alarm that the forwarder's numbers do not move.
const FROZEN: &str = "forwarder-frozen";

impl Loop {
    /// What steps can see.
    pub(super) fn view(&self, now: Micros) -> View<'_> {
        View {
            services: &self.services,
            routes: &self.routes,
            routed: self.routed.map(|(_, at)| at),
            now,
        }
    }

    /// The forwarder has reported. A report whose number does not move is an
    /// old one: then nothing is known of now.
    pub(super) fn absorb_routes(&mut self, now: Micros, seq: u64, routes: &[RouteSample]) {
        // It answers, whatever its numbers are worth.
        if let Some(forwarder) = self.services.get_mut(&forwarder()) {
            forwarder.heard = Some(now);
        }
        if self.routed.is_some_and(|(last, _)| last == seq) {
            return;
        }
        let lost = self.routed.is_none();
        self.routed = Some((seq, now));
        for sample in routes {
            if let Some(route) = self.routes.get_mut(&sample.route) {
                route.absorb(now, sample);
            }
        }
        if lost {
            self.repeat_routes = true;
        }
        self.reweigh(now);
    }

    /// A standby that was called for before a reboot gets its share again once it
    /// works: the forwarder has forgotten what it was told.
    fn reweigh(&mut self, now: Micros) {
        for id in std::mem::take(&mut self.reweigh) {
            let works = self.services.get(&id).is_some_and(|one| one.proven(now));
            let Some(route) = self.route_of(&id).filter(|_| works) else {
                self.reweigh.insert(id);
                continue;
            };
            let order = Order::SetWeight(route.id.clone(), id, route.scaled_out());
            self.waiting_orders.push(order);
        }
    }

    /// Whether what is known of the routes is of now.
    pub(super) fn routes_fresh(&self, now: Micros) -> bool {
        self.routed
            .is_some_and(|(_, at)| now.since(at) <= self.pacing.reports_stale())
    }

    /// A backend has no connections left.
    pub(super) fn absorb_drained(&mut self, now: Micros, route: &RouteId, backend: &ServiceId) {
        self.part_drained(route, backend, now);
        // What a step orders when it goes on is handed out with its next move.
        let view = View {
            services: &self.services,
            routes: &self.routes,
            routed: self.routed.map(|(_, at)| at),
            now,
        };
        let mut orders = Vec::new();
        for incident in self.incidents.values_mut() {
            let Some(execution) = &mut incident.execution else {
                continue;
            };
            execution.runs.drained(route, backend, view, &mut orders);
        }
        self.waiting_orders.extend(orders);
    }

    /// Tells what has changed about the routes.
    pub(super) fn tell_routes(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let reached = self.routes_fresh(now);
        let heard = self.services.get(&forwarder()).and_then(|one| one.heard);
        let answers = heard.is_some_and(|at| now.since(at) <= self.pacing.reports_stale());
        if !reached && answers && self.routed.is_some() {
            let text = "the forwarder answers, but its numbers do not move: nothing is decided on \
                        them";
            let text = text.to_owned();
            self.raise(FROZEN, Some(&forwarder()), Severity::Warning, text, effects);
        } else if reached {
            self.clear(FROZEN, effects);
        }
        if !reached && self.routed.is_none() {
            return;
        }
        let mut changes = Vec::new();
        for route in self.routes.values_mut() {
            let change = route.change(reached);
            if route.told.as_ref() != Some(&change) {
                route.told = Some(change.clone());
                changes.push(change);
            }
        }
        for change in changes {
            self.emit(Class::State, &[], Body::RouteChange(change), effects);
        }
    }

    /// The route behind which a service of this node stands.
    pub(super) fn route_of(&self, service: &ServiceId) -> Option<&Routed> {
        self.routes.values().find(|route| {
            route
                .backends
                .values()
                .any(|backend| backend.service.as_ref() == Some(service))
        })
    }

    /// A standby behind that route that does not run.
    pub(super) fn standby_of(&self, route: &Routed) -> Option<ServiceId> {
        route
            .backends
            .values()
            .filter_map(|backend| backend.service.as_ref())
            .find(|id| {
                let rests = self.services.get(*id).is_some_and(|one| !one.wanted());
                rests && !self.named_in_a_plan(id)
            })
            .cloned()
    }

    /// Whether a plan that runs touches that service.
    pub(super) fn named_in_a_plan(&self, service: &ServiceId) -> bool {
        let plans = self.incidents.values().filter_map(Incident::plan);
        let mut steps = plans.flat_map(|(_, plan)| plan.steps());
        steps.any(|step| step.service() == Some(service))
    }

    /// When the forwarder counts as silent, for the next wake-up.
    pub(super) fn silence_at(&self) -> Option<Micros> {
        let (_, at) = self.routed?;
        Some(at + self.pacing.reports_stale() + Millis(1))
    }
}

/// The service that is the forwarder.
pub(super) fn forwarder() -> ServiceId {
    crate::config::forwarder_id()
}

/// The routes of a configuration.
pub(super) fn routes(config: &Config) -> std::collections::BTreeMap<RouteId, Routed> {
    config
        .forwards
        .iter()
        .map(|forward| {
            let callers = config
                .services
                .iter()
                .filter(|service| service.calls.contains(&forward.id))
                .map(|service| service.id.clone())
                .collect();
            (forward.id.clone(), Routed::new(forward, callers))
        })
        .collect()
}
