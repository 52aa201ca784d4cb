//! The routes: which backend gets the next connection, and what may change about them.
//!
//! In go connections that want a backend and orders of clients, out comes a backend and news
//! about it. Pure: no sockets, no clock.
//!
//! Smooth weighted round robin (as in nginx): each turn every candidate gains its weight, the
//! richest is picked and pays the sum. Weights 5, 1, 1 give `aabacaa`, not `aaaaabc`.

use homeostat_common::ids::{RouteId, ServiceId};
use homeostat_common::units::Micros;

use super::admission::Admission;
use super::backend::Backend;
use super::protocol::{BackendReport, Health, RouteReport, RouteView};
use super::weights::{Override, Saved};
use crate::config::{self, Forward};

/// Names a backend for as long as this process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) route: u32,
    pub(super) backend: u32,
}

/// Backends that a connection has tried, by their place; bounded by `BACKENDS_MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tried(u32);

impl Tried {
    fn has(self, place: usize) -> bool {
        self.0 & (1 << place) != 0
    }

    fn add(&mut self, place: usize) {
        self.0 |= 1 << place;
    }
}

#[derive(Debug)]
pub(super) struct Route {
    /// Unique in this process.
    pub(super) uid: u32,
    pub(super) policy: Forward,
    pub(super) backends: Vec<Backend>,
    pub(super) admission: Admission,
    /// Connections closed because no backend accepted in time.
    pub(super) refused: u64,
}

impl Route {
    /// The next backend for a connection that has tried some already. When none is open, all
    /// that have a weight are tried in turn: a verdict on all of them is more likely wrong
    /// than the end of the world.
    pub(super) fn pick(&mut self, now: Micros, tried: &mut Tried) -> Option<u32> {
        let place = self
            .turn(|place, backend| backend.open(now) && !tried.has(place))
            .or_else(|| self.turn(|place, backend| backend.weight > 0 && !tried.has(place)))?;
        tried.add(place);
        let timeout = self.policy.connect_timeout;
        let backend = self.backends.get_mut(place)?;
        backend.picked(now, timeout);
        Some(backend.uid)
    }

    fn turn(&mut self, candidate: impl Fn(usize, &Backend) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(i32, usize)> = None;
        for (place, backend) in self.backends.iter_mut().enumerate() {
            if !candidate(place, backend) {
                continue;
            }
            let weight = i32::from(backend.weight);
            backend.turn = backend.turn.saturating_add(weight);
            total += weight;
            if best.is_none_or(|(turn, _)| backend.turn > turn) {
                best = Some((backend.turn, place));
            }
        }
        let (_, place) = best?;
        if let Some(backend) = self.backends.get_mut(place) {
            backend.turn = backend.turn.saturating_sub(total);
        }
        Some(place)
    }

    pub(super) fn backend(&mut self, uid: u32) -> Option<&mut Backend> {
        self.backends.iter_mut().find(|it| it.uid == uid)
    }
}

/// Something to tell all clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub(super) route: RouteId,
    pub(super) backend: ServiceId,
    pub(super) health: Health,
    pub(super) why: String,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) routes: Vec<Route>,
    next: u32,
}

impl Table {
    /// Brings the table to `forwards`. What is unchanged stays as it is, with its verdicts
    /// and weights; a weight that was set at run time stays until the configured one changes.
    pub(super) fn update(&mut self, forwards: &[Forward], saved: &Saved) {
        let mut former = std::mem::take(&mut self.routes);
        for policy in forwards {
            let found = former
                .iter()
                .position(|it| it.policy.id == policy.id && it.policy.listen == policy.listen);
            let mut route = match found {
                Some(place) => former.swap_remove(place),
                None => Route {
                    uid: self.mint(),
                    policy: policy.clone(),
                    backends: Vec::new(),
                    admission: saved.admission(&policy.id),
                    refused: 0,
                },
            };
            let mut present = std::mem::take(&mut route.backends);
            for policy_of_backend in &policy.backends {
                let backend =
                    self.backend(&mut present, policy_of_backend, &policy.id, &saved.weights);
                route.backends.push(backend);
            }
            if policy.check.is_none() {
                route.backends.iter_mut().for_each(Backend::unchecked);
            }
            route.policy = policy.clone();
            self.routes.push(route);
        }
    }

    fn backend(
        &mut self,
        present: &mut Vec<Backend>,
        policy: &config::Backend,
        route: &RouteId,
        overrides: &[Override],
    ) -> Backend {
        let same = |it: &Backend| it.policy.id == policy.id && it.policy.address == policy.address;
        if let Some(place) = present.iter().position(same) {
            let mut backend = present.swap_remove(place);
            if backend.policy.weight != policy.weight {
                backend.weight = policy.weight;
            }
            backend.policy = policy.clone();
            return backend;
        }
        let mut backend = Backend::new(self.mint(), policy.clone());
        let set = overrides.iter().find(|it| {
            it.route == *route && it.backend == policy.id && it.configured == policy.weight
        });
        if let Some(set) = set {
            backend.weight = set.weight;
        }
        backend
    }

    fn mint(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    pub(super) fn route(&mut self, uid: u32) -> Option<&mut Route> {
        self.routes.iter_mut().find(|it| it.uid == uid)
    }

    /// `None` once a reload has dropped it; its connections go on.
    pub(super) fn backend_of(&mut self, key: Key) -> Option<&mut Backend> {
        self.route(key.route)?.backend(key.backend)
    }

    /// The backend that goes by these names.
    pub(super) fn find(&self, route: &RouteId, backend: &ServiceId) -> Result<Key, String> {
        let found = self.routes.iter().find(|it| it.policy.id == *route);
        let found = found.ok_or_else(|| format!("there is no route {route}"))?;
        let backend = found
            .backends
            .iter()
            .find(|it| it.policy.id == *backend)
            .ok_or_else(|| format!("route {route} has no backend {backend}"))?;
        Ok(Key {
            route: found.uid,
            backend: backend.uid,
        })
    }

    /// The route that goes by this name.
    pub(super) fn named(&mut self, route: &RouteId) -> Result<&mut Route, String> {
        let found = self.routes.iter_mut().find(|it| it.policy.id == *route);
        found.ok_or_else(|| format!("there is no route {route}"))
    }

    /// What was set at run time and is not what the configuration says.
    pub(super) fn overrides(&self) -> Saved {
        let admissions = self.routes.iter().map(|it| (&it.policy.id, &it.admission));
        Saved {
            weights: self.weights(),
            rates: admissions
                .clone()
                .filter_map(|(id, it)| Some((id.clone(), it.rate()?)))
                .collect(),
            blocked: admissions
                .flat_map(|(id, it)| it.blocked().iter().map(|net| (id.clone(), *net)))
                .collect(),
        }
    }

    fn weights(&self) -> Vec<Override> {
        let of_route = |route: &Route| {
            let id = route.policy.id.clone();
            let set = route.backends.iter();
            set.filter(|it| it.weight != it.policy.weight)
                .map(move |it| Override {
                    route: id.clone(),
                    backend: it.policy.id.clone(),
                    weight: it.weight,
                    configured: it.policy.weight,
                })
                .collect::<Vec<_>>()
        };
        self.routes.iter().flat_map(of_route).collect()
    }

    pub(super) fn news(&mut self) -> Vec<News> {
        let mut all = Vec::new();
        for route in &mut self.routes {
            for backend in &mut route.backends {
                if let Some((health, why)) = backend.news() {
                    all.push(News {
                        route: route.policy.id.clone(),
                        backend: backend.policy.id.clone(),
                        health,
                        why,
                    });
                }
            }
        }
        all
    }

    pub(super) fn views(&self) -> Vec<RouteView> {
        let view = |route: &Route| RouteView {
            route: route.policy.id.clone(),
            backends: route
                .backends
                .iter()
                .map(|it| it.policy.id.clone())
                .collect(),
        };
        self.routes.iter().map(view).collect()
    }

    /// `waiting` and `unanswered` come from whoever holds the connections.
    pub(super) fn reports(
        &mut self,
        now: Micros,
        waiting: impl Fn(u32) -> u32,
        unanswered: impl Fn(Key) -> (u32, u64),
    ) -> Vec<RouteReport> {
        let report = |route: &mut Route| RouteReport {
            route: route.policy.id.clone(),
            listen: route.policy.listen,
            waiting: waiting(route.uid),
            refused: route.refused,
            rate: route.admission.rate(),
            blocked: route
                .admission
                .blocked()
                .len()
                .try_into()
                .unwrap_or(u8::MAX),
            turned_away: route.admission.turned_away,
            backends: route
                .backends
                .iter_mut()
                .map(|backend| {
                    let summary = backend.latency.summary(now);
                    let (unanswered, oldest_us) = unanswered(Key {
                        route: route.uid,
                        backend: backend.uid,
                    });
                    BackendReport {
                        backend: backend.policy.id.clone(),
                        configured: backend.policy.weight,
                        weight: backend.weight,
                        health: backend.health(),
                        active: backend.active,
                        total: backend.total,
                        failures: backend.failures,
                        answered: summary.answered,
                        first_byte_us: summary.percentiles,
                        unanswered,
                        oldest_us,
                    }
                })
                .collect(),
        };
        self.routes.iter_mut().map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::backend::Failure;
    use super::super::backend::tests::policy;
    use super::*;
    use homeostat_common::units::Millis;

    fn forward(backends: &[(&str, u16)]) -> Forward {
        Forward {
            id: RouteId::new("f").unwrap(),
            listen: "127.0.0.1:9".parse().unwrap(),
            connect_timeout: Millis(50),
            patience: Millis(1000),
            first_byte: None,
            rate_min: None,
            blockable: Vec::new(),
            check: None,
            backends: backends
                .iter()
                .map(|(id, weight)| policy(id, *weight))
                .collect(),
        }
    }

    fn table(backends: &[(&str, u16)]) -> Table {
        let mut table = Table::default();
        table.update(&[forward(backends)], &Saved::default());
        table
    }

    /// The names of `n` picks in a row.
    fn picks(table: &mut Table, n: usize) -> String {
        let route = &mut table.routes[0];
        let mut pick = |_| {
            let uid = route.pick(Micros(0), &mut Tried::default())?;
            route.backend(uid).map(|it| it.policy.id.to_string())
        };
        (0..n).filter_map(&mut pick).collect()
    }

    #[test]
    fn turns_follow_the_weights_and_are_spread() {
        assert_eq!(
            picks(&mut table(&[("a", 5), ("b", 1), ("c", 1)]), 7),
            "aabacaa"
        );
        let many = picks(&mut table(&[("a", 700), ("b", 300), ("s", 0)]), 1000);
        assert_eq!(many.matches('a').count(), 700);
        assert_eq!(many.matches('s').count(), 0);
    }

    #[test]
    fn a_connection_tries_each_once_the_open_ones_first() {
        let mut table = table(&[("a", 1), ("b", 1), ("s", 0)]);
        let route = &mut table.routes[0];
        route.backends[0].failed(Micros(0), Failure::Refused);
        let (a, b) = (route.backends[0].uid, route.backends[1].uid);
        let mut tried = Tried::default();
        let tries = [(); 3].map(|()| route.pick(Micros(0), &mut tried));
        assert_eq!(tries, [Some(b), Some(a), None]);
    }

    #[test]
    fn when_all_are_out_they_are_tried_in_turn() {
        let mut table = table(&[("a", 1), ("b", 1)]);
        for backend in &mut table.routes[0].backends {
            (0..3).for_each(|_| backend.failed(Micros(0), Failure::Unreachable));
        }
        assert_eq!(picks(&mut table, 4), "abab");
        assert_eq!(table.news().len(), 2);
        assert_eq!(table.news().len(), 0, "told once");
    }

    #[test]
    fn an_update_keeps_what_is_unchanged_and_drops_overrides_of_changed_weights() {
        let mut table = table(&[("a", 10), ("b", 10)]);
        let before: Vec<u32> = table.routes[0].backends.iter().map(|it| it.uid).collect();
        table.routes[0].backends[0].weight = 3;
        table.routes[0].backends[1].weight = 4;
        table.update(
            &[forward(&[("c", 1), ("b", 20), ("a", 10)])],
            &Saved::default(),
        );
        let after: Vec<_> = table.routes[0]
            .backends
            .iter()
            .map(|it| (it.policy.id.as_str(), it.weight))
            .collect();
        assert_eq!(after, [("c", 1), ("b", 20), ("a", 3)]);
        assert_eq!(table.routes[0].backends[2].uid, before[0]);
        let overrides = table.overrides();
        assert_eq!(overrides.weights.len(), 1);
        let mut fresh = Table::default();
        fresh.update(&[forward(&[("a", 10)])], &overrides);
        assert_eq!(fresh.routes[0].backends[0].weight, 3);
        fresh.update(&[], &Saved::default());
        fresh.update(&[forward(&[("a", 11)])], &overrides);
        assert_eq!(
            fresh.routes[0].backends[0].weight, 11,
            "the file has the last word"
        );
    }
}
