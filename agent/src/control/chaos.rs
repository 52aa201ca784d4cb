//! Faults on purpose: whether one may be put into a service now, and what is told of it.
//!
//! In: a wish of a person on the node, and what the spawner says became of it. Out: a refusal
//! in words, or an order to the spawner; a note at its beginning and its end, and evidence in
//! each incident meanwhile, so that nobody who looks later wonders where a fault came from.
//! Does not end anything: that is the spawner's, which outlives the loop.
//!
//! Whatever the agent could not heal by itself now may not be broken either: the gate is asked
//! as for a restart of its own, so that all that restrains it, from a protected service to the
//! last backend of a route, counts here too.

use homeostat_common::anomaly::Fault;
use homeostat_common::gate::{self, Purpose};
use homeostat_common::ids::ServiceId;
use homeostat_common::plan::Plan;
use homeostat_common::primitive::Primitive;
use homeostat_common::units::{Micros, Millis, Ratio};
use homeostat_common::wire::body::{Body, Note, ON_PURPOSE, ServiceState};

use super::Loop;
use super::message::{Class, Effect};
use crate::chaos::{Injection, Wish, forbidden};
use crate::plan::Recipe;
use crate::service::{SlotFile, SlotName, Watched};

/// So long after its end an incident may still be its consequence.
const ECHO: Millis = Millis::secs(60);

/// The spawner answers within a round of its loop; one that does not has lost the wish.
const ANSWER_MAX: Millis = Millis::secs(10);

/// What is known of faults on purpose.
#[derive(Debug, Default)]
pub(super) struct Chaos {
    /// Asked of the spawner and not answered yet, and since when.
    asked: Option<(u64, Wish, Micros)>,
    /// In force, or over since.
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    service: ServiceId,
    injection: Injection,
    who: String,
    /// `None` while it is in force.
    ended: Option<Micros>,
    /// The note of its beginning.
    mark: u64,
}

impl Loop {
    /// Somebody wishes for a fault.
    pub(super) fn absorb_wish(
        &mut self,
        now: Micros,
        ticket: u64,
        wish: Wish,
        effects: &mut Vec<Effect>,
    ) {
        match self.may_break(now, &wish) {
            Ok(()) => {
                effects.push(Effect::Break(
                    wish.service.clone(),
                    wish.injection,
                    wish.span,
                ));
                self.chaos.asked = Some((ticket, wish, now));
            }
            Err(why) => {
                let (service, injection) = (&wish.service, wish.injection);
                let text = format!(
                    "{} asked for {injection} of {service}: refused, {why}",
                    wish.who
                );
                self.note(Some(service), text, effects);
                effects.push(Effect::Answer(ticket, Err(why)));
            }
        }
    }

    fn may_break(&self, now: Micros, wish: &Wish) -> Result<(), String> {
        let Wish {
            service: id,
            injection,
            ..
        } = wish;
        let watched = self
            .services
            .get(id)
            .ok_or_else(|| format!("there is no service {id}"))?;
        forbidden(self.limits.mode, &watched.policy)?;
        fits(watched, *injection)?;
        let waiting = self.chaos.asked.as_ref();
        if waiting.is_some_and(|(_, _, at)| now.since(*at) < ANSWER_MAX) {
            return Err("another fault is asked for".into());
        }
        if let Some(last) = self.chaos.last.as_ref().filter(|last| last.ended.is_none()) {
            return Err(format!(
                "{} of {} is in force, one fault at a time",
                last.injection, last.service
            ));
        }
        if let Some(open) = self.incidents.values().next() {
            return Err(format!(
                "incident {} of {} is open; a node that is ill is left alone",
                open.id, open.service
            ));
        }
        let ill = |one: &&Watched| {
            !matches!(
                one.state(now),
                ServiceState::Healthy | ServiceState::Standby
            )
        };
        if let Some(ill) = self.services.values().find(ill) {
            return Err(format!("{} is not well", ill.policy.id));
        }
        let restart = Plan::single(Primitive::Restart {
            service: id.clone(),
            grace: Millis(0),
        });
        let facts = self.facts(now, id, Fault::Crash, Recipe::RestartAtOnce);
        let mut thought = self.budget.clone();
        gate::verify(restart, Purpose::Heal(Ratio::ONE), &facts, &mut thought)
            .map(|_| ())
            .map_err(|rejection| format!("the agent could not heal it now: {rejection}"))
    }

    /// The spawner has done it, or tells a new loop that it has.
    pub(super) fn absorb_broken(
        &mut self,
        now: Micros,
        service: ServiceId,
        injection: Injection,
        left: Millis,
        effects: &mut Vec<Effect>,
    ) {
        let asked = self
            .chaos
            .asked
            .take()
            .filter(|(_, wish, _)| wish.service == service && wish.injection == injection);
        if let (None, Some(last)) = (&asked, &mut self.chaos.last)
            && last.service == service
            && last.injection == injection
        {
            // Still the same, as a spawner tells that is reached again.
            last.ended = None;
            return;
        }
        let (ticket, who) = match asked {
            Some((ticket, wish, _)) => (Some(ticket), wish.who),
            None => (None, "somebody".to_owned()),
        };
        let until = if injection.lasts() {
            format!(", for {left} at most")
        } else {
            String::new()
        };
        let text = format!(
            "{ON_PURPOSE}{injection} of {service}, asked for by {who}: {}{until}",
            injection.what()
        );
        let body = Body::Note(Note {
            service: Some(service.clone()),
            text: text.clone(),
        });
        let mark = self.emit(Class::Heal, &[], body, effects);
        self.chaos.last = Some(Last {
            service,
            injection,
            who,
            ended: (!injection.lasts()).then_some(now),
            mark,
        });
        if let Some(ticket) = ticket {
            effects.push(Effect::Answer(ticket, Ok(text)));
        }
    }

    /// The spawner was lost and is reached again. It tells what is in force, and ended what a
    /// former one had left.
    pub(super) fn absorb_return(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        if let Some(last) = &mut self.chaos.last {
            last.ended.get_or_insert(now);
        }
        self.absorb_unbroken("the spawner was lost meanwhile".into(), effects);
    }

    /// The spawner would not.
    pub(super) fn absorb_unbroken(&mut self, why: String, effects: &mut Vec<Effect>) {
        if let Some((ticket, ..)) = self.chaos.asked.take() {
            effects.push(Effect::Answer(ticket, Err(why)));
        }
    }

    /// It is over.
    pub(super) fn absorb_mended(&mut self, now: Micros, why: &str, effects: &mut Vec<Effect>) {
        let Some(last) = &mut self.chaos.last else {
            return;
        };
        last.ended = Some(now);
        let (service, injection, mark) = (last.service.clone(), last.injection, last.mark);
        let body = Body::Note(Note {
            text: format!("{ON_PURPOSE}{injection} of {service} has ended: {why}"),
            service: Some(service),
        });
        self.emit(Class::Heal, &[mark], body, effects);
    }

    /// What an incident of `service` may come from, and the event that says so.
    pub(super) fn on_purpose(&self, service: &ServiceId, now: Micros) -> Option<(String, u64)> {
        // The kernel may tell of its consequence before the spawner tells of it.
        let asked = self
            .chaos
            .asked
            .as_ref()
            .filter(|(_, wish, at)| wish.service == *service && now.since(*at) < ANSWER_MAX);
        if let Some((_, wish, _)) = asked {
            let words = format!(
                "caused on purpose: {} was asked for by {}",
                wish.injection, wish.who
            );
            return Some((words, 0));
        }
        let last = self.chaos.last.as_ref()?;
        if last.ended.is_some_and(|ended| now.since(ended) > ECHO) {
            return None;
        }
        let Last {
            service: broken,
            injection,
            who,
            ended,
            mark,
        } = last;
        let when = match ended {
            Some(ended) => format!("until {} ago", now.since(*ended)),
            None => "now".to_owned(),
        };
        let words = if broken == service {
            format!("caused on purpose: {injection}, in force {when}, was asked for by {who}")
        } else {
            format!("perhaps by what was done on purpose: {injection} of {broken}, in force {when}")
        };
        Some((words, *mark))
    }
}

/// Whether the service has what the fault is about.
fn fits(watched: &Watched, injection: Injection) -> Result<(), String> {
    let policy = &watched.policy;
    let slot = |name: SlotName| match watched.slots.get(&name) {
        None => Err(format!("{} has no slot of its {name}", policy.id)),
        Some(slot) if slot.file == SlotFile::Good => Ok(()),
        Some(_) => Err(format!(
            "the {name} of {} is not known to be good, with an intact copy",
            policy.id
        )),
    };
    match injection {
        Injection::Kill | Injection::Sigstop | Injection::Hog => Ok(()),
        Injection::Block | Injection::Descriptors if policy.probes.is_empty() => {
            Err(format!("{} has no probe: nobody would notice", policy.id))
        }
        Injection::Block | Injection::Descriptors => Ok(()),
        Injection::Leak | Injection::Oom if policy.memory_limit.is_none() => {
            Err(format!("{} has no memory_limit", policy.id))
        }
        Injection::Leak | Injection::Oom => Ok(()),
        Injection::DataFull => match &policy.data {
            Some(data) if !data.prune.is_empty() => Ok(()),
            _ => Err(format!("{} has no data that may be pruned", policy.id)),
        },
        Injection::CorruptModel => slot(SlotName::Model),
        Injection::BadConfig => slot(SlotName::Config),
    }
}
