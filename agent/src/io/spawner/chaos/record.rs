//! What has to be undone, on the disk before it is done.
//!
//! A spawner that is killed in the middle of a fault on purpose finds here what its successor
//! has to end, also after a power cut: bytes of a file do not come back by a reboot. One file,
//! replaced by rename and synced, in a folder that only the spawner may write to; it is gone
//! once everything is as it was.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use homeostat_common::ids::{BootId, Instance, ServiceId};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::chaos::Injection;

/// Largest record: the bytes of a file and some words.
const RECORD_MAX: u64 = 64 * 1024;
const NAME: &str = "chaos";
const FRESH: &str = "chaos.new";

/// How it is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Undo {
    /// It is not.
    Nothing,
    /// SIGCONT.
    Resume,
    /// The limit of descriptors that it had, soft and hard; `None` is without limit.
    Limit(Option<u64>, Option<u64>),
    /// This file in this folder is deleted.
    Delete(PathBuf, String),
    /// The bytes that a file of a slot had there.
    Restore(Damage),
}

/// Bytes of a file that were turned round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Damage {
    /// The slot's folder.
    pub(super) slot: PathBuf,
    /// The file, from there on.
    pub(super) file: String,
    pub(super) offset: u64,
    /// What stood there; now each bit of it is another.
    pub(super) was: Vec<u8>,
}

/// One fault on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) boot: BootId,
    pub(super) service: ServiceId,
    /// The life that it was put into, and its process.
    pub(super) instance: Instance,
    pub(super) pid: u32,
    pub(super) start: u64,
    pub(super) injection: Injection,
    pub(super) undo: Undo,
}

/// Where the record lies.
#[derive(Debug)]
pub(super) struct Place {
    folder: OwnedFd,
}

impl Place {
    /// Opens `data_dir/chaos`, and makes it.
    ///
    /// # Errors
    /// Also when somebody else may write there.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("chaos");
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Err(Errno::EXIST) | Ok(()) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let folder = File::from(rustix::fs::open(&path, flags, Mode::empty())?);
        let meta = folder.metadata()?;
        if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return Err(io::Error::other("somebody else may write there"));
        }
        Ok(Self {
            folder: folder.into(),
        })
    }

    /// The record of a fault that was not ended; one that cannot be read is none.
    pub(super) fn read(&self) -> Option<Record> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, NAME, flags, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        let mut file = File::from(file).take(RECORD_MAX);
        file.read_to_end(&mut bytes).ok()?;
        let record = postcard::from_bytes(&bytes);
        if record.is_err() {
            tracing::error!("the record of a fault on purpose cannot be understood");
        }
        record.ok()
    }

    /// Puts it on the disk.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let bytes = postcard::to_allocvec(record).map_err(io::Error::other)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, FRESH, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        file.write_all(&bytes)?;
        file.sync_all()?;
        rustix::fs::renameat(&self.folder, FRESH, &self.folder, NAME)?;
        Ok(rustix::fs::fsync(&self.folder)?)
    }

    /// Everything is as it was.
    pub(super) fn clear(&self) {
        match rustix::fs::unlinkat(&self.folder, NAME, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Then it is ended once more at the next start, which changes nothing.
            Err(error) => tracing::error!(%error, "cannot delete the record of a fault on purpose"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn record() -> Record {
        Record {
            boot: BootId([3; 16]),
            service: ServiceId::new("web").unwrap(),
            instance: Instance(7),
            pid: 42,
            start: 77,
            injection: Injection::CorruptModel,
            undo: Undo::Restore(Damage {
                slot: "/srv/slot".into(),
                file: "versions/0102/model.onnx".into(),
                offset: 4096,
                was: vec![7; 4096],
            }),
        }
    }

    #[test]
    fn it_is_found_until_it_is_cleared() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::open(data.path()).unwrap();
        assert_eq!(place.read(), None);
        place.write(&record()).unwrap();
        assert_eq!(Place::open(data.path()).unwrap().read(), Some(record()));
        place.clear();
        place.clear();
        assert_eq!(place.read(), None);
        std::fs::write(data.path().join("chaos/chaos"), [0xff; 70_000]).unwrap();
        assert_eq!(place.read(), None);
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("chaos");
        symlink("/tmp", &folder).unwrap();
        assert!(Place::open(data.path()).is_err());
        std::fs::remove_file(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Place::open(data.path()).is_err());
    }
}
