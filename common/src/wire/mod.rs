//! What crosses the network: envelopes, their bodies, and the topic table.
//!
//! Every record a node produces goes into an [`Envelope`] (postcard) on
//! `up/{stream}`, the only source that the coordinator ingests; it answers with
//! a cumulative [`Down::Ack`] on `dn/{stream}`. The JSON of [`projection`] on
//! the other topics is for people and tools.
//!
//! Messages have types of their own: the vocabulary may change without breaking
//! a deployed fleet. Their recorded bytes are golden files that must decode for
//! ever. Decoding takes memory in proportion to the input, never panics, and
//! keeps what it does not know ([`Body::Unknown`]).

pub mod body;
pub mod notice;
pub mod projection;
#[cfg(feature = "sign")]
pub mod seal;
pub mod signed;
pub mod topic;

pub use body::Body;

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::hlc::Hlc;
use crate::ids::{BootId, NodeId, SiteId, StreamId};

/// Version of the envelope. A reader refuses a larger one by name.
pub const VERSION: u8 = 1;

/// Largest encoded envelope. Fits the smallest packet limit among common
/// brokers, and bounds what one message can make a receiver allocate.
pub const RECORD_MAX: usize = 64 * 1024;

/// Most causes of one event.
pub const CAUSES_MAX: usize = 8;

/// Names one event in the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventRef {
    /// The node's stream.
    pub stream: StreamId,
    /// Its place there.
    pub seq: u64,
}

/// One record of a node, as it travels on `up/{stream}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Where the node stands.
    pub site: SiteId,
    /// Who says it.
    pub node: NodeId,
    /// Minted with the node's store.
    pub stream: StreamId,
    /// Place in the stream; spans boots, starts at 1, has no holes but for
    /// those that a [`body::Gap`] names.
    pub seq: u64,
    /// The boot of the kernel in which it happened.
    pub boot: BootId,
    /// For ties and for people.
    pub hlc: Hlc,
    /// Events that led to this one, on this node or others.
    pub causes: Vec<EventRef>,
    /// What it says.
    pub body: Body,
}

#[derive(Serialize, Deserialize)]
struct Frame {
    version: u8,
    site: SiteId,
    node: NodeId,
    stream: StreamId,
    seq: u64,
    boot: BootId,
    hlc: Hlc,
    causes: Vec<EventRef>,
    kind: u16,
    body: Vec<u8>,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Larger than [`RECORD_MAX`].
    #[error("{0} bytes are more than the limit of {RECORD_MAX}")]
    TooLarge(usize),
    /// Written by a newer program.
    #[error("version {0} of the envelope; this program reads up to {VERSION}")]
    Version(u8),
    /// Not what the schema says.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Bytes left over behind the message.
    #[error("{0} bytes behind the end of the message")]
    Trailing(usize),
    /// More than [`CAUSES_MAX`] causes.
    #[error("{0} causes are more than the limit of {CAUSES_MAX}")]
    Causes(usize),
}

pub(crate) fn decode_whole<'b, T: Deserialize<'b>>(
    bytes: &'b [u8],
    what: &'static str,
) -> Result<T, WireError> {
    if bytes.len() > RECORD_MAX {
        return Err(WireError::TooLarge(bytes.len()));
    }
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|_| WireError::Malformed(what))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(WireError::Trailing(rest.len()))
    }
}

pub(crate) fn encode<T: Serialize>(value: &T, what: &'static str) -> Result<Vec<u8>, WireError> {
    let bytes = postcard::to_allocvec(value).map_err(|_| WireError::Malformed(what))?;
    if bytes.len() > RECORD_MAX {
        return Err(WireError::TooLarge(bytes.len()));
    }
    Ok(bytes)
}

impl Envelope {
    /// # Errors
    /// [`WireError::TooLarge`] or [`WireError::Causes`] when a bound is passed.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        if self.causes.len() > CAUSES_MAX {
            return Err(WireError::Causes(self.causes.len()));
        }
        let (kind, body) = self.body.encode()?;
        encode(
            &Frame {
                version: VERSION,
                site: self.site.clone(),
                node: self.node.clone(),
                stream: self.stream,
                seq: self.seq,
                boot: self.boot,
                hlc: self.hlc,
                causes: self.causes.clone(),
                kind,
                body,
            },
            "envelope",
        )
    }

    /// # Errors
    /// [`WireError`] says what is wrong. A body of an unknown kind is no error.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match bytes.first() {
            Some(&version) if version > VERSION => return Err(WireError::Version(version)),
            _ => {}
        }
        let frame: Frame = decode_whole(bytes, "envelope")?;
        if frame.causes.len() > CAUSES_MAX {
            return Err(WireError::Causes(frame.causes.len()));
        }
        Ok(Self {
            site: frame.site,
            node: frame.node,
            stream: frame.stream,
            seq: frame.seq,
            boot: frame.boot,
            hlc: frame.hlc,
            causes: frame.causes,
            body: Body::decode(frame.kind, &frame.body)?,
        })
    }

    /// How other events name this one.
    #[must_use]
    pub fn reference(&self) -> EventRef {
        EventRef {
            stream: self.stream,
            seq: self.seq,
        }
    }
}

/// What the coordinator sends on `dn/{stream}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// Everything up to and including `through` is stored for good; the node
    /// may forget it.
    Ack {
        /// The last event of an unbroken run.
        through: u64,
    },
}

impl Down {
    /// # Errors
    /// Never for today's variants; kept because later ones have bounds.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode(&(VERSION, self), "acknowledgement")
    }

    /// # Errors
    /// [`WireError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match bytes.first() {
            Some(&version) if version > VERSION => Err(WireError::Version(version)),
            _ => decode_whole::<(u8, Self)>(bytes, "acknowledgement").map(|(_, down)| down),
        }
    }
}

/// Cuts a text for the wire so that no field grows without bound.
#[must_use]
pub fn bounded(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn envelope(body: Body) -> Envelope {
        Envelope {
            site: SiteId::new("plant-7").unwrap(),
            node: NodeId::new("edge-1").unwrap(),
            stream: StreamId([7; 16]),
            seq: 300,
            boot: BootId([1; 16]),
            hlc: Hlc::new(1_790_000_000_000, 3),
            causes: alloc::vec![EventRef {
                stream: StreamId([7; 16]),
                seq: 299
            }],
            body,
        }
    }

    #[test]
    fn every_body_round_trips_and_its_recorded_bytes_still_decode() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1");
        for body in body::samples() {
            let envelope = envelope(body);
            let bytes = envelope.encode().unwrap();
            let golden = folder.join(std::format!("{}.bin", envelope.body.kind_name()));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&golden, &bytes).unwrap();
            }
            let recorded = std::fs::read(&golden)
                .unwrap_or_else(|error| panic!("{}: {error}", golden.display()));
            assert_eq!(recorded, bytes, "{}", golden.display());
            assert_eq!(Envelope::decode(&recorded).unwrap(), envelope);
            let json = serde_json::to_string(&envelope.body).unwrap();
            assert_eq!(serde_json::from_str::<Body>(&json).unwrap(), envelope.body);
        }
        let ack = Down::Ack { through: 70_000 };
        assert_eq!(ack.encode().unwrap(), [1, 0, 0xf0, 0xa2, 4]);
        assert_eq!(Down::decode(&[1, 0, 0xf0, 0xa2, 4]), Ok(ack));
    }

    #[test]
    fn a_body_of_a_later_version_is_kept_byte_for_byte() {
        let unknown = envelope(Body::Unknown {
            kind: 999,
            bytes: alloc::vec![1, 2, 3],
        });
        assert_eq!(Envelope::decode(&unknown.encode().unwrap()), Ok(unknown));
    }

    #[test]
    fn what_is_too_large_or_too_new_is_refused_by_name() {
        let big = Body::Unknown {
            kind: 999,
            bytes: alloc::vec![0; RECORD_MAX],
        };
        assert!(matches!(
            envelope(big).encode(),
            Err(WireError::TooLarge(_))
        ));
        assert!(matches!(
            Envelope::decode(&alloc::vec![1; RECORD_MAX + 1]),
            Err(WireError::TooLarge(_))
        ));
        assert_eq!(Envelope::decode(&[9, 0]), Err(WireError::Version(9)));
        assert_eq!(Down::decode(&[1, 0, 5, 5]), Err(WireError::Trailing(1)));
        let mut many = envelope(Body::Unknown {
            kind: 999,
            bytes: Vec::new(),
        });
        many.causes = alloc::vec![many.reference(); CAUSES_MAX + 1];
        assert_eq!(many.encode(), Err(WireError::Causes(CAUSES_MAX + 1)));
    }

    proptest! {
        #[test]
        fn decoding_anything_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Down::decode(&bytes);
            let _ = Envelope::decode(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = Envelope::decode(&bytes);
        }

        #[test]
        fn a_damaged_record_never_panics(at in 0usize..200, value in any::<u8>(), which in 0usize..32) {
            let samples = body::samples();
            let mut bytes = envelope(samples[which % samples.len()].clone()).encode().unwrap();
            let length = bytes.len();
            bytes[at % length] = value;
            let _ = Envelope::decode(&bytes);
        }
    }
}
