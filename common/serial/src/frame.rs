//! Messages as frames on a line of bytes that may be lost, changed or added.
//!
//! ```text
//! 00  COBS( version | message in postcard | CRC-32, least byte first )  00
//! ```
//!
//! COBS (Cheshire and Baker 1999) leaves no zero inside a frame, so a zero always means a
//! border. Each frame has one at both ends: garbage before a good frame ends at that frame's
//! first zero, and the frame is read. The CRC (IEEE 802.3) covers the version too; random
//! bytes pass it once in 4e9 frames. A frame too long for the buffer is dropped whole.
//!
//! The message codec is postcard 1.x: integers as varints, enums by their place, floats as
//! four bytes, least first. Golden frames are in `tests/golden.rs`.

use heapless::Vec;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What both ends must agree on; a frame of another version is bad.
pub const VERSION: u8 = 1;

/// Longest message in postcard. The longest there is, a health report with every count at
/// its greatest, takes 54 bytes; below 249, so that a frame is one COBS block or few.
pub const MESSAGE_MAX: usize = 64;

/// Bytes of the CRC.
const CRC: usize = 4;

/// Longest content of a frame.
const CONTENT_MAX: usize = 1 + MESSAGE_MAX + CRC;

/// Longest frame: content, one code byte, a zero at both ends.
pub const FRAME_MAX: usize = CONTENT_MAX + 3;

/// A frame, ready to be sent.
pub type Frame = Vec<u8, FRAME_MAX>;

/// Why a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Longer than any frame of ours.
    Long,
    /// Not COBS, or too short to hold a version and a CRC.
    Form,
    /// The CRC is another one: some byte was changed, lost or added.
    Crc,
    /// Whole, but of another version of this protocol.
    Version,
    /// Whole, but no message that this end understands.
    Message,
}

/// The message as a frame; `None` if it is longer than [`MESSAGE_MAX`].
///
/// ```
/// # use homeostat_serial::frame::{Decoder, encode};
/// let frame = encode(&(7_u8, 1.5_f32)).unwrap();
/// let mut decoder = Decoder::new();
/// let read: Vec<_> = frame.iter().filter_map(|byte| decoder.push::<(u8, f32)>(*byte)).collect();
/// assert_eq!(read, [Ok((7, 1.5))]);
/// ```
#[must_use]
pub fn encode(message: &impl Serialize) -> Option<Frame> {
    let mut content = [0; CONTENT_MAX];
    let (first, rest) = content.split_first_mut()?;
    *first = VERSION;
    let room = rest.get_mut(..MESSAGE_MAX)?;
    let length = 1 + postcard::to_slice(message, room).ok()?.len();
    let sum = crc32(content.get(..length)?).to_le_bytes();
    content.get_mut(length..length + CRC)?.copy_from_slice(&sum);
    wrap(content.get(..length + CRC)?)
}

/// COBS between two zeros. The content is shorter than 254 bytes: one block after another,
/// each ended by the zero that it stands for.
fn wrap(content: &[u8]) -> Option<Frame> {
    let mut frame = Frame::new();
    frame.push(0).ok()?;
    for block in content.split(|byte| *byte == 0) {
        frame.push(u8::try_from(block.len() + 1).ok()?).ok()?;
        frame.extend_from_slice(block).ok()?;
    }
    frame.push(0).ok()?;
    Some(frame)
}

/// Reads frames from bytes as they come.
#[derive(Debug, Clone)]
pub struct Decoder {
    content: Vec<u8, CONTENT_MAX>,
    /// Bytes until the next code; 0: the next byte is one.
    left: u8,
    /// The block that runs stands for a zero after it, unless the frame ends there.
    zero: bool,
    /// What is wrong with the frame that runs; its end is awaited.
    bad: Option<Bad>,
    /// Anything came since the last border.
    begun: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// One that has read nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            content: Vec::new(),
            left: 0,
            zero: false,
            bad: None,
            begun: false,
        }
    }

    /// Takes a byte; says something when it ends a frame. Nothing between two zeros is nothing.
    pub fn push<M: DeserializeOwned>(&mut self, byte: u8) -> Option<Result<M, Bad>> {
        if byte != 0 {
            self.add(byte);
            return None;
        }
        let read = self.begun.then(|| self.read());
        self.content.clear();
        (self.left, self.zero, self.bad, self.begun) = (0, false, None, false);
        read
    }

    fn add(&mut self, byte: u8) {
        self.begun = true;
        if self.bad.is_some() {
            return;
        }
        let full = if self.left > 0 {
            self.left -= 1;
            self.content.push(byte).is_err()
        } else {
            let full = self.zero && self.content.push(0).is_err();
            self.left = byte - 1;
            self.zero = byte < u8::MAX;
            full
        };
        if full {
            self.bad = Some(Bad::Long);
        }
    }

    fn read<M: DeserializeOwned>(&self) -> Result<M, Bad> {
        if let Some(bad) = self.bad {
            return Err(bad);
        }
        if self.left > 0 {
            return Err(Bad::Form);
        }
        let (checked, sum) = self.content.split_last_chunk::<CRC>().ok_or(Bad::Form)?;
        let (version, message) = checked.split_first().ok_or(Bad::Form)?;
        if crc32(checked).to_le_bytes() != *sum {
            return Err(Bad::Crc);
        }
        if *version != VERSION {
            return Err(Bad::Version);
        }
        match postcard::take_from_bytes(message) {
            Ok((message, [])) => Ok(message),
            _ => Err(Bad::Message),
        }
    }
}

/// CRC-32 of IEEE 802.3, four bits at a time: 64 bytes of table instead of a kilobyte.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = table();
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..2 {
            crc = (crc >> 4) ^ TABLE[(crc & 15) as usize];
        }
    }
    !crc
}

const fn table() -> [u32; 16] {
    let mut table = [0; 16];
    let mut nibble = 0_u32;
    while nibble < 16 {
        let mut crc = nibble;
        let mut bit = 0;
        while bit < 4 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xEDB8_8320
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[nibble as usize] = crc;
        nibble += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec as List;

    type Message = (u16, List<u8>);

    fn read(decoder: &mut Decoder, bytes: &[u8]) -> List<Result<Message, Bad>> {
        bytes
            .iter()
            .filter_map(|byte| decoder.push::<(u16, Vec<u8, 60>)>(*byte))
            .map(|read| read.map(|(number, rest)| (number, rest.to_vec())))
            .collect()
    }

    #[test]
    fn an_empty_line_says_nothing() {
        assert_eq!(read(&mut Decoder::new(), &[0; 9]), []);
    }

    #[test]
    fn each_kind_of_damage_has_its_name() {
        let good = encode(&(7_u16, [1_u8, 0, 2].as_slice())).unwrap();
        let with = |at: usize, byte: u8| {
            let mut frame = good.clone();
            frame[at] = byte;
            read(&mut Decoder::new(), &frame)
        };
        assert_eq!(
            read(&mut Decoder::new(), &good),
            [Ok((7, [1, 0, 2].into()))]
        );
        assert_eq!(with(2, 9), [Err(Bad::Crc)]);
        assert_eq!(with(1, 200), [Err(Bad::Form)]);
        assert_eq!(read(&mut Decoder::new(), &[0, 1, 1, 0]), [Err(Bad::Form)]);
        assert_eq!(read(&mut Decoder::new(), &[255; 99]), []);
        let mut decoder = Decoder::new();
        read(&mut decoder, &[255; 99]);
        assert_eq!(read(&mut decoder, &[0]), [Err(Bad::Long)]);

        let mut other = [2, 7, 0, 0, 0, 0, 0];
        let sum = crc32(&other[..3]).to_le_bytes();
        other[3..].copy_from_slice(&sum);
        assert_eq!(
            read(&mut Decoder::new(), &wrap(&other).unwrap()),
            [Err(Bad::Version)]
        );
        assert_eq!(
            read(&mut Decoder::new(), &encode(&7_u8).unwrap()),
            [Err(Bad::Message)]
        );
    }

    #[test]
    fn a_message_too_long_gives_no_frame() {
        assert!(encode(&[7_u8; MESSAGE_MAX].as_slice()).is_none());
        assert!(encode(&[7_u8; MESSAGE_MAX - 1].as_slice()).is_some());
        assert!(encode(&[0_u8; MESSAGE_MAX - 1].as_slice()).is_some());
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_ieee_802_3(bytes: List<u8>) {
            prop_assert_eq!(crc32(&bytes), crc32fast::hash(&bytes));
        }

        #[test]
        fn whatever_came_before_the_next_good_frame_is_read(
            garbage: List<u8>,
            number: u16,
            rest in proptest::collection::vec(any::<u8>(), 0..58),
        ) {
            let frame = encode(&(number, rest.as_slice())).unwrap();
            prop_assert!(!frame[1..frame.len() - 1].contains(&0));
            let mut decoder = Decoder::new();
            read(&mut decoder, &garbage);
            prop_assert_eq!(read(&mut decoder, &frame).pop(), Some(Ok((number, rest))));
        }

        #[test]
        fn a_frame_with_one_byte_changed_is_never_taken(
            number: u16,
            rest in proptest::collection::vec(any::<u8>(), 0..58),
            at: proptest::sample::Index,
            other in 1..=255_u8,
        ) {
            let mut frame = encode(&(number, rest.as_slice())).unwrap();
            let at = 1 + at.index(frame.len() - 2);
            frame[at] ^= other;
            prop_assert!(read(&mut Decoder::new(), &frame).iter().all(Result::is_err));
        }
    }
}
