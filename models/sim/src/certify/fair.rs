//! Whether a drawn incident, with its twin, is one to be had.
//!
//! In go the incidents of one draw; out come their certificates, or why they are none: users
//! would not notice, it passes by itself, what its family knows does not end it, nobody could tell it
//! from its twin in time, or one plan ends both.

use std::sync::Arc;

use super::search::Search;
use super::{Certificate, Depth};
use crate::fault::{Composed, told_apart};
use crate::policy::Moves;
use crate::text::TextError;
use crate::topology::Topology;
use crate::world::Order;

/// Why a drawn incident is left out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unfair {
    /// It does not fit.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Users would not notice.
    #[error("{0}: users do not notice")]
    Unnoticed(String),
    /// It ends by itself.
    #[error("{0}: passes by itself")]
    Passes(String),
    /// What its family knows to end it does not.
    #[error("{0}: its repair does not end it")]
    Hopeless(String),
    /// None of them needs more than two steps.
    #[error("{0}: {1} steps suffice, storms apart")]
    Easy(String, u8),
    /// Nothing that is written tells it from its twin in time.
    #[error("{0}: looks like its twin")]
    Alike(String),
    /// What ends it ends its twin as well.
    #[error("{0}: what ends it ends its twin")]
    SameRepair(String),
}

/// Certificates of an incident, and of its twin if it has one. With `hard`, one of them at
/// least has to need more than two steps, and not for a storm of retries alone.
///
/// # Errors
/// [`Unfair`] when one of them is not to be had.
pub fn fair(
    topology: &Arc<Topology>,
    drawn: &[Composed],
    depth: Depth,
    hard: bool,
) -> Result<Vec<Certificate>, Unfair> {
    if let [one, twin] = drawn
        && !told_apart(&one.incident, &twin.incident, topology)
    {
        return Err(Unfair::Alike(one.incident.name.clone()));
    }
    let moves = Moves::new(topology);
    // What is cheap to see comes first.
    let mut searches = Vec::new();
    let mut repairs = Vec::new();
    for one in drawn {
        let name = || one.incident.name.clone();
        let search = Search::new(topology, &one.incident, &moves, depth)?;
        if !search.was_incident() {
            return Err(Unfair::Unnoticed(name()));
        }
        if search.ends_by_itself() {
            return Err(Unfair::Passes(name()));
        }
        let steps = one.repair.iter();
        let steps = steps.map(|(kind, whom)| moves.find(*kind, *whom).map(|one| one.order.clone()));
        let repair: Option<Vec<Order>> = steps.collect();
        let repair = repair.ok_or_else(|| Unfair::Hopeless(name()))?;
        if search.ended_by(&repair) < usize::from(depth.streams) {
            return Err(Unfair::Hopeless(name()));
        }
        searches.push(search);
        repairs.push(repair);
    }
    if let ([one, other], [its, others]) = (searches.as_slice(), repairs.as_slice())
        && (one.ended_by(others) > 0 || other.ended_by(its) > 0)
    {
        return Err(Unfair::SameRepair(drawn[0].incident.name.clone()));
    }
    let mut certified = Vec::new();
    for (one, repair) in drawn.iter().zip(&repairs) {
        let certificate = Certificate::with(topology, &one.incident, depth, Some(repair))?;
        // The one that is drawn for its length; a twin may be shorter.
        if let (true, Some(least)) = (hard && certified.is_empty(), certificate.apart)
            && least <= 2
        {
            return Err(Unfair::Easy(one.incident.name.clone(), least));
        }
        certified.push(certificate);
    }
    Ok(certified)
}
