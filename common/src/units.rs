//! Numbers that carry their unit.

use core::fmt;
use core::ops::{Add, Sub};

use serde::{Deserialize, Deserializer, Serialize};

/// A point on the node's monotonic clock that counts through suspend
/// (`CLOCK_BOOTTIME`), in microseconds since boot. Never compared across boots.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Micros(pub u64);

impl Micros {
    /// Time passed since `earlier`; zero when `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0) / 1000)
    }
}

impl Add<Millis> for Micros {
    type Output = Self;
    fn add(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0.saturating_mul(1000)))
    }
}

impl Sub for Micros {
    type Output = u64;
    /// Microseconds between the two; zero when `earlier` is later.
    fn sub(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0 / 1000;
        write!(f, "{}.{:03}s", millis / 1000, millis % 1000)
    }
}

/// A span of time in milliseconds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// A span of whole seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// The span in seconds.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Reads `250ms`, `2s`, `5m`, `1h` or `2d`.
    ///
    /// ```
    /// # use homeostat_common::units::Millis;
    /// assert_eq!(Millis::parse("1500ms").unwrap(), Millis(1500));
    /// assert_eq!(Millis::parse("30m").unwrap(), Millis::secs(1800));
    /// assert!(Millis::parse("30").is_err());
    /// ```
    ///
    /// # Errors
    /// [`SpanError`] when there is no number, no unit, or too much of it.
    pub fn parse(text: &str) -> Result<Self, SpanError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| SpanError)?;
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(SpanError),
        };
        number.checked_mul(factor).map(Self).ok_or(SpanError)
    }
}

/// A text is not a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number with a unit, such as 250ms, 2s, 5m, 1h or 2d")]
pub struct SpanError;

impl fmt::Display for Millis {
    /// In the largest unit that divides it, so that it reads back exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "0ms"),
            ms if ms % 86_400_000 == 0 => write!(f, "{}d", ms / 86_400_000),
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// A size in bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// A size of `n` mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1 << 30 => write!(f, "{:.1} GiB", n as f64 / f64::from(1 << 30)),
            n if n >= 1 << 20 => write!(f, "{:.1} MiB", n as f64 / f64::from(1 << 20)),
            n if n >= 1 << 10 => write!(f, "{:.1} KiB", n as f64 / f64::from(1 << 10)),
            n => write!(f, "{n} B"),
        }
    }
}

/// A number for the wire, where half the digits are enough.
#[must_use]
pub fn narrow(value: f64) -> f32 {
    #[allow(clippy::cast_possible_truncation)]
    let narrow = value as f32;
    narrow
}

/// A share in `0.0..=1.0`; NaN cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize)]
#[serde(transparent)]
pub struct Ratio(f32);

/// A number is not a share.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a ratio lies in 0.0..=1.0, {0} does not")]
pub struct NotARatio(pub f32);

impl Ratio {
    /// Nothing.
    pub const ZERO: Self = Self(0.0);
    /// All of it.
    pub const ONE: Self = Self(1.0);

    /// # Errors
    /// [`NotARatio`] outside `0.0..=1.0` and for NaN.
    pub fn new(share: f32) -> Result<Self, NotARatio> {
        if (0.0..=1.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err(NotARatio(share))
        }
    }

    /// The nearest share: NaN becomes 0.
    #[must_use]
    pub fn saturating(share: f32) -> Self {
        if share > 0.0 {
            Self(share.min(1.0))
        } else {
            Self(0.0)
        }
    }

    /// The share as a number in `0.0..=1.0`.
    #[must_use]
    pub fn get(self) -> f32 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(f32::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

/// A share in whole percent, for plans: it compares and prints exactly.
///
/// ```
/// # use homeostat_common::units::Percent;
/// let half: Percent = "50%".parse().unwrap();
/// assert_eq!(half.of(90), 45);
/// assert!("101%".parse::<Percent>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Percent(u8);

/// A number or a text is not a share in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a share from 0% to 100%")]
pub struct NotAPercent;

impl Percent {
    /// All of it.
    pub const ALL: Self = Self(100);

    /// # Errors
    /// [`NotAPercent`] above 100.
    pub const fn new(percent: u8) -> Result<Self, NotAPercent> {
        if percent <= 100 {
            Ok(Self(percent))
        } else {
            Err(NotAPercent)
        }
    }

    /// The number, 0 to 100.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }

    /// This share of a whole, rounded down.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        // The quotient first: a product could pass the largest number.
        whole / 100 * u64::from(self.0) + whole % 100 * u64::from(self.0) / 100
    }
}

impl core::str::FromStr for Percent {
    type Err = NotAPercent;
    fn from_str(text: &str) -> Result<Self, NotAPercent> {
        let digits = text.strip_suffix('%').ok_or(NotAPercent)?;
        if digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotAPercent);
        }
        digits.parse().map_err(|_| NotAPercent).and_then(Self::new)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(u8::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// New connections in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PerSecond(u32);

/// Why text is not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a rate from 1/s to {}/s", PerSecond::MAX)]
pub struct NotARate;

impl PerSecond {
    /// More than a node accepts.
    pub const MAX: u32 = 1_000_000;

    /// A rate.
    ///
    /// # Errors
    /// [`NotARate`] for none, and for more than [`Self::MAX`].
    pub fn new(rate: u32) -> Result<Self, NotARate> {
        if (1..=Self::MAX).contains(&rate) {
            Ok(Self(rate))
        } else {
            Err(NotARate)
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl core::str::FromStr for PerSecond {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Self, NotARate> {
        let number = text.strip_suffix("/s").ok_or(NotARate)?;
        Self::new(number.parse().map_err(|_| NotARate)?)
    }
}

impl<'de> Deserialize<'de> for PerSecond {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(u32::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for PerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_percent_reads_back_and_refuses_the_rest() {
        for whole in [0, 1, 7, 99, 100, u64::MAX] {
            assert_eq!(Percent::ALL.of(whole), whole);
        }
        let third: Percent = "33%".parse().unwrap();
        assert_eq!((third.of(10), third.to_string().as_str()), (3, "33%"));
        for wrong in ["", "%", "33", "+3%", "101%", "1000%", "3 %"] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
        }
        assert!(postcard::from_bytes::<Percent>(&[101]).is_err());
    }

    #[test]
    fn spans_print_so_that_they_read_back() {
        for ms in [
            0,
            1,
            999,
            1000,
            61_000,
            120_000,
            3_600_000,
            172_800_000,
            90_061_001,
        ] {
            let span = Millis(ms);
            assert_eq!(Millis::parse(&span.to_string()), Ok(span));
        }
        for wrong in [
            "",
            "s",
            "5",
            "5 s",
            "-1s",
            "1w",
            "99999999999999999999s",
            "213503982334601d",
        ] {
            assert_eq!(Millis::parse(wrong), Err(SpanError), "{wrong}");
        }
    }

    #[test]
    fn a_ratio_is_never_out_of_range_whatever_is_decoded() {
        for wrong in [f32::NAN, -0.1, 1.1, f32::INFINITY] {
            assert!(Ratio::new(wrong).is_err());
            let bytes = postcard::to_allocvec(&wrong).unwrap();
            assert!(postcard::from_bytes::<Ratio>(&bytes).is_err());
        }
        assert_eq!(Ratio::saturating(f32::NAN), Ratio::ZERO);
        assert_eq!(Ratio::saturating(7.0), Ratio::ONE);
    }

    #[test]
    fn a_rate_reads_back_and_is_never_none() {
        assert_eq!("50/s".parse(), PerSecond::new(50));
        assert_eq!(PerSecond::new(50).unwrap().to_string(), "50/s");
        for wrong in ["0/s", "50", "/s", "-1/s", "1000001/s"] {
            assert_eq!(wrong.parse::<PerSecond>(), Err(NotARate), "{wrong}");
        }
    }

    #[test]
    fn time_never_underflows() {
        assert_eq!(Micros(5).since(Micros(9)), Millis(0));
        assert_eq!(Micros(5) - Micros(9), 0);
        assert_eq!(Micros(u64::MAX) + Millis(u64::MAX), Micros(u64::MAX));
    }
}
