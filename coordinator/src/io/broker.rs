//! The embedded broker (rumqttd): for the demo, tests and a small fleet on one
//! machine.
//!
//! It knows no persistence, no access control and no TLS here, so it listens on
//! loopback only unless the operator insists. Anything real runs mosquitto.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use homeostat_common::wire::RECORD_MAX;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Largest packet: a record, its topic and its properties. rumqttd ignores what
/// a client says it can take, so the cap has to stand here.
pub const PACKET_MAX: usize = 2 * RECORD_MAX;

/// Connections at once; the router allocates a slot for each when it starts.
const CONNECTIONS_MAX: usize = 1024;

/// Memory for messages that wait, of each filter: segments of this size.
const SEGMENT_BYTES: usize = 1024 * 1024;

/// And so many of them; the oldest is dropped. Nodes send again what was not
/// acknowledged, so nothing is lost by it.
const SEGMENTS: usize = 32;

/// How long the listener may take to appear.
const READY_MAX: Duration = Duration::from_secs(10);

/// Ports tried when any will do and another process snatches the one found.
const PORTS_TRIED: usize = 5;

/// Why the broker does not run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address cannot be listened on.
    #[error("the broker cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It ended or never began to listen.
    #[error("the broker does not answer on {0}; another process may have taken the port")]
    NotReady(SocketAddr),
}

/// Starts a broker in threads of its own and returns its address once it
/// answers. It runs until the process ends: rumqttd cannot be stopped.
///
/// # Errors
/// [`BrokerError`] names the address.
pub fn start(listen: SocketAddr) -> Result<SocketAddr, BrokerError> {
    let mut tries = if listen.port() == 0 { PORTS_TRIED } else { 1 };
    loop {
        // rumqttd binds by itself and does not tell which port it got. So find
        // a free one first, which also gives a proper error when there is none.
        let address = TcpListener::bind(listen)
            .and_then(|listener| listener.local_addr())
            .map_err(|source| BrokerError::Listen { listen, source })?;
        let thread = spawn(address).map_err(|source| BrokerError::Listen { listen, source })?;
        tries -= 1;
        match wait_ready(address, &thread) {
            Ok(()) => return Ok(address),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

fn spawn(listen: SocketAddr) -> std::io::Result<JoinHandle<()>> {
    let settings = ServerSettings {
        name: "homeostat".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: PACKET_MAX,
            max_inflight_count: 200,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let config = Config {
        id: 0,
        router: RouterConfig {
            max_connections: CONNECTIONS_MAX,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        },
        v5: Some(HashMap::from([("v5".to_owned(), settings)])),
        ..Config::default()
    };
    std::thread::Builder::new()
        .name("broker".into())
        .spawn(move || {
            if let Err(error) = Broker::new(config).start() {
                tracing::error!(%error, "the broker ended");
            }
        })
}

fn wait_ready(address: SocketAddr, thread: &JoinHandle<()>) -> Result<(), BrokerError> {
    let until = Instant::now() + READY_MAX;
    while Instant::now() < until && !thread.is_finished() {
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(BrokerError::NotReady(address))
}
