//! Broker and coordinator, each to be killed and started again on its own port.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use homeostat_testbed::{Moment, Port, ports};

use super::api::Api;
use super::interrupt;
use super::process::Process;
use super::role::Role;

const READY_MAX: Duration = Duration::from_secs(30);

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerKind {
    /// The one that ships with the coordinator; keeps nothing on disk.
    Embedded,
    /// Mosquitto with persistence off, so that a kill loses all it had acknowledged.
    Mosquitto,
}

impl BrokerKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Mosquitto => "mosquitto",
        }
    }

    /// The program, where it is one of its own and installed.
    #[must_use]
    pub fn available(self) -> bool {
        match self {
            Self::Embedded => true,
            Self::Mosquitto => mosquitto().is_some(),
        }
    }
}

/// What a node reaches over the network.
#[derive(Debug)]
pub struct Cloud {
    kind: BrokerKind,
    dir: PathBuf,
    mqtt: Port,
    http: Port,
    // Ended in this order.
    coordinator: Option<Process>,
    broker: Option<Process>,
}

impl Cloud {
    /// Starts both, and waits until the coordinator reaches the broker.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(dir: &Path, kind: BrokerKind) -> Result<Self> {
        let dir = dir.join("cloud");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut free = ports(2)?.into_iter();
        let (Some(mqtt), Some(http)) = (free.next(), free.next()) else {
            anyhow::bail!("two ports were asked for");
        };
        let mut cloud = Self {
            kind,
            dir,
            mqtt,
            http,
            coordinator: None,
            broker: None,
        };
        cloud.start_broker()?;
        cloud.start_coordinator()?;
        let api = cloud.api();
        interrupt::until("the coordinator", READY_MAX, || api.healthy().then_some(()))?;
        Ok(cloud)
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    #[must_use]
    pub fn api(&self) -> Api {
        Api(self.http.address())
    }

    /// Where people look.
    #[must_use]
    pub fn page(&self) -> String {
        format!("http://{}/", self.http.address())
    }

    /// Broker and coordinator.
    #[must_use]
    pub fn pids(&self) -> [Option<u32>; 2] {
        [&self.broker, &self.coordinator].map(|process| process.as_ref().map(Process::pid))
    }

    #[must_use]
    pub fn broker_address(&self) -> SocketAddrV4 {
        self.mqtt.address()
    }

    #[must_use]
    pub fn broker_url(&self) -> String {
        format!("mqtt://{}", self.mqtt.address())
    }

    /// Starts the broker on its port, and returns once it listens.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_broker(&mut self) -> Result<()> {
        let address = self.mqtt.address();
        let broker = match self.kind {
            BrokerKind::Embedded => {
                let args = args(&["broker", "--listen", &address.to_string()]);
                let mut broker = Process::start(Role::Broker, "broker", &args, &self.dir)?;
                broker.ready(&self.dir, "listening mqtt://")?;
                broker
            }
            BrokerKind::Mosquitto => {
                let program = mosquitto().context("mosquitto is not installed")?;
                let file = self.dir.join("mosquitto.conf");
                // Without `user`, root's would become another user and with that lose the
                // kernel's promise to end it with its parent.
                let user = if rustix::process::geteuid().is_root() {
                    "user root\n"
                } else {
                    ""
                };
                let text = format!(
                    "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\n{user}",
                    address.port()
                );
                fs::write(&file, text)
                    .with_context(|| format!("cannot write {}", file.display()))?;
                let args = [program.into(), "-c".into(), file.into()];
                let broker = Process::start(Role::Other, "broker", &args, &self.dir)?;
                interrupt::until("mosquitto", READY_MAX, || TcpStream::connect(address).ok())?;
                broker
            }
        };
        self.broker = Some(broker);
        Ok(())
    }

    /// Kills the broker with SIGKILL.
    ///
    /// # Errors
    /// When none runs.
    pub fn kill_broker(&mut self) -> Result<Moment> {
        let broker = self.broker.take().context("no broker runs")?;
        broker.kill9()
    }

    /// Starts the coordinator on its port and database.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_coordinator(&mut self) -> Result<()> {
        let mut args = args(&[
            "serve",
            "--broker",
            &self.broker_url(),
            "--http",
            &self.http.address().to_string(),
            "--data",
        ]);
        args.push(self.dir.join("data").into());
        let mut coordinator = Process::start(Role::Coordinator, "coordinator", &args, &self.dir)?;
        coordinator.ready(&self.dir, "listening http://")?;
        self.coordinator = Some(coordinator);
        Ok(())
    }

    /// Kills the coordinator with SIGKILL.
    ///
    /// # Errors
    /// When none runs.
    pub fn kill_coordinator(&mut self) -> Result<Moment> {
        let coordinator = self.coordinator.take().context("no coordinator runs")?;
        coordinator.kill9()
    }
}

pub(super) fn args(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Mosquitto lies in sbin, which is not in every user's PATH.
fn mosquitto() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders.map(|folder| folder.join("mosquitto"));
    let runs = |file: &PathBuf| {
        let status = Command::new(file)
            .arg("-h")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok()
    };
    found.into_iter().find(runs)
}
