//! Real services, real faults, and an outside observer that tells when they healed.
//!
//! The demo, the experiments and the end-to-end tests share this crate, so that a number
//! measured by one means the same in the others. A host binary becomes a service by calling
//! [`service_main`]; [`ports`] reserves loopback ports, [`clock`] is the one clock all read.

pub mod clock;
pub mod ports;
pub mod service;

pub use clock::Moment;
pub use ports::{Port, ports};
pub use service::{Kind, SERVICE_ARG, ServiceSpec, service_main};
