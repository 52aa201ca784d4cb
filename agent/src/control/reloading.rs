//! A new configuration while the services run: what changed is restarted, and
//! nothing else notices.

use std::collections::BTreeSet;

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::gate::{self, Purpose, Rule};
use homeostat_common::ids::ServiceId;
use homeostat_common::outcome::Outcome;
use homeostat_common::plan::{Branch, Plan};
use homeostat_common::primitive::Primitive;
use homeostat_common::units::{Micros, Millis, Ratio};
use homeostat_common::wire::body::Source;

use super::message::Effect;
use super::{Incident, Loop, budgeting, routing, start_order};
use crate::config::{Config, Service};
use crate::plan::{Candidate, Recipe};
use crate::route::Routed;
use crate::service::{Slot, Watched};

/// A restart that the gate refuses for now is asked for again after this.
const RENEW_AGAIN: Millis = Millis::secs(1);

impl Loop {
    /// Takes a checked configuration over. Services that are new are started,
    /// those that are gone are ended, and those whose process would be another
    /// one are restarted, one after the other, as the gate admits it.
    pub(super) fn absorb_config(
        &mut self,
        now: Micros,
        config: &Config,
        effects: &mut Vec<Effect>,
    ) {
        let gone: Vec<ServiceId> = self
            .services
            .keys()
            .filter(|id| config.service(id).is_none())
            .cloned()
            .collect();
        for id in gone {
            if let Some(watched) = self.services.remove(&id)
                && let Some(instance) = watched.instance()
            {
                effects.push(Effect::Retire(
                    id.clone(),
                    instance,
                    watched.policy.stop_grace,
                ));
            }
            if let Some(mut incident) = self.incidents.remove(&id) {
                if let Some(mut execution) = incident.execution.take() {
                    self.pay(&mut incident, &mut execution, false, now, effects);
                }
                self.close(&incident, Outcome::Undone, now, effects);
            }
            for what in super::alarms::OF_SERVICE {
                self.clear(&format!("{id}-{what}"), effects);
            }
            self.settling.remove(&id);
            self.paces.remove(&id);
            self.renewing.remove(&id);
            self.controls.forget(&id);
            self.rivals.forget(&id);
        }
        for service in &config.services {
            match self.services.remove(&service.id) {
                Some(watched) => {
                    if other_process(&watched.policy, service) && watched.wanted() {
                        self.renewing.insert(service.id.clone());
                    }
                    let renewed = watched.under(service.clone(), now);
                    self.services.insert(service.id.clone(), renewed);
                }
                None => {
                    let mut watched = Watched::new(service.clone(), now);
                    if watched.wanted() && self.spawner {
                        watched.slot = Slot::Starting { since: now };
                        effects.push(Effect::Start(service.id.clone()));
                    }
                    self.services.insert(service.id.clone(), watched);
                }
            }
        }
        let shares = budgeting::shares(&config.services);
        self.budget.reconfigure(config.limits.budget, shares, now);
        self.limits = config.limits.clone();
        self.controls.renew(config);
        self.renew_foresight(config, effects);
        self.renew_noticing(config.detect, effects);
        self.start_order = start_order(config);
        let mut routes = routing::routes(config);
        for (id, route) in &mut routes {
            if let Some(former) = self.routes.remove(id).filter(|former| same(former, route)) {
                route.take_over(former);
            }
        }
        self.routes = routes;
        self.renew_suspecting();
        effects.push(Effect::Remember);
    }

    /// Restarts what a new configuration has changed, as far as the gate lets it.
    pub(super) fn renew(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        for id in self.renewing.clone() {
            // One at a time: the next begins when this one works.
            let busy = self
                .incidents
                .values()
                .any(|incident| incident.symptom == Symptom::Requested);
            if busy {
                return;
            }
            // One that is ill is not waited for by the others.
            if self.incidents.contains_key(&id) || self.renew_at > now {
                continue;
            }
            let Some(watched) = self.services.get(&id) else {
                continue;
            };
            let restart = Primitive::Restart {
                service: id.clone(),
                grace: watched.policy.stop_grace,
            };
            let route = self.route_of(&id).filter(|route| route.feeds(&id));
            let route = route.map(|route| route.id.clone());
            let drained = route.and_then(|route| {
                let isolate = Primitive::Isolate {
                    route: route.clone(),
                    backend: id.clone(),
                    drain: watched.policy.stop_grace,
                };
                let release = Primitive::Release {
                    route,
                    backend: id.clone(),
                };
                let steps = [isolate, restart.clone(), release];
                Plan::new(Branch::Series(steps.map(Branch::Step).into())).ok()
            });
            let options: Vec<Candidate> = drained
                .into_iter()
                .chain([Plan::single(restart)])
                .map(|plan| Candidate {
                    recipe: Recipe::Requested,
                    plan,
                    source: Source::Operator,
                    purpose: Purpose::Operate,
                })
                .collect();
            // Tried in thought first: what passes by itself is waited for.
            let facts = self.facts(now, &id, Fault::Request, Recipe::Requested);
            let refusals: Vec<gate::Rejection> = options
                .iter()
                .map_while(|option: &Candidate| {
                    let mut thought = self.budget.clone();
                    let plan = option.plan.clone();
                    gate::verify(plan, option.purpose, &facts, &mut thought).err()
                })
                .collect();
            let passes = |one: &gate::Rejection| {
                matches!(
                    one.rule,
                    Rule::UnderRepair | Rule::BlastRadius | Rule::SpawnerLost | Rule::Budget
                )
            };
            if refusals.len() == options.len() && refusals.iter().any(passes) {
                self.renew_at = now + RENEW_AGAIN;
                continue;
            }
            let number = self.mint_incident();
            let (symptom, fault) = (Symptom::Requested, Fault::Request);
            let mut incident = Incident::new(number, id.clone(), symptom, fault, now);
            incident.confidence = Ratio::ONE;
            let evidence = vec![format!("the configuration of {id} has changed")];
            self.tell_opened(&mut incident, evidence, now, effects);
            self.choose(&mut incident, options, now, effects);
            self.renewing.remove(&id);
            if incident.plan().is_some() {
                self.incidents.insert(id, incident);
            } else {
                let text = format!(
                    "{id} still runs with its former configuration; the new one is for its next \
                     start"
                );
                self.note(Some(&id), text, effects);
                self.close(&incident, Outcome::Refused, now, effects);
            }
        }
    }
}

/// Whether a process started now would be another one than that which runs.
fn other_process(former: &Service, service: &Service) -> bool {
    former.process != service.process
        || former.env != service.env
        || former.cwd != service.cwd
        || former.user != service.user
        || former.ports != service.ports
        || former.memory_limit != service.memory_limit
        || former.log != service.log
}

/// Whether two routes lead to the same places.
fn same(former: &Routed, route: &Routed) -> bool {
    let places = |route: &Routed| -> BTreeSet<_> {
        let backends = route.backends.iter();
        backends
            .map(|(id, one)| (id.clone(), one.address, one.configured))
            .collect()
    };
    former.listen == route.listen && places(former) == places(route)
}
