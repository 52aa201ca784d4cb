//! What has to agree across services: names are unique, dependencies exist and
//! have no cycle, a port belongs to one service.

use std::collections::BTreeMap;

use homeostat_common::ids::ServiceId;

use super::problems::Problems;
use super::{Config, Service};

pub(super) fn across_services(config: &Config, problems: &mut Problems<'_>) {
    let services = &config.services;
    let mut places: BTreeMap<&ServiceId, usize> = BTreeMap::new();
    let mut ports: BTreeMap<u16, &ServiceId> = BTreeMap::new();
    for (n, service) in services.iter().enumerate() {
        if let Some(first) = places.get(&service.id) {
            problems.at(
                &format!("service[{n}].id"),
                format!("is already the id of service[{first}]"),
            );
        } else {
            places.insert(&service.id, n);
        }
        for port in &service.ports {
            if let Some(owner) = ports.insert(*port, &service.id) {
                problems.at(
                    &format!("service[{n}].ports"),
                    format!("port {port} is already taken by {owner}"),
                );
            }
        }
    }
    let mut dangling = false;
    for (n, service) in services.iter().enumerate() {
        for dependency in &service.depends_on {
            if !places.contains_key(dependency) {
                dangling = true;
                problems.at(
                    &format!("service[{n}].depends_on"),
                    format!("there is no service {dependency}"),
                );
            }
        }
    }
    if !dangling && let Some((n, cycle)) = cycle(services, &places) {
        let cycle: Vec<_> = cycle.iter().map(|id| id.as_str()).collect();
        problems.at(
            &format!("service[{n}].depends_on"),
            format!("must not lead back to itself: {}", cycle.join(" -> ")),
        );
    }
}

/// The first cycle found, as the place of a service on it and the way round.
fn cycle<'c>(
    services: &'c [Service],
    places: &BTreeMap<&ServiceId, usize>,
) -> Option<(usize, Vec<&'c ServiceId>)> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        OnPath,
        Done,
    }
    let mut marks = vec![Mark::New; services.len()];
    for start in 0..services.len() {
        // Each entry: a service and how many of its dependencies were followed.
        let mut path: Vec<(usize, usize)> = Vec::new();
        if marks[start] == Mark::New {
            marks[start] = Mark::OnPath;
            path.push((start, 0));
        }
        while let Some((at, followed)) = path.last_mut() {
            let at = *at;
            let Some(next) = services[at].depends_on.get(*followed) else {
                marks[at] = Mark::Done;
                path.pop();
                continue;
            };
            *followed += 1;
            let Some(next) = places.get(next).copied() else {
                continue;
            };
            match marks[next] {
                Mark::Done => {}
                Mark::New => {
                    marks[next] = Mark::OnPath;
                    path.push((next, 0));
                }
                Mark::OnPath => {
                    let round = path.iter().skip_while(|(at, _)| *at != next);
                    let mut round: Vec<_> = round.map(|(at, _)| &services[*at].id).collect();
                    round.push(&services[next].id);
                    return Some((next, round));
                }
            }
        }
    }
    None
}
