//! Ends a fault on purpose when the spawner that put it there is gone, or hangs.
//!
//! The spawner starts its own program once more with [`WORD`] and keeps a pipe to it. A
//! word on the pipe says that all was ended in order. Its end without a word says that the
//! spawner died: then the record is carried out at once, without waiting for the next spawner,
//! which may never come. The same when the time of the fault is long over. If this process
//! dies, the spawner ends the fault; if both die, the next spawner does.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use homeostat_common::units::Millis;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::load::HELPER_ARG;
use super::record::Place;
use super::settle;
use crate::chaos::SPAN_MAX;
use crate::io::clock;

/// The first word of a helper that is one, followed by the data folder, the spawner's name
/// and milliseconds.
pub(super) const WORD: &str = "guard";

/// So long after its end a fault that is still in force is ended here: the spawner would have
/// done it, if it ran.
const LATE: Duration = Duration::from_secs(5);

/// Stands by while a fault is in force; dropped without [`Guard::dismiss`] it undoes it.
#[derive(Debug)]
pub(super) struct Guard {
    // Whoever reaps orphans in the spawner reaps it.
    child: Child,
}

impl Guard {
    pub(super) fn start(data_dir: &Path, spawner: &str, span: Millis) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args([HELPER_ARG, WORD])
            .arg(data_dir)
            .args([spawner, &span.0.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child })
    }

    /// All is as it was.
    pub(super) fn dismiss(mut self) {
        if let Some(pipe) = &mut self.child.stdin {
            // One that is gone needs no word.
            let _ = pipe.write_all(b"!");
        }
    }
}

/// Runs it. `arguments` are those after [`WORD`].
pub(super) fn main(arguments: &[String]) -> ExitCode {
    let [data_dir, spawner, span] = arguments else {
        return ExitCode::from(2);
    };
    let (Ok(place), Ok(span)) = (Place::open(Path::new(data_dir)), span.parse::<u64>()) else {
        return ExitCode::from(2);
    };
    // What is guarded was on the disk before this was started.
    let Some(record) = place.read() else {
        return ExitCode::SUCCESS;
    };
    let end = Instant::now() + Duration::from_millis(span.min(SPAN_MAX.0)) + LATE;
    if dismissed(end) {
        return ExitCode::SUCCESS;
    }
    let Ok(boot) = clock::boot_id(Path::new("/proc")) else {
        return ExitCode::FAILURE;
    };
    // A next spawner may have done it by now, or have begun another one.
    if place.read().as_ref() == Some(&record) {
        // What fails is tried again by the next spawner.
        let _ = settle(&place, &record, boot, spawner);
    }
    ExitCode::SUCCESS
}

/// Whether there was a word before the end of the pipe and of the time.
fn dismissed(end: Instant) -> bool {
    let pipe = io::stdin();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let left = Timespec::try_from(left).unwrap_or_default();
        let mut poll = [PollFd::new(&pipe, PollFlags::IN)];
        match rustix::event::poll(&mut poll, Some(&left)) {
            Ok(0) => return false,
            Ok(_) => {
                return rustix::io::read(&pipe, &mut [0_u8; 1]).is_ok_and(|bytes| bytes > 0);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
