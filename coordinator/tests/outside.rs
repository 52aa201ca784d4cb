//! Alarms of other systems: posted as Alertmanager posts them, and told by devices over a
//! real broker.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use homeostat_common::anomaly::Fault;
use homeostat_common::wire::projection::Outside;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet};
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::{Value, json};
use support::{End, Node, PATIENCE, Program, boot, healthy, incident, mosquitto, until};

const CONFIG: &str = "[[intake]]\ntopic = \"plant/+/alarm\"\n\
                      [[intake]]\ntopic = \"devices/+/status\"\nform = \"presence\"\n";

/// A body as Alertmanager sends it.
fn body(alerts: &[Value]) -> String {
    json!({
        "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing",
        "receiver": "homeostat", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093", "alerts": alerts,
    })
    .to_string()
}

fn alert(name: &str, status: &str, labels: &Value) -> Value {
    let mut all = json!({"alertname": name, "severity": "critical"});
    all.as_object_mut()
        .unwrap()
        .extend(labels.as_object().unwrap().clone());
    let mark = format!("{all}")
        .bytes()
        .fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    json!({
        "status": status, "labels": all, "annotations": {"summary": format!("{name} is bad")},
        "startsAt": "2026-11-22T20:00:00.5Z", "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "", "fingerprint": format!("{mark:016x}"),
    })
}

fn post(serve: &Program, token: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "POST /api/v1/alertmanager HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, _, answer) = serve.exchange(&request);
    (status, serde_json::from_str(&answer).unwrap())
}

fn token(data: &Path) -> String {
    let text = std::fs::read_to_string(data.join("intake.token")).unwrap();
    text.trim().to_owned()
}

/// The alarms that stand: node, name, service, source.
fn standing(serve: &Program) -> Vec<(String, String, String, String)> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let alarms = serve.json("/api/v1/alarms?raised=true");
    let rows = alarms.as_array().unwrap().iter();
    rows.map(|alarm| {
        let field = |name: &str| word(&alarm[name]);
        (
            field("node"),
            field("alarm"),
            field("service"),
            field("source"),
        )
    })
    .collect()
}

fn with_devices(broker: u16, data: &Path) -> Program {
    let config = data.join("serve.toml");
    std::fs::write(&config, CONFIG).unwrap();
    Program::serve_with(broker, data, &["--config", config.to_str().unwrap()])
}

fn a_node(broker: u16) -> Node {
    let node = Node::connect(broker, "edge-1");
    node.status(true);
    node.send(&boot(&node, 1));
    node.send(&healthy(&node, 2, "infer"));
    node.wait_for(2);
    node
}

/// What nodes are told, as it comes.
fn listen(broker: u16, filter: &str) -> std::sync::mpsc::Receiver<(String, Vec<u8>)> {
    let (client, mut connection) = Client::new(MqttOptions::new("ear", "127.0.0.1", broker), 8);
    client.subscribe(filter, QoS::AtLeastOnce).unwrap();
    let (sender, told) = std::sync::mpsc::channel();
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _client = client;
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(Packet::SubAck(_))) => ready.send(()).unwrap(),
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    if sender.send((topic, publish.payload.to_vec())).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });
    is_ready.recv_timeout(PATIENCE).unwrap();
    told
}

#[test]
fn an_alert_becomes_an_alarm_of_the_node_that_its_labels_name_until_it_is_resolved() {
    let data = tempfile::tempdir().unwrap();
    let broker = Program::broker();
    let serve = with_devices(broker.mqtt.unwrap(), data.path());
    serve.healthy();
    let node = a_node(broker.mqtt.unwrap());
    let token = token(data.path());
    let told = listen(broker.mqtt.unwrap(), "hs/v1/+/+/ext");
    let labels = json!({"instance": "edge-1.plant.example:9100", "job": "infer"});
    let alerts = [
        alert("HighLatency", "firing", &labels),
        alert(
            "DiskWillFill",
            "firing",
            &json!({"node": "edge-1", "job": "node-exporter"}),
        ),
        alert(
            "WatchdogDown",
            "firing",
            &json!({"instance": "stranger:80"}),
        ),
    ];
    let begun = Instant::now();
    let (status, answer) = post(&serve, &token, &body(&alerts));
    assert_eq!((status, &answer["raised"]), (200, &3.into()), "{answer}");
    // Told to the node at once, with the service only where the node has one of that name.
    let outside = until("told", || {
        let (topic, payload) = told.try_recv().ok()?;
        assert_eq!(topic, "hs/v1/plant-7/edge-1/ext");
        Some(serde_json::from_slice::<Outside>(&payload).unwrap())
    });
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    let names: Vec<_> = outside
        .alarms
        .iter()
        .map(|alarm| {
            (
                alarm.alarm.as_str(),
                alarm.service.as_ref().map(|it| it.as_str()),
            )
        })
        .collect();
    assert_eq!(
        names,
        [
            ("alertmanager:HighLatency", Some("infer")),
            ("alertmanager:DiskWillFill", None)
        ]
    );
    let row = |node: &str, name: &str, service: &str| {
        let own = |text: &str| text.to_owned();
        (own(node), own(name), own(service), own("alertmanager"))
    };
    let mut all = standing(&serve);
    all.sort();
    assert_eq!(
        all,
        [
            row("coordinator", "WatchdogDown", "-"),
            row("edge-1", "DiskWillFill", "-"),
            row("edge-1", "HighLatency", "infer"),
        ]
    );
    // Once more is no second alarm.
    let (_, again) = post(&serve, &token, &body(&alerts));
    assert_eq!(
        (&again["raised"], &again["repeated"]),
        (&0.into(), &3.into())
    );
    assert_eq!(standing(&serve).len(), 3);
    // It stands beside the incident of its service, and not beside that of another one.
    for (seq, service) in [(3, "infer"), (9, "web")] {
        for record in incident(&node, seq, service, Fault::Crash, End::Refused, "") {
            node.send(&record);
        }
    }
    let evidence = |id: u64| {
        let detail = serve.json(&format!("/api/v1/incidents/{id}"));
        detail["evidence"].to_string()
    };
    until("told of incidents", || {
        (serve.get("/api/v1/incidents/2").0 == 200).then_some(())
    });
    assert!(evidence(1).contains("alertmanager: HighLatency (critical): HighLatency is bad"));
    assert!(!evidence(2).contains("HighLatency") && evidence(2).contains("DiskWillFill"));
    // Resolved, it is over here and at the node.
    let over = [alert("HighLatency", "resolved", &labels), alerts[1].clone()];
    let (_, answer) = post(&serve, &token, &body(&over));
    assert_eq!(
        (&answer["resolved"], &answer["repeated"]),
        (&1.into(), &1.into())
    );
    let left = until("told of the end", || {
        let (_, payload) = told.try_recv().ok()?;
        let outside: Outside = serde_json::from_slice(&payload).unwrap();
        (outside.alarms.len() == 1).then_some(outside)
    });
    assert_eq!(left.alarms[0].alarm, "alertmanager:DiskWillFill");
    let (_, _, metrics) = serve.get("/metrics");
    let line = "homeostat_outside_alarms_total{source=\"alertmanager\",what=\"repeated\"} 4";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn who_may_not_tell_and_what_is_no_alert_is_refused_with_what_and_where() {
    let data = tempfile::tempdir().unwrap();
    let serve = Program::both(data.path());
    serve.healthy();
    let good = body(&[alert("A", "firing", &json!({}))]);
    let (status, answer) = post(&serve, "0000", &good);
    assert_eq!(status, 401, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("intake.token"));
    let token = token(data.path());
    // It is good for alarms alone.
    let plan = serve.exchange(&format!(
        "POST /api/v1/plans HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    ));
    assert_eq!(plan.0, 401);
    for (text, says) in [
        ("{".to_owned(), "no JSON: "),
        (good.replace("\"4\"", "\"3\""), "version: expected \"4\""),
        (good.replace("alerts", "others"), "alerts: expected a list"),
        (
            body(&[
                alert("A", "firing", &json!({})),
                json!({"status": "firing"}),
            ]),
            "alerts[1]: missing field `labels`",
        ),
        (
            body(&[alert("A", "on", &json!({}))]),
            "alerts[0]: unknown variant `on`",
        ),
        (body(&[json!(7)]), "alerts[0]: invalid type"),
    ] {
        let (status, answer) = post(&serve, &token, &text);
        assert_eq!(status, 400, "{text}: {answer}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.starts_with(says), "{detail}");
    }
    assert!(standing(&serve).is_empty(), "nothing of them was taken");
    let large = format!("{}{}", " ".repeat(4 * 1024 * 1024), good);
    let request = format!(
        "POST /api/v1/alertmanager HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-length: {}\r\n\r\n{large}",
        large.len()
    );
    let (status, _, answer) = serve.exchange(&request);
    assert_eq!(status, 413, "{answer}");
    assert!(answer.contains("max_alerts"));
    // Unknown fields are fine.
    let more = good.replacen('{', "{\"new\":[1,2],", 1);
    assert_eq!(post(&serve, &token, &more).0, 200);
}

#[test]
fn a_flood_is_bounded_and_counted_and_leaves_room_for_what_is_critical() {
    let data = tempfile::tempdir().unwrap();
    let serve = Program::both(data.path());
    serve.healthy();
    let token = token(data.path());
    let (mut raised, mut left_out) = (0, 0);
    for lot in 0..25 {
        let alerts: Vec<Value> = (0..4000)
            .map(|n| {
                alert(
                    "Flood",
                    "firing",
                    &json!({"n": format!("{lot}-{n}"), "severity": "warning"}),
                )
            })
            .collect();
        let (status, answer) = post(&serve, &token, &body(&alerts));
        assert_eq!(status, 200, "{answer}");
        raised += answer["raised"].as_u64().unwrap();
        left_out += answer["left_out"].as_u64().unwrap();
    }
    assert_eq!((raised, left_out), (9_000, 91_000));
    let (_, answer) = post(
        &serve,
        &token,
        &body(&[alert("Fire", "firing", &json!({}))]),
    );
    assert_eq!(answer["raised"], 1);
    let alarms = serve.json("/api/v1/alarms?raised=true");
    let alarms = alarms.as_array().unwrap();
    assert_eq!((alarms.len(), &alarms[0]["alarm"]), (1000, &"Fire".into()));
    let full = alarms
        .iter()
        .find(|alarm| alarm["alarm"] == "intake-full")
        .unwrap();
    assert!(
        full["text"].as_str().unwrap().starts_with("91000 alarms"),
        "{full}"
    );
    assert_eq!(serve.json("/api/v1/fleet")["summary"]["alarms"], 9_002);
}

/// A process that is killed when dropped.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a real Alertmanager that posts to the coordinator; `None` where it is not installed.
fn alertmanager(serve: &Program, data: &Path) -> Option<(Running, u16)> {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let file = data.join("alertmanager.yml");
    let config = format!(
        "route:\n  receiver: homeostat\n  group_by: ['...']\n  group_wait: 100ms\n  \
         group_interval: 300ms\n  repeat_interval: 1s\nreceivers:\n- name: homeostat\n  \
         webhook_configs:\n  - url: http://127.0.0.1:{}/api/v1/alertmanager\n    \
         http_config:\n      authorization:\n        credentials_file: {}\n",
        serve.http.unwrap(),
        data.join("intake.token").display()
    );
    std::fs::write(&file, config).unwrap();
    let child = std::process::Command::new("prometheus-alertmanager")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.path={}", data.join("am").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .ok()?;
    let child = Running(child);
    until("listening", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    Some((child, port))
}

#[test]
fn a_real_alertmanager_tells_repeats_and_takes_back() {
    let data = tempfile::tempdir().unwrap();
    let serve = Program::both(data.path());
    serve.healthy();
    let _node = a_node(serve.mqtt.unwrap());
    let Some((_running, port)) = alertmanager(&serve, data.path()) else {
        println!("skip: prometheus-alertmanager is not installed");
        return;
    };
    // As a Prometheus fires it, and takes it back by an end that has passed.
    let fire = |end: &str| {
        let alerts = json!([{
            "labels": {"alertname": "HighLatency", "instance": "edge-1:9100", "job": "infer",
                "severity": "critical"},
            "annotations": {"summary": "p99 is 2 s"},
            "startsAt": "2026-11-20T20:00:00Z", "endsAt": end,
        }]);
        let body = alerts.to_string();
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(
            stream,
            "POST /api/v2/alerts HTTP/1.0\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    };
    fire("2126-11-22T20:00:00Z");
    let own = |text: &str| text.to_owned();
    let row = (
        own("edge-1"),
        own("HighLatency"),
        own("infer"),
        own("alertmanager"),
    );
    until("raised", || {
        (standing(&serve) == [row.clone()]).then_some(())
    });
    let alarms = serve.json("/api/v1/alarms?raised=true");
    assert_eq!(alarms[0]["since_ms"], 1_795_204_800_000_u64, "{alarms}");
    until("repeated", || {
        let (_, _, metrics) = serve.get("/metrics");
        let line = "{source=\"alertmanager\",what=\"repeated\"} 0";
        (!metrics.contains(line)).then_some(())
    });
    assert_eq!(standing(&serve).len(), 1, "a repetition is no second alarm");
    fire("2026-11-21T20:00:00Z");
    until("over", || standing(&serve).is_empty().then_some(()));
}

fn devices(broker: u16, data: &Path) {
    let mut serve = with_devices(broker, data);
    serve.healthy();
    let node = a_node(broker);
    // A camera whose last will is its alarm, and a press that tells.
    let mut options = MqttOptions::new("camera", "127.0.0.1", broker);
    let will = LastWill::new(
        "devices/cam-7/status",
        "offline",
        QoS::AtLeastOnce,
        true,
        None,
    );
    options.set_last_will(will);
    let (camera, mut connection) = Client::new(options, 8);
    camera
        .publish("devices/cam-7/status", QoS::AtLeastOnce, true, "online")
        .unwrap();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let life = std::thread::spawn(move || {
        for event in connection.iter() {
            if event.is_err() || ended.try_recv().is_ok() {
                return; // Without a goodbye.
            }
        }
    });
    let raised = r#"{"alarm":"hot","state":"raised","severity":"critical","node":"edge-1","service":"infer","text":"92 C"}"#;
    let press = |payload: &str| {
        let topic = "plant/press-3/alarm";
        node.client
            .publish(topic, QoS::AtLeastOnce, true, payload.to_owned())
            .unwrap();
    };
    press(raised);
    press("no alarm at all");
    let row = |node: &str, name: &str, service: &str| {
        let own = |text: &str| text.to_owned();
        (own(node), own(name), own(service), own("mqtt"))
    };
    let hot = row("edge-1", "press-3-hot", "infer");
    until("hot", || (standing(&serve) == [hot.clone()]).then_some(()));
    // A retained word is heard by the next life, and what is deleted is over.
    press(raised);
    serve.kill();
    let serve = with_devices(broker, data);
    serve.healthy();
    end.send(()).unwrap();
    camera
        .publish("x", QoS::AtMostOnce, false, "wakes it")
        .unwrap();
    life.join().unwrap();
    let both = [row("coordinator", "cam-7-offline", "-"), hot];
    until("gone", || {
        let mut all = standing(&serve);
        all.sort();
        (all == both).then_some(())
    });
    press("");
    node.client
        .publish("devices/cam-7/status", QoS::AtLeastOnce, true, "online")
        .unwrap();
    until("over", || standing(&serve).is_empty().then_some(()));
    let (_, _, metrics) = serve.get("/metrics");
    assert!(
        metrics.contains("homeostat_outside_alarms_total{source=\"mqtt\",what=\"resolved\"} 2")
    );
}

#[test]
fn devices_tell_over_the_broker_and_their_last_will_is_an_alarm() {
    let data = tempfile::tempdir().unwrap();
    let broker = Program::broker();
    devices(broker.mqtt.unwrap(), data.path());
}

#[test]
fn so_they_do_over_mosquitto() {
    let data = tempfile::tempdir().unwrap();
    let Some((_guard, port)) = mosquitto(data.path()) else {
        println!("skip: mosquitto is not installed");
        return;
    };
    devices(port, data.path());
}
