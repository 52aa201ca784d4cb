//! The primitives that a plan is made of, with what each reads, writes, costs
//! and how it is taken back (PASE 3.1: the recovery primitive library).
//!
//! A primitive is here only when a node can really execute it. Our own matches
//! name every arm, so adding one makes the compiler list all that must know it.
//! What is the same for every use of a primitive stands in its [`Signature`].

mod signature;

use core::fmt;

use serde::{Deserialize, Serialize};

pub use self::signature::{Adapter, Effect, Grant, NAMES, Resource, Reversal, Signature};

use crate::ids::{ConfigVersion, InterfaceId, ModelVersion, RouteId, ServiceId, WebhookId};
use crate::net::SourceNet;
use crate::units::{Millis, PerSecond, Percent};

/// One typed action on one target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Primitive {
    /// Leaves exactly one fresh process of the service: what still lives gets
    /// TERM, after `grace` KILL, then a new one is started and must answer.
    Restart {
        /// The service.
        service: ServiceId,
        /// Time between TERM and KILL; zero kills at once.
        grace: Millis,
    },
    /// Puts the last model that worked back into its slot, atomically. What
    /// stood there is kept until the plan has ended.
    RollbackModel {
        /// The service that reads the model.
        service: ServiceId,
        /// The version that worked.
        to: ModelVersion,
    },
    /// Waits until the service answers all its probes rightly.
    Probe {
        /// The service.
        service: ServiceId,
        /// How long at most.
        within: Millis,
    },
    /// Does nothing for a while, so that an effect can settle.
    Wait {
        /// How long.
        span: Millis,
    },
    /// Puts a staged model into its slot, atomically, so that a service that
    /// watches it serves one version or the other and never a mixture.
    SwitchModel {
        /// The service that reads the model.
        service: ServiceId,
        /// The staged version.
        to: ModelVersion,
    },
    /// Puts a staged configuration into its slot, atomically.
    SwitchConfig {
        /// The service that reads it.
        service: ServiceId,
        /// The staged version.
        to: ConfigVersion,
    },
    /// Puts the last configuration that worked back into its slot.
    RollbackConfig {
        /// The service that reads it.
        service: ServiceId,
        /// The version that worked.
        to: ConfigVersion,
    },
    /// Deletes files that the service's configuration allows to be deleted,
    /// oldest first, until its data fills no more than this share of its quota.
    PruneData {
        /// The service whose data it is.
        service: ServiceId,
        /// Share of the quota that may remain filled.
        to: Percent,
    },
    /// Sends no new connection to a backend, and lets those it has come to
    /// their end.
    Isolate {
        /// The route.
        route: RouteId,
        /// One of its backends.
        backend: ServiceId,
        /// After this, connections that are left are closed.
        drain: Millis,
    },
    /// Gives a backend its configured weight again.
    Release {
        /// The route.
        route: RouteId,
        /// One of its backends.
        backend: ServiceId,
    },
    /// Moves a share of what `from` gets by configuration to `to`; a share of 0
    /// gives both their configured weights again.
    Reroute {
        /// The route.
        route: RouteId,
        /// The backend that gets less.
        from: ServiceId,
        /// The backend that gets more.
        to: ServiceId,
        /// The share that moves.
        share: Percent,
    },
    /// Starts a standby replica; once it answers, its route sends it as much as
    /// the most favoured of the others.
    ScaleOut {
        /// The route.
        route: RouteId,
        /// The standby.
        service: ServiceId,
    },
    /// Drains a standby replica and stops it.
    ScaleIn {
        /// The route.
        route: RouteId,
        /// The standby.
        service: ServiceId,
        /// After this, connections that are left are closed.
        drain: Millis,
    },
    /// Stops the process of a service without ending it, so that it does no more
    /// harm and can be looked at. Holds for this life.
    Freeze {
        /// The service.
        service: ServiceId,
    },
    /// Lets a frozen process go on.
    Thaw {
        /// The service.
        service: ServiceId,
    },
    /// Leaves a service at most this share of the node's processors. Holds for
    /// this life.
    LimitCpu {
        /// The service.
        service: ServiceId,
        /// Share of all processors of the node.
        to: Percent,
    },
    /// Lets it use what it can get again.
    UnlimitCpu {
        /// The service.
        service: ServiceId,
    },
    /// Admits at most so many new connections to a route; the rest is refused at
    /// once instead of late.
    LimitRate {
        /// The route.
        route: RouteId,
        /// New connections.
        to: PerSecond,
    },
    /// Admits all connections again.
    UnlimitRate {
        /// The route.
        route: RouteId,
    },
    /// Refuses connections to a route that come from certain addresses.
    BlockSource {
        /// The route.
        route: RouteId,
        /// The addresses.
        from: SourceNet,
    },
    /// Admits them again.
    UnblockSource {
        /// The route.
        route: RouteId,
        /// The addresses.
        from: SourceNet,
    },
    /// Starts a standby replica and sends it nothing yet.
    Prewarm {
        /// The standby.
        service: ServiceId,
    },
    /// Deletes the lock files that the service's configuration names, if nobody
    /// holds them: a process that was killed leaves them behind.
    ClearLocks {
        /// The service.
        service: ServiceId,
    },
    /// Copies the state that the service's configuration names.
    Snapshot {
        /// The service.
        service: ServiceId,
    },
    /// Puts the newest copy of that state back; what stood there is kept until
    /// the plan has ended.
    RestoreSnapshot {
        /// The service.
        service: ServiceId,
    },
    /// Has a service forget what it keeps to be quick.
    FlushCache {
        /// The service.
        service: ServiceId,
    },
    /// Has a service open its connections to others anew.
    ResetPool {
        /// The service.
        service: ServiceId,
    },
    /// Has a service do less, or less well, so that it can do it at all.
    Degrade {
        /// The service.
        service: ServiceId,
    },
    /// Has it do all it can again.
    Undegrade {
        /// The service.
        service: ServiceId,
    },
    /// Sets the node's clock by the time servers of the configuration.
    SyncClock {
        /// The service that needs it.
        service: ServiceId,
    },
    /// Sends what leaves the node by default through this interface.
    SwitchUplink {
        /// The service that needs it.
        service: ServiceId,
        /// One of the configuration's uplinks.
        to: InterfaceId,
    },
    /// Leaves the choice of the uplink to the node's own routes again.
    ReleaseUplink {
        /// The service that needs it.
        service: ServiceId,
    },
    /// Drops packets from certain addresses to the ports of a service.
    BlockPort {
        /// The service.
        service: ServiceId,
        /// The addresses.
        from: SourceNet,
    },
    /// Lets them through again.
    UnblockPort {
        /// The service.
        service: ServiceId,
        /// The addresses.
        from: SourceNet,
    },
    /// Mounts the file system of the service's data for writing again, after the
    /// kernel made it read-only.
    RemountWritable {
        /// The service.
        service: ServiceId,
    },
    /// Calls one of the operator's webhooks and waits until it was taken.
    CallWebhook {
        /// The service that it is about.
        service: ServiceId,
        /// The webhook's name.
        to: WebhookId,
    },
    /// Calls a person.
    Escalate {
        /// The service that it is about.
        service: ServiceId,
    },
}

impl Primitive {
    /// Its name, as it is printed.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.signature().name
    }

    /// The service or backend it touches; `None` when it touches none. A
    /// backend on another node is no service of this one.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceId> {
        match self {
            Self::Restart { service, .. }
            | Self::RollbackModel { service, .. }
            | Self::Probe { service, .. }
            | Self::SwitchModel { service, .. }
            | Self::SwitchConfig { service, .. }
            | Self::RollbackConfig { service, .. }
            | Self::PruneData { service, .. }
            | Self::ScaleOut { service, .. }
            | Self::ScaleIn { service, .. }
            | Self::Freeze { service }
            | Self::Thaw { service }
            | Self::LimitCpu { service, .. }
            | Self::UnlimitCpu { service }
            | Self::Prewarm { service }
            | Self::ClearLocks { service }
            | Self::Snapshot { service }
            | Self::RestoreSnapshot { service }
            | Self::FlushCache { service }
            | Self::ResetPool { service }
            | Self::Degrade { service }
            | Self::Undegrade { service }
            | Self::SyncClock { service }
            | Self::SwitchUplink { service, .. }
            | Self::ReleaseUplink { service }
            | Self::BlockPort { service, .. }
            | Self::UnblockPort { service, .. }
            | Self::RemountWritable { service }
            | Self::CallWebhook { service, .. }
            | Self::Escalate { service }
            | Self::Isolate {
                backend: service, ..
            }
            | Self::Release {
                backend: service, ..
            }
            | Self::Reroute { from: service, .. } => Some(service),
            Self::Wait { .. }
            | Self::LimitRate { .. }
            | Self::UnlimitRate { .. }
            | Self::BlockSource { .. }
            | Self::UnblockSource { .. } => None,
        }
    }

    /// The route it changes.
    #[must_use]
    pub fn route(&self) -> Option<&RouteId> {
        match self {
            Self::Isolate { route, .. }
            | Self::Release { route, .. }
            | Self::Reroute { route, .. }
            | Self::ScaleOut { route, .. }
            | Self::ScaleIn { route, .. }
            | Self::LimitRate { route, .. }
            | Self::UnlimitRate { route }
            | Self::BlockSource { route, .. }
            | Self::UnblockSource { route, .. } => Some(route),
            Self::Restart { .. }
            | Self::RollbackModel { .. }
            | Self::Probe { .. }
            | Self::Wait { .. }
            | Self::SwitchModel { .. }
            | Self::SwitchConfig { .. }
            | Self::RollbackConfig { .. }
            | Self::PruneData { .. }
            | Self::Freeze { .. }
            | Self::Thaw { .. }
            | Self::LimitCpu { .. }
            | Self::UnlimitCpu { .. }
            | Self::Prewarm { .. }
            | Self::ClearLocks { .. }
            | Self::Snapshot { .. }
            | Self::RestoreSnapshot { .. }
            | Self::FlushCache { .. }
            | Self::ResetPool { .. }
            | Self::Degrade { .. }
            | Self::Undegrade { .. }
            | Self::SyncClock { .. }
            | Self::SwitchUplink { .. }
            | Self::ReleaseUplink { .. }
            | Self::BlockPort { .. }
            | Self::UnblockPort { .. }
            | Self::RemountWritable { .. }
            | Self::CallWebhook { .. }
            | Self::Escalate { .. } => None,
        }
    }

    /// The backends of its route that it names.
    pub fn backends(&self) -> impl Iterator<Item = &ServiceId> {
        let (one, other) = match self {
            Self::Isolate { backend, .. } | Self::Release { backend, .. } => (Some(backend), None),
            Self::Reroute { from, to, .. } => (Some(from), Some(to)),
            Self::ScaleOut { service, .. } | Self::ScaleIn { service, .. } => (Some(service), None),
            Self::Restart { .. }
            | Self::RollbackModel { .. }
            | Self::Probe { .. }
            | Self::Wait { .. }
            | Self::SwitchModel { .. }
            | Self::SwitchConfig { .. }
            | Self::RollbackConfig { .. }
            | Self::PruneData { .. }
            | Self::Freeze { .. }
            | Self::Thaw { .. }
            | Self::LimitCpu { .. }
            | Self::UnlimitCpu { .. }
            | Self::Prewarm { .. }
            | Self::ClearLocks { .. }
            | Self::Snapshot { .. }
            | Self::RestoreSnapshot { .. }
            | Self::FlushCache { .. }
            | Self::ResetPool { .. }
            | Self::Degrade { .. }
            | Self::Undegrade { .. }
            | Self::SyncClock { .. }
            | Self::SwitchUplink { .. }
            | Self::ReleaseUplink { .. }
            | Self::BlockPort { .. }
            | Self::UnblockPort { .. }
            | Self::RemountWritable { .. }
            | Self::CallWebhook { .. }
            | Self::Escalate { .. }
            | Self::LimitRate { .. }
            | Self::UnlimitRate { .. }
            | Self::BlockSource { .. }
            | Self::UnblockSource { .. } => (None, None),
        };
        one.into_iter().chain(other)
    }

    /// Every service and backend that it names, each once.
    pub fn touched(&self) -> impl Iterator<Item = &ServiceId> {
        let first = self.service();
        let others = self.backends().filter(move |id| Some(*id) != first);
        first.into_iter().chain(others)
    }

    /// Whether it changes anything outside the agent.
    #[must_use]
    pub fn writes(&self) -> bool {
        !self.signature().writes.is_empty()
    }

    /// Whether the service answers nobody while it runs, or from then on.
    #[must_use]
    pub fn interrupts(&self) -> bool {
        self.signature().interrupts
    }

    /// Whether a frozen process of its service runs again afterwards.
    #[must_use]
    pub fn unfreezes(&self) -> bool {
        matches!(self, Self::Thaw { .. } | Self::Restart { .. })
    }

    /// The backend that gets nothing from its route once this is done.
    #[must_use]
    pub fn isolates(&self) -> Option<&ServiceId> {
        match self {
            Self::Isolate { backend, .. } => Some(backend),
            Self::ScaleIn { service, .. } => Some(service),
            Self::Reroute { from, share, .. } if *share == Percent::ALL => Some(from),
            _ => None,
        }
    }

    /// How it is taken back, or completed, when it was cut short.
    #[must_use]
    pub fn reversal(&self) -> Reversal {
        self.signature().reversal
    }

    /// Longest time it may take before it counts as failed, given the time that
    /// its service needs to come up.
    #[must_use]
    pub fn deadline(&self, start_timeout: Millis) -> Millis {
        /// For copying a file and two fsyncs on a slow SD card.
        const FILE: Millis = Millis::secs(10);
        /// For deleting some thousand files on one.
        const FILES: Millis = Millis::secs(30);
        /// For a kill to be carried out by a loaded kernel, or for the forwarder
        /// to answer on one.
        const ANSWER: Millis = Millis::secs(2);
        /// For a time server, a webhook or the kernel to answer.
        const NODE: Millis = Millis::secs(10);
        /// For a service to do what its hook asks for.
        const HOOK: Millis = Millis::secs(10);
        let after = |first: Millis, then: Millis| Millis(first.0.saturating_add(then.0));
        match self {
            Self::Restart { grace, .. } => after(after(*grace, ANSWER), start_timeout),
            Self::RollbackModel { .. }
            | Self::SwitchModel { .. }
            | Self::SwitchConfig { .. }
            | Self::RollbackConfig { .. } => FILE,
            Self::PruneData { .. } => FILES,
            Self::Probe { within, .. } => *within,
            Self::Wait { span } => after(*span, Millis(1000)),
            Self::Isolate { drain, .. } => after(*drain, ANSWER),
            Self::Release { .. }
            | Self::Reroute { .. }
            | Self::Freeze { .. }
            | Self::LimitCpu { .. }
            | Self::UnlimitCpu { .. }
            | Self::LimitRate { .. }
            | Self::UnlimitRate { .. }
            | Self::BlockSource { .. }
            | Self::UnblockSource { .. }
            | Self::Escalate { .. } => ANSWER,
            Self::SyncClock { .. }
            | Self::SwitchUplink { .. }
            | Self::ReleaseUplink { .. }
            | Self::BlockPort { .. }
            | Self::UnblockPort { .. }
            | Self::RemountWritable { .. }
            | Self::CallWebhook { .. } => NODE,
            Self::FlushCache { .. }
            | Self::ResetPool { .. }
            | Self::Degrade { .. }
            | Self::Undegrade { .. } => HOOK,
            Self::ClearLocks { .. } => FILE,
            Self::Snapshot { .. } | Self::RestoreSnapshot { .. } => FILES,
            Self::ScaleOut { .. } | Self::Prewarm { .. } | Self::Thaw { .. } => {
                after(start_timeout, ANSWER)
            }
            Self::ScaleIn { drain, .. } => after(after(*drain, ANSWER), start_timeout),
        }
    }

    /// One line for the person on call.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        self.signature().does
    }
}

impl fmt::Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name())?;
        match self {
            Self::Restart { service, grace } => write!(f, "{service}, grace={grace}")?,
            Self::RollbackModel { service, to } | Self::SwitchModel { service, to } => {
                write!(f, "{service}, to={to}")?;
            }
            Self::SwitchConfig { service, to } | Self::RollbackConfig { service, to } => {
                write!(f, "{service}, to={to}")?;
            }
            Self::Probe { service, within } => write!(f, "{service}, within={within}")?,
            Self::Wait { span } => write!(f, "{span}")?,
            Self::PruneData { service, to } => write!(f, "{service}, to={to}")?,
            Self::Isolate {
                route,
                backend,
                drain,
            } => write!(f, "{route}, {backend}, drain={drain}")?,
            Self::Release { route, backend } => write!(f, "{route}, {backend}")?,
            Self::Reroute {
                route,
                from,
                to,
                share,
            } => write!(f, "{route}, from={from}, to={to}, share={share}")?,
            Self::ScaleOut { route, service } => write!(f, "{route}, {service}")?,
            Self::ScaleIn {
                route,
                service,
                drain,
            } => write!(f, "{route}, {service}, drain={drain}")?,
            Self::LimitCpu { service, to } => write!(f, "{service}, to={to}")?,
            Self::LimitRate { route, to } => write!(f, "{route}, to={to}")?,
            Self::UnlimitRate { route } => write!(f, "{route}")?,
            Self::BlockSource { route, from } | Self::UnblockSource { route, from } => {
                write!(f, "{route}, from={from}")?;
            }
            Self::SwitchUplink { service, to } => write!(f, "{service}, to={to}")?,
            Self::BlockPort { service, from } | Self::UnblockPort { service, from } => {
                write!(f, "{service}, from={from}")?;
            }
            Self::CallWebhook { service, to } => write!(f, "{service}, to={to}")?,
            Self::Freeze { service }
            | Self::Thaw { service }
            | Self::SyncClock { service }
            | Self::ReleaseUplink { service }
            | Self::RemountWritable { service }
            | Self::UnlimitCpu { service }
            | Self::Prewarm { service }
            | Self::ClearLocks { service }
            | Self::Snapshot { service }
            | Self::RestoreSnapshot { service }
            | Self::FlushCache { service }
            | Self::ResetPool { service }
            | Self::Degrade { service }
            | Self::Undegrade { service }
            | Self::Escalate { service } => write!(f, "{service}")?,
        }
        f.write_str(")")
    }
}
