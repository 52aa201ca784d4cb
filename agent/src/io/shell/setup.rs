//! Opens everything that the shell needs, once, at the start.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::Reading;
use homeostat_common::wire::body::Boot;
use homeostat_common::wire::projection::{Meta, MetaService, Status};
use homeostat_common::wire::topic::NodeTopics;
use homeostat_notify::{Patience, Reports, Webhooks};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tracing::warn;

use super::{RunError, Shell, control_path};
use crate::config::{self, Config};
use crate::control::Loop;
use crate::io::clock;
use crate::io::data;
use crate::io::depend::{Broker, Dependencies};
use crate::io::keeper;
use crate::io::link::{self, LinkConfig};
use crate::io::local::lock::{self, Taken};
use crate::io::logs::Logs;
use crate::io::mcu::feed::Feed;
use crate::io::probe::{ProbeError, Prober, TargetNo};
use crate::io::procfs::strangers::Strangers;
use crate::io::procfs::{Host, Places};
use crate::io::slots::{Name, Slot, thread as slots};
use crate::io::thermal::Thermal;

/// Events from threads that wait for the loop; each thread has at most a few
/// on the way.
const EVENTS_MAX: usize = 256;

/// How long the lock may take: one that was killed leaves it to a child until that has
/// reached its `exec`.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(500);

/// What webhooks see of who sends.
const PROGRAM: &str = concat!("homeostat-agent/", env!("CARGO_PKG_VERSION"));

/// Plans that people ask for at the same time.
const QUESTIONS_MAX: usize = 4;

impl Shell {
    pub(super) fn open(config: &Config, file: &Path) -> Result<Self, RunError> {
        let [run_dir, data_dir] = [&config.node.run_dir, &config.node.data_dir];
        folder(run_dir)?;
        // Before anything that a running agent uses is touched.
        let lock = only_one(run_dir)?;
        folder(data_dir)?;
        let proc = Path::new("/proc");
        let boot = clock::boot_id(proc)?;
        let (opened, store) = keeper::open(config, boot, keeper::trial)?;
        for finding in &opened.findings {
            warn!("store: {finding}");
        }
        let starting = Boot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: boot,
            clock: opened.clock,
            adopted: 0,
            findings: opened.findings,
        };
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
                        acked: opened.acked,
                    },
                    meta: meta(config),
                    trusted: config.orders.trusted.clone(),
                    intake: config.intake.clone(),
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
        let (report_sender, reports) = mpsc::channel(EVENTS_MAX);
        let files = slots::start(report_sender)?;
        let snapshots = config.node.data_dir.join("snapshots");
        let data = data::start(snapshots, event_sender.clone())?;
        let feeds = config.mcus.iter();
        let period = config.sample.period;
        let feeds = feeds.map(|mcu| Feed::start(mcu, period, boot, event_sender.clone()));
        let feeds = feeds.collect::<Result<Vec<Feed>, std::io::Error>>()?;
        let (hook_sender, hook_reports) = mpsc::channel(EVENTS_MAX);
        let report: Reports = Arc::new(move |report| hook_sender.try_send(report).is_ok());
        let hooks = &config.webhooks;
        let webhooks = Webhooks::start(hooks, Patience::default(), PROGRAM, &report)?;
        let clock_file = config.node.data_dir.join("clock");
        let wall = clock::Wall::open(&clock_file, config.clock.offset_ms)
            .unwrap_or_else(|_| clock::Wall::fresh(&clock_file, config.clock.offset_ms));
        let Senses {
            prober,
            targets,
            probed,
            goldens,
        } = Senses::of(config)?;
        let logs = Logs::new(config, opened.templates);
        Ok(Self {
            topics: NodeTopics::new(&config.node.site, &config.node.id),
            core,
            keeper,
            store_thread,
            link,
            link_thread,
            files,
            reports,
            forwarder: None,
            connecting: None,
            connections: mpsc::channel(1),
            data,
            file: std::path::absolute(file)?,
            reloading: None,
            reloads: mpsc::channel(QUESTIONS_MAX),
            retiring: Vec::new(),
            asked: BTreeMap::new(),
            questions: mpsc::channel(QUESTIONS_MAX),
            next_ticket: 0,
            acted: event_sender,
            events,
            link_events,
            prober,
            targets,
            goldens,
            probed,
            host: host(config),
            dependencies: Dependencies::start(&config.dependencies),
            broker: Broker::default(),
            thermal: Thermal::new(&config.foresee),
            cores: Reading::from(
                std::thread::available_parallelism()
                    .ok()
                    .and_then(|cores| u16::try_from(cores.get()).ok()),
            ),
            strangers: Strangers::new(proc),
            processes: BTreeMap::new(),
            pids: BTreeMap::new(),
            feeds,
            logs,
            control: control(&control_path(&config.node.run_dir)),
            unkept: 0,
            starting: Some(starting),
            webhooks,
            hook_reports,
            stream: opened.stream,
            wall,
            refusals: BTreeMap::new(),
            hinted: None,
            signer: None,
            stop_seen: false,
            _lock: lock,
            config: Arc::new(config.clone()),
        })
    }
}

/// The node, by the configuration.
pub(super) fn host(config: &Config) -> Host {
    Host::new(&Places {
        proc: Path::new("/proc"),
        sys: &config.sample.sysfs,
        data_dir: &config.node.data_dir,
        file_systems: &config.sample.file_systems,
    })
}

/// Whom to ask and what to read, by the configuration.
pub(super) struct Senses {
    pub(super) prober: Prober,
    pub(super) targets: BTreeMap<(ServiceId, usize), TargetNo>,
    pub(super) probed: BTreeMap<TargetNo, (ServiceId, usize)>,
    pub(super) goldens: BTreeMap<ServiceId, Vec<config::Golden>>,
}

impl Senses {
    pub(super) fn of(config: &Config) -> Result<Self, ProbeError> {
        let mut prober = Prober::new()?;
        let mut targets = BTreeMap::new();
        let mut probed = BTreeMap::new();
        let mut goldens = BTreeMap::new();
        for service in &config.services {
            let asked = goldens_of(service, &config.node.data_dir);
            for (place, probe) in service.probes.iter().enumerate() {
                let target = prober.add(probe, &asked);
                targets.insert((service.id.clone(), place), target);
                probed.insert(target, (service.id.clone(), place));
            }
            goldens.insert(service.id.clone(), asked);
        }
        Ok(Self {
            prober,
            targets,
            probed,
            goldens,
        })
    }
}

fn folder(path: &Path) -> Result<(), RunError> {
    std::fs::create_dir_all(path).map_err(|source| RunError::Folder {
        path: path.to_owned(),
        source,
    })
}

/// Takes the lock that makes this the only agent in `run_dir`.
fn only_one(run_dir: &Path) -> Result<File, RunError> {
    let path = run_dir.join("agent.lock");
    match lock::take(&path, LOCK_WAIT_MAX) {
        Ok(Taken::Held(file)) => Ok(file),
        Ok(Taken::By(holder)) => Err(RunError::Second { path, holder }),
        Err(source) => Err(RunError::Lock { path, source }),
    }
}

fn control(path: &Path) -> Option<UnixListener> {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path)
        .map_err(|error| warn!("{}: no answers to explain: {error}", path.display()))
        .ok()
}

/// Golden vectors of the service's model, for probes that list none. They come
/// again with each look at the slot.
fn goldens_of(service: &config::Service, data_dir: &Path) -> Vec<config::Golden> {
    let Some(slot) = Slot::of(service, Name::Model, data_dir) else {
        return Vec::new();
    };
    slots::goldens_of(&slot).unwrap_or_else(|| {
        warn!("{}: no golden inputs: no manifest in its slot", service.id);
        Vec::new()
    })
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
                mode: service.mode.name().into(),
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
        primitives: homeostat_common::primitive::NAMES.map(String::from).into(),
        metrics: Metric::ALL
            .iter()
            .map(|metric| (metric.name().into(), metric.unit().into()))
            .collect(),
    }
}
