//! strace on threads of a running process: what they call, and SIGKILL as one of them
//! enters its Nth call of a kind. So a process can be killed at each of its writes and
//! messages without any hook in the product.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::interrupt;

/// How long it may take to follow a thread.
const ATTACH_MAX: Duration = Duration::from_secs(10);

/// Whether it is installed and may trace.
#[must_use]
pub fn available() -> bool {
    let status = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// A thread by its name, and its place among those of that name.
pub type Thread = (String, usize);

/// The threads of a process, in the order in which they were made.
///
/// # Errors
/// When there is no such process.
pub fn threads(pid: u32) -> Result<Vec<(u32, Thread)>> {
    let folder = format!("/proc/{pid}/task");
    let mut ids: Vec<u32> = fs::read_dir(&folder)
        .with_context(|| format!("no process {pid}"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    ids.sort_unstable();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut all = Vec::new();
    for id in ids {
        let Ok(name) = fs::read_to_string(format!("{folder}/{id}/comm")) else {
            continue;
        };
        let name = name.trim().to_owned();
        let count = counts.entry(name.clone()).or_default();
        all.push((id, (name, *count)));
        *count += 1;
    }
    Ok(all)
}

/// A strace that runs.
#[derive(Debug)]
pub struct Strace {
    child: Child,
    output: PathBuf,
}

impl Strace {
    /// Returns once all of the threads are followed.
    ///
    /// # Errors
    /// When one cannot be.
    pub fn attach(threads: &[u32], arguments: &[String], output: &Path) -> Result<Self> {
        let mut command = Command::new("strace");
        command
            .args(["-qq", "-yy", "-o"])
            .arg(output)
            .args(arguments);
        for thread in threads {
            command.args(["-p", &thread.to_string()]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start strace")?;
        let trace = Self {
            child,
            output: output.to_owned(),
        };
        for thread in threads {
            interrupt::until("strace", ATTACH_MAX, || {
                let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
                let tracer = status
                    .lines()
                    .find_map(|line| line.strip_prefix("TracerPid:"))?;
                (tracer.trim() != "0").then_some(())
            })?;
        }
        Ok(trace)
    }

    /// Lets go, and returns what was seen: a thread and a line for each call.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn lines(mut self) -> Result<Vec<String>> {
        self.end();
        let text = fs::read_to_string(&self.output).context("cannot read what strace saw")?;
        Ok(text.lines().map(ToOwned::to_owned).collect())
    }

    fn end(&mut self) {
        // SIGTERM lets go of the threads first.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.end();
    }
}

/// Killed, and not yet waited for.
#[must_use]
pub fn is_dead(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|status| status.contains("State:\tZ"))
}
