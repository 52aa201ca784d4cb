//! All measurements, as rows.

use std::time::Instant;

use anyhow::{Context as _, Result};
use homeostat_causes::group;
use homeostat_sim::fault::{Incident, Split};

use super::baseline::Baseline;
use super::cases::{drawn, shipped};
use super::core::{Known, Without};
use super::incidents::{self, Counted};
use super::score::{Scored, calibration};
use super::watch::{Episode, Watch, watch};
use super::weigh::{Lesson, Settings, Weights};
use super::{Fleets, Method, confounded, core, episodes, seed, weighed};
use crate::result::{Report, Row};
use crate::stats::{Estimate, clustered, share};

/// How much of everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Args {
    /// The split that is reported on; settings are always those of the training split.
    pub split: Split,
    /// Seeds of each incident to learn from.
    pub lessons: u64,
    /// Incidents drawn from the grammar to learn from.
    pub drawn: usize,
    /// Seeds of each incident that is reported on.
    pub seeds: u64,
    /// Confounded cases.
    pub cases: usize,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            split: Split::Development,
            lessons: 4,
            drawn: 4800,
            seeds: 4,
            cases: 150,
        }
    }
}

impl Args {
    /// Counts that prove that it works, and nothing else.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            lessons: 1,
            drawn: 20,
            seeds: 1,
            cases: 5,
            ..Self::default()
        }
    }
}

/// What the training split teaches, as the source of `homeostat_causes::weigh::WEIGHTS`.
///
/// # Errors
/// When what is shipped does not read.
pub fn teach(args: &Args) -> Result<String> {
    let args = Args {
        split: Split::Development,
        ..args.clone()
    };
    let learned = Learned::of(&args, &mut Fleets::default())?;
    let hundredth = |weight: &f32| format!("{:.0},", weight * 100.0).replace("-0,", "0,");
    let rows = learned.all.by_place().chunks(20);
    let rows = rows.map(|row| row.iter().map(hundredth).collect::<Vec<_>>().join(" "));
    let rows: Vec<String> = rows.collect();
    Ok(format!(
        "//! Weights of what speaks for a component, learned from the training incidents of the\n\
         //! simulator: `homeostat-eval rca --set sim --teach FILE` writes this file.\n\n\
         use crate::weigh::PLACES;\n\n\
         /// By place, in hundredths.\n\
         #[rustfmt::skip]\n\
         pub(crate) const HUNDREDTHS: [i16; PLACES] = [\n    {}\n];\n",
        rows.join("\n    ")
    ))
}

/// Folds of the training split.
const FOLDS: u64 = 5;
/// Seconds of a longer quiet period before the incident.
const LONG_S: f64 = 600.0;
/// Looks after the alarm that a diagnosis may wait for.
const WAITS: [usize; 3] = [0, 2, 8];
/// Seeds of episodes whose incidents are counted.
const COUNTED: u64 = 1;

/// What was learned, and from what it was held back.
struct Learned {
    all: Weights,
    /// By fold; empty where another split is reported on.
    folds: Vec<Weights>,
}

impl Learned {
    fn of(args: &Args, fleets: &mut Fleets) -> Result<Self> {
        let train = shipped(Split::Train)?;
        let how = Watch::default();
        let lessons = |incidents: &[Incident], numbers, fleets: &mut Fleets| -> Result<_> {
            // One at a time: episodes are larger than what they teach.
            let numbers: std::ops::Range<u64> = numbers;
            let mut all = Vec::new();
            for (at, incident) in incidents.iter().enumerate() {
                let (topology, parts) = fleets.named(&incident.topology)?;
                for number in numbers.clone() {
                    let seed = seed(Split::Train, at, number);
                    let episode = watch(&topology, &parts, incident, seed, how)?;
                    let taught = taught(&episode)?.into_iter();
                    all.extend(taught.map(|lesson| (incident.name.clone(), lesson)));
                }
            }
            Ok(all)
        };
        let own = lessons(&train, LESSONS..LESSONS + args.lessons, fleets)?;
        let more = drawn(args.drawn)?;
        let more = lessons(&more, DRAWN..DRAWN + 1, fleets)?;
        // With seeds, and made-up fleets, that are not reported on.
        let misleading = confounded::cases(16 * args.cases, Split::Train, 1, how)?;
        let mut more = more;
        for one in &misleading {
            let taught = taught(one)?.into_iter();
            more.extend(taught.map(|lesson| (one.name.clone(), lesson)));
        }
        let learn = |left_out: Option<u64>| {
            let kept = own
                .iter()
                .filter(|(name, _)| left_out != Some(fold(name, &train)));
            let lessons: Vec<&Lesson> = kept.chain(&more).map(|(_, lesson)| lesson).collect();
            Weights::learn(&lessons, Settings::default(), 1)
        };
        let folds = match args.split {
            Split::Train => (0..FOLDS).map(|fold| learn(Some(fold))).collect(),
            Split::Development | Split::Sealed => Vec::new(),
        };
        Ok(Self {
            all: learn(None),
            folds,
        })
    }

    /// The weights that never met an incident.
    fn without(&self, name: &str, train: &[Incident]) -> &Weights {
        let fold = usize::try_from(fold(name, train)).unwrap_or(0);
        self.folds.get(fold).unwrap_or(&self.all)
    }
}

/// What an episode teaches, as it is and as it would look where not everything is measured.
fn taught(episode: &Episode) -> Result<Vec<Lesson>> {
    let less = Known {
        without: Without::drawn(episode.seed),
        ..Known::ALL
    };
    let all = [Known::ALL, less].map(|known| Lesson::of(episode, known));
    let all: Result<Vec<Option<Lesson>>, _> = all.into_iter().collect();
    Ok(all?.into_iter().flatten().collect())
}

/// First numbers of the seeds that are learned from, apart from those reported on.
const LESSONS: u64 = 500;
const DRAWN: u64 = 500_000_000;

/// The fold of an incident: that of its twin.
fn fold(name: &str, train: &[Incident]) -> u64 {
    let twin = train
        .iter()
        .find(|one| one.name == name)
        .and_then(|one| one.twin.as_deref());
    let key = twin.map_or(name, |twin| twin.min(name));
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 32) % FOLDS
}

/// Runs it; `note` gets what it is at.
///
/// # Errors
/// When what is shipped does not read.
pub fn run(args: &Args, mut note: impl FnMut(&str)) -> Result<Report> {
    let begun = Instant::now();
    let settings = format!("{args:?} {:?} {:?}", Settings::default(), group::SETTINGS);
    let mut report = Report::new("rca.sim", &settings);
    let mut fleets = Fleets::default();
    note("learning");
    let learned = Learned::of(args, &mut fleets)?;
    let train = shipped(Split::Train)?;
    let incidents = shipped(args.split)?;
    note("episodes");
    let all = episodes(
        &incidents,
        args.split,
        0..args.seeds,
        Watch::default(),
        &mut fleets,
    )?;
    alarms(&all, &mut report);
    let weighed_of = |all: &[&Episode]| -> Vec<Scored> {
        let score =
            |one: &&Episode| Method::Weighed(learned.without(&one.name, &train)).scored(one);
        all.iter().filter_map(score).collect()
    };
    let each: Vec<&Episode> = all.iter().collect();
    rank("", &each, &weighed_of(&each), &mut report);
    for (roots, id) in [(1, "one"), (2, "two"), (3, "three")] {
        let some: Vec<&Episode> = all.iter().filter(|one| one.roots.len() == roots).collect();
        rank(&format!(".{id}"), &some, &weighed_of(&some), &mut report);
    }
    note("less is measured");
    let less = Known {
        without: Without::what_is_rare(),
        ..Known::ALL
    };
    let scored: Vec<Scored> = all
        .iter()
        .filter_map(|one| {
            let method = Method::Weighed(learned.without(&one.name, &train));
            method.scored_knowing(one, less)
        })
        .collect();
    for k in [1, 3] {
        let what = format!("root in the first {k}; times, failures, resources alone");
        let id = format!("rca.sim.less.top{k}");
        top(&id, &what, &scored, k, &mut report);
        let own: Vec<Scored> = all
            .iter()
            .filter_map(|one| Method::OwnExcess.scored_knowing(one, less))
            .collect();
        top(
            &format!("{id}.own-excess"),
            &format!("{what}, own excess"),
            &own,
            k,
            &mut report,
        );
    }
    for wait in WAITS {
        note("other waits");
        let how = Watch {
            wait,
            ..Watch::default()
        };
        let some = episodes(&incidents, args.split, 0..1, how, &mut fleets)?;
        let scored = weighed_of(&some.iter().collect::<Vec<_>>());
        let what = format!("root first, {} s after the alarm", wait * 5);
        top(
            &format!("rca.sim.wait{wait}.top1"),
            &what,
            &scored,
            1,
            &mut report,
        );
    }
    note("a longer quiet period");
    let how = Watch {
        quiet_s: Some(LONG_S),
        ..Watch::default()
    };
    let long = episodes(&incidents, args.split, 0..1, how, &mut fleets)?;
    let long: Vec<&Episode> = long.iter().collect();
    rank(".long", &long, &weighed_of(&long), &mut report);
    note("confounded cases");
    let cases = confounded::cases(args.cases, args.split, 0, Watch::default())?;
    let cases: Vec<&Episode> = cases.iter().collect();
    rank(".confounded", &cases, &weighed_of(&cases), &mut report);
    note("incidents");
    group_rows(&incidents, args, &learned, &train, &mut fleets, &mut report)?;
    note("time");
    time(&all, &learned.all, &mut report)?;
    report.finish(begun.elapsed());
    Ok(report)
}

fn alarms(all: &[Episode], report: &mut Report) {
    let alarmed = all.iter().filter(|one| one.alarm.is_some()).count();
    let what = "episodes in which somebody is called within 300 s";
    let row = Row::new("rca.sim.alarmed", what, "ratio", share(alarmed, all.len()));
    report.rows.push(row.higher());
    let early: usize = all
        .iter()
        .map(|one| usize::from(one.false_alarms > 0))
        .sum();
    let what = "episodes with an alarm before anything was wrong";
    report.rows.push(Row::new(
        "rca.sim.early",
        what,
        "ratio",
        share(early, all.len()),
    ));
    let delays: Vec<f64> = all
        .iter()
        .filter_map(|one| Some(one.told.times.get(one.alarm?.look)? - one.onset))
        .collect();
    if let Some(median) = Estimate::quantile(&delays, 0.5, 1) {
        let what = "from onset to alarm, median";
        report
            .rows
            .push(Row::new("rca.sim.delay", what, "s", median));
    }
}

/// A share over episodes, resampled by incident.
fn shares(all: &[Scored], hit: impl Fn(&Scored) -> bool) -> Estimate {
    let mut groups: std::collections::BTreeMap<&str, Vec<f64>> = std::collections::BTreeMap::new();
    for one in all {
        let value = f64::from(u8::from(hit(one)));
        groups.entry(&one.incident).or_default().push(value);
    }
    let groups: Vec<Vec<f64>> = groups.into_values().collect();
    let mean = |all: &[&f64]| all.iter().copied().sum::<f64>() / all.len() as f64;
    clustered(&groups, mean, 1).unwrap_or(Estimate::exact(f64::NAN, 0))
}

fn top(id: &str, what: &str, all: &[Scored], k: usize, report: &mut Report) {
    let row = Row::new(id, what, "ratio", shares(all, |one| one.top(k)));
    report.rows.push(row.higher());
}

/// Rows of ours, the core and the baselines.
fn rank(id: &str, all: &[&Episode], ours: &[Scored], report: &mut Report) {
    let of = |method: Method<'_>| -> Vec<Scored> {
        all.iter().filter_map(|one| method.scored(one)).collect()
    };
    let mut others: Vec<(String, Vec<Scored>)> = vec![
        ("as it ships".to_owned(), of(Method::Core)),
        ("own excess".to_owned(), of(Method::OwnExcess)),
    ];
    for baseline in Baseline::ALL {
        others.push((baseline.name().to_owned(), of(Method::Baseline(baseline))));
    }
    let label = if id.is_empty() { "all" } else { &id[1..] };
    for (name, k, goal) in [("top1", 1, 0.9), ("top3", 3, 0.98)] {
        let hit = |one: &Scored| one.top(k);
        let best = others
            .iter()
            .map(|(name, scored)| (name, shares(scored, hit).value))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let what = format!("{label}: a root among the first {k}, learned here");
        let mut row = Row::new(
            &format!("rca.sim{id}.{name}"),
            &what,
            "ratio",
            shares(ours, hit),
        );
        if let Some((best, value)) = best {
            row = row.against(Some(value), best);
        }
        report.rows.push(row.higher().goal(goal));
        for (other, scored) in &others {
            let what = format!("{label}: a root among the first {k}, {other}");
            let place = other.replace(", ", "-").replace(' ', "-");
            let id = format!("rca.sim{id}.{name}.{place}");
            let row = Row::new(&id, &what, "ratio", shares(scored, hit));
            report.rows.push(row.higher());
        }
    }
    if id == ".two" {
        let hit = |one: &Scored| one.all_in(4);
        let what = "two: both roots among the first 4, learned here";
        let row = Row::new("rca.sim.two.top4", what, "ratio", shares(ours, hit));
        let core = shares(&others[1].1, hit).value;
        report
            .rows
            .push(row.against(Some(core), "own excess").higher().goal(0.85));
    }
    let sure = |all: &[Scored]| -> Vec<(f64, bool)> {
        all.iter()
            .filter_map(|one| Some((one.confidence?, one.top(1))))
            .collect()
    };
    let (mine, theirs) = (sure(ours), sure(&others[0].1));
    let ece = Estimate::exact(calibration(&mine), mine.len());
    let what = format!("{label}: calibration error of the first, learned here");
    let row = Row::new(&format!("rca.sim{id}.ece"), &what, "ratio", ece);
    report.rows.push(
        row.against(Some(calibration(&theirs)), "as it ships")
            .goal(0.05),
    );
    let own = sure(&others[1].1);
    let ece = Estimate::exact(calibration(&own), own.len());
    let what = format!("{label}: calibration error of the first, own excess");
    let id = format!("rca.sim{id}.ece.own-excess");
    report.rows.push(Row::new(&id, &what, "ratio", ece));
}

fn group_rows(
    incidents: &[Incident],
    args: &Args,
    learned: &Learned,
    train: &[Incident],
    fleets: &mut Fleets,
    report: &mut Report,
) -> Result<()> {
    let mut counted: Vec<Counted> = Vec::new();
    for (at, incident) in incidents.iter().enumerate() {
        let (topology, parts) = fleets.named(&incident.topology)?;
        let weights = learned.without(&incident.name, train);
        for number in 0..COUNTED {
            let seed = seed(args.split, at, number);
            let watched = incidents::watched(&topology, &parts, incident, seed, weights)?;
            if watched.alarmed {
                counted.push(watched.counted(group::SETTINGS)?);
            }
        }
    }
    let mut row = |id: &str, what: &str, of: &[&Counted], hit: &dyn Fn(&Counted) -> bool| {
        let hits = of.iter().filter(|one| hit(one)).count();
        let row = Row::new(
            &format!("rca.sim.incidents.{id}"),
            what,
            "ratio",
            share(hits, of.len()),
        );
        report.rows.push(row.higher().goal(0.95));
    };
    let all: Vec<&Counted> = counted.iter().collect();
    let one: Vec<&Counted> = counted.iter().filter(|one| one.roots.len() == 1).collect();
    row(
        "one",
        "one root: exactly one incident",
        &one,
        &Counted::as_many,
    );
    row(
        "one.named",
        "one root: exactly one incident, which names it",
        &one,
        &Counted::right,
    );
    row("all", "as many incidents as roots", &all, &Counted::as_many);
    row(
        "all.named",
        "each root has one incident that names it, no other",
        &all,
        &Counted::right,
    );
    for told in [true, false] {
        let mut calm: Vec<Counted> = Vec::new();
        for name in ["reference", "kiosk", "plant"] {
            let (topology, parts) = fleets.named(name)?;
            for replica in 0..topology.replicas().len() {
                let seed = seed(args.split, 900 + replica, 0);
                let weights = &learned.all;
                let one = incidents::restarted(&topology, &parts, replica, seed, weights, told)?;
                if let Some(one) = one {
                    calm.push(one.counted(group::SETTINGS)?);
                }
            }
        }
        let none = calm.iter().filter(|one| one.opened == 0).count();
        let (id, known) = if told {
            ("told", "known")
        } else {
            ("untold", "not known")
        };
        let what = format!("restarts of a replica that open no incident, the recovery {known}");
        let id = format!("rca.sim.incidents.restart.{id}");
        report
            .rows
            .push(Row::new(&id, &what, "ratio", share(none, calm.len())).higher());
    }
    Ok(())
}

/// Time of a diagnosis of a fleet of about 50 parts, from series to ranking.
fn time(all: &[Episode], weights: &Weights, report: &mut Report) -> Result<()> {
    let fits = |one: &&Episode| one.alarm.is_some() && (40..=60).contains(&one.parts.len());
    let some: Vec<&Episode> = all.iter().filter(fits).take(400).collect();
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..2 {
        for one in &some {
            let alarm = one.alarm.context("chosen so")?;
            let begun = Instant::now();
            let scene = core::Scene::of(&one.told, alarm, &one.parts, Known::ALL)?;
            std::hint::black_box(weighed(weights, &scene, one.parts.len()));
            let ours = begun.elapsed();
            let begun = Instant::now();
            std::hint::black_box(scene.diagnose());
            // The first round warms up.
            if round > 0 {
                mine.push(ours.as_secs_f64() * 1e3);
                theirs.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    for (id, what, of) in [
        ("weighing", "as far as it is weighed", &mine),
        ("all", "whole", &theirs),
    ] {
        for (quantile, name) in [(0.5, "p50"), (0.95, "p95")] {
            if let Some(value) = Estimate::quantile(of, quantile, 1) {
                let what = format!("a diagnosis of 40 to 60 parts, {what}, {name}");
                let row = Row::new(&format!("rca.sim.time.{id}.{name}"), &what, "ms", value);
                report.rows.push(row.goal(10.0));
            }
        }
    }
    Ok(())
}
