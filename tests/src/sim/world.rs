//! The watched side of a simulated node: services that start, answer, break
//! and die, and the model files they load. Knows nothing of the agent.

use std::collections::{BTreeMap, BTreeSet};

use homeostat_agent::config::{Forward, ModelSlot, Reload, Service};
use homeostat_agent::service::{SlotFound, SlotName, Version};
use homeostat_common::anomaly::Exit;
use homeostat_common::ids::{Instance, ModelVersion, RouteId, ServiceId};
use homeostat_common::observation::Part;
use homeostat_common::units::Micros;

/// What every slot holds at first.
pub(super) const FIRST: Version = ModelVersion([0xAA; 8]);

/// A good new version.
pub(super) const SECOND: Version = ModelVersion([0xBB; 8]);

/// Anything else is no good.
const GARBAGE: Version = ModelVersion([0xEE; 8]);

/// Good versions that are kept.
const GOOD_MAX: usize = 3;

/// A service just started, in bytes.
const RESIDENT: f64 = 40e6;

/// What a service has open once it runs, and what it may have open.
const DESCRIPTORS: u64 = 20;
pub(super) const DESCRIPTORS_MAX: u64 = 256;

/// One process.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) instance: Instance,
    /// It listens from then on.
    pub(super) ready: Micros,
    /// Answers nothing until then.
    pub(super) blocked: Option<Micros>,
    /// Wants to run until then, and cannot.
    pub(super) starved: Option<Micros>,
    /// Its loaded model is not the verified one.
    pub(super) garbage: bool,
    /// Leaks so many bytes each second since then.
    pub(super) leak: Option<(f64, Micros)>,
    /// Opens so many descriptors each second since then.
    pub(super) opens: Option<(f64, Micros)>,
    /// Somebody has sent SIGSTOP.
    pub(super) stopped: bool,
    /// Fills up by so many bytes, with this time constant in seconds, since then.
    pub(super) warms: Option<(f64, f64, Micros)>,
    /// Its first byte takes so many microseconds.
    pub(super) slow: Option<u32>,
    /// Each of its answers, and of who needs it, takes so many microseconds more.
    pub(super) drag: u32,
    /// It uses so many cores.
    pub(super) hog: Option<f32>,
    /// What its gauge says, and whether its metrics move.
    pub(super) gauge: (f64, bool),
    /// A fault was put into this life; healing it is right.
    pub(super) faulty: bool,
}

/// One service, its slot and its model file.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) life: Option<Life>,
    pub(super) last: Option<(Instance, Exit)>,
    needs: Vec<ServiceId>,
    /// What it needs elsewhere.
    elsewhere: Vec<Part>,
    /// Routes that it calls through.
    calls: Vec<RouteId>,
    pub(super) slots: BTreeMap<SlotName, SlotFiles>,
    /// It notices another model by itself.
    watches: bool,
    /// The command cannot be run.
    pub(super) bad_command: bool,
    /// So many of the next lives die right after their start.
    pub(super) short_lives: u32,
    /// Takes so long to listen; `None` for the usual.
    pub(super) slow_start: Option<u64>,
    /// TERM is ignored.
    pub(super) stubborn: bool,
    /// Bytes in its data folder, of which all but the first may be deleted.
    pub(super) data: (u64, u64),
    /// So many bytes that may be deleted come into it each second, since then.
    pub(super) grows: Option<(f64, Micros)>,
    /// Each life leaks so many bytes each second.
    pub(super) leaks: Option<f64>,
    /// Nothing needs to run here.
    pub(super) standby: bool,
    /// A process of somebody else holds the port and answers.
    pub(super) rival: bool,
}

impl Place {
    fn model_is_bad(&self) -> bool {
        let bad = |slot: &SlotFiles| slot.present == GARBAGE;
        self.slots.get(&SlotName::Model).is_some_and(bad)
    }

    /// With it no life lasts.
    pub(super) fn config_is_bad(&self) -> bool {
        let bad = |slot: &SlotFiles| slot.present == GARBAGE;
        self.slots.get(&SlotName::Config).is_some_and(bad)
    }
}

/// A slot and its copies.
#[derive(Debug, Clone)]
pub(super) struct SlotFiles {
    pub(super) present: Version,
    named: Version,
    good: Vec<Version>,
    staged: Option<Version>,
    /// What stood there before a switch, until the plan has ended.
    pub(super) before: Option<Version>,
}

impl SlotFiles {
    fn new() -> Self {
        Self {
            present: FIRST,
            named: FIRST,
            good: vec![FIRST],
            staged: None,
            before: None,
        }
    }

    pub(super) fn found(&self) -> SlotFound {
        SlotFound {
            present: Some(self.present),
            named: Some(self.named),
            good: self.good.clone(),
            staged: self.staged,
        }
    }

    pub(super) fn switch(&mut self, to: Version) {
        // What was there first is kept: a second switch must not lose it.
        self.before = self.before.or(Some(self.present));
        self.present = to;
        self.named = to;
        self.staged = self.staged.filter(|staged| *staged != to);
    }

    pub(super) fn restore(&mut self) {
        if let Some(before) = self.before.take() {
            self.present = before;
            self.named = before;
        }
    }

    pub(super) fn keep(&mut self, version: Version) {
        if version != self.present {
            return;
        }
        self.named = self.present;
        self.good.retain(|version| *version != self.present);
        self.good.insert(0, self.present);
        self.good.truncate(GOOD_MAX);
    }
}

/// How a process reacts to a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    Right,
    Wrong,
    Refused,
    /// Nothing before this time, which may be never.
    Silent(Micros),
}

/// All services of a node.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) places: BTreeMap<ServiceId, Place>,
    /// Dependencies elsewhere that refuse.
    pub(super) refusing: BTreeSet<Part>,
    /// Who is behind each route.
    behind: BTreeMap<RouteId, Vec<ServiceId>>,
    minted: u64,
}

impl World {
    pub(super) fn add(&mut self, service: &Service) {
        let configured = [
            service.model.is_some().then_some(SlotName::Model),
            service.config.is_some().then_some(SlotName::Config),
        ];
        let slots = configured.into_iter().flatten();
        let watches = |slot: &ModelSlot| slot.reload == Reload::Watch;
        let place = Place {
            needs: service.depends_on.clone(),
            elsewhere: service.needs.clone(),
            calls: service.calls.clone(),
            standby: service.standby,
            slots: slots.map(|name| (name, SlotFiles::new())).collect(),
            watches: service.model.as_ref().is_some_and(watches),
            ..Place::default()
        };
        self.places.insert(service.id.clone(), place);
    }

    pub(super) fn connect(&mut self, forward: &Forward) {
        let behind = forward.backends.iter();
        let behind = behind.filter_map(|backend| backend.service.clone());
        self.behind.insert(forward.id.clone(), behind.collect());
    }

    pub(super) fn life(&self, id: &ServiceId) -> Option<&Life> {
        self.places.get(id).and_then(|place| place.life.as_ref())
    }

    /// Forks a process; the slot must be free.
    pub(super) fn start(&mut self, id: &ServiceId, now: Micros, delay_ms: u64) -> Option<Instance> {
        let place = self.places.get_mut(id)?;
        assert!(place.life.is_none(), "two lives of {id} at once");
        self.minted += 1;
        let instance = Instance(self.minted);
        let slow = place.slow_start.unwrap_or(delay_ms);
        let garbage = place.model_is_bad();
        place.life = Some(Life {
            instance,
            ready: Micros(now.0 + slow * 1000),
            blocked: None,
            starved: None,
            garbage,
            opens: None,
            stopped: false,
            leak: place.leaks.map(|rate| (rate, now)),
            warms: None,
            slow: None,
            drag: 0,
            hog: None,
            gauge: (0.0, true),
            faulty: garbage || place.slow_start.is_some() || place.leaks.is_some(),
        });
        Some(instance)
    }

    /// Ends a life, if it is still the present one.
    pub(super) fn end(&mut self, id: &ServiceId, instance: Instance, exit: Exit) -> bool {
        let Some(place) = self.places.get_mut(id) else {
            return false;
        };
        let present = place.life.as_ref().map(|life| life.instance) == Some(instance);
        if present {
            place.life = None;
            place.last = Some((instance, exit));
        }
        present
    }

    /// Everything loses its power.
    pub(super) fn blackout(&mut self) {
        for place in self.places.values_mut() {
            place.life = None;
            place.last = None;
        }
    }

    pub(super) fn slot(&mut self, id: &ServiceId, name: SlotName) -> Option<&mut SlotFiles> {
        self.places.get_mut(id)?.slots.get_mut(&name)
    }

    /// Overwrites the model where it stands.
    pub(super) fn corrupt(&mut self, id: &ServiceId) {
        if let Some(slot) = self.slot(id, SlotName::Model) {
            slot.present = GARBAGE;
        }
        self.loaded(id);
    }

    /// Puts another version in place by hand.
    pub(super) fn replace(&mut self, id: &ServiceId, name: SlotName) {
        if let Some(slot) = self.slot(id, name) {
            slot.present = GARBAGE;
            slot.named = GARBAGE;
        }
        self.loaded(id);
    }

    /// Has a good new model at hand.
    pub(super) fn stage(&mut self, id: &ServiceId) {
        if let Some(slot) = self.slot(id, SlotName::Model) {
            slot.staged = Some(SECOND);
        }
    }

    /// The process reads its model again, if it is one that does.
    pub(super) fn noticed(&mut self, id: &ServiceId) {
        if self.places.get(id).is_some_and(|place| place.watches) {
            self.loaded(id);
        }
    }

    fn loaded(&mut self, id: &ServiceId) {
        if let Some(place) = self.places.get_mut(id) {
            let garbage = place.model_is_bad();
            if let Some(life) = &mut place.life {
                life.garbage = garbage;
                life.faulty |= garbage;
            }
        }
    }

    /// What a probe would meet now.
    pub(super) fn reaction(&self, id: &ServiceId, now: Micros) -> Reaction {
        let Some(place) = self.places.get(id) else {
            return Reaction::Refused;
        };
        if place.rival {
            return Reaction::Right;
        }
        let Some(life) = &place.life else {
            return Reaction::Refused;
        };
        if now < life.ready {
            return Reaction::Refused;
        }
        if let Some(until) = life.blocked.filter(|until| *until > now) {
            return Reaction::Silent(until);
        }
        if life.stopped || self.descriptors(id, now) >= DESCRIPTORS_MAX {
            return Reaction::Silent(Micros(u64::MAX));
        }
        // Waits for what it needs, and answers nobody meanwhile.
        let starved = place
            .needs
            .iter()
            .any(|need| !matches!(self.reaction(need, now), Reaction::Right | Reaction::Wrong));
        if starved {
            return Reaction::Silent(Micros(u64::MAX));
        }
        let refused = |part: &Part| self.refusing.contains(part);
        // What all behind a route answer wrongly is of no use to who calls it.
        let useless = |route: &RouteId| {
            let behind = self.behind.get(route).filter(|all| !all.is_empty());
            let wrong = |one: &ServiceId| self.reaction(one, now) == Reaction::Wrong;
            behind.is_some_and(|all| all.iter().all(wrong))
        };
        if life.garbage || place.elsewhere.iter().any(refused) || place.calls.iter().any(useless) {
            Reaction::Wrong
        } else {
            Reaction::Right
        }
    }

    /// How much longer its answers take, by itself and by what it needs.
    pub(super) fn dragged(&self, id: &ServiceId) -> u32 {
        let own = self.life(id).map_or(0, |life| life.drag);
        let needs = self
            .places
            .get(id)
            .into_iter()
            .flat_map(|place| &place.needs);
        own + needs.map(|need| self.dragged(need)).max().unwrap_or(0)
    }

    pub(super) fn resident(&self, id: &ServiceId, now: Micros) -> f64 {
        let leaked = self
            .life(id)
            .and_then(|life| life.leak)
            .map_or(0.0, |(rate, from)| rate * now.since(from).as_secs_f64());
        let warmed = self.life(id).and_then(|life| life.warms);
        let warmed = warmed.map_or(0.0, |(by, over, from)| {
            by * (1.0 - (-now.since(from).as_secs_f64() / over).exp())
        });
        RESIDENT + leaked + warmed
    }

    /// How much the data of a service are.
    pub(super) fn data(&self, id: &ServiceId, now: Micros) -> Option<u64> {
        let place = self.places.get(id)?;
        let grown = place
            .grows
            .map_or(0.0, |(rate, from)| rate * now.since(from).as_secs_f64());
        // A positive number of bytes far below 2^63.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let grown = grown as u64;
        Some(place.data.0 + place.data.1 + grown)
    }

    /// What may be deleted is.
    pub(super) fn prune(&mut self, id: &ServiceId, now: Micros) {
        if let Some(place) = self.places.get_mut(id) {
            place.data.1 = 0;
            place.grows = place.grows.map(|(rate, _)| (rate, now));
        }
    }

    pub(super) fn descriptors(&self, id: &ServiceId, now: Micros) -> u64 {
        let opened = self
            .life(id)
            .and_then(|life| life.opens)
            .map_or(0.0, |(rate, from)| rate * now.since(from).as_secs_f64());
        // A positive number far below 2^63.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let opened = opened as u64;
        (DESCRIPTORS + opened).min(DESCRIPTORS_MAX)
    }

    /// Runs, answers rightly, and does not leak.
    pub(super) fn sound(&self, id: &ServiceId, now: Micros) -> bool {
        let rests = self
            .places
            .get(id)
            .is_some_and(|place| place.standby && place.life.is_none());
        let well = |life: &Life| {
            let leaks = life.leak.is_some() || life.opens.is_some();
            !leaks && life.slow.is_none() && life.hog.is_none() && life.drag == 0
        };
        rests || (self.reaction(id, now) == Reaction::Right && self.life(id).is_some_and(well))
    }
}
