//! What a spawner must remember to take over from one that was killed: which
//! process is which instance, and which instances were ever minted.
//!
//! A text file, replaced by rename, so a reader finds the old or the new one
//! and never a part. It is not synced to the disk: what it says is only true
//! within one boot of the kernel, and what a process wrote survives that
//! process without any sync. `run_dir` should be a tmpfs, where a write costs
//! some ten microseconds.
//!
//! An entry counts only when boot id, pid and start time agree with `/proc`:
//! within a boot no two processes share both numbers.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use homeostat_common::ids::{BootId, Instance, ServiceId};

use super::owner::Handle;
use super::protocol::SLOTS_MAX;

const HEADER: &str = "homeostat-slots 2";
/// Largest file that is read; [`SLOTS_MAX`] lines with the longest
/// names that owners have need some 100 KiB.
const FILE_MAX: u64 = 256 * 1024;
/// Instances reserved in one write, so that a start need not wait for one.
const RESERVE: u64 = 64;

/// A running instance, so that it can be found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) service: ServiceId,
    pub(super) instance: Instance,
    pub(super) pid: u32,
    /// Start of the process in clock ticks since boot.
    pub(super) start: u64,
    /// What its owner calls it, if the spawner was not its parent.
    pub(super) handle: Option<Handle>,
}

/// The file and what the spawner knows about its contents.
#[derive(Debug)]
pub(super) struct State {
    file: PathBuf,
    boot: BootId,
    next: u64,
    /// All below this count as used when the file is read again.
    reserved: u64,
    /// As the file had it when it was opened.
    last: Instance,
}

impl State {
    /// Opens the state in `folder`. Entries of another boot are dropped, and a
    /// file that cannot be read counts as absent: instances then start above
    /// what `/proc` shows, see [`Self::skip`].
    pub(super) fn open(folder: &Path, boot: BootId) -> (Self, Vec<Entry>) {
        let file = folder.join("slots");
        let mut state = Self {
            file,
            boot,
            next: 1,
            reserved: 1,
            last: Instance(u64::MAX),
        };
        let text = match read(&state.file) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(%error, "cannot read the slots of the former spawner");
                }
                return (state, Vec::new());
            }
        };
        let Some((was, reserved, last, entries)) = parse(&text) else {
            tracing::error!("the slots of the former spawner cannot be understood");
            return (state, Vec::new());
        };
        state.next = reserved;
        state.reserved = reserved;
        state.last = last;
        let entries = if was == boot { entries } else { Vec::new() };
        (state, entries)
    }

    /// The last instance minted when the file was written: of those above it nothing is
    /// recorded. Without a file, the largest number there is.
    pub(super) fn last(&self) -> Instance {
        self.last
    }

    /// Never mints `seen` or anything below it.
    pub(super) fn skip(&mut self, seen: Instance) {
        self.next = self.next.max(seen.0.saturating_add(1));
    }

    /// A number no instance had before. Writes only once in [`RESERVE`] calls.
    pub(super) fn mint(&mut self, entries: impl Iterator<Item = Entry>) -> Instance {
        let instance = Instance(self.next);
        if instance.0 >= self.reserved {
            self.reserved = instance.0 + RESERVE;
            self.save(entries);
        }
        self.next += 1;
        instance
    }

    /// Records `entries`. A failure is logged and healing goes on: a spawner
    /// that finds no record of a process ends it and starts afresh.
    pub(super) fn save(&self, entries: impl Iterator<Item = Entry>) {
        let (next, last) = (self.reserved, self.next.saturating_sub(1));
        let mut text = format!("{HEADER}\nboot {}\nnext {next}\nlast {last}\n", self.boot);
        for entry in entries.take(SLOTS_MAX) {
            let Entry {
                service,
                instance,
                pid,
                start,
                handle,
            } = entry;
            let handle = handle.map_or(String::new(), |handle| format!(" {handle}"));
            // Writing to a string does not fail.
            let _ = writeln!(text, "slot {service} {} {pid} {start}{handle}", instance.0);
        }
        let fresh = self.file.with_extension("new");
        let saved = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &self.file));
        if let Err(error) = saved {
            tracing::error!(file = %self.file.display(), %error, "cannot record the slots");
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn parse(text: &str) -> Option<(BootId, u64, Instance, Vec<Entry>)> {
    let mut lines = text.lines();
    if lines.next()? != HEADER {
        return None;
    }
    let boot = lines.next()?.strip_prefix("boot ")?.parse().ok()?;
    let next = lines.next()?.strip_prefix("next ")?.parse().ok()?;
    let last = lines.next()?.strip_prefix("last ")?.parse().ok()?;
    let entries: Option<Vec<Entry>> = lines.take(SLOTS_MAX).map(parse_entry).collect();
    Some((boot, next, Instance(last), entries?))
}

fn parse_entry(line: &str) -> Option<Entry> {
    let mut words = line.strip_prefix("slot ")?.split(' ');
    let entry = Entry {
        service: words.next()?.parse().ok()?,
        instance: Instance(words.next()?.parse().ok()?),
        pid: words.next()?.parse().ok()?,
        start: words.next()?.parse().ok()?,
        handle: words.next().map(str::parse).transpose().ok()?,
    };
    words.next().is_none().then_some(entry)
}

/// The id of this boot.
pub(super) fn boot_id() -> io::Result<BootId> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    text.trim()
        .replace('-', "")
        .parse()
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId([3; 16]);

    #[test]
    fn entries_survive_and_numbers_are_never_minted_twice() {
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry {
            service: ServiceId::new("db").unwrap(),
            instance: Instance(1),
            pid: 42,
            start: 77,
            handle: Some(Handle::Unit("db.service".into())),
        };
        let (mut state, found) = State::open(folder.path(), BOOT);
        assert_eq!(found, []);
        let mut last = Instance(0);
        for _ in 0..3 {
            for _ in 0..=RESERVE {
                let next = state.mint(std::iter::once(entry.clone()));
                assert!(next > last);
                last = next;
            }
            let found;
            (state, found) = State::open(folder.path(), BOOT);
            assert_eq!(found, std::slice::from_ref(&entry));
        }
    }

    #[test]
    fn another_boot_keeps_the_numbers_and_drops_the_processes() {
        let folder = tempfile::tempdir().unwrap();
        let (mut state, _) = State::open(folder.path(), BOOT);
        let entry = parse_entry("slot db 1 42 77").unwrap();
        let first = state.mint(std::iter::once(entry));
        let (mut state, found) = State::open(folder.path(), BootId([4; 16]));
        assert_eq!(found, []);
        assert!(state.mint(std::iter::empty()) > first);
    }

    #[test]
    fn a_damaged_file_counts_as_absent() {
        let whole = format!("{HEADER}\nboot {BOOT}\nnext 9\nlast 3\nslot db 1 42 77\n");
        assert!(parse(&whole).is_some());
        for wrong in [
            "",
            "homeostat-slots 3\n",
            &whole.replace("next 9", "next -9"),
            &whole.replace("last 3\n", ""),
            &whole.replace("slot db", "slot D b"),
            &whole.replace("42 77", "42"),
            &whole.replace("42 77", "42 77 1"),
            &whole.replace("03", "0"),
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("slots"), [0xff, 0xfe]).unwrap();
        assert_eq!(State::open(folder.path(), BOOT).1, []);
    }
}
