//! This node's parts of plans across nodes (`homeostat_common::saga`).
//!
//! In: orders that an initiator gave, results of steps. Out: the same deeds as those of
//! the node's own plans, and answers to the initiator. A part passes the gate as a
//! whole before it is taken on, holds its services like any plan (rule `under-repair`),
//! and is journalled; it belongs to no incident, because what it is about is decided
//! elsewhere. Who may give orders, and how they travel, is not its concern.

use std::collections::BTreeSet;

use homeostat_common::budget::{Cost, Reservation};
use homeostat_common::gate::{self, Purpose};
use homeostat_common::ids::{PlanId, RouteId, ServiceId, Token};
use homeostat_common::primitive::Primitive;
use homeostat_common::saga::{
    Action, Admission, Order, Participant, Prepare, Record, SagaId, Stand,
};
use homeostat_common::transaction::Ending;
use homeostat_common::units::{Micros, Millis, Ratio};

use super::Loop;
use super::executing::slot_of;
use super::message::{Effect, HealRecord};
use super::retelling::open_steps;
use crate::execute::{self, Runs, StepRun, View};
use crate::service::Slot;

/// Parts open at once: each holds services, and sagas are few.
const PARTS_MAX: usize = 4;

/// Longest wait for the disk. One that stands still must not keep what was changed
/// from being taken back; a part is not taken on while it is known to.
const SYNC_MAX: Millis = Millis::secs(5);

/// After a restart parts wait so long for the spawner to say what lives.
const LOOK_MAX: Millis = Millis::secs(5);

/// One part on its way.
#[derive(Debug)]
pub(super) struct Part {
    /// Its execution here, which names its deeds.
    id: PlanId,
    machine: Participant,
    reservation: Option<Reservation>,
    predicted: Cost,
    runs: Runs,
    ticket: Option<u64>,
    synced_by: Option<Micros>,
    /// A former run of the agent took it on; not before this time, unless all is known.
    look_until: Option<Micros>,
}

impl Part {
    fn new(id: PlanId, machine: Participant) -> Self {
        Self {
            id,
            machine,
            reservation: None,
            predicted: Cost::default(),
            runs: Runs::default(),
            ticket: None,
            synced_by: None,
            look_until: None,
        }
    }

    fn disk_answered(&mut self) {
        self.ticket = None;
        self.synced_by = None;
        self.machine.durable();
    }

    fn primitives(&self) -> impl Iterator<Item = &Primitive> {
        self.machine.primitives()
    }

    fn next_wake(&self) -> Option<Micros> {
        let due = [self.runs.wake(), self.synced_by, self.machine.deadline()];
        let due = due.into_iter().flatten().min();
        match self.look_until {
            Some(look) => due.map(|due| due.max(look)).or(Some(look)),
            None => due,
        }
    }
}

impl Loop {
    /// When a part wants to be looked at.
    pub(super) fn parts_wake(&self) -> Option<Micros> {
        self.parts.iter().filter_map(Part::next_wake).min()
    }

    /// This node's open parts, by their number here.
    pub(super) fn open_parts(&self) -> impl Iterator<Item = (PlanId, &Participant)> {
        self.parts.iter().map(|part| (part.id, &part.machine))
    }

    /// The plans across nodes that are open here, in either part.
    pub(super) fn open_sagas(&self) -> impl Iterator<Item = SagaId> {
        let parts = self.parts.iter().map(|part| part.machine.saga().clone());
        parts.chain(self.leads.keys().map(|number| self.saga(*number)))
    }

    /// The part that changes a service.
    pub(super) fn part_on(&self, service: &ServiceId) -> Option<PlanId> {
        let changes = |part: &&Part| {
            part.primitives().any(|primitive| {
                let mut backends = primitive.backends();
                primitive.writes()
                    && (primitive.service() == Some(service)
                        || backends.any(|backend| backend == service))
            })
        };
        self.parts.iter().find(changes).map(|part| part.id)
    }

    /// An initiator wants something.
    pub(super) fn absorb_order(&mut self, now: Micros, order: &Order, effects: &mut Vec<Effect>) {
        let place = self
            .parts
            .iter()
            .position(|part| *part.machine.saga() == order.saga);
        let before = self.fences.clone();
        match self.fences.admit(order, place.is_some()) {
            Admission::Stale => self.stale_orders += 1,
            Admission::Open => {
                let part = place.and_then(|place| self.parts.get_mut(place));
                if part.is_some_and(|part| !part.machine.order(now, order)) {
                    self.stale_orders += 1;
                }
            }
            Admission::Answer(answer) => self.say(answer, effects),
            Admission::New(prepare) => {
                if let Err(why) = self.take_on(now, order, prepare, effects) {
                    let text = format!("saga {}: refused: {why}", order.saga);
                    self.note(None, text, effects);
                    let answer = self.fences.refuse(&order.saga, &why);
                    self.say(answer, effects);
                }
            }
        }
        if before != self.fences {
            effects.push(Effect::Remember);
        }
    }

    /// Takes a part on, if the gate lets all of it through.
    fn take_on(
        &mut self,
        now: Micros,
        order: &Order,
        prepare: Prepare,
        effects: &mut Vec<Effect>,
    ) -> Result<(), String> {
        if self.parts.len() >= PARTS_MAX {
            return Err(format!("{PARTS_MAX} sagas are open here"));
        }
        if self.store_trouble {
            return Err("the disk takes no records".into());
        }
        let purpose = match prepare.confidence {
            Some(confidence) => {
                let admitted = prepare.plan.admitted(confidence);
                admitted.map_err(|error| error.to_string())?;
                Purpose::Heal(confidence)
            }
            None => Purpose::Operate,
        };
        let timely = prepare.plan.timely();
        timely.map_err(|error| error.to_string())?;
        let nothing = || format!("it has no part for {}", self.node);
        let own = prepare.plan.part(&self.node).ok_or_else(nothing)?;
        // The route itself is not leased by a plan of the node: only one part changes it.
        let routes: BTreeSet<&RouteId> = own.steps().filter_map(Primitive::route).collect();
        let held = self.parts.iter().flat_map(Part::primitives);
        let taken = held
            .filter_map(Primitive::route)
            .find(|id| routes.contains(id));
        if let Some(route) = taken {
            return Err(format!("another saga changes route {route}"));
        }
        let facts = self.facts_of(now, |_| Ratio::ZERO);
        let text = own.to_string();
        let verified = gate::verify(own, purpose, &facts, &mut self.budget)
            .map_err(|rejection| rejection.to_string())?;
        let (_, foreseen, reservation) = verified.into_parts();
        let predicted = foreseen.iter().map(|one| one.cost);
        let predicted = predicted.fold(Cost::default(), Cost::plus);
        let machine = Participant::new(order, prepare.plan, &self.node, now, self.limit());
        let Some(machine) = machine else {
            self.budget.settle(reservation, Cost::default(), now);
            return Err(nothing());
        };
        let id = self.mint_plan();
        self.note(
            None,
            format!("saga {}: takes on {text} as {id}", order.saga),
            effects,
        );
        let part = Part {
            reservation: Some(reservation),
            predicted,
            ..Part::new(id, machine)
        };
        self.parts.push(part);
        // A crash must find its cost spent and its number taken.
        effects.push(Effect::Remember);
        Ok(())
    }

    /// Takes up the parts that a former run of the agent has left open.
    pub(super) fn resume_parts(
        &mut self,
        records: &[(PlanId, Record)],
        rebooted: bool,
        now: Micros,
    ) {
        let ids: BTreeSet<PlanId> = records.iter().map(|(id, _)| *id).collect();
        for id in ids {
            let own: Vec<Record> = records
                .iter()
                .filter(|(of, _)| *of == id)
                .map(|(_, record)| record.clone())
                .collect();
            self.next_plan = self.next_plan.max(id.0 + 1);
            let limit = self.limit();
            let Some(mut machine) = Participant::resume(&own, &self.node, now, rebooted, limit)
            else {
                continue;
            };
            self.fences.found(machine.saga(), machine.fence().epoch);
            // It was over; only the memory of that may be older.
            if let Some(Record::Ended(ending)) = own.last() {
                let states = machine.states();
                self.fences.ended(machine.saga(), *ending, states);
                continue;
            }
            // Its permission to run went with the former run; what has wholly taken
            // effect needs none.
            if !machine.is_carried_out() {
                machine.abandon("the agent was restarted before its part was done");
            }
            let mut part = Part::new(id, machine);
            part.look_until = Some(now + LOOK_MAX);
            self.parts.push(part);
        }
    }

    /// Moves every part on as far as it goes now.
    pub(super) fn advance_parts(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let unknown = |slot: Slot| slot == Slot::Unknown;
        let looking = !self.spawner || self.services.values().any(|one| unknown(one.slot));
        let before = self.parts.len();
        for mut part in std::mem::take(&mut self.parts) {
            if part.look_until.is_some_and(|until| looking && now < until) {
                self.parts.push(part);
                continue;
            }
            part.look_until = None;
            if self.advance_part(&mut part, now, effects) {
                self.parts.push(part);
            }
        }
        if self.parts.len() < before {
            self.quiet(effects);
        }
    }

    /// Returns whether it goes on.
    fn advance_part(&mut self, part: &mut Part, now: Micros, effects: &mut Vec<Effect>) -> bool {
        if part.synced_by.is_some_and(|by| by <= now) {
            part.disk_answered();
        }
        loop {
            let mut moved = false;
            let mut orders = Vec::new();
            for action in part.machine.advance(now) {
                moved = true;
                match action {
                    Action::Journal { record, wait } => {
                        // Too late, or a wait that is cut short.
                        if let Record::Failed(step) | Record::Undone(step) = record {
                            part.runs.end(step);
                            let why = part.machine.failure();
                            let told = (part.id, &part.machine);
                            self.tell_part_step(told, &record, why, effects);
                        }
                        effects.push(Effect::Journal(HealRecord::Saga(part.id, record)));
                        if wait {
                            let ticket = self.next_ticket;
                            self.next_ticket += 1;
                            part.ticket = Some(ticket);
                            part.synced_by = Some(now + SYNC_MAX);
                            effects.push(Effect::Sync(ticket));
                            if self.store_trouble {
                                part.disk_answered();
                            }
                        }
                    }
                    Action::Run(step) => self.begin_step(part, step, false, now, &mut orders),
                    Action::Undo(step) => self.begin_step(part, step, true, now, &mut orders),
                    Action::Say(answer) => self.say(answer, effects),
                    Action::Flag(why) => {
                        self.flag_saga(part.machine.saga(), false, &why, effects);
                    }
                    Action::End(ending) => {
                        self.end_part(part, ending, now, effects);
                        return false;
                    }
                }
            }
            self.carry_out(&mut orders, now, effects);
            for (step, result) in part.runs.advance(self.view(now), &mut orders) {
                moved = true;
                let why = result.as_ref().err().cloned();
                if let Some(record) = part.machine.report(step, result) {
                    let told = (part.id, &part.machine);
                    self.tell_part_step(told, &record, why.as_deref(), effects);
                    effects.push(Effect::Journal(HealRecord::Saga(part.id, record)));
                }
            }
            self.carry_out(&mut orders, now, effects);
            if !moved {
                return true;
            }
        }
    }

    fn begin_step(
        &self,
        part: &mut Part,
        step: u8,
        undo: bool,
        now: Micros,
        orders: &mut Vec<execute::Order>,
    ) {
        let Some(primitive) = part.machine.primitive(step) else {
            return;
        };
        let token = Token {
            plan: part.id,
            step,
            undo,
        };
        let run = if undo {
            StepRun::undo(token, primitive, self.view(now), orders)
        } else {
            StepRun::begin(token, primitive, self.view(now), orders)
        };
        part.runs.begin(run);
    }

    fn end_part(
        &mut self,
        part: &mut Part,
        ending: Ending,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(reservation) = part.reservation.take() {
            // What it has taken away is not measured apart: its bound counts as spent.
            let spent = match ending {
                Ending::Done | Ending::Stuck => part.predicted,
                Ending::Undone => Cost {
                    disruption: 0.0,
                    ..part.predicted
                },
            };
            self.budget.settle(reservation, spent, now);
        }
        let written: BTreeSet<_> = part
            .primitives()
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
        let saga = part.machine.saga().clone();
        let (word, why) = match ending {
            Ending::Done => ("kept", None),
            Ending::Undone => ("taken back", part.machine.failure()),
            Ending::Stuck => ("stuck", part.machine.failure()),
        };
        let why = why.map_or(String::new(), |why| format!(": {why}"));
        self.note(
            None,
            format!("saga {saga}: {} is {word}{why}", part.id),
            effects,
        );
        let well = ending != Ending::Stuck && !part.machine.is_doubtful();
        self.unflag_saga(&saga, false, well, effects);
        self.fences.ended(&saga, ending, part.machine.states());
        self.keep_story((part.id, &part.machine), ending, now);
        effects.push(Effect::Remember);
    }

    /// What runs here of plans across nodes, and how the last ones ended.
    pub(super) fn parts_text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| {
            if text.is_empty() {
                text.push_str("\nparts of plans across nodes\n");
            }
            text.push_str(&format!("  {line}\n"));
        };
        if self.stale_orders > 0 {
            line(format!(
                "{} orders refused: played back, delivered twice, or of a former life",
                self.stale_orders
            ));
        }
        for (saga, stand) in self.fences.past() {
            if let Some(story) = self.stories.iter().rfind(|story| story.saga == *saga) {
                for told in story.lines() {
                    line(told);
                }
                continue;
            }
            match stand {
                Stand::Refused(why) => line(format!("{saga}: refused: {why}")),
                Stand::Ended(Ending::Done, _) => line(format!("{saga}: kept")),
                Stand::Ended(Ending::Undone, _) => line(format!("{saga}: taken back")),
                Stand::Ended(Ending::Stuck, _) => line(format!("{saga}: could not be taken back")),
                Stand::Unknown | Stand::Open { .. } | Stand::Deaf(_) => {}
            }
        }
        for lead in self.leads_lines() {
            line(lead);
        }
        for part in &self.parts {
            let machine = &part.machine;
            let Stand::Open {
                voted,
                undoing,
                why,
                ..
            } = machine.answer().stand
            else {
                continue;
            };
            let state = match (voted, undoing) {
                (_, true) => "is taken back",
                (true, false) => "has promised to keep it",
                (false, false) => "is on its way",
            };
            let why = why.map_or(String::new(), |why| format!(": {why}"));
            line(format!("{}: {} {state}{why}", machine.saga(), part.id));
            for step in open_steps(machine) {
                line(step);
            }
        }
        text
    }

    /// The runs of all parts, for what is lost and found again.
    pub(super) fn part_runs(&self) -> impl Iterator<Item = &StepRun> {
        self.parts.iter().flat_map(|part| part.runs.iter())
    }

    pub(super) fn part_synced(&mut self, ticket: u64) {
        for part in &mut self.parts {
            if part.ticket.is_some_and(|awaited| awaited <= ticket) {
                part.disk_answered();
            }
        }
    }

    pub(super) fn part_acted(&mut self, token: Token, result: &Result<(), String>) {
        for part in self.parts.iter_mut().filter(|part| part.id == token.plan) {
            part.runs.acted(token, result);
        }
    }

    pub(super) fn part_drained(&mut self, route: &RouteId, backend: &ServiceId, now: Micros) {
        let view = View {
            services: &self.services,
            routes: &self.routes,
            routed: self.routed.map(|(_, at)| at),
            now,
        };
        let mut orders = Vec::new();
        for part in &mut self.parts {
            part.runs.drained(route, backend, view, &mut orders);
        }
        self.waiting_orders.extend(orders);
    }

    /// A start that a part asked for was refused.
    pub(super) fn part_refused(
        &mut self,
        service: &ServiceId,
        live: Option<homeostat_common::ids::Instance>,
        why: &str,
        effects: &mut Vec<Effect>,
    ) {
        let mut orders = Vec::new();
        for part in &mut self.parts {
            for (step, why) in part.runs.refused(service, live, why, &mut orders) {
                if let Some(record) = part.machine.report(step, Err(why)) {
                    effects.push(Effect::Journal(HealRecord::Saga(part.id, record)));
                }
            }
        }
        self.waiting_orders.extend(orders);
    }
}
