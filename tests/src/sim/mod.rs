//! A simulated node: services, spawner, disk, clock and the agent's loop, in
//! one thread, seeded; the same seed gives the same run to the microsecond.
//!
//! In: a configuration, a seed and faults with their times. Out: a [`Trace`].
//! The loop is the real one; everything that it asks of its shell is carried out
//! here with the delays and losses of a real node. Promises that hold in every
//! run (see `audit`) are checked all the time; a broken one fails the run and
//! prints its seed. It knows nothing of the coordinator: events end in the log.

mod audit;
mod disk;
mod faults;
mod forwarder;
mod host;
mod senses;
mod shell;
mod store;
mod trace;
mod world;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

use homeostat_agent::config::Config;
use homeostat_agent::control::{Command, Event, Loop};
use homeostat_agent::service::SlotName;
use homeostat_common::anomaly::Exit;
use homeostat_common::ids::{BootId, Instance, NodeId, ServiceId};
use homeostat_common::saga::{Answer, Order};
use homeostat_common::units::{Micros, Millis};
use homeostat_notify::intake::Heard;

use crate::entry::Entry;

use audit::Audit;
use disk::Disk;
pub use store::Offline;
pub use trace::Trace;
use world::World;

/// The node of most scenarios: a camera, and an inference service that needs it.
pub const NODE: &str = r#"
[node]
id = "n1"

[limits]
mode = "act"

[[service]]
id = "camera"
command = ["/bin/camera"]
ports = [8080]
memory_limit = "512MiB"
start_timeout = "2s"
stop_grace = "500ms"
criticality = "business"
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[service]]
id = "infer"
command = ["/bin/infer"]
ports = [8081]
start_timeout = "2s"
stop_grace = "500ms"
criticality = "mission"
[service.model]
slot = "/slot"
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[service]]
id = "store"
command = ["/bin/store"]
ports = [8082]
start_timeout = "2s"
[[service.probe]]
kind = "tcp"
period = "200ms"
timeout = "100ms"
"#;

/// Something goes wrong, or right again.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The process gets a SIGKILL from somebody.
    Crash(&'static str),
    /// The kernel kills its process for memory.
    OutOfMemory(&'static str),
    /// The process answers nothing any more.
    Block(&'static str),
    /// The process answers nothing for a while, and then all at once.
    Stall(&'static str, Millis),
    /// The same, because it is kept from running: nothing is wrong with it.
    Starve(&'static str, Millis),
    /// The process takes so many bytes each second.
    Leak(&'static str, f64),
    /// The process opens so many descriptors each second.
    Open(&'static str, f64),
    /// The process gets a SIGSTOP from somebody.
    Stop(&'static str),
    /// The program leaks so many bytes each second, in this life and each later one.
    LeakyProgram(&'static str, f64),
    /// The process fills up by so many bytes, ever more slowly, over this time constant.
    WarmUp(&'static str, f64, Millis),
    /// So many bytes that may be deleted come into the data folder each second.
    Grow(&'static str, f64),
    /// The node has so many degrees, of the 80 that it may have, and gets so many warmer a
    /// minute, until somebody is left less of the processors.
    Warm(f32, f32),
    /// The certificates end then, in milliseconds since 1970.
    CertificatesEnd(u64),
    /// The model file is overwritten and loaded.
    Corrupt(&'static str),
    /// Another whole model, a bad one, is put into the slot by hand, and loaded.
    BadModel(&'static str),
    /// Another configuration, with which the service does not start, is put into
    /// the slot by hand.
    BadConfig(&'static str),
    /// A good new model is staged.
    Stage(&'static str),
    /// Whether the process ignores TERM.
    Stubborn(&'static str, bool),
    /// Whether its command cannot be run.
    BadCommand(&'static str, bool),
    /// So many of the next lives end right after their start.
    ShortLives(&'static str, u32),
    /// From now on its starts take so long; `None` for the usual.
    SlowStart(&'static str, Option<Millis>),
    /// The spawner cannot be reached for a while.
    SpawnerLost(Millis),
    /// The agent's process does not run for a while; what happens meanwhile it learns
    /// afterwards, in order.
    AgentHeld(Millis),
    /// Share of time in which tasks wait for a core; answers come late.
    Pressure(f32),
    /// Whether samples stop coming.
    Frozen(bool),
    /// Whether the disk is full.
    DiskFull(bool),
    /// Syncs take so long.
    SlowSync(Millis),
    /// Whether model checks are never answered.
    NoModelCheck(bool),
    /// Whether putting a model back fails.
    NoRollback(bool),
    /// Whether the broker can be reached.
    Link(bool),
    /// The agent is killed and comes back after this.
    AgentKilled(Millis),
    /// The agent is killed at its n-th journal write from now on, and comes
    /// back after this.
    AgentKilledAtWrite(u32, Millis),
    /// From the next boot on, wall time is wrong by so many milliseconds.
    Clock(i64),
    /// Power is lost and comes back after this.
    Reboot(Millis),
    /// The first byte of the process's answers takes so long.
    Slow(&'static str, Millis),
    /// The process takes so much longer for each answer, and so does who needs it.
    Drag(&'static str, Millis),
    /// Whether a dependency elsewhere refuses, and who needs it answers wrongly.
    Outage(&'static str, bool),
    /// The process uses so many cores.
    Hog(&'static str, f32),
    /// A sensor of the process lies from now on; `None` for one that is mended.
    Sensor(&'static str, Option<Lie>),
    /// The node runs from a battery with this share left; `None` from outside.
    Battery(Option<f32>),
    /// A process that is nobody's uses so many cores; 0 ends it.
    Stranger(f32),
    /// So many bytes that may be deleted come into the data folder.
    Fill(&'static str, u64),
    /// The forwarder's reports stop to move, or move again.
    RoutesFrozen(bool),
    /// The process says so of its watched gauge, and whether its metrics move.
    Gauge(&'static str, f64, bool),
    /// Somebody sends the process a SIGTERM.
    Term(&'static str),
    /// Whether a process of somebody else holds the service's port.
    Rival(&'static str, bool),
    /// Somebody sets a backend's weight on every route.
    Weight(&'static str, u16),
    /// A person asks for a plan.
    Ask(&'static str),
    /// A person orders something.
    Order(Command),
    /// What stands in the file `STOP`, from now on.
    StopFile(Option<&'static str>),
    /// The wall clock can be believed: milliseconds since 1970 at the start.
    Wall(u64),
    /// The initiator of a plan across nodes wants something.
    SagaOrder(Order),
    /// A device says something on a topic.
    Heard(String, Heard),
    /// A person asks this node for a plan across nodes.
    AskAcross(&'static str),
    /// A person asks for a plan across nodes in words.
    AskPart(&'static str),
    /// A node answers to this one as an initiator.
    SagaAnswer(NodeId, Answer),
    /// The weights are told in the story.
    ShowWeights,
}

/// What a sensor says instead of the truth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lie {
    /// So many cores are in use.
    Cores(f32),
    /// Resident memory is anything, another in each sample.
    WildMemory,
    /// Resident memory is what no process has.
    HugeMemory,
}

#[derive(Debug, Clone)]
enum Happening {
    Fault(Fault),
    /// For the agent of this run of it.
    Tell(u32, Event),
    /// From the spawner, over this connection.
    Spawner(u32, Event),
    Request(u32, shell::Request),
    ProbeEnds(u32, senses::Asked),
    Ends(ServiceId, Instance, Exit),
    Sample(u32),
    /// The forwarder is asked, as often as configured.
    Routes(u32),
    FileEnds(u32, ServiceId, SlotName, shell::FileWork),
    SyncEnds(u32, u64, usize),
    AgentStarts,
    SpawnerBack,
}

/// Broken promises after which a run is given up.
const BROKEN_MAX: usize = 5;

/// So many quiet seconds in a row are taken for rest.
const CALM_SECONDS: u32 = 5;

/// Whole seconds, for short scenarios.
#[must_use]
pub const fn secs(seconds: u64) -> Millis {
    Millis::secs(seconds)
}

/// The simulated node.
#[derive(Debug)]
pub struct Sim {
    seed: u64,
    config: Config,
    rng: fastrand::Rng,
    /// Streams of their own, so that one probe more does not change when a
    /// process starts.
    probe_rng: fastrand::Rng,
    file_rng: fastrand::Rng,
    now: Micros,
    queue: BinaryHeap<Reverse<Entry<Happening>>>,
    order: u64,
    boot: BootId,
    booted: Micros,
    agent: Option<Box<Loop>>,
    /// Grows with each run of the agent; what is meant for a former run is lost.
    run: u32,
    /// Grows with each connection to the spawner.
    connection: u32,
    spawner: bool,
    /// The run of the agent that held the processes' pidfds when the spawner was lost.
    holds: Option<u32>,
    world: World,
    forwarder: forwarder::Forwarder,
    disk: Disk,
    /// Real files, where a scenario is about them.
    store: Option<store::Store>,
    host: host::Host,
    probe_number: u64,
    /// Plans that people asked for.
    asked: u64,
    /// Until when the agent does not run.
    held: Micros,
    /// Kill the agent at its n-th journal write from now on.
    kill_at_write: Option<(u32, Millis)>,
    last_fault: Millis,
    writes: u32,
    trace: Trace,
    /// What people who do not look were told, and when.
    notices: Vec<(Micros, String)>,
    audit: Audit,
}

impl Sim {
    /// The usual node.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::with(seed, NODE)
    }

    /// A node of this configuration.
    ///
    /// # Panics
    /// When the configuration is wrong.
    #[must_use]
    pub fn with(seed: u64, config: &str) -> Self {
        let config = match Config::parse(config, Path::new("/agent.toml")) {
            Ok(config) => config,
            Err(errors) => panic!("{errors}"),
        };
        let mut world = World::default();
        for service in &config.services {
            world.add(service);
        }
        for forward in &config.forwards {
            world.connect(forward);
        }
        let mut sim = Self {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            probe_rng: fastrand::Rng::with_seed(seed ^ 0x50_524f_4245),
            file_rng: fastrand::Rng::with_seed(seed ^ 0x46_494c_4553),
            now: Micros(0),
            queue: BinaryHeap::new(),
            order: 0,
            boot: BootId([1; 16]),
            booted: Micros(0),
            agent: None,
            run: 0,
            connection: 0,
            spawner: true,
            holds: None,
            world,
            forwarder: forwarder::Forwarder::new(&config),
            disk: Disk::default(),
            store: None,
            host: host::Host::default(),
            probe_number: 0,
            asked: 0,
            held: Micros(0),
            kill_at_write: None,
            last_fault: Millis(0),
            writes: 0,
            trace: Trace::default(),
            notices: Vec::new(),
            audit: Audit::new(&config),
            config,
        };
        sim.push(Millis(0), Happening::AgentStarts);
        sim
    }

    /// Something goes wrong at a time.
    #[must_use]
    pub fn at(mut self, at: Millis, fault: Fault) -> Self {
        self.last_fault = self.last_fault.max(at);
        self.push_at(Micros(at.0 * 1000), Happening::Fault(fault));
        self
    }

    /// A process is killed at a time.
    #[must_use]
    pub fn crash(self, service: &'static str, at: Millis) -> Self {
        self.at(at, Fault::Crash(service))
    }

    /// Runs until then and returns the story.
    ///
    /// # Panics
    /// When a promise is broken; the seed and the story are in the message.
    #[must_use]
    pub fn run_until(mut self, end: Millis) -> Trace {
        self.go(end);
        self.judge();
        self.trace
    }

    /// Runs until then and returns what people who do not look were told: when, the
    /// number of the alarm, its name, what became of it, and how often it was
    /// repeated.
    ///
    /// # Panics
    /// When a promise is broken; the seed and the story are in the message.
    #[must_use]
    pub fn notices_until(mut self, end: Millis) -> Vec<(Micros, String)> {
        self.go(end);
        self.judge();
        self.notices
    }

    /// Runs until all has been well for a while after the last fault, or until
    /// `end` at the latest: checks that all is well and nothing was left halfway.
    ///
    /// # Panics
    /// When a promise is broken; the seed and the story are in the message.
    #[must_use]
    pub fn run_to_rest(mut self, end: Millis) -> Rest {
        let mut until = self.last_fault;
        let mut calm = 0;
        while calm < CALM_SECONDS && until < end && self.audit.broken.is_empty() {
            until = Millis(until.0 + 1000);
            self.go(until);
            calm = if self.is_calm() { calm + 1 } else { 0 };
        }
        let now = self.now;
        let ids: Vec<ServiceId> = self.world.places.keys().cloned().collect();
        for id in ids {
            if !self.world.sound(&id, now) {
                self.audit
                    .broke(now, format!("{id} is not well in the end"));
            }
            if self
                .world
                .places
                .get(&id)
                .is_some_and(|place| place.slots.values().any(|slot| slot.before.is_some()))
            {
                let what = format!("what a plan replaced in a slot of {id} was left behind");
                self.audit.broke(now, what);
            }
        }
        let (open, beta) = self.agent.as_ref().map_or((1, 0.0), |agent| {
            let budget = agent.budget();
            // The largest that each class's beta can have been.
            let classes = budget.standings().map(|one| budget.bounds(one.class).1);
            (agent.incidents().count(), classes.sum())
        });
        if open > 0 {
            self.audit.broke(now, format!("{open} incidents are open"));
        }
        self.audit.at_rest(now, beta);
        self.judge();
        Rest {
            plans: self.audit.ended_plans(),
            crashes: self.audit.crashes,
            writes: self.writes,
            trace: self.trace,
        }
    }

    /// Every service works, and the agent lives and has nothing to do.
    fn is_calm(&self) -> bool {
        let idle = self
            .agent
            .as_ref()
            .is_some_and(|agent| agent.incidents().next().is_none());
        let mut ids = self.world.places.keys();
        idle && ids.all(|id| self.world.sound(id, self.now))
    }

    fn judge(&self) {
        assert!(
            self.audit.broken.is_empty(),
            "seed {}: {:#?}\n{}",
            self.seed,
            self.audit.broken,
            self.trace
        );
    }

    fn go(&mut self, end: Millis) {
        let end = Micros(end.0 * 1000);
        // A run that has broken promises is lost: it need not be waited for.
        while self.audit.broken.len() < BROKEN_MAX {
            let wake = self.wake_at();
            let next = self.queue.peek().map(|Reverse(entry)| entry.at);
            match (wake, next) {
                (Some(wake), next) if wake <= end && next.is_none_or(|next| wake < next) => {
                    self.now = self.now.max(wake);
                    self.tell(Event::Wake);
                }
                (_, Some(next)) if next <= end => {
                    if let Some(Reverse(entry)) = self.queue.pop() {
                        self.now = self.now.max(next);
                        self.happen(entry.what);
                    }
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// When the loop wants to be woken, on the clock of the simulation; a busy
    /// node wakes it late.
    fn wake_at(&self) -> Option<Micros> {
        let wake = self.agent.as_ref()?.next_wake()?;
        let late = self.host.lateness(wake);
        // A loop that asks for a time in the past is found out by the audit;
        // here it must only not stop the clock.
        let wake = Micros((self.booted.0 + wake.0 + late).max(self.now.0 + 1));
        Some(wake.max(self.held))
    }

    fn push(&mut self, after: Millis, what: Happening) {
        self.push_at(self.now + after, what);
    }

    fn push_us(&mut self, after: u64, what: Happening) {
        self.push_at(Micros(self.now.0 + after), what);
    }

    fn push_at(&mut self, at: Micros, what: Happening) {
        self.order += 1;
        let order = self.order;
        self.queue.push(Reverse(Entry { at, order, what }));
    }
}

/// A run that came to rest.
#[derive(Debug)]
pub struct Rest {
    /// Plans that ended.
    pub plans: usize,
    /// How often the agent lost its memory.
    pub crashes: u32,
    /// Journal writes since the last kill was set up.
    pub writes: u32,
    /// The story.
    pub trace: Trace,
}
