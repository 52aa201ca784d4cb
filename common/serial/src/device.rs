//! The microcontroller's end: bytes in, verdicts and alarms out.
//!
//! In go the bytes of the line and a [`Board`]; out go frames through it. For each channel
//! there is a detector bank, and an alarm that begins with the bank's word and ends after
//! [`CALM`] samples below it. When samples of other channels show that one is overdue, the
//! miss is its sample: one channel is looked at for each sample, so the cost of a sample
//! never depends on how many are silent. A device to which nobody speaks says nothing.
//!
//! What it deliberately does not do: keep time (samples carry it), keep anything across a
//! restart (the host sets it up again), or decide what an alarm means.

use core::time::Duration;

use homeostat_detect::bank::{ALERT, Bank, Verdict};

use crate::frame::{Decoder, encode};
use crate::message::{
    Alarm, Answer, Ask, At, CHANNELS, Cause, Fault, Health, Hello, Refusal, Reply, Request, Scored,
    Setup, State,
};

/// Samples below an alert after which an alarm is over: a value that swings about the
/// threshold is one alarm and not many.
pub const CALM: u8 = 30;

/// What the hardware does for a device.
pub trait Board {
    /// Ticks wrap at this power of two.
    const TICK_BITS: u32;
    /// A counter that runs up while the processor does, and wraps.
    fn ticks(&mut self) -> u32;
    /// Ticks of a loop of 2,000 instructions.
    fn ticks_2000(&self) -> u32;
    /// Bytes of stack that were ever used, and that were not.
    fn stack(&self) -> (u32, u32);
    /// Bytes that were lost because they came too fast.
    fn overruns(&self) -> u32;
    /// Puts a frame on the line.
    fn send(&mut self, frame: &[u8]);
    /// Ends the program in this way. Returns only where it cannot, as in a test.
    fn end(&mut self, fault: Fault);
}

/// One metric.
#[derive(Debug, Clone)]
struct Channel {
    setup: Option<Setup>,
    bank: Bank,
    samples: u32,
    missed: u32,
    /// Time of the newest sample, or of the newest one that was missed.
    last: Duration,
    alarm: Option<Alarm>,
    /// Samples in a row below an alert.
    calm: u8,
}

impl Channel {
    const NEW: Self = Self {
        setup: None,
        bank: Bank::new(),
        samples: 0,
        missed: 0,
        last: Duration::ZERO,
        alarm: None,
        calm: 0,
    };
}

/// A device: its channels, the frame that is being read, and counts.
#[derive(Debug, Clone)]
pub struct Device {
    decoder: Decoder,
    channels: [Channel; CHANNELS],
    /// The channel whose lateness is looked at next.
    look: u8,
    standing: u16,
    seq: u16,
    cause: Cause,
    health: Health,
}

impl Device {
    /// One without set-up, whose program started for this reason.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            decoder: Decoder::new(),
            channels: [Channel::NEW; CHANNELS],
            look: 0,
            standing: 0,
            seq: 0,
            cause: Cause::Power,
            health: Health {
                frames: 0,
                bad: 0,
                overruns: 0,
                stack_used: 0,
                stack_free: 0,
                scored: 0,
                ticks: 0,
                ticks_max: 0,
                ticks_2000: 0,
            },
        }
    }

    /// Says that it has started, and why.
    pub fn start(&mut self, cause: Cause, board: &mut impl Board) {
        self.cause = cause;
        self.hello(false, board);
    }

    /// Takes a byte from the line.
    pub fn take(&mut self, byte: u8, board: &mut impl Board) {
        match self.decoder.push::<Ask>(byte) {
            None => {}
            Some(Err(_)) => self.health.bad = self.health.bad.saturating_add(1),
            Some(Ok(ask)) => {
                self.health.frames = self.health.frames.saturating_add(1);
                self.seq = ask.seq;
                self.answer(ask.what, board);
            }
        }
    }

    fn answer(&mut self, what: Request, board: &mut impl Board) {
        match what {
            Request::Hello => self.hello(true, board),
            Request::Setup { channel, setup } => match self.channel(channel) {
                None => self.refuse(Refusal::NoChannel, board),
                Some(one) if one.setup == Some(setup) => self.say(Reply::Done, board),
                Some(one) => {
                    // In place: a whole channel on the stack is more than it holds.
                    one.setup = Some(setup);
                    one.bank = Bank::new();
                    (one.samples, one.missed, one.calm) = (0, 0, 0);
                    one.last = Duration::ZERO;
                    one.alarm = None;
                    self.standing &= !bit(channel);
                    self.say(Reply::Done, board);
                }
            },
            Request::Sample { channel, at, value } => self.sample(channel, at, value, board),
            Request::Learning { channel, on } => match self.set_up(channel) {
                Err(why) => self.refuse(why, board),
                Ok(one) => {
                    one.bank.learning(on);
                    self.say(Reply::Done, board);
                }
            },
            Request::State { channel } => match self.set_up(channel) {
                Err(why) => self.refuse(why, board),
                Ok(one) => {
                    let state = State {
                        channel,
                        samples: one.samples,
                        missed: one.missed,
                        last: one.last.into(),
                        alarm: one.alarm,
                    };
                    self.say(Reply::State(state), board);
                }
            },
            Request::Health => {
                let (stack_used, stack_free) = board.stack();
                let health = Health {
                    overruns: board.overruns(),
                    stack_used,
                    stack_free,
                    ticks_2000: board.ticks_2000(),
                    ..self.health
                };
                self.say(Reply::Health(health), board);
            }
            Request::Restart(fault) => board.end(fault),
        }
    }

    fn sample(&mut self, channel: u8, at: At, value: f32, board: &mut impl Board) {
        let now = Duration::from(at);
        match self.set_up(channel) {
            Err(why) => return self.refuse(why, board),
            Ok(one) => {
                one.samples = one.samples.saturating_add(1);
                one.last = one.last.max(now);
            }
        }
        let Some(verdict) = self.judge(channel, now, Some(value), board) else {
            return self.refuse(Refusal::NotSetUp, board);
        };
        let scored = Scored {
            channel,
            score: verdict.score,
            uncertainty: verdict.uncertainty,
            member: verdict.strongest.into(),
            standing: self.standing,
        };
        self.say(Reply::Scored(scored), board);
        self.look_for_late(now, board);
    }

    /// Whether one other channel is overdue; the next one next time.
    fn look_for_late(&mut self, now: Duration, board: &mut impl Board) {
        let at = self.look;
        self.look = (at + 1) % CHANNELS_U8;
        let Ok(one) = self.set_up(at) else {
            return;
        };
        // A time beyond that of others was a mistake, or the clock was set back: waiting for
        // it would take years.
        one.last = one.last.min(now);
        let period = one.setup.map_or(0, |setup| setup.period_ms);
        let period = Duration::new((period / 1000).into(), (period % 1000) * 1_000_000);
        // Half a period of patience: samples of one round do not come at once.
        let patience = period.saturating_add(period / 2);
        if period.is_zero() || one.samples == 0 || now.saturating_sub(one.last) < patience {
            return;
        }
        one.missed = one.missed.saturating_add(1);
        // After a long pause of everything there is one miss, and not one for each period.
        one.last = one
            .last
            .saturating_add(period)
            .max(now.saturating_sub(period));
        self.judge(at, now, None, board);
    }

    fn judge(
        &mut self,
        channel: u8,
        at: Duration,
        value: Option<f32>,
        board: &mut impl Board,
    ) -> Option<Verdict> {
        let one = self.channel(channel)?;
        let before = board.ticks();
        let verdict = one.bank.observe(at, value);
        let after = board.ticks();
        // Two readings in a row take this long without anything between them.
        let idle = wrapped(after, board.ticks(), board);
        let took = wrapped(before, after, board).saturating_sub(idle);
        self.health.scored = self.health.scored.saturating_add(1);
        self.health.ticks = self.health.ticks.saturating_add(took.into());
        self.health.ticks_max = self.health.ticks_max.max(took);
        self.alarm(channel, at, &verdict, board);
        Some(verdict)
    }

    /// Begins or ends the alarm of a channel.
    fn alarm(&mut self, channel: u8, at: Duration, verdict: &Verdict, board: &mut impl Board) {
        let Some(one) = self.channel(channel) else {
            return;
        };
        let alert = verdict.score >= ALERT;
        one.calm = if alert { 0 } else { one.calm.saturating_add(1) };
        let said = match &mut one.alarm {
            None if alert && verdict.news >= ALERT => {
                let alarm = Alarm {
                    channel,
                    stands: true,
                    since: at.into(),
                    score: verdict.score,
                    uncertainty: verdict.uncertainty,
                    member: verdict.strongest.into(),
                };
                one.alarm = Some(alarm);
                alarm
            }
            None => return,
            Some(alarm) if one.calm >= CALM => {
                let over = Alarm {
                    stands: false,
                    ..*alarm
                };
                one.alarm = None;
                over
            }
            Some(alarm) => {
                if verdict.score > alarm.score {
                    alarm.score = verdict.score;
                    alarm.uncertainty = verdict.uncertainty;
                    alarm.member = verdict.strongest.into();
                }
                return;
            }
        };
        if said.stands {
            self.standing |= bit(channel);
        } else {
            self.standing &= !bit(channel);
        }
        self.say(Reply::Alarm(said), board);
    }

    fn channel(&mut self, channel: u8) -> Option<&mut Channel> {
        self.channels.get_mut(usize::from(channel))
    }

    fn set_up(&mut self, channel: u8) -> Result<&mut Channel, Refusal> {
        let one = self.channel(channel).ok_or(Refusal::NoChannel)?;
        if one.setup.is_none() {
            return Err(Refusal::NotSetUp);
        }
        Ok(one)
    }

    fn hello(&self, asked: bool, board: &mut impl Board) {
        let hello = Hello {
            channels: CHANNELS_U8,
            cause: self.cause,
            asked,
        };
        self.say(Reply::Hello(hello), board);
    }

    fn refuse(&self, why: Refusal, board: &mut impl Board) {
        self.say(Reply::Refused(why), board);
    }

    fn say(&self, what: Reply, board: &mut impl Board) {
        let answer = Answer {
            seq: self.seq,
            what,
        };
        // Every answer is shorter than the longest message; a test says so.
        if let Some(frame) = encode(&answer) {
            board.send(&frame);
        }
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(clippy::cast_possible_truncation)] // 16
const CHANNELS_U8: u8 = CHANNELS as u8;

fn bit(channel: u8) -> u16 {
    1_u16.checked_shl(channel.into()).unwrap_or(0)
}

fn wrapped<B: Board>(from: u32, to: u32, _: &B) -> u32 {
    let mask = u32::MAX >> (32 - B::TICK_BITS.clamp(1, 32));
    to.wrapping_sub(from) & mask
}

#[cfg(test)]
mod tests;
