//! What a sample costs: nanoseconds and bytes of every detector, beside a trivial one.
//!
//! Each detector takes the same made-up stream, 1 Hz with a daily wave, noise and some spikes;
//! one of several sensors takes as many such streams at once. The numbers are medians over
//! batches, after the whole stream once for warming up. They say how detectors compare on this
//! machine; the gate for small devices counts instructions.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use homeostat_detect::bank::Bank;
use homeostat_detect::change::Change;
use homeostat_detect::drift::{Drift, Reference};
use homeostat_detect::forecast::{self, Horizon};
use homeostat_detect::joint::Joint;
use homeostat_detect::shape::Shape;
use homeostat_detect::slope::{self, Slope};

use crate::result::{Report, Row};
use crate::stats::Estimate;

/// Samples of a batch: far above what the clock resolves, and short against the slice of time
/// after which a busy machine lets another process run.
const BATCH: usize = 500;

/// Samples of the stream, which is repeated.
const STREAM: u32 = 20_000;

/// Goals for the whole bank of one metric.
const NS_MAX: f64 = 150.0;
const BYTES_MAX: f64 = 560.0;

/// Sensors of a row, for the detectors of several at once.
const SENSORS: usize = 8;

/// Values that the course of one is learnt from, as of a recording.
const SERIES: usize = 3072;

/// Samples of a batch of it: each is compared with all that were learnt.
const COURSE_BATCH: usize = 10;

/// Measures `batches` batches of each detector.
///
/// # Errors
/// When there are no batches.
pub fn run(batches: u32, seed: u64) -> Result<Report> {
    let start = Instant::now();
    let mut costs = Costs {
        report: Report::new("cost", &format!("{BATCH} samples a batch")),
        batches,
        seed,
        base: None,
    };
    let values = stream(seed);
    let mut trivial = Mean::default();
    let what = "moving mean and deviation, one threshold";
    costs.of::<Mean, _, _>("trivial", what, (BATCH, &values), |_, v| trivial.push(v))?;

    let mut bank: Bank = Bank::new();
    let what = "full bank of one metric";
    costs.of::<Bank, _, _>("bank", what, (BATCH, &values), |at, value| {
        bank.observe(at, Some(value))
    })?;
    for row in &mut costs.report.rows {
        let goal = match row.id.as_str() {
            "cost.bank.ns" => NS_MAX,
            "cost.bank.bytes" => BYTES_MAX,
            _ => continue,
        };
        *row = row.clone().goal(goal);
    }

    let mut slope = Slope::new(slope::Policy::default());
    costs.of::<Slope, _, _>("slope", "slope", (BATCH, &values), |at, value| {
        slope.push(at, value)
    })?;

    let mut horizon = Horizon::new(forecast::Policy::new(1000.0, 100.0));
    costs.of::<Horizon, _, _>("forecast", "forecast", (BATCH, &values), |at, value| {
        horizon.push(at, value)
    })?;

    let mut first: Vec<f32> = values.iter().take(1000).copied().collect();
    let reference = Reference::<12>::of_values(&mut first).context("no reference for drift")?;
    let mut drift = Drift::new(reference, 1000.0);
    let what = "drift of a distribution, 12 classes";
    costs.of::<Drift<12>, _, _>("drift", what, (BATCH, &values), |_, value| {
        drift.push(value)
    })?;

    let rows = rows(seed);
    let healthy = &rows[..SERIES];
    let mut joint = Joint::learn(healthy).context("nothing to learn a joint distance from")?;
    let what = "joint distance of 8 sensors";
    costs
        .of::<Joint<SENSORS>, _, _>("joint", what, (BATCH, &rows), |_, row| joint.observe(&row))?;

    let mut change = Change::learn(healthy).context("nothing to learn changes from")?;
    let what = "changes of 8 sensors";
    costs.of::<Change<SENSORS>, _, _>("change", what, (BATCH, &rows), |_, row| {
        change.observe(&row)
    })?;

    let (healthy, judged) = values.split_at(SERIES);
    let learnt = Shape::<SERIES>::learn(healthy, 0.02);
    let mut shape = learnt.context("nothing to learn a course from")?;
    let what = "course of a value, 3,072 learnt";
    let judged = (COURSE_BATCH, &judged[..SERIES]);
    costs.of::<Shape<SERIES>, _, _>("shape", what, judged, |_, value| shape.observe(value))?;

    costs.report.finish(start.elapsed());
    Ok(costs.report)
}

/// What was measured so far.
struct Costs {
    report: Report,
    batches: u32,
    seed: u64,
    /// Of the first, to which all are compared.
    base: Option<(f64, usize)>,
}

impl Costs {
    /// Adds a detector of type `D`, which takes one sample of the stream after the other, in
    /// batches of so many.
    fn of<D, S: Copy, T>(
        &mut self,
        id: &str,
        what: &str,
        samples: (usize, &[S]),
        detector: impl FnMut(Duration, S) -> T,
    ) -> Result<()> {
        let ns = measure(self.batches, self.seed, samples, detector)?;
        let bytes = size_of::<D>();
        let (base_ns, base_bytes) = *self.base.get_or_insert((ns.value, bytes));
        let trivial = "moving mean";
        let time = Row::new(
            &format!("cost.{id}.ns"),
            &format!("{what}, a sample"),
            "ns",
            ns,
        );
        let state = Row::new(
            &format!("cost.{id}.bytes"),
            &format!("{what}, state"),
            "B",
            Estimate::exact(bytes as f64, 1),
        );
        self.report.rows.extend([
            time.against(Some(base_ns), trivial),
            state.against(Some(base_bytes as f64), trivial),
        ]);
        Ok(())
    }
}

/// Nanoseconds a sample: the median over batches. Time goes on from batch to batch.
fn measure<S: Copy, T>(
    batches: u32,
    seed: u64,
    (size, stream): (usize, &[S]),
    mut detector: impl FnMut(Duration, S) -> T,
) -> Result<Estimate> {
    let mut second = 0;
    let mut batch = |samples: &[S]| {
        let start = Instant::now();
        for sample in samples {
            second += 1;
            black_box(detector(Duration::from_secs(second), black_box(*sample)));
        }
        start.elapsed().as_secs_f64() * 1e9 / size as f64
    };
    let parts = || stream.chunks_exact(size);
    for part in parts() {
        batch(part);
    }
    let samples: Vec<f64> = parts()
        .cycle()
        .take(batches as usize)
        .map(&mut batch)
        .collect();
    Estimate::quantile(&samples, 0.5, seed).context("no batches")
}

/// The stream of each sensor, row by row.
fn rows(seed: u64) -> Vec<[f32; SENSORS]> {
    let sensors: [Vec<f32>; SENSORS] = std::array::from_fn(|at| stream(seed + at as u64));
    (0..STREAM as usize)
        .map(|row| std::array::from_fn(|at| sensors[at][row]))
        .collect()
}

fn stream(seed: u64) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut value = |second: u32| {
        let wave = libm::sinf(second as f32 * std::f32::consts::TAU / 86_400.0);
        let noise: f32 = (0..4).map(|_| rng.f32() - 0.5).sum();
        let spike = if rng.u16(..) < 200 { 20.0 } else { 0.0 };
        50.0 + 10.0 * wave + noise + spike
    };
    (0..STREAM).map(&mut value).collect()
}

/// The least that calls itself a detector.
#[derive(Default)]
struct Mean {
    mean: f32,
    deviation: f32,
}

impl Mean {
    fn push(&mut self, value: f32) -> bool {
        let error = value - self.mean;
        let far = error.abs() > 6.0 * self.deviation;
        self.mean += error / 64.0;
        self.deviation += (error.abs() - self.deviation) / 64.0;
        far
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_detector_has_a_time_and_a_size() {
        let report = run(3, 1).unwrap();
        assert_eq!(report.rows.len(), 16);
        assert!(
            report
                .rows
                .iter()
                .all(|row| row.ours > 0.0 && row.ours.is_finite())
        );
        let bytes = report
            .rows
            .iter()
            .find(|row| row.id == "cost.bank.bytes")
            .unwrap();
        assert_eq!(bytes.holds, Some(true));
        assert!(run(0, 1).is_err());
    }
}
