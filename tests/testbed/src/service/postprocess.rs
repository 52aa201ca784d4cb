//! Makes the final answer of the outputs, and passes it on.
//!
//! In: `POST /` with `{"id", "outputs": [numbers], "model_version"}`. Out: the same with `label`,
//! once the store has acknowledged it; without the store there is no answer. The publisher is
//! told too, but nobody waits for it long.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::Serve;
use super::call::{CallError, call};
use super::http::{Method, Request, Response};

/// What a disk may take.
const STORE_MAX: Duration = Duration::from_millis(400);
/// Telling is best effort.
const PUBLISH_MAX: Duration = Duration::from_millis(20);

pub(super) struct Postprocess {
    pub(super) store: SocketAddr,
    pub(super) publisher: Option<SocketAddr>,
    pub(super) id: String,
}

impl Serve for Postprocess {
    fn answer(&self, request: &Request<'_>) -> Option<Response> {
        if (request.method, request.path) != (Method::Post, "/") {
            return None;
        }
        let Some(mut answer) = finish(request.body) else {
            return Some(Response::error(
                400,
                "expected {\"id\", \"outputs\": [numbers], \"model_version\"}",
            ));
        };
        let stored = match call(self.store, "/", Some(&answer), STORE_MAX) {
            Ok(stored) => stored,
            Err(error) => {
                let code = if matches!(error, CallError::Late) {
                    504
                } else {
                    502
                };
                return Some(Response::error(code, &format!("store: {error}")));
            }
        };
        let mut via = vec![json!(self.id)];
        via.extend(stored.get("via").cloned());
        if let Some(publisher) = self.publisher
            && let Ok(told) = call(publisher, "/", Some(&answer), PUBLISH_MAX)
        {
            via.extend(told.get("via").cloned());
        }
        if let Some(fields) = answer.as_object_mut() {
            fields.insert("via".to_owned(), Value::Array(via));
        }
        Some(Response::json(200, &answer))
    }
}

/// Adds the index of the largest output.
fn finish(body: &[u8]) -> Option<Value> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let outputs = body.get("outputs")?.as_array()?;
    let numbers = outputs.iter().map(Value::as_f64);
    let numbers = numbers.collect::<Option<Vec<f64>>>()?;
    let largest = (0..numbers.len()).max_by(|a, b| {
        let at = |index: &usize| numbers.get(*index).copied().unwrap_or(f64::NEG_INFINITY);
        at(a).total_cmp(&at(b))
    })?;
    Some(json!({
        "id": body.get("id")?.as_str()?,
        "outputs": outputs,
        "label": largest,
        "model_version": body.get("model_version")?.as_str()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_is_the_largest_output() {
        let body = br#"{"id":"7","outputs":[0.1,0.7,0.2],"model_version":"v"}"#;
        assert_eq!(finish(body).unwrap()["label"], 1);
        for bad in [
            r#"{"id":"7","outputs":[],"model_version":"v"}"#,
            r#"{"id":"7","outputs":[null],"model_version":"v"}"#,
            r#"{"outputs":[1],"model_version":"v"}"#,
            "",
        ] {
            assert_eq!(finish(bad.as_bytes()), None, "{bad}");
        }
    }
}
