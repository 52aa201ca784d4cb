//! How likely a suspect is a root, as a probability that holds.
//!
//! A logistic model of two features: the log odds of the suspect's share of all that is
//! unexplained, and how many times the usual the strongest finding is. Monotone in both. Little
//! history and doubtful input only ever lower it.

use crate::diagnose::Grade;

/// Coefficients of the logistic model: fitted on the suspects of the PetShop training issues in
/// all views (`homeostat-protocols`, example `rca`, `--explain` prints the fit).
const BIAS: f32 = -1.0;
/// For each unit of the log odds of its share.
const SHARE: f32 = 1.0;
/// For each e-fold beyond the usual.
const TIMES: f32 = 0.5;
/// Without full history.
const COLD: f32 = -0.5;
/// With clocks that disagree, circles, or an alarm that nobody can place. Not fitted, as no
/// training issue has such input: odds are divided by e.
const DOUBT: f32 = -1.0;

/// The features of a suspect: log odds of its share, log of how unusual the strongest finding
/// is. Both are capped, so that no single number makes it certain.
#[must_use]
pub fn features(share: f32, times: f32) -> [f32; 2] {
    let share = if share.is_finite() {
        share.clamp(0.01, 0.99)
    } else {
        0.01
    };
    let times = if times.is_finite() {
        times.clamp(1.0, 20.0)
    } else {
        1.0
    };
    [libm::logf(share / (1.0 - share)), libm::logf(times)]
}

/// Probability in `0.0..=1.0`.
pub(crate) fn of(share: f32, times: f32, grade: Grade, doubtful: bool) -> f32 {
    let [share, times] = features(share, times);
    let mut odds = BIAS + SHARE * share + TIMES * times;
    match grade {
        Grade::Full => {}
        Grade::Cold => odds += COLD,
    }
    if doubtful {
        odds += DOUBT;
    }
    1.0 / (1.0 + libm::expf(-odds))
}
