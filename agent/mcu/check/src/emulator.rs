//! A board in qemu, its serial line on pipes.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// One instruction takes 2^8 ns of the emulated time: SysTick then counts several ticks for
/// each, so that what it measures is a number of instructions, exactly. Time in which the
/// board sleeps is not waited for.
const TIME: &str = "shift=8,sleep=off";

/// An answer that takes longer does not come. The longest is a watchdog's bite, after 4 s of
/// emulated time, which is less than a second; a loaded machine is much slower.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running emulator; ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Emulator {
    child: Child,
    line: ChildStdin,
    from: Receiver<Vec<u8>>,
}

impl Emulator {
    /// `machine`: what qemu wants to know of the board.
    pub(crate) fn start(machine: &str, firmware: &Path) -> Result<Self> {
        let mut child = Command::new("qemu-system-arm")
            .args(machine.split_whitespace())
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
            .args(["-icount", TIME])
            .arg("-kernel")
            .arg(firmware)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start qemu-system-arm")?;
        let line = child.stdin.take().context("qemu without standard input")?;
        let mut out = child
            .stdout
            .take()
            .context("qemu without standard output")?;
        let (to, from) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut buffer) {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                if to.send(bytes).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, line, from })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.line
            .write_all(bytes)
            .context("write to the emulated line")
    }

    /// Bytes as they come, until `enough` says so of all that came.
    pub(crate) fn read_until(&mut self, mut enough: impl FnMut(&[u8]) -> bool) -> Result<Vec<u8>> {
        let start = Instant::now();
        let mut read = Vec::new();
        while !enough(&read) {
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.from.recv_timeout(left) {
                Ok(bytes) => read.extend(bytes),
                Err(RecvTimeoutError::Timeout) => bail!(
                    "no answer within {} s, but {} bytes: {read:02x?}",
                    PATIENCE.as_secs(),
                    read.len()
                ),
                Err(RecvTimeoutError::Disconnected) => bail!("qemu has ended; its error is above"),
            }
        }
        Ok(read)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
