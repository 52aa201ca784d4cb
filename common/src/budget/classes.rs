//! A node's budget: a ledger for each class of services.
//!
//! In: the shares of the node that the classes make up, the policy, the signals
//! of the moment, costs. Out: whether a cost fits, and how each class stands. The
//! sum over the classes bounds the node: `sum(share * ceiling) / (1 - gamma)`.
//!
//! ```
//! # use homeostat_common::budget::{Budget, Cost, Policy, Shares};
//! # use homeostat_common::gate::Criticality;
//! # use homeostat_common::units::Micros;
//! let shares = Shares::of([Criticality::Mission, Criticality::BestEffort]);
//! let mut budget = Budget::new(Policy::default(), shares, Micros(0));
//! // Three quarters of the node, and 0.15 of that.
//! assert!((budget.standing(Criticality::Mission).beta - 67.5).abs() < 1e-9);
//! let cost = Cost { disruption: 60.0, ..Cost::default() };
//! let held = budget.reserve(Criticality::Mission, cost, Micros(0)).unwrap();
//! assert!(budget.reserve(Criticality::Mission, cost, Micros(0)).is_err());
//! budget.settle(held, Cost::default(), Micros(0));
//! ```

use serde::{Deserialize, Serialize};

use super::{Cost, HORIZON_STEPS, Held, Ledger, Overdrawn, Policy, Signals};
use crate::gate::Criticality;
use crate::units::Micros;

/// Seconds over which the past of `C_historical` fades: a shift, so that it knows
/// the day's work and not only the last hour's.
const USUAL_S: f64 = 6.0 * 3600.0;

/// Share of the node's capacity that each class makes up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Shares([f64; Criticality::ALL.len()]);

impl Shares {
    /// Of a node with services of these classes.
    #[must_use]
    pub fn of(services: impl IntoIterator<Item = Criticality>) -> Self {
        let mut weights = [0.0; Criticality::ALL.len()];
        for class in services {
            weights[class.place()] += class.weight();
        }
        let whole: f64 = weights.iter().sum();
        Self(weights.map(|weight| weight / whole.max(1.0)))
    }

    /// The largest discounted sum of costs that a class could have: all of it, out
    /// of service for ever.
    fn capacity(&self, class: Criticality) -> f64 {
        self.0[class.place()] * HORIZON_STEPS
    }
}

/// A cost set aside for a plan that runs; settled once.
#[derive(Debug, PartialEq)]
#[must_use = "a reservation that is never settled blocks the budget"]
pub struct Reservation {
    class: Criticality,
    held: Held,
}

impl Reservation {
    /// Whose budget it is from.
    #[must_use]
    pub fn class(&self) -> Criticality {
        self.class
    }

    /// The bound that is set aside, in capacity-seconds.
    #[must_use]
    pub fn bound(&self) -> f64 {
        self.held.bound()
    }
}

/// How the budget of a class stands, in capacity-seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// The class.
    pub class: Criticality,
    /// The whole of it.
    pub beta: f64,
    /// What a new plan may cost now.
    pub balance: f64,
    /// What is set aside for plans that run.
    pub reserved: f64,
    /// Plans that cost more than they had reserved, since the agent started.
    pub overruns: u64,
}

/// State that survives a restart of the agent. Times are not in it: what passed
/// in between is not credited.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// By class: beta, and what was neither spent nor set aside.
    classes: [(f64, f64); Criticality::ALL.len()],
    /// `C_historical`.
    usual: Option<f64>,
}

/// The budgets of a node's classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    policy: Policy,
    shares: Shares,
    ledgers: [Ledger; Criticality::ALL.len()],
    /// `C_historical`: the mean of what was available.
    usual: Option<f64>,
    felt: Option<Micros>,
}

impl Budget {
    /// Full budgets; where beta moves, of its floor, until something is known.
    #[must_use]
    pub fn new(policy: Policy, shares: Shares, now: Micros) -> Self {
        let least = |class| policy.bounds(class).0 * shares.capacity(class);
        Self {
            policy,
            shares,
            ledgers: Criticality::ALL.map(|class| Ledger::new(least(class), now)),
            usual: None,
            felt: None,
        }
    }

    /// Goes on where a former run ended. Reservations of that run count as
    /// spent: nobody knows how far its plans came.
    #[must_use]
    pub fn resume(policy: Policy, shares: Shares, saved: &Saved, now: Micros) -> Self {
        let mut budget = Self::new(policy, shares, now);
        for (class, (beta, balance)) in Criticality::ALL.into_iter().zip(saved.classes) {
            // A class without services had no budget to resume.
            if beta != 0.0 {
                let (least, most) = budget.bounds(class);
                let beta = if beta.is_nan() { least } else { beta };
                budget.ledgers[class.place()] =
                    Ledger::resume(beta.clamp(least, most), balance, now);
            }
        }
        budget.usual = saved.usual.filter(|usual| (0.0..=1.0).contains(usual));
        budget
    }

    /// What to persist.
    #[must_use]
    pub fn saved(&self) -> Saved {
        Saved {
            classes: Criticality::ALL.map(|class| {
                let standing = self.standing(class);
                (standing.beta, standing.balance)
            }),
            usual: self.usual,
        }
    }

    /// Another configuration, while plans may run.
    pub fn reconfigure(&mut self, policy: Policy, shares: Shares, now: Micros) {
        self.policy = policy;
        self.shares = shares;
        for class in Criticality::ALL {
            let (least, most) = self.bounds(class);
            let ledger = &mut self.ledgers[class.place()];
            ledger.set_beta(ledger.beta().clamp(least, most), now);
        }
    }

    /// Lets the balances grow back for the time since the last call.
    pub fn advance(&mut self, now: Micros) {
        for ledger in &mut self.ledgers {
            ledger.advance(now);
        }
    }

    /// Whether a second has passed since [`Budget::feel`].
    #[must_use]
    pub fn is_due(&self, now: Micros) -> bool {
        self.felt.is_none_or(|felt| now - felt >= 1_000_000)
    }

    /// Sets each beta by its rule. What was admitted stays admitted.
    pub fn feel(&mut self, signals: &Signals, now: Micros) {
        let passed = self.felt.map_or(0, |felt| (now - felt) / 1_000_000);
        self.felt = Some(now);
        if let Some(available) = signals
            .available
            .filter(|share| (0.0..=1.0).contains(share))
        {
            let usual = self.usual.unwrap_or(available);
            // As long between two looks as the look is worth: at most a minute.
            let weight = passed.min(60) as f64 / USUAL_S;
            self.usual = Some(usual + weight * (available - usual));
        }
        for class in Criticality::ALL {
            let share = self.policy.share(class, signals, self.usual);
            let beta = share * self.shares.capacity(class);
            self.ledgers[class.place()].set_beta(beta, now);
        }
    }

    /// Sets the bound of a cost aside.
    ///
    /// # Errors
    /// [`Overdrawn`] when it does not fit; nothing is set aside then.
    pub fn reserve(
        &mut self,
        class: Criticality,
        bound: Cost,
        now: Micros,
    ) -> Result<Reservation, Overdrawn> {
        let held = self.ledgers[class.place()].reserve(bound, now)?;
        Ok(Reservation { class, held })
    }

    /// Charges what was really spent and frees the rest. Returns whether that
    /// was more than had been set aside.
    pub fn settle(&mut self, reservation: Reservation, spent: Cost, now: Micros) -> bool {
        let Reservation { class, held } = reservation;
        self.ledgers[class.place()].settle(held, spent, now)
    }

    /// How a class stands.
    #[must_use]
    pub fn standing(&self, class: Criticality) -> Standing {
        let ledger = &self.ledgers[class.place()];
        Standing {
            class,
            beta: ledger.beta(),
            balance: ledger.balance(),
            reserved: ledger.reserved(),
            overruns: ledger.overruns(),
        }
    }

    /// How all classes stand, the least critical first.
    pub fn standings(&self) -> impl Iterator<Item = Standing> + '_ {
        Criticality::ALL
            .into_iter()
            .map(|class| self.standing(class))
    }

    /// The least and the most that the beta of a class can be.
    #[must_use]
    pub fn bounds(&self, class: Criticality) -> (f64, f64) {
        let (least, most) = self.policy.bounds(class);
        let whole = self.shares.capacity(class);
        (least * whole, most * whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Adaptive, Dynamic};
    use crate::units::Ratio;
    use Criticality::{BestEffort, Business, Mission};

    fn at(seconds: u64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    /// Capacity-seconds to the millionth: shares are no round numbers.
    fn rounded(number: f64) -> f64 {
        (number * 1e6).round() / 1e6
    }

    fn beta(budget: &Budget, class: Criticality) -> f64 {
        rounded(budget.standing(class).beta)
    }

    fn balance(budget: &Budget, class: Criticality) -> f64 {
        rounded(budget.standing(class).balance)
    }

    fn cost(total: f64) -> Cost {
        Cost {
            disruption: total,
            ..Cost::default()
        }
    }

    fn one_of_each() -> Budget {
        let shares = Shares::of(Criticality::ALL);
        Budget::new(Policy::default(), shares, at(0))
    }

    fn felt(available: f64, health: f64, healed: f64) -> Signals {
        Signals {
            available: Some(available),
            health: Some(health),
            healed: Some(healed),
        }
    }

    #[test]
    fn classes_do_not_take_from_each_other() {
        let mut budget = one_of_each();
        // Weights 1, 2, 3 of 6; 0.15 of 600 seconds.
        let betas = budget.standings().map(|one| rounded(one.beta));
        assert!(betas.eq([15.0, 30.0, 45.0]));
        let held = budget.reserve(BestEffort, cost(14.0), at(0)).unwrap();
        assert_eq!((held.class(), held.bound()), (BestEffort, 14.0));
        assert!(budget.reserve(BestEffort, cost(14.0), at(0)).is_err());
        assert!(budget.reserve(Mission, cost(44.0), at(0)).is_ok());
        assert!(budget.settle(held, cost(15.0), at(0)));
        let standing = budget.standing(BestEffort);
        assert_eq!((standing.overruns, standing.reserved), (1, 0.0));
        assert_eq!(rounded(standing.balance), 0.15);
        assert_eq!(budget.standing(Mission).overruns, 0);
    }

    #[test]
    fn beta_follows_its_rule_and_the_balance_only_grows_into_it() {
        let mut budget = one_of_each();
        assert!(budget.is_due(at(0)));
        budget.feel(&felt(0.9, 1.0, 1.0), at(0));
        assert!(!budget.is_due(Micros(999_999)) && budget.is_due(at(1)));
        // At the ceiling of 0.30; mission stays where it is.
        assert_eq!(
            (beta(&budget, Business), balance(&budget, Business)),
            (60.0, 30.0)
        );
        assert_eq!(beta(&budget, BestEffort), 30.0);
        assert_eq!(beta(&budget, Mission), 45.0);
        budget.feel(&felt(0.0, 0.0, 0.0), at(1));
        assert_eq!(beta(&budget, BestEffort), 15.0);
        // 0.4 * 0 + 0.6 * 0.9, less one second of forgetting: still above 0.30.
        assert_eq!(beta(&budget, Business), 60.0);
        let (least, most) = budget.bounds(Business);
        assert_eq!((rounded(least), rounded(most)), (30.0, 60.0));
        for minute in 1..=360 {
            budget.feel(&felt(0.0, 0.0, 0.0), at(60 * minute));
        }
        // Six hours of nothing to spare: e^-1 of 0.9, times 0.6.
        let share = beta(&budget, Business) / 200.0;
        assert!((share - 0.6 * 0.9 * 0.368).abs() < 0.001, "{share}");
    }

    #[test]
    fn a_restart_loses_no_debt_and_wins_no_credit() {
        let mut budget = one_of_each();
        budget.feel(&felt(0.9, 1.0, 1.0), at(0));
        budget.advance(at(60));
        let held = budget.reserve(Business, cost(20.0), at(60)).unwrap();
        let (saved, shares) = (budget.saved(), Shares::of(Criticality::ALL));
        let again = Budget::resume(Policy::default(), shares, &saved, at(3));
        let (before, after) = (budget.standing(Business), again.standing(Business));
        // What was set aside counts as spent.
        assert_eq!((after.beta, after.balance), (before.beta, before.balance));
        assert_eq!(after.reserved, 0.0);
        assert_eq!(again.saved(), saved);
        budget.settle(held, cost(20.0), at(60));
        assert_eq!(balance(&budget, Business), rounded(after.balance));
        // A policy that became stricter holds at once.
        let floor = Ratio::saturating(0.02);
        let strict = Policy {
            mission: floor,
            business: Dynamic::new(0.3, floor, floor).unwrap(),
            best_effort: Adaptive::new(0.0, 0.0, 0.0, floor, floor).unwrap(),
        };
        let again = Budget::resume(strict, shares, &saved, at(3));
        assert_eq!(beta(&again, Business), 4.0);
        assert_eq!(balance(&again, Business), 4.0);
        budget.reconfigure(strict, shares, at(60));
        assert_eq!(balance(&budget, Mission), 6.0);
        // What cannot be read counts as spent, and is within bounds.
        let strange = Saved {
            classes: [(f64::NAN, f64::NAN), (-1.0, 1.0), (f64::INFINITY, 1e300)],
            usual: Some(f64::NAN),
        };
        let again = Budget::resume(Policy::default(), shares, &strange, at(0));
        assert_eq!(balance(&again, BestEffort), 0.15);
        assert_eq!(balance(&again, Business), 1.0);
        assert_eq!(balance(&again, Mission), 45.0);
        assert_eq!(again.saved().usual, None);
    }

    #[test]
    fn a_class_without_services_has_nothing_until_it_has_one() {
        let alone = Shares::of([Mission]);
        let mut budget = Budget::new(Policy::default(), alone, at(0));
        assert_eq!(beta(&budget, Mission), 90.0);
        assert_eq!(beta(&budget, Business), 0.0);
        assert!(budget.reserve(Business, cost(0.1), at(0)).is_err());
        let saved = budget.saved();
        budget.reconfigure(Policy::default(), Shares::of([Mission, Business]), at(0));
        assert_eq!(balance(&budget, Business), 36.0);
        let both = Shares::of([Mission, Business]);
        let again = Budget::resume(Policy::default(), both, &saved, at(0));
        assert_eq!(balance(&again, Business), 36.0);
        assert_eq!(Shares::of([]), Shares::default());
    }
}
