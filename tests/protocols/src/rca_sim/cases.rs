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

/// The first of the numbers of seeds that draw incidents, away from those of episodes.
const DRAWN: u64 = 1 << 30;

/// A place for a number, one after the other.
fn place(number: u64, of: usize) -> usize {
    usize::try_from(number).unwrap_or(0) % of
}
