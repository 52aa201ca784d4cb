//! What the forwarder needs before it can serve: its folder, the lock, the signals, room for
//! descriptors.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use homeostat_common::ids::RouteId;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::config::ConfigErrors;
use crate::io::local;
use crate::io::local::lock::{self, Holder, Taken};

/// How long the lock may take: a killed forwarder holds it until the kernel has closed its
/// thousands of sockets.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(500);
/// Most connections of one forwarder, which is what they may cost: 128 KiB each for as long
/// as both sides do not read.
const CONNECTIONS_MAX: usize = 16 * 1024;
/// Descriptors for everything but connections: listeners, checks, clients, the runtime.
const DESCRIPTORS_KEPT: usize = 640;

/// Why the forwarder cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Another forwarder serves this `run_dir`.
    #[error("another forwarder already serves {}: {holder}", run_dir.display())]
    Second {
        /// The folder both want.
        run_dir: PathBuf,
        /// The other.
        holder: Holder,
    },
    /// Somebody has the lock who is no forwarder, or is not known to be one.
    #[error("cannot lock {}: {holder} has it; only a forwarder should", path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// A port could not be listened on.
    #[error("cannot listen at {address} for {route}")]
    Listen {
        /// Which route.
        route: RouteId,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
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

pub(super) fn failed(
    what: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> ForwardError + use<> {
    let path = path.to_owned();
    move |source| ForwardError::System { what, path, source }
}

/// Makes the folder, and takes the lock that makes this the only forwarder.
pub(super) fn own_folder(folder: &Path, run_dir: &Path) -> Result<File, ForwardError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(failed("create", folder))?;
    // Whatever the umask was: others must reach the socket and must not replace it.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .map_err(failed("open up", folder))?;
    let path = folder.join("lock");
    match lock::take(&path, LOCK_WAIT_MAX).map_err(failed("lock", &path))? {
        Taken::Held(file) => Ok(file),
        Taken::By(holder) if holder.is_twin() => {
            let run_dir = run_dir.to_owned();
            Err(ForwardError::Second { run_dir, holder })
        }
        Taken::By(holder) => Err(ForwardError::Locked { path, holder }),
    }
}

/// Raises the soft limit of descriptors to the hard one, and says for how many connections
/// that is enough.
pub(super) fn connections_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let limit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    (limit.saturating_sub(DESCRIPTORS_KEPT) / 2).clamp(1, CONNECTIONS_MAX)
}

/// Signals, as sockets that become readable.
#[derive(Debug)]
pub(super) struct Signals {
    /// SIGTERM and SIGINT.
    pub(super) stop: UnixStream,
    /// SIGHUP.
    pub(super) reload: UnixStream,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            stop: local::caught(&[Signal::INT, Signal::TERM])?,
            reload: local::caught(&[Signal::HUP])?,
        })
    }
}
