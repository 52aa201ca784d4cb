//! What is measured on nodes and replicas, with the noise of measuring.

use homeostat_common::observation::Metric;

use super::look::{MB, Noise};
use crate::queue::{self, Time, p95};
use crate::topology::Topology;
use crate::world::Phase;
use crate::world::state::State;

/// Apart for the draws of one gauge: more than gauges of the largest topology.
pub(super) const NOISE: u64 = 1 << 20;

/// A probe that gets no answer within so many seconds has none.
const PROBE_S: f64 = 2.0;

/// What is measured on a node, in this order.
pub(super) const METRICS_NODE: [Metric; 9] = [
    Metric::CpuBusy,
    Metric::CpuPressure,
    Metric::IoPressure,
    Metric::MemoryPressure,
    Metric::MemoryAvailable,
    Metric::DiskFree,
    Metric::InodesFree,
    Metric::OwnLag,
    Metric::Temperature,
];

/// What is measured on a replica, in this order.
pub(super) const METRICS_REPLICA: [Metric; 8] = [
    Metric::MemoryResident,
    Metric::CpuUsed,
    Metric::Descriptors,
    Metric::Threads,
    Metric::LatencyP50,
    Metric::LatencyP95,
    Metric::Availability,
    Metric::Throughput,
];

/// All that one look measured; not a number where there is nothing to measure.
#[derive(Debug, Clone)]
pub(super) struct Gauges {
    /// First those of all nodes, then those of all replicas.
    pub(super) values: Vec<f64>,
}

impl Gauges {
    pub(super) fn measure(topology: &Topology, state: &State, noise: &mut Noise) -> Self {
        let nodes = topology.nodes().len() * METRICS_NODE.len();
        let replicas = topology.replicas().len() * METRICS_REPLICA.len();
        let mut values = Vec::with_capacity(nodes + replicas);
        for (node, now) in topology.nodes().iter().zip(&state.nodes) {
            let over = (1.0 - node.cores / now.load.max(1e-9)).clamp(0.0, 1.0);
            let waiting = (1.0 - 1.0 / now.burden.io.max(1.0)).clamp(0.0, 1.0);
            let crowded = ((now.memory_mb / node.memory_mb - 0.85) / 0.15).clamp(0.0, 1.0);
            values.extend([
                noise.about(now.util, 0.03).min(1.0),
                noise.share(0.02 + 0.96 * over, 50.0),
                noise.share(0.02 + 0.6 * waiting, 50.0),
                noise.share(0.9 * crowded * crowded, 50.0),
                noise.about((node.memory_mb - now.memory_mb).max(0.0), 0.02) * MB,
                (node.disk_mb - now.disk_mb).max(0.0) * MB,
                (node.inodes - now.inodes).max(0.0),
                // A timer is late when nobody gets a processor.
                noise.about(0.4 + 40.0 * over, 0.3),
                now.temp + 0.5 * noise.normal(),
            ]);
        }
        for (replica, now) in topology.replicas().iter().zip(&state.replicas) {
            let route = &topology.routes()[replica.route.at()];
            let alive = !matches!(now.phase, Phase::Dead | Phase::Standby);
            if !alive {
                values.extend([f64::NAN; METRICS_REPLICA.len() - 2]);
                values.extend([0.0, 0.0]);
                continue;
            }
            let answers = now.phase == Phase::Running;
            let time = Time {
                mean: now.own.mean * 1e3,
                variance: now.own.variance * 1e6,
            };
            let late = queue::later(now.own, PROBE_S);
            let right = if answers {
                (1.0 - now.fixed.err) * (1.0 - late)
            } else {
                0.0
            };
            let memory = route.memory_mb + now.leaked_mb + now.burden.ballast_mb;
            let latency = |value: f64, noise: &mut Noise| {
                if answers {
                    noise.about(value, 0.06)
                } else {
                    f64::NAN
                }
            };
            values.extend([
                noise.about(memory, 0.01) * MB,
                noise.about(route.cores * now.util + now.burden.spin, 0.04),
                now.fds,
                now.threads,
                latency(median(time), noise),
                latency(p95(time), noise),
                noise.share(right.clamp(0.0, 1.0), 40.0),
                noise.about(now.served, 0.03),
            ]);
        }
        Self { values }
    }
}

/// Median of a gamma distribution (Wilson and Hilferty 1931).
fn median(time: Time) -> f64 {
    if time.variance <= 0.0 || time.mean <= 0.0 {
        return time.mean.max(0.0);
    }
    let shape = time.mean * time.mean / time.variance;
    let root = (1.0 - 1.0 / (9.0 * shape)).max(0.0);
    time.mean * root * root * root
}
