//! The machine: what there is of it to be measured, and how late its timers are.

use homeostat_agent::control::Heat;
use homeostat_common::units::{Micros, Millis};

/// The state of the machine.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) pressure: f32,
    /// When pressure last was above what the gate takes for calm.
    pub(super) pressed: Option<Micros>,
    pub(super) frozen: bool,
    /// The run of the agent that has taken a sample before.
    pub(super) sampled: u32,
    pub(super) slow_sync: Millis,
    pub(super) no_check: bool,
    pub(super) no_rollback: bool,
    pub(super) link: bool,
    /// Cores that a process of nobody uses.
    pub(super) stranger: f32,
    /// Milliseconds since 1970 at the start of the simulation, if the wall clock
    /// can be believed.
    pub(super) wall: Option<u64>,
    /// Degrees, by how much they rise in a minute, and since when.
    pub(super) heat: Option<(f32, f32, Micros)>,
    /// When certificates end, in milliseconds since 1970.
    pub(super) certificates: Option<u64>,
    /// What stands in the file `STOP`.
    pub(super) stop: Option<&'static str>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            pressure: 0.0,
            pressed: None,
            frozen: false,
            sampled: 0,
            slow_sync: Millis(2),
            no_check: false,
            no_rollback: false,
            link: true,
            stranger: 0.0,
            wall: None,
            heat: None,
            certificates: None,
            stop: None,
        }
    }
}

impl Host {
    /// The hottest part, of which 80 degrees are the limit.
    pub(super) fn heat(&self, now: Micros) -> Option<Heat> {
        let (degrees, rate, since) = self.heat?;
        let risen = rate * now.since(since).0 as f32 / 60_000.0;
        Some(Heat {
            degrees: (degrees + risen).max(30.0),
            limit: 80.0,
        })
    }

    /// How late a timer fires, in microseconds; fixed for a given time.
    pub(super) fn lateness(&self, at: Micros) -> u64 {
        let most = if self.pressure > 0.3 { 30_000 } else { 200 };
        (at.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % most
    }
}
