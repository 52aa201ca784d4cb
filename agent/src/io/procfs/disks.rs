//! Disks, and the file systems that the configuration names.
//!
//! Each disk has a file of counters of its own below `/sys/block`; partitions, and devices
//! that are made of others or of memory, are left out, so that nothing is counted twice.
//! A file system that is reached over a network is never asked, as the question may hang.

use std::path::{Path, PathBuf};

use homeostat_common::observation::{Metric, Part};
use homeostat_common::units::Micros;
use rustix::fs::statvfs;

use super::board::{Board, Slot, Tier};
use super::deltas::Deltas;
use super::processors::below;
use super::source::{Source, text_up_to};
use super::{Texts, parse};

/// Disks that are looked at, in the order of their names.
const DISKS_MAX: usize = 8;

/// Made of memory, of files, of other disks; drives without a medium; areas of an eMMC that
/// hold no files.
const NO_DISKS: [&str; 8] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"];

/// File systems whose server may be away; what `autofs` mounts when it is asked may be one.
const REMOTE: [&str; 9] = [
    "autofs",
    "nfs",
    "cifs",
    "smb",
    "9p",
    "ceph",
    "fuse.",
    "afs",
    "glusterfs",
];

/// Longest text of mounts that is read.
const MOUNTS_MAX: usize = 256 * 1024;

/// All of them.
#[derive(Debug)]
pub(super) struct Disks {
    sys: PathBuf,
    mounts: PathBuf,
    parts: Tier,
    slow: Tier,
    disks: Vec<Disk>,
    systems: Vec<System>,
}

#[derive(Debug)]
struct Disk {
    part: Part,
    stat: Source,
    deltas: Deltas<7>,
    /// Read, written, requests, busy, await.
    slots: [Slot; 5],
}

#[derive(Debug)]
struct System {
    path: PathBuf,
    remote: bool,
    free: Slot,
    inodes: Slot,
}

impl Disks {
    pub(super) fn new(proc: &Path, sys: &Path, systems: &[PathBuf], board: &mut Board) -> Self {
        let systems = systems.iter().filter_map(|path| {
            let part = Part::new(path.to_str()?)?;
            Some(System {
                path: path.clone(),
                remote: true,
                free: board.part(Metric::DiskFree, &part),
                inodes: board.part(Metric::InodesFree, &part),
            })
        });
        Self {
            sys: sys.to_owned(),
            mounts: proc.join("self/mounts"),
            parts: Tier::PARTS,
            slow: Tier::SLOW,
            disks: Vec::new(),
            systems: systems.collect(),
        }
    }

    pub(super) fn sample(&mut self, now: Micros, texts: &mut Texts, board: &mut Board) {
        if self.parts.due(now) {
            self.find(board);
        }
        for disk in &mut self.disks {
            disk.sample(now, texts, board);
        }
        if !self.slow.due(now) {
            return;
        }
        for system in &self.systems {
            let found = Some(()).filter(|()| !system.remote);
            let found = found.and_then(|()| statvfs(&system.path).ok());
            let free = found.as_ref();
            let free = free.and_then(|found| found.f_bavail.checked_mul(found.f_frsize));
            // btrfs and some others have no fixed number of inodes.
            let inodes = found.filter(|found| found.f_files > 0);
            board.put(now, system.free, free.map(|bytes| bytes as f64));
            let inodes = inodes.map(|found| found.f_favail as f64);
            board.put(now, system.inodes, inodes);
        }
    }

    fn find(&mut self, board: &mut Board) {
        let block = self.sys.join("block");
        let wanted = |name: &str| {
            !NO_DISKS.iter().any(|other| name.starts_with(other))
                && !(name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb")))
        };
        let found: Vec<Part> = below(&block, wanted)
            .iter()
            .filter_map(|path| Part::new(path.file_name()?.to_str()?))
            .take(DISKS_MAX)
            .collect();
        self.disks.retain(|disk| {
            let stays = found.contains(&disk.part);
            for slot in disk.slots.into_iter().filter(|_| !stays) {
                board.drop_row(slot);
            }
            stays
        });
        for part in found {
            if self.disks.iter().all(|disk| disk.part != part) {
                let stat = Source::new(&block.join(part.as_str()).join("stat"));
                let metrics = [
                    Metric::DiskRead,
                    Metric::DiskWritten,
                    Metric::DiskRequests,
                    Metric::DiskBusy,
                    Metric::DiskAwait,
                ];
                self.disks.push(Disk {
                    slots: metrics.map(|metric| board.part(metric, &part)),
                    deltas: Deltas::default(),
                    part,
                    stat,
                });
            }
        }
        let mounts = text_up_to(&self.mounts, MOUNTS_MAX).unwrap_or_default();
        for system in &mut self.systems {
            system.remote = is_remote(&mounts, &system.path);
        }
    }
}

impl Disk {
    fn sample(&mut self, now: Micros, texts: &mut Texts, board: &mut Board) {
        // Reads, merged, sectors, ms; the same of writes; in flight, busy ms.
        let counters = texts.parse(&mut self.stat, parse::numbers::<10>);
        let counters = counters.map(
            |[reads, _, read, read_ms, writes, _, written, ms, _, busy]| {
                [reads, read, read_ms, writes, written, ms, busy]
            },
        );
        let growth = self.deltas.grown(now, counters);
        let [read, written, requests, busy, wait] = self.slots;
        // A sector of these counters is 512 bytes, whatever the disk's are.
        let bytes = |place| growth.map(|growth| growth.rate(place) * 512.0);
        board.put(now, read, bytes(1));
        board.put(now, written, bytes(4));
        let done = growth.map(|growth| growth.rate(0) + growth.rate(3));
        board.put(now, requests, done);
        let share = growth.map(|growth| (growth.rate(6) / 1000.0).clamp(0.0, 1.0));
        board.put(now, busy, share);
        let took = growth.map(|growth| growth.rate(2) + growth.rate(5));
        let each = took.zip(done).filter(|(_, done)| *done > 0.0);
        board.put(now, wait, each.map(|(took, done)| took / done));
    }
}

/// Whether what is mounted last at the deepest place above a path is reached over a network.
/// Without a list of mounts nobody knows, and nobody asks.
fn is_remote(mounts: &str, path: &Path) -> bool {
    let mut deepest: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(at), Some(kind)) = (fields.next(), fields.next()) else {
            continue;
        };
        if path.starts_with(at) && deepest.is_none_or(|(depth, _)| at.len() >= depth) {
            deepest = Some((at.len(), kind));
        }
    }
    deepest.is_none_or(|(_, kind)| REMOTE.iter().any(|remote| kind.starts_with(remote)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_over_a_network_is_told_by_the_deepest_mount() {
        let mounts = "/dev/vda / ext4 rw 0 0\nserver:/x /srv nfs4 rw 0 0\nauto /net autofs rw 0 0\n\
                      /dev/vdb /srv/local ext4 rw 0 0\ntmpfs /srv/late nfs rw 0 0\n\
                      tmpfs /srv/late tmpfs rw 0 0\nbroken\n";
        let remote = |path: &str| is_remote(mounts, Path::new(path));
        assert!(!remote("/var/lib") && remote("/srv/models") && remote("/net/models"));
        assert!(!remote("/srv/local/models") && !remote("/srv/late"));
        // Only whole names count.
        assert!(!remote("/srvother"));
        assert!(is_remote("", Path::new("/var")));
    }
}
