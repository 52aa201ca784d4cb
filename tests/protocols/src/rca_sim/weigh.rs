//! How much each piece of evidence counts: logistic regression over sparse features.
//!
//! In go episodes with the parts that were roots; out come weights. A part that is as right
//! as a root by the rules of scoring is left out of training rather than taught as wrong.
//! Deterministic: episodes are dealt by a seed.

use homeostat_causes::Refusal;
use homeostat_causes::weigh::{PLACES, Weighable};

use super::core::{Known, Scene};
use super::watch::Episode;

/// What is learned from: evidence by part, and whether it was a root; `None` where either
/// answer would be right.
#[derive(Debug, Clone)]
pub struct Lesson {
    pub evidence: Vec<Weighable>,
    pub root: Vec<Option<bool>>,
}

impl Lesson {
    /// What an episode teaches; `None` of one without an alarm.
    ///
    /// # Errors
    /// When the fleet is larger than the core takes.
    pub fn of(episode: &Episode, known: Known) -> Result<Option<Self>, Refusal> {
        let Some(alarm) = episode.alarm else {
            return Ok(None);
        };
        let evidence = Scene::of(&episode.told, alarm, &episode.parts, known)?.weighable();
        let roots = &episode.roots;
        let root = evidence.iter().map(|one| {
            let part = usize::from(one.component.0);
            if roots.iter().any(|root| root.part == part) {
                Some(true)
            } else if roots.iter().any(|root| root.is(part)) {
                None
            } else {
                Some(false)
            }
        });
        Ok(Some(Self {
            root: root.collect(),
            evidence,
        }))
    }
}

/// Settings of training, chosen on folds of the training set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    pub epochs: usize,
    pub rate: f32,
    /// Pull of each weight towards 0, for each lesson in which it is in use.
    pub decay: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            epochs: 8,
            rate: 0.1,
            decay: 1e-4,
        }
    }
}

/// A weight for each place.
#[derive(Debug, Clone)]
pub struct Weights {
    by_place: Vec<f32>,
}

impl Weights {
    /// Learns (`AdaGrad`, Duchi, Hazan and Singer 2011).
    #[must_use]
    pub fn learn(lessons: &[&Lesson], settings: Settings, seed: u64) -> Self {
        let mut weights = vec![0.0_f32; PLACES];
        let mut squares = vec![1e-6_f32; PLACES];
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut order: Vec<usize> = (0..lessons.len()).collect();
        for _ in 0..settings.epochs {
            rng.shuffle(&mut order);
            for lesson in order.iter().map(|at| lessons[*at]) {
                for (evidence, root) in lesson.evidence.iter().zip(&lesson.root) {
                    let Some(root) = root else { continue };
                    let given = sigmoid(evidence.odds(&weights));
                    let off = given - f32::from(u8::from(*root));
                    for (place, value) in &evidence.features {
                        let place = *place as usize;
                        let step = off * value + settings.decay * weights[place];
                        squares[place] += step * step;
                        weights[place] -= settings.rate * step / squares[place].sqrt();
                    }
                }
            }
        }
        Self { by_place: weights }
    }

    /// By place, as [`homeostat_causes::weigh`] takes them.
    #[must_use]
    pub fn by_place(&self) -> &[f32] {
        &self.by_place
    }

    /// The probability that a part is a root.
    #[must_use]
    pub fn probability(&self, evidence: &Weighable) -> f32 {
        sigmoid(evidence.odds(&self.by_place))
    }
}

fn sigmoid(odds: f32) -> f32 {
    1.0 / (1.0 + (-odds).exp())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rca_sim::Fleets;
    use crate::rca_sim::watch::{Watch, watch};
    use homeostat_causes::Component;
    use homeostat_sim::fault::Incident;

    #[test]
    fn what_goes_with_roots_speaks_for_them_and_the_rest_does_not() {
        let lesson = |root: bool| Lesson {
            evidence: vec![Weighable {
                component: Component(0),
                features: vec![(1, 1.0), (if root { 2 } else { 3 }, 1.0)],
            }],
            root: vec![Some(root)],
        };
        let (yes, no) = (lesson(true), lesson(false));
        let weights = Weights::learn(&[&yes, &no, &no, &yes], Settings::default(), 1);
        let (yes, no) = (&yes.evidence[0], &no.evidence[0]);
        assert!(weights.probability(yes) > 0.6 && weights.probability(no) < 0.4);
    }

    #[test]
    fn an_episode_teaches_its_root_and_leaves_open_what_is_as_right() {
        let (topology, parts) = Fleets::default().named("reference").unwrap();
        let incident = Incident::named("expired-credential").unwrap();
        let episode = watch(&topology, &parts, &incident, 3, Watch::default()).unwrap();
        let lesson = Lesson::of(&episode, Known::ALL).unwrap().unwrap();
        let roots = lesson
            .root
            .iter()
            .filter(|root| **root == Some(true))
            .count();
        assert_eq!(roots, episode.roots.len());
        let finite = |one: &Weighable| one.features.iter().all(|(_, value)| value.is_finite());
        assert!(lesson.evidence.iter().all(finite));
        assert_eq!(lesson.evidence.len(), lesson.root.len());
    }
}
