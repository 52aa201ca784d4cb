//! Where services write: one file each, of bounded size.
//!
//! A service holds its file open, so it cannot be renamed away: at its bound
//! the file is copied to `ID.log.1` and cut to nothing; as it was opened for
//! appending, the service goes on at the start. Lines written during the copy
//! may be lost, and a fast writer can pass the bound until the next look.
//!
//! Where the folder cannot be made, on a data folder that is read-only say, services run
//! without a log, and each start tries again.
//!
//! The folder may belong to a user with fewer rights than the spawner has, so
//! no symbolic link is followed.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use homeostat_common::ids::ServiceId;
use homeostat_common::units::Bytes;
use rustix::fs::{AtFlags, Gid, Mode, OFlags};

/// The folder `data_dir/logs`.
#[derive(Debug)]
pub(super) struct Logs {
    path: PathBuf,
    /// Not there when it could not be opened.
    folder: Option<OwnedFd>,
    /// Who may read the logs besides the spawner.
    readers: Option<u32>,
}

impl Logs {
    pub(super) fn open(data_dir: &Path, readers: Option<u32>) -> Self {
        let path = data_dir.join("logs");
        let folder = open_folder(&path);
        if let Err(error) = &folder {
            let folder = path.display();
            tracing::error!(%folder, %error, "services start without logs");
        }
        Self {
            path,
            folder: folder.ok(),
            readers,
        }
    }

    /// The file that stdout and stderr of `service` go to.
    pub(super) fn file(&mut self, service: &ServiceId) -> io::Result<File> {
        if self.folder.is_none() {
            self.folder = Some(open_folder(&self.path)?);
        }
        self.open_file(&format!("{service}.log"), OFlags::APPEND)
    }

    /// Cuts the log of `service` if it has passed `max`.
    pub(super) fn bound(&self, service: &ServiceId, max: Bytes) -> io::Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let name = format!("{service}.log");
        let size = match rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => u64::try_from(stat.st_size).unwrap_or(0),
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if size <= max.0 {
            return Ok(());
        }
        let full = self.open_file(&name, OFlags::empty())?;
        // Cut even when the copy fails: a full disk is the worse fault.
        let copied = self.keep(&full, &format!("{name}.1"), size - max.0);
        full.set_len(0)?;
        copied
    }

    /// Copies `full` from offset `from` on into a new file called `name`.
    fn keep(&self, mut full: &File, name: &str, from: u64) -> io::Result<()> {
        match rustix::fs::unlinkat(self.folder()?, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let mut kept = self.open_file(name, OFlags::EXCL)?;
        full.seek(SeekFrom::Start(from))?;
        // A bound here as well: the writer may be faster than the copy.
        let mut rest = io::Read::take(full, crate::config::LOG_BYTES_MAX.0);
        io::copy(&mut rest, &mut kept)?;
        Ok(())
    }

    fn folder(&self) -> io::Result<&OwnedFd> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "there is no folder for logs");
        self.folder.as_ref().ok_or_else(none)
    }

    fn open_file(&self, name: &str, extra: OFlags) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
        let file = rustix::fs::openat(self.folder()?, name, flags, mode)?;
        if let Some(readers) = self.readers {
            rustix::fs::fchown(file.as_fd(), None, Some(Gid::from_raw(readers)))?;
        }
        Ok(file.into())
    }
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    std::fs::create_dir_all(path)?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_log_that_passes_its_bound_is_kept_once_and_goes_on_at_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = Logs::open(folder.path(), None);
        let service = ServiceId::new("db").unwrap();
        let mut writer = logs.file(&service).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join("logs").join(name));
        logs.bound(&service, Bytes(8)).unwrap();
        for (written, now, kept) in [
            ("12345678", "12345678", None),
            ("9", "", Some("23456789")),
            ("a", "a", Some("23456789")),
            ("bcdefghijk", "", Some("defghijk")),
        ] {
            writer.write_all(written.as_bytes()).unwrap();
            logs.bound(&service, Bytes(8)).unwrap();
            assert_eq!(read("db.log").unwrap(), now);
            assert_eq!(read("db.log.1").ok().as_deref(), kept);
        }
    }

    #[test]
    fn a_link_in_place_of_a_log_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = Logs::open(folder.path(), None);
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        let link =
            |name| std::os::unix::fs::symlink(&victim, folder.path().join("logs").join(name));
        link("db.log").unwrap();
        link("web.log.1").unwrap();
        let [db, web] = ["db", "web"].map(|id| ServiceId::new(id).unwrap());
        logs.file(&db).unwrap_err();
        // Not even cut, and the link itself makes way for the copy.
        let _ = logs.bound(&db, Bytes(1));
        logs.file(&web).unwrap().write_all(b"long").unwrap();
        logs.bound(&web, Bytes(1)).unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    }
}
