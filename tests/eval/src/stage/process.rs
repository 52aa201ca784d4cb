//! A process of the stage: started, watched, and ended with its owner.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use homeostat_testbed::{Moment, inject};
use rustix::process::{Pid, Signal, kill_process};

use super::interrupt;
use super::role::Role;

/// How long one may take to say that it is ready, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(20);
/// How long one may take to end after SIGTERM, before SIGKILL. Stopping services takes as
/// long as their grace.
const END_MAX: Duration = Duration::from_secs(5);
/// What of a log is shown when something failed.
const TAIL_BYTES: u64 = 3000;

/// A running process. Dropping it ends it: SIGTERM, and SIGKILL if that takes too long.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `role` with the arguments of its command. Its output goes to `dir/NAME.out`
    /// (anew each time) and `dir/NAME.log` (appended).
    ///
    /// The kernel ends it with the *thread* that calls this.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(role: Role, name: &str, args: &[OsString], dir: &Path) -> Result<Self> {
        let program = super::role::program().context("cannot find the own program")?;
        let out = dir.join(format!("{name}.out"));
        let log = log_file(dir, name);
        let out = File::create(&out).with_context(|| format!("cannot write {}", out.display()))?;
        let log = File::options()
            .append(true)
            .create(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(program)
            .arg(role.arg())
            .arg(std::process::id().to_string())
            .args(args)
            // Ctrl-C is for the program in front, which then ends all of them in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
        })
    }

    /// Waits until it has printed a line that starts with `prefix`, and returns its rest.
    ///
    /// # Errors
    /// When it ends or says nothing for long; with the end of its log.
    pub fn ready(&mut self, dir: &Path, prefix: &str) -> Result<String> {
        let out = dir.join(format!("{}.out", self.name));
        let end = Instant::now() + READY_MAX;
        loop {
            let text = fs::read_to_string(&out).unwrap_or_default();
            let whole = text.lines().zip(text.split_inclusive('\n'));
            let said = whole
                .filter(|(_, line)| line.ends_with('\n'))
                .find_map(|(line, _)| line.strip_prefix(prefix));
            if let Some(rest) = said {
                return Ok(rest.to_owned());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let tail = log_tail(dir, &self.name);
                bail!("the {} ended at once ({status}):\n{tail}", self.name);
            }
            if Instant::now() >= end {
                let tail = log_tail(dir, &self.name);
                bail!("the {} does not get ready:\n{tail}", self.name);
            }
            interrupt::pause(Duration::from_millis(5))?;
        }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL; returns when it is gone, with the moment of the signal.
    ///
    /// # Errors
    /// When it was gone before.
    pub fn kill9(mut self) -> Result<Moment> {
        let at = inject::kill9(self.pid()).with_context(|| format!("the {}", self.name))?;
        self.child.wait().context("cannot wait for its end")?;
        Ok(at)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let end = Instant::now() + END_MAX;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn log_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}

/// The end of a process's log, for an error message.
#[must_use]
pub fn log_tail(dir: &Path, name: &str) -> String {
    let read = || {
        let mut file = File::open(log_file(dir, name)).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))
            .ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|| "(no log)".to_owned())
}
