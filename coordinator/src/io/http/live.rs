//! What changes, as it changes: server-sent events.
//!
//! An event says what changed, not how: the client fetches again what it shows.
//! So a client that missed some is repaired by one fetch, and nothing is sent
//! that it cannot use.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;

use super::{Shared, failed, problem};
use crate::fleet::view::Change;

/// Live clients at once; each holds a connection.
const LIVE_MAX: usize = 64;

/// A comment this often, so that both ends notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

static PLACES: std::sync::LazyLock<Arc<Semaphore>> =
    std::sync::LazyLock::new(|| Arc::new(Semaphore::new(LIVE_MAX)));

/// Says what changes, as it changes.
///
/// The first event is `hello` with the present cursor; then `change` whenever
/// something did, and `resync` when the client was too slow to be told what.
#[utoipa::path(get, path = "/api/v1/live", responses(
    (status = 200, description = "Server-sent events named hello, change and resync", content_type = "text/event-stream", body = Change),
    (status = 503, description = "Too many live clients", content_type = "application/problem+json", body = crate::fleet::view::Problem),
))]
pub(super) async fn live(State(hub): Shared) -> Response {
    let Ok(place) = PLACES.clone().try_acquire_owned() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many live clients").into_response();
    };
    // Listen first, then ask for the cursor: nothing falls in between.
    let changes = hub.changes.subscribe();
    let hello = match hub.db.cursor().await {
        Ok(cursor) => Change {
            cursor,
            ..Change::default()
        },
        Err(error) => return failed(&error).into_response(),
    };
    let first = stream::once(async move { named("hello", &hello) });
    let rest = stream::unfold((changes, place), |(mut changes, place)| async move {
        let event = match changes.recv().await {
            Ok(change) => named("change", &change),
            Err(RecvError::Lagged(_)) => named("resync", &Change::default()),
            Err(RecvError::Closed) => return None,
        };
        Some((event, (changes, place)))
    });
    Sse::new(futures_util::StreamExt::chain(first, rest))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

fn named(name: &str, change: &Change) -> Result<Event, Infallible> {
    let event = Event::default().event(name).id(change.cursor.to_string());
    Ok(event.data(serde_json::to_string(change).unwrap_or_default()))
}
