//! False alarms on days on which nothing is wrong, and what is seen of faults.
//!
//! The agent's own code for what is usual (`homeostat_agent::detect::usual`) with its default
//! settings, beside a plain one ([`plain`]): each metric's mean and deviation, with the same
//! persistence. Simulated nodes first ([`simulated`]): whole days without a fault, demand with
//! a swing within the day, readings with noise, late and missing as the simulator gives them;
//! then the incidents of the simulator after hours without one. Then recordings of real
//! nodes ([`recording`]), of which nobody knows surely that nothing was wrong.
//!
//! An alarm is what a person is told: one of the node or of one service, however many metrics
//! are unusual at once, as in the agent.

mod plain;
mod recording;
mod simulated;
mod watcher;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use self::simulated::{Day, First, Seen};
use super::progress;
use crate::result::{Report, Row};
use crate::stats::{Estimate, clustered, share};

/// More alarms than this on a day and node, and people stop to look.
const GOAL: f64 = 1.0;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Days without a fault of each topology.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub days: u64,
    /// Length of a day, in hours: less is for trying things out.
    #[arg(long, default_value_t = 24.0)]
    pub hours: f64,
    /// Topologies of the simulator.
    #[arg(long, value_delimiter = ',', default_value = "reference,kiosk,plant")]
    pub topologies: Vec<String>,
    /// How far demand swings within a day.
    #[arg(long, default_value_t = 0.4)]
    pub swing: f64,
    /// Seeds of each incident of the reference; 0 for no incidents.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub incidents: u64,
    /// A recording of a real node: CSV, first column seconds since boot, one metric in each
    /// other, empty where there was none.
    #[arg(long, value_name = "FILE")]
    pub recording: Vec<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When a topology or a recording does not read, or somebody stops it.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let mut report = Report::new("quiet-day", &format!("{args:?} seed {seed}"));
    let mut days = Vec::new();
    for name in &args.topologies {
        for day in 0..args.days {
            let of = simulated::day(name, args.swing, args.hours, seed + day)?;
            progress(&format!(
                "{name}, seed {}: {} nodes, {} alarms, plain {}",
                seed + day,
                of.nodes.len(),
                of.nodes.iter().map(|node| node.ours.len()).sum::<usize>(),
                of.nodes.iter().map(|node| node.plain).sum::<usize>()
            ));
            for node in &of.nodes {
                for alarm in &node.ours {
                    progress(&format!("  {}: {alarm}", node.name));
                }
            }
            days.push(of);
        }
    }
    if !days.is_empty() {
        quiet_rows(&days, &mut report);
    }
    if args.incidents > 0 {
        let seen = simulated::incidents(args.swing, args.incidents, seed)?;
        fault_rows(&seen, seed, &mut report);
    }
    for file in &args.recording {
        let replayed = recording::replay(file)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        progress(&format!(
            "{name}: {:.2} h, {} metrics, {} rows not understood",
            replayed.hours, replayed.metrics, replayed.strange
        ));
        for alarm in &replayed.ours {
            progress(&format!("  {alarm}"));
        }
        let days = replayed.hours / 24.0;
        let ours = per_day(replayed.ours.len(), days, 1);
        let plain = per_day(replayed.plain, days, 1).value;
        report.rows.push(
            Row::new(
                "quiet-day.recording",
                &format!("alarms, {name}, {:.1} h", replayed.hours),
                "1/day",
                ours,
            )
            .against(Some(plain), "mean and deviation")
            .goal(GOAL),
        );
    }
    report.finish(begun.elapsed());
    Ok(report)
}

fn quiet_rows(days: &[Day], report: &mut Report) {
    let nodes = || days.iter().flat_map(|day| &day.nodes);
    let whole: f64 = days
        .iter()
        .map(|day| day.hours / 24.0 * day.nodes.len() as f64)
        .sum();
    let (mut ours, mut early, mut plain, mut metrics) = (0, 0, 0, 0);
    for node in nodes() {
        ours += node.ours.len();
        early += node.ours.iter().filter(|one| one.at_s < 3600.0).count();
        plain += node.plain;
        metrics += node.metrics;
    }
    let count = nodes().count();
    let other = "mean and deviation, same persistence";
    let rate = |alarms: usize| per_day(alarms, whole, count);
    report.rows.push(
        Row::new(
            "quiet-day.false_alarms",
            "false alarms of a simulated node",
            "1/day",
            rate(ours),
        )
        .against(Some(rate(plain).value), other)
        .goal(GOAL),
    );
    let share_early = Estimate::exact(early as f64, count);
    report.rows.push(Row::new(
        "quiet-day.first_hour",
        "of these in the first hour, while banks learn",
        "count",
        share_early,
    ));
    let worst = nodes().map(|node| node.ours.len()).max().unwrap_or(0);
    report.rows.push(Row::new(
        "quiet-day.worst",
        "most of one node on one day",
        "count",
        Estimate::exact(worst as f64, count),
    ));
    report.rows.push(Row::new(
        "quiet-day.metrics",
        "metrics watched on a node, mean",
        "count",
        Estimate::exact(metrics as f64 / count.max(1) as f64, count),
    ));
}

fn fault_rows(seen: &Seen, seed: u64, report: &mut Report) {
    // Seeds of one incident are alike, so they are resampled together.
    let found = |which: usize| {
        let hits = |of: &Vec<First>| of.iter().map(|first| first[which].is_some()).collect();
        let groups: Vec<Vec<bool>> = seen.incidents.values().map(hits).collect();
        let share =
            |drawn: &[&bool]| drawn.iter().filter(|hit| ***hit).count() as f64 / drawn.len() as f64;
        clustered(&groups, share, seed).unwrap_or(Estimate::exact(f64::NAN, 0))
    };
    let other = "mean and deviation";
    report.rows.push(
        Row::new(
            "quiet-day.recall",
            "incidents with an alarm within 300 s",
            "share",
            found(0),
        )
        .higher()
        .against(Some(found(1).value), other),
    );
    let calm = |which: usize| {
        let hits = seen.calm.iter().filter(|first| first[which].is_some());
        share(hits.count(), seen.calm.len())
    };
    report.rows.push(
        Row::new(
            "quiet-day.recall.chance",
            "the same time without an incident, once a seed",
            "share",
            calm(0),
        )
        .against(Some(calm(1).value), other),
    );
    let delays = |which: usize| -> Vec<f64> {
        let all = seen.incidents.values().flatten();
        all.filter_map(|first| first[which]).collect()
    };
    if let Some(delay) = Estimate::quantile(&delays(0), 0.5, seed) {
        let plain = Estimate::quantile(&delays(1), 0.5, seed).map(|one| one.value);
        report.rows.push(
            Row::new(
                "quiet-day.delay",
                "from onset to the alarm, median of those seen",
                "s",
                delay,
            )
            .against(plain, other),
        );
    }
}

/// Events of some days as a rate, with the exact interval of a Poisson count (Garwood 1936).
fn per_day(events: usize, days: f64, n: usize) -> Estimate {
    let days = days.max(f64::MIN_POSITIVE);
    // The mean at which so many or fewer events have this probability.
    let mean_at = |events: usize, probability: f64| {
        let (mut low, mut high) = (0.0_f64, 10.0 + 4.0 * events as f64);
        for _ in 0..100 {
            let middle = f64::midpoint(low, high);
            if at_most(events, middle) > probability {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    };
    let low = match events.checked_sub(1) {
        Some(fewer) => mean_at(fewer, 0.975),
        None => 0.0,
    };
    Estimate {
        value: events as f64 / days,
        low: low / days,
        high: mean_at(events, 0.025) / days,
        n,
    }
}

/// Probability of at most so many events of a Poisson count.
fn at_most(events: usize, mean: f64) -> f64 {
    let mut log = -mean;
    let mut sum = log.exp();
    for k in 1..=events {
        log += (mean / k as f64).ln();
        sum += log.exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_of_one_incident_and_calm_hours_count_for_what_they_are() {
        // Twenty incidents, each the same for all of five seeds; calm once a seed.
        let first = |hit: bool| [hit.then_some(6.0), None];
        let incidents = (0..20).map(|at| (format!("i-{at}"), vec![first(at % 2 == 0); 5]));
        let seen = Seen {
            incidents: incidents.collect(),
            calm: vec![[None, None]; 5],
        };
        let mut report = Report::new("test", "");
        fault_rows(&seen, 1, &mut report);
        let row = |id: &str| report.rows.iter().find(|row| row.id == id).unwrap();
        let recall = row("quiet-day.recall");
        assert_eq!(
            (recall.ours, recall.n, recall.reference),
            (0.5, 100, Some(0.0))
        );
        // As wide as of 20, not of 100: 1.96 * sqrt(.25 / 20) is .22 either way.
        assert!(recall.high - recall.low > 0.35, "{recall:?}");
        assert_eq!(row("quiet-day.recall.chance").n, 5);
        assert_eq!(row("quiet-day.delay").ours, 6.0);
    }

    #[test]
    fn the_interval_of_a_count_is_that_of_the_tables() {
        // Garwood's table: 0 events (0, 3.689), 5 events (1.623, 11.668).
        let none = per_day(0, 1.0, 1);
        assert!(
            none.low == 0.0 && (none.high - 3.689).abs() < 0.001,
            "{none:?}"
        );
        let five = per_day(5, 2.0, 1);
        assert!((five.value - 2.5).abs() < 1e-12);
        assert!((five.low * 2.0 - 1.623).abs() < 0.001, "{five:?}");
        assert!((five.high * 2.0 - 11.668).abs() < 0.001, "{five:?}");
    }
}
