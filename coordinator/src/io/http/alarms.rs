//! Alarms: looked at, and those of the coordinator acknowledged.

// The derive of IntoParams writes such paths.
#![allow(unused_qualifications)]

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use super::api::{Answer, answer, asked};
use super::operator::{self, operator};
use super::{Shared, failed, problem};
use crate::fleet::view::{Acknowledged, Acknowledgement, Alarm, Problem};
use crate::io::db::own::Acked;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct AlarmsQuery {
    /// Only those that are raised, or only those that are over.
    raised: Option<bool>,
}

/// Alarms of the nodes and of the coordinator; raised and critical ones first.
#[utoipa::path(get, path = "/api/v1/alarms", params(AlarmsQuery), responses(
    (status = 200, body = Vec<Alarm>),
    (status = 400, content_type = "application/problem+json", body = Problem),
))]
pub(super) async fn list(
    State(hub): Shared,
    query: Result<Query<AlarmsQuery>, QueryRejection>,
) -> Answer<Vec<Alarm>> {
    let query = asked(query)?;
    answer(hub.db.alarms(query.raised).await)
}

/// Says that somebody deals with an alarm of the coordinator: people are not reminded
/// of it any more. That of a plan which has ended is over with this.
#[utoipa::path(post, path = "/api/v1/alarms/{name}/ack", request_body = Acknowledgement,
    params(("name" = String, Path, description = "Its name")),
    security(("operator" = [])),
    responses(
        (status = 200, body = Acknowledged),
        (status = 400, content_type = "application/problem+json", body = Problem),
        (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 404, content_type = "application/problem+json", body = Problem),
    ))]
pub(super) async fn acknowledge(
    State(hub): Shared,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
    wish: Result<Json<Acknowledgement>, JsonRejection>,
) -> Answer<Acknowledged> {
    operator(&hub, &headers)?;
    let wrong = |text: &str| problem(StatusCode::BAD_REQUEST, text);
    let Path(name) = name.map_err(|error| wrong(&error.body_text()))?;
    let Json(wish) = wish.map_err(|error| wrong(&error.body_text()))?;
    let by = operator::name(&wish.by)?;
    let acked = hub.db.acknowledge(&name, by).await;
    let stands = match acked.map_err(|error| failed(&error))? {
        Acked::Stands => true,
        Acked::Over => false,
        Acked::OfNode => {
            let text = format!("{name} is a node's alarm: homeostat-agent ack {name}, there");
            return Err(problem(StatusCode::NOT_FOUND, &text));
        }
        Acked::OfOther => {
            let text = format!("{name} is another system's alarm: silence or resolve it there");
            return Err(problem(StatusCode::NOT_FOUND, &text));
        }
        Acked::Unknown => {
            let text = format!("the coordinator has raised no alarm {name}");
            return Err(problem(StatusCode::NOT_FOUND, &text));
        }
    };
    tracing::info!(alarm = name, by, "an alarm is acknowledged");
    hub.alarms_changed();
    Ok(Json(Acknowledged { stands }))
}
