//! What can be at fault in a fleet, and what depends on what.
//!
//! A *part* is the unit that an operator would be told to act upon: a replica (restart it,
//! prune its data), a service (its roll-out, its credential, its model), a node, an uplink, a
//! site, a dependency of somebody else. In goes a topology, out come its parts by number and
//! the edges from each to those it depends on.

use homeostat_sim::topology::{LinkOf, Topology};

/// The kind of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Replica,
    Service,
    Node,
    Uplink,
    Site,
    Outside,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Replica,
        Self::Service,
        Self::Node,
        Self::Uplink,
        Self::Site,
        Self::Outside,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Service => "service",
            Self::Node => "node",
            Self::Uplink => "uplink",
            Self::Site => "site",
            Self::Outside => "outside",
        }
    }
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub kind: Kind,
    /// As the topology names it; a service and a node may share one, so it is unique with
    /// its kind only.
    pub name: String,
}

/// All parts of a topology, by number: replicas, routes, nodes, links, sites, each in the
/// order of the topology.
#[derive(Debug, Clone)]
pub struct Parts {
    all: Vec<Part>,
    /// For each: those it depends on.
    needs: Vec<Vec<usize>>,
    /// For each: those that depend on it.
    serves: Vec<Vec<usize>>,
    routes: usize,
    nodes: usize,
    links: usize,
    sites: usize,
    /// By link: whether it is an uplink. The local network of a site is no part of its own:
    /// it is the site.
    link_part: Vec<usize>,
}

impl Parts {
    #[must_use]
    pub fn of(topology: &Topology) -> Self {
        let mut all = Vec::new();
        let mut push = |kind, name: String| all.push(Part { kind, name });
        for replica in topology.replicas() {
            push(Kind::Replica, replica.name.to_string());
        }
        let routes = topology.replicas().len();
        for route in topology.routes() {
            let kind = match route.outside_ms {
                Some(_) => Kind::Outside,
                None => Kind::Service,
            };
            push(kind, route.name.to_string());
        }
        let nodes = routes + topology.routes().len();
        for node in topology.nodes() {
            push(Kind::Node, node.name.to_string());
        }
        let links = nodes + topology.nodes().len();
        let uplinks: Vec<&str> = topology
            .links()
            .iter()
            .filter(|link| matches!(link.of, LinkOf::Uplink(..)))
            .map(|link| link.name.as_str())
            .collect();
        for link in &uplinks {
            push(Kind::Uplink, (*link).to_owned());
        }
        let sites = links + uplinks.len();
        for site in topology.sites() {
            push(Kind::Site, site.name.to_string());
        }
        // Uplinks come first among the links.
        let mut next = links;
        let link_part = topology
            .links()
            .iter()
            .map(|link| match link.of {
                LinkOf::Uplink(..) => {
                    next += 1;
                    next - 1
                }
                LinkOf::Lan(site) => sites + site.at(),
            })
            .collect();
        let mut parts = Self {
            needs: vec![Vec::new(); all.len()],
            serves: vec![Vec::new(); all.len()],
            all,
            routes,
            nodes,
            links,
            sites,
            link_part,
        };
        parts.connect(topology);
        parts
    }

    fn connect(&mut self, topology: &Topology) {
        let mut edges = Vec::new();
        for (at, replica) in topology.replicas().iter().enumerate() {
            edges.push((self.replica(at), self.node(replica.node.at())));
            edges.push((self.route(replica.route.at()), self.replica(at)));
            for call in &topology.routes()[replica.route.at()].calls {
                edges.push((self.replica(at), self.route(call.to.at())));
            }
        }
        for (at, node) in topology.nodes().iter().enumerate() {
            for link in &node.uplinks {
                edges.push((self.node(at), self.link_part[link.at()]));
            }
            edges.push((self.node(at), self.site(node.site.at())));
        }
        for (from, to) in edges {
            self.needs[from].push(to);
            self.serves[to].push(from);
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    #[must_use]
    pub fn get(&self, part: usize) -> &Part {
        &self.all[part]
    }

    #[must_use]
    pub fn kind(&self, part: usize) -> Kind {
        self.all[part].kind
    }

    /// Those that a part depends on.
    #[must_use]
    pub fn needs(&self, part: usize) -> &[usize] {
        &self.needs[part]
    }

    /// Those that depend on a part.
    #[must_use]
    pub fn serves(&self, part: usize) -> &[usize] {
        &self.serves[part]
    }

    #[must_use]
    pub fn find(&self, kind: Kind, name: &str) -> Option<usize> {
        self.all
            .iter()
            .position(|part| part.kind == kind && part.name == name)
    }

    #[must_use]
    pub fn replica(&self, at: usize) -> usize {
        at
    }

    #[must_use]
    pub fn route(&self, at: usize) -> usize {
        self.routes + at
    }

    #[must_use]
    pub fn node(&self, at: usize) -> usize {
        self.nodes + at
    }

    /// The part that a link of the topology is: an uplink, or the site whose network it is.
    #[must_use]
    pub fn link(&self, at: usize) -> usize {
        self.link_part[at]
    }

    #[must_use]
    pub fn site(&self, at: usize) -> usize {
        self.sites + at
    }

    #[must_use]
    pub fn is_uplink(&self, part: usize) -> bool {
        (self.links..self.sites).contains(&part)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_reference_depend_on_what_they_run_on_and_call() {
        let topology = Topology::reference();
        let parts = Parts::of(&topology);
        let find = |kind, name| parts.find(kind, name).unwrap();
        let infer = find(Kind::Replica, "infer-1");
        let node = &topology.nodes()[topology.replicas()[infer].node.at()];
        assert!(
            parts
                .needs(infer)
                .contains(&find(Kind::Node, node.name.as_str()))
        );
        assert!(parts.serves(infer).contains(&find(Kind::Service, "infer")));
        let uplink = find(Kind::Uplink, "edge-1/eth0");
        assert!(parts.serves(uplink).contains(&find(Kind::Node, "edge-1")));
        for part in 0..parts.len() {
            for other in parts.needs(part) {
                assert!(parts.serves(*other).contains(&part));
            }
        }
    }
}
