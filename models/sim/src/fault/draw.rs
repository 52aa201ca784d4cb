//! Draws one after the other, for generators of incidents.

use crate::chance::Chance;

/// A sequence of draws.
pub(super) struct Draw {
    chance: Chance,
    drawn: u64,
}

impl Draw {
    pub(super) fn new(chance: Chance) -> Self {
        Self { chance, drawn: 0 }
    }

    pub(super) fn uniform(&mut self) -> f64 {
        self.drawn += 1;
        self.chance.uniform(self.drawn, 0)
    }

    pub(super) fn often(&mut self, share: f64) -> bool {
        self.uniform() < share
    }

    pub(super) fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        self.drawn += 1;
        let bound = u32::try_from(of.len()).ok()?;
        of.get(self.chance.below(bound, self.drawn, 0) as usize)
    }

    /// A round number between two others.
    pub(super) fn round(&mut self, low: f64, high: f64, step: f64) -> f64 {
        let steps = libm::round((high - low) / step * self.uniform());
        // Decimal fractions as a person would write them.
        libm::round((low + steps * step) * 100.0) / 100.0
    }
}
