//! One node's part of a saga.
//!
//! In: orders that passed [`super::Fences`], results of steps, the disk's word, the
//! time. Out: [`Action`]s in order. Whether the node may carry the part out at all is
//! its gate's to say, before this exists; how a step is carried out is the caller's.

mod record;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

pub use self::record::{Prepared, Record};
use super::message::{Answer, Fence, Order, SagaId, Stand, StepState, WHY_MAX, Want};
use super::{DOUBT, FleetPlan, SILENCE, SPAN};
use crate::ids::NodeId;
use crate::primitive::{Primitive, Reversal};
use crate::transaction::Ending;
use crate::units::{Micros, Millis};
use crate::wire::bounded;

/// What the caller must do next, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Append to the journal. With `wait`, call [`Participant::durable`] once it is on
    /// the disk; nothing else comes before that.
    Journal {
        /// The record.
        record: Record,
        /// Whether it waits for the disk.
        wait: bool,
    },
    /// Begin this step; report with [`Participant::report`].
    Run(u8),
    /// Begin its compensation; report with [`Participant::report`].
    Undo(u8),
    /// Tell the initiator.
    Say(Answer),
    /// Call a person; why.
    Flag(String),
    /// It is over: what was set aside is free again.
    End(Ending),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    Intended,
    Running { deadline: Micros },
    Done,
    Failed,
    UndoIntended,
    Undoing { deadline: Micros },
    Undone,
    Stuck,
}

#[derive(Debug, Clone)]
struct Step {
    number: u8,
    primitive: Primitive,
    limit: Millis,
    progress: Progress,
    /// It may begin.
    go: bool,
    /// It is to be taken back.
    undo: bool,
}

impl Step {
    fn is_running(&self) -> bool {
        matches!(
            self.progress,
            Progress::Running { .. } | Progress::Undoing { .. }
        )
    }

    fn wants_undo(&self) -> bool {
        self.primitive.reversal() == Reversal::Compensated
            && matches!(
                self.progress,
                Progress::Done | Progress::Failed | Progress::Intended | Progress::UndoIntended
            )
    }

    fn state(&self) -> StepState {
        match self.progress {
            Progress::Waiting => StepState::Waiting,
            Progress::Intended | Progress::Running { .. } => StepState::Running,
            Progress::Done => StepState::Done,
            Progress::Failed => StepState::Failed,
            Progress::UndoIntended | Progress::Undoing { .. } => StepState::Undoing,
            Progress::Undone => StepState::Undone,
            Progress::Stuck => StepState::Stuck,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Voted,
    Committed,
    Undoing,
    Ended(Ending),
}

/// The part.
#[derive(Debug, Clone)]
pub struct Participant {
    saga: SagaId,
    plan: FleetPlan,
    steps: Vec<Step>,
    fence: Fence,
    mode: Mode,
    /// When it was prepared.
    since: Micros,
    /// When the initiator was heard last.
    heard: Micros,
    /// Everything is taken back, whether each step was named or not.
    all: bool,
    /// Why the first step failed.
    why: Option<String>,
    awaiting_disk: bool,
    flagged: bool,
    /// Journalled at the next occasion, before anything else.
    records: Vec<(Record, bool)>,
    /// The initiator is told at the next occasion.
    say: bool,
    /// A person is called at the next occasion.
    flag: Option<String>,
    /// It took back alone what it had promised to keep.
    doubtful: bool,
    /// The end was handed out.
    told: bool,
}

impl Participant {
    /// Takes the part on; `None` when the plan has none for this node. `limit` says
    /// how long a step may take.
    #[must_use]
    pub fn new(
        order: &Order,
        plan: FleetPlan,
        node: &NodeId,
        now: Micros,
        limit: impl Fn(&Primitive) -> Millis,
    ) -> Option<Self> {
        let mut this = Self::empty(order.saga.clone(), plan, node, now, limit)?;
        this.fence = order.fence;
        let prepared = Record::Prepared(Box::new(Prepared {
            saga: this.saga.clone(),
            plan: this.plan.clone(),
            fence: order.fence,
            at: now,
        }));
        this.records.push((prepared, true));
        this.say = true;
        Some(this)
    }

    fn empty(
        saga: SagaId,
        plan: FleetPlan,
        node: &NodeId,
        now: Micros,
        limit: impl Fn(&Primitive) -> Millis,
    ) -> Option<Self> {
        let steps: Vec<Step> = plan
            .steps()
            .zip(0u8..)
            .filter(|(leaf, _)| leaf.node == *node)
            .map(|(leaf, number)| Step {
                number,
                primitive: leaf.primitive.clone(),
                limit: limit(&leaf.primitive),
                progress: Progress::Waiting,
                go: false,
                undo: false,
            })
            .collect();
        (!steps.is_empty()).then(|| Self {
            saga,
            plan,
            steps,
            fence: Fence::default(),
            mode: Mode::Open,
            since: now,
            heard: now,
            all: false,
            why: None,
            awaiting_disk: false,
            flagged: false,
            records: Vec::new(),
            say: false,
            flag: None,
            doubtful: false,
            told: false,
        })
    }

    fn step_mut(&mut self, number: u8) -> Option<&mut Step> {
        self.steps.iter_mut().find(|step| step.number == number)
    }

    /// The saga.
    #[must_use]
    pub fn saga(&self) -> &SagaId {
        &self.saga
    }

    /// The whole plan.
    #[must_use]
    pub fn plan(&self) -> &FleetPlan {
        &self.plan
    }

    /// When it was taken on, or found again after a reboot.
    #[must_use]
    pub fn since(&self) -> Micros {
        self.since
    }

    /// The highest fence that was seen.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// The primitive of a step of this node.
    #[must_use]
    pub fn primitive(&self, number: u8) -> Option<&Primitive> {
        let step = self.steps.iter().find(|step| step.number == number)?;
        Some(&step.primitive)
    }

    /// The primitives of this node, in the order of the plan.
    pub fn primitives(&self) -> impl Iterator<Item = &Primitive> {
        self.steps.iter().map(|step| &step.primitive)
    }

    /// Whether all of it has taken effect, so that nothing is left to begin.
    #[must_use]
    pub fn is_carried_out(&self) -> bool {
        self.steps
            .iter()
            .all(|step| step.progress == Progress::Done)
    }

    /// Whether it took back alone what it had promised to keep, while others may have
    /// been told to keep theirs.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Why a step failed, when one did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// How it ended, once it has.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        match self.mode {
            Mode::Ended(ending) if self.told => Some(ending),
            _ => None,
        }
    }

    /// What is so.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let stand = match self.mode {
            Mode::Ended(ending) => Stand::Ended(ending, self.states()),
            mode => Stand::Open {
                steps: self.states(),
                voted: mode == Mode::Voted,
                undoing: mode == Mode::Undoing,
                why: self.why.as_deref().map(|why| bounded(why, WHY_MAX)),
            },
        };
        Answer {
            saga: self.saga.clone(),
            stand,
        }
    }

    /// How far its steps are, by their number in the plan.
    #[must_use]
    pub fn states(&self) -> Vec<(u8, StepState)> {
        let steps = self.steps.iter();
        steps.map(|step| (step.number, step.state())).collect()
    }

    /// The journal is on the disk.
    pub fn durable(&mut self) {
        self.awaiting_disk = false;
    }

    /// The rest may not run any more: it takes back what was done, alone.
    pub fn abandon(&mut self, why: &str) {
        if matches!(self.mode, Mode::Open) {
            self.why.get_or_insert_with(|| bounded(why, WHY_MAX));
            self.take_back(true, true);
        }
    }

    /// An order of this saga. Returns whether it was new; what is not is refused.
    pub fn order(&mut self, now: Micros, order: &Order) -> bool {
        if order.saga != self.saga || order.fence <= self.fence {
            return false;
        }
        let former = core::mem::replace(&mut self.fence, order.fence);
        self.heard = self.heard.max(now);
        self.say = true;
        let news = self.obey(&order.want);
        // A new life of the initiator shuts out the former one for good.
        if news || former.epoch < order.fence.epoch {
            self.records.insert(0, (Record::Fenced(order.fence), true));
        }
        true
    }

    /// Returns whether it changes anything.
    fn obey(&mut self, want: &Want) -> bool {
        match (want, self.mode) {
            (Want::Go(numbers), Mode::Open) => {
                let mut news = false;
                for step in &mut self.steps {
                    if numbers.contains(&step.number) && !step.go {
                        step.go = true;
                        news = true;
                    }
                }
                news
            }
            (Want::Vote, Mode::Open) => {
                let mut steps = self.steps.iter();
                let all_done = steps.all(|step| step.progress == Progress::Done);
                if all_done {
                    self.mode = Mode::Voted;
                    self.records.push((Record::Voted, true));
                }
                all_done
            }
            (Want::Commit, Mode::Voted) => {
                self.mode = Mode::Committed;
                self.records.push((Record::Committed, true));
                true
            }
            (Want::Undo(_) | Want::Abort, Mode::Open | Mode::Voted | Mode::Undoing) => {
                let mut news = self.mode != Mode::Undoing;
                self.take_back(*want == Want::Abort, false);
                if let Want::Undo(numbers) = want {
                    for step in &mut self.steps {
                        if numbers.contains(&step.number) && !step.undo {
                            step.undo = true;
                            news = true;
                        }
                    }
                }
                news
            }
            (
                Want::Prepare(_)
                | Want::Go(_)
                | Want::Vote
                | Want::Commit
                | Want::Undo(_)
                | Want::Abort,
                _,
            ) => false,
        }
    }

    /// Why a person is called when it takes back what it promised to keep.
    fn doubt(&self) -> String {
        alloc::format!(
            "{} is silent since this node promised to keep its part of saga {}: it is taken \
             back here; look whether other nodes were told to keep theirs",
            self.saga.by,
            self.saga
        )
    }

    fn take_back(&mut self, all: bool, alone: bool) {
        if self.mode != Mode::Undoing || (alone && !self.all) {
            self.mode = Mode::Undoing;
            self.records.push((Record::Undoing { alone }, false));
        }
        self.all |= all;
        // What has not begun does not begin any more, and what only waits or looks
        // leaves nothing behind.
        for step in &mut self.steps {
            step.go = false;
            match (&step.primitive, step.progress) {
                (_, Progress::Intended) => step.progress = Progress::Waiting,
                (Primitive::Wait { .. } | Primitive::Probe { .. }, Progress::Running { .. }) => {
                    step.progress = Progress::Undone;
                    self.records.push((Record::Undone(step.number), false));
                }
                _ => {}
            }
        }
    }

    /// A step, or its compensation, took effect or failed. Reports about anything that
    /// is not running are ignored: they come from before.
    pub fn report(&mut self, number: u8, result: Result<(), String>) -> Option<Record> {
        let step = self.step_mut(number)?;
        let (progress, record) = match (step.progress, &result) {
            (Progress::Running { .. }, Ok(())) => (Progress::Done, Record::Done(number)),
            (Progress::Running { .. }, Err(_)) => (Progress::Failed, Record::Failed(number)),
            (Progress::Undoing { .. }, Ok(())) => (Progress::Undone, Record::Undone(number)),
            (Progress::Undoing { .. }, Err(_)) => (Progress::Stuck, Record::UndoIntent(number)),
            _ => return None,
        };
        step.progress = progress;
        if let Err(why) = result {
            self.why.get_or_insert(why);
        }
        self.say = true;
        Some(record)
    }

    /// When [`Participant::advance`] must be called again at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        if self.told {
            return None;
        }
        let steps = self.steps.iter().filter_map(|step| match step.progress {
            Progress::Running { deadline } | Progress::Undoing { deadline } => Some(deadline),
            _ => None,
        });
        let silence = self.silent_at();
        let flag = (!self.flagged).then_some(self.since + SPAN);
        steps.chain(silence).chain(flag).min()
    }

    fn patience(&self) -> Millis {
        if self.mode == Mode::Voted {
            DOUBT
        } else {
            SILENCE
        }
    }

    /// When it acts alone.
    fn silent_at(&self) -> Option<Micros> {
        let waits = match self.mode {
            Mode::Open | Mode::Voted => true,
            Mode::Undoing => !self.all,
            Mode::Committed | Mode::Ended(_) => false,
        };
        waits.then(|| self.heard + self.patience())
    }

    /// What to do now. Call until it returns nothing, and again after each order and
    /// report, after [`Participant::durable`] and at [`Participant::deadline`].
    pub fn advance(&mut self, now: Micros) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.awaiting_disk || self.told {
            return actions;
        }
        self.expire(now);
        if self.silent_at().is_some_and(|at| at <= now) {
            if self.mode == Mode::Voted {
                self.doubtful = true;
                self.flag = Some(self.doubt());
            }
            self.why
                .get_or_insert_with(|| alloc::format!("{} has not been heard", self.saga.by));
            self.take_back(true, true);
        }
        if !self.flagged && self.since + SPAN <= now {
            self.flag = Some(alloc::format!(
                "saga {} has neither been finished nor taken back in {SPAN}",
                self.saga
            ));
        }
        if let Some(why) = self.flag.take() {
            self.flagged = true;
            actions.push(Action::Flag(why));
        }
        match self.mode {
            Mode::Open => self.advance_open(now, &mut actions),
            Mode::Undoing => self.advance_undoing(now, &mut actions),
            Mode::Committed => self.end(Ending::Done),
            Mode::Voted | Mode::Ended(_) => {}
        }
        if self.flush(&mut actions) {
            return actions;
        }
        if core::mem::take(&mut self.say) {
            actions.push(Action::Say(self.answer()));
        }
        if let Mode::Ended(ending) = self.mode {
            self.told = true;
            actions.push(Action::End(ending));
        }
        actions
    }

    /// Hands out the records that wait, with one sync for all of them; returns
    /// whether that is waited for.
    fn flush(&mut self, actions: &mut Vec<Action>) -> bool {
        let wait = self.records.iter().any(|(_, wait)| *wait);
        let last = self.records.len().saturating_sub(1);
        for (place, (record, _)) in self.records.drain(..).enumerate() {
            let wait = wait && place == last;
            actions.push(Action::Journal { record, wait });
        }
        self.awaiting_disk = wait;
        wait
    }

    fn expire(&mut self, now: Micros) {
        let late: Vec<(u8, Millis)> = self
            .steps
            .iter()
            .filter(|step| match step.progress {
                Progress::Running { deadline } | Progress::Undoing { deadline } => deadline <= now,
                _ => false,
            })
            .map(|step| (step.number, step.limit))
            .collect();
        for (number, limit) in late {
            let why = alloc::format!("not done within {limit}");
            if let Some(record) = self.report(number, Err(why)) {
                self.records.push((record, false));
            }
        }
    }

    fn advance_open(&mut self, now: Micros, actions: &mut Vec<Action>) {
        // After a failure nothing more begins here; the initiator takes it back.
        if self.why.is_some() {
            return;
        }
        for step in self.steps.iter_mut().filter(|step| step.go) {
            match step.progress {
                Progress::Waiting => {
                    step.progress = Progress::Intended;
                    self.records.push((Record::Intent(step.number), true));
                }
                // Its intent is on the disk by now.
                Progress::Intended if self.records.is_empty() => {
                    step.progress = Progress::Running {
                        deadline: now + step.limit,
                    };
                    actions.push(Action::Run(step.number));
                }
                _ => {}
            }
        }
    }

    /// Compensates in reverse order, one at a time.
    fn advance_undoing(&mut self, now: Micros, actions: &mut Vec<Action>) {
        // What runs is waited for: undoing under its feet would leave a state that
        // nobody knows.
        if self.steps.iter().any(Step::is_running) {
            return;
        }
        if self
            .steps
            .iter()
            .any(|step| step.progress == Progress::Stuck)
        {
            self.flagged = true;
            actions.push(Action::Flag(alloc::format!(
                "a step of saga {} could be neither kept nor taken back",
                self.saga
            )));
            self.end(Ending::Stuck);
            return;
        }
        let all = self.all;
        let wanted = |step: &&mut Step| step.wants_undo() && (all || step.undo);
        if let Some(step) = self.steps.iter_mut().rev().find(wanted) {
            if step.progress == Progress::UndoIntended {
                if self.records.is_empty() {
                    step.progress = Progress::Undoing {
                        deadline: now + step.limit,
                    };
                    actions.push(Action::Undo(step.number));
                }
            } else {
                step.progress = Progress::UndoIntended;
                self.records.push((Record::UndoIntent(step.number), true));
            }
        } else if all {
            self.end(Ending::Undone);
        }
    }

    fn end(&mut self, ending: Ending) {
        self.mode = Mode::Ended(ending);
        self.records.push((Record::Ended(ending), true));
        self.say = true;
    }
}
