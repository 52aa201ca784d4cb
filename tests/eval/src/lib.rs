//! The experiments behind every number in the docs, and what the demo shares with them.
//!
//! [`stage`] runs the whole system as real processes; [`audit`] compares what the
//! coordinator holds with what must be; [`result`] and [`stats`] are the form in which all
//! experiments answer; [`experiments`] are they. Truth comes from the injector and the
//! outside prober of the testbed, never from the program's own claims.

pub mod audit;
pub mod experiments;
pub mod stage;

pub use homeostat_protocols::{result, stats};
