//! Which component is the root of an alarm, on recordings of real systems with known faults.
//!
//! The label of a fault is read by the scoring alone. Beside our diagnosis stand short versions
//! of what others do: chance, the robust z of each component, traversal of anomalous callees, a
//! random walk, and regression on callees in the manner of CIRCA (Li et al. 2022). Ranks are
//! strict: equal scores are ordered by place in the graph, never by truth.
//!
//! Another set is one more module with `run`, and one more arm where the command is read.

mod baselines;
mod calibrate;
mod case;
pub mod nezha;
pub mod petshop;
mod score;
mod wide;

pub(crate) use case::{Case, Metric};
