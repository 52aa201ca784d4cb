//! What the nodes of a test bed have of this machine: a control group each, with so much of a
//! processor and so much memory for its services.
//!
//! As the groups have a ceiling, they come first below it: what else runs on the machine is not
//! to be seen in what is measured.
//!
//! Either version of control groups, where this process may make some (root); elsewhere none,
//! and the caller says so. Nothing stays behind: a guard process of its own, which hears of the
//! end of this one by a pipe, ends what is left in the groups, removes them, and the folder of
//! the run.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::stage::role;

/// Plays the guard; what follows are the folders to be removed.
pub const GUARD_ARG: &str = "__bed-guard";
/// A period of the scheduler: short, so that what is held back is so for milliseconds.
const PERIOD_US: f64 = 20_000.0;
/// How long members may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(8);
const RETRY: Duration = Duration::from_millis(20);

/// The groups of all nodes; dropping it removes them.
#[derive(Debug)]
pub struct Cages {
    /// Folders, one or two for each node.
    nodes: Vec<Vec<PathBuf>>,
    guard: Option<Child>,
}

impl Cages {
    /// Makes a group for each of these, with so much of a processor and so many MB; and has
    /// `dir` removed when this process is gone.
    ///
    /// # Errors
    /// When no guard can be started.
    pub fn new(wanted: &[(f64, f64)], dir: &Path) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let bases = bases(&mounts);
        let name = |node: usize| format!("hs-bed-{}-{node}", std::process::id());
        let all = (0..wanted.len()).map(|node| bases.iter().map(move |it| it.at.join(name(node))));
        let nodes: Vec<Vec<PathBuf>> = all.map(Iterator::collect).collect();
        // Before there is anything to be removed.
        let guard = Command::new(role::program().context("cannot find the own program")?)
            .arg(GUARD_ARG)
            .arg(dir)
            .args(nodes.iter().flatten())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the guard")?;
        let mut cages = Self {
            nodes: nodes.clone(),
            guard: Some(guard),
        };
        for (folders, (processors, mb)) in nodes.iter().zip(wanted) {
            for (folder, base) in folders.iter().zip(&bases) {
                if base.limit(folder, *processors, *mb).is_err() {
                    cages.remove();
                    cages.nodes = vec![Vec::new(); wanted.len()];
                    return Ok(cages);
                }
            }
        }
        Ok(cages)
    }

    /// Whether there are any.
    #[must_use]
    pub fn hold(&self) -> bool {
        self.nodes.iter().any(|folders| !folders.is_empty())
    }

    /// Where a process of a node writes its number to be held.
    #[must_use]
    pub fn doors(&self, node: usize) -> Vec<PathBuf> {
        let folders = self.nodes.get(node).into_iter().flatten();
        folders.map(|folder| folder.join("cgroup.procs")).collect()
    }

    fn remove(&self) {
        sweep(self.nodes.iter().flatten().map(PathBuf::as_path));
    }
}

impl Drop for Cages {
    fn drop(&mut self) {
        self.remove();
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// A hierarchy in which groups can be made.
struct Base {
    at: PathBuf,
    /// Which files limit what.
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Version 2 has both in one.
    Both,
    Processor,
    Memory,
}

impl Base {
    fn limit(&self, folder: &Path, processors: f64, mb: f64) -> io::Result<()> {
        if self.kind == Kind::Both {
            fs::write(self.at.join("cgroup.subtree_control"), "+cpu +memory")?;
        }
        fs::create_dir(folder)?;
        let quota = (processors * PERIOD_US).round();
        let bytes = (mb * 1_048_576.0).round();
        let write = |file: &str, text: String| fs::write(folder.join(file), text);
        match self.kind {
            Kind::Both => {
                write("cpu.max", format!("{quota} {PERIOD_US}"))?;
                write("cpu.weight", "10000".into())?;
                write("memory.max", bytes.to_string())?;
                // Where there is no swap there is no such file.
                let _ = write("memory.swap.max", "0".into());
                Ok(())
            }
            Kind::Processor => {
                write("cpu.cfs_period_us", PERIOD_US.to_string())?;
                write("cpu.shares", "262144".into())?;
                write("cpu.cfs_quota_us", quota.to_string())
            }
            Kind::Memory => write("memory.limit_in_bytes", bytes.to_string()),
        }
    }
}

/// The hierarchies that this machine has.
fn bases(mounts: &str) -> Vec<Base> {
    let lines: Vec<Vec<&str>> = mounts
        .lines()
        .map(|line| line.split(' ').collect())
        .collect();
    let first = |kind: Kind, fits: &dyn Fn(&str, &str) -> bool| {
        let line = lines.iter().find(|words| match words.as_slice() {
            [_, at, kind, options, ..] => {
                fits(kind, options) && Path::new(at).join("cgroup.procs").exists()
            }
            _ => false,
        })?;
        let at = PathBuf::from(line.get(1)?);
        Some(Base { at, kind })
    };
    let one = |name: &'static str| {
        move |kind: &str, options: &str| {
            kind == "cgroup" && options.split(',').any(|option| option == name)
        }
    };
    match (
        first(Kind::Processor, &one("cpu")),
        first(Kind::Memory, &one("memory")),
    ) {
        (Some(processor), Some(memory)) => vec![processor, memory],
        _ => first(Kind::Both, &|kind, _| kind == "cgroup2")
            .into_iter()
            .collect(),
    }
}

/// Ends whoever is left in the groups, and removes them.
fn sweep<'f>(folders: impl Iterator<Item = &'f Path>) {
    let mut left: Vec<&Path> = folders.filter(|folder| folder.exists()).collect();
    let end = Instant::now() + GONE_MAX;
    while !left.is_empty() && Instant::now() < end {
        for folder in &left {
            let members = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            for pid in members.lines().filter_map(|line| line.parse().ok()) {
                if let Some(pid) = Pid::from_raw(pid) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
        thread::sleep(RETRY);
        left.retain(|folder| fs::remove_dir(folder).is_err() && folder.exists());
    }
}

/// The guard: waits until the other end of its standard input is gone.
pub fn guard_main(args: impl Iterator<Item = OsString>) -> ExitCode {
    // Ctrl-C is for the program in front.
    let _ = rustix::process::setsid();
    let folders: Vec<PathBuf> = args.map(PathBuf::from).collect();
    let mut nothing = Vec::new();
    let _ = io::stdin().read_to_end(&mut nothing);
    if let Some((dir, groups)) = folders.split_first() {
        // Spawners end their services in order first, as they are told by the kernel.
        let end = Instant::now() + GONE_MAX;
        let busy = |group: &PathBuf| {
            fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|members| !members.is_empty())
        };
        while groups.iter().any(busy) && Instant::now() < end {
            thread::sleep(RETRY);
        }
        sweep(groups.iter().map(PathBuf::as_path));
        let _ = fs::remove_dir_all(dir);
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_groups_has_no_base() {
        assert!(bases("proc /proc proc rw 0 0\n").is_empty());
        let none = "cgroup /nowhere cgroup rw,cpu 0 0\ncgroup /nowhere cgroup rw,memory 0 0\n";
        assert!(bases(none).is_empty());
    }
}
