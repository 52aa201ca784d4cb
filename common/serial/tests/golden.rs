//! Frames as they are on the line, byte for byte. One that changes here cuts off every device
//! in the field: it wants another `frame::VERSION`, and a line in the changelog.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use homeostat_serial::frame::{Decoder, VERSION, encode};
use homeostat_serial::message::{
    Alarm, Answer, Ask, At, Cause, Fault, Health, Hello, Part, Refusal, Reply, Request, Scored,
    Setup, State,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn is<M: Serialize + DeserializeOwned + Debug + PartialEq>(message: &M, golden: &str) {
    let frame = encode(message).unwrap();
    let text: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, golden, "{message:?}");
    let mut decoder = Decoder::new();
    let read: Vec<_> = frame
        .iter()
        .filter_map(|byte| decoder.push::<M>(*byte))
        .collect();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].as_ref().unwrap(), message);
}

const AT: At = At {
    seconds: 86_400,
    micros: 250_000,
};

const ALARM: Alarm = Alarm {
    channel: 3,
    stands: true,
    since: AT,
    score: 0.75,
    uncertainty: 0.125,
    member: Part(1),
};

#[test]
fn what_a_host_asks() {
    assert_eq!(VERSION, 1);
    let setup = Setup {
        tag: 0xDEAD_BEEF,
        period_ms: 1000,
    };
    let sample = Request::Sample {
        channel: 15,
        at: AT,
        value: -2.5,
    };
    for (seq, what, golden) in [
        (1, Request::Hello, "0003010105648298e700"),
        (
            2,
            Request::Setup { channel: 15, setup },
            "000d0102010feffdb6f50de807f203671200",
        ),
        (300, sample, "000c01ac02020f80a30590a10f010720c0f27da1d700"),
        (
            3,
            Request::Learning {
                channel: 0,
                on: false,
            },
            "000401030301051acfb1eb00",
        ),
        (4, Request::State { channel: 7 }, "0009010404070240f96400"),
        (65535, Request::Health, "000a01ffff0305fd4b98c000"),
        (5, Request::Restart(Fault::Stall), "00090105060238bc672700"),
    ] {
        is(&Ask { seq, what }, golden);
    }
}

#[test]
fn what_a_device_answers() {
    let hello = Hello {
        channels: 16,
        cause: Cause::Outside,
        asked: false,
    };
    let scored = Scored {
        channel: 3,
        score: 0.75,
        uncertainty: 0.125,
        member: Part(3),
        standing: 0x8008,
    };
    let state = State {
        channel: 3,
        samples: 1000,
        missed: 2,
        last: AT,
        alarm: Some(ALARM),
    };
    let health = Health {
        frames: 100_000,
        bad: 3,
        overruns: 0,
        stack_used: 740,
        stack_free: 1308,
        scored: 90_000,
        ticks: 73_000_000,
        ticks_max: 1334,
        ticks_2000: 2000,
    };
    for (seq, what, golden) in [
        (0, Reply::Hello(hello), "0002010103100305b582954d00"),
        (2, Reply::Done, "000801020131e1b2bb00"),
        (
            300,
            Reply::Scored(scored),
            "000601ac0202030103403f01010a3e03888002b874b60f00",
        ),
        (
            300,
            Reply::Alarm(ALARM),
            "000d01ac0203030180a30590a10f0103403f0101073e01e5dc395400",
        ),
        (
            4,
            Reply::State(state),
            "001701040403e8070280a30590a10f01030180a30590a10f0103403f0101073e0153663cc700",
        ),
        (
            65535,
            Reply::Health(health),
            "000a01ffff0305a08d060314e4059c0a90bf05c0c8e722b60ad00fc5712c9000",
        ),
        (
            6,
            Reply::Refused(Refusal::NotSetUp),
            "000901060601db5328bc00",
        ),
    ] {
        is(&Answer { seq, what }, golden);
    }
}
