//! Episodes of the fleet simulator as data to learn from.
//!
//! In go an incident, a topology, seeds and a healer; out comes a recording, a folder with
//! three tables ([`rows`]) as Parquet or JSON lines of the same rows, and a manifest. What
//! a healer saw lies apart from what was hidden from it, in a file and a type of its own.
//! Episodes can be forked: plans left to chance from states that a healer met, with how
//! likely each was. A recording holds the texts that it was run from, so [`replay`] can
//! run it again and prove that it is the same to the last bit, on any machine.
//!
//! It draws nothing and learns nothing, and reads no clock. Which incidents may be learned
//! from says [`homeostat_sim::fault::may_learn`]; whoever records asks it.

mod cell;
pub mod dataset;
mod error;
pub mod record;
pub mod replay;
pub mod rows;
pub mod table;

pub use self::cell::Row;
pub use self::error::RecordError;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
