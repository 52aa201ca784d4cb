//! What an operator asks, as text: the fleet, its routes, incidents.

use std::fmt::Write as _;

use homeostat_common::ids::NodeId;

use super::client::{AskError, decode, get};
use super::table::{ago, duration, or_dash, table, utc};
use crate::fleet::view::{Backend, Fleet, Incident, IncidentState, Incidents, Presence, Route};

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
            // Backends that get connections, of all that are behind it.
            let routes = node.routes.iter().map(|route| {
                let serving = route.backends.iter().filter(|b| b.healthy && b.weight > 0);
                let mark = if route.reached { "" } else { "?" };
                let (serving, all) = (serving.count(), route.backends.len());
                format!("{}={serving}/{all}{mark}", route.route)
            });
            let routes: Vec<_> = routes.collect();
            // What healing may still cost, of what it may cost at all.
            let budgets = node
                .budgets
                .iter()
                .map(|one| format!("{}={:.0}/{:.0}", one.class, one.balance, one.beta));
            let budgets: Vec<_> = budgets.collect();
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
                routes.join(" "),
                budgets.join(" "),
            ]
        })
        .collect();
    let mut out = table(
        &[
            "SITE", "NODE", "PRESENCE", "SEEN", "BACKLOG", "MISSING", "LOST", "VERSION",
            "SERVICES", "ROUTES", "BUDGETS",
        ],
        &rows,
    );
    if !fleet.broker_connected {
        out.push_str("\nThe coordinator does not reach the broker; presence is unknown.\n");
    }
    Ok(out)
}

/// `fleet routes`
pub(super) fn routes(url: &str, json: bool) -> Result<String, AskError> {
    let text = get(url, "/api/v1/routes")?;
    if json {
        return Ok(text + "\n");
    }
    let routes: Vec<Route> = decode(url, &text)?;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for route in &routes {
        let head = |first: bool, value: String| if first { value } else { String::new() };
        if route.backends.is_empty() {
            let none = vec![
                route.node.clone(),
                route.route.clone(),
                route.listen.clone(),
            ];
            rows.push(none);
        }
        for (place, backend) in route.backends.iter().enumerate() {
            rows.push(vec![
                head(place == 0, route.node.clone()),
                head(place == 0, route.route.clone()),
                head(place == 0, route.listen.clone()),
                head(place == 0, route.callers.join(" ")),
                backend.backend.clone(),
                backend.weight.to_string(),
                backend.configured.to_string(),
                condition(route, backend),
                leads_to(backend),
            ]);
        }
    }
    Ok(table(
        &[
            "NODE", "ROUTE", "LISTEN", "CALLERS", "BACKEND", "WEIGHT", "SET", "STATE", "LEADS TO",
        ],
        &rows,
    ))
}

/// What the forwarder makes of a backend, in a word or two.
fn condition(route: &Route, backend: &Backend) -> String {
    let state = backend.leads_to.as_ref().and_then(|to| to.state.as_deref());
    let word = if state == Some("standby") {
        "standby"
    } else if !backend.healthy {
        "unhealthy"
    } else if backend.weight == 0 {
        "isolated"
    } else {
        "healthy"
    };
    let doubt = if route.reached {
        ""
    } else {
        " (as last known)"
    };
    format!("{word}{doubt}")
}

fn leads_to(backend: &Backend) -> String {
    match &backend.leads_to {
        Some(to) if to.route.is_some() => {
            format!("route {} on {}", or_dash(to.route.as_ref()), to.node)
        }
        Some(to) => format!("service on {}", to.node),
        None => backend.address.clone(),
    }
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
                or_dash(incident.group),
                utc(incident.opened_at_ms),
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
            "N", "GROUP", "OPENED", "NODE", "SERVICE", "FAULT", "OUTCOME", "DETECTED", "LASTED",
            "SOURCE", "PLAN",
        ],
        &rows,
    );
    if page.next.is_some() {
        out.push_str("(more; raise --limit)\n");
    }
    Ok(out)
}

pub(super) fn outcome(incident: &Incident) -> &str {
    match incident.state {
        IncidentState::Open => "open",
        IncidentState::Abandoned => "abandoned",
        IncidentState::Closed => incident.outcome.as_deref().unwrap_or("closed"),
    }
}
