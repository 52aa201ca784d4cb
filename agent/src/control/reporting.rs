//! What is told about an incident: its beginning, refusals, steps and end.

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::gate::Rule;
use homeostat_common::ids::{Instance, ServiceId};
use homeostat_common::outcome::Outcome;
use homeostat_common::state::Past;
use homeostat_common::units::{Micros, Millis, narrow};
use homeostat_common::wire::body::{
    Body, Considered, Decided, IncidentClosed, IncidentOpened, Phase, Severity, Step as StepEvent,
};

use super::incident::Execution;
use super::message::{Class, Effect, HealRecord};
use super::{Incident, Loop};
use crate::words::ASKED_DONE;

/// Refusals that end by themselves within moments alarm only after this.
const PATIENCE: Millis = Millis::secs(5);

impl Loop {
    pub(super) fn tell_opened(
        &mut self,
        incident: &mut Incident,
        mut evidence: Vec<String>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        incident.told = true;
        let suspected = self.suspect(incident, &evidence, now);
        evidence.extend(self.unusual_before(&incident.service, incident.since, now));
        evidence.extend(suspected);
        if let Some((words, mark)) = self.on_purpose(&incident.service, now) {
            evidence.insert(0, words);
            if mark > 0 {
                incident.mark = mark;
            }
        }
        effects.push(Effect::Journal(HealRecord::Opened {
            incident: incident.id,
            service: incident.service.clone(),
            symptom: incident.symptom,
            fault: incident.fault,
            since: incident.since,
        }));
        self.emit_opened(incident, evidence, now, effects);
        self.tell_suspects(incident, effects);
    }

    /// A closer look has found another cause: told under the same number, and who may be
    /// behind it anew.
    pub(super) fn tell_rediagnosed(
        &mut self,
        incident: &mut Incident,
        mut evidence: Vec<String>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Journal(HealRecord::Opened {
            incident: incident.id,
            service: incident.service.clone(),
            symptom: incident.symptom,
            fault: incident.fault,
            since: incident.since,
        }));
        evidence.extend(self.suspect(incident, &evidence, now));
        self.emit_diagnosis(incident, evidence, now, effects);
        incident.suspicion.told_last = None;
        self.tell_suspects(incident, effects);
    }

    /// Why the process died is known a moment after the reflex has begun: told
    /// under the same number. What is done stays the same; a limit that is too
    /// low, or a leak, is for a person to find out.
    pub(super) fn tell_out_of_memory(
        &mut self,
        now: Micros,
        service: &ServiceId,
        instance: Instance,
        effects: &mut Vec<Effect>,
    ) {
        let Some(mut incident) = self.incidents.remove(service) else {
            return;
        };
        if incident.told && incident.symptom == Symptom::Dead {
            let limit = self.services.get(service);
            let limit = limit.and_then(|watched| watched.policy.memory_limit);
            let limit = limit.map_or(String::new(), |limit| format!(", its limit is {limit}"));
            let evidence = vec![format!(
                "process {instance} was killed by the kernel for memory{limit}"
            )];
            self.emit_diagnosis(&mut incident, evidence, now, effects);
        }
        self.incidents.insert(service.clone(), incident);
    }

    fn emit_diagnosis(
        &mut self,
        incident: &mut Incident,
        evidence: Vec<String>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        incident.told_fault = Some(incident.fault);
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
        incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
    }

    pub(super) fn emit_opened(
        &mut self,
        incident: &mut Incident,
        evidence: Vec<String>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        self.emit_diagnosis(incident, evidence, now, effects);
        let observation = Body::Observation(self.observation(now, Some(incident)));
        self.emit(Class::State, &[incident.mark], observation, effects);
        let state = Body::State(self.state(now));
        self.emit(Class::State, &[incident.mark], state, effects);
    }

    pub(super) fn tell_refused(
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
            Rule::UnderRepair | Rule::BlastRadius | Rule::LastBackend | Rule::StaleTelemetry
        );
        if !passing || now.since(incident.since) >= PATIENCE {
            let refusal = |name: &str| {
                let named = |one: &&Considered| {
                    let refusal = one.refusal.as_ref();
                    refusal.is_some_and(|refusal| refusal.rule == name)
                };
                considered.iter().find(named)
            };
            let held = refusal(&Rule::NeedsApproval.to_string());
            let reason = considered
                .iter()
                .find_map(|one| one.refusal.as_ref())
                .map_or("", |refusal| refusal.reason.as_str());
            let text = match held {
                Some(held) => format!(
                    "{}, and {} waits for a person: homeostat-agent approve {}, or refuse {}",
                    state(incident),
                    held.plan,
                    incident.id,
                    incident.id
                ),
                None if incident.symptom == Symptom::Foreseen => {
                    format!(
                        "{}, and nothing is done about it: {reason}",
                        state(incident)
                    )
                }
                None => format!("{}, and not healed: {reason}", state(incident)),
            };
            self.raise(
                &format!("{}-{}", incident.service, incident.symptom),
                Some(&incident.service),
                // A person who works on it knows.
                if matches!(rule, Rule::BackOff | Rule::Maintenance)
                    || incident.symptom == Symptom::Foreseen
                {
                    Severity::Warning
                } else {
                    Severity::Critical
                },
                text,
                effects,
            );
        }
        if rules(&considered) == rules(&incident.refused) {
            return;
        }
        incident.refused.clone_from(&considered);
        let health = self.health(now);
        let body = Body::Decided(Decided {
            incident: incident.id,
            plan: None,
            considered,
            cost: 0.0,
            balance: narrow(self.balance_of(&incident.service)),
            health: health.get(),
            predicted: health.get(),
        });
        incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
    }

    pub(super) fn tell_step(
        &mut self,
        incident: &mut Incident,
        execution: &Execution,
        step: u8,
        phase: Phase,
        now: Micros,
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
            predicted: execution
                .prospects
                .get(usize::from(step))
                .map_or(0.0, |after| after.get()),
            health: self.health(now).get(),
        });
        incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
    }

    pub(super) fn escalate(
        &mut self,
        incident: &mut Incident,
        why: &str,
        effects: &mut Vec<Effect>,
    ) {
        incident.escalated = true;
        self.raise(
            &format!("{}-{}", incident.service, incident.symptom),
            Some(&incident.service),
            Severity::Critical,
            format!("{} and a person is needed: {why}", state(incident)),
            effects,
        );
    }

    pub(super) fn close(
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
        self.approvals.forget(incident.id);
        self.unsettle(&incident.service, incident.since, now);
        self.settle(incident, now);
        for symptom in Symptom::ALL {
            self.clear(&format!("{}-{symptom}", incident.service), effects);
        }
        if !incident.told {
            return;
        }
        let lasted = now.since(incident.since);
        let asked = incident.symptom == Symptom::Requested;
        let foreseen = incident.symptom == Symptom::Foreseen;
        let (service, fault) = (&incident.service, incident.fault);
        let summary = match outcome {
            Outcome::Healed if foreseen && fault == Fault::CertificateExpiry => {
                format!("whoever renews the certificate of {service} was asked to")
            }
            Outcome::Healed if foreseen => {
                format!("{fault} of {service} was kept from coming; it took {lasted}")
            }
            Outcome::Undone | Outcome::Escalated | Outcome::Recovered | Outcome::Refused
                if foreseen =>
            {
                format!("{fault} of {service} is not to be expected any more")
            }
            Outcome::Healed if asked => format!("{ASKED_DONE} in {lasted}"),
            Outcome::Undone if asked => "what was asked for failed and was taken back".into(),
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
        self.quiet(effects);
    }

    /// Lets the records go once nothing is open that they are needed for.
    pub(super) fn quiet(&self, effects: &mut Vec<Effect>) {
        let over = self.parts.is_empty() && self.leads.is_empty();
        if over && self.incidents.values().all(|open| !open.told) {
            effects.push(Effect::Remember);
            effects.push(Effect::Quiet);
        }
    }
}

/// How a service is, in words.
fn state(incident: &Incident) -> String {
    match incident.symptom {
        Symptom::Foreseen => format!("{} of {} is foreseen", incident.fault, incident.service),
        symptom => format!("{} is {symptom}", incident.service),
    }
}
