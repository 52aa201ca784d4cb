//! Who needs whom in the fleet.
//!
//! In: what nodes told of their configuration (`topology` records) and of their routes. Out:
//! one graph of components, in which a backend of one node is the route of another that it
//! leads to, and a dependency of the same name is the same thing for all nodes of a site.
//! Trouble travels against its edges. Where it is not known what stands behind an address,
//! the backend stays what it is: a wrong edge is worse than none.
//!
//! All walks are bounded by the graph, which is bounded by what the database holds and by
//! [`EDGES_MAX`]; circles, which a wrong configuration or a lying node can draw, end them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use homeostat_common::suspect::{Component, Edge};

use crate::fleet::diagnosis::{Kind, Place};
use crate::fleet::view::{Route, Service};

/// Most edges: a thousand nodes with a hundred each.
pub const EDGES_MAX: usize = 100_000;

/// What nodes told, by node.
#[derive(Debug, Default)]
pub struct Told<'a> {
    /// Nodes and their sites.
    pub sites: Vec<(&'a str, &'a str)>,
    /// Their services.
    pub services: &'a [Service],
    /// Their routes, with where they lead.
    pub routes: &'a [Route],
    /// Who needs whom by their configuration.
    pub edges: Vec<(&'a str, &'a Edge)>,
}

/// The graph.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    needs: BTreeMap<Place, BTreeSet<Place>>,
    needed: BTreeMap<Place, BTreeSet<Place>>,
    sites: BTreeMap<String, String>,
    /// What stands behind a backend of a node that is no service of it.
    behind: BTreeMap<(String, String), Place>,
    edges: usize,
}

impl Graph {
    /// Joins what nodes told.
    #[must_use]
    pub fn of(told: &Told<'_>) -> Self {
        let mut graph = Self::default();
        let sites = told.sites.iter();
        graph.sites = sites
            .map(|(node, site)| ((*node).to_owned(), (*site).to_owned()))
            .collect();
        for route in told.routes {
            for backend in &route.backends {
                let Some(to) = &backend.leads_to else {
                    continue;
                };
                let place = match (&to.route, &to.service) {
                    (Some(name), _) => Place::of(Kind::Route, &to.node, name),
                    (None, Some(name)) => Place::of(Kind::Service, &to.node, name),
                    (None, None) => continue,
                };
                let key = (route.node.clone(), backend.backend.clone());
                graph.behind.insert(key, place);
            }
        }
        for service in told.services {
            let own = Place::of(Kind::Service, &service.node, &service.service);
            graph.add(own, Place::of(Kind::Node, &service.node, ""));
        }
        for route in told.routes {
            let own = Place::of(Kind::Route, &route.node, &route.route);
            for caller in &route.callers {
                let caller = Place::of(Kind::Service, &route.node, caller);
                graph.add(caller, own.clone());
            }
            for backend in &route.backends {
                let to = graph.backend(&route.node, &backend.backend);
                graph.add(own.clone(), to);
            }
        }
        for (node, edge) in &told.edges {
            let (from, to) = (
                graph.place(node, &edge.from),
                graph.place(node, &edge.needs),
            );
            graph.add(from, to);
        }
        graph
    }

    fn add(&mut self, from: Place, needs: Place) {
        if from == needs || self.edges == EDGES_MAX {
            return;
        }
        if self
            .needs
            .entry(from.clone())
            .or_default()
            .insert(needs.clone())
        {
            self.needed.entry(needs).or_default().insert(from);
            self.edges += 1;
        }
    }

    fn backend(&self, node: &str, name: &str) -> Place {
        let known = self.behind.get(&(node.to_owned(), name.to_owned()));
        known
            .cloned()
            .unwrap_or_else(|| Place::of(Kind::Backend, node, name))
    }

    /// What a component of a node is in the fleet.
    #[must_use]
    pub fn place(&self, node: &str, component: &Component) -> Place {
        match component {
            Component::Node => Place::of(Kind::Node, node, ""),
            Component::Part(part) => Place::of(Kind::Part, node, part.as_str()),
            Component::Dependency(name) => {
                let site = self.sites.get(node).map_or(node, |site| site);
                Place::of(Kind::Dependency, site, name.as_str())
            }
            Component::Route(route) => Place::of(Kind::Route, node, route.as_str()),
            Component::Backend(name) => self.backend(node, name.as_str()),
            Component::Service(service) => Place::of(Kind::Service, node, service.as_str()),
            Component::Model(service) => Place::of(Kind::Model, node, service.as_str()),
        }
    }

    /// All that anybody told of: who needs, who is needed, who has nothing but its node.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        let needed = self.needed.keys();
        self.needs
            .keys()
            .chain(needed.filter(|one| !self.needs.contains_key(one)))
    }

    /// What it needs directly.
    pub fn needs(&self, of: &Place) -> impl Iterator<Item = &Place> {
        self.needs.get(of).into_iter().flatten()
    }

    /// What it needs, directly or not, each with how many edges away; itself at 0.
    #[must_use]
    pub fn reach(&self, from: &Place) -> BTreeMap<Place, usize> {
        walk(&self.needs, from, |_| true)
            .into_iter()
            .map(|(place, (away, _))| (place, away))
            .collect()
    }

    /// The same without going on beyond those in `stop`: what it needs itself, and not for
    /// their sake.
    #[must_use]
    pub fn reach_to(&self, from: &Place, stop: &BTreeSet<Place>) -> BTreeMap<Place, usize> {
        let found = walk(&self.needs, from, |place| {
            place == from || !stop.contains(place)
        });
        found
            .into_iter()
            .map(|(place, (away, _))| (place, away))
            .collect()
    }

    /// Who needs it, directly or not.
    #[must_use]
    pub fn reached_by(&self, of: &Place) -> BTreeSet<Place> {
        let mut found: BTreeSet<Place> = walk(&self.needed, of, |_| true).into_keys().collect();
        found.remove(of);
        found
    }

    /// The shortest way from who needs to who is needed, both included; empty if there is
    /// none.
    #[must_use]
    pub fn path(&self, from: &Place, to: &Place) -> Vec<Place> {
        let found = walk(&self.needs, from, |_| true);
        let mut path = Vec::new();
        let mut next = found.contains_key(to).then(|| to.clone());
        while let Some(place) = next {
            next = found.get(&place).and_then(|(_, before)| before.clone());
            path.push(place);
        }
        path.reverse();
        path
    }
}

/// All that `edges` lead to, each with how far it is and who led there first; from those that
/// are not `open` it goes no further.
fn walk(
    edges: &BTreeMap<Place, BTreeSet<Place>>,
    from: &Place,
    open: impl Fn(&Place) -> bool,
) -> BTreeMap<Place, (usize, Option<Place>)> {
    let mut found = BTreeMap::from([(from.clone(), (0, None))]);
    let mut next = VecDeque::from([(from.clone(), 0)]);
    while let Some((place, away)) = next.pop_front() {
        if !open(&place) {
            continue;
        }
        for to in edges.get(&place).into_iter().flatten() {
            if !found.contains_key(to) {
                found.insert(to.clone(), (away + 1, Some(place.clone())));
                next.push_back((to.clone(), away + 1));
            }
        }
    }
    found
}

#[cfg(test)]
pub(super) mod tests {
    use homeostat_common::ids::{RouteId, ServiceId};
    use homeostat_common::observation::Part;

    use super::*;
    use crate::fleet::view::{Backend, Target};

    pub(crate) fn service(name: &str) -> Component {
        Component::Service(ServiceId::new(name).unwrap())
    }

    /// `west` calls through its route `infer`, which leads to the route of the same name on
    /// `east`, behind which is `infer-1`, which needs a disk and the broker of the site.
    pub(crate) fn two() -> Graph {
        let route = |node: &str, callers: &[&str], backend: Backend| Route {
            node: node.into(),
            route: "infer".into(),
            listen: String::new(),
            callers: callers.iter().map(|name| (*name).to_owned()).collect(),
            reached: true,
            since_ms: 0,
            backends: vec![backend],
        };
        let backend = |name: &str, leads_to| Backend {
            backend: name.into(),
            address: String::new(),
            weight: 1,
            configured: 1,
            healthy: true,
            leads_to,
        };
        let to_east = Target {
            node: "east".into(),
            service: None,
            state: None,
            route: Some("infer".into()),
        };
        let here = Target {
            node: "east".into(),
            service: Some("infer-1".into()),
            state: None,
            route: None,
        };
        let routes = [
            route("west", &["gateway"], backend("east", Some(to_east))),
            route("east", &["gateway"], backend("infer-1", Some(here))),
        ];
        let part = |name| Part::new(name).unwrap();
        let edge = |from, needs| Edge { from, needs };
        let disk = edge(service("infer-1"), Component::Part(part("sda")));
        let broker = edge(service("infer-1"), Component::Dependency(part("broker")));
        let far = edge(service("gateway"), Component::Dependency(part("broker")));
        let model = edge(
            Component::Model(ServiceId::new("infer-1").unwrap()),
            service("infer-1"),
        );
        let calls = edge(
            Component::Route(RouteId::new("infer").unwrap()),
            Component::Backend(ServiceId::new("east").unwrap()),
        );
        let services: Vec<Service> = [
            ("west", "gateway"),
            ("east", "gateway"),
            ("east", "infer-1"),
        ]
        .iter()
        .map(|(node, name)| Service {
            node: (*node).into(),
            service: (*name).into(),
            state: "healthy".into(),
            since_ms: 0,
            instance: None,
            exit: None,
        })
        .collect();
        Graph::of(&Told {
            sites: vec![("west", "plant"), ("east", "plant")],
            services: &services,
            routes: &routes,
            edges: vec![
                ("east", &disk),
                ("east", &broker),
                ("east", &model),
                ("west", &far),
                ("west", &calls),
            ],
        })
    }

    #[test]
    fn a_chain_crosses_nodes_and_levels() {
        let graph = two();
        let from = graph.place("west", &service("gateway"));
        let disk = Place::of(Kind::Part, "east", "sda");
        let path: Vec<String> = graph
            .path(&from, &disk)
            .iter()
            .map(Place::to_string)
            .collect();
        assert_eq!(
            path,
            [
                "gateway on west",
                "route infer on west",
                "route infer on east",
                "infer-1 on east",
                "sda of east"
            ]
        );
        assert!(graph.path(&disk, &from).is_empty());
        let shared = graph.place("west", &Component::Dependency(Part::new("broker").unwrap()));
        let by: Vec<String> = graph
            .reached_by(&shared)
            .iter()
            .map(Place::to_string)
            .collect();
        assert!(by.contains(&"infer-1 on east".to_owned()), "{by:?}");
        assert!(by.contains(&"gateway on west".to_owned()), "{by:?}");
        assert_eq!(graph.reach(&from)[&disk], 4);
    }

    #[test]
    fn a_circle_that_somebody_told_ends() {
        let (a, b) = (service("a"), service("b"));
        let one = Edge {
            from: a.clone(),
            needs: b.clone(),
        };
        let two = Edge {
            from: b,
            needs: a.clone(),
        };
        let own = Edge {
            from: a.clone(),
            needs: a.clone(),
        };
        let graph = Graph::of(&Told {
            edges: vec![("n", &one), ("n", &two), ("n", &own)],
            ..Told::default()
        });
        assert_eq!(graph.reach(&graph.place("n", &a)).len(), 2);
        assert_eq!(graph.edges, 2);
    }
}
