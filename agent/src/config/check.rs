//! What has to agree across services: names are unique, dependencies exist and
//! have no cycle, a port belongs to one service.

use std::collections::BTreeMap;
use std::path::Path;

use homeostat_common::budget::{Budget, Ledger, Shares};
use homeostat_common::gate;
use homeostat_common::ids::{RouteId, ServiceId};
use homeostat_common::observation::Part;
use homeostat_common::primitive::Primitive;
use homeostat_common::units::Micros;

use super::problems::Problems;
use super::{Config, Process, Service};

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
    no_shared_slot(services, problems);
    no_shared_process(services, problems);
    no_restart_beyond_budget(config, problems);
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
    for (n, service) in services.iter().enumerate() {
        let known = |route: &RouteId| config.forwards.iter().any(|one| one.id == *route);
        for route in service.calls.iter().filter(|route| !known(route)) {
            problems.at(
                &format!("service[{n}].calls"),
                format!("there is no forward {route}"),
            );
        }
        let asked = |name: &Part| config.dependencies.iter().any(|one| one.name == *name);
        for name in service.needs.iter().filter(|name| !asked(name)) {
            problems.at(
                &format!("service[{n}].needs"),
                format!("there is no dependency {name}"),
            );
        }
        let behind = config
            .forwards
            .iter()
            .flat_map(|forward| &forward.backends)
            .any(|backend| backend.service.as_ref() == Some(&service.id));
        if service.standby && !behind {
            problems.at(
                &format!("service[{n}].standby"),
                format!(
                    "only a backend can be a standby, and {} is none",
                    service.id
                ),
            );
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

/// One service's rollback would take the version away under the other one.
fn no_shared_slot(services: &[Service], problems: &mut Problems<'_>) {
    let mut owners: BTreeMap<&Path, &ServiceId> = BTreeMap::new();
    for (n, service) in services.iter().enumerate() {
        let model = service.model.as_ref().map(|model| ("model", &model.slot));
        let config = service
            .config
            .as_ref()
            .map(|config| ("config", &config.slot));
        for (name, slot) in model.into_iter().chain(config) {
            if let Some(owner) = owners.insert(slot, &service.id) {
                problems.at(
                    &format!("service[{n}].{name}.slot"),
                    format!("is already a slot of {owner}"),
                );
            }
        }
    }
}

/// Two services that are one unit or container would be started and ended twice.
fn no_shared_process(services: &[Service], problems: &mut Problems<'_>) {
    let mut owners: BTreeMap<(&Path, &str), &ServiceId> = BTreeMap::new();
    for (n, service) in services.iter().enumerate() {
        let (key, place) = match &service.process {
            Process::Command(_) => continue,
            Process::Unit(unit) => ("unit", (Path::new(""), unit.name.as_str())),
            Process::Container(container) => {
                let place = (container.engine.as_path(), container.name.as_str());
                ("container", place)
            }
        };
        if let Some(owner) = owners.insert(place, &service.id) {
            let wanted = format!("is already what {owner} runs as");
            problems.at(&format!("service[{n}].{key}"), wanted);
        }
    }
}

/// A service whose restart could never be paid for would never be healed, and
/// nobody would know before the night it matters.
fn no_restart_beyond_budget(config: &Config, problems: &mut Problems<'_>) {
    let classes = config.services.iter().map(|service| service.criticality);
    let budget = Budget::new(config.limits.budget, Shares::of(classes), Micros(0));
    let whole: f64 = config
        .services
        .iter()
        .map(|service| service.criticality.weight())
        .sum();
    for (n, service) in config.services.iter().enumerate() {
        let restart = Primitive::Restart {
            service: service.id.clone(),
            grace: service.stop_grace,
        };
        let share = service.criticality.weight() / whole;
        let cost = gate::restart_cost_max(&restart, share, service.start_timeout);
        let class = service.criticality;
        let most = Ledger::most(budget.bounds(class).0);
        if cost > most {
            problems.at(
                &format!("service[{n}].start_timeout"),
                format!(
                    "restarting {} may cost {cost:.0} capacity-seconds, more than the {most:.0} \
                     that the budget of {} services always admits: shorten start_timeout or \
                     stop_grace, or raise limits.budget",
                    service.id,
                    class.name()
                ),
            );
        }
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
