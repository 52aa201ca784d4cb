//! `[detect]`: when a metric is so unusual that people are told.

use homeostat_common::units::{Millis, Ratio};
use homeostat_detect::bank::ALERT;

use super::fields::{Fields, flag, ratio, span, whole};
use crate::detect::usual::Policy;

/// Most metrics that are watched: each has a bank of some 600 bytes, and costs as many
/// nanoseconds a second.
pub const METRICS_MAX: usize = 256;

/// What is told of metrics that are not as usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detect {
    /// `on`, default true.
    pub on: bool,
    /// `threshold`, default 0.5: score from which on a metric is odd ...
    pub threshold: Ratio,
    /// `persist`, default 5 s: ... once it has lasted so long.
    pub persist: Millis,
    /// `metrics`, default 64: so many are watched; first the node, then its services, then
    /// their parts.
    pub metrics: usize,
}

impl Default for Detect {
    fn default() -> Self {
        Self {
            on: true,
            threshold: Ratio::saturating(ALERT),
            persist: Millis::secs(5),
            metrics: 64,
        }
    }
}

impl Detect {
    /// The same for the banks.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            threshold: self.threshold.get(),
            persist: self.persist,
            metrics: self.metrics,
        }
    }
}

pub(super) fn detect(mut at: Fields<'_, '_>) -> Detect {
    let usual = Detect::default();
    let metrics = whole(1..=METRICS_MAX as u64);
    let detect = Detect {
        on: at.or("on", usual.on, flag),
        threshold: at.or("threshold", usual.threshold, ratio),
        persist: at.or(
            "persist",
            usual.persist,
            span(Millis(0)..=Millis::secs(3600)),
        ),
        metrics: at.or("metrics", usual.metrics, |value| {
            metrics(value).map(|count| usize::try_from(count).unwrap_or(METRICS_MAX))
        }),
    };
    if detect.threshold.get() <= 0.0 {
        at.wrong("threshold", "expected more than 0: at 0 all is odd");
    }
    at.finish();
    detect
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn read(text: &str) -> Result<Config, String> {
        let text = format!("[node]\nid = \"n\"\n{text}");
        Config::parse(&text, Path::new("/a.toml")).map_err(|errors| errors.to_string())
    }

    #[test]
    fn what_is_odd_and_how_often_it_is_looked_can_be_said() {
        let usual = read("").unwrap();
        assert_eq!(usual.detect, Detect::default());
        assert_eq!(usual.sample.fastest, Millis(250));
        assert_eq!(usual.sample.slowest, Millis::secs(4));
        let config = read(
            "[detect]\non = false\nthreshold = 0.7\npersist = \"10s\"\nmetrics = 100\n\
             [sample]\nperiod = \"2s\"\nfastest = \"1s\"\nslowest = \"2s\"\nbattery = 0.5\n",
        )
        .unwrap();
        assert!(!config.detect.on);
        assert_eq!(config.detect.metrics, 100);
        assert_eq!(config.sample.slowest, Millis::secs(2));
        let wrong = read("[detect]\nthreshold = 0\n").unwrap_err();
        assert!(wrong.contains("more than 0"), "{wrong}");
        let wrong = read("[sample]\nperiod = \"2s\"\nfastest = \"3s\"\n").unwrap_err();
        assert!(wrong.contains("fastest"), "{wrong}");
        let wrong = read("[sample]\nperiod = \"2s\"\nslowest = \"1s\"\n").unwrap_err();
        assert!(wrong.contains("slowest"), "{wrong}");
    }
}
