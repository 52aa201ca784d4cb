//! What foresight is worth: faults ended before they show, and what it costs when it is wrong.
//!
//! Two parts. The first asks the forecaster alone, about days of made-up values (`series`),
//! healthy and leaking, with the horizon that the agent computes for a service with its usual
//! settings; each action resets it, as a restart does. The second asks the agent, with real
//! processes that leak (`real`): clients' requests lost with foresight, without it, and under
//! a plain supervisor.
//!
//! The forecaster's threshold was chosen with seeds below [`SEEDS`]; those measured here are
//! from there on.

mod real;
mod series;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use homeostat_detect::forecast::{Horizon, Policy};

use self::series::{DAY, Kind, Leak, Series};
use super::progress;
use crate::result::{Report, Row};
use crate::stage::interrupt;
use crate::stats::{Estimate, share};

/// Seeds of this run are above those that the threshold was chosen with.
const SEEDS: u64 = 5000;

/// What a drained restart may take with `stop_grace = "2s"` and `start_timeout = "10s"`: 4 s to
/// isolate, 14 s to restart, 2 s to release.
const PLAN_S: u32 = 20;

/// Twice that, and a hold of 60 s: the agent's horizon.
const SOON: Duration = Duration::from_secs(2 * PLAN_S as u64 + 60);

/// People are told so long before.
const TELL: Duration = Duration::from_secs(3600);

/// An alarm stands for so long after its last reason.
const LINGER_S: u32 = 600;

/// How often the forecast is asked for: once in a bucket.
const ASK_S: u32 = 5;

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Series,
    Real,
}

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Which part; both if not given.
    #[arg(long, value_enum)]
    pub part: Option<Part>,
    /// Healthy days of each of the nine kinds.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub days: u32,
    /// Leaks on top of each kind.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub leaks: u32,
    /// Seconds for which real processes leak.
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u32).range(10..=86_400))]
    pub seconds: u32,
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let text = format!(
        "{args:?}\n{:?}\nplan {PLAN_S} s, soon {} s, tell {} s\n{}",
        Policy::new(1.0, 1.0),
        SOON.as_secs(),
        TELL.as_secs(),
        real::text()
    );
    let mut report = Report::new("foresee", &text);
    progress(&format!("settings {}:\n{text}\n", report.settings_sha256));
    if args.part != Some(Part::Real) {
        report.rows.extend(series_rows(args, seed)?);
    }
    if args.part != Some(Part::Series) {
        report.rows.extend(real::measure(args.seconds, seed)?);
    }
    report.finish(begun.elapsed());
    Ok(report)
}

/// What came of the healthy days of one kind.
#[derive(Debug, Default, Clone, Copy)]
struct Healthy {
    days: usize,
    /// Days with an action.
    struck: usize,
    actions: usize,
    /// Alarms.
    tells: usize,
}

/// What came of the leaks on top of one kind.
#[derive(Debug, Default)]
struct Leaking {
    leaks: usize,
    /// Foreseen with time enough for the plan.
    cleared: usize,
    /// Seconds from the action to the limit.
    leads: Vec<f64>,
    /// Seconds from the first alarm to the limit.
    told: Vec<f64>,
    /// First alarms whose interval held the truth.
    within: usize,
}

fn series_rows(args: &Args, seed: u64) -> Result<Vec<Row>> {
    let seeds = |count: u32| SEEDS + seed..SEEDS + seed + u64::from(count);
    let measured = thread::scope(|scope| {
        let running: Vec<_> = Kind::ALL
            .into_iter()
            .map(|kind| {
                let (days, leaks) = (seeds(args.days), seeds(args.leaks));
                scope.spawn(move || {
                    let mut healthy = Healthy::default();
                    for seed in days {
                        interrupt::check()?;
                        healthy_day(kind, seed, &mut healthy);
                    }
                    let mut leaking = Leaking::default();
                    for seed in leaks {
                        interrupt::check()?;
                        one_leak(kind, seed, &mut leaking);
                    }
                    Ok::<_, anyhow::Error>((kind, healthy, leaking))
                })
            })
            .collect();
        let ended = running.into_iter().map(thread::ScopedJoinHandle::join);
        ended.collect::<Vec<_>>()
    });
    let mut rows = Vec::new();
    let (mut all, mut leaks) = (Healthy::default(), Leaking::default());
    for found in measured {
        let (kind, healthy, leaking) = found.map_err(|_| anyhow!("a measurement panicked"))??;
        let name = kind.name();
        rows.push(Row::new(
            &format!("foresee.{name}.struck"),
            &format!(
                "{name}: healthy days with an action, {} in all",
                healthy.actions
            ),
            "share",
            share(healthy.struck, healthy.days),
        ));
        let cleared = Row::new(
            &format!("foresee.{name}.cleared"),
            &format!("{name}: leaks on top of it ended in time"),
            "share",
            share(leaking.cleared, leaking.leaks),
        );
        rows.push(cleared.higher());
        all.days += healthy.days;
        all.struck += healthy.struck;
        all.actions += healthy.actions;
        all.tells += healthy.tells;
        leaks.leaks += leaking.leaks;
        leaks.cleared += leaking.cleared;
        leaks.within += leaking.within;
        leaks.leads.extend(leaking.leads);
        leaks.told.extend(leaking.told);
    }
    let struck = share(all.struck, all.days);
    let struck = Row::new(
        "foresee.struck",
        &format!("healthy days with an action, {} in all", all.actions),
        "share",
        struck,
    );
    rows.push(struck.goal(1.0 / 80.0));
    let tells = all.tells as f64 / all.days.max(1) as f64;
    rows.push(Row::new(
        "foresee.tells",
        "alarms in a healthy day",
        "alarms",
        Estimate::exact(tells, all.days),
    ));
    let cleared = share(leaks.cleared, leaks.leaks);
    let cleared = Row::new("foresee.cleared", "leaks ended in time", "share", cleared).higher();
    rows.push(cleared.against(Some(0.0), "without foresight"));
    for (id, what, times) in [
        (
            "foresee.lead",
            "from the action to the limit, median",
            &leaks.leads,
        ),
        (
            "foresee.told",
            "from the first alarm to the limit, median",
            &leaks.told,
        ),
    ] {
        if let Some(median) = Estimate::quantile(times, 0.5, seed) {
            rows.push(Row::new(id, what, "s", median).higher());
        }
    }
    if !leaks.told.is_empty() {
        let within = share(leaks.within, leaks.told.len());
        let what = "first alarms whose interval held the truth";
        rows.push(Row::new("foresee.within", what, "share", within).higher());
    }
    Ok(rows)
}

fn narrow(value: f64) -> f32 {
    homeostat_common::units::narrow(value)
}

fn healthy_day(kind: Kind, seed: u64, found: &mut Healthy) {
    let mut series = Series::new(kind, seed);
    let mut horizon = Horizon::new(Policy::new(1.0, 1.0));
    let (mut acted, mut told) = (0, 0);
    for second in 0..DAY {
        horizon.push(Duration::from_secs(second.into()), narrow(series.next()));
        if second % ASK_S > 0 {
            continue;
        }
        let Some(forecast) = horizon.forecast() else {
            continue;
        };
        if forecast.expected <= TELL {
            if second >= told {
                found.tells += 1;
            }
            told = second + LINGER_S;
        }
        if forecast.earliest <= SOON {
            acted += 1;
            horizon.reset();
        }
    }
    found.days += 1;
    found.struck += usize::from(acted > 0);
    found.actions += acted;
}

fn one_leak(kind: Kind, seed: u64, found: &mut Leaking) {
    let mut leak = Leak::new(kind, seed);
    let mut horizon = Horizon::new(Policy::new(1.0, 1.0));
    let (mut acted, mut told) = (None, None);
    for second in 0..DAY {
        let value = leak.next();
        if value >= 1.0 {
            found.leaks += 1;
            if let Some(acted) = acted {
                found.leads.push(f64::from(second - acted));
                found.cleared += usize::from(second - acted >= PLAN_S);
            }
            if let Some((told, forecast)) = told {
                let left = Duration::from_secs(u64::from(second - told));
                found.told.push(left.as_secs_f64());
                let forecast: homeostat_detect::forecast::Forecast = forecast;
                let within = forecast.earliest <= left && left <= forecast.latest;
                found.within += usize::from(within);
            }
            return;
        }
        horizon.push(Duration::from_secs(second.into()), narrow(value));
        if second % ASK_S > 0 {
            continue;
        }
        if let Some(forecast) = horizon.forecast() {
            if forecast.expected <= TELL {
                told.get_or_insert((second, forecast));
            }
            if forecast.earliest <= SOON {
                acted.get_or_insert(second);
            }
        }
    }
}
