//! The slots: one for each service, with at most one live instance in it.

use std::collections::BTreeMap;
use std::time::Duration;

use homeostat_common::ids::{Instance, ServiceId};

use super::marks;
use super::process::Live;
use super::protocol::{Exit, SlotView};
use super::state::{Entry, State};
use crate::config::{Config, Process, Service};

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

/// Finds whatever carries a mark of this spawner and is of no present instance. What was
/// started after the last record takes its slot, and is returned: its spawner died before it
/// could say so, and to start another would be to do it twice. The rest, left behind by one
/// that died unseen, is ended.
pub(super) fn settle_unrecorded(
    name: &str,
    slots: &mut BTreeMap<ServiceId, Slot>,
    state: &mut State,
) -> Vec<ServiceId> {
    let marked = match marks::all(name) {
        Ok(marked) => marked,
        Err(error) => {
            tracing::error!(%error, "cannot look for processes of a former spawner");
            return Vec::new();
        }
    };
    let recorded = state.last();
    let mut found = Vec::new();
    for one in marked.iter().filter(|one| one.instance > recorded) {
        let (service, instance) = (&one.service, one.instance);
        let mut alike = marked.iter().filter(|other| other.service == *service);
        // Only where it is certain which of its processes is the main one.
        let alone = alike.all(|other| other.pid == one.pid || !other.leads());
        if let Some(slot) = slots.get_mut(service)
            && slot.live.is_none()
            && matches!(&slot.spec, Some(spec) if matches!(spec.process, Process::Command(_)))
            && one.leads()
            && alone
            && let Some(live) = Live::found(one)
        {
            tracing::warn!(%service, %instance, "takes over a start that was not recorded");
            slot.live = Some(live);
            found.push(service.clone());
        }
    }
    let mut former = Vec::new();
    for one in marked {
        state.skip(one.instance);
        let live = slots.get(&one.service);
        let live = live.and_then(|slot| slot.live.as_ref());
        if live.is_none_or(|live| live.instance != one.instance) {
            let (service, instance) = (&one.service, one.instance);
            tracing::warn!(%service, %instance, "ends a process of a former life");
            former.push(one);
        }
    }
    marks::end(&former, FORMER_GONE_MAX);
    found
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
