//! Diagnosis on the simulator: is what was at fault named first?
//!
//! Episodes in which nobody heals run until some seconds after the first alarm ([`watch`]); a
//! method gets what was seen until then and ranks the parts of the fleet ([`parts`]). The truth
//! is the injector's ([`truth`]) and is used for scoring alone. Measured beside the baselines are
//! the core as it ships ([`core`]), the same by own excess alone, and the same with weights that
//! were learned anew ([`weigh`]), of which those that ship are the last.
//!
//! Everything is learned and set on the training split: on it, results are those of five folds
//! (an incident and its twin in the same), on the development split those of weights from all
//! of the training split.

pub mod baseline;
pub mod cases;
pub mod confounded;
pub mod core;
pub mod incidents;
pub mod parts;
pub mod score;
pub mod signs;
pub mod truth;
pub mod watch;
pub mod weigh;

mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use homeostat_sim::fault::{Incident, Split};
use homeostat_sim::topology::Topology;

use self::baseline::Baseline;
use self::core::Known;
use self::parts::Parts;
use self::score::{Scored, order};
pub use self::table::{Args, run, teach};
use self::watch::{Episode, Watch};
use self::weigh::Weights;

/// Topologies with their parts, each read once.
#[derive(Debug, Default)]
pub struct Fleets {
    known: BTreeMap<String, (Arc<Topology>, Arc<Parts>)>,
}

impl Fleets {
    /// The one of a name that comes with the simulator.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn named(&mut self, name: &str) -> Result<(Arc<Topology>, Arc<Parts>)> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        let topology = Topology::named(name)?;
        let parts = Arc::new(Parts::of(&topology));
        let both = (Arc::new(topology), parts);
        self.known.insert(name.to_owned(), both.clone());
        Ok(both)
    }
}

/// Watches each incident with seeds of its split.
///
/// # Errors
/// When an incident does not fit its topology.
pub fn episodes(
    incidents: &[Incident],
    split: Split,
    seeds: std::ops::Range<u64>,
    how: Watch,
    fleets: &mut Fleets,
) -> Result<Vec<Episode>> {
    let mut all = Vec::new();
    for (at, incident) in incidents.iter().enumerate() {
        let (topology, parts) = fleets.named(&incident.topology)?;
        for number in seeds.clone() {
            let seed = seed(split, at, number);
            all.push(watch::watch(&topology, &parts, incident, seed, how)?);
        }
    }
    Ok(all)
}

/// Each incident meets seeds of its own.
#[must_use]
pub fn seed(split: Split, incident: usize, number: u64) -> u64 {
    split.seed(1000 * incident as u64 + number)
}

/// Who ranks.
#[derive(Debug, Clone, Copy)]
pub enum Method<'w> {
    Baseline(Baseline),
    /// The core that ships.
    Core,
    /// The same without knowing what parts are to each other.
    OwnExcess,
    /// With weights that it does not ship.
    Weighed(&'w Weights),
}

impl Method<'_> {
    /// Ranks the parts of an episode with an alarm; `None` without one.
    #[must_use]
    pub fn scored(&self, episode: &Episode) -> Option<Scored> {
        self.scored_knowing(episode, Known::ALL)
    }

    /// The same where some of it is not known.
    #[must_use]
    pub fn scored_knowing(&self, episode: &Episode, known: Known) -> Option<Scored> {
        let alarm = episode.alarm?;
        let (told, parts) = (&episode.told, &*episode.parts);
        let (scores, sure) = match self {
            Self::Baseline(baseline) => (
                baseline.scores(told, alarm, parts, episode.seed),
                Vec::new(),
            ),
            Self::Core | Self::OwnExcess => {
                let known = Known {
                    roles: matches!(self, Self::Core),
                    ..known
                };
                let scene = core::Scene::of(told, alarm, parts, known).ok()?;
                core::scores(&scene.diagnose(), parts.len())
            }
            Self::Weighed(weights) => {
                let scene = core::Scene::of(told, alarm, parts, known).ok()?;
                weighed(weights, &scene, parts.len())
            }
        };
        let order = order(&scores, episode.seed);
        let confidence = order.first().and_then(|first| sure.get(*first)).copied();
        Some(Scored::new(
            &episode.name,
            &order,
            &episode.roots,
            confidence,
        ))
    }
}

/// The log odds and the probability of each part.
fn weighed(weights: &Weights, scene: &core::Scene, parts: usize) -> (Vec<f64>, Vec<f64>) {
    let mut scores = vec![f64::NEG_INFINITY; parts];
    let mut sure = vec![0.0; parts];
    for one in scene.weighable() {
        let at = usize::from(one.component.0);
        scores[at] = f64::from(one.odds(weights.by_place()));
        sure[at] = f64::from(weights.probability(&one));
    }
    (scores, sure)
}
