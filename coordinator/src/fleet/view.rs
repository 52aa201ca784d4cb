//! What the API answers: the types behind the OpenAPI document, the page and
//! the command line.
//!
//! Times end in `_ms`: milliseconds since 1970. Those of `opened_ms`,
//! `since_ms`, `hlc_ms` come from the node's clock; `seen_ms`, `received_ms`
//! from the coordinator's.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether a node is connected to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Its status says so.
    Online,
    /// Its status, or its last will, says it is not.
    Offline,
    /// The broker has not said, or cannot be reached now.
    Unknown,
}

/// The fleet in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// Nodes that ever sent a record or a status.
    pub nodes: u64,
    /// Nodes that are connected.
    pub online: u64,
    /// Incidents that are not over.
    pub open_incidents: u64,
    /// Alarms that are raised.
    pub alarms: u64,
}

/// The fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Fleet {
    /// Program version of the coordinator.
    pub version: String,
    /// The coordinator's clock.
    pub now_ms: u64,
    /// Whether the coordinator reaches the broker. While it does not, presence
    /// is unknown and nothing new arrives.
    pub broker_connected: bool,
    /// Number of the last event stored.
    pub cursor: u64,
    /// In numbers.
    pub summary: Summary,
    /// By site and name; at most 1000.
    pub nodes: Vec<Node>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its name, unique in the fleet.
    pub node: String,
    /// Where it stands.
    pub site: String,
    /// Whether it is connected.
    pub presence: Presence,
    /// Since when the coordinator knows that.
    pub presence_since_ms: Option<u64>,
    /// When its last record arrived.
    pub seen_ms: Option<u64>,
    /// Program version of its agent.
    pub version: Option<String>,
    /// Whether its clock can be believed: `plausible`, `behind_floor`,
    /// `never_set`.
    pub clock: Option<String>,
    /// When its agent started, by its own clock.
    pub booted_ms: Option<u64>,
    /// Its present stream of events.
    pub stream: Option<String>,
    /// End of the unbroken run of its events that is stored.
    pub acked: u64,
    /// Highest event stored; beyond `acked` something is still missing.
    pub top: u64,
    /// Events below `top` that have not arrived yet.
    pub missing: u64,
    /// Events that the node had to drop and reported as lost.
    pub lost: u64,
    /// Events that waited on the node when it last reported its metrics.
    pub backlog: Option<u64>,
    /// Its services.
    pub services: Vec<Service>,
}

/// A service of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
pub struct Service {
    /// Its node.
    pub node: String,
    /// Its name, unique on the node.
    pub service: String,
    /// `starting`, `healthy`, `unhealthy` or `down`.
    pub state: String,
    /// Since when, by the node's clock.
    #[sqlx(try_from = "i64")]
    pub since_ms: u64,
    /// Which life of its process.
    pub instance: Option<i64>,
    /// How the former life ended, when this change says so.
    pub exit: Option<String>,
}

/// Where an incident stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// Not over.
    Open,
    /// Over; `outcome` says how.
    Closed,
    /// The node's store was rebuilt before the end was recorded: no end will
    /// come.
    Abandoned,
}

/// An incident in one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Incident {
    /// Its number in the fleet, by arrival.
    pub id: u64,
    /// Its number on its node.
    pub number: u64,
    /// The node.
    pub node: String,
    /// Its site.
    pub site: String,
    /// Where it stands.
    pub state: IncidentState,
    /// When it was opened, by the node's clock.
    pub opened_ms: u64,
    /// When it was closed, by the node's clock.
    pub closed_ms: Option<u64>,
    /// The service at its root; absent while its first event has not arrived.
    pub service: Option<String>,
    /// What was seen.
    pub symptom: Option<String>,
    /// What is believed to be behind it.
    pub fault: Option<String>,
    /// How sure, in 0 to 1.
    pub confidence: Option<f64>,
    /// From the first sign to its opening, in milliseconds.
    pub detected_after_ms: Option<u64>,
    /// Whether the node reached the coordinator when it was opened.
    pub connected: Option<bool>,
    /// The plan that was chosen; absent while undecided and when nothing is
    /// done.
    pub plan: Option<String>,
    /// Where the plan came from: `reflex`, `playbook`, `resumed`.
    pub source: Option<String>,
    /// Plans that were refused in the last decision.
    pub refusals: u64,
    /// Why nothing is done: rule and reason.
    pub why: Option<String>,
    /// Predicted cost in capacity-seconds.
    pub cost: Option<f64>,
    /// What the budget still held, in capacity-seconds.
    pub balance: Option<f64>,
    /// The last step that was reported.
    pub step: Option<String>,
    /// How far that step is.
    pub phase: Option<String>,
    /// `healed`, `recovered`, `undone`, `escalated` or `refused`.
    pub outcome: Option<String>,
    /// From the first sign to the end, in milliseconds.
    pub lasted_ms: Option<u64>,
    /// Cost that was spent, in capacity-seconds.
    pub spent: Option<f64>,
    /// How it ended, in words.
    pub summary: Option<String>,
}

/// A page of incidents, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Incidents {
    /// The page.
    pub incidents: Vec<Incident>,
    /// Pass it as `before` for the next page; absent on the last.
    pub next: Option<u64>,
}

/// An incident with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IncidentDetail {
    /// In one line.
    pub incident: Incident,
    /// Everything about it in causal order.
    pub timeline: Vec<Event>,
    /// Whether the timeline was cut for length.
    pub truncated: bool,
}

/// Names one event in the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reference {
    /// Its stream.
    pub stream: String,
    /// Its place there.
    pub seq: u64,
}

/// An event as its node sent it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number in order of arrival; pass it as `after` to go on from here.
    pub cursor: u64,
    /// Its node.
    pub node: String,
    /// Its stream.
    pub stream: String,
    /// Its place there.
    pub seq: u64,
    /// What it is about, such as `incident-opened`.
    pub kind: String,
    /// Its stamp's milliseconds: for people.
    pub hlc_ms: u64,
    /// Its stamp's counter.
    pub hlc_count: u64,
    /// When it was stored here.
    pub received_ms: u64,
    /// Events that led to it.
    pub causes: Vec<Reference>,
    /// What it says; the fields depend on its kind.
    pub body: serde_json::Value,
}

/// Events in order of arrival.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// The page.
    pub events: Vec<Event>,
    /// Pass it as `after` for what comes next.
    pub cursor: u64,
}

/// A condition that a person should know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
pub struct Alarm {
    /// Its node.
    pub node: String,
    /// Its name, unique on the node.
    pub alarm: String,
    /// The service it concerns.
    pub service: Option<String>,
    /// `critical`, `warning` or `notice`.
    pub severity: String,
    /// `false` when it is over.
    pub raised: bool,
    /// Since when, by the node's clock.
    #[sqlx(try_from = "i64")]
    pub since_ms: u64,
    /// What to know, and what to do.
    pub text: String,
}

/// Something changed: what a live client fetches again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Number of the last event stored.
    pub cursor: u64,
    /// Incidents that changed.
    pub incidents: Vec<u64>,
    /// Whether nodes came or went, or the broker did.
    pub presence: bool,
}

/// An error (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The kind of error.
    pub title: String,
    /// What is wrong with this request.
    pub detail: String,
}
