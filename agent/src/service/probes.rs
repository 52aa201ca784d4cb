//! What the answers of a service say: whether it is silent, how long that may be put down to
//! others, whether it has shown that it works, and how well it answers.
//!
//! In go the outcomes of its probes; the verdict on each is made elsewhere.

use core::time::Duration;

use homeostat_common::ids::ModelVersion;
use homeostat_common::units::{Micros, Millis};
use homeostat_detect::hang::{self, Hang};

use super::serving::ServingWatch;
use super::{Answers, MetricsWatch, Slot, Watched, instant, span};
use crate::config;

/// Answers over which availability and latency are computed: the last 12.8 s
/// of a probe each 100 ms, about a minute of one each second.
pub(super) const ANSWERS_MAX: usize = 128;

/// One that is kept from running is given so many times `gate_max`: restarting it
/// would not give it a core, and a machine that is so busy for longer has other troubles.
const STARVED_CAP: u32 = 4;

/// A service without probes counts as started once it has lived this long.
pub const SETTLE: Millis = Millis(200);

/// One probe's state.
#[derive(Debug)]
pub struct ProbeWatch {
    /// The hang verdict.
    pub hang: Hang,
    /// When the next one is due.
    pub next: Micros,
    /// Whether this life answered it rightly at least once.
    pub proven: bool,
    /// Right answers in a row since it was last asked to prove itself.
    pub rights: u8,
    /// The last thing that was wrong about an answer.
    pub wrong: Option<String>,
    /// Since when it has answered wrongly.
    pub wrong_since: Option<Micros>,
    /// What it told of itself, for a probe of its metrics.
    pub metrics: MetricsWatch,
    /// What that says of the model that it serves.
    pub serving: ServingWatch,
    /// How far its last answer to each known input was off, and the class it chose.
    pub answers: Answers,
    /// How sure the model was of its last answer.
    pub confidence: Option<f32>,
    /// The model that answered last, by its own account.
    pub model: Option<ModelVersion>,
}

impl ProbeWatch {
    pub(super) fn new(probe: &config::Probe, now: Micros) -> Self {
        Self {
            hang: Hang::new(hang::Policy {
                period: span(probe.period),
                timeout: span(probe.timeout),
                misses: probe.misses,
                wrongs: probe.misses,
                cap: span(probe.gate_max),
                starved_cap: span(probe.gate_max) * STARVED_CAP,
                ..hang::Policy::default()
            }),
            next: now,
            proven: false,
            rights: 0,
            wrong: None,
            wrong_since: None,
            metrics: MetricsWatch::default(),
            serving: ServingWatch::default(),
            answers: Answers::default(),
            confidence: None,
            model: None,
        }
    }
}

/// How well a service answered lately.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServiceLevel {
    /// Probes answered rightly and in time, of those sent.
    pub availability: f64,
    /// How many that were.
    pub answered: usize,
    /// p50, p95, p99; absent when none was answered.
    pub latency_ms: [Option<f64>; 3],
}

impl Watched {
    /// Notes the outcome of one probe for availability and latency.
    pub fn answered(&mut self, latency_us: Option<u32>) {
        if self.answers.len() == ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back(latency_us);
    }

    /// Asks it to prove itself anew: what it answered before says nothing about
    /// what it reads now.
    pub fn reprove(&mut self, now: Micros) {
        for probe in &mut self.probes {
            probe.rights = 0;
            probe.next = now;
        }
    }

    /// Whether each probe was answered rightly as often in a row as it takes
    /// wrong answers for a verdict, since [`Self::reprove`].
    #[must_use]
    pub fn reproven(&self, now: Micros) -> bool {
        let enough = |(watch, probe): (&ProbeWatch, &config::Probe)| watch.rights >= probe.misses;
        self.answering(now) && self.probes.iter().zip(&self.policy.probes).all(enough)
    }

    /// Whether it has missed a probe since its last sign of life.
    #[must_use]
    pub fn silent(&self) -> bool {
        let mut probes = self.probes.iter();
        probes.any(|probe| probe.hang.silent_since().is_some())
    }

    /// When enough probes had been missed for a verdict, and how long that takes.
    #[must_use]
    pub fn judged(&self) -> Option<(Duration, Duration)> {
        let probes = self.probes.iter().zip(&self.policy.probes);
        let due = |(watch, probe): (&ProbeWatch, &config::Probe)| {
            let rest = u32::from(probe.misses.saturating_sub(1));
            let takes = span(probe.period) * rest + span(probe.timeout);
            Some((watch.hang.due_at()?, takes))
        };
        probes.filter_map(due).max()
    }

    /// How long its silence may be put down to others.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let longest = self.policy.probes.iter().map(|probe| probe.gate_max).max();
        longest.map_or(Duration::ZERO, span) * STARVED_CAP
    }

    /// Whether it cannot be why those that need it are silent: it was asked at `since`
    /// or later and has answered, and if it fell silent itself, that has been over for
    /// `span`. What has no probes is not asked.
    #[must_use]
    pub fn excuses_nobody(&self, since: Duration, span: Duration, now: Micros) -> bool {
        let spoke = |probe: &ProbeWatch| {
            let settled = probe
                .hang
                .spoke_at()
                .is_none_or(|at| instant(now) >= at + span);
            probe.hang.answered_since(since) && probe.hang.silent_since().is_none() && settled
        };
        !self.wanted() || self.probes.iter().all(spoke)
    }

    /// Has it asked at once, where no question is under way: one that is in doubt must
    /// not be given up sooner because others wait for its word.
    pub fn ask_since(&mut self, since: Duration, now: Micros) {
        for probe in &mut self.probes {
            if !probe.hang.answered_since(since) && !probe.hang.is_asked() {
                probe.next = now;
            }
        }
    }

    /// Whether this life has shown that it works.
    #[must_use]
    pub fn proven(&self, now: Micros) -> bool {
        match self.slot {
            Slot::Up { since, .. } if self.probes.is_empty() => now >= since + SETTLE,
            Slot::Up { .. } => self.probes.iter().all(|probe| probe.proven),
            Slot::Unknown | Slot::Down { .. } | Slot::Starting { .. } => false,
        }
    }

    /// Whether it answers somebody now: an interruption would take that away.
    #[must_use]
    pub fn answering(&self, now: Micros) -> bool {
        let silent = self
            .probes
            .iter()
            .any(|probe| matches!(probe.hang.verdict(instant(now)), hang::Verdict::Hung { .. }));
        matches!(self.slot, Slot::Up { .. })
            && self.proven(now)
            && !silent
            && !self.is_paused()
            && self.frozen_process(now).is_none()
    }

    /// Share of probes answered rightly and in time, and the 50th, 95th and 99th
    /// percentile of the time they took, in milliseconds.
    #[must_use]
    pub fn service_level(&self) -> Option<ServiceLevel> {
        let sent = self.answers.len();
        if sent == 0 {
            return None;
        }
        let mut times: Vec<u32> = self.answers.iter().flatten().copied().collect();
        times.sort_unstable();
        let at = |percent: usize| {
            let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(place).map(|us| f64::from(*us) / 1000.0)
        };
        Some(ServiceLevel {
            availability: times.len() as f64 / sent as f64,
            answered: times.len(),
            latency_ms: [at(50), at(95), at(99)],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, ProbeKind};
    use crate::service::serving::{Histogram, Page};

    fn service(more: &str) -> config::Service {
        let text = format!(
            "[node]\nid = \"n\"\n[[service]]\nid = \"a\"\ncommand = [\"/a\"]\nports = [80]\n\
             [[service.probe]]\nkind = \"metrics\"\n[service.probe.serving]\ninputs = \"x\"\n{more}"
        );
        let config = Config::parse(&text, Path::new("a.toml"));
        config.unwrap().services.remove(0)
    }

    #[test]
    fn another_configuration_keeps_what_is_usual_of_a_model_if_its_probe_stays() {
        let mut watched = Watched::new(service(""), Micros(0));
        let ProbeKind::Metrics {
            serving: Some(policy),
            ..
        } = watched.policy.probes[0].kind.clone()
        else {
            panic!("{:?}", watched.policy.probes)
        };
        for second in 0_u32..9 {
            let page = Page {
                inputs: vec![Histogram {
                    series: String::new(),
                    bins: vec![(1.0, f64::from(second)), (f64::INFINITY, f64::from(second))],
                }],
                ..Page::default()
            };
            let at = Micros(u64::from(second) * 1_000_000);
            watched.probes[0].serving.push(at, &policy, &page, None);
        }
        let learnt = watched.probes[0].serving.clone();
        assert_ne!(learnt, ServingWatch::default());
        let same = service("[[service]]\nid = \"b\"\ncommand = [\"/b\"]\n");
        let watched = watched.under(same, Micros(1));
        assert_eq!(watched.probes[0].serving, learnt);
        let watched = watched.under(service("window = 900\n"), Micros(2));
        assert_eq!(watched.probes[0].serving, ServingWatch::default());
    }
}
