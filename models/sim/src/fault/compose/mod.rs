//! Incidents by families: what goes wrong, what has to come first, and a twin in which it
//! must not.
//!
//! In go a seed, a topology and the set that it is for; out come an incident and, but for
//! plain ones, its twin. A *base* keeps a whole service from working and takes several steps
//! to mend, so that taking one replica out of service helps nobody. A *family* says what
//! else is wrong and how the two are bound: mended in the wrong order, or without a
//! protective step, something is lost for longer than an episode, each time something
//! else. Now and then a third thing is wrong elsewhere, and may hide the first.
//!
//! Combinations of family, base and third thing are cells. One in four is kept for the
//! development set: it holds only what was never trained together.
//!
//! How many steps a drawn incident needs is not known here.

mod families;
mod parts;

use self::families::Family;
use self::parts::{Base, Extra};
use super::draw::Draw;
use super::grammar::{Coupling, Incident};
use crate::chance::{Chance, Stream};
use crate::policy::{Kind, Whom};
use crate::topology::Topology;

/// A drawn incident, with what its family knows to end it.
#[derive(Debug, Clone, PartialEq)]
pub struct Composed {
    /// The incident.
    pub incident: Incident,
    /// Steps, in their order; not the shortest.
    pub repair: Vec<(Kind, Whom)>,
}

/// What a drawn incident is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// To train on.
    Train,
    /// To develop against: cells that training does not have.
    Development,
}

/// One in so many cells is kept for development.
const CELLS_KEPT: usize = 4;
/// Draws until one fits the topology.
const DRAWS_MAX: u64 = 64;
/// Share of the incidents with a third thing wrong.
const EXTRA: f64 = 0.45;
/// Share of these in which it hides the base.
const HIDES: f64 = 0.35;

impl Set {
    fn has(self, family: Family, base: Base, extra: Option<Extra>) -> bool {
        // Plain ones are what all others are made of: training has them all.
        let cell = family as usize + 3 * base as usize + 7 * extra.map_or(0, |e| 1 + e as usize);
        let kept = family != Family::Plain && cell % CELLS_KEPT == 1;
        match self {
            Self::Train => !kept,
            Self::Development => kept || family == Family::Plain,
        }
    }
}

impl Incident {
    /// Draws an incident of a family, and its twin. All of them pass [`Incident::check`].
    /// With `plain`, one without couplings; otherwise never such a one.
    #[must_use]
    pub fn compose(seed: u64, topology: &Topology, set: Set, plain: bool) -> Vec<Composed> {
        let mut draw = Draw::new(Chance::new(seed, Stream::Incident));
        for _ in 0..DRAWS_MAX {
            let drawn = drawn(&mut draw, topology, set, plain).unwrap_or_default();
            if !drawn.is_empty() && drawn.iter().all(|one| one.incident.check(topology).is_ok()) {
                return drawn;
            }
        }
        Vec::new()
    }
}

fn drawn(draw: &mut Draw, topology: &Topology, set: Set, plain: bool) -> Option<Vec<Composed>> {
    let family = if plain {
        Family::Plain
    } else {
        *draw.one(Family::COUPLED)?
    };
    let base = *draw.one(family.bases())?;
    let more = !plain && (family.needs_extra() || draw.often(EXTRA));
    let extra = if more {
        Some(*draw.one(Extra::ALL)?)
    } else {
        None
    };
    if !set.has(family, base, extra) {
        return None;
    }
    let mut place = parts::Place::new(draw, topology, base, family)?;
    let mut drawn = families::of(family, draw, &mut place)?;
    if let Some(extra) = extra {
        let (fault, about, repair) = place.extra(draw, extra)?;
        let hides = draw.often(HIDES);
        for Composed {
            incident: one,
            repair: its,
        } in &mut drawn
        {
            one.about = format!("{} {about}", one.about);
            one.name = format!("{}-{}", one.name, extra.name());
            if hides && let Some(base) = one.faults.iter_mut().find(|other| other.id == "base") {
                base.couplings.push(Coupling::Hides {
                    behind: fault.id.clone(),
                });
            }
            one.faults.push(fault.clone());
            its.splice(0..0, repair.iter().copied());
        }
    }
    for Composed { incident: one, .. } in &mut drawn {
        one.topology = topology.name().to_owned();
        one.name = format!("{}-{}", topology.name(), one.name);
    }
    if let [one, twin] = drawn.as_mut_slice() {
        one.incident.twin = Some(twin.incident.name.clone());
        twin.incident.twin = Some(one.incident.name.clone());
    }
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::policy::Moves;

    #[test]
    fn families_fit_every_topology_and_sets_share_no_cell() {
        for (name, _) in Topology::shipped() {
            let topology = Topology::named(name).unwrap();
            let mut drawn = 0;
            let mut twins = 0;
            for seed in 0..60 {
                for set in [Set::Train, Set::Development] {
                    let all = Incident::compose(seed, &topology, set, false);
                    drawn += all.len();
                    twins += usize::from(all.len() == 2);
                    for Composed {
                        incident: one,
                        repair,
                    } in &all
                    {
                        let moves = Moves::new(&topology);
                        for (kind, whom) in repair {
                            assert!(
                                moves.find(*kind, *whom).is_some(),
                                "{kind:?} {whom:?}\n{one}"
                            );
                        }
                        let again = Incident::read("x", &one.to_string())
                            .unwrap_or_else(|error| panic!("{error}\n{one}"));
                        assert_eq!(again.to_string(), one.to_string());
                        assert!(one.faults.iter().any(|fault| !fault.couplings.is_empty()));
                    }
                    assert_eq!(all, Incident::compose(seed, &topology, set, false));
                }
            }
            assert!(drawn > 100 && twins > 40, "{name}: {drawn} {twins}");
        }
        let cells = |set: Set| -> BTreeSet<(usize, usize, usize)> {
            let mut cells = BTreeSet::new();
            for family in Family::COUPLED {
                for base in family.bases() {
                    for extra in std::iter::once(None).chain(Extra::ALL.iter().map(|e| Some(*e))) {
                        if set.has(*family, *base, extra) {
                            let third = extra.map_or(0, |e| 1 + e as usize);
                            cells.insert((*family as usize, *base as usize, third));
                        }
                    }
                }
            }
            cells
        };
        let (train, development) = (cells(Set::Train), cells(Set::Development));
        assert!(train.is_disjoint(&development));
        assert!(development.len() > 12 && train.len() > 2 * development.len());
    }
}
