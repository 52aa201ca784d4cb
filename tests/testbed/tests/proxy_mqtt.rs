//! What the proxy's link does to MQTT: a real client speaks over it to a real broker, and a
//! second one hears beside it what arrived.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, HashMap};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use homeostat_testbed::ports;
use homeostat_testbed::proxy::{Link, Proxy};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, Incoming, MqttOptions};

const TOPIC: &str = "proxy/test";
const LONG: Duration = Duration::from_secs(30);
const PACKET_MAX: u32 = 1 << 20;

/// Runs until the test program ends: rumqttd cannot be stopped.
fn broker() -> SocketAddr {
    let port = ports(1).unwrap().remove(0);
    let listen = port.address().into();
    let settings = rumqttd::ServerSettings {
        name: "v5".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections: rumqttd::ConnectionSettings {
            connection_timeout_ms: 5000,
            max_payload_size: PACKET_MAX as usize,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let config = rumqttd::Config {
        router: rumqttd::RouterConfig {
            max_connections: 100,
            max_outgoing_packet_count: 200,
            max_segment_size: 1 << 20,
            max_segment_count: 10,
            ..rumqttd::RouterConfig::default()
        },
        v5: Some(HashMap::from([("1".into(), settings)])),
        ..rumqttd::Config::default()
    };
    thread::spawn(move || {
        // Nobody else gets it.
        let _kept = port;
        rumqttd::Broker::new(config).start().unwrap();
    });
    let until = Instant::now() + LONG;
    while TcpStream::connect(listen).is_err() {
        assert!(Instant::now() < until, "no broker at {listen}");
        thread::sleep(Duration::from_millis(5));
    }
    listen
}

/// A client, and what it hears from its connection: packets, and errors as `None`.
struct Peer {
    client: Client,
    hears: Receiver<(Instant, Option<Incoming>)>,
}

impl Peer {
    fn connect(name: &str, at: SocketAddr) -> Self {
        let mut options = MqttOptions::new(name, at.ip().to_string(), at.port());
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        options.set_max_packet_size(Some(PACKET_MAX));
        // What was not acknowledged is sent again after a new connection.
        options.set_clean_start(false);
        let (client, mut connection) = Client::new(options, 100);
        let (tell, hears) = mpsc::channel();
        thread::spawn(move || {
            for event in connection.iter() {
                let heard = match event {
                    Ok(Event::Incoming(packet)) => Some(packet),
                    Ok(Event::Outgoing(_)) => continue,
                    Err(_) => {
                        thread::sleep(Duration::from_millis(20));
                        None
                    }
                };
                if tell.send((Instant::now(), heard)).is_err() {
                    return;
                }
            }
        });
        Self { client, hears }
    }

    /// A client that hears what is published.
    fn subscribe(at: SocketAddr) -> Self {
        let peer = Self::connect("hears", at);
        peer.client.subscribe(TOPIC, QoS::AtLeastOnce).unwrap();
        peer.wait(|packet| matches!(packet, Packet::SubAck(_)));
        peer
    }

    fn publish(&self, payload: impl Into<Vec<u8>>) {
        let sent = self
            .client
            .publish(TOPIC, QoS::AtLeastOnce, false, payload.into());
        sent.unwrap();
    }

    /// The moment at which such a packet came.
    fn wait(&self, fits: impl Fn(&Packet) -> bool) -> Instant {
        loop {
            let (at, packet) = self.hears.recv_timeout(LONG).unwrap();
            if packet.is_some_and(|packet| fits(&packet)) {
                return at;
            }
        }
    }

    fn acknowledged(&self) -> Instant {
        self.wait(|packet| matches!(packet, Packet::PubAck(_)))
    }

    /// The next payload that was published.
    fn payload(&self, most: Duration) -> Option<Vec<u8>> {
        let until = Instant::now() + most;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.hears.recv_timeout(left).ok()? {
                (_, Some(Packet::Publish(publish))) => return Some(publish.payload.to_vec()),
                _ => continue,
            }
        }
    }

    /// Payloads until this one came.
    fn payloads(&self, last: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while all.last().is_none_or(|it: &Vec<u8>| it != last) {
            all.push(self.payload(LONG).unwrap());
        }
        all
    }
}

/// A broker behind a link, somebody who speaks over it, and somebody who hears beside it.
fn both(link: Link) -> (Proxy, Peer, Peer) {
    let broker = broker();
    let proxy = Proxy::start(0, broker, link, 7).unwrap();
    let hears = Peer::subscribe(broker);
    let speaks = Peer::connect("speaks", proxy.address().into());
    (proxy, speaks, hears)
}

#[test]
fn a_delay_is_in_every_acknowledgement_and_is_taken_back() {
    let (proxy, speaks, _hears) = both(Link::after(Duration::from_millis(70)));
    speaks.wait(|packet| matches!(packet, Packet::ConnAck(_)));
    let begun = Instant::now();
    speaks.publish("a");
    let took = speaks.acknowledged() - begun;
    assert!(took >= Duration::from_millis(140), "{took:?}");
    proxy.set(Link::default());
    let least = (0..20).map(|_| {
        let begun = Instant::now();
        speaks.publish("b");
        speaks.acknowledged() - begun
    });
    let least = least.min().unwrap();
    assert!(least < Duration::from_millis(70), "{least:?}");
}

#[test]
fn loss_makes_messages_late_and_neither_drops_doubles_nor_swaps_them() {
    let (proxy, speaks, hears) = both(Link::default());
    speaks.publish("begin");
    speaks.acknowledged();
    proxy.set(Link {
        loss: 0.2,
        ..Link::default()
    });
    let mut slowest = Duration::ZERO;
    for number in 0..20_u8 {
        let begun = Instant::now();
        speaks.publish([number]);
        slowest = slowest.max(speaks.acknowledged() - begun);
    }
    let heard = hears.payloads(&[19]);
    let sent = (0..20_u8).map(|number| vec![number]);
    let sent: Vec<Vec<u8>> = [b"begin".to_vec()].into_iter().chain(sent).collect();
    assert_eq!(heard, sent);
    let passed = proxy.passed();
    assert!(passed.lost > 0 && passed.connections == 1, "{passed:?}");
    assert!(slowest >= Duration::from_millis(200), "{slowest:?}");
}

#[test]
fn after_resets_the_client_comes_back_and_sends_again_what_was_not_acknowledged() {
    let (proxy, speaks, hears) = both(Link::default());
    speaks.publish("begin");
    speaks.acknowledged();
    proxy.set(Link {
        reset: 0.08,
        ..Link::default()
    });
    let numbers: BTreeSet<Vec<u8>> = (0..40_u8).map(|number| vec![number]).collect();
    for number in &numbers {
        speaks.publish(number.clone());
        thread::sleep(Duration::from_millis(5));
    }
    let until = Instant::now() + LONG;
    let mut heard = BTreeSet::new();
    while !heard.is_superset(&numbers) {
        assert!(Instant::now() < until, "{} came", heard.len());
        heard.extend(hears.payload(Duration::from_millis(200)));
    }
    let passed = proxy.passed();
    assert!(passed.resets > 0, "{passed:?}");
    assert!(passed.connections > passed.resets, "{passed:?}");
}

#[test]
fn corruption_changes_one_byte_of_what_the_broker_is_told() {
    let (proxy, speaks, hears) = both(Link::default());
    speaks.publish("begin");
    speaks.acknowledged();
    assert_eq!(hears.payload(LONG).unwrap(), b"begin");
    proxy.set(Link {
        corrupt: 1.0,
        ..Link::default()
    });
    // One segment, of which all but 2 % is payload; 'a' becomes 'A'.
    let publish = speaks
        .client
        .publish(TOPIC, QoS::AtMostOnce, false, vec![b'a'; 1200]);
    publish.unwrap();
    let heard = hears.payload(LONG).unwrap();
    let other: Vec<u8> = heard.iter().copied().filter(|byte| *byte != b'a').collect();
    assert_eq!((heard.len(), other), (1200, vec![b'A']));
    assert_eq!(proxy.passed().corrupted, 1);
}

#[test]
fn a_narrow_link_takes_its_time_over_a_large_message() {
    let (proxy, speaks, hears) = both(Link::default());
    speaks.wait(|packet| matches!(packet, Packet::ConnAck(_)));
    proxy.set(Link {
        bandwidth: Some(50_000.0),
        ..Link::default()
    });
    let begun = Instant::now();
    speaks.publish(vec![1; 20_000]);
    let took = speaks.acknowledged() - begun;
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert_eq!(hears.payload(LONG).unwrap().len(), 20_000);
}

#[test]
fn what_is_published_while_the_link_is_down_arrives_once_it_is_up() {
    let (proxy, speaks, hears) = both(Link::default());
    speaks.publish("before");
    speaks.acknowledged();
    proxy.set(Link {
        down: true,
        ..Link::default()
    });
    // What the proxy has read already still passes.
    thread::sleep(Duration::from_millis(100));
    speaks.publish("meanwhile");
    assert_eq!(hears.payload(LONG).unwrap(), b"before");
    assert_eq!(hears.payload(Duration::from_millis(300)), None);
    proxy.set(Link::default());
    assert_eq!(hears.payload(LONG).unwrap(), b"meanwhile");
}
