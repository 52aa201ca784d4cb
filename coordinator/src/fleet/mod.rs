//! What the coordinator knows about the fleet, as it is shown to people and
//! tools.
//!
//! [`view`] holds the types of the API, [`presence`] who is connected,
//! [`timeline`] the causal order of an incident, [`metrics`] the counters.

pub mod metrics;
pub mod presence;
pub mod timeline;
pub mod view;
