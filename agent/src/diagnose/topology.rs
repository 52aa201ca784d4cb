//! Who needs whom on a node: the graph along which trouble travels.
//!
//! In go the services and routes as configured; out come edges, and the ways along them. A service needs the services of `depends_on`, the routes of `calls`, the
//! dependencies of `needs`, the model that it answers with, and the node that it runs on; a
//! route needs who stands behind it and the forwarder. Which parts the node needs is known once
//! they are measured.

use std::collections::{BTreeMap, VecDeque};

use homeostat_common::ids::ServiceId;
use homeostat_common::suspect::{Component, Edge};

use crate::config::{ProbeKind, Service, forwarder_id};
use crate::route::Routed;

/// Who needs whom by the configuration; that every service needs its node goes without
/// saying.
#[must_use]
pub fn configured<'a>(
    services: impl Iterator<Item = &'a Service>,
    routes: impl Iterator<Item = &'a Routed>,
) -> Vec<Edge> {
    let mut edges = Vec::new();
    let (id, mut forwarder) = (forwarder_id(), None);
    for service in services {
        let from = Component::Service(service.id.clone());
        let services = service.depends_on.iter().cloned().map(Component::Service);
        let routes = service.calls.iter().cloned().map(Component::Route);
        let elsewhere = service.needs.iter().cloned().map(Component::Dependency);
        let model = serves(service).then(|| Component::Model(service.id.clone()));
        let needs = services.chain(routes).chain(elsewhere).chain(model);
        edges.extend(needs.map(|needs| Edge {
            from: from.clone(),
            needs,
        }));
        if service.id == id {
            forwarder = Some(from);
        }
    }
    for route in routes {
        let from = Component::Route(route.id.clone());
        let behind = route
            .backends
            .iter()
            .map(|(id, backend)| match &backend.service {
                Some(service) => Component::Service(service.clone()),
                None => Component::Backend(id.clone()),
            });
        edges.extend(behind.chain(forwarder.clone()).map(|needs| Edge {
            from: from.clone(),
            needs,
        }));
    }
    edges
}

/// What every service needs besides.
pub fn on_node<'a>(services: impl Iterator<Item = &'a ServiceId>) -> impl Iterator<Item = Edge> {
    services.map(|id| Edge {
        from: Component::Service(id.clone()),
        needs: Component::Node,
    })
}

/// Whether a service answers with a model.
fn serves(service: &Service) -> bool {
    let asked = service.probes.iter().any(|probe| match &probe.kind {
        ProbeKind::Inference { .. }
        | ProbeKind::Metrics {
            serving: Some(_), ..
        } => true,
        ProbeKind::Tcp | ProbeKind::Http { .. } | ProbeKind::Metrics { .. } => false,
    });
    service.model.is_some() || asked
}

/// The shortest way from a component to one that it needs, both ends included; empty if there
/// is none.
#[must_use]
pub fn chain(edges: &[Edge], from: &Component, to: &Component) -> Vec<Component> {
    let mut before: BTreeMap<&Component, &Component> = BTreeMap::new();
    let mut open = VecDeque::from([from]);
    while let Some(at) = open.pop_front() {
        if at == to {
            break;
        }
        for edge in edges.iter().filter(|edge| edge.from == *at) {
            if edge.needs != *from && !before.contains_key(&edge.needs) {
                before.insert(&edge.needs, at);
                open.push_back(&edge.needs);
            }
        }
    }
    let mut chain = vec![to];
    while let Some(last) = chain.last().filter(|last| **last != from) {
        match before.get(*last) {
            Some(next) => chain.push(next),
            None => return Vec::new(),
        }
    }
    chain.into_iter().rev().cloned().collect()
}

/// The edges on the shortest ways from one component to others.
#[must_use]
pub fn between<'c>(
    edges: &[Edge],
    from: &Component,
    to: impl Iterator<Item = &'c Component>,
    most: usize,
) -> Vec<Edge> {
    let mut found: Vec<Edge> = Vec::new();
    for component in to {
        let chain = chain(edges, from, component);
        for (from, needs) in chain.iter().zip(chain.iter().skip(1)) {
            let edge = Edge {
                from: from.clone(),
                needs: needs.clone(),
            };
            if found.len() < most && !found.contains(&edge) {
                found.push(edge);
            }
        }
    }
    found
}
