//! `agent run`: feeds the loop with what happens and carries its effects out.
//!
//! One thread runs the loop, the probes, the samples and the connection to the
//! spawner. Whatever can block has a thread of its own: the store
//! ([`super::keeper`]), the link to the broker ([`super::link`]), slots
//! ([`super::slots`]) and data folders ([`super::data`]). Decides nothing.

mod effects;
mod incoming;
mod notices;
mod orders;
mod page;
pub mod question;
mod reload;
mod setup;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use homeostat_common::ids::{Instance, ServiceId, StreamId};
use homeostat_common::observation::Reading;
use homeostat_common::plan::Plan;
use homeostat_common::saga::FleetPlan;
use homeostat_common::units::Micros;
use homeostat_common::wire::body::{Body, Boot};
use homeostat_common::wire::seal::Signer;
use homeostat_common::wire::topic::NodeTopics;
use homeostat_notify::{Report, Webhooks};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use self::incoming::{exit_of, forwarder_event};
use self::notices::hook_event;
use super::clock;
use super::data;
use super::depend::{Broker, Dependencies};
use super::forward;
use super::keeper::{Keeper, Order, chain};
use super::link::{LinkEvent, LinkHandle};
use super::local::lock::Holder;
use super::logs::Logs;
use super::probe::{Prober, TargetNo};
use super::procfs::strangers::Strangers;
use super::procfs::{Host, Membership, Process};
use super::slots::thread as slots;
use super::spawner::cgroup;
use super::spawner::client::{self, Client, ClientError, Lives};
use super::spawner::protocol::SlotView;
use super::thermal::Thermal;
use crate::chaos::Wish;
use crate::config::{Config, Golden};
use crate::control::{Class, Command, Effect, Event, Loop, SlotReport};
use crate::io::mcu::feed::Feed;

/// Log bytes read per sample and service: 64 KiB/s at the default period.
const LOG_BYTES_MAX: u64 = 64 * 1024;

/// Pause between two tries to reach the spawner.
const SPAWNER_RETRY: Duration = Duration::from_millis(100);

/// How long the record of the start waits for a spawner, which usually answers
/// within milliseconds.
const STARTING_MAX: Duration = Duration::from_secs(5);

/// Why the agent cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A folder it needs cannot be made.
    #[error("cannot create {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another agent runs there.
    #[error("another agent already runs: {holder} has {}", path.display())]
    Second {
        /// The lock both want.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// What says that this is the only agent cannot be had.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The kernel's boot id cannot be read.
    #[error(transparent)]
    Clock(#[from] clock::ClockError),
    /// Probes cannot be made.
    #[error(transparent)]
    Probe(#[from] super::probe::ProbeError),
    /// The system gives no thread, socket or event queue.
    #[error("cannot set up the agent")]
    System(#[from] std::io::Error),
}

/// The socket on which a running agent answers `explain` and `slot`.
#[must_use]
pub fn control_path(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.sock")
}

/// Runs the loop until SIGTERM or SIGINT; SIGHUP has it read `file` again.
///
/// # Errors
/// [`RunError`] when it cannot even start; everything later is healed or
/// reported.
pub fn run(config: &Config, file: &Path) -> Result<(), RunError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?
        .block_on(async { Shell::open(config, file)?.run().await })
}

/// Where the answer to a wish for a reload goes, if anybody waits for one.
type ReloadReply = Option<oneshot::Sender<Result<String, String>>>;

/// How readings are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Prometheus,
    Table,
    Json,
}

/// What a person may ask of the loop.
#[derive(Debug)]
enum Asked {
    /// A plan.
    Plan(Plan),
    /// A plan across nodes.
    Across(FleetPlan),
    /// Its parts of plans across nodes, in words.
    Parts,
    /// What is known of one of them.
    Part(String),
    /// Something that people control, and who.
    Order(String, Command),
    /// The last readings, in this form.
    Readings(Form),
    /// A fault on purpose.
    Chaos(Wish),
    /// The end of a fault on purpose; the spawner's to answer.
    Mend,
}

/// What a person asks for, and where the answer goes.
type Question = (Asked, oneshot::Sender<Result<String, String>>);

struct Shell {
    config: Arc<Config>,
    forwarder: Option<forward::client::Client>,
    /// A connection to the forwarder that is being made, and where it comes from.
    connecting: Option<tokio::task::JoinHandle<()>>,
    connections: (
        mpsc::Sender<forward::client::Client>,
        mpsc::Receiver<forward::client::Client>,
    ),
    topics: NodeTopics,
    core: Loop,
    keeper: Keeper,
    store_thread: std::thread::JoinHandle<()>,
    link: Option<LinkHandle>,
    link_thread: Option<std::thread::JoinHandle<()>>,
    files: std::sync::mpsc::SyncSender<slots::Order>,
    reports: mpsc::Receiver<slots::Report>,
    data: std::sync::mpsc::SyncSender<data::Order>,
    /// Where the configuration came from.
    file: PathBuf,
    /// A configuration that the spawner is reading, and who waits for it.
    reloading: Option<(Box<Config>, ReloadReply)>,
    reloads: (mpsc::Sender<ReloadReply>, mpsc::Receiver<ReloadReply>),
    /// Lives that were asked to end, and when they are ended.
    retiring: Vec<(tokio::time::Instant, ServiceId, Instance)>,
    /// People who asked for a plan and wait for an answer.
    asked: BTreeMap<u64, oneshot::Sender<Result<String, String>>>,
    questions: (mpsc::Sender<Question>, mpsc::Receiver<Question>),
    next_ticket: u64,
    events: mpsc::Receiver<Event>,
    /// For answers to deeds that are carried out beside the loop.
    acted: mpsc::Sender<Event>,
    link_events: mpsc::Receiver<LinkEvent>,
    prober: Prober,
    targets: BTreeMap<(ServiceId, usize), TargetNo>,
    /// What the probes of services with a model ask now.
    goldens: BTreeMap<ServiceId, Vec<Golden>>,
    probed: BTreeMap<TargetNo, (ServiceId, usize)>,
    host: Host,
    dependencies: Dependencies,
    broker: Broker,
    thermal: Thermal,
    /// Processors; asking the kernel each time costs more than a sample.
    cores: Reading<u16>,
    strangers: Strangers,
    processes: BTreeMap<ServiceId, Process>,
    pids: BTreeMap<ServiceId, u32>,
    /// Microcontrollers that watch metrics of this node.
    feeds: Vec<Feed>,
    logs: Logs,
    control: Option<UnixListener>,
    /// Orders that found the store's queue full.
    unkept: u64,
    /// What is told of the start, until it is known what was taken over.
    starting: Option<Boot>,
    webhooks: Webhooks,
    hook_reports: mpsc::Receiver<Report>,
    /// Names this node's events, and so its notices.
    stream: StreamId,
    /// The wall clock as the windows of the configuration need it.
    wall: clock::Wall,
    /// Orders that were refused, by whose name they came under.
    refusals: orders::Refusals,
    /// When somebody was told that they are not obeyed.
    hinted: Option<std::time::Instant>,
    /// What orders to other nodes are signed with, once one was.
    signer: Option<Signer>,
    /// Whether the file `STOP` was there when it was looked for last.
    stop_seen: bool,
    /// Says that this is the only agent here, for as long as it is open.
    _lock: File,
}

impl Shell {
    async fn run(mut self) -> Result<(), RunError> {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut asking = tokio::time::interval(crate::service::span(self.config.sample.period));
        asking.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut glancing = tokio::time::interval(crate::service::span(self.config.sample.pressure));
        glancing.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let starting = tokio::time::Instant::now() + STARTING_MAX;
        if let Some(at) = self.config.sample.metrics {
            tokio::spawn(page::serve(at, self.questions.0.clone()));
        }
        self.clear_former_alarms();
        let mut spawner: Option<Client> = None;
        let mut lives = Lives::default();
        // Before anything is decided.
        if let Some(stopped) = self.look_for_stop() {
            self.step(stopped, &mut spawner).await;
        }
        let mut complained = false;
        info!(
            "node {} at {}: {} services",
            self.config.node.id,
            self.config.node.site,
            self.config.services.len()
        );
        loop {
            if spawner.is_none() {
                match Client::connect(&self.config.node.run_dir).await {
                    Ok((client, slots)) => {
                        complained = false;
                        spawner = Some(client);
                        lives = Lives::default();
                        self.adopt(slots, &mut spawner).await;
                    }
                    Err(error) => {
                        if !complained {
                            warn!("spawner: {}", chain(&error));
                            complained = true;
                        }
                    }
                }
            }
            let wake = self.core.next_wake();
            let event = tokio::select! {
                biased;
                _ = term.recv() => break,
                _ = interrupt.recv() => break,
                event = next_of(&mut spawner) => match event {
                    Ok(event) => self.spawner_event(event).await,
                    Err(error) => {
                        warn!("spawner: {}", chain(&error));
                        lives = spawner.take().map(Client::lives).unwrap_or_default();
                        self.not_reloaded("the spawner was lost".into());
                        Some(Event::SpawnerLost)
                    }
                },
                (service, instance) = lives.ended() => {
                    self.processes.remove(&service);
                    self.pids.remove(&service);
                    Some(Event::Died { service, instance })
                }
                said = heard(&mut self.forwarder) => match said {
                    Ok(said) => forwarder_event(said),
                    Err(error) => {
                        info!("forwarder: {}", chain(&error));
                        self.forwarder = None;
                        Some(Event::ForwarderLost)
                    }
                },
                Some(client) = self.connections.1.recv() => {
                    self.forwarder = Some(client);
                    self.ask_forwarder()
                }
                // Before the probes: on a node so busy that there is always a probe to be
                // looked at, a forwarder that nobody asks must not pass for silent.
                _ = asking.tick() => self.ask_forwarder(),
                report = self.prober.next() => match report {
                    Ok(report) => {
                        if let Some(told) = self.told(&report) {
                            self.step(told, &mut spawner).await;
                        }
                        self.probe_event(&report)
                    }
                    Err(error) => {
                        warn!("probe: {}", chain(&error));
                        None
                    }
                },
                Some(event) = self.events.recv() => Some(event),
                Some(report) = self.reports.recv() => self.slot_report(report),
                () = sleep_until(wake) => Some(Event::Wake),
                _ = glancing.tick() => {
                    self.host.glance(clock::now());
                    None
                }
                Some(reply) = self.reloads.1.recv() => {
                    self.reload(reply, &spawner).await;
                    None
                }
                _ = hangup.recv() => {
                    self.reload(None, &spawner).await;
                    None
                }
                Some((asked, reply)) = self.questions.1.recv() => {
                    self.take_question(asked, reply, &spawner).await
                }
                Some(report) = self.hook_reports.recv() => hook_event(report),
                Some(event) = self.link_events.recv() => self.link_event(event),
                stream = accept(self.control.as_ref()) => {
                    self.answer(stream);
                    None
                }
                () = tokio::time::sleep_until(starting), if self.starting.is_some() => {
                    self.tell_start(0);
                    None
                }
                () = tokio::time::sleep(SPAWNER_RETRY), if spawner.is_none() => None,
            };
            let Some(event) = event else {
                continue;
            };
            // This step may ask for a sample: what goes with each of them goes before it.
            if self.core.samples_next(clock::now()) {
                self.read_logs(&mut spawner).await;
                self.end_retired(&spawner).await;
                if let Some(changed) = self.look_for_stop() {
                    self.step(changed, &mut spawner).await;
                }
            }
            self.step(event, &mut spawner).await;
        }
        info!("ending; the services go on");
        self.close()
    }

    /// Moves the loop, carries out what it wants, and feeds back what is known
    /// at once.
    async fn step(&mut self, event: Event, spawner: &mut Option<Client>) {
        let mut waiting = vec![event];
        while let Some(event) = waiting.pop() {
            let now = clock::now();
            let effects = self.core.step(now, event);
            let mut learn = false;
            for effect in effects {
                learn |= matches!(effect, Effect::Remember);
                if let Some(event) = self.carry_out(effect, now, spawner).await {
                    waiting.push(event);
                }
            }
            if learn {
                self.order(Order::Learn(self.core.experience().clone()));
            }
        }
    }

    async fn adopt(&mut self, slots: Vec<SlotView>, spawner: &mut Option<Client>) {
        let mut reports = Vec::new();
        for slot in slots {
            if let Some((_, pid)) = slot.live {
                self.watch(&slot.service, pid);
            }
            reports.push(SlotReport {
                service: slot.service,
                live: slot.live.map(|(instance, _)| instance),
                last: slot
                    .last_exit
                    .map(|(instance, exit)| (instance, exit_of(exit))),
            });
        }
        let live = reports.iter().filter(|slot| slot.live.is_some()).count();
        if live > 0 {
            info!("spawner: {live} services run already and are taken over");
        }
        self.tell_start(live);
        self.step(Event::Slots(reports), spawner).await;
        // The first look, so that decisions need not wait for a period.
        let sample = self.sample();
        self.step(sample, spawner).await;
    }

    /// Records that the agent has started, once.
    fn tell_start(&mut self, adopted: usize) {
        if let Some(boot) = self.starting.take() {
            let adopted = u16::try_from(adopted).unwrap_or(u16::MAX);
            self.order(Order::Event {
                mark: 0,
                class: Class::State,
                causes: Vec::new(),
                body: Box::new(Body::Boot(Boot { adopted, ..boot })),
            });
        }
    }

    fn watch(&mut self, service: &ServiceId, pid: u32) {
        self.pids.insert(service.clone(), pid);
        let proc = Path::new("/proc");
        let owned = self
            .config
            .service(service)
            .is_some_and(|service| !matches!(service.process, crate::config::Process::Command(_)));
        let process = match self.group(service) {
            Some(group) => Process::in_group(proc, pid, Membership::Named(group)),
            None if owned => Process::in_group(proc, pid, Membership::Own),
            None => Process::new(proc, pid),
        };
        self.processes.insert(service.clone(), process);
    }

    /// The group of a service, if it is to have one.
    fn group(&self, service: &ServiceId) -> Option<String> {
        let limit = self.config.service(service)?.memory_limit;
        limit.map(|_| cgroup::name(&self.config.node.id, service))
    }

    async fn read_logs(&mut self, spawner: &mut Option<Client>) {
        let now = clock::now();
        let all = self.logs.look(now, LOG_BYTES_MAX);
        if let Some(changes) = self.logs.changes(now, false) {
            self.order(Order::Templates(changes));
        }
        if !all.is_empty() {
            self.step(Event::Logs(all), spawner).await;
        }
    }

    fn close(mut self) -> Result<(), RunError> {
        self.tell_start(0);
        self.order(Order::Remember(Box::new(self.core.saved(clock::now()))));
        if let Some(changes) = self.logs.changes(clock::now(), true) {
            self.order(Order::Templates(changes));
        }
        self.order(Order::Close);
        if let Some(link) = &self.link {
            link.stop();
        }
        for thread in self.link_thread.into_iter().chain([self.store_thread]) {
            if thread.join().is_err() {
                warn!("a thread of the agent has panicked");
            }
        }
        let _ = std::fs::remove_file(control_path(&self.config.node.run_dir));
        Ok(())
    }
}

async fn next_of(spawner: &mut Option<Client>) -> Result<client::Event, ClientError> {
    match spawner {
        Some(client) => client.next().await,
        None => std::future::pending().await,
    }
}

async fn heard(
    forwarder: &mut Option<forward::client::Client>,
) -> Result<forward::client::Event, forward::client::ClientError> {
    match forwarder {
        Some(client) => client.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(wake: Option<Micros>) {
    match wake {
        // Even what is due already lets the runtime look at its sockets first:
        // whatever the loop wants, probes and the spawner are never starved.
        Some(wake) if wake <= clock::now() => tokio::task::yield_now().await,
        Some(wake) => clock::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

async fn accept(listener: Option<&UnixListener>) -> UnixStream {
    loop {
        match listener {
            Some(listener) => {
                if let Ok((stream, _)) = listener.accept().await {
                    return stream;
                }
                // Out of descriptors, say: not in a hot loop.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            None => std::future::pending().await,
        }
    }
}
