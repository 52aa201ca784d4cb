//! API, page and metrics over HTTP/1.1.
//!
//! There is no authentication yet, so it listens on loopback only, and refuses
//! requests whose `Host` is another name: a page on the internet must not read
//! the fleet through a name that resolves to 127.0.0.1. Everything is read-only, but
//! for plans across nodes and acknowledgements, which take the operator's token, and for
//! alarms of other systems, which take one of their own.

mod alarms;
mod api;
mod live;
mod operator;
mod outside;
mod page;
mod plans;
mod problem;

pub use api::openapi;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header, uri::Authority};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::control::Hub;
use crate::fleet::view::Problem;
use crate::io::db::DbError;
use problem::problem;

/// Connections at once, live ones included.
const CONNECTIONS_MAX: usize = 256;

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take; a live stream has begun by then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest request is the text of a plan.
const BODY_MAX: usize = 16 * 1024;

/// Largest request head.
const HEAD_MAX: usize = 32 * 1024;

/// The addresses that may be listened on: without authentication, only those
/// that nobody else reaches.
///
/// # Errors
/// What to tell the operator.
pub fn loopback_only(what: &str, address: SocketAddr) -> Result<SocketAddr, String> {
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(format!(
            "{what} has no authentication yet and listens on loopback only, not on {address}; \
             use 127.0.0.1 and reach it through an SSH tunnel or an authenticating proxy"
        ))
    }
}

/// The routes.
pub fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .merge(page::routes())
        .route("/healthz", get(api::healthz))
        .route("/metrics", get(api::metrics))
        .route("/api/openapi.json", get(api::document))
        .route("/api/v1/fleet", get(api::fleet))
        .route("/api/v1/services", get(api::services))
        .route("/api/v1/routes", get(api::routes))
        .route("/api/v1/alarms", get(alarms::list))
        .route("/api/v1/alarms/{name}/ack", post(alarms::acknowledge))
        .route("/api/v1/alertmanager", post(outside::alertmanager))
        .route("/api/v1/incidents", get(api::incidents))
        .route("/api/v1/incidents/{id}", get(api::incident))
        .route("/api/v1/why", get(api::why))
        .route("/api/v1/timeline", get(api::timeline))
        .route("/api/v1/left-alone", get(api::left_alone))
        .route("/api/v1/events", get(api::events))
        .route("/api/v1/plans", get(plans::list).post(plans::begin))
        .route("/api/v1/plans/{id}", get(plans::one))
        .route("/api/v1/plans/{id}/stop", post(plans::stop))
        .route("/api/v1/orders-key", get(plans::key))
        .route("/api/v1/live", get(live::live))
        .fallback(|| async {
            problem(StatusCode::NOT_FOUND, "no such path; see /api/openapi.json")
        })
        .method_not_allowed_fallback(|| async {
            problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "everything here is read with GET, but for plans, acknowledgements and alarms",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(guard))
        .with_state(hub)
}

/// Answers on `listener` until dropped.
pub async fn serve(listener: TcpListener, hub: Arc<Hub>) {
    let router = router(hub);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Waiting for a place before accepting leaves the rest to the kernel's
        // queue.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, as a rule: give others time to end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            // An error here is the client's: it left, or spoke no HTTP.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

/// Whether a `Host` names this machine to itself.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let name = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// What holds for every answer.
async fn guard(request: Request, next: Next) -> Result<Response, Infallible> {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let mut response = match host {
        Some(host) if is_local(host) => tokio::time::timeout(ANSWER_TIMEOUT, next.run(request))
            .await
            .unwrap_or_else(|_| {
                problem(StatusCode::SERVICE_UNAVAILABLE, "no answer within 10 s").into_response()
            }),
        _ => problem(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host is not localhost or a loopback address",
        )
        .into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        // Nothing from outside, no inline script or style, no frames.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    Ok(response)
}

/// Hands an error of the database on without its details.
fn failed(error: &DbError) -> Problem {
    tracing::error!(
        error = crate::control::ingest::chain(error),
        "cannot answer"
    );
    problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}

type Shared = State<Arc<Hub>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:1",
            "[::1]:80",
            "127.9.9.9",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "",
            "localhost@evil.example:x",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn an_address_that_others_reach_is_refused_with_the_way_out() {
        assert!(loopback_only("the API", "[::1]:0".parse().unwrap()).is_ok());
        let refusal = loopback_only("the API", "0.0.0.0:8080".parse().unwrap()).unwrap_err();
        assert!(refusal.contains("0.0.0.0:8080") && refusal.contains("127.0.0.1"));
    }
}
