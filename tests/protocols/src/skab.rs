//! One-fault recordings of a water-circulation test bed (SKAB; Katser and Kozitsin 2020,
//! doi 10.34740/KAGGLE/DSV/1693952), 8 sensors at 1 Hz.
//!
//! Layout: `skab/FOLDER/NAME.csv.gz`, separated by `;`; files without the columns `anomaly` and
//! `changepoint` (the healthy recording) are left out. The first 400 rows of a file are learnt
//! from, without labels; the rest is judged. Outliers: counts are pooled over the files.
//! Change points: see [`changes`].
//!
//! Every file has its fault at nearly the same rows, so a detector that knows the row number
//! beats all published ones without looking at a sensor (it is among the rows). Ours do not
//! know it; as a proof, a random number of training rows is repeated in front of the judged
//! part, and the report says how far the F1 moves.

mod baseline;
mod changes;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use homeostat_detect::change::Change;
use homeostat_detect::joint::{self, Joint};

use crate::recording;
use crate::result::{Report, Row};
use crate::stats::{Estimate, clustered};

/// Sensors of a row.
const SENSORS: usize = 8;

/// Rows that are learnt from.
const TRAINING: usize = 400;

/// Times the shift is drawn anew.
const SHIFTS: usize = 5;

/// Times the files are split into halves that choose the settings for each other.
const SPLITS: usize = 10;

/// The false alarm rate the goal allows.
const FAR_MAX: f64 = 0.12;

/// One file.
struct Recording {
    name: String,
    rows: Vec<[f32; SENSORS]>,
    /// Of the judged rows.
    anomaly: Vec<bool>,
    /// Judged rows at which something changes.
    changes: Vec<usize>,
}

impl Recording {
    fn training(&self) -> &[[f32; SENSORS]] {
        &self.rows[..TRAINING]
    }

    fn judged(&self) -> &[[f32; SENSORS]] {
        &self.rows[TRAINING..]
    }
}

/// What came of the judged rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    hits: usize,
    false_alarms: usize,
    misses: usize,
    quiet: usize,
}

impl Counts {
    fn of(alarms: &[bool], anomaly: &[bool]) -> Self {
        let mut counts = Self::default();
        for pair in alarms.iter().zip(anomaly) {
            *match pair {
                (true, true) => &mut counts.hits,
                (true, false) => &mut counts.false_alarms,
                (false, true) => &mut counts.misses,
                (false, false) => &mut counts.quiet,
            } += 1;
        }
        counts
    }

    fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        all.into_iter().fold(Self::default(), |sum, one| Self {
            hits: sum.hits + one.hits,
            false_alarms: sum.false_alarms + one.false_alarms,
            misses: sum.misses + one.misses,
            quiet: sum.quiet + one.quiet,
        })
    }

    fn f1(&self) -> f64 {
        let hits = 2.0 * self.hits as f64;
        hits / (hits + (self.false_alarms + self.misses) as f64)
    }

    fn far(&self) -> f64 {
        self.false_alarms as f64 / (self.false_alarms + self.quiet) as f64
    }

    fn mar(&self) -> f64 {
        self.misses as f64 / (self.hits + self.misses) as f64
    }
}

/// Runs the protocol on the recordings in `data/skab`.
///
/// # Errors
/// When a file is missing or cannot be understood.
pub fn run(data: &Path, seed: u64) -> Result<Report> {
    let start = Instant::now();
    let recordings = load(&data.join("skab"))?;
    let mut report = Report::new("detect.skab", &format!("{:?}", joint::SETTINGS));
    outliers(&recordings, seed, &mut report.rows);
    changes::rows(&recordings, seed, &mut report.rows);
    report.finish(start.elapsed());
    Ok(report)
}

fn load(folder: &Path) -> Result<Vec<Recording>> {
    let mut recordings = Vec::new();
    for file in recording::files(folder)? {
        let name = || format!("in {}", file.display());
        let text = recording::text(&file)?;
        if let Some(recording) = parse(&text).with_context(name)? {
            let name = file.strip_prefix(folder).unwrap_or(&file);
            let name = name.display().to_string();
            recordings.push(Recording { name, ..recording });
        }
    }
    ensure!(
        !recordings.is_empty(),
        "no recording with labels in {}",
        folder.display()
    );
    Ok(recordings)
}

/// A recording; `None` if it has no labels.
fn parse(text: &str) -> Result<Option<Recording>> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(b';')
        .from_reader(text.as_bytes());
    let headers = reader.headers()?.clone();
    let column = |name: &str| headers.iter().position(|header| header == name);
    let (Some(anomaly_at), Some(change_at)) = (column("anomaly"), column("changepoint")) else {
        return Ok(None);
    };
    let is_sensor = |at: &usize| *at != anomaly_at && *at != change_at;
    let sensors: Vec<usize> = (1..headers.len()).filter(is_sensor).collect();
    ensure!(
        sensors.len() == SENSORS,
        "{} sensors instead of {SENSORS}",
        sensors.len()
    );
    let (mut rows, mut anomaly, mut changes) = (Vec::new(), Vec::new(), Vec::new());
    for (at, record) in reader.records().enumerate() {
        let record = record?;
        let field = |at: usize| record.get(at).unwrap_or_default().trim();
        // A value that is no number is one that did not come.
        let value = |at: &usize| field(*at).parse().unwrap_or(f32::NAN);
        let flag = |at: usize| {
            let value: f64 = field(at).parse()?;
            Ok::<_, std::num::ParseFloatError>(value > 0.5)
        };
        let mut row = [f32::NAN; SENSORS];
        row.iter_mut()
            .zip(&sensors)
            .for_each(|(to, at)| *to = value(at));
        rows.push(row);
        if at >= TRAINING {
            anomaly.push(flag(anomaly_at).with_context(|| format!("row {at}"))?);
            if flag(change_at).with_context(|| format!("row {at}"))? {
                changes.push(at - TRAINING);
            }
        }
    }
    ensure!(rows.len() > TRAINING, "only {} rows", rows.len());
    Ok(Some(Recording {
        name: String::new(),
        rows,
        anomaly,
        changes,
    }))
}

/// Our alarms for the judged rows, `shift` training rows repeated in front of them.
fn alarms(recording: &Recording, settings: &joint::Settings, shift: usize) -> Vec<bool> {
    let training = recording.training();
    let Some(mut joint) = Joint::learn_with(training, settings) else {
        return vec![false; recording.judged().len()];
    };
    for row in training.iter().chain(&training[TRAINING - shift..]) {
        joint.observe(row);
    }
    let judged = recording.judged().iter();
    judged.map(|row| joint.observe(row).alert).collect()
}

fn count(recordings: &[Recording], settings: &joint::Settings) -> Vec<Counts> {
    let count = |one: &Recording| Counts::of(&alarms(one, settings, 0), &one.anomaly);
    recordings.iter().map(count).collect()
}

fn outliers(recordings: &[Recording], seed: u64, rows: &mut Vec<Row>) {
    let ours = count(recordings, &joint::SETTINGS);
    let pooled = Counts::sum(&ours);
    for (recording, counts) in recordings.iter().zip(&ours) {
        println!(
            "{:<20} F1 {:.2}, false alarms {:.2}, missed {:.2}",
            recording.name,
            counts.f1(),
            counts.far(),
            counts.mar()
        );
    }
    let groups: Vec<Vec<Counts>> = ours.iter().map(|counts| vec![*counts]).collect();
    let estimate = |what: fn(&Counts) -> f64| {
        let of = |drawn: &[&Counts]| what(&Counts::sum(drawn.iter().copied()));
        clustered(&groups, of, seed).unwrap_or(Estimate::exact(f64::NAN, 0))
    };
    rows.push(
        Row::new(
            "skab.outlier.f1",
            "outliers, F1",
            "ratio",
            estimate(Counts::f1),
        )
        .higher()
        .against(Some(0.78), "Conv-AE, published")
        .goal(0.86),
    );
    rows.push(
        Row::new(
            "skab.outlier.far",
            "share of healthy rows alarmed",
            "ratio",
            estimate(Counts::far),
        )
        .against(Some(0.1355), "Conv-AE, published")
        .goal(FAR_MAX),
    );
    rows.push(
        Row::new(
            "skab.outlier.mar",
            "share of anomalous rows missed",
            "ratio",
            estimate(Counts::mar),
        )
        .against(Some(0.2802), "Conv-AE, published"),
    );
    rows.push(shifted(recordings, pooled.f1(), seed));
    halves(recordings, seed, rows);
    let n = recordings.len();
    let mut baseline = |id: &str, what: &str, counts: Counts, published: Option<f64>| {
        for (kind, value) in [
            ("f1", counts.f1()),
            ("far", counts.far()),
            ("mar", counts.mar()),
        ] {
            let row = Row::new(
                &format!("skab.baseline.{id}.{kind}"),
                &format!("{what}: {}", kind.to_uppercase()),
                "ratio",
                Estimate::exact(value, n),
            );
            let row = if kind == "f1" { row.higher() } else { row };
            rows.push(match published.filter(|_| kind == "f1") {
                Some(published) => row.against(Some(published), "published"),
                None => row,
            });
        }
    };
    let each = |alarms: &dyn Fn(&Recording) -> Vec<bool>| {
        Counts::sum(
            &recordings
                .iter()
                .map(|one| Counts::of(&alarms(one), &one.anomaly))
                .collect::<Vec<_>>(),
        )
    };
    let mut rng = fastrand::Rng::with_seed(seed);
    let coins = recordings.iter().map(|one| {
        let coins: Vec<bool> = one.anomaly.iter().map(|_| rng.bool()).collect();
        Counts::of(&coins, &one.anomaly)
    });
    baseline(
        "random",
        "every row by a coin",
        Counts::sum(&coins.collect::<Vec<_>>()),
        None,
    );
    let always = each(&|one| vec![true; one.anomaly.len()]);
    baseline("always", "every row alarmed", always, None);
    let leak = each(&|one| {
        (0..one.anomaly.len())
            .map(|at| (160..=575).contains(&at))
            .collect()
    });
    baseline(
        "position",
        "no sensor, alarm from row 560 to 975",
        leak,
        None,
    );
    baseline("t2", "T2 of all sensors", each(&baseline::t2), Some(0.66));
    baseline("t2q", "T2 + Q", each(&baseline::t2_or_q), Some(0.76));
    let near = each(&|one| baseline::mean_of_five(one, &[0, 1, 2, 3, 4, 5, 6, 7]));
    baseline("mahalanobis", "distance of 5 s means", near, None);
    let near = each(&|one| baseline::mean_of_five(one, &[0, 1, 2, 3, 6, 7]));
    baseline(
        "mahalanobis6",
        "the same, without temperatures by hand",
        near,
        None,
    );
}

/// The largest change of the F1 when training rows are repeated before the judged ones.
fn shifted(recordings: &[Recording], f1: f64, seed: u64) -> Row {
    let mut rng = fastrand::Rng::with_seed(seed);
    let moved = (0..SHIFTS).map(|_| {
        let counts = recordings.iter().map(|one| {
            let shift = rng.usize(1..=TRAINING);
            Counts::of(&alarms(one, &joint::SETTINGS, shift), &one.anomaly)
        });
        (Counts::sum(&counts.collect::<Vec<_>>()).f1() - f1).abs()
    });
    let most = moved.fold(0.0, f64::max);
    Row::new(
        "skab.outlier.shift",
        "largest change of the F1 by 1-400 repeated training rows",
        "ratio",
        Estimate::exact(most, SHIFTS),
    )
}

/// The settings that one half of the files likes best, on the other half, both ways round.
fn halves(recordings: &[Recording], seed: u64, rows: &mut Vec<Row>) {
    let mut settings = Vec::new();
    for alert in [2.5, 3.0, 3.5, 4.0, 5.0] {
        for relief in [0.1, 0.15, 0.25] {
            for wander in [0.1, 0.3, 1.0] {
                for hold in [10, 20, 40] {
                    settings.push(joint::Settings {
                        alert,
                        relief,
                        wander,
                        hold,
                        ..joint::SETTINGS
                    });
                }
            }
        }
    }
    let counts: Vec<_> = settings.iter().map(|one| count(recordings, one)).collect();
    let best = |files: &[usize]| {
        let score = |counts: &&Vec<Counts>| {
            let pooled = Counts::sum(files.iter().map(|file| &counts[*file]));
            if pooled.far() <= FAR_MAX {
                pooled.f1()
            } else {
                0.0
            }
        };
        counts.iter().max_by(|a, b| score(a).total_cmp(&score(b)))
    };
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut files: Vec<usize> = (0..recordings.len()).collect();
    let mut scores = Vec::new();
    for _ in 0..SPLITS {
        rng.shuffle(&mut files);
        let (one, other) = files.split_at(files.len() / 2);
        let scored = [(one, other), (other, one)]
            .into_iter()
            .filter_map(|(choose, score)| {
                let counts = best(choose)?;
                Some(Counts::sum(score.iter().map(|file| &counts[*file])))
            });
        scores.push(Counts::sum(&scored.collect::<Vec<_>>()));
    }
    let mut row = |id: &str, what: &str, of: fn(&Counts) -> f64| {
        let mut values: Vec<f64> = scores.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let estimate = Estimate {
            value: values.iter().sum::<f64>() / values.len() as f64,
            low: values[0],
            high: values[values.len() - 1],
            n: SPLITS,
        };
        let what = format!("settings chosen on the other half of the files: {what}");
        rows.push(Row::new(id, &what, "ratio", estimate));
    };
    row(
        "skab.outlier.halves.f1",
        "F1, mean and range of splits",
        Counts::f1,
    );
    row("skab.outlier.halves.far", "false alarms", Counts::far);
    for row in rows
        .iter_mut()
        .filter(|row| row.id == "skab.outlier.halves.f1")
    {
        *row = row.clone().higher();
    }
}

/// The judged rows at which ours tells a change.
fn told(recording: &Recording) -> Vec<usize> {
    let training = recording.training();
    let Some(mut change) = Change::learn(training) else {
        return Vec::new();
    };
    for row in training {
        change.observe(row);
    }
    let judged = recording.judged().iter().enumerate();
    let told = judged.filter_map(|(at, row)| change.observe(row).map(|_| at));
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::tests::write;

    /// Two files in the layout of the set: the flow falls in the middle of the judged part.
    fn made_up(folder: &Path) {
        let mut rng = fastrand::Rng::with_seed(3);
        for (name, from, to) in [("valve1/0", 500, 620), ("other/1", 560, 700)] {
            let mut text = "datetime;A;B;C;P;T1;T2;V;F;anomaly;changepoint\n".to_owned();
            for at in 0..800 {
                let fault = (from..to).contains(&at);
                let flow = 32.0 + rng.f32() - if fault { 4.0 } else { 0.0 };
                let mut noise = || rng.f32() - 0.5;
                let values = [
                    noise(),
                    noise(),
                    noise(),
                    noise(),
                    noise(),
                    noise(),
                    noise(),
                ];
                let values: Vec<String> = values.iter().map(f32::to_string).collect();
                let change = at == from || at == to;
                text += &format!(
                    "2020-03-09 10:00:00;{};{flow};{:.1};{:.1}\n",
                    values.join(";"),
                    f32::from(u8::from(fault)),
                    f32::from(u8::from(change)),
                );
            }
            write(&folder.join(format!("skab/{name}.csv.gz")), &text);
        }
        let healthy = "datetime;A;B;C;P;T1;T2;V;F\n2020-02-08;1;2;3;4;5;6;7;8\n";
        write(
            &folder.join("skab/anomaly-free/anomaly-free.csv.gz"),
            healthy,
        );
    }

    #[test]
    fn a_made_up_set_is_solved_and_repeated_rows_do_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        made_up(folder.path());
        let report = run(folder.path(), 1).unwrap();
        let value = |id: &str| report.rows.iter().find(|row| row.id == id).unwrap().ours;
        assert!(value("skab.outlier.f1") > 0.85, "{}", report.table());
        assert!(value("skab.outlier.far") < 0.12, "{}", report.table());
        assert!(value("skab.outlier.shift") < 0.02, "{}", report.table());
        assert!((value("skab.baseline.always.far") - 1.0).abs() < 1e-9);
        assert_eq!(value("skab.change.recall"), 1.0, "{}", report.table());
        assert!(value("skab.change.nab") > 80.0, "{}", report.table());
    }

    #[test]
    fn files_that_cannot_be_understood_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(run(folder.path(), 1).is_err());
        let text = "datetime;A;anomaly;changepoint\n2020;1;0;0\n";
        write(&folder.path().join("skab/other/9.csv.gz"), text);
        let error = format!("{:#}", run(folder.path(), 1).unwrap_err());
        assert!(
            error.contains("other/9.csv.gz") && error.contains("1 sensors"),
            "{error}"
        );
    }
}
