//! What a service takes beside its own process: its workers, and whoever else is in its group.
//!
//! In go the pid of a service and the name that the spawner gives to the group in which it
//! keeps the memory limit; out comes the memory of all of the group that belongs to no file.
//! A service without a limit has no group, and is its process alone. Both versions of control
//! groups are read, and nothing is written.

use std::fs;
use std::path::{Path, PathBuf};

use super::source::Source;
use super::{Texts, parse};

/// A process is moved into its group within milliseconds of its start; one that was not found
/// there so often is in none.
const LOOKS_MAX: u8 = 10;

/// The group of one service.
#[derive(Debug)]
pub(super) struct Group {
    proc: PathBuf,
    pid: u32,
    name: String,
    looks: u8,
    stat: Option<Source>,
}

impl Group {
    pub(super) fn new(proc: &Path, pid: u32, name: String) -> Self {
        Self {
            proc: proc.to_owned(),
            pid,
            name,
            looks: 0,
            stat: None,
        }
    }

    /// Bytes that its members hold and that belong to no file.
    pub(super) fn anonymous(&mut self, texts: &mut Texts) -> Option<u64> {
        if self.stat.is_none() {
            if self.looks >= LOOKS_MAX {
                return None;
            }
            self.looks += 1;
            let read = |path: PathBuf| fs::read_to_string(path).ok();
            let own = read(self.proc.join(self.pid.to_string()).join("cgroup"))?;
            let mounts = read(self.proc.join("self/mounts"))?;
            let folder = folder(&own, &mounts, &self.name)?;
            self.stat = Some(Source::new(&folder.join("memory.stat")));
        }
        texts.parse(self.stat.as_mut()?, parse::group_anonymous)
    }
}

/// Whether the groups of a process, as `PID/cgroup` names them, include one of this name.
pub(super) fn is_in(groups: &str, name: &str) -> bool {
    groups.lines().any(|line| path(line).ends_with(name))
}

fn path(line: &str) -> &Path {
    Path::new(line.splitn(3, ':').nth(2).unwrap_or_default())
}

/// Where the group of this name is, if the process is in it and it accounts for memory.
fn folder(groups: &str, mounts: &str, name: &str) -> Option<PathBuf> {
    let memory = |line: &&str| {
        let controllers = line.split(':').nth(1).unwrap_or_default();
        controllers.is_empty() || controllers.split(',').any(|one| one == "memory")
    };
    let found = groups
        .lines()
        .filter(memory)
        .find(|line| path(line).ends_with(name))?;
    let first = found.split(':').nth(1).is_some_and(|one| !one.is_empty());
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = if first {
            kind == "cgroup" && options.split(',').any(|one| one == "memory")
        } else {
            kind == "cgroup2"
        };
        fits.then(|| PathBuf::from(at))
    })?;
    // Inside a container the path may be that of the host; then the mount itself is where the
    // spawner's groups are.
    let inner = mount.join(path(found).strip_prefix("/").ok()?);
    Some(if inner.is_dir() {
        inner
    } else {
        mount.join(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_in_either_version_and_only_by_its_whole_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let name = "homeostat-n-web";
        fs::create_dir_all(dir.path().join("memory/above").join(name)).unwrap();
        let mounts = format!(
            "cgroup {at}/cpu cgroup rw,cpu 0 0\ncgroup {at}/memory cgroup rw,memory 0 0\n\
             cgroup2 {at}/unified cgroup2 rw 0 0\n"
        );
        let first = format!("4:cpu:/\n9:memory:/above/{name}\n0::/\n");
        let found = folder(&first, &mounts, name);
        assert_eq!(found, Some(dir.path().join("memory/above").join(name)));
        // A path of the host.
        let host = format!("9:memory:/docker/{name}\n");
        let found = folder(&host, &mounts, name);
        assert_eq!(found, Some(dir.path().join("memory").join(name)));
        let second = format!("0::/homeostat/{name}\n");
        let found = folder(&second, &mounts, name);
        assert_eq!(found, Some(dir.path().join("unified").join(name)));
        assert!(is_in(&second, name) && is_in(&first, name));
        for other in ["homeostat-n-we", "n-web", "web"] {
            assert!(!is_in(&first, other));
            assert_eq!(folder(&first, &mounts, other), None);
        }
        assert_eq!(folder("", "", name), None);
    }
}
