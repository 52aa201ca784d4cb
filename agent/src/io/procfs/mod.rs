//! What the kernel says of the host and of each service.
//!
//! In go trees like `/proc` and `/sys` (parameters, so that tests ship their own), out come
//! readings. A source that is absent is [`Reading::Missing`], one that fell silent
//! [`Reading::Stale`]; neither is ever 0. Text that cannot be understood is a missing
//! value and counted in [`HostReading::garbage`] and [`ServiceReading::garbage`].
//!
//! Shares and rates are between two samples of one sampler, whose period is the
//! caller's; the first sample has none. What changes slowly is looked at every 10 s, which
//! parts there are every minute, and pressure as often as somebody asks
//! ([`Host::glance`]). Files stay open. Judges nothing. Run delay is
//! that of the main thread, unless all threads are asked for ([`Process::threads`]).
//!
//! [`Reading::Missing`]: homeostat_common::observation::Reading::Missing
//! [`Reading::Stale`]: homeostat_common::observation::Reading::Stale

mod board;
mod deltas;
mod disks;
mod group;
mod host;
mod memory;
mod network;
mod node;
mod parse;
mod power;
mod pressure;
mod process;
mod processors;
mod source;
pub mod strangers;
#[cfg(test)]
mod tests;
mod threads;
#[cfg(test)]
mod tree_tests;

use homeostat_common::units::Ratio;

pub use self::group::Membership;
pub use self::host::{Host, HostReading, Places};
pub use self::process::{Process, ServiceReading};
use self::source::{NoText, Source, TEXT_MAX};

/// A buffer for texts, and how many of them made no sense.
#[derive(Debug)]
struct Texts {
    buffer: Vec<u8>,
    garbage: u32,
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            buffer: vec![0; TEXT_MAX],
            garbage: 0,
        }
    }
}

impl Texts {
    fn parse<T>(
        &mut self,
        source: &mut Source,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        match source.read(&mut self.buffer) {
            Ok(text) => {
                let value = parse(text);
                self.garbage += u32::from(value.is_none());
                value
            }
            Err(NoText::Garbage) => {
                self.garbage += 1;
                None
            }
            Err(NoText::Absent) => None,
        }
    }
}

fn share(share: f64) -> Ratio {
    Ratio::saturating(to_f32(share))
}

#[allow(clippy::cast_possible_truncation)] // seven digits are enough for a share
fn to_f32(value: f64) -> f32 {
    value as f32
}
