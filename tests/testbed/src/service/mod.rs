//! The services that get broken and healed, as plain threads and blocking sockets.
//!
//! Goes in: the arguments after `__service`. Comes out: a process that answers HTTP on
//! loopback until it is killed, logs plain lines to stdout, and breaks itself when told so
//! on its control socket. Starting is the part that counts: the port is bound before all
//! else, so that a client that comes early waits in the backlog instead of being refused.
//!
//! On purpose there is no graceful shutdown and no configuration beyond the arguments.

mod faults;
mod http;
mod infer;

use std::ffi::OsString;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::json;

use faults::Faults;
use http::{Method, Request, Response};

/// A host binary whose first argument is this calls [`service_main`] with the rest.
pub const SERVICE_ARG: &str = "__service";

/// How often `worker` does its work.
const WORK_PERIOD: Duration = Duration::from_millis(10);
/// `worker` is unhealthy after this long without work: 50 periods, beyond scheduling noise.
const WORK_STALLED_MS: u64 = 500;

/// Which service, where, and with what hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    pub kind: Kind,
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// Unix socket that takes faults; without it the service cannot be told to misbehave.
    pub control: Option<PathBuf>,
    /// Ask the kernel to kill the service when the *thread* that started it ends.
    pub die_with_parent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers `GET /` and `GET /healthz`.
    Web,
    /// The same, and counts in the background.
    Worker,
    /// The same, and `POST /infer` from an ONNX file that is reloaded when it changes.
    Infer { model: PathBuf },
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Worker => "worker",
            Self::Infer { .. } => "infer",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    #[error("the first argument must be web, worker or infer, not {0:?}")]
    Kind(OsString),
    #[error("unknown option {0:?}")]
    Unknown(OsString),
    #[error("{option} needs a value, {value:?} is none")]
    Value {
        option: &'static str,
        value: OsString,
    },
    #[error("{0} is missing")]
    Missing(&'static str),
}

impl ServiceSpec {
    /// The arguments that start this service, [`SERVICE_ARG`] first.
    #[must_use]
    pub fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec![SERVICE_ARG.into(), self.kind.name().into()];
        args.extend(["--port".into(), self.port.to_string().into()]);
        if let Kind::Infer { model } = &self.kind {
            args.extend(["--model".into(), model.into()]);
        }
        if let Some(path) = &self.control {
            args.extend(["--control".into(), path.into()]);
        }
        if self.die_with_parent {
            args.push("--die-with-parent".into());
        }
        args
    }

    /// What [`ServiceSpec::args`] made, less [`SERVICE_ARG`].
    ///
    /// # Errors
    /// [`ArgsError`] names the argument.
    pub fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, ArgsError> {
        let name = args.next().unwrap_or_default();
        let (mut port, mut model, mut control, mut die_with_parent) = (None, None, None, false);
        while let Some(option) = args.next() {
            let mut value = |option| args.next().ok_or(ArgsError::Missing(option));
            match option.to_str() {
                Some("--port") => {
                    let value = value("the value of --port")?;
                    let number = value.to_str().and_then(|text| text.parse().ok());
                    port = Some(number.ok_or(ArgsError::Value {
                        option: "--port",
                        value,
                    })?);
                }
                Some("--model") => model = Some(value("the value of --model")?.into()),
                Some("--control") => control = Some(value("the value of --control")?.into()),
                Some("--die-with-parent") => die_with_parent = true,
                _ => return Err(ArgsError::Unknown(option)),
            }
        }
        let kind = match name.to_str() {
            Some("web") => Kind::Web,
            Some("worker") => Kind::Worker,
            Some("infer") => Kind::Infer {
                model: model.ok_or(ArgsError::Missing("--model"))?,
            },
            _ => return Err(ArgsError::Kind(name)),
        };
        Ok(Self {
            kind,
            port: port.ok_or(ArgsError::Missing("--port"))?,
            control,
            die_with_parent,
        })
    }
}

/// Runs a service in this process; `args` are those after [`SERVICE_ARG`].
///
/// Returns only when the service cannot start: 2 for bad arguments, 1 for the rest.
pub fn service_main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let spec = match ServiceSpec::parse(args) {
        Ok(spec) => spec,
        Err(error) => {
            let _ = writeln!(io::stderr(), "service: {error}");
            return ExitCode::from(2);
        }
    };
    // Before all else, see the module's note. std sets SO_REUSEADDR on Unix.
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, spec.port)) {
        Ok(listener) => listener,
        Err(error) => {
            log(
                &spec.kind,
                format_args!("ERROR cannot bind port {}: {error}", spec.port),
            );
            return ExitCode::FAILURE;
        }
    };
    if spec.die_with_parent
        && let Err(error) = set_parent_process_death_signal(Some(Signal::KILL))
    {
        log(
            &spec.kind,
            format_args!("WARN would outlive its parent: {error}"),
        );
    }
    let service = Service::new(spec);
    let handler = service.handler();
    let faults = Arc::clone(&service.faults);
    http::start_pool(&listener, &faults, &handler);
    if let Some(path) = service.spec.control.clone() {
        faults::listen(path, Arc::clone(&faults), service.spec.kind.clone());
    }
    log(
        &service.spec.kind,
        format_args!("INFO listening on port {}", service.spec.port),
    );
    http::accept_loop(&listener, &faults, &handler)
}

/// What every kind shares.
struct Service {
    spec: ServiceSpec,
    faults: Arc<Faults>,
    /// 64 random bits in hex, new with every start.
    instance: String,
    started: Instant,
}

impl Service {
    fn new(spec: ServiceSpec) -> Self {
        // RandomState is seeded by the kernel: a nonce without a crate for it.
        let nonce = RandomState::new().build_hasher().finish();
        Self {
            spec,
            faults: Arc::default(),
            instance: format!("{nonce:016x}"),
            started: Instant::now(),
        }
    }

    fn handler(&self) -> http::Handler {
        let (instance, started) = (self.instance.clone(), self.started);
        let name = self.spec.kind.name();
        let answered = AtomicU64::new(0);
        let body = move |extra: serde_json::Value| {
            json!({
                "service": name,
                "instance": instance,
                "pid": std::process::id(),
                "uptime_ms": u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                "answered": answered.fetch_add(1, Ordering::Relaxed),
                "detail": extra,
            })
        };
        match &self.spec.kind {
            Kind::Web => Arc::new(move |request: &Request<'_>| {
                status_page(request).unwrap_or_else(|| Response::json(200, &body(json!(null))))
            }),
            Kind::Worker => {
                let work = self.start_work();
                Arc::new(move |request: &Request<'_>| {
                    let idle_ms = work.idle_ms();
                    let code = if idle_ms < WORK_STALLED_MS { 200 } else { 503 };
                    let count = work.count.load(Ordering::Relaxed);
                    let detail = json!({ "count": count, "idle_ms": idle_ms });
                    status_page(request).unwrap_or_else(|| Response::json(code, &body(detail)))
                })
            }
            Kind::Infer { model } => {
                let served = infer::Served::start(model.clone(), self.instance.clone());
                Arc::new(
                    move |request: &Request<'_>| match (request.method, request.path) {
                        (Method::Post, "/infer") => served.infer(request.body),
                        _ => status_page(request).unwrap_or_else(|| {
                            let (code, detail) = served.health();
                            Response::json(code, &body(detail))
                        }),
                    },
                )
            }
        }
    }

    fn start_work(&self) -> Arc<Work> {
        let work = Arc::new(Work {
            count: AtomicU64::new(0),
            last_ms: AtomicU64::new(0),
            since: self.started,
        });
        let (own, faults, kind) = (
            Arc::clone(&work),
            Arc::clone(&self.faults),
            self.spec.kind.clone(),
        );
        thread::spawn(move || {
            loop {
                {
                    // A deadlock of the service stops its work as well.
                    let _running = faults.pass();
                    own.last_ms.store(own.since_start_ms(), Ordering::Relaxed);
                    let count = own.count.fetch_add(1, Ordering::Relaxed);
                    if count % 100 == 0 {
                        log(&kind, format_args!("INFO batch done, count {count}"));
                    }
                }
                thread::sleep(WORK_PERIOD);
            }
        });
        work
    }
}

/// The worker's progress.
struct Work {
    count: AtomicU64,
    last_ms: AtomicU64,
    since: Instant,
}

impl Work {
    fn since_start_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn idle_ms(&self) -> u64 {
        self.since_start_ms()
            .saturating_sub(self.last_ms.load(Ordering::Relaxed))
    }
}

/// `None` for `GET /` and `GET /healthz`, the refusal for all else.
fn status_page(request: &Request<'_>) -> Option<Response> {
    match (request.method, request.path) {
        (Method::Get, "/" | "/healthz") => None,
        (Method::Get | Method::Post, _) => Some(Response::error(404, "no such page")),
        (Method::Other, _) => Some(Response::error(405, "GET or POST")),
    }
}

/// One line to stdout. A reader that went away must not stop the service.
fn log(kind: &Kind, message: fmt::Arguments<'_>) {
    let _ = writeln!(
        io::stdout(),
        "{}[{}] {message}",
        kind.name(),
        std::process::id()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_its_arguments() {
        for kind in [
            Kind::Web,
            Kind::Worker,
            Kind::Infer {
                model: "/a b/m.onnx".into(),
            },
        ] {
            for control in [None, Some("/run/x.sock".into())] {
                let spec = ServiceSpec {
                    kind: kind.clone(),
                    port: 8080,
                    control,
                    die_with_parent: true,
                };
                let args = spec.args();
                assert_eq!(args[0], SERVICE_ARG);
                assert_eq!(ServiceSpec::parse(args.into_iter().skip(1)).unwrap(), spec);
            }
        }
    }

    #[test]
    fn bad_arguments_are_named() {
        let error = |line: &str| {
            let args = line.split_whitespace().map(OsString::from);
            ServiceSpec::parse(args).unwrap_err().to_string()
        };
        assert_eq!(
            error(""),
            "the first argument must be web, worker or infer, not \"\""
        );
        assert_eq!(error("web"), "--port is missing");
        assert_eq!(error("web --port x"), "--port needs a value, \"x\" is none");
        assert_eq!(
            error("web --port 70000"),
            "--port needs a value, \"70000\" is none"
        );
        assert_eq!(error("infer --port 1"), "--model is missing");
        assert_eq!(error("web --colour red"), "unknown option \"--colour\"");
        assert_eq!(error("web --control"), "the value of --control is missing");
    }
}
