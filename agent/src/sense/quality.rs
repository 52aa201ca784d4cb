//! How far a sensor can be trusted.
//!
//! In go readings as they were measured, before anything is computed from them; out come
//! the same readings, of which those that cannot be true are [`Reading::Missing`], and for
//! each sensor a trust in `0..=1`: the product of how fresh it is, how often it told what
//! cannot be, whether it stands still that must move, and whether another sensor
//! contradicts it. A finding is worth no more than the sensor that it rests on, and the
//! gate refuses to change anything for one that is worth too little.
//!
//! After Sharma, Golubchik and Govindan, "Sensor Faults" (2010): short (a jump that the
//! next reading takes back), constant, and out of range; noise is left to the detectors.
//! Blind to a sensor that drifts within what is plausible and has no other beside it.
//! State 100 B for each sensor. Judges no service.

use std::collections::BTreeMap;

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Metric, Nature, Reading, Series};
use homeostat_common::units::{Bytes, Micros, Millis, Ratio};

use crate::control::{HostSample, Sourced};
use crate::service::ProcessSample;

/// What a reading that cannot be true leaves of the trust in its sensor ...
const BAD: f32 = 0.5;

/// ... and what is left of the distrust by each one that can.
const FORGIVEN: f32 = 0.9;

/// So many readings in a row that agree with each other are believed, however far they
/// jumped: something has changed, or the sensor was exchanged.
const CONFIRMED: u8 = 2;

/// The same for a jump that is beyond what physics allows.
const CONFIRMED_STEP: u8 = 8;

/// A sensor that moved in this share of its readings must go on to move ...
const MOVES: f32 = 0.5;

/// ... of at least so many ...
const MOVES_SAMPLES: u32 = 120;

/// ... and stands still when it did for so many, ...
const STILL_MIN: u32 = 30;

/// ... and for so many times as many as ever before.
const STILL_TIMES: u32 = 4;

/// Processes cannot use more than the processors give, but for the error of the kernel's
/// clock ticks: this share and so many cores.
const CORES_SHARE: f32 = 1.25;
const CORES_MORE: f32 = 0.5;

/// A part of the node that told nothing for so long is gone; its name may never come again.
const GONE: Millis = Millis::secs(3600);

/// Sensors that are told of in `status`, the least trusted first.
const WORST_MAX: usize = 5;

/// How far a value may jump from one reading to the next without being doubted.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Jump {
    /// As far as it likes.
    Any,
    /// By this factor up or down.
    Factor(f64),
    /// By so much in a second; the rest is beyond physics.
    Step(f64),
}

/// What can be true of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plausible {
    range: (f64, f64),
    jump: Jump,
    /// A value strictly between these that never changes is no measurement.
    moves: Option<(f64, f64)>,
}

impl Plausible {
    fn of(metric: Metric) -> Self {
        let range = metric.plausible();
        let (jump, moves) = match metric {
            Metric::MemoryAvailable => (Jump::Factor(8.0), true),
            Metric::MemoryResident | Metric::OwnResident => (Jump::Factor(4.0), false),
            Metric::DiskFree | Metric::InodesFree | Metric::Descriptors | Metric::Threads => {
                (Jump::Factor(8.0), false)
            }
            // At rest it is 0, and on a full node 1: both may stand.
            Metric::CpuBusy | Metric::CpuUsed | Metric::OwnCpu => (Jump::Any, true),
            // The fastest that was seen of a part of a computer is some 10 K a second.
            Metric::Temperature => (Jump::Step(20.0), false),
            _ => (Jump::Any, false),
        };
        Self {
            range,
            jump,
            moves: moves.then_some(range),
        }
    }
}

/// Why a sensor is not trusted fully.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It has told nothing for a while.
    Silent,
    /// It told what cannot be.
    Implausible,
    /// It stands still.
    Frozen,
    /// Another sensor says otherwise.
    Contradicted,
}

impl Doubt {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Silent => "tells nothing",
            Self::Implausible => "told what cannot be",
            Self::Frozen => "stands still",
            Self::Contradicted => "is contradicted by another",
        }
    }
}

#[derive(Debug, Default)]
struct Sensor {
    last: Option<(f64, Micros)>,
    /// Whether the last reading was believed.
    believed: bool,
    /// When it told something last that was, or repeated that.
    heard: Option<Micros>,
    /// A jump that has to be confirmed, and by how many readings it was.
    pending: Option<(f64, u8)>,
    bad: f32,
    contradicted: f32,
    samples: u32,
    moved: f32,
    same: u32,
    longest: u32,
    frozen: bool,
}

impl Sensor {
    /// Takes a reading in; whether it is to be believed.
    fn push(&mut self, now: Micros, value: f64, plausible: &Plausible) -> bool {
        self.believed = self.judge(now, value, plausible);
        self.repeats(now)
    }

    /// It tells again what it told last; whether that was believed.
    fn repeats(&mut self, now: Micros) -> bool {
        if self.believed {
            self.heard = Some(now);
        }
        self.believed
    }

    fn judge(&mut self, now: Micros, value: f64, plausible: &Plausible) -> bool {
        let (least, most) = plausible.range;
        let in_range = (least..=most).contains(&value);
        if !value.is_finite() || !in_range {
            self.distrust();
            return false;
        }
        if let Some((last, at)) = self.last {
            let seconds = now.since(at).as_secs_f64().max(1.0);
            let (far, needed) = match plausible.jump {
                Jump::Any => (false, 0),
                Jump::Factor(factor) => (apart(last, value, factor), CONFIRMED),
                Jump::Step(step) => ((value - last).abs() > step * seconds, CONFIRMED_STEP),
            };
            if far {
                let alike = self.pending.filter(|(pending, _)| match plausible.jump {
                    Jump::Any => true,
                    Jump::Factor(factor) => !apart(*pending, value, factor),
                    Jump::Step(step) => (value - pending).abs() <= step,
                });
                let count = alike.map_or(1, |(_, count)| count.saturating_add(1));
                if count < needed {
                    self.pending = Some((value, count));
                    self.distrust();
                    return false;
                }
            }
        }
        self.pending = None;
        self.bad *= FORGIVEN;
        self.note_move(value, plausible);
        self.last = Some((value, now));
        !self.frozen
    }

    fn note_move(&mut self, value: f64, plausible: &Plausible) {
        let Some((low, high)) = plausible.moves else {
            return;
        };
        // To the last bit: a measurement that jitters never comes out the same.
        let same = self.last.is_some_and(|(last, _)| last == value);
        let may_stand = value <= low || value >= high;
        if !same || may_stand {
            if !self.frozen {
                self.longest = self.longest.max(self.same);
            }
            self.same = 0;
            self.frozen = false;
        } else {
            self.same = self.same.saturating_add(1);
        }
        let knows = self.samples >= MOVES_SAMPLES && self.moved >= MOVES;
        let long = self.same >= STILL_MIN && self.same >= STILL_TIMES.saturating_mul(self.longest);
        self.frozen |= knows && long;
        if !self.frozen {
            self.samples = self.samples.saturating_add(1);
            // A mean over some minutes.
            let pace = (1.0 / self.samples as f32).max(1.0 / 256.0);
            self.moved += (f32::from(u8::from(!same)) - self.moved) * pace;
        }
    }

    fn distrust(&mut self) {
        self.bad += (1.0 - self.bad) * BAD;
    }

    fn trust(&self, nature: Nature, now: Micros, stale: Millis) -> (f32, Doubt) {
        let age = self.heard.map_or(Millis(0), |at| now.since(at));
        let fresh = if age <= stale || nature == Nature::Occasional {
            1.0
        } else {
            // Milliseconds of some hours fit.
            stale.0 as f32 / age.0 as f32
        };
        let parts = [
            (fresh, Doubt::Silent),
            (1.0 - self.bad, Doubt::Implausible),
            (f32::from(u8::from(!self.frozen)), Doubt::Frozen),
            (1.0 - self.contradicted, Doubt::Contradicted),
        ];
        let whole = parts.iter().map(|(part, _)| part).product();
        let least = parts.iter().min_by(|a, b| a.0.total_cmp(&b.0));
        (whole, least.map_or(Doubt::Silent, |(_, doubt)| *doubt))
    }
}

/// Whether two values are further apart than this factor; around 0 nothing is far.
fn apart(a: f64, b: f64, factor: f64) -> bool {
    let (low, high) = (a.min(b).max(0.0), a.max(b));
    // Some tens of something are nothing: a process that opens its first files.
    high > 64.0 && high > factor * low
}

/// One sample of the node, or of a service, on its way through its sensors.
struct Pass<'s> {
    sensors: &'s mut BTreeMap<Series, Sensor>,
    now: Micros,
    service: Option<&'s ServiceId>,
    /// Some source held no sense: those that tell nothing then are doubted.
    garbled: bool,
}

impl<'s> Pass<'s> {
    fn new(
        sensors: &'s mut BTreeMap<Series, Sensor>,
        now: Micros,
        service: Option<&'s ServiceId>,
        garbage: u32,
    ) -> Self {
        Self {
            sensors,
            now,
            service,
            garbled: garbage > 0,
        }
    }

    /// Takes a reading in; what cannot be true does not pass.
    fn pass<T: Copy>(
        &mut self,
        metric: Metric,
        reading: &mut Reading<T>,
        number: impl Fn(T) -> f64,
    ) {
        self.pass_as(series(metric, self.service), reading, number);
    }

    fn pass_as<T: Copy>(
        &mut self,
        series: Series,
        reading: &mut Reading<T>,
        number: impl Fn(T) -> f64,
    ) {
        let Some(value) = reading.fresh() else {
            let always = series.metric.nature() != Nature::Occasional;
            let doubted = self.sensors.get_mut(&series);
            if let Some(sensor) = doubted.filter(|_| self.garbled && always) {
                sensor.distrust();
            }
            return;
        };
        let plausible = Plausible::of(series.metric);
        let sensor = self.sensors.entry(series).or_default();
        if !sensor.push(self.now, number(value), &plausible) {
            *reading = Reading::Missing;
        }
    }

    /// The same of a source that may repeat what it measured in a former sample.
    fn pass_source(&mut self, source: &mut Sourced) {
        let series = source.reading.series();
        if source.new {
            self.pass_as(series, &mut source.reading.reading, |value| value);
        } else if source.reading.reading.fresh().is_some()
            && let Some(sensor) = self.sensors.get_mut(&series)
            && !sensor.repeats(self.now)
        {
            source.reading.reading = Reading::Missing;
        }
    }
}

/// What a metric of the node, or of a service, is a series of.
#[must_use]
pub fn series(metric: Metric, service: Option<&ServiceId>) -> Series {
    Series {
        metric,
        service: service.cloned(),
        part: None,
    }
}

/// All sensors of a node.
#[derive(Debug, Default)]
pub struct Sensors {
    sensors: BTreeMap<Series, Sensor>,
}

impl Sensors {
    /// Goes through a sample before anything else does.
    pub fn screen(
        &mut self,
        now: Micros,
        host: &mut HostSample,
        processes: &mut [(ServiceId, ProcessSample)],
    ) {
        let share = |ratio: Ratio| f64::from(ratio.get());
        let size = |bytes: Bytes| bytes.0 as f64;
        let count = |count: u64| count as f64;
        let mut node = Pass::new(&mut self.sensors, now, None, host.garbage);
        node.pass(Metric::CpuBusy, &mut host.cpu_busy, share);
        node.pass(Metric::MemoryAvailable, &mut host.memory_available, size);
        node.pass(Metric::DiskFree, &mut host.disk_free, size);
        node.pass(Metric::InodesFree, &mut host.inodes_free, count);
        node.pass(Metric::Temperature, &mut host.heat, |heat| {
            f64::from(heat.degrees)
        });
        for source in &mut host.sources {
            node.pass_source(source);
        }
        for (id, sample) in processes.iter_mut() {
            let mut service = Pass::new(&mut self.sensors, now, Some(id), sample.garbage);
            service.pass(Metric::MemoryResident, &mut sample.resident, size);
            service.pass(Metric::CpuUsed, &mut sample.cpu, f64::from);
            service.pass(Metric::Descriptors, &mut sample.descriptors, count);
            service.pass(Metric::Threads, &mut sample.threads, count);
        }
        self.compare_cores(host, processes);
        self.sensors.retain(|series, sensor| {
            let lately = |at: Micros| now.since(at) < GONE;
            series.part.is_none() || sensor.heard.is_none_or(lately)
        });
    }

    /// Nobody can use what the processors do not give: whoever says that it uses most is
    /// doubted when all together use more.
    fn compare_cores(&mut self, host: &HostSample, processes: &[(ServiceId, ProcessSample)]) {
        let (Some(busy), Some(cores)) = (host.cpu_busy.fresh(), host.cores.fresh()) else {
            return;
        };
        let used = |sample: &ProcessSample| sample.cpu.fresh().unwrap_or(0.0);
        let all: f32 = processes.iter().map(|(_, sample)| used(sample)).sum();
        let given = busy.get() * f32::from(cores);
        let most = processes
            .iter()
            .max_by(|a, b| used(&a.1).total_cmp(&used(&b.1)))
            .filter(|_| all > given * CORES_SHARE + CORES_MORE)
            .map(|(id, _)| id);
        for (id, _) in processes {
            let sensor = self.sensors.get_mut(&series(Metric::CpuUsed, Some(id)));
            if let Some(sensor) = sensor {
                if most == Some(id) {
                    sensor.contradicted += (1.0 - sensor.contradicted) * BAD;
                } else {
                    sensor.contradicted *= FORGIVEN;
                }
            }
        }
    }

    /// What a sensor is worth now; one of which nothing is known is worth all.
    #[must_use]
    pub fn trust(&self, series: &Series, now: Micros, stale: Millis) -> Ratio {
        let nature = series.metric.nature();
        let sensor = self.sensors.get(series);
        Ratio::saturating(sensor.map_or(1.0, |sensor| sensor.trust(nature, now, stale).0))
    }

    /// Those that are trusted less than `below`, the least first, with the reason.
    #[must_use]
    pub fn doubted(&self, now: Micros, stale: Millis, below: f32) -> Vec<(&Series, Ratio, Doubt)> {
        let all = self.sensors.iter();
        let mut doubted: Vec<_> = all
            .map(|(series, sensor)| {
                let nature = series.metric.nature();
                (series, sensor.trust(nature, now, stale))
            })
            .filter(|(_, (trust, _))| *trust < below)
            .map(|(series, (trust, doubt))| (series, Ratio::saturating(trust), doubt))
            .collect();
        doubted.sort_by(|a, b| a.1.get().total_cmp(&b.1.get()));
        doubted.truncate(WORST_MAX);
        doubted
    }

    /// The services are others now, or one has another process: what was said of the
    /// former says nothing of it.
    pub fn forget(&mut self, concerns: impl Fn(&Series) -> bool) {
        self.sensors.retain(|series, _| !concerns(series));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sensors.len()
    }
}

#[cfg(test)]
mod tests {
    use homeostat_common::observation::{MetricReading, Part};

    use super::*;

    const STALE: Millis = Millis::secs(3);

    fn at(second: u64) -> Micros {
        Micros(second * 1_000_000)
    }

    fn memory(second: u64) -> Bytes {
        Bytes(8_000_000_000 + second * 7919 % 100_003)
    }

    /// A node whose free memory moves in each sample.
    fn well(sensors: &mut Sensors, seconds: core::ops::Range<u64>) {
        for second in seconds {
            let mut host = HostSample {
                memory_available: Reading::Fresh(memory(second)),
                ..HostSample::default()
            };
            sensors.screen(at(second), &mut host, &mut []);
            assert_eq!(host.memory_available, Reading::Fresh(memory(second)));
        }
    }

    fn trust(sensors: &Sensors, metric: Metric, second: u64) -> f32 {
        sensors
            .trust(&series(metric, None), at(second), STALE)
            .get()
    }

    #[test]
    fn what_stands_still_that_always_moved_is_no_measurement() {
        let mut sensors = Sensors::default();
        well(&mut sensors, 1..200);
        let mut passed = 0;
        for second in 200..300 {
            let mut host = HostSample {
                memory_available: Reading::Fresh(Bytes(8_000_000_000)),
                ..HostSample::default()
            };
            sensors.screen(at(second), &mut host, &mut []);
            passed += u32::from(host.memory_available.fresh().is_some());
        }
        assert!((STILL_MIN..=STILL_MIN + 2).contains(&passed), "{passed}");
        assert_eq!(trust(&sensors, Metric::MemoryAvailable, 300), 0.0);
        let doubted = sensors.doubted(at(300), STALE, 0.9);
        assert_eq!(doubted[0].2, Doubt::Frozen);
        // It moves again: believed at once.
        well(&mut sensors, 300..310);
        assert!(trust(&sensors, Metric::MemoryAvailable, 310) > 0.9);
    }

    #[test]
    fn what_may_stand_still_is_not_frozen() {
        let mut sensors = Sensors::default();
        for second in 1..1000 {
            // All processors are taken, and the disk is not used.
            let mut host = HostSample {
                cpu_busy: Reading::Fresh(Ratio::ONE),
                disk_free: Reading::Fresh(Bytes(1 << 30)),
                ..HostSample::default()
            };
            sensors.screen(at(second), &mut host, &mut []);
            assert!(host.cpu_busy.fresh().is_some() && host.disk_free.fresh().is_some());
        }
        assert!(sensors.doubted(at(1000), STALE, 1.0).is_empty());
    }

    #[test]
    fn a_jump_counts_once_it_is_confirmed_and_silence_costs_trust() {
        let mut sensors = Sensors::default();
        well(&mut sensors, 1..200);
        let jump = |sensors: &mut Sensors, second| {
            let mut host = HostSample {
                memory_available: Reading::Fresh(Bytes(100_000_000)),
                ..HostSample::default()
            };
            sensors.screen(at(second), &mut host, &mut []);
            host.memory_available.fresh().is_some()
        };
        assert!(!jump(&mut sensors, 200));
        assert!(trust(&sensors, Metric::MemoryAvailable, 200) <= 0.5);
        assert!(jump(&mut sensors, 201));
        assert!(trust(&sensors, Metric::MemoryAvailable, 201) > 0.5);
        let later = trust(&sensors, Metric::MemoryAvailable, 230);
        assert!(later < 0.1, "{later}");
    }

    fn source(metric: Metric, value: f64, new: bool) -> Sourced {
        let part = Part::new("/var").unwrap();
        let reading = MetricReading::part(metric, part, Reading::Fresh(value));
        Sourced { reading, new }
    }

    #[test]
    fn a_source_that_is_asked_seldom_is_no_silent_one_and_one_that_is_gone_is_forgotten() {
        let mut sensors = Sensors::default();
        let mut look = |second: u64, sources: Vec<Sourced>| {
            let mut host = HostSample {
                sources,
                ..HostSample::default()
            };
            sensors.screen(at(second), &mut host, &mut []);
            let doubted = sensors.doubted(at(second), STALE, 0.9).len();
            (doubted, sensors.count(), host.sources)
        };
        for second in 0..30 {
            let (doubted, ..) = look(
                second,
                vec![source(Metric::DiskFree, 1e9, second % 10 == 0)],
            );
            assert_eq!(doubted, 0, "{second}");
        }
        // A disk that nobody asks anything has no time to answer.
        look(30, vec![source(Metric::DiskAwait, 3.0, true)]);
        assert_eq!(look(32, Vec::new()).0, 0);
        assert_eq!(look(90, Vec::new()).0, 1);
        assert_eq!(look(3700, Vec::new()).1, 0);
    }

    #[test]
    fn what_was_not_believed_is_not_when_it_is_repeated() {
        let mut sensors = Sensors::default();
        let mut look = |second: u64, value: f64, new: bool| {
            let mut host = HostSample {
                sources: vec![source(Metric::DiskFree, value, new)],
                ..HostSample::default()
            };
            sensors.screen(at(second), &mut host, &mut []);
            host.sources.remove(0).reading.reading.fresh()
        };
        assert_eq!(look(0, 1e9, true), Some(1e9));
        assert_eq!(look(10, 1e5, true), None);
        assert_eq!(look(11, 1e5, false), None);
        assert_eq!(look(20, 1e5, true), Some(1e5));
        assert_eq!(look(21, 1e5, false), Some(1e5));
    }

    #[test]
    fn a_source_without_sense_costs_the_sensors_that_it_silences() {
        let mut sensors = Sensors::default();
        well(&mut sensors, 1..200);
        let mut host = HostSample {
            cpu_busy: Reading::Fresh(Ratio::saturating(0.4)),
            garbage: 1,
            ..HostSample::default()
        };
        sensors.screen(at(200), &mut host, &mut []);
        assert_eq!(trust(&sensors, Metric::MemoryAvailable, 200), 0.5);
        assert_eq!(trust(&sensors, Metric::CpuBusy, 200), 1.0);
    }
}
