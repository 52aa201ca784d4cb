//! The loop's end of the connection to the spawner.
//!
//! Requests go out at once; everything that comes back, asked for or not, comes
//! through [`Client::next`]. The client watches the pidfd of each live service
//! itself, so [`Event::Died`] comes as soon as the kernel knows, without the
//! spawner. How it died follows with [`Event::Exited`].
//!
//! Does not reconnect by itself: after [`ClientError::Lost`] the loop connects
//! again and gets all slots anew, which it has to compare with what it knew.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use homeostat_common::ids::{BootId, Instance, ServiceId, Token};
use homeostat_common::units::Millis;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::protocol::{
    DecodeError, Exit, MESSAGE_MAX, Message, NodeAct, ProcessAct, Refusal, Request, SlotView,
    StopSignal, decode, encode,
};
use super::socket_path;
use crate::chaos::Injection;
use crate::io::local::sockets::{self, Received, watched};

/// First and longest pause between attempts to connect.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or the socket failed.
    #[error("cannot reach the spawner")]
    Io(#[from] io::Error),
    /// The spawner ended the connection; it may be starting again.
    #[error("the spawner ended the connection")]
    Lost,
    /// Another loop holds the connection.
    #[error("the spawner already serves a loop, process {pid}")]
    Busy {
        /// That loop.
        pid: u32,
    },
    /// What the spawner sent is not of this version.
    #[error("cannot read what the spawner sent")]
    Decode(#[from] DecodeError),
    /// The spawner speaks another version.
    #[error("the spawner speaks version {speaks} of the protocol")]
    Unsupported {
        /// Which.
        speaks: u8,
    },
    /// A message that does not fit what came before.
    #[error("the spawner sent {0}")]
    Unexpected(&'static str),
}

/// What the spawner and the kernel tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A service runs.
    Started {
        /// Which.
        service: ServiceId,
        /// This life of it.
        instance: Instance,
        /// Its process.
        pid: u32,
    },
    /// A start was refused.
    Refused {
        /// Which.
        service: ServiceId,
        /// Why.
        why: Refusal,
    },
    /// A signal was sent.
    Signalled {
        /// Which.
        service: ServiceId,
        /// The life that got it.
        instance: Instance,
    },
    /// A signal was not sent, as that life is over.
    NotSignalled {
        /// Which.
        service: ServiceId,
        /// The life that was meant.
        instance: Instance,
    },
    /// The kernel says the process is gone; it may be started again at once.
    /// Once for each instance that was live.
    Died {
        /// Which.
        service: ServiceId,
        /// The life that is over.
        instance: Instance,
    },
    /// How it died; always after its `Died`.
    Exited {
        /// Which.
        service: ServiceId,
        /// The life that is over.
        instance: Instance,
        /// How.
        status: Exit,
    },
    /// What became of a `memory_limit`.
    MemoryLimit {
        /// Which.
        service: ServiceId,
        /// The life it is about.
        instance: Instance,
        /// Why it is not enforced; `None` when it is.
        not_enforced: Option<String>,
    },
    /// What became of an act.
    Acted {
        /// As it was asked.
        token: Token,
        /// Why it was not done; `None` when it was.
        failed: Option<String>,
    },
    /// The new configuration is in force.
    Reloaded,
    /// The new configuration is wrong.
    NotReloaded {
        /// What is wrong with it.
        why: String,
    },
    /// A fault on purpose is in force.
    Broken {
        /// Where.
        service: ServiceId,
        /// What.
        injection: Injection,
        /// For how long at most from now on.
        left: Millis,
    },
    /// None was put into anything, or none is in force.
    NotBroken {
        /// Why.
        why: String,
    },
    /// It is over.
    Mended {
        /// Why.
        why: String,
    },
    /// The spawner could not read a request.
    Malformed,
}

/// A connection to the spawner.
#[derive(Debug)]
pub struct Client {
    socket: AsyncFd<OwnedFd>,
    boot: BootId,
    live: BTreeMap<ServiceId, Watched>,
    /// Events that came together.
    queue: VecDeque<Event>,
}

#[derive(Debug)]
struct Watched {
    instance: Instance,
    pidfd: AsyncFd<OwnedFd>,
}

/// The lives that a lost spawner had handed out: the kernel tells their ends without it.
#[derive(Debug, Default)]
pub struct Lives(BTreeMap<ServiceId, Watched>);

impl Lives {
    /// The next one that ends; never, when none is left. Dropping the future loses nothing.
    pub async fn ended(&mut self) -> (ServiceId, Instance) {
        poll_fn(|context| {
            let ended = self.0.iter().find_map(|(service, watched)| {
                let ready = watched.pidfd.poll_read_ready(context).is_ready();
                ready.then(|| service.clone())
            });
            let Some(service) = ended else {
                return Poll::Pending;
            };
            match self.0.remove(&service) {
                Some(watched) => Poll::Ready((service, watched.instance)),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Client {
    /// Connects once. The slots are what there is now; from here on
    /// [`Self::next`] tells what changes.
    ///
    /// # Errors
    /// [`ClientError`]; after all but `Unsupported` another try can succeed.
    pub async fn connect(run_dir: &Path) -> Result<(Self, Vec<SlotView>), ClientError> {
        let socket = sockets::connect(&socket_path(run_dir))?;
        let mut client = Self {
            socket: watched(socket, Interest::READABLE | Interest::WRITABLE)?,
            boot: BootId([0; 16]),
            live: BTreeMap::new(),
            queue: VecDeque::new(),
        };
        // A spawner that refused may have gone already; what it said is there.
        match client.request(&Request::Hello).await {
            Ok(()) | Err(ClientError::Lost) => {}
            Err(error) => return Err(error),
        }
        let (message, beside) = poll_fn(|context| client.poll_message(context)).await?;
        let Message::Welcome { boot, slots } = message else {
            return Err(ClientError::Unexpected("something before its welcome"));
        };
        client.boot = boot;
        let live = slots.iter().filter_map(|slot| Some((slot, slot.live?)));
        let mut beside = beside.into_iter();
        for (slot, (instance, _)) in live {
            let pidfd = beside
                .next()
                .ok_or(ClientError::Unexpected("fewer pidfds than services"))?;
            client.watch(slot.service.clone(), instance, pidfd)?;
        }
        Ok((client, slots))
    }

    /// Connects, trying again until `limit` is over.
    ///
    /// # Errors
    /// The last [`ClientError`]; at once when the versions differ.
    pub async fn connect_within(
        run_dir: &Path,
        limit: Millis,
    ) -> Result<(Self, Vec<SlotView>), ClientError> {
        let end = Instant::now() + Duration::from_millis(limit.0);
        let mut pause = RETRY_MIN;
        loop {
            match Self::connect(run_dir).await {
                Err(ClientError::Unsupported { speaks }) => {
                    return Err(ClientError::Unsupported { speaks });
                }
                Err(_) if Instant::now() + pause < end => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                other => return other,
            }
        }
    }

    /// The boot in which the spawner's instances are unique.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// The pidfd of a live instance, for whoever wants to watch it as well.
    #[must_use]
    pub fn pidfd(&self, service: &ServiceId) -> Option<BorrowedFd<'_>> {
        let watched = self.live.get(service)?;
        Some(watched.pidfd.get_ref().as_fd())
    }

    /// Asks to start a service; answered by `Started` or `Refused`.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub async fn start(&self, service: &ServiceId) -> Result<(), ClientError> {
        let service = service.clone();
        self.request(&Request::Start { service }).await
    }

    /// Asks to signal an instance; answered by `Signalled` or `NotSignalled`.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub async fn signal(
        &self,
        service: &ServiceId,
        instance: Instance,
        signal: StopSignal,
    ) -> Result<(), ClientError> {
        let service = service.clone();
        let request = Request::Signal {
            service,
            instance,
            signal,
        };
        self.request(&request).await
    }

    /// Asks to do something to a life that goes on; answered by `Acted`.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub async fn act(
        &self,
        token: Token,
        service: &ServiceId,
        instance: Instance,
        act: ProcessAct,
    ) -> Result<(), ClientError> {
        let request = Request::Act {
            token,
            service: service.clone(),
            instance,
            act,
        };
        self.request(&request).await
    }

    /// Asks to do something to the node; answered by `Acted`.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub async fn act_on_node(&self, token: Token, act: NodeAct) -> Result<(), ClientError> {
        self.request(&Request::ActOnNode { token, act }).await
    }

    /// Asks for a fault on purpose; answered by `Broken` or `NotBroken`.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub async fn inject(
        &self,
        service: &ServiceId,
        injection: Injection,
        span: Millis,
    ) -> Result<(), ClientError> {
        let service = service.clone();
        let request = Request::Break {
            service,
            injection,
            span,
        };
        self.request(&request).await
    }

    /// Asks to end the fault on purpose; answered by `Mended` or `NotBroken`.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub async fn mend(&self) -> Result<(), ClientError> {
        self.request(&Request::Mend).await
    }

    /// Asks to read the configuration again; answered by `Reloaded` or
    /// `NotReloaded`.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub async fn reload(&self) -> Result<(), ClientError> {
        self.request(&Request::Reload).await
    }

    /// What happens next. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone; it stays so.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// What is left of a connection that is gone.
    #[must_use]
    pub fn lives(self) -> Lives {
        Lives(self.live)
    }

    async fn request(&self, request: &Request) -> Result<(), ClientError> {
        let datagram = encode(request).map_err(io::Error::other)?;
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            sockets::send(socket.as_fd(), &datagram, &[])
        });
        sent.await.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Lost,
            _ => ClientError::Io(error),
        })
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Event, ClientError>> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Poll::Ready(Ok(event));
            }
            if self.poll_deaths(context) {
                continue;
            }
            let (message, beside) = ready!(self.poll_message(context))?;
            self.take(message, beside)?;
        }
    }

    /// Queues a `Died` for each pidfd that has become readable.
    fn poll_deaths(&mut self, context: &mut Context<'_>) -> bool {
        let died = |(service, watched): (&ServiceId, &Watched)| {
            let ready = watched.pidfd.poll_read_ready(context).is_ready();
            ready.then(|| service.clone())
        };
        let died: Vec<_> = self.live.iter().filter_map(died).collect();
        for service in &died {
            self.died(service);
        }
        !died.is_empty()
    }

    fn died(&mut self, service: &ServiceId) {
        if let Some(watched) = self.live.remove(service) {
            self.queue.push_back(Event::Died {
                service: service.clone(),
                instance: watched.instance,
            });
        }
    }

    fn watch(
        &mut self,
        service: ServiceId,
        instance: Instance,
        pidfd: OwnedFd,
    ) -> Result<(), ClientError> {
        let pidfd = watched(pidfd, Interest::READABLE)?;
        self.live.insert(service, Watched { instance, pidfd });
        Ok(())
    }

    /// Turns a message into events.
    fn take(&mut self, message: Message, beside: Vec<OwnedFd>) -> Result<(), ClientError> {
        let event = match message {
            Message::Started {
                service,
                instance,
                pid,
            } => {
                let pidfd = beside.into_iter().next();
                let pidfd = pidfd.ok_or(ClientError::Unexpected("a start without a pidfd"))?;
                // A former life that was still watched is over by now.
                self.died(&service);
                self.watch(service.clone(), instance, pidfd)?;
                Event::Started {
                    service,
                    instance,
                    pid,
                }
            }
            Message::Exited {
                service,
                instance,
                status,
            } => {
                let watched = self.live.get(&service);
                if watched.is_some_and(|watched| watched.instance == instance) {
                    self.died(&service);
                }
                Event::Exited {
                    service,
                    instance,
                    status,
                }
            }
            Message::Refused { service, why } => Event::Refused { service, why },
            Message::Signalled { service, instance } => Event::Signalled { service, instance },
            Message::NotSignalled { service, instance } => {
                Event::NotSignalled { service, instance }
            }
            Message::MemoryLimit {
                service,
                instance,
                not_enforced,
            } => Event::MemoryLimit {
                service,
                instance,
                not_enforced,
            },
            Message::Acted { token, failed } => Event::Acted { token, failed },
            Message::Reloaded => Event::Reloaded,
            Message::NotReloaded { why } => Event::NotReloaded { why },
            Message::Broken {
                service,
                injection,
                left,
            } => Event::Broken {
                service,
                injection,
                left,
            },
            Message::NotBroken { why } => Event::NotBroken { why },
            Message::Mended { why } => Event::Mended { why },
            Message::Malformed => Event::Malformed,
            Message::Welcome { .. } => return Err(ClientError::Unexpected("a second welcome")),
            Message::Busy { pid } => return Err(ClientError::Busy { pid }),
            Message::Unsupported { speaks } => return Err(ClientError::Unsupported { speaks }),
        };
        self.queue.push_back(event);
        Ok(())
    }

    fn poll_message(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(Message, Vec<OwnedFd>), ClientError>> {
        let mut buffer = [0; MESSAGE_MAX];
        Poll::Ready(
            match ready!(sockets::poll_receive(&self.socket, context, &mut buffer))? {
                Received::End => Err(ClientError::Lost),
                Received::TooLong => Err(ClientError::Unexpected("too long a message")),
                Received::Datagram(length, beside) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    match decode(datagram)? {
                        Message::Busy { pid } => Err(ClientError::Busy { pid }),
                        Message::Unsupported { speaks } => Err(ClientError::Unsupported { speaks }),
                        message => Ok((message, beside)),
                    }
                }
            },
        )
    }
}
