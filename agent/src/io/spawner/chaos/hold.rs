//! Holds each thread of a process still, as a loop does that has locked itself out: its ports
//! stay open, connections are taken by the kernel, nothing is answered, and no signal but
//! SIGKILL is heard.
//!
//! By `ptrace`, because then the kernel lets go of them with whoever holds them: a process
//! that dies in any way holds nobody. SIGSTOP would not do: it shows as a state of its own, by
//! which the agent knows it. Not for a process that is traced already, and not where the
//! kernel forbids it (Yama, a container without `CAP_SYS_PTRACE`).

use std::collections::BTreeSet;
use std::io;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// Threads may start others while they are held one by one; so many rounds are enough for any
/// that does not do so all the time.
const ROUNDS_MAX: usize = 16;

/// Holds all threads of `pid` until this process ends.
pub(super) fn seize(pid: u32) -> io::Result<()> {
    let folder = format!("/proc/{pid}/task");
    let mut held = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let mut fresh = 0;
        for entry in std::fs::read_dir(&folder)? {
            let name = entry?.file_name();
            let Some(thread) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if held.insert(thread) {
                let thread = Pid::from_raw(thread);
                let taken = ptrace::seize(thread, Options::empty());
                match taken.and_then(|()| ptrace::interrupt(thread)) {
                    // One that has ended meanwhile needs no holding.
                    Ok(()) | Err(Errno::ESRCH) => fresh += 1,
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        if fresh == 0 {
            return Ok(());
        }
    }
    Err(io::Error::other("it starts threads all the time"))
}

/// Waits until none is left to be held. Whoever holds a process has to bury its threads, or
/// its parent would wait for it.
pub(super) fn attend() {
    // Whatever else it says is about one of them.
    while waitpid(None, Some(WaitPidFlag::__WALL)) != Err(Errno::ECHILD) {}
}
