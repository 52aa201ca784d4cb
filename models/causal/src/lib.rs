//! What an action does, what would have been, and which edges data propose.
//!
//! In: a graph of causes with hidden ones ([`graph`]), and data. Out: whether the effect of an
//! action follows from what was observed, by which expression, or why not ([`identify`]); its
//! value ([`estimate`]); what would have happened under another action in one incident
//! ([`counterfactual`]); and links that time series propose ([`discover`]). [`truth`] holds
//! small models whose effects are known exactly, to check the rest against.
//!
//! Pure and deterministic: no file, no clock, no thread; chance comes from a seed. Discovery
//! is advisory: it proposes, topology and interventions decide. Nothing here acts.

pub mod counterfactual;
pub mod criterion;
pub mod discover;
pub mod estimate;
pub mod expression;
pub mod graph;
pub mod hedge;
pub mod identify;
pub mod linear;
pub mod series;
pub mod truth;

mod student;
