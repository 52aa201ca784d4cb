//! What the loop tells people and the coordinator besides healing: states,
//! health, alarms, aggregates, observations.

use std::collections::BTreeMap;

use homeostat_common::anomaly::Symptom;
use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{AlarmReading, MetricReading, Observation, Reading, Series};
use homeostat_common::outcome::Outcome;
use homeostat_common::state::{History, State, symptom_place};
use homeostat_common::units::{Micros, Millis, narrow};
use homeostat_common::wire::body::{Aggregate, Body, ServiceChange, ServiceState, Telemetry};

use super::joining::Held;
use super::message::{Class, Effect};
use super::{Incident, Loop};
use crate::route::demand;
use crate::sense;
use crate::service::Slot;

/// Health is shown this often; its messages expire after three times that.
const HEALTH_PERIOD: Millis = Millis::secs(10);

/// Aggregates leave the node this often.
const TELEMETRY_PERIOD: Millis = Millis::secs(300);

/// What an observation reaches back.
const WINDOW: Millis = Millis::secs(10);

/// What was told, and when to tell again.
#[derive(Debug)]
pub(super) struct Telling {
    health_at: Micros,
    telemetry_at: Micros,
    /// How the budgets stand is told for the first time, once something has been
    /// measured.
    budgets_at: Option<Micros>,
    telemetry_from: Micros,
    /// Sum, count and largest.
    sums: BTreeMap<Series, (f64, u32, f64)>,
    told_at: Option<Micros>,
    /// Services whose trouble is put down to others.
    pub(super) held_back: BTreeMap<ServiceId, Held>,
}

impl Telling {
    pub(super) fn new(now: Micros) -> Self {
        Self {
            health_at: now,
            telemetry_at: now + TELEMETRY_PERIOD,
            budgets_at: Some(now + HEALTH_PERIOD),
            telemetry_from: now,
            sums: BTreeMap::new(),
            told_at: None,
            held_back: BTreeMap::new(),
        }
    }

    pub(super) fn told_at(&self) -> Option<Micros> {
        self.told_at
    }

    pub(super) fn next_wake(&self) -> Micros {
        self.health_at.min(self.telemetry_at)
    }

    /// Adds a sample to the aggregates.
    pub(super) fn sampled(&mut self, readings: Vec<MetricReading>) {
        for reading in readings {
            let Some(value) = reading.reading.fresh() else {
                continue;
            };
            let sum = self
                .sums
                .entry(reading.series())
                .or_insert((0.0, 0, f64::MIN));
            *sum = (sum.0 + value, sum.1 + 1, sum.2.max(value));
        }
    }
}

impl Loop {
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
            // At rest since the start, a standby has nothing to tell of an end.
            let rested = state == ServiceState::Standby;
            if changed && (state != ServiceState::Down || rested) {
                changes.push(ServiceChange {
                    service: id.clone(),
                    state,
                    instance: watched.instance(),
                    exit: None,
                });
            }
            if changed && state == ServiceState::Healthy {
                effects.push(Effect::Remember);
            }
            if changed || due {
                effects.push(Effect::ShowHealth(id.clone()));
            }
        }
        for change in changes {
            self.emit(Class::State, &[], Body::ServiceChange(change), effects);
        }
        self.tell_routes(now, effects);
        self.tell_topology(effects);
        let quarantines: Vec<String> = self
            .services
            .keys()
            .filter(|id| self.alarms.stands(&format!("{id}-quarantine")))
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
        self.repeat_alarms(now, effects);
        if now >= self.telling.telemetry_at {
            self.tell_telemetry(now, effects);
        } else if self.telling.budgets_at.is_some_and(|at| now >= at) {
            self.tell_budgets(effects);
        }
    }

    fn tell_telemetry(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let span = now.since(self.telling.telemetry_from);
        self.telling.telemetry_from = now;
        self.telling.telemetry_at = now + TELEMETRY_PERIOD;
        let series = std::mem::take(&mut self.telling.sums)
            .into_iter()
            .map(|(series, (sum, count, max))| Aggregate {
                metric: series.metric as u8,
                service: series.service,
                part: series.part,
                mean: narrow(sum / f64::from(count.max(1))),
                max: narrow(max),
            })
            .collect();
        let body = Body::Telemetry(Telemetry { span, series });
        self.emit(Class::Telemetry, &[], body, effects);
        self.tell_budgets(effects);
    }

    fn tell_budgets(&mut self, effects: &mut Vec<Effect>) {
        self.telling.budgets_at = None;
        let budgets = self.budgets();
        self.emit(Class::Telemetry, &[], budgets, effects);
    }

    /// `O_t`: what was seen lately, with every absence named. `incident` is one
    /// that is just being opened.
    pub(super) fn observation(&self, now: Micros, incident: Option<&Incident>) -> Observation {
        let mut alarms: Vec<AlarmReading> = self
            .incidents
            .values()
            .chain(incident)
            .map(|open| AlarmReading {
                alarm: format!("{}-{}", open.service, open.symptom),
                service: Some(open.service.clone()),
                text: format!("{} is {}", open.service, open.symptom),
            })
            .collect();
        for alarm in self.alarms.iter().map(|standing| &standing.alarm) {
            if alarms.iter().all(|known| known.alarm != alarm.alarm) {
                alarms.push(AlarmReading {
                    alarm: alarm.alarm.clone(),
                    service: alarm.service.clone(),
                    text: alarm.text.clone(),
                });
            }
        }
        alarms.extend(self.outside.readings(&self.services));
        let (logs, logs_at) = &self.logs;
        Observation {
            node: self.node.clone(),
            from: Micros(now.0.saturating_sub(WINDOW.0 * 1000)),
            to: now,
            logs: if now.since(*logs_at) <= WINDOW {
                logs.clone()
            } else {
                Vec::new()
            },
            metrics: self.readings(now),
            alarms,
        }
    }

    /// `M_t`; what was sampled too long ago is marked as stale.
    #[must_use]
    pub fn readings(&self, now: Micros) -> Vec<MetricReading> {
        let age = self.sampled.map_or(Millis(0), |at| now.since(at));
        let mut readings = sense::host_readings(&self.host, self.own_lag(now));
        for watched in self.services.values() {
            readings.extend(sense::service_readings(watched, now));
        }
        readings.extend(self.serving_readings());
        let known = self.routed.map(|(_, at)| (at, self.routes_fresh(now)));
        if age > self.pacing.stale() {
            for reading in &mut readings {
                if let Reading::Fresh(last) = reading.reading {
                    reading.reading = Reading::Stale { last, age };
                }
            }
        }
        for route in self.routes.values() {
            readings.extend(demand::readings(route, now, known));
        }
        readings
    }

    /// `s_t`: the node's state, for models and for people.
    #[must_use]
    pub fn state(&self, now: Micros) -> State {
        let mut open = vec![0; Symptom::ALL.len()];
        for incident in self.incidents.values() {
            if let Some(count) = open.get_mut(symptom_place(incident.symptom)) {
                *count += 1;
            }
        }
        let readings = self.readings(now);
        State {
            health: sense::health(&self.host, &readings, self.services.values(), now),
            context: sense::context(
                &self.host,
                &readings,
                self.services.values(),
                self.connected,
                self.own_lag(now),
            ),
            history: History {
                recent: self.experience.recent().cloned().collect(),
                outcomes: Outcome::ALL.map(|outcome| self.experience.count(outcome)),
                open,
                budget_left: self.budget_left(),
            },
        }
    }

    /// What was seen and what the state is, as `cmd/snapshot` answers it.
    #[must_use]
    pub fn snapshot(&self, now: Micros) -> Snapshot {
        Snapshot {
            observation: self.observation(now, None),
            state: self.state(now),
        }
    }
}

/// The answer to `cmd/snapshot`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Snapshot {
    /// `O_t`.
    pub observation: Observation,
    /// `s_t`.
    pub state: State,
}
