//! The faults of the bed: what each is in the simulator's grammar, how it is done for real,
//! and which plans are tried against it.
//!
//! A fault ends with its bed; surges end by themselves. Magnitudes are those that the grammar
//! lays on things at the strength of the file (`models/sim/src/fault/mechanism.rs`), so that
//! both sides are told the same.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use homeostat_testbed::inject::{self, Corruption};
use homeostat_testbed::proxy::Link;
use homeostat_testbed::users::Users;

use crate::stage::bed::PROCESSOR;
use crate::stage::{Bed, Fleet};

/// One fault.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// The incident, as the simulator reads it.
    pub(super) text: &'static str,
    /// Seconds from its onset to the plan.
    pub(super) watch_s: f64,
    /// Seconds from the end of the plan to the verdict.
    pub(super) after_s: f64,
    /// The simulator's parameters are fitted on it, and nothing is judged by it.
    pub(super) fit: bool,
    pub(super) plans: &'static [Plan],
}

/// Orders to nodes, one after the other. `MODEL` and `CONFIG` stand for the versions that
/// worked before.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) orders: &'static [(&'static str, &'static str)],
}

const fn plan(name: &'static str, orders: &'static [(&'static str, &'static str)]) -> Plan {
    Plan { name, orders }
}

macro_rules! fault {
    ($name:literal, $watch:literal, $after:literal, $fit:literal, $plans:expr) => {
        Fault {
            name: $name,
            text: include_str!(concat!(
                "../../../../../models/sim/faults/testbed/",
                $name,
                ".toml"
            )),
            watch_s: $watch,
            after_s: $after,
            fit: $fit,
            plans: $plans,
        }
    };
}

const LIMIT: Plan = plan(
    "limit the rate",
    &[("edge-1", "limit-rate(gateway, to=9/s)")],
);
const RESTART_INFER: Plan = plan("restart", &[("edge-1", "restart(infer-1, grace=500ms)")]);

/// All of them.
pub(super) const ALL: &[Fault] = &[
    fault!(
        "crash",
        8.0,
        14.0,
        true,
        &[
            plan(
                "restart both",
                &[
                    ("edge-2", "restart(postprocess-1, grace=500ms)"),
                    ("edge-4", "restart(postprocess-2, grace=500ms)"),
                ]
            ),
            plan(
                "restart one",
                &[("edge-2", "restart(postprocess-1, grace=500ms)")]
            ),
        ]
    ),
    fault!(
        "hang",
        8.0,
        14.0,
        true,
        &[
            RESTART_INFER,
            plan(
                "isolate",
                &[("edge-1", "isolate(infer, infer-1, drain=200ms)")]
            ),
        ]
    ),
    fault!(
        "slow-replica",
        8.0,
        14.0,
        true,
        &[
            plan(
                "isolate",
                &[("edge-1", "isolate(preprocess, preprocess-1, drain=200ms)")]
            ),
            plan(
                "restart",
                &[("edge-1", "restart(preprocess-1, grace=500ms)")]
            ),
        ]
    ),
    fault!(
        "link-delay",
        8.0,
        14.0,
        true,
        &[plan(
            "isolate",
            &[("edge-4", "isolate(store, store-2, drain=200ms)")]
        ),]
    ),
    fault!("surge", 12.0, 12.0, true, &[LIMIT]),
    fault!(
        "crash-loop",
        8.0,
        14.0,
        false,
        &[
            plan(
                "restart",
                &[
                    ("edge-1", "restart(preprocess-1, grace=500ms)"),
                    ("edge-3", "restart(preprocess-2, grace=500ms)"),
                ]
            ),
            plan(
                "roll back, restart",
                &[
                    (
                        "edge-1",
                        "rollback-config(preprocess-1, to=CONFIG) ; restart(preprocess-1, grace=500ms)"
                    ),
                    (
                        "edge-3",
                        "rollback-config(preprocess-2, to=CONFIG) ; restart(preprocess-2, grace=500ms)"
                    ),
                ]
            ),
        ]
    ),
    fault!("leak-memory", 16.0, 14.0, false, &[RESTART_INFER]),
    fault!(
        "leak-descriptors",
        34.0,
        14.0,
        false,
        &[plan(
            "restart both",
            &[
                ("edge-2", "restart(postprocess-1, grace=500ms)"),
                ("edge-4", "restart(postprocess-2, grace=500ms)"),
            ]
        ),]
    ),
    fault!(
        "hog-node",
        10.0,
        14.0,
        false,
        &[
            plan(
                "isolate",
                &[
                    ("edge-1", "isolate(infer, infer-3, drain=200ms)"),
                    ("edge-1", "isolate(preprocess, preprocess-2, drain=200ms)"),
                ]
            ),
            plan(
                "restart",
                &[("edge-3", "restart(preprocess-2, grace=500ms)")]
            ),
        ]
    ),
    fault!(
        "spin",
        10.0,
        14.0,
        false,
        &[
            plan("restart", &[("edge-2", "restart(infer-2, grace=500ms)")]),
            plan(
                "isolate",
                &[("edge-1", "isolate(infer, infer-2, drain=200ms)")]
            ),
        ]
    ),
    fault!(
        "deadlock",
        8.0,
        24.0,
        false,
        &[
            RESTART_INFER,
            plan(
                "restart, clear the lock",
                &[(
                    "edge-1",
                    "restart(infer-1, grace=500ms) ; clear-locks(infer-1)"
                ),]
            ),
            plan(
                "isolate",
                &[("edge-1", "isolate(infer, infer-1, drain=200ms)")]
            ),
        ]
    ),
    fault!(
        "disk-full",
        10.0,
        14.0,
        false,
        &[
            plan("prune", &[("edge-4", "prune-data(store-1, to=50%)")]),
            plan("restart", &[("edge-4", "restart(store-1, grace=500ms)")]),
        ]
    ),
    fault!(
        "link-loss",
        10.0,
        14.0,
        false,
        &[plan(
            "isolate",
            &[("edge-4", "isolate(store, store-2, drain=200ms)")]
        ),]
    ),
    fault!(
        "partition",
        8.0,
        14.0,
        false,
        &[plan(
            "isolate",
            &[("edge-4", "isolate(store, store-2, drain=200ms)")]
        ),]
    ),
    fault!("retry-storm", 16.0, 12.0, false, &[LIMIT]),
    fault!(
        "bad-model",
        8.0,
        14.0,
        false,
        &[
            plan(
                "roll back one",
                &[("edge-1", "rollback-model(infer-1, to=MODEL)")]
            ),
            plan(
                "roll back all",
                &[
                    ("edge-1", "rollback-model(infer-1, to=MODEL)"),
                    ("edge-2", "rollback-model(infer-2, to=MODEL)"),
                    ("edge-3", "rollback-model(infer-3, to=MODEL)"),
                    ("edge-3", "flush-cache(cache-1)"),
                ]
            ),
        ]
    ),
    fault!(
        "corrupt-model",
        8.0,
        14.0,
        false,
        &[
            plan(
                "isolate, flush",
                &[
                    ("edge-1", "isolate(infer, infer-1, drain=200ms)"),
                    ("edge-3", "flush-cache(cache-1)"),
                ]
            ),
            RESTART_INFER,
        ]
    ),
    fault!(
        "poisoned-cache",
        8.0,
        14.0,
        false,
        &[
            plan("flush", &[("edge-3", "flush-cache(cache-1)")]),
            RESTART_INFER,
        ]
    ),
    fault!(
        "outside-down",
        8.0,
        14.0,
        false,
        &[plan(
            "restart",
            &[("edge-2", "restart(postprocess-1, grace=500ms)")]
        ),]
    ),
    fault!(
        "credential",
        8.0,
        14.0,
        false,
        &[plan(
            "restart both",
            &[
                ("edge-4", "restart(store-1, grace=500ms)"),
                ("cloud-1", "restart(store-2, grace=500ms)"),
            ]
        ),]
    ),
    fault!("clock-skew", 8.0, 14.0, false, &[RESTART_INFER]),
];

impl Fault {
    /// Does it for real; what it does later by itself is told by the seconds after which.
    ///
    /// # Errors
    /// When it cannot be done.
    pub(super) fn hurt(&self, bed: &mut Bed, users: &Users) -> Result<()> {
        match self.name {
            "crash" => {
                for replica in bed.replicas("postprocess") {
                    inject::kill9(bed.pid(replica)?)?;
                }
            }
            "hang" => order(bed, "infer-1", "block")?,
            // Factor 2 + 0.6 * 7.
            "slow-replica" => order(bed, "preprocess-1", "pace 620")?,
            // 60 + 0.3 * 640 ms each way.
            "link-delay" => bed.set_link("cloud-1/eth0", |link| Link {
                delay: link.delay + Duration::from_millis(252),
                ..link
            })?,
            // 1.3 + 0.9 * 1.7.
            "surge" => users.surge(2.83),
            "retry-storm" => users.surge(3.0),
            "crash-loop" => {
                for replica in bed.replicas("preprocess") {
                    let file = Fleet::config_file(&bed.slot(replica)?);
                    inject::bad_config(&file, bed.pid(replica)?)?;
                }
            }
            // 2 + 0.8 * 22 MB/s, and 1.1 + 0.8 * 0.5 times as long.
            "leak-memory" => {
                order(bed, "infer-1", "pace 150")?;
                order(bed, "infer-1", &format!("leak {}", 19_600 * 1024))?;
            }
            "leak-descriptors" => {
                for replica in bed.replicas("postprocess") {
                    inject::limit_descriptors(bed.pid(replica)?, 1024)?;
                    order(bed, replica, "open 40")?;
                }
            }
            // 2 + 0.6 * 14 processors.
            "hog-node" => bed.hog("edge-3", 10.4)?,
            // 1 + 0.8 * 3 processors, 1.2 + 0.8 * 0.8 times as long.
            "spin" => {
                order(bed, "infer-2", "pace 184")?;
                order(bed, "infer-2", &format!("burn {}", permille(3.4)))?;
            }
            // 0.5 + 0.02 * 2.5 processors, 50 + 0.02 * 850 MB.
            "deadlock" => order(bed, "infer-1", &format!("lock {} 67", permille(0.55)))?,
            "disk-full" => order(bed, "store-1", "fill")?,
            // 0.05 + 0.35 * 0.45.
            "link-loss" => bed.set_link("cloud-1/eth0", |link| Link {
                loss: 0.2075,
                ..link
            })?,
            "partition" => bed.set_link("cloud-1/eth0", |link| Link { down: true, ..link })?,
            "bad-model" => {
                for replica in bed.replicas("infer") {
                    inject::bad_model(&bed.slot(replica)?, 1)?;
                }
            }
            "corrupt-model" => {
                let file = bed.slot("infer-1")?.join("current/model.onnx");
                inject::corrupt_model(&file, Corruption::Weights)?;
            }
            "poisoned-cache" => order(bed, "cache-1", "poison")?,
            "outside-down" => bed.end_outside(),
            "credential" => {
                let file = bed.credential("store").join("accepted");
                std::fs::write(&file, "2").context("cannot withdraw the credential")?;
            }
            "clock-skew" => {
                for replica in bed.on_node("edge-2") {
                    order(bed, replica, "ahead 3600")?;
                }
            }
            other => bail!("nobody knows how to do {other:?}"),
        }
        Ok(())
    }

    /// Seconds after which it ends by itself.
    #[must_use]
    pub(super) fn ends_s(&self) -> Option<f64> {
        (self.name == "retry-storm").then_some(8.0)
    }
}

fn order(bed: &Bed, replica: &str, fault: &str) -> Result<()> {
    inject::order(&bed.control(replica)?, fault)?;
    Ok(())
}

/// So many processors of the topology in thousandths of a real one.
fn permille(cores: f64) -> u64 {
    // A handful of positive numbers above.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let permille = (1000.0 * cores / PROCESSOR).round() as u64;
    permille
}
