//! What a service tells of itself on its page of metrics.
//!
//! In go the watched values of each answer and a hash of the whole page; out come
//! whether the page still moves, and which value has been above its bound for too
//! long. Pages are read elsewhere.

use homeostat_common::units::Micros;

use crate::config::Gauge;

/// What a service tells of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetricsWatch {
    hash: Option<u64>,
    /// Answers in a row that were the same as the one before.
    same: u8,
    /// Per gauge: the last value, and since when it is above its bound.
    gauges: Vec<(Option<f64>, Option<Micros>)>,
}

impl MetricsWatch {
    /// Takes an answer in.
    pub fn push(&mut self, now: Micros, policy: &[Gauge], hash: u64, values: &[Option<f64>]) {
        self.same = if self.hash == Some(hash) {
            self.same.saturating_add(1)
        } else {
            0
        };
        self.hash = Some(hash);
        self.gauges.resize(policy.len(), (None, None));
        for ((gauge, value), kept) in policy.iter().zip(values).zip(&mut self.gauges) {
            let above = value.is_some_and(|value| value > gauge.max);
            *kept = (*value, above.then(|| kept.1.unwrap_or(now)));
        }
    }

    /// So many answers in a row were the same to the last byte.
    #[must_use]
    pub fn frozen(&self, after: u8) -> bool {
        after > 0 && self.same >= after
    }

    /// The first gauge that has been above its bound for too long: which, its
    /// value, and since when.
    pub fn above<'g>(&self, policy: &'g [Gauge], now: Micros) -> Option<(&'g Gauge, f64, Micros)> {
        policy
            .iter()
            .zip(&self.gauges)
            .find_map(|(gauge, (value, since))| {
                let since = (*since)?;
                (now.since(since) >= gauge.hold).then_some((gauge, (*value)?, since))
            })
    }
}
