//! Tunes the numbers of trial and error by an evolution strategy, on the training set.
//!
//! Candidates of a generation meet the same incidents with the same seeds, half of the set
//! at a time, with a budget of disruption as in every comparison: so many times what the
//! oracle spends in the same episode. What comes out is scored on all of them with seeds
//! that no generation saw, beside the numbers that were set by hand; the better of the two
//! is what is written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use homeostat_coordinator::io::incidents::{self, Topologies};
use homeostat_sim::episode::{Episode, Rules};
use homeostat_sim::fault::{self, Incident};
use homeostat_sim::policy::{Baseline, Healer, Strategy, Trial, Tuned, Tuning, WEIGHTS, Weights};
use homeostat_sim::topology::Topology;

use super::progress;
use super::spread::{budget, spread, threads};
use crate::result::{Report, Row};
use crate::stats::{self, Estimate};

/// Seeds of the final score begin here, behind those of all generations.
const SCORED_FROM: u64 = 1_000_000;
/// Users who are served for so long, with no root left, stay so: an episode of a candidate
/// needs no end beyond it.
const ENOUGH_S: f64 = 60.0;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Incidents: train, a file or a folder.
    #[arg(long, value_name = "SET|FILE|DIR", default_value = "train")]
    pub faults: String,
    /// Where topologies are looked for first.
    #[arg(long, value_name = "DIR")]
    pub topologies: Option<PathBuf>,
    /// Only incidents of these names.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Generations.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub generations: u32,
    /// Minutes after which no further generation begins; the file says how many there were.
    #[arg(long)]
    pub minutes: Option<u32>,
    /// Candidates of each.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(4..=1000))]
    pub candidates: u32,
    /// Episodes of a candidate in a generation; half of the incidents if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub episodes: Option<u32>,
    /// Seeds of each incident in the final score.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub seeds: u32,
    /// What may be spent, of what the oracle spends.
    #[arg(long, default_value_t = 1.5)]
    pub budget: f64,
    /// The first step of each number, of what it is by hand and at least of 1.
    #[arg(long, default_value_t = 0.3)]
    pub step: f64,
    /// Weights to begin with; those by hand if not given.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Where the weights go.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Threads; as many as there are processors if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
}

/// An incident with a seed.
struct Case {
    incident: Incident,
    topology: Arc<Topology>,
    seed: u64,
    budget: f64,
}

/// Runs it.
///
/// # Errors
/// When incidents or topologies cannot be read, or somebody stops it.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let mut report = Report::new("tune", &format!("{args:?} seed {seed}"));
    if !(args.budget > 0.0 && args.budget.is_finite() && args.step > 0.0 && args.step < 10.0) {
        return Err(anyhow!("expected a --budget above 0 and a --step below 10"));
    }
    let threads = threads(args.threads);
    let all = incidents::named(incidents::incidents(&args.faults)?, &args.only)?;
    let mut topologies = Topologies::new(args.topologies.clone(), None)?;
    let mut known = Vec::new();
    for incident in all.into_iter().filter(|incident| !incident.contain) {
        fault::may_learn(&incident)?;
        known.push((topologies.of(&incident)?, incident));
    }
    let batch = args
        .episodes
        .map_or(known.len().div_ceil(2), |n| n as usize);
    let from = match &args.from {
        None => Weights::by_hand(),
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            Tuned::read(&file.display().to_string(), &text)?.weights
        }
    };
    let row = from.to_array();
    let scale: Vec<f64> = row.iter().map(|x| args.step * x.abs().max(1.0)).collect();
    let mut strategy = Strategy::new(&row, &scale, args.candidates as usize, seed);
    // The oracle's cost differs little between seeds, and takes longest to find out: a few
    // seeds of each incident serve all generations.
    progress(&format!(
        "what the oracle spends on {} incidents",
        known.len()
    ));
    let pool = cases(&known, seed, 2, args.budget, threads)?;
    let end = args
        .minutes
        .map(|minutes| begun + Duration::from_secs(60 * u64::from(minutes)));
    let mut generations = 0;
    for generation in 0..args.generations {
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        generations += 1;
        let chosen: Vec<&Case> = (0..batch)
            .map(|at| &pool[(generation as usize * batch + at) * STRIDE % pool.len()])
            .collect();
        let candidates = strategy.ask();
        let runs = spread(candidates.len() * batch, threads, |at| {
            worth(chosen[at % batch], &weights(&candidates[at / batch]))
        })?;
        let scores: Vec<f64> = runs
            .chunks(batch)
            .map(|own| own.iter().sum::<f64>() / batch as f64)
            .collect();
        strategy.tell(&scores);
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        progress(&format!(
            "generation {}: mean {mean:.3}, deviation {:.2}",
            generation + 1,
            strategy.deviation()
        ));
    }
    let scored = cases(
        &known,
        seed.wrapping_add(SCORED_FROM),
        args.seeds,
        args.budget,
        threads,
    )?;
    let tuned = weights(&strategy.mean());
    let share = |weights: &Weights| -> Result<Estimate> {
        let runs = spread(scored.len(), threads, |at| recovered(&scored[at], weights))?;
        let groups: Vec<Vec<bool>> = runs
            .chunks(args.seeds as usize)
            .map(<[bool]>::to_vec)
            .collect();
        let share =
            |all: &[&bool]| all.iter().filter(|one| ***one).count() as f64 / all.len() as f64;
        stats::clustered(&groups, share, seed).ok_or_else(|| anyhow!("there is no incident"))
    };
    let by_hand = share(&Weights::by_hand())?;
    let begin = share(&from)?;
    let ours = share(&tuned)?;
    let tuned = Tuned {
        weights: if ours.value >= begin.value {
            tuned
        } else {
            from
        },
        tuning: Tuning {
            seed,
            generations,
            candidates: args.candidates,
            incidents: u32::try_from(known.len())?,
            seeds: args.seeds,
            budget: args.budget,
            recovered: ours.value.max(begin.value),
            recovered_by_hand: by_hand.value,
        },
    };
    if let Some(out) = &args.out {
        std::fs::write(out, tuned.text())
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    let row = Row::new(
        "tune.trial.recovered",
        "trial and error, tuned: recovered, training incidents, new seeds",
        "ratio",
        ours,
    );
    let row = row.higher().against(Some(by_hand.value), "by hand");
    report.rows.push(row);
    report.finish(begun.elapsed());
    Ok(report)
}

/// Prime to the number of any set of incidents below it, so that a generation meets all
/// parts of the set.
const STRIDE: usize = 7919;

fn weights(row: &[f64]) -> Weights {
    let mut all = [0.0; WEIGHTS];
    all.iter_mut()
        .zip(row)
        .for_each(|(into, from)| *into = *from);
    Weights::from_array(&all)
}

/// Seeds of each incident in which users would notice, with what may be spent on them.
fn cases(
    known: &[(Arc<Topology>, Incident)],
    seed: u64,
    seeds: u32,
    times: f64,
    threads: usize,
) -> Result<Vec<Case>> {
    let seeds = seeds as usize;
    spread(known.len() * seeds, threads, |at| {
        let (topology, incident) = &known[at / seeds];
        let seed = seed.wrapping_add((at % seeds) as u64);
        let mut oracle = Episode::new(topology, incident, seed, Rules::default())?;
        let outcome = oracle.run(&mut Baseline::Oracle.healer(seed));
        Ok(Case {
            incident: incident.clone(),
            topology: Arc::clone(topology),
            seed,
            budget: budget(times, &outcome).unwrap_or(f64::INFINITY),
        })
    })
}

fn episode(case: &Case) -> Result<Episode> {
    let rules = Rules {
        budget: Some(case.budget),
        ..Rules::default()
    };
    Ok(Episode::new(
        &case.topology,
        &case.incident,
        case.seed,
        rules,
    )?)
}

fn recovered(case: &Case, weights: &Weights) -> Result<bool> {
    let mut healer = Healer::Sees(Box::new(Trial::new(weights.clone())));
    Ok(episode(case)?.run(&mut healer).recovered)
}

/// What a candidate is worth in an episode: 1 for users who are served again, a little for
/// being quick, and a little for what was not lost.
fn worth(case: &Case, weights: &Weights) -> Result<f64> {
    let mut healer = Healer::Sees(Box::new(Trial::new(weights.clone())));
    let mut episode = episode(case)?;
    let mut served = 0.0;
    while episode.tick(&mut healer) {
        let world = episode.world();
        let well = world.level().meets(&episode_target()) && world.roots_left() == 0;
        let begun = world.now() > world.onset() + ENOUGH_S;
        served = if well && begun {
            served + world.settings().dt
        } else {
            0.0
        };
        if served >= ENOUGH_S {
            break;
        }
    }
    let cap = Rules::default().cap_s;
    let outcome = episode.outcome("trial");
    let healed = served >= ENOUGH_S || outcome.recovered;
    let seconds = (episode.world().now() - ENOUGH_S - outcome.onset).clamp(0.0, cap);
    let lost = outcome.lost / outcome.lost_twin.max(1.0);
    let kept = 0.1 * (1.0 - lost).clamp(-1.0, 1.0);
    Ok(if healed {
        1.0 - 0.1 * seconds / cap
    } else {
        0.0
    } + kept)
}

fn episode_target() -> homeostat_sim::world::Target {
    Rules::default().target
}
