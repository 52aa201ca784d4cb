//! The rows that every fault has: quantiles of the time to recover, and the share that did.

use std::time::Duration;

use crate::result::Row;
use crate::stats::{Estimate, P99_SAMPLES_MIN, share};

/// What one side took.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) name: String,
    /// Milliseconds; the cap for what did not heal.
    pub(super) times: Vec<f64>,
    pub(super) unhealed: usize,
}

/// A fault as the table names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    /// Part of the ids.
    pub(super) id: &'static str,
    pub(super) what: &'static str,
    /// A trial that takes longer counts with this.
    pub(super) cap: Duration,
    /// Goals in milliseconds for median and p95.
    pub(super) goals: [Option<f64>; 2],
}

impl Measured {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            times: Vec::new(),
            unhealed: 0,
        }
    }

    /// Notes a trial; `None` did not heal.
    pub(super) fn add(&mut self, took: Option<f64>, cap: Duration) {
        self.times.push(took.unwrap_or(super::super::ms(cap)));
        self.unhealed += usize::from(took.is_none());
    }

    /// Whether this side has shown often enough that it does not heal.
    pub(super) fn never_heals(&self, times: usize) -> bool {
        self.unhealed >= times && self.unhealed == self.times.len()
    }

    pub(super) fn quantile(&self, q: f64, seed: u64) -> Option<Estimate> {
        Estimate::quantile(&self.times, q, seed)
    }

    fn tell(&self) -> String {
        let n = self.times.len();
        match self.unhealed {
            0 => format!("{}, n {n}", self.name),
            capped => format!("{}, n {n}, {capped} at the cap", self.name),
        }
    }
}

pub(super) fn rows(named: Named, ours: &Measured, baseline: &Measured, seed: u64) -> Vec<Row> {
    let Named {
        id: name,
        what,
        cap,
        goals,
    } = named;
    let n = ours.times.len();
    let mut rows = Vec::new();
    let mut quantiles = vec![("median", 0.5, goals[0]), ("p95", 0.95, goals[1])];
    if n >= P99_SAMPLES_MIN {
        quantiles.push(("p99", 0.99, None));
    }
    quantiles.push(("worst", 1.0, None));
    for (label, q, goal) in quantiles {
        let Some(estimate) = ours.quantile(q, seed) else {
            continue;
        };
        let id = format!("mttr.{name}.{label}_ms");
        let value = baseline.quantile(q, seed).map(|estimate| estimate.value);
        let row = Row::new(&id, &format!("{what}: {label}"), "ms", estimate)
            .against(value, &baseline.tell());
        rows.push(match goal {
            Some(goal) => row.goal(goal),
            None => row,
        });
    }
    let healed = |side: &Measured| share(side.times.len() - side.unhealed, side.times.len());
    let row = Row::new(
        &format!("mttr.{name}.recovered"),
        &format!("{what}: healed within {} s", cap.as_secs()),
        "share",
        healed(ours),
    );
    let row = row.higher();
    rows.push(
        row.against(Some(healed(baseline).value), &baseline.tell())
            .goal(1.0),
    );
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_heal_counts_with_the_cap_and_is_told() {
        let cap = Duration::from_secs(2);
        let named = Named {
            id: "x",
            what: "x",
            cap,
            goals: [None, None],
        };
        let (mut ours, mut other) = (Measured::new("ours"), Measured::new("other"));
        for took in [Some(10.0), None, Some(30.0)] {
            ours.add(took, cap);
            other.add(None, cap);
        }
        assert!(!ours.never_heals(1) && other.never_heals(3));
        let rows = rows(named, &ours, &other, 1);
        let found: Vec<_> = rows.iter().map(|row| (row.id.as_str(), row.ours)).collect();
        assert_eq!(
            found,
            [
                ("mttr.x.median_ms", 30.0),
                ("mttr.x.p95_ms", 2000.0),
                ("mttr.x.worst_ms", 2000.0),
                ("mttr.x.recovered", 2.0 / 3.0),
            ]
        );
        let baseline = rows.last().map(|row| (row.reference, row.holds));
        assert_eq!(baseline, Some((Some(0.0), Some(false))));
        let name = rows.first().and_then(|row| row.reference_name.clone());
        assert_eq!(name.as_deref(), Some("other, n 3, 3 at the cap"));
    }
}
