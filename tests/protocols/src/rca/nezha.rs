//! Nezha's TrainTicket day: metrics, traces and logs of 46 services, 28 injected faults (Yu et
//! al. 2023).
//!
//! No alarmed service is given, only the time; everything up to three minutes after it goes in.
//! Traces and logs exist for the minute before each fault and the two after it. What a node
//! would have discarded as an incident, the two minutes after each earlier alarm, is no
//! reference; the minute before is. The thresholds on events were chosen on the faults with
//! even numbers; the same faults are repeated, so the odd ones are of the same services.

mod day;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use homeostat_causes::{
    Alarm, Component, Diagnosis, Event, Graph, KEEP_MAX, Kind, SETTINGS, Signals, diagnose,
};

use super::score::{Calibration, Hits, rows};
use super::{Doubts, warnings};
use crate::result::{Report, Row};
use crate::stats::Estimate;
use day::{Day, Metric, read};

/// Windows of a fault: one before it, two since.
const WINDOWS: usize = 3;

/// Seconds after the injection that may be looked at.
const AFTER: u64 = 180;

/// What goes into a diagnosis.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    All,
    /// The first minute since the fault passes for normal.
    Late,
    /// Without logs and traces.
    Metrics,
    /// Without metrics.
    Events,
}

impl Day {
    /// The windows of a fault: before it, and since.
    fn of(&self, fault: usize) -> (&str, &[String]) {
        let first = 1 + WINDOWS * fault;
        (
            &self.windows[first],
            &self.windows[first + 1..first + WINDOWS],
        )
    }

    fn diagnose(&self, fault: usize, view: View) -> Result<(Graph, Diagnosis, f64)> {
        let mut graph = Graph::default();
        let services: HashMap<&str, Component> = self
            .services
            .iter()
            .map(|name| Ok((name.as_str(), graph.add(name)?)))
            .collect::<Result<_>>()?;
        let mut signals = Signals::keeping(KEEP_MAX);
        let seen = &self.windows[..1 + WINDOWS * (fault + 1)];
        self.calls(&mut graph, &services, seen)?;
        if view != View::Metrics {
            self.events(&mut signals, &services, fault, view == View::Late);
        }
        let at = self.faults[fault].inject_unix;
        let late = if view == View::Late { 60 } else { 0 };
        for one in self.metrics.iter().filter(|one| one.unix <= at + AFTER) {
            if view == View::Events {
                break;
            }
            let of = services[one.service.as_str()];
            let volume = one.workload_ops.unwrap_or(f32::NAN);
            for (kind, name, value) in [
                (Kind::Resource, "cpu", one.cpu_pct),
                (Kind::Resource, "memory", one.mem_pct),
                (Kind::Latency, "p90", one.server_p90_s),
            ] {
                let series = signals.series(of, kind, name)?;
                let value = value.unwrap_or(f32::NAN);
                signals.push(series, Duration::from_secs(one.unix), value, volume);
            }
        }
        let alarm = Alarm::at(Duration::from_secs(at + late));
        let start = Instant::now();
        let mut diagnosis = diagnose(&graph, &signals, &alarm);
        let took = start.elapsed().as_secs_f64() * 1000.0;
        if self.faults[fault].doubtful {
            diagnosis.doubt();
        }
        Ok((graph, diagnosis, took))
    }

    /// Who calls whom, with shares, as traced so far.
    fn calls(
        &self,
        graph: &mut Graph,
        services: &HashMap<&str, Component>,
        seen: &[String],
    ) -> Result<()> {
        let mut counts: BTreeMap<(Component, Component), f32> = BTreeMap::new();
        let mut called: HashMap<Component, f32> = HashMap::new();
        for edge in seen
            .iter()
            .filter_map(|window| self.edges.get(window))
            .flatten()
        {
            let (from, to) = (
                services[edge.caller.as_str()],
                services[edge.callee.as_str()],
            );
            *counts.entry((from, to)).or_default() += edge.calls as f32;
            *called.entry(to).or_default() += edge.calls as f32;
        }
        for ((from, to), calls) in counts {
            let share = (calls / called[&to]).clamp(0.0, 1.0);
            graph.calls(from, to, share.is_finite().then_some(share))?;
        }
        Ok(())
    }

    fn events(
        &self,
        signals: &mut Signals,
        services: &HashMap<&str, Component>,
        fault: usize,
        late: bool,
    ) {
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut number = |text| {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            Event(*numbers.entry(text).or_insert(next))
        };
        let mut count = |signals: &mut Signals, window: &str| {
            for one in self.bigrams.get(window).into_iter().flatten() {
                let (from, to) = (number(one.event.as_str()), number(one.next_event.as_str()));
                let of = services[one.service.as_str()];
                signals.events.count(of, from, to, one.count);
            }
        };
        let before = (0..=fault).map(|fault| self.of(fault).0);
        for window in self
            .windows
            .first()
            .map(String::as_str)
            .into_iter()
            .chain(before)
            .filter(|window| !window.is_empty())
        {
            count(signals, window);
            signals.events.close(1.0);
        }
        let (_, since) = self.of(fault);
        for (place, window) in since.iter().enumerate() {
            count(signals, window);
            if late && place == 0 {
                signals.events.close(1.0);
            }
        }
    }

    /// The largest deviation of any metric in the minutes since the fault, by median and MAD.
    fn robust_z(&self, fault: usize) -> Vec<(f64, usize)> {
        let at = self.faults[fault].inject_unix;
        self.scores(|service| {
            let mine = self.metrics.iter().filter(|one| one.service == service);
            let mine: Vec<&Metric> = mine.filter(|one| one.unix <= at + AFTER).collect();
            let score = (0..9).map(|of| {
                let series = |since: bool| -> Vec<f64> {
                    let rows = mine.iter().filter(|one| (one.unix >= at) == since);
                    rows.filter_map(|one| one.all()[of].map(f64::from))
                        .collect()
                };
                let (before, after) = (series(false), series(true));
                let Some(middle) = median(&before) else {
                    return 0.0;
                };
                let spread: Vec<f64> = before.iter().map(|one| (one - middle).abs()).collect();
                let sigma = 1.4826 * median(&spread).unwrap_or(0.0);
                let sigma = sigma.max(0.01 * middle.abs()).max(1e-9);
                after
                    .iter()
                    .map(|one| (one - middle).abs() / sigma)
                    .fold(0.0, f64::max)
            });
            score.fold(0.0, f64::max)
        })
    }

    /// The largest change of `P(next | event)` of the three windows against all earlier ones.
    fn event_change(&self, fault: usize) -> Vec<(f64, usize)> {
        type Next<'a> = HashMap<&'a str, [f64; 2]>;
        let mut counts: HashMap<&str, HashMap<&str, Next>> = HashMap::new();
        let first = 1 + WINDOWS * fault;
        for (place, window) in self.windows.iter().enumerate().take(first + WINDOWS) {
            for one in self.bigrams.get(window).into_iter().flatten() {
                let events = counts.entry(&one.service).or_default();
                let next = events.entry(&one.event).or_default();
                next.entry(&one.next_event).or_default()[usize::from(place >= first)] +=
                    f64::from(one.count);
            }
        }
        self.scores(|service| {
            let Some(events) = counts.get(service) else {
                return 0.0;
            };
            let change = events.values().map(|next| {
                let total = |side: usize| next.values().map(|one| one[side]).sum::<f64>();
                let (before, now) = (total(0), total(1));
                if before == 0.0 || now == 0.0 {
                    return 0.0;
                }
                let moved = next
                    .values()
                    .map(|one| (one[0] / before - one[1] / now).abs() / 2.0);
                moved.sum::<f64>() - (next.len() as f64 / (4.0 * now)).sqrt()
            });
            change.fold(0.0, f64::max)
        })
    }

    fn scores(&self, score: impl Fn(&str) -> f64) -> Vec<(f64, usize)> {
        let services = self.services.iter().enumerate();
        let mut all: Vec<(f64, usize)> = services
            .map(|(place, name)| (score(name), place))
            .filter(|(score, _)| *score > 0.0)
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut all = values.to_vec();
    all.retain(|one| one.is_finite());
    all.sort_unstable_by(f64::total_cmp);
    let last = all.len().checked_sub(1)?;
    Some((all[last / 2] + all[last.div_ceil(2)]) / 2.0)
}

/// Published for both TrainTicket days (45 faults, equal scores share a rank): first and first
/// three.
const PUBLISHED: [f64; 2] = [0.867, 0.978];
const GOALS: [f64; 2] = [0.75, 0.95];

/// Runs the protocol on the folder `nezha_trainticket` below `data`.
///
/// # Errors
/// When a file is missing or cannot be understood.
pub fn run(data: &Path, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let mut day = read(&data.join("nezha_trainticket"))?;
    let mut report = Report::new("rca.nezha", &format!("{SETTINGS:?}"));
    let mut doubts = Doubts::default();
    let mut took = Vec::new();
    let mut sure = Calibration::default();
    for (view, id, what) in [
        (View::All, "all", "all evidence"),
        (View::Late, "late", "alarm one minute late"),
        (View::Metrics, "metrics", "metrics alone"),
        (View::Events, "events", "events alone"),
    ] {
        let mut hits = [Hits::default(); 2];
        for (place, fault) in day.faults.iter().enumerate() {
            let (graph, diagnosis, ms) = day.diagnose(place, view)?;
            let mut suspects = diagnosis.suspects.iter();
            let rank = suspects.position(|one| graph.name(one.component) == fault.service);
            hits[0].count(rank);
            if place % 2 == 1 {
                hits[1].count(rank);
            }
            if view == View::All {
                took.push(ms);
                doubts.add(&format!("case {}", fault.case), &graph, &diagnosis);
                let suspects = diagnosis.suspects.iter().zip(0..);
                sure.0.extend(
                    suspects.map(|(one, at)| (f64::from(one.confidence), rank == Some(at))),
                );
            }
        }
        let beside = [0, 1].map(|of| match view {
            View::All => (Some(PUBLISHED[of]), "Nezha, published", Some(GOALS[of])),
            View::Late | View::Metrics | View::Events => {
                (Some(PUBLISHED[of]), "Nezha, published", None)
            }
        });
        rows(
            &mut report,
            &format!("rca.nezha.{id}"),
            what,
            &hits[0],
            3,
            &beside,
        );
        if view == View::All {
            let what = "all evidence, faults with odd numbers";
            rows(&mut report, "rca.nezha.odd", what, &hits[1], 3, &beside);
        }
    }
    let chance = 1.0 / day.services.len() as f64;
    type Scores = fn(&Day, usize) -> Vec<(f64, usize)>;
    for (id, what, scores) in [
        (
            "robust_z",
            "baseline robust z over all metrics",
            Day::robust_z as Scores,
        ),
        (
            "event_change",
            "baseline event-mechanism change (past)",
            Day::event_change,
        ),
    ] {
        let mut hits = Hits::default();
        for (place, fault) in day.faults.iter().enumerate() {
            let mut ranked = scores(&day, place).into_iter();
            hits.count(ranked.position(|(_, of)| day.services[of] == fault.service));
        }
        let beside = [1.0, 3.0].map(|top| (Some(top * chance), "chance", None));
        rows(
            &mut report,
            &format!("rca.nezha.{id}"),
            what,
            &hits,
            3,
            &beside,
        );
    }
    for (name, what, value) in [
        (
            "brier",
            "squared error of the confidence of suspects",
            sure.brier(),
        ),
        (
            "calibration",
            "calibration error of the confidence of suspects",
            sure.error(),
        ),
    ] {
        let estimate = Estimate::exact(value, sure.0.len());
        report.rows.push(Row::new(
            &format!("rca.nezha.{name}"),
            what,
            "ratio",
            estimate,
        ));
    }
    if let Some(p95) = Estimate::quantile(&took, 0.95, seed) {
        let what = "time of a diagnosis of the services, p95";
        report
            .rows
            .push(Row::new("rca.nezha.time", what, "ms", p95).goal(10.0));
    }
    day.notes.extend(doubts.notes());
    report.notes = warnings(day.notes);
    report.finish(begun.elapsed());
    Ok(report)
}

/// The faults with even numbers, in words: thresholds are chosen by these.
///
/// # Errors
/// As [`run`].
pub fn explain(data: &Path) -> Result<String> {
    use std::fmt::Write as _;
    let day = read(&data.join("nezha_trainticket"))?;
    let warnings = warnings(day.notes.clone());
    let mut text: String = warnings.iter().map(|one| format!("{one}\n")).collect();
    for (place, fault) in day.faults.iter().enumerate().step_by(2) {
        let (graph, diagnosis, _) = day.diagnose(place, View::All)?;
        let mut suspects = diagnosis.suspects.iter();
        let rank = suspects.position(|one| graph.name(one.component) == fault.service);
        writeln!(text, "{place} {}: rank {rank:?}", fault.service)?;
        for suspect in diagnosis.suspects.iter().take(4) {
            let name = graph.name(suspect.component);
            writeln!(
                text,
                "  {name}: {:.2} {:.2}",
                suspect.share, suspect.confidence
            )?;
            for evidence in &suspect.evidence {
                writeln!(text, "    {}", evidence.words(&graph))?;
            }
        }
    }
    Ok(text)
}
