//! Plans across nodes: asked for and looked at.
//!
//! Asking takes the operator's token.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use homeostat_common::saga::FleetPlan;
use homeostat_common::units::Ratio;
use homeostat_common::wire::seal;
use homeostat_common::wire::topic::COORDINATOR;
use tokio::sync::oneshot;

use super::operator::{self, operator};
use super::{Shared, failed, problem};
use crate::control::Hub;
use crate::control::sagas::Ask;
use crate::fleet::plans::{
    FleetPlanBegun, FleetPlanStopped, FleetPlanView, FleetPlanWish, OrdersKey,
};
use crate::fleet::view::{Acknowledgement, Problem};

/// Has a plan across nodes run. Answers once it is stored; from then on it is done,
/// undone, or a person is called for it.
#[utoipa::path(post, path = "/api/v1/plans", request_body = FleetPlanWish,
    security(("operator" = [])),
    responses(
        (status = 202, body = FleetPlanBegun),
        (status = 400, content_type = "application/problem+json", body = Problem),
        (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 409, description = "It cannot be begun now",
            content_type = "application/problem+json", body = Problem),
    ))]
pub(super) async fn begin(
    State(hub): Shared,
    headers: HeaderMap,
    wish: Result<Json<FleetPlanWish>, JsonRejection>,
) -> Result<(StatusCode, Json<FleetPlanBegun>), Problem> {
    operator(&hub, &headers)?;
    let wrong = |text: &str| problem(StatusCode::BAD_REQUEST, text);
    let Json(wish) = wish.map_err(|error| wrong(&error.body_text()))?;
    let plan: FleetPlan = wish
        .plan
        .parse()
        .map_err(|error: homeostat_common::saga::FleetPlanError| wrong(&error.to_string()))?;
    let confidence = wish
        .confidence
        .map(Ratio::new)
        .transpose()
        .map_err(|error| wrong(&error.to_string()))?;
    let (reply, answer) = oneshot::channel();
    let ask = Ask::Begin {
        plan,
        confidence,
        reply,
    };
    let id = answered(&hub, ask, answer).await?;
    Ok((StatusCode::ACCEPTED, Json(FleetPlanBegun { id })))
}

/// Has the initiator do what is asked, and waits for its answer.
async fn answered<T>(
    hub: &Hub,
    ask: Ask,
    answer: oneshot::Receiver<Result<T, String>>,
) -> Result<T, Problem> {
    let busy = || {
        problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the initiator does not take wishes now",
        )
    };
    hub.asks.try_send(ask).map_err(|_| busy())?;
    let answer = answer.await.map_err(|_| busy())?;
    answer.map_err(|why| problem(StatusCode::CONFLICT, &why))
}

/// Plans across nodes, newest first; at most 100.
#[utoipa::path(get, path = "/api/v1/plans", responses(
    (status = 200, body = Vec<FleetPlanView>),
    (status = 503, content_type = "application/problem+json", body = Problem),
))]
pub(super) async fn list(State(hub): Shared) -> Result<Json<Vec<FleetPlanView>>, Problem> {
    let mut plans = hub.db.sagas(None).await.map_err(|error| failed(&error))?;
    hub.with_plans(|open| {
        for plan in plans.iter_mut().filter(|plan| plan.ended_ms.is_none()) {
            if let Some(now) = open.get(&plan.id) {
                *plan = now.clone();
            }
        }
    });
    Ok(Json(plans))
}

/// One plan across nodes: how far each step on each node is, and what was decided.
#[utoipa::path(get, path = "/api/v1/plans/{id}",
    params(("id" = u64, Path, description = "Its number")),
    responses(
        (status = 200, body = FleetPlanView),
        (status = 400, content_type = "application/problem+json", body = Problem),
        (status = 404, content_type = "application/problem+json", body = Problem),
    ))]
pub(super) async fn one(
    State(hub): Shared,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Json<FleetPlanView>, Problem> {
    let Path(id) = id.map_err(|error| problem(StatusCode::BAD_REQUEST, &error.body_text()))?;
    let found = hub.db.sagas(Some(id)).await;
    let Some(mut plan) = found.map_err(|error| failed(&error))?.pop() else {
        let text = format!("there is no plan {id}");
        return Err(problem(StatusCode::NOT_FOUND, &text));
    };
    if plan.ended_ms.is_none()
        && let Some(now) = hub.with_plans(|open| open.get(&id).cloned())
    {
        plan = now;
    }
    plan.decisions = hub
        .db
        .saga_story(id)
        .await
        .map_err(|error| failed(&error))?;
    Ok(Json(plan))
}

/// Stops a plan: it is taken back. One for which a person was called since its end lasts
/// is given up instead: no node is waited for any more, and its alarm is over.
#[utoipa::path(post, path = "/api/v1/plans/{id}/stop", request_body = Acknowledgement,
    params(("id" = u64, Path, description = "Its number")),
    security(("operator" = [])),
    responses(
        (status = 200, body = FleetPlanStopped),
        (status = 400, content_type = "application/problem+json", body = Problem),
        (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 404, content_type = "application/problem+json", body = Problem),
        (status = 409, description = "It goes on; why",
            content_type = "application/problem+json", body = Problem),
    ))]
pub(super) async fn stop(
    State(hub): Shared,
    headers: HeaderMap,
    id: Result<Path<u64>, PathRejection>,
    wish: Result<Json<Acknowledgement>, JsonRejection>,
) -> Result<Json<FleetPlanStopped>, Problem> {
    operator(&hub, &headers)?;
    let wrong = |text: &str| problem(StatusCode::BAD_REQUEST, text);
    let Path(id) = id.map_err(|error| wrong(&error.body_text()))?;
    let Json(wish) = wish.map_err(|error| wrong(&error.body_text()))?;
    let by = operator::name(&wish.by)?.to_owned();
    if let Some(plan) = hub
        .db
        .sagas(Some(id))
        .await
        .map_err(|error| failed(&error))?
        .pop()
    {
        if plan.ended_ms.is_some() {
            return Err(problem(StatusCode::CONFLICT, "it is over"));
        }
    } else {
        let text = format!("there is no plan {id}");
        return Err(problem(StatusCode::NOT_FOUND, &text));
    }
    let (reply, answer) = oneshot::channel();
    let ask = Ask::Stop {
        number: id,
        by,
        reply,
    };
    let given_up = answered(&hub, ask, answer).await?;
    Ok(Json(FleetPlanStopped { given_up }))
}

/// What this coordinator signs orders with: for `[orders] trusted` on the nodes.
#[utoipa::path(get, path = "/api/v1/orders-key", responses((status = 200, body = OrdersKey)))]
pub(super) async fn key(State(hub): Shared) -> Json<OrdersKey> {
    Json(OrdersKey {
        name: COORDINATOR.into(),
        key: seal::hex(&hub.key),
    })
}
