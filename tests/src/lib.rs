//! What the scenarios stand on: a node that can be broken in every way ([`sim`]), and a
//! fleet under a plan of several nodes ([`fleet`]), in one thread and in no time.

#![warn(missing_docs)]

mod entry;
pub mod fleet;
pub mod sim;
