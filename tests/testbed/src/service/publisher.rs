//! Sends answers to an MQTT broker, topic `testbed/answers`, at least once.
//!
//! In: `POST /` with JSON, taken at once. While the broker is away they wait in a bounded queue;
//! what finds it full is dropped and counted. That is best effort: the queue dies with the
//! process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use serde_json::{Value, json};

use super::Serve;
use super::http::{Method, Request, Response};
use super::stats::Stats;

/// Messages that wait for the broker: 5 s of them at 50 a second.
const QUEUE_MAX: usize = 256;
/// Messages sent and not yet acknowledged; bounds what a broker that went away takes along.
const IN_FLIGHT_MAX: u16 = 16;
const RECONNECT: Duration = Duration::from_millis(200);
const TOPIC: &str = "testbed/answers";

pub(super) struct Publisher {
    client: Client,
    stats: Arc<Stats>,
    id: String,
}

impl Publisher {
    pub(super) fn start(broker: SocketAddr, instance: &str, stats: Arc<Stats>) -> Self {
        let mut options = MqttOptions::new(
            format!("testbed-{instance}"),
            broker.ip().to_string(),
            broker.port(),
        );
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        options.set_keep_alive(Duration::from_secs(5));
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX);
        // What was sent and not acknowledged is sent again after a new connection.
        options.set_clean_start(false);
        let (client, connection) = Client::new(options, QUEUE_MAX);
        let own = Arc::clone(&stats);
        thread::spawn(move || converse(connection, &own));
        let id = format!("publisher:{instance}");
        Self { client, stats, id }
    }
}

fn converse(mut connection: Connection, stats: &Stats) {
    let mut was_there = None;
    for event in connection.iter() {
        let there = event.is_ok();
        if was_there != Some(there) {
            let word = if there {
                "INFO connected to"
            } else {
                "WARN without"
            };
            super::log("publisher", format_args!("{word} the broker"));
            was_there = Some(there);
        }
        match event {
            Ok(Event::Incoming(Packet::PubAck(_))) => {
                let less = |queued: u64| Some(queued.saturating_sub(1));
                let _ = stats
                    .queued
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            }
            Ok(_) => {}
            Err(_) => thread::sleep(RECONNECT),
        }
    }
}

impl Serve for Publisher {
    fn answer(&self, request: &Request<'_>) -> Option<Response> {
        if (request.method, request.path) != (Method::Post, "/") {
            return None;
        }
        let body = request.body.to_vec();
        self.stats.queued.fetch_add(1, Ordering::Relaxed);
        match self
            .client
            .try_publish(TOPIC, QoS::AtLeastOnce, false, body)
        {
            Ok(()) => Some(Response::json(
                200,
                &json!({ "queued": true, "via": self.id }),
            )),
            Err(_) => {
                self.stats.queued.fetch_sub(1, Ordering::Relaxed);
                self.stats.dropped.fetch_add(1, Ordering::Relaxed);
                Some(Response::error(503, "the queue is full"))
            }
        }
    }

    /// A broker that is away is not this service's illness.
    fn health(&self) -> (u16, Value) {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (queued, dropped) = (load(&self.stats.queued), load(&self.stats.dropped));
        (200, json!({ "queued": queued, "dropped": dropped }))
    }
}
