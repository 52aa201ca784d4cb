//! A service of this crate as a child that is killed when dropped.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use homeostat_models::Model;
use homeostat_testbed::{Kind, Port, ServiceSpec, ports};
use serde_json::Value;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_homeostat-testbed-service");

pub(crate) struct Running {
    spec: ServiceSpec,
    port: Port,
    dir: tempfile::TempDir,
    child: Child,
}

impl Running {
    pub(crate) fn start(kind: Kind) -> Self {
        Self::start_with(kind, true)
    }

    pub(crate) fn start_with(kind: Kind, control: bool) -> Self {
        let port = ports(1).unwrap().remove(0);
        let dir = tempfile::tempdir().unwrap();
        let control = control.then(|| dir.path().join("control"));
        let spec = ServiceSpec {
            kind,
            port: port.number(),
            control,
            die_with_parent: true,
        };
        let child = spawn(&spec);
        let running = Self {
            spec,
            port,
            dir,
            child,
        };
        running.wait();
        running
    }

    /// Kills and starts it again.
    pub(crate) fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.spec);
        self.wait();
    }

    /// Kills it, and nobody is there.
    pub(crate) fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends by itself; its exit code.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Starts it again and does not wait until it answers.
    pub(crate) fn respawn(&mut self) {
        self.child = spawn(&self.spec);
    }

    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.port.address()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    fn wait(&self) {
        until("the service to answer", || get(self, "/").is_ok());
        if self.spec.control.is_some() {
            until("the control socket", || self.control().exists());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn spawn(spec: &ServiceSpec) -> Child {
    Command::new(PROGRAM)
        .args(spec.args())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

pub(crate) fn get(service: &Running, path: &str) -> io::Result<(u16, Value)> {
    ask(
        service.address(),
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
    )
}

pub(crate) fn post(service: &Running, path: &str, body: &Value) -> io::Result<(u16, Value)> {
    let body = body.to_string();
    let length = body.len();
    ask(
        service.address(),
        &format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"),
    )
}

/// A page that is not JSON.
pub(crate) fn page(service: &Running, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(service.address())?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    body.ok_or_else(|| io::Error::other(answer))
}

fn ask(address: SocketAddrV4, request: &str) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let parsed = || {
        let code = answer.get(9..12)?.parse().ok()?;
        let body = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        Some((code, body))
    };
    parsed().ok_or_else(|| io::Error::other(format!("odd answer {answer:?}")))
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The shipped model, and a directory with a copy of it that may be damaged.
pub(crate) fn golden_model() -> (Model, tempfile::TempDir) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/vibration");
    let model = Model::load(&root).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(model.path(), dir.path().join("model.onnx")).unwrap();
    (model, dir)
}
