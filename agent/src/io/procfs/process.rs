//! One process: the agent itself, or that of a service.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use homeostat_common::observation::{Metric, Reading};
use homeostat_common::units::{Bytes, Micros, Ratio};
use rustix::fs::{CWD, Dir, Mode, OFlags, fstat, openat};
use rustix::param::{clock_ticks_per_second, page_size};

use super::board::{Board, Slot, Tier};
use super::deltas::Deltas;
use super::group::{Group, Membership};
use super::source::{Memory, Rate, Source};
use super::threads::Threads;
use super::{Texts, parse, share, to_f32};
use crate::control::Sourced;

/// Descriptors counted one by one where the kernel does not know their number (before
/// 6.2): beyond this the count stops, as it costs 0.1 us each.
const DESCRIPTORS_MAX: u64 = 65_536;

/// A process at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServiceReading {
    /// Resident memory.
    pub resident: Reading<Bytes>,
    /// The part of it that is not backed by a file or shared.
    pub anonymous: Reading<Bytes>,
    /// Cores used.
    pub cpu: Reading<f32>,
    /// Open file descriptors; missing for a process of another user where the kernel
    /// is older than 6.2.
    pub descriptors: Reading<u64>,
    /// How many it may have open; missing where there is no limit.
    pub descriptor_limit: Reading<u64>,
    /// Threads.
    pub threads: Reading<u64>,
    /// `R`, `S`, `D`, `T` (stopped), `Z`, ..
    pub state: Reading<char>,
    /// Share of wall time in which the main thread was ready and did not run; of the
    /// most delayed thread, once all were looked at.
    pub run_delay: Reading<Ratio>,
    /// Whether a thread wanted to run since the last look at all of them, and never did.
    pub starved: Reading<bool>,
    /// Start in clock ticks since boot: with the pid it names the process for good.
    pub started: Reading<u64>,
    /// What is read and written, and what there is to know of its group; each names no
    /// service yet.
    pub sources: Vec<Sourced>,
    /// Sources that held something else than they should, in this sample.
    pub garbage: u32,
}

/// Samples one process. Once that process is dead it never speaks of another that
/// was given the same pid: open files of `/proc/PID` stay with the process, and
/// reopened ones are compared by start time.
#[derive(Debug)]
pub struct Process {
    texts: Texts,
    stat: Source,
    statm: Source,
    schedstat: Source,
    threads: Threads,
    limits: Source,
    io: Source,
    moved: Deltas<2>,
    slow: Tier,
    board: Board,
    /// Read and written.
    io_slots: [Slot; 2],
    group: Option<Group>,
    fds: PathBuf,
    fd_dir: Option<OwnedFd>,
    started: Option<u64>,
    /// Of processor time, as of the last sample.
    used: Option<u64>,
    ticks: Rate,
    delay: Rate,
    kept: KeptProcess,
}

#[derive(Debug, Default)]
struct KeptProcess {
    resident: Memory<Bytes>,
    anonymous: Memory<Bytes>,
    cpu: Memory<f32>,
    descriptors: Memory<u64>,
    descriptor_limit: Memory<u64>,
    threads: Memory<u64>,
    state: Memory<char>,
    run_delay: Memory<Ratio>,
    started: Memory<u64>,
}

impl Process {
    /// Opens the sources of a process below `proc`.
    #[must_use]
    pub fn new(proc: &Path, pid: u32) -> Self {
        Self::open(&proc.join(pid.to_string()))
    }

    /// The same, of whatever is in its group too.
    #[must_use]
    pub fn in_group(proc: &Path, pid: u32, membership: Membership) -> Self {
        Self {
            group: Some(Group::new(proc, pid, membership)),
            ..Self::new(proc, pid)
        }
    }

    pub(super) fn open(folder: &Path) -> Self {
        let mut board = Board::default();
        let io_slots =
            [Metric::ServiceRead, Metric::ServiceWritten].map(|metric| board.node(metric));
        Self {
            texts: Texts::default(),
            io: Source::new(&folder.join("io")),
            moved: Deltas::default(),
            slow: Tier::SLOW,
            board,
            io_slots,
            stat: Source::new(&folder.join("stat")),
            statm: Source::new(&folder.join("statm")),
            schedstat: Source::new(&folder.join("schedstat")),
            threads: Threads::new(folder),
            limits: Source::new(&folder.join("limits")),
            group: None,
            fd_dir: open_path(&folder.join("fd")),
            fds: folder.join("fd"),
            started: None,
            used: None,
            ticks: Rate::default(),
            delay: Rate::default(),
            kept: KeptProcess::default(),
        }
    }

    /// Ticks of processor time that it has used, as of the last sample.
    pub(super) fn ticks(&self) -> Option<u64> {
        self.used
    }

    /// Samples it.
    pub fn sample(&mut self, now: Micros) -> ServiceReading {
        let texts = &mut self.texts;
        (texts.garbage, self.board.garbage) = (0, 0);
        let stat = texts.parse(&mut self.stat, parse::stat);
        // Another process has that pid now; nothing of it is ours.
        let stat = stat.filter(|stat| *self.started.get_or_insert(stat.started) == stat.started);
        self.used = stat.map(|stat| stat.ticks);
        let (mut pages, mut delay, mut descriptors, mut limit) = (None, None, None, None);
        if stat.is_some() {
            pages = texts.parse(&mut self.statm, parse::statm);
            delay = texts.parse(&mut self.schedstat, parse::run_delay);
            limit = texts.parse(&mut self.limits, parse::open_files).flatten();
            descriptors = self.descriptors();
        }
        let bytes = |pages: u64| pages.checked_mul(page_size() as u64);
        let resident = pages.and_then(|(resident, _)| bytes(resident));
        let anonymous = pages.and_then(|(resident, shared)| bytes(resident.saturating_sub(shared)));
        // What others of its group hold beside it.
        let group = self.group.as_mut().filter(|_| stat.is_some());
        let group = group.and_then(|group| group.anonymous(&mut self.texts, &mut self.board));
        let beside = group
            .zip(anonymous)
            .map_or(0, |(all, own)| all.saturating_sub(own));
        self.look_slowly(now, stat.is_some());
        let whole = |own: Option<u64>| own.map(|own| Bytes(own.saturating_add(beside)));
        let cores = self
            .ticks
            .per_second(now, stat.map(|stat| stat.ticks))
            .map(|ticks| to_f32(ticks / clock_ticks_per_second() as f64));
        let delayed = self.delay.per_second(now, delay).map(|ns| share(ns / 1e9));
        let kept = &mut self.kept;
        ServiceReading {
            resident: kept.resident.reading(now, whole(resident)),
            anonymous: kept.anonymous.reading(now, whole(anonymous)),
            cpu: kept.cpu.reading(now, cores),
            descriptors: kept.descriptors.reading(now, descriptors),
            descriptor_limit: kept.descriptor_limit.reading(now, limit),
            threads: kept.threads.reading(now, stat.map(|stat| stat.threads)),
            state: kept.state.reading(now, stat.map(|stat| stat.state)),
            run_delay: kept.run_delay.reading(now, delayed),
            starved: Reading::Missing,
            started: kept.started.reading(now, stat.map(|stat| stat.started)),
            sources: self.board.sourced(now),
            garbage: self.texts.garbage + self.board.garbage,
        }
    }

    /// What was read and written, of its group if that knows it; others may not see it of a
    /// process of another user.
    fn look_slowly(&mut self, now: Micros, lives: bool) {
        let (texts, board) = (&mut self.texts, &mut self.board);
        let group = self.group.as_mut().filter(|_| lives);
        if group.is_some_and(|group| group.sample(now, self.io_slots, texts, board))
            || !self.slow.due(now)
        {
            return;
        }
        let moved = texts
            .parse(&mut self.io, parse::disk_bytes)
            .filter(|_| lives);
        let moved = self.moved.grown(now, moved);
        for (place, slot) in self.io_slots.into_iter().enumerate() {
            board.put(now, slot, moved.map(|moved| moved.rate(place)));
        }
    }

    /// Samples it and looks at its threads, because it is silent.
    pub fn threads(&mut self, now: Micros) -> ServiceReading {
        let reading = self.sample(now);
        // Threads of another process that was given its pid are none of ours.
        if reading.state.fresh().is_none() {
            return reading;
        }
        match self.threads.look(now) {
            Some(look) => ServiceReading {
                run_delay: Reading::Fresh(look.run_delay),
                starved: Reading::Fresh(look.starved),
                ..reading
            },
            None => reading,
        }
    }

    /// Since Linux 6.2 the size of the folder is their number; before, it is 0.
    fn descriptors(&mut self) -> Option<u64> {
        if self.fd_dir.is_none() {
            self.fd_dir = open_path(&self.fds);
        }
        let folder = self.fd_dir.as_ref()?;
        let known = fstat(folder)
            .ok()
            .and_then(|stat| u64::try_from(stat.st_size).ok());
        if known.is_some_and(|size| size > 0) {
            return known;
        }
        let listed = openat(
            folder,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        );
        let entries = Dir::read_from(listed.ok()?).ok()?;
        let entries = entries
            .filter_map(Result::ok)
            .filter(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."));
        let mut count = 0;
        for _ in entries {
            count += 1;
            if count >= DESCRIPTORS_MAX {
                break;
            }
        }
        Some(count)
    }
}

/// A handle that only names a folder: the kernel gives it for a process of another
/// user too, and tells its size.
fn open_path(folder: &Path) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, folder, flags, Mode::empty()).ok()
}
