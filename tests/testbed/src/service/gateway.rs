//! Takes a request and sees it through: normalise, infer, finish.
//!
//! In: `POST /` with `{"id": "..", "inputs": [numbers]}`. Out: `{"id", "outputs", "label",
//! "model_version", "via"}`, where `via` names the instances that worked on it, in order. Each
//! hop has its own patience; a hop that breaks is tried once more (see [`super::call`]). What a
//! hop refuses or cannot do is answered with 502, what it does not do in time with 504.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::call::{CallError, call};
use super::http::{Method, Request, Response};
use super::{MODEL_NAME, Serve};

/// Some 50 times what a hop takes on an idle machine.
const PREPROCESS_MAX: Duration = Duration::from_millis(250);
const INFER_MAX: Duration = Duration::from_millis(500);
/// Includes what the store takes to write.
const POSTPROCESS_MAX: Duration = Duration::from_millis(500);
/// An id is echoed and stored.
const ID_BYTES_MAX: usize = 64;

pub(super) struct Gateway {
    pub(super) preprocess: SocketAddr,
    pub(super) infer: SocketAddr,
    pub(super) postprocess: SocketAddr,
    pub(super) id: String,
}

/// What went wrong, as the client is told.
struct Trouble {
    code: u16,
    reason: String,
}

impl Serve for Gateway {
    fn answer(&self, request: &Request<'_>) -> Option<Response> {
        if (request.method, request.path) != (Method::Post, "/") {
            return None;
        }
        Some(match self.see_through(request.body) {
            Ok(answer) => Response::json(200, &answer),
            Err(trouble) => Response::error(trouble.code, &trouble.reason),
        })
    }
}

impl Gateway {
    fn see_through(&self, body: &[u8]) -> Result<Value, Trouble> {
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        let id = request.get("id").and_then(Value::as_str);
        let inputs = request.get("inputs").filter(|inputs| inputs.is_array());
        let (Some(id), Some(inputs)) = (id.filter(|id| id.len() <= ID_BYTES_MAX), inputs) else {
            return Err(Trouble {
                code: 400,
                reason: "expected {\"id\": \"..\", \"inputs\": [numbers]}".to_owned(),
            });
        };
        let mut via = vec![json!(self.id)];

        let row = json!({ "id": id, "inputs": inputs });
        let row = hop("preprocess", self.preprocess, "/", &row, PREPROCESS_MAX)?;
        let inputs = part(&row, "preprocess", "/inputs")?;
        via.extend(list(&row, "/via"));

        let width = inputs.as_array().map_or(0, Vec::len);
        let question = json!({
            "id": id,
            "inputs": [{ "name": "features", "shape": [1, width], "datatype": "FP32", "data": inputs }],
        });
        let path = format!("/v2/models/{MODEL_NAME}/infer");
        let found = hop("infer", self.infer, &path, &question, INFER_MAX)?;
        let outputs = part(&found, "infer", "/outputs/0/data")?;
        let version = part(&found, "infer", "/model_version")?;
        via.extend(found.pointer("/parameters/instance").cloned());

        let result = json!({ "id": id, "outputs": outputs, "model_version": version });
        let done = hop(
            "postprocess",
            self.postprocess,
            "/",
            &result,
            POSTPROCESS_MAX,
        )?;
        let label = part(&done, "postprocess", "/label")?;
        via.extend(list(&done, "/via"));
        Ok(json!({
            "id": part(&done, "postprocess", "/id")?,
            "outputs": outputs,
            "label": label,
            "model_version": version,
            "via": via,
        }))
    }
}

fn hop(
    name: &str,
    address: SocketAddr,
    path: &str,
    body: &Value,
    patience: Duration,
) -> Result<Value, Trouble> {
    call(address, path, Some(body), patience).map_err(|error| Trouble {
        code: match error {
            CallError::Late => 504,
            // The client's row, which no other instance will like better.
            CallError::Status(400) => 400,
            CallError::Broken(_) | CallError::Odd | CallError::Status(_) => 502,
        },
        reason: format!("{name}: {error}"),
    })
}

fn part<'a>(answer: &'a Value, name: &str, pointer: &str) -> Result<&'a Value, Trouble> {
    answer.pointer(pointer).ok_or_else(|| Trouble {
        code: 502,
        reason: format!("{name}: no {pointer} in its answer"),
    })
}

fn list(answer: &Value, pointer: &str) -> Vec<Value> {
    let found = answer.pointer(pointer).and_then(Value::as_array);
    found.cloned().unwrap_or_default()
}
