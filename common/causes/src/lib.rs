//! Which component is the root of an alarm, and which only suffers from it?
//!
//! A structural causal model over a known graph: what a component shows (latency, errors,
//! quality) is what its callees hand up, by volume, plus something of its own. The part that
//! callees do not explain is its *own excess*; who has more of it than it ever had in normal
//! times is suspected. Resources and the order of events (`events`) are a component's own from
//! the start. With little history the two or three samples before the alarm must do, and the
//! noise is taken from what all components do together and from their volumes.
//!
//! In: a [`Graph`], [`Signals`] (a sliding, bounded history of each component), an [`Alarm`].
//! Out: a [`Diagnosis`]: ranked suspects with confidence, evidence in words, who is explained
//! by whom, and the [`Probe`] that tells the first two apart. No suspects means that nothing
//! happened beyond what is usual.
//!
//! It knows nothing of names: no component is likelier than another before the data speak.
//! Blind to a fault whose signals stay within their normal range, to one that acts through a
//! dependency that the graph lacks, and to whatever was already wrong in the whole history.
//!
//! ```
//! use core::time::Duration;
//! use homeostat_causes::{Alarm, Graph, Kind, Signals, diagnose};
//!
//! let mut graph = Graph::default();
//! let front = graph.add("front").unwrap();
//! let store = graph.add("store").unwrap();
//! graph.calls(front, store, None).unwrap();
//! let mut signals = Signals::keeping(120);
//! let slow = [front, store].map(|of| signals.series(of, Kind::Latency, "mean").unwrap());
//! for minute in 0..63_u16 {
//!     let at = Duration::from_secs(u64::from(minute) * 60);
//!     let noise = f32::from(minute * 7 % 5) / 1000.0;
//!     let fault = if minute < 60 { 0.0 } else { 0.3 };
//!     signals.push(slow[0], at, 0.15 + noise + fault, 100.0);
//!     signals.push(slow[1], at, 0.10 + noise + fault, 100.0);
//! }
//! let alarm = Alarm::of(front, Kind::Latency, Duration::from_secs(3600));
//! let diagnosis = diagnose(&graph, &signals, &alarm);
//! assert_eq!(diagnosis.suspects[0].component, store);
//! assert_eq!(diagnosis.explained_away[0].component, front);
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod confidence;
mod diagnose;
mod events;
mod evidence;
mod explain;
mod frame;
mod graph;
pub mod group;
mod own;
mod reason;
mod resource;
mod robust;
mod settings;
mod signals;
mod signs;
mod topic;
pub mod weigh;
mod weighed;
mod weights;

pub use diagnose::{Alarm, Diagnosis, Explained, Grade, Suspect, diagnose, diagnose_with};
pub use events::{Event, Events, PAIRS_MAX, TOPICS_MAX};
pub use evidence::{Doubt, Evidence, Probe};
pub use graph::{CALLS_MAX, COMPONENTS_MAX, Component, Graph, Refusal, Role};
pub use reason::{Below, Far, Others, Reason, Series, Sign, Weighed, Whose};
pub use settings::{SETTINGS, Settings};
pub use signals::{KEEP_MAX, Kind, Level, SERIES_MAX, SeriesId, Signals, VALUE_MAX};
pub use topic::{Topic, Topics};
