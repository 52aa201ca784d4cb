//! The outside prober: asks a service as its users would and records when it was down.
//!
//! Goes in: an address and what a right answer is. Comes out: [`Healed`] for each incident.
//! It shares nothing with whoever heals, so its times are the truth that claims are held to.
//!
//! A thread per target. Normally it asks every 5 ms; from [`Prober::arm`] (called before a
//! fault is injected) and while the target is down, every 0.12 ms. Requests do not wait for
//! each other: up to [`FLIGHTS_MAX`] are under way at once, so one that hangs delays none.
//!
//! The resolution of `healed_at` is one such period plus the scheduling of this thread, which
//! asks for the highest priority and does without where that is not permitted.

mod flight;
mod truth;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use homeostat_models::GoldenVector;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::setpriority_process;
use rustix::thread::{gettid, set_current_timer_slack};

use crate::clock::Moment;
use flight::{Flight, Progress};
pub use truth::Healed;
use truth::Truth;

/// Requests under way at once. Enough that lost ones do not delay the next for long, few
/// enough that a blocked service's backlog (128) is never filled by us.
pub const FLIGHTS_MAX: usize = 8;

/// Between requests while an incident is open or expected. On a machine at load 13, 150 gave
/// one request each 0.215 ms and took a quarter of a core, in an unoptimised build.
const FAST: Duration = Duration::from_micros(120);
/// Between requests otherwise: 2.5 % of a core, in an unoptimised build.
const SLOW: Duration = Duration::from_millis(5);
/// Incidents kept for [`Prober::wait_healed`]; the oldest are forgotten.
const HEALED_MAX: usize = 64;

/// What ends an incident.
#[derive(Clone, Debug)]
pub enum Expect {
    /// A healthy answer of another instance: for kill, block and leak.
    NewInstance,
    /// Any healthy answer: for faults that pass without a restart.
    Healthy,
    /// The right answer of a model to a golden vector, from any instance.
    Golden {
        vector: GoldenVector,
        tolerance: f32,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum ProberError {
    #[error("cannot make the prober's thread or its wake-up")]
    Start(#[source] io::Error),
    #[error("{target} gave no right answer within {timeout:?}")]
    NotUp {
        target: SocketAddr,
        timeout: Duration,
    },
    #[error(
        "{target} did not heal within {timeout:?}; down since {down_at:?}, last failure: {last_failure:?}"
    )]
    NotHealed {
        target: SocketAddr,
        timeout: Duration,
        down_at: Option<Moment>,
        last_failure: Option<String>,
    },
}

/// The first right answer that the prober got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    pub at: Moment,
    pub instance: String,
}

/// What the prober has seen in all.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub requests: u64,
    /// Wrong, refused, cut off or not answered in time.
    pub failures: u64,
    /// Requests that this side could not make; they say nothing about the service.
    pub blind: u64,
    pub last_failure: Option<String>,
    pub first_up: Option<Up>,
    /// Whose answer was the last right one.
    pub instance: Option<String>,
    pub down_since: Option<Moment>,
}

/// A running prober; dropping it ends its thread.
#[derive(Debug)]
pub struct Prober {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddrV4,
    expect: Expect,
    armed: AtomicBool,
    stopping: AtomicBool,
    wake: OwnedFd,
    record: Mutex<Record>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Record {
    seen: Seen,
    healed: VecDeque<Healed>,
}

impl Prober {
    /// Starts asking `target`.
    ///
    /// # Errors
    /// When the system is out of threads or descriptors.
    pub fn start(target: SocketAddrV4, expect: Expect) -> Result<Self, ProberError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| ProberError::Start(errno.into()))?;
        let shared = Arc::new(Shared {
            target,
            expect,
            armed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            wake,
            record: Mutex::default(),
            changed: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("prober".to_owned())
            .spawn(move || own.run())
            .map_err(ProberError::Start)?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Asks at the fast rate from now on until the next [`Prober::wait_healed`] returns.
    /// Call it before injecting, or up to 5 ms of the incident go unseen.
    pub fn arm(&self) {
        self.shared.armed.store(true, Ordering::Release);
        self.shared.wake();
    }

    /// Back to the slow rate.
    pub fn disarm(&self) {
        self.shared.armed.store(false, Ordering::Release);
    }

    /// Waits for the first right answer since the prober started.
    ///
    /// # Errors
    /// `NotUp` after `timeout`.
    pub fn wait_up(&self, timeout: Duration) -> Result<Up, ProberError> {
        self.arm();
        let up = self
            .shared
            .wait(timeout, |record| record.seen.first_up.clone());
        self.disarm();
        up.ok_or(ProberError::NotUp {
            target: self.shared.target.into(),
            timeout,
        })
    }

    /// Waits for the first incident that ended after `since`.
    ///
    /// # Errors
    /// `NotHealed` after `timeout`.
    pub fn wait_healed(&self, since: Moment, timeout: Duration) -> Result<Healed, ProberError> {
        self.arm();
        let ended = |healed: &&Healed| healed.healed_at > since;
        let healed = self
            .shared
            .wait(timeout, |record| record.healed.iter().find(ended).cloned());
        self.disarm();
        healed.ok_or_else(|| {
            let seen = self.seen();
            ProberError::NotHealed {
                target: self.shared.target.into(),
                timeout,
                down_at: seen.down_since,
                last_failure: seen.last_failure,
            }
        })
    }

    /// The first incident that ended after `since`, if there was one. Other than
    /// [`Prober::wait_healed`] it leaves the rate as it is.
    #[must_use]
    pub fn healed_since(&self, since: Moment) -> Option<Healed> {
        let record = self.shared.record();
        let ended = record.healed.iter().find(|healed| healed.healed_at > since);
        ended.cloned()
    }

    /// Waits until the target is seen failing, and returns since when.
    #[must_use]
    pub fn wait_down(&self, timeout: Duration) -> Option<Moment> {
        self.arm();
        let down = self.shared.wait(timeout, |record| record.seen.down_since);
        self.disarm();
        down
    }

    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared.record().seen.clone()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the thread wakes anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn wait<T>(&self, timeout: Duration, look: impl Fn(&Record) -> Option<T>) -> Option<T> {
        let end = Instant::now() + timeout;
        let mut record = self.record();
        loop {
            if let Some(found) = look(&record) {
                return Some(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let woken = self.changed.wait_timeout(record, left);
            record = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn run(&self) {
        // Best effort, see the module's note: both need no more than root or a higher rlimit.
        let _ = setpriority_process(Some(gettid()), -20);
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        let request = flight::request(&self.expect);
        let mut truth = Truth::new(matches!(self.expect, Expect::NewInstance));
        let mut flights: Vec<Flight> = Vec::with_capacity(FLIGHTS_MAX);
        let mut next = Moment::now();
        while !self.stopping.load(Ordering::Acquire) {
            let now = Moment::now();
            let fast = self.armed.load(Ordering::Acquire) || truth.down_since().is_some();
            let period = if fast { FAST } else { SLOW };
            // An arm() in the middle of a slow pause cuts it short.
            next = next.min(now + period);
            if now >= next && flights.len() < FLIGHTS_MAX {
                next = now + period;
                let launched = Flight::launch(self.target, &request, now);
                self.note(&mut truth, now, &launched.1);
                flights.extend(launched.0);
            }
            self.wait_for_events(&flights, (flights.len() < FLIGHTS_MAX).then_some(next));
            flights.retain_mut(|flight| {
                let progress = flight.proceed(&request, &self.expect);
                self.note(&mut truth, flight.started, &progress);
                flight.is_open()
            });
        }
    }

    /// Sleeps until an answer, a wake-up, the next launch or the next deadline.
    fn wait_for_events(&self, flights: &[Flight], launch: Option<Moment>) {
        let deadline = flights.iter().map(Flight::deadline).chain(launch).min();
        let pause = deadline.map_or(SLOW, |deadline| deadline.since(Moment::now()));
        let mut fds = Vec::with_capacity(FLIGHTS_MAX + 1);
        fds.push(PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN));
        fds.extend(flights.iter().filter_map(Flight::poll_fd));
        // An interrupted or refused wait is a short one.
        let _ = poll(&mut fds, Timespec::try_from(pause).ok().as_ref());
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut counter);
    }

    fn note(&self, truth: &mut Truth, started: Moment, progress: &Progress) {
        let mut record = self.record();
        let seen = &mut record.seen;
        match progress {
            Progress::Waiting => return,
            Progress::Blind => seen.blind += 1,
            Progress::Bad(reason) => {
                seen.failures += 1;
                seen.last_failure = Some(reason.clone());
                truth.bad(started);
            }
            Progress::Good { instance } => {
                seen.requests += 1;
                let at = Moment::now();
                let healed = truth.good(started, at, instance);
                if seen.first_up.is_none() {
                    seen.first_up = Some(Up {
                        at,
                        instance: instance.clone(),
                    });
                }
                seen.instance = truth.instance().map(str::to_owned);
                if let Some(healed) = healed {
                    if record.healed.len() == HEALED_MAX {
                        record.healed.pop_front();
                    }
                    record.healed.push_back(healed);
                }
            }
        }
        if matches!(progress, Progress::Bad(_)) {
            record.seen.requests += 1;
        }
        record.seen.down_since = truth.down_since();
        drop(record);
        self.changed.notify_all();
    }
}
