//! What is not as usual: metrics beside the findings about services.
//!
//! In go the readings of each sample; out come alarms, `node-unusual` and
//! `SERVICE-unusual`, which name the metrics, and words that stand as evidence with an
//! incident that they came before. Nothing is ever done because of them: an unusual metric
//! is a question to a person and no diagnosis.
//!
//! While an incident of a service is open its metrics, and those of who needs it, are not
//! learnt, so that no incident becomes the usual, and raise no alarm of their own, nor for a while after: what comes
//! back to normal is no news. Metrics of a process are learnt anew with each life.

use std::collections::{BTreeMap, BTreeSet};

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::ids::{Instance, ServiceId};
use homeostat_common::observation::{Metric, MetricReading, Series};
use homeostat_common::units::{Micros, Millis, Ratio};
use homeostat_common::wire::body::Severity;

use super::Loop;
use super::command::Scope;
use super::message::{Effect, Sourced};
use crate::config::Detect;
use crate::detect::Finding;
use crate::detect::usual::{Concern, Oddity, Usual, has_usual};
use crate::sense::quality::{Sensors, series};
use crate::service::Slot;
use crate::words::{amount, series_name};

/// The alarm of the node.
pub(super) const NODE_UNUSUAL: &str = "node-unusual";

/// What of a service is unusual: its alarm, after its name.
pub(super) const UNUSUAL: &str = "unusual";

/// Longest time for which nothing is learnt: an incident that nobody can end is how things
/// are, in the end.
const REST_MAX: Millis = Millis::secs(3600);

/// After an incident latencies and counts take so long to be of now only, and caches to be
/// warm; what is unusual then is no news.
const AFTERMATH: Millis = Millis::secs(120);

/// What was unusual so long before the first sign of an incident may belong to it.
const BEFORE: Millis = Millis::secs(300);

/// Metrics that one alarm, or the evidence of one incident, names; the rest is counted.
const NAMED_MAX: usize = 3;

/// Sensors that are trusted less than this are shown, and said with a finding.
const DOUBTED: f32 = 0.9;

/// Metrics of a process; another life has others.
const OF_LIFE: [Metric; 4] = [
    Metric::MemoryResident,
    Metric::CpuUsed,
    Metric::Descriptors,
    Metric::Threads,
];

/// When a service, or the node, was not itself last.
#[derive(Debug, Clone, Copy)]
struct Unrest {
    from: Micros,
    until: Micros,
}

/// What is known of metrics and of the sensors behind them.
#[derive(Debug)]
pub(super) struct Noticing {
    policy: Detect,
    usual: Usual<Series>,
    sensors: Sensors,
    lives: BTreeMap<ServiceId, Option<Instance>>,
    /// `None` is the node.
    unrest: BTreeMap<Option<ServiceId>, Unrest>,
    /// The last sample that was one of the usual pace.
    fed: Option<Micros>,
    /// What sources have measured since then.
    news: BTreeSet<Series>,
}

impl Noticing {
    pub(super) fn new(policy: Detect) -> Self {
        Self {
            policy,
            usual: Usual::new(policy.policy()),
            sensors: Sensors::default(),
            lives: BTreeMap::new(),
            unrest: BTreeMap::new(),
            fed: None,
            news: BTreeSet::new(),
        }
    }

    /// Takes note of what is new in a sample. For one that is `fed`: the sources that have
    /// measured nothing since the last of those, and only repeat themselves.
    fn repeated(&mut self, sources: &[Sourced], fed: bool) -> Option<BTreeSet<Series>> {
        let new = sources.iter().filter(|source| source.new);
        self.news.extend(new.map(|source| source.reading.series()));
        if !fed {
            return None;
        }
        let news = std::mem::take(&mut self.news);
        let all = sources.iter().map(|source| source.reading.series());
        Some(all.filter(|series| !news.contains(series)).collect())
    }

    pub(super) fn sensors(&mut self) -> &mut Sensors {
        &mut self.sensors
    }

    /// How near a metric is to being odd, in `0..=1`.
    pub(super) fn risk(&self, now: Micros, known: Millis) -> f32 {
        self.usual.risk(now, known)
    }
}

impl Loop {
    /// Another life of a service has nothing to do with what was measured of the former.
    pub(super) fn note_lives(&mut self) {
        for (id, watched) in &self.services {
            let life = watched.instance();
            let known = self.noticing.lives.insert(id.clone(), life);
            if known.is_some_and(|known| known != life) {
                let of_life = |series: &Series| {
                    series.service.as_ref() == Some(id) && OF_LIFE.contains(&series.metric)
                };
                self.noticing.usual.forget(of_life);
                self.noticing.sensors.forget(of_life);
            }
        }
        let gone = |id: &ServiceId| !self.services.contains_key(id);
        if self.noticing.lives.keys().any(gone) {
            let services = &self.services;
            let lost = |series: &Series| {
                let service = series.service.as_ref();
                service.is_some_and(|id| !services.contains_key(id))
            };
            self.noticing.usual.forget(lost);
            self.noticing.sensors.forget(lost);
            let known = |id: &ServiceId| services.contains_key(id);
            self.noticing.lives.retain(|id, _| known(id));
            let known = |scope: &Option<ServiceId>| scope.as_ref().is_none_or(known);
            self.noticing.unrest.retain(|scope, _| known(scope));
        }
    }

    /// Whether a period has passed since the last sample of which this was said. Detectors
    /// whose windows count samples take these alone: at a faster pace a start that fills
    /// memory for a second would look like a leak.
    pub(super) fn period_passed(&mut self, now: Micros) -> bool {
        let due = self.noticing.fed.is_none_or(|fed| {
            // A tenth is left to timers that are early.
            10 * now.since(fed).0 >= 9 * self.pacing.usual().0
        });
        if due {
            self.noticing.fed = Some(now);
        }
        due
    }

    /// Takes the readings of a sample in, and tells people what is not as usual.
    pub(super) fn notice(
        &mut self,
        now: Micros,
        readings: &[MetricReading],
        effects: &mut Vec<Effect>,
    ) {
        self.note_unrest(now);
        if !self.noticing.policy.on {
            return;
        }
        let fed = self.noticing.fed == Some(now);
        let Some(repeated) = self.noticing.repeated(&self.host.sources, fed) else {
            return;
        };
        let stale = self.pacing.stale();
        let resting = self.resting(now);
        // First what every node has, then the services, then the rest: there is a bound.
        let place = |reading: &MetricReading| (reading.part.is_some(), reading.service.is_none());
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for reading in readings {
            match place(reading) {
                (true, _) => rest.push(reading),
                _ => first.push(reading),
            }
        }
        for reading in first.into_iter().chain(rest) {
            let series = reading.series();
            // The count of answers within the window begins at 0 with each life.
            let counted = reading.metric == Metric::Throughput;
            if counted || !has_usual(reading) || repeated.contains(&series) {
                continue;
            }
            let service = series.service.as_ref();
            let up = service.is_none_or(|id| {
                let slot = self.services.get(id).map(|watched| watched.slot);
                matches!(slot, Some(Slot::Up { .. }))
            });
            if !up {
                continue;
            }
            let value = reading.reading.fresh();
            let learning = !resting.contains(&series.service);
            let trust = self.noticing.sensors.trust(&series, now, stale);
            let usual = &mut self.noticing.usual;
            let concern = Concern::of(series.metric);
            usual.observe(now, (&series, concern), value, trust, learning);
        }
        self.tell_unusual(effects);
    }

    fn note_unrest(&mut self, now: Micros) {
        let open = self.incidents.values();
        let open: Vec<_> = open.map(|one| (one.service.clone(), one.since)).collect();
        for (service, since) in open {
            self.unsettle(&service, since, now);
        }
    }

    /// An incident is open, or was until now: some last no longer than from one sample to
    /// the next.
    pub(super) fn unsettle(&mut self, service: &ServiceId, since: Micros, now: Micros) {
        let dependents = self.dependents_of(service).into_iter().map(Some);
        for scope in dependents.chain([Some(service.clone()), None]) {
            let fresh = Unrest {
                from: since,
                until: now,
            };
            let unrest = self.noticing.unrest.entry(scope).or_insert(fresh);
            if unrest.until < now {
                unrest.from = since;
            }
            unrest.until = now + AFTERMATH;
        }
    }

    /// Of whom nothing is learnt now: services, and the node.
    pub(super) fn resting(&self, now: Micros) -> BTreeSet<Option<ServiceId>> {
        let open = self.incidents.values();
        let open = open.filter(|open| now.since(open.since) < REST_MAX);
        let scopes = open.flat_map(|open| {
            let dependents = self.dependents_of(&open.service).into_iter().map(Some);
            dependents.chain([Some(open.service.clone()), None])
        });
        scopes.collect()
    }

    /// Whether something that began then belongs to an incident, or to maintenance.
    fn explained(&self, scope: &Option<ServiceId>, since: Micros) -> bool {
        let unrest = self.noticing.unrest.get(scope);
        let unrest = unrest.is_some_and(|one| {
            // What is seen first of an incident is often a metric.
            since + BEFORE >= one.from && since <= one.until
        });
        let scope = scope.clone().map_or(Scope::Node, Scope::Service);
        unrest || self.controls.in_maintenance(&scope)
    }

    fn tell_unusual(&mut self, effects: &mut Vec<Effect>) {
        let mut told: BTreeMap<Option<ServiceId>, Vec<String>> = BTreeMap::new();
        for odd in self.noticing.usual.odd() {
            let scope = &odd.key.service;
            if !self.explained(scope, odd.since) {
                told.entry(scope.clone())
                    .or_default()
                    .push(words(&odd, self.now));
            }
        }
        let scopes: Vec<Option<ServiceId>> = [None]
            .into_iter()
            .chain(self.services.keys().cloned().map(Some))
            .collect();
        for scope in scopes {
            let name = alarm(scope.as_ref());
            let Some(mut words) = told.remove(&scope) else {
                self.clear(&name, effects);
                continue;
            };
            let more = words.len().saturating_sub(NAMED_MAX);
            words.truncate(NAMED_MAX);
            let mut text = words.join("; ");
            if more > 0 {
                text.push_str(&format!("; and {more} more"));
            }
            self.raise(&name, scope.as_ref(), Severity::Notice, text, effects);
        }
    }

    /// What was unusual before an incident, of the service, of what it needs, and of the
    /// node, as evidence.
    pub(super) fn unusual_before(
        &self,
        service: &ServiceId,
        since: Micros,
        now: Micros,
    ) -> Vec<String> {
        let needs = self.services.get(service).map(|one| &one.policy.depends_on);
        let near = |scope: &Option<ServiceId>| match scope {
            None => true,
            Some(id) => id == service || needs.is_some_and(|needs| needs.contains(id)),
        };
        let then = Micros(since.0.saturating_sub(BEFORE.0 * 1000));
        let usual = &self.noticing.usual;
        let odd = usual.odd_since(then);
        let odd = odd.iter().filter(|odd| near(&odd.key.service));
        odd.take(NAMED_MAX)
            .map(|odd| format!("unusual before: {}", words(odd, now)))
            .collect()
    }

    /// Since when something of a service, or of what it needs, or of the node is odd.
    pub(super) fn odd_since(&self, id: &ServiceId) -> Option<Micros> {
        let near = |scope: &Option<ServiceId>| match scope {
            None => true,
            Some(other) => other == id || self.depends(id, other),
        };
        let odd = self.noticing.usual.odd();
        let odd = odd.iter().filter(|odd| near(&odd.key.service));
        odd.map(|odd| odd.since).min()
    }

    /// A finding is worth no more than the sensor that it rests on.
    pub(super) fn weigh(&self, id: &ServiceId, finding: Finding, now: Micros) -> Finding {
        let Some((metric, service)) = rests_on(&finding, id) else {
            return finding;
        };
        let series = series(metric, service);
        let trust = self
            .noticing
            .sensors
            .trust(&series, now, self.pacing.stale());
        if trust.get() >= DOUBTED {
            return finding;
        }
        Finding {
            score: Ratio::saturating(finding.score.get() * trust.get()),
            evidence: format!(
                "{}; the sensor of {} is trusted by {trust} only",
                finding.evidence,
                series_name(&series)
            ),
            ..finding
        }
    }

    /// Pace, metrics and sensors, for `status`.
    pub(super) fn sensing_words(&self, now: Micros) -> String {
        let (watched, more) = self.noticing.usual.watched();
        let mut text = format!("sampling     {}\n", self.pacing.words());
        if self.noticing.policy.on {
            text.push_str(&format!("watched      {watched} metrics"));
            if more > 0 {
                text.push_str(", and more than [detect] metrics lets be watched");
            }
            text.push('\n');
        }
        let doubted = self
            .noticing
            .sensors
            .doubted(now, self.pacing.stale(), DOUBTED);
        for (series, trust, doubt) in doubted {
            let (name, doubt) = (series_name(series), doubt.words());
            text.push_str(&format!(
                "sensor       {name} is trusted by {trust}: it {doubt}\n"
            ));
        }
        for odd in self.noticing.usual.odd() {
            text.push_str(&format!("unusual      {}\n", words(&odd, now)));
        }
        let total = |metric: Metric| {
            let found = self.host.sources.iter();
            let mut found = found.filter(|one| one.reading.metric == metric);
            found.find_map(|one| one.reading.reading.fresh())
        };
        let spent = [
            (Metric::OwnWritten, "written by the agent"),
            (Metric::Energy, "drawn by the node"),
            (Metric::OwnEnergyEstimate, "of that by the agent, estimated"),
        ];
        for (metric, what) in spent {
            if let Some(value) = total(metric) {
                let value = amount(metric, value);
                text.push_str(&format!("spent        {value} {what}\n"));
            }
        }
        text
    }

    /// Takes a new configuration over.
    pub(super) fn renew_noticing(&mut self, policy: Detect, effects: &mut Vec<Effect>) {
        self.noticing.policy = policy;
        self.noticing.usual.renew(policy.policy());
        if !policy.on {
            self.noticing.usual = Usual::new(policy.policy());
            self.clear(NODE_UNUSUAL, effects);
            let ids: Vec<ServiceId> = self.services.keys().cloned().collect();
            for id in ids {
                self.clear(&alarm(Some(&id)), effects);
            }
        }
    }
}

fn alarm(service: Option<&ServiceId>) -> String {
    service.map_or_else(|| NODE_UNUSUAL.to_owned(), |id| format!("{id}-{UNUSUAL}"))
}

/// The metric that a finding is made of; `None` where it is the kernel's word, or answers
/// themselves.
fn rests_on<'f>(finding: &Finding, id: &'f ServiceId) -> Option<(Metric, Option<&'f ServiceId>)> {
    match finding.symptom {
        Symptom::Leaking => Some((Metric::MemoryResident, Some(id))),
        Symptom::LeakingDescriptors => Some((Metric::Descriptors, Some(id))),
        Symptom::Hogging => Some((Metric::CpuUsed, Some(id))),
        Symptom::Foreseen => match finding.cause? {
            Fault::MemoryLeak => Some((Metric::MemoryResident, Some(id))),
            Fault::Overheating => Some((Metric::Temperature, None)),
            _ => None,
        },
        Symptom::Dead
        | Symptom::Hung
        | Symptom::WrongAnswers
        | Symptom::NotStarting
        | Symptom::Slow
        | Symptom::DataFull
        | Symptom::Saturated
        | Symptom::Requested => None,
    }
}

fn words(odd: &Oddity<'_, Series>, now: Micros) -> String {
    let metric = odd.key.metric;
    let (usual, learnt) = odd.usual;
    let learnt = Millis(learnt.0 / 60_000 * 60_000);
    let until = match odd.ended {
        Some(ended) => format!(
            "from {} to {} ago",
            whole(now.since(odd.since)),
            whole(now.since(ended))
        ),
        None => format!("for {}", whole(now.since(odd.since))),
    };
    let is = if odd.ended.is_some() { "was" } else { "is" };
    format!(
        "{} {is} {}, on average of the {learnt} before it was {}: {}, {until} (score {:.2}, \
         uncertainty {:.2})",
        series_name(odd.key),
        amount(metric, odd.value),
        amount(metric, usual),
        odd.member.words(),
        odd.score,
        odd.uncertainty,
    )
}

/// A span for people: nobody needs its milliseconds.
fn whole(span: Millis) -> Millis {
    Millis(span.0.div_ceil(1000) * 1000)
}

#[cfg(test)]
mod tests {
    use homeostat_common::observation::Reading;

    use super::*;

    #[test]
    fn what_a_slow_source_measures_between_two_samples_that_are_fed_is_not_lost() {
        let mut noticing = Noticing::new(Detect::default());
        let mut look = |new: [bool; 2], fed| {
            let reading = |metric| MetricReading::node(metric, Reading::Fresh(1.0));
            let metrics = [Metric::FilesOpen, Metric::Load].map(reading);
            let sources: Vec<Sourced> = metrics
                .into_iter()
                .zip(new)
                .map(|(reading, new)| Sourced { reading, new })
                .collect();
            let repeated = noticing.repeated(&sources, fed)?;
            Some(repeated.into_iter().map(|series| series.metric).collect())
        };
        let none: Vec<Metric> = Vec::new();
        assert_eq!(look([true, true], true), Some(none.clone()));
        assert_eq!(look([false, true], true), Some(vec![Metric::FilesOpen]));
        // Four times as often, as while something may be wrong.
        assert_eq!(look([false, true], false), None);
        assert_eq!(look([true, true], false), None);
        assert_eq!(look([false, true], false), None);
        assert_eq!(look([false, true], true), Some(none));
        assert_eq!(look([false, true], true), Some(vec![Metric::FilesOpen]));
    }
}
