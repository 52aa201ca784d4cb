//! Healers that know everything: a perfect simulator to choose by, and look-ahead over
//! whole plans.
//!
//! They fork the world itself, so what they foresee is what will be, to the last drawn
//! number. They are bounds and units of measure: what they do would give hidden state
//! away, so nothing is to be taught by them.

use std::collections::{BTreeMap, BTreeSet};

use super::ahead::{HELD_S, Idle, after, cost, outlook};
use super::beside::beside;
use super::plain::draw;
use super::{Kind, Move, Moves, Privileged};
use crate::chance::{Chance, Stream};
use crate::world::{Order, Target, World};

/// A search over single steps looks so far ahead, in seconds.
const NEAR_S: f64 = 60.0;
/// A step has to make health that much better, as a mean over that time, to be taken.
const WORTH: f64 = 0.004;
/// What a unit of cost is worth, in health.
const PRICE: f64 = 0.001;
/// After nothing was worth its cost, it looks again so much later.
const REST_S: f64 = 20.0;

pub(super) fn suffers(world: &World) -> bool {
    !world.level().meets(&Target::default())
}

/// What a plan is worth: health without anything more, less its cost; with the world after.
fn worth(world: &World, orders: &[Order], left: f64) -> Option<f64> {
    let mut now = world.clone();
    for order in orders {
        now = after(&now, order)?;
    }
    let cost = cost(world, &now, orders);
    if cost > left {
        return None;
    }
    let end = outlook(&now, &Target::default(), NEAR_S, HELD_S);
    Some(end.later + if end.served.is_some() { 0.2 } else { 0.0 } - PRICE * cost)
}

/// Takes the best single step by a perfect simulator, again and again.
#[derive(Debug, Clone, Default)]
pub struct Searcher {
    rest_until: f64,
}

impl Privileged for Searcher {
    fn name(&self) -> &'static str {
        "search"
    }

    fn decide(&mut self, world: &World, moves: &Moves, left: f64) -> Vec<Order> {
        if !suffers(world) || world.now() < self.rest_until {
            return Vec::new();
        }
        let mut idle = Idle::new(world);
        let near = world.engine.near(world.topology());
        let near = moves
            .all()
            .iter()
            .filter(|one| near.covers(world.topology(), one.whom));
        let plans = near.filter(|one| {
            // What changes nothing is not worth more than nothing.
            let then = after(world, &one.order);
            then.is_some_and(|then| !idle.same(&then, then.mark()))
        });
        let best = best(world, plans.map(|one| vec![one.order.clone()]), left);
        if best.is_empty() {
            self.rest_until = world.now() + REST_S;
        }
        best
    }
}

/// The best of some plans, if it is worth more than nothing.
pub(super) fn best(
    world: &World,
    plans: impl Iterator<Item = Vec<Order>>,
    left: f64,
) -> Vec<Order> {
    let nothing = worth(world, &[], left).unwrap_or(0.0);
    let scored = plans.filter_map(|plan| Some((worth(world, &plan, left)?, plan)));
    let best = scored.reduce(|best, one| if one.0 > best.0 { one } else { best });
    best.filter(|(score, _)| *score > nothing + WORTH)
        .map(|(_, plan)| plan)
        .unwrap_or_default()
}

/// Plans that are drawn for each choice.
pub(super) const DRAWN: u64 = 32;
/// Steps of the longest of them.
const LONGEST: u32 = 3;

/// Takes the best of random plans by a perfect simulator.
#[derive(Debug, Clone)]
pub struct Verified {
    chance: Chance,
    drawn: u64,
}

impl Verified {
    /// One with draws of its own.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed, Stream::Policy),
            drawn: 0,
        }
    }
}

impl Privileged for Verified {
    fn name(&self) -> &'static str {
        "verified"
    }

    fn decide(&mut self, world: &World, moves: &Moves, left: f64) -> Vec<Order> {
        if !suffers(world) {
            return Vec::new();
        }
        let mut plans = Vec::new();
        for _ in 0..DRAWN {
            self.drawn += 1;
            let steps = 1 + self.chance.below(LONGEST, self.drawn, 2);
            let steps = (0..u64::from(steps)).filter_map(|step| {
                let one = draw(moves, self.chance, self.drawn * 8 + step + (1 << 32));
                one.map(|one| one.order.clone())
            });
            plans.push(steps.collect());
        }
        best(world, plans.into_iter(), left)
    }
}

/// After no plan ended the incident it rests twice as long each time, up to this, in
/// seconds.
const REST_MAX_S: f64 = 160.0;
/// How far a search for a plan goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Steps of the longest plan.
    pub(crate) depth: usize,
    /// States from which it goes on at each step, each of another kind.
    pub(crate) beam: usize,
    /// Users have to be served so long after a plan, in seconds.
    pub(crate) settle: f64,
    /// And stay so for so long.
    pub(crate) hold: f64,
}

impl Effort {
    /// That of the oracle, who knows what it looks ahead in.
    pub(crate) const FULL: Self = Self {
        depth: 6,
        beam: 18,
        settle: 75.0,
        hold: HELD_S,
    };
}

/// Of one kind, which differ in who carries the load.
const SIBLINGS: usize = 3;
/// A unit of cost is worth so many seconds.
const SECONDS: f64 = 2.0;
/// A plan whose seconds and cost come to less is not worth a longer one.
const GOOD: f64 = 40.0;

/// Looks ahead over plans, step by step wider, in forks of the world itself; takes the
/// shortest that ends the incident, the quickest and cheapest of these, and looks again
/// when that is done. Steps run side by side where that is sooner.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    rest_until: f64,
    /// How long it rested last, while no plan ended the incident.
    rest: f64,
}

/// A plan that was thought through so far.
struct Thought {
    world: World,
    orders: Vec<Order>,
    kind: u64,
    roots: usize,
    later: f64,
}

impl Oracle {
    /// The shortest plan that ends the incident, or else what helps most.
    pub(crate) fn plan(world: &World, moves: &Moves, left: f64, effort: Effort) -> Plan {
        let near = world.engine.near(world.topology());
        let near: Vec<&Move> = moves
            .all()
            .iter()
            .filter(|one| near.covers(world.topology(), one.whom))
            .collect();
        Self::plan_of(world, &near, left, effort)
    }

    /// The same of these moves alone.
    pub(crate) fn plan_of(world: &World, near: &[&Move], left: f64, effort: Effort) -> Plan {
        let target = Target::default();
        let nothing = outlook(world, &target, effort.settle, effort.hold);
        if nothing.served.is_some() && nothing.roots == 0 {
            return Plan::default();
        }
        let mut beam = vec![Thought {
            kind: world.fault_mark(),
            world: world.clone(),
            orders: Vec::new(),
            roots: nothing.roots,
            later: nothing.later,
        }];
        let mut helps: Option<(f64, Vec<Order>)> = None;
        let mut found: Option<(f64, Vec<Order>)> = None;
        for depth in 0..effort.depth {
            let before = found.is_some();
            let mut next: Vec<Thought> = Vec::new();
            let mut known = BTreeSet::new();
            for thought in &beam {
                let mut idle = Idle::new(&thought.world);
                for one in near.iter().copied() {
                    let Some(then) = after(&thought.world, &one.order) else {
                        continue;
                    };
                    // Nothing but time has passed, or it was thought through before.
                    let mark = then.mark();
                    if !one.kind.waits() && idle.same(&then, mark)
                        || !known.insert((then.now().to_bits(), mark))
                    {
                        continue;
                    }
                    if depth > 0 && !relevant(one, thought, &then) {
                        continue;
                    }
                    let mut orders = thought.orders.clone();
                    orders.push(one.order.clone());
                    let cost = cost(world, &then, &orders);
                    if cost > left {
                        continue;
                    }
                    let end = outlook(&then, &target, effort.settle, effort.hold);
                    let score = |at: f64| at - world.now() + SECONDS * cost;
                    // Users who never noticed do not notice the plan either.
                    let healed = end
                        .served
                        .filter(|_| end.roots == 0 || nothing.served.is_none());
                    if let Some(at) = healed {
                        // What is left of the roots may come back: it counts as a minute.
                        let score = score(at) + 60.0 * end.roots as f64;
                        if found.as_ref().is_none_or(|(best, _)| score < *best) {
                            found = Some((score, orders));
                        }
                        continue;
                    }
                    let gain = end.later - nothing.later - PRICE * cost;
                    if gain > WORTH && helps.as_ref().is_none_or(|(best, _)| gain > *best) {
                        helps = Some((gain, orders.clone()));
                    }
                    next.push(Thought {
                        kind: then.fault_mark(),
                        world: then,
                        orders,
                        roots: end.roots,
                        later: end.later,
                    });
                }
            }
            // One that is dear or late may be shorter than one that is neither.
            let good = found.as_ref().is_some_and(|(score, _)| *score < GOOD);
            if good || before {
                break;
            }
            beam = of_each_kind(next, effort.beam);
        }
        if let Some((_, orders)) = found {
            let orders = folded(world, orders, effort);
            return Plan { orders, ends: true };
        }
        Plan {
            orders: helps.map(|(_, orders)| orders).unwrap_or_default(),
            ends: false,
        }
    }
}

/// The same plan with steps side by side where that serves users sooner.
fn folded(world: &World, mut orders: Vec<Order>, effort: Effort) -> Vec<Order> {
    let served = |orders: &[Order]| {
        let mut now = world.clone();
        for order in orders {
            now = after(&now, order)?;
        }
        let end = outlook(&now, &Target::default(), effort.settle, effort.hold);
        Some((end.roots, end.served?))
    };
    let Some(mut known) = served(&orders) else {
        return orders;
    };
    let mut at = 0;
    while at + 1 < orders.len() {
        let both = beside(&orders[at], &orders[at + 1]);
        let tried = both.map(|both| {
            let rest = orders[at + 2..].iter().cloned();
            let tried: Vec<Order> = orders[..at]
                .iter()
                .cloned()
                .chain([both])
                .chain(rest)
                .collect();
            tried
        });
        let better = tried.and_then(|tried| Some((served(&tried)?, tried)));
        match better {
            Some((then, tried)) if then.0 <= known.0 && then.1 < known.1 => {
                (known, orders) = (then, tried);
            }
            _ => at += 1,
        }
    }
    orders
}

/// What the oracle would do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) orders: Vec<Order>,
    /// It ends the incident.
    pub(crate) ends: bool,
}

/// Whether a further step is worth a thought: it changes what the faults will do, or who
/// carries the load.
fn relevant(one: &Move, before: &Thought, then: &World) -> bool {
    let load = matches!(
        one.kind,
        Kind::ScaleOut
            | Kind::Degrade
            | Kind::LimitRate
            | Kind::UnlimitRate
            | Kind::Release
            | Kind::Wait
    );
    load || one.kind == Kind::Restart || then.fault_mark() != before.kind
}

/// The best of each kind of state, and of these the best.
fn of_each_kind(mut all: Vec<Thought>, beam: usize) -> Vec<Thought> {
    all.sort_by(|a, b| a.roots.cmp(&b.roots).then(b.later.total_cmp(&a.later)));
    let mut kinds: BTreeMap<u64, usize> = BTreeMap::new();
    all.retain(|thought| {
        let count = kinds.entry(thought.kind).or_insert(0);
        *count += 1;
        *count <= SIBLINGS
    });
    all.truncate(beam);
    all
}

impl Privileged for Oracle {
    fn name(&self) -> &'static str {
        "oracle"
    }

    fn decide(&mut self, world: &World, moves: &Moves, left: f64) -> Vec<Order> {
        let idle = world.roots_left() == 0 && !suffers(world);
        if idle || world.now() < self.rest_until {
            return Vec::new();
        }
        let plan = Self::plan(world, moves, left, Effort::FULL);
        if plan.ends {
            self.rest = 0.0;
        } else {
            // What cannot be ended now is not looked at all the time.
            self.rest = (2.0 * self.rest).clamp(REST_S, REST_MAX_S);
            self.rest_until = world.now() + self.rest;
        }
        plan.orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Incident;
    use crate::policy::Written;
    use crate::topology::Topology;

    #[test]
    fn two_roots_that_have_nothing_to_do_with_each_other_are_mended_side_by_side() {
        let topology = Topology::reference();
        let moves = Moves::new(&topology);
        let incident = Incident::read("two.toml", TWO).unwrap();
        let mut world = World::new(&topology, &incident, 1).unwrap();
        while world.now() < world.onset() + 40.0 {
            world.tick();
        }
        let plan = Oracle::plan(&world, &moves, f64::INFINITY, Effort::FULL);
        let text: Vec<String> = plan
            .orders
            .iter()
            .map(|order| Written(order).to_string())
            .collect();
        assert!(
            plan.ends && text.iter().any(|order| order.contains('|')),
            "{text:?}"
        );
    }

    const TWO: &str = r#"
name = "two"
about = "A clock is wrong, and on another node a service does not answer."
topology = "reference"

[[fault]]
id = "clock"
mechanism = "skew"
locus = "node edge-2"
strength = 0.8

[[fault]]
id = "hang"
mechanism = "hang"
locus = "service postprocess"
"#;
}
