//! One HTTP/1.1 POST, and whether its receiver took it.
//!
//! Blocks, within bounds. Keeps no connection, follows no redirect, and reads no
//! more of the answer than its head. There is no TLS here: for a
//! receiver beyond the local network, a relay on the node speaks it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use crate::{Url, in_words};

/// For a connection to one address.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// For the whole exchange, name resolution aside.
const EXCHANGE_TIME: Duration = Duration::from_secs(10);

/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Longest head of an answer.
const HEAD_MAX: usize = 16 * 1024;

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The name leads nowhere.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nobody took the connection.
    #[error("cannot connect to {host}:{port}")]
    Connect {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It broke, or took too long.
    #[error("the exchange with {host} failed")]
    Exchange {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What came back is no answer.
    #[error("{0} does not answer in HTTP")]
    NoHttp(String),
    /// It says that it did not take it.
    #[error("{host} answers with status {status}")]
    Status {
        /// The name.
        host: String,
        /// The status.
        status: u16,
    },
}

impl PostError {
    /// Whether the same message will be refused again, however often it comes.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let Self::Status { status, .. } = self else {
            return false;
        };
        // Request timeout, too early, too many requests.
        (400..500).contains(status) && !matches!(status, 408 | 425 | 429)
    }
}

/// Sends `body` with these headers.
///
/// # Errors
/// [`PostError`] unless the receiver answers with a status of 200 to 299.
pub(crate) fn post(url: &Url, headers: &[(&str, String)], body: &[u8]) -> Result<(), PostError> {
    let host = &url.host;
    let addresses: Vec<SocketAddr> = (host.as_str(), url.port)
        .to_socket_addrs()
        .map_err(|source| PostError::Resolve {
            host: host.clone(),
            source,
        })?
        .take(ADDRESSES_MAX)
        .collect();
    let end = Instant::now() + EXCHANGE_TIME;
    let mut stream = connect(url, &addresses)?;
    let failed = |source| PostError::Exchange {
        host: host.clone(),
        source: in_words(source, EXCHANGE_TIME),
    };
    let mut head = format!("POST {} HTTP/1.1\r\n", url.path);
    let v6 = host.contains(':');
    let (open, close) = if v6 { ("[", "]") } else { ("", "") };
    head.push_str(&format!("Host: {open}{host}{close}:{}\r\n", url.port));
    head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    head.push_str("Connection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    bound(&stream, end).map_err(failed)?;
    stream.write_all(head.as_bytes()).map_err(failed)?;
    stream.write_all(body).map_err(failed)?;
    let mut answer = Vec::new();
    let status = loop {
        bound(&stream, end).map_err(failed)?;
        let mut part = [0; 1024];
        let read = stream.read(&mut part).map_err(failed)?;
        answer.extend_from_slice(part.get(..read).unwrap_or_default());
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(&answer) {
            Ok(httparse::Status::Complete(_)) => break response.code.unwrap_or(0),
            Ok(httparse::Status::Partial) if read > 0 && answer.len() < HEAD_MAX => {}
            _ => return Err(PostError::NoHttp(host.clone())),
        }
    };
    if (200..300).contains(&status) {
        Ok(())
    } else {
        let host = host.clone();
        Err(PostError::Status { host, status })
    }
}

fn connect(url: &Url, addresses: &[SocketAddr]) -> Result<TcpStream, PostError> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_TIME) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = in_words(error, CONNECT_TIME),
        }
    }
    Err(PostError::Connect {
        host: url.host.clone(),
        port: url.port,
        source: last,
    })
}

/// Lets no read or write last beyond `end`.
fn bound(stream: &TcpStream, end: Instant) -> std::io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(std::io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))
}
