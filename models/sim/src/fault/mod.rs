//! Faults as data, and faults at work.
//!
//! An [`Incident`] is one or more faults, each `mechanism x locus x trigger x coupling x
//! visibility`, in a TOML text:
//!
//! ```
//! # use homeostat_sim::fault::Incident;
//! let text = r#"
//!     name = "lock-left-behind"
//!     about = "A process that hangs holds a lock; whoever of its siblings starts waits for it as well."
//!     topology = "reference"
//!
//!     [[fault]]
//!     id = "lock"
//!     mechanism = "lock"
//!     locus = "replica infer-1"
//!     coupling = ["re-infects"]
//! "#;
//! let incident = Incident::read("lock-left-behind.toml", text).unwrap();
//! assert_eq!(incident.faults.len(), 1);
//!
//! let wrong = text.replace("mechanism = \"lock\"", "mechanism = \"luck\"");
//! let error = Incident::read("lock-left-behind.toml", &wrong).unwrap_err();
//! assert!(error.to_string().starts_with("lock-left-behind.toml:8: \"luck\" is no mechanism"));
//! ```
//!
//! What makes an incident hard are its couplings. Each is a production of its own and says
//! nothing of plans: a fault spreads to what starts, comes back while another one is
//! there, lets a neighbour die of the load that a repair moves, refuses a step, brings
//! another fault upon a step, hides, or ends by itself unless a step stops that. Twins are
//! incidents that look alike but for a cue, and want another order or another first step.
//!
//! What a healer should do about an incident stands in no file.

pub(crate) mod burden;
mod compose;
mod draw;
mod engine;
mod generate;
mod grammar;
mod laid;
mod mechanism;
mod novelty;
mod read;
mod scope;
mod shipped;
mod splits;

pub use self::burden::{LinkBurden, NodeBurden, ReplicaBurden, RouteBurden, Telemetry};
pub use self::compose::{Composed, Set};
pub use self::engine::{Engine, Refusal};
pub(crate) use self::engine::{Writes, told_apart};
pub(crate) use self::generate::names;
pub use self::grammar::{
    COUPLINGS_MAX, CUE_RATE_MIN, CUES_MAX, Cause, Coupling, Cue, FAULTS_MAX, Fault, Incident,
    Lines, Locus, Mechanism, Place, Step, Trigger, Unknown, Visibility,
};
pub use self::laid::Laid;
pub(crate) use self::mechanism::{Cure, remedies};
pub use self::mechanism::{places, sits_at};
pub use self::novelty::{distance, novelty};
pub use self::read::FILE_MAX;
pub use self::splits::{Leak, SEEDS, Split, UnknownSplit, may_learn};

use crate::text::TextError;
use crate::topology::Topology;

impl Incident {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Checks it against a topology.
    ///
    /// # Errors
    /// [`TextError`] at the line that names nothing.
    pub fn check(&self, topology: &Topology) -> Result<(), TextError> {
        Engine::new(topology, self, 0).map(|_| ())
    }
}
