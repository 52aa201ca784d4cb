//! What is the same for every use of a primitive: who carries it out, what it
//! reads and writes, what is true afterwards, what it costs, what it needs, and
//! how it is taken back.
//!
//! In goes a primitive, out comes a table row. The rules, the costs, the
//! prospects and the transaction are computed from these rows; nothing here
//! decides.

mod table;

use serde::{Deserialize, Serialize};

use self::table::ROWS;

/// What can be done about a primitive that may or may not have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reversal {
    /// Doing it again does no harm and completes it.
    Repeatable,
    /// A compensation restores what was there before.
    Compensated,
    /// Doing it again does no harm, and nothing brings back what it took.
    Irreversible,
}

/// Who carries it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Adapter {
    /// The owner of the processes.
    Process,
    /// The forwarder.
    Traffic,
    /// The slots of models and configurations.
    Slot,
    /// The files of a service.
    Files,
    /// The service itself, through what its configuration offers.
    Hook,
    /// The clock, the routes, the packet filter and the mounts of the node.
    Node,
    /// Whoever the operator has named.
    Webhook,
    /// The loop.
    Loop,
}

/// Something that a primitive looks at or changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Resource {
    /// The process of a service.
    Process,
    /// What a process may use of the node.
    Share,
    /// The model in a slot.
    Model,
    /// The configuration in a slot.
    Config,
    /// The files of a service.
    Files,
    /// The state that a service keeps in memory.
    Memory,
    /// How the connections of a route are shared out.
    Weights,
    /// Which connections a route admits.
    Admission,
    /// The answers of a service.
    Answers,
    /// The wall clock of the node.
    Clock,
    /// The default route of the node.
    Uplink,
    /// The file system of a service's data.
    Mount,
    /// Something of the operator's.
    Outside,
}

/// What is true once a primitive has taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The service serves all its users.
    Serves,
    /// The backend gets no connections.
    Spares,
    /// The backend gets its share.
    Feeds,
    /// The backend gets less, another one more.
    Shifts,
    /// Another version is in place.
    Replaces,
    /// The service has room for data again.
    MakesRoom,
    /// The process is there and does nothing.
    Halts,
    /// Somebody may use less than before.
    Bounds,
    /// Somebody may use again what there is.
    Unbounds,
    /// A copy is kept.
    Copies,
    /// The service has forgotten something.
    Forgets,
    /// A person is called.
    Calls,
    /// Time has passed.
    Waits,
}

/// What the configuration must allow before a primitive may be used on a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grant {
    /// It names files that may be deleted.
    Prune,
    /// It is started and stopped as it is needed.
    Standby,
    /// It names lock files.
    Locks,
    /// It names state that can be copied.
    Snapshot,
    /// It offers to forget its cache.
    FlushCache,
    /// It offers to open its connections anew.
    ResetPool,
    /// It offers to do less.
    Degrade,
    /// The node knows time servers.
    Clock,
    /// The file system of its data may be mounted for writing again.
    Remount,
    /// What of its data may be deleted may be so before they are full.
    Early,
}

impl Grant {
    /// What is missing, after the name of the service.
    #[must_use]
    pub fn missing(self) -> &'static str {
        match self {
            Self::Prune => "names no files that may be deleted",
            Self::Standby => "is no standby replica of this node",
            Self::Locks => "names no lock files",
            Self::Snapshot => "names no state to be copied",
            Self::FlushCache => "offers no hook flush-cache",
            Self::ResetPool => "offers no hook reset-pool",
            Self::Degrade => "offers no hooks degrade and undegrade",
            Self::Clock => "is on a node without time servers",
            Self::Remount => "does not allow its data to be mounted anew",
            Self::Early => "does not allow its data to be deleted before they are full",
        }
    }
}

/// One row of the library.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signature {
    /// Its name, as it is printed.
    pub name: &'static str,
    /// One line for the person on call.
    pub does: &'static str,
    /// Who carries it out.
    pub adapter: Adapter,
    /// What it looks at.
    pub reads: &'static [Resource],
    /// What it changes; empty when it only looks, waits or calls.
    pub writes: &'static [Resource],
    /// What is true afterwards.
    pub effect: Effect,
    /// Whether the service answers nobody while it runs, or from then on.
    pub interrupts: bool,
    /// How it is taken back, or completed, when it was cut short.
    pub reversal: Reversal,
    /// What the configuration must allow.
    pub needs: Option<Grant>,
    /// The node's own work for it, in capacity-seconds: estimates of the time
    /// that a small node is busy with it, rounded up.
    pub work: f64,
}

/// The name of every primitive, as it is printed.
pub const NAMES: [&str; ROWS.len()] = {
    let mut names = [""; ROWS.len()];
    let mut place = 0;
    while place < ROWS.len() {
        names[place] = ROWS[place].name;
        place += 1;
    }
    names
};

impl Signature {
    /// Every row of the library.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        ROWS.into_iter()
    }
}
