//! The agent's configuration: a TOML file, read once at start into checked
//! values.
//!
//! In goes a file, out comes a [`Config`] in which every number is in range and
//! every name refers to something, or [`ConfigErrors`] with all that is wrong:
//! line, key, what stands there and what may stand there. The loop and the
//! spawner read the same file, so that they can speak of services by name.
//!
//! Does not look at the machine: whether a user, a program or a broker exists
//! is found out where it is used. Unknown keys are refused, because a mistyped
//! safety limit must not quietly become a default.

mod budget;
mod check;
mod data;
mod depend;
mod detect;
mod fields;
mod foresee;
mod forward;
mod hooks;
mod intake;
mod logs;
mod mcu;
mod orders;
mod people;
mod probe;
mod problems;
mod process;
mod sections;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use homeostat_common::budget::Policy;
pub use homeostat_common::gate::{Criticality, Mode};
use homeostat_common::ids::{InterfaceId, NodeId, RouteId, ServiceId, SiteId};
use homeostat_common::net::SourceNet;
use homeostat_common::observation::Part;
use homeostat_common::primitive::Grant;
use homeostat_common::units::{Bytes, Millis, Ratio};
use toml::de::DeTable;

pub use data::{Data, PATTERNS_MAX, Pattern};
pub use depend::{Asked, DEPENDENCIES_MAX, Dependency};
pub use detect::{Detect, METRICS_MAX};
pub use foresee::{CERTIFICATES_MAX, Certificate, Foresee};
pub use forward::{
    BACKENDS_MAX, BLOCKABLE_MAX, Backend, Check, CheckKind, FORWARDS_MAX, Forward, WEIGHT_MAX,
};
pub use homeostat_notify::{Told, Url, WEBHOOKS_MAX, Webhook};
pub use hooks::{Hook, Hooks};
pub use logs::{LOGS_MAX, Log};
pub use mcu::{MCUS_MAX, Mcu};
pub use orders::Orders;
pub use people::{People, RECURRING_MAX, Recurring, WHY_MAX, WINDOW_MAX};
use problems::Problems;
pub use problems::{ConfigErrors, Problem};
pub use process::{Container, Process, Unit};
pub use sections::{BALLAST_SHARE, QUOTA_MAX, QUOTA_MIN};

/// Largest file that is read; the largest sensible configuration has some
/// 20 KiB.
pub const FILE_MAX: u64 = 256 * 1024;
/// Most services of one node: each costs the spawner a slot and a pidfd, and
/// all of them fit into one message of its protocol.
pub const SERVICES_MAX: usize = 64;
/// Most probes of one service.
pub const PROBES_MAX: usize = 8;
/// Most golden vectors of one probe; each is a request to a working service.
pub const GOLDENS_MAX: usize = 16;
/// Most gauges that one metrics probe watches; sizes its report.
pub const GAUGES_MAX: usize = 8;
/// Most numbers in the inputs or outputs of one golden vector.
pub const GOLDEN_WIDTH_MAX: usize = 4096;
/// Most file systems that are watched besides the agent's own.
pub const FILE_SYSTEMS_MAX: usize = 8;
/// Most words of a command, ports, dependencies, variables of one service.
pub const LIST_MAX: usize = 64;
/// Largest bound of a log: it is copied when it is full, meanwhile the spawner
/// does nothing else.
pub const LOG_BYTES_MAX: Bytes = Bytes::mib(64);
/// Longest text value: the longest path the kernel takes.
pub const TEXT_MAX: usize = 4096;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[node]`: who and where.
    pub node: Node,
    /// `[mqtt]`: the way to the coordinator.
    pub mqtt: Mqtt,
    /// `[limits]`: what healing may do, and how often.
    pub limits: Limits,
    /// `[store]`: room on the disk.
    pub store: Store,
    /// `[sample]`: how often the host is looked at.
    pub sample: Sample,
    /// `[detect]`: when a metric is so unusual that people are told.
    pub detect: Detect,
    /// `[clock]`: only for tests.
    pub clock: Clock,
    /// `[[service]]`, in the order of the file.
    pub services: Vec<Service>,
    /// `[[forward]]`, in the order of the file.
    pub forwards: Vec<Forward>,
    /// `[forwarder]`: the process that carries them out.
    pub forwarder: Forwarder,
    /// `[orders]`: who may give it parts of plans across nodes.
    pub orders: Orders,
    /// `[people]`: how they are asked and told.
    pub people: People,
    /// `[[webhook]]`, in the order of the file.
    pub webhooks: Vec<Webhook>,
    /// `[[log]]`, in the order of the file.
    pub logs: Vec<Log>,
    /// `[[intake]]`.
    pub intake: Vec<homeostat_notify::intake::Source>,
    /// `[[mcu]]`, in the order of the file.
    pub mcus: Vec<Mcu>,
    /// `[[maintenance]]`: windows that come again.
    pub recurring: Vec<Recurring>,
    /// `[foresee]`: what is looked out for before it happens.
    pub foresee: Foresee,
    /// `[[certificate]]`, in the order of the file.
    pub certificates: Vec<Certificate>,
    /// `[[dependency]]`, in the order of the file.
    pub dependencies: Vec<Dependency>,
}

/// The process that carries `[[forward]]` out: with at least one of them, it is
/// a service of its own, named `forwarder`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarder {
    /// `command`, default this program with `forward --config FILE`.
    pub command: Option<Vec<String>>,
}

/// Who this node is and where it keeps things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `id`, required; unique in the fleet.
    pub id: NodeId,
    /// `site`, default `local`.
    pub site: SiteId,
    /// `data_dir`, default `/var/lib/homeostat`: journal, store, logs.
    pub data_dir: PathBuf,
    /// `run_dir`, default `/run/homeostat`: sockets and slots; a tmpfs, as
    /// nothing in it outlives a boot.
    pub run_dir: PathBuf,
    /// `agent_user`: who, besides the spawner's own user, may talk to it.
    pub agent_user: Option<String>,
    /// `uplinks`, default none: interfaces among which a plan may choose the one
    /// that what leaves the node goes through.
    pub uplinks: Vec<InterfaceId>,
}

/// The way to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mqtt {
    /// `broker`, such as `mqtt://10.0.0.1:1883`; without it the agent never
    /// connects anywhere.
    pub broker: Option<Broker>,
    /// `reconnect_min`, default 1 s.
    pub reconnect_min: Millis,
    /// `reconnect_max`, default 10 min: a fleet that lost its broker must not
    /// come back all at once.
    pub reconnect_max: Millis,
    /// `keep_alive`, default 30 s.
    pub keep_alive: Millis,
}

/// Address of an MQTT broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// Default 1883.
    pub port: u16,
}

/// What healing may do, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// `mode`, default `observe`.
    pub mode: Mode,
    /// `hold`, default 60 s: no second healing of a service within it, except
    /// the reflex restart of a dead process.
    pub hold: Millis,
    /// `quarantine`: what equal actions in a row lead to.
    pub quarantine: Quarantine,
    /// `restart`: the pace of the reflex.
    pub restart: Restart,
    /// `contest`: when something is left to somebody else.
    pub contest: Contest,
    /// `budget`: share of capacity that healing may cost, by criticality:
    /// `mission`, default 0.15; `business = { alpha = 0.4, floor = 0.15,
    /// ceiling = 0.30 }`; `best_effort = { base = 0.10, healed = 0.10,
    /// health = 0.10, floor = 0.15, ceiling = 0.30 }`.
    pub budget: Policy,
}

/// A resource that the same action did not help is left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantine {
    /// `count`, default 3 equal actions ...
    pub count: u8,
    /// `within`, default 30 min: ... in this time ...
    pub within: Millis,
    /// `hold`, default 5 min: ... stop them for that long, doubling each time
    pub hold: Millis,
    /// `hold_max`, default 6 h: up to this.
    pub hold_max: Millis,
}

/// What somebody else changes back, again and again, is left to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contest {
    /// `count`, default 2: so many times ...
    pub count: u8,
    /// `within`, default 30 min: ... in this time, and
    pub within: Millis,
    /// `hold`, default 30 min: ... until it has been quiet for so long.
    pub hold: Millis,
}

impl Default for Contest {
    fn default() -> Self {
        Self {
            count: 2,
            within: Millis::secs(1800),
            hold: Millis::secs(1800),
        }
    }
}

/// The reflex restart of a dead process: for ever, ever slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// `burst`, default 5 immediate restarts ...
    pub burst: u8,
    /// `within`, default 30 s: ... in this time, then
    pub within: Millis,
    /// `backoff_min`, default 1 s: a pause, doubling
    pub backoff_min: Millis,
    /// `backoff_max`, default 5 min: up to this, until the process
    pub backoff_max: Millis,
    /// `stable`, default 60 s: has lived that long.
    pub stable: Millis,
}

/// Room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store {
    /// `quota`, default 16 MiB for everything but logs: three quarters for the
    /// journal, the rest for history and playbook.
    pub quota: Bytes,
    /// `ballast`, default 1 MiB or a tenth of the quota: given up first when the disk is full.
    pub ballast: Bytes,
}

/// How often the host and the services are looked at, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `period`, default 1 s, while nothing speaks for more or less.
    pub period: Millis,
    /// `fastest`, default a quarter of it: while something may be wrong.
    pub fastest: Millis,
    /// `slowest`, default four times it: while the node is hot, or runs from a battery that
    /// is nearly empty.
    pub slowest: Millis,
    /// `battery`, default 0.2: nearly empty is less than this.
    pub battery: Ratio,
    /// `pressure`, default 100 ms: how often the kernel's account of who waits is looked at,
    /// for the worst of the short looks within a period.
    pub pressure: Millis,
    /// `sysfs`, default `/sys`: where the kernel shows devices.
    pub sysfs: PathBuf,
    /// `file_systems`, default none: folders whose file systems are watched besides that of
    /// `data_dir`.
    pub file_systems: Vec<PathBuf>,
    /// `metrics`, default none: where the last readings are served to Prometheus.
    pub metrics: Option<SocketAddr>,
    /// `journal`, default: if a service is a unit of systemd. Whether its journal is read, by a
    /// `journalctl` of some 10 MB.
    pub journal: Option<bool>,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            period: Millis::secs(1),
            fastest: Millis(250),
            slowest: Millis::secs(4),
            battery: Ratio::saturating(0.2),
            pressure: Millis(100),
            sysfs: "/sys".into(),
            file_systems: Vec::new(),
            metrics: None,
            journal: None,
        }
    }
}

/// The wall clock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clock {
    /// `offset`, such as `"-1h"`, in milliseconds; default 0. Added to what is
    /// read, so that tests can run nodes whose clocks disagree.
    pub offset_ms: i64,
    /// `servers`, default none: addresses of time servers by which a plan may set
    /// the clock; port 123 unless given.
    pub servers: Vec<SocketAddr>,
}

/// One supervised service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// `id`, required; unique on the node.
    pub id: ServiceId,
    /// `command`, `unit` or `container`, required: who runs its process.
    pub process: Process,
    /// `env`: all it gets besides `PATH` and, with a `user`, `HOME` and `USER`.
    pub env: BTreeMap<String, String>,
    /// `cwd`, default `/`.
    pub cwd: PathBuf,
    /// `user`, default the spawner's own; needs a spawner that is root.
    pub user: Option<String>,
    /// `ports` it listens on.
    pub ports: Vec<u16>,
    /// `memory_limit`, default none.
    pub memory_limit: Option<Bytes>,
    /// `criticality`, default `best-effort`.
    pub criticality: Criticality,
    /// `depends_on`: services that must run for this one to be healthy.
    pub depends_on: Vec<ServiceId>,
    /// `calls`: routes of this node that it sends its calls through.
    pub calls: Vec<RouteId>,
    /// `needs`: `[[dependency]]` elsewhere without which it does less, or less well.
    pub needs: Vec<Part>,
    /// `standby`, default false: a replica that is started only when a plan
    /// scales out to it.
    pub standby: bool,
    /// `cpu_limit`, default none: cores that it does not need for long when it is
    /// well.
    pub cpu_limit: Option<f32>,
    /// `[service.data]`.
    pub data: Option<Data>,
    /// `mode`, default that of `[limits]`.
    pub mode: Mode,
    /// `[service.autonomy]`: a mode for single primitives, instead of `mode`.
    pub modes: BTreeMap<&'static str, Mode>,
    /// `protected`, default false: never the target of a plan.
    pub protected: bool,
    /// `chaos`, default false: faults may be put into it on purpose.
    pub chaos: bool,
    /// `start_timeout`, default 10 s from start to the first good probe.
    pub start_timeout: Millis,
    /// `stop_grace`, default 2 s from SIGTERM to SIGKILL.
    pub stop_grace: Millis,
    /// `log`, default true: stdout and stderr go to `data_dir/logs/ID.log`. Those
    /// of a unit or container go where these say.
    pub log: bool,
    /// `log_max`, default 4 MiB: at this size the log is copied to `ID.log.1` and
    /// cut.
    pub log_max: Bytes,
    /// `[[service.probe]]`.
    pub probes: Vec<Probe>,
    /// `[service.model]`.
    pub model: Option<ModelSlot>,
    /// `[service.config]`.
    pub config: Option<ConfigSlot>,
    /// `blockable`, default none: addresses whose packets to its ports may be
    /// dropped.
    pub blockable: Vec<SourceNet>,
    /// `[service.hooks]`.
    pub hooks: Option<Hooks>,
}

impl Service {
    /// What this configuration allows besides the usual.
    #[must_use]
    pub fn grants(&self) -> BTreeSet<Grant> {
        let data = self.data.as_ref();
        let files = |of: fn(&Data) -> &[Pattern]| data.is_some_and(|data| !of(data).is_empty());
        let offers = |hook| {
            let hooks = self.hooks.as_ref();
            hooks.is_some_and(|hooks| hooks.paths.contains_key(&hook))
        };
        [
            (Grant::Prune, files(|data| &data.prune)),
            (Grant::Early, data.is_some_and(|data| data.early)),
            (Grant::Locks, files(|data| &data.locks)),
            (Grant::Snapshot, files(|data| &data.snapshot)),
            (Grant::Standby, self.standby),
            (Grant::Remount, data.is_some_and(|data| data.remount)),
            (Grant::FlushCache, offers(Hook::FlushCache)),
            (Grant::ResetPool, offers(Hook::ResetPool)),
            (Grant::Degrade, offers(Hook::Degrade)),
        ]
        .into_iter()
        .filter_map(|(grant, given)| given.then_some(grant))
        .collect()
    }
}

/// A regular question to a service, over loopback.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// `kind` and its keys.
    pub kind: ProbeKind,
    /// `port`, default the service's only one.
    pub port: u16,
    /// `period`, default 1 s.
    pub period: Millis,
    /// `timeout`, default 500 ms.
    pub timeout: Millis,
    /// `misses`, default 2: failures in a row before the service counts as hung.
    pub misses: u8,
    /// `gate_max`, default 1500 ms: a verdict that waits for the host to come
    /// out of pressure waits no longer than this.
    pub gate_max: Millis,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq)]
pub enum ProbeKind {
    /// Whether a connection is accepted.
    Tcp,
    /// Whether a GET is answered.
    Http {
        /// `path`, default `/`.
        path: String,
        /// `expect_status`, default 200.
        expect_status: u16,
    },
    /// Whether the model still computes what it should.
    Inference {
        /// `protocol` and its keys.
        protocol: Protocol,
        /// Known questions and answers.
        goldens: Goldens,
        /// `confidence_min`: a right answer that is less sure than this is a sign of a model
        /// that does not fit any more. The report carries the confidence; see
        /// [`Told`](crate::io::probe::Told).
        confidence_min: Option<Ratio>,
        /// `twin`: another service with an inference probe, whose model is asked the same
        /// inputs; those may then come without outputs.
        twin: Option<ServiceId>,
        /// `disagree_max`, default 0.2: of those inputs, the share on which the two may
        /// choose another class before people are told.
        disagree_max: Ratio,
    },
    /// What the service says about itself in the text format of Prometheus.
    Metrics {
        /// `path`, default `/metrics`.
        path: String,
        /// `[[service.probe.gauge]]`.
        gauges: Vec<Gauge>,
        /// `frozen`, default 0 (never): this many bodies in a row that are the same to the
        /// last byte mean that nobody counts any more.
        frozen: u8,
        /// `serving`: what the page says about a model that is served.
        serving: Option<Box<Serving>>,
    },
}

/// Which metrics say how a model does, by the names that its server gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// `inputs`: a histogram of the model's inputs, one series for each of them.
    pub inputs: Option<String>,
    /// `confidence`: a histogram of the largest output.
    pub confidence: Option<String>,
    /// `latency`: a histogram of seconds.
    pub latency: Option<String>,
    /// `requests`: a counter.
    pub requests: Option<String>,
    /// `errors`: a counter of those that failed.
    pub errors: Option<String>,
    /// `learn`, default 1000: so many answers make the reference.
    pub learn: u32,
    /// `window`, default 500: so many are compared with it.
    pub window: u32,
}

/// How an inference probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// `plain`, the default: `{"inputs": [[..]]}` is answered by `{"outputs": [[..]]}`.
    Plain {
        /// `path`, default `/infer`.
        path: String,
    },
    /// `v2`: the Open Inference Protocol of KServe, Triton and others, over REST.
    V2 {
        /// `model`, required.
        model: String,
        /// `version`, default the one that the server chooses.
        version: Option<String>,
        /// `input`, default `input`: the tensor that takes the golden inputs.
        input: String,
        /// `output`, default `output`: the tensor that is compared.
        output: String,
    },
}

/// A number in the metrics of a service that must not stay high.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// `name`, required: of several series of that name the largest counts.
    pub name: String,
    /// `max`, required: more is too much ...
    pub max: f64,
    /// `for`, default `0s`: ... when it stays so for this long.
    pub hold: Millis,
}

/// Where the golden vectors of an inference probe come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Goldens {
    /// `goldens = [..]`, or those of the file named by `golden`.
    Listed(Vec<Golden>),
    /// Neither is given: those in the manifest of the service's model.
    Manifest,
}

/// A question with a known answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// `inputs`, as sent.
    pub inputs: Vec<f32>,
    /// `outputs`, as expected.
    pub outputs: Vec<f32>,
    /// `tolerance`, default 1e-3: largest absolute difference of an output.
    pub tolerance: f32,
}

/// Where a service finds its model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSlot {
    /// `slot`, required: a folder, relative to the configuration file; the
    /// service reads `current/model.onnx` in it.
    pub slot: PathBuf,
    /// `reload`, default `restart`.
    pub reload: Reload,
}

/// Where a service finds its own configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSlot {
    /// `slot`, required: a folder, relative to the configuration file; the
    /// service reads `current/FILE` in it.
    pub slot: PathBuf,
    /// `file`, required: a plain name.
    pub file: String,
    /// `format`, default `any`: what a candidate must parse as.
    pub format: Format,
    /// `reload`, default `restart`.
    pub reload: Reload,
    /// `check`, default none: a command that gets the candidate's path as its last
    /// word and ends with 0 when the service could use it.
    pub check: Vec<String>,
}

/// How a service comes to use what its slot holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// It is restarted.
    Restart,
    /// It notices by itself.
    Watch,
}

/// What the configuration of a service is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
    /// Anything; only `check` can tell.
    Any,
}

impl Config {
    /// Reads and checks `file`.
    ///
    /// # Errors
    /// [`ConfigErrors`] names everything that has to be mended.
    pub fn load(file: &Path) -> Result<Self, ConfigErrors> {
        let text = read_bounded(file).map_err(|source| ConfigErrors::Read {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(&text, file)
    }

    /// Checks `text` as if it were read from `file`, whose folder relative
    /// paths start from.
    ///
    /// # Errors
    /// [`ConfigErrors::Wrong`], and `Read` never.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigErrors> {
        let problems = RefCell::new(Problems::new(text));
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let start = error.span().map_or(0, |span| span.start);
            let mut problems = problems.borrow_mut();
            problems.text_at(start, String::new(), error.message());
        }
        // Half of a table has no meaning, so values are only read when the
        // text as a whole is TOML.
        let config = if errors.is_empty() {
            sections::read(&table, file.parent().unwrap_or(Path::new("")), &problems)
        } else {
            None
        };
        if let Some(config) = &config {
            check::across_services(config, &mut problems.borrow_mut());
            forward::across(config, &mut problems.borrow_mut());
            people::across(config, &mut problems.borrow_mut());
            intake::across(config, &mut problems.borrow_mut());
            mcu::across(config, &mut problems.borrow_mut());
            logs::across(config, &mut problems.borrow_mut());
            foresee::across(config, &mut problems.borrow_mut());
        }
        let problems = problems.into_inner();
        match config {
            Some(mut config) if problems.none() => {
                if !config.forwards.is_empty() {
                    let forwarder = forward::service(&config, file);
                    config.services.push(forwarder);
                }
                Ok(config)
            }
            _ => Err(problems.into_error(file.to_owned())),
        }
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.services.iter().find(|service| service.id == *id)
    }
}

/// The name of the service that is this node's forwarder.
#[must_use]
pub fn forwarder_id() -> ServiceId {
    #[allow(clippy::expect_used)]
    ServiceId::new("forwarder").expect("these are letters")
}

/// A whole file as text, refused beyond [`FILE_MAX`].
fn read_bounded(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file)?
        .take(FILE_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(std::io::Error::other(format!(
            "larger than {FILE_MAX} bytes"
        )));
    }
    Ok(text)
}
