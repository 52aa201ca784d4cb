//! The spawner's part for services that an owner runs: it gives orders, and takes
//! what comes back into the slots. See `owner` for who they are.
//!
//! A slot is freed at the word of the kernel, as for any service; how the life ended
//! is asked after that, so `Exited` comes a little later. Whoever starts, stops or
//! restarts a unit or container beside us is only noticed by the death of a process:
//! the loop then asks for a start, and is given what runs by then.

use std::time::{Duration, Instant};

use homeostat_common::ids::{ServiceId, Token};

use super::Server;
use crate::config::Process;
use crate::io::keeper::chain;
use crate::io::local::datagram::reason;
use crate::io::spawner::owner::{Found, Handle, Order, OwnerError, Owners, Report};
use crate::io::spawner::process::Live;
use crate::io::spawner::protocol::{Exit, Message, ProcessAct, Refusal, StopSignal};
use crate::io::spawner::slots::{Slot, entries};

/// How long a new spawner waits to be told what runs, before it greets a loop; what
/// is told later is handed on then.
const FIND_MAX: Duration = Duration::from_secs(1);

impl Server {
    /// Starts the thread that speaks with owners, as soon as a service needs it.
    pub(super) fn reach_owners(&mut self) {
        let owned = |slot: &Slot| {
            let live = slot.live.as_ref().and_then(Live::handle).is_some();
            live || slot
                .spec
                .as_ref()
                .is_some_and(|spec| is_owned(&spec.process))
        };
        if self.owners.is_some() || !self.slots.values().any(owned) {
            return;
        }
        match Owners::start() {
            Ok(owners) => self.owners = Some(owners),
            Err(error) => tracing::error!(error = chain(&OwnerError::Thread(error)), "owners"),
        }
    }

    /// Finds out which units and containers run already. What the former spawner
    /// recorded is known; this is for the rest.
    pub(super) fn find_owned(&mut self) {
        self.reach_owners();
        let mut asked = 0;
        for (service, slot) in &self.slots {
            if slot.live.is_none()
                && let Some(spec) = slot.spec.as_ref().filter(|spec| is_owned(&spec.process))
                && self
                    .try_order(service, Order::Find(spec.process.clone()))
                    .is_ok()
            {
                asked += 1;
            }
        }
        let begun = Instant::now();
        while asked > 0
            && let rest = FIND_MAX.saturating_sub(begun.elapsed())
            && let Some((service, report)) = self
                .owners
                .as_mut()
                .and_then(|owners| owners.report_within(rest))
        {
            asked -= 1;
            self.heard(&service, report);
        }
    }

    pub(super) fn start_owned(&mut self, service: &ServiceId) -> Result<(), Refusal> {
        let slot = self.slots.get(service).ok_or(Refusal::Unknown)?;
        if slot.starting {
            // Asked twice, perhaps by two loops: the answer is on its way.
            return Ok(());
        }
        let spec = slot.spec.as_ref().ok_or(Refusal::Unknown)?;
        let limit = Duration::from_millis(spec.start_timeout.0);
        let order = Order::Start(spec.process.clone(), limit);
        self.try_order(service, order).map_err(|error| {
            let text = reason(chain(&error));
            tracing::warn!(%service, text, "cannot start");
            Refusal::Spawn { text }
        })?;
        if let Some(slot) = self.slots.get_mut(service) {
            slot.starting = true;
        }
        Ok(())
    }

    /// Signals `live`, by itself or through its owner.
    pub(super) fn signal(&self, service: &ServiceId, live: &Live, signal: StopSignal) -> bool {
        match live.handle() {
            None => live.signal(signal, &self.name),
            Some(_) if live.ended() => false,
            Some(handle) => {
                let order = Order::Signal(handle.clone(), signal);
                self.try_order(service, order).is_ok()
            }
        }
    }

    /// Has its owner do something to a life; `None` when that is on its way.
    pub(super) fn act_owned(
        &self,
        token: Token,
        service: &ServiceId,
        handle: &Handle,
        act: ProcessAct,
    ) -> Option<Result<(), String>> {
        let order = Order::Act(handle.clone(), token, act);
        let refused = self.try_order(service, order).err()?;
        Some(Err(chain(&refused)))
    }

    /// Asks how `live` ended, unless the kernel has said so.
    pub(super) fn ask_how_it_ended(
        &mut self,
        service: &ServiceId,
        live: &Live,
        handle: Handle,
        status: Exit,
        counted: bool,
    ) {
        let order = Order::End(handle, live.instance, live.pid, counted);
        if status != Exit::Unknown || self.try_order(service, order).is_err() {
            self.tell_end(service, live.instance, status.or_for_memory(counted));
        }
    }

    pub(super) fn hear_owners(&mut self) {
        while let Some((service, report)) = self.owners.as_mut().and_then(Owners::report) {
            self.heard(&service, report);
        }
    }

    /// Gives an order whose failure shows by itself.
    pub(super) fn order(&self, service: &ServiceId, order: Order) {
        if let Err(error) = self.try_order(service, order) {
            tracing::warn!(%service, error = chain(&error), "order");
        }
    }

    fn try_order(&self, service: &ServiceId, order: Order) -> Result<(), OwnerError> {
        let owners = self.owners.as_ref().ok_or(OwnerError::Busy)?;
        owners.order(service, order)
    }

    fn heard(&mut self, service: &ServiceId, report: Report) {
        match report {
            Report::Found(Ok(Some(found))) => self.take_in(service, found),
            Report::Found(Ok(None)) => {}
            Report::Found(Err(error)) => {
                tracing::warn!(%service, error = chain(&error), "cannot find out whether it runs");
            }
            Report::Started(started) => {
                if let Some(slot) = self.slots.get_mut(service) {
                    slot.starting = false;
                }
                match started {
                    Ok(found) => self.take_in(service, found),
                    Err(error) => {
                        let text = reason(chain(&error));
                        tracing::warn!(%service, text, "cannot start");
                        let service = service.clone();
                        let why = Refusal::Spawn { text };
                        self.tell(&Message::Refused { service, why }, None);
                    }
                }
            }
            Report::Ended(instance, status) => self.tell_end(service, instance, status),
            Report::Acted(token, done) => {
                let failed = done.err().map(|error| reason(chain(&error)));
                self.tell(&Message::Acted { token, failed }, None);
            }
            Report::Limited(instance, limited) => {
                let not_enforced = limited.err().map(|error| reason(chain(&error)));
                let service = service.clone();
                let message = Message::MemoryLimit {
                    service,
                    instance,
                    not_enforced,
                };
                self.tell(&message, None);
            }
        }
    }

    /// Takes what runs into its slot: as the present life if it is that one, as a
    /// new one if not.
    fn take_in(&mut self, service: &ServiceId, found: Found) {
        self.bury(service);
        let Some(slot) = self.slots.get_mut(service) else {
            tracing::warn!(%service, "runs, and is not in the configuration any more");
            return;
        };
        if let Some(live) = &slot.live {
            let (instance, pid) = (live.instance, live.pid());
            if (live.pid, live.start) == (found.pid, found.start) {
                let service = service.clone();
                let started = Message::Started {
                    service: service.clone(),
                    instance,
                    pid,
                };
                return self.tell(&started, Some(&service));
            }
            // Its owner has made another its main process while the former lives on.
            slot.live = None;
            self.tell_end(service, instance, Exit::Unknown);
        }
        let instance = self.state.mint(entries(&self.slots));
        self.occupy(service, Live::of(found, instance));
    }
}

fn is_owned(process: &Process) -> bool {
    !matches!(process, Process::Command(_))
}
