//! Which events of other nodes have to do with an incident.
//!
//! In: a timeline with what happened on other nodes in the same while, who may be behind the
//! incident, and what has the same cause. Out: those of them marked that nothing connects with
//! it, so that they can stand aside. Time alone connects nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use super::diagnosis::{Causes, Group, Kind, Place};
use super::view::Event;

/// Sets `aside` on what happened elsewhere and is about nobody in the causal graph of the
/// incident, nobody who needs what is alarmed, and no incident of the same group.
pub fn mark(timeline: &mut [Event], causes: Option<&Causes>, group: Option<&Group>) {
    let places: BTreeSet<&Place> = causes.into_iter().flat_map(places).collect();
    let members = group.into_iter().flat_map(|group| &group.members);
    let mut incidents: BTreeSet<u64> = members.map(|member| member.incident).collect();
    let suspects = causes.into_iter().flat_map(|causes| &causes.suspects);
    incidents.extend(suspects.filter_map(|one| one.incident));
    let about = |event: &Event| about(event).is_some_and(|place| places.contains(&place));
    let opened = timeline
        .iter()
        .filter(|event| event.kind == "incident-opened");
    incidents.extend(
        opened
            .filter(|one| about(one))
            .filter_map(|one| one.incident),
    );
    for event in timeline.iter_mut().filter(|event| event.meanwhile) {
        let known = event.incident.is_some_and(|id| incidents.contains(&id));
        event.aside = !known && !about(event);
    }
}

fn places(causes: &Causes) -> impl Iterator<Item = &Place> {
    let ends = causes.links.iter().flat_map(|link| [&link.from, &link.to]);
    let suspects = causes.suspects.iter().map(|one| &one.place);
    let chain = causes.chain.iter().map(|one| &one.place);
    ends.chain(suspects).chain(chain).chain(&causes.affected)
}

/// Who an event is about.
fn about(event: &Event) -> Option<Place> {
    let named = |field: &str| event.body.get(field).and_then(Value::as_str);
    let of = |kind, name| Place::of(kind, &event.node, name);
    match (named("route"), named("service")) {
        (Some(route), _) => Some(of(Kind::Route, route)),
        (None, Some(service)) => Some(of(Kind::Service, service)),
        // An alarm of the node itself.
        (None, None) if event.kind == "alarm" => Some(of(Kind::Node, "")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleet::diagnosis::{Link, Member};

    fn event(node: &str, kind: &str, incident: Option<u64>, body: Value) -> Event {
        Event {
            node: node.into(),
            kind: kind.into(),
            incident,
            meanwhile: node != "east",
            body,
            ..Event::default()
        }
    }

    #[test]
    fn what_only_happened_at_the_same_time_stands_aside() {
        let infer = Place::of(Kind::Service, "east", "infer");
        let causes = Causes {
            alarmed: infer.clone(),
            root: None,
            suspects: Vec::new(),
            links: vec![Link {
                from: infer.clone(),
                to: Place::of(Kind::Node, "south", ""),
                confounded_by: None,
            }],
            chain: Vec::new(),
            tell_apart: None,
            grade: None,
            spared: None,
            affected: vec![
                Place::of(Kind::Route, "west", "infer"),
                Place::of(Kind::Service, "west", "gateway"),
            ],
        };
        let member = |incident| Member {
            incident,
            alarmed: infer.clone(),
            consequence: false,
            because: None,
        };
        let group = Group {
            id: 1,
            root: 1,
            cause: None,
            members: vec![member(1), member(7)],
        };
        let mut timeline = [
            event("east", "note", Some(1), json!({})),
            event("west", "route", None, json!({"route": "infer"})),
            event(
                "west",
                "incident-opened",
                Some(2),
                json!({"service": "gateway"}),
            ),
            event("west", "incident-closed", Some(2), json!({})),
            event("north", "incident-closed", Some(7), json!({})),
            event(
                "south",
                "alarm",
                None,
                json!({"alarm": "hot", "service": null}),
            ),
            event("west", "route", None, json!({"route": "store"})),
            event(
                "north",
                "incident-opened",
                Some(3),
                json!({"service": "camera"}),
            ),
            event("north", "incident-closed", Some(3), json!({})),
            event("west", "alarm", None, json!({"alarm": "stranger-cpu"})),
        ];
        mark(&mut timeline, Some(&causes), Some(&group));
        let aside: Vec<bool> = timeline.iter().map(|event| event.aside).collect();
        let (with, without) = aside.split_at(6);
        assert!(with.iter().all(|aside| !aside), "{aside:?}");
        assert!(without.iter().all(|aside| *aside), "{aside:?}");
    }
}
