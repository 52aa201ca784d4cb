//! Faults that people put into services to see what becomes of it.
//!
//! In: the notes that tell of their beginnings and ends. Out: when each was in force, so that
//! who asks why something is in trouble hears of it.

use std::collections::BTreeMap;

use homeostat_common::units::Millis;
use homeostat_common::wire::body::ON_PURPOSE;
use serde_json::Value;

use super::view::{Event, Reference};

/// So long after its end an incident may still be its consequence, as for the agent.
const ECHO_MS: u64 = 60_000;

/// A fault on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnPurpose {
    /// The node.
    pub node: String,
    /// What it is, of which service, and who asked for it.
    pub text: String,
    /// When it began, by the coordinator's clock.
    pub from_ms: u64,
    /// Its end; where none was told, at its limit. `None` if that is not told either.
    pub to_ms: Option<u64>,
}

impl OnPurpose {
    /// Whether what was seen between these times may come from it.
    #[must_use]
    pub fn may_show(&self, from_ms: u64, to_ms: u64) -> bool {
        let end = self
            .to_ms
            .map_or(u64::MAX, |end| end.saturating_add(ECHO_MS));
        self.from_ms <= to_ms && from_ms <= end
    }
}

/// Pairs the notes of beginnings with those of ends, which name them.
#[must_use]
pub fn on_purpose(notes: &[Event]) -> Vec<OnPurpose> {
    let named = |event: &Event| -> Option<Reference> { event.causes.first().cloned() };
    let ends: BTreeMap<(String, u64), u64> = notes
        .iter()
        .filter_map(|event| named(event).map(|of| ((of.stream, of.seq), event.at_ms)))
        .collect();
    let begun = notes.iter().filter(|event| named(event).is_none());
    let found = begun.filter_map(|event| {
        let text = event.body.get("text").and_then(Value::as_str)?;
        let end = ends.get(&(event.stream.clone(), event.seq)).copied();
        // One that does not last is over as it is told. Of one that does the end may never be
        // told, where the agent was started anew: it has a limit.
        let limit = match text.strip_suffix(" at most") {
            Some(text) => {
                let limit = text.rsplit_once(", for ").map(|(_, limit)| limit);
                limit.and_then(|limit| Millis::parse(limit).ok())
            }
            None => Some(Millis(0)),
        };
        Some(OnPurpose {
            node: event.node.clone(),
            text: text.strip_prefix(ON_PURPOSE)?.to_owned(),
            from_ms: event.at_ms,
            to_ms: end.or(limit.map(|limit| event.at_ms.saturating_add(limit.0))),
        })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fault_lasts_until_its_end_is_told_or_is_over_at_once() {
        let note = |seq: u64, text: &str, of: Option<u64>| Event {
            node: "edge-1".into(),
            stream: "aa".into(),
            seq,
            at_ms: seq * 100_000,
            body: json!({"service": "web", "text": text}),
            causes: of
                .map(|seq| Reference {
                    stream: "aa".into(),
                    seq,
                })
                .into_iter()
                .collect(),
            ..Event::default()
        };
        let found = on_purpose(&[
            note(
                1,
                "on purpose: hog of web, asked for by anna: x, for 30s at most",
                None,
            ),
            note(
                2,
                "on purpose: hog of web has ended: its time is over",
                Some(1),
            ),
            note(3, "on purpose: kill of web, asked for by anna: x", None),
            note(
                4,
                "on purpose: leak of web, asked for by anna: x, for 30s at most",
                None,
            ),
            note(
                5,
                "on purpose: leak of web, asked for by anna: x, for ages at most",
                None,
            ),
        ]);
        let when: Vec<_> = found.iter().map(|one| (one.from_ms, one.to_ms)).collect();
        assert_eq!(
            when,
            [
                (100_000, Some(200_000)),
                (300_000, Some(300_000)),
                (400_000, Some(430_000)),
                (500_000, None)
            ]
        );
        assert!(found[0].text.starts_with("hog of web, asked for by anna"));
        assert!(found[0].may_show(250_000, 260_000) && !found[0].may_show(260_001, u64::MAX));
        assert!(!found[2].may_show(490_001, u64::MAX), "its end was lost");
        assert!(found[3].may_show(u64::MAX, u64::MAX) && !found[3].may_show(0, 499_999));
    }
}
