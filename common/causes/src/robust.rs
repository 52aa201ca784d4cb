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
    let mut keys = Vec::with_capacity(values.size_hint().1.unwrap_or(0));
    keys.extend(values.filter(|value| value.is_finite()).map(key));
    let last = keys.len().checked_sub(1)?;
    let place = q.clamp(0.0, 1.0) * last as f32;
    let low = (place as usize).min(last);
    let (_, lower, above) = keys.select_nth_unstable(low);
    let lower = value(*lower);
    let upper = above.iter().copied().min();
    Some(upper.map_or(lower, |upper| {
        lower + (value(upper) - lower) * (place - low as f32)
    }))
}

/// Integers in the order of [`f32::total_cmp`], which sort in half the time.
fn key(value: f32) -> i32 {
    let bits = value.to_bits().cast_signed();
    bits ^ ((bits >> 31) & i32::MAX)
}

/// The value of a key.
fn value(key: i32) -> f32 {
    f32::from_bits((key ^ ((key >> 31) & i32::MAX)).cast_unsigned())
}

/// Median and robust standard deviation; `None` of none.
pub(crate) fn level(values: &[f32]) -> Option<(f32, f32)> {
    let middle = median(values.iter().copied())?;
    Some((middle, deviation(values, middle)?))
}

/// The robust standard deviation around a median; `None` of none.
pub(crate) fn deviation(values: &[f32], middle: f32) -> Option<f32> {
    let away = values.iter().map(|value| (value - middle).abs());
    Some(median(away)? * MAD_TO_SIGMA)
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
        let (middle, sigma) = level(&[9.0, 10.0, 11.0, 10.0, 90.0]).unwrap();
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
