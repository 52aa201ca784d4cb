//! The page in a real browser, where one is installed: an incident appears while
//! somebody looks, and what a node writes stays text.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use homeostat_common::anomaly::Fault;
use serde_json::{Value, json};
use support::{End, Node, Program, boot, fleet, incident, spread, until};

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

    /// The page as wide as that, light or dark.
    fn look(&mut self, width: u32, scheme: &str) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 800}),
        );
        self.call("Emulation.setScrollbarsHidden", &json!({"hidden": true}));
        self.call(
            "Emulation.setEmulatedMedia",
            &json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
    }

    /// Writes the whole page as a picture into the folder `SHOTS`, for people.
    fn shoot(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("SHOTS") else {
            return;
        };
        let shot = self.call(
            "Page.captureScreenshot",
            &json!({"captureBeyondViewport": true, "format": "png"}),
        );
        let encoded = shot["data"].as_str().unwrap();
        let path = std::path::Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(path, base64(encoded)).unwrap();
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

/// Decodes what the browser made, so without judging it.
fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0, 0_u32);
    for digit in text.bytes() {
        let Some(value) = DIGITS.iter().position(|known| *known == digit) else {
            continue; // Padding.
        };
        held = held << 6 | u32::try_from(value).unwrap();
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    bytes
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

#[test]
fn a_fleet_shows_where_its_traffic_goes_and_how_its_plan_proceeds() {
    let Some(mut browser) = Browser::start() else {
        println!("skip: no chromium here");
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let serve = Program::both(data.path());
    serve.healthy();
    let url = format!("http://127.0.0.1:{}/", serve.http.unwrap());
    let evil = "<img src=x onerror=\"document.title='owned'\">";
    let mut told = fleet::three(serve.mqtt.unwrap(), evil);
    let listen = "window.wrong = []; addEventListener('error', (e) => wrong.push(e.message)); \
                  addEventListener('unhandledrejection', (e) => wrong.push(String(e.reason))); \
                  const told = console.error; \
                  console.error = (...all) => { wrong.push(all.join(' ')); told(...all); };";
    browser.call("Page.enable", &json!({}));
    browser.call(
        "Page.addScriptToEvaluateOnNewDocument",
        &json!({"source": listen}),
    );
    browser.look(1440, "light");
    browser.open(&url);
    let text = browser.wait_for("2 incidents open");
    for part in [
        "Health of the node 50 % when decided, 100 % predicted once it works.",
        "isolate(infer, infer-1, drain=2s) done",
        "release(infer, infer-1) waiting",
        "predicted 70 %",
        "observe-only",
        "stranger-cpu",
        "waiting: store answers late",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(text.contains(evil), "markup is shown as it was written");
    let drawn = |browser: &mut Browser| {
        let texts = "[...document.querySelectorAll('svg.traffic text')].map((t) => t.textContent).join('|')";
        browser
            .evaluate(texts)
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let picture = drawn(&mut browser);
    for part in [
        "west",
        "east",
        "north",
        "infer-1",
        "unhealthy",
        "standby",
        "isolated",
        "200 (50)",
        "no word from it",
        "\u{2715} 50",
    ] {
        assert!(
            picture.split('|').any(|text| text.contains(part)),
            "{part:?} is not in {picture}"
        );
    }
    // The clock that is an hour ahead moves nothing that is shown.
    assert!(text.contains("clock 1 h 0 min ahead"), "{text}");
    let ages = browser
        .evaluate("[...document.querySelectorAll('[data-age]')].map((t) => t.textContent).join()");
    assert!(!ages.as_str().unwrap().contains("ahead"), "{ages}");
    // Each line has its own weight: the one that leads to another node is thick.
    let lines = browser.evaluate("document.querySelectorAll('svg.traffic .edge.ok').length");
    assert!(lines.as_u64() >= Some(8), "{lines}");

    // The plan goes on while somebody looks.
    let seq = told.west.seq;
    told.west.step(
        1,
        1,
        "restart(infer-1, grace=2s)",
        homeostat_common::wire::body::Phase::Done,
        (0.85, 0.86),
    );
    assert_eq!(told.west.seq, seq + 1);
    browser.wait_for("health 75 % \u{2192} 86 %");

    let open = serve.json("/api/v1/incidents?state=open&node=west");
    let slow = format!("#/incident/{}", open["incidents"][0]["id"]);
    for (hash, ready) in [
        ("#/", "2 incidents open"),
        (slow.as_str(), "on another node in the same while"),
        ("#/timeline", "its clock is 1 h 0 min ahead"),
    ] {
        for (width, scheme) in [
            (1440, "light"),
            (1440, "dark"),
            (390, "light"),
            (390, "dark"),
        ] {
            browser.look(width, scheme);
            browser.open("about:blank");
            browser.open(&format!("{url}{hash}"));
            let text = browser.wait_for(ready);
            until("no wider than the screen", || {
                (browser.evaluate("document.documentElement.scrollWidth") == width).then_some(())
            });
            if hash == "#/" && width == 390 {
                assert!(
                    text.contains("infer on west") || text.contains("on west"),
                    "{text}"
                );
                assert!(text.contains("200 (50)"), "{text}");
                assert_eq!(
                    browser.evaluate("document.querySelectorAll('svg.traffic').length"),
                    0
                );
            }
            let name = match hash {
                "#/" => "overview",
                "#/timeline" => "timeline",
                _ => "incident",
            };
            browser.shoot(&format!("{name}-{width}-{scheme}"));
            assert_eq!(browser.evaluate("wrong.join('; ')"), "");
        }
    }
    assert_eq!(
        browser.evaluate("document.querySelectorAll('#view img, #view script').length"),
        0
    );
}

#[test]
fn a_cause_is_drawn_with_its_root_and_said_in_words() {
    let Some(mut browser) = Browser::start() else {
        println!("skip: no chromium here");
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let serve = Program::both(data.path());
    serve.healthy();
    let url = format!("http://127.0.0.1:{}/", serve.http.unwrap());
    let evil = "<img src=x onerror=\"document.title='owned'\">";
    let _told = spread::spread(serve.mqtt.unwrap(), evil);
    let open = |node: &str| {
        let found = serve.json(&format!("/api/v1/incidents?state=open&node={node}"));
        found["incidents"][0]["id"].as_u64().unwrap()
    };
    for (node, marks) in [
        (
            "west",
            &["mmcblk0 of east", "route infer on west", "infer-1 on east"][..],
        ),
        ("east", &["mmcblk0 of east", "infer-1 on east"]),
        ("north", &["camera on north"]),
    ] {
        let id = open(node);
        for (width, scheme) in [
            (1440, "light"),
            (1440, "dark"),
            (390, "light"),
            (390, "dark"),
        ] {
            browser.look(width, scheme);
            browser.open("about:blank");
            browser.open(&format!("{url}#/incident/{id}"));
            let text = browser.wait_for("Would it have healed by itself?");
            until("no wider than the screen", || {
                (browser.evaluate("document.documentElement.scrollWidth") == width).then_some(())
            });
            let texts = "[...document.querySelectorAll('svg.cause-graph title')].map((t) => t.textContent).join('|')";
            let drawn = browser.evaluate(texts);
            let drawn = drawn.as_str().unwrap_or_default().to_owned();
            for mark in marks {
                assert!(drawn.contains(mark), "{node}: {mark:?} is not in {drawn}");
            }
            // The root is marked by a frame and in words, and the words say all that is drawn.
            assert_eq!(
                browser.evaluate(
                    "document.querySelectorAll('svg.cause-graph .cause.root rect.outer').length"
                ),
                1
            );
            assert!(drawn.contains("root, "), "{drawn}");
            assert!(text.contains(marks[0]), "{text}");
            let dashed = browser.evaluate(
                "document.querySelectorAll('svg.cause-graph .cause-link.confounded').length",
            );
            assert_eq!(dashed, u64::from(node != "north"), "{node}: {drawn}");
            // Dashed is what is confounded, and no component; the legend says what is there.
            let frames = "[...document.querySelectorAll('svg.cause-graph .cause rect')].map((r) => getComputedStyle(r).strokeDasharray).join()";
            let frames = browser.evaluate(frames);
            let frames = frames.as_str().unwrap_or_default();
            assert!(
                !frames.is_empty() && frames.split(',').all(|dash| dash == "none"),
                "{frames}"
            );
            assert_eq!(
                text.contains("confounded: both need"),
                node != "north",
                "{text}"
            );
            assert_eq!(
                text.contains("explained away: its"),
                node != "north",
                "{text}"
            );
            // One root, and no victim is called one.
            assert_eq!(text.matches("root, ").count(), 1, "{text}");
            let tags = "[...document.querySelectorAll('.group .tag')].filter((t) => t.textContent === 'root').length";
            assert_eq!(browser.evaluate(tags), 0);
            if node == "east" {
                assert!(
                    text.contains(evil),
                    "markup is shown as it was written: {text}"
                );
                assert!(text.contains("What would tell"), "{text}");
                assert!(text.contains("30 % ("), "{text}");
            }
            if node == "west" {
                assert!(
                    text.contains("2 incidents") || text.contains("2 INCIDENTS"),
                    "{text}"
                );
            }
            browser.shoot(&format!("why-{node}-{width}-{scheme}"));
        }
    }
    assert_eq!(
        browser.evaluate("document.querySelectorAll('#view img, #view script').length"),
        0
    );
}
