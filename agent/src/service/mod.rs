//! What the agent knows about one service: the record that the stages read
//! and the loop keeps up to date. No decisions are made here.
//!
//! In go answers, samples and deaths as the loop takes them in; out come what
//! they amount to: whether it has shown that it works, whom it answers, how well.
//! What is kept about its slots, its metrics and its use of processors stands in
//! a file each.

mod answers;
mod cpu;
mod descriptors;
mod metrics;
mod probes;
pub mod serving;
mod slots;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use homeostat_common::anomaly::Exit;
use homeostat_common::ids::Instance;
use homeostat_common::observation::Reading;
use homeostat_common::units::{Bytes, Micros, Millis, Ratio, narrow};
use homeostat_common::wire::body::ServiceState;
use homeostat_detect::hang;
use homeostat_detect::slope::{self, Slope};

pub use self::answers::{Answers, Choice};
pub use self::cpu::{CpuWindow, HOG_SPAN};
pub use self::descriptors::{DescriptorWatch, Shortage};
pub use self::metrics::MetricsWatch;
pub use self::probes::{ProbeWatch, SETTLE, ServiceLevel};
pub use self::slots::{SlotFile, SlotFound, SlotName, SlotWatch, Version};

use crate::config::{self, ProbeKind};
use crate::control::Room;

/// The state of a process that was stopped; one under a debugger has another.
const STOPPED: char = 'T';

/// A process that nobody probes may stand stopped for so long: people stop one to
/// look at it.
const STOPPED_MAX: Millis = Millis::secs(10);

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
    /// How many it may have open.
    pub descriptor_limit: Reading<u64>,
    /// What the scheduler says of it: `T` for one that was stopped.
    pub state: Reading<char>,
    /// Threads.
    pub threads: Reading<u64>,
    /// Share of time it was ready to run and did not.
    pub run_delay: Reading<Ratio>,
    /// Whether a thread of it wants to run, or waits for a disk, while it has hardly
    /// run since the last look at its threads; only looked at while it is silent.
    pub starved: Reading<bool>,
    /// Sources that held something else than they should.
    pub garbage: u32,
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
    /// Its open descriptors against their limit.
    pub descriptors: DescriptorWatch,
    /// Since when each sample has shown it stopped (SIGSTOP).
    pub stopped: Option<Micros>,
    /// The last sample.
    pub sample: ProcessSample,
    /// When it was taken.
    pub sampled: Option<Micros>,
    /// When a probe last had any result, even a timeout.
    pub probed: Option<Micros>,
    /// Latency in microseconds of right answers in time; `None` for the rest.
    answers: VecDeque<Option<u32>>,
    /// Its slots.
    pub slots: BTreeMap<SlotName, SlotWatch>,
    /// Whether its last life had shown that it works.
    pub lived: bool,
    /// Why the last start was refused, if it was.
    pub start_error: Option<String>,
    /// A standby that is meant to run and to get traffic.
    pub scaled_out: bool,
    /// A standby that is meant to run.
    pub warm: bool,
    /// The life that was frozen on purpose: nobody expects answers of it.
    pub paused: Option<Instance>,
    /// When it last gave a sign of life by itself; only the forwarder does.
    pub heard: Option<Micros>,
    /// Tasks of the node had to wait for a core at the last sample.
    pub pressed: bool,
    /// How much processor it has used lately.
    pub cpu: CpuWindow,
    /// When all that it needs elsewhere were last asked of whom it is known whether they answer.
    pub elsewhere: Option<Micros>,
    /// How much its data are, and when that was measured.
    pub data_used: Reading<Bytes>,
    /// What is left on their file system.
    pub data_room: Reading<Room>,
    /// When.
    pub data_at: Option<Micros>,
    /// When it was asked for besides the usual.
    pub measure_asked: Micros,
}

impl Watched {
    /// A service of which nothing is known yet.
    #[must_use]
    pub fn new(policy: config::Service, now: Micros) -> Self {
        let probes = policy.probes.iter();
        let probes = probes.map(|probe| ProbeWatch::new(probe, now)).collect();
        let memory = Slope::new(slope::Policy {
            limit: policy.memory_limit.map(|limit| limit.0 as f32),
            ..slope::Policy::default()
        });
        let configured = [
            policy.model.is_some().then_some(SlotName::Model),
            policy.config.is_some().then_some(SlotName::Config),
        ];
        let slots = configured
            .into_iter()
            .flatten()
            .map(|name| (name, SlotWatch::new()))
            .collect();
        Self {
            policy,
            slot: Slot::Unknown,
            told: None,
            probes,
            memory,
            growth: slope::Verdict::Learning,
            descriptors: DescriptorWatch::default(),
            stopped: None,
            sample: ProcessSample::default(),
            sampled: None,
            probed: None,
            answers: VecDeque::with_capacity(probes::ANSWERS_MAX),
            slots,
            lived: true,
            start_error: None,
            scaled_out: false,
            warm: false,
            paused: None,
            heard: None,
            pressed: false,
            cpu: CpuWindow::default(),
            data_used: Reading::Missing,
            data_room: Reading::Missing,
            data_at: None,
            elsewhere: None,
            measure_asked: Micros(0),
        }
    }

    /// What is in its slots counts as good once it has worked for a while. In a
    /// life that had begun before, only what the service notices by itself is what
    /// it works with.
    pub fn prove_slots(&mut self, at: Micros, fresh: bool) {
        for (name, slot) in &mut self.slots {
            if fresh || watches(&self.policy, *name) {
                slot.prove(at);
            }
        }
    }

    /// Whether it notices by itself what is put into that slot.
    #[must_use]
    pub fn watches(&self, name: SlotName) -> bool {
        watches(&self.policy, name)
    }

    /// Whether what it tells of itself has stopped to move, in words.
    #[must_use]
    pub fn frozen(&self) -> Option<String> {
        let probes = self.probes.iter().zip(&self.policy.probes);
        probes
            .filter_map(|(watch, probe)| match &probe.kind {
                ProbeKind::Metrics { frozen, .. } if watch.metrics.frozen(*frozen) => Some(*frozen),
                _ => None,
            })
            .map(|after| {
                format!(
                    "the metrics of {} have been the same to the last byte in more than {after} \
                     answers, although it answers",
                    self.policy.id
                )
            })
            .next()
    }

    /// Versions that can be put into one of its slots.
    pub fn at_hand(&self, name: SlotName) -> impl Iterator<Item = Version> {
        self.slots
            .get(&name)
            .into_iter()
            .flat_map(SlotWatch::at_hand)
    }

    /// Something went wrong that may come from what it reads.
    pub fn doubt_slots(&mut self) {
        for slot in self.slots.values_mut() {
            slot.doubt();
        }
    }

    /// Whether a process is meant to run.
    #[must_use]
    pub fn wanted(&self) -> bool {
        !self.policy.standby || self.scaled_out || self.warm
    }

    /// Whether its present life was frozen on purpose.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.is_some() && self.paused == self.instance()
    }

    /// Notes what the last sample shows of descriptors, if it is one of the usual pace, and
    /// of a process that was stopped.
    pub fn note_process(&mut self, now: Micros, usual_pace: bool) {
        // The forwarder's descriptors are connections of its users, whose number
        // it bounds by itself.
        if self.heard.is_none() && usual_pace {
            let sample = &self.sample;
            self.descriptors.push(
                now,
                sample.descriptors.fresh(),
                sample.descriptor_limit.fresh(),
            );
        }
        self.stopped = match self.sample.state.fresh() {
            Some(STOPPED) => self.stopped.or(Some(now)),
            _ => None,
        };
    }

    /// Notes how much processor the last sample shows.
    pub fn note_cpu(&mut self, now: Micros) {
        match self.sample.cpu.fresh() {
            Some(cores) => self.cpu.push(now, cores),
            None => self.cpu = CpuWindow::default(),
        }
    }

    /// The same life under another policy.
    #[must_use]
    pub fn under(self, policy: config::Service, now: Micros) -> Self {
        let proven = self.proven(now);
        let mut renewed = Self::new(policy, now);
        // Answers to the former probes are still on their way; a verdict starts
        // anew, what the life has shown stays.
        for probe in &mut renewed.probes {
            probe.proven = proven;
        }
        let policies = self.policy.probes.iter().zip(&renewed.policy.probes);
        let probes = self.probes.into_iter().zip(&mut renewed.probes);
        for ((former, probe), _) in probes.zip(policies).filter(|(_, (old, new))| old == new) {
            probe.serving = former.serving;
            probe.answers = former.answers;
        }
        let memory = if self.policy.memory_limit == renewed.policy.memory_limit {
            self.memory
        } else {
            renewed.memory
        };
        let mut slots = self.slots;
        slots.retain(|name, _| renewed.slots.contains_key(name));
        let kept = self.policy.model == renewed.policy.model
            && self.policy.config == renewed.policy.config;
        Self {
            slot: self.slot,
            told: self.told,
            memory,
            growth: self.growth,
            descriptors: self.descriptors,
            stopped: self.stopped,
            sample: self.sample,
            sampled: self.sampled,
            probed: self.probed,
            answers: self.answers,
            slots: if kept { slots } else { renewed.slots },
            lived: self.lived,
            start_error: self.start_error,
            scaled_out: self.scaled_out,
            warm: self.warm,
            paused: self.paused,
            heard: self.heard,
            ..renewed
        }
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
            probe.rights = 0;
            probe.wrong = None;
            probe.wrong_since = None;
            probe.metrics = MetricsWatch::default();
            probe.confidence = None;
            probe.model = None;
            probe.answers = Answers::default();
        }
        self.memory.reset();
        self.growth = slope::Verdict::Learning;
        self.descriptors = DescriptorWatch::default();
        self.stopped = None;
        self.sample = ProcessSample::default();
        self.sampled = None;
        self.probed = None;
        self.answers.clear();
        self.start_error = None;
        self.heard = None;
        self.cpu = CpuWindow::default();
    }

    /// Since when a process has been stopped that nobody will let run on: it keeps
    /// its users waiting, or nobody probes it and it has been so for long.
    #[must_use]
    pub fn frozen_process(&self, now: Micros) -> Option<Micros> {
        // One that a plan has frozen is to stand still.
        let since = self.stopped.filter(|_| !self.is_paused())?;
        let waits = |probe: &ProbeWatch| {
            let verdict = probe.hang.verdict(instant(now));
            matches!(verdict, hang::Verdict::Waiting | hang::Verdict::Hung { .. })
        };
        let found = if self.probes.is_empty() {
            now.since(since) >= STOPPED_MAX
        } else {
            self.probes.iter().any(waits)
        };
        found.then_some(since)
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
                || self.descriptors.shortage().is_some()
                || self.frozen_process(now).is_some()
        };
        match self.slot {
            Slot::Down { .. } if !self.wanted() => ServiceState::Standby,
            Slot::Unknown | Slot::Down { .. } => ServiceState::Down,
            Slot::Starting { .. } => ServiceState::Starting,
            Slot::Up { .. } if self.is_paused() => ServiceState::Paused,
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
}

fn watches(policy: &config::Service, name: SlotName) -> bool {
    let reload = match name {
        SlotName::Model => policy.model.as_ref().map(|slot| slot.reload),
        SlotName::Config => policy.config.as_ref().map(|slot| slot.reload),
    };
    reload == Some(config::Reload::Watch)
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
