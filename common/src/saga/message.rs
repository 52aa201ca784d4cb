//! What initiator and participants say to each other, and the names in it.
//!
//! Wire types as in [`crate::wire`]: a version in front, a bound on each text, and
//! decoding that never panics.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use super::FleetPlan;
use crate::ids::NodeId;
use crate::transaction::Ending;
use crate::units::Ratio;
use crate::wire::{self, WireError};

/// Version of orders and answers. A reader refuses a larger one by name.
const VERSION: u8 = 1;

/// Longest reason in words that an answer carries.
pub const WHY_MAX: usize = 200;

/// Names one saga in the fleet: who began it, and a number that grows with each that
/// it begins, also across restarts and a rebuilt store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SagaId {
    /// The initiator.
    pub by: NodeId,
    /// Its number there.
    pub number: u64,
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.by, self.number)
    }
}

/// A text is not the name of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a saga is named INITIATOR-NUMBER")]
pub struct SagaIdError;

impl FromStr for SagaId {
    type Err = SagaIdError;
    fn from_str(text: &str) -> Result<Self, SagaIdError> {
        let (by, number) = text.rsplit_once('-').ok_or(SagaIdError)?;
        let plain = number.bytes().all(|digit| digit.is_ascii_digit());
        Ok(Self {
            by: NodeId::new(by).map_err(|_| SagaIdError)?,
            number: number.parse().ok().filter(|_| plain).ok_or(SagaIdError)?,
        })
    }
}

/// Fencing token of an order: which life of the initiator gave it, and when in that
/// life.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Fence {
    /// Grows with each start of the initiator.
    pub epoch: u64,
    /// Grows with each order in the saga.
    pub counter: u64,
}

/// What a node is asked to hold itself ready for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prepare {
    /// The whole plan; the node takes its part from it.
    pub plan: FleetPlan,
    /// How sure the diagnosis behind it is; `None` when a person asked.
    pub confidence: Option<Ratio>,
}

/// All that the initiator wants of a node now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Want {
    /// Check the part and set its services aside.
    Prepare(Prepare),
    /// These steps may begin, if they have not.
    Go(Vec<u8>),
    /// Promise to keep the part, all of which has taken effect.
    Vote,
    /// Keep it; it is over.
    Commit,
    /// Begin nothing more, and take these steps back.
    Undo(Vec<u8>),
    /// Take back what is left; it is over.
    Abort,
}

/// From the initiator to a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The saga.
    pub saga: SagaId,
    /// Later orders have larger ones.
    pub fence: Fence,
    /// What is wanted.
    pub want: Want,
}

/// How far a step is. Later ones are larger, so that of two answers the one that says
/// more counts, in whatever order they come.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    #[default]
    Waiting,
    /// On its way.
    Running,
    /// It took effect.
    Done,
    /// It did not.
    Failed,
    /// Its compensation is on its way.
    Undoing,
    /// Taken back.
    Undone,
    /// It could not be taken back.
    Stuck,
}

/// All that a node says of its part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stand {
    /// It knows nothing of it, or not any more.
    Unknown,
    /// It does not take part; why.
    Refused(String),
    /// Its part is open.
    Open {
        /// Its steps, by their number in the plan.
        steps: Vec<(u8, StepState)>,
        /// It has promised to keep them.
        voted: bool,
        /// It begins nothing more.
        undoing: bool,
        /// Why the first step failed, if one did.
        why: Option<String>,
    },
    /// Its part is over; how, and its steps by their number in the plan.
    Ended(Ending, Vec<(u8, StepState)>),
    /// It takes no orders under the initiator's name; why. It is about no saga in
    /// particular, since what is not believed is not read, and nobody has signed it: a
    /// hint for people, which decides nothing.
    Deaf(String),
}

/// From a node to the initiator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The saga.
    pub saga: SagaId,
    /// What is so.
    pub stand: Stand,
}

impl Order {
    /// # Errors
    /// [`WireError::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(&(VERSION, self), "order")
    }

    /// # Errors
    /// [`WireError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        versioned(bytes)?;
        wire::decode_whole::<(u8, Self)>(bytes, "order").map(|(_, order)| order)
    }
}

impl Answer {
    /// # Errors
    /// [`WireError::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(&(VERSION, self), "answer to an order")
    }

    /// # Errors
    /// [`WireError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        versioned(bytes)?;
        wire::decode_whole::<(u8, Self)>(bytes, "answer to an order").map(|(_, answer)| answer)
    }
}

fn versioned(bytes: &[u8]) -> Result<(), WireError> {
    match bytes.first() {
        Some(&version) if version > VERSION => Err(WireError::Version(version)),
        _ => Ok(()),
    }
}
