//! Copies of the state of a service.
//!
//! In goes a `[service.data]` with `snapshot`, out comes how many files were
//! copied or put back. Each file is replaced whole, by rename; several of them
//! are not replaced at once, so the service is frozen or restarted around it, as
//! the plan says. A copy has its name once all of it is on the disk:
//!
//! ```text
//! data_dir/snapshots/SERVICE/NUMBER/FOLDER+NAME    a copy of the state
//! data_dir/snapshots/SERVICE/before-TOKEN/         what a restore has replaced
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use homeostat_common::ids::Token;
use homeostat_common::units::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags, fstat, fsync, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::{Candidate, DataError, candidates, failed};
use crate::config::{Data, Pattern};

/// Copies of one service; the older one is there should the newer one hold the
/// fault already.
const COPIES_MAX: usize = 2;

/// Largest state: some seconds of a slow card.
const SIZE_MAX: Bytes = Bytes::mib(256);

/// Between folder and name in the name of a copy; no name in a pattern's folder
/// holds a slash, so it stands for one.
const SLASH: char = '+';

/// Copies the state.
///
/// # Errors
/// [`DataError`]; then the copies that were there are still there.
pub(super) fn take(data: &Data, kept: &Path) -> Result<(usize, Bytes), DataError> {
    let found = state(data)?;
    // A folder whose mount is missing looks like this as well.
    if found.is_empty() {
        return Err(DataError::NoState {
            path: data.path.clone(),
        });
    }
    let copies = numbers(kept)?;
    let number = copies.last().map_or(1, |newest| newest + 1);
    let done = copy(data, &found, kept, &number.to_string())?;
    for old in copies.iter().rev().skip(COPIES_MAX - 1) {
        // One that stays is only room.
        let _ = fs::remove_dir_all(kept.join(old.to_string()));
    }
    Ok(done)
}

/// Puts the newest copy back; what stood there can be taken back with the same
/// token.
///
/// # Errors
/// [`DataError`]; then [`take_back`] restores what was there.
pub(super) fn restore(data: &Data, kept: &Path, token: Token) -> Result<usize, DataError> {
    let newest = numbers(kept)?.pop().ok_or_else(|| DataError::NoCopy {
        path: kept.to_owned(),
    })?;
    let before = before(token);
    // Asked a second time, what stands there now is no longer what was there.
    if !kept.join(&before).is_dir() {
        for old in names(kept)? {
            if old.starts_with("before-") {
                let _ = fs::remove_dir_all(kept.join(old));
            }
        }
        let found = state(data)?;
        copy(data, &found, kept, &before)?;
    }
    put_back(data, &kept.join(newest.to_string()))
}

/// Puts back what stood there before the restore of this token, if that had begun.
///
/// # Errors
/// [`DataError`]; doing it again does no harm.
pub(super) fn take_back(data: &Data, kept: &Path, token: Token) -> Result<usize, DataError> {
    let before = kept.join(before(token));
    if !before.is_dir() {
        return Ok(0);
    }
    let count = put_back(data, &before)?;
    // Its name goes at once: a half-deleted one would pass for what was there.
    let gone = kept.join("gone");
    let _ = fs::remove_dir_all(&gone);
    fs::rename(&before, &gone).map_err(failed("rename", &before))?;
    synced(kept).map_err(failed("sync", kept))?;
    let _ = fs::remove_dir_all(&gone);
    Ok(count)
}

/// All of it: what a copy lacks is deleted when that is put back.
fn state(data: &Data) -> Result<Vec<Candidate>, DataError> {
    match candidates(data, &data.snapshot)? {
        (found, true) => Ok(found),
        (_, false) => Err(DataError::TooMany {
            path: data.path.clone(),
        }),
    }
}

fn before(token: Token) -> String {
    format!("before-{}-{}", token.plan, token.step)
}

fn names(kept: &Path) -> Result<Vec<String>, DataError> {
    match fs::read_dir(kept) {
        Ok(entries) => Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("read", kept)(error)),
    }
}

/// Numbers of the copies, oldest first.
fn numbers(kept: &Path) -> Result<Vec<u64>, DataError> {
    let mut numbers: Vec<u64> = names(kept)?
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Copies files into a folder that has its name once it is whole.
fn copy(
    data: &Data,
    found: &[Candidate],
    kept: &Path,
    name: &str,
) -> Result<(usize, Bytes), DataError> {
    let fresh = kept.join("new");
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh).map_err(failed("create", &fresh))?;
    let mut left = SIZE_MAX.0;
    for file in found {
        // The service can put something else there at any moment: nothing that is
        // opened may block.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = match openat(&*file.folder, &file.name, flags, Mode::empty()) {
            Ok(from) => File::from(from),
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(failed("open", &file.path)(error.into())),
        };
        if !from
            .metadata()
            .map_err(failed("open", &file.path))?
            .is_file()
        {
            continue;
        }
        let to = fresh.join(flat(file));
        let written = write(from, &to, left + 1).map_err(failed("copy", &file.path))?;
        left = left
            .checked_sub(written)
            .ok_or_else(|| DataError::TooLarge {
                path: data.path.clone(),
                max: SIZE_MAX,
            })?;
    }
    synced(&fresh).map_err(failed("sync", &fresh))?;
    let whole = kept.join(name);
    fs::rename(&fresh, &whole).map_err(failed("rename", &fresh))?;
    synced(kept).map_err(failed("sync", kept))?;
    Ok((found.len(), Bytes(SIZE_MAX.0 - left)))
}

fn synced(folder: &Path) -> io::Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all())
}

/// The name of a file within a copy.
fn flat(file: &Candidate) -> String {
    let name = file.name.to_string_lossy();
    match &file.within {
        Some(folder) => format!("{folder}{SLASH}{name}"),
        None => format!("{SLASH}{name}"),
    }
}

/// Copies at most `max` bytes, and has them on the disk.
fn write(from: File, to: &Path, max: u64) -> io::Result<u64> {
    let mode = from.metadata()?.permissions();
    let mut to = File::create(to)?;
    to.set_permissions(mode)?;
    let written = io::copy(&mut from.take(max), &mut to)?;
    to.flush()?;
    to.sync_all()?;
    Ok(written)
}

/// Replaces the files that the patterns name by those of a copy.
fn put_back(data: &Data, copy: &Path) -> Result<usize, DataError> {
    let mut count = 0;
    let copies: BTreeSet<String> = names(copy)?.into_iter().collect();
    for pattern in &data.snapshot {
        let within = pattern.folder.as_deref().unwrap_or("");
        let wanted: Vec<(&String, &str)> = copies
            .iter()
            .filter_map(|flat| Some((flat, flat.split_once(SLASH)?)))
            .filter(|(_, (at, name))| *at == within && pattern.matches(name))
            .map(|(flat, (_, name))| (flat, name))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let (folder, open) = folder_of(data, pattern)?;
        for (flat, name) in wanted {
            // A name with a dot in front is no pattern's.
            let fresh = format!(".{name}.restored");
            let failed = |what| {
                let path = folder.join(name);
                move |error: io::Error| DataError::Io {
                    what,
                    path,
                    source: error,
                }
            };
            let from = File::open(copy.join(flat)).map_err(failed("read the copy of"))?;
            let meta = from.metadata().map_err(failed("read the copy of"))?;
            // Whatever the service has put there under that name goes: a link or a
            // pipe would lead elsewhere, or block.
            match unlinkat(&open, &fresh, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed("write")(error.into())),
            }
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = openat(&open, &fresh, flags, Mode::RUSR | Mode::WUSR);
            let mut to = File::from(to.map_err(|error| failed("write")(error.into()))?);
            // As what it replaces, or as the folder: the service must be able to
            // write its own state.
            let like = statat(&open, name, AtFlags::SYMLINK_NOFOLLOW)
                .or_else(|_| fstat(&open))
                .map_err(|error| failed("look at")(error.into()))?;
            let own = to.metadata().map_err(failed("look at"))?;
            if (own.uid(), own.gid()) != (like.st_uid, like.st_gid) {
                let given = std::os::unix::fs::fchown(&to, Some(like.st_uid), Some(like.st_gid));
                given.map_err(failed("give its service"))?;
            }
            to.set_permissions(meta.permissions())
                .map_err(failed("write"))?;
            io::copy(&mut from.take(SIZE_MAX.0), &mut to).map_err(failed("write"))?;
            to.sync_all().map_err(failed("sync"))?;
            renameat(&open, &fresh, &open, name)
                .map_err(|error| failed("replace")(error.into()))?;
            count += 1;
        }
        fsync(&open).map_err(|error| failed("sync", &folder)(error.into()))?;
    }
    // What came since is not part of that state.
    for file in state(data)? {
        if !copies.contains(&flat(&file)) {
            match unlinkat(&*file.folder, &file.name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed("delete", &file.path)(error.into())),
            }
        }
    }
    Ok(count)
}

/// The folder that a pattern names, and its path. The data folder itself may be reached by
/// a link, as that is the word of the configuration; what is below may not.
fn folder_of(data: &Data, pattern: &Pattern) -> Result<(PathBuf, OwnedFd), DataError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&data.path, flags, Mode::empty());
    let root = root.map_err(|error| failed("open", &data.path)(error.into()))?;
    let Some(inner) = &pattern.folder else {
        return Ok((data.path.clone(), root));
    };
    let path = data.path.join(inner);
    match openat(
        &root,
        inner.as_str(),
        flags | OFlags::NOFOLLOW,
        Mode::empty(),
    ) {
        Ok(folder) => Ok((path, folder)),
        Err(error) => Err(failed("open", &path)(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use homeostat_common::ids::PlanId;

    use super::super::ENTRIES_MAX;
    use super::*;
    use crate::config::Config;

    const TOKEN: Token = Token {
        plan: PlanId(7),
        step: 1,
        undo: false,
    };

    fn data(folder: &Path) -> Data {
        let text = format!(
            "[node]\nid = \"n\"\n[[service]]\nid = \"store\"\ncommand = [\"/bin/store\"]\n\
             [service.data]\npath = \"{}\"\nquota = \"1MiB\"\n\
             snapshot = [\"*.db\", \"index/*.idx\"]\n",
            folder.display()
        );
        let config = Config::parse(&text, Path::new("/a.toml")).unwrap();
        config.services[0].data.clone().unwrap()
    }

    #[test]
    fn a_copy_comes_back_whole_and_what_it_replaced_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let kept = tempfile::tempdir().unwrap();
        let kept = kept.path().join("snapshots/store");
        let at = |name: &str| dir.path().join(name);
        let data = data(dir.path());
        fs::create_dir(at("index")).unwrap();
        let write = |name: &str, text: &str| fs::write(at(name), text).unwrap();
        let read = |name: &str| fs::read_to_string(at(name)).unwrap();
        write("a.db", "good");
        write("index/a.idx", "good index");
        write("other", "not state");
        let error = restore(&data, &kept, TOKEN).unwrap_err().to_string();
        assert!(error.starts_with("there is no whole copy in"), "{error}");
        assert_eq!(take(&data, &kept).unwrap(), (2, Bytes(14)));

        write("a.db", "bad");
        write("b.db", "came later");
        fs::remove_file(at("index/a.idx")).unwrap();
        write("other", "still not state");
        // Asked twice, it is done once.
        assert_eq!(restore(&data, &kept, TOKEN).unwrap(), 2);
        assert_eq!(restore(&data, &kept, TOKEN).unwrap(), 2);
        assert_eq!(
            (read("a.db"), read("index/a.idx")),
            ("good".into(), "good index".into())
        );
        assert!(!at("b.db").exists());
        assert_eq!(read("other"), "still not state");

        let undo = Token {
            undo: true,
            ..TOKEN
        };
        assert_eq!(take_back(&data, &kept, undo).unwrap(), 2);
        assert_eq!(
            (read("a.db"), read("b.db")),
            ("bad".into(), "came later".into())
        );
        assert!(!at("index/a.idx").exists());
        assert_eq!(take_back(&data, &kept, undo).unwrap(), 0);
    }

    #[test]
    fn a_data_folder_that_is_reached_by_a_link_is_restored_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let kept = tempfile::tempdir().unwrap();
        let link = kept.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let data = data(&link);
        fs::write(dir.path().join("a.db"), "good").unwrap();
        let kept = kept.path().join("snapshots");
        take(&data, &kept).unwrap();
        fs::write(dir.path().join("a.db"), "bad").unwrap();
        assert_eq!(restore(&data, &kept, TOKEN).unwrap(), 1);
        assert_eq!(fs::read(dir.path().join("a.db")).unwrap(), b"good");
    }

    #[test]
    fn state_that_cannot_be_seen_whole_is_neither_copied_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let kept = tempfile::tempdir().unwrap();
        let data = data(dir.path());
        fs::write(dir.path().join("a.db"), "good").unwrap();
        take(&data, kept.path()).unwrap();
        for number in 0..=ENTRIES_MAX {
            fs::write(dir.path().join(format!("{number}.db")), "").unwrap();
        }
        let error = take(&data, kept.path()).unwrap_err().to_string();
        assert!(error.starts_with("more than 20000 files are in"), "{error}");
        assert!(restore(&data, kept.path(), TOKEN).is_err());
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, ENTRIES_MAX + 2);
    }

    #[test]
    fn only_the_newest_copies_stay_and_a_half_one_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let kept = tempfile::tempdir().unwrap();
        let data = data(dir.path());
        for round in 0..4 {
            fs::write(dir.path().join("a.db"), round.to_string()).unwrap();
            fs::create_dir_all(kept.path().join("new")).unwrap();
            fs::write(kept.path().join("new/+a.db"), "half").unwrap();
            take(&data, kept.path()).unwrap();
        }
        assert_eq!(numbers(kept.path()).unwrap(), [3, 4]);
        fs::write(dir.path().join("a.db"), "bad").unwrap();
        restore(&data, kept.path(), TOKEN).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a.db")).unwrap(), "3");
    }
}
