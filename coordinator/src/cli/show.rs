//! `incident show`: what was seen, considered, refused, done and spent.

use std::fmt::Write as _;

use serde_json::Value;

use super::ask::outcome;
use super::client::{AskError, decode, get};
use super::table::{duration, or_dash, plain, table, utc};
use crate::fleet::view::{CostParts, Decision, Event, IncidentDetail, StepCost};

/// `incident show`
pub(super) fn incident(url: &str, json: bool, number: u64) -> Result<String, AskError> {
    let text = get(url, &format!("/api/v1/incidents/{number}"))?;
    if json {
        return Ok(text + "\n");
    }
    let detail: IncidentDetail = decode(url, &text)?;
    let incident = &detail.incident;
    let mut rows: Vec<(&str, String)> = vec![
        (
            "incident",
            format!("{}, {} on its node", incident.id, incident.number),
        ),
        ("node", format!("{} at {}", incident.node, incident.site)),
        ("service", or_dash(incident.service.as_ref())),
        (
            "fault",
            format!(
                "{} ({}), confidence {}",
                or_dash(incident.fault.as_ref()),
                or_dash(incident.symptom.as_ref()),
                or_dash(incident.confidence.map(|c| format!("{c:.2}")))
            ),
        ),
        ("opened", utc(incident.opened_ms)),
        (
            "detected",
            format!(
                "{} after the first sign",
                or_dash(incident.detected_after_ms.map(duration))
            ),
        ),
        (
            "cloud",
            match incident.connected {
                Some(true) => "connected",
                Some(false) => "offline",
                None => "-",
            }
            .into(),
        ),
        ("plan", or_dash(incident.plan.as_ref())),
        ("source", or_dash(incident.source.as_ref())),
    ];
    if let Some(why) = &incident.why {
        rows.push(("nothing done", why.clone()));
    }
    rows.push(("outcome", outcome(incident).into()));
    rows.push((
        "cost",
        format!(
            "{} predicted, {} spent, of a budget of {} capacity-seconds",
            or_dash(incident.cost.map(|cost| format!("{cost:.2}"))),
            or_dash(incident.spent.map(|cost| format!("{cost:.2}"))),
            or_dash(incident.balance.map(|left| format!("{left:.1}")))
        ),
    ));
    if let Some(lasted) = incident.lasted_ms {
        rows.push(("lasted", duration(lasted)));
    }
    if let Some(summary) = &incident.summary {
        rows.push(("summary", summary.clone()));
    }
    for line in &detail.evidence {
        rows.push(("evidence", line.clone()));
    }
    let mut out = String::new();
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<13}{}", plain(&value));
    }
    for decision in &detail.decisions {
        out.push('\n');
        out.push_str(&decided(decision));
    }
    out.push_str("\ntimeline, by the coordinator's clock; ~ is another node in the same while\n");
    for event in &detail.timeline {
        let _ = writeln!(
            out,
            "{} {} {:<12} {:>6}  {:<16}  {}",
            utc(event.at_ms),
            if event.meanwhile { '~' } else { ' ' },
            event.node,
            event.seq,
            event.kind,
            plain(&says(event))
        );
    }
    if detail.truncated {
        out.push_str("(cut for length)\n");
    }
    Ok(out)
}

fn text<'v>(body: &'v Value, field: &str) -> &'v str {
    body.get(field).and_then(Value::as_str).unwrap_or("")
}

/// An event in one line.
fn says(event: &Event) -> String {
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
        "service" => format!("{} is {}", text(body, "service"), text(body, "state")),
        "alarm" => format!("{}: {}", text(body, "alarm"), text(body, "text")),
        "charge" => "the plan is paid for".into(),
        "note" => text(body, "text").into(),
        "route" => format!("{} at {}", text(body, "route"), text(body, "listen")),
        _ => String::new(),
    }
}

fn text_of_first(map: &serde_json::Map<String, Value>) -> &str {
    map.values().next().and_then(Value::as_str).unwrap_or("")
}

/// A decision with its options, and the steps of its plan.
fn decided(decision: &Decision) -> String {
    let what = match &decision.plan {
        Some(plan) => plan.as_str(),
        None => "nothing is done",
    };
    let mut out = format!(
        "decided      {}\nhealth       {} then, {} predicted\n",
        plain(what),
        share(decision.health),
        share(decision.predicted)
    );
    for option in &decision.options {
        let line = match &option.refusal {
            Some(refusal) => format!(
                "refused {} ({}): {}: {}",
                option.plan, option.source, refusal.rule, refusal.reason
            ),
            None => format!("allowed {} ({})", option.plan, option.source),
        };
        let _ = writeln!(out, "option       {}", plain(&line));
    }
    if !decision.steps.is_empty() {
        let rows = decision.steps.iter().map(|step| {
            let took = step.started_ms.zip(step.ended_ms);
            vec![
                step.step.to_string(),
                step.primitive.clone(),
                step.phase.clone(),
                share(step.before),
                share(step.predicted),
                share(step.health),
                or_dash(took.map(|(from, to)| duration(to.saturating_sub(from)))),
                or_dash(step.cost.map(cost)),
                step.why.clone().unwrap_or_default(),
            ]
        });
        let header = [
            "STEP",
            "DOES",
            "STATE",
            "BEFORE",
            "PREDICTED",
            "HEALTH",
            "TOOK",
            "COST OF PREDICTED",
            "",
        ];
        out.push_str(&table(&header, &rows.collect::<Vec<_>>()));
    }
    out
}

/// What a step cost of what it was to cost at most, in capacity-seconds:
/// resource, disruption, risk.
fn cost(cost: StepCost) -> String {
    let parts =
        |one: CostParts| format!("{:.2}+{:.2}+{:.2}", one.resource, one.disruption, one.risk);
    format!("{} of {}", parts(cost.spent), parts(cost.predicted))
}

/// A share as people write it.
fn share(value: Option<f64>) -> String {
    or_dash(value.map(|value| format!("{:.0} %", value * 100.0)))
}
