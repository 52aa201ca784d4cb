//! One plan left to chance, and how likely it was.
//!
//! What a world model learns from must not carry a healer's knowledge of the fault: a plan
//! is drawn, carried out once, and nothing is done after it. Half of the steps are drawn
//! evenly over kinds and then targets, half evenly among those about whatever looks ill,
//! because most of the others do nothing. The propensity is that of the whole mixture, so
//! whoever learns can weigh the draws.

use std::collections::BTreeSet;

use homeostat_common::observation::Level;

use super::plain::{draw, likely};
use super::{Move, Moves, Policy, View, Whom};
use crate::chance::{Chance, Stream};
use crate::topology::{NodeNo, Topology};
use crate::world::Order;

/// Longest plan that is drawn: most repairs take no more, and a longer one would say little
/// about each of its steps.
pub const STEPS_MAX: u8 = 3;
/// Share of the steps that are drawn among those about what looks ill.
const AIMED: f64 = 0.5;
/// Share of errors from which on a route looks ill.
const ERR: f64 = 0.05;
/// Draws of one step, each with a number of its own.
const DRAWS: u64 = 4;

/// See the module.
#[derive(Debug, Clone)]
pub struct Randomised {
    chance: Chance,
    drawn: u64,
    done: bool,
    propensity: f64,
}

impl Randomised {
    /// The draw of a number, for the seed of an episode.
    #[must_use]
    pub fn new(seed: u64, number: u32) -> Self {
        Self {
            // Apart from those of a policy that draws in the episode itself.
            chance: Chance::new(!seed, Stream::Policy),
            drawn: u64::from(number) * u64::from(STEPS_MAX) * DRAWS,
            done: false,
            propensity: 1.0,
        }
    }

    fn uniform(&mut self) -> f64 {
        self.drawn += 1;
        self.chance.uniform(self.drawn, 0)
    }

    /// A step, and how likely it was.
    fn step<'m>(&mut self, moves: &'m Moves, aimed: &[&'m Move]) -> Option<(&'m Move, f64)> {
        let aims = self.uniform() < AIMED && !aimed.is_empty();
        self.drawn += 1;
        let one = if aims {
            let bound = u32::try_from(aimed.len()).unwrap_or(u32::MAX);
            aimed[self.chance.below(bound, self.drawn, 0) as usize]
        } else {
            draw(moves, self.chance, self.drawn)?
        };
        let even = likely(moves, one.kind);
        if aimed.is_empty() {
            return Some((one, even));
        }
        let of_aimed = if aimed.contains(&one) {
            1.0 / aimed.len() as f64
        } else {
            0.0
        };
        Some((one, AIMED * of_aimed + (1.0 - AIMED) * even))
    }
}

impl Policy for Randomised {
    fn name(&self) -> &'static str {
        "randomised"
    }

    fn see(&mut self, _: &View<'_>) {}

    fn decide(&mut self, view: &View<'_>) -> Vec<Order> {
        if std::mem::replace(&mut self.done, true) {
            self.propensity = 1.0;
            return Vec::new();
        }
        let ill = ill(view);
        let about = |one: &&Move| !one.kind.waits() && ill.contains(&one.whom);
        let aimed: Vec<&Move> = view.moves.all().iter().filter(about).collect();
        let count = 1 + self.chance.below(u32::from(STEPS_MAX), self.drawn, 1);
        self.propensity = 1.0 / f64::from(STEPS_MAX);
        let mut orders = Vec::new();
        for _ in 0..count {
            if let Some((one, likely)) = self.step(view.moves, &aimed) {
                self.propensity *= likely;
                orders.push(one.order.clone());
            }
        }
        orders
    }

    fn propensity(&self) -> f64 {
        self.propensity
    }
}

/// What looks ill: what alarms and errors in logs are about, nodes that tell nothing, and
/// routes whose callers meet errors.
fn ill(view: &View<'_>) -> BTreeSet<Whom> {
    let topology = view.topology;
    let mut ill = BTreeSet::new();
    for (at, seen) in view.seen.nodes.iter().enumerate() {
        let node = Whom::Node(NodeNo::new(at));
        let Some(seen) = seen else {
            ill.insert(node);
            continue;
        };
        for alarm in &seen.alarms {
            match &alarm.service {
                Some(service) => add(&mut ill, topology, service),
                None => {
                    ill.insert(node);
                }
            }
        }
        for line in seen.logs.iter().filter(|line| line.level >= Level::Error) {
            match &line.service {
                Some(service) => add(&mut ill, topology, service),
                None => {
                    ill.insert(node);
                }
            }
        }
    }
    for seen in view.seen.routes.iter().filter(|seen| seen.err > ERR) {
        ill.extend(topology.route_no(&seen.route).map(Whom::Route));
    }
    ill
}

/// A replica and its route.
fn add(ill: &mut BTreeSet<Whom>, topology: &Topology, name: &homeostat_common::ids::ServiceId) {
    if let Ok(replica) = topology.replica_no(name) {
        ill.insert(Whom::Replica(replica));
        ill.insert(Whom::Route(topology.replicas()[replica.at()].route));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fault::Incident;
    use crate::observe::Observer;
    use crate::world::World;

    #[test]
    fn plans_come_as_often_as_their_propensity_says() {
        let topology = Topology::reference();
        let incident = Incident::named("hang-postprocess").unwrap();
        let mut world = World::new(&topology, &incident, 1).unwrap();
        let mut observer = Observer::new(1);
        while world.now() < 150.0 {
            world.tick();
        }
        let seen = observer.look(&world);
        let moves = Moves::new(&topology);
        let view = View {
            topology: &topology,
            moves: &moves,
            seen: &seen,
            ended: &[],
            left: f64::INFINITY,
        };
        assert!(!ill(&view).is_empty());
        let n = 60_000;
        let mut single: BTreeMap<String, (u32, f64)> = BTreeMap::new();
        for number in 0..n {
            let mut policy = Randomised::new(3, number);
            let orders = policy.decide(&view);
            assert!((1..=usize::from(STEPS_MAX)).contains(&orders.len()));
            assert!(policy.propensity() > 0.0);
            if let [order] = orders.as_slice() {
                let one = single.entry(format!("{order:?}")).or_default();
                *one = (one.0 + 1, policy.propensity());
            }
            assert!(policy.decide(&view).is_empty());
        }
        let often = single.values().filter(|(count, _)| *count >= 100);
        let mut checked = 0;
        for (count, likely) in often {
            let expected = likely * f64::from(n);
            // Within five deviations of a count.
            let off = (f64::from(*count) - expected).abs();
            assert!(off < 5.0 * expected.sqrt(), "{count} {expected}");
            checked += 1;
        }
        assert!(checked > 20, "{checked}");
    }
}
