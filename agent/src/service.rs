//! What the agent knows about one service: the record that the stages read
//! and the loop keeps up to date. No decisions are made here.

use core::time::Duration;
use std::collections::VecDeque;

use homeostat_common::anomaly::Exit;
use homeostat_common::ids::{Instance, ModelVersion};
use homeostat_common::observation::Reading;
use homeostat_common::units::{Bytes, Micros, Millis, Ratio, narrow};
use homeostat_common::wire::body::ServiceState;
use homeostat_detect::hang::{self, Hang};
use homeostat_detect::slope::{self, Slope};

use crate::config;

/// Answers over which availability and latency are computed: the last 12.8 s
/// of a probe each 100 ms, about a minute of one each second.
const ANSWERS_MAX: usize = 128;

/// A service without probes counts as started once it has lived this long.
pub const SETTLE: Millis = Millis(200);

/// The place where a service's process runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Slot {
    /// The spawner has not told yet.
    Unknown,
    /// No process.
    Down {
        /// Since when, as far as is known.
        since: Micros,
        /// The life that ended; `None` when there never was one.
        last: Option<(Instance, Exit)>,
    },
    /// A start was asked for.
    Starting {
        /// When.
        since: Micros,
    },
    /// A process runs.
    Up {
        /// This life.
        instance: Instance,
        /// Since when.
        since: Micros,
    },
}

/// What the last sample said about the process.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ProcessSample {
    /// Resident memory.
    pub resident: Reading<Bytes>,
    /// Cores in use.
    pub cpu: Reading<f32>,
    /// Open descriptors.
    pub descriptors: Reading<u64>,
    /// Threads.
    pub threads: Reading<u64>,
    /// Share of time it was ready to run and did not.
    pub run_delay: Reading<Ratio>,
}

/// Whether the model file is the verified one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelFile {
    /// Not looked at since the last doubt.
    Unchecked,
    /// Being read; asked for at this time.
    Checking(Micros),
    /// As verified.
    Intact,
    /// Another one, or none at all.
    Differs(Option<ModelVersion>),
    /// Its disk did not answer in time; nothing is known.
    Unanswered,
}

/// One probe's state.
#[derive(Debug)]
pub struct ProbeWatch {
    /// The hang verdict.
    pub hang: Hang,
    /// When the next one is due.
    pub next: Micros,
    /// Whether this life answered it rightly at least once.
    pub proven: bool,
    /// The last thing that was wrong about an answer.
    pub wrong: Option<String>,
}

/// Everything known about one service.
#[derive(Debug)]
pub struct Watched {
    /// Its configuration.
    pub policy: config::Service,
    /// Where its process is.
    pub slot: Slot,
    /// The state that was last reported to the outside.
    pub told: Option<ServiceState>,
    /// One per configured probe.
    pub probes: Vec<ProbeWatch>,
    /// Growth of resident memory.
    pub memory: Slope,
    /// What it says.
    pub growth: slope::Verdict,
    /// The last sample.
    pub sample: ProcessSample,
    /// When it was taken.
    pub sampled: Option<Micros>,
    /// When a probe last had any result, even a timeout.
    pub probed: Option<Micros>,
    /// Latency in microseconds of right answers in time; `None` for the rest.
    answers: VecDeque<Option<u32>>,
    /// Whether the model file is the verified one.
    pub model: ModelFile,
    /// The verified copy that could be put back.
    pub verified_model: Option<ModelVersion>,
    /// Why the last start was refused, if it was.
    pub start_error: Option<String>,
    /// A standby that is meant to run.
    pub scaled_out: bool,
    /// When it last gave a sign of life by itself; only the forwarder does.
    pub heard: Option<Micros>,
    /// Since when it has used more processor than it may.
    pub hogging: Option<Micros>,
    /// How much its data are, and when that was measured.
    pub data_used: Reading<Bytes>,
    /// When.
    pub data_at: Option<Micros>,
}

impl Watched {
    /// A service of which nothing is known yet.
    #[must_use]
    pub fn new(policy: config::Service, now: Micros) -> Self {
        let probes = policy
            .probes
            .iter()
            .map(|probe| ProbeWatch {
                hang: Hang::new(hang::Policy {
                    period: span(probe.period),
                    timeout: span(probe.timeout),
                    misses: probe.misses,
                    wrongs: probe.misses,
                    cap: span(probe.gate_max),
                    ..hang::Policy::default()
                }),
                next: now,
                proven: false,
                wrong: None,
            })
            .collect();
        let memory = Slope::new(slope::Policy {
            limit: policy.memory_limit.map(|limit| limit.0 as f32),
            ..slope::Policy::default()
        });
        Self {
            policy,
            slot: Slot::Unknown,
            told: None,
            probes,
            memory,
            growth: slope::Verdict::Learning,
            sample: ProcessSample::default(),
            sampled: None,
            probed: None,
            answers: VecDeque::with_capacity(ANSWERS_MAX),
            model: ModelFile::Unchecked,
            verified_model: None,
            start_error: None,
            scaled_out: false,
            heard: None,
            hogging: None,
            data_used: Reading::Missing,
            data_at: None,
        }
    }

    /// Whether a process is meant to run.
    #[must_use]
    pub fn wanted(&self) -> bool {
        !self.policy.standby || self.scaled_out
    }

    /// Notes whether the last sample shows more processor than it may use.
    pub fn note_cpu(&mut self, now: Micros) {
        let over = match (self.policy.cpu_limit, self.sample.cpu.fresh()) {
            (Some(limit), Some(cores)) => cores > limit,
            _ => false,
        };
        self.hogging = over.then(|| self.hogging.unwrap_or(now));
    }

    /// A new life began: what was measured belongs to the former one.
    pub fn reborn(&mut self, instance: Instance, now: Micros) {
        self.slot = Slot::Up {
            instance,
            since: now,
        };
        for probe in &mut self.probes {
            probe.hang.reset();
            probe.next = now;
            probe.proven = false;
            probe.wrong = None;
        }
        self.memory.reset();
        self.growth = slope::Verdict::Learning;
        self.sample = ProcessSample::default();
        self.sampled = None;
        self.probed = None;
        self.answers.clear();
        self.start_error = None;
        self.heard = None;
        self.hogging = None;
    }

    /// Notes the outcome of one probe for availability and latency.
    pub fn answered(&mut self, latency_us: Option<u32>) {
        if self.answers.len() == ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back(latency_us);
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
        matches!(self.slot, Slot::Up { .. }) && self.proven(now) && !silent
    }

    /// Share of its users that it serves now.
    #[must_use]
    pub fn health(&self, now: Micros) -> Ratio {
        if !self.answering(now) {
            return Ratio::ZERO;
        }
        self.service_level().map_or(Ratio::ONE, |level| {
            Ratio::saturating(narrow(level.availability))
        })
    }

    /// What it does, in the words of the wire.
    #[must_use]
    pub fn state(&self, now: Micros) -> ServiceState {
        let sick = || {
            self.probes.iter().any(|probe| {
                matches!(
                    probe.hang.verdict(instant(now)),
                    hang::Verdict::Hung { .. } | hang::Verdict::Wrong
                )
            }) || matches!(self.growth, slope::Verdict::Leak { .. })
        };
        match self.slot {
            Slot::Down { .. } if !self.wanted() => ServiceState::Standby,
            Slot::Unknown | Slot::Down { .. } => ServiceState::Down,
            Slot::Starting { .. } => ServiceState::Starting,
            Slot::Up { since, .. } if !self.proven(now) => {
                if now >= since + self.policy.start_timeout {
                    ServiceState::Unhealthy
                } else {
                    ServiceState::Starting
                }
            }
            Slot::Up { .. } if sick() => ServiceState::Unhealthy,
            Slot::Up { .. } => ServiceState::Healthy,
        }
    }

    /// The present life.
    #[must_use]
    pub fn instance(&self) -> Option<Instance> {
        match self.slot {
            Slot::Up { instance, .. } => Some(instance),
            Slot::Unknown | Slot::Down { .. } | Slot::Starting { .. } => None,
        }
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

/// A moment as the detectors take it.
#[must_use]
pub fn instant(now: Micros) -> Duration {
    Duration::from_micros(now.0)
}

/// A span as the detectors take it.
#[must_use]
pub fn span(span: Millis) -> Duration {
    Duration::from_millis(span.0)
}
