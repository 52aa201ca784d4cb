//! Telemetry of a satellite with labelled intervals (SMAP; Hundman et al., KDD 2018).
//!
//! Layout: `smap/train/CHANNEL.csv.gz` and `smap/test/CHANNEL.csv.gz` with the column
//! `telemetry`, and `smap/labels.csv` with `channel,start,end_inclusive`. Each channel is learnt
//! from its training file, which has no labels, and scored row by row. The 24 command flags are
//! not read: telemetry alone is enough for the goals, and a node has no such flags.
//!
//! Not reported is point adjustment: a random score has a point-adjusted F1 of .96 here.

mod baseline;
mod score;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use homeostat_detect::shape::{self, Shape};

use crate::recording;
use crate::result::{Report, Row};
use crate::stats::{Estimate, clustered};
use score::{Found, vus_pr};

/// Values that are learnt from: more than the longest training file has.
const SERIES: usize = 3072;

/// Differences that never matter; the source scales telemetry to `-1..=1`.
const LEAST: f32 = 0.02;

/// Times the channels are split into halves that choose the settings for each other.
const SPLITS: usize = 10;

/// One channel.
struct Channel {
    name: String,
    training: Vec<f32>,
    judged: Vec<f32>,
    anomaly: Vec<bool>,
}

/// A score for each judged row, and whether it alarms.
struct Scored {
    scores: Vec<f32>,
    alarms: Vec<bool>,
}

/// Runs the protocol on the recordings in `data/smap`.
///
/// # Errors
/// When a file is missing or cannot be understood.
pub fn run(data: &Path, seed: u64) -> Result<Report> {
    let start = Instant::now();
    let channels = load(&data.join("smap"))?;
    let mut report = Report::new("detect.smap", &format!("{:?} {LEAST}", shape::SETTINGS));
    let ours: Vec<Scored> = channels
        .iter()
        .map(|one| ours(one, &shape::SETTINGS))
        .collect();
    judge(&channels, &ours, seed, &mut report.rows);
    halves(&channels, seed, &mut report.rows);
    baselines(&channels, seed, &mut report.rows);
    report.finish(start.elapsed());
    Ok(report)
}

fn load(folder: &Path) -> Result<Vec<Channel>> {
    let labels = folder.join("labels.csv");
    let text = recording::text(&labels)?;
    let mut intervals: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
    for record in csv::Reader::from_reader(text.as_bytes()).records() {
        let name = || format!("in {}", labels.display());
        let record = record.with_context(name)?;
        let number = |at: usize| record.get(at).unwrap_or_default().parse::<usize>();
        let interval = (number(1).with_context(name)?, number(2).with_context(name)?);
        let channel = record.get(0).unwrap_or_default().to_owned();
        intervals.entry(channel).or_default().push(interval);
    }
    let mut channels = Vec::new();
    for (name, intervals) in intervals {
        let telemetry = |part: &str| telemetry(&folder.join(format!("{part}/{name}.csv.gz")));
        let (training, judged) = (telemetry("train")?, telemetry("test")?);
        let mut anomaly = vec![false; judged.len()];
        for (start, end) in intervals {
            let rows = anomaly.get_mut(start..=end);
            rows.with_context(|| format!("interval {start}-{end} outside of {name}"))?
                .fill(true);
        }
        channels.push(Channel {
            name,
            training,
            judged,
            anomaly,
        });
    }
    ensure!(!channels.is_empty(), "no channel in {}", labels.display());
    Ok(channels)
}

fn telemetry(file: &Path) -> Result<Vec<f32>> {
    let text = recording::text(file)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let at = reader
        .headers()?
        .iter()
        .position(|name| name == "telemetry");
    let at = at.with_context(|| format!("no column telemetry in {}", file.display()))?;
    let value = |record: csv::StringRecord| {
        // A value that is no number is one that did not come.
        record
            .get(at)
            .and_then(|text| text.parse().ok())
            .unwrap_or(f32::NAN)
    };
    let values = reader.records().map(|record| Ok(value(record?)));
    let values: Vec<f32> = values
        .collect::<Result<_, csv::Error>>()
        .with_context(|| format!("in {}", file.display()))?;
    ensure!(!values.is_empty(), "no rows in {}", file.display());
    Ok(values)
}

/// Ours; a channel with too short a training part is never alarmed.
fn ours(channel: &Channel, settings: &shape::Settings) -> Scored {
    let shape = Shape::<SERIES>::learn_with(&channel.training, LEAST, settings);
    let (scores, alarms) = match shape {
        Some(mut shape) => {
            let verdicts = channel.judged.iter().map(|value| shape.observe(*value));
            verdicts
                .map(|verdict| (verdict.score, verdict.alert))
                .unzip()
        }
        None => channel.judged.iter().map(|_| (0.0, false)).unzip(),
    };
    Scored { scores, alarms }
}

/// A figure of channels that were drawn.
type Statistic<'a> = &'a dyn Fn(&[&(f64, Found)]) -> f64;

fn judge(channels: &[Channel], ours: &[Scored], seed: u64, rows: &mut Vec<Row>) {
    let mut groups = Vec::new();
    for (channel, scored) in channels.iter().zip(ours) {
        let vus = vus_pr(&scored.scores, &channel.anomaly);
        let found = Found::of(&scored.alarms, &channel.anomaly);
        println!("{:<5} VUS-PR {vus:.2}, {}", channel.name, found.words());
        groups.push(vec![(vus, found)]);
    }
    let estimate =
        |of: Statistic<'_>| clustered(&groups, of, seed).unwrap_or(Estimate::exact(f64::NAN, 0));
    let mean = |drawn: &[&(f64, Found)]| {
        drawn.iter().map(|(vus, _)| vus).sum::<f64>() / drawn.len() as f64
    };
    let sum = |drawn: &[&(f64, Found)]| Found::sum(drawn.iter().map(|(_, found)| found));
    let row = |id: &str, what: &str, estimate| {
        Row::new(&format!("smap.{id}"), what, "ratio", estimate).higher()
    };
    rows.push(
        row("vus", "VUS-PR, mean of channels", estimate(&mean))
            .against(Some(0.472), "nearest training window")
            .goal(0.55),
    );
    rows.push(
        row(
            "fc1",
            "point precision with interval recall",
            estimate(&|d| sum(d).fc1()),
        )
        .against(Some(0.517), "mean squared z")
        .goal(0.62),
    );
    rows.push(
        row("f1", "plain point F1", estimate(&|d| sum(d).f1()))
            .against(Some(0.417), "nearest training window"),
    );
    rows.push(row(
        "precision",
        "point precision",
        estimate(&|d| sum(d).precision()),
    ));
    rows.push(row(
        "recall",
        "share of intervals found",
        estimate(&|d| sum(d).recall()),
    ));
}

/// The settings that one half of the channels likes best, on the other half, both ways round.
fn halves(channels: &[Channel], seed: u64, rows: &mut Vec<Row>) {
    let mut settings = Vec::new();
    for pace in [0.1, 0.05] {
        for adapt in [0.0005, 0.001] {
            for above in [1.3, 2.0] {
                settings.push(shape::Settings {
                    pace,
                    adapt,
                    above,
                    ..shape::SETTINGS
                });
            }
        }
    }
    // One score serves all thresholds of it.
    let all: Vec<Vec<(f64, Found)>> = settings
        .iter()
        .map(|settings| {
            let score = |channel: &Channel| {
                let scored = ours(channel, settings);
                let vus = vus_pr(&scored.scores, &channel.anomaly);
                (vus, Found::of(&scored.alarms, &channel.anomaly))
            };
            channels.iter().map(score).collect()
        })
        .collect();
    let vus = |of: &[(f64, Found)], these: &[usize]| {
        these.iter().map(|at| of[*at].0).sum::<f64>() / these.len().max(1) as f64
    };
    let found =
        |of: &[(f64, Found)], these: &[usize]| Found::sum(these.iter().map(|at| &of[*at].1));
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut order: Vec<usize> = (0..channels.len()).collect();
    let (mut vuses, mut fc1s) = (Vec::new(), Vec::new());
    for _ in 0..SPLITS {
        rng.shuffle(&mut order);
        let (one, other) = order.split_at(order.len() / 2);
        let (mut sum, mut founds) = (0.0, Vec::new());
        for (choose, score) in [(one, other), (other, one)] {
            // One configuration for both figures.
            let worth = |of: &&Vec<(f64, Found)>| vus(of, choose) + found(of, choose).fc1();
            let best = all.iter().max_by(|a, b| worth(a).total_cmp(&worth(b)));
            let Some(best) = best else { continue };
            sum += vus(best, score) * score.len() as f64;
            founds.push(found(best, score));
        }
        vuses.push(sum / channels.len() as f64);
        fc1s.push(Found::sum(&founds).fc1());
    }
    for (id, what, mut values) in [("vus", "VUS-PR", vuses), ("fc1", "Fc1", fc1s)] {
        values.sort_by(f64::total_cmp);
        let estimate = Estimate {
            value: values.iter().sum::<f64>() / values.len() as f64,
            low: values[0],
            high: values[values.len() - 1],
            n: SPLITS,
        };
        let what = format!(
            "settings chosen on the other half of the channels: {what}, mean and range of splits"
        );
        rows.push(Row::new(&format!("smap.halves.{id}"), &what, "ratio", estimate).higher());
    }
}

fn baselines(channels: &[Channel], seed: u64, rows: &mut Vec<Row>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let random = channels.iter().map(|channel| {
        let scores: Vec<f32> = channel.judged.iter().map(|_| rng.f32()).collect();
        let alarms = scores.iter().map(|score| *score > 0.5).collect();
        Scored { scores, alarms }
    });
    let random: Vec<Scored> = random.collect();
    let ones = channels.iter().map(|channel| Scored {
        scores: vec![1.0; channel.judged.len()],
        alarms: vec![true; channel.judged.len()],
    });
    let ones: Vec<Scored> = ones.collect();
    // Alarms beyond the largest score that the training part has.
    let of = |score: fn(&[f32], &[f32]) -> Vec<f32>| {
        let each = channels.iter().map(|channel| {
            let usual = score(&channel.training, &channel.training);
            let limit = usual.into_iter().fold(0.0, f32::max);
            let scores = score(&channel.training, &channel.judged);
            let alarms = scores.iter().map(|score| *score > limit).collect();
            Scored { scores, alarms }
        });
        each.collect::<Vec<Scored>>()
    };
    let all = [
        ("random", "random", random),
        ("ones", "all rows alarmed", ones),
        (
            "mean",
            "distance from the training mean",
            of(baseline::from_mean),
        ),
        (
            "ar",
            "AR(16) residual, mean of 20",
            of(baseline::autoregression),
        ),
        (
            "window",
            "nearest training window of 32",
            of(baseline::nearest_window),
        ),
    ];
    for (id, what, scored) in all {
        let pairs = || channels.iter().zip(&scored);
        let vus = pairs().map(|(channel, one)| vus_pr(&one.scores, &channel.anomaly));
        let vus = vus.sum::<f64>() / channels.len() as f64;
        let found = pairs().map(|(channel, one)| Found::of(&one.alarms, &channel.anomaly));
        let found = Found::sum(&found.collect::<Vec<_>>());
        for (kind, value) in [("VUS-PR", vus), ("Fc1", found.fc1()), ("F1", found.f1())] {
            let id = format!(
                "smap.baseline.{id}.{}",
                kind.to_lowercase().replace("-pr", "")
            );
            let estimate = Estimate::exact(value, channels.len());
            rows.push(Row::new(&id, &format!("{what}: {kind}"), "ratio", estimate).higher());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::tests::write;
    use std::fmt::Write as _;

    #[test]
    fn a_made_up_set_is_solved_and_scored_beside_its_baselines() {
        let folder = tempfile::tempdir().unwrap();
        let wave = |at: usize| (at as f32 / 5.0).sin();
        let mut labels = "channel,start,end_inclusive,class\n".to_owned();
        for (name, fault) in [("A-1", 500..580), ("B-2", 300..360)] {
            let mut rng = fastrand::Rng::with_seed(1);
            for (part, n) in [("train", 600), ("test", 900)] {
                let mut text = "telemetry,cmd01\n".to_owned();
                for at in 0..n {
                    let still = part == "test" && fault.contains(&at);
                    let value = if still { 0.2 } else { wave(at) } + 0.02 * rng.f32();
                    writeln!(text, "{value},0").unwrap();
                }
                write(
                    &folder.path().join(format!("smap/{part}/{name}.csv.gz")),
                    &text,
                );
            }
            writeln!(labels, "{name},{},{},point", fault.start, fault.end - 1).unwrap();
        }
        std::fs::write(folder.path().join("smap/labels.csv"), labels).unwrap();
        let report = run(folder.path(), 1).unwrap();
        let value = |id: &str| report.rows.iter().find(|row| row.id == id).unwrap().ours;
        assert!(value("smap.vus") > 0.7, "{}", report.table());
        assert_eq!(value("smap.recall"), 1.0, "{}", report.table());
        assert!(value("smap.fc1") > 0.6, "{}", report.table());
        assert!(
            value("smap.baseline.random.vus") < 0.3,
            "{}",
            report.table()
        );
        assert!(
            value("smap.baseline.window.vus") > 0.5,
            "{}",
            report.table()
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("smap")).unwrap();
        let labels = "channel,start,end_inclusive\nX-1,1,2\n";
        std::fs::write(folder.path().join("smap/labels.csv"), labels).unwrap();
        let error = format!("{:#}", run(folder.path(), 1).err().unwrap());
        assert!(error.contains("train/X-1.csv.gz"), "{error}");
    }
}
