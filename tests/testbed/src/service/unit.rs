//! A replica of any service of a simulated topology, as a process that really works.
//!
//! In: a file that says how fast it is, whom it calls and what it keeps ([`UnitSpec`]). It
//! answers `POST /` with `{"key": .., "row": .., "at": ..}`, and as `{"value": ..}` what its
//! model or those it calls made of it. Its work is for one request at a time, in the order in
//! which they came: exponential times, of which it burns a share of a processor and sleeps
//! the rest; calls to others are not part of it. It holds memory, keeps lines in a folder up
//! to a quota, remembers answers, reads a configuration, has a credential and meets a lock.
//!
//! Status codes tell its own failures (503, 507) from those of whom it calls (502). `GET
//! /counts` tells what it did; `/flush-cache`, `/reset-pool`, `/degrade` and `/undegrade` are
//! the hooks that an agent asks for.
//!
//! Deliberately no retry and no breaker: what those add is to be seen at the users.

mod keep;
mod work;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use homeostat_models::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::call;
use super::faults::Faults;
use super::http::{Method, Request, Response};
use super::{Serve, infer};
use keep::{Credential, Data, Memory};
use work::{Work, chance};
pub(super) use work::{hold, spin};

/// Largest specification read.
const SPEC_BYTES_MAX: u64 = 64 * 1024;
/// Clocks that are further apart than this refuse what the other signed, in seconds.
const CLOCK_MAX_S: f64 = 60.0;
/// Seconds of its work that may wait for a unit, and so many more: as in the simulator.
const QUEUE_S: f64 = 4.0;
const QUEUE: f64 = 20.0;
/// Spread of the times in which it comes up, of their logarithm.
const START_SIGMA: f32 = 0.35;
/// How long it runs before it first wants its lock.
const WANTS_AFTER: Duration = Duration::from_secs(12);
/// How much faster it is when it does less.
const DEGRADED: f64 = 1.8;

/// What a unit is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitSpec {
    pub name: String,
    /// Requests a second that it can do.
    pub rate: f64,
    /// Share of a processor that its work burns.
    pub duty: f64,
    /// What may wait: so many seconds of its work, and so many more.
    pub queue_s: f64,
    pub queue: f64,
    /// Resident memory, in MB.
    pub memory_mb: f64,
    /// Usual time from start to answers, in seconds.
    pub start_s: f64,
    pub calls: Vec<UnitCall>,
    /// It remembers answers.
    #[serde(default)]
    pub cache: bool,
    /// Folder of its model's slot.
    pub slot: Option<PathBuf>,
    /// What it reads when it starts.
    pub config: Option<PathBuf>,
    /// Where it keeps a line of each request, and how many bytes may be there.
    pub data: Option<(PathBuf, u64)>,
    /// The lock that it shares with its siblings.
    pub lock: Option<PathBuf>,
    /// Folder of its credential.
    pub credential: Option<PathBuf>,
    /// A control group that it joins, by its list of processes, in each hierarchy.
    #[serde(default)]
    pub groups: Vec<PathBuf>,
}

/// A call for each request, or for a share of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitCall {
    pub to: SocketAddr,
    pub share: f64,
    /// Without a right answer there is none here either.
    pub needed: bool,
    /// It remembers answers, of the calls that are behind it.
    #[serde(default)]
    pub cache: bool,
    #[serde(default)]
    pub behind_cache: bool,
    pub patience_ms: u64,
}

impl UnitSpec {
    /// One that does nothing but its work, with a hundredth of a processor, and has waiting
    /// what the simulator lets wait.
    #[must_use]
    pub fn bare(name: &str, rate: f64) -> Self {
        Self {
            name: name.to_owned(),
            rate,
            duty: 0.01,
            queue_s: QUEUE_S,
            queue: QUEUE,
            memory_mb: 0.0,
            start_s: 0.0,
            calls: Vec::new(),
            cache: false,
            slot: None,
            config: None,
            data: None,
            lock: None,
            credential: None,
            groups: Vec::new(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong, in words for a person.
    pub fn read(file: &Path) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
        let text = super::bounded(file, SPEC_BYTES_MAX).map_err(|error| wrong(&error))?;
        let spec: Self = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        let checks = [
            ("rate", spec.rate > 0.0 && spec.rate <= 1e5),
            ("duty", (0.0..=1.0).contains(&spec.duty)),
            ("queue_s", (0.0..=1e3).contains(&spec.queue_s)),
            ("queue", (0.0..=1e6).contains(&spec.queue)),
            ("memory_mb", (0.0..=4096.0).contains(&spec.memory_mb)),
            ("start_s", (0.0..=600.0).contains(&spec.start_s)),
        ];
        match checks.iter().find(|(_, fits)| !fits) {
            Some((key, _)) => Err(wrong(&format_args!("{key} is out of its range"))),
            None => Ok(spec),
        }
    }
}

/// What it counted, ever.
#[derive(Debug, Default)]
struct Counts {
    arrived: AtomicU64,
    passed: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    /// Calls that were not answered in time, or not at all.
    lost: AtomicU64,
    hits: AtomicU64,
}

pub(super) struct Unit {
    spec: UnitSpec,
    work: Work,
    memory: Option<Memory>,
    data: Option<Data>,
    model: Option<infer::Served>,
    rows: Vec<Vec<f32>>,
    credential: Option<Credential>,
    degraded: AtomicBool,
    counts: Counts,
    faults: Arc<Faults>,
}

/// Becomes ready to start: joins its groups and lets the time of a start pass. Before it has
/// a port, as a real one reads and computes before it listens.
pub(super) fn prepare(spec: &UnitSpec) {
    for group in &spec.groups {
        // Where it may not, it is not held by what the group may have, and nothing worse.
        let _ = std::fs::write(group, std::process::id().to_string());
    }
    let spread = (START_SIGMA * chance(|rng| rng.normal())).exp();
    thread::sleep(Duration::from_secs_f64(spec.start_s * f64::from(spread)));
}

impl Unit {
    pub(super) fn start(
        spec: UnitSpec,
        instance: String,
        faults: &Arc<Faults>,
    ) -> Result<Self, String> {
        if let Some(file) = &spec.config {
            // The same file, and the same strictness, as the service of that name.
            super::preprocess::Config::read(file)?;
        }
        let golden = Manifest::parse(MANIFEST, Path::new("manifest.toml"));
        let golden = golden.map_err(|error| error.to_string())?.golden;
        let data = spec.data.clone().map(Data::open).transpose()?;
        if let Some((dir, quota)) = &spec.data {
            faults.may_fill(dir.clone(), *quota);
        }
        let slot = spec.slot.clone().map(infer::Source::Slot);
        let credential = spec.credential.clone().map(Credential::load).transpose()?;
        if let Some(lock) = spec.lock.clone() {
            let faults = Arc::clone(faults);
            let first = move || {
                thread::sleep(WANTS_AFTER);
                work::take(&lock, &faults);
            };
            thread::spawn(first);
        }
        faults.may_lock(spec.lock.clone());
        work::fill(spec.memory_mb);
        Ok(Self {
            work: Work::new(&spec),
            memory: spec.cache.then(Memory::default),
            data,
            model: slot.map(|slot| infer::Served::start(slot, instance, Arc::default())),
            rows: golden.vectors.into_iter().map(|it| it.input).collect(),
            credential,
            degraded: AtomicBool::new(false),
            counts: Counts::default(),
            faults: Arc::clone(faults),
            spec,
        })
    }

    /// Seconds of the wall clock that it believes in.
    fn clock(&self) -> f64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap_or_default().as_secs_f64() + self.faults.ahead_s()
    }

    fn serve(&self, body: &[u8]) -> Response {
        self.counts.arrived.fetch_add(1, Ordering::Relaxed);
        let Ok(asked) = serde_json::from_slice::<Value>(body) else {
            return Response::error(400, "not JSON");
        };
        let own = |code: u16, why: &str| {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            Response::error(code, why)
        };
        let at = asked.get("at").and_then(Value::as_f64);
        if at.is_some_and(|at| (at - self.clock()).abs() > CLOCK_MAX_S) {
            return own(503, "signed at another time");
        }
        let faster = if self.degraded.load(Ordering::Relaxed) {
            DEGRADED
        } else {
            1.0
        };
        if !self.work.do_one(self.faults.pace() / faster) {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            return Response::error(503, "too many wait");
        }
        if self.credential.as_ref().is_some_and(|it| !it.valid()) {
            return own(503, "the credential is not accepted");
        }
        if let Some(data) = &self.data
            && let Err(why) = data.keep(&asked)
        {
            return own(507, &why);
        }
        let value = match self.value(&asked) {
            Ok(value) => value,
            Err(why) => return own(503, &why),
        };
        // Whoever it calls may fail: that is not counted here.
        self.counts.passed.fetch_add(1, Ordering::Relaxed);
        match self.calls(&asked, value) {
            Ok(value) => Response::json(200, &json!({ "value": value })),
            Err(why) => Response::error(502, &why),
        }
    }

    /// What it makes of a request by itself: by its model, or from memory.
    fn value(&self, asked: &Value) -> Result<Value, String> {
        if let Some(memory) = &self.memory {
            let known = memory.exchange(asked, self.faults.poisoned());
            self.counts
                .hits
                .fetch_add(u64::from(known.is_some()), Ordering::Relaxed);
            return Ok(known.unwrap_or(Value::Null));
        }
        let Some(model) = &self.model else {
            return Ok(Value::Null);
        };
        let place = asked.get("row").and_then(Value::as_u64).unwrap_or(0);
        let place = usize::try_from(place).unwrap_or(0) % self.rows.len().max(1);
        let row = self.rows.get(place).ok_or("no rows")?;
        let outputs = model.current()?.infer(1, row).map_err(|(_, why)| why)?;
        Ok(json!(outputs))
    }

    /// Calls the others, one after the other; the last answer that has a value counts.
    fn calls(&self, asked: &Value, mut value: Value) -> Result<Value, String> {
        let mut hit = false;
        let mut onward = asked.clone();
        if let Some(stamped) = onward.as_object_mut() {
            stamped.insert("at".into(), json!(self.clock()));
            stamped.remove("value");
        }
        for wanted in &self.spec.calls {
            let skipped = wanted.behind_cache && hit;
            if skipped || f64::from(chance(|rng| rng.unit())) >= wanted.share {
                continue;
            }
            let patience = Duration::from_millis(wanted.patience_ms);
            match call(wanted.to, "/", Some(&onward), patience) {
                Ok(mut answer) => {
                    let got = answer.get_mut("value").map(Value::take);
                    let got = got.filter(|got| !got.is_null());
                    hit |= wanted.cache && got.is_some();
                    if wanted.behind_cache {
                        self.remember(asked, got.as_ref());
                    }
                    value = got.unwrap_or(value);
                }
                Err(error) => {
                    let told = matches!(error, super::call::CallError::Status(_));
                    self.counts
                        .lost
                        .fetch_add(u64::from(!told), Ordering::Relaxed);
                    if wanted.needed {
                        return Err(error.to_string());
                    }
                }
            }
        }
        Ok(value)
    }

    /// Tells the cache; nobody waits for that, and a cache that is away has missed it.
    fn remember(&self, asked: &Value, value: Option<&Value>) {
        let cache = self.spec.calls.iter().find(|wanted| wanted.cache);
        if let (Some(cache), Some(value)) = (cache, value) {
            let told = json!({ "key": asked.get("key"), "value": value });
            let patience = Duration::from_millis(cache.patience_ms);
            let _ = call(cache.to, "/remember", Some(&told), patience);
        }
    }

    fn counts(&self) -> Value {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "arrived": load(&self.counts.arrived),
            "passed": load(&self.counts.passed),
            "failed": load(&self.counts.failed),
            "refused": load(&self.counts.refused),
            "lost": load(&self.counts.lost),
            "hits": load(&self.counts.hits),
            "waiting": self.work.waiting(),
        })
    }

    fn hook(&self, path: &str) -> Option<Response> {
        match path {
            "/flush-cache" => self.memory.as_ref()?.forget(),
            "/reset-pool" => {
                if let Some(credential) = &self.credential {
                    credential.read_again();
                }
            }
            "/degrade" => self.degraded.store(true, Ordering::Relaxed),
            "/undegrade" => self.degraded.store(false, Ordering::Relaxed),
            _ => return None,
        }
        Some(Response::json(200, &json!({ "done": path })))
    }
}

const MANIFEST: &str = include_str!("../../../../models/vibration/manifest.toml");

impl Serve for Unit {
    fn answer(&self, request: &Request<'_>) -> Option<Response> {
        match (request.method, request.path) {
            (Method::Post, "/") => Some(self.serve(request.body)),
            (Method::Post, "/remember") => {
                let told: Value = serde_json::from_slice(request.body).ok()?;
                self.memory.as_ref()?.keep(&told);
                Some(Response::json(200, &Value::Null))
            }
            (Method::Get, "/counts") => Some(Response::json(200, &self.counts())),
            (Method::Post, path) => self.hook(path),
            _ => None,
        }
    }
}
