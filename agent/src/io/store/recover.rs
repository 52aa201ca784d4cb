//! Reads what is there when the journal opens, and puts right what can be.
//!
//! In: a directory. Out: the readable segments in order, the next sequence number, findings.
//! Old segments are never appended to again, so opening needs no care about what a torn tail
//! left behind: it is cut, and the next record goes to a new file.
//!
//! A segment is whole if its last record is the one that the next segment's header names as
//! its predecessor. Where the successor is missing that cannot be told. In the newest, bytes
//! that do not parse are a torn tail unless a later frame proves that they had been synced. A damaged file gets a second
//! name for a person to look at (`*.damaged-N`) and is replaced by what was readable before
//! the damage. If that fails, for want of space or on a read-only card, the file stays and
//! only its good part is used.

use std::io;

use super::disk::Dir;
use super::error::{Damage, Error, Finding, Lost, Result};
use super::frame::{self, Compacted, Frame, HEADER_BYTES, Header, SECTOR, SEQ_MAX, Walk};
use super::journal::{KIND_CLOSE, Limits, SEGMENT_BYTES_MAX, UNSYNCED_MAX};

/// More records than any segment holds: how far numbers jump past one that is unreadable.
const SEGMENT_RECORDS_MAX: u64 = 1 << 18;
/// Findings kept; a disk with more of them is beyond describing.
const FINDINGS_MAX: usize = 64;

/// One readable file.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub name: String,
    pub header: Header,
    /// The last record it stands for.
    pub last: u64,
    /// Frames end here.
    pub end: u32,
    /// Bytes taken on disk.
    pub size: u64,
}

impl Segment {
    /// The frames that count, out of the bytes of the file.
    pub(super) fn frames<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = Frame<'a>> {
        let last = self.last;
        let bytes = bytes.get(..self.end as usize).unwrap_or(bytes);
        Walk::new(&self.header, bytes).take_while(move |f| f.seq <= last)
    }
}

#[derive(Debug, Default)]
pub(super) struct Found {
    pub segments: Vec<Segment>,
    pub stream: Option<[u8; 16]>,
    /// The last record known to have existed.
    pub last: u64,
    pub next: u64,
    pub records: u64,
    /// Numbers that may have been given out and hold no readable record.
    pub unaccounted: u64,
    pub unsynced: u64,
    pub findings: Vec<Finding>,
}

pub(super) fn segment_name(first: u64) -> String {
    format!("{first:016x}.seg")
}

fn first_of(name: &str) -> Option<u64> {
    let first = u64::from_str_radix(name.get(..16)?, 16).ok()?;
    (1..=SEQ_MAX).contains(&first).then_some(first)
}

/// The N of `*.damaged-N`.
fn damaged_number(name: &str) -> Option<u32> {
    name.split_once(".damaged-")?.1.parse().ok()
}

pub(super) fn damaged_bytes(names: &[(String, u64)]) -> u64 {
    names
        .iter()
        .filter(|(n, _)| damaged_number(n).is_some())
        .map(|(_, size)| size)
        .sum()
}

pub(super) fn recover(dir: &Dir, limits: &Limits) -> Result<Found> {
    let names = dir.list()?;
    for (name, _) in names.iter().filter(|(n, _)| n.ends_with(".tmp")) {
        let _ = dir.remove(name);
    }
    let mut pass = Pass {
        dir,
        found: Found::default(),
        damaged: names
            .iter()
            .filter_map(|(n, _)| damaged_number(n))
            .max()
            .unwrap_or(0),
        lost: 0,
        closed: true,
    };
    let candidates = pass.headers(&names);
    let newest = candidates
        .iter()
        .filter(|c| c.header.is_ok())
        .map(|c| c.first)
        .max();
    for (i, candidate) in candidates.iter().enumerate() {
        // Not one whose records this file stands for: its removal was lost in a power cut, and
        // its header says nothing about where this one ends.
        let stands_for = candidate.header.as_ref().ok().and_then(|h| h.compacted);
        let next = candidates
            .iter()
            .skip(i + 1)
            .filter_map(|c| c.header.as_ref().ok())
            .find(|next| stands_for.is_none_or(|c| next.first > c.last));
        pass.take(candidate, next);
    }
    pass.number(&names, newest);
    pass.found.findings.truncate(FINDINGS_MAX);
    if let Err(e) = prune_damaged(dir, limits) {
        pass.cannot("*.damaged-*", &e);
    }
    Ok(pass.found)
}

/// Keeps the newest few files that were set aside, and no more than was planned for.
fn prune_damaged(dir: &Dir, limits: &Limits) -> Result<()> {
    let mut set_aside: Vec<_> = dir
        .list()?
        .into_iter()
        .filter_map(|(name, size)| Some((damaged_number(&name)?, name, size)))
        .collect();
    set_aside.sort();
    let mut room = limits.damaged_kept as u64 * u64::from(limits.segment_bytes);
    for (kept, (_, name, size)) in set_aside.iter().rev().enumerate() {
        match room.checked_sub(*size) {
            Some(left) if kept < limits.damaged_kept => room = left,
            _ => dir.remove(name)?,
        }
    }
    Ok(())
}

struct Candidate {
    name: String,
    first: u64,
    size: u64,
    header: std::result::Result<Header, Damage>,
}

struct Pass<'a> {
    dir: &'a Dir,
    found: Found,
    damaged: u32,
    lost: u64,
    /// The newest segment ends in a close record.
    closed: bool,
}

impl Pass<'_> {
    fn headers(&mut self, names: &[(String, u64)]) -> Vec<Candidate> {
        let mut out: Vec<Candidate> = Vec::new();
        for (name, size) in names.iter().filter(|(n, _)| n.ends_with(".seg")) {
            let Some(first) = first_of(name).filter(|f| segment_name(*f) == *name) else {
                continue;
            };
            let (bytes, failed) = self.dir.read(name, HEADER_BYTES);
            let header = match (Header::decode(&bytes), failed) {
                (Ok(header), _) if header.first == first => Ok(header),
                (Ok(_), _) => Err(Damage::Header),
                (Err(_), Some(e)) => Err(Damage::Unreadable(e.kind())),
                (Err(damage), None) => Err(damage),
            };
            out.push(Candidate {
                name: name.clone(),
                first,
                size: *size,
                header,
            });
        }
        self.found.stream = out
            .iter()
            .rev()
            .find_map(|c| c.header.as_ref().ok())
            .map(|h| h.stream);
        for candidate in &mut out {
            if candidate
                .header
                .as_ref()
                .is_ok_and(|h| Some(h.stream) != self.found.stream)
            {
                candidate.header = Err(Damage::Stream);
            }
        }
        if self.found.stream.is_none() && !out.is_empty() {
            self.found.findings.push(Finding::NewStream);
        }
        out
    }

    fn take(&mut self, candidate: &Candidate, next: Option<&Header>) {
        let header = match &candidate.header {
            Ok(header) => *header,
            Err(damage) => return self.unreadable(candidate, damage.clone(), next),
        };
        let previous = self.found.segments.last();
        if previous
            .and_then(|s| s.header.compacted)
            .is_some_and(|c| c.last >= header.first)
        {
            // A merge was cut short after it had replaced this file's records.
            let _ = self.dir.remove(&candidate.name);
            return;
        }
        if previous.is_some() && header.previous > self.found.last {
            self.gap(self.found.last + 1, header.previous);
            self.stand_in(&header);
        }
        self.found.last = self.found.last.max(header.previous);
        self.read(candidate, header, next);
    }

    fn read(&mut self, candidate: &Candidate, header: Header, next: Option<&Header>) {
        let (bytes, failed) = self.dir.read(&candidate.name, SEGMENT_BYTES_MAX);
        let limit = next.map_or(SEQ_MAX, |n| n.previous);
        let mut walk = Walk::new(&header, &bytes);
        let (mut last, mut end, mut records, mut closed) =
            (header.previous, HEADER_BYTES, 0, false);
        while let Some(frame) = walk.next() {
            if frame.seq > limit {
                break;
            }
            (last, end, closed) = (frame.seq, walk.end(), frame.kind == KIND_CLOSE);
            records += 1;
        }
        let tail = bytes.get(end as usize..).unwrap_or_default();
        let torn = tail
            .iter()
            .rposition(|&b| b != 0)
            .map_or(0, |at| at as u64 + 1);
        let (whole, should_reach) = match header.compacted {
            Some(c) => (end == HEADER_BYTES.saturating_add(c.body), c.last),
            None if last >= limit => (true, last),
            None => match walk.proof_of_damage() {
                Some(highest) => (false, highest.max(last)),
                // A sealed file was synced to its end, so what is there must make sense.
                None => (failed.is_none() && (next.is_none() || torn == 0), last),
            },
        };
        let should_reach = if whole {
            should_reach
        } else {
            should_reach.max(header.first)
        };
        let segment = Segment {
            name: candidate.name.clone(),
            header,
            last: should_reach,
            end,
            size: candidate.size,
        };
        self.found.records += records;
        self.closed = closed && whole && torn == 0;
        if whole {
            self.cut(segment, torn, next.is_none());
        } else {
            let why = failed.map_or(Damage::Frame { offset: end }, |e| {
                Damage::Unreadable(e.kind())
            });
            self.salvage(segment, &bytes, why, records);
            if should_reach > last {
                self.gap(last + 1, should_reach);
            }
        }
        self.found.last = self.found.last.max(should_reach);
    }

    /// Frees what was reserved and not used, and makes what was read last.
    fn cut(&mut self, mut segment: Segment, torn: u64, newest: bool) {
        if newest && torn > 0 {
            let file = segment.name.clone();
            self.found
                .findings
                .push(Finding::TornTail { file, bytes: torn });
        }
        // On a sector border, so that no sector with synced bytes is written again.
        let cut_at = frame::pad(segment.end, SECTOR);
        let excess = segment.size > u64::from(cut_at);
        if excess || newest {
            let done = self.dir.open_write(&segment.name).and_then(|file| {
                if excess {
                    file.truncate(cut_at)?;
                }
                file.sync()
            });
            match done {
                Ok(()) if excess => segment.size = u64::from(cut_at),
                Ok(()) => {}
                Err(e) => self.cannot(&segment.name, &e),
            }
        }
        self.found.segments.push(segment);
    }

    /// Replaces a damaged segment by its readable beginning.
    fn salvage(&mut self, segment: Segment, bytes: &[u8], why: Damage, kept: u64) {
        let to = self.set_aside(&segment.name, true);
        self.report(&segment.name, to, why, kept);
        let header = Header {
            compacted: None,
            previous: segment.header.previous,
            first: segment.header.first,
            stream: segment.header.stream,
        };
        let frames = Walk::new(&segment.header, bytes).take(usize::try_from(kept).unwrap_or(0));
        match write_compacted(self.dir, header, segment.last, frames) {
            Ok(replacement) => self.found.segments.push(replacement),
            Err(e) => {
                self.cannot(&segment.name, &e);
                self.found.segments.push(segment);
            }
        }
    }

    /// A file whose header tells nothing.
    fn unreadable(&mut self, candidate: &Candidate, why: Damage, next: Option<&Header>) {
        let to = self.set_aside(&candidate.name, false);
        self.report(&candidate.name, to, why, 0);
        self.closed = false;
        let Some(next) = next.filter(|n| n.previous >= candidate.first) else {
            return;
        };
        self.gap(candidate.first, next.previous);
        self.found.last = self.found.last.max(next.previous);
        self.stand_in(next);
    }

    /// Lets an empty file stand for lost records, so that they are reported only once.
    fn stand_in(&mut self, next: &Header) {
        let Some(before) = self.found.segments.last() else {
            return;
        };
        let first = before.last.max(before.header.first) + 1;
        if first > next.previous {
            return;
        }
        let header = Header {
            first,
            previous: before.last,
            ..*next
        };
        match write_compacted(self.dir, header, next.previous, std::iter::empty()) {
            Ok(stand_in) => self.found.segments.push(stand_in),
            Err(e) => self.cannot("stand-in", &e),
        }
    }

    /// Gives the file a name that is never read again; with `keep` the old name stays too,
    /// so that a crash before the replacement is in place loses nothing.
    fn set_aside(&mut self, name: &str, keep: bool) -> Option<String> {
        self.damaged = self.damaged.saturating_add(1);
        let to = format!("{name}.damaged-{}", self.damaged);
        let done = match keep.then(|| self.dir.link(name, &to)) {
            Some(Ok(())) => Ok(()),
            // Some file systems have no second names.
            Some(Err(_)) | None => self.dir.rename(name, &to),
        };
        match done.and_then(|()| self.dir.sync()) {
            Ok(()) => Some(to),
            Err(e) => {
                self.cannot(name, &e);
                None
            }
        }
    }

    fn report(&mut self, file: &str, to: Option<String>, why: Damage, kept: u64) {
        self.found.findings.push(Finding::SetAside {
            file: file.to_string(),
            to,
            why,
            kept,
        });
    }

    fn cannot(&mut self, file: &str, error: &Error) {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        let error = format!("{error}: {}", cause.unwrap_or_default());
        self.found.findings.push(Finding::CannotRepair {
            file: file.to_string(),
            error,
        });
    }

    fn gap(&mut self, first: u64, last: u64) {
        self.lost = self
            .lost
            .saturating_add(last.saturating_sub(first).saturating_add(1));
        self.found
            .findings
            .push(Finding::Lost(Lost { first, last }));
    }

    /// No number is given out twice, whatever is missing: after a crash those of unsynced
    /// records are skipped, after an unreadable file all that it can have held.
    fn number(&mut self, names: &[(String, u64)], newest: Option<u64>) {
        let last = self.found.last;
        let mut next = last.max(newest.map_or(0, |n| n - 1)) + 1;
        if !self.closed {
            next += UNSYNCED_MAX as u64 + 1;
            self.found.unsynced = UNSYNCED_MAX as u64 + 1;
        }
        let gone = names
            .iter()
            .filter_map(|(n, _)| first_of(n))
            .max()
            .unwrap_or(0);
        if gone > newest.unwrap_or(0) {
            next = next.max(gone + SEGMENT_RECORDS_MAX);
        }
        self.found.next = next;
        self.found.unaccounted = self.lost.saturating_add(next - last - 1);
    }
}

/// Writes a finished file under a temporary name, then lets it take the place of the one
/// that starts with `header.first`.
pub(super) fn write_compacted<'a>(
    dir: &Dir,
    header: Header,
    last: u64,
    frames: impl Iterator<Item = Frame<'a>> + Clone,
) -> Result<Segment> {
    let length: u32 = frames
        .clone()
        .map(|f| frame::frame_len(f.payload.len()))
        .sum();
    let header = Header {
        compacted: Some(Compacted { last, body: length }),
        ..header
    };
    let mut bytes = header.encode().to_vec();
    for frame in frames {
        frame::encode(
            &mut bytes,
            header.seed(),
            &Frame {
                synced: HEADER_BYTES,
                ..frame
            },
        );
    }
    let name = segment_name(header.first);
    let temporary = format!("{name}.tmp");
    let written = dir.create(&temporary).and_then(|file| {
        file.write_at(0, &bytes)?;
        file.sync()
    });
    if let Err(e) = written.and_then(|()| dir.rename(&temporary, &name)) {
        let _ = dir.remove(&temporary);
        return Err(e);
    }
    dir.sync()?;
    let end = HEADER_BYTES + length;
    Ok(Segment {
        name,
        header,
        last,
        end,
        size: u64::from(end),
    })
}

/// A new random stream id.
pub(super) fn mint_stream(dir_path: &std::path::Path) -> Result<[u8; 16]> {
    let mut stream = [0u8; 16];
    let got = rustix::rand::getrandom(&mut stream, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::new("draw a stream id for", dir_path, e))?;
    if got == stream.len() {
        Ok(stream)
    } else {
        let short = io::Error::from(io::ErrorKind::UnexpectedEof);
        Err(Error::new("draw a stream id for", dir_path, short))
    }
}
