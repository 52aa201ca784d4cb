//! Medians and what follows from them: a few wild samples move none of it.

use alloc::vec::Vec;

/// What makes the median absolute deviation of normal noise its standard deviation.
const MAD_TO_SIGMA: f32 = 1.4826;

/// The median of the finite values; `None` of none.
pub(crate) fn median(values: impl Iterator<Item = f32>) -> Option<f32> {
    quantile(values, 0.5)
}

/// The quantile of the finite values, between its two neighbours; `None` of none.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a place in the values
pub(crate) fn quantile(values: impl Iterator<Item = f32>, q: f32) -> Option<f32> {
    let mut values: Vec<f32> = values.filter(|value| value.is_finite()).collect();
    let last = values.len().checked_sub(1)?;
    let place = q.clamp(0.0, 1.0) * last as f32;
    let low = (place as usize).min(last);
    let (_, lower, above) = values.select_nth_unstable_by(low, f32::total_cmp);
    let lower = *lower;
    let upper = above.iter().copied().min_by(f32::total_cmp);
    Some(upper.map_or(lower, |upper| {
        lower + (upper - lower) * (place - low as f32)
    }))
}

/// Median and robust standard deviation; `None` of none.
pub(crate) fn level(values: impl Iterator<Item = f32> + Clone) -> Option<(f32, f32)> {
    let middle = median(values.clone())?;
    let spread = median(values.map(|value| (value - middle).abs()))?;
    Some((middle, spread * MAD_TO_SIGMA))
}

/// The slope of `y` over `x` that most pairs agree on (Theil 1950, Sen 1968), over pairs half
/// the history apart, so that it takes linear time; `None` if `x` never moves.
pub(crate) fn slope(pairs: &[(f32, f32)]) -> Option<f32> {
    let half = pairs.len() / 2;
    let steps = pairs.iter().zip(pairs.get(half..)?);
    let slopes = steps.filter_map(|(a, b)| {
        let run = b.0 - a.0;
        (run != 0.0).then(|| (b.1 - a.1) / run)
    });
    median(slopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wild_and_missing_values_move_nothing() {
        let values = [1.0, 2.0, f32::NAN, 3.0, f32::INFINITY, 4.0, 1e30];
        assert_eq!(median(values.into_iter()), Some(3.0));
        assert_eq!(quantile([1.0, 2.0].into_iter(), 0.5), Some(1.5));
        assert_eq!(median([f32::NAN].into_iter()), None);
        let (middle, sigma) = level([9.0, 10.0, 11.0, 10.0, 90.0].into_iter()).unwrap();
        assert_eq!((middle, sigma), (10.0, MAD_TO_SIGMA));
    }

    #[test]
    fn the_slope_survives_a_fifth_of_nonsense() {
        let mut pairs: Vec<(f32, f32)> = (0..50_u8)
            .map(|x| (f32::from(x), 3.0 * f32::from(x)))
            .collect();
        for pair in pairs.iter_mut().step_by(5) {
            pair.1 = 1000.0;
        }
        assert!((slope(&pairs).unwrap() - 3.0).abs() < 0.01);
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(slope(&[]), None);
    }
}
