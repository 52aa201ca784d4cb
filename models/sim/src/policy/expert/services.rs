//! Causes in services: what their processes, models, caches and stores have, and what they
//! are asked.

use super::case::{Case, Repair};
use super::causes::{on_nodes, on_replicas, on_routes};
use super::machines::burns;
use crate::observe::Template as T;
use crate::policy::{Kind as K, Whom as W};
use crate::topology::{NodeNo, Offer, ReplicaNo, RouteNo};

/// Routes of which a replica cannot be let in; a wrong clock refuses, too, but nothing has
/// expired then.
pub(super) fn expired(case: &Case<'_>, no: RouteNo) -> bool {
    case.route_says(no, T::AuthExpired)
}

pub(super) fn credential(case: &Case<'_>, into: &mut Vec<Repair>) {
    let expired = case.routes().filter(|(no, _)| expired(case, *no));
    into.extend(expired.map(|(no, _)| {
        let steps = [(K::RotateCredential, W::Route(no))]
            .into_iter()
            .chain(case.reconnect(no));
        Repair::new(W::Route(no), steps)
    }));
}

pub(super) fn leaderless(case: &Case<'_>, into: &mut Vec<Repair>) {
    let stateful = |no: RouteNo| case.topology.routes()[no.at()].stateful;
    // Every process runs, all fail alike, and nothing else is said of why.
    const OTHERWISE: [T; 7] = [
        T::AuthExpired,
        T::Checksum,
        T::ReadOnly,
        T::NoSpace,
        T::ConfigParse,
        T::TooManyFiles,
        T::ThreadSpawn,
    ];
    let headless = |no: RouteNo| {
        let mut all = case.backends(no).filter(|one| !case.standby(*one));
        let explained = OTHERWISE
            .iter()
            .any(|template| case.route_says(no, *template))
            || case.backends(no).any(|one| case.skewed(case.node_of(one)));
        !explained && all.all(|one| case.runs(one) && case.replica(one).right.or(1.0) < 0.75)
    };
    let is = |no: RouteNo| stateful(no) && (case.route_says(no, T::LeaderUnknown) || headless(no));
    on_routes(case, into, is, K::FailoverBroker);
}

pub(super) fn lock(case: &Case<'_>, into: &mut Vec<Repair>) {
    for (no, _) in case.routes() {
        let waits: Vec<ReplicaNo> = case
            .backends(no)
            .filter(|replica| case.mute(*replica) && case.offers(*replica, Offer::Locks))
            .collect();
        let (Some(first), true) = (waits.first().copied(), case.route_says(no, T::LockWait)) else {
            continue;
        };
        // Whoever writes of it most holds it; the others caught it.
        let holder = waits
            .iter()
            .copied()
            .max_by_key(|one| case.signs.lines(*one, T::LockWait))
            .unwrap_or(first);
        let mut steps = Vec::new();
        // A fresh one waits for the lock as well, so its start fails; but the holder is gone.
        if !case.failed(K::Restart, W::Replica(holder), 120.0) {
            steps.push((K::Restart, W::Replica(holder)));
        }
        steps.push((K::ClearLocks, W::Replica(holder)));
        steps.push((K::Restart, W::Replica(holder)));
        // Others who write as much of it have one of their own.
        let most = case.signs.lines(holder, T::LockWait);
        let others = waits.iter().copied().filter(|one| *one != holder);
        for one in others.clone() {
            if 2 * case.signs.lines(one, T::LockWait) > most {
                steps.push((K::Restart, W::Replica(one)));
                steps.push((K::ClearLocks, W::Replica(one)));
            }
        }
        steps.extend(others.map(|one| (K::Restart, W::Replica(one))));
        into.push(Repair::new(W::Replica(holder), steps));
    }
}

pub(super) fn config_lethal(case: &Case<'_>, into: &mut Vec<Repair>) {
    for no in case.replicas() {
        let parse = case.route_says(case.route_of(no), T::ConfigParse);
        let short = case.route_says(case.route_of(no), T::ShortLived);
        if case.down(no) && (parse || short) {
            let one = W::Replica(no);
            into.push(Repair::new(
                one,
                [(K::RollbackConfig, one), (K::Restart, one)],
            ));
        }
    }
}

pub(super) fn config_wrong(case: &Case<'_>, into: &mut Vec<Repair>) {
    for no in case.replicas() {
        let wrong = case.replica(no).right.or(1.0) < 0.93;
        if case.runs(no) && wrong && case.says(no, T::ConfigParse) {
            let one = W::Replica(no);
            into.push(Repair::new(
                one,
                [(K::RollbackConfig, one), (K::Restart, one)],
            ));
        }
    }
}

pub(super) fn crash(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_replicas(case, into, |no| case.down(no), K::Restart);
}

pub(super) fn hang(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_replicas(case, into, |no| case.mute(no), K::Restart);
}

pub(super) fn store(case: &Case<'_>, into: &mut Vec<Repair>) {
    for no in case.replicas() {
        if case.says(no, T::Checksum) && case.replica(no).right.or(1.0) < 0.96 {
            let kind = if case.offers(no, Offer::Snapshot) {
                K::RestoreSnapshot
            } else {
                K::RestoreCheckpoint
            };
            into.push(Repair::new(W::Replica(no), [(kind, W::Replica(no))]));
        }
    }
}

/// Replicas whose model is doubtful, of a route.
fn doubtful(case: &Case<'_>, no: RouteNo) -> (Vec<ReplicaNo>, usize) {
    let live: Vec<ReplicaNo> = case
        .backends(no)
        .filter(|one| case.replica(*one).sure.usual().is_some() || case.signs.there(*one))
        .collect();
    let bad = live
        .iter()
        .copied()
        .filter(|one| case.signs.model_loss(*one) > 0.045)
        .collect();
    (bad, live.len())
}

fn strange(case: &Case<'_>, no: RouteNo) -> f64 {
    let live: Vec<f64> = case
        .backends(no)
        .filter_map(|one| {
            let sign = case.replica(one);
            sign.sure.usual().map(|_| sign.strange.or(0.0))
        })
        .collect();
    if live.is_empty() {
        0.0
    } else {
        live.iter().sum::<f64>() / live.len() as f64
    }
}

pub(super) fn model_slot(case: &Case<'_>, into: &mut Vec<Repair>) {
    for (no, route) in case.routes().filter(|(_, route)| route.model) {
        let (bad, of) = doubtful(case, no);
        let hash = route
            .replicas
            .iter()
            .copied()
            .filter(|one| case.says(*one, T::ModelHash));
        let mut these: Vec<ReplicaNo> = hash.collect();
        if these.is_empty() && bad.len() < of && strange(case, no) < 0.07 {
            these = bad;
        }
        into.extend(
            these
                .into_iter()
                .map(|one| Repair::new(W::Replica(one), [(K::RollbackModel, W::Replica(one))])),
        );
    }
}

pub(super) fn model_all(case: &Case<'_>, into: &mut Vec<Repair>) {
    for (no, _) in case.routes().filter(|(_, route)| route.model) {
        let (bad, of) = doubtful(case, no);
        if of > 1 && bad.len() == of && strange(case, no) < 0.07 {
            let steps = bad
                .into_iter()
                .map(|one| (K::RollbackModel, W::Replica(one)));
            into.push(Repair::new(W::Route(no), steps));
        }
    }
}

pub(super) fn drift(case: &Case<'_>, into: &mut Vec<Repair>) {
    for (no, _) in case.routes().filter(|(_, route)| route.model) {
        let trend: f64 = case
            .backends(no)
            .map(|one| case.replica(one).strange.trend())
            .sum();
        let live = case
            .backends(no)
            .filter(|one| case.signs.there(*one))
            .count()
            .max(1);
        let grows = trend / live as f64 > 0.0006;
        // Inputs that are strange all at once are rubbish; these were shut out, or never were.
        let unsure = case.route_says(no, T::LowConfidence);
        if strange(case, no) > 0.05 && (grows || unsure) {
            into.push(Repair::new(W::Route(no), [(K::Retrain, W::Route(no))]));
        }
    }
}

pub(super) fn cache(case: &Case<'_>, into: &mut Vec<Repair>) {
    let is = |no: ReplicaNo| case.says(no, T::CacheMismatch) && case.offers(no, Offer::FlushCache);
    on_replicas(case, into, is, K::FlushCache);
}

pub(super) fn descriptors(case: &Case<'_>, into: &mut Vec<Repair>) {
    let is = |no: ReplicaNo| {
        let sign = case.replica(no);
        sign.fds.or(0.0) > 900.0 || (sign.fds.or(0.0) > 120.0 && sign.fds.trend() > 1.0)
    };
    on_replicas(
        case,
        into,
        |no| case.runs(no) && is(no) || case.says(no, T::TooManyFiles),
        K::Restart,
    );
}

pub(super) fn threads(case: &Case<'_>, into: &mut Vec<Repair>) {
    let is = |no: ReplicaNo| {
        let sign = case.replica(no);
        sign.threads.or(0.0) > 450.0 || (sign.threads.or(0.0) > 50.0 && sign.threads.trend() > 0.5)
    };
    on_replicas(
        case,
        into,
        |no| case.runs(no) && is(no) || case.says(no, T::ThreadSpawn),
        K::Restart,
    );
}

pub(super) fn leak(case: &Case<'_>, into: &mut Vec<Repair>) {
    let is = |no: ReplicaNo| {
        let sign = case.replica(no);
        case.runs(no) && sign.memory.above() > 0.15 && sign.memory.trend() > 0.8e6
    };
    on_replicas(case, into, is, K::Restart);
}

/// How much slower than usual a replica is, taken alone.
fn slower(case: &Case<'_>, no: ReplicaNo) -> f64 {
    if case.runs(no) {
        case.replica(no).p95_ms.above()
    } else {
        0.0
    }
}

/// Whether a service is slower since its program was put in place.
pub(super) fn regressed(case: &Case<'_>, no: RouteNo) -> bool {
    case.backends(no).any(|one| {
        case.runs(one) && case.signs.lines(one, T::Started) >= 2 && slower(case, one) > 0.4
    })
}

pub(super) fn binary(case: &Case<'_>, into: &mut Vec<Repair>) {
    for (no, _) in case.routes() {
        // A program that was just put in place says so again and again.
        let told: Vec<ReplicaNo> = case
            .backends(no)
            .filter(|one| {
                case.runs(*one)
                    && case.signs.lines(*one, T::Started) >= 2
                    && slower(case, *one) > 0.4
            })
            .collect();
        let all = case.backends(no).filter(|one| case.runs(*one)).count();
        let fresh = match told.len() {
            0 => continue,
            few if few < all => told
                .iter()
                .map(|one| (K::Restart, W::Replica(*one)))
                .collect(),
            _ => case.fresh(no),
        };
        let steps = [(K::RollbackBinary, W::Route(no))].into_iter().chain(fresh);
        into.push(Repair::new(W::Route(no), steps));
    }
}

pub(super) fn spin(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_replicas(
        case,
        into,
        |no| case.runs(no) && burns(case, no),
        K::Restart,
    );
}

pub(super) fn slow_replica(case: &Case<'_>, into: &mut Vec<Repair>) {
    let is = |no: ReplicaNo| {
        let own = slower(case, no);
        let others = case
            .siblings(no)
            .filter(|one| case.runs(*one))
            .map(|one| slower(case, one));
        let others = others.fold(f64::INFINITY, f64::min);
        let busier = case.route(case.route_of(no)).arrival.above() > 0.3;
        own > 0.9 && own > 2.0 * others.max(0.1) && !busier
    };
    on_replicas(case, into, is, K::Restart);
}

pub(super) fn slow_service(case: &Case<'_>, into: &mut Vec<Repair>) {
    for (no, _) in case.routes() {
        let live: Vec<ReplicaNo> = case.backends(no).filter(|one| case.runs(*one)).collect();
        let busier = case.route(no).arrival.above() > 0.2;
        let excused = live.iter().any(|one| {
            let node = case.node(case.node_of(*one));
            node.waits_cpu.or(0.0) > 0.1
                || node.waits_disk.or(0.0) > 0.2
                || node.celsius.or(0.0) > 74.0
        });
        let slow = !live.is_empty() && live.iter().all(|one| slower(case, *one) > 1.0);
        if slow && !busier && !excused && !regressed(case, no) {
            into.push(Repair::new(W::Route(no), case.fresh(no)));
        }
    }
}

pub(super) fn slow_disk(case: &Case<'_>, into: &mut Vec<Repair>) {
    let slow = |no: NodeNo| case.node(no).waits_disk.or(0.0) > 0.25;
    on_nodes(case, into, slow, K::Reboot);
}

pub(super) fn quota(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_routes(
        case,
        into,
        |no| case.route_says(no, T::QuotaReached),
        K::LimitRate,
    );
}

pub(super) fn hot(case: &Case<'_>, into: &mut Vec<Repair>) {
    for node in case.nodes() {
        let sign = case.node(node);
        let weak = case.node_says(node, T::UnderVoltage);
        let hot = sign.celsius.or(0.0) > 74.0 && case.node_says(node, T::Throttled);
        if !(weak || hot) {
            continue;
        }
        // What can run elsewhere does; what is left does less.
        let mut steps = Vec::new();
        for no in case.on(node).filter(|no| !case.standby(*no)) {
            let route = case.route_of(no);
            if let Some(spare) = case
                .spare(route)
                .filter(|spare| case.node_of(*spare) != node)
            {
                steps.push((K::ScaleOut, W::Replica(spare)));
                steps.push((K::Isolate, W::Replica(no)));
            } else if case.offers(no, Offer::Degrade) {
                steps.push((K::Degrade, W::Replica(no)));
            }
        }
        into.push(Repair::new(W::Node(node), steps));
    }
}

pub(super) fn storm(case: &Case<'_>, into: &mut Vec<Repair>) {
    for (no, route) in case.routes().filter(|(_, route)| route.demand > 0.0) {
        let sign = case.route(no);
        // Requests that come again, long after what began it.
        let again = sign.arrival.or(0.0) > 1.5 * route.demand && sign.p95_ms.or(0.0) > 1200.0;
        if again {
            let one = W::Route(no);
            let steps = [
                (K::LimitRate, one),
                (K::Wait, W::All),
                (K::UnlimitRate, one),
            ];
            into.push(Repair::new(one, steps));
        }
    }
}

pub(super) fn short(case: &Case<'_>, into: &mut Vec<Repair>) {
    if !case.suffers() {
        return;
    }
    for (no, _) in case.routes() {
        let live: Vec<ReplicaNo> = case.backends(no).filter(|one| case.runs(*one)).collect();
        let queues = case.route(no).queue.or(0.0) > 20.0;
        let slow = !live.is_empty() && live.iter().all(|one| slower(case, *one) > 1.0);
        if !(queues || slow) {
            continue;
        }
        match case.spare(no) {
            Some(spare) => into.push(Repair::new(
                W::Route(no),
                [(K::ScaleOut, W::Replica(spare))],
            )),
            None => {
                let can = live.iter().filter(|one| case.offers(**one, Offer::Degrade));
                let steps = can.map(|one| (K::Degrade, W::Replica(*one)));
                into.push(Repair::new(W::Route(no), steps));
            }
        }
    }
}
