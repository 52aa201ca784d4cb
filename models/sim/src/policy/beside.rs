//! Orders side by side: two orders as one whose plan has branches.
//!
//! In go two orders, out comes the order in which neither waits for the other, in the same
//! language as on real nodes: a plan of one node, or one across nodes. None where the
//! language forbids it: both touch one thing, one cannot be taken back and the other is
//! elsewhere, or they come to too many steps. Whether it is wise is not known here.

use homeostat_common::ids::NodeId;
use homeostat_common::plan::{Branch, Plan};
use homeostat_common::saga::{FleetPlan, Leaf};

use crate::world::Order;

/// Both at once.
pub(super) fn beside(one: &Order, other: &Order) -> Option<Order> {
    if let (Order::Node(here, a), Order::Node(there, b)) = (one, other)
        && here == there
    {
        let both = Branch::Parallel(vec![a.root().clone(), b.root().clone()]);
        let plan = Plan::new(both).ok()?;
        return Some(Order::Node(here.clone(), plan));
    }
    let both = Branch::Parallel(vec![across(one), across(other)]);
    FleetPlan::new(both).ok().map(Order::Fleet)
}

/// A plan's tree, each leaf with its node.
fn across(order: &Order) -> Branch<Leaf> {
    match order {
        Order::Node(node, plan) => on(node, plan.root()),
        Order::Fleet(plan) => plan.root().clone(),
    }
}

fn on(node: &NodeId, branch: &Branch) -> Branch<Leaf> {
    let all = |inner: &[Branch]| inner.iter().map(|one| on(node, one)).collect();
    match branch {
        Branch::Step(primitive) => Branch::Step(Leaf {
            node: node.clone(),
            primitive: primitive.clone(),
        }),
        Branch::Series(inner) => Branch::Series(all(inner)),
        Branch::Parallel(inner) => Branch::Parallel(all(inner)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Incident;
    use crate::policy::{Kind, Moves, Whom, Written};
    use crate::topology::{NodeNo, ReplicaNo, Topology};
    use crate::world::{Progress, World};

    /// Seconds that an order takes in a fleet that is well.
    fn seconds(topology: &Topology, order: &Order) -> f64 {
        let mut world = World::new(topology, &Incident::none(), 1).unwrap();
        let no = world.order(order).unwrap();
        while world.progress(no) == Some(Progress::Underway) {
            world.tick();
        }
        assert_eq!(world.progress(no), Some(Progress::Done), "{order:?}");
        world.now()
    }

    #[test]
    fn side_by_side_takes_as_long_as_the_longer() {
        let topology = Topology::reference();
        let moves = Moves::new(&topology);
        let one = |kind, whom| moves.find(kind, whom).unwrap().order.clone();
        let restart = |at| one(Kind::Restart, Whom::Replica(ReplicaNo::new(at)));
        let boot = one(Kind::Reboot, Whom::Node(NodeNo::new(0)));
        let clock = |at| one(Kind::SyncClock, Whom::Node(NodeNo::new(at)));
        for (a, b) in [
            (restart(0), restart(3)),
            (clock(0), clock(1)),
            (boot, clock(2)),
        ] {
            let both = beside(&a, &b).unwrap();
            let longer = seconds(&topology, &a).max(seconds(&topology, &b));
            assert!(
                Written(&both).to_string().contains('|'),
                "{}",
                Written(&both)
            );
            // How long a step takes is drawn by its place in the order.
            assert!(seconds(&topology, &both) <= 1.5 * longer + 2.0);
        }
        assert_eq!(beside(&restart(0), &restart(0)), None);
    }
}
