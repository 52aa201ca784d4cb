//! What is sent to the board: 16 metrics, faults in some of them, garbage in between.
//!
//! Made by a fixed recipe from a fixed seed; no file, no recording.

use homeostat_serial::message::{At, CHANNELS, Request, Setup};

/// Rounds of one sample of each channel: the first a second apart, the rest ten minutes, so
/// that days go by and what depends on the time of day is reached.
pub(crate) const ROUNDS: u32 = 1200;
const FAST_ROUNDS: u32 = 600;
const SLOW_SECONDS: u32 = 600;

/// Channels with a fault, and the round in which it begins.
pub(crate) const JUMP: (u8, u32) = (1, 400);
const FROZEN: (u8, u32) = (2, 350);
const SILENT: (u8, u32) = (3, 450);
const WILD: u8 = 4;
const TWICE: u8 = 5;

/// A small generator of its own (xorshift, Marsaglia 2003), so that the stream never changes
/// with a library.
#[derive(Debug, Clone)]
pub(crate) struct Random(u32);

impl Random {
    pub(crate) fn new(seed: u32) -> Self {
        Self(seed.max(1))
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// In `0.0..1.0`, in steps that a float holds exactly.
    #[allow(clippy::cast_precision_loss)] // 24 bits
    fn share(&mut self) -> f32 {
        (self.next() >> 8) as f32 / 16_777_216.0
    }
}

/// One channel each, due every second.
pub(crate) fn setups() -> impl Iterator<Item = Request> {
    (0..CHANNELS).map(|channel| Request::Setup {
        channel: u8::try_from(channel).unwrap_or(u8::MAX),
        setup: Setup {
            tag: 1,
            period_ms: 1000,
        },
    })
}

/// The samples of a round.
pub(crate) fn round(round: u32, random: &mut Random) -> Vec<Request> {
    let mut requests = Vec::new();
    let slow = round.saturating_sub(FAST_ROUNDS);
    for channel in (0..CHANNELS).filter_map(|channel| u8::try_from(channel).ok()) {
        let at = At {
            seconds: 1000 + round.min(FAST_ROUNDS) + slow * SLOW_SECONDS,
            micros: u32::from(channel) * 5000,
        };
        let noise = random.share() + random.share() + random.share() - 1.5;
        let scale = 10_f32.powi(i32::from(channel) - 6);
        // A saw tooth of its own period, which needs no function that differs by platform.
        let phase = round % (20 + u32::from(channel));
        let season = f32::from(u16::try_from(phase).unwrap_or(0)) / 10.0;
        let mut value = scale * (20.0 + season + noise);
        if (channel, true) == (JUMP.0, (JUMP.1..JUMP.1 + 20).contains(&round)) {
            value *= 50.0;
        }
        if channel == FROZEN.0 && round >= FROZEN.1 {
            value = 7.0;
        }
        if channel == SILENT.0 && round >= SILENT.1 {
            continue;
        }
        if channel == WILD {
            value = match random.next() % 40 {
                0 => f32::NAN,
                1 => f32::INFINITY,
                2 => f32::MAX,
                3 => f32::MIN_POSITIVE / 2.0,
                4 => -0.0,
                _ => value,
            };
        }
        let sample = Request::Sample { channel, at, value };
        requests.push(sample);
        if channel == TWICE && random.next().is_multiple_of(8) {
            requests.push(sample);
        }
    }
    requests
}
