//! Weights of what speaks for a component.

use crate::weigh::PLACES;

/// By place, in hundredths.
pub(crate) const HUNDREDTHS: [i16; PLACES] = [0; PLACES];
