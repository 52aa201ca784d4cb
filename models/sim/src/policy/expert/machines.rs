//! Causes in machines, networks and what comes from outside: nodes, links, clocks, disks,
//! strangers, roll-outs.

use super::case::{Case, Repair};
use super::causes::{on_nodes, on_routes};
use crate::observe::Template as T;
use crate::policy::{Kind as K, Whom as W};
use crate::topology::{NodeNo, Offer, ReplicaNo, RouteNo};

/// Readings of a node that are older than this on average, in seconds, hide what it has.
const LATE_S: f64 = 15.0;

pub(super) fn uplink(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_nodes(case, into, |no| case.bad_uplink(no), K::SwitchUplink);
}

pub(super) fn clock(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_nodes(case, into, |no| case.skewed(no), K::SyncClock);
}

pub(super) fn node_off(case: &Case<'_>, into: &mut Vec<Repair>) {
    let off =
        |no: NodeNo| case.node(no).silent > 2 && case.signs.link(case.usual_uplink(no)).down == 0;
    on_nodes(case, into, off, K::Reboot);
}

pub(super) fn frozen(case: &Case<'_>, into: &mut Vec<Repair>) {
    let late = |no: NodeNo| case.node(no).age.or(0.0) > LATE_S && case.node_says(no, T::AgentLate);
    let lies = |no: NodeNo| (case.node(no).frozen > 2 || late(no)) && case.suffers();
    on_nodes(case, into, lies, K::Reboot);
}

pub(super) fn push(case: &Case<'_>, into: &mut Vec<Repair>) {
    if case.somebody_says(T::ArtefactApplied) {
        into.push(Repair::new(W::All, [(K::PauseRollout, W::All)]));
    }
}

pub(super) fn other_healer(case: &Case<'_>, into: &mut Vec<Repair>) {
    if case.somebody_says(T::OtherActor) {
        into.push(Repair::new(W::All, [(K::PauseRollout, W::All)]));
    }
}

pub(super) fn burns(case: &Case<'_>, no: ReplicaNo) -> bool {
    let sign = case.replica(no);
    // However much it has to do, its work takes no more than this.
    let work = case.topology.routes()[case.route_of(no).at()].cores;
    let more = sign.cores.or(0.0) - sign.cores.usual().unwrap_or(f64::INFINITY);
    more > 0.5 && sign.cores.or(0.0) > 1.1 * work + 0.4
}

pub(super) fn stranger_cpu(case: &Case<'_>, into: &mut Vec<Repair>) {
    let stranger = |no: NodeNo| {
        let sign = case.node(no);
        let more = sign.busy.or(0.0) - sign.busy.usual().unwrap_or(1.0);
        let own = case.on(no).any(|replica| burns(case, replica));
        !own && (more > 0.25 || sign.waits_cpu.or(0.0) > 0.2) && case.node_says(no, T::StrangerBusy)
    };
    on_nodes(case, into, stranger, K::KillStranger);
}

pub(super) fn stranger_memory(case: &Case<'_>, into: &mut Vec<Repair>) {
    const MB: f64 = 1_048_576.0;
    let stranger = |no: NodeNo| {
        let sign = case.node(no);
        let less = sign.memory_free.usual().unwrap_or(0.0) - sign.memory_free.or(f64::INFINITY);
        let known: f64 = case
            .on(no)
            .map(|replica| {
                let own = case.replica(replica);
                own.memory.or(0.0) - own.memory.usual().unwrap_or(0.0)
            })
            .sum();
        less - known > (350.0 * MB).max(0.12 * sign.memory_free.usual().unwrap_or(0.0))
    };
    on_nodes(case, into, stranger, K::KillStranger);
}

pub(super) fn duplicate(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_routes(
        case,
        into,
        |no| case.route_says(no, T::DuplicateKey),
        K::BlockSource,
    );
}

pub(super) fn rubbish(case: &Case<'_>, into: &mut Vec<Repair>) {
    let strange = case
        .replicas()
        .any(|no| case.replica(no).strange.or(0.0) > 0.08);
    let rubbish = |no: RouteNo| {
        strange
            && case.route_says(no, T::InputRange)
            && !case.did(K::BlockSource, W::Route(no), 120.0)
    };
    on_routes(case, into, rubbish, K::BlockSource);
}

pub(super) fn read_only(case: &Case<'_>, into: &mut Vec<Repair>) {
    let told = |node: &NodeNo| case.signs.lines_node(case.topology, *node, T::ReadOnly);
    let node = case.nodes().max_by_key(told).filter(|node| told(node) >= 4);
    if let Some(node) = node {
        // All on the node notice; the one whose it is writes most of it.
        let can = case
            .on(node)
            .filter(|no| case.says(*no, T::ReadOnly) && case.offers(*no, Offer::Remount));
        let most =
            can.max_by_key(|no| (case.signs.lines(*no, T::ReadOnly), std::cmp::Reverse(*no)));
        let again = most.filter(|no| case.did(K::Remount, W::Replica(*no), 300.0));
        let other = case.on(node).find(|no| {
            case.offers(*no, Offer::Remount) && !case.did(K::Remount, W::Replica(*no), 300.0)
        });
        let one = if again.is_some() {
            other.or(most)
        } else {
            most
        };
        into.extend(one.map(|no| Repair::new(W::Node(node), [(K::Remount, W::Replica(no))])));
    }
}

/// The one who writes of it, or else all who can delete there.
fn prunes(case: &Case<'_>, node: NodeNo) -> Option<Repair> {
    let told =
        |no: ReplicaNo| case.signs.lines(no, T::NoSpace) + case.signs.lines(no, T::NearlyFull);
    let mut who: Vec<ReplicaNo> = case
        .on(node)
        .filter(|no| case.offers(*no, Offer::Prune))
        .collect();
    // Whose data it are writes most of it.
    who.sort_by_key(|no| std::cmp::Reverse(told(*no)));
    let fresh = who
        .iter()
        .copied()
        .find(|no| !case.did(K::PruneData, W::Replica(*no), 300.0));
    let one = fresh.or(who.first().copied())?;
    Some(Repair::new(
        W::Node(node),
        [(K::PruneData, W::Replica(one))],
    ))
}

pub(super) fn disk_full(case: &Case<'_>, into: &mut Vec<Repair>) {
    let full = |no: &NodeNo| {
        let sign = case.node(*no);
        let fills = sign.disk_free.trend() < -2e6 && case.node_says(*no, T::NearlyFull);
        sign.disk_free.above() < -0.85 || fills
    };
    into.extend(case.nodes().filter(full).filter_map(|no| prunes(case, no)));
}

pub(super) fn inodes(case: &Case<'_>, into: &mut Vec<Repair>) {
    let out = |no: &NodeNo| {
        let sign = case.node(*no);
        sign.inodes_free.above() < -0.6 || sign.inodes_free.trend() < -400.0
    };
    into.extend(case.nodes().filter(out).filter_map(|no| prunes(case, no)));
}
