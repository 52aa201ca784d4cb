//! The frame of a signed order: who signed it, for which node, until when.
//!
//! Only the bytes are here; the signature itself (ed25519) is made and checked in
//! `seal`, with a library that is there only with the feature `sign`. What is signed are
//! the bytes as they travel, with the site and the node they are for in front, so that an order
//! to one node is worth nothing on another.
//!
//! ```text
//! version 1 | key 32 | expires, ms since 1970, little endian 8 | signature 64 | body
//! ```

use alloc::vec::Vec;

use super::{RECORD_MAX, WireError};
use crate::ids::{NodeId, SiteId};

/// Version of the frame. A reader refuses a larger one by name.
pub const SIGNED_VERSION: u8 = 1;

/// A public key.
pub type Key = [u8; 32];

/// A signature.
pub type Signature = [u8; 64];

const HEAD: usize = 1 + 32 + 8 + 64;

/// What every signature begins with, so that one made for something else is worth
/// nothing here.
const CONTEXT: &[u8] = b"homeostat order 1\0";

/// A frame, not yet believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed<'b> {
    /// The key that it claims to be signed with.
    pub key: Key,
    /// After this it is worth nothing, in milliseconds since 1970.
    pub expires_ms: u64,
    /// The signature over [`to_sign`].
    pub signature: Signature,
    /// What it says.
    pub body: &'b [u8],
}

/// The bytes that are signed.
#[must_use]
pub fn to_sign(site: &SiteId, node: &NodeId, expires_ms: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CONTEXT.len() + 80 + body.len());
    bytes.extend_from_slice(CONTEXT);
    for name in [site.as_str(), node.as_str()] {
        bytes.extend_from_slice(name.as_bytes());
        // No name holds one.
        bytes.push(0);
    }
    bytes.extend_from_slice(&expires_ms.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

impl<'b> Signed<'b> {
    /// The frame as it travels.
    ///
    /// # Errors
    /// [`WireError::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let size = HEAD + self.body.len();
        if size > RECORD_MAX {
            return Err(WireError::TooLarge(size));
        }
        let mut bytes = Vec::with_capacity(size);
        bytes.push(SIGNED_VERSION);
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&self.expires_ms.to_le_bytes());
        bytes.extend_from_slice(&self.signature);
        bytes.extend_from_slice(self.body);
        Ok(bytes)
    }

    /// # Errors
    /// [`WireError`] says what is wrong. Whether the signature is right is for the
    /// caller to check.
    pub fn decode(bytes: &'b [u8]) -> Result<Self, WireError> {
        const MALFORMED: WireError = WireError::Malformed("signed order");
        if bytes.len() > RECORD_MAX {
            return Err(WireError::TooLarge(bytes.len()));
        }
        let (version, rest) = bytes.split_first().ok_or(MALFORMED)?;
        if *version > SIGNED_VERSION {
            return Err(WireError::Version(*version));
        }
        let (key, rest) = rest.split_first_chunk().ok_or(MALFORMED)?;
        let (expires, rest) = rest.split_first_chunk().ok_or(MALFORMED)?;
        let (signature, body) = rest.split_first_chunk().ok_or(MALFORMED)?;
        Ok(Self {
            key: *key,
            expires_ms: u64::from_le_bytes(*expires),
            signature: *signature,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_and_a_cut_one_is_refused() {
        let signed = Signed {
            key: [1; 32],
            expires_ms: 1_790_000_000_000,
            signature: [2; 64],
            body: b"order",
        };
        let bytes = signed.encode().unwrap();
        assert_eq!(Signed::decode(&bytes), Ok(signed));
        for length in 0..HEAD {
            assert!(Signed::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert_eq!(Signed::decode(&[9; 200]), Err(WireError::Version(9)));
    }

    #[test]
    fn what_is_signed_differs_with_the_node_the_time_and_the_site() {
        let (a, b) = (NodeId::new("a").unwrap(), NodeId::new("b").unwrap());
        let (s, sa) = (SiteId::new("s").unwrap(), SiteId::new("sa").unwrap());
        let all = [
            to_sign(&s, &a, 1, b"x"),
            to_sign(&s, &b, 1, b"x"),
            to_sign(&sa, &b, 1, b"x"),
            to_sign(&s, &a, 2, b"x"),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(!all[..place].contains(one));
        }
    }
}
