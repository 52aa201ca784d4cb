//! Asks services over loopback whether they are alive.
//!
//! One probe is one new TCP connection, as a client would make it: a reused one
//! would not notice that nobody accepts any more. [`Prober::start`] begins a probe
//! and returns at once, [`Prober::next`] waits for what became of them. A probe
//! that is not answered in time is reported [`Outcome::TimedOut`], but its connection
//! stays open until `gate_max`, and an answer in that time is reported as well, marked
//! late: it tells a slow service from a dead one.
//!
//! When to probe and what a report means is the caller's. Limits: a TCP probe sees
//! only whether the kernel still completes handshakes, which it does for a
//! stopped process until the backlog is full; answers in chunks (no content length)
//! count only once the connection ends, and cannot be an inference answer.
//!
//! Inference probes speak `{"inputs": [[..]]}` or the REST form of the Open Inference
//! Protocol (KServe, Triton). Golden vectors belong to a version of a model, so they can be
//! replaced while probes are under way ([`Prober::set_goldens`]).
//!
//! Waking up costs as much as asking, so probes that are due about the same time are
//! best started together.
//!
//! All sockets sit in one epoll set of our own, of which tokio sees one
//! descriptor: a registration per connection would allocate each time. With a
//! reused buffer per slot nothing is allocated per probe.

mod answer;
mod ask;
mod metrics;
mod outputs;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use homeostat_common::units::{Micros, Millis};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, getsockname, recv, send,
    socket_with, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use self::answer::{BODY_MAX, HEAD_MAX, Judged, judge};
pub use self::answer::{Told, Wrong};
use self::ask::{Ask, Question};
pub use self::metrics::Metrics;
use crate::config::{Golden, Probe};
use crate::io::clock;

/// Probes of one target in flight, late ones included: 1.5 s of them at 20 per
/// second. A hung service is known long before.
pub const IN_FLIGHT_MAX: usize = 32;

/// Sockets looked at per system call.
const EVENTS_MAX: usize = 16;

/// First size of an answer's buffer: enough for most, grown for the rest.
const BUFFER: usize = 1024;

/// Names a target of one [`Prober`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetNo(usize);

/// What became of a probe.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeReport {
    /// Who was asked.
    pub target: TargetNo,
    /// Which probe; grows by one with each probe of this prober.
    pub probe: u64,
    /// When it was started.
    pub sent: Micros,
    /// When this was found out.
    pub at: Micros,
    /// What was found out.
    pub outcome: Outcome,
    /// What the answer told besides, be it right or wrong.
    pub told: Told,
    /// After the timeout.
    pub late: bool,
}

/// The outcome of a probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// Answered as it should be.
    Alive {
        /// From start to the last byte.
        latency: Duration,
    },
    /// Answered, but not as it should be.
    Wrong(Wrong),
    /// Nobody listens on the port.
    Refused,
    /// No answer within the timeout. A late one may follow.
    TimedOut,
}

/// Why a probe could not be made. Never the service's fault.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The prober could not be set up.
    #[error("cannot set up the epoll set for probes")]
    Epoll(#[source] io::Error),
    /// No socket: out of descriptors, ports or memory.
    #[error("cannot open a socket to probe port {port}")]
    Socket {
        /// The port to be probed.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// [`IN_FLIGHT_MAX`] probes of this target are unanswered.
    #[error("{IN_FLIGHT_MAX} probes of port {port} are still unanswered")]
    Full {
        /// The port to be probed.
        port: u16,
    },
    /// The target is not one of this prober.
    #[error("no such probe target")]
    NoTarget,
}

/// Starts probes and says what became of them.
#[derive(Debug)]
pub struct Prober {
    epoll: AsyncFd<OwnedFd>,
    targets: Vec<Target>,
    /// Grows to the most probes ever in flight at once.
    slots: Vec<Slot>,
    ready: VecDeque<ProbeReport>,
    next_probe: u64,
}

#[derive(Debug)]
struct Target {
    port: u16,
    timeout: Millis,
    late_max: Millis,
    ask: Ask,
    /// Grows with each change of the golden vectors.
    epoch: u64,
    /// Whose turn it is among the golden vectors.
    turn: u64,
    in_flight: usize,
}

#[derive(Debug, Default)]
struct Slot {
    flight: Option<Flight>,
    /// What has arrived; kept from probe to probe.
    answer: Vec<u8>,
}

#[derive(Debug)]
struct Flight {
    socket: OwnedFd,
    target: usize,
    probe: u64,
    turn: u64,
    epoch: u64,
    question: Question,
    sent: Micros,
    written: usize,
    timed_out: bool,
}

impl Prober {
    /// A prober without targets.
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO and time enabled.
    ///
    /// # Errors
    /// [`ProbeError::Epoll`] when the kernel or the runtime has no room.
    pub fn new() -> Result<Self, ProbeError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(io::Error::from)
            .and_then(watch)
            .map_err(ProbeError::Epoll)?;
        Ok(Self {
            epoll,
            targets: Vec::new(),
            slots: Vec::new(),
            ready: VecDeque::new(),
            next_probe: 0,
        })
    }

    /// Adds a target. `manifest`: the golden vectors of the service's model, for a
    /// probe that lists none of its own. An inference probe without any golden vector
    /// asks a v2 server whether its model is ready, and sees no more than a TCP probe
    /// of any other.
    pub fn add(&mut self, probe: &Probe, manifest: &[Golden]) -> TargetNo {
        self.targets.push(Target {
            port: probe.port,
            timeout: probe.timeout,
            late_max: probe.gate_max.max(probe.timeout),
            ask: Ask::new(&probe.kind, manifest),
            epoch: 0,
            turn: 0,
            in_flight: 0,
        });
        TargetNo(self.targets.len() - 1)
    }

    /// Replaces the golden vectors of an inference probe: its service serves another version.
    /// An answer that is under way is still reported, but its outputs are not judged any
    /// more. False when the target asks no model.
    pub fn set_goldens(&mut self, TargetNo(index): TargetNo, goldens: &[Golden]) -> bool {
        let Some(target) = self.targets.get_mut(index) else {
            return false;
        };
        let replaced = target.ask.replace(goldens);
        target.epoch += u64::from(replaced);
        replaced
    }

    /// Starts a probe and returns its number. Everything further, a refused
    /// connection too, comes out of [`next`](Self::next).
    ///
    /// # Errors
    /// [`ProbeError::Full`] and [`ProbeError::Socket`]; no report follows then.
    pub fn start(&mut self, TargetNo(index): TargetNo) -> Result<u64, ProbeError> {
        let target = self.targets.get_mut(index).ok_or(ProbeError::NoTarget)?;
        let port = target.port;
        if target.in_flight >= IN_FLIGHT_MAX {
            return Err(ProbeError::Full { port });
        }
        let failed = |source: Errno| ProbeError::Socket {
            port,
            source: source.into(),
        };
        let sent = clock::now();
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).map_err(failed)?;
        // Closing resets the connection: 30 probes a second would otherwise keep
        // 1800 sockets in TIME_WAIT. Nagle needs no switching off, as the request
        // is the first and only thing sent.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).map_err(failed)?;
        let probe = self.next_probe;
        let mut flight = Flight {
            socket,
            target: index,
            probe,
            turn: target.turn,
            epoch: target.epoch,
            question: target.ask.question(target.turn),
            sent,
            written: 0,
            timed_out: false,
        };
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let connected = connect(&flight.socket, &SocketAddr::V4(address));
        // Over loopback the handshake is done by now, so the request can go along,
        // and a refusal is known. The error is told only once, so not to be lost.
        let known = match connected.or_else(in_progress) {
            Ok(()) => flight.write().or_else(in_progress),
            Err(error) => Err(error),
        };
        let known = match known {
            Ok(()) => None,
            Err(Errno::CONNREFUSED) => Some(Outcome::Refused),
            Err(Errno::CONNRESET | Errno::PIPE) => Some(Outcome::Wrong(Wrong::Reset)),
            Err(error) => return Err(failed(error)),
        };
        self.next_probe += 1;
        if let Some(outcome) = known {
            let report = flight.report(clock::now(), outcome, Told::Nothing);
            self.ready.push_back(report);
            return Ok(probe);
        }
        let request = &flight.question.request;
        let waits_to_write = flight.written < request.len() || request.is_empty();
        let slot = self
            .slots
            .iter()
            .position(|slot| slot.flight.is_none())
            .unwrap_or(self.slots.len());
        let interest = if waits_to_write {
            epoll::EventFlags::IN | epoll::EventFlags::OUT
        } else {
            epoll::EventFlags::IN
        };
        let key = epoll::EventData::new_u64(slot as u64);
        epoll::add(self.epoll.get_ref(), &flight.socket, key, interest).map_err(failed)?;
        target.in_flight += 1;
        if slot == self.slots.len() {
            self.slots.push(Slot::default());
        }
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.answer.clear();
            slot.flight = Some(flight);
        }
        Ok(probe)
    }

    /// Drops the probes of a target that are in flight: its service was started anew.
    /// Their reports will not come any more.
    pub fn forget(&mut self, TargetNo(index): TargetNo) {
        for slot in &mut self.slots {
            slot.flight.take_if(|flight| flight.target == index);
        }
        self.ready.retain(|report| report.target.0 != index);
        if let Some(target) = self.targets.get_mut(index) {
            target.in_flight = 0;
        }
    }

    /// Waits for the next report. Cancel safe. Pends for ever while nothing is in flight.
    ///
    /// # Errors
    /// [`ProbeError::Epoll`] when the epoll set fails, which nothing short of a
    /// broken kernel or a closed runtime brings about.
    pub async fn next(&mut self) -> Result<ProbeReport, ProbeError> {
        loop {
            if let Some(report) = self.ready.pop_front() {
                return Ok(report);
            }
            let readable = async {
                let mut guard = self.epoll.readable().await.map_err(ProbeError::Epoll)?;
                // Cleared before the set is drained: what arrives in between makes it
                // readable anew.
                guard.clear_ready();
                Ok(())
            };
            match self.deadline() {
                None => readable.await?,
                Some(deadline) => {
                    let left = Duration::from_micros(deadline - clock::now());
                    if let Ok(done) = tokio::time::timeout(left, readable).await {
                        done?;
                    }
                }
            }
            self.look(clock::now())?;
        }
    }

    /// Reads what has arrived, and only then looks who is too late: an answer that
    /// waited for a slow agent is an answer.
    fn look(&mut self, now: Micros) -> Result<(), ProbeError> {
        let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; EVENTS_MAX];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        while self.slots.iter().any(|slot| slot.flight.is_some()) {
            let (ready, _) = match epoll::wait(self.epoll.get_ref(), &mut events, Some(&at_once)) {
                Ok(ready) => ready,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(ProbeError::Epoll(error.into())),
            };
            let all = ready.len() < EVENTS_MAX;
            for event in ready {
                let slot = event.data.u64();
                self.advance(usize::try_from(slot).unwrap_or(usize::MAX));
            }
            // Each socket was read until it had no more, so what comes after this makes
            // the set readable anew.
            if all {
                break;
            }
        }
        self.expire(now);
        Ok(())
    }

    /// Moves the probe in a slot on.
    fn advance(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(flight) = &mut slot.flight else {
            return;
        };
        let Some(target) = self.targets.get_mut(flight.target) else {
            return;
        };
        let (outcome, told) = match flight.step(target, &mut slot.answer) {
            Ok(None) => {
                let wants_write = flight.written < flight.question.request.len();
                if !wants_write {
                    let key = epoll::EventData::new_u64(index as u64);
                    // Failing leaves it writable, which costs time and nothing else.
                    let _ = epoll::modify(
                        self.epoll.get_ref(),
                        &flight.socket,
                        key,
                        epoll::EventFlags::IN,
                    );
                }
                return;
            }
            Ok(Some(judged)) => (judged.verdict.err().map(Outcome::Wrong), judged.told),
            Err(Errno::CONNREFUSED) => (Some(Outcome::Refused), Told::Nothing),
            Err(_) => (Some(Outcome::Wrong(Wrong::Reset)), Told::Nothing),
        };
        let at = clock::now();
        let latency = Duration::from_micros(at - flight.sent);
        flight.timed_out |= latency > span(target.timeout);
        let outcome = outcome.unwrap_or(Outcome::Alive { latency });
        // The next vector only after a right answer: one that fails is asked again,
        // so that a model which is wrong on some inputs is wrong several times in a row.
        if matches!(outcome, Outcome::Alive { .. }) && flight.turn == target.turn {
            target.turn = target.turn.wrapping_add(1);
        }
        self.ready.push_back(flight.report(at, outcome, told));
        target.in_flight = target.in_flight.saturating_sub(1);
        slot.flight = None;
        // Metrics may have been much longer than what the slot is used for next.
        slot.answer.clear();
        slot.answer.shrink_to(HEAD_MAX + BODY_MAX);
    }

    fn expire(&mut self, now: Micros) {
        for slot in &mut self.slots {
            let Some(flight) = &mut slot.flight else {
                continue;
            };
            let Some(target) = self.targets.get_mut(flight.target) else {
                continue;
            };
            if !flight.timed_out && now >= flight.sent + target.timeout {
                let report = flight.report(now, Outcome::TimedOut, Told::Nothing);
                self.ready.push_back(report);
                flight.timed_out = true;
            }
            if now >= flight.sent + target.late_max {
                target.in_flight = target.in_flight.saturating_sub(1);
                slot.flight = None;
            }
        }
    }

    fn deadline(&self) -> Option<Micros> {
        let flights = self.slots.iter().filter_map(|slot| slot.flight.as_ref());
        flights
            .filter_map(|flight| {
                let target = self.targets.get(flight.target)?;
                Some(if flight.timed_out {
                    flight.sent + target.late_max
                } else {
                    flight.sent + target.timeout
                })
            })
            .min()
    }
}

impl Flight {
    fn report(&self, at: Micros, outcome: Outcome, told: Told) -> ProbeReport {
        ProbeReport {
            target: TargetNo(self.target),
            probe: self.probe,
            sent: self.sent,
            at,
            outcome,
            told,
            late: self.timed_out,
        }
    }

    fn write(&mut self) -> Result<(), Errno> {
        let request = &self.question.request;
        let rest = request.get(self.written..).unwrap_or(&[]);
        if !rest.is_empty() {
            self.written += send(&self.socket, rest, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// Writes and reads what can be; the verdict once there is one.
    fn step(&mut self, target: &Target, answer: &mut Vec<u8>) -> Result<Option<Judged>, Errno> {
        if self.question.request.is_empty() {
            return self.connected(target.port);
        }
        match self.write() {
            Ok(()) | Err(Errno::AGAIN) => {}
            // It may have answered and closed before it read everything.
            Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(error) => return Err(error),
        }
        let current = self.epoch == target.epoch;
        let expect = target.ask.expect(&self.question, current);
        loop {
            if answer.len() > expect.bytes_max() {
                return Ok(Some(Err(Wrong::TooLong).into()));
            }
            if answer.capacity() == answer.len() {
                answer.reserve(answer.len().max(BUFFER));
            }
            let ended = match recv(&self.socket, spare_capacity(answer), RecvFlags::empty()) {
                Ok((0, _)) => true,
                Ok(_) => false,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            if let Some(verdict) = judge(answer, ended, expect) {
                return Ok(Some(verdict));
            }
        }
    }

    fn connected(&self, port: u16) -> Result<Option<Judged>, Errno> {
        sockopt::socket_error(&self.socket)??;
        // A socket without a listener may be given the very port it connects to,
        // and then shakes hands with itself.
        let own = SocketAddr::try_from(getsockname(&self.socket)?)?;
        if own.port() == port {
            return Err(Errno::CONNREFUSED);
        }
        Ok(Some(Ok(()).into()))
    }
}

/// Makes the epoll set itself something that tokio waits for.
#[allow(unsafe_code)]
fn watch(set: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always gives the same descriptor and keeps it open until
    // the `AsyncFd` that owns it has deregistered it.
    unsafe { AsyncFd::register_with_interest(set, Interest::READABLE) }.map_err(io::Error::from)
}

/// Not done yet is no error.
fn in_progress(error: Errno) -> Result<(), Errno> {
    match error {
        Errno::INPROGRESS | Errno::AGAIN | Errno::INTR => Ok(()),
        error => Err(error),
    }
}

fn span(millis: Millis) -> Duration {
    Duration::from_millis(millis.0)
}
