//! Do the values still come from the distribution they came from when all was well? For
//! inputs and confidences of a model, request sizes, classes that a model answers with.
//!
//! Population stability index (PSI; Lewis 1994, also called Jeffreys divergence):
//! `sum((p - q) ln(p / q))` over bins, `q` the shares of a reference, `p` those of the last
//! samples. Bins hold equal shares of the reference; two more lie outside of its range, so a
//! value never seen counts whatever its size. Old samples fade out exponentially. By custom
//! .1 is worth a look and .25 is a shift; as few samples reach both by chance, the verdict
//! also says what chance would reach once in 1000 (PSI of n and m samples is about
//! chi-squared times `1/n + 1/m`; Yurdakul and Naranjo 2020).
//!
//! State `12 B + 16` bytes for `B` bins, 160 for 12. A sample costs `3 B` multiplications and
//! comparisons (11 ns on x86-64), a verdict `B` logarithms (0.2 us).
//! Blind to the order of samples (a value that stands still, a period that is lost), to what
//! happens within a bin, to samples that come together in clumps (they count as independent,
//! so `chance` is too low then: give longer memory), and to how several values go together,
//! which is for [`crate::joint`].

use libm::{logf, sqrtf};

/// Reference samples for each bin at least: with fewer, the edges are a guess.
const SAMPLES_PER_BIN: usize = 4;

/// Live samples before there is a verdict: below, chance alone reaches a PSI of 1.
const LIVE_MIN: f32 = 16.0;

/// Most samples that are remembered: beyond, single precision would lose the newest.
const MEMORY_MAX: f32 = 100_000.0;

/// Pseudo-samples of each bin (Jeffreys prior): an empty bin is rare, not impossible.
const PRIOR: f32 = 0.5;

/// A PSI that is called a shift by custom, if chance does not explain it.
pub const SHIFT: f32 = 0.25;

/// The usual distribution of a value in `B` bins (at least 3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference<const B: usize = 12> {
    /// Lower edges of the bins from the second one on; the last is the largest usual value.
    edges: [f32; B],
    shares: [f32; B],
    samples: f32,
}

impl<const B: usize> Reference<B> {
    /// Learns the distribution of `values`, which are sorted in place; those that are no
    /// numbers are ignored. `None` for fewer than four values for each bin.
    #[must_use]
    pub fn of_values(values: &mut [f32]) -> Option<Self> {
        const { assert!(B >= 3) }
        values.sort_unstable_by(f32::total_cmp);
        // By total order, NaN and infinities lie at both ends.
        let first = values.iter().position(|value| value.is_finite())?;
        let usual = values.get(first..)?;
        let usual = usual.get(..=usual.iter().rposition(|value| value.is_finite())?)?;
        if usual.len() < SAMPLES_PER_BIN * B {
            return None;
        }
        let inner = B - 2;
        let mut edges = [0.0; B];
        for (at, edge) in edges.iter_mut().enumerate() {
            let rank = (usual.len() * at / inner).min(usual.len() - 1);
            *edge = *usual.get(rank)?;
        }
        let mut reference = Self {
            edges,
            shares: [0.0; B],
            samples: 0.0,
        };
        let mut counts = [0.0; B];
        for value in usual {
            if let Some(count) = counts.get_mut(reference.bin(*value)) {
                *count += 1.0;
            }
        }
        reference.count(counts);
        Some(reference)
    }

    /// Takes the distribution from how often each of `B` classes came. `None` for fewer than
    /// four for each class on average, or a count that is no number or below 0.
    #[must_use]
    pub fn of_classes(counts: [f32; B]) -> Option<Self> {
        const { assert!(B >= 3) }
        let needed = (SAMPLES_PER_BIN * B) as f32;
        let total: f32 = counts.iter().sum();
        let valid = counts.iter().all(|count| *count >= 0.0) && total.is_finite();
        if !valid || total < needed {
            return None;
        }
        let mut reference = Self {
            edges: [0.0; B],
            shares: [0.0; B],
            samples: 0.0,
        };
        reference.count(counts);
        Some(reference)
    }

    fn count(&mut self, counts: [f32; B]) {
        self.samples = counts.iter().sum();
        self.shares = smoothed(&counts, 1.0, self.samples);
    }

    /// The bin of a number: 0 below and `B - 1` above all usual values.
    fn bin(&self, value: f32) -> usize {
        let inner = self.edges.get(..B - 2).unwrap_or(&[]);
        let largest = self.edges.get(B - 2).copied().unwrap_or(f32::MAX);
        if value > largest {
            return B - 1;
        }
        inner.iter().filter(|edge| **edge <= value).count()
    }
}

/// Shares of counts, of which `samples` stand for their sum.
fn smoothed<const B: usize>(counts: &[f32; B], scale: f32, samples: f32) -> [f32; B] {
    counts.map(|count| share(count * scale, samples, B))
}

/// The share of one of `bins` bins, none of which is impossible.
fn share(count: f32, samples: f32, bins: usize) -> f32 {
    (count + PRIOR) / (samples + PRIOR * bins as f32)
}

/// Compares two histograms with the same bins, as a metrics endpoint counts them.
///
/// `None` if they have not the same number of bins, at least 2, for fewer than 16 samples in
/// either, and for a count that is no number or below 0.
///
/// ```
/// # use homeostat_detect::drift::compare;
/// let verdict = compare(&[500.0, 300.0, 200.0], &[20.0, 30.0, 50.0]).unwrap();
/// assert!(verdict.shifted() && verdict.bin == 2);
/// assert!(!compare(&[500.0, 300.0, 200.0], &[51.0, 28.0, 21.0]).unwrap().shifted());
/// ```
#[must_use]
pub fn compare(reference: &[f32], now: &[f32]) -> Option<Verdict> {
    let bins = reference.len();
    let valid = |counts: &[f32]| counts.iter().all(|count| *count >= 0.0);
    let (before, samples): (f32, f32) = (reference.iter().sum(), now.iter().sum());
    let enough = before >= LIVE_MIN && samples >= LIVE_MIN && (before + samples).is_finite();
    if bins < 2 || bins != now.len() || !valid(reference) || !valid(now) || !enough {
        return None;
    }
    let live = now.iter().map(|count| share(*count, samples, bins));
    let usual = reference.iter().map(|count| share(*count, before, bins));
    Some(verdict(live.zip(usual), bins, samples, before))
}

/// The index of `shares` (now, usual) of `bins` bins, from so many samples of each.
fn verdict(
    shares: impl Iterator<Item = (f32, f32)>,
    bins: usize,
    samples: f32,
    before: f32,
) -> Verdict {
    let (mut psi, mut most, mut bin) = (0.0, 0.0, 0);
    for (at, (p, q)) in shares.enumerate() {
        let part = (p - q) * logf(p / q);
        psi += part;
        if p > q && part > most {
            (most, bin) = (part, at);
        }
    }
    Verdict {
        psi,
        chance: chi_squared_1000(bins.saturating_sub(1)) * (1.0 / samples + 1.0 / before),
        bin,
        samples,
    }
}

/// How far the last samples are from the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The population stability index, 0 for equal shares.
    pub psi: f32,
    /// The PSI that independent samples of the reference pass once in 1000.
    pub chance: f32,
    /// Of the bins, or classes, that gained, the one that adds most to it.
    pub bin: usize,
    /// Live samples it rests on, faded ones counted as less.
    pub samples: f32,
}

impl Verdict {
    /// A shift by custom that chance does not explain.
    #[must_use]
    pub fn shifted(&self) -> bool {
        self.psi >= SHIFT && self.psi > self.chance
    }
}

/// Compares the last samples of one value with a [`Reference`].
///
/// ```
/// # use homeostat_detect::drift::{Drift, Reference};
/// let mut usual = [0.0; 480];
/// (0_u16..).zip(&mut usual).for_each(|(i, value)| *value = f32::from(i * 7 % 480));
/// let mut drift: Drift = Drift::new(Reference::of_values(&mut usual).unwrap(), 100.0);
/// (0_u16..200).for_each(|i| drift.push(f32::from(i * 11 % 480)));
/// assert!(!drift.verdict().unwrap().shifted());
/// (0_u16..200).for_each(|i| drift.push(f32::from(i % 240)));
/// assert!(drift.verdict().unwrap().shifted());
/// ```
#[derive(Debug, Clone)]
pub struct Drift<const B: usize = 12> {
    reference: Reference<B>,
    live: [f32; B],
    keep: f32,
    /// Sums of the weights of live samples and of their squares.
    total: f32,
    squares: f32,
}

impl<const B: usize> Drift<B> {
    /// `memory`: samples after which one has faded to 1/e, within `1.0..=100_000.0`.
    #[must_use]
    pub fn new(reference: Reference<B>, memory: f32) -> Self {
        let memory = if memory.is_nan() { 1.0 } else { memory };
        Self {
            reference,
            live: [0.0; B],
            keep: 1.0 - 1.0 / memory.clamp(1.0, MEMORY_MAX),
            total: 0.0,
            squares: 0.0,
        }
    }

    /// Takes a value; one that is NaN is ignored, an infinite one lies outside.
    pub fn push(&mut self, value: f32) {
        if !value.is_nan() {
            self.push_class(self.reference.bin(value));
        }
    }

    /// Takes a class; one that the reference has no bin for counts as the last.
    pub fn push_class(&mut self, class: usize) {
        for count in &mut self.live {
            *count *= self.keep;
        }
        if let Some(count) = self.live.get_mut(class.min(B - 1)) {
            *count += 1.0;
        }
        self.total = self.total * self.keep + 1.0;
        self.squares = self.squares * self.keep * self.keep + 1.0;
    }

    /// Forgets the live samples, as after a new version of what makes them.
    pub fn forget(&mut self) {
        *self = Self {
            live: [0.0; B],
            total: 0.0,
            squares: 0.0,
            ..self.clone()
        };
    }

    /// How far the live samples are from the reference; `None` before there are 16.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let samples = self.total * self.total / self.squares;
        // No samples give NaN.
        if samples.is_nan() || samples < LIVE_MIN {
            return None;
        }
        let live = smoothed(&self.live, samples / self.total, samples);
        let shares = live.into_iter().zip(self.reference.shares);
        Some(verdict(shares, B, samples, self.reference.samples))
    }
}

/// What chi-squared passes once in 1000 (Wilson and Hilferty 1931).
fn chi_squared_1000(freedom: usize) -> f32 {
    let freedom = freedom as f32;
    let spread = 2.0 / (9.0 * freedom);
    let root = 1.0 - spread + 3.09 * sqrtf(spread);
    freedom * root * root * root
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn chance_is_passed_about_once_in_1000() {
        let mut rng = fastrand::Rng::with_seed(3);
        let (mut passed, mut runs) = (0, 0);
        for _ in 0..40 {
            let mut usual: Vec<f32> = (0..1000).map(|_| rng.f32()).collect();
            let reference: Reference = Reference::of_values(&mut usual).unwrap();
            for _ in 0..100 {
                let mut drift = Drift::new(reference, 200.0);
                (0..600).for_each(|_| drift.push(rng.f32()));
                let verdict = drift.verdict().unwrap();
                runs += 1;
                passed += u32::from(verdict.psi > verdict.chance);
            }
        }
        std::println!("{passed} of {runs}");
        assert!(passed <= 20, "{passed} of {runs}");
    }

    /// A name, what changes, and the bins that may gain most.
    type Change = (&'static str, fn(f32) -> f32, &'static [usize]);

    #[test]
    fn shifts_of_level_spread_and_range_are_found_and_named() {
        let changes: [Change; 4] = [
            ("level", |x| x * 0.5, &[1, 2, 3, 4, 5]),
            ("spread", |x| 0.5 + (x - 0.5) * 0.3, &[4, 5, 6, 7]),
            ("above", |x| x + 0.3, &[11]),
            ("below", |x| x - 0.3, &[0]),
        ];
        for (name, change, bins) in changes {
            let mut rng = fastrand::Rng::with_seed(9);
            let mut usual: Vec<f32> = (0..1000).map(|_| rng.f32()).collect();
            let mut drift: Drift = Drift::new(Reference::of_values(&mut usual).unwrap(), 100.0);
            (0..300).for_each(|_| drift.push(rng.f32()));
            assert!(!drift.verdict().unwrap().shifted(), "{name}");
            (0..300).for_each(|_| drift.push(change(rng.f32())));
            let verdict = drift.verdict().unwrap();
            assert!(verdict.shifted(), "{name} {verdict:?}");
            assert!(bins.contains(&verdict.bin), "{name} {verdict:?}");
        }
    }

    #[test]
    fn a_constant_reference_shifts_to_either_side_and_not_by_staying() {
        for (value, bin) in [(3.0, 10), (2.9, 0), (3.1, 11)] {
            let reference: Reference = Reference::of_values(&mut [3.0; 64]).unwrap();
            let mut drift = Drift::new(reference, 50.0);
            (0..100).for_each(|_| drift.push(value));
            let verdict = drift.verdict().unwrap();
            assert_eq!(verdict.shifted(), value != 3.0, "{verdict:?}");
            if value != 3.0 {
                assert_eq!(verdict.bin, bin);
            }
        }
    }

    #[test]
    fn classes_drift_as_values_do() {
        let reference = Reference::of_classes([80.0, 15.0, 5.0]).unwrap();
        let mut drift = Drift::new(reference, 100.0);
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..400 {
            drift.push_class(match rng.u8(..100) {
                ..80 => 0,
                80..95 => 1,
                _ => 2,
            });
        }
        assert!(!drift.verdict().unwrap().shifted());
        drift.forget();
        assert_eq!(drift.verdict(), None);
        (0..100).for_each(|i| drift.push_class(i % 3));
        assert!(drift.verdict().unwrap().shifted());
        assert_eq!(Reference::of_classes([1.0, 2.0, 3.0]), None);
        assert_eq!(Reference::of_classes([f32::NAN, 200.0, 3.0]), None);
    }

    #[test]
    fn few_samples_say_nothing() {
        let mut usual: Vec<f32> = (0_u8..100).map(f32::from).collect();
        let mut drift: Drift = Drift::new(Reference::of_values(&mut usual).unwrap(), 50.0);
        assert_eq!(drift.verdict(), None);
        (0..15).for_each(|_| drift.push(1e9));
        drift.push(f32::NAN);
        assert_eq!(drift.verdict(), None);
        assert_eq!(Reference::<12>::of_values(&mut [1.0; 47]), None);
        assert_eq!(Reference::<12>::of_values(&mut [f32::NAN; 90]), None);
    }

    proptest! {
        #[test]
        fn any_histograms_give_a_finite_verdict(
            a in prop::collection::vec(any::<f32>(), 0..6),
            b in prop::collection::vec(0.0_f32..1e30, 0..6),
        ) {
            for verdict in [compare(&a, &b), compare(&b, &b)].into_iter().flatten() {
                prop_assert!(verdict.psi.is_finite() && verdict.chance > 0.0);
            }
        }

        #[test]
        fn any_values_give_a_finite_verdict(
            mut usual in prop::collection::vec(any::<f32>(), 0..200),
            live in prop::collection::vec(any::<f32>(), 0..200),
            memory in any::<f32>(),
        ) {
            if let Some(reference) = Reference::<8>::of_values(&mut usual) {
                let mut drift = Drift::new(reference, memory);
                for value in live {
                    drift.push(value);
                    if let Some(verdict) = drift.verdict() {
                        prop_assert!(verdict.psi.is_finite() && verdict.psi >= 0.0);
                        prop_assert!(verdict.chance > 0.0 && verdict.bin < 8);
                    }
                }
            }
        }
    }
}
