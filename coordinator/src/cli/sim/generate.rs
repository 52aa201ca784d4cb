//! `sim generate`: incidents drawn from families, certified, and written as files.
//!
//! In go a first seed, a topology and the set that they are for; out come one file per
//! incident and a line of `certificates.tsv` beside them. A draw counts if it is fair
//! ([`homeostat_sim::certify::fair`]) and no incident of its name, or of all its productions,
//! is known yet. The same arguments write the same files.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::{Args, ValueEnum};
use homeostat_sim::certify::{Certificate, Depth, fair};
use homeostat_sim::fault::{self, Incident, Set};
use homeostat_sim::topology::Topology;

use super::super::Failure;
use crate::io::incidents::{self, Topologies};

/// Most seeds that are tried for one incident that is kept.
const TRIED_MAX: usize = 40;
/// Seeds that are tried side by side before what is known is looked at again, or fewer where
/// fewer incidents are wanted.
const ROUND: usize = 8;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum For {
    /// To train on.
    Train,
    /// To develop against: what training never has together.
    Development,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Generate {
    /// The folder that they are written to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The topology, a name or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "reference")]
    topology: String,
    /// Where topologies are looked for first.
    #[arg(long, value_name = "DIR")]
    topologies: Option<PathBuf>,
    /// The set that they are for.
    #[arg(long, value_enum, default_value = "train")]
    set: For,
    /// How many, twins counted.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Such as are bound to nothing, of any length; else more than two steps are needed.
    #[arg(long)]
    plain: bool,
    /// Incidents that are known already, besides those of the folder; none that is like one
    /// of the other set is kept, wherever it takes place.
    #[arg(long, value_name = "SET|DIR", default_value = "shipped")]
    known: Vec<String>,
    /// Streams of chance on which a plan has to work.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    streams: u8,
    /// Draws that are tried at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
}

/// What certificates are kept in.
pub(super) const CERTIFICATES: &str = "certificates.tsv";

pub(super) fn generate(args: &Generate) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let mut topologies = Topologies::new(args.topologies.clone(), Some(&args.topology))
        .map_err(|error| failed(&error))?;
    let topology = topologies
        .of(&Incident::none())
        .map_err(|error| failed(&error))?;
    std::fs::create_dir_all(&args.out).map_err(|error| failed(&error))?;
    let mut known = Known::default();
    for from in &args.known {
        known.extend(incidents::incidents(from).map_err(|error| failed(&error))?);
    }
    let other = match args.set {
        For::Train => "development",
        For::Development => "train",
    };
    known.others = incidents::incidents(other).map_err(|error| failed(&error))?;
    let own = args.out.display().to_string();
    match incidents::incidents(&own) {
        Ok(all) => known.extend(all),
        Err(incidents::LibraryError::None(_)) => {}
        Err(error) => return Err(failed(&error)),
    }
    let wanted = usize::from(args.count);
    let mut text = String::new();
    let (mut kept, mut tried) = (0, 0);
    while kept < wanted && tried < wanted * TRIED_MAX {
        let from = args.seed.wrapping_add(tried as u64);
        let seeds = ROUND.min(wanted);
        tried += seeds;
        for drawn in round(args, &topology, from, seeds, &known) {
            let drawn = match drawn {
                Ok(drawn) => drawn,
                Err(why) => {
                    let _ = writeln!(std::io::stderr(), "left out  {why}");
                    continue;
                }
            };
            if kept >= wanted || drawn.iter().any(|(one, _)| known.has(one)) {
                continue;
            }
            for (incident, certificate) in drawn {
                write(&args.out, &incident, &certificate).map_err(|error| failed(&error))?;
                let _ = writeln!(text, "{}  {}", certificate.length(), incident.name);
                known.add(&incident);
                kept += 1;
            }
        }
    }
    let _ = writeln!(text, "\n{kept} incidents out of {tried} seeds");
    Ok(text)
}

type Fair = Result<Vec<(Incident, Certificate)>, String>;

/// Some seeds side by side, in their order.
fn round(
    args: &Generate,
    topology: &Arc<Topology>,
    from: u64,
    seeds: usize,
    known: &Known,
) -> Vec<Fair> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= seeds {
                return done;
            }
            done.push((at, one(args, topology, from.wrapping_add(at as u64), known)));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.threads).map(|_| scope.spawn(work)).collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_default());
        joined.flatten().collect::<Vec<_>>()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, one)| one).collect()
}

fn one(args: &Generate, topology: &Arc<Topology>, seed: u64, known: &Known) -> Fair {
    let set = match args.set {
        For::Train => Set::Train,
        For::Development => Set::Development,
    };
    let drawn = Incident::compose(seed, topology, set, args.plain);
    if drawn.is_empty() {
        return Err(format!("{seed}: fits nowhere"));
    }
    if let Some(one) = drawn.iter().find(|one| known.has(&one.incident)) {
        return Err(format!("{seed}: {} is known", one.incident.name));
    }
    let depth = Depth {
        steps: 2,
        streams: args.streams,
        ..Depth::default()
    };
    let certified = fair(topology, &drawn, depth, !args.plain);
    let certified = certified.map_err(|error| format!("{seed}: {error}"))?;
    let drawn = drawn.into_iter().map(|one| one.incident);
    Ok(drawn.zip(certified).collect())
}

/// What is there already: names, and what is at what.
#[derive(Default)]
struct Known {
    names: BTreeSet<String>,
    all: Vec<Incident>,
    /// Those of the other set.
    others: Vec<Incident>,
}

impl Known {
    fn extend(&mut self, all: Vec<Incident>) {
        self.names.extend(all.iter().map(|one| one.name.clone()));
        self.all.extend(all);
    }

    fn add(&mut self, one: &Incident) {
        self.names.insert(one.name.clone());
        self.all.push(one.clone());
    }

    fn has(&self, one: &Incident) -> bool {
        let same = |other: &Incident| {
            other.topology == one.topology
                && one.faults.len() > 1
                && fault::distance(other, one) == 0.0
        };
        let like = |other: &Incident| fault::distance(other, one) == 0.0;
        self.names.contains(&one.name) || self.all.iter().any(same) || self.others.iter().any(like)
    }
}

fn write(out: &Path, incident: &Incident, certificate: &Certificate) -> std::io::Result<()> {
    std::fs::write(
        out.join(format!("{}.toml", incident.name)),
        incident.to_string(),
    )?;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(out.join(CERTIFICATES))?;
    writeln!(file, "{}", certificate.line())
}
