//! What a node remembers of those who give it orders, so that nothing of before is
//! taken for something of now.
//!
//! In go orders; out comes whether they may act, or the answer that is known
//! already. It outlives the sagas: the caller keeps it across restarts. Within an
//! open saga the [`super::Participant`] itself refuses what is not new.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::message::{Answer, Order, Prepare, SagaId, Stand, StepState, WHY_MAX, Want};
use crate::ids::NodeId;
use crate::transaction::Ending;
use crate::wire::bounded;

/// Most initiators that a node takes orders from: those that its configuration
/// trusts, and some that it used to trust.
pub const INITIATORS_MAX: usize = 16;

/// Most ended sagas that a node remembers the end of. An initiator that asks for an
/// older one was away while as many began and ended.
pub const ENDED_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    by: NodeId,
    /// Its newest life.
    epoch: u64,
    /// The newest saga that it began here.
    newest: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Past {
    saga: SagaId,
    stand: Stand,
}

/// The memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fences {
    known: Vec<Known>,
    ended: VecDeque<Past>,
}

/// What is to be done with an order.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// Nothing: a former life of the initiator gave it.
    Stale,
    /// For the open part of that saga.
    Open,
    /// A saga begins: check the part, then take it on or [`Fences::refuse`] it.
    New(Prepare),
    /// Only this answer.
    Answer(Answer),
}

impl Fences {
    /// Looks at an order; `open` says whether its saga is open here.
    pub fn admit(&mut self, order: &Order, open: bool) -> Admission {
        let saga = &order.saga;
        let answer = |stand: Stand| {
            Admission::Answer(Answer {
                saga: saga.clone(),
                stand,
            })
        };
        let place = match self.known.iter().position(|known| known.by == saga.by) {
            Some(place) => place,
            None if self.known.len() < INITIATORS_MAX => {
                self.known.push(Known {
                    by: saga.by.clone(),
                    epoch: 0,
                    newest: 0,
                });
                self.known.len() - 1
            }
            None => return answer(Stand::Refused("too many initiators".into())),
        };
        let Some(known) = self.known.get_mut(place) else {
            return Admission::Stale;
        };
        if order.fence.epoch < known.epoch {
            return Admission::Stale;
        }
        known.epoch = order.fence.epoch;
        if open {
            return Admission::Open;
        }
        if let Some(past) = self.ended.iter().find(|past| past.saga == *saga) {
            return answer(past.stand.clone());
        }
        match &order.want {
            Want::Prepare(prepare) if saga.number > known.newest => {
                known.newest = saga.number;
                Admission::New(prepare.clone())
            }
            // Never heard of, or forgotten: whoever begins it now would begin it
            // again.
            Want::Prepare(_) | Want::Go(_) | Want::Vote | Want::Commit => answer(Stand::Unknown),
            // A late order to prepare must not begin what was called off.
            Want::Undo(_) | Want::Abort => {
                known.newest = known.newest.max(saga.number);
                self.ended(saga, Ending::Undone, Vec::new());
                answer(Stand::Ended(Ending::Undone, Vec::new()))
            }
        }
    }

    /// The node does not take part in a new saga.
    pub fn refuse(&mut self, saga: &SagaId, why: &str) -> Answer {
        let stand = Stand::Refused(bounded(why, WHY_MAX));
        self.keep(saga, stand.clone());
        Answer {
            saga: saga.clone(),
            stand,
        }
    }

    /// A part is over; its steps as [`super::Participant::states`] has them.
    pub fn ended(&mut self, saga: &SagaId, ending: Ending, steps: Vec<(u8, StepState)>) {
        self.keep(saga, Stand::Ended(ending, steps));
    }

    /// A saga that was found in the journal is known, even if the memory is older.
    pub fn found(&mut self, saga: &SagaId, epoch: u64) {
        match self.known.iter_mut().find(|known| known.by == saga.by) {
            Some(known) => {
                known.epoch = known.epoch.max(epoch);
                known.newest = known.newest.max(saga.number);
            }
            None => self.known.push(Known {
                by: saga.by.clone(),
                epoch,
                newest: saga.number,
            }),
        }
    }

    /// The sagas that are over here, oldest first, and how.
    pub fn past(&self) -> impl Iterator<Item = (&SagaId, &Stand)> {
        self.ended.iter().map(|past| (&past.saga, &past.stand))
    }

    /// The newest life of an initiator that was heard.
    #[must_use]
    pub fn epoch(&self, by: &NodeId) -> Option<u64> {
        let known = self.known.iter().find(|known| known.by == *by)?;
        Some(known.epoch)
    }

    fn keep(&mut self, saga: &SagaId, stand: Stand) {
        self.ended.retain(|past| past.saga != *saga);
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(Past {
            saga: saga.clone(),
            stand,
        });
    }
}
