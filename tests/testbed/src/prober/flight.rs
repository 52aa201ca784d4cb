//! One request under way, never waiting for anything.

use std::net::SocketAddrV4;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};
use serde_json::{Value, json};

use super::Expect;
use crate::clock::Moment;

/// On loopback the kernel connects at once, unless the backlog is full.
const CONNECT_MAX: Duration = Duration::from_millis(10);
/// No answer for this long is a failure. At load 13 half of the answers took 0.06 ms, and one
/// in a hundred 2.8 ms.
const ANSWER_MAX: Duration = Duration::from_millis(50);
/// A request that failed by silence is kept open this long: when its process dies, the reset
/// tells at once. After it, its place goes to a fresh one.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// Bounds what a broken service can make us read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) started: Moment,
    socket: Option<OwnedFd>,
    sent: bool,
    /// Its failure was reported; what may come still is its answer.
    overdue: bool,
    answer: Vec<u8>,
}

/// News of a flight, each told once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    Good {
        instance: String,
    },
    Bad(String),
    /// Trouble on this side.
    Blind,
}

/// The bytes to send for `expect`.
pub(super) fn request(expect: &Expect) -> Vec<u8> {
    match expect {
        Expect::NewInstance | Expect::Healthy => {
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()
        }
        Expect::Golden { vector, .. } => {
            let body = json!({ "inputs": [vector.input] }).to_string();
            let length = body.len();
            format!(
                "POST /infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .into_bytes()
        }
    }
}

impl Flight {
    /// Connects and, where the kernel is as quick as usual, sends.
    pub(super) fn launch(
        target: SocketAddrV4,
        request: &[u8],
        now: Moment,
    ) -> (Option<Self>, Progress) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let Ok(socket) = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None) else {
            return (None, Progress::Blind);
        };
        // Closing resets: thousands of requests a second leave no TIME_WAIT behind.
        let _ = set_socket_linger(&socket, Some(Duration::ZERO));
        match connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return (None, failure(errno)),
        }
        let mut flight = Self {
            started: now,
            socket: Some(socket),
            sent: false,
            overdue: false,
            answer: Vec::new(),
        };
        let progress = flight.send(request);
        (flight.is_open().then_some(flight), progress)
    }

    pub(super) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    pub(super) fn poll_fd(&self) -> Option<PollFd<'_>> {
        let events = if self.sent {
            PollFlags::IN
        } else {
            PollFlags::OUT
        };
        self.socket
            .as_ref()
            .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), events))
    }

    pub(super) fn deadline(&self) -> Moment {
        let limit = match (self.sent, self.overdue) {
            (false, _) => CONNECT_MAX,
            (true, false) => ANSWER_MAX,
            (true, true) => SILENT_MAX,
        };
        self.started + limit
    }

    /// Does what can be done now.
    pub(super) fn proceed(&mut self, request: &[u8], expect: &Expect) -> Progress {
        let mut progress = Progress::Waiting;
        if !self.sent {
            progress = self.send(request);
        }
        if self.sent && self.is_open() {
            progress = self.receive(expect);
        }
        if progress == Progress::Waiting && self.is_open() && Moment::now() >= self.deadline() {
            if !self.sent {
                return self.close(Progress::Bad(
                    "cannot connect, the backlog is full".to_owned(),
                ));
            }
            if self.overdue {
                return self.close(Progress::Waiting);
            }
            self.overdue = true;
            return Progress::Bad(format!("no answer within {ANSWER_MAX:?}"));
        }
        progress
    }

    fn close(&mut self, progress: Progress) -> Progress {
        self.socket = None;
        progress
    }

    fn send(&mut self, request: &[u8]) -> Progress {
        let Some(socket) = &self.socket else {
            return Progress::Waiting;
        };
        match send(socket, request, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == request.len() => self.sent = true,
            // A kilobyte into an empty socket buffer: never but for lack of memory.
            Ok(_) => return self.close(Progress::Blind),
            Err(Errno::AGAIN | Errno::NOTCONN | Errno::INTR) => {}
            Err(errno) => return self.close(failure(errno)),
        }
        Progress::Waiting
    }

    fn receive(&mut self, expect: &Expect) -> Progress {
        loop {
            let Some(socket) = &self.socket else {
                return Progress::Waiting;
            };
            let mut chunk = [0; 4096];
            match recv(socket, &mut chunk[..], RecvFlags::empty()) {
                Ok((0, _)) => return self.close(Progress::Bad("cut off".to_owned())),
                Ok((read, _)) => self
                    .answer
                    .extend_from_slice(chunk.get(..read).unwrap_or(&[])),
                Err(Errno::AGAIN | Errno::INTR) => return Progress::Waiting,
                Err(errno) => return self.close(failure(errno)),
            }
            if let Some(progress) = judge(&self.answer, expect) {
                return self.close(progress);
            }
        }
    }
}

/// Which side an error speaks of.
fn failure(errno: Errno) -> Progress {
    match errno {
        Errno::CONNREFUSED | Errno::CONNRESET | Errno::PIPE | Errno::TIMEDOUT => {
            Progress::Bad(errno.to_string())
        }
        _ => Progress::Blind,
    }
}

/// `None` while the answer is not whole.
fn judge(answer: &[u8], expect: &Expect) -> Option<Progress> {
    let bad = |reason: &str| Some(Progress::Bad(reason.to_owned()));
    if answer.len() > ANSWER_BYTES_MAX {
        return bad("the answer is too long");
    }
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut headers);
    let body_at = match head.parse(answer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return None,
        Err(_) => return bad("the answer is not HTTP"),
    };
    let length = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| {
            std::str::from_utf8(header.value)
                .ok()?
                .parse::<usize>()
                .ok()
        });
    let Some(length) = length.filter(|length| *length <= ANSWER_BYTES_MAX) else {
        return bad("the answer has no length we accept");
    };
    let body = answer.get(body_at..body_at + length)?;
    if head.code != Some(200) {
        return Some(Progress::Bad(format!("status {}", head.code.unwrap_or(0))));
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return bad("the answer is not JSON");
    };
    let Some(instance) = body.get("instance").and_then(Value::as_str) else {
        return bad("the answer names no instance");
    };
    if let Expect::Golden { vector, tolerance } = expect
        && !first_output(&body).is_some_and(|output| vector.matches(&output, *tolerance))
    {
        return bad("the model answers wrongly");
    }
    Some(Progress::Good {
        instance: instance.to_owned(),
    })
}

fn first_output(body: &Value) -> Option<Vec<f32>> {
    // The service's f32, printed and read as f64: narrowing gives it back.
    #[allow(clippy::cast_possible_truncation)]
    let number = |value: &Value| value.as_f64().map(|number| number as f32);
    body.get("outputs")?
        .get(0)?
        .as_array()?
        .iter()
        .map(number)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeostat_models::GoldenVector;

    #[test]
    fn an_answer_is_judged_once_it_is_whole() {
        let whole = answer(200, r#"{"instance":"ab"}"#);
        for end in 0..whole.len() {
            assert_eq!(judge(&whole[..end], &Expect::Healthy), None, "{end}");
        }
        let good = Progress::Good {
            instance: "ab".to_owned(),
        };
        assert_eq!(judge(&whole, &Expect::Healthy), Some(good));
    }

    #[test]
    fn wrong_answers_are_failures_with_a_reason() {
        let reason = |bytes: &[u8], expect: &Expect| match judge(bytes, expect) {
            Some(Progress::Bad(reason)) => reason,
            other => panic!("{other:?}"),
        };
        let healthy = &Expect::Healthy;
        assert_eq!(reason(b"\0\0\0\0", healthy), "the answer is not HTTP");
        assert_eq!(reason(&answer(503, "{}"), healthy), "status 503");
        assert_eq!(reason(&answer(200, "{"), healthy), "the answer is not JSON");
        assert_eq!(
            reason(&answer(200, "{}"), healthy),
            "the answer names no instance"
        );
        let vector = GoldenVector {
            input: vec![1.0],
            output: vec![0.25, 0.75],
        };
        let golden = &Expect::Golden {
            vector,
            tolerance: 0.01,
        };
        let wrong = "the model answers wrongly";
        for outputs in ["[[0.75,0.25]]", "[[0.25]]", "[[null,0.75]]", "[]", "7"] {
            let body = format!(r#"{{"instance":"ab","outputs":{outputs}}}"#);
            assert_eq!(reason(&answer(200, &body), golden), wrong, "{outputs}");
        }
        let right = answer(200, r#"{"instance":"ab","outputs":[[0.251,0.749]]}"#);
        assert!(matches!(judge(&right, golden), Some(Progress::Good { .. })));
    }

    fn answer(code: u16, body: &str) -> Vec<u8> {
        let length = body.len();
        format!("HTTP/1.1 {code} x\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    }
}
