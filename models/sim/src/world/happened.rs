//! What a completed effect did to the world, as the engine of faults is told.
//!
//! Before it takes effect the engine is asked with the same value whether it can
//! ([`crate::fault::Engine::refuses`]).

use crate::topology::{Errand, LinkNo, NodeNo, ReplicaNo, RouteNo, Version};

/// An effect of a primitive, or what the world did by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// A fresh process came up. Before it, in an attempt: is to be started.
    Started(ReplicaNo),
    /// Its process was ended on purpose.
    Stopped(ReplicaNo),
    /// Its process died.
    Died(ReplicaNo),
    /// Its process was stopped without ending it.
    Frozen(ReplicaNo),
    /// It goes on.
    Thawed(ReplicaNo),
    /// A model was put into its slot.
    ModelPut(ReplicaNo, Version),
    /// A configuration was put into its slot.
    ConfigPut(ReplicaNo, Version),
    /// Old data of it were deleted.
    Pruned(ReplicaNo),
    /// Its lock files were deleted.
    LocksCleared(ReplicaNo),
    /// Its cache was emptied.
    Flushed(ReplicaNo),
    /// It opened its connections anew.
    PoolReset(ReplicaNo),
    /// It does less.
    Degraded(ReplicaNo),
    /// It does all it can again.
    Undegraded(ReplicaNo),
    /// It may use a share of the processors.
    CpuLimited(ReplicaNo),
    /// It may use what it can get again.
    CpuFreed(ReplicaNo),
    /// It gets no new requests.
    Isolated(ReplicaNo),
    /// It gets its usual share again.
    Released(ReplicaNo),
    /// A part of what the first gets goes to the second.
    LoadMoved(ReplicaNo, ReplicaNo),
    /// A standby was started and gets requests.
    ScaledOut(ReplicaNo),
    /// It was drained and stopped.
    ScaledIn(ReplicaNo),
    /// A standby was started and gets nothing yet.
    Prewarmed(ReplicaNo),
    /// A route admits fewer requests.
    RateLimited(RouteNo),
    /// It admits all again.
    RateFreed(RouteNo),
    /// Requests of strangers to a route are refused; `false` if the addresses were not
    /// theirs.
    SourceBlocked(RouteNo, bool),
    /// They are admitted again.
    SourceFreed(RouteNo),
    /// Packets of strangers to a replica are dropped; `false` if the addresses were not
    /// theirs.
    PortBlocked(ReplicaNo, bool),
    /// They are let through again.
    PortFreed(ReplicaNo),
    /// The state of a replica was copied.
    SnapshotTaken(ReplicaNo),
    /// The newest copy was put back.
    SnapshotRestored(ReplicaNo),
    /// A node's clock was set.
    ClockSet(NodeNo),
    /// What leaves a node goes through this link.
    UplinkSwitched(NodeNo, LinkNo),
    /// It goes through the usual one again.
    UplinkReleased(NodeNo),
    /// The file system of a replica's data can be written again.
    Remounted(ReplicaNo),
    /// A replica answered as it should for a while.
    Probed(ReplicaNo),
    /// The operator did this, about a replica.
    Done(Errand, ReplicaNo),
    /// A person was called about it.
    Escalated(ReplicaNo),
    /// A node is up again.
    Booted(NodeNo),
}
