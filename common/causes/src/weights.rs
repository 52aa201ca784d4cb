//! Weights of what speaks for a component.

use crate::weigh::PLACES;

/// By place.
pub const WEIGHTS: [f32; PLACES] = [0.0; PLACES];
