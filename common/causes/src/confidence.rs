//! How likely a suspect is a root, as a probability that holds.
//!
//! A logistic model over how clearly it leads, how unusual the strongest finding is, and how
//! much history there was: monotone in each.

use crate::diagnose::Grade;

/// Log odds of a suspect with half of what is unexplained, at the usual.
const BIAS: f32 = -1.0;
/// For each unit of the log odds of its share.
const SHARE: f32 = 1.0;
/// For each e-fold beyond the usual.
const TIMES: f32 = 0.5;
/// Without full history.
const COLD: f32 = -0.5;
/// With clocks that disagree, circles, or an alarm that nobody can place.
const DOUBT: f32 = -1.0;

/// Probability in `0.0..=1.0`.
pub(crate) fn of(share: f32, times: f32, grade: Grade, doubtful: bool) -> f32 {
    let share = share.clamp(0.01, 0.99);
    let times = libm::logf(times.clamp(1.0, 20.0));
    let mut odds = BIAS + SHARE * libm::logf(share / (1.0 - share)) + TIMES * times;
    match grade {
        Grade::Full => {}
        Grade::Cold => odds += COLD,
    }
    if doubtful {
        odds += DOUBT;
    }
    1.0 / (1.0 + libm::expf(-odds))
}
