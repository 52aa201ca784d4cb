//! An event in words: a line of a timeline.
//!
//! Bodies are read leniently, because they come from agents of any version.

use homeostat_common::wire::body::Diagnosed;
use serde::Deserialize;
use serde_json::Value;

use super::diagnosis::nobody;
use super::story::Charge;
use super::view::{CostParts, Event};

/// So many suspects, alarms and log lines stand in one line; all are in the answer of the API.
const SHOWN: usize = 3;

/// An event in one line.
#[must_use]
pub fn in_a_line(event: &Event) -> String {
    let body = &event.body;
    match event.kind.as_str() {
        "incident-opened" => format!(
            "{}: {} ({})",
            text(body, "service"),
            text(body, "fault"),
            text(body, "symptom")
        ),
        "decided" if body.get("plan").is_some_and(Value::is_null) => "do nothing".into(),
        "decided" => "run a plan".into(),
        "step" => {
            let phase = match body.get("phase") {
                Some(Value::String(phase)) => phase.clone(),
                Some(Value::Object(phase)) => format!("failed: {}", text_of_first(phase)),
                _ => String::new(),
            };
            format!("{} {phase}", text(body, "primitive"))
        }
        "incident-closed" => format!("{}: {}", text(body, "outcome"), text(body, "summary")),
        "diagnosed" => suspected(body),
        "joined" => format!(
            "{} of {} belongs to it: {}",
            text(body, "symptom"),
            text(body, "service"),
            text(body, "because")
        ),
        "boot" => format!("agent {} started", text(body, "version")),
        "observation" => seen(body),
        "state" => state(body),
        "topology" => format!(
            "who needs whom: {}",
            counted(list(body, "edges").count(), "need")
        ),
        "gap" => {
            let number = |field| body.get(field).and_then(Value::as_u64).unwrap_or(0);
            format!(
                "events {} to {} were dropped",
                number("from"),
                number("through")
            )
        }
        "service" => format!("{} is {}", text(body, "service"), text(body, "state")),
        "alarm" => format!("{}: {}", text(body, "alarm"), text(body, "text")),
        "charge" => paid(body),
        "budget" => {
            let classes = list(body, "classes").filter_map(left);
            format!(
                "left of the budgets: {}",
                classes.collect::<Vec<_>>().join(", ")
            )
        }
        "note" => text(body, "text").into(),
        "control" if text(body, "by").is_empty() => text(body, "text").into(),
        "control" => format!("{}, by {}", text(body, "text"), text(body, "by")),
        "route" => {
            let behind = list(body, "backends").map(backend).collect::<Vec<_>>();
            format!("{}: {}", text(body, "route"), behind.join(", "))
        }
        // Of another version.
        _ => String::new(),
    }
}

/// What was seen as an incident was opened: how much of it, and what stands out.
fn seen(body: &Value) -> String {
    let alarms = list(body, "alarms").map(|one| text(one, "text").to_owned());
    let loud = list(body, "logs").filter(|one| matches!(text(one, "level"), "warning" | "error"));
    let loud = loud.map(|one| {
        let count = one.get("count").and_then(Value::as_u64).unwrap_or(0);
        format!("{count} × {}", text(one, "text"))
    });
    let standing: Vec<String> = alarms.chain(loud).collect();
    let shown: Vec<&str> = standing.iter().take(SHOWN).map(String::as_str).collect();
    let more = match standing.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let colon = if shown.is_empty() { "" } else { ": " };
    format!(
        "saw {}, {}, {}{colon}{}{more}",
        counted(list(body, "metrics").count(), "reading"),
        counted(list(body, "logs").count(), "log template"),
        counted(list(body, "alarms").count(), "alarm"),
        shown.join("; ")
    )
}

/// How the node stood then: who was not healthy, and what healing might still cost.
fn state(body: &Value) -> String {
    let services = body.get("health").map(|health| list(health, "services"));
    let services: Vec<&Value> = services.into_iter().flatten().collect();
    let other = services
        .iter()
        .filter(|one| text(one, "state") != "healthy");
    let other = other.map(|one| format!("{} is {}", text(one, "service"), text(one, "state")));
    let other: Vec<String> = other.collect();
    let left = body.get("history").and_then(|past| past.get("budget_left"));
    let left = left.and_then(Value::as_f64).map_or(String::new(), |left| {
        format!("; {:.0} % of the budget left", left * 100.0)
    });
    let colon = if other.is_empty() { "" } else { ": " };
    format!(
        "{} of {} services healthy{colon}{}{left}",
        services.len() - other.len(),
        services.len(),
        other
            .iter()
            .take(SHOWN)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ")
    )
}

/// A backend with its weight, and whether it is fit.
fn backend(one: &Value) -> String {
    let number = |field| one.get(field).and_then(Value::as_u64).unwrap_or(0);
    let (weight, configured) = (number("weight"), number("configured"));
    let of = match weight == configured {
        true => String::new(),
        false => format!(" of {configured}"),
    };
    let fit = match one.get("healthy").and_then(Value::as_bool) {
        Some(false) => ", unfit",
        _ => "",
    };
    format!("{} {weight}{of}{fit}", text(one, "backend"))
}

/// Whom a node suspects, the likeliest few.
fn suspected(body: &Value) -> String {
    let Ok(told) = Diagnosed::deserialize(body) else {
        return "suspects in words of another version".into();
    };
    let suspects = told.suspects.iter().take(SHOWN).map(|one| {
        let by = one.explained_by.as_ref();
        let by = by.map_or(String::new(), |by| format!(", explained by {by}"));
        format!(
            "{} {:.0} %{by}",
            one.component,
            one.confidence.get() * 100.0
        )
    });
    let suspects: Vec<String> = suspects.collect();
    match suspects.is_empty() {
        true => format!("suspects nobody: {}", nobody(Some(told.grade))),
        false => format!("suspects {}", suspects.join("; ")),
    }
}

/// What a plan has cost, and what is left where it was paid from.
fn paid(body: &Value) -> String {
    let Ok(charge) = Charge::deserialize(body) else {
        return String::new();
    };
    let total = |one: &CostParts| one.resource + one.disruption + one.risk;
    let spent: f64 = charge.steps.iter().map(|step| total(&step.spent)).sum();
    let predicted: f64 = charge.steps.iter().map(|step| total(&step.predicted)).sum();
    let left = body.get("budget").and_then(left);
    let left = left.map_or_else(String::new, |left| format!("; left: {left}"));
    format!("the plan cost {spent:.2} of {predicted:.2} capacity-seconds{left}")
}

/// What is left of the budget of a class.
fn left(budget: &Value) -> Option<String> {
    let number = |field| budget.get(field).and_then(Value::as_f64);
    let (balance, beta) = number("balance").zip(number("beta"))?;
    Some(format!(
        "{} {balance:.1} of {beta:.1}",
        text(budget, "class")
    ))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn list<'v>(body: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    let list = body.get(field).and_then(Value::as_array);
    list.into_iter().flatten()
}

fn text<'v>(body: &'v Value, field: &str) -> &'v str {
    body.get(field).and_then(Value::as_str).unwrap_or("")
}

fn text_of_first(map: &serde_json::Map<String, Value>) -> &str {
    map.values().next().and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(kind: &str, body: Value) -> String {
        in_a_line(&Event {
            kind: kind.into(),
            body,
            ..Event::default()
        })
    }

    #[test]
    fn what_was_seen_and_how_the_node_stood_is_said() {
        let seen = json!({"metrics": [1, 2], "alarms": [{"text": "infer-1 is slow"}], "logs": [
            {"count": 2, "level": "info", "text": "model loaded"},
            {"count": 3, "level": "error", "text": "request <*> failed"}]});
        assert_eq!(
            line("observation", seen),
            "saw 2 readings, 2 log templates, 1 alarm: infer-1 is slow; 3 × request <*> failed"
        );
        let state = json!({"history": {"budget_left": 0.714}, "health": {"services": [
            {"service": "a", "state": "healthy"}, {"service": "b", "state": "down"}]}});
        assert_eq!(
            line("state", state),
            "1 of 2 services healthy: b is down; 71 % of the budget left"
        );
        let route = json!({"route": "infer", "backends": [
            {"backend": "a", "weight": 0, "configured": 100, "healthy": true},
            {"backend": "b", "weight": 100, "configured": 100, "healthy": false}]});
        assert_eq!(line("route", route), "infer: a 0 of 100, b 100, unfit");
        let told = json!({"incident": 1, "alarmed": {"service": "a"}, "suspects": [], "edges": [],
            "tell_apart": null, "grade": "full", "affected": [], "spared": null});
        assert_eq!(
            line("diagnosed", told),
            "suspects nobody: nothing of it, or of what it needs, is beyond what is usual"
        );
        // An empty one, and one of nonsense.
        for kind in [
            "observation",
            "state",
            "boot",
            "gap",
            "topology",
            "route",
            "diagnosed",
        ] {
            assert!(!line(kind, Value::Null).is_empty(), "{kind}");
        }
    }
}
