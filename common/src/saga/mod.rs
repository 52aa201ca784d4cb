//! Plans that span nodes, carried out as a saga: all done, or all undone, or
//! flagged for a person, within [`SPAN`], whoever vanishes.
//!
//! A [`FleetPlan`] names a node with each primitive. Each node runs its own part,
//! behind its own gate; one [`Initiator`] orders the steps across nodes. Both are
//! pure state machines as [`crate::transaction`] is: `advance` says what to do next,
//! the caller does it and reports back. Orders and answers say a *state*, not a
//! change: each order repeats all that is wanted, each answer all that is so, hence
//! lost, doubled and late messages do no harm.
//!
//! ```text
//! Initiator:    Preparing -> Running -> Voting -> Committing -> Ended(Done)
//!                   |           |          |           | a part was taken back all the same
//!                   +-----------+----------+           v
//!                               | a refusal, a      Ended(Stuck)
//!                               | failure, silence
//!                               v
//!                            Undoing -> Ended(Undone | Stuck)
//!
//! Participant:  Open -> Voted -> Ended(Done)
//!                 |       |
//!                 +-------+-> Undoing -> Ended(Undone | Stuck)
//!                 told to, or silence
//! ```
//!
//! - **Prepare**: the node checks its whole part by its own gate, sets its services
//!   aside for the saga, and journals both. Until then nothing happens anywhere.
//! - **Go**: the steps whose turn it is, across nodes. A step begins at most once: its
//!   intent is on the disk first, and one of which only the intent is found after a
//!   crash counts as failed.
//! - **Vote**, once every step of every node has taken effect: the node promises to
//!   keep its part. **Commit** when all have.
//! - **Undo**: compensations in reverse order across nodes, then **Abort**, which ends
//!   the part.
//!
//! A participant alone ([`SILENCE`] without an order) takes its part back: before it has
//! voted nobody can have been told to keep anything. After its vote the decision may
//! have been taken: it waits longer ([`DOUBT`]), then takes its part back as well and
//! calls a person, because another node may have been told to keep its own. After
//! Commit nothing is taken back. That window is one round of messages wide, after all
//! the work.
//!
//! What tells an order of now from one of before is the [`Fence`]: the initiator's life
//! (`epoch`) and a counter in it. A participant refuses what is not above the highest it
//! has seen, and that is on the disk before what was ordered begins.
//!
//! It deliberately does not elect an initiator, lock anything across nodes, or sign:
//! who may give orders is for whoever carries them.

mod fences;
mod initiator;
mod message;
mod participant;
mod plan;
#[cfg(test)]
mod tests;

pub use self::fences::{Admission, ENDED_MAX, Fences, INITIATORS_MAX};
pub use self::initiator::{Decision, Initiator, Move};
pub use self::message::{
    Answer, Fence, Order, Prepare, SagaId, SagaIdError, Stand, StepState, WHY_MAX, Want,
};
pub use self::participant::{Action, Participant, Prepared, Record};
pub use self::plan::{FleetPlan, FleetPlanError, Leaf};

use crate::units::Millis;

/// The initiator repeats its orders at this pace, which also shows that it lives.
pub const BEAT: Millis = Millis::secs(1);

/// A participant that hears nothing for so long acts alone; an initiator that hears
/// nothing takes the saga back. Ten beats: a broker that restarts takes some seconds.
pub const SILENCE: Millis = Millis::secs(10);

/// A participant that has voted waits so long instead: the initiator may come back
/// and say what was decided.
pub const DOUBT: Millis = Millis::secs(15);

/// A restarted participant waits so long for the initiator before it counts it as silent.
pub const PATIENCE: Millis = Millis::secs(5);

/// Every step of every node must have taken effect within this time of the beginning.
/// With [`DOUBT`] behind it, it leaves ten seconds of [`SPAN`] for compensations.
pub const WORK: Millis = Millis::secs(30);

/// A saga that has not ended by then is flagged for a person.
pub const SPAN: Millis = Millis::secs(55);

/// After this an initiator repeats nothing more: a node that was away for a day takes
/// its part back alone.
pub const GIVE_UP: Millis = Millis::secs(86_400);

/// Pace of repetition to nodes that do not answer, once the saga is flagged.
pub const SLOW_BEAT: Millis = Millis::secs(10);
