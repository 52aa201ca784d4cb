//! One balance, with what is set aside for plans that run.
//!
//! In: time, a beta that may change, bounds of costs, what was really spent.
//! Out: whether a cost fits. What holds, as long as no action costs more than the
//! bound it reserved: from any moment on, the discounted sum of all that is spent
//! is at most what was unspent then, and that is at most the largest beta in force
//! since the oldest plan that still runs was admitted. It does not matter when,
//! while a plan runs, its cost arises.
//!
//! The reason: `unspent` never grows by more than the factor `1/gamma` a second,
//! whatever beta does, and falls by each cost. So a beta that rises gives room to
//! grow into and no balance; one that falls takes balance and no reservation.
//!
//! ```
//! # use homeostat_common::budget::{Cost, Ledger};
//! # use homeostat_common::units::Micros;
//! let mut ledger = Ledger::new(90.0, Micros(0));
//! let cost = Cost { resource: 1.0, disruption: 39.0, risk: 0.0 };
//! let held = ledger.reserve(cost, Micros(0)).unwrap();
//! ledger.settle(held, Cost { resource: 1.0, disruption: 3.0, risk: 0.0 }, Micros(0));
//! assert_eq!(ledger.balance(), 86.0);
//! ```

use super::Cost;
use crate::units::{Micros, Millis};

/// Share of beta that no plan may take: the balance grows by a factor, so from
/// nothing it would never come back.
const SEED: f64 = 0.01;

/// Growth of a balance in a second, `ln(1/gamma)`, rounded down. `1 + RATE * t` is
/// never above `gamma^-t`, however the time is cut: with whole steps of a second a
/// cost just before a step would be forgiven as if it were a second old.
const RATE: f64 = 0.001_668_057;

/// Longest time without a look that is credited: a suspended or stopped agent
/// measured nothing, so it earns nothing.
const CREDIT_MAX: Millis = Millis::secs(60);

/// A cost set aside in one ledger; settled once.
#[derive(Debug, PartialEq)]
#[must_use = "a reservation that is never settled blocks the budget"]
pub struct Held {
    bound: f64,
}

impl Held {
    /// The bound that is set aside, in capacity-seconds.
    #[must_use]
    pub fn bound(&self) -> f64 {
        self.bound
    }
}

/// A cost does not fit.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "costs up to {bound:.2} capacity-seconds, and of beta {beta:.2} only {balance:.2} are left"
)]
pub struct Overdrawn {
    /// What was asked for.
    pub bound: f64,
    /// What there was.
    pub balance: f64,
    /// The whole budget.
    pub beta: f64,
}

/// A balance under a bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    beta: f64,
    /// Not yet spent; what is reserved is still in it.
    unspent: f64,
    reserved: f64,
    looked: Micros,
    overruns: u64,
}

impl Ledger {
    /// A full one. A beta that is no positive number admits nothing that costs.
    #[must_use]
    pub fn new(beta: f64, now: Micros) -> Self {
        let beta = sound(beta);
        Self {
            beta,
            unspent: beta,
            reserved: 0.0,
            looked: now,
            overruns: 0,
        }
    }

    /// Goes on where a former run ended, with what was neither spent nor set
    /// aside then: nobody knows how far its plans came. A balance that says
    /// nothing counts as spent.
    #[must_use]
    pub fn resume(beta: f64, balance: f64, now: Micros) -> Self {
        let mut ledger = Self::new(beta, now);
        ledger.unspent = if balance.is_finite() && balance > 0.0 {
            balance.min(ledger.beta)
        } else {
            SEED * ledger.beta
        };
        ledger
    }

    /// The whole budget in capacity-seconds.
    #[must_use]
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// What a plan may cost at most, of a beta of which nothing was spent lately.
    #[must_use]
    pub fn most(beta: f64) -> f64 {
        beta * (1.0 - SEED)
    }

    /// What a new plan may cost now.
    #[must_use]
    pub fn balance(&self) -> f64 {
        self.unspent - self.reserved
    }

    /// What is set aside for plans that run.
    #[must_use]
    pub fn reserved(&self) -> f64 {
        self.reserved
    }

    /// Actions that cost more than they had reserved.
    #[must_use]
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Another bound from now on. What was admitted stays admitted.
    pub fn set_beta(&mut self, beta: f64, now: Micros) {
        self.advance(now);
        let former = core::mem::replace(&mut self.beta, sound(beta));
        // Where nothing was allowed nothing was spent.
        if former == 0.0 {
            self.unspent = self.beta + self.reserved;
        }
        self.keep_below();
    }

    /// The balance stays within beta less the claims; with plans that were
    /// admitted under a larger beta, that is no more than the seed.
    fn keep_below(&mut self) {
        let most = (self.beta - self.reserved).max(SEED * self.beta);
        self.unspent = self.balance().min(most) + self.reserved;
    }

    /// Lets the balance grow back for the time since the last call.
    pub fn advance(&mut self, now: Micros) {
        if now <= self.looked {
            return;
        }
        let passed = (now - self.looked).min(CREDIT_MAX.0 * 1000);
        self.looked = now;
        // Only what nobody has claimed grows, and never past beta less the
        // claims: with growth on claims as well, 1.29 beta could be spent.
        let growth = 1.0 + RATE * passed as f64 / 1e6;
        self.unspent = self.balance() * growth + self.reserved;
        self.keep_below();
    }

    /// Sets the bound of a cost aside.
    ///
    /// # Errors
    /// [`Overdrawn`] when it does not fit; nothing is set aside then.
    pub fn reserve(&mut self, bound: Cost, now: Micros) -> Result<Held, Overdrawn> {
        self.advance(now);
        let total = bound.total();
        // What costs nothing needs no budget, not even the seed.
        let fits = total == 0.0 || (total > 0.0 && total + SEED * self.beta <= self.balance());
        if !fits {
            return Err(Overdrawn {
                bound: total,
                balance: self.balance(),
                beta: self.beta,
            });
        }
        self.reserved += total;
        Ok(Held { bound: total })
    }

    /// Charges what was really spent and frees the rest. Returns whether that
    /// was more than had been set aside.
    // By value on purpose: a reservation cannot be settled twice.
    #[allow(clippy::needless_pass_by_value)]
    pub fn settle(&mut self, held: Held, spent: Cost, now: Micros) -> bool {
        // First: what was claimed until now has not grown, and later nobody
        // could tell.
        self.advance(now);
        let spent = sound(spent.total());
        let overrun = spent > held.bound;
        self.overruns += u64::from(overrun);
        // An overrun takes what there is but the seed; without one the balance
        // does not fall here.
        let least = self.balance().min(SEED * self.beta);
        self.reserved = (self.reserved - held.bound).max(0.0);
        self.unspent = (self.unspent - spent).max(self.reserved + least);
        self.keep_below();
        overrun
    }
}

/// Negative and strange numbers count as nothing.
fn sound(number: f64) -> f64 {
    if number.is_finite() && number > 0.0 {
        number
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn disruption(total: f64) -> Cost {
        Cost {
            disruption: total,
            ..Cost::default()
        }
    }

    fn at(seconds: u64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    proptest! {
        /// Any mix of plans that overlap, end early and cost less than they
        /// reserved: from every moment on, the discounted sum stays within beta.
        #[test]
        fn the_budget_is_never_passed(
            plans in prop::collection::vec((0u64..40, 0.0f64..60.0, 0.0f64..=1.0, 0u64..90), 1..60)
        ) {
            let mut ledger = Ledger::new(90.0, Micros(0));
            let mut now = 0u64;
            let mut running: Vec<(u64, Held, f64)> = Vec::new();
            let mut spent: Vec<(u64, f64)> = Vec::new();
            for (gap, bound, share, lasts) in plans {
                for _ in 0..gap {
                    now += 1;
                    ledger.advance(at(now));
                    let mut still = Vec::new();
                    for (end, held, cost) in running.drain(..) {
                        if end <= now {
                            ledger.settle(held, disruption(cost), at(now));
                            spent.push((now, cost));
                        } else {
                            still.push((end, held, cost));
                        }
                    }
                    running = still;
                }
                if let Ok(held) = ledger.reserve(disruption(bound), at(now)) {
                    running.push((now + lasts, held, bound * share));
                }
                prop_assert!(ledger.balance() >= 0.0);
                prop_assert!(ledger.balance() <= ledger.beta());
            }
            let gamma = 1.0 - 1.0 / super::super::HORIZON_STEPS;
            for (start, _) in &spent {
                let sum: f64 = spent
                    .iter()
                    .filter(|(at, _)| at >= start)
                    .map(|(at, cost)| cost * gamma.powf((at - start) as f64))
                    .sum();
                prop_assert!(sum <= ledger.beta() + 1e-6, "{sum} from {start}");
            }
            prop_assert_eq!(ledger.overruns(), 0);
        }
    }

    #[test]
    fn an_exhausted_budget_refuses_and_grows_back() {
        let mut ledger = Ledger::new(90.0, Micros(0));
        let held = ledger.reserve(disruption(89.0), Micros(0)).unwrap();
        ledger.settle(held, disruption(89.0), Micros(0));
        let refused = ledger.reserve(disruption(5.0), Micros(0)).unwrap_err();
        assert_eq!(
            std::format!("{refused}"),
            "costs up to 5.00 capacity-seconds, and of beta 90.00 only 1.00 are left"
        );
        let mut seconds = 0;
        while ledger.reserve(disruption(5.0), at(seconds)).is_err() {
            seconds += 1;
            assert!(seconds < 3600);
        }
        // 5 and the seed of 0.9: ln(5.9) / ln(600/599) is 1064.1.
        assert_eq!(seconds, 1065);
    }

    #[test]
    fn the_balance_may_be_taken_to_the_seed_and_not_below() {
        let mut ledger = Ledger::new(90.0, Micros(0));
        assert!(ledger.reserve(disruption(89.11), Micros(0)).is_err());
        let held = ledger.reserve(disruption(89.1), Micros(0)).unwrap();
        assert_eq!((held.bound(), ledger.reserved()), (89.1, 89.1));
        assert_eq!(Ledger::most(90.0), 89.1);
        // What costs nothing always fits.
        assert!(ledger.reserve(Cost::default(), Micros(0)).is_ok());
        assert!(!ledger.settle(held, disruption(89.1), Micros(0)));
    }

    #[test]
    fn time_that_was_not_measured_earns_nothing() {
        let mut ledger = Ledger::new(90.0, Micros(0));
        let held = ledger.reserve(disruption(80.0), Micros(0)).unwrap();
        ledger.settle(held, disruption(80.0), Micros(0));
        ledger.advance(at(86_400));
        let credited = 10.0 * (1.0 + 60.0 * RATE);
        assert!((ledger.balance() - credited).abs() < 1e-9);
        // Back to what is past earns nothing either, and loses nothing.
        ledger.advance(at(5));
        assert!((ledger.balance() - credited).abs() < 1e-9);
        // However the time is cut, no more than the factor of the horizon.
        let gamma: f64 = 1.0 - 1.0 / super::super::HORIZON_STEPS;
        for cut in [1, 7, 1000, 60_000] {
            let mut parts = Ledger::resume(90.0, 10.0, Micros(0));
            for part in 1..=cut {
                parts.advance(Micros(part * 60_000_000 / cut));
            }
            let most = 10.0 * gamma.powi(-60);
            assert!(parts.balance() <= most, "{cut} parts");
            assert!(parts.balance() >= 0.995 * most, "{cut} parts");
        }
        assert_eq!(Ledger::resume(90.0, 12.5, Micros(0)).balance(), 12.5);
        for nothing in [f64::NAN, f64::INFINITY, -3.0, 0.0] {
            let ledger = Ledger::resume(90.0, nothing, Micros(0));
            assert_eq!(ledger.balance(), 0.9, "{nothing} says nothing");
        }
        assert_eq!(Ledger::resume(90.0, 1e9, Micros(0)).balance(), 90.0);
    }

    #[test]
    fn a_cost_beyond_its_bound_is_charged_and_counted() {
        let mut ledger = Ledger::new(90.0, Micros(0));
        let held = ledger.reserve(disruption(1.0), Micros(0)).unwrap();
        assert!(ledger.settle(held, disruption(7.0), Micros(0)));
        assert_eq!((ledger.balance(), ledger.overruns()), (83.0, 1));
        assert!(ledger.reserve(disruption(f64::NAN), Micros(0)).is_err());
        assert!(ledger.reserve(disruption(-1.0), Micros(0)).is_err());
        // One beyond all there is leaves the seed, and what others have claimed.
        let other = ledger.reserve(disruption(20.0), Micros(0)).unwrap();
        let held = ledger.reserve(disruption(1.0), Micros(0)).unwrap();
        assert!(ledger.settle(held, disruption(1e6), Micros(0)));
        assert!((ledger.balance() - 0.9).abs() < 1e-9);
        assert_eq!(ledger.reserved(), 20.0);
        assert!(!ledger.settle(other, disruption(20.0), Micros(0)));
    }

    #[test]
    fn what_a_plan_gives_back_has_not_grown_meanwhile() {
        let mut ledger = Ledger::new(90.0, Micros(0));
        let held = ledger.reserve(disruption(45.0), Micros(0)).unwrap();
        let other = ledger.reserve(disruption(45.0 - 1.0), Micros(0)).unwrap();
        // Nobody looked until both ended, a minute later.
        assert!(!ledger.settle(held, disruption(45.0), at(60)));
        assert!(!ledger.settle(other, disruption(0.0), at(60)));
        ledger.advance(at(60));
        assert!(ledger.balance() <= 44.0 + 1.0 + 60.0 * RATE, "{ledger:?}");
    }

    #[test]
    fn a_beta_that_falls_keeps_what_was_admitted() {
        let mut ledger = Ledger::new(90.0, Micros(0));
        let held = ledger.reserve(disruption(80.0), Micros(0)).unwrap();
        ledger.set_beta(40.0, ledger.looked);
        assert_eq!(ledger.reserved(), 80.0);
        assert!((ledger.balance() - 0.4).abs() < 1e-9);
        assert!(ledger.reserve(disruption(0.1), at(1)).is_err());
        // It ends for less: never above the new beta.
        assert!(!ledger.settle(held, disruption(1.0), Micros(0)));
        assert_eq!(ledger.balance(), 40.0);
    }

    #[test]
    fn a_beta_that_rises_gives_room_and_no_balance() {
        let mut ledger = Ledger::new(40.0, Micros(0));
        ledger.set_beta(90.0, ledger.looked);
        assert_eq!((ledger.beta(), ledger.balance()), (90.0, 40.0));
        ledger.advance(at(60));
        assert!((ledger.balance() - 40.0 * (1.0 + 60.0 * RATE)).abs() < 1e-9);
        for _ in 0..1000 {
            // To and fro earns nothing.
            ledger.set_beta(1.0, ledger.looked);
            ledger.set_beta(90.0, ledger.looked);
        }
        assert_eq!(ledger.balance(), 1.0);
        // Except from nothing at all: a class that had no services.
        let mut none = Ledger::new(0.0, Micros(0));
        assert!(none.reserve(disruption(0.1), Micros(0)).is_err());
        assert!(none.reserve(Cost::default(), Micros(0)).is_ok());
        none.set_beta(9.0, Micros(0));
        assert_eq!(none.balance(), 9.0);
    }
}
