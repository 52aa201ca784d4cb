//! As much of HTTP/1.1 as the services need: one request, one answer, close.
//!
//! Requests are bounded in bytes and in time, so that no client holds a thread for long.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use serde_json::json;

use super::faults::Faults;
use super::stats::Stats;

/// Threads that accept and answer, the main thread among them: each waits for what it calls,
/// so some 10 requests that hang must not keep a probe from being answered.
const THREADS: usize = 16;
/// Connections of a unit at once, each with a thread of its own: what waits in a queue of
/// hundreds, and what hangs behind it, must not keep anybody from asking how it is.
const CONNECTIONS_MAX: usize = 1024;
/// Of each thread but the main one. Inference needs some 20 KiB in a build without
/// optimisation; pages that are never touched cost nothing.
const STACK_BYTES: usize = 512 * 1024;
/// Head and body together. A batch of 256 rows of 16 numbers in JSON is some 80 KiB.
const REQUEST_BYTES_MAX: usize = 128 * 1024;
/// A client on loopback that takes longer than this is broken itself.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(1);
const HEADERS_MAX: usize = 32;

pub(super) type Handler = Arc<dyn Fn(&Request<'_>) -> Response + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Other,
}

#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) body: &'a [u8],
}

/// What all threads of the pool share.
pub(super) struct Server {
    pub(super) faults: Arc<Faults>,
    pub(super) stats: Arc<Stats>,
    pub(super) handler: Handler,
}

#[derive(Debug)]
pub(super) struct Response {
    code: u16,
    kind: &'static str,
    body: String,
}

impl Response {
    pub(super) fn json(code: u16, body: &serde_json::Value) -> Self {
        Self {
            code,
            kind: "application/json",
            body: body.to_string(),
        }
    }

    pub(super) fn metrics(body: String) -> Self {
        Self {
            code: 200,
            kind: "text/plain; version=0.0.4",
            body,
        }
    }

    pub(super) fn error(code: u16, reason: &str) -> Self {
        Self::json(code, &json!({ "error": reason }))
    }

    fn write_to(&self, stream: &mut TcpStream) -> io::Result<()> {
        let reason = match self.code {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            413 => "Content Too Large",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            507 => "Insufficient Storage",
            _ => "Error",
        };
        let (code, kind, length, body) = (self.code, self.kind, self.body.len(), &self.body);
        // One write, one segment.
        let answer = format!(
            "HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes())
    }
}

/// Starts the other threads of the pool; the caller becomes the last one.
pub(super) fn start_pool(listener: &TcpListener, server: &Arc<Server>) {
    for _ in 1..THREADS {
        let Ok(listener) = listener.try_clone() else {
            continue;
        };
        let server = Arc::clone(server);
        // One thread less is slower and nothing worse.
        let _ = thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || accept_loop(&listener, &server));
    }
}

pub(super) fn accept_loop(listener: &TcpListener, server: &Server) -> ! {
    loop {
        if server.faults.opens() {
            // As a service with an event loop does: a thread that waits in `accept` has a
            // descriptor set aside for one more, and sixteen of them never run out.
            let mut poll = [PollFd::new(listener, PollFlags::IN)];
            let _ = rustix::event::poll(&mut poll, None);
        }
        match listener.accept() {
            // What goes wrong with one client is that client's affair.
            Ok((mut stream, _)) => drop(serve(&mut stream, server)),
            // Out of descriptors or memory: a pause, so that it is not made worse.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Serves each connection in a thread of its own; more than [`CONNECTIONS_MAX`] are closed.
pub(super) fn accept_each(listener: &TcpListener, server: &Arc<Server>) -> ! {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((mut stream, _)) = listener.accept() else {
            // Out of descriptors or memory: a pause, so that it is not made worse.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (own, server) = (Arc::clone(&open), Arc::clone(server));
        let started = thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || {
                drop(serve(&mut stream, &server));
                own.fetch_sub(1, Ordering::Relaxed);
            });
        if started.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(stream: &mut TcpStream, server: &Server) -> io::Result<()> {
    // The lock that a deadlocked service never gets back.
    let _running = server.faults.pass();
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(REQUEST_TIME_MAX))?;
    let deadline = Instant::now() + REQUEST_TIME_MAX;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        match parse(&bytes) {
            Ok(Some(request)) => return respond(&request, server).write_to(stream),
            Ok(None) => {}
            Err(code) => return Response::error(code, "not a request we take").write_to(stream),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Response::error(408, "too slow").write_to(stream);
        }
        stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 4096];
        let read = match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
}

fn respond(request: &Request<'_>, server: &Server) -> Response {
    let busy = server.stats.begin();
    server.faults.linger();
    let response = match (request.method, request.path) {
        (Method::Get, "/metrics") => {
            let live = server.stats.page();
            Response::metrics(server.faults.shown(live))
        }
        _ => (server.handler)(request),
    };
    server.stats.end(busy, response.code);
    response
}

/// `None` while bytes are missing, a status code for what cannot be served.
fn parse(bytes: &[u8]) -> Result<Option<Request<'_>>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let body_at = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < REQUEST_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(413),
        Err(_) => return Err(400),
    };
    let mut length = 0;
    for header in head.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).map_err(|_| 400_u16)?;
            length = text.trim().parse::<usize>().map_err(|_| 400_u16)?;
        }
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(400);
        }
    }
    if length > REQUEST_BYTES_MAX {
        return Err(413);
    }
    let Some(body) = bytes.get(body_at..body_at + length) else {
        return Ok(None);
    };
    let method = match head.method {
        Some("GET") => Method::Get,
        Some("POST") => Method::Post,
        _ => Method::Other,
    };
    Ok(Some(Request {
        method,
        path: head.path.unwrap_or("/"),
        body,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_once_it_is_whole() {
        let bytes = b"POST /infer HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody";
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end]).unwrap().is_none(), "{end}");
        }
        let request = parse(bytes).unwrap().unwrap();
        assert_eq!(
            (request.method, request.path, request.body),
            (Method::Post, "/infer", &b"body"[..])
        );
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_a_code() {
        let refused = |head: &str| parse(format!("{head}\r\n\r\n").as_bytes()).unwrap_err();
        assert_eq!(refused("\u{1}\u{2}"), 400);
        assert_eq!(refused("POST / HTTP/1.1\r\nContent-Length: many"), 400);
        assert_eq!(refused("POST / HTTP/1.1\r\nContent-Length: 99999999"), 413);
        assert_eq!(
            refused("POST / HTTP/1.1\r\nTransfer-Encoding: chunked"),
            400
        );
        let endless = vec![b'a'; REQUEST_BYTES_MAX];
        assert_eq!(parse(&endless).unwrap_err(), 413);
    }
}
