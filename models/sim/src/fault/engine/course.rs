//! The course of a fault: how it begins, rests, wakes, heals, ends and comes back, and
//! what it does to processes at those moments.

use std::sync::Arc;

use super::super::grammar::{Cause, Coupling, Mechanism, Place};
use super::super::mechanism::{Cure, remedies};
use super::super::scope::Target;
use super::{Due, Engine, Stage, bit};
use crate::topology::{ReplicaNo, Topology};
use crate::world::Phase;
use crate::world::state::State;

/// Between two deeds of a competing healer, at strengths 0 and 1.
const COMPETE_S: (f64, f64) = (60.0, 20.0);
/// Between two looks of a weak supply at the load.
const BROWN_OUT_S: f64 = 60.0;
/// The share of busy cores from which a weak supply gives way.
const BROWN_OUT_UTIL: f64 = 0.45;
/// The strength from which it gives way at all.
const BROWN_OUT_STRENGTH: f64 = 0.5;
/// How long a node takes to come back by itself.
const REBOOT_S: f64 = 45.0;

impl Engine {
    pub(super) fn begin(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        if self.runs[fault].stage == Stage::Present {
            return;
        }
        let script = Arc::clone(&self.script);
        let what = &script.faults[fault];
        let run = &mut self.runs[fault];
        run.stage = Stage::Present;
        run.resting = false;
        run.parts.retain(|part| !part.infected);
        let remedies = remedies(what.mechanism, what.locus.place);
        let shielded = remedies
            .iter()
            .any(|remedy| remedy.effect == Cure::Shields && run.seen & bit(remedy.step) != 0);
        for part in &mut run.parts {
            // What goes over a bad link is a matter of the link, shielded or not.
            let link = matches!(part.target, Target::Link(..));
            part.root = !shielded;
            part.hurts = !shielded || link;
            part.held = what.mechanism == Mechanism::Lock;
        }
        match (&what.trigger.cause, what.trigger.lasts) {
            (Cause::Every(period), lasts) => {
                let lasts = lasts.filter(|lasts| lasts < period);
                if let Some(lasts) = lasts {
                    self.set(fault, state.now + lasts, Due::Rest);
                }
                self.set(fault, state.now + period, Due::Wake);
            }
            (_, Some(lasts)) => self.set(fault, state.now + lasts, Due::End),
            (_, None) => {}
        }
        for coupling in &what.couplings {
            if let Coupling::Heals { after, .. } = coupling {
                self.set(fault, state.now + after, Due::Heal);
            }
        }
        match what.mechanism {
            Mechanism::Compete | Mechanism::BrownOut => {
                let after = self.beat_after(fault);
                self.set(fault, state.now + after, Due::Beat);
            }
            _ => {}
        }
        self.dirty = true;
        self.deeds(topology, state, fault);
    }

    /// What a fault does at the moment when it begins, besides its burden.
    pub(super) fn deeds(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        let script = Arc::clone(&self.script);
        if script.faults[fault].mechanism != Mechanism::Die || self.hidden(fault) {
            return;
        }
        let agent = script.faults[fault].locus.place == Place::Agent;
        for place in 0..self.runs[fault].parts.len() {
            let part = self.runs[fault].parts[place];
            match part.target {
                _ if !part.root => {}
                Target::Replica(replica) => self.kill(topology, state, replica),
                Target::Node(node) if !agent => {
                    for replica in &topology.nodes()[node.at()].replicas {
                        self.kill(topology, state, *replica);
                    }
                }
                Target::Node(_) | Target::Route(_) | Target::Link(..) => {}
            }
        }
    }

    pub(super) fn kill(&mut self, topology: &Topology, state: &mut State, replica: ReplicaNo) {
        if matches!(
            state.replicas[replica.at()].phase,
            Phase::Dead | Phase::Standby
        ) {
            return;
        }
        state.kill(topology, replica);
        self.died(topology, state, replica);
    }

    pub(super) fn died(&mut self, topology: &Topology, state: &mut State, replica: ReplicaNo) {
        self.let_go(replica);
        let route = topology.replicas()[replica.at()].route;
        for fault in 0..self.runs.len() {
            let by_death = matches!(self.script.faults[fault].trigger.cause, Cause::Death(_));
            let waits = self.runs[fault].stage == Stage::Waiting;
            if by_death
                && waits
                && self.script.route[fault] == Some(route)
                && state.now >= self.script.onset
            {
                // Bounded: each fault begins from `Waiting` once.
                self.begin(topology, state, fault);
            }
        }
    }

    /// A process is gone, and with it what it held.
    pub(super) fn let_go(&mut self, replica: ReplicaNo) {
        for part in self.runs.iter_mut().flat_map(|run| &mut run.parts) {
            if part.target == Target::Replica(replica) {
                part.held = false;
            }
        }
    }

    /// All roots of a fault were cleared.
    pub(super) fn cleared(
        &mut self,
        topology: &Topology,
        state: &mut State,
        fault: usize,
        shields: bool,
    ) {
        let script = Arc::clone(&self.script);
        for (coupling, other) in script.faults[fault]
            .couplings
            .iter()
            .zip(&script.other[fault])
        {
            if let (Coupling::Returns { after, .. }, Some(other)) = (coupling, other)
                && self.runs[*other].rooted()
            {
                self.runs[fault].returning = true;
                self.set(fault, state.now + after, Due::Return);
                return;
            }
        }
        if !shields {
            self.gone(topology, state, fault);
        }
    }

    pub(super) fn gone(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        let script = Arc::clone(&self.script);
        let run = &mut self.runs[fault];
        run.stage = Stage::Gone;
        run.returning = false;
        self.timers.retain(|timer| timer.fault != fault);
        self.dirty = true;
        for other in 0..self.runs.len() {
            if script.after[other] == Some(fault) && self.runs[other].stage == Stage::Waiting {
                self.begin(topology, state, other);
            }
            let mut couplings = script.faults[other]
                .couplings
                .iter()
                .zip(&script.other[other]);
            let hid = couplings.any(|(coupling, behind)| {
                matches!(coupling, Coupling::Hides { .. }) && *behind == Some(fault)
            });
            if hid && self.runs[other].stage == Stage::Present {
                self.deeds(topology, state, other);
            }
        }
    }

    pub(super) fn end(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        let run = &mut self.runs[fault];
        if run.stage != Stage::Present {
            return;
        }
        for part in &mut run.parts {
            part.root = false;
            part.hurts = false;
        }
        self.gone(topology, state, fault);
    }

    pub(super) fn heal(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        let script = Arc::clone(&self.script);
        let stopped = script.faults[fault].couplings.iter().any(|coupling| {
            matches!(coupling, Coupling::Heals { unless, .. }
                if self.runs[fault].seen & bit(*unless) != 0)
        });
        if !stopped {
            self.end(topology, state, fault);
        }
    }

    pub(super) fn rest(&mut self, fault: usize) {
        self.runs[fault].resting = true;
        self.dirty = true;
    }

    pub(super) fn wake(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        if self.runs[fault].stage != Stage::Present {
            return;
        }
        self.runs[fault].resting = false;
        self.dirty = true;
        let script = Arc::clone(&self.script);
        let trigger = &script.faults[fault].trigger;
        if let Cause::Every(period) = trigger.cause {
            if let Some(lasts) = trigger.lasts.filter(|lasts| *lasts < period) {
                self.set(fault, state.now + lasts, Due::Rest);
            }
            self.set(fault, state.now + period, Due::Wake);
        }
        self.deeds(topology, state, fault);
    }

    /// Another fault puts a cleared one back, if it is still there.
    pub(super) fn come_back(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        if !self.runs[fault].returning {
            return;
        }
        self.runs[fault].returning = false;
        let script = Arc::clone(&self.script);
        let mut couplings = script.faults[fault]
            .couplings
            .iter()
            .zip(&script.other[fault]);
        let upstream = couplings.any(|(coupling, other)| {
            let returns = matches!(coupling, Coupling::Returns { .. });
            returns && other.is_some_and(|other| self.runs[other].rooted())
        });
        if !upstream {
            self.gone(topology, state, fault);
            return;
        }
        for part in self.runs[fault]
            .parts
            .iter_mut()
            .filter(|part| !part.infected)
        {
            part.root = true;
            part.hurts = true;
        }
        self.dirty = true;
        self.deeds(topology, state, fault);
    }

    pub(super) fn beat_after(&self, fault: usize) -> f64 {
        match self.script.faults[fault].mechanism {
            Mechanism::Compete => {
                COMPETE_S.0 + (COMPETE_S.1 - COMPETE_S.0) * self.script.strength[fault]
            }
            _ => BROWN_OUT_S,
        }
    }

    /// What a fault does again and again.
    pub(super) fn beat(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        if self.runs[fault].stage != Stage::Present {
            return;
        }
        let after = self.beat_after(fault);
        self.set(fault, state.now + after, Due::Beat);
        if !self.runs[fault].rooted() || self.hidden(fault) || self.runs[fault].resting {
            return;
        }
        let weak = self.script.strength[fault] >= BROWN_OUT_STRENGTH;
        let competes = self.script.faults[fault].mechanism == Mechanism::Compete;
        for place in 0..self.runs[fault].parts.len() {
            match self.runs[fault].parts[place].target {
                // The other healer believes that what runs is ill.
                Target::Replica(replica) if competes => {
                    if state.replicas[replica.at()].phase == Phase::Running {
                        self.kill(topology, state, replica);
                        let route = topology.replicas()[replica.at()].route;
                        let left = topology.routes()[route.at()].start_s;
                        let own = &mut state.replicas[replica.at()];
                        own.phase = Phase::Starting { left };
                        own.starts += 1;
                        state.stale = true;
                    }
                }
                Target::Node(node) if weak && state.nodes[node.at()].util > BROWN_OUT_UTIL => {
                    for replica in &topology.nodes()[node.at()].replicas {
                        self.let_go(*replica);
                    }
                    state.reboot(topology, node, REBOOT_S);
                }
                Target::Replica(_) | Target::Node(_) | Target::Route(_) | Target::Link(..) => {}
            }
        }
    }
}
