//! Runs an episode and makes rows of it, with forks.
//!
//! In goes a [`Setup`] and a healer; out come rows, into a [`Sink`], as they arise: nothing
//! is kept but the forks of the present episode. A fork is the same moment once more, at a
//! look at which the healer was asked what to do: a plan left to chance is carried out
//! ([`Randomised`]), nothing after it, beside a twin in which nothing more is done. So what
//! a plan does can be learned without what the healer knew, on the states that it meets.

use std::collections::VecDeque;
use std::sync::Arc;

use homeostat_common::observation::Reading;
use homeostat_sim::chance::{Chance, Stream};
use homeostat_sim::episode::{Episode, Look, Outcome, Rules};
use homeostat_sim::fault::{Incident, Split};
use homeostat_sim::policy::{Healer, How, Randomised};
use homeostat_sim::text::TextError;
use homeostat_sim::topology::Topology;
use homeostat_sim::world::{Level, Order, World};

use crate::dataset::Sink;
use crate::rows;

/// How often, when and for how long episodes are forked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forks {
    /// Moments of one episode.
    pub moments: u32,
    /// Plans at each of them.
    pub plans: u32,
    /// What a plan comes to is looked at after so many seconds.
    pub horizon_s: f64,
}

impl Forks {
    /// None.
    pub const NONE: Self = Self {
        moments: 0,
        plans: 0,
        horizon_s: 180.0,
    };
}

/// Most forks of one episode; all of its moments are kept until it is over.
pub const FORKS_MAX: u32 = 256;
/// Forks begin from so many seconds before the incident on,
const BEFORE_S: f64 = 30.0;
/// to so many after its begin: later, little is left to be done.
const AFTER_S: f64 = 300.0;
/// Over so many seconds the end is measured.
const END_S: f64 = 10.0;

/// What is run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where.
    pub topology: Arc<Topology>,
    /// What happens.
    pub incident: Incident,
    /// The set of the incident.
    pub split: Split,
    /// The seed of world and healer.
    pub seed: u64,
    /// By what it is measured.
    pub rules: Rules,
    /// The forks.
    pub forks: Forks,
}

/// Why nothing, or not all, was recorded.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E> {
    /// The incident does not fit the topology.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The rows could not be written.
    #[error("{0}")]
    Sink(E),
}

/// Runs an episode and its forks. `number` is that of the episode in the recording; out
/// comes the next one that is free.
///
/// # Errors
/// [`RunError`] when it cannot be run, or a row is not taken.
pub fn record<S: Sink>(
    setup: &Setup,
    mut healer: Healer,
    number: u64,
    sink: &mut S,
) -> Result<u64, RunError<S::Error>> {
    let mut episode = Episode::new(&setup.topology, &setup.incident, setup.seed, setup.rules)?;
    let mut moments = moments(setup, episode.onset());
    let about = About {
        setup,
        number,
        fork: None,
    };
    let mut forks: Vec<(u64, Episode)> = Vec::new();
    let take = |episode: &Episode| {
        let due = moments
            .front()
            .is_some_and(|at| *at <= episode.world().now());
        if due && episode.decides_next() {
            moments.pop_front();
            forks.push((
                u64::from(episode.looks()),
                episode.fork(setup.forks.horizon_s),
            ));
        }
    };
    play(&about, &mut episode, &mut healer, take, sink).map_err(RunError::Sink)?;
    drop(episode);
    let mut next = number + 1;
    for (place, (look, fork)) in forks.iter().enumerate() {
        for plan in 0..setup.forks.plans {
            let draw = u32::try_from(place).unwrap_or(u32::MAX) * setup.forks.plans + plan;
            let about = About {
                setup,
                number: next,
                fork: Some(Fork {
                    of: number,
                    look: *look,
                    draw: u64::from(draw),
                }),
            };
            let mut healer = Healer::Sees(Box::new(Randomised::new(setup.seed, draw)));
            play(&about, &mut fork.clone(), &mut healer, |_| {}, sink).map_err(RunError::Sink)?;
            next += 1;
        }
    }
    Ok(next)
}

/// When an episode is forked, in seconds, in turn.
fn moments(setup: &Setup, onset: f64) -> VecDeque<f64> {
    let chance = Chance::new(!setup.seed, Stream::Policy);
    let count = match setup.forks.plans {
        0 => 0,
        plans => setup.forks.moments.min(FORKS_MAX / plans.min(FORKS_MAX)),
    };
    // Apart from the draws of plans, whose index is 0 or 1.
    let mut all: Vec<f64> = (0..u64::from(count))
        .map(|at| onset - BEFORE_S + (BEFORE_S + AFTER_S) * chance.uniform(at, 7))
        .collect();
    all.sort_by(f64::total_cmp);
    all.into()
}

/// Where a fork comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fork {
    pub(crate) of: u64,
    pub(crate) look: u64,
    pub(crate) draw: u64,
}

/// What rows say of where they come from.
pub(crate) struct About<'s> {
    pub(crate) setup: &'s Setup,
    pub(crate) number: u64,
    pub(crate) fork: Option<Fork>,
}

/// Runs an episode to its end; `before` is asked before each tick.
pub(crate) fn play<S: Sink>(
    about: &About<'_>,
    episode: &mut Episode,
    healer: &mut Healer,
    mut before: impl FnMut(&Episode),
    sink: &mut S,
) -> Result<(), S::Error> {
    episode.watch();
    let begin = episode.onset();
    let mut ticks = 0;
    let mut digests = Vec::new();
    let mut plan: Option<Look> = None;
    let (mut ours, mut theirs) = (Course::default(), Course::default());
    loop {
        before(episode);
        if episode.looks_next() {
            let look = u64::from(episode.looks());
            sink.truth(&truth(about, episode, look, ticks, &mut digests))?;
        }
        if !episode.tick(healer) {
            break;
        }
        ticks += 1;
        digests.push(episode.world().digest());
        let now = episode.world().now();
        if now >= begin {
            let (our, their) = episode.levels();
            let late = now > episode.end() - END_S;
            ours.note(&our, late);
            theirs.note(&their, late);
        }
        if let Some(look) = episode.take_look() {
            sink.seen(&seen(about, episode, healer.name(), &look))?;
            if about.fork.is_some() && plan.is_none() && look.idle {
                plan = Some(look);
            }
        }
    }
    let looks = u64::from(episode.looks());
    sink.truth(&truth(about, episode, looks, ticks, &mut digests))?;
    let outcome = episode.outcome(healer.name());
    let courses = (ours, theirs);
    sink.episode(&summary(
        about,
        episode,
        &outcome,
        ticks,
        plan.as_ref(),
        courses,
    ))
}

/// How health went.
#[derive(Debug, Clone, Copy)]
struct Course {
    sum: f64,
    count: f64,
    least: f64,
    end: f64,
    late: f64,
}

impl Default for Course {
    fn default() -> Self {
        Self {
            sum: 0.0,
            count: 0.0,
            least: 1.0,
            end: 0.0,
            late: 0.0,
        }
    }
}

impl Course {
    fn note(&mut self, level: &Level, late: bool) {
        let health = level.health();
        self.sum += health;
        self.count += 1.0;
        self.least = self.least.min(health);
        if late {
            self.end += health;
            self.late += 1.0;
        }
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1.0)
    }

    fn end(&self) -> f64 {
        self.end / self.late.max(1.0)
    }
}

/// JSON knows no infinity.
fn finite(value: f64) -> f64 {
    value.clamp(f64::MIN, f64::MAX)
}

fn given(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Who leads an order, and its plan.
fn written(order: &Order) -> (Option<String>, String) {
    match order {
        Order::Node(node, plan) => (Some(node.to_string()), plan.to_string()),
        Order::Fleet(plan) => (None, plan.to_string()),
    }
}

fn truth(
    about: &About<'_>,
    episode: &Episode,
    look: u64,
    tick: u64,
    digests: &mut Vec<u64>,
) -> rows::Truth {
    let world = episode.world();
    let (ours, theirs) = episode.levels();
    let faults = about.setup.incident.faults.iter().enumerate();
    let roots = faults.filter(|(at, _)| world.rooted(*at));
    rows::Truth {
        episode: about.number,
        look,
        at: world.now(),
        tick,
        digests: std::mem::take(digests),
        roots: roots.map(|(_, fault)| fault.id.clone()).collect(),
        phases: world
            .phases()
            .map(|phase| phase.name().to_owned())
            .collect(),
        err: finite(ours.err),
        p95_ms: finite(ours.p95_ms),
        quality: finite(ours.quality),
        shed: finite(ours.shed),
        asked: finite(ours.asked),
        health: finite(ours.health()),
        twin_health: finite(theirs.health()),
        twin_err: finite(theirs.err),
        twin_p95_ms: finite(theirs.p95_ms),
        twin_digest: episode.twin().digest(),
    }
}

fn seen(about: &About<'_>, episode: &Episode, policy: &str, look: &Look) -> rows::Seen {
    let mut row = rows::Seen {
        episode: about.number,
        look: u64::from(look.no),
        at: look.seen.at,
        topology: episode.world().topology().name().to_owned(),
        policy: policy.to_owned(),
        idle: look.idle,
        left: given(look.left),
        spent: finite(look.spent),
        order_node: Vec::new(),
        order_plan: Vec::new(),
        propensity: look.propensity,
        why: look.why.clone(),
        ended_node: Vec::new(),
        ended_plan: Vec::new(),
        ended_how: Vec::new(),
        node: Vec::new(),
        node_from_us: Vec::new(),
        node_to_us: Vec::new(),
        reading_of: Vec::new(),
        reading_metric: Vec::new(),
        reading_value: Vec::new(),
        reading_age_ms: Vec::new(),
        log_service: Vec::new(),
        log_node: Vec::new(),
        log_template: Vec::new(),
        log_text: Vec::new(),
        log_level: Vec::new(),
        log_count: Vec::new(),
        alarm_node: Vec::new(),
        alarm: Vec::new(),
        alarm_service: Vec::new(),
        route: Vec::new(),
        route_arrival: Vec::new(),
        route_passed: Vec::new(),
        route_shed: Vec::new(),
        route_err: Vec::new(),
        route_queue: Vec::new(),
        route_p95_ms: Vec::new(),
        route_hit: Vec::new(),
        model_service: Vec::new(),
        model_confidence: Vec::new(),
        model_input_drift: Vec::new(),
        model_disagreement: Vec::new(),
        link: Vec::new(),
        link_rtt_ms: Vec::new(),
        link_loss: Vec::new(),
    };
    for order in &look.orders {
        let (node, plan) = written(order);
        row.order_node.push(node);
        row.order_plan.push(plan);
    }
    for ended in &look.ended {
        let (node, plan) = written(&ended.order);
        row.ended_node.push(node);
        row.ended_plan.push(plan);
        row.ended_how.push(match &ended.how {
            How::Done => "done".to_owned(),
            How::Failed(why) => format!("failed: {why:?}"),
            How::Refused(why) => format!("refused: {why}"),
            How::TooDear => "too dear".to_owned(),
        });
    }
    nodes(&mut row, look);
    for route in &look.seen.routes {
        row.route.push(route.route.to_string());
        row.route_arrival.push(finite(route.arrival));
        row.route_passed.push(finite(route.passed));
        row.route_shed.push(finite(route.shed));
        row.route_err.push(finite(route.err));
        row.route_queue.push(finite(route.queue));
        row.route_p95_ms.push(finite(route.p95_ms));
        row.route_hit.push(route.hit);
    }
    for model in &look.seen.models {
        row.model_service.push(model.service.to_string());
        row.model_confidence.push(model.confidence);
        row.model_input_drift.push(model.input_drift);
        row.model_disagreement.push(model.disagreement);
    }
    for link in &look.seen.links {
        row.link.push(link.link.clone());
        row.link_rtt_ms.push(link.rtt_ms);
        row.link_loss.push(link.loss);
    }
    row
}

/// What nodes tell: readings, lines and alarms.
fn nodes(row: &mut rows::Seen, look: &Look) {
    for node in look.seen.nodes.iter().flatten() {
        let name = node.node.to_string();
        row.node_from_us.push(node.from.0);
        row.node_to_us.push(node.to.0);
        for reading in &node.metrics {
            let of = reading.service.as_ref().map(ToString::to_string);
            row.reading_of.push(of.unwrap_or_else(|| name.clone()));
            row.reading_metric.push(reading.metric.name().to_owned());
            let (value, age) = match reading.reading {
                Reading::Fresh(value) => (Some(finite(value)), 0),
                Reading::Stale { last, age } => (Some(finite(last)), age.0),
                Reading::Missing => (None, 0),
            };
            row.reading_value.push(value);
            row.reading_age_ms.push(age);
        }
        for line in &node.logs {
            let of = line.service.as_ref().map(ToString::to_string);
            row.log_service.push(of.unwrap_or_else(|| name.clone()));
            row.log_node.push(name.clone());
            row.log_template.push(line.template);
            row.log_text.push(line.text.clone());
            row.log_level
                .push(format!("{:?}", line.level).to_lowercase());
            row.log_count.push(u64::from(line.count));
        }
        for alarm in &node.alarms {
            row.alarm_node.push(name.clone());
            row.alarm.push(alarm.alarm.clone());
            let service = alarm.service.as_ref();
            row.alarm_service.push(service.map(ToString::to_string));
        }
        row.node.push(name);
    }
}

fn summary(
    about: &About<'_>,
    episode: &Episode,
    outcome: &Outcome,
    ticks: u64,
    plan: Option<&Look>,
    (ours, theirs): (Course, Course),
) -> rows::Episode {
    let setup = about.setup;
    let rules = episode.rules();
    let plans = plan.map_or(&[][..], |look| &look.orders);
    let (plan_node, plan_text): (Vec<_>, Vec<_>) = plans.iter().map(written).unzip();
    let roots = |world: &World| world.roots_left() as u64;
    rows::Episode {
        episode: about.number,
        fork_of: about.fork.map(|fork| fork.of),
        fork_look: about.fork.map(|fork| fork.look),
        fork_draw: about.fork.map(|fork| fork.draw),
        split: setup.split.name().to_owned(),
        incident: setup.incident.name.clone(),
        incident_text: setup.incident.to_string(),
        contain: setup.incident.contain,
        topology: setup.topology.name().to_owned(),
        topology_text: setup.topology.text().to_owned(),
        seed: setup.seed,
        policy: outcome.policy.clone(),
        plan_node,
        plan: plan_text,
        propensity: plan.map_or(1.0, |look| look.propensity),
        dt: rules.world.dt,
        silent: rules.world.silent,
        look_s: rules.look_s,
        hold_s: rules.hold_s,
        relapse_s: rules.relapse_s,
        cap_s: rules.cap_s,
        blip_s: rules.blip_s,
        budget: rules.budget,
        target_err: rules.target.err,
        target_p95_ms: rules.target.p95_ms,
        target_quality: rules.target.quality,
        target_shed: rules.target.shed,
        begin: episode.onset(),
        end: episode.end(),
        ticks,
        looks: u64::from(episode.looks()),
        was_incident: outcome.was_incident,
        breached: outcome.breached,
        recovered: outcome.recovered,
        seconds: outcome.seconds,
        roots_left: u64::from(outcome.roots_left),
        lost: finite(outcome.lost),
        benefit: finite(outcome.benefit),
        harm: finite(outcome.harm),
        spent: finite(outcome.spent),
        disruption: finite(outcome.disruption),
        work: finite(outcome.work),
        orders: u64::from(outcome.orders),
        refused: u64::from(outcome.refused),
        health_mean: ours.mean(),
        health_least: ours.least,
        health_end: ours.end(),
        twin_lost: finite(outcome.lost_twin),
        twin_roots_left: roots(episode.twin()),
        twin_health_mean: theirs.mean(),
        twin_health_least: theirs.least,
        twin_health_end: theirs.end(),
    }
}
