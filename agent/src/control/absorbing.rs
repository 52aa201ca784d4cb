//! Sense: takes what happened into the picture.
//!
//! In goes one [`Event`]; it ends in the records of services and routes, in the
//! sample of the host, or in an alarm that tells people. A reading may ask for
//! another look (a sample, a measurement, a check of a slot); whether anything is
//! wrong, and what is done about it, is decided elsewhere.

use homeostat_common::anomaly::Exit;
use homeostat_common::ids::{Instance, ServiceId, WebhookId};
use homeostat_common::observation::Reading;
use homeostat_common::units::{Micros, Millis, Ratio};
use homeostat_common::wire::body::{Body, ServiceChange, ServiceState, Severity};
use homeostat_detect::hang::{Input, Pressure, ProbeNo};

use super::{Class, Effect, Event, HostSample, Loop, ProbeOutcome, SlotReport, Stranger, Told};
use crate::config::ProbeKind;
use crate::service::{ProcessSample, Slot, instant, span};

/// From this lateness on, the silence of others is put down to it.
const LAG_HEARD: Millis = Millis(500);

/// The agent's own lateness is believed to last this long.
const LAG_SPAN: Millis = Millis(500);

/// A timeout asks for a sample of the host, at most this often: what is measured over
/// less says little.
pub(super) const SAMPLE_GAP: Millis = Millis(20);

/// How often the data of services are measured: a walk over some thousand files.
const MEASURE_PERIOD: Millis = Millis(1000);

/// From TERM to KILL for a service that the configuration does not know any more.
const RETIRE_GRACE: Millis = Millis::secs(5);

/// From this share of time in which some task waits for a core, silence says less.
pub(super) const PRESSED: f32 = 0.25;

/// A stranger is told of from this many cores on, over some seconds ...
const STRANGER_CORES: f32 = 0.5;

/// ... while some task waits for a core for this share of the time.
const STRANGER_PRESSURE: f32 = 0.1;

/// ... and is over once there was none for so long: a build is one process after the other,
/// with a moment between them.
const STRANGER_GONE: Millis = Millis::secs(60);

impl Loop {
    /// One arm for each event, so that a new one cannot be forgotten here.
    pub(super) fn absorb(&mut self, now: Micros, event: Event, effects: &mut Vec<Effect>) {
        // Whatever comes first after the agent was held up tells that it was.
        self.absorb_lag(now);
        match event {
            Event::Wake => {}
            Event::Slots(slots) => self.absorb_slots(now, slots, effects),
            Event::SpawnerLost => {
                self.spawner = false;
                for service in self.services.values_mut() {
                    if matches!(service.slot, Slot::Starting { .. }) {
                        service.slot = Slot::Unknown;
                    }
                }
            }
            Event::Started { service, instance } => {
                self.renewing.remove(&service);
                if !self.services.contains_key(&service) {
                    effects.push(Effect::Retire(service.clone(), instance, RETIRE_GRACE));
                }
                if let Some(watched) = self.services.get_mut(&service) {
                    watched.reborn(instance, now);
                    watched.prove_slots(now + self.limits.restart.stable, true);
                    for name in watched.slots.keys() {
                        effects.push(Effect::CheckSlot(service.clone(), *name));
                    }
                    for route in self.routes.values_mut() {
                        route.reborn(&service, now);
                    }
                    effects.push(Effect::ForgetProbes(service));
                }
            }
            Event::StartRefused { service, live, why } => {
                self.absorb_refusal(now, &service, live, &why, effects);
                self.part_refused(&service, live, &why, effects);
            }
            Event::Died { service, instance } => {
                self.absorb_death(now, &service, instance);
            }
            Event::Exited {
                service,
                instance,
                exit,
            } => {
                if let Some(watched) = self.services.get_mut(&service)
                    && let Slot::Down {
                        last: Some((last, known)),
                        ..
                    } = &mut watched.slot
                    && *last == instance
                {
                    *known = exit;
                }
                if exit == Exit::OutOfMemory {
                    self.tell_out_of_memory(now, &service, instance, effects);
                }
                let body = Body::ServiceChange(ServiceChange {
                    service,
                    state: ServiceState::Down,
                    instance: Some(instance),
                    exit: Some(exit),
                });
                self.emit(Class::State, &[], body, effects);
            }
            Event::ProbeSent {
                service,
                probe,
                number,
            } => {
                if let Some(watch) = self
                    .services
                    .get_mut(&service)
                    .and_then(|watched| watched.probes.get_mut(probe))
                {
                    watch
                        .hang
                        .absorb(instant(now), Input::Sent(ProbeNo(number)));
                }
            }
            Event::Probed {
                service,
                probe,
                number,
                outcome,
                late,
            } => self.absorb_probe(now, &service, probe, number, outcome, late, effects),
            Event::Told {
                service,
                probe,
                told,
            } => self.absorb_told(now, &service, probe, told, effects),
            Event::Sample(host, processes) => self.absorb_sample(now, *host, processes, effects),
            Event::Logs(counts) => self.logs = (counts, now),
            Event::Synced(ticket) => {
                self.absorb_synced(ticket);
                self.answer_kept(ticket, true, effects);
            }
            Event::StoreTrouble(trouble) => self.absorb_store_trouble(trouble, effects),
            Event::SlotChecked {
                service,
                slot,
                found,
            } => {
                let watched = self.services.get_mut(&service);
                if let Some(slot) = watched.and_then(|watched| watched.slots.get_mut(&slot)) {
                    slot.checked(found);
                }
                // Its diagnosis waits for nothing else.
                if let Some(incident) = self.incidents.get_mut(&service)
                    && incident.checking
                {
                    incident.retry_at = None;
                }
            }
            Event::Acted { token, result } => {
                self.part_acted(token, &result);
                self.absorb_acted(token, &result);
            }
            Event::SagaOrder(order) => self.absorb_order(now, &order, effects),
            Event::OrdersRefused(by, why) => self.absorb_refused(now, &by, &why, effects),
            Event::SagaAnswer(node, answer) => self.absorb_answer(now, &node, &answer),
            Event::Outside(outside) => self.outside.take(outside),
            Event::Mcu { mcu, metric, text } => self.absorb_mcu(&mcu, metric, text, effects),
            Event::Heard(topic, heard) => self.absorb_heard(topic, heard, effects),
            Event::AskedAcross { ticket, plan } => {
                self.absorb_asked_across(now, ticket, plan, effects);
            }
            Event::AskedParts(ticket) => {
                effects.push(Effect::Answer(ticket, Ok(self.parts_text())));
            }
            Event::AskedPart(ticket, name) => {
                let story = self.part_story(&name);
                effects.push(Effect::Answer(ticket, story));
            }
            Event::Link(connected) => self.connected = connected,
            Event::Routes { seq, routes } => self.absorb_routes(now, seq, &routes),
            Event::ForwarderLost => self.routed = None,
            Event::Drained { route, backend } => self.absorb_drained(now, &route, &backend),
            Event::Measured {
                service,
                used,
                room,
            } => {
                if let Some(watched) = self.services.get_mut(&service) {
                    watched.data_used = used;
                    watched.data_room = room;
                    watched.data_at = Some(now);
                }
            }
            Event::Certified { id, until } => self.foresight.certificates.read(&id, until, now),
            Event::Configured(config) => self.absorb_config(now, &config, effects),
            Event::Ordered {
                ticket,
                by,
                command,
            } => self.absorb_command(now, ticket, &by, command, effects),
            Event::StopFile(why) => self.absorb_stop_file(why, effects),
            Event::Webhook(name, trouble) => self.absorb_webhook(&name, trouble, effects),
            Event::Asked { ticket, plan } => self.absorb_asked(now, ticket, plan, effects),
            Event::Wished { ticket, wish } => self.absorb_wish(now, ticket, wish, effects),
            Event::Broken {
                service,
                injection,
                left,
            } => self.absorb_broken(now, service, injection, left, effects),
            Event::NotBroken(why) => self.absorb_unbroken(why, effects),
            Event::Mended(why) => self.absorb_mended(now, &why, effects),
        }
    }

    fn absorb_lag(&mut self, now: Micros) {
        if let Some(promised) = self.promised {
            let late = now.since(promised);
            // While it was held up itself, nobody could reach it.
            if late >= LAG_HEARD {
                for watched in self.services.values_mut() {
                    watched.heard = watched.heard.map(|heard| heard + late);
                }
            }
            if late >= self.lag.0 || now.since(self.lag.1) > LAG_SPAN {
                self.lag = (late, now);
            }
        }
    }

    /// How late the agent itself was lately.
    pub(super) fn own_lag(&self, now: Micros) -> Millis {
        if now.since(self.lag.1) > LAG_SPAN {
            Millis(0)
        } else {
            self.lag.0
        }
    }

    fn absorb_slots(&mut self, now: Micros, slots: Vec<SlotReport>, effects: &mut Vec<Effect>) {
        self.spawner = true;
        self.absorb_return(now, effects);
        for report in slots {
            let Some(watched) = self.services.get_mut(&report.service) else {
                // The configuration dropped it while it ran.
                if let Some(instance) = report.live {
                    effects.push(Effect::Retire(report.service, instance, RETIRE_GRACE));
                }
                continue;
            };
            match report.live {
                Some(instance) if watched.instance() == Some(instance) => {}
                Some(instance) => {
                    watched.reborn(instance, now);
                    watched.prove_slots(now + self.limits.restart.stable, false);
                    if self.proven_before.get(&report.service) == Some(&instance) {
                        for probe in &mut watched.probes {
                            probe.proven = true;
                        }
                    }
                    effects.push(Effect::ForgetProbes(report.service));
                }
                None => {
                    // A spawner that was started anew knows of no life that has ended;
                    // what is known here stays, or it would be started unasked.
                    let (since, known) = match watched.slot {
                        Slot::Down { since, last } => (since, last),
                        Slot::Up { instance, .. } => (now, Some((instance, Exit::Unknown))),
                        Slot::Unknown | Slot::Starting { .. } => (now, None),
                    };
                    let last = report.last.or(known);
                    watched.slot = Slot::Down { since, last };
                }
            }
        }
        self.repeat_orders(now, effects);
        // What is configured and was never started is started: the order is the
        // configuration's, and nothing is taken away by it.
        for id in self.start_order.clone() {
            if let Some(watched) = self.services.get_mut(&id)
                && watched.wanted()
                && matches!(watched.slot, Slot::Down { last: None, .. } | Slot::Unknown)
            {
                watched.slot = Slot::Starting { since: now };
                effects.push(Effect::Start(id.clone()));
            }
            for name in self
                .services
                .get(&id)
                .iter()
                .flat_map(|one| one.slots.keys())
            {
                // What no plan needs any more: a crash kept it.
                let needed = self.incidents.get(&id).is_some_and(|incident| {
                    incident.execution.is_some() || incident.cut_short.is_some()
                });
                if !needed {
                    effects.push(Effect::SettleSlot(id.clone(), *name));
                }
                effects.push(Effect::CheckSlot(id.clone(), *name));
            }
        }
    }

    fn absorb_death(&mut self, now: Micros, service: &ServiceId, instance: Instance) {
        let Some(watched) = self.services.get_mut(service) else {
            return;
        };
        let concerns = match watched.slot {
            Slot::Up {
                instance: present, ..
            } => present == instance,
            Slot::Unknown => true,
            // A start that was asked for is answered before its life can end.
            Slot::Starting { .. } | Slot::Down { .. } => false,
        };
        if concerns {
            watched.lived = watched.slot == Slot::Unknown || watched.proven(now);
            watched.slot = Slot::Down {
                since: now,
                last: Some((instance, Exit::Unknown)),
            };
            // It may have died of what it reads.
            watched.doubt_slots();
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn absorb_probe(
        &mut self,
        now: Micros,
        service: &ServiceId,
        probe: usize,
        number: u64,
        outcome: ProbeOutcome,
        late: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(watched) = self.services.get_mut(service) else {
            return;
        };
        if !matches!(watched.slot, Slot::Up { .. }) {
            return;
        }
        watched.probed = Some(now);
        let proven = watched.proven(now);
        let Some(watch) = watched.probes.get_mut(probe) else {
            return;
        };
        let number = ProbeNo(number);
        let input = match &outcome {
            ProbeOutcome::Right { .. } => Input::Answered {
                probe: number,
                right: true,
            },
            ProbeOutcome::Wrong(_) => Input::Answered {
                probe: number,
                right: false,
            },
            // The kernel refuses for a process that does not: no sign of life.
            ProbeOutcome::Refused if late => return,
            ProbeOutcome::Refused => Input::TimedOut(number),
            ProbeOutcome::TimedOut => Input::TimedOut(number),
        };
        watch.hang.absorb(instant(now), input);
        let latency = match outcome {
            ProbeOutcome::Right { latency_us } => {
                watch.proven = true;
                watch.rights = watch.rights.saturating_add(1);
                watch.wrong_since = None;
                watch.wrong = None;
                (!late).then_some(latency_us)
            }
            ProbeOutcome::Wrong(what) => {
                watch.rights = 0;
                watch.wrong = Some(what);
                watch.wrong_since.get_or_insert(now);
                // A full disk makes answers wrong.
                if watched.policy.data.is_some() && now >= watched.measure_asked + SAMPLE_GAP {
                    watched.measure_asked = now;
                    effects.push(Effect::Measure(service.clone()));
                }
                watched.doubt_slots();
                None
            }
            ProbeOutcome::Refused => {
                watch.rights = 0;
                watch.wrong = Some("nobody listens on its port".into());
                None
            }
            ProbeOutcome::TimedOut => {
                watch.rights = 0;
                None
            }
        };
        if proven && !late {
            watched.answered(latency);
        }
    }

    /// What a service tells of itself. Metrics that do not move are told to
    /// people: whoever believed them would do harm.
    fn absorb_told(
        &mut self,
        now: Micros,
        service: &ServiceId,
        probe: usize,
        told: Told,
        effects: &mut Vec<Effect>,
    ) {
        let Some(watched) = self.services.get_mut(service) else {
            return;
        };
        let version = watched.probes.iter().find_map(|probe| probe.model);
        let policy = watched.policy.probes.get(probe);
        let Some((watch, policy)) = watched.probes.get_mut(probe).zip(policy) else {
            return;
        };
        match (told, &policy.kind) {
            (
                Told::Model {
                    version,
                    confidence,
                    choice,
                },
                ProbeKind::Inference { confidence_min, .. },
            ) => {
                watch.model = version;
                watch.confidence = confidence;
                if let Some(choice) = choice {
                    watch.answers.push(choice);
                }
                let name = format!("{service}-confidence");
                match (confidence, confidence_min) {
                    (Some(sure), Some(least)) if sure < least.get() => {
                        let text = format!(
                            "the model of {service} is only {sure:.2} sure of a known input, \
                             {least} is expected"
                        );
                        self.raise(&name, Some(service), Severity::Warning, text, effects);
                    }
                    _ => self.clear(&name, effects),
                }
            }
            (
                Told::Metrics { hash, gauges, page },
                ProbeKind::Metrics {
                    gauges: policy,
                    serving,
                    ..
                },
            ) => {
                watch.metrics.push(now, policy, hash, &gauges);
                if let Some((serving, page)) = serving.as_ref().zip(page) {
                    watch.serving.push(now, serving, &page, version);
                }
                let name = format!("{service}-frozen");
                match watched.frozen() {
                    Some(what) => {
                        let text = format!("{what}: nothing is decided on them");
                        self.raise(&name, Some(service), Severity::Warning, text, effects);
                    }
                    None => self.clear(&name, effects),
                }
            }
            _ => {}
        }
        self.judge_serving(service, effects);
    }

    fn absorb_sample(
        &mut self,
        now: Micros,
        mut host: HostSample,
        mut processes: Vec<(ServiceId, ProcessSample)>,
        effects: &mut Vec<Effect>,
    ) {
        // What cannot be true goes no further than this.
        self.note_lives();
        self.noticing
            .sensors()
            .screen(now, &mut host, &mut processes);
        // Shares are between two samples: one alone, as after a start of the agent,
        // has none, and must not pass for calm.
        let measured = self.sampled.is_some();
        self.sampled = Some(now);
        if let Reading::Fresh(unix_ms) = host.wall {
            self.recur(now, unix_ms, effects);
        }
        let own_lag = self.own_lag(now);
        let usual_pace = self.period_passed(now);
        let share = |reading: Reading<Ratio>| reading.fresh().map_or(f32::NAN, |share| share.get());
        let mut pressure = Pressure {
            cpu_psi: share(host.cpu_pressure),
            io_psi: share(host.io_pressure),
            own_lag: span(own_lag),
            run_delay: f32::NAN,
            starved: false,
        };
        for (service, sample) in processes {
            let Some(watched) = self.services.get_mut(&service) else {
                continue;
            };
            watched.sample = sample;
            watched.pressed = host
                .cpu_pressure
                .fresh()
                .is_some_and(|waiting| waiting.get() >= PRESSED);
            watched.sampled = Some(now);
            if let (Reading::Fresh(resident), Slot::Up { .. }, true) =
                (sample.resident, watched.slot, usual_pace)
            {
                watched.growth = watched.memory.push(instant(now), resident.0 as f32);
            }
            watched.note_cpu(now);
            watched.note_process(now, usual_pace);
            pressure.run_delay = share(sample.run_delay);
            pressure.starved = sample.starved.fresh().unwrap_or_default();
            for probe in watched.probes.iter_mut().filter(|_| measured) {
                probe.hang.absorb(instant(now), Input::Gate(pressure));
            }
        }
        self.host = host;
        let readings = self.readings(now);
        self.notice(now, &readings, effects);
        if usual_pace {
            self.remember_row(now, &readings);
        }
        self.telling.sampled(readings);
        self.look_for_strangers(now, effects);
        self.foresee(now, effects);
        self.pace(now);
        if now >= self.measured + MEASURE_PERIOD {
            self.measured = now;
            for (id, watched) in &self.services {
                if watched.policy.data.is_some() {
                    effects.push(Effect::Measure(id.clone()));
                }
            }
        }
    }

    /// A process that is none of ours and takes a core while others wait is told
    /// to people. It is never touched. What is told is that the node is taken by
    /// others; which one it is now stands in the text.
    fn look_for_strangers(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        const ALARM: &str = "stranger-cpu";
        let waiting = self.host.cpu_pressure.fresh().map_or_else(
            // Without PSI: nothing is left to be had.
            || {
                self.host
                    .cpu_busy
                    .fresh()
                    .is_some_and(|busy| busy.get() >= 0.9)
            },
            |pressure| pressure.get() >= STRANGER_PRESSURE,
        );
        let stands = self.alarms.stands(ALARM);
        let told = |one: &Stranger| one.cores >= STRANGER_CORES && waiting;
        // What is told of stands until it has really let go.
        let kept = |one: &Stranger| stands && one.cores >= STRANGER_CORES / 2.0;
        match self.host.stranger.filter(|one| told(one) || kept(one)) {
            Some(found) => {
                self.stranger = Some((now, found));
                let text = format!(
                    "process {} ({}) takes {:.1} cores while others wait, and is none of the \
                     services here; it is not touched",
                    found.pid,
                    found.name(),
                    found.cores
                );
                self.raise(ALARM, None, Severity::Warning, text, effects);
            }
            None => {
                let Some((seen, last)) = self.stranger else {
                    return;
                };
                if now.since(seen) < STRANGER_GONE {
                    return;
                }
                self.stranger = None;
                let text = format!(
                    "for {STRANGER_GONE} no process that is none of the services here has kept \
                     others waiting; the last was {} ({})",
                    last.pid,
                    last.name()
                );
                self.raise(ALARM, None, Severity::Warning, text, effects);
                self.clear(ALARM, effects);
            }
        }
    }

    /// A way to reach people that does not work is told by the others.
    fn absorb_webhook(
        &mut self,
        name: &WebhookId,
        trouble: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        let alarm = format!("webhook-{name}");
        match trouble {
            Some(what) => {
                let text = format!("notices do not reach {name}: {what}");
                self.raise(&alarm, None, Severity::Warning, text, effects);
            }
            None => self.clear(&alarm, effects),
        }
    }

    fn absorb_store_trouble(&mut self, trouble: Option<String>, effects: &mut Vec<Effect>) {
        self.store_trouble = trouble.is_some();
        if self.store_trouble {
            // No sync will be answered; a plan that has begun goes on.
            self.absorb_synced(u64::MAX);
            self.answer_kept(u64::MAX, false, effects);
        }
        match trouble {
            Some(what) => self.raise(
                "store",
                None,
                Severity::Warning,
                format!("healing goes on, but its record is not kept: {what}"),
                effects,
            ),
            None => self.clear("store", effects),
        }
    }
}
