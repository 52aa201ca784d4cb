//! What both sides are reduced to before they are compared.
//!
//! In: how users fared and what the services did, over time. Out: twelve figures of a window,
//! whether users are served, and when that began and ended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names of the figures, with what counts as a change of each: an absolute number, and a
/// share of what it was.
pub(super) const FIGURES: [(&str, f64, f64); 12] = [
    ("errors", 0.04, 0.0),
    ("p95, ms", 60.0, 0.25),
    ("right answers/s", 1.0, 0.12),
    ("tries/s", 1.0, 0.15),
    ("right of the answered", 0.04, 0.0),
    ("preprocess/s", 1.0, 0.15),
    ("infer/s", 1.0, 0.15),
    ("postprocess/s", 1.0, 0.15),
    ("store/s", 1.0, 0.15),
    ("cache/s", 1.0, 0.15),
    ("failures inside/s", 1.0, 0.15),
    ("waiting", 3.0, 0.3),
];

/// Services whose right answers are figures, in the order above.
pub(super) const SERVICES: [&str; 5] = ["preprocess", "infer", "postprocess", "store", "cache"];

/// From when on users are served: four times the times of the reference, as work takes four
/// times as long.
pub(super) const ERRORS: f64 = 0.03;
pub(super) const P95_MS: f64 = 1600.0;
pub(super) const RIGHT: f64 = 0.96;
/// Of more errors than this is said that nobody is answered: as late as anybody waits.
pub(super) const NOBODY: f64 = 0.95;
/// Over so many seconds.
pub(super) const SPAN_S: f64 = 2.0;
/// How often it is asked.
pub(super) const STEP_S: f64 = 0.5;
/// Length of the windows of the figures, and of the verdict.
pub(super) const WINDOW_S: f64 = 6.0;
/// How long before the onset the course begins.
const LEAD_S: f64 = 18.0;

/// The figures of a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures(pub [f64; 12]);

impl Figures {
    /// How much each has changed from `before`, in units of what counts as a change.
    #[must_use]
    pub(super) fn since(&self, before: &Self) -> [f64; 12] {
        std::array::from_fn(|at| {
            let (_, least, share) = FIGURES[at];
            (self.0[at] - before.0[at]) / least.max(share * before.0[at].abs())
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, value) in self.0.iter().enumerate() {
            write!(f, "{}{value:.2}", if at > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

/// How users fared in the [`SPAN_S`] before a moment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Fare {
    /// Since the onset of the fault.
    pub(super) at_s: f64,
    pub(super) errors: f64,
    pub(super) p95_ms: f64,
    pub(super) right: f64,
    pub(super) shed: f64,
}

impl Fare {
    /// Whether they are served; `slack` times as many errors are allowed in a short span.
    #[must_use]
    pub(super) fn served(&self, slack: f64) -> bool {
        self.errors <= slack * ERRORS
            && self.p95_ms <= P95_MS
            && 1.0 - self.right <= slack * (1.0 - RIGHT)
            && self.shed <= 0.05
    }
}

/// One run of either side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Trace {
    pub(super) before: Figures,
    /// In the last seconds before the plan.
    pub(super) during: Figures,
    /// Since the onset.
    pub(super) fares: Vec<Fare>,
    /// The figures of each [`SPAN_S`], from [`LEAD_S`] before the onset on: nothing is judged by
    /// them, but they tell why the rest is as it is.
    pub(super) course: Vec<Figures>,
    /// When the plan began, since the onset, and whether all of it was carried out.
    pub(super) plan_s: f64,
    pub(super) carried_out: bool,
    /// Whether users were served in the last seconds.
    pub(super) works: bool,
}

/// When what happened in a run, by the clock of its side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) onset_s: f64,
    pub(super) plan_s: f64,
    pub(super) end_s: f64,
}

/// What a side has seen of a run.
pub(super) trait Seen {
    /// How users fared in a window, as of a fault that began at `onset_s`.
    fn fare(&self, from_s: f64, to_s: f64, onset_s: f64) -> Fare;

    /// The figures of a window.
    fn figures(&self, from_s: f64, to_s: f64) -> Figures;

    /// Both sides are reduced in the same way.
    fn trace(&self, times: Times, carried_out: bool) -> Trace {
        let Times {
            onset_s,
            plan_s,
            end_s,
        } = times;
        let mut fares = Vec::new();
        let mut at_s = onset_s + STEP_S;
        while at_s <= end_s {
            fares.push(self.fare(onset_s.max(at_s - SPAN_S), at_s, onset_s));
            at_s += STEP_S;
        }
        let mut course = Vec::new();
        let mut from_s = onset_s - LEAD_S;
        while from_s + SPAN_S <= end_s {
            course.push(self.figures(from_s, from_s + SPAN_S));
            from_s += SPAN_S;
        }
        Trace {
            before: self.figures(onset_s - WINDOW_S, onset_s),
            during: self.figures(plan_s - WINDOW_S, plan_s),
            fares,
            course,
            plan_s: plan_s - onset_s,
            carried_out,
            works: self.fare(end_s - WINDOW_S, end_s, onset_s).served(1.0),
        }
    }
}

/// What one bad answer in a short span of few requests may add up to.
const SLACK: f64 = 4.0;

impl Trace {
    /// Seconds from the onset to the first moment at which users are not served.
    #[must_use]
    pub(super) fn shows_s(&self) -> Option<f64> {
        let mut fares = self.fares.iter();
        let first = fares.find(|fare| fare.at_s < self.plan_s && !fare.served(SLACK));
        first.map(|fare| fare.at_s)
    }

    /// Seconds that the plan took, of a fault that was looked at for so long after it.
    #[must_use]
    pub(super) fn took_s(&self, after_s: f64) -> f64 {
        let last_s = self.fares.last().map_or(0.0, |fare| fare.at_s);
        (last_s - self.plan_s - after_s).max(0.0)
    }

    /// Seconds from the plan to the moment from which on they are.
    #[must_use]
    pub(super) fn heals_s(&self) -> Option<f64> {
        if !self.works {
            return None;
        }
        self.shows_s()?;
        let last = self.fares.iter().rev().find(|fare| !fare.served(SLACK));
        last.map(|fare| fare.at_s + STEP_S - self.plan_s)
            .filter(|heals| *heals > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(bad: std::ops::Range<usize>) -> Trace {
        let fare = |at: usize| Fare {
            at_s: at as f64 * STEP_S,
            errors: if bad.contains(&at) { 0.5 } else { 0.0 },
            p95_ms: 500.0,
            right: 1.0,
            shed: 0.0,
        };
        Trace {
            before: Figures([1.0; 12]),
            during: Figures([1.0; 12]),
            fares: (0..40).map(fare).collect(),
            course: Vec::new(),
            plan_s: 8.0,
            carried_out: true,
            works: !bad.contains(&39),
        }
    }

    #[test]
    fn a_fault_shows_and_heals_when_users_say_so() {
        let healed = trace(3..24);
        assert_eq!(healed.shows_s(), Some(1.5));
        assert_eq!(healed.heals_s(), Some(4.0));
        assert_eq!(healed.took_s(10.0), 1.5);
        assert_eq!(trace(3..40).heals_s(), None);
        assert_eq!(trace(0..0).shows_s(), None);
        // By itself, before the plan.
        assert_eq!(trace(3..10).heals_s(), None);
    }

    #[test]
    fn a_change_is_counted_in_what_counts_as_one() {
        let (before, mut now) = (Figures([10.0; 12]), Figures([10.0; 12]));
        now.0[2] = 7.6;
        now.0[1] = 130.0;
        let change = now.since(&before);
        assert!((change[2] + 2.0).abs() < 1e-9 && (change[1] - 2.0).abs() < 1e-9);
        assert_eq!(change[0], 0.0);
    }
}
