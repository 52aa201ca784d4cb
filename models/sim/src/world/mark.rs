//! A number that two worlds share only if the same will become of them.
//!
//! Wider than [`World::digest`], which is about what is traced: here is all that can matter
//! later, for searches over plans, which need not look twice at one state. Only for a world
//! without plans under way.

use super::World;

/// FNV-1a over numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(u64);

impl Default for Mark {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Mark {
    pub(crate) fn whole(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn number(&mut self, number: f64) {
        self.whole(number.to_bits());
    }

    pub(crate) fn flags(&mut self, flags: [bool; 4]) {
        self.whole(flags.iter().fold(0, |bits, flag| 2 * bits + u64::from(*flag)));
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

impl World {
    /// All that can matter later.
    pub(crate) fn mark(&self) -> u64 {
        let mut mark = Mark::default();
        mark.whole(self.state.digest());
        self.engine.mark(&mut mark);
        for replica in &self.state.replicas {
            mark.number(replica.cpu_limit);
            mark.number(replica.copied.unwrap_or(-1.0));
            mark.number(replica.data_mb + replica.fds + replica.threads);
            mark.number(replica.warm);
            mark.whole(replica.model as u64 + 8 * replica.config as u64);
            mark.flags([replica.degraded, replica.port_blocked, false, false]);
        }
        for route in &self.state.routes {
            mark.number(route.limit);
            mark.number(route.drifted);
            mark.flags([route.blocked, false, false, false]);
        }
        for node in &self.state.nodes {
            mark.whole(node.uplink.at() as u64);
            mark.number(node.litter_mb + node.inodes);
            mark.number(node.battery_wh);
        }
        mark.flags([self.state.rollout_paused, self.state.training.broken, false, false]);
        mark.value()
    }

    /// What matters of the faults alone.
    pub(crate) fn fault_mark(&self) -> u64 {
        let mut mark = Mark::default();
        self.engine.mark(&mut mark);
        mark.value()
    }
}
