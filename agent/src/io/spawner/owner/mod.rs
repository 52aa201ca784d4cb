//! Services whose processes somebody else runs: systemd, or a container engine.
//!
//! ```text
//!  spawner thread                      owners' thread (tokio)
//!   server ── Order, Signal ─────────>  systemd ── D-Bus ──────> systemd
//!          <── Report + wake byte ────  engine  ── HTTP, Unix ──> Docker, Podman
//! ```
//!
//! The spawner waits for neither: a unit that takes a minute to start, or an engine
//! that hangs, delays no other service. Orders about one service are carried out in
//! turn, so that how a life ended is read before the next start writes over it;
//! signals at once, as they are for a service that does not come up, too.
//!
//! In goes the name of a unit or container of the configuration file, or a [`Handle`]
//! that came out before; never anything that a loop said. Out comes a [`Found`]: a
//! process and a pidfd of it, certainly of that unit or container. That there is at
//! most one live instance is the owner's own promise: a unit has one main process,
//! a container one first process, and to start what runs changes nothing.

mod engine;
mod http;
mod systemd;
mod thread;

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags};

use super::process::{has_ended, start_ticks};
use crate::config::{Config, Process};
use crate::io::keeper::chain;
pub(super) use thread::{Order, Owners, Report};

/// How long systemd or an engine may take to notice what the kernel told us; they
/// hear of it by a signal, and usually within milliseconds.
const SETTLED_MAX: Duration = Duration::from_secs(2);
/// First and longest pause between two looks: a look costs a tenth of a
/// millisecond, and a start takes some.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Why an owner could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnerError {
    // Not as sources: errors of zbus print theirs themselves.
    #[error("cannot reach systemd over D-Bus: {0}")]
    Bus(Box<zbus::Error>),
    #[error("systemd refuses to {what} {unit}: {error}")]
    Unit {
        what: &'static str,
        unit: String,
        error: Box<zbus::Error>,
    },
    #[error("systemd {how} unit {unit}")]
    NoUnit { unit: String, how: String },
    #[error("the engine at {} has no container {name}", engine.display())]
    NoContainer { name: String, engine: PathBuf },
    #[error(
        "{name} has {policy}, and two healers would undo each other's pauses: take it away there, \
         or set {key} = true here"
    )]
    Restarts {
        name: String,
        policy: String,
        key: &'static str,
    },
    #[error("{name} ended as it started: {how}")]
    Ended { name: String, how: String },
    #[error("unit {name} has no main process to watch (Type={kind})")]
    NoProcess { name: String, kind: String },
    #[error("process {pid} of {name} cannot be watched from here")]
    Hidden {
        name: String,
        pid: i32,
        #[source]
        source: rustix::io::Errno,
    },
    #[error("{name} has not started within {} s", limit.as_secs())]
    Late { name: String, limit: Duration },
    #[error("{name}: {text}")]
    Refused { name: String, text: String },
    #[error(transparent)]
    Http(#[from] http::HttpError),
    #[error("cannot ask the owners of services")]
    Thread(#[source] std::io::Error),
    #[error("the owners of services still work on what they were asked before")]
    Busy,
}

/// What a live instance is called by its owner; written to the spawner's slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handle {
    Unit(String),
    Container { engine: PathBuf, id: String },
}

impl Handle {
    /// What its control group is named after.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Unit(name) => name,
            Self::Container { id, .. } => id,
        }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(name) => write!(f, "unit:{name}"),
            Self::Container { engine, id } => write!(f, "container:{id}:{}", engine.display()),
        }
    }
}

impl FromStr for Handle {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':').ok_or(())? {
            ("unit", name) => Ok(Self::Unit(name.to_owned())),
            ("container", rest) => {
                let (id, engine) = rest.split_once(':').ok_or(())?;
                Ok(Self::Container {
                    engine: engine.into(),
                    id: id.to_owned(),
                })
            }
            _ => Err(()),
        }
    }
}

/// A process that was alive, of the unit or container it was asked for.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    /// Clock ticks since boot.
    pub(super) start: u64,
    pub(super) handle: Handle,
}

impl Found {
    /// Opens `pid`. The caller then asks its owner again: a pid may change hands
    /// before it is open, and cannot after. `None`: it has ended, and its owner has
    /// not noticed yet.
    fn open(pid: Pid, handle: Handle, name: &str) -> Result<Option<Self>, OwnerError> {
        let hidden = |source| OwnerError::Hidden {
            name: name.to_owned(),
            pid: pid.as_raw_nonzero().get(),
            source,
        };
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(hidden)?;
        let start = start_ticks(pid).unwrap_or(0);
        let found = Self {
            pid,
            pidfd,
            start,
            handle,
        };
        Ok((!has_ended(&found.pidfd)).then_some(found))
    }
}

/// A span on each core of this machine.
fn all_cores(span: u64) -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u64::try_from(cores).unwrap_or(1).saturating_mul(span)
}

/// As long as `seen` can be that an owner has not noticed an end, it is taken for
/// one: a process that was reaped looks like one of another namespace.
fn noticed(
    seen: Result<Option<Found>, OwnerError>,
    waited: Duration,
) -> Result<Option<Found>, OwnerError> {
    match seen {
        Err(OwnerError::Hidden { .. }) if waited < SETTLED_MAX => Ok(None),
        other => other,
    }
}

/// Growing pauses, together about `total`.
fn pauses(total: Duration) -> impl Iterator<Item = Duration> {
    let mut spent = Duration::ZERO;
    let doubling = |pause: &Duration| Some((*pause * 2).min(PAUSE_MAX));
    std::iter::successors(Some(PAUSE_MIN), doubling).take_while(move |pause| {
        spent += *pause;
        spent <= total
    })
}

/// Looks at each unit and container that `config` names, without touching any, and
/// says what would keep it from being run. The second list: what could not be found
/// out here.
pub(crate) fn check(config: &Config) -> (Vec<String>, Vec<String>) {
    let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
    let mut owned = config.services.iter();
    if owned.all(|service| matches!(service.process, Process::Command(_))) {
        return (wrong, unknown);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            unknown.push(chain(&OwnerError::Thread(error)));
            return (wrong, unknown);
        }
    };
    let systemd = systemd::Systemd::default();
    for service in &config.services {
        let found = runtime.block_on(async {
            match &service.process {
                Process::Command(_) => Ok(None),
                Process::Unit(unit) => systemd.find(unit).await,
                Process::Container(container) => engine::find(container).await,
            }
        });
        match found {
            Ok(_) => {}
            Err(error @ (OwnerError::Bus(_) | OwnerError::Http(_) | OwnerError::Hidden { .. })) => {
                unknown.push(format!("{}: {}", service.id, chain(&error)));
            }
            Err(error) => wrong.push(format!("{}: {}", service.id, chain(&error))),
        }
    }
    (wrong, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_reads_back_from_what_it_prints() {
        let unit = Handle::Unit("a@b:1.service".into());
        let container = Handle::Container {
            engine: "/run/podman/podman.sock".into(),
            id: "0a1b".into(),
        };
        for handle in [unit, container] {
            assert_eq!(handle.to_string().parse(), Ok(handle));
        }
        for other in ["", "unit", "pod:x", "container:0a1b"] {
            assert_eq!(other.parse::<Handle>(), Err(()), "{other}");
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        let all: Vec<_> = pauses(Duration::from_millis(100)).collect();
        assert_eq!(all[..3], [1, 2, 4].map(Duration::from_millis));
        assert!(all.iter().sum::<Duration>() <= Duration::from_millis(100));
        assert_eq!(all.last(), Some(&PAUSE_MAX));
    }
}
