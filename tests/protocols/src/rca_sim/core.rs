//! The ranking core that ships (`homeostat-causes`), on what was seen.
//!
//! Every part is a component, every dependency a call. What callers are handed up (times,
//! errors, quality) goes in with its volume; whatever else is measured is a resource of the
//! part, so that more is worse; log lines are what follows the event that the replica runs.
#![allow(clippy::cast_possible_truncation)] // shares, and numbers of parts and templates

use core::time::Duration;

use homeostat_causes::weigh::{Weighable, gather};
use homeostat_causes::{
    Alarm as Raised, Component, Diagnosis, Event, Graph, Kind as Says, Refusal, Role, SeriesId,
    Signals, diagnose,
};
use homeostat_common::observation::Metric;

use super::parts::{Kind, Parts};
use super::watch::{Alarm, Gauge, Telemetry};

/// Samples that are kept of each series: more than an episode has, with ten minutes of quiet
/// before it.
const KEEP: usize = 256;

/// What the core is told of what there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known {
    /// What parts are to each other.
    pub roles: bool,
    pub without: Without,
}

impl Known {
    /// Everything.
    pub const ALL: Self = Self {
        roles: true,
        without: Without::NOTHING,
    };
}

/// What nobody measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Without {
    /// A bit for each kind of signal.
    kinds: u16,
    lines: bool,
}

impl Without {
    pub const NOTHING: Self = Self {
        kinds: 0,
        lines: false,
    };

    /// All but times, failures and resources: what every monitoring has.
    #[must_use]
    pub fn what_is_rare() -> Self {
        let rare = [Says::Quality, Says::Absence, Says::Complaints, Says::Volume];
        Self {
            kinds: rare.iter().fold(0, |kinds, says| kinds | bit(*says)),
            lines: true,
        }
    }

    /// At random: what is rare one time in three, the rest one in six.
    #[must_use]
    pub fn drawn(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut without = Self::NOTHING;
        let rare = Self::what_is_rare();
        for says in [
            Says::Latency,
            Says::Errors,
            Says::Resource,
            Says::Quality,
            Says::Absence,
            Says::Complaints,
            Says::Volume,
        ] {
            let odds = if rare.contains(says) { 3 } else { 6 };
            if rng.u8(..odds) == 0 {
                without.kinds |= bit(says);
            }
        }
        without.lines = rng.u8(..3) == 0;
        without
    }

    fn contains(self, says: Says) -> bool {
        self.kinds & bit(says) != 0
    }
}

fn bit(says: Says) -> u16 {
    1 << says as u16
}

/// The graph and the signals of an episode.
#[derive(Debug, Clone)]
pub struct Scene {
    graph: Graph,
    signals: Signals,
    raised: Raised,
}

impl Scene {
    /// # Errors
    /// When the fleet is larger than the core takes.
    pub fn of(
        told: &Telemetry,
        alarm: Alarm,
        parts: &Parts,
        known: Known,
    ) -> Result<Self, Refusal> {
        let mut scene = Self::at(told, alarm.look, parts, known)?;
        let (says, _, _) = reads(told.series[alarm.series].gauge);
        scene.raised.component = Some(component(alarm.part));
        scene.raised.kind = Some(says);
        Ok(scene)
    }

    /// The same without an alarm: something may be wrong since a look.
    ///
    /// # Errors
    /// When the fleet is larger than the core takes.
    pub fn at(told: &Telemetry, look: usize, parts: &Parts, known: Known) -> Result<Self, Refusal> {
        let graph = graph(parts, known.roles)?;
        let of: Vec<Component> = (0..parts.len()).map(component).collect();
        let mut signals = Signals::keeping(KEEP);
        // By part: where the volume of a series is told.
        let volume = |part: usize, gauge: Gauge| {
            let wanted = match gauge {
                Gauge::Metric(_) => Gauge::Metric(Metric::Throughput),
                _ => Gauge::Arrival,
            };
            let mut all = told.series.iter();
            all.find(|one| one.part == part && one.gauge == wanted)
        };
        for series in &told.series {
            let (says, name, sign) = reads(series.gauge);
            if known.without.contains(says) {
                continue;
            }
            let volume = match says {
                Says::Resource | Says::Absence | Says::Complaints | Says::Volume => None,
                Says::Latency | Says::Errors | Says::Quality => volume(series.part, series.gauge),
            };
            let id = signals.series(of[series.part], says, &name)?;
            for (look, value) in series.values.iter().enumerate() {
                let volume = volume.and_then(|volume| volume.values.get(look));
                let volume = volume.map_or(f32::NAN, |volume| *volume as f32);
                let value = match says {
                    Says::Errors if sign < 0.0 => 1.0 - value,
                    Says::Resource => sign * value + above_nothing(series.gauge),
                    _ => sign * value,
                };
                push(&mut signals, id, told.times[look], value, volume);
            }
        }
        if !known.without.lines {
            events(&mut signals, told, &of);
        }
        Ok(Self {
            graph,
            signals,
            raised: Raised {
                well_until: told.usual.checked_sub(1).map(|look| time(told, look)),
                ..Raised::at(time(told, look))
            },
        })
    }

    /// What speaks for each part.
    #[must_use]
    pub fn weighable(&self) -> Vec<Weighable> {
        gather(&self.graph, &self.signals, &self.raised)
    }

    #[must_use]
    pub fn diagnose(&self) -> Diagnosis {
        diagnose(&self.graph, &self.signals, &self.raised)
    }
}

/// The dependencies of a fleet for the core, parts by the same numbers.
///
/// # Errors
/// When the fleet is larger than the core takes.
pub fn graph(parts: &Parts, roles: bool) -> Result<Graph, Refusal> {
    let mut graph = Graph::default();
    for part in 0..parts.len() {
        let own = parts.get(part);
        let of = graph.add(&format!("{} {}", own.kind.name(), own.name))?;
        if roles {
            graph.role(of, role(own.kind))?;
        }
    }
    for part in 0..parts.len() {
        for need in parts.needs(part) {
            graph.calls(component(part), component(*need), None)?;
        }
    }
    Ok(graph)
}

fn time(told: &Telemetry, look: usize) -> Duration {
    Duration::from_secs_f64(told.times[look])
}

fn role(kind: Kind) -> Role {
    match kind {
        Kind::Replica => Role::Instance,
        Kind::Service => Role::Service,
        Kind::Node => Role::Host,
        Kind::Uplink => Role::Link,
        Kind::Site => Role::Site,
        Kind::Outside => Role::Outside,
    }
}

/// A part as the core knows it.
#[must_use]
pub fn component(part: usize) -> Component {
    Component(part as u16)
}

fn push(signals: &mut Signals, id: SeriesId, at: f64, value: f64, volume: f32) {
    signals.push(id, Duration::from_secs_f64(at), value as f32, volume);
}

/// What a gauge says, under which name, and with which sign more of it is worse.
fn reads(gauge: Gauge) -> (Says, String, f64) {
    let name = match gauge {
        Gauge::Metric(metric) => metric.name().to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    let (says, sign) = match gauge {
        Gauge::Metric(Metric::LatencyP95 | Metric::LatencyP50) | Gauge::Slowness => {
            (Says::Latency, 1.0)
        }
        Gauge::Errors => (Says::Errors, 1.0),
        Gauge::Metric(Metric::Availability) => (Says::Errors, -1.0),
        Gauge::Confidence => (Says::Quality, 1.0),
        Gauge::Disagreement | Gauge::Strangeness => (Says::Quality, -1.0),
        Gauge::Metric(Metric::Throughput) | Gauge::Arrival | Gauge::Passed => (Says::Volume, 1.0),
        Gauge::Silent | Gauge::Gone | Gauge::Down | Gauge::Frozen | Gauge::Age => {
            (Says::Absence, 1.0)
        }
        Gauge::Complaints => (Says::Complaints, 1.0),
        Gauge::Metric(Metric::MemoryAvailable | Metric::DiskFree | Metric::InodesFree)
        | Gauge::Hit => (Says::Resource, -1.0),
        _ => (Says::Resource, 1.0),
    };
    (says, name, sign)
}

/// What is added to a resource that usually stands at nothing: the core takes its noise as a
/// share of its level, and anything is infinitely more than nothing. With it, a share is no
/// steadier than 0.06, and a queue than 2.
fn above_nothing(gauge: Gauge) -> f64 {
    match gauge {
        Gauge::Metric(
            Metric::CpuBusy | Metric::CpuPressure | Metric::IoPressure | Metric::MemoryPressure,
        )
        | Gauge::Shed
        | Gauge::Hit
        | Gauge::Loss => 2.0,
        Gauge::Queue => 66.0,
        Gauge::Metric(_) | Gauge::RoundTrip | Gauge::Complaints => 0.0,
        _ => 1.0,
    }
}

/// Looks at the end whose lines count: 40 s.
const LINES: usize = 8;

fn events(signals: &mut Signals, told: &Telemetry, of: &[Component]) {
    const RUNS: Event = Event(0);
    let event = |template: usize| Event(1 + u32::try_from(template).unwrap_or(u32::MAX - 1));
    for (at, (text, _)) in told.templates.iter().enumerate() {
        signals.events.about(event(at), text);
    }
    let span = told.usual.saturating_sub(LINES)..told.usual;
    let before = told.lines.iter().filter(|line| span.contains(&line.look));
    for line in before {
        signals
            .events
            .count(of[line.part], RUNS, event(line.template), line.count);
    }
    signals.events.close(1.0);
    let from = told.times.len().saturating_sub(LINES).max(told.usual);
    for line in told.lines.iter().filter(|line| line.look >= from) {
        signals
            .events
            .count(of[line.part], RUNS, event(line.template), line.count);
    }
}

/// A score and a confidence for each part.
#[must_use]
pub fn scores(diagnosis: &Diagnosis, parts: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut scores, mut sure) = (vec![0.0; parts], vec![0.0; parts]);
    let suspects = &diagnosis.suspects;
    for (place, suspect) in suspects.iter().enumerate() {
        let at = usize::from(suspect.component.0);
        if at < parts {
            // Its place: confidence has an end at both sides, and two may share it.
            scores[at] = (suspects.len() - place) as f64;
            sure[at] = f64::from(suspect.confidence);
        }
    }
    (scores, sure)
}
