//! Plan: what could be done about a diagnosis, in the order in which it is
//! tried.
//!
//! In: a diagnosis and how plans of this kind fared before. Out: candidates,
//! reflex first, then the playbook by its record. Checks nothing: the gate does.

use homeostat_common::anomaly::Fault;
use homeostat_common::gate::Purpose;
use homeostat_common::ids::{ConfigVersion, ModelVersion, RouteId, ServiceId, WebhookId};
use homeostat_common::plan::Plan;
use homeostat_common::primitive::Primitive;
use homeostat_common::units::{Millis, Percent, Ratio, narrow};
use homeostat_common::wire::body::Source;
use serde::{Deserialize, Serialize};

/// So long a node gets to cool down: a case that is warm through takes minutes.
const COOL_SPAN: Millis = Millis::secs(120);

/// A kind of plan, before it is made out for one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Recipe {
    /// Kill what is left and start afresh.
    RestartAtOnce,
    /// Ask it to stop, then start afresh.
    RestartGently,
    /// Put the model that worked back, then restart.
    RollbackModel,
    /// Take a replica's traffic away, restart it, give it back.
    RestartDrained,
    /// Delete old data.
    PruneData,
    /// Start a standby replica.
    ScaleOut,
    /// What a person asked for.
    Requested,
    /// Put the model that worked back; the service notices.
    RollbackModelWatched,
    /// Put the configuration that worked back, then restart.
    RollbackConfig,
    /// Take a replica's traffic away, kill it and start it, give it back.
    RestartDrainedAtOnce,
    /// Have it do less, or less well, for a while.
    DegradeForAWhile,
    /// Leave it less of the processors for a while.
    LimitCpuForAWhile,
    /// Call the webhook of whoever can do something about it.
    CallWebhook,
}

impl Recipe {
    /// Its name in the store and in `explain`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RestartAtOnce => "restart-at-once",
            Self::RestartGently => "restart-gently",
            Self::RollbackModel => "rollback-model",
            Self::RestartDrained => "restart-drained",
            Self::PruneData => "prune-data",
            Self::ScaleOut => "scale-out",
            Self::Requested => "requested",
            Self::RollbackModelWatched => "rollback-model-watched",
            Self::RollbackConfig => "rollback-config",
            Self::RestartDrainedAtOnce => "restart-drained-at-once",
            Self::DegradeForAWhile => "degrade-for-a-while",
            Self::LimitCpuForAWhile => "limit-cpu-for-a-while",
            Self::CallWebhook => "call-webhook",
        }
    }
}

/// What the playbook holds for each fault, before any experience. The reflex
/// is the first recipe of a fault whose restart is known to be safe. What takes
/// nothing from anybody comes first; where a service is no replica, or the last
/// one that is left, that one does not apply or does not pass the gate.
fn recipes(fault: Fault) -> (Option<Recipe>, &'static [Recipe]) {
    const DRAINED_FIRST: &[Recipe] = &[
        Recipe::RestartDrained,
        Recipe::RestartDrainedAtOnce,
        Recipe::RestartGently,
        Recipe::RestartAtOnce,
    ];
    match fault {
        Fault::Crash | Fault::Hang => (Some(Recipe::RestartAtOnce), &[]),
        Fault::MemoryLeak | Fault::DescriptorLeak | Fault::CpuHog => (None, DRAINED_FIRST),
        // The model has worked, and so has the one before it.
        Fault::WrongAnswers => (
            None,
            &[
                Recipe::RestartDrained,
                Recipe::RestartDrainedAtOnce,
                Recipe::RestartGently,
                Recipe::RestartAtOnce,
                Recipe::RollbackModel,
            ],
        ),
        Fault::ModelCorrupt | Fault::BadModel => (
            None,
            &[
                Recipe::RollbackModelWatched,
                Recipe::RollbackModel,
                Recipe::RestartGently,
            ],
        ),
        Fault::StartFailure => (None, &[Recipe::RestartAtOnce]),
        Fault::BadConfig => (None, &[Recipe::RollbackConfig, Recipe::RestartAtOnce]),
        // The only replica that is left is better slow than away.
        Fault::SlowReplica => (
            None,
            &[Recipe::RestartDrained, Recipe::RestartDrainedAtOnce],
        ),
        Fault::DataFull => (None, &[Recipe::PruneData]),
        Fault::Saturation => (None, &[Recipe::ScaleOut, Recipe::RestartDrained]),
        Fault::Overheating => (None, &[Recipe::DegradeForAWhile, Recipe::LimitCpuForAWhile]),
        Fault::CertificateExpiry => (None, &[Recipe::CallWebhook]),
        Fault::Request => (None, &[]),
    }
}

/// How often a recipe was tried against a fault on this node, and worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// Ended healed.
    pub healed: u32,
    /// Ended otherwise.
    pub failed: u32,
}

impl Record {
    /// Expected share of failures, starting from one success in two tries:
    /// a recipe is in the playbook because it is believed to work.
    #[must_use]
    pub fn failure_share(self) -> Ratio {
        let failed = f64::from(self.failed) + 0.2;
        let all = f64::from(self.healed) + f64::from(self.failed) + 2.0;
        Ratio::saturating(narrow(failed / all))
    }
}

/// A plan that could be tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its kind.
    pub recipe: Recipe,
    /// The plan.
    pub plan: Plan,
    /// Where it comes from.
    pub source: Source,
    /// What it is for.
    pub purpose: Purpose,
}

/// What a plan for one service needs to know of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Target {
    /// Time to end by itself, for its process and its connections.
    pub grace: Millis,
    /// How long it may take to come up.
    pub start_timeout: Millis,
    /// The version of its model to return to.
    pub model: Option<ModelVersion>,
    /// It notices a new model by itself.
    pub watches_model: bool,
    /// The version of its configuration to return to.
    pub config: Option<ConfigVersion>,
    /// It has no process: nothing can be taken away by starting one.
    pub dead: bool,
    /// Share of its quota that pruning leaves.
    pub keep: Option<Percent>,
    /// The route behind which it stands.
    pub route: Option<RouteId>,
    /// A standby behind that route that does not run.
    pub standby: Option<ServiceId>,
    /// It offers to do less.
    pub degrades: bool,
    /// Share of the processors that would cool the node.
    pub cooled: Option<Percent>,
    /// Who renews its certificate.
    pub renewer: Option<WebhookId>,
    /// Nothing is wrong with it yet.
    pub foreseen: bool,
}

/// All that could be tried, in order.
#[must_use]
pub fn candidates(
    service: &ServiceId,
    fault: Fault,
    confidence: Ratio,
    target: &Target,
    record: impl Fn(Recipe) -> Record,
) -> Vec<Candidate> {
    let purpose = if target.dead {
        Purpose::Revive
    } else if target.foreseen {
        Purpose::Foresee(confidence)
    } else {
        Purpose::Heal(confidence)
    };
    let (reflex, playbook) = recipes(fault);
    let mut playbook: Vec<Recipe> = playbook.to_vec();
    // Stable: without experience the order of the playbook stands.
    playbook.sort_by(|a, b| {
        let share = |recipe: &Recipe| record(*recipe).failure_share().get();
        share(a).total_cmp(&share(b))
    });
    let reflex = reflex.map(|recipe| (recipe, Source::Reflex));
    reflex
        .into_iter()
        .chain(
            playbook
                .into_iter()
                .map(|recipe| (recipe, Source::Playbook)),
        )
        .filter_map(|(recipe, source)| {
            Some(Candidate {
                recipe,
                plan: make_out(recipe, service, target)?,
                source,
                purpose,
            })
        })
        .collect()
}

/// A recipe for one service; `None` when it does not apply to it.
fn make_out(recipe: Recipe, service: &ServiceId, target: &Target) -> Option<Plan> {
    let service = || service.clone();
    let restart = |grace| Primitive::Restart {
        service: service(),
        grace,
    };
    let probe = || Primitive::Probe {
        service: service(),
        within: target.start_timeout,
    };
    match recipe {
        Recipe::RestartAtOnce => Some(Plan::single(restart(Millis(0)))),
        Recipe::RestartGently => Some(Plan::single(restart(target.grace))),
        Recipe::RollbackModel => Plan::series(vec![
            Primitive::RollbackModel {
                service: service(),
                to: target.model?,
            },
            restart(target.grace),
        ])
        .ok(),
        Recipe::RollbackModelWatched => {
            let to = target
                .model
                .filter(|_| target.watches_model && !target.dead)?;
            let back = Primitive::RollbackModel {
                service: service(),
                to,
            };
            Plan::series(vec![back, probe()]).ok()
        }
        Recipe::RollbackConfig => Plan::series(vec![
            Primitive::RollbackConfig {
                service: service(),
                to: target.config?,
            },
            restart(target.grace),
        ])
        .ok(),
        Recipe::RestartDrained | Recipe::RestartDrainedAtOnce => {
            let route = target.route.clone()?;
            let at_once = recipe == Recipe::RestartDrainedAtOnce;
            Plan::series(vec![
                Primitive::Isolate {
                    route: route.clone(),
                    backend: service(),
                    drain: target.grace,
                },
                restart(if at_once { Millis(0) } else { target.grace }),
                Primitive::Release {
                    route,
                    backend: service(),
                },
            ])
            .ok()
        }
        Recipe::PruneData => Plan::series(vec![
            Primitive::PruneData {
                service: service(),
                to: target.keep?,
            },
            probe(),
        ])
        .ok(),
        Recipe::ScaleOut => Some(Plan::single(Primitive::ScaleOut {
            route: target.route.clone()?,
            service: target.standby.clone()?,
        })),
        Recipe::DegradeForAWhile => {
            let (service, again) = target.degrades.then(|| (service(), service()))?;
            Plan::series(vec![
                Primitive::Degrade { service },
                Primitive::Wait { span: COOL_SPAN },
                Primitive::Undegrade { service: again },
            ])
            .ok()
        }
        Recipe::LimitCpuForAWhile => Plan::series(vec![
            Primitive::LimitCpu {
                service: service(),
                to: target.cooled?,
            },
            Primitive::Wait { span: COOL_SPAN },
            Primitive::UnlimitCpu { service: service() },
        ])
        .ok(),
        Recipe::CallWebhook => Some(Plan::single(Primitive::CallWebhook {
            service: service(),
            to: target.renewer.clone()?,
        })),
        Recipe::Requested => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(fault: Fault, record: impl Fn(Recipe) -> Record) -> Vec<String> {
        behind(None, fault, record)
    }

    fn behind(
        route: Option<RouteId>,
        fault: Fault,
        record: impl Fn(Recipe) -> Record,
    ) -> Vec<String> {
        let service = ServiceId::new("infer").unwrap();
        let target = Target {
            grace: Millis::secs(2),
            start_timeout: Millis::secs(10),
            model: Some(ModelVersion([1; 8])),
            route,
            ..Target::default()
        };
        candidates(&service, fault, Ratio::ONE, &target, record)
            .into_iter()
            .map(|candidate| format!("{:?} {}", candidate.source, candidate.plan))
            .collect()
    }

    #[test]
    fn the_reflex_comes_first_and_experience_orders_the_playbook() {
        assert_eq!(
            printed(Fault::Hang, |_| Record::default()),
            ["Reflex restart(infer, grace=0ms)"]
        );
        let rollback =
            "Playbook rollback-model(infer, to=0101010101010101) ; restart(infer, grace=2s)";
        let restart = "Playbook restart(infer, grace=2s)";
        assert_eq!(
            printed(Fault::ModelCorrupt, |_| Record::default()),
            [rollback, restart]
        );
        let disappointed = |recipe| match recipe {
            Recipe::RollbackModel => Record {
                healed: 0,
                failed: 3,
            },
            _ => Record::default(),
        };
        assert_eq!(
            printed(Fault::ModelCorrupt, disappointed),
            [restart, rollback]
        );
    }

    #[test]
    fn a_replica_is_spared_its_traffic_before_it_is_restarted() {
        let route = RouteId::new("model").ok();
        assert_eq!(
            behind(route.clone(), Fault::SlowReplica, |_| Record::default()),
            [
                "Playbook isolate(model, infer, drain=2s) ; restart(infer, grace=2s) ; \
                 release(model, infer)",
                "Playbook isolate(model, infer, drain=2s) ; restart(infer, grace=0ms) ; \
                 release(model, infer)"
            ]
        );
        assert_eq!(printed(Fault::SlowReplica, |_| Record::default()).len(), 0);
        assert_eq!(
            behind(route, Fault::MemoryLeak, |_| Record::default()).len(),
            4
        );
    }
}
