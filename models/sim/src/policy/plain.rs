//! Baselines that know little: nothing at all, chance, and restarts.
//!
//! What they see is the same as for all others; they only make less of it.

use super::signs::Signs;
use super::{Kind, Move, Policy, View, Whom};
use crate::chance::{Chance, Stream};
use crate::topology::{ReplicaNo, Topology};
use crate::world::Order;

/// Does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl Policy for Nothing {
    fn name(&self) -> &'static str {
        "no-op"
    }

    fn see(&mut self, _: &View<'_>) {}

    fn decide(&mut self, _: &View<'_>) -> Vec<Order> {
        Vec::new()
    }
}

/// Tries valid steps, evenly over kinds and then targets, while users are not served.
#[derive(Debug, Clone)]
pub struct Random {
    signs: Signs,
    chance: Chance,
    drawn: u64,
    propensity: f64,
}

impl Random {
    /// One with choices of its own.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            signs: Signs::default(),
            chance: Chance::new(seed, Stream::Policy),
            drawn: 0,
            propensity: 1.0,
        }
    }
}

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn see(&mut self, view: &View<'_>) {
        self.signs.see(view.topology, view.seen);
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Order> {
        self.propensity = 1.0;
        if !suffers(&self.signs, view.topology) {
            return Vec::new();
        }
        self.drawn += 1;
        let Some(one) = draw(view.moves, self.chance, self.drawn) else {
            return Vec::new();
        };
        self.propensity = likely(view.moves, one.kind);
        vec![one.order.clone()]
    }

    fn propensity(&self) -> f64 {
        self.propensity
    }
}

/// The kinds of moves that there are and that change something.
fn kinds(moves: &super::Moves) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Kind::ALL.to_vec();
    kinds.retain(|kind| !kind.waits() && moves.of(*kind).next().is_some());
    kinds
}

/// How likely [`draw`] is to give one certain move of a kind.
pub(super) fn likely(moves: &super::Moves, kind: Kind) -> f64 {
    1.0 / (kinds(moves).len().max(1) * moves.of(kind).count().max(1)) as f64
}

/// One move, evenly over the kinds that there are and then over their targets.
pub(super) fn draw(moves: &super::Moves, chance: Chance, draw: u64) -> Option<&Move> {
    let kinds = kinds(moves);
    let below = |count: usize, index| {
        chance.below(u32::try_from(count).unwrap_or(u32::MAX), draw, index) as usize
    };
    let kind = kinds.get(below(kinds.len(), 0))?;
    let count = moves.of(*kind).count();
    moves.of(*kind).nth(below(count, 1))
}

/// The same of some of them; waits are steps like others here.
pub(super) fn draw_of<'m>(pool: &[&'m Move], chance: Chance, draw: u64) -> Option<&'m Move> {
    let mut kinds: Vec<Kind> = pool.iter().map(|one| one.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let below = |count: usize, index| {
        chance.below(u32::try_from(count).unwrap_or(u32::MAX), draw, index) as usize
    };
    let kind = *kinds.get(below(kinds.len(), 0))?;
    let of_kind: Vec<&'m Move> = pool
        .iter()
        .copied()
        .filter(|one| one.kind == kind)
        .collect();
    of_kind.get(below(of_kind.len(), 1)).copied()
}

/// Whether anything is wrong that a healer would act upon.
pub(super) fn suffers(signs: &Signs, topology: &Topology) -> bool {
    signs.users_suffer(topology) || signs.models_suffer(topology)
}

/// Between two starts of one replica, first; doubled each time, as supervisors do.
const BACKOFF_S: f64 = 10.0;
/// And at most.
const BACKOFF_MAX_S: f64 = 120.0;

/// Restarts what is dead or does not answer, with a pause that grows.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    signs: Signs,
    /// For each replica: not before, and the next pause.
    pauses: Vec<(f64, f64)>,
}

impl Supervisor {
    /// What it would restart now.
    pub(super) fn dead(&mut self, signs: &Signs, view: &View<'_>) -> Option<ReplicaNo> {
        self.pauses
            .resize(view.topology.replicas().len(), (0.0, BACKOFF_S));
        let now = view.seen.at;
        for (at, sign) in signs.replicas.iter().enumerate() {
            let (until, pause) = &mut self.pauses[at];
            let ill = sign.down >= 1 || sign.mute >= 2;
            if ill && now >= *until {
                *until = now + *pause;
                *pause = (*pause * 2.0).min(BACKOFF_MAX_S);
                return Some(ReplicaNo::new(at));
            }
            if !ill && now > *until + BACKOFF_MAX_S {
                *pause = BACKOFF_S;
            }
        }
        None
    }
}

impl Policy for Supervisor {
    fn name(&self) -> &'static str {
        "supervisor"
    }

    fn see(&mut self, view: &View<'_>) {
        self.signs.see(view.topology, view.seen);
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Order> {
        let signs = std::mem::take(&mut self.signs);
        let dead = self.dead(&signs, view);
        self.signs = signs;
        restart(view, dead)
    }
}

pub(super) fn restart(view: &View<'_>, replica: Option<ReplicaNo>) -> Vec<Order> {
    let one = replica.and_then(|no| view.moves.find(Kind::Restart, Whom::Replica(no)));
    one.map(|one| one.order.clone()).into_iter().collect()
}

/// Restarts whatever looks worst, while users are not served, and waits a little to see.
#[derive(Debug, Clone, Default)]
pub struct Worst {
    signs: Signs,
    /// When each was restarted last.
    last: Vec<f64>,
}

/// What was restarted is left alone for so long.
const REST_S: f64 = 40.0;

impl Policy for Worst {
    fn name(&self) -> &'static str {
        "worst"
    }

    fn see(&mut self, view: &View<'_>) {
        self.signs.see(view.topology, view.seen);
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Order> {
        self.last
            .resize(view.topology.replicas().len(), f64::NEG_INFINITY);
        if !suffers(&self.signs, view.topology) {
            return Vec::new();
        }
        let now = view.seen.at;
        let all = (0..self.last.len()).filter(|at| now - self.last[*at] > REST_S);
        let scored = all.map(|at| (at, illness(&self.signs, ReplicaNo::new(at))));
        let worst = scored
            .filter(|(_, score)| *score > 0.2)
            .max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((at, _)) = worst {
            self.last[at] = now;
        }
        restart(view, worst.map(|(at, _)| ReplicaNo::new(at)))
    }
}

/// How ill a replica looks, from 0.
pub(super) fn illness(signs: &Signs, no: ReplicaNo) -> f64 {
    let sign = &signs.replicas[no.at()];
    let mut score = 0.0;
    score += if sign.down > 0 { 3.0 } else { 0.0 };
    score += if sign.mute > 1 { 2.5 } else { 0.0 };
    if sign.down == 0 {
        score += 2.0 * (1.0 - sign.right.or(1.0)).max(0.0);
    }
    score += (0.3 * sign.p95_ms.above()).clamp(0.0, 2.0);
    score += (0.5 * sign.memory.above()).clamp(0.0, 1.5);
    score += if sign.fds.or(0.0) > 300.0 { 0.8 } else { 0.0 };
    score += if sign.threads.or(0.0) > 150.0 {
        0.8
    } else {
        0.0
    };
    score += (0.3 * sign.cores.above()).clamp(0.0, 1.0);
    score + (8.0 * signs.model_loss(no) - 0.2).clamp(0.0, 1.5)
}
