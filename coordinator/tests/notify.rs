//! How the coordinator calls people: the real program, real receivers, and a plan across
//! nodes of which nobody knows how it ended.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use support::{Node, PATIENCE, Program, stuck_plan, until};

const SECRET: &[u8] = b"correct horse battery staple";

/// HMAC as RFC 2104 writes it.
fn hmac(secret: &[u8], message: &[u8]) -> String {
    let mut key = secret.to_vec();
    key.resize(64, 0);
    let pad = |with: u8| key.iter().map(move |byte| byte ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([&pad(0x36), message].concat());
    let outer = Sha256::digest([&pad(0x5c), &inner[..]].concat());
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What arrived, once its signature was found right.
#[derive(Debug)]
struct Arrived {
    key: String,
    said: Value,
}

impl Arrived {
    /// Alarm, what became of it, and how often it was repeated.
    fn news(&self) -> (&str, &str, u64) {
        let text = |name: &str| self.said[name].as_str().unwrap();
        (
            text("alarm"),
            text("news"),
            self.said["repeat"].as_u64().unwrap(),
        )
    }
}

fn read(stream: &mut TcpStream) -> Option<Arrived> {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        text.extend_from_slice(&part[..read]);
        let whole = String::from_utf8(text.clone()).unwrap();
        let Some((head, body)) = whole.split_once("\r\n\r\n") else {
            continue;
        };
        let field = |name: &str| {
            let mut lines = head.lines();
            let line = lines.find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_else(|| panic!("no {name} in {head}"))
        };
        if body.len() < field("Content-Length").parse().unwrap() {
            continue;
        }
        let timestamp = field("Homeostat-Timestamp");
        let signed = hmac(SECRET, format!("{timestamp}.{body}").as_bytes());
        assert_eq!(field("Homeostat-Signature"), format!("v1={signed}"));
        assert_eq!(field("Homeostat-Event"), "alarm");
        assert!(field("User-Agent").starts_with("homeostat/"), "{head}");
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!(now.abs_diff(timestamp.parse().unwrap()) < 60);
        let said: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&said["version"], &said["node"]),
            (&1.into(), &"coordinator".into())
        );
        return Some(Arrived {
            key: field("Idempotency-Key").to_owned(),
            said,
        });
    }
}

/// Answers with these statuses, the last one for ever; with `None` it never answers.
fn receiver(statuses: &'static [Option<u16>]) -> (u16, Receiver<Arrived>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, arrived) = mpsc::channel();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        let last = statuses.last().unwrap();
        let mut statuses = statuses.iter();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(message) = read(&mut stream) else {
                continue;
            };
            match statuses.next().unwrap_or(last) {
                Some(status) => {
                    let answer = format!("HTTP/1.1 {status} So\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes());
                }
                None => held.push(stream),
            }
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    (port, arrived)
}

/// The next notice of an alarm. On a busy machine a receiver that hangs is an alarm, too.
fn next(arrived: &Receiver<Arrived>, alarm: &str) -> Arrived {
    loop {
        let notice = arrived.recv_timeout(PATIENCE).unwrap();
        if notice.news().0 == alarm {
            return notice;
        }
    }
}

/// Nothing is heard of an alarm for so long.
fn silent(arrived: &Receiver<Arrived>, alarm: &str, span: Duration) {
    let end = Instant::now() + span;
    while let Ok(notice) = arrived.recv_timeout(end.saturating_duration_since(Instant::now())) {
        assert_ne!(notice.news().0, alarm, "{notice:?}");
    }
}

/// A configuration with these webhooks; its path.
fn config(folder: &Path, repeat: &str, hooks: &[(&str, u16)]) -> String {
    let secret = folder.join("secret");
    std::fs::write(&secret, [SECRET, b"\n"].concat()).unwrap();
    let mut text = format!("[people]\nrepeat_min = \"{repeat}\"\nrepeat_max = \"{repeat}\"\n");
    for (name, port) in hooks {
        text.push_str(&format!(
            "[[webhook]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}/hook\"\n\
             secret_file = {secret:?}\n"
        ));
    }
    let file = folder.join(format!("serve-{repeat}.toml"));
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

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

#[test]
fn a_plan_that_got_stuck_calls_people_until_somebody_has_heard_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (hangs, unanswered) = receiver(&[None]);
    let (port, arrived) = receiver(&[Some(204)]);
    let hooks = [("slow", hangs), ("pager", port)];
    let broker = Program::broker();
    let mqtt = broker.mqtt.unwrap();
    let rarely = config(folder.path(), "1h", &hooks);
    let mut serve = Program::serve_with(mqtt, &data, &["--config", &rarely]);
    serve.healthy();
    let node = Node::connect(mqtt, "edge-1");
    node.status(true);
    let plan = stuck_plan(&serve, &node, &data);
    let alarm = format!("saga-{plan}");

    let first = next(&arrived, &alarm);
    assert_eq!(first.news(), (&*alarm, "raised", 0));
    assert_eq!(first.said["severity"], "critical");
    let text = first.said["text"].as_str().unwrap();
    for part in [
        "neither all done nor all taken back",
        "edge-1: wait(1s)",
        "plan show",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // One receiver that hangs delays neither the other one nor anybody else.
    assert_eq!(next(&unanswered, &alarm).key, first.key);
    serve.healthy();

    // Killed, it tells what nobody has heard again: the same message, for a receiver that
    // knows it by its key.
    serve.kill();
    assert!(arrived.try_recv().is_err());
    let often = config(folder.path(), "1s", &hooks);
    let mut serve = Program::serve_with(mqtt, &data, &["--config", &often]);
    let again = next(&arrived, &alarm);
    assert_eq!((&again.key, again.news()), (&first.key, first.news()));
    for repeat in 1..=2 {
        let repeated = next(&arrived, &alarm);
        assert_eq!(repeated.news(), (&*alarm, "repeated", repeat));
        assert_eq!(repeated.said["number"], first.said["number"]);
        assert_ne!(repeated.key, first.key);
    }

    let url = format!("http://127.0.0.1:{}", serve.http.unwrap());
    let (code, listed, _) = homeostat(&["alarm", "ls", "--url", &url]);
    assert_eq!(code, Some(0));
    assert!(
        listed.contains(&alarm) && listed.contains("coordinator"),
        "{listed}"
    );
    let elsewhere = folder.path().to_str().unwrap();
    let ack = [
        "alarm", "ack", &alarm, "--by", "anna", "--url", &url, "--data",
    ];
    let (code, _, why) = homeostat(&[&ack[..], &[elsewhere]].concat());
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("operator.token"), "{why}");
    let (code, done, why) = homeostat(&[&ack[..], &[data.to_str().unwrap()]].concat());
    assert_eq!((code, why.as_str()), (Some(0), ""));
    assert_eq!(
        done,
        format!("alarm {alarm} is acknowledged by anna and over\n")
    );
    let heard = loop {
        let heard = next(&arrived, &alarm);
        if heard.news().1 != "repeated" {
            break heard;
        }
    };
    assert_eq!(
        (heard.news().1, &heard.said["by"]),
        ("acknowledged", &"anna".into())
    );
    assert_eq!(next(&arrived, &alarm).news().1, "cleared");
    silent(&arrived, &alarm, Duration::from_millis(2500));

    // It is over for the next life as well, and one that hangs is not waited for.
    let begun = Instant::now();
    assert_eq!(serve.terminate(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
    let serve = Program::serve_with(mqtt, &data, &["--config", &often]);
    serve.healthy();
    silent(&arrived, &alarm, Duration::from_millis(1500));
}

#[test]
fn a_receiver_that_takes_nothing_is_told_of_by_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (deaf, refused) = receiver(&[Some(401), Some(204)]);
    let (port, arrived) = receiver(&[Some(204)]);
    let file = config(folder.path(), "2s", &[("deaf", deaf), ("pager", port)]);
    let broker = Program::broker();
    let mqtt = broker.mqtt.unwrap();
    let serve = Program::serve_with(mqtt, &data, &["--config", &file]);
    serve.healthy();
    let node = Node::connect(mqtt, "edge-1");
    node.status(true);
    let alarm = format!("saga-{}", stuck_plan(&serve, &node, &data));
    assert_eq!(next(&refused, &alarm).news(), (&*alarm, "raised", 0));
    let mut told = Vec::new();
    while !told.contains(&"cleared".to_owned()) {
        let notice = next(&arrived, "webhook-deaf");
        told.push(notice.news().1.to_owned());
        let text = notice.said["text"].as_str().unwrap();
        assert!(text.contains("answers with status 401"), "{text}");
    }
    // Its own repetition is due as soon as that of the plan, which ends it.
    told.retain(|news| news != "repeated");
    assert_eq!(told, ["raised", "cleared"]);
    // It takes the repetition, and hears nothing of itself.
    assert_eq!(next(&refused, &alarm).news(), (&*alarm, "repeated", 1));
    until("over", || {
        let alarms = serve.json("/api/v1/alarms?raised=true");
        (alarms.as_array().unwrap().len() == 1).then_some(())
    });
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let good = config(folder.path(), "1s", &[("pager", 9)]);
    let text = std::fs::read_to_string(&good).unwrap();
    let data = folder.path().join("data");
    for (found, put, says) in [
        (
            "name =",
            "nmae =",
            ":5: nmae = \"pager\": unknown field `nmae`",
        ),
        ("http://", "https://", "there is no TLS here"),
        (
            "/secret",
            "/nowhere",
            ": webhook[0].secret_file: cannot read its secret",
        ),
    ] {
        let file = folder.path().join("wrong.toml");
        std::fs::write(&file, text.replace(found, put)).unwrap();
        let file = file.to_str().unwrap();
        let data = data.to_str().unwrap();
        let (code, out, why) = homeostat(&["serve", "--config", file, "--data", data]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{why}");
        assert!(why.starts_with(&format!("homeostat: {file}:")), "{why}");
        assert!(why.contains(says), "{why}");
    }
    assert!(!data.exists(), "it was opened all the same");
}
