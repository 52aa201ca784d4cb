//! A link that can be broken: a TCP proxy that delays, stalls, cuts, garbles and slows down
//! what goes through it.
//!
//! In go connections to its port, out go the same bytes to the address behind it, changed as
//! [`Link`] says; that may be set anew at any time and then counts for what is sent from then
//! on. Whatever speaks TCP goes through: HTTP, MQTT, the forwarder's connections.
//!
//! Loss is what it is to somebody who speaks TCP: a segment that is lost is there 200 ms later,
//! the next time after twice as long (RFC 6298 with the minimum that Linux has), and everything
//! behind it waits. What is drawn follows from the seed, the number of the connection and the
//! number of the segment.
//!
//! A connection costs no time of its own: there is no handshake to be delayed, as between
//! processes that keep theirs open.

mod pipe;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Connections at once; each is a thread. More are closed at once.
const CONNECTIONS_MAX: usize = 512;
/// Of each thread: it holds one segment.
const STACK_BYTES: usize = 128 * 1024;
/// How long the address behind may take to accept.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// How soon a change or the end is noticed by whoever waits.
const NAP: Duration = Duration::from_millis(20);

/// What a link does to what goes over it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// How much later it arrives, one way.
    pub delay: Duration,
    /// Share of the segments that are lost and sent again.
    pub loss: f64,
    /// Share of the segments at which the connection is reset instead.
    pub reset: f64,
    /// Share of the segments in which a byte is another one.
    pub corrupt: f64,
    /// Bytes a second in each direction of each connection.
    pub bandwidth: Option<f64>,
    /// Nothing gets through: who comes is refused, who is there hears nothing.
    pub down: bool,
}

impl Link {
    /// As it should be, with so much delay one way.
    #[must_use]
    pub const fn after(delay: Duration) -> Self {
        Self {
            delay,
            loss: 0.0,
            reset: 0.0,
            corrupt: 0.0,
            bandwidth: None,
            down: false,
        }
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::after(Duration::ZERO)
    }
}

/// What went through, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Passed {
    pub connections: u64,
    pub bytes: u64,
    /// Segments that had to be sent again, and times that they were.
    pub lost: u64,
    pub resets: u64,
    pub corrupted: u64,
}

/// A proxy that runs; dropping it closes its port and all connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    behind: SocketAddr,
    seed: u64,
    link: Mutex<Link>,
    stop: AtomicBool,
    open: AtomicUsize,
    connections: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    resets: AtomicU64,
    corrupted: AtomicU64,
}

impl Shared {
    fn link(&self) -> Link {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Proxy {
    /// Listens on a port of 127.0.0.1 that was reserved, or on any for 0.
    ///
    /// # Errors
    /// When the port cannot be had, or no thread.
    pub fn start(port: u16, behind: SocketAddr, link: Link, seed: u64) -> io::Result<Self> {
        let listener = listen(port)?;
        let shared = Arc::new(Shared {
            port: listener.local_addr()?.port(),
            behind,
            seed,
            link: Mutex::new(link),
            stop: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            corrupted: AtomicU64::new(0),
        });
        let own = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("proxy".into())
            .spawn(move || accept(&own, Some(listener)))?;
        Ok(Self {
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.shared.port)
    }

    /// Changes the link.
    pub fn set(&self, link: Link) {
        let mut own = self
            .shared
            .link
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *own = link;
    }

    /// What the link does now.
    #[must_use]
    pub fn link(&self) -> Link {
        self.shared.link()
    }

    /// What went through so far.
    #[must_use]
    pub fn passed(&self) -> Passed {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Passed {
            connections: load(&self.shared.connections),
            bytes: load(&self.shared.bytes),
            lost: load(&self.shared.lost),
            resets: load(&self.shared.resets),
            corrupted: load(&self.shared.corrupted),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        // The threads of the connections follow within a nap; nobody reads what they write.
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn accept(shared: &Arc<Shared>, mut listener: Option<TcpListener>) {
    while !shared.ends() {
        match (shared.link().down, &listener) {
            // Closed, so that whoever comes knows at once and may go elsewhere.
            (true, Some(_)) => listener = None,
            (true, None) => thread::sleep(NAP),
            (false, None) => match listen(shared.port) {
                Ok(new) => listener = Some(new),
                Err(_) => thread::sleep(NAP),
            },
            (false, Some(open)) => {
                wait(&mut [PollFd::new(open, PollFlags::IN)], NAP);
                while let Ok((stream, _)) = open.accept() {
                    carry(shared, stream);
                }
            }
        }
    }
}

/// Waits until one of them is ready, no longer than this.
fn wait(on: &mut [PollFd<'_>], most: Duration) {
    let limit = Timespec {
        tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: most.subsec_nanos().into(),
    };
    // An interrupted wait is a short one.
    let _ = poll(on, Some(&limit));
}

/// Starts a thread for a connection; one that cannot be had is closed.
fn carry(shared: &Arc<Shared>, near: TcpStream) {
    if shared.open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
        shared.open.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
    let own = Arc::clone(shared);
    let carried = thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // What goes wrong with one connection is that connection's end.
            if let Ok(far) = TcpStream::connect_timeout(&own.behind, CONNECT_MAX) {
                let _ = pipe::both(&own, &near, &far, number);
            }
            own.open.fetch_sub(1, Ordering::Relaxed);
        });
    if carried.is_err() {
        shared.open.fetch_sub(1, Ordering::Relaxed);
    }
}
