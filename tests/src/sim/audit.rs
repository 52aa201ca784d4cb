//! What must hold in every run, checked while it goes on.

use std::collections::{BTreeMap, BTreeSet};

use homeostat_agent::config::Config;
use homeostat_agent::control::{HealRecord, Loop};
use homeostat_common::ids::{IncidentId, PlanId, ServiceId};
use homeostat_common::transaction::Record;
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::body::{Body, Source};

use super::disk::Disk;

/// Steps of the loop in one simulated second; a storm of all probes, deaths and
/// samples of a few services needs less than half of it.
const STEPS_PER_SECOND_MAX: u32 = 600;

/// A plan as the harness saw it.
#[derive(Debug, Clone)]
struct Seen {
    service: ServiceId,
    revive: bool,
    begun: Micros,
    ended: bool,
}

/// Keeps count, and every broken promise.
#[derive(Debug)]
pub(super) struct Audit {
    hold: Millis,
    plans: BTreeMap<PlanId, Seen>,
    /// End of the last healing that was no revival.
    healed: BTreeMap<ServiceId, Micros>,
    incidents: BTreeMap<IncidentId, ServiceId>,
    /// How often each incident was closed.
    closed: BTreeMap<IncidentId, u32>,
    costs: Vec<(Micros, f64)>,
    overruns: u64,
    second: (u64, u32),
    /// When the agent last lost its memory or its spawner.
    pub(super) confused: Option<Micros>,
    pub(super) crashes: u32,
    pub(super) broken: Vec<String>,
}

impl Audit {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            hold: config.limits.hold,
            plans: BTreeMap::new(),
            healed: BTreeMap::new(),
            incidents: BTreeMap::new(),
            closed: BTreeMap::new(),
            costs: Vec::new(),
            overruns: 0,
            second: (0, 0),
            confused: None,
            crashes: 0,
            broken: Vec::new(),
        }
    }

    pub(super) fn broke(&mut self, now: Micros, what: impl std::fmt::Display) {
        self.broken.push(format!("{now} {what}"));
    }

    /// The loop was moved.
    pub(super) fn stepped(&mut self, now: Micros, own_now: Micros, agent: &Loop) {
        let second = now.0 / 1_000_000;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        if self.second.1 == STEPS_PER_SECOND_MAX {
            self.broke(now, format!("{STEPS_PER_SECOND_MAX} steps in one second"));
        }
        if let Some(wake) = agent.next_wake()
            && wake <= own_now
        {
            self.broke(now, format!("asks to be woken at {wake}, now is {own_now}"));
        }
        let mut overruns = 0;
        for standing in agent.budget().standings() {
            if standing.balance < 0.0 || standing.balance > standing.beta {
                self.broke(now, format!("the budget stands at {standing:?}"));
            }
            overruns += standing.overruns;
        }
        if overruns > std::mem::replace(&mut self.overruns, overruns) {
            self.broke(now, "a plan cost more than its bound");
        }
    }

    pub(super) fn journalled(&mut self, now: Micros, record: &HealRecord) {
        match record {
            HealRecord::Opened { .. } | HealRecord::Closed(_) => {}
            HealRecord::Begun {
                plan,
                incident,
                revive,
                source,
                ..
            } => {
                let Some(service) = self.incidents.get(incident).cloned() else {
                    self.broke(now, format!("plan {plan} belongs to no incident"));
                    return;
                };
                let last = self.healed.get(&service).copied();
                // A person is not held back, and holds nobody back.
                let asked = *source == Source::Operator;
                if let Some(last) = last.filter(|_| !revive && !asked)
                    && now.since(last) < self.hold
                {
                    let gap = now.since(last);
                    self.broke(now, format!("{service} is healed again after {gap}"));
                }
                self.plans.insert(
                    *plan,
                    Seen {
                        service,
                        revive: *revive || asked,
                        begun: now,
                        ended: false,
                    },
                );
            }
            HealRecord::Step(plan, Record::Ended(_)) => match self.plans.get_mut(plan) {
                Some(seen) if !seen.ended => {
                    seen.ended = true;
                    if !seen.revive {
                        self.healed.insert(seen.service.clone(), now);
                    }
                }
                _ => self.broke(now, format!("plan {plan} ends a second time")),
            },
            HealRecord::Step(plan, _) => {
                if self.plans.get(plan).is_none_or(|seen| seen.ended) {
                    self.broke(now, format!("plan {plan} moves, but does not run"));
                }
            }
        }
    }

    pub(super) fn emitted(&mut self, now: Micros, body: &Body) {
        match body {
            Body::IncidentOpened(body) => {
                let former = self.incidents.insert(body.incident, body.service.clone());
                if former.is_some_and(|former| former != body.service) {
                    self.broke(now, format!("{} changes its service", body.incident));
                }
            }
            Body::IncidentClosed(body) => {
                *self.closed.entry(body.incident).or_default() += 1;
                self.costs.push((now, f64::from(body.cost)));
            }
            Body::Decided(body) if body.balance < 0.0 => {
                self.broke(now, format!("{} overdraws the budget", body.incident));
            }
            _ => {}
        }
    }

    /// A process is about to be ended. `faulty`: something was wrong with it.
    pub(super) fn ends(&mut self, now: Micros, service: &ServiceId, faulty: bool, agent: &Loop) {
        let plan = agent
            .incidents()
            .find(|incident| incident.service == *service)
            .and_then(|incident| incident.plan());
        let Some((plan, _)) = plan else {
            self.broke(now, format!("{service} is ended without a plan"));
            return;
        };
        let begun = self.plans.get(&plan).map(|seen| seen.begun);
        // A restart that was cut short is done again.
        let again = self.confused >= begun;
        if !faulty && !again {
            self.broke(now, format!("{service} was sound, and is ended"));
        }
    }

    /// The agent lost its memory: what its disk does not know, never was.
    pub(super) fn crashed(&mut self, now: Micros, disk: &Disk) {
        self.confused = Some(now);
        self.crashes += 1;
        let known: BTreeSet<PlanId> = disk
            .records()
            .filter_map(|record| match record {
                HealRecord::Begun { plan, .. } => Some(*plan),
                _ => None,
            })
            .collect();
        let ended: BTreeSet<PlanId> = disk
            .records()
            .filter_map(|record| match record {
                HealRecord::Step(plan, Record::Ended(_)) => Some(*plan),
                _ => None,
            })
            .collect();
        self.plans.retain(|plan, _| known.contains(plan));
        for (plan, seen) in &mut self.plans {
            seen.ended = ended.contains(plan);
        }
        // The same for incidents: the log is the truth.
        self.incidents.clear();
        self.closed.clear();
        let mut costs = Vec::new();
        for body in disk.events() {
            match body {
                Body::IncidentOpened(body) => {
                    self.incidents.insert(body.incident, body.service.clone());
                }
                Body::IncidentClosed(body) => {
                    *self.closed.entry(body.incident).or_default() += 1;
                    costs.push(body.incident);
                }
                _ => {}
            }
        }
        for record in disk.records() {
            if let HealRecord::Opened {
                incident, service, ..
            } = record
            {
                self.incidents.insert(*incident, service.clone());
            }
        }
    }

    /// The node has come to rest.
    pub(super) fn at_rest(&mut self, now: Micros, beta: f64) {
        let open: Vec<PlanId> = self
            .plans
            .iter()
            .filter(|(_, seen)| !seen.ended)
            .map(|(plan, _)| *plan)
            .collect();
        for plan in open {
            self.broke(now, format!("plan {plan} was begun and never ended"));
        }
        let opened: Vec<IncidentId> = self.incidents.keys().copied().collect();
        for incident in opened {
            let times = self.closed.get(&incident).copied().unwrap_or(0);
            // A crash between an event and its record doubles the event.
            if times == 0 || (times > 1 && self.crashes == 0) {
                self.broke(now, format!("{incident} was closed {times} times"));
            }
        }
        let gamma: f64 = 1.0 - 1.0 / homeostat_common::budget::HORIZON_STEPS;
        for (start, _) in self.costs.clone() {
            let later = self.costs.iter().filter(|(at, _)| *at >= start);
            let sum: f64 = later
                .map(|(at, cost)| cost * gamma.powf(at.since(start).as_secs_f64()))
                .sum();
            if sum > beta + 1e-6 {
                self.broke(now, format!("{sum:.2} was spent from {start} on"));
            }
        }
    }

    pub(super) fn ended_plans(&self) -> usize {
        self.plans.values().filter(|seen| seen.ended).count()
    }
}
