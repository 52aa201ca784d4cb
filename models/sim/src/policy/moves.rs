//! Every single step that a topology admits, as orders with a meaning.
//!
//! In goes a topology, out come [`Move`]s: what policies choose from, and what
//! certification and oracles search over. An errand of the operator takes effect some time
//! after it was asked for, so its move waits for that; the wait counts as no step.

use homeostat_common::ids::NodeId;
use homeostat_common::plan::Plan;
use homeostat_common::saga::FleetPlan;

use crate::fault::Step;
use crate::topology::{Errand, LinkOf, NodeNo, Offer, ReplicaNo, RouteNo, Topology, Version};
use crate::world::Order;

/// What a move does, by primitive; errands by what the operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Kind {
    Restart,
    RollbackModel,
    RollbackConfig,
    PruneData,
    Isolate,
    Release,
    Reroute,
    ScaleOut,
    ScaleIn,
    Prewarm,
    Freeze,
    Thaw,
    LimitCpu,
    UnlimitCpu,
    LimitRate,
    UnlimitRate,
    BlockSource,
    UnblockSource,
    BlockPort,
    UnblockPort,
    ClearLocks,
    Snapshot,
    RestoreSnapshot,
    FlushCache,
    ResetPool,
    Degrade,
    Undegrade,
    SyncClock,
    SwitchUplink,
    ReleaseUplink,
    Remount,
    Wait,
    Reboot,
    RotateCredential,
    FailoverBroker,
    Retrain,
    RollbackBinary,
    PauseRollout,
    KillStranger,
    RestoreCheckpoint,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 40] = [
        Self::Restart,
        Self::RollbackModel,
        Self::RollbackConfig,
        Self::PruneData,
        Self::Isolate,
        Self::Release,
        Self::Reroute,
        Self::ScaleOut,
        Self::ScaleIn,
        Self::Prewarm,
        Self::Freeze,
        Self::Thaw,
        Self::LimitCpu,
        Self::UnlimitCpu,
        Self::LimitRate,
        Self::UnlimitRate,
        Self::BlockSource,
        Self::UnblockSource,
        Self::BlockPort,
        Self::UnblockPort,
        Self::ClearLocks,
        Self::Snapshot,
        Self::RestoreSnapshot,
        Self::FlushCache,
        Self::ResetPool,
        Self::Degrade,
        Self::Undegrade,
        Self::SyncClock,
        Self::SwitchUplink,
        Self::ReleaseUplink,
        Self::Remount,
        Self::Wait,
        Self::Reboot,
        Self::RotateCredential,
        Self::FailoverBroker,
        Self::Retrain,
        Self::RollbackBinary,
        Self::PauseRollout,
        Self::KillStranger,
        Self::RestoreCheckpoint,
    ];

    /// The kind of an errand.
    #[must_use]
    pub fn of(errand: Errand) -> Self {
        match errand {
            Errand::Reboot => Self::Reboot,
            Errand::RotateCredential => Self::RotateCredential,
            Errand::FailoverBroker => Self::FailoverBroker,
            Errand::Retrain => Self::Retrain,
            Errand::RollbackBinary => Self::RollbackBinary,
            Errand::PauseRollout => Self::PauseRollout,
            Errand::KillStranger => Self::KillStranger,
            Errand::RestoreCheckpoint => Self::RestoreCheckpoint,
        }
    }

    /// The step of the grammar that it is; `None` for what faults take no note of.
    #[must_use]
    pub fn step(self) -> Option<Step> {
        Some(match self {
            Self::Restart => Step::Restart,
            Self::RollbackModel => Step::PutModel,
            Self::RollbackConfig => Step::PutConfig,
            Self::PruneData => Step::Prune,
            Self::Isolate => Step::Isolate,
            Self::Release => Step::Release,
            Self::Reroute => Step::Reroute,
            Self::ScaleOut => Step::ScaleOut,
            Self::Prewarm => Step::Prewarm,
            Self::Freeze => Step::Freeze,
            Self::LimitCpu => Step::LimitCpu,
            Self::LimitRate => Step::LimitRate,
            Self::BlockSource | Self::BlockPort => Step::BlockSource,
            Self::ClearLocks => Step::ClearLocks,
            Self::Snapshot => Step::Snapshot,
            Self::RestoreSnapshot => Step::RestoreSnapshot,
            Self::FlushCache => Step::Flush,
            Self::ResetPool => Step::ResetPool,
            Self::Degrade => Step::Degrade,
            Self::SyncClock => Step::SyncClock,
            Self::SwitchUplink => Step::SwitchUplink,
            Self::Remount => Step::Remount,
            Self::Reboot => Step::Reboot,
            Self::RotateCredential => Step::RotateCredential,
            Self::FailoverBroker => Step::FailoverBroker,
            Self::Retrain => Step::Retrain,
            Self::RollbackBinary => Step::PutBinary,
            Self::PauseRollout => Step::PauseRollout,
            Self::KillStranger => Step::KillStranger,
            Self::RestoreCheckpoint => Step::RestoreCheckpoint,
            Self::ScaleIn
            | Self::Thaw
            | Self::UnlimitCpu
            | Self::UnlimitRate
            | Self::UnblockSource
            | Self::UnblockPort
            | Self::Undegrade
            | Self::ReleaseUplink
            | Self::Wait => return None,
        })
    }

    /// Whether it changes nothing by itself.
    #[must_use]
    pub fn waits(self) -> bool {
        self == Self::Wait
    }
}

/// Whom a move is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whom {
    /// A replica.
    Replica(ReplicaNo),
    /// A route.
    Route(RouteNo),
    /// A node.
    Node(NodeNo),
    /// Nobody, or everybody.
    All,
}

/// One step with its target.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// What.
    pub kind: Kind,
    /// About whom.
    pub whom: Whom,
    /// As it is ordered.
    pub order: Order,
}

impl std::fmt::Display for Move {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", Written(&self.order))
    }
}

/// An order as it is written: `edge-1: restart(infer-1, grace=2s)`.
#[derive(Debug, Clone, Copy)]
pub struct Written<'o>(pub &'o Order);

impl std::fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Order::Node(node, plan) => write!(f, "{node}: {plan}"),
            Order::Fleet(plan) => write!(f, "{plan}"),
        }
    }
}

/// A wait as a move, in seconds.
pub const WAIT_S: u32 = 30;
/// Share of the quota that a prune leaves.
const PRUNE: &str = "20%";
/// Share of the processors that a limit leaves.
const CPU: &str = "25%";
/// Shares of the usual demand that limits of a rate leave.
const RATES: [f64; 2] = [0.85, 0.6];

/// What can be done in a topology.
#[derive(Debug, Clone)]
pub struct Moves {
    all: Vec<Move>,
    by_kind: Vec<Vec<usize>>,
}

impl Moves {
    /// All of a topology, in a fixed order.
    #[must_use]
    pub fn new(topology: &Topology) -> Self {
        let mut list = List {
            topology,
            all: Vec::new(),
        };
        for at in 0..topology.replicas().len() {
            list.replica(ReplicaNo::new(at));
        }
        for at in 0..topology.routes().len() {
            list.route(RouteNo::new(at));
        }
        for at in 0..topology.nodes().len() {
            list.node(NodeNo::new(at));
        }
        list.anywhere();
        let all = list.all;
        let mut by_kind = vec![Vec::new(); Kind::ALL.len()];
        for (at, one) in all.iter().enumerate() {
            by_kind[one.kind as usize].push(at);
        }
        Self { all, by_kind }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Move] {
        &self.all
    }

    /// One kind about somebody.
    #[must_use]
    pub fn find(&self, kind: Kind, whom: Whom) -> Option<&Move> {
        self.of(kind).find(|one| one.whom == whom)
    }

    /// All of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Move> {
        self.by_kind[kind as usize].iter().map(|at| &self.all[*at])
    }
}

struct List<'t> {
    topology: &'t Topology,
    all: Vec<Move>,
}

impl List<'_> {
    /// Adds a plan of one node; names of a topology are short enough to be read back.
    fn add(&mut self, kind: Kind, whom: Whom, node: &NodeId, text: &str) {
        let plan: Result<Plan, _> = text.parse();
        debug_assert!(plan.is_ok(), "{text}: {plan:?}");
        if let Ok(plan) = plan {
            let order = Order::Node(node.clone(), plan);
            self.all.push(Move { kind, whom, order });
        }
    }

    fn errand(&mut self, errand: Errand, whom: Whom, replica: ReplicaNo) {
        let topology = self.topology;
        let hook = topology.webhooks().iter().find(|hook| hook.does == errand);
        let Some(hook) = hook else {
            return;
        };
        let own = &topology.replicas()[replica.at()];
        let node = &topology.nodes()[own.node.at()].name;
        // What the operator does comes about later.
        let span = hook.seconds.max(1.0) + 1.0;
        let call = format!("call-webhook({}, to={})", own.name, hook.name);
        if errand != Errand::Reboot {
            self.add(
                Kind::of(errand),
                whom,
                node,
                &format!("{call} ; wait({span:.0}s)"),
            );
            return;
        }
        // A node that is down cannot ask, nor wait.
        let other = topology
            .nodes()
            .iter()
            .rev()
            .find(|other| other.name != *node);
        let other = other.map_or(node, |other| &other.name);
        let plan: Result<FleetPlan, _> =
            format!("{node}: {call} ; {other}: wait({span:.0}s)").parse();
        debug_assert!(plan.is_ok(), "{plan:?}");
        if let Ok(plan) = plan {
            let order = Order::Fleet(plan);
            let kind = Kind::Reboot;
            self.all.push(Move { kind, whom, order });
        }
    }

    fn replica(&mut self, no: ReplicaNo) {
        let topology = self.topology;
        let own = &topology.replicas()[no.at()];
        let route = &topology.routes()[own.route.at()];
        let here = &topology.nodes()[own.node.at()].name;
        let there = &topology.nodes()[route.at.at()].name;
        let (name, of) = (&own.name, &route.name);
        let whom = Whom::Replica(no);
        let mut add = |kind, node, text: String| self.add(kind, whom, node, &text);
        add(Kind::Restart, here, format!("restart({name}, grace=2s)"));
        let good = topology.config(no, Version::Good);
        add(
            Kind::RollbackConfig,
            here,
            format!("rollback-config({name}, to={good})"),
        );
        if route.model {
            let good = topology.model(no, Version::Good);
            add(
                Kind::RollbackModel,
                here,
                format!("rollback-model({name}, to={good})"),
            );
        }
        if route.replicas.len() > 1 {
            add(
                Kind::Isolate,
                there,
                format!("isolate({of}, {name}, drain=1s)"),
            );
            add(Kind::Release, there, format!("release({of}, {name})"));
        }
        if own.standby {
            add(Kind::ScaleOut, here, format!("scale-out({of}, {name})"));
            add(
                Kind::ScaleIn,
                here,
                format!("scale-in({of}, {name}, drain=1s)"),
            );
            add(Kind::Prewarm, here, format!("prewarm({name})"));
        }
        add(Kind::Freeze, here, format!("freeze({name})"));
        add(Kind::Thaw, here, format!("thaw({name})"));
        add(Kind::LimitCpu, here, format!("limit-cpu({name}, to={CPU})"));
        add(Kind::UnlimitCpu, here, format!("unlimit-cpu({name})"));
        let strangers = topology.strangers();
        add(
            Kind::BlockPort,
            here,
            format!("block-port({name}, from={strangers})"),
        );
        add(
            Kind::UnblockPort,
            here,
            format!("unblock-port({name}, from={strangers})"),
        );
        for offer in &route.offers {
            match offer {
                Offer::Prune => add(
                    Kind::PruneData,
                    here,
                    format!("prune-data({name}, to={PRUNE})"),
                ),
                Offer::Locks => add(Kind::ClearLocks, here, format!("clear-locks({name})")),
                Offer::Snapshot => {
                    add(Kind::Snapshot, here, format!("snapshot({name})"));
                    add(
                        Kind::RestoreSnapshot,
                        here,
                        format!("restore-snapshot({name})"),
                    );
                }
                Offer::FlushCache => add(Kind::FlushCache, here, format!("flush-cache({name})")),
                Offer::ResetPool => add(Kind::ResetPool, here, format!("reset-pool({name})")),
                Offer::Degrade => {
                    add(Kind::Degrade, here, format!("degrade({name})"));
                    add(Kind::Undegrade, here, format!("undegrade({name})"));
                }
                Offer::Remount => add(Kind::Remount, here, format!("remount-writable({name})")),
            }
        }
        for to in route.replicas.iter().filter(|to| **to != no) {
            let to = &topology.replicas()[to.at()];
            if !to.standby && !own.standby {
                let to = &to.name;
                let text = format!("reroute({of}, from={name}, to={to}, share=50%)");
                self.add(Kind::Reroute, whom, there, &text);
            }
        }
        if route.stateful {
            self.errand(Errand::RestoreCheckpoint, whom, no);
        }
    }

    fn route(&mut self, no: RouteNo) {
        let topology = self.topology;
        let route = &topology.routes()[no.at()];
        let Some(first) = route.replicas.first().copied() else {
            return;
        };
        let (whom, name) = (Whom::Route(no), &route.name);
        let at = &topology.nodes()[route.at.at()].name;
        // What a route behind others gets is bounded by what it can do.
        let rates = if route.demand > 0.0 {
            RATES.map(|share| route.demand * share).to_vec()
        } else {
            vec![route.rate * 0.8]
        };
        for rate in rates {
            self.add(
                Kind::LimitRate,
                whom,
                at,
                &format!("limit-rate({name}, to={:.0}/s)", rate.max(1.0)),
            );
        }
        self.add(
            Kind::UnlimitRate,
            whom,
            at,
            &format!("unlimit-rate({name})"),
        );
        let from = topology.strangers();
        self.add(
            Kind::BlockSource,
            whom,
            at,
            &format!("block-source({name}, from={from})"),
        );
        self.add(
            Kind::UnblockSource,
            whom,
            at,
            &format!("unblock-source({name}, from={from})"),
        );
        self.errand(Errand::RotateCredential, whom, first);
        self.errand(Errand::RollbackBinary, whom, first);
        if route.stateful {
            self.errand(Errand::FailoverBroker, whom, first);
        }
        if route.model {
            self.errand(Errand::Retrain, whom, first);
        }
    }

    fn node(&mut self, no: NodeNo) {
        let topology = self.topology;
        let node = &topology.nodes()[no.at()];
        let Some(first) = node.replicas.first().copied() else {
            return;
        };
        let (whom, name) = (Whom::Node(no), &topology.replicas()[first.at()].name);
        self.add(
            Kind::SyncClock,
            whom,
            &node.name,
            &format!("sync-clock({name})"),
        );
        for link in node.uplinks.iter().skip(1) {
            if let LinkOf::Uplink(_, to) = &topology.links()[link.at()].of {
                let text = format!("switch-uplink({name}, to={to})");
                self.add(Kind::SwitchUplink, whom, &node.name, &text);
            }
        }
        if node.uplinks.len() > 1 {
            self.add(
                Kind::ReleaseUplink,
                whom,
                &node.name,
                &format!("release-uplink({name})"),
            );
        }
        self.errand(Errand::Reboot, whom, first);
        self.errand(Errand::KillStranger, whom, first);
    }

    fn anywhere(&mut self) {
        self.errand(Errand::PauseRollout, Whom::All, ReplicaNo::new(0));
        let node = &self.topology.nodes()[self.topology.replicas()[0].node.at()].name;
        self.add(Kind::Wait, Whom::All, node, &format!("wait({WAIT_S}s)"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Incident;
    use crate::world::World;

    #[test]
    fn every_move_of_every_shipped_topology_is_taken() {
        for (name, _) in Topology::shipped() {
            let topology = Topology::named(name).unwrap();
            let moves = Moves::new(&topology);
            for one in moves.all() {
                let mut world = World::new(&topology, &Incident::none(), 1).unwrap();
                assert!(world.order(&one.order).is_ok(), "{name}: {one}");
            }
            for kind in Kind::ALL {
                assert!(moves.of(kind).all(|one| one.kind == kind));
            }
        }
        let moves = Moves::new(&Topology::reference());
        for kind in Kind::ALL {
            assert!(moves.of(kind).next().is_some(), "{kind:?}");
        }
    }
}
