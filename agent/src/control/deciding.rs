//! From a finding to a plan that passed the gate, or to the reason why none did.

use std::collections::BTreeMap;

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::gate::{self, Facts, Purpose, Rule};
use homeostat_common::ids::{ConfigVersion, ServiceId};
use homeostat_common::outcome::Outcome;
use homeostat_common::plan::Plan;
use homeostat_common::primitive::{Grant, Primitive};
use homeostat_common::transaction::{Ending, Transaction};
use homeostat_common::units::{Micros, Millis, Ratio, narrow};
use homeostat_common::wire::body::{Body, Considered, Decided, Refusal, ServiceState};

use super::budgeting::Meter;
use super::incident::Execution;
use super::message::{Class, Effect, HealRecord};
use super::{Incident, Loop};
use crate::config::Reload;
use crate::detect::{self, Finding};
use crate::diagnose::{self, diagnose};
use crate::execute::Runs;
use crate::plan::{Candidate, Target, candidates};
use crate::service::{Slot, SlotFile, SlotName, SlotWatch};
use crate::verify::Pace;

/// Longest wait for a look at a slot. A large model on a slow card takes seconds;
/// with no answer what is there is taken for bad, since putting back what worked
/// does no harm.
const SLOT_CHECK_MAX: Millis = Millis::secs(10);

/// A refusal that names no time is looked at again after this.
const RETRY: Millis = Millis(250);

/// After everything was tried, a person is called and it starts over no sooner.
const START_OVER: Millis = Millis::secs(60);

impl Loop {
    /// One service: opens, treats or closes its incident.
    pub(super) fn look_after(&mut self, id: &ServiceId, now: Micros, effects: &mut Vec<Effect>) {
        let Some(watched) = self.services.get(id) else {
            return;
        };
        let slow = self
            .route_of(id)
            .filter(|_| self.routes_fresh(now))
            .and_then(|route| route.slow(id));
        let finding = detect::examine(watched, slow, now);
        let finding = finding.or_else(|| self.foreseen(id, now));
        let finding = finding.map(|finding| self.weigh(id, finding, now));
        let state = watched.state(now);
        let slot = watched.slot;
        let broken = |one: &Finding| one.symptom != Symptom::Foreseen;
        let well = !finding.as_ref().is_some_and(broken) && state == ServiceState::Healthy;
        let well_since = self.controls.well_since(id, well, now);
        if let Some(mut incident) = self.incidents.remove(id) {
            if self.spawner && slot != Slot::Unknown {
                self.take_up(&mut incident, now, effects);
            }
            if let Some(finding) = &finding {
                give_way(&mut incident, finding);
            }
            let over = incident.execution.is_none()
                && incident.cut_short.is_none()
                && match finding {
                    Some(finding) => {
                        self.treat(&mut incident, &finding, now, effects);
                        false
                    }
                    None => matches!(
                        state,
                        ServiceState::Healthy | ServiceState::Standby | ServiceState::Paused
                    ),
                };
            if over {
                let outcome = match incident.former {
                    Some(Ending::Done) => Outcome::Healed,
                    Some(Ending::Undone) if incident.symptom == Symptom::Requested => {
                        Outcome::Undone
                    }
                    _ if incident.escalated => Outcome::Escalated,
                    _ if !incident.refused.is_empty() => Outcome::Refused,
                    _ => Outcome::Recovered,
                };
                self.close(&incident, outcome, now, effects);
            } else {
                self.incidents.insert(id.clone(), incident);
            }
            return;
        }
        match finding {
            Some(finding) if self.held_back(id, &finding, now, effects) => {}
            Some(finding) => {
                let number = self.mint_incident();
                let mut incident = Incident::new(
                    number,
                    id.clone(),
                    finding.symptom,
                    Fault::Crash,
                    finding.since,
                );
                self.treat(&mut incident, &finding, now, effects);
                self.incidents.insert(id.clone(), incident);
            }
            None => {
                self.telling.held_back.remove(id);
                // Well without a break: a process that only lives forgives nothing.
                if let (Slot::Up { since, .. }, ServiceState::Healthy) = (slot, state)
                    && let Some(pace) = self.paces.get_mut(id)
                {
                    pace.lived(now.since(since.max(well_since)), &self.limits);
                }
                if state == ServiceState::Healthy {
                    self.keep_slots(id, now, effects);
                }
            }
        }
    }

    /// What a service has worked with for a while is good.
    fn keep_slots(&mut self, id: &ServiceId, now: Micros, effects: &mut Vec<Effect>) {
        let stable = self.limits.restart.stable;
        let Some(watched) = self.services.get_mut(id) else {
            return;
        };
        let watches: Vec<SlotName> = watched
            .slots
            .keys()
            .copied()
            .filter(|name| watched.watches(*name))
            .collect();
        for (name, slot) in &mut watched.slots {
            if slot.keep_at.is_some_and(|at| at <= now) {
                slot.keep_at = None;
                // Another one may have been put there meanwhile; it has not
                // shown anything yet.
                if let Some(version) = slot.candidate.take() {
                    effects.push(Effect::KeepSlot(id.clone(), *name, version));
                }
            } else if slot.untried() && watches.contains(name) {
                slot.prove(now + stable);
                slot.candidate = slot.found.present;
            }
        }
    }

    /// Diagnoses an incident, and begins the first plan that passes the gate.
    pub(super) fn treat(
        &mut self,
        incident: &mut Incident,
        finding: &Finding,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        if incident.symptom != finding.symptom {
            incident.symptom = finding.symptom;
            incident.retry_at = None;
            incident.refused.clear();
        }
        if incident.retry_at.is_some_and(|at| at > now) {
            return;
        }
        let Some(watched) = self.services.get_mut(&incident.service) else {
            return;
        };
        let again = self
            .paces
            .get(&incident.service)
            .is_some_and(Pace::keeps_dying);
        let suspect = again || !watched.lived;
        let diagnosis = match diagnose(&incident.service, finding, &watched.slots, suspect) {
            diagnose::Step::Known(diagnosis) => diagnosis,
            diagnose::Step::CheckSlot(name) => {
                incident.checking = true;
                let Some(slot) = watched.slots.get_mut(&name) else {
                    return;
                };
                incident.retry_at = Some(match slot.file {
                    SlotFile::Checking(since) if now >= since + SLOT_CHECK_MAX => {
                        slot.unanswered();
                        now
                    }
                    SlotFile::Checking(since) => since + SLOT_CHECK_MAX,
                    _ => {
                        slot.file = SlotFile::Checking(now);
                        effects.push(Effect::CheckSlot(incident.service.clone(), name));
                        now + SLOT_CHECK_MAX
                    }
                });
                return;
            }
        };
        incident.checking = false;
        incident.fault = diagnosis.fault;
        incident.confidence = diagnosis.confidence;
        if !incident.told {
            self.tell_opened(incident, diagnosis.evidence, now, effects);
        } else if incident.told_fault != Some(diagnosis.fault) {
            self.tell_rediagnosed(incident, diagnosis.evidence, now, effects);
        }
        if self.spares(incident, now, effects) {
            return;
        }
        let options = self.options(incident, finding.symptom == Symptom::Dead, false);
        self.choose(incident, options, now, effects);
    }

    /// What could be done about an incident, in the order in which it is tried.
    /// `begun`: a plan for it is on its way.
    pub(super) fn options(&self, incident: &Incident, dead: bool, begun: bool) -> Vec<Candidate> {
        let Some(watched) = self.services.get(&incident.service) else {
            return Vec::new();
        };
        let route = self.route_of(&incident.service);
        let target = Target {
            grace: watched.policy.stop_grace,
            start_timeout: watched.policy.start_timeout,
            model: watched
                .slots
                .get(&SlotName::Model)
                .and_then(SlotWatch::back),
            watches_model: watched
                .policy
                .model
                .as_ref()
                .is_some_and(|slot| slot.reload == Reload::Watch),
            config: watched
                .slots
                .get(&SlotName::Config)
                .and_then(SlotWatch::back)
                .map(|version| ConfigVersion(version.0)),
            dead,
            keep: watched.policy.data.as_ref().map(|data| data.keep),
            // One that a person took out stays out: its restart takes nothing away.
            // One that this incident took out is still its own.
            route: route
                .filter(|route| begun || route.feeds(&incident.service))
                .map(|route| route.id.clone()),
            standby: route.and_then(|route| self.standby_of(route)),
            degrades: watched.policy.grants().contains(&Grant::Degrade),
            cooled: self.cooled(&incident.service),
            renewer: self.foresight.certificates.renewer(&incident.service),
            foreseen: incident.symptom == Symptom::Foreseen,
        };
        candidates(
            &incident.service,
            incident.fault,
            incident.confidence,
            &target,
            |recipe| self.experience.record(incident.fault, recipe),
        )
    }

    /// Begins the first option that passes the gate, or says why none does.
    pub(super) fn choose(
        &mut self,
        incident: &mut Incident,
        options: Vec<Candidate>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let mut considered = Vec::new();
        let mut again: Option<Micros> = None;
        let mut worst = None;
        let mut asked = None;
        for option in options {
            // A process that dies of no known cause is revived for ever.
            let reflex = option.purpose == Purpose::Revive && incident.fault == Fault::Crash;
            if !reflex && incident.tried.contains(&option.recipe) {
                considered.push(Considered {
                    plan: option.plan.to_string(),
                    source: option.source,
                    refusal: Some(Refusal {
                        rule: "tried".into(),
                        reason: "it failed in this incident".into(),
                    }),
                });
                continue;
            }
            if let Some(why) = self.approvals.refusal(incident.id, option.recipe) {
                considered.push(Considered {
                    plan: option.plan.to_string(),
                    source: option.source,
                    refusal: Some(Refusal {
                        rule: "refused".into(),
                        reason: why.to_owned(),
                    }),
                });
                continue;
            }
            let facts = self.facts(now, &incident.service, incident.fault, option.recipe);
            let text = option.plan.to_string();
            let candidate = option.clone();
            match gate::verify(option.plan, option.purpose, &facts, &mut self.budget) {
                Ok(verified) => {
                    considered.push(Considered {
                        plan: text,
                        source: option.source,
                        refusal: None,
                    });
                    let (plan, costs, reservation) = verified.into_parts();
                    let prospects = prospects(&plan, &facts);
                    let careful = Transaction::wants_care(&plan);
                    let transaction = Transaction::new(plan, careful, self.limit());
                    let meter = Meter::after(0, costs);
                    let execution = Execution {
                        id: self.mint_plan(),
                        recipe: option.recipe,
                        source: option.source,
                        purpose: option.purpose,
                        transaction,
                        reservation: Some(reservation),
                        meter,
                        health: gate::health(&facts),
                        prospects,
                        runs: Runs::default(),
                        ticket: None,
                        synced_by: None,
                        refused: false,
                    };
                    self.begin(incident, execution, considered, now, effects);
                    return;
                }
                Err(rejection) => {
                    again = match (again, rejection.until) {
                        (Some(a), Some(b)) => Some(a.min(b)),
                        (a, b) => a.or(b),
                    };
                    worst = worst.or(Some(rejection.rule));
                    if rejection.rule == Rule::NeedsApproval {
                        asked = asked.or(Some(candidate));
                    }
                    considered.push(Considered {
                        plan: text,
                        source: option.source,
                        refusal: Some(Refusal {
                            rule: rejection.rule.to_string(),
                            reason: rejection.reason,
                        }),
                    });
                }
            }
        }
        match worst {
            Some(rule) => {
                if let Some(option) = asked {
                    self.hold_for_approval(incident, option, now, effects);
                }
                incident.retry_at = Some(again.unwrap_or(now + RETRY).max(now + Millis(1)));
                self.tell_refused(incident, rule, considered, now, effects);
            }
            None => {
                incident.tried.clear();
                // What was believed of its slots led nowhere: look again then.
                if let Some(watched) = self.services.get_mut(&incident.service) {
                    for slot in watched.slots.values_mut() {
                        if matches!(slot.file, SlotFile::Other | SlotFile::Unanswered) {
                            slot.file = SlotFile::Unchecked;
                        }
                    }
                }
                incident.retry_at = Some(now + START_OVER.max(self.limits.hold));
                self.escalate(incident, "nothing in the playbook helped", effects);
            }
        }
    }

    pub(super) fn begin(
        &mut self,
        incident: &mut Incident,
        execution: Execution,
        considered: Vec<Considered>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let revive = execution.purpose == Purpose::Revive;
        self.approvals.begun(incident.id);
        effects.push(Effect::Journal(HealRecord::Begun {
            plan: execution.id,
            incident: incident.id,
            text: execution.transaction.plan().clone(),
            recipe: execution.recipe,
            source: execution.source,
            revive,
        }));
        if revive {
            let pace = self.paces.entry(incident.service.clone()).or_default();
            pace.revived(now, &self.limits);
        }
        let body = Body::Decided(Decided {
            incident: incident.id,
            plan: Some(execution.id),
            considered,
            cost: narrow(execution.meter.foreseen().total()),
            balance: narrow(self.balance(execution.reservation.as_ref())),
            health: execution.health.get(),
            predicted: execution.prospects.last().map_or(0.0, |after| after.get()),
        });
        incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
        incident.refused.clear();
        incident.retry_at = None;
        incident.execution = Some(execution);
        // A crash must find its cost spent and its pace counted.
        effects.push(Effect::Remember);
    }

    /// How long each step may take.
    pub(super) fn limit(&self) -> impl Fn(&Primitive) -> Millis + use<> {
        let starts: BTreeMap<ServiceId, Millis> = self
            .services
            .iter()
            .map(|(id, watched)| (id.clone(), watched.policy.start_timeout))
            .collect();
        move |primitive| {
            let start = primitive
                .service()
                .and_then(|id| starts.get(id))
                .copied()
                .unwrap_or_default();
            primitive.deadline(start)
        }
    }
}

/// The node's health after each step, if all goes well.
pub(super) fn prospects(plan: &Plan, facts: &Facts) -> Vec<Ratio> {
    (0..plan.steps().count())
        .map(|step| gate::prospect(plan, step, facts))
        .collect()
}

/// A plan by hand, or for what has yet to come, that is not about starting a process gives
/// way when that dies: waiting out its time would keep the service down.
fn give_way(incident: &mut Incident, finding: &Finding) {
    let whole = matches!(incident.symptom, Symptom::Requested | Symptom::Foreseen);
    let concerned = whole && finding.symptom == Symptom::Dead;
    let Some(execution) = incident.execution.as_mut().filter(|_| concerned) else {
        return;
    };
    let waiting: Vec<u8> = execution
        .runs
        .iter()
        .filter(|run| run.only_waits())
        .map(|run| run.token.step)
        .collect();
    for step in waiting {
        let why = "the process died meanwhile".to_owned();
        if execution.transaction.report(step, Err(why)).is_some() {
            execution.runs.end(step);
        }
    }
}
