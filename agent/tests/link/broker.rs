//! Real brokers: mosquitto as a process that can be killed, rumqttd in ours.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// A port that was free a moment ago: brokers bind by themselves.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn await_port(port: u16) {
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "no broker on port {port}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `None`, said aloud, on a machine without mosquitto.
pub fn mosquitto() -> Option<Mosquitto> {
    if !Path::new(MOSQUITTO).exists() {
        println!("skip: no {MOSQUITTO}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    // Without a limit of the queue: a flood must not make the broker drop the
    // good message behind it.
    let config = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n\
         max_queued_messages 0\n"
    );
    std::fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
    let mut broker = Mosquitto {
        folder,
        port,
        process: None,
    };
    broker.start();
    Some(broker)
}

pub struct Mosquitto {
    folder: tempfile::TempDir,
    pub port: u16,
    process: Option<Child>,
}

impl Mosquitto {
    pub fn start(&mut self) {
        let process = Command::new(MOSQUITTO)
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        await_port(self.port);
    }

    /// SIGKILL: no goodbye, nothing written.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs until the test program ends; rumqttd cannot be stopped.
pub fn rumqttd(max_payload_size: usize) -> u16 {
    let port = free_port();
    let settings = rumqttd::ServerSettings {
        name: "v5".into(),
        listen: SocketAddr::from(([127, 0, 0, 1], port)),
        tls: None,
        next_connection_delay_ms: 1,
        connections: rumqttd::ConnectionSettings {
            connection_timeout_ms: 5000,
            max_payload_size,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let config = rumqttd::Config {
        id: 0,
        router: rumqttd::RouterConfig {
            max_connections: 100,
            max_outgoing_packet_count: 200,
            max_segment_size: 4 * 1024 * 1024,
            max_segment_count: 10,
            ..rumqttd::RouterConfig::default()
        },
        v5: Some(HashMap::from([("1".into(), settings)])),
        ..rumqttd::Config::default()
    };
    std::thread::spawn(move || rumqttd::Broker::new(config).start().unwrap());
    await_port(port);
    port
}
