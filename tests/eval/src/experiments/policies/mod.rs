//! Policies against incidents in simulated fleets, each beside the oracle and the twin in
//! which nobody heals, with the same seeds.
//!
//! The oracle runs first and without a budget; what it spends, times `--budget`, is what
//! the others may spend in the same episode. Shares are of episodes in which users would
//! have noticed; incidents that are marked as beyond repair are left out of them. Times are
//! capped and never dropped. Intervals resample incidents first and then their seeds, so
//! that many seeds of few incidents look no better than they are.

mod rows;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow};
use homeostat_coordinator::io::incidents::{self, Topologies};
use homeostat_sim::certify::{Certificate, Depth, Kept};
use homeostat_sim::episode::{Episode, Outcome, Rules};
use homeostat_sim::fault::{self, Incident, Split};
use homeostat_sim::policy::{Baseline, Expert, Healer, UnknownPolicy};
use homeostat_sim::topology::Topology;

use super::spread::{budget, spread, threads};
use super::{plot, progress};
use crate::result::Report;

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
        default_value = "no-op,random,supervisor,worst,tolerance,trial,expert,expert-left-out,\
                         verified,relevant,search"
    )]
    pub policies: Vec<Who>,
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

/// Who heals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// One of those that come with the simulator.
    Baseline(Baseline),
    /// The expert, without the productions that are about the incident at hand.
    LeftOut,
}

const LEFT_OUT: &str = "expert-left-out";

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Baseline(baseline) => baseline.name(),
            Self::LeftOut => LEFT_OUT,
        }
    }

    fn healer(self, incident: &Incident, seed: u64) -> Healer {
        match self {
            Self::Baseline(baseline) => baseline.healer(seed),
            Self::LeftOut => Healer::Sees(Box::new(Expert::left_out(incident))),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Who {
    type Err = UnknownPolicy;
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        match text {
            LEFT_OUT => Ok(Self::LeftOut),
            _ => text.parse().map(Self::Baseline),
        }
    }
}

/// How long a shortest plan is.
#[derive(Debug, Clone, Copy)]
struct Length {
    /// Steps; `None` where it is over those that were searched for.
    least: Option<u8>,
    /// The same if storms of retries were broken for nothing.
    apart: Option<u8>,
    searched: u8,
}

impl Length {
    /// That of a shipped incident, as it was certified.
    fn kept(case: &Case, steps: u8) -> Option<Self> {
        let kept = Kept::of(&case.incident.name)?;
        let shipped = case.split != Split::Sealed && kept.topology == case.topology.name();
        (shipped && steps == KEPT_STEPS).then(|| Self {
            least: kept.length.parse().ok(),
            apart: kept.apart.parse().ok(),
            searched: KEPT_STEPS,
        })
    }
}

/// Steps up to which shipped incidents are certified.
const KEPT_STEPS: u8 = 2;

struct Case {
    incident: Incident,
    /// Whose seeds it is run with: those of development were never tuned on.
    split: Split,
    topology: Arc<Topology>,
    novelty: f64,
    /// How long the shortest plan is, where that was asked.
    length: Option<Length>,
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
    let threads = threads(args.threads);
    if args.steps > 0 {
        progress(&format!(
            "how long the plans of {} incidents are, up to {} steps",
            cases.len(),
            args.steps
        ));
        let depth = Depth {
            steps: args.steps,
            seed,
            ..Depth::default()
        };
        let lengths = spread(cases.len(), threads, |at| {
            let case = &cases[at];
            if let Some(kept) = Length::kept(case, args.steps) {
                return Ok(kept);
            }
            let certificate = Certificate::of(&case.topology, &case.incident, depth)?;
            Ok(Length {
                least: certificate.least,
                apart: certificate.apart,
                searched: certificate.searched,
            })
        })?;
        for (case, length) in cases.iter_mut().zip(lengths) {
            case.length = Some(length);
        }
    }
    let seeds = usize::try_from(args.seeds)?;
    let all = cases.len() * seeds;
    progress(&format!(
        "{all} episodes of {} policies and the oracle",
        args.policies.len()
    ));
    let runs = spread(all, threads, |at| {
        let case = &cases[at / seeds];
        let own = case.split.seed(seed.wrapping_add((at % seeds) as u64));
        episodes(case, own, args)
    })?;
    let mut runs = runs.into_iter();
    for case in &mut cases {
        case.runs = runs.by_ref().take(seeds).collect();
    }
    rows::rows(&mut report, &cases, &args.policies, seed);
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
            split: Split::of(&incident),
            incident,
            length: None,
            runs: Vec::new(),
        })
    };
    all.into_iter().map(with).collect()
}

/// The oracle and all policies, with one seed.
fn episodes(case: &Case, seed: u64, args: &Args) -> Result<(Outcome, Vec<Outcome>)> {
    let one = |policy: Who, budget| -> Result<Outcome> {
        let rules = Rules {
            budget,
            ..Rules::default()
        };
        let mut episode = Episode::new(&case.topology, &case.incident, seed, rules)?;
        Ok(episode.run(&mut policy.healer(&case.incident, seed)))
    };
    let oracle = one(Who::Baseline(Baseline::Oracle), None)?;
    let budget = budget(args.budget, &oracle);
    let others = args.policies.iter().map(|policy| one(*policy, budget));
    let others = others.collect::<Result<_>>()?;
    Ok((oracle, others))
}
