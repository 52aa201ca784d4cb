//! Incidents: those that are shipped, and more from the grammar to learn from.

use anyhow::Result;
use homeostat_sim::fault::{Incident, Set, Split, may_learn};
use homeostat_sim::topology::Topology;

/// The shipped incidents of a split; none for the sealed one, which is not in the repository.
///
/// # Errors
/// When one does not read.
pub fn shipped(split: Split) -> Result<Vec<Incident>> {
    let files = match split {
        Split::Train => Incident::train(),
        Split::Development => Incident::development(),
        Split::Sealed => &[],
    };
    let all = files.iter().map(|(name, _)| Ok(Incident::named(name)?));
    all.collect()
}

/// Up to `count` incidents drawn from the grammar at large and, one in four, from the
/// families of the training set; each may be learned from, and their names are their own.
///
/// # Errors
/// When a shipped topology does not read.
pub fn drawn(count: usize) -> Result<Vec<Incident>> {
    let names = Topology::shipped().iter().map(|(name, _)| *name);
    let fleets: Result<Vec<Topology>> = names.map(|name| Ok(Topology::named(name)?)).collect();
    let fleets = fleets?;
    let mut all: Vec<Incident> = Vec::with_capacity(count);
    for number in 0..4 * count as u64 {
        if all.len() >= count {
            break;
        }
        let seed = Split::Train.seed(DRAWN + number);
        let fleet = &fleets[place(number, fleets.len())];
        let more = if number % 4 == 0 {
            let composed = Incident::compose(seed, fleet, Set::Train, number % 8 == 0);
            composed.into_iter().map(|one| one.incident).collect()
        } else {
            Incident::generate(seed, fleet)
        };
        let learnable = more.into_iter().filter(|one| may_learn(one).is_ok());
        all.extend(learnable.take(1).map(|mut one| {
            one.name = format!("{}-{number}", one.name);
            one
        }));
    }
    Ok(all)
}

/// Incidents of one fault without couplings, drawn from the grammar with seeds of a split; a
/// third of them passes by itself after a while.
///
/// # Errors
/// When a shipped topology does not read.
pub fn plain(split: Split, count: usize) -> Result<Vec<Incident>> {
    let names = Topology::shipped().iter().map(|(name, _)| *name);
    let fleets: Result<Vec<Topology>> = names.map(|name| Ok(Topology::named(name)?)).collect();
    let fleets = fleets?;
    let mut all: Vec<Incident> = Vec::with_capacity(count);
    for number in 0..PLAIN_TRIED * count as u64 {
        if all.len() >= count {
            break;
        }
        let fleet = &fleets[place(number, fleets.len())];
        let drawn = Incident::generate(split.seed(PLAIN + number), fleet)
            .into_iter()
            .next();
        let Some(mut one) = drawn else { continue };
        one.faults.truncate(1);
        let Some(fault) = one.faults.first_mut() else {
            continue;
        };
        fault.couplings.clear();
        if number % 3 == 0 && fault.trigger.lasts.is_none() {
            fault.trigger.lasts = Some(30.0 + (number % 11) as f64 * 15.0);
        }
        one.twin = None;
        one.name = format!("plain-{number}");
        if one.check(fleet).is_ok() {
            all.push(one);
        }
    }
    Ok(all)
}

/// Draws for each plain incident, at most.
const PLAIN_TRIED: u64 = 4;
/// The first of the numbers of their seeds.
const PLAIN: u64 = 3 << 29;

/// The first of the numbers of seeds that draw incidents, away from those of episodes.
const DRAWN: u64 = 1 << 30;

/// A place for a number, one after the other.
fn place(number: u64, of: usize) -> usize {
    usize::try_from(number).unwrap_or(0) % of
}
