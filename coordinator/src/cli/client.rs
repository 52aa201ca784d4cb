//! Asks the coordinator's API: one request over plain HTTP, blocking.
//!
//! The API speaks HTTP/1.1 on loopback, so a client library with TLS and
//! redirects would be all weight and no use.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use homeostat_notify::in_words;
use serde::de::DeserializeOwned;

use crate::fleet::view::Problem;

/// How long to connect, and to wait for each piece of the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest answer: a fleet of 1000 nodes takes about 1 MB.
const ANSWER_MAX: u64 = 32 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// Not `http://host[:port]`.
    #[error("--url {0}: expected http://host:port")]
    Url(String),
    /// Nobody answers there.
    #[error("cannot reach the coordinator at {url}")]
    Reach {
        url: String,
        #[source]
        source: std::io::Error,
    },
    /// What answers is not a coordinator.
    #[error("{url} did not answer like a coordinator: {what}")]
    Answer { url: String, what: String },
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// The text of an answer.
pub(super) fn get(url: &str, path: &str) -> Result<String, AskError> {
    ask(url, |host| {
        format!("GET {path} HTTP/1.0\r\nhost: {host}\r\naccept: application/json\r\n\r\n")
    })
}

/// Sends JSON with the operator's token.
pub(super) fn post(url: &str, path: &str, token: &str, body: &str) -> Result<String, AskError> {
    ask(url, |host| {
        format!(
            "POST {path} HTTP/1.0\r\nhost: {host}\r\naccept: application/json\r\n\
             authorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    })
}

fn ask(url: &str, request: impl Fn(&str) -> String) -> Result<String, AskError> {
    let authority = url
        .strip_prefix("http://")
        .map(|rest| rest.strip_suffix('/').unwrap_or(rest))
        .filter(|rest| !rest.is_empty() && !rest.contains(['/', '@', '?', '#', ' ']))
        .ok_or_else(|| AskError::Url(url.to_owned()))?;
    let target = match authority.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => authority.to_owned(),
        _ => format!("{authority}:80"),
    };
    let reach = |source| AskError::Reach {
        url: url.to_owned(),
        source,
    };
    let answer = exchange(&target, &request(authority), PATIENCE).map_err(reach)?;
    let strange = |what: &str| AskError::Answer {
        url: url.to_owned(),
        what: what.to_owned(),
    };
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let start = match head.parse(&answer) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Err(strange("the answer ended too early")),
        Err(error) => return Err(strange(&error.to_string())),
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
    let code = head.code.unwrap_or(0);
    let body = answer.get(start..).unwrap_or_default();
    if length.is_some_and(|length| length != body.len()) {
        return Err(strange("the answer ended too early"));
    }
    let body = std::str::from_utf8(body).map_err(|_| strange("not UTF-8"))?;
    if (200..300).contains(&code) {
        return Ok(body.to_owned());
    }
    match serde_json::from_str::<Problem>(body) {
        Ok(problem) => Err(AskError::Refused(problem.detail)),
        Err(_) => Err(strange(&format!("status {code}"))),
    }
}

/// The same, decoded.
pub(super) fn decode<T: DeserializeOwned>(url: &str, text: &str) -> Result<T, AskError> {
    serde_json::from_str(text).map_err(|error| AskError::Answer {
        url: url.to_owned(),
        what: error.to_string(),
    })
}

fn exchange(target: &str, request: &str, patience: Duration) -> std::io::Result<Vec<u8>> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in target.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => stream,
            Err(error) => {
                last = in_words(error, patience);
                continue;
            }
        };
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        // HTTP/1.0: no chunks, and the end of the stream ends the answer.
        let late = |error| in_words(error, patience);
        stream.write_all(request.as_bytes()).map_err(late)?;
        let mut answer = Vec::new();
        let mut stream = stream.take(ANSWER_MAX);
        stream.read_to_end(&mut answer).map_err(late)?;
        return Ok(answer);
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answer: &'static str) -> Result<String, AskError> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 512];
            let _ = stream.read(&mut head).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let got = get(&url, "/x");
        server.join().unwrap();
        got
    }

    #[test]
    fn silence_is_told_as_such_with_its_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let error = exchange(&target, "x", Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.to_string(), "no answer within 20 ms");
    }

    #[test]
    fn an_answer_that_is_cut_or_strange_is_an_error_that_names_the_coordinator() {
        assert_eq!(
            answered("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").unwrap(),
            "hi"
        );
        for wrong in [
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 500 No\r\n\r\n<html>",
        ] {
            let error = answered(wrong).unwrap_err().to_string();
            assert!(error.starts_with("http://127.0.0.1:"), "{wrong}: {error}");
        }
        let refused = "HTTP/1.1 404 No\r\n\r\n{\"status\":404,\"title\":\"x\",\"detail\":\"gone\"}";
        assert_eq!(answered(refused).unwrap_err().to_string(), "gone");
        assert!(matches!(get("ftp://x", "/"), Err(AskError::Url(_))));
    }
}
