//! File operations of a slot: each leaves the old or the whole new state behind,
//! also after a power cut.
//!
//! Knows bytes, names and links; does not know what a version is. Every change
//! of the disk goes through [`write`](self), so that tests can end the process
//! before any of them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// A whole SHA-256.
pub(super) type Hash = [u8; 32];

/// Opens a file for reading; what is no regular file, a FIFO say, is refused
/// before it can block.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblock())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}

fn nonblock() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0)
}

/// The whole content, refused beyond `max`.
pub(super) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(too_large(max));
    }
    Ok(bytes)
}

/// The hash of a file's content, refused beyond `max`.
pub(super) fn hash(path: &Path, max: u64) -> io::Result<Hash> {
    pump(&mut open(path)?, max, |_| Ok(()))
}

/// Copies `from` to the new file `to` and returns the hash of what was written:
/// whatever happens to `from` meanwhile, the copy is what the hash says.
pub(super) fn copy(from: &mut File, to: &Path, max: u64) -> io::Result<Hash> {
    write()?;
    let mut target = OpenOptions::new().write(true).create_new(true).open(to)?;
    let hash = pump(from, max, |bytes| {
        write()?;
        target.write_all(bytes)
    })?;
    seal(&target)?;
    Ok(hash)
}

/// The service, of another user, must be able to read it, whatever the umask.
fn seal(file: &File) -> io::Result<()> {
    write()?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.sync_all()
}

/// Gives a file a second name in a new place.
pub(super) fn link(from: &Path, to: &Path) -> io::Result<()> {
    write()?;
    fs::hard_link(from, to)
}

/// An empty folder in place of whatever had its name.
pub(super) fn fresh_folder(path: &Path) -> io::Result<()> {
    remove(path)?;
    folder(path)
}

/// Makes a folder and those above it, for the service to look into. Each name is on the disk
/// before anything is put below it: what is synced there would be lost with it.
pub(super) fn folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent()
        && !above.as_os_str().is_empty()
    {
        folder(above)?;
    }
    write()?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::set_permissions(path, Permissions::from_mode(0o755))?;
    sync_parent(path)
}

/// Moves `from` to `to`, which is replaced, and waits until the disk knows.
/// `from` may be a folder, whose own content is synced first; then `to` must not
/// be there, or be empty.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_dir() {
        sync(from)?;
    }
    write()?;
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Points the link `at` to `target`, replacing a link that is there.
pub(super) fn point(at: &Path, target: &Path) -> io::Result<()> {
    let fresh = beside(at);
    remove(&fresh)?;
    write()?;
    symlink(target, &fresh)?;
    write()?;
    fs::rename(&fresh, at)?;
    sync_parent(at)
}

/// Where something is prepared that will replace `path`; hidden, and never the
/// name of a version.
pub(super) fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Removes a file, a link or a whole folder; what is not there is removed
/// already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    write()?;
    if found.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync(folder),
        _ => sync(Path::new(".")),
    }
}

fn pump(
    from: &mut File,
    max: u64,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Hash> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut total = 0;
    loop {
        let read = match from.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            return Ok(hash.finalize().into());
        }
        total += read as u64;
        if total > max {
            return Err(too_large(max));
        }
        let bytes = chunk.get(..read).unwrap_or_default();
        hash.update(bytes);
        each(bytes)?;
    }
}

fn too_large(max: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("larger than the {max} bytes allowed"),
    )
}

/// Comes before each change of the disk.
#[cfg(not(test))]
#[inline]
fn write() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use crash::write;

/// Fails a chosen change of the disk. As a kill does: nothing after it changes the
/// disk either, not even cleaning up; or as a full disk does: what comes after it
/// works.
#[cfg(test)]
pub(super) mod crash {
    use std::cell::Cell;
    use std::io;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::io::slots) enum Fail {
        Never,
        /// Killed after so many changes.
        Kill(u32),
        /// Full after so many changes, once.
        Full(u32),
    }

    thread_local!(static FAIL: Cell<Fail> = const { Cell::new(Fail::Never) });

    pub(in crate::io::slots) fn set(fail: Fail) {
        FAIL.set(fail);
    }

    pub(in crate::io::slots) fn write() -> io::Result<()> {
        let (next, result) = match FAIL.get() {
            Fail::Never => (Fail::Never, Ok(())),
            Fail::Kill(0) => (Fail::Kill(0), Err(io::Error::other("killed"))),
            Fail::Kill(left) => (Fail::Kill(left - 1), Ok(())),
            Fail::Full(0) => (Fail::Never, Err(io::ErrorKind::StorageFull.into())),
            Fail::Full(left) => (Fail::Full(left - 1), Ok(())),
        };
        FAIL.set(next);
        result
    }
}
