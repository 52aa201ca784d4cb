//! Mounts a file system for writing again, after the kernel has made it read-only
//! because of an error.
//!
//! In goes a path, out comes its file system, writable. Every other option of the
//! mount stays. Does not repair a file system: a kernel that finds the error still
//! there refuses.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::mount::{MountFlags, mount_remount};

/// Why it is not writable.
#[derive(Debug, thiserror::Error)]
pub(super) enum MountError {
    /// The path is nowhere.
    #[error("cannot look at the file system of {}", path.display())]
    Look {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its mount is not in the kernel's list.
    #[error("the mount that holds {} is not known", path.display())]
    Unknown {
        /// The path.
        path: PathBuf,
    },
    /// The kernel would not.
    #[error("cannot mount {} for writing", point.display())]
    Remount {
        /// Where it is mounted.
        point: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Makes the file system of `path` writable.
///
/// # Errors
/// [`MountError`]; then it is as it was.
pub(super) fn writable(path: &Path) -> Result<(), MountError> {
    let look = |source: rustix::io::Errno| MountError::Look {
        path: path.to_owned(),
        source: source.into(),
    };
    // A service may own the folder above its data, and put a link there that leads
    // to a mount which is read-only on purpose.
    let folder = rustix::fs::openat2(
        rustix::fs::CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(look)?;
    let flags = rustix::fs::fstatvfs(&folder).map_err(look)?.f_flag;
    if !flags.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    let point = point(path, &mounts).ok_or_else(|| MountError::Unknown {
        path: path.to_owned(),
    })?;
    let mut kept = MountFlags::empty();
    for (is, keep) in [
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
        (StatVfsMountFlags::SYNCHRONOUS, MountFlags::SYNCHRONOUS),
    ] {
        if flags.contains(is) {
            kept |= keep;
        }
    }
    mount_remount(&point, kept, "").map_err(|error| MountError::Remount {
        point: point.clone(),
        source: error.into(),
    })
}

/// Where the file system of a path is mounted: the longest mount point above it,
/// of equal ones the last, which covers the others.
fn point(path: &Path, mounts: &str) -> Option<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|point| PathBuf::from(unescaped(point)))
        .filter(|point| path.starts_with(point))
        .max_by_key(|point| point.as_os_str().len())
}

/// The kernel writes blanks, tabs, line ends and backslashes as octal numbers.
fn unescaped(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_a_path_is_the_nearest_one() {
        let mounts = "a / ext4 ro 0 0\nb /dev devtmpfs rw 0 0\nc /dev/x\\040y tmpfs rw 0 0\n";
        assert_eq!(point(Path::new("/dev/null"), mounts), Some("/dev".into()));
        assert_eq!(point(Path::new("/"), mounts), Some("/".into()));
        assert_eq!(point(Path::new("data"), mounts), None);
        assert_eq!(unescaped("/a\\040b\\134c"), "/a b\\c");
    }

    #[test]
    fn a_read_only_file_system_is_writable_again_and_keeps_its_options() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        // Mounts of a thread of its own vanish with it.
        let done = std::thread::spawn(move || {
            use rustix::mount::{MountPropagationFlags, mount, mount_change};
            use rustix::thread::{UnshareFlags, unshare_unsafe};
            // SAFETY: this thread shares its working directory with nobody who
            // minds: it uses absolute paths only, and ends after this.
            #[allow(unsafe_code)]
            let alone = unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) };
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            if alone.is_err() || mount_change("/", private).is_err() {
                println!("skip: no mounts of one's own here");
                return;
            }
            mount("none", &root, "tmpfs", MountFlags::NOEXEC, None).unwrap();
            let file = root.join("a");
            std::fs::write(&file, "1").unwrap();
            let flags = MountFlags::RDONLY | MountFlags::NOEXEC;
            mount_remount(&root, flags, "").unwrap();
            assert!(std::fs::write(&file, "2").is_err());
            let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
            assert_eq!(point(&file, &mounts), Some(root.clone()));
            writable(&file).unwrap();
            writable(&file).unwrap();
            std::fs::write(&file, "2").unwrap();
            let left = rustix::fs::statvfs(&file).unwrap().f_flag;
            assert!(left.contains(StatVfsMountFlags::NOEXEC));
        });
        done.join().unwrap();
    }
}
