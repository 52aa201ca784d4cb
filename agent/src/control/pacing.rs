//! How often the node is looked at.
//!
//! In go what is known after a sample: how odd its metrics are, which incidents are open,
//! battery and heat; out comes when the next one is due. More often while something may be
//! wrong, since a verdict needs samples; more seldom while the node is hot or its battery
//! nearly empty; both at once leave it as configured. Never beyond the two bounds of
//! `[sample]`. Probes keep their own pace: whether a service answers is not a matter of
//! what it costs to know.

use std::fmt;

use homeostat_common::units::{Micros, Millis};

use super::Loop;
use super::message::Effect;
use crate::config::Sample;

/// By so much faster or slower.
const FACTOR: u64 = 4;

/// From this share of the threshold on, a metric may be about to be odd.
const NEAR: f32 = 0.8;

/// What has been odd, or an incident, for so long is known: more samples tell nothing new,
/// and an incident may stay open for days.
const KNOWN: Millis = Millis::secs(300);

/// So near to its limit a node is hot, in degrees.
const HOT: f32 = 5.0;

/// ... and it is until it is this much cooler: on the edge it must not swing.
const COOLER: f32 = 2.0;

/// The same for a battery, as a share.
const CHARGED: f64 = 0.05;

/// Why it is looked at more often, or more seldom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Why {
    incident: bool,
    odd: bool,
    battery: bool,
    hot: bool,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [
            (self.incident, "an incident is open"),
            (self.odd, "a metric is nearly odd"),
            (self.battery, "the battery is nearly empty"),
            (self.hot, "the node is hot"),
        ];
        let found: Vec<&str> = reasons
            .iter()
            .filter_map(|(is, words)| is.then_some(*words))
            .collect();
        match found[..] {
            [] => f.write_str("as configured"),
            _ => f.write_str(&found.join(", ")),
        }
    }
}

/// The pace of sampling.
#[derive(Debug)]
pub(super) struct Pacing {
    policy: Sample,
    period: Millis,
    next: Micros,
    why: Why,
}

impl Pacing {
    pub(super) fn new(policy: Sample, now: Micros) -> Self {
        Self {
            period: policy.period,
            policy,
            next: now,
            why: Why::default(),
        }
    }

    /// When the next sample is due.
    pub(super) fn next_wake(&self) -> Micros {
        self.next
    }

    /// What is configured.
    pub(super) fn usual(&self) -> Millis {
        self.policy.period
    }

    /// How long a sample stays news: three periods, and at least 3 s, so that one late
    /// sample forbids nothing.
    pub(super) fn stale(&self) -> Millis {
        Millis(3 * self.period.0.max(1000))
    }

    /// The same for the forwarder's reports, which come as often as configured.
    pub(super) fn reports_stale(&self) -> Millis {
        Millis(3 * self.policy.period.0.max(1000))
    }

    /// How often it is looked at, and why.
    pub(super) fn words(&self) -> String {
        let Sample {
            fastest, slowest, ..
        } = self.policy;
        let (period, why) = (self.period, self.why);
        format!("each {period} ({fastest} to {slowest}): {why}")
    }

    fn set(&mut self, why: Why) {
        let slower = if why.battery || why.hot { FACTOR } else { 1 };
        let faster = if why.incident || why.odd { FACTOR } else { 1 };
        let Sample {
            period,
            fastest,
            slowest,
            ..
        } = self.policy;
        self.why = why;
        self.period = Millis(period.0 * slower / faster).clamp(fastest, slowest);
    }

    /// Once at each due time; a pause is not made up for.
    fn due(&mut self, now: Micros) -> bool {
        if now < self.next {
            return false;
        }
        let planned = self.next + self.period;
        self.next = if planned > now {
            planned
        } else {
            now + self.period
        };
        true
    }
}

impl Loop {
    /// Whether a sample is due; what the shell does with each sample it does first.
    #[must_use]
    pub fn samples_next(&self, now: Micros) -> bool {
        now >= self.pacing.next
    }

    /// Asks for a sample, if one is due.
    pub(super) fn sample_when_due(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        if self.pacing.due(now) {
            self.sample_asked = now;
            effects.push(Effect::Sample);
        }
    }

    /// Sets the pace by what the last sample has shown.
    pub(super) fn pace(&mut self, now: Micros) {
        let before = self.pacing.why;
        let young = |since: Micros| now.since(since) < KNOWN;
        let less = |was: bool, by: f64| if was { by } else { 0.0 };
        let heat = self.host.heat.fresh();
        let cooler = less(before.hot, f64::from(COOLER));
        let least = f64::from(self.pacing.policy.battery.get()) + less(before.battery, CHARGED);
        let why =
            Why {
                incident: self.incidents.values().any(|open| young(open.since)),
                odd: self.noticing.risk(now, KNOWN) >= NEAR,
                battery: self.host.battery.fresh().is_some_and(|battery| {
                    !battery.mains && f64::from(battery.charge.get()) < least
                }),
                hot: heat.is_some_and(|heat| {
                    f64::from(heat.degrees) >= f64::from(heat.limit - HOT) - cooler
                }),
            };
        let period = self.pacing.period;
        self.pacing.set(why);
        // More often means now, and not after a long period that has just begun.
        if self.pacing.period < period {
            self.pacing.next = self.pacing.next.min(now + self.pacing.period);
        }
    }
}
