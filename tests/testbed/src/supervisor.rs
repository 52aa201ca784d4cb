//! The restart loop that measurements compare with: what an init system does, and no more.
//!
//! Goes in: a program and a policy. It starts the program, waits for its death, and starts it
//! again after the policy's delay; with a liveness probe it also kills what no longer answers.
//! No back-off, no dependencies, no diagnosis.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A supervisor that cannot start its program tries again this often at most.
const SPAWN_RETRY: Duration = Duration::from_millis(100);

/// When to restart, and how to tell that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupervisorPolicy {
    /// From the death of the program to its next start.
    pub delay: Duration,
    pub liveness: Option<Liveness>,
}

/// A probe of `GET /healthz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    pub address: SocketAddr,
    pub period: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// The program is killed after this many failures in a row.
    pub misses: u32,
}

impl Default for SupervisorPolicy {
    /// What systemd does for `Restart=always` where nothing else is said.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(100),
            liveness: None,
        }
    }
}

impl fmt::Display for SupervisorPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "restart {} ms after death, ", self.delay.as_millis())?;
        match &self.liveness {
            None => write!(f, "no probe"),
            Some(Liveness {
                period,
                timeout,
                misses,
                ..
            }) => write!(
                f,
                "probe every {} ms, kill after {misses} misses of {} ms",
                period.as_millis(),
                timeout.as_millis()
            ),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    #[error("cannot start {}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("cannot watch processes")]
    Watch(#[source] io::Error),
}

/// A running supervisor; dropping it ends supervisor and service.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    args: Vec<OsString>,
    policy: SupervisorPolicy,
    /// 0 while none runs.
    pid: AtomicU32,
    restarts: AtomicU32,
    stopping: AtomicBool,
    wake: OwnedFd,
}

impl Supervisor {
    /// Starts `program` and looks after it on a thread. Its stdout is discarded.
    ///
    /// # Errors
    /// When the first start fails; later ones are tried again for ever.
    pub fn start(
        program: impl Into<PathBuf>,
        args: Vec<OsString>,
        policy: SupervisorPolicy,
    ) -> Result<Self, SupervisorError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|errno| SupervisorError::Watch(errno.into()))?;
        let shared = Arc::new(Shared {
            program: program.into(),
            args,
            policy,
            pid: AtomicU32::new(0),
            restarts: AtomicU32::new(0),
            stopping: AtomicBool::new(false),
            wake,
        });
        let own = Arc::clone(&shared);
        let (started, first) = std::sync::mpsc::sync_channel(1);
        // The first start is on the thread too: a service that dies with its parent means
        // the thread that started it.
        let thread = std::thread::spawn(move || {
            let child = own.spawn();
            let (child, result) = match child {
                Ok(child) => (Some(child), Ok(())),
                Err(source) => (None, Err(source)),
            };
            let _ = started.send(result);
            if let Some(child) = child {
                own.supervise(child);
            }
        });
        let result = first
            .recv()
            .unwrap_or_else(|gone| Err(io::Error::other(gone)));
        let program = shared.program.clone();
        let supervisor = Self {
            shared,
            thread: Some(thread),
        };
        result.map_err(|source| SupervisorError::Spawn { program, source })?;
        Ok(supervisor)
    }

    #[must_use]
    pub fn policy(&self) -> SupervisorPolicy {
        self.shared.policy
    }

    /// The service's pid, `None` between death and restart.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        Some(self.shared.pid.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }

    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.shared.restarts.load(Ordering::Relaxed)
    }

    /// Kills the service and ends.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn spawn(&self) -> io::Result<Child> {
        let child = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        self.pid.store(child.id(), Ordering::Release);
        Ok(child)
    }

    fn supervise(&self, mut child: Child) {
        loop {
            self.watch(&mut child);
            self.pid.store(0, Ordering::Release);
            // Dead already, or to be: in both cases it must be reaped.
            let _ = child.kill();
            let _ = child.wait();
            let mut pause = self.policy.delay;
            child = loop {
                self.sleep(pause);
                if self.stopping() {
                    return;
                }
                match self.spawn() {
                    Ok(child) => break child,
                    Err(_) => pause = SPAWN_RETRY,
                }
            };
            self.restarts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns when the child died, must die, or the supervisor ends.
    fn watch(&self, child: &mut Child) {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let Some(Ok(death)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            // No pidfd before Linux 5.3: wait without probes.
            let _ = child.wait();
            return;
        };
        let mut misses = 0;
        loop {
            let wait = self.policy.liveness.map(|liveness| liveness.period);
            let events = wait_for(&[death.as_fd(), self.wake.as_fd()], wait);
            if events || self.stopping() {
                return;
            }
            if let Some(liveness) = &self.policy.liveness {
                misses = if answers(liveness) { 0 } else { misses + 1 };
                if misses >= liveness.misses {
                    return;
                }
            }
        }
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn sleep(&self, pause: Duration) {
        wait_for(&[self.wake.as_fd()], Some(pause));
    }
}

/// True if one of `fds` is ready, false after `limit`.
fn wait_for(fds: &[rustix::fd::BorrowedFd<'_>], limit: Option<Duration>) -> bool {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    // An interrupted wait is a short one; every caller looks again.
    matches!(poll(&mut polled, limit.as_ref()), Ok(1..))
}

fn answers(liveness: &Liveness) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&liveness.address, liveness.timeout)?;
        stream.set_read_timeout(Some(liveness.timeout))?;
        stream.set_write_timeout(Some(liveness.timeout))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_policy_tells_itself() {
        let mut policy = SupervisorPolicy::default();
        assert_eq!(policy.to_string(), "restart 100 ms after death, no probe");
        policy.liveness = Some(Liveness {
            address: ([127, 0, 0, 1], 80).into(),
            period: Duration::from_millis(50),
            timeout: Duration::from_millis(25),
            misses: 2,
        });
        assert_eq!(
            policy.to_string(),
            "restart 100 ms after death, probe every 50 ms, kill after 2 misses of 25 ms"
        );
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error() {
        let error = Supervisor::start("/nowhere/service", Vec::new(), SupervisorPolicy::default());
        assert_eq!(
            error.unwrap_err().to_string(),
            "cannot start /nowhere/service"
        );
    }

    #[test]
    fn what_ends_by_itself_is_started_again_until_the_supervisor_stops() {
        let policy = SupervisorPolicy {
            delay: Duration::from_millis(1),
            liveness: None,
        };
        let supervisor = Supervisor::start("/bin/true", Vec::new(), policy).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while supervisor.restarts() < 3 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        supervisor.stop();
    }
}
