//! Sense: from what was measured to `O_t` and `s_t`.
//!
//! In: the last samples of host and services. Out: readings with every absence
//! named ([`host_readings`], [`service_readings`]), and the node's state
//! `[H, Omega, Gamma]` ([`health`], [`context`]). Judges nothing.

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Metric, MetricReading, Reading};
use homeostat_common::state::{Context, Health, ServiceHealth};
use homeostat_common::units::{Bytes, Micros, Millis, Ratio};

use crate::control::HostSample;
use crate::service::Watched;

/// The host's part of `M_t`.
#[must_use]
pub fn host_readings(host: &HostSample, own_lag: Millis) -> Vec<MetricReading> {
    [
        (Metric::CpuBusy, share(host.cpu_busy)),
        (Metric::CpuPressure, share(host.cpu_pressure)),
        (Metric::IoPressure, share(host.io_pressure)),
        (Metric::MemoryPressure, share(host.memory_pressure)),
        (Metric::MemoryAvailable, bytes(host.memory_available)),
        (Metric::DiskFree, bytes(host.disk_free)),
        (Metric::InodesFree, host.inodes_free.map(|n| n as f64)),
        (Metric::OwnLag, Reading::Fresh(own_lag.0 as f64)),
        (Metric::OwnResident, bytes(host.own.resident)),
        (Metric::OwnCpu, host.own.cpu.map(f64::from)),
        (Metric::Backlog, Reading::Fresh(host.backlog as f64)),
        (
            Metric::Temperature,
            host.heat.map(|heat| f64::from(heat.degrees)),
        ),
    ]
    .into_iter()
    .map(|(metric, reading)| MetricReading {
        metric,
        service: None,
        reading,
    })
    .collect()
}

/// One service's part of `M_t`.
#[must_use]
pub fn service_readings(watched: &Watched, now: Micros) -> Vec<MetricReading> {
    let health = service_health(watched, now);
    let [p50, p95, p99] = health.latency_ms;
    [
        (Metric::MemoryResident, health.memory_resident),
        (Metric::CpuUsed, health.cpu_used),
        (
            Metric::Descriptors,
            watched.sample.descriptors.map(|n| n as f64),
        ),
        (Metric::Threads, watched.sample.threads.map(|n| n as f64)),
        (Metric::LatencyP50, p50),
        (Metric::LatencyP95, p95),
        (Metric::LatencyP99, p99),
        (Metric::Availability, health.availability),
        (Metric::Throughput, health.throughput),
    ]
    .into_iter()
    .map(|(metric, reading)| MetricReading {
        metric,
        service: Some(watched.policy.id.clone()),
        reading,
    })
    .collect()
}

/// `H_t`.
pub fn health<'w>(
    host: &HostSample,
    services: impl Iterator<Item = &'w Watched>,
    now: Micros,
) -> Health {
    Health {
        services: services
            .map(|watched| service_health(watched, now))
            .collect(),
        cpu_busy: share(host.cpu_busy),
        pressure: [
            share(host.cpu_pressure),
            share(host.io_pressure),
            share(host.memory_pressure),
        ],
        memory_available: bytes(host.memory_available),
        disk_free: bytes(host.disk_free),
    }
}

/// `Omega_t`.
pub fn context<'w>(
    host: &HostSample,
    services: impl Iterator<Item = &'w Watched>,
    connected: bool,
    own_lag: Millis,
) -> Context {
    let needs = |watched: &'w Watched| -> Vec<(ServiceId, ServiceId)> {
        let id = &watched.policy.id;
        let needs = watched.policy.depends_on.iter();
        needs.map(|need| (id.clone(), need.clone())).collect()
    };
    Context {
        connected,
        backlog: host.backlog,
        dependencies: services.flat_map(needs).collect(),
        own_lag,
    }
}

fn service_health(watched: &Watched, now: Micros) -> ServiceHealth {
    let level = watched.service_level();
    let latency = |place: usize| {
        let found = level.and_then(|level| level.latency_ms.get(place).copied().flatten());
        Reading::from(found)
    };
    ServiceHealth {
        service: watched.policy.id.clone(),
        state: watched.state(now),
        availability: Reading::from(level.map(|level| level.availability)),
        latency_ms: [latency(0), latency(1), latency(2)],
        throughput: Reading::from(level.map(|level| level.answered as f64)),
        memory_resident: bytes(watched.sample.resident),
        cpu_used: watched.sample.cpu.map(f64::from),
    }
}

fn share(reading: Reading<Ratio>) -> Reading<f64> {
    reading.map(|ratio| f64::from(ratio.get()))
}

fn bytes(reading: Reading<Bytes>) -> Reading<f64> {
    reading.map(|bytes| bytes.0 as f64)
}
