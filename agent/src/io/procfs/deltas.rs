//! Counters of the kernel that belong together, and how much each grew.

use homeostat_common::units::Micros;

use super::source::SPAN_MIN;

/// Growth of `N` counters between two looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deltas<const N: usize> {
    last: Option<([u64; N], Micros)>,
    growth: Option<Growth<N>>,
}

impl<const N: usize> Default for Deltas<N> {
    fn default() -> Self {
        Self {
            last: None,
            growth: None,
        }
    }
}

/// What they grew by, and in how many seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Growth<const N: usize> {
    pub(super) by: [u64; N],
    pub(super) seconds: f64,
}

impl<const N: usize> Deltas<N> {
    /// `None` for the first look, after a gap, and when one of them stepped back (a device that
    /// came again, or a counter of 32 bits that went round). When the last look is so short
    /// ago that the growth would be chance it says the same again.
    pub(super) fn grown(&mut self, now: Micros, counters: Option<[u64; N]>) -> Option<Growth<N>> {
        let Some(counters) = counters else {
            *self = Self::default();
            return None;
        };
        let short = |at: Micros| now >= at && now.since(at) < SPAN_MIN;
        if !self.last.is_some_and(|(_, at)| short(at)) {
            let before = self.last.replace((counters, now));
            self.growth = before.and_then(|before| grown(before, (counters, now)));
        }
        self.growth
    }
}

fn grown<const N: usize>(
    (last, at): ([u64; N], Micros),
    (counters, now): ([u64; N], Micros),
) -> Option<Growth<N>> {
    let micros = now.0.checked_sub(at.0).filter(|micros| *micros > 0)?;
    let mut by = [0; N];
    for (by, (new, old)) in by.iter_mut().zip(counters.iter().zip(last)) {
        *by = new.checked_sub(old)?;
    }
    Some(Growth {
        by,
        seconds: micros as f64 / 1e6,
    })
}

impl<const N: usize> Growth<N> {
    /// Growth of one of them per second.
    pub(super) fn rate(&self, place: usize) -> f64 {
        self.by.get(place).map_or(0.0, |by| *by as f64) / self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_needs_two_looks_in_order_and_a_counter_that_only_grows() {
        let mut deltas = Deltas::default();
        assert_eq!(deltas.grown(Micros(0), Some([5, 9])), None);
        let growth = deltas.grown(Micros(2_000_000), Some([7, 9])).unwrap();
        assert_eq!((growth.by, growth.rate(0)), ([2, 0], 1.0));
        // Right after the last look there is no news.
        assert_eq!(deltas.grown(Micros(2_000_001), Some([8, 9])), Some(growth));
        assert_eq!(deltas.grown(Micros(3_000_000), Some([0, 9])), None);
        assert_eq!(deltas.grown(Micros(4_000_000), None), None);
        assert_eq!(deltas.grown(Micros(5_000_000), Some([1, 9])), None);
        // The clock stepped back.
        assert_eq!(deltas.grown(Micros(1_000_000), Some([u64::MAX, 9])), None);
        let growth = deltas.grown(Micros(2_000_000), Some([u64::MAX, 9]));
        assert_eq!(growth.map(|growth| growth.by), Some([0, 0]));
    }
}
