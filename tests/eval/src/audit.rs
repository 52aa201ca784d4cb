//! Whether what the coordinator holds is whole: nothing lost, nothing twice, nothing in an
//! order that cannot have been.

use std::collections::BTreeMap;

use homeostat_coordinator::fleet::view::{Event, IncidentDetail};

/// What is stored, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Events stored.
    pub stored: usize,
    /// Streams they came from: more than one means that a node's store was rebuilt.
    pub streams: usize,
    /// Numbers below the highest of their stream that are missing.
    pub holes: u64,
    /// Events stored more than once.
    pub doubled: u64,
    /// Events that a node says it had to drop.
    pub dropped: u64,
}

impl Audit {
    /// Looks through all events.
    #[must_use]
    pub fn of(events: &[Event]) -> Self {
        let mut streams: BTreeMap<&str, BTreeMap<u64, u64>> = BTreeMap::new();
        for event in events {
            let times = streams.entry(&event.stream).or_default();
            *times.entry(event.seq).or_default() += 1;
        }
        let holes = |seqs: &BTreeMap<u64, u64>| {
            let top = seqs.keys().next_back().copied().unwrap_or(0);
            top.saturating_sub(seqs.len() as u64)
        };
        Self {
            stored: events.len(),
            streams: streams.len(),
            holes: streams.values().map(holes).sum(),
            doubled: streams
                .values()
                .flat_map(BTreeMap::values)
                .map(|times| times - 1)
                .sum(),
            dropped: events
                .iter()
                .filter(|event| event.kind == "gap")
                .map(|event| {
                    let field = |name: &str| event.body.get(name)?.as_u64();
                    match (field("from"), field("through")) {
                        (Some(from), Some(through)) => through.saturating_sub(from) + 1,
                        _ => 1,
                    }
                })
                .sum(),
        }
    }

    /// Nothing is missing and nothing is there twice.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.holes == 0 && self.doubled == 0 && self.dropped == 0 && self.streams <= 1
    }
}

/// Where in an incident's life an event of this kind stands; `None` for others.
fn place(event: &Event) -> Option<u8> {
    match event.kind.as_str() {
        "incident-opened" => Some(0),
        "decided" => Some(1),
        "step" => Some(2),
        "incident-closed" => Some(3),
        _ => None,
    }
}

/// What is wrong with the order of one incident's timeline; `None` if nothing is.
///
/// It must be opened first, decided before a step, and closed once and last, by the numbers of its
/// stream as well as in the order shown. A closer look that finds another cause opens it again.
#[must_use]
pub fn disorder(detail: &IncidentDetail) -> Option<String> {
    // Other nodes number their incidents alike.
    let own = |event: &&Event| place(event).is_some() && event.incident == Some(detail.incident.id);
    let events: Vec<&Event> = detail.timeline.iter().filter(own).collect();
    let order: Vec<u8> = events.iter().filter_map(|event| place(event)).collect();
    let count = |which| order.iter().filter(|place| **place == which).count();
    let wrong = |what: &str| {
        let shown: Vec<String> = events
            .iter()
            .map(|event| format!("{} {}", event.seq, event.kind))
            .collect();
        Some(format!(
            "incident {}: {what}: {}",
            detail.incident.id,
            shown.join(", ")
        ))
    };
    if order.first() != Some(&0) {
        return wrong("not opened first");
    }
    if count(3) != 1 || order.last() != Some(&3) {
        return wrong("not closed once and last");
    }
    let first = |which| order.iter().position(|place| *place == which);
    // Who came back by itself needs no decision.
    let alone = detail.incident.outcome.as_deref() == Some("recovered");
    match (first(1), first(2)) {
        (None, None) if alone => {}
        (None, _) => return wrong("never decided"),
        (Some(decided), Some(step)) if step < decided => {
            return wrong("a step before the decision");
        }
        _ => {}
    }
    let falls = |pair: &[&Event]| pair[0].stream == pair[1].stream && pair[0].seq >= pair[1].seq;
    if events.windows(2).any(falls) {
        return wrong("the order shown is not that of its stream");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeostat_coordinator::fleet::view::{Incident, IncidentState};
    use serde_json::json;

    fn event(seq: u64, kind: &str) -> Event {
        Event {
            stream: "aa".into(),
            seq,
            kind: kind.into(),
            incident: Some(1),
            body: json!({ "incident": 7, "from": 3, "through": 4 }),
            ..Event::default()
        }
    }

    #[test]
    fn holes_doubles_and_drops_are_counted() {
        let seqs =
            |seqs: &[u64]| Audit::of(&seqs.iter().map(|s| event(*s, "note")).collect::<Vec<_>>());
        assert!(seqs(&[2, 1, 3]).whole());
        assert_eq!(seqs(&[1, 4]).holes, 2);
        assert_eq!(seqs(&[2]).holes, 1);
        assert_eq!(seqs(&[1, 2, 2, 2]).doubled, 2);
        assert_eq!(Audit::of(&[event(1, "gap")]).dropped, 2);
    }

    #[test]
    fn an_incident_has_one_possible_order() {
        let detail = |kinds: &[&str]| IncidentDetail {
            incident: incident(),
            evidence: Vec::new(),
            decisions: Vec::new(),
            timeline: kinds
                .iter()
                .zip(1..)
                .map(|(kind, seq)| event(seq, kind))
                .collect(),
            truncated: false,
            class: None,
            causes: None,
            group: None,
            coincident: Vec::new(),
            impact: None,
            what_if: Vec::new(),
            contradictions: 0,
        };
        let (open, decided, step, closed) =
            ("incident-opened", "decided", "step", "incident-closed");
        assert_eq!(
            disorder(&detail(&[open, decided, step, "service", step, closed])),
            None
        );
        for wrong in [
            &[decided, open, step, closed][..],
            &[open, step, decided, closed],
            &[open, decided, step],
            &[open, decided, closed, step],
            &[open, decided, step, closed, open],
            &[open, closed],
        ] {
            assert!(disorder(&detail(wrong)).is_some(), "{wrong:?}");
        }
        let mut swapped = detail(&[open, decided, step, closed]);
        swapped.timeline[2].seq = 1;
        assert!(disorder(&swapped).is_some());
    }

    fn incident() -> Incident {
        Incident {
            id: 1,
            number: 7,
            node: "edge-1".into(),
            site: "local".into(),
            state: IncidentState::Closed,
            opened_ms: 0,
            opened_at_ms: 0,
            closed_ms: None,
            service: None,
            symptom: None,
            fault: None,
            confidence: None,
            detected_after_ms: None,
            connected: None,
            plan: None,
            source: None,
            refusals: 0,
            why: None,
            cost: None,
            balance: None,
            health: None,
            predicted: None,
            step: None,
            phase: None,
            step_health: None,
            step_predicted: None,
            outcome: None,
            lasted_ms: None,
            spent: None,
            summary: None,
            group: None,
        }
    }
}
