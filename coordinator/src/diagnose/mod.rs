//! What is behind the incidents of a fleet.
//!
//! In: incidents, records and aggregates as nodes told them. Out: what people read beside them.
//! [`class`] names the class of a failure; [`graph`] knows who needs whom, [`causes`] ranks who
//! is behind an incident and draws it with [`picture`], [`ranking`] from what nodes measured
//! ([`readings`]); [`groups`] finds what has one cause, [`why`] answers for a service,
//! [`impact`] says whom it reached, [`past`] what would have been otherwise, [`discover`] which
//! links measurements propose.
//!
//! Nothing of it is stored, and nothing is acted upon: nodes heal by their own diagnosis.

pub mod causes;
pub mod class;
pub mod discover;
pub mod graph;
pub mod groups;
pub mod impact;
pub mod past;
pub mod picture;
pub mod ranking;
pub mod readings;
pub mod why;
