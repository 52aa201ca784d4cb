//! Plans under way: what is ordered, step by step, as on real nodes.
//!
//! In go plans of one node or several; out come effects on the state, told to the engine
//! of faults, and how each plan ended. A step takes its time, may fail for a reason that
//! is seen, and may fail without a word. When one fails, those before it that can be taken
//! back are, in reverse order. Rules and budgets are not judged here: that is the gate's.

mod deed;
mod effect;
mod steps;

use std::sync::Arc;

use homeostat_common::ids::NodeId;
use homeostat_common::plan::{PLAN_STEPS_MAX, Plan};
use homeostat_common::saga::FleetPlan;

pub(crate) use self::deed::Deed;
pub use self::deed::Impossible;
pub(super) use self::effect::start;
use self::effect::{Before, Hands};
use self::steps::{Step, compile, overlap, touched};
use super::Settings;
use super::refresh::reachable;
use super::state::{Phase, State};
use crate::chance::{Chance, Stream};
use crate::fault::{Engine, Refusal};
use crate::topology::{Errand, ReplicaNo, Topology};

/// Plans under way at once; a node runs few, and a fleet of 60 few more.
pub const ORDERS_MAX: usize = 16;
/// Plans of which it is known how they ended; older ones are forgotten.
pub const ORDERS_KEPT: usize = 64;
/// Errands of the operator under way at once.
const ERRANDS_MAX: usize = 16;
/// A probe wants right answers for so long, in seconds.
const PROBE_S: f64 = 2.0;
/// Share of errors up to which an answer counts as right.
const PROBE_ERR: f64 = 0.05;
/// A probe waits for an answer so long, in seconds.
const PROBE_LATE_S: f64 = 1.0;

/// What is ordered.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// A plan of one node, led by itself: it needs no way to anybody else.
    Node(NodeId, Plan),
    /// A plan of several nodes, led from outside: each must be reached for its steps.
    Fleet(FleetPlan),
}

/// The number of an order, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderNo(pub u32);

/// Why an order is not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OrderError {
    /// A step that cannot be carried out at all.
    #[error("step {step}: {why}")]
    Impossible {
        /// Its place.
        step: usize,
        /// Why.
        #[source]
        why: Impossible,
    },
    /// Another plan has to do with the same service or route.
    #[error("step {step} touches what plan {other:?} has under way")]
    Contested {
        /// Its place.
        step: usize,
        /// The other one.
        other: OrderNo,
    },
    /// Too many are under way.
    #[error("{ORDERS_MAX} plans are under way, no more are taken")]
    TooMany,
}

/// Why a step failed, as it is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Failure {
    /// The node, or its agent, does not answer.
    NoAnswer,
    /// Something holds what it needs.
    Held(Refusal),
    /// It did not come about in time.
    Late,
    /// The service died while it came up.
    Died,
    /// The service does not answer, so it cannot do what it is asked for.
    NotServing,
    /// Too few other nodes are up.
    NoQuorum,
    /// No other replica is there.
    NoOther,
    /// A new replica would not have the state.
    NoState,
    /// There is no copy to put back.
    NoCopy,
    /// Nothing can be written.
    NoRoom,
    /// The operator has too much to do.
    TooManyErrands,
}

/// How far a plan has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// It is under way.
    Underway,
    /// All steps are done.
    Done,
    /// A step failed; what could be taken back was.
    Failed {
        /// Its place.
        step: usize,
        /// Why.
        why: Failure,
    },
}

/// What healing has cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spent {
    /// The nodes' own work, in capacity-seconds.
    pub work: f64,
    /// What was taken from the users' way: shares of routes, times seconds.
    pub disruption: f64,
    /// Steps begun.
    pub steps: u32,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy)]
enum At {
    Waiting,
    Under {
        since: f64,
        acts_at: f64,
        /// What stood there before, once it has taken effect.
        acted: Option<Before>,
        silent: bool,
        /// Since when its service answers rightly.
        right_since: Option<f64>,
        /// Share of its route that it takes away meanwhile.
        share: f64,
    },
    Done(Before),
}

#[derive(Debug, Clone)]
struct Running {
    no: OrderNo,
    steps: Arc<[Step]>,
    at: [At; PLAN_STEPS_MAX],
    progress: Progress,
}

/// An errand of the operator that is under way.
#[derive(Debug, Clone, Copy)]
struct Pending {
    errand: Errand,
    replica: ReplicaNo,
    at: f64,
}

/// All plans under way, and how the last ones ended.
#[derive(Debug, Clone)]
pub(crate) struct Acts {
    running: Vec<Running>,
    ended: Vec<(OrderNo, Progress)>,
    pending: Vec<Pending>,
    next: u32,
    spent: Spent,
    durations: Chance,
    silence: Chance,
    starts: Chance,
}

impl Acts {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            running: Vec::with_capacity(ORDERS_MAX),
            ended: Vec::with_capacity(ORDERS_KEPT),
            pending: Vec::with_capacity(ERRANDS_MAX),
            next: 0,
            spent: Spent::default(),
            durations: Chance::new(seed, Stream::Step),
            silence: Chance::new(seed, Stream::Silent),
            starts: Chance::new(seed, Stream::Start),
        }
    }

    pub(crate) fn idle(&self) -> bool {
        self.running.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn spent(&self) -> Spent {
        self.spent
    }

    pub(crate) fn progress(&self, no: OrderNo) -> Option<Progress> {
        let ended = self.ended.iter().find(|(own, _)| *own == no);
        let running = || self.running.iter().find(|one| one.no == no);
        ended
            .map(|(_, progress)| *progress)
            .or_else(|| running().map(|one| one.progress))
    }

    pub(crate) fn order(
        &mut self,
        topology: &Topology,
        order: &Order,
    ) -> Result<OrderNo, OrderError> {
        if self.running.len() >= ORDERS_MAX {
            return Err(OrderError::TooMany);
        }
        let steps: Arc<[Step]> = compile(topology, order)?.into();
        for (place, step) in steps.iter().enumerate() {
            let touched = touched(topology, &step.deed);
            let contests = |running: &&Running| {
                let mut theirs = running
                    .steps
                    .iter()
                    .map(|other| steps::touched(topology, &other.deed));
                theirs.any(|theirs| overlap(&touched, &theirs))
            };
            if let Some(other) = self.running.iter().find(contests) {
                let other = other.no;
                return Err(OrderError::Contested { step: place, other });
            }
        }
        let no = OrderNo(self.next);
        self.next += 1;
        self.running.push(Running {
            no,
            steps,
            at: [At::Waiting; PLAN_STEPS_MAX],
            progress: Progress::Underway,
        });
        Ok(no)
    }

    /// Moves all plans on to the present.
    pub(crate) fn advance(
        &mut self,
        topology: &Topology,
        state: &mut State,
        engine: &mut Engine,
        settings: &Settings,
    ) {
        let mut hands = Hands {
            topology,
            state,
            engine,
            starts: self.starts,
        };
        let now = hands.state.now;
        while let Some(due) = self.pending.iter().position(|errand| errand.at <= now) {
            let due = self.pending.remove(due);
            hands.errand(due.errand, due.replica);
        }
        let mut at = 0;
        while at < self.running.len() {
            self.advance_one(at, &mut hands, settings);
            let running = &self.running[at];
            if running.progress == Progress::Underway {
                at += 1;
                continue;
            }
            if self.ended.len() == ORDERS_KEPT {
                self.ended.remove(0);
            }
            self.ended.push((running.no, running.progress));
            self.running.remove(at);
        }
    }

    fn advance_one(&mut self, at: usize, hands: &mut Hands<'_>, settings: &Settings) {
        let steps = Arc::clone(&self.running[at].steps);
        loop {
            let mut moved = false;
            for (place, step) in steps.iter().enumerate() {
                let running = &self.running[at];
                let before = running.at[place];
                let after = match before {
                    At::Done(_) => continue,
                    At::Waiting if running.done() & step.after != step.after => continue,
                    At::Waiting => self.begin(at, place, step, hands, settings),
                    At::Under { .. } => self.go_on(before, step, hands),
                };
                match after {
                    Ok(after) => {
                        moved |= matches!(after, At::Done(_));
                        self.running[at].at[place] = after;
                    }
                    Err(why) => {
                        self.running[at].progress = Progress::Failed { step: place, why };
                        self.take_back(at, hands);
                        return;
                    }
                }
            }
            // What follows a step that is done begins at once.
            if !moved {
                break;
            }
        }
        let running = &mut self.running[at];
        if running.at[..steps.len()]
            .iter()
            .all(|at| matches!(at, At::Done(_)))
        {
            running.progress = Progress::Done;
        }
    }

    fn begin(
        &mut self,
        at: usize,
        place: usize,
        step: &Step,
        hands: &Hands<'_>,
        settings: &Settings,
    ) -> Result<At, Failure> {
        let (topology, state) = (hands.topology, &*hands.state);
        let answers = if step.fleet {
            reachable(topology, state, step.node)
        } else {
            state.up(step.node)
        } && !state.nodes[step.node.at()].burden.deaf;
        // Whoever waits for a node's answer can ask for its switch to be pressed.
        let by_others = matches!(step.deed, Deed::Call(Errand::Reboot, ..));
        if !answers && !by_others {
            return Err(Failure::NoAnswer);
        }
        self.spent.work += step.work;
        self.spent.steps += 1;
        let order = u64::from(self.running[at].no.0);
        let place = place as u64;
        let spread = match step.deed {
            Deed::Wait(_) => 1.0,
            _ => 0.8 + 0.4 * self.durations.uniform(order, place),
        };
        let silent = step.writes && self.silence.uniform(order, place) < settings.silent;
        let seconds = match step.deed {
            // The first as long as it says, the second as long as a process takes to end.
            Deed::Wait(_) | Deed::Restart(..) => effect::seconds(&step.deed, state),
            _ => effect::seconds(&step.deed, state) * topology.habits.deeds,
        };
        Ok(At::Under {
            since: state.now,
            acts_at: state.now + seconds * spread,
            acted: None,
            silent,
            right_since: None,
            share: 0.0,
        })
    }

    fn go_on(&mut self, at: At, step: &Step, hands: &mut Hands<'_>) -> Result<At, Failure> {
        let At::Under {
            since,
            acts_at,
            mut acted,
            silent,
            mut right_since,
            mut share,
        } = at
        else {
            return Ok(at);
        };
        let now = hands.state.now;
        if now < acts_at {
            return Ok(at);
        }
        let before = match acted {
            Some(before) => before,
            None => {
                if let Some(attempt) = effect::attempt(&step.deed)
                    && let Some(refusal) =
                        hands.engine.refuses(hands.topology, hands.state, attempt)
                {
                    return Err(Failure::Held(refusal));
                }
                if step.interrupts && !silent {
                    share = effect::share(&step.deed, hands.state);
                }
                let before = if silent {
                    Before::Nothing
                } else if let Deed::Call(errand, seconds, replica) = step.deed {
                    self.call(errand, seconds, replica, hands)?
                } else {
                    hands.apply(&step.deed)?
                };
                acted = Some(before);
                before
            }
        };
        let done = match step.deed {
            // Nothing was done, and nobody looks.
            _ if silent => true,
            Deed::Probe(replica, _) => {
                let right = hands.answers(replica);
                right_since = if right {
                    right_since.or(Some(now))
                } else {
                    None
                };
                right_since.is_some_and(|since| now - since >= PROBE_S)
            }
            Deed::Restart(replica, _)
            | Deed::ScaleOut(replica)
            | Deed::Prewarm(replica)
            | Deed::Thaw(replica) => match hands.state.replicas[replica.at()].phase {
                Phase::Running => true,
                Phase::Dead | Phase::Standby => {
                    self.spent.disruption += share * (now - acts_at);
                    return Err(Failure::Died);
                }
                Phase::Starting { .. } | Phase::Hung | Phase::Frozen => false,
            },
            _ => true,
        };
        if done {
            self.spent.disruption += share * (now - acts_at).max(1.0);
            if !silent {
                hands.complete(&step.deed);
            }
            return Ok(At::Done(before));
        }
        if now - since > step.deadline_s {
            self.spent.disruption += share * (now - acts_at);
            return Err(Failure::Late);
        }
        Ok(At::Under {
            since,
            acts_at,
            acted,
            silent,
            right_since,
            share,
        })
    }

    /// Asks the operator; what is asked for comes about later.
    fn call(
        &mut self,
        errand: Errand,
        seconds: f64,
        replica: ReplicaNo,
        hands: &mut Hands<'_>,
    ) -> Result<Before, Failure> {
        if self.pending.len() >= ERRANDS_MAX {
            return Err(Failure::TooManyErrands);
        }
        hands.can(errand, replica)?;
        if errand == Errand::Reboot {
            // It goes down at once, and the errand is done when it is up.
            self.spent.disruption += hands.reboot(replica, seconds);
            return Ok(Before::Nothing);
        }
        self.pending.push(Pending {
            errand,
            replica,
            at: hands.state.now + seconds,
        });
        Ok(Before::Nothing)
    }

    /// What was done is taken back where it can be, the last first.
    fn take_back(&self, at: usize, hands: &mut Hands<'_>) {
        let running = &self.running[at];
        for (place, step) in running.steps.iter().enumerate().rev() {
            let before = match running.at[place] {
                At::Done(before) => before,
                At::Under {
                    acted: Some(before),
                    ..
                } => before,
                At::Under { acted: None, .. } | At::Waiting => continue,
            };
            if step.compensated {
                hands.take_back(&step.deed, before);
            }
        }
    }
}

impl Running {
    /// The steps that are done, as bits.
    fn done(&self) -> u8 {
        let bits = self.at.iter().enumerate();
        bits.filter(|(_, at)| matches!(at, At::Done(_)))
            .fold(0, |bits, (place, _)| bits | 1 << place)
    }
}
