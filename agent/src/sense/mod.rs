//! Sense: from what was measured to `O_t` and `s_t`.
//!
//! In: the last samples of host and services. Out: readings with every absence
//! named ([`host_readings`], [`service_readings`]), and the node's state
//! `[H, Omega, Gamma]` ([`health`], [`context`]). Judges nothing.

pub mod page;
pub mod quality;

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Metric, MetricReading, Reading};
use homeostat_common::state::{Context, Demand, Health, Parts, ServiceHealth};
use homeostat_common::units::{Bytes, Micros, Millis, Ratio};

use crate::control::HostSample;
use crate::service::{ProcessSample, Watched};

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
    .map(|(metric, reading)| MetricReading::node(metric, reading))
    .chain(host.sources.iter().map(|source| source.reading.clone()))
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
        (Metric::RunDelay, share(watched.sample.run_delay)),
        (Metric::DescriptorsUsed, used(&watched.sample)),
        (Metric::DataHeld, bytes(watched.data_used)),
        (Metric::LatencyP50, p50),
        (Metric::LatencyP95, p95),
        (Metric::LatencyP99, p99),
        (Metric::Availability, health.availability),
        (Metric::Throughput, health.throughput),
    ]
    .into_iter()
    .map(|(metric, reading)| MetricReading::service(metric, watched.policy.id.clone(), reading))
    .collect()
}

/// Combines what all parts say of a metric: fresh if one of them is.
fn over(
    readings: &[MetricReading],
    metrics: &[Metric],
    combine: fn(f64, f64) -> f64,
) -> Reading<f64> {
    let of = readings.iter().filter(|one| metrics.contains(&one.metric));
    let parts = || of.clone().map(|one| one.reading);
    let fresh = parts().filter_map(Reading::fresh).reduce(combine);
    match fresh {
        Some(value) => Reading::Fresh(value),
        // The youngest of those that have fallen silent.
        None => parts()
            .filter(|reading| *reading != Reading::Missing)
            .min_by_key(|reading| match reading {
                Reading::Stale { age, .. } => *age,
                _ => Millis(0),
            })
            .unwrap_or_default(),
    }
}

/// `H_t`; `readings` are those of the same moment.
pub fn health<'w>(
    host: &HostSample,
    readings: &[MetricReading],
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
        parts: Box::new(Parts {
            temperature: host.heat.map(|heat| f64::from(heat.degrees)),
            disk_busy: over(readings, &[Metric::DiskBusy], f64::max),
            net_load: over(readings, &[Metric::NetLoad], f64::max),
            net_errors: over(readings, &[Metric::NetErrors, Metric::NetDrops], sum),
            battery_charge: over(readings, &[Metric::BatteryCharge], f64::min),
            frequency_cap: over(readings, &[Metric::CpuFrequencyCap], f64::min),
        }),
    }
}

fn sum(one: f64, other: f64) -> f64 {
    one + other
}

/// `Omega_t`; `readings` are those of the same moment.
pub fn context<'w>(
    host: &HostSample,
    readings: &[MetricReading],
    services: impl Iterator<Item = &'w Watched>,
    connected: bool,
    own_lag: Millis,
) -> Context {
    let needs = |watched: &'w Watched| -> Vec<(ServiceId, ServiceId)> {
        let id = &watched.policy.id;
        let needs = watched.policy.depends_on.iter();
        needs.map(|need| (id.clone(), need.clone())).collect()
    };
    // Services have an availability too.
    let elsewhere = readings.iter().filter(|one| one.service.is_none());
    let elsewhere: Vec<MetricReading> = elsewhere.cloned().collect();
    Context {
        connected,
        backlog: host.backlog,
        dependencies: services.flat_map(needs).collect(),
        own_lag,
        demand: Box::new(Demand {
            request_rate: over(readings, &[Metric::RequestRate], sum),
            data_volume: over(readings, &[Metric::NetReceived, Metric::NetSent], sum),
            failure_share: over(readings, &[Metric::FailureShare], f64::max),
            dependencies_up: over(&elsewhere, &[Metric::Availability], f64::min),
            connect_latency_ms: over(readings, &[Metric::ConnectLatency], f64::max),
            third_party_trouble: over(readings, &[Metric::ThirdPartyTrouble], f64::max),
            broker_rtt_ms: over(readings, &[Metric::BrokerRtt], f64::max),
            bandwidth: over(readings, &[Metric::NetSpeed], f64::min),
        }),
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

/// Share of the descriptors that a process may have.
fn used(sample: &ProcessSample) -> Reading<f64> {
    let limit = sample.descriptor_limit.fresh().filter(|limit| *limit > 0);
    match limit {
        Some(limit) => sample.descriptors.map(|open| open as f64 / limit as f64),
        None => Reading::Missing,
    }
}

fn share(reading: Reading<Ratio>) -> Reading<f64> {
    reading.map(|ratio| f64::from(ratio.get()))
}

fn bytes(reading: Reading<Bytes>) -> Reading<f64> {
    reading.map(|bytes| bytes.0 as f64)
}

#[cfg(test)]
mod tests {
    use homeostat_common::observation::Part;

    use super::*;

    #[test]
    fn parts_make_a_whole_that_is_fresh_if_one_of_them_is() {
        let link = |name: &str, reading| {
            MetricReading::part(Metric::NetLoad, Part::new(name).unwrap(), reading)
        };
        let stale = |last, secs| Reading::Stale {
            last,
            age: Millis::secs(secs),
        };
        let of = |readings: &[MetricReading]| over(readings, &[Metric::NetLoad], f64::max);
        assert_eq!(of(&[]), Reading::Missing);
        assert_eq!(of(&[link("a", Reading::Missing)]), Reading::Missing);
        let silent = [link("a", stale(0.9, 9)), link("b", stale(0.1, 3))];
        assert_eq!(of(&silent), stale(0.1, 3));
        let mixed = [
            link("a", stale(0.9, 9)),
            link("b", Reading::Fresh(0.2)),
            link("c", Reading::Fresh(0.3)),
        ];
        assert_eq!(of(&mixed), Reading::Fresh(0.3));
    }
}
