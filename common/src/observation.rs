//! What a node saw in one window: `O_t = {L_t, M_t, A_t}` (PASE 3.1).
//!
//! Logs are counted templates, never raw text; metrics are readings that say
//! when they are stale or absent; alarms are conditions that hold now. A source
//! that is absent is [`Reading::Missing`], never 0.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, ServiceId};
use crate::units::{Micros, Millis};

/// A measured value, or an honest account of why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading<T> {
    /// Measured within the present window.
    Fresh(T),
    /// The source fell silent; this is what it said last.
    Stale {
        /// The last value.
        last: T,
        /// How long ago that was.
        age: Millis,
    },
    /// The source does not exist here, or never answered.
    #[default]
    Missing,
}

impl<T: Copy> Reading<T> {
    /// The value, only if it belongs to the present window.
    pub fn fresh(self) -> Option<T> {
        match self {
            Self::Fresh(value) => Some(value),
            Self::Stale { .. } | Self::Missing => None,
        }
    }

    /// The same reading of another type.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Fresh(value) => Reading::Fresh(f(value)),
            Self::Stale { last, age } => Reading::Stale { last: f(last), age },
            Self::Missing => Reading::Missing,
        }
    }
}

impl<T> From<Option<T>> for Reading<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Missing, Self::Fresh)
    }
}

/// What a metric measures. The number is its place in the wire format and is
/// never reused; [`Metric::unit`] is its unit everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Metric {
    /// Share of all cores that was busy.
    CpuBusy = 0,
    /// Share of wall time in which some task waited for a core (PSI).
    CpuPressure = 1,
    /// Share of wall time in which some task waited for IO (PSI).
    IoPressure = 2,
    /// Share of wall time in which some task waited for memory (PSI).
    MemoryPressure = 3,
    /// Memory that could be had without swapping.
    MemoryAvailable = 4,
    /// Free space where the agent keeps its data.
    DiskFree = 5,
    /// Free inodes where the agent keeps its data.
    InodesFree = 6,
    /// Resident memory of a service.
    MemoryResident = 7,
    /// Cores that a service used.
    CpuUsed = 8,
    /// Open file descriptors of a service.
    Descriptors = 9,
    /// Threads of a service.
    Threads = 10,
    /// Time from a probe's start to its answer, median of the window.
    LatencyP50 = 11,
    /// The same, 95th percentile.
    LatencyP95 = 12,
    /// The same, 99th percentile.
    LatencyP99 = 13,
    /// Probes answered rightly and in time, of those sent.
    Availability = 14,
    /// Probes answered in the window.
    Throughput = 15,
    /// How late the agent's own timer was, worst of the window.
    OwnLag = 16,
    /// Resident memory of the agent itself.
    OwnResident = 17,
    /// Cores that the agent itself used.
    OwnCpu = 18,
    /// Events in the outbox that nobody acknowledged yet.
    Backlog = 19,
    /// Of the part of the node that is closest to its limit.
    Temperature = 20,
}

impl Metric {
    /// Every metric, in wire order.
    pub const ALL: [Self; 21] = [
        Self::CpuBusy,
        Self::CpuPressure,
        Self::IoPressure,
        Self::MemoryPressure,
        Self::MemoryAvailable,
        Self::DiskFree,
        Self::InodesFree,
        Self::MemoryResident,
        Self::CpuUsed,
        Self::Descriptors,
        Self::Threads,
        Self::LatencyP50,
        Self::LatencyP95,
        Self::LatencyP99,
        Self::Availability,
        Self::Throughput,
        Self::OwnLag,
        Self::OwnResident,
        Self::OwnCpu,
        Self::Backlog,
        Self::Temperature,
    ];

    /// The metric at a place of the wire format.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its name in topics, `/metrics` and on the page.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuBusy => "cpu_busy",
            Self::CpuPressure => "cpu_pressure",
            Self::IoPressure => "io_pressure",
            Self::MemoryPressure => "memory_pressure",
            Self::MemoryAvailable => "memory_available",
            Self::DiskFree => "disk_free",
            Self::InodesFree => "inodes_free",
            Self::MemoryResident => "memory_resident",
            Self::CpuUsed => "cpu_used",
            Self::Descriptors => "descriptors",
            Self::Threads => "threads",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP95 => "latency_p95",
            Self::LatencyP99 => "latency_p99",
            Self::Availability => "availability",
            Self::Throughput => "throughput",
            Self::OwnLag => "own_lag",
            Self::OwnResident => "own_resident",
            Self::OwnCpu => "own_cpu",
            Self::Backlog => "backlog",
            Self::Temperature => "temperature",
        }
    }

    /// Its unit.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::CpuBusy
            | Self::CpuPressure
            | Self::IoPressure
            | Self::MemoryPressure
            | Self::Availability => "ratio",
            Self::MemoryAvailable | Self::DiskFree | Self::MemoryResident | Self::OwnResident => {
                "bytes"
            }
            Self::CpuUsed | Self::OwnCpu => "cores",
            Self::LatencyP50 | Self::LatencyP95 | Self::LatencyP99 | Self::OwnLag => "ms",
            Self::InodesFree
            | Self::Descriptors
            | Self::Threads
            | Self::Throughput
            | Self::Backlog => "count",
            Self::Temperature => "celsius",
        }
    }
}

/// How bad a log line says it is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Level {
    Debug,
    #[default]
    Info,
    Warning,
    Error,
}

/// One entry of `L_t`: lines of one template in the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCount {
    /// The service that wrote them.
    pub service: ServiceId,
    /// Stable id of the template.
    pub template: u64,
    /// The template: the line with its variable parts masked.
    pub text: String,
    /// The worst level among them.
    pub level: Level,
    /// Lines in the window.
    pub count: u32,
}

/// One entry of `M_t`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricReading {
    /// What was measured.
    pub metric: Metric,
    /// The service it concerns; `None` for the node.
    pub service: Option<ServiceId>,
    /// In [`Metric::unit`].
    pub reading: Reading<f64>,
}

/// One entry of `A_t`: a condition that holds now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlarmReading {
    /// Its name, unique on the node.
    pub alarm: String,
    /// The service it concerns; `None` for the node.
    pub service: Option<ServiceId>,
    /// What a person should know.
    pub text: String,
}

/// `O_t`: everything that was seen in one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Who saw it.
    pub node: NodeId,
    /// Start of the window on the node's monotonic clock.
    pub from: Micros,
    /// End of the window.
    pub to: Micros,
    /// `L_t`.
    pub logs: Vec<LogCount>,
    /// `M_t`.
    pub metrics: Vec<MetricReading>,
    /// `A_t`.
    pub alarms: Vec<AlarmReading>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_again_by_its_number() {
        for metric in Metric::ALL {
            assert_eq!(Metric::from_number(metric as u8), Some(metric));
        }
        assert_eq!(Metric::from_number(21), None);
    }

    #[test]
    fn only_a_fresh_reading_counts_as_a_value() {
        assert_eq!(Reading::Fresh(3).fresh(), Some(3));
        let stale = Reading::Stale {
            last: 3,
            age: Millis(5),
        };
        assert_eq!(stale.fresh(), None);
        assert_eq!(Reading::<i32>::from(None), Reading::Missing);
    }
}
