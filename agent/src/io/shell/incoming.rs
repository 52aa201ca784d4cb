//! The way in: turns what others tell into events of the loop.

use homeostat_common::anomaly::Exit;
use homeostat_common::ids::{ServiceId, Token};
use homeostat_common::observation::{MetricReading, Reading};
use homeostat_common::units::{Micros, Ratio};
use homeostat_common::wire::projection::Reply;
use tracing::{info, warn};

use super::Shell;
use crate::config::{Golden, Goldens, ProbeKind};
use crate::control::{Event, HostSample, ProbeOutcome, RouteSample, Sourced, Stranger, Told};
use crate::io::clock;
use crate::io::forward;
use crate::io::keeper::Order;
use crate::io::link::{CommandKind, CommandRequest, LinkEvent, LinkHandle};
use crate::io::probe::{self, Outcome as ProbeEnd, ProbeReport, Wrong};
use crate::io::procfs::ServiceReading;
use crate::io::slots::thread as slots;
use crate::io::spawner::client;
use crate::io::spawner::protocol;
use crate::route::BackendSample;
use crate::service::ProcessSample;

/// Below so many busy cores nobody is kept from one.
const BUSY_CORES: f64 = 0.7;

impl Shell {
    pub(super) async fn spawner_event(&mut self, event: client::Event) -> Option<Event> {
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
            | client::Event::NotSignalled { .. } => return None,
            client::Event::Acted { token, failed } => acted(token, failed),
            client::Event::Reloaded => return self.reloaded().await,
            client::Event::NotReloaded { why } => {
                self.not_reloaded(why);
                return None;
            }
            client::Event::Broken {
                service,
                injection,
                left,
            } => Event::Broken {
                service,
                injection,
                left,
            },
            client::Event::NotBroken { why } => Event::NotBroken(why),
            client::Event::Mended { why } => Event::Mended(why),
            client::Event::Malformed => {
                warn!("spawner: it could not read a request");
                return None;
            }
        })
    }

    pub(super) fn probe_event(&mut self, report: &ProbeReport) -> Option<Event> {
        let (service, probe) = self.probed.get(&report.target)?.clone();
        if !matches!(report.outcome, ProbeEnd::Alive { .. }) {
            self.dependencies.doubt();
        }
        Some(Event::Probed {
            service,
            probe,
            number: report.probe,
            outcome: match report.outcome {
                ProbeEnd::Alive { latency } => ProbeOutcome::Right {
                    latency_us: u32::try_from(latency.as_micros()).unwrap_or(u32::MAX),
                },
                // The kernel resets what a dying process had accepted.
                ProbeEnd::Wrong(Wrong::Reset) | ProbeEnd::Refused => ProbeOutcome::Refused,
                ProbeEnd::Wrong(wrong) => ProbeOutcome::Wrong(wrong.to_string()),
                ProbeEnd::TimedOut => ProbeOutcome::TimedOut,
            },
            late: report.late,
        })
    }

    /// What the answer told besides, for the loop.
    pub(super) fn told(&self, report: &ProbeReport) -> Option<Event> {
        let (service, probe) = self.probed.get(&report.target)?.clone();
        let told = match &report.told {
            probe::Told::Nothing => return None,
            probe::Told::Inference {
                version,
                confidence,
                choice,
            } => Told::Model {
                version: *version,
                confidence: *confidence,
                choice: *choice,
            },
            probe::Told::Metrics(metrics) => Told::Metrics {
                hash: metrics.hash,
                gauges: metrics.gauges.into(),
                page: metrics.page.clone(),
            },
        };
        Some(Event::Told {
            service,
            probe,
            told,
        })
    }

    pub(super) fn sample(&mut self) -> Event {
        let now = clock::now();
        let host = self.host.sample(now);
        let stranger = self.stranger(now, host.cpu_busy.fresh());
        let mut sample = HostSample {
            cpu_busy: host.cpu_busy,
            cpu_pressure: host.cpu_pressure,
            io_pressure: host.io_pressure,
            memory_pressure: host.memory_pressure,
            memory_available: host.memory_available,
            disk_free: host.disk_free,
            inodes_free: host.inodes_free,
            own: process_of(&host.own),
            backlog: self.keeper.backlog(),
            stranger,
            wall: match self.wall.unix_ms() {
                (unix_ms, clock::ClockQuality::Plausible) => Reading::Fresh(unix_ms),
                _ => Reading::Missing,
            },
            heat: self.thermal.sample(now),
            cores: self.cores,
            garbage: host.garbage,
            battery: host.battery,
            sources: host.sources,
            elsewhere: self.dependencies.elsewhere(),
        };
        self.dependencies.sample(now, &mut sample.sources);
        // Without a broker nothing is ever acknowledged: absent.
        let counters = self.link.as_ref().map(LinkHandle::counters);
        let broker = self.broker.sample(now, counters.unwrap_or_default());
        sample.sources.push(broker);
        sample.sources.append(&mut self.logs.sourced());
        let (core, strangers, pids) = (&self.core, &self.strangers, &self.pids);
        let sources = &mut sample.sources;
        let processes = self
            .processes
            .iter_mut()
            .map(|(id, process)| {
                // Only a silent one is worth the look at all of its threads.
                let reading = if core.is_silent(id) {
                    process.threads(now)
                } else {
                    process.sample(now)
                };
                let mut sample = process_of(&reading);
                sources.extend(reading.sources.into_iter().map(|source| Sourced {
                    reading: MetricReading {
                        service: Some(id.clone()),
                        ..source.reading
                    },
                    ..source
                }));
                let workers = pids.get(id).and_then(|pid| strangers.workers(*pid));
                if let (Reading::Fresh(cores), Some(workers)) = (&mut sample.cpu, workers) {
                    *cores += workers;
                }
                (id.clone(), sample)
            })
            .collect();
        for feed in &mut self.feeds {
            feed.offer(now, &sample);
        }
        Event::Sample(Box::new(sample), processes)
    }

    pub(super) fn slot_report(&mut self, report: slots::Report) -> Option<Event> {
        match report {
            slots::Report::Event(event) => Some(*event),
            slots::Report::Goldens(service, goldens) => {
                self.renew_goldens(service, goldens);
                None
            }
        }
    }

    /// The version in place may be another one: inference probes that take their
    /// golden vectors from its manifest ask those.
    fn renew_goldens(&mut self, service: ServiceId, goldens: Vec<Golden>) {
        if self.goldens.get(&service) == Some(&goldens) {
            return;
        }
        let probes = self.config.service(&service).map(|service| &service.probes);
        for (place, probe) in probes.into_iter().flatten().enumerate() {
            if let ProbeKind::Inference {
                goldens: Goldens::Manifest,
                ..
            } = probe.kind
                && let Some(target) = self.targets.get(&(service.clone(), place))
            {
                self.prober.set_goldens(*target, &goldens);
            }
        }
        self.goldens.insert(service, goldens);
    }

    /// Who else takes the processors, when most of one is taken.
    fn stranger(&mut self, now: Micros, busy: Option<Ratio>) -> Option<Stranger> {
        let cores = self.cores.fresh().unwrap_or(1);
        let taken = f64::from(busy?.get()) * f64::from(cores);
        if taken < BUSY_CORES {
            self.strangers.rest();
            return None;
        }
        let mut ours: Vec<u32> = self.pids.values().copied().collect();
        ours.push(std::process::id());
        let groups = self.pids.iter();
        let groups = groups.filter_map(|(service, pid)| Some((*pid, self.group(service)?)));
        let groups: Vec<_> = groups.collect();
        self.strangers.look(now, &ours, &groups)
    }

    pub(super) fn link_event(&mut self, event: LinkEvent) -> Option<Event> {
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
            LinkEvent::Order(order) => Some(Event::SagaOrder(order)),
            LinkEvent::OrderRefused(by, refusal) => self.order_refused(by, &refusal),
            LinkEvent::Answer(node, answer) => Some(Event::SagaAnswer(node, answer)),
            LinkEvent::Outside(outside) => Some(Event::Outside(outside)),
            LinkEvent::Heard(topic, heard) => Some(Event::Heard(topic, heard)),
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
}

fn acted(token: Token, failed: Option<String>) -> Event {
    Event::Acted {
        token,
        result: failed.map_or(Ok(()), Err),
    }
}

/// What the forwarder said, for the loop.
pub(super) fn forwarder_event(said: forward::client::Event) -> Option<Event> {
    use forward::client::Event as Said;
    Some(match said {
        Said::Reports { stamp, routes } => Event::Routes {
            seq: stamp.seq,
            routes: routes.into_iter().map(route_sample).collect(),
        },
        // A weight that was set meanwhile took the drain's place.
        Said::Drained {
            cancelled: true, ..
        } => return None,
        Said::Drained {
            route,
            backend,
            closed_by_force,
            ..
        } => {
            if closed_by_force > 0 {
                info!("forwarder: {backend} of {route}: {closed_by_force} connections cut");
            }
            Event::Drained { route, backend }
        }
        Said::Health {
            route,
            backend,
            health,
            why,
        } => {
            info!(
                "forwarder: {backend} of {route} is {}: {why}",
                health.text()
            );
            return None;
        }
        Said::Acted { token, failed } => acted(token, failed),
        Said::Refused { why } | Said::NotReloaded { why } => {
            warn!("forwarder: {why}");
            return None;
        }
        Said::Malformed => {
            warn!("forwarder: it could not read a request");
            return None;
        }
        Said::WeightSet { .. } | Said::Reloaded => return None,
    })
}

fn route_sample(report: forward::protocol::RouteReport) -> RouteSample {
    let backends = report.backends.into_iter().map(|backend| {
        let [median, p95, _] = backend.first_byte_us;
        let sample = BackendSample {
            weight: backend.weight,
            healthy: backend.health == forward::protocol::Health::Healthy,
            active: backend.active,
            total: backend.total,
            failures: backend.failures,
            answered: u32::try_from(backend.answered).unwrap_or(u32::MAX),
            first_byte_us: (backend.answered > 0).then_some((median, p95)),
        };
        (backend.backend, sample)
    });
    RouteSample {
        waiting: report.waiting,
        refused: report.refused,
        backends: backends.collect(),
        route: report.route,
    }
}

pub(super) fn exit_of(exit: protocol::Exit) -> Exit {
    match exit {
        protocol::Exit::Code(code) => Exit::Code(code),
        protocol::Exit::Signal(signal) => Exit::Signal(signal),
        protocol::Exit::Unknown => Exit::Unknown,
        protocol::Exit::OutOfMemory => Exit::OutOfMemory,
    }
}

fn process_of(reading: &ServiceReading) -> ProcessSample {
    ProcessSample {
        resident: reading.resident,
        cpu: reading.cpu,
        descriptors: reading.descriptors,
        descriptor_limit: reading.descriptor_limit,
        state: reading.state,
        threads: reading.threads,
        run_delay: reading.run_delay,
        starved: reading.starved,
        garbage: reading.garbage,
    }
}
