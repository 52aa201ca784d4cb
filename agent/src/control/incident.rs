//! One open incident: what is known, what was tried, what runs.

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::budget::Reservation;
use homeostat_common::gate::Purpose;
use homeostat_common::ids::{IncidentId, PlanId, ServiceId};
use homeostat_common::plan::Plan;
use homeostat_common::transaction::{self, Ending, Transaction};
use homeostat_common::units::{Micros, Ratio};
use homeostat_common::wire::body::{Considered, Source};

use super::budgeting::Meter;
use super::suspecting::Suspicion;
use crate::execute::Runs;
use crate::plan::Recipe;

/// An incident that is not over yet. There is at most one per service.
#[derive(Debug)]
pub struct Incident {
    /// Its number on the node.
    pub id: IncidentId,
    /// The service at its root.
    pub service: ServiceId,
    /// What was seen last.
    pub symptom: Symptom,
    /// What is believed to be behind it.
    pub fault: Fault,
    /// How sure.
    pub confidence: Ratio,
    /// The first sign.
    pub since: Micros,
    /// Whether its opening was told; it is told once it is diagnosed.
    pub(super) told: bool,
    /// The fault that was told last.
    pub(super) told_fault: Option<Fault>,
    /// The last event about it: the cause of the next one.
    pub(super) mark: u64,
    /// Recipes that failed.
    pub(super) tried: Vec<Recipe>,
    /// What was refused the last time, so that it is told only once.
    pub(super) refused: Vec<Considered>,
    /// Look again at this time, not before.
    pub(super) retry_at: Option<Micros>,
    /// Its diagnosis waits for a look at the model file.
    pub(super) checking: bool,
    /// A person was called.
    pub(super) escalated: bool,
    /// What all its plans have cost, in capacity-seconds.
    pub(super) cost: f64,
    /// The plan that runs.
    pub(super) execution: Option<Execution>,
    /// A plan that a former run of the agent did not finish.
    pub(super) cut_short: Option<CutShort>,
    /// How the last plan of a former run ended, if it did.
    pub(super) former: Option<Ending>,
    /// Who is suspected of being behind it.
    pub(super) suspicion: Suspicion,
    /// A former run opened it; whether that was told is not known.
    pub(super) retell: bool,
}

impl Incident {
    pub(super) fn new(
        id: IncidentId,
        service: ServiceId,
        symptom: Symptom,
        fault: Fault,
        since: Micros,
    ) -> Self {
        Self {
            id,
            service,
            symptom,
            fault,
            confidence: Ratio::ZERO,
            since,
            told: false,
            told_fault: None,
            mark: 0,
            tried: Vec::new(),
            refused: Vec::new(),
            retry_at: None,
            checking: false,
            escalated: false,
            cost: 0.0,
            execution: None,
            cut_short: None,
            former: None,
            suspicion: Suspicion::default(),
            retell: false,
        }
    }

    /// The plan that runs.
    #[must_use]
    pub fn plan(&self) -> Option<(PlanId, &Plan)> {
        self.execution
            .as_ref()
            .map(|execution| (execution.id, execution.transaction.plan()))
    }

    pub(super) fn next_wake(&self) -> Option<Micros> {
        match &self.execution {
            Some(execution) => execution
                .runs
                .wake()
                .into_iter()
                .chain(execution.transaction.deadline())
                .chain(execution.synced_by)
                .min(),
            None => self.retry_at,
        }
    }
}

/// A plan on its way.
#[derive(Debug)]
pub(super) struct Execution {
    pub(super) id: PlanId,
    pub(super) recipe: Recipe,
    pub(super) source: Source,
    pub(super) purpose: Purpose,
    pub(super) transaction: Transaction,
    /// What was set aside for it; `None` when only compensations run.
    pub(super) reservation: Option<Reservation>,
    /// What it costs beside what was foreseen.
    pub(super) meter: Meter,
    /// The node's health as it was decided on.
    pub(super) health: Ratio,
    /// The node's health that each step leads to, as foreseen then.
    pub(super) prospects: Vec<Ratio>,
    pub(super) runs: Runs,
    /// The sync that the transaction waits for.
    pub(super) ticket: Option<u64>,
    /// It waits no longer than until then.
    pub(super) synced_by: Option<Micros>,
    /// A restart cut it short and it is only taken back, without having failed.
    pub(super) refused: bool,
}

impl Execution {
    /// The disk has what it was given, or is not waited for any longer.
    pub(super) fn disk_answered(&mut self) {
        self.ticket = None;
        self.synced_by = None;
        self.transaction.durable();
    }
}

/// What the journal says about a plan that did not end.
#[derive(Debug, Clone)]
pub(super) struct CutShort {
    pub(super) id: PlanId,
    pub(super) plan: Plan,
    pub(super) recipe: Recipe,
    pub(super) source: Source,
    pub(super) revive: bool,
    pub(super) records: Vec<transaction::Record>,
}
