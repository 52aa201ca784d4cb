//! Memory limits, where the machine lets the spawner set them.
//!
//! Version 1: a group below the spawner's own in the memory hierarchy. Version
//! 2: a group below `homeostat` at the root. Below the spawner's own it would
//! not do there: a group that hands a controller down cannot have members, so
//! no service manager could put the next spawner into it while services of the
//! last one live on. Where neither works the limit is reported as not enforced.
//! An address space limit would not do instead: it fails programs that only
//! reserve memory.
//!
//! A process is moved after it was started, as a move can take milliseconds;
//! what it allocated until then is not counted.
//!
//! The group also counts whom the kernel killed for memory, for whatever reason:
//! a limit of this group, of one above it, or the machine's own memory. The count
//! has grown before the signal is sent, so it tells such a death from any other
//! SIGKILL. Version 1 counts since Linux 4.17. A group that an owner made for a unit or
//! a container counts as well, and is read there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use homeostat_common::ids::{NodeId, ServiceId};
use homeostat_common::units::Bytes;
use rustix::process::Pid;

use crate::config::Config;

/// What counts kills in a group of either version.
const V1_KILLS: &str = "memory.oom_control";
const V2_KILLS: &str = "memory.events";

/// The group at the root of a version 2 hierarchy.
const V2_GROUP: &str = "homeostat";

/// Where groups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Groups {
    V1 {
        base: PathBuf,
    },
    V2 {
        base: PathBuf,
    },
    /// Why there is no place.
    None {
        why: String,
    },
}

impl Groups {
    /// The place, if a service has a limit; else none is looked for or made.
    pub(super) fn wanted_by(config: &Config) -> Self {
        let mut services = config.services.iter();
        if services.any(|service| service.memory_limit.is_some()) {
            return Self::find();
        }
        let why = "no service has a memory_limit".into();
        Self::None { why }
    }

    /// Finds the place; in a version 2 hierarchy makes it.
    fn find() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let groups = locate(&read("/proc/self/cgroup"), &read("/proc/mounts"), "memory");
        if let Self::V2 { base } = &groups
            && let Err(error) = delegate(base, "memory")
        {
            return Self::None {
                why: format!("{}: {error}", base.display()),
            };
        }
        groups
    }

    /// Limits `pid` and its descendants, those to come and those there are.
    pub(super) fn limit(
        &self,
        node: &NodeId,
        service: &ServiceId,
        pid: Pid,
        max: Bytes,
    ) -> Result<(), String> {
        let (base, file) = match self {
            Self::V1 { base } => (base, "memory.limit_in_bytes"),
            Self::V2 { base } => (base, "memory.max"),
            Self::None { why } => return Err(why.clone()),
        };
        let group = group(base, node, service);
        limit(&group, file, pid, max).map_err(|error| format!("{}: {error}", group.display()))
    }

    /// What counts kills for memory in the service's group; `None` without a group.
    pub(super) fn kills(&self, node: &NodeId, service: &ServiceId) -> Option<Kills> {
        let (base, file) = match self {
            Self::V1 { base } => (base, V1_KILLS),
            Self::V2 { base } => (base, V2_KILLS),
            Self::None { .. } => return None,
        };
        Kills::open(group(base, node, service).join(file))
    }

    /// Memory that the group of a service has left, or none without a group.
    pub(super) fn free(&self, node: &NodeId, service: &ServiceId) -> Option<u64> {
        let (base, max, used) = match self {
            Self::V1 { base } => (base, "memory.limit_in_bytes", "memory.usage_in_bytes"),
            Self::V2 { base } => (base, "memory.max", "memory.current"),
            Self::None { .. } => return None,
        };
        let group = group(base, node, service);
        let read = |file: &str| {
            fs::read_to_string(group.join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        let (max, used): (u64, u64) = (read(max)?, read(used)?);
        Some(max.saturating_sub(used))
    }

    /// Puts another process into the group of a service.
    pub(super) fn join(&self, node: &NodeId, service: &ServiceId, pid: u32) -> io::Result<()> {
        let (Self::V1 { base } | Self::V2 { base }) = self else {
            return Err(io::Error::other("there are no groups"));
        };
        let members = group(base, node, service).join("cgroup.procs");
        fs::write(members, pid.to_string())
    }

    /// Removes the group of a service that has ended; one with members stays.
    pub(super) fn release(&self, node: &NodeId, service: &ServiceId) {
        match self {
            Self::V1 { base } | Self::V2 { base } => {
                // Nothing to remove is the usual case.
                let _ = fs::remove_dir(group(base, node, service));
            }
            Self::None { .. } => {}
        }
    }
}

/// How often the kernel has killed for memory in a group.
#[derive(Debug)]
pub(super) struct Kills {
    file: PathBuf,
    known: u64,
}

impl Kills {
    /// `None` when there is no such group, or it does not count.
    fn open(file: PathBuf) -> Option<Self> {
        let known = read_kills(&file)?;
        Some(Self { file, known })
    }

    /// Of the group that the owner of `pid` made for it, which has `name` in one of its
    /// names: what is counted in a group shared with others says nothing about this one.
    pub(super) fn of(pid: Pid, name: &str) -> Option<Self> {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let own = read(&format!("/proc/{}/cgroup", pid.as_raw_nonzero()));
        let mounts = read("/proc/mounts");
        Self::open(kills_file(&own, &mounts, name)?)
    }

    /// Kills from here on count as new.
    pub(super) fn renew(&mut self) {
        self.known = read_kills(&self.file).unwrap_or(self.known);
    }

    /// Whether there was another one.
    pub(super) fn more(&self) -> bool {
        read_kills(&self.file).is_some_and(|now| now > self.known)
    }
}

fn read_kills(file: &Path) -> Option<u64> {
    oom_kills(&fs::read_to_string(file).ok()?)
}

/// Where kills are counted for a process, by its `/proc/PID/cgroup` and `/proc/mounts`.
fn kills_file(own: &str, mounts: &str, name: &str) -> Option<PathBuf> {
    let (mount, path, file) = match group_of(own, mounts, "memory") {
        Some((mount, path)) => (mount, path, V1_KILLS),
        None => {
            let path = group_path(own, "")?;
            (mounted(mounts, "cgroup2", "")?, path, V2_KILLS)
        }
    };
    path.contains(name).then(|| mount.join(path).join(file))
}

/// What the group of a service is called. Several nodes may share a machine, hence the name
/// of the node.
pub(in crate::io) fn name(node: &NodeId, service: &ServiceId) -> String {
    format!("homeostat-{node}-{service}")
}

pub(super) fn group(base: &Path, node: &NodeId, service: &ServiceId) -> PathBuf {
    base.join(name(node, service))
}

fn limit(group: &Path, file: &str, pid: Pid, max: Bytes) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(group.join(file), max.0.to_string())?;
    // The kernel rounds down to pages; anything else means it was not taken.
    let taken = fs::read_to_string(group.join(file))?;
    let taken: u64 = taken.trim().parse().map_err(io::Error::other)?;
    if taken > max.0 || max.0 - taken >= 1 << 16 {
        return Err(io::Error::other(format!("the kernel made it {taken}")));
    }
    join(group, pid)
}

/// Moves `pid` and the children it has into a group.
pub(super) fn join(group: &Path, pid: Pid) -> io::Result<()> {
    let members = group.join("cgroup.procs");
    fs::write(&members, pid.as_raw_nonzero().to_string())?;
    // Children it had before the move stayed behind.
    let pid = pid.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    for child in children.unwrap_or_default().split_ascii_whitespace() {
        // One that has ended meanwhile needs no limit.
        let _ = fs::write(&members, child);
    }
    Ok(())
}

/// The count in `memory.oom_control` or `memory.events`.
fn oom_kills(text: &str) -> Option<u64> {
    let count = |line: &str| line.strip_prefix("oom_kill ")?.parse().ok();
    text.lines().find_map(count)
}

/// Makes `base`, a group of the root, and has a controller handed down to its own.
pub(super) fn delegate(base: &Path, controller: &str) -> io::Result<()> {
    let root = base.parent().unwrap_or(base);
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    if !controllers
        .split_ascii_whitespace()
        .any(|name| name == controller)
    {
        return Err(io::Error::other(format!("no {controller} controller")));
    }
    // Inside a container this is not the real root, and may be refused.
    let handed = format!("+{controller}");
    fs::write(root.join("cgroup.subtree_control"), &handed)?;
    match fs::create_dir(base) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(base.join("cgroup.subtree_control"), &handed)
}

/// Where groups of a controller are made, by `/proc/self/cgroup` and
/// `/proc/mounts`.
pub(super) fn locate(own: &str, mounts: &str, controller: &str) -> Groups {
    if let Some((mount, path)) = group_of(own, mounts, controller) {
        // Inside a container the path may be that of the host; then the mount
        // itself is the container's group.
        let inner = mount.join(path);
        let base = if inner.is_dir() { inner } else { mount };
        return Groups::V1 { base };
    }
    if let Some(mount) = mounted(mounts, "cgroup2", "") {
        let base = mount.join(V2_GROUP);
        return Groups::V2 { base };
    }
    Groups::None {
        why: format!("no cgroup hierarchy with a {controller} controller is mounted"),
    }
}

/// Where a version 1 hierarchy with a controller is mounted, and the path in it.
fn group_of(own: &str, mounts: &str, controller: &str) -> Option<(PathBuf, String)> {
    let path = group_path(own, controller)?;
    Some((mounted(mounts, "cgroup", controller)?, path))
}

/// The path in the hierarchy with a controller; the one without any is version 2.
fn group_path(own: &str, controller: &str) -> Option<String> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let wanted = controllers.split(',').any(|name| name == controller);
        wanted.then(|| path.trim_start_matches('/').to_owned())
    })
}

fn mounted(mounts: &str, kind: &str, option: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, found, options) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = found == kind && (option.is_empty() || options.split(',').any(|o| o == option));
        fits.then(|| PathBuf::from(at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_where_the_owner_put_a_process_and_nowhere_else() {
        let v1 = "4:memory:/pods/libpod-0a1b\n1:name=systemd:/x\n0::/\n";
        let mixed = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            kills_file(v1, mixed, "0a1b"),
            Some("/sys/fs/cgroup/memory/pods/libpod-0a1b/memory.oom_control".into())
        );
        let pure = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(
            kills_file("0::/system.slice/web.service\n", pure, "web.service"),
            Some("/sys/fs/cgroup/system.slice/web.service/memory.events".into())
        );
        // In a group of the machine, or in that of whoever asked for it.
        assert_eq!(kills_file("4:memory:/\n0::/\n", mixed, "0a1b"), None);
        assert_eq!(kills_file("0::/user.slice\n", pure, "0a1b"), None);
        assert_eq!(kills_file("", "", "0a1b"), None);
    }

    #[test]
    fn a_kill_counts_until_it_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(V1_KILLS);
        assert!(Kills::open(file.clone()).is_none());
        fs::write(&file, "oom_kill 1\n").unwrap();
        let mut kills = Kills::open(file.clone()).unwrap();
        assert!(!kills.more());
        fs::write(&file, "oom_kill 2\n").unwrap();
        assert!(kills.more());
        kills.renew();
        assert!(!kills.more());
        // The group is gone.
        fs::remove_file(&file).unwrap();
        assert!(!kills.more());
    }

    #[test]
    fn the_count_of_kills_is_found_in_either_version() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        assert_eq!(oom_kills(v1), Some(2));
        let v2 = "low 0\nhigh 0\nmax 41\noom 9\noom_kill 3\noom_group_kill 0\n";
        assert_eq!(oom_kills(v2), Some(3));
        // Before Linux 4.17.
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn the_place_is_found_in_either_version() {
        let v1 = locate(
            "4:cpu,memory:/\n0::/\n",
            "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            "memory",
        );
        let base = PathBuf::from("/sys/fs/cgroup/memory/");
        assert_eq!(v1, Groups::V1 { base });
        let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        let base = PathBuf::from("/sys/fs/cgroup/homeostat");
        assert_eq!(
            locate("0::/system.slice/h.service\n", mounts, "memory"),
            Groups::V2 { base }
        );
        for (own, mounts) in [("", ""), ("0::/\n", ""), ("x", "y")] {
            assert!(matches!(locate(own, mounts, "memory"), Groups::None { .. }));
        }
    }
}
