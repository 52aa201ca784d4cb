//! The vocabulary that agent, coordinator and a microcontroller share.
//!
//! One loop runs at every tier: `sense -> detect -> diagnose -> plan -> verify
//! -> execute -> learn`. The types that pass between its stages live here,
//! together with the symbolic rules and the gate ([`gate::verify`]) that alone
//! builds a [`gate::VerifiedPlan`], the plan transaction ([`transaction`]), plans
//! across nodes ([`saga`]) and the wire format ([`wire`]).
//!
//! `no_std` with `alloc`; no IO, no clock, no global randomness, no unsafe.
//! Time arrives as [`units::Micros`].

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod anomaly;
pub mod budget;
pub mod errors;
pub mod gate;
pub mod hlc;
pub mod ids;
pub mod net;
pub mod observation;
pub mod outcome;
pub mod plan;
pub mod primitive;
pub mod saga;
pub mod state;
pub mod suspect;
pub mod transaction;
pub mod units;
pub mod wire;
