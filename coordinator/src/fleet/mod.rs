//! What the coordinator knows about the fleet, as it is shown to people and
//! tools.
//!
//! [`view`] and [`diagnosis`] hold the types of the API, [`plans`] those of plans across nodes, [`presence`] who is connected,
//! [`purpose`] which faults people put in,
//! [`timeline`] the causal order of events, [`story`] what was decided and done
//! about an incident, [`words`] an event in a line, [`beside`] what of other nodes has to do
//! with an incident, [`traffic`] where routes lead, [`metrics`] the counters, [`readings`]
//! what nodes measure.

pub mod beside;
pub mod diagnosis;
pub mod metrics;
pub mod plans;
pub mod presence;
pub mod purpose;
pub mod readings;
pub mod story;
pub mod timeline;
pub mod traffic;
pub mod view;
pub mod words;
