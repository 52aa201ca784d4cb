//! JSON for people and tools: what an operator sees with any MQTT client.
//!
//! Nothing is computed from these by the coordinator; the truth travels on
//! `up/{stream}`.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::body::{ClockQuality, ServiceState, Severity};
use crate::ids::{BootId, Instance, ModelVersion, NodeId, ServiceId, SiteId, StreamId};

/// `status`: birth, and the last will with `online: false`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether the agent is connected.
    pub online: bool,
    /// The node.
    pub node: NodeId,
    /// The kernel's boot.
    pub boot: BootId,
    /// The node's stream; records are on `up/{stream}`.
    pub stream: StreamId,
    /// Connections since the agent started.
    pub birth: u64,
    /// Program version.
    pub version: String,
    /// Whether wall time can be believed.
    pub clock: ClockQuality,
    /// Every event up to here was acknowledged by a coordinator and is gone
    /// here. A coordinator with another database need not wait for them.
    #[serde(default)]
    pub acked: u64,
}

/// `meta`: what the node is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The node.
    pub node: NodeId,
    /// Its site.
    pub site: SiteId,
    /// Its services.
    pub services: Vec<MetaService>,
    /// Names of the primitives it can execute.
    pub primitives: Vec<String>,
    /// Metric dictionary: name and unit, by number.
    pub metrics: Vec<(String, String)>,
}

/// A service in [`Meta`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaService {
    /// Its name.
    pub service: ServiceId,
    /// How far the agent goes with it by itself.
    #[serde(default)]
    pub mode: String,
    /// Whether the agent may act on it.
    pub acts: bool,
    /// How much it matters.
    pub criticality: String,
    /// What it needs.
    pub depends_on: Vec<ServiceId>,
}

/// `ext`: alarms of other systems about the node, as the coordinator knows them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outside {
    /// Those that stand, the gravest first.
    pub alarms: Vec<OutsideAlarm>,
    /// How many more there are.
    #[serde(default)]
    pub left_out: u32,
}

/// One alarm of another system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideAlarm {
    /// The system and what that calls it, such as `alertmanager:HighLatency`.
    pub alarm: String,
    /// The service it concerns, as far as that is known.
    pub service: Option<ServiceId>,
    /// How urgent.
    pub severity: Severity,
    /// What a person should know.
    pub text: String,
}

/// Most alarms in [`Outside`]: as many as fit into an observation beside its own.
pub const OUTSIDE_MAX: usize = 32;

/// `svc/{service}/health`: expires after three intervals, so a stale health
/// disappears.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceHealth {
    /// The service.
    pub service: ServiceId,
    /// What it does.
    pub state: ServiceState,
    /// The present life.
    pub instance: Option<Instance>,
    /// Probes answered rightly and in time, of those sent; absent without any.
    pub availability: Option<f64>,
    /// Median time to answer, in milliseconds.
    pub latency_p50_ms: Option<f64>,
    /// 95th percentile, in milliseconds.
    pub latency_p95_ms: Option<f64>,
    /// Resident memory in bytes.
    pub memory_resident: Option<f64>,
    /// Cores in use.
    pub cpu_used: Option<f64>,
    /// The model that answered its last inference probe, by its own account.
    #[serde(default)]
    pub model: Option<ModelVersion>,
    /// How sure that model was of a known input, `0.0..=1.0`.
    #[serde(default)]
    pub confidence: Option<f32>,
    /// Seconds until another healing is allowed, when a hold or a quarantine
    /// forbids it now.
    pub held_for_s: Option<f64>,
}

/// `cmd/{kind}/{id}`: a request to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Milliseconds since 1970 after which it must not be answered.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
}

/// `res/{kind}/{id}`: the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Reply<T> {
    /// Done.
    Ok {
        /// What was asked for.
        value: T,
    },
    /// Not done, on purpose.
    Refused {
        /// Why.
        reason: String,
    },
}

/// `_coord/status`: whether a coordinator listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorStatus {
    /// `false` in its last will.
    pub online: bool,
    /// Program version.
    pub version: String,
}
