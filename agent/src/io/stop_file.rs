//! The file `STOP` in the data folder: while it is there, nothing is healed.
//!
//! It is the only thing that keeps a stop over restarts and reboots, so that it
//! can be given and taken back with nothing but a shell, also while the agent does
//! not run: `touch` stops, `rm` goes on. What stands in it is the reason.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::config::WHY_MAX;

/// Where it is.
#[must_use]
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("STOP")
}

/// The reason, if it is there. Whatever has that name counts, a folder or a link
/// to nowhere too; only a file is read.
///
/// # Errors
/// When that cannot be found out.
pub fn read(data_dir: &Path) -> io::Result<Option<String>> {
    let path = path(data_dir);
    let meta = match fs::symlink_metadata(&path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    if meta.is_file() {
        // One that may not be read stops all the same.
        let _ =
            File::open(&path).and_then(|file| file.take(WHY_MAX as u64).read_to_end(&mut bytes));
    }
    let text = String::from_utf8_lossy(&bytes);
    let line: String = text
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    Ok(Some(match line.trim() {
        "" => format!("{} is there", path.display()),
        why => why.to_owned(),
    }))
}

/// Puts it there, for good.
///
/// # Errors
/// When the disk refuses.
pub fn write(data_dir: &Path, why: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path(data_dir))?;
    writeln!(file, "{why}")?;
    file.sync_all()?;
    File::open(data_dir)?.sync_all()
}

/// Takes it away, for good.
///
/// # Errors
/// When the disk refuses; it may then be there still.
pub fn remove(data_dir: &Path) -> io::Result<()> {
    match fs::remove_file(path(data_dir)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            // A read-only file system refuses before it looks, although nothing is there.
            let gone = matches!(read(data_dir), Ok(None));
            if gone { Ok(()) } else { Err(error) }
        }
        _ => File::open(data_dir)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_called_stop_stops_and_says_why_if_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        assert_eq!(read(data).unwrap(), None);
        File::create(path(data)).unwrap();
        assert!(read(data).unwrap().unwrap().ends_with("/STOP is there"));
        write(data, "they flap").unwrap();
        assert_eq!(read(data).unwrap().as_deref(), Some("they flap"));
        fs::write(path(data), [b'x', 0xff, 7, b'\n', b'y']).unwrap();
        assert_eq!(read(data).unwrap().as_deref(), Some("x\u{fffd}"));
        remove(data).unwrap();
        remove(data).unwrap();
        assert_eq!(read(data).unwrap(), None);
        fs::create_dir(path(data)).unwrap();
        assert!(read(data).unwrap().is_some());
        assert!(remove(data).is_err(), "a folder is somebody's own");
        fs::remove_dir(path(data)).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", path(data)).unwrap();
        assert!(read(data).unwrap().is_some());
        assert!(read(&data.join("none")).unwrap().is_none());
    }

    #[test]
    fn nothing_has_to_be_removed_where_nothing_can_be_written() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let read_only = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (folder, _, flags) = (fields.next()?, fields.next()?, fields.next()?);
            let here = Path::new(folder);
            let refuses = flags.split(',').any(|flag| flag == "ro");
            (refuses && here.is_dir() && read(here).is_ok_and(|why| why.is_none())).then_some(here)
        });
        let Some(data) = read_only else {
            println!("skip: no file system here is mounted read-only");
            return;
        };
        remove(data).unwrap();
        assert!(write(data, "x").is_err());
    }
}
