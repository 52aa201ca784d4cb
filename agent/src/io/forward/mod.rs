//! The forwarder: TCP in front of replicated services, in a process of its own.
//!
//! ```text
//!  clients ──> [ listener ] ── weights, health ──> backend 1   (a service of this node)
//!              [  epoll   ]                   └──> backend 2   (another node)
//!                   ^
//!   SOCK_SEQPACKET  |  weights, drains, reports, news of health
//!                   v
//!            loop, `homeostat-agent routes`
//! ```
//!
//! It gives each connection to one backend and moves bytes, with half-closes kept. A backend
//! that refuses costs a connection nothing but the next try; when none accepts, connections
//! wait for `patience`, so that a restart within that time is latency and not an error. It
//! judges backends by what happens to real connections and by checks, and executes what the
//! loop decides: weights and drains. It decides nothing that outlives its own measurements, and
//! goes on as it is when the loop dies.
//!
//! Does not look into the bytes: no TLS, no HTTP, no replay of requests. What was sent to a
//! backend that then died is lost, as only the client knows whether it may be sent again.
//!
//! # Why an epoll loop of its own
//!
//! Measured beside tokio (`current_thread`, `copy_bidirectional`), in alternating rounds with no
//! forwarder at all, 16 kB answers, 8 clients; median of 5 rounds. The machine had 2 cores that
//! client, server and forwarder shared with other work (load 3 to 8), so only the order counts:
//!
//! | share of the direct rate | this | tokio |
//! |---|---|---|
//! | server with some work, kept connections (24,000/s direct) | 0.78 | 0.73 |
//! | the same, a connection each (13,000/s) | 0.72 | 0.61 |
//! | server without any work, kept connections (173,000/s) | 0.32 | 0.33 |
//!
//! The rounds overlap, so the gain is small. What decides is memory and control: no task and no
//! buffer for a connection at rest, and every failure seen where it happens. Killed and started
//! again, it answered after 3.0 ms (median of 30, worst 4.0). Bytes are copied; `splice` was not
//! measured. It needs a pipe, two more descriptors, for each direction and takes as many calls.
//!
//! - `protocol`, `client`: the control socket; `show`: `homeostat-agent routes`.
//! - `backend`, `table`, `latency`: health, turns, measurements; pure.
//! - `server`: the process; `dialing`, `relay`, `pairs`, `timers`, `check`, `control`,
//!   `listen`, `setup` and `weights` are its hands.

mod admission;
mod backend;
mod check;
pub mod client;
mod control;
mod dialing;
mod latency;
mod listen;
mod pairs;
pub mod protocol;
mod relay;
pub mod server;
mod setup;
pub mod show;
mod table;
mod timers;
mod weights;

use std::path::{Path, PathBuf};

/// Folder of the forwarder in the node's `run_dir`.
fn folder(run_dir: &Path) -> PathBuf {
    run_dir.join("forward")
}

/// Where the forwarder of a node listens for its clients.
#[must_use]
pub fn socket_path(run_dir: &Path) -> PathBuf {
    folder(run_dir).join("socket")
}
