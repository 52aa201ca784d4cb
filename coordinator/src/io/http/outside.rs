//! Alarms of other systems: Alertmanager posts them here.
//!
//! Takes the secret of `intake.token`, which is for this alone, or the operator's. The body is
//! read only once that is right, and few at a time, because it may be large.

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;

use super::api::Answer;
use super::operator::teller;
use super::{Shared, failed, problem};
use crate::control::now_ms;
use crate::control::outside::take;
use crate::fleet::view::{AlarmsTaken, Problem};
use crate::io::alertmanager::{BODY_MAX, SOURCE, read};

/// Takes what Alertmanager says (webhook, version 4): alerts that fire become alarms of the
/// node and the service that their labels name, or of the fleet; resolved ones end.
#[utoipa::path(post, path = "/api/v1/alertmanager",
    request_body(content = serde_json::Value, description = "As Alertmanager's webhook sends it"),
    security(("intake" = []), ("operator" = [])),
    responses(
        (status = 200, body = AlarmsTaken),
        (status = 400, content_type = "application/problem+json", body = Problem),
        (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 413, content_type = "application/problem+json", body = Problem),
    ))]
pub(super) async fn alertmanager(State(hub): Shared, request: Request) -> Answer<AlarmsTaken> {
    teller(&hub, request.headers())?;
    let large = || {
        let text = format!("the body has more than {BODY_MAX} bytes; max_alerts makes it smaller");
        problem(StatusCode::PAYLOAD_TOO_LARGE, &text)
    };
    let Ok(_place) = hub.outside.reading.acquire().await else {
        return Err(problem(StatusCode::SERVICE_UNAVAILABLE, "it is ending"));
    };
    let body = to_bytes(request.into_body(), BODY_MAX)
        .await
        .map_err(|_| large())?;
    let words = read(&body, &hub.outside.labels)
        .map_err(|error| problem(StatusCode::BAD_REQUEST, &error.to_string()))?;
    drop(body);
    let taken = take(&hub, SOURCE, &words, now_ms()).await;
    let taken = taken.map_err(|error| failed(&error))?;
    Ok(Json(AlarmsTaken {
        raised: taken.raised,
        repeated: taken.repeated,
        resolved: taken.resolved,
        left_out: taken.left_out,
    }))
}
