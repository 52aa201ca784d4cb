//! Plans that a person on the node asks for: they pass the gate and run as a
//! transaction like any other.

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::gate::{self, Purpose};
use homeostat_common::ids::ServiceId;
use homeostat_common::outcome::Outcome;
use homeostat_common::plan::Plan;
use homeostat_common::primitive::Primitive;
use homeostat_common::units::{Micros, Ratio};
use homeostat_common::wire::body::Source;

use super::message::Effect;
use super::{Incident, Loop};
use crate::plan::{Candidate, Recipe};

impl Loop {
    /// Begins the plan, or says why not.
    pub(super) fn absorb_asked(
        &mut self,
        now: Micros,
        ticket: u64,
        plan: Plan,
        effects: &mut Vec<Effect>,
    ) {
        let answer = self.ask(now, plan, effects);
        effects.push(Effect::Answer(ticket, answer));
    }

    fn ask(
        &mut self,
        now: Micros,
        plan: Plan,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        let Some(service) = self.subject(&plan) else {
            return Err("the plan touches nothing of this node".into());
        };
        // One lease, one incident: what else it changed would be nobody's.
        let other = plan
            .steps()
            .filter(|step| step.writes())
            .filter_map(Primitive::service)
            .find(|id| **id != service && self.services.contains_key(*id));
        if let Some(other) = other {
            return Err(format!(
                "a plan by hand changes one service, this one {service} and {other}: ask twice"
            ));
        }
        if let Some(open) = self.incidents.get(&service)
            && (open.execution.is_some() || open.cut_short.is_some())
        {
            let id = open.id;
            return Err(format!(
                "a plan of incident {id} works on {service}; ask again when it has ended"
            ));
        }
        let facts = self.facts(now, &service, Fault::Request, Recipe::Requested);
        // Asked twice, and the first time only in thought: an incident that is
        // refused at once would be noise.
        let mut thought = self.budget.clone();
        if let Err(rejection) = gate::verify(plan.clone(), Purpose::Operate, &facts, &mut thought) {
            return Err(rejection.to_string());
        }
        // One that is open, and not healed, takes it as a plan of its own.
        let mut incident = match self.incidents.remove(&service) {
            Some(mut open) => {
                open.tried.retain(|recipe| *recipe != Recipe::Requested);
                if !open.told {
                    let evidence = vec![format!("a person on the node asked for {plan}")];
                    self.tell_opened(&mut open, evidence, now, effects);
                }
                open
            }
            None => {
                let number = self.mint_incident();
                let (symptom, fault) = (Symptom::Requested, Fault::Request);
                let mut incident = Incident::new(number, service.clone(), symptom, fault, now);
                incident.confidence = Ratio::ONE;
                let evidence = vec![format!("a person on the node asked for {plan}")];
                self.tell_opened(&mut incident, evidence, now, effects);
                incident
            }
        };
        let number = incident.id;
        let option = Candidate {
            recipe: Recipe::Requested,
            plan,
            source: Source::Operator,
            purpose: Purpose::Operate,
        };
        self.choose(&mut incident, vec![option], now, effects);
        let begun = incident.plan().map(|(id, _)| id);
        match begun {
            Some(plan) => {
                self.forget_rivals(&service, effects);
                self.incidents.insert(service, incident);
                Ok(format!("{number} {plan}"))
            }
            None if incident.symptom == Symptom::Requested => {
                self.close(&incident, Outcome::Refused, now, effects);
                Err("the gate has refused it".into())
            }
            None => {
                self.incidents.insert(service, incident);
                Err("the gate has refused it".into())
            }
        }
    }

    /// The service whose incident the plan belongs to.
    fn subject(&self, plan: &Plan) -> Option<ServiceId> {
        let own = plan
            .steps()
            .flat_map(|step| step.service().into_iter().chain(step.backends()))
            .find(|id| self.services.contains_key(*id))
            .cloned();
        let routed = plan.steps().any(|step| step.route().is_some());
        own.or_else(|| {
            Some(super::routing::forwarder()).filter(|id| routed && self.services.contains_key(id))
        })
    }
}
