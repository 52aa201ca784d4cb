//! Ranks to rows of the report.

use crate::result::{Report, Row};
use crate::stats::{Estimate, share};

/// Hits among the first one, three and five.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hits {
    pub(crate) n: usize,
    pub(crate) top: [usize; 3],
}

/// How many of the first count.
pub(crate) const TOPS: [usize; 3] = [1, 3, 5];

impl Hits {
    /// Counts one fault whose true node has this rank, from 0; `None` if it was not told.
    pub(crate) fn count(&mut self, rank: Option<usize>) {
        self.n += 1;
        for (hits, top) in self.top.iter_mut().zip(TOPS) {
            *hits += usize::from(rank.is_some_and(|rank| rank < top));
        }
    }

    pub(crate) fn share(&self, of: usize) -> Estimate {
        share(self.top[of], self.n)
    }
}

/// Adds a row for each of the first `tops` shares; none of no faults.
pub(crate) fn rows(
    report: &mut Report,
    id: &str,
    what: &str,
    hits: &Hits,
    tops: usize,
    beside: &[(Option<f64>, &str, Option<f64>)],
) {
    let tops = if hits.n == 0 { 0 } else { tops };
    for (of, top) in TOPS.iter().enumerate().take(tops) {
        let row = Row::new(
            &format!("{id}.top{top}"),
            &format!("{what}, top {top}"),
            "ratio",
            hits.share(of),
        )
        .higher();
        let row = match beside.get(of) {
            Some((reference, name, goal)) => {
                let row = row.against(*reference, name);
                goal.map_or(row.clone(), |goal| row.goal(goal))
            }
            None => row,
        };
        report.rows.push(row);
    }
}

/// What confidence is worth: for each told suspect its probability and whether it was a root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calibration(pub(crate) Vec<(f64, bool)>);

impl Calibration {
    /// Mean squared error of the probabilities (Brier 1950).
    pub(crate) fn brier(&self) -> f64 {
        let errors = self.0.iter().map(|(told, was)| {
            let was = f64::from(u8::from(*was));
            (told - was) * (told - was)
        });
        errors.sum::<f64>() / self.0.len().max(1) as f64
    }

    /// Expected calibration error over fifths.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in 0..5
    pub(crate) fn error(&self) -> f64 {
        let mut bins = [(0.0, 0.0, 0_u32); 5];
        for (told, was) in &self.0 {
            let bin = &mut bins[((told * 5.0) as usize).min(4)];
            *bin = (bin.0 + told, bin.1 + f64::from(u8::from(*was)), bin.2 + 1);
        }
        let gaps = bins.iter().map(|(told, was, _)| (told - was).abs());
        gaps.sum::<f64>() / self.0.len().max(1) as f64
    }
}
