//! The page in a real browser, where one is installed: an incident appears while
//! somebody looks, and what a node writes stays text.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use homeostat_common::anomaly::Fault;
use serde_json::{Value, json};
use support::{End, Node, Program, boot, incident, until};

/// Chromium, driven over its debugging pipe.
struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    last: u64,
    session: Option<String>,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// `None` where there is no browser.
    fn start() -> Option<Self> {
        let program = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find(|name| {
                let mut probe = Command::new(name);
                probe
                    .arg("--version")
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
                probe.status().is_ok_and(|status| status.success())
            })?;
        let folder = tempfile::tempdir().unwrap();
        // The browser reads commands from descriptor 3 and writes to 4; the
        // shell puts two named pipes there.
        let (to, from) = (folder.path().join("to"), folder.path().join("from"));
        let made = Command::new("mkfifo").args([&to, &from]).status().unwrap();
        assert!(made.success());
        let child = Command::new("sh")
            .arg("-c")
            .arg(
                "exec \"$0\" --headless --no-sandbox --disable-gpu --disable-quic \
                 --no-first-run --disable-background-networking --disable-component-update \
                 --disable-sync --remote-debugging-pipe --user-data-dir=\"$3\" about:blank \
                 3<\"$1\" 4>\"$2\"",
            )
            .arg(program)
            .args([&to, &from, &folder.path().join("profile")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Opening waits for the other side.
        let to = File::options().write(true).open(to).unwrap();
        let from = BufReader::new(File::open(from).unwrap());
        let mut browser = Self {
            child,
            to,
            from,
            last: 0,
            session: None,
            _folder: folder,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attached = browser.call(
            "Target.attachToTarget",
            &json!({"targetId": target["targetId"], "flatten": true}),
        );
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        Some(browser)
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).unwrap();
            assert_eq!(bytes.pop(), Some(0), "the browser is gone");
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    fn evaluate(&mut self, expression: &str) -> Value {
        let result = self.call(
            "Runtime.evaluate",
            &json!({"expression": expression, "returnByValue": true}),
        );
        result["result"]["value"].clone()
    }

    fn text(&mut self) -> String {
        let text = self.evaluate("document.body ? document.body.innerText : ''");
        text.as_str().unwrap_or_default().to_owned()
    }

    fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({"url": url}));
    }

    fn wait_for(&mut self, wanted: &str) -> String {
        until(wanted, || {
            Some(self.text()).filter(|text| text.contains(wanted))
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_incident_appears_while_somebody_looks() {
    let Some(mut browser) = Browser::start() else {
        println!("skip: no chromium here");
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let mut serve = Program::both(data.path());
    serve.healthy();
    let url = format!("http://127.0.0.1:{}/", serve.http.unwrap());
    browser.open(&url);
    browser.wait_for("No node has reported yet.");
    until("live", || {
        (browser.evaluate("document.getElementById('live').textContent") == "live").then_some(())
    });

    let node = Node::connect(serve.mqtt.unwrap(), "edge-1");
    node.status(true);
    node.send(&boot(&node, 1));
    // What a hostile node would write.
    let evil =
        "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
    let mut records = incident(&node, 2, "camera", Fault::Hang, End::Open, evil);
    for record in &records {
        node.send(record);
    }
    let text = browser.wait_for("1 incident open");
    assert!(text.contains("hang · camera on edge-1"), "{text}");
    assert!(text.contains("restart(camera, grace=0ms)"), "{text}");

    records = incident(&node, 6, "infer", Fault::Crash, End::Refused, evil);
    for record in &records {
        node.send(record);
    }
    let text = browser.wait_for("2 incidents open, 1 critical alarm");
    assert!(
        text.contains("anti-flapping: 3 equal healings within 30m"),
        "{text}"
    );
    assert!(
        text.contains(evil),
        "markup is shown as it was written: {text}"
    );

    browser.open(&format!("{url}#/incident/2"));
    let text = browser.wait_for("Nothing is being done.");
    assert!(
        text.contains("similarity: nearest case is 0.41 alike"),
        "{text}"
    );
    assert!(text.contains(evil), "{text}");
    assert_eq!(
        browser.evaluate("document.querySelectorAll('#view img, #view script').length"),
        0
    );
    assert_ne!(browser.evaluate("document.title"), "owned");
    // Nothing is wider than a phone.
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        &json!({"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": true}),
    );
    for hash in ["#/", "#/incident/2"] {
        browser.open(&format!("{url}{hash}"));
        until("settled", || {
            (browser.evaluate("document.documentElement.scrollWidth") == 390).then_some(())
        });
    }

    assert_eq!(serve.terminate(), Some(0));
    browser.wait_for("No connection to the coordinator. This is as of");
}
