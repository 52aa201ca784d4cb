//! The sockets of both ends: `SOCK_SEQPACKET`, so that a message arrives whole
//! and the end of the peer is seen.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::protocol::{MESSAGE_MAX, SLOTS_MAX};

/// Connections that wait to be accepted; there is one loop.
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
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SLOTS_MAX))];
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
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SLOTS_MAX))];
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
