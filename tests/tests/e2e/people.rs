//! What a person controls, and how a person is reached: real agents, the command
//! line, and a receiver that is down at first.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use homeostat_eval::stage::{Node, Settings};
use homeostat_notify::sign::signature;
use homeostat_testbed::inject;

use crate::rig::{HEALED_MAX, agent, closed, eager, explain, life, next_life, rest, scene, until};

const SECRET: &str = "correct horse battery staple";

/// Key and body of a notice.
type Notice = (String, String);

/// A receiver that answers 500 to the first message, and takes all others. Whoever
/// signs wrongly is not heard.
fn receiver() -> Result<(u16, mpsc::Receiver<Notice>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (sender, notices) = mpsc::channel();
    std::thread::spawn(move || {
        let mut taken = 0;
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut text = String::new();
            let mut part = [0; 4096];
            let notice = loop {
                let read = match stream.read(&mut part) {
                    Ok(read) if read > 0 => read,
                    _ => break None,
                };
                text.push_str(&String::from_utf8_lossy(&part[..read]));
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let field = |name: &str| {
                    let mut lines = head.lines();
                    lines.find_map(|line| line.strip_prefix(&format!("{name}: ")))
                };
                let length = field("Content-Length").and_then(|length| length.parse().ok());
                if length.is_none_or(|length: usize| body.len() < length) {
                    continue;
                }
                let timestamp = field("Homeostat-Timestamp").and_then(|at| at.parse().ok());
                let signed = timestamp.map(|at| signature(SECRET.as_bytes(), at, body.as_bytes()));
                break (signed.as_deref() == field("Homeostat-Signature"))
                    .then(|| (field("Idempotency-Key").unwrap_or("").into(), body.into()));
            };
            let answer = if taken == 0 {
                "500 Not Yet"
            } else {
                "204 Taken"
            };
            let _ = stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes());
            taken += 1;
            if let Some(notice) = notice
                && sender.send(notice).is_err()
            {
                return;
            }
        }
    });
    Ok((port, notices))
}

/// The next notice that says all of this.
fn notice(notices: &mpsc::Receiver<Notice>, words: &[&str]) -> Result<Notice> {
    loop {
        let (key, body) = notices
            .recv_timeout(HEALED_MAX)
            .with_context(|| format!("no notice with {words:?}"))?;
        println!("{key}: {body}");
        if words.iter().all(|word| body.contains(word)) {
            return Ok((key, body));
        }
    }
}

fn order(node: &Node, args: &[&str]) -> Result<String> {
    let config = node.config().to_str().context("a path in UTF-8")?;
    let socket = node.dir().join("run/agent.sock");
    until("the agent's socket", || {
        std::os::unix::net::UnixStream::connect(&socket).ok()
    })?;
    let output = agent(&[args, &["--config", config][..]].concat())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{args:?}: {error}");
    Ok(said)
}

fn two_services(mode: &str, more: &str) -> Settings {
    let usual = eager(&["web", "worker"], more);
    Settings {
        service: format!("{}\nmode = \"{mode}\"", usual.service),
        ..usual
    }
}

#[test]
fn a_plan_waits_a_pager_rings_until_it_is_heard_and_a_person_approves() {
    scene(|dir| {
        let (port, notices) = receiver()?;
        let secret = dir.join("secret");
        std::fs::write(&secret, format!("{SECRET}\n"))?;
        let more = format!(
            "[people]\nrepeat_min = \"2s\"\n[[webhook]]\nname = \"pager\"\n\
             url = \"http://127.0.0.1:{port}/ring\"\nsecret_file = \"{}\"\n",
            secret.display()
        );
        let mut node = Node::start(dir, &two_services("ask", &more), None, None)?;
        let web = life(&node, "web")?;
        inject::kill9(web.pid)?;
        // Refused with 500, sent again under the same key.
        let words = ["web-dead", "homeostat-agent approve 1"];
        let (first, _) = notice(&notices, &words)?;
        let (again, _) = notice(&notices, &words)?;
        ensure!(first == again, "{first} became {again}");
        // Nobody has acknowledged it: repeated, which is another one.
        let (repeated, _) = notice(&notices, &["web-dead", "repeated"])?;
        ensure!(repeated != first, "{repeated}");
        // A restart of the agent forgets neither alarm nor incident.
        node.kill_agent()?;
        node.start_agent()?;
        notice(&notices, &["web-dead", "raised"])?;
        let status = until("what waits", || {
            let status = order(&node, &["status"]).ok()?;
            status.contains("approval     incident 1").then_some(status)
        })?;
        ensure!(status.contains("mode         web: ask"), "{status}");
        order(&node, &["ack", "web-dead", "--by", "anna"])?;
        notice(&notices, &["web-dead", "acknowledged", "anna (uid "])?;
        let said = order(&node, &["approve", "1", "--by", "anna"])?;
        ensure!(said.contains("runs restart(web"), "{said}");
        next_life(&node, "web", &web)?;
        notice(&notices, &["web-dead", "cleared"])?;
        closed(&node, 1)?;
        let why = explain(&node, Some(1))?;
        for word in [
            "needs-approval",
            "waits for a person",
            "is approved, by anna (uid ",
        ] {
            ensure!(why.contains(word), "no {word:?} in\n{why}");
        }
        node.check()
    });
}

/// Longer than a healing takes here, which is tens of milliseconds.
const LEFT_ALONE: Duration = Duration::from_secs(1);

fn down(node: &Node) -> Result<()> {
    rest(LEFT_ALONE);
    ensure!(node.life("web").is_none(), "web was healed");
    Ok(())
}

fn touch(path: &Path) -> Result<()> {
    std::fs::write(path, "").context("cannot touch STOP")
}

#[test]
fn a_stop_holds_whoever_gives_it_and_a_person_may_act_all_the_same() {
    scene(|dir| {
        let mut node = Node::start(dir, &two_services("act", ""), None, None)?;
        let web = life(&node, "web")?;
        let stop = node.dir().join("data/STOP");
        touch(&stop)?;
        until("the stop", || {
            let status = order(&node, &["status"]).ok()?;
            let loud = status.contains("alarm        healing-stopped (critical");
            (status.contains("healing      stopped: ") && loud).then_some(())
        })?;
        inject::kill9(web.pid)?;
        down(&node)?;
        node.kill_agent()?;
        node.start_agent()?;
        down(&node)?;
        // A person's own plan runs in the open incident.
        order(&node, &["do", "restart(web, grace=0ms)"])?;
        let web = next_life(&node, "web", &web)?;
        // Taken back by hand: healing goes on without being told.
        std::fs::remove_file(&stop)?;
        until("the end of the stop", || {
            let status = order(&node, &["status"]).ok()?;
            status.contains("healing      on").then_some(())
        })?;
        let said = order(
            &node,
            &["stop-healing", "--why", "it flaps", "--by", "anna"],
        )?;
        ensure!(said.contains("as long as") && stop.exists(), "{said}");
        inject::kill9(web.pid)?;
        down(&node)?;
        let status = order(&node, &["status"])?;
        ensure!(status.contains("stopped: it flaps (anna (uid "), "{status}");
        order(&node, &["resume-healing"])?;
        ensure!(!stop.exists(), "STOP is still there");
        next_life(&node, "web", &web)?;
        node.check()
    });
}

#[test]
fn maintenance_outlives_the_agent_and_is_of_two_services() {
    scene(|dir| {
        let mut node = Node::start(dir, &two_services("act", ""), None, None)?;
        let (web, worker) = (life(&node, "web")?, life(&node, "worker")?);
        let window = ["maintenance", "web", "for", "1h", "--why", "new disk"];
        let said = order(&node, &window)?;
        ensure!(said.contains("web is in maintenance for 1h"), "{said}");
        inject::kill9(web.pid)?;
        inject::kill9(worker.pid)?;
        next_life(&node, "worker", &worker)?;
        down(&node)?;
        node.kill_agent()?;
        node.start_agent()?;
        down(&node)?;
        let status = order(&node, &["status"])?;
        ensure!(status.contains("maintenance  web, "), "{status}");
        ensure!(order(&node, &["maintenance", "nobody", "--end"]).is_err());
        order(&node, &["maintenance", "web", "--end"])?;
        next_life(&node, "web", &web)?;
        node.check()
    });
}
