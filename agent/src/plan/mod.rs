//! Plan: what could be done about a diagnosis, in the order in which it is
//! tried.
//!
//! In: a diagnosis and how plans of this kind fared before. Out: candidates,
//! reflex first, then the playbook by its record. Checks nothing: the gate does.

use homeostat_common::anomaly::Fault;
use homeostat_common::gate::Purpose;
use homeostat_common::ids::{ModelVersion, ServiceId};
use homeostat_common::plan::Plan;
use homeostat_common::primitive::Primitive;
use homeostat_common::units::{Millis, Ratio, narrow};
use homeostat_common::wire::body::Source;
use serde::{Deserialize, Serialize};

/// A kind of plan, before it is made out for one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Recipe {
    /// Kill what is left and start afresh.
    RestartAtOnce,
    /// Ask it to stop, then start afresh.
    RestartGently,
    /// Put the verified model back, then restart.
    RollbackModel,
}

impl Recipe {
    /// Its name in the store and in `explain`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RestartAtOnce => "restart-at-once",
            Self::RestartGently => "restart-gently",
            Self::RollbackModel => "rollback-model",
        }
    }
}

/// What the playbook holds for each fault, before any experience. The reflex
/// is the first recipe of a fault whose restart is known to be safe.
fn recipes(fault: Fault) -> (Option<Recipe>, &'static [Recipe]) {
    match fault {
        Fault::Crash | Fault::Hang => (Some(Recipe::RestartAtOnce), &[]),
        Fault::MemoryLeak => (None, &[Recipe::RestartGently, Recipe::RestartAtOnce]),
        Fault::ModelCorrupt => (None, &[Recipe::RollbackModel, Recipe::RestartGently]),
        Fault::WrongAnswers => (None, &[Recipe::RestartGently, Recipe::RestartAtOnce]),
        Fault::StartFailure => (None, &[Recipe::RestartAtOnce]),
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

/// All that could be tried, in order.
#[must_use]
pub fn candidates(
    service: &ServiceId,
    fault: Fault,
    confidence: Ratio,
    grace: Millis,
    model: Option<ModelVersion>,
    record: impl Fn(Recipe) -> Record,
) -> Vec<Candidate> {
    let purpose = match fault {
        Fault::Crash => Purpose::Revive,
        _ => Purpose::Heal(confidence),
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
                plan: make_out(recipe, service, grace, model)?,
                source,
                purpose,
            })
        })
        .collect()
}

/// A recipe for one service; `None` when it does not apply to it.
fn make_out(
    recipe: Recipe,
    service: &ServiceId,
    grace: Millis,
    model: Option<ModelVersion>,
) -> Option<Plan> {
    let restart = |grace| Primitive::Restart {
        service: service.clone(),
        grace,
    };
    match recipe {
        Recipe::RestartAtOnce => Some(Plan::single(restart(Millis(0)))),
        Recipe::RestartGently => Some(Plan::single(restart(grace))),
        Recipe::RollbackModel => Plan::series(vec![
            Primitive::RollbackModel {
                service: service.clone(),
                to: model?,
            },
            restart(grace),
        ])
        .ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(fault: Fault, record: impl Fn(Recipe) -> Record) -> Vec<String> {
        let service = ServiceId::new("infer").unwrap();
        let model = Some(ModelVersion([1; 8]));
        candidates(&service, fault, Ratio::ONE, Millis::secs(2), model, record)
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
}
