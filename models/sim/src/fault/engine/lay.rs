//! Lays the burdens of all faults on the state, whole, whenever one has changed.

use super::super::burden::{LinkBurden, NodeBurden, ReplicaBurden, RouteBurden};
use super::super::grammar::Coupling;
use super::super::mechanism::{on_link, on_node, on_replica, on_route};
use super::super::scope::Target;
use super::Engine;
use crate::topology::{ReplicaNo, Topology};
use crate::world::Phase;
use crate::world::state::State;

impl Engine {
    /// Whether another fault hides it.
    pub(super) fn hidden(&self, fault: usize) -> bool {
        let mut couplings = self.script.faults[fault]
            .couplings
            .iter()
            .zip(&self.script.other[fault]);
        couplings.any(|(coupling, behind)| {
            let hides = matches!(coupling, Coupling::Hides { .. });
            hides && behind.is_some_and(|behind| self.runs[behind].rooted())
        })
    }

    /// Lays all burdens anew, if any has changed, and has processes follow them.
    pub(super) fn settle(&mut self, topology: &Topology, state: &mut State) {
        // Killing what cannot run may set off another fault, each of them once.
        while self.dirty {
            self.dirty = false;
            self.lay(state);
            for at in 0..state.replicas.len() {
                let replica = &state.replicas[at];
                if replica.phase != Phase::Running {
                    continue;
                }
                let ReplicaBurden { doomed, stuck, .. } = replica.burden;
                let number = ReplicaNo::new(at);
                if doomed {
                    self.kill(topology, state, number);
                } else if stuck {
                    state.hang(number);
                }
            }
        }
    }

    fn lay(&self, state: &mut State) {
        for replica in &mut state.replicas {
            replica.burden = ReplicaBurden::NONE;
        }
        for route in &mut state.routes {
            route.burden = RouteBurden::NONE;
        }
        for node in &mut state.nodes {
            node.burden = NodeBurden::NONE;
        }
        for link in &mut state.links {
            link.burden = LinkBurden::default();
        }
        for (fault, run) in self.runs.iter().enumerate() {
            if run.resting || self.hidden(fault) {
                continue;
            }
            let what = &self.script.faults[fault];
            let strength = self.script.strength[fault];
            for part in run.parts.iter().filter(|part| part.hurts) {
                match part.target {
                    Target::Replica(replica) => {
                        let burden = &mut state.replicas[replica.at()].burden;
                        on_replica(what.mechanism, strength, burden);
                    }
                    Target::Route(route) => {
                        let burden = &mut state.routes[route.at()].burden;
                        on_route(what.mechanism, strength, burden);
                    }
                    Target::Node(node) => {
                        let burden = &mut state.nodes[node.at()].burden;
                        on_node(what.mechanism, what.locus.place, strength, burden);
                    }
                    Target::Link(_, link) => {
                        let burden = &mut state.links[link.at()].burden;
                        on_link(what.mechanism, strength, burden);
                    }
                }
            }
        }
        state.stale = true;
    }
}
