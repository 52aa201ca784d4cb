//! The spawner's part when a life has ended, or has to.
//!
//! In: that something died, or that the spawner is to take its services along. Out:
//! a free slot, `Exited`, and nothing left of the former life that could hold a port.

use std::time::{Duration, Instant};

use homeostat_common::ids::{Instance, ServiceId};
use rustix::process::Pid;

use super::Server;
use crate::io::spawner::process::{self, Live};
use crate::io::spawner::protocol::{Exit, Message, StopSignal};
use crate::io::spawner::slots::{Slot, entries};
use crate::io::spawner::{marks, socket_path};

/// How long to wait for what a dead instance left behind; it usually is gone at
/// the first look, but a killed process needs the processor to exit.
const REST_GONE_MAX: Duration = Duration::from_millis(200);
/// How long killed services may take to go when the spawner ends with them.
const KILL_WAIT_MAX: Duration = Duration::from_secs(2);

impl Server {
    pub(super) fn bury_all(&mut self) {
        let services: Vec<_> = self.slots.keys().cloned().collect();
        for service in &services {
            self.bury(service);
        }
        process::reap_orphans(&self.children());
    }

    /// If the instance of `service` has ended: ends what it left behind, frees
    /// the slot and tells the loop.
    pub(super) fn bury(&mut self, service: &ServiceId) {
        let Some(slot) = self.slots.get_mut(service) else {
            return;
        };
        let Some(status) = slot.live.as_ref().and_then(Live::bury) else {
            return;
        };
        let Some(live) = slot.live.take() else { return };
        if slot.spec.is_none() {
            self.slots.remove(service);
        }
        self.unrecorded = true;
        self.ended.push(service.clone());
        // An engine removes the group of what has ended within moments.
        let counted = live.counted();
        let named = self.kernel.killed(live.pid.as_raw_nonzero().get());
        let status = status.or_for_memory(named);
        if let Some(handle) = live.handle() {
            self.ask_how_it_ended(service, &live, handle.clone(), status, counted);
        } else {
            self.end_rest(service, &live);
            self.tell_end(service, live.instance, status.or_for_memory(counted));
        }
    }

    pub(super) fn tell_end(&mut self, service: &ServiceId, instance: Instance, status: Exit) {
        if let Some(slot) = self.slots.get_mut(service) {
            slot.last_exit = Some((instance, status));
        }
        tracing::info!(%service, %instance, ?status, "ended");
        let service = service.clone();
        let ended = Message::Exited {
            service,
            instance,
            status,
        };
        self.tell(&ended, None);
    }

    /// Ends what the dead `live` left behind and waits until that is gone, as
    /// it may hold the ports that the next instance needs.
    pub(super) fn end_rest(&self, service: &ServiceId, live: &Live) {
        let begun = Instant::now();
        let children = self.children();
        let rest: Vec<_> = if live.is_child() {
            let mut marked = marks::children(&self.name, &children);
            marked.retain(|one| one.instance == live.instance && one.service == *service);
            marked.into_iter().map(|marked| marked.member).collect()
        } else {
            // They went to the parent of the spawner that started them.
            live.others(&self.name)
        };
        marks::end(&rest, REST_GONE_MAX);
        // The group was killed before its leader was reaped.
        while live.is_child()
            && rustix::process::test_kill_process_group(live.pid).is_ok()
            && begun.elapsed() < REST_GONE_MAX
        {
            process::reap_orphans(&children);
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Pids of the services that are children.
    pub(super) fn children(&self) -> Vec<Pid> {
        let live = self.slots.values().filter_map(|slot| slot.live.as_ref());
        live.filter(|live| live.is_child())
            .map(|live| live.pid)
            .collect()
    }

    /// Ends the spawner, with the services or without.
    pub(super) fn leave(&mut self, stop_services: bool) {
        self.chaos.end("the spawner ends");
        if stop_services {
            // The loop would take these ends for somebody else's doing.
            self.connection = None;
            self.stop_all();
            self.after_round();
        }
        self.state.save(entries(&self.slots));
        // Left behind it would only be replaced by the next spawner.
        let _ = std::fs::remove_file(socket_path(&self.config.node.run_dir));
    }

    pub(super) fn stop_all(&mut self) {
        let begun = Instant::now();
        let mut killed = false;
        self.signal_all(StopSignal::Term);
        let grace = |slot: &Slot| slot.spec.as_ref().map_or(0, |spec| spec.stop_grace.0);
        let grace = Duration::from_millis(self.slots.values().map(grace).max().unwrap_or(0));
        loop {
            self.bury_all();
            let over = begun.elapsed();
            if self.slots.values().all(|slot| slot.live.is_none()) || over > grace + KILL_WAIT_MAX {
                return;
            }
            if over >= grace && !killed {
                killed = true;
                self.signal_all(StopSignal::Kill);
            }
            // A second SIGTERM changes nothing, so only deaths cut this short.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(super) fn signal_all(&self, signal: StopSignal) {
        for (service, slot) in &self.slots {
            if let Some(live) = &slot.live {
                self.signal(service, live, signal);
            }
        }
    }
}
