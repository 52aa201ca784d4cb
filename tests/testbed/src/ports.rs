//! Loopback ports that stay free for the service they are meant for.
//!
//! A port from the ephemeral range, as binding to 0 gives, has two traps while its service is
//! dead: any client's outgoing connection may take it, and a client that keeps trying to
//! reach it can connect *to itself*. So these ports lie below that range, and each is held
//! by a socket that is bound but never listens: others are refused, the service (which sets
//! SO_REUSEADDR, as the holder does) is not.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// Below this live the ports of known services.
const LOWEST: u16 = 10_000;
/// The usual start of the ephemeral range, for a kernel that does not say.
const EPHEMERAL_FROM: u16 = 32_768;

/// A reserved port on 127.0.0.1; dropping it ends the reservation.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _holder: OwnedFd,
}

impl Port {
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.number)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    #[error("only {found} of {wanted} loopback ports are free in {LOWEST}..{end}")]
    TooFew {
        wanted: usize,
        found: usize,
        end: u16,
    },
    #[error("cannot reserve port {port}")]
    Reserve { port: u16, source: Errno },
}

/// Reserves `wanted` ports for as long as the result lives.
///
/// # Errors
/// `TooFew` when the range is used up, `Reserve` when sockets cannot be made at all.
pub fn ports(wanted: usize) -> Result<Vec<Port>, PortsError> {
    let end = ephemeral_from().max(LOWEST + 1);
    let count = u32::from(end - LOWEST);
    // Processes that start at once begin at different places.
    let offset = std::process::id().wrapping_mul(2_654_435_761) % count;
    let mut found = Vec::with_capacity(wanted);
    for step in 0..count {
        if found.len() == wanted {
            break;
        }
        let number = u16::try_from(u32::from(LOWEST) + (offset + step) % count).unwrap_or(LOWEST);
        match reserve(number) {
            Ok(port) => found.push(port),
            Err(Errno::ADDRINUSE | Errno::ACCESS) => {}
            Err(source) => {
                return Err(PortsError::Reserve {
                    port: number,
                    source,
                });
            }
        }
    }
    match found.len() == wanted {
        true => Ok(found),
        false => Err(PortsError::TooFew {
            wanted,
            found: found.len(),
            end,
        }),
    }
}

fn reserve(number: u16) -> Result<Port, Errno> {
    let flags = SocketFlags::CLOEXEC;
    let holder = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    // Without SO_REUSEADDR, so that another holder's port is refused; with it afterwards.
    bind(&holder, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, number))?;
    set_socket_reuseaddr(&holder, true)?;
    Ok(Port {
        number,
        _holder: holder,
    })
}

fn ephemeral_from() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let first = range
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok());
    first.unwrap_or(EPHEMERAL_FROM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn each_is_reserved_once_and_outside_the_ephemeral_range() {
        let (mine, yours) = (ports(20).unwrap(), ports(20).unwrap());
        let all: HashSet<u16> = mine.iter().chain(&yours).map(Port::number).collect();
        assert_eq!(all.len(), 40);
        assert!(all.iter().all(|number| *number < ephemeral_from()));
    }

    #[test]
    fn the_holder_refuses_clients_and_lets_the_service_in_again_and_again() {
        let port = ports(1).unwrap().remove(0);
        let refused = TcpStream::connect(port.address()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        for _ in 0..3 {
            // std sets SO_REUSEADDR, as the services do.
            let service = TcpListener::bind(port.address()).unwrap();
            let client = TcpStream::connect(port.address()).unwrap();
            // The service hangs up first, which leaves the port in TIME_WAIT.
            drop(service.accept().unwrap());
            drop(client);
        }
    }
}
