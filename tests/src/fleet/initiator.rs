//! The initiator of the simulated fleet, with its store.

use homeostat_common::ids::NodeId;
use homeostat_common::saga::{Answer, Decision, FleetPlan, Initiator, Move, SagaId};
use homeostat_common::units::Micros;

use super::{Actor, Air, Happening, Letter};

/// The initiator's program and what it has stored. Its store is a database: what it
/// has not committed is gone when it dies.
#[derive(Debug, Clone)]
pub(super) struct Office {
    saga: SagaId,
    plan: FleetPlan,
    names: Vec<NodeId>,
    machine: Option<Initiator>,
    life: u32,
    began: Micros,
    stored: Vec<Decision>,
    written: Vec<Decision>,
}

impl Office {
    pub(super) fn new(plan: FleetPlan, names: Vec<NodeId>) -> Self {
        let by = names[0].clone();
        Self {
            saga: SagaId { by, number: 7 },
            plan,
            names,
            machine: None,
            life: 1,
            began: Micros(0),
            stored: Vec::new(),
            written: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, air: &mut Air) {
        self.began = air.now;
        let (saga, plan) = (self.saga.clone(), self.plan.clone());
        self.machine = Some(Initiator::new(saga, plan, None, 1, air.now));
        self.turn(air);
    }

    pub(super) fn is_alive(&self) -> bool {
        self.machine.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Micros> {
        self.machine.as_ref()?.deadline()
    }

    pub(super) fn answer(&mut self, place: usize, answer: &Answer, air: &mut Air) {
        if let (Some(machine), Some(node)) = (&mut self.machine, self.names.get(place)) {
            machine.absorb(air.now, node, answer);
            self.turn(air);
        }
    }

    pub(super) fn synced(&mut self, life: u32, end: usize, air: &mut Air) {
        if life == self.life
            && let Some(machine) = &mut self.machine
        {
            self.stored
                .extend(self.written.drain(..end.min(self.written.len())));
            machine.durable();
            self.turn(air);
        }
    }

    pub(super) fn turn(&mut self, air: &mut Air) {
        let Some(machine) = &mut self.machine else {
            return;
        };
        loop {
            let moves = machine.advance(air.now);
            if moves.is_empty() {
                return;
            }
            for one in moves {
                match one {
                    Move::Store(decision) => {
                        air.tell(|| format!("initiator stores {decision:?}"));
                        self.written.push(decision);
                        let after = air.sync_us();
                        let end = self.written.len();
                        let synced = Happening::Synced(Actor::Initiator, self.life, end);
                        air.push(after, synced);
                        if air.wrote(Actor::Initiator) {
                            return;
                        }
                    }
                    Move::Send(node, order) => {
                        if let Some(place) = self.names.iter().position(|name| *name == node) {
                            let letter = Letter::Order(place, order);
                            air.send(Actor::Initiator, Actor::Node(place), letter);
                        }
                        if !air.dying.is_empty() {
                            return;
                        }
                    }
                    Move::Flag(why) => air.flag("initiator", &why),
                    Move::End(ending) => air.tell(|| format!("initiator ends {ending:?}")),
                }
            }
        }
    }

    pub(super) fn die(&mut self) {
        self.machine = None;
        self.written.clear();
        self.life += 1;
    }

    pub(super) fn back(&mut self, air: &mut Air) {
        if self.machine.is_some() {
            return;
        }
        air.tell(|| "initiator is back".into());
        let epoch = u64::from(self.life);
        self.machine =
            Initiator::resume(self.saga.clone(), &self.stored, epoch, self.began, air.now);
        self.turn(air);
    }
}
