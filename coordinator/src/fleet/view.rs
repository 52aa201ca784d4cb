//! What the API answers: the types behind the OpenAPI document, the page and
//! the command line.
//!
//! Times end in `_ms`: milliseconds since 1970. Those of `opened_ms`,
//! `since_ms`, `hlc_ms` come from the node's clock; `seen_ms`, `received_ms`
//! from the coordinator's.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::diagnosis::{Causes, Coincident, Group, Impact, WhatIf};

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
    /// How far its clock is ahead of the coordinator's, negative if behind, by
    /// the quickest of its newest records; too small by what that one travelled.
    /// Take it from the node's own times to get the coordinator's.
    pub clock_ahead_ms: Option<i64>,
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
    /// The routes of its forwarder.
    pub routes: Vec<Route>,
    /// What healing may cost there, by class of services.
    pub budgets: Vec<Budget>,
}

/// How the budget of a class of services stands on a node, in
/// capacity-seconds: 1 is the whole node out of service for one second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Budget {
    /// Its node.
    pub node: String,
    /// `mission`, `business` or `best-effort`.
    pub class: String,
    /// The whole of it, beta.
    pub beta: f64,
    /// What a new plan may cost.
    pub balance: f64,
    /// What is set aside for plans that run.
    pub reserved: f64,
    /// Plans that cost more than was set aside, since the agent started.
    pub overruns: u64,
    /// When that was so, by the node's clock.
    pub since_ms: u64,
}

/// A route of a node's forwarder, as its node last told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// Its node.
    pub node: String,
    /// Its name, unique on the node.
    pub route: String,
    /// Where it listens.
    pub listen: String,
    /// Services of the node that call through it.
    pub callers: Vec<String>,
    /// Whether the node's agent hears from the forwarder; if not, the rest is as
    /// last known.
    pub reached: bool,
    /// Since when it is like this, by the node's clock.
    pub since_ms: u64,
    /// Who is behind it.
    pub backends: Vec<Backend>,
}

/// A backend of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backend {
    /// Its name: a service of the node, or one given to an address.
    pub backend: String,
    /// Where it listens.
    pub address: String,
    /// Its present weight; 0 gets no new connections.
    pub weight: u16,
    /// Its weight by configuration.
    pub configured: u16,
    /// Whether the forwarder finds it fit to get connections.
    pub healthy: bool,
    /// What is known to stand there; absent for an address that no node told
    /// of. Always absent in what a node sends.
    #[serde(default)]
    pub leads_to: Option<Target>,
}

/// What a backend is: a service of the same node, or a route of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// The node.
    pub node: String,
    /// The service, if it is one.
    pub service: Option<String>,
    /// That service's state, as in `Service`.
    pub state: Option<String>,
    /// The route, if it is one.
    pub route: Option<String>,
}

/// A service of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
pub struct Service {
    /// Its node.
    pub node: String,
    /// Its name, unique on the node.
    pub service: String,
    /// `starting`, `healthy`, `unhealthy`, `down`, or `standby`: no process, on
    /// purpose, until it is needed.
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
    /// The same by the coordinator's clock, as `at_ms` of an event.
    #[serde(default)]
    pub opened_at_ms: u64,
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
    /// The plan that was chosen last; absent while none was.
    pub plan: Option<String>,
    /// Where the plan came from: `reflex`, `playbook`, `resumed`, `operator`.
    pub source: Option<String>,
    /// Plans that were refused in the last decision.
    pub refusals: u64,
    /// Why nothing is done: rule and reason.
    pub why: Option<String>,
    /// Predicted cost in capacity-seconds.
    pub cost: Option<f64>,
    /// What the budget still held, in capacity-seconds.
    pub balance: Option<f64>,
    /// The node's health when that was decided, in 0 to 1.
    pub health: Option<f64>,
    /// Its health once the plan has worked.
    pub predicted: Option<f64>,
    /// The last step that was reported.
    pub step: Option<String>,
    /// How far that step is.
    pub phase: Option<String>,
    /// The node's health at that report.
    pub step_health: Option<f64>,
    /// The health that the step leads to.
    pub step_predicted: Option<f64>,
    /// `healed`, `recovered`, `undone`, `escalated` or `refused`.
    pub outcome: Option<String>,
    /// From the first sign to the end, in milliseconds.
    pub lasted_ms: Option<u64>,
    /// Cost that was spent, in capacity-seconds.
    pub spent: Option<f64>,
    /// How it ended, in words.
    pub summary: Option<String>,
    /// The group of incidents with one cause that it belongs to; absent if it is alone.
    #[serde(default)]
    pub group: Option<u64>,
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
    /// What the diagnosis rests on, strongest first.
    pub evidence: Vec<String>,
    /// What was decided, in order; the last one holds.
    pub decisions: Vec<Decision>,
    /// Everything about it, and what happened on other nodes in the same while,
    /// in causal order.
    pub timeline: Vec<Event>,
    /// Whether the timeline was cut for length.
    pub truncated: bool,
    /// What a model of failure classes makes of it; absent without a model, and until the
    /// node's observation has arrived.
    #[serde(default)]
    pub class: Option<IncidentClass>,
    /// Who may be behind it; absent while its first event has not arrived.
    #[serde(default)]
    pub causes: Option<Causes>,
    /// What has the same cause; absent if it is alone.
    #[serde(default)]
    pub group: Option<Group>,
    /// What began in the same while and has another cause, as far as is known.
    #[serde(default)]
    pub coincident: Vec<Coincident>,
    /// Whom it reached; absent while its first event has not arrived.
    #[serde(default)]
    pub impact: Option<Impact>,
    /// What would have been otherwise.
    #[serde(default)]
    pub what_if: Vec<WhatIf>,
    /// Causes that events named and that contradict the sequence of a stream, or each other:
    /// they were left out of the order.
    #[serde(default)]
    pub contradictions: u64,
}

/// What a model of failure classes says of an incident, from counts of log templates and
/// alarms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IncidentClass {
    /// The class, `no_failure` for what looks healthy; absent when it is unlike anything that
    /// the model was trained on.
    pub class: Option<String>,
    /// The likeliest of the known classes, which says little when there is no class.
    pub likeliest: String,
    /// The probability of that one, in 0 to 1.
    pub probability: f64,
    /// The share of healthy runs that were less unusual, in 0 to 1.
    pub unusual: f64,
    /// The share of all training runs that were less unlike the others, in 0 to 1.
    pub novelty: f64,
    /// The events that spoke for it, strongest first.
    pub evidence: Vec<ClassEvidence>,
    /// Events that the model does not know.
    pub unknown: Vec<String>,
    /// Services that were unhealthy or down in its course.
    pub services: Vec<String>,
}

/// An event that spoke for a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClassEvidence {
    /// Its name, or many events in words.
    pub event: String,
    /// How often it happened; absent for many events.
    pub count: Option<u32>,
    /// How often it does in the median healthy run.
    pub usual: Option<u32>,
    /// Its share of all that spoke, in 0 to 1.
    pub weight: f64,
}

/// What was decided once, and how it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// When, by the coordinator's clock; see `Event`.
    pub at_ms: u64,
    /// Its place in the node's stream.
    pub seq: u64,
    /// The plan that runs; absent when nothing is done.
    pub plan: Option<String>,
    /// How its steps belong together; absent without a plan, and for one in a
    /// newer language than this program knows.
    pub shape: Option<Shape>,
    /// Every option that was looked at, in order.
    pub options: Vec<PlanOption>,
    /// Predicted cost in capacity-seconds.
    pub cost: Option<f64>,
    /// What the budget still held, in capacity-seconds.
    pub balance: Option<f64>,
    /// The node's health then, in 0 to 1.
    pub health: Option<f64>,
    /// Its health once the plan has worked.
    pub predicted: Option<f64>,
    /// The steps of the plan.
    pub steps: Vec<PlanStep>,
}

/// A plan that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanOption {
    /// The printed plan.
    pub plan: String,
    /// Where it came from.
    pub source: String,
    /// Why it was refused; absent for the chosen one.
    pub refusal: Option<PlanRefusal>,
}

/// Why a plan may not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanRefusal {
    /// The rule's name, as in the documentation.
    pub rule: String,
    /// What it objects to.
    pub reason: String,
}

/// The structure of a plan; a step is named by its place in `steps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// One step.
    Step(u8),
    /// One after the other.
    #[schema(no_recursion)]
    InTurn(Vec<Self>),
    /// All at once.
    #[schema(no_recursion)]
    SideBySide(Vec<Self>),
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanStep {
    /// Its place in the printed plan, from 0.
    pub step: u8,
    /// The printed primitive.
    pub primitive: String,
    /// `waiting`, `started`, `done`, `failed` or `undone`.
    pub phase: String,
    /// How it failed.
    pub why: Option<String>,
    /// The node's health that it leads to.
    pub predicted: Option<f64>,
    /// The node's health as it began.
    pub before: Option<f64>,
    /// The node's health when it was last heard of.
    pub health: Option<f64>,
    /// When it began, by the coordinator's clock.
    pub started_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// What it cost; absent until the whole plan is paid for.
    pub cost: Option<StepCost>,
}

/// What a step was to cost at most, and what it has cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepCost {
    /// The upper bound that was set aside.
    pub predicted: CostParts,
    /// What was charged.
    pub spent: CostParts,
}

/// A cost in capacity-seconds, by what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CostParts {
    /// Work of the node itself.
    pub resource: f64,
    /// Service taken away that was there before.
    pub disruption: f64,
    /// Predicted: what a failure would take, times its likelihood. Spent: that,
    /// if the plan failed.
    pub risk: f64,
}

/// Events about healing, the newest page of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Timeline {
    /// In causal order.
    pub events: Vec<Event>,
    /// Pass it as `before` for what came earlier; absent on the last.
    pub next: Option<u64>,
}

/// Why nothing was done about something that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeftAloneWhy {
    /// Every plan was refused, or there was none.
    Refused,
    /// An alarm about what no plan is for: strangers' processes, telemetry that
    /// stands still, a model that is unsure.
    Alarm,
    /// The node's own remark.
    Note,
}

/// Something that was seen and not acted upon; equal ones together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeftAlone {
    /// The newest event that says so.
    pub cursor: u64,
    /// The node.
    pub node: String,
    /// When it said so last, by the coordinator's clock.
    pub at_ms: u64,
    /// The service it concerns.
    pub service: Option<String>,
    /// Why.
    pub why: LeftAloneWhy,
    /// The rule that refused, or the alarm's name.
    pub name: Option<String>,
    /// In words.
    pub text: String,
    /// The plan that was refused last.
    pub plan: Option<String>,
    /// The incident's number in the fleet.
    pub incident: Option<u64>,
    /// Whether it still stands.
    pub stands: bool,
    /// How often it was said, among the newest events.
    pub times: u64,
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
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
    /// When it happened by the coordinator's clock: the stamp, moved by the
    /// least delay between stamp and arrival of the records around it. It is too
    /// late by as much as the quickest of them travelled, and wrong around a
    /// step of the node's clock.
    pub at_ms: u64,
    /// The fleet's number of the incident that it names.
    pub incident: Option<u64>,
    /// In an incident's timeline: it happened on another node in the same
    /// while, and nothing says that one led to the other.
    pub meanwhile: bool,
    /// There as well: it is about nobody that has to do with the incident, as far as is known
    /// of who needs whom and who is behind it.
    #[serde(default)]
    pub aside: bool,
    /// Events that led to it.
    pub causes: Vec<Reference>,
    /// What it says; the fields depend on its kind.
    pub body: serde_json::Value,
    /// In an incident's timeline: how it stands to the incident's opening.
    #[serde(default)]
    pub relation: Option<Relation>,
}

/// How one event stands to another, by the sequence of streams and the causes that events
/// name; no clock takes part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// It is that event.
    Same,
    /// It happened before.
    Before,
    /// It happened after.
    After,
    /// Which came first is not known: nothing that nodes told leads from one to the other.
    Concurrent,
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
    /// Its node; `coordinator` for the coordinator's own, and for those of other systems
    /// that are about no node.
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
    /// Who deals with it; known of the coordinator's own alarms alone.
    pub acked: Option<String>,
    /// The other system that has raised it: `alertmanager`, `mqtt`.
    pub source: Option<String>,
}

/// What became of alarms that another system has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AlarmsTaken {
    /// Alarms that stand since now.
    pub raised: u64,
    /// Those that stood already.
    pub repeated: u64,
    /// Those that are over now.
    pub resolved: u64,
    /// Those for which there was no room.
    pub left_out: u64,
}

/// Somebody deals with an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acknowledgement {
    /// Who, by their own account.
    pub by: String,
}

/// An alarm was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acknowledged {
    /// Whether what it is about goes on; otherwise the alarm is over with this.
    pub stands: bool,
}

/// Something changed: what a live client fetches again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Number of the last event stored.
    pub cursor: u64,
    /// Incidents that changed.
    pub incidents: Vec<u64>,
    /// Plans across nodes that changed.
    #[serde(default)]
    pub plans: Vec<u64>,
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
