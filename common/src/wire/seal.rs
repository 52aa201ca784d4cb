//! Signs orders and judges signed ones (ed25519), around the frame of
//! [`super::signed`].
//!
//! In: an order for one node, or the bytes of a frame from a broker that is not
//! believed. Out: the frame, or the order, or a [`Refusal`] that says why. Who is
//! trusted with which name is the reader's configuration ([`Trusted`]).
//!
//! It does not tell an order from the same one played back: within its short life
//! that is for the fences of [`crate::saga`], behind it for the time that the frame
//! names.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use super::WireError;
use super::signed::{Key, Signed, to_sign};
use crate::ids::{NodeId, SiteId};
use crate::saga::Order;

/// An order is worth nothing so long after it was signed: some beats, and some
/// difference between clocks.
pub const LIFE_MS: u64 = 60_000;

/// A frame that claims to be good for longer, by the reader's clock, is refused:
/// one of the two clocks is wrong, and then nothing can be said of its age.
pub const LIFE_MAX_MS: u64 = 5 * LIFE_MS;

/// What an initiator signs with.
pub struct Signer(SigningKey);

impl core::fmt::Debug for Signer {
    /// Without the secret.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Signer({})", hex(&self.key()))
    }
}

impl Signer {
    /// From 32 bytes that nobody can guess.
    #[must_use]
    pub fn new(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// What others check with.
    #[must_use]
    pub fn key(&self) -> Key {
        self.0.verifying_key().to_bytes()
    }

    /// The frame of an order to one node, good for [`LIFE_MS`] from now.
    ///
    /// # Errors
    /// [`WireError::TooLarge`].
    pub fn seal(
        &self,
        site: &SiteId,
        node: &NodeId,
        order: &Order,
        unix_ms: u64,
    ) -> Result<Vec<u8>, WireError> {
        let body = order.encode()?;
        let expires_ms = unix_ms.saturating_add(LIFE_MS);
        let signature = self.0.sign(&to_sign(site, node, expires_ms, &body));
        Signed {
            key: self.key(),
            expires_ms,
            signature: signature.to_bytes(),
            body: &body,
        }
        .encode()
    }
}

/// Why a message is not taken for an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no signed frame.
    #[error("not a signed order: {0}")]
    Unsigned(WireError),
    /// Nobody of that name may give orders here.
    #[error("{0} is not trusted here")]
    Untrusted(NodeId),
    /// Signed with another key than that of the name it comes under.
    #[error("it is signed with a key that is not {0}'s")]
    Key(NodeId),
    /// The signature is not over these bytes, this site and this node.
    #[error("the signature is wrong: altered, or meant for another node")]
    Signature,
    /// Its time is over.
    #[error("it expired {0} ms ago by this node's clock")]
    Expired(u64),
    /// Its time is too far ahead.
    #[error("by this node's clock it is good for {0} ms more: one of the clocks is wrong")]
    Clock(u64),
    /// What was signed is no order.
    #[error("what is signed is no order: {0}")]
    Body(WireError),
    /// It is about a saga of somebody else.
    #[error("it names a saga of {0}")]
    Name(NodeId),
}

/// Who may give orders to a node, each under its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trusted(BTreeMap<NodeId, VerifyingKey>);

/// A key is none that anybody could sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an ed25519 public key as 64 hex digits")]
pub struct KeyError;

impl Trusted {
    /// Trusts `by` with orders that are signed with the key.
    ///
    /// # Errors
    /// [`KeyError`] for one that is weak or no point of the curve.
    pub fn trust(&mut self, by: NodeId, key: &Key) -> Result<(), KeyError> {
        let key = VerifyingKey::from_bytes(key).map_err(|_| KeyError)?;
        if key.is_weak() {
            return Err(KeyError);
        }
        self.0.insert(by, key);
        Ok(())
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &NodeId> {
        self.0.keys()
    }

    /// Judges what came to `node` at `site` under the name `by`.
    ///
    /// # Errors
    /// [`Refusal`] says why it is none of an order.
    pub fn judge(
        &self,
        site: &SiteId,
        node: &NodeId,
        by: &NodeId,
        bytes: &[u8],
        unix_ms: u64,
    ) -> Result<Order, Refusal> {
        let signed = Signed::decode(bytes).map_err(Refusal::Unsigned)?;
        let key = self
            .0
            .get(by)
            .ok_or_else(|| Refusal::Untrusted(by.clone()))?;
        if key.to_bytes() != signed.key {
            return Err(Refusal::Key(by.clone()));
        }
        let text = to_sign(site, node, signed.expires_ms, signed.body);
        let signature = ed25519_dalek::Signature::from_bytes(&signed.signature);
        key.verify_strict(&text, &signature)
            .map_err(|_| Refusal::Signature)?;
        // Times are believed only now.
        match signed.expires_ms.checked_sub(unix_ms) {
            None => return Err(Refusal::Expired(unix_ms - signed.expires_ms)),
            Some(left) if left > LIFE_MAX_MS => return Err(Refusal::Clock(left)),
            Some(_) => {}
        }
        let order = Order::decode(signed.body).map_err(Refusal::Body)?;
        if order.saga.by != *by {
            return Err(Refusal::Name(order.saga.by));
        }
        Ok(order)
    }
}

/// A key as people write it.
#[must_use]
pub fn hex(key: &Key) -> String {
    use core::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in key {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Reads what [`hex`] writes.
///
/// # Errors
/// [`KeyError`].
pub fn from_hex(text: &str) -> Result<Key, KeyError> {
    let mut key = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(KeyError);
    }
    for (place, byte) in key.iter_mut().enumerate() {
        let digits = text.get(2 * place..2 * place + 2).ok_or(KeyError)?;
        let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = u8::from_str_radix(digits, 16)
            .ok()
            .filter(|_| plain)
            .ok_or(KeyError)?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::{Fence, SagaId, Want};
    use proptest::prelude::*;

    const NOW: u64 = 1_790_000_000_000;

    fn name(text: &str) -> NodeId {
        NodeId::new(text).unwrap()
    }

    fn site() -> SiteId {
        SiteId::new("s").unwrap()
    }

    fn order(by: &str) -> Order {
        Order {
            saga: SagaId {
                by: name(by),
                number: 3,
            },
            fence: Fence {
                epoch: 1,
                counter: 2,
            },
            want: Want::Vote,
        }
    }

    fn trusted() -> Trusted {
        let mut trusted = Trusted::default();
        for (by, seed) in [("boss", 1), ("peer", 2)] {
            let key = Signer::new(&[seed; 32]).key();
            trusted.trust(name(by), &key).unwrap();
        }
        trusted
    }

    fn judged(by: &str, bytes: &[u8], at: u64) -> Result<Order, Refusal> {
        trusted().judge(&site(), &name("n"), &name(by), bytes, at)
    }

    #[test]
    fn an_order_is_taken_from_its_signer_by_its_node_in_its_time_only() {
        let boss = Signer::new(&[1; 32]);
        let bytes = boss.seal(&site(), &name("n"), &order("boss"), NOW).unwrap();
        assert_eq!(judged("boss", &bytes, NOW), Ok(order("boss")));
        assert_eq!(judged("boss", &bytes, NOW + LIFE_MS), Ok(order("boss")));
        let late = NOW + LIFE_MS + 1;
        assert_eq!(judged("boss", &bytes, late), Err(Refusal::Expired(1)));
        // A clock that was never set.
        assert!(matches!(judged("boss", &bytes, 0), Err(Refusal::Clock(_))));
        assert_eq!(judged("peer", &bytes, NOW), Err(Refusal::Key(name("peer"))));
        assert_eq!(
            judged("who", &bytes, NOW),
            Err(Refusal::Untrusted(name("who")))
        );
        let other = boss.seal(&site(), &name("m"), &order("boss"), NOW).unwrap();
        assert_eq!(judged("boss", &other, NOW), Err(Refusal::Signature));
        let foreign = Signer::new(&[2; 32]);
        let foreign = foreign
            .seal(&site(), &name("n"), &order("boss"), NOW)
            .unwrap();
        assert_eq!(
            judged("peer", &foreign, NOW),
            Err(Refusal::Name(name("boss")))
        );
        let plain = order("boss").encode().unwrap();
        assert!(matches!(
            judged("boss", &plain, NOW),
            Err(Refusal::Unsigned(_))
        ));
    }

    #[test]
    fn a_key_reads_back_and_a_weak_one_is_refused() {
        let key = Signer::new(&[7; 32]).key();
        assert_eq!(from_hex(&hex(&key)), Ok(key));
        for wrong in [
            "",
            "00",
            &"+1".repeat(32),
            &"é".repeat(32),
            &"0g".repeat(32),
        ] {
            assert_eq!(from_hex(wrong), Err(KeyError), "{wrong}");
        }
        assert_eq!(Trusted::default().trust(name("n"), &[0; 32]), Err(KeyError));
    }

    proptest! {
        #[test]
        fn no_altered_frame_is_an_order(at in 0usize..1000, with in 1u8..=255) {
            let mut bytes = Signer::new(&[1; 32])
                .seal(&site(), &name("n"), &order("boss"), NOW)
                .unwrap();
            let at = at % bytes.len();
            bytes[at] ^= with;
            prop_assert!(judged("boss", &bytes, NOW).is_err());
        }
    }
}
