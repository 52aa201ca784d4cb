//! The host's end: what to send next, what an answer means, which alarms stand.
//!
//! In go samples, the bytes that came, and the time; out come frames to send and
//! [`Event`]s. It keeps a device that restarts, or whose line is cut, set up: a `Hello` or a
//! refusal begins the set-up anew. At most [`WINDOW`] requests are on their way, so that the
//! device's buffer never runs over; samples wait in a queue, and when that is full the
//! oldest gives way, counted. A sample whose answer does not come is not repeated: the
//! device would take it for a late one.
//!
//! ```text
//!             Hello                  all set up
//!  Strange ----------> Setting up --------------> Ready
//!     ^                    ^  device restarted      |
//!     |                    +------------------------+
//!     +---- DEAF answers in a row did not come -----+
//! ```

use core::time::Duration;

use heapless::Deque;

use crate::frame::{Decoder, Frame, encode};
use crate::message::{
    Alarm, Answer, Ask, CHANNELS, Fault, Health, Hello, Refusal, Reply, Request, Scored, Setup,
    State,
};

/// Requests that may be on their way. Four of the longest, 27 bytes, fill less than half of
/// the 256 bytes that firmware takes while it computes.
pub const WINDOW: usize = 4;

/// An answer that takes longer does not come: at 9,600 baud a request and its answer take
/// 80 ms.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Answers in a row that did not come after which nobody is there.
pub const DEAF: u8 = 3;

/// Samples that wait; a second of 16 channels at 4 Hz.
pub const QUEUE: usize = 64;

/// What a host learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// The device started, or was found.
    Started(Hello),
    /// All channels are set up: samples are taken from now on.
    Ready,
    /// The verdict on a sample.
    Scored(Scored),
    /// An alarm began or ended.
    Alarm(Alarm),
    /// How the device is, as asked.
    Health(Health),
    /// How a channel stands.
    State(State),
    /// Nobody answers any more.
    Gone,
}

/// What went wrong so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trouble {
    /// Frames from the device that were dropped.
    pub bad: u32,
    /// Requests without an answer.
    pub unanswered: u32,
    /// Samples that gave way to newer ones.
    pub dropped: u32,
}

/// A sample that waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Of which channel.
    pub channel: u8,
    /// When it was measured, on a monotonic clock.
    pub at: Duration,
    /// What was measured; `None`: nothing, although it was time.
    pub value: Option<f32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Strange,
    SettingUp,
    Ready,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    seq: u16,
    at: Duration,
    what: Request,
}

/// One device, as its host sees it.
///
/// ```
/// # use core::time::Duration;
/// # use homeostat_serial::{host::{Host, Sample}, message::Setup};
/// let mut host = Host::new();
/// host.set_up(0, Setup { tag: 7, period_ms: 1000 });
/// host.offer(Sample { channel: 0, at: Duration::from_secs(7), value: Some(20.5) });
/// // First of all it asks who is there.
/// let frame = host.next(Duration::ZERO).unwrap();
/// assert_eq!(frame.first(), Some(&0));
/// ```
#[derive(Debug, Clone)]
pub struct Host {
    decoder: Decoder,
    phase: Phase,
    setups: [Option<Setup>; CHANNELS],
    /// Channels whose set-up is still to be sent.
    unset: u16,
    /// Channels whose state is to be asked.
    unknown: u16,
    standing: u16,
    health: bool,
    restart: Option<Fault>,
    samples: Deque<Sample, QUEUE>,
    sent: Deque<Sent, WINDOW>,
    seq: u16,
    silent: u8,
    trouble: Trouble,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// One that knows nothing of its device.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            decoder: Decoder::new(),
            phase: Phase::Strange,
            setups: [None; CHANNELS],
            unset: 0,
            unknown: 0,
            standing: 0,
            health: false,
            restart: None,
            samples: Deque::new(),
            sent: Deque::new(),
            seq: 0,
            silent: 0,
            trouble: Trouble {
                bad: 0,
                unanswered: 0,
                dropped: 0,
            },
        }
    }

    /// Wants a channel watched; a channel that there is not is left out.
    pub fn set_up(&mut self, channel: u8, setup: Setup) {
        if let Some(slot) = self.setups.get_mut(usize::from(channel)) {
            *slot = Some(setup);
            self.unset |= bit(channel);
            if self.phase == Phase::Ready {
                self.phase = Phase::SettingUp;
            }
        }
    }

    /// Queues a sample.
    pub fn offer(&mut self, sample: Sample) {
        if self.samples.is_full() {
            self.samples.pop_front();
            self.trouble.dropped = self.trouble.dropped.saturating_add(1);
        }
        // There is room now.
        let _ = self.samples.push_back(sample);
    }

    /// Samples that can be queued before the oldest gives way.
    #[must_use]
    pub fn room(&self) -> usize {
        QUEUE - self.samples.len()
    }

    /// Nothing waits and nothing is on its way.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.phase == Phase::Ready
            && self.samples.is_empty()
            && self.sent.is_empty()
            && self.unknown == 0
            && !self.health
            && self.restart.is_none()
    }

    /// Asks how the device is, as soon as it may.
    pub fn ask_health(&mut self) {
        self.health = true;
    }

    /// Lets the device end and start again.
    pub fn restart(&mut self, fault: Fault) {
        self.restart = Some(fault);
    }

    /// What went wrong so far.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        self.trouble
    }

    /// Channels whose alarm stands, as far as is known; the lowest bit for channel 0.
    #[must_use]
    pub fn standing(&self) -> u16 {
        self.standing
    }

    /// The next frame to send, if one may be sent. Asked again until `None`, after each
    /// [`Host::received`], and at the latest [`ANSWER_WITHIN`] later.
    pub fn next(&mut self, now: Duration) -> Option<Frame> {
        if self.sent.is_full() {
            return None;
        }
        let what = match self.phase {
            // One at a time: nobody may be there.
            Phase::Strange if self.sent.is_empty() => Request::Hello,
            Phase::Strange => return None,
            Phase::SettingUp => {
                let channel = lowest(self.unset)?;
                self.unset &= !bit(channel);
                let setup = self.setups.get(usize::from(channel)).copied().flatten()?;
                Request::Setup { channel, setup }
            }
            Phase::Ready => self.wanted()?,
        };
        self.seq = self.seq.wrapping_add(1);
        let ask = Ask {
            seq: self.seq,
            what,
        };
        let sent = Sent {
            seq: self.seq,
            at: now,
            what,
        };
        // There is room, as was looked at first.
        let _ = self.sent.push_back(sent);
        encode(&ask)
    }

    fn wanted(&mut self) -> Option<Request> {
        if let Some(fault) = self.restart.take() {
            return Some(Request::Restart(fault));
        }
        if let Some(channel) = lowest(self.unknown) {
            self.unknown &= !bit(channel);
            return Some(Request::State { channel });
        }
        if self.health {
            self.health = false;
            return Some(Request::Health);
        }
        let sample = self.samples.pop_front()?;
        Some(Request::Sample {
            channel: sample.channel,
            at: sample.at.into(),
            value: sample.value.unwrap_or(f32::NAN),
        })
    }

    /// Gives up what was not answered in time.
    pub fn tick(&mut self, now: Duration, mut tell: impl FnMut(Event)) {
        while let Some(first) = self.sent.front()
            && now.saturating_sub(first.at) >= ANSWER_WITHIN
        {
            let what = first.what;
            self.sent.pop_front();
            self.give_up(what, &mut tell);
        }
    }

    fn give_up(&mut self, what: Request, tell: &mut impl FnMut(Event)) {
        self.trouble.unanswered = self.trouble.unanswered.saturating_add(1);
        self.silent = self.silent.saturating_add(1);
        match what {
            Request::Setup { channel, .. } => {
                self.unset |= bit(channel);
            }
            Request::State { channel } => self.unknown |= bit(channel),
            Request::Health => self.health = true,
            Request::Hello
            | Request::Sample { .. }
            | Request::Learning { .. }
            | Request::Restart(_) => {}
        }
        if self.silent >= DEAF && self.phase != Phase::Strange {
            self.phase = Phase::Strange;
            tell(Event::Gone);
        }
    }

    /// Takes what came from the device.
    pub fn received(&mut self, bytes: &[u8], mut tell: impl FnMut(Event)) {
        for byte in bytes {
            match self.decoder.push::<Answer>(*byte) {
                None => {}
                Some(Err(_)) => self.trouble.bad = self.trouble.bad.saturating_add(1),
                Some(Ok(answer)) => self.understand(answer, &mut tell),
            }
        }
    }

    fn understand(&mut self, answer: Answer, tell: &mut impl FnMut(Event)) {
        let unasked = match answer.what {
            Reply::Alarm(_) => true,
            Reply::Hello(hello) => !hello.asked,
            Reply::Done
            | Reply::Scored(_)
            | Reply::State(_)
            | Reply::Health(_)
            | Reply::Refused(_) => false,
        };
        let asked = self.answered(answer.seq, unasked, tell);
        if !unasked && asked.is_none() {
            // Of a request that was given up, or of another host: too late to mean anything.
            return;
        }
        match answer.what {
            Reply::Hello(hello) => {
                if !hello.asked {
                    // Whatever was on its way is lost with the memory it was for.
                    self.sent.clear();
                }
                self.begin(hello, tell);
            }
            Reply::Scored(scored) => {
                self.unknown |= (self.standing ^ scored.standing) & self.watched();
                tell(Event::Scored(scored));
            }
            // Else of a channel that another host, or this one before, had watched: nobody
            // sends it samples any more, and the device misses them for ever.
            Reply::Alarm(alarm) if self.is_watched(alarm.channel) => self.alarm(alarm, tell),
            Reply::Alarm(_) => {}
            Reply::State(state) => {
                match state.alarm {
                    Some(alarm) if self.standing & bit(state.channel) == 0 => {
                        self.alarm(alarm, tell);
                    }
                    Some(_) => {}
                    None => self.standing &= !bit(state.channel),
                }
                tell(Event::State(state));
            }
            Reply::Health(health) => tell(Event::Health(health)),
            Reply::Refused(Refusal::NotSetUp) => {
                // It has started anew, and its word of that was lost.
                if let Some(
                    Request::Sample { channel, .. }
                    | Request::State { channel }
                    | Request::Learning { channel, .. },
                ) = asked
                    && self.is_watched(channel)
                {
                    self.unset |= bit(channel);
                    self.standing &= !bit(channel);
                    self.phase = Phase::SettingUp;
                }
            }
            Reply::Refused(Refusal::NoChannel) | Reply::Done => {}
        }
        if self.phase == Phase::SettingUp && self.unset == 0 && self.sent.is_empty() {
            self.phase = Phase::Ready;
            tell(Event::Ready);
        }
    }

    /// What this answers, if that is on its way. Answers keep their order, so what was sent
    /// before it is lost. What is said unasked answers nothing.
    fn answered(
        &mut self,
        seq: u16,
        unasked: bool,
        tell: &mut impl FnMut(Event),
    ) -> Option<Request> {
        if unasked || !self.sent.iter().any(|sent| sent.seq == seq) {
            return None;
        }
        while let Some(sent) = self.sent.pop_front() {
            if sent.seq == seq {
                self.silent = 0;
                return Some(sent.what);
            }
            self.give_up(sent.what, tell);
        }
        None
    }

    fn is_watched(&self, channel: u8) -> bool {
        self.watched() & bit(channel) != 0
    }

    /// Channels that this host wants watched.
    fn watched(&self) -> u16 {
        let wanted = (0..).zip(&self.setups).filter(|(_, setup)| setup.is_some());
        wanted.fold(0, |mask, (channel, _)| mask | bit(channel))
    }

    fn begin(&mut self, hello: Hello, tell: &mut impl FnMut(Event)) {
        self.unset = self.watched();
        self.unknown = 0;
        if !hello.asked {
            self.standing = 0;
        }
        self.phase = Phase::SettingUp;
        tell(Event::Started(hello));
    }

    fn alarm(&mut self, alarm: Alarm, tell: &mut impl FnMut(Event)) {
        if alarm.stands {
            self.standing |= bit(alarm.channel);
        } else {
            self.standing &= !bit(alarm.channel);
        }
        self.unknown &= !bit(alarm.channel);
        tell(Event::Alarm(alarm));
    }
}

fn bit(channel: u8) -> u16 {
    1_u16.checked_shl(channel.into()).unwrap_or(0)
}

fn lowest(mask: u16) -> Option<u8> {
    let at = u8::try_from(mask.trailing_zeros()).ok()?;
    (mask != 0).then_some(at)
}
