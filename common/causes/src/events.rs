//! What follows what: the mechanism behind logs and traces.
//!
//! In: counts of consecutive events of a component (an operation, then a log template, then the
//! next one), per window of time. A fault in the code changes what follows an event: it returns
//! early, or an error is written where a result was. Out: for each component the event whose
//! continuation changed most, beyond the noise of small counts and what it did in earlier
//! windows. How often an event comes says nothing: that is load.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::graph::Component;

/// Pairs of events that a component may have; what comes beyond is dropped. A service of a few
/// dozen operations and log statements has about thirty.
pub const PAIRS_MAX: usize = 512;

/// An event: a template of a log line or an operation, under any number that stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event(pub u32);

/// Counts of a pair of events.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    reference: f32,
    now: f32,
}

/// How the continuation of one event changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Change {
    pub(crate) from: Event,
    /// What gained or lost most after it, with its share before and now.
    pub(crate) to: Event,
    pub(crate) before: f32,
    pub(crate) now: f32,
    /// Total variation, and how much of it chance explains.
    pub(crate) moved: f32,
    pub(crate) noise: f32,
}

/// Counts of what follows what, of each component, in the reference and since then.
#[derive(Debug, Clone, Default)]
pub struct Events {
    pairs: BTreeMap<usize, BTreeMap<(Event, Event), Pair>>,
}

impl Events {
    /// `to` came `times` times right after `from`, since the last [`Events::close`].
    pub fn count(&mut self, of: Component, from: Event, to: Event, times: u32) {
        let pairs = self.pairs.entry(of.index()).or_default();
        if pairs.len() >= PAIRS_MAX && !pairs.contains_key(&(from, to)) {
            return;
        }
        pairs.entry((from, to)).or_default().now += times as f32;
    }

    /// Ends a span in which all was well: what was counted since the last time becomes
    /// reference, in which older counts fade by `keep` (1 keeps all).
    pub fn close(&mut self, keep: f32) {
        for pair in self.pairs.values_mut().flat_map(BTreeMap::values_mut) {
            pair.reference = pair.reference * keep.clamp(0.0, 1.0) + pair.now;
            pair.now = 0.0;
        }
        for pairs in self.pairs.values_mut() {
            pairs.retain(|_, pair| pair.reference >= FORGOTTEN);
        }
    }

    /// Ends a span in which something was wrong: it counts for nothing.
    pub fn discard(&mut self) {
        for pair in self.pairs.values_mut().flat_map(BTreeMap::values_mut) {
            pair.now = 0.0;
        }
    }

    pub(crate) fn forget(&mut self, of: Component) {
        self.pairs.remove(&of.index());
    }

    pub(crate) fn bytes(&self) -> usize {
        let entry = size_of::<((Event, Event), Pair)>() * 3 / 2;
        self.pairs.values().map(|pairs| pairs.len() * entry).sum()
    }

    /// The continuation that changed most beyond chance; `None` if none could be compared.
    pub(crate) fn change(&self, component: usize) -> Option<Change> {
        let pairs = self.pairs.get(&component)?;
        let mut best: Option<Change> = None;
        let all: Vec<((Event, Event), Pair)> =
            pairs.iter().map(|(key, pair)| (*key, *pair)).collect();
        for group in all.chunk_by(|a, b| a.0.0 == b.0.0) {
            let Some(change) = compare(group) else {
                continue;
            };
            if best.is_none_or(|best| change.moved - change.noise > best.moved - best.noise) {
                best = Some(change);
            }
        }
        best
    }
}

/// A pair whose faded count is below this is gone.
const FORGOTTEN: f32 = 0.05;

/// Compares what follows one event now with what followed it.
fn compare(group: &[((Event, Event), Pair)]) -> Option<Change> {
    let reference: f32 = group.iter().map(|one| one.1.reference).sum();
    let now: f32 = group.iter().map(|one| one.1.now).sum();
    if reference <= 0.0 || now <= 0.0 {
        return None;
    }
    let (mut moved, mut noise, mut most) = (0.0, 0.0, None::<(f32, Change)>);
    for ((from, to), pair) in group {
        let (before, after) = (pair.reference / reference, pair.now / now);
        // Half a count for both, so that what was never seen has some noise too.
        let share = (pair.reference + pair.now + 0.5) / (reference + now + 1.0);
        let variance = share * (1.0 - share).max(0.0) * (1.0 / now + 1.0 / reference);
        let step = (after - before).abs();
        moved += step / 2.0;
        // Half the mean size of a normal step.
        noise += libm::sqrtf(variance) * 0.4;
        if most.is_none_or(|(most, _)| step > most) {
            most = Some((
                step,
                Change {
                    from: *from,
                    to: *to,
                    before,
                    now: after,
                    moved: 0.0,
                    noise: 0.0,
                },
            ));
        }
    }
    let (_, change) = most?;
    Some(Change {
        moved,
        noise,
        ..change
    })
}
