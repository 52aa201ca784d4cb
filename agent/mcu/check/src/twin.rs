//! An emulated board and the same code on this machine, on the same line.

use anyhow::{Context as _, Result, bail, ensure};
use homeostat_serial::device::{Board, Device};
use homeostat_serial::frame::{Decoder, encode};
use homeostat_serial::message::{Answer, Ask, Cause, Fault, Hello, Reply, Request};

use crate::emulator::Emulator;
use crate::stream::Random;

/// What a device wants of its board, where nothing is measured.
#[derive(Debug, Default)]
struct Desk {
    line: Vec<u8>,
}

impl Board for Desk {
    const TICK_BITS: u32 = 32;
    fn ticks(&mut self) -> u32 {
        0
    }
    fn ticks_2000(&self) -> u32 {
        0
    }
    fn stack(&self) -> (u32, u32) {
        (0, 0)
    }
    fn overruns(&self) -> u32 {
        0
    }
    fn send(&mut self, frame: &[u8]) {
        self.line.extend_from_slice(frame);
    }
    fn end(&mut self, _: Fault) {}
}

/// Both, and how often they disagreed.
#[derive(Debug)]
pub(crate) struct Pair {
    board: Emulator,
    twin: Box<Device>,
    desk: Desk,
    seq: u16,
    unlike: u32,
    alarms: Vec<(u8, bool, u32)>,
}

impl Pair {
    pub(crate) fn new(board: Emulator) -> Self {
        Self {
            board,
            twin: Box::new(Device::new()),
            desk: Desk::default(),
            seq: 0,
            unlike: 0,
            alarms: Vec::new(),
        }
    }

    /// Answers that were not the same, byte for byte.
    pub(crate) fn unlike(&self) -> u32 {
        self.unlike
    }

    /// Channel, whether it began, and seconds of each alarm so far.
    pub(crate) fn alarms(&self) -> Vec<(u8, bool, u32)> {
        self.alarms.clone()
    }

    /// Qemu has no watchdog for STM32.
    pub(crate) fn has_watchdog(&self, machine: &str) -> bool {
        !machine.contains("netduino")
    }

    /// The board says that it has started, for this reason.
    pub(crate) fn started(&mut self, cause: Cause) -> Result<()> {
        let hello = self.board.read_until(|read| !answers(read).is_empty())?;
        let expected = Hello {
            channels: 16,
            cause,
            asked: false,
        };
        match answers(&hello)[..] {
            [
                Answer {
                    what: Reply::Hello(hello),
                    ..
                },
            ] if hello == expected => {}
            _ => bail!(
                "it should have started because of {cause:?}: {:?}",
                answers(&hello)
            ),
        }
        *self.twin = Device::new();
        self.twin.start(cause, &mut self.desk);
        self.desk.line.clear();
        Ok(())
    }

    /// Asks both.
    pub(crate) fn ask(&mut self, what: Request) -> Result<()> {
        let frame = self.frame(what)?;
        for byte in &frame {
            self.twin.take(*byte, &mut self.desk);
        }
        self.board.send(&frame)?;
        let expected = std::mem::take(&mut self.desk.line);
        let read = self.board.read_until(|read| read.len() >= expected.len())?;
        if read != expected {
            self.unlike += 1;
            eprintln!("unlike: asked {what:?}");
            eprintln!("  board {:?}", answers(&read));
            eprintln!("  here  {:?}", answers(&expected));
            ensure!(self.unlike < 5, "too many answers are not the same");
        }
        for answer in answers(&read) {
            if let Reply::Alarm(alarm) = answer.what {
                let at = match what {
                    Request::Sample { at, .. } => at.seconds,
                    _ => 0,
                };
                self.alarms.push((alarm.channel, alarm.stands, at));
            }
        }
        Ok(())
    }

    /// Asks the board alone, about something that only it has.
    pub(crate) fn ask_apart(&mut self, what: Request) -> Result<Reply> {
        let frame = self.frame(what)?;
        self.board.send(&frame)?;
        let read = self.board.read_until(|read| !answers(read).is_empty())?;
        let answer = answers(&read).pop();
        Ok(answer.context("an answer that came")?.what)
    }

    /// Lets the board end in this way; nothing is answered.
    pub(crate) fn end(&mut self, fault: Fault) -> Result<()> {
        let frame = self.frame(Request::Restart(fault))?;
        self.board.send(&frame)
    }

    /// Random bytes, to both. Neither answers.
    pub(crate) fn noise(&mut self, random: &mut Random) -> Result<()> {
        let length = random.next() as usize % 100;
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.next().to_le_bytes()[1])
            .take(length)
            .collect();
        for byte in &bytes {
            self.twin.take(*byte, &mut self.desk);
        }
        self.board.send(&bytes)
    }

    fn frame(&mut self, what: Request) -> Result<Vec<u8>> {
        self.seq = self.seq.wrapping_add(1);
        let ask = Ask {
            seq: self.seq,
            what,
        };
        Ok(encode(&ask)
            .context("a request longer than a frame")?
            .to_vec())
    }
}

fn answers(bytes: &[u8]) -> Vec<Answer> {
    let mut decoder = Decoder::new();
    let read = bytes
        .iter()
        .filter_map(|byte| decoder.push::<Answer>(*byte));
    read.filter_map(Result::ok).collect()
}
