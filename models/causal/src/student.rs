//! How surprising a correlation is: Student's t distribution through the incomplete beta
//! function (Press et al. 2007, 6.4).

/// Steps of the continued fraction. It needs about the root of the degrees of freedom; beyond
/// this many the fraction of [`crate::series::STEPS_MAX`] rows has long settled.
const STEPS_MAX: usize = 10_000;

/// Probability that independent Gaussian values have a partial correlation of at least `r` in
/// size, with so many degrees of freedom (rows less two less conditions).
pub(crate) fn two_sided(r: f64, freedom: f64) -> f64 {
    // I_x(f/2, 1/2) with x = f / (f + t^2) = 1 - r^2
    let rest = (1.0 - r) * (1.0 + r);
    if rest <= 0.0 {
        return 0.0;
    }
    beta(freedom / 2.0, 0.5, rest, r * r)
}

/// I_x(a, b); `y` is 1 - x, given apart because it may be tiny.
fn beta(a: f64, b: f64, x: f64, y: f64) -> f64 {
    if x <= 0.0 || y <= 0.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * y.ln()).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(a, b, x) / a
    } else {
        1.0 - front * fraction(b, a, y) / b
    }
}

/// The continued fraction of the incomplete beta function, by Lentz.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    let floor = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / floor(1.0 - (a + b) * x / (a + 1.0));
    let mut all = d;
    for step in 1..STEPS_MAX {
        let m = step as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / floor(1.0 + even * d);
        c = floor(1.0 + even / c);
        all *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / floor(1.0 + odd * d);
        c = floor(1.0 + odd / c);
        all *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    all
}

/// Lanczos, g = 7; of positive numbers, right to 1e-14.
#[allow(clippy::excessive_precision)] // as published
fn ln_gamma(z: f64) -> f64 {
    const C: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_13,
        -176.615_029_162_140_59,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_571_6e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if z < 0.5 {
        let sine = (std::f64::consts::PI * z).sin();
        return (std::f64::consts::PI / sine).ln() - ln_gamma(1.0 - z);
    }
    let z = z - 1.0;
    let terms = C.iter().zip(1_u8..);
    let sum: f64 = terms.map(|(c, i)| c / (z + f64::from(i))).sum();
    let t = z + 7.5;
    0.5 * std::f64::consts::TAU.ln() + (z + 0.5) * t.ln() - t
        + (0.999_999_999_999_809_93 + sum).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of scipy.stats: `2 * t.sf(r * sqrt(f / (1 - r * r)), f)`.
    #[test]
    fn as_scipy_says() {
        for (r, freedom, p) in TABLE {
            let ours = two_sided(r, freedom);
            assert!(
                (ours / p - 1.0).abs() < 1e-9,
                "{r} {freedom}: {ours} and not {p}"
            );
        }
        assert_eq!(two_sided(1.0, 10.0), 0.0);
        assert_eq!(two_sided(0.0, 10.0), 1.0);
    }

    const TABLE: [(f64, f64, f64); 8] = [
        (0.1, 3.0, 0.8728885715695383),
        (0.5, 1.0, 0.6666666666666666),
        (0.01, 500.0, 0.823145907659192),
        (0.1, 500.0, 0.025054006060311104),
        (0.3, 480.0, 1.7588489063327595e-11),
        (0.9, 20.0, 1.1878678119328746e-08),
        (0.05, 100000.0, 2.220603722332859e-56),
        (0.99, 200.0, 4.3702975008885366e-172),
    ];
}
