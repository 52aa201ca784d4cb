//! Looking ahead in forks of a world.
//!
//! In goes a world and orders; out comes the world after them, or what will be of it when
//! nothing more is done. Who uses this knows everything, chance included.

use crate::episode::toll;
use crate::world::{Level, Order, Progress, Target, World};

/// Nothing that is ordered takes longer, in seconds; a retraining takes a minute.
const ORDER_S: f64 = 240.0;
/// A miss of the target counts from so many seconds on.
const BLIP_S: f64 = 3.0;
/// After that many seconds of being served without a relapse users count as served.
pub(crate) const HELD_S: f64 = 130.0;

/// Carries out an order in a fork; `None` when it is not taken. A step that fails may have
/// done something all the same: a start of a process that hangs ends the one before.
pub(crate) fn after(world: &World, order: &Order) -> Option<World> {
    let mut fork = world.clone();
    let no = fork.order(order).ok()?;
    let until = fork.now() + ORDER_S;
    while fork.now() < until {
        fork.tick();
        match fork.progress(no)? {
            Progress::Underway => {}
            Progress::Done | Progress::Failed { .. } => return Some(fork),
        }
    }
    None
}

/// The marks of a world in which nothing is done, tick by tick, as far as they are asked
/// for: a step that leaves the same state as none adds nothing to a plan.
#[derive(Debug)]
pub(crate) struct Idle {
    fork: World,
    begin: f64,
    marks: Vec<u64>,
}

impl Idle {
    pub(crate) fn new(world: &World) -> Self {
        Self {
            fork: world.clone(),
            begin: world.now(),
            marks: Vec::new(),
        }
    }

    /// Whether a later world of this mark is as if only time had passed.
    pub(crate) fn same(&mut self, later: &World, mark: u64) -> bool {
        let dt = self.fork.settings().dt;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Some hundred.
        let ticks = ((later.now() - self.begin) / dt + 0.5) as usize;
        while self.marks.len() < ticks {
            self.fork.tick();
            self.marks.push(self.fork.mark());
        }
        let same = ticks.checked_sub(1).and_then(|at| self.marks.get(at));
        same == Some(&mark)
    }
}

/// What becomes of a world when nothing more is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outlook {
    /// From when on users are served, and for long enough; `None` if that is not so before
    /// the time that was given is over.
    pub(crate) served: Option<f64>,
    /// Mean health over the time that was given.
    pub(crate) health: f64,
    /// The same over its last third.
    pub(crate) later: f64,
    /// Roots that are left at its end.
    pub(crate) roots: usize,
}

/// Lets a world go on, and looks whether users are served within `settle` seconds and stay
/// so for `hold` seconds. One in which they are not is given up then.
pub(crate) fn outlook(world: &World, target: &Target, settle: f64, hold: f64) -> Outlook {
    let mut fork = world.clone();
    let begin = fork.now();
    let mut watch = Watch::default();
    let (mut sum, mut count, mut later, mut few) = (0.0, 0.0, 0.0, 0.0);
    let mut roots = fork.roots_left();
    loop {
        fork.tick();
        let now = fork.now();
        let level = fork.level();
        watch.note(&level, target, now);
        if now <= begin + settle {
            let health = level.health();
            sum += health;
            count += 1.0;
            if now > begin + settle * (2.0 / 3.0) {
                later += health;
                few += 1.0;
            }
            roots = fork.roots_left();
        }
        if now < begin + settle {
            continue;
        }
        let since = watch.since.unwrap_or(begin);
        let relapsed = since > begin + settle;
        let held = now - since >= hold;
        if held || relapsed || !watch.met {
            let served = held && watch.met && !relapsed;
            return Outlook {
                served: served.then_some(since),
                health: sum / f64::max(count, 1.0),
                later: later / f64::max(few, 1.0),
                roots,
            };
        }
    }
}

/// Since when users are served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    /// Since when; `None` if they were all the time.
    pub(crate) since: Option<f64>,
    /// They are now.
    pub(crate) met: bool,
    missed: Option<f64>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            since: None,
            met: true,
            missed: None,
        }
    }
}

impl Watch {
    pub(crate) fn note(&mut self, level: &Level, target: &Target, now: f64) {
        if level.meets(target) {
            self.missed = None;
            self.met = true;
            return;
        }
        let since = *self.missed.get_or_insert(now);
        if now - since >= BLIP_S {
            self.since = Some(now);
            self.met = false;
        }
    }
}

/// What orders cost at least, and what carrying them out has taken.
pub(crate) fn cost(before: &World, after: &World, orders: &[Order]) -> f64 {
    let tolls: f64 = orders.iter().map(toll).sum();
    tolls + after.spent().disruption - before.spent().disruption
}
