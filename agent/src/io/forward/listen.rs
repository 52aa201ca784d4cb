//! Listening sockets: inherited ones where there are, own ones otherwise.
//!
//! With sockets handed over by systemd (`LISTEN_FDS`), clients that come while the forwarder is
//! restarted wait in their backlog and are not refused. Without, the port is free again as soon
//! as the former process is dead (SO_REUSEADDR). SO_REUSEPORT is not set: it would let anybody
//! of the same user take a share of the connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::setup::ForwardError;
use crate::config::Forward;

/// Clients that may wait in the kernel; it takes less if it is set so.
const BACKLOG: i32 = 1024;
/// The first descriptor that systemd hands over.
const FIRST_FD: i32 = 3;
/// More than that many are not taken.
const FDS_MAX: i32 = 64;
/// A peer that has vanished without a word is noticed after this and six more tries.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(10);

/// Sockets that were handed over and that no route has taken yet.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<(String, OwnedFd)>);

impl Inherited {
    /// What the environment says is ours. To be called once: it takes the descriptors.
    pub(super) fn take() -> Self {
        let number = |key: &str| std::env::var(key).ok()?.parse::<i32>().ok();
        let own = i32::try_from(std::process::id()).ok();
        let count = number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == own);
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut found = Vec::new();
        for fd in FIRST_FD..FIRST_FD + count.unwrap_or(0).clamp(0, FDS_MAX) {
            let name = names.next().unwrap_or_default().to_owned();
            if let Some(fd) = adopt(fd) {
                found.push((name, fd));
            }
        }
        Self(found)
    }

    /// The socket that has the route's name, or else its address.
    fn of(&mut self, forward: &Forward) -> Option<OwnedFd> {
        let named = |(name, _): &(String, OwnedFd)| name == forward.id.as_str();
        let there = |(_, fd): &(String, OwnedFd)| address(fd) == Some(forward.listen);
        let place = self.0.iter().position(named);
        let place = place.or_else(|| self.0.iter().position(there))?;
        let (name, fd) = self.0.swap_remove(place);
        if address(&fd) != Some(forward.listen) {
            tracing::warn!(
                name,
                "inherited a socket of another address than configured"
            );
        }
        Some(fd)
    }
}

/// Takes a descriptor over if it is a listening TCP socket.
#[allow(unsafe_code)]
fn adopt(fd: i32) -> Option<OwnedFd> {
    // SAFETY: only borrowed for this call, which fails if the descriptor is not open.
    let open = unsafe { rustix::fd::BorrowedFd::borrow_raw(fd) };
    let flags = rustix::io::fcntl_getfd(open).ok()?;
    rustix::io::fcntl_setfd(open, flags | rustix::io::FdFlags::CLOEXEC).ok()?;
    let listens = sockopt::socket_acceptconn(open).unwrap_or(false);
    let stream = sockopt::socket_type(open).is_ok_and(|it| it == SocketType::STREAM);
    (listens && stream && address(open).is_some()).then_some(())?;
    rustix::io::ioctl_fionbio(open, true).ok()?;
    // SAFETY: it is open, and LISTEN_PID says it was passed to this process, in which nobody
    // else knows of it: each number is taken once, at start.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address(fd: impl std::os::fd::AsFd) -> Option<SocketAddr> {
    let name = rustix::net::getsockname(fd).ok()?;
    SocketAddr::try_from(name).ok()
}

/// The listening socket of a route.
pub(super) fn listen(
    forward: &Forward,
    inherited: &mut Inherited,
) -> Result<OwnedFd, ForwardError> {
    let fd = match inherited.of(forward) {
        Some(fd) => Ok(fd),
        None => own(forward.listen),
    };
    // Accepted sockets have the options of their listener, which saves calls for each.
    let fd = fd.and_then(|fd| {
        sockopt::set_tcp_nodelay(&fd, true)?;
        keep_alive(&fd)?;
        Ok(fd)
    });
    fd.map_err(|source| ForwardError::Listen {
        route: forward.id.clone(),
        address: forward.listen,
        source,
    })
}

fn own(address: SocketAddr) -> io::Result<OwnedFd> {
    let fd = socket(address)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    rustix::net::bind(&fd, &address)?;
    rustix::net::listen(&fd, BACKLOG)?;
    Ok(fd)
}

/// A TCP socket of the right family.
pub(super) fn socket(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
}

pub(super) fn keep_alive(fd: &OwnedFd) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(fd, KEEPALIVE_PERIOD)?;
    sockopt::set_tcp_keepcnt(fd, 6)
}
