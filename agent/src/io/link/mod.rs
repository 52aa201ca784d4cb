//! The way to the coordinator: one MQTT 5 connection that comes back by itself.
//!
//! In go new events (by way of the outbox), projections for people, and replies;
//! out come [`LinkEvent`]s: acknowledgements, commands, and whether anyone
//! listens. Only the coordinator's own acknowledgement counts as delivery: no
//! broker keeps what it has acknowledged through its own crash, and the client
//! library drops what it has accepted when the broker lost the session. So the
//! library's queues hold nothing that is not also held here or in the outbox,
//! and each connection starts with fresh ones.
//!
//! ```text
//!            delay over           SUBACK good
//! Waiting ---------------> Open -------------> Ready
//!    ^                      |                    |
//!    +----------------------+--------------------+   any failure, silence
//! ```
//!
//! - `session`: the connection itself; `mqtt`: how rumqttc is used.
//! - [`uplink`]: which event goes out next.
//! - [`outgoing`]: what else waits to be published.
//! - [`incoming`]: what may arrive.
//! - `news`: what the loop has yet to be told.
//! - [`backoff`]: when to try again.
//!
//! Does not store anything, decide anything about healing, or answer commands:
//! the loop does. Without TLS so far.

pub mod backlog;
pub mod backoff;
pub mod ignored;
mod incoming;
mod mqtt;
mod news;
pub mod outgoing;
mod session;
pub mod uplink;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use homeostat_common::ids::NodeId;
use homeostat_common::saga::{self, Order};
use homeostat_common::wire::projection::{Meta, Outside, Status};
use homeostat_common::wire::seal::{Refusal, Trusted};
use homeostat_notify::intake::{Heard, Source};
use tokio::sync::{Notify, mpsc};

pub use backlog::{Backlog, Fetch, Record, backlog};
pub use ignored::{Class, Ignored, Reason};
pub use incoming::{CommandKind, CommandRequest};
pub use outgoing::{Delivery, Projection};
pub use session::Link;
pub(super) use session::unix_ms;
pub use uplink::Patience;

use outgoing::{Answer, Shelf};

/// Largest packet that is accepted: the largest message and its header. Brokers
/// are told; one that sends more all the same is left by a clean start.
pub const PACKET_MAX: u32 = 128 * 1024;

/// Shortest keep-alive; the client library panics below.
pub const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);

/// What a link is made of.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Name or address of the broker; an IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Shortest delay between two attempts.
    pub reconnect_min: Duration,
    /// Longest delay between two attempts.
    pub reconnect_max: Duration,
    /// Silence after which the broker is asked whether it is there; at least
    /// [`KEEP_ALIVE_MIN`].
    pub keep_alive: Duration,
    /// Published at each connection, when a coordinator comes back and before
    /// events are sent again, with `online`, `birth` and `acked` filled in.
    pub status: Status,
    /// Published at each connection.
    pub meta: Meta,
    /// Who may give orders.
    pub trusted: Trusted,
    /// Where devices tell of alarms.
    pub intake: Vec<Source>,
    /// Last event that the coordinator has acknowledged.
    pub acked: u64,
    /// Newest event in the store: an acknowledgement up to here is believed,
    /// because an earlier life of the program may have sent it.
    pub last: u64,
    /// How long to wait for acknowledgements.
    pub patience: Patience,
    /// For the jitter of reconnects.
    pub seed: u64,
}

/// What the loop learns from the link.
///
/// A receiver that lags gets the newest state of each sort, not every change.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkEvent {
    /// Subscribed, announced, and sending.
    Connected {
        /// How many connections there were since the start, this one included.
        birth: u64,
        /// Whether the broker still knew this node.
        session: bool,
    },
    /// Not any more, and why, in words.
    Disconnected {
        /// For the log and for people.
        reason: String,
    },
    /// The store may forget everything up to here.
    Acked {
        /// Last event of an unbroken run.
        through: u64,
    },
    /// Whether a coordinator listens, as it says itself.
    CoordinatorOnline(bool),
    /// A request that must be answered by [`LinkHandle::reply`].
    Command(CommandRequest),
    /// What an initiator that is trusted wants, signed by it for this node.
    Order(Box<Order>),
    /// An order was refused: who it says it is from, and why.
    OrderRefused(String, Refusal),
    /// What a node answers to this one as an initiator.
    Answer(NodeId, Box<saga::Answer>),
    /// All that other systems say about this node now, as the coordinator knows it.
    Outside(Outside),
    /// What a device says on a topic.
    Heard(String, Heard),
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Attempts to connect.
    pub attempts: u64,
    /// Connections that became ready.
    pub births: u64,
    /// Connections that another client with this node's name ended.
    pub taken_over: u64,
    /// Connections made with a clean start, to get past a message that cannot
    /// be read.
    pub clean_starts: u64,
    /// Events handed to the network, repetitions included.
    pub sent: u64,
    /// Repetitions after silence.
    pub resends: u64,
    /// Projections and replies that were given up for lack of space.
    pub dropped: u64,
    /// Messages larger than the broker accepts, not sent.
    pub unsendable: u64,
    /// Messages that the broker refused.
    pub refused_by_broker: u64,
    /// Messages that it acknowledged.
    pub acknowledged: u64,
    /// From the last of them to its acknowledgement.
    pub round_trip: Duration,
    /// Received messages.
    pub received: u64,
    /// Those of them without effect.
    pub ignored: Ignored,
}

#[derive(Debug, Default)]
struct State {
    shelf: Shelf,
    counters: Counters,
    notified: bool,
    stop: bool,
}

/// What handle and link share. The lock is held for a few instructions, never
/// across an await.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each critical section leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop's end of the link. Never blocks, never fails.
#[derive(Debug, Clone)]
pub struct LinkHandle(Arc<Shared>);

impl LinkHandle {
    /// The outbox has new events.
    pub fn notify_backlog(&self) {
        self.0.lock().notified = true;
        self.0.changed.notify_one();
    }

    /// Publishes for people and tools. Retained: the newest value of a topic
    /// arrives in the end. Others: only while connected, and droppable.
    pub fn publish(&self, projection: Projection) {
        self.0.lock().shelf.put(projection, Instant::now());
        self.0.changed.notify_one();
    }

    /// Answers a command; `payload` is the JSON of a
    /// [`homeostat_common::wire::projection::Reply`].
    pub fn reply(&self, request: CommandRequest, payload: Vec<u8>) {
        let CommandRequest {
            response_topic,
            correlation,
            ..
        } = request;
        if let Some(projection) = Projection::new(response_topic, payload) {
            self.0.lock().shelf.reply(Answer {
                projection,
                correlation,
            });
            self.0.changed.notify_one();
        }
    }

    /// Says goodbye to the broker, within a second, and ends the link.
    pub fn stop(&self) {
        self.0.lock().stop = true;
        self.0.changed.notify_one();
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let state = self.0.lock();
        Counters {
            dropped: state.shelf.dropped,
            ..state.counters
        }
    }
}

/// Runs a link on a thread of its own, which ends after [`LinkHandle::stop`] or
/// when nobody receives its events any more.
///
/// # Errors
/// When the system gives no thread or no event queue.
pub fn spawn(
    config: LinkConfig,
    backlog: Backlog,
    events: mpsc::Sender<LinkEvent>,
) -> std::io::Result<(LinkHandle, std::thread::JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let (handle, link) = Link::new(config, backlog, events);
    let thread = std::thread::Builder::new()
        .name("link".into())
        .spawn(move || runtime.block_on(link.run()))?;
    Ok((handle, thread))
}
