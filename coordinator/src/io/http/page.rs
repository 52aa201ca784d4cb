//! The page, compiled in: no file to install, no asset from outside.

use axum::http::header;
use axum::response::{Html, IntoResponse};

pub(super) async fn html() -> impl IntoResponse {
    Html(include_str!("../../page/index.html"))
}

pub(super) async fn css() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8")],
        include_str!("../../page/app.css"),
    )
}

pub(super) async fn js() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")],
        include_str!("../../page/app.js"),
    )
}

pub(super) async fn icon() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "image/svg+xml")],
        include_str!("../../page/favicon.svg"),
    )
}
