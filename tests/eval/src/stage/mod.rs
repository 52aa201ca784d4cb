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

/// A `[limits]` section in which nothing holds an agent of a mode back: each fault of an
/// experiment is to be healed, each order carried out, as if it were the first.
fn unbounded(mode: &str) -> String {
    format!(
        r#"[limits]
mode = "{mode}"
hold = "0s"
budget = {{ mission = 1.0, business = {{ floor = 1.0, ceiling = 1.0 }}, best_effort = {{ floor = 1.0, ceiling = 1.0 }} }}
quarantine = {{ count = 100, within = "1s", hold = "1s" }}
contest = {{ count = 100, within = "1s", hold = "1s" }}
restart = {{ burst = 100, within = "1s", backoff_min = "1ms" }}
"#
    )
}

/// Keys of `[mqtt]` and the sections behind it, of an agent that acts and is held back by
/// nothing.
pub(crate) fn eager(reconnect_min: &str, reconnect_max: &str) -> String {
    format!(
        r#"reconnect_min = "{reconnect_min}"
reconnect_max = "{reconnect_max}"

{}
[sample]
period = "250ms""#,
        unbounded("act")
    )
}
