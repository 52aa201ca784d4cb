//! What the spawner needs before it can serve: a trusted configuration, a
//! folder nobody else writes to, the lock, the signals, the peers.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::users;
use crate::config::{Config, ConfigErrors};
use crate::io::local;
use crate::io::local::lock::{self, Holder, Taken};

/// How long the lock may take: a spawner that was killed in the middle of a
/// start leaves it to the child until that has reached its `exec`.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(500);

/// Why the spawner cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SpawnerError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Another spawner serves this `run_dir`.
    #[error("another spawner already serves {}: {holder}", run_dir.display())]
    SecondSpawner {
        /// The folder both want.
        run_dir: PathBuf,
        /// The other.
        holder: Holder,
    },
    /// Somebody has the lock who is no spawner, or is not known to be one.
    #[error("cannot lock {}: {holder} has it; only a spawner should", path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// Somebody with fewer rights could change what a root spawner does.
    #[error("{} is not safe for a spawner: {why}", path.display())]
    Untrusted {
        /// File or folder.
        path: PathBuf,
        /// Who could.
        why: String,
    },
    /// The operating system would not.
    #[error("cannot {what} {}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// Makes an error out of a failed operation on `path`.
pub(super) fn failed(
    what: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> SpawnerError + use<> {
    let path = path.to_owned();
    move |source| SpawnerError::System { what, path, source }
}

/// Reads the configuration, which a spawner that is root only takes from root:
/// it says what is run, and as whom.
pub(super) fn read_config(file: &Path) -> Result<Config, SpawnerError> {
    if rustix::process::geteuid().is_root() {
        let meta = fs::metadata(file).map_err(failed("look at", file))?;
        trusted(file, &meta)?;
    }
    Ok(Config::load(file)?)
}

/// Makes the spawner's folder and checks that only the spawner writes there.
pub(super) fn own_folder(folder: &Path) -> Result<(), SpawnerError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(failed("create", folder))?;
    let meta = fs::symlink_metadata(folder).map_err(failed("look at", folder))?;
    if !meta.is_dir() {
        let why = "it is not a folder".into();
        let path = folder.to_owned();
        return Err(SpawnerError::Untrusted { path, why });
    }
    trusted(folder, &meta)?;
    // Whatever the umask was, the loop must get to the socket.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .map_err(failed("open up", folder))
}

fn trusted(path: &Path, meta: &fs::Metadata) -> Result<(), SpawnerError> {
    let own = rustix::process::geteuid().as_raw();
    let why = if meta.uid() != own {
        format!("it belongs to user {}, not to {own}", meta.uid())
    } else if meta.mode() & 0o022 != 0 {
        format!("others may write to it (mode {:o})", meta.mode() & 0o7777)
    } else {
        return Ok(());
    };
    let path = path.to_owned();
    Err(SpawnerError::Untrusted { path, why })
}

/// Takes the lock that makes this the only spawner; held until it is closed.
pub(super) fn only_one(folder: &Path, run_dir: &Path) -> Result<File, SpawnerError> {
    let path = folder.join("lock");
    match lock::take(&path, LOCK_WAIT_MAX).map_err(failed("lock", &path))? {
        Taken::Held(file) => Ok(file),
        Taken::By(holder) if holder.is_twin() => {
            let run_dir = run_dir.to_owned();
            Err(SpawnerError::SecondSpawner { run_dir, holder })
        }
        Taken::By(holder) => Err(SpawnerError::Locked { path, holder }),
    }
}

/// Who may connect: the spawner's own user and `agent_user`.
#[derive(Debug, Clone, Copy)]
pub(in crate::io) struct Peers {
    own: u32,
    agent: Option<u32>,
    /// Group of `agent_user`, which may read the logs.
    pub(super) readers: Option<u32>,
}

impl Peers {
    pub(in crate::io) fn of(config: &Config) -> io::Result<Self> {
        let agent = config.node.agent_user.as_deref();
        let agent = agent.map(users::find).transpose()?;
        let own = rustix::process::geteuid();
        // Only root can give a file to a group it is not in.
        let readers = agent.as_ref().filter(|_| own.is_root());
        Ok(Self {
            own: own.as_raw(),
            agent: agent.as_ref().map(|user| user.uid),
            readers: readers.map(|user| user.gid),
        })
    }

    pub(in crate::io) fn admit(&self, uid: u32) -> bool {
        uid == self.own || Some(uid) == self.agent
    }
}

/// Signals, as sockets that become readable.
#[derive(Debug)]
pub(super) struct Signals {
    /// SIGCHLD.
    pub(super) child: UnixStream,
    /// SIGTERM and SIGINT.
    pub(super) stop: UnixStream,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            child: local::caught(&[Signal::CHILD])?,
            stop: local::caught(&[Signal::INT, Signal::TERM])?,
        })
    }
}

/// Settings of the process itself. Whatever is not permitted is done without.
pub(super) fn settle_process() {
    // Orphans of services come here and not to init.
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "orphans of services will not be reaped here");
    }
    // Needs a capability; without it the spawner is as likely to be killed for
    // memory as anything else, except that services are more so.
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    if let Err(error) = rustix::process::chdir("/") {
        tracing::warn!(%error, "cannot leave the present folder");
    }
}
