//! Names of things: nodes, services, sites, incidents, instances.
//!
//! A name is 1 to 32 characters of `[a-z0-9-]`, because it becomes a level of
//! an MQTT topic, a file name and a word of a printed plan. Decoding goes
//! through the same constructor as parsing, so an id in hand is always valid.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name; sizes every place where names are stored.
pub const NAME_MAX: usize = 32;

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters at all: an empty topic level.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`NAME_MAX`] bytes.
    #[error("a name has at most {NAME_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// A character outside `[a-z0-9-]`.
    #[error("a name may hold a-z, 0-9 and '-', not {0:?}")]
    Character(char),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(heapless::String<NAME_MAX>);

        impl $name {
            /// Checks and builds a name.
            ///
            /// # Errors
            /// [`NameError`] says which rule `text` breaks.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if text.is_empty() {
                    return Err(NameError::Empty);
                }
                if let Some(wrong) = text
                    .chars()
                    .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
                {
                    return Err(NameError::Character(wrong));
                }
                heapless::String::try_from(text)
                    .map(Self)
                    .map_err(|_| NameError::TooLong(text.len()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a name of 1 to 32 characters of a-z, 0-9 and '-'")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                from.deserialize_str(Text)
            }
        }
    };
}

name! {
    /// A site: nodes that share a local network.
    ///
    /// ```
    /// # use homeostat_common::ids::SiteId;
    /// assert_eq!(SiteId::new("plant-7").unwrap().as_str(), "plant-7");
    /// assert!(SiteId::new("Plant 7").is_err());
    /// ```
    SiteId
}
name! {
    /// A node; unique in the fleet.
    NodeId
}
name! {
    /// A service on a node; unique on that node.
    ServiceId
}
name! {
    /// A network interface of a node.
    InterfaceId
}
name! {
    /// A webhook of the operator.
    WebhookId
}
name! {
    /// A certificate whose end is watched.
    CertificateId
}
name! {
    /// A microcontroller at a serial line of a node.
    McuId
}
name! {
    /// A route of a node's forwarder: one port, and the backends behind it.
    RouteId
}

/// One life of a service's process. Minted by the spawner and never reused, so
/// that a late message about a former life cannot be taken for the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance(pub u64);

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

/// An incident of one node: the sequence number of the event that opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IncidentId(pub u64);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One execution of one plan on one node; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlanId(pub u64);

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// Names one deed of one plan, so that it is done once however often it is asked
/// for: an idempotency token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The plan.
    pub plan: PlanId,
    /// Place of the step in it.
    pub step: u8,
    /// It is the step's compensation.
    pub undo: bool,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let undo = if self.undo { "-undo" } else { "" };
        write!(f, "{}-{}{undo}", self.plan, self.step)
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = HexError;
            fn from_str(text: &str) -> Result<Self, HexError> {
                let mut bytes = [0; $bytes];
                if text.len() != 2 * $bytes || !text.is_ascii() {
                    return Err(HexError { digits: 2 * $bytes });
                }
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    *byte = core::str::from_utf8(pair)
                        .ok()
                        .filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))
                        .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                        .ok_or(HexError { digits: 2 * $bytes })?;
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() {
                    to.collect_str(self)
                } else {
                    self.0.serialize(to)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    let text = <alloc::borrow::Cow<'_, str>>::deserialize(from)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; $bytes]>::deserialize(from).map(Self)
                }
            }
        }
    };
}

/// A string is not the hexadecimal form of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {digits} hexadecimal digits")]
pub struct HexError {
    digits: usize,
}

hex_id! {
    /// A stream of events: minted with a node's store. A rebuilt store is a new
    /// stream, so nothing new is ever mistaken for a duplicate.
    StreamId, 16
}
hex_id! {
    /// One boot of the kernel, as in `/proc/sys/kernel/random/boot_id`.
    BootId, 16
}
hex_id! {
    /// The first eight bytes of the SHA-256 of a model file.
    ModelVersion, 8
}
hex_id! {
    /// The first eight bytes of the SHA-256 of a configuration file.
    ConfigVersion, 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_name_that_breaks_a_rule_is_refused_with_that_rule() {
        assert_eq!(ServiceId::new(""), Err(NameError::Empty));
        assert_eq!(ServiceId::new("a/b"), Err(NameError::Character('/')));
        assert_eq!(ServiceId::new("Web"), Err(NameError::Character('W')));
        assert_eq!(
            ServiceId::new("a-name-that-is-far-too-long-for-us"),
            Err(NameError::TooLong(34))
        );
    }

    #[test]
    fn decoding_goes_through_the_constructor() {
        let bytes = postcard::to_allocvec("No Name").unwrap();
        assert!(postcard::from_bytes::<ServiceId>(&bytes).is_err());
        assert!(serde_json::from_str::<NodeId>("\"a b\"").is_err());
        let bytes = postcard::to_allocvec("edge-1").unwrap();
        assert_eq!(
            postcard::from_bytes::<NodeId>(&bytes).unwrap(),
            NodeId::new("edge-1").unwrap()
        );
    }

    #[test]
    fn hexadecimal_ids_round_trip_and_refuse_the_rest() {
        let version = ModelVersion([0, 1, 0xab, 3, 4, 5, 6, 0xff]);
        assert_eq!(version.to_string(), "0001ab03040506ff");
        assert_eq!("0001ab03040506ff".parse(), Ok(version));
        for wrong in [
            "",
            "0001ab03040506f",
            "0001ab03040506fg",
            "+001ab03040506ff",
        ] {
            assert!(wrong.parse::<ModelVersion>().is_err(), "{wrong}");
        }
        let json = serde_json::to_string(&version).unwrap();
        assert_eq!(
            serde_json::from_str::<ModelVersion>(&json).unwrap(),
            version
        );
    }
}
