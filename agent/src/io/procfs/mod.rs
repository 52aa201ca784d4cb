//! What the kernel says of the host and of each service.
//!
//! In goes a tree like `/proc` (a parameter, so that tests ship their own), out come
//! readings. A source that is absent is [`Reading::Missing`], one that fell silent
//! [`Reading::Stale`]; neither is ever 0. Text that cannot be understood is a missing
//! value and counted in [`HostReading::garbage`] and [`ServiceReading::garbage`].
//!
//! Shares and rates are between two samples of one sampler, whose period is the
//! caller's; the first sample has none. Files stay open. Judges nothing. Run delay is
//! that of the main thread, unless all threads are asked for ([`Process::threads`]).

mod group;
mod parse;
mod source;
pub mod strangers;
#[cfg(test)]
mod tests;
mod threads;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use homeostat_common::observation::Reading;
use homeostat_common::units::{Bytes, Micros, Ratio};
use rustix::fs::{CWD, Dir, Mode, OFlags, fstat, openat, statvfs};
use rustix::param::{clock_ticks_per_second, page_size};

use self::group::Group;
use self::source::{Memory, NoText, Rate, Source, TEXT_MAX};
use self::threads::Threads;

/// Descriptors counted one by one where the kernel does not know their number (before
/// 6.2): beyond this the count stops, as it costs 0.1 us each.
const DESCRIPTORS_MAX: u64 = 65_536;

/// The host at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostReading {
    /// Share of all cores that was busy.
    pub cpu_busy: Reading<Ratio>,
    /// Runnable tasks, averaged over a minute.
    pub load: Reading<f32>,
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
    /// Bytes received since boot by all interfaces but loopback.
    pub net_received: Reading<Bytes>,
    /// Bytes sent.
    pub net_sent: Reading<Bytes>,
    /// The agent itself.
    pub own: ServiceReading,
    /// Sources that held something else than they should, in this sample.
    pub garbage: u32,
}

/// A process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
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
    /// Sources that held something else than they should, in this sample.
    pub garbage: u32,
}

/// Samples the host and the agent itself.
#[derive(Debug)]
pub struct Host {
    texts: Texts,
    data_dir: PathBuf,
    stat: Source,
    load: Source,
    memory: Source,
    pressure: [Source; 3],
    net: Source,
    own: Process,
    ticks: Option<parse::CpuTicks>,
    pressure_rates: [Rate; 3],
    kept: Kept,
}

#[derive(Debug, Default)]
struct Kept {
    cpu_busy: Memory<Ratio>,
    load: Memory<f32>,
    available: Memory<Bytes>,
    total: Memory<Bytes>,
    pressure: [Memory<Ratio>; 3],
    disk_free: Memory<Bytes>,
    disk_total: Memory<Bytes>,
    inodes: Memory<u64>,
    received: Memory<Bytes>,
    sent: Memory<Bytes>,
}

impl Host {
    /// Opens the sources below `proc` (usually `/proc`). Those that are absent are
    /// tried again with each sample.
    #[must_use]
    pub fn new(proc: &Path, data_dir: &Path) -> Self {
        let source = |name: &str| Source::new(&proc.join(name));
        Self {
            texts: Texts::default(),
            data_dir: data_dir.to_owned(),
            stat: source("stat"),
            load: source("loadavg"),
            memory: source("meminfo"),
            pressure: ["pressure/cpu", "pressure/io", "pressure/memory"].map(source),
            net: source("net/dev"),
            own: Process::open(&proc.join("self")),
            ticks: None,
            pressure_rates: [Rate::default(); 3],
            kept: Kept::default(),
        }
    }

    /// Samples everything.
    pub fn sample(&mut self, now: Micros) -> HostReading {
        let kept = &mut self.kept;
        let texts = &mut self.texts;
        texts.garbage = 0;
        let ticks = texts.parse(&mut self.stat, parse::cpu_ticks);
        let busy = ticks.zip(self.ticks).and_then(busy_share);
        self.ticks = ticks;
        let memory = texts.parse(&mut self.memory, |text| {
            let available = parse::meminfo(text, "MemAvailable")?;
            Some((available, parse::meminfo(text, "MemTotal")?))
        });
        let net = texts.parse(&mut self.net, parse::net_dev);
        let [cpu_pressure, io_pressure, memory_pressure] = {
            let mut all = [Reading::Missing; 3];
            let sources = self.pressure.iter_mut().zip(&mut self.pressure_rates);
            for ((reading, (source, rate)), kept) in
                all.iter_mut().zip(sources).zip(&mut kept.pressure)
            {
                let total = texts.parse(source, parse::pressure_total);
                let share = rate
                    .per_second(now, total)
                    .map(|micros| share(micros / 1e6));
                *reading = kept.reading(now, share);
            }
            all
        };
        let disk = statvfs(&self.data_dir).ok();
        let blocks = |count: fn(&rustix::fs::StatVfs) -> u64| {
            disk.as_ref()
                .and_then(|disk| count(disk).checked_mul(disk.f_frsize).map(Bytes))
        };
        // btrfs and some network file systems report no inodes at all.
        let inodes = disk.as_ref().filter(|disk| disk.f_files > 0);
        HostReading {
            cpu_busy: kept.cpu_busy.reading(now, busy),
            load: kept
                .load
                .reading(now, texts.parse(&mut self.load, parse::load)),
            memory_available: kept
                .available
                .reading(now, memory.map(|(available, _)| Bytes(available))),
            memory_total: kept
                .total
                .reading(now, memory.map(|(_, total)| Bytes(total))),
            cpu_pressure,
            io_pressure,
            memory_pressure,
            disk_free: kept.disk_free.reading(now, blocks(|disk| disk.f_bavail)),
            disk_total: kept.disk_total.reading(now, blocks(|disk| disk.f_blocks)),
            inodes_free: kept.inodes.reading(now, inodes.map(|disk| disk.f_favail)),
            net_received: kept
                .received
                .reading(now, net.map(|(bytes, _)| Bytes(bytes))),
            net_sent: kept.sent.reading(now, net.map(|(_, bytes)| Bytes(bytes))),
            own: self.own.sample(now),
            garbage: texts.garbage,
        }
    }
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
    group: Option<Group>,
    fds: PathBuf,
    fd_dir: Option<OwnedFd>,
    started: Option<u64>,
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

    /// The same, of whatever is in the group of this name too, if the process is.
    #[must_use]
    pub fn in_group(proc: &Path, pid: u32, name: String) -> Self {
        Self {
            group: Some(Group::new(proc, pid, name)),
            ..Self::new(proc, pid)
        }
    }

    fn open(folder: &Path) -> Self {
        Self {
            texts: Texts::default(),
            stat: Source::new(&folder.join("stat")),
            statm: Source::new(&folder.join("statm")),
            schedstat: Source::new(&folder.join("schedstat")),
            threads: Threads::new(folder),
            limits: Source::new(&folder.join("limits")),
            group: None,
            fd_dir: open_path(&folder.join("fd")),
            fds: folder.join("fd"),
            started: None,
            ticks: Rate::default(),
            delay: Rate::default(),
            kept: KeptProcess::default(),
        }
    }

    /// Samples it.
    pub fn sample(&mut self, now: Micros) -> ServiceReading {
        let texts = &mut self.texts;
        texts.garbage = 0;
        let stat = texts.parse(&mut self.stat, parse::stat);
        // Another process has that pid now; nothing of it is ours.
        let stat = stat.filter(|stat| *self.started.get_or_insert(stat.started) == stat.started);
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
        let group = group.and_then(|group| group.anonymous(&mut self.texts));
        let beside = group
            .zip(anonymous)
            .map_or(0, |(all, own)| all.saturating_sub(own));
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
            garbage: self.texts.garbage,
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

/// A buffer for texts, and how many of them made no sense.
#[derive(Debug)]
struct Texts {
    buffer: Vec<u8>,
    garbage: u32,
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            buffer: vec![0; TEXT_MAX],
            garbage: 0,
        }
    }
}

impl Texts {
    fn parse<T>(&mut self, source: &mut Source, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        match source.read(&mut self.buffer) {
            Ok(text) => {
                let value = parse(text);
                self.garbage += u32::from(value.is_none());
                value
            }
            Err(NoText::Garbage) => {
                self.garbage += 1;
                None
            }
            Err(NoText::Absent) => None,
        }
    }
}

fn busy_share((now, before): (parse::CpuTicks, parse::CpuTicks)) -> Option<Ratio> {
    let all = now.all.checked_sub(before.all).filter(|all| *all > 0)?;
    // Idle time may step back by a tick on some kernels.
    let busy = now.busy.saturating_sub(before.busy);
    Some(share(busy as f64 / all as f64))
}

fn share(share: f64) -> Ratio {
    Ratio::saturating(to_f32(share))
}

#[allow(clippy::cast_possible_truncation)] // seven digits are enough for a share
fn to_f32(value: f64) -> f32 {
    value as f32
}
