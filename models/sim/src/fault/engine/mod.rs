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

mod course;
mod cues;
mod lay;
mod mark;
mod near;
mod ready;
mod steps;
#[cfg(test)]
mod tests;

pub(crate) use self::cues::{Writes, told_apart};

use std::sync::Arc;

use super::grammar::{Coupling, Fault, Mechanism, Step};
use super::scope::{At, Target, covers, hands, step_of, undone_by};
use crate::topology::{Errand, NodeNo, ReplicaNo, RouteNo, Topology};
use crate::world::state::State;
use crate::world::{Happened, Phase};

/// How long a load or a temperature has to stay above its bound.
const SUSTAINED_S: f64 = 3.0;

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
    /// A fresh process has it from then on, if the root is still there.
    catches_at: f64,
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
    Catch,
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
#[derive(Debug, Default)]
struct Script {
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
    script: Arc<Script>,
    runs: Vec<Run>,
    timers: Vec<Timer>,
    /// The earliest of the timers.
    next: f64,
    watches: Vec<Watch>,
    dirty: bool,
}

impl Engine {
    /// When the incident begins, in seconds.
    #[must_use]
    pub fn onset(&self) -> f64 {
        self.script.onset
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

    /// Whether something of the faults is due until a time by itself, besides what a
    /// competing healer or a weak supply does again and again.
    pub(crate) fn pends(&self, until: f64) -> bool {
        let due = |timer: &Timer| timer.at <= until && timer.due != Due::Beat;
        self.timers.iter().any(due)
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
        // A reboot that was asked for is none yet.
        if self.runs.is_empty() || matches!(what, Happened::Done(Errand::Reboot, _)) {
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
                return Some(Refusal {
                    why: "the node takes no orders",
                });
            }
        }
        let script = Arc::clone(&self.script);
        let mut refusal = None;
        for (fault, run) in self.runs.iter_mut().enumerate() {
            if !covers(topology, script.at[fault], subject) {
                continue;
            }
            let locks = script.faults[fault].mechanism == Mechanism::Lock;
            if locks && step == Step::ClearLocks && run.parts.iter().any(|part| part.held) {
                refusal = Some(Refusal {
                    why: "a process that lives holds the lock",
                });
            }
            let rooted = run.rooted();
            for (coupling, (tried, until)) in
                script.faults[fault].couplings.iter().zip(&mut run.tries)
            {
                let Coupling::Holds {
                    step: held,
                    tries,
                    lockout,
                } = coupling
                else {
                    continue;
                };
                if *held != step {
                    continue;
                }
                if state.now < *until {
                    refusal = Some(Refusal {
                        why: "locked out after too many tries",
                    });
                } else if rooted {
                    *tried = tried.saturating_add(1);
                    if *tried > *tries {
                        *tried = 0;
                        *until = state.now + lockout;
                    }
                    refusal = Some(Refusal {
                        why: "what it needs is held",
                    });
                }
            }
        }
        refusal
    }

    fn set(&mut self, fault: usize, at: f64, due: Due) {
        self.timers.push(Timer { at, fault, due });
        self.next = self.next.min(at);
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
                Due::Catch => self.catch(state.now, fault),
            }
        }
        self.next = self
            .timers
            .iter()
            .map(|timer| timer.at)
            .fold(f64::INFINITY, f64::min);
        self.settle(topology, state);
    }

    /// The timer that is due first; of two at once the one of the earlier fault.
    fn earliest(&self, now: f64) -> Option<usize> {
        let due = self
            .timers
            .iter()
            .enumerate()
            .filter(|(_, timer)| timer.at <= now);
        let first = due.min_by(|(_, a), (_, b)| a.at.total_cmp(&b.at).then(a.fault.cmp(&b.fault)));
        first.map(|(place, _)| place)
    }

    fn gauges(&mut self, topology: &Topology, state: &mut State) {
        if state.now < self.script.onset {
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
            let Watch {
                gauge,
                fault,
                fragile,
                ..
            } = *watch;
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
}

/// Where a part of a fault is, for the question whether a step is about it.
fn seat(fault: At, part: Part) -> At {
    match (part.owner, part.target) {
        (Some(owner), _) => At::Replica(owner),
        (None, Target::Replica(replica)) => At::Replica(replica),
        // Somebody else's is reached through its callers.
        (None, Target::Route(_)) => fault,
        (None, Target::Node(node)) => At::Node(node),
        (None, Target::Link(node, link)) => At::Link(node, link),
    }
}

fn bit(step: Step) -> u64 {
    1 << (step as u32)
}
