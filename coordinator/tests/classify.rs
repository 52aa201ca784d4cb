//! Failure classes as a person works with them: train, ask, show, and beside the incidents of
//! a fleet.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use homeostat_common::anomaly::Fault;
use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Level, LogCount, Observation};
use homeostat_common::units::Micros;
use homeostat_common::wire::Body;
use serde_json::Value;
use support::{End, Node, Program, boot, incident, until};

fn homeostat(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_homeostat"))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn done(args: &[&str]) -> String {
    let (code, out, why) = homeostat(args);
    assert_eq!(code, Some(0), "{args:?}: {why}");
    out
}

/// Runs of a camera: healthy, without frames, with lost ones. Columns in the order given.
fn write(folder: &Path, columns: &[&str]) -> (String, String) {
    let mut counts = columns.join(",") + "\n";
    let mut labels = "row,label_name\n".to_owned();
    for row in 0..48_u32 {
        let some = 8 + row * 7 % 5;
        let (label, run) = match row % 4 {
            0 | 1 => ("no_failure", [some, 0, 1]),
            2 => ("stall_failure", [0, 0, 1]),
            _ => ("loss_failure", [some, 1 + row % 3, 1]),
        };
        let cells: Vec<String> = columns
            .iter()
            .map(|column| match *column {
                "camera_frame <n>" => run[0].to_string(),
                "camera_lost <n>_ERROR" => run[1].to_string(),
                _ => run[2].to_string(),
            })
            .collect();
        counts += &(cells.join(",") + "\n");
        labels += &format!("{row},{label}\n");
    }
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (one, other) = (path("counts.csv"), path("labels.csv"));
    fs::write(&one, counts).unwrap();
    fs::write(&other, labels).unwrap();
    (one, other)
}

const COLUMNS: [&str; 3] = ["camera_frame <n>", "camera_lost <n>_ERROR", "camera_start"];

#[test]
fn a_model_is_trained_shown_and_asked_and_the_order_of_columns_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (counts, labels) = write(dir.path(), &COLUMNS);
    let model = dir.path().join("m").to_str().unwrap().to_owned();
    let train = [
        "classify", "train", "--counts", &counts, "--labels", &labels, "--out", &model,
    ];
    let said = done(&train);
    assert!(said.contains("3 events of 1 services, seed 1"), "{said}");
    assert_eq!(done(&["classify", "show", &model]), said);
    let run = ["classify", "run", "--model", &model, "--counts", &counts];
    let text = done(&run);
    assert!(
        text.contains("24 healthy, 24 known failures, 0 unlike"),
        "{text}"
    );
    let json = done(&[&run[..], &["--json"]].concat());
    let all: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(all[2]["class"], "stall_failure");
    assert!(
        all[2]["evidence"][0]["event"]
            .as_str()
            .unwrap()
            .starts_with("camera")
    );
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let (turned, _) = write(&other, &[COLUMNS[2], COLUMNS[0], COLUMNS[1]]);
    let run = [
        "classify", "run", "--model", &model, "--counts", &turned, "--json",
    ];
    assert_eq!(done(&run), json);
    // Something that never was.
    fs::write(
        &turned,
        "camera_start,gpu_hang_ERROR,camera_frame <n>\n1,4,9\n",
    )
    .unwrap();
    let all: Value = serde_json::from_str(&done(&run)).unwrap();
    assert_eq!(
        (&all[0]["class"], &all[0]["unknown"][0]),
        (&Value::Null, &"gpu_hang_ERROR".into())
    );
    // What cannot be used is said with its file.
    fs::write(&model, b"hsclass1 and more").unwrap();
    let (code, _, why) = homeostat(&run);
    assert_eq!(code, Some(1));
    assert!(
        why.contains("/m is no model that can be used: its checksum"),
        "{why}"
    );
    fs::write(&labels, "row,label_name\n0,no_failure\n").unwrap();
    let (code, _, why) = homeostat(&train);
    assert_eq!(code, Some(1));
    assert!(why.contains("cannot train: 48 runs with 1 labels"), "{why}");
}

#[test]
fn the_class_of_an_incident_stands_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let (counts, labels) = write(dir.path(), &COLUMNS);
    let model = dir.path().join("m").to_str().unwrap().to_owned();
    done(&[
        "classify", "train", "--counts", &counts, "--labels", &labels, "--out", &model,
    ]);
    let config = dir.path().join("serve.toml");
    fs::write(&config, format!("[classify]\nmodel = \"{model}\"\n")).unwrap();
    let broker = Program::broker();
    let data = dir.path().join("data");
    let config = ["--config", config.to_str().unwrap()];
    let serve = Program::serve_with(broker.mqtt.unwrap(), &data, &config);
    // The broker keeps nothing for a coordinator that it has not seen yet.
    serve.healthy();
    let node = Node::connect(broker.mqtt.unwrap(), "edge-1");
    node.status(true);
    node.send(&boot(&node, 1));
    let logs = |pairs: &[(&str, Level, u32)]| -> Body {
        let line = |(text, level, count): &(&str, Level, u32)| LogCount {
            service: Some(ServiceId::new("camera").unwrap()),
            template: 1,
            text: (*text).into(),
            level: *level,
            count: *count,
        };
        Body::Observation(Observation {
            node: node.name.clone(),
            from: Micros(0),
            to: Micros(1),
            logs: pairs.iter().map(line).collect(),
            metrics: Vec::new(),
            alarms: Vec::new(),
        })
    };
    let known = logs(&[
        ("frame <n>", Level::Info, 9),
        ("lost <n>", Level::Error, 2),
        ("start", Level::Info, 1),
    ]);
    let strange = logs(&[("lens is wet", Level::Error, 30)]);
    let mut seq = 2;
    for seen in [known, strange] {
        let records = incident(&node, seq, "camera", Fault::Crash, End::Healed, "");
        let mut observation = node.envelope(seq + records.len() as u64, seen);
        // The second one opens it.
        observation.causes.push(records[1].reference());
        records.iter().for_each(|record| node.send(record));
        node.send(&observation);
        seq = observation.seq + 1;
    }
    node.wait_for(seq - 1);
    let url = format!("http://127.0.0.1:{}", serve.http.unwrap());
    let of = |number: u64| {
        until("a class", || {
            let class = serve.json(&format!("/api/v1/incidents/{number}"))["class"].clone();
            (!class.is_null()).then_some(class)
        })
    };
    assert_eq!(of(1)["class"], "loss_failure");
    let services = of(1)["services"].clone();
    assert_eq!(services, serde_json::json!(["camera"]));
    assert_eq!(
        (&of(2)["class"], of(2)["novelty"].as_f64() > Some(0.9)),
        (&Value::Null, true)
    );
    let shown = done(&["incident", "show", "1", "--url", &url]);
    assert!(
        shown.contains("class        loss_failure, probability"),
        "{shown}"
    );
    let shown = done(&["incident", "show", "2", "--url", &url]);
    assert!(
        shown.contains("unlike anything the model was trained on"),
        "{shown}"
    );
    assert!(
        shown.contains("camera_lens is wet_ERROR 30 (usually 0)"),
        "{shown}"
    );

    let out = dir.path().join("collected");
    let said = done(&[
        "classify",
        "collect",
        "--out",
        out.to_str().unwrap(),
        "--url",
        &url,
    ]);
    assert!(said.starts_with("2 of 2 incidents"), "{said}");
    let counts = fs::read_to_string(out.join("fleet_seq.csv")).unwrap();
    assert_eq!(
        counts,
        "camera_frame <n>,camera_lens is wet_ERROR,camera_lost <n>_ERROR,camera_start\n\
         0,30,0,0\n9,0,2,1\n"
    );
    let labels = fs::read_to_string(out.join("fleet_labels.csv")).unwrap();
    assert_eq!(
        labels,
        "row,label_name,is_failure,incident\n0,crash,1,edge-1 2\n1,crash,1,edge-1 1\n"
    );
}
