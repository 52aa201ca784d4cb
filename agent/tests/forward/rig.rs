//! A forwarder that is a real process, backends that are threads with real sockets.

#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use homeostat_agent::io::forward::client::{Client, Event};
use homeostat_agent::io::forward::protocol::{BackendReport, RouteReport};
use homeostat_common::ids::NameError;

/// Far more than anything here takes, so that a failure shows as one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
    process: Option<Child>,
}

impl Rig {
    /// `route`: keys of the route, `backends`: name, port, weight.
    pub(crate) fn new(route: &str, backends: &[(&str, u16, u16)]) -> Self {
        let mut rig = Self::idle(route, backends);
        rig.start();
        rig
    }

    pub(crate) fn idle(route: &str, backends: &[(&str, u16, u16)]) -> Self {
        let rig = Self {
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            process: None,
        };
        let text = rig.route("r", rig.port, route, backends);
        rig.write(&text);
        rig
    }

    pub(crate) fn route(
        &self,
        id: &str,
        port: u16,
        keys: &str,
        backends: &[(&str, u16, u16)],
    ) -> String {
        let mut text = format!("[[forward]]\nid = \"{id}\"\nlisten = {port}\n{keys}\n");
        for (id, port, weight) in backends {
            text += &format!(
                "[[forward.backend]]\nid = \"{id}\"\naddress = \"127.0.0.1:{port}\"\nweight = {weight}\n"
            );
        }
        text
    }

    pub(crate) fn write(&self, routes: &str) {
        let at = self.folder.path().display();
        let text = format!(
            "[node]\nid = \"edge-1\"\ndata_dir = \"{at}/data\"\nrun_dir = \"{at}/run\"\n{routes}"
        );
        std::fs::write(self.file(), text).unwrap();
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("agent.toml")
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub(crate) fn start(&mut self) {
        let child = Command::new(env!("CARGO_BIN_EXE_homeostat-agent"))
            .args(["forward", "--config"])
            .arg(self.file())
            .stdin(Stdio::null())
            .stderr(self.log())
            .spawn();
        self.process = Some(child.unwrap());
        self.ready();
    }

    /// As systemd does it: the socket is descriptor 3, named in the environment.
    pub(crate) fn start_with(&mut self, listener: OwnedFd, name: &str) {
        let script = "export LISTEN_PID=$$; exec \"$@\" 3<&0 0</dev/null";
        let child = Command::new("/bin/sh")
            .args(["-c", script, "sh", env!("CARGO_BIN_EXE_homeostat-agent")])
            .args(["forward", "--config"])
            .arg(self.file())
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", name)
            .stdin(Stdio::from(listener))
            .stderr(self.log())
            .spawn();
        self.process = Some(child.unwrap());
        self.ready();
    }

    fn log(&self) -> Stdio {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.folder.path().join("log"));
        log.unwrap().into()
    }

    fn ready(&self) {
        let run_dir = self.run_dir();
        until("the forwarder answers", || {
            block(async { Client::connect(&run_dir).await.is_ok() })
        });
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(crate) fn alive(&mut self) -> bool {
        self.process.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.process.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Asks once on a connection of its own; who answered.
    pub(crate) fn ask(&self) -> std::io::Result<String> {
        let mut stream = self.connect();
        stream.write_all(b"?\n")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    }

    /// How often each name answers in `n` requests.
    pub(crate) fn count(&self, n: usize, name: &str) -> usize {
        let answers = (0..n).map(|_| self.ask().unwrap());
        answers.filter(|answer| answer == name).count()
    }

    pub(crate) fn report(&self) -> RouteReport {
        let run_dir = self.run_dir();
        homeostat_agent::io::forward::show::routes(&run_dir)
            .unwrap()
            .remove(0)
    }

    pub(crate) fn backend(&self, name: &str) -> BackendReport {
        let report = self.report();
        let found = report.backends.into_iter();
        found.into_iter().find(|it| it.backend == id(name)).unwrap()
    }

    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.log_text());
        }
    }
}

/// What a backend does with a connection.
pub(crate) type Serve = fn(TcpStream, &str);

/// A backend; dropping it closes its port at once.
pub(crate) struct Backend {
    pub(crate) port: u16,
    pub(crate) accepted: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Backend {
    pub(crate) fn new(name: &'static str, serve: Serve) -> Self {
        Self::at(free_port(), name, serve)
    }

    pub(crate) fn at(port: u16, name: &'static str, serve: Serve) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (stop, accepted) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let (stopped, count) = (stop.clone(), accepted.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let stream = stream.unwrap();
                std::thread::spawn(move || serve(stream, name));
            }
        });
        Self {
            port,
            accepted,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads all the client sends, then says its name.
pub(crate) fn say_name(mut stream: TcpStream, name: &str) {
    let mut asked = Vec::new();
    if stream.read_to_end(&mut asked).is_ok() {
        let _ = stream.write_all(name.as_bytes());
    }
}

/// Answers each line with its name, for as long as the client likes.
pub(crate) fn answer_lines(mut stream: TcpStream, name: &str) {
    let mut bytes = [0; 256];
    while let Ok(read) = stream.read(&mut bytes) {
        if read == 0 || stream.write_all(name.as_bytes()).is_err() {
            return;
        }
    }
}

/// Takes everything and never says anything.
pub(crate) fn say_nothing(mut stream: TcpStream, _: &str) {
    let mut bytes = [0; 256];
    while matches!(stream.read(&mut bytes), Ok(read) if read > 0) {}
    std::thread::sleep(PATIENCE);
}

/// Breaks the connection as soon as something comes.
pub(crate) fn reset(mut stream: TcpStream, _: &str) {
    let mut bytes = [0; 1];
    let _ = stream.read(&mut bytes);
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    address.port()
}

pub(crate) fn id<T: std::str::FromStr<Err = NameError>>(name: &str) -> T {
    name.parse().unwrap()
}

pub(crate) fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

pub(crate) async fn next(client: &mut Client) -> Event {
    let next = tokio::time::timeout(PATIENCE, client.next()).await;
    next.expect("an event in time").unwrap()
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The usual soft limit is too low for a client and a server of a thousand connections.
pub(crate) fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
