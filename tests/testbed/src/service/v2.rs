//! The Open Inference Protocol, version 2, over REST, as KServe publishes it.
//!
//! Served: `/v2`, `/v2/health/live`, `/v2/health/ready`, and for the one model
//! `/v2/models/NAME[/versions/V]` with `/ready` and `/infer`. One input tensor, one output
//! tensor, FP32, data flat or nested. Versions are the first 16 hex digits of the file's SHA-256.
//! Every refusal is `{"error": ".."}`. No extensions.

use std::sync::Arc;

use homeostat_models::onnx::Tensor as Port;
use serde_json::{Value, json};

use super::MODEL_NAME;
use super::http::{Method, Request, Response};
use super::infer::{Loaded, ROWS_MAX, Served};

/// `None` for what is not of this protocol.
pub(super) fn answer(served: &Served, request: &Request<'_>) -> Option<Response> {
    let path = request.path.strip_prefix("/v2")?;
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let words = words.as_slice();
    Some(match (request.method, words) {
        (Method::Get, []) => Response::json(
            200,
            &json!({
                "name": "homeostat-testbed",
                "version": env!("CARGO_PKG_VERSION"),
                "extensions": [],
            }),
        ),
        (Method::Get, ["health", "live"]) => Response::json(200, &json!({ "live": true })),
        (Method::Get, ["health", "ready"]) => {
            let ready = served.current().is_ok();
            let code = if ready { 200 } else { 503 };
            Response::json(code, &json!({ "live": true, "ready": ready }))
        }
        (_, ["models", name, ..]) if *name != MODEL_NAME => {
            Response::error(404, &format!("no model {name}"))
        }
        (method, ["models", _, "versions", version, rest @ ..]) => model(
            served,
            served.version(version),
            404,
            method,
            rest,
            request.body,
        )?,
        (method, ["models", _, rest @ ..]) => {
            model(served, served.current(), 503, method, rest, request.body)?
        }
        _ => return None,
    })
}

/// What is asked of one version; `missing` is the status when there is none.
fn model(
    served: &Served,
    loaded: Result<Arc<Loaded>, String>,
    missing: u16,
    method: Method,
    verb: &[&str],
    body: &[u8],
) -> Option<Response> {
    match (method, verb) {
        (Method::Get, ["ready"]) => {
            let code = if loaded.is_ok() { 200 } else { missing };
            let body = json!({ "name": MODEL_NAME, "ready": loaded.is_ok() });
            Some(Response::json(code, &body))
        }
        (Method::Get, []) => Some(match loaded {
            Ok(loaded) => Response::json(200, &metadata(served, &loaded)),
            Err(reason) => Response::error(missing, &reason),
        }),
        (Method::Post, ["infer"]) => {
            let done = loaded.map_err(|reason| (missing, reason));
            let done = done.and_then(|loaded| infer(served, &loaded, body));
            Some(match done {
                Ok(answer) => Response::json(200, &answer),
                Err((code, reason)) => Response::error(code, &reason),
            })
        }
        _ => None,
    }
}

fn metadata(served: &Served, loaded: &Loaded) -> Value {
    // -1 stands for a size that the caller chooses.
    let size = |size: &Option<usize>| size.map_or(json!(-1), |size| json!(size));
    let tensor = |port: &Port| {
        let shape: Vec<Value> = port.shape.iter().map(size).collect();
        json!({ "name": port.name, "datatype": "FP32", "shape": shape })
    };
    json!({
        "name": MODEL_NAME,
        "versions": served.versions(),
        "platform": "onnx_onnxv1",
        "inputs": [tensor(&loaded.input)],
        "outputs": [tensor(&loaded.output)],
    })
}

fn infer(served: &Served, loaded: &Loaded, body: &[u8]) -> Result<Value, (u16, String)> {
    let bad = |reason: String| (400, reason);
    let body: Value = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    if let Some(wanted) = body.pointer("/outputs/0/name")
        && *wanted != *loaded.output.name
    {
        return Err(bad(format!("no output {wanted}")));
    }
    let (rows, flat) = input(&body, &loaded.input.name).map_err(bad)?;
    let outputs = served.run(loaded, rows, &flat)?;
    let mut answer = json!({
        "model_name": MODEL_NAME,
        "model_version": loaded.id,
        "parameters": { "instance": format!("infer:{}", served.instance) },
        "outputs": [{
            "name": loaded.output.name,
            "datatype": "FP32",
            "shape": [rows, outputs.len() / rows],
            "data": outputs,
        }],
    });
    if let (Some(fields), Some(id)) = (answer.as_object_mut(), body.get("id")) {
        fields.insert("id".to_owned(), id.clone());
    }
    Ok(answer)
}

/// Rows and numbers of the tensor `name`.
fn input(body: &Value, name: &str) -> Result<(usize, Vec<f32>), String> {
    let inputs = body.get("inputs").and_then(Value::as_array);
    let [tensor] = inputs.map(Vec::as_slice).unwrap_or_default() else {
        return Err("expected exactly one input".to_owned());
    };
    let text = |key: &str| tensor.get(key).and_then(Value::as_str);
    if text("name") != Some(name) {
        return Err(format!("expected the input {name:?}"));
    }
    if text("datatype") != Some("FP32") {
        return Err("expected the datatype \"FP32\"".to_owned());
    }
    let shape = tensor.get("shape").and_then(Value::as_array);
    let [rows, width] = shape.map(Vec::as_slice).unwrap_or_default() else {
        return Err("expected a shape of two dimensions".to_owned());
    };
    let size = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let (rows, width) = (size(rows).unwrap_or(0), size(width).unwrap_or(0));
    if !(1..=ROWS_MAX).contains(&rows) {
        return Err(format!("expected 1 to {ROWS_MAX} rows"));
    }
    let mut flat = Vec::new();
    let numbers = tensor
        .get("data")
        .is_some_and(|data| collect(data, &mut flat));
    if !numbers || Some(flat.len()) != rows.checked_mul(width) || flat.is_empty() {
        return Err("the data are not the numbers that the shape tells".to_owned());
    }
    Ok((rows, flat))
}

/// Numbers in any nesting, row by row; false when something else is among them.
fn collect(data: &Value, flat: &mut Vec<f32>) -> bool {
    match data {
        Value::Array(items) => items.iter().all(|item| collect(item, flat)),
        Value::Number(number) => {
            // The nearest f32 is what FP32 means.
            #[allow(clippy::cast_possible_truncation)]
            flat.extend(number.as_f64().map(|number| number as f32));
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_must_be_what_it_says() {
        let tensor = |shape: Value, data: Value| {
            let tensor = json!({ "name": "x", "shape": shape, "datatype": "FP32", "data": data });
            input(&json!({ "inputs": [tensor] }), "x")
        };
        let two = Ok((2, vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!(tensor(json!([2, 2]), json!([1, 2, 3, 4])), two);
        assert_eq!(tensor(json!([2, 2]), json!([[1, 2], [3, 4.0]])), two);
        for (shape, data) in [
            (json!([2, 2]), json!([1, 2, 3])),
            (json!([0, 2]), json!([])),
            (json!([1, 0]), json!([])),
            (json!([257, 1]), json!(vec![1; 257])),
            (json!([4]), json!([1, 2, 3, 4])),
            (json!([u64::MAX, u64::MAX]), json!([1])),
            (json!([1, 1]), json!(["1"])),
            (json!([1, 1]), json!([null])),
            (json!([1, -1]), json!([1])),
        ] {
            assert!(tensor(shape.clone(), data).is_err(), "{shape}");
        }
        for body in [
            json!({}),
            json!({ "inputs": [] }),
            json!({ "inputs": [{ "name": "y", "shape": [1, 1], "datatype": "FP32", "data": [1] }] }),
            json!({ "inputs": [{ "name": "x", "shape": [1, 1], "datatype": "INT64", "data": [1] }] }),
        ] {
            assert!(input(&body, "x").is_err(), "{body}");
        }
    }
}
