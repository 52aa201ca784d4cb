//! The state of a node as one vector: `s_t = [H_t, Omega_t, Gamma_t]`
//! (self-healing paper 3.1.1).
//!
//! Typed parts for code and people, and one fixed vector of [`FEATURES`] for
//! models. A value that is not known stays unknown: in the vector it is 0 with
//! its mask at 0, so that a model can tell it from a real 0.

use alloc::boxed::Box;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::anomaly::{Fault, Symptom};
use crate::ids::ServiceId;
use crate::observation::Reading;
use crate::outcome::Outcome;
use crate::units::{Millis, Ratio, narrow};
use crate::wire::body::ServiceState;

/// Past healings that are kept in [`History`]; older ones live on in its counts.
pub const RECENT_MAX: usize = 32;

/// How one service does, within `H_t`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceHealth {
    /// Which.
    pub service: ServiceId,
    /// What it does.
    pub state: ServiceState,
    /// Probes answered rightly and in time, of those sent.
    pub availability: Reading<f64>,
    /// p50, p95 and p99 of the time to answer, in milliseconds.
    pub latency_ms: [Reading<f64>; 3],
    /// Probes answered in the window.
    pub throughput: Reading<f64>,
    /// Resident memory in bytes.
    pub memory_resident: Reading<f64>,
    /// Cores in use.
    pub cpu_used: Reading<f64>,
}

/// `H_t`: how the node and its services do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Per service.
    pub services: Vec<ServiceHealth>,
    /// Share of all cores that was busy.
    pub cpu_busy: Reading<f64>,
    /// Pressure on processors, IO and memory, each a share of time.
    pub pressure: [Reading<f64>; 3],
    /// Memory that could be had, in bytes.
    pub memory_available: Reading<f64>,
    /// Room for the agent's data, in bytes.
    pub disk_free: Reading<f64>,
    /// Of its parts and its supply. Boxed, as the whole state is one kind of message.
    pub parts: Box<Parts>,
}

/// How the parts of the node do, within `H_t`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Parts {
    /// Of the part that is closest to its limit, in degrees Celsius.
    pub temperature: Reading<f64>,
    /// Share of time in which the busiest disk had a request.
    pub disk_busy: Reading<f64>,
    /// Share of the busiest link in use.
    pub net_load: Reading<f64>,
    /// Broken and dropped packets per second, of all links.
    pub net_errors: Reading<f64>,
    /// Share of the battery's charge.
    pub battery_charge: Reading<f64>,
    /// Whether heat, supply or a person keeps the processors below their clock: the share
    /// of the clock that is allowed.
    pub frequency_cap: Reading<f64>,
}

/// What is asked of the node and what it depends on elsewhere, within `Omega_t`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Demand {
    /// Requests per second through all routes.
    pub request_rate: Reading<f64>,
    /// Bytes per second through all links, both ways.
    pub data_volume: Reading<f64>,
    /// Share of new connections that failed, of the worst route.
    pub failure_share: Reading<f64>,
    /// Questions to dependencies elsewhere that were answered, of the worst.
    pub dependencies_up: Reading<f64>,
    /// Time to a connection with the slowest of them, in milliseconds.
    pub connect_latency_ms: Reading<f64>,
    /// How bad third parties say they are, the worst: 0 none to 3 critical.
    pub third_party_trouble: Reading<f64>,
    /// Time to the broker's acknowledgement, in milliseconds.
    pub broker_rtt_ms: Reading<f64>,
    /// What the slowest link carries, in bytes per second.
    pub bandwidth: Reading<f64>,
}

/// `Omega_t`: what surrounds the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// Whether the broker can be reached.
    pub connected: bool,
    /// Events that nobody has acknowledged yet.
    pub backlog: u64,
    /// Who needs whom: service and what it depends on.
    pub dependencies: Vec<(ServiceId, ServiceId)>,
    /// How late the agent's own timer was lately.
    pub own_lag: Millis,
    /// What is asked of the node, and what it asks of others.
    pub demand: Box<Demand>,
}

/// One healing that is over, within `Gamma_t`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// Where.
    pub service: ServiceId,
    /// What was wrong.
    pub fault: Fault,
    /// How it ended.
    pub outcome: Outcome,
    /// From the first sign to the end.
    pub lasted: Millis,
    /// What it cost, in capacity-seconds.
    pub cost: f64,
}

/// `Gamma_t`: what happened before.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    /// The last healings, oldest first; at most [`RECENT_MAX`].
    pub recent: Vec<Past>,
    /// Incidents ever, by [`Outcome`] in the order of [`Outcome::ALL`].
    pub outcomes: [u32; 5],
    /// Incidents that are open, by [`Symptom`] in the order of [`Symptom::ALL`].
    /// A list, since nodes of different versions know different symptoms: what
    /// one of them does not name is none, what it has too many is of no concern.
    pub open: Vec<u32>,
    /// Share of the healing budget that is left.
    pub budget_left: Ratio,
}

/// `s_t`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// `H_t`.
    pub health: Health,
    /// `Omega_t`.
    pub context: Context,
    /// `Gamma_t`.
    pub history: History,
}

/// One place of the vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Its name: part and quantity.
    pub name: &'static str,
    /// Its unit, after scaling.
    pub unit: &'static str,
}

const fn feature(name: &'static str, unit: &'static str) -> Feature {
    Feature { name, unit }
}

/// The dictionary of the vector. Places are never reused; new ones are added
/// at the end.
pub const FEATURES: [Feature; 48] = [
    feature("h.services", "count"),
    feature("h.healthy", "ratio of services"),
    feature("h.availability.mean", "ratio"),
    feature("h.availability.min", "ratio"),
    feature("h.latency_p50.max", "s"),
    feature("h.latency_p95.max", "s"),
    feature("h.latency_p99.max", "s"),
    feature("h.throughput.sum", "count"),
    feature("h.memory_resident.sum", "GiB"),
    feature("h.cpu_used.sum", "cores"),
    feature("h.cpu_busy", "ratio"),
    feature("h.cpu_pressure", "ratio"),
    feature("h.io_pressure", "ratio"),
    feature("h.memory_pressure", "ratio"),
    feature("h.memory_available", "GiB"),
    feature("h.disk_free", "GiB"),
    feature("omega.connected", "0 or 1"),
    feature("omega.backlog", "thousands"),
    feature("omega.dependencies", "count"),
    feature("omega.own_lag", "s"),
    feature("gamma.open.dead", "count"),
    feature("gamma.open.hung", "count"),
    feature("gamma.open.wrong_answers", "count"),
    feature("gamma.open.leaking", "count"),
    feature("gamma.open.not_starting", "count"),
    feature("gamma.recent.healed", "ratio of recent"),
    feature("gamma.recent.lasted.mean", "s"),
    feature("gamma.budget_left", "ratio"),
    feature("gamma.open.slow", "count"),
    feature("gamma.open.hogging", "count"),
    feature("gamma.open.data_full", "count"),
    feature("gamma.open.saturated", "count"),
    feature("gamma.open.leaking_descriptors", "count"),
    feature("gamma.open.foreseen", "count"),
    feature("h.temperature", "100 degrees Celsius"),
    feature("h.disk_busy.max", "ratio"),
    feature("h.net_load.max", "ratio"),
    feature("h.net_errors.sum", "thousands per second"),
    feature("h.battery_charge", "ratio"),
    feature("h.frequency_cap", "ratio"),
    feature("omega.request_rate.sum", "thousands per second"),
    feature("omega.data_volume.sum", "MiB per second"),
    feature("omega.failure_share.max", "ratio"),
    feature("omega.dependencies_up.min", "ratio"),
    feature("omega.connect_latency.max", "s"),
    feature("omega.third_party_trouble.max", "0 to 3"),
    feature("omega.broker_rtt", "s"),
    feature("omega.bandwidth.min", "MiB per second"),
];

/// The vector and its mask.
///
/// ```
/// # use homeostat_common::state::{FEATURES, Features};
/// # fn look(features: &Features) {
/// for ((feature, value), known) in FEATURES.iter().zip(features.values).zip(features.known) {
///     if known {
///         let _ = (feature.name, value, feature.unit);
///     }
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Features {
    /// Values, shape `[48]`, in the units of [`FEATURES`]; 0 where unknown.
    pub values: [f32; FEATURES.len()],
    /// Which values are known.
    pub known: [bool; FEATURES.len()],
}

const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;

impl State {
    /// The state as a vector for models.
    #[must_use]
    pub fn features(&self) -> Features {
        let health = &self.health;
        let around = &self.context.demand;
        let scaled = |reading: Reading<f64>, unit: f64| reading.fresh().map(|value| value / unit);
        let services = &health.services;
        let count = services.len() as f64;
        let healthy = services
            .iter()
            .filter(|service| service.state == ServiceState::Healthy)
            .count() as f64;
        let of = |pick: fn(&ServiceHealth) -> Reading<f64>| {
            services
                .iter()
                .filter_map(move |service| pick(service).fresh())
        };
        let availability = || of(|service| service.availability);
        let latency = |pick: fn(&ServiceHealth) -> Reading<f64>| {
            of(pick).reduce(f64::max).map(|ms| ms / 1000.0)
        };
        let recent = &self.history.recent;
        let ended = recent.len() as f64;
        let healed = recent
            .iter()
            .filter(|past| past.outcome == Outcome::Healed)
            .count() as f64;
        let lasted: f64 = recent.iter().map(|past| past.lasted.as_secs_f64()).sum();
        let [cpu, io, memory] = health.pressure;
        let open = |symptom| {
            let count = self.history.open.get(symptom_place(symptom));
            Some(f64::from(count.copied().unwrap_or(0)))
        };
        let found: [Option<f64>; FEATURES.len()] = [
            Some(count),
            (count > 0.0).then(|| healthy / count),
            mean(availability()),
            availability().reduce(f64::min),
            latency(|service| service.latency_ms[0]),
            latency(|service| service.latency_ms[1]),
            latency(|service| service.latency_ms[2]),
            sum(of(|service| service.throughput)),
            sum(of(|service| service.memory_resident)).map(|bytes| bytes / GIB),
            sum(of(|service| service.cpu_used)),
            health.cpu_busy.fresh(),
            cpu.fresh(),
            io.fresh(),
            memory.fresh(),
            health.memory_available.fresh().map(|bytes| bytes / GIB),
            health.disk_free.fresh().map(|bytes| bytes / GIB),
            Some(f64::from(u8::from(self.context.connected))),
            Some(self.context.backlog as f64 / 1000.0),
            Some(self.context.dependencies.len() as f64),
            Some(self.context.own_lag.as_secs_f64()),
            open(Symptom::Dead),
            open(Symptom::Hung),
            open(Symptom::WrongAnswers),
            open(Symptom::Leaking),
            open(Symptom::NotStarting),
            (ended > 0.0).then(|| healed / ended),
            (ended > 0.0).then(|| lasted / ended),
            Some(f64::from(self.history.budget_left.get())),
            // What somebody asked for is no trouble of the node.
            open(Symptom::Slow),
            open(Symptom::Hogging),
            open(Symptom::DataFull),
            open(Symptom::Saturated),
            open(Symptom::LeakingDescriptors),
            open(Symptom::Foreseen),
            scaled(health.parts.temperature, 100.0),
            scaled(health.parts.disk_busy, 1.0),
            scaled(health.parts.net_load, 1.0),
            scaled(health.parts.net_errors, 1000.0),
            scaled(health.parts.battery_charge, 1.0),
            scaled(health.parts.frequency_cap, 1.0),
            scaled(around.request_rate, 1000.0),
            scaled(around.data_volume, MIB),
            scaled(around.failure_share, 1.0),
            scaled(around.dependencies_up, 1.0),
            scaled(around.connect_latency_ms, 1000.0),
            scaled(around.third_party_trouble, 1.0),
            scaled(around.broker_rtt_ms, 1000.0),
            scaled(around.bandwidth, MIB),
        ];
        Features {
            values: found.map(|value| narrow(value.unwrap_or(0.0))),
            known: found.map(|value| value.is_some()),
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn sum(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(|a, b| a + b)
}

/// Its place in [`History::open`].
#[must_use]
pub fn symptom_place(symptom: Symptom) -> usize {
    Symptom::ALL
        .iter()
        .position(|other| *other == symptom)
        .unwrap_or(0)
}

#[cfg(test)]
pub(crate) fn sample() -> State {
    use alloc::vec;
    let web = ServiceId::new("web").unwrap();
    let infer = ServiceId::new("infer").unwrap();
    State {
        health: Health {
            services: vec![
                ServiceHealth {
                    service: web.clone(),
                    state: ServiceState::Healthy,
                    availability: Reading::Fresh(1.0),
                    latency_ms: [
                        Reading::Fresh(0.25),
                        Reading::Fresh(0.5),
                        Reading::Fresh(2.0),
                    ],
                    throughput: Reading::Fresh(100.0),
                    memory_resident: Reading::Fresh(GIB / 4.0),
                    cpu_used: Reading::Fresh(0.5),
                },
                ServiceHealth {
                    service: infer.clone(),
                    state: ServiceState::Down,
                    availability: Reading::Missing,
                    latency_ms: [Reading::Missing; 3],
                    throughput: Reading::Missing,
                    memory_resident: Reading::Missing,
                    cpu_used: Reading::Missing,
                },
            ],
            cpu_busy: Reading::Fresh(0.25),
            pressure: [Reading::Fresh(0.125), Reading::Missing, Reading::Fresh(0.0)],
            memory_available: Reading::Fresh(2.0 * GIB),
            disk_free: Reading::Stale {
                last: GIB,
                age: Millis::secs(60),
            },
            parts: Box::new(Parts {
                temperature: Reading::Fresh(61.5),
                disk_busy: Reading::Fresh(0.5),
                net_load: Reading::Missing,
                net_errors: Reading::Fresh(0.0),
                battery_charge: Reading::Missing,
                frequency_cap: Reading::Fresh(0.75),
            }),
        },
        context: Context {
            connected: false,
            backlog: 500,
            dependencies: vec![(web, infer.clone())],
            own_lag: Millis(20),
            demand: Box::new(Demand {
                request_rate: Reading::Fresh(250.0),
                data_volume: Reading::Fresh(MIB / 2.0),
                failure_share: Reading::Stale {
                    last: 0.25,
                    age: Millis::secs(30),
                },
                dependencies_up: Reading::Fresh(1.0),
                connect_latency_ms: Reading::Fresh(2.0),
                third_party_trouble: Reading::Missing,
                broker_rtt_ms: Reading::Fresh(4.0),
                bandwidth: Reading::Fresh(12.5 * MIB),
            }),
        },
        history: History {
            recent: vec![Past {
                service: infer,
                fault: Fault::Crash,
                outcome: Outcome::Healed,
                lasted: Millis(500),
                cost: 0.02,
            }],
            outcomes: [1, 0, 0, 0, 0],
            open: vec![1, 0, 0, 0, 0, 0, 0, 2, 0, 0],
            budget_left: Ratio::saturating(0.75),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    /// The golden vector: a changed place or scale would silently break every
    /// model that was trained on it.
    #[test]
    fn the_vector_has_not_moved() {
        let features = sample().features();
        let lines: String = FEATURES
            .iter()
            .zip(features.values)
            .zip(features.known)
            .map(|((feature, value), known)| {
                let shown = if known {
                    format!("{value}")
                } else {
                    "-".into()
                };
                format!("{} = {shown} {}\n", feature.name, feature.unit)
            })
            .collect();
        expect_test::expect![[r#"
            h.services = 2 count
            h.healthy = 0.5 ratio of services
            h.availability.mean = 1 ratio
            h.availability.min = 1 ratio
            h.latency_p50.max = 0.00025 s
            h.latency_p95.max = 0.0005 s
            h.latency_p99.max = 0.002 s
            h.throughput.sum = 100 count
            h.memory_resident.sum = 0.25 GiB
            h.cpu_used.sum = 0.5 cores
            h.cpu_busy = 0.25 ratio
            h.cpu_pressure = 0.125 ratio
            h.io_pressure = - ratio
            h.memory_pressure = 0 ratio
            h.memory_available = 2 GiB
            h.disk_free = - GiB
            omega.connected = 0 0 or 1
            omega.backlog = 0.5 thousands
            omega.dependencies = 1 count
            omega.own_lag = 0.02 s
            gamma.open.dead = 1 count
            gamma.open.hung = 0 count
            gamma.open.wrong_answers = 0 count
            gamma.open.leaking = 0 count
            gamma.open.not_starting = 0 count
            gamma.recent.healed = 1 ratio of recent
            gamma.recent.lasted.mean = 0.5 s
            gamma.budget_left = 0.75 ratio
            gamma.open.slow = 0 count
            gamma.open.hogging = 0 count
            gamma.open.data_full = 2 count
            gamma.open.saturated = 0 count
            gamma.open.leaking_descriptors = 0 count
            gamma.open.foreseen = 0 count
            h.temperature = 0.615 100 degrees Celsius
            h.disk_busy.max = 0.5 ratio
            h.net_load.max = - ratio
            h.net_errors.sum = 0 thousands per second
            h.battery_charge = - ratio
            h.frequency_cap = 0.75 ratio
            omega.request_rate.sum = 0.25 thousands per second
            omega.data_volume.sum = 0.5 MiB per second
            omega.failure_share.max = - ratio
            omega.dependencies_up.min = 1 ratio
            omega.connect_latency.max = 0.002 s
            omega.third_party_trouble.max = - 0 to 3
            omega.broker_rtt = 0.004 s
            omega.bandwidth.min = 12.5 MiB per second
        "#]]
        .assert_eq(&lines);
    }

    #[test]
    fn nothing_known_is_not_the_same_as_all_zero() {
        let mut state = sample();
        state.health.services.clear();
        let features = state.features();
        assert_eq!(features.values[2], 0.0);
        assert!(!features.known[2]);
    }
}
