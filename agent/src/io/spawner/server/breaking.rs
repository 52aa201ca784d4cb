//! The spawner's part in faults on purpose: which service, and when they are over.
//!
//! In: requests of the loop, deaths, the time. Out: the answer, and word of an end that nobody
//! asked for. What is done and how it is undone is in `chaos`.

use std::time::Duration;

use homeostat_common::ids::ServiceId;
use homeostat_common::units::Millis;

use super::Server;
use crate::chaos::Injection;
use crate::io::local::datagram::reason;
use crate::io::spawner::chaos::{Room, View};
use crate::io::spawner::protocol::Message;

impl Server {
    pub(super) fn inject(
        &mut self,
        service: &ServiceId,
        injection: Injection,
        span: Millis,
    ) -> Message {
        self.bury(service);
        let refused = |why: String| Message::NotBroken { why: reason(why) };
        let Some(slot) = self.slots.get(service) else {
            return refused("it is not configured".into());
        };
        let (groups, node) = (&self.groups, &self.config.node.id);
        let room = Room {
            free: groups.free(node, service),
            join: &|pid| groups.join(node, service, pid),
        };
        if let Err(why) = self.chaos.begin(slot, injection, span, &room) {
            return refused(why);
        }
        broken(self.chaos.view().unwrap_or(View {
            service: service.clone(),
            injection,
            left: Millis(0),
        }))
    }

    pub(super) fn mend(&mut self) -> Message {
        match self.chaos.end("it was asked for") {
            Some((_, why)) => Message::Mended { why: reason(why) },
            None => Message::NotBroken {
                why: "no fault on purpose is in force".into(),
            },
        }
    }

    /// Ends a fault on purpose whose time has come.
    pub(super) fn tend_chaos(&mut self) {
        let concerned = |service: &ServiceId| {
            let live = self.slots.get(service).and_then(|slot| slot.live.as_ref());
            live.is_some_and(|live| self.chaos.concerns(live))
        };
        let Some(why) = self.chaos.over(concerned) else {
            return;
        };
        if let Some((_, why)) = self.chaos.end(why) {
            self.tell(&Message::Mended { why: reason(why) }, None);
        }
    }

    /// Tells a new loop what is in force.
    pub(super) fn tell_chaos(&mut self) {
        if let Some(view) = self.chaos.view() {
            self.tell(&broken(view), None);
        }
    }

    /// How long to sleep at most.
    pub(super) fn until_next(&self) -> Option<Duration> {
        let logs = self.until_logs();
        logs.into_iter().chain(self.chaos.due()).min()
    }
}

fn broken(view: View) -> Message {
    Message::Broken {
        service: view.service,
        injection: view.injection,
        left: view.left,
    }
}
