//! A real receiver on loopback: it checks every signature by itself, and answers
//! as it is told.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use homeostat_common::ids::{PlanId, Token, WebhookId};
use sha2::{Digest as _, Sha256};

use super::*;

const SECRET: &[u8] = b"correct horse battery staple";

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// HMAC as RFC 2104 writes it, to compare with.
fn hmac(secret: &[u8], message: &[u8]) -> String {
    let mut key = secret.to_vec();
    key.resize(64, 0);
    let pad = |with: u8| key.iter().map(move |byte| byte ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([&pad(0x36), message].concat());
    let outer = Sha256::digest([&pad(0x5c), &inner[..]].concat());
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What arrived, once its signature was found right.
#[derive(Debug, PartialEq, Eq)]
struct Arrived {
    key: String,
    event: String,
    body: String,
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
                .to_owned()
        };
        if body.len() < field("Content-Length").parse().unwrap() {
            continue;
        }
        assert!(head.starts_with("POST /hook?a=1 HTTP/1.1\r\n"), "{head}");
        let timestamp = field("Homeostat-Timestamp");
        let signed = hmac(SECRET, format!("{timestamp}.{body}").as_bytes());
        assert_eq!(field("Homeostat-Signature"), format!("v1={signed}"));
        assert_eq!(field("User-Agent"), "homeostat-test/0");
        let sent: u64 = timestamp.parse().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        assert!(now.unwrap().as_secs().abs_diff(sent) < 60);
        return Some(Arrived {
            key: field("Idempotency-Key"),
            event: field("Homeostat-Event"),
            body: body.to_owned(),
        });
    }
}

/// Serves one connection for each answer, then no more.
fn receiver(answers: Vec<&'static str>) -> (u16, mpsc::Receiver<Arrived>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, arrived) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let Some(message) = read(&mut stream) else {
                continue;
            };
            let _ = stream.write_all(answer.as_bytes());
            let _ = sender.send(message);
        }
    });
    (port, arrived)
}

struct Rig {
    _dir: tempfile::TempDir,
    hooks: Webhooks,
    reports: mpsc::Receiver<Report>,
    secret: PathBuf,
}

fn rig(port: u16) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, [SECRET, b"\n"].concat()).unwrap();
    let hook = Webhook {
        name: "pager".parse().unwrap(),
        url: Url {
            host: "127.0.0.1".into(),
            port,
            path: "/hook?a=1".into(),
        },
        secret_file: secret.clone(),
        events: vec![Told::Alarm],
    };
    let patience = Patience {
        first: Duration::from_millis(20),
        most: Duration::from_millis(80),
        give_up: Duration::from_secs(60),
        call: Duration::from_secs(60),
    };
    let (sender, reports) = mpsc::channel();
    let report: Reports = Arc::new(move |report| sender.send(report).is_ok());
    let hooks = Webhooks::start(&[hook], patience, "homeostat-test/0", &report).unwrap();
    Rig {
        _dir: dir,
        hooks,
        reports,
        secret,
    }
}

fn message(key: &str) -> Message {
    Message {
        event: "alarm",
        key: key.into(),
        body: format!("{{\"n\":\"{key}\"}}").into_bytes(),
        about: None,
        replaces: false,
        urgent: false,
        ticket: None,
    }
}

fn report(rig: &Rig) -> Report {
    rig.reports.recv_timeout(PATIENCE).unwrap()
}

const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\n\r\n";
const WRONG: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
const NONSENSE: &str = "hello\r\n\r\n";

#[test]
fn a_message_is_signed_and_sent_again_under_its_key_until_somebody_took_it() {
    let (port, arrived) = receiver(vec![BROKEN, NONSENSE, BROKEN, OK, OK]);
    let rig = rig(port);
    let of_web = |key: &str| Message {
        about: Some("web-dead".into()),
        ..message(key)
    };
    rig.hooks.tell(Told::Alarm, &of_web("one"), None);
    // Nobody asked for these.
    rig.hooks.tell(Told::Incident, &message("none"), None);
    let pager = "pager".parse().unwrap();
    rig.hooks.tell(Told::Alarm, &message("own"), Some(&pager));
    // About the same: not before it.
    rig.hooks.tell(Told::Alarm, &of_web("two"), None);
    let keys: Vec<String> = (0..5)
        .map(|_| arrived.recv_timeout(PATIENCE).unwrap())
        .map(|arrived| {
            assert_eq!(arrived.event, "alarm");
            assert_eq!(arrived.body, format!("{{\"n\":\"{}\"}}", arrived.key));
            arrived.key
        })
        .collect();
    assert_eq!(keys, ["one", "one", "one", "one", "two"]);
    // Others are told after the third failure, and when it is over.
    let trouble = report(&rig);
    let Report::Trouble(name, Some(why)) = &trouble else {
        panic!("{trouble:?}")
    };
    assert_eq!(
        (name.as_str(), why.as_str()),
        ("pager", "127.0.0.1 answers with status 500")
    );
    assert_eq!(report(&rig), Report::Trouble(pager, None));
}

/// Answers a message by its key, for ever.
fn judging(
    answer: impl Fn(&str) -> &'static str + Send + 'static,
) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, arrived) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(message) = read(&mut stream) else {
                continue;
            };
            let _ = stream.write_all(answer(&message.key).as_bytes());
            if sender.send(message.key).is_err() {
                return;
            }
        }
    });
    (port, arrived)
}

#[test]
fn one_that_is_not_taken_holds_nobody_else_up_and_is_told_of() {
    let (port, arrived) = judging(|key| if key.starts_with("bad") { BROKEN } else { OK });
    let rig = rig(port);
    let of = |key: &str, alarm: &str| Message {
        about: Some(alarm.into()),
        ..message(key)
    };
    rig.hooks.tell(Told::Alarm, &of("bad", "web"), None);
    rig.hooks.tell(Told::Alarm, &of("after bad", "web"), None);
    let others: Vec<String> = (0..20).map(|n| format!("other-{n}")).collect();
    for key in &others {
        rig.hooks.tell(Told::Alarm, &of(key, key), None);
    }
    let mut seen = Vec::new();
    let mut bad = 0;
    while seen != others {
        match arrived.recv_timeout(PATIENCE).unwrap() {
            key if key == "bad" => bad += 1,
            key => seen.push(key),
        }
    }
    assert!(bad >= 1);
    // Others being taken does not make it well.
    let trouble = report(&rig);
    assert!(
        matches!(trouble, Report::Trouble(_, Some(_))),
        "{trouble:?}"
    );
    rig.hooks.tell(Told::Alarm, &of("late", "late"), None);
    while arrived.recv_timeout(PATIENCE).unwrap() != "late" {}
    let more = rig.reports.recv_timeout(Duration::from_millis(200));
    assert!(more.is_err(), "{more:?}");
}

#[test]
fn what_is_urgent_waits_for_no_older_message_about_something_else() {
    // The first one holds the line until all are in the queue.
    let gate = Arc::new(std::sync::Barrier::new(2));
    let own = Arc::clone(&gate);
    let (port, arrived) = judging(move |key| {
        if key == "first" {
            own.wait();
        }
        OK
    });
    let rig = rig(port);
    rig.hooks.tell(Told::Alarm, &message("first"), None);
    while rig.hooks.hooks[0].lock().sending.is_none() {
        std::thread::yield_now();
    }
    rig.hooks.tell(Told::Alarm, &message("usual"), None);
    let urgent = Message {
        urgent: true,
        about: Some("db".into()),
        ..message("urgent")
    };
    rig.hooks.tell(Told::Alarm, &urgent, None);
    gate.wait();
    let keys: Vec<String> = (0..3)
        .map(|_| arrived.recv_timeout(PATIENCE).unwrap())
        .collect();
    assert_eq!(keys, ["first", "urgent", "usual"]);
}

#[test]
fn what_is_refused_for_good_is_not_sent_again_and_callers_are_told() {
    let (port, arrived) = receiver(vec![WRONG, OK]);
    let rig = rig(port);
    let pager: WebhookId = "pager".parse().unwrap();
    let token = |step| Token {
        plan: PlanId(7),
        step,
        undo: false,
    };
    let call = |key: &str, step| Message {
        ticket: Some(token(step)),
        ..message(key)
    };
    rig.hooks.call(&pager, call("one", 7)).unwrap();
    rig.hooks.call(&pager, call("two", 8)).unwrap();
    let nobody = rig.hooks.call(&"nobody".parse().unwrap(), call("x", 9));
    assert!(matches!(nobody, Err(CallError::Unknown(_))));
    assert_eq!(arrived.recv_timeout(PATIENCE).unwrap().key, "one");
    assert_eq!(arrived.recv_timeout(PATIENCE).unwrap().key, "two");
    let refused = "127.0.0.1 answers with status 401".to_owned();
    let trouble = Report::Trouble(pager.clone(), Some(refused.clone()));
    assert_eq!(report(&rig), trouble);
    let first = report(&rig);
    assert_eq!(
        first,
        Report::Called {
            ticket: token(7),
            result: Err(refused)
        }
    );
    assert_eq!(report(&rig), Report::Trouble(pager, None));
    let second = report(&rig);
    assert_eq!(
        second,
        Report::Called {
            ticket: token(8),
            result: Ok(())
        }
    );
}

#[test]
fn while_nobody_answers_the_newest_word_of_each_alarm_waits_and_the_oldest_goes() {
    // Bound, so that nobody else gets the port, and never listening.
    let kind = rustix::net::SocketType::STREAM;
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, kind, None).unwrap();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    rustix::net::bind(&socket, &any).unwrap();
    let own = TcpListener::from(socket);
    let rig = rig(own.local_addr().unwrap().port());
    let word = |key: &str, alarm: &str| Message {
        about: Some(alarm.into()),
        replaces: true,
        ..message(key)
    };
    // It takes none.
    rig.hooks
        .tell(Told::Alarm, &word("first", "web-dead"), None);
    assert!(matches!(report(&rig), Report::Trouble(_, Some(_))));
    for n in 0..3 {
        rig.hooks
            .tell(Told::Alarm, &word(&format!("web-{n}"), "web-dead"), None);
        rig.hooks
            .tell(Told::Alarm, &word(&format!("db-{n}"), "db-dead"), None);
    }
    let waiting = |rig: &Rig| -> Vec<String> {
        let queue = rig.hooks.hooks[0].lock();
        queue
            .waiting
            .iter()
            .map(|one| one.message.key.clone())
            .collect()
    };
    assert_eq!(waiting(&rig), ["web-2", "db-2"]);
    // What is urgent stays as long as anything else can go.
    let urgent = Message {
        urgent: true,
        ..word("disk", "disk-full")
    };
    rig.hooks.tell(Told::Alarm, &urgent, None);
    for n in 0..QUEUE_MAX + 2 {
        rig.hooks.tell(Told::Alarm, &message(&n.to_string()), None);
    }
    let now = waiting(&rig);
    assert_eq!(now.len(), QUEUE_MAX);
    assert!(now.contains(&"disk".to_owned()), "{now:?}");
    assert!(!now.contains(&"web-2".to_owned()) && !now.contains(&"db-2".to_owned()));
    // A secret that is gone is trouble too, and no reason to send unsigned.
    std::fs::remove_file(&rig.secret).unwrap();
    // Its end is not waited for.
    let begun = Instant::now();
    drop(rig);
    assert!(begun.elapsed() < Duration::from_secs(1));
}
