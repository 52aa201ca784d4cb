//! Work that does not depend on the machine's speed: instructions and system calls.
//!
//! The same node once more: its loop under valgrind (instructions of its own code; two runs of
//! different length are compared, so that what a start costs is in neither), spawner and
//! forwarder step by step ([`super::step`]), each beside strace (calls of the kernel).
//! Instructions are those of this processor's language; another one needs about as many.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::stage::interrupt;

/// Until a process under valgrind, some fifty times slower, has started and settled.
const SETTLE: Duration = Duration::from_secs(20);

/// How long it may take to end.
const ENDED_MAX: Duration = Duration::from_secs(60);

/// Programs that a count needs; empty where all are installed.
pub(super) fn missing() -> Vec<&'static str> {
    let programs = ["valgrind", "strace"].into_iter();
    programs.filter(|program| find(program).is_none()).collect()
}

/// The absolute path that a configuration needs.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut files = std::env::split_paths(&path).map(|folder| folder.join(program));
    files.find(|file| file.is_file())
}

/// What to put before a command so that its instructions are counted, and where the count is
/// when it has ended.
pub(super) fn valgrind(dir: &Path) -> (Vec<String>, PathBuf) {
    let log = dir.join("valgrind.log");
    let path = |program: &str| {
        let found = find(program).unwrap_or_else(|| program.into());
        found.display().to_string()
    };
    // A kernel since 6.4 tells by `prctl` where it put code of its own, which valgrind has taken
    // away; without an answer a process looks where valgrind can correct it. All that is lost
    // with the other uses of that call is names of threads.
    let mut words = vec![path("strace")];
    words.extend(
        [
            // Handed on when it is ended: with a file to write to it would hear no signal.
            "-I2",
            "--seccomp-bpf",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=prctl",
        ]
        .map(str::to_owned),
    );
    words.extend(["-e", "inject=prctl:error=EINVAL"].map(str::to_owned));
    words.push(path("valgrind"));
    // Its threads take turns, and one that spins until another one is done (as sled does at its
    // start) would never let that one have its turn.
    words.push("--fair-sched=yes".to_owned());
    words.extend(["--tool=cachegrind", "--cache-sim=no"].map(str::to_owned));
    words.push("--cachegrind-out-file=/dev/null".to_owned());
    words.push(format!("--log-file={}", log.display()));
    (words, log)
}

/// Lets it settle, and then run for so long.
pub(super) fn settle(span: Duration) -> Result<()> {
    Ok(interrupt::pause(SETTLE + span)?)
}

/// The instructions that valgrind has counted. It writes them when the process has ended,
/// which is some time after strace, that stands before it, was ended and let go of it.
pub(super) fn instructions(log: &Path) -> Result<f64> {
    let count = || parse_instructions(&fs::read_to_string(log).ok()?);
    let what = format!("a count in {}", log.display());
    interrupt::until(&what, ENDED_MAX, count)
}

fn parse_instructions(text: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| line.contains("I ") && line.contains("refs:"))?;
    let digits: String = line
        .rsplit(':')
        .next()?
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

/// System calls a second of a process and all its threads.
pub(super) fn calls_per_second(pid: u32, span: Duration, dir: &Path) -> Result<f64> {
    let out = dir.join("strace.out");
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-qq", "-o"])
        .arg(&out)
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start strace")?;
    let waited = interrupt::pause(span);
    let _ = kill_process(Pid::from_child(&strace), Signal::INT);
    strace.wait().context("cannot end strace")?;
    waited?;
    let text =
        fs::read_to_string(&out).with_context(|| format!("cannot read {}", out.display()))?;
    let calls = parse_calls(&text).with_context(|| format!("no sum in {text:?}"))?;
    Ok(calls / span.as_secs_f64())
}

/// The fourth column of the last line, or of none when nothing was called.
fn parse_calls(text: &str) -> Option<f64> {
    if text.trim().is_empty() {
        return Some(0.0);
    }
    let total = text
        .lines()
        .rev()
        .find(|line| line.trim_end().ends_with("total"))?;
    total.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_of_both_tools_are_read() {
        let log = "==1== Cachegrind\n==1== \n==1== I   refs:      1,234,567\n";
        assert_eq!(parse_instructions(log), Some(1_234_567.0));
        assert_eq!(parse_instructions("==1== nothing"), None);
        let sum = "% time     seconds  usecs/call     calls    errors syscall\n\
                   ------ ----------- ----------- --------- --------- ----------------\n\
                   60.00    0.000030           1        21         1 futex\n\
                   ------ ----------- ----------- --------- --------- ----------------\n\
                   100.00    0.000050           2        25         1 total\n";
        assert_eq!(parse_calls(sum), Some(25.0));
        assert_eq!(parse_calls(""), Some(0.0));
        assert_eq!(parse_calls("strace: nobody"), None);
    }
}
