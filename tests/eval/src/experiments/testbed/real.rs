//! One run on the bed.

use std::time::Duration;

use anyhow::{Context as _, Result};
use homeostat_sim::topology::Topology;
use homeostat_testbed::users::{End, Try, Users, UsersSpec};

use super::faults::{Fault, Plan};
use super::injections::{self, Injection};
use super::trace::{Fare, Figures, NOBODY, SERVICES, STEP_S, Seen, Times, Trace, WINDOW_S};
use crate::experiments::progress;
use crate::stage::bed::{Look, Watch};
use crate::stage::{Bed, Fleet, MODEL_VERSION, Node, interrupt};

/// Users come for so long before anything is measured: each thing that is asked for again and
/// again comes every 3.2 s, so all but 2 % of them are in the cache then. And whatever a
/// unit does once after its start, as taking its lock after 12 s, is over at the onset.
const SETTLE_S: f64 = 13.0;
/// How long an order may take.
const ORDER_MAX: Duration = Duration::from_secs(40);

/// Everything that is fixed, as text to be hashed.
pub(super) fn settings() -> String {
    format!("{SETTLE_S} {WINDOW_S} {ORDER_MAX:?}")
}

/// Starts a bed, has the fault happen and the plan ordered, and looks at what users say.
///
/// # Errors
/// When the bed does not run, or the fault cannot be done.
pub(super) fn run(topology: &Topology, fault: &Fault, plan: &Plan, seed: u64) -> Result<Trace> {
    let injections = injections::of(topology, &fault.incident)?;
    let habits = topology.habits();
    let patience = Duration::from_secs_f64(habits.patience_ms / 1000.0);
    // A handful.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let retries = habits.retries.round() as u32;
    let dir = tempfile::Builder::new().prefix("hs-bed").tempdir()?;
    let mut bed = Bed::start(topology, dir.path(), seed)?;
    let watch = Watch::start(&bed)?;
    let users = Users::come(UsersSpec {
        entry: bed.entry()?.into(),
        rate: topology.routes().iter().map(|route| route.demand).sum(),
        again: topology
            .routes()
            .iter()
            .map(|route| route.hit)
            .fold(0.0, f64::max),
        patience,
        rest: Duration::from_secs_f64(habits.retry_s),
        retries,
        seed,
        golden: Node::goldens()?,
    })?;
    let mut to_end: Vec<(f64, &Injection)> = Vec::new();
    let mut until = |at_s: f64, bed: &Bed, began: Option<f64>| -> Result<()> {
        if let Some(onset_s) = began {
            let ends = injections
                .iter()
                .filter_map(|(what, lasts)| Some((onset_s + (*lasts)?, what)));
            to_end.extend(ends);
        }
        while users.now_s() < at_s {
            let now_s = users.now_s();
            for (_, what) in to_end.extract_if(.., |(ends_s, _)| *ends_s <= now_s) {
                what.end(bed, &users)?;
            }
            interrupt::pause(Duration::from_millis(50))?;
        }
        Ok(())
    };
    until(SETTLE_S + WINDOW_S, &bed, None)?;
    let onset_s = users.now_s();
    for (what, _) in &injections {
        what.hurt(&mut bed, &users)
            .with_context(|| format!("cannot do {what:?}"))?;
    }
    until(onset_s + fault.watch_s, &bed, Some(onset_s))?;
    let plan_s = users.now_s();
    let carried_out = orders(&bed, plan)?;
    let end_s = users.now_s() + fault.after_s;
    until(end_s, &bed, None)?;
    // Who still waits is part of it.
    interrupt::pause(patience)?;
    let seen = Counted {
        tries: users.tries(),
        looks: watch.looks(),
        users: &users,
        topology,
        patience_s: patience.as_secs_f64(),
    };
    let times = Times {
        onset_s,
        plan_s,
        end_s,
    };
    Ok(seen.trace(times, carried_out))
}

/// Orders a plan; whether all of it was carried out. What comes behind a failure is not begun.
fn orders(bed: &Bed, plan: &Plan) -> Result<bool> {
    for (node, text) in &plan.orders {
        let text = text
            .replace("MODEL", MODEL_VERSION)
            .replace("CONFIG", &Fleet::config_version());
        let done = bed.order(node, &text, ORDER_MAX)?;
        if !done.well {
            let said: Vec<&str> = done.said.lines().map(str::trim).collect();
            progress(&format!("    {node}: {text}: {}", said.join(" | ")));
            return Ok(false);
        }
    }
    Ok(true)
}

struct Counted<'s> {
    tries: Vec<Try>,
    looks: Vec<Look>,
    users: &'s Users,
    topology: &'s Topology,
    patience_s: f64,
}

impl Counted<'_> {
    /// Tries that began in a window.
    fn within(&self, from_s: f64, to_s: f64) -> Vec<&Try> {
        let tries = self.tries.iter();
        tries
            .filter(|one| one.at_s >= from_s && one.at_s < to_s)
            .collect()
    }

    /// What was counted between two looks by the replicas of a service, or by all.
    fn sum(
        &self,
        service: &str,
        first: &Look,
        last: &Look,
        of: impl Fn(&crate::stage::bed::Counts) -> f64,
    ) -> f64 {
        let replicas = self.topology.replicas().iter().enumerate();
        let meant = replicas.filter(|(_, replica)| {
            let route = &self.topology.routes()[replica.route.at()];
            service.is_empty() || route.name.as_str() == service
        });
        meant
            .map(|(at, _)| of(&last.sums[at]) - of(&first.sums[at]))
            .sum()
    }
}

impl Seen for Counted<'_> {
    fn fare(&self, from_s: f64, to_s: f64, onset_s: f64) -> Fare {
        let tries = self.within(from_s, to_s);
        let count = |end: End| tries.iter().filter(|one| one.end == end).count() as f64;
        let (right, wrong) = (count(End::Right), count(End::Wrong));
        let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        // Who gave up has waited that long, at least; who was refused has not waited.
        let patience_s = self.patience_s;
        let mut took: Vec<f64> = tries
            .iter()
            .filter(|one| one.end != End::Failed || one.took_s >= 0.95 * patience_s)
            .map(|one| one.took_s.min(patience_s))
            .collect();
        took.sort_by(f64::total_cmp);
        let errors = share(count(End::Failed), tries.len() as f64);
        let answered = errors < NOBODY;
        let p95_s = took.get(took.len() * 95 / 100).filter(|_| answered);
        Fare {
            at_s: to_s - onset_s,
            errors,
            p95_ms: 1000.0 * p95_s.copied().unwrap_or(patience_s),
            right: if right + wrong > 0.0 {
                right / (right + wrong)
            } else {
                1.0
            },
            shed: 0.0,
        }
    }

    fn figures(&self, from_s: f64, to_s: f64) -> Figures {
        let tries = self.within(from_s, to_s);
        let span = to_s - from_s;
        let fare = self.fare(from_s, to_s, 0.0);
        let right = tries.iter().filter(|one| one.end == End::Right).count() as f64;
        let begun = self.users.begun();
        let at = |look: &&Look| look.at.duration_since(begun).as_secs_f64();
        let first = self.looks.iter().find(|look| at(look) >= from_s);
        let last = self.looks.iter().rev().find(|look| at(look) <= to_s);
        let mut figures = [0.0; 12];
        figures[..5].copy_from_slice(&[
            fare.errors,
            fare.p95_ms,
            right / span,
            tries.len() as f64 / span,
            fare.right,
        ]);
        if let (Some(first), Some(last)) = (first, last) {
            let seconds = (at(&last) - at(&first)).max(STEP_S);
            for (place, name) in SERVICES.iter().enumerate() {
                figures[5 + place] = self.sum(name, first, last, |it| it.passed) / seconds;
            }
            figures[10] =
                self.sum("", first, last, |it| it.failed + it.refused + it.lost) / seconds;
            let within = self
                .looks
                .iter()
                .filter(|look| (from_s..to_s).contains(&at(look)));
            let waits: Vec<f64> = within
                .map(|look| {
                    let told = look.sums.iter().zip(&look.answered);
                    told.filter(|(_, answered)| **answered)
                        .map(|(sum, _)| sum.waiting)
                        .sum()
                })
                .collect();
            figures[11] = waits.iter().sum::<f64>() / waits.len().max(1) as f64;
        }
        Figures(figures)
    }
}
