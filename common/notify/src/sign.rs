//! The signature of a message: whoever shares the secret can tell that it is
//! ours, whole, and of when.
//!
//! `Homeostat-Signature: v1=HEX`, with HMAC-SHA256 (RFC 2104) over the decimal
//! seconds of `Homeostat-Timestamp`, a dot, and the body. A receiver refuses what
//! is older than a few minutes, and what it has seen by its `Idempotency-Key`.

use std::io::Read as _;
use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Shortest secret: 128 bits, if its bytes are random.
pub const SECRET_MIN: usize = 16;

/// Longest secret; what is longer is not one.
const SECRET_MAX: u64 = 4096;

/// Why there is no secret to sign with.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read its secret {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds too little, or too much.
    #[error("its secret {path} has {bytes} bytes; {SECRET_MIN} to {SECRET_MAX} are expected")]
    Length {
        /// Which file.
        path: String,
        /// How many.
        bytes: usize,
    },
}

/// The secret in a file, without the newline at its end.
///
/// # Errors
/// [`SecretError`] when it cannot be read or is not one.
pub fn secret(path: &Path) -> Result<Vec<u8>, SecretError> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(SECRET_MAX + 2).read_to_end(&mut bytes));
    if let Err(source) = read {
        return Err(SecretError::Read { path: name, source });
    }
    while bytes
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        bytes.pop();
    }
    if bytes.len() < SECRET_MIN || bytes.len() as u64 > SECRET_MAX {
        let bytes = bytes.len();
        return Err(SecretError::Length { path: name, bytes });
    }
    Ok(bytes)
}

/// The value of `Homeostat-Signature`.
#[must_use]
pub fn signature(secret: &[u8], timestamp: u64, body: &[u8]) -> String {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        return String::new();
    };
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut text = String::from("v1=");
    for byte in mac.finalize().into_bytes() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by another implementation (Python's `hmac`).
    #[test]
    fn it_is_the_hmac_of_timestamp_and_body() {
        assert_eq!(
            signature(
                b"0123456789abcdef",
                1_790_000_000,
                b"{\"alarm\":\"web-hung\"}"
            ),
            "v1=728cab7920f7b2cd33c9556e7669bdb673245ce64d2bee45d45f191580eb75f8"
        );
    }

    #[test]
    fn a_secret_is_read_without_its_newline_and_refused_when_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "0123456789abcdef\r\n").unwrap();
        assert_eq!(secret(&path).unwrap(), b"0123456789abcdef");
        std::fs::write(&path, "0123456789abcde\n").unwrap();
        assert!(secret(&path).unwrap_err().to_string().contains("15 bytes"));
        std::fs::write(&path, [b'x'; 5000]).unwrap();
        assert!(matches!(secret(&path), Err(SecretError::Length { .. })));
        let nowhere = secret(&dir.path().join("none"));
        assert!(matches!(nowhere, Err(SecretError::Read { .. })));
    }
}
