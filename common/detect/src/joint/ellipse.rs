//! The usual place of several sensors: their scales, and the ellipse their values fill.

use libm::sqrtf;

/// Furthest that a value counts, in usual deviations: its square and a sum of those stay
/// finite in single precision.
const FAR: f32 = 1e4;

/// Least spread of a sensor as a share of its level: below, a constant sensor would make
/// every change of its last digit infinite.
const SPREAD_MIN: f32 = 1e-3;

/// Share of the covariances that is taken away (Ledoit and Wolf 2004, with a fixed share):
/// few rows make sensors look more alike than they are.
const SHRINK: f32 = 0.1;

/// Level and spread of `K` sensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Frame<const K: usize> {
    level: [f32; K],
    /// 0 for a sensor that was never seen.
    per_spread: [f32; K],
}

impl<const K: usize> Frame<K> {
    /// Values that are no numbers are left out.
    pub(crate) fn of(rows: &[[f32; K]]) -> Self {
        let mut level = [0.0; K];
        let mut per_spread = [0.0; K];
        for (sensor, (level, per_spread)) in level.iter_mut().zip(&mut per_spread).enumerate() {
            let (mut n, mut squares) = (0.0, 0.0);
            let values = rows.iter().filter_map(|row| row.get(sensor));
            // Halved, so that the difference of two huge values is a number.
            for value in values.filter(|value| value.is_finite()).map(|v| v / 2.0) {
                n += 1.0;
                let off: f32 = value - *level;
                *level += off / n;
                squares += off * (value - *level);
            }
            if n > 0.0 {
                let spread = sqrtf(squares.min(f32::MAX) / n);
                let least = SPREAD_MIN * level.abs();
                *per_spread = 1.0 / spread.max(least).max(f32::MIN_POSITIVE * 4.0);
            }
        }
        Self { level, per_spread }
    }

    /// Values in usual deviations from the level; NaN for those that say nothing.
    pub(crate) fn place(&self, row: &[f32; K]) -> [f32; K] {
        let mut placed = *row;
        for (value, (level, per_spread)) in placed
            .iter_mut()
            .zip(self.level.iter().zip(&self.per_spread))
        {
            *value = if value.is_finite() && *per_spread > 0.0 {
                ((*value / 2.0 - level) * per_spread).clamp(-FAR, FAR)
            } else {
                f32::NAN
            };
        }
        placed
    }
}

/// Sums the products of deviations, then turns them into a distance.
#[derive(Debug, Clone)]
pub(crate) struct Scatter<const K: usize> {
    products: [[f32; K]; K],
    n: f32,
}

impl<const K: usize> Scatter<K> {
    pub(crate) fn new() -> Self {
        Self {
            products: [[0.0; K]; K],
            n: 0.0,
        }
    }

    pub(crate) fn add(&mut self, off: &[f32; K]) {
        self.n += 1.0;
        for (row, a) in self.products.iter_mut().zip(off) {
            for (product, b) in row.iter_mut().zip(off) {
                // A running mean: a sum of squares of far values would not be a number.
                *product += (a * b - *product) / self.n;
            }
        }
    }

    /// The ellipse around `center`, the mean of what was added, `wider` by so much in the
    /// square of each sensor.
    pub(crate) fn ellipse(mut self, center: &[f32; K], wider: &[f32; K]) -> Ellipse<K> {
        for (i, row) in self.products.iter_mut().enumerate() {
            for (j, product) in row.iter_mut().enumerate() {
                let mean = center.get(i).zip(center.get(j)).map_or(0.0, |(a, b)| a * b);
                *product -= mean;
                if i == j {
                    // A sensor that did not move must not make the matrix singular.
                    *product = product.max(SPREAD_MIN) + wider.get(i).copied().unwrap_or(0.0);
                } else {
                    *product *= 1.0 - SHRINK;
                }
            }
        }
        Ellipse {
            inverse: invert(self.products),
        }
    }
}

/// Mahalanobis distance (1936) with the share of each sensor.
#[derive(Debug, Clone)]
pub(crate) struct Ellipse<const K: usize> {
    inverse: [[f32; K]; K],
}

impl<const K: usize> Ellipse<K> {
    /// The squared distance, and what each sensor adds to it: its own deviation times what
    /// of it the other sensors do not explain. Parts may be negative.
    pub(crate) fn distance(&self, off: &[f32; K]) -> (f32, [f32; K]) {
        let mut parts = [0.0; K];
        for (part, (row, own)) in parts.iter_mut().zip(self.inverse.iter().zip(off)) {
            let unexplained: f32 = row.iter().zip(off).map(|(weight, off)| weight * off).sum();
            *part = own * unexplained;
        }
        (parts.iter().sum::<f32>().max(0.0), parts)
    }
}

/// The distance that 1 % of all pass, to a millionth of the largest. `each` calls what it is
/// given for every distance; it does so some twenty times, as there is no room to sort them.
pub(crate) fn passed_by_few(each: impl Fn(&mut dyn FnMut(f32))) -> f32 {
    const FEW: f32 = 0.01;
    const HALVINGS: usize = 20;
    let (mut n, mut low, mut high) = (0.0, 0.0, 0.0_f32);
    each(&mut |distance| {
        n += 1.0;
        high = high.max(distance);
    });
    for _ in 0..HALVINGS {
        let middle = low + (high - low) / 2.0;
        let mut beyond = 0.0;
        each(&mut |distance| beyond += f32::from(u8::from(distance > middle)));
        if beyond / n > FEW {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Parts as shares of the whole, those below 0 as 0.
pub(crate) fn shares<const K: usize>(parts: [f32; K]) -> [f32; K] {
    let whole: f32 = parts.iter().map(|part| part.max(0.0)).sum();
    parts.map(|part| {
        if whole > 0.0 {
            part.max(0.0) / whole
        } else {
            0.0
        }
    })
}

/// Inverts a positive definite matrix in place by Gauss and Jordan without a search for
/// pivots, which such a matrix does not need. A pivot that rounding made too small or
/// negative is raised: the distance is then shorter along it, never unbounded.
pub(crate) fn invert<const K: usize>(mut matrix: [[f32; K]; K]) -> [[f32; K]; K] {
    const PIVOT_MIN: f32 = 1e-5;
    for k in 0..K {
        let pivot = 1.0 / matrix[k][k].max(PIVOT_MIN);
        matrix[k][k] = 1.0;
        for value in &mut matrix[k] {
            *value *= pivot;
        }
        let reduced = matrix[k];
        for (i, row) in matrix.iter_mut().enumerate() {
            if i != k {
                let factor = row[k];
                row[k] = 0.0;
                for (value, reduced) in row.iter_mut().zip(&reduced) {
                    *value -= factor * reduced;
                }
            }
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_inverse_of_a_known_matrix() {
        let inverse = invert([[4.0, 2.0, 0.6], [2.0, 5.0, 1.0], [0.6, 1.0, 3.0]]);
        let expected = [
            [0.313_218, -0.120_69, -0.022_414],
            [-0.120_69, 0.260_775, -0.062_787],
            [-0.022_414, -0.062_787, 0.358_745],
        ];
        for (row, expected) in inverse.iter().flatten().zip(expected.iter().flatten()) {
            assert!((row - expected).abs() < 2e-3, "{inverse:?}");
        }
    }

    #[test]
    fn against_the_grain_is_further_than_along() {
        let mut scatter = Scatter::<2>::new();
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..4000 {
            let a = rng.f32() - 0.5;
            scatter.add(&[a, a + 0.2 * (rng.f32() - 0.5)]);
        }
        let ellipse = scatter.ellipse(&[0.0; 2], &[0.0; 2]);
        let (along, _) = ellipse.distance(&[0.4, 0.4]);
        let (against, parts) = ellipse.distance(&[0.4, -0.4]);
        assert!(against > 5.0 * along, "{against} {along}");
        assert!((parts[0] - parts[1]).abs() < 0.2 * against);
    }

    #[test]
    fn one_percent_pass_the_distance_that_few_pass() {
        let few = passed_by_few(|look| (0..1000_u16).for_each(|i| look(f32::from(i * 7 % 1000))));
        assert!((989.0..990.01).contains(&few), "{few}");
        assert_eq!(passed_by_few(|_| {}), 0.0);
    }

    proptest! {
        #[test]
        fn any_rows_give_a_finite_distance(
            rows in prop::collection::vec(prop::array::uniform3(any::<f32>()), 1..40),
            probe in prop::array::uniform3(any::<f32>()),
        ) {
            let frame = Frame::of(&rows);
            let mut scatter = Scatter::new();
            let known = |row: &[f32; 3]| frame.place(row).map(|z| if z.is_nan() { 0.0 } else { z });
            for row in &rows {
                scatter.add(&known(row));
            }
            let (distance, parts) = scatter.ellipse(&[0.0; 3], &[0.0; 3]).distance(&known(&probe));
            prop_assert!(distance.is_finite(), "{}", distance);
            prop_assert!(shares(parts).iter().all(|share| (0.0..=1.0).contains(share)));
        }
    }
}
