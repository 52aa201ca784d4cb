//! The loop's middle: from a finding to a plan that ran.

use std::collections::BTreeMap;

use homeostat_common::anomaly::Symptom;
use homeostat_common::budget::Cost;
use homeostat_common::gate::{self, Facts, Purpose, Rule, ServiceFacts};
use homeostat_common::ids::{Instance, ServiceId};
use homeostat_common::outcome::Outcome;
use homeostat_common::primitive::Primitive;
use homeostat_common::state::Past;
use homeostat_common::transaction::{Action, Ending, Record, Transaction};
use homeostat_common::units::{Micros, Millis, narrow};
use homeostat_common::wire::body::{
    Body, Considered, Decided, IncidentClosed, IncidentOpened, Phase, Refusal, ServiceState,
    Severity, Source, Step as StepEvent,
};

use super::incident::{CutShort, Execution};
use super::message::{Class, Effect, HealRecord, SAMPLE_STALE};
use super::{Incident, Loop};
use crate::detect::{self, Finding};
use crate::diagnose::{self, diagnose};
use crate::execute::{Order, Progress, StepRun};
use crate::plan::{Candidate, Recipe, candidates};
use crate::service::{ModelFile, Slot, Watched};

/// Longest wait for the comparison of a model file; longer means that its disk
/// does not answer, and a model that cannot be read is as good as corrupt.
const MODEL_CHECK_MAX: Millis = Millis::secs(2);

/// A refusal that names no time is looked at again after this.
const RETRY: Millis = Millis(250);

/// Refusals that end by themselves within moments alarm only after this.
const PATIENCE: Millis = Millis::secs(5);

/// After everything was tried, a person is called and it starts over no sooner.
const START_OVER: Millis = Millis::secs(60);

/// A plan that a restart cut short waits so long for fresh telemetry and
/// a look at the model; without them the gate would refuse what it had admitted.
const RESUME_PATIENCE: Millis = Millis::secs(5);

/// Longest wait for the disk before a step. None of our steps is past repair,
/// so a disk that stands still must not keep a service down.
const SYNC_MAX: Millis = Millis::secs(5);

/// Services that need a mended one are given this long to come back by
/// themselves before their silence counts as a fault of their own.
const SETTLING: Millis = Millis::secs(2);

impl Loop {
    /// One service: opens, treats or closes its incident.
    pub(super) fn look_after(&mut self, id: &ServiceId, now: Micros, effects: &mut Vec<Effect>) {
        let Some(watched) = self.services.get(id) else {
            return;
        };
        let finding = detect::examine(watched, now);
        let state = watched.state(now);
        let slot = watched.slot;
        if let Some(mut incident) = self.incidents.remove(id) {
            if self.spawner && slot != Slot::Unknown {
                self.take_up(&mut incident, now, effects);
            }
            let over = incident.execution.is_none()
                && incident.cut_short.is_none()
                && match finding {
                    Some(finding) => {
                        self.treat(&mut incident, &finding, now, effects);
                        false
                    }
                    None => state == ServiceState::Healthy,
                };
            if over {
                let outcome = match incident.former {
                    Some(Ending::Done) => Outcome::Healed,
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
            Some(finding) if self.held_back(id, &finding, effects) => {}
            Some(finding) => {
                let number = self.mint_incident();
                let mut incident = Incident::new(
                    number,
                    id.clone(),
                    finding.symptom,
                    homeostat_common::anomaly::Fault::Crash,
                    finding.since,
                );
                self.treat(&mut incident, &finding, now, effects);
                self.incidents.insert(id.clone(), incident);
            }
            None => {
                self.telling.held_back.remove(id);
                if let (Slot::Up { since, .. }, ServiceState::Healthy) = (slot, state)
                    && let Some(pace) = self.paces.get_mut(id)
                {
                    pace.lived(now.since(since), &self.limits);
                }
            }
        }
    }

    /// Silence of a service whose dependency is under repair is no fault of its
    /// own until that has settled.
    fn held_back(&mut self, id: &ServiceId, finding: &Finding, effects: &mut Vec<Effect>) -> bool {
        if matches!(finding.symptom, Symptom::Dead | Symptom::Leaking) {
            return false;
        }
        let mut open: Vec<ServiceId> = vec![id.clone()];
        let mut seen: Vec<ServiceId> = Vec::new();
        while let Some(next) = open.pop() {
            let Some(watched) = self.services.get(&next) else {
                continue;
            };
            for need in &watched.policy.depends_on {
                if self.incidents.contains_key(need) || self.settling.contains_key(need) {
                    if self.telling.held_back.insert(id.clone()) {
                        let text = format!(
                            "{id} is {} while {need}, which it needs, is being mended: waiting",
                            finding.symptom
                        );
                        self.note(Some(id), text, effects);
                    }
                    return true;
                }
                if !seen.contains(need) {
                    seen.push(need.clone());
                    open.push(need.clone());
                }
            }
        }
        self.telling.held_back.remove(id);
        false
    }

    /// Diagnoses an incident, and begins the first plan that passes the gate.
    fn treat(
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
        let model = watched.policy.model.is_some().then_some(watched.model);
        let diagnosis = match diagnose(&incident.service, finding, model) {
            diagnose::Step::Known(diagnosis) => diagnosis,
            diagnose::Step::CheckModel => {
                incident.checking = true;
                incident.retry_at = Some(match watched.model {
                    ModelFile::Checking(since) if now >= since + MODEL_CHECK_MAX => {
                        watched.model = ModelFile::Differs(None);
                        now
                    }
                    ModelFile::Checking(since) => since + MODEL_CHECK_MAX,
                    _ => {
                        watched.model = ModelFile::Checking(now);
                        effects.push(Effect::CheckModel(incident.service.clone()));
                        now + MODEL_CHECK_MAX
                    }
                });
                return;
            }
        };
        incident.checking = false;
        let grace = watched.policy.stop_grace;
        let verified = watched.verified_model;
        incident.fault = diagnosis.fault;
        incident.confidence = diagnosis.confidence;
        if !incident.told {
            self.tell_opened(incident, diagnosis.evidence, now, effects);
        }
        let experience = &self.experience;
        let options = candidates(
            &incident.service,
            incident.fault,
            incident.confidence,
            grace,
            verified,
            |recipe| experience.record(incident.fault, recipe),
        );
        self.choose(incident, options, now, effects);
    }

    /// Begins the first option that passes the gate, or says why none does.
    fn choose(
        &mut self,
        incident: &mut Incident,
        options: Vec<Candidate>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let mut considered = Vec::new();
        let mut again: Option<Micros> = None;
        let mut worst = None;
        for option in options {
            let revive = option.purpose == Purpose::Revive;
            if !revive && incident.tried.contains(&option.recipe) {
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
            let facts = self.facts(now, &incident.service, incident.fault, option.recipe);
            let text = option.plan.to_string();
            match gate::verify(option.plan, option.purpose, &facts, &mut self.ledger) {
                Ok(verified) => {
                    considered.push(Considered {
                        plan: text,
                        source: option.source,
                        refusal: None,
                    });
                    let (plan, cost, reservation) = verified.into_parts();
                    let careful = Transaction::wants_care(&plan);
                    let transaction = Transaction::new(plan, careful, self.limit());
                    let was_answering = facts
                        .services
                        .get(&incident.service)
                        .is_some_and(|facts| facts.answering);
                    let execution = Execution {
                        id: self.mint_plan(),
                        recipe: option.recipe,
                        source: option.source,
                        purpose: option.purpose,
                        transaction,
                        reservation: Some(reservation),
                        predicted: cost,
                        runs: Vec::new(),
                        files: Vec::new(),
                        ticket: None,
                        synced_by: None,
                        wake: None,
                        interrupted: None,
                        was_answering,
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
                incident.retry_at = Some(again.unwrap_or(now + RETRY).max(now + Millis(1)));
                self.tell_refused(incident, rule, considered, now, effects);
            }
            None => {
                incident.tried.clear();
                // What was believed of the model led nowhere: look again then.
                if let Some(watched) = self.services.get_mut(&incident.service)
                    && matches!(watched.model, ModelFile::Differs(_))
                {
                    watched.model = ModelFile::Unchecked;
                }
                incident.retry_at = Some(now + START_OVER.max(self.limits.hold));
                self.escalate(incident, "nothing in the playbook helped", effects);
            }
        }
    }

    fn begin(
        &mut self,
        incident: &mut Incident,
        execution: Execution,
        considered: Vec<Considered>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let revive = execution.purpose == Purpose::Revive;
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
            cost: narrow(execution.predicted.total()),
            balance: narrow(self.ledger.balance()),
        });
        incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
        incident.refused.clear();
        incident.retry_at = None;
        incident.execution = Some(execution);
        // A crash must find its cost spent and its pace counted.
        effects.push(Effect::Remember);
    }

    /// How long each step may take.
    fn limit(&self) -> impl Fn(&Primitive) -> Millis + use<> {
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

    /// What the rules need to know.
    fn facts(
        &self,
        now: Micros,
        service: &ServiceId,
        fault: homeostat_common::anomaly::Fault,
        recipe: Recipe,
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
                    .map(|execution| execution.id);
                let failure_share = if id == service {
                    self.experience.record(fault, recipe).failure_share()
                } else {
                    Default::default()
                };
                let facts = ServiceFacts {
                    mode: watched.policy.mode,
                    protected: watched.policy.protected,
                    criticality: watched.policy.criticality,
                    dead: matches!(watched.slot, Slot::Down { last: Some(_), .. }),
                    answering: watched.answering(now),
                    fresh: self.fresh(watched, now),
                    leased,
                    held_until: pace.and_then(|pace| pace.held_until),
                    quarantined_until: pace.and_then(|pace| pace.quarantined_until),
                    backoff_until: pace.and_then(|pace| pace.backoff_until),
                    start_timeout: watched.policy.start_timeout,
                    verified_model: watched.verified_model,
                    failure_share,
                };
                (id.clone(), facts)
            })
            .collect();
        Facts {
            now,
            services,
            spawner: self.spawner,
        }
    }

    /// Whether what is known about a service is of now.
    fn fresh(&self, watched: &Watched, now: Micros) -> bool {
        let recent = |at: Option<Micros>, span: Millis| at.is_some_and(|at| now.since(at) <= span);
        let patience = watched
            .policy
            .probes
            .iter()
            .map(|probe| Millis(3 * (probe.period.0 + probe.timeout.0)))
            .max();
        // That it has no process is the kernel's word; nobody is probed then.
        let down = matches!(watched.slot, Slot::Down { .. });
        recent(self.sampled, SAMPLE_STALE)
            && (down || patience.is_none_or(|patience| recent(watched.probed, patience)))
    }

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

    fn advance(
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
            for action in execution.transaction.advance(now) {
                moved = true;
                match action {
                    Action::Journal { record, wait } => {
                        if let Record::Failed(step) = &record {
                            execution.runs.retain(|run| run.step != *step);
                            let why = execution.transaction.failure().map_or("", |(_, why)| why);
                            let phase = Phase::Failed(why.to_owned());
                            self.tell_step(incident, execution, *step, phase, effects);
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
                        let service = primitive.service().and_then(|id| self.services.get(id));
                        if primitive.interrupts() {
                            execution.interrupted.get_or_insert(now);
                        }
                        let run = StepRun::begin(step, primitive, service, now, &mut orders);
                        execution.runs.push(run);
                        self.carry_out(&mut orders, now, effects);
                        self.tell_step(incident, execution, step, Phase::Started, effects);
                    }
                    Action::Undo(step) => {
                        let Some(primitive) = execution.transaction.step(step) else {
                            continue;
                        };
                        let run = StepRun::undo(step, primitive, now, &mut orders);
                        execution.runs.push(run);
                    }
                    Action::End(ending) => return Some(ending),
                }
            }
            execution.wake = None;
            let mut place = 0;
            while let Some(run) = execution.runs.get_mut(place) {
                let service = run.service().and_then(|id| self.services.get(id));
                let progress = match (run.awaits_file(), execution.files.pop()) {
                    (true, Some(Ok(()))) => Progress::Done,
                    (true, Some(Err(why))) => Progress::Failed(why),
                    (_, unwanted) => {
                        execution.files.extend(unwanted);
                        run.advance(service, now, &mut orders)
                    }
                };
                let (result, phase) = match progress {
                    Progress::Busy(until) => {
                        execution.wake = match (execution.wake, until) {
                            (Some(a), Some(b)) => Some(a.min(b)),
                            (a, b) => a.or(b),
                        };
                        place += 1;
                        continue;
                    }
                    Progress::Done => (Ok(()), Phase::Done),
                    Progress::Failed(why) => (Err(why.clone()), Phase::Failed(why)),
                };
                moved = true;
                let step = execution.runs.remove(place).step;
                if let Some(record) = execution.transaction.report(step, result) {
                    let phase = match record {
                        Record::Undone(_) => Phase::Undone,
                        _ => phase,
                    };
                    journal(execution, record, effects);
                    self.tell_step(incident, execution, step, phase, effects);
                }
            }
            self.carry_out(&mut orders, now, effects);
            if !moved {
                return None;
            }
        }
    }

    /// Hands orders to the shell and notes what they mean for the slots.
    fn carry_out(&mut self, orders: &mut Vec<Order>, now: Micros, effects: &mut Vec<Effect>) {
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
                Order::RollbackModel(id, to) => Effect::RollbackModel(id, to),
                Order::RestoreModel(id) => Effect::RestoreModel(id),
            });
        }
    }

    /// A plan is over: pays for it, learns from it. Returns the incident unless
    /// that is over too.
    fn finish(
        &mut self,
        mut incident: Incident,
        mut execution: Execution,
        ending: Ending,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) -> Option<Incident> {
        let facts = self.facts(now, &incident.service, incident.fault, execution.recipe);
        let spent = Cost {
            resource: execution.predicted.resource,
            disruption: match execution.interrupted {
                Some(from) if execution.was_answering => {
                    gate::share(&facts, &incident.service) * now.since(from).as_secs_f64()
                }
                _ => 0.0,
            },
            risk: 0.0,
        };
        if let Some(reservation) = execution.reservation.take() {
            self.ledger.settle(reservation, spent);
            incident.cost += spent.total();
        }
        let writes_model = execution
            .transaction
            .plan()
            .steps()
            .any(|step| matches!(step, Primitive::RollbackModel { .. }));
        if writes_model {
            effects.push(Effect::SettleModel(incident.service.clone()));
            effects.push(Effect::CheckModel(incident.service.clone()));
        }
        effects.push(Effect::ShowAct(execution.id, None));
        let healed = ending == Ending::Done;
        if !execution.refused {
            self.experience
                .tried(incident.fault, execution.recipe, healed);
        }
        if execution.purpose != Purpose::Revive {
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
                let works = self
                    .services
                    .get(&incident.service)
                    .is_some_and(|watched| watched.proven(now));
                if works {
                    self.close(&incident, Outcome::Healed, now, effects);
                    return None;
                }
                // Carried out before a reboot: it is healed once it answers.
                incident.former = Some(ending);
            }
            Ending::Undone => {
                // What was not let go on has not been shown to fail.
                if !execution.refused && !incident.tried.contains(&execution.recipe) {
                    incident.tried.push(execution.recipe);
                }
            }
            Ending::Stuck => {
                incident.tried.push(execution.recipe);
                let why = "a plan could be neither finished nor undone";
                self.escalate(&mut incident, why, effects);
            }
        }
        Some(incident)
    }

    fn close(
        &mut self,
        incident: &Incident,
        outcome: Outcome,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        self.experience.ended(Past {
            service: incident.service.clone(),
            fault: incident.fault,
            outcome,
            lasted: now.since(incident.since),
            cost: incident.cost,
        });
        self.settling
            .insert(incident.service.clone(), now + SETTLING);
        for symptom in Symptom::ALL {
            self.clear(&format!("{}-{symptom}", incident.service), effects);
        }
        if !incident.told {
            return;
        }
        let lasted = now.since(incident.since);
        let summary = match outcome {
            Outcome::Healed => format!("{} answers again after {lasted}", incident.service),
            Outcome::Recovered => {
                format!("{} answers again; nothing had to be done", incident.service)
            }
            Outcome::Refused => format!(
                "{} answers again; healing it was not allowed",
                incident.service
            ),
            Outcome::Undone | Outcome::Escalated => {
                format!(
                    "{} answers again after a person was called",
                    incident.service
                )
            }
        };
        let body = Body::IncidentClosed(IncidentClosed {
            incident: incident.id,
            outcome,
            lasted,
            cost: narrow(incident.cost),
            summary,
        });
        self.emit(Class::Heal, &[incident.mark], body, effects);
        // Told first: a crash in between doubles the event and never loses it.
        effects.push(Effect::Journal(HealRecord::Closed(incident.id)));
        if self.incidents.values().all(|open| !open.told) {
            effects.push(Effect::Remember);
            effects.push(Effect::Quiet);
        }
    }

    fn tell_opened(
        &mut self,
        incident: &mut Incident,
        evidence: Vec<String>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        incident.told = true;
        effects.push(Effect::Journal(HealRecord::Opened {
            incident: incident.id,
            service: incident.service.clone(),
            symptom: incident.symptom,
            fault: incident.fault,
            since: incident.since,
        }));
        self.emit_opened(incident, evidence, now, effects);
    }

    fn emit_opened(
        &mut self,
        incident: &mut Incident,
        evidence: Vec<String>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let body = Body::IncidentOpened(IncidentOpened {
            incident: incident.id,
            service: incident.service.clone(),
            symptom: incident.symptom,
            fault: incident.fault,
            confidence: incident.confidence.get(),
            detected_after: now.since(incident.since),
            evidence,
            connected: self.connected,
        });
        incident.mark = self.emit(Class::Heal, &[], body, effects);
        let observation = Body::Observation(self.observation(now, Some(incident)));
        self.emit(Class::State, &[incident.mark], observation, effects);
        let state = Body::State(self.state(now));
        self.emit(Class::State, &[incident.mark], state, effects);
    }

    fn tell_refused(
        &mut self,
        incident: &mut Incident,
        rule: Rule,
        considered: Vec<Considered>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let rules = |list: &[Considered]| -> Vec<Option<String>> {
            list.iter()
                .map(|one| one.refusal.as_ref().map(|refusal| refusal.rule.clone()))
                .collect()
        };
        let passing = matches!(
            rule,
            Rule::UnderRepair | Rule::BlastRadius | Rule::StaleTelemetry
        );
        if !passing || now.since(incident.since) >= PATIENCE {
            let reason = considered
                .iter()
                .find_map(|one| one.refusal.as_ref())
                .map_or("", |refusal| refusal.reason.as_str());
            self.raise(
                &format!("{}-{}", incident.service, incident.symptom),
                Some(&incident.service),
                if rule == Rule::BackOff {
                    Severity::Warning
                } else {
                    Severity::Critical
                },
                format!(
                    "{} is {}, and not healed: {reason}",
                    incident.service, incident.symptom
                ),
                effects,
            );
        }
        if rules(&considered) == rules(&incident.refused) {
            return;
        }
        incident.refused.clone_from(&considered);
        let body = Body::Decided(Decided {
            incident: incident.id,
            plan: None,
            considered,
            cost: 0.0,
            balance: narrow(self.ledger.balance()),
        });
        incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
    }

    fn tell_step(
        &mut self,
        incident: &mut Incident,
        execution: &Execution,
        step: u8,
        phase: Phase,
        effects: &mut Vec<Effect>,
    ) {
        let primitive = execution
            .transaction
            .step(step)
            .map(ToString::to_string)
            .unwrap_or_default();
        effects.push(Effect::ShowAct(execution.id, Some(primitive.clone())));
        let body = Body::Step(StepEvent {
            incident: incident.id,
            plan: execution.id,
            step,
            primitive,
            phase,
        });
        incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
    }

    fn escalate(&mut self, incident: &mut Incident, why: &str, effects: &mut Vec<Effect>) {
        incident.escalated = true;
        self.raise(
            &format!("{}-{}", incident.service, incident.symptom),
            Some(&incident.service),
            Severity::Critical,
            format!(
                "{} is {} and a person is needed: {why}",
                incident.service, incident.symptom
            ),
            effects,
        );
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
            let mut failed = Vec::new();
            for run in &mut execution.runs {
                if run.service() == Some(service)
                    && let Progress::Failed(why) = run.refused(live, why, &mut orders)
                {
                    failed.push((run.step, why));
                }
            }
            for (step, why) in failed {
                execution.runs.retain(|run| run.step != step);
                let record = execution.transaction.report(step, Err(why.clone()));
                if let Some(record) = record {
                    journal(execution, record, effects);
                    told.push((step, why));
                }
            }
        }
        self.carry_out(&mut orders, now, effects);
        for (step, why) in told {
            self.tell_failed(service, step, why, effects);
        }
    }

    /// A step failed outside of the usual round.
    fn tell_failed(
        &mut self,
        service: &ServiceId,
        step: u8,
        why: String,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(mut incident) = self.incidents.remove(service) {
            if let Some(execution) = incident.execution.take() {
                self.tell_step(&mut incident, &execution, step, Phase::Failed(why), effects);
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
                .flat_map(|execution| &execution.runs)
            {
                if let Some(watched) = run.service().and_then(|id| self.services.get(id)) {
                    run.repeat(watched, &mut orders);
                }
            }
        }
        self.carry_out(&mut orders, now, effects);
    }

    pub(super) fn absorb_synced(&mut self, ticket: u64) {
        for incident in self.incidents.values_mut() {
            if let Some(execution) = &mut incident.execution
                && execution.ticket.is_some_and(|awaited| awaited <= ticket)
            {
                execution.disk_answered();
            }
        }
    }

    pub(super) fn absorb_file_done(&mut self, service: &ServiceId, result: &Result<(), String>) {
        if let Some(execution) = self
            .incidents
            .get_mut(service)
            .and_then(|incident| incident.execution.as_mut())
        {
            execution.files.push(result.clone());
        }
    }

    /// Rebuilds the incidents that a former run left open.
    pub(super) fn resume_incidents(&mut self, records: Vec<HealRecord>, now: Micros) {
        for record in records {
            match record {
                HealRecord::Opened {
                    incident,
                    service,
                    symptom,
                    fault,
                    since,
                } => {
                    self.next_incident = self.next_incident.max(incident.0 + 1);
                    if self.services.contains_key(&service) {
                        let since = since.min(now);
                        let mut open =
                            Incident::new(incident, service.clone(), symptom, fault, since);
                        open.told = true;
                        open.retell = true;
                        // It was sure enough to be told.
                        open.confidence = homeostat_common::units::Ratio::ONE;
                        self.incidents.insert(service, open);
                    }
                }
                HealRecord::Begun {
                    plan,
                    incident,
                    text,
                    recipe,
                    source,
                    revive,
                } => {
                    self.next_plan = self.next_plan.max(plan.0 + 1);
                    if let Some(open) = self.open(incident) {
                        open.former = None;
                        open.retry_at = Some(now + RESUME_PATIENCE);
                        open.cut_short = Some(CutShort {
                            id: plan,
                            plan: text,
                            recipe,
                            source,
                            revive,
                            records: Vec::new(),
                        });
                    }
                }
                HealRecord::Step(plan, record) => {
                    let open = self
                        .incidents
                        .values_mut()
                        .find(|open| open.cut_short.as_ref().is_some_and(|cut| cut.id == plan));
                    if let Some(open) = open
                        && let Some(cut) = &mut open.cut_short
                    {
                        if let Record::Ended(ending) = record {
                            open.former = Some(ending);
                            open.cut_short = None;
                            open.retry_at = None;
                        } else {
                            cut.records.push(record);
                        }
                    }
                }
                HealRecord::Closed(incident) => {
                    self.incidents.retain(|_, open| open.id != incident);
                }
            }
        }
    }

    fn open(&mut self, id: homeostat_common::ids::IncidentId) -> Option<&mut Incident> {
        self.incidents.values_mut().find(|open| open.id == id)
    }

    /// Goes on with an incident that a former run of the agent left open.
    fn take_up(&mut self, incident: &mut Incident, now: Micros, effects: &mut Vec<Effect>) {
        if incident.retell {
            incident.retell = false;
            let evidence = vec!["open when the agent was restarted".to_owned()];
            self.emit_opened(incident, evidence, now, effects);
        }
        let ready = self.services.get(&incident.service).is_some_and(|watched| {
            let looked = watched.policy.model.is_none() || watched.verified_model.is_some();
            looked && self.fresh(watched, now)
        });
        if ready || incident.retry_at.is_none_or(|at| at <= now) {
            self.resume_plan(incident, now, effects);
        }
    }

    /// Goes on with a plan that a restart cut short; the gate is asked again,
    /// and if it refuses, what was done is taken back.
    fn resume_plan(&mut self, incident: &mut Incident, now: Micros, effects: &mut Vec<Effect>) {
        let Some(cut) = incident.cut_short.take() else {
            return;
        };
        incident.retry_at = None;
        let purpose = if cut.revive {
            Purpose::Revive
        } else {
            Purpose::Heal(homeostat_common::units::Ratio::ONE)
        };
        let mut transaction = Transaction::resume(cut.plan.clone(), &cut.records, self.limit());
        let facts = self.facts(now, &incident.service, incident.fault, cut.recipe);
        let text = cut.plan.to_string();
        let was_answering = facts
            .services
            .get(&incident.service)
            .is_some_and(|facts| facts.answering);
        let dead = facts
            .services
            .get(&incident.service)
            .is_some_and(|facts| facts.dead);
        // A process that was to be started lives: that is all that was wanted,
        // and doing it again would take it away.
        let needless = cut.revive && !dead;
        let (reservation, predicted, refusal) = if needless || transaction.is_carried_out() {
            if needless {
                transaction.abandon();
            }
            (None, Cost::default(), None)
        } else {
            match gate::verify(cut.plan, purpose, &facts, &mut self.ledger) {
                Ok(verified) => {
                    let (_, cost, reservation) = verified.into_parts();
                    (Some(reservation), cost, None)
                }
                Err(rejection) => {
                    transaction.abandon();
                    let refusal = Refusal {
                        rule: rejection.rule.to_string(),
                        reason: rejection.reason,
                    };
                    (None, Cost::default(), Some(refusal))
                }
            }
        };
        // Taken back in doubt alone, it has not been shown to fail.
        let failed = cut
            .records
            .iter()
            .any(|record| matches!(record, Record::Failed(_)));
        let refused = needless || (transaction.is_undoing() && !failed);
        let considered = vec![Considered {
            plan: text,
            source: Source::Resumed,
            refusal,
        }];
        let body = Body::Decided(Decided {
            incident: incident.id,
            plan: Some(cut.id),
            considered,
            cost: narrow(predicted.total()),
            balance: narrow(self.ledger.balance()),
        });
        incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
        incident.execution = Some(Execution {
            id: cut.id,
            recipe: cut.recipe,
            source: cut.source,
            purpose,
            transaction,
            reservation,
            predicted,
            runs: Vec::new(),
            files: Vec::new(),
            ticket: None,
            synced_by: None,
            wake: None,
            interrupted: None,
            was_answering,
            refused,
        });
    }
}

/// Appends how far a transaction is; its end is told by [`Loop::finish`].
fn journal(execution: &Execution, record: Record, effects: &mut Vec<Effect>) {
    if !matches!(record, Record::Ended(_)) {
        effects.push(Effect::Journal(HealRecord::Step(execution.id, record)));
    }
}
