//! A node of the simulated fleet: its agent's part of the saga, its disk, and the
//! resource that the step is about, which outlives the agent.

use std::collections::BTreeMap;

use homeostat_common::ids::NodeId;
use homeostat_common::saga::{
    Action, Admission, Answer, Fence, Fences, Order, Participant, Record,
};
use homeostat_common::units::{Micros, Millis};

use super::{Actor, Air, Happening, Letter};

/// Time a step may take before it counts as failed.
const LIMIT: Millis = Millis::secs(2);

#[derive(Debug, Clone)]
enum Entry {
    Record(Record),
    Fences(Fences),
    /// No part is open: the records so far are not needed.
    Quiet,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    place: usize,
    pub(super) name: NodeId,
    pub(super) alive: bool,
    life: u32,
    fences: Fences,
    part: Option<Participant>,
    disk: Vec<Entry>,
    synced: usize,
    /// The part waits until the disk has taken so much.
    awaited: usize,
    /// The step's effect is there: the backend is out, the traffic moved, the standby
    /// runs.
    pub(super) in_effect: bool,
    /// Live instances in the slot of the standby.
    live: u32,
    /// How often each effect changed anything, by step and whether it was the undo.
    effects: BTreeMap<(u8, bool), u32>,
    /// The owner carries out one request after the other, this fast.
    pace_us: u64,
    busy_until: Micros,
    /// Its step fails.
    pub(super) fails: bool,
    /// Its compensation fails.
    pub(super) undo_fails: bool,
    /// Its gate refuses.
    pub(super) refuses: bool,
}

impl Node {
    pub(super) fn new(place: usize, name: NodeId, pace_us: u64) -> Self {
        Self {
            place,
            name,
            alive: true,
            life: 1,
            fences: Fences::default(),
            part: None,
            disk: Vec::new(),
            synced: 0,
            awaited: 0,
            in_effect: false,
            live: 0,
            effects: BTreeMap::new(),
            pace_us,
            busy_until: Micros(0),
            fails: false,
            undo_fails: false,
            refuses: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.part.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Micros> {
        self.part.as_ref().filter(|_| self.alive)?.deadline()
    }

    pub(super) fn order(&mut self, order: &Order, air: &mut Air) {
        if !self.alive {
            return;
        }
        let on_disk = self.fence_on_disk();
        match self.fences.admit(order, self.part.is_some()) {
            Admission::Stale => return,
            Admission::Answer(answer) => {
                self.append(Entry::Fences(self.fences.clone()));
                self.say(answer, air);
                return;
            }
            Admission::Open => {
                if let Some(part) = &mut self.part {
                    let taken = part.order(air.now, order);
                    if taken && on_disk.is_some_and(|highest| order.fence <= highest) {
                        air.broke(format!(
                            "{}: {:?} acts after {on_disk:?}",
                            self.name, order.fence
                        ));
                    }
                }
            }
            Admission::New(_) if self.refuses => {
                let answer = self.fences.refuse(&order.saga, "rule hold");
                self.append(Entry::Fences(self.fences.clone()));
                self.say(answer, air);
                return;
            }
            Admission::New(prepare) => {
                if self.in_effect || self.live > 0 {
                    air.broke(format!("{} begins a saga a second time", self.name));
                }
                self.part = Participant::new(order, prepare.plan, &self.name, air.now, |_| LIMIT);
            }
        }
        self.turn(air);
    }

    fn fence_on_disk(&self) -> Option<Fence> {
        let synced = self.disk.get(..self.synced)?;
        synced
            .iter()
            .filter_map(|entry| match entry {
                Entry::Record(Record::Fenced(fence)) => Some(*fence),
                Entry::Record(Record::Prepared(prepared)) => Some(prepared.fence),
                _ => None,
            })
            .max()
    }

    fn say(&mut self, answer: Answer, air: &mut Air) {
        let letter = Letter::Answer(self.place, answer);
        air.send(Actor::Node(self.place), Actor::Initiator, letter);
    }

    fn append(&mut self, entry: Entry) {
        self.disk.push(entry);
    }

    /// Writes to the journal; returns whether the agent died of it.
    fn write(&mut self, record: Record, air: &mut Air) -> bool {
        air.tell(|| format!("{} writes {record:?}", self.name));
        self.append(Entry::Record(record));
        air.wrote(Actor::Node(self.place))
    }

    pub(super) fn turn(&mut self, air: &mut Air) {
        while let Some(part) = self.part.as_mut().filter(|_| self.alive) {
            let actions = part.advance(air.now);
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Journal { record, wait } => {
                        if self.write(record, air) {
                            return;
                        }
                        if wait {
                            let end = self.disk.len();
                            self.awaited = end;
                            let after = air.sync_us();
                            let actor = Actor::Node(self.place);
                            air.push(after, Happening::Synced(actor, self.life, end));
                        }
                    }
                    Action::Run(step) => self.request(step, false, air),
                    Action::Undo(step) => self.request(step, true, air),
                    Action::Say(answer) => {
                        self.say(answer, air);
                        if !air.dying.is_empty() {
                            return;
                        }
                    }
                    Action::Flag(why) => air.flag(self.name.as_str(), &why),
                    Action::End(ending) => {
                        air.tell(|| format!("{} ends {ending:?}", self.name));
                        if let Some(part) = self.part.take() {
                            self.fences.ended(part.saga(), ending, part.states());
                            self.append(Entry::Fences(self.fences.clone()));
                            self.append(Entry::Quiet);
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Asks the owner of the resource, which takes one request after the other and
    /// does not care whether the agent still lives.
    fn request(&mut self, step: u8, undo: bool, air: &mut Air) {
        let intent = if undo {
            Record::UndoIntent(step)
        } else {
            Record::Intent(step)
        };
        let known = self.disk.get(..self.synced).unwrap_or_default();
        let known = known
            .iter()
            .any(|entry| matches!(entry, Entry::Record(record) if *record == intent));
        if !known {
            air.broke(format!(
                "{}: step {step} begins before its intent is on the disk",
                self.name
            ));
        }
        air.tell(|| format!("{} asks for step {step}, undo {undo}", self.name));
        let begin = self.busy_until.max(air.now);
        self.busy_until = Micros(begin.0 + self.pace_us);
        let after = self.busy_until.0 - air.now.0;
        air.push(after, Happening::Effect(self.place, self.life, step, undo));
    }

    pub(super) fn effect(&mut self, life: u32, step: u8, undo: bool, air: &mut Air) {
        let fails = if undo { self.undo_fails } else { self.fails };
        // A step that fails may have taken effect all the same.
        if !(fails && (undo || step.is_multiple_of(2))) && self.in_effect == undo {
            air.tell(|| format!("{}: effect of step {step}, undo {undo}", self.name));
            self.in_effect = !undo;
            let times = self.effects.entry((step, undo)).or_default();
            *times += 1;
            if *times > 1 {
                air.broke(format!(
                    "{}: step {step} (undo {undo}) took effect twice",
                    self.name
                ));
            }
            if step == 1 {
                self.live = if undo { self.live - 1 } else { self.live + 1 };
                if self.live > 1 {
                    air.broke(format!("{} live instances in one slot", self.live));
                }
            }
        }
        if life != self.life || !self.alive {
            return;
        }
        let result = if fails {
            Err("the owner says no".to_owned())
        } else {
            Ok(())
        };
        let record = self
            .part
            .as_mut()
            .and_then(|part| part.report(step, result));
        if let Some(record) = record
            && self.write(record, air)
        {
            return;
        }
        self.turn(air);
    }

    pub(super) fn synced(&mut self, life: u32, end: usize, air: &mut Air) {
        if life != self.life || !self.alive {
            return;
        }
        self.synced = self.synced.max(end);
        if end >= self.awaited
            && let Some(part) = &mut self.part
        {
            part.durable();
        }
        self.turn(air);
    }

    /// A power cut for the disk: of what was not synced a part is gone.
    pub(super) fn die(&mut self, air: &mut Air) {
        self.alive = false;
        self.life += 1;
        self.part = None;
        let kept = air.rng.usize(self.synced..=self.disk.len());
        self.disk.truncate(kept);
        self.synced = kept;
        self.awaited = 0;
    }

    pub(super) fn back(&mut self, air: &mut Air) {
        if self.alive {
            return;
        }
        air.tell(|| format!("{} is back", self.name));
        self.alive = true;
        self.fences = Fences::default();
        let mut records = Vec::new();
        for entry in &self.disk {
            match entry {
                Entry::Record(record) => records.push(record.clone()),
                Entry::Fences(fences) => self.fences = fences.clone(),
                Entry::Quiet => records.clear(),
            }
        }
        let begun = records
            .iter()
            .rposition(|record| matches!(record, Record::Prepared(_)));
        let records = begun.and_then(|at| records.get(at..)).unwrap_or_default();
        self.part = Participant::resume(records, &self.name, air.now, false, |_| LIMIT);
        if let Some(part) = &self.part {
            self.fences.found(part.saga(), part.fence().epoch);
        }
        self.turn(air);
    }
}
