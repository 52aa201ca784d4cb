//! What the agent knows about one route of its forwarder: the record that the
//! stages read and the loop keeps up to date. No decisions are made here.

pub(crate) mod demand;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use homeostat_common::gate::{BackendFacts, RouteFacts};
use homeostat_common::ids::{RouteId, ServiceId};
use homeostat_common::net::SourceNet;
use homeostat_common::observation::{Metric, Part, Series};
use homeostat_common::units::{Micros, Millis, PerSecond, Percent};
use homeostat_common::wire::body::{BackendState, RouteChange};

use crate::config;
use crate::control::RouteSample;

/// Reports in a row in which a backend has to be slow: three windows that
/// overlap, so that one burst is no verdict.
const SLOW_REPORTS: u8 = 3;

/// Answers of a backend, and of each peer, without which its latency says
/// nothing. The median of 10 lies within the middle half of its distribution
/// in 89 of 100 windows.
const ANSWERS_MIN: u32 = 10;

/// A backend is slow above this multiple of the median of its peers. Replicas
/// of one service differ by their turn and their cache, not by a factor.
const SLOW_FACTOR: f64 = 3.0;

/// What the forwarder's latencies reach back.
const LATENCY_WINDOW: Millis = Millis::secs(5);

/// And by at least this: below, nobody waits for it.
const SLOW_BY_US: f64 = 20_000.0;

/// What the forwarder said about a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackendSample {
    /// The weight in force.
    pub weight: u16,
    /// Whether it gets connections, if it has a weight.
    pub healthy: bool,
    /// Open connections.
    pub active: u32,
    /// Connections since the forwarder's start.
    pub total: u64,
    /// Failures since then.
    pub failures: u64,
    /// Requests answered in the window of the latencies.
    pub answered: u32,
    /// Time to the first byte: median and 95th percentile of the window.
    pub first_byte_us: Option<(u32, u32)>,
}

/// One backend.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    /// The service of this node that it is, if it is one.
    pub service: Option<ServiceId>,
    /// Its weight by configuration.
    pub configured: u16,
    /// What was said of it last.
    pub sample: BackendSample,
    /// Reports in a row in which it was slow, and since when.
    slow: (u8, Micros),
    /// How much slower it was, for people.
    pub slow_words: String,
    /// Until then the window of its latencies reaches back into a former life.
    former_until: Micros,
}

/// One route.
#[derive(Debug, Clone)]
pub struct Routed {
    /// Its name.
    pub id: RouteId,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Services of this node that call through it.
    pub callers: Vec<ServiceId>,
    /// The least rate of new connections that it may be limited to.
    rate_min: Option<PerSecond>,
    /// Addresses that may be refused.
    blockable: Vec<SourceNet>,
    /// Who is behind it.
    pub backends: BTreeMap<ServiceId, Backend>,
    /// What was last told to the outside.
    pub told: Option<RouteChange>,
    demand: demand::Demand,
}

impl Routed {
    /// A route of which nothing is known yet but its configuration.
    #[must_use]
    pub fn new(policy: &config::Forward, callers: Vec<ServiceId>) -> Self {
        let backends = policy.backends.iter().map(|backend| {
            let known = Backend {
                address: backend.address,
                service: backend.service.clone(),
                configured: backend.weight,
                sample: BackendSample {
                    weight: backend.weight,
                    ..BackendSample::default()
                },
                slow: (0, Micros(0)),
                slow_words: String::new(),
                former_until: Micros(0),
            };
            (backend.id.clone(), known)
        });
        Self {
            id: policy.id.clone(),
            listen: policy.listen,
            callers,
            rate_min: policy.rate_min,
            blockable: policy.blockable.clone(),
            backends: backends.collect(),
            told: None,
            demand: demand::Demand::default(),
        }
    }

    /// The same route under a new configuration: what is known of it stays.
    pub fn take_over(&mut self, former: Self) {
        self.backends = former.backends;
        self.told = former.told;
        self.demand = former.demand;
    }

    /// Takes in what the forwarder said, and compares the backends.
    pub fn absorb(&mut self, now: Micros, report: &RouteSample) {
        self.demand.absorb(now, report);
        let samples = &report.backends;
        for (id, sample) in samples {
            if let Some(backend) = self.backends.get_mut(id) {
                backend.sample = *sample;
            }
        }
        let medians: Vec<(ServiceId, Option<f64>)> = self
            .backends
            .iter()
            .map(|(id, backend)| (id.clone(), backend.median(now)))
            .collect();
        for (id, own) in &medians {
            let mut peers: Vec<f64> = medians
                .iter()
                .filter(|(other, _)| other != id)
                .filter_map(|(_, median)| *median)
                .collect();
            peers.sort_by(f64::total_cmp);
            let usual = peers.get(peers.len() / 2).copied();
            let Some(backend) = self.backends.get_mut(id) else {
                continue;
            };
            match (own, usual) {
                (Some(own), Some(usual))
                    if *own > usual * SLOW_FACTOR && *own > usual + SLOW_BY_US =>
                {
                    if backend.slow.0 == 0 {
                        backend.slow.1 = now;
                    }
                    backend.slow.0 = backend.slow.0.saturating_add(1);
                    backend.slow_words = format!(
                        "half of its answers on route {} begin after {:.1} ms, those of its peers \
                         after {:.1} ms",
                        self.id,
                        own / 1000.0,
                        usual / 1000.0
                    );
                }
                _ => backend.slow.0 = 0,
            }
        }
    }

    /// Since when a service of this node has been slow behind this route, and
    /// how much.
    #[must_use]
    pub fn slow(&self, service: &ServiceId) -> Option<(Micros, &str)> {
        self.backends
            .values()
            .find(|backend| backend.service.as_ref() == Some(service))
            .filter(|backend| backend.slow.0 >= SLOW_REPORTS)
            .map(|backend| (backend.slow.1, backend.slow_words.as_str()))
    }

    /// What was measured of a service until now belongs to its former life.
    pub fn reborn(&mut self, service: &ServiceId, now: Micros) {
        for backend in self.backends.values_mut() {
            if backend.service.as_ref() == Some(service) {
                backend.slow.0 = 0;
                backend.former_until = now + LATENCY_WINDOW;
            }
        }
    }

    /// Whether it sends a service of this node anything.
    #[must_use]
    pub fn feeds(&self, service: &ServiceId) -> bool {
        self.backends
            .values()
            .any(|one| one.service.as_ref() == Some(service) && one.sample.weight > 0)
    }

    /// Half of the answers of backends that are no service of this node begin after so many
    /// milliseconds.
    pub(crate) fn elsewhere(&self, now: Micros) -> impl Iterator<Item = (Series, f64)> + '_ {
        let backends = self.backends.iter();
        let others = backends.filter(|(_, backend)| backend.service.is_none());
        others.filter_map(move |(id, backend)| {
            let series = Series {
                metric: Metric::FirstByteP50,
                service: Some(id.clone()),
                part: Part::new(self.id.as_str()),
            };
            Some((series, backend.median(now)? / 1000.0))
        })
    }

    /// Whether anybody behind it is fit and gets connections.
    #[must_use]
    pub fn open(&self) -> bool {
        self.backends
            .values()
            .any(|backend| backend.sample.healthy && backend.sample.weight > 0)
    }

    /// Its part of what the rules know.
    #[must_use]
    pub fn facts(&self) -> RouteFacts {
        RouteFacts {
            backends: self
                .backends
                .iter()
                .map(|(id, backend)| {
                    let known = BackendFacts {
                        weight: backend.sample.weight,
                        healthy: backend.sample.healthy,
                    };
                    (id.clone(), known)
                })
                .collect(),
            rate_min: self.rate_min,
            blockable: self.blockable.clone(),
        }
    }

    /// The weights that a reroute leads to.
    #[must_use]
    pub fn rerouted(
        &self,
        from: &ServiceId,
        to: &ServiceId,
        share: Percent,
    ) -> Vec<(ServiceId, u16)> {
        let configured = |id: &ServiceId| self.backends.get(id).map_or(0, |one| one.configured);
        let moved = u16::try_from(share.of(u64::from(configured(from)))).unwrap_or(0);
        vec![
            (from.clone(), configured(from) - moved),
            (
                to.clone(),
                configured(to).saturating_add(moved).min(config::WEIGHT_MAX),
            ),
        ]
    }

    /// The weight that a standby gets when it is needed: that of the most
    /// favoured of the others.
    #[must_use]
    pub fn scaled_out(&self) -> u16 {
        let most = self.backends.values().map(|one| one.configured).max();
        most.unwrap_or(0).max(1)
    }

    /// As the wire has it.
    #[must_use]
    pub fn change(&self, reached: bool) -> RouteChange {
        RouteChange {
            route: self.id.clone(),
            listen: self.listen.to_string(),
            callers: self.callers.clone(),
            reached,
            backends: self
                .backends
                .iter()
                .map(|(id, backend)| BackendState {
                    backend: id.clone(),
                    address: backend.address.to_string(),
                    weight: backend.sample.weight,
                    configured: backend.configured,
                    healthy: backend.sample.healthy,
                })
                .collect(),
        }
    }
}

impl Backend {
    /// Its median time to the first byte, when enough was answered and it still
    /// gets something to answer.
    fn median(&self, now: Micros) -> Option<f64> {
        let own = now >= self.former_until;
        let enough = own && self.sample.answered >= ANSWERS_MIN && self.sample.weight > 0;
        self.sample
            .first_byte_us
            .filter(|_| enough)
            .map(|(median, _)| f64::from(median))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ServiceId {
        ServiceId::new(name).unwrap()
    }

    fn route() -> Routed {
        let text = r#"
            [node]
            id = "n"
            [[service]]
            id = "infer-1"
            command = ["/bin/infer"]
            ports = [9001]
            [[service]]
            id = "infer-2"
            command = ["/bin/infer"]
            ports = [9002]
            [[forward]]
            id = "infer"
            listen = 9000
            [[forward.backend]]
            service = "infer-1"
            [[forward.backend]]
            service = "infer-2"
            [[forward.backend]]
            id = "edge-2"
            address = "10.0.0.2:9000"
            weight = 0
        "#;
        let config = config::Config::parse(text, std::path::Path::new("/a.toml")).unwrap();
        Routed::new(&config.forwards[0], vec![id("gateway")])
    }

    fn said(answered: u32, median: u32) -> BackendSample {
        BackendSample {
            weight: 100,
            healthy: true,
            active: 0,
            answered,
            first_byte_us: Some((median, 2 * median)),
            ..BackendSample::default()
        }
    }

    #[test]
    fn a_backend_is_slow_only_beside_its_peers_and_only_after_a_while() {
        let mut route = route();
        let look = |route: &mut Routed, second: u64, one, two| {
            let samples = [(id("infer-1"), one), (id("infer-2"), two)];
            let report = RouteSample {
                route: route.id.clone(),
                waiting: 0,
                refused: 0,
                backends: samples.to_vec(),
            };
            route.absorb(Micros(second * 1_000_000), &report);
            route.slow(&id("infer-1")).is_some()
        };
        let (quick, slow) = (said(50, 2_000), said(50, 150_000));
        assert!(!look(&mut route, 1, slow, quick));
        assert!(!look(&mut route, 2, slow, quick));
        assert!(look(&mut route, 3, slow, quick));
        assert_eq!(route.slow(&id("infer-1")).unwrap().0, Micros(1_000_000));
        route.reborn(&id("infer-1"), Micros(3_500_000));
        for second in 4..8 {
            assert!(
                !look(&mut route, second, slow, quick),
                "measured on its former life"
            );
        }
        for second in 9..14 {
            assert!(
                !look(&mut route, second, slow, said(50, 100_000)),
                "all are slow"
            );
            assert!(
                !look(&mut route, second, said(9, 150_000), quick),
                "too few answers"
            );
            assert!(
                !look(&mut route, second, said(50, 9_000), quick),
                "nobody waits for 7 ms"
            );
        }
    }

    #[test]
    fn a_reroute_moves_a_share_of_what_is_configured_however_often_it_is_done() {
        let mut route = route();
        for share in ["30%", "100%", "0%"] {
            let share = share.parse().unwrap();
            let weights = route.rerouted(&id("infer-1"), &id("edge-2"), share);
            for (backend, weight) in &weights {
                route.backends.get_mut(backend).unwrap().sample.weight = *weight;
            }
            assert_eq!(
                route.rerouted(&id("infer-1"), &id("edge-2"), share),
                weights
            );
        }
        assert_eq!(route.backends[&id("infer-1")].sample.weight, 100);
        assert_eq!(route.backends[&id("edge-2")].sample.weight, 0);
    }
}
