//! A step of a plan with numbers instead of names.
//!
//! In goes a primitive for a node, out comes a [`Deed`], or why this node cannot carry it
//! out: the same reasons as on a real one.

use homeostat_common::ids::{ConfigVersion, ModelVersion, NodeId, RouteId, ServiceId, WebhookId};
use homeostat_common::net::SourceNet;
use homeostat_common::primitive::Primitive;
use homeostat_common::units::Millis;

use crate::topology::{
    Errand, LinkNo, NodeNo, Offer, ReplicaNo, RouteNo, Topology, Unknown, Version,
};

/// A primitive with numbers instead of names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Deed {
    Restart(ReplicaNo, Millis),
    PutModel(ReplicaNo, Version),
    PutConfig(ReplicaNo, Version),
    Probe(ReplicaNo, Millis),
    Wait(Millis),
    Prune(ReplicaNo, f64),
    Isolate(ReplicaNo, Millis),
    Release(ReplicaNo),
    Reroute(ReplicaNo, ReplicaNo, f64),
    ScaleOut(ReplicaNo),
    ScaleIn(ReplicaNo, Millis),
    Freeze(ReplicaNo),
    Thaw(ReplicaNo),
    LimitCpu(ReplicaNo, f64),
    UnlimitCpu(ReplicaNo),
    LimitRate(RouteNo, f64),
    UnlimitRate(RouteNo),
    /// With whether the addresses are those of the strangers.
    BlockSource(RouteNo, bool),
    UnblockSource(RouteNo),
    Prewarm(ReplicaNo),
    ClearLocks(ReplicaNo),
    Snapshot(ReplicaNo),
    RestoreSnapshot(ReplicaNo),
    FlushCache(ReplicaNo),
    ResetPool(ReplicaNo),
    Degrade(ReplicaNo),
    Undegrade(ReplicaNo),
    SyncClock(NodeNo),
    SwitchUplink(NodeNo, LinkNo),
    ReleaseUplink(NodeNo),
    BlockPort(ReplicaNo, bool),
    UnblockPort(ReplicaNo),
    Remount(ReplicaNo),
    Call(Errand, f64, ReplicaNo),
    Escalate(ReplicaNo),
}

/// Why a step cannot be carried out at all.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Impossible {
    /// A name that is not there.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// The service is another node's.
    #[error("service {service} is not on node {node}")]
    Elsewhere {
        /// The service.
        service: ServiceId,
        /// The node of the step.
        node: NodeId,
    },
    /// The route is another node's.
    #[error("route {route} is not on node {node}")]
    RouteElsewhere {
        /// The route.
        route: RouteId,
        /// The node of the step.
        node: NodeId,
    },
    /// It is no backend of that route.
    #[error("{backend} is no backend of route {route}")]
    NoBackend {
        /// The route.
        route: RouteId,
        /// The service.
        backend: ServiceId,
    },
    /// The configuration does not allow it.
    #[error("service {service} offers no {offer:?}")]
    NotOffered {
        /// The service.
        service: ServiceId,
        /// What it does not offer.
        offer: Offer,
    },
    /// It is always there.
    #[error("service {0} is no standby")]
    NoStandby(ServiceId),
    /// Its answers come from no model.
    #[error("service {0} has no model")]
    NoModel(ServiceId),
    /// Its slot has no such version.
    #[error("service {service} has no version {version}")]
    NoVersion {
        /// The service.
        service: ServiceId,
        /// The version.
        version: String,
    },
}

/// Reads primitives for one node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compiler<'t> {
    pub(super) topology: &'t Topology,
    pub(super) node: NodeNo,
}

impl Compiler<'_> {
    pub(super) fn deed(self, primitive: &Primitive) -> Result<Deed, Impossible> {
        Ok(match primitive {
            Primitive::Restart { service, grace } => Deed::Restart(self.own(service)?, *grace),
            Primitive::RollbackModel { service, to } | Primitive::SwitchModel { service, to } => {
                let replica = self.own(service)?;
                Deed::PutModel(replica, self.model(replica, *to)?)
            }
            Primitive::SwitchConfig { service, to } | Primitive::RollbackConfig { service, to } => {
                let replica = self.own(service)?;
                Deed::PutConfig(replica, self.config(replica, *to)?)
            }
            Primitive::Probe { service, within } => Deed::Probe(self.own(service)?, *within),
            Primitive::Wait { span } => Deed::Wait(*span),
            Primitive::PruneData { service, to } => {
                let share = f64::from(to.get()) / 100.0;
                Deed::Prune(self.offered(service, Offer::Prune)?, share)
            }
            Primitive::Isolate {
                route,
                backend,
                drain,
            } => Deed::Isolate(self.backend(route, backend)?, *drain),
            Primitive::Release { route, backend } => Deed::Release(self.backend(route, backend)?),
            Primitive::Reroute {
                route,
                from,
                to,
                share,
            } => Deed::Reroute(
                self.backend(route, from)?,
                self.backend(route, to)?,
                f64::from(share.get()) / 100.0,
            ),
            Primitive::ScaleOut { route, service } => {
                Deed::ScaleOut(self.standby(service, self.backend(route, service)?)?)
            }
            Primitive::ScaleIn {
                route,
                service,
                drain,
            } => Deed::ScaleIn(
                self.standby(service, self.backend(route, service)?)?,
                *drain,
            ),
            Primitive::Freeze { service } => Deed::Freeze(self.own(service)?),
            Primitive::Thaw { service } => Deed::Thaw(self.own(service)?),
            Primitive::LimitCpu { service, to } => {
                Deed::LimitCpu(self.own(service)?, f64::from(to.get()) / 100.0)
            }
            Primitive::UnlimitCpu { service } => Deed::UnlimitCpu(self.own(service)?),
            Primitive::LimitRate { route, to } => {
                Deed::LimitRate(self.route(route)?, f64::from(to.get()))
            }
            Primitive::UnlimitRate { route } => Deed::UnlimitRate(self.route(route)?),
            Primitive::BlockSource { route, from } => {
                Deed::BlockSource(self.route(route)?, self.strangers(from))
            }
            Primitive::UnblockSource { route, .. } => Deed::UnblockSource(self.route(route)?),
            Primitive::Prewarm { service } => {
                Deed::Prewarm(self.standby(service, self.own(service)?)?)
            }
            Primitive::ClearLocks { service } => {
                Deed::ClearLocks(self.offered(service, Offer::Locks)?)
            }
            Primitive::Snapshot { service } => {
                Deed::Snapshot(self.offered(service, Offer::Snapshot)?)
            }
            Primitive::RestoreSnapshot { service } => {
                Deed::RestoreSnapshot(self.offered(service, Offer::Snapshot)?)
            }
            Primitive::FlushCache { service } => {
                Deed::FlushCache(self.offered(service, Offer::FlushCache)?)
            }
            Primitive::ResetPool { service } => {
                Deed::ResetPool(self.offered(service, Offer::ResetPool)?)
            }
            Primitive::Degrade { service } => Deed::Degrade(self.offered(service, Offer::Degrade)?),
            Primitive::Undegrade { service } => {
                Deed::Undegrade(self.offered(service, Offer::Degrade)?)
            }
            Primitive::SyncClock { service } => {
                self.own(service)?;
                Deed::SyncClock(self.node)
            }
            Primitive::SwitchUplink { service, to } => {
                self.own(service)?;
                Deed::SwitchUplink(self.node, self.topology.uplink_no(self.node, to)?)
            }
            Primitive::ReleaseUplink { service } => {
                self.own(service)?;
                Deed::ReleaseUplink(self.node)
            }
            Primitive::BlockPort { service, from } => {
                Deed::BlockPort(self.own(service)?, self.strangers(from))
            }
            Primitive::UnblockPort { service, .. } => Deed::UnblockPort(self.own(service)?),
            Primitive::RemountWritable { service } => {
                Deed::Remount(self.offered(service, Offer::Remount)?)
            }
            Primitive::CallWebhook { service, to } => self.errand(service, to)?,
            Primitive::Escalate { service } => Deed::Escalate(self.own(service)?),
        })
    }

    /// A service of this node.
    fn own(self, service: &ServiceId) -> Result<ReplicaNo, Impossible> {
        let no = self.topology.replica_no(service)?;
        if self.topology.replicas[no.at()].node == self.node {
            Ok(no)
        } else {
            let node = self.topology.nodes[self.node.at()].name.clone();
            let service = service.clone();
            Err(Impossible::Elsewhere { service, node })
        }
    }

    fn offered(self, service: &ServiceId, offer: Offer) -> Result<ReplicaNo, Impossible> {
        let no = self.own(service)?;
        let route = self.topology.replicas[no.at()].route;
        if self.topology.routes[route.at()].offers.contains(&offer) {
            Ok(no)
        } else {
            let service = service.clone();
            Err(Impossible::NotOffered { service, offer })
        }
    }

    fn standby(self, service: &ServiceId, no: ReplicaNo) -> Result<ReplicaNo, Impossible> {
        if self.topology.replicas[no.at()].standby {
            Ok(no)
        } else {
            Err(Impossible::NoStandby(service.clone()))
        }
    }

    /// A route of this node.
    fn route(self, route: &RouteId) -> Result<RouteNo, Impossible> {
        let no = self.topology.route_no(route)?;
        if self.topology.routes[no.at()].at == self.node {
            Ok(no)
        } else {
            let node = self.topology.nodes[self.node.at()].name.clone();
            let route = route.clone();
            Err(Impossible::RouteElsewhere { route, node })
        }
    }

    /// A backend of a route of this node, wherever it runs; and a standby of this node,
    /// whosever route it is for.
    fn backend(self, route: &RouteId, backend: &ServiceId) -> Result<ReplicaNo, Impossible> {
        let no = self.topology.replica_no(backend)?;
        let of = self.topology.route_no(route)?;
        let known = &self.topology.replicas[no.at()];
        if known.route != of {
            return Err(Impossible::NoBackend {
                route: route.clone(),
                backend: backend.clone(),
            });
        }
        if !(known.standby && known.node == self.node) {
            self.route(route)?;
        }
        Ok(no)
    }

    fn errand(self, service: &ServiceId, to: &WebhookId) -> Result<Deed, Impossible> {
        let replica = self.own(service)?;
        let hook = &self.topology.webhooks[self.topology.webhook_at(to)?];
        Ok(Deed::Call(hook.does, hook.seconds, replica))
    }

    fn strangers(self, from: &SourceNet) -> bool {
        from.covers(&self.topology.strangers)
    }

    fn model(self, replica: ReplicaNo, to: ModelVersion) -> Result<Version, Impossible> {
        let known = &self.topology.replicas[replica.at()];
        if !self.topology.routes[known.route.at()].model {
            return Err(Impossible::NoModel(known.name.clone()));
        }
        let is = |version: &Version| self.topology.model(replica, *version) == to;
        let found = Version::ALL.into_iter().find(is);
        found.ok_or_else(|| self.no_version(replica, to.to_string()))
    }

    fn config(self, replica: ReplicaNo, to: ConfigVersion) -> Result<Version, Impossible> {
        let is = |version: &Version| self.topology.config(replica, *version) == to;
        let found = Version::ALL.into_iter().find(is);
        found.ok_or_else(|| self.no_version(replica, to.to_string()))
    }

    fn no_version(self, replica: ReplicaNo, version: String) -> Impossible {
        let service = self.topology.replicas[replica.at()].name.clone();
        Impossible::NoVersion { service, version }
    }
}
