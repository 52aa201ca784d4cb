//! Errors as RFC 9457 JSON.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::fleet::view::Problem;

/// An error answer.
pub(super) fn problem(status: StatusCode, detail: &str) -> Problem {
    Problem {
        status: status.as_u16(),
        title: status.canonical_reason().unwrap_or("error").into(),
        detail: detail.into(),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (status, kind, body).into_response()
    }
}
