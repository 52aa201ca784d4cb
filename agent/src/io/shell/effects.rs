//! The way out: carries the loop's effects out.

use std::time::Duration;

use homeostat_common::ids::{RouteId, ServiceId, Token};
use homeostat_common::units::Micros;
use homeostat_common::wire::body::{Body, Note};
use homeostat_common::wire::projection::ServiceHealth;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Shell;
use crate::config;
use crate::control::{Class, Effect, Event, alarm_names, mcu_alarm};
use crate::execute::Act;
use crate::io::data;
use crate::io::forward;
use crate::io::forward::protocol::Admit;
use crate::io::hook;
use crate::io::keeper::{Order, chain};
use crate::io::link;
use crate::io::slots::thread::{self as slots, What};
use crate::io::slots::{Name, Slot};
use crate::io::spawner::client::{Client, ClientError};
use crate::io::spawner::protocol::{NodeAct, ProcessAct, StopSignal};

/// How long a forwarder may take to welcome the loop.
const CONNECT_TIME: Duration = Duration::from_secs(1);

impl Shell {
    pub(super) async fn carry_out(
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
            Effect::Retire(service, instance, grace) => {
                let client = spawner.as_ref()?;
                let sent = client.signal(&service, instance, StopSignal::Term).await;
                report(&service, "stop", sent);
                let by = tokio::time::Instant::now() + crate::service::span(grace);
                self.retiring.push((by, service, instance));
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
            Effect::CheckSlot(service, name) => self.slot(&service, name, What::Check),
            Effect::Act(token, act) => return self.act(token, act, spawner).await,
            Effect::SettleSlot(service, name) => self.slot(&service, name, What::Settle),
            Effect::KeepSlot(service, name, version) => {
                self.slot(&service, name, What::Keep(version));
            }
            Effect::Measure(service) => self.data(&service, data::Order::Measure),
            Effect::ReadCertificate(id, path) => {
                let order = data::Order::Certificate(id.clone(), path);
                if self.data.try_send(order).is_err() {
                    warn!("certificate {id}: not looked at; is a disk hanging?");
                }
            }
            Effect::SetWeight(route, backend, weight) => {
                let client = self.forwarder.as_ref()?;
                asked(&route, client.set_weight(&route, &backend, weight));
                // What is in force shows in a report.
                return self.ask_forwarder();
            }
            Effect::Drain(route, backend, within) => {
                let client = self.forwarder.as_ref()?;
                asked(&route, client.drain(&route, &backend, within));
                return self.ask_forwarder();
            }
            Effect::Order(node, order) => self.give(&node, &order),
            Effect::Say(answer) => self.say(&answer),
            Effect::Break(service, injection, span) => {
                let Some(client) = spawner.as_ref() else {
                    return Some(Event::NotBroken("the spawner is lost".into()));
                };
                report(
                    &service,
                    "break",
                    client.inject(&service, injection, span).await,
                );
            }
            Effect::Answer(ticket, answer) => self.tell_answer(ticket, answer),
            Effect::Journal(record) => self.order(Order::Journal(record)),
            Effect::Sync(ticket) => {
                if !self.keeper.order(Order::Sync(ticket)) {
                    // The disk hangs: a plan goes on without its record.
                    return Some(Event::Synced(ticket));
                }
            }
            Effect::Quiet => self.order(Order::Quiet),
            Effect::Remember => self.order(Order::Remember(Box::new(self.core.saved(now)))),
            Effect::Emit {
                mark,
                class,
                causes,
                body,
            } => {
                self.show(self.topics.event(body.kind_name()), &body);
                self.notify_of(&body);
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
            Effect::Notify(notice) => self.notify(&notice),
        }
        None
    }

    /// Hands a deed to whoever carries it out; its answer comes as an event.
    async fn act(&mut self, token: Token, act: Act, spawner: &mut Option<Client>) -> Option<Event> {
        let deed = |deed| move |id, data| data::Order::Act(token, id, data, deed);
        match act {
            Act::SwitchSlot(service, name, to) => {
                self.slot(&service, name, What::Switch(token, to));
            }
            Act::RestoreSlot(service, name) => self.slot(&service, name, What::Restore(token)),
            Act::Prune(service, keep) => self.data(&service, deed(data::Deed::Prune(keep))),
            Act::ClearLocks(service) => self.data(&service, deed(data::Deed::ClearLocks)),
            Act::Snapshot(service) => self.data(&service, deed(data::Deed::Snapshot)),
            Act::RestoreSnapshot(service) => {
                self.data(&service, deed(data::Deed::RestoreSnapshot));
            }
            Act::TakeBackSnapshot(service) => {
                self.data(&service, deed(data::Deed::TakeBackSnapshot));
            }
            Act::Freeze(service, life, on) => {
                let act = if on {
                    ProcessAct::Freeze
                } else {
                    ProcessAct::Thaw
                };
                let client = spawner.as_ref()?;
                let sent = client.act(token, &service, life, act).await;
                report(&service, "freeze or thaw", sent);
            }
            Act::LimitCpu(service, life, share) => {
                let client = spawner.as_ref()?;
                let act = ProcessAct::LimitCpu(share);
                let sent = client.act(token, &service, life, act).await;
                report(&service, "limit", sent);
            }
            Act::LimitRate(route, rate) => {
                let client = self.forwarder.as_ref()?;
                asked(&route, client.admit(token, &route, Admit::Rate(rate)));
            }
            Act::Block(route, net, on) => {
                let client = self.forwarder.as_ref()?;
                let change = if on {
                    Admit::Block(net)
                } else {
                    Admit::Unblock(net)
                };
                asked(&route, client.admit(token, &route, change));
            }
            Act::SyncClock => return on_node(token, NodeAct::SyncClock, spawner).await,
            Act::Uplink(to) => return on_node(token, NodeAct::Uplink(to), spawner).await,
            Act::Ports(service, from, blocked) => {
                let act = NodeAct::Ports {
                    service,
                    from,
                    blocked,
                };
                return on_node(token, act, spawner).await;
            }
            Act::Remount(service) => {
                return on_node(token, NodeAct::Remount { service }, spawner).await;
            }
            Act::Webhook(service, name) => {
                if let Err(why) = self.call_webhook(service.as_str(), &name, token) {
                    let result = Err(why);
                    return Some(Event::Acted { token, result });
                }
            }
            Act::Hook(service, hook) => {
                let hooks = self.config.service(&service)?.hooks.as_ref()?;
                let (port, path) = (hooks.port, hooks.paths.get(&hook)?.clone());
                let events = self.acted.clone();
                tokio::spawn(async move {
                    let result = hook::call(port, &path, token).await;
                    let result = result.map_err(|error| chain(&error));
                    let _ = events.send(Event::Acted { token, result }).await;
                });
            }
        }
        None
    }

    pub(super) fn order(&mut self, order: Order) {
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

    pub(super) fn show<T: serde::Serialize>(&self, topic: String, value: &T) {
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

    /// Alarms outlive the agent on the broker, and nobody else clears those that
    /// it left behind: what still holds is raised again.
    pub(super) fn clear_former_alarms(&self) {
        let services = self.config.services.iter().map(|service| &service.id);
        let webhooks = self.config.webhooks.iter().map(|hook| &hook.name);
        let certificates = self.config.certificates.iter().map(|one| &one.id);
        let mcus = self.config.mcus.iter().flat_map(|mcu| {
            let metrics = mcu.metrics.iter().copied().map(Some).chain([None]);
            metrics.map(|metric| mcu_alarm(&mcu.name, metric))
        });
        for name in alarm_names(services, webhooks, certificates)
            .into_iter()
            .chain(mcus)
        {
            self.show_or_clear::<()>(self.topics.alarm(&name), None);
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
            model: watched.probes.iter().find_map(|probe| probe.model),
            confidence: watched.probes.iter().find_map(|probe| probe.confidence),
            held_for_s: held.map(|until| until.since(now).as_secs_f64()),
        })
    }

    fn slot(&mut self, service: &ServiceId, name: Name, what: What) {
        let data_dir = &self.config.node.data_dir;
        let slot = self
            .config
            .service(service)
            .and_then(|service| Slot::of(service, name, data_dir));
        if let Some(slot) = slot {
            let order = slots::Order {
                service: service.clone(),
                slot,
                what,
            };
            if self.files.try_send(order).is_err() {
                warn!("{service}: its slots are not answered; is their disk hanging?");
            }
        }
    }

    fn data(
        &mut self,
        service: &ServiceId,
        order: impl FnOnce(ServiceId, config::Data) -> data::Order,
    ) {
        let known = self.config.service(service);
        if let Some(data) = known.and_then(|service| service.data.clone())
            && self.data.try_send(order(service.clone(), data)).is_err()
        {
            warn!("{service}: its data folder is not answered for; is its disk hanging?");
        }
    }

    /// Asks for a report; without a connection one is begun beside the loop, which
    /// must not wait for a forwarder that hangs.
    pub(super) fn ask_forwarder(&mut self) -> Option<Event> {
        if self.config.forwards.is_empty() {
            return None;
        }
        let Some(client) = &self.forwarder else {
            if self
                .connecting
                .as_ref()
                .is_none_or(|task| task.is_finished())
            {
                let run_dir = self.config.node.run_dir.clone();
                let connections = self.connections.0.clone();
                self.connecting = Some(tokio::spawn(async move {
                    let connect = forward::client::Client::connect(&run_dir);
                    if let Ok(Ok((client, _))) = timeout(CONNECT_TIME, connect).await {
                        let _ = connections.send(client).await;
                    }
                }));
            }
            return None;
        };
        let error = client.report().err()?;
        warn!("forwarder: {}", chain(&error));
        self.forwarder = None;
        Some(Event::ForwarderLost)
    }

    /// Answers a person's question, if that person still waits.
    fn tell_answer(&mut self, ticket: u64, answer: Result<String, String>) {
        if let Some(reply) = self.asked.remove(&ticket) {
            let _ = reply.send(answer);
        }
    }

    pub(super) fn note(&mut self, service: Option<ServiceId>, text: String) {
        let body = Body::Note(Note { service, text });
        self.show(self.topics.event(body.kind_name()), &body);
        self.order(Order::Event {
            mark: 0,
            class: Class::State,
            causes: Vec::new(),
            body: Box::new(body),
        });
    }
}

async fn on_node(token: Token, act: NodeAct, spawner: &Option<Client>) -> Option<Event> {
    let sent = spawner.as_ref()?.act_on_node(token, act).await;
    // A lost connection shows elsewhere; the step is asked for again then.
    if let Err(error) = sent {
        warn!("spawner: cannot act on the node: {}", chain(&error));
    }
    None
}

fn asked(route: &RouteId, result: Result<(), forward::client::ClientError>) {
    if let Err(error) = result {
        warn!("forwarder: cannot change route {route}: {}", chain(&error));
    }
}

fn report(service: &ServiceId, what: &str, result: Result<(), ClientError>) {
    // A lost connection shows in `next`; the step's deadline covers the rest.
    if let Err(error) = result {
        warn!("spawner: cannot {what} {service}: {}", chain(&error));
    }
}

#[cfg(test)]
mod tests {
    use homeostat_common::ids::{CertificateId, NodeId, SiteId, WebhookId};
    use homeostat_common::wire::topic::NodeTopics;

    use super::*;
    use crate::config::{CERTIFICATES_MAX, SERVICES_MAX, WEBHOOKS_MAX};

    #[test]
    fn all_alarms_of_a_full_node_are_cleared_and_leave_room_for_healths() {
        let services: Vec<ServiceId> = (0..SERVICES_MAX)
            .map(|at| format!("s{at}").parse().unwrap())
            .collect();
        let hooks: Vec<WebhookId> = (0..WEBHOOKS_MAX)
            .map(|at| format!("h{at}").parse().unwrap())
            .collect();
        let certificates: Vec<CertificateId> = (0..CERTIFICATES_MAX)
            .map(|at| format!("c{at}").parse().unwrap())
            .collect();
        let names = alarm_names(services.iter(), hooks.iter(), certificates.iter());
        for name in ["store", "s63-quarantine", "s0-wrong-answers"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        let site: SiteId = "s".parse().unwrap();
        let node: NodeId = "n".parse().unwrap();
        let topics = NodeTopics::new(&site, &node);
        for name in &names {
            let cleared = link::Projection::new(topics.alarm(name), Vec::new()).unwrap();
            assert!(cleared.retain, "{name}");
        }
        assert!(names.len() + SERVICES_MAX <= link::outgoing::RETAINED_MAX);
    }
}
