//! Incidents and plans that a former run of the agent left open.

use homeostat_common::anomaly::Symptom;
use homeostat_common::gate::{self, Purpose};
use homeostat_common::transaction::{Record, Transaction};
use homeostat_common::units::{Micros, Millis, narrow};
use homeostat_common::wire::body::{Body, Considered, Decided, Refusal, Source};

use super::budgeting::Meter;
use super::deciding::prospects;
use super::incident::{CutShort, Execution};
use super::message::{Class, Effect, HealRecord};
use super::{Incident, Loop};
use crate::execute::Runs;
use crate::service::{SlotFile, SlotWatch};

/// A plan that a restart cut short waits so long for fresh telemetry and
/// a look at the model; without them the gate would refuse what it had admitted.
const RESUME_PATIENCE: Millis = Millis::secs(5);

impl Loop {
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
                        open.told_fault = Some(fault);
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
                // Parts of plans across nodes belong to no incident.
                HealRecord::Saga(..) | HealRecord::Lead(..) => {}
            }
        }
    }

    pub(super) fn open(&mut self, id: homeostat_common::ids::IncidentId) -> Option<&mut Incident> {
        self.incidents.values_mut().find(|open| open.id == id)
    }

    /// Goes on with an incident that a former run of the agent left open.
    pub(super) fn take_up(
        &mut self,
        incident: &mut Incident,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        if incident.retell {
            incident.retell = false;
            let evidence = vec!["open when the agent was restarted".to_owned()];
            self.emit_opened(incident, evidence, now, effects);
        }
        let ready = self.services.get(&incident.service).is_some_and(|watched| {
            let looked = |slot: &SlotWatch| !matches!(slot.file, SlotFile::Unchecked);
            let looked = watched.slots.values().all(looked);
            looked && self.fresh(watched, now)
        });
        if ready || incident.retry_at.is_none_or(|at| at <= now) {
            self.resume_plan(incident, now, effects);
        }
    }

    /// Goes on with a plan that a restart cut short; the gate is asked again,
    /// and if it refuses, what was done is taken back.
    pub(super) fn resume_plan(
        &mut self,
        incident: &mut Incident,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let Some(cut) = incident.cut_short.take() else {
            return;
        };
        incident.retry_at = None;
        let purpose = if cut.revive {
            Purpose::Revive
        } else if cut.source == Source::Operator {
            Purpose::Operate
        } else if incident.symptom == Symptom::Foreseen {
            Purpose::Foresee(homeostat_common::units::Ratio::ONE)
        } else {
            Purpose::Heal(homeostat_common::units::Ratio::ONE)
        };
        let mut transaction = Transaction::resume(cut.plan.clone(), &cut.records, self.limit());
        let mut facts = self.facts(now, &incident.service, incident.fault, cut.recipe);
        // What was revised is what goes on.
        let plan = transaction.plan().clone();
        // It had begun, so it needed no approval or had one.
        facts.approved = Some(plan.clone());
        let text = plan.to_string();
        let health = gate::health(&facts);
        let prospects = prospects(&plan, &facts);
        let dead = facts
            .services
            .get(&incident.service)
            .is_some_and(|facts| facts.dead);
        // A process that was to be started lives: that is all that was wanted,
        // and doing it again would take it away.
        let needless = cut.revive && !dead;
        let (reservation, costs, refusal) = if needless || transaction.is_carried_out() {
            if needless {
                transaction.abandon();
            }
            (None, Vec::new(), None)
        } else {
            match gate::verify(plan, purpose, &facts, &mut self.budget) {
                Ok(verified) => {
                    let (_, costs, reservation) = verified.into_parts();
                    (Some(reservation), costs, None)
                }
                Err(rejection) => {
                    transaction.abandon();
                    let refusal = Refusal {
                        rule: rejection.rule.to_string(),
                        reason: rejection.reason,
                    };
                    (None, Vec::new(), Some(refusal))
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
        let meter = Meter::after(0, costs);
        let body = Body::Decided(Decided {
            incident: incident.id,
            plan: Some(cut.id),
            considered,
            cost: narrow(meter.foreseen().total()),
            balance: narrow(self.balance(reservation.as_ref())),
            health: health.get(),
            predicted: prospects.last().map_or(0.0, |after| after.get()),
        });
        incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
        incident.execution = Some(Execution {
            id: cut.id,
            recipe: cut.recipe,
            source: cut.source,
            purpose,
            transaction,
            reservation,
            meter,
            health,
            prospects,
            runs: Runs::default(),
            ticket: None,
            synced_by: None,
            refused,
        });
    }
}
