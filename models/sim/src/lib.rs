//! The fleet simulator: edge nodes with services, faults and healing, as a seeded,
//! pure state machine.
//!
//! In go a topology ([`topology`]), an incident ([`fault`]), a seed, and the plans that a
//! healer orders, in the same language as on a real node; out come states, tick by tick
//! ([`world`]), and what the healer may see of them. The same seed gives the same bytes on
//! every machine: each transcendental comes from libm, nothing is hashed, chance is a
//! function of what it is for ([`chance`]).
//!
//! Does no IO, reads no clock, and decides nothing: policies live elsewhere, and hidden
//! state is no type that they could name.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod certify;
pub mod chance;
pub mod episode;
pub mod fault;
pub mod observe;
pub mod policy;
pub mod queue;
pub mod text;
pub mod topology;
pub mod world;
