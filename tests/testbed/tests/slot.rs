//! Inference from a slot: switches under requests, versions on demand, the published protocol.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Running, get, post, until};
use homeostat_models::vibration::{self, Built};
use homeostat_testbed::{Kind, inject};
use serde_json::{Value, json};

struct Slot {
    dir: tempfile::TempDir,
    models: [(Built, String); 2],
}

/// A slot whose first model is current; the second one lies beside it.
fn slot() -> Slot {
    let dir = tempfile::tempdir().unwrap();
    let models = [1, 2].map(|seed| {
        let built = vibration::variant(&format!("1.{seed}.0"), seed, 0);
        let (_, version) = inject::install_model(dir.path(), &built).unwrap();
        (built, version)
    });
    let slot = Slot { dir, models };
    slot.switch(0);
    slot
}

impl Slot {
    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn version(&self, which: usize) -> &str {
        &self.models[which].1
    }

    fn switch(&self, which: usize) {
        inject::install_model(self.path(), &self.models[which].0).unwrap();
    }

    fn start(&self) -> Running {
        Running::start(Kind::InferSlot {
            slot: self.path().to_owned(),
        })
    }

    /// All golden inputs as one request.
    fn batch(&self) -> Value {
        let vectors = &self.models[0].0.manifest.golden.vectors;
        let rows: Vec<_> = vectors.iter().map(|vector| &vector.input).collect();
        json!({ "id": "b1", "inputs": [{
            "name": "features", "shape": [rows.len(), 16], "datatype": "FP32", "data": rows,
        }] })
    }

    /// Whether the whole answer is that of the version it names.
    fn fits(&self, answer: &Value) -> bool {
        let named = answer["model_version"].as_str().unwrap();
        let Some((built, _)) = self.models.iter().find(|(_, version)| version == named) else {
            return false;
        };
        let data = answer["outputs"][0]["data"].as_array().unwrap();
        let data: Vec<f32> = data.iter().map(number).collect();
        let golden = &built.manifest.golden;
        data.len() == 3 * golden.vectors.len()
            && data
                .chunks(3)
                .zip(&golden.vectors)
                .all(|(row, vector)| vector.matches(row, golden.tolerance))
    }
}

#[allow(clippy::cast_possible_truncation)]
fn number(value: &Value) -> f32 {
    value.as_f64().map_or(f32::NAN, |number| number as f32)
}

fn current(infer: &Running) -> String {
    let (_, health) = get(infer, "/healthz").unwrap();
    health["detail"]["model"].as_str().unwrap().to_owned()
}

#[test]
fn the_protocol_is_the_published_one() {
    let slot = slot();
    let infer = slot.start();
    let ok = |path: &str| {
        let (code, body) = get(&infer, path).unwrap();
        assert_eq!(code, 200, "{path}: {body}");
        body
    };
    assert!(ok("/v2")["extensions"].is_array());
    assert_eq!(ok("/v2/health/live")["live"], true);
    assert_eq!(ok("/v2/health/ready")["live"], true);
    let ready = json!({ "name": "vibration", "ready": true });
    assert_eq!(ok("/v2/models/vibration/ready"), ready);
    let meta = ok("/v2/models/vibration");
    assert_eq!(meta["name"], "vibration");
    let mut versions = [slot.version(0), slot.version(1)];
    versions.sort_unstable();
    assert_eq!(meta["versions"], json!(versions));
    let features = json!([{ "name": "features", "datatype": "FP32", "shape": [-1, 16] }]);
    assert_eq!(meta["inputs"], features);
    assert_eq!(meta["outputs"][0]["name"], "probabilities");

    let (code, answer) = post(&infer, "/v2/models/vibration/infer", &slot.batch()).unwrap();
    assert_eq!(code, 200, "{answer}");
    assert_eq!(
        (&answer["id"], &answer["model_name"]),
        (&json!("b1"), &json!("vibration"))
    );
    assert_eq!(answer["model_version"], slot.version(0));
    assert_eq!(answer["outputs"][0]["name"], "probabilities");
    assert_eq!(answer["outputs"][0]["datatype"], "FP32");
    assert_eq!(answer["outputs"][0]["shape"], json!([6, 3]));
    assert!(slot.fits(&answer), "{answer}");

    for (path, code) in [
        ("/v2/models/other/ready", 404),
        ("/v2/models/vibration/versions/none/ready", 404),
        ("/v2/models/vibration/versions/../ready", 404),
        ("/v2/models", 404),
    ] {
        assert_eq!(get(&infer, path).unwrap().0, code, "{path}");
    }
    let path = "/v2/models/vibration/infer";
    for bad in [json!({}), json!({ "inputs": [] }), json!(7)] {
        let (code, answer) = post(&infer, path, &bad).unwrap();
        assert_eq!(code, 400, "{bad}");
        assert!(answer["error"].is_string());
    }
    let mut other = slot.batch();
    other["outputs"] = json!([{ "name": "logits" }]);
    assert_eq!(post(&infer, path, &other).unwrap().0, 400);
}

#[test]
fn a_version_can_be_asked_before_it_is_current() {
    let slot = slot();
    let infer = slot.start();
    for which in [1, 0, 1] {
        let version = slot.version(which);
        let path = format!("/v2/models/vibration/versions/{version}/infer");
        let (code, answer) = post(&infer, &path, &slot.batch()).unwrap();
        assert_eq!(code, 200, "{answer}");
        assert_eq!(answer["model_version"], version);
        assert!(slot.fits(&answer), "{answer}");
    }
    assert_eq!(current(&infer), slot.version(0));
    // One that does not load is refused when it is asked for, and harms nobody.
    fs::create_dir(slot.path().join("versions/half")).unwrap();
    fs::write(slot.path().join("versions/half/model.onnx"), b"half").unwrap();
    let path = "/v2/models/vibration/versions/half/infer";
    let (code, answer) = post(&infer, path, &slot.batch()).unwrap();
    assert_eq!(code, 404);
    assert!(
        answer["error"].as_str().unwrap().contains("cannot load"),
        "{answer}"
    );
    assert_eq!(get(&infer, "/healthz").unwrap().0, 200);
}

#[test]
fn switches_under_load_fail_no_request_and_mix_no_answer() {
    let slot = slot();
    let infer = slot.start();
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let answer = post(&infer, "/v2/models/vibration/infer", &slot.batch());
                    let (code, answer) = answer.unwrap();
                    assert_eq!(code, 200, "{answer}");
                    assert!(slot.fits(&answer), "mixed: {answer}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for which in [1, 0].into_iter().cycle().take(20) {
            let begun = Instant::now();
            slot.switch(which);
            until("the switch", || current(&infer) == slot.version(which));
            slowest = slowest.max(begun.elapsed());
        }
        done.store(true, Ordering::Relaxed);
    });
    let asked = asked.load(Ordering::Relaxed);
    println!("20 switches under {asked} requests, the slowest served after {slowest:?}");
    assert!(asked > 20);
}

#[test]
fn what_cannot_be_loaded_changes_nothing_until_the_next_start() {
    let slot = slot();
    let mut infer = slot.start();
    let file = slot
        .path()
        .join("versions")
        .join(slot.version(0))
        .join("model.onnx");
    fs::write(&file, b"not a model").unwrap();
    until("the damage to be seen", || {
        get(&infer, "/healthz").unwrap().1["detail"]["error"].is_string()
    });
    let (code, answer) = post(&infer, "/v2/models/vibration/infer", &slot.batch()).unwrap();
    assert_eq!((code, slot.fits(&answer)), (200, true));
    // The link may go as well.
    fs::remove_file(slot.path().join("current")).unwrap();
    thread::sleep(Duration::from_millis(60));
    assert_eq!(get(&infer, "/healthz").unwrap().0, 200);
    infer.restart();
    assert_eq!(get(&infer, "/v2/health/ready").unwrap().0, 503);
    assert_eq!(get(&infer, "/v2/models/vibration/ready").unwrap().0, 503);
    slot.switch(1);
    until("the other model", || {
        get(&infer, "/healthz").unwrap().0 == 200
    });
    assert_eq!(current(&infer), slot.version(1));
}

#[test]
fn a_bad_model_put_in_by_hand_is_served_as_it_is() {
    let slot = slot();
    let infer = slot.start();
    let (_, version) = inject::bad_model(slot.path(), 5).unwrap();
    until("the bad model", || current(&infer) == version);
    let (code, answer) = post(&infer, "/v2/models/vibration/infer", &slot.batch()).unwrap();
    assert_eq!(code, 200);
    assert_eq!(answer["model_version"], version.as_str());
    assert!(!slot.fits(&answer));
}
