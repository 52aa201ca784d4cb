//! The services that get broken and healed, as plain threads and blocking sockets.
//!
//! Goes in: the arguments after `__service`. Comes out: a process that answers HTTP on
//! loopback until it is killed, logs plain lines to stdout, and breaks itself when told so
//! on its control socket. Starting is the part that counts: the port is bound before all
//! else, so that a client that comes early waits in the backlog instead of being refused.
//!
//! ```text
//! gateway -> preprocess -> cache (may be missing)
//!         -> infer
//!         -> postprocess -> store
//!                        -> publisher -> MQTT broker (may be missing)
//! ```
//!
//! Every service answers `GET /healthz` for itself alone: one that is well says so while what
//! it calls is dead. `GET /metrics` is in the text format of Prometheus. On purpose there is no
//! graceful shutdown.

mod args;
mod cache;
mod call;
mod faults;
mod gateway;
mod http;
mod infer;
mod postprocess;
mod preprocess;
mod publisher;
mod seen;
mod stats;
mod store;
mod unit;
mod v2;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::{Value, json};

pub use args::{ArgsError, Kind, ServiceSpec};
pub(crate) use call::whole as whole_answer;
use faults::Faults;
use http::{Method, Request, Response, Server};
use stats::Stats;
pub use unit::{UnitCall, UnitSpec};

/// A host binary whose first argument is this calls [`service_main`] with the rest.
pub const SERVICE_ARG: &str = "__service";

/// The model that the gateway asks for, and that `infer` serves.
pub const MODEL_NAME: &str = "vibration";

/// What a program exits with when its configuration is wrong (EX_CONFIG of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// How often `worker` does its work.
const WORK_PERIOD: Duration = Duration::from_millis(10);
/// `worker` is unhealthy after this long without work: 50 periods, beyond scheduling noise.
const WORK_STALLED_MS: u64 = 500;

/// Runs a service in this process; `args` are those after [`SERVICE_ARG`].
///
/// `preprocess --check FILE` only says whether the configuration is right. Else this returns
/// only when the service cannot start: 2 for bad arguments, [`EXIT_CONFIG`] for a bad
/// configuration, 1 for the rest.
pub fn service_main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    if let [kind, check, file] = args.as_slice()
        && kind == "preprocess"
        && check == OsStr::new("--check")
    {
        return check_config(Path::new(file));
    }
    let spec = match ServiceSpec::parse(args.into_iter()) {
        Ok(spec) => spec,
        Err(error) => {
            let _ = writeln!(io::stderr(), "service: {error}");
            return ExitCode::from(2);
        }
    };
    let name = spec.kind.name();
    let unit = match &spec.kind {
        Kind::Unit { spec } => match UnitSpec::read(spec) {
            Ok(unit) => Some(unit),
            Err(reason) => {
                log(name, format_args!("ERROR {reason}"));
                return ExitCode::from(EXIT_CONFIG);
            }
        },
        _ => None,
    };
    let is_unit = unit.is_some();
    if let Some(unit) = &unit {
        // It has no port before it is up: nobody waits for it, others are asked instead.
        unit::prepare(unit);
    }
    // Before all else, see the module's note. std sets SO_REUSEADDR on Unix.
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, spec.port)) {
        Ok(listener) => listener,
        Err(error) => {
            log(
                name,
                format_args!("ERROR cannot bind port {}: {error}", spec.port),
            );
            return ExitCode::FAILURE;
        }
    };
    if spec.die_with_parent
        && let Err(error) = set_parent_process_death_signal(Some(Signal::KILL))
    {
        log(name, format_args!("WARN would outlive its parent: {error}"));
    }
    let (port, control) = (spec.port, spec.control.clone());
    let service = Service::new(name);
    let handler = match service.handler(&spec.kind, unit) {
        Ok(handler) => handler,
        Err(failure) => {
            log(name, format_args!("ERROR {}", failure.reason));
            return ExitCode::from(failure.code);
        }
    };
    let server = Arc::new(Server {
        faults: Arc::clone(&service.faults),
        stats: Arc::clone(&service.stats),
        handler,
    });
    if !is_unit {
        http::start_pool(&listener, &server);
    }
    if let Some(path) = control {
        faults::listen(path, Arc::clone(&service.faults), name);
    }
    log(name, format_args!("INFO listening on port {port}"));
    if is_unit {
        http::accept_each(&listener, &server)
    }
    http::accept_loop(&listener, &server)
}

fn check_config(file: &Path) -> ExitCode {
    match preprocess::Config::read(file) {
        Ok(_) => ExitCode::SUCCESS,
        Err(reason) => {
            let _ = writeln!(io::stderr(), "{reason}");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// Why a service does not start.
struct Failure {
    code: u8,
    reason: String,
}

/// What every kind shares.
struct Service {
    name: &'static str,
    faults: Arc<Faults>,
    stats: Arc<Stats>,
    /// 64 random bits in hex, new with every start.
    instance: String,
    started: Instant,
}

/// One kind of service: what it answers besides its status, and how it is.
trait Serve: Send + Sync + 'static {
    /// `None` leaves the request to the status page.
    fn answer(&self, request: &Request<'_>) -> Option<Response>;

    /// The status of its health, with something to read.
    fn health(&self) -> (u16, Value) {
        (200, Value::Null)
    }
}

/// Nothing but a status page.
struct Web;

impl Serve for Web {
    fn answer(&self, _: &Request<'_>) -> Option<Response> {
        None
    }
}

impl Service {
    fn new(name: &'static str) -> Self {
        // RandomState is seeded by the kernel: a nonce without a crate for it.
        let nonce = RandomState::new().build_hasher().finish();
        Self {
            name,
            faults: Arc::default(),
            stats: Arc::new(Stats::new(name)),
            instance: format!("{nonce:016x}"),
            started: Instant::now(),
        }
    }

    /// How it names itself in the chain of an answer.
    fn id(&self) -> String {
        format!("{}:{}", self.name, self.instance)
    }

    fn handler(&self, kind: &Kind, unit: Option<UnitSpec>) -> Result<http::Handler, Failure> {
        let failed = |code| move |reason| Failure { code, reason };
        Ok(match kind {
            Kind::Web => self.serve(Web),
            Kind::Worker => self.serve(self.start_work()),
            Kind::Infer { model } => {
                let file = infer::Source::File(model.clone());
                self.serve(infer::Served::start(
                    file,
                    self.instance.clone(),
                    Arc::clone(&self.stats),
                ))
            }
            Kind::InferSlot { slot } => {
                let slot = infer::Source::Slot(slot.clone());
                self.serve(infer::Served::start(
                    slot,
                    self.instance.clone(),
                    Arc::clone(&self.stats),
                ))
            }
            Kind::Gateway {
                preprocess,
                infer,
                postprocess,
            } => self.serve(gateway::Gateway {
                preprocess: *preprocess,
                infer: *infer,
                postprocess: *postprocess,
                id: self.id(),
            }),
            Kind::Preprocess { config, cache } => {
                let config = preprocess::Config::read(config).map_err(failed(EXIT_CONFIG))?;
                self.serve(preprocess::Preprocess::new(config, *cache, self.id()))
            }
            Kind::Cache => self.serve(cache::Cache::default()),
            Kind::Postprocess { store, publisher } => self.serve(postprocess::Postprocess {
                store: *store,
                publisher: *publisher,
                id: self.id(),
            }),
            Kind::Publisher { broker } => {
                let stats = Arc::clone(&self.stats);
                let started = publisher::Publisher::start(*broker, &self.instance, stats);
                self.serve(started)
            }
            Kind::Unit { .. } => {
                let spec = unit.ok_or_else(|| failed(1)("no specification".to_owned()))?;
                let instance = self.instance.clone();
                let unit = unit::Unit::start(spec, instance, &self.faults);
                self.serve(unit.map_err(failed(EXIT_CONFIG))?)
            }
            Kind::Store { dir, quota } => {
                let store = store::Store::open(dir, *quota, self.id()).map_err(failed(1))?;
                self.faults.may_fill(dir.clone(), *quota);
                self.serve(store)
            }
        })
    }

    fn serve(&self, kind: impl Serve) -> http::Handler {
        let (instance, name, started) = (self.instance.clone(), self.name, self.started);
        let answered = AtomicU64::new(0);
        Arc::new(move |request: &Request<'_>| {
            if let Some(response) = kind.answer(request).or_else(|| not_a_page(request)) {
                return response;
            }
            let (code, detail) = kind.health();
            let body = json!({
                "service": name,
                "instance": instance,
                "pid": std::process::id(),
                "uptime_ms": u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                "answered": answered.fetch_add(1, Ordering::Relaxed),
                "detail": detail,
            });
            Response::json(code, &body)
        })
    }

    fn start_work(&self) -> Arc<Work> {
        let work = Arc::new(Work {
            count: AtomicU64::new(0),
            last_ms: AtomicU64::new(0),
            since: self.started,
        });
        let (own, faults, name) = (Arc::clone(&work), Arc::clone(&self.faults), self.name);
        thread::spawn(move || {
            loop {
                {
                    // A deadlock of the service stops its work as well.
                    let _running = faults.pass();
                    own.last_ms.store(own.since_start_ms(), Ordering::Relaxed);
                    let count = own.count.fetch_add(1, Ordering::Relaxed);
                    if count % 100 == 0 {
                        log(name, format_args!("INFO batch done, count {count}"));
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

impl Serve for Arc<Work> {
    fn answer(&self, _: &Request<'_>) -> Option<Response> {
        None
    }

    fn health(&self) -> (u16, Value) {
        let idle_ms = self.idle_ms();
        let code = if idle_ms < WORK_STALLED_MS { 200 } else { 503 };
        let count = self.count.load(Ordering::Relaxed);
        (code, json!({ "count": count, "idle_ms": idle_ms }))
    }
}

/// `None` for `GET /` and `GET /healthz`, the refusal for all else.
fn not_a_page(request: &Request<'_>) -> Option<Response> {
    match (request.method, request.path) {
        (Method::Get, "/" | "/healthz") => None,
        (Method::Get | Method::Post, _) => Some(Response::error(404, "no such page")),
        (Method::Other, _) => Some(Response::error(405, "GET or POST")),
    }
}

/// The text of a file that is no longer than this.
fn bounded(file: &Path, bytes: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(file)?
        .take(bytes + 1)
        .read_to_string(&mut text)?;
    if read as u64 > bytes {
        return Err(io::Error::other(format!("more than {bytes} bytes")));
    }
    Ok(text)
}

/// One line to stdout. A reader that went away must not stop the service.
fn log(name: &str, message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{name}[{}] {message}", std::process::id());
}
