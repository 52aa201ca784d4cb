//! How likely each component is a root, by all that speaks for it.
//!
//! Own excess asks one question of each component. Where it is known what components are to
//! each other ([`Role`]), more can be asked: do those like it show the same, does everything
//! that it holds, is what it stands on in trouble, how much of what is wrong could it explain?
//! Each answer is a number; how much it counts for a component of that role was learned
//! ([`WEIGHTS`]) by logistic regression. No name of a component or a series goes in: kinds of
//! signals, directions, what new log lines are about ([`Topics`](crate::Topics)) and roles are
//! all it knows.
//!
//! In: graph, signals, an alarm. Out: [`Weighable`]s, and their log odds of being a root.

use alloc::{vec, vec::Vec};

use crate::diagnose::{Alarm, place, weighable};
use crate::frame::Frame;
use crate::graph::{Component, Graph, Role};
use crate::signals::Signals;
use crate::signs::{CODES, Moved, Signs};
use crate::weights::HUNDREDTHS;

/// Most components of a graph that is weighed; what each could explain takes its square.
pub const WEIGHED_MAX: usize = 1024;

/// From this strength on a component is one that something has to explain.
const LOUD: f32 = 0.4;

/// What components are to each other; the first three are the component itself: as it is, as
/// far as no other of its role shows the same, and as far as those beside it do not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Own,
    Rare,
    Alone,
    /// On average over what it holds: the instances of a service or a host, hosts of a site.
    Held,
    /// The strongest of these.
    OneHeld,
    /// What it stands on.
    Ground,
    /// Those it calls.
    Called,
    /// Those that call it, or stand on it further up; the strongest, and on average.
    Callers,
    CallersMean,
    /// On average over what it holds, or over its callers, as far as those of the ones like it
    /// do not show the same.
    HeldAlone,
    CallersAlone,
}

pub(crate) const RELATIONS: usize = 11;

impl Relation {
    /// Each at its place.
    pub(crate) const ALL: [Self; RELATIONS] = [
        Self::Own,
        Self::Rare,
        Self::Alone,
        Self::Held,
        Self::OneHeld,
        Self::Ground,
        Self::Called,
        Self::Callers,
        Self::CallersMean,
        Self::HeldAlone,
        Self::CallersAlone,
    ];
}

/// What is said of a component once.
#[derive(Clone, Copy)]
pub(crate) enum Plain {
    Bias,
    /// Rows after the first that moved, and whether it is that one.
    Late,
    First,
    Strongest,
    /// The strongest of what it stands on or calls, as it is and as far as its own.
    Below,
    Explained,
    /// How much of what is loud depends on it.
    Covers,
    /// Whether what is alarmed depends on it.
    Reached,
    /// Its part of what own excess leaves unexplained.
    Share,
}

pub(crate) const PLAIN: usize = 9;

impl Plain {
    /// Each at its place.
    pub(crate) const ALL: [Self; PLAIN] = [
        Self::Bias,
        Self::Late,
        Self::First,
        Self::Strongest,
        Self::Below,
        Self::Explained,
        Self::Covers,
        Self::Reached,
        Self::Share,
    ];
}

/// Features of one role.
pub(crate) const FEATURES: usize = RELATIONS * CODES + PLAIN;

/// Features of all roles, each with its weight.
pub const PLACES: usize = Role::COUNT * FEATURES;

/// What each feature counts, in log odds: learned from the training incidents of the simulator,
/// by logistic regression.
pub static WEIGHTS: [f32; PLACES] = {
    let mut weights = [0.0; PLACES];
    let mut at = 0;
    while at < PLACES {
        weights[at] = HUNDREDTHS[at] as f32 / 100.0;
        at += 1;
    }
    weights
};

/// What speaks for one component.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighable {
    /// Who.
    pub component: Component,
    /// Places among the weights with what stands there, each place once.
    pub features: Vec<(u16, f32)>,
}

impl Weighable {
    /// The log odds that it is a root.
    #[must_use]
    pub fn odds(&self, weights: &[f32]) -> f32 {
        let weight = |place: u16| weights.get(usize::from(place)).copied().unwrap_or(0.0);
        self.features
            .iter()
            .map(|(place, value)| weight(*place) * value)
            .sum()
    }
}

/// What speaks for all components, and what it was told from.
#[derive(Default)]
pub(crate) struct Weighing {
    pub(crate) all: Vec<Weighable>,
    pub(crate) signs: Signs,
    /// By component.
    pub(crate) near: Vec<Near>,
}

/// What speaks for each component of a known role for which anything does.
#[must_use]
pub fn gather(graph: &Graph, signals: &Signals, alarm: &Alarm) -> Vec<Weighable> {
    weighable(graph, signals, alarm)
}

/// The same of a frame that is there already; `shares`: the part of each component of what own
/// excess leaves unexplained.
pub(crate) fn of_frame(
    graph: &Graph,
    signals: &Signals,
    frame: &Frame,
    alarm: &Alarm,
    shares: &[f32],
) -> Weighing {
    let n = graph.len();
    if n > WEIGHED_MAX || (0..n).all(|of| graph.role_of(of).is_none()) {
        return Weighing::default();
    }
    let signs = Signs::of(graph, signals, frame, alarm);
    let around = Surroundings::of(graph);
    // How many of each role show the same.
    let mut of_role = [[0.0_f32; CODES]; Role::COUNT];
    for of in 0..n {
        if let Some(role) = graph.role_of(of) {
            add(&mut of_role[role as usize], &signs.moved[of]);
        }
    }
    let far: Vec<f32> = signs.moved.iter().map(strongest).collect();
    let loud: Vec<usize> = (0..n).filter(|of| far[*of] > LOUD).collect();
    let first = signs.since.iter().flatten().min().copied();
    let target = alarm.component.map(Component::index).filter(|of| *of < n);
    let reached = target.map(|of| graph.reach(of));
    let near = |of: usize| graph.role_of(of).map(|role| around.of_one(graph, of, role));
    let near: Vec<Near> = (0..n).map(|of| near(of).unwrap_or_default()).collect();
    let held: Vec<Moved> = near
        .iter()
        .map(|near| mean(&near.holds, &signs.moved))
        .collect();
    let called: Vec<Moved> = near
        .iter()
        .map(|near| mean(&near.callers, &signs.moved))
        .collect();
    let mut all = Vec::new();
    for of in 0..n {
        let Some(role) = graph.role_of(of).filter(|_| !graph.is_proxy(of)) else {
            continue;
        };
        let near = &near[of];
        let own = signs.moved[of];
        let mut rare = own;
        for (code, strength) in rare.iter_mut().enumerate() {
            let others = of_role[role as usize][code] - own[code];
            *strength *= 1.0 / (1.0 + others.max(0.0));
        }
        let relations = [
            (Relation::Own, own),
            (Relation::Rare, rare),
            (
                Relation::Alone,
                without(&own, &mean(&near.like, &signs.moved)),
            ),
            (Relation::Held, held[of]),
            (Relation::OneHeld, most(&near.holds, &signs.moved)),
            (Relation::Ground, most(&near.ground, &signs.moved)),
            (Relation::Called, most(&near.called, &signs.moved)),
            (Relation::Callers, most(&near.callers, &signs.moved)),
            (Relation::CallersMean, called[of]),
            (
                Relation::HeldAlone,
                without(&held[of], &mean(&near.like, &held)),
            ),
            (
                Relation::CallersAlone,
                without(&called[of], &mean(&near.like, &called)),
            ),
        ];
        let mut features = Features::new(role);
        for (relation, moved) in relations {
            for (code, strength) in moved.iter().enumerate() {
                features.put(relation as usize * CODES + code, *strength);
            }
        }
        if features.all.is_empty() {
            continue;
        }
        let mut plain = |what: Plain, value: f32| {
            features.put(RELATIONS * CODES + what as usize, value);
        };
        plain(Plain::Bias, 1.0);
        if let Some((own, first)) = signs.since[of].zip(first) {
            plain(Plain::Late, ((own - first) as f32 / 2.0).min(4.0));
            plain(Plain::First, f32::from(u8::from(own == first)));
        }
        plain(Plain::Strongest, far[of]);
        let below = near.ground.iter().chain(&near.called);
        let below = below.map(|of| far[*of]).fold(0.0, f32::max);
        plain(Plain::Below, below);
        plain(Plain::Explained, below.min(far[of]));
        let covered = around.depend_on(of);
        let covers = loud.iter().filter(|other| covered[**other]).count();
        plain(Plain::Covers, covers as f32 / loud.len().max(1) as f32);
        plain(Plain::Share, shares.get(of).copied().unwrap_or(0.0));
        if let Some(reached) = &reached {
            plain(Plain::Reached, f32::from(u8::from(reached[of])));
        }
        all.push(Weighable {
            component: place(of),
            features: features.all,
        });
    }
    Weighing { all, signs, near }
}

fn add(to: &mut Moved, other: &Moved) {
    for (to, other) in to.iter_mut().zip(other) {
        *to += other;
    }
}

fn strongest(moved: &Moved) -> f32 {
    moved.iter().copied().fold(0.0, f32::max)
}

fn mean(of: &[usize], moved: &[Moved]) -> Moved {
    let mut mean = [0.0; CODES];
    of.iter().for_each(|of| add(&mut mean, &moved[*of]));
    mean.map(|sum| sum / of.len().max(1) as f32)
}

/// As far as others do not show the same.
fn without(own: &Moved, others: &Moved) -> Moved {
    core::array::from_fn(|code| own[code] * (1.0 - others[code]))
}

fn most(of: &[usize], moved: &[Moved]) -> Moved {
    let mut most: Moved = [0.0; CODES];
    for of in of {
        for (most, other) in most.iter_mut().zip(&moved[*of]) {
            *most = f32::max(*most, *other);
        }
    }
    most
}

struct Features {
    from: usize,
    all: Vec<(u16, f32)>,
}

impl Features {
    fn new(role: Role) -> Self {
        Self {
            from: role as usize * FEATURES,
            all: Vec::new(),
        }
    }

    fn put(&mut self, at: usize, value: f32) {
        // There are some two thousand places.
        if let Ok(place) = u16::try_from(self.from + at)
            && value != 0.0
        {
            self.all.push((place, value));
        }
    }
}

/// Who needs whom, both ways.
struct Surroundings {
    needs: Vec<Vec<usize>>,
    serves: Vec<Vec<usize>>,
}

/// Who is what to a component.
#[derive(Default)]
pub(crate) struct Near {
    pub(crate) like: Vec<usize>,
    pub(crate) holds: Vec<usize>,
    pub(crate) ground: Vec<usize>,
    pub(crate) called: Vec<usize>,
    pub(crate) callers: Vec<usize>,
}

const ROUTES: &[Role] = &[Role::Service, Role::Outside];

impl Surroundings {
    fn of(graph: &Graph) -> Self {
        let (needs, serves) = graph.both_ways();
        Self { needs, serves }
    }

    /// Who depends on it, however far up, and itself.
    fn depend_on(&self, of: usize) -> Vec<bool> {
        let mut seen = vec![false; self.serves.len()];
        let mut open = vec![of];
        while let Some(at) = open.pop() {
            if !core::mem::replace(&mut seen[at], true) {
                open.extend(&self.serves[at]);
            }
        }
        seen
    }

    fn of_one(&self, graph: &Graph, of: usize, role: Role) -> Near {
        let pick = |from: &[usize], roles: &[Role]| -> Vec<usize> {
            let is = |of: &&usize| {
                graph
                    .role_of(**of)
                    .is_some_and(|role| roles.contains(&role))
            };
            from.iter().filter(is).copied().collect()
        };
        let needs = |of: usize, roles: &[Role]| pick(&self.needs[of], roles);
        let serves = |of: usize, roles: &[Role]| pick(&self.serves[of], roles);
        let mut near = Near::default();
        match role {
            Role::Instance => {
                for service in serves(of, &[Role::Service]) {
                    near.like.extend(needs(service, &[Role::Instance]));
                    near.callers.extend(serves(service, &[Role::Instance]));
                }
                near.ground = needs(of, &[Role::Host]);
                near.called = needs(of, ROUTES);
            }
            Role::Service | Role::Outside => {
                near.holds = needs(of, &[Role::Instance]);
                near.callers = serves(of, &[Role::Instance]);
                for caller in near.callers.clone() {
                    near.callers.extend(serves(caller, &[Role::Service]));
                }
                for instance in &near.holds {
                    near.ground.extend(needs(*instance, &[Role::Host]));
                    near.called.extend(needs(*instance, ROUTES));
                }
            }
            Role::Host => {
                near.holds = serves(of, &[Role::Instance]);
                near.ground = needs(of, &[Role::Link, Role::Site]);
                for site in needs(of, &[Role::Site]) {
                    near.like.extend(serves(site, &[Role::Host]));
                }
                for instance in &near.holds {
                    near.called.extend(needs(*instance, ROUTES));
                    near.callers.extend(serves(*instance, &[Role::Service]));
                }
            }
            Role::Link => {
                near.holds = serves(of, &[Role::Host]);
                for host in &near.holds {
                    near.callers.extend(serves(*host, &[Role::Instance]));
                    near.like.extend(needs(*host, &[Role::Link]));
                    for site in needs(*host, &[Role::Site]) {
                        for mate in serves(site, &[Role::Host]) {
                            near.like.extend(needs(mate, &[Role::Link]));
                        }
                    }
                }
            }
            Role::Site => {
                near.holds = serves(of, &[Role::Host]);
                for host in &near.holds {
                    near.ground.extend(needs(*host, &[Role::Link]));
                    near.callers.extend(serves(*host, &[Role::Instance]));
                }
            }
        }
        near.like.retain(|other| *other != of);
        for list in [
            &mut near.like,
            &mut near.holds,
            &mut near.ground,
            &mut near.called,
            &mut near.callers,
        ] {
            list.sort_unstable();
            list.dedup();
        }
        near
    }
}
