//! `agent run`: feeds the loop with what happens and carries its effects out.
//!
//! One thread runs the loop, the probes, the samples and the connection to the
//! spawner. Whatever can block has a thread of its own: the store
//! ([`super::keeper`]), the link to the broker ([`super::link`]), and model
//! files (here). Decides nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use homeostat_common::anomaly::Exit;
use homeostat_common::ids::{IncidentId, ServiceId};
use homeostat_common::observation::LogCount;
use homeostat_common::units::Micros;
use homeostat_common::wire::body::{Body, Note};
use homeostat_common::wire::projection::{Meta, MetaService, Reply, ServiceHealth, Status};
use homeostat_common::wire::topic::NodeTopics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::clock;
use super::keeper::{self, Keeper, Order, chain};
use super::link::{self, CommandKind, CommandRequest, LinkConfig, LinkEvent, LinkHandle};
use super::logs::{Counts, Tail};
use super::models::ModelFile;
use super::probe::{Outcome as ProbeEnd, ProbeReport, Prober, TargetNo};
use super::procfs::{Host, Process, ServiceReading};
use super::spawner::client::{self, Client, ClientError};
use super::spawner::protocol::{self, SlotView, StopSignal};
use crate::config::{self, Config};
use crate::control::{Class, Effect, Event, HostSample, Loop, ProbeOutcome, SlotReport};
use crate::service::ProcessSample;

/// Events from threads that wait for the loop; each thread has at most a few
/// on the way.
const EVENTS_MAX: usize = 256;

/// Log bytes read per sample and service: 64 KiB/s at the default period.
const LOG_BYTES_MAX: u64 = 64 * 1024;

/// Pause between two tries to reach the spawner.
const SPAWNER_RETRY: Duration = Duration::from_millis(100);

/// Longest question on the control socket.
const QUESTION_MAX: u64 = 64;

/// How long a client of the control socket may take.
const QUESTION_TIME: Duration = Duration::from_secs(2);

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

/// The socket on which a running agent answers `explain`.
#[must_use]
pub fn control_path(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.sock")
}

/// Runs the loop until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`] when it cannot even start; everything later is healed or
/// reported.
pub fn run(config: &Config) -> Result<(), RunError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?
        .block_on(async { Shell::open(config)?.run().await })
}

/// What the model thread is asked.
#[derive(Debug)]
enum FileOrder {
    Check(ServiceId, ModelFile),
    RollBack(ServiceId, ModelFile, homeostat_common::ids::ModelVersion),
    Restore(ServiceId, ModelFile),
    Settle(ServiceId, ModelFile),
}

struct Shell {
    config: Config,
    topics: NodeTopics,
    core: Loop,
    keeper: Keeper,
    store_thread: std::thread::JoinHandle<()>,
    link: Option<LinkHandle>,
    link_thread: Option<std::thread::JoinHandle<()>>,
    files: std::sync::mpsc::SyncSender<FileOrder>,
    events: mpsc::Receiver<Event>,
    link_events: mpsc::Receiver<LinkEvent>,
    prober: Prober,
    targets: BTreeMap<(ServiceId, usize), TargetNo>,
    probed: BTreeMap<TargetNo, (ServiceId, usize)>,
    host: Host,
    processes: BTreeMap<ServiceId, Process>,
    pids: BTreeMap<ServiceId, u32>,
    tails: Vec<(Tail, Counts)>,
    control: Option<UnixListener>,
    /// Orders that found the store's queue full.
    unkept: u64,
}

impl Shell {
    fn open(config: &Config) -> Result<Self, RunError> {
        for path in [&config.node.data_dir, &config.node.run_dir] {
            std::fs::create_dir_all(path).map_err(|source| RunError::Folder {
                path: path.clone(),
                source,
            })?;
        }
        let proc = Path::new("/proc");
        let boot = clock::boot_id(proc)?;
        let (opened, mut store) = keeper::open(config, boot, keeper::trial)?;
        for finding in &opened.findings {
            warn!("store: {finding}");
        }
        store.boot(env!("CARGO_PKG_VERSION"), 0, opened.findings.clone());
        let core = Loop::new(config, boot, opened.resumed, clock::now());
        let (event_sender, events) = mpsc::channel(EVENTS_MAX);
        let (link_sender, link_events) = mpsc::channel(EVENTS_MAX);
        let (backlog, fetches) = link::backlog();
        let mut link = None;
        let mut link_thread = None;
        if let Some(broker) = &config.mqtt.broker {
            let (handle, thread) = link::spawn(
                LinkConfig {
                    host: broker.host.clone(),
                    port: broker.port,
                    reconnect_min: crate::service::span(config.mqtt.reconnect_min),
                    reconnect_max: crate::service::span(config.mqtt.reconnect_max),
                    keep_alive: crate::service::span(config.mqtt.keep_alive),
                    status: Status {
                        online: true,
                        node: config.node.id.clone(),
                        boot,
                        stream: opened.stream,
                        birth: 0,
                        version: env!("CARGO_PKG_VERSION").into(),
                        clock: opened.clock,
                    },
                    meta: meta(config),
                    acked: opened.acked,
                    last: opened.last,
                    patience: link::Patience::default(),
                    seed: fastrand::u64(..),
                },
                backlog,
                link_sender,
            )?;
            link = Some(handle);
            link_thread = Some(thread);
        }
        let (keeper, store_thread) = store.start(event_sender.clone(), fetches, link.clone())?;
        let files = file_thread(event_sender)?;
        let mut prober = Prober::new()?;
        let mut targets = BTreeMap::new();
        let mut probed = BTreeMap::new();
        for service in &config.services {
            let goldens = goldens(service, &config.node.data_dir);
            for (place, probe) in service.probes.iter().enumerate() {
                let target = prober.add(probe, &goldens);
                targets.insert((service.id.clone(), place), target);
                probed.insert(target, (service.id.clone(), place));
            }
        }
        let logs = config.node.data_dir.join("logs");
        let tails = config
            .services
            .iter()
            .filter(|service| service.log)
            .map(|service| {
                let path = logs.join(format!("{}.log", service.id));
                (Tail::from_end(&path), Counts::new(service.id.clone()))
            })
            .collect();
        Ok(Self {
            topics: NodeTopics::new(&config.node.site, &config.node.id),
            core,
            keeper,
            store_thread,
            link,
            link_thread,
            files,
            events,
            link_events,
            prober,
            targets,
            probed,
            host: Host::new(proc, &config.node.data_dir),
            processes: BTreeMap::new(),
            pids: BTreeMap::new(),
            tails,
            control: control(&control_path(&config.node.run_dir)),
            unkept: 0,
            config: config.clone(),
        })
    }

    async fn run(mut self) -> Result<(), RunError> {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut sampling = tokio::time::interval(crate::service::span(self.config.sample.period));
        sampling.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut spawner: Option<Client> = None;
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
                    Ok(event) => self.spawner_event(event),
                    Err(error) => {
                        warn!("spawner: {}", chain(&error));
                        spawner = None;
                        Some(Event::SpawnerLost)
                    }
                },
                report = self.prober.next() => match report {
                    Ok(report) => self.probe_event(report),
                    Err(error) => {
                        warn!("probe: {}", chain(&error));
                        None
                    }
                },
                Some(event) = self.events.recv() => Some(event),
                () = sleep_until(wake) => Some(Event::Wake),
                _ = sampling.tick() => {
                    self.read_logs(&mut spawner).await;
                    Some(self.sample())
                }
                Some(event) = self.link_events.recv() => self.link_event(event),
                stream = accept(self.control.as_ref()) => {
                    self.answer(stream);
                    None
                }
                () = tokio::time::sleep(SPAWNER_RETRY), if spawner.is_none() => None,
            };
            if let Some(event) = event {
                self.step(event, &mut spawner).await;
            }
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

    async fn carry_out(
        &mut self,
        effect: Effect,
        now: Micros,
        spawner: &mut Option<Client>,
    ) -> Option<Event> {
        match effect {
            Effect::Start(service) => {
                let client = spawner.as_ref()?;
                report(&service, "start", client.start(&service).await);
            }
            Effect::Stop(service, instance) => {
                let client = spawner.as_ref()?;
                let sent = client.signal(&service, instance, StopSignal::Term).await;
                report(&service, "stop", sent);
            }
            Effect::Kill(service, instance) => {
                let client = spawner.as_ref()?;
                let sent = client.signal(&service, instance, StopSignal::Kill).await;
                report(&service, "kill", sent);
            }
            Effect::Probe(service, probe) => {
                let target = *self.targets.get(&(service.clone(), probe))?;
                return match self.prober.start(target) {
                    Ok(number) => Some(Event::ProbeSent {
                        service,
                        probe,
                        number,
                    }),
                    Err(error) => {
                        // A hung service: its timeouts have been told already.
                        debug!("probe of {service}: {}", chain(&error));
                        None
                    }
                };
            }
            Effect::ForgetProbes(service) => {
                for ((of, _), target) in &self.targets {
                    if *of == service {
                        self.prober.forget(*target);
                    }
                }
            }
            Effect::Sample => return Some(self.sample()),
            Effect::CheckModel(service) => self.file(&service, FileOrder::Check),
            Effect::RollbackModel(service, to) => {
                self.file(&service, |id, file| FileOrder::RollBack(id, file, to));
            }
            Effect::RestoreModel(service) => self.file(&service, FileOrder::Restore),
            Effect::SettleModel(service) => self.file(&service, FileOrder::Settle),
            Effect::Journal(record) => self.order(Order::Journal(record)),
            Effect::Sync(ticket) => {
                if !self.keeper.order(Order::Sync(ticket)) {
                    // The disk hangs: a plan goes on without its record.
                    return Some(Event::Synced(ticket));
                }
            }
            Effect::Quiet => self.order(Order::Quiet),
            Effect::Remember => self.order(Order::Remember(self.core.saved(now))),
            Effect::Emit {
                mark,
                class,
                causes,
                body,
            } => {
                self.show(self.topics.event(body.kind_name()), &body);
                self.order(Order::Event {
                    mark,
                    class,
                    causes,
                    body: Box::new(body),
                });
            }
            Effect::ShowHealth(service) => {
                if let Some(health) = self.health(&service, now) {
                    self.show(self.topics.health(&service), &health);
                }
            }
            Effect::ShowAct(plan, step) => self.show_or_clear(self.topics.act(plan), step),
            Effect::ShowAlarm(name, alarm) => self.show_or_clear(self.topics.alarm(&name), alarm),
        }
        None
    }

    fn order(&mut self, order: Order) {
        if !self.keeper.order(order) {
            self.unkept += 1;
            if self.unkept.is_power_of_two() {
                warn!(
                    "store: {} records are lost, the disk does not keep up",
                    self.unkept
                );
            }
        }
    }

    fn show<T: serde::Serialize>(&self, topic: String, value: &T) {
        self.show_or_clear(topic, Some(value));
    }

    fn show_or_clear<T: serde::Serialize>(&self, topic: String, value: Option<T>) {
        let Some(link) = &self.link else {
            return;
        };
        let payload = value.map_or(Ok(Vec::new()), |value| serde_json::to_vec(&value));
        if let Ok(payload) = payload
            && let Some(projection) = link::Projection::new(topic, payload)
        {
            link.publish(projection);
        }
    }

    fn health(&self, id: &ServiceId, now: Micros) -> Option<ServiceHealth> {
        let watched = self
            .core
            .services()
            .find(|watched| watched.policy.id == *id)?;
        let level = watched.service_level();
        let latency =
            |place: usize| level.and_then(|level| level.latency_ms.get(place).copied().flatten());
        let held = self.core.held_until(id).filter(|until| *until > now);
        Some(ServiceHealth {
            service: id.clone(),
            state: watched.state(now),
            instance: watched.instance(),
            availability: level.map(|level| level.availability),
            latency_p50_ms: latency(0),
            latency_p95_ms: latency(1),
            memory_resident: watched.sample.resident.fresh().map(|bytes| bytes.0 as f64),
            cpu_used: watched.sample.cpu.fresh().map(f64::from),
            held_for_s: held.map(|until| until.since(now).as_secs_f64()),
        })
    }

    fn file(&mut self, service: &ServiceId, order: impl FnOnce(ServiceId, ModelFile) -> FileOrder) {
        let model = self
            .config
            .service(service)
            .and_then(|service| service.model.as_ref());
        if let Some(model) = model {
            let file = ModelFile::new(model, &self.config.node.data_dir);
            if self.files.try_send(order(service.clone(), file)).is_err() {
                warn!("{service}: model files are not answered; is their disk hanging?");
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
        self.step(Event::Slots(reports), spawner).await;
        // The first look, so that decisions need not wait for a period.
        let sample = self.sample();
        self.step(sample, spawner).await;
    }

    fn watch(&mut self, service: &ServiceId, pid: u32) {
        self.pids.insert(service.clone(), pid);
        self.processes
            .insert(service.clone(), Process::new(Path::new("/proc"), pid));
    }

    fn spawner_event(&mut self, event: client::Event) -> Option<Event> {
        Some(match event {
            client::Event::Started {
                service,
                instance,
                pid,
            } => {
                self.watch(&service, pid);
                Event::Started { service, instance }
            }
            client::Event::Refused { service, why } => {
                let (live, why) = match why {
                    protocol::Refusal::Occupied { instance } => {
                        (Some(instance), "it runs already".to_owned())
                    }
                    protocol::Refusal::Unknown => (
                        None,
                        "the spawner's configuration does not name it".to_owned(),
                    ),
                    protocol::Refusal::Spawn { text } => (None, text),
                };
                Event::StartRefused { service, live, why }
            }
            client::Event::Died { service, instance } => {
                self.processes.remove(&service);
                self.pids.remove(&service);
                Event::Died { service, instance }
            }
            client::Event::Exited {
                service,
                instance,
                status,
            } => Event::Exited {
                service,
                instance,
                exit: exit_of(status),
            },
            client::Event::MemoryLimit {
                service,
                not_enforced: Some(why),
                ..
            } => {
                self.note(
                    Some(service.clone()),
                    format!("the memory limit of {service} is not enforced: {why}"),
                );
                return None;
            }
            client::Event::MemoryLimit { .. }
            | client::Event::Signalled { .. }
            | client::Event::NotSignalled { .. }
            | client::Event::Reloaded => return None,
            client::Event::NotReloaded { why } => {
                warn!("spawner: {why}");
                return None;
            }
            client::Event::Malformed => {
                warn!("spawner: it could not read a request");
                return None;
            }
        })
    }

    fn note(&mut self, service: Option<ServiceId>, text: String) {
        let body = Body::Note(Note { service, text });
        self.show(self.topics.event(body.kind_name()), &body);
        self.order(Order::Event {
            mark: 0,
            class: Class::State,
            causes: Vec::new(),
            body: Box::new(body),
        });
    }

    fn probe_event(&mut self, report: ProbeReport) -> Option<Event> {
        let (service, probe) = self.probed.get(&report.target)?.clone();
        Some(Event::Probed {
            service,
            probe,
            number: report.probe,
            outcome: match report.outcome {
                ProbeEnd::Alive { latency } => ProbeOutcome::Right {
                    latency_us: u32::try_from(latency.as_micros()).unwrap_or(u32::MAX),
                },
                ProbeEnd::Wrong(wrong) => ProbeOutcome::Wrong(wrong.to_string()),
                ProbeEnd::Refused => ProbeOutcome::Refused,
                ProbeEnd::TimedOut => ProbeOutcome::TimedOut,
            },
            late: report.late,
        })
    }

    fn sample(&mut self) -> Event {
        let now = clock::now();
        let host = self.host.sample(now);
        let sample = HostSample {
            cpu_busy: host.cpu_busy,
            cpu_pressure: host.cpu_pressure,
            io_pressure: host.io_pressure,
            memory_pressure: host.memory_pressure,
            memory_available: host.memory_available,
            disk_free: host.disk_free,
            inodes_free: host.inodes_free,
            own: process_of(&host.own),
            backlog: self.keeper.backlog(),
        };
        let processes = self
            .processes
            .iter_mut()
            .map(|(id, process)| (id.clone(), process_of(&process.sample(now))))
            .collect();
        Event::Sample(sample, processes)
    }

    async fn read_logs(&mut self, spawner: &mut Option<Client>) {
        let mut all: Vec<LogCount> = Vec::new();
        for (tail, counts) in &mut self.tails {
            let tally = tail.poll(LOG_BYTES_MAX, |line| counts.add(line));
            if tally.lines > 0 {
                all.extend(counts.take().0);
            }
        }
        if !all.is_empty() {
            self.step(Event::Logs(all), spawner).await;
        }
    }

    fn link_event(&mut self, event: LinkEvent) -> Option<Event> {
        match event {
            LinkEvent::Connected { birth, .. } => {
                info!("broker: connected ({birth})");
                Some(Event::Link(true))
            }
            LinkEvent::Disconnected { reason } => {
                warn!("broker: {reason}");
                Some(Event::Link(false))
            }
            LinkEvent::Acked { through } => {
                self.order(Order::Acked(through));
                None
            }
            LinkEvent::CoordinatorOnline(online) => {
                info!(
                    "coordinator: {}",
                    if online { "listens" } else { "does not listen" }
                );
                None
            }
            LinkEvent::Command(request) => {
                self.answer_command(request);
                None
            }
        }
    }

    fn answer_command(&self, request: CommandRequest) {
        let Some(link) = &self.link else {
            return;
        };
        let payload = match request.kind {
            CommandKind::Ping => serde_json::to_vec(&Reply::Ok {
                value: env!("CARGO_PKG_VERSION"),
            }),
            CommandKind::Snapshot => serde_json::to_vec(&Reply::Ok {
                value: self.core.snapshot(clock::now()),
            }),
        };
        if let Ok(payload) = payload {
            link.reply(request, payload);
        }
    }

    /// Answers a question on the control socket, beside the loop.
    fn answer(&self, stream: UnixStream) {
        let keeper = self.keeper.clone();
        tokio::spawn(tokio::time::timeout(QUESTION_TIME, async move {
            let mut stream = stream;
            let mut question = String::new();
            let (reader, mut writer) = stream.split();
            if reader
                .take(QUESTION_MAX)
                .read_to_string(&mut question)
                .await
                .is_err()
            {
                return;
            }
            let incident = question.trim().parse().ok().map(IncidentId);
            let (reply, answer) = oneshot::channel();
            if keeper.order(Order::Explain(incident, reply))
                && let Ok(text) = answer.await
            {
                let _ = writer.write_all(text.as_bytes()).await;
            }
        }));
    }

    fn close(mut self) -> Result<(), RunError> {
        self.order(Order::Remember(self.core.saved(clock::now())));
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

fn report(service: &ServiceId, what: &str, result: Result<(), ClientError>) {
    // A lost connection shows in `next`; the step's deadline covers the rest.
    if let Err(error) = result {
        warn!("spawner: cannot {what} {service}: {}", chain(&error));
    }
}

async fn next_of(spawner: &mut Option<Client>) -> Result<client::Event, ClientError> {
    match spawner {
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

fn control(path: &Path) -> Option<UnixListener> {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path)
        .map_err(|error| warn!("{}: no answers to explain: {error}", path.display()))
        .ok()
}

fn exit_of(exit: protocol::Exit) -> Exit {
    match exit {
        protocol::Exit::Code(code) => Exit::Code(code),
        protocol::Exit::Signal(signal) => Exit::Signal(signal),
        protocol::Exit::Unknown => Exit::Unknown,
    }
}

fn process_of(reading: &ServiceReading) -> ProcessSample {
    ProcessSample {
        resident: reading.resident,
        cpu: reading.cpu,
        descriptors: reading.descriptors,
        threads: reading.threads,
        run_delay: reading.run_delay,
    }
}

/// Golden vectors of the service's model, for probes that list none.
fn goldens(service: &config::Service, data_dir: &Path) -> Vec<config::Golden> {
    let Some(model) = &service.model else {
        return Vec::new();
    };
    match ModelFile::new(model, data_dir).manifest() {
        Ok(manifest) => manifest
            .golden
            .vectors
            .into_iter()
            .take(config::GOLDENS_MAX)
            .map(|vector| config::Golden {
                inputs: vector.input,
                outputs: vector.output,
                tolerance: manifest.golden.tolerance,
            })
            .collect(),
        Err(error) => {
            warn!("{}: no golden inputs: {}", service.id, chain(&error));
            Vec::new()
        }
    }
}

fn meta(config: &Config) -> Meta {
    use homeostat_common::observation::Metric;
    Meta {
        node: config.node.id.clone(),
        site: config.node.site.clone(),
        services: config
            .services
            .iter()
            .map(|service| MetaService {
                service: service.id.clone(),
                acts: service.mode == config::Mode::Act && !service.protected,
                criticality: match service.criticality {
                    config::Criticality::BestEffort => "best-effort",
                    config::Criticality::Business => "business",
                    config::Criticality::Mission => "mission",
                }
                .into(),
                depends_on: service.depends_on.clone(),
            })
            .collect(),
        primitives: ["restart", "rollback-model", "probe", "wait"]
            .map(String::from)
            .into(),
        metrics: Metric::ALL
            .iter()
            .map(|metric| (metric.name().into(), metric.unit().into()))
            .collect(),
    }
}

/// Model files on a thread of their own: a hanging disk must not stop the loop.
fn file_thread(
    events: mpsc::Sender<Event>,
) -> std::io::Result<std::sync::mpsc::SyncSender<FileOrder>> {
    let (orders, queue) = std::sync::mpsc::sync_channel::<FileOrder>(EVENTS_MAX);
    std::thread::Builder::new()
        .name("models".into())
        .spawn(move || {
            for order in queue {
                let event = match order {
                    FileOrder::Check(service, file) => match file.check() {
                        Ok(found) => Event::ModelChecked {
                            service,
                            found: found.file,
                            verified: found.verified,
                        },
                        Err(error) => {
                            warn!("{service}: {}", chain(&error));
                            continue;
                        }
                    },
                    FileOrder::RollBack(service, file, to) => Event::FileDone {
                        service,
                        result: file.roll_back(to).map_err(|error| chain(&error)),
                    },
                    FileOrder::Restore(service, file) => Event::FileDone {
                        service,
                        result: file.restore().map_err(|error| chain(&error)),
                    },
                    FileOrder::Settle(service, file) => {
                        if let Err(error) = file.settle() {
                            warn!("{service}: {}", chain(&error));
                        }
                        continue;
                    }
                };
                if events.blocking_send(event).is_err() {
                    break;
                }
            }
        })?;
    Ok(orders)
}
