//! What the coordinator answers to "would it have healed by itself?" and "would this plan mend
//! it?", beside what happens in the simulator.
//!
//! An incident has a history: it came [`HISTORY`] times, lasted as long as it liked, and somebody
//! restarted the replica after some while, or took it out of its route, and tried the other one
//! of the two where that did not help; or nobody did anything. From such records alone
//! [`what_if`] answers for the next one. The truth is what comes of more plays, in which
//! nobody does anything, or one of the two is done if it still is ill, and nothing else.
//!
//! The baseline of the first question is the share of those that nothing was done about, which
//! forgets that nothing is done about what is over; that of the others charges an incident to
//! the plan that came last, from the first sign on.

use anyhow::{Context as _, Result, ensure};
use homeostat_coordinator::diagnose::past::{About, Past, Tried, WITHIN_MS, what_if};
use homeostat_coordinator::fleet::diagnosis::Estimate as Told;
use homeostat_protocols::causal::incidents::{Case, cases};
use homeostat_sim::policy::{Kind, Moves};
use homeostat_sim::world::{Order, Settings, World};

use crate::result::{Report, Row};
use crate::stats::{Estimate, clustered, share};

/// Earlier times of an incident.
const HISTORY: u64 = 30;

/// Histories of each incident, and plays that are the truth, for each new play that is asked for.
const HISTORIES: u64 = 8;
const TRUTH: u64 = 40;

/// How long a fault lasts, in seconds, from and to; drawn evenly in its logarithm.
const LASTS: (f64, f64) = (5.0, 240.0);

/// After how many seconds something is done, from and to, and how often that is done at all.
const ACTS: (f64, f64) = (1.0, 90.0);
const DONE: f64 = 0.7;

/// Users are served if health lacks less than this, for so many seconds.
const DEFICIT: f64 = 0.1;
const HOLD: u32 = 10;

/// A play ends so many seconds after the first sign.
const WATCHED: f64 = 180.0;

/// A fault that shows nothing for so many seconds hurts nobody.
const SHOWS: f64 = 60.0;

/// How many seconds the first plan is given, from and to, and how often another one follows it.
const PATIENCE: (f64, f64) = (20.0, 90.0);
const FOLLOWED: f64 = 0.5;

/// What is done: the replica is restarted, or taken out of its route.
const PLANS: [&str; 2] = ["restart(web, grace=0ms)", "isolate(shop, web, drain=2s)"];

/// What somebody does about an incident.
#[derive(Clone, Copy)]
struct Deed {
    /// Which of the plans.
    plan: usize,
    /// Seconds from the first sign.
    after: f64,
    /// Seconds until the other one is tried; nothing else is if absent.
    patience: Option<f64>,
}

/// How one time of an incident went.
struct Time {
    /// What was done, each so many seconds from the first sign.
    done: Vec<(usize, f64)>,
    /// Seconds from the first sign until it was well, for good.
    well: Option<f64>,
}

impl Time {
    /// Whether it was well in time, counted from the first plan on.
    fn in_time(&self) -> bool {
        let from = self.done.first().map_or(0.0, |(_, after)| *after);
        self.well.is_some_and(|well| ms(well - from) <= WITHIN_MS)
    }

    /// What the coordinator has on record of it.
    fn past(&self) -> Past {
        let outcome = match (self.well, self.done.is_empty()) {
            (Some(_), false) => Some("healed"),
            (Some(_), true) => Some("recovered"),
            (None, false) => Some("escalated"),
            (None, true) => None,
        };
        let tried = self
            .done
            .iter()
            .enumerate()
            .map(|(nth, (plan, after))| Tried {
                plan: PLANS[*plan].to_owned(),
                after_ms: ms(*after),
                first: nth == 0,
            });
        Past {
            node: "edge".to_owned(),
            service: Some("web".to_owned()),
            symptom: Some("slow".to_owned()),
            tried: tried.collect(),
            acted_after_ms: self.done.first().map(|(_, after)| ms(*after)),
            outcome: outcome.map(str::to_owned),
            lasted_ms: ms(self.well.unwrap_or(WATCHED)),
        }
    }
}

/// The share that was well in time after the first sign, of those for which a plan came last.
fn by_last(times: &[Time], plan: usize) -> Option<f64> {
    let of = times
        .iter()
        .filter(|one| one.done.last().is_some_and(|(last, _)| *last == plan));
    let well: Vec<bool> = of
        .map(|one| one.well.is_some_and(|well| ms(well) <= WITHIN_MS))
        .collect();
    let count = well.iter().filter(|well| **well).count();
    (!well.is_empty()).then(|| count as f64 / well.len() as f64)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a few minutes
fn ms(seconds: f64) -> u64 {
    (seconds * 1e3) as u64
}

/// What was told of one question beside the truth; a group for each incident.
#[derive(Default)]
struct Asked {
    inside: Vec<Vec<bool>>,
    error: Vec<Vec<f64>>,
    /// The same of the baseline.
    naive: Vec<f64>,
    width: Vec<f64>,
    unknown: usize,
}

impl Asked {
    fn begin(&mut self) {
        self.inside.push(Vec::new());
        self.error.push(Vec::new());
    }

    fn note(&mut self, told: Option<Told>, naive: Option<f64>, truth: f64) {
        let groups = self.inside.last_mut().zip(self.error.last_mut());
        let Some((told, (inside, error))) = told.zip(groups) else {
            self.unknown += 1;
            return;
        };
        inside.push((told.low..=told.high).contains(&truth));
        error.push((told.share - truth).abs());
        self.width.push(told.high - told.low);
        self.naive.extend(naive.map(|naive| (naive - truth).abs()));
    }

    fn rows(&self, id: &str, what: &str, baseline: &str, seed: u64, report: &mut Report) {
        let id = |last: &str| format!("causal.told.{id}.{last}");
        let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
        let hits =
            |hits: &[&bool]| hits.iter().filter(|hit| ***hit).count() as f64 / hits.len() as f64;
        let errors = |all: &[&f64]| all.iter().copied().sum::<f64>() / all.len() as f64;
        let inside = clustered(&self.inside, hits, seed);
        let Some((inside, error)) = inside.zip(clustered(&self.error, errors, seed)) else {
            return;
        };
        let n = self.width.len();
        let text = format!("{what}, told: truth in the 95 % interval");
        report
            .rows
            .push(Row::new(&id("inside"), &text, "ratio", inside).higher());
        let text = format!("{what}, told: mean error");
        let naive = (!self.naive.is_empty()).then(|| mean(&self.naive));
        let row = Row::new(&id("error"), &text, "ratio", error);
        report.rows.push(match naive {
            Some(_) => row.against(naive, baseline),
            None => row,
        });
        let text = format!("{what}, told: mean width of the interval");
        let width = Estimate::exact(mean(&self.width), n);
        report
            .rows
            .push(Row::new(&id("width"), &text, "ratio", width));
        let text = format!("{what}: not known");
        let unknown = share(self.unknown, n + self.unknown);
        report
            .rows
            .push(Row::new(&id("unknown"), &text, "ratio", unknown));
    }
}

/// Asks about each incident, `most` of them.
///
/// # Errors
/// When an incident cannot be played, or none hurts anybody.
pub(super) fn run(plays: u64, most: usize, seed: u64, report: &mut Report) -> Result<()> {
    let (histories, truth) = (HISTORIES * plays, TRUTH * plays);
    let (mut itself, mut mend) = (Asked::default(), [Asked::default(), Asked::default()]);
    let (mut rng, mut used, mut followed) = (fastrand::Rng::with_seed(seed), 0, 0);
    // Those that end by themselves: the others never would.
    for case in cases()?.iter().filter(|case| passes(case)) {
        if used == most {
            break;
        }
        let Some(orders) = orders(case) else {
            continue;
        };
        let alone = times(case, &orders, truth, &mut rng, |_| None)?;
        // What hurts nobody on most days has no incidents.
        if alone.len() * 2 < usize::try_from(truth)? {
            continue;
        }
        used += 1;
        itself.begin();
        let alone = in_time(alone.iter()).context("nobody was hurt")?;
        let mut truths = Vec::new();
        for (plan, asked) in mend.iter_mut().enumerate() {
            asked.begin();
            let treated = times(case, &orders, truth, &mut rng, |rng| {
                let after = between(ACTS, rng.f64());
                Some(Deed {
                    plan,
                    after,
                    patience: None,
                })
            })?;
            let treated = treated.iter().filter(|one| !one.done.is_empty());
            truths.push(in_time(treated).context("nobody was treated")?);
        }
        for _ in 0..histories {
            let times = times(case, &orders, HISTORY, &mut rng, |rng| {
                (rng.f64() < DONE).then(|| Deed {
                    plan: rng.usize(..PLANS.len()),
                    after: between(ACTS, rng.f64()),
                    patience: (rng.f64() < FOLLOWED).then(|| between(PATIENCE, rng.f64())),
                })
            })?;
            followed += times.iter().filter(|one| one.done.len() > 1).count();
            let past: Vec<Past> = times.iter().map(Time::past).collect();
            let about = About {
                node: "edge",
                service: Some("web"),
                symptom: Some("slow"),
            };
            let told = what_if(about, &past, &PLANS.map(str::to_owned));
            let told = |at: usize| told.get(at).and_then(|one| one.estimate);
            let untouched = times.iter().filter(|one| one.done.is_empty());
            itself.note(told(0), in_time(untouched), alone);
            for (plan, asked) in mend.iter_mut().enumerate() {
                asked.note(told(plan + 1), by_last(&times, plan), truths[plan]);
            }
        }
    }
    ensure!(used > 0, "no incident hurts anybody");
    let alone = "those left alone";
    itself.rows("itself", "would it heal by itself", alone, seed, report);
    let last = "by the last plan, from the first sign";
    mend[0].rows("mend", "would a restart mend it", last, seed, report);
    mend[1].rows(
        "isolate",
        "would leaving it out mend it",
        last,
        seed,
        report,
    );
    report.notes.push(format!(
        "told: {histories} histories of {used} incidents, {HISTORY} times each, two plans in \
         {followed} times; truth of {truth} plays"
    ));
    Ok(())
}

/// Restarts the replica, or takes it out of its route; `None` if it is on none.
fn orders(case: &Case) -> Option<[Order; 2]> {
    let moves = Moves::new(&case.topology);
    let whom = moves
        .of(Kind::Restart)
        .find(|one| one.order == case.restart)?
        .whom;
    let isolate = moves.find(Kind::Isolate, whom)?;
    Some([case.restart.clone(), isolate.order.clone()])
}

fn passes(case: &Case) -> bool {
    let faults = &case.incident.faults;
    faults.iter().all(|fault| fault.trigger.lasts.is_some())
}

/// The share that was well in time.
fn in_time<'a>(times: impl Iterator<Item = &'a Time>) -> Option<f64> {
    let times: Vec<bool> = times.map(Time::in_time).collect();
    let well = times.iter().filter(|well| **well).count();
    (!times.is_empty()).then(|| well as f64 / times.len() as f64)
}

fn between((from, to): (f64, f64), part: f64) -> f64 {
    from * (to / from).powf(part)
}

/// Plays an incident again and again; those plays that hurt nobody are left out.
fn times(
    case: &Case,
    orders: &[Order; 2],
    plays: u64,
    rng: &mut fastrand::Rng,
    does: impl Fn(&mut fastrand::Rng) -> Option<Deed>,
) -> Result<Vec<Time>> {
    let mut times = Vec::new();
    for _ in 0..plays {
        let lasts = between(LASTS, rng.f64());
        let deed = does(rng);
        times.extend(time(case, orders, rng.u64(..), lasts, deed)?);
    }
    Ok(times)
}

/// `None` if it hurts nobody.
fn time(
    case: &Case,
    orders: &[Order; 2],
    seed: u64,
    lasts: f64,
    mut deed: Option<Deed>,
) -> Result<Option<Time>> {
    let mut incident = case.incident.clone();
    for fault in &mut incident.faults {
        fault.trigger.lasts = Some(lasts);
    }
    let mut world = World::with(&case.topology, &incident, seed, Settings::default())
        .with_context(|| incident.name.clone())?;
    let ill = |world: &World| 1.0 - world.level().health() >= DEFICIT;
    while world.now() < world.onset() || (!ill(&world) && world.now() < world.onset() + SHOWS) {
        world.tick();
    }
    if !ill(&world) {
        return Ok(None);
    }
    let began = world.now();
    let (mut done, mut well, mut held) = (Vec::new(), None, 0);
    while well.is_none() && world.now() < began + WATCHED {
        let since = world.now() - began;
        if let Some(due) = deed.filter(|due| held == 0 && since >= due.after) {
            // Refused or not: what is measured is what comes of trying.
            let _ = world.order(&orders[due.plan]);
            done.push((due.plan, since));
            deed = due.patience.map(|patience| Deed {
                plan: 1 - due.plan,
                after: since + patience,
                patience: None,
            });
        }
        world.tick();
        held = if ill(&world) { 0 } else { held + 1 };
        well = (held == HOLD).then(|| world.now() - began - f64::from(HOLD));
    }
    Ok(Some(Time { done, well }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_near_what_happens() {
        let mut report = Report::new("told", "");
        run(1, 2, 1, &mut report).unwrap();
        let value = |id: &str| {
            let row = report.rows.iter();
            row.clone()
                .find(|row| row.id == format!("causal.told.{id}"))
                .unwrap()
                .ours
        };
        for id in ["itself", "mend", "isolate"] {
            assert!(value(&format!("{id}.inside")) > 0.5, "{id}");
            assert!(value(&format!("{id}.error")) < 0.3, "{id}");
        }
        assert!(run(1, 0, 1, &mut report).is_err());
    }
}
