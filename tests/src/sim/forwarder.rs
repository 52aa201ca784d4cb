//! The forwarder of a simulated node: weights, connections that drain, and
//! reports. It is up while the service of its name lives.

use std::collections::BTreeMap;

use homeostat_agent::config::{Config, forwarder_id};
use homeostat_agent::control::{Event, RouteSample};
use homeostat_agent::route::BackendSample;
use homeostat_common::ids::{RouteId, ServiceId};
use homeostat_common::units::{Micros, Millis};

use super::world::{Reaction, World};
use super::{Happening, Sim};

/// Requests of a backend in the window of its latencies.
const ANSWERED: u32 = 50;

/// Until its first byte, for a backend that is well.
const FIRST_BYTE_US: u32 = 2000;

/// Weights survive the process, as they do in life.
#[derive(Debug, Default)]
pub(super) struct Forwarder {
    weights: BTreeMap<(RouteId, ServiceId), u16>,
    seq: u64,
    /// Its reports repeat the last one.
    pub(super) frozen: bool,
}

impl Forwarder {
    pub(super) fn new(config: &Config) -> Self {
        let weights = config.forwards.iter().flat_map(|forward| {
            let backends = forward.backends.iter();
            backends.map(|one| ((forward.id.clone(), one.id.clone()), one.weight))
        });
        Self {
            weights: weights.collect(),
            ..Self::default()
        }
    }

    /// Somebody else sets a weight.
    pub(super) fn meddle(&mut self, service: &ServiceId, to: u16) {
        let weights = self.weights.iter_mut();
        for (_, weight) in weights.filter(|((_, backend), _)| backend == service) {
            *weight = to;
        }
    }

    fn report(&mut self, config: &Config, world: &World, now: Micros) -> Event {
        self.seq += u64::from(!self.frozen);
        let routes = config.forwards.iter().map(|forward| RouteSample {
            route: forward.id.clone(),
            waiting: 0,
            refused: 0,
            backends: forward
                .backends
                .iter()
                .map(|backend| {
                    let key = (forward.id.clone(), backend.id.clone());
                    let weight = self.weights.get(&key).copied().unwrap_or(0);
                    let well = match &backend.service {
                        Some(id) => {
                            matches!(world.reaction(id, now), Reaction::Right | Reaction::Wrong)
                        }
                        None => true,
                    };
                    let slow = backend.service.as_ref().and_then(|id| world.life(id));
                    let slow = slow.and_then(|life| life.slow);
                    let dragged = backend.service.as_ref().map(|id| world.dragged(id));
                    let first_byte = slow.unwrap_or(FIRST_BYTE_US) + dragged.unwrap_or(0);
                    let sample = BackendSample {
                        weight,
                        healthy: well,
                        active: u32::from(well && weight > 0),
                        total: if weight > 0 {
                            u64::from(ANSWERED) * self.seq
                        } else {
                            0
                        },
                        failures: 0,
                        answered: if well && weight > 0 { ANSWERED } else { 0 },
                        first_byte_us: Some((first_byte, 2 * first_byte)),
                    };
                    (backend.id.clone(), sample)
                })
                .collect(),
        });
        Event::Routes {
            seq: self.seq,
            routes: routes.collect(),
        }
    }
}

impl Sim {
    fn forwards(&self) -> bool {
        let id = forwarder_id();
        self.world.reaction(&id, self.now) == Reaction::Right
    }

    /// What a sample brings from the forwarder.
    pub(super) fn report_routes(&mut self) {
        if self.config.forwards.is_empty() {
            return;
        }
        let event = if self.forwards() {
            self.forwarder.report(&self.config, &self.world, self.now)
        } else {
            Event::ForwarderLost
        };
        self.push_us(200, Happening::Tell(self.run, event));
    }

    pub(super) fn set_weight(&mut self, route: RouteId, backend: ServiceId, weight: u16) {
        if self.forwards() {
            self.forwarder.weights.insert((route, backend), weight);
            self.report_routes();
        }
    }

    pub(super) fn drain(&mut self, route: RouteId, backend: ServiceId, within: Millis) {
        if !self.forwards() {
            return;
        }
        let key = (route.clone(), backend.clone());
        self.forwarder.weights.insert(key, 0);
        self.report_routes();
        let after = self.file_rng.u64(0..=within.0 * 1000);
        let drained = Event::Drained { route, backend };
        self.push_us(after + 500, Happening::Tell(self.run, drained));
    }

    /// A backend gets nothing from any route.
    pub(super) fn spared(&self, service: &ServiceId) -> bool {
        let mut weights = self
            .forwarder
            .weights
            .iter()
            .filter(|((_, backend), _)| backend == service)
            .peekable();
        weights.peek().is_some() && weights.all(|(_, weight)| *weight == 0)
    }

    /// The weights as they are, for the story.
    #[must_use]
    pub(super) fn weights(&self) -> String {
        let weights = self.forwarder.weights.iter();
        let each = weights.map(|((_, backend), weight)| format!("{backend}={weight}"));
        each.collect::<Vec<_>>().join(" ")
    }
}
