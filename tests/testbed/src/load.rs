//! A client that sends requests to the gateway at a rate of its own, whatever comes back.
//!
//! Arrivals are Poisson, seeded, planned ahead of time: a slow answer delays no later request,
//! and the time of each counts from the moment it was *planned*, so that a service that hangs is
//! charged for every request that would have come meanwhile (no coordinated omission). Each
//! request is a new connection, as an independent client makes it. An answer is right when it
//! echoes the id and its outputs are those of the model version that it names.
//!
//! Memory is bounded: a histogram, a count per second, and one entry per lost request.
//! Deliberately nothing is retried here: that is the gateway's.

mod histogram;
mod report;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use homeostat_models::Golden;
use homeostat_models::mlp::Rng;
use serde_json::{Value, json};

pub use self::histogram::Histogram;
pub use self::report::{Cause, Lost, Report, Second};
use crate::clock::Moment;
use crate::service::whole_answer;

/// Most requests under way; more than that are counted as [`Cause::Overload`] of this client.
const WORKERS_MAX: usize = 256;
/// Of each worker; it holds one request and parses one answer.
const STACK_BYTES: usize = 256 * 1024;
/// How long the planner sleeps at most, so that it hears of its end.
const NAP_MAX: Duration = Duration::from_millis(20);

/// What to send, how often, and what is late.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    pub target: SocketAddr,
    /// Requests a second, on average.
    pub rate: f64,
    pub seed: u64,
    /// An answer is late after this ...
    pub late: Duration,
    /// ... and the request has failed after this.
    pub deadline: Duration,
    /// The rows that are sent in turn.
    pub rows: Vec<Vec<f32>>,
}

/// What each version of the model answers to the rows of [`LoadSpec`]; may grow while requests
/// are under way.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<RwLock<BTreeMap<String, Golden>>>);

impl Answers {
    /// Takes the golden vectors of a version for the right answers to the rows, in order.
    pub fn insert(&self, version: &str, golden: Golden) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(version.to_owned(), golden);
    }

    fn judge(&self, version: &str, row: usize, outputs: &[f32]) -> Result<(), Cause> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let golden = known.get(version).ok_or(Cause::UnknownVersion)?;
        let vector = golden.vectors.get(row).ok_or(Cause::WrongOutputs)?;
        if vector.matches(outputs, golden.tolerance) {
            Ok(())
        } else {
            Err(Cause::WrongOutputs)
        }
    }
}

/// A load that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    planner: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    spec: LoadSpec,
    answers: Answers,
    report: Mutex<Report>,
    stop: AtomicBool,
}

/// One planned request.
struct Job {
    number: u64,
    planned: Moment,
}

impl Load {
    /// Starts sending.
    ///
    /// # Errors
    /// When a thread cannot be had, or the specification makes no requests.
    pub fn start(spec: LoadSpec, answers: Answers) -> io::Result<Self> {
        if !(spec.rate.is_finite() && spec.rate > 0.0) || spec.rows.is_empty() {
            let reason = "a load needs a rate above 0 and at least one row";
            return Err(io::Error::new(ErrorKind::InvalidInput, reason));
        }
        // As many as hang when nobody answers, and some to spare.
        let hanging = spec.rate * spec.deadline.as_secs_f64();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bounded below
        let workers = (hanging * 1.5).min(WORKERS_MAX as f64) as usize + 8;
        let shared = Arc::new(Shared {
            spec,
            answers,
            report: Mutex::new(Report::new(Moment::now())),
            stop: AtomicBool::new(false),
        });
        // No queue: a request that finds no worker is the client's own failure and shows as such.
        let (sender, receiver) = sync_channel(workers);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut load = Self {
            shared: Arc::clone(&shared),
            planner: None,
            workers: Vec::with_capacity(workers),
        };
        for _ in 0..workers {
            let (shared, receiver) = (Arc::clone(&shared), Arc::clone(&receiver));
            let worker = thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn(move || work(&shared, &receiver))?;
            load.workers.push(worker);
        }
        load.planner = Some(
            thread::Builder::new()
                .name("load".into())
                .spawn(move || plan(&shared, &sender))?,
        );
        Ok(load)
    }

    /// What is known so far; requests under way are not in it.
    #[must_use]
    pub fn so_far(&self) -> Report {
        self.shared.report().clone()
    }

    /// Sends nothing new, waits for what is under way, and tells all.
    #[must_use]
    pub fn stop(mut self) -> Report {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // The planner's end closes the channel, which ends the workers.
        for thread in self
            .planner
            .take()
            .into_iter()
            .chain(self.workers.drain(..))
        {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn report(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn plan(shared: &Shared, jobs: &SyncSender<Job>) {
    let mut rng = Rng::seeded(shared.spec.seed);
    let mut planned = shared.report().begun;
    for number in 0.. {
        planned = planned + gap(&mut rng, shared.spec.rate);
        loop {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            let left = planned - Moment::now();
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(NAP_MAX));
        }
        match jobs.try_send(Job { number, planned }) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => {
                let mut report = shared.report();
                report.add(job.planned, Err(Cause::Overload), Duration::ZERO, false);
            }
            Err(TrySendError::Disconnected(_)) => return,
        }
    }
}

/// Exponential, so that arrivals are Poisson. The unit interval is open at 1, so the logarithm
/// is finite.
fn gap(rng: &mut Rng, rate: f64) -> Duration {
    Duration::from_secs_f64(-f64::from(1.0 - rng.unit()).ln() / rate)
}

fn work(shared: &Shared, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let outcome = ask(shared, &job);
        let took = Moment::now() - job.planned;
        let outcome = match outcome {
            Ok(_) if took > shared.spec.deadline => Err(Cause::Timeout),
            other => other,
        };
        let late = took > shared.spec.late;
        shared.report().add(job.planned, outcome, took, late);
    }
}

/// Sends one request and judges the answer; the version that gave it.
fn ask(shared: &Shared, job: &Job) -> Result<String, Cause> {
    let spec = &shared.spec;
    let count = spec.rows.len() as u64;
    let row = usize::try_from(job.number % count).unwrap_or(0);
    let inputs = spec.rows.get(row).map(Vec::as_slice).unwrap_or_default();
    let id = format!("{:x}-{}", spec.seed, job.number);
    let body = json!({ "id": id, "inputs": inputs }).to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (code, body) =
        exchange(spec.target, request.as_bytes(), job.planned + spec.deadline).map_err(cause)?;
    if code != 200 {
        return Err(Cause::Status(code));
    }
    let answer: Value = serde_json::from_slice(&body).map_err(|_| Cause::Malformed)?;
    if answer.get("id").and_then(Value::as_str) != Some(&id) {
        return Err(Cause::WrongId);
    }
    // The service's f32, printed and read as f64: narrowing gives it back.
    #[allow(clippy::cast_possible_truncation)]
    let number = |value: &Value| value.as_f64().map(|number| number as f32);
    let outputs = answer.get("outputs").and_then(Value::as_array);
    let outputs: Option<Vec<f32>> = outputs.and_then(|it| it.iter().map(number).collect());
    let version = answer.get("model_version").and_then(Value::as_str);
    let (Some(outputs), Some(version)) = (outputs, version) else {
        return Err(Cause::Malformed);
    };
    shared.answers.judge(version, row, &outputs)?;
    Ok(version.to_owned())
}

fn exchange(target: SocketAddr, request: &[u8], deadline: Moment) -> io::Result<(u16, Vec<u8>)> {
    let left = || {
        let left = deadline - Moment::now();
        // The socket takes zero for "for ever".
        (!left.is_zero())
            .then_some(left)
            .ok_or_else(|| io::Error::from(ErrorKind::TimedOut))
    };
    let mut stream = TcpStream::connect_timeout(&target, left()?)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(request)?;
    let mut answer = Vec::with_capacity(1024);
    let mut chunk = [0; 4096];
    loop {
        if let Some(found) = whole_answer(&answer)? {
            return Ok(found);
        }
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut chunk)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(chunk.get(..read).unwrap_or_default()),
        }
    }
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn cause(error: io::Error) -> Cause {
    match error.kind() {
        ErrorKind::ConnectionRefused => Cause::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Cause::Timeout,
        ErrorKind::InvalidData => Cause::Malformed,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
            Cause::Reset
        }
        _ => Cause::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_the_mean_and_the_spread_of_a_poisson_process() {
        let mut rng = Rng::seeded(11);
        let gaps: Vec<f64> = (0..10_000)
            .map(|_| gap(&mut rng, 50.0).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / 1e4;
        let squares = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>();
        let spread = (squares / 1e4).sqrt();
        // Both are 20 ms, to within five standard deviations of the estimate.
        assert!((mean - 0.02).abs() < 0.001, "{mean}");
        assert!((spread - 0.02).abs() < 0.002, "{spread}");
    }

    #[test]
    fn a_load_without_rate_or_rows_is_refused() {
        let spec = |rate, rows| LoadSpec {
            target: ([127, 0, 0, 1], 1).into(),
            rate,
            seed: 1,
            late: Duration::from_millis(1),
            deadline: Duration::from_millis(1),
            rows,
        };
        for spec in [
            spec(0.0, vec![vec![1.0]]),
            spec(f64::NAN, vec![vec![1.0]]),
            spec(1.0, vec![]),
        ] {
            assert!(Load::start(spec, Answers::default()).is_err());
        }
    }
}
