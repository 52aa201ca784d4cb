//! Reads logs and turns lines into templates: `L_t`.
//!
//! In: what services write to their own file (`data_dir/logs/ID.log`), further files
//! (`[[log]]`) and the journal of systemd, all of them bounded per look. Out: how often each
//! template was seen ([`LogCount`]), and per service the rate of lines, of errors and of
//! templates that this node had never seen, as readings. The text of a line stays in this
//! process: what is passed on is its template. All logs of the node share one miner, whose
//! templates outlive a restart.
//!
//! Does not judge: what is unusual is for the detectors.

mod counts;
pub mod journal;
pub mod tail;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Level, LogCount, Metric, MetricReading, Reading};
use homeostat_common::units::{Micros, Millis};
use homeostat_templates::{Limits, Miner, Record};
use tracing::warn;

pub use self::counts::{Counts, TEMPLATES_MAX, Window};
use self::journal::Journal;
use self::tail::Tail;
use crate::config::{Config, Process};
use crate::control::Sourced;

/// How often what is new about templates is kept. Most such looks find nothing.
const KEEP_PERIOD: Millis = Millis(60_000);

/// A template is kept again when it has so many times the lines it had then.
const KEEP_FACTOR: u64 = 8;

/// All logs of a node.
#[derive(Debug)]
pub struct Logs {
    miner: Box<Miner>,
    /// The files, with the place of their counts.
    tails: Vec<(Tail, usize)>,
    journal: Option<Journal>,
    /// Whose unit a unit is.
    units: BTreeMap<String, usize>,
    counts: Vec<Counts>,
    looked: Option<Micros>,
    /// What the last look gave.
    readings: Vec<Sourced>,
    /// What is on the disk: by id, which words vary and the lines at that time.
    kept: BTreeMap<u64, (u128, u64)>,
    kept_at: Option<Micros>,
    /// Templates that had been forgotten when somebody was told last.
    told: u64,
}

/// What changed about templates since they were kept.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// To be kept.
    pub put: Vec<Record>,
    /// Not known any more.
    pub gone: Vec<u64>,
}

impl Logs {
    /// Of the configuration, with the templates that were kept.
    #[must_use]
    pub fn new(config: &Config, mut records: Vec<Record>) -> Self {
        let mut logs = Self {
            miner: Box::new(Miner::new(Limits::default())),
            tails: Vec::new(),
            journal: None,
            units: BTreeMap::new(),
            counts: Vec::new(),
            looked: None,
            readings: Vec::new(),
            kept: BTreeMap::new(),
            kept_at: None,
            told: 0,
        };
        records.sort_unstable_by_key(|record| record.born);
        for record in &records {
            logs.kept.insert(record.id, (record.open, record.lines));
            logs.miner.restore(record);
        }
        logs.configure(config);
        logs
    }

    /// Takes up a new configuration; files that stay are read on.
    pub fn configure(&mut self, config: &Config) {
        self.counts.clear();
        self.units.clear();
        self.readings.clear();
        let mut former = std::mem::take(&mut self.tails);
        let folder = config.node.data_dir.join("logs");
        for service in &config.services {
            let place = self.place(Some(&service.id));
            if let Process::Unit(unit) = &service.process {
                self.units.insert(unit.name.clone(), place);
            }
            if service.log {
                let path = folder.join(format!("{}.log", service.id));
                self.follow(&path, place, &mut former);
            }
        }
        for log in &config.logs {
            let place = self.place(log.service.as_ref());
            self.follow(&log.path, place, &mut former);
        }
        if !config.reads_journal() {
            self.journal = None;
        } else if self.journal.is_none() {
            self.journal = Some(Journal::new(&journal::PROGRAM));
        }
        if self.journal.is_some() {
            self.place(None);
        }
    }

    fn follow(&mut self, path: &Path, place: usize, former: &mut Vec<(Tail, usize)>) {
        let known = former.iter().position(|(tail, _)| tail.path() == path);
        let tail = known.map_or_else(|| Tail::from_end(path), |at| former.swap_remove(at).0);
        self.tails.push((tail, place));
    }

    fn place(&mut self, service: Option<&ServiceId>) -> usize {
        let known = self.counts.iter().position(|c| c.service() == service);
        known.unwrap_or_else(|| {
            self.counts.push(Counts::new(service.cloned()));
            self.counts.len() - 1
        })
    }

    /// Reads what is new, up to `budget` bytes of each source: `L_t`.
    pub fn look(&mut self, now: Micros, budget: u64) -> Vec<LogCount> {
        let Self {
            miner,
            tails,
            journal,
            units,
            counts,
            ..
        } = self;
        let mut there = vec![false; counts.len()];
        for (tail, place) in tails.iter_mut() {
            tail.poll(budget, |line| take(miner, counts, *place, line, None));
            if let Some(there) = there.get_mut(*place) {
                *there |= tail.is_there();
            }
        }
        if let Some(journal) = journal {
            let node = counts.iter().position(|c| c.service().is_none());
            journal.poll(now, budget, |entry| {
                let unit = entry.unit.as_ref().and_then(|unit| units.get(unit));
                if let Some(place) = unit.copied().or(node) {
                    take(miner, counts, place, &entry.message, entry.level);
                }
            });
            if journal.is_there() {
                for place in units.values().copied().chain(node) {
                    if let Some(there) = there.get_mut(place) {
                        *there = true;
                    }
                }
            }
        }
        let since = self.looked.replace(now).map(|then| now.since(then));
        let seconds = since.map(|since| since.0 as f64 / 1000.0);
        let (mut lines, mut readings) = (Vec::new(), Vec::new());
        for (counts, there) in self.counts.iter_mut().zip(there) {
            let service = counts.service().cloned();
            let (counted, window) = counts.take();
            lines.extend(counted);
            let values = rates(window, there, seconds);
            readings.extend(values.map(|(metric, reading)| Sourced {
                reading: MetricReading {
                    service: service.clone(),
                    ..MetricReading::node(metric, reading)
                },
                new: true,
            }));
        }
        self.readings = readings;
        self.tell();
        lines
    }

    /// The readings of the last look, for each sample until the next one: they are new in the
    /// first.
    pub fn sourced(&mut self) -> Vec<Sourced> {
        let all = self.readings.clone();
        for reading in &mut self.readings {
            reading.new = false;
        }
        all
    }

    /// Says once in a while that there are more templates than are kept.
    fn tell(&mut self) {
        let forgotten = self.miner.tally().forgotten;
        if forgotten > self.told.saturating_mul(2) {
            self.told = forgotten;
            let kept = self.miner.len();
            warn!(kept, forgotten, "more log templates than are kept");
        }
    }

    /// What is to be kept by now, if anything; all of it when the agent `ends`.
    pub fn changes(&mut self, now: Micros, ends: bool) -> Option<Changes> {
        let early = |then: Micros| now.since(then) < KEEP_PERIOD;
        if !ends && self.kept_at.is_some_and(early) {
            return None;
        }
        self.kept_at = Some(now);
        let mut changes = Changes::default();
        let mut gone = std::mem::take(&mut self.kept);
        for record in self.miner.records() {
            let former = gone.remove(&record.id);
            let stays = former.filter(|(open, lines)| {
                *open == record.open && record.lines < lines.saturating_mul(KEEP_FACTOR)
            });
            self.kept
                .insert(record.id, stays.unwrap_or((record.open, record.lines)));
            if stays.is_none() {
                changes.put.push(record);
            }
        }
        changes.gone = gone.into_keys().collect();
        (changes != Changes::default()).then_some(changes)
    }
}

fn take(miner: &mut Miner, counts: &mut [Counts], place: usize, line: &[u8], level: Option<Level>) {
    let line = miner.line(line);
    // What a program prints has the priority of prints, whatever it says.
    let level = line.level.max(level).unwrap_or_default();
    if let Some(counts) = counts.get_mut(place) {
        counts.add(&line, level);
    }
    miner.merges(|merge| counts.iter_mut().for_each(|counts| counts.merge(merge)));
}

/// The readings of one window; of a log that is not there, none.
fn rates(window: Window, there: bool, seconds: Option<f64>) -> [(Metric, Reading<f64>); 3] {
    let seconds = seconds.filter(|seconds| there && *seconds > 0.0);
    let rate = |count: u32| Reading::from(seconds.map(|seconds| f64::from(count) / seconds));
    [
        (Metric::LogLines, rate(window.lines)),
        (Metric::LogErrors, rate(window.errors)),
        (
            Metric::LogNew,
            Reading::from(there.then_some(f64::from(window.new))),
        ),
    ]
}
