//! A second connection to the broker: what devices say, and what nodes are told of it.
//!
//! Apart from the one that records come over, so that a flood of devices' messages never
//! delays a record, and a filter that the broker refuses never keeps the coordinator from its
//! work. Without a session: retained messages come at each connection, and alarms that matter
//! are retained. A message waits for the database; meanwhile the broker holds back the rest.

use std::time::Duration;

use homeostat_notify::intake::{PAYLOAD_MAX, Source};
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Filter, Packet, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::{mpsc, watch};

use super::mqtt::Address;

/// Messages that the broker may send before the first is acknowledged.
const RECEIVE_MAX: u16 = 256;

/// Messages that wait for the database.
pub const HEARD_MAX: usize = RECEIVE_MAX as usize;

/// What nodes are told and what waits to be sent.
pub const SEND_MAX: usize = 256;

/// Room in the client's queue: what is sent, and the subscriptions.
const REQUESTS_MAX: usize = SEND_MAX + 16;

/// Largest packet: many times what an alarm may have, so that one that is too large is
/// refused with a reason and not with the end of the connection.
const PACKET_MAX: u32 = 256 * 1024;

/// Pause before connecting again.
const PAUSE: Duration = Duration::from_secs(2);

/// Bytes kept of a message: one more than may be shows that it is too large.
const KEPT_MAX: usize = PAYLOAD_MAX + 1;

/// What comes from the broker.
#[derive(Debug)]
pub enum FromBroker {
    /// A connection stands, and what was asked for was granted.
    Connected,
    /// It is lost.
    Disconnected,
    /// Somebody said something.
    Message {
        /// Where.
        topic: String,
        /// What.
        payload: Vec<u8>,
    },
}

/// What the broker is to keep for a node.
#[derive(Debug)]
pub struct Retained {
    /// Where.
    pub topic: String,
    /// What; nothing ends it.
    pub payload: Vec<u8>,
}

fn options(address: &Address) -> MqttOptions {
    let client = format!("{}-intake", address.client);
    let mut options = MqttOptions::new(client, &address.host, address.port);
    options.set_keep_alive(Duration::from_secs(30));
    options.set_clean_start(true);
    let mut properties = ConnectProperties::new();
    properties.receive_maximum = Some(RECEIVE_MAX);
    properties.max_packet_size = Some(PACKET_MAX);
    options.set_connect_properties(properties);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options
}

/// Keeps a connection until `stop` says otherwise.
pub async fn run(
    address: Address,
    sources: &[Source],
    heard: mpsc::Sender<FromBroker>,
    mut out: mpsc::Receiver<Retained>,
    mut stop: watch::Receiver<bool>,
) {
    let mut quiet = false;
    while !*stop.borrow() {
        let (client, mut eventloop) = AsyncClient::new(options(&address), REQUESTS_MAX);
        let publish = async {
            while let Some(Retained { topic, payload }) = out.recv().await {
                let sent = client.publish(topic, QoS::AtLeastOnce, true, payload).await;
                if sent.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let drive = async {
            loop {
                let packet = match eventloop.poll().await {
                    Ok(Event::Incoming(packet)) => packet,
                    Ok(Event::Outgoing(_)) => continue,
                    Err(error) => return error.to_string(),
                };
                let said = match packet {
                    Packet::ConnAck(_) if sources.is_empty() => FromBroker::Connected,
                    Packet::ConnAck(_) => {
                        let filters = sources
                            .iter()
                            .map(|source| Filter::new(source.topic.to_string(), QoS::AtLeastOnce));
                        if client.try_subscribe_many(filters).is_err() {
                            return "no room to subscribe".to_owned();
                        }
                        continue;
                    }
                    Packet::SubAck(ack) => {
                        let mut codes = ack.return_codes.iter().zip(sources);
                        let bad = codes
                            .find(|(code, _)| !matches!(code, SubscribeReasonCode::Success(_)));
                        if let Some((code, source)) = bad {
                            // The others are heard all the same.
                            tracing::error!(topic = %source.topic, ?code, "the broker refuses it");
                        }
                        FromBroker::Connected
                    }
                    Packet::Publish(publish) => FromBroker::Message {
                        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                        payload: publish
                            .payload
                            .get(..KEPT_MAX)
                            .unwrap_or(&publish.payload)
                            .to_vec(),
                    },
                    _ => continue,
                };
                if heard.send(said).await.is_err() {
                    return "nobody listens any more".to_owned();
                }
            }
        };
        let why = tokio::select! {
            why = drive => why,
            () = publish => return,
            _ = stop.changed() => return,
        };
        if heard.send(FromBroker::Disconnected).await.is_err() {
            return;
        }
        // The other connection says it as well.
        if !std::mem::replace(&mut quiet, true) {
            tracing::warn!(
                error = why,
                "no connection for alarms of devices; trying again"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = stop.changed() => return,
        }
    }
}
