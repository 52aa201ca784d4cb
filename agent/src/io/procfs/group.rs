//! What a service takes beside its own process: its workers, and whoever else is in its group.
//!
//! In go the pid of a service and the name that the spawner gives to the group in which it
//! keeps the memory limit, or none for one whose owner (systemd, an engine) made a group for it;
//! out comes the memory of all of the group that belongs to no file, and every 10 s what else
//! the kernel counts of it. A service without a limit has no group, and is its process alone.
//! Both versions of control groups are read, and nothing is written. Version 1 has a tree for
//! each resource, and the service may have a group of its own in only some of them; it has no
//! pressure. Counters of reads and writes include each layer of stacked disks.

use std::path::{Path, PathBuf};

use homeostat_common::observation::Metric;
use homeostat_common::units::Micros;

use super::board::{Board, Slot, Tier};
use super::deltas::Deltas;
use super::pressure::{Pressure, RESOURCES};
use super::source::{Source, small, text_up_to};
use super::{Texts, parse};

/// A process is moved into its group within milliseconds of its start; one that was not found
/// there so often is in none.
const LOOKS_MAX: u8 = 10;

/// Longest list of mounts that is read.
const MOUNTS_MAX: usize = 256 * 1024;

/// A limit that is none: version 1 tells the largest number of pages.
const UNLIMITED: u64 = 1 << 62;

/// Which group is the service's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// The one of this name, if it is in it: made by the spawner.
    Named(String),
    /// Whichever it is in, but for the root: made by its owner for it alone.
    Own,
}

/// The group of one service.
#[derive(Debug)]
pub(super) struct Group {
    proc: PathBuf,
    pid: u32,
    membership: Membership,
    looks: u8,
    files: Option<Files>,
    slow: Tier,
}

/// What is open of it. Each is absent where the tree of its resource has no such group.
#[derive(Debug)]
struct Files {
    stat: Option<Source>,
    memory: Option<[Source; 3]>,
    cpu: Option<Source>,
    /// Version 1 alone: there it is a file of its own.
    usage: Option<Source>,
    tasks: Option<Source>,
    io: Option<Source>,
    pressure: Option<Pressure>,
    used: Deltas<1>,
    throttled: Deltas<1>,
    killed: Deltas<1>,
    moved: Deltas<2>,
    slots: Slots,
}

#[derive(Debug)]
struct Slots {
    memory: Option<[Slot; 3]>,
    cpu: Option<[Slot; 2]>,
    tasks: Option<Slot>,
    pressure: Option<[Slot; 3]>,
}

impl Group {
    pub(super) fn new(proc: &Path, pid: u32, membership: Membership) -> Self {
        Self {
            proc: proc.to_owned(),
            pid,
            membership,
            looks: 0,
            files: None,
            slow: Tier::SLOW,
        }
    }

    /// Bytes that its members hold and that belong to no file.
    pub(super) fn anonymous(&mut self, texts: &mut Texts, board: &mut Board) -> Option<u64> {
        if self.files.is_none() {
            if self.looks >= LOOKS_MAX {
                return None;
            }
            self.looks += 1;
            self.files = self.find(board);
        }
        let stat = self.files.as_mut()?.stat.as_mut()?;
        texts.parse(stat, parse::group_anonymous)
    }

    /// The rest, when it is due. `io` are the slots for what was read and written; says
    /// whether it knew that.
    pub(super) fn sample(
        &mut self,
        now: Micros,
        io: [Slot; 2],
        texts: &mut Texts,
        board: &mut Board,
    ) -> bool {
        let Some(files) = &mut self.files else {
            return false;
        };
        if self.slow.due(now) {
            files.sample(now, io, texts, board);
        }
        files.io.is_some()
    }

    fn find(&self, board: &mut Board) -> Option<Files> {
        let own = small(&self.proc.join(self.pid.to_string()).join("cgroup"))?;
        let mounts = text_up_to(&self.proc.join("self/mounts"), MOUNTS_MAX)?;
        let at = |controller: &str| folder(&own, &mounts, controller, &self.membership);
        let source = |controller: &str, one: &str, two: &str| {
            let (path, first) = at(controller)?;
            let path = path.join(if first { one } else { two });
            path.is_file().then(|| Source::new(&path))
        };
        let stat = source("memory", "memory.stat", "memory.stat");
        let used = source("memory", "memory.usage_in_bytes", "memory.current");
        let limit = source("memory", "memory.limit_in_bytes", "memory.max");
        let events = source("memory", "memory.oom_control", "memory.events");
        let memory = match (used, limit, events) {
            (Some(used), Some(limit), Some(events)) => Some([used, limit, events]),
            _ => None,
        };
        let cpu = source("cpu", "cpu.stat", "cpu.stat");
        let tasks = source("pids", "pids.current", "pids.current");
        let io = source("blkio", "blkio.throttle.io_service_bytes", "io.stat");
        let pressure = at("cpu").and_then(|(path, first)| {
            let files = RESOURCES.map(|resource| path.join(format!("{resource}.pressure")));
            let there = !first && files.iter().all(|file| file.exists());
            there.then(|| Pressure::new(files.iter().map(PathBuf::as_path)))
        });
        if [&stat, &cpu, &tasks, &io].iter().all(|file| file.is_none()) {
            return None;
        }
        let mut slot = |metric| board.node(metric);
        let slots = Slots {
            memory: memory.is_some().then(|| {
                [
                    Metric::GroupMemory,
                    Metric::GroupMemoryUsed,
                    Metric::GroupOomKills,
                ]
                .map(&mut slot)
            }),
            cpu: cpu
                .is_some()
                .then(|| [Metric::GroupCpu, Metric::CpuThrottled].map(&mut slot)),
            tasks: tasks.is_some().then(|| slot(Metric::GroupTasks)),
            pressure: pressure.is_some().then(|| {
                [
                    Metric::GroupCpuPressure,
                    Metric::GroupIoPressure,
                    Metric::GroupMemoryPressure,
                ]
                .map(&mut slot)
            }),
        };
        Some(Files {
            stat,
            memory,
            cpu,
            usage: source("cpuacct", "cpuacct.usage", ""),
            tasks,
            io,
            pressure,
            used: Deltas::default(),
            throttled: Deltas::default(),
            killed: Deltas::default(),
            moved: Deltas::default(),
            slots,
        })
    }
}

impl Files {
    fn sample(&mut self, now: Micros, io: [Slot; 2], texts: &mut Texts, board: &mut Board) {
        if let (Some([used, limit, events]), Some(slots)) = (&mut self.memory, self.slots.memory) {
            let used = texts.parse(used, parse::count);
            let limit = texts.parse(limit, parse::limit).flatten();
            let limit = limit.filter(|limit| (1..UNLIMITED).contains(limit));
            let kills = texts.parse(events, |text| parse::field(text, "oom_kill"));
            let kills = self.killed.grown(now, kills.map(|kills| [kills]));
            let share = used
                .zip(limit)
                .map(|(used, limit)| used as f64 / limit as f64);
            let [memory, part, killed] = slots;
            board.put(now, memory, used.map(|used| used as f64));
            board.put(now, part, share);
            board.put(now, killed, kills.map(|kills| kills.rate(0)));
        }
        if let (Some(cpu), Some([cores, throttled])) = (&mut self.cpu, self.slots.cpu) {
            let (used, held) = texts.parse(cpu, parse::group_cpu).unwrap_or_default();
            let usage = self.usage.as_mut();
            // Nanoseconds in version 1.
            let usage = usage.and_then(|usage| texts.parse(usage, parse::count));
            let used = used.or(usage.map(|ns| ns / 1000));
            let seconds = |growth: Option<super::deltas::Growth<1>>| Some(growth?.rate(0) / 1e6);
            let used = seconds(self.used.grown(now, used.map(|used| [used])));
            let held = seconds(self.throttled.grown(now, held.map(|held| [held])));
            board.put(now, cores, used);
            // Each of several cores is held back for itself.
            board.put(now, throttled, held.map(|held| held.min(1.0)));
        }
        if let (Some(tasks), Some(slot)) = (&mut self.tasks, self.slots.tasks) {
            let tasks = texts.parse(tasks, parse::count);
            board.put(now, slot, tasks.map(|tasks| tasks as f64));
        }
        if let Some(file) = &mut self.io {
            let moved = texts.parse(file, parse::group_io);
            let moved = self.moved.grown(now, moved);
            for (place, slot) in io.into_iter().enumerate() {
                board.put(now, slot, moved.map(|moved| moved.rate(place)));
            }
        }
        if let (Some(pressure), Some(slots)) = (&mut self.pressure, self.slots.pressure) {
            let shares = pressure.sample(now, texts);
            for (slot, shares) in slots.into_iter().zip(shares) {
                board.put(now, slot, shares.some);
            }
        }
    }
}

/// Whether the groups of a process, as `PID/cgroup` names them, include one of this name.
pub(super) fn is_in(groups: &str, name: &str) -> bool {
    groups.lines().any(|line| path(line).ends_with(name))
}

fn path(line: &str) -> &Path {
    Path::new(line.splitn(3, ':').nth(2).unwrap_or_default())
}

/// Where the group is, if the process is in it and it has to do with this resource, and
/// whether it is one of version 1.
fn folder(
    groups: &str,
    mounts: &str,
    controller: &str,
    membership: &Membership,
) -> Option<(PathBuf, bool)> {
    let fits = |line: &&str| {
        let controllers = line.split(':').nth(1).unwrap_or_default();
        controllers.is_empty() || controllers.split(',').any(|one| one == controller)
    };
    let is_its = |line: &&str| match membership {
        Membership::Named(name) => path(line).ends_with(name),
        Membership::Own => path(line) != Path::new("/"),
    };
    let lines = || groups.lines().filter(fits).filter(is_its);
    let is_first = |line: &str| line.split(':').nth(1).is_some_and(|one| !one.is_empty());
    // Where both versions are mounted, that of version 1 has the resource.
    let found = lines()
        .find(|line| is_first(line))
        .or_else(|| lines().next())?;
    let first = is_first(found);
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = if first {
            kind == "cgroup" && options.split(',').any(|one| one == controller)
        } else {
            kind == "cgroup2"
        };
        fits.then(|| PathBuf::from(at))
    })?;
    // Inside a container the path may be that of the host; then the mount itself is where the
    // spawner's groups are.
    let inner = mount.join(path(found).strip_prefix("/").ok()?);
    let there = match membership {
        _ if inner.is_dir() => inner,
        Membership::Named(name) => mount.join(name),
        Membership::Own => return None,
    };
    Some((there, first))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_group_is_found_in_either_version_and_only_by_its_whole_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let name = "homeostat-n-web";
        let named = Membership::Named(name.into());
        let memory = |groups: &str, mounts: &str, membership: &Membership| {
            folder(groups, mounts, "memory", membership).map(|(path, _)| path)
        };
        fs::create_dir_all(dir.path().join("memory/above").join(name)).unwrap();
        let mounts = format!(
            "cgroup {at}/cpu cgroup rw,cpu 0 0\ncgroup {at}/memory cgroup rw,memory 0 0\n\
             cgroup2 {at}/unified cgroup2 rw 0 0\n"
        );
        let first = format!("4:cpu:/\n9:memory:/above/{name}\n0::/\n");
        let found = memory(&first, &mounts, &named);
        assert_eq!(found, Some(dir.path().join("memory/above").join(name)));
        // A path of the host.
        let host = format!("9:memory:/docker/{name}\n");
        let found = memory(&host, &mounts, &named);
        assert_eq!(found, Some(dir.path().join("memory").join(name)));
        let second = format!("0::/homeostat/{name}\n");
        let found = memory(&second, &mounts, &named);
        assert_eq!(found, Some(dir.path().join("unified").join(name)));
        assert!(is_in(&second, name) && is_in(&first, name));
        for other in ["homeostat-n-we", "n-web", "web"] {
            assert!(!is_in(&first, other));
            assert_eq!(
                memory(&first, &mounts, &Membership::Named(other.into())),
                None
            );
        }
        assert_eq!(memory("", "", &named), None);
        // Of one whose owner made it a group, that; the root is nobody's.
        fs::create_dir_all(dir.path().join("unified/system.slice/web.service")).unwrap();
        let unit = "9:memory:/\n0::/system.slice/web.service\n";
        let found = folder(unit, &mounts, "pids", &Membership::Own);
        let there = dir.path().join("unified/system.slice/web.service");
        assert_eq!(found, Some((there, false)));
        assert_eq!(memory("9:memory:/\n", &mounts, &Membership::Own), None);
    }

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// All that is told of a process 7 whose group is looked at twice, ten seconds apart.
    fn told(root: &Path, membership: Membership, between: impl Fn(&Path)) -> Vec<String> {
        let mut texts = Texts::default();
        let mut board = Board::default();
        let io = [Metric::ServiceRead, Metric::ServiceWritten].map(|metric| board.node(metric));
        let mut group = Group::new(root, 7, membership);
        assert_eq!(group.anonymous(&mut texts, &mut board), Some(4096));
        group.sample(Micros(0), io, &mut texts, &mut board);
        between(root);
        group.sample(Micros(10_000_000), io, &mut texts, &mut board);
        assert_eq!(texts.garbage, 0);
        let all = board.sourced(Micros(10_000_000)).into_iter();
        let fresh = all.filter_map(|source| {
            let value = source.reading.reading.fresh()?;
            Some(format!("{} {value}", source.reading.metric.name()))
        });
        fresh.collect()
    }

    #[test]
    fn a_group_of_version_2_tells_all_of_itself() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        write(dir.path(), "7/cgroup", "0::/system.slice/web.service\n");
        write(
            dir.path(),
            "self/mounts",
            &format!("cgroup2 {at}/cg cgroup2 rw 0 0\n"),
        );
        let counters = |root: &Path, seconds: u64| {
            let file = |name: &str, text: String| {
                write(root, &format!("cg/system.slice/web.service/{name}"), &text);
            };
            let n = |per_second: u64| per_second * seconds;
            file("memory.stat", "anon 4096\nfile 1\n".into());
            file("memory.current", "8192\n".into());
            file("memory.max", "32768\n".into());
            file(
                "memory.events",
                format!("low 0\noom 9\noom_kill {}\n", n(1)),
            );
            file(
                "cpu.stat",
                format!("usage_usec {}\nthrottled_usec {}\n", n(500_000), n(250_000)),
            );
            file("pids.current", "12\n".into());
            file(
                "io.stat",
                format!("8:0 rbytes={} wbytes={}\n", n(100), n(200)),
            );
            for resource in RESOURCES {
                let text = format!("some avg10=0.00 total={}\n", n(125_000));
                file(&format!("{resource}.pressure"), text);
            }
        };
        counters(dir.path(), 0);
        let told = told(dir.path(), Membership::Own, |root| counters(root, 10));
        let expected = [
            "service_read 100",
            "service_written 200",
            "group_memory 8192",
            "group_memory_used 0.25",
            "group_oom_kills 1",
            "group_cpu 0.5",
            "cpu_throttled 0.25",
            "group_tasks 12",
            "group_cpu_pressure 0.125",
            "group_io_pressure 0.125",
            "group_memory_pressure 0.125",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_group_of_version_1_tells_what_its_trees_know() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let name = "homeostat-n-web";
        // Only memory and processors have a group of this name.
        let groups = format!("9:memory:/{name}\n4:cpu,cpuacct:/{name}\n3:pids:/\n2:blkio:/\n");
        write(dir.path(), "7/cgroup", &groups);
        let mounts = format!(
            "cgroup {at}/memory cgroup rw,memory 0 0\n\
             cgroup {at}/cpu cgroup rw,cpu,cpuacct 0 0\n\
             cgroup {at}/pids cgroup rw,pids 0 0\ncgroup {at}/blkio cgroup rw,blkio 0 0\n"
        );
        write(dir.path(), "self/mounts", &mounts);
        write(dir.path(), "pids/pids.current", "999\n");
        let counters = |root: &Path, seconds: u64| {
            let file = |tree: &str, text: &str| write(root, &tree.replace('@', name), text);
            file("memory/@/memory.stat", "rss 1\ntotal_rss 4096\n");
            file("memory/@/memory.usage_in_bytes", "8192\n");
            // No limit.
            file("memory/@/memory.limit_in_bytes", "9223372036854771712\n");
            file("memory/@/memory.oom_control", "under_oom 0\noom_kill 0\n");
            let ns = seconds * 1_500_000_000;
            file("cpu/@/cpuacct.usage", &format!("{ns}\n"));
            file("cpu/@/cpu.stat", &format!("throttled_time {}\n", ns / 3));
        };
        counters(dir.path(), 0);
        let named = Membership::Named(name.into());
        let told = told(dir.path(), named, |root| counters(root, 10));
        let expected = [
            "group_memory 8192",
            "group_oom_kills 0",
            "group_cpu 1.5",
            "cpu_throttled 0.5",
        ];
        assert_eq!(told, expected);
    }
}
