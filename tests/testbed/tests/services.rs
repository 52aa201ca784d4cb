//! Each service as a real process: what it answers, what it refuses, what breaks it.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Running, get, golden_model, post, until};
use homeostat_testbed::Kind;
use serde_json::json;

#[test]
fn web_answers_with_an_instance_that_is_new_after_each_start() {
    let mut web = Running::start(Kind::Web);
    let (code, first) = get(&web, "/").unwrap();
    assert_eq!(
        (code, &first["service"], &first["pid"]),
        (200, &json!("web"), &json!(web.pid()))
    );
    assert_eq!(first["instance"].as_str().unwrap().len(), 16);
    assert_eq!(
        get(&web, "/healthz").unwrap().1["instance"],
        first["instance"]
    );
    assert_eq!(get(&web, "/nothing").unwrap().0, 404);

    web.restart();
    let (_, second) = get(&web, "/").unwrap();
    assert_ne!(first["instance"], second["instance"]);
}

#[test]
fn a_silent_client_and_an_endless_one_do_not_stop_the_others() {
    let web = Running::start(Kind::Web);
    let silent: Vec<TcpStream> = (0..3)
        .map(|_| TcpStream::connect(web.address()).unwrap())
        .collect();
    assert_eq!(get(&web, "/").unwrap().0, 200);
    drop(silent);

    let mut endless = TcpStream::connect(web.address()).unwrap();
    let flood = vec![b'a'; 1 << 20];
    // The service hangs up in the middle, so the write may fail; the answer may be lost too.
    let _ = endless
        .write_all(b"GET /")
        .and_then(|()| endless.write_all(&flood));
    let mut answer = String::new();
    let _ = endless.read_to_string(&mut answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
    assert_eq!(get(&web, "/").unwrap().0, 200);
}

#[test]
fn worker_makes_progress() {
    let worker = Running::start(Kind::Worker);
    let count = || {
        get(&worker, "/healthz").unwrap().1["detail"]["count"]
            .as_u64()
            .unwrap()
    };
    let first = count();
    until("the count to rise", || count() > first + 2);
}

#[test]
fn infer_follows_its_file_through_damage_and_back() {
    let (model, dir) = golden_model();
    let path = dir.path().join("model.onnx");
    let infer = Running::start(Kind::Infer {
        model: path.clone(),
    });
    let vectors = &model.manifest().golden.vectors;
    let inputs: Vec<_> = vectors.iter().map(|vector| &vector.input).collect();
    let (code, answer) = post(&infer, "/infer", &json!({ "inputs": inputs })).unwrap();
    assert_eq!(code, 200, "{answer}");
    assert!(
        model
            .manifest()
            .sha256
            .starts_with(answer["model"].as_str().unwrap())
    );
    for (row, vector) in answer["outputs"].as_array().unwrap().iter().zip(vectors) {
        let row: Vec<f32> = serde_json_row(row);
        assert!(vector.matches(&row, 1e-5), "{row:?} {vector:?}");
    }
    assert_eq!(
        post(&infer, "/infer", &json!({ "inputs": [[1.0]] }))
            .unwrap()
            .0,
        400
    );
    assert_eq!(
        post(&infer, "/infer", &json!({ "rows": 1 })).unwrap().0,
        400
    );

    fs::write(&path, b"not a model").unwrap();
    until("the damage to show", || {
        get(&infer, "/healthz").unwrap().0 == 503
    });
    let (code, answer) = post(&infer, "/infer", &json!({ "inputs": inputs })).unwrap();
    assert_eq!(code, 503);
    assert!(
        answer["error"].as_str().unwrap().contains("cannot load"),
        "{answer}"
    );

    fs::write(&path, model.bytes()).unwrap();
    until("the model to be back", || {
        get(&infer, "/healthz").unwrap().0 == 200
    });
}

#[test]
fn a_missing_model_is_an_answer_and_not_an_exit() {
    let dir = tempfile::tempdir().unwrap();
    let infer = Running::start(Kind::Infer {
        model: dir.path().join("none.onnx"),
    });
    let (code, answer) = get(&infer, "/healthz").unwrap();
    assert_eq!(code, 503);
    assert!(
        answer["detail"]["error"]
            .as_str()
            .unwrap()
            .contains("cannot read"),
        "{answer}"
    );
}

#[test]
fn without_a_control_socket_there_is_no_way_in() {
    let web = Running::start_with(Kind::Web, false);
    assert_eq!(get(&web, "/").unwrap().0, 200);
    std::thread::sleep(Duration::from_millis(20));
    assert!(!web.control().exists());
}

fn serde_json_row(row: &serde_json::Value) -> Vec<f32> {
    #[allow(clippy::cast_possible_truncation)]
    let number = |number: &serde_json::Value| number.as_f64().map_or(f32::NAN, |n| n as f32);
    row.as_array()
        .map(|row| row.iter().map(number).collect())
        .unwrap_or_default()
}
