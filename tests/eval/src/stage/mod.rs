//! A whole system on one machine: broker, coordinator, one node or three of them with spawner,
//! agent, forwarder and services, each a process of its own, started by this program executing itself again.
//!
//! Needs no root, no installed package and no fixed port. What was started ends with the
//! program, however that ends: [`Process`] ends it on drop and on a panic, and the kernel
//! does when this program is killed (see [`role`]).

mod api;
pub mod bed;
mod cloud;
mod fleet;
pub mod interrupt;
mod node;
mod parts;
mod process;
pub mod role;
pub mod strace;
pub mod trio;

pub use api::Api;
pub use bed::Bed;
pub use cloud::{BrokerKind, Cloud};
pub use fleet::{Fleet, FleetSettings, infer_tables};
pub use node::{Life, MODEL_VERSION, NODE, Node, Settings};
pub(crate) use node::{MANIFEST, MODEL};
pub use parts::{Part, Parts, Route};
pub use process::{Process, log_tail};
