//! The JSON API.

// The derive of IntoParams writes such paths.
#![allow(unused_qualifications)]

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{Shared, failed, problem};
use crate::control::{Hub, now_ms};
use crate::diagnose;
use crate::fleet::beside;
use crate::fleet::diagnosis::Why;
use crate::fleet::readings;
use crate::fleet::story::story;
use crate::fleet::timeline::{Order, causal_order};
use crate::fleet::view::{
    Change, Event, Events, Fleet, Incident, IncidentDetail, Incidents, LeftAlone, Node, Presence,
    Problem, Route, Service, Summary, Timeline,
};
use crate::io::db::{DbError, EventQuery, IncidentQuery};

/// Rows of a page when the client does not say.
const PAGE: u32 = 100;

/// Most nodes that are listed for their status alone.
const LIST_MAX: usize = 1000;

/// Most rows of a page.
const PAGE_MAX: u32 = 500;

/// The document that describes all this.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Homeostat coordinator",
        description = "What the nodes of a fleet record: presence, services, incidents and \
                       their healing, alarms. Read-only, but for plans across nodes, \
                       acknowledgements, and alarms of other systems.",
    ),
    paths(
        fleet,
        services,
        routes,
        super::alarms::list,
        super::alarms::acknowledge,
        super::outside::alertmanager,
        incidents,
        incident,
        why,
        timeline,
        left_alone,
        events,
        super::plans::begin,
        super::plans::list,
        super::plans::one,
        super::plans::stop,
        super::plans::key,
        super::live::live,
        healthz,
        metrics
    ),
    components(schemas(Problem, Change)),
    modifiers(&Operator)
)]
struct Api;

/// Who may have plans run and acknowledge alarms.
struct Operator;

impl utoipa::Modify for Operator {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let token = bearer.description(Some(
            "The text of operator.token in the coordinator's data folder.",
        ));
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let intake = bearer.description(Some(
            "The text of intake.token in the coordinator's data folder.",
        ));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("operator", SecurityScheme::Http(token.build()));
        components.add_security_scheme("intake", SecurityScheme::Http(intake.build()));
    }
}

pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi())
}

pub(super) type Answer<T> = Result<Json<T>, Problem>;

pub(super) fn answer<T>(result: Result<T, DbError>) -> Answer<T> {
    result.map(Json).map_err(|error| failed(&error))
}

pub(super) fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(error) => Err(problem(StatusCode::BAD_REQUEST, &error.body_text())),
    }
}

/// The fleet: nodes with presence, backlog and services.
#[utoipa::path(get, path = "/api/v1/fleet", responses(
    (status = 200, body = Fleet),
    (status = 503, content_type = "application/problem+json", body = Problem),
))]
pub(super) async fn fleet(State(hub): Shared) -> Answer<Fleet> {
    answer(read_fleet(&hub).await)
}

async fn read_fleet(hub: &Hub) -> Result<Fleet, DbError> {
    let mut nodes = hub.db.nodes().await?;
    let gauges = hub.db.gauges().await?;
    let cursor = hub.db.cursor().await?;
    Ok(hub.with_presence(|presence| {
        for node in &mut nodes {
            (node.presence, node.presence_since_ms) = presence.of(&node.node);
        }
        let known: BTreeSet<&str> = nodes.iter().map(|node| node.node.as_str()).collect();
        let silent = presence
            .nodes()
            .filter(|(name, _)| !known.contains(name.as_str()))
            .take(LIST_MAX)
            .map(|(name, seen)| {
                let (now, since) = presence.of(name.as_str());
                Node {
                    node: name.to_string(),
                    site: seen.site.to_string(),
                    presence: now,
                    presence_since_ms: since,
                    seen_ms: None,
                    version: Some(seen.version.clone()),
                    clock: None,
                    clock_ahead_ms: None,
                    booted_ms: None,
                    stream: None,
                    acked: 0,
                    top: 0,
                    missing: 0,
                    lost: 0,
                    backlog: None,
                    services: Vec::new(),
                    routes: Vec::new(),
                    budgets: Vec::new(),
                }
            })
            .collect::<Vec<_>>();
        let heard = silent.len() as u64;
        nodes.extend(silent);
        nodes.sort_by(|a, b| (&a.site, &a.node).cmp(&(&b.site, &b.node)));
        let online = presence
            .nodes()
            .filter(|(name, _)| presence.of(name.as_str()).0 == Presence::Online);
        Fleet {
            version: crate::VERSION.into(),
            now_ms: now_ms(),
            broker_connected: presence.broker(),
            cursor,
            summary: Summary {
                nodes: gauges.nodes + heard,
                online: online.count() as u64,
                open_incidents: gauges.open_incidents,
                alarms: gauges.alarms,
            },
            nodes,
        }
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ServicesQuery {
    /// Only of this node.
    node: Option<String>,
}

/// Services with their state.
#[utoipa::path(get, path = "/api/v1/services", params(ServicesQuery), responses(
    (status = 200, body = Vec<Service>),
    (status = 400, content_type = "application/problem+json", body = Problem),
))]
pub(super) async fn services(
    State(hub): Shared,
    query: Result<Query<ServicesQuery>, QueryRejection>,
) -> Answer<Vec<Service>> {
    let query = asked(query)?;
    answer(hub.db.services(query.node.as_deref()).await)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct RoutesQuery {
    /// Only of this node.
    node: Option<String>,
}

/// Routes of the nodes' forwarders: who calls, who is behind, with what weight.
#[utoipa::path(get, path = "/api/v1/routes", params(RoutesQuery), responses(
    (status = 200, body = Vec<Route>),
    (status = 400, content_type = "application/problem+json", body = Problem),
))]
pub(super) async fn routes(
    State(hub): Shared,
    query: Result<Query<RoutesQuery>, QueryRejection>,
) -> Answer<Vec<Route>> {
    let query = asked(query)?;
    answer(hub.db.routes(query.node.as_deref()).await)
}

#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Which {
    Open,
    Closed,
    All,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct IncidentsQuery {
    /// `open`, `closed` or `all`; abandoned ones count as closed.
    #[param(inline)]
    state: Option<Which>,
    /// Only of this node.
    node: Option<String>,
    /// Only of this service.
    service: Option<String>,
    /// Only with this outcome.
    outcome: Option<String>,
    /// Only with a smaller number: the `next` of the page before.
    before: Option<u64>,
    /// At most so many: 1 to 500, 100 if absent.
    limit: Option<u32>,
}

fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked.unwrap_or(PAGE) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        wrong => Err(problem(
            StatusCode::BAD_REQUEST,
            &format!("limit {wrong} is not in 1..={PAGE_MAX}"),
        )),
    }
}

/// Incidents, newest first.
#[utoipa::path(get, path = "/api/v1/incidents", params(IncidentsQuery), responses(
    (status = 200, body = Incidents),
    (status = 400, content_type = "application/problem+json", body = Problem),
))]
pub(super) async fn incidents(
    State(hub): Shared,
    query: Result<Query<IncidentsQuery>, QueryRejection>,
) -> Answer<Incidents> {
    let query = asked(query)?;
    let limit = limit(query.limit)?;
    let found = hub
        .db
        .incidents(&IncidentQuery {
            open: match query.state {
                Some(Which::Open) => Some(true),
                Some(Which::Closed) => Some(false),
                Some(Which::All) | None => None,
            },
            node: query.node,
            service: query.service,
            outcome: query.outcome,
            before: query.before,
            limit: limit + 1,
        })
        .await;
    let mut incidents = found.map_err(|error| failed(&error))?;
    let more = incidents.len() > limit as usize;
    incidents.truncate(limit as usize);
    let ids: Vec<u64> = incidents.iter().map(|one| one.id).collect();
    let groups = hub.grouped(&ids).await.map_err(|error| failed(&error))?;
    for one in &mut incidents {
        one.group = groups.get(&one.id).copied();
    }
    Ok(Json(Incidents {
        next: incidents.last().filter(|_| more).map(|last| last.id),
        incidents,
    }))
}

/// One incident: evidence, options and refusals, steps with predicted and
/// measured health, costs, and its timeline across nodes in causal order.
#[utoipa::path(get, path = "/api/v1/incidents/{id}",
    params(("id" = u64, Path, description = "Its number in the fleet")),
    responses(
        (status = 200, body = IncidentDetail),
        (status = 400, content_type = "application/problem+json", body = Problem),
        (status = 404, content_type = "application/problem+json", body = Problem),
    ))]
pub(super) async fn incident(
    State(hub): Shared,
    id: Result<Path<u64>, PathRejection>,
) -> Answer<IncidentDetail> {
    let Path(id) = id.map_err(|error| problem(StatusCode::BAD_REQUEST, &error.body_text()))?;
    match hub.db.incident(id).await {
        Ok(Some((mut incident, events, truncated))) => {
            let order = Order::of(events);
            let opening = |event: &Event| {
                event.kind == "incident-opened" && event.incident == Some(incident.id)
            };
            let about = order.events().iter().position(opening);
            let contradictions = order.contradictions();
            let mut timeline = order.about(about);
            let (mut evidence, decisions) = story(incident.id, &timeline);
            evidence.extend(beside(&hub, &incident).await?);
            let model = hub.classifier.as_ref();
            let class =
                model.and_then(|model| diagnose::class::class(model, incident.id, &timeline));
            let explained = hub.explain(&incident, &timeline, &decisions).await;
            let explained = explained.map_err(|error| failed(&error))?;
            incident.group = explained.group.as_ref().map(|group| group.id);
            let (causes, group) = (explained.causes.as_ref(), explained.group.as_ref());
            beside::mark(&mut timeline, causes, group);
            Ok(Json(IncidentDetail {
                incident,
                evidence,
                decisions,
                timeline,
                truncated,
                class,
                causes: explained.causes,
                group: explained.group,
                coincident: explained.coincident,
                impact: explained.impact,
                what_if: explained.what_if,
                contradictions,
            }))
        }
        Ok(None) => Err(problem(
            StatusCode::NOT_FOUND,
            &format!("there is no incident {id}"),
        )),
        Err(error) => Err(failed(&error)),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyQuery {
    /// The service; or the route, backend, dependency, disk, link or node of that name.
    service: String,
    /// Only of this node.
    node: Option<String>,
}

/// Why something is in trouble: from there down to what is behind it, over nodes and levels.
/// One answer for each node that has a component of that name, the one in trouble first.
#[utoipa::path(get, path = "/api/v1/why", params(WhyQuery), responses(
    (status = 200, body = Vec<Why>),
    (status = 400, content_type = "application/problem+json", body = Problem),
    (status = 404, content_type = "application/problem+json", body = Problem),
))]
pub(super) async fn why(
    State(hub): Shared,
    query: Result<Query<WhyQuery>, QueryRejection>,
) -> Answer<Vec<Why>> {
    let WhyQuery { service, node } = asked(query)?;
    let found = hub.why(&service, node.as_deref()).await;
    let found = found.map_err(|error| failed(&error))?;
    found
        .map(Json)
        .map_err(|nowhere| problem(StatusCode::NOT_FOUND, &nowhere))
}

/// What other systems said about its node or its service meanwhile.
async fn beside(hub: &Hub, incident: &Incident) -> Result<Vec<String>, Problem> {
    // Alarms have the coordinator's clock.
    let from = incident.opened_at_ms;
    let lasted = |closed: u64| closed.saturating_sub(incident.opened_ms);
    let to = incident
        .closed_ms
        .map_or(u64::MAX, |closed| from.saturating_add(lasted(closed)));
    let service = incident.service.as_deref();
    let said = hub.db.outside_beside(&incident.node, service, from, to);
    said.await.map_err(|error| failed(&error))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct TimelineQuery {
    /// Only what arrived before this cursor: the `next` of the page before.
    before: Option<u64>,
    /// At most so many: 1 to 500, 100 if absent.
    limit: Option<u32>,
}

/// The newest events about healing in the fleet, in causal order.
#[utoipa::path(get, path = "/api/v1/timeline", params(TimelineQuery), responses(
    (status = 200, body = Timeline),
    (status = 400, content_type = "application/problem+json", body = Problem),
))]
pub(super) async fn timeline(
    State(hub): Shared,
    query: Result<Query<TimelineQuery>, QueryRejection>,
) -> Answer<Timeline> {
    let query = asked(query)?;
    let limit = limit(query.limit)?;
    let found = hub.db.timeline(query.before, limit + 1).await;
    answer(found.map(|mut events| {
        let more = events.len() > limit as usize;
        events.truncate(limit as usize);
        Timeline {
            next: events.last().filter(|_| more).map(|last| last.cursor),
            events: causal_order(events),
        }
    }))
}

/// What was seen and not acted upon, and why; newest first, at most 50.
#[utoipa::path(get, path = "/api/v1/left-alone", responses(
    (status = 200, body = Vec<LeftAlone>),
    (status = 503, content_type = "application/problem+json", body = Problem),
))]
pub(super) async fn left_alone(State(hub): Shared) -> Answer<Vec<LeftAlone>> {
    answer(hub.db.left_alone().await)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Only those that arrived after this cursor; 0 if absent.
    after: Option<u64>,
    /// Only of this node.
    node: Option<String>,
    /// Only of this kind.
    kind: Option<String>,
    /// At most so many: 1 to 500, 100 if absent.
    limit: Option<u32>,
}

/// Events in order of arrival.
#[utoipa::path(get, path = "/api/v1/events", params(EventsQuery), responses(
    (status = 200, body = Events),
    (status = 400, content_type = "application/problem+json", body = Problem),
))]
pub(super) async fn events(
    State(hub): Shared,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Answer<Events> {
    let query = asked(query)?;
    let after = query.after.unwrap_or(0);
    let found = hub
        .db
        .events(&EventQuery {
            after,
            node: query.node,
            kind: query.kind,
            limit: limit(query.limit)?,
        })
        .await;
    answer(found.map(|events| Events {
        cursor: events.last().map_or(after, |last| last.cursor),
        events,
    }))
}

/// Whether the coordinator does its work: reaches the broker and stores.
#[utoipa::path(get, path = "/healthz", responses(
    (status = 200, content_type = "text/plain", body = String),
    (status = 503, content_type = "application/problem+json", body = Problem),
))]
pub(super) async fn healthz(State(hub): Shared) -> Response {
    match hub.trouble() {
        None => "ok\n".into_response(),
        Some(trouble) => problem(StatusCode::SERVICE_UNAVAILABLE, trouble).into_response(),
    }
}

/// Prometheus metrics.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, content_type = "text/plain", body = String),
))]
pub(super) async fn metrics(State(hub): Shared) -> Response {
    let since = now_ms().saturating_sub(readings::OLD_MS);
    let asked = async {
        let db = &hub.db;
        Ok::<_, DbError>((
            db.gauges().await?,
            db.budgets().await?,
            db.readings(since).await?,
        ))
    };
    match asked.await {
        Ok((mut gauges, budgets, told)) => {
            hub.with_presence(|presence| {
                gauges.broker = presence.broker();
                gauges.online = presence
                    .nodes()
                    .filter(|(name, _)| presence.of(name.as_str()).0 == Presence::Online)
                    .count() as u64;
            });
            (
                [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
                hub.metrics.text(&gauges, &budgets) + &readings::text(&told),
            )
                .into_response()
        }
        Err(error) => failed(&error).into_response(),
    }
}
