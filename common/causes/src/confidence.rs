//! How likely a suspect is a root, as a probability that holds.
//!
//! A logistic model of the log odds of the suspect's share of all that is unexplained, of which
//! only that part counts that chance does not explain: alone behind what is hardly beyond the
//! usual, somebody has all of it, and is the root one time in ten.

/// Coefficients of the logistic model. Fitted on the 16,692 suspects that own excess names in the
/// simulator's training incidents (one seed each and 600 more that were drawn from the grammar, in
/// three views: all of it, without what is rarely measured, and with kinds of signals left out at
/// random), and with the same weight on the 78 of PetShop's 12 training issues in six views. The
/// first suspect's error of calibration is 0.10 and 0.05 there; on development incidents, which more
/// often show who it is, 0.19, too modest. By shares alone, fitted on PetShop,
/// it was 0.24 in the simulator: 0.94 sure of what is less than 1.6 times the usual, and right in
/// 2 of 22.
const BIAS: f32 = 0.97;
/// For each unit of the log odds of its share.
const SHARE: f32 = 1.17;
/// With clocks that disagree, circles, or an alarm that nobody can place. Not fitted, as no
/// training issue has such input: odds are divided by e.
const DOUBT: f32 = -1.0;

/// Log odds of a root by its share and by how many times what is usual the strongest finding is.
/// Both ends are capped at a hundredth, so that nobody is certain.
pub(crate) fn odds(share: f32, times: f32) -> f32 {
    let beyond = libm::logf(times.max(1.0));
    let chance = libm::expf(-beyond * beyond);
    let share = (share * (1.0 - chance)).clamp(0.01, 0.99);
    BIAS + SHARE * libm::logf(share / (1.0 - share))
}

/// A probability that a doubt lowers.
pub(crate) fn lowered(probability: f32) -> f32 {
    of(libm::logf(probability / (1.0 - probability)), true)
}

/// Probability in `0.0..=1.0` from log odds.
pub(crate) fn of(odds: f32, doubtful: bool) -> f32 {
    let doubt = if doubtful { DOUBT } else { 0.0 };
    1.0 / (1.0 + libm::expf(-(odds + doubt)))
}
