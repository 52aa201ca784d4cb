//! What goes into the loop and what comes out of it.

use std::path::PathBuf;

use homeostat_common::anomaly::{Exit, Fault, Symptom};
use homeostat_common::ids::{
    CertificateId, IncidentId, Instance, McuId, ModelVersion, NodeId, PlanId, RouteId, ServiceId,
    Token, WebhookId,
};
use homeostat_common::observation::{LogCount, Metric, MetricReading, Part, Reading};
use homeostat_common::plan::Plan;
use homeostat_common::saga;
use homeostat_common::transaction;
use homeostat_common::units::{Bytes, Micros, Millis, Ratio};
use homeostat_common::wire::body::{Body, Source};
use homeostat_common::wire::notice::Notice;
use homeostat_common::wire::projection::Outside;
use homeostat_notify::intake::Heard;
use serde::{Deserialize, Serialize};

use super::command::Command;
use crate::chaos::{Injection, Wish};
use crate::config::Config;
use crate::execute::Act;
use crate::plan::Recipe;
use crate::route::BackendSample;
use crate::service::serving::Page;
use crate::service::{Choice, ProcessSample, SlotFound, SlotName, Version};

/// A slot as the spawner describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotReport {
    /// Whose.
    pub service: ServiceId,
    /// The life that runs.
    pub live: Option<Instance>,
    /// The last life that ended.
    pub last: Option<(Instance, Exit)>,
}

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// A right answer.
    Right {
        /// From start to last byte, in microseconds.
        latency_us: u32,
    },
    /// A wrong answer.
    Wrong(String),
    /// Nobody listens.
    Refused,
    /// No answer in time; a late one may follow.
    TimedOut,
}

/// What a service tells of itself in an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// The model that answered.
    Model {
        /// Its version, if it names one.
        version: Option<ModelVersion>,
        /// How sure it was, if its outputs say that.
        confidence: Option<f32>,
        /// What it made of a known input.
        choice: Option<Choice>,
    },
    /// Its own metrics.
    Metrics {
        /// Of everything it told: the same again means that nothing moves.
        hash: u64,
        /// The watched gauges, in the order of the configuration.
        gauges: Vec<Option<f64>>,
        /// What it told of the model that it serves.
        page: Option<Box<Page>>,
    },
}

/// A reading that the loop hands on and decides nothing by.
#[derive(Debug, Clone, PartialEq)]
pub struct Sourced {
    /// What was measured.
    pub reading: MetricReading,
    /// Looked at for this very sample, whether a value was found or what had been there was
    /// not. Slow sources repeat their last value in between, which says nothing about how it
    /// moves.
    pub new: bool,
}

/// What the host looked like.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostSample {
    /// Share of cores that was busy.
    pub cpu_busy: Reading<Ratio>,
    /// Share of time some task waited for a core.
    pub cpu_pressure: Reading<Ratio>,
    /// Share of time some task waited for IO.
    pub io_pressure: Reading<Ratio>,
    /// Share of time some task waited for memory.
    pub memory_pressure: Reading<Ratio>,
    /// Memory to be had.
    pub memory_available: Reading<Bytes>,
    /// Room for the agent's data.
    pub disk_free: Reading<Bytes>,
    /// Inodes for the agent's data.
    pub inodes_free: Reading<u64>,
    /// The agent itself.
    pub own: ProcessSample,
    /// Events nobody acknowledged yet.
    pub backlog: u64,
    /// The process that takes most of the processors and is none of ours, when
    /// they are busy.
    pub stranger: Option<Stranger>,
    /// Milliseconds since 1970, unless the wall clock is known to be wrong.
    pub wall: Reading<u64>,
    /// The part of the node that is closest to its limit.
    pub heat: Reading<Heat>,
    /// Processors.
    pub cores: Reading<u16>,
    /// How the node is supplied; missing without a battery.
    pub battery: Reading<Battery>,
    /// Everything else that was measured, of the node, its parts and its services.
    pub sources: Vec<Sourced>,
    /// Each `[[dependency]]`.
    pub elsewhere: Vec<Elsewhere>,
    /// Sources that held something else than they should.
    pub garbage: u32,
}

/// Whether what the node needs elsewhere answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Which.
    pub name: Part,
    /// It gave no right answer to the last questions.
    pub silent: bool,
    /// When the last question was asked that it answered rightly.
    pub right: Option<Micros>,
}

/// How a node with a battery is supplied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Battery {
    /// Charge of the emptiest.
    pub charge: Ratio,
    /// Supplied from outside.
    pub mains: bool,
}

/// How hot a part of the node is, in degrees Celsius.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heat {
    /// Now.
    pub degrees: f32,
    /// From here on the kernel slows the node down, or turns it off.
    pub limit: f32,
}

/// What is left on the file system of a service's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes for those who are not root.
    pub free: Bytes,
    /// Inodes; `None` where their number is not fixed.
    pub inodes: Option<u64>,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The time that [`super::Loop::next_wake`] asked for has come.
    Wake,
    /// The spawner was reached; these are its slots.
    Slots(Vec<SlotReport>),
    /// The spawner was lost.
    SpawnerLost,
    /// A process was started.
    Started {
        /// Whose.
        service: ServiceId,
        /// Its life.
        instance: Instance,
    },
    /// A start was refused.
    StartRefused {
        /// Whose.
        service: ServiceId,
        /// The life that is there already, if that is why.
        live: Option<Instance>,
        /// Why.
        why: String,
    },
    /// The kernel says that a life is over.
    Died {
        /// Whose.
        service: ServiceId,
        /// Which.
        instance: Instance,
    },
    /// How it ended; after its `Died`.
    Exited {
        /// Whose.
        service: ServiceId,
        /// Which.
        instance: Instance,
        /// How.
        exit: Exit,
    },
    /// A probe was sent.
    ProbeSent {
        /// To whom.
        service: ServiceId,
        /// Which of its probes.
        probe: usize,
        /// The number of this one.
        number: u64,
    },
    /// A probe ended.
    Probed {
        /// To whom.
        service: ServiceId,
        /// Which of its probes.
        probe: usize,
        /// The number of this one.
        number: u64,
        /// How.
        outcome: ProbeOutcome,
        /// After its timeout.
        late: bool,
    },
    /// What the answer to a probe told besides.
    Told {
        /// Who.
        service: ServiceId,
        /// Which of its probes.
        probe: usize,
        /// What.
        told: Told,
    },
    /// The host and the processes were looked at.
    Sample(Box<HostSample>, Vec<(ServiceId, ProcessSample)>),
    /// Log lines of the last while, by template.
    Logs(Vec<LogCount>),
    /// Everything journalled up to this ticket is on the disk.
    Synced(u64),
    /// The disk refuses to take the journal (`Some`), or takes it again.
    StoreTrouble(Option<String>),
    /// A slot was looked at.
    SlotChecked {
        /// Whose.
        service: ServiceId,
        /// Which.
        slot: SlotName,
        /// What is there.
        found: SlotFound,
    },
    /// A deed of a step is done, or cannot be.
    Acted {
        /// Which.
        token: Token,
        /// Whether it worked.
        result: Result<(), String>,
    },
    /// Whether the broker can be reached.
    Link(bool),
    /// The forwarder has reported.
    Routes {
        /// Grows with each report of one forwarder.
        seq: u64,
        /// Its routes.
        routes: Vec<RouteSample>,
    },
    /// The forwarder was lost.
    ForwarderLost,
    /// A backend has no connections left.
    Drained {
        /// Of which route.
        route: RouteId,
        /// Which.
        backend: ServiceId,
    },
    /// The data of a service were measured.
    Measured {
        /// Whose.
        service: ServiceId,
        /// How much they are.
        used: Reading<Bytes>,
        /// What is left where they are.
        room: Reading<Room>,
    },
    /// A certificate was looked at.
    Certified {
        /// Which.
        id: CertificateId,
        /// Its end in milliseconds since 1970, or why that is not known.
        until: Result<u64, String>,
    },
    /// A new configuration was checked, and the spawner has taken it over.
    Configured(Box<Config>),
    /// A person on the node orders something; answered by [`Effect::Answer`].
    Ordered {
        /// Names the question.
        ticket: u64,
        /// Who.
        by: String,
        /// What.
        command: Command,
    },
    /// The file that stops all healing is there, with what stands in it, or gone.
    StopFile(Option<String>),
    /// Notices that a webhook should have got do not arrive (`Some`), or do again.
    Webhook(WebhookId, Option<String>),
    /// The initiator of a plan across nodes wants something; answered by
    /// [`Effect::Say`].
    SagaOrder(Box<saga::Order>),
    /// Under this name somebody gives orders whom this node does not believe; why.
    OrdersRefused(String, String),
    /// All that other systems say about this node now.
    Outside(Outside),
    /// What a device says on a topic.
    Heard(String, Heard),
    /// What a microcontroller says of a metric, or what is to be said of itself.
    Mcu {
        /// Which one.
        mcu: McuId,
        /// Of which metric; of itself, if none.
        metric: Option<Metric>,
        /// What is wrong; nothing any more, if none.
        text: Option<String>,
    },
    /// A node answers to this one as an initiator.
    SagaAnswer(NodeId, Box<saga::Answer>),
    /// A person on the node asks for a plan across nodes; answered by
    /// [`Effect::Answer`].
    AskedAcross {
        /// Names the question.
        ticket: u64,
        /// The plan.
        plan: saga::FleetPlan,
    },
    /// A person asks for the parts of plans across nodes; answered by
    /// [`Effect::Answer`] to this ticket.
    AskedParts(u64),
    /// The same for one of them, by a name of it.
    AskedPart(u64, String),
    /// A person on the node asks for a plan; answered by [`Effect::Answer`].
    Asked {
        /// Names the question.
        ticket: u64,
        /// The plan.
        plan: Plan,
    },
    /// A person on the node asks for a fault on purpose; answered by
    /// [`Effect::Answer`].
    Wished {
        /// Names the question.
        ticket: u64,
        /// What is wished for.
        wish: Wish,
    },
    /// A fault on purpose is in force.
    Broken {
        /// Where.
        service: ServiceId,
        /// What.
        injection: Injection,
        /// For how long at most.
        left: Millis,
    },
    /// The spawner would not put it into anything.
    NotBroken(String),
    /// A fault on purpose is over, and why.
    Mended(String),
}

/// A route as the forwarder describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSample {
    /// Which.
    pub route: RouteId,
    /// Connections that wait for a backend.
    pub waiting: u32,
    /// Connections since the forwarder's start that found none.
    pub refused: u64,
    /// Its backends.
    pub backends: Vec<(ServiceId, BackendSample)>,
}

/// A process that is none of ours and takes much of the node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stranger {
    /// Its process.
    pub pid: u32,
    /// What it is called, as far as the kernel keeps it.
    pub name: [u8; 16],
    /// Cores it uses.
    pub cores: f32,
}

impl Stranger {
    /// Its name as text.
    #[must_use]
    pub fn name(&self) -> String {
        let text = String::from_utf8_lossy(&self.name);
        text.trim_end_matches('\0').to_owned()
    }
}

/// How an event is valued when room for unsent ones runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Aggregates.
    Telemetry,
    /// State changes and notes.
    State,
    /// Everything about an incident.
    Heal,
}

/// What the journal holds about healing, for a restart of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HealRecord {
    /// An incident was opened.
    Opened {
        /// Its number.
        incident: IncidentId,
        /// Its service.
        service: ServiceId,
        /// What was seen.
        symptom: Symptom,
        /// What is believed.
        fault: Fault,
        /// Since when, on the clock of `boot`.
        since: Micros,
    },
    /// A plan was begun.
    Begun {
        /// Its execution.
        plan: PlanId,
        /// Its incident.
        incident: IncidentId,
        /// The plan.
        text: Plan,
        /// Its kind.
        recipe: Recipe,
        /// Where it came from.
        source: Source,
        /// Whether it starts a dead process.
        revive: bool,
    },
    /// The transaction moved on.
    Step(PlanId, transaction::Record),
    /// An incident was closed.
    Closed(IncidentId),
    /// A part of a plan across nodes moved on.
    Saga(PlanId, saga::Record),
    /// What was decided about a plan across nodes that is led here: its number, when it
    /// began, what.
    Lead(u64, Micros, saga::Decision),
}

/// What must be done outside, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask the spawner for a start.
    Start(ServiceId),
    /// Ask the spawner for TERM.
    Stop(ServiceId, Instance),
    /// Ask the spawner for KILL.
    Kill(ServiceId, Instance),
    /// End a life that is no longer wanted: TERM, and KILL after this time.
    Retire(ServiceId, Instance, Millis),
    /// Send a probe.
    Probe(ServiceId, usize),
    /// Forget all probes of a service that are on their way.
    ForgetProbes(ServiceId),
    /// Look at the host and the processes now.
    Sample,
    /// Look at a slot; answered by `SlotChecked`.
    CheckSlot(ServiceId, SlotName),
    /// Carry out a deed, once; answered by `Acted`.
    Act(Token, Act),
    /// What was remembered may go.
    SettleSlot(ServiceId, SlotName),
    /// This version has worked; answered by `SlotChecked`.
    KeepSlot(ServiceId, SlotName, Version),
    /// Measure the data of a service; answered by `Measured`.
    Measure(ServiceId),
    /// Look when the certificate in this file ends; answered by `Certified`.
    ReadCertificate(CertificateId, PathBuf),
    /// Ask the forwarder for a weight; seen in the next `Routes`.
    SetWeight(RouteId, ServiceId, u16),
    /// Ask the forwarder to end a backend's connections; answered by `Drained`.
    Drain(RouteId, ServiceId, Millis),
    /// Give another node an order of a plan across nodes that is led here.
    Order(NodeId, saga::Order),
    /// Tell the initiator of a plan across nodes.
    Say(saga::Answer),
    /// Put a fault into a service on purpose; answered by `Broken` or `NotBroken`.
    Break(ServiceId, Injection, Millis),
    /// Answer a person's question.
    Answer(u64, Result<String, String>),
    /// Append to the journal.
    Journal(HealRecord),
    /// Get everything journalled so far onto the disk and answer with this
    /// ticket.
    Sync(u64),
    /// No incident is open: the records so far are not needed any more.
    Quiet,
    /// Keep the state that holds across restarts.
    Remember,
    /// An event for the outbox.
    Emit {
        /// Names it for the causes of later ones.
        mark: u64,
        /// Its value.
        class: Class,
        /// Marks of the events that led to it.
        causes: Vec<u64>,
        /// What it says.
        body: Body,
    },
    /// Tell people about a service's health.
    ShowHealth(ServiceId),
    /// Tell people about the running step; `None` when the plan has ended.
    ShowAct(PlanId, Option<String>),
    /// Tell people about an alarm; `None` when it is over.
    ShowAlarm(String, Option<Body>),
    /// Tell people who do not look.
    Notify(Notice),
}
