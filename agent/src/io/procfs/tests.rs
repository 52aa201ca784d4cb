//! Readings of this machine, and of a tree that is broken on purpose.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use homeostat_common::observation::{Metric, Reading};
use homeostat_common::units::{Bytes, Micros, Millis};
use rustix::param::page_size;
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::io::clock;

const PROC: &str = "/proc";

/// A host that is looked at below two folders.
pub(super) fn host(proc: &Path, sys: &Path, systems: &[PathBuf]) -> Host {
    Host::new(&Places {
        proc,
        sys,
        data_dir: proc,
        file_systems: systems,
    })
}

/// The readings of a metric, by part.
pub(super) fn found(reading: &HostReading, metric: Metric) -> Vec<(String, Reading<f64>)> {
    let of = reading.sources.iter().map(|source| &source.reading);
    of.filter(|one| one.metric == metric)
        .map(|one| {
            let part = one.part.as_ref().map_or("", |part| part.as_str());
            (part.to_owned(), one.reading)
        })
        .collect()
}

/// The only one of a metric.
pub(super) fn one(reading: &HostReading, metric: Metric) -> Reading<f64> {
    match &found(reading, metric)[..] {
        [(_, reading)] => *reading,
        other => panic!("{metric:?}: {other:?}"),
    }
}

#[test]
fn this_machine_has_sensible_readings() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::new(&Places {
        proc: Path::new(PROC),
        sys: Path::new("/sys"),
        data_dir: folder.path(),
        file_systems: &["/".into()],
    });
    let first = host.sample(clock::now());
    assert_eq!(first.cpu_busy, Reading::Missing, "one sample has no rate");
    // Burn until the kernel has counted some ticks of 10 ms, however busy it is.
    let burnt = || clock_gettime(ClockId::ThreadCPUTime).tv_nsec;
    let until = burnt() + 50_000_000;
    while burnt() < until {}
    let second = host.sample(clock::now());
    assert!(second.cpu_busy.fresh().unwrap().get() > 0.0);
    let own = &second.own;
    assert!(own.cpu.fresh().unwrap() > 0.0, "{own:?}");
    let resident = own.resident.fresh().unwrap();
    assert!(own.anonymous.fresh().unwrap() <= resident && resident > Bytes::mib(1));
    assert!(second.memory_available.fresh() < second.memory_total.fresh());
    assert!(second.disk_free.fresh().unwrap() > Bytes(0));
    assert!(matches!(one(&second, Metric::Sockets), Reading::Fresh(n) if n >= 1.0));
    assert!(matches!(one(&second, Metric::FilesOpen), Reading::Fresh(n) if n >= 1.0));
    assert!(one(&second, Metric::ClockSynchronised).fresh().is_some());
    let uptime = one(&second, Metric::Uptime).fresh().unwrap();
    assert!((uptime - clock::now().0 as f64 / 1e6).abs() < 60.0);
    let free = found(&second, Metric::DiskFree);
    assert!(matches!(&free[..], [(part, Reading::Fresh(n))] if part == "/" && *n > 0.0));
    assert!(
        one(&second, Metric::CpuCoreMax).fresh()
            >= second.cpu_busy.fresh().map(|it| f64::from(it.get()))
    );
    for source in &second.sources {
        let (least, most) = source.reading.metric.plausible();
        if let Reading::Fresh(value) = source.reading.reading {
            assert!((least..=most).contains(&value), "{source:?}");
        }
    }
    assert!(own.threads.fresh().unwrap() >= 1);
    assert_eq!((second.garbage, own.garbage), (0, 0));
}

#[test]
fn the_descriptors_of_a_process_are_counted() {
    let mut cat = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = Process::new(Path::new(PROC), cat.id());
    // While it becomes `cat` it opens and closes some.
    let folder = Path::new(PROC).join(cat.id().to_string()).join("fd");
    let deadline = clock::now() + Millis(5000);
    let (mut listed, mut sampled) = (0, None);
    while sampled != Some(listed) && clock::now() < deadline {
        listed = fs::read_dir(&folder).unwrap().count() as u64;
        sampled = process.sample(clock::now()).descriptors.fresh();
    }
    assert!(
        listed >= 3 && sampled == Some(listed),
        "{listed} {sampled:?}"
    );
    cat.kill().unwrap();
    cat.wait().unwrap();
}

#[test]
fn a_process_that_stops_and_dies_is_seen_to_and_its_values_grow_old() {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let mut process = Process::new(Path::new(PROC), child.id());
    let alive = process.sample(clock::now());
    assert!(alive.resident.fresh().is_some() && alive.started.fresh().is_some());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let mut state = None;
    for _ in 0..200 {
        state = process.sample(clock::now()).state.fresh();
        if state == Some('T') {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(state, Some('T'));
    child.kill().unwrap();
    child.wait().unwrap();
    let dead = process.sample(clock::now() + Millis(1000));
    let Reading::Stale { last, age } = dead.resident else {
        panic!("{:?}", dead.resident);
    };
    assert!(last > Bytes(0) && age >= Millis(1000));
    assert_eq!(dead.garbage, 0, "absent is not garbage");
}

/// A fake tree: one process with pid 7.
fn tree(folder: &Path, started: u64) {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let stat = format!("7 (x) S 1 7 7 0 -1 0 0 0 0 0 50 50 0 0 20 0 4 0 {started} 0 0 0");
    write("7/stat", &stat);
    write("7/statm", "100 60 20 1 0 1 0\n");
    write("7/schedstat", "0 500000000 9\n");
    write("7/fd/0", "");
    write("stat", "cpu  100 0 0 100 0 0 0 0 0 0\n");
    write("meminfo", "MemTotal: 1000 kB\nMemAvailable: 500 kB\n");
    write("pressure/cpu", "some avg10=0.00 total=1000000\n");
    write("loadavg", "1.50 0 0 1/1 1\n");
}

#[test]
fn a_tree_of_our_own_gives_exact_shares_and_garbage_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let proc = folder.path();
    tree(proc, 1234);
    let mut host = host(proc, proc, &[]);
    host.sample(Micros(0));
    let rewrite = |name: &str, text: &[u8]| fs::write(proc.join(name), text).unwrap();
    rewrite("stat", b"cpu  175 0 0 125 0 0 0 0 0 0\n");
    rewrite("pressure/cpu", b"some avg10=0.00 total=1500000\n");
    let reading = host.sample(Micros(2_000_000));
    assert_eq!(reading.cpu_busy.fresh(), Ratio::new(0.75).ok());
    assert_eq!(reading.cpu_pressure.fresh(), Ratio::new(0.25).ok());
    assert_eq!(reading.io_pressure, Reading::Missing);
    assert_eq!(one(&reading, Metric::Load).fresh(), Some(1.5));
    assert_eq!(reading.memory_available.fresh(), Some(Bytes(512_000)));
    assert_eq!(
        (reading.garbage, reading.own.resident),
        (0, Reading::Missing)
    );

    rewrite("stat", b"cpu  a b c\n");
    rewrite("meminfo", b"\xff\xfe\x00");
    rewrite("loadavg", b"");
    let reading = host.sample(Micros(3_000_000));
    assert_eq!(reading.garbage, 3);
    let age = Millis(1000);
    let last = Bytes(512_000);
    assert_eq!(reading.memory_available, Reading::Stale { last, age });
    // Back again, but there is no difference to take yet.
    rewrite("stat", b"cpu  275 0 0 125 0 0 0 0 0 0\n");
    assert_eq!(host.sample(Micros(4_000_000)).cpu_busy.fresh(), None);
}

#[test]
fn a_sample_right_after_another_one_is_no_news() {
    let folder = tempfile::tempdir().unwrap();
    let proc = folder.path();
    tree(proc, 1234);
    let mut host = host(proc, proc, &[]);
    let waited = |total: u64| {
        let text = format!("some avg10=0.00 total={total}\n");
        fs::write(proc.join("pressure/cpu"), text).unwrap();
    };
    host.sample(Micros(0));
    waited(1_900_000);
    let pressed = host.sample(Micros(1_000_000)).cpu_pressure;
    assert_eq!(pressed.fresh(), Ratio::new(0.9).ok());
    // Nobody waited in the one millisecond since then, as it happens.
    assert_eq!(host.sample(Micros(1_001_000)).cpu_pressure, pressed);
    // What comes later is measured from before that millisecond.
    waited(2_000_000);
    let later = host.sample(Micros(1_200_000)).cpu_pressure;
    assert_eq!(later.fresh(), Ratio::new(0.5).ok());
}

#[test]
fn another_process_with_the_same_pid_is_not_taken_for_the_first() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path(), 1234);
    let mut process = Process::new(folder.path(), 7);
    let first = process.sample(Micros(0));
    assert_eq!(first.threads.fresh(), Some(4));
    assert_eq!(
        first.anonymous.fresh(),
        Some(Bytes(40 * page_size() as u64))
    );
    assert!(first.descriptors.fresh().is_some());
    tree(folder.path(), 5678);
    let other = process.sample(Micros(1_000_000));
    assert_eq!((other.state.fresh(), other.resident.fresh()), (None, None));
    assert_eq!(
        other.started,
        Reading::Stale {
            last: 1234,
            age: Millis(1000)
        }
    );
}
