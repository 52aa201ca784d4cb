//! The slots: one for each service, with at most one live instance in it.

use std::collections::BTreeMap;
use std::time::Duration;

use homeostat_common::ids::{Instance, ServiceId};

use super::marks;
use super::process::Live;
use super::protocol::{Exit, SlotView};
use super::state::{Entry, State};
use crate::config::{Config, Service};

/// How long a new spawner waits for the processes it had to end; they have
/// nothing left to do but to exit.
const FORMER_GONE_MAX: Duration = Duration::from_secs(2);

/// One service, whether it runs or not.
#[derive(Debug)]
pub(super) struct Slot {
    /// `None` when a reload dropped it while it ran.
    pub(super) spec: Option<Service>,
    pub(super) live: Option<Live>,
    pub(super) last_exit: Option<(Instance, Exit)>,
    /// Its owner was asked to start it and has not answered.
    pub(super) starting: bool,
}

/// Takes over what `entries` say and `/proc` confirms; a slot for everything.
pub(super) fn adopt(config: &Config, entries: Vec<Entry>) -> BTreeMap<ServiceId, Slot> {
    let mut slots = BTreeMap::new();
    for spec in &config.services {
        slot_of(&mut slots, &spec.id).spec = Some(spec.clone());
    }
    for entry in entries {
        if let Some(live) = Live::adopt(entry.instance, entry.pid, entry.start, entry.handle) {
            slot_of(&mut slots, &entry.service).live = Some(live);
        }
    }
    slots
}

/// Ends whatever carries a mark of this spawner and is of no present instance:
/// started and not recorded, or left behind by one that died unseen.
pub(super) fn end_unrecorded(name: &str, slots: &BTreeMap<ServiceId, Slot>, state: &mut State) {
    let marked = match marks::all(name) {
        Ok(marked) => marked,
        Err(error) => {
            tracing::error!(%error, "cannot look for processes of a former spawner");
            return;
        }
    };
    let mut former = Vec::new();
    for marked in marked {
        state.skip(marked.instance);
        let live = slots.get(&marked.service);
        let live = live.and_then(|slot| slot.live.as_ref());
        if live.is_none_or(|live| live.instance != marked.instance) {
            let (service, instance) = (&marked.service, marked.instance);
            tracing::warn!(%service, %instance, "ends a process of a former life");
            former.push(marked);
        }
    }
    marks::end(&former, FORMER_GONE_MAX);
}

pub(super) fn slot_of<'s>(
    slots: &'s mut BTreeMap<ServiceId, Slot>,
    service: &ServiceId,
) -> &'s mut Slot {
    slots.entry(service.clone()).or_insert(Slot {
        spec: None,
        live: None,
        last_exit: None,
        starting: false,
    })
}

pub(super) fn entries(slots: &BTreeMap<ServiceId, Slot>) -> impl Iterator<Item = Entry> {
    slots.iter().filter_map(|(service, slot)| {
        let live = slot.live.as_ref()?;
        Some(Entry {
            service: service.clone(),
            instance: live.instance,
            pid: live.pid(),
            start: live.start,
            handle: live.handle().cloned(),
        })
    })
}

/// The service, if it runs and writes a log.
pub(super) fn logged(slot: &Slot) -> Option<&Service> {
    slot.live.as_ref()?;
    slot.spec.as_ref().filter(|spec| spec.log)
}

/// A slot as the loop sees it.
pub(super) fn view((service, slot): (&ServiceId, &Slot)) -> SlotView {
    SlotView {
        service: service.clone(),
        live: slot.live.as_ref().map(|live| (live.instance, live.pid())),
        last_exit: slot.last_exit,
    }
}
