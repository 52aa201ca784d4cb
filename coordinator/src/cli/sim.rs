//! `sim run|record|replay|certify|generate|explain`: the simulator for people.
//!
//! In go incidents by set, file or folder; out come tables, a live line per ten simulated
//! seconds, traces, or one JSON object per line. What is measured is the simulator's
//! ([`homeostat_sim::episode`], [`homeostat_sim::certify`]); here it is only shown.

mod generate;
mod live;
mod record;

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::{Args, Subcommand};
use homeostat_sim::certify::{Certificate, Depth, STEPS_MAX};
use homeostat_sim::episode::{Episode, Outcome, Rules};
use homeostat_sim::fault::{self, Incident};
use homeostat_sim::policy::Baseline;
use homeostat_sim::topology::Topology;
use homeostat_sim::world::Phase;

use super::Failure;
use super::table::table;
use crate::io::incidents::{self, LibraryError, Topologies};

/// Between two live lines, in simulated seconds.
const LINE_S: f64 = 10.0;
/// Most threads of a certification.
const THREADS_MAX: u16 = 256;

#[derive(Debug, Subcommand)]
pub(super) enum SimCommand {
    /// Have incidents happen to a fleet, with a policy that heals.
    Run {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        how: How,
        /// The seed of world and policy.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Lines instead of a view of the fleet.
        #[arg(long)]
        plain: bool,
        /// Simulated seconds per second in the view.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=live::SPEED_MAX))]
        speed: u32,
    },
    /// Write episodes into files to learn from, with plans left to chance.
    Record(#[command(flatten)] record::Record),
    /// Run a recording again and prove that it is the same to the last bit.
    Replay(#[command(flatten)] record::Replay),
    /// How hard incidents are: the least number of steps that end them, by exhaustive search.
    Certify {
        #[command(flatten)]
        which: Which,
        /// Steps of the longest plan that is looked for.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=i64::from(STEPS_MAX)))]
        steps: u8,
        /// Streams of chance on which a plan has to work.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
        streams: u8,
        /// The seed of the first stream.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Write the certificates to this file, a line each.
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
        /// Incidents that are tried at once; as many as there are processors if not given.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(THREADS_MAX)))]
        threads: Option<u16>,
    },
    /// Draw incidents from families, certify them, and write those that are fair as files.
    Generate(generate::Generate),
    /// Print an episode as a trace: what happened, what was done, how it ended.
    Explain {
        /// Its seed.
        seed: u64,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        how: How,
    },
}

/// Which incidents, and where.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Incidents by name; all of them if none is named.
    #[arg(value_name = "INCIDENT")]
    names: Vec<String>,
    /// Where they are: train, development, shipped (both), a file or a folder.
    #[arg(long, value_name = "SET|FILE|DIR", default_value = "shipped")]
    faults: String,
    /// The topology for all of them, a name or a file; else each says its own.
    #[arg(long, value_name = "NAME|FILE")]
    topology: Option<String>,
    /// Where topologies are looked for first.
    #[arg(long, value_name = "DIR")]
    topologies: Option<PathBuf>,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Who heals, and by what rules.
#[derive(Debug, Args)]
pub(super) struct How {
    /// Who heals: no-op, random, supervisor, worst, tolerance, trial, expert, verified,
    /// search or oracle.
    #[arg(long, default_value = "expert")]
    policy: Baseline,
    /// What healing may spend, in shares of a route times seconds.
    #[arg(long)]
    budget: Option<f64>,
}

impl How {
    fn rules(&self) -> Result<Rules, Failure> {
        Ok(Rules {
            budget: budget(self.budget)?,
            ..Rules::default()
        })
    }
}

fn budget(budget: Option<f64>) -> Result<Option<f64>, Failure> {
    match budget {
        Some(budget) if budget.is_nan() || budget < 0.0 => Err(Failure::Usage(format!(
            "--budget {budget}: expected a number from 0 on"
        ))),
        budget => Ok(budget),
    }
}

pub(super) fn sim(command: &SimCommand) -> Result<String, Failure> {
    match command {
        SimCommand::Run {
            which,
            how,
            seed,
            plain,
            speed,
        } => run(which, how, *seed, (!plain).then_some(*speed)),
        SimCommand::Record(args) => record::record(args),
        SimCommand::Replay(args) => record::replay(args),
        SimCommand::Certify {
            which,
            steps,
            streams,
            seed,
            write,
            threads,
        } => {
            let depth = Depth {
                steps: *steps,
                streams: *streams,
                seed: *seed,
                ..Depth::default()
            };
            certify(which, depth, write.as_deref(), *threads)
        }
        SimCommand::Generate(args) => generate::generate(args),
        SimCommand::Explain { seed, which, how } => explain(which, how, *seed),
    }
}

type Cases = Vec<(Incident, Arc<Topology>)>;

/// The incidents with their topologies; all are checked before any is run.
fn cases(which: &Which) -> Result<Cases, Failure> {
    let topology = which.topology.as_deref();
    cases_of(
        &which.faults,
        &which.names,
        which.topologies.as_ref(),
        topology,
    )
}

fn cases_of(
    faults: &str,
    names: &[String],
    topologies: Option<&PathBuf>,
    topology: Option<&str>,
) -> Result<Cases, Failure> {
    let read = || -> Result<Cases, LibraryError> {
        let all = incidents::named(incidents::incidents(faults)?, names)?;
        let mut topologies = Topologies::new(topologies.cloned(), topology)?;
        let with = |incident: Incident| {
            let topology = topologies.of(&incident)?;
            Ok((incident, topology))
        };
        all.into_iter().map(with).collect()
    };
    read().map_err(|error| match error {
        LibraryError::Unknown(..) => Failure::Usage(error.to_string()),
        error => Failure::Failed(error.to_string()),
    })
}

fn episode(case: &(Incident, Arc<Topology>), seed: u64, rules: Rules) -> Result<Episode, Failure> {
    let (incident, topology) = case;
    Episode::new(topology, incident, seed, rules)
        .map_err(|error| Failure::Failed(error.to_string()))
}

fn run(which: &Which, how: &How, seed: u64, view: Option<u32>) -> Result<String, Failure> {
    let rules = how.rules()?;
    let cases = cases(which)?;
    let live = cases.len() == 1 && !which.json;
    // A view wants keys as well.
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let mut outcomes = Vec::new();
    for case in &cases {
        let mut episode = episode(case, seed, rules)?;
        let mut healer = how.policy.healer(seed);
        if let (true, true, Some(speed)) = (live, terminal, view) {
            let watched = live::watch(&mut episode, &mut healer, &case.0, seed, speed);
            watched.map_err(|error| Failure::Failed(format!("cannot show it: {error}")))?;
        }
        let lines = live && !(terminal && view.is_some());
        let mut next = episode.world().now();
        while episode.tick(&mut healer) {
            if lines && episode.world().now() >= next {
                next += LINE_S;
                // A closed pipe (`| head`) is no failure worth words.
                if writeln!(std::io::stdout(), "{}", line(&episode)).is_err() {
                    return Ok(String::new());
                }
            }
        }
        outcomes.push(episode.outcome(healer.name()));
    }
    if which.json {
        return lines(&outcomes);
    }
    let rows: Vec<Vec<String>> = outcomes.iter().map(row).collect();
    let head = [
        "INCIDENT",
        "NOTICED",
        "RECOVERED",
        "SECONDS",
        "ROOTS",
        "LOST",
        "OF",
        "HARM",
        "SPENT",
        "ORDERS",
    ];
    let mut text = table(&head, &rows);
    if let [_, _, ..] = outcomes.as_slice() {
        let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|one| is(one)).count();
        let _ = writeln!(
            text,
            "\n{} with seed {seed}: recovered {} of {}, {} of them without a root left",
            how.policy.name(),
            count(|one| one.recovered),
            outcomes.len(),
            count(Outcome::resolved),
        );
    }
    Ok(text)
}

/// How a fleet is, in a line.
fn line(episode: &Episode) -> String {
    let (ours, theirs) = episode.levels();
    let world = episode.world();
    let (mut up, mut down) = (0, 0);
    for replica in world
        .topology()
        .nodes()
        .iter()
        .flat_map(|node| &node.replicas)
    {
        match world.phase(*replica) {
            Phase::Running => up += 1,
            Phase::Standby => {}
            Phase::Starting { .. } | Phase::Dead | Phase::Hung | Phase::Frozen => down += 1,
        }
    }
    let health = ours.health();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within 0 and 1.
    let bar = "#".repeat((health.clamp(0.0, 1.0) * 20.0) as usize);
    let last = episode
        .trace()
        .entries()
        .last()
        .map_or("", |entry| entry.what.as_str());
    format!(
        "{:5.0} s  [{bar:20}] {health:.3} (alone {:.3})  errors {:5.1} %  p95 {:5.0} ms  quality {:.3}  \
         {up} up {down} not  spent {:.1}  {last}",
        world.now(),
        theirs.health(),
        100.0 * ours.err,
        ours.p95_ms,
        ours.quality,
        episode.spent(),
    )
}

fn row(outcome: &Outcome) -> Vec<String> {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    vec![
        outcome.incident.clone(),
        match (outcome.was_incident, outcome.breached) {
            (true, false) => "prevented".to_owned(),
            (_, breached) => yes(breached),
        },
        yes(outcome.recovered),
        format!("{:.0}", outcome.seconds),
        outcome.roots_left.to_string(),
        format!("{:.0}", outcome.lost),
        format!("{:.0}", outcome.lost_twin),
        format!("{:.1}", outcome.harm),
        format!("{:.1}", outcome.spent),
        outcome.orders.to_string(),
    ]
}

fn explain(which: &Which, how: &How, seed: u64) -> Result<String, Failure> {
    let rules = how.rules()?;
    let cases = cases(which)?;
    let [case] = cases.as_slice() else {
        let text = format!("name one incident to explain; {} were given", cases.len());
        return Err(Failure::Usage(text));
    };
    let mut episode = episode(case, seed, rules)?;
    let mut healer = how.policy.healer(seed);
    let outcome = episode.run(&mut healer);
    if which.json {
        let mut text = lines(episode.trace().entries())?;
        text.push_str(&lines(&[outcome])?);
        return Ok(text);
    }
    let (incident, topology) = case;
    let about: Vec<&str> = incident.about.split_whitespace().collect();
    let mut text = format!(
        "{} on {}, seed {seed}, healed by {}\n{}\n\n{}",
        incident.name,
        topology.name(),
        outcome.policy,
        about.join(" "),
        episode.trace()
    );
    let ended = match (outcome.was_incident, outcome.breached, outcome.recovered) {
        (false, false, _) => "users would not have noticed, and did not".to_owned(),
        (true, false, _) => "prevented: without a healer users would have noticed".to_owned(),
        (_, true, true) if outcome.roots_left == 0 => {
            format!(
                "recovered {:.0} s after it began, nothing of it is left",
                outcome.seconds
            )
        }
        (_, true, true) => format!(
            "mitigated {:.0} s after it began, its root is still there",
            outcome.seconds
        ),
        (_, true, false) => "not recovered".to_owned(),
    };
    let _ = writeln!(
        text,
        "\n{ended}\nrequests lost {:.0} (without a healer {:.0}), harm {:.1}, benefit {:.1}, spent {:.1}",
        outcome.lost, outcome.lost_twin, outcome.harm, outcome.benefit, outcome.spent
    );
    Ok(text)
}

/// A certificate with how new the incident is to whoever knows the training set.
#[derive(Debug, serde::Serialize)]
struct Certified {
    #[serde(flatten)]
    certificate: Certificate,
    novelty: f64,
}

fn certify(
    which: &Which,
    depth: Depth,
    write: Option<&Path>,
    threads: Option<u16>,
) -> Result<String, Failure> {
    let cases = cases(which)?;
    let train =
        incidents::incidents("train").map_err(|error| Failure::Failed(error.to_string()))?;
    let available = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = threads
        .map_or_else(available, usize::from)
        .min(cases.len().max(1));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((incident, topology)) = cases.get(at) else {
                return done;
            };
            let others = train.iter().filter(|known| known.name != incident.name);
            let novelty = fault::novelty(incident, others);
            let certificate = Certificate::of(topology, incident, depth);
            done.push((
                at,
                certificate.map(|certificate| Certified {
                    certificate,
                    novelty,
                }),
            ));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_default());
        joined.flatten().collect::<Vec<_>>()
    });
    done.sort_by_key(|(at, _)| *at);
    if done.len() < cases.len() {
        return Err(Failure::Failed(
            "a certification ended before it was done".to_owned(),
        ));
    }
    let done: Result<Vec<Certified>, _> =
        done.into_iter().map(|(_, certified)| certified).collect();
    let done = done.map_err(|error| Failure::Failed(error.to_string()))?;
    if let Some(file) = write {
        let lines: String = done
            .iter()
            .map(|one| one.certificate.line() + "\n")
            .collect();
        std::fs::write(file, lines).map_err(|error| {
            Failure::Failed(format!("cannot write {}: {error}", file.display()))
        })?;
    }
    if which.json {
        return lines(&done);
    }
    let rows: Vec<Vec<String>> = done
        .iter()
        .map(|one| {
            let own = &one.certificate;
            let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
            vec![
                own.incident.clone(),
                yes(own.was_incident),
                own.length(),
                own.length_apart(),
                if own.has_plan() && own.least != Some(1) {
                    yes(own.order_matters)
                } else {
                    "-".to_owned()
                },
                format!("{:.2}", one.novelty),
                own.found.to_string(),
                own.forks.to_string(),
                own.plans.first().cloned().unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    let head = [
        "INCIDENT", "NOTICED", "STEPS", "APART", "ORDER", "NOVELTY", "PLANS", "FORKS", "QUICKEST",
    ];
    Ok(table(&head, &rows) + &shares(&done))
}

/// How many are how long, of those that have a plan.
fn shares(done: &[Certified]) -> String {
    let all = done.iter().map(|one| &one.certificate);
    let planned: Vec<_> = all
        .filter(|one| one.was_incident && one.has_plan())
        .collect();
    let count = |is: &dyn Fn(&Certificate) -> bool| planned.iter().filter(|one| is(one)).count();
    let share = |what: &str, count: usize| {
        let of = planned.len().max(1) as f64;
        format!("{what} {count} ({:.0} %)", 100.0 * count as f64 / of)
    };
    format!(
        "\n{} of {} have a plan: {}, {}, {}; {}, {}\n",
        planned.len(),
        done.len(),
        share("one step", count(&|one| one.least == Some(1))),
        share("two", count(&|one| one.least == Some(2))),
        share("more", count(&Certificate::hard)),
        share(
            "of these order matters in",
            count(&|one| one.hard() && one.order_matters)
        ),
        share(
            "and only a storm of retries makes them long in",
            count(&|one| one.hard() && one.storms())
        ),
    )
}

/// One JSON object per line.
fn lines<T: serde::Serialize>(all: &[T]) -> Result<String, Failure> {
    let mut text = String::new();
    for one in all {
        let line = serde_json::to_string(one);
        text.push_str(&line.map_err(|error| Failure::Failed(format!("cannot encode: {error}")))?);
        text.push('\n');
    }
    Ok(text)
}
