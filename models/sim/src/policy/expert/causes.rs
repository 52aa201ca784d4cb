//! Causes: what can be wrong, by what gives it away, and what mends it.
//!
//! In the order of urgency: what keeps others from being mended comes first, restarts late,
//! and what only eases comes last.

use super::case::{Case, Repair};
use super::{Production, Rule, machines, services};
use crate::policy::{Kind as K, Whom as W};
use crate::topology::{NodeNo, ReplicaNo, RouteNo};

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
        machines::uplink,
    ),
    cause("clock", "a clock is off: set it", machines::clock),
    cause(
        "node-off",
        "a node says nothing and its uplink is well: boot it",
        machines::node_off,
    ),
    cause(
        "frozen",
        "a node says the same again and again, or everything late: boot it",
        machines::frozen,
    ),
    cause(
        "push",
        "a roll-out keeps putting what it carries: pause it",
        machines::push,
    ),
    cause(
        "other-healer",
        "another automation stops what runs: pause it",
        machines::other_healer,
    ),
    cause(
        "stranger-cpu",
        "a stranger burns processors: end it",
        machines::stranger_cpu,
    ),
    cause(
        "stranger-memory",
        "a stranger holds memory: end it",
        machines::stranger_memory,
    ),
    cause(
        "duplicate",
        "messages come twice: keep the stranger out",
        machines::duplicate,
    ),
    cause(
        "rubbish",
        "inputs are out of range: keep the stranger out",
        machines::rubbish,
    ),
    cause(
        "read-only",
        "a file system is read-only: mount it for writing",
        machines::read_only,
    ),
    cause(
        "disk-full",
        "a disk is full or will be: delete old data",
        machines::disk_full,
    ),
    cause(
        "inodes",
        "inodes run out: delete old data",
        machines::inodes,
    ),
    cause(
        "credential",
        "a credential expired: a new one, and fresh connections",
        services::credential,
    ),
    cause(
        "leaderless",
        "nobody leads: fail over",
        services::leaderless,
    ),
    cause(
        "lock",
        "processes wait for a lock: end the holder, clear it, start all anew",
        services::lock,
    ),
    cause(
        "config-lethal",
        "a process ends as it reads its configuration: the one before",
        services::config_lethal,
    ),
    cause(
        "config-wrong",
        "a configuration makes answers wrong: the one before",
        services::config_wrong,
    ),
    cause("crash", "a process is gone: start it", services::crash),
    cause(
        "hang",
        "a process answers nothing: start it anew",
        services::hang,
    ),
    cause(
        "store",
        "what is stored is damaged: the copy",
        services::store,
    ),
    cause(
        "model-slot",
        "one model is worse than its siblings: the one before",
        services::model_slot,
    ),
    cause(
        "model-all",
        "all models are worse, inputs are as ever: the one before",
        services::model_all,
    ),
    cause(
        "drift",
        "inputs moved away from what was learned: train again",
        services::drift,
    ),
    cause(
        "cache",
        "cached answers are wrong: forget them",
        services::cache,
    ),
    cause(
        "descriptors",
        "descriptors grow: a fresh process",
        services::descriptors,
    ),
    cause(
        "threads",
        "threads grow: a fresh process",
        services::threads,
    ),
    cause("leak", "memory grows: a fresh process", services::leak),
    cause(
        "binary",
        "all of a service are slower: the program before",
        services::binary,
    ),
    cause(
        "spin",
        "a process burns processors: a fresh one",
        services::spin,
    ),
    cause(
        "slow-replica",
        "one is slower than its siblings: a fresh process",
        services::slow_replica,
    ),
    cause(
        "slow-service",
        "all of a service are slower, with no more to do: fresh processes",
        services::slow_service,
    ),
    cause(
        "slow-disk",
        "a disk takes too long: boot the node",
        services::slow_disk,
    ),
    cause(
        "quota",
        "somebody else grants less: ask for less",
        services::quota,
    ),
    cause(
        "hot",
        "a node is too hot or has too little power: less work there",
        services::hot,
    ),
    cause(
        "storm",
        "retries keep all saturated: admit less for a while",
        services::storm,
    ),
    cause(
        "short",
        "too much work: standbys, then less of it",
        services::short,
    ),
];

pub(super) fn on_replicas(
    case: &Case<'_>,
    into: &mut Vec<Repair>,
    is: impl Fn(ReplicaNo) -> bool,
    kind: K,
) {
    let found = case.replicas().filter(|no| is(*no));
    into.extend(found.map(|no| Repair::new(W::Replica(no), [(kind, W::Replica(no))])));
}

pub(super) fn on_nodes(
    case: &Case<'_>,
    into: &mut Vec<Repair>,
    is: impl Fn(NodeNo) -> bool,
    kind: K,
) {
    let found = case.nodes().filter(|no| is(*no));
    into.extend(found.map(|no| Repair::new(W::Node(no), [(kind, W::Node(no))])));
}

pub(super) fn on_routes(
    case: &Case<'_>,
    into: &mut Vec<Repair>,
    is: impl Fn(RouteNo) -> bool,
    kind: K,
) {
    let found = case.routes().filter(|(no, _)| is(*no));
    into.extend(found.map(|(no, _)| Repair::new(W::Route(no), [(kind, W::Route(no))])));
}
