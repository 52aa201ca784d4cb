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

use super::kin;
use super::owner::Handle;
use super::protocol::SLOTS_MAX;

const HEADER: &str = "homeostat-slots 3";
/// Largest file that is read; [`SLOTS_MAX`] lines with the longest
/// names that owners have need some 100 KiB.
const FILE_MAX: u64 = 256 * 1024;
/// Instances reserved in one write, so that a start need not wait for one.
const RESERVE: u64 = 64;
/// Without a file, instances from here on count as never minted: so many starts there
/// cannot have been, and there must be room above what is believed.
const MINTED_MAX: u64 = 1 << 47;

/// A running instance, so that it can be found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) service: ServiceId,
    pub(super) instance: Instance,
    pub(super) pid: u32,
    /// Start of the process in clock ticks since boot.
    pub(super) start: u64,
    /// The session of its process group.
    pub(super) session: i32,
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
    former: Option<Former>,
}

/// What the file said besides the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Former {
    boot: BootId,
    /// All instances below this were reserved.
    next: u64,
    last: Instance,
    /// The session of the spawner that wrote it.
    session: i32,
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
            former: None,
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
        let Some((former, entries)) = parse(&text) else {
            tracing::error!("the slots of the former spawner cannot be understood");
            return (state, Vec::new());
        };
        state.next = former.next;
        state.reserved = former.next;
        state.former = Some(former);
        let now = former.boot == boot;
        (state, if now { entries } else { Vec::new() })
    }

    /// The last instance minted when the file was written: of those above it nothing is
    /// recorded. Without a file, the largest number there is.
    pub(super) fn last(&self) -> Instance {
        self.former.map_or(Instance(u64::MAX), |former| former.last)
    }

    /// The session of the former spawner, which is that of what it started.
    pub(super) fn former_session(&self) -> Option<i32> {
        self.former.map(|former| former.session)
    }

    /// Whether a former spawner can have minted `seen`.
    pub(super) fn minted(&self, seen: Instance) -> bool {
        seen.0 < self.former.map_or(MINTED_MAX, |former| former.next)
    }

    /// Never mints `seen` or anything below it, if it was [minted](Self::minted).
    pub(super) fn skip(&mut self, seen: Instance) {
        self.next = self.next.max(seen.0.saturating_add(1));
    }

    /// A number no instance had before. Writes only once in [`RESERVE`] calls.
    pub(super) fn mint(&mut self, entries: impl Iterator<Item = Entry>) -> Instance {
        let instance = Instance(self.next);
        if instance.0 >= self.reserved {
            self.reserved = instance.0.saturating_add(RESERVE);
            self.save(entries);
        }
        self.next = self.next.saturating_add(1);
        instance
    }

    /// Records `entries`. A failure is logged and healing goes on: a spawner
    /// that finds no record of a process ends it and starts afresh.
    pub(super) fn save(&self, entries: impl Iterator<Item = Entry>) {
        let (next, last) = (self.reserved, self.next.saturating_sub(1));
        let (boot, session) = (self.boot, kin::own_session());
        let mut text =
            format!("{HEADER}\nboot {boot}\nnext {next}\nlast {last}\nsession {session}\n");
        for entry in entries.take(SLOTS_MAX) {
            let Entry {
                service,
                instance,
                pid,
                start,
                session,
                handle,
            } = entry;
            let handle = handle.map_or(String::new(), |handle| format!(" {handle}"));
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "slot {service} {} {pid} {start} {session}{handle}",
                instance.0
            );
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

fn parse(text: &str) -> Option<(Former, Vec<Entry>)> {
    let mut lines = text.lines();
    if lines.next()? != HEADER {
        return None;
    }
    let boot = lines.next()?.strip_prefix("boot ")?.parse().ok()?;
    let next = lines.next()?.strip_prefix("next ")?.parse().ok()?;
    let last = lines.next()?.strip_prefix("last ")?.parse().ok()?;
    let session = lines.next()?.strip_prefix("session ")?.parse().ok()?;
    let entries: Option<Vec<Entry>> = lines.take(SLOTS_MAX).map(parse_entry).collect();
    let former = Former {
        boot,
        next,
        last: Instance(last),
        session,
    };
    Some((former, entries?))
}

fn parse_entry(line: &str) -> Option<Entry> {
    let mut words = line.strip_prefix("slot ")?.split(' ');
    let entry = Entry {
        service: words.next()?.parse().ok()?,
        instance: Instance(words.next()?.parse().ok()?),
        pid: words.next()?.parse().ok()?,
        start: words.next()?.parse().ok()?,
        session: words.next()?.parse().ok()?,
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
            session: 40,
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
        let entry = parse_entry("slot db 1 42 77 40").unwrap();
        let first = state.mint(std::iter::once(entry));
        let (mut state, found) = State::open(folder.path(), BootId([4; 16]));
        assert_eq!(found, []);
        assert!(state.mint(std::iter::empty()) > first);
    }

    #[test]
    fn what_was_never_minted_is_not_believed_and_no_number_overflows() {
        let folder = tempfile::tempdir().unwrap();
        let (mut state, _) = State::open(folder.path(), BOOT);
        assert!(state.minted(Instance(1 << 40)), "nothing is known");
        assert!(!state.minted(Instance(u64::MAX)));
        assert!(!state.minted(Instance(MINTED_MAX)));
        state.skip(Instance(MINTED_MAX - 1));
        assert_eq!(state.mint(std::iter::empty()), Instance(MINTED_MAX));
        let (state, _) = State::open(folder.path(), BOOT);
        assert!(state.minted(Instance(MINTED_MAX)));
        assert!(!state.minted(Instance(MINTED_MAX + RESERVE)));
        let (mut state, _) = State::open(tempfile::tempdir().unwrap().path(), BOOT);
        state.skip(Instance(u64::MAX));
        for _ in 0..3 {
            state.mint(std::iter::empty());
        }
    }

    #[test]
    fn a_damaged_file_counts_as_absent() {
        let whole =
            format!("{HEADER}\nboot {BOOT}\nnext 9\nlast 3\nsession 40\nslot db 1 42 77 40\n");
        assert!(parse(&whole).is_some());
        for wrong in [
            "",
            "homeostat-slots 4\n",
            &whole.replace("next 9", "next -9"),
            &whole.replace("last 3\n", ""),
            &whole.replace("slot db", "slot D b"),
            &whole.replace("session 40\n", ""),
            &whole.replace("77 40", "77"),
            &whole.replace("77 40", "77 40 1"),
            &whole.replace("03", "0"),
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("slots"), [0xff, 0xfe]).unwrap();
        assert_eq!(State::open(folder.path(), BOOT).1, []);
    }
}
