//! The operator of a bed: does for real what the topology's webhooks are for.
//!
//! In go signed calls of agents (`POST /ERRAND`), out comes what was asked for, after as long as
//! the topology says: a credential that is accepted again, the end of a stranger. As with a
//! real operator a call is taken at once and what it is for comes about later.
//!
//! Deliberately no errand that only the simulator knows: `call-webhook` is refused for those.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use homeostat_notify::sign::signature;
use homeostat_sim::topology::{Errand, Topology};
use serde::Deserialize;

use super::Loner;

/// What it knows how to do.
pub(super) const KNOWN: [Errand; 2] = [Errand::RotateCredential, Errand::KillStranger];
/// Largest call read: a head and a line of JSON.
const CALL_MAX: usize = 16 * 1024;
/// Bounds what a caller that says nothing can hold up.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon the end is noticed.
const NAP: Duration = Duration::from_millis(20);
/// Errands that wait for their time; each node may order a few.
const WAITING_MAX: usize = 32;

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Errands {
    address: SocketAddrV4,
    secret_file: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    secret: String,
    /// Folder of the credential of each service that has one.
    credentials: BTreeMap<String, PathBuf>,
    /// How long each takes.
    takes: BTreeMap<&'static str, Duration>,
    /// Strangers, with the names of their nodes.
    strangers: Mutex<Vec<(String, Loner)>>,
    stop: AtomicBool,
}

/// What is read of a call.
#[derive(Deserialize)]
struct Call {
    node: String,
    service: String,
}

/// An errand that was taken.
struct Taken {
    due: Instant,
    errand: Errand,
    call: Call,
}

impl Errands {
    /// Begins to listen.
    ///
    /// # Errors
    /// When there is no port or no thread, or the secret cannot be written.
    pub(super) fn start(
        topology: &Topology,
        dir: &Path,
        credential: impl Fn(&str) -> PathBuf,
    ) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for errands")?;
        listener
            .set_nonblocking(true)
            .context("no port for errands")?;
        let port = listener.local_addr().context("no port for errands")?.port();
        let secret: String = std::iter::repeat_with(fastrand::alphanumeric)
            .take(32)
            .collect();
        let secret_file = dir.join("webhook.secret");
        fs::write(&secret_file, &secret).context("cannot write a secret")?;
        let writes = topology.replicas().iter().filter_map(|replica| {
            let route = &topology.routes()[replica.route.at()];
            let folder = route.writes.then(|| credential(route.name.as_str()));
            Some((replica.name.to_string(), folder?))
        });
        let takes = topology.webhooks().iter().map(|hook| {
            let seconds = hook.seconds * topology.habits().deeds;
            (hook.does.name(), Duration::from_secs_f64(seconds))
        });
        let shared = Arc::new(Shared {
            secret,
            credentials: writes.collect(),
            takes: takes.collect(),
            strangers: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("errands".into())
            .spawn(move || own.run(&listener))
            .context("cannot listen for errands")?;
        Ok(Self {
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
            secret_file,
            shared,
            thread: Some(thread),
        })
    }

    /// Where to call for an errand.
    pub(super) fn url(&self, errand: Errand) -> String {
        format!("http://{}/{}", self.address, errand.name())
    }

    /// What calls are signed with.
    pub(super) fn secret_file(&self) -> &Path {
        &self.secret_file
    }

    /// A stranger has come to a node.
    pub(super) fn came(&self, node: &str, stranger: Loner) {
        self.shared.strangers().push((node.to_owned(), stranger));
    }
}

impl Drop for Errands {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.strangers().clear();
    }
}

impl Shared {
    fn strangers(&self) -> std::sync::MutexGuard<'_, Vec<(String, Loner)>> {
        self.strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, listener: &TcpListener) {
        let mut waiting: Vec<Taken> = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            while let Ok((mut stream, _)) = listener.accept() {
                let status = match self.read(&mut stream) {
                    Ok(_) if waiting.len() >= WAITING_MAX => "503 Busy",
                    Ok(taken) => {
                        waiting.push(taken);
                        "204 Taken"
                    }
                    Err(_) => "400 Refused",
                };
                // Whoever has gone asks again.
                let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
            }
            waiting.retain(|taken| {
                let waits = Instant::now() < taken.due;
                if !waits {
                    self.carry_out(taken);
                }
                waits
            });
            thread::sleep(NAP);
        }
    }

    /// A call that is genuine, and for something that can be done.
    fn read(&self, stream: &mut TcpStream) -> Result<Taken> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut part)?;
            ensure!(read > 0, "it ended early");
            bytes.extend_from_slice(part.get(..read).unwrap_or_default());
            ensure!(bytes.len() <= CALL_MAX, "it is too long");
            let text = std::str::from_utf8(&bytes)?;
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let field = |name: &str| {
                let mut lines = head.lines().filter_map(|line| line.split_once(": "));
                let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
                found
                    .map(|(_, value)| value)
                    .with_context(|| format!("no {name}"))
            };
            if body.len() < field("Content-Length")?.parse()? {
                continue;
            }
            let at = field("Homeostat-Timestamp")?.parse()?;
            let signed = signature(self.secret.as_bytes(), at, body.as_bytes());
            ensure!(signed == field("Homeostat-Signature")?, "it is not genuine");
            let wanted = head.split(' ').nth(1).unwrap_or_default();
            let errand = KNOWN
                .into_iter()
                .find(|it| wanted == format!("/{}", it.name()));
            let errand = errand.context("nobody can do that")?;
            let takes = self.takes.get(errand.name()).copied().unwrap_or_default();
            return Ok(Taken {
                due: Instant::now() + takes,
                errand,
                call: serde_json::from_str(body)?,
            });
        }
    }

    fn carry_out(&self, taken: &Taken) {
        match taken.errand {
            Errand::RotateCredential => {
                // A new one, of the number that is asked for; who has it must read it.
                if let Some(folder) = self.credentials.get(&taken.call.service)
                    && let Ok(wanted) = fs::read_to_string(folder.join("accepted"))
                {
                    let _ = fs::write(folder.join("serial"), wanted);
                }
            }
            Errand::KillStranger => {
                self.strangers()
                    .retain(|(node, _)| *node != taken.call.node);
            }
            _ => {}
        }
    }
}
