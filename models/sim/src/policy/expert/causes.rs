//! Causes: what can be wrong, by what gives it away, and what mends it.
//!
//! In the order of urgency: what keeps others from being mended comes first, restarts late,
//! and what only eases comes last.

use super::case::{Case, Repair};
use super::{Production, Rule};
use crate::observe::Template as T;
use crate::policy::{Kind as K, Whom as W};
use crate::topology::{NodeNo, Offer, ReplicaNo, RouteNo};

const fn cause(
    name: &'static str,
    about: &'static str,
    find: fn(&Case<'_>, &mut Vec<Repair>),
) -> Production {
    Production {
        name,
        about,
        rule: Rule::Cause(find),
    }
}

pub(super) const ALL: [Production; 37] = [
    cause(
        "uplink",
        "an uplink is down, lossy, slow or flapping: the other one",
        uplink,
    ),
    cause("clock", "a clock is off: set it", clock),
    cause(
        "node-off",
        "a node says nothing and its uplink is well: boot it",
        node_off,
    ),
    cause(
        "frozen",
        "a node says the same again and again: boot it",
        frozen,
    ),
    cause(
        "push",
        "a roll-out keeps putting what it carries: pause it",
        push,
    ),
    cause(
        "other-healer",
        "another automation stops what runs: pause it",
        other_healer,
    ),
    cause(
        "stranger-cpu",
        "a stranger burns processors: end it",
        stranger_cpu,
    ),
    cause(
        "stranger-memory",
        "a stranger holds memory: end it",
        stranger_memory,
    ),
    cause(
        "duplicate",
        "messages come twice: keep the stranger out",
        duplicate,
    ),
    cause(
        "rubbish",
        "inputs are out of range: keep the stranger out",
        rubbish,
    ),
    cause(
        "read-only",
        "a file system is read-only: mount it for writing",
        read_only,
    ),
    cause(
        "disk-full",
        "a disk is full or will be: delete old data",
        disk_full,
    ),
    cause("inodes", "inodes run out: delete old data", inodes),
    cause(
        "credential",
        "a credential expired: a new one, and fresh connections",
        credential,
    ),
    cause("leaderless", "nobody leads: fail over", leaderless),
    cause(
        "lock",
        "processes wait for a lock: end the holder, clear it, start all anew",
        lock,
    ),
    cause(
        "config-lethal",
        "a process ends as it reads its configuration: the one before",
        config_lethal,
    ),
    cause(
        "config-wrong",
        "a configuration makes answers wrong: the one before",
        config_wrong,
    ),
    cause("crash", "a process is gone: start it", crash),
    cause("hang", "a process answers nothing: start it anew", hang),
    cause("store", "what is stored is damaged: the copy", store),
    cause(
        "model-slot",
        "one model is worse than its siblings: the one before",
        model_slot,
    ),
    cause(
        "model-all",
        "all models are worse, inputs are as ever: the one before",
        model_all,
    ),
    cause(
        "drift",
        "inputs moved away from what was learned: train again",
        drift,
    ),
    cause("cache", "cached answers are wrong: forget them", cache),
    cause(
        "descriptors",
        "descriptors grow: a fresh process",
        descriptors,
    ),
    cause("threads", "threads grow: a fresh process", threads),
    cause("leak", "memory grows: a fresh process", leak),
    cause(
        "binary",
        "all of a service are slower: the program before",
        binary,
    ),
    cause("spin", "a process burns processors: a fresh one", spin),
    cause(
        "slow-replica",
        "one is slower than its siblings: a fresh process",
        slow_replica,
    ),
    cause(
        "slow-service",
        "all of a service are slower, with no more to do: fresh processes",
        slow_service,
    ),
    cause(
        "slow-disk",
        "a disk takes too long: boot the node",
        slow_disk,
    ),
    cause("quota", "somebody else grants less: ask for less", quota),
    cause(
        "hot",
        "a node is too hot or has too little power: less work there",
        hot,
    ),
    cause(
        "storm",
        "retries keep all saturated: admit less for a while",
        storm,
    ),
    cause("short", "too much work: standbys, then less of it", short),
];

fn on_replicas(case: &Case<'_>, into: &mut Vec<Repair>, is: impl Fn(ReplicaNo) -> bool, kind: K) {
    let found = case.replicas().filter(|no| is(*no));
    into.extend(found.map(|no| Repair::new(W::Replica(no), [(kind, W::Replica(no))])));
}

fn on_nodes(case: &Case<'_>, into: &mut Vec<Repair>, is: impl Fn(NodeNo) -> bool, kind: K) {
    let found = case.nodes().filter(|no| is(*no));
    into.extend(found.map(|no| Repair::new(W::Node(no), [(kind, W::Node(no))])));
}

fn on_routes(case: &Case<'_>, into: &mut Vec<Repair>, is: impl Fn(RouteNo) -> bool, kind: K) {
    let found = case.routes().filter(|(no, _)| is(*no));
    into.extend(found.map(|(no, _)| Repair::new(W::Route(no), [(kind, W::Route(no))])));
}

fn uplink(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_nodes(case, into, |no| case.bad_uplink(no), K::SwitchUplink);
}

fn clock(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_nodes(case, into, |no| case.skewed(no), K::SyncClock);
}

fn node_off(case: &Case<'_>, into: &mut Vec<Repair>) {
    let off =
        |no: NodeNo| case.node(no).silent > 2 && case.signs.link(case.usual_uplink(no)).down == 0;
    on_nodes(case, into, off, K::Reboot);
}

fn frozen(case: &Case<'_>, into: &mut Vec<Repair>) {
    let lies = |no: NodeNo| case.node(no).frozen > 2 && case.suffers();
    on_nodes(case, into, lies, K::Reboot);
}

fn push(case: &Case<'_>, into: &mut Vec<Repair>) {
    if case.somebody_says(T::ArtefactApplied) {
        into.push(Repair::new(W::All, [(K::PauseRollout, W::All)]));
    }
}

fn other_healer(case: &Case<'_>, into: &mut Vec<Repair>) {
    if case.somebody_says(T::OtherActor) {
        into.push(Repair::new(W::All, [(K::PauseRollout, W::All)]));
    }
}

fn burns(case: &Case<'_>, no: ReplicaNo) -> bool {
    let sign = case.replica(no);
    // However much it has to do, its work takes no more than this.
    let work = case.topology.routes()[case.route_of(no).at()].cores;
    let more = sign.cores.or(0.0) - sign.cores.usual().unwrap_or(f64::INFINITY);
    more > 0.5 && sign.cores.or(0.0) > 1.1 * work + 0.4
}

fn stranger_cpu(case: &Case<'_>, into: &mut Vec<Repair>) {
    let stranger = |no: NodeNo| {
        let sign = case.node(no);
        let more = sign.busy.or(0.0) - sign.busy.usual().unwrap_or(1.0);
        let own = case.on(no).any(|replica| burns(case, replica));
        !own && (more > 0.25 || sign.waits_cpu.or(0.0) > 0.2) && case.node_says(no, T::StrangerBusy)
    };
    on_nodes(case, into, stranger, K::KillStranger);
}

fn stranger_memory(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn duplicate(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_routes(
        case,
        into,
        |no| case.route_says(no, T::DuplicateKey),
        K::BlockSource,
    );
}

fn rubbish(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn read_only(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn disk_full(case: &Case<'_>, into: &mut Vec<Repair>) {
    let full = |no: &NodeNo| {
        let sign = case.node(*no);
        let fills = sign.disk_free.trend() < -2e6 && case.node_says(*no, T::NearlyFull);
        sign.disk_free.above() < -0.85 || fills
    };
    into.extend(case.nodes().filter(full).filter_map(|no| prunes(case, no)));
}

fn inodes(case: &Case<'_>, into: &mut Vec<Repair>) {
    let out = |no: &NodeNo| {
        let sign = case.node(*no);
        sign.inodes_free.above() < -0.6 || sign.inodes_free.trend() < -400.0
    };
    into.extend(case.nodes().filter(out).filter_map(|no| prunes(case, no)));
}

/// Routes of which a replica cannot be let in; a wrong clock refuses, too, but nothing has
/// expired then.
pub(super) fn expired(case: &Case<'_>, no: RouteNo) -> bool {
    case.route_says(no, T::AuthExpired)
}

fn credential(case: &Case<'_>, into: &mut Vec<Repair>) {
    let expired = case.routes().filter(|(no, _)| expired(case, *no));
    into.extend(expired.map(|(no, _)| {
        let steps = [(K::RotateCredential, W::Route(no))]
            .into_iter()
            .chain(case.reconnect(no));
        Repair::new(W::Route(no), steps)
    }));
}

fn leaderless(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn lock(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn config_lethal(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn config_wrong(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn crash(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_replicas(case, into, |no| case.down(no), K::Restart);
}

fn hang(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_replicas(case, into, |no| case.mute(no), K::Restart);
}

fn store(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn model_slot(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn model_all(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn drift(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn cache(case: &Case<'_>, into: &mut Vec<Repair>) {
    let is = |no: ReplicaNo| case.says(no, T::CacheMismatch) && case.offers(no, Offer::FlushCache);
    on_replicas(case, into, is, K::FlushCache);
}

fn descriptors(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn threads(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn leak(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn binary(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn spin(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_replicas(
        case,
        into,
        |no| case.runs(no) && burns(case, no),
        K::Restart,
    );
}

fn slow_replica(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn slow_service(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn slow_disk(case: &Case<'_>, into: &mut Vec<Repair>) {
    let slow = |no: NodeNo| case.node(no).waits_disk.or(0.0) > 0.25;
    on_nodes(case, into, slow, K::Reboot);
}

fn quota(case: &Case<'_>, into: &mut Vec<Repair>) {
    on_routes(
        case,
        into,
        |no| case.route_says(no, T::QuotaReached),
        K::LimitRate,
    );
}

fn hot(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn storm(case: &Case<'_>, into: &mut Vec<Repair>) {
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

fn short(case: &Case<'_>, into: &mut Vec<Repair>) {
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
