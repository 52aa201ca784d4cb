//! The bytes of a segment: a header sector, then frames.
//!
//! ```text
//! header, 64 of the first 512 bytes, little endian
//!   0 magic[8]   8 version u16   10 header length u16   12 body length u32 (compacted: > 0 or covers)
//!  16 stream[16] 32 first u64    40 previous last u64   48 covers u64   56 0 u32   60 crc32 of 0..60
//! frame, at a multiple of 8
//!   0 magic u16  2 kind u8  3 0   4 payload length u32   8 sequence number u64
//!  16 synced u32   20 crc32 of 0..20 and payload, seeded with the header's   24 payload, 0-7 zeros
//! ```
//!
//! `synced` is the end of the last frame known to be on the medium when this one was written. It tells a torn tail from damage: bytes that do not parse are damage only if
//! a later frame says that they had once been synced.
//!
//! After a sync the next frame starts on a new sector, so that a sector torn by a power cut
//! never holds bytes that were synced before. The skipped bytes are zero, and the frame after
//! a skip names in `synced` where they start: otherwise a lost sector would look like a skip.
//!
//! No IO in here, and no allocation that depends on the bytes read.

use super::error::Damage;

pub(super) const SECTOR: u32 = 512;
/// The header has a sector of its own, synced before the first frame is written.
pub(super) const HEADER_BYTES: u32 = SECTOR;
pub(super) const FRAME_BYTES: u32 = 24;
/// Largest payload: fits the largest plan many times over and bounds one read.
pub(super) const PAYLOAD_MAX: usize = 64 * 1024;
/// Numbers above this are taken for damage; leaves room to skip without overflow.
pub(super) const SEQ_MAX: u64 = 1 << 62;

const HEADER_MAGIC: [u8; 8] = *b"HSJRNL\r\n";
const FRAME_MAGIC: u16 = 0xA55E;
const VERSION: u16 = 1;
const HEADER_FIELDS: usize = 64;
/// Bytes checked while looking for intact frames behind damage; a file made to be slow
/// would otherwise cost its size squared.
const RESYNC_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub stream: [u8; 16],
    /// No record in here has a smaller number.
    pub first: u64,
    /// The last record that existed when this file was made; 0 for none.
    pub previous: u64,
    /// `Some` in a compacted file: it stands for all records up to `last`, also those it
    /// left out, and its frames end exactly after `body` bytes.
    pub compacted: Option<Compacted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compacted {
    pub last: u64,
    pub body: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub seq: u64,
    pub kind: u8,
    pub payload: &'a [u8],
    pub synced: u32,
}

pub(super) fn pad(offset: u32, to: u32) -> u32 {
    offset.div_ceil(to) * to
}

/// Bytes a payload takes in a segment.
pub(super) fn frame_len(payload: usize) -> u32 {
    let payload = u32::try_from(payload).unwrap_or(u32::MAX - 2 * SECTOR);
    pad(FRAME_BYTES + payload, 8)
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut out = [0; HEADER_BYTES as usize];
        let compacted = self.compacted.unwrap_or(Compacted { last: 0, body: 0 });
        out[..8].copy_from_slice(&HEADER_MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&512u16.to_le_bytes());
        out[12..16].copy_from_slice(&compacted.body.to_le_bytes());
        out[16..32].copy_from_slice(&self.stream);
        out[32..40].copy_from_slice(&self.first.to_le_bytes());
        out[40..48].copy_from_slice(&self.previous.to_le_bytes());
        out[48..56].copy_from_slice(&compacted.last.to_le_bytes());
        let crc = crc32fast::hash(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Header, Damage> {
        if bytes.is_empty() {
            return Err(Damage::Empty);
        }
        let fields: &[u8; HEADER_FIELDS] = bytes.first_chunk().ok_or(Damage::Header)?;
        if fields[..8] != HEADER_MAGIC || crc32fast::hash(&fields[..60]) != u32_at(fields, 60) {
            return Err(Damage::Header);
        }
        // The sum holds for every version, so a newer file is told from a damaged one.
        let version = u16_at(fields, 8);
        if version != VERSION {
            return Err(Damage::Version(version));
        }
        let mut stream = [0; 16];
        stream.copy_from_slice(&fields[16..32]);
        let last = u64_at(fields, 48);
        let header = Header {
            stream,
            first: u64_at(fields, 32),
            previous: u64_at(fields, 40),
            compacted: (last != 0).then(|| Compacted {
                last,
                body: u32_at(fields, 12),
            }),
        };
        let sane = header.first > header.previous && header.first <= SEQ_MAX && last <= SEQ_MAX;
        if sane {
            Ok(header)
        } else {
            Err(Damage::Header)
        }
    }

    /// Ties frames to this file: one that strayed in from another does not check out.
    pub(super) fn seed(&self) -> u32 {
        crc32fast::hash(&self.encode()[..60])
    }
}

/// Appends one frame to `out`.
pub(super) fn encode(out: &mut Vec<u8>, seed: u32, frame: &Frame<'_>) {
    let start = out.len();
    let len = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    out.extend_from_slice(&[frame.kind, 0]);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&frame.seq.to_le_bytes());
    out.extend_from_slice(&frame.synced.to_le_bytes());
    let crc = checksum(seed, &out[start..], frame.payload);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(frame.payload);
    out.resize(start + frame_len(frame.payload.len()) as usize, 0);
}

/// The frames of one segment in order, as far as they make sense.
#[derive(Debug, Clone)]
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    seed: u32,
    end: u32,
    last: u64,
    done: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(header: &Header, bytes: &'a [u8]) -> Walk<'a> {
        let last = header.first.saturating_sub(1);
        Walk {
            bytes,
            seed: header.seed(),
            end: HEADER_BYTES,
            last,
            done: false,
        }
    }

    /// Where the last good frame ended.
    pub(super) fn end(&self) -> u32 {
        self.end
    }

    fn step(&self) -> Option<(u32, Frame<'a>)> {
        let here = self.end;
        if let Some(frame) = parse(self.bytes, here, self.seed) {
            return Some((here, frame));
        }
        let sector = pad(here, SECTOR);
        let skipped = self.bytes.get(here as usize..sector as usize)?;
        if skipped.is_empty() || skipped.iter().any(|&b| b != 0) {
            return None;
        }
        let frame = parse(self.bytes, sector, self.seed)?;
        (frame.synced == here).then_some((sector, frame))
    }

    /// The highest number among intact frames after the end, if one of them proves that
    /// the bytes at the end had been synced.
    pub(super) fn proof_of_damage(&self) -> Option<u64> {
        let mut budget = RESYNC_BYTES_MAX;
        let mut proven = false;
        let mut highest = 0;
        let mut at = self.end;
        while (at as usize) < self.bytes.len() && budget > 0 {
            let claimed = claimed_len(self.bytes, at);
            budget = budget.saturating_sub(claimed.unwrap_or(0));
            match claimed.and_then(|_| parse(self.bytes, at, self.seed)) {
                Some(frame) => {
                    proven |= frame.synced > self.end;
                    highest = highest.max(frame.seq);
                    at += frame_len(frame.payload.len());
                }
                None => at += 8,
            }
        }
        proven.then_some(highest)
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        if self.done {
            return None;
        }
        match self.step() {
            Some((at, frame)) if frame.seq > self.last && frame.seq <= SEQ_MAX => {
                self.last = frame.seq;
                self.end = at + frame_len(frame.payload.len());
                Some(frame)
            }
            _ => {
                self.done = true;
                None
            }
        }
    }
}

fn claimed_len(bytes: &[u8], at: u32) -> Option<usize> {
    let head: &[u8; FRAME_BYTES as usize] = bytes.get(at as usize..)?.first_chunk()?;
    let len = u32_at(head, 4) as usize;
    (u16_at(head, 0) == FRAME_MAGIC && len <= PAYLOAD_MAX).then_some(len + head.len())
}

fn parse(bytes: &[u8], at: u32, seed: u32) -> Option<Frame<'_>> {
    let whole = claimed_len(bytes, at)?;
    let bytes = bytes.get(at as usize..)?.get(..whole)?;
    let (head, payload) = bytes.split_at_checked(FRAME_BYTES as usize)?;
    if checksum(seed, &head[..20], payload) != u32_at(head, 20) {
        return None;
    }
    Some(Frame {
        seq: u64_at(head, 8),
        kind: head[2],
        payload,
        synced: u32_at(head, 16),
    })
}

fn checksum(seed: u32, head: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(seed);
    crc.update(head);
    crc.update(payload);
    crc.finalize()
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            stream: [7; 16],
            first: 5,
            previous: 4,
            compacted: None,
        }
    }

    fn segment(frames: &[Frame<'_>]) -> Vec<u8> {
        let mut out = header().encode().to_vec();
        for frame in frames {
            if frame.synced > HEADER_BYTES {
                out.resize(pad(frame.synced, SECTOR) as usize, 0);
            }
            encode(&mut out, header().seed(), frame);
        }
        out
    }

    fn frame(seq: u64, synced: u32, payload: &[u8]) -> Frame<'_> {
        Frame {
            seq,
            kind: 1,
            payload,
            synced,
        }
    }

    #[test]
    fn header_round_trips_and_names_a_newer_version() {
        let compacted = Header {
            compacted: Some(Compacted { last: 9, body: 80 }),
            ..header()
        };
        for h in [header(), compacted] {
            assert_eq!(Header::decode(&h.encode()), Ok(h));
        }
        let mut newer = header().encode();
        newer[8] = 9;
        assert_eq!(Header::decode(&newer), Err(Damage::Header));
        let crc = crc32fast::hash(&newer[..60]);
        newer[60..64].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&newer), Err(Damage::Version(9)));
        assert_eq!(Header::decode(&[]), Err(Damage::Empty));
    }

    #[test]
    fn frames_walk_over_a_synced_sector_border() {
        let frames = [
            frame(5, 512, b"a"),
            frame(6, 512, b""),
            frame(7, 568, b"after a sync"),
        ];
        let bytes = segment(&frames);
        let walked: Vec<_> = Walk::new(&header(), &bytes).collect();
        assert_eq!(walked, frames);
    }

    #[test]
    fn a_hole_is_no_skip() {
        let long = vec![3; 512 - 2 * FRAME_BYTES as usize - 8];
        let mut bytes = segment(&[
            frame(5, 512, b"12345678"),
            frame(6, 512, &long),
            frame(7, 512, b"c"),
        ]);
        assert_eq!(Walk::new(&header(), &bytes).count(), 3);
        bytes[512 + 32..1024].fill(0);
        let mut walk = Walk::new(&header(), &bytes);
        assert_eq!(walk.by_ref().count(), 1);
        assert_eq!(walk.proof_of_damage(), None, "never synced, so only torn");
    }

    #[test]
    fn a_later_frame_proves_damage_of_synced_bytes() {
        let mut bytes = segment(&[
            frame(5, 512, b"a"),
            frame(6, 544, b"b"),
            frame(7, 1056, b"c"),
        ]);
        bytes[1024 + 9] ^= 1;
        let mut walk = Walk::new(&header(), &bytes);
        assert_eq!(walk.by_ref().map(|f| f.seq).collect::<Vec<_>>(), [5]);
        assert_eq!(walk.proof_of_damage(), Some(7));
    }
}
