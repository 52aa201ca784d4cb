//! What a host asks of a device, and what it answers.
//!
//! Each [`Ask`] is answered by one [`Answer`] with its number, so a host knows what arrived
//! and how much may be on its way. Besides that a device speaks unasked twice: `Hello` when
//! it has started, `Alarm` when one begins or ends; an alarm that is lost on the line is
//! found by the mask of standing alarms in each `Scored`.
//!
//! Enums are encoded by their place: variants are only ever added at the end, and whatever
//! else changes changes [`crate::frame::VERSION`].

use core::time::Duration;

use homeostat_detect::bank::Member;
use serde::{Deserialize, Serialize};

/// Metrics that a device watches; what 12 KB of memory hold.
pub const CHANNELS: usize = 16;

/// A time on the host's monotonic clock. Two halves, so that a microcontroller divides no
/// 64-bit number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct At {
    /// Whole seconds.
    pub seconds: u32,
    /// The rest; a second or more of it is carried over.
    pub micros: u32,
}

impl From<Duration> for At {
    /// What does not fit, after 136 years, stands still.
    fn from(time: Duration) -> Self {
        Self {
            seconds: u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
            micros: time.subsec_micros(),
        }
    }
}

impl From<At> for Duration {
    fn from(at: At) -> Self {
        const MILLION: u32 = 1_000_000;
        let seconds = u64::from(at.seconds) + u64::from(at.micros / MILLION);
        Self::new(seconds, (at.micros % MILLION) * 1000)
    }
}

/// A request and its number, which its answer carries.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Any; a host counts up.
    pub seq: u16,
    /// What is wanted.
    pub what: Request,
}

/// What a host may want.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Who are you? Answered by `Hello`.
    Hello,
    /// Watch this channel from now on. As if never seen before, unless it is watched in the
    /// very same way already: a host that comes back costs nothing that was learnt. Answered
    /// by `Done`.
    Setup {
        /// Which one.
        channel: u8,
        /// How.
        setup: Setup,
    },
    /// A sample. Answered by `Scored`.
    Sample {
        /// Of which channel.
        channel: u8,
        /// When it was measured.
        at: At,
        /// What was measured; NaN: nothing, although it was time.
        value: f32,
    },
    /// Whether samples of a channel become part of what is usual. Answered by `Done`.
    Learning {
        /// Which one.
        channel: u8,
        /// Off during an incident.
        on: bool,
    },
    /// How a channel stands. Answered by `State`.
    State {
        /// Which one.
        channel: u8,
    },
    /// How the device is. Answered by `Health`.
    Health,
    /// End on purpose, and start again: shows that the way back works. Answered by `Hello`.
    Restart(Fault),
}

/// How a device ends on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// Orderly.
    Reset,
    /// By a fault that the processor raises.
    Crash,
    /// It stands still until its watchdog bites; for ever, where a board has none.
    Stall,
}

/// How a channel is watched. What is usual for it is learnt and not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Names what is measured, and the clock of its times: another metric, or a clock that
    /// began anew, has another tag.
    pub tag: u32,
    /// A sample is due this often; one that does not come is missed. 0: never due.
    pub period_ms: u32,
}

/// What a device says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the request; of one that came before, for what is said unasked.
    pub seq: u16,
    /// What is said.
    pub what: Reply,
}

/// What a device may say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It has started, or was asked.
    Hello(Hello),
    /// As asked.
    Done,
    /// The verdict on a sample.
    Scored(Scored),
    /// An alarm began or ended.
    Alarm(Alarm),
    /// How a channel stands.
    State(State),
    /// How the device is.
    Health(Health),
    /// Not done.
    Refused(Refusal),
}

/// Who a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Channels that it has.
    pub channels: u8,
    /// Why it started.
    pub cause: Cause,
    /// It was asked, and has not just started.
    pub asked: bool,
}

/// Why a device started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Power came.
    Power,
    /// A host wanted it.
    Asked,
    /// A panic, or a fault that the processor raised.
    Crash,
    /// From outside: the watchdog bit, or somebody pressed reset.
    Outside,
}

/// The verdict on a sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Of which channel.
    pub channel: u8,
    /// Rarity, `0.0..=1.0`.
    pub score: f32,
    /// How little is known, `0.0..=1.0`.
    pub uncertainty: f32,
    /// Which detector says so.
    pub member: Part,
    /// Channels whose alarm stands, the lowest bit for channel 0.
    pub standing: u16,
}

/// An alarm as it begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// Of which channel.
    pub channel: u8,
    /// It stands; false: it ended.
    pub stands: bool,
    /// When it began.
    pub since: At,
    /// The greatest score so far.
    pub score: f32,
    /// How little was known at that score.
    pub uncertainty: f32,
    /// Which detector said so.
    pub member: Part,
}

/// How a channel stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Which one.
    pub channel: u8,
    /// Samples taken since its set-up.
    pub samples: u32,
    /// Samples that were due and did not come.
    pub missed: u32,
    /// Time of the newest.
    pub last: At,
    /// The alarm that stands.
    pub alarm: Option<Alarm>,
}

/// How the device is. Counts are since its start, and stand still at their greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// Good frames.
    pub frames: u32,
    /// Frames that were dropped, whatever was wrong with them.
    pub bad: u32,
    /// Bytes that came faster than they could be taken.
    pub overruns: u32,
    /// The most stack that was ever used, in bytes.
    pub stack_used: u32,
    /// What is left of it.
    pub stack_free: u32,
    /// Samples scored, missed ones too.
    pub scored: u32,
    /// Processor time of all of these, in ticks of the board; what the time was taken with
    /// is left out.
    pub ticks: u64,
    /// The longest of them.
    pub ticks_max: u32,
    /// Ticks that a loop of 2,000 instructions takes, for comparison.
    pub ticks_2000: u32,
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no such channel.
    NoChannel,
    /// The channel was not set up since the device started.
    NotSetUp,
}

/// A member of the bank, on the line: its place there may change, this may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Part(pub u8);

impl From<Member> for Part {
    fn from(member: Member) -> Self {
        Self(match member {
            Member::High => 0,
            Member::Low => 1,
            Member::Jump => 2,
            Member::Shift => 3,
            Member::Spread => 4,
            Member::Season => 5,
            Member::Frozen => 6,
            Member::Missing => 7,
        })
    }
}

impl Part {
    /// The member; `None` for one that this end does not know.
    #[must_use]
    pub fn member(self) -> Option<Member> {
        Member::ALL
            .into_iter()
            .find(|member| Self::from(*member) == self)
    }
}
