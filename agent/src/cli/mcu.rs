//! `homeostat-agent mcu`: a CSV file through the detectors of a microcontroller.
//!
//! The first column is the time in seconds, rising; the others, at most 16, are metrics with
//! the names of the first line. An empty field, or one that is no number, is a sample that did
//! not come. Alarms are printed as they begin and end, and how the device was, at the end.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use homeostat_serial::host::{Event, Host, Sample};
use homeostat_serial::message::{Alarm, CHANNELS, Cause, Health, Setup};

use crate::io::mcu::Session;

/// Longest line of the file; one with 17 numbers is below 500 bytes.
const LINE_MAX: u64 = 16 * 1024;

/// A device that says nothing for so long is not there; one that starts takes less.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How long the line is waited for at once.
const WAIT: Duration = Duration::from_millis(100);

/// A CSV file and a device.
#[derive(Debug, Args)]
pub(super) struct McuArgs {
    /// The serial device, or the Unix socket of an emulated one.
    #[arg(long, value_name = "PATH")]
    device: PathBuf,
    /// Speed of the line.
    #[arg(long, default_value_t = 115_200)]
    baud: u32,
    /// Samples are due this often, in milliseconds; 0: whenever they come.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    period: u32,
    /// The file; "-" is standard input.
    file: PathBuf,
}

pub(super) fn run(args: &McuArgs) -> anyhow::Result<()> {
    let mut lines = Lines::open(&args.file)?;
    let names = lines.names()?;
    let mut host = Host::new();
    for channel in 0..names.len() {
        let setup = Setup {
            // Of this run alone: the times of another file are another clock.
            tag: fastrand::u32(..),
            period_ms: args.period,
        };
        host.set_up(u8::try_from(channel)?, setup);
    }
    let mut session = Session::open(&args.device, args.baud, host)?;
    let mut report = Report::new(&names);
    let mut more = true;
    loop {
        while more && session.host.room() >= names.len() {
            match lines.samples(names.len())? {
                Some(samples) => samples.into_iter().for_each(|one| session.host.offer(one)),
                None => {
                    more = false;
                    session.host.ask_health();
                }
            }
        }
        session.pump(WAIT, |event| report.take(event))?;
        if report.heard.elapsed() > SILENCE_MAX {
            bail!("nobody answers on {}", args.device.display());
        }
        if !more && report.health.is_some() && session.host.idle() {
            break;
        }
    }
    report.end(&session.host);
    Ok(())
}

/// The file, line by line.
struct Lines {
    reader: Box<dyn BufRead>,
    path: PathBuf,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let reader: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(path);
            Box::new(BufReader::new(
                file.with_context(|| format!("cannot open {}", path.display()))?,
            ))
        };
        let path = path.to_owned();
        Ok(Self {
            reader,
            path,
            number: 0,
        })
    }

    fn next(&mut self) -> anyhow::Result<Option<String>> {
        let mut line = Vec::new();
        let mut part = (&mut self.reader).take(LINE_MAX);
        let read = part.read_until(b'\n', &mut line);
        let length = read.with_context(|| format!("cannot read {}", self.path.display()))?;
        self.number += 1;
        ensure!(
            (length as u64) < LINE_MAX,
            "{}:{}: longer than {LINE_MAX} bytes",
            self.path.display(),
            self.number
        );
        Ok((length > 0).then(|| String::from_utf8_lossy(&line).trim_end().to_owned()))
    }

    fn names(&mut self) -> anyhow::Result<Vec<String>> {
        let line = self.next()?.unwrap_or_default();
        let names: Vec<String> = line
            .split(',')
            .skip(1)
            .map(|name| name.trim().to_owned())
            .collect();
        ensure!(
            (1..=CHANNELS).contains(&names.len()),
            "{}: expected a time and 1 to {CHANNELS} metrics in the first line, found {}",
            self.path.display(),
            names.len()
        );
        Ok(names)
    }

    /// The samples of the next line that has any.
    fn samples(&mut self, metrics: usize) -> anyhow::Result<Option<Vec<Sample>>> {
        loop {
            let Some(line) = self.next()? else {
                return Ok(None);
            };
            if line.is_empty() {
                continue;
            }
            let mut fields = line.split(',').map(str::trim);
            let at = fields.next().and_then(|field| field.parse().ok());
            let at = at.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let at = at.with_context(|| {
                format!(
                    "{}:{}: expected seconds first",
                    self.path.display(),
                    self.number
                )
            })?;
            let value = |field: &str| field.parse().ok().filter(|value: &f32| !value.is_nan());
            let samples = (0..)
                .zip(fields)
                .take(metrics)
                .map(|(channel, field)| Sample {
                    channel,
                    at,
                    value: value(field),
                });
            return Ok(Some(samples.collect()));
        }
    }
}

/// What was said, and what is left to say.
struct Report<'a> {
    names: &'a [String],
    heard: Instant,
    scored: u64,
    alarms: u64,
    health: Option<Health>,
}

impl<'a> Report<'a> {
    fn new(names: &'a [String]) -> Self {
        Self {
            names,
            heard: Instant::now(),
            scored: 0,
            alarms: 0,
            health: None,
        }
    }

    fn take(&mut self, event: Event) {
        self.heard = Instant::now();
        match event {
            Event::Started(hello) => {
                let why = match hello.cause {
                    Cause::Power => "power came",
                    Cause::Asked => "somebody asked for it",
                    Cause::Crash => "it crashed",
                    Cause::Outside => "the watchdog or a button reset it",
                };
                eprintln!("device with {} channels, started as {why}", hello.channels);
            }
            Event::Alarm(alarm) => self.alarm(&alarm),
            Event::Scored(_) => self.scored += 1,
            Event::Health(health) => self.health = Some(health),
            Event::Gone => eprintln!("the device does not answer any more"),
            Event::Ready | Event::State(_) => {}
        }
    }

    fn alarm(&mut self, alarm: &Alarm) {
        let name = self.names.get(usize::from(alarm.channel));
        let name = name.map_or("?", String::as_str);
        let since = Duration::from(alarm.since).as_secs_f64();
        if alarm.stands {
            self.alarms += 1;
            println!("{since:.3} {name}: {}", words(alarm));
        } else {
            println!("{since:.3} {name}: over");
        }
    }

    fn end(&self, host: &Host) {
        let trouble = host.trouble();
        println!(
            "{} samples scored, {} unanswered, {} alarms",
            self.scored, trouble.unanswered, self.alarms
        );
        if let Some(health) = self.health {
            println!(
                "device: {} frames, {} bad, {} bytes lost; stack {} bytes used, {} free",
                health.frames, health.bad, health.overruns, health.stack_used, health.stack_free
            );
        }
    }
}

/// What an alarm says, for people.
fn words(alarm: &Alarm) -> String {
    let says = alarm
        .member
        .member()
        .map_or("unknown detector", |member| member.words());
    format!(
        "{says} (score {:.2}, uncertainty {:.2})",
        alarm.score, alarm.uncertainty
    )
}
