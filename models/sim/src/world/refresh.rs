//! What follows from phases, weights, burdens and paths, and stays the same until one of
//! them changes: shares, nominal rates, errors, the calls' paths, memory.
//!
//! In goes the state with its flag `stale`, out comes the state with all `fixed` fields
//! and edges computed. Runs some times in an episode, so it may walk all pairs.

use super::state::{Phase, ReplicaFixed, State};
use crate::queue::{self, Time};
use crate::topology::{LinkNo, NodeNo, RouteNo, Topology, Version};

/// Quality of a model that is well.
pub(crate) const QUALITY: f64 = 0.92;
/// What is lost of it when a service does less.
const DEGRADED: f64 = 0.02;
/// What is lost of it with the version before the last good one.
const OLDER: f64 = 0.02;
/// Factor on the rate of a service that does less.
const DEGRADED_RATE: f64 = 1.6;
/// A clock that is off by more has its calls refused: tokens are valid for a minute.
const CLOCK_MAX_S: f64 = 60.0;
/// Bytes in a segment.
const MSS: f64 = 1460.0;
/// Requests per second that are never fallen below: times stay finite.
const RATE_MIN: f64 = 1e-3;
/// Connections that a caller keeps to a backend.
const CONNECTIONS: f64 = 8.0;

/// What lies between two nodes.
#[derive(Debug, Clone, Copy)]
struct Path {
    /// One way, in milliseconds.
    delay_ms: f64,
    /// Share of packets lost.
    loss: f64,
}

/// Computes all that `stale` speaks of.
pub(super) fn refresh(topology: &Topology, state: &mut State) {
    state.stale = false;
    nodes(topology, state);
    for at in 0..state.replicas.len() {
        replica(topology, state, at);
    }
    for route in &mut state.routes {
        route.fixed.corrupt = route.burden.corrupt;
    }
    for no in &topology.order {
        shares(topology, state, *no);
        // What is corrupt where it comes in is corrupt wherever it goes.
        let fixed = state.routes[no.at()].fixed;
        for edge in &state.edges[fixed.first_edge..fixed.end_edge] {
            let called = &mut state.routes[edge.to.at()].fixed.corrupt;
            *called = called.max(fixed.corrupt);
        }
    }
    for caller in 0..state.routes.len() {
        let fixed = state.routes[caller].fixed;
        for at in fixed.first_edge..fixed.end_edge {
            edge(topology, state, RouteNo::new(caller), at);
        }
    }
}

/// Memory and processors that are taken besides the work.
fn nodes(topology: &Topology, state: &mut State) {
    for (node, known) in state.nodes.iter_mut().zip(&topology.nodes) {
        node.memory_mb = known.system_mb + node.burden.hog_mb;
        node.base_demand = node.burden.hog;
        node.data_mb = 0.0;
    }
    if let Some(training) = &topology.training {
        for worker in &training.workers {
            let node = &mut state.nodes[worker.at()];
            node.memory_mb += training.memory_mb;
            node.base_demand += training.cores;
        }
    }
    for (replica, known) in state.replicas.iter().zip(&topology.replicas) {
        let node = &mut state.nodes[known.node.at()];
        let lives = replica.lives();
        node.data_mb += replica.data_mb;
        if lives {
            let usual = topology.routes[known.route.at()].memory_mb;
            node.memory_mb += usual + replica.leaked_mb + replica.burden.ballast_mb;
        }
        if lives && !matches!(replica.phase, Phase::Frozen) {
            let cores = topology.nodes[known.node.at()].cores;
            node.base_demand += replica.burden.spin.min(cores * replica.cpu_limit);
        }
    }
}

/// Whether a clock is off by too much.
pub(super) fn skewed(clock_s: f64) -> bool {
    clock_s.abs() > CLOCK_MAX_S
}

/// What a replica can do, alone.
fn replica(topology: &Topology, state: &mut State, at: usize) {
    let known = &topology.replicas[at];
    let route = &topology.routes[known.route.at()];
    let up = state.up(known.node);
    let node = &state.nodes[known.node.at()];
    let on_route = &mut state.routes[known.route.at()];
    let replica = &mut state.replicas[at];
    if !up {
        on_route.flow.lost += replica.queue;
        replica.queue = 0.0;
    }
    let on_route = &on_route.burden;
    let burden = &replica.burden;

    let cores = route
        .cores
        .min(replica.cpu_limit * topology.nodes[known.node.at()].cores);
    let limited = if route.cores > 0.0 {
        cores / route.cores
    } else {
        1.0
    };
    let io = if route.writes { node.burden.io } else { 1.0 };
    let tier = if replica.degraded { DEGRADED_RATE } else { 1.0 };
    let mut right = (1.0 - burden.err) * (1.0 - on_route.err);
    if skewed(node.clock_s) {
        right *= 1.0 - topology.habits.signed;
    }
    if replica.exhausted() || (route.writes && node.stuck_disk) {
        right = 0.0;
    }
    let mut lost = burden.bad;
    if replica.degraded {
        lost += DEGRADED;
    }
    if replica.model == Version::Older {
        lost += OLDER;
    }
    replica.fixed = ReplicaFixed {
        // The route knows who takes connections; here only who might.
        share: if up { replica.weight } else { 0.0 },
        nominal: (route.rate * tier * limited / (burden.slow * on_route.slow * io)).max(RATE_MIN),
        cores,
        err: 1.0 - right,
        quality: QUALITY - lost,
        leaks: burden.leak_mb > 0.0 || burden.leak_fds > 0.0 || burden.leak_threads > 0.0,
    };
}

/// How the requests of a route are shared out. Whoever holds a port is sent some, whether
/// it answers or not; whoever none of the callers can reach is not.
fn shares(topology: &Topology, state: &mut State, no: RouteNo) {
    let route = &topology.routes[no.at()];
    if route.outside_ms.is_some() {
        return;
    }
    let mut fixed = state.routes[no.at()].fixed;
    let mut sum = 0.0;
    for replica in &route.replicas {
        let holds = match state.replicas[replica.at()].phase {
            Phase::Running | Phase::Hung | Phase::Frozen => true,
            Phase::Starting { .. } | Phase::Dead | Phase::Standby => false,
        };
        let node = topology.replicas[replica.at()].node;
        let reached = if holds {
            reach(topology, state, no, node)
        } else {
            0.0
        };
        let share = &mut state.replicas[replica.at()].fixed.share;
        *share *= reached;
        sum += *share;
    }
    fixed.nobody = sum <= 0.0;
    fixed.running = 0;
    fixed.running_share = 0.0;
    fixed.quality = 0.0;
    for replica in &route.replicas {
        let replica = &mut state.replicas[replica.at()];
        if sum > 0.0 {
            replica.fixed.share /= sum;
        }
        if replica.fixed.share > 0.0 && matches!(replica.phase, Phase::Running) {
            fixed.running += 1;
            fixed.running_share += replica.fixed.share;
            fixed.quality += replica.fixed.share * replica.fixed.quality;
        }
    }
    if fixed.running_share > 0.0 {
        fixed.quality /= fixed.running_share;
    }
    state.routes[no.at()].fixed = fixed;
}

/// Share of a route's callers that reach a node; those from outside reach all.
fn reach(topology: &Topology, state: &State, no: RouteNo, node: NodeNo) -> f64 {
    if topology.routes[no.at()].demand > 0.0 {
        return 1.0;
    }
    let mut all = 0.0;
    let mut reached = 0.0;
    for (caller, route) in topology.routes.iter().enumerate() {
        let calls = route.calls.iter().filter(|call| call.to == no);
        let weight: f64 = calls.map(|call| call.share).sum();
        if weight == 0.0 {
            continue;
        }
        let callers = &state.routes[caller].fixed;
        for at in callers.first..callers.end {
            let share = weight * state.replicas[at].fixed.share;
            all += share;
            if share > 0.0 && path(topology, state, topology.replicas[at].node, node).is_some() {
                reached += share;
            }
        }
    }
    // Where nobody calls, nobody is cut off.
    if all > 0.0 { reached / all } else { 1.0 }
}

/// The path of a call, as the mean over who calls whom.
fn edge(topology: &Topology, state: &mut State, caller: RouteNo, at: usize) {
    let to = state.edges[at].to;
    let callee = &topology.routes[to.at()];
    let callers = state.routes[caller.at()].fixed;
    let called = state.routes[to.at()].fixed;
    let timeout_ms = topology.habits.timeout_ms;
    let segments = 1.0 + (callee.kb * 1000.0 / MSS).ceil();
    let mut all = Way::default();
    let mut cap = f64::INFINITY;
    for from in callers.first..callers.end {
        let share = state.replicas[from].fixed.share;
        if share <= 0.0 {
            continue;
        }
        let node = topology.replicas[from].node;
        let mut reached = Way::default();
        let mut over = |path: Path, outside_ms: f64, part: f64| {
            let stalls = stalls(segments, path.loss);
            let late = queue::later(stalls, timeout_ms);
            let stalls = stalls.within(timeout_ms);
            reached.add(
                &Way {
                    weight: 1.0,
                    delay_ms: 2.0 * path.delay_ms + outside_ms + stalls.mean,
                    variance: stalls.variance,
                    late,
                },
                part,
            );
            if path.loss > 0.0 {
                let rtt = (2.0 * path.delay_ms / 1000.0).max(0.001);
                let bytes = CONNECTIONS * 1.22 * MSS / (rtt * path.loss.sqrt());
                cap = cap.min(bytes / (callee.kb * 1000.0) / (share * part));
            }
        };
        if let Some(ms) = callee.outside_ms {
            if let Some(path) = way_out(topology, state, node) {
                over(path, ms, 1.0);
            }
        } else {
            for backend in called.first..called.end {
                let part = state.replicas[backend].fixed.share;
                if part > 0.0
                    && let Some(path) = path(topology, state, node, topology.replicas[backend].node)
                {
                    over(path, 0.0, part);
                }
            }
        }
        if reached.weight > 0.0 {
            all.add(&reached, share / reached.weight);
        } else {
            // Who reaches nobody waits in vain, and takes up no way.
            (all.weight, all.late) = (all.weight + share, all.late + share);
        }
    }
    let edge = &mut state.edges[at];
    let part = if all.weight > 0.0 {
        1.0 / all.weight
    } else {
        0.0
    };
    edge.cap = cap;
    edge.delay_ms = part * all.delay_ms;
    edge.variance = part * all.variance;
    // Whether anybody is there to be called is the callee's account.
    edge.err = if called.nobody { 0.0 } else { part * all.late };
}

/// Ways of calls, summed up by how many go them.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    weight: f64,
    delay_ms: f64,
    variance: f64,
    late: f64,
}

impl Way {
    fn add(&mut self, other: &Self, part: f64) {
        self.weight += part * other.weight;
        self.delay_ms += part * other.delay_ms;
        self.variance += part * other.variance;
        self.late += part * other.late;
    }
}

/// How long it takes to send again what was lost, in milliseconds, by the model of Padhye,
/// Firoiu, Towsley and Kurose (1998): of the lost segments some show by those that follow;
/// the others wait for a timeout, which doubles up to six times.
fn stalls(segments: f64, loss: f64) -> Time {
    /// First timeout of a retransmission, in milliseconds.
    const TIMEOUT_MS: f64 = 200.0;
    if loss <= 0.0 {
        return Time::default();
    }
    // Segments under way at once: three must follow the lost one.
    let window = (8.0 / (3.0 * loss)).sqrt().min(segments);
    let timeouts = segments * loss * (3.0 / window).min(1.0);
    let doubled = [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
    let sum = doubled.iter().rev().fold(0.0, |sum, by| sum * loss + by);
    let each = TIMEOUT_MS * sum / (1.0 - loss).max(0.01);
    // So many of them, each as if exponential.
    Time {
        mean: timeouts * each,
        variance: timeouts * 2.0 * each * each,
    }
}

/// What lies between two nodes; `None` when nothing gets through.
fn path(topology: &Topology, state: &State, from: NodeNo, to: NodeNo) -> Option<Path> {
    if from == to {
        return Some(Path {
            delay_ms: 0.0,
            loss: 0.0,
        });
    }
    let (here, there) = (&topology.nodes[from.at()], &topology.nodes[to.at()]);
    if here.site == there.site {
        return link(topology, state, topology.sites[here.site.at()].lan);
    }
    let out = link(topology, state, state.nodes[from.at()].uplink)?;
    let back = link(topology, state, state.nodes[to.at()].uplink)?;
    Some(Path {
        delay_ms: out.delay_ms + back.delay_ms,
        loss: 1.0 - (1.0 - out.loss) * (1.0 - back.loss),
    })
}

/// What lies between a node and the world.
fn way_out(topology: &Topology, state: &State, from: NodeNo) -> Option<Path> {
    link(topology, state, state.nodes[from.at()].uplink)
}

/// One link.
fn link(topology: &Topology, state: &State, no: LinkNo) -> Option<Path> {
    let known = &topology.links[no.at()];
    let burden = state.links[no.at()].burden;
    (!burden.down).then_some(Path {
        delay_ms: known.delay_ms + burden.delay_ms,
        loss: 1.0 - (1.0 - known.loss) * (1.0 - burden.loss),
    })
}

/// Whether an order from outside reaches a node.
pub(super) fn reachable(topology: &Topology, state: &State, node: NodeNo) -> bool {
    state.up(node) && way_out(topology, state, node).is_some()
}
