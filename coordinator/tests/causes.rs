//! Why: a trouble that two nodes feel is one group with its root, whatever their clocks say;
//! with its chain over levels, its impact and what would have been otherwise. On the API, the
//! command line and the page.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use serde_json::Value;
use support::{Program, spread};

const SLO: &str =
    "[[slo]]\nroute = \"infer\"\navailability = 0.999\nlatency = \"300ms\"\nusers = 200\n";

fn told(program: &Program, args: &[&str]) -> String {
    let url = format!("http://127.0.0.1:{}", program.http.unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_homeostat"))
        .args(args)
        .args(["--url", &url])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The number of the open incident of a service on a node.
fn open(serve: &Program, node: &str, service: &str) -> u64 {
    let path = format!("/api/v1/incidents?state=open&node={node}&service={service}");
    serve.json(&path)["incidents"][0]["id"].as_u64().unwrap()
}

fn place(value: &Value) -> String {
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    format!("{} {} {}", text("kind"), text("at"), text("name"))
}

#[test]
fn what_two_nodes_feel_has_one_cause_and_is_explained() {
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("serve.toml");
    std::fs::write(&config, SLO).unwrap();
    let broker = Program::broker();
    let serve = Program::serve_with(
        broker.mqtt.unwrap(),
        &data.path().join("data"),
        &["--config", config.to_str().unwrap()],
    );
    serve.healthy();
    let _nodes = spread::spread(broker.mqtt.unwrap(), "");
    let (west, east) = (
        open(&serve, "west", "gateway"),
        open(&serve, "east", "infer-1"),
    );
    let north = open(&serve, "north", "camera");

    let detail = serve.json(&format!("/api/v1/incidents/{west}"));
    let causes = &detail["causes"];
    assert_eq!(place(&causes["root"]), "part east mmcblk0", "{causes:#}");
    let sure = causes["suspects"][0]["confidence"].as_f64().unwrap();
    assert!((sure - 0.6).abs() < 1e-6, "{sure}");
    let chain: Vec<String> = causes["chain"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!(
                "{}: {}",
                one["place"]["level"].as_str().unwrap(),
                place(&one["place"])
            )
        })
        .collect();
    assert_eq!(
        chain,
        [
            "application: service west gateway",
            "application: route west infer",
            "application: route east infer",
            "application: service east infer-1",
            "infrastructure: part east mmcblk0"
        ]
    );

    // One group with its root, without the third one.
    let group = &detail["group"];
    assert_eq!(group["root"], east, "{group:#}");
    let members: Vec<u64> = group["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["incident"].as_u64().unwrap())
        .collect();
    assert_eq!(members, [east.min(west), east.max(west)]);
    let alone = serve.json(&format!("/api/v1/incidents/{north}"));
    assert!(alone["group"].is_null(), "{:#}", alone["group"]);
    let listed = serve.json("/api/v1/incidents?state=open");
    for one in listed["incidents"].as_array().unwrap() {
        let wanted = (one["id"] != north).then(|| group["id"].as_u64().unwrap());
        assert_eq!(one["group"].as_u64(), wanted, "{one}");
    }

    // Three tenths of ten a second failed for five minutes; the promise is a thousandth.
    let impact = &detail["impact"];
    let near = |value: &Value, wanted: f64| {
        let value = value.as_f64().unwrap();
        assert!(
            (value / wanted - 1.0).abs() < 0.01,
            "{value} is not {wanted}: {impact:#}"
        );
    };
    near(&impact["failed"], 900.0);
    assert_eq!(impact["users"], 100, "half of them were slow: {impact:#}");
    let route = &impact["routes"][0];
    assert_eq!(
        (route["entry"].as_bool(), route["basis"].as_str()),
        (Some(true), Some("means"))
    );
    near(&route["burns"][0]["rate"], 300.0);
    near(
        &route["burns"][0]["spent"],
        0.3 * 300.0 / (0.001 * 30.0 * 86_400.0),
    );

    // Three of ten that were left alone passed within the minute; all ten that were mended did.
    let detail = serve.json(&format!("/api/v1/incidents/{east}"));
    let [itself, mend] = &detail["what_if"].as_array().unwrap()[..] else {
        panic!("two answers: {:#}", detail["what_if"]);
    };
    let share = itself["estimate"]["share"].as_f64().unwrap();
    assert!(
        (share - 0.3).abs() < 1e-9 && itself["identified"] == true,
        "{itself:#}"
    );
    assert_eq!(mend["action"], spread::RESTART);
    assert!(mend["estimate"]["low"].as_f64().unwrap() > 0.65, "{mend:#}");

    // The order: what came before it opened, whatever the clocks say.
    let relations: Vec<(&str, &str)> = detail["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["kind"].as_str().unwrap(),
                one["relation"].as_str().unwrap(),
            )
        })
        .collect();
    assert!(
        relations.contains(&("incident-opened", "same")),
        "{relations:?}"
    );
    assert!(relations.contains(&("diagnosed", "after")), "{relations:?}");
    assert!(
        relations.contains(&("incident-opened", "concurrent")),
        "{relations:?}"
    );

    why_in_words(&serve, west, east);
}

fn why_in_words(serve: &Program, west: u64, east: u64) {
    let why = serve.json("/api/v1/why?service=gateway");
    assert_eq!(
        why[0]["place"]["at"], "west",
        "its own incident comes first: {why:#}"
    );
    assert_eq!(why[0]["incident"], west);
    for one in why.as_array().unwrap() {
        assert_eq!(
            one["levels"],
            serde_json::json!(["application", "infrastructure"])
        );
    }
    assert_eq!(serve.get("/api/v1/why?service=nobody").0, 404);
    assert_eq!(serve.get("/api/v1/why").0, 400);

    let text = told(serve, &["incident", "show", &west.to_string()]);
    for part in [
        "likeliest    mmcblk0 of east, 60 % sure",
        "  gateway on west  10 %\n    needs route infer on west\n      needs route infer on east  (explained away)\n",
        "mmcblk0 of east  <== ROOT  60 %",
        "confounded, both need node east",
        "users over the worst five minutes",
        "group ",
        "Would it have healed by itself?",
        "99.9 % answered in 30d00h",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let text = told(serve, &["incident", "show", &east.to_string()]);
    assert!(
        text.contains("tell apart   mmcblk0 of east and infer-1 on east"),
        "{text}"
    );
    assert!(text.contains("30 % ("), "{text}");
    let text = told(serve, &["incident", "why", "infer-1"]);
    assert!(
        text.starts_with("infer-1 on east needs mmcblk0 of east, which is the likeliest cause"),
        "{text}"
    );
    assert!(text.contains("ROOT"), "{text}");
    // What has no incident of its own, and who is asked about on the wrong node.
    let text = told(serve, &["incident", "why", "mmcblk0"]);
    assert!(
        text.starts_with("mmcblk0 of east is the likeliest cause (75 % sure) of the trouble of"),
        "{text}"
    );
    let text = told(serve, &["incident", "why", "infer", "--node", "west"]);
    assert!(text.starts_with("route infer on west "), "{text}");
    let (status, _, body) = serve.get("/api/v1/why?service=infer-1&node=west");
    assert_eq!(status, 404);
    assert!(
        body.contains("west has no infer-1; there is infer-1 on east"),
        "{body}"
    );

    // Times are of one clock, whatever those of the nodes say: all began within seconds.
    let text = told(serve, &["incident", "ls", "--open"]);
    assert!(text.lines().next().unwrap().contains("GROUP"), "{text}");
    let opened = |line: &str| {
        let at = line
            .split_whitespace()
            .find(|word| word.contains('T') && word.ends_with('Z'));
        at.unwrap().get(..13).unwrap().to_owned()
    };
    let hours: std::collections::BTreeSet<String> = text.lines().skip(1).map(opened).collect();
    // One hour, or two that touch.
    assert!(hours.len() <= 2, "{text}");
    let times: Vec<u64> = serve.json("/api/v1/incidents?state=open")["incidents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["opened_at_ms"].as_u64().unwrap())
        .collect();
    let apart = times.iter().max().unwrap() - times.iter().min().unwrap();
    assert!(times.len() == 3 && apart < 60_000, "{times:?}");

    // What only happened at the same time stands aside.
    let text = told(serve, &["incident", "show", &west.to_string()]);
    assert!(!text.contains("camera: crash"), "{text}");
    assert!(text.contains("infer-1: slow_replica"), "{text}");
    assert!(text.contains("--all shows them"), "{text}");
    let text = told(serve, &["incident", "show", &west.to_string(), "--all"]);
    assert!(text.contains("camera: crash"), "{text}");
}
