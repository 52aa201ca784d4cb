//! Calls another service: one request, one connection, one deadline for all of it.
//!
//! A call is tried a second time when the connection is refused, or reset before the answer
//! was whole, as gateways do it: that is how an instance looks that was killed a moment ago,
//! and behind a forwarder the second try meets another one. It is not tried again after a
//! time-out, which would only add load to what is slow. Every hop of the testbed may be
//! repeated: rows and outputs are computed anew, and a line that is stored twice under one id
//! is the same line.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Tries of one call.
const TRIES: u32 = 2;
/// Largest answer taken: as much as a service takes of a request.
const ANSWER_BYTES_MAX: usize = 128 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// Refused, reset or cut, [`TRIES`] times.
    Broken(io::Error),
    /// Not in time.
    Late,
    /// Not HTTP with a JSON body.
    Odd,
    /// Another status than 200.
    Status(u16),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "{error}"),
            Self::Late => f.write_str("no answer in time"),
            Self::Odd => f.write_str("an answer that is none"),
            Self::Status(code) => write!(f, "status {code}"),
        }
    }
}

/// Asks `address` and returns the body. `body`: `None` for a GET.
pub(super) fn call(
    address: SocketAddr,
    path: &str,
    body: Option<&Value>,
    patience: Duration,
) -> Result<Value, CallError> {
    let request = match body {
        Some(body) => {
            let body = body.to_string();
            let length = body.len();
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
        }
        None => format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
    };
    let deadline = Instant::now() + patience;
    let mut tries = 1;
    loop {
        match attempt(address, request.as_bytes(), deadline) {
            Ok((200, body)) => return serde_json::from_slice(&body).map_err(|_| CallError::Odd),
            Ok((code, _)) => return Err(CallError::Status(code)),
            Err(error) => match error.kind() {
                ErrorKind::TimedOut | ErrorKind::WouldBlock => return Err(CallError::Late),
                ErrorKind::InvalidData => return Err(CallError::Odd),
                _ if tries >= TRIES => return Err(CallError::Broken(error)),
                _ => tries += 1,
            },
        }
    }
}

fn attempt(address: SocketAddr, request: &[u8], deadline: Instant) -> io::Result<(u16, Vec<u8>)> {
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        // The socket takes zero for "for ever".
        (!left.is_zero())
            .then_some(left)
            .ok_or_else(|| io::Error::from(ErrorKind::TimedOut))
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(request)?;
    let mut answer = Vec::with_capacity(1024);
    let mut chunk = [0; 4096];
    loop {
        if let Some(found) = whole(&answer)? {
            return Ok(found);
        }
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut chunk)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(chunk.get(..read).unwrap_or_default()),
        }
    }
}

/// Status and body of an answer that is complete.
pub(crate) fn whole(answer: &[u8]) -> io::Result<Option<(u16, Vec<u8>)>> {
    let odd = || io::Error::from(ErrorKind::InvalidData);
    if answer.len() > ANSWER_BYTES_MAX {
        return Err(odd());
    }
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body_at) = head.parse(answer).map_err(|_| odd())? else {
        return Ok(None);
    };
    let length = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    let length: usize = length
        .filter(|length| *length <= ANSWER_BYTES_MAX)
        .ok_or_else(odd)?;
    let body = answer.get(body_at..body_at + length);
    Ok(body.map(|body| (head.code.unwrap_or(0), body.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn a_reset_is_tried_once_more_and_a_silence_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            drop(listener.accept().unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 64];
            let _ = stream.read(&mut head).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7")
                .unwrap();
            // A third one hears nothing.
            listener
        });
        let long = Duration::from_secs(5);
        assert_eq!(call(address, "/", None, long).unwrap(), 7);
        let listener = server.join().unwrap();
        let late = call(address, "/", None, Duration::from_millis(20));
        assert!(matches!(late, Err(CallError::Late)), "{late:?}");
        drop(listener);
        let refused = call(address, "/", None, long);
        assert!(matches!(refused, Err(CallError::Broken(_))), "{refused:?}");
    }

    #[test]
    fn an_answer_counts_once_it_is_whole() {
        let answer = b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}";
        for end in 0..answer.len() {
            assert_eq!(whole(&answer[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(whole(answer).unwrap(), Some((503, b"{}".to_vec())));
        assert!(whole(b"SSH-2.0\r\n").is_err());
        assert!(whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
