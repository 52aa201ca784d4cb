//! Calls a hook of a service: one POST over loopback.
//!
//! In go a port, a path and a token, out comes whether the service answered with a
//! status from 200 to 299. The token goes along, so that a service that is asked
//! twice does it once. Reads the status and nothing of the body.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use homeostat_common::ids::Token;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a service may take; a little less than the step's own deadline, so
/// that this error is the one that is told.
const ANSWER_TIME: Duration = Duration::from_secs(9);

/// Largest status line and headers.
const HEAD_MAX: usize = 8 * 1024;

/// Most headers.
const HEADERS_MAX: usize = 64;

/// Why a hook did not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum HookError {
    /// Nobody is there, or the connection broke.
    #[error("cannot call {path} at port {port}")]
    Io {
        /// Where.
        port: u16,
        /// What.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No whole answer came in time.
    #[error("{path} at port {port} did not answer within {} s", ANSWER_TIME.as_secs())]
    Silent {
        /// Where.
        port: u16,
        /// What.
        path: String,
    },
    /// The answer is no HTTP.
    #[error("{path} at port {port} answered something that is not HTTP")]
    NotHttp {
        /// Where.
        port: u16,
        /// What.
        path: String,
    },
    /// The service says no.
    #[error("{path} at port {port} answered with status {status}")]
    Status {
        /// Where.
        port: u16,
        /// What.
        path: String,
        /// What it said.
        status: u16,
    },
}

/// Calls a hook and waits for its answer.
///
/// # Errors
/// [`HookError`]; the service may have done it all the same.
pub(super) async fn call(port: u16, path: &str, token: Token) -> Result<(), HookError> {
    let own = || path.to_owned();
    let status = match timeout(ANSWER_TIME, ask(port, path, token)).await {
        Ok(Ok(status)) => status,
        Ok(Err(source)) => {
            let path = own();
            return Err(HookError::Io { port, path, source });
        }
        Err(_) => return Err(HookError::Silent { port, path: own() }),
    };
    match status {
        Some(200..=299) => Ok(()),
        Some(status) => Err(HookError::Status {
            port,
            path: own(),
            status,
        }),
        None => Err(HookError::NotHttp { port, path: own() }),
    }
}

/// The status of the answer; `None` when it is no HTTP.
async fn ask(port: u16, path: &str, token: Token) -> io::Result<Option<u16>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nidempotency-key: {token}\r\n\
         content-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let mut stream = stream.take(HEAD_MAX as u64);
    loop {
        let more = stream.read_buf(&mut bytes).await?;
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&bytes) {
            Ok(httparse::Status::Complete(_)) => return Ok(response.code),
            Ok(httparse::Status::Partial) if more > 0 => {}
            Ok(httparse::Status::Partial) | Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use homeostat_common::ids::PlanId;

    use super::*;

    const TOKEN: Token = Token {
        plan: PlanId(3),
        step: 2,
        undo: true,
    };

    /// Calls a server that answers with `text`; what it was asked, and how the
    /// call went.
    fn answered(text: &'static str) -> (String, Result<(), HookError>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            stream.write_all(text.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let result = runtime.block_on(call(port, "/admin/flush", TOKEN));
        (server.join().unwrap(), result)
    }

    #[test]
    fn a_hook_is_called_with_its_token_and_judged_by_its_status() {
        let (asked, result) = answered("HTTP/1.1 204 No Content\r\n\r\n");
        assert!(
            asked.starts_with("POST /admin/flush HTTP/1.1\r\n"),
            "{asked}"
        );
        assert!(
            asked.contains("\r\nidempotency-key: p3-2-undo\r\n"),
            "{asked}"
        );
        assert!(result.is_ok(), "{result:?}");
        let said = |text| answered(text).1.unwrap_err().to_string();
        let error = said("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
        assert!(error.ends_with("answered with status 503"), "{error}");
        for text in ["", "HTTP/1.1 200", "220 smtp ready\r\n\r\n"] {
            let error = said(text);
            assert!(error.ends_with("something that is not HTTP"), "{error}");
        }
    }

    #[test]
    fn a_service_that_is_not_there_is_named() {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let error = runtime.block_on(call(port, "/x", TOKEN)).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot call /x at port {port}"));
    }
}
