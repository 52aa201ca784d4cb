//! The spawner's part in what is done to a life that goes on, and to the node.
//!
//! In: a request with a token. Out: `Acted` with the same token, at once or when
//! the thread of `acts`, or the owner of the service, is done with it. What a request
//! may name stands in the configuration file; a loop that went astray gets no more.

use homeostat_common::ids::{Instance, ServiceId, Token};

use super::Server;
use crate::io::local::datagram::reason;
use crate::io::spawner::acts::{Acts, Deed};
use crate::io::spawner::cpu;
use crate::io::spawner::protocol::{Message, NodeAct, ProcessAct};

impl Server {
    /// Does something to a life that goes on; `None` when its owner was asked to.
    pub(super) fn act(
        &self,
        token: Token,
        service: &ServiceId,
        instance: Instance,
        act: ProcessAct,
    ) -> Option<Result<(), String>> {
        let live = self.slots.get(service).and_then(|slot| slot.live.as_ref());
        let Some(live) = live.filter(|live| live.instance == instance) else {
            return Some(Err("that life is over".into()));
        };
        if let Some(handle) = live.handle() {
            return self.act_owned(token, service, handle, act);
        }
        let stopped = match act {
            ProcessAct::Freeze => live.halt(true, &self.name),
            ProcessAct::Thaw => live.halt(false, &self.name),
            ProcessAct::LimitCpu(share) => {
                return Some(cpu::limit(&self.config.node.id, service, live.pid, share));
            }
        };
        Some(stopped.then_some(()).ok_or_else(|| "it has ended".into()))
    }

    /// Has something done to the node; the answer comes when it is done. What the
    /// loop may ask for is what the configuration file says.
    pub(super) fn act_on_node(&mut self, token: Token, act: NodeAct) -> Result<(), String> {
        let service = |id| self.config.service(id).ok_or("there is no such service");
        let deed = match act {
            NodeAct::SyncClock if self.config.clock.servers.is_empty() => {
                return Err("no time servers are configured".into());
            }
            NodeAct::SyncClock => Deed::SyncClock(self.config.clock.servers.clone()),
            NodeAct::Uplink(Some(to)) if !self.config.node.uplinks.contains(&to) => {
                return Err(format!("{to} is no uplink of the configuration"));
            }
            NodeAct::Uplink(to) => Deed::Uplink(to),
            NodeAct::Ports {
                service: id,
                from,
                blocked: true,
            } => {
                let service = service(&id)?;
                if !service.blockable.iter().any(|net| net.covers(&from)) {
                    return Err(format!("{from} is not blockable for {id}"));
                }
                Deed::Block(id, from, service.ports.clone())
            }
            // Whatever the configuration says by now: it gives back what was taken.
            NodeAct::Ports {
                service,
                from,
                blocked: false,
            } => Deed::Unblock(service, from),
            NodeAct::Remount { service: id } => {
                let data = service(&id)?.data.as_ref().filter(|data| data.remount);
                let data = data.ok_or_else(|| format!("{id} does not allow it"))?;
                Deed::Remount(data.path.clone())
            }
        };
        if self.acts.is_none() {
            self.acts = Some(Acts::start().map_err(|error| error.to_string())?);
        }
        match &self.acts {
            Some(acts) => acts.order(token, deed),
            None => Ok(()),
        }
    }

    /// Tells the loop what was done to the node.
    pub(super) fn tell_acts(&mut self) {
        let answers = self.acts.as_ref().map(Acts::answers).unwrap_or_default();
        for (token, result) in answers {
            let failed = result.err().map(reason);
            self.tell(&Message::Acted { token, failed }, None);
        }
    }
}
