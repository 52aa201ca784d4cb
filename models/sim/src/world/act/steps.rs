//! The steps of an order with numbers: what each does, where, and after which others.
//!
//! In goes an order as it is written, out come its steps, or the first that cannot be
//! carried out at all; and what two steps have to do with each other.

use homeostat_common::ids::NodeId;
use homeostat_common::plan::{Branch, PLAN_STEPS_MAX};
use homeostat_common::primitive::{Primitive, Reversal};
use homeostat_common::units::Millis;

use super::deed::{Compiler, Deed};
use super::{Order, OrderError};
use crate::topology::{NodeNo, ReplicaNo, RouteNo, Topology};

/// A step with numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) deed: Deed,
    pub(super) node: NodeNo,
    pub(super) fleet: bool,
    pub(super) writes: bool,
    pub(super) interrupts: bool,
    pub(super) compensated: bool,
    pub(super) work: f64,
    pub(super) deadline_s: f64,
    /// Steps that must be done before, as bits.
    pub(super) after: u8,
}

/// The steps of an order with numbers, in the order in which they are printed.
pub(super) fn compile(topology: &Topology, order: &Order) -> Result<Vec<Step>, OrderError> {
    let mut steps = Vec::with_capacity(PLAN_STEPS_MAX);
    let mut step = |node: &NodeId, primitive: &Primitive, fleet: bool| {
        let impossible = |why| OrderError::Impossible {
            step: steps.len(),
            why,
        };
        let no = topology
            .node_no(node)
            .map_err(|why| impossible(why.into()))?;
        let compiler = Compiler { topology, node: no };
        let deed = compiler.deed(primitive).map_err(impossible)?;
        let signature = primitive.signature();
        steps.push(Step {
            deed,
            node: no,
            fleet,
            writes: primitive.writes(),
            interrupts: signature.interrupts,
            compensated: signature.reversal == Reversal::Compensated,
            work: signature.work,
            deadline_s: primitive
                .deadline(start_timeout(topology, primitive))
                .as_secs_f64(),
            after: 0,
        });
        Ok(())
    };
    let mut after = Vec::with_capacity(PLAN_STEPS_MAX);
    match order {
        Order::Node(node, plan) => {
            plan.steps()
                .try_for_each(|primitive| step(node, primitive, false))?;
            precede(plan.root(), 0, &mut after);
        }
        Order::Fleet(plan) => {
            plan.steps()
                .try_for_each(|leaf| step(&leaf.node, &leaf.primitive, true))?;
            precede(plan.root(), 0, &mut after);
        }
    }
    for (step, after) in steps.iter_mut().zip(after) {
        step.after = after;
    }
    Ok(steps)
}

/// For each leaf, the leaves that must be done before it, as bits; returns those of the
/// whole branch.
fn precede<L>(branch: &Branch<L>, before: u8, into: &mut Vec<u8>) -> u8 {
    match branch {
        Branch::Step(_) => {
            into.push(before);
            1 << (into.len() - 1)
        }
        Branch::Series(inner) => inner
            .iter()
            .fold(0, |own, member| own | precede(member, before | own, into)),
        Branch::Parallel(inner) => inner
            .iter()
            .fold(0, |own, member| own | precede(member, before, into)),
    }
}

/// How long its service may take to come up: as a configuration would have it, some
/// multiple of the usual.
fn start_timeout(topology: &Topology, primitive: &Primitive) -> Millis {
    const USUAL: f64 = 5.0;
    let replica = primitive
        .service()
        .and_then(|id| topology.replica_no(id).ok());
    let seconds = replica.map_or(10.0, |no| {
        let route = topology.replicas[no.at()].route;
        topology.routes[route.at()].start_s * USUAL + 5.0
    });
    // Start times are bounded by the topology to an hour.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Millis((seconds * 1000.0) as u64)
}

/// The replicas and the route that a deed has to do with.
pub(super) fn touched(topology: &Topology, deed: &Deed) -> Touched {
    let of = |replica: ReplicaNo| topology.replicas[replica.at()].route;
    match *deed {
        Deed::Restart(replica, _)
        | Deed::PutModel(replica, _)
        | Deed::PutConfig(replica, _)
        | Deed::Probe(replica, _)
        | Deed::Prune(replica, _)
        | Deed::Freeze(replica)
        | Deed::Thaw(replica)
        | Deed::LimitCpu(replica, _)
        | Deed::UnlimitCpu(replica)
        | Deed::Prewarm(replica)
        | Deed::ClearLocks(replica)
        | Deed::Snapshot(replica)
        | Deed::RestoreSnapshot(replica)
        | Deed::FlushCache(replica)
        | Deed::ResetPool(replica)
        | Deed::Degrade(replica)
        | Deed::Undegrade(replica)
        | Deed::BlockPort(replica, _)
        | Deed::UnblockPort(replica)
        | Deed::Remount(replica)
        | Deed::Call(_, _, replica)
        | Deed::Escalate(replica) => ([Some(replica), None], None),
        Deed::Isolate(replica, _)
        | Deed::Release(replica)
        | Deed::ScaleOut(replica)
        | Deed::ScaleIn(replica, _) => ([Some(replica), None], Some(of(replica))),
        Deed::Reroute(from, to, _) => ([Some(from), Some(to)], Some(of(from))),
        Deed::LimitRate(route, _)
        | Deed::UnlimitRate(route)
        | Deed::BlockSource(route, _)
        | Deed::UnblockSource(route) => ([None, None], Some(route)),
        Deed::Wait(_) | Deed::SyncClock(_) | Deed::SwitchUplink(..) | Deed::ReleaseUplink(_) => {
            ([None, None], None)
        }
    }
}

pub(super) type Touched = ([Option<ReplicaNo>; 2], Option<RouteNo>);

/// Whether two deeds have to do with the same thing.
pub(super) fn overlap(one: &Touched, other: &Touched) -> bool {
    let replicas = |touched: &Touched| touched.0.into_iter().flatten().collect::<Vec<_>>();
    let shared = replicas(one).iter().any(|no| replicas(other).contains(no));
    shared || (one.1.is_some() && one.1 == other.1)
}
