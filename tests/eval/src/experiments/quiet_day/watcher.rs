//! One node's alarms, as the agent raises them: of the node and of each service, with the
//! first metric that is unusual.

use std::collections::BTreeMap;
use std::fmt;

use homeostat_agent::config::Detect;
use homeostat_agent::detect::usual::{Concern, Usual};
use homeostat_common::units::{Micros, Ratio};

use super::plain::Plain;

/// An alarm.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Raised {
    pub(super) at_s: f64,
    pub(super) metric: String,
    pub(super) detector: &'static str,
    pub(super) value: f64,
    pub(super) usual: f64,
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (metric, detector) = (&self.metric, self.detector);
        write!(
            f,
            "{:.0} s: {metric} is {:.4}, usually {:.4} ({detector})",
            self.at_s, self.value, self.usual
        )
    }
}

/// What names a metric, and who is told about it.
pub(super) trait Key: Ord + Clone {
    type Scope: Ord + Clone;
    fn scope(&self) -> Self::Scope;
    fn words(&self) -> String;
    fn concern(&self) -> Concern;
}

/// The agent's detectors beside plain ones.
#[derive(Clone)]
pub(super) struct Watcher<K: Key> {
    usual: Usual<K>,
    plain: Plain<K>,
    standing: BTreeMap<K::Scope, ()>,
    plain_standing: BTreeMap<K::Scope, ()>,
    pub(super) ours: Vec<Raised>,
    /// Times of the alarms of the plain ones.
    pub(super) others: Vec<f64>,
}

impl<K: Key> Watcher<K> {
    pub(super) fn new() -> Self {
        let policy = Detect::default().policy();
        Self {
            usual: Usual::new(policy),
            plain: Plain::new(policy),
            standing: BTreeMap::new(),
            plain_standing: BTreeMap::new(),
            ours: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Takes the reading of one metric in; [`Self::tell`] follows once all are in.
    pub(super) fn observe(&mut self, now: Micros, key: &K, value: Option<f64>) {
        let concern = key.concern();
        self.usual
            .observe(now, (key, concern), value, Ratio::ONE, true);
        if let Some(value) = value {
            self.plain.observe(now, key, value);
        }
    }

    /// Raises what is new, and clears what is over.
    pub(super) fn tell(&mut self, now: Micros) {
        let at_s = now.0 as f64 / 1e6;
        let mut standing = BTreeMap::new();
        for odd in self.usual.odd() {
            let scope = odd.key.scope();
            let first = standing.insert(scope.clone(), ()).is_none();
            if first && !self.standing.contains_key(&scope) {
                self.ours.push(Raised {
                    at_s,
                    metric: odd.key.words(),
                    detector: odd.member.name(),
                    value: odd.value,
                    usual: odd.usual.0,
                });
            }
        }
        self.standing = standing;
        let mut standing = BTreeMap::new();
        for key in self.plain.odd() {
            let scope = key.scope();
            let first = standing.insert(scope.clone(), ()).is_none();
            if first && !self.plain_standing.contains_key(&scope) {
                self.others.push(at_s);
            }
        }
        self.plain_standing = standing;
    }

    pub(super) fn metrics(&self) -> usize {
        self.usual.watched().0
    }
}
