//! Follows a file that another process appends to, copies away and cuts.
//!
//! Bytes per look, line length and backlog are bounded, and what is dropped is counted.
//! Lines written between the last look and a cut are lost with it.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Longest part of a line that is kept: by one more than the miner looks at, so that it cuts
/// between two words.
pub const LINE_MAX: usize = homeostat_templates::LINE_MAX + 1;

/// Further behind than this, the tail skips ahead: the newest lines tell what is wrong
/// now. A few looks' worth at the usual bound.
pub const BACKLOG_MAX: u64 = 256 * 1024;

/// Bytes before the reading position that are compared to notice a file that was cut
/// and has grown past that position since.
const ANCHOR: usize = 16;

/// Bytes per system call.
const CHUNK: usize = 4096;

/// What one look did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Lines given out.
    pub lines: u32,
    /// Bytes read.
    pub bytes: u64,
    /// Lines of which only the first [`LINE_MAX`] bytes were looked at.
    pub cut: u32,
    /// Bytes skipped because the tail had fallen behind.
    pub skipped: u64,
    /// Times the file was cut or replaced.
    pub restarts: u32,
}

/// Follows one file.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    open: Option<Open>,
    /// What is already there when the file is first seen is history.
    from_end: bool,
    splitter: Splitter,
    chunk: Box<[u8]>,
}

#[derive(Debug)]
struct Open {
    file: File,
    device: u64,
    inode: u64,
    offset: u64,
    anchor: [u8; ANCHOR],
    anchored: usize,
}

impl Tail {
    /// Follows `path` from its present end: older lines were judged by a former run.
    /// A file that does not exist yet is read from its start.
    #[must_use]
    pub fn from_end(path: &Path) -> Self {
        let mut tail = Self::from_start(path);
        tail.from_end = path.exists();
        tail
    }

    /// Follows `path` from its start.
    #[must_use]
    pub fn from_start(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            open: None,
            from_end: false,
            splitter: Splitter::default(),
            chunk: vec![0; CHUNK].into(),
        }
    }

    /// The file it follows.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a file.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.open.is_some()
    }

    /// Reads up to `budget` new bytes and gives out the lines that ended in them. A
    /// file that is absent or cannot be read has no lines, nor has what is no file.
    pub fn poll(&mut self, budget: u64, mut each: impl FnMut(&[u8])) -> Tally {
        let mut tally = Tally::default();
        let there = fs::metadata(&self.path).ok();
        let same = |open: &Open| {
            there
                .as_ref()
                .is_some_and(|there| (there.dev(), there.ino()) == (open.device, open.inode))
        };
        if self.open.as_ref().is_some_and(|open| !same(open)) {
            // Moved away: what was appended before that comes first.
            self.read(budget, &mut tally, &mut each);
            if tally.bytes >= budget || there.is_none() {
                return tally;
            }
            self.splitter.end(&mut tally, &mut each);
            self.open = None;
            tally.restarts += 1;
        }
        if self.open.is_none() {
            let Ok(open) = Open::new(&self.path, self.from_end) else {
                return tally;
            };
            self.from_end = false;
            self.open = Some(open);
        }
        if let Some(open) = &mut self.open {
            let size = open.size();
            if size != open.offset && (size < open.offset || open.was_cut()) {
                open.offset = 0;
                open.anchored = 0;
                self.splitter.clear();
                tally.restarts += 1;
            }
            let behind = size.saturating_sub(open.offset);
            if behind > BACKLOG_MAX {
                let skip = behind - budget.min(BACKLOG_MAX);
                open.offset += skip;
                open.anchored = 0;
                tally.skipped += skip;
                self.splitter.clear();
                self.splitter.mid_line = true;
            }
        }
        let left = budget.saturating_sub(tally.bytes);
        self.read(left, &mut tally, &mut each);
        tally
    }

    fn read(&mut self, budget: u64, tally: &mut Tally, each: &mut impl FnMut(&[u8])) {
        let Some(open) = &mut self.open else {
            return;
        };
        let mut left = budget;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let Some(chunk) = self.chunk.get_mut(..want) else {
                return;
            };
            let read = match open.file.read_at(chunk, open.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The end, or a file that cannot be read now: tried anew next time.
                Ok(0) | Err(_) => return,
                Ok(read) => read,
            };
            let bytes = chunk.get(..read).unwrap_or(&[]);
            open.offset += read as u64;
            open.remember(bytes);
            left -= read as u64;
            tally.bytes += read as u64;
            self.splitter.feed(bytes, tally, each);
        }
    }
}

impl Open {
    fn new(path: &Path, at_end: bool) -> io::Result<Self> {
        // A pipe without a writer would be waited for, and has no place to read on from.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self {
            file,
            device: about.dev(),
            inode: about.ino(),
            offset: if at_end { about.len() } else { 0 },
            anchor: [0; ANCHOR],
            anchored: 0,
        })
    }

    /// The size, or the reading position if it cannot be told.
    fn size(&self) -> u64 {
        self.file
            .metadata()
            .map_or(self.offset, |about| about.len())
    }

    /// Keeps the last bytes before the reading position.
    fn remember(&mut self, bytes: &[u8]) {
        let last = bytes
            .get(bytes.len().saturating_sub(ANCHOR)..)
            .unwrap_or(bytes);
        if let Some(anchor) = self.anchor.get_mut(..last.len()) {
            anchor.copy_from_slice(last);
            self.anchored = last.len();
        }
    }

    /// Whether other bytes stand before the reading position than were read there.
    fn was_cut(&self) -> bool {
        let mut there = [0; ANCHOR];
        let (Some(there), Some(anchor)) = (
            there.get_mut(..self.anchored),
            self.anchor.get(..self.anchored),
        ) else {
            return false;
        };
        let from = self.offset.saturating_sub(self.anchored as u64);
        self.file.read_exact_at(there, from).is_ok() && there != anchor
    }
}

/// Makes lines of bytes.
#[derive(Debug, Default)]
struct Splitter {
    /// The line so far, at most [`LINE_MAX`] bytes of it.
    line: Vec<u8>,
    /// Bytes of the line so far did not fit.
    overlong: bool,
    /// Starts in the middle of a line, which is not to be given out.
    mid_line: bool,
}

impl Splitter {
    fn feed(&mut self, bytes: &[u8], tally: &mut Tally, each: &mut impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let content = part.strip_suffix(b"\n").unwrap_or(part);
            let room = LINE_MAX - self.line.len().min(LINE_MAX);
            let fits = content.get(..room.min(content.len())).unwrap_or(&[]);
            self.line.extend_from_slice(fits);
            self.overlong |= fits.len() < content.len();
            if content.len() < part.len() {
                self.end(tally, each);
            }
        }
    }

    /// The line is complete.
    fn end(&mut self, tally: &mut Tally, each: &mut impl FnMut(&[u8])) {
        let blank = self.line.iter().all(u8::is_ascii_whitespace);
        if !blank && !self.mid_line {
            tally.lines += 1;
            tally.cut += u32::from(self.overlong);
            each(&self.line);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.line.clear();
        self.overlong = false;
        self.mid_line = false;
    }
}
