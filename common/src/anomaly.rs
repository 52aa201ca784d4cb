//! What looks wrong ([`Anomaly`]) and what is believed to be behind it
//! ([`Diagnosis`]).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::ServiceId;
use crate::units::{Micros, Ratio};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody who saw it end could say; it was another process's child.
    Unknown,
    /// Killed by the kernel, because memory had run out.
    OutOfMemory,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown status"),
            Self::OutOfMemory => f.write_str("killed by the kernel for memory"),
        }
    }
}

/// What is wrong with a service, as far as it can be seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Symptom {
    /// Its process is gone.
    Dead,
    /// Its process lives, but answers no probe.
    Hung,
    /// It answers, but wrongly.
    WrongAnswers,
    /// Its memory grows towards its limit.
    Leaking,
    /// It was started and never became healthy.
    NotStarting,
    /// It answers, and far more slowly than its peers behind the same route.
    Slow,
    /// It uses more processor than it may.
    Hogging,
    /// Its data fill the room that they may fill.
    DataFull,
    /// A gauge of its own stands above its bound.
    Saturated,
    /// Nothing: somebody asked for a plan.
    Requested,
    /// Its open descriptors grow towards the limit that the kernel holds it to.
    LeakingDescriptors,
    /// Nothing yet: what grows will reach its limit.
    Foreseen,
}

impl Symptom {
    /// Every symptom.
    pub const ALL: [Self; 12] = [
        Self::Dead,
        Self::Hung,
        Self::WrongAnswers,
        Self::Leaking,
        Self::NotStarting,
        Self::Slow,
        Self::Hogging,
        Self::DataFull,
        Self::Saturated,
        Self::Requested,
        Self::LeakingDescriptors,
        Self::Foreseen,
    ];
}

impl fmt::Display for Symptom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dead => "dead",
            Self::Hung => "hung",
            Self::WrongAnswers => "wrong-answers",
            Self::Leaking => "leaking",
            Self::NotStarting => "not-starting",
            Self::Slow => "slow",
            Self::Hogging => "hogging",
            Self::DataFull => "data-full",
            Self::Saturated => "saturated",
            Self::Requested => "requested",
            Self::LeakingDescriptors => "leaking-descriptors",
            Self::Foreseen => "foreseen",
        })
    }
}

/// One thing that looks wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Where.
    pub service: ServiceId,
    /// What.
    pub symptom: Symptom,
    /// When the first sign of it was seen.
    pub since: Micros,
    /// How sure the detector is.
    pub score: Ratio,
    /// What the detector saw, for people.
    pub evidence: String,
}

/// What is believed to be behind the anomalies of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The process died and nothing says why: start it again.
    Crash,
    /// The process blocks or spins.
    Hang,
    /// Memory is taken and not given back.
    MemoryLeak,
    /// What stands in the model's slot is no whole version: damaged in place.
    ModelCorrupt,
    /// The answers are wrong although the model is the one that worked.
    WrongAnswers,
    /// It does not come up.
    StartFailure,
    /// The model in its slot is another one than the last that worked.
    BadModel,
    /// The configuration in its slot is another one than the last that worked.
    BadConfig,
    /// One replica of several has become slow.
    SlowReplica,
    /// The process spins.
    CpuHog,
    /// Old data were not cleared away.
    DataFull,
    /// It cannot keep up, by its own account.
    Saturation,
    /// None: somebody asked for a plan.
    Request,
    /// Files or sockets are opened and not closed again.
    DescriptorLeak,
    /// The node gets hotter than it may.
    Overheating,
    /// A certificate will not be valid any more.
    CertificateExpiry,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 16] = [
        Self::Crash,
        Self::Hang,
        Self::MemoryLeak,
        Self::ModelCorrupt,
        Self::WrongAnswers,
        Self::StartFailure,
        Self::BadModel,
        Self::BadConfig,
        Self::SlowReplica,
        Self::CpuHog,
        Self::DataFull,
        Self::Saturation,
        Self::Request,
        Self::DescriptorLeak,
        Self::Overheating,
        Self::CertificateExpiry,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::MemoryLeak => "memory-leak",
            Self::ModelCorrupt => "model-corrupt",
            Self::WrongAnswers => "wrong-answers",
            Self::StartFailure => "start-failure",
            Self::BadModel => "bad-model",
            Self::BadConfig => "bad-config",
            Self::SlowReplica => "slow-replica",
            Self::CpuHog => "cpu-hog",
            Self::DataFull => "data-full",
            Self::Saturation => "saturation",
            Self::Request => "request",
            Self::DescriptorLeak => "descriptor-leak",
            Self::Overheating => "overheating",
            Self::CertificateExpiry => "certificate-expiry",
        })
    }
}

/// A suspected root with the reasons for suspecting it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The service at the root.
    pub service: ServiceId,
    /// What is wrong with it.
    pub fault: Fault,
    /// How sure.
    pub confidence: Ratio,
    /// In words, strongest first.
    pub evidence: Vec<String>,
}
