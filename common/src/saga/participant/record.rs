//! What the journal holds about a part, and how a part goes on from that.

use alloc::boxed::Box;

use serde::{Deserialize, Serialize};

use super::{Mode, Participant, Progress};
use crate::ids::NodeId;
use crate::primitive::Primitive;
use crate::saga::message::{Fence, SagaId};
use crate::saga::{FleetPlan, PATIENCE};
use crate::transaction::Ending;
use crate::units::{Micros, Millis};

/// A part that was taken on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The saga.
    pub saga: SagaId,
    /// The whole plan.
    pub plan: FleetPlan,
    /// The order's.
    pub fence: Fence,
    /// When, on the clock of the boot.
    pub at: Micros,
}

/// What the journal holds about a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The gate let it through and its services are set aside.
    Prepared(Box<Prepared>),
    /// The highest fence that was seen, before what it ordered begins.
    Fenced(Fence),
    /// A step is about to begin; its number is that in the whole plan.
    Intent(u8),
    /// It took effect.
    Done(u8),
    /// It did not, or not in time.
    Failed(u8),
    /// Its compensation is about to begin.
    UndoIntent(u8),
    /// It was taken back, or was a wait that was cut short.
    Undone(u8),
    /// It promised to keep its part.
    Voted,
    /// It was told to keep it.
    Committed,
    /// It takes it back; `alone` when nobody told it to.
    Undoing {
        /// Whether it decided so itself.
        alone: bool,
    },
    /// Nothing more will be done.
    Ended(Ending),
}

impl Participant {
    /// Goes on where the records of a former run end; they begin with
    /// [`Record::Prepared`]. `rebooted` says that their times are of another boot.
    #[must_use]
    pub fn resume(
        records: &[Record],
        node: &NodeId,
        now: Micros,
        rebooted: bool,
        limit: impl Fn(&Primitive) -> Millis,
    ) -> Option<Self> {
        let (first, rest) = records.split_first()?;
        let Record::Prepared(first) = first else {
            return None;
        };
        let Prepared {
            saga,
            plan,
            fence,
            at,
        } = &**first;
        let mut this = Self::empty(saga.clone(), plan.clone(), node, now, limit)?;
        this.fence = *fence;
        this.since = if rebooted { now } else { (*at).min(now) };
        for record in rest {
            this.replay(record);
        }
        // Whether it happened is not known: its compensation makes sure.
        for step in &mut this.steps {
            if step.progress == Progress::Intended {
                step.progress = Progress::Failed;
                this.why.get_or_insert("cut short by a restart".into());
                this.records.push((Record::Failed(step.number), false));
            }
        }
        // The initiator has a while to be heard; then it counts as silent.
        let patience = this.patience();
        this.heard = Micros(
            (now + PATIENCE)
                .0
                .saturating_sub(patience.0.saturating_mul(1000)),
        );
        this.say = true;
        Some(this)
    }

    fn replay(&mut self, record: &Record) {
        let (number, progress) = match record {
            Record::Prepared(_) => return,
            Record::Fenced(fence) => {
                self.fence = self.fence.max(*fence);
                return;
            }
            Record::Voted => {
                self.mode = Mode::Voted;
                return;
            }
            Record::Committed => {
                self.mode = Mode::Committed;
                return;
            }
            Record::Undoing { alone } => {
                if *alone && self.mode == Mode::Voted {
                    self.doubtful = true;
                    self.flag = Some(self.doubt());
                }
                self.mode = Mode::Undoing;
                self.all |= *alone;
                return;
            }
            Record::Ended(ending) => {
                self.mode = Mode::Ended(*ending);
                return;
            }
            Record::Intent(step) => (step, Progress::Intended),
            Record::Done(step) => (step, Progress::Done),
            Record::Failed(step) => (step, Progress::Failed),
            Record::UndoIntent(step) => (step, Progress::UndoIntended),
            Record::Undone(step) => (step, Progress::Undone),
        };
        if let Some(step) = self.step_mut(*number) {
            step.go = true;
            step.undo = matches!(progress, Progress::UndoIntended);
            step.progress = progress;
        }
    }
}
