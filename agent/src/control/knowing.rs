//! What is known of the node, as the gate is told it.

use std::collections::BTreeSet;

use homeostat_common::anomaly::Fault;
use homeostat_common::gate::{self, Facts, ServiceFacts};
use homeostat_common::ids::{ConfigVersion, ServiceId};
use homeostat_common::primitive::Grant;
use homeostat_common::units::{Micros, Millis, Ratio};

use super::Loop;
use crate::plan::Recipe;
use crate::service::{Slot, SlotName, Watched};

impl Loop {
    /// What the rules need to know.
    pub(super) fn facts(
        &self,
        now: Micros,
        service: &ServiceId,
        fault: Fault,
        recipe: Recipe,
    ) -> Facts {
        let mut facts = self.facts_of(now, |id| {
            if id == service {
                self.experience.record(fault, recipe).failure_share()
            } else {
                Ratio::ZERO
            }
        });
        // What a service tells of itself is all that this diagnosis rests on.
        if fault == Fault::Saturation
            && let Some(watched) = self.services.get(service)
        {
            let frozen = watched.frozen();
            for facts in facts.services.values_mut() {
                facts.frozen.clone_from(&frozen);
            }
        }
        facts
    }

    pub(super) fn facts_of(
        &self,
        now: Micros,
        failure_share: impl Fn(&ServiceId) -> Ratio,
    ) -> Facts {
        let services = self
            .services
            .iter()
            .map(|(id, watched)| {
                let pace = self.paces.get(id);
                let leased = self
                    .incidents
                    .get(id)
                    .and_then(|incident| incident.execution.as_ref())
                    .map(|execution| execution.id)
                    .or_else(|| self.part_on(id));
                let facts = ServiceFacts {
                    mode: watched.policy.mode,
                    modes: watched.policy.modes.clone(),
                    maintenance: None,
                    protected: watched.policy.protected,
                    criticality: watched.policy.criticality,
                    dead: matches!(watched.slot, Slot::Down { last: Some(_), .. }),
                    answering: watched.answering(now),
                    health: watched.health(now),
                    at_rest: !watched.wanted(),
                    fresh: self.fresh(watched, now),
                    frozen: None,
                    leased,
                    held_until: pace.and_then(|pace| pace.held_until),
                    quarantined_until: pace.and_then(|pace| pace.quarantined_until),
                    backoff_until: pace.and_then(|pace| pace.backoff_until),
                    contested: self.rivals.contested(id, now),
                    start_timeout: watched.policy.start_timeout,
                    models: watched.at_hand(SlotName::Model).collect(),
                    configs: watched
                        .at_hand(SlotName::Config)
                        .map(|version| ConfigVersion(version.0))
                        .collect(),
                    grants: self.grants(watched),
                    blockable: watched.policy.blockable.clone(),
                    failure_share: failure_share(id),
                };
                (id.clone(), facts)
            })
            .collect();
        let mut facts = Facts {
            now,
            mode: self.limits.mode,
            stopped: None,
            maintenance: None,
            approved: self.approvals.approved.clone(),
            services,
            routes: self
                .routes
                .iter()
                .map(|(id, route)| (id.clone(), route.facts()))
                .collect(),
            uplinks: self.uplinks.iter().cloned().collect(),
            webhooks: self.controls.webhooks().cloned().collect(),
            spawner: self.spawner,
            forwarder: self.routes_fresh(now),
        };
        self.controls.state_facts(&mut facts);
        facts
    }

    /// What the configuration allows for a service besides the usual.
    fn grants(&self, watched: &Watched) -> BTreeSet<Grant> {
        let mut grants = watched.policy.grants();
        if self.time_servers {
            grants.insert(Grant::Clock);
        }
        grants
    }

    /// What the node's services serve of what they should.
    pub(super) fn health(&self, now: Micros) -> Ratio {
        let facts = self.facts_of(now, |_| Ratio::ZERO);
        gate::health(&facts)
    }

    /// Whether what is known about a service is of now.
    pub(super) fn fresh(&self, watched: &Watched, now: Micros) -> bool {
        let recent = |at: Option<Micros>, span: Millis| at.is_some_and(|at| now.since(at) <= span);
        let patience = watched
            .policy
            .probes
            .iter()
            .map(|probe| Millis(3 * (probe.period.0 + probe.timeout.0)))
            .max();
        // That it has no process is the kernel's word; nobody is probed then.
        let down = matches!(watched.slot, Slot::Down { .. });
        recent(self.sampled, self.pacing.stale())
            && (down || patience.is_none_or(|patience| recent(watched.probed, patience)))
    }
}
