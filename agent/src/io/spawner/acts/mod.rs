//! What only root may do to the node besides its services: the clock, the
//! uplink, the packet filter, a mount.
//!
//! In goes a typed deed whose parts come from the configuration file, out comes
//! whether it worked. Each waits for a server or the kernel, so all run one after
//! the other on a thread of their own: a start never waits for them.

mod clock;
mod filter;
mod mount;
mod uplink;

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use homeostat_common::ids::{InterfaceId, ServiceId, Token};
use homeostat_common::net::SourceNet;

use crate::io::keeper::chain;

/// Deeds on the way; a plan has at most 8 steps, and few plans run at once.
const DEEDS_MAX: usize = 16;

/// Something to be done to the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed {
    /// Set the clock by these servers.
    SyncClock(Vec<SocketAddr>),
    /// Send what leaves the node by default through this interface; `None` for
    /// the node's own choice.
    Uplink(Option<InterfaceId>),
    /// Drop packets from these addresses to these ports of a service.
    Block(ServiceId, SourceNet, Vec<u16>),
    /// Let through what is dropped of a service from these addresses.
    Unblock(ServiceId, SourceNet),
    /// Mount the file system that holds this path for writing again.
    Remount(PathBuf),
}

/// The thread, as the spawner sees it.
#[derive(Debug)]
pub(super) struct Acts {
    deeds: SyncSender<(Token, Deed)>,
    answers: Receiver<(Token, Result<(), String>)>,
    wake: UnixStream,
}

impl Acts {
    /// Starts the thread; it ends with this.
    ///
    /// # Errors
    /// When the system gives no thread or socket.
    pub(super) fn start() -> io::Result<Self> {
        let (deeds, waiting) = sync_channel::<(Token, Deed)>(DEEDS_MAX);
        let (done, answers) = sync_channel(DEEDS_MAX);
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        std::thread::Builder::new()
            .name("acts".into())
            .spawn(move || {
                for (token, deed) in waiting {
                    let result = carry_out(&deed);
                    match &result {
                        Ok(()) => tracing::info!(%token, ?deed, "done"),
                        Err(why) => tracing::warn!(%token, ?deed, why, "not done"),
                    }
                    if done.send((token, result)).is_err() {
                        return;
                    }
                    // A full socket wakes as well.
                    let _ = (&waker).write(&[1]);
                }
            })?;
        Ok(Self {
            deeds,
            answers,
            wake,
        })
    }

    /// Has a deed carried out; answered through [`Self::answers`].
    ///
    /// # Errors
    /// When too many are on the way.
    pub(super) fn order(&self, token: Token, deed: Deed) -> Result<(), String> {
        let sent = self.deeds.try_send((token, deed));
        sent.map_err(|_| format!("{DEEDS_MAX} deeds wait already"))
    }

    /// Readable when there are answers.
    pub(super) fn ready(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// What was done since.
    pub(super) fn answers(&self) -> Vec<(Token, Result<(), String>)> {
        let mut bytes = [0; 64];
        while matches!((&self.wake).read(&mut bytes), Ok(n) if n > 0) {}
        self.answers.try_iter().collect()
    }
}

fn carry_out(deed: &Deed) -> Result<(), String> {
    match deed {
        Deed::SyncClock(servers) => clock::sync(servers).map_err(|error| chain(&error)),
        Deed::Uplink(to) => uplink::switch(to.as_ref()).map_err(|error| chain(&error)),
        Deed::Block(service, from, ports) => {
            filter::block(service, *from, ports).map_err(|error| chain(&error))
        }
        Deed::Unblock(service, from) => {
            filter::unblock(service, *from).map_err(|error| chain(&error))
        }
        Deed::Remount(path) => mount::writable(path).map_err(|error| chain(&error)),
    }
}
