//! The class of an incident, from what its node saw.
//!
//! In: the events of an incident in causal order, and the model of the day. Out: the counts
//! that are in its observation, and what the model makes of them. Nothing is stored: a verdict
//! follows from the records and the model, so a better model speaks of old incidents too.
//!
//! The node's own diagnosis stays what plans rest on; this neither starts nor stops any.

use std::collections::BTreeSet;

use homeostat_classify::{Class, Classifier, Evidence, NAME_MAX, Run, Verdict};
use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{AlarmReading, Level, LogCount};
use serde::Deserialize;
use serde_json::Value;

use crate::fleet::view::{ClassEvidence, Event, IncidentClass};

/// What ends the name of an event that is an error, as in recordings of others.
const ERROR: &str = "_ERROR";

/// What is read of an observation; the rest is no count.
#[derive(Debug, Deserialize)]
struct Counted {
    #[serde(default)]
    logs: Vec<LogCount>,
    #[serde(default)]
    alarms: Vec<AlarmReading>,
}

/// The counts of the incident with this number in the fleet: lines of each log template and
/// standing alarms, named `SERVICE_TEMPLATE` and ending in `_ERROR` for errors. `None` while
/// its observation has not arrived. All of it comes from a peer, and is bounded by the size
/// of its message.
#[must_use]
pub fn counts(incident: u64, timeline: &[Event]) -> Option<Run> {
    let opened: BTreeSet<(&str, u64)> = timeline
        .iter()
        .filter(|event| event.kind == "incident-opened" && event.incident == Some(incident))
        .map(|event| (event.stream.as_str(), event.seq))
        .collect();
    let followed = |event: &&Event| {
        let mut causes = event.causes.iter();
        event.kind == "observation"
            && causes.any(|cause| opened.contains(&(cause.stream.as_str(), cause.seq)))
    };
    let body = &timeline.iter().find(followed)?.body;
    let seen = Counted::deserialize(body).ok()?;
    let mut run = Run::new();
    let mut add = |name: String, count: u32| {
        let sum: &mut u32 = run.entry(name).or_default();
        *sum = sum.saturating_add(count);
    };
    for log in seen.logs {
        let service = log.service.as_ref().map_or("node", ServiceId::as_str);
        add(
            name(service, &log.text, log.level == Level::Error),
            log.count,
        );
    }
    for alarm in seen.alarms {
        let service = alarm.service.as_ref().map_or("node", ServiceId::as_str);
        add(name(service, &format!("alarm {}", alarm.alarm), false), 1);
    }
    Some(run)
}

/// The model's word on an incident.
#[must_use]
pub fn class(model: &Classifier, incident: u64, timeline: &[Event]) -> Option<IncidentClass> {
    let run = counts(incident, timeline)?;
    Some(IncidentClass {
        services: services(incident, timeline),
        ..shown(model.classify(&run))
    })
}

/// A verdict as it is shown.
#[must_use]
pub fn shown(verdict: Verdict) -> IncidentClass {
    let probability = verdict
        .probabilities
        .first()
        .map_or(0.0, |(_, share)| *share);
    IncidentClass {
        likeliest: verdict.likeliest().to_owned(),
        class: match verdict.class {
            Class::Healthy => Some(homeostat_classify::HEALTHY.to_owned()),
            Class::Known(class) => Some(class),
            Class::Novel => None,
        },
        probability: f64::from(probability),
        unusual: f64::from(verdict.unusual),
        novelty: f64::from(verdict.novelty),
        evidence: verdict.evidence.into_iter().map(evidence).collect(),
        unknown: verdict.unknown,
        services: Vec::new(),
    }
}

fn evidence(one: Evidence) -> ClassEvidence {
    ClassEvidence {
        event: one.event,
        count: one.count,
        usual: one.usual,
        weight: f64::from(one.weight),
    }
}

/// The services that were not healthy in its course.
fn services(incident: u64, timeline: &[Event]) -> Vec<String> {
    let text = |body: &Value, key: &str| body.get(key)?.as_str().map(str::to_owned);
    let names = timeline
        .iter()
        .filter(|event| !event.meanwhile)
        .filter_map(|event| {
            let hurt = match event.kind.as_str() {
                "incident-opened" => event.incident == Some(incident),
                "service" => matches!(event.body.get("state")?.as_str()?, "unhealthy" | "down"),
                _ => false,
            };
            text(&event.body, "service").filter(|_| hurt)
        });
    names.collect::<BTreeSet<String>>().into_iter().collect()
}

/// The name of an event, short enough for a model.
fn name(service: &str, text: &str, error: bool) -> String {
    let mut name = format!("{service}_{text}");
    let room = NAME_MAX - ERROR.len();
    if name.len() > room {
        let end = (0..=room).rev().find(|at| name.is_char_boundary(*at));
        name.truncate(end.unwrap_or(0));
    }
    if error {
        name.push_str(ERROR);
    }
    name
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleet::view::Reference;

    fn event(seq: u64, kind: &str, causes: &[u64], body: Value) -> Event {
        Event {
            cursor: seq,
            node: "edge-1".into(),
            stream: "aa".into(),
            seq,
            kind: kind.into(),
            hlc_ms: 0,
            hlc_count: 0,
            received_ms: 0,
            at_ms: 0,
            incident: (kind == "incident-opened").then_some(7),
            meanwhile: false,
            aside: false,
            relation: None,
            causes: causes
                .iter()
                .map(|seq| Reference {
                    stream: "aa".into(),
                    seq: *seq,
                })
                .collect(),
            body,
        }
    }

    fn seen() -> Value {
        json!({
            "node": "edge-1", "from": 0, "to": 5,
            "logs": [
                {"service": "camera", "template": 1, "text": "frame <n>", "level": "info", "count": 9},
                {"service": "camera", "template": 2, "text": "lost <n>", "level": "error", "count": 2},
                {"service": "camera", "template": 3, "text": "lost <n>", "level": "error", "count": 1}
            ],
            "metrics": [],
            "alarms": [{"alarm": "camera-down", "service": "camera", "text": "camera is down"}]
        })
    }

    #[test]
    fn the_counts_of_an_incident_are_those_of_its_own_observation() {
        let opened = event(1, "incident-opened", &[], json!({"service": "camera"}));
        let other = event(2, "observation", &[9], json!({"logs": [], "alarms": []}));
        let own = event(3, "observation", &[1], seen());
        let found = counts(7, &[opened.clone(), other.clone(), own]).unwrap();
        let expected = [
            ("camera_alarm camera-down", 1),
            ("camera_frame <n>", 9),
            ("camera_lost <n>_ERROR", 3),
        ];
        let found: Vec<(&str, u32)> = found
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(counts(7, &[opened.clone(), other]), None);
        let strange = event(3, "observation", &[1], json!({"logs": "?"}));
        assert_eq!(
            counts(7, &[opened, strange]),
            None,
            "of a version that is not understood"
        );
    }

    #[test]
    fn services_that_were_hurt_are_named_once() {
        let timeline = [
            event(1, "incident-opened", &[], json!({"service": "camera"})),
            event(
                2,
                "service",
                &[],
                json!({"service": "infer", "state": "down"}),
            ),
            event(
                3,
                "service",
                &[],
                json!({"service": "infer", "state": "healthy"}),
            ),
            event(
                4,
                "service",
                &[],
                json!({"service": "other", "state": "healthy"}),
            ),
        ];
        assert_eq!(services(7, &timeline), ["camera", "infer"]);
    }

    #[test]
    fn a_long_name_is_cut_and_still_an_error() {
        let long = name("camera", &"é".repeat(NAME_MAX), true);
        assert!(long.len() <= NAME_MAX && long.ends_with("é_ERROR"));
    }
}
