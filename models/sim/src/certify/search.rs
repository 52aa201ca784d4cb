//! The search behind a certificate: wider by one step at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Depth;
use super::settle::{calmed, ends};
use crate::episode::Rules;
use crate::fault::Incident;
use crate::policy::ahead::{Watch, after};
use crate::policy::{Effort, Kind, Move, Moves, Oracle, Whom};
use crate::text::TextError;
use crate::topology::Topology;
use crate::world::{Order, Phase, Settings, World};

/// Plans begin this long after users noticed: nobody heals what nobody has seen.
const NOTICED_S: f64 = 15.0;
/// And at least this long after the incident began.
const BEGUN_S: f64 = 30.0;
/// No step takes longer, in ticks: how far marks of an idle world are kept.
const IDLE_TICKS: usize = 256;
/// Steps up to which every step is tried after every other.
const WIDE_STEPS: usize = 2;
/// Plans of one length that are tried on the other streams.
const CONFIRMED_MAX: usize = 400;

/// A plan as places in the list of moves.
pub(super) type Sequence = Vec<usize>;

/// One stream of chance.
struct Stream {
    /// As the plan begins.
    start: World,
    noticed: bool,
    heals: bool,
}

/// A state that some steps lead to.
struct State {
    world: World,
    steps: Sequence,
}

pub(super) struct Search<'m> {
    moves: &'m Moves,
    streams: Vec<Stream>,
    /// By move: it is near the incident.
    near: Vec<bool>,
    /// Where to go on from.
    frontier: Vec<State>,
    depth: Depth,
    forks: u64,
    /// Steps that suffice if storms of retries were broken for nothing.
    apart: Option<u8>,
}

impl<'m> Search<'m> {
    pub(super) fn new(
        topology: &Arc<Topology>,
        incident: &Incident,
        moves: &'m Moves,
        depth: Depth,
    ) -> Result<Self, TextError> {
        let seeds = (0..u64::from(depth.streams)).map(|place| depth.seed.wrapping_add(place));
        let streams: Result<Vec<_>, _> =
            seeds.map(|seed| stream(topology, incident, seed)).collect();
        let streams = streams?;
        let frontier = streams.first().map(|first| State {
            world: first.start.clone(),
            steps: Vec::new(),
        });
        let near = streams
            .first()
            .map(|first| first.start.engine.near(topology));
        let near = |one: &Move| {
            near.as_ref()
                .is_none_or(|near| near.covers(topology, one.whom))
        };
        Ok(Self {
            moves,
            near: moves.all().iter().map(near).collect(),
            frontier: frontier.into_iter().collect(),
            streams,
            depth,
            forks: 0,
            apart: None,
        })
    }

    pub(super) fn was_incident(&self) -> bool {
        self.streams.iter().all(|stream| stream.noticed)
    }

    pub(super) fn ends_by_itself(&self) -> bool {
        self.streams.iter().all(|stream| stream.heals)
    }

    pub(super) fn forks(&self) -> u64 {
        self.forks
    }

    /// Steps of the shortest plan after which users are served, or would be if nobody came
    /// again of those who were not; as far as was looked.
    pub(super) fn apart(&self) -> Option<u8> {
        self.apart
    }

    pub(super) fn text(&self, plan: &[usize]) -> String {
        let steps: Vec<_> = plan
            .iter()
            .map(|at| self.moves.all()[*at].to_string())
            .collect();
        steps.join(" ; ")
    }

    pub(super) fn orders(&self, plan: &[usize]) -> Vec<Order> {
        let steps = plan.iter().map(|at| self.moves.all()[*at].order.clone());
        steps.collect()
    }

    /// What the oracle would do on one of the streams, if it ends the incident on each: that
    /// which ends it on most of them.
    pub(super) fn witness(&self) -> Option<Vec<Order>> {
        let mut plans = Vec::new();
        for stream in &self.streams {
            let plan = Oracle::plan(&stream.start, self.moves, f64::INFINITY, Effort::FULL);
            if !plan.ends || !carried_out(&stream.start, &plan.orders) {
                return None;
            }
            plans.push(plan.orders);
        }
        // The last of equals is taken.
        plans
            .into_iter()
            .rev()
            .max_by_key(|plan| self.ended_by(plan))
    }

    /// Whether two steps of a plan cannot change places, on the first stream.
    pub(super) fn order_matters_once(&self, plan: &[Order]) -> bool {
        let Some(first) = self.streams.first() else {
            return false;
        };
        let mut pairs = (1..plan.len()).flat_map(|to| (0..to).map(move |from| (from, to)));
        pairs.any(|(from, to)| {
            let mut other = plan.to_vec();
            other.swap(from, to);
            !carried_out(&first.start, &other)
        })
    }

    /// On how many streams a plan ends the incident.
    pub(super) fn ended_by(&self, plan: &[Order]) -> usize {
        let ended = |stream: &&Stream| carried_out(&stream.start, plan);
        self.streams.iter().filter(ended).count()
    }

    /// Plans with one step more than before that work on every stream, the quickest first.
    pub(super) fn deeper(&mut self) -> Vec<Sequence> {
        let mut works: Vec<(f64, Sequence)> = Vec::new();
        let mut calm: Vec<(f64, Sequence)> = Vec::new();
        let mut next = Vec::new();
        let mut known = BTreeSet::new();
        for state in std::mem::take(&mut self.frontier) {
            let wide = state.steps.len() < WIDE_STEPS;
            let first = state.steps.is_empty();
            let mut idle = Idle::new(&state.world);
            let fault = state.world.fault_mark();
            for (at, one) in self.moves.all().iter().enumerate() {
                if !first && !self.near[at] {
                    continue;
                }
                self.forks += 1;
                let Some(world) = after(&state.world, &one.order) else {
                    continue;
                };
                // Nothing but time has passed: the same as without it.
                let mark = world.mark();
                if !one.kind.waits() && idle.at(&world) == Some(mark) {
                    continue;
                }
                if !known.insert((world.now().to_bits(), mark)) {
                    continue;
                }
                if !wide && !relevant(one, &state.world) && world.fault_mark() == fault {
                    continue;
                }
                let begun = self.streams.first().map(|first| first.start.fault_mark());
                let steps: Sequence = state.steps.iter().copied().chain([at]).collect();
                let since = ends(&world);
                if self.apart.is_none() {
                    // What ends it here may leave a storm on another stream.
                    let since = since.or_else(|| ends(&calmed(&world)?));
                    calm.extend(since.map(|since| (since, steps.clone())));
                }
                match since {
                    Some(since) => works.push((since, steps)),
                    // Only states are gone on from that differ in what the faults will do,
                    // or in who carries the load.
                    None if steps.len() >= usize::from(self.depth.steps) || !self.near[at] => {}
                    None if wide && steps.len() < WIDE_STEPS => next.push(State { world, steps }),
                    None if begun != Some(world.fault_mark()) || relevant(one, &state.world) => {
                        next.push(State { world, steps });
                    }
                    None => {}
                }
            }
        }
        self.frontier = next;
        let works: Vec<Sequence> = quickest(works)
            .filter(|steps| self.works_elsewhere(steps, carried_out))
            .take(self.depth.plans.max(1) * 8)
            .collect();
        let length = works.first().or(calm.first().map(|(_, steps)| steps));
        let length = length.and_then(|steps| u8::try_from(steps.len()).ok());
        if self.apart.is_none()
            && (!works.is_empty()
                || quickest(calm).any(|steps| self.works_elsewhere(&steps, carried_out_calmly)))
        {
            self.apart = length;
        }
        works
    }

    fn works_elsewhere(&self, steps: &[usize], works: fn(&World, &[Order]) -> bool) -> bool {
        let orders = self.orders(steps);
        let mut others = self.streams.iter().skip(1);
        others.all(|stream| works(&stream.start, &orders))
    }

    fn works(&self, stream: &Stream, steps: &[usize]) -> bool {
        carried_out(&stream.start, &self.orders(steps))
    }

    /// Whether another order of a plan's steps does not work on every stream.
    pub(super) fn order_matters(&self, plan: &[usize]) -> bool {
        let mut orders = Vec::new();
        permutations(&mut plan.to_vec(), 0, &mut orders);
        let mut others = orders.iter().filter(|order| order.as_slice() != plan);
        others.any(|order| !self.streams.iter().all(|stream| self.works(stream, order)))
    }
}

/// The quickest of some plans, as many as are tried elsewhere.
fn quickest(mut plans: Vec<(f64, Sequence)>) -> impl Iterator<Item = Sequence> {
    plans.sort_by(|a, b| a.0.total_cmp(&b.0));
    plans.truncate(CONFIRMED_MAX);
    plans.into_iter().map(|(_, steps)| steps)
}

/// What is there after some orders, one after the other.
fn then(start: &World, orders: &[Order]) -> Option<World> {
    let mut world = start.clone();
    for order in orders {
        world = after(&world, order)?;
    }
    Some(world)
}

/// Whether users are served after some orders.
fn carried_out(start: &World, orders: &[Order]) -> bool {
    then(start, orders).is_some_and(|world| ends(&world).is_some())
}

/// Whether they are, or would be if nobody came again.
fn carried_out_calmly(start: &World, orders: &[Order]) -> bool {
    then(start, orders).is_some_and(|world| {
        let calm = || calmed(&world).is_some_and(|calm| ends(&calm).is_some());
        ends(&world).is_some() || calm()
    })
}

/// Steps that change who carries the load, start what does not run, or let time pass.
fn relevant(one: &Move, before: &World) -> bool {
    match (one.kind, one.whom) {
        (Kind::Restart, Whom::Replica(no)) => before.phase(no) != Phase::Running,
        (kind, _) => matches!(
            kind,
            Kind::ScaleOut | Kind::Degrade | Kind::LimitRate | Kind::Release | Kind::Wait
        ),
    }
}

fn permutations(steps: &mut Sequence, from: usize, into: &mut Vec<Sequence>) {
    if from == steps.len() {
        into.push(steps.clone());
        return;
    }
    for other in from..steps.len() {
        steps.swap(from, other);
        permutations(steps, from + 1, into);
        steps.swap(from, other);
    }
}

fn stream(topology: &Arc<Topology>, incident: &Incident, seed: u64) -> Result<Stream, TextError> {
    let rules = Rules::default();
    let settings = Settings {
        silent: 0.0,
        ..Settings::default()
    };
    let mut world = World::with(topology, incident, seed, settings)?;
    let onset = world.engine.onset();
    let end = onset + rules.cap_s + rules.hold_s + rules.relapse_s;
    let mut start: Option<World> = None;
    let mut watch = Watch::default();
    let mut noticed: Option<f64> = None;
    while world.now() < end {
        world.tick();
        let now = world.now();
        if now < onset {
            continue;
        }
        watch.note(&world.level(), &rules.target, now);
        if !watch.met {
            noticed.get_or_insert(now);
        }
        let begins = noticed.is_some_and(|at| now >= at + NOTICED_S) && now >= onset + BEGUN_S;
        if begins && start.is_none() {
            start = Some(world.clone());
        }
    }
    let heals = watch.since.is_none_or(|at| at - onset <= rules.cap_s);
    Ok(Stream {
        start: start.unwrap_or(world),
        noticed: noticed.is_some(),
        heals,
    })
}

/// What becomes of a state in which nothing is done, tick by tick, as far as was asked.
struct Idle {
    begin: f64,
    world: World,
    marks: Vec<u64>,
}

impl Idle {
    fn new(world: &World) -> Self {
        Self {
            begin: world.now(),
            world: world.clone(),
            marks: Vec::new(),
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Some hundred ticks.
    fn at(&mut self, world: &World) -> Option<u64> {
        let ticks = ((world.now() - self.begin) / world.settings().dt + 0.5) as usize;
        while self.marks.len() < ticks.min(IDLE_TICKS) {
            self.world.tick();
            self.marks.push(self.world.mark());
        }
        self.marks.get(ticks.checked_sub(1)?).copied()
    }
}
