//! Signs that somebody else changes what is put right here.
//!
//! In goes each event before it is taken in, and each order of the loop after it was given.
//! A sign is a change that follows one of ours and was not ordered here:
//!
//! - a process ended by SIGTERM that was not sent here, or a port that is answered while our
//!   process for it cannot live;
//! - a slot in which the version stands again that a plan has replaced;
//! - a weight that was seen in force and is another one.
//!
//! How many make a contest is `verify::contest`'s business, what is then refused the gate's.
//! A process that crashes, or that the kernel kills, is no sign of anybody.

use std::collections::BTreeMap;

use homeostat_common::anomaly::Exit;
use homeostat_common::gate::Contested;
use homeostat_common::ids::{Instance, RouteId, ServiceId, Token};
use homeostat_common::primitive::Resource;
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::body::Severity;

use super::message::RouteSample;
use super::{Effect, Event, Loop, ProbeOutcome};
use crate::execute::Act;
use crate::service::{Slot, SlotName, Version};
use crate::verify::Pace;
use crate::verify::contest::Contest;

/// SIGTERM, on every Linux.
const TERM: i32 = 15;

/// So long after its start the agent may see the end of what a former run ordered.
const FORMER: Millis = Millis::secs(30);

/// SIGTERMs to several services this close together are somebody who stops the node, or a
/// group of processes: that is no healer.
const TOGETHER: Millis = Millis::secs(1);

/// Switches on their way; each service has at most two slots, and answers come.
const SWITCHING_MAX: usize = 64;

/// What was ordered here last, to tell the doings of others from it.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    pub(super) contests: BTreeMap<ServiceId, Contest>,
    since: Micros,
    /// The life that was told to end.
    ended: BTreeMap<ServiceId, Instance>,
    /// SIGTERMs that may still turn out to be one of many.
    terms: BTreeMap<ServiceId, (Micros, Instance)>,
    /// Until when SIGTERMs are parts of one that went to many.
    to_many: Option<Micros>,
    /// Switches on their way: which slot, and what they replace.
    switching: BTreeMap<Token, ((ServiceId, SlotName), Version)>,
    /// What a switch has replaced.
    pub(super) replaced: BTreeMap<(ServiceId, SlotName), Version>,
    /// The weight that was asked for, and whether it was seen in force.
    weights: BTreeMap<(RouteId, ServiceId), (u16, bool)>,
    /// Who was asked on the port of a dead process: the pause in which, and the number.
    asked: BTreeMap<ServiceId, (Micros, Option<u64>)>,
}

impl Rivals {
    pub(super) fn new(now: Micros) -> Self {
        Self {
            since: now,
            ..Self::default()
        }
    }

    /// Another order for a slot: a late answer to the one before says nothing any more.
    fn supersede(&mut self, key: &(ServiceId, SlotName)) {
        self.replaced.remove(key);
        self.switching.retain(|_, (switched, _)| switched != key);
    }

    /// A service that is gone from the configuration.
    pub(super) fn forget(&mut self, id: &ServiceId) {
        self.contests.remove(id);
        self.ended.remove(id);
        self.terms.remove(id);
        self.switching.retain(|_, ((service, _), _)| service != id);
        self.replaced.retain(|(service, _), _| service != id);
        self.weights.retain(|(_, service), _| service != id);
        self.asked.remove(id);
    }

    /// What of a service is left to somebody else.
    pub(super) fn contested(&self, id: &ServiceId, now: Micros) -> Vec<Contested> {
        let contest = self.contests.get(id);
        contest.map_or_else(Vec::new, |contest| contest.contested(now).collect())
    }
}

impl Loop {
    /// Looks at an event before it is taken in, as long as what was before is still known.
    pub(super) fn heed_rivals(&mut self, now: Micros, event: &Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Exited {
                service,
                instance,
                exit: Exit::Signal(TERM),
            } => {
                let ours = self.rivals.ended.get(service) == Some(instance)
                    || now.since(self.rivals.since) < FORMER;
                // One that ends itself while it starts is ill, however it does it.
                let worked = self.services.get(service).is_some_and(|watched| {
                    match watched.instance() == Some(*instance) {
                        true => watched.proven(now),
                        false => watched.lived,
                    }
                });
                if !ours && worked {
                    self.heed_term(service, *instance, now, effects);
                }
            }
            Event::ProbeSent {
                service, number, ..
            } => {
                if self.is_down(service)
                    && let Some((_, asked @ None)) = self.rivals.asked.get_mut(service)
                {
                    *asked = Some(*number);
                }
            }
            Event::Probed {
                service,
                probe,
                number,
                outcome: ProbeOutcome::Right { .. } | ProbeOutcome::Wrong(_),
                ..
            } => {
                let asked = self.rivals.asked.get(service);
                let asked = asked.is_some_and(|(_, asked)| *asked == Some(*number));
                let policy = self.services.get(service);
                let policy = policy.and_then(|watched| watched.policy.probes.get(*probe));
                if let (true, true, Some(policy)) = (asked, self.is_down(service), policy) {
                    let seen = format!(
                        "port {} is answered by a process that was not started here, and ours \
                         dies",
                        policy.port
                    );
                    self.contest(service, Resource::Process, &seen, now, effects);
                }
            }
            Event::SlotChecked {
                service,
                slot,
                found,
            } => {
                let key = (service.clone(), *slot);
                let replaced = self.rivals.replaced.get(&key).copied();
                let busy = self.incidents.get(service).is_some_and(|incident| {
                    incident.execution.is_some() || incident.cut_short.is_some()
                });
                if let (Some(replaced), false) = (replaced, busy)
                    && found.present == Some(replaced)
                {
                    // Once for each time that it was replaced.
                    self.rivals.replaced.remove(&key);
                    let seen = format!("its {slot} is {replaced} again, which was replaced here");
                    let resource = match slot {
                        SlotName::Model => Resource::Model,
                        SlotName::Config => Resource::Config,
                    };
                    self.contest(service, resource, &seen, now, effects);
                }
            }
            Event::Acted { token, result } => {
                // One that failed has replaced nothing.
                let switch = self.rivals.switching.remove(token);
                if let (Some((key, version)), Ok(())) = (switch, result) {
                    self.rivals.replaced.insert(key, version);
                }
            }
            Event::Routes { routes, .. } => self.heed_weights(now, routes, effects),
            // One that starts afresh may have forgotten what it was asked for.
            Event::ForwarderLost => self.rivals.weights.clear(),
            Event::Configured(_) => {
                self.rivals.weights.clear();
                self.rivals.replaced.clear();
            }
            _ => {}
        }
    }

    /// A SIGTERM counts once it is known to have gone to this service alone.
    fn heed_term(
        &mut self,
        service: &ServiceId,
        instance: Instance,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        self.count_terms(now, effects);
        let others = self.rivals.terms.keys().any(|id| id != service);
        if others || self.rivals.to_many.is_some_and(|until| now < until) {
            self.rivals.terms.clear();
            self.rivals.to_many = Some(now + TOGETHER);
            let text = format!("{service} got a SIGTERM as others did: somebody stops them all");
            self.note(Some(service), text, effects);
            return;
        }
        // A second one to the same service waits for nothing.
        if let Some((_, first)) = self.rivals.terms.insert(service.clone(), (now, instance)) {
            self.count_term(service, first, now, effects);
        }
    }

    fn count_terms(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let alone = self
            .rivals
            .terms
            .extract_if(.., |_, (at, _)| now.since(*at) >= TOGETHER);
        for (service, (_, instance)) in alone.collect::<Vec<_>>() {
            self.count_term(&service, instance, now, effects);
        }
    }

    fn count_term(
        &mut self,
        service: &ServiceId,
        instance: Instance,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let seen = format!("process {instance} got a SIGTERM that was not sent here");
        self.contest(service, Resource::Process, &seen, now, effects);
    }

    fn heed_weights(&mut self, now: Micros, routes: &[RouteSample], effects: &mut Vec<Effect>) {
        let mut moved = Vec::new();
        for route in routes {
            for (backend, sample) in &route.backends {
                let key = (route.route.clone(), backend.clone());
                let Some((wanted, seen)) = self.rivals.weights.get_mut(&key) else {
                    continue;
                };
                if sample.weight == *wanted {
                    *seen = true;
                } else if *seen {
                    let text = format!(
                        "its weight on {} was set to {} here and is {}",
                        route.route, wanted, sample.weight
                    );
                    moved.push((key, text));
                }
            }
        }
        for (key, text) in moved {
            self.rivals.weights.remove(&key);
            self.contest(&key.1, Resource::Weights, &text, now, effects);
        }
    }

    /// Remembers what was ordered, asks who answers for a process that cannot live, and takes
    /// the alarm back once it is quiet.
    pub(super) fn note_own(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        for effect in &*effects {
            match effect {
                Effect::Stop(id, instance)
                | Effect::Kill(id, instance)
                | Effect::Retire(id, instance, _) => {
                    self.rivals.ended.insert(id.clone(), *instance);
                }
                Effect::Act(token, Act::SwitchSlot(id, name, to)) => {
                    let slot = self.services.get(id).and_then(|one| one.slots.get(name));
                    let present = slot.and_then(|slot| slot.found.present);
                    let key = (id.clone(), *name);
                    self.rivals.supersede(&key);
                    if let Some(present) = present.filter(|present| present != to) {
                        if self.rivals.switching.len() >= SWITCHING_MAX {
                            self.rivals.switching.pop_first();
                        }
                        self.rivals.switching.insert(*token, (key, present));
                    }
                }
                Effect::Act(_, Act::RestoreSlot(id, name)) => {
                    self.rivals.supersede(&(id.clone(), *name));
                }
                Effect::SetWeight(route, id, weight) => {
                    let key = (route.clone(), id.clone());
                    self.rivals.weights.insert(key, (*weight, false));
                }
                Effect::Drain(route, id, _) => {
                    let key = (route.clone(), id.clone());
                    self.rivals.weights.insert(key, (0, false));
                }
                _ => {}
            }
        }
        self.count_terms(now, effects);
        self.ask_for_others(now, effects);
        let policy = self.limits.contest;
        self.rivals
            .contests
            .retain(|_, contest| !contest.is_over(now, &policy));
        let ids: Vec<ServiceId> = self.services.keys().cloned().collect();
        for id in ids {
            let quiet = self.rivals.contested(&id, now).is_empty();
            match (quiet, self.alarms.stands(&alarm(&id))) {
                (true, true) => self.clear(&alarm(&id), effects),
                // A former run has seen it.
                (false, false) => self.tell_contest(&id, now, effects),
                (true, false) | (false, true) => {}
            }
        }
    }

    /// In each pause between two starts of a process that keeps dying: who answers its port?
    fn ask_for_others(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let pauses = self.paces.iter().filter_map(|(id, pace)| {
            let until = pace.backoff_until.filter(|until| *until > now)?;
            Pace::keeps_dying(pace).then(|| (id.clone(), until))
        });
        for (id, until) in pauses.collect::<Vec<_>>() {
            let asked = self.rivals.asked.get(&id).map(|(pause, _)| *pause);
            let probed = self
                .services
                .get(&id)
                .is_some_and(|watched| !watched.policy.probes.is_empty());
            if probed && asked != Some(until) && self.is_down(&id) {
                self.rivals.asked.insert(id.clone(), (until, None));
                effects.push(Effect::Probe(id, 0));
            }
        }
    }

    fn is_down(&self, id: &ServiceId) -> bool {
        let slot = self.services.get(id).map(|watched| watched.slot);
        matches!(slot, Some(Slot::Down { .. }))
    }

    fn contest(
        &mut self,
        id: &ServiceId,
        resource: Resource,
        seen: &str,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        if !self.services.contains_key(id) {
            return;
        }
        let policy = self.limits.contest;
        let contest = self.rivals.contests.entry(id.clone()).or_default();
        let news = contest.sign(now, resource, seen, &policy);
        if !news {
            self.note(Some(id), format!("{id}: {seen}"), effects);
        }
        if !self.rivals.contested(id, now).is_empty() {
            self.tell_contest(id, now, effects);
            effects.push(Effect::Remember);
        }
    }

    fn tell_contest(&mut self, id: &ServiceId, now: Micros, effects: &mut Vec<Effect>) {
        let text = format!(
            "somebody else changes {id}: {}; it is left to them until that has been quiet for {}, \
             or a person acts on it here",
            contest_words(&self.rivals.contested(id, now)),
            self.limits.contest.hold
        );
        self.raise(&alarm(id), Some(id), Severity::Critical, text, effects);
    }

    /// A person has taken it into their hands: what others did to it is forgotten.
    /// Whether there was anything.
    pub(super) fn forget_rivals(&mut self, id: &ServiceId, effects: &mut Vec<Effect>) -> bool {
        if self.rivals.contests.remove(id).is_none() || !self.alarms.stands(&alarm(id)) {
            return false;
        }
        self.clear(&alarm(id), effects);
        if let Some(incident) = self.incidents.get_mut(id) {
            incident.retry_at = None;
        }
        effects.push(Effect::Remember);
        true
    }
}

fn alarm(id: &ServiceId) -> String {
    format!("{id}-contested")
}

fn contest_words(contested: &[Contested]) -> String {
    let seen: Vec<&str> = contested.iter().map(|one| one.seen.as_str()).collect();
    seen.join("; ")
}
