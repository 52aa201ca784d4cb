//! The data folders of services: measures them, deletes what their configuration
//! allows to be deleted, clears locks that nobody holds, keeps copies of state.
//!
//! In goes a `[service.data]`, out come bytes, or how a deed went. Every call blocks on the disk, so
//! the shell makes them on a thread of its own. Follows no symbolic link and
//! leaves no data folder; what it may not read is reported, not guessed.

mod locks;
mod snapshot;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use homeostat_common::ids::{CertificateId, ServiceId, Token};
use homeostat_common::observation::Reading;
use homeostat_common::units::{Bytes, Percent};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, open, openat, statat, statvfs, unlinkat,
};
use rustix::io::Errno;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::certificate;
use super::keeper::chain;
use crate::config::{Data, Pattern};
use crate::control::{Event, Room};

/// Entries looked at in one walk, about 50 ms of a slow card; a folder with more
/// is measured as far as that, and said to hold at least so much.
const ENTRIES_MAX: usize = 20_000;

/// Folders within folders that are looked into.
const DEPTH_MAX: usize = 16;

/// The unit of `st_blocks`, whatever the file system.
const BLOCK: u64 = 512;

/// Orders on the way: one measurement and one deletion for each service, and a look at each
/// certificate.
const ORDERS_MAX: usize = 2 * crate::config::SERVICES_MAX + crate::config::CERTIFICATES_MAX;

/// Why data could not be measured or pruned.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody holds a lock.
    #[error("{} is held{}", path.display(), holder.map_or(String::new(), |pid| format!(" by process {pid}")))]
    Held {
        /// The lock.
        path: PathBuf,
        /// Who, when it says so.
        holder: Option<u32>,
    },
    /// No copy was ever made, or none is whole.
    #[error("there is no whole copy in {}", path.display())]
    NoCopy {
        /// Where it would be.
        path: PathBuf,
    },
    /// There is nothing to copy.
    #[error("there is no state in {}", path.display())]
    NoState {
        /// The folder.
        path: PathBuf,
    },
    /// The state is larger than what is copied.
    #[error("the state in {} is larger than {max}", path.display())]
    TooLarge {
        /// The folder.
        path: PathBuf,
        /// What is copied at most.
        max: Bytes,
    },
    /// Not all of the state can be seen, so a copy would lack the rest.
    #[error("more than {ENTRIES_MAX} files are in a folder of the state in {}", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
    /// Everything that may be deleted is, and it is not enough.
    #[error("{left} of {quota} in {} are still used, and nothing more may be deleted", path.display())]
    StillFull {
        /// The folder.
        path: PathBuf,
        /// What is left.
        left: Bytes,
        /// What there may be.
        quota: Bytes,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataError {
    let path = path.to_owned();
    move |source| DataError::Io { what, path, source }
}

/// What the files below the folder take on the disk.
///
/// # Errors
/// [`DataError`] when the folder itself cannot be read.
pub fn measure(data: &Data) -> Result<Bytes, DataError> {
    let mut open = vec![(data.path.clone(), 0)];
    let (mut sum, mut seen) = (0u64, 0usize);
    while let Some((folder, depth)) = open.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(failed("read", &folder)(error)),
            // It went in the meantime, or is not ours to read.
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            seen += 1;
            if seen > ENTRIES_MAX {
                return Ok(Bytes(sum));
            }
            let Ok(meta) = entry.metadata() else {
                continue;
            };
            if meta.is_dir() && depth < DEPTH_MAX {
                open.push((entry.path(), depth + 1));
            } else if meta.is_file() {
                sum = sum.saturating_add(on_disk(&meta));
            }
        }
    }
    Ok(Bytes(sum))
}

/// What is left on the file system of a folder.
fn room(folder: &Path) -> Reading<Room> {
    let Ok(disk) = statvfs(folder) else {
        return Reading::Missing;
    };
    Reading::from(disk.f_bavail.checked_mul(disk.f_frsize).map(|free| Room {
        free: Bytes(free),
        // btrfs and some network file systems report none at all.
        inodes: (disk.f_files > 0).then_some(disk.f_favail),
    }))
}

/// What a file takes, not how long it says to be: a sparse one takes little.
fn on_disk(meta: &Metadata) -> u64 {
    meta.blocks().saturating_mul(BLOCK)
}

/// Deletes what may be deleted, oldest first, until no more than `keep` of the
/// quota is used. Returns how many files went and how much they took.
///
/// # Errors
/// [`DataError`]; what was deleted until then stays deleted.
pub fn prune(data: &Data, keep: Percent) -> Result<(usize, Bytes), DataError> {
    let most = keep.of(data.quota.0);
    let mut used = measure(data)?.0;
    let (mut found, _) = candidates(data, &data.prune)?;
    found.sort_by(|a, b| (a.changed, &a.path).cmp(&(b.changed, &b.path)));
    let (mut count, mut freed) = (0, 0u64);
    for file in found {
        if used <= most {
            break;
        }
        // By name within the folder that was opened: whatever stands at its path
        // by now, nothing outside can be reached.
        match unlinkat(&*file.folder, &file.name, AtFlags::empty()) {
            Ok(()) => {
                used = used.saturating_sub(file.size);
                freed = freed.saturating_add(file.size);
                count += 1;
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("delete", &file.path)(error.into())),
        }
    }
    // Measured again: others write and delete at the same time.
    let left = measure(data)?;
    if left.0 > most {
        return Err(DataError::StillFull {
            path: data.path.clone(),
            left,
            quota: data.quota,
        });
    }
    Ok((count, Bytes(freed)))
}

/// A file that a pattern names.
struct Candidate {
    /// Seconds and nanoseconds since 1970.
    changed: (i64, i64),
    path: PathBuf,
    /// The folder below the data folder, as the pattern names it.
    within: Option<String>,
    folder: Rc<OwnedFd>,
    name: CString,
    size: u64,
}

/// What is there, and whether that is all.
fn candidates(data: &Data, patterns: &[Pattern]) -> Result<(Vec<Candidate>, bool), DataError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let io_failed = |what, path: &Path| {
        let path = path.to_owned();
        move |error: Errno| failed(what, &path)(error.into())
    };
    let root = open(&data.path, flags, Mode::empty()).map_err(io_failed("open", &data.path))?;
    let root = Rc::new(root);
    let mut found: Vec<Candidate> = Vec::new();
    let mut known = BTreeSet::new();
    let mut all = true;
    for pattern in patterns {
        let (folder, path) = match &pattern.folder {
            None => (Rc::clone(&root), data.path.clone()),
            Some(inner) => {
                let path = data.path.join(inner);
                // A link would lead out of the data folder.
                let flags = flags | OFlags::NOFOLLOW;
                match openat(&*root, inner.as_str(), flags, Mode::empty()) {
                    Ok(folder) => (Rc::new(folder), path),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    Err(error) => return Err(failed("open", &path)(error.into())),
                }
            }
        };
        let mut entries = Dir::read_from(&*folder).map_err(io_failed("read", &path))?;
        for entry in entries.by_ref().take(ENTRIES_MAX) {
            // What cannot be read must not pass for what is not there.
            let entry = entry.map_err(io_failed("read", &path))?;
            let name = entry.file_name().to_owned();
            let Some(text) = name.to_str().ok().filter(|text| pattern.matches(text)) else {
                continue;
            };
            let stat = match statat(&*folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed("look at", &path.join(text))(error.into())),
            };
            let path = path.join(text);
            let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if !regular || !known.insert(path.clone()) {
                continue;
            }
            // The widths of these fields differ between architectures.
            #[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion)]
            let number = |value| i64::try_from(value).unwrap_or(i64::MAX);
            found.push(Candidate {
                changed: (number(stat.st_mtime), stat_nanos(&stat)),
                path,
                within: pattern.folder.clone(),
                folder: Rc::clone(&folder),
                size: u64::try_from(stat.st_blocks)
                    .unwrap_or(0)
                    .saturating_mul(BLOCK),
                name,
            });
        }
        all &= entries.next().is_none();
    }
    Ok((found, all))
}

fn stat_nanos(stat: &Stat) -> i64 {
    i64::try_from(stat.st_mtime_nsec).unwrap_or(0)
}

/// What the data thread is asked.
#[derive(Debug)]
pub enum Order {
    /// Measure; answered by `Measured`.
    Measure(ServiceId, Data),
    /// Look when a certificate ends; answered by `Certified`.
    Certificate(CertificateId, PathBuf),
    /// A deed; answered by `Acted`.
    Act(Token, ServiceId, Data, Deed),
}

/// What can be done with data.
#[derive(Debug)]
pub enum Deed {
    /// Prune to this share.
    Prune(Percent),
    /// Delete locks that nobody holds.
    ClearLocks,
    /// Copy the state.
    Snapshot,
    /// Put the newest copy back.
    RestoreSnapshot,
    /// Put back what stood there before.
    TakeBackSnapshot,
}

/// Starts the thread; copies of state go below `snapshots`. It ends with the sender.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    snapshots: PathBuf,
    events: mpsc::Sender<Event>,
) -> io::Result<std::sync::mpsc::SyncSender<Order>> {
    let (sender, orders) = std::sync::mpsc::sync_channel(ORDERS_MAX);
    std::thread::Builder::new()
        .name("data".into())
        .spawn(move || {
            while let Ok(order) = orders.recv() {
                if events.blocking_send(carry_out(order, &snapshots)).is_err() {
                    break;
                }
            }
        })?;
    Ok(sender)
}

fn carry_out(order: Order, snapshots: &Path) -> Event {
    match order {
        Order::Measure(service, data) => Event::Measured {
            used: match measure(&data) {
                Ok(used) => Reading::Fresh(used),
                Err(error) => {
                    tracing::debug!("data of {service}: {}", chain(&error));
                    Reading::Missing
                }
            },
            room: room(&data.path),
            service,
        },
        Order::Certificate(id, path) => Event::Certified {
            id,
            until: certificate::end(&path).map_err(|error| chain(&error)),
        },
        Order::Act(token, service, data, deed) => {
            let kept = snapshots.join(service.as_str());
            let result = match deed {
                Deed::Prune(keep) => prune(&data, keep)
                    .map(|(count, freed)| format!("{count} files, {freed} deleted")),
                Deed::ClearLocks => {
                    locks::clear(&data).map(|count| format!("{count} locks deleted"))
                }
                Deed::Snapshot => snapshot::take(&data, &kept)
                    .map(|(count, size)| format!("{count} files, {size} copied")),
                Deed::RestoreSnapshot => snapshot::restore(&data, &kept, token)
                    .map(|count| format!("{count} files put back from a copy")),
                Deed::TakeBackSnapshot => snapshot::take_back(&data, &kept, token)
                    .map(|count| format!("{count} files put back as they were")),
            };
            match &result {
                Ok(text) => info!("data of {service}: {text}"),
                Err(error) => warn!("data of {service}: {}", chain(error)),
            }
            Event::Acted {
                token,
                result: result.map(drop).map_err(|error| chain(&error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::time::{Duration, SystemTime};

    fn data(folder: &Path, patterns: &str) -> Data {
        let text = format!(
            "[node]\nid = \"n\"\n[[service]]\nid = \"store\"\ncommand = [\"/bin/store\"]\n\
             [service.data]\npath = \"{}\"\nquota = \"1MiB\"\nprune = [{patterns}]\n",
            folder.display()
        );
        let config = Config::parse(&text, Path::new("/a.toml")).unwrap();
        config.services[0].data.clone().unwrap()
    }

    fn write(path: &Path, kib: usize, age_s: u64) {
        fs::write(path, vec![7; kib * 1024]).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        let then = SystemTime::now() - Duration::from_secs(age_s);
        file.set_modified(then).unwrap();
    }

    #[test]
    fn what_may_go_goes_oldest_first_and_no_more_than_needed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        write(&at("keep.log"), 300, 900);
        write(&at("a.old"), 200, 500);
        write(&at("b.old"), 200, 400);
        write(&at("c.old"), 200, 300);
        let data = data(dir.path(), "\"*.old\"");
        assert_eq!(measure(&data).unwrap(), Bytes(900 * 1024));
        let (count, freed) = prune(&data, "70%".parse().unwrap()).unwrap();
        assert_eq!((count, freed), (1, Bytes(200 * 1024)));
        assert!(!at("a.old").exists() && at("b.old").exists());
        let error = prune(&data, "20%".parse().unwrap()).unwrap_err();
        assert!(
            error.to_string().starts_with("300.0 KiB of 1.0 MiB"),
            "{error}"
        );
        assert!(at("keep.log").exists() && !at("c.old").exists());
    }

    #[test]
    fn nothing_outside_the_folder_is_counted_or_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        write(&outside.path().join("x.old"), 900, 100);
        let link = |name: &str, to: PathBuf| {
            std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
        };
        link("file.old", outside.path().join("x.old"));
        link("tmp", outside.path().to_owned());
        let data = data(dir.path(), "\"*.old\", \"tmp/*.old\"");
        assert_eq!(measure(&data).unwrap(), Bytes(0));
        assert_eq!(prune(&data, "0%".parse().unwrap()).unwrap().0, 0);
        assert!(outside.path().join("x.old").exists());
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_that_names_it() {
        let data = data(Path::new("/nonexistent/data"), "");
        let error = measure(&data).unwrap_err().to_string();
        assert_eq!(error, "cannot read /nonexistent/data");
    }
}
