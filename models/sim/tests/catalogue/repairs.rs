//! What ends each incident of the catalogue; for the tests alone, no policy reads it.

/// What can be done about an incident.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Repair {
    /// Orders that end it.
    Ends(&'static [&'static str]),
    /// It passes by itself; orders that make it shorter.
    Eases(&'static [&'static str]),
    /// Nothing ends it; orders that contain it.
    Contain(&'static [&'static str]),
}

impl Repair {
    pub(crate) fn orders(self) -> &'static [&'static str] {
        match self {
            Self::Ends(orders) | Self::Eases(orders) | Self::Contain(orders) => orders,
        }
    }
}

/// The repair of an incident, each order a plan of one node.
pub(crate) fn repair(name: &str) -> Option<Repair> {
    let found = REPAIRS.iter().find(|(own, _)| *own == name);
    found.map(|(_, repair)| *repair)
}

const REPAIRS: &[(&str, Repair)] = &[
    (
        "crash-infer",
        Repair::Ends(&[
            "edge-1: restart(infer-1, grace=0ms)",
            "edge-2: restart(infer-2, grace=0ms)",
        ]),
    ),
    (
        "crash-store",
        Repair::Ends(&[
            "edge-4: restart(store-1, grace=0ms)",
            "cloud-1: restart(store-2, grace=0ms)",
        ]),
    ),
    (
        "hang-postprocess",
        Repair::Ends(&["edge-2: restart(postprocess-1, grace=0ms)"]),
    ),
    (
        "crash-loop-config",
        Repair::Ends(&[
            "edge-1: rollback-config(preprocess-1, to=good) ; restart(preprocess-1, grace=0ms)",
            "edge-3: rollback-config(preprocess-2, to=good) ; restart(preprocess-2, grace=0ms)",
        ]),
    ),
    (
        "wrong-config",
        Repair::Ends(&[
            "edge-2: rollback-config(postprocess-1, to=good) ; restart(postprocess-1, grace=0ms)",
        ]),
    ),
    (
        "leak-memory-infer",
        Repair::Ends(&[
            "edge-1: restart(infer-1, grace=1s)",
            "edge-2: restart(infer-2, grace=1s)",
            "edge-3: restart(infer-3, grace=1s)",
        ]),
    ),
    (
        "leak-descriptors-gateway",
        Repair::Ends(&["edge-1: restart(gateway-1, grace=1s)"]),
    ),
    (
        "leak-threads-broker",
        Repair::Ends(&["edge-4: restart(broker-1, grace=1s)"]),
    ),
    (
        "hog-infer",
        Repair::Ends(&["edge-1: restart(infer-1, grace=0ms)"]),
    ),
    (
        "stranger-hog",
        Repair::Ends(&["edge-1: call-webhook(infer-1, to=kill-stranger)"]),
    ),
    (
        "stranger-memory",
        Repair::Ends(&[
            "edge-1: call-webhook(infer-1, to=kill-stranger) ; wait(4s) ; restart(infer-1, grace=0ms)",
            "edge-2: call-webhook(infer-2, to=kill-stranger) ; wait(4s) ; restart(infer-2, grace=0ms)",
        ]),
    ),
    (
        "disk-full-store",
        Repair::Ends(&["edge-4: prune-data(store-1, to=20%)"]),
    ),
    (
        "inodes-store",
        Repair::Ends(&["edge-4: prune-data(store-1, to=20%)"]),
    ),
    (
        "slow-disk",
        Repair::Ends(&["edge-4: call-webhook(store-1, to=reboot)"]),
    ),
    (
        "link-delay",
        Repair::Ends(&["edge-4: switch-uplink(store-1, to=lte0)"]),
    ),
    (
        "link-loss",
        Repair::Ends(&["edge-2: switch-uplink(infer-2, to=lte0)"]),
    ),
    (
        "link-down",
        Repair::Ends(&["edge-4: switch-uplink(store-1, to=lte0)"]),
    ),
    (
        "link-flap",
        Repair::Ends(&["edge-2: switch-uplink(infer-2, to=lte0)"]),
    ),
    (
        "fan",
        Repair::Contain(&["edge-1: limit-cpu(infer-1, to=50%)"]),
    ),
    (
        "under-voltage",
        Repair::Contain(&["edge-2: limit-cpu(infer-2, to=40%)"]),
    ),
    (
        "bad-model",
        Repair::Ends(&[
            "edge-1: rollback-model(infer-1, to=good)",
            "edge-2: rollback-model(infer-2, to=good)",
            "edge-3: rollback-model(infer-3, to=good)",
        ]),
    ),
    (
        "corrupt-model",
        Repair::Ends(&["edge-1: rollback-model(infer-1, to=good)"]),
    ),
    (
        "silent-drift",
        Repair::Ends(&["edge-1: call-webhook(infer-1, to=retrain)"]),
    ),
    (
        "corrupt-sensor",
        Repair::Ends(&["edge-1: block-source(infer, from=203.0.113.0/24)"]),
    ),
    ("clock-skew", Repair::Ends(&["edge-2: sync-clock(infer-2)"])),
    (
        "expired-credential",
        Repair::Ends(&[
            "edge-4: call-webhook(store-1, to=rotate-credential) ; wait(8s) ; restart(store-1, grace=0ms)",
            "cloud-1: restart(store-2, grace=0ms)",
        ]),
    ),
    (
        "leaderless-broker",
        Repair::Ends(&["edge-4: call-webhook(broker-1, to=failover-broker)"]),
    ),
    (
        "surge",
        Repair::Eases(&["edge-4: scale-out(infer, infer-4)"]),
    ),
    (
        "retry-storm",
        Repair::Eases(&[
            "edge-1: limit-rate(gateway, to=40/s) ; wait(60s) ; unlimit-rate(gateway)",
        ]),
    ),
    (
        "poisoned-cache",
        Repair::Ends(&["edge-3: flush-cache(cache-1)"]),
    ),
    (
        "slow-binary",
        Repair::Ends(&[
            "edge-2: call-webhook(postprocess-1, to=rollback-binary) ; wait(16s) ; restart(postprocess-1, grace=0ms)",
            "edge-4: restart(postprocess-2, grace=0ms)",
        ]),
    ),
    (
        "slow-replica",
        Repair::Ends(&["edge-2: restart(infer-2, grace=0ms)"]),
    ),
    (
        "read-only-store",
        Repair::Ends(&["edge-4: remount-writable(store-1)"]),
    ),
    ("site-failure", Repair::Contain(&[])),
    (
        "node-down",
        Repair::Ends(&[
            "edge-3: call-webhook(infer-3, to=reboot)",
            "edge-2: call-webhook(infer-2, to=reboot)",
        ]),
    ),
    (
        "zombie-consumer",
        Repair::Ends(&["edge-1: block-source(infer, from=203.0.113.0/24)"]),
    ),
    (
        "competing-healer",
        Repair::Ends(&["edge-1: call-webhook(infer-1, to=pause-rollout)"]),
    ),
    ("outside-api-down", Repair::Contain(&[])),
    ("outside-quota", Repair::Contain(&[])),
    (
        "deaf-agent",
        Repair::Ends(&["edge-1: call-webhook(infer-1, to=reboot)"]),
    ),
    (
        "frozen-telemetry",
        Repair::Ends(&["edge-2: call-webhook(infer-2, to=reboot)"]),
    ),
    (
        "two-roots",
        Repair::Ends(&[
            "edge-1: restart(preprocess-1, grace=0ms)",
            "edge-2: restart(infer-2, grace=0ms)",
        ]),
    ),
    (
        "hog-hides-slow",
        Repair::Ends(&[
            "edge-1: call-webhook(infer-1, to=kill-stranger) ; wait(4s) ; restart(infer-1, grace=0ms)",
        ]),
    ),
    (
        "deadlock",
        Repair::Ends(&["edge-1: restart(infer-1, grace=0ms) ; clear-locks(infer-1)"]),
    ),
    (
        "deadlock-replaying",
        Repair::Ends(&["edge-1: wait(45s) ; restart(infer-1, grace=0ms)"]),
    ),
    (
        "hung-store-unflushed",
        Repair::Ends(&["edge-4: snapshot(store-1) ; restart(store-1, grace=0ms)"]),
    ),
    (
        "hung-store-nearly-full",
        Repair::Ends(&["edge-4: restart(store-1, grace=0ms)"]),
    ),
    (
        "federated-poison",
        Repair::Ends(&[
            "edge-1: call-webhook(infer-1, to=pause-rollout) ; wait(4s) ; rollback-model(infer-1, to=good)",
            "edge-2: rollback-model(infer-2, to=good)",
            "edge-3: rollback-model(infer-3, to=good)",
        ]),
    ),
    (
        "federated-overlay",
        Repair::Ends(&[
            "edge-1: rollback-model(infer-1, to=good)",
            "edge-2: rollback-model(infer-2, to=good)",
            "edge-3: rollback-model(infer-3, to=good)",
        ]),
    ),
    (
        "config-push",
        Repair::Ends(&[
            "edge-1: call-webhook(preprocess-1, to=pause-rollout) ; wait(4s) ; rollback-config(preprocess-1, to=good) ; restart(preprocess-1, grace=0ms)",
            "edge-3: rollback-config(preprocess-2, to=good) ; restart(preprocess-2, grace=0ms)",
        ]),
    ),
    (
        "config-overlay",
        Repair::Ends(&[
            "edge-1: rollback-config(preprocess-1, to=good) ; restart(preprocess-1, grace=0ms)",
            "edge-3: rollback-config(preprocess-2, to=good) ; restart(preprocess-2, grace=0ms)",
        ]),
    ),
    (
        "slow-replica-fragile-peer",
        Repair::Ends(&[
            "edge-4: scale-out(infer, infer-4)",
            "edge-1: rollback-config(infer-1, to=good) ; restart(infer-1, grace=0ms)",
        ]),
    ),
    (
        "slow-replica-stale-standby",
        Repair::Ends(&["edge-1: restart(infer-1, grace=0ms)"]),
    ),
    (
        "leak-fragile-peer",
        Repair::Ends(&[
            "edge-1: limit-rate(gateway, to=45/s)",
            "edge-1: wait(4s) ; restart(preprocess-1, grace=0ms) ; wait(4s)",
            "edge-1: unlimit-rate(gateway)",
        ]),
    ),
    (
        "leak-no-backoff",
        Repair::Ends(&[
            "cloud-1: scale-out(preprocess, preprocess-3)",
            "edge-1: restart(preprocess-1, grace=0ms)",
        ]),
    ),
    (
        "credential-skew",
        Repair::Ends(&[
            "edge-4: sync-clock(store-1)",
            "edge-4: call-webhook(store-1, to=rotate-credential) ; wait(8s) ; restart(store-1, grace=0ms)",
            "cloud-1: restart(store-2, grace=0ms)",
        ]),
    ),
    (
        "credential-future",
        Repair::Ends(&[
            "edge-4: call-webhook(store-1, to=rotate-credential) ; wait(8s) ; restart(store-1, grace=0ms)",
            "cloud-1: restart(store-2, grace=0ms)",
            "edge-4: sync-clock(store-1)",
        ]),
    ),
    (
        "full-disk-holds-rollback",
        Repair::Ends(&[
            "edge-4: prune-data(store-1, to=20%) ; rollback-config(store-1, to=good) ; restart(store-1, grace=0ms)",
            "cloud-1: rollback-config(store-2, to=good) ; restart(store-2, grace=0ms)",
        ]),
    ),
    (
        "full-disk-last-copy",
        Repair::Ends(&[
            "edge-4: rollback-config(store-1, to=good) ; prune-data(store-1, to=20%) ; restart(store-1, grace=0ms)",
            "cloud-1: rollback-config(store-2, to=good) ; restart(store-2, grace=0ms)",
        ]),
    ),
    (
        "cold-cache",
        Repair::Ends(&[
            "edge-4: scale-out(infer, infer-4)",
            "edge-3: flush-cache(cache-1)",
        ]),
    ),
    (
        "cold-origin",
        Repair::Ends(&["edge-3: restart(cache-1, grace=0ms)"]),
    ),
    (
        "healer-and-config",
        Repair::Ends(&[
            "edge-2: call-webhook(postprocess-1, to=pause-rollout) ; wait(4s)",
            "edge-2: rollback-config(postprocess-1, to=good) ; restart(postprocess-1, grace=0ms)",
            "edge-4: rollback-config(postprocess-2, to=good) ; restart(postprocess-2, grace=0ms)",
        ]),
    ),
    (
        "healer-keeps-alive",
        Repair::Ends(&[
            "edge-2: rollback-config(postprocess-1, to=good) ; restart(postprocess-1, grace=0ms)",
            "edge-4: rollback-config(postprocess-2, to=good) ; restart(postprocess-2, grace=0ms)",
            "edge-2: call-webhook(postprocess-1, to=pause-rollout)",
        ]),
    ),
    (
        "retrain-on-rubbish",
        Repair::Ends(&[
            "edge-1: block-source(infer, from=203.0.113.0/24)",
            "edge-1: call-webhook(infer-1, to=retrain)",
        ]),
    ),
    (
        "retrain-starved",
        Repair::Ends(&["edge-1: call-webhook(infer-1, to=retrain)"]),
    ),
    (
        "leader-behind-link",
        Repair::Ends(&[
            "edge-4: switch-uplink(store-1, to=lte0)",
            "edge-4: call-webhook(broker-1, to=failover-broker)",
        ]),
    ),
    (
        "leader-split",
        Repair::Ends(&[
            "edge-4: call-webhook(broker-1, to=failover-broker) ; wait(12s)",
            "edge-4: switch-uplink(store-1, to=lte0)",
        ]),
    ),
    (
        "read-only-torn",
        Repair::Ends(&[
            "cloud-1: isolate(store, store-1, drain=1s)",
            "edge-4: remount-writable(store-1)",
            "cloud-1: release(store, store-1)",
        ]),
    ),
    (
        "read-only-last-writer",
        Repair::Ends(&["edge-4: remount-writable(store-1)"]),
    ),
    (
        "binary-and-config",
        Repair::Ends(&[
            "edge-2: rollback-config(postprocess-1, to=good) ; call-webhook(postprocess-1, to=rollback-binary) ; wait(16s) ; restart(postprocess-1, grace=0ms)",
        ]),
    ),
    (
        "zombie-damages-store",
        Repair::Ends(&[
            "edge-4: block-source(broker, from=203.0.113.0/24)",
            "edge-4: restore-snapshot(store-1)",
        ]),
    ),
    (
        "zombie-is-leader",
        Repair::Ends(&["edge-4: call-webhook(broker-1, to=failover-broker)"]),
    ),
    (
        "hot-node-moves-load",
        Repair::Contain(&["edge-1: limit-cpu(infer-1, to=50%)"]),
    ),
    (
        "crash-broker",
        Repair::Ends(&[
            "edge-4: restart(broker-1, grace=0ms)",
            "edge-2: restart(broker-2, grace=0ms)",
        ]),
    ),
    (
        "slow-gateway",
        Repair::Ends(&[
            "edge-1: restart(gateway-1, grace=0ms)",
            "edge-2: restart(gateway-2, grace=0ms)",
        ]),
    ),
    (
        "leak-descriptors-postprocess",
        Repair::Ends(&["edge-4: restart(postprocess-2, grace=0ms)"]),
    ),
    (
        "corrupt-store",
        Repair::Ends(&["edge-4: restore-snapshot(store-1)"]),
    ),
    (
        "hot-restart",
        Repair::Ends(&["edge-2: rollback-config(infer-2, to=good) ; restart(infer-2, grace=0ms)"]),
    ),
    (
        "stranger-both",
        Repair::Ends(&["edge-2: call-webhook(infer-2, to=kill-stranger)"]),
    ),
    (
        "late-telemetry",
        Repair::Ends(&[
            "edge-4: switch-uplink(store-1, to=lte0)",
            "edge-4: call-webhook(store-1, to=reboot)",
        ]),
    ),
    (
        "wrong-telemetry",
        Repair::Ends(&[
            "edge-2: restart(infer-2, grace=0ms)",
            "edge-1: call-webhook(infer-1, to=reboot)",
        ]),
    ),
    ("quota-surge", Repair::Contain(&[])),
    (
        "drift-and-poison",
        Repair::Ends(&[
            "edge-1: call-webhook(infer-1, to=pause-rollout) ; wait(4s) ; rollback-model(infer-1, to=good)",
            "edge-2: rollback-model(infer-2, to=good)",
            "edge-3: rollback-model(infer-3, to=good)",
            "edge-1: call-webhook(infer-1, to=retrain)",
        ]),
    ),
    (
        "cascading-death",
        Repair::Ends(&[
            "edge-1: restart(infer-1, grace=0ms)",
            "edge-2: restart(infer-2, grace=0ms)",
        ]),
    ),
    (
        "link-flap-skew",
        Repair::Ends(&["edge-1: switch-uplink(infer-1, to=lte0) ; sync-clock(infer-1)"]),
    ),
    (
        "deadlock-herd",
        Repair::Ends(&[
            "edge-1: limit-rate(infer, to=90/s)",
            "edge-2: restart(infer-2, grace=0ms) ; clear-locks(infer-2)",
            "edge-1: unlimit-rate(infer)",
        ]),
    ),
    (
        "deadlock-unflushed",
        Repair::Ends(&[
            "edge-4: snapshot(store-1) ; restart(store-1, grace=0ms) ; clear-locks(store-1)",
        ]),
    ),
    (
        "poison-and-full-disk",
        Repair::Ends(&[
            "edge-1: prune-data(infer-1, to=20%) ; call-webhook(infer-1, to=pause-rollout) ; wait(4s) ; rollback-model(infer-1, to=good)",
            "edge-2: rollback-model(infer-2, to=good)",
            "edge-3: rollback-model(infer-3, to=good)",
        ]),
    ),
    (
        "poison-last-copy",
        Repair::Ends(&[
            "edge-1: call-webhook(infer-1, to=pause-rollout) ; wait(4s) ; rollback-model(infer-1, to=good)",
            "edge-2: rollback-model(infer-2, to=good)",
            "edge-3: rollback-model(infer-3, to=good)",
            "edge-1: prune-data(infer-1, to=20%)",
        ]),
    ),
    (
        "skewed-healer",
        Repair::Ends(&["edge-1: sync-clock(infer-1) ; call-webhook(gateway-1, to=pause-rollout)"]),
    ),
    (
        "cache-and-unflushed",
        Repair::Ends(&[
            "edge-4: snapshot(store-1) ; restart(store-1, grace=0ms)",
            "edge-3: flush-cache(cache-1)",
        ]),
    ),
    (
        "credential-and-leader",
        Repair::Ends(&[
            "edge-4: call-webhook(broker-1, to=rotate-credential) ; wait(8s) ; call-webhook(broker-1, to=failover-broker) ; restart(broker-1, grace=0ms)",
            "edge-2: restart(broker-2, grace=0ms)",
        ]),
    ),
    (
        "leader-before-credential",
        Repair::Ends(&[
            "edge-4: call-webhook(broker-1, to=failover-broker) ; wait(10s) ; call-webhook(broker-1, to=rotate-credential) ; wait(8s) ; restart(broker-1, grace=0ms)",
            "edge-2: restart(broker-2, grace=0ms)",
        ]),
    ),
    (
        "binary-push",
        Repair::Ends(&[
            "edge-2: call-webhook(postprocess-1, to=pause-rollout) ; rollback-config(postprocess-1, to=good) ; call-webhook(postprocess-1, to=rollback-binary) ; wait(16s) ; restart(postprocess-1, grace=0ms)",
            "edge-4: restart(postprocess-2, grace=0ms)",
        ]),
    ),
    (
        "drift-behind-rubbish",
        Repair::Ends(&[
            "edge-1: block-source(infer, from=203.0.113.0/24)",
            "edge-1: call-webhook(infer-1, to=retrain)",
        ]),
    ),
    (
        "hot-node-hog",
        Repair::Contain(&["edge-2: call-webhook(infer-2, to=kill-stranger)"]),
    ),
    (
        "read-only-deadlock",
        Repair::Ends(&[
            "edge-1: remount-writable(infer-1) ; restart(infer-1, grace=0ms) ; clear-locks(infer-1) ; rollback-model(infer-1, to=good)",
            "edge-2: rollback-model(infer-2, to=good)",
            "edge-3: rollback-model(infer-3, to=good)",
        ]),
    ),
    (
        "slow-link-lockout",
        Repair::Ends(&[
            "edge-4: switch-uplink(store-1, to=lte0)",
            "edge-4: call-webhook(store-1, to=rotate-credential) ; wait(8s) ; restart(store-1, grace=0ms)",
            "cloud-1: restart(store-2, grace=0ms)",
        ]),
    ),
    ("site-cut-off", Repair::Contain(&[])),
    (
        "leak-descriptors-broker",
        Repair::Ends(&[
            "edge-4: restart(broker-1, grace=0ms)",
            "edge-2: restart(broker-2, grace=0ms)",
        ]),
    ),
    (
        "late-telemetry-hang",
        Repair::Ends(&["edge-1: call-webhook(infer-1, to=reboot)"]),
    ),
    (
        "wrong-telemetry-hang",
        Repair::Ends(&[
            "edge-3: restart(infer-3, grace=0ms)",
            "edge-2: call-webhook(infer-2, to=reboot)",
        ]),
    ),
    (
        "late-telemetry-model",
        Repair::Ends(&[
            "edge-2: rollback-model(infer-2, to=good)",
            "edge-2: call-webhook(infer-2, to=reboot)",
        ]),
    ),
    (
        "wrong-telemetry-spin",
        Repair::Ends(&["edge-1: call-webhook(infer-1, to=reboot)"]),
    ),
    (
        "quota-and-slow",
        Repair::Contain(&["edge-2: restart(postprocess-1, grace=0ms)"]),
    ),
    (
        "lock-on-full-disk",
        Repair::Ends(&[
            "edge-4: prune-data(store-1, to=20%) ; restart(store-1, grace=0ms) ; clear-locks(store-1)",
        ]),
    ),
    (
        "lock-unread",
        Repair::Ends(&[
            "edge-4: restart(store-1, grace=0ms) ; clear-locks(store-1) ; snapshot(store-1) ; prune-data(store-1, to=20%)",
        ]),
    ),
    (
        "lock-by-writer",
        Repair::Ends(&[
            "edge-4: remount-writable(store-1) ; restart(store-1, grace=0ms) ; clear-locks(store-1)",
        ]),
    ),
    (
        "binary-behind-surge",
        Repair::Ends(&[
            "edge-2: rollback-config(postprocess-1, to=good) ; call-webhook(postprocess-1, to=rollback-binary) ; wait(16s) ; restart(postprocess-1, grace=0ms)",
            "edge-4: restart(postprocess-2, grace=0ms)",
        ]),
    ),
    (
        "drift-and-retrained-wrong",
        Repair::Ends(&[
            "edge-3: flush-cache(cache-1)",
            "edge-1: call-webhook(infer-1, to=pause-rollout) ; wait(4s) ; call-webhook(infer-1, to=retrain)",
        ]),
    ),
    (
        "pool-behind-credential",
        Repair::Ends(&[
            "edge-1: call-webhook(gateway-1, to=rotate-credential) ; wait(8s) ; reset-pool(gateway-1)",
            "edge-2: reset-pool(gateway-2)",
        ]),
    ),
    (
        "deadlock-no-backoff",
        Repair::Ends(&["edge-2: restart(infer-2, grace=0ms) ; clear-locks(infer-2)"]),
    ),
    (
        "surge-no-backoff",
        Repair::Eases(&[
            "edge-4: scale-out(infer, infer-4)",
            "cloud-1: scale-out(infer, infer-5)",
        ]),
    ),
];
