//! `homeostat-agent slot`, with and without a running agent.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_homeostat-agent");

/// Longest wait for an agent to listen.
const READY_MAX: Duration = Duration::from_secs(20);

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_slot_is_filled_shown_and_given_candidates() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    fs::write(
        &config,
        format!(
            "[node]\nid = \"n\"\ndata_dir = \"{0}/data\"\nrun_dir = \"{0}/run\"\n\
             [[service]]\nid = \"infer\"\ncommand = [\"/bin/true\"]\n\
             [service.model]\nslot = \"slots/infer\"\n\
             [service.config]\nslot = \"slots/config\"\nfile = \"c.json\"\nformat = \"json\"\n",
            dir.path().display()
        ),
    )
    .unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/vibration");
    let model = models.join("model.onnx");
    let slot = |words: &[&str], file: Option<&PathBuf>| {
        let output = Command::new(PROGRAM)
            .arg("slot")
            .args(words)
            .args(file)
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };

    let (fine, text) = slot(&["ls"], None);
    assert!(
        fine && text.contains("slot install infer model FILE"),
        "{text}"
    );
    let (fine, version) = slot(&["install", "infer", "model"], Some(&model));
    assert!(fine, "{version}");
    let version = version.trim();
    let (_, text) = slot(&["ls", "infer"], None);
    assert!(text.contains(&format!("{version}  in place\n")), "{text}");
    let (fine, text) = slot(&["stage", "infer", "weights"], Some(&model));
    assert!(!fine && text.contains("expected model or config"), "{text}");
    let (fine, text) = slot(&["stage", "web", "model"], Some(&model));
    assert!(!fine && text.contains("there is no service web"), "{text}");

    let log = fs::File::create(dir.path().join("log")).unwrap();
    let _agent = Agent(
        Command::new(PROGRAM)
            .args(["run", "--config"])
            .arg(&config)
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let end = Instant::now() + READY_MAX;
    while !dir.path().join("run/agent.sock").exists() {
        assert!(Instant::now() < end, "no agent listens");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (fine, text) = slot(&["install", "infer", "model"], Some(&model));
    assert!(
        !fine && text.contains("use homeostat-agent slot stage infer model"),
        "{text}"
    );
    let settings = dir.path().join("settings");
    fs::write(&settings, "{\"port\": ").unwrap();
    let (fine, text) = slot(&["install", "infer", "config"], Some(&settings));
    assert!(
        !fine && text.contains("the agent: ") && text.contains("is not JSON"),
        "{text}"
    );
    fs::write(&settings, "{\"port\": 1}").unwrap();
    let (fine, first) = slot(&["install", "infer", "config"], Some(&settings));
    assert!(fine, "{first}");
    fs::write(&settings, "{\"port\": 2}").unwrap();
    let (fine, second) = slot(&["stage", "infer", "config"], Some(&settings));
    assert!(fine, "{second}");
    let (_, text) = slot(&["ls"], None);
    for line in [
        format!("infer  config  {}  in place, good\n", first.trim()),
        format!("infer  config  {}  staged\n", second.trim()),
    ] {
        assert!(text.contains(&line), "{text}");
    }
    let served = dir.path().join("slots/config/current/c.json");
    assert_eq!(fs::read(served).unwrap(), b"{\"port\": 1}");
}
