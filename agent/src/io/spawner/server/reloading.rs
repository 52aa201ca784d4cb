//! The spawner's part of a reload: the slots of another configuration.
//!
//! In: the file again. Out: slots with the new specs; what runs goes on, also what
//! the file no longer names. Whether anything is restarted is the loop's to decide.

use super::Server;
use crate::io::keeper::chain;
use crate::io::spawner::cgroup::Groups;
use crate::io::spawner::logs::Logs;
use crate::io::spawner::protocol::SLOTS_MAX;
use crate::io::spawner::setup::{self, Peers};
use crate::io::spawner::slots::slot_of;

impl Server {
    /// Reads the configuration again; on any problem nothing changes.
    pub(super) fn reload(&mut self) -> Result<(), String> {
        let config = setup::read_config(&self.file).map_err(|error| chain(&error))?;
        if config.node.run_dir != self.config.node.run_dir {
            return Err("run_dir cannot change while the spawner runs".into());
        }
        let peers = Peers::of(&config).map_err(|error| error.to_string())?;
        let logs = Logs::open(&config.node.data_dir, peers.readers);
        let dropped = self
            .slots
            .iter()
            .filter(|(service, slot)| slot.live.is_some() && config.service(service).is_none());
        if dropped.count() + config.services.len() > SLOTS_MAX {
            return Err("too many services that the file no longer names are running".into());
        }
        for slot in self.slots.values_mut() {
            slot.spec = None;
        }
        for spec in &config.services {
            slot_of(&mut self.slots, &spec.id).spec = Some(spec.clone());
        }
        self.slots
            .retain(|_, slot| slot.spec.is_some() || slot.live.is_some());
        if matches!(self.groups, Groups::None { .. }) {
            self.groups = Groups::wanted_by(&config);
        }
        (self.config, self.peers, self.logs) = (config, peers, logs);
        self.reach_owners();
        Ok(())
    }
}
