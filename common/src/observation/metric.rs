//! What can be measured: every metric with its number, name, unit and nature, in one table.

use core::fmt;

use serde::de::{Error as DeError, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a metric behaves when nothing is wrong, for those who watch its course.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Always known where its source exists: silence is trouble of the source.
    Level,
    /// Only known while something happens: a disk without requests has no time to
    /// answer them. Stale then, and no trouble.
    Occasional,
    /// A sum that only grows, until the agent or the node starts again.
    Total,
}

macro_rules! metrics {
    ($($(#[$doc:meta])+ $number:literal $variant:ident $name:literal $unit:literal $nature:ident;)+) => {
        /// What a metric measures. The number is its place in the wire format and is
        /// never reused; [`Metric::unit`] is its unit everywhere.
        ///
        /// Up to 59 and from 100 on stands what a node knows of itself, its services and
        /// what surrounds it; between them what inference, logs and detectors tell.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Metric {
            $($(#[$doc])+ $variant = $number,)+
        }

        impl Metric {
            /// Every metric, in wire order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The metric of a number of the wire format.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The metric of a name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Its name in topics, `/metrics` and on the page.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Its unit.
            #[must_use]
            pub fn unit(self) -> &'static str {
                match self {
                    $(Self::$variant => $unit,)+
                }
            }

            /// How it behaves.
            #[must_use]
            pub fn nature(self) -> Nature {
                match self {
                    $(Self::$variant => Nature::$nature,)+
                }
            }
        }
    };
}

metrics! {
    /// Share of all cores that was busy.
    0 CpuBusy "cpu_busy" "ratio" Level;
    /// Share of wall time in which some task waited for a core (PSI).
    1 CpuPressure "cpu_pressure" "ratio" Level;
    /// Share of wall time in which some task waited for IO (PSI).
    2 IoPressure "io_pressure" "ratio" Level;
    /// Share of wall time in which some task waited for memory (PSI).
    3 MemoryPressure "memory_pressure" "ratio" Level;
    /// Memory that could be had without swapping.
    4 MemoryAvailable "memory_available" "bytes" Level;
    /// Free space where the agent keeps its data, or on the file system of the part.
    5 DiskFree "disk_free" "bytes" Level;
    /// Free inodes there.
    6 InodesFree "inodes_free" "count" Level;
    /// Resident memory of a service.
    7 MemoryResident "memory_resident" "bytes" Level;
    /// Cores that a service used.
    8 CpuUsed "cpu_used" "cores" Level;
    /// Open file descriptors of a service.
    9 Descriptors "descriptors" "count" Level;
    /// Threads of a service.
    10 Threads "threads" "count" Level;
    /// Time from a probe's start to its answer, median of the window.
    11 LatencyP50 "latency_p50" "ms" Occasional;
    /// The same, 95th percentile.
    12 LatencyP95 "latency_p95" "ms" Occasional;
    /// The same, 99th percentile.
    13 LatencyP99 "latency_p99" "ms" Occasional;
    /// Probes answered rightly and in time, of those sent: of a service, or of the
    /// dependency that is the part.
    14 Availability "availability" "ratio" Level;
    /// Probes answered in the window.
    15 Throughput "throughput" "count" Level;
    /// How late the agent's own timer was, worst of the window.
    16 OwnLag "own_lag" "ms" Level;
    /// Resident memory of the agent itself.
    17 OwnResident "own_resident" "bytes" Level;
    /// Cores that the agent itself used.
    18 OwnCpu "own_cpu" "cores" Level;
    /// Events in the outbox that nobody acknowledged yet.
    19 Backlog "backlog" "count" Level;
    /// Of the part of the node that is closest to its limit.
    20 Temperature "temperature" "celsius" Level;
    /// Share of all cores that was idle while a disk had requests of them.
    21 CpuIowait "cpu_iowait" "ratio" Level;
    /// Share of all cores that the hypervisor gave to others.
    22 CpuSteal "cpu_steal" "ratio" Level;
    /// Share of the busiest core that was busy.
    23 CpuCoreMax "cpu_core_max" "ratio" Level;
    /// Tasks that run or wait, averaged over a minute.
    24 Load "load" "count" Level;
    /// Clock of the processors, of the highest that they are built for; mean.
    25 CpuFrequency "cpu_frequency" "ratio" Level;
    /// The highest clock that is allowed now, of the highest that they are built for;
    /// lowest of all processors. Below 1 when the kernel cools the node, or a person said so.
    26 CpuFrequencyCap "cpu_frequency_cap" "ratio" Level;
    /// 1 while the hardware slows itself down.
    27 Throttled "throttled" "flag" Level;
    /// 1 while the supply gives less than the board needs.
    28 UnderVoltage "under_voltage" "flag" Level;
    /// Swap in use.
    29 SwapUsed "swap_used" "bytes" Level;
    /// Read back from swap.
    30 SwapIn "swap_in" "bytes_per_second" Level;
    /// Written to swap.
    31 SwapOut "swap_out" "bytes_per_second" Level;
    /// Processes that the kernel killed for memory.
    32 OomKills "oom_kills" "per_second" Level;
    /// Share of wall time in which all tasks waited for IO (PSI).
    34 IoPressureFull "io_pressure_full" "ratio" Level;
    /// Share of wall time in which all tasks waited for memory (PSI).
    35 MemoryPressureFull "memory_pressure_full" "ratio" Level;
    /// Worst `cpu_pressure` of the short looks within the window.
    36 CpuPressurePeak "cpu_pressure_peak" "ratio" Level;
    /// Worst `io_pressure` of them.
    37 IoPressurePeak "io_pressure_peak" "ratio" Level;
    /// Worst `memory_pressure` of them.
    38 MemoryPressurePeak "memory_pressure_peak" "ratio" Level;
    /// Read from a disk.
    39 DiskRead "disk_read" "bytes_per_second" Level;
    /// Written to a disk.
    40 DiskWritten "disk_written" "bytes_per_second" Level;
    /// Requests that a disk completed, reads and writes.
    41 DiskRequests "disk_requests" "per_second" Level;
    /// Share of wall time in which a disk had a request.
    42 DiskBusy "disk_busy" "ratio" Level;
    /// Mean time from a request to its completion by a disk, queue included.
    43 DiskAwait "disk_await" "ms" Occasional;
    /// Received through an interface.
    44 NetReceived "net_received" "bytes_per_second" Level;
    /// Sent through an interface.
    45 NetSent "net_sent" "bytes_per_second" Level;
    /// Packets through an interface, both ways.
    46 NetPackets "net_packets" "per_second" Level;
    /// Broken packets of an interface, both ways.
    47 NetErrors "net_errors" "per_second" Level;
    /// Packets that an interface dropped, both ways.
    48 NetDrops "net_drops" "per_second" Level;
    /// 1 while an interface has a link.
    49 NetCarrier "net_carrier" "flag" Level;
    /// What a link carries at most, one way.
    50 NetSpeed "net_speed" "bytes_per_second" Level;
    /// Share of that in use, of the busier way.
    51 NetLoad "net_load" "ratio" Level;
    /// Strength of a radio signal.
    52 RadioSignal "radio_signal" "dbm" Level;
    /// Strength of the noise beside it.
    53 RadioNoise "radio_noise" "dbm" Level;
    /// TCP segments that were sent again, of those sent.
    54 TcpRetransmits "tcp_retransmits" "ratio" Occasional;
    /// Sockets in use.
    55 Sockets "sockets" "count" Level;
    /// Share of the table of tracked connections in use.
    56 ConntrackUsed "conntrack_used" "ratio" Level;
    /// 1 while something keeps the wall clock right.
    57 ClockSynchronised "clock_synchronised" "flag" Level;
    /// Open files of the whole node.
    58 FilesOpen "files_open" "count" Level;
    /// Since the node's start.
    59 Uptime "uptime" "seconds" Total;
    /// Time that a model server says its answers take, median; lately.
    60 ServedLatencyP50 "served_latency_p50" "ms" Occasional;
    /// The same, 95th percentile.
    61 ServedLatencyP95 "served_latency_p95" "ms" Occasional;
    /// The same, 99th percentile.
    62 ServedLatencyP99 "served_latency_p99" "ms" Occasional;
    /// Errors, of the answers that a model server has counted since the last look.
    63 ServedErrors "served_errors" "ratio" Occasional;
    /// Answers that a model server counts.
    64 ServedRate "served_rate" "per_second" Level;
    /// Largest output of a model, mean of its last answers.
    65 Confidence "confidence" "ratio" Occasional;
    /// What nineteen of twenty of its last answers are surer than.
    66 ConfidenceLow "confidence_low" "ratio" Occasional;
    /// How far its confidence is from what it was (population stability index).
    67 ConfidenceShift "confidence_shift" "psi" Occasional;
    /// How far its inputs are from what they were; the input that is farthest.
    68 InputShift "input_shift" "psi" Occasional;
    /// Largest difference of its answers to known inputs from what they should be.
    69 GoldenError "golden_error" "difference" Occasional;
    /// Share of known inputs for which a twin of it chooses another class.
    70 Disagreement "disagreement" "ratio" Occasional;
    /// Lines that a service wrote to its logs; those of no service are the node's.
    80 LogLines "log_lines" "per_second" Level;
    /// Lines of level error among them.
    81 LogErrors "log_errors" "per_second" Level;
    /// Templates of lines that this node had never seen.
    82 LogNew "log_new" "count" Level;
    /// Charge of the emptiest battery.
    100 BatteryCharge "battery_charge" "ratio" Level;
    /// 1 while the node is supplied from outside.
    101 OnMains "on_mains" "flag" Level;
    /// What the node draws. Of a node that has but a battery to tell, only while it discharges.
    102 Power "power" "watts" Occasional;
    /// What the node has drawn since the agent's start.
    103 Energy "energy" "joules" Total;
    /// The agent's part of it, estimated by its share of the processor time.
    104 OwnEnergyEstimate "own_energy_estimate" "joules" Total;
    /// What the agent has had written to disks since its start.
    105 OwnWritten "own_written" "bytes" Total;
    /// Share of wall time in which a service stood still for its processor limit.
    106 CpuThrottled "cpu_throttled" "ratio" Level;
    /// Memory of a service's control group, page cache included.
    107 GroupMemory "group_memory" "bytes" Level;
    /// Share of the group's memory limit in use.
    108 GroupMemoryUsed "group_memory_used" "ratio" Level;
    /// Processes of the group that were killed for memory.
    109 GroupOomKills "group_oom_kills" "per_second" Level;
    /// Processes and threads in the group.
    110 GroupTasks "group_tasks" "count" Level;
    /// Cores that all of the group used.
    111 GroupCpu "group_cpu" "cores" Level;
    /// Share of wall time in which some task of the group waited for a core (PSI).
    112 GroupCpuPressure "group_cpu_pressure" "ratio" Level;
    /// The same for IO.
    113 GroupIoPressure "group_io_pressure" "ratio" Level;
    /// The same for memory.
    114 GroupMemoryPressure "group_memory_pressure" "ratio" Level;
    /// What a service read from disks; of its group, if it has one.
    115 ServiceRead "service_read" "bytes_per_second" Level;
    /// What it wrote.
    116 ServiceWritten "service_written" "bytes_per_second" Level;
    /// Share of wall time in which a service's main thread was ready and did not run.
    117 RunDelay "run_delay" "ratio" Level;
    /// Share of the open files that a service may have.
    118 DescriptorsUsed "descriptors_used" "ratio" Level;
    /// What a service's data folder holds.
    119 DataHeld "data_held" "bytes" Level;
    /// Requests that a backend of a route answered.
    120 RequestRate "request_rate" "per_second" Level;
    /// New connections of a route that ended in a failure of a backend, or found none.
    121 FailureShare "failure_share" "ratio" Occasional;
    /// Time to the first byte of a route's answers, median of the slowest backend.
    122 FirstByteP50 "first_byte_p50" "ms" Occasional;
    /// The same, 95th percentile.
    123 FirstByteP95 "first_byte_p95" "ms" Occasional;
    /// Open connections of a route.
    124 Connections "connections" "count" Level;
    /// Time to a connection with a dependency.
    125 ConnectLatency "connect_latency" "ms" Occasional;
    /// How bad a third party says it is: 0 none, 1 minor, 2 major, 3 critical.
    126 ThirdPartyTrouble "third_party_trouble" "level" Level;
    /// Time from a message to the broker's acknowledgement of it.
    127 BrokerRtt "broker_rtt" "ms" Occasional;
}

impl Metric {
    /// What a right reading lies between, both ends included: by its unit, wide enough for
    /// any machine that runs this, so that what lies outside was mismeasured.
    #[must_use]
    pub fn plausible(self) -> (f64, f64) {
        match self.unit() {
            "ratio" | "flag" => (0.0, 1.0),
            "level" => (0.0, 3.0),
            "cores" => (0.0, 4096.0),
            "celsius" => (-60.0, 150.0),
            "dbm" => (-150.0, 30.0),
            "watts" => (0.0, 1e5),
            "ms" => (0.0, 1e9),
            "seconds" | "per_second" => (0.0, 1e10),
            "bytes_per_second" | "joules" | "count" => (0.0, 1e12),
            "bytes" => (0.0, 1e18),
            _ => (f64::MIN, f64::MAX),
        }
    }

    /// By how much something limited wanders while nothing is wrong with it, in its unit: what
    /// usually stands at nothing shows no noise of its own to compare with.
    #[must_use]
    pub fn wanders(self) -> f64 {
        match (self, self.unit()) {
            // Of no unit that says what little is.
            (Self::ConfidenceShift | Self::InputShift, _) => 0.05,
            (_, "celsius" | "count") => 2.0,
            (_, "ms") => 5.0,
            (_, "bytes") => 1e6,
            (_, "bytes_per_second") => 1e4,
            (_, "per_second" | "level") => 0.5,
            _ => 0.02,
        }
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.serialize_str(self.name())
        } else {
            to.serialize_u8(*self as u8)
        }
    }
}

/// A metric that this version may not know.
pub(super) struct Named(pub(super) Option<Metric>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Option<Metric>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a metric")
            }
            fn visit_str<E: DeError>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Metric::from_name(text))
            }
        }
        if from.is_human_readable() {
            from.deserialize_str(Name).map(Self)
        } else {
            u8::deserialize(from).map(Metric::from_number).map(Self)
        }
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Named(metric) = Named::deserialize(from)?;
        metric.ok_or_else(|| D::Error::custom("a metric that this version does not know"))
    }
}
