//! What the loop tells people and the coordinator besides healing: states,
//! health, alarms, aggregates, observations.

use std::collections::{BTreeMap, BTreeSet};

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{AlarmReading, Metric, MetricReading, Observation, Reading};
use homeostat_common::units::{Micros, Millis, narrow};
use homeostat_common::wire::body::{
    Aggregate, Alarm, Body, ServiceChange, ServiceState, Severity, Telemetry,
};

use super::message::{Class, Effect, HostSample};
use super::{Incident, Loop};
use crate::service::{Slot, Watched};

/// Health is shown this often; its messages expire after three times that.
const HEALTH_PERIOD: Millis = Millis::secs(10);

/// Aggregates leave the node this often.
const TELEMETRY_PERIOD: Millis = Millis::secs(300);

/// An alarm that stands is repeated this often, until it is over.
const ALARM_PERIOD: Millis = Millis::secs(300);

/// What an observation reaches back.
const WINDOW: Millis = Millis::secs(10);

/// What was told, and when to tell again.
#[derive(Debug)]
pub(super) struct Telling {
    health_at: Micros,
    telemetry_at: Micros,
    telemetry_from: Micros,
    /// Sum, count and largest per metric and service.
    sums: BTreeMap<(Metric, Option<ServiceId>), (f64, u32, f64)>,
    alarms: BTreeMap<String, (Alarm, Micros)>,
    told_at: Option<Micros>,
    /// Services whose silence is held against their dependency.
    pub(super) held_back: BTreeSet<ServiceId>,
}

impl Telling {
    pub(super) fn new(_services: &BTreeMap<ServiceId, Watched>, now: Micros) -> Self {
        Self {
            health_at: now,
            telemetry_at: now + TELEMETRY_PERIOD,
            telemetry_from: now,
            sums: BTreeMap::new(),
            alarms: BTreeMap::new(),
            told_at: None,
            held_back: BTreeSet::new(),
        }
    }

    pub(super) fn told_at(&self) -> Option<Micros> {
        self.told_at
    }

    pub(super) fn next_wake(&self) -> Micros {
        self.health_at.min(self.telemetry_at)
    }

    /// Adds a sample to the aggregates.
    pub(super) fn sampled(&mut self, host: &HostSample, services: &BTreeMap<ServiceId, Watched>) {
        for reading in host_readings(host)
            .into_iter()
            .chain(services.values().flat_map(service_readings))
        {
            let Some(value) = reading.reading.fresh() else {
                continue;
            };
            let sum = self
                .sums
                .entry((reading.metric, reading.service))
                .or_insert((0.0, 0, f64::MIN));
            *sum = (sum.0 + value, sum.1 + 1, sum.2.max(value));
        }
    }
}

impl Loop {
    /// Raises an alarm, or changes the text of one that stands.
    pub(super) fn raise(
        &mut self,
        name: &str,
        service: Option<&ServiceId>,
        severity: Severity,
        text: String,
        effects: &mut Vec<Effect>,
    ) {
        let alarm = Alarm {
            alarm: name.to_owned(),
            service: service.cloned(),
            severity,
            raised: true,
            text,
        };
        if let Some((standing, _)) = self.telling.alarms.get_mut(name)
            && standing.severity == alarm.severity
        {
            // The words may carry a remaining time; that alone is no news.
            *standing = alarm;
            return;
        }
        let at = self.telling.told_at.unwrap_or_default();
        self.telling
            .alarms
            .insert(name.to_owned(), (alarm.clone(), at));
        self.show_alarm(alarm, effects);
    }

    pub(super) fn clear(&mut self, name: &str, effects: &mut Vec<Effect>) {
        if let Some((mut alarm, _)) = self.telling.alarms.remove(name) {
            alarm.raised = false;
            self.show_alarm(alarm, effects);
        }
    }

    fn show_alarm(&mut self, alarm: Alarm, effects: &mut Vec<Effect>) {
        let shown = alarm.raised.then(|| Body::Alarm(alarm.clone()));
        effects.push(Effect::ShowAlarm(alarm.alarm.clone(), shown));
        self.emit(Class::Heal, &[], Body::Alarm(alarm), effects);
    }

    /// Tells what has changed, and what is due.
    pub(super) fn tell(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        self.telling.told_at = Some(now);
        let due = now >= self.telling.health_at;
        if due {
            self.telling.health_at = now + HEALTH_PERIOD;
        }
        let mut changes = Vec::new();
        for (id, watched) in &mut self.services {
            if watched.slot == Slot::Unknown {
                continue;
            }
            let state = watched.state(now);
            let changed = watched.told != Some(state);
            watched.told = Some(state);
            // An end is told with its exit status, as soon as that is known.
            if changed && state != ServiceState::Down {
                changes.push(ServiceChange {
                    service: id.clone(),
                    state,
                    instance: watched.instance(),
                    exit: None,
                });
            }
            if changed || due {
                effects.push(Effect::ShowHealth(id.clone()));
            }
        }
        for change in changes {
            self.emit(Class::State, &[], Body::ServiceChange(change), effects);
        }
        let quarantines: Vec<String> = self
            .services
            .keys()
            .take_while(|_| !self.telling.alarms.is_empty())
            .filter(|id| {
                self.paces
                    .get(*id)
                    .and_then(|pace| pace.quarantined_until)
                    .is_none_or(|until| until <= now)
            })
            .map(|id| format!("{id}-quarantine"))
            .collect();
        for name in quarantines {
            self.clear(&name, effects);
        }
        if due {
            self.repeat_alarms(now, effects);
        }
        if now >= self.telling.telemetry_at {
            self.tell_telemetry(now, effects);
        }
    }

    fn repeat_alarms(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let mut again = Vec::new();
        for (alarm, told) in self.telling.alarms.values_mut() {
            if now.since(*told) >= ALARM_PERIOD {
                *told = now;
                again.push(alarm.clone());
            }
        }
        for alarm in again {
            self.show_alarm(alarm, effects);
        }
    }

    fn tell_telemetry(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let span = now.since(self.telling.telemetry_from);
        self.telling.telemetry_from = now;
        self.telling.telemetry_at = now + TELEMETRY_PERIOD;
        let series = std::mem::take(&mut self.telling.sums)
            .into_iter()
            .map(|((metric, service), (sum, count, max))| Aggregate {
                metric: metric as u8,
                service,
                mean: narrow(sum / f64::from(count.max(1))),
                max: narrow(max),
            })
            .collect();
        let body = Body::Telemetry(Telemetry { span, series });
        self.emit(Class::Telemetry, &[], body, effects);
    }

    /// `O_t` around an incident: what was seen, with every absence named.
    pub(super) fn observation(&self, now: Micros, incident: &Incident) -> Observation {
        let mut alarms: Vec<AlarmReading> = self
            .incidents
            .values()
            .chain([incident])
            .map(|open| AlarmReading {
                alarm: format!("{}-{}", open.service, open.symptom),
                service: Some(open.service.clone()),
                text: format!("{} is {}", open.service, open.symptom),
            })
            .collect();
        alarms.extend(self.telling.alarms.values().map(|(alarm, _)| AlarmReading {
            alarm: alarm.alarm.clone(),
            service: alarm.service.clone(),
            text: alarm.text.clone(),
        }));
        alarms.dedup_by(|a, b| a.alarm == b.alarm);
        Observation {
            node: self.node.clone(),
            from: Micros(now.0.saturating_sub(WINDOW.0 * 1000)),
            to: now,
            logs: self.logs.clone(),
            metrics: host_readings(&self.host)
                .into_iter()
                .chain(self.services.values().flat_map(service_readings))
                .collect(),
            alarms,
        }
    }

    /// The node's whole present state, as `cmd/snapshot` answers it.
    #[must_use]
    pub fn snapshot(&self, now: Micros) -> Observation {
        let mut seen = self.observation(
            now,
            &Incident::new(
                homeostat_common::ids::IncidentId(0),
                // Only its alarm line is made from it, and that is dropped.
                match self.services.keys().next() {
                    Some(id) => id.clone(),
                    None => return self.empty_observation(now),
                },
                homeostat_common::anomaly::Symptom::Dead,
                homeostat_common::anomaly::Fault::Crash,
                now,
            ),
        );
        let open = self.incidents.len();
        if seen.alarms.len() > open {
            seen.alarms.remove(open);
        }
        seen
    }

    fn empty_observation(&self, now: Micros) -> Observation {
        Observation {
            node: self.node.clone(),
            from: now,
            to: now,
            logs: Vec::new(),
            metrics: host_readings(&self.host),
            alarms: Vec::new(),
        }
    }
}

fn reading(metric: Metric, service: Option<&ServiceId>, value: Reading<f64>) -> MetricReading {
    MetricReading {
        metric,
        service: service.cloned(),
        reading: value,
    }
}

fn host_readings(host: &HostSample) -> Vec<MetricReading> {
    let share =
        |ratio: Reading<homeostat_common::units::Ratio>| ratio.map(|ratio| f64::from(ratio.get()));
    let bytes = |bytes: Reading<homeostat_common::units::Bytes>| bytes.map(|bytes| bytes.0 as f64);
    [
        (Metric::CpuBusy, share(host.cpu_busy)),
        (Metric::CpuPressure, share(host.cpu_pressure)),
        (Metric::IoPressure, share(host.io_pressure)),
        (Metric::MemoryPressure, share(host.memory_pressure)),
        (Metric::MemoryAvailable, bytes(host.memory_available)),
        (Metric::DiskFree, bytes(host.disk_free)),
        (Metric::InodesFree, host.inodes_free.map(|n| n as f64)),
        (Metric::OwnResident, bytes(host.own.resident)),
        (Metric::OwnCpu, host.own.cpu.map(f64::from)),
        (Metric::Backlog, Reading::Fresh(host.backlog as f64)),
    ]
    .into_iter()
    .map(|(metric, value)| reading(metric, None, value))
    .collect()
}

fn service_readings(watched: &Watched) -> Vec<MetricReading> {
    let id = Some(&watched.policy.id);
    let sample = &watched.sample;
    let level = watched.service_level();
    let of_level = |value: Option<f64>| Reading::from(value);
    let latency = |place: usize| of_level(level.and_then(|level| level.latency_ms[place]));
    [
        (
            Metric::MemoryResident,
            sample.resident.map(|bytes| bytes.0 as f64),
        ),
        (Metric::CpuUsed, sample.cpu.map(f64::from)),
        (Metric::Descriptors, sample.descriptors.map(|n| n as f64)),
        (Metric::Threads, sample.threads.map(|n| n as f64)),
        (Metric::LatencyP50, latency(0)),
        (Metric::LatencyP95, latency(1)),
        (Metric::LatencyP99, latency(2)),
        (
            Metric::Availability,
            of_level(level.map(|level| level.availability)),
        ),
        (
            Metric::Throughput,
            of_level(level.map(|level| level.answered as f64)),
        ),
    ]
    .into_iter()
    .map(|(metric, value)| reading(metric, id, value))
    .collect()
}
