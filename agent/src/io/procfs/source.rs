//! One file of the kernel, kept open, and one value that may fall silent.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use homeostat_common::observation::Reading;
use homeostat_common::units::{Micros, Millis};
use rustix::io::{Errno, pread};

/// Longest text that is read of one file. All that is wanted stands at the front,
/// but for the interfaces of `net/dev`: 60 of them fit.
pub(super) const TEXT_MAX: usize = 8 * 1024;

/// Why there is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoText {
    /// The file does not exist, or no longer.
    Absent,
    /// It holds something that is not text.
    Garbage,
}

/// A file that is read again and again by `pread`: a third of the cost of opening it
/// each time.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    file: Option<File>,
}

impl Source {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: File::open(path).ok(),
        }
    }

    pub(super) fn read<'b>(&mut self, buffer: &'b mut [u8]) -> Result<&'b str, NoText> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let file = self.file.as_ref().ok_or(NoText::Absent)?;
        let read = loop {
            match pread(file, &mut *buffer, 0) {
                Err(Errno::INTR) => {}
                read => break read,
            }
        };
        let Ok(len) = read else {
            // The process is gone, or the file was replaced: tried anew next time.
            self.file = None;
            return Err(NoText::Absent);
        };
        let text = buffer.get(..len).ok_or(NoText::Garbage)?;
        // A text cut by the buffer loses its last, partial line.
        let whole = if len == buffer.len() {
            text.iter().rposition(|b| *b == b'\n').unwrap_or(0)
        } else {
            len
        };
        text.get(..whole)
            .and_then(|text| std::str::from_utf8(text).ok())
            .ok_or(NoText::Garbage)
    }
}

/// The text of a file that is read once, or rarely; nothing of what is longer than `max`.
pub(super) fn text_up_to(path: &Path, max: usize) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    let length = file.take(max as u64 + 1).read_to_string(&mut text);
    length.ok().filter(|length| *length <= max)?;
    Some(text)
}

/// The same of a small one.
pub(super) fn small(path: &Path) -> Option<String> {
    text_up_to(path, TEXT_MAX)
}

/// Turns values that come or do not into readings that say so.
#[derive(Debug, Clone)]
pub(super) struct Memory<T>(Option<(T, Micros)>);

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy> Memory<T> {
    pub(super) fn reading(&mut self, now: Micros, value: Option<T>) -> Reading<T> {
        if let Some(value) = value {
            self.0 = Some((value, now));
            return Reading::Fresh(value);
        }
        match self.0 {
            Some((last, at)) => Reading::Stale {
                last,
                age: now.since(at),
            },
            None => Reading::Missing,
        }
    }
}

/// A counter's growth over less is chance: the share of a millisecond in which somebody
/// waited for a core is 0 or 1, whatever the node is like.
pub(super) const SPAN_MIN: Millis = Millis(20);

/// A counter's growth per second of wall time; needs two samples.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rate {
    last: Option<(u64, Micros)>,
    rate: Option<f64>,
}

impl Rate {
    /// Growth per second, in the counter's unit. `None` for the first sample, after a
    /// gap, and when the counter stepped back. Sooner than [`SPAN_MIN`] after the last
    /// one it says the same again.
    pub(super) fn per_second(&mut self, now: Micros, counter: Option<u64>) -> Option<f64> {
        let Some(counter) = counter else {
            *self = Self::default();
            return None;
        };
        if let Some((last, at)) = self.last
            && counter >= last
            && now.since(at) < SPAN_MIN
        {
            return self.rate;
        }
        let before = self.last.replace((counter, now));
        self.rate = before.and_then(|(last, at)| {
            let micros = now.0.checked_sub(at.0).filter(|micros| *micros > 0)?;
            Some(counter.checked_sub(last)? as f64 * 1e6 / micros as f64)
        });
        self.rate
    }
}
