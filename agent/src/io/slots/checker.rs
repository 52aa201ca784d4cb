//! Asks a service's own checker about a candidate of its configuration.
//!
//! In goes a command and a path, out comes whether it ended with 0 in time, and
//! what it said. No shell, nothing of the agent's environment but `PATH`, a
//! process group of its own that is killed whole at the end.

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a checker may take: it parses one file of at most a megabyte.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Output that is kept for the error; more is read and dropped.
const OUTPUT_MAX: usize = 2048;

/// How often it is looked whether the checker has ended; a checker that closes
/// its output early gives no other sign.
const LOOK: Duration = Duration::from_millis(20);

/// Runs `command` with the path appended. `Err` says how it ended and what it
/// said.
pub(super) fn check(command: &[String], candidate: &Path) -> Result<(), String> {
    let Some((program, words)) = command.split_first() else {
        return Ok(());
    };
    let run = || {
        let (mut output, writer) = io::pipe()?;
        let mut child = Command::new(program)
            .args(words)
            .arg(candidate)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()?;
        let ended = watch(&mut child, &mut output);
        // Also what it may have left running.
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
        ended
    };
    match run() {
        Ok((Some(status), _)) if status.success() => Ok(()),
        Ok((Some(status), said)) => Err(format!("{status}{said}")),
        Ok((None, said)) => Err(format!("no end within {CHECK_TIMEOUT:?}{said}")),
        Err(error) => Err(format!("it cannot be run: {error}")),
    }
}

fn watch(
    child: &mut Child,
    output: &mut io::PipeReader,
) -> io::Result<(Option<std::process::ExitStatus>, String)> {
    let end = Instant::now() + CHECK_TIMEOUT;
    let mut said = Vec::new();
    let mut open = true;
    let status = loop {
        let status = child.try_wait()?;
        open = open && drain(output, &mut said, status.is_some())?;
        if status.is_some() || Instant::now() >= end {
            break status;
        }
        if !open {
            std::thread::sleep(LOOK);
        }
    };
    let said = String::from_utf8_lossy(&said);
    let said = match said.trim() {
        "" => String::new(),
        said => format!(": {said}"),
    };
    Ok((status, said))
}

/// Reads what is there, waiting at most [`LOOK`] for the first of it; false once
/// nobody can write any more.
fn drain(output: &mut io::PipeReader, said: &mut Vec<u8>, ended: bool) -> io::Result<bool> {
    let mut wait = if ended { Duration::ZERO } else { LOOK };
    // Someone who writes without end must not keep the deadline from passing.
    for _ in 0..64 {
        let nanos = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&*output, PollFlags::IN)], Some(&nanos)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(true),
            ready => ready?,
        };
        let mut chunk = [0; 4096];
        let read = output.read(&mut chunk)?;
        if read == 0 {
            return Ok(false);
        }
        let room = OUTPUT_MAX.saturating_sub(said.len());
        said.extend(chunk.iter().take(read.min(room)));
        wait = Duration::ZERO;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_exit_decides_and_the_output_is_told_within_bounds() {
        let here = Path::new("/");
        assert_eq!(check(&command(&["/bin/true"]), here), Ok(()));
        let told = check(&command(&["/bin/ls", "--no-such-flag"]), here).unwrap_err();
        assert!(told.contains("no-such-flag"), "{told}");
        let flood =
            "i=0; while [ $i -lt 9000 ]; do echo line $i of noise; i=$((i+1)); done; exit 3";
        let told = check(&command(&["/bin/sh", "-c", flood]), here).unwrap_err();
        assert!(told.starts_with("exit status: 3: line 0"), "{told}");
        assert!(told.len() < OUTPUT_MAX + 100);
        let told = check(&command(&["/no/such/program"]), here).unwrap_err();
        assert!(told.starts_with("it cannot be run"), "{told}");
    }

    #[test]
    fn a_child_that_outlives_the_checker_neither_delays_nor_stays() {
        let begun = Instant::now();
        let dir = tempfile::tempdir().unwrap();
        let script = "sleep 30 & echo $! > \"$0/pid\"; exit 0";
        check(&command(&["/bin/sh", "-c", script]), dir.path()).unwrap();
        assert!(begun.elapsed() < CHECK_TIMEOUT);
        let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let end = Instant::now() + Duration::from_secs(5);
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < end, "it still runs");
            std::thread::sleep(LOOK);
        }
    }
}
