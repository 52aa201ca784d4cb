//! The rows: one for each primitive.

use super::{Adapter, Effect, Grant, Resource, Reversal, Signature};
use crate::primitive::Primitive;

impl Primitive {
    /// Its row of the library.
    #[must_use]
    pub fn signature(&self) -> &'static Signature {
        match self {
            Self::Restart { .. } => &RESTART,
            Self::RollbackModel { .. } => &ROLLBACK_MODEL,
            Self::Probe { .. } => &PROBE,
            Self::Wait { .. } => &WAIT,
            Self::SwitchModel { .. } => &SWITCH_MODEL,
            Self::SwitchConfig { .. } => &SWITCH_CONFIG,
            Self::RollbackConfig { .. } => &ROLLBACK_CONFIG,
            Self::PruneData { .. } => &PRUNE_DATA,
            Self::Isolate { .. } => &ISOLATE,
            Self::Release { .. } => &RELEASE,
            Self::Reroute { .. } => &REROUTE,
            Self::ScaleOut { .. } => &SCALE_OUT,
            Self::ScaleIn { .. } => &SCALE_IN,
            Self::Freeze { .. } => &FREEZE,
            Self::Thaw { .. } => &THAW,
            Self::LimitCpu { .. } => &LIMIT_CPU,
            Self::UnlimitCpu { .. } => &UNLIMIT_CPU,
            Self::LimitRate { .. } => &LIMIT_RATE,
            Self::UnlimitRate { .. } => &UNLIMIT_RATE,
            Self::BlockSource { .. } => &BLOCK_SOURCE,
            Self::UnblockSource { .. } => &UNBLOCK_SOURCE,
            Self::Prewarm { .. } => &PREWARM,
            Self::ClearLocks { .. } => &CLEAR_LOCKS,
            Self::Snapshot { .. } => &SNAPSHOT,
            Self::RestoreSnapshot { .. } => &RESTORE_SNAPSHOT,
            Self::FlushCache { .. } => &FLUSH_CACHE,
            Self::ResetPool { .. } => &RESET_POOL,
            Self::Degrade { .. } => &DEGRADE,
            Self::Undegrade { .. } => &UNDEGRADE,
            Self::SyncClock { .. } => &SYNC_CLOCK,
            Self::SwitchUplink { .. } => &SWITCH_UPLINK,
            Self::ReleaseUplink { .. } => &RELEASE_UPLINK,
            Self::BlockPort { .. } => &BLOCK_PORT,
            Self::UnblockPort { .. } => &UNBLOCK_PORT,
            Self::RemountWritable { .. } => &REMOUNT_WRITABLE,
            Self::CallWebhook { .. } => &CALL_WEBHOOK,
            Self::Escalate { .. } => &ESCALATE,
        }
    }
}

/// Every row, in the order in which names are listed.
pub(super) const ROWS: [&Signature; 37] = [
    &RESTART,
    &ROLLBACK_MODEL,
    &PROBE,
    &WAIT,
    &SWITCH_MODEL,
    &SWITCH_CONFIG,
    &ROLLBACK_CONFIG,
    &PRUNE_DATA,
    &ISOLATE,
    &RELEASE,
    &REROUTE,
    &SCALE_OUT,
    &SCALE_IN,
    &FREEZE,
    &THAW,
    &LIMIT_CPU,
    &UNLIMIT_CPU,
    &LIMIT_RATE,
    &UNLIMIT_RATE,
    &BLOCK_SOURCE,
    &UNBLOCK_SOURCE,
    &PREWARM,
    &CLEAR_LOCKS,
    &SNAPSHOT,
    &RESTORE_SNAPSHOT,
    &FLUSH_CACHE,
    &RESET_POOL,
    &DEGRADE,
    &UNDEGRADE,
    &SYNC_CLOCK,
    &SWITCH_UPLINK,
    &RELEASE_UPLINK,
    &BLOCK_PORT,
    &UNBLOCK_PORT,
    &REMOUNT_WRITABLE,
    &CALL_WEBHOOK,
    &ESCALATE,
];

/// One fork and exec, or one change of a table.
const LITTLE: f64 = 0.02;
/// Files are read and written, some megabytes.
const SOME: f64 = 0.2;
/// A cold cache: a hundred seconds with a hundredth more to do.
const MUCH: f64 = 1.0;

/// A row whose rest is usual: nothing read, no interruption, taken back by a
/// compensation, no grant, little work.
const fn row(
    name: &'static str,
    does: &'static str,
    adapter: Adapter,
    writes: &'static [Resource],
    effect: Effect,
) -> Signature {
    Signature {
        name,
        does,
        adapter,
        reads: &[],
        writes,
        effect,
        interrupts: false,
        reversal: Reversal::Compensated,
        needs: None,
        work: LITTLE,
    }
}

const RESTART: Signature = Signature {
    reads: &[Resource::Answers],
    interrupts: true,
    reversal: Reversal::Repeatable,
    ..row(
        "restart",
        "stop what is left of the service and start it afresh",
        Adapter::Process,
        &[Resource::Process],
        Effect::Serves,
    )
};
const ROLLBACK_MODEL: Signature = Signature {
    work: SOME,
    ..row(
        "rollback-model",
        "put the last model that worked back",
        Adapter::Slot,
        &[Resource::Model],
        Effect::Replaces,
    )
};
const PROBE: Signature = Signature {
    reads: &[Resource::Answers],
    reversal: Reversal::Repeatable,
    ..row(
        "probe",
        "wait until the service answers rightly",
        Adapter::Loop,
        &[],
        Effect::Serves,
    )
};
const WAIT: Signature = Signature {
    reversal: Reversal::Repeatable,
    ..row("wait", "wait", Adapter::Loop, &[], Effect::Waits)
};
const SWITCH_MODEL: Signature = Signature {
    work: SOME,
    ..row(
        "switch-model",
        "put the staged model in place",
        Adapter::Slot,
        &[Resource::Model],
        Effect::Replaces,
    )
};
const SWITCH_CONFIG: Signature = row(
    "switch-config",
    "put the staged configuration in place",
    Adapter::Slot,
    &[Resource::Config],
    Effect::Replaces,
);
const ROLLBACK_CONFIG: Signature = row(
    "rollback-config",
    "put the last configuration that worked back",
    Adapter::Slot,
    &[Resource::Config],
    Effect::Replaces,
);
const PRUNE_DATA: Signature = Signature {
    reads: &[Resource::Files],
    reversal: Reversal::Irreversible,
    needs: Some(Grant::Prune),
    work: SOME,
    ..row(
        "prune-data",
        "delete old files that may be deleted",
        Adapter::Files,
        &[Resource::Files],
        Effect::MakesRoom,
    )
};
const ISOLATE: Signature = row(
    "isolate",
    "send the replica no new connections and let the old ones end",
    Adapter::Traffic,
    &[Resource::Weights],
    Effect::Spares,
);
const RELEASE: Signature = Signature {
    reversal: Reversal::Repeatable,
    ..row(
        "release",
        "send the replica its usual share again",
        Adapter::Traffic,
        &[Resource::Weights],
        Effect::Feeds,
    )
};
const REROUTE: Signature = row(
    "reroute",
    "move traffic from one backend to another",
    Adapter::Traffic,
    &[Resource::Weights],
    Effect::Shifts,
);
const SCALE_OUT: Signature = Signature {
    reads: &[Resource::Answers],
    needs: Some(Grant::Standby),
    ..row(
        "scale-out",
        "start a standby replica and send it traffic",
        Adapter::Process,
        &[Resource::Process, Resource::Weights],
        Effect::Serves,
    )
};
const SCALE_IN: Signature = Signature {
    needs: Some(Grant::Standby),
    ..row(
        "scale-in",
        "take the traffic from a standby replica and stop it",
        Adapter::Process,
        &[Resource::Process, Resource::Weights],
        Effect::Spares,
    )
};
const FREEZE: Signature = Signature {
    interrupts: true,
    ..row(
        "freeze",
        "stop the process without ending it",
        Adapter::Process,
        &[Resource::Process],
        Effect::Halts,
    )
};
const THAW: Signature = Signature {
    reads: &[Resource::Answers],
    reversal: Reversal::Repeatable,
    ..row(
        "thaw",
        "let a frozen process go on",
        Adapter::Process,
        &[Resource::Process],
        Effect::Serves,
    )
};
const LIMIT_CPU: Signature = row(
    "limit-cpu",
    "leave the service a share of the processors",
    Adapter::Process,
    &[Resource::Share],
    Effect::Bounds,
);
const UNLIMIT_CPU: Signature = Signature {
    reversal: Reversal::Repeatable,
    ..row(
        "unlimit-cpu",
        "let the service use the processors it can get",
        Adapter::Process,
        &[Resource::Share],
        Effect::Unbounds,
    )
};
const LIMIT_RATE: Signature = row(
    "limit-rate",
    "admit fewer new connections to the route",
    Adapter::Traffic,
    &[Resource::Admission],
    Effect::Bounds,
);
const UNLIMIT_RATE: Signature = Signature {
    reversal: Reversal::Repeatable,
    ..row(
        "unlimit-rate",
        "admit all connections to the route again",
        Adapter::Traffic,
        &[Resource::Admission],
        Effect::Unbounds,
    )
};
const BLOCK_SOURCE: Signature = row(
    "block-source",
    "refuse connections from these addresses",
    Adapter::Traffic,
    &[Resource::Admission],
    Effect::Bounds,
);
const UNBLOCK_SOURCE: Signature = Signature {
    reversal: Reversal::Repeatable,
    ..row(
        "unblock-source",
        "admit connections from these addresses again",
        Adapter::Traffic,
        &[Resource::Admission],
        Effect::Unbounds,
    )
};
const PREWARM: Signature = Signature {
    reads: &[Resource::Answers],
    needs: Some(Grant::Standby),
    ..row(
        "prewarm",
        "start a standby replica without sending it traffic",
        Adapter::Process,
        &[Resource::Process],
        Effect::Serves,
    )
};
const CLEAR_LOCKS: Signature = Signature {
    reads: &[Resource::Files],
    reversal: Reversal::Irreversible,
    needs: Some(Grant::Locks),
    ..row(
        "clear-locks",
        "delete lock files that nobody holds",
        Adapter::Files,
        &[Resource::Files],
        Effect::Unbounds,
    )
};
const SNAPSHOT: Signature = Signature {
    reads: &[Resource::Files],
    reversal: Reversal::Repeatable,
    needs: Some(Grant::Snapshot),
    work: SOME,
    ..row(
        "snapshot",
        "copy the state of the service",
        Adapter::Files,
        &[Resource::Files],
        Effect::Copies,
    )
};
const RESTORE_SNAPSHOT: Signature = Signature {
    needs: Some(Grant::Snapshot),
    work: SOME,
    ..row(
        "restore-snapshot",
        "put the newest copy of the service's state back",
        Adapter::Files,
        &[Resource::Files],
        Effect::Replaces,
    )
};
const FLUSH_CACHE: Signature = Signature {
    reversal: Reversal::Irreversible,
    needs: Some(Grant::FlushCache),
    work: MUCH,
    ..row(
        "flush-cache",
        "have the service forget its cache",
        Adapter::Hook,
        &[Resource::Memory],
        Effect::Forgets,
    )
};
const RESET_POOL: Signature = Signature {
    reversal: Reversal::Repeatable,
    needs: Some(Grant::ResetPool),
    ..row(
        "reset-pool",
        "have the service open its connections anew",
        Adapter::Hook,
        &[Resource::Memory],
        Effect::Forgets,
    )
};
const DEGRADE: Signature = Signature {
    needs: Some(Grant::Degrade),
    ..row(
        "degrade",
        "have the service do less",
        Adapter::Hook,
        &[Resource::Memory],
        Effect::Bounds,
    )
};
const UNDEGRADE: Signature = Signature {
    reversal: Reversal::Repeatable,
    needs: Some(Grant::Degrade),
    ..row(
        "undegrade",
        "have the service do all it can again",
        Adapter::Hook,
        &[Resource::Memory],
        Effect::Unbounds,
    )
};
const SYNC_CLOCK: Signature = Signature {
    reversal: Reversal::Repeatable,
    needs: Some(Grant::Clock),
    ..row(
        "sync-clock",
        "set the clock by the time servers",
        Adapter::Node,
        &[Resource::Clock],
        Effect::Replaces,
    )
};
const SWITCH_UPLINK: Signature = row(
    "switch-uplink",
    "send what leaves the node through another interface",
    Adapter::Node,
    &[Resource::Uplink],
    Effect::Shifts,
);
const RELEASE_UPLINK: Signature = Signature {
    reversal: Reversal::Repeatable,
    ..row(
        "release-uplink",
        "leave the choice of the uplink to the node's own routes",
        Adapter::Node,
        &[Resource::Uplink],
        Effect::Unbounds,
    )
};
const BLOCK_PORT: Signature = row(
    "block-port",
    "drop packets from these addresses to the service",
    Adapter::Node,
    &[Resource::Admission],
    Effect::Bounds,
);
const UNBLOCK_PORT: Signature = Signature {
    reversal: Reversal::Repeatable,
    ..row(
        "unblock-port",
        "let packets from these addresses through to the service again",
        Adapter::Node,
        &[Resource::Admission],
        Effect::Unbounds,
    )
};
const REMOUNT_WRITABLE: Signature = Signature {
    reversal: Reversal::Repeatable,
    needs: Some(Grant::Remount),
    ..row(
        "remount-writable",
        "mount the file system of the data for writing again",
        Adapter::Node,
        &[Resource::Mount],
        Effect::Unbounds,
    )
};
const CALL_WEBHOOK: Signature = Signature {
    reversal: Reversal::Repeatable,
    ..row(
        "call-webhook",
        "ask what the operator has named",
        Adapter::Webhook,
        &[Resource::Outside],
        Effect::Calls,
    )
};
const ESCALATE: Signature = Signature {
    reversal: Reversal::Repeatable,
    ..row(
        "escalate",
        "call a person",
        Adapter::Loop,
        &[],
        Effect::Calls,
    )
};

#[cfg(test)]
mod tests {
    use super::super::NAMES;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_row_says_something_of_its_own() {
        let names: BTreeSet<&str> = NAMES.into();
        let texts: BTreeSet<&str> = Signature::all().map(|row| row.does).collect();
        assert_eq!((names.len(), texts.len()), (ROWS.len(), ROWS.len()));
        for row in Signature::all() {
            // What changes nothing need not be taken back.
            assert!(
                !row.writes.is_empty() || row.reversal == Reversal::Repeatable,
                "{}",
                row.name
            );
            // What nothing brings back needs leave.
            assert!(
                row.reversal != Reversal::Irreversible || row.needs.is_some(),
                "{}",
                row.name
            );
            assert!(row.work > 0.0 && row.work <= MUCH, "{}", row.name);
        }
    }
}
