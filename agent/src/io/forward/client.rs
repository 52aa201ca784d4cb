//! A client's end of the control socket, for the loop and for `homeostat-agent routes`.
//!
//! Requests go out at once or not at all; everything that comes back, asked for or not, comes
//! through [`Client::next`]. Does not reconnect by itself: after [`ClientError::Lost`] the caller
//! connects again; a forwarder that died remembers weights, and has forgotten drains.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::task::{Context, Poll, ready};

use homeostat_common::ids::{RouteId, ServiceId, Token};
use homeostat_common::units::Millis;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::protocol::{
    Admit, DecodeError, Health, Message, Request, RouteReport, RouteView, Stamp, decode, encode,
};
use super::socket_path;
use crate::config::FORWARDS_MAX;
use crate::io::local::datagram::MESSAGE_MAX;
use crate::io::local::sockets::{self, Received};

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or the socket failed.
    #[error("cannot reach the forwarder")]
    Io(#[from] io::Error),
    /// The forwarder ended the connection; it may be starting again.
    #[error("the forwarder ended the connection")]
    Lost,
    /// What the forwarder sent is not of this version.
    #[error("cannot read what the forwarder sent")]
    Decode(#[from] DecodeError),
    /// The forwarder speaks another version.
    #[error("the forwarder speaks version {speaks} of the protocol")]
    Unsupported {
        /// Which.
        speaks: u8,
    },
    /// A message that does not fit what came before.
    #[error("the forwarder sent {0}")]
    Unexpected(&'static str),
}

/// What the forwarder tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A weight is in force.
    WeightSet {
        /// Which route.
        route: RouteId,
        /// Which backend of it.
        backend: ServiceId,
        /// The weight.
        weight: u16,
    },
    /// A drain has ended.
    Drained {
        /// Which route.
        route: RouteId,
        /// Which backend of it.
        backend: ServiceId,
        /// Connections that had to be reset.
        closed_by_force: u32,
        /// Whether a weight was set before it was empty.
        cancelled: bool,
    },
    /// What became of a change of admission.
    Acted {
        /// As it was asked.
        token: Token,
        /// Why it was not done; `None` when it was.
        failed: Option<String>,
    },
    /// A request could not be carried out.
    Refused {
        /// Why.
        why: String,
    },
    /// All routes.
    Reports {
        /// When; two reports with the same stamp are one.
        stamp: Stamp,
        /// In the order of the configuration.
        routes: Vec<RouteReport>,
    },
    /// A backend changed.
    Health {
        /// Which route.
        route: RouteId,
        /// Which backend of it.
        backend: ServiceId,
        /// What it is now.
        health: Health,
        /// Why.
        why: String,
    },
    /// The new configuration is in force.
    Reloaded,
    /// The new configuration cannot be used.
    NotReloaded {
        /// What is wrong.
        why: String,
    },
    /// The forwarder could not read a request.
    Malformed,
}

/// A connection to the forwarder.
#[derive(Debug)]
pub struct Client {
    socket: AsyncFd<OwnedFd>,
    /// Routes of a report that is not whole yet.
    partial: Vec<RouteReport>,
}

impl Client {
    /// Connects once. The routes are what there is now.
    ///
    /// # Errors
    /// [`ClientError`]; after all but `Unsupported` another try can succeed.
    pub async fn connect(run_dir: &Path) -> Result<(Self, Vec<RouteView>), ClientError> {
        let socket = sockets::connect(&socket_path(run_dir))?;
        let mut client = Self {
            socket: sockets::watched(socket, Interest::READABLE | Interest::WRITABLE)?,
            partial: Vec::new(),
        };
        // A forwarder that refused may have gone already; what it said is there.
        match client.request(&Request::Hello) {
            Ok(()) | Err(ClientError::Lost) => {}
            Err(error) => return Err(error),
        }
        match poll_fn(|context| client.poll_message(context)).await? {
            Message::Welcome { routes } => Ok((client, routes)),
            _ => Err(ClientError::Unexpected("something before its welcome")),
        }
    }

    /// Asks for a weight; answered by `WeightSet` or `Refused`.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub fn set_weight(
        &self,
        route: &RouteId,
        backend: &ServiceId,
        weight: u16,
    ) -> Result<(), ClientError> {
        let (route, backend) = (route.clone(), backend.clone());
        self.request(&Request::SetWeight {
            route,
            backend,
            weight,
        })
    }

    /// Asks to take a backend out; answered by `Drained` once it has no connections, or by
    /// `Refused`.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub fn drain(
        &self,
        route: &RouteId,
        backend: &ServiceId,
        within: Millis,
    ) -> Result<(), ClientError> {
        let (route, backend) = (route.clone(), backend.clone());
        self.request(&Request::Drain {
            route,
            backend,
            within,
        })
    }

    /// Asks to change which connections a route admits; answered by `Acted`.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub fn admit(&self, token: Token, route: &RouteId, change: Admit) -> Result<(), ClientError> {
        let route = route.clone();
        self.request(&Request::Admit {
            token,
            route,
            change,
        })
    }

    /// Asks for the state of all routes; answered by `Reports`.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub fn report(&self) -> Result<(), ClientError> {
        self.request(&Request::Report)
    }

    /// Asks to read the configuration again; answered by `Reloaded` or `NotReloaded`.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub fn reload(&self) -> Result<(), ClientError> {
        self.request(&Request::Reload)
    }

    /// What happens next. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone; it stays so.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Never waits: a forwarder that has not read what came before hangs, and who
    /// asks must not hang with it.
    fn request(&self, request: &Request) -> Result<(), ClientError> {
        let datagram = encode(request).map_err(io::Error::other)?;
        let sent = sockets::send(self.socket.get_ref().as_fd(), &datagram, &[]);
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::WouldBlock => ClientError::Lost,
            _ => ClientError::Io(error),
        })
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Event, ClientError>> {
        loop {
            let message = ready!(self.poll_message(context))?;
            if let Some(event) = self.take(message)? {
                return Poll::Ready(Ok(event));
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<Option<Event>, ClientError> {
        Ok(Some(match message {
            Message::WeightSet {
                route,
                backend,
                weight,
            } => Event::WeightSet {
                route,
                backend,
                weight,
            },
            Message::Drained {
                route,
                backend,
                closed_by_force,
                cancelled,
            } => Event::Drained {
                route,
                backend,
                closed_by_force,
                cancelled,
            },
            Message::Acted { token, failed } => Event::Acted { token, failed },
            Message::Refused { why } => Event::Refused { why },
            Message::Report { stamp, left, route } => {
                if self.partial.len() >= FORWARDS_MAX {
                    return Err(ClientError::Unexpected("a report without an end"));
                }
                self.partial.extend(route);
                if left > 0 {
                    return Ok(None);
                }
                let routes = std::mem::take(&mut self.partial);
                Event::Reports { stamp, routes }
            }
            Message::Health {
                route,
                backend,
                health,
                why,
            } => Event::Health {
                route,
                backend,
                health,
                why,
            },
            Message::Reloaded => Event::Reloaded,
            Message::NotReloaded { why } => Event::NotReloaded { why },
            Message::Malformed => Event::Malformed,
            Message::Welcome { .. } => return Err(ClientError::Unexpected("a second welcome")),
            Message::Unsupported { speaks } => return Err(ClientError::Unsupported { speaks }),
        }))
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Message, ClientError>> {
        let mut buffer = [0; MESSAGE_MAX];
        Poll::Ready(
            match ready!(sockets::poll_receive(&self.socket, context, &mut buffer))? {
                Received::End => Err(ClientError::Lost),
                Received::TooLong => Err(ClientError::Unexpected("too long a message")),
                Received::Datagram(length, _) => {
                    match decode(buffer.get(..length).unwrap_or_default())? {
                        Message::Unsupported { speaks } => Err(ClientError::Unsupported { speaks }),
                        message => Ok(message),
                    }
                }
            },
        )
    }
}
