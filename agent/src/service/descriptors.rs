//! The open descriptors of one life, against the limit that the kernel holds it to.
//!
//! In go samples of both; out comes a [`Shortage`] while there is still room, since
//! with none left `accept` fails and so does every request. Two ways lead to it: a
//! growth that is certain and soon at the limit, by the detector that knows leaks
//! of memory; and a count that has stood near the limit for a while, as after a leak
//! too slow for that window. Nothing is judged without a limit.
//!
//! Blind to: a service that honestly serves as many connections as it has
//! descriptors. To such a one a restart is as good or bad as the refusal to come.

use core::time::Duration;

use homeostat_common::units::{Micros, Millis};
use homeostat_detect::slope::{Policy, Slope, Verdict};

use super::instant;

/// Less growth than this is honest work: some libraries and a few dozen clients.
const RISE_MIN: f32 = 32.0;

/// A limit that is further away than this can wait for a better reason.
const HORIZON: Duration = Duration::from_secs(60);

/// Growth is of no concern before so much of the limit is used: the rest leaves as
/// much time again as the leak took so far.
const GROWN_PERCENT: u64 = 50;

/// So much of the limit is too much, however it came to be ...
const HIGH_PERCENT: u64 = 90;

/// ... once every sample has shown it for this long.
const HIGH_SPAN: Millis = Millis::secs(3);

/// Why descriptors will not last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shortage {
    /// They grow.
    Growing {
        /// Each second.
        rate: f32,
        /// Until there are none left.
        eta: Duration,
    },
    /// There are few left.
    High {
        /// Since when.
        since: Micros,
    },
}

/// Watches one life.
#[derive(Debug, Clone, Default)]
pub struct DescriptorWatch {
    /// For the limit beside it.
    growth: Option<(Slope, u64)>,
    verdict: Option<Verdict>,
    used: u64,
    /// The first and the last sample of an unbroken row near the limit.
    high: Option<(Micros, Micros)>,
}

impl DescriptorWatch {
    /// Takes a sample in; one without a count or a limit says nothing.
    pub fn push(&mut self, now: Micros, used: Option<u64>, limit: Option<u64>) {
        let (Some(used), Some(limit)) = (used, limit.filter(|limit| *limit > 0)) else {
            self.verdict = None;
            self.high = None;
            return;
        };
        self.used = used;
        let (slope, known) = self
            .growth
            .get_or_insert_with(|| (Slope::new(policy(limit)), limit));
        if *known != limit {
            // Somebody moved the limit: the growth so far stands, the forecast does not.
            (*slope, *known) = (Slope::new(policy(limit)), limit);
        }
        #[allow(clippy::cast_precision_loss)] // exact below 16 million
        let verdict = slope.push(instant(now), used as f32);
        self.verdict = Some(verdict);
        self.high = if used.saturating_mul(100) >= limit.saturating_mul(HIGH_PERCENT) {
            Some((self.high.map_or(now, |(first, _)| first), now))
        } else {
            None
        };
    }

    /// How many are open, and how many may be, by the last sample.
    #[must_use]
    pub fn of_limit(&self) -> Option<(u64, u64)> {
        self.verdict?;
        self.growth.as_ref().map(|(_, limit)| (self.used, *limit))
    }

    /// Whether they are about to run out.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        let (used, limit) = self.of_limit()?;
        let grown = used.saturating_mul(100) >= limit.saturating_mul(GROWN_PERCENT);
        match (self.verdict, self.high) {
            (
                Some(Verdict::Leak {
                    rate,
                    eta: Some(eta),
                }),
                _,
            ) if grown => Some(Shortage::Growing { rate, eta }),
            (_, Some((first, last))) if last.since(first) >= HIGH_SPAN => {
                Some(Shortage::High { since: first })
            }
            _ => None,
        }
    }
}

fn policy(limit: u64) -> Policy {
    Policy {
        #[allow(clippy::cast_precision_loss)] // exact below 16 million
        limit: Some(limit as f32),
        horizon: HORIZON,
        // A rate alone endangers nobody: there is always a limit here.
        rate_max: f32::INFINITY,
        rise_min: RISE_MIN,
        ..Policy::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first shortage, as the sample's number and how many were open then.
    fn first(period_ms: u64, limit: u64, used: impl Fn(u64) -> u64) -> Option<(u64, u64)> {
        let mut watch = DescriptorWatch::default();
        (0..4000u64).find_map(|n| {
            let used = used(n).min(limit);
            watch.push(Micros(n * period_ms * 1000), Some(used), Some(limit));
            watch.shortage().map(|_| (n, used))
        })
    }

    #[test]
    fn a_leak_is_called_while_there_is_room() {
        // 40 a second at 4 Hz, from the tenth second on.
        let (_, open) = first(250, 256, |n| 20 + 10 * n.saturating_sub(40)).unwrap();
        assert!((128..200).contains(&open), "{open}");
        // One a second at the default period of a second: by the height.
        let (_, open) = first(1000, 1024, |n| 20 + n).unwrap();
        assert!((512..1000).contains(&open), "{open}");
        // One each ten seconds, which no window shows.
        let (_, open) = first(1000, 256, |n| 20 + n / 10).unwrap();
        assert!((230..240).contains(&open), "{open}");
    }

    #[test]
    fn what_comes_and_goes_is_none() {
        // A service that opens what it needs as it starts.
        assert_eq!(first(250, 256, |n| 20 + (10 * n).min(150)), None);
        // Clients that come and go, up to most of the limit.
        assert_eq!(first(250, 256, |n| 100 + (n * 37) % 120), None);
        // A burst to the limit, over before it can be called one that lasts.
        assert_eq!(
            first(250, 256, |n| if (100..108).contains(&n) { 250 } else { 30 }),
            None
        );
        // Far from a large limit, although it grows.
        assert_eq!(first(250, 524_288, |n| 20 + n * 10), None);
    }

    #[test]
    fn without_a_limit_or_a_count_nothing_is_said() {
        let mut watch = DescriptorWatch::default();
        for n in 0..200 {
            watch.push(Micros(n * 250_000), Some(100 + n), None);
            assert_eq!(watch.shortage(), None);
            watch.push(Micros(n * 250_000), None, Some(10));
            assert_eq!(watch.shortage(), None);
        }
    }
}
