//! What a fault lays on what, in numbers: for whoever has the same fault happen to real things.
//!
//! In go an incident and a topology, out come the things that each fault is at, with its burden
//! at the strength of the file. When it begins and what ends it is not said here.

use super::burden::{LinkBurden, NodeBurden, ReplicaBurden, RouteBurden};
use super::grammar::{Fault, Incident};
use super::mechanism::{on_link, on_node, on_replica, on_route};
use super::scope::{Target, locate, targets};
use crate::text::TextError;
use crate::topology::{LinkNo, NodeNo, ReplicaNo, RouteNo, Topology};

/// A thing and what is laid on it. A death lays nothing: it happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Laid {
    /// On a replica.
    Replica(ReplicaNo, ReplicaBurden),
    /// On all of a service.
    Route(RouteNo, RouteBurden),
    /// On a node.
    Node(NodeNo, NodeBurden),
    /// On a link.
    Link(LinkNo, LinkBurden),
}

impl Incident {
    /// What one of its faults lays on what.
    ///
    /// # Errors
    /// [`TextError`] when its locus names nothing.
    pub fn lays(&self, fault: &Fault, topology: &Topology) -> Result<Vec<Laid>, TextError> {
        let at = locate(self, fault, topology)?;
        let on = |target: Target| match target {
            Target::Replica(replica) => {
                let mut burden = ReplicaBurden::NONE;
                on_replica(fault.mechanism, fault.strength, &mut burden);
                Laid::Replica(replica, burden)
            }
            Target::Route(route) => {
                let mut burden = RouteBurden::NONE;
                on_route(fault.mechanism, fault.strength, &mut burden);
                Laid::Route(route, burden)
            }
            Target::Node(node) => {
                let mut burden = NodeBurden::NONE;
                on_node(
                    fault.mechanism,
                    fault.locus.place,
                    fault.strength,
                    &mut burden,
                );
                Laid::Node(node, burden)
            }
            Target::Link(_, link) => {
                let mut burden = LinkBurden::default();
                on_link(fault.mechanism, fault.strength, &mut burden);
                Laid::Link(link, burden)
            }
        };
        Ok(targets(topology, fault, at).into_iter().map(on).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_lays_what_the_world_gets_on_what_it_is_at() {
        let topology = Topology::reference();
        let text = "name = \"a\"\nabout = \"b\"\ntopology = \"reference\"\n[[fault]]\nid = \"c\"\n\
                    mechanism = \"slow\"\nlocus = \"service infer\"\nstrength = 0.5\n";
        let incident = Incident::read("a.toml", text).unwrap();
        let laid = incident.lays(&incident.faults[0], &topology).unwrap();
        let infer = topology
            .routes()
            .iter()
            .find(|route| route.name.as_str() == "infer");
        let all = infer.unwrap().replicas.iter();
        let active: Vec<Laid> = all
            .filter(|replica| !topology.replicas()[replica.at()].standby)
            .map(|replica| {
                let slow = 5.5;
                Laid::Replica(
                    *replica,
                    ReplicaBurden {
                        slow,
                        ..ReplicaBurden::NONE
                    },
                )
            })
            .collect();
        assert_eq!(laid, active);
        let elsewhere = text.replace("service infer", "service nobody");
        let incident = Incident::read("a.toml", &elsewhere).unwrap();
        let error = incident.lays(&incident.faults[0], &topology).unwrap_err();
        assert!(error.to_string().starts_with("a.toml:7: "), "{error}");
    }
}
