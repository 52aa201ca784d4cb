//! Plans that wait for a person.
//!
//! In go plans against which only `needs-approval` objects, and what a person
//! says to them; out come plans that begin, after the gate has been asked again. A
//! held plan reserves nothing and holds nobody up: whatever needs no approval is
//! tried first. What nobody has answered in time is stale, and is asked for anew if
//! it is still what there is to do.

use std::collections::BTreeMap;

use homeostat_common::anomaly::Fault;
use homeostat_common::gate::{self, Purpose};
use homeostat_common::ids::{IncidentId, ServiceId};
use homeostat_common::plan::Plan;
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::body::{Body, Control, ControlKind, Source};

use super::controls::reasonable;
use super::message::{Class, Effect};
use super::{Incident, Loop};
use crate::plan::{Candidate, Recipe};

/// A plan that went stale is asked for again after this: it must not look as if
/// it had never gone.
const ASK_AGAIN: Millis = Millis::secs(60);

/// A plan that waits.
#[derive(Debug, Clone)]
pub(super) struct Held {
    service: ServiceId,
    recipe: Recipe,
    plan: Plan,
    source: Source,
    purpose: Purpose,
    /// Then it is stale.
    pub(super) until: Micros,
    /// Another plan waited before: who says yes may mean that one.
    replaced: bool,
}

impl Held {
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// What waits, and what was refused, by incident.
#[derive(Debug, Default)]
pub(super) struct Approvals {
    held: BTreeMap<IncidentId, Held>,
    refused: BTreeMap<IncidentId, BTreeMap<Recipe, String>>,
    /// The plan that a person has just approved.
    pub(super) approved: Option<Plan>,
}

impl Approvals {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&IncidentId, &Held)> {
        self.held.iter()
    }

    /// Who refused this kind of plan in this incident, and why.
    pub(super) fn refusal(&self, incident: IncidentId, recipe: Recipe) -> Option<&str> {
        let refused = self.refused.get(&incident)?;
        refused.get(&recipe).map(String::as_str)
    }

    /// The incident is over.
    pub(super) fn forget(&mut self, incident: IncidentId) {
        self.held.remove(&incident);
        self.refused.remove(&incident);
    }

    /// A plan of the incident runs: none waits any more.
    pub(super) fn begun(&mut self, incident: IncidentId) {
        self.held.remove(&incident);
    }

    pub(super) fn next_wake(&self) -> Option<Micros> {
        self.held.values().map(|held| held.until).min()
    }
}

impl Loop {
    /// Keeps a plan for a person; only one that is new is told.
    pub(super) fn hold_for_approval(
        &mut self,
        incident: &mut Incident,
        option: Candidate,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let replaced = match self.approvals.held.get_mut(&incident.id) {
            Some(held) if held.plan == option.plan => {
                held.purpose = option.purpose;
                return;
            }
            other => other.is_some(),
        };
        let until = now + self.controls.people().approval;
        let text = format!(
            "{} waits for a person, for {}",
            option.plan,
            self.controls.people().approval
        );
        self.approvals.held.insert(
            incident.id,
            Held {
                service: incident.service.clone(),
                recipe: option.recipe,
                plan: option.plan,
                source: option.source,
                purpose: option.purpose,
                until,
                replaced,
            },
        );
        self.tell_of(incident, ControlKind::ApprovalAsked, "", text, effects);
    }

    /// Records a control that is about an incident which is being treated.
    fn tell_of(
        &mut self,
        incident: &mut Incident,
        what: ControlKind,
        by: &str,
        text: String,
        effects: &mut Vec<Effect>,
    ) {
        let body = Body::Control(Control {
            what,
            incident: Some(incident.id),
            service: Some(incident.service.clone()),
            by: by.to_owned(),
            text,
        });
        incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
    }

    /// A person lets the held plan of an incident run.
    pub(super) fn approve(
        &mut self,
        now: Micros,
        id: IncidentId,
        plan: Option<&Plan>,
        by: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        let held = self.held(id)?;
        if plan.is_none() && held.replaced {
            return Err(format!(
                "what waits there has changed, to {}: approve it by name (--plan)",
                held.plan
            ));
        }
        if let Some(plan) = plan.filter(|plan| **plan != held.plan) {
            return Err(format!("{plan} is not what waits there, {} is", held.plan));
        }
        let fault = self
            .open(id)
            .map_or(Fault::Request, |incident| incident.fault);
        let mut facts = self.facts(now, &held.service, fault, held.recipe);
        facts.approved = Some(held.plan.clone());
        let mut thought = self.budget.clone();
        gate::verify(held.plan.clone(), held.purpose, &facts, &mut thought)
            .map_err(|rejection| format!("it waits on, as the gate refuses it now: {rejection}"))?;
        let Some(mut incident) = self.incidents.remove(&held.service) else {
            return Err(format!("incident {id} is over"));
        };
        self.approvals.held.remove(&id);
        let text = format!("{} is approved", held.plan);
        self.tell_of(&mut incident, ControlKind::Approved, by, text, effects);
        self.approvals.approved = Some(held.plan.clone());
        let option = Candidate {
            recipe: held.recipe,
            plan: held.plan.clone(),
            source: held.source,
            purpose: held.purpose,
        };
        self.choose(&mut incident, vec![option], now, effects);
        self.approvals.approved = None;
        let begun = incident.plan().map(|(plan, _)| plan);
        self.incidents.insert(held.service, incident);
        match begun {
            Some(number) => Ok(format!("incident {id}: {number} runs {}", held.plan)),
            None => Err("the gate has refused it".into()),
        }
    }

    /// A person does not want the held plan of an incident.
    pub(super) fn refuse(
        &mut self,
        id: IncidentId,
        why: &str,
        by: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        let why = reasonable(why)?;
        let held = self.held(id)?;
        self.approvals.held.remove(&id);
        let refused = self.approvals.refused.entry(id).or_default();
        refused.insert(held.recipe, format!("{by} refused it: {why}"));
        let text = format!("{} is refused: {why}", held.plan);
        let about = (Some(id), Some(&held.service));
        self.tell_control(ControlKind::Refused, about, by, text.clone(), effects);
        if let Some(incident) = self.open(id) {
            incident.retry_at = None;
        }
        Ok(format!("incident {id}: {text}"))
    }

    fn held(&mut self, id: IncidentId) -> Result<Held, String> {
        if let Some(held) = self.approvals.held.get(&id) {
            return Ok(held.clone());
        }
        let open = self.open(id).map(|incident| incident.service.clone());
        Err(match open {
            Some(service) => format!(
                "no plan of incident {id} of {service} waits for a person; homeostat-agent explain \
                 {id} says how it goes"
            ),
            None => format!("no incident {id} is open"),
        })
    }

    /// What nobody has answered in time is stale.
    pub(super) fn end_stale(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let stale: Vec<IncidentId> = self
            .approvals
            .held
            .iter()
            .filter(|(_, held)| held.until <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in stale {
            let Some(held) = self.approvals.held.remove(&id) else {
                continue;
            };
            let text = format!("nobody has answered: {} is stale", held.plan);
            let about = (Some(id), Some(&held.service));
            self.tell_control(ControlKind::ApprovalStale, about, "", text, effects);
            if let Some(incident) = self.open(id) {
                incident.retry_at = Some(now + ASK_AGAIN);
            }
        }
    }
}
