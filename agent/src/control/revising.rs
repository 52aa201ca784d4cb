//! A step failed and left nothing behind: other steps may follow what has taken
//! effect, instead of taking it all back and beginning anew.

use homeostat_common::gate::{self, Purpose};
use homeostat_common::plan::Plan;
use homeostat_common::units::{Micros, narrow};
use homeostat_common::wire::body::{Body, Considered, Decided, Refusal};

use super::budgeting::Meter;
use super::deciding::prospects;
use super::executing::journal;
use super::incident::Execution;
use super::message::{Class, Effect};
use super::{Incident, Loop};

impl Loop {
    /// Puts the first option that begins like the present plan, and passes the
    /// gate, in its place. Without one the plan is taken back as ever.
    pub(super) fn revise(
        &mut self,
        incident: &mut Incident,
        execution: &mut Execution,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let dead = match execution.purpose {
            Purpose::Operate => return,
            Purpose::Revive => true,
            Purpose::Heal(_) | Purpose::Foresee(_) => false,
        };
        let service = incident.service.clone();
        let former = execution.recipe;
        let tried = incident.tried.clone();
        let options = self.options(incident, dead, true).into_iter();
        for option in options.filter(|it| it.recipe != former && !tried.contains(&it.recipe)) {
            if self.approvals.refusal(incident.id, option.recipe).is_some() {
                continue;
            }
            let Some(done) = execution.transaction.revisable(&option.plan) else {
                continue;
            };
            let rest: Vec<_> = option.plan.steps().skip(done).cloned().collect();
            let Ok(rest) = Plan::series(rest) else {
                continue;
            };
            let mut facts = self.facts(now, &service, incident.fault, option.recipe);
            for facts in facts.services.values_mut() {
                facts.leased = facts.leased.filter(|plan| *plan != execution.id);
            }
            // What was set aside for the steps that failed is still set aside then.
            let Ok(verified) = gate::verify(rest, option.purpose, &facts, &mut self.budget) else {
                continue;
            };
            let (_, costs, reservation) = verified.into_parts();
            self.pay(incident, execution, false, now, effects);
            execution.meter = Meter::after(done, costs);
            let why = execution.transaction.failure().map_or_else(
                || "it failed in this incident".to_owned(),
                |(_, why)| format!("it failed in this incident: {why}"),
            );
            let failed = Considered {
                plan: execution.transaction.plan().to_string(),
                source: execution.source,
                refusal: Some(Refusal {
                    rule: "tried".into(),
                    reason: why,
                }),
            };
            let limit = self.limit();
            if let Some(record) = execution.transaction.revise(option.plan.clone(), limit) {
                journal(execution, record, effects);
            }
            self.experience.tried(incident.fault, former, false);
            incident.tried.push(former);
            execution.recipe = option.recipe;
            execution.source = option.source;
            execution.health = gate::health(&facts);
            execution.prospects = prospects(&option.plan, &facts);
            execution.runs.forget_answers();
            let body = Body::Decided(Decided {
                incident: incident.id,
                plan: Some(execution.id),
                considered: vec![
                    failed,
                    Considered {
                        plan: option.plan.to_string(),
                        source: option.source,
                        refusal: None,
                    },
                ],
                cost: narrow(execution.meter.foreseen().total()),
                balance: narrow(self.balance(Some(&reservation))),
                health: execution.health.get(),
                predicted: execution.prospects.last().map_or(0.0, |after| after.get()),
            });
            incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
            execution.reservation = Some(reservation);
            effects.push(Effect::Remember);
            return;
        }
    }
}
