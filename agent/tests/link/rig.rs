//! A link with everything around it: a store, a loop that answers commands, and
//! a coordinator that stores and acknowledges.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use homeostat_agent::io::link::{
    Fetch, LinkConfig, LinkEvent, LinkHandle, Patience, Record, backlog, spawn,
};
use homeostat_common::ids::{BootId, NodeId, SiteId, StreamId};
use homeostat_common::wire::Down;
use homeostat_common::wire::body::ClockQuality;
use homeostat_common::wire::projection::{CoordinatorStatus, Meta, Status};
use homeostat_common::wire::seal::Trusted;
use homeostat_common::wire::topic::{COORDINATOR_STATUS, NodeTopics};
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::mpsc;

pub const STREAM: StreamId = StreamId([7; 16]);

pub fn site() -> SiteId {
    SiteId::new("plant").unwrap()
}

pub fn node() -> NodeId {
    NodeId::new("edge-1").unwrap()
}

pub fn topics() -> NodeTopics {
    NodeTopics::new(&site(), &node())
}

pub fn config(port: u16) -> LinkConfig {
    LinkConfig {
        host: "127.0.0.1".into(),
        port,
        reconnect_min: Duration::from_millis(10),
        reconnect_max: Duration::from_millis(200),
        keep_alive: Duration::from_secs(5),
        status: Status {
            online: true,
            node: node(),
            boot: BootId([1; 16]),
            stream: STREAM,
            birth: 0,
            version: "test".into(),
            clock: ClockQuality::Plausible,
            acked: 0,
        },
        meta: Meta {
            node: node(),
            site: site(),
            services: Vec::new(),
            primitives: Vec::new(),
            metrics: Vec::new(),
        },
        trusted: Trusted::default(),
        intake: Vec::new(),
        acked: 0,
        last: 0,
        patience: Patience {
            ack: Duration::from_millis(300),
            quiet: Duration::from_secs(1),
        },
        seed: 1,
    }
}

pub fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

/// The store, the loop and the link of one node.
pub struct Node {
    pub handle: LinkHandle,
    records: Arc<Mutex<Vec<Record>>>,
    events: Arc<Mutex<Vec<LinkEvent>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Node {
    pub fn start(config: LinkConfig) -> Self {
        let records: Arc<Mutex<Vec<Record>>> = Arc::default();
        let events: Arc<Mutex<Vec<LinkEvent>>> = Arc::default();
        let (questions, mut served) = backlog();
        let (sender, mut receiver) = mpsc::channel(8);
        let (handle, link) = spawn(config, questions, sender).unwrap();
        let store = {
            let records = Arc::clone(&records);
            std::thread::spawn(move || {
                while let Some(fetch) = served.blocking_recv() {
                    answer(fetch, &records.lock().unwrap());
                }
            })
        };
        let shell = {
            let (records, events) = (Arc::clone(&records), Arc::clone(&events));
            let handle = handle.clone();
            std::thread::spawn(move || {
                while let Some(event) = receiver.blocking_recv() {
                    match &event {
                        LinkEvent::Acked { through } => {
                            records.lock().unwrap().retain(|(seq, _)| seq > through);
                        }
                        LinkEvent::Command(request) => {
                            handle
                                .reply(request.clone(), b"{\"result\":\"ok\",\"value\":1}".into());
                        }
                        _ => {}
                    }
                    events.lock().unwrap().push(event);
                }
            })
        };
        Self {
            handle,
            records,
            events,
            threads: vec![link, store, shell],
        }
    }

    pub fn append(&self, seq: u64, envelope: Vec<u8>) {
        self.records.lock().unwrap().push((seq, envelope));
        self.handle.notify_backlog();
    }

    pub fn stored(&self) -> usize {
        self.records.lock().unwrap().len()
    }

    pub fn events(&self) -> Vec<LinkEvent> {
        self.events.lock().unwrap().clone()
    }

    pub fn seen(&self, wanted: impl Fn(&LinkEvent) -> bool) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| wanted(event)).count()
    }

    /// Why connections ended.
    pub fn reasons(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let reasons = events.iter().filter_map(|event| match event {
            LinkEvent::Disconnected { reason } => Some(reason.clone()),
            _ => None,
        });
        reasons.collect()
    }

    pub fn await_ready(&self) {
        wait_for("ready", Duration::from_secs(10), || {
            self.seen(|event| matches!(event, LinkEvent::Connected { .. })) > 0
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.handle.stop();
        for thread in self.threads.drain(..) {
            // A panic in one of them fails the test.
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }
}

fn answer(fetch: Fetch, records: &[Record]) {
    let mut bytes = 0;
    let found = records.iter().filter(|(seq, _)| *seq > fetch.after);
    let found = found.take_while(|(_, envelope)| {
        let first = bytes == 0;
        bytes += envelope.len();
        first || bytes <= fetch.max_bytes
    });
    let _ = fetch.reply.send(found.cloned().collect());
}

/// A message that a [`Peer`] received.
#[derive(Debug, Clone)]
pub struct Received {
    pub topic: String,
    pub payload: Vec<u8>,
}

/// Any other client of the broker, which comes back by itself.
pub struct Peer {
    pub client: AsyncClient,
    received: Arc<Mutex<Vec<Received>>>,
    published: Arc<Mutex<usize>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a peer does with a message; may publish.
type React = Box<dyn FnMut(&AsyncClient, &Received) + Send>;

impl Peer {
    pub fn start(
        id: &str,
        port: u16,
        filters: &[&str],
        hello: Option<React>,
        react: React,
    ) -> Self {
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options
            .set_max_packet_size(Some(4 * 1024 * 1024))
            .set_outgoing_inflight_upper_limit(100)
            .set_network_options(network);
        let (client, event_loop) = AsyncClient::new(options, 1000);
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let published: Arc<Mutex<usize>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let up: Arc<AtomicBool> = Arc::default();
        let thread = {
            let (client, received) = (client.clone(), Arc::clone(&received));
            let (published, stop, up) =
                (Arc::clone(&published), Arc::clone(&stop), Arc::clone(&up));
            let filters: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(serve(
                    client, event_loop, &filters, hello, react, &received, &published, &stop, &up,
                ));
            })
        };
        let peer = Self {
            client,
            received,
            published,
            stop,
            thread: Some(thread),
        };
        wait_for("peer", Duration::from_secs(10), || {
            up.load(Ordering::Relaxed)
        });
        peer
    }

    /// One that only looks.
    pub fn watch(id: &str, port: u16, filters: &[&str]) -> Self {
        Self::start(id, port, filters, None, Box::new(|_, _| {}))
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Messages that the broker has acknowledged.
    pub fn published(&self) -> usize {
        *self.published.lock().unwrap()
    }

    pub fn publish(&self, topic: &str, payload: &[u8]) {
        self.say(topic, payload, false);
    }

    pub fn retain(&self, topic: &str, payload: &[u8]) {
        self.say(topic, payload, true);
    }

    fn say(&self, topic: &str, payload: &[u8], retain: bool) {
        while self
            .client
            .try_publish(topic, QoS::AtLeastOnce, retain, payload.to_vec())
            .is_err()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.client.try_disconnect();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one caller")]
async fn serve(
    client: AsyncClient,
    mut event_loop: rumqttc::v5::EventLoop,
    filters: &[String],
    mut hello: Option<React>,
    mut react: React,
    received: &Mutex<Vec<Received>>,
    published: &Mutex<usize>,
    stop: &AtomicBool,
    up: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                for filter in filters {
                    let _ = client.try_subscribe(filter, QoS::AtLeastOnce);
                }
                if filters.is_empty() {
                    up.store(true, Ordering::Relaxed);
                }
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => {
                up.store(true, Ordering::Relaxed);
                if let Some(hello) = &mut hello {
                    let nothing = Received {
                        topic: String::new(),
                        payload: Vec::new(),
                    };
                    hello(&client, &nothing);
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let message = Received {
                    topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                    payload: publish.payload.to_vec(),
                };
                react(&client, &message);
                received.lock().unwrap().push(message);
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => *published.lock().unwrap() += 1,
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A coordinator: stores what comes in order, acknowledges what it has stored.
pub struct Coordinator {
    _peer: Peer,
    arrived: Arc<Mutex<Vec<u64>>>,
}

impl Coordinator {
    /// `stored`: what an earlier life has already. Envelopes begin with their
    /// number, little endian.
    pub fn start(id: &str, port: u16, stored: u64) -> Self {
        let arrived: Arc<Mutex<Vec<u64>>> = Arc::default();
        let mut through = stored;
        let first = Arc::clone(&arrived);
        let react = move |client: &AsyncClient, message: &Received| {
            let Some(number) = message.payload.first_chunk::<8>() else {
                return;
            };
            let seq = u64::from_le_bytes(*number);
            // A gap is not stored: the node sends again.
            if seq == through + 1 {
                through = seq;
                first.lock().unwrap().push(seq);
            }
            let ack = Down::Ack { through }.encode().unwrap();
            let _ = client.try_publish(topics().down(STREAM), QoS::AtLeastOnce, false, ack);
        };
        let hello = |client: &AsyncClient, _: &Received| {
            let _ = client.try_publish(COORDINATOR_STATUS, QoS::AtLeastOnce, true, status(true));
        };
        let peer = Peer::start(
            id,
            port,
            &["hs/v1/+/+/up/+"],
            Some(Box::new(hello)),
            Box::new(react),
        );
        Self {
            _peer: peer,
            arrived,
        }
    }

    /// First arrivals, in order.
    pub fn arrived(&self) -> Vec<u64> {
        self.arrived.lock().unwrap().clone()
    }
}

pub fn status(online: bool) -> Vec<u8> {
    let status = CoordinatorStatus {
        online,
        version: "test".into(),
    };
    serde_json::to_vec(&status).unwrap()
}

/// An envelope as far as the link is concerned: bytes.
pub fn envelope(seq: u64, bytes: usize) -> Vec<u8> {
    let mut envelope = seq.to_le_bytes().to_vec();
    envelope.resize(bytes.max(8), 0xa5);
    envelope
}
