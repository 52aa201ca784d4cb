//! Guards about two things that are wrong: which of them the other needs.
//!
//! A clock, a link, a leader, and what is put in place anew: each may be what the other is
//! refused for, or what it must not lose before.

use super::case::{Case, Repair};
use super::services::{expired, regressed};
use crate::observe::Template as T;
use crate::policy::{Kind as K, Whom as W};
use crate::topology::{NodeNo, ReplicaNo, RouteNo};

fn wary(case: &Case<'_>) -> bool {
    case.somebody_says(T::AttemptsLeft)
}

/// Steps by which something new is put in place that others may refuse.
const NEW: [K; 2] = [K::RotateCredential, K::RollbackBinary];

/// Whether a replica notes more often than all day that what there is will not do for long.
pub(super) fn notes(case: &Case<'_>, no: ReplicaNo) -> bool {
    case.signs.lines(no, T::CertificateNotice) >= 4 || case.signs.lines(no, T::DeprecatedField) >= 7
}

fn noted(case: &Case<'_>, node: NodeNo) -> bool {
    case.on(node).any(|no| notes(case, no)) || case.signs.lines_all(T::CertificateNotice) >= 8
}

/// What is new, where something is.
fn renewals(case: &Case<'_>) -> Vec<(K, W)> {
    let of = |(no, _): (RouteNo, _)| {
        let whom = W::Route(no);
        if expired(case, no) {
            Some((K::RotateCredential, whom))
        } else if regressed(case, no) {
            Some((K::RollbackBinary, whom))
        } else {
            None
        }
    };
    let done = |step: &(K, W)| case.did(step.0, step.1, 300.0);
    let all = case.routes().filter_map(of);
    all.filter(|step| !done(step)).collect()
}

pub(super) fn clock_first(case: &Case<'_>, repair: &mut Repair) {
    for node in case
        .nodes()
        .filter(|no| case.skewed(*no) && !noted(case, *no))
    {
        repair.before(&NEW, (K::SyncClock, W::Node(node)));
    }
}

pub(super) fn clock_last(case: &Case<'_>, repair: &mut Repair) {
    let Some(at) = repair.first(&[K::SyncClock]) else {
        return;
    };
    if let W::Node(node) = repair.steps[at].1
        && wary(case)
        && noted(case, node)
    {
        renew_before(case, repair, K::SyncClock);
    }
}

/// What is new comes before a step; while none is known of, the step waits.
fn renew_before(case: &Case<'_>, repair: &mut Repair, kind: K) {
    let all = renewals(case);
    let renewed =
        |(no, _): (RouteNo, _)| NEW.iter().any(|kind| case.did(*kind, W::Route(no), 300.0));
    if all.is_empty() && !case.routes().any(renewed) {
        repair.drop(&[kind]);
    }
    for step in all {
        repair.before(&[kind], step);
    }
}

pub(super) fn link_first(case: &Case<'_>, repair: &mut Repair) {
    let bad = |no: &NodeNo| case.bad_uplink(*no) && !noted(case, *no);
    if wary(case) || repair.has(K::RollbackBinary) {
        for node in case.nodes().filter(bad) {
            repair.before(&NEW, (K::SwitchUplink, W::Node(node)));
        }
    }
}

pub(super) fn link_last(case: &Case<'_>, repair: &mut Repair) {
    let Some(at) = repair.first(&[K::SwitchUplink]) else {
        return;
    };
    if let W::Node(node) = repair.steps[at].1
        && noted(case, node)
    {
        renew_before(case, repair, K::SwitchUplink);
    }
}

pub(super) fn leader_and_new(case: &Case<'_>, repair: &mut Repair) {
    for (no, _) in case.routes() {
        let new = expired(case, no) || regressed(case, no);
        if !(new && case.route_says(no, T::LeaderUnknown)) {
            continue;
        }
        let route = W::Route(no);
        if case.route_says(no, T::ReplicaLag) {
            repair.before(&NEW, (K::FailoverBroker, route));
            continue;
        }
        for step in renewals(case) {
            repair.before(&[K::FailoverBroker], step);
        }
    }
}

pub(super) fn leader_before_link(case: &Case<'_>, repair: &mut Repair) {
    let Some(at) = repair.first(&[K::SwitchUplink]) else {
        return;
    };
    let W::Node(node) = repair.steps[at].1 else {
        return;
    };
    for (no, route) in case.routes().filter(|(_, route)| route.stateful) {
        let here = case.backends(no).any(|one| case.node_of(one) == node);
        // One who writes of it alone is the one who lost it.
        let all = route
            .replicas
            .iter()
            .filter(|one| case.says(**one, T::LeaderUnknown))
            .count()
            > 1;
        if here && all && !case.route_says(no, T::ReplicaLag) {
            repair.before(&[K::SwitchUplink], (K::FailoverBroker, W::Route(no)));
        }
    }
}

pub(super) fn pause_before_training(case: &Case<'_>, repair: &mut Repair) {
    if let Some(at) = repair.first(&[K::Retrain])
        && let W::Route(no) = repair.steps[at].1
        && case.route_says(no, T::InputRange)
        && !case.did(K::BlockSource, W::Route(no), 300.0)
        && !case.did(K::PauseRollout, W::All, 300.0)
        && !case.somebody_says(T::Backoff)
    {
        repair.before(&[K::Retrain], (K::PauseRollout, W::All));
    }
}

pub(super) fn let_it_catch_up(case: &Case<'_>, repair: &mut Repair) {
    let Some(at) = repair.first(&[K::FailoverBroker]) else {
        return;
    };
    if let W::Route(no) = repair.steps[at].1
        && case.signs.lines_route(case.topology, no, T::ReplicaLag) >= 2
        && !expired(case, no)
        && !regressed(case, no)
    {
        repair.steps = vec![(K::Wait, W::All)];
        if let Some(node) = case.nodes().find(|no| case.bad_uplink(*no)) {
            repair.steps.insert(0, (K::SwitchUplink, W::Node(node)));
        }
    }
}

pub(super) fn leader_before_start(case: &Case<'_>, repair: &mut Repair) {
    for (no, route) in case.routes().filter(|(_, route)| route.stateful) {
        if !case.route_says(no, T::LeaderUnknown) {
            continue;
        }
        let starts = |(kind, whom): &(K, W)| {
            *kind == K::Restart && matches!(whom, W::Replica(one) if route.replicas.contains(one))
        };
        if repair.steps.iter().any(starts) {
            repair.before(&[K::Restart], (K::FailoverBroker, W::Route(no)));
        }
        repair.before(&[K::BlockSource], (K::FailoverBroker, W::Route(no)));
    }
}
