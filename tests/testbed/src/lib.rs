//! Real services, real faults, and an outside observer that tells when they healed.
//!
//! The demo, the experiments and the end-to-end tests share this crate, so that a number
//! measured by one means the same in the others:
//!
//! - [`service`]: small services, each a process of its own, alone or as a chain from a gateway
//!   through a model to a store; a host binary becomes one by calling [`service_main`].
//! - [`inject`]: kills, stops, deadlocks, leaks, slowness, frozen metrics, corrupted and bad
//!   models, bad configurations, full disks and quotas.
//! - [`load`]: an open-loop client of the gateway that counts what was lost.
//! - [`prober`]: one thread per service that asks it, up to every 0.2 ms, and records when it
//!   failed and when it was right again. It knows nothing about who heals.
//! - [`users`]: who come, wait for so long and try again.
//! - [`proxy`]: a link that delays, stalls, cuts and garbles.
//! - [`supervisor`]: the plain restart loop that measurements compare with.
//! - [`stress`] loads the machine, [`ports`] reserves loopback ports, [`clock`] is the one
//!   clock all of them read.
//!
//! Nothing here is mocked, and nothing here heals anything beyond the supervisor's restart.

pub mod cage;
pub mod clock;
pub mod inject;
pub mod load;
pub mod ports;
pub mod prober;
pub mod proxy;
pub mod service;
pub mod stress;
pub mod supervisor;
pub mod users;

pub use cage::Cage;
pub use clock::Moment;
pub use load::{Answers, Load, LoadSpec};
pub use ports::{Port, ports};
pub use prober::{Expect, Healed, Prober};
pub use service::{
    EXIT_CONFIG, Kind, MODEL_NAME, SERVICE_ARG, ServiceSpec, UnitCall, UnitSpec, service_main,
};
pub use supervisor::{Supervisor, SupervisorPolicy};
