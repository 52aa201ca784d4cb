//! What a healer may see of a world.
//!
//! In goes a world, at the healer's own pace; out comes [`Seen`]: per node an
//! [`Observation`] in the vocabulary of the real agent, and what the agent's vocabulary
//! has no word for (routes, models, links). Everything is noisy, some of it is missing, some
//! late, and stamped by a clock that may be wrong; alarms are thresholds and a few false
//! ones; logs are counted templates, most of which mean nothing.
//!
//! Hidden state never passes: quality, roots, burdens. An [`Observer`] belongs to one
//! episode and remembers what it has seen before, for what comes late. It draws from its
//! own stream of chance, so looking changes nothing in the world.

mod expected;
mod gauges;
mod lines;
mod look;
mod template;
#[cfg(test)]
mod tests;

pub use self::look::{LOOK_MAX_S, LinkReading, ModelReading, Observer, RouteReading, Seen};
pub use self::template::Template;
pub(crate) use self::template::{
    CLEAR_RATE, COUPLING_RATE, DISTRACTORS, GREY_RATE, of_break, of_hold, of_mechanism,
};

pub(crate) use self::expected::{Expected, Told, lines};

#[cfg(doc)]
use homeostat_common::observation::Observation;
