//! How likely a suspect is a root, as a probability that holds.
//!
//! A logistic model of the log odds of the suspect's share of all that is unexplained. How
//! unusual the strongest finding is and how much history there was were tried as well, and the
//! fit gave them no weight.

/// Coefficients of the logistic model: fitted on the 78 suspects of the 12 PetShop training
/// issues in six views each (`homeostat-protocols`, example `rca`, `--explain` prints the fit).
const BIAS: f32 = 0.09;
/// For each unit of the log odds of its share.
const SHARE: f32 = 1.55;
/// With clocks that disagree, circles, or an alarm that nobody can place. Not fitted, as no
/// training issue has such input: odds are divided by e.
const DOUBT: f32 = -1.0;

/// Log odds of a root by its share, which is capped at a hundredth from both ends, so that a
/// single suspect is not certain.
pub(crate) fn odds(share: f32) -> f32 {
    let share = share.clamp(0.01, 0.99);
    BIAS + SHARE * libm::logf(share / (1.0 - share))
}

/// Probability in `0.0..=1.0` from log odds.
pub(crate) fn of(odds: f32, doubtful: bool) -> f32 {
    let doubt = if doubtful { DOUBT } else { 0.0 };
    1.0 / (1.0 + libm::expf(-(odds + doubt)))
}
