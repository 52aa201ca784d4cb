//! One look at a world: samples with noise, what of them arrives, alarms.

use std::collections::VecDeque;

use homeostat_common::ids::{RouteId, ServiceId};
use homeostat_common::observation::{
    AlarmReading, LogCount, Metric, MetricReading, Observation, Reading,
};
use homeostat_common::units::{Micros, Millis};

use super::gauges::{Gauges, METRICS_NODE, METRICS_REPLICA, NOISE};
use super::lines;
use crate::chance::{Chance, Stream};
use crate::fault::{Engine, burden::Telemetry};
use crate::topology::{NodeNo, Topology};
use crate::world::state::State;
use crate::world::{Phase, Power, World};

/// Longest time between two looks of which all log lines are still told; what was
/// written before is lost to a rotation.
pub const LOOK_MAX_S: f64 = 60.0;
/// How many looks are remembered: two minutes at one in five seconds, for what is told
/// late.
const REMEMBERED: usize = 32;
/// Readings arrive up to so many seconds late; half of them within a second or so.
const LATE_MAX_S: f64 = 10.0;
/// The share of readings that do not arrive: from here, by the metric,
const MISSING_MIN: f64 = 0.01;
/// to here.
const MISSING_MAX: f64 = 0.05;
/// How often a look shows an alarm for which there is no reason.
const FALSE_ALARMS: f64 = 0.05;
/// How far the clocks of nodes are off that are well, in seconds.
const CLOCK_OFF_S: f64 = 1.5;

/// What the callers of a service meet.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteReading {
    /// Which.
    pub route: RouteId,
    /// Requests per second that came.
    pub arrival: f64,
    /// Requests per second that were answered or passed on.
    pub passed: f64,
    /// Share refused by its limit.
    pub shed: f64,
    /// Share of errors, with those of whom it calls.
    pub err: f64,
    /// Requests that wait.
    pub queue: f64,
    /// 95th percentile of the time to its answer, in milliseconds.
    pub p95_ms: f64,
    /// Share of what it is asked that it has, for a cache.
    pub hit: Option<f64>,
}

/// What a model says about itself, for want of the truth.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelReading {
    /// The replica that runs it.
    pub service: ServiceId,
    /// How sure it is on average.
    pub confidence: f64,
    /// How far its inputs are from those it was trained on; 0 is as usual.
    pub input_drift: f64,
    /// Share of answers on which a redundant model disagrees.
    pub disagreement: f64,
}

/// What is measured on a link.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkReading {
    /// Which.
    pub link: String,
    /// Round trip in milliseconds; `None` if nothing comes back.
    pub rtt_ms: Option<f64>,
    /// Share of packets lost.
    pub loss: f64,
}

/// Everything that is seen in one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Seconds since the start, by the healer's own clock.
    pub at: f64,
    /// By the number of the node; `None` from one that tells nothing.
    pub nodes: Vec<Option<Observation>>,
    /// By the number of the route; somebody else's too.
    pub routes: Vec<RouteReading>,
    /// Of each replica of a model that runs.
    pub models: Vec<ModelReading>,
    /// By the number of the link.
    pub links: Vec<LinkReading>,
}

/// What one look measured, before any of it is late or missing.
#[derive(Debug, Clone)]
struct Sample {
    at: f64,
    gauges: Gauges,
}

/// Who looks at one episode.
#[derive(Debug, Clone)]
pub struct Observer {
    chance: Chance,
    samples: VecDeque<Sample>,
    /// Starts, deaths and kills for memory of each replica, at the last look.
    counted: Vec<[u32; 3]>,
    /// For each node whose telemetry stands still: what it told then.
    frozen: Vec<Option<Observation>>,
    looks: u64,
}

impl Observer {
    /// One that has seen nothing yet. The seed is that of the episode.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed, Stream::Observe),
            samples: VecDeque::new(),
            counted: Vec::new(),
            frozen: Vec::new(),
            looks: 0,
        }
    }

    /// Looks at a world. Log lines are those since the last look.
    pub fn look(&mut self, world: &World) -> Seen {
        self.look_at(world.topology(), &world.state, &world.engine)
    }

    pub(crate) fn look_at(&mut self, topology: &Topology, state: &State, faults: &Engine) -> Seen {
        self.looks += 1;
        let before = self.samples.back().map_or(0.0, |sample| sample.at);
        let elapsed = (state.now - before).clamp(0.0, LOOK_MAX_S);
        let mut noise = Noise::new(self.chance, self.looks);
        let gauges = Gauges::measure(topology, state, &mut noise);
        if self.samples.len() == REMEMBERED {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            at: state.now,
            gauges,
        });
        self.counted.resize(state.replicas.len(), [0; 3]);
        self.frozen.resize(state.nodes.len(), None);
        let mut logs = lines::written(topology, state, faults, &self.counted, elapsed, &mut noise);
        for (counted, replica) in self.counted.iter_mut().zip(&state.replicas) {
            *counted = [replica.starts, replica.deaths, replica.oom_kills];
        }
        let wrong_at = (noise.uniform() < FALSE_ALARMS)
            .then(|| noise.below(u32::try_from(state.replicas.len()).unwrap_or(1)));
        let mut nodes = Vec::with_capacity(state.nodes.len());
        for at in 0..state.nodes.len() {
            let lines = logs.get_mut(at).map(std::mem::take).unwrap_or_default();
            nodes.push(self.node(topology, state, NodeNo::new(at), lines, wrong_at, elapsed));
        }
        Seen {
            at: state.now,
            nodes,
            routes: routes(topology, state, &mut noise),
            models: models(topology, state, &mut noise),
            links: links(topology, state, &mut noise),
        }
    }

    /// What one node tells.
    fn node(
        &mut self,
        topology: &Topology,
        state: &State,
        node: NodeNo,
        logs: Vec<LogCount>,
        wrong_at: Option<u32>,
        elapsed: f64,
    ) -> Option<Observation> {
        let own = &state.nodes[node.at()];
        let cut_off = state.links[own.uplink.at()].burden.down;
        if own.power != Power::On || own.burden.off || own.burden.deaf || cut_off {
            return None;
        }
        let (late, factor) = match own.burden.telemetry {
            Telemetry::Frozen => {
                if let Some(frozen) = &self.frozen[node.at()] {
                    return Some(frozen.clone());
                }
                (0.0, 1.0)
            }
            Telemetry::Honest => (0.0, 1.0),
            Telemetry::Late(secs) => (secs, 1.0),
            Telemetry::Wrong(factor) => (0.0, factor),
        };
        let metrics = self.metrics(topology, state, node, late, factor);
        let mut alarms = alarms(topology, state, node, &metrics);
        if let Some(at) = wrong_at {
            let on_node = topology.nodes()[node.at()].replicas.iter();
            let service = on_node.filter(|r| r.0 == u16::try_from(at).unwrap_or(u16::MAX));
            alarms.extend(service.map(|replica| {
                alarm(
                    "latency",
                    Some(topology.replicas()[replica.at()].name.clone()),
                )
            }));
        }
        let off = CLOCK_OFF_S * (2.0 * self.chance.uniform(0, node.at() as u64) - 1.0);
        let stamp = |at: f64| micros(at + off + own.clock_s);
        let seen = Observation {
            node: topology.nodes()[node.at()].name.clone(),
            from: stamp(state.now - elapsed),
            to: stamp(state.now),
            logs,
            metrics,
            alarms,
        };
        self.frozen[node.at()] =
            matches!(own.burden.telemetry, Telemetry::Frozen).then(|| seen.clone());
        Some(seen)
    }

    fn metrics(
        &self,
        topology: &Topology,
        state: &State,
        node: NodeNo,
        late: f64,
        factor: f64,
    ) -> Vec<MetricReading> {
        let mut readings = Vec::new();
        let base = node.at() * METRICS_NODE.len();
        for (place, metric) in METRICS_NODE.iter().enumerate() {
            let reading = self.reading(state.now, late, factor, base + place);
            readings.push(MetricReading::node(*metric, reading));
        }
        for replica in &topology.nodes()[node.at()].replicas {
            if state.replicas[replica.at()].phase == Phase::Standby {
                continue;
            }
            let nodes = topology.nodes().len() * METRICS_NODE.len();
            let base = nodes + replica.at() * METRICS_REPLICA.len();
            for (place, metric) in METRICS_REPLICA.iter().enumerate() {
                let reading = self.reading(state.now, late, factor, base + place);
                let name = topology.replicas()[replica.at()].name.clone();
                readings.push(MetricReading::service(*metric, name, reading));
            }
        }
        readings
    }

    /// What has arrived of one gauge by now.
    fn reading(&self, now: f64, late: f64, factor: f64, gauge: usize) -> Reading<f64> {
        let index = gauge as u64;
        let key = |kind: u64| NOISE * (1 + kind) + index;
        let missing = MISSING_MIN + (MISSING_MAX - MISSING_MIN) * self.chance.uniform(0, key(1));
        let u = self.chance.uniform(self.looks, key(2));
        // Cubed: most of it is nearly on time.
        let mut lag = late + LATE_MAX_S * u * u * u;
        if self.chance.uniform(self.looks, key(3)) < missing {
            // What does not arrive leaves what came before.
            lag += LATE_MAX_S;
        }
        let newest = self.samples.back().map_or(now, |sample| sample.at);
        let arrived = self.samples.iter().rev().find_map(|sample| {
            // The present window counts as fresh however late in it a reading comes.
            let in_time = now - sample.at >= lag || (sample.at == newest && lag < 1.0);
            let value = sample.gauges.values.get(gauge).copied()?;
            (in_time && value.is_finite()).then_some((sample.at, value * factor))
        });
        match arrived {
            Some((at, value)) if at == newest => Reading::Fresh(value),
            Some((at, last)) => Reading::Stale {
                last,
                age: Millis(micros(now - at).0 / 1000),
            },
            None => Reading::Missing,
        }
    }
}

/// Draws of one look, in a fixed order.
pub(super) struct Noise {
    /// None for who wants to know what is to be expected.
    chance: Option<Chance>,
    look: u64,
    drawn: u64,
}

impl Noise {
    fn new(chance: Chance, look: u64) -> Self {
        Self {
            chance: Some(chance),
            look,
            drawn: 0,
        }
    }

    /// Everything as it is on average.
    pub(super) const NONE: Self = Self {
        chance: None,
        look: 0,
        drawn: 0,
    };

    pub(super) fn uniform(&mut self) -> f64 {
        self.drawn += 1;
        let (look, drawn) = (self.look, self.drawn);
        self.chance
            .map_or(0.5, |chance| chance.uniform(look, drawn))
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.drawn += 1;
        let (look, drawn) = (self.look, self.drawn);
        self.chance
            .map_or(0, |chance| chance.below(bound, look, drawn))
    }

    pub(super) fn normal(&mut self) -> f64 {
        self.drawn += 1;
        let (look, drawn) = (self.look, self.drawn);
        self.chance.map_or(0.0, |chance| chance.normal(look, drawn))
    }

    /// A value that is off by a share of itself.
    pub(super) fn about(&mut self, value: f64, share: f64) -> f64 {
        value * (1.0 + share * self.normal()).max(0.0)
    }

    /// A share as a sample of so many shows it.
    pub(super) fn share(&mut self, share: f64, of: f64) -> f64 {
        let spread = (share * (1.0 - share) / of.max(1.0)).max(0.0).sqrt();
        (share + spread * self.normal()).clamp(0.0, 1.0)
    }
}

fn micros(secs: f64) -> Micros {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // Saturates: before its own boot, a node's clock says 0.
    let micros = (secs * 1e6) as u64;
    Micros(micros)
}

fn alarm(name: &str, service: Option<ServiceId>) -> AlarmReading {
    AlarmReading {
        alarm: match &service {
            Some(service) => format!("{service}-{name}"),
            None => name.to_owned(),
        },
        service,
        text: format!("{name} is beyond its bound"),
    }
}

/// Alarms of a node: thresholds on what it measures, however wrong that is.
fn alarms(
    topology: &Topology,
    state: &State,
    node: NodeNo,
    metrics: &[MetricReading],
) -> Vec<AlarmReading> {
    let own = &topology.nodes()[node.at()];
    let mut alarms = Vec::new();
    for reading in metrics {
        let (Reading::Fresh(value) | Reading::Stale { last: value, .. }) = reading.reading else {
            continue;
        };
        let name = match reading.metric {
            Metric::CpuBusy if value > 0.95 => "cpu",
            Metric::MemoryAvailable if value < 0.1 * own.memory_mb * MB => "memory",
            Metric::DiskFree if value < 0.05 * own.disk_mb * MB => "disk",
            Metric::InodesFree if value < 0.05 * own.inodes => "inodes",
            Metric::Temperature if value > 80.0 => "temperature",
            Metric::Availability if value < 0.9 => "errors",
            Metric::LatencyP95 if value > 400.0 => "latency",
            Metric::Descriptors if value > 900.0 => "descriptors",
            Metric::Threads if value > 450.0 => "threads",
            _ => continue,
        };
        alarms.push(alarm(name, reading.service.clone()));
    }
    for replica in &own.replicas {
        if state.replicas[replica.at()].phase == Phase::Dead {
            alarms.push(alarm(
                "down",
                Some(topology.replicas()[replica.at()].name.clone()),
            ));
        }
    }
    alarms
}

/// Bytes of a megabyte, as the state counts it.
pub(super) const MB: f64 = 1_048_576.0;

pub(super) fn routes(topology: &Topology, state: &State, noise: &mut Noise) -> Vec<RouteReading> {
    let all = topology.routes().iter().zip(&state.routes);
    all.map(|(route, now)| RouteReading {
        route: route.name.clone(),
        arrival: noise.about(now.arrival, 0.03),
        passed: noise.about(now.passed, 0.03),
        shed: noise.share(now.shed.clamp(0.0, 1.0), 200.0),
        err: noise.share(now.err.clamp(0.0, 1.0), 200.0),
        queue: noise.about(now.queue, 0.05),
        p95_ms: noise.about(now.p95_ms.max(now.latency_ms), 0.08),
        hit: (route.hit > 0.0).then(|| noise.share(now.hit.clamp(0.0, 1.0), 200.0)),
    })
    .collect()
}

pub(super) fn models(topology: &Topology, state: &State, noise: &mut Noise) -> Vec<ModelReading> {
    let mut readings = Vec::new();
    for (replica, now) in topology.replicas().iter().zip(&state.replicas) {
        let route = &topology.routes()[replica.route.at()];
        if !route.model || now.phase != Phase::Running {
            continue;
        }
        let whole = &state.routes[replica.route.at()];
        let (bad, drifted) = (now.burden.bad, whole.drifted);
        // A model that is wrong is not always unsure, and one that is fed rubbish is.
        let corrupt = whole.burden.corrupt;
        readings.push(ModelReading {
            service: replica.name.clone(),
            confidence: (0.93 - 0.25 * bad - 0.35 * drifted - 0.3 * corrupt
                + 0.012 * noise.normal())
            .clamp(0.0, 1.0),
            input_drift: (0.9 * drifted + 0.6 * corrupt + 0.02 * noise.normal()).max(0.0),
            disagreement: (0.04
                + 0.7 * bad
                + 0.3 * drifted
                + 0.2 * corrupt
                + 0.012 * noise.normal())
            .clamp(0.0, 1.0),
        });
    }
    readings
}

pub(super) fn links(topology: &Topology, state: &State, noise: &mut Noise) -> Vec<LinkReading> {
    let all = topology.links().iter().zip(&state.links);
    all.map(|(link, now)| {
        let loss = 1.0 - (1.0 - link.loss) * (1.0 - now.burden.loss);
        let rtt = 2.0 * (link.delay_ms + now.burden.delay_ms);
        LinkReading {
            link: link.name.clone(),
            rtt_ms: (!now.burden.down).then(|| noise.about(rtt, 0.1)),
            // Twenty packets in a look.
            loss: noise.share(if now.burden.down { 1.0 } else { loss }, 20.0),
        }
    })
    .collect()
}
