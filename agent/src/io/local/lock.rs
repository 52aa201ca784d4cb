//! The file whose lock makes a process the only one of its kind in a folder.
//!
//! In: a path. Out: the file, locked for as long as it is open, or who has it. Only
//! the owner can open the file: whoever may read a file may lock it as well, and
//! keep out whom it is meant for.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

/// For the owner alone.
const MODE: u32 = 0o600;

/// What came of an attempt.
#[derive(Debug)]
pub(in crate::io) enum Taken {
    /// It is ours until this is closed.
    Held(File),
    /// Somebody else still had it at the end.
    By(Holder),
}

/// Who has a lock.
#[derive(Debug)]
pub struct Holder {
    /// Its pid and name, if the kernel says so.
    process: Option<(u32, String)>,
    /// It runs the same program in the same role.
    twin: bool,
}

impl Holder {
    /// Whether it is the same program in the same role as this process.
    pub(in crate::io) fn is_twin(&self) -> bool {
        self.twin
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(f, "process {pid} ({name})"),
            None => f.write_str("somebody whom the kernel does not name"),
        }
    }
}

/// Makes the file and locks it, within `wait`. A file that others may open, as older
/// versions made it, is closed to them.
pub(in crate::io) fn take(path: &Path, wait: Duration) -> io::Result<Taken> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .custom_flags(no_follow())
        .open(path)?;
    if file.metadata()?.mode() & 0o7777 != MODE {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    if super::lock_within(&file, wait)? {
        return Ok(Taken::Held(file));
    }
    Ok(Taken::By(holder(&file)))
}

fn no_follow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

fn holder(file: &File) -> Holder {
    let meta = file.metadata();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = meta.ok().and_then(|meta| {
        let device = meta.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        locked_by(&locks, &format!("{major:02x}:{minor:02x}:{}", meta.ino()))
    });
    let process = pid.and_then(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some((pid, name.trim_end().to_owned()))
    });
    let own = role("self");
    let twin = pid.is_some_and(|pid| own.is_some() && role(&pid.to_string()) == own);
    Holder { process, twin }
}

/// Who holds the lock of `inode`, by the kernel's list. Those who wait are in it, too,
/// behind an arrow.
fn locked_by(locks: &str, inode: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, at, ..] = words[..] else {
            return None;
        };
        (at == inode).then(|| pid.parse().ok())?
    })
}

/// What a process is: its name, and its first argument, which is the role.
fn role(pid: &str) -> Option<(String, Vec<u8>)> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let role = line.split(|byte| *byte == 0).nth(1)?.to_vec();
    Some((name, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_can_open_it_also_if_it_was_open_to_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        for mode in [None, Some(0o644), Some(0o666)] {
            if let Some(mode) = mode {
                fs::write(&path, "").unwrap();
                fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            }
            let taken = take(&path, Duration::ZERO).unwrap();
            assert!(matches!(taken, Taken::Held(_)), "{taken:?}");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        take(&link, Duration::ZERO).unwrap_err();
    }

    #[test]
    fn whoever_has_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let Taken::Held(_held) = take(&path, Duration::ZERO).unwrap() else {
            panic!("nobody had it")
        };
        let Taken::By(holder) = take(&path, Duration::ZERO).unwrap() else {
            panic!("it was taken twice")
        };
        if holder.process.is_none() {
            println!("skip: the kernel does not list the locks of this file system");
            return;
        }
        let own = format!("process {} (", std::process::id());
        assert!(holder.to_string().starts_with(&own), "{holder}");
        assert!(holder.is_twin());
    }

    #[test]
    fn those_who_wait_do_not_hold() {
        let locks = "1: -> FLOCK  ADVISORY  WRITE 7 fe:00:12 0 EOF\n\
                     1: POSIX  ADVISORY  WRITE 8 fe:00:12 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 9 fe:00:123 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 10 fe:00:12 0 EOF\n";
        assert_eq!(locked_by(locks, "fe:00:12"), Some(10));
        assert_eq!(locked_by(locks, "fe:00:1"), None);
        assert_eq!(locked_by("", "fe:00:12"), None);
    }
}
