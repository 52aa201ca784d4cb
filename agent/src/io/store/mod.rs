//! What the agent must still know after `kill -9`, a power cut or a bad disk.
//!
//! Two stores, by what their loss would cost:
//!
//! - [`journal`] and, on top of it, [`outbox`]: an append file of our own for what nobody
//!   else knows: plans under way, fencing tokens, the budget ledger, events that the
//!   coordinator has not acknowledged.
//! - [`kv`]: sled, for what can be rebuilt: playbook, history, baselines, templates.
//!
//! Payloads are bytes; their meaning belongs to the loop. Every call blocks on the disk, so
//! the shell calls it from one thread of its own, never from the event loop. There is no
//! clock and no retry timer in here: an error says what failed, the caller decides when to
//! try again, and the store works on after each of them.

mod disk;
mod error;
mod frame;
#[cfg(test)]
mod full;
pub mod journal;
pub mod kv;
pub mod outbox;
mod recover;
#[cfg(test)]
mod torn;

pub use error::{Damage, Error, Finding, Result};

/// A directory for one test, in memory where the machine allows: thousands of syncs would
/// otherwise wait for a disk.
#[cfg(test)]
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a writable directory")
}
