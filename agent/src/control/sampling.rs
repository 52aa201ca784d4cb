//! Sense: takes a sample into the picture.
//!
//! In goes what was measured of the host and of each service; it ends in their records, in
//! detectors, in what is told of metrics, and in the pace of the next one. A process of nobody
//! here that takes a core while others wait is told to people.

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Part, Reading};
use homeostat_common::units::{Micros, Millis, Ratio};
use homeostat_common::wire::body::Severity;
use homeostat_detect::hang::{Input, Pressure};

use super::{Effect, HostSample, Loop, Stranger};
use crate::service::{ProcessSample, Slot, instant, span};

/// How often the data of services are measured: a walk over some thousand files.
const MEASURE_PERIOD: Millis = Millis(1000);

/// From this share of time in which some task waits for a core, silence says less.
pub(super) const PRESSED: f32 = 0.25;

/// A stranger is told of from this many cores on, over some seconds ...
const STRANGER_CORES: f32 = 0.5;

/// ... while some task waits for a core for this share of the time.
const STRANGER_PRESSURE: f32 = 0.1;

/// ... and is over once there was none for so long: a build is one process after the other,
/// with a moment between them.
const STRANGER_GONE: Millis = Millis::secs(60);

impl Loop {
    pub(super) fn absorb_sample(
        &mut self,
        now: Micros,
        mut host: HostSample,
        mut processes: Vec<(ServiceId, ProcessSample)>,
        effects: &mut Vec<Effect>,
    ) {
        // What cannot be true goes no further than this.
        self.note_lives();
        self.noticing
            .sensors()
            .screen(now, &mut host, &mut processes);
        // Shares are between two samples: one alone, as after a start of the agent,
        // has none, and must not pass for calm.
        let measured = self.sampled.is_some();
        self.sampled = Some(now);
        if let Reading::Fresh(unix_ms) = host.wall {
            self.recur(now, unix_ms, effects);
        }
        let own_lag = self.own_lag(now);
        let usual_pace = self.period_passed(now);
        let share = |reading: Reading<Ratio>| reading.fresh().map_or(f32::NAN, |share| share.get());
        let mut pressure = Pressure {
            cpu_psi: share(host.cpu_pressure),
            io_psi: share(host.io_pressure),
            own_lag: span(own_lag),
            run_delay: f32::NAN,
            starved: false,
        };
        for (service, sample) in processes {
            let Some(watched) = self.services.get_mut(&service) else {
                continue;
            };
            watched.sample = sample;
            watched.pressed = host
                .cpu_pressure
                .fresh()
                .is_some_and(|waiting| waiting.get() >= PRESSED);
            watched.sampled = Some(now);
            if let (Reading::Fresh(resident), Slot::Up { .. }, true) =
                (sample.resident, watched.slot, usual_pace)
            {
                watched.growth = watched.memory.push(instant(now), resident.0 as f32);
            }
            watched.note_cpu(now);
            watched.note_process(now, usual_pace);
            pressure.run_delay = share(sample.run_delay);
            pressure.starved = sample.starved.fresh().unwrap_or_default();
            for probe in watched.probes.iter_mut().filter(|_| measured) {
                probe.hang.absorb(instant(now), Input::Gate(pressure));
            }
        }
        for watched in self.services.values_mut() {
            let known = |need: &Part| {
                let one = host.elsewhere.iter().find(|one| one.name == *need)?;
                if one.silent { Some(now) } else { one.right }
            };
            let needs = watched.policy.needs.iter().map(known);
            watched.elsewhere = needs.min().flatten();
        }
        self.host = host;
        let readings = self.readings(now);
        self.notice(now, &readings, effects);
        if usual_pace {
            self.remember_row(now, &readings);
        }
        self.telling.sampled(readings);
        self.look_for_strangers(now, effects);
        self.foresee(now, effects);
        self.pace(now);
        if now >= self.measured + MEASURE_PERIOD {
            self.measured = now;
            for (id, watched) in &self.services {
                if watched.policy.data.is_some() {
                    effects.push(Effect::Measure(id.clone()));
                }
            }
        }
    }

    /// A process that is none of ours and takes a core while others wait is told
    /// to people. It is never touched. What is told is that the node is taken by
    /// others; which one it is now stands in the text.
    fn look_for_strangers(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        const ALARM: &str = "stranger-cpu";
        let waiting = self.host.cpu_pressure.fresh().map_or_else(
            // Without PSI: nothing is left to be had.
            || {
                self.host
                    .cpu_busy
                    .fresh()
                    .is_some_and(|busy| busy.get() >= 0.9)
            },
            |pressure| pressure.get() >= STRANGER_PRESSURE,
        );
        let stands = self.alarms.stands(ALARM);
        let told = |one: &Stranger| one.cores >= STRANGER_CORES && waiting;
        // What is told of stands until it has really let go.
        let kept = |one: &Stranger| stands && one.cores >= STRANGER_CORES / 2.0;
        match self.host.stranger.filter(|one| told(one) || kept(one)) {
            Some(found) => {
                self.stranger = Some((now, found));
                let text = format!(
                    "process {} ({}) takes {:.1} cores while others wait, and is none of the \
                     services here; it is not touched",
                    found.pid,
                    found.name(),
                    found.cores
                );
                self.raise(ALARM, None, Severity::Warning, text, effects);
            }
            None => {
                let Some((seen, last)) = self.stranger else {
                    return;
                };
                if now.since(seen) < STRANGER_GONE {
                    return;
                }
                self.stranger = None;
                let text = format!(
                    "for {STRANGER_GONE} no process that is none of the services here has kept \
                     others waiting; the last was {} ({})",
                    last.pid,
                    last.name()
                );
                self.raise(ALARM, None, Severity::Warning, text, effects);
                self.clear(ALARM, effects);
            }
        }
    }
}
