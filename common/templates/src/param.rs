//! The parts of a line that vary, as typed values. Read when they are asked for: most lines
//! are only counted.

use core::net::{IpAddr, SocketAddr};

use crate::hash_bytes;
use crate::lex::Span;

/// A part of a line that varies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Param {
    /// A decimal number, with its unit if it has one.
    Number(f64),
    /// A hexadecimal number.
    Hex(u64),
    /// An address, without its port.
    Ip(IpAddr),
    /// The hash of a path or URL. Hashes are not salted: who can guess a path can tell that
    /// it was logged.
    Path(u64),
    /// The hash of anything else: a UUID, a mail address, a host name.
    Text(u64),
}

/// The values of a line, in order.
#[derive(Debug, Clone)]
pub struct Params<'l> {
    line: &'l [u8],
    spans: core::slice::Iter<'l, Span>,
}

impl<'l> Params<'l> {
    pub(crate) fn new(line: &'l [u8], spans: &'l [Span]) -> Self {
        Self {
            line,
            spans: spans.iter(),
        }
    }
}

impl Iterator for Params<'_> {
    type Item = Param;

    fn next(&mut self) -> Option<Param> {
        let (from, to) = *self.spans.next()?;
        let word = self.line.get(from as usize..to as usize).unwrap_or(&[]);
        Some(read(word))
    }
}

fn read(word: &[u8]) -> Param {
    let text = core::str::from_utf8(word).unwrap_or("");
    let first = word.first().copied().unwrap_or(0);
    if matches!(first, b'/' | b'~') || text.starts_with("./") || text.starts_with("../") {
        return Param::Path(hash_bytes(word));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Param::Ip(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Param::Ip(address.ip());
    }
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let bare = word.len() >= 8
        && word.iter().all(u8::is_ascii_hexdigit)
        && word.iter().any(u8::is_ascii_alphabetic);
    if let Some(digits) = hex.or_else(|| bare.then_some(text))
        && let Ok(number) = u64::from_str_radix(digits, 16)
    {
        return Param::Hex(number);
    }
    let signed = matches!(first, b'0'..=b'9' | b'-' | b'+' | b'.');
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+');
    let end = text.find(|c| !numeric(c)).unwrap_or(text.len());
    let unit = text.get(end..).unwrap_or("");
    let is_unit = unit.chars().count() <= 5
        && unit
            .chars()
            .all(|c| c.is_alphabetic() || matches!(c, '%' | '/'));
    match text.get(..end).map(str::parse) {
        Some(Ok(number)) if signed && is_unit && f64::is_finite(number) => Param::Number(number),
        _ => text
            .parse()
            .ok()
            .filter(|number: &f64| signed && number.is_finite())
            .map_or_else(|| Param::Text(hash_bytes(word)), Param::Number),
    }
}
