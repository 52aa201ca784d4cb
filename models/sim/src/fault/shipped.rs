//! The incidents that come with the simulator: a set to train on, and an open one to
//! develop against.
//!
//! What is measured on sealed files of the same grammar goes through
//! [`Incident::read`], like these.

use super::Incident;
use crate::text::TextError;

macro_rules! files {
    ($folder:literal, $($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../faults/", $folder, "/", $name, ".toml")))),*]
    };
}

const TRAIN: [(&str, &str); 86] = files![
    "train",
    "bad-model",
    "binary-and-config",
    "binary-behind-surge",
    "clock-skew",
    "cold-cache",
    "cold-origin",
    "competing-healer",
    "config-overlay",
    "config-push",
    "corrupt-model",
    "corrupt-sensor",
    "crash-infer",
    "crash-loop-config",
    "crash-store",
    "credential-future",
    "credential-skew",
    "deadlock",
    "deadlock-replaying",
    "deaf-agent",
    "disk-full-store",
    "drift-and-retrained-wrong",
    "expired-credential",
    "fan",
    "federated-overlay",
    "federated-poison",
    "frozen-telemetry",
    "full-disk-holds-rollback",
    "full-disk-last-copy",
    "hang-postprocess",
    "healer-and-config",
    "healer-keeps-alive",
    "hog-hides-slow",
    "hog-infer",
    "hot-node-moves-load",
    "hung-store-nearly-full",
    "hung-store-unflushed",
    "inodes-store",
    "late-telemetry-hang",
    "late-telemetry-model",
    "leader-behind-link",
    "leader-split",
    "leaderless-broker",
    "leak-descriptors-broker",
    "leak-descriptors-gateway",
    "leak-fragile-peer",
    "leak-memory-infer",
    "leak-no-backoff",
    "leak-threads-broker",
    "link-delay",
    "link-down",
    "link-flap",
    "link-loss",
    "lock-by-writer",
    "lock-on-full-disk",
    "lock-unread",
    "node-down",
    "outside-api-down",
    "outside-quota",
    "poisoned-cache",
    "pool-behind-credential",
    "quota-and-slow",
    "read-only-last-writer",
    "read-only-store",
    "read-only-torn",
    "retrain-on-rubbish",
    "retrain-starved",
    "retry-storm",
    "silent-drift",
    "site-failure",
    "slow-binary",
    "slow-disk",
    "slow-replica",
    "slow-replica-fragile-peer",
    "slow-replica-stale-standby",
    "stranger-hog",
    "stranger-memory",
    "surge",
    "surge-no-backoff",
    "two-roots",
    "under-voltage",
    "wrong-config",
    "wrong-telemetry-hang",
    "wrong-telemetry-spin",
    "zombie-consumer",
    "zombie-damages-store",
    "zombie-is-leader",
];

const DEVELOPMENT: [(&str, &str); 27] = files![
    "development",
    "binary-push",
    "cache-and-unflushed",
    "cascading-death",
    "corrupt-store",
    "crash-broker",
    "credential-and-leader",
    "deadlock-herd",
    "deadlock-no-backoff",
    "deadlock-unflushed",
    "drift-and-poison",
    "drift-behind-rubbish",
    "hot-node-hog",
    "hot-restart",
    "late-telemetry",
    "leader-before-credential",
    "leak-descriptors-postprocess",
    "link-flap-skew",
    "poison-and-full-disk",
    "poison-last-copy",
    "quota-surge",
    "read-only-deadlock",
    "site-cut-off",
    "skewed-healer",
    "slow-gateway",
    "slow-link-lockout",
    "stranger-both",
    "wrong-telemetry",
];

impl Incident {
    /// Names and texts of the incidents to train on.
    #[must_use]
    pub fn train() -> &'static [(&'static str, &'static str)] {
        &TRAIN
    }

    /// Names and texts of the incidents to develop against.
    #[must_use]
    pub fn development() -> &'static [(&'static str, &'static str)] {
        &DEVELOPMENT
    }

    /// One of them all, by its name.
    ///
    /// # Errors
    /// [`TextError`] when there is none of that name.
    pub fn named(name: &str) -> Result<Self, TextError> {
        let mut all = TRAIN.iter().chain(&DEVELOPMENT);
        match all.find(|(own, _)| *own == name) {
            Some((name, text)) => Self::read(&format!("{name}.toml"), text),
            None => Err(TextError {
                file: name.to_owned(),
                line: 1,
                reason: "no incident of that name comes with the simulator".to_owned(),
            }),
        }
    }
}
