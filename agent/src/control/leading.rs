//! Plans across nodes that this node begins: `common::saga::Initiator`, durable in the
//! agent's journal. So nodes that reach each other need no coordinator for one.
//!
//! In: plans that a person here asks for, what the nodes answer, the disk's word. Out:
//! orders to other nodes, which the shell signs; this node's own part goes the same way
//! without leaving the loop. A decision is on the disk before anything follows from it,
//! and so is the life that gives orders: a disk that does not answer stops the saga, and
//! the nodes take their parts back alone.

use std::collections::BTreeMap;

use homeostat_common::ids::NodeId;
use homeostat_common::observation::Reading;
use homeostat_common::saga::{Answer, Decision, FleetPlan, Initiator, Move, Order, SagaId, Stand};
use homeostat_common::transaction::Ending;
use homeostat_common::units::Micros;

use super::Loop;
use super::message::{Effect, HealRecord};

/// Plans that are led at once: a person asks for them one by one.
const LEADS_MAX: usize = 2;

/// Ends of plans that were led here, kept to be shown.
const LED_MAX: usize = 8;

/// Turns of one step between what is led here and this node's own part of it: an order,
/// an answer, and what follows from that.
pub(super) const TURNS_MAX: usize = 8;

/// A plan across nodes that is led from here.
#[derive(Debug)]
pub(super) struct Lead {
    machine: Initiator,
    /// When it began.
    since: Micros,
    /// The disk is awaited.
    ticket: Option<u64>,
    /// A former run has begun it: the new life must be on the disk before it goes on.
    resumed: bool,
}

impl Loop {
    /// When a plan that is led here wants to be looked at.
    pub(super) fn leads_wake(&self) -> Option<Micros> {
        let moving = self.leads.values().filter(|lead| lead.ticket.is_none());
        moving.filter_map(|lead| lead.machine.deadline()).min()
    }

    /// A person asks for a plan across nodes.
    pub(super) fn absorb_asked_across(
        &mut self,
        now: Micros,
        ticket: u64,
        plan: FleetPlan,
        effects: &mut Vec<Effect>,
    ) {
        let answer = self.lead(now, plan, effects);
        effects.push(Effect::Answer(ticket, answer));
    }

    fn lead(
        &mut self,
        now: Micros,
        plan: FleetPlan,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        plan.timely().map_err(|error| error.to_string())?;
        if self.leads.len() >= LEADS_MAX {
            return Err(format!(
                "{LEADS_MAX} plans across nodes are led here already"
            ));
        }
        if self.store_trouble {
            return Err("the disk takes no records".into());
        }
        if !self.connected && plan.nodes().iter().any(|node| *node != self.node) {
            return Err("no broker is reached, so no other node is".into());
        }
        // Wall time keeps both growing where the store was made anew.
        if let Reading::Fresh(unix_ms) = self.host.wall {
            self.next_lead = self.next_lead.max(unix_ms);
            self.life = self.life.max(unix_ms / 1000);
        }
        let number = self.next_lead;
        self.next_lead += 1;
        effects.push(Effect::Remember);
        let saga = self.saga(number);
        let text = format!("saga {saga} begins: {plan}");
        self.note(None, text.clone(), effects);
        let lead = Lead {
            machine: Initiator::new(saga, plan, None, self.life, now),
            since: now,
            ticket: None,
            resumed: false,
        };
        self.leads.insert(number, lead);
        Ok(text)
    }

    pub(super) fn saga(&self, number: u64) -> SagaId {
        SagaId {
            by: self.node.clone(),
            number,
        }
    }

    /// Takes up what a former run has begun.
    pub(super) fn resume_leads(
        &mut self,
        records: Vec<(u64, Micros, Decision)>,
        rebooted: bool,
        now: Micros,
    ) {
        let mut all: BTreeMap<u64, (Micros, Vec<Decision>)> = BTreeMap::new();
        for (number, at, decision) in records {
            let (_, decisions) = all.entry(number).or_insert((at, Vec::new()));
            decisions.push(decision);
        }
        for (number, (at, decisions)) in all {
            self.next_lead = self.next_lead.max(number + 1);
            if matches!(decisions.last(), Some(Decision::Ended(_))) {
                continue;
            }
            let since = if rebooted { now } else { at.min(now) };
            let saga = self.saga(number);
            if let Some(machine) = Initiator::resume(saga, &decisions, self.life, since, now) {
                let lead = Lead {
                    machine,
                    since,
                    ticket: None,
                    resumed: true,
                };
                self.leads.insert(number, lead);
            }
        }
    }

    /// What a node answers to this one.
    pub(super) fn absorb_answer(&mut self, now: Micros, node: &NodeId, answer: &Answer) {
        if answer.saga.by == self.node && matches!(answer.stand, Stand::Deaf(_)) {
            for lead in self.leads.values_mut() {
                lead.machine.absorb(now, node, answer);
            }
        } else if answer.saga.by == self.node
            && let Some(lead) = self.leads.get_mut(&answer.saga.number)
        {
            lead.machine.absorb(now, node, answer);
        }
    }

    /// Tells the initiator, which may be this node.
    pub(super) fn say(&mut self, answer: Answer, effects: &mut Vec<Effect>) {
        if answer.saga.by == self.node {
            self.own_answers.push(answer);
        } else {
            effects.push(Effect::Say(answer));
        }
    }

    pub(super) fn lead_synced(&mut self, ticket: u64) {
        for lead in self.leads.values_mut() {
            if lead.ticket.is_some_and(|awaited| awaited <= ticket) {
                lead.ticket = None;
                lead.machine.durable();
            }
        }
    }

    /// Moves all that is led here on as far as it goes; whether this node's own part
    /// has something to do now.
    pub(super) fn advance_leads(&mut self, now: Micros, effects: &mut Vec<Effect>) -> bool {
        for answer in std::mem::take(&mut self.own_answers) {
            let node = self.node.clone();
            self.absorb_answer(now, &node, &answer);
        }
        let before = self.leads.len();
        let mut own: Vec<Order> = Vec::new();
        for (number, mut lead) in std::mem::take(&mut self.leads) {
            if self.advance_lead(number, &mut lead, now, &mut own, effects) {
                self.leads.insert(number, lead);
            }
        }
        if self.leads.len() < before {
            effects.push(Effect::Remember);
            self.quiet(effects);
        }
        let turn = !own.is_empty();
        for order in own {
            self.absorb_order(now, &order, effects);
        }
        turn || !self.own_answers.is_empty()
    }

    /// Returns whether it goes on.
    fn advance_lead(
        &mut self,
        number: u64,
        lead: &mut Lead,
        now: Micros,
        own: &mut Vec<Order>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if std::mem::take(&mut lead.resumed) {
            effects.push(Effect::Remember);
            lead.ticket = Some(self.sync(effects));
        }
        while lead.ticket.is_none() {
            let moves = lead.machine.advance(now);
            if moves.is_empty() {
                return true;
            }
            let mut stored = false;
            for one in moves {
                match one {
                    Move::Store(decision) => {
                        stored = true;
                        let record = HealRecord::Lead(number, lead.since, decision);
                        effects.push(Effect::Journal(record));
                    }
                    Move::Send(node, order) if node == self.node => own.push(order),
                    Move::Send(node, order) => effects.push(Effect::Order(node, order)),
                    Move::Flag(why) => {
                        self.flag_saga(lead.machine.saga(), true, &why, effects);
                    }
                    Move::End(ending) => {
                        let why = lead.machine.why();
                        let why = why.map_or(String::new(), |why| format!(": {why}"));
                        let word = match ending {
                            Ending::Done => "all done",
                            Ending::Undone => "all taken back",
                            Ending::Stuck => "stuck",
                        };
                        let text = format!("saga {}: {word}{why}", lead.machine.saga());
                        self.note(None, text.clone(), effects);
                        let well = ending != Ending::Stuck;
                        self.unflag_saga(lead.machine.saga(), true, well, effects);
                        self.led.push_back(text);
                        while self.led.len() > LED_MAX {
                            self.led.pop_front();
                        }
                        return false;
                    }
                }
            }
            if stored {
                lead.ticket = Some(self.sync(effects));
            }
        }
        true
    }

    fn sync(&mut self, effects: &mut Vec<Effect>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        effects.push(Effect::Sync(ticket));
        ticket
    }

    /// What is and was led here, a line each.
    pub(super) fn leads_lines(&self) -> impl Iterator<Item = String> {
        let ended = self.led.iter().cloned();
        ended.chain(self.leads.values().map(|lead| {
            let machine = &lead.machine;
            let why = machine
                .why()
                .map_or(String::new(), |why| format!(" ({why})"));
            let plan = machine.plan();
            format!(
                "saga {}: {}, led here{why}: {plan}",
                machine.saga(),
                machine.phase()
            )
        }))
    }
}
