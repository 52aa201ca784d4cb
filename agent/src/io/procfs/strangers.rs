//! Finds the process that takes most of the processors and is none of ours, and what
//! workers of a service take.
//!
//! In goes a tree like `/proc` and whom we know, out comes at most one process
//! with the cores it used between two looks, and the cores of whoever descends from a
//! service or is in its group. A look reads one file for each
//! process of the node, some 10 us each, so it is only worth its cost while the
//! processors are busy. Judges nothing and touches nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use homeostat_common::units::{Micros, narrow};
use rustix::param::clock_ticks_per_second;

use super::group;
use crate::control::Stranger;

/// Most processes that are looked at; a node has some hundred.
const PROCESSES_MAX: usize = 4096;

/// Generations that are followed upwards: services, their shells, their workers.
const ANCESTORS_MAX: usize = 16;

/// What is measured over less than this is a build step or an update.
const SPAN_MIN_US: u64 = 3_000_000;

/// Whoever takes less is not worth the question in which group it is.
const ASKED_CORES: f64 = 0.1;

/// What one look saw of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    parent: u32,
    ticks: u64,
    started: u64,
    name: [u8; 16],
}

/// Remembers the last look.
#[derive(Debug)]
pub struct Strangers {
    proc: PathBuf,
    seen: BTreeMap<u32, Seen>,
    at: Option<Micros>,
    last: Option<Stranger>,
    /// Cores that others of a service used, by its process.
    workers: BTreeMap<u32, f32>,
}

impl Strangers {
    /// Looks into `proc`, usually `/proc`.
    #[must_use]
    pub fn new(proc: &Path) -> Self {
        Self {
            proc: proc.to_owned(),
            seen: BTreeMap::new(),
            at: None,
            last: None,
            workers: BTreeMap::new(),
        }
    }

    /// Nothing is busy: the last look says nothing about the next time.
    pub fn rest(&mut self) {
        self.seen.clear();
        self.at = None;
        self.last = None;
        self.workers.clear();
    }

    /// Cores that others of the service of this process used at the last look.
    #[must_use]
    pub fn workers(&self, pid: u32) -> Option<f32> {
        self.workers.get(&pid).copied()
    }

    /// The process that used most over the last seconds and neither is one of
    /// `ours`, nor descends from one, nor is in one of the groups of services, which are
    /// named beside their processes. Asked more often, it says the same again.
    pub fn look(
        &mut self,
        now: Micros,
        ours: &[u32],
        groups: &[(u32, String)],
    ) -> Option<Stranger> {
        let span = self.at.map(|at| now.0.saturating_sub(at.0));
        if span.is_some_and(|span| span < SPAN_MIN_US) {
            return self.last;
        }
        let present = self.read();
        let former = std::mem::replace(&mut self.seen, present);
        self.at = Some(now);
        let seconds = span? as f64 / 1e6;
        let per_second = clock_ticks_per_second() as f64;
        let cores = |pid: &u32, seen: &Seen| {
            let before = former.get(pid).filter(|one| one.started == seen.started);
            // One that came since has used all of it since.
            let ticks = seen.ticks - before.map_or(0, |before| before.ticks.min(seen.ticks));
            ticks as f64 / per_second / seconds
        };
        let mut most: Option<(f64, u32, [u8; 16])> = None;
        let mut workers = BTreeMap::new();
        for (pid, seen) in self.seen.iter().filter(|(pid, _)| !ours.contains(pid)) {
            let cores = cores(pid, seen);
            let member = || {
                let file = self.proc.join(pid.to_string()).join("cgroup");
                let text = (cores >= ASKED_CORES).then(|| fs::read_to_string(file).ok())??;
                let found = groups.iter().find(|(_, name)| group::is_in(&text, name));
                found.map(|(owner, _)| *owner)
            };
            if let Some(owner) = self.ancestor(*pid, ours).or_else(member) {
                *workers.entry(owner).or_default() += narrow(cores);
            } else if most.is_none_or(|(most, ..)| cores > most) {
                most = Some((cores, *pid, seen.name));
            }
        }
        self.workers = workers;
        self.last = most.map(|(cores, pid, name)| Stranger {
            pid,
            name,
            cores: narrow(cores),
        });
        self.last
    }

    /// Whom of `ours` it descends from.
    fn ancestor(&self, pid: u32, ours: &[u32]) -> Option<u32> {
        let mut pid = pid;
        for _ in 0..ANCESTORS_MAX {
            if ours.contains(&pid) {
                return Some(pid);
            }
            match self.seen.get(&pid) {
                Some(seen) if seen.parent > 1 => pid = seen.parent,
                _ => return None,
            }
        }
        None
    }

    fn read(&self) -> BTreeMap<u32, Seen> {
        let Ok(entries) = fs::read_dir(&self.proc) else {
            return BTreeMap::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .take(PROCESSES_MAX)
            .filter_map(|pid| {
                let stat = fs::read(self.proc.join(pid.to_string()).join("stat")).ok()?;
                Some((pid, parse(&stat)?))
            })
            .collect()
    }
}

/// Reads `/proc/PID/stat`: `pid (name) state ppid .. utime stime .. starttime`.
/// The name may hold anything, parentheses too, so the last one ends it.
fn parse(stat: &[u8]) -> Option<Seen> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name_bytes = stat.get(open + 1..close)?;
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().zip(name_bytes) {
        *to = *from;
    }
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // One that has ended and waits for its parent takes nothing any more.
    if fields.first() == Some(&"Z") {
        return None;
    }
    // Counted from the state, which is field 3 of proc(5).
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Seen {
        parent: u32::try_from(number(4)?).ok()?,
        ticks: number(14)?.saturating_add(number(15)?),
        started: number(22)?,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(dir: &Path, pid: u32, name: &str, parent: u32, ticks: u64) {
        let folder = dir.join(pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        let zeros = "0 ".repeat(9);
        let text = format!("{pid} ({name}) R {parent} {zeros}{ticks} 0 0 0 20 0 1 0 77 0 0\n");
        fs::write(folder.join("stat"), text).unwrap();
    }

    #[test]
    fn the_busiest_process_that_is_not_ours_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let per_second = clock_ticks_per_second();
        let burn = |ours: u64, child: u64, stranger: u64| {
            stat(dir.path(), 10, "service", 1, ours * per_second);
            stat(dir.path(), 11, "work) er", 10, child * per_second);
            stat(dir.path(), 12, "stress", 1, stranger * per_second / 10);
            stat(dir.path(), 13, "idle", 12, 5);
        };
        let mut strangers = Strangers::new(dir.path());
        burn(0, 0, 0);
        assert_eq!(
            strangers.look(Micros(0), &[10], &[]),
            None,
            "one look measures nothing"
        );
        burn(90, 90, 190);
        let found = strangers.look(Micros(10_000_000), &[10], &[]).unwrap();
        assert_eq!((found.pid, found.name().as_str()), (12, "stress"));
        assert!((found.cores - 1.9).abs() < 0.01, "{found:?}");
        let workers = strangers.workers(10).unwrap();
        assert!((workers - 9.0).abs() < 0.01, "{workers}");
        // Too soon: the last answer stands.
        assert_eq!(strangers.look(Micros(12_900_000), &[10], &[]), Some(found));
        strangers.rest();
        assert_eq!(strangers.look(Micros(20_000_000), &[10], &[]), None);
    }

    #[test]
    fn whoever_is_in_the_group_of_a_service_works_for_it() {
        let dir = tempfile::tempdir().unwrap();
        stat(dir.path(), 10, "service", 1, 0);
        stat(dir.path(), 12, "beside", 1, 0);
        fs::write(
            dir.path().join("12/cgroup"),
            "0::/homeostat/homeostat-n-a\n",
        )
        .unwrap();
        let groups = [(10, "homeostat-n-a".to_owned())];
        let mut strangers = Strangers::new(dir.path());
        assert_eq!(strangers.look(Micros(0), &[10], &groups), None);
        stat(dir.path(), 12, "beside", 1, 20 * clock_ticks_per_second());
        let found = strangers.look(Micros(10_000_000), &[10], &groups);
        assert_eq!((found, strangers.workers(10)), (None, Some(2.0)));
        strangers.rest();
        assert_eq!(strangers.workers(10), None);
    }

    #[test]
    fn a_tree_that_is_no_proc_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("7")).unwrap();
        fs::write(dir.path().join("7/stat"), b"7 (x").unwrap();
        fs::write(dir.path().join("8"), b"").unwrap();
        let mut strangers = Strangers::new(dir.path());
        assert_eq!(strangers.look(Micros(0), &[], &[]), None);
        assert_eq!(strangers.look(Micros(9_000_000), &[], &[]), None);
    }

    #[test]
    fn a_real_process_that_burns_is_found() {
        let mut burning = std::process::Command::new("/bin/sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let mut strangers = Strangers::new(Path::new("/proc"));
        let pid = burning.id();
        let mut found = false;
        for second in 0..20 {
            // Everybody who is not its ancestor is ours, so that a busy machine
            // does not hide it.
            let everybody = strangers.read();
            let mut above = vec![pid];
            while let Some(seen) = above.last().and_then(|pid| everybody.get(pid)) {
                above.push(seen.parent);
            }
            let others = everybody.into_keys();
            let ours: Vec<u32> = others.filter(|one| !above.contains(one)).collect();
            let seen = strangers.look(Micros(second * 3_000_000), &ours, &[]);
            found |= seen.is_some_and(|seen| seen.pid == pid && seen.cores > 0.01);
            if found {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        burning.kill().unwrap();
        burning.wait().unwrap();
        assert!(found, "it was not named");
    }
}
