//! Faults at work: what begins when, what it lays on the world, what ends it.
//!
//! In goes an incident with the topology that it names, then each tick and each
//! thing that happened; out come burdens in the state, processes that die or hang,
//! and refusals of steps. It looks at nothing but what happened: who ordered a step
//! and why makes no difference to a fault.
//!
//! ```text
//! Waiting --trigger--> Present --root cleared--> Gone
//!    ^                    ^  |
//!    |                    |  | cleared, and another fault puts it back
//!    +--(begun again      +--+
//!        by a coupling)
//! ```
//!
//! A fault has parts, one for each thing that it is at. A part's *root* is what has
//! to be cleared; its *hurt* is what it lays on the thing, which can outlive the root
//! (a process that has read a wrong configuration) and pass before it (between the
//! periods of one that comes and goes).

use std::sync::Arc;

use super::burden::{LinkBurden, NodeBurden, ReplicaBurden, RouteBurden};
use super::grammar::{Cause, Coupling, FAULTS_MAX, Fault, Incident, Mechanism, Place, Step};
use super::mechanism::{Cure, on_link, on_node, on_replica, on_route, remedies};
use super::scope::{
    At, Subject, Target, covers, hands, locate, node_named, replica_named, route_named, step_of,
    targets, undone_by,
};
use crate::text::TextError;
use crate::topology::{NodeNo, ReplicaNo, RouteNo, Topology};
use crate::world::state::State;
use crate::world::{Happened, Phase};

/// Nothing goes wrong before this, in seconds: what is well has to be seen first.
const QUIET_S: f64 = 60.0;
/// How much later the seed may move the beginning.
const QUIET_SPREAD_S: f64 = 30.0;
/// How long a load or a temperature has to stay above its bound.
const SUSTAINED_S: f64 = 3.0;
/// How far the seed moves a strength to either side, as a share of it.
const STRENGTH_SPREAD: f64 = 0.15;
/// Between two deeds of a competing healer, at strengths 0 and 1.
const COMPETE_S: (f64, f64) = (60.0, 20.0);
/// Between two looks of a weak supply at the load.
const BROWN_OUT_S: f64 = 60.0;
/// The share of busy cores from which a weak supply gives way.
const BROWN_OUT_UTIL: f64 = 0.45;
/// The strength from which it gives way at all.
const BROWN_OUT_STRENGTH: f64 = 0.5;
/// How long a node takes to come back by itself.
const REBOOT_S: f64 = 45.0;

/// Why a step does not take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// In words.
    pub why: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Present,
    Gone,
}

/// One thing that a fault is at.
#[derive(Debug, Clone, Copy)]
struct Part {
    target: Target,
    /// Whose steps count, where that is narrower than the target.
    owner: Option<ReplicaNo>,
    /// Its root is there.
    root: bool,
    /// Its burden is laid.
    hurts: bool,
    /// A living process holds it.
    held: bool,
    /// It caught it from the others, and has no root.
    infected: bool,
}

/// One fault of the incident.
#[derive(Debug, Clone)]
struct Run {
    stage: Stage,
    parts: Vec<Part>,
    /// Steps at its locus, ever, one bit for each.
    seen: u64,
    /// Between two periods.
    resting: bool,
    /// Cleared, and about to come back.
    returning: bool,
    /// For each coupling that holds: refused tries, and until when it is locked.
    tries: Vec<(u8, f64)>,
}

impl Run {
    fn rooted(&self) -> bool {
        self.stage == Stage::Present && self.parts.iter().any(|part| part.root)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Due {
    Begin,
    End,
    Rest,
    Wake,
    Return,
    Heal,
    Beat,
}

#[derive(Debug, Clone, Copy)]
struct Timer {
    at: f64,
    fault: usize,
    due: Due,
}

/// What has to stay above a bound.
#[derive(Debug, Clone, Copy)]
enum Gauge {
    Load(ReplicaNo),
    Heat(NodeNo),
}

#[derive(Debug, Clone, Copy)]
struct Watch {
    gauge: Gauge,
    above: f64,
    /// The fault that it sets off, or that makes the replica of the gauge fragile.
    fault: usize,
    fragile: bool,
    since: Option<f64>,
}

/// What does not change while it works.
#[derive(Debug)]
struct Plan {
    faults: Vec<Fault>,
    at: Vec<At>,
    strength: Vec<f64>,
    /// The other fault of each coupling of each fault.
    other: Vec<Vec<Option<usize>>>,
    /// For triggers that name a route.
    route: Vec<Option<RouteNo>>,
    /// For triggers that name a fault.
    after: Vec<Option<usize>>,
    /// The writer of each cue that names one.
    writers: Vec<Vec<Option<ReplicaNo>>>,
    /// The fragile replica of each coupling that has one.
    fragile: Vec<Vec<Option<ReplicaNo>>>,
    onset: f64,
}

/// The faults of one episode, at work.
#[derive(Debug, Clone)]
pub struct Engine {
    plan: Arc<Plan>,
    runs: Vec<Run>,
    timers: Vec<Timer>,
    /// The earliest of the timers.
    next: f64,
    watches: Vec<Watch>,
    dirty: bool,
}

impl Engine {
    /// Checks an incident against a topology, and readies it.
    ///
    /// # Errors
    /// [`TextError`] at the line that names nothing.
    pub fn new(topology: &Topology, incident: &Incident, seed: u64) -> Result<Self, TextError> {
        let faults = &incident.faults;
        let index = |id: &str| faults.iter().position(|fault| fault.id == id);
        let onset = QUIET_S + QUIET_SPREAD_S * unit(seed, 0);
        let mut plan = Plan {
            faults: faults.clone(),
            at: Vec::new(),
            strength: Vec::new(),
            other: Vec::new(),
            route: Vec::new(),
            after: Vec::new(),
            writers: Vec::new(),
            fragile: Vec::new(),
            onset,
        };
        let mut engine = Self {
            plan: Arc::new(Plan { faults: Vec::new(), ..Plan::empty() }),
            runs: Vec::new(),
            timers: Vec::new(),
            next: f64::INFINITY,
            watches: Vec::new(),
            dirty: false,
        };
        if faults.len() > FAULTS_MAX {
            return Err(incident.refuse(0, format_args!("more than {FAULTS_MAX} faults")));
        }
        for (number, fault) in (0_u64..).zip(faults) {
            let place = plan.at.len();
            let at = locate(incident, fault, topology)?;
            let nothing = |line, what: &str| {
                let name = topology.name();
                incident.refuse(line, format!("{what:?} names nothing in topology {name}"))
            };
            let replica = |name: &str, line| {
                replica_named(topology, name).ok_or_else(|| nothing(line, name))
            };
            let mut route = None;
            let mut after = None;
            let line = fault.lines.trigger;
            match &fault.trigger.cause {
                Cause::AtOnce | Cause::Every(_) => engine.set(place, onset, Due::Begin),
                Cause::After(secs) => engine.set(place, onset + secs, Due::Begin),
                Cause::Load { replica: name, above } => {
                    let gauge = Gauge::Load(replica(name, line)?);
                    engine.watch(gauge, *above, place, false);
                }
                Cause::Heat { node, above } => {
                    let node = node_named(topology, node).ok_or_else(|| nothing(line, node))?;
                    engine.watch(Gauge::Heat(node), *above, place, false);
                }
                Cause::Start(name) | Cause::Death(name) => {
                    let found = route_named(topology, name);
                    route = Some(found.ok_or_else(|| nothing(line, name))?);
                }
                Cause::Cleared(id) => after = index(id),
                Cause::Coupled => {}
            }
            let mut fragile = Vec::new();
            for coupling in &fault.couplings {
                let Coupling::MovesLoad { onto, above } = coupling else {
                    fragile.push(None);
                    continue;
                };
                let onto = replica(onto, fault.lines.coupling)?;
                engine.watch(Gauge::Load(onto), *above, place, true);
                fragile.push(Some(onto));
            }
            let mut writers = Vec::new();
            for cue in &fault.cues {
                let by = cue.by.as_deref().map(|name| replica(name, fault.lines.cues));
                writers.push(by.transpose()?);
            }
            let owner = match (fault.locus.place, at) {
                (Place::File, At::Replica(replica)) => Some(replica),
                _ => None,
            };
            let part = |target| Part {
                target,
                owner,
                root: false,
                hurts: false,
                held: false,
                infected: false,
            };
            engine.runs.push(Run {
                stage: Stage::Waiting,
                parts: targets(topology, fault, at).into_iter().map(part).collect(),
                seen: 0,
                resting: false,
                returning: false,
                tries: vec![(0, 0.0); fault.couplings.len()],
            });
            let moved = 1.0 + STRENGTH_SPREAD * (2.0 * unit(seed, number + 1) - 1.0);
            // Moving a strength must not make a lethal fault a mild one.
            let low = if fault.strength >= 0.5 { 0.5 } else { 0.0 };
            let high = if fault.strength < 0.5 { 0.499 } else { 1.0 };
            plan.strength.push((fault.strength * moved).clamp(low, high));
            plan.at.push(at);
            plan.route.push(route);
            plan.after.push(after);
            plan.writers.push(writers);
            plan.fragile.push(fragile);
            let others = fault.couplings.iter().map(|one| one.other().and_then(index));
            plan.other.push(others.collect());
        }
        engine.plan = Arc::new(plan);
        Ok(engine)
    }

    /// When the incident begins, in seconds.
    #[must_use]
    pub fn onset(&self) -> f64 {
        self.plan.onset
    }

    /// Faults whose root is there, or will be back.
    #[must_use]
    pub fn roots_left(&self) -> usize {
        let left = |run: &&Run| run.rooted() || run.returning;
        self.runs.iter().filter(left).count()
    }

    /// Whether a fault, by its place in the incident, has its root in the world.
    #[must_use]
    pub fn rooted(&self, fault: usize) -> bool {
        self.runs.get(fault).is_some_and(Run::rooted)
    }

    /// Moves faults on to the time of the state.
    pub(crate) fn tick(&mut self, topology: &Topology, state: &mut State) {
        if state.now >= self.next {
            self.timers_due(topology, state);
        }
        if !self.watches.is_empty() {
            self.gauges(topology, state);
        }
    }

    /// Tells the faults what happened.
    pub(crate) fn happened(&mut self, topology: &Topology, state: &mut State, what: Happened) {
        if self.runs.is_empty() {
            return;
        }
        match what {
            Happened::Died(replica) => self.died(topology, state, replica),
            Happened::Stopped(replica) => self.let_go(replica),
            _ => {}
        }
        if let Some((step, subject)) = step_of(topology, what) {
            self.stepped(topology, state, what, step, subject);
        }
        if let Some((step, subject)) = undone_by(what) {
            self.unshield(topology, step, subject);
        }
        match what {
            Happened::Started(replica) => self.started(topology, state, replica),
            Happened::PoolReset(replica) => self.reconnected(replica),
            _ => {}
        }
        self.settle(topology, state);
    }

    /// Whether a step that is about to take effect does not.
    pub(crate) fn refuses(
        &mut self,
        topology: &Topology,
        state: &State,
        what: Happened,
    ) -> Option<Refusal> {
        let (step, subject) = step_of(topology, what)?;
        // What the operator does needs no agent.
        let hand = hands(topology, subject).filter(|_| !matches!(what, Happened::Done(..)));
        if let Some(node) = hand {
            let burden = &state.nodes[node.at()].burden;
            if burden.deaf || burden.off {
                return Some(Refusal { why: "the node takes no orders" });
            }
        }
        let plan = Arc::clone(&self.plan);
        let mut refusal = None;
        for (fault, run) in self.runs.iter_mut().enumerate() {
            if !covers(topology, plan.at[fault], subject) {
                continue;
            }
            let locks = plan.faults[fault].mechanism == Mechanism::Lock;
            if locks && step == Step::ClearLocks && run.parts.iter().any(|part| part.held) {
                refusal = Some(Refusal { why: "a process that lives holds the lock" });
            }
            let rooted = run.rooted();
            for (coupling, (tried, until)) in plan.faults[fault].couplings.iter().zip(&mut run.tries) {
                let Coupling::Holds { step: held, tries, lockout } = coupling else {
                    continue;
                };
                if *held != step {
                    continue;
                }
                if state.now < *until {
                    refusal = Some(Refusal { why: "locked out after too many tries" });
                } else if rooted {
                    *tried = tried.saturating_add(1);
                    if *tried > *tries {
                        *tried = 0;
                        *until = state.now + lockout;
                    }
                    refusal = Some(Refusal { why: "what it needs is held" });
                }
            }
        }
        refusal
    }

    fn set(&mut self, fault: usize, at: f64, due: Due) {
        self.timers.push(Timer { at, fault, due });
        self.next = self.next.min(at);
    }

    fn watch(&mut self, gauge: Gauge, above: f64, fault: usize, fragile: bool) {
        self.watches.push(Watch {
            gauge,
            above,
            fault,
            fragile,
            since: None,
        });
    }

    fn timers_due(&mut self, topology: &Topology, state: &mut State) {
        // One after the other, earliest first: each may set another.
        while let Some(place) = self.earliest(state.now) {
            let Timer { fault, due, .. } = self.timers.swap_remove(place);
            match due {
                Due::Begin => self.begin(topology, state, fault),
                Due::End => self.end(topology, state, fault),
                Due::Rest => self.rest(fault),
                Due::Wake => self.wake(topology, state, fault),
                Due::Return => self.come_back(topology, state, fault),
                Due::Heal => self.heal(topology, state, fault),
                Due::Beat => self.beat(topology, state, fault),
            }
        }
        self.next = self.timers.iter().map(|timer| timer.at).fold(f64::INFINITY, f64::min);
        self.settle(topology, state);
    }

    /// The timer that is due first; of two at once the one of the earlier fault.
    fn earliest(&self, now: f64) -> Option<usize> {
        let due = self.timers.iter().enumerate().filter(|(_, timer)| timer.at <= now);
        let first = due.min_by(|(_, a), (_, b)| a.at.total_cmp(&b.at).then(a.fault.cmp(&b.fault)));
        first.map(|(place, _)| place)
    }

    fn gauges(&mut self, topology: &Topology, state: &mut State) {
        if state.now < self.plan.onset {
            return;
        }
        for place in 0..self.watches.len() {
            let watch = &mut self.watches[place];
            let value = match watch.gauge {
                Gauge::Load(replica) => state.replicas[replica.at()].util,
                Gauge::Heat(node) => state.nodes[node.at()].temp,
            };
            if value <= watch.above {
                watch.since = None;
                continue;
            }
            let since = *watch.since.get_or_insert(state.now);
            if state.now - since < SUSTAINED_S {
                continue;
            }
            watch.since = None;
            let Watch { gauge, fault, fragile, .. } = *watch;
            match gauge {
                Gauge::Load(replica) if fragile => {
                    let runs = state.replicas[replica.at()].phase == Phase::Running;
                    if runs && self.runs[fault].rooted() {
                        state.replicas[replica.at()].oom_kills += 1;
                        self.kill(topology, state, replica);
                    }
                }
                Gauge::Load(_) | Gauge::Heat(_) => {
                    if self.runs[fault].stage == Stage::Waiting {
                        self.begin(topology, state, fault);
                    }
                }
            }
        }
        self.settle(topology, state);
    }

    fn begin(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        if self.runs[fault].stage == Stage::Present {
            return;
        }
        let plan = Arc::clone(&self.plan);
        let what = &plan.faults[fault];
        let run = &mut self.runs[fault];
        run.stage = Stage::Present;
        run.resting = false;
        run.parts.retain(|part| !part.infected);
        for part in &mut run.parts {
            part.root = true;
            part.hurts = true;
            part.held = what.mechanism == Mechanism::Lock;
        }
        match (&what.trigger.cause, what.trigger.lasts) {
            (Cause::Every(period), lasts) => {
                let lasts = lasts.filter(|lasts| lasts < period);
                if let Some(lasts) = lasts {
                    self.set(fault, state.now + lasts, Due::Rest);
                }
                self.set(fault, state.now + period, Due::Wake);
            }
            (_, Some(lasts)) => self.set(fault, state.now + lasts, Due::End),
            (_, None) => {}
        }
        for coupling in &what.couplings {
            if let Coupling::Heals { after, .. } = coupling {
                self.set(fault, state.now + after, Due::Heal);
            }
        }
        match what.mechanism {
            Mechanism::Compete | Mechanism::BrownOut => {
                let after = self.beat_after(fault);
                self.set(fault, state.now + after, Due::Beat);
            }
            _ => {}
        }
        self.dirty = true;
        self.deeds(topology, state, fault);
    }

    /// What a fault does at the moment when it begins, besides its burden.
    fn deeds(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        let plan = Arc::clone(&self.plan);
        if plan.faults[fault].mechanism != Mechanism::Die || self.hidden(fault) {
            return;
        }
        let agent = plan.faults[fault].locus.place == Place::Agent;
        for place in 0..self.runs[fault].parts.len() {
            let part = self.runs[fault].parts[place];
            match part.target {
                _ if !part.root => {}
                Target::Replica(replica) => self.kill(topology, state, replica),
                Target::Node(node) if !agent => {
                    for replica in &topology.nodes()[node.at()].replicas {
                        self.kill(topology, state, *replica);
                    }
                }
                Target::Node(_) | Target::Route(_) | Target::Link(..) => {}
            }
        }
    }

    fn kill(&mut self, topology: &Topology, state: &mut State, replica: ReplicaNo) {
        if matches!(state.replicas[replica.at()].phase, Phase::Dead | Phase::Standby) {
            return;
        }
        state.kill(topology, replica);
        self.died(topology, state, replica);
    }

    fn died(&mut self, topology: &Topology, state: &mut State, replica: ReplicaNo) {
        self.let_go(replica);
        let route = topology.replicas()[replica.at()].route;
        for fault in 0..self.runs.len() {
            let by_death = matches!(self.plan.faults[fault].trigger.cause, Cause::Death(_));
            let waits = self.runs[fault].stage == Stage::Waiting;
            if by_death && waits && self.plan.route[fault] == Some(route) && state.now >= self.plan.onset {
                // Bounded: each fault begins from `Waiting` once.
                self.begin(topology, state, fault);
            }
        }
    }

    /// A process is gone, and with it what it held.
    fn let_go(&mut self, replica: ReplicaNo) {
        for part in self.runs.iter_mut().flat_map(|run| &mut run.parts) {
            if part.target == Target::Replica(replica) {
                part.held = false;
            }
        }
    }

    fn stepped(
        &mut self,
        topology: &Topology,
        state: &mut State,
        what: Happened,
        step: Step,
        subject: Subject,
    ) {
        let plan = Arc::clone(&self.plan);
        let mut brought = [false; FAULTS_MAX];
        for fault in 0..self.runs.len() {
            if !covers(topology, plan.at[fault], subject) {
                continue;
            }
            let run = &mut self.runs[fault];
            for (coupling, other) in plan.faults[fault].couplings.iter().zip(&plan.other[fault]) {
                if let (Coupling::Breaks { on, unless, .. }, Some(other)) = (coupling, other) {
                    let protected = unless.is_some_and(|first| run.seen & bit(first) != 0);
                    if *on == step && run.rooted() && !protected {
                        brought[*other] = true;
                    }
                }
            }
            run.seen |= bit(step);
            self.cure(topology, state, fault, what, step, subject);
        }
        for (fault, brought) in brought.iter().enumerate() {
            if *brought {
                self.begin(topology, state, fault);
            }
        }
    }

    fn cure(
        &mut self,
        topology: &Topology,
        state: &mut State,
        fault: usize,
        what: Happened,
        step: Step,
        subject: Subject,
    ) {
        let plan = Arc::clone(&self.plan);
        let remedies = remedies(plan.faults[fault].mechanism, plan.faults[fault].locus.place);
        let Some(remedy) = remedies.iter().find(|remedy| remedy.step == step) else {
            return;
        };
        let run = &mut self.runs[fault];
        let was = run.rooted();
        for part in run.parts.iter_mut().filter(|part| part.root) {
            if !covers(topology, seat(*part), subject) {
                continue;
            }
            match (part.target, what) {
                // Away from this link, and not onto it.
                (Target::Link(_, link), Happened::UplinkSwitched(_, to)) if link == to => continue,
                _ => {}
            }
            part.root = false;
            // A bad link stays bad for whoever goes over it.
            let link = matches!(part.target, Target::Link(..));
            part.hurts = remedy.effect == Cure::EndsForFresh || link;
            self.dirty = true;
        }
        let shields = remedy.effect == Cure::Shields;
        if was && !self.runs[fault].rooted() {
            self.cleared(topology, state, fault, shields);
        }
    }

    /// A shield was taken down.
    fn unshield(&mut self, topology: &Topology, step: Step, subject: Subject) {
        let plan = Arc::clone(&self.plan);
        for (fault, run) in self.runs.iter_mut().enumerate() {
            let what = &plan.faults[fault];
            let remedies = remedies(what.mechanism, what.locus.place);
            let shields = |remedy: &super::mechanism::Remedy| {
                remedy.step == step && remedy.effect == Cure::Shields
            };
            if run.stage == Stage::Waiting || !remedies.iter().any(shields) {
                continue;
            }
            // One that has ended by itself has laid everything down.
            if run.stage == Stage::Gone && run.seen & bit(step) == 0 {
                continue;
            }
            for part in &mut run.parts {
                if covers(topology, seat(*part), subject) && !part.infected {
                    part.root = true;
                    part.hurts = true;
                    run.stage = Stage::Present;
                    self.dirty = true;
                }
            }
        }
    }

    /// All roots of a fault were cleared.
    fn cleared(&mut self, topology: &Topology, state: &mut State, fault: usize, shields: bool) {
        let plan = Arc::clone(&self.plan);
        for (coupling, other) in plan.faults[fault].couplings.iter().zip(&plan.other[fault]) {
            if let (Coupling::Returns { after, .. }, Some(other)) = (coupling, other)
                && self.runs[*other].rooted()
            {
                self.runs[fault].returning = true;
                self.set(fault, state.now + after, Due::Return);
                return;
            }
        }
        if !shields {
            self.gone(topology, state, fault);
        }
    }

    fn gone(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        let plan = Arc::clone(&self.plan);
        let run = &mut self.runs[fault];
        run.stage = Stage::Gone;
        run.returning = false;
        self.timers.retain(|timer| timer.fault != fault);
        self.dirty = true;
        for other in 0..self.runs.len() {
            if plan.after[other] == Some(fault) && self.runs[other].stage == Stage::Waiting {
                self.begin(topology, state, other);
            }
            let mut couplings = plan.faults[other].couplings.iter().zip(&plan.other[other]);
            let hid = couplings.any(|(coupling, behind)| {
                matches!(coupling, Coupling::Hides { .. }) && *behind == Some(fault)
            });
            if hid && self.runs[other].stage == Stage::Present {
                self.deeds(topology, state, other);
            }
        }
    }

    fn end(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        let run = &mut self.runs[fault];
        if run.stage != Stage::Present {
            return;
        }
        // It ended by itself: no shield that is taken down brings it back.
        run.seen = 0;
        for part in &mut run.parts {
            part.root = false;
            part.hurts = false;
        }
        self.gone(topology, state, fault);
    }

    fn heal(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        let plan = Arc::clone(&self.plan);
        let stopped = plan.faults[fault].couplings.iter().any(|coupling| {
            matches!(coupling, Coupling::Heals { unless, .. }
                if self.runs[fault].seen & bit(*unless) != 0)
        });
        if !stopped {
            self.end(topology, state, fault);
        }
    }

    fn rest(&mut self, fault: usize) {
        self.runs[fault].resting = true;
        self.dirty = true;
    }

    fn wake(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        if !self.runs[fault].rooted() {
            return;
        }
        self.runs[fault].resting = false;
        self.dirty = true;
        let plan = Arc::clone(&self.plan);
        let trigger = &plan.faults[fault].trigger;
        if let Cause::Every(period) = trigger.cause {
            if let Some(lasts) = trigger.lasts.filter(|lasts| *lasts < period) {
                self.set(fault, state.now + lasts, Due::Rest);
            }
            self.set(fault, state.now + period, Due::Wake);
        }
        self.deeds(topology, state, fault);
    }

    /// Another fault puts a cleared one back, if it is still there.
    fn come_back(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        if !self.runs[fault].returning {
            return;
        }
        self.runs[fault].returning = false;
        let plan = Arc::clone(&self.plan);
        let mut couplings = plan.faults[fault].couplings.iter().zip(&plan.other[fault]);
        let upstream = couplings.any(|(coupling, other)| {
            let returns = matches!(coupling, Coupling::Returns { .. });
            returns && other.is_some_and(|other| self.runs[other].rooted())
        });
        if !upstream {
            self.gone(topology, state, fault);
            return;
        }
        for part in self.runs[fault].parts.iter_mut().filter(|part| !part.infected) {
            part.root = true;
            part.hurts = true;
        }
        self.dirty = true;
        self.deeds(topology, state, fault);
    }

    fn beat_after(&self, fault: usize) -> f64 {
        match self.plan.faults[fault].mechanism {
            Mechanism::Compete => {
                COMPETE_S.0 + (COMPETE_S.1 - COMPETE_S.0) * self.plan.strength[fault]
            }
            _ => BROWN_OUT_S,
        }
    }

    /// What a fault does again and again.
    fn beat(&mut self, topology: &Topology, state: &mut State, fault: usize) {
        if !self.runs[fault].rooted() {
            return;
        }
        let after = self.beat_after(fault);
        self.set(fault, state.now + after, Due::Beat);
        if self.hidden(fault) || self.runs[fault].resting {
            return;
        }
        let weak = self.plan.strength[fault] >= BROWN_OUT_STRENGTH;
        let competes = self.plan.faults[fault].mechanism == Mechanism::Compete;
        for place in 0..self.runs[fault].parts.len() {
            match self.runs[fault].parts[place].target {
                // The other healer believes that what runs is ill.
                Target::Replica(replica) if competes => {
                    if state.replicas[replica.at()].phase == Phase::Running {
                        self.kill(topology, state, replica);
                        let route = topology.replicas()[replica.at()].route;
                        let left = topology.routes()[route.at()].start_s;
                        state.replicas[replica.at()].phase = Phase::Starting { left };
                    }
                }
                Target::Node(node) if weak && state.nodes[node.at()].util > BROWN_OUT_UTIL => {
                    for replica in &topology.nodes()[node.at()].replicas {
                        self.let_go(*replica);
                    }
                    state.reboot(topology, node, REBOOT_S);
                }
                Target::Replica(_) | Target::Node(_) | Target::Route(_) | Target::Link(..) => {}
            }
        }
    }

    fn started(&mut self, topology: &Topology, state: &mut State, replica: ReplicaNo) {
        let plan = Arc::clone(&self.plan);
        let route = topology.replicas()[replica.at()].route;
        self.let_go(replica);
        for fault in 0..self.runs.len() {
            let what = &plan.faults[fault];
            let by_start = matches!(what.trigger.cause, Cause::Start(_));
            let waits = self.runs[fault].stage == Stage::Waiting;
            if by_start && waits && plan.route[fault] == Some(route) && state.now >= plan.onset {
                self.begin(topology, state, fault);
                continue;
            }
            let run = &mut self.runs[fault];
            let mut had = false;
            for part in &mut run.parts {
                if part.target == Target::Replica(replica) {
                    // A fresh process has what lies on the disk, and no more.
                    part.hurts = part.root;
                    had |= part.hurts;
                    self.dirty = true;
                }
            }
            let spreads = what.couplings.contains(&Coupling::ReInfects);
            let sibling = match plan.at[fault] {
                At::Replica(other) => topology.replicas()[other.at()].route == route,
                At::Route(other) => other == route,
                At::Node(node) => topology.replicas()[replica.at()].node == node,
                At::Outside(_) | At::Link(..) | At::Site(_) => false,
            };
            if spreads && sibling && !had && run.rooted() {
                self.infect(fault, replica);
            }
        }
    }

    fn infect(&mut self, fault: usize, replica: ReplicaNo) {
        let target = Target::Replica(replica);
        let parts = &mut self.runs[fault].parts;
        self.dirty = true;
        if let Some(part) = parts.iter_mut().find(|part| part.target == target) {
            part.hurts = true;
            return;
        }
        // At most one for each sibling.
        parts.push(Part {
            target,
            owner: None,
            root: false,
            hurts: true,
            held: false,
            infected: true,
        });
    }

    fn reconnected(&mut self, replica: ReplicaNo) {
        for (run, what) in self.runs.iter_mut().zip(&self.plan.faults) {
            if what.mechanism != Mechanism::DenyCredential {
                continue;
            }
            for part in &mut run.parts {
                if part.target == Target::Replica(replica) && !part.root {
                    part.hurts = false;
                    self.dirty = true;
                }
            }
        }
    }

    /// Whether another fault hides it.
    fn hidden(&self, fault: usize) -> bool {
        let mut couplings = self.plan.faults[fault].couplings.iter().zip(&self.plan.other[fault]);
        couplings.any(|(coupling, behind)| {
            let hides = matches!(coupling, Coupling::Hides { .. });
            hides && behind.is_some_and(|behind| self.runs[behind].rooted())
        })
    }

    /// Lays all burdens anew, if any has changed, and has processes follow them.
    fn settle(&mut self, topology: &Topology, state: &mut State) {
        // Killing what cannot run may set off another fault, each of them once.
        while self.dirty {
            self.dirty = false;
            self.lay(topology, state);
            for at in 0..state.replicas.len() {
                let replica = &state.replicas[at];
                if replica.phase != Phase::Running {
                    continue;
                }
                let ReplicaBurden { doomed, stuck, .. } = replica.burden;
                let number = ReplicaNo::new(at);
                if doomed {
                    self.kill(topology, state, number);
                } else if stuck {
                    state.hang(number);
                }
            }
        }
    }

    fn lay(&self, topology: &Topology, state: &mut State) {
        for replica in &mut state.replicas {
            replica.burden = ReplicaBurden::NONE;
        }
        for route in &mut state.routes {
            route.burden = RouteBurden::NONE;
        }
        for node in &mut state.nodes {
            node.burden = NodeBurden::NONE;
        }
        for link in &mut state.links {
            link.burden = LinkBurden::default();
        }
        for (fault, run) in self.runs.iter().enumerate() {
            if run.resting || self.hidden(fault) {
                continue;
            }
            let what = &self.plan.faults[fault];
            let strength = self.plan.strength[fault];
            for part in run.parts.iter().filter(|part| part.hurts) {
                match part.target {
                    Target::Replica(replica) => {
                        let burden = &mut state.replicas[replica.at()].burden;
                        on_replica(what.mechanism, strength, burden);
                    }
                    Target::Route(route) => {
                        let burden = &mut state.routes[route.at()].burden;
                        on_route(what.mechanism, strength, burden);
                    }
                    Target::Node(node) => {
                        let burden = &mut state.nodes[node.at()].burden;
                        on_node(what.mechanism, what.locus.place, strength, burden);
                        // A wrong clock is met by each process that checks a date.
                        if what.mechanism == Mechanism::Skew {
                            for replica in &topology.nodes()[node.at()].replicas {
                                let burden = &mut state.replicas[replica.at()].burden;
                                on_replica(what.mechanism, strength, burden);
                            }
                        }
                    }
                    Target::Link(_, link) => {
                        let burden = &mut state.links[link.at()].burden;
                        on_link(what.mechanism, strength, burden);
                    }
                }
            }
        }
        state.stale = true;
    }
}

/// Where a part is, for the question whether a step is about it.
fn seat(part: Part) -> At {
    match (part.owner, part.target) {
        (Some(owner), _) => At::Replica(owner),
        (None, Target::Replica(replica)) => At::Replica(replica),
        (None, Target::Route(route)) => At::Route(route),
        (None, Target::Node(node)) => At::Node(node),
        (None, Target::Link(node, link)) => At::Link(node, link),
    }
}

fn bit(step: Step) -> u64 {
    1 << (step as u32)
}
