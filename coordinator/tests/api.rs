//! The API keeps to its own description, and to its manners.

#![allow(clippy::unwrap_used)]

mod support;

use homeostat_common::anomaly::Fault;
use serde_json::Value;
use support::{End, Node, Program, boot, healthy, incident};

/// What `value` has that the schema does not say, or lacks that it does.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        return match target {
            Some(target) => check(document, target, value, at),
            None => vec![format!("{at}: {reference} leads nowhere")],
        };
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let fits = choices
                .iter()
                .any(|each| check(document, each, value, at).is_empty());
            return if fits {
                Vec::new()
            } else {
                vec![format!("{at}: {value} is none of {schema}")]
            };
        }
    }
    let mut wrong = Vec::new();
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        wrong.push(format!("{at}: {value} is not in {schema}"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |name: &str| name == kind || (name == "number" && kind == "integer");
    let named = match &schema["type"] {
        Value::String(name) => fits(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(fits),
        _ => true,
    };
    if !named {
        wrong.push(format!("{at}: {value} is no {}", schema["type"]));
    }
    if let Some(items) = value.as_array() {
        for (index, item) in items.iter().enumerate() {
            let at = format!("{at}[{index}]");
            wrong.extend(check(document, &schema["items"], item, &at));
        }
    }
    if let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) {
        for (name, field) in fields {
            match known.get(name) {
                Some(schema) => {
                    wrong.extend(check(document, schema, field, &format!("{at}.{name}")));
                }
                None => wrong.push(format!("{at}.{name} is not described")),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                wrong.push(format!("{at}.{name} is missing"));
            }
        }
    }
    wrong
}

#[test]
fn every_answer_is_what_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    let serve = Program::both(data.path());
    serve.healthy();
    let node = Node::connect(serve.mqtt.unwrap(), "edge-1");
    node.status(true);
    node.send(&boot(&node, 1));
    node.send(&healthy(&node, 2, "infer"));
    let mut seq = 3;
    for end in [End::Healed, End::Refused, End::Open] {
        for record in incident(&node, seq, "infer", Fault::Crash, end, "") {
            node.send(&record);
            seq += 1;
        }
    }
    node.wait_for(seq - 1);
    let silent = Node::connect(serve.mqtt.unwrap(), "edge-2");
    silent.status(true);

    let document = serve.json("/api/openapi.json");
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if path == "/api/v1/live" {
            continue; // Does not end; the page's test listens to it.
        }
        let mut requests = vec![(path.replace("{id}", "1"), "200")];
        match path.as_str() {
            "/api/v1/incidents/{id}" => requests.extend([
                (path.replace("{id}", "99"), "404"),
                (path.replace("{id}", "x"), "400"),
            ]),
            "/api/v1/incidents" => requests.extend([
                (
                    format!("{path}?state=open&node=edge-1&service=infer&limit=1"),
                    "200",
                ),
                (
                    format!("{path}?state=closed&outcome=healed&before=9"),
                    "200",
                ),
                (format!("{path}?state=none"), "400"),
                (format!("{path}?limit=0"), "400"),
                (format!("{path}?limit=501"), "400"),
            ]),
            "/api/v1/events" => requests.extend([
                (
                    format!("{path}?after=3&node=edge-1&kind=step&limit=2"),
                    "200",
                ),
                (format!("{path}?after=-1"), "400"),
                (format!("{path}?typo=1"), "400"),
            ]),
            "/api/v1/alarms" => requests.push((format!("{path}?raised=true"), "200")),
            _ => {}
        }
        for (request, expected) in requests {
            let (status, head, body) = serve.get(&request);
            assert_eq!(status.to_string(), expected, "{request}: {body}");
            let content = &item["get"]["responses"][expected]["content"];
            let (kind, described) = content
                .as_object()
                .and_then(|kinds| kinds.iter().next())
                .unwrap_or_else(|| panic!("{request}: {expected} is not described"));
            assert!(
                head.contains(&format!("content-type: {kind}")),
                "{request}: {head}"
            );
            if kind.contains("json") {
                let value: Value = serde_json::from_str(&body).unwrap();
                let wrong = check(&document, &described["schema"], &value, &request);
                assert!(wrong.is_empty(), "{wrong:#?}");
            }
            asked += 1;
        }
    }
    assert!(asked >= 16, "{asked}");

    let page = serve.json("/api/v1/incidents?limit=2");
    assert_eq!(page["incidents"][0]["id"], 3);
    let rest = serve.json(&format!(
        "/api/v1/incidents?limit=2&before={}",
        page["next"]
    ));
    assert_eq!(
        (&rest["incidents"][0]["id"], &rest["next"]),
        (&1.into(), &Value::Null)
    );
}

#[test]
fn strangers_and_wrong_methods_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let serve = Program::both(data.path());
    let ask = |request: &str| serve.exchange(request);
    let (status, head, _) = ask("GET /api/v1/fleet HTTP/1.0\r\nhost: evil.example\r\n\r\n");
    assert_eq!(
        status, 421,
        "a name that resolves to this machine is not this machine"
    );
    assert!(
        head.contains("content-security-policy: default-src 'none'"),
        "{head}"
    );
    assert_eq!(ask("GET /api/v1/fleet HTTP/1.0\r\n\r\n").0, 421);
    let post = "POST /api/v1/fleet HTTP/1.0\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(ask(post).0, 405);
    let (status, head, body) = serve.get("/api/v2/fleet");
    assert_eq!(status, 404);
    assert!(head.contains("application/problem+json"), "{head}");
    assert!(body.contains("/api/openapi.json"), "{body}");
    let long = format!(
        "GET /{} HTTP/1.0\r\nhost: localhost\r\n\r\n",
        "x".repeat(60_000)
    );
    assert!(matches!(ask(&long).0, 414 | 431), "a head has a bound");
}
