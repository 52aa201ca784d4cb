//! What families are made of: bases, what else can be wrong, what is lost, and where.

use super::super::draw::Draw;
use super::super::grammar::{
    Cause, Coupling, Cue, Fault, Lines, Locus, Mechanism, Place as Kind, Step, Trigger, Visibility,
};
use super::families::Family;
use crate::observe::Template;
use crate::policy::{Kind as Do, Whom};
use crate::topology::{NodeNo, Offer, RouteNo, Topology};

/// Calls per request from which a service counts as on the way.
const ON_THE_WAY: f64 = 0.4;
/// A service with more callers is near to so much that looking at all pairs of steps takes
/// too long.
const CALLERS_MAX: usize = 12;
/// A lock-out that no episode outlasts, in seconds.
const FOR_GOOD_S: f64 = 900.0;

/// What is done, about whom.
pub(super) type Steps = Vec<(Do, Whom)>;

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum $name { $($variant),+ }

        impl $name {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),+];

            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

named! {
    /// What keeps a whole service from working.
    Base {
        Credential = "credential",
        Binary = "binary",
        Config = "config",
        Model = "model",
        Hang = "hang",
        Threads = "threads",
        Slow = "slow",
        Drift = "drift",
    }
}

named! {
    /// What else is wrong, elsewhere.
    Extra {
        Hang = "and-hang",
        Crash = "and-crash",
        Stranger = "and-stranger",
        Cache = "and-cache",
        Clock = "and-clock",
    }
}

impl Base {
    /// The step without which it does not end.
    pub(super) fn step(self) -> Step {
        match self {
            Self::Credential => Step::RotateCredential,
            Self::Binary => Step::PutBinary,
            Self::Config => Step::PutConfig,
            Self::Model => Step::PutModel,
            Self::Hang | Self::Threads | Self::Slow => Step::Restart,
            Self::Drift => Step::Retrain,
        }
    }
}

/// Where a drawn incident takes place.
pub(super) struct Place<'t> {
    pub(super) topology: &'t Topology,
    /// The service of the base.
    pub(super) route: RouteNo,
    /// A node on which it runs.
    pub(super) node: NodeNo,
    pub(super) base: Base,
    taken: Vec<RouteNo>,
}

impl<'t> Place<'t> {
    pub(super) fn new(
        draw: &mut Draw,
        topology: &'t Topology,
        base: Base,
        family: Family,
    ) -> Option<Self> {
        let fits = |no: &RouteNo| {
            let route = &topology.routes()[no.at()];
            let active = actives(topology, *no).len();
            let kind = match base {
                Base::Model | Base::Drift => route.model,
                _ => !route.model,
            };
            kind && active > 0 && family.fits(route) && callers(topology, *no) <= CALLERS_MAX
        };
        let all: Vec<_> = on_the_way(topology).into_iter().filter(fits).collect();
        let route = *draw.one(&all)?;
        let first = *draw.one(&actives(topology, route))?;
        Some(Self {
            topology,
            route,
            node: topology.replicas()[first.at()].node,
            base,
            taken: vec![route],
        })
    }

    pub(super) fn name(&self) -> &'t str {
        self.topology.routes()[self.route.at()].name.as_str()
    }

    pub(super) fn node_name(&self) -> &'t str {
        self.topology.nodes()[self.node.at()].name.as_str()
    }

    /// The usual uplink of the node.
    pub(super) fn link_name(&self) -> Option<&'t str> {
        let uplinks = &self.topology.nodes()[self.node.at()].uplinks;
        let first = uplinks.first().filter(|_| uplinks.len() > 1)?;
        Some(&self.topology.links()[first.at()].name)
    }

    pub(super) fn replicas(&self) -> Vec<&'t str> {
        let all = actives(self.topology, self.route).into_iter();
        all.map(|no| self.topology.replicas()[no.at()].name.as_str())
            .collect()
    }

    /// The base, and what to say of it.
    pub(super) fn base(&self, draw: &mut Draw) -> (Fault, String) {
        let name = self.name();
        let service = |mechanism, low, high, draw: &mut Draw| {
            let strength = draw.round(low, high, 0.05);
            fault("base", mechanism, Kind::Service, name, strength)
        };
        match self.base {
            Base::Credential => (
                service(Mechanism::DenyCredential, 0.5, 0.8, draw),
                format!("The credential of {name} has expired."),
            ),
            Base::Binary => (
                service(Mechanism::RegressBinary, 0.6, 0.9, draw),
                format!("A new program of {name} is slow and leaks."),
            ),
            Base::Config => (
                service(Mechanism::CorruptConfig, 0.35, 0.45, draw),
                format!("With a new configuration {name} answers wrongly."),
            ),
            Base::Model => {
                let strength = draw.round(0.6, 0.85, 0.05);
                (
                    fault("base", Mechanism::RegressModel, Kind::Model, name, strength),
                    format!("A new model of {name} is worse than the one before."),
                )
            }
            Base::Hang => (
                service(Mechanism::Hang, 0.5, 0.5, draw),
                format!("All of {name} hold their ports and answer nothing."),
            ),
            Base::Threads => (
                service(Mechanism::LeakThreads, 0.7, 0.9, draw),
                format!("All of {name} begin threads and end none."),
            ),
            Base::Slow => (
                service(Mechanism::Slow, 0.8, 0.95, draw),
                format!("All of {name} have become slow."),
            ),
            Base::Drift => {
                let strength = draw.round(0.6, 0.8, 0.05);
                let mut one = fault("base", Mechanism::Drift, Kind::Model, name, strength);
                one.visibility = Visibility::Grey;
                (
                    one,
                    format!("The world moves away from what {name} has learned."),
                )
            }
        }
    }

    /// The steps that end the base, the one without which it does not end first.
    pub(super) fn repair(&self) -> Steps {
        let all = actives(self.topology, self.route);
        let each = |kind: Do| all.iter().map(move |no| (kind, Whom::Replica(*no)));
        let whole = |kind: Do| std::iter::once((kind, Whom::Route(self.route)));
        let offers = &self.topology.routes()[self.route.at()].offers;
        let fresh = if offers.contains(&Offer::ResetPool) {
            Do::ResetPool
        } else {
            Do::Restart
        };
        match self.base {
            Base::Credential => whole(Do::RotateCredential).chain(each(fresh)).collect(),
            Base::Binary => whole(Do::RollbackBinary).chain(each(Do::Restart)).collect(),
            Base::Config => each(Do::RollbackConfig).chain(each(Do::Restart)).collect(),
            Base::Model => each(Do::RollbackModel).collect(),
            Base::Hang | Base::Threads | Base::Slow => each(Do::Restart).collect(),
            Base::Drift => whole(Do::Retrain).collect(),
        }
    }

    /// A step at the first of its replicas.
    pub(super) fn at_first(&self, kind: Do) -> Steps {
        let all = actives(self.topology, self.route);
        all.first()
            .map(|no| (kind, Whom::Replica(*no)))
            .into_iter()
            .collect()
    }

    /// A step at each of its replicas.
    pub(super) fn at_each(&self, kind: Do) -> Steps {
        let all = actives(self.topology, self.route).into_iter();
        all.map(|no| (kind, Whom::Replica(no))).collect()
    }

    /// A service on the way on which nothing is laid yet.
    fn other(&mut self, draw: &mut Draw, is: impl Fn(RouteNo) -> bool) -> Option<RouteNo> {
        let topology = self.topology;
        let near = related(topology, self.route);
        let free = |no: &RouteNo| {
            near[no.at()]
                && !self.taken.contains(no)
                && callers(topology, *no) <= CALLERS_MAX
                && is(*no)
        };
        let all: Vec<_> = on_the_way(topology).into_iter().filter(free).collect();
        let one = *draw.one(&all)?;
        self.taken.push(one);
        Some(one)
    }

    /// What a wrong step loses for as long as anybody cares; each time something else.
    pub(super) fn harm(&mut self, draw: &mut Draw, id: &str) -> Option<(Fault, String)> {
        let topology = self.topology;
        let route = |no: RouteNo| &topology.routes()[no.at()];
        let strength = draw.round(0.75, 0.95, 0.05);
        let which = draw.round(0.0, 6.0, 1.0);
        let (mut harm, about) = match which {
            w if w < 1.0 => {
                let to = route(self.other(draw, |_| true)?).name.as_str();
                let mut harm = fault(id, Mechanism::DenyCredential, Kind::Service, to, strength);
                harm.couplings.push(for_good(Step::RotateCredential));
                (harm, format!("what {to} was granted is revoked"))
            }
            w if w < 2.0 => {
                let to = self.other(draw, |no| route(no).stateful)?;
                let to = route(to).name.as_str();
                let mut harm = fault(id, Mechanism::Die, Kind::Broker, to, strength);
                harm.couplings.push(for_good(Step::FailoverBroker));
                (harm, format!("{to} has nobody who leads"))
            }
            w if w < 3.0 => {
                let to = self.other(draw, |no| !route(no).model)?;
                let to = route(to).name.as_str();
                let mut harm = fault(id, Mechanism::CorruptConfig, Kind::Service, to, strength);
                harm.couplings.push(for_good(Step::PutConfig));
                (harm, format!("{to} ends as it reads what it is given"))
            }
            w if w < 4.0 => {
                let to = self.other(draw, |no| route(no).model)?;
                let to = route(to).name.as_str();
                let mut harm = fault(id, Mechanism::CorruptModel, Kind::Model, to, strength);
                harm.couplings.push(for_good(Step::PutModel));
                harm.couplings.push(for_good(Step::Retrain));
                (harm, format!("the models of {to} are damaged"))
            }
            w if w < 5.0 => {
                let entries: Vec<_> = topology
                    .routes()
                    .iter()
                    .filter(|route| route.demand > 0.0)
                    .collect();
                let near = related(topology, self.route);
                let own = |route: &&&crate::topology::Route| {
                    topology
                        .routes()
                        .iter()
                        .position(|other| other.name == route.name)
                        .is_some_and(|at| near[at])
                };
                let own: Vec<_> = entries.iter().filter(own).collect();
                let to = draw.one(&own)?.name.as_str();
                let mut harm = fault(id, Mechanism::Surge, Kind::Service, to, 1.0);
                harm.trigger.lasts = Some(FOR_GOOD_S);
                (
                    harm,
                    format!("all clients of {to} come at once for a quarter of an hour"),
                )
            }
            w if w < 6.0 => {
                let outside = topology.routes().iter().enumerate().filter(|(at, route)| {
                    let calls = topology.routes().iter().flat_map(|from| &from.calls);
                    let mut calls = calls.filter(|call| call.to.at() == *at && call.needed);
                    route.outside_ms.is_some() && calls.any(|call| call.share >= 0.1)
                });
                let outside: Vec<_> = outside.collect();
                let to = draw.one(&outside)?.1.name.as_str();
                let mut harm = fault(id, Mechanism::Die, Kind::Outside, to, 0.9);
                harm.trigger.lasts = Some(FOR_GOOD_S);
                (
                    harm,
                    format!("{to} answers nobody for a quarter of an hour"),
                )
            }
            _ => {
                let to = self.other(draw, |no| !route(no).model)?;
                let to = route(to).name.as_str();
                let mut harm = fault(id, Mechanism::RegressBinary, Kind::Service, to, 0.95);
                harm.couplings.push(for_good(Step::PutBinary));
                (harm, format!("{to} is left with a program that is slow"))
            }
        };
        harm.trigger.cause = Cause::Coupled;
        harm.visibility = Visibility::Grey;
        Some((harm, about))
    }

    /// Something of its own, elsewhere.
    pub(super) fn extra(
        &mut self,
        draw: &mut Draw,
        extra: Extra,
    ) -> Option<(Fault, String, Steps)> {
        let topology = self.topology;
        let restarts = |no: RouteNo| -> Steps {
            let all = actives(topology, no).into_iter();
            all.map(|one| (Do::Restart, Whom::Replica(one))).collect()
        };
        let route = |no: RouteNo| &topology.routes()[no.at()];
        let name = |no: RouteNo| topology.routes()[no.at()].name.as_str();
        Some(match extra {
            Extra::Hang => {
                let no = self.other(draw, |no| !route(no).model)?;
                let to = name(no);
                (
                    fault("extra", Mechanism::Hang, Kind::Service, to, 0.5),
                    format!("All of {to} hang."),
                    restarts(no),
                )
            }
            Extra::Crash => {
                let no = self.other(draw, |_| true)?;
                let to = name(no);
                (
                    fault("extra", Mechanism::Die, Kind::Service, to, 0.5),
                    format!("All of {to} have ended."),
                    restarts(no),
                )
            }
            Extra::Cache => {
                let near = related(topology, self.route);
                let caches = topology.routes().iter().zip(near);
                let caches: Vec<_> = caches
                    .filter(|(route, near)| route.hit > 0.0 && *near)
                    .collect();
                let to = draw.one(&caches)?.0;
                let (to, keeps) = (to.name.as_str(), &to.replicas);
                (
                    fault("extra", Mechanism::CorruptCache, Kind::Service, to, 0.6),
                    format!("What {to} remembers is wrong."),
                    keeps
                        .iter()
                        .map(|no| (Do::FlushCache, Whom::Replica(*no)))
                        .collect(),
                )
            }
            Extra::Stranger | Extra::Clock => {
                let to = self.other(draw, |_| true)?;
                let at = *draw.one(&actives(topology, to))?;
                let node = topology.replicas()[at.at()].node;
                if node == self.node {
                    return None;
                }
                let no = Whom::Node(node);
                let node = topology.nodes()[node.at()].name.as_str();
                if extra == Extra::Clock {
                    (
                        fault("extra", Mechanism::Skew, Kind::Node, node, 0.6),
                        format!("The clock of {node} is ahead."),
                        vec![(Do::SyncClock, no)],
                    )
                } else {
                    (
                        fault("extra", Mechanism::Spin, Kind::Node, node, 0.9),
                        format!("A stranger takes the processors of {node}."),
                        vec![(Do::KillStranger, no)],
                    )
                }
            }
        })
    }
}

/// A fault with nothing but what and where.
pub(super) fn fault(
    id: &str,
    mechanism: Mechanism,
    place: Kind,
    name: &str,
    strength: f64,
) -> Fault {
    Fault {
        id: id.to_owned(),
        mechanism,
        locus: Locus {
            place,
            name: name.to_owned(),
        },
        trigger: Trigger::AT_ONCE,
        strength,
        couplings: Vec::new(),
        visibility: Visibility::Clear,
        cues: Vec::new(),
        lines: Lines::default(),
    }
}

/// A step that is refused until an episode is over, from the first try on.
pub(super) fn for_good(step: Step) -> Coupling {
    Coupling::Holds {
        step,
        tries: 0,
        lockout: FOR_GOOD_S,
    }
}

pub(super) fn cue(template: Template, rate: f64) -> Cue {
    Cue {
        template,
        by: None,
        rate,
    }
}

/// Replicas of a route that are no standbys.
fn actives(topology: &Topology, no: RouteNo) -> Vec<crate::topology::ReplicaNo> {
    let all = topology.routes()[no.at()].replicas.iter().copied();
    all.filter(|one| !topology.replicas()[one.at()].standby)
        .collect()
}

/// How many routes call it, or call those.
fn callers(topology: &Topology, no: RouteNo) -> usize {
    let mut known = vec![false; topology.routes().len()];
    known[no.at()] = true;
    // Callers come before what they call.
    for caller in topology.order.iter().rev() {
        let calls = &topology.routes()[caller.at()].calls;
        if calls.iter().any(|call| known[call.to.at()]) {
            known[caller.at()] = true;
        }
    }
    known.iter().filter(|one| **one).count()
}

/// What calls it, and what it or these call.
fn related(topology: &Topology, no: RouteNo) -> Vec<bool> {
    let mut known = vec![false; topology.routes().len()];
    known[no.at()] = true;
    for caller in topology.order.iter().rev() {
        let calls = &topology.routes()[caller.at()].calls;
        if calls.iter().any(|call| known[call.to.at()]) {
            known[caller.at()] = true;
        }
    }
    for caller in &topology.order {
        if known[caller.at()] {
            for call in &topology.routes()[caller.at()].calls {
                known[call.to.at()] = true;
            }
        }
    }
    known
}

/// Services of ours without which requests fail.
fn on_the_way(topology: &Topology) -> Vec<RouteNo> {
    let routes = topology.routes();
    let called = |at: usize| {
        let calls = routes.iter().flat_map(|from| &from.calls);
        let mut calls = calls.filter(|call| call.to.at() == at && call.needed);
        calls.any(|call| call.share >= ON_THE_WAY)
    };
    let needed = (0..routes.len()).filter(|at| {
        let route = &routes[*at];
        route.outside_ms.is_none() && (route.demand > 0.0 || called(*at))
    });
    needed.map(RouteNo::new).collect()
}
