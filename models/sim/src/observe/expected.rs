//! What a look at a world would show on average.
//!
//! For who has a world of its own to compare with what is seen: without noise there is
//! less chance in the comparison, and it takes a fraction of the time of a look. What comes
//! late is a mean over when it comes; false alarms and missing readings have no part in it.

use homeostat_common::observation::Metric;

use super::gauges::{Gauges, METRICS_NODE, METRICS_REPLICA};
use super::look::{self, LinkReading, ModelReading, Noise, RouteReading};
use super::{Template, lines as written};
use crate::fault::burden::Telemetry;
use crate::world::{Phase, Power, World};

/// Shares of the readings that are of this look, of the one before, and of the one before
/// that: by how late they come, at a look in five seconds.
const ARRIVES: [f64; 3] = [0.46, 0.33, 0.21];

/// What comes from a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Told {
    /// Nothing.
    Nothing,
    /// What it told before.
    TheSame,
    /// What it measured so many seconds before the usual.
    After(f64),
}

/// Of a node.
#[derive(Debug, Clone)]
pub(crate) struct ExpectedNode {
    pub(crate) told: Told,
    /// Seconds that its clock is ahead.
    pub(crate) ahead: f64,
    pub(crate) gauges: [(Metric, f64); METRICS_NODE.len()],
}

/// Of a replica.
#[derive(Debug, Clone)]
pub(crate) struct ExpectedReplica {
    pub(crate) down: bool,
    pub(crate) gauges: [(Metric, f64); METRICS_REPLICA.len()],
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) nodes: Vec<ExpectedNode>,
    pub(crate) replicas: Vec<ExpectedReplica>,
    pub(crate) routes: Vec<RouteReading>,
    pub(crate) models: Vec<ModelReading>,
    pub(crate) links: Vec<LinkReading>,
}

impl Expected {
    /// What is seen of a world now; `before` are the gauges of the looks before, the last
    /// one first, and are moved on.
    pub(crate) fn of(world: &World, before: &mut [Vec<f64>; 2]) -> Self {
        let (topology, state) = (world.topology(), &world.state);
        let mut none = Noise::NONE;
        let now = Gauges::measure(topology, state, &mut none).values;
        let arrives = |at: usize| {
            let parts = [Some(&now), before.first(), before.get(1)];
            let (mut sum, mut of) = (0.0, 0.0);
            for (part, share) in parts.into_iter().zip(ARRIVES) {
                // Where there is nothing, what came before stays.
                let value = part.and_then(|part| part.get(at).copied());
                if let Some(value) = value.filter(|value| value.is_finite()) {
                    sum += share * value;
                    of += share;
                }
            }
            if of > 0.0 { sum / of } else { f64::NAN }
        };
        let nodes = state.nodes.iter().enumerate().map(|(at, own)| {
            let cut_off = state.links[own.uplink.at()].burden.down;
            let mute = own.power != Power::On || own.burden.off || own.burden.deaf || cut_off;
            let (told, factor) = match own.burden.telemetry {
                _ if mute => (Told::Nothing, 1.0),
                Telemetry::Frozen => (Told::TheSame, 1.0),
                Telemetry::Honest => (Told::After(0.0), 1.0),
                Telemetry::Late(secs) => (Told::After(secs), 1.0),
                Telemetry::Wrong(factor) => (Told::After(0.0), factor),
            };
            let base = at * METRICS_NODE.len();
            let gauge = |place: usize| (METRICS_NODE[place], factor * arrives(base + place));
            ExpectedNode {
                told,
                ahead: own.clock_s,
                gauges: std::array::from_fn(gauge),
            }
        });
        let nodes: Vec<ExpectedNode> = nodes.collect();
        let begin = nodes.len() * METRICS_NODE.len();
        let replicas = state.replicas.iter().enumerate().map(|(at, own)| {
            let node = topology.replicas()[at].node;
            let factor = match state.nodes[node.at()].burden.telemetry {
                Telemetry::Wrong(factor) => factor,
                Telemetry::Honest | Telemetry::Frozen | Telemetry::Late(_) => 1.0,
            };
            let base = begin + at * METRICS_REPLICA.len();
            let gauge = |place: usize| (METRICS_REPLICA[place], factor * arrives(base + place));
            ExpectedReplica {
                down: own.phase == Phase::Dead,
                gauges: if own.phase == Phase::Standby {
                    METRICS_REPLICA.map(|metric| (metric, f64::NAN))
                } else {
                    std::array::from_fn(gauge)
                },
            }
        });
        let replicas = replicas.collect();
        before.swap(0, 1);
        before[0] = now;
        Self {
            nodes,
            replicas,
            routes: look::routes(topology, state, &mut none),
            models: look::models(topology, state, &mut none),
            links: look::links(topology, state, &mut none),
        }
    }
}

/// How many lines of each template each replica is to be expected to have written in
/// `elapsed` seconds, by replica and then template. Of what is counted (starts, ends) it is
/// those since `counted`, which is moved on.
pub(crate) fn lines(world: &World, elapsed: f64, counted: &mut Vec<[u32; 3]>) -> Vec<f64> {
    let state = &world.state;
    let mut lines = written::rates(world.topology(), state, &world.engine);
    lines.iter_mut().for_each(|rate| *rate *= elapsed);
    counted.resize(state.replicas.len(), [0; 3]);
    let of_one = lines.chunks_exact_mut(Template::ALL.len());
    for ((own, before), replica) in of_one.zip(counted).zip(&state.replicas) {
        let now = [replica.starts, replica.deaths, replica.oom_kills];
        let templates = [Template::Started, Template::ExitCode, Template::OomKilled];
        for ((template, now), before) in templates.into_iter().zip(now).zip(&*before) {
            own[template as usize] += f64::from(now.saturating_sub(*before));
        }
        *before = now;
    }
    lines
}
