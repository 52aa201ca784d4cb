//! The sockets of both ends: `SOCK_SEQPACKET`, so that a message arrives whole
//! and the end of the peer is seen.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::task::{Context, Poll, ready};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::datagram::MESSAGE_MAX;
use crate::config::SERVICES_MAX;

/// Most descriptors beside a message: one for each service, and as many that a reload
/// dropped while they were running. Below the 253 that the kernel allows.
pub(in crate::io) const BESIDE_MAX: usize = 2 * SERVICES_MAX;

/// Connections that wait to be accepted: one loop, and a few people who look.
const BACKLOG: i32 = 4;

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok(socket)
}

/// Listens at `path`; a socket that lies there is replaced, so the caller holds
/// the lock that says nobody else listens on it.
pub(in crate::io) fn listen(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = socket()?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

pub(in crate::io) fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::accept_with(listener, flags)?)
}

pub(in crate::io) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Sends one datagram with descriptors beside it; does not wait.
pub(in crate::io) fn send(
    socket: BorrowedFd<'_>,
    datagram: &[u8],
    beside: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BESIDE_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !beside.is_empty() && !control.push(SendAncillaryMessage::ScmRights(beside)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(datagram)], &mut control, flags)?;
    Ok(())
}

/// What was received.
pub(in crate::io) enum Received {
    /// This many bytes of the buffer, and descriptors.
    Datagram(usize, Vec<OwnedFd>),
    /// More than a message may have.
    TooLong,
    /// The peer is gone.
    End,
}

/// Receives one datagram; `WouldBlock` when there is none.
pub(in crate::io) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8; MESSAGE_MAX],
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BESIDE_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(socket, &mut parts, &mut control, flags)?;
    let mut beside = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            beside.extend(fds);
        }
    }
    // An empty datagram looks the same as the end; no message is empty.
    if received.bytes == 0 {
        return Ok(Received::End);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Ok(Received::TooLong);
    }
    Ok(Received::Datagram(received.bytes, beside))
}

/// Receives one datagram on a client's end, as soon as there is one.
pub(in crate::io) fn poll_receive(
    socket: &AsyncFd<OwnedFd>,
    context: &mut Context<'_>,
    buffer: &mut [u8; MESSAGE_MAX],
) -> Poll<io::Result<Received>> {
    loop {
        let mut guard = ready!(socket.poll_read_ready(context))?;
        match guard.try_io(|socket| receive(socket.as_fd(), buffer)) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            // Told once, before what is still to be read; then comes the end.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Ok(received) => return Poll::Ready(received),
            Err(_) => {}
        }
    }
}

/// Lets the runtime watch `fd`.
#[allow(unsafe_code)]
pub(in crate::io) fn watched(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps its descriptor open, and the same, for as long
    // as the `AsyncFd` that owns it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
