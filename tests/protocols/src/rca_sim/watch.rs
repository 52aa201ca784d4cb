//! What was seen of one episode in which nobody heals: series by part, log lines, the alarm.
//!
//! In go a topology, an incident and a seed; out comes an [`Episode`]: what a healer at its
//! usual pace would have seen until some time after its first alarm, with the noise, lateness
//! and gaps of the observer, and beside it, for scoring, the roots ([`super::truth`]). A
//! method gets [`Telemetry`] and [`Alarm`] and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use homeostat_common::observation::{Level, Metric, Observation, Reading};
use homeostat_sim::fault::Incident;
use homeostat_sim::observe::{Observer, Seen};
use homeostat_sim::topology::Topology;
use homeostat_sim::world::{Settings, World};

use super::parts::{Kind, Parts};
use super::truth::{Root, Roots};

/// Between two looks, in seconds: the usual pace of a healer.
pub const LOOK_S: f64 = 5.0;
/// An alarm stands for so many looks in a row before it counts: one look in twenty has a
/// false one, and what readings come late makes another.
const STANDS: u32 = 2;
/// What is seen until then, in seconds, is how it usually is: one look less than the earliest
/// onset of any seed.
pub const QUIET_S: f64 = 55.0;
/// Users are served badly above these: errors as a share, milliseconds. The bounds of the
/// healers' own alarm.
const ERRORS: f64 = 0.02;
const SLOW_MS: f64 = 380.0;
/// By how much a model says that it is worse than while all was well: more than ten
/// deviations of a reading, as a share of answers.
const DISPUTED: f64 = 0.12;
const UNSURE: f64 = 0.1;

/// What one series measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gauge {
    /// Of a node or a replica.
    Metric(Metric),
    /// Of a model: how sure it is, how strange its inputs are, how often another disagrees.
    Confidence,
    Strangeness,
    Disagreement,
    /// Of a route.
    Arrival,
    Passed,
    Shed,
    Errors,
    Queue,
    Slowness,
    Hit,
    /// Of a link.
    RoundTrip,
    Loss,
    Down,
    /// Of a node: nothing comes from it; its clock is ahead by so many seconds; its readings
    /// are so old; it tells the same again.
    Silent,
    Ahead,
    Age,
    Frozen,
    /// Of a replica: it has no process.
    Gone,
    /// Lines of a replica at warning or above.
    Complaints,
}

/// One series; a value for each look, not a number where nothing came.
#[derive(Debug, Clone)]
pub struct Series {
    pub part: usize,
    pub gauge: Gauge,
    pub values: Vec<f64>,
}

/// Lines of one template, of one replica, in one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub look: usize,
    pub part: usize,
    /// Place in [`Telemetry::templates`].
    pub template: usize,
    pub count: u32,
}

/// Everything that was seen.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// When each look was, in seconds.
    pub times: Vec<f64>,
    pub series: Vec<Series>,
    pub lines: Vec<Line>,
    /// Texts of the templates that were written, with their level.
    pub templates: Vec<(String, Level)>,
    /// Looks up to this one, exclusive, are from while all was well.
    pub usual: usize,
}

/// Why somebody is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    /// At which look.
    pub look: usize,
    /// About what.
    pub part: usize,
    /// Place of the series in [`Telemetry::series`] that alarmed.
    pub series: usize,
}

/// One episode.
#[derive(Debug, Clone)]
pub struct Episode {
    pub name: String,
    pub topology: Arc<Topology>,
    pub parts: Arc<Parts>,
    pub seed: u64,
    pub onset: f64,
    pub told: Telemetry,
    /// The first after the onset; none if nobody would have been called.
    pub alarm: Option<Alarm>,
    /// Alarms before anything was wrong.
    pub false_alarms: usize,
    /// What had gone wrong by the last look, for scoring.
    pub roots: Vec<Root>,
}

/// How to watch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Watch {
    /// Looks after the alarm that a diagnosis waits for.
    pub wait: usize,
    /// Seconds before the incident; without it the seed's own 60 to 90.
    pub quiet_s: Option<f64>,
    /// Seconds after the onset at which nobody waits for an alarm any longer.
    pub cap_s: f64,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            wait: 4,
            quiet_s: None,
            cap_s: 300.0,
        }
    }
}

/// Watches an incident.
///
/// # Errors
/// When the incident does not fit the topology.
pub fn watch(
    topology: &Arc<Topology>,
    parts: &Arc<Parts>,
    incident: &Incident,
    seed: u64,
    how: Watch,
) -> Result<Episode> {
    let mut world = match how.quiet_s {
        None => World::with(topology, incident, seed, Settings::default())?,
        Some(quiet) => {
            let usual = Incident::none();
            World::with(topology, &usual, seed, Settings::default())?
                .before(incident, seed, quiet)?
        }
    };
    let onset = world.onset();
    let mut observer = Observer::new(seed);
    let usual_s = how.quiet_s.map_or(QUIET_S, |quiet| quiet - LOOK_S);
    let mut recorder = Recorder::new(topology, parts, usual_s);
    let mut roots = Roots::new(incident, topology, parts);
    let mut next = LOOK_S;
    let (mut alarm, mut false_alarms) = (None, 0);
    while world.now() < onset + how.cap_s + how.wait as f64 * LOOK_S {
        world.tick();
        roots.note(&world);
        if world.now() < next {
            continue;
        }
        next += LOOK_S;
        let rung = recorder.see(&observer.look(&world));
        match (&alarm, rung) {
            (None, Some(rung)) if world.now() >= onset => alarm = Some(rung),
            (None, Some(_)) => false_alarms += 1,
            _ => {}
        }
        let looks = recorder.told.times.len();
        if alarm.is_some_and(|rung: Alarm| looks > rung.look + how.wait) {
            break;
        }
    }
    Ok(Episode {
        name: incident.name.clone(),
        topology: Arc::clone(topology),
        parts: Arc::clone(parts),
        seed,
        onset,
        told: recorder.told,
        alarm,
        false_alarms,
        roots: roots.so_far(),
    })
}

/// Turns looks into series.
#[derive(Debug)]
pub struct Recorder<'a> {
    topology: &'a Topology,
    parts: &'a Parts,
    pub told: Telemetry,
    place: BTreeMap<(usize, Gauge), usize>,
    template: BTreeMap<u64, usize>,
    stamps: Vec<u64>,
    /// Looks in a row at which each alarm stood.
    stood: BTreeMap<(usize, Gauge), u32>,
    quiet_s: f64,
}

impl<'a> Recorder<'a> {
    /// What is seen until `quiet_s` counts as usual, in seconds.
    #[must_use]
    pub fn new(topology: &'a Topology, parts: &'a Parts, quiet_s: f64) -> Self {
        Self {
            topology,
            parts,
            told: Telemetry {
                times: Vec::new(),
                series: Vec::new(),
                lines: Vec::new(),
                templates: Vec::new(),
                usual: 0,
            },
            place: BTreeMap::new(),
            template: BTreeMap::new(),
            stamps: vec![0; topology.nodes().len()],
            stood: BTreeMap::new(),
            quiet_s,
        }
    }

    /// Takes in a look; the worst alarm that has stood long enough, if there is one.
    pub fn see(&mut self, seen: &Seen) -> Option<Alarm> {
        let look = self.told.times.len();
        self.told.times.push(seen.at);
        if seen.at <= self.quiet_s {
            self.told.usual = look + 1;
        }
        for series in &mut self.told.series {
            series.values.push(f64::NAN);
        }
        let mut rings = Vec::new();
        for (at, told) in seen.nodes.iter().enumerate() {
            self.node(at, told.as_ref(), seen.at, &mut rings);
        }
        self.around(seen, &mut rings);
        self.ring(look, rings)
    }

    fn note(&mut self, part: usize, gauge: Gauge, value: f64, late: usize) {
        let looks = self.told.times.len();
        let series = &mut self.told.series;
        let place = *self.place.entry((part, gauge)).or_insert_with(|| {
            series.push(Series {
                part,
                gauge,
                values: vec![f64::NAN; looks],
            });
            series.len() - 1
        });
        // What comes late belongs to when it was measured.
        if let Some(at) = looks.checked_sub(1 + late)
            && let Some(slot) = series[place].values.get_mut(at)
            && (late == 0 || slot.is_nan())
        {
            *slot = value;
        }
    }

    fn node(
        &mut self,
        at: usize,
        told: Option<&Observation>,
        now: f64,
        rings: &mut Vec<(usize, Gauge)>,
    ) {
        let part = self.parts.node(at);
        self.note(part, Gauge::Silent, f64::from(u8::from(told.is_none())), 0);
        let Some(told) = told else {
            rings.push((part, Gauge::Silent));
            return;
        };
        let same = self.stamps[at] == told.to.0;
        self.stamps[at] = told.to.0;
        self.note(part, Gauge::Frozen, f64::from(u8::from(same)), 0);
        if same {
            rings.push((part, Gauge::Frozen));
            return;
        }
        self.note(part, Gauge::Ahead, told.to.0 as f64 / 1e6 - now, 0);
        let (mut ages, mut count) = (0.0, 0.0);
        for reading in &told.metrics {
            let (value, age) = match reading.reading {
                Reading::Fresh(value) => (value, 0.0),
                Reading::Stale { last, age } => (last, age.as_secs_f64()),
                Reading::Missing => continue,
            };
            (ages, count) = (ages + age, count + 1.0);
            let about = match &reading.service {
                None => part,
                Some(service) => match self.topology.replica_no(service) {
                    Ok(replica) => self.parts.replica(replica.at()),
                    Err(_) => continue,
                },
            };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let late = (age / LOOK_S + 0.5) as usize;
            self.note(about, Gauge::Metric(reading.metric), value, late);
        }
        if count > 0.0 {
            self.note(part, Gauge::Age, ages / count, 0);
        }
        for replica in &self.topology.nodes()[at].replicas {
            let own = &self.topology.replicas()[replica.at()];
            let says = |alarm: &str| {
                let mut alarms = told.alarms.iter();
                alarms.any(|one| {
                    one.service.as_ref() == Some(&own.name) && one.alarm.ends_with(alarm)
                })
            };
            let part = self.parts.replica(replica.at());
            let gone = says("-down");
            self.note(part, Gauge::Gone, f64::from(u8::from(gone)), 0);
            for (alarm, gauge) in [
                ("-down", Gauge::Gone),
                ("-errors", Gauge::Metric(Metric::Availability)),
                ("-latency", Gauge::Metric(Metric::LatencyP95)),
                ("-descriptors", Gauge::Metric(Metric::Descriptors)),
                ("-threads", Gauge::Metric(Metric::Threads)),
            ] {
                if says(alarm) {
                    rings.push((part, gauge));
                }
            }
        }
        for (alarm, metric) in [
            ("cpu", Metric::CpuBusy),
            ("memory", Metric::MemoryAvailable),
            ("disk", Metric::DiskFree),
            ("inodes", Metric::InodesFree),
            ("temperature", Metric::Temperature),
        ] {
            if told
                .alarms
                .iter()
                .any(|one| one.service.is_none() && one.alarm == alarm)
            {
                rings.push((part, Gauge::Metric(metric)));
            }
        }
        self.lines(at, told);
    }

    fn lines(&mut self, node: usize, told: &Observation) {
        let look = self.told.times.len() - 1;
        let mut complaints: BTreeMap<usize, f64> = BTreeMap::new();
        for replica in &self.topology.nodes()[node].replicas {
            complaints.insert(self.parts.replica(replica.at()), 0.0);
        }
        for log in &told.logs {
            let replica = log.service.as_ref();
            let Some(Ok(replica)) = replica.map(|name| self.topology.replica_no(name)) else {
                continue;
            };
            let part = self.parts.replica(replica.at());
            let templates = &mut self.told.templates;
            let template = *self.template.entry(log.template).or_insert_with(|| {
                templates.push((log.text.clone(), log.level));
                templates.len() - 1
            });
            self.told.lines.push(Line {
                look,
                part,
                template,
                count: log.count,
            });
            if log.level >= Level::Warning {
                *complaints.entry(part).or_default() += f64::from(log.count);
            }
        }
        for (part, count) in complaints {
            self.note(part, Gauge::Complaints, count, 0);
        }
    }

    /// What is measured from outside.
    fn around(&mut self, seen: &Seen, rings: &mut Vec<(usize, Gauge)>) {
        for (at, now) in seen.routes.iter().enumerate() {
            let part = self.parts.route(at);
            for (gauge, value) in [
                (Gauge::Arrival, now.arrival),
                (Gauge::Passed, now.passed),
                (Gauge::Shed, now.shed),
                (Gauge::Errors, now.err),
                (Gauge::Queue, now.queue),
                (Gauge::Slowness, now.p95_ms),
            ] {
                self.note(part, gauge, value, 0);
            }
            if let Some(hit) = now.hit {
                self.note(part, Gauge::Hit, hit, 0);
            }
            if self.topology.routes()[at].demand > 0.0 {
                if now.err > ERRORS {
                    rings.push((part, Gauge::Errors));
                }
                if now.p95_ms > SLOW_MS {
                    rings.push((part, Gauge::Slowness));
                }
            }
        }
        for now in &seen.models {
            let Ok(replica) = self.topology.replica_no(&now.service) else {
                continue;
            };
            let part = self.parts.replica(replica.at());
            self.note(part, Gauge::Confidence, now.confidence, 0);
            self.note(part, Gauge::Strangeness, now.input_drift, 0);
            self.note(part, Gauge::Disagreement, now.disagreement, 0);
            let usual = |gauge| self.usual(part, gauge);
            if usual(Gauge::Disagreement).is_some_and(|was| now.disagreement > was + DISPUTED) {
                rings.push((part, Gauge::Disagreement));
            }
            if usual(Gauge::Confidence).is_some_and(|was| now.confidence < was - UNSURE) {
                rings.push((part, Gauge::Confidence));
            }
        }
        for (at, now) in seen.links.iter().enumerate() {
            let part = self.parts.link(at);
            let down = now.rtt_ms.is_none();
            self.note(part, Gauge::RoundTrip, now.rtt_ms.unwrap_or(f64::NAN), 0);
            self.note(part, Gauge::Loss, now.loss, 0);
            self.note(part, Gauge::Down, f64::from(u8::from(down)), 0);
            if down && self.parts.kind(part) == Kind::Uplink {
                rings.push((part, Gauge::Down));
            }
        }
    }

    fn usual(&self, part: usize, gauge: Gauge) -> Option<f64> {
        let series = &self.told.series[*self.place.get(&(part, gauge))?];
        median(series.values.get(..self.told.usual)?)
    }

    /// Of what has stood long enough: what users meet first, then what is worst.
    fn ring(&mut self, look: usize, rings: Vec<(usize, Gauge)>) -> Option<Alarm> {
        let before = std::mem::take(&mut self.stood);
        for ring in rings {
            let stood = before.get(&ring).map_or(1, |stood| stood + 1);
            self.stood.insert(ring, stood);
        }
        let users = |gauge: Gauge| matches!(gauge, Gauge::Errors | Gauge::Slowness);
        let standing = self.stood.iter().filter(|(_, stood)| **stood >= STANDS);
        let worst = standing.max_by_key(|((part, gauge), _)| {
            (users(*gauge), *gauge == Gauge::Errors, usize::MAX - *part)
        });
        let ((part, gauge), _) = worst?;
        let series = *self.place.get(&(*part, *gauge))?;
        Some(Alarm {
            look,
            part: *part,
            series,
        })
    }
}

/// The median of what is a number.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    values.select_nth_unstable_by(middle, f64::total_cmp);
    values.get(middle).copied()
}
