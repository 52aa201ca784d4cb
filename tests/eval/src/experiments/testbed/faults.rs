//! The faults of the bed: what each is in the simulator's grammar, and which plans are tried
//! against it.
//!
//! Those that are shipped have plans of their own, good ones and bad ones. Those of a folder
//! get two: nothing, and the shortest one that the simulator knows.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use homeostat_coordinator::io::incidents::{self, Topologies};
use homeostat_sim::certify::{Certificate, Depth};
use homeostat_sim::fault::Incident;
use homeostat_sim::topology::{Topology, Version};

use super::injections;
use crate::experiments::progress;
use crate::stage::bed;

/// Seconds from the onset of a fault of a folder to the plan, and from the plan to the verdict.
const WATCH_S: f64 = 12.0;
const AFTER_S: f64 = 16.0;
/// Steps of the longest plan that is looked for.
const STEPS_MAX: u8 = 2;

/// One fault.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) name: String,
    /// As the simulator reads it.
    pub(super) incident: Incident,
    /// Where it is, if not on the bed's own topology.
    pub(super) topology: Option<Arc<Topology>>,
    /// Seconds from its onset to the plan.
    pub(super) watch_s: f64,
    /// Seconds from the end of the plan to the verdict.
    pub(super) after_s: f64,
    /// The simulator's parameters are fitted on it, and nothing is judged by it.
    pub(super) fit: bool,
    pub(super) plans: Vec<Plan>,
}

/// Orders to nodes, one after the other. `MODEL` and `CONFIG` stand for the versions that
/// worked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) orders: Vec<(String, String)>,
}

/// A fault that is shipped.
struct Row {
    name: &'static str,
    text: &'static str,
    watch_s: f64,
    after_s: f64,
    fit: bool,
    plans: &'static [Told],
}

/// A plan of one.
struct Told {
    name: &'static str,
    orders: &'static [(&'static str, &'static str)],
}
const fn plan(name: &'static str, orders: &'static [(&'static str, &'static str)]) -> Told {
    Told { name, orders }
}

macro_rules! fault {
    ($name:literal, $watch:literal, $after:literal, $fit:literal, $plans:expr) => {
        Row {
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

const LIMIT: Told = plan(
    "limit the rate",
    &[("edge-1", "limit-rate(gateway, to=9/s)")],
);
const RESTART_INFER: Told = plan("restart", &[("edge-1", "restart(infer-1, grace=500ms)")]);

/// All that are shipped.
const ALL: &[Row] = &[
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
            plan(
                "have the stranger killed",
                &[("edge-3", "call-webhook(preprocess-2, to=kill-stranger)")]
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
        &[
            plan(
                "restart both",
                &[
                    ("edge-4", "restart(store-1, grace=500ms)"),
                    ("cloud-1", "restart(store-2, grace=500ms)"),
                ]
            ),
            plan(
                "have it rotated, restart both",
                &[
                    (
                        "edge-4",
                        "call-webhook(store-1, to=rotate-credential) ; wait(4s) ; \
                         restart(store-1, grace=500ms)"
                    ),
                    ("cloud-1", "restart(store-2, grace=500ms)"),
                ]
            ),
        ]
    ),
    fault!("clock-skew", 8.0, 14.0, false, &[RESTART_INFER]),
];

/// Those that are shipped.
///
/// # Errors
/// When one does not read.
pub(super) fn shipped() -> Result<Vec<Arc<Fault>>> {
    let read = |row: &Row| {
        let plans = row.plans.iter().map(|plan| Plan {
            name: plan.name.to_owned(),
            orders: plan
                .orders
                .iter()
                .map(|(node, text)| ((*node).into(), (*text).into()))
                .collect(),
        });
        Ok(Arc::new(Fault {
            name: row.name.to_owned(),
            incident: Incident::read(&format!("{}.toml", row.name), row.text)?,
            topology: None,
            watch_s: row.watch_s,
            after_s: row.after_s,
            fit: row.fit,
            plans: plans.collect(),
        }))
    };
    ALL.iter().map(read).collect()
}

/// Those of a folder (or a set, or a file) that have a counterpart on the bed; of the others
/// is told why not.
///
/// # Errors
/// When something does not read, or none has a counterpart.
pub(super) fn of_folder(from: &str, topologies: Option<PathBuf>) -> Result<Vec<Arc<Fault>>> {
    let mut topologies = Topologies::new(topologies, None)?;
    let mut faults = Vec::new();
    for incident in incidents::incidents(from)? {
        // The bed's own topology is not shipped with the others.
        let topology = if incident.topology == super::NAME {
            Arc::new(Topology::read("testbed.toml", super::TOPOLOGY)?)
        } else {
            topologies.of(&incident)?
        };
        incident.check(&topology)?;
        let can = bed::holds(&topology).and_then(|()| injections::of(&topology, &incident));
        if let Err(why) = can {
            progress(&format!("  left out, {}: {why:#}", incident.name));
            continue;
        }
        faults.push(Arc::new(Fault {
            name: incident.name.clone(),
            plans: plans(&topology, &incident)?,
            topology: Some(topology),
            incident,
            watch_s: WATCH_S,
            after_s: AFTER_S,
            fit: false,
        }));
    }
    ensure!(
        !faults.is_empty(),
        "no fault of {from} has a counterpart on the bed"
    );
    Ok(faults)
}

/// Nothing, and the shortest plan that ends it in the simulator.
fn plans(topology: &Arc<Topology>, incident: &Incident) -> Result<Vec<Plan>> {
    let depth = Depth {
        steps: STEPS_MAX,
        ..Depth::default()
    };
    let certificate = Certificate::of(topology, incident, depth)?;
    let mut plans = vec![Plan {
        name: "nothing".to_owned(),
        orders: Vec::new(),
    }];
    if let Some(text) = certificate.plans.first() {
        plans.push(Plan {
            name: text.clone(),
            orders: orders(topology, text).with_context(|| format!("{text:?} is no plan"))?,
        });
    }
    Ok(plans)
}

/// A plan as it is written: each order begins with its node.
fn orders(topology: &Topology, text: &str) -> Option<Vec<(String, String)>> {
    let mut orders: Vec<(String, String)> = Vec::new();
    // What may be done at once is done one after the other.
    for step in text.replace(" | ", " ; ").split(" ; ") {
        match (step.split_once(": "), orders.last_mut()) {
            (Some((node, step)), _) => orders.push((node.to_owned(), step.to_owned())),
            (None, Some((_, before))) => {
                before.push_str(" ; ");
                before.push_str(step);
            }
            (None, None) => return None,
        }
    }
    for (_, text) in &mut orders {
        for replica in topology.replicas() {
            let Ok(no) = topology.replica_no(&replica.name) else {
                continue;
            };
            if text.contains(&format!("({},", replica.name)) {
                *text = text
                    .replace(&topology.model(no, Version::Good).to_string(), "MODEL")
                    .replace(&topology.config(no, Version::Good).to_string(), "CONFIG");
            }
        }
    }
    Some(orders)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_written_plan_becomes_orders_and_versions_those_of_the_bed() {
        let topology = Topology::read("testbed.toml", super::super::TOPOLOGY).unwrap();
        let infer = topology.replica_no(&"infer-1".parse().unwrap()).unwrap();
        let good = topology.model(infer, Version::Good);
        let text = format!(
            "edge-1: rollback-model(infer-1, to={good}) | edge-4: prune-data(store-1, to=50%) ; wait(3s)"
        );
        let orders = orders(&topology, &text).unwrap();
        let known = [
            ("edge-1", "rollback-model(infer-1, to=MODEL)"),
            ("edge-4", "prune-data(store-1, to=50%) ; wait(3s)"),
        ];
        let known: Vec<_> = known
            .map(|(node, text)| (node.to_owned(), text.to_owned()))
            .into();
        assert_eq!(orders, known);
        assert_eq!(super::orders(&topology, "wait(3s)"), None);
    }
}
