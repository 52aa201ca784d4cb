//! What an incident is near: where a step can make a difference to it.
//!
//! In goes the incident at work; out come the routes and nodes that it is at, that call or
//! are called by these, or share a node with them. In a fleet of sixty nodes that is one
//! line of many. What it is brought by a wrong step counts with its own place alone.
//!
//! For searches over pairs of steps; single steps are tried everywhere.

use super::super::grammar::Cause;
use super::super::scope::{Subject, Target, covers};
use super::Engine;
use crate::policy::Whom;
use crate::topology::{NodeNo, ReplicaNo, RouteNo, Topology};

/// Routes and nodes near an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Near {
    routes: Vec<bool>,
    nodes: Vec<bool>,
}

impl Near {
    /// Whether a step about somebody is.
    pub(crate) fn covers(&self, topology: &Topology, whom: Whom) -> bool {
        match whom {
            Whom::Replica(no) => {
                let own = &topology.replicas()[no.at()];
                self.routes[own.route.at()]
            }
            Whom::Route(no) => self.routes[no.at()],
            Whom::Node(no) => self.nodes[no.at()],
            Whom::All => true,
        }
    }
}

impl Engine {
    /// Whether a step about somebody is one at the place of a fault.
    pub(crate) fn is_at(&self, topology: &Topology, whom: Whom) -> bool {
        let subject = match whom {
            Whom::Replica(no) => Subject::Replica(no),
            Whom::Route(no) => Subject::Route(no),
            Whom::Node(no) => Subject::Node(no),
            Whom::All => Subject::All,
        };
        let mut places = self.script.at.iter();
        places.any(|at| covers(topology, *at, subject))
    }

    /// What the incident is near.
    pub(crate) fn near(&self, topology: &Topology) -> Near {
        let mut at = vec![false; topology.routes().len()];
        let mut brought = at.clone();
        let route_of = |no: ReplicaNo| topology.replicas()[no.at()].route.at();
        let mark_node = |no: NodeNo, into: &mut Vec<bool>| {
            for replica in &topology.nodes()[no.at()].replicas {
                into[route_of(*replica)] = true;
            }
        };
        for (place, run) in self.runs.iter().enumerate() {
            let fault = &self.script.faults[place];
            let later = fault.trigger.cause == Cause::Coupled;
            for part in &run.parts {
                let into = if later { &mut brought } else { &mut at };
                match part.target {
                    Target::Replica(no) if later => into[route_of(no)] = true,
                    Target::Replica(no) => mark_node(topology.replicas()[no.at()].node, into),
                    Target::Route(no) => into[no.at()] = true,
                    Target::Node(no) | Target::Link(no, _) => mark_node(no, into),
                }
            }
            for fragile in self.script.fragile[place].iter().flatten() {
                at[route_of(*fragile)] = true;
            }
        }
        let mut routes = at;
        // Callers of callers, as often as it takes; then all that these call.
        spread(topology, &mut routes, |caller, called| (called, caller));
        spread(topology, &mut routes, |caller, called| (caller, called));
        for (near, brought) in routes.iter_mut().zip(brought) {
            *near |= brought;
        }
        let mut nodes = vec![false; topology.nodes().len()];
        for replica in topology.replicas() {
            nodes[replica.node.at()] |= routes[replica.route.at()];
        }
        Near { routes, nodes }
    }
}

/// Adds what is reached from what is there, along calls.
fn spread(
    topology: &Topology,
    routes: &mut [bool],
    way: impl Fn(RouteNo, RouteNo) -> (RouteNo, RouteNo),
) {
    let mut more = true;
    while more {
        more = false;
        for (place, route) in topology.routes().iter().enumerate() {
            for call in &route.calls {
                let (from, to) = way(RouteNo::new(place), call.to);
                if routes[from.at()] && !routes[to.at()] {
                    routes[to.at()] = true;
                    more = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Incident;
    use crate::policy::Moves;

    fn near(topology: &str, locus: &str) -> (usize, usize) {
        let topology = Topology::named(topology).unwrap();
        let text = format!(
            "name = \"x\"\nabout = \"\"\ntopology = \"{}\"\n[[fault]]\nid = \"a\"\n\
             mechanism = \"hang\"\nlocus = \"{locus}\"\n",
            topology.name()
        );
        let incident = Incident::read("x", &text).unwrap();
        let engine = Engine::new(&topology, &incident, 1).unwrap();
        let near = engine.near(&topology);
        let moves = Moves::new(&topology);
        let all = moves.all().iter();
        let count = all.filter(|one| near.covers(&topology, one.whom)).count();
        (count, moves.all().len())
    }

    #[test]
    fn in_one_line_all_is_near_and_in_a_city_one_district() {
        let (count, all) = near("reference", "service infer");
        assert_eq!(count, all);
        let (count, all) = near("city", "service dock-prep");
        assert!(4 * count < all, "{count} of {all}");
        // What everybody calls is near to everybody.
        let (count, all) = near("city", "service store");
        assert!(4 * count > 3 * all, "{count} of {all}");
    }
}
