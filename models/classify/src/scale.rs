//! Turns a measure that has no unit into how rare it is: by its rank among the same measure
//! of runs that were held back (conformal prediction, Vovk et al. 2005).

use serde::{Deserialize, Serialize};

/// What a measure beyond all that were seen adds at most, so that ranks decide first and the
/// measure itself orders what no rank can.
const BEYOND: f32 = 1e-3;

/// Measures of runs that were held back, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scale(Vec<f32>);

impl Scale {
    pub(crate) fn new(mut seen: Vec<f32>) -> Self {
        seen.retain(|value| value.is_finite());
        seen.sort_unstable_by(f32::total_cmp);
        Self(seen)
    }

    /// The share of what was seen that is smaller, in 0 to 1; below 1 by one run that may yet
    /// come.
    pub(crate) fn rank(&self, value: f32) -> f32 {
        let below = self.0.partition_point(|seen| *seen < value);
        below as f32 / (self.0.len() + 1) as f32
    }

    /// How many runs were held back.
    pub(crate) fn runs(&self) -> usize {
        self.0.len()
    }

    /// How rare so large a value is, as a negative logarithm; grows without end.
    pub(crate) fn rarity(&self, value: f32) -> f32 {
        let usual = self.0.get(self.0.len() * 19 / 20).copied().unwrap_or(1.0);
        let beyond = (value.max(0.0) / usual.max(1e-6)).ln_1p();
        BEYOND * beyond - (1.0 - self.rank(value)).ln()
    }

    pub(crate) fn sound(&self) -> bool {
        self.0.iter().all(|value| value.is_finite()) && self.0.is_sorted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rarity_grows_with_the_value_even_beyond_all_that_was_seen() {
        let scale = Scale::new((1_u8..100).map(f32::from).collect());
        assert_eq!(
            (scale.rank(0.0), scale.rank(51.0), scale.rank(500.0)),
            (0.0, 0.5, 0.99)
        );
        let rare: Vec<f32> = [0.0, 3.0, 50.0, 99.0, 150.0, 1e6]
            .map(|v| scale.rarity(v))
            .to_vec();
        assert!(rare.is_sorted_by(|one, other| one < other), "{rare:?}");
        assert!(scale.sound() && !Scale(vec![2.0, 1.0]).sound());
        assert_eq!(Scale::new(vec![f32::NAN]).rank(3.0), 0.0);
    }
}
