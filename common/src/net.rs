//! Ranges of addresses: from whom connections come.
//!
//! In goes text such as `10.1.0.0/16`, out comes a range that can be compared.
//! Resolves no names.

use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A range of source addresses, such as `10.1.0.0/16` or `fd00::/8`; bits
/// behind the prefix are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceNet {
    address: IpAddr,
    prefix: u8,
}

/// Why text is not a range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address with or without a prefix, such as 10.1.0.0/16, and no bits behind it")]
pub struct NotANet;

impl SourceNet {
    /// A range.
    ///
    /// # Errors
    /// [`NotANet`] when the prefix is too long, or bits behind it are set.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, NotANet> {
        let (bits, width) = bits(address);
        if prefix > width || bits & !mask(prefix, width) != 0 {
            return Err(NotANet);
        }
        Ok(Self { address, prefix })
    }

    /// Its first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many of its bits all addresses share.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether its addresses are of version 4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether it holds an address; a version 4 address that is written as a
    /// version 6 one is the version 4 one.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let (own, width) = bits(self.address);
        let (other, other_width) = bits(address.to_canonical());
        width == other_width && own == other & mask(self.prefix, width)
    }

    /// Whether it holds all addresses of another one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.holds(other.address)
    }
}

/// An address as a number, and how many bits that has.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

/// The bits of a prefix.
fn mask(prefix: u8, width: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(width));
    let rest = u32::from(width.saturating_sub(prefix));
    all & u128::MAX.checked_shl(rest).unwrap_or(0)
}

impl core::str::FromStr for SourceNet {
    type Err = NotANet;

    fn from_str(text: &str) -> Result<Self, NotANet> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANet)?;
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| NotANet)?,
            None => bits(address).1,
        };
        Self::new(address, prefix)
    }
}

impl Serialize for SourceNet {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SourceNet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // The longest: a version 6 address and its prefix.
        heapless::String::<43>::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for SourceNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_range_holds_what_is_behind_its_prefix() {
        let net: SourceNet = "10.1.0.0/16".parse().unwrap();
        for (address, held) in [
            ("10.1.255.9", true),
            ("10.2.0.0", false),
            ("::ffff:10.1.2.3", true),
            ("fd00::1", false),
        ] {
            assert_eq!(net.holds(address.parse().unwrap()), held, "{address}");
        }
        let all: SourceNet = "0.0.0.0/0".parse().unwrap();
        assert!(all.covers(&net) && !net.covers(&all) && net.covers(&net));
        let one: SourceNet = "fd00::7".parse().unwrap();
        assert_eq!(one.to_string(), "fd00::7/128");
        assert!("::/0".parse::<SourceNet>().unwrap().covers(&one));
    }

    #[test]
    fn what_is_printed_reads_back_and_nothing_else_is_a_range() {
        for text in ["10.1.0.0/16", "::/0", "fd00::/8", "255.255.255.255/32"] {
            let net: SourceNet = text.parse().unwrap();
            assert_eq!(net.to_string(), text);
            let bytes = postcard::to_allocvec(&net).unwrap();
            assert_eq!(postcard::from_bytes::<SourceNet>(&bytes), Ok(net));
        }
        for wrong in [
            "",
            "10.1.0.1/16",
            "10.1.0.0/33",
            "a/8",
            "10.1.0.0/",
            "::1/0",
        ] {
            assert_eq!(wrong.parse::<SourceNet>(), Err(NotANet), "{wrong}");
        }
    }
}
