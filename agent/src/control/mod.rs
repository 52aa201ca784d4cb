//! The loop: `sense -> detect -> diagnose -> plan -> verify -> execute ->
//! learn`, joined.
//!
//! [`Loop::step`] takes one [`Event`] and the time and returns the [`Effect`]s
//! that the shell carries out, in order; their results come back as events.
//! There is no clock, no socket, no file and no chance in here, so one seeded
//! thread can run it against a simulated node, and run it again exactly.
//!
//! The loop holds all of its state in memory; what must survive a restart
//! leaves it as [`Effect::Journal`] and [`Effect::Remember`] and comes back
//! through [`Resumed`].

mod asking;
mod deciding;
mod executing;
mod incident;
mod message;
mod reloading;
mod reporting;
mod resuming;
mod routing;
mod telling;

use std::collections::{BTreeMap, BTreeSet};

use homeostat_common::budget::{self, Ledger};
use homeostat_common::ids::{BootId, IncidentId, Instance, NodeId, PlanId, RouteId, ServiceId};
use homeostat_common::observation::{LogCount, Reading};
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::body::{Body, Note, ServiceChange, Severity};
use homeostat_detect::hang::{Input, Pressure, ProbeNo};
use serde::{Deserialize, Serialize};

pub use self::incident::Incident;
pub use self::message::{
    Class, Effect, Event, HealRecord, HostSample, ProbeOutcome, RouteSample, SlotReport, Stranger,
    Told,
};
pub use self::telling::Snapshot;

use crate::config::{Config, Limits, ProbeKind};
use crate::execute::Order;
use crate::learn::Experience;
use crate::route::Routed;
use crate::service::{Slot, Watched, instant, span};
use crate::verify::Pace;

/// While a fresh process has not answered yet it is asked this often: a small
/// service is up within a few milliseconds, and a refused probe costs little.
const PROVE_PERIOD: Millis = Millis(5);

/// For this long after a start; then at the configured period.
const PROVE_SPAN: Millis = Millis(500);

/// From this lateness on, the silence of others is put down to it.
const LAG_HEARD: Millis = Millis(500);

/// The agent's own lateness is believed to last this long.
const LAG_SPAN: Millis = Millis(500);

/// A timeout asks for a sample of the host, at most this often.
const SAMPLE_GAP: Millis = Millis(20);

/// How often the data of services are measured: a walk over some thousand files.
const MEASURE_PERIOD: Millis = Millis(1000);

/// A stranger is told of from this many cores on, over some seconds ...
const STRANGER_CORES: f32 = 0.5;

/// ... while some task waits for a core for this share of the time.
const STRANGER_PRESSURE: f32 = 0.1;

/// State that survives a restart of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The kernel's boot that the times belong to.
    pub boot: BootId,
    /// When this was written.
    pub at: Micros,
    next_incident: u64,
    next_plan: u64,
    ledger: budget::Saved,
    paces: Vec<(ServiceId, Pace)>,
    /// Lives that have shown that they work: found again after a restart of the
    /// agent, their silence or wrong answers are judged at once.
    proven: Vec<(ServiceId, Instance)>,
    /// Standby replicas that are meant to run.
    scaled_out: Vec<ServiceId>,
}

/// What a former run left behind.
#[derive(Debug, Clone, Default)]
pub struct Resumed {
    /// The last [`Effect::Remember`].
    pub saved: Option<Saved>,
    /// The records since the last [`Effect::Quiet`], in order.
    pub records: Vec<HealRecord>,
    /// What it had learnt.
    pub experience: Experience,
}

/// One node's healing loop.
#[derive(Debug)]
pub struct Loop {
    node: NodeId,
    boot: BootId,
    limits: Limits,
    /// How long a sample stays news: three periods, and at least 3 s, so that
    /// one late sample forbids nothing.
    sample_stale: Millis,
    services: BTreeMap<ServiceId, Watched>,
    /// Dependencies before those that need them.
    start_order: Vec<ServiceId>,
    paces: BTreeMap<ServiceId, Pace>,
    incidents: BTreeMap<ServiceId, Incident>,
    /// Lives that a former run of the agent has seen to work.
    proven_before: BTreeMap<ServiceId, Instance>,
    /// Until when dependents of a mended service are given time to settle.
    settling: BTreeMap<ServiceId, Micros>,
    ledger: Ledger,
    experience: Experience,
    host: HostSample,
    sampled: Option<Micros>,
    sample_asked: Micros,
    /// Log lines by template, and when they came.
    logs: (Vec<LogCount>, Micros),
    spawner: bool,
    routes: BTreeMap<RouteId, Routed>,
    /// Number of the forwarder's last report, and when it came; `None` while it
    /// is not reached.
    routed: Option<(u64, Micros)>,
    /// The forwarder is back: what it was asked for may be lost.
    repeat_routes: bool,
    /// Services that wait for a restart with their new configuration.
    renewing: BTreeSet<ServiceId>,
    /// Orders of steps that moved outside of the usual round.
    waiting_orders: Vec<Order>,
    /// When data were measured last.
    measured: Micros,
    connected: bool,
    /// The disk takes no records at present.
    store_trouble: bool,
    next_incident: u64,
    next_plan: u64,
    next_mark: u64,
    next_ticket: u64,
    promised: Option<Micros>,
    /// How late the last wake-up was, and when that was.
    lag: (Millis, Micros),
    telling: telling::Telling,
}

impl Loop {
    /// A loop that goes on where a former run ended.
    #[must_use]
    pub fn new(config: &Config, boot: BootId, resumed: Resumed, now: Micros) -> Self {
        let services: BTreeMap<ServiceId, Watched> = config
            .services
            .iter()
            .map(|service| (service.id.clone(), Watched::new(service.clone(), now)))
            .collect();
        let budget = config.limits.budget;
        let mut this = Self {
            node: config.node.id.clone(),
            boot,
            limits: config.limits.clone(),
            sample_stale: Millis(3 * config.sample.period.0.max(1000)),
            start_order: start_order(config),
            paces: BTreeMap::new(),
            incidents: BTreeMap::new(),
            proven_before: BTreeMap::new(),
            settling: BTreeMap::new(),
            ledger: Ledger::new(budget, now),
            experience: resumed.experience,
            host: HostSample::default(),
            sampled: None,
            sample_asked: Micros(0),
            logs: (Vec::new(), Micros(0)),
            spawner: false,
            routes: routing::routes(config),
            routed: None,
            repeat_routes: false,
            renewing: BTreeSet::new(),
            waiting_orders: Vec::new(),
            measured: Micros(0),
            connected: false,
            store_trouble: false,
            next_incident: 1,
            next_plan: 1,
            next_mark: 1,
            next_ticket: 1,
            promised: None,
            lag: (Millis(0), now),
            telling: telling::Telling::new(now),
            services,
        };
        if let Some(saved) = resumed.saved {
            // Times of another boot mean nothing here; what was left of a hold
            // then is left of it now. Time in between is not credited.
            let same_boot = saved.boot == boot;
            if same_boot {
                this.proven_before = saved.proven.into_iter().collect();
            }
            for service in saved.scaled_out {
                if let Some(watched) = this.services.get_mut(&service) {
                    watched.scaled_out = true;
                }
            }
            this.next_incident = saved.next_incident;
            this.next_plan = saved.next_plan;
            this.ledger = Ledger::resume(budget, saved.ledger, now);
            for (service, mut pace) in saved.paces {
                if this.services.contains_key(&service) {
                    if !same_boot {
                        pace.rebase(saved.at, now);
                    }
                    this.paces.insert(service, pace);
                }
            }
        }
        this.resume_incidents(resumed.records, now);
        this
    }

    /// What [`Effect::Remember`] persists.
    #[must_use]
    pub fn saved(&self, now: Micros) -> Saved {
        Saved {
            boot: self.boot,
            at: now,
            next_incident: self.next_incident,
            next_plan: self.next_plan,
            ledger: self.ledger.saved(),
            paces: self
                .paces
                .iter()
                .map(|(service, pace)| (service.clone(), pace.clone()))
                .collect(),
            proven: self
                .services
                .iter()
                .filter_map(|(id, watched)| {
                    let instance = match watched.slot {
                        Slot::Unknown => self.proven_before.get(id).copied(),
                        _ => watched.instance().filter(|_| watched.proven(now)),
                    };
                    Some((id.clone(), instance?))
                })
                .collect(),
            scaled_out: self
                .services
                .iter()
                .filter(|(_, watched)| watched.scaled_out)
                .map(|(id, _)| id.clone())
                .collect(),
        }
    }

    /// What was learnt; to be kept whenever an incident has ended.
    #[must_use]
    pub fn experience(&self) -> &Experience {
        &self.experience
    }

    /// The services and what is known about them.
    pub fn services(&self) -> impl Iterator<Item = &Watched> {
        self.services.values()
    }

    /// Until when a service may not be healed again.
    #[must_use]
    pub fn held_until(&self, service: &ServiceId) -> Option<Micros> {
        self.paces.get(service).and_then(Pace::until)
    }

    /// The incidents that are open.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    /// The budget.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Moves the loop to `now`. The shell carries out what comes back, in order.
    pub fn step(&mut self, now: Micros, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.absorb(now, event, &mut effects);
        self.decide(now, &mut effects);
        self.promised = self.next_wake();
        effects
    }

    fn emit(&mut self, class: Class, causes: &[u64], body: Body, effects: &mut Vec<Effect>) -> u64 {
        let mark = self.next_mark;
        self.next_mark += 1;
        effects.push(Effect::Emit {
            mark,
            class,
            causes: causes.iter().copied().filter(|mark| *mark > 0).collect(),
            body,
        });
        mark
    }

    fn note(&mut self, service: Option<&ServiceId>, text: String, effects: &mut Vec<Effect>) {
        let body = Body::Note(Note {
            service: service.cloned(),
            text,
        });
        self.emit(Class::State, &[], body, effects);
    }

    /// Sense: takes what happened into the picture.
    fn absorb(&mut self, now: Micros, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Wake => self.absorb_lag(now),
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
                if let Some(watched) = self.services.get_mut(&service) {
                    watched.reborn(instance, now);
                    watched.prove_slots(now + self.limits.restart.stable);
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
                let body = Body::ServiceChange(ServiceChange {
                    service,
                    state: homeostat_common::wire::body::ServiceState::Down,
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
            Event::Sample(host, processes) => self.absorb_sample(now, host, processes, effects),
            Event::Logs(counts) => self.logs = (counts, now),
            Event::Synced(ticket) => self.absorb_synced(ticket),
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
            Event::FileDone { service, result } => self.absorb_file_done(&service, &result),
            Event::Link(connected) => self.connected = connected,
            Event::Routes { seq, routes } => self.absorb_routes(now, seq, &routes),
            Event::ForwarderLost => self.routed = None,
            Event::Drained { route, backend } => self.absorb_drained(now, &route, &backend),
            Event::Measured { service, used } => {
                if let Some(watched) = self.services.get_mut(&service) {
                    watched.data_used = used;
                    watched.data_at = Some(now);
                }
            }
            Event::Configured(config) => self.absorb_config(now, &config, effects),
            Event::Asked { ticket, plan } => self.absorb_asked(now, ticket, plan, effects),
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
    fn own_lag(&self, now: Micros) -> Millis {
        if now.since(self.lag.1) > LAG_SPAN {
            Millis(0)
        } else {
            self.lag.0
        }
    }

    fn absorb_slots(&mut self, now: Micros, slots: Vec<SlotReport>, effects: &mut Vec<Effect>) {
        self.spawner = true;
        for report in slots {
            let Some(watched) = self.services.get_mut(&report.service) else {
                continue;
            };
            match report.live {
                Some(instance) if watched.instance() == Some(instance) => {}
                Some(instance) => {
                    watched.reborn(instance, now);
                    watched.prove_slots(now + self.limits.restart.stable);
                    if self.proven_before.get(&report.service) == Some(&instance) {
                        for probe in &mut watched.probes {
                            probe.proven = true;
                        }
                    }
                    effects.push(Effect::ForgetProbes(report.service));
                }
                None => {
                    let since = match watched.slot {
                        Slot::Down { since, .. } => since,
                        _ => now,
                    };
                    watched.slot = Slot::Down {
                        since,
                        last: report.last,
                    };
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
                last: Some((instance, homeostat_common::anomaly::Exit::Unknown)),
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
                // Is it the service, or is the whole node slow? Look now.
                if now >= self.sample_asked + SAMPLE_GAP {
                    self.sample_asked = now;
                    effects.push(Effect::Sample);
                }
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
        let policy = watched.policy.probes.get(probe);
        let Some((watch, policy)) = watched.probes.get_mut(probe).zip(policy) else {
            return;
        };
        match (told, &policy.kind) {
            (
                Told::Model {
                    version,
                    confidence,
                },
                ProbeKind::Inference { confidence_min, .. },
            ) => {
                watch.model = version;
                watch.confidence = confidence;
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
            (Told::Metrics { hash, gauges }, ProbeKind::Metrics { gauges: policy, .. }) => {
                watch.metrics.push(now, policy, hash, &gauges);
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
    }

    fn absorb_sample(
        &mut self,
        now: Micros,
        host: HostSample,
        processes: Vec<(ServiceId, crate::service::ProcessSample)>,
        effects: &mut Vec<Effect>,
    ) {
        self.host = host;
        self.sampled = Some(now);
        let own_lag = self.own_lag(now);
        let share = |reading: Reading<homeostat_common::units::Ratio>| {
            reading.fresh().map_or(f32::NAN, |share| share.get())
        };
        let mut pressure = Pressure {
            cpu_psi: share(host.cpu_pressure),
            io_psi: share(host.io_pressure),
            own_lag: span(own_lag),
            run_delay: f32::NAN,
        };
        for (service, sample) in processes {
            let Some(watched) = self.services.get_mut(&service) else {
                continue;
            };
            watched.sample = sample;
            watched.sampled = Some(now);
            if let (Reading::Fresh(resident), Slot::Up { .. }) = (sample.resident, watched.slot) {
                watched.growth = watched.memory.push(instant(now), resident.0 as f32);
            }
            watched.note_cpu(now);
            pressure.run_delay = share(sample.run_delay);
            for probe in &mut watched.probes {
                probe.hang.absorb(instant(now), Input::Gate(pressure));
            }
        }
        let readings = self.readings(now);
        self.telling.sampled(readings);
        self.look_for_strangers(effects);
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
    /// to people. It is never touched.
    fn look_for_strangers(&mut self, effects: &mut Vec<Effect>) {
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
        let stands = self.telling.stands(ALARM);
        let told = |one: &Stranger| one.cores >= STRANGER_CORES && waiting;
        // What is told of stands until it has really let go.
        let kept = |one: &Stranger| stands && one.cores >= STRANGER_CORES / 2.0;
        match self.host.stranger.filter(|one| told(one) || kept(one)) {
            Some(found) => {
                let text = format!(
                    "process {} ({}) takes {:.1} cores while others wait, and is none of the \
                     services here; it is not touched",
                    found.pid,
                    found.name(),
                    found.cores
                );
                self.raise(ALARM, None, Severity::Warning, text, effects);
            }
            None => self.clear(ALARM, effects),
        }
    }

    fn absorb_store_trouble(&mut self, trouble: Option<String>, effects: &mut Vec<Effect>) {
        self.store_trouble = trouble.is_some();
        if self.store_trouble {
            // No sync will be answered; a plan that has begun goes on.
            self.absorb_synced(u64::MAX);
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

    /// Detect, diagnose, plan, verify, execute.
    fn decide(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        self.ledger.advance(now);
        self.settling.retain(|_, until| *until > now);
        let mut orders = std::mem::take(&mut self.waiting_orders);
        if std::mem::take(&mut self.repeat_routes) {
            for incident in self.incidents.values() {
                for run in incident.execution.iter().flat_map(|one| &one.runs) {
                    run.repeat_route(&mut orders);
                }
            }
        }
        self.carry_out(&mut orders, now, effects);
        self.advance_plans(now, effects);
        let ids: Vec<ServiceId> = self.services.keys().cloned().collect();
        for id in &ids {
            self.look_after(id, now, effects);
        }
        self.renew(now, effects);
        // A plan that was just begun moves at once.
        self.advance_plans(now, effects);
        for id in &ids {
            self.probe(id, now, effects);
        }
        self.tell(now, effects);
    }

    /// Sends the probes that are due, and lets the hang detectors see the time.
    fn probe(&mut self, id: &ServiceId, now: Micros, effects: &mut Vec<Effect>) {
        let Some(watched) = self.services.get_mut(id) else {
            return;
        };
        let Slot::Up { since, .. } = watched.slot else {
            return;
        };
        for (place, watch) in watched.probes.iter_mut().enumerate() {
            let Some(policy) = watched.policy.probes.get(place) else {
                continue;
            };
            if watch
                .hang
                .deadline()
                .is_some_and(|deadline| deadline <= instant(now))
            {
                watch.hang.absorb(instant(now), Input::Tick);
            }
            if watch.next > now {
                continue;
            }
            let period = if !watch.proven && now < since + PROVE_SPAN {
                policy.period.min(PROVE_PERIOD)
            } else {
                policy.period
            };
            // Never a burst after a pause: one probe, then the usual pace.
            let planned = watch.next + period;
            watch.next = if planned > now { planned } else { now + period };
            effects.push(Effect::Probe(id.clone(), place));
        }
    }

    /// When [`Event::Wake`] is due at the latest.
    #[must_use]
    pub fn next_wake(&self) -> Option<Micros> {
        let probes = self.services.values().flat_map(|watched| {
            let up = matches!(watched.slot, Slot::Up { .. });
            watched
                .probes
                .iter()
                .filter(move |_| up)
                .flat_map(|watch| {
                    let verdict = watch
                        .hang
                        .deadline()
                        .map(|at| Micros(u64::try_from(at.as_micros()).unwrap_or(u64::MAX)));
                    [Some(watch.next), verdict]
                })
                .flatten()
        });
        let starts = self
            .services
            .values()
            .filter_map(|watched| match watched.slot {
                Slot::Up { since, .. } => {
                    let settled = since + crate::service::SETTLE;
                    let due = since + watched.policy.start_timeout;
                    let unproven = !watched.proven(Micros(u64::MAX).min(settled));
                    let next = if watched.probes.is_empty() {
                        settled
                    } else {
                        due
                    };
                    (unproven && Some(next) > self.telling.told_at()).then_some(next)
                }
                _ => None,
            });
        let plans = self.incidents.values().filter_map(Incident::next_wake);
        let settling = self.settling.values().copied();
        let silence = self.silence_at();
        let kept = self
            .services
            .values()
            .flat_map(|watched| watched.slots.values().filter_map(|slot| slot.keep_at));
        probes
            .chain(starts)
            .chain(plans)
            .chain(settling)
            .chain(silence)
            .chain(kept)
            .chain([self.telling.next_wake()])
            // What was due by the last step has been looked at in it; asking for
            // it again would keep the loop busy for as long as it stands.
            .filter(|at| Some(*at) > self.telling.told_at())
            .min()
    }

    fn mint_incident(&mut self) -> IncidentId {
        let id = IncidentId(self.next_incident);
        self.next_incident += 1;
        id
    }

    fn mint_plan(&mut self) -> PlanId {
        let id = PlanId(self.next_plan);
        self.next_plan += 1;
        id
    }
}

/// Dependencies first; the configuration has checked that there is no cycle.
fn start_order(config: &Config) -> Vec<ServiceId> {
    let mut order: Vec<ServiceId> = Vec::new();
    // Each round places all whose dependencies are placed; at most as many
    // rounds as services.
    for _ in 0..config.services.len() {
        for service in &config.services {
            let ready = service.depends_on.iter().all(|need| order.contains(need));
            if ready && !order.contains(&service.id) {
                order.push(service.id.clone());
            }
        }
    }
    order
}
