//! What a healer makes of what it sees: smoothed gauges beside what they were while all
//! was well, trends, and log lines of the last while.
//!
//! In goes one look after the other ([`Signs::see`]); out come questions that policies ask
//! about replicas, nodes, routes and links. It has no opinion on causes.

use std::collections::{BTreeSet, VecDeque};

use homeostat_common::observation::{Metric, Observation, Reading};

use crate::observe::{Expected, LinkReading, ModelReading, RouteReading, Seen, Template, Told};
use crate::topology::{LinkNo, NodeNo, ReplicaNo, RouteNo, Topology};

/// Until then, in seconds, what is seen counts as usual.
const QUIET_S: f64 = 55.0;
/// Looks whose log lines are remembered: 40 s of them at one in five seconds.
pub(super) const LINES_LOOKS: usize = 8;
/// Looks over which a trend is taken.
const TREND_LOOKS: usize = 6;
/// How much a new reading counts beside those before.
const FRESH: f64 = 0.4;
/// A reading that is older, in seconds, says nothing of now.
const OLD_S: f64 = 30.0;
/// How old readings are on average, in seconds, when all is well.
const AGE_S: f64 = 3.8;

/// One number over time.
#[derive(Debug, Clone, Default)]
pub(super) struct Gauge {
    now: Option<f64>,
    usual: f64,
    seen_usual: u32,
    /// The last readings and when they came, the oldest first.
    last: [(f64, f64); TREND_LOOKS],
    held: usize,
}

impl Gauge {
    fn note(&mut self, at: f64, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.now = Some(self.now.map_or(value, |now| now + FRESH * (value - now)));
        if at <= QUIET_S {
            self.seen_usual += 1;
            self.usual += (value - self.usual) / f64::from(self.seen_usual);
        }
        if self.held == TREND_LOOKS {
            self.last.rotate_left(1);
            self.held -= 1;
        }
        self.last[self.held] = (at, value);
        self.held += 1;
    }

    fn forget(&mut self) {
        self.now = None;
        self.held = 0;
    }

    /// Smoothed; `other` where nothing is known.
    pub(super) fn or(&self, other: f64) -> f64 {
        self.now.unwrap_or(other)
    }

    /// As it was while all was well.
    pub(super) fn usual(&self) -> Option<f64> {
        (self.seen_usual > 0).then_some(self.usual)
    }

    /// By how much of the usual it is more; 0 where one of them is not known.
    pub(super) fn above(&self) -> f64 {
        match (self.now, self.usual()) {
            (Some(now), Some(usual)) if usual > 0.0 => now / usual - 1.0,
            _ => 0.0,
        }
    }

    /// Per second, over the last looks; 0 while there are few.
    pub(super) fn trend(&self) -> f64 {
        if self.held < TREND_LOOKS {
            return 0.0;
        }
        let count = TREND_LOOKS as f64;
        let mean_x = self.last.iter().map(|(x, _)| x).sum::<f64>() / count;
        let mean_y = self.last.iter().map(|(_, y)| y).sum::<f64>() / count;
        let covariance: f64 = self
            .last
            .iter()
            .map(|(x, y)| (x - mean_x) * (y - mean_y))
            .sum();
        let variance: f64 = self
            .last
            .iter()
            .map(|(x, _)| (x - mean_x) * (x - mean_x))
            .sum();
        if variance > 0.0 {
            covariance / variance
        } else {
            0.0
        }
    }
}

/// Of a replica.
#[derive(Debug, Clone, Default)]
pub(super) struct ReplicaSign {
    pub(super) right: Gauge,
    pub(super) p95_ms: Gauge,
    pub(super) cores: Gauge,
    pub(super) memory: Gauge,
    pub(super) fds: Gauge,
    pub(super) threads: Gauge,
    pub(super) rate: Gauge,
    pub(super) sure: Gauge,
    pub(super) strange: Gauge,
    pub(super) disputed: Gauge,
    /// Looks in a row at which it was down.
    pub(super) down: u32,
    /// Looks in a row at which it was there and answered nothing.
    pub(super) mute: u32,
}

impl ReplicaSign {
    fn note(&mut self, metric: Metric, at: f64, value: f64) {
        match metric {
            Metric::MemoryResident => self.memory.note(at, value),
            Metric::CpuUsed => self.cores.note(at, value),
            Metric::Descriptors => self.fds.note(at, value),
            Metric::Threads => self.threads.note(at, value),
            Metric::LatencyP95 => self.p95_ms.note(at, value),
            Metric::Throughput => self.rate.note(at, value),
            Metric::Availability => self.right.note(at, value),
            _ => {}
        }
    }

    fn note_down(&mut self, is: bool) {
        if !is {
            self.down = 0;
            return;
        }
        self.down += 1;
        self.mute = 0;
        for gauge in [
            &mut self.p95_ms,
            &mut self.memory,
            &mut self.fds,
            &mut self.threads,
            &mut self.cores,
        ] {
            gauge.forget();
        }
    }
}

/// Of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeSign {
    pub(super) busy: Gauge,
    pub(super) waits_cpu: Gauge,
    pub(super) waits_disk: Gauge,
    pub(super) memory_free: Gauge,
    pub(super) disk_free: Gauge,
    pub(super) inodes_free: Gauge,
    pub(super) celsius: Gauge,
    /// Seconds that its clock is ahead of the healer's.
    pub(super) ahead: Gauge,
    /// How old its readings are, in seconds.
    pub(super) age: Gauge,
    /// Looks in a row without a word.
    pub(super) silent: u32,
    /// Looks in a row with the same words.
    pub(super) frozen: u32,
    stamp: u64,
}

impl NodeSign {
    fn note(&mut self, metric: Metric, at: f64, value: f64) {
        let gauge = match metric {
            Metric::CpuBusy => &mut self.busy,
            Metric::CpuPressure => &mut self.waits_cpu,
            Metric::IoPressure => &mut self.waits_disk,
            Metric::MemoryAvailable => &mut self.memory_free,
            Metric::DiskFree => &mut self.disk_free,
            Metric::InodesFree => &mut self.inodes_free,
            Metric::Temperature => &mut self.celsius,
            _ => return,
        };
        gauge.note(at, value);
    }
}

/// Of a route.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteSign {
    pub(super) arrival: Gauge,
    pub(super) err: Gauge,
    pub(super) p95_ms: Gauge,
    pub(super) queue: Gauge,
    pub(super) hit: Gauge,
}

/// Of a link.
#[derive(Debug, Clone, Default)]
pub(super) struct LinkSign {
    pub(super) rtt_ms: Gauge,
    pub(super) loss: Gauge,
    /// Looks in a row at which nothing came back.
    pub(super) down: u32,
    /// Times that it went down.
    pub(super) flaps: u32,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Signs {
    pub(super) at: f64,
    pub(super) replicas: Vec<ReplicaSign>,
    pub(super) nodes: Vec<NodeSign>,
    pub(super) routes: Vec<RouteSign>,
    pub(super) links: Vec<LinkSign>,
    lines: VecDeque<Vec<(ReplicaNo, Template, u32)>>,
    /// How many of each template each replica wrote in them; by replica, then template.
    counts: Vec<u32>,
    /// Templates that were written while all was well.
    usual: BTreeSet<Template>,
}

impl Signs {
    /// Takes in one look.
    pub(super) fn see(&mut self, topology: &Topology, seen: &Seen) {
        self.fit(topology);
        self.at = seen.at;
        let mut lines = Vec::new();
        for (at, told) in seen.nodes.iter().enumerate() {
            match told {
                Some(told) => self.node(topology, NodeNo::new(at), told, &mut lines),
                None => self.nodes[at].silent += 1,
            }
        }
        self.counts
            .resize(topology.replicas().len() * Template::ALL.len(), 0);
        if self.lines.len() == LINES_LOOKS {
            for (replica, template, count) in self.lines.pop_front().unwrap_or_default() {
                let place = place(replica, template);
                self.counts[place] = self.counts[place].saturating_sub(count);
            }
        }
        for (replica, template, count) in &lines {
            let place = place(*replica, *template);
            self.counts[place] = self.counts[place].saturating_add(*count);
        }
        if seen.at <= QUIET_S {
            self.usual
                .extend(lines.iter().map(|(_, template, _)| *template));
        }
        self.lines.push_back(lines);
        self.around(topology, seen.at, &seen.routes, &seen.models, &seen.links);
    }

    /// Takes in what a look at a world of one's own would show on average; no lines.
    pub(super) fn expect(&mut self, topology: &Topology, at: f64, expected: &Expected) {
        self.fit(topology);
        self.at = at;
        for (sign, now) in self.nodes.iter_mut().zip(&expected.nodes) {
            match now.told {
                Told::Nothing => sign.silent += 1,
                Told::TheSame => {
                    sign.silent = 0;
                    sign.frozen += 1;
                }
                Told::After(late) => {
                    sign.silent = 0;
                    sign.frozen = 0;
                    sign.ahead.note(at, now.ahead);
                    sign.age.note(at, AGE_S + late);
                    for (metric, value) in &now.gauges {
                        sign.note(*metric, at, *value);
                    }
                }
            }
        }
        for (at_replica, now) in expected.replicas.iter().enumerate() {
            let node = topology.replicas()[at_replica].node;
            let sign = &mut self.replicas[at_replica];
            match expected.nodes[node.at()].told {
                Told::Nothing | Told::TheSame => continue,
                Told::After(late) if late > OLD_S => {}
                Told::After(_) => {
                    for (metric, value) in &now.gauges {
                        sign.note(*metric, at, *value);
                    }
                }
            }
            sign.note_down(now.down);
        }
        let Expected {
            routes,
            models,
            links,
            ..
        } = expected;
        self.around(topology, at, routes, models, links);
    }

    fn fit(&mut self, topology: &Topology) {
        self.replicas
            .resize_with(topology.replicas().len(), Default::default);
        self.nodes
            .resize_with(topology.nodes().len(), Default::default);
        self.routes
            .resize_with(topology.routes().len(), Default::default);
        self.links
            .resize_with(topology.links().len(), Default::default);
    }

    /// What is measured from outside.
    fn around(
        &mut self,
        topology: &Topology,
        at: f64,
        routes: &[RouteReading],
        models: &[ModelReading],
        links: &[LinkReading],
    ) {
        for (sign, now) in self.routes.iter_mut().zip(routes) {
            sign.arrival.note(at, now.arrival);
            sign.err.note(at, now.err);
            sign.p95_ms.note(at, now.p95_ms);
            sign.queue.note(at, now.queue);
            if let Some(hit) = now.hit {
                sign.hit.note(at, hit);
            }
        }
        for model in models {
            if let Ok(no) = topology.replica_no(&model.service) {
                let sign = &mut self.replicas[no.at()];
                sign.sure.note(at, model.confidence);
                sign.strange.note(at, model.input_drift);
                sign.disputed.note(at, model.disagreement);
            }
        }
        for (sign, now) in self.links.iter_mut().zip(links) {
            sign.loss.note(at, now.loss);
            match now.rtt_ms {
                Some(rtt) => {
                    sign.rtt_ms.note(at, rtt);
                    sign.down = 0;
                }
                None => {
                    sign.flaps += u32::from(sign.down == 0);
                    sign.down += 1;
                }
            }
        }
    }

    fn node(
        &mut self,
        topology: &Topology,
        no: NodeNo,
        told: &Observation,
        lines: &mut Vec<(ReplicaNo, Template, u32)>,
    ) {
        let at = self.at;
        let sign = &mut self.nodes[no.at()];
        sign.silent = 0;
        let same = sign.stamp == told.to.0;
        sign.frozen = if same { sign.frozen + 1 } else { 0 };
        sign.stamp = told.to.0;
        if same {
            // What stands still says nothing of now.
            return;
        }
        sign.ahead.note(at, told.to.0 as f64 / 1e6 - at);
        let (mut ages, mut count) = (0.0, 0.0);
        for reading in &told.metrics {
            let (value, age) = match reading.reading {
                Reading::Fresh(value) => (value, 0.0),
                Reading::Stale { last, age } => (last, age.as_secs_f64()),
                Reading::Missing => continue,
            };
            ages += age;
            count += 1.0;
            let Some(service) = &reading.service else {
                sign.note(reading.metric, at, value);
                continue;
            };
            let Ok(replica) = topology.replica_no(service) else {
                continue;
            };
            let sign = &mut self.replicas[replica.at()];
            if age > OLD_S {
                continue;
            }
            sign.note(reading.metric, at, value);
            if reading.metric == Metric::Availability {
                let mute = value < 0.1 && age < 6.0;
                sign.mute = if mute { sign.mute + 1 } else { 0 };
            }
        }
        if count > 0.0 {
            self.nodes[no.at()].age.note(at, ages / count);
        }
        for replica in &topology.nodes()[no.at()].replicas {
            let own = &topology.replicas()[replica.at()];
            let sign = &mut self.replicas[replica.at()];
            let says = |alarm: &str| {
                told.alarms.iter().any(|one| {
                    one.service.as_ref() == Some(&own.name) && one.alarm.ends_with(alarm)
                })
            };
            sign.note_down(says("-down"));
        }
        for log in &told.logs {
            let template = Template::of_id(log.template);
            let replica = log
                .service
                .as_ref()
                .and_then(|of| topology.replica_no(of).ok());
            if let (Some(template), Some(replica)) = (template, replica) {
                lines.push((replica, template, log.count));
            }
        }
    }

    /// Lines of a template that a replica wrote in the last while.
    pub(super) fn lines(&self, replica: ReplicaNo, template: Template) -> u32 {
        let place = place(replica, template);
        self.counts.get(place).copied().unwrap_or(0)
    }

    /// The same of all replicas of a route.
    pub(super) fn lines_route(
        &self,
        topology: &Topology,
        route: RouteNo,
        template: Template,
    ) -> u32 {
        self.sum(&topology.routes()[route.at()].replicas, template)
    }

    /// The same of all on a node.
    pub(super) fn lines_node(&self, topology: &Topology, node: NodeNo, template: Template) -> u32 {
        self.sum(&topology.nodes()[node.at()].replicas, template)
    }

    /// The same of all.
    pub(super) fn lines_all(&self, template: Template) -> u32 {
        (0..self.replicas.len())
            .map(|at| self.lines(ReplicaNo::new(at), template))
            .fold(0, u32::saturating_add)
    }

    fn sum(&self, of: &[ReplicaNo], template: Template) -> u32 {
        of.iter()
            .map(|no| self.lines(*no, template))
            .fold(0, u32::saturating_add)
    }

    /// Whether a template is written when all is well, too.
    pub(super) fn usual(&self, template: Template) -> bool {
        self.usual.contains(&template)
    }

    /// What was written before says nothing of now.
    pub(super) fn forget_lines(&mut self) {
        self.lines.clear();
        self.counts.fill(0);
    }

    /// Whether users are served badly: errors, or slow answers, at an entry.
    pub(super) fn users_suffer(&self, topology: &Topology) -> bool {
        let entries = topology.routes().iter().zip(&self.routes);
        let mut entries = entries.filter(|(route, _)| route.demand > 0.0);
        entries.any(|(_, sign)| sign.err.or(0.0) > 0.02 || sign.p95_ms.or(0.0) > 380.0)
    }

    /// By how much the answers of a replica's model may be worse, in quality, as far as it
    /// can be told from what it says of itself.
    pub(super) fn model_loss(&self, replica: ReplicaNo) -> f64 {
        let sign = &self.replicas[replica.at()];
        let disputed = sign.disputed.or(0.04) - sign.disputed.usual().unwrap_or(0.04);
        let unsure = sign.sure.usual().unwrap_or(0.93) - sign.sure.or(0.93);
        // Either alone is noise; a loss moves both.
        (disputed.max(0.0) / 0.7).max(unsure.max(0.0) / 0.6)
    }

    /// Whether something is wrong with the answers, users or not.
    pub(super) fn models_suffer(&self, topology: &Topology) -> bool {
        let models = |at: &usize| {
            let route = topology.replicas()[*at].route;
            topology.routes()[route.at()].model
        };
        let mut all = (0..self.replicas.len()).filter(models);
        all.any(|at| self.model_loss(ReplicaNo::new(at)) > 0.035)
    }

    /// The sign of a link.
    pub(super) fn link(&self, no: LinkNo) -> &LinkSign {
        &self.links[no.at()]
    }

    /// Whether a replica is there, as far as is known.
    pub(super) fn there(&self, replica: ReplicaNo) -> bool {
        let sign = &self.replicas[replica.at()];
        sign.down == 0 && sign.memory.now.is_some()
    }
}

fn place(replica: ReplicaNo, template: Template) -> usize {
    replica.at() * Template::ALL.len() + template as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_knows_what_is_usual_and_where_it_goes() {
        let mut gauge = Gauge::default();
        for look in 1..=11 {
            gauge.note(5.0 * f64::from(look), 100.0);
        }
        assert_eq!(gauge.usual(), Some(100.0));
        assert_eq!((gauge.above(), gauge.trend()), (0.0, 0.0));
        for look in 12..=20 {
            gauge.note(5.0 * f64::from(look), 100.0 + 10.0 * f64::from(look - 11));
        }
        assert!((gauge.trend() - 2.0).abs() < 1e-9);
        assert!(gauge.above() > 0.5 && gauge.usual() == Some(100.0));
        gauge.note(200.0, f64::NAN);
        assert!(gauge.or(0.0).is_finite());
    }
}
