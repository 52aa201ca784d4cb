//! Learn: which recipes worked against which faults on this node.
//!
//! In: how plans ended. Out: the record that orders the playbook. Counting is
//! all that happens here; what is learnt is data that can be read, and thrown
//! away without harm.

use std::collections::{BTreeMap, VecDeque};

use homeostat_common::anomaly::Fault;
use homeostat_common::outcome::Outcome;
use homeostat_common::state::{Past, RECENT_MAX};
use serde::{Deserialize, Serialize};

use crate::plan::{Recipe, Record};

/// What this node has learnt (the history Gamma of the self-healing paper).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Experience {
    records: BTreeMap<(Fault, Recipe), Record>,
    /// Incidents since the store was made, by outcome.
    outcomes: BTreeMap<u8, u32>,
    /// The last ones, oldest first.
    recent: VecDeque<Past>,
}

impl Experience {
    /// How a recipe fared against a fault.
    #[must_use]
    pub fn record(&self, fault: Fault, recipe: Recipe) -> Record {
        self.records
            .get(&(fault, recipe))
            .copied()
            .unwrap_or_default()
    }

    /// A recipe was tried and ended so.
    pub fn tried(&mut self, fault: Fault, recipe: Recipe, healed: bool) {
        let record = self.records.entry((fault, recipe)).or_default();
        let count = if healed {
            &mut record.healed
        } else {
            &mut record.failed
        };
        *count = count.saturating_add(1);
    }

    /// An incident ended.
    pub fn ended(&mut self, past: Past) {
        let count = self.outcomes.entry(past.outcome as u8).or_default();
        *count = count.saturating_add(1);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(past);
    }

    /// The last healings, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = &Past> {
        self.recent.iter()
    }

    /// Incidents that ended in `outcome`.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u32 {
        self.outcomes.get(&(outcome as u8)).copied().unwrap_or(0)
    }

    /// All records, for `explain`.
    pub fn records(&self) -> impl Iterator<Item = (Fault, Recipe, Record)> {
        self.records
            .iter()
            .map(|((fault, recipe), record)| (*fault, *recipe, *record))
    }
}
