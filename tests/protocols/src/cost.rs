//! What a sample costs: nanoseconds and bytes of every detector, beside a trivial one.
//!
//! Each detector takes the same made-up stream, 1 Hz with a daily wave, noise and some spikes;
//! the numbers are medians over batches after one for warming up, with the spread of the
//! batches as interval. They say how detectors compare on this machine; the gate for small
//! devices counts instructions.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use homeostat_detect::bank::Bank;
use homeostat_detect::drift::{Drift, Reference};
use homeostat_detect::forecast::Horizon;
use homeostat_detect::frozen::Frozen;
use homeostat_detect::level::Level;
use homeostat_detect::missing::Missing;
use homeostat_detect::slope::Slope;

use crate::result::{Report, Row};
use crate::stats::Estimate;

/// Samples of a batch: far above what the clock resolves, and short against the slice of time
/// after which a busy machine lets another process run.
const BATCH: u16 = 500;

/// Samples of the stream, which is repeated.
const STREAM: u32 = 20_000;

/// Goals for the whole bank of one metric.
const NS_MAX: f64 = 150.0;
const BYTES_MAX: f64 = 560.0;

/// Measures `batches` batches of each detector.
///
/// # Errors
/// When there are no batches.
pub fn run(batches: u32, seed: u64) -> Result<Report> {
    let start = Instant::now();
    let mut report = Report::new("cost", &format!("{BATCH} samples a batch"));
    let stream = stream(seed);
    let mut trivial = Mean::default();
    let base = measure(batches, seed, &stream, |_, value| trivial.push(value))?;
    let bytes = size_of::<Mean>();
    push(
        &mut report,
        "trivial",
        "moving mean and deviation, one threshold",
        base,
        bytes,
        base,
    );

    let mut bank: Bank = Bank::new();
    let cost = measure(batches, seed, &stream, |at, value| {
        bank.observe(at, Some(value))
    })?;
    push(
        &mut report,
        "bank",
        "full bank of one metric",
        cost,
        size_of::<Bank>(),
        base,
    );
    for row in &mut report.rows {
        let goal = match row.id.as_str() {
            "cost.bank.ns" => NS_MAX,
            "cost.bank.bytes" => BYTES_MAX,
            _ => continue,
        };
        *row = row.clone().goal(goal);
    }

    let mut level: Level = Level::new(0.1);
    let cost = measure(batches, seed, &stream, |_, value| {
        level.learn(value);
        level.score(value)
    })?;
    push(
        &mut report,
        "level",
        "level: learn and score",
        cost,
        size_of::<Level>(),
        base,
    );

    let mut slope = Slope::new(homeostat_detect::slope::Policy::default());
    let cost = measure(batches, seed, &stream, |at, value| slope.push(at, value))?;
    push(
        &mut report,
        "slope",
        "slope",
        cost,
        size_of::<Slope>(),
        base,
    );

    let mut forecast = Horizon::new(homeostat_detect::forecast::Policy::new(1000.0, 100.0));
    let cost = measure(batches, seed, &stream, |at, value| forecast.push(at, value))?;
    push(
        &mut report,
        "forecast",
        "forecast",
        cost,
        size_of::<Horizon>(),
        base,
    );

    let mut frozen = Frozen::new(homeostat_detect::frozen::Policy::default());
    let cost = measure(batches, seed, &stream, |at, value| frozen.push(at, value))?;
    push(
        &mut report,
        "frozen",
        "frozen",
        cost,
        size_of::<Frozen>(),
        base,
    );

    let policy = homeostat_detect::missing::Policy::default();
    let mut missing = Missing::new(policy, Duration::ZERO);
    let cost = measure(batches, seed, &stream, |at, _| {
        missing.arrived(at);
        missing.check(at)
    })?;
    push(
        &mut report,
        "missing",
        "missing: arrived and check",
        cost,
        size_of::<Missing>(),
        base,
    );

    let mut values: Vec<f32> = stream.iter().take(1000).copied().collect();
    let reference = Reference::<12>::of_values(&mut values).context("no reference for drift")?;
    let mut drift = Drift::new(reference, 1000.0);
    let cost = measure(batches, seed, &stream, |_, value| drift.push(value))?;
    push(
        &mut report,
        "drift",
        "drift of a distribution, 12 classes",
        cost,
        size_of::<Drift<12>>(),
        base,
    );
    report.finish(start.elapsed());
    Ok(report)
}

fn push(report: &mut Report, id: &str, what: &str, ns: Estimate, bytes: usize, base: Estimate) {
    let trivial = "moving mean";
    report.rows.push(
        Row::new(
            &format!("cost.{id}.ns"),
            &format!("{what}, a sample"),
            "ns",
            ns,
        )
        .against(Some(base.value), trivial),
    );
    let size = Estimate::exact(bytes as f64, 1);
    report.rows.push(
        Row::new(
            &format!("cost.{id}.bytes"),
            &format!("{what}, state"),
            "B",
            size,
        )
        .against(Some(size_of::<Mean>() as f64), trivial),
    );
}

/// Nanoseconds a sample: the median over batches. Time goes on from batch to batch.
fn measure<T>(
    batches: u32,
    seed: u64,
    stream: &[f32],
    mut detector: impl FnMut(Duration, f32) -> T,
) -> Result<Estimate> {
    let mut second = 0;
    let mut batch = |values: &[f32]| {
        let start = Instant::now();
        for value in values {
            second += 1;
            black_box(detector(Duration::from_secs(second), black_box(*value)));
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
    };
    let parts = || stream.chunks_exact(BATCH.into());
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
