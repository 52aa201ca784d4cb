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
        let mut this = Self::new(plan, true, limit);
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

    /// Takes back what was done instead of going on.
    pub fn abandon(&mut self) {
        if self.mode == Mode::Running {
            self.mode = Mode::Undoing;
        }
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
        let mut ready = Vec::new();
        let mut next = 0;
        let complete = collect_ready(self.plan.root(), &self.progress, &mut next, &mut ready);
        if complete {
            self.end(Ending::Done, actions);
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
                        deadline: now + self.limits[step],
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

/// Steps whose turn it is. Returns whether the branch is complete.
fn collect_ready(
    branch: &Branch,
    progress: &[Progress],
    next: &mut usize,
    ready: &mut Vec<usize>,
) -> bool {
    match branch {
        Branch::Step(_) => {
            let step = *next;
            *next += 1;
            if progress[step] == Progress::Done {
                return true;
            }
            ready.push(step);
            false
        }
        Branch::Series(inner) => {
            let mut complete = true;
            for member in inner {
                let mut here = Vec::new();
                let done = collect_ready(member, progress, next, &mut here);
                if complete {
                    ready.append(&mut here);
                }
                complete &= done;
            }
            complete
        }
        Branch::Parallel(inner) => {
            let mut complete = true;
            for member in inner {
                complete &= collect_ready(member, progress, next, ready);
            }
            complete
        }
    }
}

/// A plan has at most [`crate::plan::PLAN_STEPS_MAX`] steps, so places fit.
fn place(step: usize) -> u8 {
    u8::try_from(step).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    /// Runs a plan against a world where each step works or fails, and where
    /// the program may die after any number of journal writes.
    struct World {
        journal: Vec<Record>,
        /// Per step: how often it took effect minus how often it was undone.
        effect: Vec<i32>,
        trace: Vec<String>,
    }

    impl World {
        fn new(steps: usize) -> Self {
            Self {
                journal: Vec::new(),
                effect: vec![0; steps],
                trace: Vec::new(),
            }
        }

        /// Returns the ending, or `None` when it died on the way.
        fn run(
            &mut self,
            transaction: &mut Transaction,
            fails: &[bool],
            undo_fails: bool,
            mut writes_left: usize,
        ) -> Option<Ending> {
            for _ in 0..200 {
                for action in transaction.advance(Micros(0)) {
                    self.trace.push(std::format!("{action:?}"));
                    match action {
                        Action::Journal { record, wait } => {
                            if writes_left == 0 {
                                return None;
                            }
                            writes_left -= 1;
                            self.journal.push(record);
                            if wait {
                                transaction.durable();
                            }
                        }
                        Action::Run(step) | Action::Undo(step) => {
                            let undo = matches!(action, Action::Undo(_));
                            let fail = if undo {
                                undo_fails
                            } else {
                                fails[usize::from(step)]
                            };
                            let repeatable =
                                transaction.step(step).unwrap().reversal() != Reversal::Compensated;
                            if undo {
                                self.effect[usize::from(step)] = 0;
                            } else if !fail {
                                let effect = &mut self.effect[usize::from(step)];
                                assert!(repeatable || *effect == 0, "step {step} done twice");
                                *effect = 1;
                            }
                            let result = if fail { Err("no".to_string()) } else { Ok(()) };
                            if let Some(record) = transaction.report(step, result) {
                                if writes_left == 0 {
                                    return None;
                                }
                                writes_left -= 1;
                                self.journal.push(record);
                            }
                        }
                        Action::End(ending) => return Some(ending),
                    }
                }
            }
            panic!("never ends: {:#?}", self.trace);
        }
    }

    fn plans() -> impl Strategy<Value = Plan> {
        prop::sample::select(vec![
            "restart(a, grace=1s)",
            "rollback-model(a, to=0011223344556677) ; restart(a, grace=1s)",
            "rollback-model(a, to=0011223344556677) | rollback-model(b, to=0011223344556677)",
            "(rollback-model(a, to=0011223344556677) ; restart(a, grace=1s)) | (restart(b, grace=1s) ; probe(b, within=1s))",
            "wait(1s) ; (rollback-model(a, to=0011223344556677) | restart(b, grace=1s)) ; restart(c, grace=1s) ; rollback-model(d, to=0011223344556677)",
        ])
        .prop_map(|text| text.parse().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Whatever fails, and wherever the program dies (twice): in the end all
        /// steps took effect, or no compensated step did, or it is flagged.
        #[test]
        fn no_plan_stays_halfway(
            plan in plans(),
            fails in prop::collection::vec(prop::bool::weighted(0.2), 8),
            undo_fails in prop::bool::weighted(0.1),
            deaths in prop::collection::vec(0usize..12, 0..3),
        ) {
            let limit = |_: &Primitive| Millis(1000);
            let steps: Vec<Primitive> = plan.steps().cloned().collect();
            let mut world = World::new(steps.len());
            let careful = Transaction::wants_care(&plan);
            let mut transaction = Transaction::new(plan.clone(), careful, limit);
            let mut ending = None;
            for writes in deaths.into_iter().chain([usize::MAX]) {
                ending = world.run(&mut transaction, &fails, undo_fails, writes);
                if ending.is_some() {
                    break;
                }
                transaction = Transaction::resume(plan.clone(), &world.journal, limit);
            }
            match ending.unwrap() {
                Ending::Done => prop_assert!(world.effect.iter().all(|effect| *effect == 1)),
                Ending::Undone => {
                    for (effect, step) in world.effect.iter().zip(&steps) {
                        prop_assert!(*effect == 0 || step.reversal() != Reversal::Compensated);
                    }
                }
                Ending::Stuck => prop_assert!(undo_fails),
            }
            // Resuming what has ended does nothing more.
            let mut again = Transaction::resume(plan, &world.journal, limit);
            if matches!(world.journal.last(), Some(Record::Ended(_))) {
                let ended = matches!(again.advance(Micros(0))[..], [Action::End(_)]);
                prop_assert!(ended);
            }
        }
    }

    #[test]
    fn a_step_past_its_deadline_fails_and_everything_is_undone_in_reverse() {
        let plan: Plan = "rollback-model(a, to=0011223344556677) ; rollback-model(b, to=0011223344556677) ; restart(b, grace=1s)"
            .parse()
            .unwrap();
        let mut transaction = Transaction::new(plan, false, |_| Millis(500));
        let mut undone = Vec::new();
        let mut now = Micros(0);
        let ending = loop {
            let mut ended = None;
            for action in transaction.advance(now) {
                match action {
                    Action::Journal { wait, .. } if wait => transaction.durable(),
                    Action::Journal { .. } => {}
                    Action::Run(2) => now = now + Millis(500),
                    Action::Run(step) => drop(transaction.report(step, Ok(()))),
                    Action::Undo(step) => {
                        undone.push(step);
                        transaction.report(step, Ok(()));
                    }
                    Action::End(ending) => ended = Some(ending),
                }
            }
            if let Some(ending) = ended {
                break ending;
            }
        };
        assert_eq!((ending, undone), (Ending::Undone, vec![1, 0]));
        assert_eq!(transaction.failure(), Some((2, "not done within 500ms")));
    }
}
