//! What the agent's shell measures and asks, simulated: probes on their way, and samples.

use homeostat_agent::config::ProbeKind;
use homeostat_agent::control::{
    Elsewhere, Event, HostSample, ProbeOutcome, Sourced, Stranger, Told,
};
use homeostat_agent::service::ProcessSample;
use homeostat_common::ids::{Instance, ServiceId};
use homeostat_common::observation::{Metric, MetricReading, Reading};
use homeostat_common::units::{Bytes, Ratio};

use super::world::{DESCRIPTORS_MAX, Life, Reaction};
use super::{Happening, Sim};

/// The last questions to a dependency that count, and those after which it is silent.
const QUESTIONS: usize = 20;
const SILENT: usize = 2;

/// A probe on its way.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) service: ServiceId,
    pub(super) probe: usize,
    pub(super) number: u64,
    /// The life that was asked.
    pub(super) life: Option<Instance>,
    pub(super) outcome: ProbeOutcome,
    pub(super) late: bool,
}

impl Sim {
    pub(super) fn ask(&mut self, service: ServiceId, probe: usize) {
        self.probe_number += 1;
        let number = self.probe_number;
        let sent = Event::ProbeSent {
            service: service.clone(),
            probe,
            number,
        };
        self.push_us(0, Happening::Tell(self.run, sent));
        let timeout = self
            .config
            .service(&service)
            .and_then(|found| found.probes.get(probe))
            .map_or(0, |probe| probe.timeout.0 * 1000);
        let takes = if self.host.pressure > 0.3 {
            self.probe_rng.u64(10_000..timeout * 6)
        } else {
            self.probe_rng.u64(500..5000)
        };
        let takes = takes + u64::from(self.world.dragged(&service));
        let reaction = self.world.reaction(&service, self.now);
        let (answer, outcome) = match reaction {
            Reaction::Refused => (300, Some(ProbeOutcome::Refused)),
            Reaction::Wrong => (takes, Some(ProbeOutcome::Wrong("7 is not 8".into()))),
            Reaction::Right => (takes, Some(right(takes))),
            Reaction::Silent(until) if until.0 < u64::MAX => {
                let answer = until.0 - self.now.0 + takes;
                (answer, Some(right(answer)))
            }
            Reaction::Silent(_) => (u64::MAX, None),
        };
        let mut asked = Asked {
            life: self.world.life(&service).map(|life| life.instance),
            service,
            probe,
            number,
            outcome: ProbeOutcome::TimedOut,
            late: false,
        };
        if answer > timeout {
            self.push_us(timeout, Happening::ProbeEnds(self.run, asked.clone()));
            asked.late = true;
        }
        if let Some(outcome) = outcome {
            asked.outcome = outcome;
            self.push_us(answer, Happening::ProbeEnds(self.run, asked));
        }
    }

    pub(super) fn answer(&mut self, asked: Asked) {
        let present = self.world.life(&asked.service).map(|life| life.instance);
        let blocked = matches!(
            self.world.reaction(&asked.service, self.now),
            Reaction::Silent(_)
        );
        let outcome = match asked.outcome {
            ProbeOutcome::TimedOut => ProbeOutcome::TimedOut,
            // It died or blocked before it could answer.
            _ if present != asked.life => ProbeOutcome::Refused,
            _ if blocked && asked.late => return,
            _ if blocked => ProbeOutcome::TimedOut,
            outcome => outcome,
        };
        let policy = self.config.service(&asked.service);
        let policy = policy.and_then(|service| service.probes.get(asked.probe));
        let answered = matches!(outcome, ProbeOutcome::Right { .. });
        if let Some(ProbeKind::Metrics { gauges, .. }) = policy.map(|probe| &probe.kind)
            && let Some(life) = self.world.life(&asked.service).filter(|_| answered)
        {
            let (value, moves) = life.gauge;
            let told = Told::Metrics {
                hash: if moves { asked.number } else { 0 },
                gauges: vec![Some(value); gauges.len()],
                page: None,
            };
            self.tell(Event::Told {
                service: asked.service.clone(),
                probe: asked.probe,
                told,
            });
        }
        self.tell(Event::Probed {
            service: asked.service,
            probe: asked.probe,
            number: asked.number,
            outcome,
            late: asked.late,
        });
    }

    pub(super) fn sample(&mut self) {
        if self.host.frozen {
            return;
        }
        // Shares are between two samples.
        let first = std::mem::replace(&mut self.host.sampled, self.run) != self.run;
        let share = |share: f32| {
            let measured = Some(Ratio::saturating(share)).filter(|_| !first);
            Reading::from(measured)
        };
        self.host.samples += 1;
        let (sources, elsewhere) = self.dependencies();
        // Four processors, of which each process uses what it does.
        let lives = self.world.places.values();
        let each = lives.filter_map(|place| Some(cores(place.life.as_ref()?)));
        let used = (each.sum::<f32>() + self.host.stranger) / 4.0;
        let host = HostSample {
            cpu_pressure: share(self.host.pressure.max(self.host.stranger / 4.0)),
            io_pressure: share(0.0),
            cpu_busy: share(self.host.pressure.max(used)),
            battery: Reading::from(self.host.supply()),
            stranger: (self.host.stranger > 0.0).then_some(Stranger {
                pid: 4711,
                name: *b"stress-ng\0\0\0\0\0\0\0",
                cores: self.host.stranger,
            }),
            wall: Reading::from(self.host.wall.map(|wall| wall + self.now.0 / 1000)),
            heat: Reading::from(self.host.heat(self.now)),
            cores: Reading::Fresh(4),
            sources,
            elsewhere,
            ..HostSample::default()
        };
        self.kill_for_memory();
        let mut processes = Vec::new();
        for (id, place) in &self.world.places {
            if let Some(life) = &place.life {
                // A positive number of bytes far below 2^63.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let resident = Bytes(self.world.resident(id, self.now) as u64);
                let mut sample = ProcessSample {
                    resident: Reading::Fresh(resident),
                    descriptors: Reading::Fresh(self.world.descriptors(id, self.now)),
                    descriptor_limit: Reading::Fresh(DESCRIPTORS_MAX),
                    state: Reading::Fresh(match self.world.life(id) {
                        Some(life) if life.stopped => 'T',
                        _ => 'S',
                    }),
                    // Whoever answers nothing sleeps, and waits for no core.
                    run_delay: match self.world.reaction(id, self.now) {
                        Reaction::Silent(_) => share(0.0),
                        _ => share(self.host.pressure / 2.0),
                    },
                    cpu: Reading::Fresh(cores(life)),
                    starved: Reading::Fresh(life.starved.is_some_and(|until| until > self.now)),
                    ..ProcessSample::default()
                };
                self.host.lie(id, &mut sample);
                processes.push((id.clone(), sample));
            }
        }
        self.tell(Event::Sample(Box::new(host), processes));
    }

    /// Each dependency is asked with each sample, and the last questions are what is known.
    fn dependencies(&mut self) -> (Vec<Sourced>, Vec<Elsewhere>) {
        let (mut sources, mut elsewhere) = (Vec::new(), Vec::new());
        for dependency in &self.config.dependencies {
            let right = !self.world.refusing.contains(&dependency.name);
            let asked = self.host.asked.entry(dependency.name.clone()).or_default();
            asked.push_back(right);
            if asked.len() > QUESTIONS {
                asked.pop_front();
            }
            let last = asked.iter().rev().take(SILENT);
            elsewhere.push(Elsewhere {
                name: dependency.name.clone(),
                silent: asked.len() >= SILENT && !last.clone().any(|right| *right),
                right: right.then_some(self.now),
            });
            let share = asked.iter().filter(|right| **right).count() as f64 / asked.len() as f64;
            sources.push(Sourced {
                reading: MetricReading::part(
                    Metric::Availability,
                    dependency.name.clone(),
                    Reading::Fresh(share),
                ),
                new: true,
            });
        }
        (sources, elsewhere)
    }
}

/// Cores that a process uses.
fn cores(life: &Life) -> f32 {
    life.hog.unwrap_or(0.05)
}

fn right(takes: u64) -> ProbeOutcome {
    ProbeOutcome::Right {
        latency_us: u32::try_from(takes).unwrap_or(u32::MAX),
    }
}
