//! Lock files that a killed process left behind.
//!
//! In goes a `[service.data]` with `locks`, out comes how many were deleted. A
//! lock counts as held when the kernel says so (flock, or a POSIX record lock),
//! or when it holds the number of a process that lives; then nothing is deleted.

use std::io::Read as _;

use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, fcntl_lock, flock, openat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::{Candidate, DataError, candidates, failed};
use crate::config::Data;

/// A process number and a line end, with room.
const TEXT_MAX: u64 = 64;

/// Deletes the locks, if nobody holds any of them.
///
/// # Errors
/// [`DataError::Held`] before anything is deleted; [`DataError::Io`] otherwise.
pub(super) fn clear(data: &Data) -> Result<usize, DataError> {
    let (found, _) = candidates(data, &data.locks)?;
    // Kept open until all are deleted: who comes meanwhile finds them held.
    let mut open = Vec::new();
    for lock in &found {
        open.push(free(lock)?);
    }
    let mut count = 0;
    for (lock, held) in found.iter().zip(&open) {
        let Some(held) = held else { continue };
        let own =
            rustix::fs::fstat(held).map_err(|error| failed("look at", &lock.path)(error.into()))?;
        // A new one of that name is somebody's.
        let same = statat(&*lock.folder, &lock.name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|it| (it.st_dev, it.st_ino) == (own.st_dev, own.st_ino));
        if !same {
            continue;
        }
        match unlinkat(&*lock.folder, &lock.name, AtFlags::empty()) {
            Ok(()) => count += 1,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("delete", &lock.path)(error.into())),
        }
    }
    Ok(count)
}

/// The lock, held by us; `None` when it is gone.
fn free(lock: &Candidate) -> Result<Option<std::fs::File>, DataError> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(&*lock.folder, &lock.name, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed("open", &lock.path)(error.into())),
    };
    let held = |holder| DataError::Held {
        path: lock.path.clone(),
        holder,
    };
    for taken in [
        flock(&file, FlockOperation::NonBlockingLockExclusive),
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive),
    ] {
        match taken {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::ACCESS) => return Err(held(None)),
            Err(error) => return Err(failed("lock", &lock.path)(error.into())),
        }
    }
    let mut text = String::new();
    // What is not text is no process number.
    let _ = (&file).take(TEXT_MAX).read_to_string(&mut text);
    let pid = text.split_ascii_whitespace().next();
    let pid = pid.and_then(|word| word.parse::<i32>().ok());
    if let Some(pid) = pid.filter(|pid| *pid > 0).and_then(Pid::from_raw)
        && test_kill_process(pid) != Err(Errno::SRCH)
    {
        return Err(held(Some(pid.as_raw_nonzero().get().unsigned_abs())));
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn data(folder: &Path) -> Data {
        let text = format!(
            "[node]\nid = \"n\"\n[[service]]\nid = \"store\"\ncommand = [\"/bin/store\"]\n\
             [service.data]\npath = \"{}\"\nquota = \"1MiB\"\nlocks = [\"*.lock\"]\n",
            folder.display()
        );
        let config = Config::parse(&text, Path::new("/a.toml")).unwrap();
        config.services[0].data.clone().unwrap()
    }

    #[test]
    fn locks_that_nobody_holds_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = child.id();
        child.wait().unwrap();
        fs::write(at("a.lock"), format!("{gone}\n")).unwrap();
        fs::write(at("b.lock"), "").unwrap();
        fs::write(at("data"), "7").unwrap();
        assert_eq!(clear(&data(dir.path())).unwrap(), 2);
        assert!(at("data").exists() && !at("a.lock").exists() && !at("b.lock").exists());
        assert_eq!(clear(&data(dir.path())).unwrap(), 0);
    }

    #[test]
    fn while_one_is_held_all_stay() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a.lock"), "").unwrap();
        fs::write(at("b.lock"), format!("{}", std::process::id())).unwrap();
        let error = clear(&data(dir.path())).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("b.lock is held by process {}", std::process::id())),
            "{error}"
        );
        fs::write(at("b.lock"), "").unwrap();
        let held = fs::File::open(at("b.lock")).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let error = clear(&data(dir.path())).unwrap_err().to_string();
        assert!(error.ends_with("b.lock is held"), "{error}");
        assert!(at("a.lock").exists() && at("b.lock").exists());
        drop(held);
        assert_eq!(clear(&data(dir.path())).unwrap(), 2);
    }
}
