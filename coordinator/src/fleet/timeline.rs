//! Puts events in causal order: what led to something stands before it.
//!
//! Within a stream the sequence number orders, across streams the explicit
//! causes do. Between events of which neither led to the other, `at_ms` decides:
//! the stamp as moved to the coordinator's clock by what the arrival of records
//! shows ([`crate::io::db`]), because no clock of a node is believed. So nodes
//! whose clocks are an hour apart interleave rightly, and a record that was held
//! back for an hour stands where it happened. What this cannot know is the order
//! of events closer together than records of two nodes differ in delay. Peers
//! may lie: causes that run in a circle are cut at the earliest event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::view::Event;

/// Sorts `events` in causal order; the result does not depend on the order they
/// came in.
#[must_use]
pub fn causal_order(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by(|a, b| (&a.stream, a.seq).cmp(&(&b.stream, b.seq)));
    events.dedup_by(|a, b| (&a.stream, a.seq) == (&b.stream, b.seq));
    let place: BTreeMap<(&str, u64), usize> = events
        .iter()
        .enumerate()
        .map(|(index, event)| ((event.stream.as_str(), event.seq), index))
        .collect();
    let mut effects: Vec<Vec<usize>> = vec![Vec::new(); events.len()];
    let mut waiting: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); events.len()];
    for (index, event) in events.iter().enumerate() {
        let former = index.checked_sub(1).filter(|former| {
            events
                .get(*former)
                .is_some_and(|e| e.stream == event.stream)
        });
        let named = event
            .causes
            .iter()
            .filter_map(|cause| place.get(&(cause.stream.as_str(), cause.seq)).copied());
        for cause in former.into_iter().chain(named) {
            if cause != index && waiting[index].insert(cause) {
                effects[cause].push(index);
            }
        }
    }
    let tie = |index: usize| {
        let event = &events[index];
        (event.at_ms, event.hlc_count, index)
    };
    let mut left: BTreeSet<_> = (0..events.len()).map(tie).collect();
    let mut ready: BinaryHeap<_> = (0..events.len())
        .filter(|index| waiting[*index].is_empty())
        .map(|index| Reverse(tie(index)))
        .collect();
    let mut order = Vec::with_capacity(events.len());
    while let Some(&earliest) = left.first() {
        // With nothing ready, what is left runs in a circle.
        let next = ready.pop().map_or(earliest, |Reverse(next)| next);
        if !left.remove(&next) {
            continue;
        }
        let index = next.2;
        order.push(index);
        for &effect in &effects[index] {
            waiting[effect].remove(&index);
            if waiting[effect].is_empty() {
                ready.push(Reverse(tie(effect)));
            }
        }
    }
    let mut slots: Vec<Option<Event>> = events.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|index| slots.get_mut(index).and_then(Option::take))
        .collect()
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
        assert_eq!(names(events), "b1 a1 c1");
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
