//! Moves plans on: hands out their steps, takes the results, and settles what
//! they cost when they end.

use std::collections::BTreeSet;

use homeostat_common::anomaly::Symptom;
use homeostat_common::gate::Purpose;
use homeostat_common::ids::{Instance, ServiceId, Token};
use homeostat_common::observation::Reading;
use homeostat_common::outcome::Outcome;
use homeostat_common::primitive::{Primitive, Resource};
use homeostat_common::transaction::{Action, Ending, Record, SYNC_MAX};
use homeostat_common::units::Micros;
use homeostat_common::wire::body::{Phase, Severity};

use super::incident::Execution;
use super::message::{Effect, HealRecord};
use super::{Incident, Loop};
use crate::detect;
use crate::execute::{Act, Order, StepRun};
use crate::service::{Slot, SlotName};

impl Loop {
    /// Moves every plan on as far as it goes now.
    pub(super) fn advance_plans(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let running: Vec<ServiceId> = self
            .incidents
            .iter()
            .filter(|(_, incident)| incident.execution.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in running {
            let Some(mut incident) = self.incidents.remove(&id) else {
                continue;
            };
            let Some(mut execution) = incident.execution.take() else {
                continue;
            };
            match self.advance(&mut incident, &mut execution, now, effects) {
                None => {
                    incident.execution = Some(execution);
                    self.incidents.insert(id, incident);
                }
                Some(ending) => {
                    if let Some(incident) = self.finish(incident, execution, ending, now, effects) {
                        self.incidents.insert(id, incident);
                    }
                }
            }
        }
    }

    pub(super) fn advance(
        &mut self,
        incident: &mut Incident,
        execution: &mut Execution,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) -> Option<Ending> {
        if execution.synced_by.is_some_and(|by| by <= now) {
            execution.disk_answered();
        }
        loop {
            let mut moved = false;
            let mut orders = Vec::new();
            if execution.transaction.has_stumbled() {
                self.revise(incident, execution, now, effects);
            }
            for action in execution.transaction.advance(now) {
                moved = true;
                match action {
                    Action::Journal { record, wait } => {
                        if let Record::Failed(step) = &record {
                            execution.runs.end(*step);
                            execution.meter.ended(*step, now);
                            let why = execution.transaction.failure().map_or("", |(_, why)| why);
                            let phase = Phase::Failed(why.to_owned());
                            self.tell_step(incident, execution, *step, phase, now, effects);
                        }
                        journal(execution, record, effects);
                        if wait {
                            let ticket = self.next_ticket;
                            self.next_ticket += 1;
                            execution.ticket = Some(ticket);
                            execution.synced_by = Some(now + SYNC_MAX);
                            effects.push(Effect::Sync(ticket));
                            if self.store_trouble {
                                execution.disk_answered();
                            }
                        }
                    }
                    Action::Run(step) => {
                        let Some(primitive) = execution.transaction.step(step) else {
                            continue;
                        };
                        // A replica that gets no traffic is missed by nobody.
                        let takes = primitive.interrupts() && !self.spared(primitive.service());
                        execution.meter.begun(step, takes, now);
                        let token = Token {
                            plan: execution.id,
                            step,
                            undo: false,
                        };
                        let run = StepRun::begin(token, primitive, self.view(now), &mut orders);
                        execution.runs.begin(run);
                        self.carry_out(&mut orders, now, effects);
                        self.tell_step(incident, execution, step, Phase::Started, now, effects);
                    }
                    Action::Undo(step) => {
                        let Some(primitive) = execution.transaction.step(step) else {
                            continue;
                        };
                        let token = Token {
                            plan: execution.id,
                            step,
                            undo: true,
                        };
                        let run = StepRun::undo(token, primitive, self.view(now), &mut orders);
                        execution.runs.begin(run);
                    }
                    Action::End(ending) => return Some(ending),
                }
            }
            for (step, result) in execution.runs.advance(self.view(now), &mut orders) {
                moved = true;
                let phase = match &result {
                    Ok(()) => Phase::Done,
                    Err(why) => Phase::Failed(why.clone()),
                };
                execution.meter.ended(step, now);
                if let Some(record) = execution.transaction.report(step, result) {
                    let phase = match record {
                        Record::Undone(_) => Phase::Undone,
                        _ => phase,
                    };
                    journal(execution, record, effects);
                    self.tell_step(incident, execution, step, phase, now, effects);
                }
            }
            self.carry_out(&mut orders, now, effects);
            if !moved {
                return None;
            }
        }
    }

    /// Hands orders to the shell and notes what they mean for the slots.
    pub(super) fn carry_out(
        &mut self,
        orders: &mut Vec<Order>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        for order in orders.drain(..) {
            effects.push(match order {
                Order::Start(id) => {
                    if let Some(watched) = self.services.get_mut(&id) {
                        watched.slot = Slot::Starting { since: now };
                    }
                    Effect::Start(id)
                }
                Order::Stop(id, instance) => Effect::Stop(id, instance),
                Order::Kill(id, instance) => Effect::Kill(id, instance),
                Order::Act(token, act) => {
                    // What was measured before says nothing about what is left.
                    if let Act::Prune(id, _) = &act
                        && let Some(watched) = self.services.get_mut(id)
                    {
                        watched.data_used = Reading::Missing;
                    }
                    Effect::Act(token, act)
                }
                Order::SetWeight(route, backend, weight) => {
                    Effect::SetWeight(route, backend, weight)
                }
                Order::Drain(route, backend, within) => Effect::Drain(route, backend, within),
                Order::Reprove(id) => {
                    if let Some(watched) = self.services.get_mut(&id) {
                        watched.reprove(now);
                    }
                    Effect::ForgetProbes(id)
                }
                Order::Want(id, wanted) => {
                    if let Some(watched) = self.services.get_mut(&id) {
                        watched.scaled_out = wanted;
                    }
                    self.reweigh.remove(&id);
                    Effect::Remember
                }
                Order::Warm(id, wanted) => {
                    if let Some(watched) = self.services.get_mut(&id) {
                        watched.warm = wanted;
                    }
                    Effect::Remember
                }
                Order::Pause(id, life) => {
                    if let Some(watched) = self.services.get_mut(&id) {
                        watched.paused = life;
                    }
                    Effect::Remember
                }
                Order::Call(id) => {
                    let text = format!("a plan for {id} calls a person");
                    let name = format!("{id}-called");
                    self.raise(&name, Some(&id), Severity::Critical, text, effects);
                    continue;
                }
            });
        }
    }

    /// Whether no route sends a service anything that would, by configuration.
    fn spared(&self, service: Option<&ServiceId>) -> bool {
        let Some(service) = service else {
            return false;
        };
        let mut backends = self
            .routes
            .values()
            .flat_map(|route| route.backends.values())
            .filter(|backend| backend.service.as_ref() == Some(service))
            .peekable();
        backends.peek().is_some() && backends.all(|backend| backend.sample.weight == 0)
    }

    /// A plan is over: pays for it, learns from it. Returns the incident unless
    /// that is over too.
    pub(super) fn finish(
        &mut self,
        mut incident: Incident,
        mut execution: Execution,
        ending: Ending,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) -> Option<Incident> {
        let worked = ending == Ending::Done;
        self.pay(&mut incident, &mut execution, worked, now, effects);
        let written: BTreeSet<(ServiceId, SlotName)> = execution
            .transaction
            .plan()
            .steps()
            .filter_map(|step| Some((step.service()?.clone(), slot_of(step)?)))
            .collect();
        for (service, name) in written {
            effects.push(Effect::SettleSlot(service.clone(), name));
            effects.push(Effect::CheckSlot(service.clone(), name));
            let stable = self.limits.restart.stable;
            if let Some(watched) = self.services.get_mut(&service) {
                watched.prove_slots(now + stable, false);
            }
        }
        effects.push(Effect::ShowAct(execution.id, None));
        let healed = ending == Ending::Done;
        if healed {
            self.note_left(execution.transaction.plan(), incident.id);
            self.foresight.acted(&incident.service, incident.fault, now);
        }
        if !execution.refused && execution.purpose != Purpose::Operate {
            self.experience
                .tried(incident.fault, execution.recipe, healed);
        }
        // What a person wanted says nothing about how often healing fails.
        if matches!(execution.purpose, Purpose::Heal(_) | Purpose::Foresee(_)) {
            let pace = self.paces.entry(incident.service.clone()).or_default();
            if pace.healed(now, execution.recipe as u8, &self.limits) {
                let until = pace.quarantined_until.unwrap_or(now);
                self.raise(
                    &format!("{}-quarantine", incident.service),
                    Some(&incident.service),
                    Severity::Critical,
                    format!(
                        "{} was healed {} times within {} by {}; left alone for {}",
                        incident.service,
                        self.limits.quarantine.count,
                        self.limits.quarantine.within,
                        execution.recipe.name(),
                        until.since(now)
                    ),
                    effects,
                );
            }
        }
        // The hold first: a plan whose end is known must be known to hold.
        effects.push(Effect::Remember);
        let ended = HealRecord::Step(execution.id, Record::Ended(ending));
        effects.push(Effect::Journal(ended));
        match ending {
            Ending::Done => {
                self.clear(&format!("{}-stuck", incident.service), effects);
                // A standby that was stopped is as it should be, and so is what was
                // frozen.
                let works = self.services.get(&incident.service).is_some_and(|watched| {
                    watched.proven(now) || !watched.wanted() || watched.is_paused()
                });
                // Help that was called takes a while to show; nothing else is
                // tried before the hold is over.
                let waits = incident.symptom == Symptom::Saturated
                    && self
                        .services
                        .get(&incident.service)
                        .and_then(|watched| detect::examine(watched, None, now))
                        .is_some_and(|finding| finding.symptom == Symptom::Saturated);
                if waits {
                    incident.former = Some(ending);
                    incident.retry_at = Some(now + self.limits.hold);
                    return Some(incident);
                }
                if works {
                    self.close(&incident, Outcome::Healed, now, effects);
                    return None;
                }
                // Carried out before a reboot: it is healed once it answers.
                incident.former = Some(ending);
            }
            Ending::Undone => {
                incident.former = Some(ending);
                // What was not let go on has not been shown to fail.
                if !execution.refused && !incident.tried.contains(&execution.recipe) {
                    incident.tried.push(execution.recipe);
                }
            }
            Ending::Stuck => {
                // Nobody wants it frozen any more: its silence is a hang again.
                for step in execution.transaction.plan().steps() {
                    if let Primitive::Freeze { service } = step
                        && let Some(watched) = self.services.get_mut(service)
                    {
                        watched.paused = None;
                    }
                }
                effects.push(Effect::Remember);
                incident.tried.push(execution.recipe);
                let why = "a plan could be neither finished nor undone";
                self.escalate(&mut incident, why, effects);
                // Stands until a later plan for it ends well: whether the service
                // answers says nothing about what was left halfway.
                let text = format!(
                    "{} was left halfway by {}; look at it, and at its routes",
                    incident.service,
                    execution.transaction.plan()
                );
                let name = format!("{}-stuck", incident.service);
                self.raise(
                    &name,
                    Some(&incident.service),
                    Severity::Critical,
                    text,
                    effects,
                );
            }
        }
        Some(incident)
    }

    pub(super) fn absorb_refusal(
        &mut self,
        now: Micros,
        service: &ServiceId,
        live: Option<Instance>,
        why: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(watched) = self.services.get_mut(service) else {
            return;
        };
        let mut orders = Vec::new();
        let mut told = Vec::new();
        let execution = self
            .incidents
            .get_mut(service)
            .and_then(|incident| incident.execution.as_mut());
        match live {
            Some(instance) if watched.instance() == Some(instance) => {}
            Some(instance) => {
                watched.reborn(instance, now);
                effects.push(Effect::ForgetProbes(service.clone()));
            }
            None => {
                watched.slot = Slot::Down {
                    since: now,
                    last: Some((Instance(0), homeostat_common::anomaly::Exit::Unknown)),
                };
            }
        }
        watched.start_error = live.is_none().then(|| why.to_owned());
        if let Some(execution) = execution {
            for (step, why) in execution.runs.refused(service, live, why, &mut orders) {
                execution.meter.ended(step, now);
                let record = execution.transaction.report(step, Err(why.clone()));
                if let Some(record) = record {
                    journal(execution, record, effects);
                    told.push((step, why));
                }
            }
        }
        self.carry_out(&mut orders, now, effects);
        for (step, why) in told {
            self.tell_failed(service, step, why, now, effects);
        }
    }

    /// A step failed outside of the usual round.
    pub(super) fn tell_failed(
        &mut self,
        service: &ServiceId,
        step: u8,
        why: String,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(mut incident) = self.incidents.remove(service) {
            if let Some(execution) = incident.execution.take() {
                self.tell_step(
                    &mut incident,
                    &execution,
                    step,
                    Phase::Failed(why),
                    now,
                    effects,
                );
                incident.execution = Some(execution);
            }
            self.incidents.insert(service.clone(), incident);
        }
    }

    /// The spawner is back: what it was asked for on the lost connection may
    /// never have reached it.
    pub(super) fn repeat_orders(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let mut orders = Vec::new();
        for incident in self.incidents.values() {
            for run in incident
                .execution
                .iter()
                .flat_map(|execution| execution.runs.iter())
            {
                if let Some(watched) = run.service().and_then(|id| self.services.get(id)) {
                    run.repeat(watched, &mut orders);
                }
            }
        }
        for run in self.part_runs() {
            if let Some(watched) = run.service().and_then(|id| self.services.get(id)) {
                run.repeat(watched, &mut orders);
            }
        }
        self.carry_out(&mut orders, now, effects);
    }

    pub(super) fn absorb_synced(&mut self, ticket: u64) {
        self.part_synced(ticket);
        self.lead_synced(ticket);
        for incident in self.incidents.values_mut() {
            if let Some(execution) = &mut incident.execution
                && execution.ticket.is_some_and(|awaited| awaited <= ticket)
            {
                execution.disk_answered();
            }
        }
    }

    /// A deed is done, or cannot be.
    pub(super) fn absorb_acted(&mut self, token: Token, result: &Result<(), String>) {
        let execution = self
            .incidents
            .values_mut()
            .filter_map(|incident| incident.execution.as_mut())
            .find(|execution| execution.id == token.plan);
        if let Some(execution) = execution {
            execution.runs.acted(token, result);
        }
    }
}

/// Appends how far a transaction is; its end is told by [`Loop::finish`].
pub(super) fn journal(execution: &Execution, record: Record, effects: &mut Vec<Effect>) {
    if !matches!(record, Record::Ended(_)) {
        effects.push(Effect::Journal(HealRecord::Step(execution.id, record)));
    }
}

/// The slot that a primitive writes.
pub(super) fn slot_of(primitive: &Primitive) -> Option<SlotName> {
    let writes = primitive.signature().writes;
    if writes.contains(&Resource::Model) {
        Some(SlotName::Model)
    } else if writes.contains(&Resource::Config) {
        Some(SlotName::Config)
    } else {
        None
    }
}
