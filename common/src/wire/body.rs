//! What an event says. A kind's number is never reused; fields are only added
//! by a new kind.

#[cfg(test)]
mod samples;

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(super) use self::samples::samples;
use super::{WireError, decode_whole, encode};
use crate::anomaly::{Exit, Fault, Symptom};
use crate::gate::Criticality;
use crate::ids::{BootId, IncidentId, Instance, PlanId, RouteId, ServiceId};
use crate::observation::{Observation, Part};
use crate::outcome::Outcome;
use crate::state::State;
use crate::suspect::{Component, Edge, Grade, Suspect, TellApart};
use crate::units::{Millis, narrow};

/// The agent started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Program version.
    pub version: String,
    /// The kernel's boot; another one than before means the node restarted.
    pub kernel: BootId,
    /// Whether the wall clock can be believed.
    pub clock: ClockQuality,
    /// Services found alive and taken over, not started.
    pub adopted: u16,
    /// What the store had to set aside or repair, for people.
    pub findings: Vec<String>,
}

/// Whether wall time can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockQuality {
    /// Later than the persisted floor.
    #[default]
    Plausible,
    /// Earlier than a time already seen: stamped from the floor.
    BehindFloor,
    /// As after a boot without a battery clock.
    NeverSet,
}

/// What a service does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Started, not yet healthy.
    Starting,
    /// Answers its probes.
    Healthy,
    /// Runs, with something wrong.
    Unhealthy,
    /// No process.
    Down,
    /// No process, on purpose: a replica that is started when it is needed.
    Standby,
    /// Frozen on purpose: it answers nobody until it is let go on.
    Paused,
}

/// A service changed its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceChange {
    /// Which.
    pub service: ServiceId,
    /// From now on.
    pub state: ServiceState,
    /// The life it is about; `None` before the first.
    pub instance: Option<Instance>,
    /// How the former life ended, when it did.
    pub exit: Option<Exit>,
}

/// Something is wrong and will be dealt with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentOpened {
    /// Its number on the node.
    pub incident: IncidentId,
    /// The service at its root.
    pub service: ServiceId,
    /// What was seen.
    pub symptom: Symptom,
    /// What is believed to be behind it.
    pub fault: Fault,
    /// How sure, in `0.0..=1.0`.
    pub confidence: f32,
    /// From the first sign to this event.
    pub detected_after: Millis,
    /// In words, strongest first.
    pub evidence: Vec<String>,
    /// Whether the coordinator could be reached.
    pub connected: bool,
}

/// Where a plan came from, in the order in which an agent looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A known-safe restart.
    Reflex,
    /// A plan known to work for this fault.
    Playbook,
    /// The rest of a plan that a restart of the agent cut short.
    Resumed,
    /// A person on the node.
    Operator,
}

/// One plan that was considered, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    /// The printed plan.
    pub plan: String,
    /// Where it came from.
    pub source: Source,
    /// Why it was refused; `None` for the chosen one.
    pub refusal: Option<Refusal>,
}

/// Why a plan may not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The rule's name, as in the documentation.
    pub rule: String,
    /// What it objects to.
    pub reason: String,
}

/// What is going to be done about an incident, or why nothing is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// The incident.
    pub incident: IncidentId,
    /// The plan's execution; `None` when nothing is done.
    pub plan: Option<PlanId>,
    /// All that was considered, the chosen one last.
    pub considered: Vec<Considered>,
    /// Predicted cost in capacity-seconds.
    pub cost: f32,
    /// What the budget still held, in capacity-seconds.
    pub balance: f32,
    /// The node's health now, as [`crate::gate::health`] has it: what it stays
    /// at if nothing is done and nothing changes.
    pub health: f32,
    /// The node's health once the plan has worked; as now without a plan.
    pub predicted: f32,
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Begun.
    Started,
    /// Its effect is there.
    Done,
    /// It failed, and how.
    Failed(String),
    /// Taken back.
    Undone,
}

/// A step of a plan moved on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The incident.
    pub incident: IncidentId,
    /// The plan's execution.
    pub plan: PlanId,
    /// Place in the printed plan, from 0.
    pub step: u8,
    /// The printed primitive.
    pub primitive: String,
    /// How far.
    pub phase: Phase,
    /// The node's health that the step leads to, as [`crate::gate::prospect`]
    /// has it.
    pub predicted: f32,
    /// The node's health now.
    pub health: f32,
}

/// An incident is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentClosed {
    /// Which.
    pub incident: IncidentId,
    /// How it ended.
    pub outcome: Outcome,
    /// From the first sign to here.
    pub lasted: Millis,
    /// Cost that was spent, in capacity-seconds.
    pub cost: f32,
    /// In words.
    pub summary: String,
}

/// How urgent an alarm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// To be known.
    Notice,
    /// To be looked at today.
    Warning,
    /// A person is needed now.
    Critical,
}

/// A condition began or ended that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Its name, unique on the node.
    pub alarm: String,
    /// The service it concerns.
    pub service: Option<ServiceId>,
    /// How urgent.
    pub severity: Severity,
    /// `false` when it is over.
    pub raised: bool,
    /// What to know, and what to do.
    pub text: String,
}

/// Events that the outbox had to drop for lack of space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First dropped event.
    pub from: u64,
    /// Last dropped event.
    pub through: u64,
    /// How many of them were events about healing.
    pub heal: u64,
}

/// A plain aggregate of the last minutes, one entry per metric, service and part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// The window.
    pub span: Millis,
    /// Metric number, service, mean and worst.
    pub series: Vec<Aggregate>,
}

/// One aggregated series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// Number of the [`crate::observation::Metric`].
    pub metric: u8,
    /// `None` for the node.
    pub service: Option<ServiceId>,
    /// The part, where there are several.
    pub part: Option<Part>,
    /// Mean of the fresh readings.
    pub mean: f32,
    /// Largest fresh reading.
    pub max: f32,
}

/// A route of the node's forwarder, whole, whenever something about it changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChange {
    /// Which.
    pub route: RouteId,
    /// Where it listens, as `host:port`.
    pub listen: String,
    /// Services of this node that send their calls through it.
    pub callers: Vec<ServiceId>,
    /// Whether the forwarder answers; if not, the rest is as last known.
    pub reached: bool,
    /// Who is behind it.
    pub backends: Vec<BackendState>,
}

/// One backend of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendState {
    /// Its name: a service of this node, or one given to an address.
    pub backend: ServiceId,
    /// Where it listens, as `host:port`.
    pub address: String,
    /// Its present weight; 0 gets no new connections.
    pub weight: u16,
    /// Its weight by configuration.
    pub configured: u16,
    /// Whether the forwarder finds it fit to get connections.
    pub healthy: bool,
}

/// A cost in capacity-seconds, by what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct CostParts {
    /// Work of the node itself.
    pub resource: f32,
    /// Service taken away that was there before.
    pub disruption: f32,
    /// Foreseen: what a failure would take, times its likelihood. Spent: that,
    /// if the plan failed.
    pub risk: f32,
}

impl From<crate::budget::Cost> for CostParts {
    fn from(cost: crate::budget::Cost) -> Self {
        Self {
            resource: narrow(cost.resource),
            disruption: narrow(cost.disruption),
            risk: narrow(cost.risk),
        }
    }
}

/// What a step of a plan was to cost at most, and what it has cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepCost {
    /// The upper bound that was set aside.
    pub predicted: CostParts,
    /// What was charged.
    pub spent: CostParts,
}

/// A plan is over and paid for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Charge {
    /// The incident.
    pub incident: IncidentId,
    /// The plan's execution.
    pub plan: PlanId,
    /// Its steps, in the printed order.
    pub steps: Vec<StepCost>,
    /// The budget that it was charged to, as it stands now.
    pub budget: ClassBudget,
}

/// How a class's budget stands, in capacity-seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassBudget {
    /// The class.
    pub class: Criticality,
    /// The whole of it.
    pub beta: f32,
    /// What a new plan may cost now.
    pub balance: f32,
    /// What is set aside for plans that run.
    pub reserved: f32,
    /// Plans that cost more than they had set aside, since the agent started.
    pub overruns: u64,
}

/// How the node's budgets stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Budgets {
    /// Those of the classes that it has services of.
    pub classes: Vec<ClassBudget>,
}

/// How the text of a [`Note`] begins that tells of a fault on purpose. The note of its end names
/// that of its beginning as its cause.
pub const ON_PURPOSE: &str = "on purpose: ";

/// Why the agent did nothing where one might expect it to act, or what else a
/// person may want to know later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The service it concerns.
    pub service: Option<ServiceId>,
    /// In words.
    pub text: String,
}

/// What a person did about healing, or what healing asks of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlKind {
    /// A verified plan waits for a person.
    ApprovalAsked,
    /// It may run.
    Approved,
    /// It may not.
    Refused,
    /// Nobody answered, or it is not wanted any more.
    ApprovalStale,
    /// Somebody deals with an alarm.
    Acknowledged,
    /// No healing here for a while.
    MaintenanceBegan,
    /// Healing again.
    MaintenanceEnded,
    /// Nobody is told of these alarms for a while.
    SilenceBegan,
    /// They are told again.
    SilenceEnded,
    /// No healing at all.
    Stopped,
    /// Healing again.
    Resumed,
}

/// A control that people have over healing was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// What was done.
    pub what: ControlKind,
    /// About which incident.
    pub incident: Option<IncidentId>,
    /// About which service; `None` for the whole node, and for what is no service.
    pub service: Option<ServiceId>,
    /// Who did it; empty for the agent itself.
    pub by: String,
    /// In words.
    pub text: String,
}

/// Who may be behind an incident: follows its [`IncidentOpened`], and again when a closer
/// look has changed the ranking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosed {
    /// The incident.
    pub incident: IncidentId,
    /// The one that the alarm is about.
    pub alarmed: Component,
    /// The likeliest first, those that are explained by others last; at most
    /// [`crate::suspect::SUSPECTS_MAX`].
    pub suspects: Vec<Suspect>,
    /// Who needs whom, of those that lie between the alarmed one and the suspects; at most
    /// [`DIAGNOSED_EDGES_MAX`].
    pub edges: Vec<Edge>,
    /// What would tell the first two apart.
    pub tell_apart: Option<TellApart>,
    /// What it rests on.
    pub grade: Grade,
    /// Services of the node that need the alarmed one, directly or not; at most
    /// [`AFFECTED_MAX`].
    pub affected: Vec<ServiceId>,
    /// The planned action waits for the suspect, and why.
    pub spared: Option<String>,
}

/// Most edges of a [`Diagnosed`]: a picture that a person can read.
pub const DIAGNOSED_EDGES_MAX: usize = 64;

/// Most services that a [`Diagnosed`] names as affected.
pub const AFFECTED_MAX: usize = 16;

/// An anomaly that belongs to an open incident, or to the healing of one that was just
/// closed: it gets no incident of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The incident that it follows from.
    pub incident: IncidentId,
    /// Where.
    pub service: ServiceId,
    /// What was seen.
    pub symptom: Symptom,
    /// Why it is put down to that incident, in words.
    pub because: String,
}

/// Who needs whom on the node by its configuration, whole: after each start and whenever
/// it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// At most [`TOPOLOGY_EDGES_MAX`].
    pub edges: Vec<Edge>,
    /// How many more there are.
    pub left_out: u32,
}

/// Most edges of a [`Topology`]: they fit into one record whatever their names are.
pub const TOPOLOGY_EDGES_MAX: usize = 600;

macro_rules! bodies {
    ($($(#[$doc:meta])* $kind:literal $name:ident $text:literal),* $(,)?) => {
        /// An event's content, by kind.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Body {
            $($(#[$doc])* $name($name),)*
            /// A kind that this program does not know; kept as it came.
            Unknown {
                /// Its number.
                kind: u16,
                /// Its bytes.
                bytes: Vec<u8>,
            },
        }

        impl Body {
            pub(super) fn encode(&self) -> Result<(u16, Vec<u8>), WireError> {
                match self {
                    $(Self::$name(body) => Ok(($kind, encode(body, $text)?)),)*
                    Self::Unknown { kind, bytes } => Ok((*kind, bytes.clone())),
                }
            }

            pub(super) fn decode(kind: u16, bytes: &[u8]) -> Result<Self, WireError> {
                match kind {
                    $($kind => decode_whole(bytes, $text).map(Self::$name),)*
                    _ => Ok(Self::Unknown { kind, bytes: bytes.into() }),
                }
            }

            /// The kind's name: the level behind `evt/` in its topic.
            #[must_use]
            pub fn kind_name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => $text,)*
                    Self::Unknown { .. } => "unknown",
                }
            }
        }
    };
}

bodies! {
    /// The agent started.
    1 Boot "boot",
    /// A service changed its state.
    2 ServiceChange "service",
    /// An incident began.
    3 IncidentOpened "incident-opened",
    /// What is done about it.
    4 Decided "decided",
    /// A step moved on.
    5 Step "step",
    /// An incident is over.
    6 IncidentClosed "incident-closed",
    /// An alarm was raised or cleared.
    7 Alarm "alarm",
    /// Events were dropped.
    8 Gap "gap",
    /// Aggregated metrics.
    9 Telemetry "telemetry",
    /// What was seen around an incident.
    10 Observation "observation",
    /// Something else that people should know.
    11 Note "note",
    /// The node's state as an incident began.
    12 State "state",
    /// A route changed.
    13 RouteChange "route",
    /// How the budgets stand.
    14 Budgets "budget",
    /// A plan was paid for.
    15 Charge "charge",
    /// A person decided something, or is asked to.
    16 Control "control",
    /// Who may be behind an incident.
    17 Diagnosed "diagnosed",
    /// An anomaly belongs to an incident that is known.
    18 Joined "joined",
    /// Who needs whom on the node.
    19 Topology "topology",
}
