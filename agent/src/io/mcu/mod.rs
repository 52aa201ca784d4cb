//! Detectors on a microcontroller at a serial line.
//!
//! In go samples, out come the events of `homeostat_serial::host`. Here are only the line and
//! the time; what is said, and in which order, is that crate's.

pub mod feed;
pub mod port;

use std::path::Path;
use std::time::{Duration, Instant};

use homeostat_serial::host::{ANSWER_WITHIN, Event, Host};

use port::{Port, PortError};

/// A device and its line.
#[derive(Debug)]
pub struct Session {
    port: Port,
    /// What is known of the device, and what it is to be told.
    pub host: Host,
    began: Instant,
}

impl Session {
    /// Opens the line; the device is looked for from the first [`Session::pump`] on.
    ///
    /// # Errors
    /// When the line cannot be opened.
    pub fn open(path: &Path, baud: u32, host: Host) -> Result<Self, PortError> {
        Ok(Self {
            port: Port::open(path, baud)?,
            host,
            began: Instant::now(),
        })
    }

    /// Sends what may be sent, and takes what comes, waiting for it up to this long.
    ///
    /// # Errors
    /// When the line is closed or broken.
    pub fn pump(&mut self, within: Duration, mut tell: impl FnMut(Event)) -> Result<(), PortError> {
        while let Some(frame) = self.host.next(self.began.elapsed()) {
            self.port.write(&frame)?;
        }
        // Never longer than until an answer is overdue.
        let bytes = self.port.read(within.min(ANSWER_WITHIN))?;
        self.host.received(&bytes, &mut tell);
        self.host.tick(self.began.elapsed(), &mut tell);
        Ok(())
    }
}
