//! Executes a plan as a transaction: all done, or all undone, or flagged for a
//! person; never silently halfway.
//!
//! A pure state machine. [`Transaction::advance`] says what to do next; the
//! caller does it and reports back. Every intent is in the journal before its
//! action begins; plans that ask for it also wait until it is on the disk.
//!
//! ```text
//!           +--- step fails, or its deadline passes
//!           v
//! Running -----> Undoing -----> Ended(Undone)
//!    |              |
//!    | last step    | a compensation fails
//!    v              v
//! Ended(Done)    Ended(Stuck)
//! ```
//!
//! When a step fails that leaves nothing behind, the rest of the plan may be
//! revised instead ([`Transaction::revise`]): what has taken effect stays, other
//! steps follow.
//!
//! After a crash, [`Transaction::resume`] goes on from the records: a step whose
//! intent is known but not its result is done again when that does no harm
//! ([`Reversal::Repeatable`], [`Reversal::Irreversible`]); otherwise everything is
//! taken back.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::plan::{Branch, Plan};
use crate::primitive::{Primitive, Reversal};
use crate::units::{Micros, Millis};

/// The least time that a compensation gets: whoever carries it out may be starting
/// anew.
const UNDO_MIN: Millis = Millis::secs(30);

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Every step took effect.
    Done,
    /// What had taken effect was taken back.
    Undone,
    /// Neither could be reached; a person must look.
    Stuck,
}

/// What the journal holds about a step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The step is about to begin.
    Intent(u8),
    /// It took effect.
    Done(u8),
    /// It did not, or not in time.
    Failed(u8),
    /// Its compensation is about to begin.
    UndoIntent(u8),
    /// It was taken back.
    Undone(u8),
    /// Nothing more will be done.
    Ended(Ending),
    /// From here on this plan is carried out; its first steps are those that
    /// have taken effect.
    Revised(Plan),
}

/// What the caller must do next, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Append to the journal. With `wait`, call [`Transaction::durable`] once
    /// it is on the disk; nothing else comes before that.
    Journal {
        /// The record.
        record: Record,
        /// Whether the transaction waits for the disk.
        wait: bool,
    },
    /// Begin this step; report with [`Transaction::report`].
    Run(u8),
    /// Begin its compensation; report with [`Transaction::report`].
    Undo(u8),
    /// It is over.
    End(Ending),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Waiting,
    Intended,
    Running { deadline: Micros },
    Done,
    Failed(String),
    UndoIntended,
    Undoing { deadline: Micros },
    Undone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Running,
    Undoing,
    Ended(Ending),
}

/// Longest wait for the disk before a step. None of our steps is past repair,
/// so a disk that stands still must not keep a service down.
pub const SYNC_MAX: Millis = Millis::secs(5);

/// One execution of one plan.
#[derive(Debug, Clone)]
pub struct Transaction {
    plan: Plan,
    steps: Vec<Primitive>,
    progress: Vec<Progress>,
    /// How long each step may take.
    limits: Vec<Millis>,
    mode: Mode,
    /// Whether intents must be on the disk before the action.
    careful: bool,
    awaiting_disk: bool,
    /// No further step begins.
    halted: bool,
}

impl Transaction {
    /// A transaction that has not begun. `limit` says how long a step may take.
    /// With `careful`, each intent waits for the disk; a single repeatable step
    /// need not, because doing it twice does no harm.
    #[must_use]
    pub fn new(plan: Plan, careful: bool, limit: impl Fn(&Primitive) -> Millis) -> Self {
        let steps: Vec<Primitive> = plan.steps().cloned().collect();
        Self {
            limits: steps.iter().map(limit).collect(),
            progress: vec![Progress::Waiting; steps.len()],
            steps,
            plan,
            mode: Mode::Running,
            careful,
            awaiting_disk: false,
            halted: false,
        }
    }

    /// Whether a plan's intents should wait for the disk: all but single
    /// repeatable steps.
    #[must_use]
    pub fn wants_care(plan: &Plan) -> bool {
        plan.steps().count() > 1
            || plan
                .steps()
                .any(|step| step.reversal() != Reversal::Repeatable)
    }

    /// Goes on where the records of a former run end. Records that make no
    /// sense for this plan are ignored.
    #[must_use]
    pub fn resume(plan: Plan, records: &[Record], limit: impl Fn(&Primitive) -> Millis) -> Self {
        let mut this = Self::new(plan, true, &limit);
        for record in records {
            let (step, next) = match record {
                Record::Intent(step) => (step, Progress::Intended),
                Record::Done(step) => (step, Progress::Done),
                Record::Failed(step) => (step, Progress::Failed("before a restart".into())),
                Record::UndoIntent(step) => (step, Progress::UndoIntended),
                Record::Undone(step) => (step, Progress::Undone),
                Record::Ended(ending) => {
                    this.mode = Mode::Ended(*ending);
                    continue;
                }
                Record::Revised(plan) => {
                    if let Some(done) = this.revisable(plan) {
                        this.replace(plan.clone(), done, &limit);
                    }
                    continue;
                }
            };
            if let Some(progress) = this.progress.get_mut(usize::from(*step)) {
                *progress = next;
            }
        }
        if this.mode == Mode::Running {
            this.settle_doubts();
        }
        this
    }

    /// Decides about steps that may or may not have taken effect.
    fn settle_doubts(&mut self) {
        let mut undo = false;
        for (progress, step) in self.progress.iter_mut().zip(&self.steps) {
            match (&*progress, step.reversal()) {
                (Progress::Intended, Reversal::Repeatable | Reversal::Irreversible) => {
                    *progress = Progress::Waiting;
                }
                // In doubt: its compensation makes sure, whether it happened
                // or not.
                (Progress::Intended, Reversal::Compensated) => {
                    *progress = Progress::Failed("cut short by a restart".into());
                    undo = true;
                }
                (Progress::Failed(_) | Progress::UndoIntended | Progress::Undone, _) => {
                    undo = true;
                }
                _ => {}
            }
        }
        if undo {
            self.mode = Mode::Undoing;
        }
    }

    /// Whether every step has taken effect, so that nothing is left to do.
    #[must_use]
    pub fn is_carried_out(&self) -> bool {
        self.progress
            .iter()
            .all(|progress| *progress == Progress::Done)
    }

    /// Whether it is on the way back.
    #[must_use]
    pub fn is_undoing(&self) -> bool {
        self.mode == Mode::Undoing
    }

    /// Whether a step has failed, nothing runs, and nothing is being taken back:
    /// the moment at which the rest can be revised.
    #[must_use]
    pub fn has_stumbled(&self) -> bool {
        self.mode == Mode::Running
            && !self.halted
            && self.deadline().is_none()
            && self
                .progress
                .iter()
                .any(|progress| matches!(progress, Progress::Failed(_)))
    }

    /// How many of a plan's first steps have taken effect already, if it may take
    /// the place of the present one: both in turn, with the same steps up to the
    /// one that failed, and that one leaves nothing behind.
    #[must_use]
    pub fn revisable(&self, plan: &Plan) -> Option<usize> {
        let failed = self
            .progress
            .iter()
            .position(|progress| matches!(progress, Progress::Failed(_)))?;
        let in_turn = |plan: &Plan| match plan.root() {
            Branch::Step(_) => true,
            Branch::Series(inner) => inner.iter().all(|it| matches!(it, Branch::Step(_))),
            Branch::Parallel(_) => false,
        };
        let clean = self.steps.get(failed)?.reversal() == Reversal::Repeatable;
        let rest: Vec<&Primitive> = plan.steps().collect();
        let same = self.steps.iter().zip(&rest).take(failed);
        let fits = self.mode == Mode::Running
            && clean
            && in_turn(&self.plan)
            && in_turn(plan)
            && rest.len() > failed
            && rest.get(failed) != self.steps.get(failed).as_ref()
            && same.clone().count() == failed
            && same.into_iter().all(|(own, other)| own == *other);
        fits.then_some(failed)
    }

    /// Goes on with another plan after a step has failed; what has taken effect
    /// stays. Returns the record for the journal, or `None` when the plan may not
    /// take the place of this one.
    pub fn revise(&mut self, plan: Plan, limit: impl Fn(&Primitive) -> Millis) -> Option<Record> {
        let done = self.revisable(&plan).filter(|_| self.has_stumbled())?;
        self.replace(plan.clone(), done, limit);
        Some(Record::Revised(plan))
    }

    fn replace(&mut self, plan: Plan, done: usize, limit: impl Fn(&Primitive) -> Millis) {
        self.steps = plan.steps().cloned().collect();
        self.limits = self.steps.iter().map(limit).collect();
        self.progress = vec![Progress::Done; done];
        self.progress.resize(self.steps.len(), Progress::Waiting);
        self.plan = plan;
        self.careful = true;
    }

    /// Takes back what was done instead of going on.
    pub fn abandon(&mut self) {
        if self.mode == Mode::Running {
            self.mode = Mode::Undoing;
        }
    }

    /// Begins no further step. What runs is finished, because a service that was
    /// taken away halfway must come back; then, unless that was all, what was done
    /// is taken back.
    pub fn halt(&mut self) {
        self.halted = true;
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The primitive at a place.
    #[must_use]
    pub fn step(&self, step: u8) -> Option<&Primitive> {
        self.steps.get(usize::from(step))
    }

    /// Why a step failed, when one did.
    #[must_use]
    pub fn failure(&self) -> Option<(u8, &str)> {
        self.progress
            .iter()
            .zip(0u8..)
            .find_map(|(progress, step)| match progress {
                Progress::Failed(why) => Some((step, why.as_str())),
                _ => None,
            })
    }

    /// When [`Transaction::advance`] must be called again at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        self.progress
            .iter()
            .filter_map(|progress| match progress {
                Progress::Running { deadline } | Progress::Undoing { deadline } => Some(*deadline),
                _ => None,
            })
            .min()
    }

    /// The journal is on the disk.
    pub fn durable(&mut self) {
        self.awaiting_disk = false;
    }

    /// A step, or its compensation, took effect or failed. Reports about
    /// anything that is not running are ignored: they come from before.
    pub fn report(&mut self, step: u8, result: Result<(), String>) -> Option<Record> {
        let progress = self.progress.get_mut(usize::from(step))?;
        match (&*progress, result) {
            (Progress::Running { .. }, Ok(())) => {
                *progress = Progress::Done;
                Some(Record::Done(step))
            }
            (Progress::Running { .. }, Err(why)) => {
                *progress = Progress::Failed(why);
                Some(Record::Failed(step))
            }
            (Progress::Undoing { .. }, Ok(())) => {
                *progress = Progress::Undone;
                Some(Record::Undone(step))
            }
            (Progress::Undoing { .. }, Err(_)) => {
                self.mode = Mode::Ended(Ending::Stuck);
                Some(Record::Ended(Ending::Stuck))
            }
            _ => None,
        }
    }

    /// What to do now. Call until it returns nothing, and again after each
    /// report, after [`Transaction::durable`] and at [`Transaction::deadline`].
    pub fn advance(&mut self, now: Micros) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.awaiting_disk {
            return actions;
        }
        self.expire(now, &mut actions);
        if self.has_stumbled() && !actions.is_empty() {
            // The caller may want to revise the rest.
            return actions;
        }
        match self.mode {
            Mode::Running => self.advance_running(now, &mut actions),
            Mode::Undoing => self.advance_undoing(now, &mut actions),
            Mode::Ended(_) => {}
        }
        if let Mode::Ended(ending) = self.mode
            && !actions
                .iter()
                .any(|action| matches!(action, Action::End(_)))
        {
            actions.push(Action::End(ending));
        }
        actions
    }

    fn expire(&mut self, now: Micros, actions: &mut Vec<Action>) {
        for step in 0..self.progress.len() {
            let late = match &self.progress[step] {
                Progress::Running { deadline } | Progress::Undoing { deadline } => *deadline <= now,
                _ => false,
            };
            if late {
                let why = alloc::format!("not done within {}", self.limits[step]);
                if let Some(record) = self.report(place(step), Err(why)) {
                    actions.push(Action::Journal {
                        record,
                        wait: false,
                    });
                }
            }
        }
    }

    fn advance_running(&mut self, now: Micros, actions: &mut Vec<Action>) {
        let failed = self
            .progress
            .iter()
            .any(|progress| matches!(progress, Progress::Failed(_)));
        if failed {
            // Siblings that still run are waited for: undoing under their feet
            // would leave a state that nobody knows.
            if self.deadline().is_none() {
                self.mode = Mode::Undoing;
                self.advance_undoing(now, actions);
            }
            return;
        }
        let done = |step: usize| self.progress[step] == Progress::Done;
        let ready = self.plan.root().ready(done);
        if ready.is_empty() {
            self.end(Ending::Done, actions);
            return;
        }
        if self.halted {
            if self.deadline().is_none() {
                self.mode = Mode::Undoing;
                self.advance_undoing(now, actions);
            }
            return;
        }
        let unjournalled: Vec<usize> = ready
            .iter()
            .copied()
            .filter(|&step| self.progress[step] == Progress::Waiting)
            .collect();
        for &step in &unjournalled {
            self.progress[step] = Progress::Intended;
            actions.push(Action::Journal {
                record: Record::Intent(place(step)),
                wait: self.careful,
            });
        }
        if self.careful && !unjournalled.is_empty() {
            self.awaiting_disk = true;
            return;
        }
        for step in ready {
            if self.progress[step] == Progress::Intended {
                self.progress[step] = Progress::Running {
                    deadline: now + self.limits[step],
                };
                actions.push(Action::Run(place(step)));
            }
        }
    }

    /// Compensates in reverse order, one at a time.
    fn advance_undoing(&mut self, now: Micros, actions: &mut Vec<Action>) {
        for step in (0..self.steps.len()).rev() {
            let compensated = self.steps[step].reversal() == Reversal::Compensated;
            match &self.progress[step] {
                Progress::Undoing { .. } | Progress::Running { .. } => return,
                Progress::Done | Progress::Failed(_) | Progress::Intended if compensated => {
                    self.progress[step] = Progress::UndoIntended;
                    self.awaiting_disk = true;
                    actions.push(Action::Journal {
                        record: Record::UndoIntent(place(step)),
                        wait: true,
                    });
                    return;
                }
                Progress::UndoIntended => {
                    self.progress[step] = Progress::Undoing {
                        deadline: now + self.limits[step].max(UNDO_MIN),
                    };
                    actions.push(Action::Undo(place(step)));
                    return;
                }
                _ => {}
            }
        }
        self.end(Ending::Undone, actions);
    }

    fn end(&mut self, ending: Ending, actions: &mut Vec<Action>) {
        self.mode = Mode::Ended(ending);
        actions.push(Action::Journal {
            record: Record::Ended(ending),
            wait: false,
        });
        actions.push(Action::End(ending));
    }
}

/// A plan has at most [`crate::plan::PLAN_STEPS_MAX`] steps, so places fit.
fn place(step: usize) -> u8 {
    u8::try_from(step).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
