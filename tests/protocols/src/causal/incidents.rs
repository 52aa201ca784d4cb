//! "Would this action mend it?" and "would it have healed by itself?", beside what happens in
//! the simulator.
//!
//! Each incident of the training set that sits on one replica of the reference fleet, and one
//! more that ends by itself, is played twice with the same seed: the replica is restarted half
//! a minute after the fault, or nobody does anything. A model of how far users are from being
//! served is fitted to a few earlier plays of that incident. Of a new play it sees the one
//! side and answers for the other; the simulator knows.
//!
//! The baseline answers what most earlier plays came to. Answers that are unclear count as
//! wrong.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use homeostat_causal::counterfactual::{Action, Course, Lagged, Scm, Settings, Shape, Verdict};
use homeostat_causal::graph::Admg;
use homeostat_causal::series::Series;
use homeostat_sim::fault::Incident;
use homeostat_sim::policy::{Kind, Moves, Whom};
use homeostat_sim::topology::Topology;
use homeostat_sim::world::{self, Order, World};

use crate::result::{Report, Row};
use crate::stats::{Estimate, clustered, share};

pub(super) const SETTINGS: &str =
    "incidents: 3 earlier plays, restart after 30 s, 120 s of 5 s steps, deficit 0.1";

/// Earlier plays of an incident, with and without a restart each.
const EARLIER: u64 = 3;

/// Seconds of a step.
const STEP: usize = 5;

/// From the fault to the restart, in seconds: somebody had to notice.
const NOTICED: f64 = 30.0;

/// Steps before the restart that are recorded, and after it.
const BEFORE: usize = 4;
const AFTER: usize = 24;

/// The last steps, in all of which users must be served.
const HOLD: usize = 6;

/// Users are served if health lacks less than this.
const DEFICIT: f64 = 0.1;

/// How long what ends by itself lasts: into the recorded steps, and not to their end.
const PASSING: &str = "trigger = \"at once for 80s\"";

/// Vertices of the model.
const RESTARTED: usize = 0;
const LACK: usize = 1;

/// One incident of the set.
#[derive(Debug)]
pub struct Case {
    /// Its one fault sits on a replica.
    pub incident: Incident,
    /// The reference fleet.
    pub topology: Arc<Topology>,
    /// Restarts that replica.
    pub restart: Order,
}

/// Both sides of one seed.
struct Play {
    restarted: Series,
    left_alone: Series,
}

impl Play {
    fn lack(series: &Series) -> &[f64] {
        series.column("lack").unwrap_or_default()
    }

    /// Whether users are served at the end.
    fn well(series: &Series) -> bool {
        Self::lack(series)
            .iter()
            .rev()
            .take(HOLD)
            .all(|lack| *lack < DEFICIT)
    }

    /// Whether they were not when the restart came.
    fn ill(&self) -> bool {
        Self::lack(&self.left_alone)
            .get(BEFORE)
            .is_some_and(|lack| *lack >= DEFICIT)
    }
}

/// What came of one kind of question; a group for each incident.
#[derive(Default)]
struct Asked {
    right: Vec<Vec<bool>>,
    usual: Vec<Vec<bool>>,
    well: usize,
    unclear: usize,
    inside: usize,
    /// Errors of the predicted lack at the end, and of taking it to stay as it was.
    error: Vec<f64>,
    stays: Vec<f64>,
}

impl Asked {
    fn note(&mut self, course: &Course, truth: &Series, usual: bool) {
        let well = Play::well(truth);
        let verdict = course.below(LACK, DEFICIT, BEFORE + AFTER - HOLD).verdict;
        let right = match verdict {
            Verdict::Yes => well,
            Verdict::No => !well,
            Verdict::Unclear => false,
        };
        self.unclear += usize::from(verdict == Verdict::Unclear);
        self.well += usize::from(well);
        if let Some(group) = self.right.last_mut() {
            group.push(right);
        }
        if let Some(group) = self.usual.last_mut() {
            group.push(usual == well);
        }
        let last = BEFORE + AFTER - 1;
        let lack = Play::lack(truth);
        if let (Some(said), Some(end), Some(begin)) =
            (course.at(LACK, last), lack.get(last), lack.get(BEFORE - 1))
        {
            self.error.push((said.value - end).abs());
            self.stays.push((begin - end).abs());
            self.inside += usize::from((said.low..=said.high).contains(end));
        }
    }

    fn rows(&self, id: &str, what: &str, seed: u64, report: &mut Report) {
        let n = self.error.len();
        let mean =
            |hits: &[&bool]| hits.iter().filter(|hit| ***hit).count() as f64 / hits.len() as f64;
        let (Some(right), usual) = (
            clustered(&self.right, mean, seed),
            clustered(&self.usual, mean, seed),
        ) else {
            return;
        };
        let id = format!("causal.incidents.{id}");
        let yes = self.well;
        let text = format!("{what}: right (in truth yes: {yes} of {n})");
        let usual = usual.map(|one| one.value);
        let row = Row::new(&format!("{id}.right"), &text, "ratio", right).higher();
        report.rows.push(row.against(usual, "most earlier plays"));
        let unclear = share(self.unclear, n);
        report.rows.push(Row::new(
            &format!("{id}.unclear"),
            &format!("{what}: unclear"),
            "ratio",
            unclear,
        ));
        let wrong = self.right.iter().flatten().filter(|right| !**right).count() - self.unclear;
        let row = Row::new(
            &format!("{id}.wrong"),
            &format!("{what}: wrong, yes or no"),
            "ratio",
            share(wrong, n),
        );
        report.rows.push(row);
        let inside = share(self.inside, n);
        let row = Row::new(
            &format!("{id}.inside"),
            &format!("{what}: truth in the 95 % interval"),
            "ratio",
            inside,
        );
        report.rows.push(row.higher());
        let p90 = |errors: &[f64]| Estimate::quantile(errors, 0.9, seed);
        if let (Some(error), Some(stays)) = (p90(&self.error), p90(&self.stays)) {
            let text = format!("{what}: 90th percentile of the error at the end");
            let row = Row::new(&format!("{id}.error"), &text, "health", error);
            report
                .rows
                .push(row.against(Some(stays.value), "stays as it was"));
        }
    }
}

pub(super) fn run(plays: u64, most: usize, seed: u64, report: &mut Report) -> Result<()> {
    let (mut itself, mut retro, mut mend) = (Asked::default(), Asked::default(), Asked::default());
    let mut used = 0;
    for case in cases()? {
        if used == most {
            break;
        }
        let earlier: Vec<Play> = (0..EARLIER)
            .map(|number| play(&case, seed.wrapping_mul(1000).wrapping_add(number)))
            .collect::<Result<_>>()?;
        // Where nobody suffers there is nothing to mend.
        if !earlier.iter().any(Play::ill) {
            continue;
        }
        used += 1;
        let scm = fit(&earlier, seed)?;
        let most = |well: fn(&Play) -> bool| {
            earlier.iter().filter(|play| well(play)).count() * 2 > earlier.len()
        };
        let alone_usual = most(|play| Play::well(&play.left_alone));
        let mended_usual = most(|play| Play::well(&play.restarted));
        for asked in [&mut itself, &mut retro, &mut mend] {
            asked.right.push(Vec::new());
            asked.usual.push(Vec::new());
        }
        for number in 0..plays {
            let play = play(&case, seed.wrapping_mul(1000).wrapping_add(100 + number))?;
            if !play.ill() {
                continue;
            }
            let last = BEFORE + AFTER - 1;
            let set = |value| Action {
                variable: RESTARTED,
                from: BEFORE,
                until: last,
                value,
            };
            let course = scm.replay(&play.restarted, &[set(0.0)], 0)?;
            itself.note(&course, &play.left_alone, alone_usual);
            let course = scm.replay(&play.left_alone, &[set(1.0)], 0)?;
            retro.note(&course, &play.restarted, mended_usual);
            // Before it is done, only what came before is known.
            let course = scm.replay(&first(&play.left_alone, BEFORE)?, &[set(1.0)], AFTER)?;
            mend.note(&course, &play.restarted, mended_usual);
        }
    }
    ensure!(used > 0, "no incident hurts anybody");
    itself.rows("itself", "would it have healed by itself", seed, report);
    retro.rows("restart", "would a restart have mended it", seed, report);
    mend.rows("ahead", "will a restart mend it", seed, report);
    Ok(())
}

/// The incidents of the training set that sit on one replica of the reference fleet, and of each
/// that has no time of its own one more, which ends by itself.
///
/// # Errors
/// When one of them cannot be read.
pub fn cases() -> Result<Vec<Case>> {
    let topology = Arc::new(Topology::reference());
    let moves = Moves::new(&topology);
    let mut cases = Vec::new();
    for (name, text) in Incident::train() {
        let incident = Incident::read(name, text).with_context(|| (*name).to_owned())?;
        let [fault] = &incident.faults[..] else {
            continue;
        };
        if incident.topology != topology.name() {
            continue;
        }
        let sits = |whom: Whom| match whom {
            Whom::Replica(no) => topology.replicas()[no.at()].name.to_string() == fault.locus.name,
            Whom::Route(_) | Whom::Node(_) | Whom::All => false,
        };
        let Some(restart) = moves.of(Kind::Restart).find(|one| sits(one.whom)) else {
            continue;
        };
        let case = |incident| Case {
            incident,
            topology: Arc::clone(&topology),
            restart: restart.order.clone(),
        };
        // What has a time of its own keeps it.
        if !text.contains("trigger =") {
            let passing = text.replacen("[[fault]]", &format!("[[fault]]\n{PASSING}"), 1);
            if let Ok(passing) = Incident::read(name, &passing) {
                cases.push(case(passing));
            }
        }
        cases.push(case(incident));
    }
    Ok(cases)
}

fn play(case: &Case, seed: u64) -> Result<Play> {
    let settings = world::Settings::default();
    let mut world = World::with(&case.topology, &case.incident, seed, settings)
        .with_context(|| case.incident.name.clone())?;
    let begin = world.onset() + NOTICED - (BEFORE * STEP) as f64;
    while world.now() < begin {
        world.tick();
    }
    let mut lack = Vec::with_capacity(BEFORE + AFTER);
    record(&mut world, BEFORE, &mut lack);
    let mut other = world.clone();
    // Refused or not: what is measured is what comes of trying.
    let _ = other.order(&case.restart);
    let series = |mut world: World, on: f64| {
        let mut lack = lack.clone();
        record(&mut world, AFTER, &mut lack);
        let restarted = (0..BEFORE + AFTER).map(|step| if step < BEFORE { 0.0 } else { on });
        Series::new(&["restarted", "lack"], vec![restarted.collect(), lack])
    };
    Ok(Play {
        restarted: series(other, 1.0)?,
        left_alone: series(world, 0.0)?,
    })
}

/// The mean lack of each step.
fn record(world: &mut World, steps: usize, lack: &mut Vec<f64>) {
    for _ in 0..steps {
        let mut sum = 0.0;
        for _ in 0..STEP {
            world.tick();
            sum += 1.0 - world.level().health();
        }
        lack.push(sum / STEP as f64);
    }
}

fn fit(earlier: &[Play], seed: u64) -> Result<Scm> {
    // A row without values between two plays: nothing leads from one to the next.
    let mut columns = vec![Vec::new(); 2];
    for play in earlier {
        for side in [&play.restarted, &play.left_alone] {
            for (column, values) in columns.iter_mut().zip(side.columns()) {
                column.extend_from_slice(values);
                column.push(f64::NAN);
            }
        }
    }
    let history = Series::new(&["restarted", "lack"], columns)?;
    let graph: Admg = "restarted -> lack".parse()?;
    let settings = Settings {
        shapes: vec![(LACK, Shape::Switched { by: RESTARTED })],
        seed,
        ..Settings::default()
    };
    let lagged = [Lagged {
        from: LACK,
        to: LACK,
        lag: 1,
    }];
    Ok(Scm::fit(&graph, &lagged, &history, &settings)?)
}

fn first(series: &Series, steps: usize) -> Result<Series> {
    let columns = series
        .columns()
        .iter()
        .map(|column| column[..steps].to_vec());
    Ok(Series::new(series.names(), columns.collect())?)
}
