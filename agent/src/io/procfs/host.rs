//! The node that the agent runs on, and the agent itself.

use std::path::{Path, PathBuf};

use homeostat_common::observation::{Metric, Reading};
use homeostat_common::units::{Bytes, Micros, Ratio};
use rustix::fs::statvfs;

use super::board::{Board, Slot};
use super::disks::Disks;
use super::network::Network;
use super::node::Node;
use super::power::Power;
use super::pressure::{Pressure, RESOURCES};
use super::process::{Process, ServiceReading};
use super::processors::Processors;
use super::source::Memory;
use super::{Texts, memory, to_f32};
use crate::control::{Battery, Sourced};

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub struct Places<'p> {
    /// Usually `/proc`.
    pub proc: &'p Path,
    /// Usually `/sys`.
    pub sys: &'p Path,
    /// Where the agent keeps its data.
    pub data_dir: &'p Path,
    /// Other file systems that matter, by a folder on each.
    pub file_systems: &'p [PathBuf],
}

/// The host at one moment: what is decided by has a name of its own, the rest is in
/// `sources`.
#[derive(Debug, Clone, PartialEq)]
pub struct HostReading {
    /// Share of all cores that was busy.
    pub cpu_busy: Reading<Ratio>,
    /// Memory that could be had without swapping.
    pub memory_available: Reading<Bytes>,
    /// All memory.
    pub memory_total: Reading<Bytes>,
    /// Share of wall time in which some task waited for a core.
    pub cpu_pressure: Reading<Ratio>,
    /// Share of wall time in which some task waited for IO.
    pub io_pressure: Reading<Ratio>,
    /// Share of wall time in which some task waited for memory.
    pub memory_pressure: Reading<Ratio>,
    /// Free space for the agent where it keeps its data.
    pub disk_free: Reading<Bytes>,
    /// All space there.
    pub disk_total: Reading<Bytes>,
    /// Free inodes there; missing on file systems that have no fixed number.
    pub inodes_free: Reading<u64>,
    /// How the node is supplied; missing without a battery.
    pub battery: Reading<Battery>,
    /// The agent itself.
    pub own: ServiceReading,
    /// Everything else of the node and its parts.
    pub sources: Vec<Sourced>,
    /// Sources that held something else than they should, in this sample.
    pub garbage: u32,
}

/// Samples the host and the agent itself.
#[derive(Debug)]
pub struct Host {
    texts: Texts,
    data_dir: PathBuf,
    board: Board,
    processors: Processors,
    memory: memory::Memory,
    pressure: Pressure,
    disks: Disks,
    network: Network,
    power: Power,
    node: Node,
    own: Process,
    kept: Kept,
    /// Full pressure of IO and memory, and the peaks of all three.
    full: [Slot; 2],
    peaks: [Slot; 3],
}

#[derive(Debug, Default)]
struct Kept {
    cpu_busy: Memory<Ratio>,
    available: Memory<Bytes>,
    total: Memory<Bytes>,
    pressure: [Memory<Ratio>; 3],
    disk_free: Memory<Bytes>,
    disk_total: Memory<Bytes>,
    inodes: Memory<u64>,
    battery: Memory<Battery>,
}

impl Host {
    /// Opens what is there. What is absent is tried again with each sample.
    #[must_use]
    pub fn new(places: &Places<'_>) -> Self {
        let Places {
            proc,
            sys,
            data_dir,
            file_systems,
        } = *places;
        let mut board = Board::default();
        let pressure = RESOURCES.map(|resource| proc.join("pressure").join(resource));
        Self {
            texts: Texts::default(),
            data_dir: data_dir.to_owned(),
            processors: Processors::new(proc, sys, &mut board),
            memory: memory::Memory::new(proc, &mut board),
            pressure: Pressure::new(pressure.iter().map(PathBuf::as_path)),
            disks: Disks::new(proc, sys, file_systems, &mut board),
            network: Network::new(proc, sys, &mut board),
            power: Power::new(sys, &mut board),
            node: Node::new(proc, &mut board),
            own: Process::open(&proc.join("self")),
            kept: Kept::default(),
            full: [Metric::IoPressureFull, Metric::MemoryPressureFull]
                .map(|metric| board.node(metric)),
            peaks: [
                Metric::CpuPressurePeak,
                Metric::IoPressurePeak,
                Metric::MemoryPressurePeak,
            ]
            .map(|metric| board.node(metric)),
            board,
        }
    }

    /// Looks at pressure alone, so that a stall which the next sample would lose in its mean
    /// is seen. Reads three open files.
    pub fn glance(&mut self, now: Micros) {
        self.pressure.glance(now, &mut self.texts);
    }

    /// Samples everything that is due.
    pub fn sample(&mut self, now: Micros) -> HostReading {
        let (texts, board) = (&mut self.texts, &mut self.board);
        (texts.garbage, board.garbage) = (0, 0);
        let busy = self.processors.sample(now, texts, board);
        let memory = self.memory.sample(now, texts, board);
        let pressure = self.pressure.sample(now, texts);
        self.disks.sample(now, texts, board);
        self.network.sample(now, texts, board);
        self.node.sample(now, texts, board);
        let own = self.own.sample(now);
        let ticks = self.own.ticks().zip(self.processors.busy_ticks());
        self.power.sample(now, ticks, texts, board);
        let [_, io, memory_waits] = pressure;
        for (slot, shares) in self.full.into_iter().zip([io, memory_waits]) {
            board.put(now, slot, shares.full);
        }
        let kept = &mut self.kept;
        let mut some = [Reading::Missing; 3];
        for ((at, shares), kept) in pressure.iter().enumerate().zip(&mut kept.pressure) {
            let share = shares.some.map(|share| Ratio::saturating(to_f32(share)));
            if let (Some(some), Some(slot)) = (some.get_mut(at), self.peaks.get(at)) {
                *some = kept.reading(now, share);
                board.put(now, *slot, shares.peak);
            }
        }
        let [cpu_pressure, io_pressure, memory_pressure] = some;
        let disk = statvfs(&self.data_dir).ok();
        let blocks = |count: fn(&rustix::fs::StatVfs) -> u64| {
            disk.as_ref()
                .and_then(|disk| count(disk).checked_mul(disk.f_frsize).map(Bytes))
        };
        // btrfs and some network file systems report no inodes at all.
        let inodes = disk.as_ref().filter(|disk| disk.f_files > 0);
        let available = memory.map(|(available, _)| Bytes(available));
        HostReading {
            cpu_busy: kept.cpu_busy.reading(now, busy),
            memory_available: kept.available.reading(now, available),
            memory_total: kept
                .total
                .reading(now, memory.map(|(_, total)| Bytes(total))),
            cpu_pressure,
            io_pressure,
            memory_pressure,
            disk_free: kept.disk_free.reading(now, blocks(|disk| disk.f_bavail)),
            disk_total: kept.disk_total.reading(now, blocks(|disk| disk.f_blocks)),
            inodes_free: kept.inodes.reading(now, inodes.map(|disk| disk.f_favail)),
            battery: kept.battery.reading(now, self.power.battery()),
            own,
            sources: board.sourced(now),
            garbage: texts.garbage + board.garbage,
        }
    }
}
