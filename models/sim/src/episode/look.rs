//! One look of a healer, for who records or shows it.

use crate::observe::Seen;
use crate::policy::Ended;
use crate::world::Order;

/// What the healer saw at one moment, and what it decided. Nothing in it is hidden from a
/// healer.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Its number, from 0.
    pub no: u32,
    /// What was seen.
    pub seen: Seen,
    /// How orders ended since the look before.
    pub ended: Vec<Ended>,
    /// What might still be spent; infinite without a budget.
    pub left: f64,
    /// What was spent so far.
    pub spent: f64,
    /// Nothing was under way, so it was asked what to do.
    pub idle: bool,
    /// What it decided, one order after the other.
    pub orders: Vec<Order>,
    /// How likely it was to decide so.
    pub propensity: f64,
    /// Why it did, as far as it can tell.
    pub why: String,
}
