//! The API keeps to its own description, and to its manners.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use homeostat_common::anomaly::Fault;
use serde_json::Value;
use support::{End, Node, Program, boot, fleet, healthy, incident, stuck_plan};

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
    let _fleet = fleet::three(serve.mqtt.unwrap(), "");
    let silent = Node::connect(serve.mqtt.unwrap(), "edge-9");
    silent.status(true);

    let document = serve.json("/api/openapi.json");
    let plan = begin(&serve, data.path(), &document);
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if path == "/api/v1/live" {
            continue; // Does not end; the page's test listens to it.
        }
        if item["get"].is_null() {
            continue; // Asks for something to be done.
        }
        let id = if path.contains("plans") {
            plan.as_str()
        } else {
            "1"
        };
        let mut requests = vec![(path.replace("{id}", id), "200")];
        match path.as_str() {
            "/api/v1/why" => {
                requests = vec![
                    (format!("{path}?service=infer-1"), "200"),
                    (format!("{path}?service=infer-1&node=west"), "200"),
                    (format!("{path}?service=nobody"), "404"),
                    (path.clone(), "400"),
                ];
            }
            "/api/v1/plans/{id}" => requests.extend([
                (path.replace("{id}", "99"), "404"),
                (path.replace("{id}", "x"), "400"),
            ]),
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
            "/api/v1/routes" => requests.push((format!("{path}?node=west"), "200")),
            "/api/v1/timeline" => requests.extend([
                (format!("{path}?before=20&limit=3"), "200"),
                (format!("{path}?limit=0"), "400"),
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
    assert!(asked >= 22, "{asked}");

    let page = serve.json("/api/v1/incidents?node=edge-1&limit=2");
    assert_eq!(page["incidents"][0]["id"], 3);
    let rest = serve.json(&format!(
        "/api/v1/incidents?node=edge-1&limit=2&before={}",
        page["next"]
    ));
    assert_eq!(
        (&rest["incidents"][0]["id"], &rest["next"]),
        (&1.into(), &Value::Null)
    );
}

/// Has something done as described, and in none of the ways that are not.
struct Post<'t> {
    serve: &'t Program,
    document: &'t Value,
    /// In the document, and with its names filled in.
    path: &'t str,
    filled: &'t str,
}

impl Post<'_> {
    fn ask(&self, token: &str, body: &str, expected: &str) -> Value {
        let request = format!(
            "POST {} HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.filled,
            token.trim(),
            body.len()
        );
        let (status, head, answer) = self.serve.exchange(&request);
        assert_eq!(status.to_string(), expected, "{body}: {answer}");
        let content = &self.document["paths"][self.path]["post"]["responses"][expected]["content"];
        let (kind, described) = content.as_object().unwrap().iter().next().unwrap();
        assert!(head.contains(&format!("content-type: {kind}")), "{head}");
        let value: Value = serde_json::from_str(&answer).unwrap();
        let wrong = check(self.document, &described["schema"], &value, body);
        assert!(wrong.is_empty(), "{wrong:#?}");
        value
    }
}

/// The operator's token, and one that is not.
fn tokens(data: &Path) -> (String, String) {
    let token = std::fs::read_to_string(data.join("operator.token")).unwrap();
    let other = if token.starts_with('0') { "1" } else { "0" };
    let wrong = format!("{other}{}", &token[1..]);
    (token, wrong)
}

/// Has a plan run; its number.
fn begin(serve: &Program, data: &Path, document: &Value) -> String {
    let (token, wrong) = tokens(data);
    let path = "/api/v1/plans";
    let post = Post {
        serve,
        document,
        path,
        filled: path,
    };
    let good = r#"{"plan":"edge-9: wait(1s)"}"#;
    post.ask("", good, "401");
    post.ask(&wrong, good, "401");
    post.ask(&token, "{}", "400");
    post.ask(&token, r#"{"plan":"edge-9: dance(1s)"}"#, "400");
    for sure in ["2", "-0.1", "1e99", "null", "NaN", "\"1\""] {
        let sure = format!(r#"{{"plan":"edge-9: wait(1s)","confidence":{sure}}}"#);
        post.ask(&token, &sure, "400");
    }
    post.ask(&token, r#"{"plan":"edge-77: wait(1s)"}"#, "409");
    let doubtful = r#"{"plan":"edge-9: restart(infer, grace=1s)","confidence":0.4}"#;
    post.ask(&token, doubtful, "409");
    post.ask(&token, good, "202")["id"].to_string()
}

#[test]
fn only_the_operator_stops_a_plan_and_only_one_that_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let serve = Program::both(data.path());
    serve.healthy();
    let node = Node::connect(serve.mqtt.unwrap(), "edge-9");
    node.status(true);
    let document = serve.json("/api/openapi.json");
    let over = stuck_plan(&serve, &node, data.path()).to_string();
    let plan = begin(&serve, data.path(), &document);
    let (token, wrong) = tokens(data.path());
    let stop = |id: &str, token: &str, body: &str, expected: &str| {
        let post = Post {
            serve: &serve,
            document: &document,
            path: "/api/v1/plans/{id}/stop",
            filled: &format!("/api/v1/plans/{id}/stop"),
        };
        post.ask(token, body, expected)
    };
    let anna = r#"{"by":"anna"}"#;
    stop(&plan, "", anna, "401");
    stop(&plan, &wrong, anna, "401");
    stop(&plan, &token, r#"{"by":" "}"#, "400");
    stop("x", &token, anna, "400");
    stop("1", &token, anna, "404");
    assert_eq!(stop(&over, &token, anna, "409")["detail"], "it is over");
    let asked = || serve.json(&format!("/api/v1/plans/{plan}"));
    assert!(asked()["why"].is_null());
    assert_eq!(stop(&plan, &token, anna, "200")["given_up"], false);
    assert_eq!(asked()["why"], "anna has stopped it");
    let again = stop(&plan, &token, anna, "409");
    assert_eq!(again["detail"], "it is taken back already");
}

#[test]
fn only_the_operator_acknowledges_and_only_what_the_coordinator_has_raised() {
    let data = tempfile::tempdir().unwrap();
    let serve = Program::both(data.path());
    serve.healthy();
    let node = Node::connect(serve.mqtt.unwrap(), "edge-1");
    node.status(true);
    for record in incident(&node, 1, "infer", Fault::Crash, End::Refused, "") {
        node.send(&record);
    }
    node.wait_for(4);
    let plan = stuck_plan(&serve, &node, data.path());
    let document = serve.json("/api/openapi.json");
    let (token, wrong) = tokens(data.path());
    let ask = |name: &str, token: &str, body: &str, expected: &str| {
        let post = Post {
            serve: &serve,
            document: &document,
            path: "/api/v1/alarms/{name}/ack",
            filled: &format!("/api/v1/alarms/{name}/ack"),
        };
        post.ask(token, body, expected)
    };
    let own = format!("saga-{plan}");
    let anna = r#"{"by":"anna"}"#;
    ask(&own, "", anna, "401");
    ask(&own, &wrong, anna, "401");
    for body in [
        "{}",
        r#"{"by":" "}"#,
        r#"{"by":"a\nb"}"#,
        r#"{"by":"a","x":1}"#,
    ] {
        ask(&own, &token, body, "400");
    }
    ask("saga-1", &token, anna, "404");
    let of_node = ask("infer-quarantine", &token, anna, "404");
    let told = of_node["detail"].as_str().unwrap();
    assert!(
        told.contains("homeostat-agent ack infer-quarantine"),
        "{told}"
    );

    let alarms = || serve.json("/api/v1/alarms?raised=true");
    let standing = alarms();
    assert_eq!(
        (
            &standing[0]["node"],
            &standing[0]["alarm"],
            &standing[0]["acked"]
        ),
        (&"coordinator".into(), &own.clone().into(), &Value::Null)
    );
    let summary = serve.json("/api/v1/fleet")["summary"]["alarms"].clone();
    assert_eq!((standing.as_array().unwrap().len(), summary), (2, 2.into()));
    // The plan has ended: there is nothing else that could end its alarm.
    assert_eq!(ask(&own, &token, anna, "200")["stands"], false);
    ask(&own, &token, anna, "404");
    assert_eq!(alarms().as_array().unwrap().len(), 1);
}

#[test]
fn a_fleet_tells_where_its_traffic_goes_and_what_its_plans_do() {
    let data = tempfile::tempdir().unwrap();
    let serve = Program::both(data.path());
    serve.healthy();
    let _fleet = fleet::three(serve.mqtt.unwrap(), "");
    let document = serve.json("/api/openapi.json");
    for (path, schema) in [
        ("/api/v1/fleet", "/api/v1/fleet"),
        ("/api/v1/routes", "/api/v1/routes"),
        ("/api/v1/timeline", "/api/v1/timeline"),
        ("/api/v1/left-alone", "/api/v1/left-alone"),
        ("/api/v1/incidents/1", "/api/v1/incidents/{id}"),
        ("/api/v1/incidents/2", "/api/v1/incidents/{id}"),
        ("/api/v1/incidents/3", "/api/v1/incidents/{id}"),
    ] {
        let content = &document["paths"][schema]["get"]["responses"]["200"]["content"];
        let schema = &content["application/json"]["schema"];
        assert!(schema.is_object(), "{path}");
        let wrong = check(&document, schema, &serve.json(path), path);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    let routes = serve.json("/api/v1/routes?node=west");
    let led: Vec<_> = routes[0]["backends"].as_array().unwrap().iter().collect();
    assert_eq!(led[0]["leads_to"]["state"], "unhealthy");
    assert_eq!(
        (&led[0]["weight"], &led[0]["configured"]),
        (&0.into(), &100.into())
    );
    assert_eq!(led[1]["leads_to"]["state"], "standby");
    assert_eq!(led[2]["leads_to"]["node"], "east");
    assert_eq!(led[2]["leads_to"]["route"], "infer");

    let open = serve.json("/api/v1/incidents?state=open&node=west");
    let slow = serve.json(&format!("/api/v1/incidents/{}", open["incidents"][0]["id"]));
    let decision = &slow["decisions"][0];
    let phases: Vec<_> = decision["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["phase"])
        .collect();
    assert_eq!(phases, ["done", "started", "done", "waiting"]);
    assert_eq!(
        decision["shape"].to_string(),
        r#"{"in_turn":[{"step":0},{"side_by_side":[{"step":1},{"step":2}]},{"step":3}]}"#
    );
    assert_eq!(decision["steps"][0]["health"], 0.75);
    assert_eq!(decision["options"][0]["refusal"]["rule"], "blast-radius");
    assert!(slow["evidence"][0].as_str().unwrap().contains("p95"));
    // The clock of the north is an hour ahead; what it did meanwhile still
    // stands in the middle.
    let timeline = slow["timeline"].as_array().unwrap();
    let place = timeline.iter().position(|e| e["node"] == "north").unwrap();
    assert!(timeline[place]["meanwhile"].as_bool().unwrap());
    assert!(place > 0 && place + 1 < timeline.len(), "{timeline:#?}");

    let alone = serve.json("/api/v1/left-alone");
    let names: Vec<_> = alone
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    for name in ["observe-only", "stranger-cpu", "forwarder-frozen"] {
        assert!(
            names.iter().any(|known| *known == name),
            "{name}: {names:?}"
        );
    }
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
