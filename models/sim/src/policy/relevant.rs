//! The best of random plans about what shows symptoms, by a perfect simulator.
//!
//! Beside [`super::Verified`], whose plans are about anything, it tells how much of a
//! plan is to know where to look: the draw knows what is seen, the judge knows everything.
//! It draws only steps for which a symptom speaks, at whoever has it, at its siblings, its
//! route and its node.

use std::collections::BTreeSet;

use super::hints::{hints, warnings};
use super::oracle::{DRAWN, best, suffers};
use super::plain::{draw_of, illness};
use super::signs::Signs;
use super::{Kind, Move, Moves, Privileged, View, Whom};
use crate::chance::{Chance, Stream};
use crate::observe::Template;
use crate::topology::{NodeNo, ReplicaNo, RouteNo, Topology};
use crate::world::{Order, World};

/// Steps of the longest plan that is drawn: a step that protects, two repairs, and one that
/// makes room.
const LONGEST: u32 = 4;
/// Lines of one template in the last while that are more than a mistake.
const LINES: u32 = 2;
/// And where it is written all day.
const LINES_USUAL: u32 = 4;

/// See the module.
#[derive(Debug, Clone)]
pub struct Relevant {
    signs: Signs,
    chance: Chance,
    drawn: u64,
}

impl Relevant {
    /// One with draws of its own.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            signs: Signs::default(),
            chance: Chance::new(seed, Stream::Policy),
            drawn: 0,
        }
    }
}

impl Privileged for Relevant {
    fn name(&self) -> &'static str {
        "relevant"
    }

    fn looks(&self) -> bool {
        true
    }

    fn see(&mut self, view: &View<'_>) {
        self.signs.see(view.topology, view.seen);
    }

    fn decide(&mut self, world: &World, moves: &Moves, left: f64) -> Vec<Order> {
        if !suffers(world) {
            return Vec::new();
        }
        let pool = relevant(&self.signs, world.topology(), moves);
        let mut plans = Vec::new();
        for _ in 0..DRAWN {
            self.drawn += 1;
            let steps = 1 + self.chance.below(LONGEST, self.drawn, 2);
            let steps = (0..u64::from(steps)).filter_map(|step| {
                let one = draw_of(&pool, self.chance, self.drawn * 8 + step + (1 << 32));
                one.map(|one| one.order.clone())
            });
            plans.push(steps.collect());
        }
        best(world, plans.into_iter(), left)
    }
}

/// Moves for which a symptom speaks, in their order.
pub(super) fn relevant<'m>(signs: &Signs, topology: &Topology, moves: &'m Moves) -> Vec<&'m Move> {
    let mut wanted: BTreeSet<(Kind, Whom)> = BTreeSet::new();
    let mut around = |kind: Kind, no: ReplicaNo| {
        let own = &topology.replicas()[no.at()];
        let route = &topology.routes()[own.route.at()];
        wanted.extend([
            (kind, Whom::Replica(no)),
            (kind, Whom::Route(own.route)),
            (kind, Whom::Node(own.node)),
            (kind, Whom::All),
        ]);
        // Another replica starts instead, or needs the same.
        let siblings = route.replicas.iter();
        wanted.extend(siblings.map(|other| (kind, Whom::Replica(*other))));
    };
    for at in 0..topology.replicas().len() {
        let no = ReplicaNo::new(at);
        for template in Template::ALL {
            let enough = if signs.usual(*template) {
                LINES_USUAL
            } else {
                LINES
            };
            if signs.lines(no, *template) < enough {
                continue;
            }
            let speaks = |kind: &&Kind| hints(**kind).contains(template);
            for kind in Kind::ALL.iter().filter(speaks) {
                around(*kind, no);
            }
            // What is warned of is what somebody thought of; what helps against the warning
            // is among the protective steps.
            if Kind::ALL
                .iter()
                .any(|kind| warnings(*kind).contains(template))
            {
                for kind in [
                    Kind::Snapshot,
                    Kind::PauseRollout,
                    Kind::ScaleOut,
                    Kind::Wait,
                ] {
                    around(kind, no);
                }
            }
        }
        for kind in of_gauges(signs, no) {
            around(*kind, no);
        }
    }
    for at in 0..topology.nodes().len() {
        of_node(signs, topology, NodeNo::new(at), &mut wanted);
    }
    for (at, route) in topology.routes().iter().enumerate() {
        if route.demand > 0.0 && signs.routes[at].p95_ms.or(0.0) > 380.0 {
            let no = Whom::Route(RouteNo::new(at));
            wanted.extend([(Kind::LimitRate, no), (Kind::UnlimitRate, no)]);
        }
    }
    let all = moves.all().iter();
    all.filter(|one| wanted.contains(&(one.kind, one.whom)))
        .collect()
}

/// Kinds of steps for which the gauges of a replica speak.
fn of_gauges(signs: &Signs, no: ReplicaNo) -> &'static [Kind] {
    let sign = &signs.replicas[no.at()];
    if sign.down > 0 || sign.mute > 1 {
        return &[
            Kind::Restart,
            Kind::RollbackConfig,
            Kind::ScaleOut,
            Kind::Isolate,
            Kind::ClearLocks,
        ];
    }
    if signs.model_loss(no) > 0.035 {
        return &[
            Kind::RollbackModel,
            Kind::Retrain,
            Kind::BlockSource,
            Kind::Isolate,
            Kind::FlushCache,
        ];
    }
    if illness(signs, no) > 0.3 {
        return &[
            Kind::Restart,
            Kind::Isolate,
            Kind::ScaleOut,
            Kind::Degrade,
            Kind::RollbackBinary,
            Kind::ResetPool,
        ];
    }
    &[]
}

/// Steps about a node for which its gauges and its uplink speak.
fn of_node(signs: &Signs, topology: &Topology, no: NodeNo, into: &mut BTreeSet<(Kind, Whom)>) {
    let sign = &signs.nodes[no.at()];
    let node = &topology.nodes()[no.at()];
    let mut on_node = |kinds: &[Kind]| {
        for kind in kinds {
            into.insert((*kind, Whom::Node(no)));
            let on = node.replicas.iter();
            into.extend(on.map(|one| (*kind, Whom::Replica(*one))));
        }
    };
    let busy = sign.busy.or(0.0) - sign.busy.usual().unwrap_or(1.0);
    if busy > 0.25 || sign.waits_cpu.or(0.0) > 0.2 {
        on_node(&[Kind::KillStranger, Kind::LimitCpu, Kind::Degrade]);
    }
    if sign.memory_free.above() < -0.4 {
        on_node(&[Kind::KillStranger, Kind::Restart]);
    }
    if sign.disk_free.above() < -0.5 || sign.inodes_free.above() < -0.4 {
        on_node(&[Kind::PruneData, Kind::Snapshot]);
    }
    if sign.silent > 1 || sign.frozen > 1 || sign.waits_disk.or(0.0) > 0.2 {
        on_node(&[Kind::Reboot]);
    }
    if sign.celsius.or(0.0) > 74.0 {
        on_node(&[Kind::Degrade, Kind::LimitCpu]);
    }
    if sign.ahead.or(0.0).abs() > 20.0 {
        on_node(&[Kind::SyncClock]);
    }
    let link = node.uplinks.first().map(|link| signs.link(*link));
    let bad = link.is_some_and(|link| {
        link.down > 0 || link.flaps > 1 || link.loss.or(0.0) > 0.035 || link.rtt_ms.above() > 1.5
    });
    if bad || sign.silent > 1 {
        on_node(&[Kind::SwitchUplink]);
    }
}
