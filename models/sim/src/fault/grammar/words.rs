//! The words of the grammar: mechanisms, kinds of places, steps.

use std::fmt;
use std::str::FromStr;

/// Why a few words are not part of the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what}; there are {known}")]
pub struct Unknown {
    /// Which part.
    pub what: &'static str,
    /// As written.
    pub found: String,
    /// What would have been right.
    pub known: &'static str,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it is written.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = Unknown;
            fn from_str(text: &str) -> Result<Self, Unknown> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(Unknown {
                        what: $what,
                        found: text.chars().take(64).collect(),
                        known: concat!($($text, ", "),+, "and no other"),
                    }),
                }
            }
        }
    };
}
words! {
    /// What goes wrong.
    Mechanism, "mechanism",
    /// A process ends.
    Die = "die",
    /// A process holds its port and answers nothing.
    Hang = "hang",
    /// Processors are burnt.
    Spin = "spin",
    /// Memory is taken and not given back.
    LeakMemory = "leak memory",
    /// Files are opened and not closed.
    LeakDescriptors = "leak descriptors",
    /// Threads are begun and not ended.
    LeakThreads = "leak threads",
    /// A disk fills.
    LeakDisk = "leak disk",
    /// A file system runs out of inodes.
    LeakInodes = "leak inodes",
    /// Everything takes longer.
    Slow = "slow",
    /// What a service reads when it starts is wrong.
    CorruptConfig = "corrupt config",
    /// The model in a slot is damaged.
    CorruptModel = "corrupt model",
    /// A source delivers rubbish.
    CorruptInput = "corrupt input",
    /// What a cache remembers is wrong.
    CorruptCache = "corrupt cache",
    /// What a service has stored is damaged.
    CorruptStore = "corrupt store",
    /// A new binary is worse than the one before.
    RegressBinary = "regress binary",
    /// A new model is worse than the one before.
    RegressModel = "regress model",
    /// The world moves away from what a model has learned.
    Drift = "drift",
    /// Nothing gets through.
    Disconnect = "disconnect",
    /// Everything gets through late.
    Delay = "delay",
    /// Some of it gets lost.
    Lose = "lose",
    /// A clock is wrong.
    Skew = "skew",
    /// A credential is not accepted any more.
    DenyCredential = "deny credential",
    /// More is asked than is granted.
    DenyQuota = "deny quota",
    /// A file system cannot be written.
    DenyWrite = "deny write",
    /// Somebody holds a lock, or left it behind.
    Lock = "lock",
    /// A node gets too hot.
    Heat = "heat",
    /// A node gets too little power.
    BrownOut = "brown-out",
    /// What a node tells stands still.
    LieFrozen = "lie frozen",
    /// What a node tells comes late.
    LieLate = "lie late",
    /// What a node tells is wrong.
    LieWrong = "lie wrong",
    /// Requests are there more than once.
    Duplicate = "duplicate",
    /// Somebody else acts on the same things.
    Compete = "compete",
    /// A roll-out keeps putting what it carries.
    Push = "push",
    /// More comes from outside than usual.
    Surge = "surge",
}

impl Mechanism {
    /// Whether what is wrong with one replica can spread to its siblings: what they share
    /// or are given alike.
    pub(crate) fn infects(self) -> bool {
        matches!(self, Self::Lock | Self::CorruptConfig | Self::RegressBinary)
    }
}

words! {
    /// What kind of thing a fault is at.
    Place, "kind of locus",
    /// One replica, or what lies on it: slots, locks.
    Replica = "replica",
    /// All replicas of a service.
    Service = "service",
    /// A node.
    Node = "node",
    /// The uplink of a node.
    Link = "link",
    /// All nodes of a site.
    Site = "site",
    /// The models in the slots of a service.
    Model = "model",
    /// The files of a replica.
    File = "file",
    /// The agent of a node.
    Agent = "agent",
    /// The broker, a service that has a leader.
    Broker = "broker",
    /// A dependency that is not ours.
    Outside = "outside",
}

words! {
    /// What may be done about a fault, as the grammar names it: primitives and
    /// what the operator's webhooks do.
    Step, "step",
    /// A fresh process.
    Restart = "restart",
    /// Another model.
    PutModel = "rollback-model",
    /// Another configuration.
    PutConfig = "rollback-config",
    /// Another binary.
    PutBinary = "rollback-binary",
    /// Old data deleted.
    Prune = "prune-data",
    /// Stale locks deleted.
    ClearLocks = "clear-locks",
    /// A cache forgotten.
    Flush = "flush-cache",
    /// Connections opened anew.
    ResetPool = "reset-pool",
    /// A backend gets nothing.
    Isolate = "isolate",
    /// A backend gets its share again.
    Release = "release",
    /// A share moved.
    Reroute = "reroute",
    /// A standby in service.
    ScaleOut = "scale-out",
    /// A standby started.
    Prewarm = "prewarm",
    /// Fewer admitted.
    LimitRate = "limit-rate",
    /// A source kept out.
    BlockSource = "block-source",
    /// A process stands still.
    Freeze = "freeze",
    /// Less processor.
    LimitCpu = "limit-cpu",
    /// Less or worse work.
    Degrade = "degrade",
    /// A copy of the state.
    Snapshot = "snapshot",
    /// The copy put back.
    RestoreSnapshot = "restore-snapshot",
    /// The clock set.
    SyncClock = "sync-clock",
    /// Another uplink.
    SwitchUplink = "switch-uplink",
    /// A file system writable again.
    Remount = "remount-writable",
    /// A node started anew.
    Reboot = "reboot",
    /// A new credential.
    RotateCredential = "rotate-credential",
    /// A new leader.
    FailoverBroker = "failover-broker",
    /// A model learned anew.
    Retrain = "retrain",
    /// Roll-outs stopped.
    PauseRollout = "pause-rollout",
    /// A stranger's process ended.
    KillStranger = "kill-stranger",
    /// A training job set back to its checkpoint.
    RestoreCheckpoint = "restore-checkpoint",
}
