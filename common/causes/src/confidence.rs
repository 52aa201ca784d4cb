//! How likely a suspect is a root, as a probability that holds.
//!
//! A logistic model of the log odds of the suspect's share of all that is unexplained, of which
//! only that part counts that chance does not explain: alone behind what is hardly beyond the
//! usual, somebody has all of it, and is the root one time in ten.

/// Coefficients of the logistic model, and how soon chance explains nothing any more: of what is
/// `x` times the usual it explains `x^(-1/CHANCE)`. Fitted on the 16,692 suspects that own excess
/// names in the simulator's training incidents (one seed each, 600 more that were drawn from the
/// grammar, in three views: all of it, without what is rarely measured, and with kinds of signals
/// left out at random). Of the shares alone, fitted on PetShop's 12 training issues, the error of
/// calibration of the first suspect there was 0.24; it is 0.07.
const BIAS: f32 = 1.05;
/// For each unit of the log odds of its share.
const SHARE: f32 = 1.08;
const CHANCE: f32 = 3.0;
/// With clocks that disagree, circles, or an alarm that nobody can place. Not fitted, as no
/// training issue has such input: odds are divided by e.
const DOUBT: f32 = -1.0;

/// Log odds of a root by its share and by how many times what is usual the strongest finding is.
/// Both ends are capped at a hundredth, so that nobody is certain.
pub(crate) fn odds(share: f32, times: f32) -> f32 {
    let chance = libm::powf(times.max(1.0), -1.0 / CHANCE);
    let share = (share * (1.0 - chance)).clamp(0.01, 0.99);
    BIAS + SHARE * libm::logf(share / (1.0 - share))
}

/// Probability in `0.0..=1.0` from log odds.
pub(crate) fn of(odds: f32, doubtful: bool) -> f32 {
    let doubt = if doubtful { DOUBT } else { 0.0 };
    1.0 / (1.0 + libm::expf(-(odds + doubt)))
}
