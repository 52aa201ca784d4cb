//! What follows what: the mechanism behind logs and traces.
//!
//! In: counts of consecutive events of a component (an operation, then a log template, then the
//! next one). A fault in the code changes what follows an event: it returns early, or an error
//! is written where a result was. Out: for each component the event whose continuation changed
//! most, beyond the noise of small counts and beyond what it changes from one span to the next
//! while all is well. How often an event comes says nothing: that is load.
//!
//! The reference must hold no fault, or the next one of the same kind is taken for usual: a span
//! in which something was wrong is discarded, not closed.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::graph::Component;
use crate::topic::{TOPICS, Topics};

/// Pairs of events that a component may have; what comes beyond is dropped. A service of a few
/// dozen operations and log statements has about thirty.
pub const PAIRS_MAX: usize = 512;

/// Standard errors of a share that are no change. Of 1, 2 and 3 the one that ranked best on the
/// even cases of Nezha's TrainTicket day.
const NOISE: f32 = 2.0;

/// The change of a continuation that is usual even for the steadiest event: with full history
/// nobody is suspected for less than 15 %.
const CHANGE_MIN: f32 = 0.065;

/// So many more of an event than usual are half of what there can be.
const HALF: f32 = 2.0;

/// How many more lines than usual make a strength that [`Events::novel`] gave.
pub(crate) fn more_lines(strength: f32) -> f32 {
    let strength = strength.clamp(0.0, 1.0 - f32::EPSILON);
    HALF * strength / (1.0 - strength)
}

/// A pair whose faded count is below this is gone.
const FORGOTTEN: f32 = 0.05;

/// An event: a template of a log line or an operation, under any number that stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event(pub u32);

/// How often one event followed another, before and since the last span was closed.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    reference: f32,
    now: f32,
}

/// What an event's continuation changes from span to span.
#[derive(Debug, Clone, Copy, Default)]
struct Habit {
    sum: f32,
    spans: f32,
}

impl Habit {
    /// The mean, as if one more span had changed nothing.
    fn usual(self) -> f32 {
        self.sum / (self.spans + 1.0)
    }
}

#[derive(Debug, Clone, Default)]
struct Log {
    pairs: BTreeMap<(Event, Event), Pair>,
    habits: BTreeMap<Event, Habit>,
}

/// How the continuation of one event changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Change {
    pub(crate) from: Event,
    /// What gained or lost most after it, with its share before and now.
    pub(crate) to: Event,
    pub(crate) before: f32,
    pub(crate) now: f32,
    /// Total variation beyond the noise of the counts.
    pub(crate) moved: f32,
    /// The same in a usual span.
    pub(crate) usual: f32,
}

impl Change {
    pub(crate) fn beyond(&self) -> f32 {
        (self.moved - self.usual).max(0.0)
    }

    pub(crate) fn times(&self) -> f32 {
        self.moved / self.usual.max(CHANGE_MIN)
    }
}

/// Counts of what follows what, of each component, in the reference and since then.
///
/// At most 512 pairs a component, 16 B each and as much for the tree: 0.8 MB for 50 components
/// that are all full, 50 KB for 50 of thirty pairs.
#[derive(Debug, Clone, Default)]
pub struct Events {
    logs: BTreeMap<usize, Log>,
    /// Spans that are reference, faded as their counts.
    spans: f32,
    topics: BTreeMap<Event, Topics>,
}

/// Events whose topics are kept; what comes beyond is about anything.
pub const TOPICS_MAX: usize = 4096;

impl Events {
    /// Says what an event is about, by its text.
    pub fn about(&mut self, event: Event, text: &str) {
        if self.topics.len() < TOPICS_MAX || self.topics.contains_key(&event) {
            self.topics.insert(event, Topics::of(text));
        }
    }

    /// `to` came `times` times right after `from`, since the last [`Events::close`].
    pub fn count(&mut self, of: Component, from: Event, to: Event, times: u32) {
        let pairs = &mut self.logs.entry(of.index()).or_default().pairs;
        if pairs.len() < PAIRS_MAX || pairs.contains_key(&(from, to)) {
            pairs.entry((from, to)).or_default().now += times as f32;
        }
    }

    /// Ends a span in which all was well: what was counted since the last time becomes
    /// reference, in which older counts fade by `keep` (1 keeps all).
    pub fn close(&mut self, keep: f32) {
        let keep = if keep.is_finite() {
            keep.clamp(0.0, 1.0)
        } else {
            1.0
        };
        self.spans = self.spans * keep + 1.0;
        for log in self.logs.values_mut() {
            for change in log.changes() {
                let habit = log.habits.entry(change.from).or_default();
                habit.sum = habit.sum * keep + change.moved;
                habit.spans = habit.spans * keep + 1.0;
            }
            for pair in log.pairs.values_mut() {
                pair.reference = pair.reference * keep + pair.now;
                pair.now = 0.0;
            }
            log.pairs.retain(|_, pair| pair.reference >= FORGOTTEN);
            let pairs = &log.pairs;
            log.habits.retain(|from, _| {
                let mut range = pairs.range((*from, Event(0))..=(*from, Event(u32::MAX)));
                range.next().is_some()
            });
        }
    }

    /// Ends a span in which something was wrong: it counts for nothing.
    pub fn discard(&mut self) {
        for log in self.logs.values_mut() {
            log.pairs.values_mut().for_each(|pair| pair.now = 0.0);
            log.pairs.retain(|_, pair| pair.reference >= FORGOTTEN);
        }
    }

    /// Of each component and topic how much more of some event there is than one of `writers`
    /// usually has in a span, in `0..1`; none before a span was closed.
    pub(crate) fn novel(&self, writers: usize) -> BTreeMap<usize, [f32; TOPICS]> {
        let mut usual: BTreeMap<Event, f32> = BTreeMap::new();
        for log in self.logs.values() {
            for ((_, to), pair) in &log.pairs {
                *usual.entry(*to).or_default() += pair.reference;
            }
        }
        let each = self.spans * writers.max(1) as f32;
        let novel = |log: &Log| {
            let mut strongest = [0.0_f32; TOPICS];
            for ((_, to), pair) in &log.pairs {
                // Half a count more than was seen: none seen is no proof of none.
                let usual = (usual.get(to).copied().unwrap_or(0.0) + 0.5) / each;
                let more = pair.now - usual - 2.0 * libm::sqrtf(usual);
                if more <= 0.0 {
                    continue;
                }
                let topics = self.topics.get(to).copied().unwrap_or_default();
                for (topic, strongest) in strongest.iter_mut().enumerate() {
                    if topics.place(topic) {
                        *strongest = strongest.max(more / (more + HALF));
                    }
                }
            }
            strongest
        };
        let known = self.logs.iter().filter(|_| each > 0.0);
        known.map(|(of, log)| (*of, novel(log))).collect()
    }

    pub(crate) fn forget(&mut self, of: Component) {
        self.logs.remove(&of.index());
    }

    pub(crate) fn bytes(&self) -> usize {
        let pair = size_of::<((Event, Event), Pair)>();
        let habit = size_of::<(Event, Habit)>();
        let logs = self.logs.values();
        // A tree's nodes are at least half full.
        logs.map(|log| 2 * (log.pairs.len() * pair + log.habits.len() * habit))
            .sum()
    }

    /// The continuation that changed most beyond chance and habit; `None` if none could be
    /// compared.
    pub(crate) fn change(&self, component: usize) -> Option<Change> {
        let changes = self.logs.get(&component)?.changes();
        let mut changes = changes.into_iter();
        let first = changes.next()?;
        Some(changes.fold(first, |best, one| {
            let gap = |one: &Change| one.moved - one.usual;
            if gap(&one) > gap(&best) { one } else { best }
        }))
    }
}

impl Log {
    /// Every event that came both in the reference and since.
    fn changes(&self) -> Vec<Change> {
        let pairs: Vec<_> = self.pairs.iter().map(|(key, pair)| (*key, *pair)).collect();
        let groups = pairs.chunk_by(|a, b| a.0.0 == b.0.0);
        let changes = groups.filter_map(|group| {
            let mut change = compare(group)?;
            let habit = self.habits.get(&change.from).copied().unwrap_or_default();
            change.usual = habit.usual();
            Some(change)
        });
        changes.collect()
    }
}

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
        // Half a count more, so that what was never seen has some noise too.
        let share = (pair.reference + pair.now + 0.5) / (reference + now + 1.0);
        let variance = share * (1.0 - share).max(0.0) * (1.0 / now + 1.0 / reference);
        let step = (after - before).abs();
        moved += step / 2.0;
        // Half the mean size of a normal step of this variance.
        noise += libm::sqrtf(variance) * 0.4;
        if most.is_none_or(|(most, _)| step > most) {
            let change = Change {
                from: *from,
                to: *to,
                before,
                now: after,
                moved: 0.0,
                usual: 0.0,
            };
            most = Some((step, change));
        }
    }
    let (_, change) = most?;
    Some(Change {
        moved: (moved - NOISE * noise).max(0.0),
        ..change
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Component = Component(3);

    fn span(events: &mut Events, returned: u32, failed: u32) {
        events.count(OF, Event(1), Event(2), returned);
        events.count(OF, Event(1), Event(9), failed);
    }

    #[test]
    fn another_continuation_is_a_change_and_more_of_the_same_is_not() {
        let mut events = Events::default();
        for _ in 0..5 {
            span(&mut events, 40, 0);
            events.close(1.0);
        }
        span(&mut events, 400, 0);
        assert_eq!(events.change(3).unwrap().beyond(), 0.0);
        events.discard();
        span(&mut events, 10, 30);
        let change = events.change(3).unwrap();
        assert_eq!((change.from, change.before), (Event(1), 1.0));
        assert!(change.beyond() > 0.5 && change.times() > 5.0, "{change:?}");
        assert_eq!(events.change(4), None);
    }

    #[test]
    fn what_always_varies_says_less() {
        let varied = |habit: &[(u32, u32)]| {
            let mut events = Events::default();
            for (returned, failed) in habit {
                span(&mut events, *returned, *failed);
                events.close(1.0);
            }
            span(&mut events, 10, 90);
            events.change(3).unwrap().beyond()
        };
        assert!(varied(&[(90, 10), (10, 90), (90, 10), (15, 85)]) < varied(&[(50, 50); 4]));
    }

    #[test]
    fn memory_is_bounded_and_old_pairs_go() {
        let mut events = Events::default();
        for at in 0..10_000 {
            events.count(OF, Event(at), Event(at + 1), 1);
        }
        assert!(events.bytes() < 40_000, "{}", events.bytes());
        for _ in 0..10 {
            events.close(0.5);
        }
        assert_eq!(events.bytes(), 0);
    }
}
