//! A silence in words.

use std::io;
use std::time::Duration;

/// An error of a socket with a timeout. The kernel calls a silence "Resource temporarily
/// unavailable"; here it says that there was no answer, and for how long.
#[must_use]
pub fn in_words(error: io::Error, limit: Duration) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} ms", limit.as_millis()),
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_silence_is_no_resource_that_is_unavailable() {
        let (mut own, _other) = UnixStream::pair().unwrap();
        let limit = Duration::from_millis(20);
        own.set_read_timeout(Some(limit)).unwrap();
        let error = own.read(&mut [0]).unwrap_err();
        assert!(error.to_string().contains("os error"), "{error}");
        let error = in_words(error, limit);
        assert_eq!(error.to_string(), "no answer within 20 ms");
        let refused = in_words(io::ErrorKind::ConnectionRefused.into(), limit);
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
