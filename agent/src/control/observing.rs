//! `O_t`: what was seen lately, in one record.
//!
//! In: what is known of metrics and alarms, and the counts of each look at the logs. Out: an
//! observation that fits into a record whatever the node runs and its services write: where
//! there is too much, what tells least is left out. Judges nothing.

use std::collections::BTreeMap;

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{
    AlarmReading, Level, LogCount, MetricReading, Observation, Reading,
};
use homeostat_common::units::{Micros, Millis};

use super::{Incident, Loop};
use crate::route::demand;
use crate::sense;

/// What an observation reaches back.
const WINDOW: Millis = Millis::secs(10);

/// A half of it.
const HALF: Millis = Millis::secs(5);

/// Templates that are kept of each half of the window, of all services.
const TEMPLATES_MAX: usize = 256;

/// Bytes that logs, metrics and alarms take of a record of 64 KiB. The metrics of a node with
/// some twenty services fit, and sixty templates of the longest text.
const LOGS_MAX: usize = 24 * 1024;
const METRICS_MAX: usize = 24 * 1024;
const ALARMS_MAX: usize = 14 * 1024;

/// What one of them takes besides its texts: numbers and the lengths of texts.
const BESIDES: usize = 24;

type Half = BTreeMap<(Option<ServiceId>, u64), LogCount>;

/// `L_t`: what was written within the window, which is two halves of which the younger one
/// fills.
#[derive(Debug, Default)]
pub(super) struct Lines {
    old: Half,
    young: Half,
    /// When the younger one began.
    since: Micros,
}

impl Lines {
    /// Takes the counts of a look in.
    pub(super) fn add(&mut self, now: Micros, counts: Vec<LogCount>) {
        let age = now.since(self.since);
        if age >= HALF {
            let young = std::mem::take(&mut self.young);
            self.old = if age < WINDOW { young } else { Half::new() };
            self.since = now;
        }
        for count in counts {
            merge(&mut self.young, count);
            if self.young.len() > TEMPLATES_MAX {
                let least = self.young.iter().min_by_key(|(_, count)| telling(count));
                if let Some(least) = least.map(|(key, _)| key.clone()) {
                    self.young.remove(&least);
                }
            }
        }
    }

    /// What was written within the window, what tells most first.
    fn lately(&self, now: Micros) -> Vec<LogCount> {
        let age = now.since(self.since);
        let mut all = Half::new();
        for (half, until) in [(&self.old, HALF), (&self.young, WINDOW)] {
            for count in half.values().filter(|_| age < until) {
                merge(&mut all, count.clone());
            }
        }
        let mut all: Vec<LogCount> = all.into_values().collect();
        all.sort_by_key(|count| std::cmp::Reverse(telling(count)));
        all
    }
}

/// Errors tell more than what is no error, and many lines more than few.
fn telling(count: &LogCount) -> (Level, u32) {
    (count.level, count.count)
}

fn merge(into: &mut Half, count: LogCount) {
    let key = (count.service.clone(), count.template);
    match into.get_mut(&key) {
        Some(known) => {
            known.count = known.count.saturating_add(count.count);
            known.level = known.level.max(count.level);
            known.text = count.text;
        }
        None => {
            into.insert(key, count);
        }
    }
}

impl Loop {
    /// `O_t`, with every absence named. `incident` is one that is just being opened.
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
        let all = Observation {
            node: self.node.clone(),
            from: Micros(now.0.saturating_sub(WINDOW.0 * 1000)),
            to: now,
            logs: self.lines.lately(now),
            metrics: self.readings(now),
            alarms,
        };
        fit(all, incident.map(|open| &open.service))
    }

    /// `M_t`; what was sampled too long ago is marked as stale.
    #[must_use]
    pub fn readings(&self, now: Micros) -> Vec<MetricReading> {
        let age = self.sampled.map_or(Millis(0), |at| now.since(at));
        let mut readings = sense::host_readings(&self.host, self.own_lag(now));
        for watched in self.services.values() {
            readings.extend(sense::service_readings(watched, now));
        }
        readings.extend(self.serving_readings(now));
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
}

/// Leaves out what a record has no room for: of metrics those of other services than the
/// `concerned` one before those of the node.
fn fit(all: Observation, concerned: Option<&ServiceId>) -> Observation {
    let named = |service: &Option<ServiceId>| service.as_ref().map_or(0, |id| id.as_str().len());
    Observation {
        logs: within(
            all.logs,
            LOGS_MAX,
            |log| named(&log.service) + log.text.len(),
            |_| 0,
        ),
        metrics: within(
            all.metrics,
            METRICS_MAX,
            |one| named(&one.service) + one.part.as_ref().map_or(0, |part| part.as_str().len()),
            |one| match &one.service {
                Some(service) if Some(service) == concerned => 0,
                None if one.part.is_none() => 1,
                None => 2,
                Some(_) => 3,
            },
        ),
        alarms: within(
            all.alarms,
            ALARMS_MAX,
            |alarm| named(&alarm.service) + alarm.alarm.len() + alarm.text.len(),
            |_| 0,
        ),
        ..all
    }
}

/// All of them if they fit into so many bytes; else the first ones by `rank`.
fn within<T>(
    mut all: Vec<T>,
    most: usize,
    texts: impl Fn(&T) -> usize,
    rank: impl Fn(&T) -> u8,
) -> Vec<T> {
    let size = |one: &T| BESIDES + texts(one);
    if all.iter().map(size).sum::<usize>() <= most {
        return all;
    }
    all.sort_by_key(rank);
    let mut taken = 0;
    let first = all.iter().take_while(|one| {
        taken += size(one);
        taken <= most
    });
    all.truncate(first.count());
    all
}

#[cfg(test)]
mod tests {
    use homeostat_common::observation::{Metric, Part};
    use homeostat_common::wire::RECORD_MAX;

    use super::*;

    fn at(second: u64) -> Micros {
        Micros(second * 1_000_000)
    }

    fn count(template: u64, level: Level, count: u32) -> LogCount {
        LogCount {
            service: None,
            template,
            text: format!("template {template}"),
            level,
            count,
        }
    }

    fn seen(lines: &Lines, second: u64) -> Vec<(u64, u32)> {
        let all = lines.lately(at(second));
        all.iter().map(|one| (one.template, one.count)).collect()
    }

    #[test]
    fn what_was_written_within_the_window_is_there_and_nothing_older() {
        let mut lines = Lines::default();
        lines.add(at(100), vec![count(1, Level::Error, 1)]);
        // Others go on to write.
        for second in 101..110 {
            lines.add(at(second), vec![count(2, Level::Info, 3)]);
        }
        assert_eq!(seen(&lines, 109), [(1, 1), (2, 27)]);
        for second in 110..115 {
            lines.add(at(second), vec![count(2, Level::Info, 3)]);
        }
        assert_eq!(seen(&lines, 114), [(2, 30)]);
        assert_eq!(seen(&lines, 119), [(2, 15)]);
        assert_eq!(seen(&lines, 120), []);
        lines.add(at(200), vec![count(3, Level::Info, 1)]);
        assert_eq!(seen(&lines, 200), [(3, 1)]);
    }

    #[test]
    fn a_flood_leaves_what_tells_most() {
        let mut lines = Lines::default();
        lines.add(at(1), vec![count(0, Level::Error, 1)]);
        let flood = (1..5000).map(|template| count(template, Level::Info, 1));
        lines.add(at(2), flood.collect());
        let seen = seen(&lines, 3);
        assert_eq!((seen.len(), seen[0]), (TEMPLATES_MAX, (0, 1)));
    }

    #[test]
    fn the_largest_node_in_the_greatest_trouble_fits_into_a_record() {
        let services: Vec<ServiceId> = (0..64)
            .map(|n| ServiceId::new(&format!("a-service-with-a-long-name-{n:04}")).unwrap())
            .collect();
        let part = Part::new(&"p".repeat(48)).unwrap();
        let mut all = Observation {
            node: "n".parse().unwrap(),
            from: at(1),
            to: Micros(u64::MAX),
            logs: Vec::new(),
            metrics: Vec::new(),
            alarms: Vec::new(),
        };
        let stale = Reading::Stale {
            last: 1.0,
            age: Millis(u64::MAX),
        };
        for _ in 0..256 {
            let reading = MetricReading::part(Metric::BrokerRtt, part.clone(), stale);
            all.metrics.push(reading);
        }
        for service in &services {
            for template in 0..64 {
                all.logs.push(LogCount {
                    service: Some(service.clone()),
                    template: u64::MAX - template,
                    text: "x".repeat(384),
                    level: Level::Error,
                    count: u32::MAX,
                });
            }
            for metric in Metric::ALL {
                let reading = MetricReading::service(*metric, service.clone(), stale);
                all.metrics.push(reading);
            }
            for n in 0..20 {
                all.alarms.push(AlarmReading {
                    alarm: format!("{service}-alarm-{n}"),
                    service: Some(service.clone()),
                    text: "x".repeat(240),
                });
            }
        }
        let told = fit(all.clone(), services.last());
        let bytes = postcard::to_allocvec(&told).unwrap().len();
        assert!(
            (RECORD_MAX / 2..RECORD_MAX - 1024).contains(&bytes),
            "{bytes}"
        );
        let own = told
            .metrics
            .iter()
            .filter(|one| one.service.as_ref() == services.last());
        assert_eq!(own.count(), Metric::ALL.len());
        // What fits stays as it is.
        all.logs.truncate(10);
        all.metrics.truncate(100);
        all.alarms.truncate(10);
        assert_eq!(fit(all.clone(), None), all);
    }
}
