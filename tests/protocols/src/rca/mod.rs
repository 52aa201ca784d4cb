//! Which component is the root of an alarm, on recordings of real systems with known faults.
//!
//! The label of a fault is read by the scoring alone. Beside our diagnosis stand short versions
//! of what others do: chance, the robust z of each component, traversal of anomalous callees, a
//! random walk, and regression on callees in the manner of CIRCA (Li et al. 2022). Ranks are
//! strict: equal scores are ordered by place in the graph, never by truth.
//!
//! Another set is one more module with `run`, and one more arm where the command is read.

use std::collections::BTreeMap;

use homeostat_causes::{Diagnosis, Doubt, Graph};

mod baselines;
mod calibrate;
mod case;
pub mod nezha;
pub mod petshop;
mod score;
mod wide;

pub(crate) use case::{Case, Metric};

/// Names that a note lists.
const NAMES_MAX: usize = 4;

/// Notes that a report holds: a folder with thousands of bad files says no more than a hundred.
const NOTES_MAX: usize = 100;

/// The first few of some names.
fn list(names: &[&str]) -> String {
    let more = if names.len() > NAMES_MAX { ", ..." } else { "" };
    names[..names.len().min(NAMES_MAX)].join(", ") + more
}

/// What was wrong with the input, as a report tells it.
fn warnings(mut notes: Vec<String>) -> Vec<String> {
    let more = notes.len().saturating_sub(NOTES_MAX);
    notes.truncate(NOTES_MAX);
    if more > 0 {
        notes.push(format!("and {more} more"));
    }
    notes
        .iter()
        .map(|note| format!("warning: {note}"))
        .collect()
}

/// What lowered the confidence of whole diagnoses: the first case, and of how many.
#[derive(Default)]
struct Doubts(BTreeMap<String, (String, usize)>);

impl Doubts {
    fn add(&mut self, case: &str, graph: &Graph, diagnosis: &Diagnosis) {
        for doubt in diagnosis.doubts.iter().filter(|one| Doubt::of_all(one)) {
            let words = doubt.words(graph).to_string();
            let known = self.0.entry(words).or_insert_with(|| (case.to_owned(), 0));
            known.1 += 1;
        }
    }

    fn notes(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|(words, (first, count))| {
            format!("{words}: confidence is lower in {count} diagnoses, first of {first}")
        })
    }
}
