//! Change points: alarms in the 60 s after each count, sooner for more.
//!
//! The NAB-like scale of the source: a window `[c, c + 60]` for each change point `c`, cut
//! where the one before ends. The first alarm in a window earns from 1 at its start to -.11 at
//! its end along a tanh; an empty window costs 1; an alarm outside of all costs .11. 0 is no
//! alarm at all, 100 an alarm at every change point.
//!
//! As an alarm outside costs so little, alarms at a fixed pace, without a look at any sensor,
//! beat everything published. So the report has that line, random alarms as many as ours, and
//! the share of alarms that hit, which cannot be gained blindly.

use super::{Recording, baseline, told};
use crate::result::Row;
use crate::stats::Estimate;

/// Rows after a change point in which an alarm counts.
const WINDOW: usize = 60;

/// What an alarm outside of all windows costs.
const FALSE_ALARM: f64 = 0.11;

/// Draws of random alarms.
const DRAWS: usize = 20;

/// Sums over the files.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Score {
    earned: f64,
    windows: usize,
    hit: usize,
    alarms: usize,
    outside: usize,
}

impl Score {
    /// `alarms` in rising order.
    pub(super) fn add(&mut self, alarms: &[usize], changes: &[usize]) {
        let mut inside = 0;
        let mut last_end = 0;
        // An alarm on a border belongs to both windows, but is counted once.
        let mut counted = 0;
        for change in changes {
            let (start, end) = ((*change).max(last_end), change + WINDOW);
            last_end = end;
            let within = |at: &&usize| (start..=end).contains(*at);
            self.windows += 1;
            match alarms.iter().find(within) {
                Some(first) => {
                    self.hit += 1;
                    self.earned += reward((first - start) as f64 / (end - start) as f64);
                }
                None => self.earned -= 1.0,
            }
            let from = counted;
            for (at, _) in alarms
                .iter()
                .enumerate()
                .skip(from)
                .filter(|(_, at)| within(at))
            {
                counted = at + 1;
                inside += 1;
            }
        }
        self.alarms += alarms.len();
        self.outside += alarms.len() - inside;
        self.earned -= FALSE_ALARM * (alarms.len() - inside) as f64;
    }

    fn standard(&self) -> f64 {
        let windows = self.windows as f64;
        100.0 * (self.earned + windows) / (2.0 * windows)
    }

    fn precision(&self) -> f64 {
        (self.alarms - self.outside) as f64 / self.alarms as f64
    }

    fn recall(&self) -> f64 {
        self.hit as f64 / self.windows as f64
    }
}

/// What an alarm earns at a place of the window in `0..=1`.
fn reward(place: f64) -> f64 {
    let half = std::f64::consts::FRAC_PI_2;
    let fall = ((2.0 * place - 1.0) * half).tanh() / half.tanh();
    (1.0 + FALSE_ALARM) / 2.0 * (1.0 - fall) - FALSE_ALARM
}

fn score(recordings: &[Recording], mut alarms: impl FnMut(&Recording) -> Vec<usize>) -> Score {
    let mut score = Score::default();
    for recording in recordings {
        score.add(&alarms(recording), &recording.changes);
    }
    score
}

pub(super) fn rows(recordings: &[Recording], seed: u64, rows: &mut Vec<Row>) {
    let ours = score(recordings, told);
    let n = ours.windows;
    let row = |id: &str, what: &str, unit, value: f64| {
        let id = format!("skab.change.{id}");
        Row::new(&id, what, unit, Estimate::exact(value, n)).higher()
    };
    rows.push(
        row(
            "nab",
            "change points, NAB standard",
            "points",
            ours.standard(),
        )
        .against(Some(32.42), "MSCRED, published")
        .goal(40.0),
    );
    rows.push(row(
        "precision",
        "share of alarms within 60 s of a change",
        "ratio",
        ours.precision(),
    ));
    rows.push(row(
        "recall",
        "share of changes with an alarm",
        "ratio",
        ours.recall(),
    ));
    let mut rng = fastrand::Rng::with_seed(seed);
    let many = ours.alarms.div_ceil(recordings.len().max(1));
    let draws: Vec<Score> = (0..DRAWS)
        .map(|_| {
            score(recordings, |one| {
                let mut at: Vec<usize> = (0..one.anomaly.len()).collect();
                rng.shuffle(&mut at);
                at.truncate(many);
                at.sort_unstable();
                at
            })
        })
        .collect();
    let mean = |of: fn(&Score) -> f64| draws.iter().map(of).sum::<f64>() / DRAWS as f64;
    let as_many = format!("random, {many} a file, as ours");
    rows.push(row(
        "random.nab",
        &format!("{as_many}: NAB standard"),
        "points",
        mean(Score::standard),
    ));
    rows.push(row(
        "random.precision",
        &format!("{as_many}: precision"),
        "ratio",
        mean(Score::precision),
    ));
    let blind = score(recordings, |one| {
        (15..one.anomaly.len()).step_by(30).collect()
    });
    rows.push(row(
        "blind.nab",
        "an alarm every 30 s, no sensor: NAB standard",
        "points",
        blind.standard(),
    ));
    rows.push(row(
        "blind.precision",
        "the same: precision",
        "ratio",
        blind.precision(),
    ));
    let flips = score(recordings, |one| {
        let alarms = baseline::t2_or_q(one);
        let flips = alarms
            .windows(2)
            .enumerate()
            .filter(|(_, pair)| pair[0] != pair[1]);
        flips.map(|(at, _)| at + 1).collect()
    });
    rows.push(
        row(
            "t2q.nab",
            "ends of T2 + Q alarms: NAB standard",
            "points",
            flips.standard(),
        )
        .against(Some(25.35), "published"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_runs_from_no_alarm_to_every_change() {
        let standard = |alarms: &[usize], changes: &[usize]| {
            let mut score = Score::default();
            score.add(alarms, changes);
            score.standard()
        };
        assert!(standard(&[], &[100, 300]).abs() < 1e-9);
        assert!((standard(&[100, 300], &[100, 300]) - 100.0).abs() < 1e-9);
        // Half of the way down at 30 of 60: (1 - .11) / 2.
        assert!((standard(&[130], &[100]) - 50.0 * 1.445).abs() < 1e-9);
        assert!((standard(&[100, 200], &[100]) - 50.0 * (2.0 - 0.11)).abs() < 1e-9);
        // The second window begins where the first ends.
        assert!((standard(&[100, 160], &[100, 130]) - 100.0).abs() < 1e-9);
    }
}
