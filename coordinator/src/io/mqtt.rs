//! The connection to the broker.
//!
//! Hands every message on and acknowledges it to the broker only when told that
//! its effect is stored: a crash in between makes the broker deliver it again.
//! Sends the coordinator's cumulative acknowledgements, of which a newer one
//! replaces an older one still waiting.
//!
//! ```text
//!            CONNACK, SUBACK ok
//!  Waiting ----------------------> Connected
//!     ^  1 s .. 60 s, jittered         |
//!     +--------------------------------+
//!       error, refused subscription, more in flight than agreed
//! ```

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use homeostat_common::wire::Down;
use homeostat_common::wire::projection::CoordinatorStatus;
use homeostat_common::wire::topic::{COORDINATOR_FILTERS, COORDINATOR_STATUS, NodeTopics, find};
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, Filter, LastWill, Packet, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::{mpsc, watch};

use super::broker::PACKET_MAX;
use super::db::Acknowledge;

/// Messages that the broker may send before the first is acknowledged. One
/// commit settles all that wait, so this bounds a batch as well.
pub const RECEIVE_MAX: u16 = 1024;

/// Messages between here and the database: those in flight of this connection,
/// and of the one before, whose messages come a second time.
pub const ARRIVED_MAX: usize = 2 * RECEIVE_MAX as usize + 2;

/// Batches that are settled and wait for the connection's task, which takes
/// them between any two packets.
pub const SETTLED_MAX: usize = 16;

/// Our own publishes in flight. rumqttc reserves a slot for each.
const SEND_MAX: u16 = 256;

/// Requests between us and rumqttc: every acknowledgement there can be at once,
/// and some publishes.
const REQUESTS_MAX: usize = RECEIVE_MAX as usize + 512;

/// Largest packet taken. Above the broker's own cap: a larger one than we take
/// would end every connection over a persistent session.
#[allow(clippy::cast_possible_truncation)] // 256 KiB
const INCOMING_MAX: u32 = 2 * PACKET_MAX as u32;

/// The broker keeps what comes for us so long while we are away.
const SESSION_EXPIRY: Duration = Duration::from_secs(7 * 86_400);

/// Shortest pause before connecting again.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest pause: the fleet waits for us, but a broker that is down needs no
/// storm.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A connection that lasts so long proves that the broker is well.
const STABLE_AFTER: Duration = Duration::from_secs(300);

/// So many connections in a row that ended in the same error at once: some
/// message of the session does it, so the session is given up. What it held,
/// the nodes send again.
const SAME_FAILURES_MAX: u32 = 5;

/// A connection that ends sooner than this ended "at once".
const SHORT: Duration = Duration::from_secs(10);

/// How often waiting acknowledgements are offered again to a full queue.
const OFFER_EVERY: Duration = Duration::from_millis(20);

/// How long a clean end may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What comes from the broker.
#[derive(Debug)]
pub enum Up {
    /// A connection stands.
    Connected {
        /// Whether the broker remembers our session.
        session: bool,
    },
    /// It is lost.
    Disconnected,
    /// A message.
    Arrived(Box<Arrived>),
}

/// A message, not yet acknowledged to the broker.
#[derive(Debug)]
pub struct Arrived {
    /// The connection it came over; packet numbers mean nothing on another.
    pub connection: u64,
    /// When.
    pub at: Instant,
    /// What.
    pub publish: Publish,
}

/// What became of messages.
#[derive(Debug, Default)]
pub struct Settled {
    /// In the order in which they came; brokers insist on it.
    pub messages: Vec<Arrived>,
    /// What their senders may forget.
    pub acks: Vec<Acknowledge>,
    /// Orders to nodes. Without a connection they are lost: they are repeated.
    pub orders: Vec<Sealed>,
}

/// A signed order on its way.
#[derive(Debug)]
pub struct Sealed {
    /// Where to.
    pub topic: String,
    /// The frame.
    pub frame: Vec<u8>,
}

/// Where the broker is and who we are.
#[derive(Debug, Clone)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name of our session, unique on the broker.
    pub client: String,
}

fn status(online: bool) -> Vec<u8> {
    let status = CoordinatorStatus {
        online,
        version: crate::VERSION.into(),
    };
    serde_json::to_vec(&status).unwrap_or_default()
}

fn options(address: &Address) -> MqttOptions {
    let mut options = MqttOptions::new(&address.client, &address.host, address.port);
    options.set_keep_alive(Duration::from_secs(30));
    options.set_clean_start(false);
    options.set_manual_acks(true);
    options.set_outgoing_inflight_upper_limit(SEND_MAX);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = u32::try_from(SESSION_EXPIRY.as_secs()).ok();
    properties.receive_maximum = Some(RECEIVE_MAX);
    properties.max_packet_size = Some(INCOMING_MAX);
    options.set_connect_properties(properties);
    // Without it each acknowledgement waits for the peer's delayed one.
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options.set_last_will(LastWill::new(
        COORDINATOR_STATUS,
        status(false),
        QoS::AtLeastOnce,
        true,
        None,
    ));
    options
}

/// Acknowledgements that wait for a place in rumqttc's queue: one per stream,
/// the latest.
#[derive(Debug, Default)]
struct Waiting(BTreeMap<String, u64>);

impl Waiting {
    fn add(&mut self, acks: Vec<Acknowledge>) {
        for ack in acks.into_iter().filter(|ack| ack.through > 0) {
            let topic = NodeTopics::new(&ack.site, &ack.node).down(ack.stream);
            let through = self.0.entry(topic).or_default();
            *through = ack.through.max(*through);
        }
    }

    /// Offers them all; how many were taken.
    fn offer(&mut self, client: &AsyncClient) -> u64 {
        let mut taken = 0;
        while let Some(entry) = self.0.first_entry() {
            let through = *entry.get();
            let Ok(payload) = (Down::Ack { through }).encode() else {
                entry.remove();
                continue;
            };
            if client
                .try_publish(entry.key().clone(), QoS::AtLeastOnce, false, payload)
                .is_err()
            {
                break;
            }
            entry.remove();
            taken += 1;
        }
        taken
    }
}

/// The pause before the next connection: decorrelated jitter, so that clients
/// that lost one broker together do not come back together.
fn next_pause(last: Duration, chance: f64) -> Duration {
    let most = (last * 3).clamp(PAUSE_MIN, PAUSE_MAX);
    PAUSE_MIN + (most - PAUSE_MIN).mul_f64(chance.clamp(0.0, 1.0))
}

/// The driver of one connection after another.
#[derive(Debug)]
pub struct Link<'m> {
    client: AsyncClient,
    waiting: Waiting,
    connection: u64,
    connected: Option<Instant>,
    up: mpsc::Sender<Up>,
    metrics: &'m crate::fleet::metrics::Metrics,
}

/// Keeps a connection until `stop` says otherwise.
pub async fn run(
    address: Address,
    up: mpsc::Sender<Up>,
    mut settled: mpsc::Receiver<Settled>,
    mut stop: watch::Receiver<bool>,
    metrics: &crate::fleet::metrics::Metrics,
) {
    let (client, mut eventloop) = AsyncClient::new(options(&address), REQUESTS_MAX);
    let mut link = Link {
        client,
        waiting: Waiting::default(),
        connection: 0,
        connected: None,
        up,
        metrics,
    };
    let mut pause = PAUSE_MIN;
    let mut failure = (String::new(), 0_u32);
    while !*stop.borrow() {
        let event = {
            // rumqttc loses packets when this future is dropped half-way.
            let mut poll = pin!(eventloop.poll());
            loop {
                tokio::select! {
                    event = &mut poll => break event,
                    Some(done) = settled.recv() => link.settle(done),
                    () = tokio::time::sleep(OFFER_EVERY), if link.must_offer() => link.offer(),
                    _ = stop.changed() => break Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)),
                }
            }
        };
        let ended = match event {
            Ok(Event::Incoming(packet)) => link.incoming(packet, &mut settled).await,
            Ok(Event::Outgoing(_)) => None,
            Err(error) => Some(error.to_string()),
        };
        let Some(why) = ended else {
            if link.connected.is_some() {
                eventloop.options.set_clean_start(false);
            }
            continue;
        };
        // Packets of the old connection must not reach the next one.
        eventloop.clean();
        let lasted = link.connected.take().map(|since| since.elapsed());
        tracing::warn!(
            host = address.host,
            port = address.port,
            error = why,
            "no connection to the broker; trying again"
        );
        if !link.tell(Up::Disconnected, &mut settled).await {
            return;
        }
        match lasted {
            Some(lasted) if lasted < SHORT && failure.0 == why => failure.1 += 1,
            Some(lasted) if lasted < SHORT => failure = (why, 1),
            Some(_) => failure = (String::new(), 0),
            None => {}
        }
        if failure.1 >= SAME_FAILURES_MAX {
            tracing::error!(error = failure.0, "giving up the broker's session");
            eventloop.options.set_clean_start(true);
            failure = (String::new(), 0);
        }
        if lasted.is_some_and(|lasted| lasted > STABLE_AFTER) {
            pause = PAUSE_MIN;
        }
        pause = next_pause(pause, fastrand::f64());
        let mut rest = pin!(tokio::time::sleep(pause));
        loop {
            tokio::select! {
                () = &mut rest => break,
                Some(done) = settled.recv() => link.settle(done),
                _ = stop.changed() => break,
            }
        }
    }
    link.goodbye(&mut eventloop).await;
}

impl Link<'_> {
    fn must_offer(&self) -> bool {
        self.connected.is_some() && !self.waiting.0.is_empty()
    }

    fn offer(&mut self) {
        for _ in 0..self.waiting.offer(&self.client) {
            self.metrics.acknowledged();
        }
    }

    fn settle(&mut self, done: Settled) {
        self.waiting.add(done.acks);
        if self.connected.is_none() {
            return;
        }
        for message in done.messages {
            if message.connection == self.connection
                && self.client.try_ack(&message.publish).is_err()
            {
                // There is room for every message in flight, so this is a
                // broker that sent more than it may; it will send it again.
                tracing::warn!("no room to acknowledge a message to the broker");
            }
        }
        for order in done.orders {
            let properties = PublishProperties {
                message_expiry_interval: find(&order.topic).and_then(|row| row.expiry_s),
                ..PublishProperties::default()
            };
            let sent = self.client.try_publish_with_properties(
                order.topic,
                QoS::AtLeastOnce,
                false,
                order.frame,
                properties,
            );
            if sent.is_err() {
                tracing::debug!("no room for an order; it is repeated");
            }
        }
        self.offer();
    }

    /// Waits until `up` is taken; `false` when nobody listens any more. Goes on
    /// to settle: who shall take it may itself wait for that.
    async fn tell(&mut self, up: Up, settled: &mut mpsc::Receiver<Settled>) -> bool {
        let listener = self.up.clone();
        let mut told = pin!(listener.send(up));
        loop {
            tokio::select! {
                told = &mut told => return told.is_ok(),
                Some(done) = settled.recv() => self.settle(done),
            }
        }
    }

    /// Handles a packet; an answer says why the connection must end.
    async fn incoming(
        &mut self,
        packet: Packet,
        settled: &mut mpsc::Receiver<Settled>,
    ) -> Option<String> {
        match packet {
            Packet::ConnAck(ack) => {
                self.connection += 1;
                self.connected = Some(Instant::now());
                self.metrics.connected();
                tracing::info!(session = ack.session_present, "connected to the broker");
                let up = Up::Connected {
                    session: ack.session_present,
                };
                if !self.tell(up, settled).await {
                    return Some("nobody listens any more".into());
                }
                let filters = COORDINATOR_FILTERS
                    .map(|filter| Filter::new(filter.to_owned(), QoS::AtLeastOnce));
                // rumqttd sends the retained statuses only to a subscription
                // that is new to the session, and ends one only after it was
                // asked for on this connection. Records keep theirs: what waits
                // for it must not be dropped.
                let renew = COORDINATOR_FILTERS
                    .iter()
                    .filter(|filter| ack.session_present && filter.ends_with("/status"))
                    .all(|filter| {
                        let first = self.client.try_subscribe(*filter, QoS::AtLeastOnce);
                        first.is_ok() && self.client.try_unsubscribe(*filter).is_ok()
                    });
                let asked = renew
                    && self.client.try_subscribe_many(filters).is_ok()
                    && self
                        .client
                        .try_publish(COORDINATOR_STATUS, QoS::AtLeastOnce, true, status(true))
                        .is_ok();
                (!asked).then(|| "no room to subscribe".into())
            }
            Packet::SubAck(ack) => ack
                .return_codes
                .iter()
                .find(|code| !matches!(code, SubscribeReasonCode::Success(_)))
                .map(|code| format!("the broker refused a subscription: {code:?}")),
            Packet::Publish(publish) => {
                let qos = publish.qos;
                let arrived = Up::Arrived(Box::new(Arrived {
                    connection: self.connection,
                    at: Instant::now(),
                    publish,
                }));
                // Never wait here: the loop that would make room must go on.
                match self.up.try_send(arrived) {
                    Ok(()) => None,
                    Err(_) if qos == QoS::AtMostOnce => None,
                    Err(_) => Some("more messages in flight than agreed".into()),
                }
            }
            Packet::Disconnect(gone) => {
                Some(format!("the broker said goodbye: {:?}", gone.reason_code))
            }
            _ => None,
        }
    }

    /// Says that nobody listens any more, and leaves.
    async fn goodbye(&mut self, eventloop: &mut EventLoop) {
        if self.connected.is_none() {
            return;
        }
        self.offer();
        let said = self
            .client
            .try_publish(COORDINATOR_STATUS, QoS::AtLeastOnce, true, status(false))
            .is_ok();
        if said && self.client.try_disconnect().is_ok() {
            let leave = async { while eventloop.poll().await.is_ok() {} };
            let _ = tokio::time::timeout(GOODBYE_MAX, leave).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeostat_common::ids::{NodeId, SiteId, StreamId};

    #[test]
    fn pauses_grow_with_jitter_between_their_bounds() {
        assert_eq!(next_pause(PAUSE_MIN, 0.0), PAUSE_MIN);
        assert_eq!(next_pause(PAUSE_MIN, 1.0), PAUSE_MIN * 3);
        assert_eq!(next_pause(PAUSE_MAX, 1.0), PAUSE_MAX);
        let half = next_pause(Duration::from_secs(10), 0.5);
        assert!(half > PAUSE_MIN && half < Duration::from_secs(30));
    }

    #[test]
    fn a_newer_acknowledgement_replaces_one_that_waits() {
        let ack = |through| Acknowledge {
            site: SiteId::new("s").unwrap(),
            node: NodeId::new("n").unwrap(),
            stream: StreamId([1; 16]),
            through,
        };
        let mut waiting = Waiting::default();
        waiting.add(vec![ack(0)]);
        assert!(waiting.0.is_empty(), "there is nothing to forget yet");
        waiting.add(vec![ack(5), ack(9), ack(7)]);
        assert_eq!(waiting.0.len(), 1);
        assert_eq!(waiting.0.values().copied().max(), Some(9));
        let (client, _eventloop) = AsyncClient::new(MqttOptions::new("t", "127.0.0.1", 1), 4);
        assert_eq!(waiting.offer(&client), 1);
        assert!(waiting.0.is_empty());
    }
}
