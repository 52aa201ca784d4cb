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
//! SIGKILL. Version 1 counts since Linux 4.17.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use homeostat_common::ids::{NodeId, ServiceId};
use homeostat_common::units::Bytes;
use rustix::process::Pid;

use crate::config::Config;

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

    /// How many processes of the service's group the kernel has killed for
    /// memory; `None` without a group.
    pub(super) fn oom_kills(&self, node: &NodeId, service: &ServiceId) -> Option<u64> {
        let (base, file) = match self {
            Self::V1 { base } => (base, "memory.oom_control"),
            Self::V2 { base } => (base, "memory.events"),
            Self::None { .. } => return None,
        };
        oom_kills(&fs::read_to_string(group(base, node, service).join(file)).ok()?)
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
    let own_path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let wanted = controllers.split(',').any(|name| name == controller);
        wanted.then(|| path.trim_start_matches('/').to_owned())
    });
    let mount = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, found, options) = (fields.next()?, fields.next()?, fields.next()?);
            let fits =
                found == kind && (option.is_empty() || options.split(',').any(|o| o == option));
            fits.then(|| PathBuf::from(at))
        })
    };
    if let (Some(path), Some(mount)) = (own_path, mount("cgroup", controller)) {
        // Inside a container the path may be that of the host; then the mount
        // itself is the container's group.
        let inner = mount.join(path);
        let base = if inner.is_dir() { inner } else { mount };
        return Groups::V1 { base };
    }
    if let Some(mount) = mount("cgroup2", "") {
        let base = mount.join(V2_GROUP);
        return Groups::V2 { base };
    }
    Groups::None {
        why: format!("no cgroup hierarchy with a {controller} controller is mounted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
