//! The coordinator: takes in what the nodes of a fleet record, and shows it.
//!
//! In: records on `up/{stream}` and statuses over MQTT. Out: cumulative
//! acknowledgements, a JSON API, a web page, Prometheus metrics. The database is
//! the only truth; a record is acknowledged after the commit that holds it and
//! its effect. The coordinator heals nothing: nodes do that without it.

#![warn(missing_docs)]

pub mod cli;
pub mod control;
pub mod diagnose;
pub mod fleet;
pub mod io;

pub use cli::main_from;

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
