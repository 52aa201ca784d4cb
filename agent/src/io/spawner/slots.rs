//! The slots: one for each service, with at most one live instance in it.

use std::collections::BTreeMap;
use std::time::Duration;

use homeostat_common::ids::{Instance, ServiceId};
use rustix::process::{Pid, PidfdFlags};

use super::kin::{self, Group, Kin, Stat};
use super::marks::{self, Marked, Member};
use super::process::Live;
use super::protocol::{Exit, SlotView};
use super::state::{Entry, State};
use super::users;
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

/// Takes over what `entries` say and `/proc` confirms; a slot for everything, and the groups
/// of those that died while nobody was their parent.
pub(super) fn adopt(config: &Config, entries: Vec<Entry>) -> (BTreeMap<ServiceId, Slot>, Gone) {
    let mut slots = BTreeMap::new();
    for spec in &config.services {
        slot_of(&mut slots, &spec.id).spec = Some(spec.clone());
    }
    let mut gone = Vec::new();
    for entry in entries {
        let (leader, start, session) = (entry.pid, entry.start, entry.session);
        let owned = entry.handle.is_some();
        if let Some(live) = Live::adopt(entry.instance, leader, start, entry.handle) {
            slot_of(&mut slots, &entry.service).live = Some(live);
        } else if let (false, Ok(leader)) = (owned, i32::try_from(leader)) {
            let group = Group {
                leader,
                start,
                session,
                user: None,
            };
            gone.push((entry.service, group));
        }
    }
    (slots, gone)
}

/// Whose main process has ended, and the group that it led.
pub(super) type Gone = Vec<(ServiceId, Group)>;

/// Finds what is of a service and of no present instance. What was started after the last
/// record takes its slot, and is returned: its spawner died before it could say so, and to
/// start another would be to do it twice. It is known by the marks of all its processes,
/// which must lead up to the same main process. The rest, left behind by one that died unseen,
/// is ended.
pub(super) fn settle_unrecorded(
    name: &str,
    slots: &mut BTreeMap<ServiceId, Slot>,
    gone: &Gone,
    state: &mut State,
) -> Vec<ServiceId> {
    let users = users_of(slots);
    let marked = marks::all(name, |service, user| users.of(service).contains(&user));
    let (mut marked, kin) = match marked.and_then(|marked| Ok((marked, Kin::look()?))) {
        Ok(looked) => looked,
        Err(error) => {
            tracing::error!(%error, "cannot look for processes of a former spawner");
            return Vec::new();
        }
    };
    marked.retain(|one| {
        let (pid, instance) = (one.member.pid.as_raw_nonzero(), one.instance);
        let minted = state.minted(instance);
        if !minted {
            tracing::warn!(pid, %instance, "carries a mark that was never given; left alone");
        }
        minted
    });
    let above = kin.line_of(rustix::process::getpid().as_raw_nonzero().get());
    let session = state.former_session();
    let main_of = |one: &Marked| {
        let pid = one.member.pid.as_raw_nonzero().get();
        kin.main_of(pid, session?, &above)
    };
    let recorded = state.last();
    let mut found = Vec::new();
    for one in marked.iter().filter(|one| one.instance > recorded) {
        let (service, instance) = (&one.service, one.instance);
        let Some((pid, stat)) = main_of(one) else {
            continue;
        };
        // Only where it is certain which of its processes is the main one.
        let mut alike = marked
            .iter()
            .filter(|other| other.service == *service && other.instance > recorded);
        let certain =
            alike.all(|other| other.instance == instance && main_of(other) == Some((pid, stat)));
        let free = !slots.values().any(|slot| is_main(slot, pid));
        if let Some(slot) = slots.get_mut(service)
            && slot.live.is_none()
            && matches!(&slot.spec, Some(spec) if matches!(spec.process, Process::Command(_)))
            && certain
            && free
            && let Some(live) = Live::found(instance, pid, stat.start, |user| {
                users.of(service).contains(&user)
            })
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
        if live.is_some_and(|live| live.instance == one.instance) {
            continue;
        }
        let (service, instance) = (&one.service, one.instance);
        tracing::warn!(%service, %instance, "ends a process of a former life");
        // Its main process may have lost its mark, and the group of that one, too.
        if let Some((pid, stat)) = main_of(&one)
            && !slots.values().any(|slot| is_main(slot, pid))
        {
            let may = |user: u32| users.of(service).contains(&user);
            former.extend(whole_group(&kin, pid, &stat, may));
        }
        former.push(one.member);
    }
    for (service, group) in gone {
        for user in users.of(service) {
            let group = Group {
                user: Some(*user),
                ..*group
            };
            let members = group.members(&kin);
            if !members.is_empty() {
                tracing::warn!(%service, "ends what a former life left in its process group");
            }
            former.extend(members);
        }
    }
    marks::end(&former, FORMER_GONE_MAX);
    found
}

fn is_main(slot: &Slot, pid: i32) -> bool {
    let live = slot.live.as_ref();
    live.is_some_and(|live| live.pid.as_raw_nonzero().get() == pid)
}

/// The main process `pid` of a former life, if it `may` be of the service, and its group.
fn whole_group(kin: &Kin, pid: i32, stat: &Stat, may: impl Fn(u32) -> bool) -> Vec<Member> {
    let main = Pid::from_raw(pid).and_then(|pid| {
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let user = kin::user(pid).filter(|user| may(*user))?;
        (Stat::of(pid)?.start == stat.start).then_some((Member { pid, pidfd }, user))
    });
    let Some((main, user)) = main else {
        return Vec::new();
    };
    let group = Group {
        leader: pid,
        start: stat.start,
        session: stat.session,
        user: Some(user),
    };
    let mut all = group.members(kin);
    all.push(main);
    all
}

/// Who services run as.
struct Users {
    known: BTreeMap<ServiceId, Vec<u32>>,
    /// For those that the file does not name any more.
    own: [u32; 1],
}

impl Users {
    fn of(&self, service: &ServiceId) -> &[u32] {
        self.known.get(service).map_or(&self.own, Vec::as_slice)
    }
}

/// As the file says, and as a present life does, should the file have changed.
fn users_of(slots: &BTreeMap<ServiceId, Slot>) -> Users {
    let own = rustix::process::geteuid().as_raw();
    let known = slots.iter().map(|(service, slot)| {
        let name = slot.spec.as_ref().and_then(|spec| spec.user.as_deref());
        let said = name.map_or(Some(own), |name| Some(users::find(name).ok()?.uid));
        let present = slot.live.as_ref().and_then(|live| live.user);
        let mut users: Vec<u32> = said.into_iter().chain(present).collect();
        users.dedup();
        (service.clone(), users)
    });
    Users {
        known: known.collect(),
        own: [own],
    }
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
            session: live.session,
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
