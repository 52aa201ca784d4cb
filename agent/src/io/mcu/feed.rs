//! Feeds a microcontroller with metrics of this node, and tells the loop what it says.
//!
//! A thread of its own for each, because a serial line may block. The loop's side never waits:
//! when the thread is behind, a round of samples is left out, and the detectors see a gap. A
//! line that cannot be opened, or on which nobody answers, is an alarm, and is tried for ever.

use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use homeostat_common::ids::BootId;
use homeostat_common::observation::{Metric, MetricReading, Nature, Reading};
use homeostat_common::units::{Micros, Millis};
use homeostat_serial::host::{self, Host, Sample};
use homeostat_serial::message::{Alarm, Setup};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Session;
use super::port::PortError;
use crate::config::Mcu;
use crate::control::{Event, HostSample, Sourced};
use crate::io::keeper::chain;
use crate::sense::host_readings;

/// Rounds of samples that wait for the thread.
const ROUNDS_MAX: usize = 4;

/// How long the line is listened to at once: the most that a round waits.
const LISTEN: Duration = Duration::from_millis(100);

/// Pause before a line is opened again.
const RETRY: Duration = Duration::from_secs(5);

/// Silence after which a person is told; a device that restarts takes less.
const SILENCE_MAX: Duration = Duration::from_secs(10);

type Round = Vec<Sample>;

/// The loop's side of a microcontroller.
#[derive(Debug)]
pub struct Feed {
    mcu: Mcu,
    /// How often it is fed, whatever the pace of the samples: windows of detectors count
    /// samples.
    period: Millis,
    fed: Option<Micros>,
    /// Slow sources among its metrics that have measured something since then.
    news: BTreeSet<Metric>,
    rounds: SyncSender<Round>,
}

impl Feed {
    /// Starts the thread; it ends with this.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(
        mcu: &Mcu,
        period: Millis,
        boot: BootId,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let (rounds, waiting) = sync_channel(ROUNDS_MAX);
        let line = Line {
            mcu: mcu.clone(),
            setups: setups(mcu, boot),
            events,
            raised: BTreeSet::new(),
            down: false,
        };
        std::thread::Builder::new()
            .name(format!("mcu-{}", mcu.name))
            .spawn(move || line.serve(&waiting))?;
        Ok(Self::new(mcu, period, rounds))
    }

    fn new(mcu: &Mcu, period: Millis, rounds: SyncSender<Round>) -> Self {
        Self {
            mcu: mcu.clone(),
            period,
            fed: None,
            news: BTreeSet::new(),
            rounds,
        }
    }

    /// Sends what it watches of this sample, if a period has passed.
    pub fn offer(&mut self, now: Micros, sample: &HostSample) {
        let of_node = |one: &&Sourced| is_of_node(&one.reading, one.reading.metric);
        let new = sample.sources.iter().filter(|one| one.new);
        self.news
            .extend(new.filter(of_node).map(|one| one.reading.metric));
        // A tenth is left to timers that are early.
        let early = |fed: Micros| 10 * now.since(fed).0 < 9 * self.period.0;
        if self.fed.is_some_and(early) {
            return;
        }
        self.fed = Some(now);
        let news = std::mem::take(&mut self.news);
        let at = Duration::from_micros(now.0);
        let readings = host_readings(sample, Millis(0));
        let old = |metric: Metric| {
            let is_its = |one: &Sourced| is_of_node(&one.reading, metric);
            !news.contains(&metric) && sample.sources.iter().any(is_its)
        };
        let round = (0..)
            .zip(&self.mcu.metrics)
            .filter_map(|(channel, metric)| {
                let mut of_node = readings.iter().filter(|one| is_of_node(one, *metric));
                let reading = of_node.next().map_or(Reading::Missing, |one| one.reading);
                // Of an earlier sample, or of what is not always there: nothing was measured,
                // and nothing is wrong.
                let absent = metric.nature() == Nature::Occasional && reading.fresh().is_none();
                if old(*metric) || absent {
                    return None;
                }
                #[allow(clippy::cast_possible_truncation)] // what detectors compute with
                let value = reading.fresh().map(|value| value as f32);
                Some(Sample { channel, at, value })
            });
        // Full: it is behind, and the next round says more than this one.
        let _ = self.rounds.try_send(round.collect());
    }
}

fn is_of_node(reading: &MetricReading, metric: Metric) -> bool {
    reading.metric == metric && reading.service.is_none() && reading.part.is_none()
}

/// A metric of another name, or the same after a boot, has another tag: what was learnt of
/// it is forgotten, because times begin anew.
fn setups(mcu: &Mcu, boot: BootId) -> Vec<Setup> {
    let tag = |name: &str| crc32fast::hash(format!("{boot:?} {name}").as_bytes());
    let setup = |metric: &Metric| Setup {
        tag: tag(metric.name()),
        // The agent samples slower when it saves power, and says itself what did not come.
        period_ms: 0,
    };
    mcu.metrics.iter().map(setup).collect()
}

/// The thread's side.
struct Line {
    mcu: Mcu,
    setups: Vec<Setup>,
    events: mpsc::Sender<Event>,
    /// Channels whose alarm the loop knows of.
    raised: BTreeSet<u8>,
    /// The loop knows that nobody answers.
    down: bool,
}

/// The agent ends.
struct Ended;

impl Line {
    fn serve(mut self, rounds: &Receiver<Round>) {
        loop {
            let Err(error) = self.talk(rounds) else {
                return;
            };
            warn!("mcu {}: {}", self.mcu.name, chain(&error));
            if self.is_lost(&chain(&error)).is_err() {
                return;
            }
            let again = Instant::now() + RETRY;
            loop {
                match rounds.recv_timeout(again.saturating_duration_since(Instant::now())) {
                    Ok(_) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }

    /// Until the agent ends, or the line fails.
    fn talk(&mut self, rounds: &Receiver<Round>) -> Result<(), PortError> {
        let mut host = Host::new();
        for (channel, setup) in (0..).zip(&self.setups) {
            host.set_up(channel, *setup);
        }
        let mut session = Session::open(&self.mcu.device, self.mcu.baud, host)?;
        let mut heard = Instant::now();
        loop {
            loop {
                match rounds.try_recv() {
                    Ok(round) => round.into_iter().for_each(|one| session.host.offer(one)),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            let mut told = Vec::new();
            session.pump(LISTEN, |event| told.push(event))?;
            for event in told {
                if event != host::Event::Gone {
                    heard = Instant::now();
                }
                if self.take(&event).is_err() {
                    return Ok(());
                }
            }
            if heard.elapsed() > SILENCE_MAX
                && self
                    .is_down(&format!("nobody answers on {}", self.mcu.device.display()))
                    .is_err()
            {
                return Ok(());
            }
        }
    }

    fn take(&mut self, event: &host::Event) -> Result<(), Ended> {
        match event {
            host::Event::Started(hello) if !hello.asked => {
                warn!("mcu {}: has started: {:?}", self.mcu.name, hello.cause);
                // It has forgotten what it said.
                for channel in std::mem::take(&mut self.raised) {
                    self.say(channel, None)?;
                }
            }
            host::Event::Ready => {
                info!(
                    "mcu {}: watches {} metrics",
                    self.mcu.name,
                    self.setups.len()
                );
                self.down = false;
                self.tell(None, None)?;
            }
            host::Event::Alarm(alarm) => self.alarm(alarm)?,
            host::Event::State(state) if state.alarm.is_none() => {
                // Its end was lost on the line.
                if self.raised.remove(&state.channel) {
                    self.say(state.channel, None)?;
                }
            }
            host::Event::Started(_)
            | host::Event::State(_)
            | host::Event::Scored(_)
            | host::Event::Health(_)
            | host::Event::Gone => {}
        }
        Ok(())
    }

    fn alarm(&mut self, alarm: &Alarm) -> Result<(), Ended> {
        if !alarm.stands {
            self.raised.remove(&alarm.channel);
            return self.say(alarm.channel, None);
        }
        self.raised.insert(alarm.channel);
        let metric = self.mcu.metrics.get(usize::from(alarm.channel));
        let name = metric.map_or("?", |metric| metric.name());
        let says = alarm
            .member
            .member()
            .map_or("is unusual", |member| member.words());
        let text = format!(
            "{}: {name} {says} (score {:.2}, uncertainty {:.2})",
            self.mcu.name, alarm.score, alarm.uncertainty
        );
        self.say(alarm.channel, Some(text))
    }

    /// The line failed. What ends on the device from now on nobody hears, and whoever talks to
    /// it next does not know what stood: what still stands then is told anew.
    fn is_lost(&mut self, why: &str) -> Result<(), Ended> {
        for channel in std::mem::take(&mut self.raised) {
            self.say(channel, None)?;
        }
        self.is_down(why)
    }

    fn is_down(&mut self, why: &str) -> Result<(), Ended> {
        if std::mem::replace(&mut self.down, true) {
            return Ok(());
        }
        self.tell(
            None,
            Some(format!("microcontroller {}: {why}", self.mcu.name)),
        )
    }

    fn say(&self, channel: u8, text: Option<String>) -> Result<(), Ended> {
        match self.mcu.metrics.get(usize::from(channel)) {
            Some(metric) => self.tell(Some(*metric), text),
            None => Ok(()),
        }
    }

    fn tell(&self, metric: Option<Metric>, text: Option<String>) -> Result<(), Ended> {
        let event = Event::Mcu {
            mcu: self.mcu.name.clone(),
            metric,
            text,
        };
        self.events.blocking_send(event).map_err(|_| Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeostat_common::ids::McuId;
    use homeostat_common::units::Ratio;
    use homeostat_serial::message::{At, Cause, Hello, Part, State};

    fn line() -> (Line, mpsc::Receiver<Event>) {
        let (events, told) = mpsc::channel(16);
        let mcu = Mcu {
            name: McuId::new("m4").unwrap(),
            device: "/dev/null".into(),
            baud: 115_200,
            metrics: vec![Metric::CpuBusy, Metric::Load],
        };
        let line = Line {
            setups: Vec::new(),
            mcu,
            events,
            raised: BTreeSet::new(),
            down: true,
        };
        (line, told)
    }

    fn alarm(channel: u8, stands: bool) -> host::Event {
        host::Event::Alarm(Alarm {
            channel,
            stands,
            since: At::default(),
            score: 0.75,
            uncertainty: 0.25,
            member: Part(0),
        })
    }

    /// Metric and text of all that the loop is told about these.
    fn told(events: &[host::Event]) -> Vec<(Option<Metric>, Option<String>)> {
        let (mut line, mut told) = line();
        for event in events {
            assert!(line.take(event).is_ok());
        }
        let mut all = Vec::new();
        while let Ok(Event::Mcu { metric, text, .. }) = told.try_recv() {
            all.push((metric, text));
        }
        all
    }

    #[test]
    fn alarms_name_their_metric_and_end() {
        let text = "m4: load higher than ever (score 0.75, uncertainty 0.25)".to_owned();
        assert_eq!(
            told(&[
                host::Event::Ready,
                alarm(1, true),
                alarm(1, false),
                alarm(9, true)
            ]),
            [
                (None, None),
                (Some(Metric::Load), Some(text)),
                (Some(Metric::Load), None)
            ]
        );
    }

    #[test]
    fn alarms_of_a_line_that_fails_end_with_it() {
        let (mut line, mut told) = line();
        line.down = false;
        assert!(line.take(&alarm(1, true)).is_ok());
        assert!(line.is_lost("it was closed").is_ok());
        let mut all = Vec::new();
        while let Ok(Event::Mcu { metric, text, .. }) = told.try_recv() {
            all.push((metric, text.is_some()));
        }
        let load = Some(Metric::Load);
        assert_eq!(all, [(load, true), (load, false), (None, true)]);
    }

    #[test]
    fn it_is_fed_once_a_period_with_all_that_was_measured_meanwhile() {
        let (rounds, waiting) = sync_channel(ROUNDS_MAX);
        let (line, _) = line();
        let mut feed = Feed::new(&line.mcu, Millis::secs(1), rounds);
        let mut look = |millis: u64, load_is_new: bool| {
            let reading = MetricReading::node(Metric::Load, Reading::Fresh(2.5));
            let sample = HostSample {
                cpu_busy: Reading::Fresh(Ratio::saturating(0.5)),
                sources: vec![Sourced {
                    reading,
                    new: load_is_new,
                }],
                ..HostSample::default()
            };
            feed.offer(Micros(millis * 1000), &sample);
            let round = waiting.try_recv().unwrap_or_default();
            let values: Vec<_> = round.iter().map(|one| (one.channel, one.value)).collect();
            values
        };
        let (busy, load) = ((0, Some(0.5)), (1, Some(2.5)));
        assert_eq!(look(0, true), [busy, load]);
        // Four times as often, as while something may be wrong.
        assert_eq!(look(250, false), []);
        assert_eq!(look(500, true), []);
        assert_eq!(look(750, false), []);
        assert_eq!(look(1000, false), [busy, load]);
        assert_eq!(look(2000, false), [busy]);
        let silent = HostSample {
            cpu_busy: Reading::Stale {
                last: Ratio::saturating(0.5),
                age: Millis(1000),
            },
            ..HostSample::default()
        };
        feed.offer(Micros(3_000_000), &silent);
        let round = waiting.try_recv().unwrap();
        assert_eq!((round[0].channel, round[0].value), (0, None));
    }

    #[test]
    fn what_a_device_forgot_or_whose_end_was_lost_stands_no_more() {
        let hello = |asked| {
            host::Event::Started(Hello {
                channels: 16,
                cause: Cause::Outside,
                asked,
            })
        };
        let calm = host::Event::State(State {
            channel: 0,
            samples: 9,
            missed: 0,
            last: At::default(),
            alarm: None,
        });
        let ends = |events: &[host::Event]| {
            let told = told(events);
            told.iter()
                .filter(|(metric, text)| metric.is_some() && text.is_none())
                .count()
        };
        assert_eq!(ends(&[alarm(0, true), hello(true)]), 0);
        assert_eq!(ends(&[alarm(0, true), hello(false), calm]), 1);
        assert_eq!(ends(&[alarm(0, true), calm, calm]), 1);
    }
}
