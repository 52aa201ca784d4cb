//! Detectors on public recordings, by published protocols, and the form of all results.
//!
//! One module for each set of recordings: it reads a folder in the layout of that set, runs
//! our detectors and the baselines beside them, scores both by the protocol, and answers with
//! a [`result::Report`]. Nothing here is part of a product; the detectors are those that ship.
//!
//! Light on purpose: it links neither agent nor coordinator.

pub mod cost;
pub mod loghub;
pub mod nab;
pub mod openstack;
pub mod rca;
pub mod recording;
pub mod result;
pub mod skab;
pub mod smap;
pub mod stats;
