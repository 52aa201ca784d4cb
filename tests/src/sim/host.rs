//! The machine: what there is of it to be measured, and how late its timers are.

use std::collections::{BTreeMap, VecDeque};

use homeostat_agent::control::{Battery, Heat};
use homeostat_agent::service::ProcessSample;
use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Part, Reading};
use homeostat_common::units::{Bytes, Micros, Millis, Ratio};

use super::Lie;

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
    /// Sensors that lie, by the service that they tell of.
    pub(super) lies: BTreeMap<ServiceId, Lie>,
    /// What is left in the battery, while the node runs from it.
    pub(super) battery: Option<f32>,
    /// Samples that were taken.
    pub(super) samples: u64,
    /// Whether each dependency answered rightly when it was asked last.
    pub(super) asked: BTreeMap<Part, VecDeque<bool>>,
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
            lies: BTreeMap::new(),
            battery: None,
            samples: 0,
            asked: BTreeMap::new(),
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

    /// How it is supplied.
    pub(super) fn supply(&self) -> Option<Battery> {
        let charge = self.battery?;
        Some(Battery {
            charge: Ratio::saturating(charge),
            mains: false,
        })
    }

    /// What sensors that lie make of a sample.
    pub(super) fn lie(&self, service: &ServiceId, sample: &mut ProcessSample) {
        let wild = self.samples.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        match self.lies.get(service) {
            Some(Lie::Cores(cores)) => sample.cpu = Reading::Fresh(*cores),
            Some(Lie::WildMemory) => sample.resident = Reading::Fresh(Bytes(wild)),
            Some(Lie::HugeMemory) => sample.resident = Reading::Fresh(Bytes(u64::MAX)),
            None => {}
        }
    }

    /// How late a timer fires, in microseconds; fixed for a given time.
    pub(super) fn lateness(&self, at: Micros) -> u64 {
        let most = if self.pressure > 0.3 { 30_000 } else { 200 };
        (at.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % most
    }
}
