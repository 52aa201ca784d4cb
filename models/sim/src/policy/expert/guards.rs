//! Guards: how a repair goes wrong, by what gives it away, and what to do first or instead.
//!
//! Each is about one kind of trap and knows nothing of incidents.

use super::case::{Case, Repair};
use super::order::{self, notes};
use super::services::regressed;
use super::{Production, Rule};
use crate::observe::Template as T;
use crate::policy::{Kind as K, Whom as W};
use crate::topology::{NodeNo, Offer, ReplicaNo, RouteNo};

const fn guard(
    name: &'static str,
    about: &'static str,
    change: fn(&Case<'_>, &mut Repair),
) -> Production {
    Production {
        name,
        about,
        rule: Rule::Guard(change),
    }
}

pub(super) const ALL: [Production; 27] = [
    guard(
        "pause-first",
        "a roll-out puts back what is rolled back: pause it first",
        pause_first,
    ),
    guard(
        "fix-under-way",
        "a roll-out brings the missing half: do not pause it",
        fix_under_way,
    ),
    guard(
        "config-before-binary",
        "the program before cannot read the new configuration",
        config_before_binary,
    ),
    guard(
        "binary-before-pause",
        "another healer keeps a leak small: program first",
        binary_before_pause,
    ),
    guard(
        "program-first",
        "a fresh process of a bad program is no better: the program before first",
        program_first,
    ),
    guard(
        "config-before-pause",
        "another healer keeps a wrong configuration bearable: the one before first",
        config_before_pause,
    ),
    guard(
        "clock-before-pause",
        "a healer acts by a wrong clock: set it first",
        clock_before_pause,
    ),
    guard(
        "room-first",
        "nothing can be written: delete first",
        room_first,
    ),
    guard(
        "last-copy",
        "what could be deleted is the last copy: put it back first",
        last_copy,
    ),
    guard(
        "writable-first",
        "nothing can be changed on a read-only disk",
        writable_first,
    ),
    guard(
        "apart-before-mount",
        "a torn journal: no requests while it is mounted",
        apart_before_mount,
    ),
    guard(
        "copy-first",
        "what is in memory is on no disk: copy first",
        copy_first,
    ),
    guard(
        "no-room-to-copy",
        "a copy would fill the disk: none",
        no_room_to_copy,
    ),
    guard(
        "let-it-replay",
        "the holder replays its journal and will let go: wait",
        let_it_replay,
    ),
    guard(
        "clock-first",
        "a wrong clock refuses what is new: set it first",
        order::clock_first,
    ),
    guard(
        "clock-last",
        "what there is would be of the future: what is new first",
        order::clock_last,
    ),
    guard(
        "link-first",
        "a bad link loses tries: the other one first",
        order::link_first,
    ),
    guard(
        "link-last",
        "the other link takes only what is new: that first",
        order::link_last,
    ),
    guard(
        "leader-and-new",
        "a leader and what is new: which of the two the other needs",
        order::leader_and_new,
    ),
    guard(
        "leader-before-link",
        "two who cannot hear each other would both lead: leader before the link",
        order::leader_before_link,
    ),
    guard(
        "pause-before-training",
        "a roll-out would bring what was learned wrongly: pause it before training",
        order::pause_before_training,
    ),
    guard(
        "let-it-catch-up",
        "a replica lags behind: wait before it leads",
        order::let_it_catch_up,
    ),
    guard(
        "leader-before-start",
        "a broker that starts alone believes it leads: leader first",
        order::leader_before_start,
    ),
    guard(
        "reserve",
        "a neighbour has no reserve: more capacity before load moves",
        reserve,
    ),
    guard(
        "stale-standby",
        "a standby would do damage: without it",
        stale_standby,
    ),
    guard(
        "state-first",
        "a standby without the state is none: copy first",
        state_first,
    ),
    guard(
        "no-flush",
        "what would fill a cache again fails: a fresh process instead",
        no_flush,
    ),
];

const ROLLBACKS: [K; 3] = [K::RollbackConfig, K::RollbackModel, K::RollbackBinary];

/// Nodes that a repair's steps about replicas are on.
fn nodes(case: &Case<'_>, repair: &Repair) -> Vec<NodeNo> {
    let of = |whom: &W| match *whom {
        W::Replica(no) => Some(case.node_of(no)),
        W::Node(no) => Some(no),
        W::Route(_) | W::All => None,
    };
    repair
        .steps
        .iter()
        .filter_map(|(_, whom)| of(whom))
        .collect()
}

fn prunable(case: &Case<'_>, node: NodeNo) -> Option<ReplicaNo> {
    let can = |no: &ReplicaNo| case.offers(*no, Offer::Prune);
    let tells = |no: &ReplicaNo| case.says(*no, T::NoSpace) || case.says(*no, T::NearlyFull);
    case.on(node)
        .filter(can)
        .find(tells)
        .or_else(|| case.on(node).find(can))
}

fn pause_first(case: &Case<'_>, repair: &mut Repair) {
    if case.somebody_says(T::ArtefactApplied) && !case.did(K::PauseRollout, W::All, 300.0) {
        let kinds = [ROLLBACKS.as_slice(), &[K::Restart, K::RestoreSnapshot]].concat();
        if repair.first(&ROLLBACKS).is_some() {
            repair.before(&kinds, (K::PauseRollout, W::All));
        }
    }
    if case.somebody_says(T::OtherActor) && !case.did(K::PauseRollout, W::All, 300.0) {
        repair.before(&[K::Restart], (K::PauseRollout, W::All));
    }
}

fn fix_under_way(case: &Case<'_>, repair: &mut Repair) {
    let pushed = case.somebody_says(T::ArtefactApplied) || case.somebody_says(T::OtherActor);
    if case.somebody_says(T::FixPending) && !pushed {
        repair.drop(&[K::PauseRollout]);
    }
}

fn config_before_binary(case: &Case<'_>, repair: &mut Repair) {
    if !case.somebody_says(T::FixPending) {
        return;
    }
    let Some(at) = repair.first(&[K::RollbackBinary]) else {
        return;
    };
    if let W::Route(route) = repair.steps[at].1 {
        // What was stored since is unknown to the configuration before.
        if case.backends(route).any(|no| notes(case, no)) {
            return;
        }
        let told = case
            .backends(route)
            .filter(|no| case.says(*no, T::FixPending));
        let first = told.chain(case.backends(route)).next();
        if let Some(no) = first {
            repair.before(&[K::RollbackBinary], (K::RollbackConfig, W::Replica(no)));
        }
    }
}

fn binary_before_pause(case: &Case<'_>, repair: &mut Repair) {
    if !(repair.has(K::PauseRollout) && case.somebody_says(T::OtherActor)) {
        return;
    }
    let of = |(no, _): &(RouteNo, _)| {
        case.route_says(*no, T::FixPending) && !case.route_says(*no, T::ConfigParse)
    };
    if let Some((no, _)) = case.routes().find(of) {
        repair.before(&[K::PauseRollout], (K::RollbackBinary, W::Route(no)));
    }
}

fn program_first(case: &Case<'_>, repair: &mut Repair) {
    let Some(at) = repair.first(&[K::Restart]) else {
        return;
    };
    if let W::Replica(no) = repair.steps[at].1 {
        let route = case.route_of(no);
        let done = case.did(K::RollbackBinary, W::Route(route), 300.0);
        if regressed(case, route) && !done {
            repair.before(&[K::Restart], (K::RollbackBinary, W::Route(route)));
        }
    }
}

fn config_before_pause(case: &Case<'_>, repair: &mut Repair) {
    if !(repair.has(K::PauseRollout) && case.somebody_says(T::OtherActor)) {
        return;
    }
    let kept = |(no, _): &(RouteNo, _)| {
        case.route_says(*no, T::FixPending) && case.route_says(*no, T::ConfigParse)
    };
    for (no, _) in case.routes().filter(kept) {
        let wrong = case
            .backends(no)
            .find(|one| case.says(*one, T::ConfigParse));
        let step = wrong.map(|one| (K::RollbackConfig, W::Replica(one)));
        if let Some(step) = step.filter(|step| !case.did(step.0, step.1, 300.0)) {
            repair.before(&[K::PauseRollout], step);
        }
    }
}

fn clock_before_pause(case: &Case<'_>, repair: &mut Repair) {
    if case.somebody_says(T::OtherActor)
        && let Some(node) = case.nodes().find(|no| case.skewed(*no))
    {
        repair.before(&[K::PauseRollout], (K::SyncClock, W::Node(node)));
    }
}

/// Whether a disk speaks of a copy among what could be deleted more than of what is full.
fn warns(case: &Case<'_>, node: NodeNo) -> bool {
    let lines = |template| case.signs.lines_node(case.topology, node, template);
    lines(T::LastCopy) >= 3 || lines(T::NearlyFull) > 2 + lines(T::NoSpace) + lines(T::NoSpace) / 2
}

fn room_first(case: &Case<'_>, repair: &mut Repair) {
    for node in nodes(case, repair) {
        let kinds = [
            K::RollbackConfig,
            K::RollbackModel,
            K::Snapshot,
            K::ClearLocks,
            K::RestoreSnapshot,
        ];
        let told = case.node_says(node, T::NoSpace) || case.node_says(node, T::NearlyFull);
        let held = case.on(node).any(|no| {
            kinds
                .iter()
                .any(|kind| case.failed(*kind, W::Replica(no), 120.0))
        });
        let full = told && (held || !warns(case, node));
        if let (true, Some(no)) = (full, prunable(case, node)) {
            repair.before(&kinds, (K::PruneData, W::Replica(no)));
        }
    }
}

fn last_copy(case: &Case<'_>, repair: &mut Repair) {
    let Some(at) = repair.first(&[K::PruneData]) else {
        return;
    };
    let W::Replica(no) = repair.steps[at].1 else {
        return;
    };
    let node = case.node_of(no);
    if !warns(case, node) {
        return;
    }
    if case.offers(no, Offer::Snapshot) && !case.did(K::Snapshot, W::Replica(no), 300.0) {
        repair.before(&[K::PruneData], (K::Snapshot, W::Replica(no)));
    }
    // What else is wrong on the node says what the copy is of.
    for one in case.on(node) {
        let config = case.route_says(case.route_of(one), T::ConfigParse)
            && (case.down(one) || case.says(one, T::ConfigParse));
        let done = case.did(K::RollbackConfig, W::Replica(one), 300.0);
        if config && !done {
            repair.before(&[K::PruneData], (K::RollbackConfig, W::Replica(one)));
        }
        if case.topology.routes()[case.route_of(one).at()].model
            && case.signs.model_loss(one) > 0.045
        {
            for other in case.backends(case.route_of(one)) {
                if case.signs.there(other) {
                    repair.before(&[K::PruneData], (K::RollbackModel, W::Replica(other)));
                }
            }
        }
    }
}

fn writable_first(case: &Case<'_>, repair: &mut Repair) {
    let touched: Vec<ReplicaNo> = repair
        .steps
        .iter()
        .filter_map(|(_, whom)| match whom {
            W::Replica(no) => Some(*no),
            _ => None,
        })
        .collect();
    for no in touched {
        let kinds = [
            K::ClearLocks,
            K::RollbackConfig,
            K::RollbackModel,
            K::RestoreSnapshot,
            K::PruneData,
        ];
        let told = case
            .on(case.node_of(no))
            .find(|one| case.says(*one, T::ReadOnly) && case.offers(*one, Offer::Remount));
        if let Some(told) = told {
            repair.before(&kinds, (K::Remount, W::Replica(told)));
        }
    }
}

fn apart_before_mount(case: &Case<'_>, repair: &mut Repair) {
    if let Some(at) = repair.first(&[K::Remount])
        && let W::Replica(no) = repair.steps[at].1
        && case.says(no, T::Checksum)
    {
        repair.before(&[K::Remount], (K::Isolate, W::Replica(no)));
        repair.steps.push((K::Release, W::Replica(no)));
    }
}

fn copy_first(case: &Case<'_>, repair: &mut Repair) {
    let ends: Vec<ReplicaNo> = repair
        .steps
        .iter()
        .flat_map(|(kind, whom)| match (kind, whom) {
            (K::Restart | K::Freeze, W::Replica(no)) => vec![*no],
            (K::Reboot, W::Node(no)) => case.on(*no).collect(),
            _ => Vec::new(),
        })
        .collect();
    // What is lost may be the service's, whoever writes of it.
    let told = ends.iter().flat_map(|no| case.backends(case.route_of(*no)));
    let mut told: Vec<ReplicaNo> = told.filter(|no| case.says(*no, T::Unflushed)).collect();
    told.sort_unstable();
    told.dedup();
    for no in told {
        let copied = case.did(K::Snapshot, W::Replica(no), 300.0);
        if case.offers(no, Offer::Snapshot) && !copied {
            repair.before(
                &[K::Restart, K::Freeze, K::Reboot],
                (K::Snapshot, W::Replica(no)),
            );
        }
    }
}

fn no_room_to_copy(case: &Case<'_>, repair: &mut Repair) {
    if let Some(at) = repair.first(&[K::Snapshot])
        && let W::Replica(no) = repair.steps[at].1
        && case.says(no, T::NearlyFull)
        && !case.says(no, T::Unflushed)
    {
        repair.drop(&[K::Snapshot]);
    }
}

fn let_it_replay(case: &Case<'_>, repair: &mut Repair) {
    if let Some(at) = repair.first(&[K::ClearLocks])
        && let W::Replica(no) = repair.steps[at].1
        && case
            .signs
            .lines_route(case.topology, case.route_of(no), T::Replaying)
            >= 4
    {
        repair.steps = vec![(K::Wait, W::All)];
    }
}

fn reserve(case: &Case<'_>, repair: &mut Repair) {
    let fragile: Vec<ReplicaNo> = case
        .replicas()
        .filter(|no| case.says(*no, T::ReserveLow))
        .collect();
    let moves = [K::Restart, K::Isolate, K::FlushCache, K::Reroute, K::Reboot];
    if repair.first(&moves).is_none() {
        return;
    }
    for weak in fragile {
        let route = case.route_of(weak);
        if let Some(spare) = case.spare(route) {
            repair.before(&moves, (K::ScaleOut, W::Replica(spare)));
        } else if case.offers(weak, Offer::Degrade)
            && !case.did(K::Degrade, W::Replica(weak), 300.0)
        {
            repair.before(&moves, (K::Degrade, W::Replica(weak)));
        }
    }
}

fn stale_standby(case: &Case<'_>, repair: &mut Repair) {
    let stale = |no: ReplicaNo| case.route_says(case.route_of(no), T::StandbyStale);
    repair.steps.retain(|(kind, whom)| {
        !matches!((kind, whom), (K::ScaleOut | K::Prewarm, W::Replica(no)) if stale(*no))
    });
}

fn state_first(case: &Case<'_>, repair: &mut Repair) {
    let Some(at) = repair.first(&[K::ScaleOut]) else {
        return;
    };
    if let W::Replica(no) = repair.steps[at].1
        && case.topology.routes()[case.route_of(no).at()].stateful
    {
        let from = case
            .siblings(no)
            .find(|one| case.runs(*one) && case.offers(*one, Offer::Snapshot));
        match from {
            Some(from) => repair.before(&[K::ScaleOut], (K::Snapshot, W::Replica(from))),
            None => repair.drop(&[K::ScaleOut]),
        }
    }
}

fn no_flush(case: &Case<'_>, repair: &mut Repair) {
    for step in &mut repair.steps {
        if let (K::FlushCache, W::Replica(no)) = *step
            && case.says(no, T::UpstreamError)
        {
            step.0 = K::Restart;
        }
    }
    // Strangers who repeat without waiting make a limit worse; rubbish may be new inputs.
    if case.somebody_says(T::Backoff) {
        repair.drop(&[K::LimitRate, K::BlockSource, K::ResetPool]);
    }
}
