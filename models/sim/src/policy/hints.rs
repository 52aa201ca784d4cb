//! Which words in a log speak for which kind of step, roughly.
//!
//! What anybody learns who has read the logs of a few incidents: no causes, no orders. Some
//! speak for the repair, some for a step that should come before it, and some against one.

use super::Kind;
use crate::observe::Template;

/// The words that speak for a kind of step.
pub(super) fn hints(kind: Kind) -> &'static [Template] {
    use Template as T;
    match kind {
        Kind::Restart => &[
            T::Watchdog,
            T::TooManyFiles,
            T::ThreadSpawn,
            T::HeapGrowth,
            T::LockWait,
        ],
        Kind::RollbackModel => &[T::ModelHash, T::ModelLoaded],
        Kind::RollbackConfig => &[T::ConfigParse, T::ShortLived],
        Kind::PruneData => &[T::NoSpace, T::NearlyFull],
        Kind::Isolate => &[T::QueueFull],
        Kind::ScaleOut => &[T::QueueFull, T::ReserveLow],
        Kind::LimitRate => &[T::QuotaReached],
        Kind::BlockSource => &[T::DuplicateKey, T::InputRange],
        Kind::ClearLocks => &[T::LockWait, T::LockStale],
        Kind::Snapshot => &[T::Unflushed],
        Kind::RestoreSnapshot | Kind::RestoreCheckpoint => &[T::Checksum],
        Kind::FlushCache => &[T::CacheMismatch],
        Kind::Degrade => &[T::Throttled, T::UnderVoltage, T::ReserveLow],
        Kind::SyncClock => &[T::ClockAhead],
        Kind::SwitchUplink => &[T::LinkDown, T::LinkRetransmit, T::LinkSlow],
        Kind::Remount => &[T::ReadOnly],
        Kind::Reboot => &[T::AgentLate, T::SlowSync],
        Kind::RotateCredential | Kind::ResetPool => &[T::AuthExpired, T::AuthRefused],
        Kind::FailoverBroker => &[T::LeaderUnknown],
        Kind::Retrain => &[T::LowConfidence],
        Kind::RollbackBinary => &[T::GcPause, T::Started],
        Kind::PauseRollout => &[T::ArtefactApplied, T::OtherActor],
        Kind::KillStranger => &[T::StrangerBusy],
        Kind::Wait => &[T::FixPending, T::Replaying, T::ReplicaLag],
        Kind::Release
        | Kind::Reroute
        | Kind::ScaleIn
        | Kind::Prewarm
        | Kind::Freeze
        | Kind::Thaw
        | Kind::LimitCpu
        | Kind::UnlimitCpu
        | Kind::UnlimitRate
        | Kind::UnblockSource
        | Kind::BlockPort
        | Kind::UnblockPort
        | Kind::Undegrade
        | Kind::ReleaseUplink => &[],
    }
}

/// The words that speak against a kind of step.
pub(super) fn warnings(kind: Kind) -> &'static [Template] {
    use Template as T;
    match kind {
        Kind::Restart | Kind::Reboot | Kind::Freeze => &[T::Unflushed],
        Kind::PruneData => &[T::LastCopy],
        Kind::Snapshot | Kind::Remount => &[T::NearlyFull],
        Kind::PauseRollout | Kind::RollbackModel | Kind::RollbackConfig | Kind::RollbackBinary => {
            &[T::FixPending]
        }
        Kind::LimitRate | Kind::BlockSource | Kind::ResetPool => &[T::Backoff],
        Kind::FailoverBroker | Kind::RestoreSnapshot | Kind::RestoreCheckpoint => &[T::ReplicaLag],
        Kind::Retrain => &[T::InputRange],
        Kind::ScaleOut | Kind::Prewarm => &[T::StandbyStale],
        Kind::RotateCredential | Kind::SyncClock => &[T::AttemptsLeft],
        Kind::FlushCache => &[T::UpstreamError],
        Kind::ClearLocks => &[T::Replaying],
        Kind::Isolate | Kind::Reroute => &[T::ReserveLow],
        Kind::Release
        | Kind::ScaleIn
        | Kind::Thaw
        | Kind::LimitCpu
        | Kind::UnlimitCpu
        | Kind::UnlimitRate
        | Kind::UnblockSource
        | Kind::BlockPort
        | Kind::UnblockPort
        | Kind::Degrade
        | Kind::Undegrade
        | Kind::SwitchUplink
        | Kind::ReleaseUplink
        | Kind::Wait
        | Kind::KillStranger => &[],
    }
}
