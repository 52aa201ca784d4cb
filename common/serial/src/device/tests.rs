use super::*;
use crate::frame::FRAME_MAX;
use crate::host::{Event, Host, Sample};
use crate::message::Part;
use proptest::prelude::*;
use std::vec::Vec;

/// A board whose line is a vector.
#[derive(Debug, Default)]
struct Bench {
    line: Vec<u8>,
    time: u32,
    ended: Option<Fault>,
}

impl Board for Bench {
    const TICK_BITS: u32 = 24;
    fn ticks(&mut self) -> u32 {
        self.time = (self.time + 10) & 0xFF_FFFF;
        self.time
    }
    fn ticks_2000(&self) -> u32 {
        2000
    }
    fn stack(&self) -> (u32, u32) {
        (512, 1536)
    }
    fn overruns(&self) -> u32 {
        3
    }
    fn send(&mut self, frame: &[u8]) {
        assert!(frame.len() <= FRAME_MAX);
        self.line.extend_from_slice(frame);
    }
    fn end(&mut self, fault: Fault) {
        self.ended = Some(fault);
    }
}

/// Host and device on one line; the noise may change each byte.
struct Pair {
    host: Host,
    device: Device,
    board: Bench,
    now: Duration,
    events: Vec<Event>,
}

impl Pair {
    fn new(channels: u8) -> Self {
        let mut pair = Self {
            host: Host::new(),
            device: Device::new(),
            board: Bench::default(),
            now: Duration::ZERO,
            events: Vec::new(),
        };
        for channel in 0..channels {
            let tag = channel.into();
            pair.host.set_up(
                channel,
                Setup {
                    tag,
                    period_ms: 1000,
                },
            );
        }
        pair
    }

    /// Lets both talk until neither has anything to say.
    fn settle(&mut self, noise: &mut impl FnMut(u8) -> Option<u8>) {
        for _ in 0..400 {
            let frame = self.host.next(self.now);
            let quiet = frame.is_none();
            for byte in frame
                .unwrap_or_default()
                .into_iter()
                .filter_map(&mut *noise)
            {
                self.device.take(byte, &mut self.board);
            }
            let back: Vec<u8> = self.board.line.drain(..).filter_map(&mut *noise).collect();
            let events = &mut self.events;
            self.host.received(&back, |event| events.push(event));
            if quiet && back.is_empty() {
                if self.host.idle() {
                    return;
                }
                self.now += Duration::from_millis(100);
                let events = &mut self.events;
                self.host.tick(self.now, |event| events.push(event));
            }
        }
    }

    fn alarms(&self) -> Vec<(u8, bool)> {
        let one = |event: &Event| match event {
            Event::Alarm(alarm) => Some((alarm.channel, alarm.stands)),
            _ => None,
        };
        self.events.iter().filter_map(one).collect()
    }
}

fn clean(byte: u8) -> Option<u8> {
    Some(byte)
}

/// A metric that moves a little and, for channel 1, jumps at second 900.
fn value(channel: u8, second: u64, rng: &mut fastrand::Rng) -> f32 {
    let base = 10.0 + f32::from(channel) + rng.f32();
    if channel == 1 && (900..910).contains(&second) {
        base + 500.0
    } else {
        base
    }
}

fn run(pair: &mut Pair, noise: &mut impl FnMut(u8) -> Option<u8>) {
    let mut rng = fastrand::Rng::with_seed(7);
    for second in 0..1200 {
        for channel in 0..3 {
            let value = Some(value(channel, second, &mut rng));
            let at = Duration::from_secs(second);
            pair.host.offer(Sample { channel, at, value });
        }
        pair.settle(noise);
    }
}

#[test]
fn a_jump_of_one_channel_is_an_alarm_of_that_channel_that_ends() {
    let mut pair = Pair::new(3);
    run(&mut pair, &mut clean);
    let alarms = pair.alarms();
    assert!(alarms.starts_with(&[(1, true), (1, false)]), "{alarms:?}");
    assert!(
        alarms.iter().all(|(channel, _)| *channel == 1),
        "{alarms:?}"
    );
    let scored = pair
        .events
        .iter()
        .filter(|e| matches!(e, Event::Scored(_)))
        .count();
    assert_eq!(scored, 3600);
}

#[test]
fn the_bank_behind_the_line_is_the_bank() {
    let mut pair = Pair::new(3);
    run(&mut pair, &mut clean);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut banks: [Bank; 3] = [Bank::new(), Bank::new(), Bank::new()];
    let mut scored = pair.events.iter().filter_map(|event| match event {
        Event::Scored(scored) => Some(scored),
        _ => None,
    });
    for second in 0..1200 {
        for (channel, bank) in (0..).zip(&mut banks) {
            let value = value(channel, second, &mut rng);
            let verdict = bank.observe(Duration::from_secs(second), Some(value));
            let there = scored.next().unwrap();
            assert_eq!(there.score.to_bits(), verdict.score.to_bits());
            assert_eq!(there.uncertainty.to_bits(), verdict.uncertainty.to_bits());
            assert_eq!(there.member, Part::from(verdict.strongest));
        }
    }
}

#[test]
fn an_alarm_is_known_to_the_host_in_the_end_on_a_line_that_loses_bytes() {
    let mut told = 0;
    for seed in 0..8 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut pair = Pair::new(3);
        run(&mut pair, &mut |byte| match rng.u16(..) {
            0..130 => None,
            130..200 => Some(byte ^ 16),
            _ => Some(byte),
        });
        assert!(pair.host.trouble().unanswered > 0);
        assert!(pair.alarms().iter().all(|(channel, _)| *channel == 1));
        told += usize::from(pair.alarms().contains(&(1, true)));
    }
    // In one of them the sample with the jump itself may be lost; all ten never are.
    assert_eq!(told, 8);
}

#[test]
fn a_device_that_restarts_is_set_up_again_even_if_its_word_of_it_is_lost() {
    for heard in [true, false] {
        let mut pair = Pair::new(2);
        pair.settle(&mut clean);
        pair.device = Device::new();
        pair.device.start(Cause::Outside, &mut pair.board);
        if !heard {
            pair.board.line.clear();
        }
        let at = Duration::from_secs(5);
        for channel in 0..2 {
            pair.host.offer(Sample {
                channel,
                at,
                value: Some(1.0),
            });
        }
        pair.settle(&mut clean);
        for channel in 0..2 {
            let at = Duration::from_secs(6);
            pair.host.offer(Sample {
                channel,
                at,
                value: Some(1.0),
            });
        }
        pair.settle(&mut clean);
        let last = pair
            .events
            .iter()
            .rev()
            .filter(|e| matches!(e, Event::Scored(_)))
            .count();
        assert!(last >= 2, "heard {heard}: {:?}", pair.events);
        let cause = pair.events.iter().any(|event| {
            matches!(event, Event::Started(hello) if hello.cause == Cause::Outside && !hello.asked)
        });
        assert_eq!(cause, heard);
    }
}

#[test]
fn a_host_that_comes_back_finds_what_was_learnt_and_the_alarm_that_stands() {
    let mut pair = Pair::new(3);
    let mut rng = fastrand::Rng::with_seed(7);
    for second in 0..905 {
        for channel in 0..3 {
            let value = Some(value(channel, second, &mut rng));
            pair.host.offer(Sample {
                channel,
                at: Duration::from_secs(second),
                value,
            });
        }
        pair.settle(&mut clean);
    }
    assert_eq!(pair.host.standing(), 2);
    let mut fresh = Pair::new(3);
    (fresh.device, fresh.now) = (pair.device, pair.now);
    fresh.host.offer(Sample {
        channel: 0,
        at: Duration::from_secs(905),
        value: Some(10.5),
    });
    fresh.settle(&mut clean);
    assert_eq!(fresh.alarms(), [(1, true)]);
    assert_eq!(fresh.host.standing(), 2);
}

#[test]
fn a_silent_channel_is_missed_while_others_speak() {
    let mut pair = Pair::new(3);
    for second in 0..100_u64 {
        for channel in 0..3 {
            if channel < 2 || second < 10 {
                let value = Some(value(
                    channel,
                    second,
                    &mut fastrand::Rng::with_seed(second),
                ));
                pair.host.offer(Sample {
                    channel,
                    at: Duration::from_secs(second),
                    value,
                });
            }
        }
        pair.settle(&mut clean);
    }
    let missed = |pair: &Pair, channel: usize| pair.device.channels[channel].missed;
    // Looked at once in 16 samples, so once in 8 s here.
    assert!((5..=90).contains(&missed(&pair, 2)), "{}", missed(&pair, 2));
    assert_eq!(missed(&pair, 0) + missed(&pair, 1), 0);
}

#[test]
fn a_time_far_ahead_does_not_make_a_channel_deaf_to_its_own_silence() {
    let mut pair = Pair::new(2);
    let offer = |pair: &mut Pair, channel, at| {
        pair.host.offer(Sample {
            channel,
            at: Duration::from_secs(at),
            value: Some(1.0),
        });
        pair.settle(&mut clean);
    };
    offer(&mut pair, 1, 4_000_000_000);
    for second in 0..100 {
        offer(&mut pair, 0, second);
    }
    let missed = pair.device.channels[1].missed;
    assert!((3..=12).contains(&missed), "{missed}");
}

#[test]
fn a_host_hears_nothing_of_channels_it_does_not_have() {
    let mut pair = Pair::new(3);
    let mut rng = fastrand::Rng::with_seed(7);
    for second in 0..905 {
        for channel in 0..3 {
            let value = Some(value(channel, second, &mut rng));
            let at = Duration::from_secs(second);
            pair.host.offer(Sample { channel, at, value });
        }
        pair.settle(&mut clean);
    }
    assert_eq!(pair.device.standing, 2);
    // Another host on the same line has channel 0 alone, and its own alarm of it.
    let mut fresh = Pair::new(1);
    (fresh.device, fresh.now) = (pair.device, pair.now);
    let frames = fresh.device.health.frames;
    for second in 905..935 {
        let value = if second < 925 { 10.5 } else { 900.0 };
        fresh.host.offer(Sample {
            channel: 0,
            at: Duration::from_secs(second),
            value: Some(value),
        });
        fresh.settle(&mut clean);
    }
    assert_eq!(fresh.alarms(), [(0, true)]);
    assert_eq!(fresh.host.standing(), 1);
    // Hello, set-up, 30 samples, and no question about the alarm of channel 1.
    assert_eq!(fresh.device.health.frames - frames, 32);
}

#[test]
fn a_restart_that_waits_is_not_idle() {
    let mut pair = Pair::new(1);
    pair.settle(&mut clean);
    assert!(pair.host.idle());
    pair.host.restart(Fault::Reset);
    assert!(!pair.host.idle());
    pair.host.next(pair.now).unwrap();
    assert!(!pair.host.idle());
}

#[test]
fn what_cannot_be_done_is_refused_and_counted_time_is_without_the_clock_itself() {
    let mut device = Device::new();
    let mut board = Bench::default();
    let mut ask = |what| {
        let frame = encode(&Ask { seq: 9, what }).unwrap();
        frame.iter().for_each(|byte| device.take(*byte, &mut board));
        let mut decoder = Decoder::new();
        let line: Vec<u8> = board.line.drain(..).collect();
        line.iter()
            .find_map(|byte| decoder.push::<Answer>(*byte))
            .map(|answer| answer.unwrap().what)
    };
    let at = At::default();
    let sample = |channel| Request::Sample {
        channel,
        at,
        value: 1.0,
    };
    let setup = Setup {
        tag: 1,
        period_ms: 0,
    };
    assert_eq!(ask(sample(3)), Some(Reply::Refused(Refusal::NotSetUp)));
    assert_eq!(ask(sample(16)), Some(Reply::Refused(Refusal::NoChannel)));
    let none = Request::Setup {
        channel: 255,
        setup,
    };
    assert_eq!(ask(none), Some(Reply::Refused(Refusal::NoChannel)));
    assert_eq!(ask(Request::Setup { channel: 3, setup }), Some(Reply::Done));
    assert!(matches!(ask(sample(3)), Some(Reply::Scored(_))));
    assert_eq!(ask(Request::Restart(Fault::Stall)), None);
    let Some(Reply::Health(health)) = ask(Request::Health) else {
        panic!("no health");
    };
    assert_eq!((health.frames, health.bad, health.overruns), (7, 0, 3));
    assert_eq!((health.scored, health.ticks), (1, 0));
    assert_eq!(board.ended, Some(Fault::Stall));
}

#[test]
fn the_longest_answers_fit() {
    let alarm = Alarm {
        channel: 255,
        stands: true,
        since: At {
            seconds: u32::MAX,
            micros: u32::MAX,
        },
        score: f32::MAX,
        uncertainty: f32::MAX,
        member: Part(255),
    };
    let state = State {
        channel: 255,
        samples: u32::MAX,
        missed: u32::MAX,
        last: alarm.since,
        alarm: Some(alarm),
    };
    let health = Health {
        frames: u32::MAX,
        bad: u32::MAX,
        overruns: u32::MAX,
        stack_used: u32::MAX,
        stack_free: u32::MAX,
        scored: u32::MAX,
        ticks: u64::MAX,
        ticks_max: u32::MAX,
        ticks_2000: u32::MAX,
    };
    let seq = u16::MAX;
    let length = |what| encode(&Answer { seq, what }).unwrap().len();
    // Around a message: two zeros, a code byte, version, CRC.
    assert_eq!(length(Reply::Health(health)), 54 + 8);
    assert!(length(Reply::State(state)) < 54 + 8);
    assert!(length(Reply::Alarm(alarm)) < 54 + 8);
}

proptest! {
    #[test]
    fn random_bytes_and_requests_never_panic_and_the_next_question_is_answered(
        garbage: Vec<u8>,
        requests: Vec<(u8, u8, u32, u32, u32)>,
    ) {
        let mut device = Device::new();
        let mut board = Bench::default();
        garbage.iter().for_each(|byte| device.take(*byte, &mut board));
        for (kind, channel, a, b, c) in requests {
            let channel = if channel < 250 { channel % 4 } else { channel };
            let what = match kind % 4 {
                0 => Request::Setup { channel, setup: Setup { tag: a, period_ms: b } },
                1 => Request::State { channel },
                _ => Request::Sample {
                    channel,
                    at: At { seconds: a, micros: b },
                    value: f32::from_bits(c),
                },
            };
            let frame = encode(&Ask { seq: 1, what }).unwrap();
            frame.iter().for_each(|byte| device.take(*byte, &mut board));
        }
        garbage.iter().for_each(|byte| device.take(*byte, &mut board));
        board.line.clear();
        let frame = encode(&Ask { seq: 77, what: Request::Hello }).unwrap();
        frame.iter().for_each(|byte| device.take(*byte, &mut board));
        let mut decoder = Decoder::new();
        let answers: Vec<_> = board.line.iter().filter_map(|b| decoder.push::<Answer>(*b)).collect();
        let hello = Hello { channels: 16, cause: Cause::Power, asked: true };
        let hello = Answer { seq: 77, what: Reply::Hello(hello) };
        prop_assert_eq!(answers, [Ok(hello)]);
    }

    #[test]
    fn a_host_takes_any_bytes(garbage: Vec<u8>) {
        let mut host = Host::new();
        host.set_up(200, Setup { tag: 0, period_ms: 1 });
        host.received(&garbage, |_| {});
        prop_assert!(host.next(Duration::ZERO).is_some());
    }
}
