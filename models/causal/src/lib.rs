//! What an action does, what would have been, and which edges data propose.
//!
//! In: a graph of causes with hidden ones ([`graph`]), and data. Out: whether the effect of an
//! action follows from what was observed, by which expression, or why not ([`identify`]); its
//! value ([`estimate`]; [`linear`] for continuous values); what would have happened under
//! another action in one incident ([`counterfactual`]); and links that time series propose
//! ([`discover`]). [`truth`] holds small models whose effects are known exactly, to check the
//! rest against.
//!
//! Pure and deterministic: no file, no clock, no thread; chance comes from a seed. Discovery
//! is advisory: it proposes, topology and interventions decide. Nothing here acts.
//!
//! ```
//! use homeostat_causal::estimate::{Table, estimate};
//! use homeostat_causal::graph::Admg;
//! use homeostat_causal::identify::identify;
//!
//! let graph: Admg = "load -> restart, load -> healed, restart -> healed".parse()?;
//! let (healed, restart) = (graph.set(["healed"])?, graph.set(["restart"])?);
//! let effect = identify(&graph, healed, restart)?;
//! assert_eq!(
//!     effect.text(&graph),
//!     "P(healed | do(restart)) = sum[load] P(healed | load, restart) P(load) (back-door given {load})"
//! );
//! // Rows of past incidents, values in the order of the vertices: load, restart, healed.
//! let rows = [[0, 1, 1], [0, 0, 1], [1, 1, 1], [1, 1, 0], [1, 0, 0]];
//! let table = Table::count(&[2, 2, 2], &rows, 0.0)?;
//! let found = estimate(&graph, &effect, &table, &[(graph.vertex("restart")?, 1)])?;
//! assert!((found.probability(&[1]) - 0.7).abs() < 1e-9);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
