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

mod absorbing;
mod alarms;
mod approving;
mod asking;
mod budgeting;
mod certifying;
mod chaos;
mod command;
mod contesting;
mod controls;
mod deciding;
mod executing;
mod flagging;
mod foreseeing;
mod holding;
mod incident;
mod joining;
mod knowing;
mod leading;
mod mcu;
mod message;
mod noticing;
mod observing;
mod outside;
mod pacing;
mod reloading;
mod remembering;
mod reporting;
mod resuming;
mod retelling;
mod revising;
mod routing;
mod sagas;
mod sampling;
mod serving;
mod suspecting;
mod telling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use homeostat_common::budget::Budget;
use homeostat_common::ids::{
    BootId, IncidentId, Instance, InterfaceId, NodeId, PlanId, RouteId, ServiceId,
};
use homeostat_common::saga::{Answer, Fences};
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::body::{Body, Note};
use homeostat_detect::hang::Input;

pub use self::alarms::alarm_names;
pub use self::command::{Command, Scope, Switch};
pub use self::incident::Incident;
pub use self::mcu::mcu_alarm;
pub use self::message::{
    Battery, Class, Effect, Elsewhere, Event, HealRecord, Heat, HostSample, ProbeOutcome, Room,
    RouteSample, SlotReport, Sourced, Stranger, Told,
};
pub use self::remembering::{Resumed, Saved};
pub use self::telling::Snapshot;

use self::remembering::Former;
use crate::config::{Config, Limits};
use crate::execute::Order;
use crate::learn::Experience;
use crate::route::Routed;
use crate::service::{Slot, Watched, instant};
use crate::verify::Pace;

/// While a fresh process has not answered yet it is asked this often: a small
/// service is up within a few milliseconds, and a refused probe costs little.
const PROVE_PERIOD: Millis = Millis(5);

/// For this long after a start; then at the configured period.
const PROVE_SPAN: Millis = Millis(500);

/// One node's healing loop.
#[derive(Debug)]
pub struct Loop {
    node: NodeId,
    boot: BootId,
    limits: Limits,
    /// Interfaces among which a plan may choose.
    uplinks: Vec<InterfaceId>,
    /// Whether the configuration names time servers.
    time_servers: bool,
    services: BTreeMap<ServiceId, Watched>,
    /// Dependencies before those that need them.
    start_order: Vec<ServiceId>,
    paces: BTreeMap<ServiceId, Pace>,
    incidents: BTreeMap<ServiceId, Incident>,
    /// Parts of plans across nodes that run here.
    parts: Vec<sagas::Part>,
    fences: Fences,
    /// Plans across nodes that need a person.
    flagged: Vec<flagging::Flagged>,
    /// What became of the last parts.
    stories: VecDeque<retelling::Story>,
    /// When an order was not believed last.
    refused: Option<Micros>,
    /// Plans across nodes that are led from here.
    leads: BTreeMap<u64, leading::Lead>,
    life: u64,
    next_lead: u64,
    /// How the last of them ended, in words.
    led: VecDeque<String>,
    /// What this node says to itself about them.
    own_answers: Vec<Answer>,
    /// Orders that their fence gave away as old.
    stale_orders: u64,
    /// Lives that a former run of the agent has seen to work.
    proven_before: BTreeMap<ServiceId, Instance>,
    /// Mended services whose dependents are given time to settle.
    settling: BTreeMap<ServiceId, joining::Settling>,
    budget: Budget,
    experience: Experience,
    host: HostSample,
    sampled: Option<Micros>,
    sample_asked: Micros,
    /// Log lines by template.
    lines: observing::Lines,
    spawner: bool,
    routes: BTreeMap<RouteId, Routed>,
    /// Number of the forwarder's last report, and when it came; `None` while it
    /// is not reached.
    routed: Option<(u64, Micros)>,
    /// Standby replicas that have yet to get their weight after a reboot.
    reweigh: BTreeSet<ServiceId>,
    /// The forwarder is back: what it was asked for may be lost.
    repeat_routes: bool,
    /// Services that wait for a restart with their new configuration.
    renewing: BTreeSet<ServiceId>,
    /// Not before this time.
    renew_at: Micros,
    rivals: contesting::Rivals,
    /// What plans have left in force.
    left: Vec<holding::Left>,
    /// Orders of steps that moved outside of the usual round.
    waiting_orders: Vec<Order>,
    /// The stranger that was told of last, and when it was seen last.
    stranger: Option<(Micros, Stranger)>,
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
    controls: controls::Controls,
    alarms: alarms::Alarms,
    approvals: approving::Approvals,
    foresight: foreseeing::Foresight,
    noticing: noticing::Noticing,
    suspecting: suspecting::Suspecting,
    pacing: pacing::Pacing,
    outside: outside::Others,
    /// The moment of this step.
    now: Micros,
    chaos: chaos::Chaos,
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
        let (policy, shares) = (config.limits.budget, budgeting::shares(&config.services));
        let routes = routing::routes(config);
        let mut this = Self {
            node: config.node.id.clone(),
            boot,
            limits: config.limits.clone(),
            uplinks: config.node.uplinks.clone(),
            time_servers: !config.clock.servers.is_empty(),
            start_order: start_order(config),
            paces: BTreeMap::new(),
            incidents: BTreeMap::new(),
            parts: Vec::new(),
            fences: Fences::default(),
            flagged: Vec::new(),
            refused: None,
            stories: VecDeque::new(),
            leads: BTreeMap::new(),
            life: 1,
            next_lead: 1,
            led: VecDeque::new(),
            own_answers: Vec::new(),
            stale_orders: 0,
            proven_before: BTreeMap::new(),
            settling: BTreeMap::new(),
            budget: Budget::new(policy, shares, now),
            experience: resumed.experience,
            host: HostSample::default(),
            sampled: None,
            sample_asked: Micros(0),
            lines: observing::Lines::default(),
            spawner: false,
            routed: None,
            reweigh: BTreeSet::new(),
            repeat_routes: false,
            renewing: BTreeSet::new(),
            renew_at: Micros(0),
            rivals: contesting::Rivals::new(now),
            waiting_orders: Vec::new(),
            stranger: None,
            left: Vec::new(),
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
            controls: controls::Controls::new(config),
            alarms: alarms::Alarms::new(now),
            approvals: approving::Approvals::default(),
            foresight: foreseeing::Foresight::new(config),
            noticing: noticing::Noticing::new(config.detect),
            suspecting: suspecting::Suspecting::new(services.values(), routes.values()),
            pacing: pacing::Pacing::new(config.sample.clone(), now),
            outside: outside::Others::default(),
            now,
            chaos: chaos::Chaos::default(),
            services,
            routes,
        };
        let former = match resumed.saved {
            Some(saved) => this.recall(saved, shares, now),
            None => Former::default(),
        };
        let rebooted = former.rebooted;
        let mut parts = Vec::new();
        let mut leads = Vec::new();
        let mut records = resumed.records;
        records.retain(|record| match record {
            HealRecord::Saga(id, record) => {
                parts.push((*id, record.clone()));
                false
            }
            HealRecord::Lead(number, at, decision) => {
                leads.push((*number, *at, decision.clone()));
                false
            }
            HealRecord::Opened { .. }
            | HealRecord::Begun { .. }
            | HealRecord::Step(..)
            | HealRecord::Closed(_) => true,
        });
        this.resume_incidents(records, now);
        this.resume_parts(&parts, rebooted, now);
        this.resume_leads(leads, rebooted, now);
        this.resume_flags(former.flagged);
        this.resume_alarms(former.alarms, now);
        this
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

    /// Whether a service has missed a probe since its last sign of life: its threads
    /// are worth a look.
    #[must_use]
    pub fn is_silent(&self, service: &ServiceId) -> bool {
        self.services.get(service).is_some_and(Watched::silent)
    }

    /// The incidents that are open.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    /// What healing may cost.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Moves the loop to `now`. The shell carries out what comes back, in order.
    pub fn step(&mut self, now: Micros, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.now = now;
        self.heed_rivals(now, &event, &mut effects);
        self.absorb(now, event, &mut effects);
        self.decide(now, &mut effects);
        self.note_own(now, &mut effects);
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

    /// Detect, diagnose, plan, verify, execute.
    fn decide(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        self.feel_budget(now);
        self.settling.retain(|_, one| one.until() > now);
        self.pass_time(now, effects);
        self.end_stale(now, effects);
        let mut orders = std::mem::take(&mut self.waiting_orders);
        if std::mem::take(&mut self.repeat_routes) {
            for incident in self.incidents.values() {
                for run in incident.execution.iter().flat_map(|one| one.runs.iter()) {
                    run.repeat_route(&mut orders);
                }
            }
            for run in self.part_runs() {
                run.repeat_route(&mut orders);
            }
        }
        self.carry_out(&mut orders, now, effects);
        self.advance_plans(now, effects);
        for _ in 0..leading::TURNS_MAX {
            self.advance_parts(now, effects);
            if !self.advance_leads(now, effects) {
                break;
            }
        }
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
        // Is it the service, or is the whole node slow? A silence is judged by what is
        // seen after it.
        if self.look_at().is_some_and(|at| at <= now) {
            self.sample_asked = now;
            effects.push(Effect::Sample);
        } else {
            self.sample_when_due(now, effects);
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

    /// When a probe that was missed wants a look at host and processes.
    fn look_at(&self) -> Option<Micros> {
        let mut probes = self
            .services
            .values()
            .filter(|watched| matches!(watched.slot, Slot::Up { .. }))
            .flat_map(|watched| &watched.probes);
        // One that starts is not judged by its silence.
        probes
            .any(|probe| probe.proven && probe.hang.wants_look())
            .then(|| self.sample_asked + absorbing::SAMPLE_GAP)
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
        let plans = plans.chain(self.parts_wake()).chain(self.leads_wake());
        let settling = self.settling.values().flat_map(joining::Settling::turns);
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
            .chain(self.look_at())
            .chain(kept)
            .chain(self.controls.next_wake())
            .chain(self.approvals.next_wake())
            .chain(self.alarms.next_wake())
            .chain([self.telling.next_wake(), self.pacing.next_wake()])
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
