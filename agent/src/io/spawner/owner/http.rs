//! One question to an engine over its Unix socket, in HTTP/1.1.
//!
//! In: method, path and perhaps a body of JSON. Out: status and body of the answer.
//! A connection for each question, as the engine may be restarted at any moment and
//! a question is rare. No redirects, no TLS, no streaming: whoever listens at that
//! socket is root on this machine, and its answers are small.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// An engine that starts a container may take seconds; one that takes longer hangs.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Largest answer: what an engine tells of one container is some 10 KiB, more with
/// many mounts and variables.
const ANSWER_MAX: u64 = 1 << 20;
/// More header lines than any engine sends.
const HEADERS_MAX: usize = 64;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("cannot reach the engine at {}", socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("lost the engine in the middle of {question}")]
    Lost {
        question: String,
        #[source]
        source: io::Error,
    },
    #[error("the engine has not answered {question} within {} s", ANSWER_TIME.as_secs())]
    Late { question: String },
    #[error("the engine's answer to {question} is {what}")]
    Answer {
        question: String,
        what: &'static str,
    },
}

/// Status and body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Asks once. `path` must be printable ASCII without spaces.
pub(super) async fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Answer, HttpError> {
    let question = || format!("{method} {path}");
    let asked = tokio::time::timeout(ANSWER_TIME, exchange(socket, method, path, body));
    let answer = asked.await.map_err(|_| HttpError::Late {
        question: question(),
    })??;
    parse(&answer).map_err(|what| HttpError::Answer {
        question: question(),
        what,
    })
}

async fn exchange(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Vec<u8>, HttpError> {
    let connected = UnixStream::connect(socket).await;
    let mut stream = connected.map_err(|source| HttpError::Connect {
        socket: socket.to_owned(),
        source,
    })?;
    let lost = |source| HttpError::Lost {
        question: format!("{method} {path}"),
        source,
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request).await.map_err(lost)?;
    let mut answer = Vec::new();
    let mut bounded = stream.take(ANSWER_MAX);
    bounded.read_to_end(&mut answer).await.map_err(lost)?;
    Ok(answer)
}

fn parse(bytes: &[u8]) -> Result<Answer, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = response.parse(bytes) else {
        return Err("not HTTP");
    };
    let header = |name: &str| {
        let mut all = response.headers.iter();
        let found = all.find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    let rest = bytes.get(head..).unwrap_or_default();
    let body = if header("transfer-encoding").is_some_and(|way| way.eq_ignore_ascii_case("chunked"))
    {
        unchunked(rest).ok_or("cut short, or too long")?
    } else if let Some(length) = header("content-length") {
        let length: usize = length.parse().map_err(|_| "not HTTP")?;
        rest.get(..length).ok_or("cut short, or too long")?.to_vec()
    } else {
        rest.to_vec()
    };
    Ok(Answer {
        status: response.code.unwrap_or(0),
        body,
    })
}

/// The body of a chunked answer; `None` when its last chunk is missing.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest) else {
            return None;
        };
        if size == 0 {
            return Some(body);
        }
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        body.extend_from_slice(rest.get(start..end)?);
        rest = rest.get(end..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_in_each_of_its_three_forms() {
        let whole = Ok(Answer {
            status: 200,
            body: b"{\"a\":1}".to_vec(),
        });
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\n{\"a\":1}",
        ] {
            assert_eq!(parse(text.as_bytes()), whole, "{text}");
        }
        let none = parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert_eq!((none.status, none.body.len()), (204, 0));
    }

    #[test]
    fn what_is_not_a_whole_answer_is_none() {
        for text in [
            "",
            "SSH-2.0\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\":1}",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx\r\n0\r\n\r\n",
        ] {
            parse(text.as_bytes()).unwrap_err();
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_or_answers_nonsense_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine");
        let error = ask(&socket, "GET", "/", b"").await.unwrap_err();
        assert!(matches!(error, HttpError::Connect { .. }), "{error}");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let zeros = vec![0; 1 << 16];
            // Endless, until nobody reads.
            while stream.write_all(&zeros).await.is_ok() {}
        });
        let error = ask(&socket, "GET", "/", b"").await.unwrap_err();
        assert!(
            matches!(error, HttpError::Answer { .. } | HttpError::Lost { .. }),
            "{error}"
        );
        answering.await.unwrap();
    }
}
