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
//! Waking up costs as much as asking, so probes that are due about the same time are
//! best started together.
//!
//! All sockets sit in one epoll set of our own, of which tokio sees one
//! descriptor: a registration per connection would allocate each time. With a
//! reused buffer per slot nothing is allocated per probe.

mod answer;
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

pub use self::answer::Wrong;
use self::answer::{BODY_MAX, Expect, HEAD_MAX, judge};
use crate::config::{Golden, Goldens, Probe, ProbeKind};
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
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// Whose turn it is among the golden vectors.
    turn: u64,
    in_flight: usize,
}

/// Requests are composed once.
#[derive(Debug)]
enum Ask {
    Connect,
    Get { request: Vec<u8>, status: u16 },
    Infer { goldens: Vec<(Vec<u8>, Golden)> },
}

impl Ask {
    fn request(&self, turn: u64) -> &[u8] {
        match self {
            Self::Connect => &[],
            Self::Get { request, .. } => request,
            Self::Infer { goldens } => pick(goldens, turn).map_or(&[], |(request, _)| request),
        }
    }

    fn expect(&self, turn: u64) -> Option<Expect<'_>> {
        match self {
            Self::Connect => None,
            Self::Get { status, .. } => Some(Expect::Status(*status)),
            Self::Infer { goldens } => {
                pick(goldens, turn).map(|(_, golden)| Expect::Outputs(golden))
            }
        }
    }
}

/// The golden vectors take turns.
fn pick<T>(goldens: &[T], turn: u64) -> Option<&T> {
    let turn = turn.checked_rem(goldens.len() as u64)?;
    goldens.get(usize::try_from(turn).ok()?)
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
    /// has nothing to ask and sees no more than a TCP probe.
    pub fn add(&mut self, probe: &Probe, manifest: &[Golden]) -> TargetNo {
        let ask = match &probe.kind {
            ProbeKind::Tcp => Ask::Connect,
            ProbeKind::Http {
                path,
                expect_status,
            } => Ask::Get {
                request: format!(
                    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
                )
                .into_bytes(),
                status: *expect_status,
            },
            ProbeKind::Inference { path, goldens } => {
                let goldens = match goldens {
                    Goldens::Listed(listed) => listed,
                    Goldens::Manifest => manifest,
                };
                let composed = goldens.iter().map(|golden| {
                    let body = format!("{{\"inputs\":[{:?}]}}", golden.inputs);
                    let request = format!(
                        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
                         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    (request.into_bytes(), golden.clone())
                });
                Ask::Infer {
                    goldens: composed.collect(),
                }
            }
        };
        self.targets.push(Target {
            port: probe.port,
            timeout: probe.timeout,
            late_max: probe.gate_max.max(probe.timeout),
            ask,
            turn: 0,
            in_flight: 0,
        });
        TargetNo(self.targets.len() - 1)
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
            sent,
            written: 0,
            timed_out: false,
        };
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let connected = connect(&flight.socket, &SocketAddr::V4(address));
        // Over loopback the handshake is done by now, so the request can go along,
        // and a refusal is known. The error is told only once, so not to be lost.
        let request = target.ask.request(target.turn);
        let known = match connected.or_else(in_progress) {
            Ok(()) => flight.write(request).or_else(in_progress),
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
            self.ready.push_back(flight.report(clock::now(), outcome));
            return Ok(probe);
        }
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
        let outcome = match flight.step(target, &mut slot.answer) {
            Ok(None) => {
                let wants_write = flight.written < target.ask.request(flight.turn).len();
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
            Ok(Some(Ok(()))) => None,
            Ok(Some(Err(wrong))) => Some(Outcome::Wrong(wrong)),
            Err(Errno::CONNREFUSED) => Some(Outcome::Refused),
            Err(_) => Some(Outcome::Wrong(Wrong::Reset)),
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
        self.ready.push_back(flight.report(at, outcome));
        target.in_flight = target.in_flight.saturating_sub(1);
        slot.flight = None;
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
                let report = flight.report(now, Outcome::TimedOut);
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
    fn report(&self, at: Micros, outcome: Outcome) -> ProbeReport {
        ProbeReport {
            target: TargetNo(self.target),
            probe: self.probe,
            sent: self.sent,
            at,
            outcome,
            late: self.timed_out,
        }
    }

    fn write(&mut self, request: &[u8]) -> Result<(), Errno> {
        let rest = request.get(self.written..).unwrap_or(&[]);
        if !rest.is_empty() {
            self.written += send(&self.socket, rest, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// Writes and reads what can be; the verdict once there is one.
    fn step(
        &mut self,
        target: &Target,
        answer: &mut Vec<u8>,
    ) -> Result<Option<Result<(), Wrong>>, Errno> {
        let Some(expect) = target.ask.expect(self.turn) else {
            return self.connected(target.port);
        };
        match self.write(target.ask.request(self.turn)) {
            Ok(()) | Err(Errno::AGAIN) => {}
            // It may have answered and closed before it read everything.
            Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(error) => return Err(error),
        }
        loop {
            if answer.len() > HEAD_MAX + BODY_MAX {
                return Ok(Some(Err(Wrong::TooLong)));
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

    fn connected(&self, port: u16) -> Result<Option<Result<(), Wrong>>, Errno> {
        sockopt::socket_error(&self.socket)??;
        // A socket without a listener may be given the very port it connects to,
        // and then shakes hands with itself.
        let own = SocketAddr::try_from(getsockname(&self.socket)?)?;
        if own.port() == port {
            return Err(Errno::CONNREFUSED);
        }
        Ok(Some(Ok(())))
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
