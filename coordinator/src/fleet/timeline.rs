//! Puts events in causal order: what led to something stands before it.
//!
//! In: events as nodes told them, in any order, some of them twice. Out: one partial order of
//! them all, and a sequence that agrees with it.
//!
//! Two rules alone order two events:
//!
//! 1. within a stream, the sequence number;
//! 2. across streams, the causes that an event names, and what follows from both rules
//!    together (Lamport's "happened before", 1978).
//!
//! | [`Order::relation`] | means |
//! |---|---|
//! | `Same` | one event, told once or twice |
//! | `Before`, `After` | a chain of the two rules leads from one to the other |
//! | `Concurrent` | no such chain: which came first is not known, and neither led to the other by what nodes told |
//!
//! No clock takes part in that. Where a sequence is wanted, concurrent events stand by `at_ms`:
//! the stamp as moved to the coordinator's clock by what the arrival of records shows
//! ([`crate::io::db`]), because no clock of a node is believed. So nodes whose clocks are an
//! hour apart interleave rightly, and a record that was held back for an hour stands where it
//! happened. What this cannot know is the order of concurrent events closer together than
//! records of two nodes differ in delay.
//!
//! Peers may lie. A stream's own sequence is never given up; a cause that contradicts it, or
//! closes a circle, is left out and counted ([`Order::contradictions`]). Work and memory are
//! linear in events and causes, but for circles: each costs a look at what is left.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::view::{Event, Relation};

/// Events in one partial order.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// In a sequence that agrees with the order.
    events: Vec<Event>,
    /// Of each event, by its place, the places of those that lead to it directly; all smaller
    /// than its own.
    causes: Vec<Vec<usize>>,
    contradictions: u64,
}

impl Order {
    /// Orders `events`; the result does not depend on the order they came in.
    #[must_use]
    pub fn of(mut events: Vec<Event>) -> Self {
        events.sort_by(|a, b| (&a.stream, a.seq).cmp(&(&b.stream, b.seq)));
        events.dedup_by(|a, b| (&a.stream, a.seq) == (&b.stream, b.seq));
        let (claimed, mut contradictions) = claims(&events);
        let mut effects: Vec<Vec<usize>> = vec![Vec::new(); events.len()];
        for (index, causes) in claimed.iter().enumerate() {
            for &cause in causes {
                effects[cause].push(index);
            }
        }
        let mut waiting = claimed.clone();
        let tie = |index: usize| {
            let event = &events[index];
            (event.at_ms, event.hlc_count, index)
        };
        let mut left: BTreeSet<_> = (0..events.len()).map(tie).collect();
        let mut ready: BinaryHeap<_> = (0..events.len())
            .filter(|index| waiting[*index].is_empty())
            .map(|index| Reverse(tie(index)))
            .collect();
        // Places in the sequence, by index.
        let mut place = vec![0; events.len()];
        let mut sequence = Vec::with_capacity(events.len());
        let mut causes: Vec<Vec<usize>> = Vec::with_capacity(events.len());
        while !left.is_empty() {
            let next = ready.pop().map(|Reverse(next)| next).or_else(|| {
                // What is left runs in a circle. Some stream's next event is always there:
                // the earliest of these goes on without the causes that it still waits for.
                let first = |(_, _, index): &&(u64, u64, usize)| {
                    former(&events, *index).is_none_or(|former| !waiting[*index].contains(&former))
                };
                left.iter().find(first).copied()
            });
            let Some(next) = next else { break };
            if !left.remove(&next) {
                continue;
            }
            let index = next.2;
            place[index] = sequence.len();
            sequence.push(index);
            contradictions += waiting[index].len() as u64;
            let kept = claimed[index]
                .iter()
                .filter(|c| !waiting[index].contains(c));
            causes.push(kept.map(|cause| place[*cause]).collect());
            waiting[index].clear();
            for &effect in &effects[index] {
                if waiting[effect].remove(&index) && waiting[effect].is_empty() {
                    ready.push(Reverse(tie(effect)));
                }
            }
        }
        let mut slots: Vec<Option<Event>> = events.into_iter().map(Some).collect();
        let taken = sequence
            .into_iter()
            .filter_map(|index| slots.get_mut(index).and_then(Option::take));
        Self {
            events: taken.collect(),
            causes,
            contradictions,
        }
    }

    /// The events: none stands before one that led to it.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Causes that were left out, because they contradict the sequence of a stream or each
    /// other.
    #[must_use]
    pub fn contradictions(&self) -> u64 {
        self.contradictions
    }

    /// How the event at place `first` stands to the one at `second`, both in
    /// [`Order::events`]; `Concurrent` for a place that there is not.
    #[must_use]
    pub fn relation(&self, first: usize, second: usize) -> Relation {
        if first.max(second) >= self.events.len() {
            return Relation::Concurrent;
        }
        match first.cmp(&second) {
            std::cmp::Ordering::Equal => Relation::Same,
            std::cmp::Ordering::Less if self.past(second)[first] => Relation::Before,
            std::cmp::Ordering::Greater if self.past(first)[second] => Relation::After,
            _ => Relation::Concurrent,
        }
    }

    /// The same events, each with how it stands to the one at place `about`.
    #[must_use]
    pub fn about(mut self, about: Option<usize>) -> Vec<Event> {
        let Some(about) = about.filter(|about| *about < self.events.len()) else {
            return self.events;
        };
        let past = self.past(about);
        // Causes stand before effects, so one pass finds all that follow.
        let mut later = vec![false; self.events.len()];
        later[about] = true;
        for place in about + 1..later.len() {
            later[place] = self.causes[place].iter().any(|cause| later[*cause]);
        }
        for (place, event) in self.events.iter_mut().enumerate() {
            event.relation = Some(match (place == about, past[place], later[place]) {
                (true, _, _) => Relation::Same,
                (_, true, _) => Relation::Before,
                (_, _, true) => Relation::After,
                _ => Relation::Concurrent,
            });
        }
        self.events
    }

    /// By place, whether it happened before the one at `of`.
    fn past(&self, of: usize) -> Vec<bool> {
        let mut past = vec![false; self.events.len()];
        let mut next = vec![of];
        while let Some(place) = next.pop() {
            for &cause in self.causes.get(place).into_iter().flatten() {
                if let Some(known) = past.get_mut(cause)
                    && !std::mem::replace(known, true)
                {
                    next.push(cause);
                }
            }
        }
        past
    }
}

/// Sorts `events` in causal order; the result does not depend on the order they
/// came in.
#[must_use]
pub fn causal_order(events: Vec<Event>) -> Vec<Event> {
    Order::of(events).events
}

/// The event before it in its stream.
fn former(events: &[Event], index: usize) -> Option<usize> {
    let event = events.get(index)?;
    let former = index.checked_sub(1)?;
    (events.get(former)?.stream == event.stream).then_some(former)
}

/// Of each event, by index, the indices of those that lead to it directly, as told; and how
/// many causes contradict the sequence of their own stream.
fn claims(events: &[Event]) -> (Vec<BTreeSet<usize>>, u64) {
    let at: BTreeMap<(&str, u64), usize> = events
        .iter()
        .enumerate()
        .map(|(index, event)| ((event.stream.as_str(), event.seq), index))
        .collect();
    let mut contradictions = 0;
    let claimed = events.iter().enumerate().map(|(index, event)| {
        let mut causes: BTreeSet<usize> = former(events, index).into_iter().collect();
        for cause in &event.causes {
            if cause.stream == event.stream && cause.seq >= event.seq {
                contradictions += 1;
            } else if let Some(&cause) = at.get(&(cause.stream.as_str(), cause.seq)) {
                causes.insert(cause);
            }
        }
        causes
    });
    (claimed.collect(), contradictions)
}

#[cfg(test)]
mod tests {
    use super::super::view::Reference;
    use super::*;
    use proptest::prelude::*;

    fn event(stream: &str, seq: u64, hlc_ms: u64, causes: &[(&str, u64)]) -> Event {
        Event {
            node: stream.into(),
            stream: stream.into(),
            seq,
            kind: "note".into(),
            hlc_ms,
            at_ms: hlc_ms,
            causes: causes
                .iter()
                .map(|(stream, seq)| Reference {
                    stream: (*stream).into(),
                    seq: *seq,
                })
                .collect(),
            ..Event::default()
        }
    }

    fn names(events: Vec<Event>) -> String {
        let names: Vec<_> = causal_order(events)
            .iter()
            .map(|event| format!("{}{}", event.stream, event.seq))
            .collect();
        names.join(" ")
    }

    #[test]
    fn a_clock_that_is_wrong_does_not_put_an_effect_before_its_cause() {
        let events = vec![
            event("a", 1, 900, &[]),
            event("a", 2, 100, &[]),
            event("b", 7, 5, &[("a", 2)]),
            event("b", 8, 6, &[]),
            event("c", 1, 950, &[]),
        ];
        assert_eq!(names(events), "a1 a2 b7 b8 c1");
    }

    #[test]
    fn a_circle_of_causes_ends_and_loses_nothing() {
        let events = vec![
            event("a", 1, 20, &[("b", 1)]),
            event("b", 1, 10, &[("a", 1)]),
            event("c", 1, 30, &[("c", 1), ("a", 1), ("x", 9)]),
        ];
        assert_eq!(names(events.clone()), "b1 a1 c1");
        let order = Order::of(events);
        // One of the two that close the circle, and the one that names itself.
        assert_eq!(order.contradictions(), 2);
        assert_eq!(order.relation(0, 1), Relation::Before);
        assert_eq!(order.relation(2, 0), Relation::After);
    }

    #[test]
    fn a_lie_about_the_future_of_a_stream_does_not_undo_its_sequence() {
        // b1 says that it follows from a3, a1 that it follows from b2, and a1 from a2.
        let events = vec![
            event("a", 1, 50, &[("b", 2), ("a", 2)]),
            event("a", 2, 40, &[]),
            event("a", 3, 30, &[]),
            event("b", 1, 20, &[("a", 3)]),
            event("b", 2, 10, &[]),
        ];
        let order = Order::of(events);
        let names: Vec<_> = order
            .events()
            .iter()
            .map(|e| format!("{}{}", e.stream, e.seq))
            .collect();
        assert_eq!(names, ["b1", "b2", "a1", "a2", "a3"]);
        assert_eq!(order.contradictions(), 2);
    }

    #[test]
    fn what_nothing_connects_is_concurrent_however_far_apart_the_stamps_are() {
        let events = vec![
            event("a", 1, 0, &[]),
            event("b", 1, 3_600_000, &[]),
            event("b", 2, 3_600_001, &[("a", 1)]),
        ];
        let order = Order::of(events);
        assert_eq!(order.relation(0, 1), Relation::Concurrent);
        assert_eq!(order.relation(0, 2), Relation::Before);
        assert_eq!(order.relation(1, 1), Relation::Same);
        assert_eq!(order.relation(0, 9), Relation::Concurrent);
        let about: Vec<_> = order
            .about(Some(1))
            .into_iter()
            .filter_map(|e| e.relation)
            .collect();
        assert_eq!(
            about,
            [Relation::Concurrent, Relation::Same, Relation::After]
        );
    }

    /// What happened in truth: nodes with clocks up to an hour off, that tell each other
    /// something now and then. Of each event its vector clock.
    fn fleet(seed: u64, nodes: usize, count: usize) -> Vec<(Event, Vec<u64>)> {
        const HOUR: u64 = 3_600_000;
        let mut chance = fastrand::Rng::with_seed(seed);
        let skew: Vec<u64> = (0..nodes).map(|_| chance.u64(0..=2 * HOUR)).collect();
        let mut clocks = vec![vec![0; nodes]; nodes];
        let mut told: Vec<(Event, Vec<u64>)> = Vec::new();
        for step in 0..count {
            let node = chance.usize(0..nodes);
            let heard = chance.bool() && !told.is_empty();
            let cause = heard.then(|| told[chance.usize(0..told.len())].clone());
            clocks[node][node] += 1;
            let seq = clocks[node][node];
            let mut new = event(
                &format!("n{node}"),
                seq,
                5 * HOUR + 10 * step as u64 + skew[node] - HOUR,
                &[],
            );
            if let Some((cause, before)) = cause {
                for (own, other) in clocks[node].iter_mut().zip(before) {
                    *own = (*own).max(other);
                }
                new.causes.push(Reference {
                    stream: cause.stream,
                    seq: cause.seq,
                });
            }
            told.push((new, clocks[node].clone()));
        }
        told
    }

    #[test]
    fn the_order_is_the_true_one_with_clocks_an_hour_off_shuffled_and_doubled() {
        let mut concurrent = 0;
        for seed in 0..40 {
            let truth = fleet(seed, 5, 60);
            let mut chance = fastrand::Rng::with_seed(seed);
            let mut arrived: Vec<Event> = truth.iter().map(|(event, _)| event.clone()).collect();
            arrived.extend(
                truth
                    .iter()
                    .filter(|_| chance.u8(0..4) == 0)
                    .map(|(event, _)| event.clone()),
            );
            chance.shuffle(&mut arrived);
            let order = Order::of(arrived);
            assert_eq!(
                (order.events().len(), order.contradictions()),
                (60, 0),
                "seed {seed}"
            );
            let clock = |event: &Event| {
                let found = truth
                    .iter()
                    .find(|(e, _)| (&e.stream, e.seq) == (&event.stream, event.seq));
                found.map(|(_, clock)| clock.clone()).unwrap()
            };
            let clocks: Vec<Vec<u64>> = order.events().iter().map(clock).collect();
            let below = |a: &[u64], b: &[u64]| a.iter().zip(b).all(|(a, b)| a <= b);
            for (a, first) in clocks.iter().enumerate() {
                for (b, second) in clocks.iter().enumerate() {
                    let wanted = match (below(first, second), below(second, first)) {
                        (true, true) => Relation::Same,
                        (true, false) => Relation::Before,
                        (false, true) => Relation::After,
                        (false, false) => Relation::Concurrent,
                    };
                    concurrent += u32::from(wanted == Relation::Concurrent);
                    assert_eq!(order.relation(a, b), wanted, "seed {seed}: {a} {b}");
                }
            }
        }
        assert!(
            concurrent > 10_000,
            "only {concurrent} pairs were concurrent"
        );
    }

    #[test]
    fn a_thousand_events_that_all_blame_each_other_are_ordered_at_once() {
        let mut chance = fastrand::Rng::with_seed(9);
        let mut events = Vec::new();
        for stream in 0..20 {
            for seq in 1..=50 {
                let mut new = event(&format!("n{stream}"), seq, chance.u64(0..1000), &[]);
                for _ in 0..8 {
                    let stream = format!("n{}", chance.u8(0..20));
                    new.causes.push(Reference {
                        stream,
                        seq: chance.u64(1..=50),
                    });
                }
                events.push(new);
            }
        }
        let order = Order::of(events);
        assert_eq!(order.events().len(), 1000);
        assert!(order.contradictions() > 0);
        for (place, causes) in order.causes.iter().enumerate() {
            assert!(causes.iter().all(|cause| *cause < place));
        }
        for pair in order.events().windows(2) {
            assert!(pair[0].stream != pair[1].stream || pair[0].seq < pair[1].seq);
        }
    }

    proptest! {
        #[test]
        fn order_of_arrival_does_not_matter(
            stamps in prop::collection::vec((0usize..3, 0u64..50, 0usize..12, any::<u32>()), 1..12),
        ) {
            let streams = ["a", "b", "c"];
            let mut made: Vec<(u32, Event)> = Vec::new();
            for (which, stamp, cause, shuffle) in stamps {
                let seq = made.iter().filter(|(_, e)| e.stream == streams[which]).count() as u64 + 1;
                let mut new = event(streams[which], seq, stamp, &[]);
                if let Some((_, cause)) = made.get(cause) {
                    new.causes.push(Reference { stream: cause.stream.clone(), seq: cause.seq });
                }
                made.push((shuffle, new));
            }
            let straight: Vec<_> = made.iter().map(|(_, e)| e.clone()).collect();
            made.sort_by_key(|(shuffle, _)| *shuffle);
            let shuffled: Vec<_> = made.into_iter().map(|(_, e)| e).collect();
            let order = causal_order(shuffled);
            prop_assert_eq!(&order, &causal_order(straight));
            for (index, event) in order.iter().enumerate() {
                for later in &order[index + 1..] {
                    prop_assert!(!(later.stream == event.stream && later.seq <= event.seq));
                    prop_assert!(!event.causes.iter().any(|c| c.stream == later.stream && c.seq == later.seq));
                }
            }
        }
    }
}
