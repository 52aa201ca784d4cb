//! A device behind a pseudo terminal: the code of the firmware, in a thread.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use homeostat_serial::device::{Board, Device};
use homeostat_serial::message::{Cause, Fault};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// The device; it ends with this.
pub(crate) struct PtyDevice {
    /// What the agent opens.
    pub(crate) path: PathBuf,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The line's far end.
struct Far {
    line: File,
    ended: bool,
}

impl Board for Far {
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
        // Nobody reads between two runs of the agent.
        let _ = self.line.write_all(frame);
    }
    fn end(&mut self, _: Fault) {
        self.ended = true;
    }
}

impl PtyDevice {
    pub(crate) fn start() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = PathBuf::from(name.into_string().unwrap());
        let end = Arc::new(AtomicBool::new(false));
        let ending = Arc::clone(&end);
        let thread = thread::spawn(move || serve(master, &ending));
        Self {
            path,
            end,
            thread: Some(thread),
        }
    }
}

impl Drop for PtyDevice {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(master: OwnedFd, end: &AtomicBool) {
    let mut far = Far {
        line: File::from(master),
        ended: false,
    };
    let mut device = Box::new(Device::new());
    let mut buffer = [0; 256];
    while !end.load(Ordering::Relaxed) {
        if far.ended {
            far.ended = false;
            *device = Device::new();
            device.start(Cause::Asked, &mut far);
        }
        let within = Timespec::try_from(Duration::from_millis(50)).unwrap();
        let mut fds = [PollFd::new(&far.line, PollFlags::IN)];
        if poll(&mut fds, Some(&within)).is_ok_and(|ready| ready > 0) {
            // While nobody has the near end open, reading fails.
            match far.line.read(&mut buffer) {
                Ok(length) => {
                    for byte in &buffer[..length] {
                        device.take(*byte, &mut far);
                    }
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}
