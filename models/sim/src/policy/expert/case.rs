//! What productions are asked with: questions about what is seen, and repairs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::signs::{NodeSign, ReplicaSign, RouteSign, Signs};
use super::super::{Kind, Whom};
use crate::observe::Template;
use crate::topology::{LinkNo, NodeNo, Offer, ReplicaNo, Route, RouteNo, Topology};

/// Lines of the last while from which a template that is written all day counts as written
/// for a reason: usually it comes to less than one.
const SOME: u32 = 3;
/// And of others; one alone may be a mistake.
const FEW: u32 = 2;

/// Steps against one cause.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Repair {
    /// The production that wants it.
    pub(super) of: &'static str,
    /// About whom.
    pub(super) whom: Whom,
    /// In turn.
    pub(super) steps: Vec<(Kind, Whom)>,
    /// Guards that changed them.
    pub(super) changed_by: Vec<&'static str>,
}

impl Repair {
    pub(super) fn new(whom: Whom, steps: impl IntoIterator<Item = (Kind, Whom)>) -> Self {
        Self {
            of: "",
            whom,
            steps: steps.into_iter().collect(),
            changed_by: Vec::new(),
        }
    }

    /// What it is, to remember what was done about it.
    pub(super) fn key(&self) -> String {
        format!("{} {:?}", self.of, self.whom)
    }

    /// Which productions want it, for people.
    pub(super) fn why(&self, topology: &Topology) -> String {
        let whom = match self.whom {
            Whom::Replica(no) => topology.replicas()[no.at()].name.as_str(),
            Whom::Route(no) => topology.routes()[no.at()].name.as_str(),
            Whom::Node(no) => topology.nodes()[no.at()].name.as_str(),
            Whom::All => "all",
        };
        let mut why = format!("{} at {whom}", self.of);
        for guard in &self.changed_by {
            let _ = write!(why, ", {guard}");
        }
        why
    }

    /// The place of the first step of a kind.
    pub(super) fn first(&self, kinds: &[Kind]) -> Option<usize> {
        self.steps.iter().position(|(kind, _)| kinds.contains(kind))
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.first(&[kind]).is_some()
    }

    /// Puts a step before the first of some kinds, unless it is there.
    pub(super) fn before(&mut self, kinds: &[Kind], step: (Kind, Whom)) {
        if let Some(at) = self.first(kinds)
            && !self.steps[..at].contains(&step)
        {
            self.steps.retain(|other| *other != step);
            let at = self.first(kinds).unwrap_or(0);
            self.steps.insert(at, step);
        }
    }

    /// Leaves steps of a kind out.
    pub(super) fn drop(&mut self, kinds: &[Kind]) {
        self.steps.retain(|(kind, _)| !kinds.contains(kind));
    }
}

/// What is known.
#[derive(Clone, Copy)]
pub(super) struct Case<'c> {
    pub(super) topology: &'c Topology,
    pub(super) signs: &'c Signs,
    pub(super) now: f64,
    /// Steps done, and when last.
    pub(super) done: &'c BTreeMap<(Kind, Whom), f64>,
    /// Steps that failed, and when last.
    pub(super) failed: &'c BTreeMap<(Kind, Whom), f64>,
}

impl<'c> Case<'c> {
    pub(super) fn replicas(&self) -> impl Iterator<Item = ReplicaNo> + use<> {
        (0..self.topology.replicas().len()).map(ReplicaNo::new)
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = (RouteNo, &'c Route)> + use<'c> {
        let routes = self.topology.routes().iter().enumerate();
        routes.map(|(at, route)| (RouteNo::new(at), route))
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeNo> + use<> {
        (0..self.topology.nodes().len()).map(NodeNo::new)
    }

    pub(super) fn replica(&self, no: ReplicaNo) -> &'c ReplicaSign {
        &self.signs.replicas[no.at()]
    }

    pub(super) fn route(&self, no: RouteNo) -> &'c RouteSign {
        &self.signs.routes[no.at()]
    }

    pub(super) fn node(&self, no: NodeNo) -> &'c NodeSign {
        &self.signs.nodes[no.at()]
    }

    pub(super) fn route_of(&self, no: ReplicaNo) -> RouteNo {
        self.topology.replicas()[no.at()].route
    }

    pub(super) fn node_of(&self, no: ReplicaNo) -> NodeNo {
        self.topology.replicas()[no.at()].node
    }

    pub(super) fn standby(&self, no: ReplicaNo) -> bool {
        self.topology.replicas()[no.at()].standby
    }

    pub(super) fn backends(&self, no: RouteNo) -> impl Iterator<Item = ReplicaNo> + use<'c> {
        self.topology.routes()[no.at()].replicas.iter().copied()
    }

    pub(super) fn siblings(&self, no: ReplicaNo) -> impl Iterator<Item = ReplicaNo> + use<'c> {
        self.backends(self.route_of(no))
            .filter(move |other| *other != no)
    }

    pub(super) fn on(&self, node: NodeNo) -> impl Iterator<Item = ReplicaNo> + use<'c> {
        self.topology.nodes()[node.at()].replicas.iter().copied()
    }

    pub(super) fn usual_uplink(&self, node: NodeNo) -> LinkNo {
        self.topology.nodes()[node.at()].uplinks[0]
    }

    pub(super) fn offers(&self, no: ReplicaNo, offer: Offer) -> bool {
        self.topology.routes()[self.route_of(no).at()]
            .offers
            .contains(&offer)
    }

    /// It is there and answers.
    pub(super) fn runs(&self, no: ReplicaNo) -> bool {
        self.signs.there(no) && self.replica(no).mute < 2
    }

    pub(super) fn down(&self, no: ReplicaNo) -> bool {
        self.replica(no).down > 0
    }

    pub(super) fn mute(&self, no: ReplicaNo) -> bool {
        self.replica(no).mute > 1 && self.replica(no).down == 0
    }

    /// Users notice.
    pub(super) fn suffers(&self) -> bool {
        self.signs.users_suffer(self.topology)
    }

    /// A replica writes a template for a reason.
    pub(super) fn says(&self, no: ReplicaNo, template: Template) -> bool {
        self.signs.lines(no, template) >= self.enough(template)
    }

    /// A replica of a route does.
    pub(super) fn route_says(&self, no: RouteNo, template: Template) -> bool {
        self.signs.lines_route(self.topology, no, template) >= self.enough(template)
    }

    /// Somebody on a node does.
    pub(super) fn node_says(&self, no: NodeNo, template: Template) -> bool {
        self.signs.lines_node(self.topology, no, template) >= self.enough(template)
    }

    /// Somebody does.
    pub(super) fn somebody_says(&self, template: Template) -> bool {
        self.signs.lines_all(template) >= 2 * self.enough(template) - 1
    }

    fn enough(&self, template: Template) -> u32 {
        if self.signs.usual(template) {
            SOME
        } else {
            FEW
        }
    }

    /// A step was done, and not longer ago than this.
    pub(super) fn did(&self, kind: Kind, whom: Whom, within_s: f64) -> bool {
        self.done
            .get(&(kind, whom))
            .is_some_and(|at| self.now - at <= within_s)
    }

    /// It was tried and failed, and not longer ago than this.
    pub(super) fn failed(&self, kind: Kind, whom: Whom, within_s: f64) -> bool {
        self.failed
            .get(&(kind, whom))
            .is_some_and(|at| self.now - at <= within_s)
    }

    /// A standby of a route that does not run yet, the one on the least busy node.
    pub(super) fn spare(&self, route: RouteNo) -> Option<ReplicaNo> {
        let spare = |no: &ReplicaNo| {
            let own = self.node_of(*no);
            self.standby(*no) && !self.signs.there(*no) && self.node(own).silent == 0
        };
        let busy = |no: &ReplicaNo| self.node(self.node_of(*no)).busy.or(1.0);
        self.backends(route)
            .filter(spare)
            .min_by(|a, b| busy(a).total_cmp(&busy(b)))
    }

    /// The clock of a node is off by more than clocks are.
    pub(super) fn skewed(&self, node: NodeNo) -> bool {
        self.node(node).ahead.or(0.0).abs() > 20.0
    }

    /// A usual uplink is bad, and in use.
    pub(super) fn bad_uplink(&self, node: NodeNo) -> bool {
        let link = self.signs.link(self.usual_uplink(node));
        let bad = link.down > 0
            || link.flaps > 1
            || link.loss.or(0.0) > 0.035
            || link.rtt_ms.above() > 1.5;
        bad && !self.did(Kind::SwitchUplink, Whom::Node(node), f64::INFINITY)
    }

    /// A fresh process of each backend of a route that has one, one after the other.
    pub(super) fn fresh(&self, route: RouteNo) -> Vec<(Kind, Whom)> {
        let live = self
            .backends(route)
            .filter(|no| !self.standby(*no) || self.signs.there(*no));
        live.map(|no| (Kind::Restart, Whom::Replica(no))).collect()
    }

    /// Each backend of a route opens its connections anew, or is a fresh process.
    pub(super) fn reconnect(&self, route: RouteNo) -> Vec<(Kind, Whom)> {
        let live = self
            .backends(route)
            .filter(|no| !self.standby(*no) || self.signs.there(*no));
        let how = live.map(|no| {
            let kind = if self.offers(no, Offer::ResetPool) {
                Kind::ResetPool
            } else {
                Kind::Restart
            };
            (kind, Whom::Replica(no))
        });
        how.collect()
    }
}
