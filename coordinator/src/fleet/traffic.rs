//! Where routes lead: a backend is a service of the same node, or an address
//! that is another route's.
//!
//! In: routes and services as the nodes told them. Out: the same routes, each
//! backend with what stands there. An address that no node told of, or that
//! several did (every node has its own loopback), leads to nothing known:
//! a wrong edge in a picture is worse than none.

use std::net::SocketAddr;

use super::view::{Route, Service, Target};

/// Fills in `leads_to` of each backend.
pub fn resolve(routes: &mut [Route], services: &[Service]) {
    let listeners: Vec<(String, String, String)> = routes
        .iter()
        .map(|route| {
            (
                route.node.clone(),
                route.route.clone(),
                route.listen.clone(),
            )
        })
        .collect();
    for route in routes {
        let own = (route.node.as_str(), route.route.as_str());
        for backend in &mut route.backends {
            let service = services
                .iter()
                .find(|service| service.node == route.node && service.service == backend.backend);
            if let Some(service) = service {
                backend.leads_to = Some(Target {
                    node: route.node.clone(),
                    service: Some(service.service.clone()),
                    state: Some(service.state.clone()),
                    route: None,
                });
                continue;
            }
            let mut found = listeners.iter().filter(|(node, name, listen)| {
                (node.as_str(), name.as_str()) != own
                    && answers(listen, node, &backend.address, &backend.backend)
            });
            backend.leads_to = match (found.next(), found.next()) {
                (Some((node, name, _)), None) => Some(Target {
                    node: node.clone(),
                    service: None,
                    state: None,
                    route: Some(name.clone()),
                }),
                _ => None,
            };
        }
    }
}

/// Whether a route of `node` that listens at `listen` answers at `address`. One
/// that listens on every address is told by the name of its node.
fn answers(listen: &str, node: &str, address: &str, backend: &str) -> bool {
    if listen == address {
        return true;
    }
    let every = listen
        .parse::<SocketAddr>()
        .is_ok_and(|listen| listen.ip().is_unspecified());
    let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    every && node == backend && port(listen) == port(address)
}

#[cfg(test)]
mod tests {
    use super::super::view::Backend;
    use super::*;

    fn route(node: &str, listen: &str, backends: &[(&str, &str)]) -> Route {
        Route {
            node: node.into(),
            route: "infer".into(),
            listen: listen.into(),
            callers: Vec::new(),
            reached: true,
            since_ms: 0,
            backends: backends
                .iter()
                .map(|(name, address)| Backend {
                    backend: (*name).into(),
                    address: (*address).into(),
                    weight: 100,
                    configured: 100,
                    healthy: true,
                    leads_to: None,
                })
                .collect(),
        }
    }

    fn led(routes: &mut [Route]) -> Vec<String> {
        let services = [Service {
            node: "a".into(),
            service: "infer-1".into(),
            state: "standby".into(),
            since_ms: 0,
            instance: None,
            exit: None,
        }];
        resolve(routes, &services);
        let targets = routes[0].backends.iter().map(|backend| {
            backend.leads_to.as_ref().map_or("-".into(), |target| {
                let what = target.service.as_ref().or(target.route.as_ref());
                format!("{}/{}", target.node, what.map_or("", |name| name))
            })
        });
        targets.collect()
    }

    #[test]
    fn a_backend_is_an_own_service_or_the_route_that_listens_at_its_address() {
        let mut routes = [
            route(
                "a",
                "10.0.0.1:9000",
                &[
                    ("infer-1", "127.0.0.1:9001"),
                    ("spare", "10.0.0.2:9000"),
                    ("c", "10.0.0.3:9000"),
                    ("self", "10.0.0.1:9000"),
                    ("gone", "10.0.0.9:9000"),
                ],
            ),
            route("b", "10.0.0.2:9000", &[]),
            route("c", "0.0.0.0:9000", &[]),
        ];
        assert_eq!(
            led(&mut routes),
            ["a/infer-1", "b/infer", "c/infer", "-", "-"]
        );
    }

    #[test]
    fn an_address_that_two_nodes_have_leads_nowhere_known() {
        let mut routes = [
            route("a", "127.0.0.1:1", &[("far", "127.0.0.1:9000")]),
            route("b", "127.0.0.1:9000", &[]),
            route("c", "127.0.0.1:9000", &[]),
        ];
        assert_eq!(led(&mut routes), ["-"]);
        assert_eq!(led(&mut routes[..2]), ["b/infer"]);
    }
}
