//! The spawner: a small process that owns the services.
//!
//! ```text
//!  loop (unprivileged)                 spawner (root in production)
//!   client ──── SOCK_SEQPACKET ──────> server ── fork, exec ──> services
//!          <─── messages + pidfds ────        <── SIGCHLD ─────
//! ```
//!
//! It starts services, is their parent, kills them, and hands the loop a pidfd
//! for each, so that the loop sees a death at the same moment as the parent
//! does. It decides nothing: no restart happens without a request. A request
//! names a service of the configuration file and never a command, so a loop
//! that went astray cannot make the spawner run anything else.
//!
//! What holds whatever is asked, also when the spawner is killed and started
//! again: **at most one live instance per service**. Death of the loop disturbs
//! no service, nor does death of the spawner.
//!
//! - `protocol`: the messages.
//! - `server`: the process; `setup`, `slots`, `process`, `state`, `marks`, `kin`,
//!   `cgroup`, `oom`, `logs` and `users` are its hands.
//! - `owner`: services whose processes systemd or a container engine runs.
//! - `client`: the loop's end.

mod acts;
pub(in crate::io) mod cgroup;
pub mod chaos;
pub mod client;
pub(crate) mod commands;
mod cpu;
mod kin;
mod logs;
mod marks;
mod oom;
pub(crate) mod owner;
mod process;
pub mod protocol;
pub mod server;
pub(in crate::io) mod setup;
mod slots;
mod state;
mod users;

use std::path::{Path, PathBuf};

/// Folder of the spawner in the node's `run_dir`. A folder of its own, as only
/// the spawner may write there: who can forge its slots can have it signal any
/// process.
fn folder(run_dir: &Path) -> PathBuf {
    run_dir.join("spawner")
}

/// Where the spawner of a node listens.
#[must_use]
pub fn socket_path(run_dir: &Path) -> PathBuf {
    folder(run_dir).join("socket")
}
