//! Faults of files: a model or a configuration damaged where it stands, a folder filled up.
//!
//! The folders belong to users with fewer rights than the spawner has. So no link is followed,
//! nothing outside of the folder that the configuration names is reached, and a file is only
//! changed if it has one name and the owner of its folder: whoever could have it changed by
//! the spawner could have changed it without.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, ResolveFlags, fallocate, fstatvfs, openat, openat2,
    readlinkat, unlinkat,
};
use rustix::io::Errno;

use super::record::Damage;

/// Bytes that are turned round: enough to be noticed by whoever reads them, few enough for a
/// record.
const DAMAGE_MAX: u64 = 4096;

/// Room that filling a folder leaves on its file system, for everybody else.
const SPARE: u64 = 64 << 20;

/// Opens a folder by its path, without following a link.
fn folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    opened.map_err(|errno| match errno {
        Errno::LOOP => io::Error::other("a link is on the way to it"),
        other => other.into(),
    })
}

/// What would be damaged: the middle of the file `name` of the version in place.
pub(super) fn damage(slot: &Path, name: &str) -> io::Result<Damage> {
    let opened = folder(slot)?;
    let target = readlinkat(&opened, "current", Vec::new())?;
    let target = target.into_string().map_err(io::Error::other)?;
    let file = format!("{target}/{name}");
    let found = open(&opened, &file)?;
    let length = found.metadata()?.len();
    let size = DAMAGE_MAX.min(length.div_ceil(2));
    if size == 0 {
        return Err(io::Error::other("the file is empty"));
    }
    let offset = (length - size) / 2;
    let mut was = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    found.read_exact_at(&mut was, offset)?;
    Ok(Damage {
        slot: slot.to_owned(),
        file,
        offset,
        was,
    })
}

/// Does it.
pub(super) fn inflict(damage: &Damage) -> io::Result<()> {
    let file = open(&folder(&damage.slot)?, &damage.file)?;
    file.write_all_at(&turned(&damage.was), damage.offset)?;
    file.sync_all()
}

/// Puts back what was there, if what was done still is, all of it or what a power cut has let
/// through. A version that was put in its place meanwhile is left alone.
pub(super) fn repair(damage: &Damage) -> io::Result<bool> {
    let file = match folder(&damage.slot).and_then(|slot| open(&slot, &damage.file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let mut found = vec![0; damage.was.len()];
    let whole = file.read_exact_at(&mut found, damage.offset);
    let mut bytes = found.iter().zip(&damage.was);
    let done = bytes.all(|(found, was)| found == was || *found == !was) && found != damage.was;
    if whole.is_err() || !done {
        return Ok(false);
    }
    file.write_all_at(&damage.was, damage.offset)?;
    file.sync_all()?;
    Ok(true)
}

fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

fn open(slot: &OwnedFd, file: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let opened = File::from(openat2(slot, file, flags, Mode::empty(), within)?);
    let (meta, owner) = (opened.metadata()?, rustix::fs::fstat(slot)?.st_uid);
    if !meta.is_file() || meta.nlink() != 1 || meta.uid() != owner {
        return Err(io::Error::other("it is not a file of its folder alone"));
    }
    Ok(opened)
}

/// Makes a file of `size` bytes that really takes them; nothing is written over.
pub(super) fn fill(path: &Path, name: &str, size: u64) -> io::Result<()> {
    let opened = folder(path)?;
    let system = fstatvfs(&opened)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    if free < size.saturating_add(SPARE) {
        return Err(io::Error::other(
            "its file system has not enough room to spare",
        ));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let file = openat(&opened, name, flags, mode)?;
    if let Err(errno) = fallocate(&file, FallocateFlags::empty(), 0, size) {
        let _ = unlinkat(&opened, name, AtFlags::empty());
        return Err(errno.into());
    }
    Ok(())
}

/// Deletes it, if nobody else has.
pub(super) fn empty(path: &Path, name: &str) -> io::Result<bool> {
    let opened = match folder(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match unlinkat(&opened, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn slot(content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let version = dir.path().join("versions/0102");
        fs::create_dir_all(&version).unwrap();
        fs::write(version.join("model.onnx"), content).unwrap();
        symlink("versions/0102", dir.path().join("current")).unwrap();
        (dir, version.join("model.onnx"))
    }

    #[test]
    fn what_is_damaged_is_put_back_to_the_byte_and_once() {
        for length in [1, 2, 100, 10_000_u32] {
            let content: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0]).collect();
            let (dir, file) = slot(&content);
            let damage = damage(dir.path(), "model.onnx").unwrap();
            inflict(&damage).unwrap();
            assert_ne!(fs::read(&file).unwrap(), content);
            assert!(repair(&damage).unwrap());
            assert_eq!(fs::read(&file).unwrap(), content);
            assert!(!repair(&damage).unwrap(), "it is as it was");
        }
    }

    #[test]
    fn what_a_power_cut_has_let_through_is_put_back() {
        let (dir, file) = slot(&[7; 8192]);
        let damage = damage(dir.path(), "model.onnx").unwrap();
        let mut torn = vec![7; 8192];
        torn[4096..4608].fill(!7);
        fs::write(&file, torn).unwrap();
        assert!(repair(&damage).unwrap());
        assert_eq!(fs::read(&file).unwrap(), [7; 8192]);
    }

    #[test]
    fn what_somebody_else_has_put_there_is_left_alone() {
        let (dir, file) = slot(&[7; 100]);
        let damage = damage(dir.path(), "model.onnx").unwrap();
        inflict(&damage).unwrap();
        fs::write(&file, [9; 100]).unwrap();
        assert!(!repair(&damage).unwrap());
        assert_eq!(fs::read(&file).unwrap(), [9; 100]);
        fs::remove_file(&file).unwrap();
        assert!(!repair(&damage).unwrap());
    }

    #[test]
    fn nothing_outside_of_the_slot_is_reached() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("model.onnx");
        fs::write(&secret, [1; 100]).unwrap();
        let refuse = |arrange: &dyn Fn(&Path)| {
            let (dir, file) = slot(&[7; 100]);
            fs::remove_file(&file).unwrap();
            arrange(dir.path());
            assert!(damage(dir.path(), "model.onnx").is_err());
        };
        // A link, another name of the same file, and a version that is elsewhere.
        refuse(&|slot| symlink(&secret, slot.join("versions/0102/model.onnx")).unwrap());
        refuse(&|slot| fs::hard_link(&secret, slot.join("versions/0102/model.onnx")).unwrap());
        refuse(&|slot| {
            fs::remove_file(slot.join("current")).unwrap();
            symlink(outside.path(), slot.join("current")).unwrap();
        });
        let linked = outside.path().join("slot");
        let (dir, _) = slot(&[7; 100]);
        symlink(dir.path(), &linked).unwrap();
        assert!(damage(&linked, "model.onnx").is_err());
        assert_eq!(fs::read(&secret).unwrap(), [1; 100]);
    }

    #[test]
    fn a_folder_is_filled_and_emptied_and_nothing_written_over() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), "chaos.old", 1 << 20).unwrap();
        let meta = fs::metadata(dir.path().join("chaos.old")).unwrap();
        assert!(meta.blocks() * 512 >= 1 << 20);
        assert!(fill(dir.path(), "chaos.old", 1).is_err());
        assert!(fill(dir.path(), "more.old", u64::MAX / 2).is_err());
        assert!(empty(dir.path(), "chaos.old").unwrap());
        assert!(!empty(dir.path(), "chaos.old").unwrap());
        assert!(!empty(&dir.path().join("gone"), "chaos.old").unwrap());
    }
}
