//! The page, compiled in: no file to install, no asset from outside.

use axum::Router;
use axum::http::header;
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! file {
    ($path:literal, $kind:expr, $name:literal) => {
        ($path, $kind, include_str!(concat!("../../page/", $name)))
    };
}

const FILES: [(&str, &str, &str); 12] = [
    file!("/", HTML, "index.html"),
    file!("/app.css", CSS, "app.css"),
    file!("/app.js", JS, "app.js"),
    file!("/base.js", JS, "base.js"),
    file!("/causes.js", JS, "causes.js"),
    file!("/events.js", JS, "events.js"),
    file!("/incident.js", JS, "incident.js"),
    file!("/overview.js", JS, "overview.js"),
    file!("/plan.js", JS, "plan.js"),
    file!("/timeline.js", JS, "timeline.js"),
    file!("/traffic.js", JS, "traffic.js"),
    file!("/favicon.svg", SVG, "favicon.svg"),
];

/// A route for each file.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, kind, text)| {
            let answer = move || async move { ([(header::CONTENT_TYPE, kind)], text) };
            router.route(path, get(answer))
        })
}
