//! How large beta is: three rules, and criticality selects one (self-healing
//! paper 3.1.2).
//!
//! In: the policy of the configuration and the [`Signals`] of the moment; out: a
//! share of the class's capacity, always within the bounds of the policy. Nothing
//! is learned here: whoever learns the coefficients of [`Adaptive`] one day sets
//! them through the policy, and the bounds hold for those as well.

use crate::gate::Criticality;
use crate::units::Ratio;

/// The present may count for so much beside the past (the paper's alpha).
const ALPHA_MIN: f64 = 0.3;
/// And no more.
const ALPHA_MAX: f64 = 0.5;

/// Smallest floor: from a beta of nothing a balance would never grow.
const FLOOR_MIN: f64 = 0.01;

/// A policy cannot be.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// Alpha is outside of its range, or no number.
    #[error("alpha must lie in {ALPHA_MIN}..={ALPHA_MAX}, {0} does not")]
    Alpha(f64),
    /// Floor and ceiling do not fit.
    #[error(
        "floor must be at least {FLOOR_MIN} and at most ceiling, {floor} and {ceiling} are not"
    )]
    Bounds {
        /// As asked for.
        floor: f64,
        /// As asked for.
        ceiling: f64,
    },
    /// A coefficient is no finite number.
    #[error("{0} must be a finite number")]
    Coefficient(&'static str),
}

/// Between which shares a beta may move.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bounds {
    floor: f64,
    ceiling: f64,
}

impl Bounds {
    fn new(floor: Ratio, ceiling: Ratio) -> Result<Self, PolicyError> {
        let (floor, ceiling) = (exact(floor), exact(ceiling));
        if floor >= FLOOR_MIN && floor <= ceiling {
            Ok(Self { floor, ceiling })
        } else {
            Err(PolicyError::Bounds { floor, ceiling })
        }
    }

    /// What is no number is the floor.
    fn clamp(self, share: f64) -> f64 {
        if share.is_nan() {
            return self.floor;
        }
        share.clamp(self.floor, self.ceiling)
    }
}

/// `alpha * C_available + (1 - alpha) * C_historical`, within bounds.
///
/// `C` is the share of the node's processors that is idle: what healing can use
/// without taking it from somebody. The paper does not bound the sum; a node that
/// is mostly idle would grant itself more than half of its capacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dynamic {
    alpha: f64,
    bounds: Bounds,
}

impl Dynamic {
    /// # Errors
    /// [`PolicyError`] for an alpha outside `0.3..=0.5` and bounds that do not fit.
    pub fn new(alpha: f64, floor: Ratio, ceiling: Ratio) -> Result<Self, PolicyError> {
        if !(ALPHA_MIN..=ALPHA_MAX).contains(&alpha) {
            return Err(PolicyError::Alpha(alpha));
        }
        let bounds = Bounds::new(floor, ceiling)?;
        Ok(Self { alpha, bounds })
    }
}

/// A bounded function of history and health, `f(Gamma, H)`:
/// `base + healed * (share healed) + health * (health)`, within bounds.
///
/// The paper has `f` learned; here it is affine and its coefficients are set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    base: f64,
    healed: f64,
    health: f64,
    bounds: Bounds,
}

impl Adaptive {
    /// # Errors
    /// [`PolicyError`] for coefficients that are no numbers and bounds that do
    /// not fit.
    pub fn new(
        base: f64,
        healed: f64,
        health: f64,
        floor: Ratio,
        ceiling: Ratio,
    ) -> Result<Self, PolicyError> {
        for (name, value) in [("base", base), ("healed", healed), ("health", health)] {
            if !value.is_finite() {
                return Err(PolicyError::Coefficient(name));
            }
        }
        Ok(Self {
            base,
            healed,
            health,
            bounds: Bounds::new(floor, ceiling)?,
        })
    }
}

/// What the rules look at. What is not known is `None`, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Signals {
    /// Share of the node's processors that is idle now.
    pub available: Option<f64>,
    /// What the best-effort services serve of what they should.
    pub health: Option<f64>,
    /// Share of their last incidents that healing ended, of those that it ended
    /// or gave up.
    pub healed: Option<f64>,
}

/// The three rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Of mission-critical services: a fixed share of capacity.
    pub mission: Ratio,
    /// Of business-critical ones.
    pub business: Dynamic,
    /// Of the rest.
    pub best_effort: Adaptive,
}

impl Default for Policy {
    /// 0.15 at least for everybody; twice that at most where the rule moves.
    fn default() -> Self {
        let bounds = Bounds {
            floor: 0.15,
            ceiling: 0.30,
        };
        Self {
            mission: Ratio::saturating(0.15),
            business: Dynamic { alpha: 0.4, bounds },
            best_effort: Adaptive {
                base: 0.10,
                healed: 0.10,
                health: 0.10,
                bounds,
            },
        }
    }
}

impl Policy {
    /// Beta as a share of a class's capacity. `usual` is `C_historical`.
    #[must_use]
    pub fn share(&self, class: Criticality, signals: &Signals, usual: Option<f64>) -> f64 {
        match class {
            Criticality::Mission => exact(self.mission),
            Criticality::Business => {
                let Dynamic { alpha, bounds } = self.business;
                // Of two things the known one stands for both.
                let known = signals.available.or(usual).zip(usual.or(signals.available));
                known.map_or(bounds.floor, |(available, usual)| {
                    bounds.clamp(alpha * available + (1.0 - alpha) * usual)
                })
            }
            Criticality::BestEffort => {
                let rule = self.best_effort;
                // Without any news of health, or any history, the floor; one half
                // is what a coin that was never thrown is worth.
                signals.health.map_or(rule.bounds.floor, |health| {
                    let healed = signals.healed.unwrap_or(0.5);
                    rule.bounds
                        .clamp(rule.base + rule.healed * healed + rule.health * health)
                })
            }
        }
    }

    /// The least and the most that [`Policy::share`] can be.
    #[must_use]
    pub fn bounds(&self, class: Criticality) -> (f64, f64) {
        match class {
            Criticality::Mission => (exact(self.mission), exact(self.mission)),
            Criticality::Business => (self.business.bounds.floor, self.business.bounds.ceiling),
            Criticality::BestEffort => (
                self.best_effort.bounds.floor,
                self.best_effort.bounds.ceiling,
            ),
        }
    }
}

/// By way of four decimals, so that 0.15 means 0.15 and not the nearest `f32`.
fn exact(ratio: Ratio) -> f64 {
    // A share is small and positive: adding a half and cutting rounds it.
    #[allow(clippy::cast_possible_truncation)]
    let whole = (f64::from(ratio.get()) * 10_000.0 + 0.5) as i32;
    f64::from(whole) / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ratio(share: f32) -> Ratio {
        Ratio::saturating(share)
    }

    fn policy(alpha: f64) -> Policy {
        Policy {
            mission: ratio(0.15),
            business: Dynamic::new(alpha, ratio(0.01), ratio(1.0)).unwrap(),
            best_effort: Adaptive::new(0.1, 0.2, 0.3, ratio(0.02), ratio(0.9)).unwrap(),
        }
    }

    fn signals(available: f64, healed: f64, health: f64) -> Signals {
        Signals {
            available: Some(available),
            health: Some(health),
            healed: Some(healed),
        }
    }

    #[test]
    fn criticality_selects_the_rule() {
        let now = signals(0.5, 0.75, 0.5);
        let share = |class| policy(0.3).share(class, &now, Some(0.2));
        assert_eq!(share(Criticality::Mission), 0.15);
        // 0.3 * 0.5 + 0.7 * 0.2
        assert!((share(Criticality::Business) - 0.29).abs() < 1e-12);
        // 0.1 + 0.2 * 0.75 + 0.3 * 0.5
        assert!((share(Criticality::BestEffort) - 0.4).abs() < 1e-12);
    }

    #[test]
    fn alpha_lies_in_the_range_of_the_paper() {
        for alpha in [0.3, 0.4, 0.5] {
            assert!(Dynamic::new(alpha, ratio(0.1), ratio(0.2)).is_ok());
        }
        for alpha in [0.29, 0.51, -0.4, f64::NAN, f64::INFINITY] {
            let refused = Dynamic::new(alpha, ratio(0.1), ratio(0.2)).unwrap_err();
            assert!(matches!(refused, PolicyError::Alpha(_)), "{alpha}");
        }
        assert_eq!(
            std::format!("{}", PolicyError::Alpha(0.6)),
            "alpha must lie in 0.3..=0.5, 0.6 does not"
        );
    }

    #[test]
    fn bounds_are_there_and_in_order() {
        let dynamic = |floor, ceiling| Dynamic::new(0.4, ratio(floor), ratio(ceiling));
        assert!(dynamic(0.01, 0.01).is_ok());
        assert!(dynamic(0.2, 0.1).is_err());
        assert!(dynamic(0.0, 0.1).is_err());
        for wrong in [f64::NAN, f64::INFINITY] {
            for place in 0..3 {
                let mut numbers = [0.1; 3];
                numbers[place] = wrong;
                let [base, healed, health] = numbers;
                let refused = Adaptive::new(base, healed, health, ratio(0.1), ratio(0.2));
                assert!(matches!(refused, Err(PolicyError::Coefficient(_))));
            }
        }
        assert!(Adaptive::new(0.1, 0.1, 0.1, ratio(0.3), ratio(0.2)).is_err());
    }

    #[test]
    fn what_is_not_known_grants_no_more_than_the_floor() {
        let nothing = Signals::default();
        let (business, rest) = (Criticality::Business, Criticality::BestEffort);
        assert_eq!(policy(0.4).share(business, &nothing, None), 0.01);
        assert_eq!(policy(0.4).share(rest, &nothing, None), 0.02);
        // Of two things the known one stands for both.
        let known = |available, usual| {
            let signals = Signals {
                available,
                ..nothing
            };
            policy(0.4).share(business, &signals, usual)
        };
        assert!((known(Some(0.6), None) - 0.6).abs() < 1e-12);
        assert!((known(None, Some(0.25)) - 0.25).abs() < 1e-12);
        let young = Signals {
            health: Some(1.0),
            ..nothing
        };
        assert!((policy(0.4).share(rest, &young, None) - 0.5).abs() < 1e-12);
    }

    proptest! {
        /// Whatever is measured, and whatever a policy says.
        #[test]
        fn a_share_never_leaves_its_bounds(
            numbers in prop::array::uniform6(prop::num::f64::ANY),
            floor in 0.01f32..0.5,
            more in 0.0f32..0.5,
            alpha in 0.3f64..=0.5,
            known in prop::array::uniform4(prop::bool::ANY),
        ) {
            let [base, healed, health, a, b, c] = numbers;
            let ceiling = ratio(floor + more);
            let Ok(best_effort) = Adaptive::new(base, healed, health, ratio(floor), ceiling) else {
                prop_assert!(![base, healed, health].iter().all(|one| one.is_finite()));
                return Ok(());
            };
            let policy = Policy {
                mission: ratio(floor),
                business: Dynamic::new(alpha, ratio(floor), ceiling).unwrap(),
                best_effort,
            };
            let given = |place: usize, number: f64| known[place].then_some(number);
            let signals = Signals {
                available: given(0, a),
                health: given(1, b),
                healed: given(2, c),
            };
            for class in Criticality::ALL {
                let (least, most) = policy.bounds(class);
                let share = policy.share(class, &signals, given(3, c));
                prop_assert!(share >= least && share <= most, "{class:?} {share}");
                prop_assert!(least >= 0.0099 && most <= 1.0);
            }
        }
    }
}
