//! What a model server counts of its model, as real ones do: histograms of each input, of the
//! largest output, and of the time that an answer takes.
//!
//! In go requests with their outputs, out comes a part of the page of metrics. Nothing is there
//! before the first request. Whether what it counts is usual is for others to say.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Inputs that are counted; more are not told.
const INPUTS_MAX: usize = 32;

/// Upper bounds of an input. The last bin, of what is above them all, has none.
const INPUTS: [f64; 11] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.5, 4.0];
/// Of the largest output.
const CONFIDENCE: [f64; 11] = [0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.999];
/// Of seconds.
const LATENCY: [f64; 11] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5,
];

/// Counts by bin, and the sum of what was counted.
#[derive(Debug, Clone, Copy, Default)]
struct Counts([u64; 12], f64);

impl Counts {
    fn add(&mut self, bounds: &[f64; 11], value: f64) {
        let place = bounds.iter().position(|bound| value <= *bound);
        if let Some(count) = self.0.get_mut(place.unwrap_or(bounds.len())) {
            *count += 1;
        }
        self.1 += value;
    }

    fn write(&self, to: &mut String, name: &str, label: &str, bounds: &[f64; 11]) {
        let mut below = 0;
        for (at, count) in self.0.iter().enumerate() {
            below += count;
            let bound = bounds.get(at).map_or("+Inf".to_owned(), f64::to_string);
            let _ = writeln!(to, "{name}_bucket{{{label}le=\"{bound}\"}} {below}");
        }
        let label = label.trim_end_matches(',');
        let sum = self.1;
        let _ = writeln!(
            to,
            "{name}_sum{{{label}}} {sum}\n{name}_count{{{label}}} {below}"
        );
    }
}

#[derive(Debug, Default)]
struct All {
    inputs: Vec<Counts>,
    confidence: Counts,
    latency: Counts,
}

/// What was seen since the start.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<All>);

impl Seen {
    /// Adds a request of `rows` rows with its outputs.
    pub(super) fn add(&self, rows: usize, flat: &[f32], outputs: &[f32], took: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let width = (flat.len() / rows.max(1)).max(1);
        all.inputs.resize(width.min(INPUTS_MAX), Counts::default());
        for row in flat.chunks(width) {
            for (counts, value) in all.inputs.iter_mut().zip(row) {
                counts.add(&INPUTS, f64::from(*value));
            }
        }
        for row in outputs.chunks((outputs.len() / rows.max(1)).max(1)) {
            let most = row.iter().copied().fold(0.0, f32::max);
            all.confidence.add(&CONFIDENCE, f64::from(most));
        }
        all.latency.add(&LATENCY, took.as_secs_f64());
    }

    /// As Prometheus reads it.
    pub(super) fn page(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = String::new();
        if all.inputs.is_empty() {
            return page;
        }
        let mut family = |name: &str, help: &str, all: &[(String, &Counts)], bounds| {
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} histogram");
            for (label, counts) in all {
                counts.write(&mut page, name, label, bounds);
            }
        };
        let inputs = all.inputs.iter().enumerate();
        let inputs: Vec<_> = inputs
            .map(|(at, one)| (format!("feature=\"{at}\","), one))
            .collect();
        family("model_input", "Inputs.", &inputs, &INPUTS);
        let alone = |counts| [(String::new(), counts)];
        let help = "Largest output of each answer.";
        family(
            "model_confidence",
            help,
            &alone(&all.confidence),
            &CONFIDENCE,
        );
        let help = "Time of each inference.";
        family(
            "model_latency_seconds",
            help,
            &alone(&all.latency),
            &LATENCY,
        );
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_and_answered_is_counted_by_bin() {
        let seen = Seen::default();
        assert_eq!(seen.page(), "");
        let took = Duration::from_millis(3);
        seen.add(2, &[0.15, 9.0, 0.35, 9.0], &[0.25, 0.75, 0.95, 0.05], took);
        let page = seen.page();
        for line in [
            "model_input_bucket{feature=\"0\",le=\"0.1\"} 0",
            "model_input_bucket{feature=\"0\",le=\"0.4\"} 2",
            "model_input_bucket{feature=\"1\",le=\"4\"} 0",
            "model_input_bucket{feature=\"1\",le=\"+Inf\"} 2",
            "model_input_count{feature=\"1\"} 2",
            "model_confidence_bucket{le=\"0.8\"} 1",
            "model_latency_seconds_bucket{le=\"0.005\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }
}
