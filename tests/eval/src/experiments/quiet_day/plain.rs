//! What one would write first: a mean and a deviation of each metric, and an alarm at six
//! deviations that last as long as the agent's must.

use std::collections::BTreeMap;

use homeostat_agent::detect::usual::Policy;
use homeostat_common::units::{Micros, Millis};

/// Deviations.
const FAR: f64 = 6.0;
/// Weight of a new sample.
const PACE: f64 = 1.0 / 1024.0;
/// Samples before it speaks, as many as a bank takes.
const WARM: f64 = 128.0;
/// It is over after so long below half of that.
const CALM: Millis = Millis::secs(60);

#[derive(Clone, Default)]
struct One {
    samples: f64,
    mean: f64,
    variance: f64,
    far: Option<(Micros, u32)>,
    calm: Option<Micros>,
    stands: bool,
}

#[derive(Clone)]
pub(super) struct Plain<K> {
    policy: Policy,
    all: BTreeMap<K, One>,
}

impl<K: Ord + Clone> Plain<K> {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            all: BTreeMap::new(),
        }
    }

    pub(super) fn observe(&mut self, now: Micros, key: &K, value: f64) {
        if !self.all.contains_key(key) && self.all.len() >= self.policy.metrics {
            return;
        }
        let one = self.all.entry(key.clone()).or_default();
        let error = value - one.mean;
        // A metric that never moved has no deviation: a thousandth of it counts as one.
        let deviation = one.variance.sqrt().max(1e-3 * one.mean.abs()).max(1e-9);
        let far = error.abs() / deviation;
        if one.samples >= WARM && far >= FAR {
            let (since, count) = one.far.unwrap_or((now, 0));
            one.far = Some((since, count + 1));
            one.calm = None;
            one.stands |= count + 1 >= 3 && now.since(since) >= self.policy.persist;
        } else if far < FAR / 2.0 {
            let since = *one.calm.get_or_insert(now);
            if !one.stands {
                one.far = None;
            } else if now.since(since) >= CALM {
                (one.stands, one.far) = (false, None);
            }
        }
        one.samples += 1.0;
        let pace = PACE.max(1.0 / one.samples);
        one.mean += pace * error;
        one.variance += pace * (error * error - one.variance);
    }

    pub(super) fn odd(&self) -> impl Iterator<Item = &K> {
        let all = self.all.iter();
        all.filter_map(|(key, one)| one.stands.then_some(key))
    }
}
