//! What steps do to faults: they clear roots, shield from them, bring others, and
//! start processes that catch what the others have.

use std::sync::Arc;

use super::super::grammar::{Cause, Coupling, FAULTS_MAX, Fault, Mechanism, Step};
use super::super::mechanism::{Cure, remedies};
use super::super::scope::{At, Subject, Target, covers};
use super::{Due, Engine, Part, Stage, bit, seat};
use crate::topology::{ReplicaNo, Topology};
use crate::world::Happened;
use crate::world::state::State;

/// When a fresh process first wants the lock that others wait for, in seconds.
const FIRST_WANTS_S: f64 = 12.0;

impl Engine {
    pub(super) fn stepped(
        &mut self,
        topology: &Topology,
        state: &mut State,
        what: Happened,
        step: Step,
        subject: Subject,
    ) {
        let script = Arc::clone(&self.script);
        let mut brought = [false; FAULTS_MAX];
        for fault in 0..self.runs.len() {
            if !covers(topology, script.at[fault], subject) {
                continue;
            }
            let run = &mut self.runs[fault];
            for (coupling, other) in script.faults[fault]
                .couplings
                .iter()
                .zip(&script.other[fault])
            {
                if let (Coupling::Breaks { on, unless, .. }, Some(other)) = (coupling, other) {
                    let protected = unless.is_some_and(|first| run.seen & bit(first) != 0);
                    if *on == step && run.rooted() && !protected {
                        brought[*other] = true;
                    }
                }
            }
            run.seen |= bit(step);
            self.cure(topology, state, fault, what, step, subject);
        }
        for (fault, brought) in brought.iter().enumerate() {
            if *brought {
                self.begin(topology, state, fault);
            }
        }
    }

    pub(super) fn cure(
        &mut self,
        topology: &Topology,
        state: &mut State,
        fault: usize,
        what: Happened,
        step: Step,
        subject: Subject,
    ) {
        let script = Arc::clone(&self.script);
        let remedies = remedies(
            script.faults[fault].mechanism,
            script.faults[fault].locus.place,
        );
        let Some(remedy) = remedies.iter().find(|remedy| remedy.step == step) else {
            return;
        };
        // A limit that nobody meets takes nothing off anybody.
        if let Happened::RateLimited(route) = what {
            let route = &state.routes[route.at()];
            if route.limit >= route.arrival {
                return;
            }
        }
        let run = &mut self.runs[fault];
        // What nobody has read yet can be put back before anybody does.
        let unread = matches!(script.faults[fault].trigger.cause, Cause::Start(_));
        if run.stage == Stage::Waiting && unread {
            let mut parts = run.parts.iter();
            if parts.all(|part| covers(topology, seat(script.at[fault], *part), subject)) {
                run.stage = Stage::Gone;
            }
            return;
        }
        let was = run.rooted();
        for part in run.parts.iter_mut().filter(|part| part.root) {
            if !covers(topology, seat(script.at[fault], *part), subject) {
                continue;
            }
            match (part.target, what) {
                // Away from this link, and not onto it.
                (Target::Link(_, link), Happened::UplinkSwitched(_, to)) if link == to => continue,
                _ => {}
            }
            part.root = false;
            // A bad link stays bad for whoever goes over it.
            let link = matches!(part.target, Target::Link(..));
            part.hurts &= remedy.effect == Cure::EndsForFresh || link;
            self.dirty = true;
        }
        let shields = remedy.effect == Cure::Shields;
        if was && !self.runs[fault].rooted() {
            self.cleared(topology, state, fault, shields);
        }
    }

    /// A shield was taken down.
    pub(super) fn unshield(&mut self, topology: &Topology, step: Step, subject: Subject) {
        let script = Arc::clone(&self.script);
        for (fault, run) in self.runs.iter_mut().enumerate() {
            if covers(topology, script.at[fault], subject) {
                run.seen &= !bit(step);
            }
            if run.stage != Stage::Present || !shields(&script.faults[fault], step) {
                continue;
            }
            for part in run.parts.iter_mut().filter(|part| !part.infected) {
                if covers(topology, seat(script.at[fault], *part), subject) {
                    part.root = true;
                    part.hurts = true;
                    self.dirty = true;
                }
            }
        }
    }

    pub(super) fn started(&mut self, topology: &Topology, state: &mut State, replica: ReplicaNo) {
        let script = Arc::clone(&self.script);
        let route = topology.replicas()[replica.at()].route;
        self.let_go(replica);
        for fault in 0..self.runs.len() {
            let what = &script.faults[fault];
            let by_start = matches!(what.trigger.cause, Cause::Start(_));
            let waits = self.runs[fault].stage == Stage::Waiting;
            if by_start && waits && script.route[fault] == Some(route) && state.now >= script.onset
            {
                self.begin(topology, state, fault);
                continue;
            }
            let slow = what.mechanism == Mechanism::Lock;
            let run = &mut self.runs[fault];
            let mut had = false;
            for part in &mut run.parts {
                if part.target == Target::Replica(replica) {
                    // A fresh process has what lies on the disk, and no more. A lock it
                    // meets only when it first wants it.
                    part.hurts = part.root && !slow;
                    part.catches_at = f64::INFINITY;
                    had |= part.root;
                    self.dirty = true;
                }
            }
            let spreads = what.couplings.contains(&Coupling::ReInfects);
            let sibling = match script.at[fault] {
                At::Replica(other) => topology.replicas()[other.at()].route == route,
                At::Route(other) => other == route,
                At::Node(node) => topology.replicas()[replica.at()].node == node,
                At::Outside(_) | At::Link(..) | At::Site(_) => false,
            };
            if !run.rooted() || !(had && slow || !had && spreads && sibling) {
                continue;
            }
            let at = if slow {
                state.now + FIRST_WANTS_S
            } else {
                state.now
            };
            self.infect(fault, replica, at);
        }
    }

    /// A process will have it, from then on.
    fn infect(&mut self, fault: usize, replica: ReplicaNo, at: f64) {
        let target = Target::Replica(replica);
        let parts = &mut self.runs[fault].parts;
        match parts.iter_mut().find(|part| part.target == target) {
            Some(part) => part.catches_at = at,
            // At most one for each sibling.
            None => parts.push(Part {
                target,
                owner: None,
                root: false,
                hurts: false,
                held: false,
                infected: true,
                catches_at: at,
            }),
        }
        self.set(fault, at, Due::Catch);
    }

    pub(super) fn catch(&mut self, now: f64, fault: usize) {
        let run = &mut self.runs[fault];
        let rooted = run.rooted();
        for part in run.parts.iter_mut().filter(|part| part.catches_at <= now) {
            part.catches_at = f64::INFINITY;
            part.hurts |= rooted;
            self.dirty = true;
        }
    }

    pub(super) fn reconnected(&mut self, replica: ReplicaNo) {
        for (run, what) in self.runs.iter_mut().zip(&self.script.faults) {
            if what.mechanism != Mechanism::DenyCredential {
                continue;
            }
            for part in &mut run.parts {
                if part.target == Target::Replica(replica) && !part.root {
                    part.hurts = false;
                    self.dirty = true;
                }
            }
        }
    }
}

/// Whether a step keeps a fault out of the way for as long as it is not taken back.
pub(super) fn shields(fault: &Fault, step: Step) -> bool {
    let remedies = remedies(fault.mechanism, fault.locus.place);
    let mut shields = remedies
        .iter()
        .filter(|remedy| remedy.effect == Cure::Shields);
    shields.any(|remedy| remedy.step == step)
}
