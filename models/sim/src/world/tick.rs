//! One step of time.
//!
//! In go the topology, the state and the constants of a step; out comes the next state.
//! Nodes first (clock, contention, memory, heat, disk), with what was asked of them in the
//! step before; then the requests, from callers to called; then errors and times, back to
//! the callers. Nothing is allocated, and nothing here knows of faults but for their
//! burdens.
//!
//! Time constants enter as `1 - exp(-k dt)`, so halving the step changes no statistic.

use super::refresh::QUALITY;
use super::state::{
    Edge, FDS_MAX, Flow, NodeState, Phase, Power, ReplicaState, RouteState, State, THREADS_MAX,
};
use crate::chance::Chance;
use crate::queue::{self, Time};
use crate::topology::{Habits, Node, Topology};

/// Period of the slow swing of the demand, over 2 pi, in seconds.
const SWING_S: f64 = 900.0;
/// How far it swings.
const SWING: f64 = 0.15;
/// Period of its swing within a day, over 2 pi.
const DAY_S: f64 = 86_400.0 / core::f64::consts::TAU;
/// Deviation of the noise of the demand.
const NOISE: f64 = 0.06;
/// How long the noise remembers, in seconds.
const NOISE_S: f64 = 60.0;
/// How long a node takes to become as warm as it will, in seconds.
const HEAT_S: f64 = 75.0;
/// What a node draws more when all its cores are busy at full clock, in watts.
const BUSY_W: f64 = 4.5;
/// Share of its memory at which a node begins to thrash.
const THRASH_FROM: f64 = 0.88;
/// Quality lost by input that is corrupt to the last.
const CORRUPT: f64 = 0.25;
/// Below this share of its battery a node's supply is weak.
const BATTERY_WEAK: f64 = 0.1;
/// Its clock then.
const WEAK_FREQ: f64 = 0.5;
/// MB written to the flash with each request to a route that writes.
const WRITTEN_MB: f64 = 0.001;
/// What may wait for a replica: so many seconds of its work, and so many more.
const QUEUE_S: f64 = 4.0;
const QUEUE: f64 = 20.0;

/// What follows from the length of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Its length in seconds.
    pub(crate) dt: f64,
    per_dt: f64,
    heat: f64,
    warm: f64,
    retry: f64,
    noise_keep: f64,
    noise_new: f64,
}

impl Step {
    pub(crate) fn new(dt: f64, habits: &Habits) -> Self {
        let kept = |seconds: f64| libm::exp(-dt / seconds);
        let noise = kept(NOISE_S);
        Self {
            dt,
            per_dt: 1.0 / dt,
            heat: 1.0 - kept(HEAT_S),
            warm: 1.0 - kept(habits.warm_s),
            retry: 1.0 - kept(habits.retry_s),
            noise_keep: noise,
            noise_new: NOISE * (1.0 - noise * noise).sqrt(),
        }
    }
}

/// What the step leaves for others to carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Due {
    /// A replica has come up.
    pub(super) started: bool,
    /// A node has.
    pub(super) booted: bool,
    /// Some node's memory is more than full.
    pub(super) starved: bool,
}

/// One step.
pub(super) fn step(topology: &Topology, state: &mut State, step: &Step, chance: Chance) -> Due {
    let mut due = Due::default();
    state.noise = state.noise * step.noise_keep + step.noise_new * chance.normal(state.tick, 0);
    for (node, known) in state.nodes.iter_mut().zip(&topology.nodes) {
        state.stale |= self::node(node, known, &topology.habits, step, &mut due);
    }
    training(topology, state, step);
    requests(topology, state, step, &mut due);
    answers(topology, state, step);
    due
}

/// A node; true when something changed on which `refresh` depends.
fn node(node: &mut NodeState, known: &Node, habits: &Habits, step: &Step, due: &mut Due) -> bool {
    let demand = node.demand + node.base_demand;
    node.load = demand;
    node.demand = 0.0;
    let burden = &node.burden;
    let mut watts = 0.0;
    match node.power {
        Power::On if !burden.off => {
            let freq = node.freq * burden.freq;
            let weak = known
                .battery_wh
                .is_some_and(|full| node.battery_wh < BATTERY_WEAK * full);
            let freq = if weak { freq * WEAK_FREQ } else { freq };
            let asked = demand / (known.cores * freq);
            let thrash = habits.thrash * (node.memory_mb / known.memory_mb - THRASH_FROM).max(0.0);
            node.util = asked.min(1.0);
            node.pace = freq / (asked.max(1.0) * (1.0 + thrash));
            due.starved |= node.memory_mb > known.memory_mb;
            watts = super::state::IDLE_W + BUSY_W * node.util * freq * freq;
        }
        Power::Booting { left } => {
            node.util = 0.0;
            let left = left - step.dt;
            node.power = Power::Booting { left };
            due.booted |= left <= 0.0;
            watts = super::state::IDLE_W;
        }
        Power::On | Power::Empty => node.util = 0.0,
    }
    let rth = if burden.fan_dead {
        known.rth_dead
    } else {
        known.rth
    };
    let towards = known.ambient_c + burden.warm + rth * watts;
    node.temp += (towards - node.temp) * step.heat;
    // Down at once, up again only when it is cool.
    if node.temp > 85.0 {
        node.freq = 0.4;
    } else if node.temp > 80.0 {
        node.freq = node.freq.min(0.6);
    } else if node.temp < 75.0 {
        node.freq = 1.0;
    }
    let mut stale = false;
    if let Some(full) = known.battery_wh {
        node.battery_wh = (node.battery_wh - watts * step.dt / 3600.0).clamp(0.0, full);
        if node.battery_wh <= 0.0 && !matches!(node.power, Power::Empty) {
            node.power = Power::Empty;
            stale = true;
        }
    }
    if burden.fill_mb > 0.0 || burden.fill_inodes > 0.0 {
        node.litter_mb += burden.fill_mb * step.dt;
        node.inodes += burden.fill_inodes * step.dt;
        // What does not fit is not written.
        let room = known.disk_mb - known.disk_used_mb - node.data_mb;
        node.litter_mb = node.litter_mb.min(room.max(0.0));
        node.inodes = node.inodes.min(known.inodes);
    }
    node.disk_mb = known.disk_used_mb + node.data_mb + node.litter_mb;
    let stuck = burden.readonly || node.disk_mb >= known.disk_mb || node.inodes >= known.inodes;
    stale |= stuck != node.stuck_disk;
    node.stuck_disk = stuck;
    if burden.clock_ahead != 0.0 || burden.clock_drift != 0.0 {
        let before = node.clock_s;
        node.clock_s = node.clock_s.max(burden.clock_ahead) + burden.clock_drift * step.dt;
        stale |= super::refresh::skewed(before) != super::refresh::skewed(node.clock_s);
    }
    stale
}

/// The training job goes on while every worker does.
fn training(topology: &Topology, state: &mut State, step: &Step) {
    let Some(known) = &topology.training else {
        return;
    };
    let there = known.workers.iter().all(|node| state.up(*node));
    let paces = known.workers.iter().map(|node| state.nodes[node.at()].pace);
    let pace = paces.fold(1.0, f64::min);
    let job = &mut state.training;
    if !there && !job.broken {
        job.broken = true;
        job.lost_s += job.done_s - job.saved_s;
        job.done_s = job.saved_s;
    }
    if there && !job.broken {
        job.done_s += step.dt * pace;
        if job.done_s - job.saved_s >= known.checkpoint_s {
            job.saved_s = job.done_s;
        }
    }
}

/// The requests of this step, from callers to called.
fn requests(topology: &Topology, state: &mut State, step: &Step, due: &mut Due) {
    let swing = 1.0 + SWING * libm::sin(state.now / SWING_S);
    let daily = match topology.habits.daily {
        0.0 => 1.0,
        far => 1.0 + far * libm::sin(state.now / DAY_S),
    };
    let common = swing * daily * (1.0 + state.noise).max(0.0);
    for (route, known) in state.routes.iter_mut().zip(&topology.routes) {
        let burden = &route.burden;
        route.arrival = known.demand * burden.surge * common * (1.0 + route.retries);
    }
    for no in &topology.order {
        serve(topology, state, no.at(), step, due);
        let route = &state.routes[no.at()];
        let (passed, fixed) = (route.passed, route.fixed);
        let mut going_on = passed;
        for at in fixed.first_edge..fixed.end_edge {
            let edge = state.edges[at];
            let mut share = edge.share;
            if let Some(cache) = edge.behind {
                share *= 1.0 - state.routes[cache.at()].hit;
            }
            let calls = going_on * share;
            let through = calls.min(edge.cap);
            let edge = &mut state.edges[at];
            edge.cut = if calls > 0.0 {
                1.0 - through / calls
            } else {
                0.0
            };
            let called = &mut state.routes[edge.to.at()];
            called.arrival += through;
            if topology.habits.in_turn && edge.needed {
                // By what came back in the step before.
                going_on *= (1.0 - share * edge.wrong(called)).max(0.0);
            }
        }
    }
}

/// One route's share of it.
fn serve(topology: &Topology, state: &mut State, at: usize, step: &Step, due: &mut Due) {
    let known = &topology.routes[at];
    let route = &mut state.routes[at];
    let fixed = route.fixed;
    let came = route.arrival * (1.0 + route.burden.extra);
    let admitted = came.min(route.limit);
    route.arrival = came;
    route.shed = if came > 0.0 {
        1.0 - admitted / came
    } else {
        0.0
    };
    if let Some(ms) = known.outside_ms {
        outside(route, admitted, ms, step);
        return;
    }

    let servers = fixed.running.max(1);
    let shed = (came - admitted) * step.dt;
    let mut here = Flow {
        arrived: came * step.dt,
        ..Flow::default()
    };
    if fixed.nobody {
        here.refused += admitted * step.dt;
    }
    let timeout = topology.habits.timeout_ms / 1000.0;
    let (mut queue, mut warm, mut late) = (0.0, 0.0, 0.0);
    let (mut there, mut mean, mut square) = (0.0, 0.0, 0.0);
    for (replica, of) in state.replicas[fixed.first..fixed.end]
        .iter_mut()
        .zip(&topology.replicas[fixed.first..fixed.end])
    {
        let node = &mut state.nodes[of.node.at()];
        let fixed = &replica.fixed;
        replica.arrival = admitted * fixed.share;
        match replica.phase {
            Phase::Running => {
                let wanted = replica.arrival * step.dt + replica.queue;
                let mu = fixed.nominal * node.pace;
                let served = wanted.min(mu * step.dt);
                let bound = QUEUE_S * mu + QUEUE;
                let waits = wanted - served;
                let kept = waits.min(bound);
                let wrong = served * fixed.err;
                here.refused += waits - kept;
                here.failed += wrong;
                here.passed += served - wrong;
                queue += kept;
                let r = replica.arrival / mu;
                let time = queue::sojourn(servers, mu, r, kept);
                // Who calls gives up: what is left is no later than that.
                let too_late = queue::later(time, timeout);
                let in_time = time.within(timeout);
                let share = fixed.share * (1.0 - too_late);
                late += fixed.share * too_late;
                there += share;
                mean += share * in_time.mean;
                square += share * (in_time.variance + in_time.mean * in_time.mean);
                node.demand += fixed.cores * (wanted * step.per_dt / fixed.nominal).min(1.0);
                replica.queue = kept;
                replica.served = served * step.per_dt;
                replica.mu = mu;
                replica.util = r.min(1.0);
                replica.own = time;
                if known.hit > 0.0 {
                    replica.warm += (1.0 - replica.warm) * step.warm;
                    warm += fixed.share * replica.warm;
                }
                if known.writes {
                    node.wear_mb += served * WRITTEN_MB;
                }
            }
            Phase::Starting { left } => {
                // On a slow node it takes longer.
                if node.up() {
                    let left = left - step.dt * node.pace;
                    replica.phase = Phase::Starting { left };
                    due.started |= left <= 0.0;
                }
            }
            Phase::Hung | Phase::Frozen => {
                here.lost += replica.arrival * step.dt + replica.queue;
                replica.queue = 0.0;
            }
            Phase::Dead | Phase::Standby => {}
        }
        if replica.fixed.leaks {
            state.stale |= leak(replica, node, step);
        }
    }
    let mut bad = here.refused + here.failed + here.lost;
    here.refused += shed;
    // At an entry it is told apart from errors; a caller within meets it as one.
    if known.demand <= 0.0 {
        bad += shed;
    }
    let answered = bad + here.passed;
    route.own_err = if answered > 0.0 { bad / answered } else { 0.0 };
    route.passed = here.passed * step.per_dt;
    route.queue = queue;
    route.late = 0.0;
    if fixed.running_share > 0.0 {
        route.late = late / fixed.running_share;
        route.own = if there > 0.0 {
            let mean = mean / there;
            let variance = (square / there - mean * mean).max(0.0);
            Time { mean, variance }
        } else {
            Time {
                mean: timeout,
                variance: 0.0,
            }
        };
    }
    let right = (1.0 - route.own_err) * (1.0 - route.late);
    route.hit = known.hit * warm * (1.0 - route.burden.miss) * right;
    route.flow.add(&here);
}

/// Somebody else's service: as fast and as right as they say.
fn outside(route: &mut RouteState, admitted: f64, ms: f64, step: &Step) {
    let right = admitted * (1.0 - route.burden.err);
    route.passed = right;
    route.flow.add(&Flow {
        arrived: route.arrival * step.dt,
        refused: (route.arrival - admitted) * step.dt,
        failed: (admitted - right) * step.dt,
        passed: right * step.dt,
        lost: 0.0,
    });
    // The way there is the call's; here is what it takes longer than usual.
    let mean = ms / 1000.0 * (route.burden.slow - 1.0);
    let variance = mean * mean;
    route.own = Time { mean, variance };
    route.own_err = 1.0 - (1.0 - route.shed) * (1.0 - route.burden.err);
}

/// A process that takes and does not give back; true when it has used up what it may have.
#[cold]
fn leak(replica: &mut ReplicaState, node: &mut NodeState, step: &Step) -> bool {
    let lives = match replica.phase {
        Phase::Running | Phase::Hung => true,
        Phase::Starting { .. } | Phase::Frozen | Phase::Dead | Phase::Standby => false,
    };
    if !lives {
        return false;
    }
    let before = replica.exhausted();
    let more = replica.burden.leak_mb * step.dt;
    replica.leaked_mb += more;
    node.memory_mb += more;
    replica.fds = (replica.fds + replica.burden.leak_fds * step.dt).min(FDS_MAX);
    replica.threads = (replica.threads + replica.burden.leak_threads * step.dt).min(THREADS_MAX);
    replica.exhausted() != before
}

/// Errors and times as the callers meet them, from called to callers.
fn answers(topology: &Topology, state: &mut State, step: &Step) {
    for no in topology.order.iter().rev() {
        let route = &state.routes[no.at()];
        let mut right = (1.0 - route.own_err) * (1.0 - route.late);
        let mut mean = 1000.0 * route.own.mean;
        let mut variance = 1e6 * route.own.variance;
        for edge in &state.edges[route.fixed.first_edge..route.fixed.end_edge] {
            let called = &state.routes[edge.to.at()];
            let share = match edge.behind {
                Some(cache) => edge.share * (1.0 - state.routes[cache.at()].hit),
                None => edge.share,
            };
            if edge.needed {
                right *= (1.0 - share * edge.wrong(called)).max(0.0);
            }
            if edge.waited {
                let time = edge.delay_ms + called.latency_ms;
                mean += share * time;
                variance += share * (edge.variance + called.variance)
                    + (share * (1.0 - share)).max(0.0) * time * time;
            }
        }
        let known = &topology.routes[no.at()];
        let route = &mut state.routes[no.at()];
        route.latency_ms = mean;
        route.variance = variance;
        route.quality = if known.model {
            route.drifted += route.burden.drift * step.dt;
            (route.fixed.quality - route.drifted - CORRUPT * route.fixed.corrupt).max(0.0)
        } else {
            // Who keeps answers spoils those that it gives.
            let given = if known.hit > 0.0 { route.hit } else { 1.0 };
            QUALITY - given * (QUALITY - route.fixed.quality)
        };
        if known.demand > 0.0 {
            // Users give up, too, and what they did not wait for they have not seen.
            let time = Time { mean, variance };
            let patience = topology.habits.patience_ms;
            right *= 1.0 - queue::later(time, patience);
            route.p95_ms = queue::p95(time).min(patience);
            route.retry(1.0 - right, topology.habits.retries, step.retry);
        }
        route.err = 1.0 - right;
    }
}

impl Edge {
    /// Share of the calls that come to nothing.
    fn wrong(&self, called: &RouteState) -> f64 {
        1.0 - (1.0 - self.err) * (1.0 - self.cut) * (1.0 - called.err)
    }
}

impl RouteState {
    /// Who failed comes again after a while, and again when that fails: `err + err^2 + ..` of
    /// the first tries in the end. Of a broken number of `retries` the last is that of some.
    fn retry(&mut self, err: f64, retries: f64, lag: f64) {
        let (mut before, mut left) = (1.0, retries);
        self.retries = 0.0;
        for again in &mut self.again {
            let failed = before * err * left.clamp(0.0, 1.0);
            before = *again;
            *again += (failed - *again) * lag;
            self.retries += *again;
            left -= 1.0;
        }
    }
}
