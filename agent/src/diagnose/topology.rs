//! Who needs whom on a node: the graph along which trouble travels.
//!
//! In go the services and routes as configured; out come edges. A service needs the services of `depends_on`, the routes of `calls`, the
//! dependencies of `needs`, the model that it answers with, and the node that it runs on; a
//! route needs who stands behind it and the forwarder. Which parts the node needs is known once
//! they are measured.

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
