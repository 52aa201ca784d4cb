//! What was at fault: from the injector, for scoring alone.
//!
//! The root of a fault is the part at its locus ([`super::parts`]). Where two parts are the
//! same thing to an operator, either is right:
//!
//! - a replica and its service, where no other replica of it is in use;
//! - the files of a replica and the node whose disk they lie on: full or read-only is the
//!   disk, and what is pruned or mounted anew are the files;
//! - a site and its only node (or the only uplink of that, where the site is cut off).
//!
//! A node whose supply fails is the root and its replicas are not; a service whose every
//! replica has the same wrong configuration is the root and each of its replicas is not.
//! Faults that do nothing yet (waiting, or hidden behind another) are no roots yet.

use homeostat_sim::fault::{Coupling, Incident, Mechanism, Place};
use homeostat_sim::topology::Topology;
use homeostat_sim::world::World;

use super::parts::{Kind, Parts};

/// One thing at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The part that an operator is to be told.
    pub part: usize,
    /// Those that are as right.
    pub or: Vec<usize>,
    /// The mechanism of the first fault that is there.
    pub mechanism: Mechanism,
}

impl Root {
    #[must_use]
    pub fn is(&self, part: usize) -> bool {
        self.part == part || self.or.contains(&part)
    }
}

/// Collects roots while an episode runs.
#[derive(Debug, Clone)]
pub struct Roots {
    of_fault: Vec<Option<Root>>,
    behind: Vec<Vec<usize>>,
    shown: Vec<bool>,
}

impl Roots {
    #[must_use]
    pub fn new(incident: &Incident, topology: &Topology, parts: &Parts) -> Self {
        let place = |id: &str| incident.faults.iter().position(|fault| fault.id == id);
        let behind = incident.faults.iter().map(|fault| {
            let hides = fault
                .couplings
                .iter()
                .filter_map(|coupling| match coupling {
                    Coupling::Hides { behind } => place(behind),
                    _ => None,
                });
            hides.collect()
        });
        let of_fault = incident.faults.iter().map(|fault| {
            let (place, name) = (fault.locus.place, fault.locus.name.as_str());
            let (part, or) = locate(place, name, fault.mechanism, topology, parts)?;
            Some(Root {
                part,
                or,
                mechanism: fault.mechanism,
            })
        });
        Self {
            of_fault: of_fault.collect(),
            behind: behind.collect(),
            shown: vec![false; incident.faults.len()],
        }
    }

    /// Takes note of what is there now.
    pub fn note(&mut self, world: &World) {
        for fault in 0..self.shown.len() {
            let hidden = self.behind[fault].iter().any(|other| world.rooted(*other));
            self.shown[fault] |= world.rooted(fault) && !hidden;
        }
    }

    /// What was there so far, each part once.
    #[must_use]
    pub fn so_far(&self) -> Vec<Root> {
        let mut roots: Vec<Root> = Vec::new();
        for (root, shown) in self.of_fault.iter().zip(&self.shown) {
            if let Some(root) = root
                && *shown
                && !roots.iter().any(|other| other.part == root.part)
            {
                roots.push(root.clone());
            }
        }
        roots
    }
}

/// The part at a locus, and those that are as right.
fn locate(
    place: Place,
    name: &str,
    mechanism: Mechanism,
    topology: &Topology,
    parts: &Parts,
) -> Option<(usize, Vec<usize>)> {
    let active = |route: usize| {
        let replicas = topology.routes()[route].replicas.iter();
        let active = replicas.filter(|no| !topology.replicas()[no.at()].standby);
        active.map(|no| no.at()).collect::<Vec<_>>()
    };
    Some(match place {
        Place::Replica | Place::File => {
            let part = parts.find(Kind::Replica, name)?;
            let own = topology.replicas().get(part)?;
            let mut or = Vec::new();
            if active(own.route.at()) == [part] {
                or.push(parts.route(own.route.at()));
            }
            if place == Place::File {
                or.push(parts.node(own.node.at()));
            }
            (part, or)
        }
        Place::Service | Place::Model | Place::Broker => {
            let part = parts.find(Kind::Service, name)?;
            let replicas = active(part - parts.route(0));
            let or = match replicas.as_slice() {
                [only] => vec![parts.replica(*only)],
                _ => Vec::new(),
            };
            (part, or)
        }
        Place::Outside => (parts.find(Kind::Outside, name)?, Vec::new()),
        Place::Node | Place::Agent => {
            let part = parts.find(Kind::Node, name)?;
            let site = topology.nodes()[part - parts.node(0)].site;
            (
                part,
                alone(site.at(), topology)
                    .map(|_| parts.site(site.at()))
                    .into_iter()
                    .collect(),
            )
        }
        Place::Link => (parts.find(Kind::Uplink, name)?, Vec::new()),
        Place::Site => {
            let part = parts.find(Kind::Site, name)?;
            let only = alone(part - parts.site(0), topology);
            let cut = matches!(
                mechanism,
                Mechanism::Disconnect | Mechanism::Delay | Mechanism::Lose
            );
            let or = match only {
                Some(node) if cut => match topology.nodes()[node].uplinks.as_slice() {
                    [link] => vec![parts.link(link.at())],
                    _ => Vec::new(),
                },
                Some(node) => vec![parts.node(node)],
                None => Vec::new(),
            };
            (part, or)
        }
    })
}

/// The only node of a site.
fn alone(site: usize, topology: &Topology) -> Option<usize> {
    let mut nodes = topology.nodes().iter().enumerate();
    let mut of = nodes.by_ref().filter(|(_, node)| node.site.at() == site);
    match (of.next(), of.next()) {
        (Some((at, _)), None) => Some(at),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_fault_has_a_part_and_hidden_ones_are_no_roots_yet() {
        let files = Incident::train().iter().chain(Incident::development());
        for (name, _) in files {
            let incident = Incident::named(name).unwrap();
            let topology = Topology::named(&incident.topology).unwrap();
            let parts = Parts::of(&topology);
            let mut roots = Roots::new(&incident, &topology, &parts);
            assert!(roots.of_fault.iter().all(Option::is_some), "{name}");
            let mut world = World::new(&topology, &incident, 1).unwrap();
            roots.note(&world);
            assert_eq!(roots.so_far(), Vec::new(), "{name}");
            while world.now() < world.onset() + 30.0 {
                world.tick();
            }
            roots.note(&world);
            assert!(!roots.so_far().is_empty(), "{name}");
            for (at, behind) in roots.behind.iter().enumerate() {
                assert!(behind.is_empty() || !roots.shown[at], "{name}");
            }
        }
    }
}
