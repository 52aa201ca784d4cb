//! The few file operations of the journal, each with its error told by name.
//!
//! Everything goes through [`Dir`] and [`DiskFile`], so that tests can write down each
//! operation in order and make any of them fail.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{self, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::error::{Error, Result};

/// Names read from a directory; ours holds a few dozen. More belong to somebody else.
const NAMES_MAX: usize = 4096;
/// A child being spawned holds a copy of the lock until it executes its program, also that
/// of a process which has just died.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(5);
const ZEROS: [u8; 4096] = [0; 4096];

#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    #[cfg(test)]
    tape: Option<tape::Shared>,
}

#[derive(Debug)]
pub(super) struct DiskFile {
    fd: OwnedFd,
    name: String,
    path: PathBuf,
    #[cfg(test)]
    tape: Option<tape::Shared>,
}

impl Dir {
    /// Opens `path`, creating it if need be, and locks it against a second process.
    pub(super) fn open(path: &Path) -> Result<Dir> {
        let made = !path.exists();
        std::fs::create_dir_all(path).map_err(|e| Error::new("create", path, e))?;
        if let (true, Some(parent)) = (made, path.parent()) {
            let _ = File::open(parent).and_then(|p| p.sync_all());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty()).map_err(|e| Error::new("open", path, e))?;
        let mut tries = 0;
        loop {
            match fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_WAIT);
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::Locked {
                        path: path.to_path_buf(),
                    });
                }
                Err(e) => return Err(Error::new("lock", path, e)),
            }
        }
        Ok(Dir {
            fd,
            path: path.to_path_buf(),
            #[cfg(test)]
            tape: None,
        })
    }

    /// Names and sizes of the regular files, and of whatever else stands where a segment
    /// should: that is damage, and must not pass for nothing.
    pub(super) fn list(&self) -> Result<Vec<(String, u64)>> {
        let mut out = Vec::new();
        let entries = std::fs::read_dir(&self.path).map_err(|e| self.error("list", "", e))?;
        for entry in entries.take(NAMES_MAX) {
            let entry = entry.map_err(|e| self.error("list", "", e))?;
            let Ok(meta) = entry.metadata() else { continue };
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if meta.is_file() {
                out.push((name, meta.len()));
            } else if name.ends_with(".seg") {
                out.push((name, 0));
            }
        }
        out.sort();
        Ok(out)
    }

    /// At most `max` bytes from the start, and what stopped the reading, if anything did.
    pub(super) fn read(&self, name: &str, max: u32) -> (Vec<u8>, Option<io::Error>) {
        let mut bytes = Vec::new();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let failed = match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd)
                .take(u64::from(max))
                .read_to_end(&mut bytes)
                .err(),
            Err(e) => Some(e.into()),
        };
        (bytes, failed)
    }

    /// A new file for writing; one of that name is emptied.
    pub(super) fn create(&self, name: &str) -> Result<DiskFile> {
        self.tap("create", name, || tape::Op::Create(name.into()))?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| self.error("create", name, e))?;
        Ok(self.file(fd, name))
    }

    pub(super) fn open_write(&self, name: &str) -> Result<DiskFile> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fs::openat(&self.fd, name, flags, Mode::empty())
            .map_err(|e| self.error("open", name, e))?;
        Ok(self.file(fd, name))
    }

    fn file(&self, fd: OwnedFd, name: &str) -> DiskFile {
        DiskFile {
            fd,
            name: name.to_string(),
            path: self.path.join(name),
            #[cfg(test)]
            tape: self.tape.clone(),
        }
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.tap("rename", from, || tape::Op::Rename(from.into(), to.into()))?;
        fs::renameat(&self.fd, from, &self.fd, to).map_err(|e| self.error("rename", from, e))
    }

    /// Swaps two names at once, so that neither is ever missing.
    pub(super) fn exchange(&self, one: &str, other: &str) -> Result<()> {
        fs::renameat_with(&self.fd, one, &self.fd, other, fs::RenameFlags::EXCHANGE)
            .map_err(|e| self.error("exchange", one, e))
    }

    pub(super) fn link(&self, from: &str, to: &str) -> Result<()> {
        self.tap("link", from, || tape::Op::Link(from.into(), to.into()))?;
        fs::linkat(&self.fd, from, &self.fd, to, fs::AtFlags::empty())
            .map_err(|e| self.error("link", from, e))
    }

    pub(super) fn remove(&self, name: &str) -> Result<()> {
        self.tap("remove", name, || tape::Op::Remove(name.into()))?;
        match fs::unlinkat(&self.fd, name, fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.error("remove", name, e)),
        }
    }

    /// Makes creations, renames and removals last.
    pub(super) fn sync(&self) -> Result<()> {
        self.tap("sync directory", "", || tape::Op::SyncDir)?;
        fs::fsync(&self.fd).map_err(|e| self.error("sync directory", "", e))
    }

    /// Bytes an unprivileged process may still use.
    pub(super) fn free_bytes(&self) -> Result<u64> {
        let stat = fs::fstatvfs(&self.fd).map_err(|e| self.error("measure", "", e))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn error(&self, op: &'static str, name: &str, e: impl Into<io::Error>) -> Error {
        Error::new(op, &self.path.join(name), e)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn tap(&self, _op: &'static str, _name: &str, _record: impl Fn() -> tape::Op) -> Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn tap(&self, op: &'static str, name: &str, record: impl Fn() -> tape::Op) -> Result<()> {
        tape::tap(self.tape.as_ref(), record).map_err(|e| self.error(op, name, e))
    }

    #[cfg(test)]
    pub(super) fn tape(&mut self) -> tape::Shared {
        self.tape.get_or_insert_default().clone()
    }
}

impl DiskFile {
    /// Takes the blocks now, so that later writes inside `len` need none.
    pub(super) fn preallocate(&self, len: u32) -> Result<()> {
        self.tap("preallocate", || tape::Op::Grow(self.name.clone(), len))?;
        match fs::fallocate(&self.fd, FallocateFlags::empty(), 0, u64::from(len)) {
            Ok(()) => Ok(()),
            // Some file systems cannot reserve: writing zeros takes the blocks as well.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                let mut at = 0;
                while at < len {
                    let chunk = ZEROS.len().min((len - at) as usize);
                    self.pwrite(at, &ZEROS[..chunk])?;
                    at += u32::try_from(chunk).unwrap_or(u32::MAX);
                }
                Ok(())
            }
            Err(e) => Err(self.error("preallocate", e)),
        }
    }

    pub(super) fn write_at(&self, at: u32, bytes: &[u8]) -> Result<()> {
        self.tap("write", || {
            tape::Op::Write(self.name.clone(), at, bytes.to_vec())
        })?;
        self.pwrite(at, bytes)
    }

    fn pwrite(&self, at: u32, mut bytes: &[u8]) -> Result<()> {
        let mut at = u64::from(at);
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.fd, bytes, at) {
                Ok(0) => return Err(self.error("write", Errno::NOSPC)),
                Ok(n) => {
                    at += n as u64;
                    bytes = bytes.get(n..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.error("write", e)),
            }
        }
        Ok(())
    }

    pub(super) fn truncate(&self, len: u32) -> Result<()> {
        self.tap("truncate", || tape::Op::Truncate(self.name.clone(), len))?;
        fs::ftruncate(&self.fd, u64::from(len)).map_err(|e| self.error("truncate", e))
    }

    /// Makes the bytes written so far last.
    pub(super) fn sync(&self) -> Result<()> {
        self.tap("sync", || tape::Op::Sync(self.name.clone()))?;
        fs::fdatasync(self.fd.as_fd()).map_err(|e| self.error("sync", e))
    }

    /// Follows a rename made through the directory.
    pub(super) fn renamed(&mut self, name: &str) {
        self.name = name.to_string();
        self.path.set_file_name(name);
    }

    fn error(&self, op: &'static str, e: impl Into<io::Error>) -> Error {
        Error::new(op, &self.path, e)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn tap(&self, _op: &'static str, _record: impl Fn() -> tape::Op) -> Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn tap(&self, op: &'static str, record: impl Fn() -> tape::Op) -> Result<()> {
        tape::tap(self.tape.as_ref(), record).map_err(|e| self.error(op, e))
    }
}

/// What a test writes down; outside of tests nothing builds these.
pub(super) mod tape {
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[cfg_attr(not(test), allow(dead_code))]
    pub(in super::super) enum Op {
        Create(String),
        Grow(String, u32),
        Write(String, u32, Vec<u8>),
        Truncate(String, u32),
        Sync(String),
        Rename(String, String),
        Link(String, String),
        Remove(String),
        SyncDir,
    }

    #[cfg(test)]
    pub(in super::super) use recording::*;

    #[cfg(test)]
    mod recording {
        use super::Op;
        use rustix::io::Errno;
        use std::sync::{Arc, Mutex};

        /// Which operations fail, and how.
        pub(in super::super::super) type Failure = (fn(&Op) -> bool, Errno);
        pub(in super::super::super) type Shared = Arc<Mutex<Tape>>;

        #[derive(Debug, Default)]
        pub(in super::super::super) struct Tape {
            pub ops: Vec<Op>,
            /// Operations for which this says so fail with that error, unexecuted.
            pub fail: Option<Failure>,
        }

        pub(in super::super::super) fn tap(
            tape: Option<&Shared>,
            record: impl Fn() -> Op,
        ) -> Result<(), Errno> {
            let Some(tape) = tape else { return Ok(()) };
            let mut tape = tape.lock().expect("no test panics while holding it");
            let op = record();
            if let Some((applies, errno)) = tape.fail
                && applies(&op)
            {
                return Err(errno);
            }
            tape.ops.push(op);
            Ok(())
        }
    }
}
