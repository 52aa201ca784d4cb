//! What healing may cost: the bound beta of the constrained decision process
//! (self-healing paper 3.1.2), kept by a ledger that no model can overrule.
//!
//! Unit: capacity-seconds. 1 is the whole node out of service for one second;
//! a service's share of it follows from its criticality. The paper gives beta
//! as a share of capacity although it bounds a discounted sum of costs; with
//! discount `gamma` a step of one second the capacity of that sum is
//! `1/(1-gamma)` capacity-seconds, and beta is the share of that.
//!
//! ```
//! # use homeostat_common::budget::{Cost, Ledger};
//! # use homeostat_common::units::{Micros, Ratio};
//! let mut ledger = Ledger::new(Ratio::new(0.15).unwrap(), Micros(0));
//! assert_eq!(ledger.beta(), 90.0);
//! let cost = Cost { resource: 1.0, disruption: 39.0, risk: 0.0 };
//! let held = ledger.reserve(cost, Micros(0)).unwrap();
//! ledger.settle(held, Cost { resource: 1.0, disruption: 3.0, risk: 0.0 });
//! assert_eq!(ledger.balance(), 86.0);
//! ```

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::units::{Micros, Ratio};

/// Steps of one second over which spent cost fades: `gamma = 1 - 1/600`, so an
/// hour-old restart hardly counts (0.25 %) and one ten minutes old by 37 %.
pub const HORIZON_STEPS: f64 = 600.0;

/// Share of beta that no plan may take: the balance grows by a factor, so from
/// nothing it would never come back.
const SEED: f64 = 0.01;

/// Longest time without a step that is credited: a suspended or stopped agent
/// measured nothing, so it earns nothing.
const CREDIT_STEPS_MAX: u64 = 60;

/// Cost of an action, in capacity-seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Work of the node itself: processors, disk, network.
    pub resource: f64,
    /// Service taken away that was there before.
    pub disruption: f64,
    /// What a failure of the action would take, times its likelihood.
    pub risk: f64,
}

impl Cost {
    /// The sum of the three.
    #[must_use]
    pub fn total(self) -> f64 {
        self.resource + self.disruption + self.risk
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            resource: self.resource + other.resource,
            disruption: self.disruption + other.disruption,
            risk: self.risk + other.risk,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} capacity-seconds (resource {:.2}, disruption {:.2}, risk {:.2})",
            self.total(),
            self.resource,
            self.disruption,
            self.risk
        )
    }
}

/// A cost set aside for a plan that runs; settled once.
#[derive(Debug, PartialEq)]
#[must_use = "a reservation that is never settled blocks the budget"]
pub struct Reservation {
    bound: f64,
}

impl Reservation {
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

/// The balance, with what is set aside for plans that run.
///
/// From any moment on, the discounted sum of what is spent stays within beta as
/// long as no action costs more than the bound it reserved.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    beta: f64,
    /// Not yet spent; what is reserved is still in it.
    unspent: f64,
    reserved: f64,
    stepped: Micros,
    overruns: u64,
}

/// The state of a ledger that survives a restart of the agent. Times are not in
/// it: what passed in between is not credited.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// What was neither spent nor set aside.
    pub unspent: f64,
}

impl Ledger {
    /// A full budget: `share` of capacity (beta static).
    #[must_use]
    pub fn new(share: Ratio, now: Micros) -> Self {
        // f32 to f64 by way of four decimals, so that 0.15 means 0.15.
        let share = f64::from(libm_round(share.get() * 10_000.0)) / 10_000.0;
        let beta = share * HORIZON_STEPS;
        Self {
            beta,
            unspent: beta,
            reserved: 0.0,
            stepped: now,
            overruns: 0,
        }
    }

    /// Goes on where a former run ended. Reservations of that run count as
    /// spent: nobody knows how far its plans came.
    #[must_use]
    pub fn resume(share: Ratio, saved: Saved, now: Micros) -> Self {
        let mut ledger = Self::new(share, now);
        if saved.unspent.is_finite() {
            ledger.unspent = saved.unspent.clamp(SEED * ledger.beta, ledger.beta);
        }
        ledger
    }

    /// What to persist.
    #[must_use]
    pub fn saved(&self) -> Saved {
        Saved {
            unspent: self.balance(),
        }
    }

    /// The whole budget in capacity-seconds.
    #[must_use]
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// What a plan may cost at most when nothing was spent lately.
    #[must_use]
    pub fn balance_max(&self) -> f64 {
        self.beta * (1.0 - SEED)
    }

    /// What a new plan may cost now.
    #[must_use]
    pub fn balance(&self) -> f64 {
        self.unspent - self.reserved
    }

    /// Actions that cost more than they had reserved.
    #[must_use]
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Lets the balance grow back for whole seconds passed since the last call.
    pub fn advance(&mut self, now: Micros) {
        let passed = (now - self.stepped) / 1_000_000;
        if passed == 0 {
            return;
        }
        self.stepped = Micros(self.stepped.0 + passed * 1_000_000);
        let growth = 1.0 / (1.0 - 1.0 / HORIZON_STEPS);
        for _ in 0..passed.min(CREDIT_STEPS_MAX) {
            // Only what nobody has claimed grows, and never past beta less the
            // claims: with growth on claims as well, 1.29 beta could be spent.
            self.unspent = (self.balance() * growth).min(self.beta - self.reserved) + self.reserved;
        }
    }

    /// Sets the bound of a cost aside.
    ///
    /// # Errors
    /// [`Overdrawn`] when it does not fit; nothing is set aside then.
    pub fn reserve(&mut self, bound: Cost, now: Micros) -> Result<Reservation, Overdrawn> {
        self.advance(now);
        let total = bound.total();
        let fits = total >= 0.0 && total + SEED * self.beta <= self.balance();
        if !fits {
            return Err(Overdrawn {
                bound: total,
                balance: self.balance(),
                beta: self.beta,
            });
        }
        self.reserved += total;
        Ok(Reservation { bound: total })
    }

    /// Charges what was really spent and frees the rest.
    // By value on purpose: a reservation cannot be settled twice.
    #[allow(clippy::needless_pass_by_value)]
    pub fn settle(&mut self, reservation: Reservation, spent: Cost) {
        let spent = spent.total().max(0.0);
        if spent > reservation.bound {
            self.overruns += 1;
        }
        self.reserved = (self.reserved - reservation.bound).max(0.0);
        self.unspent = (self.unspent - spent).max(SEED * self.beta + self.reserved);
    }
}

fn libm_round(value: f32) -> f32 {
    // Shares are small and positive: adding a half and cutting is enough.
    #[allow(clippy::cast_possible_truncation)]
    let whole = (value + 0.5) as i32;
    whole as f32
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

    proptest! {
        /// Any mix of plans that overlap, end early and cost less than they
        /// reserved: from every moment on, the discounted sum stays within beta.
        #[test]
        fn the_budget_is_never_passed(
            plans in prop::collection::vec((0u64..40, 0.0f64..60.0, 0.0f64..=1.0, 0u64..90), 1..60)
        ) {
            let mut ledger = Ledger::new(Ratio::new(0.15).unwrap(), Micros(0));
            let mut now = 0u64;
            let mut running: Vec<(u64, Reservation, f64)> = Vec::new();
            let mut spent: Vec<(u64, f64)> = Vec::new();
            for (gap, bound, share, lasts) in plans {
                for _ in 0..gap {
                    now += 1;
                    ledger.advance(Micros(now * 1_000_000));
                    let mut still = Vec::new();
                    for (end, reservation, cost) in running.drain(..) {
                        if end <= now {
                            ledger.settle(reservation, disruption(cost));
                            spent.push((now, cost));
                        } else {
                            still.push((end, reservation, cost));
                        }
                    }
                    running = still;
                }
                if let Ok(reservation) = ledger.reserve(disruption(bound), Micros(now * 1_000_000)) {
                    running.push((now + lasts, reservation, bound * share));
                }
                prop_assert!(ledger.balance() >= 0.0);
                prop_assert!(ledger.balance() <= ledger.beta());
            }
            let gamma = 1.0 - 1.0 / HORIZON_STEPS;
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
        let mut ledger = Ledger::new(Ratio::new(0.15).unwrap(), Micros(0));
        let held = ledger.reserve(disruption(89.0), Micros(0)).unwrap();
        ledger.settle(held, disruption(89.0));
        let refused = ledger.reserve(disruption(5.0), Micros(0)).unwrap_err();
        assert_eq!(
            std::format!("{refused}"),
            "costs up to 5.00 capacity-seconds, and of beta 90.00 only 1.00 are left"
        );
        let mut seconds = 0;
        while ledger
            .reserve(disruption(5.0), Micros(seconds * 1_000_000))
            .is_err()
        {
            seconds += 1;
            assert!(seconds < 3600);
        }
        assert!(seconds > 600, "{seconds}");
    }

    #[test]
    fn time_that_was_not_measured_earns_nothing() {
        let mut ledger = Ledger::new(Ratio::new(0.15).unwrap(), Micros(0));
        let held = ledger.reserve(disruption(80.0), Micros(0)).unwrap();
        ledger.settle(held, disruption(80.0));
        ledger.advance(Micros(86_400_000_000));
        assert!(ledger.balance() < 12.0, "{}", ledger.balance());
        let saved = Saved { unspent: f64::NAN };
        let resumed = Ledger::resume(Ratio::new(0.15).unwrap(), saved, Micros(0));
        assert_eq!(resumed.balance(), 90.0);
    }

    #[test]
    fn a_cost_beyond_its_bound_is_charged_and_counted() {
        let mut ledger = Ledger::new(Ratio::new(0.15).unwrap(), Micros(0));
        let held = ledger.reserve(disruption(1.0), Micros(0)).unwrap();
        ledger.settle(held, disruption(7.0));
        assert_eq!((ledger.balance(), ledger.overruns()), (83.0, 1));
        assert!(ledger.reserve(disruption(f64::NAN), Micros(0)).is_err());
        assert!(ledger.reserve(disruption(-1.0), Micros(0)).is_err());
    }
}
