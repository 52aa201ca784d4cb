//! Policies against incidents in simulated fleets, each beside the oracle and the twin in
//! which nobody heals, with the same seeds.
//!
//! The oracle runs first and without a budget; what it spends, times `--budget`, is what
//! the others may spend in the same episode. Shares are of episodes in which users would
//! have noticed; incidents that are marked as beyond repair are left out of them. Times are
//! capped and never dropped. Intervals resample incidents first and then their seeds, so
//! that many seeds of few incidents look no better than they are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use homeostat_coordinator::io::incidents::{self, Topologies};
use homeostat_sim::certify::{Certificate, Depth};
use homeostat_sim::episode::{Episode, Outcome, Rules};
use homeostat_sim::fault::{self, Incident};
use homeostat_sim::policy::Baseline;
use homeostat_sim::topology::Topology;

use super::{plot, progress};
use crate::result::{Report, Row};
use crate::stage::interrupt;
use crate::stats::{self, Estimate};

/// Whatever the oracle spends, a policy may restart one thing.
const BUDGET_MIN: f64 = 4.0;
/// From this distance on from all training incidents, one counts as new.
const NEW: f64 = 0.5;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Incidents: train, development, shipped (both), a file or a folder.
    #[arg(long, value_name = "SET|FILE|DIR", default_value = "shipped")]
    pub faults: String,
    /// Where topologies are looked for first.
    #[arg(long, value_name = "DIR")]
    pub topologies: Option<PathBuf>,
    /// The topology for all of them, a name or a file.
    #[arg(long, value_name = "NAME|FILE")]
    pub topology: Option<String>,
    /// Only incidents of these names.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Seeds of each incident.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub seeds: u64,
    /// Policies beside the oracle.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "no-op,random,supervisor,worst,tolerance,trial,expert,verified,search"
    )]
    pub policies: Vec<Baseline>,
    /// What they may spend, of what the oracle spends; 0 for no limit.
    #[arg(long, default_value_t = 1.5)]
    pub budget: f64,
    /// Tables by least number of steps, searched for up to this many; 0 for none.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=3))]
    pub steps: u8,
    /// Threads; as many as there are processors if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Draw what was recovered into this folder, as SVG.
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
}

struct Case {
    incident: Incident,
    topology: Arc<Topology>,
    novelty: f64,
    certificate: Option<Certificate>,
    /// By seed: the oracle's outcome, and those of the policies in their order.
    runs: Vec<(Outcome, Vec<Outcome>)>,
}

/// Runs it.
///
/// # Errors
/// When incidents or topologies cannot be read, or somebody stops it.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    // Where pictures go is no setting of what is measured.
    let measured = Args {
        svg: None,
        ..args.clone()
    };
    let mut report = Report::new("policies", &format!("{measured:?} seed {seed}"));
    if args.budget.is_nan() || args.budget < 0.0 {
        return Err(anyhow!(
            "--budget {}: expected a number from 0 on",
            args.budget
        ));
    }
    let mut cases = cases(args)?;
    let threads = args.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        usize::from,
    );
    if args.steps > 0 {
        progress(&format!(
            "certifying {} incidents up to {} steps",
            cases.len(),
            args.steps
        ));
        let depth = Depth {
            steps: args.steps,
            seed,
            ..Depth::default()
        };
        let certified = spread(cases.len(), threads, |at| {
            let case = &cases[at];
            Ok(Certificate::of(&case.topology, &case.incident, depth)?)
        })?;
        for (case, certificate) in cases.iter_mut().zip(certified) {
            case.certificate = Some(certificate);
        }
    }
    let seeds = usize::try_from(args.seeds)?;
    let all = cases.len() * seeds;
    progress(&format!(
        "{all} episodes of {} policies and the oracle",
        args.policies.len()
    ));
    let runs = spread(all, threads, |at| {
        let own = seed.wrapping_add((at % seeds) as u64);
        episodes(&cases[at / seeds], own, args)
    })?;
    let mut runs = runs.into_iter();
    for case in &mut cases {
        case.runs = runs.by_ref().take(seeds).collect();
    }
    rows(&mut report, &cases, args, seed);
    report.finish(begun.elapsed());
    if let Some(dir) = &args.svg {
        for file in plot::policies(&report, dir)? {
            progress(&format!("drew {}", file.display()));
        }
    }
    Ok(report)
}

fn cases(args: &Args) -> Result<Vec<Case>> {
    let train = incidents::incidents("train")?;
    let all = incidents::named(incidents::incidents(&args.faults)?, &args.only)?;
    let mut topologies = Topologies::new(args.topologies.clone(), args.topology.as_deref())?;
    let with = |incident: Incident| {
        let others = train.iter().filter(|known| known.name != incident.name);
        Ok(Case {
            topology: topologies.of(&incident)?,
            novelty: fault::novelty(&incident, others),
            incident,
            certificate: None,
            runs: Vec::new(),
        })
    };
    all.into_iter().map(with).collect()
}

/// The oracle and all policies, with one seed.
fn episodes(case: &Case, seed: u64, args: &Args) -> Result<(Outcome, Vec<Outcome>)> {
    let one = |policy: Baseline, budget| -> Result<Outcome> {
        let rules = Rules {
            budget,
            ..Rules::default()
        };
        let mut episode = Episode::new(&case.topology, &case.incident, seed, rules)?;
        Ok(episode.run(&mut policy.healer(seed)))
    };
    let oracle = one(Baseline::Oracle, None)?;
    let budget = (args.budget > 0.0).then(|| (args.budget * oracle.spent).max(BUDGET_MIN));
    let others = args.policies.iter().map(|policy| one(*policy, budget));
    let others = others.collect::<Result<_>>()?;
    Ok((oracle, others))
}

/// Does `count` things side by side; results in their order.
fn spread<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            interrupt::pause(Duration::ZERO)?;
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(done);
            }
            done.push((at, work(at)?));
        }
    };
    let done: Result<Vec<Vec<(usize, T)>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, count.max(1)))
            .map(|_| scope.spawn(worker))
            .collect();
        let joined = workers.into_iter().map(|worker| {
            worker
                .join()
                .map_err(|_| anyhow!("an episode ended before it was done"))?
        });
        joined.collect()
    });
    let mut done: Vec<(usize, T)> = done?.into_iter().flatten().collect();
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, one)| one).collect())
}

/// An outcome and the oracle's of the same episode.
type Pair<'c> = (&'c Outcome, &'c Outcome);

/// For each incident, a policy's outcomes in episodes in which users would have noticed.
fn pairs<'c>(cases: &[&'c Case], place: usize) -> Vec<Vec<Pair<'c>>> {
    let of = |case: &&'c Case| -> Vec<Pair<'c>> {
        let runs = case.runs.iter().filter(|(oracle, _)| oracle.was_incident);
        // Behind the last of the others comes the oracle itself.
        runs.map(|(oracle, others)| (others.get(place).unwrap_or(oracle), oracle))
            .collect()
    };
    cases
        .iter()
        .map(of)
        .filter(|pairs| !pairs.is_empty())
        .collect()
}

fn rows(report: &mut Report, cases: &[Case], args: &Args, seed: u64) {
    let repairable: Vec<&Case> = cases.iter().filter(|case| !case.incident.contain).collect();
    let strata = strata(&repairable);
    for (key, about, cases) in &strata {
        let n = cases.len();
        let id = format!("policies.stratum.{key}");
        report.rows.push(Row::new(
            &id,
            &format!("incidents {about}"),
            "incidents",
            Estimate::exact(n as f64, n),
        ));
    }
    for place in 0..=args.policies.len() {
        let policy = args
            .policies
            .get(place)
            .map_or("oracle", |policy| policy.name());
        let all = pairs(&repairable, place);
        recovered(report, policy, "", "", &all, seed);
        figures(report, policy, &all, seed);
        for (key, about, cases) in &strata {
            let pairs = pairs(cases, place);
            recovered(
                report,
                policy,
                &format!("{key}."),
                &format!(", {about}"),
                &pairs,
                seed,
            );
        }
    }
}

/// Incidents by least number of steps, and those that are new.
fn strata<'c>(cases: &[&'c Case]) -> Vec<(String, String, Vec<&'c Case>)> {
    let mut strata: BTreeMap<String, (String, Vec<&'c Case>)> = BTreeMap::new();
    for case in cases {
        if let Some(certificate) = &case.certificate {
            let (key, about) = match certificate.least {
                Some(least) => (format!("steps_{least}"), format!("of least length {least}")),
                None => {
                    let searched = certificate.searched;
                    (
                        format!("steps_over_{searched}"),
                        format!("of least length over {searched}"),
                    )
                }
            };
            strata
                .entry(key)
                .or_insert_with(|| (about, Vec::new()))
                .1
                .push(case);
        }
        if case.novelty >= NEW {
            let about = || ("unlike any of training".to_owned(), Vec::new());
            strata
                .entry("new".to_owned())
                .or_insert_with(about)
                .1
                .push(case);
        }
    }
    strata
        .into_iter()
        .map(|(key, (about, cases))| (key, about, cases))
        .collect()
}

fn recovered(
    report: &mut Report,
    policy: &str,
    key: &str,
    about: &str,
    pairs: &[Vec<Pair<'_>>],
    seed: u64,
) {
    let share = |which: fn(&Pair<'_>) -> bool| {
        move |all: &[&Pair<'_>]| {
            all.iter().filter(|pair| which(pair)).count() as f64 / all.len() as f64
        }
    };
    let ours = stats::clustered(pairs, share(|(ours, _)| ours.recovered), seed);
    let oracle = stats::clustered(pairs, share(|(_, oracle)| oracle.recovered), seed);
    let Some(ours) = ours else {
        return;
    };
    let id = format!("policies.{}.{key}recovered", policy.replace('-', "_"));
    let what = format!("{policy}: recovered{about}");
    let row = Row::new(&id, &what, "ratio", ours).higher();
    report
        .rows
        .push(row.against(oracle.map(|oracle| oracle.value), "oracle"));
}

/// What else there is to know of a policy.
fn figures(report: &mut Report, policy: &str, pairs: &[Vec<Pair<'_>>], seed: u64) {
    let name = policy.replace('-', "_");
    let mut add =
        |id: &str, what: &str, unit, ours: Option<Estimate>, reference: Option<f64>, by: &str| {
            if let Some(ours) = ours {
                let row = Row::new(
                    &format!("policies.{name}.{id}"),
                    &format!("{policy}: {what}"),
                    unit,
                    ours,
                );
                report.rows.push(row.against(reference, by));
            }
        };
    let all: Vec<&Pair<'_>> = pairs.iter().flatten().collect();
    let mean = |value: fn(&Pair<'_>) -> f64| {
        stats::clustered(
            pairs,
            move |all: &[&Pair<'_>]| {
                all.iter().map(|pair| value(pair)).sum::<f64>() / all.len() as f64
            },
            seed,
        )
    };
    let oracle = |value: fn(&Pair<'_>) -> f64| mean(value).map(|estimate| estimate.value);
    let times = |oracle: bool| -> Vec<f64> {
        let outcomes = all.iter().map(|pair| if oracle { pair.1 } else { pair.0 });
        outcomes
            .filter(|one| one.recovered)
            .map(|one| one.seconds)
            .collect()
    };
    let theirs = Estimate::quantile(&times(true), 0.5, seed);
    add(
        "median",
        "time to recover, median of the recovered",
        "s",
        Estimate::quantile(&times(false), 0.5, seed),
        theirs.map(|one| one.value),
        "oracle",
    );
    add(
        "capped",
        "time to recover, mean, capped",
        "s",
        mean(|(ours, _)| ours.seconds),
        oracle(|(_, oracle)| oracle.seconds),
        "oracle",
    );
    add(
        "resolved",
        "recovered with no root left",
        "ratio",
        mean(|(ours, _)| f64::from(u8::from(ours.resolved()))),
        oracle(|(_, oracle)| f64::from(u8::from(oracle.resolved()))),
        "oracle",
    );
    add(
        "prevented",
        "ended before users noticed",
        "ratio",
        mean(|(ours, _)| f64::from(u8::from(ours.prevented()))),
        oracle(|(_, oracle)| f64::from(u8::from(oracle.prevented()))),
        "oracle",
    );
    add(
        "lost",
        "requests lost, of those that a fleet alone loses",
        "ratio",
        stats::clustered(
            pairs,
            |all: &[&Pair<'_>]| {
                let alone: f64 = all.iter().map(|(ours, _)| ours.lost_twin).sum();
                all.iter().map(|(ours, _)| ours.lost).sum::<f64>() / alone.max(1.0)
            },
            seed,
        ),
        Some(1.0),
        "no-op",
    );
    add(
        "harm",
        "health lost to healing, times seconds",
        "s",
        mean(|(ours, _)| ours.harm),
        Some(0.0),
        "no-op",
    );
    add(
        "spent",
        "spent, shares of a route times seconds",
        "s",
        mean(|(ours, _)| ours.spent),
        oracle(|(_, oracle)| oracle.spent),
        "oracle",
    );
    add(
        "orders",
        "orders",
        "orders",
        mean(|(ours, _)| f64::from(ours.orders)),
        oracle(|(_, oracle)| f64::from(oracle.orders)),
        "oracle",
    );
}
