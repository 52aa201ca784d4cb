//! The access list for brokers, on a real one: who may write and read what.
//!
//! Passwords stand in for certificates: either way the broker knows a user, and
//! the list speaks of users alone.

// The lint knows test functions, but not the helpers below them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const USERS: [&str; 4] = ["edge-1", "edge-2", "_coordinator", "_operator"];

/// Longest start of the broker.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client listens for one message too many.
const LISTEN_S: &str = "2";

#[test]
fn a_class_has_one_direction() {
    let Some(broker) = Broker::start() else {
        println!("skip: access list of the broker: mosquitto or its clients are not installed");
        return;
    };
    for class in [
        "status",
        "meta",
        "svc/cam/health",
        "tel/host",
        "telj/host",
        "evt/healed",
        "alarm/disk",
        "act/p1",
        "res/ping/1",
        "rep/config",
        "up/s1",
        "log/cam",
        "ans/coordinator",
    ] {
        broker.accepts("edge-1", &format!("hs/v1/local/edge-1/{class}"));
        broker.refuses("edge-2", &format!("hs/v1/local/edge-1/{class}"));
        broker.refuses("_coordinator", &format!("hs/v1/local/edge-1/{class}"));
        broker.refuses("_operator", &format!("hs/v1/local/edge-1/{class}"));
    }
    for class in ["cmd/ping/1", "des/config", "dn/s1", "ext"] {
        broker.accepts("_coordinator", &format!("hs/v1/local/edge-1/{class}"));
        broker.refuses("edge-1", &format!("hs/v1/local/edge-1/{class}"));
    }
    // An initiator orders under its own name only.
    broker.accepts("_coordinator", "hs/v1/local/edge-1/ord/coordinator");
    broker.accepts("edge-2", "hs/v1/local/edge-1/ord/edge-2");
    broker.refuses("edge-2", "hs/v1/local/edge-1/ord/coordinator");
    broker.refuses("_coordinator", "hs/v1/local/edge-1/ord/edge-2");
    broker.refuses("_operator", "hs/v1/local/edge-1/ord/coordinator");
    broker.accepts("_operator", "hs/v1/local/edge-1/cmd/ping/1");
    broker.refuses("_operator", "hs/v1/local/edge-1/des/config");
    for (topic, writer) in [
        ("hs/v1/local/_all/cmd/ping/1", "_coordinator"),
        ("hs/v1/_coord/status", "_coordinator"),
    ] {
        broker.accepts(writer, topic);
        broker.refuses("edge-1", topic);
    }
    broker.refuses("edge-1", "anything/else");
}

#[test]
fn a_node_hears_only_what_is_meant_for_it() {
    let Some(broker) = Broker::start() else {
        println!("skip: access list of the broker: mosquitto or its clients are not installed");
        return;
    };
    // Retained, so that it does not matter who is first. One more is asked for
    // than may come.
    for topic in [
        "hs/v1/local/edge-2/cmd/ping/1",
        "hs/v1/local/edge-1/cmd/ping/2",
        "hs/v1/local/_all/cmd/ping/3",
        "hs/v1/_coord/status",
    ] {
        broker.publish("_coordinator", topic, true);
    }
    broker.publish("edge-2", "hs/v1/local/edge-2/status", true);
    let mut heard = broker.retained("edge-1", 4);
    heard.sort_unstable();
    assert_eq!(
        heard,
        [
            "hs/v1/_coord/status",
            "hs/v1/local/_all/cmd/ping/3",
            "hs/v1/local/edge-1/cmd/ping/2"
        ]
    );
    assert_eq!(broker.retained("_operator", 5).len(), 5);
}

/// A broker with our access list, on a free port; ends with the test.
struct Broker {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Broker {
    fn start() -> Option<Self> {
        let server = ["mosquitto", "/usr/sbin/mosquitto"]
            .into_iter()
            .find(|name| runs(name, "-h"))?;
        if !runs("mosquitto_pub", "--help") || !runs("mosquitto_passwd", "-h") {
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let folder =
            std::env::temp_dir().join(format!("xtask-broker-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let acl = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../firmware-configs/mosquitto/homeostat.acl");
        // A copy: started as root, the broker gives up its rights and could
        // not read a list inside somebody's home.
        fs::copy(&acl, folder.join("acl")).unwrap();
        let passwords = folder.join("passwords");
        let lines: String = USERS
            .iter()
            .map(|user| format!("{user}:secret\n"))
            .collect();
        fs::write(&passwords, lines).unwrap();
        let hashed = Command::new("mosquitto_passwd")
            .arg("-U")
            .arg(&passwords)
            .output()
            .unwrap();
        assert!(hashed.status.success(), "{hashed:?}");
        fs::write(
            folder.join("conf"),
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous false\nuser root\n\
                 password_file {0}/passwords\nacl_file {0}/acl\n",
                folder.display()
            ),
        )
        .unwrap();
        let child = Command::new(server)
            .arg("-c")
            .arg(folder.join("conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let broker = Self {
            child,
            port,
            folder,
        };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                start.elapsed() < PATIENCE,
                "the broker does not listen on {port}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(broker)
    }

    fn accepts(&self, user: &str, topic: &str) {
        assert!(
            self.publish(user, topic, false),
            "{user} must be allowed to write {topic}"
        );
    }

    fn refuses(&self, user: &str, topic: &str) {
        assert!(
            !self.publish(user, topic, false),
            "{user} must not be allowed to write {topic}"
        );
    }

    /// Whether the broker accepted it. Version 5 at QoS 1: only there is a
    /// refusal said to the client.
    fn publish(&self, user: &str, topic: &str, retain: bool) -> bool {
        let mut command = self.client("mosquitto_pub", user);
        command.args(["-q", "1", "-t", topic, "-m", "x"]);
        if retain {
            command.arg("-r");
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let refused = said.contains("Not authorized");
        assert!(
            refused || output.status.success() && said.is_empty(),
            "{user} {topic}: {said}"
        );
        !refused
    }

    /// Topics of retained messages that `user` gets, `count` at most.
    fn retained(&self, user: &str, count: usize) -> Vec<String> {
        let output = self
            .client("mosquitto_sub", user)
            .args(["-t", "hs/v1/#", "-F", "%t", "-C", &count.to_string()])
            .args(["-W", LISTEN_S])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn client(&self, program: &str, user: &str) -> Command {
        let mut command = Command::new(program);
        command.args([
            "-V",
            "mqttv5",
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
        ]);
        command
            .args(["-u", user, "-P", "secret"])
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already gone is fine, too; the folder is only scratch.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn runs(program: &str, argument: &str) -> bool {
    // These print their help with a status of 1 or 3; that they start is enough.
    Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}
