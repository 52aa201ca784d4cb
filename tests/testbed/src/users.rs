//! Users who come at a rate of their own, wait for so long, and try again.
//!
//! In: where they go, how often, and what answers are right. Out: for each try when it began,
//! how long it took and how it ended. Arrivals are Poisson, seeded; who gets no right answer
//! tries again a few seconds later, up to three times, as people and other programs do: so a
//! fault can have an echo. Each try is a connection of its own.
//!
//! Bounded: tries under way, and what is kept of them. Unlike [`crate::load`], which counts
//! each second and never retries.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use homeostat_models::Golden;
use homeostat_models::mlp::Rng;
use serde_json::{Value, json};

use crate::service::whole_answer;

/// Tries under way; each is a thread. More than that fail at once.
const TRIES_MAX: usize = 768;
/// Of each thread.
const STACK_BYTES: usize = 256 * 1024;
/// Tries kept: an hour at a hundred a second.
const KEPT_MAX: usize = 360_000;
/// Keys that come again and again.
const HOT_KEYS: usize = 20;
/// How soon the end is noticed.
const NAP: Duration = Duration::from_millis(20);

/// Who comes, and what they expect.
#[derive(Clone, Debug)]
pub struct UsersSpec {
    pub entry: SocketAddr,
    /// First tries a second.
    pub rate: f64,
    /// Share of the requests that somebody made before.
    pub again: f64,
    /// How long an answer is waited for.
    pub patience: Duration,
    /// How long they rest before they try again, on average, and how often they do.
    pub rest: Duration,
    pub retries: u32,
    pub seed: u64,
    pub golden: Golden,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Right,
    /// An answer in time, but not the right one.
    Wrong,
    /// An error, or none at all.
    Failed,
}

/// One try.
#[derive(Clone, Copy, Debug)]
pub struct Try {
    /// Since the users came.
    pub at_s: f64,
    pub took_s: f64,
    pub end: End,
    /// Not the first one of its request.
    pub again: bool,
}

/// Users who come until they are dropped.
#[derive(Debug)]
pub struct Users {
    shared: Arc<Shared>,
    planner: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    spec: UsersSpec,
    begun: Instant,
    tries: Mutex<Vec<Try>>,
    /// Percent of the usual rate.
    rate: AtomicU64,
    under_way: AtomicUsize,
    stop: AtomicBool,
}

impl Users {
    /// Lets them come.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn come(spec: UsersSpec) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            spec,
            begun: Instant::now(),
            tries: Mutex::default(),
            rate: AtomicU64::new(100),
            under_way: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let planner = thread::Builder::new()
            .name("users".into())
            .spawn(move || plan(&own))?;
        Ok(Self {
            shared,
            planner: Some(planner),
        })
    }

    /// Seconds since they came.
    #[must_use]
    pub fn now_s(&self) -> f64 {
        self.shared.begun.elapsed().as_secs_f64()
    }

    /// The moment from which their seconds count.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.shared.begun
    }

    /// From now on so many times as many come.
    pub fn surge(&self, factor: f64) {
        // A share of a percent is no surge.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let percent = (factor.clamp(0.0, 100.0) * 100.0) as u64;
        self.shared.rate.store(percent, Ordering::Relaxed);
    }

    /// All tries that have ended, in the order of their ends.
    #[must_use]
    pub fn tries(&self) -> Vec<Try> {
        let tries = self.shared.tries.lock();
        tries.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(planner) = self.planner.take() {
            let _ = planner.join();
        }
    }
}

/// What one user asks for.
#[derive(Clone, Copy)]
struct Wish {
    key: u64,
    seed: u64,
}

impl Wish {
    /// The same key is always about the same row.
    fn row(self, of: usize) -> usize {
        usize::try_from(self.key).unwrap_or(0) % of.max(1)
    }
}

fn plan(shared: &Arc<Shared>) {
    let mut rng = Rng::seeded(shared.spec.seed);
    let mut next = 0.0;
    let mut fresh = HOT_KEYS as u64;
    while !shared.stop.load(Ordering::Relaxed) {
        let now = shared.begun.elapsed().as_secs_f64();
        if now < next {
            thread::sleep(Duration::from_secs_f64(next - now).min(NAP));
            continue;
        }
        let factor = shared.rate.load(Ordering::Relaxed) as f64 / 100.0;
        let gap = -(1.0 - f64::from(rng.unit())).ln();
        next += gap / (shared.spec.rate * factor).max(0.01);
        let key = if f64::from(rng.unit()) < shared.spec.again {
            rng.below(HOT_KEYS) as u64
        } else {
            fresh += 1;
            fresh
        };
        let seed = rng.next_u64();
        go(shared, Wish { key, seed });
    }
}

fn go(shared: &Arc<Shared>, wish: Wish) {
    let begun = Instant::now();
    let mut gone = shared.under_way.fetch_add(1, Ordering::Relaxed) < TRIES_MAX;
    if gone {
        let own = Arc::clone(shared);
        let user = thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || {
                persist(&own, wish);
                own.under_way.fetch_sub(1, Ordering::Relaxed);
            });
        gone = user.is_ok();
    }
    if !gone {
        shared.under_way.fetch_sub(1, Ordering::Relaxed);
        note(shared, begun, End::Failed, false);
    }
}

/// One user, with all tries.
fn persist(shared: &Shared, wish: Wish) {
    let mut rng = Rng::seeded(wish.seed);
    let mut wish = wish;
    for retry in 0..=shared.spec.retries {
        let begun = Instant::now();
        let end = ask(shared, wish);
        note(shared, begun, end, retry > 0);
        // A new picture of the same thing: nobody has remembered it.
        if wish.key >= HOT_KEYS as u64 {
            wish.key = rng.next_u64() >> 1;
        }
        // Who gets an answer does not know that it is wrong.
        if end != End::Failed || retry == shared.spec.retries {
            return;
        }
        let rest = -(1.0 - f64::from(rng.unit())).ln() * shared.spec.rest.as_secs_f64();
        let until = Instant::now() + Duration::from_secs_f64(rest);
        while Instant::now() < until {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(until.saturating_duration_since(Instant::now()).min(NAP));
        }
    }
}

fn note(shared: &Shared, begun: Instant, end: End, again: bool) {
    let one = Try {
        at_s: begun.duration_since(shared.begun).as_secs_f64(),
        took_s: begun.elapsed().as_secs_f64(),
        end,
        again,
    };
    let mut tries = shared.tries.lock().unwrap_or_else(PoisonError::into_inner);
    if tries.len() < KEPT_MAX {
        tries.push(one);
    }
}

fn ask(shared: &Shared, wish: Wish) -> End {
    let at = SystemTime::now().duration_since(UNIX_EPOCH);
    let at = at.unwrap_or_default().as_secs_f64();
    let golden = &shared.spec.golden;
    let row = wish.row(golden.vectors.len());
    let body = json!({ "key": wish.key, "row": row, "at": at }).to_string();
    let Some(value) = exchange(shared, &body) else {
        return End::Failed;
    };
    let outputs = value.get("value").and_then(Value::as_array);
    // JSON numbers are f64; the nearest f32 is what the model said.
    #[allow(clippy::cast_possible_truncation)]
    let outputs: Option<Vec<f32>> = outputs.and_then(|all| {
        let numbers = all.iter().map(|one| one.as_f64().map(|one| one as f32));
        numbers.collect()
    });
    let vector = golden.vectors.get(row);
    match (outputs, vector) {
        (Some(outputs), Some(vector)) if vector.matches(&outputs, golden.tolerance) => End::Right,
        _ => End::Wrong,
    }
}

/// One request within the patience; `None` unless it is answered with 200.
fn exchange(shared: &Shared, body: &str) -> Option<Value> {
    let deadline = Instant::now() + shared.spec.patience;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        // The socket takes zero for "for ever".
        (!left.is_zero()).then_some(left)
    };
    let mut stream = TcpStream::connect_timeout(&shared.spec.entry, left()?).ok()?;
    stream.set_nodelay(true).ok()?;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::with_capacity(1024);
    let mut chunk = [0; 4096];
    loop {
        if let Some((code, body)) = whole_answer(&answer).ok()? {
            return (code == 200)
                .then(|| serde_json::from_slice(&body).ok())
                .flatten();
        }
        stream.set_read_timeout(Some(left()?)).ok()?;
        match stream.read(&mut chunk) {
            Ok(0) => return None,
            Ok(read) => answer.extend_from_slice(chunk.get(..read)?),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}
