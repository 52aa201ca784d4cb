//! What an operator asks, as text: the fleet, incidents, one incident.

use std::fmt::Write as _;

use homeostat_common::ids::NodeId;
use serde_json::Value;

use super::client::{AskError, decode, get};
use super::table::{ago, duration, or_dash, plain, table, utc};
use crate::fleet::view::{
    Event, Fleet, Incident, IncidentDetail, IncidentState, Incidents, Presence,
};

/// `fleet ls`
pub(super) fn fleet(url: &str, json: bool) -> Result<String, AskError> {
    let text = get(url, "/api/v1/fleet")?;
    if json {
        return Ok(text + "\n");
    }
    let fleet: Fleet = decode(url, &text)?;
    let rows: Vec<Vec<String>> = fleet
        .nodes
        .iter()
        .map(|node| {
            let services = node.services.iter();
            let services: Vec<_> = services
                .map(|service| format!("{}={}", service.service, service.state))
                .collect();
            vec![
                node.site.clone(),
                node.node.clone(),
                match node.presence {
                    Presence::Online => "online",
                    Presence::Offline => "offline",
                    Presence::Unknown => "unknown",
                }
                .into(),
                node.seen_ms.map_or("-".into(), |ms| ago(fleet.now_ms, ms)),
                or_dash(node.backlog),
                node.missing.to_string(),
                node.lost.to_string(),
                or_dash(node.version.as_ref()),
                services.join(" "),
            ]
        })
        .collect();
    let mut out = table(
        &[
            "SITE", "NODE", "PRESENCE", "SEEN", "BACKLOG", "MISSING", "LOST", "VERSION", "SERVICES",
        ],
        &rows,
    );
    if !fleet.broker_connected {
        out.push_str("\nThe coordinator does not reach the broker; presence is unknown.\n");
    }
    Ok(out)
}

/// `incident ls`
pub(super) fn incidents(
    url: &str,
    json: bool,
    open: bool,
    node: Option<&NodeId>,
    limit: u32,
) -> Result<String, AskError> {
    let mut path = format!("/api/v1/incidents?limit={limit}");
    if open {
        path.push_str("&state=open");
    }
    if let Some(node) = node {
        let _ = write!(path, "&node={node}");
    }
    let text = get(url, &path)?;
    if json {
        return Ok(text + "\n");
    }
    let page: Incidents = decode(url, &text)?;
    let rows: Vec<Vec<String>> = page
        .incidents
        .iter()
        .map(|incident| {
            vec![
                incident.id.to_string(),
                utc(incident.opened_ms),
                incident.node.clone(),
                or_dash(incident.service.as_ref()),
                or_dash(incident.fault.as_ref()),
                outcome(incident).into(),
                or_dash(incident.detected_after_ms.map(duration)),
                or_dash(incident.lasted_ms.map(duration)),
                or_dash(incident.source.as_ref()),
                incident
                    .plan
                    .clone()
                    .or_else(|| incident.why.clone())
                    .unwrap_or_else(|| "-".into()),
            ]
        })
        .collect();
    let mut out = table(
        &[
            "N", "OPENED", "NODE", "SERVICE", "FAULT", "OUTCOME", "DETECTED", "LASTED", "SOURCE",
            "PLAN",
        ],
        &rows,
    );
    if page.next.is_some() {
        out.push_str("(more; raise --limit)\n");
    }
    Ok(out)
}

fn outcome(incident: &Incident) -> &str {
    match incident.state {
        IncidentState::Open => "open",
        IncidentState::Abandoned => "abandoned",
        IncidentState::Closed => incident.outcome.as_deref().unwrap_or("closed"),
    }
}

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
    if let Some(lasted) = incident.lasted_ms {
        rows.push(("lasted", duration(lasted)));
    }
    if let Some(summary) = &incident.summary {
        rows.push(("summary", summary.clone()));
    }
    let mut out = String::new();
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<13}{}", plain(&value));
    }
    out.push('\n');
    for event in &detail.timeline {
        let _ = writeln!(
            out,
            "{}  {:>6}  {:<16}  {}",
            utc(event.hlc_ms),
            event.seq,
            event.kind,
            plain(&says(event))
        );
        for line in details(event) {
            let _ = writeln!(out, "{:52}{}", "", plain(&line));
        }
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
        "note" => text(body, "text").into(),
        _ => String::new(),
    }
}

fn text_of_first(map: &serde_json::Map<String, Value>) -> &str {
    map.values().next().and_then(Value::as_str).unwrap_or("")
}

/// What stands below that line.
fn details(event: &Event) -> Vec<String> {
    let list = |field: &str| {
        let list = event.body.get(field).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    match event.kind.as_str() {
        "incident-opened" => list("evidence")
            .iter()
            .filter_map(Value::as_str)
            .map(|line| format!("evidence: {line}"))
            .collect(),
        "decided" => list("considered")
            .iter()
            .map(|option| {
                let plan = format!("{} ({})", text(option, "plan"), text(option, "source"));
                match option.get("refusal").filter(|refusal| !refusal.is_null()) {
                    Some(refusal) => format!(
                        "refused {plan}: {}: {}",
                        text(refusal, "rule"),
                        text(refusal, "reason")
                    ),
                    None => format!("chosen {plan}"),
                }
            })
            .collect(),
        _ => Vec::new(),
    }
}
