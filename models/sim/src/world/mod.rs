//! The world: a topology, its state, the faults at work and the plans under way.
//!
//! [`World::order`] takes plans as a node or the initiator of a plan across nodes would,
//! [`World::tick`] moves everything on by one step of time, `clone` forks it. What comes
//! out for a healer comes from [`crate::observe`]; what comes out for the one who measures,
//! from [`crate::episode`].

mod happened;
pub(crate) mod state;

pub use self::happened::Happened;
pub use self::state::{Flow, Phase, Power};
