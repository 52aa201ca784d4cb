//! How the processes of one node talk to each other, and what each of them needs
//! to be the only one of its kind: for the spawner and the forwarder alike.
//!
//! In go datagrams of some protocol, signals, a file to lock; what the messages
//! mean, who may connect, and what is done about a peer that is gone, is for those
//! who talk.
//!
//! - `datagram`: a message as bytes, with its version.
//! - `lock`: the file that only one of a kind holds.
//! - `sockets`: both ends of a connection.

pub mod datagram;
pub mod lock;
pub(in crate::io) mod sockets;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::process::Signal;

/// Pause between two attempts to get a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// Locks a file for as long as it is open; `false` when another process still
/// has it after `wait`.
fn lock_within(file: &File, wait: Duration) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < wait => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A socket that becomes readable when one of these signals arrives.
pub(in crate::io) fn caught(signals: &[Signal]) -> io::Result<UnixStream> {
    let (socket, end) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;
    for signal in signals {
        let end = OwnedFd::from(end.try_clone()?);
        signal_hook::low_level::pipe::register(signal.as_raw(), end)?;
    }
    Ok(socket)
}
