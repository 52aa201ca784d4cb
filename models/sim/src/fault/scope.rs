//! Names of an incident become numbers of a topology, and events become steps at
//! somebody.
//!
//! In goes a locus, or what happened; out comes what it is about, or the line of the
//! file that names nothing.

use super::grammar::{Fault, Incident, Locus, Place, Step};
use super::mechanism::{Ground, ground};
use crate::text::TextError;
use crate::topology::{
    Errand, LinkNo, LinkOf, NodeNo, ReplicaNo, RouteNo, SiteNo, Topology, Version,
};
use crate::world::Happened;

/// A locus, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Replica(ReplicaNo),
    Route(RouteNo),
    /// Somebody else's service.
    Outside(RouteNo),
    Node(NodeNo),
    Link(NodeNo, LinkNo),
    Site(SiteNo),
}

/// What a burden is laid on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Replica(ReplicaNo),
    Route(RouteNo),
    Node(NodeNo),
    Link(NodeNo, LinkNo),
}

/// What a step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Replica(ReplicaNo),
    Route(RouteNo),
    Node(NodeNo),
    All,
}

pub(super) fn route_named(topology: &Topology, name: &str) -> Option<RouteNo> {
    let found = topology
        .routes()
        .iter()
        .position(|r| r.name.as_str() == name);
    found.map(RouteNo::new)
}

pub(super) fn replica_named(topology: &Topology, name: &str) -> Option<ReplicaNo> {
    let found = topology
        .replicas()
        .iter()
        .position(|r| r.name.as_str() == name);
    found.map(ReplicaNo::new)
}

pub(super) fn node_named(topology: &Topology, name: &str) -> Option<NodeNo> {
    let found = topology
        .nodes()
        .iter()
        .position(|n| n.name.as_str() == name);
    found.map(NodeNo::new)
}

/// Where a locus is, if it is anywhere.
fn place(topology: &Topology, locus: &Locus) -> Option<At> {
    let name = locus.name.as_str();
    let ours = |route: &RouteNo| topology.routes()[route.at()].outside_ms.is_none();
    match locus.place {
        Place::Replica | Place::File => replica_named(topology, name).map(At::Replica),
        Place::Service => route_named(topology, name).filter(ours).map(At::Route),
        Place::Model => route_named(topology, name)
            .filter(|route| topology.routes()[route.at()].model)
            .map(At::Route),
        Place::Broker => route_named(topology, name)
            .filter(ours)
            .filter(|route| topology.routes()[route.at()].stateful)
            .map(At::Route),
        Place::Outside => route_named(topology, name)
            .filter(|route| !ours(route))
            .map(At::Outside),
        Place::Node | Place::Agent => node_named(topology, name).map(At::Node),
        Place::Link => topology
            .links()
            .iter()
            .enumerate()
            .find_map(|(at, link)| match link.of {
                LinkOf::Uplink(node, _) if link.name == name => {
                    Some(At::Link(node, LinkNo::new(at)))
                }
                LinkOf::Uplink(..) | LinkOf::Lan(_) => None,
            }),
        Place::Site => {
            let found = topology
                .sites()
                .iter()
                .position(|s| s.name.as_str() == name);
            found.map(|at| At::Site(SiteNo::new(at)))
        }
    }
}

/// Where a fault is.
///
/// # Errors
/// When its locus names nothing.
pub(super) fn locate(
    incident: &Incident,
    fault: &Fault,
    topology: &Topology,
) -> Result<At, TextError> {
    place(topology, &fault.locus).ok_or_else(|| {
        let reason = format!(
            "{:?} names nothing in topology {}",
            fault.locus.to_string(),
            topology.name()
        );
        incident.refuse(fault.lines.locus, reason)
    })
}

/// What a fault at a place lays its burdens on.
pub(super) fn targets(topology: &Topology, fault: &Fault, at: At) -> Vec<Target> {
    let node_of = |replica: ReplicaNo| topology.replicas()[replica.at()].node;
    let in_site = |site: SiteNo| {
        let nodes = topology.nodes().iter().enumerate();
        nodes.filter(move |(_, node)| node.site == site)
    };
    let uplinks = |at: usize| {
        let links = &topology.nodes()[at].uplinks;
        links
            .iter()
            .map(move |link| Target::Link(NodeNo::new(at), *link))
    };
    let ground = ground(fault.mechanism, fault.locus.place);
    match (ground, at) {
        (None, _) => Vec::new(),
        (Some(Ground::Nodes), At::Replica(replica)) => vec![Target::Node(node_of(replica))],
        (Some(Ground::Nodes), At::Site(site)) => in_site(site)
            .map(|(at, _)| Target::Node(NodeNo::new(at)))
            .collect(),
        (Some(Ground::Links), At::Site(site)) => {
            in_site(site).flat_map(|(at, _)| uplinks(at)).collect()
        }
        (Some(Ground::Replicas), At::Route(route)) => {
            // A standby has what it had when it was stopped.
            let replicas = topology.routes()[route.at()].replicas.iter();
            let active = replicas.filter(|replica| !topology.replicas()[replica.at()].standby);
            active.map(|replica| Target::Replica(*replica)).collect()
        }
        (Some(_), At::Replica(replica)) => vec![Target::Replica(replica)],
        (Some(_), At::Route(route) | At::Outside(route)) => vec![Target::Route(route)],
        (Some(_), At::Node(node)) => vec![Target::Node(node)],
        (Some(_), At::Link(node, link)) => vec![Target::Link(node, link)],
        (Some(_), At::Site(_)) => Vec::new(),
    }
}

/// Whether a step about somebody is a step at a place.
pub(super) fn covers(topology: &Topology, at: At, subject: Subject) -> bool {
    let route_of = |replica: ReplicaNo| topology.replicas()[replica.at()].route;
    let node_of = |replica: ReplicaNo| topology.replicas()[replica.at()].node;
    let on_node = |route: RouteNo, node: NodeNo| {
        let mut replicas = topology.routes()[route.at()].replicas.iter();
        replicas.any(|replica| node_of(*replica) == node)
    };
    let calls = |caller: RouteNo, called: RouteNo| {
        let mut calls = topology.routes()[caller.at()].calls.iter();
        calls.any(|call| call.to == called)
    };
    let in_site = |node: NodeNo, site: SiteNo| topology.nodes()[node.at()].site == site;
    match (at, subject) {
        (_, Subject::All) => true,
        (At::Replica(here), Subject::Replica(there)) => here == there,
        (At::Replica(here), Subject::Route(there)) => route_of(here) == there,
        (At::Replica(here), Subject::Node(there)) => node_of(here) == there,
        (At::Route(here), Subject::Replica(there)) => here == route_of(there),
        (At::Route(here), Subject::Route(there)) => here == there,
        (At::Route(here), Subject::Node(there)) => on_node(here, there),
        // What can be done about somebody else's service is done at its callers.
        (At::Outside(here), Subject::Replica(there)) => calls(route_of(there), here),
        (At::Outside(here), Subject::Route(there)) => here == there || calls(there, here),
        (At::Outside(_), Subject::Node(_)) => false,
        (At::Node(here) | At::Link(here, _), Subject::Replica(there)) => here == node_of(there),
        (At::Node(here) | At::Link(here, _), Subject::Route(there)) => on_node(there, here),
        (At::Node(here) | At::Link(here, _), Subject::Node(there)) => here == there,
        (At::Site(here), Subject::Replica(there)) => in_site(node_of(there), here),
        (At::Site(_), Subject::Route(_)) => false,
        (At::Site(here), Subject::Node(there)) => in_site(there, here),
    }
}

/// The node on which a step is carried out, if it is one's own agent that does it.
pub(super) fn hands(topology: &Topology, subject: Subject) -> Option<NodeNo> {
    match subject {
        Subject::Replica(replica) => Some(topology.replicas()[replica.at()].node),
        Subject::Route(route) => Some(topology.routes()[route.at()].at),
        Subject::Node(node) => Some(node),
        Subject::All => None,
    }
}

/// The step that something is, and whom it is about; `None` for what is no step.
pub(super) fn step_of(topology: &Topology, what: Happened) -> Option<(Step, Subject)> {
    let route_of = |replica: ReplicaNo| Subject::Route(topology.replicas()[replica.at()].route);
    let node_of = |replica: ReplicaNo| Subject::Node(topology.replicas()[replica.at()].node);
    Some(match what {
        Happened::Started(r) => (Step::Restart, Subject::Replica(r)),
        Happened::Frozen(r) => (Step::Freeze, Subject::Replica(r)),
        // A candidate that waits is no way back.
        Happened::ModelPut(_, Version::Staged) | Happened::ConfigPut(_, Version::Staged) => {
            return None;
        }
        Happened::ModelPut(r, Version::Good | Version::Older) => {
            (Step::PutModel, Subject::Replica(r))
        }
        Happened::ConfigPut(r, Version::Good | Version::Older) => {
            (Step::PutConfig, Subject::Replica(r))
        }
        Happened::Pruned(r) => (Step::Prune, Subject::Replica(r)),
        Happened::LocksCleared(r) => (Step::ClearLocks, Subject::Replica(r)),
        Happened::Flushed(r) => (Step::Flush, Subject::Replica(r)),
        Happened::PoolReset(r) => (Step::ResetPool, Subject::Replica(r)),
        Happened::Degraded(r) => (Step::Degrade, Subject::Replica(r)),
        Happened::CpuLimited(r) => (Step::LimitCpu, Subject::Replica(r)),
        Happened::Isolated(r) => (Step::Isolate, Subject::Replica(r)),
        Happened::Released(r) => (Step::Release, Subject::Replica(r)),
        Happened::LoadMoved(from, _) => (Step::Reroute, Subject::Replica(from)),
        Happened::ScaledOut(r) => (Step::ScaleOut, route_of(r)),
        Happened::Prewarmed(r) => (Step::Prewarm, route_of(r)),
        Happened::RateLimited(route) => (Step::LimitRate, Subject::Route(route)),
        Happened::SourceBlocked(route, true) => (Step::BlockSource, Subject::Route(route)),
        Happened::PortBlocked(r, true) => (Step::BlockSource, Subject::Replica(r)),
        Happened::SnapshotTaken(r) => (Step::Snapshot, Subject::Replica(r)),
        Happened::SnapshotRestored(r) => (Step::RestoreSnapshot, Subject::Replica(r)),
        Happened::ClockSet(node) => (Step::SyncClock, Subject::Node(node)),
        Happened::UplinkSwitched(node, _) => (Step::SwitchUplink, Subject::Node(node)),
        Happened::Remounted(r) => (Step::Remount, Subject::Replica(r)),
        Happened::Booted(node) => (Step::Reboot, Subject::Node(node)),
        Happened::Done(errand, r) => match errand {
            Errand::Reboot => (Step::Reboot, node_of(r)),
            Errand::RotateCredential => (Step::RotateCredential, route_of(r)),
            Errand::FailoverBroker => (Step::FailoverBroker, route_of(r)),
            Errand::Retrain => (Step::Retrain, route_of(r)),
            Errand::RollbackBinary => (Step::PutBinary, route_of(r)),
            Errand::PauseRollout => (Step::PauseRollout, Subject::All),
            Errand::KillStranger => (Step::KillStranger, node_of(r)),
            Errand::RestoreCheckpoint => (Step::RestoreCheckpoint, Subject::Replica(r)),
        },
        Happened::Stopped(_)
        | Happened::Died(_)
        | Happened::Thawed(_)
        | Happened::Undegraded(_)
        | Happened::CpuFreed(_)
        | Happened::ScaledIn(_)
        | Happened::RateFreed(_)
        | Happened::SourceBlocked(_, false)
        | Happened::SourceFreed(_)
        | Happened::PortBlocked(_, false)
        | Happened::PortFreed(_)
        | Happened::UplinkReleased(_)
        | Happened::Probed(_)
        | Happened::Escalated(_) => return None,
    })
}

/// The step that something takes back, and whom it is about.
pub(super) fn undone_by(what: Happened) -> Option<(Step, Subject)> {
    match what {
        Happened::RateFreed(route) => Some((Step::LimitRate, Subject::Route(route))),
        Happened::SourceFreed(route) => Some((Step::BlockSource, Subject::Route(route))),
        Happened::PortFreed(r) => Some((Step::BlockSource, Subject::Replica(r))),
        Happened::UplinkReleased(node) => Some((Step::SwitchUplink, Subject::Node(node))),
        _ => None,
    }
}
