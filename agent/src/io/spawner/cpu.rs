//! Shares of the processors, where the machine lets the spawner set them.
//!
//! Version 1: a group below the spawner's own in the hierarchy of the processors.
//! Version 2: a group below `homeostat` at the root, as for memory. Nothing is
//! made before the first limit is asked for. A limit holds for one life.

use std::fs;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use homeostat_common::ids::{NodeId, ServiceId};
use homeostat_common::units::Percent;
use rustix::process::Pid;

use super::cgroup::{Groups, delegate, group, join, locate};

/// Over how long a share is kept; the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// The least that the kernel takes.
const QUOTA_MIN_US: u64 = 1_000;

/// Leaves `pid` and its descendants a share of all processors, or all they can
/// get.
pub(super) fn limit(
    node: &NodeId,
    service: &ServiceId,
    pid: Pid,
    share: Option<Percent>,
) -> Result<(), String> {
    let place = find().map_err(|error| error.to_string())?;
    let group = group(place.base(), node, service);
    let told = |error: io::Error| format!("{}: {error}", group.display());
    if share.is_none() && !group.is_dir() {
        return Ok(());
    }
    set(&place, &group, share).map_err(told)?;
    join(&group, pid).map_err(told)
}

/// Removes the group of a service that has ended.
pub(super) fn release(node: &NodeId, service: &ServiceId) {
    if let Ok(place) = look() {
        // Nothing to remove is the usual case.
        let _ = fs::remove_dir(group(place.base(), node, service));
    }
}

/// A hierarchy that knows processors.
enum Place {
    V1(PathBuf),
    V2(PathBuf),
}

impl Place {
    fn base(&self) -> &Path {
        match self {
            Self::V1(base) | Self::V2(base) => base,
        }
    }
}

fn look() -> Result<Place, String> {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    match locate(&read("/proc/self/cgroup"), &read("/proc/mounts"), "cpu") {
        Groups::V1 { base } => Ok(Place::V1(base)),
        Groups::V2 { base } => Ok(Place::V2(base)),
        Groups::None { why } => Err(why),
    }
}

fn find() -> Result<Place, String> {
    let place = look()?;
    if let Place::V2(base) = &place {
        delegate(base, "cpu").map_err(|error| format!("{}: {error}", base.display()))?;
    }
    Ok(place)
}

fn set(place: &Place, group: &Path, share: Option<Percent>) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let whole = u64::try_from(cores).unwrap_or(1).saturating_mul(PERIOD_US);
    let quota = share.map(|share| share.of(whole).max(QUOTA_MIN_US));
    match place {
        Place::V1(_) => {
            fs::write(group.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
            let quota = quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
            fs::write(group.join("cpu.cfs_quota_us"), quota)
        }
        Place::V2(_) => {
            let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
            fs::write(group.join("cpu.max"), format!("{quota} {PERIOD_US}"))
        }
    }
}
