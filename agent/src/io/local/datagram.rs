//! A message as one datagram: a version byte, and then postcard.
//!
//! In goes a message of some protocol with its version, out come bytes, and back.
//! What the messages are is for the protocols to say; two of them have nothing in
//! common but this form.

use serde::{Deserialize, Serialize};

/// Longest datagram: the spawner's welcome with all its slots has 8 KiB.
pub const MESSAGE_MAX: usize = 16 * 1024;
/// Longest reason in a message, in bytes; a bad configuration can have many.
pub const REASON_MAX: usize = 4096;

/// Why a datagram is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another version, or nothing at all.
    #[error("the peer speaks version {theirs:?} of the protocol, this is version {ours}")]
    Version {
        /// What the datagram says.
        theirs: Option<u8>,
        /// What is expected.
        ours: u8,
    },
    /// The version is right, the rest is not.
    #[error("the message cannot be read")]
    Body(#[source] postcard::Error),
    /// A right message, and then something else.
    #[error("the message has {0} bytes too many")]
    Rest(usize),
}

/// A datagram for `body`.
///
/// # Errors
/// Postcard's, which for the types and lengths of the protocols does not happen.
pub fn encode<T: Serialize>(version: u8, body: &T) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_extend(body, vec![version])
}

/// The message in a datagram.
///
/// # Errors
/// [`DecodeError`] when the version or anything else is not as expected.
pub fn decode<'d, T: Deserialize<'d>>(ours: u8, datagram: &'d [u8]) -> Result<T, DecodeError> {
    let (body, rest) = match datagram.split_first() {
        Some((version, body)) if *version == ours => {
            postcard::take_from_bytes(body).map_err(DecodeError::Body)?
        }
        other => {
            let theirs = other.map(|(version, _)| *version);
            return Err(DecodeError::Version { theirs, ours });
        }
    };
    if rest.is_empty() {
        Ok(body)
    } else {
        Err(DecodeError::Rest(rest.len()))
    }
}

/// `text`, cut to [`REASON_MAX`] bytes.
pub(in crate::io) fn reason(mut text: String) -> String {
    if text.len() > REASON_MAX {
        let end = (0..=REASON_MAX)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}
